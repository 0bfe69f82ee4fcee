"""The real server at another time, which stands until a test moves it: a Friday, both changes of the clocks, a night off."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import gate, lease
from pipeline.books import IssueState, SlotRow, Stance
from pipeline.database import Database
from pipeline.schedule import WEEKDAYS
from tests.conftest import World, build_world
from tests.served import Served, issues, mails, served, wait_for

pytestmark = pytest.mark.slow

ALL = ["ada@example.com", "ben@example.com", "cleo@example.com"]
# By the server's own clock: from the slot until it has surely begun, and until it has rung again. A lease outlasts both steps.
SOON = timedelta(minutes=30)
AGAIN = timedelta(seconds=75)
BEFORE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def library() -> Path:
    """What lets a process see another time (Debian's package libfaketime)."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("no libfaketime: tests/trials/install.sh installs it")
    return found[0]


@dataclass(frozen=True)
class Office:
    """A newsletter with an outbox, three readers, and stories of the week before a slot."""

    world: World
    library: Path

    @property
    def folder(self) -> Path:
        return self.world.folder

    @contextmanager
    def served_at(self, start: datetime) -> Iterator[Served]:
        """A server for which it is a certain time, until it is told another."""
        self._say(f"{start:%Y-%m-%d %H:%M:%S}")
        faked = {"LD_PRELOAD": str(self.library), "FAKETIME_TIMESTAMP_FILE": str(self._time), "FAKETIME_CACHE_DURATION": "1"}
        # The clock by which threads wait is left as it is, or they would wait for too long or not at all.
        faked |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "TZ": "UTC"}
        with served(self.folder, self.folder / "said.txt", **faked) as running:
            _ = running.address
            yield running
            assert running.stop() == 0, running.words

    def let_it_be(self, at: datetime) -> None:
        """Move the server's clock, which goes on from there."""
        self._say(f"{(at - datetime.now(UTC)).total_seconds():+.3f}")

    def _say(self, when: str) -> None:
        new = self.folder / "time.new"
        new.write_text(f"{when}\n", "utf-8")
        new.rename(self._time)

    @property
    def _time(self) -> Path:
        return self.folder / "time"

    def plan(self, day: date, at: str, opens: datetime) -> None:
        """Have a weekly slot on the weekday of a day, and stories of the week before it."""
        config = self.folder / "config.toml"
        schedule = f'[schedule]\nweekday = "{WEEKDAYS[day.weekday()]}"\nat = {at}:00\n'
        config.write_text(config.read_text("utf-8").replace("[schedule]\n", schedule), "utf-8")
        self.world.clock.at = opens - timedelta(hours=1)
        self.world.tell_a_week(before=opens - timedelta(hours=1))

    def has_passed(self, at: datetime) -> bool:
        """Whether the server has looked at its slots since then, by its own clock."""
        with self.world.database.read() as session:
            row = lease.last(session, gate.AWAKE)
        return row is not None and row.beat_at >= at


def is_sent(database: Database) -> bool:
    return [issue.state for issue in issues(database)] == [IssueState.SENT]


@pytest.fixture
def office(tmp_path: Path, empty: bytes, library: Path) -> Iterator[Office]:
    (tmp_path / "friday.db").write_bytes(empty)
    made = build_world(tmp_path, f"sqlite:///{tmp_path}/friday.db")
    made.subscribe("ada", "ben", "cleo")
    yield Office(made, library)
    made.database.engine.dispose()


OPENS = datetime(2026, 11, 27, 8, tzinfo=UTC)
FRIDAY, FOLD = date(2026, 11, 27), date(2026, 10, 25)
# In Berlin the clocks go forward on 29 March 2026, and back on 25 October.
CROSSINGS = {
    "a Friday": (FRIDAY, "09:00", OPENS),
    "the Friday before they go forward": (date(2026, 3, 27), "09:00", datetime(2026, 3, 27, 8, tzinfo=UTC)),
    "in the hour that is left out": (date(2026, 3, 29), "02:30", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    "the Friday after": (date(2026, 4, 3), "09:00", datetime(2026, 4, 3, 7, tzinfo=UTC)),
    "the Friday before they go back": (date(2026, 10, 23), "09:00", datetime(2026, 10, 23, 7, tzinfo=UTC)),
    "in the hour that comes twice": (FOLD, "02:30", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    "the Friday after that": (date(2026, 10, 30), "09:00", datetime(2026, 10, 30, 8, tzinfo=UTC)),
}


@pytest.mark.parametrize("case", CROSSINGS)
def test_a_server_that_runs_over_a_slot_sends_one_issue(office: Office, case: str) -> None:
    day, at, opens = CROSSINGS[case]
    office.plan(day, at, opens)
    with office.served_at(opens - BEFORE) as running:
        assert issues(office.world.database) == []
        office.let_it_be(opens + timedelta(seconds=1))
        wait_for(lambda: is_sent(office.world.database), running)
        office.let_it_be(opens + AGAIN)
        wait_for(lambda: office.has_passed(opens + AGAIN), running)
        assert f"Next: the slot {day} opens at" in running.words
        assert f"({opens:%Y-%m-%d %H:%M} UTC)" in running.words
    (issue,) = issues(office.world.database)
    assert issue.slot == day.isoformat()
    assert issue.enrolled_at is not None
    assert timedelta(0) <= issue.enrolled_at - opens < SOON
    assert mails(office.folder) == ALL


def test_the_hour_that_comes_again_brings_no_second_issue(office: Office) -> None:
    day, at, opens = FOLD, "02:30", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    office.plan(day, at, opens)
    with office.served_at(opens + timedelta(seconds=1)) as running:
        office.let_it_be(opens + AGAIN)
        wait_for(lambda: is_sent(office.world.database), running)
    sent = issues(office.world.database)
    again = opens + timedelta(hours=1)
    with office.served_at(again - BEFORE) as running:
        office.let_it_be(again + timedelta(seconds=1))
        wait_for(lambda: office.has_passed(again), running)
        office.let_it_be(again + AGAIN)
        wait_for(lambda: office.has_passed(again + AGAIN), running)
        assert "Last: issue 1 of 2026-10-25 is sent." in running.words
    assert issues(office.world.database) == sent
    assert mails(office.folder) == ALL


def test_a_machine_that_was_off_sends_within_the_grace(office: Office) -> None:
    office.plan(FRIDAY, "09:00", OPENS)
    with office.served_at(OPENS + timedelta(hours=5)) as running:
        office.let_it_be(OPENS + timedelta(hours=5) + AGAIN)
        wait_for(lambda: is_sent(office.world.database), running)
        assert "Due: the slot 2026-11-27 opened at 09:00 CET" in running.words
    (issue,) = issues(office.world.database)
    assert issue.enrolled_at is not None
    assert timedelta(hours=5) <= issue.enrolled_at - OPENS < timedelta(hours=5) + SOON
    assert mails(office.folder) == ALL


def off_over_the_slot(office: Office) -> str:
    """Let a server run before the slot and another one after its grace; what the second one said."""
    office.plan(FRIDAY, "09:00", OPENS)
    before, after = OPENS - timedelta(hours=12), OPENS + timedelta(hours=7)
    with office.served_at(before) as running:
        office.let_it_be(before + AGAIN)
        wait_for(lambda: office.has_passed(before + AGAIN), running)
    with office.served_at(after) as running:
        office.let_it_be(after + AGAIN)
        wait_for(lambda: office.has_passed(after + AGAIN), running)
        return running.words


def test_a_machine_that_was_off_for_longer_sends_nothing_late(office: Office) -> None:
    said = off_over_the_slot(office)
    assert "Next: the slot 2026-12-04" in said
    assert issues(office.world.database) == []
    assert mails(office.folder) == []


def test_and_names_the_slot_that_it_missed(office: Office) -> None:
    said = off_over_the_slot(office)
    with office.world.database.read() as session:
        row = session.get(SlotRow, "2026-11-27")
    assert row is not None
    assert row.stance == Stance.MISSED
    assert "2026-11-27" in said
    assert "missed" in said
