"""What readers and admins do, in a real browser, with scripts and without: by what they see, and by what is kept of it."""

import csv
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, expect
from sqlmodel import select

from pipeline import admit
from pipeline import publish as route
from subscribers import history
from subscribers.models import Change, Consent, State, Suppression
from tests.browser.street import BLOG, OURS, House, Street, Visit, link_in, plain_page, settle_people, slow_import, visiting
from tests.conftest import build_world
from tests.test_staff import CHIEF, GOOD

ADA = "ada@example.com"
PEOPLE = "/newsroom/people"


def happened(house: House, key: str = ADA) -> list[tuple[str, str]]:
    found = house.person(key)
    assert found
    with house.world.database.read() as session:
        return [(each.what, each.by) for each in history.of(session, found.id or 0)]


def sign_up(visit: Visit) -> EmailMessage:
    """Sign up by the form on the home page; the mail that asks for a confirmation."""
    visit.go("/")
    visit.house.wait()
    visit.fill(email=ADA)
    visit.field("Chips").check()
    visit.press("Sign up").reads("Look into your mailbox")
    (asked,) = visit.house.mails()
    assert asked["To"] == ADA
    return asked


def become_a_reader(visit: Visit) -> EmailMessage:
    """The same to its end: the mail of welcome."""
    visit.go(link_in(sign_up(visit), "c")).press("Yes, sign me up").reads("You are in")
    (welcome,) = visit.house.mails()
    return welcome


def test_a_reader_signs_up_confirms_and_is_welcomed(visit: Visit, house: House) -> None:
    link = link_in(sign_up(visit), "c")
    assert link.startswith(f"{OURS}/c/")
    found = house.person(ADA)
    assert found
    assert (found.state, house.mails()) == (State.PENDING, [])
    visit.go(link).reads("Was it you?").sees(admit.wording(house.world.newsroom))
    assert house.person(ADA) == found
    visit.press("Yes, sign me up").reads("You are in")
    (welcome,) = house.mails()
    assert (welcome["To"], welcome["Subject"]) == (ADA, "Welcome to The Test Five")
    found = house.person(ADA)
    assert found
    assert (found.state, house.marks(ADA)) == (State.ACTIVE, (("chips",), ()))
    with house.world.database.read() as session:
        (consent,) = session.exec(select(Consent)).all()
    assert consent.confirmed_at
    assert "Chrome/" in (consent.confirmed_agent or "")
    visit.follow("Topics, a pause, your time zone").reads("Your choice")
    expect(visit.field("Chips")).to_be_checked()


def test_a_mistyped_address_is_said_beside_the_field_and_nothing_is_lost(visit: Visit, house: House) -> None:
    visit.go("/subscribe")
    house.wait()
    visit.fill(email="ada@localhost")
    visit.field("Chips").check()
    visit.press("Sign up").sees("This is not a mail address")
    expect(visit.page.locator("[name=email]")).to_have_value("ada@localhost")
    expect(visit.page.locator("[name=email]")).to_have_accessible_description(re.compile("This is not a mail address"))
    expect(visit.field("Chips")).to_be_checked()
    house.wait()
    visit.fill(email=ADA).press("Sign up").reads("Look into your mailbox")
    assert len(house.mails()) == 1


def test_a_reader_chooses_topics_a_pause_and_a_language(visit: Visit, house: House) -> None:
    visit.go(link_in(become_a_reader(visit), "p")).reads("Your choice")
    visit.field("Chips").uncheck()
    visit.field("Policy and law").check()
    visit.field("Pause").select_option("For 2 weeks")
    visit.field("Language").select_option("de")
    visit.field("Time zone").select_option("Asia/Tokyo")
    visit.press("Save").sees("Saved.").sees("No issue is sent to you before 11 December 2026.")
    expect(visit.field("Language")).to_have_value("de")
    found = house.person(ADA)
    assert found
    assert (found.language, found.zone, house.marks(ADA)[0]) == ("de", "Asia/Tokyo", ("policy",))
    assert found.paused_until == house.world.clock() + timedelta(weeks=2)
    visit.field("Pause").select_option("No pause")
    visit.press("Save").sees("Saved.")
    found = house.person(ADA)
    assert found
    assert found.paused_until is None


def test_a_reader_leaves_with_one_click(visit: Visit, house: House) -> None:
    become_a_reader(visit)
    house.world.tell_a_week()
    route.publish(house.world.newsroom, house.world.slot)
    (issue,) = house.mails()
    link = link_in(issue, "u")
    assert f"<{link}>" in issue["List-Unsubscribe"]
    visit.go(link).reads("Leave The Test Five?")
    found = house.person(ADA)
    assert found
    assert found.state == State.ACTIVE
    visit.press("Unsubscribe").reads("You have left")
    found = house.person(ADA)
    assert found
    assert (found.state, happened(house)[-1]) == (State.UNSUBSCRIBED, ("left", "the reader"))
    visit.go(link).reads("You have left")
    visit.go(link.replace("/u/", "/p/")).sees("You have left, so no issues are sent to you.")
    expect(visit.page.get_by_role("button", name="Unsubscribe")).to_have_count(0)


def test_the_form_on_another_site_leads_to_one_click_on_ours(visit: Visit, house: House, road: Street) -> None:
    html = f"<!DOCTYPE html><html lang=en><title>A blog</title><h1>A blog</h1>{admit.snippet(house.world.newsroom)}"
    with road.home(BLOG, plain_page(html)):
        visit.go(BLOG).fill(email=ADA)
        visit.field("Chips").check()
        visit.press("Get The Test Five").reads("One more click")
    assert visit.page.url == f"{OURS}/subscribe"
    expect(visit.page.locator("[name=email]")).to_have_value(ADA)
    expect(visit.field("Chips")).to_be_checked()
    assert house.mails() == []
    house.wait()
    visit.press("Sign up").reads("Look into your mailbox")
    (asked,) = house.mails()
    visit.go(link_in(asked, "c")).press("Yes, sign me up").reads("You are in")
    assert house.marks(ADA)[0] == ("chips",)


def test_an_admin_finds_somebody_changes_suppresses_and_erases(visit: Visit, house: House) -> None:
    settle_people(house)
    visit.sign_in().follow("People").sees("5 people")
    visit.fill(text="lovel").press("Find").sees("1 found")
    assert visit.page.url == f"{OURS}{PEOPLE}/search"
    visit.follow(ADA).reads(ADA)
    visit.fill(name="Ada, Countess of Lovelace", tags="early vip")
    visit.field("Policy and law").uncheck()
    visit.press("Save").sees("Saved.")
    found = house.person(ADA)
    assert found
    assert (found.name, house.marks(ADA)) == ("Ada, Countess of Lovelace", (("chips",), ("early", "vip")))
    visit.fill(note="wrote to us").press("Suppress").sees("Suppressed: no mail goes there any more.").sees("wrote to us")
    with house.world.database.read() as session:
        assert session.get_one(Suppression, ADA).note == "wrote to us"
    assert happened(house)[-1] == ("suppressed", CHIEF)
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name="All that is held, as JSON").click()
    assert json.loads(download.value.path().read_text("utf-8"))["subscriber"]["address"] == ADA
    visit.fill(typed="ben@example.com").press("Erase").sees("Type the person's address as it stands above")
    assert house.person(ADA)
    visit.fill(typed=ADA).press("Erase").sees("Erased. Nothing of this person is left but a keyed hash.").sees("4 people")
    assert house.person(ADA) is None
    visit.fill(text="ada@").press("Find").sees("Nobody is found by that.")


def test_an_admin_adds_somebody_who_agreed_on_paper(visit: Visit, house: House) -> None:
    visit.sign_in().go(PEOPLE).sees("Nobody is on the roll yet.").follow("Add").reads("Add a person")
    visit.fill(address="ada@localhost", name="Ada", tags="vip", consent="on paper at the fair").press("Add")
    visit.sees("Not a mail address")
    expect(visit.page.locator("[name=consent]")).to_have_value("on paper at the fair")
    visit.fill(address=ADA).press("Add").sees("Added.").reads(ADA)
    found = house.person(ADA)
    assert found
    assert (found.state, found.source, house.marks(ADA)[1]) == (State.ACTIVE, "newsroom: on paper at the fair", ("vip",))
    visit.press("Unsubscribe").sees("Unsubscribed.")
    assert happened(house)[-1] == ("left", CHIEF)


def test_an_admin_imports_after_a_look_and_exports(visit: Visit, house: House, tmp_path: Path) -> None:
    settle_people(house)
    file = tmp_path / "people.csv"
    file.write_text("email,name,tags\ndora@example.com,Dora,vip\nno address,Nobody,\neve@example.com,Eve,\n", "utf-8")
    visit.sign_in().go(PEOPLE).follow("Import").reads("Import people")
    visit.field("The file").set_input_files(file)
    see_it_over(visit.press("Look at it")).sees("Nothing is written yet.").sees("Line 3")
    assert house.person("dora@example.com") is None
    see_it_over(visit.press("Bring them in")).sees("Done:")
    dora = house.person("dora@example.com")
    assert dora
    assert (dora.name, dora.state, house.marks("dora@example.com")[1]) == ("Dora", State.ACTIVE, ("vip",))
    visit.follow("See the people").sees("7 people")
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name="Export CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig"))))
    assert {row["address"] for row in rows} >= {"dora@example.com", "eve@example.com", ADA}


def test_an_import_that_takes_long_says_how_far_it_is(
    visit: Visit, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("email\ndora@example.com\n", "utf-8")
    with slow_import(monkeypatch) as goes_on:
        visit.sign_in().go(f"{PEOPLE}/import")
        visit.field("The file").set_input_files(file)
        visit.press("Look at it").sees("Looking at people.csv: 400 of 1,000 lines.")
        expect(visit.page.get_by_role("progressbar", name="How far the import is")).to_be_visible()
        visit.follow("See how far it is").sees("400 of 1,000 lines.")
        goes_on.set()
        see_it_over(visit).sees("Nothing is written yet.")
    assert house.person("dora@example.com") is None


def see_it_over(visit: Visit) -> Visit:
    """Wait until an import is over: the script of its page sees to it, and without scripts its link does."""
    for _ in range(200):
        if visit.scripts or not visit.page.get_by_role("progressbar").count():
            break
        visit.follow("See how far it is")
    expect(visit.page.get_by_role("progressbar")).to_have_count(0)
    return visit


def test_an_admin_narrows_the_list_and_changes_many_at_once(visit: Visit, house: House) -> None:
    settle_people(house)
    visit.sign_in().go(PEOPLE)
    for name in (ADA, "ben@example.com"):
        visit.page.get_by_role("checkbox", name=f"Choose {name}").check()
    visit.page.get_by_label("Tag", exact=True).last.fill("early")
    visit.press("Add the tag").sees("Done. It stands in the history of each of them.")
    assert (house.marks(ADA)[1], house.marks("ben@example.com")[1]) == (("early", "vip"), ("early",))
    assert house.marks("cleo@example.org")[1] == ()
    visit.page.get_by_text("Narrow the list").click()
    visit.field("Segment").fill("tag:early and not topic:chips")
    visit.press("Show").sees("1 person")
    expect(visit.page.locator(".who a")).to_have_text(["ben@example.com"])
    visit.field("Segment").fill("tagg:early")
    visit.press("Show").sees("did you mean")
    visit.follow("All").sees("5 people")
    visit.press("Add the tag").reads("Nobody is chosen")
    with house.world.database.read() as session:
        assert [each.by for each in session.exec(select(Change).where(Change.by == CHIEF)).all()] == [CHIEF] * 2


def test_all_on_a_page_are_ticked_at_once_where_scripts_run(visit: Visit, house: House) -> None:
    settle_people(house)
    visit.sign_in().go(PEOPLE)
    everybody = visit.page.get_by_label("Tick all on this page")
    boxes = visit.page.locator("[name=ids]")
    if not visit.scripts:
        expect(everybody).to_be_hidden()
        return
    everybody.check()
    for number in range(5):
        expect(boxes.nth(number)).to_be_checked()
    boxes.first.uncheck()
    expect(everybody).to_be_checked(indeterminate=True)
    boxes.first.check()
    expect(everybody).to_be_checked()
    everybody.uncheck()
    visit.press("Add the tag").reads("Nobody is chosen")


def test_who_signs_out_is_out_and_comes_back_to_where_the_way_led(visit: Visit) -> None:
    visit.go(PEOPLE).reads("Sign in")
    visit.fill(address=CHIEF, password="no such password here").press("Sign in")  # noqa: S106 - a wrong one
    visit.sees("The address or the password is wrong.")
    expect(visit.page.locator("[name=address]")).to_have_value(CHIEF)
    visit.fill(password=GOOD).press("Sign in").reads("People")
    (cookie,) = visit.page.context.cookies()
    assert cookie["name"] == "__Host-friday"
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
    visit.press("Sign out").reads("Sign in")
    assert {each["name"] for each in visit.page.context.cookies()} == {"__Host-friday-door"}
    visit.go("/newsroom").reads("Sign in")
    visit.page.go_back()
    visit.reads("Sign in")


def test_signing_up_and_leaving_need_no_mouse(visit: Visit, house: House) -> None:
    keys = visit.page.keyboard
    visit.go("/")
    house.wait()
    visit.tab_to(visit.page.locator("[name=email]"))
    keys.type(ADA)
    visit.tab_to(visit.field("Chips"))
    keys.press("Space")
    visit.tab_to(visit.page.get_by_role("button", name="Sign up"))
    keys.press("Enter")
    visit.reads("Look into your mailbox")
    (asked,) = house.mails()
    visit.go(link_in(asked, "c")).tab_to(visit.page.get_by_role("button", name="Yes, sign me up"))
    keys.press("Enter")
    visit.reads("You are in")
    (welcome,) = house.mails()
    visit.go(link_in(welcome, "u")).tab_to(visit.page.get_by_role("button", name="Unsubscribe"))
    keys.press("Enter")
    visit.reads("You have left")


def test_finding_somebody_needs_no_mouse(visit: Visit, house: House) -> None:
    settle_people(house)
    keys = visit.page.keyboard
    visit.go("/newsroom/sign-in")
    expect(visit.field("Mail address")).to_be_focused()
    keys.type(CHIEF)
    visit.tab_to(visit.field("Password"))
    keys.type(GOOD)
    keys.press("Enter")
    visit.sees("The next issue").tab_to(visit.page.get_by_role("link", name="Skip to the page"))
    visit.tab_to(visit.page.get_by_role("link", name="People", exact=True))
    keys.press("Enter")
    visit.reads("People").tab_to(visit.page.get_by_role("searchbox"))
    keys.type("lovel")
    keys.press("Enter")
    visit.sees("1 found").tab_to(visit.page.get_by_role("link", name=ADA))
    keys.press("Enter")
    visit.reads(ADA).tab_to(visit.page.get_by_role("button", name="Suppress"))
    keys.press("Enter")
    visit.sees("Suppressed: no mail goes there any more.")


# The whole of it once more as it is run: `friday serve` in a process, with its own clock, in the clear on loopback.


@pytest.fixture
def served(tmp_path: Path, empty: bytes) -> Iterator[House]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    (tmp_path / "friday.db").write_bytes(empty)
    world = build_world(tmp_path, f"sqlite:///{tmp_path}/friday.db")
    file = tmp_path / "config.toml"
    file.write_text(file.read_text("utf-8").replace("https://news.example.com", url), "utf-8")
    friday = [sys.executable, "-m", "pipeline", "--config", str(file)]
    subprocess.run([*friday, "admin", "add", CHIEF, "--password-stdin"], input=GOOD, text=True, check=True, capture_output=True)
    with subprocess.Popen([*friday, "serve", "--port", str(port)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert "Public pages" in process.stdout.readline()
        yield House(world, FastAPI(), url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    world.database.engine.dispose()


def comes(house: House) -> EmailMessage:
    """The next mail in the outbox, which the clock of the server fills."""
    deadline = time.monotonic() + 15
    while not (come := house.unread()):
        assert time.monotonic() < deadline, "no mail has come"
        time.sleep(0.05)
    (mail,) = come
    return mail


def test_the_server_as_it_is_run_signs_somebody_up_and_lets_them_be_erased(served: House, chromium: Browser) -> None:
    with visiting(chromium, served) as reader, visiting(chromium, served) as admin:
        reader.go("/subscribe").fill(email=ADA)
        admin.sign_in()
        (cookie,) = admin.page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"]) == ("friday", True)
        # Who is quicker than two seconds is asked for one click more, and may need it.
        reader.press("Sign up")
        expect(reader.page.get_by_role("heading", level=1)).to_have_text(re.compile("One more click|Look into your mailbox"))
        if reader.page.get_by_role("button", name="Sign up").count():
            reader.page.wait_for_timeout(2_100)
            reader.press("Sign up")
        reader.reads("Look into your mailbox").go(link_in(comes(served), "c"))
        reader.press("Yes, sign me up").reads("You are in")
        link = link_in(comes(served), "u")
        admin.go(PEOPLE).sees("1 person").follow(ADA).sees("confirmed")
        reader.go(link).press("Unsubscribe").reads("You have left")
        admin.page.reload()
        admin.sees("Unsubscribed since").fill(typed=ADA).press("Erase").sees("Erased.")
        assert served.person(ADA) is None
        reader.go(link).reads("This link is not known")
        assert served.unread() == []
        assert not list(served.world.folder.glob("outbox/**/*.eml"))
