"""The mail API companies, one file each with `Options` and `build`. They do not know each other."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from pipeline.config import Secrets, Section, parse
from pipeline.errors import ConfigError, Problem
from pipeline.issue import Copy, Event, Notice, Parcel, Receipt, RenderedIssue, Shown

KEY = "FRIDAY_PROVIDER_KEY"
WEBHOOK_KEY = "FRIDAY_WEBHOOK_KEY"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider takes and promises.

    `copies` and `size` (bytes) bound one call, `connections` the calls at a time, `per_second` the calls that
    begin. `key_lifetime` is None where no idempotency key is honoured. A provider that `has_log` can be asked
    what became of a copy, but not before `log_lag` has passed.
    """

    copies: int
    size: int | None = None
    connections: int = 1
    per_second: float | None = None
    key_lifetime: timedelta | None = None
    has_log: bool = False
    log_lag: timedelta = timedelta(minutes=15)


class ProviderOptions(Section):
    """What every `[provider]` table holds; `batch_size` is bounded by each provider's own limit."""

    name: str
    batch_size: int | None = None
    concurrency: Annotated[int, Field(ge=1, le=64)] | None = None
    rate_per_second: Annotated[float, Field(gt=0)] | None = None
    on_unknown: Literal["hold", "resend"] = "hold"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets without which these options do not work."""
        return (KEY,)


class Hook(Protocol):
    """Hears what a provider tells later, at `/hooks/<provider>`."""

    def hear(self, headers: Mapping[str, str], body: bytes, now: datetime) -> list[Notice]:
        """See that a call is the provider's, from its raw bytes, and take it apart into what is kept.

        Args:
            headers: of the call, their names in lower case.
            body: of the call, untouched.
            now: when it came.

        Raises:
            Forged: it is not the provider's, is too old, or cannot be read.
        """

    def read(self, body: str) -> list[Event]:
        """What a notice says. Called later, and again if need be; it may ask the provider.

        Raises:
            ValueError: it cannot be read.
        """


class Provider(Protocol):
    """Takes parcels of copies. It keeps no state about them and never tries twice by itself."""

    @property
    def limits(self) -> Limits:
        """What one call may hold, and how many there may be."""

    @property
    def hook(self) -> Hook | None:
        """What hears its events; None where it tells none."""

    def send(self, issue: RenderedIssue, parcel: Parcel) -> Sequence[Receipt]:
        """Hand over a parcel in one call; one receipt for each copy that was answered for. Threads may share it.

        Raises:
            NotProcessed: surely nothing was taken; the same copies may be tried again.
            AccountRefused: nothing was taken, and nothing will be before a person acts.
            CallRefused: nothing was taken, perhaps because of one copy.
            Unclear: nobody can tell.
        """

    def look_up(self, issue: RenderedIssue, copies: Sequence[Copy], since: datetime) -> Shown:
        """What the provider's own log shows of copies that nobody can tell of.

        That it shows nothing proves nothing.

        Args:
            issue: what was sent.
            copies: those in question.
            since: no call for any of them began before.

        Raises:
            ProviderError: the log cannot be read now.
        """


def call_size(limits: Limits, issue: RenderedIssue) -> int:
    """How many copies of an issue one call takes, at least one."""
    if limits.size is None:
        return limits.copies
    # Twice the mail itself is more than escaping, headers and a reader's own values come to.
    heaviest = 2 * len((issue.html + issue.text).encode()) + 4_096
    return max(1, min(limits.copies, limits.size // heaviest))


def names() -> list[str]:
    """The providers that there are files for."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build_provider(table: object, secrets: Secrets, here: Path) -> tuple[Provider | None, list[Problem]]:
    """The provider of a config, or every mistake in its table and in the secrets that it needs.

    Args:
        table: the `[provider]` of config.toml.
        secrets: from the environment.
        here: what relative paths are relative to.
    """
    name = table.get("name") if isinstance(table, Mapping) else None
    if name not in names():
        return None, [Problem("provider.name", f"{name!r} is not a provider", f"there is {', '.join(names())}")]
    module: Any = importlib.import_module(f"{__name__}.{name}")
    options_type: type[ProviderOptions] = module.Options
    options, problems = parse(options_type, table, "provider")
    needed = options or options_type.model_construct(**dict(table if isinstance(table, Mapping) else {}))
    try:
        problems += [problem for secret in needed.secrets if (problem := _wrong(secret, secrets.get(secret), str(name)))]
    except ConfigError as error:
        problems += error.problems
    if options is None or problems:
        return None, problems
    try:
        return module.build(options, secrets, here), []
    except ConfigError as error:
        return None, list(error.problems)


def _wrong(secret: str, value: str | None, name: str) -> Problem | None:
    if not value:
        return Problem(secret, f"is not set, and {name} needs it", f"export it, or name a file in {secret}_FILE")
    lines = value.splitlines() if value.startswith("-----BEGIN ") else [value]
    if not all(line.isascii() and line.isprintable() for line in lines):
        return Problem(secret, "contains a character that no key has", "copy it anew")
    return None
