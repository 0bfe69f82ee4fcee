"""The project's own glossary: enough terms, each of a readable size, and every figure with its source."""

import re
from functools import cache

import pytest

from pipeline.glossary import read_glossary
from pipeline.issue import Term
from tests.conftest import ROOT

SLUGS = sorted(path.stem for path in (ROOT / "terms").glob("*.md"))

# Digits of a name state nothing: GPT-4o, H100, o1, R1, word2vec, text-embedding-3-large, Llama 3 405B, Gemini 1.5.
# A name with a space in it is told from a count by its family, so a new family is added here.
NAMES = re.compile(
    r"""\b(?:Claude|Gemini|Llama|Mixtral|PaLM)(?:\ \d[\w.]*\w|\ \d)+
      | \b[A-Z][A-Za-z]*-?(?!(?:19|20)\d\d\b)\d[\w.-]*
      | \b[a-z]+\d\w*
      | \btext-embedding-\d\S*""",
    re.VERBOSE,
)


@cache
def glossary() -> dict[str, Term]:
    return read_glossary(ROOT / "terms")


def body(term: Term) -> str:
    return " ".join(f"{term.definition} {term.why} {term.practice}".split())


def unsourced(text: str, figures: list[str]) -> list[str]:
    """The digits of a text that state something and stand in none of the figures."""
    rest = NAMES.sub("", text)
    for figure in sorted(figures, key=len, reverse=True):
        rest = rest.replace(NAMES.sub("", figure), "")
    return re.findall(r"\S*\d\S*", rest)


@pytest.mark.parametrize(
    ("text", "figures", "found"),
    [
        ("In 2024 it fell.", [], ["2024"]),
        ("In 2024 it fell.", ["2024"], []),
        ("It cost $4.5 billion, or 7%.", ["$4.5 billion"], ["7%."]),
        ("GPT-4o, o1, word2vec, V2 and Llama 3 405B on an H100.", [], []),
        ("With 16,000 H100 GPUs.", ["16,000 H100 GPUs"], []),
        ("Claude 2 solved 2,294 in August 2024.", ["2,294"], ["2024."]),
        ("About 4-bit and mid-2024.", [], ["4-bit", "mid-2024."]),
    ],
)
def test_a_figure_is_told_from_a_name(text: str, figures: list[str], found: list[str]) -> None:
    assert unsourced(text, figures) == found


def test_there_are_at_least_forty_terms() -> None:
    assert len(glossary()) >= 40


def test_the_five_terms_that_the_newsletter_began_with_are_there() -> None:
    assert {"pre-training", "training", "foundation-model", "pre-training-data", "scaling-laws"} <= set(glossary())


def test_every_related_term_has_a_file_and_stands_once() -> None:
    for term in glossary().values():
        assert set(term.related) <= set(glossary()), term.slug
        assert len(set(term.related)) == len(term.related), term.slug


def test_no_name_or_alias_belongs_to_two_terms() -> None:
    names = [name.lower() for term in glossary().values() for name in {term.name, *term.aliases}]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("slug", SLUGS)
def test_every_figure_of_a_term_has_a_source(slug: str) -> None:
    term = glossary()[slug]
    assert unsourced(body(term), [each.figure for each in term.figures]) == []


@pytest.mark.parametrize("slug", SLUGS)
def test_every_source_has_a_name_and_an_https_address_and_its_figure_stands_in_the_text(slug: str) -> None:
    term = glossary()[slug]
    for each in term.figures:
        assert each.source.strip()
        assert re.fullmatch(r"https://[\w.-]+\.\w+/\S*", each.url)
        assert each.figure in body(term)


@pytest.mark.parametrize("slug", SLUGS)
def test_a_definition_has_15_to_60_words_and_each_part_40_to_130(slug: str) -> None:
    term = glossary()[slug]
    assert 15 <= len(term.definition.split()) <= 60
    assert 40 <= len(term.why.split()) <= 130
    assert 40 <= len(term.practice.split()) <= 130
