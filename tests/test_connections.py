"""Several calls at a time: how many there are, how fast they begin, and what becomes of the others when one goes wrong."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from pipeline import deliver, ledger
from pipeline import publish as route
from pipeline.books import IssueState
from pipeline.claim import claim
from pipeline.database import Database
from pipeline.errors import AccountRefused, CallRefused, DecisionNeeded, NotProcessed, Unclear
from pipeline.issue import Parcel, Receipt
from pipeline.ledger import Report
from subscribers import roll
from subscribers.models import Why
from tests.conftest import FakeProvider, World
from tests.test_friday import Killed

KEY = timedelta(hours=24)
LOG = {"has_log": True, "log_lag": timedelta(0)}
PATIENCE = 60.0


@dataclass
class Busy(FakeProvider):
    """Takes several calls at a time. `does` gets the number of each and may answer for it, raise, or leave it to be taken."""

    connections: int = 4
    does: Callable[[int, Parcel], list[Receipt] | None] = lambda _number, _parcel: None
    calls: int = 0
    most: int = 0
    _in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.more = {"connections": self.connections, **self.more}

    def send(self, issue: Any, parcel: Parcel) -> list[Receipt]:
        with self._lock:
            self.calls += 1
            number = self.calls
            self._in_flight += 1
            self.most = max(self.most, self._in_flight)
        try:
            answer = self.does(number, parcel)
            return super().send(issue, parcel) if answer is None else answer
        finally:
            with self._lock:
                self._in_flight -= 1


@dataclass
class Gate:
    """Where the first calls wait for each other, so that they are surely in flight together."""

    calls: int = 4

    def __post_init__(self) -> None:
        self._together = threading.Barrier(self.calls)
        self.judged = threading.Event()

    def enter(self, number: int) -> None:
        if number <= self.calls:
            self._together.wait(PATIENCE)

    def wait_until_judged(self) -> None:
        """Wait until the run has dealt with what came home first."""
        assert self.judged.wait(PATIENCE)

    def progress(self, _settled: int, _copies: int) -> None:
        if self._told:
            self.judged.set()
        self._told = True

    _told: bool = False


def ready(world: World, readers: int = 20) -> list[str]:
    world.tell_a_week()
    names = [f"reader{number:02}" for number in range(readers)]
    world.subscribe(*names)
    return [f"{name}@example.com" for name in names]


def counts(world: World) -> dict[str, int]:
    report = route.report(world.newsroom, world.slot)
    assert sum(report.counts.values()) == report.enrolled
    return {state: count for state, count in report.counts.items() if count}


def test_as_many_calls_are_in_flight_as_there_are_connections_and_never_more(world: World) -> None:
    readers = ready(world, 40)
    fours = threading.Barrier(4)

    def does(_number: int, _parcel: Parcel) -> None:
        fours.wait(PATIENCE)

    provider = Busy(copies=1, key_lifetime=KEY, does=does)
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, sorted(provider.got)) == (IssueState.SENT, readers)
    assert provider.most == 4


def test_calls_begin_no_faster_than_the_rate(world: World) -> None:
    readers = ready(world, 40)
    began: list[datetime] = []
    provider = Busy(copies=1, more={"per_second": 20.0}, does=lambda _number, _parcel: began.append(world.clock.at))
    route.publish(world.with_provider(provider), world.slot)
    assert sorted(provider.got) == readers
    # A tenth of a second may be caught up, which is two calls.
    for number, first in enumerate(began):
        assert all(last - first >= timedelta(seconds=(more - 2) / 20) for more, last in enumerate(began[number:]))
    assert began[-1] - began[0] < timedelta(seconds=2.1)


@pytest.mark.parametrize(
    ("copies", "more", "ahead"),
    [
        (1, LOG, True),
        (1, {"key_lifetime": KEY}, True),
        (1, {}, False),
        (2, LOG, False),
    ],
    ids=["with a log", "with keys", "nobody can tell", "of several copies"],
)
def test_calls_are_claimed_ahead_just_where_each_is_of_one_copy_whose_fate_can_be_told(
    local_world: World, monkeypatch: pytest.MonkeyPatch, copies: int, more: dict[str, Any], *, ahead: bool
) -> None:
    ready(local_world, 20)
    most = 0

    def count(*args: Any) -> Any:
        nonlocal most
        taken = claim(*args)
        most = max(most, len(taken.leaving))
        return taken

    monkeypatch.setattr("pipeline.deliver.claim", count)
    told = dict(more)
    provider = Busy(copies=copies, connections=2, key_lifetime=told.pop("key_lifetime", None), more=told)
    route.publish(local_world.with_provider(provider), local_world.slot)
    assert len(provider.got) == 20
    assert most > 2 if ahead else most <= 2


def test_a_call_is_as_heavy_as_the_provider_takes_it(local_world: World) -> None:
    ready(local_world, 6)
    route.approve(local_world.newsroom, local_world.slot)
    with local_world.database.read() as session:
        issue = ledger.find(session, local_world.slot.name)
    assert issue
    sizes: list[int] = []
    room = 3 * (2 * len((issue.rendered.html + issue.rendered.text).encode()) + 4_096)

    def does(_number: int, parcel: Parcel) -> None:
        sizes.append(len(parcel.copies))

    provider = Busy(copies=100, connections=1, more={"size": room}, does=does)
    route.publish(local_world.with_provider(provider), local_world.slot)
    assert sizes == [3, 3]


def test_one_refusal_of_the_account_pauses_and_the_other_calls_come_home(world: World) -> None:
    ready(world)
    gate = Gate()

    def does(number: int, _parcel: Parcel) -> None:
        gate.enter(number)
        if number == 2:
            raise AccountRefused("bad key")
        gate.wait_until_judged()

    provider = Busy(does=does)
    with pytest.raises(AccountRefused, match="bad key"):
        route.publish(world.with_provider(provider), world.slot, progress=gate.progress)
    assert (provider.calls, counts(world)) == (4, {"accepted": 6, "pending": 14})
    report = route.report(world.newsroom, world.slot)
    assert (report.state, report.trouble) == (IssueState.PAUSED, "bad key")


def test_four_refusals_of_the_account_pause_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = ready(world)
    gate, real, paused = Gate(), ledger.pause, []

    def pause(*args: Any) -> bool:
        paused.append(real(*args))
        return paused[-1]

    monkeypatch.setattr(ledger, "pause", pause)

    def does(number: int, _parcel: Parcel) -> None:
        gate.enter(number)
        raise AccountRefused("bad key")

    provider = Busy(does=does)
    with pytest.raises(AccountRefused):
        route.publish(world.with_provider(provider), world.slot)
    assert (provider.calls, counts(world)) == (4, {"pending": 20})
    assert paused.count(True) == 1
    assert route.publish(world.newsroom, world.slot).state == IssueState.SENT
    assert sorted(world.provider.got) == readers


def test_copies_that_were_claimed_ahead_go_back_when_the_provider_asks_to_wait(world: World) -> None:
    readers = ready(world)
    gate, began, seen = Gate(2), [], []

    def does(number: int, _parcel: Parcel) -> None:
        began.append(world.clock.at)
        gate.enter(number)
        if number == 1:
            raise NotProcessed("too fast", timedelta(seconds=90))
        gate.wait_until_judged()

    def wait(seconds: float) -> None:
        seen.append(counts(world))
        world.clock.wait(seconds)

    start = world.clock.at
    provider = Busy(copies=1, connections=2, more=LOG, does=does)
    newsroom = replace(world.with_provider(provider), wait=wait)
    sent = route.publish(newsroom, world.slot, progress=gate.progress)
    assert (sent.state, sorted(provider.got)) == (IssueState.SENT, readers)
    # The caller that was refused may have begun its next call before anybody knew.
    early = [at for at in began if at < start + timedelta(seconds=90)]
    assert len(early) <= 3
    assert seen == [{"accepted": len(early) - 1, "pending": 21 - len(early)}]


def test_four_answers_that_are_lost_at_once_leave_four_batches_unknown_and_pause(world: World) -> None:
    ready(world)
    gate = Gate()
    provider = Busy(does=lambda number, parcel: lost(provider, gate, number, parcel))
    with pytest.raises(Unclear):
        route.publish(world.with_provider(provider), world.slot)
    assert (provider.calls, counts(world)) == (4, {"unknown": 8, "pending": 12})
    assert route.report(world.newsroom, world.slot).state == IssueState.PAUSED
    taken = route.publish(world.newsroom, world.slot)
    assert (taken.state, taken.counts["accepted"], taken.counts["unknown"]) == (IssueState.NEEDS_DECISION, 12, 8)


def test_four_answers_that_are_lost_at_once_are_asked_for_again_under_their_keys(world: World) -> None:
    readers = ready(world)
    gate = Gate()
    provider = Busy(key_lifetime=KEY, does=lambda number, parcel: lost(provider, gate, number, parcel))
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, sorted(provider.got)) == (IssueState.SENT, readers)
    assert (provider.calls, len({parcel.key for parcel in provider.parcels})) == (14, 10)


def lost(provider: Busy, gate: Gate, number: int, parcel: Parcel) -> None:
    if number <= gate.calls:
        provider.parcels.append(parcel)
        gate.enter(number)
        raise Unclear("no answer")


def test_a_signal_comes_to_the_thread_that_acts_on_it_and_never_to_a_call(local_world: World) -> None:
    ready(local_world)
    deaf: list[bool] = []

    def does(_number: int, _parcel: Parcel) -> None:
        deaf.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGINT, signal.SIGTERM})

    route.publish(local_world.with_provider(Busy(does=does)), local_world.slot)
    assert set(deaf) == {True}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}


def test_told_to_stop_the_four_calls_come_home_and_no_other_begins(world: World) -> None:
    readers = ready(world)
    gate, stopping = Gate(), threading.Event()

    def does(number: int, _parcel: Parcel) -> None:
        gate.enter(number)
        stopping.set()

    provider = Busy(does=does)
    with pytest.raises(DecisionNeeded, match="goes on where it stopped"):
        route.publish(replace(world.with_provider(provider), stopping=stopping), world.slot)
    assert (provider.calls, counts(world)) == (4, {"accepted": 8, "pending": 12})
    route.publish(world.newsroom, world.slot)
    assert sorted(provider.got + world.provider.got) == readers


def test_told_to_stop_the_copies_that_were_claimed_ahead_go_back(world: World) -> None:
    readers = ready(world)
    gate, stopping = Gate(2), threading.Event()

    def does(number: int, _parcel: Parcel) -> None:
        gate.enter(number)
        stopping.set()

    provider = Busy(copies=1, connections=2, key_lifetime=KEY, does=does)
    with pytest.raises(DecisionNeeded):
        route.publish(replace(world.with_provider(provider), stopping=stopping), world.slot)
    assert (provider.calls, counts(world)) == (2, {"accepted": 2, "pending": 18})
    route.publish(world.newsroom, world.slot)
    assert sorted(provider.got + world.provider.got) == readers


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together with two others"])
def test_a_death_in_one_call_leaves_its_batch_behind_and_no_other(world: World, *, together: bool) -> None:
    ready(world)
    gate = Gate()

    def does(number: int, _parcel: Parcel) -> None:
        gate.enter(number)
        if number == 1 and together:
            return
        if together:
            gate.wait_until_judged()
        if number == 3:
            raise Killed
        if not together:
            until(lambda: delivery._judge.trouble is not None)

    def progress(settled: int, copies: int) -> None:
        if together and settled and not gate.judged.is_set():
            gate.progress(settled, copies)
            until(lambda: len(delivery.landed) >= 3)

    route.approve(world.newsroom, world.slot)
    newsroom = world.with_provider(Busy(does=does))
    delivery = route._delivery(newsroom, route._enrol(newsroom, world.slot, None), progress)
    gate.progress(0, 20)
    with pytest.raises(Killed):
        delivery.run()
    assert counts(world)["sending"] == 2


@pytest.mark.parametrize("together", [5, 9, 10, 1000])
def test_a_turn_takes_few_calls_of_many_copies_so_that_none_waits_for_the_work_of_all(
    local_world: World, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(deliver, "TOGETHER", together)
    first_is_settled = threading.Event()
    told: list[int] = []
    claimed: list[int] = []

    def does(number: int, _parcel: Parcel) -> None:
        if number == 1:
            until(lambda: provider.calls == 3)
        else:
            assert first_is_settled.wait(PATIENCE)

    def progress(settled: int, _copies: int) -> None:
        told.append(settled)
        if settled and not first_is_settled.is_set():
            first_is_settled.set()
            until(lambda: len(delivery.landed) == 3)

    provider = Busy(copies=5, connections=3, key_lifetime=KEY, does=does)
    delivery = about_to_run(local_world, provider, progress)
    monkeypatch.setattr(deliver, "claim", noting(claimed))
    delivery.run()
    at_once = min(15, together // 5 * 5)
    assert told[:3] == [0, 5, 5 + at_once]
    assert (told[-1], max(claimed)) == (40, at_once)


def test_nor_does_a_turn_take_many_that_came_home_while_connections_are_free(
    local_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "TOGETHER", 5)
    told: list[int] = []
    claimed: list[int] = []

    two_are_out = threading.Event()

    def does(number: int, _parcel: Parcel) -> None:
        assert two_are_out.wait(PATIENCE)
        if number > 2:
            until(lambda: len(told) > 1)

    def look() -> None:
        if len(claimed) == 2:
            two_are_out.set()
            until(lambda: len(delivery.landed) == 2)

    delivery = about_to_run(
        local_world, Busy(copies=5, key_lifetime=KEY, does=does), lambda settled, _copies: told.append(settled)
    )
    monkeypatch.setattr(deliver, "claim", noting(claimed, look))
    delivery.run()
    assert told[:3] == [0, 5, 10]


def about_to_run(world: World, provider: Busy, progress: Callable[[int, int], None]) -> deliver.Delivery:
    ready(world, 40)
    route.approve(world.newsroom, world.slot)
    newsroom = world.with_provider(provider)
    return route._delivery(newsroom, route._enrol(newsroom, world.slot, None), progress)


def noting(claimed: list[int], before: Callable[[], None] = lambda: None) -> Callable[..., Any]:
    """A claim that notes how many copies it took."""

    def noted(*args: Any) -> Any:
        before()
        taken = claim(*args)
        claimed.append(sum(len(parcel.copies) for _, parcel in taken.leaving))
        return taken

    return noted


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.001)


WEATHER: dict[str, Callable[[int, Parcel], Any]] = {
    "all goes well": lambda _number, _parcel: None,
    "some calls must wait": lambda number, _parcel: stumble(NotProcessed("busy", timedelta(seconds=1)), number in (2, 5)),
    "some answers are lost": lambda number, _parcel: stumble(Unclear("no answer"), number in (2, 6)),
    "a bad address is looked for": lambda _number, parcel: stumble(
        CallRefused("bad"), "reader07@example.com" in [copy.address for copy in parcel.copies]
    ),
    "a copy is to come later": lambda number, parcel: (
        [Receipt(copy.ref, accepted=place > 0, later=place == 0) for place, copy in enumerate(parcel.copies)]
        if number == 2
        else None
    ),
    "an answer is short": lambda number, parcel: [Receipt(parcel.copies[0].ref, accepted=True)] if number == 2 else None,
}


def stumble(error: Exception, now: bool) -> None:  # noqa: FBT001 - reads well where it is used
    if now:
        raise error


@pytest.mark.parametrize("key_lifetime", [None, KEY], ids=["without keys", "with keys"])
@pytest.mark.parametrize("weather", WEATHER)
def test_progress_never_goes_back_and_ends_at_the_number_of_copies(
    local_world: World, weather: str, key_lifetime: timedelta | None
) -> None:
    ready(local_world)
    told: list[tuple[int, int]] = []
    provider = Busy(key_lifetime=key_lifetime, does=WEATHER[weather])
    report = publish_and_tell(local_world, provider, told)
    assert report.counts["pending"] == report.counts["sending"] == 0
    assert_steady(told)


def test_progress_counts_who_has_left_meanwhile(local_world: World) -> None:
    ready(local_world)
    told: list[tuple[int, int]] = []

    def leave(_parcel: Parcel) -> None:
        with local_world.database.write() as session:
            roll.unsubscribe(session, "reader19@example.com", local_world.clock())
            roll.suppress(session, "reader18@example.com", Why.MANUAL, local_world.clock())

    report = publish_and_tell(local_world, FakeProvider(before=leave), told)
    assert report.counts["skipped"] == 2
    assert_steady(told)


@pytest.mark.parametrize("resends", [False, True])
def test_progress_counts_nobody_who_is_excluded(local_world: World, *, resends: bool) -> None:
    ready(local_world)
    with local_world.database.write() as session:
        roll.suppress(session, "reader19@example.com", Why.MANUAL, local_world.clock())
    told: list[tuple[int, int]] = []
    newsroom = replace(local_world.newsroom, resend_unknown=resends)
    route.publish(newsroom, local_world.slot, progress=lambda settled, copies: told.append((settled, copies)))
    assert {copies for _, copies in told} == {19}
    assert told == sorted(told)
    assert told[-1] == (19, 19)


def test_progress_counts_no_copy_twice_that_is_sent_again(local_world: World) -> None:
    ready(local_world)
    told: list[tuple[int, int]] = []
    provider = Busy(more=LOG, does=lambda number, _parcel: stumble(Unclear("no answer"), number == 2))
    newsroom = replace(local_world.with_provider(provider), resend_unknown=True)
    sent = route.publish(newsroom, local_world.slot, progress=lambda settled, copies: told.append((settled, copies)))
    assert sent.state == IssueState.SENT
    assert_steady(told)


def test_progress_counts_what_a_runner_that_died_has_left_behind(local_world: World) -> None:
    ready(local_world)
    told: list[tuple[int, int]] = []

    def die(_parcel: Parcel) -> None:
        raise Killed

    with pytest.raises(Killed):
        route.publish(local_world.with_provider(FakeProvider(after=die)), local_world.slot)
    local_world.clock.at += deliver.PATIENCE
    assert publish_and_tell(local_world, FakeProvider(), told).counts["unknown"] == 2
    assert_steady(told)


def test_progress_counts_nobody_twice_though_the_ledger_is_written_at_the_second_try(
    local_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(local_world)
    told: list[tuple[int, int]] = []
    route.approve(local_world.newsroom, local_world.slot)
    route._enrol(local_world.newsroom, local_world.slot, None)
    with local_world.database.write() as session:
        roll.unsubscribe(session, "reader00@example.com", local_world.clock())
    with monkeypatch.context() as patch:
        Failing(lambda number: number in (1, 3), "before its commit").lay_over(patch)
        assert publish_and_tell(local_world, FakeProvider(), told).counts["skipped"] == 1
    assert_steady(told)


def publish_and_tell(world: World, provider: FakeProvider, told: list[tuple[int, int]]) -> Report:
    return route.publish(
        world.with_provider(provider), world.slot, progress=lambda settled, copies: told.append((settled, copies))
    )


def assert_steady(told: list[tuple[int, int]]) -> None:
    assert {copies for _, copies in told} == {20}
    assert [settled for settled, _ in told] == sorted(settled for settled, _ in told)
    assert told[-1] == (20, 20)


@dataclass
class Failing:
    """A database that fails at the writes of these numbers, counted from the first after the enrolment."""

    fails_at: Callable[[int], bool]
    how: str
    writes: int = 0

    def lay_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = Database.write

        @contextmanager
        def write(database: Database) -> Iterator[Session]:
            self.writes += 1
            fails = self.fails_at(self.writes)
            if fails and self.how == "at its beginning":
                raise self.error()
            with real(database) as session:
                yield session
                if fails and self.how == "before its commit":
                    raise self.error()
            if fails:
                raise self.error()

        monkeypatch.setattr(Database, "write", write)

    @staticmethod
    def error() -> OperationalError:
        return OperationalError("COMMIT", {}, Exception("disk I/O error"))


HOWS = ["at its beginning", "before its commit", "after its commit"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("key_lifetime", [None, KEY], ids=["without keys", "with keys"])
def test_a_ledger_that_cannot_be_written_for_a_while_costs_time_and_no_copy(
    local_world: World, monkeypatch: pytest.MonkeyPatch, how: str, key_lifetime: timedelta | None
) -> None:
    readers = ready(local_world)
    route.approve(local_world.newsroom, local_world.slot)
    provider = Busy(key_lifetime=key_lifetime)
    waits: list[float] = []
    told: list[int] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        local_world.clock.wait(max(seconds, 60))

    newsroom = replace(local_world.with_provider(provider), wait=wait)
    with monkeypatch.context() as patch:
        Failing(lambda number: number in (3, 4, 5, 9), how).lay_over(patch)
        sent = route.publish(newsroom, local_world.slot, progress=lambda settled, _copies: told.append(settled))
    # What was committed, though the database broke off before it said so, is not waited for either.
    assert waits == [2, 4, 8, 2]
    assert told == sorted(told)
    assert told[-1] == len(readers)
    assert (sent.state, sorted(provider.got)) == (IssueState.SENT, readers)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("key_lifetime", [None, KEY], ids=["without keys", "with keys"])
@pytest.mark.parametrize("dies_at", [2, 3, 4, 5])
def test_a_ledger_that_cannot_be_written_any_more_ends_the_run_and_doubles_nobody(
    local_world: World, monkeypatch: pytest.MonkeyPatch, how: str, key_lifetime: timedelta | None, dies_at: int
) -> None:
    readers = ready(local_world)
    route.approve(local_world.newsroom, local_world.slot)
    provider = Busy(key_lifetime=key_lifetime)
    with monkeypatch.context() as patch:
        Failing(lambda number: number >= dies_at, how).lay_over(patch)
        with pytest.raises(DecisionNeeded, match="mend that, and `friday publish 2026-11-27` goes on where it stopped"):
            route.publish(local_world.with_provider(provider), local_world.slot)
    calls = provider.calls
    assert calls <= 4 * (dies_at - 2)
    local_world.clock.at += deliver.PATIENCE
    sent = route.publish(local_world.with_provider(provider), local_world.slot)
    assert len(provider.got) == len(set(provider.got))
    lost = {each.address for each in sent.unknown}
    assert set(provider.got) | lost == set(readers)
    if key_lifetime:
        assert (sent.state, lost) == (IssueState.SENT, set())
