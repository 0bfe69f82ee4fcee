"""Import and export as commands of their own: killed in the middle, rehearsed, reported, written to files."""

import csv
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func
from sqlmodel import select

from subscribers import exchange, roll
from subscribers.models import Label, NameWord, Subscriber, Suppression
from tests.conftest import World, build_world

pytestmark = pytest.mark.slow

ROWS = 40_000


@pytest.fixture
def house(tmp_path: Path, empty: bytes) -> Iterator[World]:
    """A newsroom in a folder that processes of their own can use."""
    yield from opened(tmp_path / "house", empty)


@pytest.fixture
def other_house(tmp_path: Path, empty: bytes) -> Iterator[World]:
    """Another one."""
    yield from opened(tmp_path / "other", empty)


def opened(folder: Path, empty: bytes) -> Iterator[World]:
    folder.mkdir()
    (folder / "friday.db").write_bytes(empty)
    made = build_world(folder, f"sqlite:///{folder}/friday.db")
    yield made
    made.database.engine.dispose()


def start(house: World, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline", "--config", str(house.folder / "config.toml"), "subscribers", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def run(house: World, *words: str, code: int = 0) -> tuple[str, str]:
    process = start(house, *words)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return out.decode(), err.decode()


def on_the_roll(house: World) -> int:
    with house.database.read() as session:
        return session.exec(select(func.count()).select_from(Subscriber)).one()


def roll_of(house: World) -> list[object]:
    """The roll with labels, words and suppressions, but for what chance or the clock made of it."""
    with house.database.read() as session:
        people = session.exec(select(Subscriber.id, Subscriber.key, Subscriber.name, Subscriber.state)).all()
        labels = session.exec(select(Label.subscriber_id, Label.kind, Label.name)).all()
        words = session.exec(select(NameWord.subscriber_id, NameWord.word)).all()
        barred = session.exec(select(Suppression.key, Suppression.why)).all()
    keys = {number: key for number, key, *_ in people}
    return [
        sorted(tuple(each)[1:] for each in people),
        sorted((keys[number], *rest) for number, *rest in labels),
        sorted((keys[number], word) for number, word in words),
        sorted(map(tuple, barred)),
    ]


def crowd(path: Path, rows: int = ROWS) -> Path:
    """People of whom every tenth has left or bounced, and every hundredth is nobody."""
    stands = {0: "bounced", 10: "unsubscribed", 20: "pending"}
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(("email", "name", "status", "tags"))
        for number in range(rows):
            address = "nobody" if number % 100 == 30 else f"p{number}@example.com"
            out.writerow((address, f"Person{number % 50} Nr{number % 7}", stands.get(number % 100, "active"), f"t{number % 3}"))
    return path


def test_an_import_that_is_killed_goes_on_and_ends_as_one_that_is_not(house: World, other_house: World, tmp_path: Path) -> None:
    path = str(crowd(tmp_path / "crowd.csv"))
    killed = start(house, "import", path)
    while not (came := on_the_roll(house)):
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert 0 < came <= on_the_roll(house) < ROWS * 0.96
    going_on = start(house, "import", path)
    assert run(other_house, "import", path)[0] == (
        f"{ROWS * 96 // 100:,} added, {ROWS // 100:,} kept as unsubscribed, {ROWS // 100:,} suppressed, "
        f"0 known already, {ROWS // 50:,} refused.\n"
    )
    assert b" known already, " in going_on.communicate(timeout=60)[0]
    assert roll_of(house) == roll_of(other_house)


def test_an_import_that_is_interrupted_says_that_it_goes_on(house: World, tmp_path: Path) -> None:
    path = str(crowd(tmp_path / "crowd.csv", 120_000))
    stopped = start(house, "import", path, "--refused", str(tmp_path / "refused.csv"))
    while not on_the_roll(house):
        assert stopped.poll() is None
        time.sleep(0.005)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert (stopped.returncode, out) == (5, b"")
    assert err.decode() == f"interrupted; `friday subscribers import {path}` goes on where it stopped\n"
    assert sorted(each.name for each in tmp_path.glob("*refused*")) == []


def test_a_rehearsal_tells_what_would_happen_and_changes_no_file(house: World, tmp_path: Path) -> None:
    path = crowd(tmp_path / "crowd.csv", 3_000)
    house.database.engine.dispose()
    before = {each.name: each.read_bytes() for each in house.folder.iterdir() if each.is_file()}
    out, err = run(house, "import", str(path), "--dry-run")
    assert out == (
        "Nothing was written. As a list: 2,880 added, 30 kept as unsubscribed, 30 suppressed, 0 known already, 60 refused.\n"
    )
    *told, last = err.splitlines()
    assert len(told) == 20
    assert told[0] == f"{path}:22: has not confirmed: its status is 'pending'"
    assert told[1].startswith(f"{path}:32: not a mail address: ")
    assert last == "... and 40 more: --refused FILE.csv writes down every one"
    assert {each.name: each.read_bytes() for each in house.folder.iterdir() if each.is_file()} == before


def test_every_refused_line_is_written_down_where_it_is_asked_for(house: World, tmp_path: Path) -> None:
    path, report = crowd(tmp_path / "crowd.csv", 3_000), tmp_path / "refused.csv"
    same = start(house, "import", str(path), "--refused", str(path))
    out, err = run(house, "import", str(path), "--refused", str(report))
    assert (out.endswith("60 refused.\n"), err) == (True, "")
    with report.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["line", "reason"]
    assert [int(line) for line, _ in rows[1:]] == sorted([*range(22, 3_002, 100), *range(32, 3_002, 100)])
    assert "@" not in report.read_text("utf-8").replace("@-sign", "")
    assert b"is the file to import" in same.communicate(timeout=60)[1]


def test_what_is_exported_to_a_file_or_to_stdout_is_imported_elsewhere(
    house: World, other_house: World, tmp_path: Path
) -> None:
    exchange.import_file(house.database, crowd(tmp_path / "crowd.csv", 2_500), house.clock())
    with house.database.write() as session:
        roll.add(session, "josé@example.com", house.clock(), "=José")
    first, second = tmp_path / "roll.csv", tmp_path / "roll.json"
    into_json = start(house, "export", str(second))
    assert run(house, "export", str(first)) == ("", "2,426 subscribers\n")
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    into_json.communicate(timeout=60)
    with_c_locale = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "pipeline", "--config", str(house.folder / "config.toml"), "subscribers", "export"]
    piped = subprocess.run([*command, "--format", "json"], env=with_c_locale, capture_output=True, check=True)
    assert piped.stdout == second.read_bytes()
    assert run(other_house, "import", str(second))[0] == "2,401 added, 25 kept as unsubscribed, 0 known already, 0 refused.\n"
    left = start(other_house, "export", "--state", "unsubscribed")
    assert run(other_house, "import", str(first))[0] == "0 added, 2,426 known already, 0 refused.\n"
    assert left.communicate(timeout=60)[0].count(b"\r\n") == 26
    people, labels, words, _ = roll_of(house)
    assert roll_of(other_house)[:3] == [people, labels, words]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("export", "--format", "xml"), "'xml' is not a format: there is csv, json\n"),
        (("export", "--state", "asleep"), "'asleep' is not a state: there is pending, active, unsubscribed\n"),
        (("export", "/nowhere/roll.csv"), "/nowhere/roll.csv: No such file or directory\n"),
        (("import", "/nowhere/roll.csv"), "/nowhere/roll.csv: No such file or directory\n"),
    ],
)
def test_what_cannot_be_done_is_said(house: World, words: tuple[str, ...], complaint: str) -> None:
    assert run(house, *words, code=2) == ("", complaint)
