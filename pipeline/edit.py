"""Change a slot's draft at its desk: move, swap, drop, pin and add stories, write words, choose the term, take back.

Each change is one row of the desk. Nothing is changed once the issue is frozen, and whoever writes over what somebody
else wrote meanwhile is told so first.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import lxml.html
from lxml.etree import ParserError

from pipeline import desk, inbox, ledger
from pipeline.compose import pages_of
from pipeline.desk import CHANGES, Deed, Kind
from pipeline.errors import DecisionNeeded, UsageError
from pipeline.fetch import FetchError, fetch
from pipeline.issue import Draft, Slot, Story
from pipeline.newsroom import Newsroom
from pipeline.publish import draft
from pipeline.text import canonical_url, clean_url, one_line, plain, shorten

# Characters. More than proof finds good, and less than what could only be a mistake.
MOST = {"title": 200, "summary": 700, "why": 500, "subject": 150, "preheader": 200, "note": 2_000}
STORY_FIELDS, HEAD_FIELDS = ("title", "summary", "why"), ("subject", "preheader", "note")
MOST_URL = 2_000
_TOLD, _NAME = 280, 60


class EditedMeanwhile(DecisionNeeded):
    """The same was changed since it was looked at, by somebody else or on another page; nothing was written."""

    def __init__(self, deed: Deed) -> None:
        what = {Kind.TERM: "changed the term", Kind.UNDO: "taken something back"}.get(deed.kind)
        what = what or f"changed the {deed.about.get('field', 'line-up')}"
        super().__init__(
            f"{deed.by} has {what} meanwhile, at {deed.at:%H:%M} UTC, and nothing was written over it: "
            f"look at `friday edit show`, and say it again if you still mean it"
        )
        self.deed = deed


class Closed(DecisionNeeded):
    """The issue is frozen, so its desk takes no changes; nothing was written."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A desk as somebody sees it who is about to change it.

    `seen` is the last row that this person knows of, None for whoever changes it without looking, and `told` are
    later ones that they know of too, being their own or about to be written over; `line_up` are the pages of the
    selection as it was seen, and those of the draft as it is now where it is None.
    """

    newsroom: Newsroom
    slot: Slot
    by: str
    seen: int | None = None
    line_up: tuple[str, ...] | None = None
    told: frozenset[int] = frozenset()

    def move(self, page: str, place: int) -> int:
        """Put a story of the selection in another place, from 1 on; all of them stay from now on."""
        pages = self._selected(page)
        pages.remove(page)
        pages.insert(max(0, min(place - 1, len(pages))), page)
        return self._write(Kind.MOVE, {"page": page, "place": pages.index(page) + 1, "pages": pages})

    def swap(self, page: str, other: str) -> int:
        """Put another story in the place of one of the selection."""
        pages = self._selected(page)
        self._known(other)
        if other in pages:
            raise UsageError("that story is in the selection already: move it instead")
        pages[pages.index(page)] = other
        return self._write(Kind.SWAP, {"page": page, "other": other, "pages": pages})

    def use(self, page: str) -> int:
        """Put a story into the selection: at its end, or in place of the last one where it is full."""
        pages = self._pages()
        if page in pages:
            raise UsageError("that story is in the selection already")
        wanted = self.newsroom.config.newsletter.stories
        if len(pages) >= wanted:
            return self.swap(pages[-1], page)
        self._known(page)
        return self._write(Kind.ADD, {"page": page, "pages": [*pages, page]})

    def drop(self, page: str) -> int:
        """Take a story out of the selection, or keep one from coming into it; the next best takes its place."""
        pages = self._pages()
        about: dict[str, Any] = {"page": self._known(page)}
        # What was not in the selection leaves it as open as it was.
        about |= {"pages": [each for each in pages if each != page]} if page in pages else {}
        return self._write(Kind.DROP, about)

    def pin(self, page: str) -> int:
        """Keep a story where it is, whatever comes in."""
        self._known(page)
        pages = self._pages()
        place = pages.index(page) + 1 if page in pages else max(1, self.newsroom.config.newsletter.stories)
        return self._write(Kind.PIN, {"page": page, "place": place})

    def unpin(self, page: str) -> int:
        """Let a stronger story that comes in take the place of one."""
        return self._write(Kind.UNPIN, {"page": self._known(page)})

    def add(self, url: str, title: str = "") -> str:
        """Put the page of an address into the selection; its canonical URL. What is not said is read from the page itself.

        Raises:
            UsageError: it is no address of the web, or cannot be read and has no title.
        """
        address, wanted = url.strip(), clean("title", title) or ""
        if not _is_address(address):
            raise UsageError("that is no address of a page: write one such as https://example.org/story")
        story = self._told(address)
        if story is None:
            read = _read(address, wanted, self.newsroom)
            story = self._told(read.url) or read
            with self.newsroom.database.write() as session:
                # A desk that is closed takes nothing into the inbox either, where other weeks would find it.
                self._see_that_it_is_open(session)
                if story is read:
                    inbox.take_in(session, inbox.DESK, [story], self.newsroom.now())
        page = canonical_url(story.url)
        self.use(page)
        if wanted and story.title != wanted:
            self.tell(page, "title", wanted)
        return page

    def tell(self, page: str, field: str, text: str | None) -> int:
        """Write the title, the summary or the reason of a story; None brings back its own."""
        if field not in STORY_FIELDS:
            raise UsageError(f"a story has no {field!r}: it has {', '.join(STORY_FIELDS)}")
        pages, cleaned = self._pages(), clean(field, text)
        if field == "title" and cleaned == "":
            raise UsageError("a story needs a title: write one, or bring back its own")
        place = pages.index(page) + 1 if page in pages else 0
        if text is None:
            # They may have been written when another telling of the story was the one that is linked.
            for other in self._worded_tellings(page, field):
                self._write(Kind.WORDS, {"page": other, "field": field, "text": None, "place": 0})
        return self._write(Kind.WORDS, {"page": self._known(page), "field": field, "text": cleaned, "place": place})

    def _worded_tellings(self, page: str, field: str) -> list[str]:
        drafted = draft(self.newsroom, self.slot)
        told = (pages_of(chosen) for chosen in (*drafted.selection.stories, *drafted.selection.runners_up))
        others = next((pages for pages in told if page in pages), list[str]())
        words = drafted.edits.wordings
        return [each for each in others if each != page and each in words and getattr(words[each], field) is not None]

    def head(self, field: str, text: str | None) -> int:
        """Write the subject, the preheader or the opening note (Markdown); None brings back the machine's."""
        if field not in HEAD_FIELDS:
            raise UsageError(f"an issue has no {field!r}: it has {', '.join(HEAD_FIELDS)}")
        cleaned = clean(field, text)
        if field == "subject" and cleaned == "":
            raise UsageError("an issue needs a subject: write one, or bring back the machine's")
        return self._write(Kind.HEAD, {"field": field, "text": cleaned})

    def term(self, slug: str | None) -> int:
        """Choose the term of the week; None leaves it to the machine."""
        if slug is not None and slug not in self.newsroom.glossary:
            raise UsageError(f"there is no term {slug!r}: see the folder of terms")
        return self._write(Kind.TERM, {"slug": slug})

    def undo(self) -> Deed:
        """Take back the last change of the draft that stands; the one that was taken back.

        Raises:
            UsageError: none stands.
            EditedMeanwhile: it came after what was seen.
        """
        with self.newsroom.database.write() as session:
            self._see_that_it_is_open(session)
            deeds = [deed for deed in desk.deeds(session, self.slot.name) if deed.kind in (*CHANGES, Kind.UNDO)]
            # Who takes back once more what was taken back meanwhile would lose what stands before it.
            if self.seen is not None and deeds and deeds[-1].id > self.seen:
                raise EditedMeanwhile(deeds[-1])
            done = [deed for deed in deeds if deed.kind in CHANGES and not deed.undone]
            if not done:
                raise UsageError(f"nothing was changed at the desk of {self.slot.name} that could be taken back")
            desk.write(session, self.slot.name, Kind.UNDO, {"edit": done[-1].id}, self.by, self.newsroom.now())
        return done[-1]

    def _write(self, kind: Kind, about: Mapping[str, Any]) -> int:
        with self.newsroom.database.write() as session:
            self._see_that_it_is_open(session)
            if self.seen is not None:
                mine = Deed(0, kind, about, self.by, self.newsroom.now()).field
                since = desk.deeds(session, self.slot.name, self.seen)
                last = next((deed for deed in reversed(since) if deed.field == mine and not deed.undone), None)
                if last and last.about != about and last.id not in self.told:
                    raise EditedMeanwhile(last)
            return desk.write(session, self.slot.name, kind, about, self.by, self.newsroom.now())

    def _see_that_it_is_open(self, session: Any) -> None:
        row = desk.lock(session, self.slot.name)
        issue = ledger.find(session, row.slot)
        if issue:
            again = ": its readers are enrolled" if issue.enrolled_at else f": `friday reopen {row.slot}` opens it again"
            raise Closed(f"{row.slot} is {issue.state.replace('_', ' ')}, so nothing of it can be changed{again}")

    def _pages(self) -> list[str]:
        if self.line_up is not None:
            return list(self.line_up)
        return list(line_up(draft(self.newsroom, self.slot)))

    def _selected(self, page: str) -> list[str]:
        pages = self._pages()
        if page not in pages:
            raise UsageError("that story is not in the selection any more: look again")
        return pages

    def _known(self, page: str) -> str:
        with self.newsroom.database.read() as session:
            if not inbox.told_on(session, [page]):
                raise UsageError(f"no story of that address was collected: {shorten(page, 120)}")
        return page

    def _told(self, url: str) -> Story | None:
        page = canonical_url(url)
        with self.newsroom.database.read() as session:
            return inbox.told_on(session, [page]).get(page)


def line_up(drafted: Draft) -> tuple[str, ...]:
    """The pages of a draft's selection in their order."""
    return tuple(canonical_url(chosen.story.url) for chosen in drafted.selection.stories)


def clean(field: str, text: str | None) -> str | None:
    """A text as it is kept: without control characters, on one line but for the note.

    Raises:
        UsageError: it is too long.
    """
    if text is None:
        return None
    cleaned = _lines(text) if field == "note" else one_line(text)
    if len(cleaned) > MOST[field]:
        raise UsageError(f"the {field} has {len(cleaned):,} characters, and {MOST[field]:,} is the most: shorten it")
    return cleaned


def _lines(text: str) -> str:
    """The text with its line breaks and without other control characters."""
    return unicodedata.normalize("NFC", "\n".join(one_line(line) if line.strip() else "" for line in text.splitlines())).strip()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > MOST_URL:
        return False
    # What cannot be seen may hide where it leads, and nobody's name and password go out to all readers.
    return url.isprintable() and " " not in url and parts.username is None


def _read(url: str, title: str, newsroom: Newsroom) -> Story:
    """A story out of a page: what it calls itself, and what it says of itself."""
    host = (urlsplit(url).hostname or "").removeprefix("www.")
    try:
        page = fetch(url)
        parser = lxml.html.HTMLParser(encoding=_encoding(page.body))
        document: Any = lxml.html.document_fromstring(page.body, parser, base_url=page.url)
    except (FetchError, ParserError, ValueError) as error:
        if not title:
            raise UsageError(f"{host} could not be read: {error}; give it a title, and it is added without") from None
        return Story(clean_url(url), title, host, newsroom.now())

    def said(*names: str) -> str:
        found = [
            str(value)
            for name in names
            for value in document.xpath("//meta[@property=$name or @name=$name]/@content", name=name)
            if str(value).strip()
        ]
        return plain(found[0]) if found else ""

    called = said("og:title", "twitter:title") or plain(str(document.findtext(".//title") or "")) or title
    if not called:
        raise UsageError(f"{host} has a page there that does not say what it is called: give it a title")
    return Story(
        clean_url(page.url if _is_address(page.url) else url),
        shorten(called, MOST["title"]),
        shorten(said("og:site_name"), _NAME) or host,
        newsroom.now(),
        shorten(said("og:description", "description", "twitter:description"), _TOLD),
    )


def _encoding(body: bytes) -> str | None:
    """UTF-8 where a page can be read as such, since many say so in no place but a header; else what it says itself."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return None
    return "utf-8"
