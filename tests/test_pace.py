"""When the next call may leave, how long a failure is waited out, and how many copies a young domain sends a day."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pace import CATCH_UP, LONGEST_WAIT, MOST_TRIES, Pace, Ramp

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BERLIN = ZoneInfo("Europe/Berlin")


def pace(per_second: float | None = None, chance: float = 0.0) -> Pace:
    return Pace(per_second, lambda: chance)


def failures(paced: Pace, number: int, asked: timedelta | None = None) -> list[float]:
    """The waits after so many rounds that fail, each begun when the wait before it was over."""
    now, waits = NOW, []
    for _ in range(number):
        paced.went_wrong(now, now, asked)
        waits.append(paced.delay(now))
        now += timedelta(seconds=waits[-1])
    return waits


def begin_all(paced: Pace, now: datetime, most: int = 1_000) -> int:
    """Begin as many calls as there is room for."""
    room = paced.room(now, most)
    for _ in range(room):
        paced.left(now)
    return room


@settings(deadline=None)
@given(
    rate=st.floats(min_value=0.2, max_value=300),
    steps=st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(0, 50)), max_size=40),
)
def test_in_no_window_more_calls_begin_than_the_rate_allows_and_a_tenth_of_a_second_of_it(
    rate: float, steps: list[tuple[int, int]]
) -> None:
    paced, now, begun = pace(rate), NOW, list[datetime]()
    for micros, most in steps:
        now += timedelta(microseconds=micros)
        begun += [now] * begin_all(paced, now, most)
    burst = 1 + rate * CATCH_UP.total_seconds()
    # A step is rounded to the microsecond.
    most_per_second = 1_000_000 / max(1, round(1_000_000 / rate))
    for first in range(len(begun)):
        for last in range(first, len(begun)):
            window = (begun[last] - begun[first]).total_seconds()
            assert last - first + 1 <= most_per_second * window + burst * 1.01 + 0.01


@pytest.mark.parametrize("rate", [1, 7.5, 100])
def test_whoever_asks_often_enough_gets_the_whole_rate(rate: float) -> None:
    paced = pace(rate)
    begun = sum(begin_all(paced, NOW + timedelta(milliseconds=10 * step)) for step in range(1_000))
    assert begun == pytest.approx(rate * 10, abs=2)


def test_after_a_long_rest_there_is_no_more_catching_up_than_after_a_short_one() -> None:
    paced = pace(100)
    assert begin_all(paced, NOW) == 1
    assert begin_all(paced, NOW + timedelta(hours=1)) == 11
    assert begin_all(paced, NOW + timedelta(hours=1)) == 0


def test_the_delay_is_what_is_left_until_there_is_room() -> None:
    paced = pace(4)
    assert paced.delay(NOW) == 0
    paced.left(NOW)
    assert paced.delay(NOW) == 0.25
    assert paced.room(NOW, 9) == 0
    assert paced.delay(NOW + timedelta(seconds=0.2)) == pytest.approx(0.05)
    assert paced.room(NOW + timedelta(seconds=0.25), 9) == 1


@pytest.mark.parametrize("rate", [None, 5e6, 1e300])
def test_without_a_rate_or_with_one_that_no_clock_can_tell_apart_there_is_room_for_all(rate: float | None) -> None:
    paced = pace(rate)
    assert begin_all(paced, NOW, 64) == 64
    assert begin_all(paced, NOW, 64) == 64
    assert paced.delay(NOW) == 0


def test_each_failure_in_a_row_is_waited_out_twice_as_long_and_half_of_it_is_chance() -> None:
    assert failures(pace(chance=0.0), 5) == [1, 2, 4, 8, 16]
    assert failures(pace(chance=0.999999), 5) == pytest.approx([2, 4, 8, 16, 32], rel=1e-5)


@given(chance=st.floats(0, 1, exclude_max=True), number=st.integers(1, MOST_TRIES - 1))
def test_a_wait_lies_between_half_and_the_whole_of_its_power_of_two(chance: float, number: int) -> None:
    wait = failures(pace(chance=chance), number)[-1]
    assert 2 ** (number - 1) <= wait <= 2**number


def test_after_a_success_waits_begin_anew() -> None:
    paced = pace()
    failures(paced, 4)
    paced.went_well()
    later = NOW + timedelta(hours=1)
    paced.went_wrong(later, later, None)
    assert paced.delay(later) == 1


@pytest.mark.parametrize("seconds", [0.5, 1, 90, LONGEST_WAIT])
def test_what_the_provider_asks_to_wait_is_waited_to_the_second(seconds: float) -> None:
    paced = pace(chance=0.7)
    assert not paced.went_wrong(NOW, NOW, timedelta(seconds=seconds))
    assert paced.delay(NOW) == seconds
    assert paced.waits(NOW + timedelta(seconds=seconds) - timedelta(microseconds=1))
    assert not paced.waits(NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("asked", [timedelta(0), timedelta(seconds=-3600)])
def test_who_asks_for_no_wait_at_all_is_still_waited_for(asked: timedelta) -> None:
    assert failures(pace(), 3, asked) == [1, 2, 4]


def test_a_success_of_a_call_that_was_under_way_does_not_cut_a_wait_short() -> None:
    paced = pace()
    paced.went_wrong(NOW, NOW, timedelta(seconds=60))
    paced.went_well()
    assert paced.delay(NOW) == 60
    assert paced.room(NOW, 9) == 0


def test_a_second_failure_does_not_shorten_the_wait_that_the_first_asked_for() -> None:
    paced = pace()
    paced.went_wrong(NOW, NOW, timedelta(seconds=60))
    paced.went_wrong(NOW, NOW + SECOND, timedelta(seconds=2))
    assert paced.delay(NOW + SECOND) == 59


def test_calls_that_were_under_way_together_fail_together_and_count_once() -> None:
    paced = pace()
    ends = [NOW + timedelta(milliseconds=number) for number in range(10)]
    assert not any(paced.went_wrong(NOW, ended, None) for ended in ends)
    assert paced.delay(ends[-1]) == 1
    later = ends[-1] + SECOND
    paced.went_wrong(later, later, None)
    assert paced.delay(later) == 2


def test_after_six_rounds_it_is_given_up_and_not_before() -> None:
    paced, now, given_up = pace(), NOW, list[bool]()
    for _ in range(MOST_TRIES):
        given_up.append(paced.went_wrong(now, now, None))
        now += timedelta(seconds=paced.delay(now))
    assert given_up == [False] * 5 + [True]


@pytest.mark.parametrize(("seconds", "gives_up"), [(LONGEST_WAIT, False), (LONGEST_WAIT + 1, True)])
def test_a_wait_that_is_too_long_is_given_up_at_once(seconds: float, *, gives_up: bool) -> None:
    assert pace().went_wrong(NOW, NOW, timedelta(seconds=seconds)) is gives_up


def ramp(first_day: int = 200, growth: float = 2.0, zone: ZoneInfo = BERLIN, begins: date = date(2026, 11, 27)) -> Ramp:
    return Ramp(begins, first_day, growth, zone)


def on(day: int, hour: int = 12, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def test_a_ramp_grows_each_day_by_its_factor() -> None:
    assert [ramp().allowance(on(day)).copies for day in (27, 28, 29, 30)] == [200, 400, 800, 1_600]
    assert ramp(100, 1.5).allowance(on(30)).copies == 337


def test_before_a_ramp_begins_as_much_may_go_as_on_its_first_day() -> None:
    assert [ramp().allowance(on(day)).copies for day in (1, 26, 27)] == [200, 200, 200]


def test_a_slow_ramp_goes_on_growing_for_as_long_as_it_takes() -> None:
    slow = ramp(200, 1.01)
    days = [slow.allowance(on(27) + timedelta(days=day)).copies for day in (0, 60, 365, 2_000)]
    assert days[1] == int(200 * 1.01**60)
    assert days[2] == int(200 * 1.01**365)
    assert days[3] > 10_000_000


@pytest.mark.parametrize("years", [1, 5, 50])
def test_a_ramp_that_began_long_ago_bounds_nothing(years: int) -> None:
    assert ramp(growth=10.0).allowance(on(27) + timedelta(days=366 * years)).copies > 10**12


def test_a_day_of_a_ramp_is_that_of_its_zone() -> None:
    late = datetime(2026, 11, 27, 22, 59, 59, tzinfo=UTC)
    today, tomorrow = ramp().allowance(late), ramp().allowance(late + SECOND)
    assert (today.copies, tomorrow.copies) == (200, 400)
    assert today.since == datetime(2026, 11, 26, 23, tzinfo=UTC)
    assert today.until == tomorrow.since == late + SECOND
    tokyo = ramp(zone=ZoneInfo("Asia/Tokyo")).allowance(datetime(2026, 11, 27, 15, tzinfo=UTC))
    assert (tokyo.copies, tokyo.until) == (400, datetime(2026, 11, 28, 15, tzinfo=UTC))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        # Where the change falls on midnight itself: a day that begins at one, one that ends at eleven twice.
        ("Africa/Cairo", date(2026, 4, 24), 23),
        ("Africa/Cairo", date(2026, 10, 29), 25),
        ("America/Santiago", date(2026, 4, 4), 25),
        ("America/Santiago", date(2026, 9, 6), 23),
        ("America/Havana", date(2026, 11, 1), 25),
    ],
)
def test_the_days_of_a_ramp_join_where_clocks_change(zone: str, day: date, hours: int) -> None:
    place = ZoneInfo(zone)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=place).astimezone(UTC)
    plan = ramp(zone=place, begins=day)
    today = plan.allowance(noon)
    assert today.until - today.since == timedelta(hours=hours)
    assert plan.allowance(noon - timedelta(days=1)).until == today.since
    assert plan.allowance(noon + timedelta(days=1)).since == today.until
    assert plan.allowance(today.until - SECOND) == today
    assert plan.allowance(today.until).copies == 400
    assert plan.allowance(today.since) == today
