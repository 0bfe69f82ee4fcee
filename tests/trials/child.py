"""A `friday` in a process of its own: the very command, but that it waits a hundredth and may be told where to die.

It is loaded once, in a server that does nothing but fork, so that a run costs what it does and not what it imports.
"""

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from sqlmodel import Session

from pipeline import cli, newsroom, pace, providers
from pipeline.database import Database
from pipeline.newsroom import Newsroom
from pipeline.providers import outbox
from pipeline.wire import Reply, Wire

# What the command would import when it needs it.
for _name in (
    "pipeline.publish", "pipeline.show", "pipeline.migrations", "psycopg", "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite", "premailer", *(f"pipeline.providers.{each}" for each in providers.names()),
):  # fmt: skip
    importlib.import_module(_name)
with contextlib.suppress(ImportError):
    importlib.import_module("pysqlite3")

HASTE = 100
LONGEST_NAP = 0.05
POINTS = ("before commit", "after commit", "before send", "after send", "before call", "after call")


@dataclass(frozen=True)
class Order:
    """What to run: the words behind `friday`, where its output goes, its environment.

    With a `point` the process kills itself at the `passage`th time that it gets there. One that is `traced` does
    not begin before a tracer is there.
    """

    words: tuple[str, ...]
    out: Path
    err: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    point: str = ""
    passage: int = 0
    traced: bool = False


def run(order: Order) -> None:
    """Be that process; never comes back."""
    with open(os.devnull, "rb") as nothing, order.out.open("ab") as out, order.err.open("ab") as err:  # noqa: PTH123 - no path
        for file, number in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(file.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - open for good
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    os.environ.update(order.environment)
    sys.argv = ["friday", *order.words]
    while order.traced and not _is_traced():
        time.sleep(0.002)
    passages = count(1)

    def reached(point: str) -> None:
        if point == order.point and next(passages) == order.passage:
            os.kill(os.getpid(), signal.SIGKILL)

    _hasten(reached)
    if order.point:
        _mine(reached)
    code = _end()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end() -> int:
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001 - as the interpreter itself would
        traceback.print_exc()
        return 1
    return 0


def _is_traced() -> bool:
    status = Path("/proc/self/status").read_text("ascii")
    return "TracerPid:\t0\n" not in status


class _Mortal:
    """A provider that may not survive its own call."""

    def __init__(self, provider: Any, reached: Callable[[str], None]) -> None:
        self._provider = provider
        self._reached = reached

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def send(self, issue: Any, parcel: Any) -> Any:
        self._reached("before send")
        receipts = self._provider.send(issue, parcel)
        self._reached("after send")
        return receipts


def _hasten(reached: Callable[[str], None]) -> None:
    """Wait a hundredth of what is asked for: a trial has no time, and what is waited for is on loopback."""
    opened = newsroom.open_newsroom

    def open_newsroom(path: Path | None, environment: Mapping[str, str] | None = None) -> Newsroom:
        made = opened(path, environment)
        mortal: Any = _Mortal(made.provider, reached)
        return replace(made, provider=mortal, wait=lambda seconds: time.sleep(min(seconds, LONGEST_NAP)))

    newsroom.open_newsroom = open_newsroom
    paced: Any = getattr(pace, "Pace", None)
    if paced:
        asked = paced.went_wrong

        def went_wrong(self: Any, began: datetime, now: datetime, wanted: timedelta | None) -> bool:
            gives_up = bool(asked(self, began, now, wanted))
            self._not_before = now + (self._not_before - now) / HASTE
            return gives_up

        paced.went_wrong = went_wrong


def _mine(reached: Callable[[str], None]) -> None:
    """Lay what kills at a point around the commits of the database and the calls of providers."""
    write, call = Database.write, Wire.call

    @contextlib.contextmanager
    def writing(self: Database) -> Iterator[Session]:
        with write(self) as session:
            yield session
            reached("before commit")
        reached("after commit")

    def calling(self: Wire, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        reached("before call")
        reply = call(self, method, path, headers, body)
        reached("after call")
        return reply

    Database.write = writing  # type: ignore[method-assign]  # that is what a trial is for
    Wire.call = calling  # type: ignore[method-assign]  # the same
    outbox._write = _between(outbox._write, reached)
    line: Any = getattr(sys.modules.get("pipeline.relay"), "Line", None)
    for name in ("send", "hear") if line else ():
        setattr(line, name, _between(getattr(line, name), reached))


def _between(act: Callable[..., Any], reached: Callable[[str], None]) -> Callable[..., Any]:
    def acting(*words: Any) -> Any:
        reached("before call")
        done = act(*words)
        reached("after call")
        return done

    return acting
