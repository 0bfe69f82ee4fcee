"""What a reader wishes: which topics, in which language and time zone, and not for a while."""

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from subscribers import history, labels
from subscribers.history import What
from subscribers.models import LabelKind, Subscriber


@dataclass(frozen=True, slots=True)
class Wishes:
    """A reader's own choice. `zone` and `language` are empty where the newsletter's will do."""

    topics: frozenset[str]
    zone: str = ""
    language: str = ""
    paused_until: datetime | None = None


def of(session: Session, subscriber: Subscriber) -> Wishes:
    """What a reader wishes now."""
    number = subscriber.id or 0
    topics = frozenset(labels.of(session, [number])[number].topics)
    return Wishes(topics, subscriber.zone, subscriber.language, subscriber.paused_until)


def keep(
    session: Session, subscriber: Subscriber, wishes: Wishes, offered: frozenset[str], now: datetime, by: str = history.READER
) -> bool:
    """Write down what a reader wishes, and what has changed by that; False where nothing has.

    Topics that are not offered any more stay as they are.
    """
    number = subscriber.id or 0
    kept = frozenset(labels.of(session, [number])[number].topics) - offered
    topics_changed = labels.put(session, number, LabelKind.TOPIC, kept | (wishes.topics & offered), by, now)
    changed = {
        name: value
        for name, value in (("zone", wishes.zone), ("language", wishes.language))
        if value != getattr(subscriber, name)
    }
    was_paused = subscriber.paused_until
    paused = wishes.paused_until if wishes.paused_until and wishes.paused_until > now else None
    subscriber.zone, subscriber.language, subscriber.paused_until = wishes.zone, wishes.language, paused
    session.add(subscriber)
    if changed:
        history.note(session, [number], What.EDITED, by, now, **changed)
    if paused and paused != was_paused:
        history.note(session, [number], What.PAUSED, by, now, until=f"{paused:%Y-%m-%d}")
    elif was_paused and was_paused > now and not paused:
        history.note(session, [number], What.GOES_ON, by, now)
    return topics_changed or bool(changed) or paused != was_paused
