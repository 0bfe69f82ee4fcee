"""Mailgun: up to 1,000 copies in a call, filled in by its recipient variables; it honours no key.

Sources: Mailgun's OpenAPI document and its manual's pages on batch sending, logs and webhooks.
"""

import hmac
import html as html_escape
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.utils import format_datetime, parseaddr
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from pipeline.bounce import classify
from pipeline.config import Origin, Secrets
from pipeline.errors import AccountRefused, CallRefused, Forged, NotProcessed, ProviderError, Unclear
from pipeline.foreign import CutShort, accepted_in, dig, read_object, told, words
from pipeline.issue import Copy, Event, Kind, Notice, Parcel, Receipt, RenderedIssue, Shown
from pipeline.providers import KEY, WEBHOOK_KEY, Limits, ProviderOptions
from pipeline.render import fill_in, headers
from pipeline.text import wire_address
from pipeline.wire import Reply, Wire, redact

HOSTS = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}
MOST_COPIES = 1_000
PAGE = 100
MOST_PAGES = 200
# It calls again for eight hours, and says nowhere whether it signs anew then.
TOLERANCE = timedelta(hours=24)
# What Mailgun says with 400 when the account and not the call is at fault.
_ACCOUNT = re.compile(r"free accounts|unverified|not allowed to send|disabled|suspended|payment|activate", re.IGNORECASE)
_SECONDS = re.compile(r"try again after (\d+) seconds", re.IGNORECASE)
_DATE = re.compile(r"try again after (\w{3}, \d{1,2} \w{3} \d{4} [\d:]{8} \w+)", re.IGNORECASE)

_KINDS = {
    "accepted": Kind.ACCEPTED,
    "delivered": Kind.DELIVERED,
    "complained": Kind.COMPLAINED,
    "unsubscribed": Kind.UNSUBSCRIBED,
    "rejected": Kind.BLOCKED,
}
# Why it gave up on a copy; of what is not here, codes and words decide.
_REASONS = {
    "suppress-bounce": Kind.HARD_BOUNCE,
    "suppress-complaint": Kind.COMPLAINED,
    "suppress-unsubscribe": Kind.UNSUBSCRIBED,
    "espblock": Kind.BLOCKED,
    "old": Kind.SOFT_BOUNCE,
    "greylisted": Kind.SOFT_BOUNCE,
}


class Options(ProviderOptions):
    """`domain` is the sending domain at Mailgun; `base_url` overrides the host of `region`."""

    batch_size: Annotated[int, Field(ge=1, le=MOST_COPIES)] | None = None
    domain: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+\.[A-Za-z0-9-]+$")]
    region: Literal["us", "eu"] = "us"
    base_url: Origin | None = None


@dataclass(frozen=True, slots=True)
class Mailgun:
    """One sending domain."""

    domain: str
    wire: Wire
    limits: Limits
    authorization: str = field(repr=False)
    hook: "MailgunHook | None" = None

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        """One POST for the whole parcel; Mailgun answers with one id for all of it."""
        boundary, body = form(issue, parcel)
        heads = {"Authorization": self.authorization, "Content-Type": f"multipart/form-data; boundary={boundary}"}
        reply = self.wire.call("POST", f"/v3/{self.domain}/messages", heads, body)
        return _receipts(reply, parcel)

    def look_up(self, _issue: RenderedIssue, copies: Sequence[Copy], since: datetime) -> Shown:
        """What its log shows as accepted since then, from the oldest on; it is read as far as 20,000 entries."""
        return accepted_in(((_ref(entry), _message_id(entry)) for entry in self._log(since)), copies)

    def _log(self, since: datetime) -> Iterator[object]:
        heads = {"Authorization": self.authorization, "Content-Type": "application/json"}
        token: str | None = None
        for _ in range(MOST_PAGES):
            reply = self.wire.call("POST", "/v1/analytics/logs", heads, orjson.dumps(question(self.domain, since, token)))
            if reply.status != HTTPStatus.OK:
                raise _failure(reply)
            entries = dig(reply.json, "items")
            if not isinstance(entries, list):
                raise Unclear("Mailgun's log cannot be read")
            yield from entries
            token = words(dig(reply.json, "pagination", "next"))
            if len(entries) < PAGE or not token:
                return
        raise CutShort


def build(options: Options, secrets: Secrets, _here: Path) -> Mailgun:
    """The provider of a config whose secrets are there."""
    limits = Limits(options.batch_size or MOST_COPIES, None, options.concurrency or 1, options.rate_per_second, has_log=True)
    wire = Wire("Mailgun", options.base_url or HOSTS[options.region])
    authorization = b64encode(f"api:{secrets.get(KEY)}".encode()).decode()
    signing_key = secrets.get(WEBHOOK_KEY)
    hook = MailgunHook(signing_key) if signing_key else None
    return Mailgun(options.domain, wire, limits, f"Basic {authorization}", hook)


def form(issue: RenderedIssue, parcel: Parcel) -> tuple[str, bytes]:
    """A call as multipart/form-data (RFC 7578), its boundary first; only the last fields are the parcel's own."""
    copies = parcel.copies
    own = [{"ref": ref, "address": address, "unsubscribe_url": url} for ref, address, url, _ in copies]
    if issue.mailbox:
        _add(own, "unsubscribe_mail", [copy.unsubscribe_mail for copy in copies])
    in_html = {name: escaped for name in issue.stand_ins if (escaped := _escaped([each[name] for each in own]))}
    for name, escaped in in_html.items():
        _add(own, f"html_{name}", escaped)
    boundary, common = _common(issue, tuple(in_html))
    readers = _wire_addresses([copy.address for copy in copies])
    dated = _field(boundary, "h:Date", format_datetime(parcel.dated).encode())
    variables = _field(boundary, "recipient-variables", orjson.dumps(dict(zip(readers, own, strict=True))))
    # All addressees in one stroke: no address has a line break in it.
    separated = "\n".join(readers).encode().replace(b"\n", b"\r\n" + _opening(boundary, "to"))
    ending = f"\r\n--{boundary}--\r\n".encode()
    return boundary, b"".join([common, dated, variables, _opening(boundary, "to"), separated, ending])


@lru_cache(maxsize=4)
def _common(issue: RenderedIssue, escaped: tuple[str, ...]) -> tuple[str, bytes]:
    """The boundary and the fields that are alike in every call of an issue that escapes these values for HTML.

    The boundary is of the issue's hash, which no issue can hold; half is enough, and it stands before each addressee.
    Without recipient variables every reader would see all addresses in To, so they are always there.
    """
    in_html = {name: f"%recipient.{'html_' if name in escaped else ''}{name}%" for name in issue.stand_ins}
    in_text = {name: f"%recipient.{name}%" for name in issue.stand_ins}
    by_mail = "%recipient.unsubscribe_mail%" if issue.mailbox else ""
    fields = [
        ("from", str(Address(issue.sender_name, addr_spec=wire_address(issue.sender)))),
        ("subject", issue.subject),
        ("html", fill_in(issue.html, issue, in_html)),
        ("text", fill_in(issue.text, issue, in_text)),
        ("h:Reply-To", wire_address(issue.reply_to)),
        *((f"h:{name}", value) for name, value in headers(issue, "%recipient.unsubscribe_url%", by_mail).items()),
        ("v:delivery", "%recipient.ref%"),
        ("o:tag", issue.tag),
        ("o:tracking", "no"),
    ]
    boundary = issue.digest[:32]
    return boundary, b"".join([_field(boundary, name, value.encode()) for name, value in fields])


def _opening(boundary: str, name: str) -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()


def _field(boundary: str, name: str, value: bytes) -> bytes:
    return _opening(boundary, name) + value + b"\r\n"


def _add(own: list[dict[str, str]], name: str, values: list[str]) -> None:
    for each, value in zip(own, values, strict=True):
        each[name] = value


def _escaped(values: list[str]) -> list[str] | None:
    """Values escaped for HTML, all at once, or None if all stay as they are; there is no line break in them."""
    plain = "\n".join(values)
    escaped = html_escape.escape(plain)
    return None if escaped == plain else escaped.split("\n")


def _wire_addresses(addresses: list[str]) -> list[str]:
    return addresses if "".join(addresses).isascii() else list(map(wire_address, addresses))


def question(domain: str, since: datetime, token: str | None) -> dict[str, object]:
    """What its log is asked: a page of what the domain's API accepted since then, the oldest first."""
    page = {"sort": "timestamp:asc", "limit": PAGE, **({"token": token} if token else {})}
    only = {"attribute": "domain", "comparator": "=", "values": [{"label": domain, "value": domain}]}
    return {"start": format_datetime(since), "events": ["accepted"], "filter": {"AND": [only]}, "pagination": page}


@dataclass(frozen=True, slots=True)
class MailgunHook:
    """Hears its webhooks. What it signs is a time and a token, not the event, so a token counts once."""

    signing_key: str = field(repr=False)

    def hear(self, _headers: Mapping[str, str], body: bytes, now: datetime) -> list[Notice]:
        """One notice under its token."""
        try:
            said = read_object(body)
        except ValueError as error:
            raise Forged("the body is not a JSON object") from error
        moment, token, signature = (words(dig(said, "signature", name)) for name in ("timestamp", "token", "signature"))
        due = hmac.digest(self.signing_key.encode(), f"{moment}{token}".encode(), sha256).hex()
        if not token or not hmac.compare_digest(signature.encode(), due.encode()):
            raise Forged(f"the call is not signed with the key of Mailgun's webhooks: look at {WEBHOOK_KEY}")
        if not re.fullmatch(r"\d{1,12}", moment, re.ASCII) or abs(now.timestamp() - int(moment)) > TOLERANCE.total_seconds():
            raise Forged("the call was signed more than a day ago")
        if not isinstance(said.get("event-data"), dict):
            raise Forged("the call tells of no event")
        return [Notice(token, body.decode())]

    def read(self, body: str) -> list[Event]:
        """The one event of a notice."""
        data = dig(read_object(body), "event-data")
        _, address = parseaddr(words(dig(data, "recipient") or dig(data, "message", "headers", "to")))
        kind = _kind(data)
        silent = kind in (Kind.ACCEPTED, Kind.DELIVERED, Kind.OTHER)
        return [told(kind, _ref(data), address, _message_id(data), "" if silent else _reason(data))]


def _kind(data: object) -> Kind:
    what = words(dig(data, "event"))
    if what != "failed":
        return _KINDS.get(what, Kind.OTHER)
    # It goes on trying by itself after what is temporary.
    if dig(data, "severity") != "permanent":
        return Kind.OTHER
    status = dig(data, "delivery-status")
    code = f"{words(dig(status, 'code'))} {words(dig(status, 'enhanced-code'))}"
    said = f"{words(dig(status, 'message'))} {words(dig(status, 'description'))}"
    return _REASONS.get(words(dig(data, "reason"))) or classify(code.strip(), said)


def _reason(data: object) -> str:
    paths = (("reason",), ("reject", "reason"), ("delivery-status", "code"), ("delivery-status", "message"))
    return " ".join(filter(None, (words(dig(data, *path)) for path in paths)))


def _ref(data: object) -> Any:
    """Our reference in an event or in an entry of the log, whose variables are JSON in a text."""
    variables = dig(data, "user-variables")
    if isinstance(variables, str):
        try:
            variables = read_object(variables)
        except ValueError:
            return None
    ref = dig(variables, "delivery")
    return ref if isinstance(ref, str) else None


def _message_id(data: object) -> str:
    """The id as it was told when the call was answered; events leave out the brackets."""
    bare = words(dig(data, "message", "headers", "message-id")).strip("<>")
    return f"<{bare}>" if bare else ""


def _receipts(reply: Reply, parcel: Parcel) -> list[Receipt]:
    if reply.status != HTTPStatus.OK:
        raise _failure(reply)
    provider_id = _id(reply)
    if provider_id:
        return [Receipt(copy.ref, True, provider_id) for copy in parcel.copies]  # noqa: FBT003 - by place, a thousand times
    if "Magnificent" in reply.text:
        raise AccountRefused("this is not the address of Mailgun's API: look at provider.base_url")
    raise Unclear("Mailgun answered 200 without an id")


def _failure(reply: Reply) -> ProviderError:
    """What an answer other than 200 means."""
    said = _message(reply)
    status = reply.status
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return NotProcessed(f"Mailgun asks to wait: {said}", reply.retry_after or _wait(reply, said))
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or (
        status == HTTPStatus.BAD_REQUEST and _ACCOUNT.search(said)
    ):
        return AccountRefused(f"Mailgun refuses the account: {status} {said}; look at {KEY} and the account's page")
    if status == HTTPStatus.NOT_FOUND:
        return AccountRefused(f"Mailgun does not know this domain: {said}; look at provider.domain and provider.region")
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY):
        return CallRefused(f"Mailgun refuses the call: {status} {said}")
    return Unclear(f"Mailgun answered {status}")


def _message(reply: Reply) -> str:
    said = reply.json
    return redact(str(said.get("message", reply.text)) if isinstance(said, dict) else reply.text)


def _id(reply: Reply) -> str:
    said = reply.json
    return str(said.get("id") or "") if isinstance(said, dict) else ""


def _wait(reply: Reply, said: str) -> timedelta | None:
    if match := _SECONDS.search(said):
        return timedelta(seconds=int(match.group(1)))
    match = _DATE.search(said)
    return reply.until(match.group(1)) if match else None
