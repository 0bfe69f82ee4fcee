"""The whole story of a Friday, on both databases: what an editor plans and what can come between."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline import publish as route
from pipeline.books import IssueState
from pipeline.collect import collect
from pipeline.errors import ContentError, DecisionNeeded, UsageError
from pipeline.issue import Parcel, Story
from pipeline.ledger import Decision, Report
from pipeline.newsroom import Newsroom
from subscribers import labels, roll
from subscribers.models import LabelKind, Why
from tests.conftest import FRIDAY, WEEK, FakeProvider, World


class Killed(BaseException):
    """Stands for a process that dies on the spot: nothing in the route may catch it."""


def _die(_parcel: Parcel) -> None:
    raise Killed


def crash(world: World, provider: FakeProvider) -> None:
    """Publish through a provider at which the process dies.

    The runner of its batch is this very process, which lives on, so time must show that nobody works on it.
    """
    with pytest.raises(Killed):
        route.publish(world.with_provider(provider), world.slot)
    world.clock.at += timedelta(minutes=6)
    provider.before = provider.after = lambda _parcel: None


def test_a_normal_friday_sends_five_stories_and_a_term_to_everybody_once(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    drafted = route.draft(world.newsroom, world.slot)
    assert len(drafted.selection.stories) == 5
    assert drafted.selection.term is not None
    sent = route.publish(world.newsroom, world.slot)
    assert sent.state == IssueState.SENT
    assert world.provider.got == ["ada@example.com", "ben@example.com", "cleo@example.com"]
    assert sent.counts["accepted"] == sent.enrolled == 3


def test_the_left_half_writes_nothing(world: World) -> None:
    world.tell_a_week()
    route.draft(world.newsroom, world.slot)
    with pytest.raises(UsageError):
        route.report(world.newsroom, world.slot)


def test_a_second_call_sends_nothing(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    first = route.publish(world.newsroom, world.slot)
    assert route.publish(world.newsroom, world.slot) == first
    assert len(world.provider.got) == 3


def test_a_story_told_by_two_sources_goes_out_once(world: World) -> None:
    world.tell_a_week()
    title, summary = (
        "Radio astronomers get Quillfern, whose open weights read telescope noise",
        "Quillfern beats the old tools.",
    )
    again = Story("https://ledger.example/quillfern", title, "Ledger", FRIDAY - timedelta(hours=20), summary)
    world.tell("Ledger", again)
    chosen = route.draft(world.newsroom, world.slot).selection.stories
    (quillfern,) = [each for each in chosen if "Quillfern" in each.story.title]
    assert sorted(quillfern.sources) == ["Ledger", "Wire"]


def test_no_story_and_no_term_returns_the_week_after(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    route.publish(world.newsroom, world.slot)
    first = route.draft(world.newsroom, world.slot)
    next_friday = FRIDAY + timedelta(days=7)
    world.clock.at = next_friday
    old_title, old_summary = WEEK[0]
    stale = Story("https://late.example/quillfern", old_title, "Wire", next_friday - timedelta(hours=5), old_summary)
    fresh = Story(
        "https://wire.example/new", "Lighthouse keepers adopt a forecast model", "Wire", next_friday - timedelta(hours=6)
    )
    world.tell("Wire", stale, fresh)
    second = route.draft(world.newsroom, world.newsroom.schedule.slot(next_friday.date()))
    assert [each.story.title for each in second.selection.stories] == [fresh.title]
    assert second.issue.number == 2
    assert second.selection.term
    assert first.selection.term
    assert second.selection.term.term.slug != first.selection.term.term.slug


def for_audience(world: World, audience: str) -> Newsroom:
    written = world.newsroom.config.newsletter.model_copy(update={"audience": audience})
    return replace(world.newsroom, config=replace(world.newsroom.config, newsletter=written))


def test_an_issue_goes_to_its_audience_alone(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    with world.database.write() as session:
        for name in ("ada", "cleo"):
            found = roll.by_key(session, f"{name}@example.com")
            assert found
            assert found.id
            labels.put(session, found.id, LabelKind.TOPIC, ["policy"], "us", world.clock())
    newsroom = for_audience(world, "topic:policy and language:en and zone:Europe/Berlin")
    assert route.rehearse(newsroom, world.slot).readers == 2
    sent = route.publish(newsroom, world.slot, agree=lambda _issue, readers: readers == 2)
    assert (sent.enrolled, sent.excluded) == (2, 0)
    assert world.provider.got == ["ada@example.com", "cleo@example.com"]


def test_an_audience_of_nobody_is_said_by_its_name(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben")
    with pytest.raises(DecisionNeeded, match=r"none of 2 mailable subscribers is in newsletter\.audience"):
        route.publish(for_audience(world, "topic:policy"), world.slot)
    with pytest.raises(UsageError, match="nothing is frozen"):
        route.report(world.newsroom, world.slot)


def test_whoever_has_paused_gets_nothing_until_the_pause_is_over(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    weeks = {"ada": timedelta(weeks=1), "cleo": timedelta(0)}
    with world.database.write() as session:
        for name, long in weeks.items():
            found = roll.by_key(session, f"{name}@example.com")
            assert found
            found.paused_until = world.clock() + long
    assert route.count_readers(world.newsroom) == 2
    sent = route.publish(world.newsroom, world.slot)
    assert (sent.enrolled, sent.excluded) == (2, 0)
    assert world.provider.got == ["ben@example.com", "cleo@example.com"]
    world.clock.at += weeks["ada"]
    assert route.count_readers(world.newsroom) == 3


def test_whoever_pauses_while_the_issue_is_being_sent_is_skipped(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")

    def pause_cleo(_parcel: Parcel) -> None:
        with world.database.write() as session:
            found = roll.by_key(session, "cleo@example.com")
            assert found
            found.paused_until = world.clock() + timedelta(weeks=2)

    sent = route.publish(world.with_provider(FakeProvider(1, before=pause_cleo)), world.slot)
    assert (sent.state, sent.counts["accepted"], sent.counts["skipped"]) == (IssueState.SENT, 2, 1)


def test_before_the_slot_nothing_happens_unless_told(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    world.clock.at = FRIDAY - timedelta(minutes=1)
    with pytest.raises(DecisionNeeded, match="opens at 09:00 on Friday"):
        route.publish(world.newsroom, world.slot)
    assert world.provider.got == []
    assert route.publish(world.newsroom, world.slot, anyway=True).counts["accepted"] == 1


def test_a_late_start_within_the_grace_sends(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    world.clock.at = FRIDAY + timedelta(hours=5, minutes=59)
    collect(world.newsroom)
    assert route.publish_due(world.newsroom) is not None
    assert world.provider.got == ["ada@example.com"]


def test_after_the_grace_nothing_is_sent_by_itself(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    world.clock.at = FRIDAY + timedelta(hours=6, minutes=1)
    assert route.publish_due(world.newsroom) is None
    with pytest.raises(DecisionNeeded, match="grace of 6 hours is over"):
        route.publish(world.newsroom, world.slot)
    assert world.provider.got == []


def test_an_issue_begun_in_time_is_finished_after_the_grace(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    dying = world.with_provider(FakeProvider(before=_die))
    with pytest.raises(Killed):
        route.publish(dying, world.slot)
    world.clock.at = FRIDAY + timedelta(days=2)
    assert route.publish_due(world.newsroom) is None
    assert route.publish(world.newsroom, world.slot).counts["accepted"] == 1


def test_what_is_approved_is_what_is_sent_to_the_byte(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    world.clock.at = FRIDAY - timedelta(hours=12)
    route.approve(world.newsroom, world.slot)
    approved = route.look(world.newsroom, world.slot)
    late = Story("https://wire.example/late", "Everybody sues everybody over GPT 9", "Wire", FRIDAY - timedelta(hours=11))
    world.tell("Wire", late)
    world.clock.at = FRIDAY
    route.publish(world.newsroom, world.slot)
    assert route.look(world.newsroom, world.slot).rendered == approved.rendered
    assert approved.frozen


def test_reopening_voids_an_approval_until_readers_are_enrolled(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    route.approve(world.newsroom, world.slot)
    route.reopen(world.newsroom, world.slot)
    assert not route.look(world.newsroom, world.slot).frozen
    with pytest.raises(DecisionNeeded, match="is held, by a person"):
        route.publish(world.newsroom, world.slot)
    route.approve(world.newsroom, world.slot)
    route.publish(world.newsroom, world.slot)
    with pytest.raises(DecisionNeeded, match="cannot change"):
        route.reopen(world.newsroom, world.slot)


def test_saying_no_to_the_number_of_readers_writes_nothing(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben")
    asked: list[int] = []

    def refuse(_issue: object, readers: int) -> bool:
        asked.append(readers)
        return False

    with pytest.raises(DecisionNeeded):
        route.publish(world.newsroom, world.slot, agree=refuse)
    assert asked == [2]
    assert not route.look(world.newsroom, world.slot).frozen


def test_a_crash_before_the_call_leaves_its_batch_unknown_and_the_rest_is_sent(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo", "dan", "eve")
    crash(world, FakeProvider(before=_die))
    sent = route.publish(world.newsroom, world.slot)
    assert world.provider.got == ["cleo@example.com", "dan@example.com", "eve@example.com"]
    assert sent.state == IssueState.NEEDS_DECISION
    assert [each.address for each in sent.unknown] == ["ada@example.com", "ben@example.com"]
    assert sum(sent.counts.values()) == sent.enrolled == 5


def test_a_crash_between_acceptance_and_receipt_sends_nobody_a_second_copy(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo", "dan", "eve")
    provider = FakeProvider(after=_die)
    crash(world, provider)
    sent = route.publish(world.with_provider(provider), world.slot)
    assert sorted(provider.got) == sorted(set(provider.got))
    assert len(provider.got) == 5
    assert [each.address for each in sent.unknown] == ["ada@example.com", "ben@example.com"]


def test_with_a_provider_that_honours_keys_a_crash_heals_itself(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    provider = FakeProvider(after=_die, key_lifetime=timedelta(hours=24))
    crash(world, provider)
    sent = route.publish(world.with_provider(provider), world.slot)
    assert sent.state == IssueState.SENT
    assert provider.got == ["ada@example.com", "ben@example.com", "cleo@example.com"]
    first, again, _ = provider.parcels
    assert first == again


def test_a_key_that_has_expired_is_not_used_again(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    provider = FakeProvider(after=_die, key_lifetime=timedelta(hours=1))
    crash(world, provider)
    world.clock.at += timedelta(minutes=56)
    sent = route.publish(world.with_provider(provider), world.slot)
    assert len(sent.unknown) == 2
    assert len(provider.got) == 3


def test_a_batch_with_an_erased_member_is_not_sent_again_under_its_key(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    provider = FakeProvider(after=_die, key_lifetime=timedelta(hours=24))
    crash(world, provider)
    with world.database.write() as session:
        session.delete(roll.by_key(session, "ben@example.com"))
    sent = route.publish(world.with_provider(provider), world.slot)
    assert [each.address for each in sent.unknown] == ["ada@example.com", "erased"]
    assert sum(sent.counts.values()) == sent.enrolled == 3


def test_a_person_resolves_what_is_unknown(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    crash(world, FakeProvider(before=_die))
    route.publish(world.newsroom, world.slot)
    assert route.resolve(world.newsroom, world.slot, Decision.ACCEPTED, "Ada@example.com") == 1
    assert route.report(world.newsroom, world.slot).state == IssueState.NEEDS_DECISION
    assert route.resolve(world.newsroom, world.slot, Decision.RESEND) == 1
    sent = route.publish(world.newsroom, world.slot)
    assert sent.state == IssueState.SENT
    assert world.provider.got == ["cleo@example.com", "ben@example.com"]


def test_an_unsubscribe_a_suppression_and_an_erasure_before_the_claim_win(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo", "dan", "eve", "fay")
    done: list[bool] = []

    def meanwhile(_parcel: Parcel) -> None:
        if done:
            return
        done.append(True)
        with world.database.write() as session:
            roll.unsubscribe(session, "cleo@example.com", world.clock())
            roll.suppress(session, "dan@example.com", Why.COMPLAINT, world.clock())
            session.delete(roll.by_key(session, "eve@example.com"))

    provider = FakeProvider(after=meanwhile)
    sent = route.publish(world.with_provider(provider), world.slot)
    assert provider.got == ["ada@example.com", "ben@example.com", "fay@example.com"]
    assert sent.counts["skipped"] == 3
    assert sum(sent.counts.values()) == sent.enrolled == 6


def test_who_is_suppressed_or_has_left_before_is_not_enrolled(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    with world.database.write() as session:
        roll.unsubscribe(session, "ada@example.com", world.clock())
        roll.suppress(session, "ben@example.com", Why.BOUNCE, world.clock())
    sent = route.publish(world.newsroom, world.slot)
    assert world.provider.got == ["cleo@example.com"]
    assert (sent.enrolled, sent.excluded) == (1, 1)


def test_who_signs_up_after_the_enrolment_waits_for_the_next_issue(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    provider = FakeProvider(after=lambda _parcel: world.subscribe(f"late{len(provider.parcels)}"))
    sent = route.publish(world.with_provider(provider), world.slot)
    assert sent.enrolled == 3
    assert provider.got == ["ada@example.com", "ben@example.com", "cleo@example.com"]


def test_a_thin_week_goes_out_with_what_there_is_and_says_so(world: World) -> None:
    world.tell_a_week(3)
    world.subscribe("ada")
    drafted = route.draft(world.newsroom, world.slot)
    assert "a thin week: 3 of 5 stories" in [finding.what for finding in drafted.findings]
    assert route.publish(world.newsroom, world.slot).counts["accepted"] == 1


def test_a_week_without_stories_waits_for_an_editor_and_writes_nothing(world: World) -> None:
    world.subscribe("ada")
    with pytest.raises(ContentError, match="only 0 of 5 stories"):
        route.publish(world.newsroom, world.slot)
    assert not route.look(world.newsroom, world.slot).frozen
    assert world.provider.got == []


def test_two_runners_at_once_send_everybody_one_copy(world: World) -> None:
    world.tell_a_week()
    world.subscribe(*(f"reader{number:02}" for number in range(40)))
    provider = FakeProvider(copies=3)
    runners = [replace(world.with_provider(provider), wait=lambda _seconds: None) for _ in range(2)]
    start = threading.Barrier(2)
    reports: list[Report] = []

    def run(newsroom: Newsroom) -> None:
        start.wait()
        reports.append(route.publish(newsroom, world.slot))

    threads = [threading.Thread(target=run, args=(newsroom,)) for newsroom in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(provider.got) == sorted(f"reader{number:02}@example.com" for number in range(40))
    assert [report.state for report in reports] == [IssueState.SENT, IssueState.SENT]
    assert reports[0] == reports[1]


def test_a_batch_of_a_living_runner_is_left_alone(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    other = FakeProvider()
    nested: list[Report] = []

    def meanwhile(_parcel: Parcel) -> None:
        if not nested:
            nested.append(route.report(world.newsroom, world.slot))
            world.clock.at += timedelta(minutes=1)
            other_runner = replace(world.with_provider(other), wait=_give_up)
            with pytest.raises(_GaveUpError):
                route.publish(other_runner, world.slot)

    provider = FakeProvider(before=meanwhile)
    sent = route.publish(world.with_provider(provider), world.slot)
    assert sent.state == IssueState.SENT
    assert (provider.got, other.got) == (["ada@example.com", "ben@example.com"], ["cleo@example.com"])


class _GaveUpError(Exception):
    pass


def _give_up(_seconds: float) -> None:
    raise _GaveUpError
