"""Turn a selection into an issue: number, subject, preheader, order, lines. Pure."""

from collections.abc import Mapping

from pipeline.issue import (
    LEADS_TO_TERM,
    NO_EDITS,
    THE_TERM,
    Chosen,
    Edits,
    Issue,
    Line,
    Masthead,
    RelatedTerm,
    Selection,
    Slot,
    Term,
    TermBox,
    Wording,
)
from pipeline.text import as_markdown, canonical_url, shorten, words

SUBJECT = 70
PREHEADER = 90
TITLE = 140
SUMMARY = 280
WHY = 220

_NUMBERS = "no one two three four five six seven eight nine ten eleven twelve".split()


def compose(
    number: int,
    slot: Slot,
    selection: Selection,
    glossary: Mapping[str, Term],
    masthead: Masthead,
    edits: Edits = NO_EDITS,
) -> Issue:
    """The issue of a slot in the order of its selection, with an editor's words where there are any."""
    lines = tuple(_line(chosen, edits.wording(pages_of(chosen))) for chosen in selection.stories)
    term = _box(selection.term.term, glossary, masthead.glossary_url) if selection.term else None
    return Issue(
        number=number,
        slot=slot,
        masthead=masthead,
        subject=_or(edits.subject, shorten(lines[0].title, SUBJECT) if lines else masthead.title),
        preheader=_or(edits.preheader, _preheader(lines, term)),
        note=_or(edits.note, as_markdown(_note(selection))),
        lines=lines,
        term=term,
        view_url=f"{masthead.base_url}/issues/{slot.name}",
    )


def pages_of(chosen: Chosen) -> list[str]:
    """The canonical URLs of all that tell of a story, the linked one first."""
    return [canonical_url(story.url) for story in (chosen.story, *chosen.also)]


def _or(edited: str | None, own: str) -> str:
    return own if edited is None else edited


def _line(chosen: Chosen, wording: Wording) -> Line:
    story = chosen.story
    why = story.why or next((other.why for other in chosen.also if other.why), "")
    return Line(
        title=_or(wording.title, shorten(story.title, TITLE)),
        url=story.url,
        source=story.source,
        also=tuple(source for source in chosen.sources if source != story.source),
        minutes=story.minutes,
        summary=_or(wording.summary, _summary(chosen)),
        why=_or(wording.why, shorten(why, WHY)),
    )


def _summary(chosen: Chosen) -> str:
    """The linked telling's own summary; the fullest of the others where it only repeats its title."""
    title = set(words(chosen.story.title))
    told = [chosen.story.summary, *sorted((other.summary for other in chosen.also), key=len, reverse=True)]
    return next((shorten(summary, SUMMARY) for summary in told if set(words(summary)) - title), "")


def _preheader(lines: tuple[Line, ...], term: TermBox | None) -> str:
    """What the inbox shows behind the subject: the second story, as far as it fits, and the term."""
    end = THE_TERM.format(term.name) if term else ""
    if not lines[1:]:
        return end
    start, joint = "Also: ", " · " if end else ""
    return start + shorten(lines[1].title, PREHEADER - len(start + joint + end)) + joint + end


def _note(selection: Selection) -> str:
    chosen, told, sources = len(selection.stories), selection.told, selection.sources
    came = f"{_count(told, 'story').capitalize()} came in from {_count(sources, 'source')} this week."
    if not chosen:
        return came
    kept = "This is the one to know" if chosen == 1 else f"These {_number(chosen)} are the ones to know"
    term = f", and {LEADS_TO_TERM.format(selection.term.term.name)}." if selection.term else "."
    return f"{came} {kept}{term}"


def _number(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"


def _count(number: int, noun: str) -> str:
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
    return f"{_number(number)} {noun if number == 1 else plural}"


def _box(term: Term, glossary: Mapping[str, Term], glossary_url: str) -> TermBox:
    def url(slug: str) -> str:
        return glossary_url.replace("{slug}", slug)

    related = tuple(RelatedTerm(glossary[slug].name, glossary[slug].definition, url(slug)) for slug in term.related)
    return TermBox(term.name, term.topic, url(term.slug), term.definition, term.why, term.practice, related)
