"""The other side road: what providers and mail servers tell later, heard, kept and applied."""

import logging
from collections.abc import Mapping, Sequence

from sqlalchemy.exc import InterfaceError, OperationalError

from pipeline import events, mailbox
from pipeline.books import NoticeRow
from pipeline.errors import Forged
from pipeline.issue import Event, Notice
from pipeline.newsroom import Newsroom
from pipeline.providers import WEBHOOK_KEY
from pipeline.wire import redact

MAILBOX = "mailbox"
AT_A_TIME = 500

log = logging.getLogger(__name__)


def hear(newsroom: Newsroom, name: str, headers: Mapping[str, str], body: bytes) -> int:
    """Keep what a provider tells, to be applied later; how much of it was new.

    Args:
        newsroom: whose provider it should be.
        name: the provider that the call says it comes from.
        headers: of the call, their names in lower case.
        body: of the call, untouched.

    Raises:
        Forged: it is not from the provider, or nobody listens to that provider here.
    """
    hook = newsroom.provider.hook
    if name != newsroom.provider_name:
        raise Forged("no provider of that name is configured")
    if hook is None:
        raise Forged(f"nobody listens to {newsroom.provider_name}: it has no webhooks, or {WEBHOOK_KEY} is not set")
    notices = hook.hear(headers, body, newsroom.now())
    with newsroom.database.write() as session:
        return events.keep(session, name, notices, newsroom.now())


def read_mailbox(newsroom: Newsroom) -> int:
    """Keep what lies in the mailbox, and mark it as seen there; how much of it was new.

    Raises:
        ProviderError: the mailbox cannot be read now.
    """
    box = newsroom.config.mailbox
    if box is None:
        return 0
    new = 0

    def keep(notices: Sequence[Notice]) -> None:
        nonlocal new
        with newsroom.database.write() as session:
            new += events.keep(session, MAILBOX, notices, newsroom.now())

    mailbox.look_into(box, newsroom.config.secrets, keep)
    return new


def apply_notices(newsroom: Newsroom) -> int:
    """Apply what was kept; how many notices. One that makes trouble is set aside, and the others are not held up.

    What a provider told waits while the secret of its webhooks is not set.
    """
    deaf_to = newsroom.provider_name if newsroom.provider.hook is None else ""
    applied = 0
    while True:
        with newsroom.database.read() as session:
            notices = events.waiting(session, AT_A_TIME, deaf_to)
        for notice in notices:
            if newsroom.stopping.is_set():
                return applied
            _apply(newsroom, notice)
            applied += 1
        if len(notices) < AT_A_TIME:
            return applied


def _apply(newsroom: Newsroom, notice: NoticeRow) -> None:
    try:
        told = _read(newsroom, notice)
    except ValueError as error:
        _set_aside(newsroom, notice, f"cannot be read: {redact(str(error))}")
        return
    try:
        with newsroom.database.write() as session:
            if events.finish(session, notice, newsroom.now()):
                for event in told:
                    events.apply(session, event, newsroom.now())
    except (OperationalError, InterfaceError):
        # The database is not to be had; the notice has done nothing, and waits for it.
        raise
    except Exception as error:  # noqa: BLE001 - whatever one notice holds, the next ones may be complaints
        _set_aside(newsroom, notice, f"cannot be applied: {type(error).__name__}")


def _set_aside(newsroom: Newsroom, notice: NoticeRow, trouble: str) -> None:
    with newsroom.database.write() as session:
        if events.finish(session, notice, newsroom.now(), trouble):
            log.warning("notice %s of %s %s", notice.id, notice.origin, trouble)


def _read(newsroom: Newsroom, notice: NoticeRow) -> list[Event]:
    if notice.origin == MAILBOX:
        return mailbox.read(notice.body)
    if newsroom.provider.hook is None or notice.origin != newsroom.provider_name:
        raise ValueError(f"{notice.origin} is not the provider any more")
    return newsroom.provider.hook.read(notice.body)
