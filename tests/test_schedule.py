"""The weekly slot: the right instant in every zone, and how a slot stands to now."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.issue import Slot
from pipeline.schedule import WEEK, Schedule, Timing, instant

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
