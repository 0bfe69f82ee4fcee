"""The routes of the desk: what somebody saw comes along, and nobody writes over what they have not seen."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
import requests

from pipeline import edit
from pipeline import publish as route
from pipeline.books import JobRow
from pipeline.errors import ContentError, Problem
from pipeline.serve import EVERY
from tests.conftest import World, by_reader_time
from tests.serving import serving
from tests.test_door import ED, Browser, furnish
from tests.test_staff import CHIEF

DESK = "/newsroom/desk/2026-11-27"
SCRIPT = {"Accept": "application/json"}


@dataclass
class Page:
    """The desk as somebody has loaded it, and the forms that they send from it."""

    world: World
    browser: Browser
    text: str

    def hidden(self, name: str) -> str:
        # The forms that decide have a `seen` of their own, the digest of what was looked at.
        found = re.search(rf'name="{name}" value="([^"]*)"(?! data-digest)', self.text)
        assert found
        return html.unescape(found.group(1))

    def change(self, what: str, **fields: str) -> requests.Response:
        form = {name: self.hidden(name) for name in ("csrf", "seen", "line_up")}
        return self.browser.post(f"{DESK}/change", {**form, "what": what, **fields}, **SCRIPT)


@pytest.fixture
def site(local_world: World) -> Iterator[str]:
    local_world.tell_a_week()
    with serving(furnish(local_world).app) as url:
        yield url


@pytest.fixture
def page(local_world: World, site: str) -> Page:
    browser = Browser(site).sign_in(CHIEF)
    return Page(local_world, browser, browser.get(DESK).text)


@pytest.fixture
def ed(local_world: World) -> edit.Desk:
    """Somebody else at the same desk, who has just looked."""
    return edit.Desk(local_world.newsroom, local_world.slot, ED)


def heads(world: World) -> tuple[str, str]:
    issue = route.draft(world.newsroom, world.slot).issue
    return issue.subject, issue.preheader


def test_whoever_saves_something_else_has_not_seen_what_another_wrote_meanwhile(page: Page, ed: edit.Desk) -> None:
    ed.head("subject", "Ed's subject")
    saved = page.change("head", preheader="Mine", was_preheader="")
    assert (saved.status_code, saved.json()["seen"]) == (200, int(page.hidden("seen")))
    refused = page.change("head", seen=str(saved.json()["seen"]), subject="Mine", was_subject="")
    assert (refused.status_code, refused.json()["theirs"]) == (409, "Ed's subject")
    assert heads(page.world) == ("Ed's subject", "Mine")


def test_whoever_is_alone_has_seen_what_they_wrote(page: Page, ed: edit.Desk) -> None:
    assert page.change("head", preheader="Mine", was_preheader="").json()["seen"] == ed.head("subject", "Ed's") - 1


def test_of_two_things_that_another_wrote_each_is_told_before_it_is_written_over(page: Page, ed: edit.Desk) -> None:
    first, second = ed.head("preheader", "Ed's preheader"), ed.head("subject", "Ed's subject")
    mine = {"subject": "Mine", "was_subject": "", "preheader": "Mine too", "was_preheader": ""}
    refused = page.change("head", **mine)
    assert (refused.status_code, refused.json()["told"]) == (409, second)
    refused = page.change("head", told=str(second), **mine)
    assert (refused.status_code, refused.json()["told"], refused.json()["theirs"]) == (409, first, "Ed's preheader")
    assert heads(page.world) == ("Mine", "Ed's preheader")


def test_without_scripts_each_is_told_once_too(page: Page, ed: edit.Desk) -> None:
    ed.head("preheader", "Ed's preheader")
    ed.head("subject", "Ed's subject")
    form = {name: page.hidden(name) for name in ("csrf", "seen", "line_up")}
    form |= {"what": "head", "subject": "Mine", "was_subject": "", "preheader": "Mine too", "was_preheader": ""}
    answers = []
    told: list[str] = []
    for _ in range(3):
        answer = page.browser.post(f"{DESK}/change", {**form, "told": told})  # type: ignore[dict-item]  # fields that repeat
        told = re.findall(r'name="told" value="(\d+)"', answer.text)
        answers.append((answer.status_code, re.findall(r"Ed&#39;s \w+", answer.text)[:1]))
    assert answers == [(409, ["Ed&#39;s subject"]), (409, ["Ed&#39;s preheader"]), (303, [])]
    assert heads(page.world) == ("Mine", "Mine too")


def test_whoever_would_take_back_what_another_did_is_shown_the_desk_and_nothing_to_write_over(
    page: Page, ed: edit.Desk
) -> None:
    ed.head("subject", "Ed's subject")
    form = {name: page.hidden(name) for name in ("csrf", "seen")}
    answer = page.browser.post(f"{DESK}/change", {**form, "what": "undo"})
    assert (answer.status_code, "Write mine over it" in answer.text) == (409, False)


@pytest.mark.parametrize("line_up", ["[" * 20_000, "{", "[1]", "null"])
def test_a_line_up_that_is_none_is_that_of_the_draft(page: Page, line_up: str) -> None:
    form = {"csrf": page.hidden("csrf"), "what": "down", "place": "1", "page": edit.line_up(route.draft(
        page.world.newsroom, page.world.slot))[0], "line_up": line_up}  # fmt: skip
    assert page.browser.post(f"{DESK}/change", form, **SCRIPT).status_code == 200


def test_one_s_own_words_may_be_written_on_though_another_came_in_between(page: Page, ed: edit.Desk) -> None:
    ed.head("subject", "Ed's subject")
    written = page.change("head", preheader="Mine", was_preheader="").json()["written"]
    again = page.change("head", preheader="Mine, longer", was_preheader="Mine", told=str(written["preheader"]))
    assert (again.status_code, heads(page.world)) == (200, ("Ed's subject", "Mine, longer"))


def test_what_was_written_before_the_conflict_is_told_with_it(page: Page, ed: edit.Desk) -> None:
    ed.head("preheader", "Ed's preheader")
    refused = page.change("head", subject="Mine", was_subject="", preheader="Mine too", was_preheader="")
    assert (refused.status_code, refused.json()["field"], list(refused.json()["written"])) == (409, "preheader", ["subject"])


@pytest.mark.parametrize(("note", "other_way"), [("My note", "Keep theirs, save the rest"), ("", "Keep what is there")])
def test_without_scripts_the_rest_is_saved_where_there_is_any(page: Page, ed: edit.Desk, note: str, other_way: str) -> None:
    ed.head("preheader", "Ed's preheader")
    form = {name: page.hidden(name) for name in ("csrf", "seen", "line_up")}
    form |= {"what": "head", "subject": "Mine", "was_subject": "", "preheader": "Mine too", "was_preheader": ""}
    answer = page.browser.post(f"{DESK}/change", form | {"note": note, "was_note": ""})
    assert re.findall(r"Write mine over it|Keep [\w ,]+", answer.text) == ["Write mine over it", other_way]


def test_a_page_that_asks_for_news_by_itself_keeps_no_session_alive(page: Page) -> None:
    for _ in range(13):
        page.world.clock.wait(60 * 60)
        last = page.browser.get(f"{DESK}/news?after=0", **SCRIPT).status_code
    assert last == 401


def test_what_is_said_of_a_slot_keeps_its_capitals(local_world: World) -> None:
    local_world.newsroom = by_reader_time(local_world.newsroom)
    with serving(furnish(local_world).app) as url:
        browser = Browser(url).sign_in(CHIEF)
        for path in (DESK, "/newsroom/slots"):
            assert re.search(r">Each reader&#39;s own 09:00, the last at [-0-9]+ 21:00 UTC\.<", browser.get(path).text), path


def test_each_mistake_of_the_newsroom_stands_on_a_line_of_its_own(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def draft(*_: object) -> None:
        raise ContentError([Problem("here", "wrong"), Problem("there", "wrong too")])

    monkeypatch.setattr(route, "draft", draft)
    assert '<p class="trouble lines" role="alert">here: wrong\nthere: wrong too</p>' in page.browser.get(DESK).text
    assert ".lines { white-space: pre-line; }" in page.browser.get("/newsroom.css").text


def test_the_calendar_says_how_often_it_is_looked_whether_an_issue_is_due(page: Page) -> None:
    with page.world.database.write() as session:
        session.add(JobRow(name="publish", began_at=page.world.clock()))
    assert timedelta(seconds=10) == EVERY
    assert "every ten seconds" in page.browser.get("/newsroom/slots").text
