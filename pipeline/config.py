"""config.toml and the environment's secrets, read into one frozen value; every mistake at once, with its path."""

import contextlib
import difflib
import os
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, time, timedelta
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from pipeline.errors import ConfigError, Problem
from pipeline.issue import Masthead
from pipeline.pick import Weights
from pipeline.schedule import WEEKDAYS, Schedule

FILE = "config.toml"
TEMPLATE = r"^[a-z0-9][a-z0-9-]*$"
SLUG = r"[a-z0-9]+(-[a-z0-9]+)*"
MOST_SLUG = 40
LANGUAGE = r"[a-zA-Z]{2,3}(-[a-zA-Z0-9]{2,8})*"
Kind = TypeVar("Kind", bound="Section")


class Section(BaseModel):
    """A table of config.toml: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    _ = parts.port
    if parts.username or parts.password:
        raise ValueError("must not carry a user name or password")
    local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if not parts.hostname or parts.scheme not in ("https", "http"):
        raise ValueError("is not an address such as https://news.example.org")
    if parts.scheme == "http" and not local:
        raise ValueError("must begin with https:// (http is for localhost only)")
    return value.rstrip("/")


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.path or parts.query or parts.fragment:
        raise ValueError("must be a host of its own, such as https://news.example.org, without anything behind it")
    return value


def _mail_address(value: str) -> str:
    try:
        return validate_email(value, check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise ValueError(f"is not a mail address: {error}") from None


def _printable(value: str) -> str:
    if any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in value):
        raise ValueError("must be one line without control characters")
    return value


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(value: object) -> ZoneInfo:
    names = _zones()
    if isinstance(value, str) and value in names:
        return ZoneInfo(value)
    near = difflib.get_close_matches(str(value), names, 1, 0.6)
    raise ValueError(f"{value!r} is not a time zone" + (f"; did you mean {near[0]!r}?" if near else ""))


def _database(value: str) -> str:
    try:
        kind = make_url(value).drivername
    except ArgumentError:
        raise ValueError("is not an address such as sqlite:///friday.db") from None
    if kind not in ("sqlite", "postgresql+psycopg"):
        raise ValueError(f"{kind} is not a database that Friday knows: sqlite or postgresql+psycopg")
    return value


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return ip_network(value)
    raise ValueError(f"{value!r} is not a network such as 10.0.0.0/8, 127.0.0.1 or 2001:db8::/32")


def _colour(value: str) -> str:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise ValueError("is not a colour such as #a3391a")
    return value


def _slug(value: str) -> str:
    if not re.fullmatch(SLUG, value) or len(value) > MOST_SLUG:
        raise ValueError(f"must be small letters, digits and single hyphens, {MOST_SLUG} at most, such as policy-and-law")
    return value


def _language(value: str) -> str:
    if not re.fullmatch(LANGUAGE, value):
        raise ValueError("is not a language tag such as en or pt-BR")
    return value


WebAddress = Annotated[str, AfterValidator(_web_address)]
Origin = Annotated[WebAddress, AfterValidator(_origin)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Slug = Annotated[str, AfterValidator(_slug)]
Language = Annotated[str, AfterValidator(_language)]
OneLine = Annotated[str, Field(min_length=1), AfterValidator(_printable)]


class Newsletter(Section):
    """Who writes, from where, and what every issue promises."""

    title: OneLine
    tagline: OneLine
    sender_name: Annotated[str, AfterValidator(_printable)] = ""
    sender: Annotated[MailAddress, Field(alias="from")]
    reply_to: MailAddress | None = None
    postal_address: OneLine
    base_url: Origin
    signup_url: WebAddress | None = None
    glossary_url: WebAddress | None = None
    language: Language = "en"
    audience: str = ""
    owner: MailAddress | None = None
    editors: tuple[MailAddress, ...] = ()
    test_addresses: tuple[MailAddress, ...] = ()
    stories: Annotated[int, Field(ge=1, le=20)] = 5
    fewest: Annotated[int, Field(ge=1, le=20)] = 1


class Brand(Section):
    """How an issue looks."""

    template: Annotated[str, Field(pattern=TEMPLATE)] = "weekly"
    accent: Annotated[str, AfterValidator(_colour)] = "#a3391a"
    accent_dark: Annotated[str, AfterValidator(_colour)] = "#ee9473"
    mark: Annotated[OneLine, Field(max_length=2)] = "F"


class Timetable(Section):
    """When issues go out."""

    weekday: Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"] = "fri"
    at: time = time(9)
    timezone: Annotated[ZoneInfo, BeforeValidator(_zone)]
    reader_time: bool = False
    grace_hours: Annotated[float, Field(gt=0, le=144)] = 6
    skip: tuple[date, ...] = ()
    extra: tuple[date, ...] = ()
    draft_before_hours: Annotated[float, Field(gt=0, le=168)] = 24
    remind_before_hours: Annotated[float, Field(ge=0, le=168)] = 2
    unapproved: Literal["send", "hold", "skip"] = "send"
    collect_every_hours: Annotated[float, Field(gt=0, le=168)] = 3


class Storage(Section):
    """Where rows are kept."""

    url: Annotated[str, AfterValidator(_database)] = "sqlite:///friday.db"


class Web(Section):
    """Where `friday serve` listens, how many sign-ups it takes in an hour, and the proxies whose headers it believes."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8010
    sign_ups_per_hour: Annotated[int, Field(ge=1)] = 1_000
    trusted_proxies: tuple[Network, ...] = ()


class Mailbox(Section):
    """A box that is read for bounces and for mails by which readers leave: a Maildir, or IMAP over TLS.

    `address` must take what is sent to `name+anything@host` as well.
    """

    address: MailAddress
    maildir: Path | None = None
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 993
    user: str | None = None
    folder: str = "INBOX"
    every_minutes: Annotated[float, Field(gt=0, le=1440)] = 5

    @model_validator(mode="after")
    def _is_in_one_place(self) -> Self:
        if (self.maildir is None) == (self.host is None):
            raise ValueError("is read from a maildir or from a host: name one of them")
        return self


class WarmUp(Section):
    """A ramp for a young domain: so many copies on the first day, each day `growth` times as many as on the day before."""

    begins: date
    first_day: Annotated[int, Field(ge=1)] = 200
    growth: Annotated[float, Field(gt=1, le=10)] = 2.0


class Folders(Section):
    """Where terms, templates and files that were sent to be looked at lie, relative to the config file."""

    terms: Path = Path("terms")
    templates: Path = Path("templates")
    imports: Path = Path("imports")
    backups: Path = Path("backups")


class Backup(Section):
    """How often an SQLite database is copied, and how many copies are kept; none with 0."""

    every_hours: Annotated[float, Field(gt=0, le=168)] = 24
    keep: Annotated[int, Field(ge=0, le=1_000)] = 7


class _File(Section):
    newsletter: Newsletter
    brand: Brand = Brand()
    schedule: Timetable
    picking: Weights = Weights()
    database: Storage = Storage()
    web: Web = Web()
    folders: Folders = Folders()
    backup: Backup = Backup()
    mailbox: Mailbox | None = None
    warm_up: WarmUp | None = None
    languages: dict[Language, OneLine] = Field(default_factory=dict)
    topics: dict[Slug, OneLine] = Field(default_factory=dict)
    provider: dict[str, Any] = Field(default_factory=lambda: {"name": "outbox"})
    sources: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Secrets:
    """Secrets by name, from the environment or from the file that `NAME_FILE` points at. Never printed."""

    environment: Mapping[str, str]

    def __repr__(self) -> str:
        return "Secrets(...)"

    def get(self, name: str) -> str | None:
        """The secret of that name, or None.

        Raises:
            ConfigError: its file cannot be read.
        """
        path = self.environment.get(f"{name}_FILE")
        if not path:
            return self.environment.get(name, "").strip() or None
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([Problem(f"{name}_FILE", f"{path} cannot be read: {error}")]) from None


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator decided. Paths are absolute; provider and sources are still as they were written."""

    path: Path
    newsletter: Newsletter
    brand: Brand
    timetable: Timetable
    picking: Weights
    web: Web
    database_url: str = field(repr=False)
    terms: Path
    templates: Path
    imports: Path
    backups: Path
    backup: Backup
    mailbox: Mailbox | None
    warm_up: WarmUp | None
    languages: Mapping[str, str]
    topics: Mapping[str, str]
    provider: Mapping[str, Any]
    sources: tuple[Mapping[str, Any], ...]
    secrets: Secrets

    @property
    def masthead(self) -> Masthead:
        """What every issue has in common."""
        own = self.newsletter
        return Masthead(
            title=own.title,
            tagline=own.tagline,
            sender_name=own.sender_name or own.title,
            sender=own.sender,
            reply_to=own.reply_to or own.sender,
            postal_address=own.postal_address,
            base_url=own.base_url,
            signup_url=own.signup_url or own.base_url + "/",
            language=own.language,
            glossary_url=own.glossary_url or "",
            accent=self.brand.accent,
            accent_dark=self.brand.accent_dark,
            mark=self.brand.mark,
            mailbox=self.mailbox.address if self.mailbox else "",
        )

    @property
    def schedule(self) -> Schedule:
        """The weekly slot."""
        plan = self.timetable
        return Schedule(
            weekday=WEEKDAYS.index(plan.weekday),
            at=plan.at,
            zone=plan.timezone,
            grace=timedelta(hours=plan.grace_hours),
            skipped=frozenset(plan.skip),
            extra=frozenset(plan.extra),
            reader_time=plan.reader_time,
        )


def find(path: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """The config file: the one named, else that of `FRIDAY_CONFIG`, else ./config.toml."""
    named = (os.environ if environment is None else environment).get("FRIDAY_CONFIG")
    return (path or Path(named or FILE)).absolute()


def read(path: Path, environment: Mapping[str, str]) -> tuple[Config | None, dict[str, Any], list[Problem]]:
    """The config with what was written and every mistake in it; None where there is any.

    The raw tables come back even so, for the rooms that know a provider's or source's options.

    Raises:
        ConfigError: the file cannot be read as TOML at all.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([Problem(str(path), "there is no such file", "name one by --config")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error}")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(str(path), f"is not TOML: {error}")]) from None
    file, problems = parse(_File, raw, "")
    if file is None:
        return None, raw, problems
    if file.newsletter.fewest > file.newsletter.stories:
        problems.append(Problem("newsletter.fewest", "is more than newsletter.stories"))
    if file.schedule.remind_before_hours > file.schedule.draft_before_hours:
        problems.append(Problem("schedule.remind_before_hours", "is more than schedule.draft_before_hours"))
    for day in sorted({*file.schedule.skip} & {*file.schedule.extra}):
        problems.append(Problem("schedule.extra", f"{day} stands in schedule.skip too", "take it out of one of them"))
    here = path.parent
    config = Config(
        path=path,
        newsletter=file.newsletter,
        brand=file.brand,
        timetable=file.schedule,
        picking=file.picking,
        web=file.web,
        database_url=_database_url(file.database.url, here),
        terms=here / file.folders.terms,
        templates=here / file.folders.templates,
        imports=here / file.folders.imports,
        backups=here / file.folders.backups,
        backup=file.backup,
        mailbox=_placed(file.mailbox, here),
        warm_up=file.warm_up,
        languages=file.languages,
        topics=file.topics,
        provider=file.provider,
        sources=file.sources,
        secrets=Secrets(environment),
    )
    for first, second in config.schedule.clashes():
        what = f"the slot of {second} opens while that of {first} is due, which leaves that one no time"
        problems.append(Problem("schedule.extra", what, "name a day further away, or fewer grace_hours"))
    return (None if problems else config), raw, problems


def parse(kind: type[Kind], raw: object, path: str) -> tuple[Kind | None, list[Problem]]:
    """A table as its type, or every mistake in it with its dotted path below `path`."""
    try:
        return kind.model_validate(raw), []
    except ValidationError as error:
        return None, [_problem(kind, each, path) for each in error.errors()]


def _problem(kind: type[Section], error: Any, path: str) -> Problem:
    where = ".".join([path, *(f"[{part}]" if isinstance(part, int) else str(part) for part in error["loc"] if part != "[key]")])
    where = where.lstrip(".").replace(".[", "[")
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            known = _known_keys(kind, error["loc"])
            near = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
            return Problem(where, "unknown key", f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")
        case "missing" | "missing_argument":
            return Problem(where, "is missing")
        case _:
            what = error["msg"].removeprefix("Value error, ")
            shown = (
                ""
                if isinstance(error["input"], dict | list) or what.startswith(repr(error["input"]))
                else f"{error['input']!r} "
            )
            return Problem(where, shown + what[0].lower() + what[1:])


def _placed(box: Mailbox | None, here: Path) -> Mailbox | None:
    return box.model_copy(update={"maildir": here / box.maildir}) if box and box.maildir else box


def _known_keys(kind: Any, loc: tuple[Any, ...]) -> list[str]:
    for part in loc[:-1]:
        kind = kind.model_fields[part].annotation
        kind = next((each for each in get_args(kind) if each is not NoneType), kind)
    if is_dataclass(kind):
        return sorted(each.name for each in fields(kind))
    return sorted(each.alias or name for name, each in kind.model_fields.items())


def _database_url(url: str, here: Path) -> str:
    prefix = "sqlite:///"
    if url.startswith(prefix) and not url.startswith(prefix + "/"):
        return f"{prefix}{quote(str(here))}/{url.removeprefix(prefix)}"
    return url
