"""The other side road: what providers and mail servers tell later, heard, kept and applied."""

import logging
from collections.abc import Mapping, Sequence

from pipeline import events, mailbox
from pipeline.books import NoticeRow
from pipeline.errors import Forged
from pipeline.issue import Event, Notice
from pipeline.newsroom import Newsroom

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
    if hook is None or name != newsroom.provider_name:
        raise Forged(f"nobody listens to {name} here")
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
    """Apply what was kept; how many notices. One that cannot be read is set aside, and the others are not held up."""
    applied = 0
    while True:
        with newsroom.database.read() as session:
            notices = events.waiting(session, AT_A_TIME)
        for notice in notices:
            if newsroom.stopping.is_set():
                return applied
            _apply(newsroom, notice)
            applied += 1
        if len(notices) < AT_A_TIME:
            return applied


def _apply(newsroom: Newsroom, notice: NoticeRow) -> None:
    told: list[Event] = []
    trouble = ""
    try:
        told = _read(newsroom, notice)
    except ValueError as error:
        trouble = str(error) or "cannot be read"
        log.warning("a notice of %s cannot be read: %s", notice.origin, trouble)
    with newsroom.database.write() as session:
        if events.finish(session, notice, newsroom.now(), trouble):
            for event in told:
                events.apply(session, event, newsroom.now())


def _read(newsroom: Newsroom, notice: NoticeRow) -> list[Event]:
    if notice.origin == MAILBOX:
        return mailbox.read(notice.body)
    if newsroom.provider.hook is None or notice.origin != newsroom.provider_name:
        raise ValueError(f"{notice.origin} is not the provider any more")
    return newsroom.provider.hook.read(notice.body)
