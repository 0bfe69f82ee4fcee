"""Postmark: up to 500 whole messages in a call, each with an answer of its own; it honours no key.

Sources: Postmark's pages on batch emails, its API's error codes, the messages API and its webhooks.
"""

import hmac
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.utils import format_datetime
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field

from pipeline.config import Origin, Secrets
from pipeline.errors import AccountRefused, CallRefused, Forged, NotProcessed, ProviderError, Unclear
from pipeline.foreign import CutShort, accepted_in, dig, read_object, told, words
from pipeline.issue import Copy, Event, Kind, Notice, Parcel, Receipt, RenderedIssue, Shown
from pipeline.providers import KEY, WEBHOOK_KEY, Limits, ProviderOptions
from pipeline.render import Message
from pipeline.stencil import Stencil
from pipeline.text import wire_address
from pipeline.wire import Reply, Wire, redact

HOST = "https://api.postmarkapp.com"
MOST_COPIES = 500
MOST_BYTES = 50_000_000
PAGE = 500
MOST_FOUND = 10_000
MOST_PAGES = 200
# The clock by which its message search understands dates.
_EASTERN = ZoneInfo("America/New_York")
_FIRST_WINDOW = timedelta(hours=1)
_LAST_WINDOW = timedelta(seconds=1)

_MAINTENANCE, _INVALID, _INACTIVE = 100, 300, 406
_ACCOUNT = {
    10: f"the token is wrong: look at {KEY}",
    400: "the sender is not known: confirm newsletter.from or its domain",
    401: "the sender is not confirmed: confirm newsletter.from or its domain",
    405: "the account has no credits left",
    412: "the account waits for approval",
    413: "the account may not send",
    1235: "the message stream does not exist: look at provider.stream",
    1236: "the message stream is not for sending: look at provider.stream",
}
_STATUSES: dict[int, tuple[type[ProviderError], str]] = {
    HTTPStatus.UNAUTHORIZED: (AccountRefused, f"the token is wrong, look at {KEY}"),
    HTTPStatus.FORBIDDEN: (AccountRefused, "its firewall refuses this machine, ask its support about the address"),
    HTTPStatus.NOT_FOUND: (AccountRefused, "this is not the address of its API, look at provider.base_url"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (CallRefused, "the call is too large"),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (CallRefused, "the call is not what it takes"),
}
# Of failures by which surely nothing was taken, the one that a person must act upon counts.
_GRAVITY = (CallRefused, NotProcessed, AccountRefused)
_ABOUT_READER = re.compile(r"'To'|recipient", re.IGNORECASE)

_BOUNCES = {
    "HardBounce": Kind.HARD_BOUNCE,
    "BadEmailAddress": Kind.HARD_BOUNCE,
    "SoftBounce": Kind.SOFT_BOUNCE,
    "Transient": Kind.SOFT_BOUNCE,
    "DnsError": Kind.SOFT_BOUNCE,
    "OpenRelayTest": Kind.SOFT_BOUNCE,
    "Unknown": Kind.SOFT_BOUNCE,
    "Blocked": Kind.BLOCKED,
    "DMARCPolicy": Kind.BLOCKED,
    "SpamNotification": Kind.BLOCKED,
    "VirusNotification": Kind.BLOCKED,
    "ManuallyDeactivated": Kind.BLOCKED,
    "SpamComplaint": Kind.COMPLAINED,
    "Unsubscribe": Kind.UNSUBSCRIBED,
    "ManualSuppression": Kind.UNSUBSCRIBED,
}
_TOLD_APART = (
    "RecordType", "MessageID", "ID", "Type", "Email", "Recipient", "DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt",
    "SuppressSending", "ClickLocation", "OriginalLink",
)  # fmt: skip


class Options(ProviderOptions):
    """`stream` is the message stream of issues, one for broadcasts; `mail_stream` that of single mails.

    `base_url` overrides the host.
    """

    batch_size: Annotated[int, Field(ge=1, le=MOST_COPIES)] | None = None
    stream: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,30}$")] = "broadcast"
    mail_stream: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,30}$")] = "outbound"
    base_url: Origin | None = None


@dataclass(frozen=True, slots=True)
class Postmark:
    """One server of an account, and two of its streams."""

    stream: str
    mail_stream: str
    wire: Wire
    limits: Limits
    token: str = field(repr=False)
    hook: "PostmarkHook | None" = None

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        """One POST for the whole parcel; Postmark answers for each message, in their order."""
        stream = self.mail_stream if issue.single else self.stream
        stencil = Stencil(issue, lambda copy, message: letter(issue, parcel, stream, copy, message))
        heads = {**self._heads, "Content-Type": "application/json"}
        reply = self.wire.call("POST", "/email/batch", heads, stencil.array(parcel.copies))
        if reply.status != HTTPStatus.OK:
            raise _failure(reply)
        return _receipts(reply, parcel)

    def look_up(self, issue: RenderedIssue, copies: Sequence[Copy], since: datetime) -> Shown:
        """What its message search finds under the issue's tag; it keeps messages for 45 days and shows 10,000 at most."""
        told = ((dig(each, "Metadata", "delivery"), words(dig(each, "MessageID"))) for each in self._search(issue, since))
        return accepted_in(told, copies)

    def _search(self, issue: RenderedIssue, since: datetime) -> Iterator[object]:
        """Every message of the issue since then, in windows of time that each hold fewer than it shows."""
        begin, window, until = since, _FIRST_WINDOW, None
        offset, shown = 0, True
        for _ in range(MOST_PAGES):
            page = self._page(issue, begin, until, offset)
            total, messages = dig(page, "TotalCount"), dig(page, "Messages")
            if not isinstance(total, int) or not isinstance(messages, list):
                raise Unclear("Postmark's message search cannot be read")
            if total >= MOST_FOUND and window > _LAST_WINDOW:
                window = window if until is None else window / 2
                until, offset = begin + window, 0
                continue
            yield from messages
            offset += PAGE
            if messages and offset < min(total, MOST_FOUND):
                continue
            shown = shown and total < MOST_FOUND
            if until is None:
                break
            begin, until, offset = until, None, 0
        else:
            shown = False
        if not shown:
            raise CutShort

    def _page(self, issue: RenderedIssue, begin: datetime, until: datetime | None, offset: int) -> object:
        query = {
            "count": PAGE,
            "offset": offset,
            "tag": issue.tag,
            "messagestream": self.stream,
            "fromdate": _eastern(begin),
            **({"todate": _eastern(until)} if until else {}),
        }
        reply = self.wire.call("GET", f"/messages/outbound?{urlencode(query)}", self._heads)
        if reply.status != HTTPStatus.OK:
            raise _failure(reply)
        return reply.json

    @property
    def _heads(self) -> dict[str, str]:
        return {"X-Postmark-Server-Token": self.token, "Accept": "application/json"}


def build(options: Options, secrets: Secrets, _here: Path) -> Postmark:
    """The provider of a config whose secrets are there."""
    limits = Limits(
        options.batch_size or MOST_COPIES, MOST_BYTES, options.concurrency or 4, options.rate_per_second, has_log=True
    )
    wire = Wire("Postmark", options.base_url or HOST)
    password = secrets.get(WEBHOOK_KEY)
    hook = PostmarkHook(password) if password else None
    return Postmark(options.stream, options.mail_stream, wire, limits, secrets.get(KEY) or "", hook)


def letter(issue: RenderedIssue, parcel: Parcel, stream: str, copy: Copy, message: Message) -> dict[str, object]:
    """One message as its API takes it, to an address as it goes over the wire."""
    host = urlsplit(issue.base_url).hostname or "localhost"
    heads = {
        **message.headers,
        "Date": format_datetime(parcel.dated),
        "Message-ID": f"<{copy.ref}@{host}>",
        "X-PM-KeepID": "true",
    }
    return {
        "From": str(Address(issue.sender_name, addr_spec=wire_address(issue.sender))),
        "To": copy.address,
        "ReplyTo": wire_address(issue.reply_to),
        "Subject": message.subject,
        "Tag": issue.tag,
        "HtmlBody": message.html,
        "TextBody": message.text,
        "Headers": [{"Name": name, "Value": value} for name, value in heads.items()],
        "TrackOpens": False,
        "TrackLinks": "None",
        "Metadata": {"delivery": copy.ref},
        "MessageStream": stream,
    }


@dataclass(frozen=True, slots=True)
class PostmarkHook:
    """Hears its webhooks, which carry nothing but the user name and password of their address."""

    password: str = field(repr=False)

    def hear(self, headers: Mapping[str, str], body: bytes, _now: datetime) -> list[Notice]:
        """One notice, whose key is made of what tells one event from another."""
        if not hmac.compare_digest(_password(headers.get("authorization", "")), self.password.encode()):
            raise Forged(f"the call does not carry Postmark's password: put {WEBHOOK_KEY} into the webhook's address")
        try:
            said = read_object(body)
        except ValueError as error:
            raise Forged("the body is not a JSON object") from error
        parts = [repr(said.get(name)) for name in _TOLD_APART]
        return [Notice(sha256("\0".join(parts).encode()).hexdigest(), body.decode())]

    def read(self, body: str) -> list[Event]:
        """The one event of a notice."""
        said = read_object(body)
        kind = _kind(said)
        address = said.get("Email") or said.get("Recipient")
        reason = ": ".join(filter(None, (words(said.get(name)) for name in ("Type", "Description", "Details"))))
        silent = kind in (Kind.DELIVERED, Kind.OTHER)
        return [told(kind, dig(said, "Metadata", "delivery"), address, said.get("MessageID"), "" if silent else reason)]


def _kind(said: Mapping[str, Any]) -> Kind:
    record = said.get("RecordType")
    if record == "Delivery":
        return Kind.DELIVERED
    if record == "SpamComplaint":
        return Kind.COMPLAINED
    if record == "Bounce":
        return _BOUNCES.get(words(said.get("Type")), Kind.OTHER)
    if record == "SubscriptionChange" and said.get("SuppressSending") is True:
        return _BOUNCES.get(words(said.get("SuppressionReason")), Kind.UNSUBSCRIBED)
    return Kind.OTHER


def _password(authorization: str) -> bytes:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return b64decode(credentials.strip().encode(errors="replace"), validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _receipts(reply: Reply, parcel: Parcel) -> list[Receipt]:
    """A receipt for each message that was surely taken or surely refused for its reader's sake.

    Raises:
        ProviderError: nothing was taken, and no reader is the reason.
        Unclear: it is not the answer that is due.
    """
    items = reply.json
    if not isinstance(items, list) or len(items) != len(parcel.copies):
        raise Unclear("Postmark answered 200, but not for each message")
    receipts, failures, silent = [], [], False
    for copy, item in zip(parcel.copies, items, strict=True):
        code, said = dig(item, "ErrorCode"), words(dig(item, "Message"))
        provider_id = words(dig(item, "MessageID"))
        # A message that is only delayed may have no code.
        if provider_id and code in (0, None):
            receipts.append(Receipt(copy.ref, accepted=True, provider_id=provider_id))
        elif code == _INACTIVE or (code == _INVALID and _ABOUT_READER.search(said)):
            receipts.append(Receipt(copy.ref, accepted=False, reason=f"Postmark: {code} {redact(said)}"))
        elif isinstance(failure := _named(code, said), Unclear):
            silent = True
        else:
            failures.append(failure)
    if silent and not receipts:
        raise Unclear("Postmark answered 200, but without codes")
    if failures and not silent and not any(receipt.accepted for receipt in receipts):
        raise max(failures, key=lambda failure: _GRAVITY.index(type(failure)))
    # What is left was refused for the account's sake after others were taken: nobody can say so of a single copy.
    return receipts


def _named(code: object, said: str) -> ProviderError:
    """What an error code means for a message that was not taken, or for a whole call."""
    if not isinstance(code, int) or isinstance(code, bool) or code == 0:
        return Unclear("Postmark answered without a code")
    if code in _ACCOUNT:
        return AccountRefused(f"Postmark refuses the account: {code}, {_ACCOUNT[code]}")
    if code == _MAINTENANCE:
        return NotProcessed(f"Postmark is being maintained: {redact(said)}")
    return CallRefused(f"Postmark refuses the call: {code} {redact(said)}")


def _failure(reply: Reply) -> ProviderError:
    """What an answer other than 200 means."""
    code, status = dig(reply.json, "ErrorCode"), reply.status
    maintained = status == HTTPStatus.SERVICE_UNAVAILABLE and code == _MAINTENANCE
    if status == HTTPStatus.UNPROCESSABLE_ENTITY or maintained:
        return _named(code, words(dig(reply.json, "Message")))
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return NotProcessed("Postmark asks to wait", reply.retry_after)
    kind, what = _STATUSES.get(status, (Unclear, ""))
    return kind(f"Postmark answered {status}" + (f": {what}" if what else ""))


def _eastern(moment: datetime) -> str:
    return f"{moment.astimezone(_EASTERN):%Y-%m-%dT%H:%M:%S}"
