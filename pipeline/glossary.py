"""Read `terms/*.md` into terms, with file and line in every complaint."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pipeline.errors import ContentError, Problem
from pipeline.issue import Figure, Term

_WHY, _PRACTICE = "## Why it matters", "## In practice"
# The C loader reads the same and is ten times as fast; the preview reads all terms at every look.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SAID = {
    "missing": ("is missing", ""),
    "string_type": ("is no text", "quote it?"),
    "string_too_short": ("is empty", ""),
    "string_pattern_mismatch": ("is no https address", ""),
    "list_type": ("is no list", "write [one, two]"),
}

_Words = Annotated[str, Field(min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, strict=True)


class _Figure(_Table):
    figure: _Words
    source: _Words
    url: Annotated[str, Field(pattern=r"^https://")]

    @field_validator("figure")
    @classmethod
    def _stands_in_the_body(cls, figure: str, info: ValidationInfo) -> str:
        if figure not in (info.context or ""):
            raise ValueError(f"the figure {figure!r} does not stand in the text letter for letter")
        return figure


class _FrontMatter(_Table):
    term: _Words
    topic: _Words
    related: list[_Words] = []
    aliases: list[_Words] = []
    figures: list[_Figure] = []


def read_glossary(folder: Path) -> dict[str, Term]:
    """Every term of a folder by its slug (the file's name), in alphabetical order.

    Raises:
        ContentError: each mistake of each file, with file and line.
    """
    if not folder.is_dir():
        raise ContentError([Problem(str(folder), "there is no folder of terms here")])
    readings = [_Reading(path) for path in sorted(folder.glob("*.md"))]
    terms = {term.slug: term for reading in readings if (term := reading.term())}
    files = {reading.path.stem for reading in readings}
    for reading in readings:
        reading.see_that_related_terms_are_in(files)
    problems = [problem for reading in readings for _, problem in sorted(reading.problems, key=itemgetter(0))]
    if problems:
        raise ContentError(problems)
    return terms


@dataclass
class _Reading:
    """One file, read to its end so that every mistake in it is told at once."""

    path: Path
    problems: list[tuple[int, Problem]] = field(default_factory=list)
    node: yaml.Node | None = None
    facts: _FrontMatter | None = None

    def term(self) -> Term | None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.path.stem):
            self._wrong(1, f"the file name {self.path.name!r} becomes part of an address", "use a-z, 0-9 and hyphens")
        split = self._split()
        if split is None:
            return None
        head, body = split
        self.facts = self._front_matter("\n".join(["", *head]), " ".join(" ".join(body).split()))
        parts = self._parts(body, first_line=len(head) + 3)
        if self.facts is None:
            return None
        return Term(
            slug=self.path.stem,
            name=self.facts.term,
            topic=self.facts.topic,
            definition=parts.get("", ""),
            why=parts.get(_WHY, ""),
            practice=parts.get(_PRACTICE, ""),
            related=tuple(self.facts.related),
            aliases=tuple(self.facts.aliases),
            figures=tuple(Figure(each.figure, each.source, each.url) for each in self.facts.figures),
        )

    def see_that_related_terms_are_in(self, files: set[str]) -> None:
        for place, slug in enumerate(self.facts.related if self.facts else ()):
            if slug == self.path.stem:
                self._wrong(self._line(("related", place)), "is related to itself")
            elif slug not in files:
                what = f"related term {slug!r} has no file"
                self._wrong(self._line(("related", place)), what, f"write {slug}.md or take it out")

    def _wrong(self, line: int, what: str, cure: str = "") -> None:
        self.problems.append((line, Problem(f"{self.path}:{line}", what, cure)))

    def _split(self) -> tuple[list[str], list[str]] | None:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            self._wrong(1, f"is not UTF-8 at byte {error.start}", "save it as UTF-8")
            return None
        lines = [line.rstrip() for line in text.removesuffix("\n").split("\n")]
        if lines[0] != "---":
            self._wrong(1, "does not begin with a line of three hyphens", "see CONTRIBUTING, “A term”")
            return None
        if "---" not in lines[1:]:
            self._wrong(len(lines), "the front matter does not end", "close it with a line of three hyphens")
            return None
        end = lines.index("---", 1)
        return lines[1:end], lines[end + 1 :]

    def _front_matter(self, head: str, body: str) -> _FrontMatter | None:
        try:
            loader = _Loader(head)
            self.node = loader.get_single_node()
            values = loader.construct_document(self.node) if self.node else {}
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = f"cannot be read as YAML: {error.problem or error.context}"
            self._wrong(mark.line + 1 if mark else 2, what, "quote it?")
            return None
        except (yaml.YAMLError, ValueError) as error:
            self._wrong(2, f"cannot be read as YAML: {str(error).splitlines()[0]}", "quote it?")
            return None
        if not isinstance(self.node, yaml.MappingNode):
            self._wrong(2, "the front matter is no list of `key: value` lines")
            return None
        for key, times in Counter(key.value for key, _ in self.node.value).items():
            if times > 1:
                self._wrong(self._line((key,)), f"the key {key!r} stands {times} times")
        try:
            return _FrontMatter.model_validate({key: value for key, value in values.items() if value is not None}, context=body)
        except ValidationError as error:
            for each in error.errors():
                self._wrong(self._line(each["loc"]), *_complaint(each))
            return None

    def _line(self, place: Sequence[str | int]) -> int:
        """The line of a value in the front matter, or of what should contain it."""
        node = self.node
        for step in place:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in reversed(node.value) if pair[0].value == step), None)
                if found is None:
                    break
                node = found[0] if step == place[-1] else found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
        return node.start_mark.line + 1 if node else 2

    def _parts(self, body: Sequence[str], first_line: int) -> dict[str, str]:
        """The paragraphs under each heading, the definition under none."""
        parts: dict[str, list[str]] = {"": []}
        lines = {"": first_line}
        heading = ""
        for number, line in enumerate(body, first_line):
            if not line.startswith("#"):
                parts[heading].append(line)
                continue
            if line not in (_WHY, _PRACTICE):
                self._wrong(number, f"unknown heading {line!r}", f"the headings are {_WHY} and {_PRACTICE}")
            elif line in parts:
                self._wrong(number, f"the heading {line!r} stands twice")
            heading = "## " + line.lstrip("#").strip()
            parts[heading], lines[heading] = [], number
        for wanted in ("", _WHY, _PRACTICE):
            if wanted not in parts:
                self._wrong(first_line, f"the part {wanted!r} is missing")
            elif not "".join(parts[wanted]).strip():
                self._wrong(lines[wanted], f"the part {wanted!r} is empty" if wanted else "the definition is missing")
        return {name: "\n".join(paragraphs).strip() for name, paragraphs in parts.items()}


def _complaint(error: Any) -> tuple[str, str]:
    """What pydantic found, in an editor's words, and how to mend it."""
    name = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {error['loc'][-1]!r}", f"known are {', '.join(_FrontMatter.model_fields)}"
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, "), ""
    what, cure = _SAID.get(error["type"], (error["msg"], ""))
    return f"{name!r} {what}", cure
