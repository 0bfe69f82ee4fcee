"""A backup put in the place of an SQLite database; what was there is set aside whole, never deleted, never played into it."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import psutil
from sqlalchemy.exc import SQLAlchemyError

from pipeline import backup
from pipeline.database import MIGRATIONS, Database, sqlite_module
from pipeline.errors import UsageError
from pipeline.migrations import HEAD
from pipeline.newsroom import Newsroom, is_running

REPLACED = "replaced-%Y-%m-%dT%H%M%SZ"
BEGUN = ".friday-restore-"
# What SQLite lays beside a database, and finds again by its name alone, whatever database has that name then.
WRITES, BESIDE = ("-wal", "-journal"), ("-wal", "-shm", "-journal")
OURS = frozenset({"alembic_version", "issues", "deliveries", "subscribers"})
AT_WORK = ("SELECT holder FROM leases WHERE until > beat_at", "SELECT runner FROM batches WHERE settled_at IS NULL")
# Where SQLite locks a file (https://www.sqlite.org/fileformat2.html, "the lock-byte page"): writers these bytes, readers one
# of them, and in WAL mode whoever has it open.
LOCKS_AT, LOCKS = 0x40000000, 512
BUSY, BROKEN = (5, 6), (11, 26)


def put_back(newsroom: Newsroom, file: Path) -> Path | None:
    """Put a backup in the place of the database; the folder where lies what was there, None where nothing was.

    Whenever it is killed, the old database or the new one is in its place, and whole. The new one is made ready beside it;
    what SQLite keeps beside the old one is written into that, or taken away where it is too broken for that; the old one gets
    a second name; and one rename decides.

    Raises:
        UsageError: it is no SQLite database, the file is no sound backup of ours, or somebody is at work on the database;
            nothing was changed.
    """
    if newsroom.database.path is None:
        raise UsageError(
            "`friday restore` puts SQLite databases back; this one is a server's: use its own tools, as `pg_restore`"
        )
    # Where a link leads to: SQLite lays its own files there.
    place = newsroom.database.path.resolve()
    newsroom.database.engine.dispose()
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file")
    if place.exists() and file.samefile(place):
        raise UsageError(f"{file} is the database itself: name a backup")
    _see_that_it_rests(place)
    with _told(file), _ready(file, place, newsroom.now()) as copy:
        if place.exists():
            _finish(place)
        with _alone(place):
            aside = _set_aside(newsroom, place)
            copy.replace(place)
            backup.sync_folder(place.parent)
    return aside


@contextmanager
def _ready(file: Path, place: Path, now: datetime) -> Iterator[Path]:
    """A backup as it will be in place: seen to be sound, of our revision, of no place, and with nothing beside it."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in place.parent.glob(f"{BEGUN}*"):
        if left.stat().st_mtime < time.time() - backup.GIVEN_UP_AFTER.total_seconds():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=BEGUN, dir=place.parent))
    try:
        copy = folder / "friday.db"
        shutil.copyfile(file, copy)
        # One that was set aside may have writes of its own beside it.
        for writes in _writes(file):
            shutil.copyfile(writes, f"{copy}{writes.name.removeprefix(file.name)}")
        _see_that_it_is_ours(file, copy)
        _migrate(file, copy)
        backup.mark(copy, now)
        _finish(copy)
        copy.chmod(0o600)
        if place.exists():
            _give_to_the_owner_of(place, copy)
        backup.sync(copy)
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _see_that_it_is_ours(file: Path, copy: Path) -> None:
    if not _finish(copy):
        raise UsageError(f"{file} is no SQLite database, or a broken one; nothing was changed")
    trouble = backup.trouble(copy)
    if trouble:
        raise UsageError(f"{file} is not sound, and nothing was changed; SQLite says: {trouble}")
    with closing(sqlite_module().connect(str(copy), isolation_level=None)) as opened:
        tables = {row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables >= OURS:
            raise UsageError(f"{file} is no database of Friday's; nothing was changed")
        revisions = [str(row[0]) for row in opened.execute("SELECT version_num FROM alembic_version")]
    known = {path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("*.py")}
    if len(revisions) != 1 or not known.issuperset(revisions):
        found = ", ".join(revisions) or "none"
        raise UsageError(f"{file} is of revision {found}, and this version of Friday knows up to {HEAD}; nothing was changed")


def _migrate(file: Path, copy: Path) -> None:
    """Bring it to the current revision, or it could not be marked: one of an older revision knows of no place."""
    database = Database(f"sqlite:///{quote(str(copy))}")
    try:
        database.migrate()
    except SQLAlchemyError as error:
        raise UsageError(f"{file} cannot be brought to revision {HEAD}, and nothing was changed: {error}") from None
    finally:
        database.engine.dispose()


def _finish(path: Path) -> bool:
    """Let SQLite write into a database what lies beside it, so that it is whole by itself; False if it is too broken.

    Raises:
        UsageError: another process uses it.
    """
    module = sqlite_module()
    try:
        with closing(module.connect(str(path), timeout=0, isolation_level=None)) as opened:
            # Rolls an interrupted transaction back.
            opened.execute("SELECT count(*) FROM sqlite_master").fetchone()
            opened.execute("PRAGMA journal_mode = DELETE").fetchone()
    except module.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in BUSY:
            raise _busy(path) from None
        if code in BROKEN:
            return False
        raise
    return True


def _see_that_it_rests(place: Path) -> None:
    """See that no clock and no sender of this machine is at work on a database; a broken one cannot tell.

    Raises:
        UsageError: one is.
    """
    if not place.exists():
        return
    here, module = os.uname().nodename, sqlite_module()
    found: set[str] = set()
    address = f"file:{quote(str(place))}?mode=ro"
    with suppress(module.Error), closing(module.connect(address, uri=True, timeout=0)) as opened:
        for query in AT_WORK:
            # An older revision has no such table.
            with suppress(module.Error):
                found |= {str(row[0]) for row in opened.execute(query)}
    running = sorted(runner for runner in found if runner.partition("/")[0] == here and is_running(runner))
    if running:
        number = running[0].split("/")[1]
        raise UsageError(f"`friday serve` or a sender is at work on this database (process {number}): stop it first")


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep others out of a database.

    Raises:
        UsageError: another process writes to it, or has it open.
    """
    if not place.exists():
        yield
        return
    with place.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCKS, LOCKS_AT)
        except OSError:
            raise _busy(place) from None
        # With a rollback journal who does nothing at the moment holds no lock, and would go on with what is set aside.
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and str(place) in {each.path for each in process.open_files()}:
                    raise UsageError(f"process {process.pid} has {place} open: stop it first; nothing was changed")
        yield


def _busy(place: Path) -> UsageError:
    return UsageError(f"another process is using {place}: stop it first; nothing was changed")


def _writes(path: Path) -> list[Path]:
    """What lies beside a database and belongs into it."""
    return [beside for beside in map(Path, (f"{path}{end}" for end in WRITES)) if beside.exists() and beside.stat().st_size]


def _set_aside(newsroom: Newsroom, place: Path) -> Path | None:
    """Give a database a second name in a folder of its own, and move what is left beside it there."""
    beside = [each for each in map(Path, (f"{place}{end}" for end in BESIDE)) if each.exists()]
    if not beside and not place.exists():
        return None
    backups = newsroom.config.backups
    backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = backups / newsroom.now().astimezone(UTC).strftime(REPLACED)
    aside.mkdir(mode=0o700)
    if place.exists():
        _name_again(place, aside / place.name)
    for each in beside:
        shutil.move(each, aside / each.name)
    for folder in (aside, backups):
        backup.sync_folder(folder)
    return aside


def _name_again(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:
        # On another file system, or one that knows no second names.
        shutil.copy2(path, other)
        backup.sync(other)


def _give_to_the_owner_of(place: Path, copy: Path) -> None:
    """Who restores may be the superuser, and who serves is not."""
    owner = place.stat()
    if (owner.st_uid, owner.st_gid) != (copy.stat().st_uid, copy.stat().st_gid):
        with suppress(PermissionError):
            os.chown(copy, owner.st_uid, owner.st_gid)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise UsageError(f"{file} cannot be put in place of the database{where}: {error.strerror or error}") from None
    except sqlite_module().Error as error:
        raise UsageError(f"{file} cannot be put in place of the database: SQLite says: {error}") from None
