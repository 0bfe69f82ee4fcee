"""What the benchmark of the send loop measures, each in a process of its own, which tells what it saw as JSON.

`fill` makes a newsroom whose readers are enrolled, `send` publishes from it, and `ceiling` posts what such a
send has posted. Nothing here judges.
"""

import argparse
import functools
import hashlib
import importlib
import json
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.newsroom import Newsroom

SLOT = date(2026, 11, 27)
NO_PROVIDER = 'name = "outbox"'
# With the weekly template these make 29 KB of HTML and 5 KB of text.
STORIES = 15
WORDS = 13
FILL_BATCH = 10_000
ENVIRONMENT = {"FRIDAY_PROVIDER_KEY": "secret", "FRIDAY_WEBHOOK_KEY": "secret"}
# Where the time of a send goes: a part's name, and what is timed for it. What is not there is not timed.
WATCHED = (
    ("claim", "pipeline.deliver", "claim"),
    ("settle", "pipeline.deliver", "settle"),
    ("post", "pipeline.wire", "Wire.call"),
)
# Headers that `requests` writes itself.
_OWN_HEADERS = ("host", "content-length", "accept-encoding", "connection", "user-agent")


def fill(folder: Path, readers: int, *, enrol: bool) -> dict[str, Any]:
    """Make a newsroom with a week of stories and a full roll, and perhaps enrol it, without sending."""
    from sqlalchemy import insert  # noqa: PLC0415 - the ceiling's process holds nothing of the pipeline

    from pipeline.errors import DecisionNeeded  # noqa: PLC0415 - the same
    from pipeline.issue import Story  # noqa: PLC0415 - the same
    from pipeline.publish import look, publish  # noqa: PLC0415 - the same
    from subscribers.models import State, Subscriber, new_token  # noqa: PLC0415 - the same
    from tests.conftest import CONFIG, FRIDAY, build_world  # noqa: PLC0415 - the same

    folder.mkdir(parents=True)
    world = build_world(folder, f"sqlite:///{folder}/friday.db")
    world.tell(
        "Wire",
        *(
            Story(
                f"https://wire.example/{place}", _words(place, "title", 9), "Wire", FRIDAY - timedelta(hours=20 + place),
                _words(place, "summary", WORDS) + ".",
            )
            for place in range(STORIES)
        ),
    )  # fmt: skip
    world.database.engine.dispose()
    # Where the database lies is left to the config's own folder, so that a copy of it is a newsroom too.
    config = CONFIG.format(database="sqlite:///friday.db", provider=NO_PROVIDER)
    (folder / "config.toml").write_text(config.replace("[newsletter]", f"[newsletter]\nstories = {STORIES}"), "utf-8")
    newsroom, slot = _newsroom(folder)
    for first in range(0, readers, FILL_BATCH):
        people = [
            {
                "address": f"reader{number:07}@example.com", "key": f"reader{number:07}@example.com", "name": "",
                "state": State.ACTIVE, "token": new_token(), "source": "bench", "joined": FRIDAY,
            }
            for number in range(first, min(first + FILL_BATCH, readers))
        ]  # fmt: skip
        with newsroom.database.write() as session:
            session.execute(insert(Subscriber), people)
    newsroom.stopping.set()
    began = time.perf_counter()
    with suppress(DecisionNeeded):
        _ = publish(newsroom, slot, anyway=True) if enrol else None
    took = time.perf_counter() - began
    seen = look(newsroom, slot).rendered
    newsroom.database.engine.dispose()
    return {"enrol_seconds": took, "html_bytes": len(seen.html.encode()), "text_bytes": len(seen.text.encode())}


def send(folder: Path, provider: str, most: int | None, *, watch: bool) -> dict[str, Any]:
    """Publish from a folder; the time of it, which begins right before the first claim if readers are enrolled, and its cost.

    Args:
        folder: where `fill` made a newsroom, or a copy of it.
        provider: the lines of the `[provider]` table.
        most: stop after so many copies.
        watch: tell the time by part, too, which costs a little itself.
    """
    from pipeline.errors import DecisionNeeded  # noqa: PLC0415 - the ceiling's process holds nothing of the pipeline
    from pipeline.publish import publish, report  # noqa: PLC0415 - the same

    config = folder / "config.toml"
    config.write_text(config.read_text("utf-8").replace(NO_PROVIDER, provider), "utf-8")
    newsroom, slot = _newsroom(folder)

    def progress(settled: int, _copies: int) -> None:
        if most and settled >= most:
            newsroom.stopping.set()

    parts = _watch(newsroom) if watch else Parts()
    began, cpu = time.perf_counter(), _cpu()
    with suppress(DecisionNeeded) if most else nullcontext():
        publish(newsroom, slot, anyway=True, progress=progress)
    took, cpu = time.perf_counter() - began, _cpu() - cpu
    counts = report(newsroom, slot).counts
    with newsroom.database.engine.connect() as connection:
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar()
        version = connection.exec_driver_sql("SELECT sqlite_version()").scalar()
    return {
        "readers": counts["accepted"], "others": sum(counts.values()) - counts["accepted"], "seconds": took, "cpu_seconds": cpu,
        "peak_rss_mb": _peak(), "parts": dict(parts.seconds), "calls": dict(parts.calls),
        "sqlite": version, "journal_mode": journal, "synchronous": {1: "NORMAL", 2: "FULL", 3: "EXTRA"}.get(synchronous),
    }  # fmt: skip


def ceiling(url: str, kept: Path, calls: int) -> dict[str, Any]:
    """Post the calls that a sink has kept, over and over, by the plainest loop of `requests`: one thread, one session."""
    import requests  # noqa: PLC0415 - its time to load is not the loop's

    posts = []
    for head in sorted(kept.glob("*.head")):
        first, *lines = head.read_text("ascii").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        own = {name: value for name, value in headers.items() if name.lower() not in _OWN_HEADERS}
        posts.append((url + first.split(" ")[1], own, head.with_suffix(".body").read_bytes()))
    session = requests.Session()
    began, cpu = time.perf_counter(), _cpu()
    for number in range(calls):
        address, headers, body = posts[number % len(posts)]
        session.post(address, data=body, headers=headers).raise_for_status()
    return {"calls": calls, "seconds": time.perf_counter() - began, "cpu_seconds": _cpu() - cpu, "peak_rss_mb": _peak()}


@dataclass
class Parts:
    """Seconds and calls by part; time within a part that is nested in another counts for the inner one alone."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    lock: threading.Lock = field(default_factory=threading.Lock)
    local: threading.local = field(default_factory=threading.local)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which now tells its time."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self._clock(part):
                return function(*args, **kwargs)

        return wrapper

    @contextmanager
    def _clock(self, part: str) -> Iterator[None]:
        stack: list[float] = self.local.__dict__.setdefault("stack", [])
        stack.append(0.0)
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            inner = stack.pop()
            if stack:
                stack[-1] += took
            with self.lock:
                self.seconds[part] += took - inner
                self.calls[part] += 1


def _watch(newsroom: "Newsroom") -> Parts:
    parts = Parts()
    for part, module, path in WATCHED:
        *outer, name = path.split(".")
        holder: Any = functools.reduce(getattr, outer, importlib.import_module(module))
        if hasattr(holder, name):
            setattr(holder, name, parts.timed(part, getattr(holder, name)))
    kind: Any = type(newsroom.provider)
    kind.send = parts.timed("build", kind.send)
    dialect: Any = newsroom.database.engine.dialect
    dialect.do_commit = parts.timed("sync", dialect.do_commit)
    return parts


def _newsroom(folder: Path) -> Any:
    from pipeline.newsroom import open_newsroom  # noqa: PLC0415 - the ceiling's process holds nothing of the pipeline

    newsroom = open_newsroom(folder / "config.toml", ENVIRONMENT)
    return newsroom, newsroom.schedule.slot(SLOT)


def _words(*key: object) -> str:
    *seed, number = key
    digest = hashlib.shake_256(repr(seed).encode()).digest(6 * int(str(number)))
    letters = ["bcdfghjklmnpqrstvwxz"[byte % 20] if place % 2 else "aeiou"[byte % 5] for place, byte in enumerate(digest)]
    return " ".join("".join(letters[at : at + 6]) for at in range(0, len(letters), 6)).capitalize()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Do one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.measured", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    filling = kinds.add_parser("fill")
    filling.add_argument("folder", type=Path)
    filling.add_argument("readers", type=int)
    filling.add_argument("--enrol", action="store_true")
    sending = kinds.add_parser("send")
    sending.add_argument("folder", type=Path)
    sending.add_argument("provider")
    sending.add_argument("--most", type=int)
    sending.add_argument("--watch", action="store_true")
    bare = kinds.add_parser("ceiling")
    bare.add_argument("url")
    bare.add_argument("kept", type=Path)
    bare.add_argument("calls", type=int)
    told = vars(parser.parse_args())
    roles: dict[str, Callable[..., dict[str, Any]]] = {"fill": fill, "send": send, "ceiling": ceiling}
    saw = roles[told.pop("kind")](**told)
    sys.stdout.write(json.dumps(saw) + "\n")


if __name__ == "__main__":
    main()
