"""Two clocks, and clocks that die anywhere: they come to the same end."""

import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline import gate
from pipeline import publish as route
from pipeline.books import IssueState, Stance
from pipeline.database import Database
from pipeline.errors import FridayError
from pipeline.issue import Draft, Slot
from pipeline.newsroom import Newsroom
from tests.conftest import FRIDAY
from tests.house import ED, ELLA, GRACE, MINUTE, OWNER, READERS, SETTINGS, Dying, House, Killed


def both_ring(house: House) -> None:
    """Two clocks of one newsroom ring at the same moment."""
    others = replace(house.newsroom, database=Database(house.newsroom.database.url), wait=lambda _seconds: None)
    start, wrong = threading.Barrier(2), list[BaseException]()

    def ring(newsroom: Newsroom) -> None:
        start.wait(60)
        try:
            gate.tend(newsroom)
        except FridayError:
            return
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must hear of it
            wrong.append(error)

    rings = [threading.Thread(target=ring, args=(each,)) for each in (replace(house.newsroom, wait=lambda _s: None), others)]
    for each in rings:
        each.start()
    for each in rings:
        each.join(120)
    assert not any(each.is_alive() for each in rings)
    others.database.engine.dispose()
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("unapproved", SETTINGS)
def test_two_clocks_come_to_the_end_of_one_with_one_mail_each(house: House, unapproved: str) -> None:
    house.configured(unapproved=unapproved)
    both_ring(house.at(FRIDAY - timedelta(hours=24)))
    both_ring(house.at(FRIDAY - timedelta(hours=2)))
    both_ring(house.at(FRIDAY))
    both_ring(house.at(FRIDAY + MINUTE))
    both_ring(house.at(FRIDAY + GRACE + MINUTE))
    editors = [("drafted", ED), ("drafted", ELLA), ("reminder", ED), ("reminder", ELLA)]
    waits = [("waits", ED), ("waits", ELLA)]
    told = {
        "send": [*editors, ("report", OWNER)],
        "hold": [*editors, *waits, ("missed", OWNER), ("missed", ED), ("missed", ELLA)],
        "skip": [*editors, *waits],
    }
    assert Counter(house.told) == Counter(told[unapproved])
    assert sorted(house.got) == (READERS if unapproved == "send" else [])
    assert house.state == {"send": IssueState.SENT, "hold": Stance.MISSED, "skip": Stance.SKIPPED}[unapproved]


def test_a_clock_that_made_its_draft_while_another_told_of_it_tells_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.at(FRIDAY - timedelta(hours=24))
    made, done = route.draft, list[bool]()

    def draft(newsroom: Newsroom, slot: Slot) -> Draft:
        found = made(newsroom, slot)
        if not done:
            done.append(True)
            thread = threading.Thread(target=lambda: gate.tend(house.newsroom))
            thread.start()
            thread.join(60)
        return found

    monkeypatch.setattr(gate, "draft", draft)
    gate.tend(house.newsroom)
    assert house.told == [("drafted", ED), ("drafted", ELLA)]


MOMENTS = {
    "draft": ("send", FRIDAY - timedelta(hours=24)),
    "waits": ("hold", FRIDAY + MINUTE),
    "skip": ("skip", FRIDAY + MINUTE),
    "send": ("send", FRIDAY + MINUTE),
    "missed": ("send", FRIDAY + GRACE + MINUTE),
}


def end(house: House) -> tuple[object, ...]:
    unique = dict.fromkeys(copy.ref for issue, copy in house.postman.letters if not issue.single)
    return (Counter(house.told), house.state, house.row.stance, house.row.why, len(unique), sorted(set(house.got)))


def live_through(house: House, moment: str, dies_on: int, *, after: bool) -> bool:
    """Ring once with a process that dies at its nth writing, and then as if nothing had been; whether it died."""
    unapproved, when = MOMENTS[moment]
    house.configured(unapproved=unapproved).at(FRIDAY - timedelta(days=2)).ring()
    house.at(when)
    dying = Dying(house.newsroom.database.url, dies_on, after=after)
    died = False
    try:
        gate.tend(replace(house.newsroom, database=dying))
    except Killed:
        died = True
    dying.engine.dispose()
    # Nobody takes over a batch of a runner that may be alive, which this very process is.
    house.world.clock.at += 6 * MINUTE
    house.ring(2)
    return died


ENDS = {
    "draft": (Counter([("drafted", ED), ("drafted", ELLA)]), "open", "", "", 0, []),
    "waits": (
        Counter([("waits", ED), ("waits", ELLA)]), "held", "held",
        "nobody has approved it, and schedule.unapproved is hold", 0, [],
    ),
    "skip": (
        Counter([("waits", ED), ("waits", ELLA)]), "skipped", "skipped",
        "nobody had approved it when it opened, and schedule.unapproved is skip", 0, [],
    ),
    "send": (Counter([("report", OWNER)]), "sent", "", "", 3, READERS),
    "missed": (
        Counter([("missed", OWNER), ("missed", ED), ("missed", ELLA)]), "missed", "missed",
        "the clock did not come to it within its grace", 0, [],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the commit", "after it"])
@pytest.mark.parametrize("dies_on", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("moment", sorted(MOMENTS))
def test_wherever_a_clock_dies_the_next_one_comes_to_the_same_end(
    local_house: House, moment: str, dies_on: int, when: str
) -> None:
    died = live_through(local_house, moment, dies_on, after=when == "after it")
    assert end(local_house) == ENDS[moment]
    # Each of them writes twice at least, and it is seen that the death came.
    assert died or dies_on > 2
