"""The verbs of the gate: which slots come, and what their editors decide."""

from typing import Annotated

import typer

from pipeline.cli.common import AsJson, SlotName, echo_json, echo_lines, me, opened, slot_of
from pipeline.errors import ProviderError

verbs = typer.Typer()
Why = Annotated[str, typer.Option(metavar="TEXT", help="The reason, for those who look at the desk later.")]


@verbs.command()
def slots(as_json: AsJson = False) -> None:
    """The slot that is due and the next eight: when each opens, and how it stands."""
    from pipeline import gate, show

    newsroom = opened()
    now, schedule = newsroom.now(), newsroom.schedule
    current = schedule.current(now)
    planned = [*([schedule.planned(current)] if current.at <= now else []), *schedule.upcoming(now)]
    rows = [(each, gate.standing(newsroom, each.slot)) for each in planned]
    if as_json:
        echo_json([show.slot_json(each, standing) for each, standing in rows])
        return
    for each, standing in rows:
        echo_lines(show.slot_lines(each, standing))


@verbs.command()
def approve(slot: SlotName = None) -> None:
    """Freeze the issue now: what is approved is what is sent, to the byte."""
    from pipeline import publish as route
    from pipeline import show

    newsroom = opened(writes=True, drafts=True)
    echo_lines(show.report_lines(route.approve(newsroom, slot_of(newsroom, slot), me())))


@verbs.command()
def reopen(slot: SlotName = None) -> None:
    """Void an approval, a hold or a skip, as long as no reader is enrolled."""
    from pipeline import gate
    from pipeline import publish as route
    from pipeline.books import Stance

    newsroom = opened(writes=True)
    chosen = slot_of(newsroom, slot)
    route.reopen(newsroom, chosen, me())
    held = gate.standing(newsroom, chosen).state == Stance.HELD
    typer.echo(f"{chosen.name} is open again; " + ("it is held until somebody approves it." if held else "nothing is frozen."))


@verbs.command()
def hold(slot: SlotName = None, why: Why = "") -> None:
    """Let nothing go out for a slot before somebody approves or reopens it."""
    from pipeline import gate
    from pipeline.text import one_line

    newsroom = opened(writes=True)
    chosen = slot_of(newsroom, slot)
    gate.hold(newsroom, chosen, me(), one_line(why))
    typer.echo(f"{chosen.name} is held; `friday approve {chosen.name}` lets it go.")


@verbs.command()
def skip(slot: SlotName = None, why: Why = "") -> None:
    """Publish nothing for a slot; an approval is void."""
    from pipeline import gate
    from pipeline.text import one_line

    newsroom = opened(writes=True)
    chosen = slot_of(newsroom, slot)
    gate.skip(newsroom, chosen, me(), one_line(why))
    typer.echo(f"{chosen.name} is skipped; `friday reopen {chosen.name}` opens it again.")


@verbs.command("test")
def send_test(
    to: Annotated[list[str], typer.Option(metavar="ADDRESS", help="An address that config.toml names; may be repeated.")],
    slot: SlotName = None,
) -> None:
    """Send the very issue to addresses of your own, marked as a test and counted nowhere."""
    from pipeline import gate, mail

    newsroom = opened(writes=True, drafts=True)
    chosen, began = slot_of(newsroom, slot), newsroom.now()
    addresses = gate.send_test(newsroom, chosen, to, me())
    mail.send_due(newsroom)
    with newsroom.database.read() as session:
        troubles = mail.troubles(session, mail.TEST, began)
    if troubles:
        raise ProviderError(f"{len(troubles)} of {len(addresses)} tests of {chosen.name} did not leave: {'; '.join(troubles)}")
    number = f"{len(addresses):,} {'address' if len(addresses) == 1 else 'addresses'}"
    typer.echo(f"A test of {chosen.name} was sent to {number}.")
