"""Segments: who is meant, in a small closed grammar; parsed into a tree and compiled to bound SQL. Runs no query itself.

    topic:policy and (tag:vip or joined>2026-01-01) and not language:de

`and` binds closer than `or`, `not` closest. A value with a space stands in "quotes", `*` asks whether there is any
value at all, and `attribute.company:acme` asks for an attribute of the publisher's own.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any, NoReturn, TypeAlias, cast
from zoneinfo import available_timezones

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, literal, literal_column, not_, or_, select
from sqlmodel import col

from pipeline.errors import UsageError
from subscribers.models import DOMAIN_OF_KEY, Label, LabelKind, Subscriber

LENGTH_LIMIT = 1_000
DEPTH_LIMIT = 20
TERM_LIMIT = 50

FIELDS = ("attribute", "domain", "joined", "language", "name", "source", "tag", "topic", "zone")
_LABELS = {"topic": LabelKind.TOPIC, "tag": LabelKind.TAG}
_FOLDED = ("domain", "language", "tag", "topic")
_KEYWORDS = ("and", "or", "not")
_BARE = re.compile(r'[^\s()":<>=]+')
_TOKEN = re.compile(
    r'(?P<word>[^\s()":<>=]+)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<sign>[<>]=?|[:=])|(?P<bracket>[()])|(?P<odd>\S)', re.DOTALL
)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8})*")
_ATTRIBUTE = re.compile(r"[^\"\\\x00-\x1f]{1,60}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_YEARS = (1900, 2999)
_NOT_BETWEEN_QUOTES = ("Cc", "Zl", "Zp")


@dataclass(frozen=True, slots=True)
class Term:
    """One question about a person. `value` is None where any will do; `name` is that of an attribute."""

    field: str
    sign: str
    value: str | None
    name: str = ""

    def __str__(self) -> str:
        field = f"{self.field}.{_written(self.name)}" if self.name else self.field
        return f"{field}{self.sign}{'*' if self.value is None else _written(self.value)}"


@dataclass(frozen=True, slots=True)
class Not:
    """Everybody else."""

    inner: "Segment"

    def __str__(self) -> str:
        return f"not {_within(self.inner, And, Or)}"


@dataclass(frozen=True, slots=True)
class And:
    """Whoever is in all of them."""

    parts: "tuple[Segment, ...]"

    def __str__(self) -> str:
        return " and ".join(_within(part, Or) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """Whoever is in one of them."""

    parts: "tuple[Segment, ...]"

    def __str__(self) -> str:
        return " or ".join(map(str, self.parts))


Segment: TypeAlias = Term | Not | And | Or
"""A parsed segment. `str` writes it so that it parses to the same again."""


@dataclass(frozen=True, slots=True)
class Home:
    """The newsletter's own language and zone, which are those of whoever has said nothing."""

    language: str = ""
    zone: str = ""


def parse(text: str) -> Segment:
    """The tree of a segment.

    Raises:
        UsageError: it is none; the message begins with the column, counted from 1, at which it ceases to be one.
    """
    _see_that_it_can_be_stored(text)
    parser = _Parser(text)
    tree = parser.parse()
    # Brackets are written with spaces around them, which may make a text longer that just fitted.
    if len(str(tree)) > LENGTH_LIMIT:
        _refuse(LENGTH_LIMIT, f"longer than {LENGTH_LIMIT:,} characters")
    return tree


def compile_segment(tree: Segment, home: Home | None = None) -> ColumnElement[bool]:
    """A segment as a condition on `Subscriber`, never NULL. Every value in it is bound.

    Days are those of UTC. Who is mailable at all is not part of it.
    """
    home = home or Home()
    match tree:
        case Term():
            return _question(tree, home)
        case Not(inner):
            return not_(compile_segment(inner, home))
        case And(parts):
            return and_(*(compile_segment(part, home) for part in parts))
        case Or(parts):
            return or_(*(compile_segment(part, home) for part in parts))


def there_is(beside: Any, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """That some row meets conditions beside that of another table, looked up for each of those by itself.

    It is not EXISTS, which PostgreSQL may turn into a join that reads everybody for a page of fifty.
    """
    found: Select[Any] = select(literal_column("1")).where(*conditions).correlate(beside).limit(literal_column("1"))
    return found.scalar_subquery().is_not(None)


def of_domain(domain: str) -> ColumnElement[bool]:
    """That an address is of a domain."""
    named: ColumnElement[str] = bindparam("domain", domain, unique=True)
    return named == DOMAIN_OF_KEY


def demanded(tree: Segment) -> Iterator[Term]:
    """The terms that nobody can be in the segment without."""
    for part in tree.parts if isinstance(tree, And) else (tree,):
        if isinstance(part, Term):
            yield part


def without(tree: Segment, term: Term) -> Segment | None:
    """What a segment demands besides one of its terms; None if that is nothing."""
    rest = tuple(part for part in (tree.parts if isinstance(tree, And) else (tree,)) if part != term)
    return And(rest) if len(rest) > 1 else next(iter(rest), None)


def _question(term: Term, home: Home) -> ColumnElement[bool]:
    value = term.value
    if term.field in _LABELS:
        mine = (col(Label.subscriber_id) == col(Subscriber.id), col(Label.kind) == _LABELS[term.field].value)
        return there_is(Subscriber, *mine, *([] if value is None else [col(Label.name) == value]))
    if term.field == "joined":
        return _joined(term.sign, date.fromisoformat(value or ""))
    if term.field == "domain":
        return literal(value=True) if value is None else of_domain(value)
    if term.field == "attribute":
        # SQLAlchemy binds the name as a path in quotes, which is why none may stand in it.
        stored: ColumnElement[str] = func.coalesce(col(Subscriber.attributes)[term.name].as_string(), "")
    else:
        stored = cast("ColumnElement[str]", getattr(Subscriber, term.field))
    if value is None:
        return stored != ""
    if term.field == "language":
        spoken = func.lower(func.coalesce(func.nullif(stored, ""), home.language))
        return (spoken == value) | (func.substr(spoken, 1, bindparam(None, len(value) + 1)) == f"{value}-")
    if term.field == "zone":
        stored = func.coalesce(func.nullif(stored, ""), home.zone)
    return stored == value


def _joined(sign: str, day: date) -> ColumnElement[bool]:
    joined, begins = col(Subscriber.joined), datetime.combine(day, time(), UTC)
    ends = begins + timedelta(days=1)
    match sign:
        case ">":
            return joined >= ends
        case ">=":
            return joined >= begins
        case "<":
            return joined < begins
        case "<=":
            return joined < ends
        case _:
            return and_(joined >= begins, joined < ends)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class _Parser:
    """Recursive descent over at most a thousand characters: each place knows what may stand there, and says so."""

    def __init__(self, text: str) -> None:
        found = (_Token(match.lastgroup or "", match.group(), match.start() + 1) for match in _TOKEN.finditer(text))
        self._tokens = [*found, _Token("end", "", len(text) + 1)]
        self._at = 0
        self._terms = 0

    def parse(self) -> Segment:
        tree = self._any(0)
        if self._next.kind != "end":
            what = "this bracket was never opened" if self._next.text == ")" else "expected `and` or `or` here"
            _refuse(self._next.column, what)
        return tree

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _keyword(self, word: str) -> bool:
        found = self._next.kind == "word" and self._next.text.lower() == word
        self._at += found
        return found

    def _any(self, depth: int) -> Segment:
        parts = [self._all(depth)]
        while self._keyword("or"):
            parts.append(self._all(depth))
        flat = tuple(each for part in parts for each in (part.parts if isinstance(part, Or) else (part,)))
        return Or(flat) if len(flat) > 1 else flat[0]

    def _all(self, depth: int) -> Segment:
        parts = [self._one(depth)]
        while self._keyword("and"):
            parts.append(self._one(depth))
        flat = tuple(each for part in parts for each in (part.parts if isinstance(part, And) else (part,)))
        return And(flat) if len(flat) > 1 else flat[0]

    def _one(self, depth: int) -> Segment:
        first = self._next
        if depth > DEPTH_LIMIT:
            _refuse(first.column, f"more than {DEPTH_LIMIT} brackets and `not` within each other")
        if self._keyword("not"):
            return Not(self._one(depth + 1))
        if first.text == "(":
            self._take()
            inner = self._any(depth + 1)
            if self._next.text != ")":
                _refuse(self._next.column, f"expected `)` here, for the bracket of column {first.column}")
            self._take()
            return inner
        return self._term()

    def _term(self) -> Term:
        field = self._take()
        if field.kind == "odd":
            _refuse(field.column, "this quotation mark is never closed")
        if field.kind != "word" or field.text.lower() in _KEYWORDS:
            _refuse(field.column, f"expected a field here, such as topic:policy; there are {', '.join(FIELDS)}")
        self._terms += 1
        if self._terms > TERM_LIMIT:
            _refuse(field.column, f"more than {TERM_LIMIT} terms")
        name = self._attribute(field) if field.text.startswith("attribute.") else ""
        known = "attribute" if name else field.text
        if known not in FIELDS or (known == "attribute" and not name):
            _refuse(field.column, _unknown(field.text))
        sign = self._take()
        if sign.kind != "sign":
            _refuse(sign.column, "expected `:` and a value here")
        if known == "joined":
            return Term("joined", "=" if sign.text == ":" else sign.text, self._day())
        if sign.text not in ":=":
            _refuse(sign.column, f"`{sign.text}` is for dates, such as joined{sign.text}2026-01-01; write `:`")
        return Term(known, ":", self._value(known), name)

    def _attribute(self, field: _Token) -> str:
        if field.text == "attribute." and self._next.kind == "text" and self._next.column == field.column + len(field.text):
            name = self._take().text[1:-1]
        else:
            name = field.text.removeprefix("attribute.")
        if not _ATTRIBUTE.fullmatch(name):
            _refuse(field.column, "an attribute has a name of up to 60 characters, without quotes and backslashes")
        return name

    def _day(self) -> str:
        token = self._take()
        try:
            day = date.fromisoformat(token.text) if _DAY.fullmatch(token.text) else None
        except ValueError:
            day = None
        if day is None or not _YEARS[0] <= day.year <= _YEARS[1]:
            _refuse(token.column, "expected a date here, such as 2026-01-31")
        return day.isoformat()

    def _value(self, field: str) -> str | None:
        token = self._take()
        if token.kind == "odd":
            _refuse(token.column, "this quotation mark is never closed")
        if token.kind not in ("word", "text"):
            _refuse(token.column, 'expected a value here; one with signs or spaces stands in "quotes"')
        if token.text == "*":
            return None
        value = re.sub(r"\\(.)", r"\1", token.text[1:-1]) if token.kind == "text" else token.text
        if any(unicodedata.category(char) in _NOT_BETWEEN_QUOTES for char in value):
            _refuse(token.column, "a value is one line without control characters")
        if not value:
            _refuse(token.column, f"nothing stands between the quotes; `not {field}:*` finds those who have none")
        if field == "name":
            _refuse(token.column, "a name can only be asked for as name:*, which finds everybody whose name is known")
        if field == "zone":
            return _zone(token, value)
        value = value.casefold() if field in _FOLDED else value
        if field == "language" and not _LANGUAGE.fullmatch(value):
            _refuse(token.column, "expected a language here, such as de or pt-br")
        return value


def _see_that_it_can_be_stored(text: str) -> None:
    if len(text) > LENGTH_LIMIT:
        _refuse(LENGTH_LIMIT + 1, f"longer than {LENGTH_LIMIT:,} characters")
    for column, char in enumerate(text, 1):
        kind = unicodedata.category(char)
        if kind == "Cs" or (kind == "Cc" and char not in "\t\n\r"):
            _refuse(column, "a control character; take it out")


@cache
def _zones() -> dict[str, str]:
    return {name.casefold(): name for name in available_timezones()}


def _zone(token: _Token, value: str) -> str:
    zones = _zones()
    if value.casefold() in zones:
        return zones[value.casefold()]
    near = difflib.get_close_matches(value.casefold(), zones, 1, 0.6)
    hint = f"; did you mean {zones[near[0]]}?" if near else "; expected one such as Europe/Berlin"
    return _refuse(token.column, f"not a time zone{hint}")


def _unknown(field: str) -> str:
    # An address in the wrong place must not come back in a message.
    shown = f"`{field}`" if re.fullmatch(r"[\w.-]{1,40}", field) else "this"
    near = difflib.get_close_matches(field.lower(), FIELDS, 1, 0.7)
    if field.startswith("attribute"):
        return "an attribute of your own is written attribute.company, for one that is called company"
    if near:
        return f"{shown} is not a field; did you mean {near[0]}?"
    own = f", and attribute.{field} if it is one of your own" if shown != "this" and "." not in field else ""
    return f"{shown} is not a field: there are {', '.join(each for each in FIELDS if each != 'attribute')}{own}"


def _written(value: str) -> str:
    if _BARE.fullmatch(value) and value != "*":
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _within(tree: Segment, *wide: type) -> str:
    return f"({tree})" if isinstance(tree, wide) else str(tree)


def _refuse(column: int, what: str) -> NoReturn:
    raise UsageError(f"column {column}: {what}")
