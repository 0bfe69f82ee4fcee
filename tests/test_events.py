"""What providers and mail servers tell later: kept once, and applied in any order to the same end."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import permutations, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import Session, col, select, update

from pipeline import batches, events, ledger
from pipeline import settle as settling
from pipeline.batches import Batch
from pipeline.books import BatchRow, DeliveryRow, DeliveryState, Fate, IssueRow, IssueState, NoticeRow, Pause
from pipeline.deliver import MOST_PUT_OFF
from pipeline.events import BLOCKED_ONE_IN, FATES, SOFT_BOUNCES
from pipeline.issue import Copy, Event, Kind, Notice, Parcel, Receipt
from pipeline.settle import Answered
from subscribers import roll
from subscribers.models import State, Subscriber, Suppression, Why
from tests.conftest import FRIDAY, World

PROOFS = [kind for kind in Kind if kind is not Kind.OTHER]
NOT_YET = [DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.UNKNOWN]
WEEKS = 7


def ref(issue: int, name: str) -> str:
    """The reference of a reader's copy in one of our issues."""
    return f"{issue:02x}{name.encode().hex():0>30}"


def write_issue(
    session: Session,
    number: int,
    *names: str,
    state: DeliveryState = DeliveryState.ACCEPTED,
    stands: IssueState = IssueState.SENDING,
) -> IssueRow:
    """An issue with a copy for each of these readers, all in one batch."""
    slot = f"{FRIDAY + timedelta(weeks=number):%Y-%m-%d}"
    issue = IssueRow(slot=slot, number=number, state=stands, frozen="{}", digest="", term="", frozen_at=FRIDAY)
    session.add(issue)
    session.flush()
    held = state not in (DeliveryState.PENDING, DeliveryState.EXCLUDED)
    over = None if state is DeliveryState.SENDING else FRIDAY
    batch = BatchRow(
        issue_id=issue.id or 0, key=f"key {number}", digest="", runner="us", claimed_at=FRIDAY, attempted_at=FRIDAY,
        settled_at=over,
    )  # fmt: skip
    session.add(batch)
    session.flush()
    for name in names:
        reader = roll.by_key(session, f"{name}@example.com")
        session.add(
            DeliveryRow(
                issue_id=issue.id or 0,
                subscriber_id=reader.id if reader else None,
                ref=ref(number, name),
                state=state,
                batch_id=batch.id if held else None,
                changed_at=FRIDAY,
            )
        )
    session.flush()
    return issue


def publish(
    world: World,
    *names: str,
    state: DeliveryState = DeliveryState.ACCEPTED,
    stands: IssueState = IssueState.SENDING,
    weeks: int = 1,
) -> None:
    """Subscribe readers and write issues from 1 on for them."""
    world.subscribe(*names)
    with world.database.write() as session:
        for number in range(1, weeks + 1):
            write_issue(session, number, *names, state=state, stands=stands)


def tell(world: World, *told: Event) -> None:
    for event in told:
        with world.database.write() as session:
            events.apply(session, event, world.clock())


def copy_of(world: World, issue: int, name: str) -> tuple[str, str]:
    """State and fate of a copy."""
    with world.database.read() as session:
        found = session.exec(select(DeliveryRow).where(DeliveryRow.ref == ref(issue, name))).one()
        return found.state, found.fate


def issue_of(world: World, number: int = 1) -> IssueRow:
    with world.database.read() as session:
        return session.exec(select(IssueRow).where(IssueRow.number == number)).one()


def suppressed(world: World) -> dict[str, str]:
    with world.database.read() as session:
        return roll.suppressed_keys(session)


def state_of(world: World, name: str) -> str:
    with world.database.read() as session:
        found = roll.by_key(session, f"{name}@example.com")
        assert found is not None
        return found.state


def of(kind: Kind, issue: int = 1, name: str = "ada", address: str = "") -> Event:
    return Event(kind, ref(issue, name), address)


# Kept


def keep(world: World, origin: str, *keys: str) -> int:
    with world.database.write() as session:
        return events.keep(session, origin, [Notice(key, f"body of {key}") for key in keys], world.clock())


def kept(world: World) -> list[tuple[str, str]]:
    with world.database.read() as session:
        return [(each.origin, each.key) for each in session.exec(select(NoticeRow).order_by(col(NoticeRow.id)))]


def test_a_notice_is_stored_once_however_often_it_comes(world: World) -> None:
    assert keep(world, "mailgun", "a", "b") == 2
    assert keep(world, "mailgun", "b", "c", "c") == 1
    assert keep(world, "mailgun", "a") == 0
    assert keep(world, "mailbox", "a") == 1
    assert kept(world) == [("mailgun", "a"), ("mailgun", "b"), ("mailgun", "c"), ("mailbox", "a")]
    assert keep(world, "mailgun") == 0


def test_a_notice_that_was_applied_comes_again_in_vain(world: World) -> None:
    keep(world, "mailgun", "a")
    with world.database.write() as session:
        (notice,) = events.waiting(session, 9)
        assert events.finish(session, notice, world.clock())
    assert keep(world, "mailgun", "a") == 0
    with world.database.read() as session:
        assert events.waiting(session, 9) == []


def test_the_same_notice_from_several_calls_at_once_is_stored_once(world: World) -> None:
    start, new = threading.Barrier(4), list[int]()

    def call() -> None:
        start.wait()
        new.append(keep(world, "mailgun", *(f"key {number}" for number in range(20))))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(new) == len(kept(world)) == 20


def test_the_oldest_notices_wait_in_front(world: World) -> None:
    keep(world, "mailgun", "a", "b", "c")
    with world.database.read() as session:
        assert [each.key for each in events.waiting(session, 2)] == ["a", "b"]
        assert [each.key for each in events.waiting(session, 2, but_of="mailgun")] == []


# Proof that a copy was taken


@pytest.mark.parametrize(("state", "kind"), [*product(NOT_YET, PROOFS)])
def test_an_event_that_names_a_copy_proves_that_it_was_taken(local_world: World, state: DeliveryState, kind: Kind) -> None:
    publish(local_world, "ada", "ben", state=state)
    tell(local_world, Event(kind, ref(1, "ada"), provider_id="id of theirs"))
    assert copy_of(local_world, 1, "ada") == ("accepted", FATES.get(kind, ""))
    assert copy_of(local_world, 1, "ben") == (state, "")
    with local_world.database.read() as session:
        found = session.exec(select(DeliveryRow).where(DeliveryRow.ref == ref(1, "ada"))).one()
    assert (found.provider_id, found.reason) == ("id of theirs", f"told later: {kind.replace('_', ' ')}")


@pytest.mark.parametrize("state", [DeliveryState.REJECTED, DeliveryState.SKIPPED, DeliveryState.EXCLUDED])
def test_what_was_rejected_or_skipped_stays_so_whatever_is_told(local_world: World, state: DeliveryState) -> None:
    publish(local_world, "ada", state=state)
    tell(local_world, *(of(kind) for kind in Kind))
    assert copy_of(local_world, 1, "ada")[0] == state


def test_what_has_no_meaning_for_us_changes_nothing(world: World) -> None:
    publish(world, "ada", state=DeliveryState.UNKNOWN, stands=IssueState.NEEDS_DECISION)
    tell(world, of(Kind.OTHER, address="ada@example.com"))
    assert copy_of(world, 1, "ada") == ("unknown", "")
    assert issue_of(world).state == IssueState.NEEDS_DECISION
    assert suppressed(world) == {}


def test_an_issue_in_need_of_a_decision_closes_with_the_proof_of_its_last_unknown_copy(world: World) -> None:
    publish(world, "ada", "ben", state=DeliveryState.UNKNOWN, stands=IssueState.NEEDS_DECISION)
    tell(world, of(Kind.DELIVERED))
    assert issue_of(world).state == IssueState.NEEDS_DECISION
    tell(world, of(Kind.HARD_BOUNCE, name="ben"))
    assert issue_of(world).state == IssueState.SENT


def test_an_issue_is_not_closed_by_events_while_a_copy_is_on_the_way(world: World) -> None:
    publish(world, "ada", "ben", state=DeliveryState.PENDING)
    tell(world, of(Kind.DELIVERED))
    assert issue_of(world).state == IssueState.SENDING
    tell(world, of(Kind.DELIVERED, name="ben"))
    assert issue_of(world).state == IssueState.SENT


def test_a_reference_that_there_is_not_changes_nothing(world: World) -> None:
    publish(world, "ada", state=DeliveryState.UNKNOWN)
    tell(world, *(Event(kind, "f" * 32) for kind in Kind))
    assert copy_of(world, 1, "ada") == ("unknown", "")
    assert suppressed(world) == {}


def batch_of(session: Session, number: int) -> tuple[Batch, Parcel]:
    issue = session.exec(select(IssueRow).where(IssueRow.number == number)).one()
    (row,) = session.exec(select(BatchRow).where(BatchRow.issue_id == issue.id)).all()
    batch = Batch(row.id or 0, 1, "us", FRIDAY, FRIDAY)
    refs = session.exec(select(DeliveryRow.ref).where(DeliveryRow.batch_id == row.id).order_by(col(DeliveryRow.id)))
    return batch, Parcel("key", FRIDAY, tuple(Copy(each, "a@example.com", "") for each in refs))


def settle(session: Session, number: int, how: str) -> None:
    """Let the first attempt of an issue's batch end in one of the ways in which it may."""
    batch, parcel = batch_of(session, number)
    refs = [copy.ref for copy in parcel.copies]
    if how == "lost sight of":
        batches.lose_sight(session, batch, FRIDAY, "no answer")
    elif how == "given back":
        batches.give_back(session, batch, FRIDAY, "was down")
    elif how == "rejected":
        batches.reject(session, batch, FRIDAY, "bad")
    else:
        receipts = {
            "accepted": [Receipt(each, accepted=True, provider_id="id") for each in refs],
            "refused": [Receipt(each, accepted=False, reason="no") for each in refs],
            "one accepted": [Receipt(refs[0], accepted=True, provider_id="id")],
            "to come later": [Receipt(each, accepted=False, reason="not now", later=True) for each in refs],
            "silence": [],
        }[how]
        settling.settle(session, [Answered(batch, parcel, receipts)], FRIDAY, MOST_PUT_OFF)


@pytest.mark.parametrize(
    "how", ["lost sight of", "given back", "rejected", "accepted", "refused", "one accepted", "to come later", "silence"]
)
def test_nothing_that_comes_of_the_call_undoes_what_an_event_has_proved(world: World, how: str) -> None:
    publish(world, "ada", "ben", state=DeliveryState.SENDING)
    tell(world, of(Kind.DELIVERED), of(Kind.ACCEPTED, name="ben"))
    with world.database.write() as session:
        settle(session, 1, how)
    assert copy_of(world, 1, "ada") == ("accepted", "delivered")
    assert copy_of(world, 1, "ben") == ("accepted", "")


@pytest.mark.parametrize("how", ["lost sight of", "given back", "to come later", "silence"])
def test_an_event_is_believed_after_the_call_came_to_nothing_too(world: World, how: str) -> None:
    publish(world, "ada", "ben", state=DeliveryState.SENDING)
    with world.database.write() as session:
        settle(session, 1, how)
    tell(world, of(Kind.DELIVERED))
    assert copy_of(world, 1, "ada") == ("accepted", "delivered")
    assert copy_of(world, 1, "ben")[0] in ("unknown", "pending")


@pytest.mark.parametrize("told", [*permutations(FATES, 2)], ids=" then ".join)
def test_the_gravest_fate_stays_in_whatever_order_it_is_told(local_world: World, told: tuple[Kind, Kind]) -> None:
    publish(local_world, "ada")
    tell(local_world, *map(of, told))
    order = list(Fate)
    assert copy_of(local_world, 1, "ada")[1] == max((FATES[kind] for kind in told), key=order.index)


# Who is never mailed again


@pytest.mark.parametrize(("kind", "why"), [(Kind.HARD_BOUNCE, Why.BOUNCE), (Kind.COMPLAINED, Why.COMPLAINT)])
@pytest.mark.parametrize("how", ["by its copy", "by its address", "by both"])
def test_a_hard_bounce_or_a_complaint_suppresses_at_once(local_world: World, kind: Kind, why: Why, how: str) -> None:
    publish(local_world, "ada", "ben")
    address = "" if how == "by its copy" else "Ada@Example.com"
    tell(local_world, Event(kind, "" if how == "by its address" else ref(1, "ada"), address, reason="said so"))
    assert suppressed(local_world) == {"ada@example.com": why}
    with local_world.database.read() as session:
        assert session.get_one(Suppression, "ada@example.com").note == "said so"


@pytest.mark.parametrize("told", [*permutations([Kind.HARD_BOUNCE, Kind.COMPLAINED])])
def test_a_complaint_outweighs_a_bounce_in_either_order(world: World, told: tuple[Kind, Kind]) -> None:
    publish(world, "ada")
    tell(world, *map(of, told))
    assert suppressed(world) == {"ada@example.com": "complaint"}


def test_a_reason_is_replaced_by_a_weightier_one_only(world: World) -> None:
    for first, second in product(Why, Why):
        address = f"{first}-{second}@example.com"
        with world.database.write() as session:
            assert roll.suppress(session, address, first, FRIDAY, "first")
        with world.database.write() as session:
            changed = roll.suppress(session, address.upper(), second, FRIDAY + timedelta(days=1), "second")
        heavier = list(Why).index(second) > list(Why).index(first)
        assert changed is heavier
        with world.database.read() as session:
            row = session.get_one(Suppression, address)
        kept_one = (second, "second", FRIDAY + timedelta(days=1)) if heavier else (first, "first", FRIDAY)
        assert (row.why, row.note, row.since) == kept_one


@pytest.mark.parametrize("kind", PROOFS)
def test_who_is_not_on_the_roll_and_got_no_copy_is_not_suppressed(local_world: World, kind: Kind) -> None:
    publish(local_world, "ada")
    tell(local_world, Event(kind, "", "stranger@example.com"), Event(kind, "", "no address"), Event(kind))
    assert suppressed(local_world) == {}
    assert state_of(local_world, "ada") == State.ACTIVE


def test_a_copy_whose_reader_was_erased_names_nobody_any_more(world: World) -> None:
    publish(world, "ada", state=DeliveryState.UNKNOWN, stands=IssueState.NEEDS_DECISION)
    with world.database.write() as session:
        session.delete(roll.by_key(session, "ada@example.com"))
    tell(world, *(of(kind, address="ada@example.com") for kind in PROOFS))
    assert suppressed(world) == {}
    assert (issue_of(world).state, copy_of(world, 1, "ada")[0]) == (IssueState.SENT, "accepted")


def test_the_address_that_a_copy_went_to_is_suppressed_though_its_reader_has_another_by_now(world: World) -> None:
    publish(world, "ada")
    with world.database.write() as session:
        now = {"address": "ada@new.example", "key": "ada@new.example"}
        session.exec(update(Subscriber).where(col(Subscriber.key) == "ada@example.com").values(**now))
    tell(world, of(Kind.HARD_BOUNCE, address="ada@example.com"))
    assert suppressed(world) == {"ada@example.com": "bounce"}


@pytest.mark.parametrize("how", ["token", "reference", "address", "reference and another address"])
def test_a_reader_leaves_by_token_by_reference_and_by_address(local_world: World, how: str) -> None:
    publish(local_world, "ada", "ben")
    with local_world.database.read() as session:
        ada = roll.by_key(session, "ada@example.com")
        assert ada is not None
    tell(
        local_world,
        {
            "token": Event(Kind.UNSUBSCRIBED, token=ada.token),
            "reference": of(Kind.UNSUBSCRIBED),
            "address": Event(Kind.UNSUBSCRIBED, address="ADA@example.com"),
            "reference and another address": of(Kind.UNSUBSCRIBED, address="alias@example.net"),
        }[how],
    )
    assert (state_of(local_world, "ada"), state_of(local_world, "ben")) == (State.UNSUBSCRIBED, State.ACTIVE)
    assert suppressed(local_world) == {}


def test_a_token_that_there_is_not_lets_nobody_leave(world: World) -> None:
    publish(world, "ada")
    tell(world, *(Event(Kind.UNSUBSCRIBED, token=token) for token in ("", "A" * 22, "nonsense", "\0" * 22)))
    assert state_of(world, "ada") == State.ACTIVE


@pytest.mark.parametrize("kind", [Kind.HARD_BOUNCE, Kind.COMPLAINED, Kind.BLOCKED])
def test_what_a_database_cannot_hold_is_left_out_of_a_reason(world: World, kind: Kind) -> None:
    publish(world, "ada")
    tell(world, Event(kind, ref(1, "ada"), reason="no \0such \ud800user"))
    with world.database.read() as session:
        notes = [*session.exec(select(Suppression.note)), issue_of(world).trouble]
    assert "no such user" in " ".join(notes)


# Soft bounces


def softly(*issues: int) -> list[Event]:
    return [of(Kind.SOFT_BOUNCE, issue) for issue in issues]


def test_five_issues_in_a_row_that_come_back_suppress_and_four_do_not(world: World) -> None:
    publish(world, "ada", "ben", weeks=5)
    tell(world, *softly(1, 2, 3, 4))
    assert suppressed(world) == {}
    tell(world, *softly(4, 4, 4))
    assert suppressed(world) == {}
    tell(world, *softly(5))
    assert suppressed(world) == {"ada@example.com": "bounce"}


@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1), (3, 1, 5, 2, 4), (2, 4, 5, 1, 3)])
def test_the_row_is_that_of_the_issues_and_not_of_the_telling(local_world: World, order: Sequence[int]) -> None:
    publish(local_world, "ada", weeks=6)
    tell(local_world, *softly(*order[:-1]))
    assert suppressed(local_world) == {}
    tell(local_world, *softly(order[-1]))
    assert suppressed(local_world) == {"ada@example.com": "bounce"}


@pytest.mark.parametrize("between", [Kind.DELIVERED, Kind.BLOCKED, Kind.ACCEPTED, None])
def test_an_issue_between_that_did_not_come_back_breaks_the_row(local_world: World, between: Kind | None) -> None:
    publish(local_world, "ada", weeks=6)
    tell(local_world, *([of(between, 3)] if between else []), *softly(1, 2, 4, 5, 6))
    assert suppressed(local_world) == {}


@pytest.mark.parametrize("state", NOT_YET)
def test_an_issue_between_that_may_still_be_taken_breaks_the_row(local_world: World, state: DeliveryState) -> None:
    publish(local_world, "ada", weeks=6)
    move(local_world, 3, state)
    tell(local_world, *softly(1, 2, 4, 5, 6))
    assert suppressed(local_world) == {}


@pytest.mark.parametrize("state", [DeliveryState.REJECTED, DeliveryState.SKIPPED, DeliveryState.EXCLUDED])
def test_an_issue_between_that_was_never_sent_is_not_counted(world: World, state: DeliveryState) -> None:
    publish(world, "ada", weeks=6)
    move(world, 3, state)
    tell(world, *softly(1, 2, 4, 5))
    assert suppressed(world) == {}
    tell(world, *softly(6))
    assert suppressed(world) == {"ada@example.com": "bounce"}


def move(world: World, issue: int, state: DeliveryState) -> None:
    with world.database.write() as session:
        session.exec(update(DeliveryRow).where(col(DeliveryRow.ref) == ref(issue, "ada")).values(state=state))


def test_an_old_row_says_nothing_of_an_address_that_works_again(local_world: World) -> None:
    publish(local_world, "ada", weeks=7)
    tell(local_world, *softly(1, 2, 3, 4, 5))
    with local_world.database.write() as session:
        # As a person does who knows better.
        session.delete(session.get_one(Suppression, "ada@example.com"))
    tell(local_world, of(Kind.DELIVERED, 6), *softly(7))
    assert suppressed(local_world) == {}


def test_the_sixth_in_a_row_suppresses_as_the_fifth_did(local_world: World) -> None:
    publish(local_world, "ada", weeks=6)
    tell(local_world, *softly(1, 2, 3, 4, 5))
    with local_world.database.write() as session:
        session.delete(session.get_one(Suppression, "ada@example.com"))
    tell(local_world, *softly(6))
    assert suppressed(local_world) == {"ada@example.com": "bounce"}


def test_the_rows_of_two_readers_are_not_one(local_world: World) -> None:
    publish(local_world, "ada", "ben", weeks=5)
    tell(local_world, *softly(1, 3, 5), of(Kind.SOFT_BOUNCE, 2, "ben"), of(Kind.SOFT_BOUNCE, 4, "ben"))
    assert suppressed(local_world) == {}


def test_a_soft_bounce_that_names_no_copy_counts_for_nothing(local_world: World) -> None:
    publish(local_world, "ada", weeks=5)
    tell(local_world, *(Event(Kind.SOFT_BOUNCE, "", "ada@example.com") for _ in range(9)))
    assert suppressed(local_world) == {}


def while_uncommitted(world: World, first: Event, second: Event) -> None:
    """Apply two events in two transactions, the second while the first is not committed yet."""
    with world.database.write() as session:
        events.apply(session, first, FRIDAY)
        other = threading.Thread(target=tell, args=(world, second))
        other.start()
        # It waits for us; one that did not would be done long before.
        other.join(0.3)
    other.join()


def test_of_two_soft_bounces_applied_at_once_the_second_sees_the_first(world: World) -> None:
    publish(world, "ada", weeks=SOFT_BOUNCES)
    tell(world, *softly(1, 2, 3))
    while_uncommitted(world, *softly(4, 5))
    assert suppressed(world) == {"ada@example.com": "bounce"}


# What a reader is not to blame for


def crowd(world: World, readers: int, **more: DeliveryState | IssueState) -> None:
    names = [f"reader{number}" for number in range(readers)]
    with world.database.write() as session:
        people = [Subscriber(address=f"{name}@example.com", key=f"{name}@example.com", joined=FRIDAY) for name in names]
        roll.add_new(session, people)
        write_issue(session, 1, *names, **more)  # type: ignore[arg-type]  # each has its own kind


def block(world: World, *readers: int) -> None:
    tell(world, *(Event(Kind.BLOCKED, ref(1, f"reader{number}"), reason="5.7.1 spam") for number in readers))


@pytest.mark.parametrize(("readers", "pauses"), [(1, True), (BLOCKED_ONE_IN, True), (BLOCKED_ONE_IN + 1, False)])
def test_one_refused_copy_in_a_hundred_pauses_the_issue_and_punishes_nobody(
    world: World, readers: int, *, pauses: bool
) -> None:
    crowd(world, readers)
    block(world, 0)
    issue = issue_of(world)
    assert (issue.state == IssueState.PAUSED) is pauses
    assert suppressed(world) == {}
    if pauses:
        assert (issue.paused_by, issue.resume_at) == (Pause.TROUBLE, None)
        assert issue.trouble.startswith(f"1 of {readers:,} copies were refused for what they hold or who sends them: 5.7.1")


def test_the_second_refused_copy_counts_with_the_first_and_the_first_not_twice(local_world: World) -> None:
    crowd(local_world, 150)
    block(local_world, 0, 0, 0)
    assert issue_of(local_world).state == IssueState.SENDING
    block(local_world, 1)
    assert issue_of(local_world).state == IssueState.PAUSED


def test_of_two_refusals_applied_at_once_the_second_counts_the_first(world: World) -> None:
    crowd(world, 150)
    while_uncommitted(world, *(Event(Kind.BLOCKED, ref(1, f"reader{number}")) for number in (0, 1)))
    assert issue_of(world).state == IssueState.PAUSED


def test_a_refusal_that_is_told_before_the_answer_is_not_one_of_few(local_world: World) -> None:
    crowd(local_world, 150, state=DeliveryState.SENDING)
    block(local_world, 0)
    assert (copy_of(local_world, 1, "reader0")[0], issue_of(local_world).state) == ("accepted", IssueState.SENDING)


@pytest.mark.parametrize("stands", [IssueState.SENT, IssueState.NEEDS_DECISION])
def test_an_issue_that_is_not_being_sent_any_more_is_left_as_it_is(local_world: World, stands: IssueState) -> None:
    crowd(local_world, 2, stands=stands)
    block(local_world, 0)
    assert issue_of(local_world).state == stands


def pause(world: World, by: Pause, *, passes: bool) -> None:
    with world.database.write() as session:
        issue = session.exec(select(IssueRow)).one()
        ledger.pause(session, issue, by, "as it was", FRIDAY + timedelta(hours=1) if passes else None)


@pytest.mark.parametrize("by", [Pause.RAMP, Pause.TROUBLE])
def test_an_issue_that_would_go_on_by_itself_waits_for_a_person_after_refusals(world: World, by: Pause) -> None:
    crowd(world, 2)
    pause(world, by, passes=True)
    block(world, 0)
    issue = issue_of(world)
    assert (issue.state, issue.paused_by, issue.resume_at) == (IssueState.PAUSED, Pause.TROUBLE, None)
    assert "refused for what they hold" in issue.trouble


@pytest.mark.parametrize("by", [Pause.PERSON, Pause.TROUBLE])
def test_an_issue_that_waits_for_a_person_already_is_left_as_it_is(local_world: World, by: Pause) -> None:
    crowd(local_world, 2)
    pause(local_world, by, passes=False)
    block(local_world, 0)
    issue = issue_of(local_world)
    assert (issue.state, issue.paused_by, issue.trouble) == (IssueState.PAUSED, by, "as it was")


# Any order


READERS = ("ada", "ben")


@dataclass(frozen=True)
class Settling:
    """What comes of the call that an issue's copies went in."""

    issue: int
    how: str


Step = Event | Settling


@st.composite
def tellings(draw: st.DrawFn) -> tuple[list[Step], list[Step]]:
    """Events and the ends of calls, in one order, and in another one in which some events come more often."""
    issues = st.integers(1, WEEKS)
    # Rows of soft bounces, with an issue between that may break them, are rare among events at random.
    gaps = draw(st.dictionaries(issues, st.sampled_from([Kind.DELIVERED, Kind.ACCEPTED, Kind.BLOCKED, Kind.OTHER]), max_size=2))
    soft = [of(gaps.get(number, Kind.SOFT_BOUNCE), number) for number in range(1, WEEKS + 1)]
    by_copy = st.builds(of, st.sampled_from(list(Kind)), issues, st.sampled_from(READERS))
    addresses = st.sampled_from(["ada@example.com", "Ben@example.com", "stranger@example.com", "odd"])
    by_address = st.builds(Event, st.sampled_from(list(Kind)), st.sampled_from(["", "f" * 32]), addresses)
    told = draw(st.sampled_from([[], soft])) + draw(st.lists(st.one_of(by_copy, by_copy, by_address), min_size=4, max_size=14))
    # What the provider refuses and reports as taken is no one truth; everything else is.
    ends = st.sampled_from(["accepted", "one accepted", "to come later", "silence", "given back", "lost sight of"])
    calls = [Settling(issue, how) for issue, how in draw(st.dictionaries(issues, ends)).items()]
    again = draw(st.lists(st.sampled_from(told), max_size=5))
    one: list[Step] = [*told, *calls]
    other: list[Step] = [*told, *again, *calls]
    chance = draw(st.randoms(use_true_random=True))
    chance.shuffle(one)
    chance.shuffle(other)
    return one, other


def end_of(world: World, steps: Sequence[Step]) -> object:
    """Copies, readers and suppressions after these steps, which leave no trace."""
    with Session(world.database.engine.execution_options(writes=True), expire_on_commit=False) as session:
        for step in steps:
            if isinstance(step, Event):
                events.apply(session, step, FRIDAY)
            else:
                settle(session, step.issue, step.how)
        copies = session.exec(select(DeliveryRow.ref, DeliveryRow.state, DeliveryRow.fate).order_by(DeliveryRow.ref)).all()
        readers = session.exec(select(Subscriber.key, Subscriber.state).order_by(Subscriber.key)).all()
        end = list(copies), list(readers), roll.suppressed_keys(session)
        session.rollback()
    return end


@pytest.fixture
def weeks(local_world: World) -> World:
    """Issues whose copies are all on their way."""
    publish(local_world, *READERS, state=DeliveryState.SENDING, weeks=WEEKS)
    return local_world


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(both=tellings())
def test_any_events_in_any_order_with_any_repetition_and_between_any_answers_lead_to_the_same_end(
    weeks: World, both: tuple[list[Step], list[Step]]
) -> None:
    one, other = both
    assert end_of(weeks, one) == end_of(weeks, other)
