"""`friday serve`: the public pages and the clock in one process."""

import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from pipeline import backup, lease, place, show, uploads
from pipeline.admit import admit_all, forget_unconfirmed
from pipeline.clock import Bell, ringing
from pipeline.collect import collect
from pipeline.gate import tend
from pipeline.jobs import Done, Job, outlook
from pipeline.lease import Lease, elapsed
from pipeline.listen import apply_notices, read_mailbox
from pipeline.mail import send_due
from pipeline.newsroom import Newsroom
from pipeline.publish import look_up_unknown
from pipeline.web.pages import Server, listen
from pipeline.web.public import public_app

EVERY = timedelta(seconds=10)
LOOKS_EVERY = timedelta(minutes=10)
# Who signs up looks into the mailbox at once.
WRITES_EVERY = timedelta(seconds=3)
FORGETS_EVERY = timedelta(hours=6)
BEATS_EVERY = timedelta(seconds=10)
# How often a bell looks whether it is its turn: costs nothing, and is how soon all of them ring where another clock ended.
TURNS_EVERY = WRITES_EVERY
# What rings for files of this machine alone.
EVERYWHERE = frozenset({"uploads"})
# What a copy of the newsroom may do while nobody knows whether the other one is alive: it sends nothing, and takes
# nothing that the other one needs, such as what lies in a mailbox.
HARMLESS = frozenset({"collect", "events", "unconfirmed"})
# What a person wants to read of.
WRITTEN = frozenset({"collect", "publish", "backup", "unconfirmed"})
COPY = "copy"

log = logging.getLogger(__name__)


def serve(newsroom: Newsroom, port: int | None) -> None:
    """Serve the public pages and let the clock ring, until Ctrl-C or SIGTERM."""
    web = newsroom.config.web
    # No access log: the addresses of unsubscribe links are secrets.
    newsroom = replace(newsroom, wait=newsroom.stopping.wait)
    # Whose X-Forwarded-For is believed, `web.trusted_proxies` says; uvicorn would believe whatever runs on this machine.
    config = uvicorn.Config(public_app(newsroom), log_level="warning", access_log=False, proxy_headers=False)
    server = Server(config, newsroom.stopping)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not by an exception, which may come in the middle of anything: it ends once it runs, or has let a batch in
        # flight come home.
        signal.signal(number, server.handle_exit)
    with listen(web.host, web.port if port is None else port) as listening:
        watch = Watch(newsroom)
        watch.beat()
        # Said before anything rings, which is the next run and not the last.
        said = [f"Public pages on {web.host}:{listening.getsockname()[1]}.", *show.outlook_lines(outlook(newsroom))]
        print("\n".join(said), flush=True)  # noqa: T201 - a door's own result
        with contextlib.closing(watch), ringing(hung(newsroom, watch), newsroom.stopping):
            server.run(sockets=[listening])


@dataclass
class Watch:
    """Whether this process is the clock, and whether the newsroom is where it is at home, as the last beat found both.

    A copy that has moved leaves the clock's lease as it is, since that tells when the other one was last heard of.
    """

    newsroom: Newsroom
    moved: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        database, runner, now = self.newsroom.database, self.newsroom.runner, self.newsroom.now
        self._clock = Lease(database, lease.CLOCK, runner, now)
        self._copy = Lease(database, COPY, runner, now)

    def beat(self) -> None:
        """Look anew, and say what has changed."""
        moved, was_clock = place.settle(self.newsroom), self.is_clock
        if moved and not self.moved:
            log.error("%s", moved)
        if self.moved and not moved:
            log.info("this newsroom is at home here now")
        self.moved = moved is not None
        is_clock = self._lease.beat()
        if is_clock and not was_clock:
            log.info("this process is the clock")
        if was_clock and not is_clock:
            log.warning("another process is the clock now")

    def may_ring(self, bell: str) -> bool:
        """Whether a bell is for this process to ring now."""
        return bell in EVERYWHERE or (self.is_clock and (not self.moved or bell in HARMLESS))

    @property
    def is_clock(self) -> bool:
        """Whether this process is the one that rings."""
        return self._lease.is_mine

    @property
    def _lease(self) -> Lease:
        return self._copy if self.moved else self._clock

    def close(self) -> None:
        """Let another process be the clock."""
        # Without a database it is lost by itself.
        with contextlib.suppress(SQLAlchemyError):
            self._lease.give_up()


@dataclass
class Turn:
    """A bell that rings where it may, at once when it begins to be allowed, and then every so often."""

    bell: Bell
    ring: Callable[[], object]
    watch: Watch
    elapsed: Callable[[], float] = elapsed
    _last: float | None = field(default=None, init=False)

    def __call__(self) -> None:
        """Look whether it is its turn, and ring."""
        now = self.elapsed()
        # No look comes to the very second.
        enough = (self.bell.every - TURNS_EVERY / 2).total_seconds()
        if not self.watch.may_ring(self.bell.name):
            self._last = None
        elif self._last is None or now - self._last >= enough:
            self._last = now
            self.ring()


def hung(newsroom: Newsroom, watch: Watch) -> list[Bell]:
    """The bells of a process among several, of which one is the clock; what is done of note is written down."""
    turns = [Bell("lease", BEATS_EVERY, watch.beat)]
    for bell in bells(newsroom):
        ring = Job(newsroom, bell.name, bell.every, bell.ring) if bell.name in WRITTEN else bell.ring
        turns.append(Bell(bell.name, TURNS_EVERY, Turn(bell, ring, watch)))
    return turns


def bells(newsroom: Newsroom) -> list[Bell]:
    """What the clock of this newsroom rings for."""

    def read_all_mail() -> None:
        read_mailbox(newsroom)
        apply_notices(newsroom)

    def look_up() -> None:
        decided = look_up_unknown(newsroom)
        if decided:
            log.info("the log of %s decided %s unknown copies", newsroom.provider_name, decided)

    def write() -> None:
        admit_all(newsroom)
        send_due(newsroom)

    put_away = partial(uploads.forget_all, newsroom.config.imports, uploads.KEPT)
    collects = timedelta(hours=newsroom.config.timetable.collect_every_hours)
    rung = [Bell("collect", collects, partial(_collect, newsroom)), Bell("publish", EVERY, partial(_publish, newsroom))]
    rung += [Bell("events", EVERY, partial(apply_notices, newsroom)), Bell("unknown", LOOKS_EVERY, look_up)]
    rung += [Bell("mails", WRITES_EVERY, write), Bell("unconfirmed", FORGETS_EVERY, partial(_forget, newsroom))]
    rung += [Bell("uploads", LOOKS_EVERY, put_away), Bell("backup", LOOKS_EVERY, partial(_back_up, newsroom))]
    box = newsroom.config.mailbox
    return rung + ([Bell("mailbox", timedelta(minutes=box.every_minutes), read_all_mail)] if box else [])


def _publish(newsroom: Newsroom) -> Done | None:
    sent = tend(newsroom)
    if not sent:
        return None
    log.info("issue %s of %s is %s: %s", sent.number, sent.slot, sent.state, sent.counts)
    return Done(f"issue {sent.number} of {sent.slot} is {sent.state.replace('_', ' ')}")


def _collect(newsroom: Newsroom) -> Done:
    visits = collect(newsroom)
    for visit in visits:
        if visit.trouble:
            log.warning("source %s: %s", visit.source, visit.trouble)
    return Done(show.visits_summary(visits))


def _forget(newsroom: Newsroom) -> Done:
    gone = forget_unconfirmed(newsroom)
    return Done(f"{gone:,} who never confirmed are forgotten" if gone else "nobody was to be forgotten")


def _back_up(newsroom: Newsroom) -> Done:
    made = backup.make_due(newsroom)
    if made:
        log.info("the database is copied to %s", made)
    return Done(made.name if made else "", backup.next_at(newsroom))
