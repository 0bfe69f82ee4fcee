"""What a reader wishes: which topics, in which language and time zone, and not for a while."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete
from sqlmodel import Session, col, select

from subscribers import history
from subscribers.history import What
from subscribers.models import Label, LabelKind, Subscriber


@dataclass(frozen=True, slots=True)
class Wishes:
    """A reader's own choice. `zone` and `language` are empty where the newsletter's will do."""

    topics: frozenset[str]
    zone: str = ""
    language: str = ""
    paused_until: datetime | None = None


def of(session: Session, subscriber: Subscriber) -> Wishes:
    """What a reader wishes now."""
    return Wishes(_topics(session, subscriber), subscriber.zone, subscriber.language, subscriber.paused_until)


def keep(
    session: Session, subscriber: Subscriber, wishes: Wishes, offered: frozenset[str], now: datetime, by: str = history.READER
) -> bool:
    """Write down what a reader wishes, and what has changed by that; False where nothing has.

    Topics that are not offered any more stay as they are.
    """
    before = _topics(session, subscriber)
    changed = {
        name: str(value)
        for name, value in (("zone", wishes.zone), ("language", wishes.language))
        if value != getattr(subscriber, name)
    }
    added, dropped = (wishes.topics & offered) - before, (before & offered) - wishes.topics
    if added or dropped:
        changed["topics"] = ", ".join(sorted(before - dropped | added))
    was_paused = subscriber.paused_until
    paused = wishes.paused_until if wishes.paused_until and wishes.paused_until > now else None
    subscriber.zone, subscriber.language, subscriber.paused_until = wishes.zone, wishes.language, paused
    session.add(subscriber)
    number = subscriber.id or 0
    of_subscriber = (col(Label.subscriber_id) == number) & (col(Label.kind) == LabelKind.TOPIC)
    if dropped:
        session.execute(delete(Label).where(of_subscriber, col(Label.name).in_(dropped)))
    for name in sorted(added):
        session.add(Label(subscriber_id=number, kind=LabelKind.TOPIC, name=name))
    if changed:
        history.note(session, [number], What.EDITED, by, now, **changed)
    if paused and paused != was_paused:
        history.note(session, [number], What.PAUSED, by, now, until=f"{paused:%Y-%m-%d}")
    elif was_paused and was_paused > now and not paused:
        history.note(session, [number], What.GOES_ON, by, now)
    return bool(changed) or paused != was_paused


def _topics(session: Session, subscriber: Subscriber) -> frozenset[str]:
    names = select(Label.name).where(Label.subscriber_id == subscriber.id, Label.kind == LabelKind.TOPIC)
    return frozenset(session.exec(names).all())
