"""Real servers: of two on one database one is the clock, the other takes over, and a copy of the folder sends nothing."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from sqlmodel import select

from pipeline.books import DeliveryRow, DeliveryState, IssueState, SlotRow, Stance
from pipeline.database import Database
from pipeline.jobs import jobs
from tests.conftest import World, build_world
from tests.fake_http import OK, Call, FakeHttp, Reply, fake_http
from tests.served import Served, clock_of, friday, issues, mails, open_slot, served, wait_for

pytestmark = pytest.mark.slow

READERS = 60


@pytest.fixture
def fake() -> Iterator[FakeHttp]:
    with fake_http() as running:
        yield running


@pytest.fixture
def office(tmp_path: Path, database_url: str, fake: FakeHttp) -> Iterator[World]:
    """A newsletter whose slot opens in seconds, with a slow provider that takes ten copies at a time."""
    provider = f'name = "mailgun"\ndomain = "news.example.com"\nbase_url = "{fake.url}"\nbatch_size = 10\nconcurrency = 1'
    made = build_world(tmp_path, database_url, provider)
    furnish(made)
    yield made
    made.database.engine.dispose()


def furnish(made: World) -> None:
    made.clock.at = datetime.now(UTC)
    made.tell_a_week(before=made.clock.at - timedelta(minutes=5))
    made.subscribe(*(f"reader{number}" for number in range(READERS)))


ALL = sorted(f"reader{number}@example.com" for number in range(READERS))


def two_clocks(world: World) -> tuple[ExitStack, list[Served]]:
    """Two servers of the same newsletter."""
    stack = ExitStack()
    folder, said = world.folder, world.folder / "said"
    said.mkdir(exist_ok=True)
    both = [stack.enter_context(served(folder, said / f"{n}.txt", FRIDAY_PROVIDER_KEY="secret")) for n in (1, 2)]
    return stack, both


def clock_among(world: World, both: list[Served]) -> tuple[Served, Served]:
    """The one that is the clock, and the other."""
    wait_for(lambda: clock_of(world.database), *both)
    row = clock_of(world.database)
    assert row is not None
    number = int(row.holder.split("/")[1])
    first, second = sorted(both, key=lambda each: each.process.pid != number)
    assert first.process.pid == number
    return first, second


def is_sent(database: Database) -> bool:
    return [issue.state for issue in issues(database)] == [IssueState.SENT]


def test_two_servers_send_one_issue_to_one_audience(office: World, fake: FakeHttp) -> None:
    slot = open_slot(office.folder, opens_in=timedelta(seconds=8))
    stack, both = two_clocks(office)
    with stack:
        clock, other = clock_among(office, both)
        wait_for(lambda: is_sent(office.database), *both)
        for each in both:
            assert requests.get(f"{each.address}/healthz", timeout=60).ok
            assert f"the slot {slot} open" in each.words
            assert "Last: there was no issue yet." in each.words
        assert sorted(fake.readers) == ALL
        assert "INFO pipeline.serve: this process is the clock" in clock.words
        assert "this process is the clock" not in other.words
        # Who rings is the clock alone.
        assert "is sent" in clock.words
        assert "is sent" not in other.words
        assert [each.stop() for each in (other, clock)] == [0, 0]
    (issue,) = issues(office.database)
    with office.database.read() as session:
        copies = session.exec(select(DeliveryRow).where(DeliveryRow.issue_id == issue.id)).all()
    assert len(copies) == READERS
    assert {copy.state for copy in copies} == {DeliveryState.ACCEPTED}


def test_a_clock_that_is_killed_in_the_middle_is_taken_over_and_nobody_gets_it_twice(office: World, fake: FakeHttp) -> None:
    victim: list[Served] = []

    def kill_at_the_third(number: int, _call: Call) -> Reply:
        if number == 3:
            victim[0].process.send_signal(signal.SIGKILL)
            victim[0].process.wait()
        return OK

    fake.reply = kill_at_the_third
    slot = open_slot(office.folder, opens_in=timedelta(seconds=8))
    stack, both = two_clocks(office)
    with stack:
        clock, other = clock_among(office, both)
        victim.append(clock)
        # The third batch was taken, and nobody can tell.
        wait_for(lambda: [issue.state for issue in issues(office.database)] == [IssueState.NEEDS_DECISION], other)
        assert clock.process.returncode == -signal.SIGKILL
        assert "this process is the clock" in other.words
        row = clock_of(office.database)
        assert row is not None
        assert int(row.holder.split("/")[1]) == other.process.pid
    assert sorted(fake.readers) == ALL
    (issue,) = issues(office.database)
    assert issue.slot == slot
    with office.database.read() as session:
        states = [copy.state for copy in session.exec(select(DeliveryRow).where(DeliveryRow.issue_id == issue.id))]
    assert sorted(states) == [DeliveryState.ACCEPTED] * (READERS - 10) + [DeliveryState.UNKNOWN] * 10


def test_a_clock_that_ends_lets_the_other_one_ring_at_once(office: World) -> None:
    open_slot(office.folder, opens_in=timedelta(days=2))
    stack, both = two_clocks(office)
    with stack:
        clock, other = clock_among(office, both)
        _ = clock.address, other.address
        assert clock.stop() == 0
        wait_for(lambda: "this process is the clock" in other.words, other)


@pytest.fixture
def filed(tmp_path: Path, empty: bytes) -> Iterator[World]:
    """A newsletter with an outbox, all of it in one folder that can be copied."""
    folder = tmp_path / "office"
    folder.mkdir()
    (folder / "friday.db").write_bytes(empty)
    made = build_world(folder, "sqlite:///friday.db", 'name = "outbox"')
    furnish(made)
    yield made
    made.database.engine.dispose()


def copy(world: World) -> Path:
    """The folder once more, as `cp -r` makes it."""
    folder = world.folder.parent / "copy"
    shutil.copytree(world.folder, folder)
    return folder


def settle(world: World) -> None:
    """Let the newsletter be served once, before its slot."""
    with served(world.folder, world.folder.parent / "first.txt") as first:
        _ = first.address
        assert first.stop() == 0


def test_a_copied_folder_starts_paused_and_says_why(filed: World) -> None:
    open_slot(filed.folder, opens_in=timedelta(hours=2))
    settle(filed)
    folder = copy(filed)
    slot = open_slot(folder)
    began = datetime.now(UTC)
    with served(folder, folder.parent / "second.txt") as second:
        assert requests.get(f"{second.address}/healthz", timeout=60).ok
        wait_for(lambda: "this newsroom has moved" in second.words, second)
        # Collecting is no sending.
        wait_for(lambda: has_rung(folder, "collect", began), second)
        run = friday(folder, "publish", slot)
        assert (run.returncode, "this newsroom has moved" in run.stderr, "friday adopt" in run.stderr) == (5, True, True)
        assert f"it was at home on {os.uname().nodename}" in run.stderr
        assert "another file of the same machine" in run.stderr
        assert second.stop() == 0
    assert mails(folder) == []
    assert issues(Database(f"sqlite:///{folder}/friday.db")) == []


def has_rung(folder: Path, name: str, since: datetime) -> bool:
    """Whether a job has run and ended since an instant."""
    database = Database(f"sqlite:///{folder}/friday.db")
    with database.read() as session:
        found = [job for job in jobs(session) if job.name == name and job.began_at > since and job.ended_at]
    database.engine.dispose()
    return bool(found)


def test_the_original_goes_on_beside_its_copy(filed: World) -> None:
    open_slot(filed.folder, opens_in=timedelta(hours=2))
    settle(filed)
    folder = copy(filed)
    open_slot(filed.folder)
    with served(filed.folder, filed.folder.parent / "second.txt") as second:
        wait_for(lambda: is_sent(filed.database), second)
    assert mails(filed.folder) == ALL
    assert mails(folder) == []


def test_an_adopted_copy_says_what_it_did_and_sends_no_slot_that_may_have_been_sent(filed: World) -> None:
    open_slot(filed.folder, opens_in=timedelta(hours=2))
    settle(filed)
    folder = copy(filed)
    slot = open_slot(folder)
    run = friday(folder, "adopt", "--yes")
    assert run.returncode == 0, run.stderr
    assert "at home here from now on" in run.stdout
    assert f"{slot} is called missed" in run.stdout
    with Database(f"sqlite:///{folder}/friday.db").read() as session:
        row = session.get_one(SlotRow, slot)
    assert (row.stance, row.by) == (Stance.MISSED, "friday adopt")
    again = friday(folder, "adopt", "--yes")
    assert (again.returncode, "nothing to adopt" in again.stderr) == (2, True)


def test_an_adopted_copy_rings_and_does_not_send_what_is_missed(filed: World) -> None:
    open_slot(filed.folder, opens_in=timedelta(hours=2))
    settle(filed)
    folder = copy(filed)
    open_slot(folder)
    assert friday(folder, "adopt", "--yes").returncode == 0
    began = datetime.now(UTC)
    with served(folder, folder.parent / "second.txt") as second:
        wait_for(lambda: has_rung(folder, "publish", began), second)
    assert mails(folder) == []


def test_a_copy_made_in_the_middle_goes_on_when_a_person_says_so(filed: World) -> None:
    slot = open_slot(filed.folder)
    settle_in_the_middle(filed)
    folder = copy(filed)
    before = mails(folder)
    run = friday(folder, "adopt", "--yes")
    assert f"{slot} is paused" in run.stdout
    began = datetime.now(UTC)
    with served(folder, folder.parent / "second.txt") as second:
        wait_for(lambda: has_rung(folder, "publish", began), second)
        assert mails(folder) == before
        assert friday(folder, "publish", slot).returncode == 5
        assert friday(folder, "resume", slot).returncode == 0
        wait_for(lambda: is_sent(Database(f"sqlite:///{folder}/friday.db")), second)
    assert mails(folder) == ALL


def settle_in_the_middle(world: World) -> None:
    """Let a first server send a part, and kill it."""
    text = (world.folder / "config.toml").read_text("utf-8")
    (world.folder / "config.toml").write_text(
        text.replace('name = "outbox"', 'name = "outbox"\nbatch_size = 5\nrate_per_second = 10'), "utf-8"
    )
    with served(world.folder, world.folder.parent / "first.txt") as first:
        wait_for(lambda: mails(world.folder), first)
    assert len(mails(world.folder)) < READERS
