"""Backups: whole, sound, for their owner's eyes, as many as are kept, and of no place until they are adopted."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline import backup, person, place
from pipeline.books import JobRow, PlaceRow
from pipeline.config import Backup
from pipeline.database import Database, sqlite_module
from pipeline.errors import DecisionNeeded, UsageError
from pipeline.jobs import jobs
from pipeline.newsroom import Newsroom
from pipeline.publish import publish
from pipeline.serve import Watch, hung
from tests.conftest import FRIDAY, World

ADA = "ada@example.com"


def kept(world: World) -> list[str]:
    return sorted(path.name for path in (world.folder / "backups").iterdir())


def planned(world: World, every_hours: float = 24, keep: int = 7) -> Newsroom:
    return replace(world.newsroom, config=replace(world.newsroom.config, backup=Backup(every_hours=every_hours, keep=keep)))


def addresses(file: Path) -> list[str]:
    with closing(sqlite_module().connect(str(file))) as opened:
        return [row[0] for row in opened.execute("SELECT address FROM subscribers ORDER BY id")]


def test_a_backup_holds_everything_and_is_for_its_owner_alone(local_world: World) -> None:
    local_world.subscribe("ada", "ben")
    file = local_world.folder / "copy.db"
    size = backup.write(local_world.database, file, local_world.clock())
    assert addresses(file) == [ADA, "ben@example.com"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_size == size
    assert [path.name for path in local_world.folder.glob(".friday-backup-*")] == []
    assert Database(f"sqlite:///{file}").revision == local_world.database.revision


def test_it_is_made_while_others_write(local_world: World) -> None:
    with local_world.database.write() as session:
        session.add(JobRow(name="other", began_at=FRIDAY))
        session.flush()
        backup.write(Database(local_world.database.url), local_world.folder / "copy.db", FRIDAY)
    with closing(sqlite_module().connect(str(local_world.folder / "copy.db"))) as opened:
        assert opened.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_is_left_to_its_own_tools(world: World) -> None:
    with pytest.raises(UsageError, match="pg_dump"):
        backup.write(world.database, world.folder / "copy.db", world.clock())
    assert backup.make_due(world.newsroom) is None
    assert not (world.folder / "backups").exists()


def test_nothing_is_overwritten(local_world: World) -> None:
    file = local_world.folder / "copy.db"
    file.write_text("mine", "ascii")
    with pytest.raises(UsageError, match="is there already"):
        backup.write(local_world.database, file, local_world.clock())
    assert file.read_text("ascii") == "mine"


def test_nor_is_what_another_process_puts_there_meanwhile(local_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    file = local_world.folder / "copy.db"
    monkeypatch.setattr(backup, "mark", lambda *_: file.write_text("mine", "ascii"))
    with pytest.raises(UsageError, match=r"copy\.db: the copy cannot be written: File exists"):
        backup.write(local_world.database, file, local_world.clock())
    assert file.read_text("ascii") == "mine"


def test_a_file_system_without_second_names_gets_it_too(local_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    backup.write(local_world.database, local_world.folder / "copy.db", local_world.clock())
    assert addresses(local_world.folder / "copy.db") == []
    assert list(local_world.folder.glob(".friday-backup-*")) == []


def test_a_missing_folder_is_named(local_world: World) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*/nowhere: make it, or name another"):
        backup.write(local_world.database, local_world.folder / "nowhere/copy.db", local_world.clock())


def test_a_full_disk_leaves_nothing_behind(local_world: World) -> None:
    # A child, since the limit on the size of files is for a whole process.
    code = """
import resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from pipeline.backup import write
from pipeline.database import Database
from pipeline.errors import UsageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
database = Database(sys.argv[1])
database.revision
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write(database, Path(sys.argv[2]), datetime.now(UTC))
except UsageError as error:
    print(error)
"""
    folder = local_world.folder / "full"
    folder.mkdir()
    command = [sys.executable, "-c", code, local_world.database.url, str(folder / "copy.db")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "copy.db: the copy cannot be made: SQLite says: " in said.stdout, said
    assert list(folder.iterdir()) == []


def test_a_copy_that_is_not_sound_is_thrown_away(local_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(_database: Database, copy: Path) -> None:
        shutil.copy(local_world.folder / "friday.db", copy)
        with copy.open("r+b") as file:
            file.seek(2 * 4096)
            file.write(b"\xff" * 8192)

    monkeypatch.setattr(Database, "copy_to", spoil)
    monkeypatch.setattr(backup, "mark", lambda *_: None)
    folder = local_world.folder / "spoilt"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"not sound|SQLite says"):
        backup.write(local_world.database, folder / "copy.db", local_world.clock())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["News #1", "What now?", "100%20 percent", "a b"])
def test_a_copy_is_looked_at_in_a_folder_of_any_name(local_world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = local_world.folder / name
    folder.mkdir()
    backup.write(local_world.database, folder / "copy.db", local_world.clock())
    assert [path.name for path in folder.iterdir()] == ["copy.db"]
    assert [path.name for path in local_world.folder.iterdir() if path.name.startswith(name[:3])] == [name]

    def spoil(_database: Database, copy: Path) -> None:
        copy.write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)

    monkeypatch.setattr(Database, "copy_to", spoil)
    monkeypatch.setattr(backup, "mark", lambda *_: None)
    with pytest.raises(UsageError, match=r"not sound|SQLite says"):
        backup.write(local_world.database, folder / "broken.db", local_world.clock())


def test_a_backup_made_after_an_erasure_holds_nothing_of_the_person(local_world: World) -> None:
    local_world.subscribe("ada", "ben")
    before, after = local_world.folder / "before.db", local_world.folder / "after.db"
    backup.write(local_world.database, before, local_world.clock())
    assert ADA.encode() in before.read_bytes()
    person.erase(local_world.newsroom, ADA)
    backup.write(local_world.database, after, local_world.clock())
    assert b"ada@" not in after.read_bytes().lower()
    assert b"ben@" in after.read_bytes()


def test_they_are_made_every_so_often_and_the_newest_are_kept(local_world: World) -> None:
    room = planned(local_world, every_hours=24, keep=3)
    for _ in range(5):
        assert backup.make_due(room)
        assert backup.make_due(room) is None
        local_world.clock.wait(timedelta(hours=24).total_seconds())
    assert [name[len("friday-2026-1") :] for name in kept(local_world)] == [
        "1-29T080100Z.db", "1-30T080100Z.db", "2-01T080100Z.db",
    ]  # fmt: skip
    assert stat.S_IMODE((local_world.folder / "backups").stat().st_mode) == 0o700


def test_a_restart_makes_no_other_too_early(local_world: World) -> None:
    backup.make_due(local_world.newsroom)
    local_world.clock.wait(timedelta(hours=23).total_seconds())
    assert backup.make_due(planned(local_world)) is None
    assert backup.next_at(planned(local_world)) == local_world.clock.at + timedelta(hours=1)
    local_world.clock.wait(timedelta(hours=1).total_seconds())
    assert backup.make_due(planned(local_world))


def test_one_from_the_future_does_not_keep_others_from_being_made(local_world: World) -> None:
    backup.make_due(local_world.newsroom)
    local_world.clock.at -= timedelta(days=365)
    assert backup.make_due(local_world.newsroom)
    # Nor are others made ever again, or they would soon push out all that are worth keeping.
    local_world.clock.at += timedelta(minutes=10)
    assert backup.make_due(local_world.newsroom) is None


def test_nor_does_it_take_the_place_of_one_that_is_kept(local_world: World) -> None:
    folder = local_world.folder / "backups"
    folder.mkdir()
    ahead = folder / "friday-2027-11-27T080100Z.db"
    ahead.write_text("made by a clock that ran ahead", "ascii")
    room = planned(local_world, keep=1)
    backup.make_due(room)
    assert kept(local_world) == ["friday-2026-11-27T080100Z.db", ahead.name]
    local_world.clock.wait(timedelta(hours=24).total_seconds())
    backup.make_due(room)
    assert kept(local_world) == ["friday-2026-11-28T080100Z.db", ahead.name]


def test_none_are_made_where_none_are_kept(local_world: World) -> None:
    assert backup.make_due(planned(local_world, keep=0)) is None
    assert backup.next_at(planned(local_world, keep=0)) is None
    assert not (local_world.folder / "backups").exists()


def test_other_files_in_the_folder_are_nobodys_business(local_world: World) -> None:
    folder = local_world.folder / "backups"
    folder.mkdir()
    (folder / "friday-before-the-move.db").write_text("mine", "ascii")
    (folder / ".friday-backup-fresh").write_text("another process", "ascii")
    (folder / ".friday-backup-old").write_text("a killed process", "ascii")
    os.utime(folder / ".friday-backup-old", (0, 0))
    backup.make_due(planned(local_world, keep=1))
    assert kept(local_world) == [".friday-backup-fresh", "friday-2026-11-27T080100Z.db", "friday-before-the-move.db"]


def test_one_that_fails_deletes_none(local_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    room = planned(local_world, keep=1)
    backup.make_due(room)
    before = kept(local_world)
    local_world.clock.wait(timedelta(hours=24).total_seconds())

    def full(*_: object) -> None:
        raise sqlite_module().OperationalError("database or disk is full")

    monkeypatch.setattr(Database, "copy_to", full)
    with pytest.raises(UsageError, match="database or disk is full"):
        backup.make_due(room)
    assert kept(local_world) == before


def test_a_restored_backup_sends_nothing_though_it_lies_where_its_database_lay(local_world: World) -> None:
    local_world.tell_a_week()
    local_world.subscribe("ada")
    place.settle(local_world.newsroom)
    file = local_world.folder / "copy.db"
    backup.write(local_world.database, file, local_world.clock())
    assert place.see(local_world.newsroom) is None
    local_world.database.engine.dispose()
    # Into the very file: device and inode are the same.
    (local_world.folder / "friday.db").write_bytes(file.read_bytes())
    with pytest.raises(DecisionNeeded, match="this is a backup that was restored"):
        publish(local_world.newsroom, local_world.slot)
    assert local_world.provider.got == []
    place.adopt(local_world.newsroom, "ada")
    place.require(local_world.newsroom)


def test_so_does_one_that_was_made_before_anything_was_served(local_world: World) -> None:
    file = local_world.folder / "copy.db"
    backup.write(local_world.database, file, local_world.clock())
    copy = replace(local_world.newsroom, database=Database(f"sqlite:///{file}"))
    assert place.settle(copy) is not None
    with copy.database.read() as session:
        assert session.get_one(PlaceRow, 1).since == local_world.clock.at
    again = local_world.folder / "again.db"
    backup.write(copy.database, again, local_world.clock())
    copy.database.engine.dispose()
    assert place.see(replace(local_world.newsroom, database=Database(f"sqlite:///{again}"))) is not None


def test_a_database_that_waits_to_be_migrated_can_be_copied(local_world: World, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as opened:
        opened.execute("CREATE TABLE subscribers (id, address)")
    backup.write(Database(f"sqlite:///{old}"), local_world.folder / "copy.db", local_world.clock())
    assert addresses(local_world.folder / "copy.db") == []


def test_the_clock_makes_them_and_writes_down_when(local_world: World) -> None:
    watch = Watch(local_world.newsroom)
    watch.beat()
    (ring,) = (bell.ring for bell in hung(local_world.newsroom, watch) if bell.name == "backup")
    ring()
    assert kept(local_world) == ["friday-2026-11-27T080100Z.db"]
    with local_world.database.read() as session:
        (job,) = jobs(session)
    assert (job.name, job.said, job.trouble) == ("backup", "friday-2026-11-27T080100Z.db", "")
    assert (job.began_at, job.next_at) == (local_world.clock.at, local_world.clock.at + timedelta(hours=24))
