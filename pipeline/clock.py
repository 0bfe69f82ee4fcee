"""The clock only rings: it calls the functions that it is given, again and again, and knows nothing of weeks.

The only file that imports APScheduler. What is due is asked of the database by the function that rings.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

log = logging.getLogger(__name__)
# It warns at every ring that finds the one before still at work, which is as it should be.
logging.getLogger("apscheduler").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Bell:
    """A function to be called now and then every so often, never twice at once."""

    name: str
    every: timedelta
    ring: Callable[[], None]


@contextmanager
def ringing(bells: Sequence[Bell]) -> Iterator[None]:
    """Ring the bells in threads of their own for as long as the block lasts."""
    scheduler = BackgroundScheduler(timezone=UTC)
    for bell in bells:
        scheduler.add_job(
            _safely(bell),
            IntervalTrigger(seconds=int(bell.every.total_seconds()), timezone=UTC),
            name=bell.name,
            next_run_time=datetime.now(UTC),
            # The defaults skip a ring that is a second late.
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
        )
    scheduler.start()
    try:
        yield
    finally:
        scheduler.shutdown(wait=True)


def _safely(bell: Bell) -> Callable[[], None]:
    def ring() -> None:
        try:
            bell.ring()
        except Exception:  # the bell must ring again, whatever happened this time
            log.exception("%s", bell.name)

    return ring
