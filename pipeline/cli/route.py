"""The verbs of the route, from the config to the report of an issue that was sent."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import AsJson, Progress, SlotName, configured, echo_json, echo_lines, is_sure, opened, slot_of
from pipeline.errors import DecisionNeeded, UsageError

if TYPE_CHECKING:
    from pipeline.issue import RenderedIssue
    from pipeline.ledger import Report

verbs = typer.Typer()
Named = Annotated[str, typer.Argument(metavar="SLOT", help="The slot's date, such as 2026-11-27.")]


@verbs.command()
def check() -> None:
    """Read config, terms and templates, and name every mistake with file and line."""
    from pipeline.publish import check as check_content

    newsroom = configured()
    terms = check_content(newsroom)
    sources = len(newsroom.sources)
    typer.echo(f"{newsroom.config.path}: no mistakes; {terms} terms, {sources} {'source' if sources == 1 else 'sources'}.")


@verbs.command()
def collect() -> None:
    """Read every source into the story inbox."""
    from pipeline import collect as side_road
    from pipeline import show

    newsroom = opened(writes=True)
    if not newsroom.sources:
        raise UsageError(f"{newsroom.config.path} names no [[sources]] to collect from")
    visits = side_road.collect(newsroom, lambda visit: typer.echo(show.visit_line(visit), err=True))
    typer.echo(show.visits_summary(visits))


@verbs.command()
def draft(slot: SlotName = None, as_json: AsJson = False) -> None:
    """Show what would go out: stories with scores and reasons, the term, the findings. Writes nothing."""
    from pipeline import publish as route
    from pipeline import show

    newsroom = opened(drafts=True)
    drafted = route.draft(newsroom, slot_of(newsroom, slot))
    if as_json:
        echo_json(show.draft_json(drafted))
    else:
        echo_lines(show.draft_lines(drafted))


@verbs.command()
def preview(
    slot: SlotName = None,
    port: Annotated[int, typer.Option(help="On the loopback address.")] = 8011,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
) -> None:
    """Show the very issue in the browser; it reloads itself when a template, term or style is saved."""
    from pipeline.web.preview import serve_preview

    newsroom = opened()
    serve_preview(newsroom, slot_of(newsroom, slot), port, open_browser=browser)


@verbs.command()
def publish(
    slot: SlotName = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Though it is not due, or late; never before a reader's own hour.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole route. Call it as often as you like: nobody gets a second copy."""
    from pipeline import place, show
    from pipeline import publish as route

    newsroom = opened(writes=not dry_run, drafts=True)
    # A signal must not wait until a back-off is over.
    newsroom = replace(newsroom, wait=newsroom.stopping.wait)
    chosen = slot_of(newsroom, slot)
    if dry_run:
        rehearsal = route.rehearse(newsroom, chosen, anyway=anyway)
        if as_json:
            echo_json(show.rehearsal_json(rehearsal))
        else:
            echo_lines(show.rehearsal_lines(rehearsal))
        return
    ask = _agree if sys.stdin.isatty() and not yes else _always

    def agree(issue: "RenderedIssue", readers: int) -> bool:
        agreed = ask(issue, readers)
        if agreed:
            # Not before, since what is refused leaves everything as it is.
            place.settle(newsroom)
        return agreed

    try:
        with Progress(f"Sending {chosen.name}", "copies") as progress, stopping_at_signals(newsroom.stopping, progress):
            sent = route.publish(newsroom, chosen, anyway=anyway, agree=agree, progress=progress)
    except KeyboardInterrupt:
        raise DecisionNeeded(f"interrupted; `friday publish {chosen.name}` goes on where it stopped") from None
    if not progress.done:
        typer.echo("Nothing was left to send.", err=True)
    _echo_report(sent, as_json=as_json)


@verbs.command()
def report(slot: SlotName = None, as_json: AsJson = False) -> None:
    """How an issue stands: every reader in exactly one counted state, every unknown copy by name."""
    from pipeline import publish as route
    from pipeline import show

    newsroom = opened()
    found = route.report(newsroom, slot_of(newsroom, slot))
    if as_json:
        echo_json(show.report_json(found))
    else:
        echo_lines(show.report_lines(found))


@verbs.command()
def pause(slot: Named) -> None:
    """Stop an issue that is being sent, here or in another process; what is in flight comes home."""
    from pipeline import publish as route

    newsroom = opened(writes=True)
    route.pause(newsroom, route.named(newsroom, slot))
    typer.echo(f"{slot} is paused; `friday resume {slot}` lets it go on.")


@verbs.command()
def resume(slot: Named) -> None:
    """Let a paused issue go on."""
    from pipeline import publish as route

    newsroom = opened(writes=True)
    route.resume(newsroom, route.named(newsroom, slot))
    typer.echo(f"{slot} is no longer paused; `friday publish {slot}` sends the rest, or `friday serve` while the slot is due.")


@verbs.command()
def resolve(
    slot: Named,
    accepted: Annotated[bool, typer.Option("--accepted", help="They have it.")] = False,
    resend: Annotated[bool, typer.Option("--resend", help="Send again, at the risk of a second copy.")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Leave them without this issue.")] = False,
    reader: Annotated[str | None, typer.Option(help="Only this address.")] = None,
) -> None:
    """Decide about unknown copies."""
    from pipeline import publish as route
    from pipeline.ledger import Decision

    chosen = [each for each, wanted in zip(Decision, (accepted, resend, skip), strict=True) if wanted]
    if len(chosen) != 1:
        raise UsageError("say exactly one of --accepted, --resend and --skip")
    newsroom = opened(writes=True)
    moved = route.resolve(newsroom, route.named(newsroom, slot), chosen[0], reader)
    if not moved:
        raise UsageError("there is no unknown copy for that reader" if reader else "there is no unknown copy")
    again = f"; `friday publish {slot}` sends them" if moved and chosen[0] is Decision.RESEND else ""
    typer.echo(f"{moved:,} unknown {'copy' if moved == 1 else 'copies'} decided: {chosen[0].value}{again}.")


@contextmanager
def stopping_at_signals(stopping: threading.Event, progress: "Progress") -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the sending once what is in flight has come home and was settled.

    Before anything is sent they end it at once. A second one changes nothing: an exception in the middle of settling would
    lose what a provider has answered.
    """

    def stop(_number: int, _frame: object) -> None:
        if not progress.began:
            raise KeyboardInterrupt
        if stopping.is_set():
            return
        stopping.set()
        # The signal may have come in the middle of a line to stderr, which then takes no other.
        with contextlib.suppress(RuntimeError):
            typer.echo("Stopping; what is in flight comes home first.", err=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _always(_issue: "RenderedIssue", _readers: int) -> bool:
    return True


def _agree(issue: "RenderedIssue", readers: int) -> bool:
    typer.echo(f"Issue {issue.number} of {issue.slot}: {issue.subject}", err=True)
    return is_sure(f"Send it to {readers:,} {'reader' if readers == 1 else 'readers'}?")


def _echo_report(sent: "Report", *, as_json: bool) -> None:
    from pipeline import show
    from pipeline.books import IssueState

    if as_json:
        echo_json(show.report_json(sent))
    else:
        echo_lines(show.report_lines(sent))
    if sent.state != IssueState.SENT:
        raise typer.Exit(DecisionNeeded.exit_code)
