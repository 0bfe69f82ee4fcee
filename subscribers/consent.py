"""From a form to a reader: what was sent in is kept, applied later, and confirmed by the person.

Every function takes a session and commits nothing itself.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import exists
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, delete, select

from subscribers import history, labels, roll
from subscribers.history import What
from subscribers.keys import Keys
from subscribers.models import Consent, LabelKind, SignUp, State, Subscriber, Suppression, Why, Wording

# A link that confirms is good for so long; who never used one is forgotten after a month.
CONFIRM_WITHIN = timedelta(days=7)
FORGOTTEN_AFTER = timedelta(days=30)
AGENT_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Proof:
    """Where something was asked for or confirmed from: a network, cut to /24 or /48, and what the browser calls itself."""

    network: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a form sent in. `wording` is the text that stood beside it."""

    address: roll.Address
    form: str
    wording: str
    proof: Proof
    name: str = ""
    topics: tuple[str, ...] = ()


class Answer(StrEnum):
    """Which mail a sign-up is answered with."""

    CONFIRM = "confirm"
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came of a sign-up: whom to write, and of which consent; `answer` is None where nobody may be written to."""

    answer: Answer | None
    subscriber_id: int = 0
    consent_id: int = 0


class Confirmed(StrEnum):
    """What came of following a link that confirms."""

    WELCOME = "welcome"
    ALREADY = "already"
    TOO_LATE = "too late"
    BARRED = "barred"
    UNKNOWN = "unknown"


def keep(session: Session, asked: Asked, now: datetime) -> None:
    """Keep what a form sent in, as it came. That takes the same steps whoever it is about."""
    digest = hashlib.sha256(asked.wording.encode()).hexdigest()
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(insert(Wording).values(digest=digest, text=asked.wording, since=now).on_conflict_do_nothing())
    session.add(
        SignUp(
            address=asked.address.written,
            name=roll.clean_name(asked.name),
            topics=list(asked.topics),
            form=asked.form,
            wording=digest,
            network=asked.proof.network,
            agent=asked.proof.agent[:AGENT_LIMIT],
            came_at=now,
        )
    )


def waiting(session: Session, most: int) -> Sequence[SignUp]:
    """The oldest sign-ups that are not applied yet."""
    return session.exec(select(SignUp).order_by(col(SignUp.id)).limit(most)).all()


def admit(session: Session, sign_up: SignUp, keys: Keys, now: datetime) -> Admitted | None:
    """Apply a sign-up; None if somebody else has done so.

    A new address becomes pending. Whoever is on the roll stays as they are until they confirm; an active reader
    is told so. Of suppressed addresses only an erased one may come back.
    """
    taken = session.exec(delete(SignUp).where(col(SignUp.id) == sign_up.id))
    if taken.rowcount == 0:
        return None
    address = roll.normalise(sign_up.address)
    if _is_barred(session, address.key, keys):
        return Admitted(None)
    subscriber = roll.by_key(session, address.key) or _new(session, sign_up, address, now)
    if subscriber.id is None:
        raise RuntimeError("a subscriber that was just stored has no number")
    if subscriber.state == State.ACTIVE:
        return Admitted(Answer.KNOWN, subscriber.id)
    consent = Consent(
        subscriber_id=subscriber.id,
        form=sign_up.form,
        wording=sign_up.wording,
        asked_at=sign_up.came_at,
        asked_network=sign_up.network,
        asked_agent=sign_up.agent,
    )
    session.add(consent)
    session.flush()
    history.note(session, [subscriber.id], What.ASKED, history.READER, sign_up.came_at, form=sign_up.form)
    return Admitted(Answer.CONFIRM, subscriber.id, consent.id or 0)


def _new(session: Session, sign_up: SignUp, address: roll.Address, now: datetime) -> Subscriber:
    pending = Subscriber(
        address=address.written,
        key=address.key,
        name=sign_up.name,
        state=State.PENDING,
        source=f"form: {sign_up.form}",
        joined=now,
    )
    roll.add_new(session, [pending])
    stored = roll.by_key(session, address.key)
    if stored is None or stored.id is None:
        raise RuntimeError("a subscriber that was just stored is not there")
    if sign_up.topics:
        labels.put(session, stored.id, LabelKind.TOPIC, sign_up.topics, history.READER, now)
    return stored


def find(session: Session, consent_id: int) -> tuple[Consent, Subscriber] | None:
    """A consent and whose it is."""
    found = session.exec(
        select(Consent, Subscriber)
        .join(Subscriber, col(Subscriber.id) == col(Consent.subscriber_id))
        .where(Consent.id == consent_id)
    ).first()
    return (found[0], found[1]) if found else None


def _is_barred(session: Session, key: str, keys: Keys) -> bool:
    """Whether an address must not even be asked for a confirmation: it is suppressed, and not only because it was erased."""
    suppression = roll.suppressed(session, key, keys)
    return suppression is not None and suppression.why != Why.ERASED


def stands(session: Session, consent: Consent, subscriber: Subscriber, keys: Keys, now: datetime) -> Confirmed:
    """What following the link of this consent would come to."""
    if consent.void_at:
        return Confirmed.TOO_LATE
    if subscriber.state == State.ACTIVE and consent.confirmed_at:
        return Confirmed.ALREADY
    if now > consent.asked_at + CONFIRM_WITHIN:
        return Confirmed.TOO_LATE
    return Confirmed.BARRED if _is_barred(session, subscriber.key, keys) else Confirmed.WELCOME


def confirm(session: Session, consent_id: int, proof: Proof, keys: Keys, now: datetime) -> tuple[Confirmed, Subscriber | None]:
    """Make a reader of the person who asked. A second time changes nothing.

    It lifts that the address was erased, and no other suppression.
    """
    found = find(session, consent_id)
    if found is None:
        return Confirmed.UNKNOWN, None
    consent, subscriber = found
    session.exec(select(Subscriber.id).where(Subscriber.id == subscriber.id).with_for_update()).one()
    session.refresh(consent)
    session.refresh(subscriber)
    outcome = stands(session, consent, subscriber, keys, now)
    if outcome is not Confirmed.WELCOME:
        return outcome, subscriber
    consent.confirmed_at, consent.confirmed_network, consent.confirmed_agent = now, proof.network, proof.agent[:AGENT_LIMIT]
    if subscriber.state == State.ACTIVE:
        return Confirmed.ALREADY, subscriber
    what = What.CAME_BACK if subscriber.state == State.UNSUBSCRIBED else What.CONFIRMED
    subscriber.state, subscriber.joined, subscriber.left, subscriber.paused_until = State.ACTIVE, now, None, None
    lifted = session.exec(
        delete(Suppression).where(col(Suppression.key).in_(keys.blinded(subscriber.key)), col(Suppression.why) == Why.ERASED)
    )
    history.note(session, [subscriber.id or 0], what, history.READER, now)
    if lifted.rowcount:
        history.note(session, [subscriber.id or 0], What.LIFTED, history.READER, now, why=Why.ERASED.value)
    return Confirmed.WELCOME, subscriber


def forget_unconfirmed(session: Session, now: datetime) -> int:
    """Delete who asked a month ago and never confirmed; how many."""
    asked_lately = exists().where(
        col(Consent.subscriber_id) == col(Subscriber.id), col(Consent.asked_at) > now - FORGOTTEN_AFTER
    )
    gone = session.exec(
        delete(Subscriber).where(
            col(Subscriber.state) == State.PENDING, col(Subscriber.joined) <= now - FORGOTTEN_AFTER, ~asked_lately
        )
    )
    return gone.rowcount
