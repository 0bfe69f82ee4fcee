"""Claim a batch, commit, hand it to the provider, settle; wait when asked to, stop when it is no use.

No database transaction is open while the provider is asked, and every outcome of a call has one arrow in
the ledger. What another process left behind is taken up here too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline import ledger
from pipeline.books import IssueRow
from pipeline.database import Database
from pipeline.errors import AccountRefused, CallRefused, NotProcessed, ProviderError, Unclear
from pipeline.issue import Parcel, RenderedIssue
from pipeline.ledger import Batch
from pipeline.providers import Provider

# Longer than a provider's call may take: a batch of a living runner is left alone until then.
PATIENCE = timedelta(minutes=5)
# Keys are not trusted to their last second.
KEY_MARGIN = timedelta(minutes=5)
MOST_TRIES = 6
MOST_UNCLEAR = 2
LONGEST_WAIT = 120.0
POLL = 0.2


@dataclass
class Delivery:
    """One run over the pending copies of one issue."""

    database: Database
    provider: Provider
    issue: IssueRow
    runner: str
    is_running: Callable[[str], bool]
    now: Callable[[], datetime]
    wait: Callable[[float], None]
    progress: Callable[[int], None]
    tries: int = 0
    unclear: int = 0

    def run(self) -> None:
        """Send until no copy of the issue is pending or on the way, then close it.

        Raises:
            ProviderError: the issue is paused; what it says is what to look at.
        """
        rendered = self.issue.rendered
        while True:
            self._take_up_what_was_left(rendered)
            with self.database.write() as session:
                claimed = ledger.claim(session, self.issue, self.provider.limits.copies, self.runner, self.now())
            if claimed:
                self._hand_over(rendered, *claimed)
            elif self._others():
                self.wait(POLL)
            else:
                break
        with self.database.write() as session:
            ledger.close(session, self.issue, self.now())

    def _others(self) -> list[Batch]:
        with self.database.read() as session:
            return ledger.in_flight(session, self.issue)

    def _take_up_what_was_left(self, rendered: RenderedIssue) -> None:
        for batch in self._others():
            if self.is_running(batch.runner) and self.now() - batch.attempted_at < PATIENCE:
                continue
            with self.database.write() as session:
                held = ledger.hold(session, batch, self.runner, self.now())
                parcel = ledger.parcel_again(session, self.issue, held) if held else None
            if held is None:
                continue
            if parcel is not None and self._key_lives(held):
                self._hand_over(rendered, held, parcel)
                continue
            with self.database.write() as session:
                ledger.lose_sight(session, held, self.now(), "the process that was sending it ended before the answer")

    def _key_lives(self, batch: Batch) -> bool:
        lifetime = self.provider.limits.key_lifetime
        return lifetime is not None and self.now() - batch.claimed_at < lifetime - KEY_MARGIN

    def _hand_over(self, rendered: RenderedIssue, batch: Batch, parcel: Parcel) -> None:
        try:
            receipts = self.provider.send(rendered, parcel)
        except Exception as error:  # noqa: BLE001 - whatever happened, the ledger must say what became of the copies
            self._went_wrong(batch, len(parcel.copies), error)
            return
        with self.database.write() as session:
            ledger.settle(session, batch, parcel, receipts, self.now())
        self.tries = self.unclear = 0
        self.progress(len(parcel.copies))

    def _went_wrong(self, batch: Batch, copies: int, error: Exception) -> None:
        first = batch.attempt == 1
        match error:
            case NotProcessed() if first:
                self._try_later(batch, error)
            case AccountRefused() if first:
                with self.database.write() as session:
                    ledger.give_back(session, batch, self.now(), str(error))
                self._pause(error)
            case CallRefused() if first:
                self._split(batch, copies, error)
            case _:
                # Unclear; or a bug after bytes may have left; or a refusal, which tells nothing of an attempt before.
                with self.database.write() as session:
                    ledger.lose_sight(session, batch, self.now(), str(error) or type(error).__name__)
                if not isinstance(error, ProviderError):
                    raise error
                self.unclear += 1
                if self.unclear >= MOST_UNCLEAR or not isinstance(error, Unclear):
                    self._pause(error)

    def _try_later(self, batch: Batch, error: NotProcessed) -> None:
        with self.database.write() as session:
            ledger.give_back(session, batch, self.now(), str(error))
        self.tries += 1
        asked = error.retry_after.total_seconds() if error.retry_after else 2.0**self.tries
        if self.tries >= MOST_TRIES or asked > LONGEST_WAIT:
            self._pause(error)
        self.wait(asked)

    def _split(self, batch: Batch, copies: int, error: CallRefused) -> None:
        with self.database.write() as session:
            if copies == 1:
                ledger.reject(session, batch, self.now(), str(error))
                self.progress(1)
            else:
                ledger.give_back(session, batch, self.now(), str(error), cap=(copies + 1) // 2)

    def _pause(self, error: ProviderError) -> None:
        with self.database.write() as session:
            ledger.pause(session, self.issue, str(error))
        raise error
