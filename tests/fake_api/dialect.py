"""What the fakes of the three HTTP APIs have in common: requests, answers, copies; it knows no provider."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import orjson

_REF = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `kind` is its Content-Type."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"


class Refused(Exception):
    """The call is refused as a whole, with the provider's own answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Item(NamedTuple):
    """One copy of a call: for whom, under which reference, and what the provider's log shows of it."""

    address: str
    ref: str
    shown: Mapping[str, Any] = {}
    refusal: str = ""


class Mail(NamedTuple):
    """A copy that was accepted, as a log keeps it: `at` is in seconds since the epoch."""

    item: Item
    provider_id: str
    at: float


class Dialect(Protocol):
    """How one provider reads calls and answers them.

    One that judges `by_item` answers for each copy by itself; the others refuse a call that holds a bad address.
    """

    name: str
    by_item: bool

    def sends(self, request: Request) -> bool:
        """Whether it is a call that sends."""

    def read(self, request: Request) -> list[Item]:
        """The copies of a call.

        Raises:
            Refused: the provider would not take it.
        """

    def count(self, body: bytes) -> int:
        """How many copies a body holds, as fast as can be told."""

    def ids(self, number: int, copies: int) -> list[str]:
        """The provider's ids for the copies of a call."""

    def accepted(self, items: Sequence[Item], ids: Sequence[str]) -> Answer:
        """The answer for a call that was taken."""

    def accepted_unread(self, number: int, copies: int) -> Answer:
        """The same, of copies that were only counted."""

    def miscounted(self, whole: Answer) -> Answer:
        """What is left of an answer that does not answer for each copy."""

    def refused(self, address: str) -> Answer:
        """The answer for a call that holds a bad address, where that refuses it all."""

    def limited(self, number: int, patience: int) -> Answer:
        """A 429 that asks for patience, in seconds."""

    def broken(self) -> Answer:
        """A 500."""

    def unauthorised(self) -> Answer:
        """A 401."""

    def look_up(self, request: Request, mails: Sequence[Mail]) -> Answer | None:
        """What the log shows; None where it is no question to it."""


def told(status: int, value: object, **headers: str) -> Answer:
    """An answer in JSON."""
    return Answer(status, orjson.dumps(value), {name.replace("_", "-"): each for name, each in headers.items()})


def ref_in(values: Iterable[object]) -> str:
    """The reference of a copy, wherever an adapter has put it: 32 hex digits."""
    return next((found.group() for value in values if (found := _REF.search(str(value)))), "")
