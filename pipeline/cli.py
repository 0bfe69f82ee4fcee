"""The command `friday`: thin verbs over functions that a test also calls.

Everything heavy is imported by the verb that needs it, so that `friday --help` answers at once.
"""

import contextlib
import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from pipeline.errors import DecisionNeeded, FridayError, UsageError

if TYPE_CHECKING:
    from pipeline.issue import RenderedIssue, Slot
    from pipeline.ledger import Report
    from pipeline.newsroom import Newsroom
    from subscribers.models import State

app = typer.Typer(
    help="A newsletter that writes its own Friday.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
people = typer.Typer(help="Who gets the newsletter.", no_args_is_help=True)
app.add_typer(people, name="subscribers")
admins = typer.Typer(help="Who may sign in to the newsroom.", no_args_is_help=True)
app.add_typer(admins, name="admin")

FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")]
SlotName = Annotated[
    str | None, typer.Argument(metavar="[SLOT]", help="The slot's date, such as 2026-11-27; the due or next one if left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
SEGMENT_HELP = "Who is meant, such as 'topic:policy and joined>2026-01-01'."
INTERRUPTED = 130
TOLD_REFUSALS = 20
_config: Path | None = None


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
    global _config  # noqa: PLW0603 - one process runs one verb, and every verb needs the path
    _config = config


@app.command()
def check() -> None:
    """Read config, terms and templates, and name every mistake with file and line."""
    from pipeline.newsroom import open_newsroom
    from pipeline.publish import check as check_content

    newsroom = open_newsroom(_config)
    terms = check_content(newsroom)
    sources = len(newsroom.sources)
    typer.echo(f"{newsroom.config.path}: no mistakes; {terms} terms, {sources} {'source' if sources == 1 else 'sources'}.")


@app.command()
def collect() -> None:
    """Read every source into the story inbox."""
    from pipeline import collect as side_road
    from pipeline import show

    newsroom = _newsroom(writes=True)
    if not newsroom.sources:
        raise UsageError(f"{newsroom.config.path} names no [[sources]] to collect from")
    visits = side_road.collect(newsroom, lambda visit: typer.echo(show.visit_line(visit), err=True))
    typer.echo(show.visits_summary(visits))


@app.command()
def draft(slot: SlotName = None, as_json: AsJson = False) -> None:
    """Show what would go out: stories with scores and reasons, the term, the findings. Writes nothing."""
    from pipeline import publish as route
    from pipeline import show

    newsroom = _newsroom(drafts=True)
    drafted = route.draft(newsroom, _slot(newsroom, slot))
    if as_json:
        _echo_json(show.draft_json(drafted))
    else:
        _echo_lines(show.draft_lines(drafted))


@app.command()
def preview(
    slot: SlotName = None,
    port: Annotated[int, typer.Option(help="On the loopback address.")] = 8011,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
) -> None:
    """Show the very issue in the browser; it reloads itself when a template, term or style is saved."""
    from pipeline.web.preview import serve_preview

    newsroom = _newsroom()
    serve_preview(newsroom, _slot(newsroom, slot), port, open_browser=browser)


@app.command()
def approve(slot: SlotName = None) -> None:
    """Freeze the issue now: what is approved is what is sent, to the byte."""
    from pipeline import publish as route
    from pipeline import show

    newsroom = _newsroom(writes=True, drafts=True)
    _echo_lines(show.report_lines(route.approve(newsroom, _slot(newsroom, slot))))


@app.command()
def reopen(slot: SlotName = None) -> None:
    """Void an approval, as long as no reader is enrolled."""
    from pipeline import publish as route

    newsroom = _newsroom(writes=True)
    chosen = _slot(newsroom, slot)
    route.reopen(newsroom, chosen)
    typer.echo(f"{chosen.name} is open again; nothing is frozen.")


@app.command()
def publish(
    slot: SlotName = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Though it is not due yet, or its grace is over.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole route. Call it as often as you like: nobody gets a second copy."""
    from pipeline import place, show
    from pipeline import publish as route

    newsroom = _newsroom(writes=not dry_run, drafts=True)
    # A signal must not wait until a back-off is over.
    newsroom = replace(newsroom, wait=newsroom.stopping.wait)
    chosen = _slot(newsroom, slot)
    if dry_run:
        _echo_lines(show.rehearsal_lines(route.rehearse(newsroom, chosen)))
        return
    ask = _agree if sys.stdin.isatty() and not yes else _always

    def agree(issue: "RenderedIssue", readers: int) -> bool:
        agreed = ask(issue, readers)
        if agreed:
            # Not before, since what is refused leaves everything as it is.
            place.settle(newsroom)
        return agreed

    try:
        with _Progress(f"Sending {chosen.name}", "copies") as progress, _stopping_at_signals(newsroom.stopping, progress):
            sent = route.publish(newsroom, chosen, anyway=anyway, agree=agree, progress=progress)
    except KeyboardInterrupt:
        raise DecisionNeeded(f"interrupted; `friday publish {chosen.name}` goes on where it stopped") from None
    if not progress.done:
        typer.echo("Nothing was left to send.", err=True)
    _echo_report(sent, as_json=as_json)


@app.command()
def report(slot: SlotName = None, as_json: AsJson = False) -> None:
    """How an issue stands: every reader in exactly one counted state, every unknown copy by name."""
    from pipeline import publish as route
    from pipeline import show

    newsroom = _newsroom()
    found = route.report(newsroom, _slot(newsroom, slot))
    if as_json:
        _echo_json(show.report_json(found))
    else:
        _echo_lines(show.report_lines(found))


@app.command()
def pause(slot: Annotated[str, typer.Argument(metavar="SLOT", help="The slot's date, such as 2026-11-27.")]) -> None:
    """Stop an issue that is being sent, here or in another process; what is in flight comes home."""
    from pipeline import publish as route

    newsroom = _newsroom(writes=True)
    route.pause(newsroom, newsroom.schedule.named(slot))
    typer.echo(f"{slot} is paused; `friday resume {slot}` lets it go on.")


@app.command()
def resume(slot: Annotated[str, typer.Argument(metavar="SLOT", help="The slot's date, such as 2026-11-27.")]) -> None:
    """Let a paused issue go on."""
    from pipeline import publish as route

    newsroom = _newsroom(writes=True)
    route.resume(newsroom, newsroom.schedule.named(slot))
    typer.echo(f"{slot} is no longer paused; `friday publish {slot}` sends the rest, or `friday serve` while the slot is due.")


@app.command()
def resolve(
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="The slot's date, such as 2026-11-27.")],
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
    newsroom = _newsroom(writes=True)
    moved = route.resolve(newsroom, newsroom.schedule.named(slot), chosen[0], reader)
    if not moved:
        raise UsageError("there is no unknown copy for that reader" if reader else "there is no unknown copy")
    again = f"; `friday publish {slot}` sends them" if moved and chosen[0] is Decision.RESEND else ""
    typer.echo(f"{moved:,} unknown {'copy' if moved == 1 else 'copies'} decided: {chosen[0].value}{again}.")


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(help="Instead of web.port; 0 takes any that is free.")] = None,
) -> None:
    """The public pages and the clock in one process: collect, and publish when a slot is due."""
    from pipeline import serve as house

    logging.getLogger("pipeline").setLevel(logging.INFO)
    house.serve(_newsroom(writes=True), port)


@app.command()
def adopt(yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False) -> None:
    """Let this copy of the newsroom be the one from now on. What may have been sent elsewhere is not sent by itself."""
    from pipeline import place, show

    newsroom = _newsroom(writes=True)
    moved = place.see(newsroom)
    if moved and sys.stdin.isatty() and not yes:
        typer.echo(moved, err=True)
        if not typer.confirm("Is the other one stopped for good, and shall this one go on?", err=True):
            raise DecisionNeeded("nothing was changed")
    _echo_lines(show.adopted_lines(place.adopt(newsroom, "friday adopt")))


@app.command()
def backup(file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file; none is overwritten.")]) -> None:
    """Copy the SQLite database, also while it is in use. The file is for your eyes only: it is full of addresses."""
    from pipeline import backup as copies
    from pipeline.newsroom import open_newsroom

    newsroom = open_newsroom(_config)
    # Of an older revision too: before it is migrated is a good time to copy it.
    if newsroom.database.revision is None:
        newsroom.database.require()
    size = copies.write(newsroom.database, file, newsroom.now())
    typer.echo(f"{file}: {size / 1_000_000:,.1f} MB, seen to be sound.")


@app.command()
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


@people.command("add")
def add_subscriber(address: str, name: Annotated[str, typer.Option(help="As the person writes it.")] = "") -> None:
    """Put one address on the roll as active. Only with the person's consent."""
    from subscribers import roll

    newsroom = _newsroom(writes=True)
    with newsroom.database.write() as session:
        added = roll.add(session, address, newsroom.now(), name, keys=newsroom.known_keys)
    typer.echo("Added." if added.new else f"Known already: {added.subscriber.state}. Nothing changed.")


@people.command("count")
def count_subscribers(
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help=SEGMENT_HELP)] = "", as_json: AsJson = False
) -> None:
    """How many a segment would mail now; without one, how many the newsletter's own audience would."""
    from subscribers import roll
    from subscribers.segments import compile_segment, parse

    tree = parse(segment) if segment.strip() else None
    newsroom = _newsroom()
    audience = compile_segment(tree, newsroom.home) if tree else newsroom.audience
    with newsroom.database.read() as session:
        number = roll.count_mailable(session, newsroom.now(), audience)
    meant = str(tree) if tree else newsroom.config.newsletter.audience
    if as_json:
        _echo_json({"segment": meant, "mailable": number})
        return
    who = f"in {meant}" if meant else "on the roll"
    typer.echo(f"{number:,} {'subscriber' if number == 1 else 'subscribers'} {who} would be mailed now.")


@people.command("list")
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
    newsroom = _newsroom()
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
        _echo_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['address']}  {row['state']}" + (f", suppressed ({row['suppressed']})" if row["suppressed"] else ""))
    typer.echo(f"{len(rows):,} {'subscriber' if len(rows) == 1 else 'subscribers'}", err=True)


@people.command("import")
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

    newsroom = _newsroom(writes=not dry_run)
    if refused and refused.resolve() == file.resolve():
        raise UsageError(f"--refused {refused} is the file to import: name another")
    told: list[tuple[int, str]] = []
    names = [name.strip() for name in attributes.split(",") if name.strip()]
    try:
        with (
            _Progress(f"Importing {file.name}") as progress,
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


@people.command("export")
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
    newsroom = _newsroom()
    with _Progress("Exporting") as progress:
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

    held = person.held(_newsroom(), address)
    if held is None:
        raise UsageError("nothing is held of that address")
    if file is None:
        _echo_json(held)
        return
    with sheets.written(file) as out:
        out.write(json.dumps(held, ensure_ascii=False, indent=2) + "\n")


@people.command("unsubscribe")
def unsubscribe(address: str) -> None:
    """Take one address off the roll."""
    from subscribers import history, roll

    newsroom = _newsroom(writes=True)
    with newsroom.database.write() as session:
        found = roll.unsubscribe(session, roll.normalise(address).key, newsroom.now(), history.COMMAND)
    if not found:
        raise UsageError("nobody of that address is on the roll")
    typer.echo("Unsubscribed.")


@people.command("suppress")
def suppress(address: str, note: Annotated[str, typer.Option(help="Why, for yourself.")] = "") -> None:
    """Never mail an address again, whether or not it is on the roll."""
    from subscribers import history, roll
    from subscribers.models import Why

    newsroom = _newsroom(writes=True)
    with newsroom.database.write() as session:
        new = roll.suppress(session, address, Why.MANUAL, newsroom.now(), note, history.COMMAND)
    typer.echo("Suppressed." if new else "Suppressed already. Nothing changed.")


@people.command("erase")
def erase_subscriber(
    address: str, yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False
) -> None:
    """Remove a person wherever they stand, for good. A keyed hash stays, so that nobody else brings them back."""
    from pipeline import person

    newsroom = _newsroom(writes=True)
    question = "Erase all that is held of this person? Nothing brings it back."
    if sys.stdin.isatty() and not yes and not typer.confirm(question, err=True):
        raise DecisionNeeded("nothing was erased")
    if not person.erase(newsroom, address):
        raise UsageError("nothing is held of that address")
    typer.echo("Erased.")


@people.command("form")
def sign_up_form() -> None:
    """Print a sign-up form for other sites: one piece of HTML, without scripts."""
    from pipeline import admit

    typer.echo(admit.snippet(_newsroom()), nl=False)


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
    newsroom = _newsroom(writes=True)
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

    newsroom = _newsroom()
    with newsroom.database.read() as session:
        found = staff.listed(session)
    if as_json:
        _echo_json([{"address": each.address, "role": each.role, "since": each.since.isoformat()} for each in found])
        return
    for each in found:
        typer.echo(f"{each.address}  {each.role.value}, since {each.since:%Y-%m-%d}")
    typer.echo(f"{len(found):,} {'person' if len(found) == 1 else 'people'} may sign in", err=True)


@admins.command("remove")
def remove_admin(address: str) -> None:
    """Let somebody sign in no more; where they are signed in, they no longer are."""
    from pipeline import staff

    newsroom = _newsroom(writes=True)
    with newsroom.database.write() as session:
        staff.remove(session, address)
    typer.echo("Removed.")


@admins.command("password")
def set_password(address: str, password_stdin: FromStdin = False) -> None:
    """Give somebody another password; where they are signed in, they no longer are."""
    from pipeline import staff

    newsroom = _newsroom(writes=True)
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


def _newsroom(*, writes: bool = False, drafts: bool = False) -> "Newsroom":
    """The newsroom with its database ready to read, or to write.

    A verb that drafts finds nothing in a new database, so none is made for it: what it would stumble over in
    terms and templates is told first.
    """
    from pipeline.newsroom import open_newsroom
    from pipeline.publish import check as check_content

    newsroom = open_newsroom(_config)
    new = newsroom.database.revision is None
    if drafts and new:
        check_content(newsroom)
    if writes and not (drafts and new):
        newsroom.database.migrate()
    else:
        newsroom.database.require()
    return newsroom


def _state(name: str | None) -> "State | None":
    from subscribers.models import State

    if name not in (None, *State):
        raise UsageError(f"{name!r} is not a state: there is {', '.join(State)}")
    return State(name) if name else None


def _slot(newsroom: "Newsroom", name: str | None) -> "Slot":
    return newsroom.schedule.named(name) if name else newsroom.schedule.current(newsroom.now())


@contextmanager
def _stopping_at_signals(stopping: threading.Event, progress: "_Progress") -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the sending once what is in flight has come home and was settled.

    Before anything is sent they end it at once. A second Ctrl-C waits for nothing but the calls in flight.
    """

    def stop(number: int, _frame: object) -> None:
        if not progress.began or (stopping.is_set() and number == signal.SIGINT):
            raise KeyboardInterrupt
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
    try:
        return typer.confirm(f"Send it to {readers:,} {'reader' if readers == 1 else 'readers'}?", err=True)
    except typer.Abort:
        return False


def _echo_lines(lines: Any) -> None:
    for line in lines:
        typer.echo(line)


def _echo_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _echo_report(sent: "Report", *, as_json: bool) -> None:
    from pipeline import show
    from pipeline.books import IssueState

    if as_json:
        _echo_json(show.report_json(sent))
    else:
        _echo_lines(show.report_lines(sent))
    if sent.state != IssueState.SENT:
        raise typer.Exit(DecisionNeeded.exit_code)


class _Progress:
    """How far the copies or rows are, on stderr: a bar with rate and time left at a terminal; of copies a line at the end."""

    def __init__(self, label: str, what: str = "rows") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        task, rate = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
        columns = (task, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._label, self._what = label, what
        self._task = self._bar.add_task(label, total=None, rate="")
        self._first = 0
        self.began = False
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __call__(self, settled: int, copies: int) -> None:
        if not self.began:
            # Copies may have been sent before this run; rows are all of this one.
            self.began, self._first = True, settled if self._what == "copies" else 0
            self._bar.start()
        self.done = settled - self._first
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, completed=settled, total=copies, rate=f"{speed:,.0f}/s" if speed else "")

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self.done and self._what == "copies":
            copies = "1 copy" if self.done == 1 else f"{self.done:,} copies"
            typer.echo(f"{self._label}: {copies} handled", err=True)
