"""The command `friday`: thin verbs over functions that a test also calls.

Everything heavy is imported by the verb that needs it, so that `friday --help` answers at once.
"""

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import common, desk, edit, house, people, route, shelves
from pipeline.errors import DecisionNeeded, FridayError, UsageError

app = typer.Typer(
    help="A newsletter that writes its own Friday.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for verbs in (route.verbs, desk.verbs, house.verbs):
    app.add_typer(verbs)
app.add_typer(edit.verbs, name="edit")
app.add_typer(shelves.stories, name="stories")
app.add_typer(shelves.terms, name="terms")
app.add_typer(people.readers, name="subscribers")
app.add_typer(people.admins, name="admin")

INTERRUPTED = 130


def main() -> None:
    """Run a verb; what Friday foresees becomes a message on stderr and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Database and outbox are full of addresses, which are nobody else's business.
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except FridayError as error:
        typer.echo(error, err=True)
        sys.exit(error.exit_code)
    except SystemExit as end:
        sys.exit(DecisionNeeded.exit_code if end.code == INTERRUPTED else end.code)
    except Exception as error:
        trouble = _database_trouble(error)
        if trouble is None:
            raise
        typer.echo(trouble, err=True)
        sys.exit(UsageError.exit_code)


def _database_trouble(error: Exception) -> str | None:
    """What to tell of a database that cannot be used; None if it is something else, and so a bug."""
    loaded = sys.modules.get("sqlalchemy.exc")
    if loaded is None or not isinstance(error, loaded.OperationalError | loaded.DatabaseError):
        return None
    if isinstance(error, loaded.IntegrityError | loaded.ProgrammingError | loaded.DataError):
        return None
    return f"database.url: the database cannot be used: {str(error.orig).strip()}"


@app.callback()
def options(
    config: Annotated[Path | None, typer.Option(help="The config file; else FRIDAY_CONFIG, else ./config.toml.")] = None,
) -> None:
    """A newsletter that writes its own Friday."""
    common.use(config)
