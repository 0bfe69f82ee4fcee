"""Restoring: the backup is in place, whole and alone; what was there is set aside, whole; and never anything between."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from alembic import command
from alembic.config import Config
from sqlmodel import select

from pipeline import backup, lease, place, restore
from pipeline.books import BatchRow, IssueRow
from pipeline.config import Secrets
from pipeline.database import MIGRATIONS, Database, sqlite_module
from pipeline.errors import DecisionNeeded, UsageError
from pipeline.lease import Lease
from pipeline.publish import approve, publish
from subscribers.models import Subscriber
from tests.conftest import FRIDAY, ROOT, World
from tests.served import friday, served, wait_for

ASIDE = "replaced-2026-11-27T080100Z"


@pytest.fixture
def saved(local_world: World) -> World:
    """A newsroom of two readers, of whom its backup knows only the first."""
    local_world.subscribe("ada")
    place.settle(local_world.newsroom)
    backup.write(local_world.database, local_world.folder / "copy.db", local_world.clock())
    local_world.subscribe("ben")
    local_world.database.engine.dispose()
    return local_world


def readers(file: Path) -> list[str]:
    """Who is on the roll of a database, which is looked at as Friday does."""
    database = Database(f"sqlite:///{quote(str(file))}")
    with database.read() as session:
        found = sorted(session.exec(select(Subscriber.address)).all())
    database.engine.dispose()
    with closing(sqlite_module().connect(str(file))) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return [address.partition("@")[0] for address in found]


def home(world: World) -> Path:
    return world.folder / "friday.db"


def beside(world: World) -> list[str]:
    """What lies beside the database and begins as it does, or is left of a restoring."""
    return sorted(path.name for path in world.folder.iterdir() if path.name.startswith(("friday.db", ".friday-restore")))


WRITER = """
import signal, sys
from pipeline.database import sqlite_module
opened = sqlite_module().connect(sys.argv[1], isolation_level=None)
opened.execute("PRAGMA foreign_keys = ON")
opened.execute("PRAGMA journal_mode = " + sys.argv[2])
for statement in sys.argv[3:]:
    opened.execute(statement)
print("ready", flush=True)
signal.pause()
"""
BEGINS = "INSERT INTO jobs (name, began_at, said, trouble) VALUES ('late', '2026-11-27 08:00:00', '', '')"
MUCH = (
    "INSERT INTO jobs (name, began_at, said, trouble)"
    " WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
    " SELECT 'late' || i, '2026-11-27 08:00:00', hex(randomblob(50)), '' FROM n"
)


@contextmanager
def other_process(file: Path, mode: str, *statements: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that has opened a database and done something in it, and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), mode, *statements], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def jobs(file: Path) -> int:
    with closing(sqlite_module().connect(str(file))) as opened:
        return int(opened.execute("SELECT count(*) FROM jobs").fetchone()[0])


def test_the_backup_is_the_database_and_what_was_there_is_set_aside(saved: World) -> None:
    before = (saved.folder / "copy.db").read_bytes()
    aside = restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert aside == saved.folder / "backups" / ASIDE
    assert beside(saved) == ["friday.db"]
    assert readers(home(saved)) == ["ada"]
    assert readers(aside / "friday.db") == ["ada", "ben"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home(saved), aside)] == [0o600, 0o700]
    assert (saved.folder / "copy.db").read_bytes() == before


def test_it_sends_nothing_until_it_is_adopted(saved: World) -> None:
    saved.tell_a_week()
    restore.put_back(saved.newsroom, saved.folder / "copy.db")
    with pytest.raises(DecisionNeeded, match="this is a backup that was restored"):
        publish(saved.newsroom, saved.slot)
    place.adopt(saved.newsroom, "ada")
    place.require(saved.newsroom)


def test_nor_does_a_plain_copy_of_a_place_that_has_a_name(saved: World) -> None:
    room = replace(saved.newsroom, config=replace(saved.newsroom.config, secrets=Secrets({"FRIDAY_INSTANCE": "friday-1"})))
    place.adopt(room, "ada")
    saved.database.engine.dispose()
    shutil.copy(home(saved), saved.folder / "plain.db")
    restore.put_back(room, saved.folder / "plain.db")
    assert "this is a backup that was restored" in str(place.see(room))


def test_what_a_killed_process_wrote_is_not_played_into_the_backup(saved: World) -> None:
    with other_process(home(saved), "wal", "DELETE FROM subscribers", BEGINS):
        pass
    assert (saved.folder / "friday.db-wal").stat().st_size > 0
    aside = restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert aside
    assert beside(saved) == ["friday.db"]
    assert (readers(home(saved)), jobs(home(saved))) == (["ada"], 0)
    # And it is not lost either.
    assert (readers(aside / "friday.db"), jobs(aside / "friday.db")) == ([], 1)


def test_what_a_killed_process_had_not_finished_is_not_either(saved: World) -> None:
    with other_process(home(saved), "delete", "PRAGMA cache_size = 5", "BEGIN", MUCH):
        pass
    assert (saved.folder / "friday.db-journal").stat().st_size > 0
    aside = restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert aside
    assert beside(saved) == ["friday.db"]
    assert (readers(home(saved)), jobs(home(saved))) == (["ada"], 0)
    assert (readers(aside / "friday.db"), jobs(aside / "friday.db")) == (["ada", "ben"], 0)


@pytest.mark.parametrize(("mode", "late"), [("wal", 1), ("delete", 0)])
def test_a_backup_with_writes_beside_it_is_restored_with_them(saved: World, mode: str, late: int) -> None:
    file = saved.folder / "killed.db"
    shutil.copy(saved.folder / "copy.db", file)
    with other_process(file, mode, *([BEGINS] if mode == "wal" else ["PRAGMA cache_size = 5", "BEGIN", MUCH])):
        pass
    before = {path: path.read_bytes() for path in saved.folder.glob("killed.db*")}
    assert len(before) > 1
    restore.put_back(saved.newsroom, file)
    assert (readers(home(saved)), jobs(home(saved))) == (["ada"], late)
    assert {path: path.read_bytes() for path in saved.folder.glob("killed.db*")} == before


def test_what_was_set_aside_can_be_put_back(saved: World) -> None:
    aside = restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert aside
    saved.clock.wait(1)
    second = restore.put_back(saved.newsroom, aside / "friday.db")
    assert readers(home(saved)) == ["ada", "ben"]
    assert second
    assert readers(second / "friday.db") == ["ada"]


def test_a_broken_database_is_set_aside_with_all_that_lies_beside_it(saved: World) -> None:
    with other_process(home(saved), "wal", "DELETE FROM subscribers"):
        pass
    left = (saved.folder / "friday.db-wal").read_bytes()
    home(saved).write_bytes(b"no database" * 1000)
    aside = restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert aside
    assert beside(saved) == ["friday.db"]
    assert readers(home(saved)) == ["ada"]
    assert (aside / "friday.db").read_bytes() == b"no database" * 1000
    assert (aside / "friday.db-wal").read_bytes() == left


def test_so_is_what_lies_beside_a_database_that_is_gone(saved: World) -> None:
    with other_process(home(saved), "wal", "DELETE FROM subscribers"):
        pass
    home(saved).unlink()
    aside = restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert aside
    assert readers(home(saved)) == ["ada"]
    assert "friday.db-wal" in [path.name for path in aside.iterdir()]


def test_where_nothing_was_nothing_is_set_aside(saved: World) -> None:
    home(saved).unlink()
    assert restore.put_back(saved.newsroom, saved.folder / "copy.db") is None
    assert readers(home(saved)) == ["ada"]
    assert not (saved.folder / "backups").exists()


@pytest.mark.parametrize("name", ["News #1", "What now?", "100%20 percent", "a b"])
def test_the_folder_may_have_any_name(saved: World, name: str) -> None:
    folder = saved.folder / name
    folder.mkdir()
    for file in (home(saved), saved.folder / "copy.db"):
        file.rename(folder / file.name)
    config = replace(saved.newsroom.config, backups=folder / "backups")
    room = replace(saved.newsroom, config=config, database=Database(f"sqlite:///{quote(str(folder))}/friday.db"))
    assert Lease(room.database, lease.CLOCK, room.runner, saved.clock).beat()
    with pytest.raises(UsageError, match="at work on this database"):
        restore.put_back(room, folder / "copy.db")
    Lease(room.database, lease.CLOCK, room.runner, saved.clock).give_up()
    restore.put_back(room, folder / "copy.db")
    assert readers(folder / "friday.db") == ["ada"]


def test_a_link_to_the_database_stays_one(saved: World) -> None:
    (saved.folder / "disk").mkdir()
    home(saved).rename(saved.folder / "disk/kept.db")
    home(saved).symlink_to("disk/kept.db")
    restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert home(saved).is_symlink()
    assert readers(saved.folder / "disk/kept.db") == ["ada"]


def test_a_file_system_without_second_names_keeps_a_copy(saved: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    aside = restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert aside
    assert readers(aside / "friday.db") == ["ada", "ben"]
    assert readers(home(saved)) == ["ada"]


def test_one_of_an_older_revision_is_brought_up_to_date_and_waits_too(saved: World) -> None:
    old = saved.folder / "old.db"
    make_old(old)
    restore.put_back(saved.newsroom, old)
    assert Database(f"sqlite:///{home(saved)}").revision == saved.database.revision
    assert "this is a backup that was restored" in str(place.see(saved.newsroom))


def make_old(file: Path) -> None:
    """Bring a database to the revision before places were known."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    database = Database(f"sqlite:///{file}")
    with database.engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
    database.engine.dispose()


def refused(world: World, file: Path, why: str) -> None:
    """See that a file is refused and nothing was changed."""
    before = home(world).read_bytes()
    with pytest.raises(UsageError, match=why):
        restore.put_back(world.newsroom, file)
    assert home(world).read_bytes() == before
    assert not (world.folder / "backups").exists()
    assert not list(world.folder.glob(".friday-restore-*"))


def test_what_is_no_backup_is_refused(saved: World) -> None:
    folder = saved.folder
    refused(saved, folder / "nowhere.db", "no such file")
    refused(saved, folder, "no such file")
    (folder / "words.db").write_text("no database\n" * 1000, "ascii")
    refused(saved, folder / "words.db", "no SQLite database")
    (folder / "empty.db").touch()
    refused(saved, folder / "empty.db", "no database of Friday's")
    with closing(sqlite3.connect(folder / "foreign.db")) as opened:
        opened.execute("CREATE TABLE alembic_version (version_num)")
    refused(saved, folder / "foreign.db", "no database of Friday's")


def test_one_of_a_newer_version_is_refused(saved: World) -> None:
    with closing(sqlite3.connect(saved.folder / "copy.db", isolation_level=None)) as opened:
        opened.execute("UPDATE alembic_version SET version_num = '9999'")
    refused(saved, saved.folder / "copy.db", "of revision 9999, and this version of Friday knows up to")


def test_one_that_is_not_sound_is_refused(saved: World) -> None:
    with (saved.folder / "copy.db").open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xff" * 4096 * 3)
    refused(saved, saved.folder / "copy.db", r"not sound|SQLite says|broken one")


def test_the_database_itself_is_no_backup(saved: World) -> None:
    refused(saved, home(saved), "is the database itself")
    (saved.folder / "link.db").symlink_to(home(saved))
    refused(saved, saved.folder / "link.db", "is the database itself")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_is_left_to_its_own_tools(world: World) -> None:
    with pytest.raises(UsageError, match="pg_restore"):
        restore.put_back(world.newsroom, world.folder / "copy.db")


def test_nothing_is_restored_under_a_clock_at_work(saved: World) -> None:
    clock = Lease(saved.database, lease.CLOCK, saved.newsroom.runner, saved.clock)
    assert clock.beat()
    # However long it was silent: its process is there.
    saved.clock.wait(timedelta(days=1).total_seconds())
    saved.database.engine.dispose()
    refused(saved, saved.folder / "copy.db", rf"at work on this database \(process {os.getpid()}\)")
    clock.give_up()
    restore.put_back(saved.newsroom, saved.folder / "copy.db")


@pytest.mark.parametrize("holder", ["hal/1/1.00", f"{os.uname().nodename}/999999999/1.00"])
def test_a_clock_of_another_machine_or_one_that_was_killed_is_none(saved: World, holder: str) -> None:
    assert Lease(saved.database, lease.CLOCK, holder, saved.clock, is_running=lambda _: True).beat()
    restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert readers(home(saved)) == ["ada"]


def test_nothing_is_restored_under_a_sender(saved: World) -> None:
    saved.tell_a_week()
    approve(saved.newsroom, saved.slot)
    with saved.database.write() as session:
        (issue,) = session.exec(select(IssueRow)).all()
        assert issue.id
        runner = saved.newsroom.runner
        session.add(BatchRow(issue_id=issue.id, key="k", digest="d", runner=runner, claimed_at=FRIDAY, attempted_at=FRIDAY))
    saved.database.engine.dispose()
    refused(saved, saved.folder / "copy.db", "at work on this database")
    with saved.database.write() as session:
        session.get_one(BatchRow, 1).settled_at = FRIDAY
    restore.put_back(saved.newsroom, saved.folder / "copy.db")


@pytest.mark.parametrize(
    ("mode", "statements"),
    [
        ("wal", ["BEGIN IMMEDIATE"]),
        ("delete", ["BEGIN IMMEDIATE", BEGINS]),
        ("delete", ["BEGIN EXCLUSIVE"]),
        ("wal", ["SELECT count(*) FROM jobs"]),
        ("delete", ["SELECT count(*) FROM jobs"]),
    ],
)
def test_nothing_is_restored_under_a_process_that_writes_or_may_go_on_writing(
    saved: World, mode: str, statements: list[str]
) -> None:
    with other_process(home(saved), mode, *statements) as process:
        with pytest.raises(UsageError, match=rf"another process is using|process {process.pid} has .* open"):
            restore.put_back(saved.newsroom, saved.folder / "copy.db")
        assert not (saved.folder / "backups").exists()
    restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert readers(home(saved)) == ["ada"]


DIES = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from pipeline import backup, restore
from pipeline.newsroom import open_newsroom
folder, step, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
where, _, name = step.partition(".")
owner = {"restore": restore, "backup": backup, "path": Path, "shutil": restore.shutil, "os": os}[where]
true = getattr(owner, name)
def die(*words, **more):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    true(*words, **more)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, die)
restore.put_back(open_newsroom(folder / "config.toml", {}), folder / "copy.db")
"""
STEPS = (
    "restore._see_that_it_rests", "restore._migrate", "backup.mark", "restore._finish", "restore._alone", "restore._set_aside",
    "os.link", "path.replace", "backup.sync_folder",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_whenever_it_is_killed_one_of_both_is_in_place_and_whole(saved: World, step: str, when: str) -> None:
    # The second reader is only in what lies beside the database.
    with other_process(home(saved), "wal", "UPDATE subscribers SET address = 'bob@example.com' WHERE address LIKE 'ben@%'"):
        pass
    command = [sys.executable, "-c", DIES, str(saved.folder), step, when]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    is_new = (step, when) == ("path.replace", "after")
    assert readers(home(saved)) == (["ada"] if is_new else ["ada", "bob"])
    aside = saved.folder / "backups"
    if is_new:
        (old,) = aside.glob("replaced-*/friday.db")
        assert readers(old) == ["ada", "bob"]
    # And it can be called again.
    restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert readers(home(saved)) == ["ada"]


def test_what_a_killed_one_left_behind_is_deleted_some_time(saved: World) -> None:
    for name in (".friday-restore-old", ".friday-restore-fresh"):
        (saved.folder / name).mkdir()
    os.utime(saved.folder / ".friday-restore-old", (0, 0))
    restore.put_back(saved.newsroom, saved.folder / "copy.db")
    assert beside(saved) == [".friday-restore-fresh", "friday.db"]


@pytest.mark.slow
def test_the_command_refuses_under_a_server_and_says_what_to_do_after(saved: World) -> None:
    file = str(saved.folder / "copy.db")
    with served(saved.folder, saved.folder / "said.txt") as server:
        wait_for(lambda: "this process is the clock" in server.words, server)
        run = friday(saved.folder, "restore", file)
        assert (run.returncode, f"process {server.process.pid}" in run.stderr) == (2, True)
        assert server.stop() == 0
    assert readers(home(saved)) == ["ada", "ben"]
    run = friday(saved.folder, "restore", file)
    assert run.returncode == 0, run.stderr
    assert "friday adopt" in run.stdout
    assert "full of addresses" in run.stdout
    assert f"{saved.folder}/backups/replaced-" in run.stdout
    assert friday(saved.folder, "publish").returncode == 5
    assert "at home here from now on" in friday(saved.folder, "adopt", "--yes").stdout
    assert friday(saved.folder, "restore", str(saved.folder / "nowhere.db")).returncode == 2
