"""A newsroom with people who work in it, and a clock that dies where a test wants it to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from pipeline import desk, gate, mail
from pipeline.books import MailRow, SlotRow
from pipeline.collect import collect
from pipeline.database import Database
from pipeline.edit import Desk
from pipeline.errors import FridayError
from pipeline.issue import Copy, Parcel, Receipt, RenderedIssue, Slot, Story
from pipeline.newsroom import Newsroom
from tests.conftest import FRIDAY, FakeProvider, World

OWNER, ED, ELLA = "owner@news.example.com", "ed@news.example.com", "ella@news.example.com"
READERS = ["ada@example.com", "ben@example.com", "cleo@example.com"]
GRACE = timedelta(hours=6)
MINUTE = timedelta(minutes=1)
SETTINGS = ["send", "hold", "skip"]


@dataclass
class Postman(FakeProvider):
    """Keeps what it takes: the issue and the copy."""

    letters: list[tuple[RenderedIssue, Copy]] = field(default_factory=list)

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        receipts = super().send(issue, parcel)
        self.letters += [(issue, copy) for copy in parcel.copies]
        return receipts


@dataclass
class House:
    """A newsroom with people who work in it, three readers and a week's stories."""

    world: World
    newsroom: Newsroom
    postman: Postman

    @property
    def slot(self) -> Slot:
        return self.world.slot

    @property
    def now(self) -> datetime:
        return self.world.clock.at

    @property
    def row(self) -> SlotRow:
        with self.newsroom.database.read() as session:
            return desk.slot(session, self.slot.name)

    @property
    def state(self) -> str:
        return gate.standing(self.newsroom, self.slot).state

    @property
    def told(self) -> list[tuple[str, str]]:
        """The kind and the address of each mail that was queued for those who work here."""
        with self.newsroom.database.read() as session:
            return [(row.kind, row.address) for row in session.exec(select(MailRow).order_by(col(MailRow.id)))]

    @property
    def got(self) -> list[str]:
        """The readers that a copy of the issue left to."""
        return [copy.address for issue, copy in self.postman.letters if not issue.single and not issue.slot.endswith("-test")]

    def at(self, when: datetime) -> "House":
        """Move the clock, and look through the sources as the clock would have done."""
        self.world.clock.at = when
        collect(self.newsroom)
        return self

    def ring(self, times: int = 1, apart: timedelta = timedelta(seconds=30)) -> None:
        for _ in range(times):
            self.world.clock.at += apart
            gate.tend(self.newsroom)

    def desk(self, by: str = ED) -> Desk:
        return Desk(self.newsroom, self.slot, by)

    def configured(self, newsletter: dict[str, Any] | None = None, **schedule: Any) -> "House":
        self.newsroom = configured(self.newsroom, newsletter or {}, schedule)
        return self

    def read_mails(self) -> list[tuple[str, RenderedIssue]]:
        """Send what is queued: to whom, and the mail."""
        before = len(self.postman.letters)
        mail.send_due(self.newsroom)
        return [(copy.address, issue) for issue, copy in self.postman.letters[before:]]


def configured(newsroom: Newsroom, newsletter: dict[str, Any], schedule: dict[str, Any]) -> Newsroom:
    config = newsroom.config
    changed = replace(
        config,
        newsletter=config.newsletter.model_copy(update=newsletter),
        timetable=config.timetable.model_copy(update=schedule),
    )
    return replace(newsroom, config=changed)


def open_house(world: World) -> House:
    assert world.newsroom.keys
    postman = Postman(key_lifetime=timedelta(hours=24))
    people = {"owner": OWNER, "editors": (ED, ELLA), "test_addresses": (ED, "Second.Look@example.net")}
    house = House(world, configured(world.with_provider(postman), people, {}), postman)
    world.subscribe("ada", "ben", "cleo")
    return house


class Killed(BaseException):
    """Stands for a process that dies on the spot: nothing may catch it."""


class Dying(Database):
    """A database whose process dies at its `on`th writing, before it is committed or right after."""

    def __init__(self, url: str, on: int, *, after: bool) -> None:
        super().__init__(url)
        object.__setattr__(self, "_left", [on])
        object.__setattr__(self, "_after", after)

    @contextmanager
    def write(self) -> Iterator[Session]:
        left: list[int] = self.__dict__["_left"]
        left[0] -= 1
        dies = left[0] == 0
        with super().write() as session:
            yield session
            if dies and not self.__dict__["_after"]:
                session.flush()
                raise Killed
        if dies:
            raise Killed


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except FridayError as error:
        return str(error)
    return ""


def a_later_story(house: House) -> None:
    late = Story(
        "https://wire.example/late", "Everybody sues everybody over GPT 9 for $4 billion", "Ledger", FRIDAY - timedelta(hours=3)
    )
    house.world.tell("Ledger", late)
