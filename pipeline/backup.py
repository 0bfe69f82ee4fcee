"""Copies of an SQLite database: whole or not there at all, seen to be sound, for their owner's eyes only."""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from pipeline import place
from pipeline.database import Database, sqlite_module
from pipeline.errors import UsageError
from pipeline.newsroom import Newsroom

NAME = re.compile(r"friday-\d{4}-\d\d-\d\dT\d{6}Z\.db")
FORM = "friday-%Y-%m-%dT%H%M%SZ.db"
BEGUN = ".friday-backup-"
# Nobody copies for longer.
GIVEN_UP_AFTER = timedelta(hours=6)


def write(database: Database, file: Path, now: datetime) -> int:
    """Copy a database into a new file; how many bytes it has.

    A copy that is put in the place of a database is one that was restored: it sends nothing until it is adopted.

    Raises:
        UsageError: it is no SQLite database, or the file cannot be written, or is there already; nothing is left behind.
    """
    if not database.is_sqlite:
        raise UsageError("`friday backup` copies SQLite databases; this one is a server's: use `pg_dump --format=custom`")
    if file.exists() or file.is_symlink():
        raise UsageError(f"{file} is there already, and is not overwritten: name another")
    with _told(file):
        with _begun(file.parent) as copy:
            database.copy_to(copy)
            mark(copy, now)
            _see_that_it_is_sound(copy)
            size = sync(copy)
            _call(copy, file)
        sync_folder(file.parent)
    return size


def latest(folder: Path, now: datetime) -> datetime | None:
    """When the newest of the copies in a folder was made, by its name; one from the future was made by a wrong clock."""
    return max(map(_made_at, _kept(folder, now)), default=None)


def next_at(newsroom: Newsroom) -> datetime | None:
    """When the next copy is due, which may be past; None where none is made."""
    plan = newsroom.config.backup
    if not plan.keep or not newsroom.database.is_sqlite:
        return None
    now = newsroom.now()
    last = latest(newsroom.config.backups, now)
    return last + timedelta(hours=plan.every_hours) if last else now


def make_due(newsroom: Newsroom) -> Path | None:
    """Make the copy that is due and delete those that are no longer kept; None if none is due.

    Raises:
        UsageError: it cannot be made; those that there are stay.
    """
    due, now = next_at(newsroom), newsroom.now()
    if due is None or due > now:
        return None
    folder = newsroom.config.backups
    file = folder / now.astimezone(UTC).strftime(FORM)
    with _told(file):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _forget_given_up(folder)
    write(newsroom.database, file, now)
    with _told(file):
        for old in _kept(folder, now)[: -newsroom.config.backup.keep]:
            old.unlink(missing_ok=True)
    return file


def _kept(folder: Path, now: datetime) -> list[Path]:
    """The copies in a folder, oldest first. Those from the future are no business of ours: none counts, or is deleted."""
    if not folder.is_dir():
        return []
    named = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    return [path for path in named if _made_at(path) <= now]


def _made_at(copy: Path) -> datetime:
    return datetime.strptime(copy.name, FORM).replace(tzinfo=UTC)


@contextmanager
def _begun(folder: Path) -> Iterator[Path]:
    """An empty file that nobody else may read, and that is gone at the end."""
    number, name = tempfile.mkstemp(prefix=BEGUN, dir=folder)
    os.close(number)
    try:
        yield Path(name)
    finally:
        # With what SQLite may have laid beside it.
        for path in folder.glob(f"{Path(name).name}*"):
            path.unlink(missing_ok=True)


def _forget_given_up(folder: Path) -> None:
    """Delete what a process that was killed has left behind."""
    before = time.time() - GIVEN_UP_AFTER.total_seconds()
    for path in folder.glob(f"{BEGUN}*"):
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)


def trouble(copy: Path) -> str:
    """What SQLite finds to be wrong with a copy; nothing if it is sound."""
    with closing(sqlite_module().connect(f"file:{quote(str(copy))}?mode=ro", uri=True)) as opened:
        said = [str(row[0]) for row in opened.execute("PRAGMA quick_check")]
    return "" if said == ["ok"] else "; ".join(said[:3])


def _see_that_it_is_sound(copy: Path) -> None:
    found = trouble(copy)
    if found:
        raise UsageError(f"the copy is not sound, so it was thrown away; SQLite says: {found}")


def mark(copy: Path, now: datetime) -> None:
    """Let it be at home nowhere, since a file that is copied into the very place of its database would not be noticed."""
    with closing(sqlite_module().connect(str(copy), isolation_level=None)) as opened:
        if not opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'places'").fetchall():
            return
        found = opened.execute("SELECT identity FROM places").fetchall()
        identity = place.as_backup(found[0][0] if found else "")
        marking = "INSERT INTO places VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE SET identity = excluded.identity"
        opened.execute(marking, (identity, f"{now.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"))


def _call(copy: Path, file: Path) -> None:
    """Give the finished copy its name, unless another process has given it to something else meanwhile."""
    try:
        os.link(copy, file)
    except FileExistsError:
        raise
    except OSError:
        # Not every file system knows a second name for a file.
        if file.exists():
            raise
        copy.rename(file)


def sync(path: Path) -> int:
    """See that a file is on the disk; how many bytes it has."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def sync_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"{file}: there is no folder {file.parent}: make it, or name another") from None
    except OSError as error:
        raise UsageError(f"{file}: the copy cannot be written: {error.strerror or error}") from None
    except sqlite_module().Error as error:
        raise UsageError(f"{file}: the copy cannot be made: SQLite says: {error}") from None
