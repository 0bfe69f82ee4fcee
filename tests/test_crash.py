"""Senders that are killed for real, some forty times here (`make crash` does it a thousand times), and a judge that sees."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import col, update

from pipeline.books import DeliveryRow
from pipeline.providers import names
from tests.fake_api import running
from tests.fake_api.faults import Fault
from tests.trials.crash import play
from tests.trials.judge import judge
from tests.trials.rounds import DATABASES, KINDS, Tally, rounds, settle
from tests.trials.scenarios import SCENARIOS, Scenario, killed_database
from tests.trials.server import own_server
from tests.trials.stage import Stage, Stages

pytestmark = pytest.mark.slow

SEED = 3
CRASHES = 4
MAY_TRACE = shutil.which("strace") is not None
# Without strace the rest is still worth a trial; in CI the skip is a failure.
WAYS = KINDS if MAY_TRACE else KINDS[:2]


@pytest.fixture(scope="module")
def stages(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    folder = tmp_path_factory.mktemp("trials")
    with running("--smtp") as fake:
        yield Stages(folder, fake, postgres, readers=120)


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("provider", names())
def test_however_senders_die_nobody_gets_two_copies_and_nobody_is_forgotten(
    stages: Stages, provider: str, database: str
) -> None:
    tallies = play(stages, rounds(SEED, [provider], [database], WAYS), CRASHES)
    tally = tallies[provider, database]
    assert tally.wrong == []
    assert (tally.duplicates, tally.lost) == (0, 0)
    assert tally.crashes.total() >= CRASHES


def test_system_calls_can_be_traced() -> None:
    if not MAY_TRACE:
        pytest.skip("there is no strace: the crashes at system calls were left out")


@pytest.mark.parametrize(
    ("scenario", "database"),
    [(scenario, database) for scenario in SCENARIOS for database in scenario.databases],
    ids=lambda each: each if isinstance(each, str) else each.name,
)
def test_a_misfortune_neither_doubles_nor_forgets(stages: Stages, scenario: Scenario, database: str) -> None:
    if scenario.traces and not MAY_TRACE:
        pytest.skip("there is no strace")
    assert scenario.judge(stages, "mailgun", database, str(SEED)) == []


def test_a_database_that_is_killed_neither_doubles_nor_forgets(stages: Stages, tmp_path: Path) -> None:
    with own_server() as server:
        own = Stages(tmp_path, stages.fake, server.url, readers=60)
        for whole in (False, True):
            assert killed_database(server, whole=whole).judge(own, "mailgun", "postgresql", str(SEED)) == []


@pytest.fixture
def sent(stages: Stages) -> Iterator[Stage]:
    with stages.stage("mailgun", "sqlite") as stage:
        settle(stage, Tally())
        yield stage


def write(stage: Stage, address: str | None = None, **values: Any) -> None:
    change = update(DeliveryRow).values(**values)
    if address:
        ref = next(ref for each, ref, _ in stage.copies() if each == address)
        change = change.where(col(DeliveryRow.ref) == ref)
    with stage.database() as database, database.write() as session:
        session.exec(change)


def send_again(stage: Stage) -> None:
    write(stage, stage.readers[0], state="pending", batch_id=None)
    with stage.database() as database, database.write() as session:
        session.connection().execute(text("UPDATE issues SET state = 'sending'"))
    settle(stage, Tally())


def damage(stage: Stage) -> None:
    with stage.database() as database, database.read() as session:
        session.connection().execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    file = stage.folder / "friday.db"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4_096] = b"\0" * 4_096
    file.write_bytes(bytes(content))


SEEN: dict[str, Callable[[Stage], object]] = {
    "a reader got a second copy": send_again,
    "a reference went out twice": send_again,
    "a reader is neither served nor named": lambda stage: stage.fake.reset(),
    "a copy that is told as accepted never was": lambda stage: stage.fake.reset(),
    "a copy that is told as not sent was accepted": lambda stage: write(stage, stage.readers[0], state="skipped"),
    "a reader is rejected whom the provider did not refuse": lambda stage: write(stage, stage.readers[0], state="rejected"),
    "the report and the ledger differ": lambda stage: write(stage, stage.readers[0], state="skipped"),
    "an unknown reader is not named": lambda stage: write(stage, stage.readers[0], state="unknown"),
    "a settled issue has copies on the way": lambda stage: write(stage, stage.readers[0], state="sending"),
    "the state is not that of the counts": lambda stage: write(stage, stage.readers[0], state="unknown"),
    "a copy went out under another reference than the ledger's": lambda stage: write(stage, stage.readers[0], ref="0" * 32),
    "the database is damaged": damage,
}


@pytest.mark.parametrize("what", SEEN)
def test_the_judge_sees_that(sent: Stage, what: str) -> None:
    report = settle(sent, Tally())
    assert judge(sent, report).wrong == ()
    SEEN[what](sent)
    assert what in judge(sent, report).wrong


def test_the_judge_sees_who_got_a_copy_after_leaving(sent: Stage) -> None:
    assert judge(sent, settle(sent, Tally()), left=[sent.readers[0]]).wrong == ("a reader who had left got a copy",)


def test_the_judge_sees_counts_that_do_not_add_up(sent: Stage) -> None:
    report = settle(sent, Tally())
    assert "the counts do not add up to the enrolled" in judge(sent, {**report, "enrolled": 1}).wrong


def test_the_judge_allows_no_unknown_copy_where_keys_are_honoured(stages: Stages) -> None:
    with stages.stage("outbox", "sqlite") as stage:
        report = settle(stage, Tally())
        write(stage, stage.readers[0], state="unknown")
        assert "a copy is unknown though keys are honoured" in judge(stage, report).wrong


def test_what_never_settles_is_told(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.trials.rounds.MOST_TRIES", 2)
    with stages.stage("mailgun", "sqlite") as stage:
        stage.fake.script(rates={Fault.UNAUTHORISED: 1.0})
        with pytest.raises(AssertionError, match="does not settle"):
            settle(stage, Tally())


def test_the_same_seed_plays_the_same_rounds() -> None:
    first, again = (rounds(1, ["outbox", "mailgun"], ["sqlite"]) for _ in range(2))
    names = [next(first).name for _ in range(4)]
    assert names == [next(again).name for _ in range(4)]
    assert names[:2] == ["outbox/sqlite/1/1", "mailgun/sqlite/1/1"]


def test_a_stage_on_postgresql_is_a_copy_of_its_own(stages: Stages) -> None:
    with stages.stage("outbox", "postgresql") as one, stages.stage("outbox", "postgresql") as other:
        assert one.url != other.url
        settle(one, Tally())
        assert (len(one.copies()), len(other.copies())) == (120, 0)
