"""The side road: every source into the inbox, all week long; one bad source never stops the others."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
    """Visit every source, several at once, and store what is new as soon as each has answered."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda source: _ask(newsroom, source), newsroom.sources)
        return list(_store(newsroom, answers, on_visit))


def _ask(newsroom: Newsroom, source: Source) -> tuple[Source, Told | str]:
    with newsroom.database.read() as session:
        before = inbox.visit(session, source.address)
    known = Validators(before.etag, before.last_modified) if before else Validators()
    try:
        return source, source.collect(known, newsroom.now())
    except SourceError as error:
        return source, str(error)
    except Exception as error:  # a bug met in one feed must not cost the week's other stories
        log.exception("source %s", source.name)
        return source, f"a bug in Friday: {type(error).__name__}"


def _store(
    newsroom: Newsroom, answers: Iterator[tuple[Source, Told | str]], on_visit: Callable[[Visit], object]
) -> Iterator[Visit]:
    for source, told in answers:
        now = newsroom.now()
        with newsroom.database.write() as session:
            if isinstance(told, str):
                before = inbox.visit(session, source.address)
                kept = Validators(before.etag, before.last_modified) if before else Validators()
                visit = Visit(source.name, trouble=told)
            else:
                taken = inbox.take_in(session, told.stories, now)
                kept = told.validators
                visit = Visit(source.name, taken.new, taken.known, told.unusable, told.unchanged)
            row = SourceRow(address=source.address, visited=now, trouble=visit.trouble)
            row.etag, row.last_modified = kept.etag, kept.last_modified
            inbox.record_visit(session, row)
        on_visit(visit)
        yield visit
