"""Events, why an issue is paused, and indexes that the send loop does not have to keep up to date at each step."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

STATES = ("pending", "sending", "accepted", "rejected", "skipped", "unknown", "excluded")


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "notices",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("came_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trouble", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("origin", "key"),
    )
    _partial("notices_waiting", "notices", ["id"], "applied_at IS NULL")
    op.add_column("issues", sa.Column("paused_by", sa.String(), nullable=False, server_default=sa.text("''")))
    op.execute("UPDATE issues SET paused_by = 'trouble' WHERE state = 'paused'")
    op.drop_index("deliveries_by_state", "deliveries")
    op.drop_index("ix_deliveries_batch_id", "deliveries")
    # What a check or a column of a table says cannot be changed in SQLite, so the table is made anew there.
    with op.batch_alter_table("deliveries", recreate="auto") as table:
        table.add_column(sa.Column("put_off", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("resent", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("fate", sa.String(), nullable=False, server_default=sa.text("''")))
        table.drop_constraint("state_is_known", type_="check")
        table.create_check_constraint("state_is_known", " OR ".join(f"state = '{state}'" for state in STATES))
    _partial("deliveries_pending", "deliveries", ["issue_id", "suspect", "id"], "state = 'pending'")
    _partial("deliveries_unknown", "deliveries", ["issue_id", "id"], "state = 'unknown'")
    _partial("deliveries_blocked", "deliveries", ["issue_id"], "fate = 'blocked'")
    _partial("deliveries_of_batch", "deliveries", ["batch_id"], "batch_id IS NOT NULL")
    _partial("batches_unsettled", "batches", ["issue_id"], "settled_at IS NULL")
    op.create_index("ix_deliveries_subscriber_id", "deliveries", ["subscriber_id"], unique=False)
    op.create_index("ix_batches_claimed_at", "batches", ["claimed_at"], unique=False)


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
