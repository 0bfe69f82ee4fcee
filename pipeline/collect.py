"""The side road: every source into the inbox, all week long; one bad source never stops the others."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from pipeline import inbox
from pipeline.inbox import SourceRow
from pipeline.newsroom import Newsroom
from pipeline.sources import Source, SourceError, Told, Validators

AT_ONCE = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Visit:
    """How the visit to one source went."""

    source: str
    new: int = 0
    known: int = 0
    unusable: int = 0
    unchanged: bool = False
    trouble: str = ""


def collect(newsroom: Newsroom, on_visit: Callable[[Visit], object] = lambda _: None) -> list[Visit]:
    """Visit every source, several at once, and store what is new as soon as each has answered.

    How the visits went comes back in the order of the sources; `on_visit` hears of each as it ends.
    """
    visits: dict[str, Visit] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = {pool.submit(_ask, newsroom, source): source for source in newsroom.sources}
        for answer in as_completed(asked):
            source = asked[answer]
            visits[source.address] = _store(newsroom, source, answer.result())
            on_visit(visits[source.address])
    return [visits[source.address] for source in newsroom.sources]


def _ask(newsroom: Newsroom, source: Source) -> Told | str:
    try:
        return source.collect(_validators(newsroom, source), newsroom.now())
    except SourceError as error:
        return str(error)
    except Exception as error:  # a bug met in one feed must not cost the week's other stories
        log.exception("source %s", source.name)
        return f"a bug in Friday: {type(error).__name__}"


def _validators(newsroom: Newsroom, source: Source) -> Validators:
    with newsroom.database.read() as session:
        before = inbox.visit(session, source.address)
    return Validators(before.etag, before.last_modified) if before else Validators()


def _store(newsroom: Newsroom, source: Source, told: Told | str) -> Visit:
    try:
        return _record(newsroom, source, told)
    except SQLAlchemyError as error:
        log.warning("source %s could not be stored: %s", source.name, type(error).__name__)
        return Visit(source.name, trouble=f"could not be stored: {type(error).__name__}")


def _record(newsroom: Newsroom, source: Source, told: Told | str) -> Visit:
    now = newsroom.now()
    kept = _validators(newsroom, source) if isinstance(told, str) else told.validators
    with newsroom.database.write() as session:
        if isinstance(told, str):
            visit = Visit(source.name, trouble=told)
        else:
            taken = inbox.take_in(session, source.address, told.stories, now)
            visit = Visit(source.name, taken.new, taken.known, told.unusable, told.unchanged)
        row = SourceRow(address=source.address, visited=now, trouble=visit.trouble)
        row.etag, row.last_modified = kept.etag, kept.last_modified
        inbox.record_visit(session, row)
    return visit
