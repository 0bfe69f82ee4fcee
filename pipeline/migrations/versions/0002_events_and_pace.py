"""Events, why an issue is paused, and indexes that the send loop does not have to keep up to date at each step."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


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
    op.add_column("deliveries", sa.Column("resent", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("deliveries", sa.Column("fate", sa.String(), nullable=False, server_default=sa.text("''")))
    op.drop_index("deliveries_by_state", "deliveries")
    _partial("deliveries_pending", "deliveries", ["issue_id", "id"], "state = 'pending'")
    _partial("deliveries_unknown", "deliveries", ["issue_id", "id"], "state = 'unknown'")
    _partial("batches_unsettled", "batches", ["issue_id"], "settled_at IS NULL")
    op.create_index("ix_deliveries_subscriber_id", "deliveries", ["subscriber_id"], unique=False)


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
