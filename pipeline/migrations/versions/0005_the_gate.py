"""Slots and what was done at their desks, who is the clock and where, and when each copy is due."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NOTHING = sa.text("''")


def upgrade() -> None:
    """Change the tables."""
    op.add_column("issues", _moment("reported_at", nullable=True))
    op.add_column("issues", _moment("stuck_at", nullable=True))
    # What was closed before nobody is told of anew.
    op.execute("UPDATE issues SET reported_at = closed_at")
    op.add_column("mails", sa.Column("address", sa.String(), nullable=False, server_default=NOTHING))
    op.add_column("deliveries", _moment("due_at", nullable=True))
    pending = sa.text("state = 'pending'")
    op.drop_index("deliveries_pending", "deliveries")
    columns = ["issue_id", "suspect", "id", "due_at"]
    op.create_index("deliveries_pending", "deliveries", columns, unique=False, sqlite_where=pending, postgresql_where=pending)
    stances = ("", "held", "skipped", "missed", "ordered")
    op.create_table(
        "slots",
        sa.Column("slot", sa.String(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("stance", "by", "why")),
        *(_moment(name, nullable=True) for name in ("changed_at", "drafted_at", "reminded_at", "waits_since")),
        sa.CheckConstraint(" OR ".join(f"stance = '{stance}'" for stance in stances), name="stance_is_known"),
        sa.PrimaryKeyConstraint("slot"),
    )
    op.create_table(
        "edits",
        sa.Column("id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("slot", "kind")),
        sa.Column("about", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        _moment("at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("edits_of_slot", "edits", ["slot", "id"], unique=False)
    op.create_table(
        "leases",
        *(sa.Column(name, sa.String(), nullable=False) for name in ("name", "holder")),
        _moment("until"),
        _moment("beat_at"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "places",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("identity", sa.String(), nullable=False),
        _moment("since"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "jobs",
        sa.Column("name", sa.String(), nullable=False),
        _moment("began_at"),
        _moment("ended_at", nullable=True),
        _moment("next_at", nullable=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("said", "trouble")),
        sa.PrimaryKeyConstraint("name"),
    )


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)
