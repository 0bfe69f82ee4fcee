"""The embedded default: one complete .eml file per copy in a folder. It honours keys for good."""

import os
from dataclasses import dataclass
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from pipeline.config import Secrets
from pipeline.errors import NotProcessed
from pipeline.issue import Copy, Parcel, Receipt, RenderedIssue
from pipeline.providers import Limits, ProviderOptions
from pipeline.render import address
from pipeline.text import wire_address

SECRETS: tuple[str, ...] = ()
MOST_COPIES = 1_000


class Options(ProviderOptions):
    """`path` is the folder, relative to config.toml."""

    batch_size: Annotated[int, Field(ge=1, le=MOST_COPIES)] | None = None
    path: Path = Path("outbox")


@dataclass(frozen=True, slots=True)
class Outbox:
    """A folder with a subfolder per slot."""

    path: Path
    limits: Limits

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


def build(options: Options, _secrets: Secrets, here: Path) -> Outbox:
    """The outbox of a config."""
    return Outbox(here / options.path, Limits(options.batch_size or MOST_COPIES, key_lifetime=timedelta.max))


def message(issue: RenderedIssue, parcel: Parcel, copy: Copy) -> EmailMessage:
    """A whole message (RFC 5322) whose bytes depend on nothing but the issue, the parcel and the copy."""
    filled = address(issue, copy)
    host = urlsplit(issue.base_url).hostname or "localhost"
    # Only a local part beyond ASCII needs UTF-8 in headers (RFC 6532), which few servers take.
    mail = EmailMessage(policy=SMTP if copy.address.rpartition("@")[0].isascii() else SMTPUTF8)
    mail["From"] = _mailbox(issue.sender, issue.sender_name)
    mail["To"] = _mailbox(copy.address)
    mail["Reply-To"] = _mailbox(issue.reply_to)
    mail["Subject"] = filled.subject
    mail["Date"] = format_datetime(parcel.dated)
    mail["Message-ID"] = f"<{copy.ref}@{host}>"
    for name, value in filled.headers.items():
        mail[name] = value
    mail.set_content(filled.text, cte="quoted-printable")
    mail.add_alternative(filled.html, subtype="html", cte="quoted-printable")
    mail.set_boundary(f"={copy.ref}=")
    return mail


def _mailbox(address: str, name: str = "") -> Address:
    local, _, domain = wire_address(address).rpartition("@")
    return Address(name, local, domain)


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
