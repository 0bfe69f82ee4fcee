"""Real processes, real HTTP, a real database file: ten thousand readers, and a kill in the middle."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.schedule import WEEKDAYS
from tests.conftest import FRIDAY, World, build_world
from tests.fake_http import Call, FakeHttp, Reply, fake_http

pytestmark = pytest.mark.slow

READERS = 10_000


@pytest.fixture
def fake() -> Iterator[FakeHttp]:
    with fake_http() as running:
        yield running


def set_up(folder: Path, fake: FakeHttp, readers: int) -> World:
    """A week of stories and a full roll, in a folder that a process of its own can publish from."""
    provider = f'name = "mailgun"\ndomain = "news.example.com"\nbase_url = "{fake.url}"'
    made = build_world(folder, f"sqlite:///{folder}/friday.db", provider)
    made.tell_a_week()
    (folder / "roll.csv").write_text("email\n" + "".join(f"reader{number}@example.com\n" for number in range(readers)), "utf-8")
    run(folder, "subscribers", "import", str(folder / "roll.csv"))
    return made


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline", "--config", str(folder / "config.toml"), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    process = start(folder, *words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def report(folder: Path) -> dict[str, Any]:
    code, out, err = run(folder, "report", f"{FRIDAY:%Y-%m-%d}", "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRIDAY_PROVIDER_KEY", "secret")


PUBLISH = ("publish", f"{FRIDAY:%Y-%m-%d}", "--anyway", "--json")


def test_ten_thousand_readers_get_ten_calls_and_nobody_two_copies(tmp_path: Path, fake: FakeHttp) -> None:
    set_up(tmp_path, fake, READERS)
    code, out, err = run(tmp_path, *PUBLISH)
    assert (code, json.loads(out)["state"]) == (0, "sent"), err
    assert [len(call.all("to")) for call in fake.calls] == [1_000] * 10
    assert sorted(fake.readers) == sorted({f"reader{number}@example.com" for number in range(READERS)})
    links: set[str] = set()
    for call in fake.calls:
        links |= {own["unsubscribe_url"] for own in call.variables.values()}
        address = call.all("to")[0]
        link = call.variables[address]["unsubscribe_url"]
        copy = call.copy_for(address)
        assert copy["h:List-Unsubscribe"] == f"<{link}>"
        assert copy["h:List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert link in copy["html"]
        assert link in copy["text"]
    assert len(links) == READERS
    found = report(tmp_path)
    assert found["counts"]["accepted"] == found["enrolled"] == READERS
    assert sum(found["counts"].values()) == READERS
    assert run(tmp_path, *PUBLISH)[0] == 0
    assert len(fake.calls) == 10


@pytest.mark.parametrize("taken", [True, False], ids=["after it was taken", "before it was taken"])
def test_a_killed_publish_goes_on_and_names_whom_it_cannot_tell_about(tmp_path: Path, fake: FakeHttp, *, taken: bool) -> None:
    set_up(tmp_path, fake, READERS)
    victim: list[subprocess.Popen[str]] = []

    def kill_at_the_fifth(number: int, _call: Call) -> Reply:
        if number == 5:
            victim[0].send_signal(signal.SIGKILL)
            victim[0].wait()
            return Reply(200 if taken else 500)
        return Reply()

    fake.reply = kill_at_the_fifth
    victim.append(start(tmp_path, *PUBLISH))
    victim[0].communicate(timeout=60)
    assert victim[0].returncode == -signal.SIGKILL
    began = time.monotonic()
    code, out, err = run(tmp_path, *PUBLISH)
    assert time.monotonic() - began < 30
    found = json.loads(out)
    assert (code, found["state"]) == (5, "needs_decision"), err
    assert len(fake.readers) == len(set(fake.readers)) == (READERS if taken else READERS - 1_000)
    unknown = {each["address"] for each in found["unknown"]}
    assert unknown == set(fake.calls[4].all("to"))
    assert unknown | set(fake.readers) == {f"reader{number}@example.com" for number in range(READERS)}
    assert sum(found["counts"].values()) == found["enrolled"] == READERS
    assert found["counts"]["unknown"] == 1_000


def test_two_processes_at_once_send_everybody_one_copy(tmp_path: Path, fake: FakeHttp) -> None:
    set_up(tmp_path, fake, 3_000)
    both = [start(tmp_path, *PUBLISH), start(tmp_path, *PUBLISH)]
    ends = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert sorted(fake.readers) == sorted({f"reader{number}@example.com" for number in range(3_000)})
    assert report(tmp_path)["counts"]["accepted"] == 3_000


def test_a_server_told_to_stop_lets_the_batch_in_flight_come_home(tmp_path: Path, fake: FakeHttp) -> None:
    made = set_up(tmp_path, fake, 1_000)
    now = datetime.now(UTC)
    # A zone where it is about noon, so that the slot of a minute ago lies on this very day.
    offset = 12 - now.hour
    local = now + timedelta(hours=offset, minutes=-1)
    day = WEEKDAYS[local.weekday()]
    schedule = f'timezone = "Etc/GMT{-offset:+d}"\nweekday = "{day}"\nat = {local:%H:%M:00}'
    config = tmp_path / "config.toml"
    text = config.read_text("utf-8").replace('timezone = "Europe/Berlin"', schedule)
    config.write_text(text.replace('name = "mailgun"', 'name = "mailgun"\nbatch_size = 100'), "utf-8")
    made.clock.at = now
    made.tell_a_week(before=now - timedelta(minutes=2))
    server: list[subprocess.Popen[str]] = []

    def stop_at_the_third(number: int, _call: Call) -> Reply:
        if number == 3:
            server[0].send_signal(signal.SIGTERM)
        return Reply()

    fake.reply = stop_at_the_third
    server.append(start(tmp_path, "serve", "--port", "0"))
    _, err = server[0].communicate(timeout=60)
    assert server[0].returncode == 0, err
    code, out, err = run(tmp_path, "report", f"{local:%Y-%m-%d}", "--json")
    assert code == 0, err
    counts = json.loads(out)["counts"]
    # The signal may reach the clock's thread a call later.
    assert len(fake.calls) in (3, 4)
    assert counts["accepted"] == 100 * len(fake.calls)
    assert (counts["sending"], counts["unknown"], counts["pending"]) == (0, 0, 1_000 - counts["accepted"])


def test_one_bad_address_that_refuses_a_call_is_found_and_the_others_get_theirs(tmp_path: Path, fake: FakeHttp) -> None:
    set_up(tmp_path, fake, 200)
    bad = "reader77@example.com"
    fake.reply = lambda _number, call: Reply(400, '{"message": "to is not valid"}') if bad in call.all("to") else Reply()
    code, out, _ = run(tmp_path, *PUBLISH)
    found = json.loads(out)
    assert (code, found["state"]) == (0, "sent")
    assert found["counts"] == {
        "pending": 0, "sending": 0, "accepted": 199, "rejected": 1, "skipped": 0, "unknown": 0,
    }  # fmt: skip
    assert sorted(fake.readers) == sorted({f"reader{number}@example.com" for number in range(200)} - {bad})
    assert len(fake.calls) < 20


def test_a_refused_account_pauses_the_issue_and_the_mended_one_goes_on(tmp_path: Path, fake: FakeHttp) -> None:
    set_up(tmp_path, fake, 2_500)
    fake.reply = lambda number, _call: Reply() if number == 1 else Reply(401, "Forbidden")
    code, _, err = run(tmp_path, *PUBLISH)
    assert code == 4
    assert "FRIDAY_PROVIDER_KEY" in err
    assert len(fake.calls) == 2
    found = report(tmp_path)
    assert (found["state"], found["counts"]["accepted"], found["counts"]["pending"]) == ("paused", 1_000, 1_500)
    fake.reply = lambda _number, _call: Reply()
    assert run(tmp_path, *PUBLISH)[0] == 0
    assert len(fake.readers) == len(set(fake.readers)) == 2_500
