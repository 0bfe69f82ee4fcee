"""Terms as an editor writes them: what is read, and what each mistake is called and where."""

from pathlib import Path

import pytest

from pipeline.errors import ContentError
from pipeline.glossary import read_glossary
from pipeline.issue import Figure, Term

GOOD = """\
---
term: Token
topic: Data & training
aliases: [tokens, subword]
related: [prompt]
figures:
  - figure: 75 words
    source: A primer (Merrowind, 2025)
    url: https://merrowind.example/primer
  - figure: "2025"
    source: A primer (Merrowind, 2025)
    url: https://merrowind.example/primer
---

A token is a piece of a word,
and **models** count in it.

## Why it matters

It is what you pay for.

Bills are written in it.

## In practice

A hundred make about 75
words, says a primer of 2025.
"""
PROMPT = """\
---
term: Prompt
topic: Using models
---
What you ask.
## In practice
Write it down.
## Why it matters
It decides.
"""


def write(folder: Path, **files: str) -> Path:
    for slug, text in files.items():
        (folder / f"{slug}.md").write_text(text, encoding="utf-8")
    return folder


def complaints(folder: Path) -> list[str]:
    """What is wrong with a folder, each as `file:line: what`."""
    with pytest.raises(ContentError) as caught:
        read_glossary(folder)
    return [f"{problem.where.removeprefix(f'{folder}/')}: {problem.what}" for problem in caught.value.problems]


def changed(old: str, new: str) -> str:
    """The good file with one mistake."""
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def test_a_good_file_is_a_term_with_all_that_it_says(tmp_path: Path) -> None:
    primer = ("A primer (Merrowind, 2025)", "https://merrowind.example/primer")
    assert read_glossary(write(tmp_path, token=GOOD, prompt=PROMPT))["token"] == Term(
        slug="token",
        name="Token",
        topic="Data & training",
        definition="A token is a piece of a word,\nand **models** count in it.",
        why="It is what you pay for.\n\nBills are written in it.",
        practice="A hundred make about 75\nwords, says a primer of 2025.",
        related=("prompt",),
        aliases=("tokens", "subword"),
        figures=(Figure("75 words", *primer), Figure("2025", *primer)),
    )


def test_related_terms_aliases_and_figures_may_be_left_out_and_the_parts_stand_in_any_order(tmp_path: Path) -> None:
    assert read_glossary(write(tmp_path, prompt=PROMPT)) == {
        "prompt": Term("prompt", "Prompt", "Using models", "What you ask.", "It decides.", "Write it down.")
    }


def test_terms_come_in_alphabetical_order_and_other_files_are_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path, token=GOOD, prompt=PROMPT, **{"ai-agent": PROMPT})
    (folder / "README.txt").write_text("no term", encoding="utf-8")
    assert list(read_glossary(folder)) == ["ai-agent", "prompt", "token"]


def test_an_empty_folder_is_an_empty_glossary(tmp_path: Path) -> None:
    assert read_glossary(tmp_path) == {}


def test_line_endings_of_windows_make_no_difference(tmp_path: Path) -> None:
    unix = read_glossary(write(tmp_path, token=GOOD, prompt=PROMPT))
    (tmp_path / "token.md").write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert read_glossary(tmp_path) == unix


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert complaints(tmp_path / "terms") == [f"{tmp_path}/terms: there is no folder of terms here"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("---\nterm", "term", "1: does not begin with a line of three hyphens"),
        ("primer\n---\n", "primer\n", "26: the front matter does not end"),
        ("topic: Data", "topic: A: Data", "3: cannot be read as YAML: "),
        ("[prompt]", "[prompt]\n\tx: 1", "6: cannot be read as YAML: "),
        ("term: Token\n", "", "2: 'term' is missing"),
        ("term: Token", "term: 5", "2: 'term' is no text"),
        ("term: Token", "term: '  '", "2: 'term' is empty"),
        ("topic: Data & training\n", "", "2: 'topic' is missing"),
        ("topic: Data & training", "topic:", "3: 'topic' is missing"),
        ("aliases:", "alias:", "4: unknown key 'alias'"),
        ("[tokens, subword]", "tokens", "4: 'aliases' is no list"),
        ("[tokens, subword]", "[tokens, 5]", "4: 'aliases.1' is no text"),
        ("[prompt]", "prompt", "5: 'related' is no list"),
        ("[prompt]", "[prompt, prompts]", "5: related term 'prompts' has no file"),
        ("[prompt]", "\n  - prompt\n  - prompts", "7: related term 'prompts' has no file"),
        ("[prompt]", "[prompt, token]", "5: is related to itself"),
        ("    source: A primer (Merrowind, 2025)\n", "", "7: 'figures.0.source' is missing"),
        ("    url:", "    page: 3\n    url:", "9: unknown key 'page'"),
        ('"2025"', "2025", "10: 'figures.1.figure' is no text"),
        ("figure: 75 words", "figure: 76 words", "7: the figure '76 words' does not stand in the text letter for letter"),
        ("url: https:", "url: http:", "9: 'figures.0.url' is no https address"),
        ("A token is a piece of a word,\nand **models** count in it.\n", "", "14: the definition is missing"),
        ("It is what you pay for.\n\nBills are written in it.\n", "", "18: the part '## Why it matters' is empty"),
        ("a primer of 2025.\n", "a primer of 2025.\n\n## In short\n\nNo.\n", "29: unknown heading '## In short'"),
        ("## Why it matters", "### Why it matters", "18: unknown heading '### Why it matters'"),
        ("## Why it matters\n", "", "14: the part '## Why it matters' is missing"),
        ("## In practice\n", "", "14: the part '## In practice' is missing"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_line(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    (found,) = complaints(write(tmp_path, token=changed(old, new), prompt=PROMPT))
    assert found.startswith(f"token.md:{complaint}")


def test_front_matter_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, list="---\n- term\n---\nA token.\n## Why it matters\nIt.\n## In practice\nIt.\n")
    assert complaints(folder) == ["list.md:2: the front matter is no list of `key: value` lines"]


@pytest.mark.parametrize("term", ["Tok\x07en", "2026-13-45", "!!int many"])
def test_a_value_that_yaml_chokes_on_is_a_mistake_of_the_file(tmp_path: Path, term: str) -> None:
    (complaint,) = complaints(write(tmp_path, token=changed("term: Token", f"term: {term}"), prompt=PROMPT))
    assert complaint.startswith("token.md:")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("## In practice", "## Why it matters\n\nAgain.\n\n## In practice", 24),
        ("## In practice", "##\n\nLost.\n\n## In practice", 24),
    ],
)
def test_no_part_silently_takes_the_place_of_another(tmp_path: Path, old: str, new: str, line: int) -> None:
    (complaint,) = complaints(write(tmp_path, token=changed(old, new), prompt=PROMPT))
    assert complaint.startswith(f"token.md:{line}: ")


def test_a_key_that_stands_twice_is_a_mistake(tmp_path: Path) -> None:
    (complaint,) = complaints(write(tmp_path, token=changed("topic:", "topic: Lost\ntopic:"), prompt=PROMPT))
    assert complaint.startswith("token.md:4: ")


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "token.md").write_bytes(GOOD.replace("Token", "T\u00f6ken").encode("latin-1"))
    assert complaints(tmp_path) == ["token.md:1: is not UTF-8 at byte 11"]


def test_a_file_that_windows_marks_as_utf_8_is_read(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text(PROMPT, encoding="utf-8-sig")
    assert read_glossary(tmp_path)["prompt"].name == "Prompt"


@pytest.mark.parametrize("name", ["Token", "to_ken", "to ken", "tökén", "-token", "a--b"])
def test_a_file_name_that_makes_no_address_is_named(tmp_path: Path, name: str) -> None:
    assert complaints(write(tmp_path, **{name: PROMPT})) == [
        f"{name}.md:1: the file name '{name}.md' becomes part of an address"
    ]


def test_several_mistakes_of_several_files_are_told_at_once(tmp_path: Path) -> None:
    broken = changed("aliases:", "alias:").replace("topic: Data & training\n", "").replace("## In practice", "## In short")
    folder = write(tmp_path, token=broken, prompt=PROMPT.replace("term: Prompt", "term:"), agent=PROMPT)
    (folder / "bad.md").write_text("no front matter", encoding="utf-8")
    assert complaints(folder) == [
        "bad.md:1: does not begin with a line of three hyphens",
        "prompt.md:2: 'term' is missing",
        "token.md:2: 'topic' is missing",
        "token.md:3: unknown key 'alias'",
        "token.md:13: the part '## In practice' is missing",
        "token.md:23: unknown heading '## In short'",
    ]


def test_mistakes_of_one_kind_are_each_told(tmp_path: Path) -> None:
    broken = changed("75 words", "76 words").replace('"2025"', '"2026"').replace("url: https:", "url: http:", 1)
    assert complaints(write(tmp_path, token=broken, prompt=PROMPT)) == [
        "token.md:7: the figure '76 words' does not stand in the text letter for letter",
        "token.md:9: 'figures.0.url' is no https address",
        "token.md:10: the figure '2026' does not stand in the text letter for letter",
    ]


def test_a_related_term_that_is_itself_broken_is_not_called_missing(tmp_path: Path) -> None:
    folder = write(tmp_path, token=GOOD, prompt=PROMPT.replace("term: Prompt", "term:"))
    assert complaints(folder) == ["prompt.md:2: 'term' is missing"]


def test_a_mistake_says_how_to_mend_it(tmp_path: Path) -> None:
    with pytest.raises(ContentError) as caught:
        read_glossary(write(tmp_path, token=GOOD))
    assert str(caught.value) == f"{tmp_path}/token.md:5: related term 'prompt' has no file (write prompt.md or take it out)"
