"""The verbs that run a whole house: serve it, or show one."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import opened

verbs = typer.Typer()


@verbs.command()
def serve(
    port: Annotated[int | None, typer.Option(help="Instead of web.port.")] = None,
) -> None:
    """The public pages and the clock in one process: collect, and publish when a slot is due."""
    from pipeline import serve as house

    logging.getLogger("pipeline").setLevel(logging.INFO)
    house.serve(opened(writes=True), port)


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
