"""Claim batches, commit, hand them to the provider, settle; wait when asked to, stop when it is no use.

One thread decides and writes: at each turn it settles what came home and claims what leaves next, in one
transaction. The calls are made by others, as many at a time as the provider takes, and none is made while a
transaction is open. Every outcome of a call has one arrow in the ledger.
"""

import gc
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeVar

from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from pipeline import batches, ledger
from pipeline.batches import Answered, Batch, Wanted
from pipeline.books import DeliveryState, IssueRow, IssueState, Pause
from pipeline.database import Database
from pipeline.errors import AccountRefused, CallRefused, DecisionNeeded, NotProcessed, ProviderError, Unclear
from pipeline.issue import Parcel, Receipt
from pipeline.pace import Pace, Ramp
from pipeline.providers import Provider, call_size

# Longer than a provider's call may take: a batch of a living runner is left alone until then.
PATIENCE = timedelta(minutes=5)
# Keys are not trusted to their last second.
KEY_MARGIN = timedelta(minutes=5)
# A provider's clock may be behind ours.
CLOCKS_DIFFER = timedelta(minutes=5)
MOST_UNCLEAR = 2
# So many copies refused one by one, none accepted between, and it is rather the issue that is refused.
MOST_REFUSED = 3
SHORTEST_PAUSE = 60.0
POLL = 0.2
WRITE_CHANCES = 4
# Batches that are claimed beyond those in calls where each is a single copy, or claiming would hold them up. A crash
# leaves them behind too, so only where the provider can tell of them later; and they leave as fast as they can, so
# only where there is no rate to keep to.
AHEAD = 50
# How often a copy is put off before it is rejected.
MOST_PUT_OFF = 20
# How often an unknown copy is sent again without a person having asked for it.
MOST_RESENT = 1

Result = TypeVar("Result")
Outcome = Callable[[Session], None]


class Flight(NamedTuple):
    """A batch on its way to the provider, and when its call began."""

    batch: Batch
    parcel: Parcel
    began: datetime


class Recalled(Exception):
    """A call that was claimed and not begun, since there was reason to stop or to wait."""


class Landing(NamedTuple):
    """What came of a flight: receipts, or what went wrong."""

    flight: Flight
    receipts: Sequence[Receipt]
    error: BaseException | None


class Decided(NamedTuple):
    """How many unknown copies the provider's log decided, and how many are sent again."""

    by_log: int
    again: int


@dataclass
class Delivery:
    """One run over the pending copies of one issue.

    `unclear`, `refused` and `put_off` count calls in a row that brought nothing. `progress` is told how many of the issue's
    copies are settled, and of how many.
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
    unclear: int = 0
    refused: int = 0
    put_off: int = 0
    trouble: BaseException | None = None
    _aloft: set[int] = field(default_factory=set)
    _again: deque[Batch] = field(default_factory=deque)
    _landed: SimpleQueue[Landing] = field(default_factory=SimpleQueue)
    _before: dict[datetime, int] = field(default_factory=dict)
    _claimed: int = 0
    _some_accepted: bool = False
    _done: int = 0
    _total: int = 0
    _stop: Outcome | None = None
    _dry: bool = False
    _asked_log: bool = False

    def run(self) -> None:
        """Send until no copy of the issue is pending or on the way, then close it.

        Raises:
            ProviderError: the issue is paused; what it says is what to look at.
            DecisionNeeded: it was asked to stop, or a person or the ramp has paused it; what was in flight is settled.
        """
        limits = self.provider.limits
        self._rendered = self.issue.rendered
        self._size = call_size(limits, self._rendered)
        can_tell = limits.has_log or limits.key_lifetime is not None
        ahead = self._size == 1 and can_tell and limits.per_second is None
        self._window = limits.connections + (AHEAD if ahead else 0)
        self._quorum = max(1, (self._window - limits.connections) // 2)
        self._pace = Pace(limits.per_second, random.random)
        self._count()
        self._take_up_what_was_left()
        with _nothing_old_collected(), ThreadPoolExecutor(limits.connections, thread_name_prefix="call") as callers:
            try:
                while self._aloft or not self._dry or self._goes_round_again():
                    for flight in self._turn(self._gather()):
                        self._aloft.add(flight.batch.id)
                        callers.submit(self._call, flight)
            except BaseException as error:
                # Whatever ends the run, what is in flight comes home first.
                self.trouble = self.trouble or error
                callers.shutdown()
                with suppress(DecisionNeeded):
                    self._turn(self._drain())
                raise
        self._end()

    def _gather(self) -> list[Landing]:
        """What came home; where nothing may leave now, wait for it."""
        delay = self._pace.delay(self.now())
        if self._aloft and (self._dry or delay or len(self._aloft) >= self._window):
            try:
                landed = [self._landed.get(timeout=delay if delay and not self._dry else None)]
            except Empty:
                return []
            # Where batches are claimed ahead, a turn waits until it is worth while; the callers have enough to do.
            while len(landed) < min(self._quorum, len(self._aloft)) and not landed[-1].error:
                landed.append(self._landed.get())
            return landed + self._drain()
        if delay and not self.stopping.is_set():
            self.wait(delay)
        return self._drain()

    def _drain(self) -> list[Landing]:
        landed: list[Landing] = []
        with suppress(Empty):
            while True:
                landed.append(self._landed.get_nowait())
        return landed

    def _turn(self, landed: Sequence[Landing]) -> list[Flight]:
        """Settle what came home and claim what leaves next, in one transaction."""
        died = next((each.error for each in landed if each.error and not isinstance(each.error, Exception)), None)
        self.trouble = self.trouble or died
        judged = [self._judge(each) for each in landed if each.error is None or isinstance(each.error, Exception)]
        stops = self.stopping.is_set() or self.trouble is not None
        room = 0 if stops else self._pace.room(self.now(), self._window - len(self._aloft) + len(landed))
        if not judged and not room and not died:
            self._dry = stops
            return []
        again = [self._again.popleft() for _ in range(min(room, len(self._again)))]
        leaving, skipped = self._keep(lambda session: self._write(session, judged, again, room))
        self._stop = None
        self._dry = stops or len(leaving) < room
        self._aloft.difference_update(landing.flight.batch.id for landing in landed)
        if died:
            raise died
        self._claimed += sum(len(parcel.copies) for batch, parcel in leaving if batch.attempt == 1)
        self._done += skipped
        if landed or again:
            self.progress(self._done, self._total)
        for _ in leaving:
            self._pace.left(self.now())
        return [Flight(batch, parcel, self.now()) for batch, parcel in leaving]

    def _write(
        self, session: Session, judged: Sequence[Outcome | Answered], again: Sequence[Batch], room: int
    ) -> batches.Claim:
        """What one turn writes. Whoever locks an issue and its copies locks the issue first."""
        if self._stop:
            self._stop(session)
        late = bool(judged) and ledger.is_undecided(session, self.issue)
        most = self._allowance(session, room)
        batches.settle(session, [each for each in judged if isinstance(each, Answered)], self.now(), MOST_PUT_OFF)
        for outcome in judged:
            if not isinstance(outcome, Answered):
                outcome(session)
        if late:
            # Somebody else has closed it meanwhile, and these answers may have been the last to be missed.
            ledger.close(session, self.issue, self.now())
        retried = [ready for batch in again if (ready := self._once_more(session, batch))]
        if room <= len(retried) or not most:
            return batches.Claim(retried, 0)
        wanted = Wanted(self._size, room - len(retried), most)
        claimed, skipped = batches.claim(session, self.issue, self._rendered, wanted, self.runner, self.now())
        return batches.Claim(retried + claimed, skipped)

    def _allowance(self, session: Session, calls: int) -> int:
        """How many copies may leave now; where a ramp lets no more go today, the issue rests until tomorrow."""
        most = self._size * calls
        if not self.ramp or not calls:
            return most
        today = self.ramp.allowance(self.now())
        most = min(most, max(0, today.copies - self._left_since(session, today.since)))
        if not most and batches.is_on_the_way(session, self.issue):
            trouble = f"the warm-up lets {today.copies:,} copies go today; it goes on by itself tomorrow"
            ledger.pause(session, self.issue, Pause.RAMP, trouble, today.until)
        return most

    def _left_since(self, session: Session, day: datetime) -> int:
        """How many copies have left on a day: counted once, and from then on those of this run beside it."""
        if day not in self._before:
            self._before = {day: batches.left_since(session, day)}
            self._claimed = 0
        return self._before[day] + self._claimed

    def _once_more(self, session: Session, batch: Batch) -> tuple[Batch, Parcel] | None:
        """Begin the next attempt of a batch, if its key lives and its bytes are the same; else nobody can tell."""
        parcel = batches.parcel_again(session, self.issue, self._rendered, batch) if self._key_lives(batch) else None
        if parcel is None:
            reason = "the call ended before the answer, and cannot be made again"
            self._done += batches.lose_sight(session, batch, self.now(), reason)
            return None
        held = batches.take_over(session, batch, self.runner, self.now())
        return (held, parcel) if held else None

    def _call(self, flight: Flight) -> None:
        begun = flight._replace(began=self.now())
        if self.stopping.is_set() or self.trouble or self._pace.waits(begun.began):
            self._landed.put(Landing(begun, (), Recalled()))
            return
        try:
            landing = Landing(begun, self.provider.send(self._rendered, flight.parcel), None)
        except BaseException as error:  # noqa: BLE001 - whatever happened, the run must hear of it
            landing = Landing(begun, (), error)
        self._landed.put(landing)

    def _judge(self, landing: Landing) -> Outcome | Answered:
        """What the ledger must say of a call, and what follows for the next ones."""
        flight, receipts, error = landing
        batch = flight.batch
        if error is None:
            return self._answered(flight, receipts)
        if isinstance(error, Recalled):
            return self._give_back(flight, error) if batch.attempt == 1 else self._unseen(flight, "it was not sent again")
        if not isinstance(error, ProviderError):
            # A bug in the adapter; bytes may have left before it struck, and would again.
            self._stop_for(error, f"a bug in the provider: {type(error).__name__}", None)
            return self._unseen(flight, str(error) or type(error).__name__)
        # Under a key that lives the provider answers for the first attempt too: what it refuses whole never left.
        first = batch.attempt == 1 or (isinstance(error, CallRefused) and self._key_lives(batch))
        return self._failed(flight, error) if first else self._nobody_can_tell(flight, error)

    def _answered(self, flight: Flight, receipts: Sequence[Receipt]) -> Answered:
        answered, copies = Answered(flight.batch, flight.parcel, receipts), len(flight.parcel.copies)
        put_off = [receipt for receipt in receipts if receipt.later]
        self._done += copies - len(put_off)
        self._claimed -= len(put_off)
        if len(receipts) < copies:
            self.unclear += 1
            if self.unclear >= MOST_UNCLEAR:
                self._pause_for(Unclear("the provider did not answer for every copy"))
            return answered
        if len(put_off) < copies:
            self._pace.went_well()
            self.unclear = self.refused = self.put_off = 0
            self._some_accepted = self._some_accepted or any(receipt.accepted for receipt in receipts)
            return answered
        # One reader's server that asks for patience must not hold up the others; many that do are rather ours.
        self.put_off += 1
        if self.put_off >= MOST_REFUSED or flight.batch.suspect:
            self._back_off(flight.began, NotProcessed(put_off[0].reason))
        return answered

    def _failed(self, flight: Flight, error: ProviderError) -> Outcome:
        if isinstance(error, Unclear):
            return self._nobody_can_tell(flight, error)
        if isinstance(error, CallRefused):
            return self._split(flight, error)
        self._back_off(flight.began, error)
        return self._give_back(flight, error)

    def _nobody_can_tell(self, flight: Flight, error: ProviderError) -> Outcome:
        if self._key_lives(flight.batch):
            self._back_off(flight.began, error)
        else:
            self.unclear += 1
            if self.unclear >= MOST_UNCLEAR or not isinstance(error, Unclear):
                self._pause_for(error)
        return self._unseen(flight, str(error))

    def _unseen(self, flight: Flight, reason: str) -> Outcome:
        # While its key lives the batch stays as sending: it goes out again under it, by this run or the next.
        batch, now = flight.batch, self.now()
        if self._key_lives(batch):
            self._again.append(batch)
            return lambda session: batches.let_go(session, batch)
        self._done += len(flight.parcel.copies)

        def lose(session: Session) -> None:
            batches.lose_sight(session, batch, now, reason)

        return lose

    def _give_back(self, flight: Flight, error: Exception, cap: int | None = None, *, suspect: bool = False) -> Outcome:
        batch, now = flight.batch, self.now()
        if batch.attempt == 1:
            self._claimed -= len(flight.parcel.copies)
        return lambda session: batches.give_back(session, batch, now, str(error), cap, suspect=suspect)

    def _key_lives(self, batch: Batch) -> bool:
        lifetime = self.provider.limits.key_lifetime
        return lifetime is not None and self.now() - batch.claimed_at < lifetime - KEY_MARGIN

    def _back_off(self, began: datetime, error: ProviderError) -> None:
        asked = error.retry_after if isinstance(error, NotProcessed) else None
        gives_up = self._pace.went_wrong(began, self.now(), asked)
        if gives_up or isinstance(error, AccountRefused):
            self._pause_for(error)

    def _split(self, flight: Flight, error: CallRefused) -> Outcome:
        """Halve a refused batch; let a copy that is refused alone go last, and reject it if it is refused again."""
        batch, copies, now = flight.batch, len(flight.parcel.copies), self.now()
        if copies > 1:
            return self._give_back(flight, error, cap=(copies + 1) // 2)
        if batch.suspect and self._some_accepted:
            self._done += 1
            return lambda session: batches.reject(session, batch, now, str(error))
        self.refused += 1
        if self.refused >= MOST_REFUSED:
            self._pause_for(error)
        return self._give_back(flight, error, suspect=True)

    def _pause_for(self, error: ProviderError) -> None:
        # Without a key, trying again what is unclear would only make more copies unknown.
        keyed = self.provider.limits.key_lifetime is not None
        passes = isinstance(error, NotProcessed) or (keyed and isinstance(error, Unclear))
        asked = error.retry_after if isinstance(error, NotProcessed) and error.retry_after else timedelta(0)
        after = max(asked, timedelta(seconds=SHORTEST_PAUSE))
        self._stop_for(error, str(error), self.now() + after if passes else None)

    def _stop_for(self, error: BaseException, said: str, resume_at: datetime | None) -> None:
        self.trouble = self.trouble or error

        def stop(session: Session) -> None:
            ledger.pause(session, self.issue, Pause.TROUBLE, said, resume_at)

        self._stop = self._stop or stop

    def _goes_round_again(self) -> bool:
        """Whether there is more to do though nothing is aloft and nothing could be claimed."""
        if self.stopping.is_set() or self.trouble:
            return False
        with self.database.read() as session:
            if session.get_one(IssueRow, self.issue.id).state != IssueState.SENDING:
                return False
            on_the_way = batches.is_on_the_way(session, self.issue)
        if self._again:
            return True
        if on_the_way:
            if not self._take_up_what_was_left():
                self.wait(POLL)
            return True
        return self._asks_about_the_unknown()

    def _take_up_what_was_left(self) -> bool:
        """Batches of runners that are gone, or silent for long: they go out again, or nobody can tell."""
        with self.database.read() as session:
            left = batches.in_flight(session, self.issue)
        known = self._aloft | {batch.id for batch in self._again}
        for batch in left:
            held_by_another = batch.runner and self.is_running(batch.runner)
            waits = held_by_another and self.now() - batch.attempted_at < PATIENCE
            if batch.id not in known and not waits:
                self._again.append(batch)
        return bool(self._again)

    def _asks_about_the_unknown(self) -> bool:
        """Ask the log once, and send again what may be sent again; whether copies wait anew."""
        if self._asked_log:
            return False
        self._asked_log = True
        try:
            return self.decide_unknown().again > 0
        except ProviderError:
            # The log is a help and not a condition: what it does not tell stays unknown, and it is asked again later.
            return False

    def decide_unknown(self) -> Decided:
        """Look in the provider's own log for copies that nobody can tell of; then, where that was chosen, send again.

        Sent again is what was not sent again before, and what the log has had the time to show.

        Raises:
            ProviderError: the log cannot be read now, and nothing was changed.
        """
        limits, asked_at = self.provider.limits, self.now()
        lost = self._lost()
        decided = 0
        if not lost:
            # Whoever settled the last of them may have died before closing it.
            self._keep(lambda session: ledger.close(session, self.issue, asked_at))
        if limits.has_log and lost:
            since = min(each.claimed_at for each in lost) - CLOCKS_DIFFER
            receipts = self.provider.look_up(self.issue.rendered, [each.copy for each in lost], since)
            decided = self._keep(lambda session: ledger.found(session, self.issue, receipts, self.now()))
        if not self.resends:
            return Decided(decided, 0)
        lag = limits.log_lag if limits.has_log else timedelta(0)
        refs = [each.copy.ref for each in self._lost() if each.resent < MOST_RESENT and asked_at - each.attempted_at >= lag]
        again = self._keep(lambda session: ledger.send_again(session, self.issue, refs, MOST_RESENT, asked_at)) if refs else 0
        self._done -= again
        return Decided(decided, again)

    def _lost(self) -> list[ledger.Lost]:
        with self.database.read() as session:
            return ledger.lost_sight_of(session, self.issue)

    def _count(self) -> None:
        with self.database.read() as session:
            counts = ledger.tally(session, self.issue)
        counts.pop(DeliveryState.EXCLUDED, None)
        self._some_accepted = counts[DeliveryState.ACCEPTED] > 0
        self._total = counts.total()
        self._done = self._total - counts[DeliveryState.PENDING] - counts[DeliveryState.SENDING]
        self.progress(self._done, self._total)

    def _keep(self, change: Callable[[Session], Result]) -> Result:
        """Write to the ledger; the database gets several chances, since nobody can ask the provider again.

        Raises:
            DecisionNeeded: it cannot be written.
        """
        for chance in range(1, WRITE_CHANCES + 1):
            try:
                with self.database.write() as session:
                    return change(session)
            except OperationalError as error:
                if chance == WRITE_CHANCES:
                    again = f"mend that, and `friday publish {self.issue.slot}` goes on where it stopped"
                    raise DecisionNeeded(f"the ledger cannot be written: {error.orig}; {again}") from error
                # Who is told to stop waits for nothing, but this is worth waiting for.
                (time.sleep if self.stopping.is_set() else self.wait)(2.0**chance)
        raise AssertionError("unreachable")

    def _end(self) -> None:
        if self.trouble:
            raise self.trouble

        def close(session: Session) -> IssueRow:
            ledger.close(session, self.issue, self.now())
            return session.get_one(IssueRow, self.issue.id, populate_existing=True)

        issue = self._keep(close)
        self.progress(self._done, self._total)
        if issue.state == IssueState.PAUSED:
            raise (ProviderError if issue.paused_by == Pause.TROUBLE else DecisionNeeded)(issue.trouble)
        if issue.state == IssueState.SENDING:
            raise DecisionNeeded(f"stopped; `friday publish {issue.slot}` goes on where it stopped")


@contextmanager
def _nothing_old_collected() -> Iterator[None]:
    """Spare the collector what is there already and stays: a loop that makes a thousand small things a turn wakes it often."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
