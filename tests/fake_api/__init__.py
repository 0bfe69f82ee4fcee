"""A fake of the providers as a process of its own, and the handle that trials hold it by.

It speaks as much of Mailgun's, Postmark's and Resend's API, and of SMTP, as sending needs, takes copies, and does what a plan
of faults says.
"""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.fake_api.faults import Fault

ROOT = Path(__file__).parent.parent.parent


class Taken(NamedTuple):
    """A copy that was accepted, or refused for good: for whom, under which reference, by which call."""

    address: str
    ref: str
    call: int


@dataclass(frozen=True)
class FakeApi:
    """A running fake; `smtp` is the port at which it is a mail server, if it was asked to be one."""

    port: int
    smtp: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def accepted(self) -> list[Taken]:
        """Every copy that was accepted, in order."""
        return [Taken(*each) for each in self._ask("/_accepted")["accepted"]]

    def refused(self) -> list[Taken]:
        """Every copy that was refused for good by itself, in order."""
        return [Taken(*each) for each in self._ask("/_accepted")["refused"]]

    def count(self) -> int:
        """How many copies were accepted."""
        return int(self._ask("/_accepted")["copies"])

    def calls(self) -> list[dict[str, Any]]:
        """Every call that sends: number, provider, fault, status, copies."""
        found: list[dict[str, Any]] = self._ask("/_calls")["calls"]
        return found

    def exchanges(self) -> list[dict[str, Any]]:
        """Every request and its answer, questions to a log too, where it was started with `--keep`."""
        found: list[dict[str, Any]] = self._ask("/_exchanges")
        return found

    def held(self) -> int:
        """How many answers are held back."""
        return int(self._ask("/_calls")["held"])

    def script(
        self,
        calls: Mapping[int, Fault] | None = None,
        rates: Mapping[Fault, float] | None = None,
        bad: Iterable[str] = (),
        **more: float,
    ) -> None:
        """Set what goes wrong from now on; `more` is the rest of a plan."""
        self._ask("/_faults", {"calls": dict(calls or {}), "rates": dict(rates or {}), "bad": list(bad), **more})

    def release(self) -> None:
        """Give the answers that are held back."""
        self._ask("/_release", {})

    def reset(self) -> None:
        """Forget everything."""
        self._ask("/_reset", {})

    def _ask(self, path: str, order: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            body = None if order is None else json.dumps(order)
            connection.request("GET" if order is None else "POST", path, body)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def running(*words: str) -> Iterator[FakeApi]:
    """A fake for as long as it is needed; `words` are what its command line takes."""
    command = [sys.executable, "-m", "tests.fake_api", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            yield FakeApi(*map(int, process.stdout.readline().split()))
        finally:
            process.kill()
