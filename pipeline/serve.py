"""`friday serve`: the public pages and the clock in one process."""

import contextlib
import logging
import signal
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import FrameType

import uvicorn

from pipeline import uploads
from pipeline.admit import admit_all, forget_unconfirmed
from pipeline.clock import Bell, ringing
from pipeline.collect import collect
from pipeline.gate import tend
from pipeline.listen import apply_notices, read_mailbox
from pipeline.mail import send_due
from pipeline.newsroom import Newsroom
from pipeline.publish import look_up_unknown
from pipeline.web.pages import Server, listen
from pipeline.web.public import public_app

EVERY = timedelta(seconds=30)
HEARS_EVERY = timedelta(seconds=10)
LOOKS_EVERY = timedelta(minutes=10)
# Who signs up looks into the mailbox at once.
WRITES_EVERY = timedelta(seconds=3)
FORGETS_EVERY = timedelta(hours=6)

log = logging.getLogger(__name__)


def serve(newsroom: Newsroom, port: int | None) -> None:
    """Serve the public pages and let the clock ring, until Ctrl-C or SIGTERM."""
    web = newsroom.config.web
    # No access log: the addresses of unsubscribe links are secrets.
    newsroom = replace(newsroom, wait=newsroom.stopping.wait)
    signal.signal(signal.SIGTERM, _leave)
    with listen(web.host, port or web.port) as listening, ringing(bells(newsroom), newsroom.stopping):
        slot = newsroom.schedule.current(newsroom.now())
        opens = slot.at.astimezone(newsroom.schedule.zone)
        print(f"Public pages on {web.host}:{port or web.port}; the slot {slot.name} opens at {opens:%H:%M %Z}.", flush=True)  # noqa: T201 - a door's own result
        # Whose X-Forwarded-For is believed, `web.trusted_proxies` says; uvicorn would believe whatever runs on this machine.
        config = uvicorn.Config(public_app(newsroom), log_level="warning", access_log=False, proxy_headers=False)
        with contextlib.suppress(KeyboardInterrupt):
            Server(config, newsroom.stopping).run(sockets=[listening])


def _leave(_signal: int, _frame: FrameType | None) -> None:
    # uvicorn stops at the signal, then raises it again; by default that would end the process before the
    # clock has let a batch in flight come home.
    raise KeyboardInterrupt


def bells(newsroom: Newsroom) -> list[Bell]:
    """What the clock of this newsroom rings for."""

    def publish() -> None:
        sent = tend(newsroom)
        if sent:
            log.info("issue %s of %s is %s: %s", sent.number, sent.slot, sent.state, sent.counts)

    def collect_all() -> None:
        for visit in collect(newsroom):
            if visit.trouble:
                log.warning("source %s: %s", visit.source, visit.trouble)

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
    rung = [Bell("collect", collects, collect_all), Bell("publish", EVERY, publish)]
    rung += [Bell("events", HEARS_EVERY, partial(apply_notices, newsroom)), Bell("unknown", LOOKS_EVERY, look_up)]
    rung += [Bell("mails", WRITES_EVERY, write), Bell("unconfirmed", FORGETS_EVERY, partial(forget_unconfirmed, newsroom))]
    rung += [Bell("uploads", LOOKS_EVERY, put_away)]
    box = newsroom.config.mailbox
    return rung + ([Bell("mailbox", timedelta(minutes=box.every_minutes), read_all_mail)] if box else [])
