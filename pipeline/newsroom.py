"""The newsroom: the one value that holds everything the route reaches for, built once by a door."""

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import ColumnElement

from pipeline import config as config_file
from pipeline import mailbox, secret
from pipeline.config import TEMPLATE, Brand, Config, Folders, Secrets
from pipeline.database import Database
from pipeline.errors import ConfigError, Problem, UsageError
from pipeline.glossary import read_glossary
from pipeline.issue import Masthead, Term
from pipeline.pace import Ramp
from pipeline.providers import Provider, build_provider
from pipeline.schedule import Schedule
from pipeline.sources import Source, build_sources
from subscribers.keys import Keys
from subscribers.segments import Home, compile_segment, parse

CLOCK_STEP = 10.0


def wall_clock() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Newsroom:
    """Config, database, provider and sources, with the clock and the wait that tests replace."""

    config: Config
    database: Database
    provider: Provider
    sources: tuple[Source, ...]
    now: Callable[[], datetime] = field(default=wall_clock)
    wait: Callable[[float], object] = field(default=time.sleep)
    stopping: threading.Event = field(default_factory=threading.Event)
    resend_unknown: bool = False

    @property
    def provider_name(self) -> str:
        """The provider by the name of its file."""
        return str(self.config.provider.get("name"))

    @property
    def masthead(self) -> Masthead:
        """What every issue has in common."""
        return self.config.masthead

    @property
    def schedule(self) -> Schedule:
        """The weekly slot."""
        return self.config.schedule

    @property
    def templates(self) -> Path:
        """The folder of the issue template in use."""
        return self.config.templates / "issue" / self.config.brand.template

    @property
    def glossary(self) -> dict[str, Term]:
        """The terms as the files have them now.

        Raises:
            ContentError: a term is broken.
        """
        return read_glossary(self.config.terms)

    @property
    def ramp(self) -> Ramp | None:
        """How many copies a young domain may send a day."""
        plan = self.config.warm_up
        return Ramp(plan.begins, plan.first_day, plan.growth, self.schedule.zone) if plan else None

    @cached_property
    def keys(self) -> Keys:
        """The secrets by which tokens are signed and erased addresses known again; made when they are first needed.

        Raises:
            ConfigError: they can be neither read nor made.
        """
        return secret.keys(self.config.secrets, self.config.path.parent)

    @property
    def known_keys(self) -> Keys | None:
        """The same if they are there: where there never was a secret, nobody can have been erased."""
        return self.keys if secret.is_there(self.config.secrets, self.config.path.parent) else None

    @property
    def blinded(self) -> Callable[[str], tuple[str, ...]] | None:
        """What tells under which keys a compared address may be suppressed if it was erased; None if none can be."""
        found = self.known_keys
        return found.blinded if found else None

    @cached_property
    def home(self) -> Home:
        """The language and zone of whoever has said nothing."""
        return Home(self.config.newsletter.language, self.config.timetable.timezone.key)

    @cached_property
    def audience(self) -> ColumnElement[bool] | None:
        """Whom an issue is for, as a condition on subscribers; None where it is for everybody."""
        written = self.config.newsletter.audience
        return compile_segment(parse(written), self.home) if written else None

    @cached_property
    def trust(self) -> dict[str, float]:
        """How much each source's telling counts, by its name."""
        return {source.name: source.weight for source in self.sources}

    @cached_property
    def runner(self) -> str:
        """This process among all: host, process number and start, so that nobody inherits a batch by chance."""
        me = psutil.Process()
        return f"{os.uname().nodename}/{me.pid}/{me.create_time():.2f}"


def open_newsroom(path: Path | None, environment: Mapping[str, str] | None = None) -> Newsroom:
    """The newsroom of a config file; nothing is opened or written yet.

    Raises:
        ConfigError: every mistake in the file, in the options of provider and sources, and every missing secret.
    """
    environment = os.environ if environment is None else environment
    found = config_file.find(path, environment)
    config, raw, problems = config_file.read(found, environment)
    provider, wrong = build_provider(raw.get("provider", {"name": "outbox"}), Secrets(environment), found.parent)
    problems += wrong
    sources, wrong = build_sources(raw["sources"] if isinstance(raw.get("sources"), list) else [], found.parent)
    problems += wrong
    problems += _misplaced(raw, found.parent) + _wrong_audience(raw)
    if config and config.mailbox:
        problems += mailbox.check(config.mailbox, config.secrets)
    if problems or config is None or provider is None:
        number = len(problems)
        raise ConfigError(problems, f"{found} has {number} {'mistake' if number == 1 else 'mistakes'}:")
    resend = config.provider.get("on_unknown") == "resend"
    return Newsroom(config, Database(config.database_url), provider, sources, resend_unknown=resend)


def _misplaced(raw: Mapping[str, Any], here: Path) -> list[Problem]:
    """Folders and a template that are named and not there. Values of the wrong kind have been told already."""
    brand, folders = raw.get("brand", {}), raw.get("folders", {})
    if not isinstance(brand, Mapping) or not isinstance(folders, Mapping):
        return []
    problems = []
    for key, default in (("terms", Folders().terms), ("templates", Folders().templates)):
        folder = folders.get(key, default)
        if isinstance(folder, str | Path) and not (here / folder).is_dir():
            problems.append(Problem(f"folders.{key}", f"there is no folder {here / folder}"))
    name, templates = brand.get("template", Brand().template), folders.get("templates", Folders().templates)
    if not isinstance(name, str) or not re.fullmatch(TEMPLATE, name) or not isinstance(templates, str | Path):
        return problems
    issues = here / templates / "issue"
    if (here / templates).is_dir() and not (issues / name / "issue.html").is_file():
        there = ", ".join(sorted(path.name for path in issues.glob("*") if path.is_dir()))
        cure = f"there is {there}" if there else f"{issues} has none"
        problems.append(Problem("brand.template", f"{name!r} is not a template", cure))
    return problems


def _wrong_audience(raw: Mapping[str, Any]) -> list[Problem]:
    """What keeps the audience from being a segment. A value of the wrong kind has been told already."""
    newsletter = raw.get("newsletter")
    written = newsletter.get("audience") if isinstance(newsletter, Mapping) else None
    try:
        if isinstance(written, str) and written.strip():
            parse(written.strip())
    except UsageError as error:
        return [Problem("newsletter.audience", str(error), "`friday subscribers count` tries a segment")]
    return []


def is_running(runner: str) -> bool:
    """Whether a runner may still be at work: False only for a process of this machine that is gone."""
    host, number, started, *_ = runner.split("/")
    if host != os.uname().nodename:
        return True
    try:
        process = psutil.Process(int(number))
        # The start is told by the wall clock, which may be set; another process of that number starts much later.
        return abs(process.create_time() - float(started)) < CLOCK_STEP and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
