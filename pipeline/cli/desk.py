"""The verbs of the gate: what its editors decide."""

import typer

from pipeline.cli.common import SlotName, echo_lines, opened, slot_of

verbs = typer.Typer()


@verbs.command()
def approve(slot: SlotName = None) -> None:
    """Freeze the issue now: what is approved is what is sent, to the byte."""
    from pipeline import publish as route
    from pipeline import show

    newsroom = opened(writes=True, drafts=True)
    echo_lines(show.report_lines(route.approve(newsroom, slot_of(newsroom, slot))))


@verbs.command()
def reopen(slot: SlotName = None) -> None:
    """Void an approval, as long as no reader is enrolled."""
    from pipeline import publish as route

    newsroom = opened(writes=True)
    chosen = slot_of(newsroom, slot)
    route.reopen(newsroom, chosen)
    typer.echo(f"{chosen.name} is open again; nothing is frozen.")
