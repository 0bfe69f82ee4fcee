"""The tables of people: who is on the roll and which addresses are never to be mailed."""

import secrets
from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint
from sqlmodel import Field, SQLModel

from pipeline.database import Utc


class State(StrEnum):
    """Where a subscriber stands. Only the active are mailed."""

    PENDING = "pending"
    ACTIVE = "active"
    UNSUBSCRIBED = "unsubscribed"


class Why(StrEnum):
    """Why an address is never to be mailed, the weightiest reason last: it stays whatever is told in which order."""

    ERASED = "erased"
    BOUNCE = "bounce"
    MANUAL = "manual"
    COMPLAINT = "complaint"


def one_of(column: str, kinds: type[StrEnum]) -> CheckConstraint:
    """The constraint that a text column holds one of the kinds.

    SQLite builds a table anew for each row that an IN looks at, so it is spelled out.
    """
    spelled = " OR ".join(f"{column} = '{kind.value}'" for kind in kinds)
    return CheckConstraint(spelled, name=f"{column}_is_known")


def new_token() -> str:
    """What stands for a subscriber in addresses on the web: 128 random bits, never derived from the person."""
    return secrets.token_urlsafe(16)


class Subscriber(SQLModel, table=True):
    """A person on the roll. `key` is the address as it is compared; `token` never expires."""

    __tablename__ = "subscribers"
    __table_args__ = (one_of("state", State),)

    id: int | None = Field(default=None, primary_key=True)
    address: str
    key: str = Field(unique=True)
    name: str = ""
    state: str = Field(default=State.ACTIVE, index=True)
    token: str = Field(default_factory=new_token, unique=True)
    source: str = ""
    joined: datetime = Field(sa_type=Utc)
    left: datetime | None = Field(default=None, sa_type=Utc)


class Suppression(SQLModel, table=True):
    """An address never to be mailed, whether or not it is on the roll."""

    __tablename__ = "suppressions"
    __table_args__ = (one_of("why", Why),)

    key: str = Field(primary_key=True)
    why: str
    note: str = ""
    since: datetime = Field(sa_type=Utc)
