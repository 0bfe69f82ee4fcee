"""Who may sign in to the newsroom, and the sessions of those who did."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey
from sqlmodel import Field, SQLModel

from pipeline.database import Utc
from subscribers.models import one_of


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
