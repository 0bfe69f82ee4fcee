"""The people screens: found, looked at, changed with a trace of who did it, brought in and taken out."""

import json
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlmodel import select

from pipeline import person as everything
from pipeline import uploads
from subscribers import exchange, history, labels, roll, sheets
from subscribers.models import LabelKind, State, Subscriber, Suppression, Why
from tests.conftest import World
from tests.serving import serving
from tests.test_door import ED, Browser, furnish
from tests.test_staff import CHIEF

PEOPLE = "/newsroom/people"
LONGEST = f"{'x' * 60}@{'very-long-name.' * 10}example.com"
ARABIC = "مرحبا بالعالم العربي الجميل " * 5


@pytest.fixture
def site(local_world: World) -> Iterator[str]:
    with serving(furnish(local_world).app) as url:
        yield url


@pytest.fixture
def owner(site: str) -> Browser:
    return Browser(site).sign_in(CHIEF)


@pytest.fixture
def editor(site: str) -> Browser:
    return Browser(site).sign_in(ED)


def person(world: World, key: str) -> Subscriber:
    with world.database.read() as session:
        found = roll.by_key(session, key)
        assert found
        return found


def happened(world: World, key: str) -> list[tuple[str, str]]:
    with world.database.read() as session:
        return [(each.what, each.by) for each in history.of(session, person(world, key).id or 0)]


def post(browser: Browser, path: str, **form: object) -> requests.Response:
    return browser.post(path, {"csrf": browser.token(), **form})  # type: ignore[dict-item]  # lists go over as fields that repeat


def test_the_list_shows_everybody_page_by_page(local_world: World, editor: Browser) -> None:
    local_world.subscribe(*(f"reader{number:03}" for number in range(120)))
    seen: list[str] = []
    path = PEOPLE
    while path:
        page = editor.get(path).text
        assert "120 people" in page
        seen += re.findall(r"<bdi>(reader\d+@example.com)</bdi>", page)
        further = re.search(r'rel="next" href="([^"]+)"', page)
        path = further.group(1).replace("&amp;", "&") if further else ""
    assert seen == [f"reader{number:03}@example.com" for number in range(120)]


def test_where_nobody_is_the_list_says_what_to_do(editor: Browser) -> None:
    assert "Nobody is on the roll yet" in editor.get(PEOPLE).text
    assert "Nobody is like that" in editor.get(f"{PEOPLE}?state=pending").text


def test_the_list_is_narrowed_by_state_tag_and_segment(local_world: World, editor: Browser) -> None:
    local_world.subscribe("ada", "ben", "cleo")
    with local_world.database.write() as session:
        roll.unsubscribe(session, "ben@example.com", local_world.clock())
        roll.suppress(session, "cleo@example.com", Why.BOUNCE, local_world.clock())
        labels.add(session, [person(local_world, "ada@example.com").id or 0], LabelKind.TAG, "vip", "us", local_world.clock())

    def shown(query: str) -> list[str]:
        return re.findall(r"<bdi>(\w+)@example.com</bdi>", editor.get(f"{PEOPLE}?{query}").text)

    assert shown("state=unsubscribed") == ["ben"]
    assert shown("suppressed=yes") == ["cleo"]
    assert shown("tag=vip") == ["ada"]
    assert shown("segment=not tag:vip") == ["ben", "cleo"]
    wrong = editor.get(f"{PEOPLE}?segment=topicc:x")
    assert wrong.status_code == 422
    assert "did you mean topic?<" in wrong.text


def test_a_search_finds_by_address_and_name_and_stands_in_no_address(local_world: World, editor: Browser) -> None:
    with local_world.database.write() as session:
        roll.add(session, "ada@example.com", local_world.clock(), "Ada Lovelace")
        roll.add(session, "ben@example.org", local_world.clock(), "Ben")
    for text in ("ada@ex", "lovel", "@example.com"):
        page = post(editor, f"{PEOPLE}/search", text=text)
        assert page.url.endswith(f"{PEOPLE}/search")
        assert re.findall(r"<bdi>([\w.@]+)</bdi></a>", page.text) == ["ada@example.com"]
    assert "Nobody is found" in post(editor, f"{PEOPLE}/search", text="zz").text
    assert not re.search(r'href="[^"]*@', page.text.replace("mailto:", ""))


def test_a_person_is_added_with_how_it_agreed(local_world: World, editor: Browser) -> None:
    assert editor.get(f"{PEOPLE}/add").status_code == 200
    assert post(editor, f"{PEOPLE}/add", address="ada@example.com").status_code == 422
    told = {"address": "Ada@Example.com", "name": "Ada", "tags": "vip, early", "consent": "on paper at the fair"}
    answer = post(editor, f"{PEOPLE}/add", **told)
    assert answer.status_code == 303
    ada = person(local_world, "ada@example.com")
    assert (ada.state, ada.source) == (State.ACTIVE, "newsroom: on paper at the fair")
    page = editor.get(answer.headers["Location"]).text
    assert "Added." in page
    assert "early vip" in page
    again = post(editor, f"{PEOPLE}/add", **told)
    assert "on the roll already" in editor.get(again.headers["Location"]).text
    assert "Not a mail address" in post(editor, f"{PEOPLE}/add", address="no address", consent="x").text


def test_what_an_editor_changes_stands_in_the_history_with_who_did_it(local_world: World, editor: Browser) -> None:
    local_world.subscribe("ada")
    number = person(local_world, "ada@example.com").id
    assert post(editor, f"{PEOPLE}/{number}/edit", name="Ada Lovelace", tags="vip").status_code == 303
    assert post(editor, f"{PEOPLE}/{number}/unsubscribe").status_code == 303
    assert post(editor, f"{PEOPLE}/{number}/suppress", note="wrote to us").status_code == 303
    assert happened(local_world, "ada@example.com") == [("edited", ED), ("edited", ED), ("left", ED), ("suppressed", ED)]
    page = editor.get(f"{PEOPLE}/{number}").text
    for told in ("Ada Lovelace", "vip", "Unsubscribed", "wrote to us", f"by {ED}"):
        assert told in page
    assert post(editor, f"{PEOPLE}/{number}/edit", tags="Not A Tag!").status_code == 422


def test_many_are_changed_at_once(local_world: World, editor: Browser) -> None:
    local_world.subscribe("ada", "ben", "cleo")
    ids = [str(person(local_world, f"{name}@example.com").id) for name in ("ada", "ben")]
    assert post(editor, f"{PEOPLE}/bulk", action="tag", name="vip", ids=ids).status_code == 303
    assert post(editor, f"{PEOPLE}/bulk", action="unsubscribe", ids=ids[:1]).status_code == 303
    assert happened(local_world, "ada@example.com") == [("edited", ED), ("left", ED)]
    assert happened(local_world, "cleo@example.com") == []
    assert post(editor, f"{PEOPLE}/bulk", action="tag", name="vip").status_code == 422
    assert post(editor, f"{PEOPLE}/bulk", action="tag", name="NOT A TAG", ids=ids).status_code == 422
    assert post(editor, f"{PEOPLE}/bulk", action="burn", ids=ids).status_code == 422


def test_only_an_owner_erases_and_types_the_address_for_it(local_world: World, owner: Browser, editor: Browser) -> None:
    local_world.subscribe("ada")
    number = person(local_world, "ada@example.com").id
    assert post(editor, f"{PEOPLE}/{number}/erase", typed="ada@example.com").status_code == 403
    assert post(owner, f"{PEOPLE}/{number}/erase", typed="ada").status_code == 422
    done = post(owner, f"{PEOPLE}/{number}/erase", typed="Ada@example.com")
    assert done.headers["Location"] == f"{PEOPLE}?said=erased"
    assert editor.get(f"{PEOPLE}/{number}").status_code == 404
    with local_world.database.read() as session:
        assert session.exec(select(Suppression.why)).all() == [Why.ERASED]


def test_only_an_owner_takes_people_out(local_world: World, owner: Browser, editor: Browser) -> None:
    local_world.subscribe("ada")
    number = person(local_world, "ada@example.com").id
    for path in (f"{PEOPLE}/export.csv", f"{PEOPLE}/export.json", f"{PEOPLE}/{number}/all.json"):
        assert editor.get(path).status_code == 403
        assert "ada@example.com" in owner.get(path).text
    held = json.loads(owner.get(f"{PEOPLE}/{number}/all.json").text)
    assert held == everything.held(local_world.newsroom, "ada@example.com")
    assert owner.get(f"{PEOPLE}/export.xml").status_code == 404


@pytest.mark.parametrize("number", ["0", "999999", "9" * 30, "-1"])
def test_nobody_of_a_number_is_said_so(owner: Browser, number: str) -> None:
    assert owner.get(f"{PEOPLE}/{number}").status_code == 404
    for act in ("edit", "unsubscribe", "suppress", "erase"):
        assert post(owner, f"{PEOPLE}/{number}/{act}", typed="x").status_code == 404


def upload(browser: Browser, content: str, name: str = "people.csv") -> str:
    """Send a file to be looked at; where its page is."""
    sent = {"Origin": browser.url, "Sec-Fetch-Site": "same-origin"}
    fields = {"csrf": (None, browser.token()), "file": (name, content)}
    answer = browser.session.post(
        f"{browser.url}{PEOPLE}/import", files=fields, headers=sent, timeout=60, allow_redirects=False
    )
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def when_over(browser: Browser, path: str) -> str:
    """The page of an import, once it is through."""
    ends = time.monotonic() + 60
    while "<progress" in (page := browser.get(path).text):
        assert time.monotonic() < ends
        time.sleep(0.02)
    return page


def test_a_file_is_looked_at_first_and_brought_in_when_that_is_said(local_world: World, editor: Browser) -> None:
    local_world.subscribe("ben")
    path = upload(editor, "email,name\nada@example.com,Ada\nben@example.com,Ben\nno address,X\n")
    page = when_over(editor, path)
    assert "Nothing is written yet" in page
    assert "1 added, 1 known already, 1 refused" in page
    assert "Line 4" in page
    with local_world.database.read() as session:
        assert len(session.exec(select(Subscriber)).all()) == 1
    post(editor, path)
    assert "Done: 1 added" in when_over(editor, path)
    assert person(local_world, "ada@example.com").state == State.ACTIVE
    post(editor, path)
    assert "Done: 1 added" in when_over(editor, path)


def test_a_file_that_cannot_be_read_is_told_without_where_it_lies(editor: Browser) -> None:
    page = when_over(editor, upload(editor, "colour\nred\n", "colours.csv"))
    assert 'role="alert"' in page
    assert "colours.csv" in page
    assert "imports" not in page
    assert editor.get(f"{PEOPLE}/import/unheard-of").status_code == 404


def test_a_file_that_was_deleted_meanwhile_is_asked_for_again(local_world: World, editor: Browser) -> None:
    path = upload(editor, "email\nada@example.com\n")
    assert "Nothing is written yet" in when_over(editor, path)
    uploads.forget_all(local_world.newsroom.config.imports)
    post(editor, path)
    assert "Nothing was written: send it again" in when_over(editor, path)
    with local_world.database.read() as session:
        assert session.exec(select(Subscriber)).all() == []


def test_a_file_that_goes_while_it_is_read_is_asked_for_again(
    local_world: World, editor: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_through = sheets.look_through

    def and_then_erase(path: Path) -> sheets.Sheet:
        found = look_through(path)
        uploads.forget_all(local_world.newsroom.config.imports)
        return found

    monkeypatch.setattr(sheets, "look_through", and_then_erase)
    page = when_over(editor, upload(editor, "email\nada@example.com\n"))
    assert "deleted meanwhile" in page
    assert "Send it again" in page


def test_a_folder_that_cannot_be_written_is_named(local_world: World, editor: Browser) -> None:
    local_world.newsroom.config.imports.write_text("no folder")
    fields = {"csrf": (None, editor.token()), "file": ("people.csv", "email\nada@example.com\n")}
    sent = {"Origin": editor.url, "Sec-Fetch-Site": "same-origin"}
    answer = editor.session.post(f"{editor.url}{PEOPLE}/import", files=fields, headers=sent, timeout=60)
    assert answer.status_code == 422
    assert "imports cannot be written" in answer.text


def test_an_export_that_breaks_off_does_not_look_whole(owner: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: Any) -> Iterator[str]:
        yield "email\r\nada@example.com\r\n"
        raise RuntimeError("the database is gone")

    monkeypatch.setattr(exchange, "export", export)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        owner.get(f"{PEOPLE}/export.csv")


def test_the_longest_and_strangest_of_names_have_room(local_world: World, editor: Browser) -> None:
    with local_world.database.write() as session:
        roll.add(session, LONGEST, local_world.clock(), "<b>" + "n" * 120)
        roll.add(session, "arab@example.com", local_world.clock(), ARABIC)
    page = editor.get(PEOPLE).text
    assert "<b>" not in page
    assert ARABIC.strip() in page
    number = person(local_world, LONGEST).id
    assert LONGEST in editor.get(f"{PEOPLE}/{number}").text


def test_a_pause_is_shown_while_it_lasts(local_world: World, editor: Browser) -> None:
    local_world.subscribe("ada")
    with local_world.database.write() as session:
        session.exec(select(Subscriber)).one().paused_until = local_world.clock() + timedelta(weeks=1)
    page = f"{PEOPLE}/{person(local_world, 'ada@example.com').id}"
    assert "Paused until" in editor.get(page).text
    local_world.clock.at += timedelta(weeks=2)
    # Whoever was away for so long signs in again.
    assert "Paused until" not in editor.sign_in(ED).get(page).text
