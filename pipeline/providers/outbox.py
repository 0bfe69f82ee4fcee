"""The embedded default: one complete .eml file per copy in a folder. It honours keys for good."""

import os
from dataclasses import dataclass
from datetime import timedelta
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Any
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


class _Policy(EmailPolicy):
    """The library's policy for SMTP, but for subject and sender: it may add a space where encoded words meet."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        """Encode a subject or a sender's name that needs it as a whole (RFC 2047)."""
        if name not in ("Subject", "From") or str(value).isascii() or self.utf8:
            return super().fold_binary(name, value)
        text, end = (
            (str(value), "") if name == "Subject" else (value.addresses[0].display_name, f" <{value.addresses[0].addr_spec}>")
        )
        whole = Header(text, "utf-8", header_name=name).encode(linesep=self.linesep)
        return f"{name}: {whole}{end}{self.linesep}".encode("ascii")


_POLICY = _Policy(linesep="\r\n")


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
    ascii_only = copy.address.rpartition("@")[0].isascii()
    mail = EmailMessage(policy=_POLICY if ascii_only else _POLICY.clone(utf8=True))
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
