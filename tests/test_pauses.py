"""What stops an issue and what lets it go on: a person, a ramp, and copies of which nobody can tell."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlmodel import col, select, update

from pipeline import events, ledger
from pipeline import publish as route
from pipeline.books import DeliveryRow, DeliveryState, IssueRow, IssueState, Pause
from pipeline.config import WarmUp
from pipeline.deliver import CLOCKS_DIFFER, _by_time
from pipeline.errors import AccountRefused, DecisionNeeded, FridayError, NotProcessed, ProviderError, Unclear, UsageError
from pipeline.issue import Copy, Event, Kind, Parcel, Receipt, RenderedIssue, Shown, Slot
from pipeline.ledger import Decision, Lost, Report
from pipeline.newsroom import Newsroom
from subscribers import roll
from tests.conftest import FRIDAY, FakeProvider, World
from tests.test_deliver import Troubled, addresses, ready, whole

BERLINS_MIDNIGHT = datetime(2026, 11, 27, 23, tzinfo=UTC)
LOG = {"has_log": True}
LAG = timedelta(minutes=15)


def standing(world: World) -> tuple[str, str, datetime | None]:
    """State, reason of the pause and time to go on of the issue."""
    with world.database.read() as session:
        issue = session.exec(select(IssueRow)).one()
        return issue.state, issue.paused_by, issue.resume_at


def report(world: World) -> Report:
    found = route.report(world.newsroom, world.slot)
    whole(found)
    return found


# A person


def paused(world: World, readers: int = 5) -> FakeProvider:
    """An issue that a person paused during its first call."""
    ready(world, readers)
    provider = FakeProvider(after=lambda _parcel: route.pause(world.newsroom, world.slot))
    with pytest.raises(DecisionNeeded, match="paused by a person"):
        route.publish(world.with_provider(provider), world.slot)
    return provider


def test_a_pause_stops_a_sending_issue_wherever_it_runs_and_what_is_in_flight_comes_home(world: World) -> None:
    provider = paused(world)
    assert provider.got == addresses(1, 2)
    found = report(world)
    assert (found.state, found.paused_by, found.trouble) == (IssueState.PAUSED, Pause.PERSON, "paused by a person")
    assert (found.counts["accepted"], found.counts["pending"], found.counts["sending"]) == (2, 3, 0)


def test_neither_publishing_nor_the_clock_undoes_a_persons_pause(world: World) -> None:
    paused(world)
    for anyway in (False, True):
        with pytest.raises(DecisionNeeded, match=f"friday resume {world.slot.name}"):
            route.publish(world.newsroom, world.slot, anyway=anyway)
    for _ in range(3):
        assert route.publish_due(world.newsroom) is None
        world.clock.at += timedelta(hours=1)
    assert world.provider.got == []
    assert report(world).paused_by == Pause.PERSON


@pytest.mark.parametrize("who", ["a person", "the clock"])
def test_after_a_resume_whoever_publishes_sends_the_rest_and_nobody_gets_two(world: World, who: str) -> None:
    provider = paused(world)
    route.resume(world.newsroom, world.slot)
    assert report(world).trouble == ""
    sent = route.publish(world.newsroom, world.slot) if who == "a person" else route.publish_due(world.newsroom)
    assert sent is not None
    assert (sent.state, sent.paused_by) == (IssueState.SENT, "")
    assert provider.got + world.provider.got == addresses(1, 2, 3, 4, 5)


def test_pausing_twice_is_as_once(world: World) -> None:
    paused(world)
    route.pause(world.newsroom, world.slot)
    assert standing(world) == (IssueState.PAUSED, Pause.PERSON, None)
    route.resume(world.newsroom, world.slot)
    assert standing(world) == (IssueState.SENDING, "", None)


def test_only_what_is_being_sent_can_be_paused_and_only_what_is_paused_resumed(world: World) -> None:
    ready(world)
    for verb in (route.pause, route.resume):
        with pytest.raises(UsageError, match="nothing is frozen"):
            verb(world.newsroom, world.slot)
    route.approve(world.newsroom, world.slot)
    with pytest.raises(UsageError, match="is not being sent: it is approved"):
        route.pause(world.newsroom, world.slot)
    route.publish(world.newsroom, world.slot)
    with pytest.raises(UsageError, match="is not being sent: it is sent"):
        route.pause(world.newsroom, world.slot)
    with pytest.raises(UsageError, match="is not paused: it is sent"):
        route.resume(world.newsroom, world.slot)
    assert standing(world) == (IssueState.SENT, "", None)


def test_a_person_can_pause_what_would_go_on_by_itself_after_an_outage(world: World) -> None:
    ready(world)
    down = Troubled(trouble=lambda _number, _parcel: NotProcessed("down", timedelta(hours=1)))
    with pytest.raises(NotProcessed):
        route.publish(world.with_provider(down), world.slot)
    assert standing(world)[2] is not None
    route.pause(world.newsroom, world.slot)
    world.clock.at += timedelta(hours=2)
    assert route.publish_due(world.newsroom) is None
    with pytest.raises(DecisionNeeded):
        route.publish(world.newsroom, world.slot)
    assert (world.provider.got, standing(world)) == ([], (IssueState.PAUSED, Pause.PERSON, None))


def test_a_person_who_pauses_at_the_moment_when_another_goes_on_wins(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(world)
    refused = Troubled(trouble=lambda _number, _parcel: AccountRefused("bad key"))
    with pytest.raises(AccountRefused):
        route.publish(world.with_provider(refused), world.slot)
    looked = route._frozen

    def look_and_be_overtaken(newsroom: Newsroom, slot: Slot) -> IssueRow | None:
        found = looked(newsroom, slot)
        with monkeypatch.context() as patch:
            patch.setattr(route, "_frozen", looked)
            route.pause(world.newsroom, world.slot)
        return found

    monkeypatch.setattr(route, "_frozen", look_and_be_overtaken)
    with pytest.raises(DecisionNeeded, match="paused by a person"):
        route.publish(world.newsroom, world.slot)
    assert (world.provider.got, standing(world)) == ([], (IssueState.PAUSED, Pause.PERSON, None))


def test_a_pause_during_the_last_call_has_nothing_left_to_stop(world: World) -> None:
    ready(world, 2)
    provider = FakeProvider(after=lambda _parcel: route.pause(world.newsroom, world.slot))
    assert route.publish(world.with_provider(provider), world.slot).state == IssueState.SENT
    assert standing(world) == (IssueState.SENT, "", None)


# A ramp


def warming_up(world: World, first_day: int = 3, growth: float = 2.0, provider: FakeProvider | None = None) -> Newsroom:
    plan = WarmUp(begins=FRIDAY.date(), first_day=first_day, growth=growth)
    config = replace(world.newsroom.config, warm_up=plan)
    return replace(world.newsroom, config=config, provider=provider or world.provider)


def test_a_ramp_lets_so_many_go_and_pauses_the_issue_till_the_midnight_of_its_zone(world: World) -> None:
    ready(world, 20)
    with pytest.raises(DecisionNeeded, match=r"the warm-up lets 3 copies go today; it goes on by itself tomorrow"):
        route.publish(warming_up(world), world.slot)
    assert world.provider.got == addresses(1, 2, 3)
    assert standing(world) == (IssueState.PAUSED, Pause.RAMP, BERLINS_MIDNIGHT)


def test_until_then_neither_the_clock_nor_a_person_sends_more(world: World) -> None:
    ready(world, 20)
    newsroom = warming_up(world)
    with pytest.raises(DecisionNeeded):
        route.publish(newsroom, world.slot)
    world.clock.at = BERLINS_MIDNIGHT - timedelta(seconds=1)
    assert route.publish_due(newsroom) is None
    for _ in range(2):
        with pytest.raises(DecisionNeeded, match="the warm-up lets 3 copies go today"):
            route.publish(newsroom, world.slot)
    assert len(world.provider.got) == 3
    assert standing(world) == (IssueState.PAUSED, Pause.RAMP, BERLINS_MIDNIGHT)


def ring(newsroom: Newsroom) -> None:
    """What the clock does, which goes on whatever a ring raises."""
    try:
        route.publish_due(newsroom)
    except FridayError:
        return


def test_the_clock_goes_on_by_itself_with_every_day_however_long_the_slot_is_over(world: World) -> None:
    ready(world, 30)
    newsroom, sent = warming_up(world), list[int]()
    ring(newsroom)
    world.clock.at = BERLINS_MIDNIGHT
    for _ in range(4):
        sent.append(len(world.provider.got))
        ring(newsroom)
        world.clock.at += timedelta(days=1)
    assert sent == [3, 3 + 6, 3 + 6 + 12, 30]
    assert (standing(world)[0], sorted(world.provider.got)) == (IssueState.SENT, sorted(addresses(*range(1, 31))))


def test_a_clock_that_was_off_for_days_goes_on_with_what_that_day_allows(world: World) -> None:
    ready(world, 50)
    newsroom = warming_up(world)
    ring(newsroom)
    world.clock.at = BERLINS_MIDNIGHT + timedelta(days=2, hours=5)
    ring(newsroom)
    assert len(world.provider.got) == 3 + 24


def test_an_audience_within_the_allowance_is_not_kept_waiting(world: World) -> None:
    ready(world, 3)
    assert route.publish(warming_up(world), world.slot).state == IssueState.SENT


def test_what_may_have_left_counts_and_what_surely_did_not_does_not(world: World) -> None:
    ready(world, 20)
    troubles = {1: NotProcessed("was down"), 2: Unclear("no answer")}
    provider = Troubled(trouble=lambda number, _parcel: troubles.get(number))
    with pytest.raises(DecisionNeeded, match="warm-up"):
        route.publish(warming_up(world, 5, provider=provider), world.slot)
    found = report(world)
    assert (found.counts["unknown"], found.counts["accepted"], found.counts["pending"]) == (2, 3, 15)


@dataclass
class Diary(FakeProvider):
    """Writes down the issue, the day in Berlin and the reader of each copy."""

    world: World | None = None
    entries: list[tuple[str, date, str]] = field(default_factory=list)

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        assert self.world is not None
        day = self.world.clock().astimezone(self.world.newsroom.schedule.zone).date()
        self.entries += [(issue.slot, day, copy.address) for copy in parcel.copies]
        return super().send(issue, parcel)


def test_the_issues_of_two_weeks_share_the_allowance_of_a_day_and_everybody_gets_each_once(world: World) -> None:
    ready(world, 30)
    diary = Diary(world=world)
    newsroom = warming_up(world, 3, 1.01, diary)
    for hour in range(24 * 24):
        if hour == 24 * 7 - 2:
            world.tell_a_week(before=FRIDAY + timedelta(days=7))
        if hour < 24 * 8 or hour % 24 < 2:
            ring(newsroom)
        world.clock.at += timedelta(hours=1)
    allowed = newsroom.ramp
    assert allowed is not None
    for day, copies in Counter(day for _, day, _ in diary.entries).items():
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        assert copies <= allowed.allowance(noon).copies, day
    everybody = addresses(*range(1, 31))
    slots = ["2026-11-27", "2026-12-04"]
    assert sorted((slot, address) for slot, _, address in diary.entries if slot in slots) == sorted(
        (slot, address) for slot in slots for address in everybody
    )


def test_a_person_can_pause_what_would_go_on_by_itself_tomorrow(world: World) -> None:
    ready(world, 20)
    newsroom = warming_up(world)
    ring(newsroom)
    route.pause(newsroom, world.slot)
    world.clock.at = BERLINS_MIDNIGHT
    ring(newsroom)
    assert len(world.provider.got) == 3
    assert standing(world) == (IssueState.PAUSED, Pause.PERSON, None)


def test_a_ramp_goes_on_though_slots_fall_on_another_weekday_by_now(world: World) -> None:
    ready(world, 9)
    newsroom = warming_up(world)
    ring(newsroom)
    timetable = newsroom.config.timetable.model_copy(update={"weekday": "tue"})
    newsroom = replace(newsroom, config=replace(newsroom.config, timetable=timetable))
    world.clock.at = BERLINS_MIDNIGHT
    assert route.publish_due(newsroom) is not None
    assert standing(world)[0] == IssueState.SENT


@pytest.mark.parametrize("how", ["told to stop", "killed"])
def test_a_ramp_goes_on_by_itself_after_its_sending_was_interrupted(world: World, how: str) -> None:
    ready(world, 9)
    newsroom = warming_up(world)
    ring(newsroom)
    world.clock.at = BERLINS_MIDNIGHT
    stopping = threading.Event()

    def end(_parcel: Parcel) -> None:
        stopping.set()
        if how == "killed":
            raise SystemExit

    provider = FakeProvider(after=end)
    with pytest.raises((DecisionNeeded, SystemExit)):
        route.publish_due(replace(newsroom, provider=provider, stopping=stopping))
    world.clock.at += timedelta(hours=1)
    ring(newsroom)
    assert report(world).counts["pending"] == 0


# Copies of which nobody can tell


@dataclass
class Forgetful(FakeProvider):
    """Takes every copy; answers no call whose number is in `loses`. Its log shows what stands in it, or cannot be read."""

    loses: Sequence[int] = (1,)
    log_trouble: ProviderError | None = None
    asked: list[tuple[list[str], datetime]] = field(default_factory=list)

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        receipts = super().send(issue, parcel)
        if len(self.parcels) in self.loses:
            raise Unclear("no answer")
        return receipts

    def look_up(self, issue: RenderedIssue, copies: Sequence[Copy], since: datetime) -> Shown:
        self.asked.append(([copy.address for copy in copies], since))
        if self.log_trouble:
            raise self.log_trouble
        return super().look_up(issue, copies, since)

    def shows(self, address: str, *, accepted: bool = True) -> None:
        """Let the log show a copy."""
        copies = [copy for parcel in self.parcels for copy in parcel.copies]
        ref = next(copy.ref for copy in copies if copy.address == address)
        self.log[ref] = Receipt(ref, accepted, "from the log" if accepted else "", "" if accepted else "no such user")


def lost(world: World, provider: Forgetful, *, resends: bool = True, readers: int = 4) -> Newsroom:
    """An issue that was published by a provider which loses an answer."""
    ready(world, readers)
    newsroom = replace(world.with_provider(provider), resend_unknown=resends)
    route.publish(newsroom, world.slot)
    return newsroom


def test_on_unknown_resend_sends_an_unknown_copy_once_more(world: World) -> None:
    provider = Forgetful()
    lost(world, provider)
    found = report(world)
    assert (found.state, found.counts["accepted"], found.unknown) == (IssueState.SENT, 4, ())
    assert provider.got == addresses(1, 2, 3, 4, 1, 2)


def test_on_unknown_resend_sends_no_copy_a_third_time(world: World) -> None:
    provider = Forgetful(loses=(1, 3))
    newsroom = lost(world, provider)
    for _ in range(3):
        route.publish(newsroom, world.slot)
        route.look_up_unknown(newsroom)
        world.clock.at += timedelta(hours=1)
    found = report(world)
    assert (found.state, [each.address for each in found.unknown]) == (IssueState.NEEDS_DECISION, addresses(1, 2))
    assert provider.got == addresses(1, 2, 3, 4, 1, 2)


@pytest.mark.parametrize("has_log", [True, False])
def test_on_unknown_hold_never_sends_again(world: World, *, has_log: bool) -> None:
    provider = Forgetful(more={"has_log": has_log})
    newsroom = lost(world, provider, resends=False)
    for _ in range(3):
        world.clock.at += timedelta(hours=1)
        assert route.publish(newsroom, world.slot).state == IssueState.NEEDS_DECISION
        assert route.look_up_unknown(newsroom) == 0
    assert provider.got == addresses(1, 2, 3, 4)
    assert len(report(world).unknown) == 2


def test_a_provider_with_a_log_gets_its_time_before_anything_is_sent_again(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = lost(world, provider)
    began = world.clock.at
    assert report(world).state == IssueState.NEEDS_DECISION
    world.clock.at = began + LAG - timedelta(seconds=1)
    route.look_up_unknown(newsroom)
    route.publish(newsroom, world.slot)
    assert provider.got == addresses(1, 2, 3, 4)
    world.clock.at = began + LAG
    route.look_up_unknown(newsroom)
    assert provider.got == addresses(1, 2, 3, 4, 1, 2)
    assert report(world).state == IssueState.SENT


def test_only_what_the_log_does_not_show_is_sent_again(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = lost(world, provider)
    provider.shows("reader2@example.com")
    world.clock.at += LAG
    assert route.look_up_unknown(newsroom) == 1
    assert provider.got == addresses(1, 2, 3, 4, 1)
    with world.database.read() as session:
        ids = session.exec(select(DeliveryRow.provider_id).order_by(col(DeliveryRow.id))).all()
    assert ids == ["id", "from the log", "id", "id"]
    assert report(world).state == IssueState.SENT


def test_what_the_log_shows_is_believed_at_once_and_closes_the_issue(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = lost(world, provider, resends=False)
    provider.shows("reader1@example.com")
    assert route.look_up_unknown(newsroom) == 1
    assert [each.address for each in report(world).unknown] == addresses(2)
    provider.shows("reader2@example.com", accepted=False)
    assert route.look_up_unknown(newsroom) == 1
    found = report(world)
    assert (found.state, found.counts["accepted"], found.counts["rejected"]) == (IssueState.SENT, 3, 1)
    assert route.look_up_unknown(newsroom) == 0


def test_what_a_log_decides_is_counted_over_all_the_times_at_which_copies_were_lost(world: World) -> None:
    provider = Forgetful(more=LOG, loses=(1, 3), before=lambda _parcel: world.clock.wait(1_000))
    newsroom = lost(world, provider, resends=False, readers=8)
    assert len(report(world).unknown) == 4
    provider.asked.clear()
    for number in (1, 2, 5):
        provider.shows(f"reader{number}@example.com")
    assert route.look_up_unknown(newsroom) == 3
    assert [copies for copies, _ in provider.asked] == [addresses(1, 2), addresses(5, 6)]


def test_a_log_is_asked_about_the_very_issue(world: World) -> None:
    asked: list[object] = []

    class Asked(Forgetful):
        def look_up(self, issue: RenderedIssue, copies: Sequence[Copy], since: datetime) -> Shown:
            asked.append(issue)
            return super().look_up(issue, copies, since)

    lost(world, Asked(more=LOG))
    assert asked == [route.look(world.newsroom, world.slot).rendered]


def test_a_provider_without_a_log_is_not_asked_for_it(world: World) -> None:
    provider = Forgetful()
    newsroom = lost(world, provider)
    route.publish(newsroom, world.slot)
    assert provider.asked == []


def test_a_run_asks_the_log_once_whatever_comes_after(world: World) -> None:
    provider = Forgetful(more={"has_log": True, "log_lag": timedelta(0)}, loses=(1, 3))
    lost(world, provider)
    assert provider.got == addresses(1, 2, 3, 4, 1, 2)
    assert [copies for copies, _ in provider.asked] == [addresses(1, 2)]


def test_a_single_copy_is_sent_again_as_many_are(world: World) -> None:
    provider = Forgetful(copies=1)
    lost(world, provider)
    assert provider.got == addresses(1, 2, 3, 4, 1)
    assert report(world).state == IssueState.SENT


def test_an_issue_that_nobody_closed_is_closed_by_whoever_looks(world: World) -> None:
    """Who settled the last unknown copy has died before it came to that."""
    newsroom = lost(world, Forgetful(), resends=False)
    with world.database.write() as session:
        session.execute(update(DeliveryRow).values(state=DeliveryState.ACCEPTED))
    world.clock.at += timedelta(hours=1)
    assert route.publish(newsroom, world.slot).state == IssueState.SENT
    with world.database.read() as session:
        assert session.exec(select(IssueRow.closed_at)).one() == world.clock.at


def test_nothing_is_counted_as_sent_again_where_nothing_is(world: World) -> None:
    provider = Forgetful(loses=(1, 3))
    newsroom = lost(world, provider)
    for resends in (True, False):
        told: list[tuple[int, int]] = []
        again = replace(newsroom, resend_unknown=resends)
        route.publish(again, world.slot, progress=lambda done, of, told=told: told.append((done, of)))  # type: ignore[misc]
        assert set(told) <= {(4, 4)}


def test_what_was_lost_within_minutes_is_asked_for_at_once() -> None:
    def gone(minutes: float) -> Lost:
        at = FRIDAY + timedelta(minutes=minutes)
        return Lost(Copy(str(minutes), "", ""), 0, at, at)

    first, second, third, fourth = gone(0), gone(5), gone(10), gone(15.1)
    assert _by_time([third, first, fourth, second]) == [[first, second, third], [fourth]]


def test_publishing_an_issue_in_need_of_a_decision_asks_the_log_too(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = lost(world, provider, resends=False)
    for number in (1, 2):
        provider.shows(f"reader{number}@example.com")
    assert route.publish(newsroom, world.slot).state == IssueState.SENT
    assert provider.got == addresses(1, 2, 3, 4)


def test_the_log_is_asked_from_the_first_of_the_calls_in_question_on(world: World) -> None:
    provider = Forgetful(more=LOG, loses=(1,), before=lambda _parcel: world.clock.wait(7))
    began = world.clock.at
    newsroom = lost(world, provider)
    provider.asked.clear()
    world.clock.at += timedelta(hours=1)
    provider.loses = ()
    route.look_up_unknown(newsroom)
    assert provider.asked[0] == (addresses(1, 2), began - CLOCKS_DIFFER)


def test_a_log_that_cannot_be_read_leaves_everything_as_it_is(world: World) -> None:
    provider = Forgetful(more=LOG, log_trouble=NotProcessed("the log is down"))
    newsroom = lost(world, provider)
    world.clock.at += timedelta(hours=1)
    for ask in (lambda: route.look_up_unknown(newsroom), lambda: route.publish(newsroom, world.slot)):
        with pytest.raises(ProviderError, match="the log is down"):
            ask()
    found = report(world)
    assert (found.state, len(found.unknown), provider.got) == (IssueState.NEEDS_DECISION, 2, addresses(1, 2, 3, 4))
    provider.log_trouble = None
    route.look_up_unknown(newsroom)
    assert report(world).state == IssueState.SENT


def test_the_clock_asks_about_the_issues_of_the_last_days_only(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = lost(world, provider)
    provider.asked.clear()
    world.clock.at += route.LOG_WINDOW + timedelta(minutes=1)
    assert route.look_up_unknown(newsroom) == 0
    assert provider.asked == []
    assert report(world).state == IssueState.NEEDS_DECISION


def test_what_is_told_of_an_unknown_copy_spares_its_second_sending(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = lost(world, provider)
    with world.database.write() as session:
        events.apply(session, Event(Kind.DELIVERED, provider.parcels[0].copies[0].ref), world.clock())
    world.clock.at += LAG
    route.look_up_unknown(newsroom)
    assert provider.got == addresses(1, 2, 3, 4, 2)


def test_who_has_left_or_was_suppressed_meanwhile_gets_no_second_copy(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = lost(world, provider)
    with world.database.write() as session:
        roll.unsubscribe(session, "reader1@example.com", world.clock())
    world.clock.at += LAG
    route.look_up_unknown(newsroom)
    found = report(world)
    assert (found.state, found.counts["skipped"], found.counts["accepted"]) == (IssueState.SENT, 1, 3)
    assert provider.got == addresses(1, 2, 3, 4, 2)


def test_the_copy_of_somebody_erased_is_neither_looked_for_nor_sent_again(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = lost(world, provider)
    with world.database.write() as session:
        session.delete(roll.by_key(session, "reader1@example.com"))
    provider.asked.clear()
    world.clock.at += LAG
    route.look_up_unknown(newsroom)
    assert [asked for asked, _ in provider.asked] == [addresses(2)]
    found = report(world)
    assert (found.state, [each.address for each in found.unknown]) == (IssueState.NEEDS_DECISION, ["erased"])


def test_what_a_person_decided_meanwhile_stays_decided(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = lost(world, provider)
    route.resolve(newsroom, world.slot, Decision.SKIP)
    world.clock.at += LAG
    assert route.look_up_unknown(newsroom) == 0
    assert provider.got == addresses(1, 2, 3, 4)
    assert report(world).counts["skipped"] == 2


def test_two_who_look_up_at_once_send_a_copy_once_more(world: World) -> None:
    provider = Forgetful(more=LOG)
    newsroom = replace(lost(world, provider, readers=20), wait=lambda _seconds: None)
    provider.loses = ()
    world.clock.at += LAG
    start, troubles = threading.Barrier(2), list[BaseException]()

    def run() -> None:
        start.wait()
        try:
            route.look_up_unknown(newsroom)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must hear of it
            troubles.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert Counter(provider.got) == Counter(addresses(*range(1, 21), 1, 2))
    assert report(world).state == IssueState.SENT


def test_a_copy_that_another_runner_sent_again_in_vain_is_not_sent_a_third_time(world: World) -> None:
    newsroom = lost(world, Forgetful(more=LOG))
    with world.database.write() as session:
        refs = session.exec(select(DeliveryRow.ref).where(DeliveryRow.state == DeliveryState.UNKNOWN)).all()
        session.exec(update(DeliveryRow).values(resent=1))
    with world.database.write() as session:
        issue = ledger.find(session, world.slot.name)
        assert issue is not None
        assert ledger.send_again(session, issue, refs, 1, newsroom.now()) == 0
    assert report(world).state == IssueState.NEEDS_DECISION


def test_a_log_that_is_read_slowly_is_not_taken_for_a_later_one(world: World) -> None:
    @dataclass
    class Slow(Forgetful):
        def look_up(self, issue: RenderedIssue, copies: Sequence[Copy], since: datetime) -> Shown:
            found = super().look_up(issue, copies, since)
            world.clock.wait(60)
            return found

    provider = Slow(more=LOG)
    newsroom = lost(world, provider)
    with world.database.read() as session:
        issue = session.exec(select(IssueRow)).one()
        (first, *_) = ledger.lost_sight_of(session, issue)
    world.clock.at = first.attempted_at + LAG - timedelta(seconds=30)
    route.look_up_unknown(newsroom)
    assert provider.got == addresses(1, 2, 3, 4)


# The rate


def test_calls_that_waited_behind_a_slow_one_do_not_leave_all_at_once(local_world: World) -> None:
    ready(local_world, 30)
    began, begun = time.monotonic(), list[float]()

    def note(_parcel: Parcel) -> None:
        begun.append(time.monotonic() - began)
        if len(begun) == 1:
            time.sleep(1)

    provider = FakeProvider(copies=1, more={"per_second": 20}, before=note)
    newsroom = replace(
        local_world.with_provider(provider),
        now=lambda: FRIDAY + timedelta(seconds=time.monotonic() - began),
        wait=time.sleep,
    )
    route.publish(newsroom, local_world.slot)
    # A tenth of a second may be caught up, and another is for threads that are slow to begin.
    assert max(sum(first <= each <= first + 0.5 for each in begun) for first in begun) <= 20 * (0.5 + 0.1 + 0.1) + 1
