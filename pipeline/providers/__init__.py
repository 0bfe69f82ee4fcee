"""The mail API companies, one file each with `Options`, `SECRETS` and `build`. They do not know each other."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import Secrets, Section, parse
from pipeline.errors import ConfigError, Problem
from pipeline.issue import Parcel, Receipt, RenderedIssue


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider takes and promises. `key_lifetime` is None where it honours no idempotency key."""

    copies: int
    key_lifetime: timedelta | None = None


class ProviderOptions(Section):
    """What every `[provider]` table holds; `batch_size` is bounded by each provider's own limit."""

    name: str
    batch_size: int | None = None


class Provider(Protocol):
    """Takes parcels of copies. It keeps no state about them and never tries twice by itself."""

    @property
    def limits(self) -> Limits:
        """What one call may hold."""

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        """Hand over a parcel in one call; one receipt for each copy that was answered for.

        Raises:
            NotProcessed: surely nothing was taken; the same copies may be tried again.
            AccountRefused: nothing was taken, and nothing will be before a person acts.
            CallRefused: nothing was taken, perhaps because of one copy.
            Unclear: nobody can tell.
        """


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
    try:
        missing = [secret for secret in module.SECRETS if not secrets.get(secret)]
    except ConfigError as error:
        return None, [*problems, *error.problems]
    problems += [
        Problem(secret, f"is not set, and {name} needs it", f"export it, or name a file in {secret}_FILE") for secret in missing
    ]
    for secret in module.SECRETS:
        value = secrets.get(secret) or ""
        if not (value.isascii() and value.isprintable()):
            problems.append(Problem(secret, "contains a character that no key has", "copy it anew"))
    if options is None or problems:
        return None, problems
    return module.build(options, secrets, here), []
