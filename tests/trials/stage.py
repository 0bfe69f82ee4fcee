"""What a trial is played on: a newsroom in a folder of its own, its database, its provider, and the processes it runs."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text
from sqlmodel import col, select

from pipeline.books import DeliveryRow
from pipeline.database import Database
from pipeline.issue import Slot
from pipeline.newsroom import open_newsroom
from pipeline.providers import Limits
from pipeline.publish import approve
from subscribers import exchange, roll
from subscribers.models import Subscriber, Why
from tests.conftest import CONFIG, FRIDAY, build_world
from tests.fake_api import FakeApi, Taken
from tests.trials import child

SLOT = f"{FRIDAY:%Y-%m-%d}"
PUBLISH = ("publish", SLOT, "--anyway", "--json")
LONGEST_RUN = 60.0
SECRETS = {"FRIDAY_PROVIDER_KEY": "key", "FRIDAY_SMTP_PASSWORD": "word"}
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.trials.child"])


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code, or the signal that killed it as a negative number, and what it said."""

    code: int
    out: str
    err: str

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL

    @property
    def report(self) -> dict[str, Any] | None:
        """The report that `--json` printed, if it came so far."""
        try:
            found: dict[str, Any] = json.loads(self.out)
        except ValueError:
            return None
        return found


@dataclass(frozen=True)
class Running:
    """A process under way."""

    process: ForkServerProcess
    order: child.Order

    @property
    def pid(self) -> int:
        """Its number."""
        assert self.process.pid
        return self.process.pid

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def nap(self, seconds: float) -> bool:
        """Wait a while; whether it still runs then."""
        self.process.join(seconds)
        return self.process.exitcode is None

    def end(self, seconds: float = LONGEST_RUN) -> End:
        """Wait for its end.

        Raises:
            AssertionError: it does not end.
        """
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"`friday {' '.join(self.order.words)}` did not end: {self.order.err.read_text('utf-8')}")
        assert self.process.exitcode is not None
        return End(self.process.exitcode, self.order.out.read_text("utf-8"), self.order.err.read_text("utf-8"))


@dataclass(frozen=True)
class Stage:
    """A newsroom that processes can publish from."""

    folder: Path
    url: str
    provider: str
    fake: FakeApi
    readers: tuple[str, ...]

    @property
    def limits(self) -> Limits:
        """What its provider promises."""
        return open_newsroom(self.folder / "config.toml", SECRETS).provider.limits

    def start(self, *words: str, point: str = "", passage: int = 0, traced: bool = False) -> Running:
        """Begin a `friday` process."""
        name = uuid.uuid4().hex[:8]
        out, err = (self.folder / f"{name}.{stream}" for stream in ("out", "err"))
        for file in (out, err):
            file.touch()
        words = ("--config", str(self.folder / "config.toml"), *words)
        order = child.Order(words, out, err, SECRETS, point, passage, traced)
        process = _FORKS.Process(target=child.run, args=(order,))
        process.start()
        return Running(process, order)

    def publish(self, **more: Any) -> End:
        """Publish, to the end."""
        return self.start(*PUBLISH, **more).end()

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Its database, for as long as it is looked at."""
        opened = Database(self.url)
        try:
            yield opened
        finally:
            opened.engine.dispose()

    def copies(self) -> list[tuple[str, str, str]]:
        """Address, reference and state of every copy in the ledger."""
        query = select(Subscriber.address, DeliveryRow.ref, DeliveryRow.state).join(
            Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id)
        )
        with self.database() as database, database.read() as session:
            return [(address, ref, state) for address, ref, state in session.exec(query)]

    def accepted(self) -> list[Taken]:
        """Every copy that the provider has taken."""
        if self.provider != "outbox":
            return self.fake.accepted()
        files = sorted((self.folder / "outbox").rglob("*.eml"))
        return [Taken(str(message_from_bytes(file.read_bytes())["To"]), file.stem, 0) for file in files]

    def leave(self, address: str, *, complaining: bool = False) -> bool:
        """Unsubscribe a reader, or suppress one who complains; whether no copy for them had been claimed by then."""
        key = roll.normalise(address).key
        state = (
            select(DeliveryRow.state)
            .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id))
            .where(Subscriber.key == key)
            .with_for_update(of=DeliveryRow)
        )
        with self.database() as database, database.write() as session:
            found = session.exec(state).first()
            if complaining:
                roll.suppress(session, address, Why.COMPLAINT, datetime.now(UTC))
            else:
                roll.unsubscribe(session, key, datetime.now(UTC))
            return found in (None, "pending")


@dataclass
class Stages:
    """Makes stages, each a copy of one that was set up once for its kind of database."""

    folder: Path
    fake: FakeApi
    server: str = ""
    readers: int = 300
    _bases: dict[tuple[str, bool], str] = field(default_factory=dict)
    _made: int = 0

    @property
    def addresses(self) -> tuple[str, ...]:
        """The roll."""
        return tuple(f"reader{number}@example.com" for number in range(self.readers))

    @contextmanager
    def stage(
        self, provider: str, database: str, *, frozen: bool = True, batch: int = 10, concurrency: int = 1
    ) -> Iterator[Stage]:
        """A fresh stage, swept away afterwards.

        Args:
            provider: by name.
            database: `sqlite` or `postgresql`.
            frozen: whether the issue is approved already.
            batch: copies in a call.
            concurrency: calls at a time.
        """
        base = self._base(database, frozen=frozen)
        self._made += 1
        folder = self.folder / f"stage{self._made}"
        shutil.copytree(self._feeds, folder)
        url = f"sqlite:///{folder}/friday.db"
        if database == "sqlite":
            shutil.copy(base, folder / "friday.db")
        else:
            url = create_database(self.server, template=base)
        table = provider_table(provider, self.fake, batch, concurrency)
        (folder / "config.toml").write_text(CONFIG.format(database=url, provider=table), "utf-8")
        self.fake.reset()
        try:
            yield Stage(folder, url, provider, self.fake, self.addresses)
        finally:
            if database == "postgresql":
                drop_database(self.server, url)
            shutil.rmtree(folder)

    @property
    def _feeds(self) -> Path:
        return self.folder / "feeds"

    def _base(self, database: str, *, frozen: bool) -> str:
        known = self._bases.get((database, frozen))
        if known:
            return known
        folder = self.folder / f"base-{database}-{frozen}"
        folder.mkdir()
        url = f"sqlite:///{folder}/friday.db" if database == "sqlite" else create_database(self.server)
        world = build_world(folder, url)
        world.tell_a_week()
        csv = folder / "roll.csv"
        csv.write_text("\n".join(("email", *self.addresses)), "utf-8")
        exchange.import_file(world.database, csv, world.clock())
        if frozen:
            approve(world.newsroom, Slot(FRIDAY.date(), FRIDAY))
        world.database.engine.dispose()
        self._feeds.mkdir(exist_ok=True)
        for feed in folder.glob("*.json"):
            shutil.copy(feed, self._feeds)
        made = str(folder / "friday.db") if database == "sqlite" else str(make_url(url).database)
        return self._bases.setdefault((database, frozen), made)


def provider_table(provider: str, fake: FakeApi, batch: int, concurrency: int) -> str:
    """The `[provider]` table of a config, in front of the fake."""
    where = {
        "mailgun": f'domain = "news.example.com"\nbase_url = "{fake.url}"',
        "postmark": f'base_url = "{fake.url}"',
        "resend": f'base_url = "{fake.url}"',
        "smtp": f'host = "127.0.0.1"\nport = {fake.smtp}\nsecurity = "none"',
    }
    return f'name = "{provider}"\nbatch_size = {batch}\nconcurrency = {concurrency}\n{where.get(provider, "")}'


def create_database(server: str, template: str = "template1") -> str:
    """A new database on a PostgreSQL server, and its URL."""
    name = f"trial_{uuid.uuid4().hex[:12]}"
    _order(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def drop_database(server: str, url: str) -> None:
    """Remove a database, whoever may still be connected."""
    _order(server, f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")


def _order(server: str, statement: str) -> None:
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(statement))
    admin.dispose()


def strace(running: Running, *inject: str) -> subprocess.Popen[bytes]:
    """Trace a process that waits for it, and do something at a system call.

    Args:
        running: which was started as traced.
        inject: as strace has it, such as `fdatasync:signal=KILL:when=3`.
    """
    calls = ",".join(each.partition(":")[0] for each in inject)
    injections: Sequence[str] = [word for each in inject for word in ("-e", f"inject={each}")]
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-p", str(running.pid), "-e", f"trace={calls}", *injections]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
