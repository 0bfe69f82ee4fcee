"""Choose the term of the week: the one that fits these stories and has waited longest. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date

from pipeline.issue import Chosen, Featured, Reason, Selection, Term

IN_TITLE = 2.0
IN_SUMMARY = 1.0
MOST_FIT = 6.0
NEVER_FEATURED = 2.0
WEEKS_FOR_A_POINT = 26
REST_WEEKS = 8
LONGEST_ACRONYM = 5
OTHERS = 5


def feature(
    selection: Selection, glossary: Mapping[str, Term], featured: Mapping[str, date], today: date, chosen: str | None = None
) -> Selection:
    """The selection with its term and those that come next; without one only if the glossary is empty.

    Args:
        selection: the stories of the week.
        glossary: the terms by slug.
        featured: when each term was last featured, by slug; terms not in it never were.
        today: the day of the slot.
        chosen: the term that an editor wants, by slug; one that is no longer there is not missed.
    """
    ranked = rank_terms(selection.stories, glossary, featured, today)
    best = next((each for each in ranked if each.term.slug == chosen), next(iter(ranked), None))
    others = tuple(each for each in ranked if each is not best)
    return replace(selection, term=best, other_terms=others[:OTHERS])


def rank_terms(
    stories: Sequence[Chosen], glossary: Mapping[str, Term], featured: Mapping[str, date], today: date
) -> list[Featured]:
    """Every term with its score and reasons, best first; those still resting come last."""
    mentions = _mentions(stories, glossary.values())
    waited = {slug: (today - day).days // 7 for slug, day in featured.items()}

    def judge(term: Term) -> Featured:
        reasons = [*_fit(mentions.get(term.slug, ())), _waiting(waited.get(term.slug))]
        return Featured(term, round(sum(reason.points for reason in reasons), 2), tuple(reasons))

    def order(each: Featured) -> tuple[bool, float, int, str]:
        weeks = waited.get(each.term.slug, 10_000)
        return weeks < REST_WEEKS, -each.score, -weeks, each.term.slug

    return sorted((judge(term) for term in glossary.values()), key=order)


def _fit(mentions: Iterable[tuple[float, str]]) -> list[Reason]:
    listed = sorted(mentions, reverse=True)
    if not listed:
        return []
    points = min(MOST_FIT, sum(points for points, _ in listed))
    return [Reason(points, f"in {len(listed)} of the stories, first in “{listed[0][1]}”")]


def _waiting(weeks: int | None) -> Reason:
    if weeks is None:
        return Reason(NEVER_FEATURED, "never featured")
    if weeks < REST_WEEKS:
        return Reason(0.0, f"featured {weeks} weeks ago, rests for {REST_WEEKS}")
    return Reason(round(min(NEVER_FEATURED, weeks / WEEKS_FOR_A_POINT), 2), f"featured {weeks} weeks ago")


def _mentions(stories: Sequence[Chosen], terms: Iterable[Term]) -> dict[str, list[tuple[float, str]]]:
    """Per term the stories that mention it, with points; one story counts once per term."""
    names = {name: term.slug for term in terms for name in (term.name, *term.aliases)}
    if not names:
        return {}
    pattern = _pattern(names)
    lower = {name.lower(): slug for name, slug in names.items()}
    found: dict[str, list[tuple[float, str]]] = {}
    for each in stories:
        best: dict[str, float] = {}
        for text, points in ((each.story.title, IN_TITLE), (each.story.summary, IN_SUMMARY)):
            for match in pattern.finditer(text):
                slug = names.get(match.group("name")) or lower.get(match.group("name").lower())
                if slug:
                    best[slug] = max(points, best.get(slug, 0.0))
        for slug, points in best.items():
            found.setdefault(slug, []).append((points, each.story.title))
    return found


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    # The longest first, so that "pre-training data" is not taken for "training". Short capitals keep
    # their case: RAG is a term, a rag is not.
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    parts = [re.escape(name) if _is_acronym(name) else f"(?i:{re.escape(name)})" for name in longest_first]
    return re.compile(rf"(?<![\w-])(?P<name>{'|'.join(parts)})(?:s|es|'s|’s)?(?![\w-])")


def _is_acronym(name: str) -> bool:
    return name.isupper() and len(name) <= LONGEST_ACRONYM
