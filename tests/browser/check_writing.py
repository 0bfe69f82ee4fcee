"""Writing at the desk in a real browser: it is saved by itself, nothing is lost, and two editors are told of each other."""

from playwright.sync_api import Browser, Route, expect

from tests.browser.desk import DESK, IS_SAVED, draft, edit_elsewhere, press, state, until, write
from tests.browser.street import House, Visit, visiting
from tests.test_door import ED


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
