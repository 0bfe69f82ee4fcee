"""Edits, approvals and crashes that happen at once: nothing is lost, and nothing goes out that nobody saw."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlmodel import select

from pipeline import edit, gate
from pipeline import publish as route
from pipeline.books import EditRow
from pipeline.desk import Kind
from pipeline.edit import Desk
from pipeline.errors import DecisionNeeded
from pipeline.issue import Draft, Slot
from pipeline.newsroom import Newsroom
from pipeline.text import canonical_url
from tests.conftest import ROOT, World
from tests.desks import ADA, BEN, at, deeds, drafted, pages_of
from tests.house import Killed, outcome

_CHILD = """
import os, signal, sys
from pathlib import Path
from pipeline.edit import Desk
from pipeline.newsroom import open_newsroom
newsroom = open_newsroom(Path(sys.argv[1]), {"FRIDAY_PROVIDER_KEY": "secret"})
Desk(newsroom, newsroom.schedule.named("2026-11-27"), "ada").head("subject", "Written and killed")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_an_edit_is_there_after_its_process_was_killed(world: World) -> None:
    world.tell_a_week()
    command = [sys.executable, "-c", _CHILD, str(world.folder / "config.toml")]
    assert subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode == -signal.SIGKILL
    assert drafted(world).issue.subject == "Written and killed"
    at(world, BEN).tell(pages_of(world)[0], "title", "Goes on")


def test_an_edit_that_dies_before_it_is_written_leaves_nothing_and_locks_nobody_out(world: World) -> None:
    world.tell_a_week()

    def die() -> Any:
        raise Killed

    with pytest.raises(Killed):
        Desk(replace(world.newsroom, now=die), world.slot, ADA).head("subject", "Never")
    assert deeds(world) == []
    at(world).head("subject", "Then")


def at_once(*acts: Callable[[], object]) -> list[str]:
    """What became of each, begun at the same time: nothing, or why it was refused."""
    start, found = threading.Barrier(len(acts)), [""] * len(acts)

    def run(number: int, act: Callable[[], object]) -> None:
        start.wait(60)
        found[number] = outcome(act)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return found


@pytest.mark.slow
def test_an_edit_at_the_moment_of_approval_is_in_the_bytes_or_one_of_the_two_is_refused(world: World) -> None:
    world.tell_a_week()
    for number in range(8):
        subject = f"Subject {number}"
        edited, approved = at_once(
            partial(at(world).head, "subject", subject), lambda: route.approve(world.newsroom, world.slot, BEN)
        )
        shown = route.look(world.newsroom, world.slot)
        assert not (edited and approved)
        assert shown.frozen != bool(approved)
        assert (shown.rendered.subject == subject) != bool(edited)
        if shown.frozen:
            route.reopen(world.newsroom, world.slot, BEN)


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once, after the next draft was made and before anybody writes."""
    made, done = route.draft, list[bool]()

    def draft(newsroom: Newsroom, slot: Slot) -> Draft:
        found = made(newsroom, slot)
        if not done:
            done.append(True)
            thread = threading.Thread(target=act)
            thread.start()
            thread.join(60)
        return found

    monkeypatch.setattr(route, "draft", draft)


def test_an_edit_between_draft_and_approval_refuses_the_approval(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tell_a_week()
    meanwhile(monkeypatch, lambda: at(world).head("subject", "In between"))
    with pytest.raises(DecisionNeeded, match="was changed meanwhile: look at it again"):
        route.approve(world.newsroom, world.slot, BEN)
    assert not route.look(world.newsroom, world.slot).frozen
    route.approve(world.newsroom, world.slot, BEN)
    assert route.look(world.newsroom, world.slot).rendered.subject == "In between"


def test_an_edit_between_draft_and_publication_refuses_the_publication(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    meanwhile(monkeypatch, lambda: at(world).head("subject", "In between"))
    with pytest.raises(DecisionNeeded, match="was changed meanwhile"):
        gate.tend(world.newsroom)
    assert world.provider.got == []
    gate.tend(world.newsroom)
    assert world.provider.got == ["ada@example.com"]
    assert route.look(world.newsroom, world.slot).rendered.subject == "In between"


@pytest.mark.slow
def test_many_who_edit_at_once_lose_nothing(world: World) -> None:
    world.tell_a_week()
    pages = tuple(pages_of(world))
    desks = [Desk(world.newsroom, world.slot, f"editor{number}", 0, pages) for number in range(5)]
    told_so = at_once(*(partial(one.tell, its, "why", one.by) for one, its in zip(desks, pages, strict=True)))
    assert told_so == [""] * 5
    assert [line.why for line in drafted(world).issue.lines] == [one.by for one in desks]
    refused = at_once(*(partial(one.head, "subject", one.by) for one in desks))
    assert sum(not each for each in refused) == 1
    with world.database.read() as session:
        assert len(session.exec(select(EditRow)).all()) == 6


def test_whoever_approves_is_told_when_it_is_not_what_they_saw(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tell_a_week()
    seen = route.look(world.newsroom, world.slot).rendered.digest

    def another() -> None:
        at(world, BEN).head("subject", "Ben's")
        route.approve(world.newsroom, world.slot, BEN)

    meanwhile(monkeypatch, another)
    with pytest.raises(DecisionNeeded, match="was approved meanwhile"):
        route.approve(world.newsroom, world.slot, ADA, seen)
    assert [each.by for each in deeds(world) if each.kind is Kind.APPROVE] == [BEN]


def test_nobody_takes_back_what_somebody_else_has_done_since_they_looked(local_world: World) -> None:
    local_world.tell_a_week()
    ada = edit.Desk(local_world.newsroom, local_world.slot, "ada@example.com")
    seen = ada.head("subject", "Ada's")
    ben = replace(ada, by="ben@example.com")
    ben.head("subject", "Ben's")
    with pytest.raises(edit.EditedMeanwhile, match="ben"):
        replace(ada, seen=seen).undo()
    assert ben.undo().about["text"] == "Ben's"
    # What Ada saw is the last that stands again, and still she has not seen that.
    with pytest.raises(edit.EditedMeanwhile, match="has taken something back"):
        replace(ada, seen=seen).undo()
    assert ada.undo().about["text"] == "Ada's"


def test_whoever_presses_twice_takes_back_one_change(local_world: World) -> None:
    local_world.tell_a_week()
    ada = edit.Desk(local_world.newsroom, local_world.slot, "ada@example.com")
    ada.head("note", "Long and dear")
    seen = ada.head("subject", "A slip")
    assert replace(ada, seen=seen).undo().about["text"] == "A slip"
    with pytest.raises(edit.EditedMeanwhile):
        replace(ada, seen=seen).undo()
    assert drafted(local_world).issue.note == "Long and dear"


def test_what_was_swapped_out_stays_out_and_comes_back_under_its_own_name(local_world: World) -> None:
    local_world.tell_a_week(7)
    pages, others = pages_of(local_world), [canonical_url(each.story.url) for each in drafted(local_world).selection.runners_up]
    at(local_world, ADA).swap(pages[1], others[0])
    at(local_world, ADA).drop(pages[4])
    now = pages_of(local_world)
    assert pages[1] not in now
    assert [canonical_url(each.story.url) for each in drafted(local_world).selection.runners_up].count(pages[1]) == 1
    at(local_world, ADA).swap(others[0], pages[1])
    assert pages_of(local_world)[1] == pages[1]
