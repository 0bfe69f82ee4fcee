"""Both kinds of database: what a session promises, what is stored, and how the tables come about."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Engine, create_engine, func, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlmodel import SQLModel, col, select

from pipeline import database as module
from pipeline.books import DeliveryRow
from pipeline.database import MIGRATIONS, Database
from pipeline.errors import ConfigError
from pipeline.migrations import HEAD
from subscribers.models import Subscriber, Suppression
from tests.conftest import ROOT

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
TABLES = set(SQLModel.metadata.tables)


@pytest.fixture
def database(bare_database_url: str) -> Iterator[Database]:
    """A migrated database of each kind."""
    made = Database(bare_database_url)
    made.migrate()
    yield made
    made.engine.dispose()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Database]:
    """A migrated SQLite database."""
    made = Database(f"sqlite:///{tmp_path}/friday.db")
    made.migrate()
    yield made
    made.engine.dispose()


def suppression(key: str = "a@example.com", since: datetime = NOW) -> Suppression:
    return Suppression(key=key, why="manual", since=since)


def number(database: Database) -> int:
    with database.read() as session:
        return session.exec(select(func.count()).select_from(Suppression)).one()


def pragmas(engine: Engine) -> dict[str, Any]:
    names = ("foreign_keys", "busy_timeout", "journal_mode", "synchronous")
    with engine.connect() as connection:
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}


@pytest.mark.parametrize(("fixed", "journal", "synchronous"), [(True, "wal", 2), (False, "delete", 3)])
def test_every_connection_follows_the_sqlite_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fixed: bool, journal: str, synchronous: int
) -> None:
    monkeypatch.setattr(module, "_has_wal_fix", lambda _version: fixed)
    database = Database(f"sqlite:///{tmp_path}/friday.db")
    wanted = {"foreign_keys": 1, "busy_timeout": 10_000, "journal_mode": journal, "synchronous": synchronous}
    with database.engine.connect():
        # The pool has to make a second one beside the first.
        assert pragmas(database.engine) == wanted
    assert pragmas(database.engine.execution_options(writes=True)) == wanted
    database.engine.dispose()


def test_the_journal_is_wal_just_where_this_sqlite_has_the_fix(local: Database) -> None:
    fixed = module._has_wal_fix(module.sqlite_module().sqlite_version_info)
    assert pragmas(local.engine)["journal_mode"] == ("wal" if fixed else "delete")


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ((3, 51, 3), True), ((3, 51, 2), False), ((3, 51, 0), False), ((3, 52, 0), True), ((4, 0, 0), True),
        ((3, 50, 7), True), ((3, 50, 6), False), ((3, 44, 6), True), ((3, 44, 5), False), ((3, 45, 0), False),
    ],
)  # fmt: skip
def test_wal_is_trusted_from_the_releases_with_the_fix_on(version: tuple[int, int, int], *, fixed: bool) -> None:
    assert module._has_wal_fix(version) is fixed


def test_a_naive_datetime_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="naive datetime"), database.write() as session:
        session.add(suppression(since=NOW.replace(tzinfo=None)))
    assert number(database) == 0


def test_an_aware_datetime_comes_back_aware_in_utc(database: Database) -> None:
    berlin = datetime(2026, 7, 1, 9, 30, 15, 123456, tzinfo=ZoneInfo("Europe/Berlin"))
    with database.write() as session:
        session.add(suppression(since=berlin))
    with database.read() as session:
        since = session.get_one(Suppression, "a@example.com").since
    assert since == berlin
    assert since.isoformat() == "2026-07-01T07:30:15.123456+00:00"


def test_moments_compare_in_the_database_as_they_do_in_the_world(database: Database) -> None:
    early = NOW.astimezone(ZoneInfo("Pacific/Auckland"))
    with database.write() as session:
        session.add_all([suppression("early", early), suppression("late", NOW + timedelta(microseconds=1))])
    with database.read() as session:
        query = select(Suppression.key).where(col(Suppression.since) <= NOW.astimezone(ZoneInfo("America/Los_Angeles")))
        assert session.exec(query).all() == ["early"]


def test_no_moment_is_nothing(local: Database) -> None:
    with local.write() as session:
        session.add(Subscriber(address="a@example.com", key="a@example.com", joined=NOW, left=None))
    with local.read() as session:
        assert session.exec(select(Subscriber)).one().left is None


def test_four_writers_that_read_first_lose_nothing(local: Database) -> None:
    with local.write() as session:
        session.add(Suppression(key="count", why="manual", note="0", since=NOW))
    together = threading.Barrier(4)
    trouble: list[Exception] = []

    def count_up() -> None:
        try:
            together.wait(60)
            for _ in range(40):
                with local.write() as session:
                    row = session.get_one(Suppression, "count")
                    row.note = str(int(row.note) + 1)
        except DBAPIError as error:
            trouble.append(error)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert trouble == []
    with local.read() as session:
        assert session.get_one(Suppression, "count").note == "160"


def test_a_reader_sees_no_half_done_write(database: Database) -> None:
    with database.write() as session:
        session.add(suppression("a"))
        session.flush()
        assert number(database) == 0
        session.add(suppression("b"))
        session.flush()
        assert number(database) == 0
    assert number(database) == 2


def test_a_reader_sees_one_state_though_somebody_writes_meanwhile(database: Database) -> None:
    if "sqlite" in database.url and pragmas(database.engine)["journal_mode"] == "delete":
        pytest.skip("without WAL a writer waits for the readers")
    count = select(func.count()).select_from(Suppression)
    with database.read() as session:
        assert session.exec(count).one() == 0
        with database.write() as other:
            other.add(suppression())
        assert session.exec(count).one() == 0
    assert number(database) == 1


def test_a_reader_leaves_no_trace(local: Database) -> None:
    with local.read() as session:
        session.add(suppression())
        session.flush()
    assert number(local) == 0


def test_a_write_that_breaks_off_leaves_nothing(database: Database) -> None:
    def half() -> None:
        with database.write() as session:
            session.add(suppression("a"))
            session.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert number(database) == 0


def test_what_was_read_can_be_used_after_the_session(local: Database) -> None:
    with local.write() as session:
        row = suppression()
        session.add(row)
    assert row.key == "a@example.com"


def test_foreign_keys_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(DeliveryRow(issue_id=999, ref="r", state="pending", changed_at=NOW))


def test_a_state_that_there_is_not_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Subscriber(address="a@example.com", key="a@example.com", state="asleep", joined=NOW))


# Nobody can read an index of an expression back from SQLite; the next test sees to those.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_the_migrations_give_exactly_the_tables_of_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []
        inspector = inspect(connection)
        assert set(inspector.get_table_names()) == {*TABLES, "alembic_version"}
        for table in TABLES:
            # Alembic compares no checks and, on SQLite, not all that a foreign key does.
            there = {str(check["name"]): states(str(check["sqltext"])) for check in inspector.get_check_constraints(table)}
            made = SQLModel.metadata.tables[table]
            checks = [each for each in made.constraints if isinstance(each, CheckConstraint)]
            assert there == {str(each.name): states(str(each.sqltext)) for each in checks}
            rules = {
                (key["constrained_columns"][0], key["options"].get("ondelete")) for key in inspector.get_foreign_keys(table)
            }
            assert rules == {(key.parent.name, key.ondelete) for key in made.foreign_keys}


def test_the_migrations_give_exactly_the_indexes_of_the_models_on_sqlite(local: Database) -> None:
    made = create_engine("sqlite://")
    SQLModel.metadata.create_all(made)
    asked = "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    with local.engine.connect() as migrated, made.connect() as modelled:
        assert sorted(migrated.exec_driver_sql(asked).scalars()) == sorted(modelled.exec_driver_sql(asked).scalars())
    made.dispose()


def states(sql: str) -> set[str]:
    """The values that a check names, however a database spells it."""
    return set(sql.split("'")[1::2])


def test_migrating_twice_changes_nothing(database: Database) -> None:
    with database.write() as session:
        session.add(suppression())
    database.migrate()
    # As another process would, which remembers nothing.
    again = Database(database.url)
    again.migrate()
    again.engine.dispose()
    assert database.revision == HEAD
    assert number(database) == 1


def test_a_migration_that_fails_halfway_leaves_nothing(bare_database_url: str) -> None:
    database = Database(bare_database_url)
    with database.engine.begin() as connection:
        # The last of the tables that the first revision makes.
        connection.execute(text("CREATE TABLE deliveries (id INTEGER)"))
    with pytest.raises(DBAPIError, match="already exists"):
        database.migrate()
    assert database.revision is None
    assert inspect(database.engine).get_table_names() == ["deliveries"]
    database.engine.dispose()


MIGRATE = """
import sys
import alembic.command
from pipeline.database import Database
database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
database.migrate()
print(database.revision)
"""


@pytest.mark.slow
def test_two_processes_may_migrate_at_once(bare_database_url: str) -> None:
    command = [sys.executable, "-c", MIGRATE, bare_database_url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ExitStack() as stack:
        started = [stack.enter_context(subprocess.Popen(command, cwd=ROOT, text=True, **pipes)) for _ in range(2)]
        for each in started:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in started:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        ended = [(*each.communicate(timeout=60), each.returncode) for each in started]
    assert ended == [(f"{HEAD}\n", "", 0)] * 2


def test_a_database_that_somebody_is_writing_at_is_waited_for_from_the_first_moment(tmp_path: Path) -> None:
    # What another process does to a new file in the instant before its journal becomes WAL.
    other = module.sqlite_module().connect(str(tmp_path / "friday.db"), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE theirs (id INTEGER)")
    done = threading.Timer(0.2, other.execute, ["COMMIT"])
    done.start()
    database = Database(f"sqlite:///{tmp_path}/friday.db")
    try:
        database.migrate()
        assert database.revision == HEAD
    finally:
        done.join()
        other.close()
        database.engine.dispose()


def test_a_migration_makes_the_folder_of_the_database(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/new/folder/friday.db")
    database.migrate()
    assert database.revision == HEAD
    database.engine.dispose()


def test_the_head_is_alembics_own() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_asking_for_the_revision_makes_no_file(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/friday.db")
    assert database.revision is None
    with pytest.raises(ConfigError, match="no tables yet"):
        database.require()
    assert list(tmp_path.iterdir()) == []


def test_what_must_be_done_is_said_where_tables_are_missing_or_old(bare_database_url: str) -> None:
    database = Database(bare_database_url)
    with pytest.raises(ConfigError) as missing:
        database.require()
    (problem,) = missing.value.problems
    assert (problem.where, problem.what) == ("database.url", "the database has no tables yet")
    assert "`friday collect`" in problem.cure
    database.migrate()
    database.require()
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(ConfigError) as old:
        database.require()
    (problem,) = old.value.problems
    assert problem.what == f"the database is at revision 0000 and this version of Friday needs {HEAD}"
    assert "`friday collect`" in problem.cure
    database.engine.dispose()
