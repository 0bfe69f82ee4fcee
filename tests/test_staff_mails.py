"""What those who work here are told by mail: of drafts, of what waits or was missed, of what is stuck, and of the end."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from pipeline import gate
from pipeline import publish as route
from pipeline.books import IssueRow, IssueState, MailRow, MailState
from pipeline.errors import AccountRefused, ContentError, NotProcessed, Problem
from pipeline.issue import Draft, Parcel
from pipeline.ledger import Decision
from pipeline.render import address
from subscribers import roll
from subscribers.models import Why
from tests.conftest import FRIDAY, FakeProvider
from tests.house import ED, ELLA, GRACE, MINUTE, OWNER, READERS, House, Killed, outcome


def test_editors_are_told_of_the_draft_once_and_reminded_once(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=24, minutes=5)).ring(3)
    assert house.told == []
    house.at(FRIDAY - timedelta(hours=24)).ring(5)
    assert house.told == [("drafted", ED), ("drafted", ELLA)]
    house.at(FRIDAY - timedelta(hours=2, minutes=5)).ring(3)
    assert len(house.told) == 2
    house.at(FRIDAY - timedelta(hours=2)).ring(5)
    assert house.told[2:] == [("reminder", ED), ("reminder", ELLA)]
    house.at(FRIDAY).ring(3)
    assert house.told[4:] == [("report", OWNER)]


def test_editors_are_told_of_the_next_draft_though_the_one_before_waits_for_them(empty_house: House) -> None:
    house = empty_house.configured(extra=((FRIDAY + timedelta(days=1)).date(),))
    house.at(FRIDAY + MINUTE)
    for _ in range(2):
        outcome(lambda: gate.tend(house.newsroom))
    assert house.told == [("waits", ED), ("waits", ELLA), ("drafted", ED), ("drafted", ELLA)]


def test_whoever_comes_to_the_draft_late_is_told_of_it_and_not_reminded(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=1)).ring(5)
    assert house.told == [("drafted", ED), ("drafted", ELLA)]


def test_without_an_hour_to_remind_at_nobody_is_reminded(house: House) -> None:
    house.configured(remind_before_hours=0).at(FRIDAY - timedelta(hours=5)).ring(2)
    house.at(FRIDAY - MINUTE).ring()
    assert house.told == [("drafted", ED), ("drafted", ELLA)]


@pytest.mark.parametrize("act", [route.approve, gate.hold, gate.skip])
def test_what_is_decided_is_neither_announced_nor_reminded_of(house: House, act: Callable[..., object]) -> None:
    house.at(FRIDAY - timedelta(hours=30))
    act(house.newsroom, house.slot, ED)
    house.at(FRIDAY - timedelta(hours=20)).ring()
    house.at(FRIDAY - timedelta(hours=1)).ring()
    assert house.told == []


def test_a_reopened_slot_is_reminded_of(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=20)).ring()
    route.approve(house.newsroom, house.slot, ED)
    house.at(FRIDAY - timedelta(hours=1)).ring()
    assert len(house.told) == 2
    route.reopen(house.newsroom, house.slot, ED)
    house.ring(2)
    assert house.told[2:] == [("reminder", ED), ("reminder", ELLA)]


@pytest.mark.parametrize(
    ("people", "drafts", "missed", "reports"),
    [
        ({"editors": (ED,), "owner": None}, [ED], [ED], []),
        ({"editors": (), "owner": OWNER}, [OWNER], [OWNER], [OWNER]),
        ({"editors": (OWNER, ED), "owner": OWNER}, [OWNER, ED], [OWNER, ED], [OWNER]),
        ({"editors": (), "owner": None}, [], [], []),
    ],
)
def test_the_owner_hears_what_editors_would_where_there_are_none_and_nobody_twice(
    house: House, people: dict[str, Any], drafts: list[str], missed: list[str], reports: list[str]
) -> None:
    house.configured(people).at(FRIDAY - timedelta(hours=20)).ring(2)
    house.at(FRIDAY).ring(2)
    house.at(FRIDAY + timedelta(weeks=1, hours=7)).ring(2)
    assert house.told == [
        *(("drafted", each) for each in drafts),
        *(("report", each) for each in reports),
        *(("missed", each) for each in missed),
    ]
    assert house.got == READERS
    with house.newsroom.database.read() as session:
        assert session.exec(select(IssueRow.reported_at)).one()


DESK_URL = "https://news.example.com/newsroom/desk/2026-11-27"


def test_the_mail_of_a_draft_shows_it_and_leads_to_its_desk(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=24)).ring()
    issue = route.draft(house.newsroom, house.slot).issue
    (who, told), (other, _) = house.read_mails()
    assert (who, other) == (ED, ELLA)
    assert told.subject == f"The draft for Friday, 27 November: {issue.subject}"
    assert told.single
    squeezed = " ".join(told.text.split())
    for shown in (*(line.title for line in issue.lines), DESK_URL, "Friday, 09:00 CET"):
        assert shown in squeezed
    assert DESK_URL in told.html
    assert issue.term
    assert issue.term.name in squeezed


@pytest.mark.parametrize(
    ("unapproved", "said"),
    [
        ("send", "If nobody does anything, it goes out Friday, 09:00 CET as it is then."),
        ("hold", "It opens Friday, 09:00 CET and waits until somebody approves it."),
        ("skip", "unless somebody has approved it by then, there is no issue this week."),
    ],
)
def test_the_mail_of_a_draft_says_what_becomes_of_it(house: House, unapproved: str, said: str) -> None:
    house.configured(unapproved=unapproved).at(FRIDAY - timedelta(hours=24)).ring()
    house.at(FRIDAY - timedelta(hours=1)).ring()
    told = [issue for who, issue in house.read_mails() if who == ED]
    assert [each.subject.partition(":")[0] for each in told] == ["The draft for Friday, 27 November", "Not approved yet"]
    for each in told:
        assert said in " ".join(each.text.split())


def test_the_mail_of_a_draft_that_cannot_go_out_says_so(empty_house: House) -> None:
    house = empty_house
    house.at(FRIDAY - timedelta(hours=24)).ring()
    (_, told), _ = house.read_mails()
    squeezed = " ".join(told.text.split())
    assert "- error: only 0 of 5 stories" in squeezed
    assert "It cannot go out as it is: an editor must mend what is named above." in squeezed


def test_the_mails_of_what_waits_was_skipped_or_missed_say_why(house: House) -> None:
    house.configured(unapproved="hold").ring()
    house.at(FRIDAY + GRACE + MINUTE).ring()
    told = [issue for who, issue in house.read_mails() if who == ED]
    assert [each.subject for each in told] == [
        "Friday, 27 November waits for you", "Missed: no issue went out on Friday, 27 November",
    ]  # fmt: skip
    assert "nobody has approved it, and schedule.unapproved is hold" in " ".join(told[0].text.split())
    assert "it waited until its grace was over (nobody has approved it, and schedule.unapproved is hold)" in " ".join(
        told[1].text.split()
    )
    for each in told:
        assert DESK_URL in each.text


def test_the_mail_of_a_skipped_slot_says_that_there_is_no_issue(house: House) -> None:
    house.configured(unapproved="skip").ring()
    (_, told), _ = house.read_mails()
    assert told.subject == "No issue on Friday, 27 November"
    assert "has opened and was skipped: nobody had approved it" in " ".join(told.text.split())


def test_the_owner_is_told_of_the_end_once_with_the_counts(house: House) -> None:
    with house.newsroom.database.write() as session:
        roll.suppress(session, READERS[0], Why.BOUNCE, house.now)
    house.ring(5)
    assert house.told == [("report", OWNER)]
    ((who, told),) = house.read_mails()
    assert (who, told.subject.partition(",")[0]) == (OWNER, "Sent: no. 1")
    squeezed = " ".join(told.text.split())
    for shown in (
        "Of 2 readers:",
        "- 2 accepted",
        "1 more was suppressed",
        DESK_URL,
        "https://news.example.com/issues/2026-11-27",
    ):
        assert shown in squeezed
    house.ring(3)
    assert len(house.told) == 1


def test_what_nobody_can_tell_of_is_reported_as_a_number_and_by_no_address(house: House) -> None:
    house.postman.key_lifetime = None

    def die(_parcel: Parcel) -> None:
        raise Killed

    house.postman.before = die
    with pytest.raises(Killed):
        house.ring()
    house.postman.before = lambda _parcel: None
    house.world.clock.at += 6 * MINUTE
    house.ring(3)
    assert house.state == IssueState.NEEDS_DECISION
    ((who, told),) = house.read_mails()
    assert (who, told.subject.partition(",")[0]) == (OWNER, "2 unknown: no. 1")
    squeezed = " ".join(told.text.split())
    assert "Nobody can tell whether 2 of the copies left" in squeezed
    assert "- 2 unknown" in squeezed
    with house.newsroom.database.read() as session:
        kept = str(session.exec(select(MailRow.about)).all())
    for reader in READERS:
        assert reader not in told.text + told.html + kept
    route.resolve(house.newsroom, house.slot, Decision.ACCEPTED)
    route.publish(house.newsroom, house.slot)
    house.ring(2)
    assert house.state == IssueState.SENT
    assert house.told == [("report", OWNER)]


def test_what_a_person_published_is_reported_too(house: House) -> None:
    route.publish(house.newsroom, house.slot)
    assert house.told == []
    house.ring()
    assert house.told == [("report", OWNER)]


def test_a_mail_for_the_staff_does_not_go_to_a_suppressed_address(house: House) -> None:
    with house.newsroom.database.write() as session:
        roll.suppress(session, ED.upper(), Why.COMPLAINT, house.now)
    house.at(FRIDAY - timedelta(hours=24)).ring()
    assert [who for who, _ in house.read_mails()] == [ELLA]
    with house.newsroom.database.read() as session:
        states = {row.address: (row.state, row.trouble) for row in session.exec(select(MailRow))}
    assert states[ED] == (MailState.FAILED, "not sent: suppressed (complaint)")


def test_a_mail_for_the_staff_has_no_link_by_which_readers_leave(house: House) -> None:
    house.at(FRIDAY - timedelta(hours=24)).ring()
    house.read_mails()
    issue, copy = house.postman.letters[0]
    assert not [name for name in address(issue, copy).headers if name.startswith("List-")]
    assert "/u/" not in issue.text + issue.html


def test_an_issue_that_cannot_go_on_by_itself_is_told_of_once(house: House) -> None:
    house.at(FRIDAY + timedelta(minutes=1))
    refusing = replace(house.newsroom, provider=FakeProvider(before=refuse))
    for _ in range(3):
        with suppress(AccountRefused):
            gate.tend(refusing)
    assert [address for kind, address in house.told if kind == "stuck"] == [OWNER, ED, ELLA]
    (mail, *_) = [letter for _, letter in house.read_mails() if "does not go on by itself" in letter.subject]
    assert "waits for you: bad key." in mail.text


def test_one_that_was_mended_and_is_refused_again_is_told_of_again(house: House) -> None:
    refusing = replace(house.newsroom, provider=FakeProvider(before=refuse))
    for number in (1, 2):
        with suppress(AccountRefused):
            gate.tend(refusing)
        gate_told = [address for kind, address in house.told if kind == "stuck"]
        assert gate_told == [OWNER, ED, ELLA] * number
        route.resume(house.newsroom, house.slot)


def test_what_a_person_sends_late_is_not_told_of_while_it_is_being_sent_and_is_once_that_has_ended(house: House) -> None:
    def die(_parcel: Parcel) -> None:
        # Beside it the clock rings on.
        house.ring(2)
        assert "stuck" not in dict(house.told)
        raise Killed

    house.at(FRIDAY + timedelta(days=1)).ring()
    dying = replace(house.newsroom, provider=FakeProvider(before=die))
    with pytest.raises(Killed):
        route.publish(dying, house.slot, anyway=True)
    house.ring()
    assert "stuck" not in dict(house.told)
    house.ring(apart=gate.QUIET)
    assert Counter(house.told)["stuck", OWNER] == 1


def test_what_was_ordered_late_and_goes_on_by_itself_is_not_told_of(house: House) -> None:
    def out(_parcel: Parcel) -> None:
        raise NotProcessed("busy")

    house.at(FRIDAY - timedelta(hours=1)).ring()
    route.approve(house.newsroom, house.slot, ED)
    house.at(FRIDAY + timedelta(days=1)).ring()
    gate.order(house.newsroom, house.slot, ED)
    down = replace(house.newsroom, provider=FakeProvider(before=out))
    for _ in range(3):
        house.world.clock.at += MINUTE
        with suppress(NotProcessed):
            gate.tend(down)
    assert house.state == IssueState.PAUSED
    assert "stuck" not in dict(house.told)


def refuse(_parcel: Parcel) -> None:
    raise AccountRefused("bad key")


def test_a_draft_that_cannot_be_made_is_told_of_with_what_is_wrong(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Draft:
        raise ContentError([Problem("issue.html:3", "is broken")])

    monkeypatch.setattr(gate, "draft", broken)
    house.at(FRIDAY - timedelta(hours=20)).ring()
    assert [kind for kind, _ in house.told] == ["drafted", "drafted"]
    (_, letter), *_ = house.read_mails()
    said = " ".join(letter.text.split())
    assert "issue.html:3: is broken" in said
    assert "There is nothing to show yet: what stands below must be mended first." in said
    house.at(FRIDAY - timedelta(hours=1)).ring()
    (_, letter), *_ = house.read_mails()
    assert "There is still nothing to show for Friday, 27 November" in " ".join(letter.text.split())


@pytest.mark.parametrize(
    ("unapproved", "said"),
    [("hold", "as soon as somebody approves it there"), ("skip", "once that is mended and somebody has approved it there")],
)
def test_the_mail_of_what_waits_says_what_it_needs(empty_house: House, unapproved: str, said: str) -> None:
    outcome(empty_house.configured(unapproved=unapproved).ring)
    (_, told), *_ = empty_house.read_mails()
    assert f"It goes out {said}, within the grace of its slot." in " ".join(told.text.split())


def test_with_readers_own_hours_mails_say_when_readers_get_it(house: House) -> None:
    house.configured(reader_time=True).at(FRIDAY - timedelta(hours=20)).ring()
    (_, told), *_ = house.read_mails()
    said = " ".join(told.text.split())
    assert "each reader gets it at 09:00 where they are, as it is when its slot opens, Thursday, 19:50 CET." in said
