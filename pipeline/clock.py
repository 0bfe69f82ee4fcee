"""The clock only rings: it calls the functions that it is given, again and again, and knows nothing of weeks.

The only file that imports APScheduler. What is due is asked of the database by the function that rings.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from pipeline.errors import FridayError

log = logging.getLogger(__name__)
# It warns at every ring that finds the one before still at work, which is as it should be.
logging.getLogger("apscheduler").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Bell:
    """A function to be called now and then every so often, never twice at once."""

    name: str
    every: timedelta
    ring: Callable[[], object]


@contextmanager
def ringing(bells: Sequence[Bell], stopping: threading.Event) -> Iterator[None]:
    """Ring the bells in threads of their own for as long as the block lasts.

    At its end `stopping` is set, for what is rung to see, and a bell that is still ringing is waited for.
    """
    # A thread for each, or those that take long would keep the others waiting.
    scheduler = BackgroundScheduler(timezone=UTC, executors={"default": ThreadPoolExecutor(max(len(bells), 1))})
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
        stopping.set()
        scheduler.shutdown(wait=True)


def _safely(bell: Bell) -> Callable[[], None]:
    said = ""

    def ring() -> None:
        nonlocal said
        try:
            bell.ring()
        except FridayError as error:
            # Foreseen, and for somebody to act on: said once, not twice a minute.
            if str(error) != said:
                log.error("%s: %s", bell.name, error)  # noqa: TRY400 - it is no bug, so nobody needs the traceback
            said = str(error)
        except Exception:  # the bell must ring again, whatever happened this time
            log.exception("%s", bell.name)
        else:
            said = ""

    return ring
