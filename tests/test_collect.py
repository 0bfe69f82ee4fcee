"""The side road and the inbox: what every source told, whatever the others do, and which week a story belongs to."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlmodel import func, select

from pipeline import inbox
from pipeline.collect import Visit, collect
from pipeline.inbox import StoryRow
from pipeline.issue import Slot, Story
from pipeline.newsroom import Newsroom
from pipeline.sources import Source, SourceError, Told, Validators, build_sources
from tests.conftest import FRIDAY, World, write_feed

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass
class FakeSource:
    """Tells what it is given, or raises it."""

    name: str
    tells: tuple[Story, ...] | Exception = ()
    weight: float = 1.0
    meanwhile: Callable[[], object] = lambda: None
    got: list[Validators] = field(default_factory=list)
    at: str = ""

    @property
    def address(self) -> str:
        return self.at or f"https://{self.name.lower()}.example/feed"

    def collect(self, validators: Validators, _now: datetime) -> Told:
        self.got.append(validators)
        self.meanwhile()
        if isinstance(self.tells, Exception):
            raise self.tells
        return Told(self.tells, Validators())


def story(place: int = 0, source: str = "Wire", published: datetime = FRIDAY - DAY, title: str = "A title") -> Story:
    return Story(f"https://wire.example/{place}", title, source, published)


def of(world: World, *sources: Source) -> Newsroom:
    """The newsroom with other sources."""
    return replace(world.newsroom, sources=sources)


def rows(world: World) -> list[StoryRow]:
    with world.database.read() as session:
        return list(session.exec(select(StoryRow).order_by(StoryRow.page)))


def week(world: World, slot: Slot) -> list[str]:
    """The titles of a slot's week."""
    with world.database.read() as session:
        return [each.title for each in inbox.window(session, slot)]


def take_in(world: World, now: datetime, *stories: Story) -> inbox.Taken:
    with world.database.write() as session:
        return inbox.take_in(session, stories[0].source, stories, now)


def test_a_story_is_new_once_and_known_ever_after(world: World) -> None:
    write_feed(world.folder / "wire.json", story(1), story(2))
    assert collect(world.newsroom) == [Visit("Wire", new=2), Visit("Ledger")]
    write_feed(world.folder / "wire.json", story(1), story(2), story(3))
    assert collect(world.newsroom) == [Visit("Wire", new=1, known=2), Visit("Ledger")]
    with world.database.read() as session:
        assert session.exec(select(func.count()).select_from(inbox.StoryRow)).one() == 3


def test_another_spelling_of_an_address_is_the_same_story(local_world: World) -> None:
    take_in(local_world, FRIDAY, Story("https://www.wire.example/a/?utm_source=x", "A", "Wire", FRIDAY - DAY))
    again = Story("http://wire.example/a", "A", "Wire", FRIDAY - DAY)
    assert take_in(local_world, FRIDAY, again) == inbox.Taken(new=0, known=1)


def test_a_story_that_comes_twice_in_one_feed_counts_once(local_world: World) -> None:
    assert take_in(local_world, FRIDAY, story(1), story(1)) == inbox.Taken(new=1, known=0)


def test_the_same_page_told_by_two_sources_is_two_tellings(local_world: World) -> None:
    take_in(local_world, FRIDAY, story(1, "Wire"))
    assert take_in(local_world, FRIDAY, story(1, "Ledger")) == inbox.Taken(new=1, known=0)
    assert [row.source for row in rows(local_world)] == ["Wire", "Ledger"]


def test_an_edited_story_is_brought_up_to_date_and_keeps_its_dates(world: World) -> None:
    take_in(world, FRIDAY - 5 * HOUR, story(title="The frist title", published=FRIDAY - DAY))
    edited = Story("https://wire.example/0?utm_source=x", "The first title", "Wire", FRIDAY - HOUR, "More.", "It matters.", 4)
    assert take_in(world, FRIDAY - HOUR, edited) == inbox.Taken(new=0, known=1)
    (row,) = rows(world)
    assert (row.title, row.summary, row.why, row.minutes, row.url) == (
        "The first title", "More.", "It matters.", 4, "https://wire.example/0?utm_source=x",
    )  # fmt: skip
    assert (row.published, row.collected) == (FRIDAY - DAY, FRIDAY - 5 * HOUR)


def test_a_date_in_the_future_counts_as_now(local_world: World) -> None:
    take_in(local_world, FRIDAY - HOUR, story(published=FRIDAY + 30 * DAY))
    (row,) = rows(local_world)
    assert row.published == FRIDAY - HOUR
    assert week(local_world, local_world.slot) == ["A title"]


def test_a_source_in_trouble_does_not_stop_the_others(local_world: World) -> None:
    (local_world.folder / "wire.json").unlink()
    write_feed(local_world.folder / "ledger.json", story(source="Ledger"))
    broken, good = collect(local_world.newsroom)
    assert broken == Visit("Wire", trouble="cannot be read: No such file or directory")
    assert good == Visit("Ledger", new=1)


def test_an_unexpected_exception_is_told_as_a_bug_and_the_others_go_on(
    local_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    sources = (FakeSource("Odd", KeyError("surprise")), FakeSource("Fine", (story(source="Fine"),)))
    with caplog.at_level(logging.ERROR, "pipeline.collect"):
        assert collect(of(local_world, *sources)) == [
            Visit("Odd", trouble="a bug in Friday: KeyError"),
            Visit("Fine", new=1),
        ]
    (record,) = caplog.records
    assert record.exc_info
    assert "Odd" in record.getMessage()


def write_raw_feed(path: Path, item: dict[str, object]) -> None:
    """A JSON Feed with one item, whatever is in it."""
    path.write_text(json.dumps({"version": "https://jsonfeed.org/version/1.1", "items": [item]}), "utf-8")


def test_stories_that_no_database_can_hold_do_not_stop_the_other_sources(world: World) -> None:
    bad: dict[str, dict[str, object]] = {
        "port": {"url": "https://wire.example:99999/a", "title": "A"},
        "NUL in a link": {"url": "https://wire.example/a\0b", "title": "A"},
        "half a character in a link": {"url": "https://wire.example/\ud800", "title": "A"},
        "half a character in a title": {"url": "https://wire.example/a", "title": "A \ud800"},
        "half a character in a reason": {
            "url": "https://wire.example/a",
            "title": "A",
            "_friday": {"why_it_matters": "\udfff"},
        },
    }
    for name, item in bad.items():
        write_raw_feed(world.folder / f"{name}.json", item)
    write_feed(world.folder / "good.json", story(source="Good"))
    tables = [{"kind": "feed", "name": name, "url": f"{name}.json"} for name in (*bad, "good")]
    sources, _ = build_sources(tables, world.folder)
    visits = collect(of(world, *sources))
    assert [visit.source for visit in visits] == [*bad, "good"]
    assert visits[-1] == Visit("good", new=1)


def test_each_visit_is_stored_as_soon_as_it_ends_whoever_is_slow(local_world: World) -> None:
    others_are_stored = threading.Event()
    slow = FakeSource("Slow", (story(source="Slow"),), meanwhile=lambda: others_are_stored.wait(60))
    quick = [FakeSource(name, (story(source=name),)) for name in ("A", "B")]
    seen: list[tuple[str, int]] = []

    def note(visit: Visit) -> None:
        with local_world.database.read() as session:
            stored = session.exec(select(func.count()).select_from(StoryRow)).one()
        seen.append((visit.source, stored))
        if stored == 2:
            others_are_stored.set()

    visits = collect(of(local_world, slow, *quick), note)
    assert [stored for _, stored in seen] == [1, 2, 3]
    assert seen[-1][0] == "Slow"
    assert [visit.source for visit in visits] == ["Slow", "A", "B"]


def test_a_source_under_a_new_name_tells_no_story_twice(local_world: World) -> None:
    told = (story(1), story(2))
    collect(of(local_world, FakeSource("Old name", tuple(replace(each, source="Old name") for each in told), at="a")))
    collect(of(local_world, FakeSource("New name", tuple(replace(each, source="New name") for each in told), at="a")))
    with local_world.database.read() as session:
        assert [row.source for row in session.exec(select(StoryRow))] == ["New name"] * 2


def test_sources_are_asked_at_the_same_time(local_world: World) -> None:
    meeting = threading.Barrier(3)
    sources = [FakeSource(name, meanwhile=lambda: meeting.wait(60)) for name in ("A", "B", "C")]
    assert [visit.trouble for visit in collect(of(local_world, *sources))] == ["", "", ""]


def test_a_week_without_sources_is_no_trouble(local_world: World) -> None:
    assert collect(of(local_world)) == []


def test_entries_that_cannot_be_used_are_counted(local_world: World) -> None:
    write_raw_feed(local_world.folder / "wire.json", {"url": "javascript:alert(1)", "title": "A"})
    assert collect(local_world.newsroom)[0] == Visit("Wire", unusable=1)


@dataclass
class Server:
    """A feed with an ETag on loopback, which remembers how it was asked."""

    etag: str = '"one"'
    status: HTTPStatus = HTTPStatus.OK
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["If-None-Match"]
        self.asked.append(asked)
        body = b'{"version": "https://jsonfeed.org/version/1.1", "items": [{"url": "https://web.example/a", "title": "A"}]}'
        unchanged = self.status is HTTPStatus.OK and asked == self.etag
        handler.send_response(HTTPStatus.NOT_MODIFIED if unchanged else self.status)
        handler.send_header("ETag", self.etag)
        handler.send_header("Last-Modified", "Thu, 26 Nov 2026 08:00:00 GMT")
        handler.send_header("Content-Length", "0" if unchanged else str(len(body)))
        handler.end_headers()
        if not unchanged:
            handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    there = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there.answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        there.url = f"http://127.0.0.1:{listening.server_port}/feed.json"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield there
        listening.shutdown()
        thread.join(5)


def web(world: World, server: Server) -> Newsroom:
    """The newsroom with that server as its only source."""
    sources, problems = build_sources([{"kind": "feed", "name": "Web", "url": server.url, "private": True}], world.folder)
    assert problems == []
    return of(world, *sources)


def test_a_source_is_asked_whether_anything_changed_since_the_last_visit(local_world: World, server: Server) -> None:
    newsroom = web(local_world, server)
    assert collect(newsroom) == [Visit("Web", new=1)]
    assert collect(newsroom) == [Visit("Web", unchanged=True)]
    server.etag = '"two"'
    assert collect(newsroom) == [Visit("Web", known=1)]
    assert collect(newsroom) == [Visit("Web", unchanged=True)]
    assert server.asked == [None, '"one"', '"one"', '"two"']


def test_a_failed_visit_keeps_what_the_last_good_one_gave(world: World, server: Server) -> None:
    newsroom = web(world, server)
    collect(newsroom)
    server.status = HTTPStatus.SERVICE_UNAVAILABLE
    assert collect(newsroom) == [Visit("Web", trouble="answered 503 Service Unavailable")]
    with world.database.read() as session:
        row = inbox.visit(session, server.url)
    assert row is not None
    assert (row.etag, row.last_modified) == ('"one"', "Thu, 26 Nov 2026 08:00:00 GMT")
    assert row.trouble == "answered 503 Service Unavailable"
    server.status = HTTPStatus.OK
    assert collect(newsroom) == [Visit("Web", unchanged=True)]


def test_the_next_good_visit_clears_the_trouble(local_world: World) -> None:
    source = FakeSource("Moody", SourceError("is not a feed"))
    collect(of(local_world, source))
    local_world.clock.wait(3600)
    source.tells = ()
    collect(of(local_world, source))
    with local_world.database.read() as session:
        row = inbox.visit(session, source.address)
    assert row is not None
    assert (row.trouble, row.visited) == ("", local_world.clock())


def test_the_window_is_exactly_the_seven_days_that_end_at_the_slot(world: World) -> None:
    moments = {
        "the week before": FRIDAY - 7 * DAY - SECOND,
        "the first": FRIDAY - 7 * DAY,
        "the last": FRIDAY - SECOND,
        "the week after": FRIDAY,
    }
    for place, (title, published) in enumerate(moments.items()):
        take_in(world, published, story(place, published=published, title=title))
    assert week(world, world.slot) == ["the first", "the last"]


def test_every_story_belongs_to_exactly_one_week_when_it_was_collected_at_once(local_world: World) -> None:
    for hours in range(0, 24 * 21, 5):
        published = FRIDAY - timedelta(hours=hours) - SECOND
        take_in(local_world, published, story(hours, published=published, title=str(hours)))
    schedule = local_world.newsroom.schedule
    weeks = [week(local_world, schedule.slot((FRIDAY - weeks * 7 * DAY).date())) for weeks in range(3)]
    assert sorted(int(title) for titles in weeks for title in titles) == list(range(0, 24 * 21, 5))


def next_slot(world: World) -> Slot:
    return world.newsroom.schedule.slot((FRIDAY + 7 * DAY).date())


def test_a_story_told_shortly_before_a_slot_but_collected_after_it_joins_the_next_week(world: World) -> None:
    take_in(world, FRIDAY + HOUR, story(1, published=FRIDAY - HOUR, title="late"))
    take_in(world, FRIDAY - SECOND, story(2, published=FRIDAY - HOUR, title="in time"))
    assert week(world, next_slot(world)) == ["late"]


def test_one_told_more_than_a_day_before_it_does_not(local_world: World) -> None:
    take_in(
        local_world, FRIDAY + HOUR, story(1, published=FRIDAY - DAY, title="a day"), story(2, published=FRIDAY - DAY - SECOND)
    )
    assert week(local_world, next_slot(local_world)) == ["a day"]


def test_one_collected_only_after_the_next_slot_too_joins_neither(local_world: World) -> None:
    take_in(local_world, FRIDAY + 7 * DAY, story(published=FRIDAY - HOUR))
    assert week(local_world, next_slot(local_world)) == []


def test_the_window_gives_everything_that_a_source_told_in_the_order_of_telling(local_world: World) -> None:
    second = Story("https://wire.example/2", "B", "Wire", FRIDAY - HOUR, "What it says.", "Why it matters.", 4)
    take_in(local_world, FRIDAY, second, Story("https://wire.example/1", "A", "Wire", FRIDAY - 2 * HOUR))
    with local_world.database.read() as session:
        first, last = inbox.window(session, local_world.slot)
    assert first.title == "A"
    assert last == second
    assert last.published.tzinfo is UTC
