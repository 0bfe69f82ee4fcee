"""Claim a batch, commit, hand it to the provider, settle; wait when asked to, stop when it is no use.

No database transaction is open while the provider is asked, and every outcome of a call has one arrow in
the ledger. What another process left behind is taken up here too.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from pipeline import batches, ledger
from pipeline.batches import Batch
from pipeline.books import DeliveryState, IssueRow, IssueState
from pipeline.database import Database
from pipeline.errors import AccountRefused, CallRefused, DecisionNeeded, NotProcessed, ProviderError, Unclear
from pipeline.issue import Parcel, RenderedIssue
from pipeline.providers import Provider

# Longer than a provider's call may take: a batch of a living runner is left alone until then.
PATIENCE = timedelta(minutes=5)
# Keys are not trusted to their last second.
KEY_MARGIN = timedelta(minutes=5)
MOST_TRIES = 6
MOST_UNCLEAR = 2
# So many copies refused one by one, none accepted between, and it is rather the issue that is refused.
MOST_REFUSED = 3
LONGEST_WAIT = 120.0
SHORTEST_PAUSE = 60.0
POLL = 0.2
WRITE_CHANCES = 4


@dataclass
class Delivery:
    """One run over the pending copies of one issue.

    `tries`, `unclear` and `refused` count calls in a row that brought nothing.
    """

    database: Database
    provider: Provider
    issue: IssueRow
    runner: str
    is_running: Callable[[str], bool]
    now: Callable[[], datetime]
    wait: Callable[[float], object]
    stopping: threading.Event
    progress: Callable[[int], None]
    tries: int = 0
    unclear: int = 0
    refused: int = 0

    def run(self) -> None:
        """Send until no copy of the issue is pending or on the way, then close it.

        Raises:
            ProviderError: the issue is paused; what it says is what to look at.
            DecisionNeeded: it was asked to stop; whatever was in flight is settled.
        """
        rendered = self.issue.rendered
        while self._goes_on():
            self._take_up_what_was_left(rendered)
            if self.stopping.is_set():
                break
            with self.database.write() as session:
                claimed = batches.claim(
                    session, self.issue, rendered.base_url, self.provider.limits.copies, self.runner, self.now()
                )
            if claimed:
                self._hand_over(rendered, *claimed)
            elif self._others_are_at_work():
                self.wait(POLL)
            else:
                break
        with self.database.write() as session:
            ledger.close(session, self.issue, self.now())
            issue = session.get_one(IssueRow, self.issue.id, populate_existing=True)
        if issue.state == IssueState.PAUSED:
            raise ProviderError(issue.trouble)
        if issue.state == IssueState.SENDING:
            raise DecisionNeeded(f"stopped; `friday publish {issue.slot}` goes on where it stopped")

    def _goes_on(self) -> bool:
        if self.stopping.is_set():
            return False
        with self.database.read() as session:
            return session.get_one(IssueRow, self.issue.id).state == IssueState.SENDING

    def _others_are_at_work(self) -> bool:
        with self.database.read() as session:
            return ledger.is_on_the_way(session, self.issue)

    def _take_up_what_was_left(self, rendered: RenderedIssue) -> None:
        with self.database.read() as session:
            left = batches.in_flight(session, self.issue)
        for batch in left:
            held_by_another = batch.runner and self.is_running(batch.runner)
            if held_by_another and self.now() - batch.attempted_at < PATIENCE:
                continue
            if not self._goes_on():
                return
            self._try_again(rendered, batch, "the process that was sending it ended before the answer")

    def _try_again(self, rendered: RenderedIssue, batch: Batch, reason: str) -> None:
        """Begin the next attempt of a batch, if its key lives and its bytes are the same; else nobody can tell."""
        with self.database.write() as session:
            held = batches.take_over(session, batch, self.runner, self.now())
            parcel = batches.parcel_again(session, self.issue, rendered.base_url, held) if held else None
            if held and not (parcel and self._key_lives(held)):
                batches.lose_sight(session, held, self.now(), reason)
        if held and parcel and self._key_lives(held):
            self._hand_over(rendered, held, parcel)

    def _key_lives(self, batch: Batch) -> bool:
        lifetime = self.provider.limits.key_lifetime
        return lifetime is not None and self.now() - batch.claimed_at < lifetime - KEY_MARGIN

    def _hand_over(self, rendered: RenderedIssue, batch: Batch, parcel: Parcel) -> None:
        try:
            receipts = self.provider.send(rendered, parcel)
        except Exception as error:  # noqa: BLE001 - whatever happened, the ledger must say what became of the copies
            self._went_wrong(rendered, batch, len(parcel.copies), error)
            return
        self._keep(lambda session: batches.settle(session, batch, parcel, receipts, self.now()))
        self.tries = self.unclear = self.refused = 0
        self.progress(len(parcel.copies))

    def _keep(self, outcome: Callable[[Session], None]) -> None:
        """Write down what the provider said, which nobody can ask it again: the database gets several chances."""
        for chance in range(1, WRITE_CHANCES + 1):
            try:
                with self.database.write() as session:
                    outcome(session)
            except OperationalError:
                if chance == WRITE_CHANCES:
                    raise
                self.wait(2.0**chance)
            else:
                return

    def _went_wrong(self, rendered: RenderedIssue, batch: Batch, copies: int, error: Exception) -> None:
        if not isinstance(error, ProviderError):
            # A bug in the adapter; bytes may have left before it struck, and would again.
            self._leave_unclear(batch, str(error) or type(error).__name__)
            with self.database.write() as session:
                ledger.pause(session, self.issue, f"a bug in the provider: {type(error).__name__}", None)
            raise error
        # Under a key that lives the provider answers for the first attempt too: what it refuses whole never left.
        first = batch.attempt == 1 or (isinstance(error, CallRefused) and self._key_lives(batch))
        if isinstance(error, Unclear) or not first:
            self._unclear(rendered, batch, error)
        elif isinstance(error, CallRefused):
            self._split(batch, copies, error)
        else:
            self._keep(lambda session: batches.give_back(session, batch, self.now(), str(error)))
            if not isinstance(error, NotProcessed):
                self._pause(error)
            self._back_off(error)

    def _unclear(self, rendered: RenderedIssue, batch: Batch, error: ProviderError) -> None:
        self._leave_unclear(batch, str(error))
        if self._key_lives(batch):
            if isinstance(error, AccountRefused):
                self._pause(error)
            self._back_off(error)
            if self._goes_on():
                self._try_again(rendered, batch, str(error))
            return
        self.unclear += 1
        if self.unclear >= MOST_UNCLEAR or not isinstance(error, Unclear):
            self._pause(error)

    def _leave_unclear(self, batch: Batch, reason: str) -> None:
        # While its key lives the batch stays as sending: it goes out again under it, by this run or the next.
        if self._key_lives(batch):
            self._keep(lambda session: batches.let_go(session, batch))
        else:
            self._keep(lambda session: batches.lose_sight(session, batch, self.now(), reason))

    def _back_off(self, error: ProviderError) -> None:
        self.tries += 1
        seconds = self._asked(error) or 2.0**self.tries
        if self.tries >= MOST_TRIES or seconds > LONGEST_WAIT:
            self._pause(error)
        self.wait(seconds)

    def _asked(self, error: ProviderError) -> float:
        asked = error.retry_after if isinstance(error, NotProcessed) else None
        return asked.total_seconds() if asked else 0.0

    def _split(self, batch: Batch, copies: int, error: CallRefused) -> None:
        """Halve a refused batch; let a copy that is refused alone go last, and reject it if it is refused again."""
        if copies > 1:
            half = (copies + 1) // 2
            self._keep(lambda session: batches.give_back(session, batch, self.now(), str(error), cap=half))
            return
        with self.database.read() as session:
            some_accepted = ledger.tally(session, self.issue)[DeliveryState.ACCEPTED] > 0
        if batch.suspect and some_accepted:
            self._keep(lambda session: batches.reject(session, batch, self.now(), str(error)))
            self.progress(1)
            return
        self._keep(lambda session: batches.give_back(session, batch, self.now(), str(error), suspect=True))
        self.refused += 1
        if self.refused >= MOST_REFUSED:
            self._pause(error)

    def _pause(self, error: ProviderError) -> None:
        # Without a key, trying again what is unclear would only make more copies unknown.
        keyed = self.provider.limits.key_lifetime is not None
        passes = isinstance(error, NotProcessed) or (keyed and isinstance(error, Unclear))
        after = max(self._asked(error), SHORTEST_PAUSE)
        with self.database.write() as session:
            ledger.pause(session, self.issue, str(error), self.now() + timedelta(seconds=after) if passes else None)
        raise error
