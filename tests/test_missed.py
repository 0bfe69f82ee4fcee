"""A slot that the clock did not come to is missed: told of once, and never sent by itself."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlmodel import col, select

from pipeline import desk, gate
from pipeline import publish as route
from pipeline.books import IssueState, LeaseRow, SlotRow, Stance
from pipeline.errors import UsageError
from subscribers import roll
from subscribers.models import Why
from tests.conftest import FRIDAY
from tests.house import ED, ELLA, GRACE, MINUTE, OWNER, READERS, Dying, House, Killed, a_later_story, outcome


def test_a_slot_that_the_clock_slept_through_is_missed_told_once_and_never_sent_by_itself(house: House) -> None:
    house.at(FRIDAY - timedelta(days=2)).ring()
    house.at(FRIDAY + GRACE + MINUTE).ring()
    assert (house.state, house.row.why, house.got) == (Stance.MISSED, "the clock did not come to it within its grace", [])
    assert house.told == [("missed", OWNER), ("missed", ED), ("missed", ELLA)]
    house.ring(5)
    house.ring(5, timedelta(hours=3))
    assert (house.got, len(house.told)) == ([], 3)
    sent = route.publish(house.newsroom, house.slot, anyway=True)
    assert (sent.state, house.got) == (IssueState.SENT, READERS)
    house.ring(2)
    assert house.told[3:] == [("report", OWNER)]


def test_a_missed_one_may_be_skipped_or_ordered(house: House) -> None:
    house.at(FRIDAY - timedelta(days=2)).ring()
    house.at(FRIDAY + timedelta(days=1)).ring()
    gate.skip(house.newsroom, house.slot, ED)
    assert house.state == Stance.SKIPPED
    route.reopen(house.newsroom, house.slot, ED)
    house.ring(2)
    assert house.got == []
    route.approve(house.newsroom, house.slot, ED)
    gate.order(house.newsroom, house.slot, ED)
    house.ring()
    assert house.got == READERS


def test_what_was_approved_and_slept_through_is_missed_and_sent_as_it_was_approved(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=2)).ring()
    route.approve(house.newsroom, house.slot, ED)
    approved = route.look(house.newsroom, house.slot).rendered
    house.at(FRIDAY + GRACE + MINUTE).ring()
    assert house.state == Stance.MISSED
    a_later_story(house)
    route.publish(house.newsroom, house.slot, anyway=True)
    assert {issue.to_json() for issue, copy in house.postman.letters if copy.address in READERS} == {approved.to_json()}


def test_what_waited_for_an_editor_in_vain_is_missed_and_says_so(house: House) -> None:
    house.configured(unapproved="hold").ring()
    assert house.state == Stance.HELD
    house.at(FRIDAY + GRACE + MINUTE).ring(3)
    assert (house.state, house.row.why) == (
        Stance.MISSED,
        "it waited until its grace was over (nobody has approved it, and schedule.unapproved is hold)",
    )
    assert Counter(house.told) == Counter([("waits", ED), ("waits", ELLA), *(("missed", each) for each in (OWNER, ED, ELLA))])


def test_at_the_last_instant_of_its_grace_a_slot_is_sent_and_after_it_missed(house: House) -> None:
    house.at(FRIDAY - timedelta(days=2)).ring()
    house.at(FRIDAY + GRACE)
    gate.tend(house.newsroom)
    assert (house.state, house.got) == (IssueState.SENT, READERS)


def test_a_slot_whose_grace_ended_at_the_last_ring_is_missed_at_the_next(empty_house: House) -> None:
    house = empty_house
    house.at(FRIDAY - timedelta(days=2)).ring()
    house.at(FRIDAY + GRACE)
    outcome(lambda: gate.tend(house.newsroom))
    assert house.state == "open"
    house.at(FRIDAY + GRACE + 2 * MINUTE)
    gate.tend(house.newsroom)
    assert house.state == Stance.MISSED


def test_the_first_ring_ever_finds_nothing_missed(house: House) -> None:
    house.at(FRIDAY + GRACE + MINUTE).ring(3)
    assert (house.told, house.row.stance) == ([], Stance.NONE)


def test_what_was_sent_skipped_held_or_ordered_is_not_missed(house: House) -> None:
    house.at(FRIDAY - timedelta(days=2)).ring()
    house.at(FRIDAY + MINUTE)
    route.publish(house.newsroom, house.slot)
    for week, act in enumerate((gate.skip, gate.hold), 1):
        slot = house.newsroom.schedule.slot((FRIDAY + timedelta(weeks=week)).date())
        act(house.newsroom, slot, ED)
    house.at(FRIDAY + timedelta(weeks=2, days=1)).ring(2)
    assert [kind for kind, _ in house.told] == ["report"]
    assert house.state == IssueState.SENT


def test_of_weeks_without_a_clock_each_slot_is_missed_once_as_far_back_as_it_is_looked(house: House) -> None:
    house.at(FRIDAY - timedelta(days=2)).ring()
    house.at(FRIDAY + timedelta(weeks=12, days=1)).ring(3)
    with house.newsroom.database.read() as session:
        missed = session.exec(select(SlotRow.slot).where(SlotRow.stance == Stance.MISSED).order_by(col(SlotRow.slot))).all()
    oldest = house.now - gate.FARTHEST - GRACE
    expected = [FRIDAY + timedelta(weeks=week) for week in range(13)]
    assert missed == [each.date().isoformat() for each in expected if each > oldest]
    assert len(missed) == 9
    assert Counter(house.told) == {("missed", each): 9 for each in (OWNER, ED, ELLA)}
    assert house.got == []


def test_a_skipped_date_and_a_change_of_weekday_are_not_missed(house: House) -> None:
    house.configured(skip=(FRIDAY.date(),)).at(FRIDAY - timedelta(days=2)).ring()
    house.at(FRIDAY + timedelta(days=1)).ring()
    # On a Saturday the operator makes it Wednesdays, and the Wednesday before was never a slot.
    house.configured(skip=(), weekday="wed").ring(3)
    house.at(FRIDAY + timedelta(days=2)).ring(2)
    assert house.told == []


@pytest.mark.parametrize("change", [{"reader_time": True}, {"timezone": ZoneInfo("Pacific/Kiritimati")}])
@pytest.mark.parametrize("approved", [True, False])
def test_a_slot_that_is_late_of_a_sudden_since_the_schedule_was_changed_is_missed(
    house: House, change: dict[str, Any], *, approved: bool
) -> None:
    house.at(FRIDAY - timedelta(hours=23)).ring()
    if approved:
        route.approve(house.newsroom, house.slot, ED)
    house.at(FRIDAY - timedelta(hours=4)).ring()
    house.configured(**change).ring(3)
    assert (house.state, house.got) == (Stance.MISSED, [])
    assert Counter(house.told)["missed", OWNER] == 1
    route.reopen(house.newsroom, house.slot, ED)
    house.ring(3)
    assert (house.state, Counter(house.told)["missed", OWNER]) == ("open", 1)


def test_a_slot_that_was_slept_through_is_missed_though_the_clock_was_once_far_ahead(house: House) -> None:
    house.at(FRIDAY - timedelta(days=3)).ring()
    house.at(FRIDAY + timedelta(days=1000))
    gate.tend(house.newsroom)
    house.at(FRIDAY - timedelta(hours=20)).ring()
    house.at(FRIDAY + timedelta(days=2)).ring(2)
    assert house.state == Stance.MISSED


def test_what_was_called_missed_by_a_clock_that_was_wrong_goes_out_in_its_time(house: House) -> None:
    house.at(FRIDAY - timedelta(days=1)).ring()
    route.approve(house.newsroom, house.slot, ED)
    house.at(FRIDAY + timedelta(days=3)).ring()
    assert house.state == Stance.MISSED
    house.at(FRIDAY - timedelta(hours=20)).ring()
    assert house.state == IssueState.APPROVED
    house.at(FRIDAY).ring()
    assert house.got == READERS


def test_so_does_one_of_a_schedule_that_was_mistyped_for_a_while(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=1)).ring()
    house.at(FRIDAY + timedelta(hours=2)).configured(grace_hours=1, timezone=ZoneInfo("Pacific/Kiritimati")).ring()
    assert (house.state, house.got) == (Stance.MISSED, [])
    house.configured(grace_hours=6, timezone=ZoneInfo("Europe/Berlin")).ring()
    assert house.got == READERS


def test_what_adopting_called_missed_is_not_taken_back(house: House) -> None:
    with house.newsroom.database.write() as session:
        desk.take_stance(desk.lock(session, house.slot.name), Stance.MISSED, "friday adopt", house.now, "it may have been sent")
    house.at(FRIDAY).ring(3)
    assert (house.state, house.got) == (Stance.MISSED, [])


def test_an_approved_issue_of_a_day_that_has_left_the_schedule_is_missed_and_can_be_settled(house: House) -> None:
    house.at(FRIDAY - timedelta(days=1)).ring()
    route.approve(house.newsroom, house.slot, ED)
    house.configured(weekday="mon")
    house.at(FRIDAY + GRACE + MINUTE).ring(2)
    with house.newsroom.database.read() as session:
        assert desk.slot(session, house.slot.name).stance == Stance.MISSED
    assert Counter(house.told)["missed", OWNER] == 1
    slot = route.named(house.newsroom, "2026-11-27")
    assert slot.day == FRIDAY.date()
    gate.skip(house.newsroom, slot, ED)
    for name in ("2026-11-20", "2026-1-1", "no date"):
        with pytest.raises(UsageError):
            route.named(house.newsroom, name)


def test_a_slot_whose_sources_cannot_be_read_is_told_of_and_missed_for_that_reason(house: House) -> None:
    for source in ("wire", "ledger"):
        (house.world.folder / f"{source}.json").unlink()
    house.at(FRIDAY - timedelta(hours=1))
    house.at(FRIDAY + timedelta(hours=4))
    said = [outcome(house.ring) for _ in range(3)]
    assert all("no source could be read lately" in each for each in said)
    assert Counter(house.told) == Counter([("waits", ED), ("waits", ELLA)])
    ((_, told), _) = house.read_mails()
    assert "It goes out by itself once that is mended" in " ".join(told.text.split())
    house.at(FRIDAY + GRACE + MINUTE).ring()
    assert "no source could be read lately" in house.row.why


def test_a_clock_that_was_away_looks_at_the_sources_before_it_tells_of_them(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=12))
    house.world.clock.at = FRIDAY + timedelta(hours=4)
    assert "no source could be read lately" in outcome(house.ring)
    assert house.told == []
    house.at(house.now).ring()
    assert house.got == READERS


def test_an_approved_issue_for_nobody_is_told_of(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=1)).ring()
    route.approve(house.newsroom, house.slot, ED)
    for reader in READERS:
        with house.newsroom.database.write() as session:
            roll.suppress(session, reader, Why.MANUAL, house.now)
    house.at(FRIDAY)
    assert "nobody would get it" in outcome(house.ring)
    assert Counter(house.told)["waits", ED] == 1


def test_what_was_opened_again_and_left_is_missed_without_a_reason_that_is_gone(house: House) -> None:
    house.configured(unapproved="skip").ring()
    route.reopen(house.newsroom, house.slot, ED)
    house.at(FRIDAY + GRACE + MINUTE).ring()
    assert (house.state, house.row.why) == (Stance.MISSED, "it waited until its grace was over")


def test_whoever_is_killed_before_the_clock_says_that_it_was_awake_looks_again(house: House) -> None:
    house.at(FRIDAY - timedelta(days=2)).ring()
    house.at(FRIDAY + timedelta(days=1))
    dying = Dying(house.newsroom.database.url, on=1, after=True)
    with pytest.raises(Killed):
        gate.tend(replace(house.newsroom, database=dying))
    dying.engine.dispose()
    assert house.state == Stance.MISSED
    house.ring(2)
    assert Counter(house.told) == {("missed", each): 1 for each in (OWNER, ED, ELLA)}


def test_a_clock_that_rings_all_week_says_so_now_and_then(house: House) -> None:
    house.at(FRIDAY - timedelta(days=3))
    house.ring(4, timedelta(seconds=25))
    with house.newsroom.database.read() as session:
        awake = session.exec(select(LeaseRow)).one()
    assert house.now - awake.beat_at <= gate.SAYS_SO_EVERY
    assert awake.beat_at > FRIDAY - timedelta(days=3) + timedelta(seconds=25)
