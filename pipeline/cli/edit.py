"""The verbs of the desk: what an editor changes of a draft."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import SLOT_HELP, echo_lines, me, opened, slot_of
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.edit import Desk
    from pipeline.issue import Draft

verbs = typer.Typer(help="Change what would go out: stories, words, the term.", no_args_is_help=True)
AtSlot = Annotated[str | None, typer.Option("--slot", metavar="SLOT", help=SLOT_HELP)]
StoryName = Annotated[
    str,
    typer.Argument(metavar="STORY", help="Its number in the selection, r1, r2, ... for a runner-up, or its address."),
]
Title = Annotated[str, typer.Option(metavar="TEXT", help="Where the page does not say what it is called.")]
Text = Annotated[str | None, typer.Argument(metavar="[TEXT]")]
Reset = Annotated[bool, typer.Option("--reset", help="Leave it to the machine again.")]


@verbs.command("show")
def show_desk(slot: AtSlot = None) -> None:
    """The draft with the numbers by which stories are named here."""
    from pipeline import publish as route
    from pipeline import show

    newsroom = opened(drafts=True)
    echo_lines(show.desk_lines(route.draft(newsroom, slot_of(newsroom, slot))))


@verbs.command()
def move(story: StoryName, place: Annotated[int, typer.Argument(metavar="PLACE", min=1)], slot: AtSlot = None) -> None:
    """Put a story of the selection in another place; all of them stay from now on."""
    with _at_desk(slot) as (desk, drafted):
        page, last = _page(drafted, story), len(drafted.selection.stories)
        if place > last:
            raise UsageError(f"there is no place {place}: {_numbers(drafted)}")
        desk.move(page, place)


@verbs.command()
def swap(
    story: StoryName,
    other: Annotated[str, typer.Argument(metavar="WITH", help="The one to come in: r1, r2, ... or its address.")],
    slot: AtSlot = None,
) -> None:
    """Put another story in the place of one of the selection."""
    with _at_desk(slot) as (desk, drafted):
        desk.swap(_page(drafted, story), _page(drafted, other))


@verbs.command()
def use(story: StoryName, slot: AtSlot = None) -> None:
    """Put a story into the selection: at its end, or in place of the last one where it is full."""
    with _at_desk(slot) as (desk, drafted):
        desk.use(_page(drafted, story))


@verbs.command()
def drop(story: StoryName, slot: AtSlot = None) -> None:
    """Take a story out, or keep one from coming in; the next best takes its place."""
    with _at_desk(slot) as (desk, drafted):
        desk.drop(_page(drafted, story))


@verbs.command()
def pin(story: StoryName, slot: AtSlot = None) -> None:
    """Keep a story where it is, whatever comes in."""
    with _at_desk(slot) as (desk, drafted):
        desk.pin(_page(drafted, story))


@verbs.command()
def unpin(story: StoryName, slot: AtSlot = None) -> None:
    """Let a stronger story that comes in take the place of one."""
    with _at_desk(slot) as (desk, drafted):
        page = _page(drafted, story)
        if page not in drafted.edits.places:
            raise UsageError("that story is not pinned")
        desk.unpin(page)


@verbs.command()
def add(url: Annotated[str, typer.Argument(metavar="URL")], title: Title = "", slot: AtSlot = None) -> None:
    """Put the page of an address into the selection, whether or not a source told of it."""
    with _at_desk(slot) as (desk, _):
        desk.add(url, title)


@verbs.command()
def line(
    story: StoryName,
    title: Annotated[str | None, typer.Option(metavar="TEXT")] = None,
    summary: Annotated[str | None, typer.Option(metavar="TEXT", help="An empty one takes it out.")] = None,
    why: Annotated[str | None, typer.Option(metavar="TEXT", help="Why it matters; an empty one takes it out.")] = None,
    reset: Annotated[list[str] | None, typer.Option(metavar="FIELD", help="title, summary or why; may be repeated.")] = None,
    slot: AtSlot = None,
) -> None:
    """Write the words of a story, or bring back its own."""
    from pipeline import edit

    written = {"title": title, "summary": summary, "why": why}
    wanted = {field: edit.clean(field, text) for field, text in written.items() if text is not None}
    for field in reset or ():
        if field not in edit.STORY_FIELDS:
            raise UsageError(f"a story has no {field!r} to reset: it has {', '.join(edit.STORY_FIELDS)}")
        if wanted.setdefault(field, None) is not None:
            raise UsageError(f"say either --{field} or --reset {field}")
    if not wanted:
        raise UsageError("say what to change: --title, --summary, --why or --reset FIELD")
    with _at_desk(slot) as (desk, drafted):
        page = _page(drafted, story)
        for field, text in wanted.items():
            desk.tell(page, field, text)


@verbs.command()
def subject(text: Text = None, reset: Reset = False, slot: AtSlot = None) -> None:
    """Write the subject."""
    _write_head("subject", text, slot, reset=reset)


@verbs.command()
def preheader(text: Text = None, reset: Reset = False, slot: AtSlot = None) -> None:
    """Write what an inbox shows behind the subject."""
    _write_head("preheader", text, slot, reset=reset)


@verbs.command()
def note(
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="Markdown; - reads it from stdin.")] = None,
    reset: Reset = False,
    slot: AtSlot = None,
) -> None:
    """Write the opening note."""
    _write_head("note", _from_stdin() if text == "-" else text, slot, reset=reset)


def _write_head(field: str, text: str | None, slot: str | None, *, reset: bool) -> None:
    from pipeline import edit

    _see_that_it_is_one("a text", text, reset=reset)
    kept = edit.clean(field, text)
    with _at_desk(slot) as (desk, _):
        desk.head(field, kept)


@verbs.command()
def term(
    slug: Annotated[str | None, typer.Argument(metavar="[SLUG]", help="See `friday terms list`.")] = None,
    reset: Reset = False,
    slot: AtSlot = None,
) -> None:
    """Choose the term of the week."""
    _see_that_it_is_one("a term", slug, reset=reset)
    with _at_desk(slot) as (desk, _):
        desk.term(slug)


@verbs.command()
def undo(slot: AtSlot = None) -> None:
    """Take back the last change that stands, whoever made it."""
    with _at_desk(slot) as (desk, _):
        desk.undo()


@verbs.command()
def log(slot: AtSlot = None) -> None:
    """Who did what when at the desk of a slot."""
    from pipeline import gate, show

    newsroom = opened()
    chosen = slot_of(newsroom, slot)
    deeds = gate.standing(newsroom, chosen).deeds
    if not deeds:
        typer.echo(f"Nothing was done at the desk of {chosen.name}.")
    echo_lines(show.deeds_lines(deeds, gate.titles(newsroom, deeds), newsroom.schedule.zone))


@contextmanager
def _at_desk(slot: str | None) -> Iterator[tuple["Desk", "Draft"]]:
    """A desk with the draft that lies on it; afterwards it is said what was done, and how the draft is now."""
    from pipeline import edit, gate, show
    from pipeline import publish as route
    from pipeline.desk import CHANGES, LINE_UP, Kind
    from pipeline.text import canonical_url

    newsroom = opened(writes=True, drafts=True)
    chosen = slot_of(newsroom, slot)
    drafted = route.draft(newsroom, chosen)
    before, by = drafted.edits.revision, me()
    yield edit.Desk(newsroom, chosen, by, before, edit.line_up(drafted)), drafted
    deeds = gate.standing(newsroom, chosen).deeds
    done = [each for each in deeds if each.id > before and each.by == by and each.kind in (*CHANGES, Kind.UNDO)]
    # Of several tellings of a page those that were looked at.
    shown = (*drafted.selection.stories, *drafted.selection.runners_up)
    titles = {**gate.titles(newsroom, deeds), **{canonical_url(each.story.url): each.story.title for each in shown}}
    for each in done:
        undone = next((other for other in deeds if each.kind is Kind.UNDO and other.id == each.about["edit"]), None)
        text = show.deed_text(undone or each, titles)
        typer.echo(f"Taken back: {text}." if undone else f"{text[0].upper()}{text[1:]}.")
    drafted = route.draft(newsroom, chosen)
    if any(each.kind in (*LINE_UP, Kind.WORDS, Kind.UNDO) for each in done):
        echo_lines(show.line_up_lines(drafted))
    echo_lines(show.findings_lines(drafted.findings) if drafted.findings else ())


def _page(drafted: "Draft", name: str) -> str:
    """The page of the story that somebody means by a number, by r and a number, or by an address.

    Raises:
        UsageError: there is none of that number, or it is neither.
    """
    from pipeline.text import canonical_url, one_line

    name = one_line(name)
    numbered = re.fullmatch(r"(r?)([0-9]{1,4})", name, re.IGNORECASE)
    if numbered:
        stories = drafted.selection.runners_up if numbered[1] else drafted.selection.stories
        if not 1 <= int(numbered[2]) <= len(stories):
            what = "runner-up" if numbered[1] else "story"
            raise UsageError(f"there is no {what} {name} for {drafted.slot.name}: {_numbers(drafted)}")
        return canonical_url(stories[int(numbered[2]) - 1].story.url)
    if "." not in name and "/" not in name:
        raise UsageError(f"{name!r} names no story: write its number or its address; {_numbers(drafted)}")
    return canonical_url(name)


def _numbers(drafted: "Draft") -> str:
    """Which numbers there are to name stories by."""
    stories, others = len(drafted.selection.stories), len(drafted.selection.runners_up)
    selected = f"the selection has {_span('', stories)}" if stories else "the selection is empty"
    return selected + (f", the runners-up are {_span('r', others)}" if others else ", and there are no runners-up")


def _span(letter: str, last: int) -> str:
    return f"{letter}1" if last == 1 else f"{letter}1 to {letter}{last}"


def _see_that_it_is_one(what: str, text: str | None, *, reset: bool) -> None:
    if (text is None) != reset:
        raise UsageError(f"say either {what} or --reset, which leaves it to the machine")


def _from_stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise UsageError("what came on stdin is not UTF-8: save it as UTF-8") from None
