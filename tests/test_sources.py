"""What the sources make of feeds, good and bad: the same few facts of a story, and nothing else."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Problem
from pipeline.fetch import MOST_BYTES, FetchError, Page
from pipeline.issue import Story
from pipeline.sources import Source, SourceError, Told, Validators, build_sources
from pipeline.text import canonical_url

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
URL = "https://wire.example/news/feed.xml"

RSS = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/">
<channel><title>Wire</title><link>https://wire.example/</link>
<item>
  <title>Tidal power for a data center</title>
  <link>https://wire.example/tides</link>
  <description>The first &lt;b&gt;megawatts&lt;/b&gt; flow in spring.</description>
  <pubDate>Thu, 26 Nov 2026 10:00:00 +0200</pubDate>
</item>
<item>
  <title>A tutor that gives no answers</title>
  <link>https://wire.example/tutor</link>
  <pubDate>Thu, 26 Nov 2026 10:00:00 EST</pubDate>
</item>
</channel></rss>"""

RDF = """<?xml version="1.0"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"
  xmlns:dc="http://purl.org/dc/elements/1.1/">
<channel rdf:about="https://wire.example/"><title>Wire</title><link>https://wire.example/</link></channel>
<item rdf:about="https://wire.example/tides">
  <title>Tidal power for a data center</title>
  <link>https://wire.example/tides</link>
  <description>The first megawatts flow in spring.</description>
  <dc:date>2026-11-26T10:00:00+02:00</dc:date>
</item>
</rdf:RDF>"""

ATOM = """<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>Wire</title><id>tag:wire.example,2026:feed</id>
<updated>2026-11-26T12:00:00Z</updated>
<entry>
  <id>tag:wire.example,2026:tides</id>
  <title type="html">Tidal power for a data center</title>
  <link rel="self" href="https://wire.example/tides.atom"/>
  <link rel="alternate" href="https://wire.example/tides"/>
  <published>2026-11-26T10:00:00+02:00</published>
  <updated>2026-11-27T07:00:00Z</updated>
  <summary type="html">The first &lt;b&gt;megawatts&lt;/b&gt; flow in spring.</summary>
</entry>
</feed>"""

JSON = """{
  "version": "https://jsonfeed.org/version/1.1", "title": "Wire",
  "items": [{
    "id": "1", "url": "https://wire.example/tides", "title": "Tidal power for a data center",
    "summary": "The first megawatts flow in spring.", "date_published": "2026-11-26T10:00:00+02:00"
  }]
}"""

TIDES = Story(
    url="https://wire.example/tides",
    title="Tidal power for a data center",
    source="Wire",
    published=datetime(2026, 11, 26, 8, tzinfo=UTC),
    summary="The first megawatts flow in spring.",
)


def told(body: bytes | str, url: str = URL) -> Told:
    """What a feed with this body tells."""
    (source,), problems = build_sources([{"kind": "feed", "name": "Wire", "url": url}], Path("/nowhere"))
    assert problems == []
    page = Page(200, url, body if isinstance(body, bytes) else body.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.sources.feed.fetch", lambda *_args, **_options: page)
        return source.collect(Validators(), NOW)


def rss(*items: str, head: str = '<?xml version="1.0"?>') -> str:
    """An RSS feed with these items."""
    listed = "".join(f"<item>{item}</item>" for item in items)
    content = 'xmlns:content="http://purl.org/rss/1.0/modules/content/"'
    return f'{head}<rss version="2.0" {content}><channel><title>Wire</title>{listed}</channel></rss>'


def json_feed(*items: Mapping[str, object]) -> str:
    """A JSON Feed with these items."""
    return json.dumps({"version": "https://jsonfeed.org/version/1.1", "title": "Wire", "items": items})


def story(**item: object) -> Story:
    """The only story of a JSON Feed with one item."""
    (only,) = told(json_feed({"url": "https://wire.example/a", "title": "A title", **item})).stories
    return only


def words(number: int) -> str:
    return " ".join(["word"] * number)


@pytest.mark.parametrize("document", [RSS, RDF, ATOM, JSON], ids=["RSS 2.0", "RDF", "Atom", "JSON Feed"])
def test_every_format_tells_the_same_story(document: str) -> None:
    assert told(document).stories[0] == TIDES


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_letters_survive_the_encoding_that_a_feed_names(encoding: str) -> None:
    document = rss("<title>Über Köln</title><link>/a</link>", head=f'<?xml version="1.0" encoding="{encoding}"?>')
    assert told(document.encode(encoding)).stories[0].title == "Über Köln"


def test_a_byte_order_mark_hides_no_json_feed() -> None:
    assert told(b"\xef\xbb\xbf\n" + JSON.encode()).stories == (TIDES,)


def test_a_named_zone_counts() -> None:
    assert told(RSS).stories[1].published == datetime(2026, 11, 26, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-11-26T10:00:00Z", datetime(2026, 11, 26, 10, tzinfo=UTC)),
        ("2026-11-26T10:00:00-05:00", datetime(2026, 11, 26, 15, tzinfo=UTC)),
        ("2026-11-26T10:00:00", datetime(2026, 11, 26, 10, tzinfo=UTC)),
        ("2026-11-26", datetime(2026, 11, 26, tzinfo=UTC)),
        ("last Tuesday", NOW),
        ("0001-01-01T00:00:00+14:00", NOW),
        (20261126, NOW),
        (None, NOW),
    ],
)
def test_a_json_date_is_read_with_its_zone_and_one_that_cannot_be_read_is_now(written: object, meant: datetime) -> None:
    assert story(date_published=written).published == meant


@pytest.mark.parametrize("date", ["", "<pubDate>soon</pubDate>", "<pubDate>Mon, 99 Foo 2026 99:99:99 +9999</pubDate>"])
def test_a_story_without_a_date_counts_as_told_now(date: str) -> None:
    assert told(rss(f"<title>A</title><link>/a</link>{date}")).stories[0].published == NOW


def test_every_date_is_aware_and_in_utc() -> None:
    for document in (RSS, RDF, ATOM, JSON):
        assert {each.published.utcoffset() for each in told(document).stories} == {timedelta(0)}


def test_a_story_without_a_title_is_named_by_its_text() -> None:
    assert story(title="", summary="The court ruled. It took years.").title == "The court ruled. It took years."
    assert story(title=None, content_text="The court ruled.").title == "The court ruled."


def test_an_entry_with_neither_title_nor_text_is_counted_as_unusable() -> None:
    answer = told(json_feed({"url": "https://wire.example/a"}, {"url": "https://wire.example/b", "title": "B"}))
    assert [each.title for each in answer.stories] == ["B"]
    assert answer.unusable == 1


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("/tides", "https://wire.example/tides"),
        ("tides?page=2", "https://wire.example/news/tides?page=2"),
        ("//other.example/tides", "https://other.example/tides"),
        ("  https://wire.example/tides\n", "https://wire.example/tides"),
    ],
)
def test_a_relative_link_is_read_from_where_the_feed_is(link: str, url: str) -> None:
    assert told(rss(f"<title>A</title><link>{link}</link>")).stories[0].url == url
    assert story(url=link).url == url


@pytest.mark.parametrize(
    "link",
    ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "mailto:a@example.com", "ftp://a.example/", "http://"],
)
def test_a_link_that_is_no_web_address_makes_its_entry_unusable_and_only_that(link: str) -> None:
    good = "<title>B</title><link>https://wire.example/b</link>"
    for answer in (
        told(rss(f"<title>A</title><link>{link}</link>", good)),
        told(json_feed({"url": link, "title": "A"}, {"url": "https://wire.example/b", "title": "B"})),
    ):
        assert [each.url for each in answer.stories] == ["https://wire.example/b"]
        assert answer.unusable == 1


@pytest.mark.parametrize(
    "link", ["http://[bad", "https://[nonsense]/a", "https://wire.example:99999/a", "https://wire.example:x/a"]
)
def test_a_malformed_link_makes_its_entry_unusable_and_only_that(link: str) -> None:
    answer = told(json_feed({"url": link, "title": "A"}, {"url": "https://wire.example/b", "title": "B"}))
    assert [each.url for each in answer.stories] == ["https://wire.example/b"]
    assert answer.unusable == 1


def test_an_entry_without_a_link_is_unusable_and_does_not_lead_to_the_feed_itself() -> None:
    for document in (rss("<title>A</title>"), json_feed({"title": "A"}), json_feed({"title": "A", "url": 7})):
        answer = told(document)
        assert answer.stories == ()
        assert answer.unusable == 1


def test_an_opaque_guid_is_not_made_into_an_address() -> None:
    answer = told(rss('<title>A</title><guid isPermaLink="false">post-12345</guid>'))
    assert answer.stories == ()
    assert answer.unusable == 1


def test_a_guid_that_is_an_address_is_one() -> None:
    answer = told(rss("<title>A</title><guid>https://wire.example/a</guid>"))
    assert answer.stories[0].url == "https://wire.example/a"


def test_tracking_parameters_are_removed_and_the_others_stay_as_they_are() -> None:
    link = "https://wire.example/a?id=7&utm_source=rss&utm_medium=feed&q=a%20b&fbclid=x#part"
    assert story(url=link).url == "https://wire.example/a?id=7&q=a%20b#part"
    assert told(rss(f"<title>A</title><link>{link.replace('&', '&amp;')}</link>")).stories[0].url == (
        "https://wire.example/a?id=7&q=a%20b#part"
    )


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("Chips &amp;amp; power", "Chips & power"),
        ("&lt;b&gt;Chips&lt;/b&gt; are &lt;em&gt;scarce&lt;/em&gt;", "Chips are scarce"),
        ("<![CDATA[<b>Chips</b> &mdash; again]]>", "Chips — again"),
        ("It&#8217;s here", "It’s here"),
        ("Two\n   lines", "Two lines"),
        ("&lt;script&gt;alert(1)&lt;/script&gt;Chips", "Chips"),
        ("Chips\u2028and\u202ebytes", "Chips andbytes"),
    ],
)
def test_a_title_is_one_line_of_plain_text(markup: str, plain: str) -> None:
    assert told(rss(f"<title>{markup}</title><link>/a</link>")).stories[0].title == plain


def test_titles_and_summaries_are_cut_to_a_size_that_a_letter_can_hold() -> None:
    cut = story(title=words(1_000), summary=words(1_000))
    assert 250 < len(cut.title) <= 300
    assert 1_100 < len(cut.summary) <= 1_200


def test_minutes_are_known_from_the_full_text_only() -> None:
    assert story(content_text=words(690)).minutes == 3
    assert story(content_html=f"<p>{words(460)}</p>").minutes == 2
    assert story(content_text=words(149)).minutes is None
    assert story(summary=words(690)).minutes is None
    full = f"<content:encoded><![CDATA[<p>{words(690)}</p>]]></content:encoded>"
    assert told(rss(f"<title>A</title><link>/a</link>{full}")).stories[0].minutes == 3
    assert told(rss(f"<title>A</title><link>/a</link><description>{words(690)}</description>")).stories[0].minutes is None


def test_a_json_feed_of_our_own_says_why_a_story_matters() -> None:
    assert story(_friday={"why_it_matters": "Prices  follow."}).why == "Prices follow."


def test_what_a_json_feed_says_is_plain_text_keeps_its_brackets() -> None:
    assert story(title="Vec<T> beats array<U> & friends").title == "Vec<T> beats array<U> & friends"


@pytest.mark.parametrize("own", [None, "text", [], {}, {"why_it_matters": 7}])
def test_anything_else_in_its_place_is_passed_over(own: object) -> None:
    assert story(_friday=own).why == ""


def test_items_that_are_no_objects_are_passed_over() -> None:
    document = (
        '{"version": "https://jsonfeed.org/version/1", "items": [1, null, "x", {"url": "https://a.example/", "title": "A"}]}'
    )
    assert [each.title for each in told(document).stories] == ["A"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_entities_are_refused_in_any_encoding(encoding: str) -> None:
    head = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE rss [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    with pytest.raises(SourceError, match="entities"):
        told(rss("<title>&b;</title><link>/a</link>", head=head).encode(encoding))


def test_a_file_named_by_an_external_entity_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    head = f'<!DOCTYPE rss [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]>'
    with pytest.raises(SourceError, match="entities"):
        told(rss("<title>&x;</title><link>/a</link>", head=head))


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_body_that_is_the_name_of_a_file_does_not_open_it(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "feed.xml").write_text(RSS, "utf-8")
    with pytest.raises(SourceError, match="is not a feed"):
        told(f"{scheme}{tmp_path}/feed.xml")


@pytest.mark.parametrize(
    "body",
    [
        "", " \n", "Hello", "<html><body><h1>Sign in</h1></body></html>", "<!DOCTYPE html><html></html>", "<rss", "<a/>",
        "\0" * 50, "%PDF-1.7", "/etc/hostname",
    ],
)  # fmt: skip
def test_what_is_no_feed_is_said_to_be_none(body: str) -> None:
    with pytest.raises(SourceError, match=r"is not a feed|is empty"):
        told(body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{", "is not JSON"),
        ("{" * 100_000, "is not JSON"),
        ('{"version": "https://jsonfeed.org/version/1.1", "items": ' + "[" * 100_000, "is not JSON"),
        ('{"error": "sign in"}', "is JSON, yet no JSON Feed"),
        ('{"version": "1.0", "items": []}', "is JSON, yet no JSON Feed"),
        ('{"version": "https://jsonfeed.org/version/1.1", "items": {}}', "is JSON, yet no JSON Feed"),
    ],
)
def test_json_that_is_no_json_feed_is_said_to_be_none(body: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        told(body)


@pytest.mark.parametrize(
    "document", [rss(), json_feed(), '<feed xmlns="http://www.w3.org/2005/Atom"><title>Wire</title></feed>']
)
def test_a_feed_without_entries_is_a_feed(document: str) -> None:
    assert told(document) == Told((), Validators())


@pytest.mark.parametrize("encoding", ["undefined", "punycode", "hex", "utf-7", "no-such-encoding", "\x01"])
def test_an_encoding_that_no_feed_should_name_is_the_sources_trouble(encoding: str) -> None:
    document = rss("<title>A</title><link>/a</link>", head=f'<?xml version="1.0" encoding="{encoding}"?>')
    try:
        told(document)
    except SourceError as error:
        assert str(error)  # noqa: PT017 - reading it all the same is as good


def test_a_truncated_feed_tells_what_it_has() -> None:
    assert told(RSS[: RSS.index("<pubDate>Thu, 26 Nov 2026 10:00:00 EST")]).stories[0].title == TIDES.title


def test_two_hundred_entries_are_read_and_no_more() -> None:
    many = range(250)
    assert len(told(rss(*(f"<title>{n}</title><link>/{n}</link>" for n in many))).stories) == 200
    assert len(told(json_feed(*({"title": str(n), "url": f"https://wire.example/{n}"} for n in many))).stories) == 200


def test_of_too_many_entries_the_newest_are_taken_wherever_they_stand() -> None:
    items = [
        {"title": str(n), "url": f"https://wire.example/{n}", "date_published": f"{2000 + n:04}-01-01T00:00:00Z"}
        for n in range(205)
    ]
    assert {each.title for each in told(json_feed(*items)).stories} == {str(n) for n in range(5, 205)}


@pytest.fixture
def local(tmp_path: Path) -> Source:
    """A source that is the file `wire.json`, which is not there yet."""
    (source,), _ = build_sources([{"kind": "feed", "name": "Wire", "url": "wire.json"}], tmp_path)
    return source


def test_a_local_file_is_read_relative_to_the_config(local: Source, tmp_path: Path) -> None:
    (tmp_path / "wire.json").write_text(JSON, "utf-8")
    assert local.collect(Validators(), NOW).stories == (TIDES,)


def test_a_file_url_is_a_local_file(tmp_path: Path) -> None:
    (tmp_path / "wire.json").write_text(JSON, "utf-8")
    (source,), _ = build_sources([{"kind": "feed", "name": "Wire", "url": f"file://{tmp_path}/wire.json"}], Path("/nowhere"))
    assert source.collect(Validators(), NOW).stories == (TIDES,)


def test_a_local_file_that_is_missing_is_said(local: Source) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file or directory"):
        local.collect(Validators(), NOW)


def test_a_folder_in_its_place_is_said(local: Source, tmp_path: Path) -> None:
    (tmp_path / "wire.json").mkdir()
    with pytest.raises(SourceError, match="cannot be read: Is a directory"):
        local.collect(Validators(), NOW)


def test_a_local_file_larger_than_the_limit_is_refused(local: Source, tmp_path: Path) -> None:
    with (tmp_path / "wire.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(SourceError, match="larger than 5,242,880 bytes"):
        local.collect(Validators(), NOW)


class Web:
    """Stands in for fetch: gives one page, and remembers what it was asked for."""

    def __init__(self, page: Page | FetchError) -> None:
        self.page = page
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    def __call__(self, url: str, headers: dict[str, str], **options: Any) -> Page:
        self.asked.append((url, headers, options))
        if isinstance(self.page, FetchError):
            raise self.page
        return self.page


def visit(
    monkeypatch: pytest.MonkeyPatch, page: Page | FetchError, validators: Validators, **options: object
) -> tuple[Web, Told]:
    web = Web(page)
    monkeypatch.setattr("pipeline.sources.feed.fetch", web)
    (source,), _ = build_sources([{"kind": "feed", "url": URL, **options}], Path())
    return web, source.collect(validators, NOW)


def test_validators_come_from_the_page_and_go_out_with_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    date = "Thu, 26 Nov 2026 08:00:00 GMT"
    page = Page(200, URL, RSS.encode(), {"etag": 'W/"a"', "LAST-MODIFIED": date})
    web, answer = visit(monkeypatch, page, Validators())
    assert web.asked == [(URL, {}, {"private": False})]
    assert answer.validators == Validators('W/"a"', date)
    web, _ = visit(monkeypatch, page, answer.validators, private=True)
    assert web.asked == [(URL, {"If-None-Match": 'W/"a"', "If-Modified-Since": date}, {"private": True})]


def test_a_source_that_did_not_change_keeps_its_validators(monkeypatch: pytest.MonkeyPatch) -> None:
    _, answer = visit(monkeypatch, Page(304, URL, b""), Validators('"a"'))
    assert answer == Told((), Validators('"a"'), unchanged=True)


def test_links_are_read_from_where_redirects_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Page(200, "https://new.example/feed", rss("<title>A</title><link>/a</link>").encode())
    _, answer = visit(monkeypatch, moved, Validators())
    assert answer.stories[0].url == "https://new.example/a"


def test_an_address_that_cannot_be_read_is_the_sources_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="answered 404 Not Found"):
        visit(monkeypatch, FetchError("answered 404 Not Found"), Validators())


def feed(**options: object) -> dict[str, object]:
    return {"kind": "feed", "url": URL, **options}


@pytest.mark.parametrize("kind", [{"kind": "carrier pigeon", "url": URL}, {"url": URL}, {"kind": ["feed"]}, "feed", 7])
def test_an_unknown_kind_is_named_with_those_that_there_are(kind: object) -> None:
    _, (problem,) = build_sources([feed(), kind], Path())
    assert problem.where == "sources[1].kind"
    assert "is not a kind of source" in problem.what
    assert problem.cure == "there is feed"


def test_an_unknown_key_is_named_with_the_one_that_was_meant() -> None:
    _, problems = build_sources([feed(), feed(name="Other", url="other.xml", wieght=2)], Path())
    assert problems == [Problem("sources[1].wieght", "unknown key", "did you mean weight?")]


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"url": ""}, "sources[0].url"),
        ({"url": "https://a.example/\nb"}, "sources[0].url"),
        ({"name": "Two\nlines"}, "sources[0].name"),
        ({"weight": 11}, "sources[0].weight"),
        ({"weight": -1}, "sources[0].weight"),
        ({"weight": "much"}, "sources[0].weight"),
        ({"private": "perhaps"}, "sources[0].private"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(options: dict[str, object], where: str) -> None:
    built, problems = build_sources([feed(**options)], Path())
    assert [problem.where for problem in problems] == [where]
    assert built == ()


def test_a_missing_url_is_named() -> None:
    _, problems = build_sources([{"kind": "feed"}], Path())
    assert problems == [Problem("sources[0].url", "is missing")]


def test_two_sources_of_one_name_or_one_address_are_a_problem() -> None:
    _, problems = build_sources([feed(name="Wire"), feed(name="Wire", url="other.xml")], Path())
    assert problems == [Problem("sources", "two have the name 'Wire'")]
    _, problems = build_sources([feed(name="Wire"), feed(name="Other")], Path())
    assert problems == [Problem("sources", f"two have the address '{URL}'")]


def test_every_mistake_is_told_at_once() -> None:
    _, problems = build_sources([{"kind": "x"}, feed(weight=99, colour="red"), {"kind": "feed"}], Path())
    assert {problem.where for problem in problems} == {
        "sources[0].kind", "sources[1].weight", "sources[1].colour", "sources[2].url",
    }  # fmt: skip


def test_a_source_without_a_name_is_called_by_its_host_or_file() -> None:
    built, _ = build_sources([feed(), feed(url="letters/desk.json")], Path("/here"))
    assert [source.name for source in built] == ["wire.example", "desk"]
    assert [source.address for source in built] == [URL, "letters/desk.json"]
    assert [source.weight for source in built] == [1.0, 1.0]


def bodies() -> st.SearchStrategy[bytes]:
    """Bytes that are no feed, nearly one, or one with anything in its fields."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | links(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
    keys = ("url", "external_url", "title", "summary", "content_html", "content_text", "date_published", "_friday")
    items = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(keys, values)) | values, max_size=3)
    feeds = items.map(lambda listed: json.dumps({"version": "https://jsonfeed.org/version/1.1", "items": listed}).encode())
    fields = st.text(max_size=40) | links()
    entries = st.tuples(st.sampled_from(["title", "link", "guid", "pubDate", "description", "x:y"]), fields)
    written = st.lists(entries.map(lambda pair: f"<{pair[0]}>{pair[1]}</{pair[0]}>"), max_size=5).map("".join)
    documents = written.map(lambda item: rss(item).encode("utf-8", "surrogatepass"))
    return st.one_of(st.binary(max_size=200), feeds, documents, broken())


def links() -> st.SearchStrategy[str]:
    pieces = [
        "http://",
        "https://",
        "[",
        "]",
        ":",
        "//",
        "a.example",
        "99999",
        "/",
        "?",
        "#",
        "@",
        "\0",
        "\ud800",
        "%",
        "é",
        "&",
        "<b>",
        " ",
    ]
    return st.lists(st.sampled_from(pieces), max_size=6).map("".join)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A good document with some bytes of it replaced."""
    document = draw(st.sampled_from([RSS, RDF, ATOM, JSON])).encode()
    start = draw(st.integers(0, len(document)))
    end = draw(st.integers(start, min(len(document), start + 60)))
    return document[:start] + draw(st.binary(max_size=20)) + document[end:]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(bodies())
def test_no_bytes_make_a_feed_raise_anything_but_its_trouble(body: bytes) -> None:
    try:
        answer = told(body)
    except SourceError:
        return
    for each in answer.stories:
        assert each.title
        assert canonical_url(each.url)
        for text in (each.url, each.title, each.summary, each.why):
            # What a database cannot hold would stop the other sources later.
            assert "\0" not in text
            assert text.encode().decode() == text


def test_a_feed_that_was_built_to_be_slow_is_read_in_no_time() -> None:
    began = time.monotonic()
    told(rss(f"<title>A</title><link>https://wire.example/a</link><description>{'&lt;!--' * 100_000}</description>"))
    assert time.monotonic() - began < 2
