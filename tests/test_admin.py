"""`friday admin` as somebody at a terminal holds it: the first is an owner, a password is asked for twice and shown nowhere."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline import staff
from pipeline.cli import app
from pipeline.database import Database
from pipeline.errors import FridayError
from pipeline.staff import Passwords
from tests.conftest import ROOT, World
from tests.test_staff import CHIEF, GOOD, OTHER

ED = "ed@news.example.com"


@dataclass(frozen=True)
class Desk:
    """A machine with a newsletter on it."""

    config: Path
    database: Database

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pipeline", "--config", str(self.config), "admin", *words]

    def admin(self, *words: str, stdin: str = "") -> tuple[int, str, str]:
        """Run one command in this process: its exit code, stdout, and stderr with what `main` would say there."""
        run = CliRunner().invoke(app, ["--config", str(self.config), "admin", *words], input=stdin)
        if isinstance(run.exception, FridayError):
            return run.exception.exit_code, run.stdout, f"{run.stderr}{run.exception}"
        return run.exit_code, run.stdout, run.stderr

    def admin_at_a_terminal(self, *words: str, typed: list[tuple[bytes, str]]) -> tuple[int, str]:
        """The same at a terminal: what to type once which words have come; the exit code and all that was shown."""
        ours, theirs = pty.openpty()
        # The password is read from the terminal that controls the process, so it gets one.
        process = subprocess.Popen(
            ["/usr/bin/setsid", "--wait", "--ctty", *self.words(*words)], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        shown = b""
        for expected, answer in typed:
            shown = _until(ours, shown, expected)
            os.write(ours, answer.encode() + b"\n")
        rest = b"".join(_all(ours))
        os.close(ours)
        return process.wait(60), (shown + rest).decode()

    def knows(self, address: str, password: str) -> bool:
        return staff.recognise(self.database, Passwords(), address, password) is not None


def _until(terminal: int, shown: bytes, expected: bytes) -> bytes:
    seen = len(shown)
    while expected not in shown[seen:]:
        shown += os.read(terminal, 65_536)
    return shown


def _all(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            some = os.read(terminal, 65_536)
        except OSError:
            # Linux says so when the last writer of a terminal has gone.
            return
        yield some


@pytest.fixture
def desk(local_world: World) -> Desk:
    return Desk(local_world.folder / "config.toml", local_world.database)


def test_admins_are_let_in_listed_given_another_password_and_removed(desk: Desk) -> None:
    code, out, _ = desk.admin("add", " Chief@news.EXAMPLE.com", "--password-stdin", stdin=GOOD + "\n")
    assert (code, out) == (0, "Added as owner. Sign in at https://news.example.com/newsroom\n")
    code, out, _ = desk.admin("add", ED, "--password-stdin", stdin=GOOD + "\r\n")
    assert (code, out.split(".")[0]) == (0, "Added as editor")
    assert desk.knows(CHIEF, GOOD)
    assert desk.knows(ED, GOOD)
    _, out, _ = desk.admin("list", "--json")
    assert '"role": "owner"' in out
    assert "argon2" not in out
    assert desk.admin("password", ED, "--password-stdin", stdin=OTHER + "\n")[0] == 0
    assert desk.knows(ED, OTHER)
    assert not desk.knows(ED, GOOD)
    assert desk.admin("remove", ED)[:2] == (0, "Removed.\n")
    assert not desk.knows(ED, OTHER)


def test_what_cannot_be_done_is_said_in_a_sentence_that_repeats_neither_address_nor_password(desk: Desk) -> None:
    desk.admin("add", CHIEF, "--password-stdin", stdin=GOOD)
    for words, stdin, says in (
        (("remove", CHIEF), "", "the last owner"),
        (("add", CHIEF, "--password-stdin"), OTHER, "may sign in already"),
        (("add", ED, "--password-stdin"), "short", "too short"),
        (("add", ED, "--role", "king", "--password-stdin"), OTHER, "not a role"),
        (("add", ED), OTHER, "--password-stdin"),
        (("password", ED), "", "nobody of that address"),
    ):
        code, out, err = desk.admin(*words, stdin=stdin)
        assert (code, out) == (2, ""), words
        assert says in err
        assert not any(secret in err for secret in (CHIEF, ED, OTHER, "short\n", "Traceback"))
    assert desk.knows(CHIEF, GOOD)


@pytest.mark.slow
def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(desk: Desk) -> None:
    code, shown = desk.admin_at_a_terminal("add", CHIEF, typed=[(b"Password: ", GOOD), (b"again: ", GOOD)])
    assert code == 0
    assert "Added as owner." in shown
    assert GOOD not in shown
    code, shown = desk.admin_at_a_terminal(
        "password", CHIEF, typed=[(b"Password: ", OTHER), (b"again: ", GOOD), (b"Password: ", OTHER), (b"again: ", OTHER)]
    )
    assert code == 0
    assert OTHER not in shown
    assert desk.knows(CHIEF, OTHER)
