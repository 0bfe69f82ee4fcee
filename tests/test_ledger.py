"""Each guarded step of the ledger, seen row by row: what it changes, and that nothing else changes beside it."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import bindparam
from sqlmodel import Session, SQLModel, col, select, update

from pipeline import batches, ledger
from pipeline import claim as claiming
from pipeline import publish as route
from pipeline.batches import Batch
from pipeline.books import BatchRow, DeliveryRow, DeliveryState, Fate, IssueRow, IssueState, Pause, ToldRow
from pipeline.claim import Wanted, claim
from pipeline.errors import DecisionNeeded, UsageError
from pipeline.issue import Parcel, Receipt
from pipeline.ledger import Decision
from pipeline.settle import Answered, GivenBack, LetGo, Lost, Outcome, Refused, settle
from subscribers import roll
from subscribers.models import Subscriber, Why
from subscribers.segments import compile_segment, parse
from tests.conftest import FRIDAY, World
from tests.test_providers import ISSUE

BEFORE, NOW = FRIDAY - timedelta(hours=1), FRIDAY + timedelta(hours=1, microseconds=5)
# The same instant, as it may be told in another zone.
NOW_IN_TOKYO = NOW.astimezone(ZoneInfo("Asia/Tokyo"))
MOST_PUT_OFF = 3
IN_A_BATCH = [state for state in DeliveryState if state not in (DeliveryState.PENDING, DeliveryState.EXCLUDED)]
NO_PAUSE = {"paused_by": "", "trouble": "", "resume_at": None}

Change = dict[str, dict[str, Any]]


def ref(number: int, state: DeliveryState, reader: str) -> str:
    """The reference of a reader's copy."""
    return f"{number}-{state}-{reader}"


@dataclass
class Book:
    """Two issues, each with two copies in each state; those that are in a call share one, those that were share another."""

    session: Session
    one: IssueRow
    other: IssueRow

    def rows(self) -> Change:
        """Every row of the ledger by a name, as its values."""
        self.session.flush()
        found: Change = {}
        for table, name in ((IssueRow, "slot"), (BatchRow, "key"), (DeliveryRow, "ref")):
            for row in self.session.exec(select(table).execution_options(populate_existing=True)):
                found[str(getattr(row, name))] = row.model_dump()
        return found

    @contextmanager
    def changes(self) -> Iterator[Change]:
        """What changes meanwhile: the new values by row."""
        before, changed = self.rows(), Change()
        yield changed
        for name, row in self.rows().items():
            old = before.get(name, {})
            new = {key: value for key, value in row.items() if key not in old or old[key] != value}
            if new:
                changed[name] = new

    def batch(self, key: str) -> Batch:
        row = self.session.exec(select(BatchRow).where(BatchRow.key == key)).one()
        return Batch(row.id or 0, row.attempt, row.runner, row.claimed_at, row.attempted_at)

    def id_of(self, table: type[SQLModel], **named: Any) -> int:
        return int(self.session.exec(select(table).filter_by(**named)).one().model_dump()["id"])

    def put(self, copy: str, **values: Any) -> None:
        """Write values into a copy."""
        self.session.execute(update(DeliveryRow).where(col(DeliveryRow.ref) == copy).values(**values))

    def only(self, *states: DeliveryState, number: int = 1) -> None:
        """Leave an issue no copies but those in these states, and no call that is out unless one of them is in it."""
        mine = self.one if number == 1 else self.other
        gone = (col(DeliveryRow.issue_id) == mine.id) & col(DeliveryRow.state).not_in(states)
        self.session.execute(update(DeliveryRow).where(gone).values(state=DeliveryState.ACCEPTED))
        if DeliveryState.SENDING not in states:
            self.session.execute(update(BatchRow).where(col(BatchRow.key) == f"{number}-out").values(settled_at=BEFORE))
        self.session.expire_all()


def write(session: Session, number: int, slot: str) -> IssueRow:
    issue = IssueRow(
        slot=slot, number=number, state=IssueState.SENDING, frozen=ISSUE.to_json(), digest=ISSUE.digest, term=f"term{number}",
        frozen_at=BEFORE, enrolled_at=BEFORE,
    )  # fmt: skip
    session.add(issue)
    session.flush()
    made = {}
    for name, over in (("out", None), ("home", BEFORE)):
        made[name] = BatchRow(
            issue_id=issue.id or 0, key=f"{number}-{name}", digest="", runner="us", claimed_at=BEFORE, attempted_at=BEFORE,
            settled_at=over,
        )  # fmt: skip
        session.add(made[name])
    session.flush()
    for state in DeliveryState:
        for reader in ("ada", "ben"):
            found = roll.by_key(session, f"{reader}-{state}@example.com")
            batch = made["out" if state is DeliveryState.SENDING else "home"]
            session.add(
                DeliveryRow(
                    issue_id=issue.id or 0,
                    subscriber_id=found.id if found else None,
                    ref=ref(number, state, reader),
                    state=state,
                    batch_id=batch.id if state in IN_A_BATCH else None,
                    changed_at=BEFORE,
                    reason="as it was",
                )
            )
            session.flush()
    return issue


@pytest.fixture
def book(world: World) -> Iterator[Book]:
    world.subscribe(*(f"{reader}-{state}" for state in DeliveryState for reader in ("ada", "ben")))
    with world.database.write() as session:
        yield Book(session, write(session, 1, "2026-11-27"), write(session, 2, "2026-12-04"))


def test_an_issue_is_found_by_its_slot_and_the_published_ones_from_the_newest_on(book: Book) -> None:
    assert ledger.find(book.session, "2026-12-04") is book.other
    assert ledger.find(book.session, "2026-12-11") is None
    assert [each.number for each in ledger.published(book.session)] == [2, 1]
    book.other.enrolled_at = None
    book.session.flush()
    assert [each.number for each in ledger.published(book.session)] == [1]


def test_the_newest_is_the_last_whose_audience_is_enrolled(book: Book) -> None:
    assert ledger.newest(book.session) is book.other
    book.other.enrolled_at = None
    book.session.flush()
    assert ledger.newest(book.session) is book.one
    book.one.enrolled_at = None
    book.session.flush()
    assert ledger.newest(book.session) is None


def test_a_slot_keeps_its_number_and_a_new_one_gets_the_next(book: Book, world: World) -> None:
    schedule = world.newsroom.schedule
    friday = FRIDAY.date()
    assert ledger.number_of(book.session, schedule.slot(friday)) == 1
    assert ledger.number_of(book.session, schedule.slot(friday + timedelta(weeks=2))) == 3


def test_the_coming_slot_is_the_first_whose_readers_are_not_enrolled(book: Book, world: World) -> None:
    schedule, slots = world.newsroom.schedule, ["2026-11-27", "2026-12-04", "2026-12-11"]
    opens, grace = schedule.slot(FRIDAY.date()).at, schedule.grace

    def coming(now: datetime) -> str:
        book.session.flush()
        return ledger.coming(book.session, schedule, now).name

    assert coming(opens) == slots[2]
    book.other.enrolled_at = None
    assert coming(opens) == slots[1]
    book.one.enrolled_at = None
    assert coming(opens - timedelta(seconds=1)) == coming(opens) == coming(opens + grace) == slots[0]
    assert coming(opens + grace + timedelta(seconds=1)) == slots[1]
    book.one.slot = "2026-01-02"
    assert coming(opens) == slots[0]


def test_only_earlier_slots_have_told_a_story_or_featured_a_term(book: Book, world: World) -> None:
    for issue in (book.one, book.other):
        for place, title in enumerate(("first", "second"), 1):
            told = f"{title} of {issue.number}"
            book.session.add(
                ToldRow(issue_id=issue.id or 0, place=place, url="u", title=told, source="s", summary="m", published=BEFORE)
            )
            book.session.flush()
    second = world.newsroom.schedule.slot(FRIDAY.date() + timedelta(weeks=1))
    (one, two) = ledger.past_stories(book.session, second)
    assert (one.title, two.title) == ("first of 1", "second of 1")
    assert (one.url, one.source, one.published, one.summary) == ("u", "s", BEFORE, "m")
    assert ledger.featured_terms(book.session, second) == {"term1": FRIDAY.date()}


def test_an_approval_is_voided_alone(book: Book) -> None:
    for issue in (book.one, book.other):
        issue.state = IssueState.APPROVED
    book.session.execute(update(DeliveryRow).values(batch_id=None))
    book.session.flush()
    ledger.reopen(book.session, "2026-12-04")
    assert [each.slot for each in book.session.exec(select(IssueRow))] == ["2026-11-27"]


def test_what_is_not_approved_cannot_be_voided(book: Book) -> None:
    with pytest.raises(UsageError, match=r"^nothing is approved for 2026-12-11$"):
        ledger.reopen(book.session, "2026-12-11")
    with pytest.raises(DecisionNeeded, match="issue 1 of 2026-11-27 is sending: its readers are enrolled, so it cannot change"):
        ledger.reopen(book.session, "2026-11-27")
    assert len(book.session.exec(select(IssueRow)).all()) == 2


def test_a_number_is_not_given_to_two_issues(world: World) -> None:
    world.tell_a_week()
    drafted = route.draft(world.newsroom, world.slot)
    with world.database.write() as session:
        ledger.freeze(session, drafted, NOW)
        late = replace(drafted, slot=world.newsroom.schedule.next(world.slot.at))
        with pytest.raises(DecisionNeeded, match=r"^number 1 was given to another issue meanwhile: run it again$"):
            ledger.freeze(session, late, NOW)
        assert [issue.slot for issue in session.exec(select(IssueRow))] == [world.slot.name]


@pytest.mark.parametrize("featured", [True, False])
def test_a_slot_is_frozen_once_with_the_term_of_its_issue_if_it_has_one(world: World, *, featured: bool) -> None:
    world.tell_a_week()
    drafted = route.draft(world.newsroom, world.slot)
    term = drafted.selection.term
    assert term
    bare = replace(drafted, selection=replace(drafted.selection, term=None))
    one, other = (drafted, bare) if featured else (bare, drafted)
    with world.database.write() as session:
        first = ledger.freeze(session, one, NOW)
        assert (first.term, first.frozen_at) == (term.term.slug if featured else "", NOW)
        assert ledger.freeze(session, other, NOW + timedelta(hours=1)) is first
        assert len(session.exec(select(ToldRow)).all()) == sum(1 + len(each.also) for each in drafted.selection.stories)


def test_enrolment_writes_a_copy_for_each_active_reader_once(book: Book) -> None:
    roll.suppress(book.session, "ada-pending@example.com", Why.COMPLAINT, NOW)
    roll.unsubscribe(book.session, "ben-pending@example.com", NOW)
    third = IssueRow(
        slot="2026-12-11", number=3, state=IssueState.APPROVED, frozen=ISSUE.to_json(), digest=ISSUE.digest, term="",
        frozen_at=BEFORE,
    )  # fmt: skip
    book.session.add(third)
    with book.changes() as changed:
        ledger.enrol(book.session, third, NOW_IN_TOKYO)
    assert changed.pop("2026-12-11")["enrolled_at"] == NOW
    made = list(changed.values())
    assert len({each["ref"] for each in made}) == len(made) == 2 * len(DeliveryState) - 1
    assert all(re.fullmatch("[0-9a-f]{32}", each["ref"]) for each in made)
    assert {each["issue_id"] for each in made} == {third.id}
    assert [each["subscriber_id"] for each in made] == sorted(each["subscriber_id"] for each in made)
    assert sorted((each["state"], each["reason"]) for each in made) == [("excluded", "complaint"), *[("pending", "")] * 12]
    assert {(each["changed_at"], each["suspect"], each["batch_id"]) for each in made} == {(NOW, False, None)}
    with book.changes() as changed:
        ledger.enrol(book.session, third, NOW + timedelta(hours=1))
    assert changed == {}


def test_neither_the_paused_nor_those_outside_the_audience_are_enrolled_or_counted(book: Book) -> None:
    paused = update(Subscriber).where(col(Subscriber.key).startswith("ada-")).values(paused_until=NOW + timedelta(seconds=1))
    book.session.execute(paused)
    over = update(Subscriber).where(col(Subscriber.key) == "ada-unknown@example.com").values(paused_until=NOW, source="fair")
    book.session.execute(over)
    book.session.execute(update(Subscriber).where(col(Subscriber.key).startswith("ben-s")).values(source="fair"))
    roll.suppress(book.session, "ada-pending@example.com", Why.MANUAL, NOW)
    roll.suppress(book.session, "ben-sending@example.com", Why.MANUAL, NOW)
    third = IssueRow(
        slot="2026-12-11", number=3, state=IssueState.APPROVED, frozen=ISSUE.to_json(), digest=ISSUE.digest, term="",
        frozen_at=BEFORE,
    )  # fmt: skip
    book.session.add(third)
    audience = compile_segment(parse("source:fair"))
    assert roll.count_mailable(book.session, NOW) == len(DeliveryState)
    assert roll.count_mailable(book.session, NOW, audience) == 2
    with book.changes() as changed:
        ledger.enrol(book.session, third, NOW, audience)
    del changed["2026-12-11"]
    whose = {each.id: each.key.partition("@")[0] for each in book.session.exec(select(Subscriber))}
    made = {whose[each["subscriber_id"]]: (each["state"], each["reason"]) for each in changed.values()}
    assert made == {
        "ada-unknown": ("pending", ""),
        "ben-skipped": ("pending", ""),
        "ben-sending": ("excluded", "manual"),
    }


@pytest.mark.parametrize("by", Pause)
def test_what_is_being_sent_can_be_paused_and_goes_on(book: Book, by: Pause) -> None:
    until = NOW + timedelta(hours=1)
    book.one.stuck_at = BEFORE
    with book.changes() as changed:
        assert ledger.pause(book.session, book.one, by, "a reason", until)
    assert changed == {"2026-11-27": {"state": "paused", "paused_by": by, "trouble": "a reason", "resume_at": until}}
    with book.changes() as changed:
        assert not ledger.pause(book.session, book.one, by, "another")
    assert changed == {}
    with book.changes() as changed:
        assert ledger.resume(book.session, book.one)
        assert not ledger.resume(book.session, book.one)
    assert changed == {"2026-11-27": {"state": "sending", "stuck_at": None, **NO_PAUSE}}


@pytest.mark.parametrize("waits", [DeliveryState.PENDING, DeliveryState.SENDING])
def test_an_issue_is_not_closed_while_a_copy_is_on_the_way(book: Book, waits: DeliveryState) -> None:
    book.only(waits)
    book.only(DeliveryState.UNKNOWN, number=2)
    assert batches.is_on_the_way(book.session, book.one)
    with book.changes() as changed:
        ledger.close(book.session, book.one, NOW)
    assert changed == {}


@pytest.mark.parametrize("stood", [IssueState.SENDING, IssueState.PAUSED, IssueState.NEEDS_DECISION])
@pytest.mark.parametrize(("left", "ends"), [(DeliveryState.UNKNOWN, "needs_decision"), (DeliveryState.SKIPPED, "sent")])
def test_an_issue_is_closed_by_what_is_left_of_it(book: Book, stood: IssueState, left: DeliveryState, ends: str) -> None:
    book.only(left)
    values = {"state": stood, "trouble": "down", "paused_by": "trouble", "resume_at": NOW}
    book.session.execute(update(IssueRow).where(col(IssueRow.id) == book.one.id).values(**values))
    assert not batches.is_on_the_way(book.session, book.one)
    with book.changes() as changed:
        ledger.close(book.session, book.one, NOW)
    assert changed == {"2026-11-27": ({} if stood == ends else {"state": ends}) | {"closed_at": NOW} | NO_PAUSE}
    assert ledger.is_undecided(book.session, book.one) == (left is DeliveryState.UNKNOWN)
    assert not ledger.is_undecided(book.session, book.other)


def test_a_closed_issue_is_not_closed_again(book: Book) -> None:
    book.only()
    ledger.close(book.session, book.one, BEFORE)
    with book.changes() as changed:
        ledger.close(book.session, book.one, NOW)
    assert changed == {}


def test_to_go_on_with_are_the_interrupted_and_those_that_were_paused_until_now_from_the_oldest_on(book: Book) -> None:
    session = book.session
    assert ledger.to_go_on_with(session, NOW) == [book.one, book.other]
    for by in (Pause.TROUBLE, Pause.RAMP, Pause.ZONES):
        ledger.resume(session, book.one)
        ledger.pause(session, book.one, by, "until then", NOW)
        assert ledger.to_go_on_with(session, NOW - timedelta(seconds=1)) == [book.other]
        assert ledger.to_go_on_with(session, NOW) == [book.one, book.other]
    book.one.slot = "2026-12-11"
    session.flush()
    assert ledger.to_go_on_with(session, NOW) == [book.other, book.one]
    ledger.pause(session, book.other, Pause.PERSON, "paused by a person")
    ledger.resume(session, book.one)
    ledger.pause(session, book.one, Pause.TROUBLE, "bad key")
    assert ledger.to_go_on_with(session, NOW) == []


def test_undecided_are_those_that_were_closed_since_then(book: Book) -> None:
    for issue in (book.other, book.one):
        book.only(DeliveryState.UNKNOWN, number=issue.number)
        ledger.close(book.session, issue, NOW)
    assert [each.number for each in ledger.undecided(book.session, NOW)] == [1, 2]
    book.other.slot = "2026-11-20"
    book.session.flush()
    assert [each.number for each in ledger.undecided(book.session, NOW)] == [2, 1]
    assert ledger.undecided(book.session, NOW + timedelta(seconds=1)) == []
    book.only(DeliveryState.SKIPPED)
    ledger.close(book.session, book.one, NOW)
    assert [each.number for each in ledger.undecided(book.session, NOW)] == [2]


def test_a_report_counts_this_issue_and_names_its_unknown_copies(book: Book) -> None:
    book.put("1-unknown-ben", subscriber_id=None)
    book.put("1-accepted-ada", fate=Fate.DELIVERED)
    book.put("1-accepted-ben", fate=Fate.COMPLAINED)
    book.put("2-accepted-ada", fate=Fate.BLOCKED)
    ledger.pause(book.session, book.one, Pause.PERSON, "lunch")
    book.session.refresh(book.one)
    told = ledger.report(book.session, book.one)
    assert (told.slot, told.number, told.state, told.subject) == ("2026-11-27", 1, "paused", ISSUE.subject)
    assert (told.enrolled, told.excluded, told.trouble, told.paused_by) == (12, 2, "lunch", "person")
    assert told.counts == dict.fromkeys(("pending", "sending", "accepted", "rejected", "skipped", "unknown"), 2)
    assert told.fates == {"delivered": 1, "complained": 1}
    ada, ben = told.unknown
    assert (ada.address, ada.ref, ada.since, ada.reason) == ("ada-unknown@example.com", "1-unknown-ada", BEFORE, "as it was")
    assert (ben.address, ben.ref) == ("erased", "1-unknown-ben")


def test_a_tally_counts_this_issue_alone(book: Book) -> None:
    book.put("2-accepted-ada", state=DeliveryState.REJECTED)
    assert ledger.tally(book.session, book.one) == (dict.fromkeys(DeliveryState, 2), {})


def test_copies_that_are_all_alike_are_counted_as_what_they_are(book: Book) -> None:
    mine = col(DeliveryRow.issue_id) == book.one.id
    everybody = 2 * len(DeliveryState)
    for state in DeliveryState:
        # What is sending is in a call that is out.
        book.session.execute(update(DeliveryRow).where(mine).values(state=state, batch_id=book.batch("1-out").id))
        assert ledger.tally(book.session, book.one) == ({state: everybody}, {})
        told = ledger.report(book.session, book.one)
        assert (told.enrolled, told.excluded) == ((0, everybody) if state is DeliveryState.EXCLUDED else (everybody, 0))


def test_a_tally_tells_each_fate_of_this_issue_in_their_own_order(book: Book) -> None:
    for place, fate in enumerate(Fate):
        which = col(DeliveryRow.ref).in_([f"1-{state}-ada" for state in list(DeliveryState)[: place + 1]])
        book.session.execute(update(DeliveryRow).where(which, col(DeliveryRow.fate) == "").values(fate=fate))
    book.put("2-accepted-ben", fate=Fate.BLOCKED)
    states, fates = ledger.tally(book.session, book.one)
    assert list(fates.items()) == [(fate.value, 1) for fate in Fate]
    assert states == dict.fromkeys(DeliveryState, 2)


def test_copies_of_one_fate_are_counted_together_whatever_their_states(book: Book) -> None:
    alike = [f"1-{state}-ada" for state in (DeliveryState.ACCEPTED, DeliveryState.REJECTED, DeliveryState.UNKNOWN)]
    book.session.execute(update(DeliveryRow).where(col(DeliveryRow.ref).in_(alike)).values(fate=Fate.BLOCKED))
    assert ledger.tally(book.session, book.one) == (dict.fromkeys(DeliveryState, 2), {"blocked": 3})


def test_who_was_lost_sight_of_is_told_with_what_a_log_is_asked(book: Book) -> None:
    book.put("1-unknown-ada", resent=1)
    taken = book.batch("1-home")
    when = update(BatchRow).where(col(BatchRow.id) == taken.id)
    book.session.execute(when.values(attempted_at=NOW))
    ada, ben = ledger.lost_sight_of(book.session, book.one)
    assert (ada.copy.ref, ada.copy.address) == ("1-unknown-ada", "ada-unknown@example.com")
    assert (ada.resent, ada.claimed_at, ada.attempted_at) == (1, BEFORE, NOW)
    assert (ben.copy.ref, ben.resent) == ("1-unknown-ben", 0)


def test_a_log_is_believed_about_unknown_copies_and_may_close_an_issue_anew(book: Book) -> None:
    book.only(DeliveryState.UNKNOWN)
    ledger.close(book.session, book.one, BEFORE)
    ada, ben = ("1-unknown-ada", "1-unknown-ben")
    with book.changes() as changed:
        answers = [Receipt(ada, accepted=True, provider_id="x"), Receipt("1-accepted-ben", accepted=False)]
        assert ledger.found(book.session, book.one, answers, NOW) == 1
    accepted = {"state": "accepted", "provider_id": "x", "reason": "", "changed_at": NOW}
    assert changed == {ada: accepted, "2026-11-27": {"closed_at": NOW}}
    with book.changes() as changed:
        refused = [Receipt(ben, accepted=False, reason="bad")]
        assert ledger.found(book.session, book.one, refused, NOW) == 1
    rejected = {"state": "rejected", "reason": "bad", "changed_at": NOW}
    assert changed == {ben: rejected, "2026-11-27": {"state": "sent"}}
    with book.changes() as changed:
        assert ledger.found(book.session, book.one, refused, NOW + timedelta(hours=1)) == 0
    assert changed == {}


def test_unknown_copies_are_sent_again_by_themselves_only_so_often(book: Book) -> None:
    book.only(DeliveryState.UNKNOWN)
    ledger.close(book.session, book.one, BEFORE)
    book.put("1-unknown-ben", resent=1)
    refs = ["1-unknown-ada", "1-unknown-ben", "1-accepted-ada"]
    again = {"state": "pending", "batch_id": None, "resent": 1, "reason": "sent again: on_unknown", "changed_at": NOW}
    with book.changes() as changed:
        assert ledger.send_again(book.session, book.one, refs, 1, NOW_IN_TOKYO) == 1
    assert changed == {"1-unknown-ada": again, "2026-11-27": {"state": "sending", "closed_at": None}}
    with book.changes() as changed:
        assert ledger.send_again(book.session, book.one, refs, 1, NOW) == 0
    assert changed == {}


def test_an_issue_that_is_closed_stays_so_where_nothing_is_sent_again(book: Book) -> None:
    book.only(DeliveryState.UNKNOWN)
    ledger.close(book.session, book.one, BEFORE)
    with book.changes() as changed:
        assert ledger.send_again(book.session, book.one, ["1-accepted-ada"], 1, NOW) == 0
        assert ledger.resolve(book.session, book.other, Decision.RESEND, "ada-accepted@example.com", NOW) == 0
    assert changed == {}


DECIDED: dict[Decision, dict[str, Any]] = {
    Decision.ACCEPTED: {"state": "accepted", "reason": "decided by a person: accepted"},
    Decision.SKIP: {"state": "skipped", "reason": "decided by a person: skip"},
    Decision.RESEND: {"state": "pending", "reason": "decided by a person: resend", "batch_id": None},
}


@pytest.mark.parametrize("decision", Decision)
def test_a_person_decides_about_all_unknown_copies_of_an_issue(book: Book, decision: Decision) -> None:
    book.only(DeliveryState.UNKNOWN)
    ledger.close(book.session, book.one, BEFORE)
    with book.changes() as changed:
        assert ledger.resolve(book.session, book.one, decision, None, NOW) == 2
    resent = decision is Decision.RESEND
    issue = {"state": "sending", "closed_at": None} if resent else {"state": "sent", "closed_at": NOW}
    copy = DECIDED[decision] | {"changed_at": NOW}
    assert changed == {"1-unknown-ada": copy, "1-unknown-ben": copy, "2026-11-27": issue}


@pytest.mark.parametrize("decision", Decision)
def test_a_person_decides_about_one_reader(book: Book, decision: Decision) -> None:
    with book.changes() as changed:
        assert ledger.resolve(book.session, book.one, decision, "ben-unknown@example.com", NOW) == 1
        assert ledger.resolve(book.session, book.one, decision, "ben-sending@example.com", NOW) == 0
    assert changed == {"1-unknown-ben": DECIDED[decision] | {"changed_at": NOW}}


def test_who_is_out_is_told_of_one_issue(book: Book) -> None:
    assert batches.in_flight(book.session, book.one) == [book.batch("1-out")]
    runner = {"attempt": 2, "runner": "them", "attempted_at": NOW}
    with book.changes() as changed:
        held = batches.take_over(book.session, book.batch("1-out"), "them", NOW)
    assert held == book.batch("1-out")
    assert changed == {"1-out": runner}


def late(batch: Batch) -> Batch:
    return replace(batch, attempt=batch.attempt - 1)


STALE: list[Callable[[Book], Batch]] = [lambda book: late(book.batch("1-out")), lambda book: book.batch("1-home")]
STEPS: list[Callable[[Session, Batch], object]] = [
    lambda session, batch: batches.take_over(session, batch, "them", NOW),
    lambda session, batch: batches.give_back(session, batch, NOW, "down"),
    batches.let_go,
    lambda session, batch: batches.reject(session, batch, NOW, "bad"),
    lambda session, batch: batches.lose_sight(session, batch, NOW, "gone"),
]


@pytest.mark.parametrize("stale", STALE, ids=["an earlier attempt", "settled"])
@pytest.mark.parametrize("step", STEPS, ids=["take over", "give back", "let go", "reject", "lose sight"])
def test_who_is_late_changes_nothing(
    book: Book, step: Callable[[Session, Batch], object], stale: Callable[[Book], Batch]
) -> None:
    with book.changes() as changed:
        assert not step(book.session, stale(book))
    assert changed == {}


def sent(*readers: str) -> list[Receipt]:
    return [Receipt(ref(1, DeliveryState.SENDING, reader), accepted=True, provider_id="id") for reader in readers]


def both(change: dict[str, Any]) -> Change:
    return {"1-sending-ada": change | {"changed_at": NOW}, "1-sending-ben": change | {"changed_at": NOW}}


OVER = {"1-out": {"settled_at": NOW}}
BACK = {"state": "pending", "reason": "down", "batch_id": None}
OUTCOMES: list[tuple[Callable[[Batch], Outcome], Change]] = [
    (lambda batch: GivenBack(batch, "down"), both(BACK) | OVER),
    (lambda batch: GivenBack(batch, "down", 3, suspect=True), both(BACK | {"cap": 3, "suspect": True}) | OVER),
    (lambda batch: Refused(batch, "bad"), both({"state": "rejected", "reason": "bad"}) | OVER),
    (lambda batch: Lost(batch, "gone"), both({"state": "unknown", "reason": "gone"}) | OVER),
    (LetGo, {"1-out": {"runner": ""}}),
]


@pytest.mark.parametrize(("outcome", "change"), OUTCOMES, ids=["given back", "halved", "refused", "lost", "let go"])
def test_each_outcome_moves_its_batch_alone(book: Book, outcome: Callable[[Batch], Outcome], change: Change) -> None:
    with book.changes() as changed:
        settle(book.session, [outcome(book.batch("1-out"))], NOW, MOST_PUT_OFF)
    assert changed == change


def test_how_many_were_lost_sight_of_is_told(book: Book) -> None:
    assert batches.lose_sight(book.session, book.batch("1-out"), NOW, "gone") == 2


def answered(book: Book, receipts: Sequence[Receipt], batch: Batch | None = None) -> Answered:
    parcel = Parcel("1-out", BEFORE, tuple(batches.copies_for(ISSUE, ["1-sending-ada", "1-sending-ben"], ["a", "b"], ["", ""])))
    return Answered(batch or book.batch("1-out"), parcel, receipts)


ACCEPTED = {"state": "accepted", "provider_id": "id", "reason": ""}


def test_one_answer_for_all_settles_a_batch(book: Book) -> None:
    with book.changes() as changed:
        settle(book.session, [answered(book, sent("ben", "ada"))], NOW, MOST_PUT_OFF)
    assert changed == both(ACCEPTED) | OVER


def test_many_batches_are_settled_at_once_each_with_its_answer(book: Book) -> None:
    """More than are settled one by one; each of another batch, and one whose answer is a refusal."""
    issue = book.one.id or 0
    said, change = [], Change()
    for number in range(batches.FEW + 1):
        row = BatchRow(issue_id=issue, key=f"k{number}", digest="", runner="us", claimed_at=BEFORE, attempted_at=BEFORE)
        book.session.add(row)
        book.session.flush()
        copy = DeliveryRow(issue_id=issue, ref=f"r{number}", state="sending", batch_id=row.id, changed_at=BEFORE)
        book.session.add(copy)
        book.session.flush()
        parcel = Parcel(row.key, BEFORE, tuple(batches.copies_for(ISSUE, [f"r{number}"], ["a"], [""])))
        receipt = Receipt(f"r{number}", number > 0, f"id{number}", f"why{number}")
        said.append(Answered(book.batch(row.key), parcel, [receipt]))
        state = "accepted" if number else "rejected"
        change[f"k{number}"] = {"settled_at": NOW}
        change[f"r{number}"] = {
            "state": state, "provider_id": f"id{number}", "reason": f"why{number}", "changed_at": NOW,
        }  # fmt: skip
    with book.changes() as changed:
        settle(book.session, said, NOW, MOST_PUT_OFF)
    assert changed == change


def test_a_late_answer_is_believed_also_of_what_was_given_up(book: Book) -> None:
    batches.lose_sight(book.session, book.batch("1-out"), BEFORE, "gone")
    with book.changes() as changed:
        settle(book.session, [answered(book, sent("ada", "ben"))], NOW, MOST_PUT_OFF)
    assert changed == both(ACCEPTED)


def test_a_late_answer_ends_no_later_attempt(book: Book) -> None:
    batches.take_over(book.session, book.batch("1-out"), "them", BEFORE)
    with book.changes() as changed:
        settle(book.session, [answered(book, sent("ada"), late(book.batch("1-out")))], NOW, MOST_PUT_OFF)
    assert changed == {"1-sending-ada": ACCEPTED | {"changed_at": NOW}}


def test_whom_an_answer_does_not_name_becomes_unknown(book: Book) -> None:
    strangers = [Receipt("1-pending-ada", accepted=True), Receipt("1-accepted-ada", accepted=False)]
    with book.changes() as changed:
        settle(book.session, [answered(book, [*strangers, *sent("ada")])], NOW, MOST_PUT_OFF)
    silent = {"state": "unknown", "reason": "the provider did not answer for it", "changed_at": NOW}
    assert changed == {"1-sending-ada": ACCEPTED | {"changed_at": NOW}, "1-sending-ben": silent, **OVER}


def test_answers_that_differ_are_each_believed(book: Book) -> None:
    refused = Receipt("1-sending-ben", accepted=False, reason="bad")
    with book.changes() as changed:
        settle(book.session, [answered(book, [*sent("ada"), refused])], NOW, MOST_PUT_OFF)
    rejected = {"state": "rejected", "reason": "bad", "changed_at": NOW}
    assert changed == {"1-sending-ada": ACCEPTED | {"changed_at": NOW}, "1-sending-ben": rejected, **OVER}


@pytest.mark.parametrize(("times", "spent"), [(0, False), (MOST_PUT_OFF - 2, False), (MOST_PUT_OFF - 1, True)])
def test_a_copy_is_put_off_until_its_patience_is_spent(book: Book, times: int, *, spent: bool) -> None:
    book.put("1-sending-ben", put_off=times)
    later = Receipt("1-sending-ben", accepted=False, reason="greylisted", later=True)
    with book.changes() as changed:
        settle(book.session, [answered(book, [*sent("ada"), later])], NOW, MOST_PUT_OFF)
    again: dict[str, Any] = {
        "state": "pending",
        "reason": "greylisted",
        "batch_id": None,
        "suspect": True,
        "put_off": times + 1,
    }
    given_up = {"state": "rejected", "reason": f"put off {MOST_PUT_OFF} times: greylisted"}
    assert changed.pop("1-sending-ben") == (given_up if spent else again) | {"changed_at": NOW}
    assert changed == {"1-sending-ada": ACCEPTED | {"changed_at": NOW}, **OVER}


def test_all_may_be_put_off(book: Book) -> None:
    later = [Receipt(f"1-sending-{reader}", accepted=False, reason="busy", later=True) for reader in ("ada", "ben")]
    with book.changes() as changed:
        settle(book.session, [answered(book, later)], NOW, MOST_PUT_OFF)
    again = {"state": "pending", "reason": "busy", "batch_id": None, "suspect": True, "put_off": 1}
    assert changed == both(again) | OVER


def test_copies_that_are_put_off_keep_each_its_own_reason_and_patience(book: Book) -> None:
    """And what is given up is counted, over all of them."""
    book.put("1-sending-ada", put_off=MOST_PUT_OFF)
    book.put("1-sending-ben", put_off=1)
    later = [Receipt(f"1-sending-{reader}", accepted=False, reason=reader, later=True) for reader in ("ada", "ben")]
    with book.changes() as changed:
        assert settle(book.session, [answered(book, later)], NOW, MOST_PUT_OFF) == 1
    given_up = {"state": "rejected", "reason": f"put off {MOST_PUT_OFF} times: ada", "changed_at": NOW}
    again = {"state": "pending", "reason": "ben", "batch_id": None, "suspect": True, "put_off": 2, "changed_at": NOW}
    assert changed == {"1-sending-ada": given_up, "1-sending-ben": again, **OVER}


def test_all_that_is_given_up_is_counted(book: Book) -> None:
    for reader in ("ada", "ben"):
        book.put(f"1-sending-{reader}", put_off=MOST_PUT_OFF)
    later = [Receipt(f"1-sending-{reader}", accepted=False, later=True) for reader in ("ada", "ben")]
    assert settle(book.session, [answered(book, later)], NOW, MOST_PUT_OFF) == 2


def test_a_late_answer_gives_nobody_up(book: Book) -> None:
    out = book.batch("1-out")
    batches.take_over(book.session, out, "them", BEFORE)
    book.put("1-sending-ada", put_off=MOST_PUT_OFF)
    later = [Receipt("1-sending-ada", accepted=False, later=True)]
    with book.changes() as changed:
        assert settle(book.session, [answered(book, later, late(out))], NOW, MOST_PUT_OFF) == 0
    assert changed == {}


def test_what_is_given_back_is_under_no_suspicion_unless_that_is_said(book: Book) -> None:
    with book.changes() as changed:
        batches.give_back(book.session, book.batch("1-out"), NOW, "not gone")
    assert changed == both({"state": "pending", "reason": "not gone", "batch_id": None}) | OVER


def wanted(size: int, calls: int = 1, most: int = 100) -> Wanted:
    return Wanted(size, calls, most)


def pend(book: Book, number: int) -> list[str]:
    """Make so many copies of the first issue pending beside the two that are, with readers of their own; all refs in order."""
    for place in range(number):
        subscriber = roll.add(book.session, f"reader{place}@example.com", NOW)
        book.session.flush()
        row = book.session.exec(select(Subscriber).where(Subscriber.key == f"reader{place}@example.com")).one()
        assert subscriber
        copy = DeliveryRow(issue_id=book.one.id or 0, subscriber_id=row.id, ref=f"r{place}", state="pending", changed_at=BEFORE)
        book.session.add(copy)
        book.session.flush()
    return ["1-pending-ada", "1-pending-ben", *(f"r{place}" for place in range(number))]


def refs(claimed: list[tuple[Batch, Parcel]]) -> list[list[str]]:
    return [[copy.ref for copy in parcel.copies] for _, parcel in claimed]


@pytest.mark.parametrize("calls", [1, 2, batches.FEW, batches.FEW + 2])
def test_pending_copies_are_taken_in_order_as_batches_that_are_sending(book: Book, calls: int) -> None:
    names = pend(book, 2 * batches.FEW + 3)
    book.put("1-pending-ada", cap=None)
    with book.changes() as changed:
        leaving, skipped = claim(book.session, book.one, ISSUE, wanted(2, calls), "us", NOW)
    assert skipped == 0
    assert refs(leaving) == [names[2 * place : 2 * place + 2] for place in range(calls)]
    dated = NOW.replace(microsecond=0)
    for batch, parcel in leaving:
        made = changed.pop(parcel.key)
        assert batch == Batch(made.pop("id"), 1, "us", dated, NOW)
        assert len(parcel.key) == 32
        assert parcel.dated == dated
        assert made == {
            "issue_id": book.one.id, "key": parcel.key, "digest": parcel.digest(ISSUE.digest), "attempt": 1, "runner": "us",
            "claimed_at": dated, "attempted_at": NOW, "settled_at": None,
        }  # fmt: skip
        for copy in parcel.copies:
            assert changed.pop(copy.ref) == {"state": "sending", "batch_id": batch.id, "changed_at": NOW} | (
                {"reason": ""} if copy.ref.startswith("1-") else {}
            )
        again = batches.parcel_again(book.session, book.one, ISSUE, batch)
        assert again == parcel
    # As the database compares them, which in SQLite is letter by letter.
    as_written = (col(BatchRow.claimed_at) == dated) & (col(BatchRow.attempted_at) == NOW)
    assert set(book.session.exec(select(BatchRow.id).where(as_written))) == {batch.id for batch, _ in leaving}
    assert changed == {}
    assert len({parcel.key for _, parcel in leaving}) == calls


@pytest.mark.parametrize("calls", [1, batches.FEW + 2])
def test_copies_that_are_no_longer_pending_when_they_are_taken_stop_the_claim(
    book: Book, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    pend(book, 2 * calls)
    look = claiming._pending

    def then_another_writer(*args: Any) -> Any:
        rows = look(*args)
        book.put("1-pending-ada", state=DeliveryState.ACCEPTED)
        return rows

    monkeypatch.setattr(claiming, "_pending", then_another_writer)
    with pytest.raises(RuntimeError, match=rf"claimed {2 * calls - 1} of {2 * calls} copies"):
        claim(book.session, book.one, ISSUE, wanted(2, calls), "us", NOW)


def test_a_copy_is_addressed_to_its_reader(book: Book) -> None:
    token = book.session.exec(select(Subscriber.token).where(Subscriber.key == "ada-pending@example.com")).one()
    ((_, parcel),), _ = claim(book.session, book.one, ISSUE, wanted(1), "us", NOW)
    (copy,) = parcel.copies
    assert (copy.ref, copy.address) == ("1-pending-ada", "ada-pending@example.com")
    assert copy.unsubscribe_url.endswith(token)
    assert copy.unsubscribe_mail == ""


def test_a_box_for_such_mails_is_printed_where_there_is_one(book: Book) -> None:
    token = book.session.exec(select(Subscriber.token).where(Subscriber.key == "ada-pending@example.com")).one()
    boxed = replace(ISSUE, mailbox="leave@news.example.com")
    ((batch, parcel),), _ = claim(book.session, book.one, boxed, wanted(1), "us", NOW)
    assert parcel.copies[0].unsubscribe_url == f"https://news.example.com/u/{token}"
    assert parcel.copies[0].unsubscribe_mail.startswith("mailto:leave@news.example.com")
    assert token in parcel.copies[0].unsubscribe_mail
    assert batches.parcel_again(book.session, book.one, boxed, batch) == parcel
    assert batches.parcel_again(book.session, book.one, ISSUE, batch) is None


def test_no_more_is_taken_than_may_go(book: Book) -> None:
    names = pend(book, 4)
    assert refs(claim(book.session, book.one, ISSUE, wanted(2, 5, most=3), "us", NOW).leaving) == [names[:2], names[2:3]]


def test_copies_of_a_refused_call_go_in_smaller_ones_and_not_with_others(book: Book) -> None:
    names = pend(book, 4)
    book.session.execute(update(DeliveryRow).where(col(DeliveryRow.ref).in_(names[1:4])).values(cap=2))
    taken = refs(claim(book.session, book.one, ISSUE, wanted(3, 9), "us", NOW).leaving)
    assert taken == [names[:1], names[1:3], names[3:4], names[4:]]
    caps = book.session.exec(select(DeliveryRow.cap).where(col(DeliveryRow.ref).in_(names))).all()
    assert set(caps) == {None}


def test_smaller_calls_are_no_more_calls(book: Book) -> None:
    names = pend(book, 4)
    book.session.execute(update(DeliveryRow).where(col(DeliveryRow.ref).in_(names)).values(cap=1))
    assert refs(claim(book.session, book.one, ISSUE, wanted(3, 2), "us", NOW).leaving) == [names[:1], names[1:2]]
    assert refs(claim(book.session, book.one, ISSUE, wanted(3, 2), "us", NOW).leaving) == [names[2:3], names[3:4]]


def test_suspects_go_last_and_one_by_one(book: Book) -> None:
    names = pend(book, 2)
    book.session.execute(update(DeliveryRow).where(col(DeliveryRow.ref).in_(names[:2])).values(suspect=True))
    first, second, third = (claim(book.session, book.one, ISSUE, wanted(3, 3), "us", NOW).leaving for _ in range(3))
    assert refs(first) == [names[2:]]
    assert refs(second) == [names[:1]]
    assert refs(third) == [names[1:2]]
    assert [batch.suspect for batch, _ in (*first, *second, *third)] == [False, True, True]
    assert claim(book.session, book.one, ISSUE, wanted(3, 3), "us", NOW) == ([], 0)


def test_who_may_not_be_mailed_any_more_is_skipped_with_the_reason(book: Book) -> None:
    names = pend(book, 4)
    roll.suppress(book.session, "ada-pending@example.com", Why.MANUAL, NOW)
    roll.suppress(book.session, "ben-pending@example.com", Why.MANUAL, NOW)
    roll.unsubscribe(book.session, "reader0@example.com", NOW)
    book.session.execute(update(Subscriber).where(col(Subscriber.key) == "reader1@example.com").values(state="pending"))
    book.session.execute(update(DeliveryRow).where(col(DeliveryRow.ref) == "r3").values(subscriber_id=None))
    with book.changes() as changed:
        leaving, skipped = claim(book.session, book.one, ISSUE, wanted(9), "us", NOW)
    assert (refs(leaving), skipped) == ([["r2"]], 4)
    for name, why in zip(names, ("manual", "manual", "unsubscribed", "pending"), strict=False):
        assert changed.pop(name) == {"state": "skipped", "reason": why, "changed_at": NOW}
    assert set(changed) == {"r2", leaving[0][1].key}
    with book.changes() as changed:
        assert claim(book.session, book.one, ISSUE, wanted(9), "us", NOW) == ([], 1)
    assert changed == {"r3": {"state": "skipped", "reason": "erased", "changed_at": NOW}}


def test_who_has_paused_since_is_skipped_until_the_very_moment(book: Book) -> None:
    names = pend(book, 3)
    pause = update(Subscriber).where(col(Subscriber.key) == bindparam("whose")).values(paused_until=bindparam("until"))
    for whose, until in (("ada-pending", NOW + timedelta(microseconds=1)), ("ben-pending", NOW), ("reader0", BEFORE)):
        book.session.connection().execute(pause, {"whose": f"{whose}@example.com", "until": until})
    roll.suppress(book.session, "ada-sending@example.com", Why.MANUAL, NOW)
    with book.changes() as changed:
        leaving, skipped = claim(book.session, book.one, ISSUE, wanted(9), "us", NOW)
    assert skipped == 1
    assert changed.pop(names[0]) == {"state": "skipped", "reason": "paused", "changed_at": NOW}
    assert names[0] not in refs(leaving)[0]
    assert set(names[1:]) == set(refs(leaving)[0])


def test_a_paused_reader_who_may_not_be_mailed_either_is_skipped_for_that(book: Book) -> None:
    names = pend(book, 1)
    book.session.execute(update(Subscriber).values(paused_until=NOW + timedelta(days=1)))
    roll.suppress(book.session, "ada-pending@example.com", Why.COMPLAINT, NOW)
    roll.unsubscribe(book.session, "ben-pending@example.com", NOW)
    with book.changes() as changed:
        claim(book.session, book.one, ISSUE, wanted(9), "us", NOW)
    assert [changed[name]["reason"] for name in names] == ["complaint", "unsubscribed", "paused"]


@pytest.mark.parametrize("state", [state for state in IssueState if state is not IssueState.SENDING])
def test_only_an_issue_that_is_sending_gives_copies_away(book: Book, state: IssueState) -> None:
    book.one.state = state
    book.session.flush()
    with book.changes() as changed:
        assert claim(book.session, book.one, ISSUE, wanted(9), "us", NOW) == ([], 0)
    assert changed == {}


def test_a_parcel_whose_reader_is_erased_or_has_moved_is_not_made_again(book: Book) -> None:
    ((batch, parcel),), _ = claim(book.session, book.one, ISSUE, wanted(2), "us", NOW)
    assert batches.parcel_again(book.session, book.one, ISSUE, batch) == parcel
    mine = col(Subscriber.key) == "ben-pending@example.com"
    book.session.execute(update(Subscriber).where(mine).values(address="ben@elsewhere.example"))
    assert batches.parcel_again(book.session, book.one, ISSUE, batch) is None
    book.session.execute(update(DeliveryRow).where(col(DeliveryRow.batch_id) == batch.id).values(subscriber_id=None))
    assert batches.parcel_again(book.session, book.one, ISSUE, batch) is None


def test_how_many_have_left_is_counted_over_all_issues_since_an_instant(book: Book) -> None:
    everybody = 2 * 2 * len(IN_A_BATCH)
    assert batches.left_since(book.session, BEFORE) == (everybody, book.id_of(BatchRow, key="2-home"))
    later = update(BatchRow).where(col(BatchRow.key) == "1-out").values(claimed_at=NOW)
    book.session.execute(later)
    assert batches.left_since(book.session, BEFORE + timedelta(seconds=1)) == (2, book.id_of(BatchRow, key="1-out"))
    first = book.id_of(BatchRow, key="1-out")
    assert batches.left_since(book.session, BEFORE, first).copies == everybody - 2
    last = book.id_of(BatchRow, key="2-home")
    assert batches.left_since(book.session, BEFORE, last) == (0, last)


def test_an_issue_is_kept_with_its_term_and_its_stories_in_their_places(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    drafted = route.draft(world.newsroom, world.slot)
    assert drafted.selection.term
    assert route.publish(world.newsroom, world.slot).excluded == 0
    with world.database.read() as session:
        (issue,) = session.exec(select(IssueRow)).all()
        told = session.exec(select(ToldRow.place, ToldRow.url).order_by(col(ToldRow.id))).all()
        past = ledger.past_stories(session, replace(world.slot, day=world.slot.day + timedelta(days=7)))
    assert past == [each.story for each in drafted.selection.stories]
    assert all(story.summary for story in past)
    assert issue.term == drafted.selection.term.term.slug
    assert list(told) == [(place, each.story.url) for place, each in enumerate(drafted.selection.stories, 1)]
