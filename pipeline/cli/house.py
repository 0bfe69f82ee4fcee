"""The verbs that run a whole house: serve it, or show one."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import configured, echo_lines, is_sure, opened
from pipeline.errors import DecisionNeeded

verbs = typer.Typer()


@verbs.command()
def serve(
    port: Annotated[int | None, typer.Option(help="Instead of web.port; 0 takes any that is free.")] = None,
) -> None:
    """The public pages and the clock in one process: collect, and publish when a slot is due."""
    from pipeline import serve as house

    logging.getLogger("pipeline").setLevel(logging.INFO)
    house.serve(opened(writes=True), port)


@verbs.command()
def adopt(yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False) -> None:
    """Let this copy of the newsroom be the one from now on. What may have been sent elsewhere is not sent by itself."""
    from pipeline import place, show

    newsroom = opened(writes=True)
    moved = place.see(newsroom)
    if moved and sys.stdin.isatty() and not yes:
        typer.echo(moved, err=True)
        if not is_sure("Is the other one stopped for good, and shall this one go on?"):
            raise DecisionNeeded("nothing was changed")
    echo_lines(show.adopted_lines(place.adopt(newsroom, "friday adopt")))


@verbs.command()
def backup(file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file; none is overwritten.")]) -> None:
    """Copy the SQLite database, also while it is in use. The file is for your eyes only: it is full of addresses."""
    from pipeline import backup as copies

    newsroom = configured()
    # Of an older revision too: before it is migrated is a good time to copy it.
    if newsroom.database.revision is None:
        newsroom.database.require()
    size = copies.write(newsroom.database, file, newsroom.now())
    typer.echo(f"{file}: {size / 1_000_000:,.1f} MB, seen to be sound.")


@verbs.command()
def restore(file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup; it stays where it is.")]) -> None:
    """Put a backup in the place of the SQLite database. What was there is set aside, and nothing is sent before `adopt`."""
    from pipeline import restore as restoring
    from pipeline import show

    echo_lines(show.restored_lines(file, restoring.put_back(configured(), file)))


@verbs.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Made anew each time.")] = Path("demo"),
    serve: Annotated[bool, typer.Option(help="Serve the preview at the end.")] = True,
    port: Annotated[int, typer.Option(help="Of the preview.")] = 8011,
) -> None:
    """The whole Friday on bundled sample data, then the preview."""
    from pipeline.demo import run_demo
    from pipeline.web.preview import serve_preview

    newsroom, slot = run_demo(folder.absolute(), typer.echo)
    if serve:
        serve_preview(newsroom, slot, port, open_browser=False)
    else:
        typer.echo(f"See it in the browser: friday --config {folder / 'config.toml'} preview {slot.name}")
