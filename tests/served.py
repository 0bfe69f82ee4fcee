"""Real processes of `friday serve`, and waiting for what they are to do."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlmodel import select

from pipeline import lease
from pipeline.books import IssueRow, LeaseRow
from pipeline.database import Database
from pipeline.schedule import WEEKDAYS
from tests.conftest import ROOT

LONG = 120.0


@dataclass(frozen=True)
class Served:
    """A running server and what it said."""

    process: "subprocess.Popen[bytes]"
    said: Path

    @property
    def words(self) -> str:
        """All that it has said by now."""
        return self.said.read_text("utf-8")

    @property
    def address(self) -> str:
        """Where its pages are, once it has said so."""
        wait_for(lambda: "Public pages on" in self.words, self)
        found = re.search(r"Public pages on (\S+:\d+)\.", self.words)
        assert found
        return f"http://{found[1]}"

    def stop(self) -> int:
        """Tell it to end, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LONG)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(LONG)


@contextmanager
def served(folder: Path, said: Path, **environment: str) -> Iterator[Served]:
    """A server of the newsletter in a folder, on a port of its own."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FRIDAY_")}
    command = [sys.executable, "-m", "pipeline", "--config", str(folder / "config.toml"), "serve", "--port", "0"]
    with said.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**ours, **environment}, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        made = Served(process, said)
        try:
            yield made
        finally:
            made.kill()


def friday(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """How one command ended."""
    command = [sys.executable, "-m", "pipeline", "--config", str(folder / "config.toml"), *words]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FRIDAY_")}
    return subprocess.run(
        command, cwd=ROOT, env=ours, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONG, check=False
    )


def wait_for(happened: Callable[[], object], *servers: Served) -> None:
    """Wait for what must come; who waits in vain is told what the servers said."""
    ends = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < ends, "\n".join(server.words for server in servers)
        time.sleep(0.1)


def open_slot(folder: Path, *, opens_in: timedelta = timedelta(minutes=-1)) -> str:
    """Let the newsletter in a folder have a slot that opens, or has opened, about now; its name."""
    at = (datetime.now(UTC) + opens_in).replace(microsecond=0)
    # A zone where it is about noon, so that the slot lies on this very day.
    offset = 12 - at.hour
    local = at + timedelta(hours=offset)
    config = folder / "config.toml"
    text = re.sub(r"(?ms)^\[schedule\].*?^\[", "[schedule]\nPLAN\n[", config.read_text("utf-8"))
    plan = f'timezone = "Etc/GMT{-offset:+d}"\nweekday = "{WEEKDAYS[local.weekday()]}"\nat = {local:%H:%M:%S}\n'
    config.write_text(text.replace("PLAN\n", plan), "utf-8")
    return f"{local:%Y-%m-%d}"


def issues(database: Database) -> list[IssueRow]:
    """All issues that there are."""
    with database.read() as session:
        return list(session.exec(select(IssueRow).order_by(IssueRow.slot)))


def clock_of(database: Database) -> LeaseRow | None:
    """Who is the clock."""
    with database.read() as session:
        return lease.last(session, lease.CLOCK)


def mails(folder: Path) -> list[str]:
    """To whom the outbox holds a mail, one for each."""
    found = sorted(folder.glob("outbox/**/*.eml"))
    return sorted(re.findall(r"(?m)^To: .*?([^\s<>]+@[^\s<>]+)", path.read_text("utf-8"))[0] for path in found)
