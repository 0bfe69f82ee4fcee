"""RSS, RDF, Atom and JSON Feed, from an http(s) address or a local file."""

import io
import json
import re
from calendar import timegm
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urljoin, urlsplit

import feedparser
from pydantic import Field

from pipeline.config import OneLine, Section
from pipeline.fetch import MOST_BYTES, FetchError, fetch
from pipeline.issue import Story
from pipeline.sources import SourceError, Told, Validators
from pipeline.text import clean_url, plain, shorten

MOST_ENTRIES = 200
MOST_TEXT = 200_000
TITLE = 300
SUMMARY = 1_200
WORDS_PER_MINUTE = 230
# Below this an entry's text is a teaser and says nothing about how long the story is.
FULL_TEXT_WORDS = 150


class Options(Section):
    """One `[[sources]]` table. `private` allows an address in your own network."""

    kind: Literal["feed"]
    url: OneLine
    name: OneLine | None = None
    weight: Annotated[float, Field(ge=0, le=10)] = 1.0
    private: bool = False


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed at a web address, or in a file at a path relative to `here`."""

    name: str
    address: str
    weight: float
    private: bool
    here: Path = Path()

    def collect(self, validators: Validators, now: datetime) -> Told:
        """Its stories, or the word that nothing changed."""
        if not _is_web(self.address):
            return self._told(_read(self.here / self.address), "", "", Validators(), now)
        headers = {"If-None-Match": validators.etag, "If-Modified-Since": validators.last_modified}
        try:
            page = fetch(self.address, {key: value for key, value in headers.items() if value}, private=self.private)
        except FetchError as error:
            raise SourceError(str(error)) from None
        if page.status == HTTPStatus.NOT_MODIFIED:
            return Told((), validators, unchanged=True)
        given = {key.lower(): value for key, value in page.headers.items()}
        validators = Validators(given.get("etag", ""), given.get("last-modified", ""))
        return self._told(page.body, page.url, given.get("content-type", ""), validators, now)

    def _told(self, body: bytes, base: str, content_type: str, validators: Validators, now: datetime) -> Told:
        is_json = body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        entries = list(_json_entries(body) if is_json else _xml_entries(body, base, content_type))
        # The newest, wherever they stand; an entry without a date counts as told now.
        newest = sorted(range(len(entries)), key=lambda place: entries[place].published or now, reverse=True)
        entries = [entries[place] for place in sorted(newest[:MOST_ENTRIES])]
        stories = [story for entry in entries if (story := self._story(entry, base, now))]
        return Told(tuple(stories), validators, unusable=len(entries) - len(stories))

    def _story(self, entry: "_Entry", base: str, now: datetime) -> Story | None:
        text, content = plain(entry.summary), plain(entry.content)
        title = shorten(plain(entry.title), TITLE) or shorten(text or content, TITLE // 2)
        url = _link(base, entry.link)
        if not title or not entry.link or not _is_web(url):
            return None
        words = len(content.split())
        return Story(
            url=url,
            title=title,
            source=self.name,
            published=entry.published or now,
            summary=shorten(text or content, SUMMARY),
            why=plain(entry.why),
            minutes=max(1, round(words / WORDS_PER_MINUTE)) if words >= FULL_TEXT_WORDS else None,
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    title: str
    link: str
    published: datetime | None
    summary: str
    content: str
    why: str = ""


def build(options: Options, here: Path) -> Feed:
    """The feed of a table; a url that is no web address is a path relative to `here`."""
    address = options.url.removeprefix("file://")
    name = options.name or (urlsplit(address).hostname if _is_web(address) else None) or Path(address).stem
    # The address stays as it was written: it names the source's stories, also after the folder has moved.
    return Feed(name, address, options.weight, options.private, here)


def _link(base: str, link: str) -> str:
    try:
        url = urljoin(base, link.strip()).encode(errors="ignore").decode()
    except ValueError:
        return ""
    # What may not stand in an address (RFC 3986), least of all a line break or a quote.
    return clean_url(re.sub(r'[\x00-\x20\x7f"<>\\^`{|}]', lambda char: f"%{ord(char.group()):02X}", url))


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}") from None
    if len(body) > MOST_BYTES:
        raise SourceError(f"larger than {MOST_BYTES:,} bytes")
    return body


def _xml_entries(body: bytes, base: str, content_type: str) -> Iterator[_Entry]:
    # Feeds need no entities of their own, and those are how a small file grows to gigabytes.
    # Without its zero bytes UTF-16 shows the same letters.
    if b"<!ENTITY" in body.replace(b"\0", b""):
        raise SourceError("declares XML entities, which a feed has no use for")
    headers = {"content-location": base, "content-type": content_type or "application/xml"}
    try:
        # A stream, since feedparser would open bytes that look like the name of a file.
        # Its sanitizer is slow on purpose-built input, and whatever is markup is taken out here anyway.
        parsed = feedparser.parse(io.BytesIO(body), response_headers=headers, sanitize_html=False, resolve_relative_uris=False)
    except Exception as error:
        raise SourceError(f"cannot be read as a feed: {type(error).__name__}") from error
    wrong = parsed.get("bozo_exception")
    if not parsed.entries and (not parsed.get("version") or not isinstance(wrong, feedparser.NonXMLContentType | None)):
        raise SourceError(f"is not a feed: {wrong or 'no known format'}")
    for entry in parsed.entries:
        identity = entry.get("id") or ""
        yield _Entry(
            title=entry.get("title", ""),
            link=entry.get("feedburner_origlink") or entry.get("link") or (identity if _is_web(identity) else ""),
            published=_date(entry),
            summary=entry.get("summary", "")[:MOST_TEXT],
            content=max((part.get("value", "") for part in entry.get("content", ())), key=len, default="")[:MOST_TEXT],
        )


def _date(entry: dict[str, Any]) -> datetime | None:
    for key in ("published_parsed", "created_parsed", "updated_parsed"):
        # Not entry.get: feedparser answers for one date with another, and warns that it will not always.
        if parsed := dict.get(entry, key):
            try:
                return datetime.fromtimestamp(timegm(parsed), UTC)
            except (ValueError, OverflowError, OSError):
                continue
    return None


def _json_entries(body: bytes) -> Iterator[_Entry]:
    """The items of a JSON Feed (https://www.jsonfeed.org/version/1.1/)."""
    try:
        feed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"is not JSON: {error}") from None
    items = feed.get("items") if isinstance(feed, dict) else None
    if not isinstance(items, list) or "jsonfeed.org" not in str(feed.get("version")):
        raise SourceError("is JSON, yet no JSON Feed")
    for item in items:
        if not isinstance(item, dict):
            continue
        own = item.get("_friday")
        # All but content_html is plain text, whatever it looks like.
        content = _text(item, "content_html") or escape(_text(item, "content_text"))
        yield _Entry(
            title=escape(_text(item, "title")),
            link=_text(item, "external_url") or _text(item, "url"),
            published=_iso_date(_text(item, "date_published")) or _iso_date(_text(item, "date_modified")),
            summary=escape(_text(item, "summary"))[:MOST_TEXT],
            content=content[:MOST_TEXT],
            why=escape(_text(own, "why_it_matters")) if isinstance(own, dict) else "",
        )


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""


def _iso_date(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=parsed.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
