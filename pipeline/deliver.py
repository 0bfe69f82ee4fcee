"""Claim a batch, commit, hand it to the provider, settle; wait when asked to, stop when it is no use.

No database transaction is open while the provider is asked, and every outcome of a call has one arrow in
the ledger. What another process left behind is taken up here too.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pipeline import batches, ledger
from pipeline.batches import Batch
from pipeline.books import IssueRow
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
# So many copies refused one by one, none accepted between, and it is the issue that is refused.
MOST_SUSPECTS = 3
LONGEST_WAIT = 120.0
POLL = 0.2


@dataclass
class Delivery:
    """One run over the pending copies of one issue.

    `tries` and `unclear` count calls in a row that brought nothing. `suspects` are copies that were refused
    alone, whose fate waits for the next answer: if that is a refusal too, they may not be at fault.
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
    suspects: list[tuple[Batch, CallRefused]] = field(default_factory=list)

    def run(self) -> None:
        """Send until no copy of the issue is pending or on the way, then close it.

        Raises:
            ProviderError: the issue is paused; what it says is what to look at.
            DecisionNeeded: it was asked to stop; whatever was in flight is settled.
        """
        rendered = self.issue.rendered
        while not self.stopping.is_set():
            self._take_up_what_was_left(rendered)
            with self.database.write() as session:
                claimed = batches.claim(
                    session, self.issue, rendered.base_url, self.provider.limits.copies, self.runner, self.now()
                )
            if claimed:
                self._hand_over(rendered, *claimed)
            elif self.suspects:
                self._reject_suspects()
            elif self._others_are_at_work():
                self.wait(POLL)
            else:
                break
        self._reject_suspects()
        if self.stopping.is_set():
            raise DecisionNeeded(f"stopped; `friday publish {self.issue.slot}` goes on where it stopped")
        with self.database.write() as session:
            ledger.close(session, self.issue, self.now())

    def _others_are_at_work(self) -> bool:
        with self.database.read() as session:
            return ledger.is_on_the_way(session, self.issue)

    def _take_up_what_was_left(self, rendered: RenderedIssue) -> None:
        with self.database.read() as session:
            left = batches.in_flight(session, self.issue)
        mine = {batch.id for batch, _ in self.suspects}
        for batch in left:
            if batch.id in mine or (self.is_running(batch.runner) and self.now() - batch.attempted_at < PATIENCE):
                continue
            with self.database.write() as session:
                held = batches.take_over(session, batch, self.runner, self.now())
                parcel = batches.parcel_again(session, self.issue, rendered.base_url, held) if held else None
            if held is None:
                continue
            if parcel is not None and self._key_lives(held):
                self._hand_over(rendered, held, parcel)
            else:
                self._lose_sight(held, "the process that was sending it ended before the answer")

    def _key_lives(self, batch: Batch) -> bool:
        lifetime = self.provider.limits.key_lifetime
        return lifetime is not None and self.now() - batch.claimed_at < lifetime - KEY_MARGIN

    def _hand_over(self, rendered: RenderedIssue, batch: Batch, parcel: Parcel) -> None:
        trying: Batch | None = batch
        while trying is not None:
            try:
                receipts = self.provider.send(rendered, parcel)
            except Exception as error:  # noqa: BLE001 - whatever happened, the ledger must say what became of the copies
                trying = self._went_wrong(trying, len(parcel.copies), error)
            else:
                with self.database.write() as session:
                    batches.settle(session, trying, parcel, receipts, self.now())
                self.tries = self.unclear = 0
                self._reject_suspects()
                self.progress(len(parcel.copies))
                return

    def _went_wrong(self, batch: Batch, copies: int, error: Exception) -> Batch | None:
        """Put down what a failed call means; the batch again if it should be tried again under its key."""
        if not isinstance(error, ProviderError):
            # A bug in the adapter; bytes may have left before it struck, and would again.
            self._lose_sight(batch, str(error) or type(error).__name__)
            with self.database.write() as session:
                ledger.pause(session, self.issue, f"a bug in the provider: {type(error).__name__}", temporary=False)
            raise error
        if self._key_lives(batch) and (batch.attempt > 1 or isinstance(error, Unclear)):
            return self._once_more(batch, error)
        # After a first attempt whose fate nobody knows, a refusal of the second says nothing about the first.
        if batch.attempt > 1 or isinstance(error, Unclear):
            self._lose_sight(batch, str(error))
            self.unclear += 1
            if self.unclear >= MOST_UNCLEAR or not isinstance(error, Unclear):
                self._pause(error)
        elif isinstance(error, CallRefused):
            self._split(batch, copies, error)
        else:
            with self.database.write() as session:
                batches.give_back(session, batch, self.now(), str(error))
            if not isinstance(error, NotProcessed):
                self._pause(error)
            self._back_off(error)
        return None

    def _once_more(self, batch: Batch, error: ProviderError) -> Batch | None:
        # While its key lives the batch stays as sending: the next run takes it up if this one has to give up.
        if isinstance(error, AccountRefused | CallRefused):
            self._pause(error)
        self._back_off(error)
        if self.stopping.is_set():
            return None
        with self.database.write() as session:
            return batches.take_over(session, batch, self.runner, self.now())

    def _back_off(self, error: ProviderError) -> None:
        self.tries += 1
        asked = error.retry_after if isinstance(error, NotProcessed) else None
        seconds = asked.total_seconds() if asked else 2.0**self.tries
        if self.tries >= MOST_TRIES or seconds > LONGEST_WAIT:
            self._pause(error)
        self.wait(seconds)

    def _split(self, batch: Batch, copies: int, error: CallRefused) -> None:
        if copies > 1:
            with self.database.write() as session:
                batches.give_back(session, batch, self.now(), str(error), cap=(copies + 1) // 2)
            return
        self.suspects.append((batch, error))
        if len(self.suspects) >= MOST_SUSPECTS:
            with self.database.write() as session:
                for suspect, why in self.suspects:
                    batches.give_back(session, suspect, self.now(), str(why), cap=1)
            self.suspects.clear()
            self._pause(error)

    def _reject_suspects(self) -> None:
        with self.database.write() as session:
            for batch, error in self.suspects:
                batches.reject(session, batch, self.now(), str(error))
        if self.suspects:
            self.progress(len(self.suspects))
        self.suspects.clear()

    def _lose_sight(self, batch: Batch, reason: str) -> None:
        with self.database.write() as session:
            batches.lose_sight(session, batch, self.now(), reason)

    def _pause(self, error: ProviderError) -> None:
        # Without a key, trying again what is unclear would only make more copies unknown.
        keyed = self.provider.limits.key_lifetime is not None
        temporary = isinstance(error, NotProcessed) or (keyed and isinstance(error, Unclear))
        with self.database.write() as session:
            ledger.pause(session, self.issue, str(error), temporary=temporary)
        raise error
