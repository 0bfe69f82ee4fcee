"""The roll: add, find, list, unsubscribe, suppress. Every function takes a session and commits nothing itself."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any

from email_validator import EmailNotValidError, validate_email
from sqlalchemy import ColumnElement, bindparam, false, func, or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select, update

from pipeline.database import Utc
from pipeline.errors import UsageError
from subscribers import bulk, history, names
from subscribers.history import What
from subscribers.keys import Keys
from subscribers.models import Consent, NameWord, State, Subscriber, Suppression, Why

NAME_LIMIT = 200
# At once.
_ROWS = 5_000
# What stands before the @ is in lower case and of letters that need no look, and nothing can be too long.
_PLAIN = re.compile(r"([a-z0-9_+'-]+(?:\.[a-z0-9_+'-]+)*)@([A-Za-z0-9.-]+)")
_PLAIN_LIMIT = 100
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
    text = text.strip()
    try:
        # Most are of this kind, and of few houses; to look at a domain is what takes most of the time.
        plain = _PLAIN.fullmatch(text) if len(text) <= _PLAIN_LIMIT else None
        if plain and (domain := _domain(plain[2])).isascii():
            written = f"{plain[1]}@{domain}"
        else:
            written = validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError as error:
        # What stands in brackets or quotes repeats a part of the address.
        reason = re.split(r"[('\"]", str(error))[0].rstrip(" :.")
        raise UsageError(f"not a mail address: {reason}") from None
    return Address(written, written.casefold())


@lru_cache(maxsize=50_000)
def _domain(domain: str) -> str:
    return validate_email(f"a@{domain}", check_deliverability=False).domain


def clean_name(name: str, limit: int = NAME_LIMIT) -> str:
    """A name that can stand in a header: no control or line characters, at most 200 characters."""
    if not (name.isascii() and name.isprintable()):
        name = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in name)
    return " ".join(name.split())[:limit].rstrip()


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
    """Put people on the roll whose address is not there; how many there were."""
    return len(add_rows(session, [each.model_dump(exclude={"id"}) for each in subscribers]))


def add_rows(session: Session, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The same with rows of the table, all with the same columns: the ids of those who were added, by compared address.

    Somebody else may add the same address at this moment, so the database decides. All go in the order of their
    keys, so that two who do this at once never wait for each other.
    """
    ids: dict[str, int] = {}
    for first in range(0, len(rows), _ROWS):
        part = {row["token"]: row for row in sorted(rows, key=itemgetter("key"))[first : first + _ROWS]}
        columns = tuple(rows[0])
        added = bulk.insert(session, Subscriber, columns, map(tuple, map(dict.values, part.values())), ("id", "token"))
        ours = [(number, part[token]) for number, token in added]
        words = [(word, number) for number, row in ours for word in names.words_of(row["name"])]
        bulk.insert(session, NameWord, ("word", "subscriber_id"), words)
        ids.update((row["key"], number) for number, row in ours)
    return ids


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
    changed = suppress_keys(session, [normalise(address).key], why, now, note, by)
    session.expire_all()
    return bool(changed)


def suppress_keys(
    session: Session, keys: Sequence[str], why: Why, now: datetime, note: str = "", by: str = history.PROVIDER
) -> dict[str, int | None]:
    """The same for compared addresses: those that were not suppressed before, each with the id of who is on the roll."""
    if not keys:
        return {}
    locked = select(col(Subscriber.key), col(Subscriber.id)).where(col(Subscriber.key).in_(keys)).order_by(col(Subscriber.key))
    ids = {row.key: row.id for row in session.connection().execute(locked.with_for_update())}
    made = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    weaker = list(Why)[: list(Why).index(why)]
    changed = session.connection().execute(
        made(Suppression)
        .on_conflict_do_update(
            index_elements=["key"],
            set_={"why": why, "note": note, "since": now},
            # Spelled out, since a list cannot go with many rows.
            where=or_(false(), *(col(Suppression.why) == each for each in weaker)),
        )
        .returning(col(Suppression.key)),
        [{"key": key, "why": why, "note": note, "since": now} for key in sorted(keys)],
    )
    there = {key: ids.get(key) for key in changed.scalars()}
    history.note(session, [each for each in there.values() if each], What.SUPPRESSED, by, now, why=why.value)
    return there


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


def suppressed_keys(session: Session) -> dict[str, str]:
    """Every suppressed address with its reason."""
    rows: Sequence[tuple[str, str]] = session.exec(select(Suppression.key, Suppression.why)).all()
    return dict(rows)


def by_id(session: Session, number: int) -> Subscriber | None:
    """The subscriber of a number, by which the newsroom's pages are addressed."""
    return session.get(Subscriber, number)


def rename(session: Session, subscriber: Subscriber, name: str, by: str, now: datetime) -> bool:
    """Write down another name of a subscriber; False if it has that name already."""
    name = clean_name(name)
    if name == subscriber.name or subscriber.id is None:
        return False
    subscriber.name = name
    session.add(subscriber)
    names.index(session, [(subscriber.id, name)])
    history.note(session, [subscriber.id], What.EDITED, by, now, name=name)
    return True


def unsubscribe_all(session: Session, ids: Sequence[int], now: datetime, by: str) -> int:
    """Take several subscribers off the roll; how many were still on it."""
    before = select(func.count(col(Subscriber.id))).where(col(Subscriber.id).in_(ids), Subscriber.state != State.UNSUBSCRIBED)
    leaving = session.exec(before).one()
    _leave(session, col(Subscriber.id).in_(ids), now, by)
    return leaving
