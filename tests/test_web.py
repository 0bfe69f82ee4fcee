"""What browsers see: the preview shows the very bytes, the public pages let a reader leave, and GET changes nothing."""

import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace

import lxml.html
import pytest
import requests
from sqlalchemy import text

from pipeline import publish as route
from pipeline.render import address
from pipeline.web.door import lies_below
from pipeline.web.preview import preview_app, sample_copy, with_scheme
from pipeline.web.public import public_app
from subscribers import roll
from subscribers.models import State
from tests.conftest import ROOT, World
from tests.serving import serving

TABLES = ("stories", "sources", "subscribers", "suppressions", "issues", "issue_stories", "batches", "deliveries")


def everything(world: World) -> dict[str, list[tuple[object, ...]]]:
    with world.database.read() as session:
        return {table: [tuple(row) for row in session.execute(text(f"SELECT * FROM {table}"))] for table in TABLES}  # noqa: S608 - our own names


def token_of(world: World, key: str) -> str:
    with world.database.read() as session:
        found = roll.by_key(session, key)
        assert found is not None
        return found.token


def state_of(world: World, key: str) -> str:
    with world.database.read() as session:
        found = roll.by_key(session, key)
        assert found is not None
        return found.state


@pytest.fixture
def ready(local_world: World) -> World:
    """A week of stories, three readers, and copies of the templates that a test may break."""
    folders = local_world.newsroom.config
    for name in ("templates", "terms"):
        shutil.copytree(ROOT / name, local_world.folder / name)
    config = replace(folders, templates=local_world.folder / "templates", terms=local_world.folder / "terms")
    local_world.newsroom = replace(local_world.newsroom, config=config)
    local_world.tell_a_week()
    local_world.subscribe("ada", "ben", "cleo")
    return local_world


@pytest.fixture
def preview(ready: World) -> Iterator[str]:
    stopping = threading.Event()
    with serving(preview_app(ready.newsroom, ready.slot, stopping), stopping) as url:
        yield url


@pytest.fixture
def public(ready: World) -> Iterator[str]:
    with serving(public_app(ready.newsroom)) as url:
        yield url


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=60)


def test_the_preview_shows_the_bytes_that_are_sent(ready: World, preview: str) -> None:
    drafted = route.draft(ready.newsroom, ready.slot)
    expected = address(drafted.rendered, sample_copy(drafted.rendered))
    assert get(f"{preview}/issue.html").text == expected.html
    assert get(f"{preview}/issue.txt").text == expected.text


def test_preview_archive_and_sending_differ_in_the_readers_values_only(ready: World, preview: str, public: str) -> None:
    route.publish(ready.newsroom, ready.slot)
    frozen = route.look(ready.newsroom, ready.slot).rendered
    (copy, *_) = ready.provider.parcels[0].copies
    sent = address(frozen, copy).html
    shown = get(f"{preview}/issue.html").text
    archived = get(f"{public}/issues/{ready.slot.name}").text
    assert sent.replace(copy.address, "X").replace(copy.unsubscribe_url, "Y") == shown.replace(
        "reader@example.com", "X"
    ).replace("https://news.example.com/u/preview", "Y")
    assert copy.unsubscribe_url not in archived
    assert copy.address not in archived
    assert len(archived.splitlines()) == len(sent.splitlines())


def test_every_choice_of_the_preview_is_in_its_address_and_needs_no_script(preview: str) -> None:
    page = get(f"{preview}/?part=html&width=narrow&scheme=dark").text
    assert 'src="/issue.html?scheme=dark"' in page
    assert "?part=text&amp;width=narrow&amp;scheme=dark" in page
    assert "The plain text of the issue" in get(f"{preview}/?part=text").text
    assert page.count("aria-current") == 3
    assert get(f"{preview}/?scheme=pink").status_code == 422


def test_a_scheme_answers_the_issues_own_media_queries_and_auto_leaves_the_bytes() -> None:
    html = "<style>@media (prefers-color-scheme: dark) {a{color:red}} @media (prefers-color-scheme:light){}</style>"
    assert with_scheme(html, "auto") == html
    assert "(min-width: 0) {a" in with_scheme(html, "dark")
    assert "(max-width: 0) {a" in with_scheme(html, "light")
    assert "prefers" not in with_scheme(html, "dark")


def test_the_issue_in_the_preview_can_run_nothing_and_reach_nothing(preview: str) -> None:
    policy = get(f"{preview}/issue.html").headers["Content-Security-Policy"]
    assert policy.startswith("sandbox")
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    frame = re.search(r"<iframe[^>]*>", get(f"{preview}/").text)
    assert frame
    assert "allow-scripts" not in frame.group()
    assert "allow-same-origin" not in frame.group()


@pytest.mark.parametrize("path", ["/", "/issue.html", "/issue.txt", "/changes", "/preview.css"])
def test_the_preview_answers_to_loopback_names_only(preview: str, path: str) -> None:
    assert get(preview + path, Host="evil.example").status_code == 400


def test_a_broken_template_is_shown_with_file_and_line_and_the_page_comes_back(ready: World, preview: str) -> None:
    path = ready.newsroom.templates / "issue.txt"
    good = path.read_text("utf-8")
    path.write_text("one\n{{ masthead.titel }}\n", "utf-8")
    broken = get(f"{preview}/")
    assert broken.status_code == 500
    assert f"{path}:2" in broken.text
    assert "titel" in broken.text
    path.write_text(good, "utf-8")
    assert get(f"{preview}/").status_code == 200


@pytest.mark.parametrize("saved", ["templates/issue/weekly/inline.css", "templates/issue/weekly/issue.html", "terms/gpu.md"])
def test_saving_a_template_a_style_or_a_term_reloads_the_preview(ready: World, preview: str, saved: str) -> None:
    path = ready.folder / saved
    with requests.get(f"{preview}/changes", stream=True, timeout=60) as stream:
        lines = stream.iter_lines(chunk_size=1)
        assert next(lines) == b"retry: 500"
        # The watcher is surely at work once a later line has come, so the file is saved at each.
        for line in lines:
            path.write_text(path.read_text("utf-8") + "\n", "utf-8")
            if line == b"data: changed":
                return
    pytest.fail("the preview was not told")


def test_findings_stand_above_the_issue(ready: World) -> None:
    thin = ready.newsroom.config.newsletter.model_copy(update={"stories": 9})
    newsroom = replace(ready.newsroom, config=replace(ready.newsroom.config, newsletter=thin))
    with serving(preview_app(newsroom, ready.slot, threading.Event())) as url:
        page = get(url).text
    assert "a thin week: 6 of 9 stories" in page


def test_following_every_link_of_an_issue_by_get_and_head_changes_nothing(ready: World, public: str) -> None:
    route.publish(ready.newsroom, ready.slot)
    frozen = route.look(ready.newsroom, ready.slot).rendered
    (copy, *_) = ready.provider.parcels[0].copies
    before = everything(ready)
    anchors = lxml.html.document_fromstring(address(frozen, copy).html).iter("a")
    links = [anchor.get("href", "") for anchor in anchors]
    own = [link.replace("https://news.example.com", public) for link in links if "news.example.com" in link]
    assert {link.removeprefix(public).split("/")[1] for link in own} == {"", "issues", "u"}
    for link in own:
        assert get(link).status_code == 200
        assert requests.head(link, timeout=60).status_code == 200
    assert everything(ready) == before
    assert state_of(ready, "ada@example.com") == State.ACTIVE


@pytest.mark.parametrize("shape", ["urlencoded", "multipart", "empty"])
def test_one_click_leaves_without_cookie_or_redirect_whatever_its_body(ready: World, public: str, shape: str) -> None:
    link = f"{public}/u/{token_of(ready, 'ada@example.com')}"
    body = {
        "urlencoded": {"data": {"List-Unsubscribe": "One-Click"}},
        "multipart": {"files": {"List-Unsubscribe": (None, "One-Click")}},
        "empty": {},
    }[shape]
    answer = requests.post(link, timeout=60, allow_redirects=False, **body)  # type: ignore[arg-type]  # one of three shapes
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert state_of(ready, "ada@example.com") == State.UNSUBSCRIBED
    assert requests.post(link, timeout=60).status_code == 200
    assert state_of(ready, "ben@example.com") == State.ACTIVE


def test_the_page_shows_a_button_and_then_that_one_has_left(ready: World, public: str) -> None:
    link = f"{public}/u/{token_of(ready, 'ada@example.com')}"
    page = get(link).text
    assert '<form method="post"' in page
    assert "ada@example.com" not in page
    requests.post(link, timeout=60)
    assert "You have left" in get(link).text


def test_a_link_that_is_not_known_says_so_and_changes_nothing(ready: World, public: str) -> None:
    before = everything(ready)
    assert get(f"{public}/u/rubbish").status_code == 404
    assert requests.post(f"{public}/u/rubbish", timeout=60).status_code == 404
    assert everything(ready) == before


def test_an_issue_is_public_once_its_readers_are_enrolled_and_not_before(ready: World, public: str) -> None:
    link = f"{public}/issues/{ready.slot.name}"
    assert get(link).status_code == 404
    route.approve(ready.newsroom, ready.slot)
    assert get(link).status_code == 404
    assert "first issue is still to come" in get(public).text
    route.publish(ready.newsroom, ready.slot)
    assert get(link).status_code == 200
    assert f"/issues/{ready.slot.name}" in get(public).text


@pytest.mark.parametrize("path", ["/", "/u/rubbish", "/issues/2020-01-03", "/nothing"])
def test_public_pages_carry_the_security_headers(public: str, path: str) -> None:
    headers = get(public + path).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def test_the_public_pages_answer_to_their_own_host_and_to_loopback_only(public: str) -> None:
    assert get(public, Host="news.example.com").status_code == 200
    assert get(public, Host="evil.example").status_code == 400


def test_nothing_of_the_newsroom_is_public(ready: World) -> None:
    paths = {getattr(each, "path", "") for each in public_app(ready.newsroom).routes}
    before_the_door = {path for path in paths if not lies_below(path, "/newsroom")}
    files = {"/public.css", "/newsroom.css", "/desk.css", "/desk.js", "/desk-order.js", "/import.js", "/people.js", "/icon.svg"}
    of_readers = {"/subscribe", "/c/{token}", "/p/{token}", "/u/{token}"}
    assert before_the_door == {"/", "/issues/{slot}", "/hooks/{provider}", "/healthz", *of_readers, *files}


def test_what_nobody_foresaw_is_answered_with_a_number_that_stands_in_the_log(
    ready: World, public: str, caplog: pytest.LogCaptureFixture
) -> None:
    (ready.folder / "templates" / "web" / "leave.html").write_text("{{ nowhere }}", "utf-8")
    token = token_of(ready, "ada@example.com")
    answer = requests.get(f"{public}/u/{token}", timeout=60)
    assert answer.status_code == 500
    (number,) = re.findall(r"name this number: ([0-9a-f]{8})\.", answer.text)
    assert "nowhere" not in answer.text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert f"number {number}: GET /u/{{token}}" in caplog.text
    assert "'nowhere' is undefined" in caplog.text
    assert token not in caplog.text
    (ready.folder / "templates" / "web" / "page.html").write_text("{{ nowhere }}", "utf-8")
    answer = requests.get(f"{public}/u/{token}", timeout=60)
    assert re.fullmatch(r"Something went wrong. It stands in the log under the number [0-9a-f]{8}\.", answer.text)
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
