"""Claim batches, commit, hand them to the provider, settle; wait when asked to, stop when it is no use.

One thread decides and writes: at each turn it settles what came home and claims what leaves next, in one
transaction. The calls are made by others, as many at a time as the provider takes, and none is made while a
transaction is open.
"""

import gc
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from pipeline import batches, hours, ledger
from pipeline.batches import Batch, Left
from pipeline.books import DeliveryState, IssueRow, IssueState, Pause
from pipeline.claim import Wanted, claim
from pipeline.database import Database
from pipeline.errors import DecisionNeeded, ProviderError
from pipeline.issue import Parcel
from pipeline.judge import Flight, Judge, Landing, Recalled
from pipeline.pace import Pace, Ramp
from pipeline.providers import Provider, call_size
from pipeline.settle import Answered, LetGo, Lost, Outcome, Refused, settle

# Longer than a provider's call may take: a batch of a living runner is left alone until then. What was claimed ahead
# and has not left after half of it does not leave any more.
PATIENCE = timedelta(minutes=5)
# How long answers may wait to be written down together.
LONGEST_LINGER = 1.0
# How many copies a turn takes, or one call if that is more. Calls that are taken together leave together and come home
# together, and each waits for the work of all; one after the other they find the writer free. Below that a sync costs more.
TOGETHER = 1000
# A provider's clock may be behind ours.
CLOCKS_DIFFER = timedelta(minutes=5)
POLL = 0.2
WRITE_CHANCES = 4
# Batches that are claimed beyond those in calls where each is a single copy, or claiming would hold them up. A crash
# leaves them behind too, so only where the provider can tell of them later; and they leave as fast as they can, so
# only where there is no rate to keep to.
AHEAD = 100
# How many things may be made before the collector looks for those that hold each other.
MOST_THINGS = 50_000
# Two runs of one process may overlap, so that none may take the other's setting for the usual one.
USUALLY = gc.get_threshold()
USUAL_SWITCH = sys.getswitchinterval()
# The thread that writes gives up Python's lock at each statement, and must not wait each time until a caller has built a
# body of many copies. In seconds.
SWITCH = 0.0001
# How often a copy is put off before it is rejected.
MOST_PUT_OFF = 20
# How often an unknown copy is sent again without a person having asked for it.
MOST_RESENT = 1

Result = TypeVar("Result")


class Landings:
    """Calls that came home. Whoever waits for them is woken once, when there are enough of them or one has failed."""

    def __init__(self) -> None:
        self._came: list[Landing] = []
        self._least = 1
        self._failed = False
        self._change = threading.Condition()

    def add(self, landing: Landing) -> None:
        """Take note of one."""
        with self._change:
            self._came.append(landing)
            self._failed = self._failed or landing.error is not None
            if self._failed or len(self._came) >= self._least:
                self._change.notify()

    def take(self, least: int, seconds: float | None = None, most: int | None = None) -> list[Landing]:
        """The first `most` that came, or all, after waiting for `least` of them, for a failed one, or for so long."""
        with self._change:
            self._least = least
            self._change.wait_for(lambda: self._failed or len(self._came) >= least, seconds)
            most = len(self._came) if most is None else most
            taken, self._came = self._came[:most], self._came[most:]
            self._failed = any(landing.error is not None for landing in self._came)
            return taken

    def __len__(self) -> int:
        return len(self._came)


class Decided(NamedTuple):
    """How many unknown copies the provider's log decided, and how many are sent again."""

    by_log: int
    again: int


@dataclass
class Delivery:
    """One run over the pending copies of one issue.

    `progress` is told how many of the issue's copies are settled, and of how many.
    """

    database: Database
    provider: Provider
    issue: IssueRow
    runner: str
    is_running: Callable[[str], bool]
    now: Callable[[], datetime]
    wait: Callable[[float], object]
    stopping: threading.Event
    progress: Callable[[int, int], None]
    ramp: Ramp | None = None
    resends: bool = False
    landed: Landings = field(default_factory=Landings)
    _departing: SimpleQueue[Flight | None] = field(default_factory=SimpleQueue)
    _aloft: set[int] = field(default_factory=set)
    _again: deque[Batch] = field(default_factory=deque)
    _left: tuple[datetime, Left] | None = None
    _done: int = 0
    _total: int = 0
    _dry: bool = False
    _asked_log: bool = False
    _by_hours: bool = False

    def run(self) -> None:
        """Send until no copy of the issue is pending or on the way, then close it.

        Where readers have hours of their own, send to those whose hour has come, and pause it until the next.

        Raises:
            ProviderError: the issue is paused; what it says is what to look at.
            DecisionNeeded: it was asked to stop, a person or the ramp has paused it, or the other readers have their
                hour later; what was in flight is settled.
        """
        limits = self.provider.limits
        self._rendered = self.issue.rendered
        self._size = call_size(limits, self._rendered)
        can_tell = limits.has_log or limits.key_lifetime is not None
        ahead = AHEAD if self._size == 1 and can_tell and limits.per_second is None else 0
        self._window = limits.connections + ahead
        # Where batches are claimed ahead, a turn waits until it is worth while; the callers have enough to do.
        self._quorum = max(1, ahead // 2)
        self._together = max(1, TOGETHER // self._size)
        self._pace = Pace(limits.per_second, random.random)
        with _in_haste(SWITCH if self._size > 1 else USUAL_SWITCH):
            self._judge = Judge(limits, self._pace, self.now, some_accepted=self._count())
            self._take_up_what_was_left()
            self._send_all()
            self._end()

    def _send_all(self) -> None:
        try:
            with self._callers():
                while self._aloft or not self._dry or self._goes_round_again():
                    before, landed = self._done, self._gather()
                    for flight in self._turn(landed):
                        self._aloft.add(flight.batch.id)
                        self._departing.put(flight)
                    if landed or self._done != before:
                        self.progress(self._done, self._total)
        except BaseException as error:
            # Whatever ends the run, what was in flight has come home first.
            self._judge.trouble = self._judge.trouble or error
            with suppress(DecisionNeeded):
                self._turn(self.landed.take(0))
            raise

    @contextmanager
    def _callers(self) -> Iterator[None]:
        """Threads that make the calls; at the end those that are begun are waited for, and those that are not come home."""
        connections = self.provider.limits.connections
        with ThreadPoolExecutor(connections, thread_name_prefix="call") as pool:
            try:
                with _deaf():
                    for _ in range(connections):
                        pool.submit(self._call_all)
                yield
            except BaseException as error:
                self._judge.trouble = self._judge.trouble or error
                raise
            finally:
                self._departing.put(None)

    def _gather(self) -> list[Landing]:
        """What came home; where nothing may leave now, wait for it."""
        delay = self._pace.delay(self.now())
        if self._aloft and (self._dry or delay or len(self._aloft) >= self._window):
            landed = self.landed.take(1, delay if delay and not self._dry else None, self._together)
            if landed and len(landed) < self._quorum and not any(each.error for each in landed):
                landed += self.landed.take(min(self._quorum, len(self._aloft)) - len(landed), LONGEST_LINGER)
            return landed
        if delay and not self.stopping.is_set():
            self.wait(delay)
        return self.landed.take(0, most=self._together)

    def _turn(self, landed: Sequence[Landing]) -> list[Flight]:
        """Settle what came home and claim what leaves next, in one transaction."""
        died = next((each.error for each in landed if each.error and not isinstance(each.error, Exception)), None)
        self._judge.trouble = self._judge.trouble or died
        judged = [self._judged(each) for each in landed if each.error is None or isinstance(each.error, Exception)]
        stops = self.stopping.is_set() or self._judge.trouble is not None
        free = min(self._together, self._window - len(self._aloft) + len(landed))
        room = 0 if stops else self._pace.room(self.now(), free)
        if not judged and not room and not died:
            self._dry = stops
            return []
        again = [self._again.popleft() for _ in range(min(room, len(self._again)))]
        leaving, done = self._keep(lambda session: self._write(session, judged, again, room))
        self._judge.halt = None
        self._dry = stops or len(leaving) < room
        self._aloft.difference_update(landing.flight.batch.id for landing in landed)
        if died:
            raise died
        self._done += done
        now = self.now()
        for _ in leaving:
            self._pace.left(now)
        return [Flight(batch, parcel, now) for batch, parcel in leaving]

    def _judged(self, landing: Landing) -> Outcome:
        outcome, copies = self._judge.judge(landing), len(landing.flight.parcel.copies)
        match outcome:
            case Answered(receipts=receipts):
                self._done += copies - sum(receipt.later for receipt in receipts)
            case Refused() | Lost():
                self._done += copies
            case LetGo(batch):
                self._again.append(replace(batch, runner=""))
        return outcome

    def _write(
        self, session: Session, judged: Sequence[Outcome], again: Sequence[Batch], room: int
    ) -> tuple[list[tuple[Batch, Parcel]], int]:
        """What one turn writes: what may leave, and how many copies are settled beside those that were judged.

        Whoever locks an issue and its copies locks the issue first.
        """
        if halt := self._judge.halt:
            ledger.pause(session, self.issue, Pause.TROUBLE, halt.said, halt.resume_at)
        late = bool(judged) and ledger.is_undecided(session, self.issue)
        most = self._allowance(session, room)
        done = settle(session, judged, self.now(), MOST_PUT_OFF)
        if late:
            # Somebody else has closed it meanwhile, and these answers may have been the last to be missed.
            ledger.close(session, self.issue, self.now())
        retried = []
        for batch in again:
            ready, lost = self._once_more(session, batch)
            retried += ready
            done += lost
        if room <= len(retried) or not most:
            return retried, done
        wanted = Wanted(self._size, room - len(retried), most, self._by_hours)
        claimed, skipped = claim(session, self.issue, self._rendered, wanted, self.runner, self.now())
        return retried + claimed, done + skipped

    def _allowance(self, session: Session, calls: int) -> int:
        """How many copies may leave now; where a ramp lets no more go today, the issue rests until tomorrow."""
        most = self._size * calls
        if not self.ramp or not calls:
            return most
        today = self.ramp.allowance(self.now())
        # Two runners must not both count before either claims.
        ledger.lock(session, self.issue.id)
        left = today.copies - self._at_most_left(session, today.since)
        if left <= 0:
            # What was given back meanwhile may go again.
            self._left = None
            left = today.copies - self._at_most_left(session, today.since)
        most = max(0, min(most, left))
        if not most and batches.is_on_the_way(session, self.issue):
            trouble = f"the warm-up lets {today.copies:,} copies go today; it goes on by itself tomorrow"
            ledger.pause(session, self.issue, Pause.RAMP, trouble, today.until)
        return most

    def _at_most_left(self, session: Session, day: datetime) -> int:
        """How many copies have left on a day: counted once, and from then on with those of every later batch of whomever."""
        before, last = self._left[1] if self._left and self._left[0] == day else Left(0, 0)
        more = batches.left_since(session, day, last)
        left = Left(before + more.copies, more.last)
        self._left = day, left
        return left.copies

    def _once_more(self, session: Session, batch: Batch) -> tuple[list[tuple[Batch, Parcel]], int]:
        """Begin the next attempt of a batch, if its key lives and its bytes are the same; else nobody can tell.

        What this very run claimed and did not know of never left, and is given back. An issue that is paused begins
        none: the batch stays as sending for the next run. Besides what may leave, how many copies were lost sight of.
        """
        if batch.runner == self.runner and batch.attempt == 1:
            batches.give_back(session, batch, self.now(), "it was claimed and did not leave")
            return [], 0
        parcel = batches.parcel_again(session, self.issue, self._rendered, batch) if self._judge.key_lives(batch) else None
        if parcel is None:
            reason = "the call ended before the answer, and cannot be made again"
            return [], batches.lose_sight(session, batch, self.now(), reason)
        held = batches.take_over(session, batch, self.runner, self.now()) if ledger.is_sending(session, self.issue) else None
        return ([(held, parcel)] if held else []), 0

    def _call_all(self) -> None:
        while flight := self._departing.get():
            self.landed.add(self._call(flight))
        # Whoever else waits may go, too.
        self._departing.put(None)

    def _call(self, flight: Flight) -> Landing:
        try:
            begun = flight._replace(began=self.now())
            if self._is_called_off(begun):
                return Landing(begun, error=Recalled())
            return Landing(begun, self.provider.send(self._rendered, flight.parcel))
        except BaseException as error:  # noqa: BLE001 - whatever happened, the run must hear of it
            return Landing(flight, error=error)

    def _is_called_off(self, flight: Flight) -> bool:
        stops = self.stopping.is_set() or self._judge.trouble is not None or self._pace.waits(flight.began)
        # Another runner that holds it for lost must not find it on its way after all.
        return stops or flight.began - flight.batch.attempted_at > PATIENCE / 2

    def _goes_round_again(self) -> bool:
        """Whether there is more to do though nothing is aloft and nothing could be claimed."""
        if self.stopping.is_set() or self._judge.trouble:
            return False
        with self.database.read() as session:
            if session.get_one(IssueRow, self.issue.id).state != IssueState.SENDING:
                return False
            on_the_way = batches.is_on_the_way(session, self.issue)
            waits = self._by_hours and hours.all_later(session, self.issue, self.now())
        if self._again:
            return True
        if waits:
            if not self._asks_about_the_unknown():
                self._keep(lambda session: ledger.rest(session, self.issue, self.now()))
            return True
        if on_the_way:
            if not self._take_up_what_was_left():
                self.wait(POLL)
            return True
        return self._asks_about_the_unknown()

    def _take_up_what_was_left(self) -> bool:
        """Batches of runners that are gone, or silent for long, and those that this run holds and does not know of.

        The last were committed, though the database broke off before it said so.
        """
        with self.database.read() as session:
            left = batches.in_flight(session, self.issue)
        known = self._aloft | {batch.id for batch in self._again}
        for batch in left:
            held_by_another = batch.runner not in ("", self.runner) and self.is_running(batch.runner)
            waits = held_by_another and self.now() - batch.attempted_at < PATIENCE
            if batch.id not in known and not waits:
                self._again.append(batch)
        return bool(self._again)

    def _asks_about_the_unknown(self) -> bool:
        """Ask the log once, if there is anything to ask, and send again what may be; whether copies wait anew."""
        if self._asked_log or not self._lost():
            return False
        self._asked_log = True
        try:
            return self.decide_unknown().again > 0
        except ProviderError:
            # The log is a help and not a condition: what it does not tell stays unknown, and it is asked again later.
            return False

    def decide_unknown(self) -> Decided:
        """Look in the provider's own log for copies that nobody can tell of; then, where that was chosen, send again.

        Sent again is what was not sent again before, and what the log would have shown: it was read to its end, and had
        the time.

        Raises:
            ProviderError: the log cannot be read now, and nothing was sent again.
        """
        limits, asked_at = self.provider.limits, self.now()
        lost = self._lost()
        decided = 0
        if not lost:
            # Whoever settled the last of them may have died before closing it.
            self._keep(lambda session: ledger.close(session, self.issue, asked_at))
        unread: set[str] = set()
        for together in _by_time(lost) if limits.has_log else ():
            copies = [each.copy for each in together]
            receipts, whole = self.provider.look_up(self.issue.rendered, copies, together[0].claimed_at - CLOCKS_DIFFER)
            decided += self._keep(partial(ledger.found, issue=self.issue, receipts=receipts, now=self.now()))
            unread.update(() if whole else [copy.ref for copy in copies])
        if not self.resends:
            return Decided(decided, 0)
        lag = limits.log_lag if limits.has_log else timedelta(0)
        old = [each for each in self._lost() if each.resent < MOST_RESENT and asked_at - each.attempted_at >= lag]
        refs = [each.copy.ref for each in old if each.copy.ref not in unread]
        again = self._keep(lambda session: ledger.send_again(session, self.issue, refs, MOST_RESENT, asked_at)) if refs else 0
        self._done -= again
        return Decided(decided, again)

    def _lost(self) -> list[ledger.Lost]:
        with self.database.read() as session:
            return ledger.lost_sight_of(session, self.issue)

    def _count(self) -> bool:
        """Whether any copy was accepted before."""
        with self.database.read() as session:
            counts = ledger.tally(session, self.issue).states
            self._by_hours = hours.goes_by_hours(session, self.issue)
        counts.pop(DeliveryState.EXCLUDED, None)
        self._total = counts.total()
        self._done = self._total - counts[DeliveryState.PENDING] - counts[DeliveryState.SENDING]
        self.progress(self._done, self._total)
        return counts[DeliveryState.ACCEPTED] > 0

    def _keep(self, change: Callable[[Session], Result]) -> Result:
        """Write to the ledger; the database gets several chances, since nobody can ask the provider again.

        Raises:
            DecisionNeeded: it cannot be written.
        """
        chance = 1
        while True:
            try:
                with self.database.write() as session:
                    return change(session)
            except OperationalError as error:
                if chance == WRITE_CHANCES:
                    again = f"mend that, and `friday publish {self.issue.slot}` goes on where it stopped"
                    raise DecisionNeeded(f"the ledger cannot be written: {error.orig}; {again}") from error
                # Who is told to stop waits for nothing, but this is worth waiting for.
                (time.sleep if self.stopping.is_set() else self.wait)(2.0**chance)
                chance += 1

    def _end(self) -> None:
        if self._judge.trouble:
            raise self._judge.trouble

        def close(session: Session) -> IssueRow:
            ledger.close(session, self.issue, self.now())
            return session.get_one(IssueRow, self.issue.id)

        issue = self._keep(close)
        self.progress(self._done, self._total)
        if issue.state == IssueState.PAUSED:
            raise (ProviderError if issue.paused_by == Pause.TROUBLE else DecisionNeeded)(issue.trouble)
        if issue.state == IssueState.SENDING:
            raise DecisionNeeded(f"stopped; `friday publish {issue.slot}` goes on where it stopped")


def _by_time(lost: Sequence[ledger.Lost]) -> list[list[ledger.Lost]]:
    """Lost copies in groups that were claimed at about one time, the oldest first: a log is read from there on."""
    groups: list[list[ledger.Lost]] = []
    for each in sorted(lost, key=attrgetter("claimed_at")):
        if groups and each.claimed_at - groups[-1][-1].claimed_at <= CLOCKS_DIFFER:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


@contextmanager
def _deaf() -> Iterator[None]:
    """Let threads that begin here leave signals to others.

    A signal may come to any thread that takes it, and the one that acts on it would sleep on until its next answer.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _in_haste(switch: float) -> Iterator[None]:
    """Let threads hand over after so many seconds, and the collector look seldom and only at what a run makes.

    Each turn makes thousands of things and drops them.
    """
    often, *later = USUALLY
    sys.setswitchinterval(switch)
    gc.freeze()
    gc.set_threshold(max(often, MOST_THINGS), *later)
    try:
        yield
    finally:
        gc.set_threshold(often, *later)
        gc.unfreeze()
        sys.setswitchinterval(USUAL_SWITCH)
