"""Each reader's own Friday 09:00: who gets a copy when, whatever comes between, and what is told of it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from sqlmodel import col, select, update

from pipeline import hours, ledger
from pipeline import publish as route
from pipeline.books import DeliveryRow, IssueRow, IssueState, Pause
from pipeline.config import WarmUp
from pipeline.errors import DecisionNeeded, NotProcessed
from pipeline.issue import Parcel, Receipt, RenderedIssue, Slot
from pipeline.ledger import Report
from pipeline.newsroom import Newsroom
from pipeline.show import report_json, report_lines
from subscribers import roll
from subscribers.models import Subscriber, Why
from tests.conftest import FRIDAY, FakeProvider, World, by_reader_time
from tests.test_friday import Killed

pytestmark = pytest.mark.slow

DAY = FRIDAY.date()
RING = timedelta(minutes=10)
ZONES = available_timezones()
HOUR = timedelta(hours=1)
KEY = timedelta(hours=24)
LAST_HOUR = datetime(2026, 11, 27, 21, tzinfo=UTC)
CLOSING = LAST_HOUR + timedelta(hours=6)
BERLIN = "Europe/Berlin"
# By their hours in UTC, on Thursday evening and on Friday: 19:00, 00:00, 03:30, 08:00, 14:00, 17:00, 21:00.
ROUND = ["Pacific/Kiritimati", "Asia/Tokyo", "Asia/Kolkata", BERLIN, "America/New_York", "America/Los_Angeles", "Etc/GMT+12"]


@dataclass
class Timed(FakeProvider):
    """Notes when each copy left."""

    clock: Callable[[], datetime] = lambda: FRIDAY
    at_call: Callable[[Parcel], None] = lambda _parcel: None
    left: dict[str, list[datetime]] = field(default_factory=dict)

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        self.at_call(parcel)
        # The same parcel under the same key is no second copy.
        if not (self.key_lifetime and parcel.key in {each.key for each in self.parcels}):
            for copy in parcel.copies:
                self.left.setdefault(copy.address, []).append(self.clock())
        return super().send(issue, parcel)


@dataclass
class Friday:
    """A newsroom whose readers have hours of their own, before the first of them."""

    world: World
    provider: Timed
    newsroom: Newsroom
    slot: Slot
    zones: dict[str, str] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return self.world.clock.at

    @now.setter
    def now(self, at: datetime) -> None:
        self.world.clock.at = at

    def read_by(self, *zones: str) -> None:
        """Put a reader in each zone on the roll; how they are called says nothing of when they have the hour."""
        names = {f"reader{number}": zone for number, zone in enumerate(zones, len(self.zones))}
        self.world.subscribe(*names)
        with self.world.database.write() as session:
            for name, zone in names.items():
                address = f"{name}@example.com"
                session.execute(update(Subscriber).where(col(Subscriber.key) == address).values(zone=zone))
                self.zones[address] = zone

    def address(self, zone: str) -> str:
        (found,) = [address for address, of in self.zones.items() if of == zone]
        return found

    def hour(self, zone: str) -> datetime:
        """Local 09:00 as the wall clocks of a zone show it, without asking the schedule."""
        home = ZoneInfo(zone if zone in ZONES else BERLIN)
        return datetime.combine(self.slot.day, time(9), home).astimezone(UTC)

    def ring(self, newsroom: Newsroom | None = None) -> None:
        with suppress(DecisionNeeded):
            route.publish_due(newsroom or self.newsroom)

    def ring_until(self, end: datetime, every: timedelta) -> Iterator[Report]:
        """Let the clock ring again and again, and look after each ring."""
        while self.now < end:
            self.ring()
            yield self.report()
            self.now += every

    def run_until(self, end: datetime, every: timedelta = RING) -> Report:
        while self.now < end:
            self.ring()
            self.now += every
        return self.report()

    def report(self) -> Report:
        found = route.report(self.newsroom, self.slot)
        assert sum(found.counts.values()) == found.enrolled == len(self.zones) - found.excluded
        by_state: Counter[str] = Counter()
        for hour in found.hours:
            by_state.update(hour.counts)
        assert by_state == +Counter(found.counts), "the hours do not add up to what was enrolled"
        return found

    def standing(self) -> tuple[str, str, datetime | None]:
        with self.world.database.read() as session:
            issue = session.exec(select(IssueRow)).one()
            return issue.state, issue.paused_by, issue.resume_at

    def got(self) -> list[str]:
        """The zones of whoever got a copy, in the order in which they left."""
        assert all(len(times) == 1 for times in self.provider.left.values()), "somebody got two copies"
        return [self.zones[address] for address in self.provider.left]

    def everybody_in_time(self, but: Iterable[str] = ()) -> None:
        """That everybody got one copy, at 09:00 where they are or before the next ring or two."""
        assert sorted(self.got()) == sorted(set(self.zones.values()) - set(but))
        for address, (at,) in self.provider.left.items():
            hour = self.hour(self.zones[address])
            assert hour <= at <= hour + 2 * RING, f"{self.zones[address]} at {at}"


def other_runner(newsroom: Newsroom, name: str, provider: FakeProvider | None = None) -> Newsroom:
    """The newsroom of another process; it holds nothing in its memory."""
    made = replace(newsroom, provider=provider or newsroom.provider, stopping=threading.Event())
    made.__dict__["runner"] = f"elsewhere/{name}/1.00"
    return made


def begin(world: World, day: date = DAY, **options: Any) -> Friday:
    newsroom = by_reader_time(world.newsroom)
    slot = newsroom.schedule.slot(day)
    world.clock.at = slot.at - timedelta(minutes=2)
    world.tell_a_week(before=slot.at)
    provider = Timed(clock=world.clock, **{"copies": 50, **options})
    return Friday(world, provider, replace(newsroom, provider=provider), slot)


@pytest.fixture
def friday(world: World) -> Friday:
    return begin(world)


def test_readers_in_every_zone_get_it_at_their_own_nine_and_the_counts_add_up_at_every_step(friday: Friday) -> None:
    friday.read_by(*sorted(ZONES), "", "Mars/Olympus_Mons")
    friday.now = friday.slot.at
    every = timedelta(minutes=5)
    reports = list(friday.ring_until(CLOSING, every))
    friday.everybody_in_time()
    assert reports[-1].state == IssueState.SENT
    assert (reports[0].counts["pending"], reports[0].state) == (len(friday.zones), IssueState.PAUSED)
    # It rests between the hours and is never called sent before the last.
    last = next(number for number, each in enumerate(reports) if each.state == IssueState.SENT)
    assert {each.state for each in reports[:last]} == {IssueState.PAUSED}
    assert friday.slot.at + last * every == LAST_HOUR
    assert friday.provider.left[friday.address("Asia/Kolkata")] == [datetime(2026, 11, 27, 3, 30, tzinfo=UTC)]
    assert friday.provider.left[friday.address("Asia/Kathmandu")] == [datetime(2026, 11, 27, 3, 15, tzinfo=UTC)]
    assert friday.provider.left[friday.address("")] == friday.provider.left[friday.address("Mars/Olympus_Mons")] == [FRIDAY]


@pytest.mark.parametrize("dies", ["at_call", "after"])
def test_a_kill_in_the_middle_of_a_call_and_a_restart_change_nothing(world: World, dies: str) -> None:
    friday = begin(world, copies=2, key_lifetime=KEY)
    friday.read_by(*ROUND, *(f"Nowhere/{number}" for number in range(9)))
    friday.now = friday.slot.at
    friday.run_until(FRIDAY)
    first = len(friday.provider.parcels)

    def die(_parcel: Parcel) -> None:
        if len(friday.provider.parcels) >= first + 2:
            raise Killed

    setattr(friday.provider, dies, die)
    with pytest.raises(Killed):
        route.publish_due(friday.newsroom)
    friday.provider.at_call = friday.provider.after = lambda _parcel: None
    assert friday.standing()[0] == IssueState.SENDING
    assert friday.report().counts["sending"] == 2
    friday.newsroom = other_runner(friday.newsroom, "restarted")
    # Its runner is this very process, which lives on: time must show that nobody works on it.
    friday.now += timedelta(minutes=6)
    assert friday.run_until(CLOSING).state == IssueState.SENT
    friday.everybody_in_time()


def test_a_restart_between_any_two_rings_changes_nothing(friday: Friday) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.slot.at
    rings = 0
    while friday.now < CLOSING:
        rings += 1
        friday.ring(other_runner(friday.newsroom, str(rings)))
        friday.report()
        friday.now += RING
    friday.everybody_in_time()
    assert friday.report().state == IssueState.SENT


def test_two_runners_share_the_hours_and_nobody_gets_two(world: World) -> None:
    friday = begin(world, copies=2)
    friday.read_by(*ROUND, *(f"Nowhere/{number}" for number in range(20)))
    friday.now = friday.slot.at
    friday.run_until(FRIDAY)
    start = threading.Barrier(2)

    def publish(newsroom: Newsroom) -> None:
        start.wait(60)
        friday.ring(newsroom)

    runners = [replace(other_runner(friday.newsroom, name), wait=lambda _seconds: None) for name in ("one", "two")]
    threads = [threading.Thread(target=publish, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert friday.standing() == (IssueState.PAUSED, Pause.ZONES, friday.hour("America/New_York"))
    assert len(friday.got()) == 4 + 20
    friday.run_until(CLOSING)
    friday.everybody_in_time()


def test_while_a_call_of_another_runner_is_out_an_issue_does_not_rest(world: World) -> None:
    friday = begin(world)
    friday.read_by("Asia/Tokyo", BERLIN)
    friday.now = friday.slot.at
    friday.run_until(friday.hour("Asia/Tokyo"))
    seen: list[tuple[str, str, datetime | None]] = []

    class GaveUpError(Exception):
        pass

    def give_up(_seconds: float) -> None:
        raise GaveUpError

    def busy(_parcel: Parcel) -> None:
        if not seen:
            with pytest.raises(GaveUpError):
                route.publish(replace(other_runner(friday.newsroom, "idle"), wait=give_up), friday.slot)
            seen.append(friday.standing())
            # Its copy comes back, and must not wait for Berlin's hour.
            raise NotProcessed("busy", timedelta(seconds=30))

    friday.provider.at_call = busy
    friday.ring()
    assert seen == [(IssueState.SENDING, "", None)]
    assert friday.got() == ["Asia/Tokyo"]
    assert friday.now == friday.hour("Asia/Tokyo") + timedelta(seconds=30)
    assert friday.standing() == (IssueState.PAUSED, Pause.ZONES, FRIDAY)


def test_an_issue_does_not_rest_while_a_copy_is_due(friday: Friday) -> None:
    friday.read_by("Asia/Tokyo", BERLIN)
    friday.now = friday.slot.at
    friday.ring()
    route.resume(friday.newsroom, friday.slot)
    with friday.world.database.write() as session:
        issue = session.exec(select(IssueRow)).one()
        assert not ledger.rest(session, issue, friday.hour("Asia/Tokyo"))
        assert ledger.rest(session, issue, friday.hour("Asia/Tokyo") - timedelta(seconds=1))


def test_who_leaves_before_the_hour_is_skipped_at_it(friday: Friday) -> None:
    friday.read_by(*ROUND)
    tokyo, kolkata, berlin, york = (friday.address(ROUND[place]) for place in (1, 2, 3, 4))
    friday.now = friday.slot.at
    friday.run_until(friday.hour("Asia/Tokyo") - RING)
    with friday.world.database.write() as session:
        roll.unsubscribe(session, tokyo, friday.now)
        roll.suppress(session, kolkata, Why.COMPLAINT, friday.now)
        session.delete(roll.by_key(session, berlin))
    friday.run_until(FRIDAY)
    # Whom nobody knows any more has an hour still, and is counted until then.
    assert friday.report().counts["skipped"] == 2
    friday.ring()
    assert friday.report().counts["skipped"] == 3
    assert friday.standing() == (IssueState.PAUSED, Pause.ZONES, friday.hour("America/New_York"))
    with friday.world.database.write() as session:
        found = roll.by_key(session, york)
        assert found
        found.paused_until = friday.now + timedelta(weeks=1)
    assert friday.run_until(CLOSING).state == IssueState.SENT
    friday.everybody_in_time(but=ROUND[1:5])


def test_who_moves_to_another_zone_after_the_enrolment_has_the_hour_of_the_old_one(friday: Friday) -> None:
    friday.read_by(BERLIN, "America/New_York")
    friday.now = friday.slot.at
    friday.ring()
    with friday.world.database.write() as session:
        moved = update(Subscriber).where(col(Subscriber.key) == friday.address(BERLIN))
        session.execute(moved.values(zone="America/Los_Angeles"))
    friday.run_until(FRIDAY + RING)
    assert friday.got() == [BERLIN]


def test_a_late_start_within_the_grace_sends_the_hours_that_are_past_at_once(friday: Friday) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.slot.at + timedelta(hours=5, minutes=59)
    friday.world.tell_a_week(before=friday.slot.at)
    friday.ring()
    assert friday.got() == ROUND[:2]
    assert friday.standing() == (IssueState.PAUSED, Pause.ZONES, friday.hour(ROUND[2]))
    friday.run_until(CLOSING)
    assert friday.got() == ROUND


def test_a_machine_that_was_off_for_some_hours_sends_what_was_due_meanwhile_in_their_order(friday: Friday) -> None:
    friday.read_by(*reversed(ROUND))
    friday.now = friday.slot.at
    friday.ring()
    friday.now = friday.hour("America/New_York") + timedelta(minutes=20)
    friday.ring()
    assert friday.got() == ROUND[:5]
    assert friday.run_until(CLOSING).state == IssueState.SENT
    assert friday.got() == ROUND


@pytest.mark.parametrize("interrupted", [False, True])
def test_after_the_closing_nothing_goes_by_itself_and_a_person_finishes_it(friday: Friday, *, interrupted: bool) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.slot.at
    friday.run_until(friday.hour(ROUND[5]))
    if interrupted:
        route.resume(friday.newsroom, friday.slot)
    friday.now = CLOSING + timedelta(seconds=1)
    assert route.publish_due(friday.newsroom) is None
    assert friday.got() == ROUND[:5]
    assert route.publish(friday.newsroom, friday.slot).state == IssueState.SENT
    assert friday.got() == ROUND


def test_until_the_closing_it_goes_on_by_itself(friday: Friday) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.slot.at
    friday.ring()
    friday.now = CLOSING
    friday.ring()
    assert friday.got() == ROUND


def test_an_issue_that_was_told_to_stop_goes_on_by_itself_long_after_its_slot_has_opened(world: World) -> None:
    friday = begin(world, copies=1)
    friday.read_by("America/New_York", "EST5EDT", "Asia/Tokyo")
    friday.now = friday.slot.at
    friday.run_until(friday.hour("America/New_York"))
    stopped = other_runner(friday.newsroom, "stopped")
    friday.provider.after = lambda _parcel: stopped.stopping.set()
    with pytest.raises(DecisionNeeded, match="goes on where it stopped"):
        route.publish_due(stopped)
    assert friday.standing()[0] == IssueState.SENDING
    friday.ring()
    assert sorted(friday.got()) == sorted(friday.zones.values())


def test_what_was_interrupted_before_its_slot_opens_goes_on_by_itself_when_it_does(friday: Friday) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.slot.at - timedelta(hours=1)
    stopped = other_runner(friday.newsroom, "stopped")
    stopped.stopping.set()
    with pytest.raises(DecisionNeeded, match="goes on where it stopped"):
        route.publish(stopped, friday.slot, anyway=True)
    assert route.publish_due(friday.newsroom) is None
    friday.now = friday.slot.at
    friday.ring()
    assert friday.standing() == (IssueState.PAUSED, Pause.ZONES, friday.hour(ROUND[0]))


def test_an_outage_is_tried_again_by_itself_at_whoevers_hour_it_comes(friday: Friday) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.slot.at
    friday.run_until(friday.hour("America/New_York"))

    def down(_parcel: Parcel) -> None:
        raise NotProcessed("down", timedelta(minutes=20))

    friday.provider.at_call = down
    with pytest.raises(NotProcessed):
        route.publish_due(friday.newsroom)
    assert friday.standing()[1] == Pause.TROUBLE
    friday.provider.at_call = lambda _parcel: None
    friday.now += RING
    assert route.publish_due(friday.newsroom) is None
    friday.now += RING
    friday.run_until(CLOSING)
    friday.everybody_in_time()


def test_a_copy_that_was_put_off_goes_on_before_the_issue_rests(world: World) -> None:
    friday = begin(world)

    class Greylisting(Timed):
        def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
            if self.parcels:
                return super().send(issue, parcel)
            self.parcels.append(parcel)
            return [Receipt(copy.ref, accepted=False, later=True, reason="greylisted") for copy in parcel.copies]

    friday.provider = Greylisting(50, clock=world.clock)
    friday.newsroom = replace(friday.newsroom, provider=friday.provider)
    friday.read_by("Asia/Tokyo", "Japan", BERLIN)
    friday.now = friday.slot.at
    friday.run_until(friday.hour("Asia/Tokyo"))
    friday.ring()
    assert friday.got() == ["Asia/Tokyo", "Japan"]
    assert friday.standing() == (IssueState.PAUSED, Pause.ZONES, FRIDAY)


def test_the_log_is_asked_about_the_unknown_before_an_issue_rests(world: World) -> None:
    friday = begin(world, copies=1, more={"has_log": True})
    friday.read_by("Asia/Tokyo", BERLIN)
    friday.now = friday.slot.at
    friday.run_until(friday.hour("Asia/Tokyo"))

    def die(parcel: Parcel) -> None:
        (copy,) = parcel.copies
        friday.provider.log[copy.ref] = Receipt(copy.ref, accepted=True, provider_id="in the log")
        raise Killed

    friday.provider.after = die
    with pytest.raises(Killed):
        route.publish_due(friday.newsroom)
    friday.provider.after = lambda _parcel: None
    friday.now += timedelta(minutes=6)
    friday.ring()
    assert friday.report().counts["accepted"] == 1
    assert friday.standing() == (IssueState.PAUSED, Pause.ZONES, FRIDAY)


def test_a_persons_pause_stays_through_every_hour_and_after_it_the_past_ones_go_at_once(friday: Friday) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.slot.at
    friday.run_until(FRIDAY)
    route.pause(friday.newsroom, friday.slot)
    friday.run_until(friday.hour("America/Los_Angeles") + RING)
    assert friday.standing() == (IssueState.PAUSED, Pause.PERSON, None)
    with pytest.raises(DecisionNeeded, match="friday resume 2026-11-27"):
        route.publish(friday.newsroom, friday.slot, anyway=True)
    assert friday.got() == ROUND[:3]
    route.resume(friday.newsroom, friday.slot)
    friday.ring()
    assert friday.got() == ROUND[:6]
    friday.run_until(CLOSING)
    assert friday.got() == ROUND


def test_a_person_who_pauses_when_an_issue_is_about_to_rest_wins(friday: Friday, monkeypatch: pytest.MonkeyPatch) -> None:
    friday.read_by("Asia/Tokyo", BERLIN)
    friday.now = friday.slot.at
    friday.run_until(friday.hour("Asia/Tokyo"))
    real = ledger.rest

    def be_overtaken(*args: Any) -> bool:
        # What another process does, of which this transaction must not be a part: SQLite's writers take turns.
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.deliver.ledger.rest", real)
            with friday.world.database.read() as session:
                issue = session.exec(select(IssueRow)).one()
            session = args[0]
            ledger.pause(session, issue, Pause.PERSON, "paused by a person")
        return real(*args)

    monkeypatch.setattr("pipeline.deliver.ledger.rest", be_overtaken)
    with pytest.raises(DecisionNeeded, match="paused by a person"):
        route.publish_due(friday.newsroom)
    assert friday.standing() == (IssueState.PAUSED, Pause.PERSON, None)


@pytest.mark.parametrize("anyway", [False, True])
def test_no_copy_leaves_before_its_hour_whoever_publishes(friday: Friday, *, anyway: bool) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.hour("Asia/Tokyo") + timedelta(minutes=1)
    with pytest.raises(DecisionNeeded, match="5 readers have their hour later"):
        route.publish(friday.newsroom, friday.slot, anyway=anyway)
    assert friday.got() == ROUND[:2]
    friday.now = friday.hour("Asia/Kolkata") - timedelta(seconds=1)
    for _ in range(2):
        with pytest.raises(DecisionNeeded, match="goes on by itself at 03:30 UTC on Friday, 27 November"):
            route.publish(friday.newsroom, friday.slot, anyway=anyway)
    assert friday.got() == ROUND[:2]
    friday.now += timedelta(seconds=1)
    with pytest.raises(DecisionNeeded, match="4 readers have their hour later"):
        route.publish(friday.newsroom, friday.slot, anyway=anyway)
    assert friday.got() == ROUND[:3]
    friday.now = LAST_HOUR - timedelta(seconds=1)
    with pytest.raises(DecisionNeeded, match=r"^1 reader has the hour later; it goes on by itself at 21:00 UTC"):
        route.publish(friday.newsroom, friday.slot, anyway=anyway)


def test_an_issue_that_was_begun_days_before_waits_for_the_hours_of_its_friday(friday: Friday) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.slot.at - timedelta(days=2)
    friday.world.tell_a_week(before=friday.now)
    with pytest.raises(DecisionNeeded, match="opens at"):
        route.publish(friday.newsroom, friday.slot)
    with pytest.raises(DecisionNeeded, match="19:00 UTC on Thursday, 26 November"):
        route.publish(friday.newsroom, friday.slot, anyway=True)
    friday.run_until(CLOSING)
    friday.everybody_in_time()


@pytest.mark.parametrize(
    ("day", "zone", "hour"),
    [
        # Egypt's clocks go forward as that Friday begins, and back as the Thursday before it ends.
        (date(2026, 4, 24), "Africa/Cairo", datetime(2026, 4, 24, 6, tzinfo=UTC)),
        (date(2026, 10, 30), "Africa/Cairo", datetime(2026, 10, 30, 7, tzinfo=UTC)),
        # Israel's go forward at two on a Friday.
        (date(2026, 3, 27), "Asia/Jerusalem", datetime(2026, 3, 27, 6, tzinfo=UTC)),
        (date(2026, 7, 3), "Asia/Kolkata", datetime(2026, 7, 3, 3, 30, tzinfo=UTC)),
    ],
)
def test_the_hour_is_what_the_clocks_of_a_zone_show_on_that_friday(world: World, day: date, zone: str, hour: datetime) -> None:
    friday = begin(world, day)
    friday.read_by(zone)
    friday.now = friday.slot.at
    friday.run_until(hour + RING)
    assert friday.provider.left == {friday.address(zone): [hour]}


def test_a_ramp_and_the_hours_both_hold_a_copy_back(friday: Friday) -> None:
    begins = DAY - timedelta(days=1)
    warm_up = WarmUp(begins=begins, first_day=2, growth=2.0)
    friday.newsroom = by_reader_time(friday.newsroom, warm_up=warm_up)
    kiribati = ["Pacific/Kiritimati", "Etc/GMT-14", "Pacific/Apia"]
    friday.read_by(*kiribati, *ROUND[1:])
    friday.now = friday.slot.at
    # Two may go on Thursday, by Berlin's clock until 23:00 UTC, and four on Friday.
    midnight = datetime(2026, 11, 26, 23, tzinfo=UTC)
    friday.run_until(friday.hour("Pacific/Apia") + RING)
    assert friday.got() == kiribati[:2]
    assert friday.standing() == (IssueState.PAUSED, Pause.RAMP, midnight)
    friday.now = midnight
    friday.ring()
    assert friday.got() == kiribati
    assert friday.standing() == (IssueState.PAUSED, Pause.ZONES, friday.hour("Asia/Tokyo"))
    friday.run_until(friday.hour("America/New_York"))
    friday.ring()
    assert friday.got() == [*kiribati, *ROUND[1:4]]
    assert friday.standing() == (IssueState.PAUSED, Pause.RAMP, midnight + timedelta(days=1))
    assert friday.run_until(CLOSING).state == IssueState.SENT
    assert friday.got() == [*kiribati, *ROUND[1:]]


def test_what_a_ramp_spreads_goes_on_after_the_closing(friday: Friday) -> None:
    warm_up = WarmUp(begins=DAY, first_day=3, growth=1.01)
    friday.newsroom = by_reader_time(friday.newsroom, warm_up=warm_up)
    friday.read_by(*ROUND)
    friday.now = friday.slot.at
    friday.ring()
    friday.now = CLOSING + timedelta(days=1)
    friday.ring()
    assert friday.got() == ROUND[:3]
    friday.now += timedelta(days=1)
    friday.ring()
    assert friday.got() == ROUND[:6]


def test_an_issue_keeps_its_hours_though_the_newsletter_gives_them_up(friday: Friday) -> None:
    friday.read_by(*ROUND)
    friday.now = friday.slot.at
    friday.ring()
    friday.newsroom = by_reader_time(friday.newsroom, on=False)
    friday.run_until(CLOSING)
    friday.everybody_in_time()


def test_without_hours_of_their_own_everybody_has_the_newsletters(world: World) -> None:
    friday = begin(world)
    friday.read_by(*ROUND)
    friday.newsroom = by_reader_time(friday.newsroom, on=False)
    friday.slot = friday.newsroom.schedule.slot(DAY)
    friday.now = FRIDAY
    sent = route.publish(friday.newsroom, friday.slot)
    assert (sent.state, sent.hours, len(friday.got())) == (IssueState.SENT, (), len(ROUND))
    with world.database.read() as session:
        assert set(session.exec(select(DeliveryRow.due_at))) == {None}


def test_copies_lie_in_the_order_of_the_hours_and_of_the_roll(friday: Friday) -> None:
    friday.read_by("America/New_York", "", BERLIN, "Nowhere", "Asia/Tokyo", "Japan", "Asia/Seoul")
    with friday.world.database.write() as session:
        roll.suppress(session, friday.address("Asia/Seoul"), Why.MANUAL, friday.now)
    friday.now = friday.slot.at
    friday.ring()
    with friday.world.database.read() as session:
        query = select(Subscriber.zone, DeliveryRow.due_at, DeliveryRow.state).join(
            DeliveryRow, col(DeliveryRow.subscriber_id) == col(Subscriber.id)
        )
        lie = session.exec(query.order_by(col(DeliveryRow.id))).all()
    assert [zone for zone, *_ in lie] == ["Asia/Tokyo", "Japan", "Asia/Seoul", "", BERLIN, "Nowhere", "America/New_York"]
    assert [due_at for _, due_at, _ in lie] == [friday.hour(zone) for zone, *_ in lie]
    assert [zone for zone, _, state in lie if state == "excluded"] == ["Asia/Seoul"]


def test_of_an_audience_only_the_zones_of_its_own_are_asked_for(friday: Friday) -> None:
    friday.read_by(*ROUND)
    with friday.world.database.write() as session:
        issue = ledger.freeze(session, route.draft(friday.newsroom, friday.slot), friday.now)
        asked: list[str] = []

        def hour(zone: str) -> datetime:
            asked.append(zone)
            return friday.hour(zone)

        ledger.enrol(session, issue, friday.now, col(Subscriber.zone).startswith("America/"), hour)
    assert sorted(asked) == ["", "America/Los_Angeles", "America/New_York"]
    with friday.world.database.read() as session:
        assert [each.due_at for each in hours.progress(session, issue)] == [friday.hour(zone) for zone in ROUND[4:6]]


def test_a_report_tells_how_far_each_hour_has_come(friday: Friday) -> None:
    friday.read_by("Europe/Paris", BERLIN, "Africa/Tunis", "Europe/Rome", "", "America/New_York")
    friday.now = friday.slot.at
    friday.run_until(FRIDAY + RING)
    with friday.world.database.write() as session:
        session.delete(roll.by_key(session, friday.address("Europe/Rome")))
        session.execute(update(Subscriber).where(col(Subscriber.zone) == "Europe/Paris").values(zone=BERLIN))
    report = friday.report()
    first, second = report.hours
    assert (first.due_at, first.zones, first.counts) == (FRIDAY, (BERLIN, "", "Africa/Tunis"), {"accepted": 5})
    assert (second.zones, second.counts) == (("America/New_York",), {"pending": 1})
    lines = list(report_lines(report))
    assert lines[2:5] == [
        "   Fri 08:00 UTC  5 of 5 settled  Europe/Berlin, no zone of their own and 1 more",
        "   Fri 14:00 UTC  0 of 1 settled  America/New_York",
        "Paused: 1 reader has the hour later; it goes on by itself at 14:00 UTC on Friday, 27 November",
    ]
    assert report_json(report)["hours"][1] == {
        "due_at": "2026-11-27T14:00:00+00:00",
        "zones": ["America/New_York"],
        "counts": {"pending": 1},
    }
