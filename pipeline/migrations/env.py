"""What Alembic runs: the revisions, inside the transaction that `Database.migrate` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
context.run_migrations()
