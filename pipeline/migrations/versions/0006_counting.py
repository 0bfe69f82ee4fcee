"""Copies that are unusual are counted by an index of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Change the tables."""
    unusual = sa.text("((state != 'pending' AND state != 'sending' AND state != 'accepted') OR fate != '')")
    columns = ["issue_id", "state", "fate"]
    op.create_index("deliveries_unusual", "deliveries", columns, unique=False, sqlite_where=unusual, postgresql_where=unusual)
