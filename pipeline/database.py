"""The engine, read and write sessions, the SQLite rules and the aware-UTC column."""

import importlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, DateTime, Dialect, Engine, TypeDecorator, create_engine, event, inspect, make_url, text
from sqlmodel import Session

from pipeline.errors import ConfigError, Problem

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_MS = 10_000
# Any constant does; it keeps two processes from migrating one PostgreSQL database at once.
_MIGRATION_LOCK = 714_902_26


class Utc(TypeDecorator[datetime]):
    """An aware datetime, stored as UTC; SQLite would hand it back naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Refuse what has no zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a naive datetime cannot be stored")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        """Give back an aware datetime in UTC."""
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


@dataclass(frozen=True)
class Database:
    """A database by URL. Nothing is opened before the first session."""

    url: str = field(repr=False)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of our own, and no server's."""
        return make_url(self.url).get_backend_name() == "sqlite"

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database."""
        name = make_url(self.url).database
        return Path(name) if self.is_sqlite and name else None

    @cached_property
    def engine(self) -> Engine:
        """The engine, with the SQLite rules applied where it is SQLite. Its errors show no values: they are addresses."""
        if self.is_sqlite:
            return _sqlite_engine(self.url)
        return create_engine(self.url, pool_pre_ping=True, hide_parameters=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that looks: it sees one state of the database and leaves no trace."""
        engine = self.engine
        if engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with Session(engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end, or nothing at all; writers of SQLite take turns from its first statement."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    @cached_property
    def _writing(self) -> Engine:
        return self.engine.execution_options(writes=True)

    @property
    def revision(self) -> str | None:
        """The migration that the database is at; None where it has no tables yet."""
        if self.is_sqlite and not (self.path and self.path.exists()):
            return None
        with self.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def require(self) -> None:
        """See that the tables are there and current, without touching them.

        Raises:
            ConfigError: they are not.
        """
        from pipeline.migrations import HEAD

        if self.revision is None:
            raise ConfigError([Problem("database.url", "the database has no tables yet", "run `friday collect` first")])
        if self.revision != HEAD:
            what = f"the database is at revision {self.revision} and this version of Friday needs {HEAD}"
            raise ConfigError([Problem("database.url", what, "run `friday collect`, which migrates it")])

    def scrub(self) -> None:
        """Leave nothing behind of what was deleted, as far as the database lets us say so.

        SQLite overwrites it, and is made to take over and empty its log; a reader at this moment keeps the log for
        the next time. PostgreSQL frees it at once instead of some time later.
        """
        if self.engine.dialect.name == "postgresql":
            with self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                connection.execute(text("VACUUM"))
            return
        # Not in a transaction, which a connection of SQLAlchemy's would begin.
        with closing(self.engine.raw_connection()) as raw:
            raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def copy_to(self, path: Path) -> None:
        """Write what an SQLite database holds now into a file that is empty or not there; pages that were freed stay behind."""
        # Not in a transaction, which a connection of SQLAlchemy's would begin.
        with closing(self.engine.raw_connection()) as raw:
            raw.cursor().execute("VACUUM INTO ?", (str(path),))

    def migrate(self) -> None:
        """Bring the tables to the current revision, all of it or nothing; one process at a time."""
        from pipeline.migrations import HEAD

        if self.revision == HEAD:
            return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._writing.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _sqlite_engine(url: str) -> Engine:
    module = sqlite_module()
    engine = create_engine(url, module=module, hide_parameters=True)
    # WAL before these releases can corrupt a database with two connections (https://www.sqlite.org/wal.html).
    wal = _has_wal_fix(module.sqlite_version_info)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        # The driver must not begin transactions by itself: its deferred ones lose updates silently.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        _set_journal(connection, "wal" if wal else "delete")
        connection.execute(f"PRAGMA synchronous = {'FULL' if wal else 'EXTRA'}")
        connection.execute("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten: whoever is erased is not to be read out of the file.
        connection.execute("PRAGMA secure_delete = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _set_journal(connection: Any, mode: str) -> None:
    # Changing the mode does not wait for a writer as everything else does, so it is tried for as long.
    ends = time.monotonic() + BUSY_MS / 1000
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != mode:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
        except Exception:
            if time.monotonic() > ends:
                raise
            time.sleep(0.02)


def sqlite_module() -> ModuleType:
    """The newest SQLite at hand."""
    try:
        return importlib.import_module("pysqlite3")
    except ImportError:
        return sqlite3


def _has_wal_fix(version: tuple[int, ...]) -> bool:
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
