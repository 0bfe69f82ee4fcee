"""The gate before each slot: what its editors decide, what becomes of it when they do not, and who is told."""

import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
from sqlalchemy import Engine
from sqlmodel import Session, SQLModel, col, select, update

from pipeline import desk, gate, mail, show
from pipeline import publish as route
from pipeline.books import DeliveryRow, IssueRow, IssueState, LeaseRow, MailRow, MailState, SlotRow, Stance
from pipeline.collect import collect
from pipeline.database import Database
from pipeline.desk import Kind
from pipeline.edit import Desk
from pipeline.errors import AccountRefused, ContentError, DecisionNeeded, FridayError, NotProcessed, Problem, UsageError
from pipeline.issue import Copy, Draft, Parcel, Receipt, RenderedIssue, Slot, Story
from pipeline.ledger import Decision
from pipeline.newsroom import Newsroom
from pipeline.render import address
from pipeline.web.public import public_app
from subscribers import roll
from subscribers.models import Why
from tests.conftest import FRIDAY, ROOT, FakeProvider, World
from tests.serving import serving

OWNER, ED, ELLA = "owner@news.example.com", "ed@news.example.com", "ella@news.example.com"
READERS = ["ada@example.com", "ben@example.com", "cleo@example.com"]
GRACE = timedelta(hours=6)
MINUTE = timedelta(minutes=1)
SETTINGS = ["send", "hold", "skip"]


@dataclass
class Postman(FakeProvider):
    """Keeps what it takes: the issue and the copy."""

    letters: list[tuple[RenderedIssue, Copy]] = field(default_factory=list)

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        receipts = super().send(issue, parcel)
        self.letters += [(issue, copy) for copy in parcel.copies]
        return receipts


@dataclass
class House:
    """A newsroom with people who work in it, three readers and a week's stories."""

    world: World
    newsroom: Newsroom
    postman: Postman

    @property
    def slot(self) -> Slot:
        return self.world.slot

    @property
    def now(self) -> datetime:
        return self.world.clock.at

    @property
    def row(self) -> SlotRow:
        with self.newsroom.database.read() as session:
            return desk.slot(session, self.slot.name)

    @property
    def state(self) -> str:
        return gate.standing(self.newsroom, self.slot).state

    @property
    def told(self) -> list[tuple[str, str]]:
        """The kind and the address of each mail that was queued for those who work here."""
        with self.newsroom.database.read() as session:
            return [(row.kind, row.address) for row in session.exec(select(MailRow).order_by(col(MailRow.id)))]

    @property
    def got(self) -> list[str]:
        """The readers that a copy of the issue left to."""
        return [copy.address for issue, copy in self.postman.letters if not issue.single and not issue.slot.endswith("-test")]

    def at(self, when: datetime) -> "House":
        """Move the clock, and look through the sources as the clock would have done."""
        self.world.clock.at = when
        collect(self.newsroom)
        return self

    def ring(self, times: int = 1, apart: timedelta = timedelta(seconds=30)) -> None:
        for _ in range(times):
            self.world.clock.at += apart
            gate.tend(self.newsroom)

    def desk(self, by: str = ED) -> Desk:
        return Desk(self.newsroom, self.slot, by)

    def configured(self, newsletter: dict[str, Any] | None = None, **schedule: Any) -> "House":
        self.newsroom = configured(self.newsroom, newsletter or {}, schedule)
        return self

    def read_mails(self) -> list[tuple[str, RenderedIssue]]:
        """Send what is queued: to whom, and the mail."""
        before = len(self.postman.letters)
        mail.send_due(self.newsroom)
        return [(copy.address, issue) for issue, copy in self.postman.letters[before:]]


def configured(newsroom: Newsroom, newsletter: dict[str, Any], schedule: dict[str, Any]) -> Newsroom:
    config = newsroom.config
    changed = replace(
        config,
        newsletter=config.newsletter.model_copy(update=newsletter),
        timetable=config.timetable.model_copy(update=schedule),
    )
    return replace(newsroom, config=changed)


def open_house(world: World) -> House:
    assert world.newsroom.keys
    postman = Postman(key_lifetime=timedelta(hours=24))
    people = {"owner": OWNER, "editors": (ED, ELLA), "test_addresses": (ED, "Second.Look@example.net")}
    house = House(world, configured(world.with_provider(postman), people, {}), postman)
    world.subscribe("ada", "ben", "cleo")
    return house


@pytest.fixture
def house(world: World) -> House:
    """A house on each kind of database, with a week's stories."""
    world.tell_a_week()
    return open_house(world)


@pytest.fixture
def local_house(local_world: World) -> House:
    """The same on SQLite, for what does not depend on the kind of database."""
    local_world.tell_a_week()
    return open_house(local_world)


@pytest.fixture
def empty_house(world: World) -> House:
    """A house whose sources have told nothing, which no issue can be made of."""
    collect(world.newsroom)
    return open_house(world)


# What becomes of a slot that nobody has approved


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


def a_later_story(house: House) -> None:
    late = Story(
        "https://wire.example/late", "Everybody sues everybody over GPT 9 for $4 billion", "Ledger", FRIDAY - timedelta(hours=3)
    )
    house.world.tell("Ledger", late)


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
    assert (house.got, house.state) == ([], "open")


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


# Slots that were missed


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
    assert (house.state, house.row.why) == (Stance.MISSED, "it waited for an editor, and its grace is over")
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


# Who is told


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
    assert "it waited for an editor, and its grace is over" in " ".join(told[1].text.split())
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
        "1 more were suppressed",
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


# Copies for a look


def test_a_test_is_the_very_issue_and_says_that_it_is_one(house: House) -> None:
    shown = route.look(house.newsroom, house.slot).rendered
    sent_to = gate.send_test(house.newsroom, house.slot, ["second.look@EXAMPLE.net", ED, ED], ED)
    assert sent_to == ("Second.Look@example.net", ED)
    assert house.told == [("test", "Second.Look@example.net"), ("test", ED)]
    house.desk().head("subject", "Changed after the test was asked for")
    house.read_mails()
    for issue, copy in house.postman.letters:
        assert issue == replace(shown, subject=f"[TEST] {shown.subject}", slot="2026-11-27-test", mailbox="")
        assert (issue.html, issue.text, issue.stand_ins) == (shown.html, shown.text, shown.stand_ins)
        assert copy.unsubscribe_url == "https://news.example.com/u/test"
        assert copy.unsubscribe_url in address(issue, copy).text
    assert [copy.address for _, copy in house.postman.letters] == list(sent_to)
    deeds = gate.standing(house.newsroom, house.slot).deeds
    assert [(each.kind, each.about) for each in deeds if each.kind is Kind.TEST] == [(Kind.TEST, {"to": 2})]


def test_a_test_of_what_is_approved_shows_the_frozen_bytes_and_leaves_the_issue_as_it_is(house: House) -> None:
    route.approve(house.newsroom, house.slot, ED)
    approved = route.look(house.newsroom, house.slot).rendered
    a_later_story(house)
    gate.send_test(house.newsroom, house.slot, [ED], ED)
    house.read_mails()
    assert house.postman.letters[0][0].html == approved.html
    assert (house.state, route.look(house.newsroom, house.slot).rendered) == (IssueState.APPROVED, approved)


def test_a_test_is_counted_nowhere(house: House) -> None:
    house.world.subscribe("ed.of.the.readers")
    gate.send_test(house.newsroom, house.slot, [ED], ED)
    house.read_mails()
    with house.newsroom.database.read() as session:
        assert session.exec(select(DeliveryRow)).all() == []
    house.ring()
    report = route.report(house.newsroom, house.slot)
    assert (report.enrolled, report.counts["accepted"], report.number) == (4, 4, 1)


def test_the_bytes_of_a_test_lie_in_its_row_until_it_is_sent(house: House) -> None:
    gate.send_test(house.newsroom, house.slot, [ED], ED)
    house.read_mails()
    with house.newsroom.database.read() as session:
        assert session.exec(select(MailRow.about)).one() == {"slot": house.slot.name}


@pytest.mark.parametrize("addresses", [["ada@example.com"], [ED, "ada@example.com"], [f"x{ED}"]])
def test_a_test_goes_to_nobody_who_is_not_on_the_list(house: House, addresses: list[str]) -> None:
    with pytest.raises(UsageError, match=r"tests go only to the addresses of newsletter\.test_addresses") as caught:
        gate.send_test(house.newsroom, house.slot, addresses, ED)
    assert "ada@example.com" not in str(caught.value)
    assert house.told == []
    house.configured({"test_addresses": (), "editors": (), "owner": None})
    with pytest.raises(UsageError, match=r'test_addresses = \["you@example\.org"\]'):
        gate.send_test(house.newsroom, house.slot, [ED], ED)
    assert gate.send_test(house.newsroom, house.slot, [ED], ED, own=ED) == (ED,)


def test_a_test_wants_an_address(house: House) -> None:
    with pytest.raises(UsageError, match="name an address"):
        gate.send_test(house.newsroom, house.slot, [], ED)
    with pytest.raises(UsageError):
        gate.send_test(house.newsroom, house.slot, ["nobody"], ED)
    assert house.told == []


def everything(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    with engine.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(table.select())), key=repr)
            for table in SQLModel.metadata.sorted_tables
        }


def test_the_link_by_which_readers_leave_changes_nothing_in_a_test(house: House) -> None:
    before = everything(house.newsroom.database.engine)
    with serving(public_app(house.newsroom)) as url:
        looked = requests.get(f"{url}/u/test", timeout=60)
        clicked = requests.post(f"{url}/u/test", {"List-Unsubscribe": "One-Click"}, timeout=60)
    for answer in (looked, clicked):
        assert answer.status_code == 200
        assert "In a test copy it changes nothing." in answer.text
        assert not re.search("<form|<button", answer.text)
    assert everything(house.newsroom.database.engine) == before


# Two clocks, and clocks that die


class Killed(BaseException):
    """Stands for a process that dies on the spot: nothing may catch it."""


class Dying(Database):
    """A database whose process dies at its `on`th writing, before it is committed or right after."""

    def __init__(self, url: str, on: int, *, after: bool) -> None:
        super().__init__(url)
        object.__setattr__(self, "_left", [on])
        object.__setattr__(self, "_after", after)

    @contextmanager
    def write(self) -> Iterator[Session]:
        left: list[int] = self.__dict__["_left"]
        left[0] -= 1
        dies = left[0] == 0
        with super().write() as session:
            yield session
            if dies and not self.__dict__["_after"]:
                session.flush()
                raise Killed
        if dies:
            raise Killed


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except FridayError as error:
        return str(error)
    return ""


def both_ring(house: House) -> None:
    """Two clocks of one newsroom ring at the same moment."""
    others = replace(house.newsroom, database=Database(house.newsroom.database.url), wait=lambda _seconds: None)
    start, wrong = threading.Barrier(2), list[BaseException]()

    def ring(newsroom: Newsroom) -> None:
        start.wait(60)
        try:
            gate.tend(newsroom)
        except FridayError:
            return
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must hear of it
            wrong.append(error)

    rings = [threading.Thread(target=ring, args=(each,)) for each in (replace(house.newsroom, wait=lambda _s: None), others)]
    for each in rings:
        each.start()
    for each in rings:
        each.join(120)
    assert not any(each.is_alive() for each in rings)
    others.database.engine.dispose()
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("unapproved", SETTINGS)
def test_two_clocks_come_to_the_end_of_one_with_one_mail_each(house: House, unapproved: str) -> None:
    house.configured(unapproved=unapproved)
    both_ring(house.at(FRIDAY - timedelta(hours=24)))
    both_ring(house.at(FRIDAY - timedelta(hours=2)))
    both_ring(house.at(FRIDAY))
    both_ring(house.at(FRIDAY + MINUTE))
    both_ring(house.at(FRIDAY + GRACE + MINUTE))
    editors = [("drafted", ED), ("drafted", ELLA), ("reminder", ED), ("reminder", ELLA)]
    waits = [("waits", ED), ("waits", ELLA)]
    told = {
        "send": [*editors, ("report", OWNER)],
        "hold": [*editors, *waits, ("missed", OWNER), ("missed", ED), ("missed", ELLA)],
        "skip": [*editors, *waits],
    }
    assert Counter(house.told) == Counter(told[unapproved])
    assert sorted(house.got) == (READERS if unapproved == "send" else [])
    assert house.state == {"send": IssueState.SENT, "hold": Stance.MISSED, "skip": Stance.SKIPPED}[unapproved]


def test_a_clock_that_made_its_draft_while_another_told_of_it_tells_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.at(FRIDAY - timedelta(hours=24))
    made, done = route.draft, list[bool]()

    def draft(newsroom: Newsroom, slot: Slot) -> Draft:
        found = made(newsroom, slot)
        if not done:
            done.append(True)
            thread = threading.Thread(target=lambda: gate.tend(house.newsroom))
            thread.start()
            thread.join(60)
        return found

    monkeypatch.setattr(gate, "draft", draft)
    gate.tend(house.newsroom)
    assert house.told == [("drafted", ED), ("drafted", ELLA)]


MOMENTS = {
    "draft": ("send", FRIDAY - timedelta(hours=24)),
    "waits": ("hold", FRIDAY + MINUTE),
    "skip": ("skip", FRIDAY + MINUTE),
    "send": ("send", FRIDAY + MINUTE),
    "missed": ("send", FRIDAY + GRACE + MINUTE),
}


def end(house: House) -> tuple[object, ...]:
    unique = dict.fromkeys(copy.ref for issue, copy in house.postman.letters if not issue.single)
    return (Counter(house.told), house.state, house.row.stance, house.row.why, len(unique), sorted(set(house.got)))


def live_through(house: House, moment: str, dies_on: int, *, after: bool) -> bool:
    """Ring once with a process that dies at its nth writing, and then as if nothing had been; whether it died."""
    unapproved, when = MOMENTS[moment]
    house.configured(unapproved=unapproved).at(FRIDAY - timedelta(days=2)).ring()
    house.at(when)
    dying = Dying(house.newsroom.database.url, dies_on, after=after)
    died = False
    try:
        gate.tend(replace(house.newsroom, database=dying))
    except Killed:
        died = True
    dying.engine.dispose()
    # Nobody takes over a batch of a runner that may be alive, which this very process is.
    house.world.clock.at += 6 * MINUTE
    house.ring(2)
    return died


ENDS = {
    "draft": (Counter([("drafted", ED), ("drafted", ELLA)]), "open", "", "", 0, []),
    "waits": (
        Counter([("waits", ED), ("waits", ELLA)]), "held", "held",
        "nobody has approved it, and schedule.unapproved is hold", 0, [],
    ),
    "skip": (
        Counter([("waits", ED), ("waits", ELLA)]), "skipped", "skipped",
        "nobody had approved it when it opened, and schedule.unapproved is skip", 0, [],
    ),
    "send": (Counter([("report", OWNER)]), "sent", "", "", 3, READERS),
    "missed": (
        Counter([("missed", OWNER), ("missed", ED), ("missed", ELLA)]), "missed", "missed",
        "the clock did not come to it within its grace", 0, [],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the commit", "after it"])
@pytest.mark.parametrize("dies_on", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("moment", sorted(MOMENTS))
def test_wherever_a_clock_dies_the_next_one_comes_to_the_same_end(
    local_house: House, moment: str, dies_on: int, when: str
) -> None:
    died = live_through(local_house, moment, dies_on, after=when == "after it")
    assert end(local_house) == ENDS[moment]
    # Each of them writes twice at least, and it is seen that the death came.
    assert died or dies_on > 2


@pytest.mark.parametrize(("says", "word"), [(gate.hold, "held"), (gate.skip, "skipped")])
def test_a_dry_run_tells_who_has_held_or_skipped_the_slot(local_world: World, says: Callable[..., None], word: str) -> None:
    local_world.tell_a_week()
    local_world.subscribe("ada")
    says(local_world.newsroom, local_world.slot, "ed@example.com")
    *_, last = show.rehearsal_lines(route.rehearse(local_world.newsroom, local_world.slot))
    assert last.startswith(f"It would not be sent: 2026-11-27 is {word}, by ed@example.com; ")


def test_an_issue_that_cannot_go_on_by_itself_is_told_of_once(house: House) -> None:
    def refuse(_parcel: Parcel) -> None:
        raise AccountRefused("bad key")

    house.at(FRIDAY + timedelta(minutes=1))
    refusing = replace(house.newsroom, provider=FakeProvider(before=refuse))
    for _ in range(3):
        with suppress(AccountRefused):
            gate.tend(refusing)
    assert [address for kind, address in house.told if kind == "stuck"] == [OWNER, ED, ELLA]
    (mail, *_) = [letter for _, letter in house.read_mails() if "does not go on by itself" in letter.subject]
    assert "waits for you: bad key." in mail.text


def test_a_draft_that_cannot_be_made_is_told_of_with_what_is_wrong(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Draft:
        raise ContentError([Problem("issue.html:3", "is broken")])

    monkeypatch.setattr(gate, "draft", broken)
    house.at(FRIDAY - timedelta(hours=20)).ring()
    assert [kind for kind, _ in house.told] == ["drafted", "drafted"]
    (_, letter), *_ = house.read_mails()
    assert "issue.html:3: is broken" in letter.text
