"""Pure: when the next call may leave, how long to wait after a failure, when to give up, and how many copies a day."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

# So many rounds of failures without a success between, and the issue is paused.
MOST_TRIES = 6
# Who asks for more patience than this, in seconds, gets a pause instead of a process that waits.
LONGEST_WAIT = 120.0
# How far calls that could not leave in time may catch up, in seconds of the rate.
CATCH_UP = timedelta(seconds=0.1)


class Pace:
    """A rate, and an exponential back-off with jitter that is told of every answer.

    Args:
        per_second: how many calls may begin in a second; None for as many as there are connections.
        chance: gives numbers from 0 to below 1.
    """

    def __init__(self, per_second: float | None, chance: Callable[[], float]) -> None:
        # A rate beyond what a clock can tell apart is none.
        self._step = (timedelta(seconds=1 / per_second) if per_second else None) or None
        self._chance = chance
        self._next: datetime | None = None
        self._not_before: datetime | None = None
        self._failed_at: datetime | None = None
        self._tries = 0

    def delay(self, now: datetime) -> float:
        """The seconds until the next call may begin; 0 if it may now."""
        due = [each for each in (self._next, self._not_before) if each]
        return max(0.0, *((each - now).total_seconds() for each in due)) if due else 0.0

    def waits(self, now: datetime) -> bool:
        """Whether a failure is being waited out."""
        return self._not_before is not None and now < self._not_before

    def room(self, now: datetime, most: int) -> int:
        """How many calls may begin now, at most `most`."""
        if self.delay(now) > 0:
            return 0
        if self._step is None:
            return most
        waited = now - max(self._next or now, now - CATCH_UP)
        return min(most, 1 + int(waited / self._step))

    def left(self, now: datetime) -> None:
        """Take note that a call begins."""
        if self._step:
            self._next = max(self._next or now, now - CATCH_UP) + self._step

    def went_well(self) -> None:
        """Take note of an answer to be glad of."""
        self._tries = 0

    def went_wrong(self, began: datetime, now: datetime, asked: timedelta | None) -> bool:
        """Wait before the next call; whether that is no use any more.

        Calls that were under way together when the trouble struck fail together, and count once.

        Args:
            began: when the call began.
            now: when its failure was known.
            asked: how long the provider asks to wait; else the wait doubles each time, and half of it is chance.
        """
        if self._failed_at is None or began > self._failed_at:
            self._tries += 1
        self._failed_at = now
        wait = asked.total_seconds() if asked and asked > timedelta(0) else 2.0**self._tries * (1 + self._chance()) / 2
        until = now + timedelta(seconds=min(wait, LONGEST_WAIT))
        self._not_before = max(self._not_before or until, until)
        return self._tries >= MOST_TRIES or wait > LONGEST_WAIT


@dataclass(frozen=True, slots=True)
class Ramp:
    """How many copies a young domain sends on each day, so that mail servers learn to know it."""

    begins: date
    first_day: int
    growth: float
    zone: ZoneInfo

    def allowance(self, now: datetime) -> "Allowance":
        """What may be sent on the day that it is in the ramp's zone; before it begins as much as on the first."""
        day = now.astimezone(self.zone).date()
        days = max(0, (day - self.begins).days)
        try:
            copies = int(self.first_day * self.growth**days)
        except OverflowError:
            # A few years of doubling have more digits than a float.
            copies = sys.maxsize
        return Allowance(copies, self._midnight(day), self._midnight(day + timedelta(days=1)))

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(0), self.zone).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many copies between two instants."""

    copies: int
    since: datetime
    until: datetime
