"""A page that is added by its address is told as it tells of itself, and what editors write is only text."""

from datetime import timedelta

import pytest

from pipeline import edit, inbox
from pipeline import publish as route
from pipeline.edit import MOST, MOST_URL
from pipeline.errors import UsageError
from pipeline.fetch import FetchError, Page
from pipeline.issue import Story
from pipeline.text import canonical_url
from tests.conftest import FRIDAY, World
from tests.desks import ADA, TITLES, at, deeds, drafted, pages_of, runner_up, titles


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> dict[str, Page | str]:
    """Pages by their address; a text is why one cannot be read."""
    pages: dict[str, Page | str] = {}

    def fetch(url: str) -> Page:
        found = pages[url]
        if isinstance(found, str):
            raise FetchError(found)
        return found

    monkeypatch.setattr(edit, "fetch", fetch)
    return pages


def html(url: str, body: str | bytes) -> Page:
    return Page(200, url, body if isinstance(body, bytes) else body.encode(), {"Content-Type": "text/html"})


NEW = "https://www.new.example/page?utm_source=x&id=1"


def added(world: World, url: str = NEW, title: str = "") -> Story:
    found = at(world).add(url, title)
    with world.database.read() as session:
        return inbox.told_on(session, [found])[found]


def test_a_page_that_is_added_is_told_as_it_tells_of_itself(world: World, web: dict[str, Page | str]) -> None:
    world.tell_a_week(7)
    before = pages_of(world)
    web[NEW] = html(
        NEW,
        '<title>Other</title><meta property="og:title" content="A &amp; B &lt;i&gt;rise&lt;/i&gt;">'
        '<meta property="og:site_name" content="New Times"><meta name="description" content="What it says.">',
    )
    story = added(world)
    assert (story.url, story.title, story.source, story.summary, story.published) == (
        "https://www.new.example/page?id=1", "A & B rise", "New Times", "What it says.", world.clock(),
    )  # fmt: skip
    assert pages_of(world) == [*before[:4], "new.example/page?id=1"]


def test_a_page_without_marks_is_told_by_its_title_and_its_host(local_world: World, web: dict[str, Page | str]) -> None:
    web[NEW] = html(NEW, "<html><head><title>\n Only  this\u202e </title></head><body>Text</body>")
    story = added(local_world)
    assert (story.title, story.source, story.summary) == ("Only this", "new.example", "")


def test_a_redirected_page_is_told_under_its_last_address_and_once(world: World, web: dict[str, Page | str]) -> None:
    world.tell_a_week(7)
    known = f"https://wire.example/{FRIDAY:%Y%m%d}/6"
    world.clock.at = FRIDAY - timedelta(hours=5)
    web[NEW] = html(known, "<title>As the page says</title>")
    assert added(world).title == TITLES[6]
    with world.database.read() as session:
        assert [each.source for each in inbox.window(session, world.slot) if each.url == known] == ["Wire"]


def test_a_story_that_was_collected_is_used_without_being_read(world: World, web: dict[str, Page | str]) -> None:
    world.tell_a_week(7)
    assert web == {}
    unused = runner_up(world)
    assert at(world).add(f"http://www.{unused}/#top", "By my title") == unused
    assert titles(world)[-1] == "By my title"


def test_an_editor_s_title_stands_before_the_page_s_own(world: World, web: dict[str, Page | str]) -> None:
    web[NEW] = html(NEW, "<title>Theirs</title>")
    assert added(world, title=" My\ntitle ").title == "Theirs"
    assert titles(world)[-1] == "My title"


@pytest.mark.parametrize(
    "body",
    ["<title>Caf\u00e9</title>", '<meta charset="iso-8859-1"><title>Caf\u00e9</title>', "\ufeff<title>Caf\u00e9</title>"],
)
def test_a_page_in_utf_8_is_read_as_such_whatever_it_says(local_world: World, web: dict[str, Page | str], body: str) -> None:
    web[NEW] = html(NEW, body)
    assert added(local_world).title == "Caf\u00e9"


def test_a_page_in_another_encoding_is_read_as_it_says(local_world: World, web: dict[str, Page | str]) -> None:
    web[NEW] = html(NEW, '<meta charset="iso-8859-2"><title>\u0141\u00f3d\u017a</title>'.encode("iso-8859-2"))
    assert added(local_world).title == "\u0141\u00f3d\u017a"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"<!-- -->",
        b"%PDF-1.4 \xff\xfe\x00",
        b"{}",
        b"<?xml version='1.0'?>",
        b"<title> </title>",
        b"\xff\xfe<",
        b"GIF89a",
    ],
)
def test_what_has_no_title_asks_for_one_and_is_added_with_it(world: World, web: dict[str, Page | str], body: bytes) -> None:
    web[NEW] = html(NEW, body)
    with pytest.raises(
        UsageError, match=r"^new\.example (has a page there that does not say|could not be read: ).*give it a title"
    ):
        added(world)
    assert deeds(world) == []
    assert added(world, title="Mine").title == "Mine"


@pytest.mark.parametrize("why", ["larger than 5,242,880 bytes", "answered 404 Not Found", "took longer than the deadline"])
def test_what_cannot_be_read_says_why_and_is_added_with_a_title(world: World, web: dict[str, Page | str], why: str) -> None:
    web[NEW] = why
    with pytest.raises(UsageError, match=rf"^new\.example could not be read: {why}; give it a title"):
        added(world)
    story = added(world, title="Mine")
    assert (story.url, story.title, story.source) == ("https://www.new.example/page?id=1", "Mine", "new.example")


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://[::1]/", "http://10.0.0.1/x", "http://169.254.169.254/latest"])
def test_a_private_address_is_not_read(local_world: World, url: str) -> None:
    with pytest.raises(UsageError, match="lies in a private network"):
        added(local_world, url)


@pytest.mark.parametrize(
    "url",
    [
        "", "news", "ftp://new.example/", "javascript:alert(1)", "https://", "http://[", "https://new.example:99999/",
        "https://new.example/a b", "https://new.example/\x00", "https://new.example/\u202eexe", "https://new.example/?q=\ud800",
        "https://ada:secret@new.example/", "https://new.example/" + "x" * MOST_URL, "data:text/html,x", "//new.example/",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_page_is_refused_even_with_a_title(world: World, web: dict[str, Page | str], url: str) -> None:
    with pytest.raises(UsageError, match="that is no address of a page: write one such as"):
        added(world, url, "A title")
    assert web == {}
    assert deeds(world) == []


def test_a_title_of_hidden_characters_is_none_and_one_too_long_is_refused(
    local_world: World, web: dict[str, Page | str]
) -> None:
    web[NEW] = "answered 500"
    with pytest.raises(UsageError, match="give it a title"):
        added(local_world, title="\u202e\u200b")
    with pytest.raises(UsageError, match="the title has 201 characters"):
        added(local_world, title="x" * 201)


def test_what_a_page_says_of_itself_is_cut_to_what_fits(local_world: World, web: dict[str, Page | str]) -> None:
    long = "word " * 100_000
    web[NEW] = html(
        NEW, f'<title>{long}</title><meta property="og:site_name" content="{long}"><meta name="description" content="{long}">'
    )
    story = added(local_world)
    assert len(story.title) <= MOST["title"]
    assert len(story.source) <= 60
    assert len(story.summary) <= 280


def test_a_page_that_was_added_at_one_desk_comes_into_no_other_week(
    local_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_world.tell_a_week(3)
    page = b"<html><head><title>Added for next week</title></head></html>"
    monkeypatch.setattr(edit, "fetch", lambda url: Page(200, url, page))
    next_week = local_world.newsroom.schedule.next(local_world.slot.at)
    added = edit.Desk(local_world.newsroom, next_week, ADA).add("https://blog.example/added")
    assert added in edit.line_up(route.draft(local_world.newsroom, next_week))
    told = drafted(local_world).selection
    assert added not in [canonical_url(each.story.url) for each in (*told.stories, *told.runners_up)]


def test_a_script_in_any_text_is_only_text(local_world: World) -> None:
    local_world.tell_a_week()
    bad = '<script>alert("1")</script>'
    first = pages_of(local_world)[0]
    for field in edit.STORY_FIELDS:
        at(local_world).tell(first, field, bad)
    for field in edit.HEAD_FIELDS:
        at(local_world).head(field, f"{bad} [x](javascript:alert(1))")
    html = drafted(local_world).rendered.html
    assert "<script" not in html
    assert 'href="javascript' not in html
