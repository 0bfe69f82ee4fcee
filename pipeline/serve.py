"""`friday serve`: the public pages and the clock in one process."""

import logging
from datetime import timedelta

import uvicorn

from pipeline.clock import Bell, ringing
from pipeline.collect import collect
from pipeline.newsroom import Newsroom
from pipeline.publish import publish_due
from pipeline.web.public import public_app

EVERY = timedelta(seconds=30)

log = logging.getLogger(__name__)


def serve(newsroom: Newsroom, port: int | None) -> None:
    """Serve the public pages and let the clock ring, until Ctrl-C or SIGTERM."""
    web = newsroom.config.web
    # No access log: the addresses of unsubscribe links are secrets.
    with ringing(bells(newsroom)):
        uvicorn.run(public_app(newsroom), host=web.host, port=port or web.port, log_level="warning", access_log=False)


def bells(newsroom: Newsroom) -> list[Bell]:
    """What the clock of this newsroom rings for."""

    def publish() -> None:
        sent = publish_due(newsroom)
        if sent:
            log.info("issue %s of %s is %s: %s", sent.number, sent.slot, sent.state, sent.counts)

    def collect_all() -> None:
        for visit in collect(newsroom):
            if visit.trouble:
                log.warning("source %s: %s", visit.source, visit.trouble)

    every = timedelta(hours=newsroom.config.timetable.collect_every_hours)
    return [Bell("collect", every, collect_all), Bell("publish", EVERY, publish)]
