"""The weekly slot: the right instant in every zone, and how a slot stands to now."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from importlib import resources
from itertools import pairwise
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo, available_timezones

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.issue import Slot
from pipeline.schedule import LEAD, WEEK, Schedule, Timing, instant

ZONES = sorted(available_timezones() - {"Factory", "localtime"})
FRIDAY = date(2026, 11, 27)
OPENS = datetime(2026, 11, 27, 8, tzinfo=UTC)  # 09:00 in Berlin
GRACE = timedelta(hours=6)
SECOND = timedelta(seconds=1)


def at_wall(shown: str) -> datetime:
    """A wall time: what a clock shows, without a zone."""
    return datetime.fromisoformat(shown)


facts = settings(deadline=None, database=None, derandomize=True, max_examples=80)
zones = st.sampled_from(ZONES).map(ZoneInfo)
moments = st.datetimes(at_wall("1975-01-01 00:00"), at_wall("2037-12-01 00:00"), timezones=st.just(UTC))


def schedule(
    zone: str = "Europe/Berlin", weekday: int = 4, at: time = time(9), grace: timedelta = GRACE, skipped: tuple[date, ...] = ()
) -> Schedule:
    return Schedule(weekday, at, ZoneInfo(zone), grace, frozenset(skipped))


def wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """What a clock on the wall shows."""
    return moment.astimezone(zone).replace(tzinfo=None)


def readings(shown: datetime, zone: ZoneInfo) -> list[datetime]:
    """Every instant at which a clock on the wall shows this, found by trying each offset in use around it."""
    around = [shown.replace(tzinfo=UTC) + timedelta(hours=hours) for hours in range(-48, 49)]
    offsets = {moment.astimezone(zone).utcoffset() or timedelta() for moment in around}
    candidates = [shown.replace(tzinfo=UTC) - offset for offset in offsets]
    return sorted(moment for moment in candidates if wall(moment, zone) == shown)


@st.composite
def walls_near_a_change(draw: st.DrawFn) -> tuple[datetime, ZoneInfo]:
    """A wall time within four hours of a change of the clocks."""
    zone = draw(zones)
    start = draw(moments)
    days = [start + timedelta(days=day) for day in range(370)]
    changes = [
        day for day in days if day.astimezone(zone).utcoffset() != (day + timedelta(days=1)).astimezone(zone).utcoffset()
    ]
    assume(changes)
    low, high = changes[0], changes[0] + timedelta(days=1)
    while high - low > SECOND:
        middle = low + (high - low) / 2
        same = middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset()
        low, high = (middle, high) if same else (low, middle)
    shown = wall(high.replace(microsecond=0), zone)
    return shown + timedelta(minutes=draw(st.integers(-240, 240))), zone


def assert_right(shown: datetime, zone: ZoneInfo) -> None:
    found = instant(shown.date(), shown.time(), zone)
    there = readings(shown, zone)
    if there:
        assert found == there[0]
    else:
        assert wall(found - SECOND, zone) < shown < wall(found, zone)


@facts
@given(moments.map(lambda moment: moment.replace(tzinfo=None, second=0, microsecond=0, fold=0)), zones)
def test_any_wall_time_gives_its_first_instant(shown: datetime, zone: ZoneInfo) -> None:
    assert_right(shown, zone)


@facts
@given(walls_near_a_change())
def test_a_wall_time_near_a_change_gives_its_first_instant_or_the_first_after_the_gap(case: tuple[datetime, ZoneInfo]) -> None:
    assert_right(*case)


@pytest.mark.parametrize(
    ("zone", "shown", "expected"),
    [
        ("Africa/Cairo", "2026-04-24 00:00", datetime(2026, 4, 23, 22, tzinfo=UTC)),
        ("Africa/Cairo", "2026-04-24 00:59", datetime(2026, 4, 23, 22, tzinfo=UTC)),
        ("Asia/Jerusalem", "2026-03-27 02:30", datetime(2026, 3, 27, 0, tzinfo=UTC)),
        ("Australia/Lord_Howe", "2026-10-04 02:15", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
        ("Pacific/Apia", "2011-12-30 09:00", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ],
)
def test_a_gap_gives_the_first_valid_instant_after_it(zone: str, shown: str, expected: datetime) -> None:
    clock = at_wall(shown)
    assert instant(clock.date(), clock.time(), ZoneInfo(zone)) == expected


def test_the_wall_time_right_before_and_right_after_a_gap_is_kept() -> None:
    jerusalem = ZoneInfo("Asia/Jerusalem")
    day = date(2026, 3, 27)
    assert instant(day, time(1, 59), jerusalem) == datetime(2026, 3, 26, 23, 59, tzinfo=UTC)
    assert instant(day, time(3), jerusalem) == datetime(2026, 3, 27, 0, tzinfo=UTC)


def test_a_wall_time_that_comes_twice_gives_the_first() -> None:
    assert instant(date(2026, 10, 25), time(2, 30), ZoneInfo("Europe/Berlin")) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_nine_in_berlin_is_another_instant_in_summer() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert instant(date(2026, 7, 3), time(9), berlin) == datetime(2026, 7, 3, 7, tzinfo=UTC)
    assert instant(FRIDAY, time(9), berlin) == OPENS


def test_a_slot_carries_its_local_day_and_an_instant_in_utc() -> None:
    slot = schedule().slot(FRIDAY)
    assert slot == Slot(FRIDAY, OPENS)
    assert slot.at.tzinfo is UTC
    assert slot.name == "2026-11-27"


def test_a_slot_in_a_gap_keeps_its_day_though_it_opens_on_the_next() -> None:
    slot = schedule("Pacific/Apia").slot(date(2011, 12, 30))
    assert slot.name == "2011-12-30"
    assert slot.at.astimezone(ZoneInfo("Pacific/Apia")).date() == date(2011, 12, 31)


@pytest.mark.parametrize(
    ("day", "message"),
    [
        (
            date(2026, 11, 26),
            "2026-11-26 is a Thursday and slots are Fridays: the nearest are 2026-11-20 and 2026-11-27",
        ),
        (
            date(2026, 11, 28),
            "2026-11-28 is a Saturday and slots are Fridays: the nearest are 2026-11-27 and 2026-12-04",
        ),
    ],
)
def test_a_day_without_a_slot_names_the_slots_around_it(day: date, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        schedule().slot(day)
    assert str(caught.value) == message


def test_a_skipped_day_says_where_it_is_skipped() -> None:
    with pytest.raises(UsageError) as caught:
        schedule(skipped=(FRIDAY,)).slot(FRIDAY)
    assert str(caught.value) == "2026-11-27 is skipped: it stands in schedule.skip"


@pytest.mark.parametrize("name", ["soon", "", "27.11.2026", "2026-11-31", "2026-11-27T09:00"])
def test_a_name_that_is_no_date_shows_how_to_write_one(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        schedule().named(name)
    assert str(caught.value) == f"{name!r} is not a slot: write its date, such as 2026-11-27"


def test_a_date_names_its_slot() -> None:
    assert schedule().named("2026-11-27") == Slot(FRIDAY, OPENS)


def test_a_name_is_refused_for_the_wrong_weekday_and_for_a_skipped_day() -> None:
    with pytest.raises(UsageError, match="is a Thursday"):
        schedule().named("2026-11-26")
    with pytest.raises(UsageError, match="is skipped"):
        schedule(skipped=(FRIDAY,)).named("2026-11-27")


def test_a_slot_is_early_until_it_opens_due_through_its_grace_and_late_after() -> None:
    plan = schedule()
    slot = plan.slot(FRIDAY)
    assert plan.timing(slot, OPENS - SECOND) is Timing.EARLY
    assert plan.timing(slot, OPENS) is Timing.DUE
    assert plan.timing(slot, OPENS + GRACE) is Timing.DUE
    assert plan.timing(slot, OPENS + GRACE + SECOND) is Timing.LATE


def test_the_next_slot_is_a_week_on_from_the_instant_it_opens() -> None:
    plan = schedule()
    assert plan.next(OPENS - SECOND).day == FRIDAY
    assert plan.next(OPENS).day == FRIDAY + WEEK


def test_the_last_slot_is_the_one_of_the_week_before_until_the_instant_the_new_one_opens() -> None:
    plan = schedule()
    assert plan.last(OPENS - SECOND).day == FRIDAY - WEEK
    assert plan.last(OPENS).day == FRIDAY
    assert plan.last(OPENS + GRACE + timedelta(days=2)).day == FRIDAY


def test_a_slot_is_due_from_its_instant_to_the_end_of_its_grace() -> None:
    plan = schedule()
    assert plan.due(OPENS - SECOND) is None
    assert plan.due(OPENS) == plan.slot(FRIDAY)
    assert plan.due(OPENS + GRACE) == plan.slot(FRIDAY)
    assert plan.due(OPENS + GRACE + SECOND) is None


def test_without_a_name_the_due_slot_is_meant_and_else_the_next() -> None:
    plan = schedule()
    assert plan.current(OPENS - SECOND).day == FRIDAY
    assert plan.current(OPENS + GRACE).day == FRIDAY
    assert plan.current(OPENS + GRACE + SECOND).day == FRIDAY + WEEK


def test_skipped_days_are_neither_next_nor_last_nor_due() -> None:
    plan = schedule(skipped=(FRIDAY, FRIDAY + WEEK))
    assert plan.next(OPENS - SECOND).day == FRIDAY + 2 * WEEK
    assert plan.last(OPENS).day == FRIDAY - WEEK
    assert plan.due(OPENS) is None
    assert plan.current(OPENS).day == FRIDAY + 2 * WEEK


def test_the_day_of_now_is_read_in_the_schedule_s_zone() -> None:
    auckland = schedule("Pacific/Auckland")
    friday_there = datetime(2026, 11, 26, 21, tzinfo=UTC)
    assert auckland.due(friday_there) == Slot(FRIDAY, datetime(2026, 11, 26, 20, tzinfo=UTC))


def test_a_slot_that_a_gap_pushes_past_midnight_is_next_until_it_opens() -> None:
    plan = schedule("Pacific/Apia", at=time(9))
    pushed = plan.slot(date(2011, 12, 30))
    assert plan.next(pushed.at - SECOND) == pushed
    assert plan.due(pushed.at) == pushed


def test_a_slot_at_a_midnight_that_comes_twice_is_due_after_its_first() -> None:
    # At 00:01 of that Sunday the clocks of St. John's went back to 23:01 of Saturday.
    plan = schedule("America/St_Johns", weekday=6, at=time(0))
    slot = plan.slot(date(2006, 10, 29))
    assert plan.due(slot.at) == slot
    assert plan.due(slot.at + timedelta(minutes=30)) == slot


@facts
@given(zones, moments, st.integers(0, 6), st.times())
def test_now_lies_between_the_last_slot_and_the_next_a_week_apart(
    zone: ZoneInfo, now: datetime, weekday: int, at: time
) -> None:
    plan = Schedule(weekday, at.replace(second=0, microsecond=0), zone, GRACE)
    last, following = plan.last(now), plan.next(now)
    assert last.at <= now < following.at
    assert following.day - last.day == WEEK
    assert last.day.weekday() == weekday


# All of the years that a copy of this program may live through, in weeks that begin with a Monday.
FIRST_MONDAY, LAST_SUNDAY = date(2019, 12, 30), date(2036, 1, 6)
WEEKS = (LAST_SUNDAY - FIRST_MONDAY + timedelta(days=1)) // WEEK


def by_their_rules() -> list[ZoneInfo]:
    """One zone of each set of rules: most names are other names of the same file."""
    found: dict[bytes, str] = {}
    for name in ZONES:
        places = (Path(place) / name for place in TZPATH)
        path = next((place for place in places if place.is_file()), None)
        rules = path.read_bytes() if path else (resources.files("tzdata.zoneinfo") / name).read_bytes()
        found.setdefault(rules, name)
    return [ZoneInfo(name) for name in found.values()]


RULES = by_their_rules()
utc = st.just(UTC)
our_years = st.datetimes(at_wall("2020-01-06 00:00"), at_wall("2035-12-31 00:00"), timezones=utc)


def all_slots(plan: Schedule) -> list[Slot]:
    """The slots of all those weeks, which a zone has a day earlier or later."""
    before = datetime.combine(FIRST_MONDAY, time(0), plan.zone).astimezone(UTC) - timedelta(seconds=1)
    return plan.between(before, datetime.combine(LAST_SUNDAY, time(23, 59), plan.zone).astimezone(UTC))


def test_the_names_that_are_left_out_are_other_names() -> None:
    def shown(zone: ZoneInfo) -> tuple[datetime, ...]:
        return tuple(wall(OPENS + WEEK * 5 * each, zone) for each in range(-60, 90))

    assert {shown(zone) for zone in RULES} == {shown(ZoneInfo(name)) for name in ZONES}
    assert len(RULES) > 250


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_zone_has_one_slot_a_week_at_nine_from_2020_to_2035(part: int) -> None:
    for zone in RULES[part::4]:
        slots = all_slots(Schedule(4, time(9), zone, GRACE))
        assert [slot.day for slot in slots] == [FIRST_MONDAY + timedelta(days=4) + week * WEEK for week in range(WEEKS)]
        shown = [slot.at.astimezone(zone) for slot in slots]
        # No clocks change over nine in the morning.
        assert {(each.weekday(), each.time()) for each in shown} == {(4, time(9))}, zone
        assert [each.date() for each in shown] == [slot.day for slot in slots]
        apart = {after.at - before.at for before, after in pairwise(slots)}
        assert timedelta(days=6) < min(apart) <= max(apart) < timedelta(days=8)


def days_of_change(zone: ZoneInfo) -> list[date]:
    """The local days on which the clocks of a zone change, from 2020 to 2035."""
    weeks = [datetime(2020, 1, 1, tzinfo=UTC) + week * WEEK for week in range(16 * 53)]
    changed = [
        week for week, after in pairwise(weeks) if week.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset()
    ]
    days = [(week + timedelta(days=day), week + timedelta(days=day + 1)) for week in changed for day in range(7)]
    pairs = [each for each in days if each[0].astimezone(zone).utcoffset() != each[1].astimezone(zone).utcoffset()]
    return sorted({wall(each, zone).date() for pair in pairs for each in pair})


@pytest.mark.slow
def test_on_each_day_of_a_change_each_half_hour_of_the_night_gives_its_first_instant() -> None:
    gaps = folds = 0
    half_hours = [time(number // 2, number % 2 * 30) for number in range(9)]
    for zone in RULES:
        for day in days_of_change(zone):
            for at in half_hours:
                found, shown = instant(day, at, zone), datetime.combine(day, at)
                twice = {shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
                real = sorted(each for each in twice if wall(each, zone) == shown)
                if real:
                    assert found == real[0], (zone, shown)
                    folds += len(real) - 1
                else:
                    assert wall(found - SECOND, zone) < shown < wall(found, zone), (zone, shown)
                    gaps += 1
    assert gaps > 500
    assert folds > 500


@pytest.mark.parametrize("year", range(2023, 2036))
def test_cairo_s_fridays_at_midnight_begin_an_hour_late_when_the_clocks_go_forward(year: int) -> None:
    cairo = ZoneInfo("Africa/Cairo")
    # Since 2023 the clocks go forward at the midnight before the last Friday of April.
    change = max(day for day in (date(year, 4, 24) + timedelta(days=each) for each in range(7)) if day.weekday() == 4)
    slots = schedule("Africa/Cairo", at=time(0)).between(datetime(year, 4, 10, tzinfo=UTC), datetime(year, 5, 20, tzinfo=UTC))
    assert [slot for slot in slots if slot.at.astimezone(cairo).time() != time(0)] == [
        Slot(change, datetime(year, 4, change.day, 0, tzinfo=UTC) - timedelta(hours=2))
    ]
    assert {slot.at.astimezone(cairo).date() for slot in slots} == {slot.day for slot in slots}
    (planned,) = [schedule("Africa/Cairo", at=time(0)).planned(slot) for slot in slots if slot.day == change]
    assert "the clocks go forward over 00:00, so it opens at 01:00" in planned.notes


@pytest.mark.parametrize("year", range(2020, 2036))
def test_jerusalem_s_fridays_at_half_past_two_begin_at_three_when_the_clocks_go_forward(year: int) -> None:
    jerusalem = ZoneInfo("Asia/Jerusalem")
    plan = schedule("Asia/Jerusalem", at=time(2, 30))
    slots = plan.between(datetime(year, 1, 1, tzinfo=UTC), datetime(year, 12, 28, tzinfo=UTC))
    (late,) = [slot for slot in slots if slot.at.astimezone(jerusalem).time() != time(2, 30)]
    # The Friday before the last Sunday of March.
    last_sunday = max(day for day in (date(year, 3, 25) + timedelta(days=each) for each in range(7)) if day.weekday() == 6)
    assert late.day == last_sunday - timedelta(days=2)
    assert wall(late.at, jerusalem) == datetime.combine(late.day, time(3))
    assert all(after.at - before.at > timedelta(days=6, hours=22) for before, after in pairwise(slots))


@st.composite
def plans(draw: st.DrawFn) -> Schedule:
    """Any schedule, with days that are skipped and extra ones."""
    some = st.frozensets(st.dates(date(2026, 1, 1), date(2026, 3, 1)), max_size=12)
    skipped, extra = draw(some), draw(some)
    at = draw(st.times()).replace(second=0, microsecond=0)
    return Schedule(draw(st.integers(0, 6)), at, draw(zones), GRACE, skipped, extra - skipped, draw(st.booleans()))


in_between = st.datetimes(at_wall("2025-12-20 00:00"), at_wall("2026-03-12 00:00"), timezones=utc)


@facts
@given(plans(), in_between)
def test_last_next_due_and_upcoming_agree_whatever_is_skipped_extra_or_the_readers_own(plan: Schedule, now: datetime) -> None:
    last, following = plan.last(now), plan.next(now)
    assert last.at <= now < following.at
    every = plan.between(now - 8 * WEEK, now + 8 * WEEK)
    assert [slot for slot in every if slot.at <= now][-1] == last
    assert next(slot for slot in every if slot.at > now) == following
    assert plan.due(now) == (last if now <= last.at + plan.grace else None)
    assert plan.current(now) == (last if now <= plan.closing(last) else following)
    assert [each.slot for each in plan.upcoming(now, 3)] == [slot for slot in every if slot.at > now][:3]
    assert [plan.named(slot.name) for slot in every] == every


@facts
@given(plans(), in_between, in_between, in_between)
def test_an_interval_has_the_slots_of_its_parts(plan: Schedule, one: datetime, two: datetime, three: datetime) -> None:
    one, two, three = sorted((one, two, three))
    whole = plan.between(one, three)
    assert whole == [*plan.between(one, two), *plan.between(two, three)]
    assert [slot.at for slot in whole] == sorted({slot.at for slot in whole})
    for slot in whole:
        assert plan.between(slot.at, slot.at) == []
        assert plan.between(slot.at - SECOND, slot.at) == [slot]
        assert slot.day not in plan.skipped
        assert slot.day.weekday() == plan.weekday or slot.day in plan.extra


def test_an_extra_day_has_a_slot_and_a_skipped_one_has_none_though_it_is_extra() -> None:
    thursday = FRIDAY - timedelta(days=1)
    plan = replace(schedule(skipped=(FRIDAY,)), extra=frozenset((thursday, FRIDAY)))
    assert plan.slot(thursday) == Slot(thursday, OPENS - timedelta(days=1))
    assert plan.next(OPENS - timedelta(days=2)).day == thursday
    assert plan.next(OPENS - SECOND).day == FRIDAY + WEEK
    with pytest.raises(UsageError, match="is skipped"):
        plan.slot(FRIDAY)


def test_an_extra_slot_within_the_grace_of_another_takes_its_turn() -> None:
    plan = replace(schedule(at=time(23)), extra=frozenset((FRIDAY + timedelta(days=1),)), grace=timedelta(days=3))
    friday, saturday = plan.between(OPENS, OPENS + timedelta(days=3))
    assert plan.due(saturday.at - SECOND) == friday
    assert plan.due(saturday.at) == saturday
    assert plan.clashes() == [(friday.day, saturday.day)]


@pytest.mark.parametrize(
    ("away", "hours", "clashes"), [(1, 24, 1), (1, 23.5, 0), (-1, 24, 1), (2, 144, 2), (3, 144, 2), (-1, 6, 0)]
)
def test_slots_clash_where_one_opens_while_another_is_due(away: int, hours: float, clashes: int) -> None:
    # Two or three days off, the Friday before or after is within six days as well.
    plan = replace(schedule(), extra=frozenset((FRIDAY + timedelta(days=away),)), grace=timedelta(hours=hours))
    assert len(plan.clashes()) == clashes
    assert replace(plan, skipped=plan.extra).clashes() == []


def test_two_extra_days_that_clash_are_named_once() -> None:
    monday, tuesday = FRIDAY - timedelta(days=4), FRIDAY - timedelta(days=3)
    plan = replace(schedule(), extra=frozenset((monday, tuesday, date.max, date(1, 1, 1))), grace=timedelta(days=1))
    assert plan.clashes() == [(monday, tuesday)]


def readers_time(zone: str = "Europe/Berlin", at: time = time(9)) -> Schedule:
    return replace(schedule(zone, at=at), reader_time=True)


@pytest.mark.slow
@facts
@given(our_years, st.integers(0, 6), st.times().map(lambda at: at.replace(second=0, microsecond=0)))
def test_an_issue_of_readers_hours_opens_before_the_first_has_it_and_closes_after_the_last(
    now: datetime, weekday: int, at: time
) -> None:
    plan = Schedule(weekday, at, ZoneInfo("Europe/Berlin"), GRACE, reader_time=True)
    slot = plan.next(now)
    hours = [plan.hour(slot.day, zone) for zone in RULES]
    assert slot.at + LEAD <= min(hours)
    assert max(hours) - slot.at <= LEAD + timedelta(hours=26)
    assert max(hours) + plan.grace <= plan.closing(slot) <= slot.at + LEAD + timedelta(hours=26) + plan.grace
    # Whoever publishes next week does not run into this one.
    assert plan.closing(slot) < plan.next(slot.at).at
    assert plan.next(slot.at).at - slot.at == WEEK


def test_readers_hours_begin_on_kiritimati_and_end_where_the_day_ends_last() -> None:
    plan = readers_time()
    slot = plan.slot(FRIDAY)
    first = datetime(2026, 11, 26, 19, tzinfo=UTC)
    assert plan.hour(FRIDAY, ZoneInfo("Pacific/Kiritimati")) == first
    assert slot.at == first - LEAD
    assert plan.hour(FRIDAY) == plan.hour(FRIDAY, ZoneInfo("Europe/Berlin")) == OPENS
    assert plan.closing(slot) == datetime(2026, 11, 27, 21, tzinfo=UTC) + GRACE
    assert plan.due(first - LEAD) == slot
    assert plan.due(first - LEAD - SECOND) is None
    assert readers_time("Pacific/Honolulu").slot(FRIDAY) == slot


def test_an_issue_that_everybody_gets_at_once_closes_with_its_grace() -> None:
    assert schedule().closing(schedule().slot(FRIDAY)) == OPENS + GRACE
    assert schedule().hour(FRIDAY) == OPENS


def notes(plan: Schedule, day: date) -> tuple[str, ...]:
    return plan.planned(plan.slot(day)).notes


def test_a_slot_as_every_other_has_no_note() -> None:
    planned = schedule().planned(schedule().slot(FRIDAY))
    assert planned.notes == ()
    assert planned.local.isoformat() == "2026-11-27T09:00:00+01:00"


@pytest.mark.parametrize(
    ("zone", "at", "weekday", "day", "expected"),
    [
        (
            "Asia/Jerusalem", time(2, 30), 4, date(2026, 3, 27),
            # The offset of a slot in a gap is that after it.
            ("the clocks go forward over 02:30, so it opens at 03:00",
             "the clocks have changed since the week before: an hour earlier by UTC"),
        ),
        (
            "Europe/Berlin", time(2, 30), 6, date(2026, 10, 25),
            ("02:30 comes twice, and the first is meant",),
        ),
        (
            "Europe/Berlin", time(2, 30), 6, date(2026, 11, 1),
            ("the clocks have changed since the week before: an hour later by UTC",),
        ),
        (
            "Europe/Berlin", time(9), 4, date(2026, 4, 3),
            ("the clocks have changed since the week before: an hour earlier by UTC",),
        ),
        ("Europe/Berlin", time(9), 4, date(2026, 4, 10), ()),
        (
            "Australia/Lord_Howe", time(9), 4, date(2026, 10, 9),
            ("the clocks have changed since the week before: 30 minutes earlier by UTC",),
        ),
        (
            "Africa/Cairo", time(9), 4, date(2026, 10, 30),
            ("the clocks have changed since the week before: an hour later by UTC",),
        ),
    ],
)  # fmt: skip
def test_what_clocks_do_to_a_slot_is_noted(zone: str, at: time, weekday: int, day: date, expected: tuple[str, ...]) -> None:
    assert notes(schedule(zone, weekday, at), day) == expected


def test_an_extra_slot_and_the_first_after_skipped_days_are_noted() -> None:
    monday = FRIDAY + timedelta(days=3)
    plan = replace(schedule(skipped=(FRIDAY,)), extra=frozenset((monday, FRIDAY + WEEK)))
    after = f"no issue on {FRIDAY}, which is skipped"
    assert notes(plan, monday) == ("an extra slot", after)
    assert notes(plan, FRIDAY + WEEK) == (after,)
    assert notes(plan, FRIDAY + 2 * WEEK) == ()


def test_a_skipped_day_that_had_no_slot_anyway_is_not_noted() -> None:
    assert notes(schedule(skipped=(FRIDAY - timedelta(days=1),)), FRIDAY) == ()


def test_readers_hours_are_noted_with_the_last_of_them_and_no_change_of_clocks() -> None:
    assert notes(readers_time(), date(2026, 10, 30)) == ("each reader's own 09:00, the last at 2026-10-30 21:00 UTC",)
