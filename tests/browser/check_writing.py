"""Writing at the desk in a real browser: it is saved by itself, nothing is lost, and two editors are told of each other."""

import pytest
from playwright.sync_api import Browser, Route, expect

from pipeline import edit
from tests.browser.desk import DESK, IS_SAVED, TESTER, draft, edit_elsewhere, press, state, titles, until, write
from tests.browser.street import House, Visit, visiting
from tests.test_door import ED

CONFLICT, SIGNED_OUT, TOO_OLD, CUT = "409 (Conflict)", "401 (Unauthorized)", "403 (Forbidden)", "ERR_CONNECTION_FAILED"


def cut(cut_off: Route) -> None:
    cut_off.abort("connectionfailed")


def first_page(week: House) -> str:
    return edit.line_up(draft(week))[0]


def test_two_who_write_the_same_are_told_of_each_other(either: Visit, week: House) -> None:
    edit_elsewhere(week).head("subject", "Theirs")
    either.page.locator("#subject").fill("Mine")
    if either.scripts:
        expect(either.page.locator("#head .trouble")).to_contain_text("It says now: “Theirs”")
        assert draft(week).issue.subject == "Theirs"
        either.page.get_by_role("button", name="Write mine over it").click()
        either.page.wait_for_function(IS_SAVED, arg=["#subject", "Mine"])
        # Chromium calls it an error of the page that somebody else was there first.
        either.forgives(CONFLICT)
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
    editor.page.get_by_role("button", name="Keep theirs").click(delay=300)
    expect(editor.page.locator("#head .trouble")).to_have_count(0)
    expect(editor.page.locator("#subject")).to_have_value("Theirs")
    assert (draft(week).issue.subject, draft(week).issue.preheader) == ("Theirs", "Mine")
    editor.forgives(CONFLICT)


def test_what_others_did_since_the_page_was_loaded_is_looked_at_before_it_is_approved(editor: Visit, week: House) -> None:
    edit_elsewhere(week).head("subject", "Theirs")
    write(editor, "#preheader", "Mine")
    expect(editor.page.locator("#saving")).to_have_text("Saved.")
    editor.press("Approve").sees("has changed since you looked at it")
    assert (editor.status, state(week)) == (409, "open")
    editor.forgives(CONFLICT)


def test_who_else_is_at_the_desk_and_what_they_did_is_told(editor: Visit, week: House, chromium: Browser) -> None:
    with visiting(chromium, week) as other:
        other.sign_in(ED).go(DESK)
        expect(editor.page.locator("#here")).to_contain_text(f"{ED} is at this desk too", timeout=20_000)
        write(other, "#s1-summary", "Other lines")
        expect(editor.page.locator("#others")).to_contain_text(ED, timeout=20_000)


def test_what_could_not_be_saved_is_kept_here_and_tried_again(editor: Visit, week: House) -> None:
    editor.page.route("**/change", cut)
    editor.page.locator("#s1-why").fill("Not lost")
    expect(editor.page.locator("#saving")).to_contain_text("Not saved yet")
    editor.page.unroute("**/change", cut)
    expect(editor.page.locator("#saving")).to_have_text("Saved.")
    assert draft(week).issue.lines[0].why == "Not lost"
    editor.forgives(CUT)


def test_what_was_written_when_the_tab_was_closed_is_saved_at_once_or_by_the_next_visit(editor: Visit, week: House) -> None:
    editor.page.locator("#s1-why").fill("Written at the last moment")
    context = editor.page.context
    editor.page.close(run_before_unload=True)
    until(lambda: draft(week).issue.lines[0].why == "Written at the last moment")
    editor.page = context.new_page()
    editor.go(DESK)
    editor.page.context.route("**/change", cut)
    editor.page.locator("#s2-why").fill("Written while the line was cut")
    expect(editor.page.locator("#saving")).to_contain_text("Not saved yet")
    editor.page.close()
    editor.page = context.new_page()
    context.unroute_all(behavior="ignoreErrors")
    editor.go(DESK)
    until(lambda: draft(week).issue.lines[1].why == "Written while the line was cut")
    editor.forgives(CUT)


def test_what_is_written_is_saved_before_anything_else_is_pressed(editor: Visit, week: House) -> None:
    editor.page.locator("#s1-why").fill("Typed and pressed at once")
    press(editor, "#s1 [value=down]")
    assert draft(week).issue.lines[1].why == "Typed and pressed at once"


def test_whoever_keeps_theirs_loses_nothing_else_that_was_written_there(either: Visit, week: House) -> None:
    edit_elsewhere(week).head("subject", "Theirs")
    either.page.locator("#note").fill("My note")
    either.page.locator("#preheader").fill("My preheader")
    either.page.locator("#subject").fill("Mine")
    if either.scripts:
        either.page.get_by_role("button", name="Keep theirs").click(delay=300)
        either.page.wait_for_function(IS_SAVED, arg=["#note", "My note"])
        expect(either.page.locator("#head .trouble")).to_have_count(0)
        expect(either.page.locator("#subject")).to_have_value("Theirs")
        either.forgives(CONFLICT)
    else:
        either.page.locator("#head").get_by_role("button", name="Save").click()
        either.reads("Twice at once").press("Keep theirs, save the rest")
    issue = draft(week).issue
    assert (issue.subject, issue.preheader, issue.note) == ("Theirs", "My preheader", "My note")


def test_whoever_keeps_what_went_back_to_its_own_words_has_them_too(editor: Visit, week: House) -> None:
    own, ed = draft(week).issue.subject, edit_elsewhere(week)
    ed.head("subject", "Theirs")
    ed.head("subject", None)
    editor.page.locator("#note").fill("My note")
    editor.page.locator("#subject").fill("Mine")
    editor.page.get_by_role("button", name="Keep theirs").click(delay=300)
    editor.page.wait_for_function(IS_SAVED, arg=["#note", "My note"])
    expect(editor.page.locator("#subject")).to_have_value(own)
    expect(editor.page.locator("#head .trouble")).to_have_count(0)
    assert (draft(week).issue.subject, draft(week).issue.note) == (own, "My note")
    editor.forgives(CONFLICT)


def test_nothing_is_saved_while_it_is_asked_whose_words_stay(editor: Visit, week: House) -> None:
    note = draft(week).issue.note
    edit_elsewhere(week).head("subject", "Theirs")
    editor.page.locator("#subject").fill("Mine")
    asked = editor.page.locator("#head .trouble")
    expect(asked).to_have_count(1)
    editor.page.locator("#note").fill("My note")
    editor.page.locator("#subject").fill("Mine, longer")
    editor.page.locator("#preheader").focus()
    editor.page.wait_for_timeout(1_500)
    expect(asked).to_have_count(1)
    editor.page.get_by_role("button", name="Approve").click()
    expect(editor.page.locator("#saving")).to_have_text("Say first whose words stay.")
    assert (draft(week).issue.subject, draft(week).issue.note) == ("Theirs", note)
    editor.page.get_by_role("button", name="Write mine over it").click(delay=300)
    editor.page.wait_for_function(IS_SAVED, arg=["#note", "My note"])
    expect(asked).to_have_count(0)
    assert (draft(week).issue.subject, draft(week).issue.note) == ("Mine, longer", "My note")
    editor.forgives(CONFLICT)


@pytest.mark.parametrize(("button", "stays"), [("Use it", "Mine, not saved"), ("Forget it", "Theirs")])
def test_what_was_kept_here_is_offered_though_another_wrote_there_meanwhile(
    editor: Visit, week: House, button: str, stays: str
) -> None:
    context = editor.page.context
    context.route("**/change", cut)
    editor.page.locator("#s1-why").fill("Mine, not saved")
    expect(editor.page.locator("#saving")).to_contain_text("Not saved yet")
    editor.page.close()
    context.unroute_all(behavior="ignoreErrors")
    edit_elsewhere(week).tell(first_page(week), "why", "Theirs")
    editor.page = context.new_page()
    editor.go(DESK)
    kept = editor.page.locator("#s1 .trouble")
    expect(kept).to_contain_text("You wrote this here and it was not saved: “Mine, not saved”")
    write(editor, "#s1-summary", "Another field of the same form")
    editor.go(DESK)
    expect(kept).to_contain_text("Mine, not saved")
    expect(editor.page.locator("#s1-why")).to_have_value("Theirs")
    editor.page.get_by_role("button", name=button).click(delay=300)
    editor.page.wait_for_function(IS_SAVED, arg=["#s1-why", stays])
    editor.go(DESK)
    expect(editor.page.locator("#s1-why")).to_have_value(stays)
    expect(kept).to_have_count(0)
    assert draft(week).issue.lines[0].why == stays
    editor.forgives(CUT)


def test_what_was_written_while_signed_out_is_saved_after_signing_in_on_another_page(editor: Visit, week: House) -> None:
    context = editor.page.context
    context.clear_cookies()
    editor.page.locator("#s1-why").fill("Written while signed out")
    expect(editor.page.locator("#saving")).to_contain_text("you are signed out")
    Visit(context.new_page(), week).sign_in()
    until(lambda: draft(week).issue.lines[0].why == "Written while signed out")
    expect(editor.page.locator("#saving")).to_have_text("Saved.")
    # Nor do news that come later wipe it away.
    for _ in range(2):
        with editor.page.expect_response("**/news?*", timeout=20_000):
            pass
    expect(editor.page.locator("#saving")).to_have_text("Saved.")
    editor.press("Approve")
    assert state(week) == "approved"
    editor.forgives(SIGNED_OUT, TOO_OLD)


def test_news_are_asked_for_again_after_signing_in_on_another_page(editor: Visit, week: House) -> None:
    context = editor.page.context
    context.clear_cookies()
    expect(editor.page.locator("#saving")).to_contain_text("You are signed out", timeout=20_000)
    Visit(context.new_page(), week).sign_in()
    edit_elsewhere(week).head("subject", "Theirs")
    expect(editor.page.locator("#others")).to_contain_text(ED, timeout=20_000)
    expect(editor.page.locator("#saving")).to_have_text("")
    editor.press("Approve")
    assert editor.status == 409
    editor.forgives(SIGNED_OUT)


def test_what_the_server_will_not_take_is_kept_here(editor: Visit, week: House) -> None:
    refusal = {"title": "This page is too old", "detail": "Load it again and repeat."}
    context = editor.page.context
    context.route("**/change", lambda refused: refused.fulfill(status=403, json=refusal))
    editor.page.locator("#s1-why").fill("Not lost")
    expect(editor.page.locator("#saving")).to_have_text("Load it again and repeat. What you wrote is kept here.")
    context.unroute_all(behavior="ignoreErrors")
    editor.go(DESK)
    until(lambda: draft(week).issue.lines[0].why == "Not lost")
    editor.forgives(TOO_OLD)


def test_what_follows_from_writing_in_a_story_is_shown_at_once(editor: Visit, week: House) -> None:
    card = editor.page.locator("#s2")
    expect(card.locator(".told strong")).to_have_count(0)
    write(editor, "#s2-title", "A better title")
    expect(card.locator(".told strong")).to_have_text("pinned")
    expect(card.get_by_role("button", name="Unpin 2")).to_be_visible()
    press(editor, "#s2 [value='own words']")
    assert titles(week)[1] != "A better title"


def test_what_somebody_has_opened_or_ticked_is_not_taken_away(editor: Visit, week: House) -> None:
    editor.page.locator("summary", has_text="Send a test").click()
    editor.page.get_by_role("checkbox", name=TESTER).check()
    editor.page.locator("summary", has_text="Hold").click()
    editor.page.locator("#why-hold").fill("The lawyers read it")
    write(editor, "#s2-title", "A better title")
    expect(editor.page.locator("#short")).to_contain_text("A better title")
    expect(editor.page.locator("#why-hold")).to_have_value("The lawyers read it")
    expect(editor.page.get_by_role("checkbox", name=TESTER)).to_be_checked()
    editor.press("Hold it").sees("The lawyers read it")
    assert state(week) == "held"


def test_the_issue_is_fetched_again_only_when_it_has_changed(editor: Visit, week: House) -> None:
    fetched: list[str] = []
    editor.page.on("request", lambda request: fetched.append(request.url) if request.url.endswith("/issue") else None)
    same = draft(week).issue.lines[0].title
    editor.page.locator("#s1-title").fill(f"{same}  ")
    expect(editor.page.locator("#saving")).to_have_text("Saved.")
    editor.page.wait_for_timeout(1_500)
    assert fetched == []
    write(editor, "#s1-title", "A better title")
    expect(editor.page.frame_locator("#sight").get_by_text("A better title").first).to_be_visible()
    assert len(fetched) == 1


# Safari, and Firefox on a Mac, give a button that is pressed no focus.
NO_FOCUS = "addEventListener('mousedown', (event) => event.target.closest('button') && event.preventDefault())"


def test_a_button_that_was_made_anew_meanwhile_is_pressed_all_the_same(editor: Visit, week: House) -> None:
    editor.page.evaluate(NO_FOCUS)
    editor.page.locator("#s1-why").fill("Typed and approved at once")
    editor.page.evaluate("document.activeElement.blur()")
    editor.press("Approve")
    assert (state(week), draft(week).issue.lines[0].why) == ("approved", "Typed and approved at once")


def test_a_button_that_is_gone_meanwhile_is_not_pressed(editor: Visit, week: House) -> None:
    editor.page.evaluate(NO_FOCUS)
    editor.page.locator("#s1-why").fill("Typed and pinned at once")
    editor.page.evaluate("document.activeElement.blur()")
    editor.page.locator("#s1 [value=pin]").click()
    expect(editor.page.locator("#saving")).to_have_text("The page has changed: look again and press it again.")
    assert draft(week).issue.lines[0].why == "Typed and pinned at once"
    press(editor, "#s1 [value=unpin]")
    expect(editor.page.locator("#s1 [value=pin]")).to_be_visible()
