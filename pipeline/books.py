"""The tables of ledger, notices and single mails, and the states that their rows may be in; nothing here acts."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Text, UniqueConstraint, text
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


class Pause(StrEnum):
    """Why an issue is paused, which says who may go on with it.

    After `trouble` whoever publishes goes on, the clock from `resume_at`; what a `person` paused, a person
    resumes; a `ramp` goes on by itself on the next day, `zones` when it is time for the next readers.
    """

    TROUBLE = "trouble"
    PERSON = "person"
    RAMP = "ramp"
    ZONES = "zones"


class Stance(StrEnum):
    """What was said of a slot beside its issue, by a person or by the clock.

    `held` waits until somebody lets it go, `skipped` gets no issue, `missed` is later than its grace, or perhaps
    sent by a machine that is gone, and `ordered` is to be sent whatever the time is.
    """

    NONE = ""
    HELD = "held"
    SKIPPED = "skipped"
    MISSED = "missed"
    ORDERED = "ordered"


class Fate(StrEnum):
    """What became of an accepted copy, as events told it, the last of these that was told."""

    DELIVERED = "delivered"
    BLOCKED = "blocked"
    SOFT_BOUNCE = "soft_bounce"
    HARD_BOUNCE = "hard_bounce"
    COMPLAINED = "complained"


class IssueRow(SQLModel, table=True):
    """A frozen issue: the bytes, their hash, how far it has come, why it is paused and when to try again by itself.

    `reported_at` is when its owner was told what became of it, `stuck_at` when people were told that it needs them.
    """

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
    paused_by: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    resume_at: datetime | None = Field(default=None, sa_type=Utc)
    reported_at: datetime | None = Field(default=None, sa_type=Utc)
    stuck_at: datetime | None = Field(default=None, sa_type=Utc)

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


# What is neither waiting, nor out, nor accepted without more having been told of it. A query finds the index by these words.
UNUSUAL = "((state != 'pending' AND state != 'sending' AND state != 'accepted') OR fate != '')"


def _where(index: str, condition: str, *columns: str) -> Index:
    """An index of the rows for which a condition holds, which the others do not burden."""
    return Index(index, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


class BatchRow(SQLModel, table=True):
    """The copies of one call. `claimed_at` is the first attempt, `attempted_at` the last one."""

    __tablename__ = "batches"
    __table_args__ = (_where("batches_unsettled", "settled_at IS NULL", "issue_id"),)

    id: int | None = Field(default=None, primary_key=True)
    issue_id: int = Field(sa_column_args=[ForeignKey("issues.id", ondelete="CASCADE")], index=True)
    key: str = Field(unique=True)
    digest: str
    attempt: int = 1
    runner: str
    claimed_at: datetime = Field(sa_type=Utc, index=True)
    attempted_at: datetime = Field(sa_type=Utc)
    settled_at: datetime | None = Field(default=None, sa_type=Utc)


class DeliveryRow(SQLModel, table=True):
    """One copy of one issue for one reader. A batch's order is the order of `id`.

    `cap` limits the size of the next batch; a `suspect` was refused alone once, and goes last. `put_off` counts
    how often its server asked for patience, `resent` how often an unknown copy was sent again by itself. Where
    readers have hours of their own, it does not leave before `due_at`.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("issue_id", "subscriber_id"),
        one_of("state", DeliveryState),
        # In the order of the claim, which no other index has: PostgreSQL would rather walk the table by its key.
        _where("deliveries_pending", "state = 'pending'", "issue_id", "suspect", "id", "due_at"),
        _where("deliveries_unknown", "state = 'unknown'", "issue_id", "id"),
        _where("deliveries_unusual", UNUSUAL, "issue_id", "state", "fate"),
        _where("deliveries_blocked", "fate = 'blocked'", "issue_id"),
        _where("deliveries_of_batch", "batch_id IS NOT NULL", "batch_id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    issue_id: int = Field(sa_column_args=[ForeignKey("issues.id", ondelete="CASCADE")])
    subscriber_id: int | None = Field(
        default=None, sa_column_args=[ForeignKey("subscribers.id", ondelete="SET NULL")], index=True
    )
    ref: str = Field(unique=True)
    state: str
    batch_id: int | None = Field(default=None, sa_column_args=[ForeignKey("batches.id")])
    cap: int | None = None
    suspect: bool = False
    put_off: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    resent: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    provider_id: str = ""
    reason: str = ""
    fate: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    changed_at: datetime = Field(sa_type=Utc)
    due_at: datetime | None = Field(default=None, sa_type=Utc)


class SlotRow(SQLModel, table=True):
    """What is known of a slot beside its issue, and what its editors were told.

    Whoever changes it, or the desk or the issue of a slot, locks its row first.
    """

    __tablename__ = "slots"
    __table_args__ = (one_of("stance", Stance),)

    slot: str = Field(primary_key=True)
    stance: str = Stance.NONE
    by: str = ""
    why: str = ""
    changed_at: datetime | None = Field(default=None, sa_type=Utc)
    drafted_at: datetime | None = Field(default=None, sa_type=Utc)
    reminded_at: datetime | None = Field(default=None, sa_type=Utc)
    waits_since: datetime | None = Field(default=None, sa_type=Utc)


class EditRow(SQLModel, table=True):
    """One thing that somebody did at the desk of a slot: who, what, when. Rows are only ever added."""

    __tablename__ = "edits"
    __table_args__ = (Index("edits_of_slot", "slot", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    slot: str
    kind: str
    about: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    by: str
    at: datetime = Field(sa_type=Utc)


class LeaseRow(SQLModel, table=True):
    """Who does something that only one process may do, until when unless it says so again, and when it last did."""

    __tablename__ = "leases"

    name: str = Field(primary_key=True)
    holder: str
    until: datetime = Field(sa_type=Utc)
    beat_at: datetime = Field(sa_type=Utc)


class PlaceRow(SQLModel, table=True):
    """Where this database lives, as told by the machine and the file or the server. There is at most one row."""

    __tablename__ = "places"

    id: int = Field(default=1, primary_key=True)
    identity: str
    since: datetime = Field(sa_type=Utc)


class JobRow(SQLModel, table=True):
    """When a job of the clock last ran and what came of it; `next_at` is when it rings again."""

    __tablename__ = "jobs"

    name: str = Field(primary_key=True)
    began_at: datetime = Field(sa_type=Utc)
    ended_at: datetime | None = Field(default=None, sa_type=Utc)
    next_at: datetime | None = Field(default=None, sa_type=Utc)
    said: str = ""
    trouble: str = ""


class NoticeRow(SQLModel, table=True):
    """What came in later by a webhook or a mailbox: kept once, as it came; applied once, which may be later."""

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("origin", "key"),
        _where("notices_waiting", "applied_at IS NULL", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    origin: str
    key: str
    body: str = Field(sa_type=Text)
    came_at: datetime = Field(sa_type=Utc)
    applied_at: datetime | None = Field(default=None, sa_type=Utc)
    trouble: str = ""


class MailState(StrEnum):
    """Where a single mail stands. `unknown`: nobody can tell whether the provider took it, and it is not sent again."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"


class MailRow(SQLModel, table=True):
    """A mail to one person: what kind it is and what it is about. Its words are those of the template when it leaves.

    It goes to a subscriber, or to somebody who works on the newsletter, by `address`.
    """

    __tablename__ = "mails"
    __table_args__ = (
        one_of("state", MailState),
        _where("mails_waiting", "settled_at IS NULL", "due_at"),
        Index("mails_of_subscriber", "subscriber_id", "kind", "queued_at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    ref: str = Field(unique=True)
    kind: str
    subscriber_id: int | None = Field(default=None, sa_column_args=[ForeignKey("subscribers.id", ondelete="CASCADE")])
    address: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    about: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    state: str = MailState.QUEUED
    attempts: int = 0
    queued_at: datetime = Field(sa_type=Utc)
    due_at: datetime = Field(sa_type=Utc)
    attempted_at: datetime | None = Field(default=None, sa_type=Utc)
    settled_at: datetime | None = Field(default=None, sa_type=Utc)
    provider_id: str = ""
    trouble: str = ""
