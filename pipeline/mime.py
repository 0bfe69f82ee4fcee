"""A whole message (RFC 5322) for one reader, as a folder, a mail server or an API that takes raw mail gets it."""

from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

from pipeline.issue import Copy, Parcel, RenderedIssue
from pipeline.render import address
from pipeline.text import wire_address


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
