"""Less to write for each subscriber: words of names lie in their own order."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Change the tables."""
    if op.get_bind().dialect.name != "sqlite":
        return
    # SQLite keeps the rows of a table in an order of their own, beside the index of its key, unless it is told not to.
    op.create_table(
        "name_words_in_order",
        sa.Column("word", sa.String(), nullable=False),
        sa.Column("subscriber_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["subscriber_id"], ["subscribers.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("word", "subscriber_id"),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO name_words_in_order (word, subscriber_id) SELECT word, subscriber_id FROM name_words ORDER BY 1, 2")
    op.drop_table("name_words")
    op.rename_table("name_words_in_order", "name_words")
    op.create_index("ix_name_words_subscriber_id", "name_words", ["subscriber_id"], unique=False)
