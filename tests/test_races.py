"""Who comes first: readers that leave while their copy is claimed, and several runners and events on one database."""

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col, func, select

from pipeline import events, ledger
from pipeline import publish as route
from pipeline.books import BatchRow, DeliveryRow, DeliveryState, IssueState
from pipeline.database import Database
from pipeline.errors import Unclear
from pipeline.issue import Event, Kind, Parcel, Receipt
from pipeline.ledger import Decision
from subscribers import roll
from subscribers.models import Subscriber, Why
from tests.conftest import FRIDAY, FakeProvider, World, build_world
from tests.fake_http import Call, Reply, fake_http
from tests.test_connections import PATIENCE, Busy, Gate, counts, ready, until

pytestmark = pytest.mark.slow

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    """Where the others act."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def is_postgresql(world: World) -> bool:
    return world.database.engine.dialect.name == "postgresql"


def somebody_waits(database: Database) -> bool:
    """Whether a connection of a PostgreSQL database waits for a lock."""
    with database.engine.connect() as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(connection.execute(text(waiting)).scalar())


def unsubscribe_by_link(session: Session, address: str) -> None:
    reader = roll.by_key(session, address)
    assert reader
    roll.unsubscribe_by_token(session, reader.token, FRIDAY)


def tell(kind: Kind) -> Callable[[Session, str], object]:
    return lambda session, address: events.apply(session, Event(kind, address=address), FRIDAY)


DEEDS: dict[str, Callable[[Session, str], object]] = {
    "unsubscribes": lambda session, address: roll.unsubscribe(session, address, FRIDAY),
    "unsubscribes by the link": unsubscribe_by_link,
    "is suppressed": lambda session, address: roll.suppress(session, address, Why.MANUAL, FRIDAY),
    "bounces for good": tell(Kind.HARD_BOUNCE),
    "complains": tell(Kind.COMPLAINED),
    "unsubscribes at the provider": tell(Kind.UNSUBSCRIBED),
    "is erased": lambda session, address: session.delete(roll.by_key(session, address)),
}


@dataclass(frozen=True)
class Watched(Database):
    """A database that tells when a write begins, and when one that has claimed copies is about to be committed."""

    begins: Callable[[], object] = lambda: None
    claimed: Callable[[], object] = lambda: None

    @contextmanager
    def write(self) -> Iterator[Session]:
        self.begins()
        with super().write() as session:
            yield session
            if session.exec(select(DeliveryRow.id).where(DeliveryRow.state == DeliveryState.SENDING)).first():
                self.claimed()


def once(act: Callable[[], object]) -> Callable[[], None]:
    todo = [act]

    def acts() -> None:
        if todo:
            todo.pop()()

    return acts


@pytest.mark.parametrize("deed", DEEDS)
def test_whoever_leaves_while_the_claim_is_open_waits_until_it_is_committed(
    world: World, other: Database, elsewhere: ThreadPoolExecutor, deed: str
) -> None:
    readers = ready(world, 6)
    order: list[str] = []
    left: list[Future[None]] = []

    def leave() -> None:
        with other.write() as session:
            DEEDS[deed](session, readers[0])
        order.append("left")

    def while_it_is_open() -> None:
        left.append(elsewhere.submit(leave))
        if is_postgresql(world):
            until(lambda: somebody_waits(world.database) or left[0].done())
        with suppress(TimeoutError):
            left[0].result(0.1)
        order.append("claimed")

    watched = Watched(world.database.url, claimed=once(while_it_is_open))
    sent = route.publish(replace(world.newsroom, database=watched), world.slot)
    watched.engine.dispose()
    left[0].result(PATIENCE)
    assert order == ["claimed", "left"]
    assert (sent.state, world.provider.got) == (IssueState.SENT, readers)
    assert route.count_readers(world.newsroom) == 5


@on_postgresql
@pytest.mark.parametrize("deed", DEEDS)
def test_who_is_not_in_the_claim_waits_for_nothing_and_is_not_mailed(
    world: World, other: Database, elsewhere: ThreadPoolExecutor, deed: str
) -> None:
    readers = ready(world, 6)

    def leave() -> None:
        with other.write() as session:
            DEEDS[deed](session, readers[5])

    watched = Watched(world.database.url, claimed=once(lambda: elsewhere.submit(leave).result(PATIENCE)))
    sent = route.publish(replace(world.newsroom, database=watched), world.slot)
    watched.engine.dispose()
    assert (world.provider.got, sent.counts["skipped"]) == (readers[:5], 1)


@pytest.mark.parametrize("deed", DEEDS)
def test_whoever_has_left_before_the_claim_begins_wins(world: World, other: Database, deed: str) -> None:
    readers = ready(world, 6)
    writes = itertools.count(1)

    def begins() -> None:
        # The first write enrols, the second one claims.
        if next(writes) == 2:
            with other.write() as session:
                DEEDS[deed](session, readers[0])

    watched = Watched(world.database.url, begins=begins)
    sent = route.publish(replace(world.newsroom, database=watched), world.slot)
    watched.engine.dispose()
    assert (world.provider.got, sent.counts["skipped"]) == (readers[1:], 1)


def make_impatient(database: Database) -> None:
    """Let who waits for a lock fail, since it would wait for the very thread that it is in."""
    database.engine.dispose()

    @event.listens_for(database.engine, "connect")
    def connect(raw: Any, _record: object) -> None:
        raw.execute("SET lock_timeout = '2s'")
        raw.commit()


def is_the_lock(sql: str) -> bool:
    return "SKIP LOCKED" in sql


@on_postgresql
@pytest.mark.parametrize("deed", DEEDS)
def test_whoever_has_left_before_the_claim_locks_wins_though_its_transaction_is_older(
    world: World, other: Database, deed: str
) -> None:
    readers = ready(world, 6)

    def leave() -> None:
        with other.write() as session:
            DEEDS[deed](session, readers[0])

    leave_once = once(leave)

    @event.listens_for(world.database.engine, "before_cursor_execute")
    def before(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if is_the_lock(sql):
            leave_once()

    sent = route.publish(world.newsroom, world.slot)
    assert (world.provider.got, sent.counts["skipped"]) == (readers[1:], 1)


@on_postgresql
@pytest.mark.parametrize("deed", DEEDS)
def test_whoever_leaves_between_the_lock_and_the_look_of_the_claim_wins(world: World, other: Database, deed: str) -> None:
    readers = ready(world, 6)
    make_impatient(world.database)
    open_one = ExitStack()

    def begin_to_leave() -> None:
        session = open_one.enter_context(other.write())
        DEEDS[deed](session, readers[0])
        session.flush()

    begin, commit = once(begin_to_leave), once(open_one.close)

    @event.listens_for(world.database.engine, "before_cursor_execute")
    def before(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if is_the_lock(sql):
            begin()

    @event.listens_for(world.database.engine, "after_cursor_execute")
    def after(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if is_the_lock(sql):
            commit()

    sent = route.publish(world.newsroom, world.slot)
    assert (world.provider.got, sent.counts["skipped"]) == (readers[1:], 1)


@on_postgresql
@pytest.mark.parametrize(
    "held",
    ["SELECT id FROM subscribers ORDER BY id LIMIT 2 FOR UPDATE", "SELECT id FROM deliveries ORDER BY id LIMIT 2 FOR UPDATE"],
    ids=["readers", "copies"],
)
def test_copies_that_somebody_else_holds_are_not_waited_for_and_come_later(world: World, other: Database, held: str) -> None:
    readers = ready(world, 6)
    route.approve(world.newsroom, world.slot)
    route._enrol(world.newsroom, world.slot, None)
    make_impatient(world.database)
    with other.engine.connect() as holding:
        holding.execute(text(held))
        provider = FakeProvider(after=lambda _parcel: holding.rollback() if len(provider.parcels) == 2 else None)
        sent = route.publish(world.with_provider(provider), world.slot)
    assert sent.state == IssueState.SENT
    assert provider.got == readers[2:] + readers[:2]


@on_postgresql
def test_copies_that_are_all_held_are_asked_for_again_and_not_forgotten(world: World, other: Database) -> None:
    readers = ready(world, 2)
    route.approve(world.newsroom, world.slot)
    route._enrol(world.newsroom, world.slot, None)
    make_impatient(world.database)
    with other.engine.connect() as holding:
        holding.execute(text("SELECT id FROM subscribers FOR UPDATE"))

        def wait(_seconds: float) -> None:
            holding.rollback()

        sent = route.publish(replace(world.newsroom, wait=wait), world.slot)
    assert (sent.state, world.provider.got) == (IssueState.SENT, readers)


@dataclass
class Shared(FakeProvider):
    """A provider at which several runners call."""

    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, issue: Any, parcel: Parcel) -> list[Receipt]:
        with self.lock:
            return super().send(issue, parcel)


@contextmanager
def hearing_deadlocks(*databases: Database) -> Iterator[list[str]]:
    heard: list[str] = []

    def listen(context: Any) -> None:
        if "deadlock" in str(context.original_exception):
            heard.append(str(context.statement))

    for each in databases:
        event.listen(each.engine, "handle_error", listen)
    yield heard


@pytest.mark.parametrize("runners", [2, 4])
def test_runners_share_an_issue_though_events_come_and_readers_leave(
    world: World, elsewhere: ThreadPoolExecutor, runners: int
) -> None:
    readers = ready(world, 80)
    route.approve(world.newsroom, world.slot)
    chance = random.Random(runners)  # noqa: S311 - a test
    told: SimpleQueue[Event] = SimpleQueue()
    leaving: SimpleQueue[str] = SimpleQueue()
    kinds = [Kind.DELIVERED, Kind.SOFT_BOUNCE, Kind.HARD_BOUNCE, Kind.COMPLAINED, Kind.UNSUBSCRIBED, Kind.ACCEPTED]

    def after(parcel: Parcel) -> None:
        # Events come before the receipts are settled, and readers leave whose copies may be in anybody's hands.
        for copy in parcel.copies:
            told.put(Event(chance.choice(kinds), copy.ref, copy.address))
        leaving.put(chance.choice(readers))

    provider = Shared(copies=3, after=after)
    databases = [Database(world.database.url) for _ in range(runners + 2)]
    together = threading.Barrier(runners)

    def run(database: Database) -> str:
        newsroom = replace(world.with_provider(provider), database=database, wait=lambda _seconds: time.sleep(0.01))
        together.wait(PATIENCE)
        return route.publish(newsroom, world.slot).state

    def drain(database: Database, queue: SimpleQueue[Any], act: Callable[[Session, Any], object]) -> None:
        while not all(each.done() for each in running) or not queue.empty():
            with suppress(Empty):
                item = queue.get(timeout=0.02)
                with database.write() as session:
                    act(session, item)

    with hearing_deadlocks(*databases) as deadlocks:
        running: list[Future[Any]] = [elsewhere.submit(run, database) for database in databases[2:]]
        others = [
            elsewhere.submit(drain, databases[0], told, lambda session, item: events.apply(session, item, FRIDAY)),
            elsewhere.submit(drain, databases[1], leaving, lambda session, item: roll.unsubscribe(session, item, FRIDAY)),
        ]
        assert [each.result(60) for each in running] == [IssueState.SENT] * runners
        assert [each.result(60) for each in others] == [None, None]
    for database in databases:
        database.engine.dispose()
    report = route.report(world.newsroom, world.slot)
    assert deadlocks == []
    assert len(provider.got) == len(set(provider.got)) == report.counts["accepted"]
    assert report.counts["accepted"] + report.counts["skipped"] == report.enrolled == 80
    assert report.counts["skipped"] < 80


def test_processes_share_an_issue_and_everybody_gets_one_copy(tmp_path: Path, database_url: str) -> None:
    together = threading.Barrier(2)

    def reply(number: int, _call: Call) -> Reply:
        # Each process makes one call at a time, so the first two come from both.
        if number <= 2:
            together.wait(60)
        return Reply()

    with fake_http() as fake:
        fake.reply = reply
        provider = f'name = "mailgun"\ndomain = "news.example.com"\nbase_url = "{fake.url}"\nbatch_size = 20\nconcurrency = 1'
        world = build_world(tmp_path, database_url, provider)
        readers = ready(world, 400)
        route.approve(world.newsroom, world.slot)
        command = [sys.executable, "-m", "pipeline", "--config", str(tmp_path / "config.toml"), "publish", world.slot.name]
        environment = {**os.environ, "FRIDAY_PROVIDER_KEY": "secret"}
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with ExitStack() as stack:
            both = [
                stack.enter_context(subprocess.Popen([*command, "--anyway", "--json"], env=environment, text=True, **pipes))
                for _ in range(2)
            ]
            ends = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], ends
        assert sorted(fake.readers) == sorted(readers)
        assert {json.loads(out)["counts"]["accepted"] for out, _ in ends} == {400}
        with world.database.read() as session:
            assert session.exec(select(func.count(func.distinct(col(BatchRow.runner))))).one() == 2
    world.database.engine.dispose()


def lose_some(world: World) -> list[str]:
    """Leave two copies unknown; their references."""

    def lose(number: int, _parcel: Parcel) -> None:
        if number == 1:
            raise Unclear("no answer")

    assert route.publish(world.with_provider(Busy(connections=1, does=lose)), world.slot).state == IssueState.NEEDS_DECISION
    with world.database.read() as session:
        issue = ledger.find(session, world.slot.name)
        assert issue
        return [each.copy.ref for each in ledger.lost_sight_of(session, issue)]


def before_it_locks(database: Database, table: str, act: Callable[[], object]) -> None:
    """Act once before a connection locks rows of a table."""
    acts = once(act)

    @event.listens_for(database.engine, "before_cursor_execute")
    def before(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if f"FROM {table}" in sql and "FOR " in sql.rpartition("WHERE")[2]:
            acts()


@on_postgresql
def test_an_event_and_a_decision_about_the_same_copies_do_not_lock_each_other_out(
    world: World, other: Database, elsewhere: ThreadPoolExecutor
) -> None:
    ready(world, 4)
    ref, _ = lose_some(world)
    decided: list[Future[int]] = []

    def decide() -> None:
        decided.append(elsewhere.submit(route.resolve, world.newsroom, world.slot, Decision.SKIP))
        until(lambda: decided[0].done() or somebody_waits(world.database))

    before_it_locks(other, "issues", decide)
    with hearing_deadlocks(world.database, other) as deadlocks, suppress(OperationalError):
        with other.write() as session:
            events.apply(session, Event(Kind.DELIVERED, ref), FRIDAY)
        decided[0].result(PATIENCE)
    assert deadlocks == []
    assert route.report(world.newsroom, world.slot).state == IssueState.SENT


@on_postgresql
def test_an_event_and_an_erasure_of_the_same_reader_do_not_lock_each_other_out(
    world: World, other: Database, elsewhere: ThreadPoolExecutor
) -> None:
    readers = ready(world, 4)
    ref, _ = lose_some(world)
    erased: list[Future[None]] = []

    def erase() -> None:
        with world.database.write() as session:
            session.delete(roll.by_key(session, readers[0]))

    def begin_to_erase() -> None:
        erased.append(elsewhere.submit(erase))
        until(lambda: erased[0].done() or somebody_waits(world.database))

    before_it_locks(other, "issues", begin_to_erase)
    with hearing_deadlocks(world.database, other) as deadlocks, suppress(OperationalError):
        with other.write() as session:
            events.apply(session, Event(Kind.HARD_BOUNCE, ref, readers[0]), FRIDAY)
        erased[0].result(PATIENCE)
    assert deadlocks == []
    with world.database.read() as session:
        assert session.exec(select(func.count(col(Subscriber.id)))).one() == 3


@on_postgresql
def test_an_event_and_a_run_that_loses_sight_and_pauses_do_not_lock_each_other_out(
    world: World, other: Database, elsewhere: ThreadPoolExecutor
) -> None:
    ready(world, 20)
    gate = Gate()
    held, fourth = threading.Event(), threading.Event()
    parcels: dict[int, Parcel] = {}

    def does(number: int, parcel: Parcel) -> None:
        parcels[number] = parcel
        gate.enter(number)
        if number > 4:
            # It leaves while the others are still out, and comes home behind them.
            assert fourth.wait(PATIENCE)
        elif number > 1:
            assert held.wait(PATIENCE)
            if number == 4:
                until(lambda: len(delivery.landed) >= 2)
                fourth.set()
            raise Unclear("no answer")

    def come_home_together(settled: int, _copies: int) -> None:
        if settled == 2 and not held.is_set():
            until(lambda: len(delivery.landed) >= 3)

    def hold() -> None:
        held.set()
        until(lambda: somebody_waits(world.database) or running.done())

    route.approve(world.newsroom, world.slot)
    newsroom = world.with_provider(Busy(does=does))
    delivery = route._delivery(newsroom, route._enrol(newsroom, world.slot, None), come_home_together)
    with hearing_deadlocks(world.database, other) as deadlocks:
        running = elsewhere.submit(delivery.run)
        until(lambda: counts(world).get("accepted", 0) == 2)
        before_it_locks(other, "issues", hold)
        with other.write() as session:
            events.apply(session, Event(Kind.DELIVERED, parcels[4].copies[0].ref), FRIDAY)
        with pytest.raises(Unclear):
            running.result(PATIENCE)
    assert deadlocks == []
