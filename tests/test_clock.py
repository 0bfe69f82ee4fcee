"""The clock rings what it is given, and what `serve` gives it collects and publishes what is due."""

import threading
from datetime import timedelta

import pytest

from pipeline.books import IssueState
from pipeline.clock import Bell, ringing
from pipeline.errors import ContentError, DecisionNeeded, Problem
from pipeline.publish import approve, publish_due, report
from pipeline.serve import bells
from tests.conftest import FRIDAY, World


def test_a_bell_rings_at_once_and_again() -> None:
    rung = threading.Semaphore(0)
    with ringing([Bell("quick", timedelta(seconds=1), rung.release)], threading.Event()):
        assert rung.acquire(timeout=60)
        assert rung.acquire(timeout=60)


def test_a_bell_that_fails_rings_again() -> None:
    rung = threading.Semaphore(0)

    def fail() -> None:
        rung.release()
        raise RuntimeError("this time")

    with ringing([Bell("failing", timedelta(seconds=1), fail)], threading.Event()):
        assert rung.acquire(timeout=60)
        assert rung.acquire(timeout=60)


def test_serving_collects_and_publishes_the_due_slot_once(local_world: World) -> None:
    local_world.tell_a_week()
    local_world.subscribe("ada")
    collect, publish, *_ = (bell.ring for bell in bells(local_world.newsroom))
    collect()
    publish()
    publish()
    assert local_world.provider.got == ["ada@example.com"]


def test_nothing_is_published_between_slots(local_world: World) -> None:
    local_world.tell_a_week()
    local_world.subscribe("ada")
    local_world.clock.at = FRIDAY + timedelta(days=2)
    assert publish_due(local_world.newsroom) is None
    assert local_world.provider.got == []


def test_an_approved_issue_goes_at_its_slot(local_world: World) -> None:
    local_world.tell_a_week()
    local_world.subscribe("ada")
    local_world.clock.at = FRIDAY - timedelta(hours=3)
    approve(local_world.newsroom, local_world.slot)
    assert publish_due(local_world.newsroom) is None
    local_world.clock.at = FRIDAY
    publish_due(local_world.newsroom)
    assert report(local_world.newsroom, local_world.slot).state == IssueState.SENT


def test_a_machine_that_was_off_looks_at_the_week_before_it_publishes(local_world: World) -> None:
    local_world.clock.at = FRIDAY - timedelta(days=3)
    local_world.tell_a_week(before=local_world.clock.at)
    local_world.subscribe("ada")
    collect, publish, *_ = (bell.ring for bell in bells(local_world.newsroom))
    local_world.clock.at = FRIDAY
    with pytest.raises(DecisionNeeded, match="no source could be read lately"):
        publish()
    collect()
    publish()
    assert local_world.provider.got == ["ada@example.com"]


def test_without_a_network_nothing_is_picked_from_an_old_inbox(local_world: World) -> None:
    local_world.clock.at = FRIDAY - timedelta(days=3)
    local_world.tell_a_week(before=local_world.clock.at)
    local_world.subscribe("ada")
    collect, publish, *_ = (bell.ring for bell in bells(local_world.newsroom))
    for source in ("wire", "ledger"):
        (local_world.folder / f"{source}.json").unlink()
    local_world.clock.at = FRIDAY
    collect()
    with pytest.raises(DecisionNeeded):
        publish()
    assert local_world.provider.got == []


def test_trouble_that_was_foreseen_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    rung = threading.Semaphore(0)

    def fail() -> None:
        rung.release()
        raise ContentError([Problem("stories", "too few")])

    with ringing([Bell("publish", timedelta(seconds=1), fail)], threading.Event()):
        assert rung.acquire(timeout=60)
        assert rung.acquire(timeout=60)
    assert [record.getMessage() for record in caplog.records] == ["publish: stories: too few"]
    assert caplog.records[0].exc_info is None


def test_leaving_the_clock_tells_what_rings_to_stop() -> None:
    stopping = threading.Event()
    stopped = threading.Event()
    started = threading.Event()

    def ring() -> None:
        started.set()
        if stopping.wait(60):
            stopped.set()

    with ringing([Bell("long", timedelta(hours=1), ring)], stopping):
        assert started.wait(60)
    assert stopped.is_set()
