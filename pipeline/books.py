"""The ledger's tables and the states that their rows may be in; nothing here acts."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from pipeline.database import Utc
from pipeline.issue import RenderedIssue
from subscribers.models import one_of


class IssueState(StrEnum):
    """Where an issue stands; one that is only drafted has no row."""

    APPROVED = "approved"
    SENDING = "sending"
    PAUSED = "paused"
    SENT = "sent"
    NEEDS_DECISION = "needs_decision"


class DeliveryState(StrEnum):
    """Where one copy stands. `excluded` was never enrolled: the address was suppressed before."""

    PENDING = "pending"
    SENDING = "sending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"
    EXCLUDED = "excluded"


class IssueRow(SQLModel, table=True):
    """A frozen issue: the bytes, their hash, how far it has come, and when to try again by itself."""

    __tablename__ = "issues"
    __table_args__ = (one_of("state", IssueState),)

    id: int | None = Field(default=None, primary_key=True)
    slot: str = Field(unique=True)
    number: int = Field(unique=True)
    state: str
    frozen: str = Field(sa_type=Text)
    digest: str
    term: str
    frozen_at: datetime = Field(sa_type=Utc)
    enrolled_at: datetime | None = Field(default=None, sa_type=Utc)
    closed_at: datetime | None = Field(default=None, sa_type=Utc)
    trouble: str = ""
    resume_at: datetime | None = Field(default=None, sa_type=Utc)

    @property
    def rendered(self) -> RenderedIssue:
        """The frozen bytes.

        Raises:
            RuntimeError: they are not those that were frozen: somebody has changed the row.
        """
        rendered = RenderedIssue.from_json(self.frozen)
        if rendered.digest != self.digest:
            raise RuntimeError(f"issue {self.number} is not what was frozen: its hash differs")
        return rendered


class ToldRow(SQLModel, table=True):
    """A telling of a story in an issue; the first telling of each place is the one that was linked."""

    __tablename__ = "issue_stories"

    id: int | None = Field(default=None, primary_key=True)
    issue_id: int = Field(sa_column_args=[ForeignKey("issues.id", ondelete="CASCADE")], index=True)
    place: int
    url: str
    title: str
    source: str
    summary: str = ""
    published: datetime = Field(sa_type=Utc)


class BatchRow(SQLModel, table=True):
    """The copies of one call. `claimed_at` is the first attempt, `attempted_at` the last one."""

    __tablename__ = "batches"

    id: int | None = Field(default=None, primary_key=True)
    issue_id: int = Field(sa_column_args=[ForeignKey("issues.id", ondelete="CASCADE")], index=True)
    key: str = Field(unique=True)
    digest: str
    attempt: int = 1
    runner: str
    claimed_at: datetime = Field(sa_type=Utc)
    attempted_at: datetime = Field(sa_type=Utc)
    settled_at: datetime | None = Field(default=None, sa_type=Utc)


class DeliveryRow(SQLModel, table=True):
    """One copy of one issue for one reader. A batch's order is the order of `id`.

    `cap` limits the size of the next batch; a `suspect` was refused alone once, and goes last.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("issue_id", "subscriber_id"),
        one_of("state", DeliveryState),
        Index("deliveries_by_state", "issue_id", "state", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    issue_id: int = Field(sa_column_args=[ForeignKey("issues.id", ondelete="CASCADE")])
    subscriber_id: int | None = Field(default=None, sa_column_args=[ForeignKey("subscribers.id", ondelete="SET NULL")])
    ref: str = Field(unique=True)
    state: str
    batch_id: int | None = Field(default=None, sa_column_args=[ForeignKey("batches.id")], index=True)
    cap: int | None = None
    suspect: bool = False
    provider_id: str = ""
    reason: str = ""
    changed_at: datetime = Field(sa_type=Utc)
