"""The roll: add, find, list, unsubscribe, suppress. Every function takes a session and commits nothing itself."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from email_validator import EmailNotValidError, validate_email
from sqlalchemy import ColumnElement, bindparam, func
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select, update

from pipeline.database import Utc
from pipeline.errors import UsageError
from subscribers import history, names
from subscribers.history import What
from subscribers.keys import Keys
from subscribers.models import Consent, State, Subscriber, Suppression, Why

NAME_LIMIT = 200
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True, slots=True)
class Address:
    """A mail address as it is written to, and as it is compared."""

    written: str
    key: str


def normalise(text: str) -> Address:
    """A mail address in its normal form.

    Raises:
        UsageError: it is none; the message does not repeat it.
    """
    try:
        valid = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        # What stands in brackets or quotes repeats a part of the address.
        reason = re.split(r"[('\"]", str(error))[0].rstrip(" :.")
        raise UsageError(f"not a mail address: {reason}") from None
    return Address(valid.normalized, valid.normalized.casefold())


def clean_name(name: str) -> str:
    """A name that can stand in a header: no control or line characters, at most 200 characters."""
    return " ".join("".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in name).split())[:NAME_LIMIT]


@dataclass(frozen=True, slots=True)
class Added:
    """What came of adding an address."""

    subscriber: Subscriber
    new: bool


def add(
    session: Session, address: str, now: datetime, name: str = "", source: str = history.COMMAND, keys: Keys | None = None
) -> Added:
    """Put an address on the roll as active; one that is there already, in whatever state, stays as it is.

    Args:
        session: to write with.
        address: as it was typed.
        now: when.
        name: as the person writes it.
        source: who put it there.
        keys: by which an address that was erased is known again.

    Raises:
        UsageError: not a mail address, or one that is suppressed.
    """
    normal = normalise(address)
    found = by_key(session, normal.key)
    if found:
        return Added(found, new=False)
    suppression = suppressed(session, normal.key, keys)
    if suppression:
        own_way = "; only a sign-up of the person's own brings it back" if suppression.why == Why.ERASED else ""
        raise UsageError(
            f"this address is suppressed since {suppression.since:%Y-%m-%d} ({suppression.why}); nothing was added{own_way}"
        )
    subscriber = Subscriber(address=normal.written, key=normal.key, name=clean_name(name), source=source, joined=now)
    new = add_new(session, [subscriber]) == 1
    there = by_key(session, normal.key)
    return Added(there or subscriber, new=new)


def add_new(session: Session, subscribers: Sequence[Subscriber]) -> int:
    """Put people on the roll whose address is not there; how many there were.

    Somebody else may add the same address at this moment, so the database decides, and says no names.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    rows = [each.model_dump(exclude={"id"}) for each in subscribers]
    new = insert(Subscriber).on_conflict_do_nothing(index_elements=["key"])
    added = session.execute(new.returning(col(Subscriber.id), col(Subscriber.name)), rows).all()
    names.index(session, ((each, name) for each, name in added))
    return len(added)


def suppressed(session: Session, key: str, keys: Keys | None) -> Suppression | None:
    """The suppression of a compared address, also of one that was erased, if there are keys to know it by."""
    known_as = [key, *(keys.blinded(key) if keys else ())]
    return session.exec(select(Suppression).where(col(Suppression.key).in_(known_as))).first()


def by_key(session: Session, key: str) -> Subscriber | None:
    """The subscriber of a compared address."""
    return session.exec(select(Subscriber).where(Subscriber.key == key)).first()


def by_token(session: Session, token: str) -> Subscriber | None:
    """The subscriber of a token."""
    if not _TOKEN.fullmatch(token):
        return None
    return session.exec(select(Subscriber).where(Subscriber.token == token)).first()


def unsubscribe(session: Session, key: str, now: datetime, by: str = history.READER) -> bool:
    """Take a subscriber off the roll; False if nobody of that address was on it. Twice is as once."""
    return _leave(session, col(Subscriber.key) == key, now, by)


def unsubscribe_by_token(session: Session, token: str, now: datetime) -> bool:
    """The same by the token of an unsubscribe link."""
    if not _TOKEN.fullmatch(token):
        return False
    return _leave(session, col(Subscriber.token) == token, now, history.READER)


def _leave(session: Session, whom: ColumnElement[bool], now: datetime, by: str) -> bool:
    still_here = col(Subscriber.state) != State.UNSUBSCRIBED
    leaving = update(Subscriber).where(whom, still_here).values(state=State.UNSUBSCRIBED, left=now)
    ids = session.execute(leaving.returning(col(Subscriber.id))).scalars().all()
    if not ids:
        return session.exec(select(Subscriber.id).where(whom)).first() is not None
    history.note(session, [each for each in ids if each is not None], What.LEFT, by, now)
    # A link that confirms and was sent before lies in a mailbox still, for whoever clicks on everything.
    void = update(Consent).where(col(Consent.subscriber_id).in_(ids), col(Consent.void_at).is_(None))
    session.execute(void.values(void_at=now))
    return True


def suppress(session: Session, address: str, why: Why, now: datetime, note: str = "", by: str = history.PROVIDER) -> bool:
    """Never mail an address again; False if it was suppressed already, for a reason that weighs as much or more.

    The subscriber is locked first, so that a copy is claimed either before this or never.

    Raises:
        UsageError: not a mail address.
    """
    key = normalise(address).key
    there = session.exec(select(Subscriber.id).where(Subscriber.key == key).with_for_update()).first()
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    new = insert(Suppression).values(key=key, why=why, note=note, since=now)
    weaker = list(Why)[: list(Why).index(why)]
    changed = session.execute(
        new.on_conflict_do_update(
            index_elements=["key"],
            set_={"why": why, "note": note, "since": now},
            where=col(Suppression.why).in_(weaker),
        ).returning(col(Suppression.key))
    )
    session.expire_all()
    if changed.first() is None:
        return False
    if there:
        history.note(session, [there], What.SUPPRESSED, by, now, why=why.value)
    return True


def is_wanted(now: datetime) -> ColumnElement[bool]:
    """That a subscriber wants what is sent now: active, and not paused. Whether it may be mailed its suppression says."""
    paused = col(Subscriber.paused_until)
    return (col(Subscriber.state) == State.ACTIVE.value) & (
        paused.is_(None) | (paused <= bindparam("now", now, Utc(), unique=True))
    )


def count_mailable(session: Session, now: datetime, audience: ColumnElement[bool] | None = None) -> int:
    """How many would be mailed now: active, not paused, not suppressed, and of the audience if one is named.

    It looks at everybody, so it takes longer the more there are.
    """
    query = (
        select(func.count(col(Subscriber.id)))
        .join(Suppression, col(Suppression.key) == col(Subscriber.key), isouter=True)
        .where(is_wanted(now), col(Suppression.key).is_(None), *([] if audience is None else [audience]))
    )
    return session.exec(query).one()


def known_keys(session: Session) -> set[str]:
    """Every compared address on the roll."""
    return set(session.exec(select(Subscriber.key)).all())


def suppressed_keys(session: Session) -> dict[str, str]:
    """Every suppressed address with its reason."""
    rows: Sequence[tuple[str, str]] = session.exec(select(Suppression.key, Suppression.why)).all()
    return dict(rows)
