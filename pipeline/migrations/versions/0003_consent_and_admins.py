"""Consent and its evidence, topics and tags, what has changed, single mails, and who may sign in."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Session

from subscribers import names

revision = "0003"
down_revision = "0002"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
ORDERED = sa.String().with_variant(sa.String(collation="C"), "postgresql")
NOTHING = sa.text("''")


def upgrade() -> None:
    """Change the tables."""
    op.add_column("subscribers", sa.Column("zone", sa.String(), nullable=False, server_default=NOTHING))
    op.add_column("subscribers", sa.Column("language", sa.String(), nullable=False, server_default=NOTHING))
    op.add_column("subscribers", sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("subscribers", sa.Column("attributes", JSON, nullable=False, server_default=sa.text("'{}'")))
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("subscribers", "key", type_=sa.String(collation="C"))
        op.alter_column("suppressions", "key", type_=sa.String(collation="C"))
    op.create_index("subscribers_by_state_and_key", "subscribers", ["state", "key"], unique=False)
    domain = sa.text("substr(key, length(rtrim(key, replace(key, '@', ''))) + 1)")
    op.create_index("subscribers_by_domain", "subscribers", [domain, "id"], unique=False)
    op.create_table(
        "labels",
        _subscriber_id(),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.CheckConstraint("kind = 'topic' OR kind = 'tag'", name="kind_is_known"),
        _of_subscriber(),
        sa.PrimaryKeyConstraint("subscriber_id", "kind", "name"),
    )
    op.create_index("labels_by_name", "labels", ["kind", "name", "subscriber_id"], unique=False)
    op.create_table(
        "name_words",
        sa.Column("word", ORDERED, nullable=False),
        _subscriber_id(),
        _of_subscriber(),
        sa.PrimaryKeyConstraint("word", "subscriber_id"),
    )
    op.create_index("ix_name_words_subscriber_id", "name_words", ["subscriber_id"], unique=False)
    _index_names()
    op.create_table(
        "wordings",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "sign_ups",
        sa.Column("id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("address", "name")),
        sa.Column("topics", JSON, nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("zone", "language", "form", "wording", "network", "agent")),
        sa.Column("came_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["wording"], ["wordings.digest"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "consents",
        sa.Column("id", sa.Integer(), nullable=False),
        _subscriber_id(),
        sa.Column("form", sa.String(), nullable=False),
        sa.Column("wording", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_network", sa.String(), nullable=False),
        sa.Column("asked_agent", sa.String(), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_network", sa.String(), nullable=False),
        sa.Column("confirmed_agent", sa.String(), nullable=False),
        sa.Column("void_at", sa.DateTime(timezone=True), nullable=True),
        _of_subscriber(),
        sa.ForeignKeyConstraint(["wording"], ["wordings.digest"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_consents_subscriber_id", "consents", ["subscriber_id"], unique=False)
    op.create_table(
        "changes",
        sa.Column("id", sa.Integer(), nullable=False),
        _subscriber_id(),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        _of_subscriber(),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("changes_of_subscriber", "changes", ["subscriber_id", "id"], unique=False)
    _mails()
    _admins()


def _index_names() -> None:
    # As names are indexed today, since it is today's code that searches.
    with Session(op.get_bind()) as session:
        named = sa.text("SELECT id, name FROM subscribers WHERE name <> ''")
        names.index(session, ((row.id, row.name) for row in session.execute(named).all()))


def _mails() -> None:
    states = ("queued", "sending", "sent", "failed", "unknown")
    op.create_table(
        "mails",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ref", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subscriber_id", sa.Integer(), nullable=True),
        sa.Column("about", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("trouble", sa.String(), nullable=False),
        sa.CheckConstraint(" OR ".join(f"state = '{state}'" for state in states), name="state_is_known"),
        _of_subscriber(),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("ref"),
    )
    waiting = sa.text("settled_at IS NULL")
    op.create_index("mails_waiting", "mails", ["due_at"], unique=False, sqlite_where=waiting, postgresql_where=waiting)
    op.create_index("mails_of_subscriber", "mails", ["subscriber_id", "kind", "queued_at"], unique=False)


def _admins() -> None:
    op.create_table(
        "admins",
        sa.Column("id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("address", "key", "password", "role")),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role = 'editor' OR role = 'owner'", name="role_is_known"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("admin_id", sa.Integer(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["admin_id"], ["admins.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_sessions_admin_id", "sessions", ["admin_id"], unique=False)


def _subscriber_id() -> sa.Column[int]:
    return sa.Column("subscriber_id", sa.Integer(), nullable=False)


def _of_subscriber() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["subscriber_id"], ["subscribers.id"], ondelete="CASCADE")
