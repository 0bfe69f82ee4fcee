"""The gate before each slot: what its editors decide, and what becomes of it when they do not."""

import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlmodel import Session, select, update

from pipeline import desk, gate, show
from pipeline import publish as route
from pipeline.books import DeliveryRow, IssueRow, IssueState, Stance
from pipeline.desk import Kind
from pipeline.errors import ContentError, DecisionNeeded, NotProcessed, UsageError
from pipeline.issue import Parcel, RenderedIssue
from tests.conftest import FRIDAY, ROOT, World
from tests.house import ED, ELLA, GRACE, MINUTE, OWNER, READERS, SETTINGS, House, Killed, a_later_story, outcome


def test_an_unapproved_slot_goes_out_where_that_is_said(house: House) -> None:
    house.configured(unapproved="send").ring(3)
    assert (house.state, house.got) == (IssueState.SENT, READERS)
    assert house.told == [("report", OWNER)]


def test_an_unapproved_slot_waits_where_that_is_said_and_goes_out_once_it_is_approved(house: House) -> None:
    house.configured(unapproved="hold").ring(3)
    assert (house.state, house.row.by, house.got) == (Stance.HELD, gate.CLOCK, [])
    assert house.told == [("waits", ED), ("waits", ELLA)]
    assert not route.look(house.newsroom, house.slot).frozen
    route.approve(house.newsroom, house.slot, ED)
    house.ring(2)
    assert (house.state, house.got) == (IssueState.SENT, READERS)
    assert Counter(house.told) == {("waits", ED): 1, ("waits", ELLA): 1, ("report", OWNER): 1}


def test_an_unapproved_slot_is_skipped_where_that_is_said(house: House) -> None:
    house.configured(unapproved="skip").ring(3)
    assert (house.state, house.row.by, house.got) == (Stance.SKIPPED, gate.CLOCK, [])
    assert house.told == [("waits", ED), ("waits", ELLA)]
    with pytest.raises(DecisionNeeded, match="is skipped, by the clock; `friday reopen 2026-11-27`"):
        route.publish(house.newsroom, house.slot)
    house.ring(3, GRACE)
    assert (house.state, house.got) == (Stance.SKIPPED, [])
    assert len(house.told) == 2


def test_what_the_clock_skipped_and_somebody_opened_again_is_theirs_to_approve(house: House) -> None:
    house.configured(unapproved="skip").ring()
    with pytest.raises(DecisionNeeded, match="is skipped"):
        route.approve(house.newsroom, house.slot, ED)
    route.reopen(house.newsroom, house.slot, ED)
    house.ring(3)
    assert (house.state, house.got, len(house.told)) == ("open", [], 2)
    route.approve(house.newsroom, house.slot, ED)
    house.ring()
    assert house.got == READERS


@pytest.mark.parametrize("unapproved", SETTINGS)
def test_an_approved_slot_goes_out_whatever_is_said_of_unapproved_ones(house: House, unapproved: str) -> None:
    house.configured(unapproved=unapproved).at(FRIDAY - timedelta(hours=1))
    route.approve(house.newsroom, house.slot, ED)
    house.ring(2)
    assert house.got == []
    house.at(FRIDAY).ring()
    assert (house.state, house.got) == (IssueState.SENT, READERS)


@pytest.mark.parametrize("unapproved", SETTINGS)
def test_with_a_finding_of_level_error_a_slot_waits_whatever_is_said(empty_house: House, unapproved: str) -> None:
    house = empty_house.configured(unapproved=unapproved)
    for _ in range(3):
        outcome(house.ring)
    assert (house.got, route.look(house.newsroom, house.slot).frozen) == ([], False)
    assert house.state == (Stance.HELD if unapproved == "hold" else "open")
    assert house.told == [("waits", ED), ("waits", ELLA)]
    with pytest.raises(ContentError, match="only 0 of 5 stories"):
        route.approve(house.newsroom, house.slot, ED)
    house.world.tell_a_week()
    house.ring(2)
    # Mended it goes out by itself where unapproved ones do, and else when it is approved.
    assert house.got == (READERS if unapproved == "send" else [])
    if unapproved != "send":
        assert house.state != Stance.SKIPPED
        route.approve(house.newsroom, house.slot, ED)
        house.ring()
    assert (house.state, house.got) == (IssueState.SENT, READERS)
    assert Counter(kind for kind, _ in house.told) == {"waits": 2, "report": 1}


def own_templates(house: House) -> None:
    """Templates and terms that a test may change."""
    for name in ("templates", "terms"):
        shutil.copytree(ROOT / name, house.world.folder / name)
    config = replace(house.newsroom.config, templates=house.world.folder / "templates", terms=house.world.folder / "terms")
    house.newsroom = replace(house.newsroom, config=config)


@pytest.mark.parametrize("unapproved", SETTINGS)
def test_with_a_broken_template_a_slot_waits_whatever_is_said(house: House, unapproved: str) -> None:
    own_templates(house)
    house.configured(unapproved=unapproved)
    template = house.newsroom.templates / "issue.html"
    whole = template.read_text("utf-8")
    template.write_text(whole + "{% if %}", "utf-8")
    for _ in range(3):
        outcome(house.ring)
    assert (house.got, house.state) == ([], Stance.HELD if unapproved == "hold" else "open")
    assert house.told == [("waits", ED), ("waits", ELLA)]
    template.write_text(whole, "utf-8")
    outcome(lambda: route.approve(house.newsroom, house.slot, ED))
    house.ring()
    assert house.got == READERS


# Approval binds to the bytes


def one_more_character(house: House, *names: str) -> None:
    for path in (house.world.folder / name for name in names):
        path.write_text(path.read_text("utf-8").rstrip() + "x\n", "utf-8")


def a_template(house: House) -> None:
    one_more_character(house, "templates/issue/weekly/issue.html", "templates/issue/weekly/issue.txt")


def a_term(house: House) -> None:
    with house.newsroom.database.read() as session:
        slug = session.exec(select(IssueRow.term)).one()
    one_more_character(house, f"terms/{slug}.md")


def the_masthead(house: House) -> None:
    house.configured({"tagline": "Five stories, every Friday!"})


def approved_house(house: House) -> tuple[House, RenderedIssue]:
    own_templates(house)
    house.at(FRIDAY - timedelta(hours=2))
    route.approve(house.newsroom, house.slot, ED)
    return house, route.look(house.newsroom, house.slot).rendered


@pytest.mark.parametrize("change", [a_later_story, a_template, a_term, the_masthead])
def test_after_approval_a_change_elsewhere_changes_nothing_of_what_is_sent(
    house: House, change: Callable[[House], None]
) -> None:
    house, approved = approved_house(house)
    change(house)
    house.at(FRIDAY).ring()
    assert house.got == READERS
    assert {issue.to_json() for issue, _ in house.postman.letters} == {approved.to_json()}


@pytest.mark.parametrize("change", [a_later_story, a_template, a_term, the_masthead])
def test_reopened_it_takes_the_change_up(house: House, change: Callable[[House], None]) -> None:
    house, approved = approved_house(house)
    change(house)
    route.reopen(house.newsroom, house.slot, ED)
    house.at(FRIDAY).ring()
    assert house.got == READERS
    (sent,) = {issue.to_json() for issue, _ in house.postman.letters}
    assert sent != approved.to_json()


def test_after_approval_one_character_at_the_desk_is_refused_until_it_is_reopened(house: House) -> None:
    house, approved = approved_house(house)
    with pytest.raises(DecisionNeeded, match="`friday reopen 2026-11-27` opens it again"):
        house.desk().head("subject", f"{approved.subject}!")
    assert route.look(house.newsroom, house.slot).rendered == approved
    route.reopen(house.newsroom, house.slot, ED)
    house.desk().head("subject", f"{approved.subject}!")
    house.at(FRIDAY).ring()
    assert {issue.subject for issue, _ in house.postman.letters} == {f"{approved.subject}!"}


def test_what_was_held_to_be_corrected_stays_held_while_it_is(house: House) -> None:
    house, approved = approved_house(house)
    house.at(FRIDAY - 5 * MINUTE).ring()
    gate.hold(house.newsroom, house.slot, ED)
    house.at(FRIDAY + 5 * MINUTE).ring()
    route.reopen(house.newsroom, house.slot, ED)
    house.ring(3)
    assert (house.state, house.got) == (Stance.HELD, [])
    house.desk().head("subject", f"{approved.subject}!")
    route.approve(house.newsroom, house.slot, ED)
    house.ring()
    assert ({issue.subject for issue, _ in house.postman.letters}, house.got) == ({f"{approved.subject}!"}, READERS)


def test_what_is_reopened_once_its_slot_is_due_waits_and_a_second_time_lets_it_go(house: House) -> None:
    house, _ = approved_house(house)
    house.world.clock.at = FRIDAY + MINUTE
    route.reopen(house.newsroom, house.slot, ED)
    house.ring(3)
    assert (house.state, house.row.by, house.row.why, house.got) == (Stance.HELD, ED, "reopened to be changed", [])
    route.reopen(house.newsroom, house.slot, ED)
    house.ring()
    assert house.got == READERS


def one_character_of_the_row(session: Session) -> None:
    issue = session.exec(select(IssueRow)).one()
    session.exec(update(IssueRow).values(frozen=issue.frozen.replace("Quillfern", "Quillfarn", 1)))


def its_hash(session: Session) -> None:
    session.exec(update(IssueRow).values(digest="0" * 64))


@pytest.mark.parametrize("change", [one_character_of_the_row, its_hash])
def test_a_stored_issue_of_which_a_character_was_changed_is_not_sent(house: House, change: Callable[[Session], None]) -> None:
    house, _ = approved_house(house)
    with house.newsroom.database.write() as session:
        change(session)
    house.at(FRIDAY)
    for publish in (gate.tend, lambda newsroom: route.publish(newsroom, house.slot, anyway=True)):
        with pytest.raises(RuntimeError, match="is not what was frozen: its hash differs"):
            publish(house.newsroom)
    assert house.postman.letters == []
    with house.newsroom.database.read() as session:
        assert session.exec(select(DeliveryRow)).all() == []


def test_a_stored_issue_that_is_changed_while_it_is_sent_is_not_sent_on(house: House) -> None:
    house.world.subscribe("dan", "eve", "fay")

    def die(_parcel: Parcel) -> None:
        raise Killed

    house.postman.after = die
    with pytest.raises(Killed):
        house.ring()
    house.postman.after = lambda _parcel: None
    with house.newsroom.database.write() as session:
        one_character_of_the_row(session)
    house.world.clock.at += 6 * MINUTE
    before = len(house.postman.parcels)
    with pytest.raises(RuntimeError, match="its hash differs"):
        house.ring()
    assert len(house.postman.parcels) == before


def test_only_what_was_looked_at_is_approved(house: House) -> None:
    seen = route.look(house.newsroom, house.slot).rendered.digest
    house.desk().head("subject", "Another")
    with pytest.raises(DecisionNeeded, match="has changed since you looked at it: look again"):
        route.approve(house.newsroom, house.slot, ED, seen)
    assert not route.look(house.newsroom, house.slot).frozen
    now = route.look(house.newsroom, house.slot).rendered.digest
    route.approve(house.newsroom, house.slot, ED, now)
    with pytest.raises(DecisionNeeded, match="look again"):
        route.approve(house.newsroom, house.slot, ELLA, seen)
    assert route.approve(house.newsroom, house.slot, ELLA, now).state == IssueState.APPROVED
    done = gate.standing(house.newsroom, house.slot).deeds
    assert [(each.by, each.about) for each in done if each.kind is Kind.APPROVE] == [
        (ED, {"digest": now}),
        (ELLA, {"digest": now}),
    ]


def voided(house: House, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Reopen the slot right after its stance or its order was looked at."""
    found: Callable[..., Any] = getattr(desk, name)
    done: list[bool] = []

    def look(*given: Any) -> Any:
        seen = found(*given)
        if not done:
            done.append(True)
            thread = threading.Thread(target=lambda: route.reopen(house.newsroom, house.slot, ELLA))
            thread.start()
            thread.join(60)
        return seen

    monkeypatch.setattr(desk, name, look)


@pytest.mark.parametrize("unapproved", ["hold", "skip"])
def test_an_approval_that_is_voided_at_the_last_moment_lets_no_draft_out(
    house: House, monkeypatch: pytest.MonkeyPatch, unapproved: str
) -> None:
    house.configured(unapproved=unapproved)
    route.approve(house.newsroom, house.slot, ED)
    voided(house, monkeypatch, "slot")
    with pytest.raises(DecisionNeeded, match="the approval of 2026-11-27 was voided meanwhile; nothing was sent"):
        route.publish_due(house.newsroom)
    assert (house.got, house.state) == ([], Stance.HELD)


@pytest.mark.parametrize("act", [gate.hold, gate.skip])
def test_a_slot_that_is_held_or_skipped_at_the_last_moment_enrols_nobody(house: House, act: Callable[..., None]) -> None:
    def then(_issue: RenderedIssue, _readers: int) -> bool:
        act(house.newsroom, house.slot, ED)
        return True

    with pytest.raises(DecisionNeeded, match=f", by {ED}"):
        route.publish(house.newsroom, house.slot, agree=then)
    assert (house.got, house.row.by, route.look(house.newsroom, house.slot).frozen) == ([], ED, False)


def test_whoever_publishes_what_is_held_is_not_even_asked(house: House) -> None:
    gate.hold(house.newsroom, house.slot, ED)
    asked: list[int] = []

    def agree(_issue: RenderedIssue, readers: int) -> bool:
        asked.append(readers)
        return True

    with pytest.raises(DecisionNeeded, match="is held"):
        route.publish(house.newsroom, house.slot, agree=agree)
    assert asked == []


def test_an_order_that_is_voided_at_the_last_moment_lets_no_draft_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.at(FRIDAY - timedelta(hours=5))
    route.approve(house.newsroom, house.slot, ED)
    gate.order(house.newsroom, house.slot, ED)
    voided(house, monkeypatch, "ordered")
    with pytest.raises(DecisionNeeded, match="voided meanwhile"):
        route.publish_due(house.newsroom)
    assert (house.got, house.state) == ([], "open")


# What people decide


def test_what_somebody_holds_waits_for_as_long_as_they_like_and_is_never_missed(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=3))
    house.ring()
    gate.hold(house.newsroom, house.slot, ED, "the lawyers read it")
    house.at(FRIDAY).ring(2)
    house.at(FRIDAY + GRACE + MINUTE).ring(2)
    house.at(FRIDAY + timedelta(days=5)).ring(2)
    assert (house.state, house.row.by, house.row.why, house.got) == (Stance.HELD, ED, "the lawyers read it", [])
    with pytest.raises(DecisionNeeded, match=f"is held, by {ED}; `friday approve 2026-11-27` lets it go"):
        route.publish(house.newsroom, house.slot, anyway=True)
    assert Counter(kind for kind, _ in house.told if kind != "drafted") == {}


def test_approving_lets_a_held_one_go_with_the_bytes_that_were_approved_before(house: House) -> None:
    route.approve(house.newsroom, house.slot, ED)
    approved = route.look(house.newsroom, house.slot).rendered
    gate.hold(house.newsroom, house.slot, ELLA)
    house.ring()
    assert (house.got, house.state) == ([], Stance.HELD)
    a_later_story(house)
    route.approve(house.newsroom, house.slot, ED)
    house.ring()
    assert house.got == READERS
    assert {issue.to_json() for issue, _ in house.postman.letters} == {approved.to_json()}


def test_a_held_one_that_is_approved_too_late_is_sent_only_if_somebody_says_so(house: House) -> None:
    gate.hold(house.newsroom, house.slot, ED)
    house.at(FRIDAY + GRACE + MINUTE)
    route.approve(house.newsroom, house.slot, ED)
    house.ring(3)
    assert (house.state, house.got) == (Stance.MISSED, [])
    with pytest.raises(DecisionNeeded, match="grace of 6 hours is over; --anyway sends it late"):
        route.publish(house.newsroom, house.slot)
    gate.order(house.newsroom, house.slot, ED)
    house.ring()
    assert (house.state, house.got) == (IssueState.SENT, READERS)


def test_skipping_voids_an_approval_and_nothing_lets_it_out_but_reopening(house: House) -> None:
    route.approve(house.newsroom, house.slot, ED)
    gate.skip(house.newsroom, house.slot, ELLA, "a holiday")
    assert not route.look(house.newsroom, house.slot).frozen
    house.ring(2)
    with pytest.raises(DecisionNeeded, match=f"is skipped, by {ELLA}"):
        route.approve(house.newsroom, house.slot, ED)
    with pytest.raises(DecisionNeeded, match="is skipped"):
        route.publish(house.newsroom, house.slot, anyway=True)
    with pytest.raises(UsageError, match="is skipped; `friday reopen 2026-11-27`"):
        gate.hold(house.newsroom, house.slot, ED)
    with pytest.raises(UsageError, match="is not approved yet"):
        gate.order(house.newsroom, house.slot, ED)
    assert (house.state, house.row.why, house.got) == (Stance.SKIPPED, "a holiday", [])
    route.reopen(house.newsroom, house.slot, ED)
    assert house.state == "open"
    house.ring()
    assert house.got == READERS


@pytest.mark.parametrize("when", [FRIDAY - timedelta(days=3), FRIDAY + GRACE + MINUTE, FRIDAY + timedelta(days=4)])
def test_an_order_sends_what_is_approved_however_early_or_late(house: House, when: datetime) -> None:
    house.at(FRIDAY - timedelta(hours=1))
    with pytest.raises(UsageError, match="is not approved yet: what is to be sent is approved first"):
        gate.order(house.newsroom, house.slot, ED)
    route.approve(house.newsroom, house.slot, ED)
    house.at(when)
    gate.order(house.newsroom, house.slot, ED)
    house.ring(3)
    assert (house.state, house.got) == (IssueState.SENT, READERS)
    assert house.told[-1] == ("report", OWNER)


@pytest.mark.parametrize("way", [gate.hold, gate.skip, route.reopen])
def test_an_order_is_taken_back_by_whatever_is_said_after_it(house: House, way: Callable[..., None]) -> None:
    house.at(FRIDAY - timedelta(days=2))
    route.approve(house.newsroom, house.slot, ED)
    gate.order(house.newsroom, house.slot, ED)
    way(house.newsroom, house.slot, ELLA)
    house.ring(2)
    assert house.got == []


def test_an_order_by_whoever_has_not_seen_that_it_is_held_sends_nothing(house: House) -> None:
    route.approve(house.newsroom, house.slot, ED)
    gate.hold(house.newsroom, house.slot, ED)
    with pytest.raises(DecisionNeeded, match=f"is held, by {ED}: approve it first"):
        gate.order(house.newsroom, house.slot, ELLA)
    house.at(FRIDAY - timedelta(days=2)).ring()
    assert (house.state, house.got) == (Stance.HELD, [])


def test_an_order_sends_nothing_but_what_was_looked_at(house: House) -> None:
    house.at(FRIDAY - timedelta(days=2))
    route.approve(house.newsroom, house.slot, ED)
    seen = route.look(house.newsroom, house.slot).rendered.digest
    route.reopen(house.newsroom, house.slot, ELLA)
    house.desk(ELLA).head("subject", "Another")
    route.approve(house.newsroom, house.slot, ELLA)
    with pytest.raises(DecisionNeeded, match="has changed since you looked at it"):
        gate.order(house.newsroom, house.slot, ED, seen)
    house.ring()
    assert house.got == []
    gate.order(house.newsroom, house.slot, ELLA, route.look(house.newsroom, house.slot).rendered.digest)
    house.ring()
    assert house.got == READERS


def test_what_is_approved_when_its_time_is_over_does_not_say_that_it_goes_out_by_itself(house: House) -> None:
    house.at(FRIDAY - timedelta(days=2)).ring()
    house.at(FRIDAY + timedelta(days=1)).ring()
    route.reopen(house.newsroom, house.slot, ED)
    route.approve(house.newsroom, house.slot, ED)
    house.ring(2)
    said = show.standing_text(house.newsroom, gate.standing(house.newsroom, house.slot), 3)
    assert (house.state, house.got) == (IssueState.APPROVED, [])
    assert said.endswith("its grace is over: send it now, or skip it.")


@pytest.mark.parametrize(
    ("unapproved", "said"),
    [
        ("send", "If nobody does anything, it goes out on {when} to 3 readers, as it is on {opens}."),
        ("hold", "It goes out to 3 readers on {when} if somebody has approved it by {opens}; else it waits."),
        ("skip", "It goes out to 3 readers on {when} if somebody has approved it by {opens}; else there is no issue."),
    ],
)
def test_with_readers_own_hours_a_desk_says_when_readers_get_it_and_until_when_it_can_be_changed(
    house: House, unapproved: str, said: str
) -> None:
    house.configured(reader_time=True, unapproved=unapproved).at(FRIDAY - timedelta(days=2))
    slot = house.newsroom.schedule.slot(FRIDAY.date())
    when, opens = "Friday, 27 November, at 09:00 where each reader is", "Thursday, 26 November, at 19:50 CET"
    text = show.standing_text(house.newsroom, gate.standing(house.newsroom, slot), 3)
    assert text == f"Not approved yet. {said.format(when=when, opens=opens)}"
    route.approve(house.newsroom, slot, ED)
    text = show.standing_text(house.newsroom, gate.standing(house.newsroom, slot), 3)
    assert text == f"Approved. It goes out by itself on {when}, to 3 readers."


def test_what_a_person_has_paused_says_so_at_the_desk_and_in_a_rehearsal(house: House) -> None:
    def pause(_parcel: Parcel) -> None:
        route.pause(house.newsroom, house.slot)
        raise Killed

    house.postman.before = pause
    with pytest.raises(Killed):
        house.ring()
    text = show.standing_text(house.newsroom, gate.standing(house.newsroom, house.slot), 3)
    assert text == "Paused by a person; `friday resume 2026-11-27` lets it go on."
    *_, last = show.rehearsal_lines(route.rehearse(house.newsroom, house.slot))
    assert last.startswith("It would not be sent now: 2026-11-27 was paused by a person;")


def test_a_copy_of_the_newsroom_promises_nothing(house: House) -> None:
    text = show.standing_text(house.newsroom, gate.standing(house.newsroom, house.slot), 3, moved=True)
    assert text == "Not approved. This is a copy of the newsroom: nothing goes out from here."


@pytest.mark.parametrize("when", [FRIDAY - timedelta(days=2), FRIDAY + timedelta(days=2)])
def test_what_was_ordered_and_interrupted_is_gone_on_with_whatever_the_time_is(house: House, when: datetime) -> None:
    route.approve(house.newsroom, house.slot, ED)
    house.at(when)
    gate.order(house.newsroom, house.slot, ED)

    def die(_parcel: Parcel) -> None:
        raise Killed

    house.postman.before = die
    with pytest.raises(Killed):
        house.ring()
    house.postman.before = lambda _parcel: None
    house.world.clock.at += 6 * MINUTE
    house.ring()
    assert (house.state, sorted(house.got)) == (IssueState.SENT, READERS)


def test_what_was_ordered_and_met_trouble_is_tried_again_and_what_a_person_paused_is_not(house: House) -> None:
    route.approve(house.newsroom, house.slot, ED)
    house.at(FRIDAY + timedelta(days=2))
    gate.order(house.newsroom, house.slot, ED)

    def refuse(_parcel: Parcel) -> None:
        raise NotProcessed("too busy", timedelta(hours=1))

    house.postman.before = refuse
    outcome(house.ring)
    assert house.state == IssueState.PAUSED
    house.postman.before = lambda _parcel: None
    house.ring(2)
    assert house.got == []
    route.pause(house.newsroom, house.slot)
    house.ring(2, timedelta(hours=2))
    assert house.got == []
    route.resume(house.newsroom, house.slot)
    house.ring()
    assert house.got == READERS


def test_once_readers_are_enrolled_nothing_of_the_gate_changes_anything(house: House) -> None:
    house.ring()
    for act in (gate.hold, gate.skip, gate.order):
        with pytest.raises(UsageError, match="2026-11-27 is sent: its readers are enrolled; `friday pause 2026-11-27`"):
            act(house.newsroom, house.slot, ED)
    with pytest.raises(DecisionNeeded, match="its readers are enrolled, so it cannot change"):
        route.reopen(house.newsroom, house.slot, ED)
    assert route.approve(house.newsroom, house.slot, ED).state == IssueState.SENT
    assert (house.state, house.row.stance) == (IssueState.SENT, Stance.NONE)
    assert Counter(each.kind for each in gate.standing(house.newsroom, house.slot).deeds) == {}


def test_reopening_an_open_slot_says_that_there_is_nothing_to_void(house: House) -> None:
    with pytest.raises(UsageError, match="nothing is approved for 2026-11-27"):
        route.reopen(house.newsroom, house.slot, ED)


def test_who_did_what_when_is_told_in_order(house: House) -> None:
    gate.hold(house.newsroom, house.slot, ED, "why")
    house.world.clock.at += MINUTE
    route.approve(house.newsroom, house.slot, ELLA)
    route.reopen(house.newsroom, house.slot, ED)
    gate.skip(house.newsroom, house.slot, ELLA)
    done = gate.standing(house.newsroom, house.slot).deeds
    assert [(each.kind, each.by) for each in done] == [
        (Kind.HOLD, ED), (Kind.APPROVE, ELLA), (Kind.REOPEN, ED), (Kind.SKIP, ELLA),
    ]  # fmt: skip
    assert (done[0].about, done[1].at - done[0].at) == ({"why": "why"}, MINUTE)


@pytest.mark.parametrize(("says", "word"), [(gate.hold, "held"), (gate.skip, "skipped")])
def test_a_dry_run_tells_who_has_held_or_skipped_the_slot(local_world: World, says: Callable[..., None], word: str) -> None:
    local_world.tell_a_week()
    local_world.subscribe("ada")
    says(local_world.newsroom, local_world.slot, "ed@example.com")
    *_, last = show.rehearsal_lines(route.rehearse(local_world.newsroom, local_world.slot))
    assert last.startswith(f"It would not be sent now: 2026-11-27 is {word}, by ed@example.com; ")
