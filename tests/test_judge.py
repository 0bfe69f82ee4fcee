"""What is written down of each end of a call, and when a run stops for it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.batches import Batch
from pipeline.errors import AccountRefused, CallRefused, NotProcessed, ProviderError, Unclear
from pipeline.issue import Copy, Parcel, Receipt
from pipeline.judge import (
    KEY_MARGIN,
    MOST_REFUSED,
    MOST_UNCLEAR,
    SHORTEST_PAUSE,
    Flight,
    Halt,
    Judge,
    Landing,
    Recalled,
)
from pipeline.pace import LONGEST_WAIT, MOST_TRIES, Pace
from pipeline.providers import Limits
from pipeline.settle import Answered, GivenBack, LetGo, Lost, Refused
from tests.conftest import FRIDAY, Clock

KEY = timedelta(hours=24)


def judging(key: timedelta | None = None, *, some_accepted: bool = False) -> Judge:
    return Judge(Limits(2, key_lifetime=key), Pace(None, lambda: 0.0), Clock(FRIDAY), some_accepted)


def flight(copies: int = 2, attempt: int = 1, *, suspect: bool = False, minute: int = 0) -> Flight:
    batch = Batch(7, attempt, "us", FRIDAY, FRIDAY, suspect)
    parcel = Parcel("key", FRIDAY, tuple(Copy(f"{place}", f"{place}@example.com", "") for place in range(copies)))
    return Flight(batch, parcel, FRIDAY + timedelta(minutes=minute))


def answers(said: str) -> list[Receipt]:
    """A receipt for each letter: accepted, rejected or later."""
    return [
        Receipt(f"{place}", accepted=letter == "a", reason="because", later=letter == "l") for place, letter in enumerate(said)
    ]


def fail(judge: Judge, error: BaseException, flown: Flight | None = None) -> object:
    return judge.judge(Landing(flown or flight(), (), error))


def answer(judge: Judge, said: str, flown: Flight | None = None) -> object:
    flown = flown or flight(len(said))
    return judge.judge(Landing(flown, answers(said), None))


def test_answers_are_handed_on_as_they_are() -> None:
    flown = flight(2)
    judge = judging()
    assert answer(judge, "ar", flown) == Answered(flown.batch, flown.parcel, answers("ar"))
    assert (judge.trouble, judge.halt, judge.some_accepted) == (None, None, True)


def test_a_rejection_is_no_acceptance_and_takes_none_back() -> None:
    judge = judging()
    answer(judge, "rr")
    assert not judge.some_accepted
    answer(judge, "a")
    answer(judge, "r")
    assert judge.some_accepted


def test_an_answer_to_be_glad_of_forgets_what_went_before() -> None:
    judge = judging()
    judge.unclear = judge.refused = judge.put_off = 1
    judge.pace.went_wrong(FRIDAY, FRIDAY, None)
    answer(judge, "l")
    assert (judge.unclear, judge.refused, judge.put_off) == (1, 1, 2)
    answer(judge, "al")
    assert (judge.unclear, judge.refused, judge.put_off) == (0, 0, 0)
    for minute in range(1, MOST_TRIES):
        assert not judge.pace.went_wrong(FRIDAY + timedelta(minutes=minute), FRIDAY + timedelta(minutes=minute), None)
    assert judge.pace.went_wrong(FRIDAY + timedelta(hours=1), FRIDAY + timedelta(hours=1), None)


def test_a_second_answer_that_is_not_for_everybody_stops() -> None:
    judge = judging()
    assert isinstance(answer(judge, "a", flight(2)), Answered)
    assert (judge.unclear, judge.trouble, judge.some_accepted) == (1, None, False)
    answer(judge, "a", flight(2))
    assert judge.unclear == MOST_UNCLEAR
    assert isinstance(judge.trouble, Unclear)
    assert judge.halt == Halt("the provider did not answer for every copy", None)


def test_three_that_are_put_off_in_a_row_make_the_loop_wait_and_one_that_is_tried_alone() -> None:
    judge = judging()
    for _ in range(MOST_REFUSED - 1):
        answer(judge, "l")
    assert judge.pace.delay(FRIDAY) == 0
    answer(judge, "l")
    assert judge.pace.delay(FRIDAY) == 1
    judge = judging()
    answer(judge, "l", flight(1, suspect=True))
    assert judge.pace.delay(FRIDAY) == 1
    assert (judge.trouble, judge.halt) == (None, None)


def test_what_is_put_off_for_ever_stops_with_the_servers_words() -> None:
    judge = judging()
    for minute in range(MOST_TRIES):
        answer(judge, "l", flight(1, suspect=True, minute=minute))
    assert isinstance(judge.trouble, NotProcessed)
    assert judge.halt == Halt("because", FRIDAY + SHORTEST_PAUSE)


def test_a_call_that_was_recalled_did_not_leave() -> None:
    judge = judging()
    assert fail(judge, Recalled()) == GivenBack(flight().batch, "")
    assert (judge.trouble, judge.pace.delay(FRIDAY)) == (None, 0)


def test_a_second_attempt_that_was_recalled_may_have_left_the_first_time() -> None:
    again = flight(attempt=2)
    assert fail(judging(KEY), Recalled(), again) == LetGo(again.batch)
    assert fail(judging(), Recalled(), again) == Lost(again.batch, "it was not sent again")


@pytest.mark.parametrize(("said", "reason"), [("odd", "odd"), ("", "ValueError")])
def test_a_bug_stops_at_once_and_nobody_can_tell(said: str, reason: str) -> None:
    judge = judging()
    assert fail(judge, ValueError(said)) == Lost(flight().batch, reason)
    assert isinstance(judge.trouble, ValueError)
    assert judge.halt == Halt("a bug in the provider: ValueError", None)
    assert isinstance(fail(judging(KEY), ValueError()), LetGo)


def test_a_key_lives_until_shortly_before_its_end() -> None:
    assert not judging().key_lives(flight().batch)
    judge = judging(KEY)
    clock = judge.now
    assert isinstance(clock, Clock)
    clock.at = FRIDAY + KEY - KEY_MARGIN - timedelta(seconds=1)
    assert judge.key_lives(flight().batch)
    clock.at = FRIDAY + KEY - KEY_MARGIN
    assert not judge.key_lives(flight().batch)


def test_what_did_not_reach_the_provider_comes_back_after_a_wait() -> None:
    judge = judging()
    assert fail(judge, NotProcessed("down")) == GivenBack(flight().batch, "down")
    assert (judge.pace.delay(FRIDAY), judge.trouble) == (1, None)


@pytest.mark.parametrize("error", [NotProcessed("down"), Recalled("down")])
def test_what_comes_back_keeps_its_smaller_size_and_its_place_at_the_end(error: Exception) -> None:
    flown = flight(2, suspect=True)
    capped = flown._replace(batch=replace(flown.batch, cap=3))
    assert fail(judging(), error, capped) == GivenBack(capped.batch, "down", 3, suspect=True)


def test_the_provider_says_how_long_to_wait() -> None:
    judge = judging()
    fail(judge, NotProcessed("busy", timedelta(seconds=17)))
    assert (judge.pace.delay(FRIDAY), judge.trouble) == (17, None)


def test_whoever_asks_for_much_patience_gets_a_pause() -> None:
    judge = judging()
    asked = timedelta(seconds=LONGEST_WAIT + 1)
    fail(judge, error := NotProcessed("busy", asked))
    assert judge.trouble is error
    assert judge.halt == Halt("busy", FRIDAY + asked)


def test_a_pause_that_passes_is_never_shorter_than_a_minute() -> None:
    judge = judging()
    for minute in range(MOST_TRIES):
        fail(judge, NotProcessed("busy", timedelta(seconds=1)), flight(minute=minute))
    assert judge.halt == Halt("busy", FRIDAY + SHORTEST_PAUSE)


def test_a_refused_account_stops_at_once() -> None:
    judge = judging()
    assert fail(judge, error := AccountRefused("bad key")) == GivenBack(flight().batch, "bad key")
    assert judge.trouble is error
    assert judge.halt == Halt("bad key", None)


def test_without_a_key_a_second_unclear_call_stops() -> None:
    judge = judging()
    assert fail(judge, Unclear("no answer")) == Lost(flight().batch, "no answer")
    assert (judge.trouble, judge.unclear) == (None, 1)
    assert fail(judge, error := Unclear("no answer")) == Lost(flight().batch, "no answer")
    assert judge.trouble is error
    assert judge.halt == Halt("no answer", None)


def test_while_its_key_lives_an_unclear_call_goes_out_again() -> None:
    judge = judging(KEY)
    for minute in range(MOST_TRIES - 1):
        assert fail(judge, Unclear("no answer"), flight(minute=minute)) == LetGo(flight().batch)
    assert (judge.trouble, judge.unclear) == (None, 0)
    assert judge.pace.delay(FRIDAY) > 0
    fail(judge, Unclear("no answer"), flight(minute=MOST_TRIES))
    assert judge.halt == Halt("no answer", FRIDAY + SHORTEST_PAUSE)


@pytest.mark.parametrize("error", [NotProcessed("down"), AccountRefused("bad key"), CallRefused("bad address")])
def test_a_failed_second_attempt_says_nothing_of_the_first(error: ProviderError) -> None:
    again = flight(attempt=2)
    judge = judging()
    assert fail(judge, error, again) == Lost(again.batch, str(error))
    assert judge.trouble is error
    if not isinstance(error, CallRefused):
        keyed = judging(KEY)
        assert fail(keyed, error, again) == LetGo(again.batch)
        assert keyed.pace.delay(FRIDAY) == 1


def test_under_a_key_a_refused_second_attempt_tells_of_the_first_too() -> None:
    again = flight(3, attempt=2)
    assert fail(judging(KEY), CallRefused("bad"), again) == GivenBack(again.batch, "bad", cap=2)


@pytest.mark.parametrize(("copies", "half"), [(2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_refused_call_is_halved(copies: int, half: int) -> None:
    judge = judging()
    assert fail(judge, CallRefused("bad"), flight(copies)) == GivenBack(flight().batch, "bad", cap=half)
    assert (judge.refused, judge.trouble) == (0, None)


def test_a_copy_that_is_refused_alone_goes_last_and_then_is_refused_for_good() -> None:
    judge = judging(some_accepted=True)
    assert fail(judge, CallRefused("bad"), flight(1)) == GivenBack(flight().batch, "bad", suspect=True)
    suspect = flight(1, suspect=True)
    assert fail(judge, CallRefused("bad"), suspect) == Refused(suspect.batch, "bad")
    assert judge.refused == 1


def test_as_long_as_none_was_accepted_it_is_rather_the_issue_that_is_refused() -> None:
    judge = judging()
    suspect = flight(1, suspect=True)
    for _ in range(MOST_REFUSED - 1):
        assert fail(judge, CallRefused("bad"), suspect) == GivenBack(suspect.batch, "bad", suspect=True)
    assert judge.halt is None
    fail(judge, error := CallRefused("bad"), suspect)
    assert judge.trouble is error
    assert judge.halt == Halt("bad", None)


def test_what_stopped_first_is_what_is_told() -> None:
    judge = judging()
    fail(judge, first := AccountRefused("first"))
    fail(judge, AccountRefused("second"))
    assert judge.trouble is first
    assert judge.halt == Halt("first", None)
