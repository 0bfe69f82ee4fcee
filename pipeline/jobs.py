"""What the clock did is written down: when each of its jobs last ran, what came of it, and what comes next."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from pipeline import ledger
from pipeline.books import IssueRow, JobRow
from pipeline.errors import FridayError
from pipeline.newsroom import Newsroom
from pipeline.schedule import Planned

# So often it is written down that a job has rung and found nothing to do.
QUIET = timedelta(minutes=5)
# What is done so seldom may take long, and whoever looks meanwhile wants to know that it is at work.
SELDOM = timedelta(hours=1)

log = logging.getLogger(__name__)


class Done(NamedTuple):
    """What a job has done, in words, none if nothing; and when it is next due if that is not the next time that it rings."""

    said: str
    next_at: datetime | None = None


@dataclass
class Job:
    """A function that is called every so often, and what becomes of it written down.

    What found nothing to do, or failed as it did before, is written down now and then only: the words of what it
    did last stay.
    """

    newsroom: Newsroom
    name: str
    every: timedelta
    ring: Callable[[], object]
    _written: datetime | None = field(default=None, init=False)
    _trouble: str = field(default="", init=False)

    def __call__(self) -> object:
        """Call it; what it raises is raised."""
        began = self.newsroom.now()
        if self.every >= SELDOM:
            self._write(JobRow(name=self.name, began_at=began, next_at=began + self.every), {"said", "trouble"})
        try:
            done = self.ring()
        except FridayError as error:
            self._note(began, None, str(error))
            raise
        except Exception as error:
            self._note(began, None, f"a bug in Friday: {type(error).__name__}")
            raise
        self._note(began, done if isinstance(done, Done) else None, "")
        return done

    def _note(self, began: datetime, done: Done | None, trouble: str) -> None:
        now = self.newsroom.now()
        said = done.said if done else ""
        quiet = not said and trouble == self._trouble
        if quiet and self._written and timedelta(0) <= now - self._written < QUIET:
            return
        next_at = (done.next_at if done else None) or began + self.every
        row = JobRow(name=self.name, began_at=began, ended_at=now, next_at=next_at, said=said, trouble=trouble)
        self._write(row, set() if said else {"said"})
        self._written, self._trouble = now, trouble

    def _write(self, row: JobRow, kept: set[str]) -> None:
        try:
            with self.newsroom.database.write() as session:
                found = session.get(JobRow, row.name)
                if found is None:
                    session.add(row)
                    return
                for name, value in row.model_dump(exclude=kept).items():
                    setattr(found, name, value)
        except SQLAlchemyError as error:
            # A job is done even if nobody can read of it.
            log.warning("what %s did could not be written down: %s", self.name, type(error).__name__)


def jobs(session: Session) -> Sequence[JobRow]:
    """How each job last ran; one without an end is still running, or its process was killed."""
    return session.exec(select(JobRow).order_by(col(JobRow.began_at), col(JobRow.name))).all()


@dataclass(frozen=True, slots=True)
class Outlook:
    """What comes next, what came last, and how the jobs of the clock last ran, the latest at the end."""

    next: Planned
    due: bool
    last: IssueRow | None
    jobs: tuple[JobRow, ...]


def outlook(newsroom: Newsroom) -> Outlook:
    """What a person wants to know who looks at the clock."""
    now = newsroom.now()
    slot = newsroom.schedule.current(now)
    with newsroom.database.read() as session:
        last = ledger.newest(session)
        return Outlook(newsroom.schedule.planned(slot), slot.at <= now, last, tuple(jobs(session)))
