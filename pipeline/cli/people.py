"""The verbs for people: who gets the newsletter, and who may sign in to its newsroom."""

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import AsJson, Progress, echo_json, is_sure, opened
from pipeline.errors import DecisionNeeded, UsageError

if TYPE_CHECKING:
    from subscribers.models import State

readers = typer.Typer(help="Who gets the newsletter.", no_args_is_help=True)
admins = typer.Typer(help="Who may sign in to the newsroom.", no_args_is_help=True)

FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")]
SEGMENT_HELP = "Who is meant, such as 'topic:policy and joined>2026-01-01'."
TOLD_REFUSALS = 20


@readers.command("add")
def add_subscriber(address: str, name: Annotated[str, typer.Option(help="As the person writes it.")] = "") -> None:
    """Put one address on the roll as active. Only with the person's consent."""
    from subscribers import roll

    newsroom = opened(writes=True)
    with newsroom.database.write() as session:
        added = roll.add(session, address, newsroom.now(), name, keys=newsroom.known_keys)
    typer.echo("Added." if added.new else f"Known already: {added.subscriber.state}. Nothing changed.")


@readers.command("count")
def count_subscribers(
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help=SEGMENT_HELP)] = "", as_json: AsJson = False
) -> None:
    """How many a segment would mail now; without one, how many the newsletter's own audience would."""
    from subscribers import roll
    from subscribers.segments import compile_segment, parse

    tree = parse(segment) if segment.strip() else None
    newsroom = opened()
    audience = compile_segment(tree, newsroom.home) if tree else newsroom.audience
    with newsroom.database.read() as session:
        number = roll.count_mailable(session, newsroom.now(), audience)
    meant = str(tree) if tree else newsroom.config.newsletter.audience
    if as_json:
        echo_json({"segment": meant, "mailable": number})
        return
    who = f"in {meant}" if meant else "on the roll"
    typer.echo(f"{number:,} {'subscriber' if number == 1 else 'subscribers'} {who} would be mailed now.")


@readers.command("list")
def list_subscribers(
    state: Annotated[str | None, typer.Option(help="pending, active or unsubscribed.")] = None,
    segment: Annotated[str, typer.Option(metavar="SEGMENT", help=SEGMENT_HELP)] = "",
    as_json: AsJson = False,
) -> None:
    """Everybody on the roll, or in a segment, by address; those of one topic, tag or domain as they came."""
    from subscribers import search
    from subscribers.segments import parse

    chosen = _state(state)
    tree = parse(segment) if segment.strip() else None
    newsroom = opened()
    wanted = search.Wanted(chosen, segment=tree, home=newsroom.home)
    with newsroom.database.read() as session:
        rows = [
            {
                "address": who.address,
                "name": who.name,
                "state": who.state,
                "suppressed": who.suppressed,
                "joined": who.joined.isoformat(),
                "topics": who.topics,
                "tags": who.tags,
            }
            for who in search.everybody(session, wanted)
        ]
    if as_json:
        echo_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['address']}  {row['state']}" + (f", suppressed ({row['suppressed']})" if row["suppressed"] else ""))
    typer.echo(f"{len(rows):,} {'subscriber' if len(rows) == 1 else 'subscribers'}", err=True)


@readers.command("import")
def import_subscribers(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV, or the JSON that export writes.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen and write nothing.")] = False,
    refused: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Every refused line with its reason.")] = None,
    attributes: Annotated[str, typer.Option(help="Further columns to keep, with commas between them.")] = "",
) -> None:
    """Put the people of a file on the roll: a CSV with a column `email`, or the export of another house.

    Known are those of Mailchimp, Substack, Buttondown, Ghost, listmonk, beehiiv and Kit. Whoever left, bounced or
    complained there, or here, stays away.
    """
    from pipeline import show
    from subscribers import exchange, sheets

    newsroom = opened(writes=not dry_run)
    if refused and refused.resolve() == file.resolve():
        raise UsageError(f"--refused {refused} is the file to import: name another")
    told: list[tuple[int, str]] = []
    names = [name.strip() for name in attributes.split(",") if name.strip()]
    try:
        with (
            Progress(f"Importing {file.name}") as progress,
            sheets.written(refused) if refused else contextlib.nullcontext() as listing,
        ):

            def refuse(line: int, reason: str) -> None:
                if listing:
                    listing.write(sheets.csv_line((str(line), reason)))
                elif len(told) < TOLD_REFUSALS:
                    told.append((line, reason))

            if listing:
                listing.write(sheets.csv_line(("line", "reason")))
            imported = exchange.import_file(
                newsroom.database, file, newsroom.now(), attributes=names, dry_run=dry_run, refuse=refuse, progress=progress,
                erased=newsroom.blinded,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise DecisionNeeded(f"interrupted; `friday subscribers import {file}` goes on where it stopped") from None
    for line, reason in told:
        typer.echo(f"{file}:{line}: {reason}", err=True)
    if not refused and imported.refused > len(told):
        typer.echo(f"... and {imported.refused - len(told):,} more: --refused FILE.csv writes down every one", err=True)
    if imported.beware:
        typer.echo(f"Beware: {imported.beware}.", err=True)
    summary = show.imported_summary(imported)
    typer.echo(f"Nothing was written. As {imported.dialect}: {summary}." if dry_run else f"{summary}.")


@readers.command("export")
def export_subscribers(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Else it goes to stdout.")] = None,
    form: Annotated[str | None, typer.Option("--format", help="csv or json; else as FILE is called, else csv.")] = None,
    state: Annotated[str | None, typer.Option(help="pending, active or unsubscribed.")] = None,
    person: Annotated[str | None, typer.Option(metavar="ADDRESS", help="All that is held of one person, as JSON.")] = None,
) -> None:
    """Everybody on the roll with all that import takes. The file is for your eyes only: it is full of addresses."""
    from subscribers import exchange, sheets

    if person is not None:
        _export_person(person, file)
        return
    form = form or ("json" if file and file.suffix.lower() == ".json" else "csv")
    if form not in exchange.FORMATS:
        raise UsageError(f"{form!r} is not a format: there is {', '.join(exchange.FORMATS)}")
    chosen = _state(state)
    newsroom = opened()
    with Progress("Exporting") as progress:
        pieces = exchange.export(newsroom.database, form, chosen, progress)
        if file is None:
            for piece in pieces:
                # Whatever the terminal's own encoding is: what was exported can be imported.
                sys.stdout.buffer.write(piece.encode())
            sys.stdout.buffer.flush()
        else:
            with sheets.written(file) as out:
                out.writelines(pieces)
    typer.echo(f"{progress.done:,} {'subscriber' if progress.done == 1 else 'subscribers'}", err=True)


def _export_person(address: str, file: Path | None) -> None:
    from pipeline import person
    from subscribers import sheets

    held = person.held(opened(), address)
    if held is None:
        raise UsageError("nothing is held of that address")
    if file is None:
        echo_json(held)
        return
    with sheets.written(file) as out:
        out.write(json.dumps(held, ensure_ascii=False, indent=2) + "\n")


@readers.command("unsubscribe")
def unsubscribe(address: str) -> None:
    """Take one address off the roll."""
    from subscribers import history, roll

    newsroom = opened(writes=True)
    with newsroom.database.write() as session:
        found = roll.unsubscribe(session, roll.normalise(address).key, newsroom.now(), history.COMMAND)
    if not found:
        raise UsageError("nobody of that address is on the roll")
    typer.echo("Unsubscribed.")


@readers.command("suppress")
def suppress(address: str, note: Annotated[str, typer.Option(help="Why, for yourself.")] = "") -> None:
    """Never mail an address again, whether or not it is on the roll."""
    from subscribers import history, roll
    from subscribers.models import Why

    newsroom = opened(writes=True)
    with newsroom.database.write() as session:
        new = roll.suppress(session, address, Why.MANUAL, newsroom.now(), note, history.COMMAND)
    typer.echo("Suppressed." if new else "Suppressed already. Nothing changed.")


@readers.command("erase")
def erase_subscriber(
    address: str, yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False
) -> None:
    """Remove a person wherever they stand, for good. A keyed hash stays, so that nobody else brings them back."""
    from pipeline import person

    newsroom = opened(writes=True)
    question = "Erase all that is held of this person? Nothing brings it back."
    if sys.stdin.isatty() and not yes and not is_sure(question):
        raise DecisionNeeded("nothing was erased")
    if not person.erase(newsroom, address):
        raise UsageError("nothing is held of that address")
    typer.echo("Erased.")


@readers.command("form")
def sign_up_form() -> None:
    """Print a sign-up form for other sites: one piece of HTML, without scripts."""
    from pipeline import admit

    typer.echo(admit.snippet(opened()), nl=False)


@admins.command("add")
def add_admin(
    address: str,
    role: Annotated[str | None, typer.Option(help="owner or editor; the first is an owner, others are editors.")] = None,
    password_stdin: FromStdin = False,
) -> None:
    """Let somebody sign in. An editor cannot decide who else may, export or erase."""
    from pipeline import staff

    if role not in (None, *staff.Role):
        raise UsageError(f"{role!r} is not a role: there is {', '.join(staff.Role)}")
    newsroom = opened(writes=True)
    with newsroom.database.read() as session:
        given = staff.Role(role) if role else staff.Role.EDITOR if staff.listed(session) else staff.Role.OWNER
        staff.see_that_it_can_be_added(session, address, given)
    hashed = staff.Passwords().choose(_new_password(from_stdin=password_stdin), address, newsroom.masthead.title)
    with newsroom.database.write() as session:
        staff.add(session, address, hashed, given, newsroom.now())
    typer.echo(f"Added as {given.value}. Sign in at {newsroom.masthead.base_url}/newsroom")


@admins.command("list")
def list_admins(as_json: AsJson = False) -> None:
    """Everybody who may sign in."""
    from pipeline import staff

    newsroom = opened()
    with newsroom.database.read() as session:
        found = staff.listed(session)
    if as_json:
        echo_json([{"address": each.address, "role": each.role, "since": each.since.isoformat()} for each in found])
        return
    for each in found:
        typer.echo(f"{each.address}  {each.role.value}, since {each.since:%Y-%m-%d}")
    typer.echo(f"{len(found):,} {'person' if len(found) == 1 else 'people'} may sign in", err=True)


@admins.command("remove")
def remove_admin(address: str) -> None:
    """Let somebody sign in no more; where they are signed in, they no longer are."""
    from pipeline import staff

    newsroom = opened(writes=True)
    with newsroom.database.write() as session:
        staff.remove(session, address)
    typer.echo("Removed.")


@admins.command("password")
def set_password(address: str, password_stdin: FromStdin = False) -> None:
    """Give somebody another password; where they are signed in, they no longer are."""
    from pipeline import staff

    newsroom = opened(writes=True)
    with newsroom.database.read() as session:
        staff.find(session, address)
    hashed = staff.Passwords().choose(_new_password(from_stdin=password_stdin), address, newsroom.masthead.title)
    with newsroom.database.write() as session:
        staff.set_password(session, address, hashed)
    typer.echo("The password is set.")


def _new_password(*, from_stdin: bool) -> str:
    """A password from stdin, or asked for twice at a terminal."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for a password at: pipe one in and say --password-stdin")
    try:
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt="The same again", err=True))
    except typer.Abort:
        raise UsageError("no password was given; nothing was changed") from None


def _state(name: str | None) -> "State | None":
    from subscribers.models import State

    if name not in (None, *State):
        raise UsageError(f"{name!r} is not a state: there is {', '.join(State)}")
    return State(name) if name else None
