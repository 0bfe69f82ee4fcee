"""The tables of people: who is on the roll, what was agreed to, what has changed, and whom never to mail."""

import secrets
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, literal_column, text
from sqlalchemy.dialects.postgresql import JSONB
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


_JSON = JSON().with_variant(JSONB(), "postgresql")
_NOTHING = {"server_default": text("''")}
# In the order of code points on PostgreSQL too, so that what begins alike lies together.
Ordered = String().with_variant(String(collation="C"), "postgresql")
# What stands behind the @, in functions that both databases have. An index is only used for the very same words.
_DOMAIN = "substr({key}, length(rtrim({key}, replace({key}, '@', ''))) + 1)"
DOMAIN_OF_KEY = literal_column(_DOMAIN.format(key="subscribers.key"), Ordered)


def _of_subscriber(*, key: bool = False) -> Any:
    """A column that names a subscriber and goes with that row."""
    return Field(sa_column_args=[ForeignKey("subscribers.id", ondelete="CASCADE")], primary_key=key)


class Subscriber(SQLModel, table=True):
    """A person on the roll. `key` is the address as it is compared; `token` never expires.

    `zone` is an IANA name, `language` a tag of BCP 47; empty, both are the newsletter's. Until `paused_until`
    no issue is sent. `attributes` are the publisher's own, by name.
    """

    __tablename__ = "subscribers"
    __table_args__ = (
        one_of("state", State),
        Index("subscribers_by_state_and_key", "state", "key"),
        Index("subscribers_by_domain", text(_DOMAIN.format(key="key")), "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    address: str
    key: str = Field(sa_type=Ordered, unique=True)
    name: str = ""
    # In the order of the roll too, or enrolling a million people would sort them in memory.
    state: str = Field(default=State.ACTIVE, index=True)
    token: str = Field(default_factory=new_token, unique=True)
    source: str = ""
    joined: datetime = Field(sa_type=Utc)
    left: datetime | None = Field(default=None, sa_type=Utc)
    zone: str = Field(default="", sa_column_kwargs=_NOTHING)
    language: str = Field(default="", sa_column_kwargs=_NOTHING)
    paused_until: datetime | None = Field(default=None, sa_type=Utc)
    attributes: dict[str, str] = Field(default_factory=dict, sa_type=_JSON, sa_column_kwargs={"server_default": text("'{}'")})


class LabelKind(StrEnum):
    """A topic is chosen by the person, a tag is given by the publisher."""

    TOPIC = "topic"
    TAG = "tag"


class Label(SQLModel, table=True):
    """A topic or a tag of a subscriber."""

    __tablename__ = "labels"
    __table_args__ = (one_of("kind", LabelKind), Index("labels_by_name", "kind", "name", "subscriber_id"))

    subscriber_id: int = _of_subscriber(key=True)
    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)


class NameWord(SQLModel, table=True):
    """A subscriber's name from one of its words on, folded, by whose beginning the person is found."""

    __tablename__ = "name_words"
    __table_args__ = ({"sqlite_with_rowid": False},)

    word: str = Field(sa_type=Ordered, primary_key=True)
    subscriber_id: int = Field(sa_column_args=[ForeignKey("subscribers.id", ondelete="CASCADE")], primary_key=True, index=True)


class Wording(SQLModel, table=True):
    """The text that stood beside a form when somebody agreed to it, once for all who did. `digest` is SHA-256 in hex."""

    __tablename__ = "wordings"

    digest: str = Field(primary_key=True)
    text: str = Field(sa_type=Text)
    since: datetime = Field(sa_type=Utc)


class SignUp(SQLModel, table=True):
    """What a form sent in, kept at once and applied later, so that its answer tells nothing of the address."""

    __tablename__ = "sign_ups"

    id: int | None = Field(default=None, primary_key=True)
    address: str
    name: str = ""
    topics: list[str] = Field(default_factory=list, sa_type=_JSON)
    zone: str = ""
    language: str = ""
    form: str
    wording: str = Field(foreign_key="wordings.digest")
    network: str
    agent: str
    came_at: datetime = Field(sa_type=Utc)


class Consent(SQLModel, table=True):
    """The evidence that a person asked for the newsletter and confirmed it; void once that person has left.

    `network` is the address of the asker's network, cut to /24 or /48; `agent` what the browser calls itself.
    """

    __tablename__ = "consents"

    id: int | None = Field(default=None, primary_key=True)
    subscriber_id: int = Field(sa_column_args=[ForeignKey("subscribers.id", ondelete="CASCADE")], index=True)
    form: str
    wording: str = Field(foreign_key="wordings.digest")
    asked_at: datetime = Field(sa_type=Utc)
    asked_network: str
    asked_agent: str
    confirmed_at: datetime | None = Field(default=None, sa_type=Utc)
    confirmed_network: str = ""
    confirmed_agent: str = ""
    void_at: datetime | None = Field(default=None, sa_type=Utc)


class Change(SQLModel, table=True):
    """What happened to a subscriber, when and by whom. How it joined stands in the subscriber's own row."""

    __tablename__ = "changes"
    __table_args__ = (Index("changes_of_subscriber", "subscriber_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    subscriber_id: int = _of_subscriber()
    at: datetime = Field(sa_type=Utc)
    what: str
    by: str
    detail: dict[str, str] = Field(default_factory=dict, sa_type=_JSON)


class Suppression(SQLModel, table=True):
    """An address never to be mailed, whether or not it is on the roll. Of an erased one, `key` is a keyed hash."""

    __tablename__ = "suppressions"
    __table_args__ = (one_of("why", Why),)

    key: str = Field(sa_type=Ordered, primary_key=True)
    why: str
    note: str = ""
    since: datetime = Field(sa_type=Utc)
