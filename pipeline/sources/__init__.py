"""Where stories come from: one file per kind, each with `Options` and `build` under these names."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import Section, parse
from pipeline.errors import Problem
from pipeline.issue import Story


class SourceError(Exception):
    """A source that could not be read this time, and why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What a source gave at the last visit to ask whether anything changed since (RFC 9110, section 13)."""

    etag: str = ""
    last_modified: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What one visit brought. `unusable` entries had no title, address or both."""

    stories: tuple[Story, ...]
    validators: Validators
    unchanged: bool = False
    unusable: int = 0


class Source(Protocol):
    """Somewhere that tells stories."""

    @property
    def name(self) -> str:
        """How readers know it."""

    @property
    def address(self) -> str:
        """Where it is, unique among the sources."""

    @property
    def weight(self) -> float:
        """How much its telling counts; 1 is usual."""

    def collect(self, validators: Validators, now: datetime) -> Told:
        """What it tells now.

        Raises:
            SourceError: it cannot be read.
        """


def kinds() -> list[str]:
    """The kinds that there are files for."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build_sources(tables: Sequence[object], here: Path) -> tuple[tuple[Source, ...], list[Problem]]:
    """The sources of a config, and every mistake in their tables.

    Args:
        tables: the `[[sources]]` of config.toml.
        here: what relative paths are relative to.
    """
    built: list[Source] = []
    problems: list[Problem] = []
    for place, table in enumerate(tables):
        where = f"sources[{place}]"
        kind = table.get("kind") if isinstance(table, Mapping) else None
        if kind not in kinds():
            problems.append(Problem(f"{where}.kind", f"{kind!r} is not a kind of source", f"there is {', '.join(kinds())}"))
            continue
        module: Any = importlib.import_module(f"{__name__}.{kind}")
        options_type: type[Section] = module.Options
        options, wrong = parse(options_type, table, where)
        problems += wrong
        if options is not None:
            built.append(module.build(options, here))
    for what in ("name", "address"):
        values = [getattr(source, what) for source in built]
        doubled = sorted({value for value in values if values.count(value) > 1})
        problems += [Problem("sources", f"two have the {what} {value!r}") for value in doubled]
    return tuple(built), problems
