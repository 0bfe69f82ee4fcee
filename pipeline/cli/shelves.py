"""The verbs for what lies on the shelves: the stories that were collected, and the terms of the glossary."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import edit
from pipeline.cli.common import AsJson, SlotName, configured, echo_json, echo_lines, opened, slot_of
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.issue import Term

stories = typer.Typer(help="What the sources told.", no_args_is_help=True)
terms = typer.Typer(help="The glossary.", no_args_is_help=True)
MOST = 100


@stories.command("list")
def list_stories(
    words: Annotated[list[str] | None, typer.Argument(metavar="[WORDS]", help="Which title or source must hold.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How far back.")] = 7,
    as_json: AsJson = False,
) -> None:
    """The newest stories of the inbox."""
    from datetime import timedelta

    from pipeline import inbox, show
    from pipeline.text import one_line

    newsroom = opened()
    with newsroom.database.read() as session:
        found = inbox.search(session, one_line(" ".join(words or ())), newsroom.now() - timedelta(days=days), MOST + 1)
    shown = found[:MOST]
    if as_json:
        echo_json([show.story_json(each) for each in shown])
    else:
        for each in shown:
            echo_lines(show.story_lines(each))
    more = f"; these are the newest {MOST}: say a word, or fewer --days" if len(found) > MOST else ""
    number = f"more than {MOST}" if more else f"{len(shown)}"
    typer.echo(f"{number} {'story' if len(found) == 1 else 'stories'} of {days} days{more}", err=True)


# The same deeds as at the desk, for whoever thinks of a story rather than of a slot.
stories.command("add")(edit.add)
stories.command("pin")(edit.pin)
stories.command("drop")(edit.drop)


@terms.command("list")
def list_terms(as_json: AsJson = False) -> None:
    """Every term by its slug."""
    glossary = configured().glossary
    if as_json:
        echo_json([{"slug": each.slug, "term": each.name, "topic": each.topic} for each in glossary.values()])
        return
    for each in glossary.values():
        typer.echo(f"{each.slug}  {each.name} ({each.topic})")
    typer.echo(f"{len(glossary):,} {'term' if len(glossary) == 1 else 'terms'}", err=True)


@terms.command("show")
def show_term(slug: Annotated[str, typer.Argument(metavar="SLUG")]) -> None:
    """A term with all that its file says."""
    from pipeline import show

    echo_lines(show.term_lines(_term(configured().glossary, slug)))


@terms.command("next")
def next_terms(slot: SlotName = None) -> None:
    """The term of the week and those that come next, with the reasons."""
    from pipeline import publish as route
    from pipeline import show

    newsroom = opened(drafts=True)
    echo_lines(show.next_terms_lines(route.draft(newsroom, slot_of(newsroom, slot))))


def _term(glossary: "dict[str, Term]", slug: str) -> "Term":
    if slug not in glossary:
        from difflib import get_close_matches

        near = get_close_matches(slug, glossary, 1)
        raise UsageError(f"there is no term {slug!r}" + (f"; did you mean {near[0]}?" if near else ": see `friday terms list`"))
    return glossary[slug]
