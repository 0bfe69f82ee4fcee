"""Who may sign in to the newsroom, their passwords, and the sessions of those who did; of cookies and pages it knows nothing.

What takes a session commits nothing itself. No transaction is open while a password is hashed, which takes half a second.
"""

import hashlib
import secrets
import threading
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

from pwdlib import PasswordHash
from sqlalchemy import ColumnElement, ForeignKey
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, SQLModel, col, delete, select, update

from pipeline.database import Database, Utc
from pipeline.errors import UsageError
from subscribers import roll
from subscribers.models import one_of

# More than the 8 that OWASP ASVS 5.0 (6.2.1) asks for, and room for a long sentence.
FEWEST_CHARACTERS = 12
MOST_CHARACTERS = 256
# Shorter parts of an address or a title stand in any good password by chance.
_TELLING = 4
# Each takes 64 MiB.
VERIFIED_AT_ONCE = 2
IDLE = timedelta(hours=12)
ABSOLUTE = timedelta(days=7)
SEEN_EVERY = timedelta(minutes=1)


class Role(StrEnum):
    """What an admin may do: an owner also decides who may sign in, exports, and erases."""

    EDITOR = "editor"
    OWNER = "owner"


class AdminRow(SQLModel, table=True):
    """Somebody who may sign in. `password` is an argon2id hash with its parameters."""

    __tablename__ = "admins"
    __table_args__ = (one_of("role", Role),)

    id: int | None = Field(default=None, primary_key=True)
    address: str
    key: str = Field(unique=True)
    password: str
    role: str
    since: datetime = Field(sa_type=Utc)


class SessionRow(SQLModel, table=True):
    """A session in a browser. `digest` is SHA-256 of what the cookie holds, in hex: the cookie cannot be told from it."""

    __tablename__ = "sessions"

    digest: str = Field(primary_key=True)
    admin_id: int = Field(sa_column_args=[ForeignKey("admins.id", ondelete="CASCADE")], index=True)
    began_at: datetime = Field(sa_type=Utc)
    seen_at: datetime = Field(sa_type=Utc)


@dataclass(frozen=True, slots=True)
class Admin:
    """Somebody who may sign in, without the hash."""

    id: int
    address: str
    role: Role
    since: datetime


@dataclass(frozen=True, slots=True)
class Recognised:
    """An admin whose password was right, and the hash that said so."""

    admin: Admin
    hashed: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Guest:
    """Who is in: the admin of a session that has not ended."""

    admin: Admin
    began_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password was right, and its hash by today's parameters where the stored one has older."""

    right: bool
    anew: str | None = field(default=None, repr=False)


class Passwords:
    """How passwords are chosen, hashed and verified: argon2id with the parameters that pwdlib recommends, two at a time."""

    def __init__(self, hasher: PasswordHash | None = None) -> None:
        self._hasher = hasher or PasswordHash.recommended()
        self._turn = threading.BoundedSemaphore(VERIFIED_AT_ONCE)
        self._making = threading.Lock()

    def choose(self, password: str, address: str, title: str) -> str:
        """The hash of a new password.

        Args:
            password: what was chosen.
            address: whose it is to be.
            title: the newsletter's.

        Raises:
            UsageError: it is too short, too long or easily guessed, or `address` is none. No message repeats either.
        """
        chosen = _composed(password)
        if len(chosen) < FEWEST_CHARACTERS:
            raise UsageError(f"the password is too short: choose one of {FEWEST_CHARACTERS} characters or more")
        if len(chosen) > MOST_CHARACTERS:
            raise UsageError(f"the password is too long: choose one of {MOST_CHARACTERS} characters or fewer")
        if any(unicodedata.category(char) in {"Cc", "Cs"} for char in chosen):
            raise UsageError("the password holds a control character: choose one of letters, digits, signs and spaces")
        key = roll.normalise(address).key
        plain = _squeezed(chosen)
        guessed = {"the mail address": (key, key.partition("@")[0]), "the newsletter's title": (title,)}
        for what, parts in guessed.items():
            if any(len(_squeezed(part)) >= _TELLING and _squeezed(part) in plain for part in parts):
                raise UsageError(f"the password contains {what}, which is guessed first: choose another")
        with self._turn:
            return self._hasher.hash(chosen)

    def verify(self, password: str, hashed: str | None) -> Verdict:
        """Whether a password has that hash. Without a hash one of nobody is looked at, which takes as long."""
        nobody = self._nobody
        given = _composed(password)[: MOST_CHARACTERS + 1].encode(errors="replace")
        with self._turn:
            right, anew = self._hasher.verify_and_update(given, hashed or nobody)
        return Verdict(right=right and hashed is not None, anew=anew if hashed else None)

    @property
    def _nobody(self) -> str:
        # Made at the first look, whoever is looked for, or the first unknown address would take twice as long.
        with self._making:
            return self._hash_of_nobody

    @cached_property
    def _hash_of_nobody(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe())


def _composed(password: str) -> str:
    # The same letters, whichever keyboard composed them (RFC 8265, 4.2).
    return unicodedata.normalize("NFC", password)


def _squeezed(text: str) -> str:
    return "".join(text.casefold().split())


def see_that_it_can_be_added(session: Session, address: str, role: Role) -> roll.Address:
    """Look whether somebody may be let in, before a password is asked for; the address in its normal form.

    Raises:
        UsageError: not a mail address, somebody who may sign in already, or a first admin who would be no owner.
    """
    normal = roll.normalise(address)
    if _by_key(session, normal.key):
        raise UsageError("this address may sign in already; `friday admin password` sets another password")
    if role is not Role.OWNER and session.exec(_OWNERS).first() is None:
        raise UsageError("the first admin must be an owner: add one by --role owner")
    return normal


def add(session: Session, address: str, hashed: str, role: Role, now: datetime) -> Admin:
    """Let somebody sign in.

    Raises:
        UsageError: as `see_that_it_can_be_added`.
    """
    normal = see_that_it_can_be_added(session, address, role)
    row = AdminRow(address=normal.written, key=normal.key, password=hashed, role=role, since=now)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        # Another process let them in between our look and our write; where writers take turns it cannot.
        raise UsageError("this address may sign in already, since this moment") from None
    return _admin(row)


def find(session: Session, address: str) -> Admin:
    """The admin of an address.

    Raises:
        UsageError: not a mail address, or nobody's who may sign in.
    """
    return _admin(_known(session, address))


def listed(session: Session) -> list[Admin]:
    """Everybody who may sign in, by address."""
    return [_admin(row) for row in session.exec(select(AdminRow).order_by(col(AdminRow.key)))]


def remove(session: Session, address: str) -> None:
    """Let somebody sign in no more; every session of theirs is gone.

    Raises:
        UsageError: not a mail address, nobody's, or the last owner's.
    """
    # Locked, so that of two owners who remove each other at once one stays.
    owners = session.exec(_OWNERS.with_for_update()).all()
    row = _known(session, address)
    if [owner.id for owner in owners] == [row.id]:
        raise UsageError("this is the last owner: add another one first, or nobody could let people in any more")
    session.exec(delete(AdminRow).where(col(AdminRow.id) == row.id))


def set_password(session: Session, address: str, hashed: str) -> None:
    """Give an admin another password, chosen by `Passwords.choose`; every session of theirs is gone.

    Raises:
        UsageError: not a mail address, or nobody's who may sign in.
    """
    row = _known(session, address)
    session.exec(update(AdminRow).where(col(AdminRow.id) == row.id).values(password=hashed))
    session.exec(delete(SessionRow).where(col(SessionRow.admin_id) == row.id))


def recognise(database: Database, passwords: Passwords, address: str, password: str) -> Recognised | None:
    """The admin of that address and password. It takes as long whether or not the address is known, or is one at all."""
    try:
        key = roll.normalise(address).key
    except UsageError:
        key = ""
    with database.read() as session:
        row = _by_key(session, key)
    verdict = passwords.verify(password, row.password if row else None)
    if row is None or not verdict.right:
        return None
    if verdict.anew is None:
        return Recognised(_admin(row), row.password)
    with database.write() as session:
        same = (col(AdminRow.id) == row.id, col(AdminRow.password) == row.password)
        session.exec(update(AdminRow).where(*same).values(password=verdict.anew))
    return Recognised(_admin(row), verdict.anew)


def begin(session: Session, who: Recognised, now: datetime) -> str | None:
    """Begin a session: the secret of its cookie, 256 random bits. What has ended is swept away.

    None if the admin was removed or given another password since it was recognised.
    """
    same = select(AdminRow.id).where(AdminRow.id == who.admin.id, AdminRow.password == who.hashed)
    # Locked, so that a new password ends this session too or is set before it.
    if session.exec(same.with_for_update()).first() is None:
        return None
    session.exec(delete(SessionRow).where(_idle(now) | _old(now)))
    secret = secrets.token_urlsafe(32)
    session.add(SessionRow(digest=_digest(secret), admin_id=who.admin.id, began_at=now, seen_at=now))
    return secret


def whose(session: Session, secret: str, now: datetime) -> Guest | None:
    """Whose session it is, by the secret of its cookie; None if there is none or it has ended."""
    query = (
        select(AdminRow, SessionRow)
        .join(SessionRow, col(SessionRow.admin_id) == col(AdminRow.id))
        .where(SessionRow.digest == _digest(secret), ~_idle(now), ~_old(now))
    )
    found = session.exec(query).first()
    if found is None:
        return None
    row, its = found
    return Guest(_admin(row), its.began_at, its.seen_at)


def seen(session: Session, secret: str, now: datetime) -> None:
    """Write down that a session was used, unless that was done in the last minute."""
    stale = (col(SessionRow.digest) == _digest(secret), col(SessionRow.seen_at) <= now - SEEN_EVERY)
    session.exec(update(SessionRow).where(*stale).values(seen_at=now))


def end(session: Session, secret: str) -> None:
    """End a session, if there is one of that secret."""
    session.exec(delete(SessionRow).where(col(SessionRow.digest) == _digest(secret)))


def _idle(now: datetime) -> ColumnElement[bool]:
    return col(SessionRow.seen_at) <= now - IDLE


def _old(now: datetime) -> ColumnElement[bool]:
    return col(SessionRow.began_at) <= now - ABSOLUTE


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _by_key(session: Session, key: str) -> AdminRow | None:
    return session.exec(select(AdminRow).where(AdminRow.key == key)).first()


def _known(session: Session, address: str) -> AdminRow:
    row = _by_key(session, roll.normalise(address).key)
    if row is None:
        raise UsageError("nobody of that address may sign in; see `friday admin list`")
    return row


_OWNERS = select(AdminRow).where(AdminRow.role == Role.OWNER).order_by(col(AdminRow.id))


def _admin(row: AdminRow) -> Admin:
    if row.id is None:
        raise RuntimeError("an admin that was not stored has no id")
    return Admin(row.id, row.address, Role(row.role), row.since)
