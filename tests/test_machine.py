"""A Friday on which anything may happen in any order, many times over: the promise must hold after every step."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import event
from sqlmodel import Session, col, select, update

from pipeline import deliver, events, ledger
from pipeline import publish as route
from pipeline.books import BatchRow, DeliveryRow, IssueRow, IssueState
from pipeline.database import Database
from pipeline.errors import AccountRefused, CallRefused, DecisionNeeded, NotProcessed, ProviderError, Unclear, UsageError
from pipeline.issue import Copy, Event, Kind, Parcel, Receipt, RenderedIssue, Shown
from pipeline.ledger import Decision
from pipeline.newsroom import Newsroom
from pipeline.providers import Limits
from subscribers import roll
from subscribers.models import Subscriber, Why
from tests.conftest import FRIDAY, Clock, World, by_reader_time
from tests.test_friday import Killed

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FRIDAY_MACHINE_EXAMPLES", "50"))
STEPS = 12
KEY_LIFETIME = timedelta(hours=24)
SLOT = "2026-11-27"
# With their hours: one that is past, the newsletter's, and two to come.
ZONES = [
    ("", FRIDAY),
    ("America/New_York", datetime(2026, 11, 27, 14, tzinfo=UTC)),
    ("Asia/Tokyo", datetime(2026, 11, 27, 0, tzinfo=UTC)),
    ("Etc/GMT+12", datetime(2026, 11, 27, 21, tzinfo=UTC)),
]
DEAD: set[str] = set()
ON_THE_WAY = {"pending", "sending", "unknown"}

# What may become of one call.
ACCEPTED = "it is accepted"
LOST = "it is accepted and the answer is lost"
REFUSED = "it is refused whole"
UNTAKEN: dict[str, ProviderError] = {
    "it is lost before it is accepted": Unclear("lost"),
    "it must wait a little": NotProcessed("busy", timedelta(seconds=5)),
    "it must wait for hours": NotProcessed("down", timedelta(hours=2)),
    "the account is refused": AccountRefused("bad key"),
}
FAULTS = [
    ACCEPTED,
    LOST,
    LOST,
    REFUSED,
    *UNTAKEN,
    "one copy is rejected",
    "one copy is to come later",
    "the answer is short",
    "only one copy is taken",
    "the process dies before",
    "the process dies after",
    "another runner overtakes it before it is accepted",
    "another runner overtakes it before it is answered",
    "another runner overtakes it and it must wait",
    "a reader leaves meanwhile",
]


def _nothing() -> None:
    pass


@dataclass
class Fate:
    """When a process dies: at a write to the ledger, before or after the commit, or at a call. Nothing works after that."""

    at_write: int = 0
    after_commit: bool = False
    dead: bool = False
    writes: int = 0

    def strike(self) -> None:
        self.dead = True
        raise Killed

    def see(self) -> None:
        if self.dead:
            raise Killed


@dataclass(frozen=True)
class Mortal(Database):
    """The ledger as a process sees it that may die."""

    fate: Fate = field(default_factory=Fate)

    @contextmanager
    def write(self) -> Iterator[Session]:
        fate = self.fate
        fate.see()
        fate.writes += 1
        strikes = fate.writes == fate.at_write
        with super().write() as session:
            yield session
            if strikes and not fate.after_commit:
                fate.strike()
        if strikes:
            fate.strike()


class Stored(NamedTuple):
    """What a provider keeps under a key."""

    at: datetime
    parcel: Parcel
    receipts: list[Receipt]


@dataclass
class Provider:
    """Keeps count of every copy that it takes, and does to each call what the script says."""

    machine: "Machine"
    copies: int
    keyed: bool
    bad: str
    hook: None = None
    script: list[str] = field(default_factory=list)
    goes_on: bool = True
    fate: Fate = field(default_factory=Fate)
    taken: Counter[str] = field(default_factory=Counter)
    refs: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    keys: dict[str, Stored] = field(default_factory=dict)
    log_shows: bool = True

    @property
    def limits(self) -> Limits:
        lifetime = KEY_LIFETIME if self.keyed else None
        return Limits(self.copies, key_lifetime=lifetime, has_log=not self.keyed, log_lag=timedelta(minutes=15))

    def send(self, _issue: RenderedIssue, parcel: Parcel) -> Sequence[Receipt]:
        self.fate.see()
        self.machine.sees(parcel)
        fault = self.script.pop(0) if self.script else ACCEPTED
        try:
            return self._suffer(fault, parcel)
        finally:
            if not self.script and not self.goes_on:
                self.machine.newsroom.stopping.set()

    def _suffer(self, fault: str, parcel: Parcel) -> list[Receipt]:
        machine = self.machine
        if fault in UNTAKEN:
            raise UNTAKEN[fault]
        before = {
            "the process dies before": self.fate.strike,
            "another runner overtakes it before it is accepted": machine.overtake,
            "a reader leaves meanwhile": lambda: machine.leave(parcel.copies[0].address, roll.unsubscribe),
            "another runner overtakes it and it must wait": machine.overtake,
        }
        after = {
            "the process dies after": self.fate.strike,
            "another runner overtakes it before it is answered": machine.overtake,
        }
        before.get(fault, _nothing)()
        if fault == "another runner overtakes it and it must wait":
            raise NotProcessed("busy", timedelta(seconds=5))
        receipts = self.take(parcel, fault)
        after.get(fault, _nothing)()
        if fault == LOST:
            raise Unclear("no answer")
        return receipts

    def take(self, parcel: Parcel, fault: str) -> list[Receipt]:
        stored = self.keys.get(parcel.key)
        if self.keyed and stored and self.machine.clock.at - stored.at < KEY_LIFETIME:
            if parcel != stored.parcel:
                self.machine.wrong.append("a key was used for other bytes")
            return stored.receipts
        refs = [copy.ref for copy in parcel.copies]
        if fault == REFUSED or self.bad in [copy.address for copy in parcel.copies]:
            if len(refs) == 1:
                self.refused.update(refs)
            raise CallRefused("refused")
        receipts = [Receipt(ref, accepted=True, provider_id="id") for ref in refs]
        if fault == "one copy is rejected":
            receipts[0] = Receipt(refs[0], accepted=False, reason="no such mailbox")
            self.refused.add(refs[0])
        if fault == "one copy is to come later":
            receipts[0] = Receipt(refs[0], accepted=False, later=True)
        if fault == "only one copy is taken":
            receipts = receipts[:1]
        accepted = {receipt.ref for receipt in receipts if receipt.accepted}
        self.refs |= accepted
        self.taken.update(copy.address for copy in parcel.copies if copy.ref in accepted)
        answered = receipts[:1] if fault == "the answer is short" else receipts
        self.keys[parcel.key] = Stored(self.machine.clock.at, parcel, answered)
        return answered

    def look_up(self, _issue: RenderedIssue, copies: Sequence[Copy], _since: datetime) -> Shown:
        return Shown([Receipt(copy.ref, accepted=True) for copy in copies if self.log_shows and copy.ref in self.refs])


class Kept(NamedTuple):
    """A copy as the ledger has it."""

    ref: str
    state: str
    address: str | None
    key: str | None


class Machine(RuleBasedStateMachine):
    """One issue, a few readers, one provider, and whatever may come between."""

    template: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="friday-machine-"))
        shutil.copy(self.template.folder / "friday.db", self.folder)
        self.clock = Clock()
        self.database = self._opened(Database(f"sqlite:///{self.folder}/friday.db"))
        self.newsroom = replace(self.template.newsroom, database=self.database, now=self.clock, wait=self.wait)
        with self.database.read() as session:
            issue = self._issue(session)
            self.frozen = (issue.frozen, issue.digest, issue.number)
        self.addresses: list[str] = []
        self.enrolled: dict[str, str] = {}
        # Of those who have one of their own.
        self.hours: dict[str, datetime] = {}
        self.may_get: Counter[str] = Counter()
        self.told: set[str] = set()
        self.decided: set[str] = set()
        # Who has left, and under which key a copy may still go that was claimed before.
        self.gone: dict[str, str | None] = {}
        self.wrong: list[str] = []
        self.runners = 0
        self.held = True

    def teardown(self) -> None:
        """However it went, it can be brought to an end, and then everybody is in one of the final states."""
        try:
            if self.addresses and self.held:
                self._bring_to_an_end()
        finally:
            self.database.engine.dispose()
            shutil.rmtree(self.folder)

    def _bring_to_an_end(self) -> None:
        self.provider.script, self.provider.goes_on = [], True
        for tries in range(6):
            if self._state() in (IssueState.SENT, IssueState.NEEDS_DECISION, IssueState.APPROVED):
                break
            if tries == 4:
                # Where nobody else has taken a copy, who is refused is rejected by a person and not by us.
                self.leave(
                    self.provider.bad, lambda session, *_: roll.suppress(session, self.provider.bad, Why.MANUAL, self.clock())
                )
            self.clock.at += timedelta(hours=3)
            with suppress(UsageError):
                route.resume(self.newsroom, self.slot)
            self._publish(self._runner(Fate()))
        if self._state() == IssueState.NEEDS_DECISION:
            route.resolve(self.newsroom, self.slot, Decision.SKIP)
        self.holds()
        assert self._state() in (IssueState.SENT, IssueState.APPROVED)

    def wait(self, seconds: float) -> None:
        # Polling costs nothing here.
        self.clock.wait(max(seconds, 30))

    @property
    def slot(self) -> Any:
        return self.template.slot

    def _opened(self, database: Database) -> Any:
        # What is asked here is what becomes of processes that die, and not of machines.
        event.listen(database.engine, "connect", lambda raw, _record: raw.execute("PRAGMA synchronous = OFF"))
        return database

    def _issue(self, session: Session) -> IssueRow:
        found = ledger.find(session, SLOT)
        assert found
        return found

    def _state(self) -> str:
        with self.database.read() as session:
            return self._issue(session).state

    def _copies(self) -> list[Kept]:
        query = (
            select(DeliveryRow.ref, DeliveryRow.state, Subscriber.address, BatchRow.key)
            .select_from(DeliveryRow)
            .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id), isouter=True)
            .join(BatchRow, col(BatchRow.id) == col(DeliveryRow.batch_id), isouter=True)
            .order_by(col(DeliveryRow.id))
        )
        with self.database.read() as session:
            return [Kept(*row) for row in session.exec(query)]

    def _runner(self, fate: Fate) -> Newsroom:
        self.runners += 1
        mortal = self._opened(Mortal(self.database.url, fate))
        made = replace(self.newsroom, database=mortal, provider=self.provider)
        made.__dict__["runner"] = f"elsewhere/{self.runners}/1.00"
        self.provider.fate = fate
        return made

    def _publish(self, newsroom: Newsroom, *, due: bool = False) -> None:
        try:
            _ = route.publish_due(newsroom) if due else route.publish(newsroom, self.slot, anyway=True)
        except (DecisionNeeded, ProviderError, Killed):
            return
        finally:
            newsroom.stopping.clear()
            newsroom.database.engine.dispose()

    def overtake(self) -> None:
        """Let another runner do all it can, since the one in this call has been silent for long."""
        before = self.provider.fate, self.provider.script, self.provider.goes_on
        self.clock.at += timedelta(minutes=6)
        self.provider.script, self.provider.goes_on = [], True
        self._publish(self._runner(Fate()))
        self.provider.fate, self.provider.script, self.provider.goes_on = before

    def sees(self, parcel: Parcel) -> None:
        """What must be true of every call that a provider gets."""
        for copy in parcel.copies:
            if copy.address in self.gone and self.gone[copy.address] != parcel.key:
                self.wrong.append("somebody was mailed after leaving")
            if copy.address in self.hours and self.clock.at < self.hours[copy.address]:
                self.wrong.append("somebody was mailed before the hour")

    def leave(self, address: str, how: Any) -> None:
        """Let a reader leave; under the key of a batch that has been claimed, and under no other, the copy may still go."""
        claimed = {copy.address: copy.key for copy in self._copies() if copy.state == "sending"}
        with self.database.write() as session:
            if how(session, address, self.clock()) is not False:
                self.gone.setdefault(address, claimed.get(address))

    @initialize(
        readers=st.integers(1, 12),
        copies=st.integers(1, 4),
        keyed=st.booleans(),
        bad=st.sampled_from([0, 0, 1, 5]),
        by_hours=st.booleans(),
    )
    def begin(self, readers: int, copies: int, *, keyed: bool, bad: int, by_hours: bool = False) -> None:
        self.addresses = [f"reader{number}@example.com" for number in range(1, readers + 1)]
        self.may_get.update(self.addresses)
        self.newsroom = by_reader_time(self.newsroom, on=by_hours)
        if by_hours:
            self.hours = {address: ZONES[number % len(ZONES)][1] for number, address in enumerate(self.addresses)}
        self.provider = Provider(self, copies, keyed, f"reader{bad}@example.com")
        with self.database.write() as session:
            for address in self.addresses:
                roll.add(session, address, self.clock())
            for number, address in enumerate(self.addresses):
                zone, _ = ZONES[number % len(ZONES)]
                session.execute(update(Subscriber).where(col(Subscriber.key) == address).values(zone=zone))

    scripts = st.lists(st.sampled_from(FAULTS), min_size=1, max_size=6)

    @rule(script=scripts, goes_on=st.booleans())
    def publish(self, script: list[str], *, goes_on: bool) -> None:
        self._publish_by(script, Fate(), goes_on=goes_on)

    @rule(calls=st.integers(0, 2), last=st.sampled_from([LOST, "the process dies before", "the process dies after"]))
    def leave_a_call_unanswered(self, calls: int, last: str) -> None:
        self._publish_by([*([ACCEPTED] * calls), last], Fate(), goes_on=False)

    @rule(script=scripts, at_write=st.integers(1, 5), after_commit=st.booleans(), is_seen=st.booleans())
    def publish_and_die(self, script: list[str], at_write: int, *, after_commit: bool, is_seen: bool) -> None:
        fate = Fate(at_write, after_commit)
        newsroom = self._publish_by(script, fate, goes_on=True)
        if fate.dead and is_seen:
            DEAD.add(newsroom.runner)

    @rule(script=scripts, goes_on=st.booleans())
    def publish_due(self, script: list[str], *, goes_on: bool) -> None:
        self._publish_by(script, Fate(), goes_on=goes_on, due=True)

    def _publish_by(self, script: list[str], fate: Fate, *, goes_on: bool, due: bool = False) -> Newsroom:
        self.provider.script, self.provider.goes_on = list(script), goes_on
        newsroom = self._runner(fate)
        self._publish(newsroom, due=due)
        return newsroom

    @rule(reader=st.integers(0, 11))
    def unsubscribe(self, reader: int) -> None:
        self.leave(self._one(reader), roll.unsubscribe)

    @rule(reader=st.integers(0, 11), why=st.sampled_from(Why))
    def suppress(self, reader: int, why: Why) -> None:
        self.leave(self._one(reader), lambda session, address, now: roll.suppress(session, address, why, now))

    @rule(reader=st.integers(0, 11))
    def erase(self, reader: int) -> None:
        def erase(session: Session, address: str, _now: datetime) -> bool:
            found = roll.by_key(session, address)
            if found:
                session.delete(found)
            return found is not None

        self.leave(self._one(reader), erase)

    @precondition(lambda self: self.enrolled)
    @rule(copy=st.integers(0, 11), kind=st.sampled_from(Kind))
    def tell(self, copy: int, kind: Kind) -> None:
        copies = self._copies()
        kept = copies[copy % len(copies)]
        if kept.state in ON_THE_WAY and kind is not Kind.OTHER:
            self.told.add(kept.ref)
        if kind in (Kind.UNSUBSCRIBED, Kind.HARD_BOUNCE, Kind.COMPLAINED) and kept.address:
            self.gone.setdefault(kept.address, kept.key if kept.state == "sending" else None)
        with self.database.write() as session:
            events.apply(session, Event(kind, kept.ref, kept.address or ""), self.clock())

    @rule()
    def pause(self) -> None:
        with suppress(UsageError):
            route.pause(self.newsroom, self.slot)

    @rule()
    def resume(self) -> None:
        with suppress(UsageError):
            route.resume(self.newsroom, self.slot)

    @rule(decision=st.sampled_from(Decision), reader=st.one_of(st.none(), st.integers(0, 11)))
    def resolve(self, decision: Decision, reader: int | None) -> None:
        address = None if reader is None else self._one(reader)
        lost = [copy for copy in self._copies() if copy.state == "unknown" and address in (None, copy.address)]
        if decision is Decision.RESEND:
            self.may_get.update(copy.address for copy in lost if copy.address)
        self.decided |= {copy.ref for copy in lost}
        assert route.resolve(self.newsroom, self.slot, decision, address) == len(lost)

    @rule(minutes=st.sampled_from([1, 6, 65, 24 * 60 + 2]))
    def wait_for(self, minutes: int) -> None:
        self.clock.at += timedelta(minutes=minutes)

    @rule(shows=st.booleans())
    def look_up(self, *, shows: bool) -> None:
        self.provider.log_shows = shows
        route.look_up_unknown(replace(self.newsroom, provider=self.provider))

    @rule()
    def join(self) -> None:
        address = f"late{self.runners}@example.com"
        self.may_get.setdefault(address, 1)
        with self.database.write() as session:
            roll.add(session, address, self.clock())

    def _one(self, number: int) -> str:
        """A reader; first those whose copy is on its way, since with them more can go wrong."""
        first = [copy.address for copy in self._copies() if copy.state == "sending" and copy.address]
        choice = [*first, *self.addresses]
        return choice[number % len(choice)]

    @invariant()
    def holds(self) -> None:
        self.held = False
        assert self.wrong == []
        if self.addresses:
            self._holds()
        self.held = True

    def _holds(self) -> None:
        copies = self._copies()
        with self.database.read() as session:
            issue = self._issue(session)
            report = ledger.report(session, issue)
        assert (issue.frozen, issue.digest, issue.number) == self.frozen
        if not self.enrolled:
            self.enrolled = {copy.ref: copy.address or "" for copy in copies}
        assert [copy.ref for copy in copies] == list(self.enrolled), "the audience has changed"
        assert sum(report.counts.values()) == report.enrolled == len(copies) - report.excluded
        assert len(report.unknown) == report.counts["unknown"]
        twice = [address for address, times in self.provider.taken.items() if times > self.may_get[address]]
        assert not twice, "somebody got two copies and nobody had ordered that"
        states = Counter(copy.state for copy in copies)
        if issue.state == IssueState.SENT:
            assert not any(states[state] for state in ON_THE_WAY), "it is called sent while copies are on the way"
        if issue.state == IssueState.NEEDS_DECISION:
            assert not states["pending"], "it needs a decision while copies are pending"
            assert states["unknown"], "it needs a decision and nobody is unknown"
        for copy in copies:
            if copy.state == "accepted":
                assert copy.ref in self.provider.refs | self.told | self.decided, "it is called accepted and never was"
            if copy.state == "rejected":
                assert copy.ref in self.provider.refused, "it is called rejected and never was"


@pytest.fixture
def template(local_world: World) -> Iterator[World]:
    """An approved issue for nobody yet."""
    local_world.tell_a_week()
    route.approve(local_world.newsroom, local_world.slot)
    local_world.database.engine.dispose()
    yield local_world
    DEAD.clear()


def test_the_promise_holds_whatever_happens_in_whatever_order(template: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "is_running", lambda runner: runner not in DEAD)
    # Calls that are claimed ahead race with the turn that recalls them, and so would not happen again as they did.
    monkeypatch.setattr(deliver, "AHEAD", 0)
    Machine.template = template
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_an_issue_whose_last_unknown_copy_was_answered_late_is_closed_though_the_runner_died_before(template: World) -> None:
    Machine.template = template
    machine = Machine()
    machine.begin(readers=1, copies=1, keyed=False, bad=0)
    # Its writes are the enrolment, the claim, the late answer, and the end that it does not come to.
    machine.publish_and_die(["another runner overtakes it before it is accepted"], 4, after_commit=False, is_seen=True)
    assert [copy.state for copy in machine._copies()] == ["accepted"]
    machine._publish(machine._runner(Fate()))
    state = machine._state()
    machine.database.engine.dispose()
    shutil.rmtree(machine.folder)
    assert state == IssueState.SENT
