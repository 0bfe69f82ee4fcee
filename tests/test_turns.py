"""When a bell of a process among several rings: at once where it begins to be allowed, and then every so often."""

from datetime import timedelta

import pytest

from pipeline.clock import Bell
from pipeline.serve import TURNS_EVERY, Turn, Watch, hung
from tests.conftest import World

LOOK = TURNS_EVERY.total_seconds()


class Rung:
    """A turn, and how often it has rung."""

    def __init__(self, watch: Watch, every: timedelta, name: str = "publish") -> None:
        self.times = 0
        self.passed = 0.0
        self.turn = Turn(Bell(name, every, lambda: None), self.ring, watch, lambda: self.passed)

    def ring(self) -> None:
        self.times += 1

    def look(self, after: float = 0.0) -> int:
        """Look whether it is its turn, some seconds later; how often it has rung by then."""
        self.passed += after
        self.turn()
        return self.times


@pytest.fixture
def clock(world: World) -> Watch:
    watch = Watch(world.newsroom)
    watch.beat()
    assert watch.is_clock
    return watch


def test_it_rings_at_once_and_then_when_its_time_has_come(clock: Watch) -> None:
    rung = Rung(clock, timedelta(seconds=30))
    assert [rung.look(after) for after in (0, 10, 10, 10, 10)] == [1, 1, 1, 2, 2]


def test_a_look_that_comes_a_little_early_counts(clock: Watch) -> None:
    rung = Rung(clock, TURNS_EVERY)
    assert [rung.look(after) for after in (0, LOOK - 0.01, LOOK + 0.01, LOOK - 0.01)] == [1, 2, 3, 4]


def test_who_is_not_the_clock_rings_only_what_everybody_does(world: World) -> None:
    watch = Watch(world.newsroom)
    assert Rung(watch, TURNS_EVERY).look() == 0
    assert Rung(watch, TURNS_EVERY, "uploads").look() == 1


def test_who_becomes_the_clock_again_rings_at_once(clock: Watch) -> None:
    rung = Rung(clock, timedelta(hours=3))
    assert rung.look() == 1
    clock.close()
    assert rung.look(LOOK) == 1
    clock.beat()
    assert rung.look(LOOK) == 2


def test_every_bell_looks_often_enough_to_take_over_within_seconds(clock: Watch, world: World) -> None:
    looks = {bell.name: bell.every for bell in hung(world.newsroom, clock)}
    assert looks.pop("lease") <= timedelta(seconds=10)
    assert set(looks.values()) == {TURNS_EVERY}
