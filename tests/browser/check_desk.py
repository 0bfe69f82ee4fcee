"""The desk in a real browser, with scripts and without: a week from draft to sent, two editors at once, and what is kept."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Route, expect

from pipeline import edit, gate
from pipeline import publish as route
from pipeline.issue import Draft, Story
from pipeline.ledger import Report
from pipeline.web.public import public_app
from subscribers import roll
from tests.browser.street import OURS, House, Street, Visit, build_house, visiting
from tests.conftest import FRIDAY, WEEK, World, build_world, write_feed
from tests.test_door import ED
from tests.test_staff import CHEAP, CHIEF, GOOD

TESTER = "tester@example.com"
DESK = "/newsroom/desk/2026-11-27"
IS_SAVED = """([selector, text]) => {
  const field = document.querySelector(selector);
  return field.form.elements[`was_${field.name}`].value === text;
}"""
LAST_WORDS = "Because it is the last thing that was written."


def furnished(house: House) -> House:
    """A house with a week of stories, a reader, and somebody to send tests to, a day before its slot."""
    world = house.world
    own = world.newsroom.config.newsletter.model_copy(update={"test_addresses": (TESTER,)})
    world.newsroom = replace(world.newsroom, config=replace(world.newsroom.config, newsletter=own))
    world.clock.at = FRIDAY - timedelta(hours=20)
    world.tell_a_week(7)
    world.subscribe("ada")
    return House(world, public_app(world.newsroom, CHEAP), house.url)


@pytest.fixture
def week(road: Street, tmp_path: Path, empty: bytes) -> Iterator[House]:
    made = furnished(build_house(tmp_path, empty))
    with road.home(OURS, made.app):
        yield made
    made.world.database.engine.dispose()


@pytest.fixture
def editor(chromium: Browser, week: House) -> Iterator[Visit]:
    with visiting(chromium, week, viewport={"width": 1280, "height": 900}) as made:
        yield made.sign_in().go(DESK)


@pytest.fixture(params=[True, False], ids=["scripts", "no-scripts"])
def either(chromium: Browser, week: House, request: pytest.FixtureRequest) -> Iterator[Visit]:
    with visiting(chromium, week, scripts=request.param) as made:
        yield made.sign_in().go(DESK)


def draft(week: House) -> Draft:
    return route.draft(week.world.newsroom, week.world.slot)


def titles(week: House) -> list[str]:
    return [line.title for line in draft(week).issue.lines]


def state(week: House) -> str:
    return gate.standing(week.world.newsroom, week.world.slot).state


def write(visit: Visit, field: str, text: str) -> None:
    """Write into a field of the desk, and wait until it is saved, by itself or by the button."""
    visit.page.locator(field).fill(text)
    if visit.scripts:
        visit.page.wait_for_function(IS_SAVED, arg=[field, text])
        return
    with visit.page.expect_navigation():
        visit.page.locator("form", has=visit.page.locator(field)).get_by_role("button", name="Save").click()


def press(visit: Visit, selector: str) -> None:
    with visit.page.expect_navigation():
        visit.page.locator(selector).click()


def explain(visit: Visit, summary: str, button: str) -> None:
    """Open what asks once more, and press the button in it."""
    visit.page.locator("summary", has_text=re.compile(f"^{summary}$")).click()
    visit.press(button)


@dataclass
class Office:
    """The server as it is run, which can be killed and started again."""

    house: House
    command: list[str]
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> None:
        self.process = subprocess.Popen([*self.command, "serve"], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        while "Public pages" not in (line := self.process.stdout.readline()):
            assert line, "the server has not started"

    def crash(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.communicate(timeout=60)


@contextmanager
def office(folder: Path, empty: bytes) -> Iterator[Office]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    (folder / "friday.db").write_bytes(empty)
    world = build_world(folder, f"sqlite:///{folder}/friday.db")
    now = datetime.now(UTC)
    world.newsroom = replace(world.newsroom, now=lambda: datetime.now(UTC))
    tell(world, now)
    with world.database.write() as session:
        roll.add(session, "ada@example.com", now)
    file = folder / "config.toml"
    text = file.read_text("utf-8").replace("https://news.example.com", url)
    text = text.replace("[schedule]", f'test_addresses = ["{TESTER}"]\n\n[schedule]', 1)
    file.write_text(f"{text}\n[web]\nport = {port}\n", "utf-8")
    friday = [sys.executable, "-m", "pipeline", "--config", str(file)]
    subprocess.run([*friday, "admin", "add", CHIEF, "--password-stdin"], input=GOOD, text=True, check=True, capture_output=True)
    made = Office(House(world, FastAPI(), url), friday)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        world.database.engine.dispose()


def tell(world: World, now: datetime) -> None:
    stories = [
        Story(f"https://wire.example/{place}", title, "Wire", now - timedelta(minutes=5 + place), summary)
        for place, (title, summary) in enumerate(WEEK)
    ]
    write_feed(world.folder / "wire.json", *stories)


def until(what: Callable[[], object]) -> None:
    ends = time.monotonic() + 90
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_a_week_goes_from_draft_to_sent_though_the_server_dies_in_between(
    tmp_path: Path, empty: bytes, chromium: Browser, *, scripts: bool
) -> None:
    with office(tmp_path, empty) as served, visiting(chromium, served.house, scripts=scripts) as visit:
        newsroom = served.house.world.newsroom
        slot = newsroom.schedule.next(datetime.now(UTC))
        until(lambda: route.draft(newsroom, slot).selection.stories)
        visit.sign_in().go(f"/newsroom/desk/{slot.name}")
        first, second, *_ = [line.title for line in route.draft(newsroom, slot).issue.lines]
        write(visit, "#s2-why", LAST_WORDS)
        served.crash()
        served.start()
        visit.go(f"/newsroom/desk/{slot.name}")
        expect(visit.page.locator("#s2-why")).to_have_value(LAST_WORDS)
        press(visit, "#s2 [value=up]")
        expect(visit.page.locator("#s1-title")).to_have_value(second)
        write(visit, "#subject", "What to know this week")
        visit.press("Approve").sees("You approved.")
        frozen = route.report(newsroom, slot)
        assert (frozen.state, frozen.subject) == ("approved", "What to know this week")
        explain(visit, "Send it now", "Yes, send it now")
        visit.sees("You had it sent.")
        until(lambda: route.report(newsroom, slot).state == "sent")
        visit.go(f"/newsroom/desk/{slot.name}").sees("Sent")
        (mail,) = served.house.unread()
        text = mail.get_body(("plain",))
        assert text
        assert mail["Subject"] == "What to know this week"
        printed = " ".join(text.get_content().split())
        # A browser complains of a server that dies.
        visit.complaints = [each for each in visit.complaints if "ERR_CONNECTION_" not in each]
        assert printed.index(f"1. {second}") < printed.index(LAST_WORDS) < printed.index(f"2. {first}")


def test_stories_are_moved_swapped_dropped_pinned_and_brought_back(either: Visit, week: House) -> None:
    a, b, c, d, e = titles(week)
    press(either, "#s5 [value=up]")
    assert titles(week) == [a, b, c, e, d]
    press(either, "#s1 [value=down]")
    assert titles(week) == [b, a, c, e, d]
    press(either, "#s2 [value=drop]")
    assert titles(week)[:4] == [b, c, e, d]
    assert a not in titles(week)
    dropped = either.page.locator("#runners-up li", has_text=a)
    expect(dropped).to_contain_text("taken out")
    dropped.locator("select").select_option(index=1)
    with either.page.expect_navigation():
        dropped.get_by_role("button").click()
    assert titles(week)[:4] == [a, c, e, d]
    either.press("Take the last change back")
    assert titles(week)[:4] == [b, c, e, d]
    assert either.page.locator(".undone").count() == 1


def test_words_are_written_and_go_back_to_their_own(either: Visit, week: House) -> None:
    own = titles(week)[2]
    write(either, "#s3-title", "A better title")
    write(either, "#note", "Read *this* first.")
    issue = draft(week).issue
    assert (issue.lines[2].title, issue.note) == ("A better title", "Read *this* first.")
    either.go(DESK)
    either.page.locator("#s3").get_by_role("button", name="Back to the source’s words").click()
    expect(either.page.locator("#s3-title")).to_have_value(own)
    assert titles(week)[2] == own


def test_another_term_is_taken_and_left_to_the_machine_again(either: Visit, week: House) -> None:
    first = draft(week).selection.term
    press(either, "#term .row button")
    second = draft(week).selection.term
    assert first
    assert second
    assert first.term != second.term
    either.press("Leave it to the machine")
    assert draft(week).selection.term == first


def test_what_is_approved_is_not_changed_before_it_is_reopened(either: Visit, week: House) -> None:
    either.press("Approve").sees("You approved.")
    assert state(week) == "approved"
    assert either.page.locator(".card").count() == 0
    either.press("Reopen to change it").sees("You reopened.")
    assert (state(week), either.page.locator(".card").count()) == ("open", 5)


def test_what_was_not_seen_is_not_approved(either: Visit, week: House) -> None:
    gate_keeper = edit_elsewhere(week)
    gate_keeper.head("subject", "Written meanwhile")
    either.press("Approve").sees("has changed since you looked at it")
    assert (either.status, state(week)) == (409, "open")
    either.press("Approve")
    assert route.report(week.world.newsroom, week.world.slot).subject == "Written meanwhile"


def edit_elsewhere(week: House) -> edit.Desk:
    return edit.Desk(week.world.newsroom, week.world.slot, ED)


def test_a_slot_is_held_let_go_skipped_and_opened_again(either: Visit, week: House) -> None:
    either.page.locator("summary", has_text="Hold").click()
    either.page.locator("#why-hold").fill("The lawyers read it")
    either.press("Hold it").sees("Held by").sees("The lawyers read it")
    assert state(week) == "held"
    either.press("Approve")
    assert state(week) == "approved"
    explain(either, "Skip this slot", "Yes, no issue this time")
    assert state(week) == "skipped"
    either.press("Open it again")
    assert state(week) == "open"


def test_a_test_copy_comes_marked_and_its_link_changes_nothing(either: Visit, week: House) -> None:
    explain(either, "Send a test", "Send the test")
    either.sees(f"The test is on its way to {CHIEF}.")
    (mail,) = week.mails()
    assert (mail["To"], mail["Subject"]) == (CHIEF, f"[TEST] {draft(week).issue.subject}")
    either.go(leave_link(mail)).reads("This was a test")
    assert (state(week), week.person("ada@example.com") is not None) == ("open", True)


def leave_link(mail: EmailMessage) -> str:
    return str(re.findall(r"<(https://[^>]+/u/[^>]+)>", mail["List-Unsubscribe"])[0])


def test_two_who_write_the_same_are_told_of_each_other(either: Visit, week: House) -> None:
    edit_elsewhere(week).head("subject", "Theirs")
    either.page.locator("#subject").fill("Mine")
    if either.scripts:
        expect(either.page.locator("#head .trouble")).to_contain_text("It says now: “Theirs”")
        assert draft(week).issue.subject == "Theirs"
        either.page.get_by_role("button", name="Write mine over it").click()
        either.page.wait_for_function(IS_SAVED, arg=["#subject", "Mine"])
        # Chromium calls it an error of the page that somebody else was there first.
        either.complaints = [each for each in either.complaints if "409 (Conflict)" not in each]
    else:
        either.page.locator("#head").get_by_role("button", name="Save").click()
        either.reads("Twice at once").sees("Theirs").sees("Mine")
        assert draft(week).issue.subject == "Theirs"
        either.press("Write mine over it")
    assert draft(week).issue.subject == "Mine"


def test_two_who_write_different_things_do_not_stand_in_each_others_way(either: Visit, week: House) -> None:
    edit_elsewhere(week).head("preheader", "Theirs")
    write(either, "#subject", "Mine")
    assert (draft(week).issue.subject, draft(week).issue.preheader) == ("Mine", "Theirs")


def test_whoever_has_saved_something_else_meanwhile_is_told_of_it_still(editor: Visit, week: House) -> None:
    edit_elsewhere(week).head("subject", "Theirs")
    write(editor, "#preheader", "Mine")
    expect(editor.page.locator("#saving")).to_have_text("Saved.")
    editor.page.locator("#subject").fill("Mine too")
    expect(editor.page.locator("#head .trouble")).to_contain_text("It says now: “Theirs”")
    assert draft(week).issue.subject == "Theirs"
    editor.page.get_by_role("button", name="Keep theirs").click()
    editor.page.wait_for_load_state()
    editor.complaints.clear()


def test_what_others_did_since_the_page_was_loaded_is_looked_at_before_it_is_approved(editor: Visit, week: House) -> None:
    edit_elsewhere(week).head("subject", "Theirs")
    write(editor, "#preheader", "Mine")
    expect(editor.page.locator("#saving")).to_have_text("Saved.")
    editor.press("Approve").sees("has changed since you looked at it")
    assert (editor.status, state(week)) == (409, "open")
    editor.complaints.clear()


def test_who_else_is_at_the_desk_and_what_they_did_is_told(editor: Visit, week: House, chromium: Browser) -> None:
    with visiting(chromium, week) as other:
        other.sign_in(ED).go(DESK)
        expect(editor.page.locator("#here")).to_contain_text(f"{ED} is at this desk too", timeout=20_000)
        write(other, "#s1-summary", "Other lines")
        expect(editor.page.locator("#others")).to_contain_text(ED, timeout=20_000)


def test_what_could_not_be_saved_is_kept_here_and_tried_again(editor: Visit, week: House) -> None:
    def cut(cut_off: Route) -> None:
        cut_off.abort("connectionfailed")

    editor.page.route("**/change", cut)
    editor.page.locator("#s1-why").fill("Not lost")
    expect(editor.page.locator("#saving")).to_contain_text("Not saved yet")
    editor.page.unroute("**/change", cut)
    expect(editor.page.locator("#saving")).to_have_text("Saved.")
    assert draft(week).issue.lines[0].why == "Not lost"
    editor.complaints.clear()


def test_what_was_written_when_the_tab_was_closed_is_saved_at_once_or_by_the_next_visit(editor: Visit, week: House) -> None:
    editor.page.locator("#s1-why").fill("Written at the last moment")
    context = editor.page.context
    editor.page.close(run_before_unload=True)
    until(lambda: draft(week).issue.lines[0].why == "Written at the last moment")
    editor.page = context.new_page()
    editor.go(DESK)
    editor.page.context.route("**/change", lambda cut_off: cut_off.abort("connectionfailed"))
    editor.page.locator("#s2-why").fill("Written while the line was cut")
    expect(editor.page.locator("#saving")).to_contain_text("Not saved yet")
    editor.page.close()
    editor.page = context.new_page()
    context.unroute_all(behavior="ignoreErrors")
    editor.go(DESK)
    until(lambda: draft(week).issue.lines[1].why == "Written while the line was cut")
    editor.complaints.clear()


def test_what_is_written_is_saved_before_anything_else_is_pressed(editor: Visit, week: House) -> None:
    editor.page.locator("#s1-why").fill("Typed and pressed at once")
    press(editor, "#s1 [value=down]")
    assert draft(week).issue.lines[1].why == "Typed and pressed at once"


def test_a_story_is_dragged_to_another_place_and_moved_by_the_keyboard(editor: Visit, week: House) -> None:
    a, b, c, d, e = titles(week)
    # Nothing scrolls by itself while it is a script that drags.
    editor.page.set_viewport_size({"width": 1280, "height": 2_600})
    with editor.page.expect_navigation():
        drag(editor, "#s1 .number", "#s3 .bar")
    assert titles(week) == [b, c, a, d, e]
    editor.page.locator("#s3-title").focus()
    with editor.page.expect_navigation():
        editor.page.keyboard.press("Alt+ArrowUp")
    assert titles(week) == [b, a, c, d, e]
    with editor.page.expect_navigation():
        editor.page.locator("#s2-to").select_option("5")
    assert titles(week) == [b, c, d, e, a]
    with editor.page.expect_navigation():
        editor.page.locator("#s5-to").select_option("2")
    assert titles(week) == [b, a, c, d, e]
    expect(editor.page.locator("#s2-to")).to_be_focused()


def drag(visit: Visit, what: str, where: str) -> None:
    """Browsers let nothing drop where it has not been for two moves of the mouse."""
    visit.page.locator(what).hover()
    visit.page.mouse.down()
    visit.page.locator(where).hover()
    visit.page.locator(where).hover(position={"x": 8, "y": 8})
    visit.page.mouse.up()


def test_the_desk_is_worked_by_the_keyboard_alone(editor: Visit, week: House) -> None:
    editor.tab_to(editor.page.get_by_role("button", name="Approve"))
    with editor.page.expect_navigation():
        editor.page.keyboard.press("Enter")
    assert state(week) == "approved"


def test_a_missed_slot_is_sent_late_by_who_says_so(either: Visit, week: House) -> None:
    world = week.world
    gate.tend(world.newsroom)
    world.clock.at = FRIDAY + timedelta(hours=7)
    gate.tend(world.newsroom)
    either.sign_in().go(DESK).sees("Nothing goes out late by itself")
    either.press("Approve")
    explain(either, "Send it now", "Yes, send it now")
    sent: Report | None = gate.tend(world.newsroom)
    assert sent
    assert (sent.state, sent.counts["accepted"]) == ("sent", 1)
