"""Which slot is due, which is next, how late is too late: pure answers to `now`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import count, islice, takewhile
from zoneinfo import ZoneInfo

from pipeline.errors import UsageError
from pipeline.issue import Slot

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK = timedelta(days=7)
YEARS = range(1970, 3000)
# Where a day begins first and last. No zone of the years since 2011 lies further east or west.
FIRST, LAST = ZoneInfo("Etc/GMT-14"), ZoneInfo("Etc/GMT+12")
# To freeze an issue and enrol its readers before the first of them has the hour.
LEAD = timedelta(minutes=10)


class Timing(StrEnum):
    """How a slot stands to now."""

    EARLY = "early"
    DUE = "due"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Planned:
    """A slot to come, what a clock in the newsletter's zone shows then, and what is unusual about it."""

    slot: Slot
    local: datetime
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """A weekly slot at a wall-clock time, without the days that are skipped and with some extra ones.

    `weekday` counts from Monday = 0. With `reader_time` each reader has the hour in a zone of their own, and a slot
    opens shortly before the first of them.
    """

    weekday: int
    at: time
    zone: ZoneInfo
    grace: timedelta
    skipped: frozenset[date] = field(default=frozenset())
    extra: frozenset[date] = field(default=frozenset())
    reader_time: bool = False

    def slot(self, day: date) -> Slot:
        """The slot of a local day.

        Raises:
            UsageError: that day has no slot.
        """
        if day.year not in YEARS:
            raise UsageError(f"{day} lies outside the years that Friday knows")
        if day.weekday() != self.weekday and day not in self.extra:
            before = day - timedelta(days=(day.weekday() - self.weekday) % 7)
            raise UsageError(f"{day} is a {day:%A} and slots are {before:%A}s: the nearest are {before} and {before + WEEK}")
        if day in self.skipped:
            raise UsageError(f"{day} is skipped: it stands in schedule.skip")
        return Slot(day, self.opening(day))

    def opening(self, day: date) -> datetime:
        """When the slot of a day opens, if that day has one."""
        return instant(day, self.at, FIRST) - LEAD if self.reader_time else instant(day, self.at, self.zone)

    def hour(self, day: date, zone: ZoneInfo | None = None) -> datetime:
        """When a reader in a zone has the hour of a slot; one without a zone has the newsletter's."""
        return instant(day, self.at, zone or self.zone)

    def closing(self, slot: Slot) -> datetime:
        """Until when a slot's issue goes out by itself, once it was begun: the grace of the last reader's hour."""
        return (instant(slot.day, self.at, LAST) if self.reader_time else slot.at) + self.grace

    def next(self, now: datetime) -> Slot:
        """The first slot that opens after now."""
        return next(slot for slot in self._from(now) if slot.at > now)

    def last(self, now: datetime) -> Slot:
        """The latest slot that has opened, whether its grace is over or not."""
        # Clocks that go back over midnight bring yesterday's date again, and somewhere it is the day after tomorrow.
        days = (now.astimezone(self.zone).date() - timedelta(days=back) for back in count(-2))
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

    def clashes(self) -> list[tuple[date, date]]:
        """Two days of which the second's slot opens while the first's is due, which leaves the first one no more time."""
        near = [timedelta(days=away) for away in range(-self.grace.days - 1, self.grace.days + 2) if away]
        days = [day for day in self.extra if day.year in YEARS and self._has_slot(day)]
        pairs = {(min(day, day + away), max(day, day + away)) for day in days for away in near if self._has_slot(day + away)}
        return sorted(pair for pair in pairs if self.opening(pair[1]) <= self.opening(pair[0]) + self.grace)

    def current(self, now: datetime) -> Slot:
        """The slot that a person means who names none: the last, as long as its issue may go out by itself, else the next."""
        last = self.last(now)
        return last if now <= self.closing(last) else self.next(now)

    def between(self, after: datetime, until: datetime) -> list[Slot]:
        """The slots that open after an instant, up to another."""
        return list(takewhile(lambda slot: slot.at <= until, (slot for slot in self._from(after) if slot.at > after)))

    def upcoming(self, now: datetime, number: int = 8) -> list[Planned]:
        """The next slots, with what a person should know of them."""
        return [self.planned(slot) for slot in islice((slot for slot in self._from(now) if slot.at > now), number)]

    def planned(self, slot: Slot) -> Planned:
        """A slot as a person wants to see it."""
        return Planned(slot, slot.at.astimezone(self.zone), tuple(self._notes(slot)))

    def _notes(self, slot: Slot) -> Iterator[str]:
        if slot.day in self.extra and slot.day.weekday() != self.weekday:
            yield "an extra slot"
        before = [slot.day - timedelta(days=back) for back in range(1, 8)]
        for day in reversed([day for day in before if day in self.skipped and day.weekday() == self.weekday]):
            yield f"no issue on {day}, which is skipped"
        if self.reader_time:
            yield f"each reader's own {self.at:%H:%M}, the last at {instant(slot.day, self.at, LAST):%Y-%m-%d %H:%M} UTC"
            return
        wall = datetime.combine(slot.day, self.at)
        local = slot.at.astimezone(self.zone).replace(tzinfo=None)
        if local != wall:
            yield f"the clocks go forward over {self.at:%H:%M}, so it opens at {local:%H:%M}"
        elif wall.replace(tzinfo=self.zone).utcoffset() != wall.replace(tzinfo=self.zone, fold=1).utcoffset():
            yield f"{self.at:%H:%M} comes twice, and the first is meant"
        shift = _offset(slot.at, self.zone) - _offset(instant(slot.day - WEEK, self.at, self.zone), self.zone)
        if shift:
            way = "earlier" if shift > timedelta(0) else "later"
            yield f"the clocks have changed since the week before: {_spell(abs(shift))} {way} by UTC"

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
        # The day before covers zones whose gap pushes a slot past midnight; a slot of readers' hours opens before its day.
        first = now.astimezone(self.zone).date() - timedelta(days=1)
        return self._on(first + timedelta(days=ahead) for ahead in count())

    def _on(self, days: Iterator[date]) -> Iterator[Slot]:
        return (self.slot(day) for day in days if self._has_slot(day))

    def _has_slot(self, day: date) -> bool:
        return day not in self.skipped and (day.weekday() == self.weekday or day in self.extra)


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)


def _spell(shift: timedelta) -> str:
    return "an hour" if shift == timedelta(hours=1) else f"{shift.total_seconds() / 60:g} minutes"


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
