"""Judge: what must be written down of a call, and what follows from it for the next ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from pipeline.batches import Batch
from pipeline.errors import AccountRefused, CallRefused, NotProcessed, ProviderError, Unclear
from pipeline.issue import Parcel, Receipt
from pipeline.pace import Pace
from pipeline.providers import Limits
from pipeline.settle import Answered, GivenBack, LetGo, Lost, Outcome, Refused
from pipeline.text import printable

# Keys are not trusted to their last second.
KEY_MARGIN = timedelta(minutes=5)
MOST_UNCLEAR = 2
# So many copies refused one by one, none accepted between, and it is rather the issue that is refused.
MOST_REFUSED = 3
SHORTEST_PAUSE = timedelta(seconds=60)


class Flight(NamedTuple):
    """A batch on its way to the provider, and when its call began."""

    batch: Batch
    parcel: Parcel
    began: datetime


class Landing(NamedTuple):
    """What came of a flight: receipts, or what went wrong."""

    flight: Flight
    receipts: Sequence[Receipt] = ()
    error: BaseException | None = None


class Recalled(Exception):
    """A call that was claimed and not begun, since there was reason to stop or to wait."""


class Halt(NamedTuple):
    """Why an issue is to be paused, and when it may go on by itself, if ever."""

    said: str
    resume_at: datetime | None


@dataclass
class Judge:
    """What one run has learned from the answers so far.

    `unclear`, `refused` and `put_off` count calls in a row that brought nothing. Once there is `trouble` no
    call should begin any more; `halt` is what the issue's row must say of it.
    """

    limits: Limits
    pace: Pace
    now: Callable[[], datetime]
    some_accepted: bool
    unclear: int = 0
    refused: int = 0
    put_off: int = 0
    trouble: BaseException | None = None
    halt: Halt | None = None

    def judge(self, landing: Landing) -> Outcome:
        """Every outcome of a call has one arrow in the ledger."""
        flight, receipts, error = landing
        if error is None:
            return self._answered(flight, receipts)
        if isinstance(error, Recalled):
            if flight.batch.attempt == 1:
                return self._not_taken(flight.batch, error)
            return self._unseen(flight.batch, "it was not sent again")
        if not isinstance(error, ProviderError):
            # A bug in the adapter; bytes may have left before it struck, and would again.
            self._stop_for(error, f"a bug in the provider: {type(error).__name__}", None)
            return self._unseen(flight.batch, printable(str(error)) or type(error).__name__)
        # Under a key that lives the provider answers for the first attempt too: what it refuses whole never left.
        first = flight.batch.attempt == 1 or (isinstance(error, CallRefused) and self.key_lives(flight.batch))
        return self._failed(flight, error) if first else self._nobody_can_tell(flight, error)

    def key_lives(self, batch: Batch) -> bool:
        """Whether a batch may go out again under its key."""
        lifetime = self.limits.key_lifetime
        return lifetime is not None and self.now() - batch.claimed_at < lifetime - KEY_MARGIN

    def _answered(self, flight: Flight, receipts: Sequence[Receipt]) -> Answered:
        answered, copies = Answered(flight.batch, flight.parcel, receipts), len(flight.parcel.copies)
        if len(receipts) < copies:
            self.unclear += 1
            if self.unclear >= MOST_UNCLEAR:
                self._pause_for(Unclear("the provider did not answer for every copy"))
            return answered
        if not all(receipt.later for receipt in receipts):
            self.pace.went_well()
            self.unclear = self.refused = self.put_off = 0
            self.some_accepted = self.some_accepted or any(receipt.accepted for receipt in receipts)
            return answered
        # One reader's server that asks for patience must not hold up the others; many that do are rather ours.
        self.put_off += 1
        if self.put_off >= MOST_REFUSED or flight.batch.suspect:
            self._back_off(flight.began, NotProcessed(receipts[0].reason))
        return answered

    def _failed(self, flight: Flight, error: ProviderError) -> Outcome:
        if isinstance(error, Unclear):
            return self._nobody_can_tell(flight, error)
        if isinstance(error, CallRefused):
            return self._split(flight, error)
        self._back_off(flight.began, error)
        return self._not_taken(flight.batch, error)

    def _not_taken(self, batch: Batch, error: Exception) -> GivenBack:
        return GivenBack(batch, printable(str(error)), batch.cap, batch.suspect)

    def _nobody_can_tell(self, flight: Flight, error: ProviderError) -> Outcome:
        if self.key_lives(flight.batch):
            self._back_off(flight.began, error)
        else:
            self.unclear += 1
            if self.unclear >= MOST_UNCLEAR or not isinstance(error, Unclear):
                self._pause_for(error)
        return self._unseen(flight.batch, printable(str(error)))

    def _unseen(self, batch: Batch, reason: str) -> Outcome:
        return LetGo(batch) if self.key_lives(batch) else Lost(batch, reason)

    def _split(self, flight: Flight, error: CallRefused) -> Outcome:
        """Halve a refused batch; let a copy that is refused alone go last, and reject it if it is refused again."""
        batch, copies, said = flight.batch, len(flight.parcel.copies), printable(str(error))
        if copies > 1:
            return GivenBack(batch, said, cap=(copies + 1) // 2)
        if batch.suspect and self.some_accepted:
            return Refused(batch, said)
        self.refused += 1
        if self.refused >= MOST_REFUSED:
            self._pause_for(error)
        return GivenBack(batch, said, suspect=True)

    def _back_off(self, began: datetime, error: ProviderError) -> None:
        asked = error.retry_after if isinstance(error, NotProcessed) else None
        gives_up = self.pace.went_wrong(began, self.now(), asked)
        if gives_up or isinstance(error, AccountRefused):
            self._pause_for(error)

    def _pause_for(self, error: ProviderError) -> None:
        # Without a key, trying again what is unclear would only make more copies unknown.
        keyed = self.limits.key_lifetime is not None
        passes = isinstance(error, NotProcessed) or (keyed and isinstance(error, Unclear))
        asked = error.retry_after if isinstance(error, NotProcessed) and error.retry_after else SHORTEST_PAUSE
        self._stop_for(error, printable(str(error)), self.now() + max(asked, SHORTEST_PAUSE) if passes else None)

    def _stop_for(self, error: BaseException, said: str, resume_at: datetime | None) -> None:
        self.trouble = self.trouble or error
        self.halt = self.halt or Halt(said, resume_at)
