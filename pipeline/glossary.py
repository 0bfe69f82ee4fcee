"""Read `terms/*.md` into terms, with file and line in every complaint."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ContentError, Problem
from pipeline.issue import Figure, Term

# The C loader reads the same and is ten times as fast; the preview reads all terms at every look.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_KEYS = {"term": True, "topic": True, "related": False, "aliases": False, "figures": False}
_FIGURE_KEYS = ("figure", "source", "url")
_WHY, _PRACTICE = "Why it matters", "In practice"


def read_glossary(folder: Path) -> dict[str, Term]:
    """Every term of a folder by its slug (the file's name), in alphabetical order.

    Raises:
        ContentError: each mistake of each file, with file and line.
    """
    if not folder.is_dir():
        raise ContentError([Problem(str(folder), "there is no folder of terms here")])
    problems: list[Problem] = []
    terms: dict[str, Term] = {}
    lines: dict[str, dict[str, int]] = {}
    for path in sorted(folder.glob("*.md")):
        reading = _Reading(path)
        term = reading.term()
        problems += reading.problems
        if term:
            terms[term.slug], lines[term.slug] = term, reading.related_lines
    for slug, term in terms.items():
        for other in term.related:
            if other not in terms and not (folder / f"{other}.md").exists():
                where = f"{folder / slug}.md:{lines[slug][other]}"
                problems.append(Problem(where, f"related term {other!r} has no file", f"write {other}.md or take it out"))
    if problems:
        raise ContentError(problems)
    return terms


@dataclass
class _Reading:
    """One file, read to its end so that every mistake in it is told at once."""

    path: Path
    problems: list[Problem] = field(default_factory=list)
    related_lines: dict[str, int] = field(default_factory=dict)

    def term(self) -> Term | None:
        try:
            text = self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            self._wrong(1, f"is not UTF-8 at byte {error.start}", "save it as UTF-8")
            return None
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.path.stem):
            self._wrong(1, f"the file name {self.path.name!r} becomes part of an address", "use a-z, 0-9 and hyphens")
        head, body, body_line = self._split(text)
        if head is None:
            return None
        facts = self._facts(head)
        parts = dict(self._parts(body, body_line))
        if self.problems or facts is None:
            return None
        return Term(
            slug=self.path.stem,
            name=facts["term"],
            topic=facts["topic"],
            definition=parts[""],
            why=parts[_WHY],
            practice=parts[_PRACTICE],
            related=tuple(facts["related"]),
            aliases=tuple(facts["aliases"]),
            figures=tuple(Figure(**figure) for figure in facts["figures"]),
        )

    def _wrong(self, line: int, what: str, cure: str = "") -> None:
        self.problems.append(Problem(f"{self.path}:{line}", what, cure))

    def _split(self, text: str) -> tuple[str | None, str, int]:
        lines = text.splitlines()
        if not lines or lines[0].rstrip() != "---":
            self._wrong(1, "does not begin with a line of three hyphens", "see CONTRIBUTING, “A term”")
            return None, "", 1
        end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
        if end is None:
            self._wrong(len(lines), "the front matter does not end", "close it with a line of three hyphens")
            return None, "", 1
        return "\n".join(["", *lines[1:end]]), "\n".join(lines[end + 1 :]), end + 2

    def _facts(self, head: str) -> dict[str, Any] | None:
        try:
            loader = _Loader(head)
            node = loader.get_single_node()
            values: dict[str, Any] = loader.construct_document(node) if node else {}
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._wrong(mark.line + 1 if mark else 1, f"cannot be read as YAML: {error.problem or error.context}", "quote it?")
            return None
        if not isinstance(node, yaml.MappingNode):
            self._wrong(2, "the front matter is not a list of `key: value` lines")
            return None
        at = {key.value: value.start_mark.line + 1 for key, value in node.value}
        self._keys(values, at)
        facts = {
            **dict.fromkeys(("related", "aliases", "figures"), ()),
            **{key: value for key, value in values.items() if value},
        }
        for key in ("related", "aliases"):
            if not isinstance(facts[key], list | tuple) or not all(isinstance(each, str) for each in facts[key]):
                self._wrong(at[key], f"{key!r} is not a list of texts")
        if not self.problems:
            self._figures(facts["figures"], at.get("figures", 2))
            items: list[Any] = next((value.value for key, value in node.value if key.value == "related"), [])
            self.related_lines = {item.value: item.start_mark.line + 1 for item in items}
            if self.path.stem in facts["related"]:
                self._wrong(self.related_lines[self.path.stem], "is related to itself")
        return facts

    def _keys(self, values: Mapping[str, Any], at: Mapping[str, int]) -> None:
        for key, line in at.items():
            if key not in _KEYS:
                self._wrong(line, f"unknown key {key!r}", f"known are {', '.join(_KEYS)}")
        for key, required in _KEYS.items():
            if required and not (isinstance(values.get(key), str) and values[key].strip()):
                self._wrong(at.get(key, 2), f"{key!r} is missing or no text")

    def _figures(self, figures: object, line: int) -> None:
        if not isinstance(figures, list | tuple) or not all(
            isinstance(each, Mapping) and set(each) == set(_FIGURE_KEYS) and all(isinstance(v, str) for v in each.values())
            for each in figures
        ):
            self._wrong(line, "each of 'figures' needs exactly figure, source and url, all texts")
            return
        body = " ".join(self.path.read_text(encoding="utf-8").split("\n---", 1)[1].split())
        for each in figures:
            if each["figure"] not in body:
                self._wrong(line, f"the figure {each['figure']!r} does not stand in the text letter for letter")
            if not each["url"].startswith("https://"):
                self._wrong(line, f"the source of {each['figure']!r} has no https address")

    def _parts(self, body: str, first_line: int) -> Iterator[tuple[str, str]]:
        heading, line, paragraphs = "", first_line, list[str]()
        seen: dict[str, str] = {}
        for number, text in enumerate([*body.splitlines(), "## "], first_line):
            if not text.startswith("#"):
                paragraphs.append(text)
                continue
            seen[heading] = "\n".join(paragraphs).strip()
            if not seen[heading]:
                self._wrong(line, f"the part {heading!r} is empty" if heading else "the definition is missing")
            heading, line, paragraphs = text.lstrip("#").strip(), number, []
            if heading and (heading not in (_WHY, _PRACTICE) or not text.startswith("## ")):
                self._wrong(number, f"unknown heading {text!r}", f"the headings are ## {_WHY} and ## {_PRACTICE}")
        for wanted in (_WHY, _PRACTICE):
            if wanted not in seen:
                self._wrong(first_line, f"the part '## {wanted}' is missing")
        yield from seen.items()
