"""Plain SMTP (RFC 5321) through a relay of one's own: a whole message, an envelope and a transaction for each copy.

There is no key and no log to ask, so a call holds one copy unless `batch_size` says more: an answer that is lost then
leaves one reader of whom nobody can tell, and a server that breaks off leaves no others.
"""

import ipaddress
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationInfo, field_validator

from pipeline.bounce import classify
from pipeline.config import MailAddress, OneLine, Secrets
from pipeline.envelope import LONGEST_LOCAL, return_path
from pipeline.errors import AccountRefused, CallRefused, ConfigError, NotProcessed, Problem, ProviderError, Unclear
from pipeline.issue import Copy, Kind, Parcel, Receipt, RenderedIssue, Shown
from pipeline.mime import message
from pipeline.providers import Limits, ProviderOptions
from pipeline.relay import Answer, Broken, Line, Relay, Security, Server
from pipeline.signature import Signature, check_key
from pipeline.text import wire_address

PASSWORD = "FRIDAY_SMTP_PASSWORD"  # noqa: S105 - the name of a secret
DKIM_KEY = "FRIDAY_DKIM_KEY"
MOST_COPIES = 100
CONNECTIONS = 4
# A call must end before others think that its process is stuck, so none begins a transaction later than this.
BEGIN_SECONDS = 60.0
# RFC 5321, 4.5.3.2.6 would wait ten minutes for the last answer, which no service that is being stopped can.
END_SECONDS = 120.0
LONGEST_WAIT = timedelta(hours=1)
_GO_AHEAD, _CLOSING = 354, 421
_DOMAIN = r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$"
_SELECTOR = r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$"
_NO_RELAY = re.compile(
    r"relay(?:ing)?\b.{0,40}(?:denied|prohibited|not (?:permitted|allowed|authori[sz]ed))"
    r"|(?:unable|cannot|not (?:permitted|allowed|authori[sz]ed)) to relay"
    r"|authentication (?:is )?required|not authenticated|must (?:authenticate|log ?in)",
    re.IGNORECASE,
)
_MAILBOX = re.compile(r"(?<![\d.])5\.2\.[0-4](?!\.?\d)")
_WAIT = re.compile(r"(\d{1,5}) ?(s\b|sec|min)", re.IGNORECASE)
_QUEUED = re.compile(r"queued as (\S{1,80})|\bid[=:] ?(\S{1,80})|^(?:2\.\d\.\d )?ok:? (\S{12,80})$", re.IGNORECASE)


# Greylisting and full mailboxes are one reader's, unless the enhanced code says that it is the server's (RFC 3463, x.3.x).
_THIS_READER_LATER = (450, 451, 452)
_THE_SERVER = re.compile(r"\b4\.3\.\d+\b")


class Options(ProviderOptions):
    """`port` is 587, or 465 with `security = "tls"`. Bounces go to `return_path`, else to the mailbox, else to the sender.

    With `dkim_selector` each copy is signed for `dkim_domain`, which is the sender's if it is not named.
    """

    batch_size: Annotated[int, Field(ge=1, le=MOST_COPIES)] | None = None
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$")]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    user: Annotated[OneLine, Field(pattern=r"^[ -~]+$")] | None = None
    security: Security = "starttls"
    dkim_selector: Annotated[str, Field(pattern=_SELECTOR)] | None = None
    dkim_domain: Annotated[str, Field(pattern=_DOMAIN)] | None = None
    return_path: MailAddress | None = None

    @field_validator("security")
    @classmethod
    def _safe(cls, value: Security, info: ValidationInfo) -> Security:
        if value == "none" and info.data.get("user") and not _is_loopback(info.data.get("host", "")):
            raise ValueError("would send the password in the clear; only a host on loopback may have it so")
        return value

    @field_validator("dkim_domain")
    @classmethod
    def _both(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and not info.data.get("dkim_selector"):
            raise ValueError("stands without dkim_selector, so nothing is signed")
        return value

    @field_validator("return_path")
    @classmethod
    def _has_room(cls, value: str | None) -> str | None:
        local = (value or "").rpartition("@")[0]
        if not local.isascii() or len(local) > LONGEST_LOCAL:
            raise ValueError(f"must have at most {LONGEST_LOCAL} ASCII characters before the @, since +<reference> is added")
        return value

    @property
    def secrets(self) -> tuple[str, ...]:
        """The password of a user, and the private key of a selector."""
        return ((PASSWORD,) if self.user else ()) + ((DKIM_KEY,) if self.dkim_selector else ())


class _Mail(NamedTuple):
    ref: str
    sender: str
    reader: str
    content: bytes


class _Stale(Exception):
    """A line that was used before has ended before anything was handed over."""


@dataclass(frozen=True, slots=True)
class Smtp:
    """One relay."""

    relay: Relay
    limits: Limits
    return_path: str
    signature: Signature | None
    hook: None = None

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        """A transaction for each copy, in order.

        Where one comes to nothing those after it are not begun, and may go another time. The one that nobody
        can tell of has no receipt.
        """
        began = time.monotonic()
        receipts: list[Receipt] = []
        for place, copy in enumerate(parcel.copies):
            try:
                receipts.append(self._hand_over(self._mail(issue, parcel, copy), began))
            except ProviderError as error:
                if place == 0 and (len(parcel.copies) == 1 or not isinstance(error, Unclear)):
                    raise
                not_begun = parcel.copies[place + isinstance(error, Unclear) :]
                return receipts + [Receipt(each.ref, accepted=False, reason=str(error), later=True) for each in not_begun]
        return receipts

    def look_up(self, _issue: RenderedIssue, _copies: Sequence[Copy], _since: datetime) -> Shown:
        """Nothing: a mail server shows nobody its log."""
        return Shown([])

    def _mail(self, issue: RenderedIssue, parcel: Parcel, copy: Copy) -> _Mail:
        box, sender = self.return_path or issue.mailbox, wire_address(issue.sender)
        content = message(issue, parcel, copy).as_bytes()
        if self.signature:
            content = self.signature.sign(content, sender, parcel.dated)
        return _Mail(copy.ref, return_path(box, copy.ref) if box else sender, wire_address(copy.address), content)

    def _hand_over(self, mail: _Mail, began: float) -> Receipt:
        while True:
            with self.relay.line() as line:
                if time.monotonic() - began > BEGIN_SECONDS:
                    raise NotProcessed(f"{self.relay.server} answers too slowly")
                try:
                    return self._transaction(line, mail)
                except _Stale:
                    continue

    def _transaction(self, line: Line, mail: _Mail) -> Receipt:
        if refused := self._beyond(line, mail):
            return refused
        try:
            begun = line.say(f"MAIL FROM:<{mail.sender}>{_parameters(line, mail)}")
        except Broken as error:
            if line.used_before:
                raise _Stale from error
            raise self._broke(error) from error
        if begun.code == _CLOSING and line.used_before:
            raise _Stale
        if not begun.good:
            raise self._sender_refused(begun)
        try:
            addressed = line.say(f"RCPT TO:<{mail.reader}>")
            if not addressed.good:
                return self._reader_refused(addressed, mail)
            ready = line.say("DATA")
            if ready.code != _GO_AHEAD:
                return self._content_refused(ready, mail)
            # Without the dot behind it, the server must forget what it was sent (RFC 5321, 3.8 and 4.1.1.4).
            line.send(_quoted(mail.content))
        except Broken as error:
            raise self._broke(error) from error
        return self._end(line, mail)

    def _end(self, line: Line, mail: _Mail) -> Receipt:
        try:
            line.send(b".\r\n")
            answer = line.hear(END_SECONDS)
        except Broken as error:
            raise Unclear(f"the connection broke before {self.relay.server} answered for the message: {error}") from error
        line.clean = True
        if not (answer.good or answer.later or answer.never):
            raise Unclear(f"{self.relay.server} answered for the message with {answer.code}")
        if not answer.good:
            return self._content_refused(answer, mail)
        return Receipt(mail.ref, accepted=True, provider_id=_queue_id(answer) or mail.ref)

    def _beyond(self, line: Line, mail: _Mail) -> Receipt | None:
        """What the server said at its greeting that it does not take."""
        if line.offers("smtputf8") is None:
            if not mail.reader.isascii():
                reason = "the mail server takes no address beyond ASCII (SMTPUTF8)"
                return Receipt(mail.ref, accepted=False, reason=reason)
            if not mail.sender.isascii():
                cure = "look at newsletter.from and mailbox.address"
                raise AccountRefused(f"{self.relay.server} takes no address beyond ASCII (SMTPUTF8): {cure}")
        most = line.offers("size") or ""
        if most.isdecimal() and 0 < int(most) < len(mail.content):
            raise CallRefused(f"{self.relay.server} takes at most {most} bytes, and the message has {len(mail.content)}")
        return None

    def _broke(self, error: Broken) -> NotProcessed:
        return NotProcessed(f"the connection to {self.relay.server} broke before the message was handed over: {error}")

    def _put_off(self, answer: Answer) -> NotProcessed:
        return NotProcessed(f"{self.relay.server} asks to wait: {answer}", _wait(answer))

    def _sender_refused(self, answer: Answer) -> ProviderError:
        if not answer.never:
            return self._put_off(answer)
        if classify(str(answer.code), answer.text) is Kind.BLOCKED and _is_about_size(answer):
            return CallRefused(f"{self.relay.server} refuses the message: {answer}")
        return AccountRefused(
            f"{self.relay.server} refuses the sender: {answer}; look at provider.user, newsletter.from and provider.return_path"
        )

    def _reader_refused(self, answer: Answer, mail: _Mail) -> Receipt:
        if answer.code in _THIS_READER_LATER and not _THE_SERVER.search(answer.text):
            return Receipt(mail.ref, accepted=False, reason=str(answer), later=True)
        if not answer.never:
            raise self._put_off(answer)
        if _NO_RELAY.search(answer.text):
            raise AccountRefused(
                f"{self.relay.server} takes nothing from us for others: {answer}; look at provider.user and {PASSWORD}"
            )
        if classify(str(answer.code), answer.text) is Kind.BLOCKED:
            raise CallRefused(f"{self.relay.server} refuses the message: {answer}")
        return Receipt(mail.ref, accepted=False, reason=str(answer))

    def _content_refused(self, answer: Answer, mail: _Mail) -> Receipt:
        """After the reader was taken, only words about the reader are held against it; anything else may hit every copy."""
        if not answer.never:
            raise self._put_off(answer)
        hard = classify(str(answer.code), answer.text) is Kind.HARD_BOUNCE
        if hard or _MAILBOX.search(answer.text):
            return Receipt(mail.ref, accepted=False, reason=str(answer))
        raise CallRefused(f"{self.relay.server} refuses the message: {answer}")


def build(options: Options, secrets: Secrets, _here: Path) -> Smtp:
    """The relay of a config.

    Raises:
        ConfigError: the DKIM key cannot sign.
    """
    signature = None
    if options.dkim_selector:
        key = secrets.get(DKIM_KEY) or ""
        try:
            check_key(key)
        except ValueError as error:
            cure = "`openssl genrsa 2048` makes one; name its file in FRIDAY_DKIM_KEY_FILE"
            raise ConfigError([Problem(DKIM_KEY, str(error), cure)]) from None
        signature = Signature(options.dkim_selector, key, options.dkim_domain or "")
    port = options.port or (465 if options.security == "tls" else 587)
    password = (secrets.get(PASSWORD) or "") if options.user else ""
    server = Server(options.host, port, options.security, options.user or "", password)
    limits = Limits(options.batch_size or 1, connections=options.concurrency or CONNECTIONS, per_second=options.rate_per_second)
    return Smtp(Relay(server), limits, options.return_path or "", signature)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parameters(line: Line, mail: _Mail) -> str:
    size = f" SIZE={len(mail.content)}" if line.offers("size") is not None else ""
    beyond_ascii = not (mail.sender + mail.reader).isascii()
    return size + (" BODY=8BITMIME SMTPUTF8" if beyond_ascii else "")


def _quoted(content: bytes) -> bytes:
    """A message whose lines may begin with a dot (RFC 5321, 4.5.2), with its last line ended."""
    quoted = content.replace(b"\r\n.", b"\r\n..")
    return quoted if quoted.endswith(b"\r\n") else quoted + b"\r\n"


def _is_about_size(answer: Answer) -> bool:
    return answer.code == 552 or "5.3.4" in answer.text  # noqa: PLR2004 - RFC 1870, 6.1


def _wait(answer: Answer) -> timedelta | None:
    """How long a server that puts us off says that it will, as greylisting ones do in words of their own."""
    found = _WAIT.search(answer.text)
    if not found:
        return None
    asked = (
        timedelta(minutes=int(found.group(1))) if found.group(2).lower() == "min" else timedelta(seconds=int(found.group(1)))
    )
    return min(asked, LONGEST_WAIT)


def _queue_id(answer: Answer) -> str:
    found = _QUEUED.search(answer.text)
    return next((part for part in found.groups() if part), "") if found else ""
