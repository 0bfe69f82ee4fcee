"""Who among several processes does what only one of them may: a lease in the database that is lost unless it is renewed."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, update

from pipeline import newsroom
from pipeline.books import LeaseRow
from pipeline.database import Database

CLOCK = "clock"
LASTS = timedelta(seconds=90)


def elapsed() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps where the system has such a one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


@dataclass
class Lease:
    """One process's claim to a lease. `beat` asks the database; `is_mine` answers from what the last beat found."""

    database: Database
    name: str
    holder: str
    now: Callable[[], datetime]
    lasts: timedelta = LASTS
    is_running: Callable[[str], bool] = newsroom.is_running
    elapsed: Callable[[], float] = elapsed
    _until: tuple[float, datetime] | None = field(default=None, init=False)
    _watched: tuple[str, datetime, float] | None = field(default=None, init=False)

    def beat(self) -> bool:
        """Take the lease if it is free, or renew it; whether it is ours."""
        # Counted from before the database is asked, which may take long.
        began, now = self.elapsed(), self.now()
        try:
            with self.database.write() as session:
                mine = self._take(session, began, now)
        except IntegrityError:
            # Another process took it for the first time, just before.
            mine = False
        self._until = (began + self.lasts.total_seconds(), now + self.lasts) if mine else None
        return mine

    @property
    def is_mine(self) -> bool:
        """Whether nobody else can hold it now, by the more careful of two clocks. Asks nobody."""
        until = self._until
        return until is not None and self.elapsed() < until[0] and self.now() < until[1]

    def give_up(self) -> None:
        """Let another process take it at once."""
        self._until = None
        with self.database.write() as session:
            end(session, self.name, self.holder)

    def _take(self, session: Session, began: float, now: datetime) -> bool:
        row = session.get(LeaseRow, self.name)
        if row is None:
            session.add(LeaseRow(name=self.name, holder=self.holder, until=now + self.lasts, beat_at=now))
            return True
        if not self._is_free(row, began, now):
            return False
        as_seen = (col(LeaseRow.holder) == row.holder) & (col(LeaseRow.beat_at) == row.beat_at)
        taking = update(LeaseRow).where(col(LeaseRow.name) == row.name, as_seen)
        taking = taking.values(holder=self.holder, until=now + self.lasts, beat_at=now)
        return session.exec(taking.execution_options(synchronize_session=False)).rowcount > 0

    def _is_free(self, row: LeaseRow, began: float, now: datetime) -> bool:
        if row.holder == self.holder or row.until <= max(now, row.beat_at) or not self.is_running(row.holder):
            return True
        # Its holder's clock may be far ahead of ours: who was silent for so long has lost it, whatever is written.
        beat = (row.holder, row.beat_at)
        if self._watched is None or self._watched[:2] != beat:
            self._watched = (*beat, began)
        return began - self._watched[2] >= self.lasts.total_seconds()


def last(session: Session, name: str) -> LeaseRow | None:
    """Who held a lease last, and when it was heard of; its `until` is its `beat_at` where it was given up."""
    return session.get(LeaseRow, name)


def end(session: Session, name: str, holder: str) -> None:
    """Take a lease from its holder; when it was last heard of stays."""
    ending = update(LeaseRow).where(col(LeaseRow.name) == name, col(LeaseRow.holder) == holder)
    session.exec(ending.values(until=LeaseRow.beat_at).execution_options(synchronize_session=False))
