"""The desk in a real browser, with scripts and without: a week from draft to sent, two editors at once, and what is kept."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, expect

from pipeline import gate
from pipeline import publish as route
from pipeline.issue import Story
from pipeline.ledger import Report
from subscribers import roll
from tests.browser.desk import DESK, TESTER, draft, edit_elsewhere, explain, press, state, titles, until, write
from tests.browser.street import House, Visit, visiting
from tests.conftest import FRIDAY, WEEK, World, build_world, write_feed
from tests.test_staff import CHIEF, GOOD

LAST_WORDS = "Because it is the last thing that was written."


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
        visit.forgives("net::ERR_")
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


def test_a_story_is_dragged_to_another_place_and_moved_by_the_keyboard(editor: Visit, week: House) -> None:
    a, b, c, d, e = titles(week)
    # Nothing scrolls by itself while it is a script that drags.
    editor.page.set_viewport_size({"width": 1280, "height": 2_600})
    with editor.page.expect_navigation():
        drag(editor, "#s1 .number", "#s3 .bar")
    assert titles(week) == [b, c, a, d, e]
    editor.page.locator("#s3 .number").focus()
    with editor.page.expect_navigation():
        editor.page.keyboard.press("Alt+ArrowUp")
    assert titles(week) == [b, a, c, d, e]
    expect(editor.page.get_by_role("button", name="Story 2: drag it, or press Alt with the arrows")).to_be_focused()
    with editor.page.expect_navigation():
        editor.page.keyboard.press("Alt+ArrowDown")
    assert titles(week) == [b, c, a, d, e]
    press(editor, "#s3 [value=up]")
    expect(editor.page.locator("#s2 [value=up]")).to_be_focused()
    press(editor, "#s2 [value=up]")
    assert titles(week) == [a, b, c, d, e]
    expect(editor.page.locator("#s1 .number")).to_be_focused()


def test_the_arrows_belong_to_the_field_that_one_is_in(editor: Visit, week: House) -> None:
    before = titles(week)
    editor.page.locator("#s3 .number").focus()
    editor.page.keyboard.press("Enter")
    expect(editor.page.locator("#s3-to")).to_be_focused()
    for field in ("#s3-title", "#s3-to", "#s3-summary"):
        editor.page.locator(field).focus()
        for key in ("Alt+ArrowUp", "Alt+ArrowDown", "Escape"):
            editor.page.keyboard.press(key)
    editor.page.locator("#s3-to").focus()
    editor.page.keyboard.press("ArrowDown")
    editor.page.wait_for_timeout(500)
    assert titles(week) == before
    expect(editor.page.locator("#s3-to")).to_have_value("4")
    press(editor, "#s3 [value=move]")
    a, b, c, d, e = before
    assert titles(week) == [a, b, d, c, e]
    expect(editor.page.locator("#s4 [value=move]")).to_be_focused()


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
