"""The embedded default: one complete .eml file per copy in a folder. It honours keys for good."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.config import Secrets
from pipeline.errors import NotProcessed
from pipeline.issue import Copy, Parcel, Receipt, RenderedIssue, Shown
from pipeline.mime import message
from pipeline.providers import Limits, ProviderOptions

MOST_COPIES = 1_000


class Options(ProviderOptions):
    """`path` is the folder, relative to config.toml."""

    batch_size: Annotated[int, Field(ge=1, le=MOST_COPIES)] | None = None
    path: Path = Path("outbox")

    @property
    def secrets(self) -> tuple[str, ...]:
        """A folder asks for none."""
        return ()


@dataclass(frozen=True, slots=True)
class Outbox:
    """A folder with a subfolder per slot."""

    path: Path
    limits: Limits
    hook: None = None

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        """Write each copy; the same parcel again writes the same files again, so nobody has two."""
        folder = self.path / issue.slot
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for copy in parcel.copies:
                _write(folder / f"{copy.ref}.eml", message(issue, parcel, copy).as_bytes())
            _sync(folder)
        except OSError as error:
            # What is half written is written again under the same names.
            raise NotProcessed(f"cannot write to {folder}: {error.strerror or error}") from error
        return [Receipt(copy.ref, accepted=True, provider_id=f"{copy.ref}.eml") for copy in parcel.copies]

    def look_up(self, _issue: RenderedIssue, _copies: Sequence[Copy], _since: datetime) -> Shown:
        """Nothing: under its key a parcel is simply written again."""
        return Shown([])

    def forget(self, refs: Collection[str]) -> None:
        """Delete the copies of somebody who was erased."""
        for ref in refs:
            for path in self.path.glob(f"*/{ref}.*"):
                path.unlink(missing_ok=True)


def build(options: Options, _secrets: Secrets, here: Path) -> Outbox:
    """The outbox of a config."""
    limits = Limits(
        options.batch_size or MOST_COPIES,
        connections=options.concurrency or 1,
        per_second=options.rate_per_second,
        key_lifetime=timedelta.max,
    )
    return Outbox(here / options.path, limits)


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
