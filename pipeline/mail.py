"""The single mails: queued in the transaction that gives rise to them, rendered when they leave, sent once.

They go through the same provider as issues. A mail that nobody can tell of is asked for again only under a key
that the provider honours; else it stays unknown, since a second one would be one too many.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlmodel import Session, col, func, select, update

from pipeline import ledger, place
from pipeline.books import MailRow, MailState
from pipeline.errors import AccountRefused, CallRefused, ContentError, NotProcessed, ProviderError
from pipeline.issue import Copy, Parcel, Receipt, RenderedIssue
from pipeline.newsroom import Newsroom
from pipeline.render import render_mail
from pipeline.text import printable
from pipeline.wire import redact
from subscribers import links, roll
from subscribers.models import State, Subscriber, Suppression

AT_A_TIME = 20
# Longer than any call lasts: whoever claimed a mail before that is gone.
GIVEN_UP_AFTER = timedelta(minutes=10)
ACCOUNT_MENDED_IN = timedelta(minutes=15)
LONGEST_WAIT = timedelta(hours=2)
MOST_ATTEMPTS = 12
CONFIRM = "confirm"
TEST = "test"
# What is told to those who work on the newsletter, by address.
STAFF = ("drafted", "reminder", "waits", "missed", "stuck", "report")

log = logging.getLogger(__name__)


def queue(session: Session, kind: str, subscriber_id: int, now: datetime, about: Mapping[str, str] | None = None) -> None:
    """Have a mail sent to a subscriber. `about` is what its template needs to know besides the reader."""
    row = MailRow(ref=uuid.uuid4().hex, kind=kind, subscriber_id=subscriber_id, queued_at=now, due_at=now)
    row.about = dict(about or {})
    session.add(row)


def queue_for_staff(session: Session, kind: str, addresses: Iterable[str], now: datetime, about: Mapping[str, str]) -> None:
    """Have a mail sent to each of those who work on the newsletter."""
    for address in dict.fromkeys(addresses):
        row = MailRow(ref=uuid.uuid4().hex, kind=kind, address=address, queued_at=now, due_at=now)
        row.about = dict(about)
        session.add(row)


def queued_since(session: Session, subscriber_id: int, kinds: Sequence[str], since: datetime) -> int:
    """How many mails of these kinds a subscriber was sent, or will be, since then."""
    query = select(func.count(col(MailRow.id))).where(
        MailRow.subscriber_id == subscriber_id, col(MailRow.kind).in_(kinds), MailRow.queued_at > since
    )
    return session.exec(query).one()


def troubles(session: Session, kind: str, since: datetime) -> list[str]:
    """What keeps each mail of a kind that was queued since then from being on its way."""
    query = select(MailRow).where(MailRow.kind == kind, col(MailRow.queued_at) >= since)
    stuck = col(MailRow.state).in_((MailState.FAILED, MailState.UNKNOWN)) | (
        (col(MailRow.state) == MailState.QUEUED) & (col(MailRow.trouble) != "")
    )
    return [f"{row.state}: {row.trouble}" for row in session.exec(query.where(stuck).order_by(col(MailRow.id)))]


def send_due(newsroom: Newsroom) -> int:
    """Send every mail whose time has come; how many were handed over.

    Raises:
        ContentError: a template is missing or broken; its mails wait.
        AccountRefused: nothing is sent before a person acts; all mails wait.
        DecisionNeeded: this is a copy of the newsroom.
    """
    place.require(newsroom)
    _settle_the_lost(newsroom)
    sent = 0
    while not newsroom.stopping.is_set():
        claimed = _claim(newsroom)
        if not claimed:
            break
        trouble: ContentError | AccountRefused | None = None
        for mail in claimed:
            try:
                sent += _send(newsroom, mail)
            except (ContentError, AccountRefused) as error:
                trouble = error
                _put_off(newsroom, mail, str(error), ACCOUNT_MENDED_IN)
        if trouble:
            raise trouble
    return sent


def _claim(newsroom: Newsroom) -> Sequence[MailRow]:
    """Mails that are due, committed as sending before anything of them leaves."""
    now = newsroom.now()
    with newsroom.database.write() as session:
        due = select(MailRow).where(
            col(MailRow.settled_at).is_(None), MailRow.state == MailState.QUEUED, col(MailRow.due_at) <= now
        )
        rows = session.exec(
            due.order_by(col(MailRow.due_at), col(MailRow.id)).limit(AT_A_TIME).with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            row.state, row.attempts, row.attempted_at = MailState.SENDING, row.attempts + 1, now
    return rows


def _send(newsroom: Newsroom, mail: MailRow) -> int:
    with newsroom.database.read() as session:
        subscriber = session.get(Subscriber, mail.subscriber_id) if mail.subscriber_id else None
        key = subscriber.key if subscriber else roll.normalise(mail.address).key if mail.address else ""
        barred = session.get(Suppression, key)
    # Who has left gets no welcome, and who is in needs not confirm.
    fits = subscriber and (subscriber.state == State.ACTIVE) != (mail.kind == CONFIRM)
    if barred or not (fits or mail.address):
        why = f"suppressed ({barred.why})" if barred else subscriber.state if subscriber else "erased"
        _settle(newsroom, mail, MailState.FAILED, f"not sent: {why}")
        return 0
    rendered, copy = _made(newsroom, mail, subscriber)
    # The same key always means the same bytes: the date is that of the queue, however often it is tried.
    parcel = Parcel(mail.ref, mail.queued_at.replace(microsecond=0), (copy,))
    try:
        receipts = newsroom.provider.send(rendered, parcel)
    except AccountRefused:
        raise
    except NotProcessed as error:
        _put_off(newsroom, mail, str(error), error.retry_after)
    except CallRefused as error:
        _settle(newsroom, mail, MailState.FAILED, str(error))
    except ProviderError as error:
        _nobody_can_tell(newsroom, mail, str(error))
    else:
        return _take(newsroom, mail, next((each for each in receipts if each.ref == mail.ref), None))
    return 0


def _made(newsroom: Newsroom, mail: MailRow, subscriber: Subscriber | None) -> tuple[RenderedIssue, Copy]:
    base = newsroom.masthead.base_url
    if subscriber:
        rendered = rendered_for(newsroom, mail.kind, subscriber, mail.about)
        return rendered, Copy(mail.ref, subscriber.address, links.leave_url(base, subscriber.token))
    if mail.kind == TEST:
        issue = RenderedIssue.from_json(mail.about["issue"])
        # All that differs from a reader's copy: it says so, it counts under another name, and nobody leaves by it.
        rendered = replace(issue, subject=f"[TEST] {issue.subject}", slot=f"{issue.slot}-test", mailbox="")
        return rendered, Copy(mail.ref, mail.address, links.leave_url(base, links.OF_A_TEST))
    values = {"desk_url": f"{base}/newsroom/desk/{mail.about['slot']}", **mail.about}
    rendered = render_mail(mail.kind, newsroom.masthead, values, newsroom.config.templates / "mail")
    return rendered, Copy(mail.ref, mail.address, "")


def _take(newsroom: Newsroom, mail: MailRow, receipt: Receipt | None) -> int:
    if receipt is None:
        _nobody_can_tell(newsroom, mail, "the provider did not answer for it")
    elif receipt.accepted:
        _settle(newsroom, mail, MailState.SENT, provider_id=receipt.provider_id)
        return 1
    elif receipt.later:
        _put_off(newsroom, mail, receipt.reason, None)
    else:
        _settle(newsroom, mail, MailState.FAILED, receipt.reason)
    return 0


def _nobody_can_tell(newsroom: Newsroom, mail: MailRow, trouble: str) -> None:
    lifetime = newsroom.provider.limits.key_lifetime
    if lifetime and newsroom.now() - mail.queued_at < lifetime:
        _put_off(newsroom, mail, trouble, None)
    else:
        _settle(newsroom, mail, MailState.UNKNOWN, trouble)


def _settle_the_lost(newsroom: Newsroom) -> None:
    """Decide about mails whose sender is gone."""
    with newsroom.database.read() as session:
        lost = session.exec(
            select(MailRow).where(
                col(MailRow.settled_at).is_(None),
                MailRow.state == MailState.SENDING,
                col(MailRow.attempted_at) <= newsroom.now() - GIVEN_UP_AFTER,
            )
        ).all()
    for mail in lost:
        _nobody_can_tell(newsroom, mail, "the call ended before the answer")


def _put_off(newsroom: Newsroom, mail: MailRow, trouble: str, wait: timedelta | None) -> None:
    if mail.attempts >= MOST_ATTEMPTS:
        _settle(newsroom, mail, MailState.FAILED, f"given up after {mail.attempts} times: {trouble}")
        return
    wait = wait or min(timedelta(minutes=2 ** (mail.attempts - 1)), LONGEST_WAIT)
    _move(newsroom, mail, state=MailState.QUEUED, due_at=newsroom.now() + wait, trouble=redact(printable(trouble)))


def _settle(newsroom: Newsroom, mail: MailRow, state: MailState, trouble: str = "", provider_id: str = "") -> None:
    if state is not MailState.SENT:
        log.warning("a mail of the kind %s is %s: %s", mail.kind, state.value, redact(printable(trouble)))
    shown = redact(printable(trouble))
    # The bytes of a test lie in its row until it is sent.
    kept = {"about": {"slot": mail.about["slot"]}} if mail.kind == TEST else {}
    _move(newsroom, mail, state=state, settled_at=newsroom.now(), trouble=shown, provider_id=printable(provider_id), **kept)


def _move(newsroom: Newsroom, mail: MailRow, **values: object) -> None:
    """The guarded arrow from this very attempt: who comes late changes nothing."""
    this_attempt = (col(MailRow.state) == MailState.SENDING) & (col(MailRow.attempts) == mail.attempts)
    with newsroom.database.write() as session:
        moving = update(MailRow).where(col(MailRow.id) == mail.id, this_attempt).values(**values)
        session.exec(moving.execution_options(synchronize_session=False))


def rendered_for(newsroom: Newsroom, kind: str, subscriber: Subscriber, about: Mapping[str, str]) -> RenderedIssue:
    """A mail as its templates make it now.

    Raises:
        ContentError: a template is missing or broken.
    """
    values = _VALUES[kind](newsroom, subscriber, about)
    return render_mail(kind, newsroom.masthead, values, newsroom.config.templates / "mail")


def _confirm(newsroom: Newsroom, _subscriber: Subscriber, about: Mapping[str, str]) -> dict[str, object]:
    token = newsroom.keys.sign(links.CONFIRM, int(about["consent"]))
    return {"confirm_url": links.confirm_url(newsroom.masthead.base_url, token)}


def _own_pages(newsroom: Newsroom, subscriber: Subscriber, _about: Mapping[str, str]) -> dict[str, object]:
    base = newsroom.masthead.base_url
    return {
        "preferences_url": links.preferences_url(base, subscriber.token),
        "unsubscribe_url": links.leave_url(base, subscriber.token),
    }


def _welcome(newsroom: Newsroom, subscriber: Subscriber, about: Mapping[str, str]) -> dict[str, object]:
    with newsroom.database.read() as session:
        slot = ledger.coming(session, newsroom.schedule, newsroom.now())
        latest = ledger.newest(session)
    return {
        **_own_pages(newsroom, subscriber, about),
        "next_issue": f"{slot.day:%A, %-d %B %Y}",
        "latest_url": f"{newsroom.masthead.base_url}/issues/{latest.slot}" if latest else "",
    }


_VALUES: dict[str, Callable[[Newsroom, Subscriber, Mapping[str, str]], dict[str, object]]] = {
    CONFIRM: _confirm,
    "known": _own_pages,
    "welcome": _welcome,
}
