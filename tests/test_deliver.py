"""What becomes of copies when calls go wrong in every way: tried again, rejected, unknown, paused, never doubled."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from sqlalchemy.exc import OperationalError

from pipeline import ledger
from pipeline import publish as route
from pipeline.books import IssueState
from pipeline.errors import AccountRefused, CallRefused, DecisionNeeded, NotProcessed, ProviderError, Unclear
from pipeline.issue import Parcel, Receipt, RenderedIssue
from pipeline.ledger import Decision, Report
from pipeline.newsroom import is_running
from pipeline.settle import settle
from subscribers import roll
from tests.conftest import FakeProvider, World


@dataclass
class Troubled(FakeProvider):
    """Raises what `trouble` returns for a call, by its number from 1, before or after it has accepted."""

    trouble: Callable[[int, Parcel], Exception | None] = lambda _number, _parcel: None
    takes_first: bool = False
    calls: int = 0

    def send(self, issue: object, parcel: Parcel) -> list[Receipt]:
        self.calls += 1
        error = self.trouble(self.calls, parcel)
        if error and self.takes_first:
            self.parcels.append(parcel)
        if error:
            raise error
        return super().send(issue, parcel)  # type: ignore[arg-type]  # it looks at the parcel only


KEY = timedelta(hours=24)


def ready(world: World, readers: int = 5) -> World:
    world.tell_a_week()
    world.subscribe(*(f"reader{number}" for number in range(1, readers + 1)))
    return world


def addresses(*numbers: int) -> list[str]:
    return [f"reader{number}@example.com" for number in numbers]


def whole(report: Report) -> None:
    assert sum(report.counts.values()) == report.enrolled


def test_a_refusal_to_wait_for_is_waited_for_and_tried_again(world: World) -> None:
    ready(world)
    asked = NotProcessed("wait", timedelta(seconds=90))
    provider = Troubled(trouble=lambda number, _parcel: asked if number == 2 else None)
    began = world.clock.at
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, provider.got) == (IssueState.SENT, addresses(1, 2, 3, 4, 5))
    assert world.clock.at - began == timedelta(seconds=90)


def test_an_outage_pauses_the_issue_and_the_clock_goes_on_when_it_has_passed(world: World) -> None:
    ready(world)
    provider = Troubled(trouble=lambda _number, _parcel: NotProcessed("nobody there"))
    with pytest.raises(NotProcessed):
        route.publish(world.with_provider(provider), world.slot)
    paused = route.report(world.newsroom, world.slot)
    assert (paused.state, paused.counts["pending"], paused.trouble) == (IssueState.PAUSED, 5, "nobody there")
    assert provider.calls == 6
    assert route.publish_due(world.newsroom) is None
    world.clock.at += timedelta(seconds=60)
    assert route.publish_due(world.newsroom) is not None
    assert world.provider.got == addresses(1, 2, 3, 4, 5)


def test_a_refused_account_waits_for_a_person_and_not_for_the_clock(world: World) -> None:
    ready(world)
    provider = Troubled(trouble=lambda number, _parcel: AccountRefused("bad key") if number == 2 else None)
    with pytest.raises(AccountRefused):
        route.publish(world.with_provider(provider), world.slot)
    assert route.publish_due(world.newsroom) is None
    assert route.publish(world.newsroom, world.slot).state == IssueState.SENT
    assert provider.got + world.provider.got == addresses(1, 2, 3, 4, 5)


def test_an_unclear_answer_without_a_key_leaves_the_batch_unknown_and_two_in_a_row_pause(world: World) -> None:
    ready(world, 9)
    provider = Troubled(trouble=lambda number, _parcel: Unclear("no answer") if number in (1, 3, 4) else None, takes_first=True)
    with pytest.raises(Unclear):
        route.publish(world.with_provider(provider), world.slot)
    report = route.report(world.newsroom, world.slot)
    whole(report)
    assert report.state == IssueState.PAUSED
    assert [each.address for each in report.unknown] == addresses(1, 2, 5, 6, 7, 8)
    assert route.publish_due(world.newsroom) is None


def test_an_unclear_answer_is_asked_again_under_the_same_key_with_the_same_bytes(world: World) -> None:
    ready(world, 3)
    provider = Troubled(
        key_lifetime=KEY, trouble=lambda number, _parcel: Unclear("no answer") if number < 3 else None, takes_first=True
    )
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, provider.got) == (IssueState.SENT, addresses(1, 2, 3))
    assert provider.parcels[0] == provider.parcels[1] == provider.parcels[2]


@pytest.mark.parametrize("second", [NotProcessed("still down"), Unclear("no answer"), AccountRefused("bad key")])
def test_while_the_key_lives_a_failed_second_try_leaves_nobody_unknown(world: World, second: ProviderError) -> None:
    ready(world, 3)
    provider = Troubled(
        key_lifetime=KEY, takes_first=True, trouble=lambda number, _parcel: Unclear("no answer") if number == 1 else second
    )
    with pytest.raises(type(second)):
        route.publish(world.with_provider(provider), world.slot)
    report = route.report(world.newsroom, world.slot)
    assert (report.counts["sending"], report.counts["unknown"], report.state) == (2, 0, IssueState.PAUSED)
    began = world.clock.at
    provider.trouble = lambda _number, _parcel: None
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, provider.got) == (IssueState.SENT, addresses(1, 2, 3))
    assert world.clock.at == began


@pytest.mark.parametrize("readers", [2, 7])
def test_one_bad_copy_is_found_and_rejected_and_the_others_get_theirs(world: World, readers: int) -> None:
    ready(world, readers)
    bad = addresses(readers)[0]
    provider = Troubled(
        copies=100,
        trouble=lambda _number, parcel: CallRefused("bad") if bad in [copy.address for copy in parcel.copies] else None,
    )
    sent = route.publish(world.with_provider(provider), world.slot)
    whole(sent)
    assert (sent.state, sent.counts["rejected"], sent.counts["accepted"]) == (IssueState.SENT, 1, readers - 1)
    assert bad not in provider.got


def test_an_issue_that_is_refused_whole_rejects_nobody(world: World) -> None:
    ready(world, 16)
    provider = Troubled(copies=100, trouble=lambda _number, _parcel: CallRefused("the sender is not allowed"))
    for _ in range(2):
        with pytest.raises(CallRefused):
            route.publish(world.with_provider(provider), world.slot)
        report = route.report(world.newsroom, world.slot)
        assert (report.state, report.counts["pending"], report.counts["rejected"]) == (IssueState.PAUSED, 16, 0)
    assert provider.calls < 16
    assert route.publish(world.newsroom, world.slot).counts["accepted"] == 16


@pytest.mark.parametrize("readers", [1, 2])
def test_the_only_readers_are_not_rejected_without_a_word_to_the_operator(world: World, readers: int) -> None:
    ready(world, readers)
    provider = Troubled(trouble=lambda _number, _parcel: CallRefused("the sender is not allowed"))
    with pytest.raises(CallRefused):
        route.publish(world.with_provider(provider), world.slot)
    assert route.report(world.newsroom, world.slot).counts["pending"] == readers


def test_many_bad_copies_at_the_head_need_a_person_once_and_cost_nobody_else(world: World) -> None:
    ready(world, 16)
    bad = set(addresses(1, 2, 3, 4))
    provider = Troubled(
        copies=100,
        trouble=lambda _number, parcel: CallRefused("bad") if bad & {each.address for each in parcel.copies} else None,
    )
    with pytest.raises(CallRefused):
        route.publish(world.with_provider(provider), world.slot)
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, sent.counts["rejected"], sent.counts["accepted"]) == (IssueState.SENT, 4, 12)
    assert sorted(provider.got) == sorted(set(addresses(*range(1, 17))) - bad)


@pytest.mark.parametrize("then", [AccountRefused("bad key"), NotProcessed("down", timedelta(hours=1))])
def test_a_pause_after_a_copy_was_refused_alone_leaves_it_pending(world: World, then: ProviderError) -> None:
    ready(world, 4)
    provider = Troubled(copies=1, trouble=lambda number, _parcel: CallRefused("bad") if number == 1 else then)
    with pytest.raises(type(then)):
        route.publish(world.with_provider(provider), world.slot)
    assert route.report(world.newsroom, world.slot).counts["pending"] == 4
    assert route.publish(world.newsroom, world.slot).counts["accepted"] == 4


def test_a_call_refused_under_a_key_that_lives_is_split_like_any_other(world: World) -> None:
    ready(world, 8)
    bad = addresses(1)[0]

    def trouble(number: int, parcel: Parcel) -> Exception | None:
        if number == 1:
            return Unclear("no answer")
        return CallRefused("bad") if bad in [each.address for each in parcel.copies] else None

    provider = Troubled(copies=8, key_lifetime=KEY, trouble=trouble)
    sent = route.publish(world.with_provider(provider), world.slot)
    assert (sent.state, sent.counts["rejected"], sent.counts["accepted"]) == (IssueState.SENT, 1, 7)


def test_who_is_erased_between_two_attempts_is_not_mailed_by_the_second(world: World) -> None:
    ready(world, 2)

    def trouble(number: int, _parcel: Parcel) -> Exception | None:
        if number > 1:
            return None
        with world.database.write() as session:
            session.delete(roll.by_key(session, "reader1@example.com"))
        return Unclear("no answer")

    provider = Troubled(key_lifetime=KEY, trouble=trouble)
    report = route.publish(world.with_provider(provider), world.slot)
    assert (provider.calls, provider.got, len(report.unknown)) == (1, [], 2)


def test_once_told_to_stop_no_batch_is_begun_after_one_that_was_left_behind(world: World) -> None:
    ready(world, 6)
    with pytest.raises(NotProcessed):
        route.publish(world.with_provider(Troubled(key_lifetime=KEY, trouble=_unclear_then_down)), world.slot)
    stopping = threading.Event()
    provider = FakeProvider(key_lifetime=KEY, after=lambda _parcel: stopping.set())
    with pytest.raises(DecisionNeeded):
        route.publish(replace(world.with_provider(provider), stopping=stopping), world.slot)
    assert len(provider.parcels) == 1


def _unclear_then_down(number: int, _parcel: Parcel) -> Exception:
    return Unclear("no answer") if number == 1 else NotProcessed("down", timedelta(hours=1))


def test_a_long_request_to_wait_is_kept_to_by_the_clock(world: World) -> None:
    ready(world)
    asked = NotProcessed("come back", timedelta(hours=1))
    provider = Troubled(trouble=lambda number, _parcel: asked if number == 1 else None)
    with pytest.raises(NotProcessed):
        route.publish(world.with_provider(provider), world.slot)
    world.clock.at += timedelta(minutes=59)
    assert route.publish_due(world.with_provider(provider)) is None
    world.clock.at += timedelta(minutes=1)
    assert route.publish_due(world.with_provider(provider)) is not None
    assert provider.calls == 4


def test_a_runner_whose_issue_another_one_paused_says_why(world: World) -> None:
    ready(world)
    other = Troubled(trouble=lambda _number, _parcel: AccountRefused("bad key"))

    def meanwhile(_parcel: Parcel) -> None:
        if not other.calls:
            with pytest.raises(AccountRefused):
                route.publish(world.with_provider(other), world.slot)

    with pytest.raises(ProviderError, match="bad key"):
        route.publish(world.with_provider(FakeProvider(after=meanwhile)), world.slot)


def test_being_told_to_stop_during_the_last_batch_closes_the_issue(world: World) -> None:
    ready(world, 2)
    stopping = threading.Event()
    provider = FakeProvider(after=lambda _parcel: stopping.set())
    sent = route.publish(replace(world.with_provider(provider), stopping=stopping), world.slot)
    assert sent.state == IssueState.SENT


def test_an_answer_is_kept_though_the_database_fails_at_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(world, 2)
    real, failures = settle, [1, 2]

    def flaky(*args: Any) -> int:
        if failures:
            failures.pop()
            raise OperationalError("UPDATE", {}, Exception("database is locked"))
        return real(*args)

    monkeypatch.setattr("pipeline.deliver.settle", flaky)
    assert route.publish(world.newsroom, world.slot).state == IssueState.SENT
    assert failures == []


def test_whoever_is_told_to_stop_still_gives_the_database_time_to_take_an_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(world, 2)
    stopping, failures = threading.Event(), [1, 2]
    slept: list[float] = []

    def flaky(*args: Any) -> int:
        if stopping.is_set() and failures:
            failures.pop()
            raise OperationalError("UPDATE", {}, Exception("database is locked"))
        return settle(*args)

    monkeypatch.setattr("pipeline.deliver.settle", flaky)
    monkeypatch.setattr("pipeline.deliver.time", SimpleNamespace(sleep=slept.append))
    provider = FakeProvider(after=lambda _parcel: stopping.set())
    route.publish(replace(world.with_provider(provider), stopping=stopping), world.slot)
    assert slept == [2.0, 4.0]


def test_what_is_handed_over_is_what_was_frozen(local_world: World) -> None:
    ready(local_world, 2)
    handed: list[str] = []

    class Noting(FakeProvider):
        def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
            handed.append(issue.digest)
            return super().send(issue, parcel)

    route.publish(local_world.with_provider(Noting()), local_world.slot)
    with local_world.database.read() as session:
        issue = ledger.find(session, local_world.slot.name)
    assert issue
    assert handed == [issue.digest]


def test_a_bug_in_the_provider_costs_one_batch_and_pauses(world: World) -> None:
    ready(world)
    provider = Troubled(trouble=lambda _number, _parcel: ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        route.publish(world.with_provider(provider), world.slot)
    report = route.report(world.newsroom, world.slot)
    assert (report.state, report.counts["unknown"], report.counts["pending"]) == (IssueState.PAUSED, 2, 3)
    assert route.publish_due(world.newsroom) is None


def test_a_short_reply_leaves_those_it_does_not_name_unknown(world: World) -> None:
    ready(world, 3)

    class Short(FakeProvider):
        def send(self, issue: object, parcel: Parcel) -> list[Receipt]:
            first = super().send(issue, parcel)[0]  # type: ignore[arg-type]  # it looks at the parcel only
            return [first, first]

    report = route.publish(world.with_provider(Short(copies=3)), world.slot)
    assert [each.address for each in report.unknown] == addresses(2, 3)


@pytest.mark.parametrize("late", [NotProcessed("was down"), CallRefused("bad"), Unclear("no answer")])
def test_a_failure_that_comes_after_somebody_took_the_batch_over_says_nothing(world: World, late: ProviderError) -> None:
    ready(world, 2)
    provider = FakeProvider(key_lifetime=KEY)

    def overtaken(_number: int, _parcel: Parcel) -> Exception | None:
        world.clock.at += timedelta(minutes=6)
        assert route.publish(world.with_provider(provider), world.slot).state == IssueState.SENT
        return late

    slow = Troubled(key_lifetime=KEY, trouble=overtaken)
    route.publish(world.with_provider(slow), world.slot)
    report = route.report(world.newsroom, world.slot)
    assert (report.state, report.counts["accepted"]) == (IssueState.SENT, 2)
    assert provider.got == addresses(1, 2)


def test_a_late_failure_does_not_undo_the_call_that_another_runner_is_in(world: World) -> None:
    ready(world, 2)
    in_first, in_second, has_failed = threading.Event(), threading.Event(), threading.Event()

    def fail_late(_number: int, _parcel: Parcel) -> Exception | None:
        in_first.set()
        assert in_second.wait(60)
        return NotProcessed("was down")

    def accept_then(_parcel: Parcel) -> None:
        in_second.set()
        assert has_failed.wait(60)

    slow = Troubled(key_lifetime=KEY, trouble=fail_late)
    quick = FakeProvider(key_lifetime=KEY, after=accept_then)

    def wait(seconds: float) -> None:
        has_failed.set()
        world.clock.wait(seconds)

    first = threading.Thread(target=route.publish, args=(replace(world.with_provider(slow), wait=wait), world.slot))
    first.start()
    assert in_first.wait(60)
    world.clock.at += timedelta(minutes=6)
    sent = route.publish(world.with_provider(quick), world.slot)
    first.join()
    assert (sent.state, sent.counts["accepted"]) == (IssueState.SENT, 2)
    assert (slow.got, quick.got) == ([], addresses(1, 2))
    assert slow.calls == 1


def test_a_late_acceptance_is_believed(world: World) -> None:
    ready(world, 2)

    def overtaken(_parcel: Parcel) -> None:
        world.clock.at += timedelta(minutes=6)
        assert route.publish(world.newsroom, world.slot).counts["unknown"] == 2

    sent = route.publish(world.with_provider(FakeProvider(after=overtaken)), world.slot)
    assert (sent.state, sent.counts["accepted"], sent.counts["unknown"]) == (IssueState.SENT, 2, 0)


def test_stopping_lets_the_batch_in_flight_come_home_and_leaves_the_rest_for_later(world: World) -> None:
    ready(world)
    stopping = threading.Event()
    provider = FakeProvider(after=lambda _parcel: stopping.set())
    with pytest.raises(DecisionNeeded, match="goes on where it stopped"):
        route.publish(replace(world.with_provider(provider), stopping=stopping), world.slot)
    report = route.report(world.newsroom, world.slot)
    assert (report.counts["accepted"], report.counts["pending"], report.counts["sending"]) == (2, 3, 0)
    route.publish(world.newsroom, world.slot)
    assert provider.got + world.provider.got == addresses(1, 2, 3, 4, 5)


def test_deciding_about_the_last_unknown_of_a_paused_issue_closes_it(world: World) -> None:
    ready(world, 4)
    provider = Troubled(trouble=lambda _number, _parcel: Unclear("no answer"))
    with pytest.raises(Unclear):
        route.publish(world.with_provider(provider), world.slot)
    route.resolve(world.newsroom, world.slot, Decision.ACCEPTED)
    report = route.report(world.newsroom, world.slot)
    assert (report.state, report.trouble) == (IssueState.SENT, "")


def test_an_empty_roll_burns_no_issue(world: World) -> None:
    world.tell_a_week()
    with pytest.raises(DecisionNeeded, match="nobody would get it"):
        route.publish(world.newsroom, world.slot)
    world.subscribe("ada")
    assert route.publish(world.newsroom, world.slot).counts["accepted"] == 1


def test_bytes_that_were_changed_after_freezing_are_not_sent(world: World) -> None:
    ready(world)
    route.approve(world.newsroom, world.slot)
    with world.database.write() as session:
        issue = ledger.find(session, world.slot.name)
        assert issue is not None
        issue.frozen = issue.frozen.replace("Quillfern", "Quillworm")
        session.add(issue)
    with pytest.raises(RuntimeError, match="not what was frozen"):
        route.publish(world.newsroom, world.slot)
    assert world.provider.got == []


def test_this_process_runs_and_one_that_is_gone_does_not(world: World) -> None:
    assert is_running(world.newsroom.runner)
    host, number, started = world.newsroom.runner.split("/")
    assert is_running(f"{host}/{number}/{float(started) + 2:.2f}")
    assert not is_running(f"{host}/{number}/{float(started) - 3600:.2f}")
    assert not is_running(f"{host}/{max(psutil.pids()) + 1}/{started}")
    assert is_running(f"elsewhere/{number}/{started}")


def test_a_process_that_is_dead_and_not_yet_buried_does_not_run() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        process = psutil.Process(child)
        while process.status() != psutil.STATUS_ZOMBIE:
            os.sched_yield()
        assert not is_running(f"{os.uname().nodename}/{child}/{process.create_time():.2f}")
    finally:
        os.waitpid(child, 0)
