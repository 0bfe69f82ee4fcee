"""All that is held of one person: shown to whom it belongs, and erased where that is asked for."""

from typing import Any

from sqlmodel import Session, col, delete, select, update

from pipeline import uploads
from pipeline.books import DeliveryRow, IssueRow, MailRow, NoticeRow
from pipeline.listen import apply_notices
from pipeline.newsroom import Newsroom
from pipeline.providers.outbox import Outbox
from subscribers import history, roll
from subscribers.models import Consent, Label, SignUp, Subscriber, Suppression, Why, Wording


def held(newsroom: Newsroom, address: str) -> dict[str, Any] | None:
    """Everything that is held of an address, as JSON can write it; None where nothing is.

    Raises:
        UsageError: not a mail address.
    """
    key = roll.normalise(address).key
    with newsroom.database.read() as session:
        subscriber = roll.by_key(session, key)
        suppression = roll.suppressed(session, key, newsroom.known_keys)
        waiting = session.exec(select(SignUp).where(SignUp.address == roll.normalise(address).written)).all()
        if subscriber is None and suppression is None and not waiting:
            return None
        return {
            "subscriber": _subscriber(session, subscriber) if subscriber else None,
            "suppression": suppression.model_dump(mode="json", exclude={"key"}) if suppression else None,
            "sign_ups": [each.model_dump(mode="json", exclude={"id"}) for each in waiting],
        }


def _subscriber(session: Session, subscriber: Subscriber) -> dict[str, Any]:
    this = subscriber.id
    labels = session.exec(select(Label).where(Label.subscriber_id == this)).all()
    consents = session.exec(
        select(Consent, Wording.text)
        .join(Wording, col(Wording.digest) == col(Consent.wording))
        .where(Consent.subscriber_id == this)
        .order_by(col(Consent.id))
    ).all()
    copies = session.execute(
        select(IssueRow.slot, IssueRow.number)
        .add_columns(col(DeliveryRow.state), col(DeliveryRow.fate), col(DeliveryRow.reason), col(DeliveryRow.changed_at))
        .join(DeliveryRow, col(DeliveryRow.issue_id) == col(IssueRow.id))
        .where(col(DeliveryRow.subscriber_id) == this)
        .order_by(col(IssueRow.slot))
    ).mappings()
    mails = session.exec(select(MailRow).where(MailRow.subscriber_id == this).order_by(col(MailRow.id))).all()
    changes = history.of(session, this or 0)
    return {
        **subscriber.model_dump(mode="json", exclude={"id", "key"}),
        "topics": sorted(each.name for each in labels if each.kind == "topic"),
        "tags": sorted(each.name for each in labels if each.kind == "tag"),
        "consents": [
            {**each.model_dump(mode="json", exclude={"id", "subscriber_id", "wording"}), "text": words}
            for each, words in consents
        ],
        "changes": [each.model_dump(mode="json", exclude={"id", "subscriber_id"}) for each in changes],
        "issues": [{**copy, "changed_at": copy["changed_at"].isoformat()} for copy in copies],
        "mails": [
            each.model_dump(mode="json", include={"kind", "state", "queued_at", "settled_at", "trouble"}) for each in mails
        ],
    }


def erase(newsroom: Newsroom, address: str) -> bool:
    """Remove an address wherever it stands; False where it stood nowhere.

    What is kept is a keyed hash, by which nobody but the person brings it back, and nobody at all where it has
    bounced or complained. Copies that were on their way become copies of nobody; what still waits is not sent.

    Raises:
        UsageError: not a mail address, or files that may name it cannot be deleted; nothing was erased.
    """
    normal = roll.normalise(address)
    # What came in about it has its effect first; after that it is forgotten by itself.
    apply_notices(newsroom)
    uploads.forget_all(newsroom.config.imports)
    with newsroom.database.write() as session:
        subscriber = session.exec(select(Subscriber).where(Subscriber.key == normal.key).with_for_update()).first()
        refs = _refs(session, subscriber)
        suppression = session.get(Suppression, normal.key)
        sign_ups = session.exec(delete(SignUp).where(col(SignUp.address) == normal.written)).rowcount
        own = _mails_by_address(session, normal.key)
        if not (subscriber or suppression or sign_ups or own):
            return False
        session.execute(delete(MailRow).where(col(MailRow.ref).in_(own)))
        for row in (subscriber, suppression):
            if row:
                session.delete(row)
        session.flush()
        _forget_notices(session, {normal.written, normal.key, subscriber.address if subscriber else normal.written})
        if roll.suppressed(session, normal.key, newsroom.keys) is None:
            why = suppression.why if suppression else Why.ERASED
            session.add(Suppression(key=newsroom.keys.blind(normal.key), why=why, since=newsroom.now()))
    if isinstance(newsroom.provider, Outbox):
        newsroom.provider.forget({*refs, *own})
    newsroom.database.scrub()
    return True


def _refs(session: Session, subscriber: Subscriber | None) -> set[str]:
    """By what its copies and mails are known outside."""
    if subscriber is None:
        return set()
    copies = session.exec(select(DeliveryRow.ref).where(DeliveryRow.subscriber_id == subscriber.id)).all()
    mails = session.exec(select(MailRow.ref).where(MailRow.subscriber_id == subscriber.id)).all()
    return {*copies, *mails}


def _mails_by_address(session: Session, key: str) -> list[str]:
    """The mails and tests that went to an address because somebody works on the newsletter there."""
    mails = session.exec(select(MailRow.ref, MailRow.address).where(MailRow.address != "")).all()
    return [ref for ref, address in mails if roll.normalise(address).key == key]


def _forget_notices(session: Session, spellings: set[str]) -> None:
    """Blank what could not be read or applied and names the address; what was applied is blank already."""
    for spelling in spellings:
        naming = col(NoticeRow.body).icontains(spelling, autoescape=True)
        session.execute(update(NoticeRow).where(naming).values(body=""))
