"""How both databases carry out the statements of the send loop: none reads a table from end to end, none sorts."""

import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, insert, make_url, text, update
from sqlmodel import Session, col, select

from pipeline import events, ledger
from pipeline import publish as route
from pipeline.books import BatchRow, DeliveryRow, DeliveryState, IssueRow, IssueState, NoticeRow
from pipeline.config import WarmUp
from pipeline.database import Database
from pipeline.errors import CallRefused, DecisionNeeded, NotProcessed, Unclear
from pipeline.issue import Event, Kind, Notice, Parcel, Receipt
from pipeline.ledger import Decision
from subscribers import roll
from subscribers.models import Subscriber, Suppression, Why
from tests.conftest import FRIDAY, FakeProvider, World, build_world, by_reader_time
from tests.test_friday import Killed

pytestmark = pytest.mark.slow

READERS = 20_000
TABLES = {"deliveries", "subscribers", "suppressions", "batches", "notices"}

# What these hold is a part of the copies, calls or notices, however many there are.
PARTS = {"deliveries_pending", "deliveries_unknown", "batches_unsettled", "notices_waiting"}
# One row, the copies of one call, the copies of one reader (one an issue).
FEW: list[set[str]] = [{"id"}, {"rowid"}, {"ref"}, {"key"}, {"token"}, {"slot"}, {"batch_id"}, {"subscriber_id"}]

BEFORE_ENROLMENT = {"publish.draft", "publish.count_readers", "ledger.freeze"}
READS_ALL = {
    "ledger.enrol": "writes a copy for everybody on the roll, once an issue",
    "deliver._count": "the total that progress is told of, once a run",
    "ledger.report": "what a person asks for, once a run at its end",
    "ledger.resolve": "a person's decision, not a step of the loop",
    "hours.all_later": "PostgreSQL: how many wait for later hours, once an hour before the issue rests",
    "batches.left_since": "what has left today, once a run and only where there is a warm-up",
}
SORTS = {
    "events._gave_up_on": "one reader's copies, by issue",
    "ledger.enrol": "everybody on the roll, once an issue",
    "ledger.lost_sight_of": "the unknown ones, by their last attempt",
    "ledger.undecided": "issues, one a week",
    "batches.left_since": "PostgreSQL: the calls of today, once a run and only where there is a warm-up",
    "events.waiting": "PostgreSQL: what is still to be applied",
    "ledger.report": "the unknown ones and the hours, for a person",
    "claim._pending": "PostgreSQL: the copies that it has locked by their numbers, at most those of the calls that leave now",
    "batches.parcel_again": "PostgreSQL: the copies of one call",
    "batches.in_flight": "PostgreSQL: the calls that are out",
}


@dataclass(frozen=True)
class Statement:
    """What was said to the database, first by whom: the functions on the way to it, outermost first."""

    sql: str
    values: Any
    chain: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The functions without their modules."""
        return tuple(name.partition(".")[2] for name in self.chain)

    def excused_by(self, excuses: dict[str, str]) -> bool:
        return any(name in excuses for name in self.chain)


def chain_of(frame: FrameType | None) -> tuple[str, ...]:
    names: list[str] = []
    while frame:
        package, _, module = str(frame.f_globals.get("__name__", "")).partition(".")
        if package in ("pipeline", "subscribers") and module not in ("database", "collect", "inbox"):
            names.append(f"{module}.{frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(name for name in reversed(names) if not name.endswith((">", ".write")))


@contextmanager
def overheard(database: Database) -> Iterator[list[Statement]]:
    """Every statement that changes or reads a row, once for each way to it."""
    said: dict[tuple[str, tuple[str, ...]], Statement] = {}

    def listen(_connection: Any, _cursor: Any, sql: str, values: Any, _context: Any, many: bool) -> None:  # noqa: FBT001 - SQLAlchemy's
        chain = chain_of(sys._getframe(1))
        if (
            chain
            and not BEFORE_ENROLMENT & set(chain)
            and sql.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")
        ):
            one = values[0] if many and isinstance(values, list) else values
            said.setdefault((sql, chain), Statement(sql, one, chain))

    heard: list[Statement] = []
    event.listen(database.engine, "before_cursor_execute", listen)
    try:
        yield heard
    finally:
        event.remove(database.engine, "before_cursor_execute", listen)
        heard += said.values()


@dataclass
class Scripted(FakeProvider):
    """Does to each call what the script says, and takes those after it."""

    script: Sequence[str] = ()
    bad: str = ""
    calls: int = 0

    def send(self, issue: Any, parcel: Parcel) -> list[Receipt]:
        self.calls += 1
        what = self.script[self.calls - 1] if self.calls <= len(self.script) else ""
        what = "refused" if self.bad in [copy.address for copy in parcel.copies] else what
        if what == "mixed":
            first, second, third, *_ = [copy.ref for copy in parcel.copies]
            return [
                Receipt(first, accepted=True, provider_id="1"),
                Receipt(second, accepted=False),
                Receipt(third, accepted=False, later=True),
            ]
        trouble: dict[str, BaseException] = {
            "busy": NotProcessed("busy", timedelta(seconds=1)),
            "refused": CallRefused("a bad address"),
            "lost": Unclear("no answer"),
            "dead": Killed(),
        }
        if what:
            raise trouble[what]
        return super().send(issue, parcel)


KINDS = (Kind.HARD_BOUNCE, Kind.SOFT_BOUNCE, Kind.BLOCKED, Kind.COMPLAINED, Kind.UNSUBSCRIBED, Kind.DELIVERED, Kind.ACCEPTED)


def send(
    world: World, ends: type[BaseException] | None, script: str = "", *, size: int = 4, most_today: int = 0, **options: Any
) -> None:
    """Publish through a provider that does what the script says."""
    config = world.newsroom.config
    if most_today:
        config = replace(config, warm_up=WarmUp(begins=date(2026, 11, 27), first_day=most_today))
    provider = Scripted(size, script=[word.strip("-") for word in script.split()], **options)
    newsroom = replace(world.newsroom, config=config, provider=provider, resend_unknown="has_log" in provider.more)
    with pytest.raises(ends) if ends else nullcontext():
        route.publish(newsroom, world.slot)
    if ends is Killed:
        # Its runner is this very process, which lives on.
        world.clock.at += timedelta(minutes=6)


def play(world: World) -> None:
    """A Friday on which everything happens that the send loop can meet."""
    day = timedelta(hours=24)
    log = {"has_log": True, "log_lag": timedelta(0)}
    world.tell_a_week()
    world.subscribe(*(f"reader{number}" for number in range(60)))
    send(world, Unclear, "- mixed busy lost lost")
    with world.database.write() as session:
        roll.unsubscribe(session, "reader20@example.com", world.clock())
        roll.suppress(session, "reader21@example.com", Why.MANUAL, world.clock())
        session.delete(roll.by_key(session, "reader22@example.com"))
    send(world, Killed, "lost dead", key_lifetime=day)
    send(world, Killed, "- dead")
    # One by one, and so with many calls at each turn.
    send(world, DecisionNeeded, size=1, most_today=30, more=log)
    route.resume(world.newsroom, world.slot)
    route.pause(world.newsroom, world.slot)
    route.resume(world.newsroom, world.slot)
    send(world, None, bad="reader50@example.com")
    with world.database.read() as session:
        issue = ledger.find(session, world.slot.name)
        assert issue is not None
        assert issue.state == IssueState.NEEDS_DECISION
        lost = [each.copy.ref for each in ledger.lost_sight_of(session, issue)]
        refs = list(session.exec(select(DeliveryRow.ref).order_by(col(DeliveryRow.id))))
    found = FakeProvider(4, log={lost[0]: Receipt(lost[0], accepted=True)}, more=log)
    route.look_up_unknown(world.with_provider(found))
    with world.database.write() as session:
        events.keep(session, "fake", [Notice(str(number), "{}") for number in range(20)], world.clock())
    for number, kind in enumerate(KINDS):
        with world.database.write() as session:
            (notice, *_) = events.waiting(session, 500)
            assert events.finish(session, notice, world.clock())
            events.apply(session, Event(kind, refs[number], "someone@example.com"), world.clock())
    route.resolve(world.newsroom, world.slot, Decision.SKIP, "reader5@example.com")
    send(world, None, "lost", more=log)
    route.resolve(world.newsroom, world.slot, Decision.ACCEPTED)


FIRST_HOUR, SECOND_HOUR, LAST_HOUR = (datetime(2026, 11, *at, tzinfo=UTC) for at in ((26, 19), (27, 0), (27, 21)))
ZONES = ("Pacific/Kiritimati", "Asia/Tokyo", "Etc/GMT+12")


def put_into_zones(world: World) -> None:
    with world.database.write() as session:
        for place, zone in enumerate(ZONES):
            session.execute(update(Subscriber).where(col(Subscriber.id) % len(ZONES) == place).values(zone=zone))


def play_by_hours(world: World) -> None:
    """A Friday of readers' hours, with a reader of each who leaves before it."""
    world.tell_a_week()
    world.subscribe(*(f"reader{number}" for number in range(60)))
    put_into_zones(world)
    send(world, DecisionNeeded)
    world.clock.at = FIRST_HOUR
    send(world, DecisionNeeded, "- mixed busy")
    with world.database.write() as session:
        for number in (10, 11, 12):
            session.delete(roll.by_key(session, f"reader{number}@example.com"))
    world.clock.at = SECOND_HOUR
    send(world, DecisionNeeded, size=1)
    world.clock.at = LAST_HOUR
    send(world, None)


SAID_BY_HOURS = "_pending _skip_the_erased is_on_the_way goes_by_hours all_later enrol hours_of progress pause".split()
SAID_BY = """
_count _pending _new_batches _move _move_each _skip_the_erased in_flight is_on_the_way take_over parcel_again settle
_settle_one_by_one believe give_back let_go lose_sight reject left_since lost_sight_of found send_again enrol
close pause resume resolve apply keep waiting finish _copy_of _took _gave_up_on suppress unsubscribe
_hold_if_it_is_the_issue
""".split()


@dataclass(frozen=True)
class Step:
    """One step of a plan: what it reads, by which index if by one, and under which condition of that index."""

    table: str
    index: str
    condition: str
    said: str

    @property
    def is_narrow(self) -> bool:
        """Whether it reads some rows that an index leads to, and not all of a table or of an issue."""
        if self.table not in TABLES or self.index in PARTS:
            return True
        compared = set(re.findall(r"(\w+)\)?(?:::\w+)?(?: ?=| IS NULL)", self.condition))
        return any(compared >= columns for columns in FEW)


def steps_of_sqlite(connection: Connection, statement: Statement) -> Iterator[Step]:
    raw = connection.connection.cursor()
    for *_, said in raw.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.values):
        if "TEMP B-TREE" in said:
            yield Step("", "", "", said)
        elif found := re.match(
            r"(?:SCAN|SEARCH) (\w+)(?: USING(?: COVERING)? INDEX (\w+)| USING INTEGER PRIMARY KEY)?(?: \((.*)\))?", said
        ):
            table, index, condition = (each or "" for each in found.groups())
            yield Step(table, index, condition, said)


def steps_of_postgres(connection: Connection, statement: Statement, *, generic: bool) -> Iterator[Step]:
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement.sql)))
    sql = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement.sql).replace("%%", "%")
    raw = connection.connection.cursor()
    if generic:
        # What the server keeps for a statement that comes often, whatever its values are.
        raw.execute("SET plan_cache_mode = force_generic_plan")
        raw.execute(f"PREPARE said AS {sql}")
        nothing = f"({', '.join(['NULL'] * len(names))})" if names else ""
        raw.execute(f"EXPLAIN (FORMAT JSON) EXECUTE said {nothing}")
    else:
        raw.execute(f"EXPLAIN (FORMAT JSON) {statement.sql}", statement.values)
    ((plans,),) = raw.fetchall()
    if generic:
        raw.execute("DEALLOCATE said")
    yield from _steps(plans[0]["Plan"], {})


def _steps(plan: dict[str, Any], above: dict[str, Any]) -> Iterator[Step]:
    kind = plan["Node Type"]
    table = plan.get("Relation Name") or above.get("Relation Name", "")
    said = f"{kind} {table} {plan.get('Index Name', '')} {plan.get('Index Cond', '')}"
    if "Sort" in kind or kind == "HashAggregate":
        yield Step("", "", "", said)
    elif kind in ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"):
        yield Step(table, plan.get("Index Name", ""), plan.get("Index Cond", ""), said)
    for below in plan.get("Plans", ()):
        yield from _steps(below, plan)


def steps(connection: Connection, statement: Statement) -> Iterator[Step]:
    if connection.dialect.name == "sqlite":
        yield from steps_of_sqlite(connection, statement)
    else:
        for generic in (False, True):
            yield from steps_of_postgres(connection, statement, generic=generic)


def fill(world: World) -> None:
    """An issue that waits for its Friday, and one of the week before that went to everybody in calls of four."""
    world.tell_a_week()
    world.subscribe("first")
    route.approve(world.newsroom, world.slot)
    before = FRIDAY - timedelta(days=7)
    with world.database.write() as session:
        issue = ledger.find(session, world.slot.name)
        assert issue is not None
        values = issue.model_dump(exclude={"id"}) | {"slot": f"{before:%Y-%m-%d}", "number": 99, "state": IssueState.SENT}
        past = IssueRow(**values)
        session.add(past)
        session.flush()
        numbers = range(2, READERS + 1)
        many(
            session,
            Subscriber,
            [
                {
                    "id": each,
                    "address": f"{each}@example.com",
                    "key": f"{each}@example.com",
                    "token": f"{each:022}",
                    "name": "",
                    "state": "active",
                    "source": "",
                    "joined": before,
                }
                for each in numbers
            ],
        )
        many(
            session,
            Suppression,
            [{"key": f"{each}@example.org", "why": "manual", "note": "", "since": before} for each in range(READERS // 4)],
        )
        many(
            session,
            BatchRow,
            [
                {
                    "id": each,
                    "issue_id": past.id,
                    "key": f"{each}",
                    "digest": "",
                    "attempt": 1,
                    "runner": "",
                    "claimed_at": before,
                    "attempted_at": before,
                    "settled_at": before,
                }
                for each in range(1, READERS // 4 + 1)
            ],
        )
        many(
            session,
            DeliveryRow,
            [
                {
                    "issue_id": past.id,
                    "subscriber_id": each,
                    "ref": f"{each:032}",
                    "state": DeliveryState.ACCEPTED,
                    "suspect": False,
                    "batch_id": each // 4 or 1,
                    "resent": 0,
                    "provider_id": "",
                    "reason": "",
                    "fate": "delivered",
                    "changed_at": before,
                }
                for each in numbers
            ],
        )
        many(
            session,
            NoticeRow,
            [
                {
                    "origin": "fake",
                    "key": f"{each}",
                    "body": "",
                    "came_at": before,
                    "trouble": "",
                    "applied_at": before if each % 100 else None,
                }
                for each in range(READERS // 4)
            ],
        )
        if session.get_bind().dialect.name == "postgresql":
            for table in ("subscribers", "batches"):
                session.connection().execute(text(f"SELECT setval('{table}_id_seq', {READERS + 1})"))


def many(session: Session, table: Any, rows: list[dict[str, Any]]) -> None:
    session.connection().execute(insert(table), rows)


def stop_after(world: World, calls: int) -> None:
    stopping = threading.Event()
    provider = FakeProvider(1_000, after=lambda _parcel: stopping.set() if len(provider.parcels) == calls else None)
    with pytest.raises(DecisionNeeded):
        route.publish(replace(world.with_provider(provider), stopping=stopping), world.slot)


# How far the issue is when the database looks at its tables; it never does by itself here.
MOMENTS: dict[str, Callable[[World], object]] = {
    "of a database that has looked at nothing yet": lambda world: stop_after(world, 1),
    "with almost everything still to be sent": lambda _world: None,
    "with half of it sent": lambda world: stop_after(world, 9),
    "with all of it sent": lambda world: route.publish(world.with_provider(FakeProvider(1_000)), world.slot),
}


def hour_comes(world: World, at: datetime, ends: type[BaseException] | None) -> None:
    world.clock.at = at
    with pytest.raises(ends) if ends else nullcontext():
        route.publish(world.with_provider(FakeProvider(1_000)), world.slot)


def first_hour_begins(world: World) -> None:
    world.clock.at = FIRST_HOUR
    stop_after(world, 1)


MOMENTS_BY_HOURS: dict[str, Callable[[World], object]] = {
    "of a database that has looked at nothing yet": first_hour_begins,
    "with the first hour begun": lambda _world: None,
    "with two of three hours over": lambda world: hour_comes(world, SECOND_HOUR, DecisionNeeded),
    "with all of it sent": lambda world: hour_comes(world, LAST_HOUR, None),
}


@dataclass(frozen=True)
class Plan:
    """How a statement would be carried out at a moment."""

    statement: Statement
    moment: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return f"{' > '.join(self.statement.chain[-2:])}: {'; '.join(dict.fromkeys(step.said for step in self.steps))}"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Plan]]:
    """Every statement of a Friday on which everything happens, as it would be carried out on a large newsletter."""
    with two_worlds(request, tmp_path_factory) as worlds:
        yield explain(*worlds, play, MOMENTS)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plans_by_hours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Plan]]:
    """Every statement of a Friday on which each reader has an hour of their own, as it would be carried out."""
    with two_worlds(request, tmp_path_factory) as worlds:
        for world in worlds:
            world.newsroom = by_reader_time(world.newsroom)
            world.clock.at = world.slot.at
        yield explain(*worlds, play_by_hours, MOMENTS_BY_HOURS)


@contextmanager
def two_worlds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    """A newsroom to rehearse in and a large one, on the kind of database that is asked for."""
    rehearsal, large = (tmp_path_factory.mktemp(name) for name in ("rehearsal", "large"))
    if request.param == "sqlite":
        yield build_world(rehearsal, f"sqlite:///{rehearsal}/friday.db"), build_world(large, f"sqlite:///{large}/friday.db")
        return
    server = request.getfixturevalue("postgres")
    names = [f"friday_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    urls = [make_url(server).set(database=name).render_as_string(hide_password=False) for name in names]
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield build_world(rehearsal, urls[0]), build_world(large, urls[1])
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def explain(
    rehearsal: World, large: World, played: Callable[[World], None], moments: Mapping[str, Callable[[World], object]]
) -> list[Plan]:
    with overheard(rehearsal.database) as heard:
        played(rehearsal)
    rehearsal.database.engine.dispose()
    fill(large)
    put_into_zones(large)
    made = []
    for moment, come_to in moments.items():
        come_to(large)
        with large.database.engine.begin() as connection:
            if come_to is not next(iter(moments.values())):
                connection.execute(text("ANALYZE"))
            made += [Plan(each, moment, tuple(steps(connection, each))) for each in heard]
    large.database.engine.dispose()
    return made


def test_everything_that_the_loop_can_say_was_heard(plans: list[Plan]) -> None:
    assert set(SAID_BY) - {name for plan in plans for name in plan.statement.names} == set()


def test_no_statement_of_the_send_loop_reads_a_whole_table_or_issue(plans: list[Plan]) -> None:
    scans = [plan for plan in plans if not all(step.is_narrow for step in plan.steps)]
    none_but(READS_ALL, scans)


def test_no_statement_of_the_send_loop_sorts(plans: list[Plan]) -> None:
    none_but(SORTS, [plan for plan in plans if not all(step.table for step in plan.steps)])


LED_BY = {
    "_pending": {"deliveries_pending", "deliveries_pkey"},
    "is_on_the_way": {"deliveries_pending"},
    "settle": {"deliveries_of_batch"},
    "give_back": {"deliveries_of_batch"},
    "lose_sight": {"deliveries_of_batch"},
    "reject": {"deliveries_of_batch"},
    "parcel_again": {"deliveries_of_batch"},
    "_has_unknown": {"deliveries_unknown"},
    "lost_sight_of": {"deliveries_unknown"},
}


@pytest.mark.parametrize("function", LED_BY)
def test_the_copies_are_found_by_the_index_that_is_made_for_it(plans: list[Plan], function: str) -> None:
    by = {
        step.index
        for plan in plans
        if function in plan.statement.names[-2:]
        for step in plan.steps
        if step.table == "deliveries"
    }
    assert by <= LED_BY[function]
    assert by


def test_everything_that_is_said_of_hours_was_heard(plans_by_hours: list[Plan]) -> None:
    assert set(SAID_BY_HOURS) - {name for plan in plans_by_hours for name in plan.statement.names} == set()


def test_with_hours_no_statement_reads_more_or_sorts(plans_by_hours: list[Plan]) -> None:
    none_but(READS_ALL, [plan for plan in plans_by_hours if not all(step.is_narrow for step in plan.steps)])
    none_but(SORTS, [plan for plan in plans_by_hours if not all(step.table for step in plan.steps)])


def test_of_copies_that_are_not_due_the_claim_reads_the_index_alone(plans_by_hours: list[Plan]) -> None:
    claims = [plan for plan in plans_by_hours if "_pending" in plan.statement.names]
    steps = [step for plan in claims for step in plan.steps if step.table == "deliveries"]
    assert {step.index for step in steps} <= LED_BY["_pending"]
    by_order = [step for step in steps if step.index == "deliveries_pending"]
    assert by_order
    # SQLite tells here only of what it seeks by.
    assert all("due_at" in step.condition or "USING INDEX" in step.said for step in by_order)


def test_sqlite_looks_at_the_hour_in_the_index_before_it_goes_to_the_table(local_world: World) -> None:
    local_world.newsroom = by_reader_time(local_world.newsroom)
    local_world.clock.at = local_world.slot.at
    local_world.tell_a_week()
    local_world.subscribe("ada")
    with overheard(local_world.database) as heard:
        send(local_world, DecisionNeeded)
    (claim,) = [each for each in heard if "_pending" in each.names]
    with local_world.database.engine.connect() as connection:
        raw = connection.connection.cursor()
        steps = [row[1:5] for row in raw.execute(f"EXPLAIN {claim.sql}", claim.values)]
    # The place in the table is noted, and gone to when a value is asked for that the index lacks.
    at = next(place for place, (code, *_) in enumerate(steps) if code == "DeferredSeek")
    _, index, _, table = steps[at]
    reads = [(cursor, column) for code, cursor, column, _ in steps[at:] if code == "Column" and cursor in (index, table)]
    assert reads[0] == (index, 3), "due_at is the fourth column of the index"


def test_sqlite_counts_copies_by_indexes_and_reads_none_but_those_of_calls_that_are_out(local_world: World) -> None:
    local_world.clock.at = local_world.slot.at
    local_world.tell_a_week()
    local_world.subscribe("ada")
    with overheard(local_world.database) as heard:
        send(local_world, None)
    counts = [each for each in heard if each.names[-1] == "tally"]
    with local_world.database.engine.connect() as connection:
        told = [step.said for each in counts for step in steps(connection, each) if step.table == "deliveries"]
    assert {each for each in told if "COVERING INDEX" not in each} == {
        "SEARCH deliveries USING INDEX deliveries_of_batch (batch_id=?)"
    }
    assert any("COVERING INDEX deliveries_unusual" in each for each in told)


def none_but(excused: dict[str, str], wrong: list[Plan]) -> None:
    moments: dict[str, dict[str, None]] = {}
    for plan in wrong:
        if not plan.statement.excused_by(excused):
            moments.setdefault(str(plan), {})[plan.moment] = None
    assert not moments, "\n".join(f"{plan}: {' and '.join(when)}" for plan, when in moments.items())
