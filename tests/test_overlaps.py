"""What comes too late or at once: answers after others have gone on, runners beside each other, pauses amid retries."""

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import col, select

from pipeline import batches, deliver, events, ledger
from pipeline import publish as route
from pipeline.batches import Batch
from pipeline.books import BatchRow, DeliveryRow, IssueRow, IssueState
from pipeline.claim import Wanted, claim
from pipeline.config import WarmUp
from pipeline.database import Database
from pipeline.deliver import PATIENCE, SWITCH, USUAL_SWITCH, USUALLY, Landings
from pipeline.errors import CallRefused, DecisionNeeded, NotProcessed, Unclear
from pipeline.issue import Copy, Event, Kind, Parcel, Receipt, RenderedIssue, Shown
from pipeline.judge import Flight, Landing
from pipeline.ledger import Decision
from pipeline.newsroom import Newsroom
from pipeline.settle import Answered, settle
from tests.conftest import FRIDAY, FakeProvider, World
from tests.test_connections import Busy, counts, ready, until
from tests.test_races import on_postgresql, once

KEY = timedelta(hours=24)
LOG = {"has_log": True, "log_lag": timedelta(0)}


def issue_of(world: World) -> IssueRow:
    with world.database.read() as session:
        found = ledger.find(session, world.slot.name)
        assert found
        return found


def enrolled(world: World, readers: int) -> IssueRow:
    ready(world, readers)
    route.approve(world.newsroom, world.slot)
    with world.database.write() as session:
        issue = ledger.find(session, world.slot.name)
        assert issue
        ledger.enrol(session, issue, world.clock())
    return issue_of(world)


def taken(world: World, issue: IssueRow) -> tuple[Batch, Parcel]:
    """A batch of two that somebody has claimed who stands still from then on."""
    with world.database.write() as session:
        (one,), _ = claim(session, issue, issue.rendered, Wanted(2, 1, 2), "elsewhere/1/1", world.clock())
    return one


def answer(world: World, batch: Batch, parcel: Parcel, said: str) -> None:
    """What a run writes when it hears of a batch: a letter for each copy, accepted, rejected or later."""
    receipts = [
        Receipt(copy.ref, accepted=letter == "a", reason="450", later=letter == "l")
        for copy, letter in zip(parcel.copies, said, strict=True)
    ]
    with world.database.write() as session:
        issue = session.merge(issue_of(world))
        late = ledger.is_undecided(session, issue)
        settle(session, [Answered(batch, parcel, receipts)], world.clock(), deliver.MOST_PUT_OFF)
        if late:
            ledger.close(session, issue, world.clock())


@on_postgresql
@pytest.mark.parametrize("ends", [lambda: NotProcessed("busy"), lambda: None], ids=["given back", "taken"])
def test_an_issue_is_not_closed_under_a_claim_that_comes_between(world: World, other: Database, ends: Any) -> None:
    """While a runner waits, an event settles the last unknown copy and looks whether anything is on the way."""
    issue = enrolled(world, 4)
    lost, parcel = taken(world, issue)
    with world.database.write() as session:
        batches.lose_sight(session, lost, world.clock(), "no answer")
    claimed: list[tuple[Batch, Parcel]] = []
    acts = once(lambda: claimed.append(taken(world, issue)))

    @event.listens_for(other.engine, "before_cursor_execute")
    def before(_connection: Any, _cursor: Any, sql: str, *_more: Any) -> None:
        if "FROM deliveries" in sql and "state = 'pending'" in sql:
            acts()

    for copy in parcel.copies:
        with other.write() as session:
            events.apply(session, Event(Kind.DELIVERED, copy.ref), FRIDAY)
    assert len(claimed) == 1
    assert issue_of(world).state == IssueState.SENDING
    if ends():
        with world.database.write() as session:
            batches.give_back(session, claimed[0][0], world.clock(), "busy")
    else:
        answer(world, *claimed[0], "aa")
    sent = route.publish(world.newsroom, world.slot)
    assert (sent.state, sent.counts["accepted"]) == (IssueState.SENT, 4)


@pytest.mark.parametrize("state", [IssueState.SENT, IssueState.NEEDS_DECISION])
def test_an_issue_that_was_closed_with_copies_on_the_way_is_opened_again(world: World, state: IssueState) -> None:
    issue = enrolled(world, 2)
    with world.database.write() as session:
        ledger._move_issue(session, issue, (IssueState.SENDING,), state=state, closed_at=world.clock())
        ledger.close(session, issue, world.clock())
    assert (issue_of(world).state, issue_of(world).closed_at) == (IssueState.SENDING, None)


def test_a_late_answer_that_puts_copies_off_leaves_them_unknown(world: World) -> None:
    batch, parcel = taken(world, enrolled(world, 2))
    world.clock.at += PATIENCE + timedelta(minutes=1)
    assert route.publish(world.newsroom, world.slot).counts["unknown"] == 2
    answer(world, batch, parcel, "ll")
    report = route.report(world.newsroom, world.slot)
    assert (report.state, len(report.unknown)) == (IssueState.NEEDS_DECISION, 2)
    assert route.resolve(world.newsroom, world.slot, Decision.RESEND) == 2
    assert route.publish(world.newsroom, world.slot).state == IssueState.SENT


def test_a_late_answer_closes_the_issue_that_waited_for_it_though_its_run_ends_there(world: World) -> None:
    ready(world, 2)
    states = []

    def elsewhere() -> None:
        world.clock.at += PATIENCE
        states.append(route.publish(world.newsroom, world.slot).state)

    comes = once(elsewhere)

    def progress(settled: int, _copies: int) -> None:
        if settled == 2:
            raise BrokenPipeError

    provider = FakeProvider(before=lambda _parcel: comes())
    with pytest.raises(BrokenPipeError):
        route.publish(world.with_provider(provider), world.slot, progress=progress)
    assert states == [IssueState.NEEDS_DECISION]
    issue = issue_of(world)
    assert (issue.state, issue.closed_at) == (IssueState.SENT, world.clock())


def test_what_another_has_in_hand_is_looked_at_again_until_it_is_home(world: World) -> None:
    batch, parcel = taken(world, enrolled(world, 4))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            answer(world, batch, parcel, "aa")

    sent = route.publish(replace(world.newsroom, wait=wait), world.slot)
    assert waits == [deliver.POLL, deliver.POLL]
    assert (sent.state, sent.counts["accepted"], len(world.provider.got)) == (IssueState.SENT, 4, 2)


def test_calls_that_were_left_are_made_again_at_once_and_no_more_beside_them_than_there_are_connections(world: World) -> None:
    issue = enrolled(world, 8)
    left = {taken(world, issue)[1].key for _ in range(2)}
    world.clock.at += PATIENCE
    in_hand: list[int] = []
    provider = Busy(key_lifetime=KEY, connections=3, does=lambda _number, _parcel: in_hand.append(counts(world)["sending"]))
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, sent.counts["accepted"]) == (IssueState.SENT, 8)
    assert max(in_hand) == 6
    with world.database.read() as session:
        attempts = {batch.key: batch.attempt for batch in session.exec(select(BatchRow))}
    assert attempts == {key: 2 if key in left else 1 for key in attempts}
    assert sorted(parcel.key for parcel in provider.parcels) == sorted(attempts)


def test_progress_counts_each_of_the_calls_that_were_left_and_cannot_be_made_again(world: World) -> None:
    issue = enrolled(world, 8)
    for _ in range(2):
        taken(world, issue)
    world.clock.at += PATIENCE
    told: list[tuple[int, int]] = []
    sent = route.publish(
        world.with_provider(Busy(connections=3)), world.slot, progress=lambda done, total: told.append((done, total))
    )
    assert sent.counts["accepted"] == 4
    assert [each.reason for each in sent.unknown] == ["the call ended before the answer, and cannot be made again"] * 4
    assert told[-1] == (8, 8)


def test_one_copy_that_was_accepted_before_says_that_a_refusal_is_meant_for_its_reader(world: World) -> None:
    ready(world, 2)

    def progress(settled: int, _copies: int) -> None:
        if settled == 1:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        route.publish(world.with_provider(FakeProvider(1)), world.slot, progress=progress)
    assert counts(world) == {"accepted": 1, "pending": 1}

    def refuse(_parcel: Parcel) -> None:
        raise CallRefused("no such address")

    sent = route.publish(world.with_provider(FakeProvider(1, before=refuse)), world.slot)
    assert (sent.state, sent.counts["accepted"], sent.counts["rejected"]) == (IssueState.SENT, 1, 1)


@pytest.mark.parametrize("said", ["ll", "rl", "ra"])
def test_a_late_answer_says_nothing_of_the_call_that_was_made_since(world: World, said: str) -> None:
    batch, parcel = taken(world, enrolled(world, 2))
    world.clock.at += PATIENCE + timedelta(minutes=1)
    route.publish(world.newsroom, world.slot)
    route.resolve(world.newsroom, world.slot, Decision.RESEND)
    comes = once(lambda: answer(world, batch, parcel, said))
    provider = FakeProvider(before=lambda _parcel: comes())
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, sent.counts["accepted"], len(provider.got)) == (IssueState.SENT, 2, 2)


def test_what_was_claimed_ahead_and_has_waited_long_does_not_leave_any_more(world: World) -> None:
    """A second runner takes it for lost and sends it again, as it was told to; nobody gets two."""
    readers = ready(world, 60)
    log: dict[str, Receipt] = {}

    def before(_parcel: Parcel) -> None:
        world.clock.at += timedelta(seconds=20)
        if len(first.parcels) in (8, 30, 48):
            stopping = threading.Event()
            beside = replace(world.with_provider(second), resend_unknown=True, stopping=stopping)
            with suppress(DecisionNeeded):
                route.publish(replace(beside, wait=lambda _seconds: stopping.set()), world.slot)

    def after(parcel: Parcel) -> None:
        log.update({copy.ref: Receipt(copy.ref, accepted=True, provider_id="x") for copy in parcel.copies})

    first = FakeProvider(1, more=LOG, log=log, before=before, after=after)
    second = FakeProvider(1, more=LOG, log=log, after=after)
    route.publish(replace(world.with_provider(first), resend_unknown=True), world.slot)
    assert sorted(first.got + second.got) == readers


def test_what_was_claimed_ahead_leaves_until_half_of_the_patience_is_over(world: World) -> None:
    ready(world, 3)
    begun = world.clock.at.replace(microsecond=0)
    passes = iter([PATIENCE / 2, timedelta(seconds=1)])

    def before(_parcel: Parcel) -> None:
        world.clock.at += next(passes, timedelta(0))

    provider = FakeProvider(1, more=LOG, before=before)
    route.publish(world.with_provider(provider), world.slot)
    again = begun + PATIENCE / 2 + timedelta(seconds=1)
    assert [parcel.dated for parcel in provider.parcels] == [begun, begun, again]


def test_answers_do_not_wait_long_for_others_to_be_written_down_with_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "LONGEST_LINGER", 0.05)
    ready(world, 60)
    seen = threading.Event()

    def watch(_issue: Any, _parcel: Any) -> None:
        if len(provider.parcels) == 3:
            until(lambda: counts(world).get("accepted", 0) >= 3)
            seen.set()

    provider = FakeProvider(1, more=LOG, before=lambda parcel: watch(None, parcel))
    assert route.publish(world.with_provider(provider), world.slot).state == IssueState.SENT
    assert seen.is_set()


class Short(FakeProvider):
    """Shows its log only to a certain length."""

    def look_up(self, issue: RenderedIssue, copies: Any, since: Any) -> Shown:
        return Shown(super().look_up(issue, copies, since).receipts[:1], whole=False)


def test_what_a_log_did_not_show_to_its_end_is_not_sent_again(world: World) -> None:
    ready(world, 4)
    provider = Short(more=LOG)

    def loses(_parcel: Parcel) -> None:
        raise Unclear("no answer")

    provider.after = loses
    with pytest.raises(Unclear):
        route.publish(world.with_provider(provider), world.slot)
    provider.log.update({copy.ref: Receipt(copy.ref, accepted=True) for parcel in provider.parcels for copy in parcel.copies})
    provider.after = lambda _parcel: None
    sent = route.publish(replace(world.with_provider(provider), resend_unknown=True), world.slot)
    assert (sent.state, sent.counts["accepted"], sent.counts["unknown"]) == (IssueState.NEEDS_DECISION, 1, 3)
    assert len(provider.got) == len(set(provider.got)) == 4


def test_a_log_is_asked_for_each_time_at_which_copies_were_lost(world: World) -> None:
    asked: list[tuple[int, timedelta]] = []

    class Asked(FakeProvider):
        def look_up(self, issue: RenderedIssue, copies: Any, since: Any) -> Shown:
            asked.append((len(copies), since - FRIDAY))
            return super().look_up(issue, copies, since)

    issue = enrolled(world, 8)
    for hour in (0, 0, 3):
        world.clock.at = FRIDAY + timedelta(hours=hour)
        batch, _ = taken(world, issue)
        with world.database.write() as session:
            batches.lose_sight(session, batch, world.clock(), "no answer")
    route.publish(world.with_provider(Asked(more=LOG)), world.slot)
    assert asked == [(4, timedelta(minutes=-5)), (2, timedelta(hours=3, minutes=-5))]


@pytest.mark.parametrize("key", [KEY, None])
def test_no_retry_begins_after_a_pause(world: World, key: timedelta | None) -> None:
    ready(world, 6)
    after: list[int] = []
    pause = once(lambda: route.pause(world.newsroom, world.slot))

    def does(number: int, _parcel: Parcel) -> None:
        if number == 1:
            raise Unclear("no answer") if key else NotProcessed("busy")
        after.append(number)

    def wait(seconds: float) -> None:
        world.clock.wait(seconds)
        pause()

    provider = Busy(connections=1, key_lifetime=key, does=does)
    with pytest.raises(DecisionNeeded, match="paused by a person"):
        route.publish(replace(world.with_provider(provider), wait=wait), world.slot)
    assert after == []
    route.resume(world.newsroom, world.slot)
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, len(provider.got)) == (IssueState.SENT, 6)


def warming_up(world: World, first_day: int, provider: FakeProvider) -> Newsroom:
    plan = WarmUp(begins=FRIDAY.date(), first_day=first_day, growth=1.0001)
    config = replace(world.newsroom.config, warm_up=plan)
    return replace(world.newsroom, config=config, provider=provider)


def test_two_runners_share_what_a_warm_up_allows(world: World) -> None:
    ready(world, 60)
    route.approve(world.newsroom, world.slot)
    both = threading.Barrier(2)

    def does(_number: int, _parcel: Parcel) -> None:
        try:
            both.wait(1)
        except threading.BrokenBarrierError:
            return

    provider = Busy(copies=2, connections=1, does=does)

    def run(database: Database) -> None:
        with pytest.raises(DecisionNeeded, match="warm-up"):
            route.publish(replace(warming_up(world, 12, provider), database=database), world.slot)

    databases = [Database(world.database.url) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(run, database) for database in databases]:
            ended.result(30)
    for database in databases:
        database.engine.dispose()
    assert len(provider.got) == 12


def test_a_warm_up_counts_by_the_day_on_which_a_call_was_claimed(world: World) -> None:
    """A call of the evening comes home unsent after midnight, and makes no room on the new day."""
    ready(world, 20)
    world.clock.at = FRIDAY.replace(hour=22, minute=59, second=59)
    third = threading.Event()

    def does(number: int, _parcel: Parcel) -> None:
        if number == 1:
            assert third.wait(60)
            raise NotProcessed("down")
        if number == 2:
            world.clock.at += timedelta(seconds=2)
        if number >= 3:
            third.set()

    newsroom = warming_up(world, 6, Busy(connections=2, does=does))
    with pytest.raises(DecisionNeeded, match="warm-up"):
        route.publish(newsroom, world.slot, anyway=True)
    midnight = FRIDAY.replace(hour=23)
    with world.database.read() as session:
        today = select(DeliveryRow.id).join(BatchRow, col(BatchRow.id) == col(DeliveryRow.batch_id))
        assert len(session.exec(today.where(col(BatchRow.claimed_at) >= midnight)).all()) == 6


def test_what_was_given_back_may_go_on_the_same_day(world: World) -> None:
    ready(world, 20)

    def does(number: int, _parcel: Parcel) -> None:
        if number in (2, 4):
            raise NotProcessed("busy")

    provider = Busy(connections=1, does=does)
    with pytest.raises(DecisionNeeded, match="warm-up"):
        route.publish(warming_up(world, 6, provider), world.slot)
    assert counts(world) == {"accepted": 6, "pending": 14}


@pytest.mark.parametrize("what", ["id", "reason", "refusal", "trouble"])
def test_zero_characters_in_what_a_provider_says_are_left_out(world: World, what: str) -> None:
    ready(world, 4)

    def does(number: int, parcel: Parcel) -> list[Receipt] | None:
        if number > 1:
            return None
        if what in ("refusal", "trouble"):
            raise CallRefused("a\0b") if what == "refusal" else Unclear("a\0\ud800b")
        accepted = what == "id"
        return [Receipt(copy.ref, accepted, "a\0b", "c\0d") for copy in parcel.copies]

    route.publish(world.with_provider(Busy(connections=1, does=does)), world.slot)
    with world.database.read() as session:
        said = "".join(session.exec(select(col(DeliveryRow.provider_id) + col(DeliveryRow.reason))).all())
    assert "\0" not in said
    assert ("ab" in said) == (what != "refusal")


def test_a_progress_that_breaks_leaves_no_call_behind(world: World) -> None:
    ready(world, 8)

    def progress(settled: int, _copies: int) -> None:
        if settled == 2:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        route.publish(world.newsroom, world.slot, progress=progress)
    sent = route.publish(world.newsroom, world.slot)
    assert (sent.state, sent.counts["accepted"]) == (IssueState.SENT, 8)


def test_progress_ends_at_all_of_them_though_some_were_put_off_for_good(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "MOST_PUT_OFF", 2)
    ready(world, 4)
    told: list[tuple[int, int]] = []

    def does(_number: int, parcel: Parcel) -> list[Receipt]:
        later = {copy.ref for copy in parcel.copies if copy.address.startswith("reader00")}
        return [Receipt(copy.ref, copy.ref not in later, "x", later=copy.ref in later) for copy in parcel.copies]

    provider = Busy(connections=1, does=does)
    sent = route.publish(world.with_provider(provider), world.slot, progress=lambda done, total: told.append((done, total)))
    assert (sent.counts["accepted"], sent.counts["rejected"]) == (3, 1)
    assert told[-1] == (4, 4)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("connections", [1, 2])
def test_refused_calls_that_must_wait_keep_their_smaller_size(world: World, connections: int) -> None:
    ready(world, 4)
    sizes: list[int] = []

    def does(number: int, parcel: Parcel) -> None:
        sizes.append(len(parcel.copies))
        if number == 1:
            raise CallRefused("bad address")
        if number <= 1 + connections:
            raise NotProcessed("busy")

    route.publish(world.with_provider(Busy(copies=4, connections=connections, does=does)), world.slot)
    assert sizes == [4] + [2] * (len(sizes) - 1)
    # The second connection's call is refused too, or recalled before it begins.
    assert 4 <= len(sizes) <= 3 + connections


def test_two_runs_of_one_process_leave_the_interpreter_as_it_was() -> None:
    first, second = deliver._in_haste(SWITCH), deliver._in_haste(SWITCH)
    first.__enter__()
    second.__enter__()
    assert gc.get_threshold()[0] > USUALLY[0]
    assert sys.getswitchinterval() == pytest.approx(SWITCH)
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert gc.get_threshold() == USUALLY
    assert sys.getswitchinterval() == pytest.approx(USUAL_SWITCH)


def test_whoever_waits_for_landings_is_woken_by_enough_of_them_or_by_a_failed_one() -> None:
    flight = Flight(Batch(1, 1, "us", FRIDAY, FRIDAY), Parcel("k", FRIDAY, (Copy("r", "a", ""),)), FRIDAY)
    good, bad = Landing(flight, (), None), Landing(flight, (), ValueError())
    landings = Landings()
    assert landings.take(0) == []
    assert landings.take(1, 0.01) == []
    landings.add(good)
    assert landings.take(2, 0.01) == [good]
    landings.add(bad)
    assert landings.take(2) == [bad]
    assert landings.take(1, 0.01) == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(landings.take, 2)
        landings.add(good)
        landings.add(good)
        assert waiting.result(5) == [good, good]


def test_of_many_landings_no_more_are_taken_than_are_asked_for_and_a_failed_one_is_not_forgotten() -> None:
    flight = Flight(Batch(1, 1, "us", FRIDAY, FRIDAY), Parcel("k", FRIDAY, (Copy("r", "a", ""),)), FRIDAY)
    first, second, bad = Landing(flight, (), None), Landing(flight, (), None), Landing(flight, (), ValueError())
    landings = Landings()
    for each in (first, second, bad):
        landings.add(each)
    assert [id(each) for each in landings.take(1, most=1)] == [id(first)]
    assert [id(each) for each in landings.take(3, most=1)] == [id(second)]
    assert landings.take(3) == [bad]
    assert landings.take(1, 0.01) == []
