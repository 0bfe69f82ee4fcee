"""One process holds the lease at a time; who ends, dies or falls silent loses it, and nobody believes in it for too long."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy.exc import OperationalError

from pipeline import lease as leases
from pipeline.database import Database
from pipeline.lease import LASTS, Lease
from tests.conftest import Clock, World

HERE, THERE = "one/1/1.00", "two/2/2.00"


@dataclass
class Timer:
    """Seconds that pass when a test says so."""

    at: float = 1_000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Machine:
    """A process with clocks of its own, on the database of the world."""

    lease: Lease
    clock: Clock
    timer: Timer

    def believes(self) -> bool:
        """Whether it takes the lease for its own, now."""
        return self.lease.is_mine

    def pass_time(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.clock.wait(seconds)
        self.timer.at += seconds


def machine(database: Database, holder: str, gone: Callable[[], set[str]] = set) -> Machine:
    clock, timer = Clock(), Timer()
    lease = Lease(database, leases.CLOCK, holder, clock, is_running=lambda runner: runner not in gone(), elapsed=timer)
    return Machine(lease, clock, timer)


@pytest.fixture
def here(world: World) -> Machine:
    return machine(world.database, HERE)


@pytest.fixture
def there(other: Database) -> Machine:
    return machine(other, THERE)


def holder(world: World) -> str:
    with world.database.read() as session:
        row = leases.last(session, leases.CLOCK)
        assert row is not None
        return row.holder


def test_the_first_takes_it_and_the_second_does_not(world: World, here: Machine, there: Machine) -> None:
    assert not here.believes()
    assert here.lease.beat()
    assert not there.lease.beat()
    assert (here.believes(), there.believes()) == (True, False)
    assert holder(world) == HERE


def test_who_renews_it_keeps_it(world: World, here: Machine, there: Machine) -> None:
    for _ in range(20):
        assert here.lease.beat()
        assert not there.lease.beat()
        for each in (here, there):
            each.pass_time(20)
    assert here.believes()
    with world.database.read() as session:
        row = leases.last(session, leases.CLOCK)
    assert row is not None
    assert (row.beat_at, row.until) == (here.clock.at - timedelta(seconds=20), here.clock.at - timedelta(seconds=20) + LASTS)


def test_who_falls_silent_loses_it_when_it_is_over(here: Machine, there: Machine) -> None:
    here.lease.beat()
    for each in (here, there):
        each.pass_time(LASTS.total_seconds() - 1)
    assert not there.lease.beat()
    assert here.believes()
    for each in (here, there):
        each.pass_time(1)
    assert not here.believes()
    assert there.lease.beat()
    assert not here.lease.beat()


def test_who_gives_it_up_lets_another_take_it_at_once(world: World, here: Machine, there: Machine) -> None:
    here.lease.beat()
    beat_at = here.clock.at
    here.pass_time(5)
    here.lease.give_up()
    assert not here.believes()
    with world.database.read() as session:
        row = leases.last(session, leases.CLOCK)
    assert row is not None
    assert (row.holder, row.beat_at) == (HERE, beat_at)
    # Even to a clock that is late.
    there.clock.at -= timedelta(hours=1)
    assert there.lease.beat()


def test_what_somebody_else_holds_is_not_given_up(world: World, here: Machine, there: Machine) -> None:
    here.lease.beat()
    there.lease.give_up()
    assert not there.lease.beat()
    assert holder(world) == HERE


def test_who_died_has_lost_it(world: World, other: Database) -> None:
    gone: set[str] = set()
    first, second = machine(world.database, HERE), machine(other, THERE, lambda: gone)
    first.lease.beat()
    assert not second.lease.beat()
    gone.add(HERE)
    assert second.lease.beat()
    assert holder(world) == THERE


@contextmanager
def ended_process() -> Iterator[str]:
    """A runner whose process was real and is gone."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    runner = f"{os.uname().nodename}/{process.pid}/{psutil.Process(process.pid).create_time():.2f}"
    process.communicate()
    yield runner


def test_a_killed_process_of_this_machine_is_seen_to_be_gone(world: World, other: Database) -> None:
    with ended_process() as runner:
        assert Lease(world.database, leases.CLOCK, runner, world.clock).beat()
    assert Lease(other, leases.CLOCK, world.newsroom.runner, world.clock).beat()


def test_a_process_that_was_suspended_does_not_believe_in_it(here: Machine) -> None:
    here.lease.beat()
    # The machine slept: one of the clocks went on, whichever it is.
    here.timer.at += LASTS.total_seconds()
    assert not here.believes()
    here.lease.beat()
    assert here.believes()
    here.clock.at += LASTS
    assert not here.believes()


def test_a_beat_counts_from_before_the_database_was_asked(world: World, here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Lease._take

    def slow(lease: Lease, *given: object) -> bool:
        here.pass_time(60)
        return take(lease, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Lease, "_take", slow)
    assert here.lease.beat()
    here.pass_time(LASTS.total_seconds() - 60)
    assert not here.believes()
    with world.database.read() as session:
        row = leases.last(session, leases.CLOCK)
    assert row is not None
    assert row.until == here.clock.at


def test_a_clock_that_was_set_forward_lets_nobody_have_it_twice(here: Machine, there: Machine) -> None:
    here.lease.beat()
    for each in (here, there):
        each.clock.at += timedelta(hours=1)
    assert there.lease.beat()
    assert (here.believes(), there.believes()) == (False, True)


def test_a_clock_that_was_set_back_does_not_keep_it_for_the_dead(here: Machine, there: Machine) -> None:
    here.lease.beat()
    # What is written says: until in two hours and a half minutes.
    there.clock.at -= timedelta(hours=2)
    assert not there.lease.beat()
    there.pass_time(LASTS.total_seconds() - 1)
    assert not there.lease.beat()
    there.pass_time(1)
    assert there.lease.beat()


def test_who_beats_is_not_taken_for_dead_by_a_clock_that_is_behind(here: Machine, there: Machine) -> None:
    there.clock.at -= timedelta(hours=2)
    for _ in range(20):
        assert here.lease.beat()
        assert not there.lease.beat()
        for each in (here, there):
            each.pass_time(20)


def test_a_beat_that_fails_leaves_what_was_sure(
    local_world: World, other_file: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(other_file, HERE)
    made.lease.beat()

    def broken(*_: object) -> bool:
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    monkeypatch.setattr(Lease, "_take", broken)
    made.pass_time(20)
    with pytest.raises(OperationalError):
        made.lease.beat()
    assert made.believes()
    made.pass_time(LASTS.total_seconds() - 20)
    assert not made.believes()
    assert holder(local_world) == HERE


@pytest.fixture
def other_file(local_world: World) -> Iterator[Database]:
    made = Database(local_world.database.url)
    yield made
    made.engine.dispose()


@pytest.mark.parametrize("taken", [False, True], ids=["never taken", "over"])
def test_of_many_that_ask_at_once_one_gets_it(world: World, *, taken: bool) -> None:
    if taken:
        late = machine(world.database, "gone/9/9.00")
        late.clock.at -= timedelta(hours=1)
        late.lease.beat()
    asking = 6
    databases = [Database(world.database.url) for _ in range(asking)]
    machines = [machine(database, f"host{number}/{number}/1.00") for number, database in enumerate(databases)]
    line = threading.Barrier(asking)

    def ask(each: Machine) -> bool:
        with each.lease.database.read() as session:
            # To connect takes longer than to ask.
            leases.last(session, leases.CLOCK)
        line.wait(60)
        return each.lease.beat()

    with ThreadPoolExecutor(asking) as pool:
        got = list(pool.map(ask, machines))
    for database in databases:
        database.engine.dispose()
    assert sum(got) == 1
    assert [each.believes() for each in machines] == got
    assert holder(world) == machines[got.index(True)].lease.holder


def test_leases_of_other_names_are_other_leases(world: World, here: Machine) -> None:
    here.lease.beat()
    assert Lease(world.database, "copy", THERE, world.clock, is_running=lambda _: True).beat()
    assert here.lease.beat()


def test_elapsed_goes_on() -> None:
    before = leases.elapsed()
    assert leases.elapsed() >= before
    if Path("/proc/uptime").exists():
        assert abs(float(Path("/proc/uptime").read_text("ascii").split()[0]) - before) < 60
