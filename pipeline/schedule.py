"""Which slot is due, which is next, how late is too late: pure answers to `now`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import count
from zoneinfo import ZoneInfo

from pipeline.errors import UsageError
from pipeline.issue import Slot

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK = timedelta(days=7)
YEARS = range(1970, 3000)


class Timing(StrEnum):
    """How a slot stands to now."""

    EARLY = "early"
    DUE = "due"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A weekly slot at a wall-clock time. `weekday` counts from Monday = 0."""

    weekday: int
    at: time
    zone: ZoneInfo
    grace: timedelta
    skipped: frozenset[date] = field(default=frozenset())

    def slot(self, day: date) -> Slot:
        """The slot of a local day.

        Raises:
            UsageError: that day has no slot.
        """
        if day.year not in YEARS:
            raise UsageError(f"{day} lies outside the years that Friday knows")
        if day.weekday() != self.weekday:
            before = day - timedelta(days=(day.weekday() - self.weekday) % 7)
            raise UsageError(f"{day} is a {day:%A} and slots are {before:%A}s: the nearest are {before} and {before + WEEK}")
        if day in self.skipped:
            raise UsageError(f"{day} is skipped: it stands in schedule.skip")
        return Slot(day, instant(day, self.at, self.zone))

    def next(self, now: datetime) -> Slot:
        """The first slot that opens after now."""
        return next(slot for slot in self._from(now) if slot.at > now)

    def last(self, now: datetime) -> Slot:
        """The latest slot that has opened, whether its grace is over or not."""
        # From tomorrow on, since clocks that go back over midnight bring yesterday's date again.
        days = (now.astimezone(self.zone).date() - timedelta(days=back) for back in count(-1))
        return next(slot for slot in self._on(days) if slot.at <= now)

    def due(self, now: datetime) -> Slot | None:
        """The slot that has opened and whose grace is not over, if there is one."""
        slot = self.last(now)
        return slot if self.timing(slot, now) is Timing.DUE else None

    def timing(self, slot: Slot, now: datetime) -> Timing:
        """Early before the slot opens, late once its grace is over, due between."""
        if now < slot.at:
            return Timing.EARLY
        return Timing.DUE if now <= slot.at + self.grace else Timing.LATE

    def current(self, now: datetime) -> Slot:
        """The slot that a person means who names none: the due one, else the next."""
        return self.due(now) or self.next(now)

    def named(self, name: str) -> Slot:
        """The slot of an ISO 8601 date.

        Raises:
            UsageError: the text is no date, or that day has no slot.
        """
        try:
            day = date.fromisoformat(name)
        except ValueError:
            raise UsageError(f"{name!r} is not a slot: write its date, such as 2026-11-27") from None
        return self.slot(day)

    def _from(self, now: datetime) -> Iterator[Slot]:
        # The day before covers zones whose gap pushes a slot past midnight.
        first = now.astimezone(self.zone).date() - timedelta(days=1)
        return self._on(first + timedelta(days=ahead) for ahead in count())

    def _on(self, days: Iterator[date]) -> Iterator[Slot]:
        return (self.slot(day) for day in days if day.weekday() == self.weekday and day not in self.skipped)


def instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The UTC instant of a wall-clock time.

    Where clocks go forward over it, the first valid instant after the gap; where they go back and it
    comes twice, the first.
    """
    wall = datetime.combine(day, at, zone)
    after = wall.astimezone(UTC)
    if after.astimezone(zone).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return after
    # In a gap fold=1 reads the wall time with the offset after it, so it lies before the change.
    before = wall.replace(fold=1).astimezone(UTC)
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)
