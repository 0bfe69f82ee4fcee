"""Mailgun: up to 1,000 copies in a call, filled in by its recipient variables; it honours no key.

Sources: Mailgun's OpenAPI document and its manual's page on batch sending.
"""

import html as html_escape
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.utils import format_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import Field

from pipeline.config import Secrets, WebAddress
from pipeline.errors import AccountRefused, CallRefused, NotProcessed, Unclear
from pipeline.issue import Copy, Parcel, Receipt, RenderedIssue
from pipeline.providers import KEY, Limits, ProviderOptions
from pipeline.render import fill_in, headers
from pipeline.text import wire_address
from pipeline.wire import Reply, Wire, redact

HOSTS = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}
MOST_COPIES = 1_000
# What Mailgun says with 400 when the account and not the call is at fault.
_ACCOUNT = re.compile(r"free accounts|unverified|not allowed to send|disabled|suspended|payment|activate", re.IGNORECASE)
_SECONDS = re.compile(r"try again after (\d+) seconds", re.IGNORECASE)
_DATE = re.compile(r"try again after (\w{3}, \d{1,2} \w{3} \d{4} [\d:]{8} \w+)", re.IGNORECASE)


class Options(ProviderOptions):
    """`domain` is the sending domain at Mailgun; `base_url` overrides the host of `region`."""

    batch_size: Annotated[int, Field(ge=1, le=MOST_COPIES)] | None = None
    domain: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+\.[A-Za-z0-9-]+$")]
    region: Literal["us", "eu"] = "us"
    base_url: WebAddress | None = None


@dataclass(frozen=True, slots=True)
class Mailgun:
    """One sending domain."""

    domain: str
    wire: Wire
    limits: Limits
    authorization: str = field(repr=False)
    hook: None = None

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        """One POST for the whole parcel; Mailgun answers with one id for all of it."""
        heads = {"Authorization": self.authorization, "Content-Type": f"multipart/form-data; boundary={parcel.key}"}
        reply = self.wire.call("POST", f"/v3/{self.domain}/messages", heads, _multipart(form(issue, parcel), parcel))
        return _receipts(reply, parcel)

    def look_up(self, _issue: RenderedIssue, _copies: Sequence[Copy], _since: datetime) -> list[Receipt]:
        """Nothing yet."""
        return []


def build(options: Options, secrets: Secrets, _here: Path) -> Mailgun:
    """The provider of a config whose secrets are there."""
    limits = Limits(options.batch_size or MOST_COPIES, None, options.concurrency or 1, options.rate_per_second)
    wire = Wire("Mailgun", options.base_url or HOSTS[options.region], limits.connections)
    authorization = b64encode(f"api:{secrets.get(KEY)}".encode()).decode()
    return Mailgun(options.domain, wire, limits, f"Basic {authorization}")


def form(issue: RenderedIssue, parcel: Parcel) -> list[tuple[str, str]]:
    """The fields of a call, but for its addressees.

    Without recipient variables every reader would see all addresses in To, so they are always there. A
    value goes in twice where it is escaped for HTML.
    """
    in_html = {name: f"%recipient.html_{name}%" for name in issue.stand_ins}
    in_text = {name: f"%recipient.{name}%" for name in issue.stand_ins}
    by_mail = "%recipient.unsubscribe_mail%" if issue.mailbox else ""
    common = headers(issue, "%recipient.unsubscribe_url%", by_mail)
    return [
        ("from", str(Address(issue.sender_name, addr_spec=wire_address(issue.sender)))),
        ("subject", issue.subject),
        ("html", fill_in(issue.html, issue, in_html)),
        ("text", fill_in(issue.text, issue, in_text)),
        (
            "recipient-variables",
            orjson.dumps({wire_address(copy.address): _variables(copy) for copy in parcel.copies}).decode(),
        ),
        ("h:Reply-To", wire_address(issue.reply_to)),
        ("h:Date", format_datetime(parcel.dated)),
        *((f"h:{name}", value) for name, value in common.items()),
        ("v:delivery", "%recipient.ref%"),
        ("o:tag", f"issue-{issue.slot}"),
        ("o:tracking", "no"),
    ]


def _multipart(fields: Iterable[tuple[str, str]], parcel: Parcel) -> bytes:
    """The fields and, in one stroke, the addressees as multipart/form-data (RFC 7578) under the parcel's key as boundary."""

    def opening(name: str) -> str:
        return f'--{parcel.key}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'

    parts = [f"{opening(name)}{value}\r\n" for name, value in fields]
    readers = f"\r\n{opening('to')}".join([wire_address(copy.address) for copy in parcel.copies])
    return "".join([*parts, opening("to"), readers, f"\r\n--{parcel.key}--\r\n"]).encode()


def _variables(copy: Copy) -> dict[str, str]:
    return {
        "ref": copy.ref,
        "address": copy.address,
        "unsubscribe_url": copy.unsubscribe_url,
        "html_address": html_escape.escape(copy.address),
        "html_unsubscribe_url": html_escape.escape(copy.unsubscribe_url),
        **({"unsubscribe_mail": copy.unsubscribe_mail} if copy.unsubscribe_mail else {}),
    }


def _receipts(reply: Reply, parcel: Parcel) -> list[Receipt]:
    said = _message(reply)
    status = reply.status
    if status == HTTPStatus.OK:
        provider_id = _id(reply)
        if provider_id:
            return [Receipt(copy.ref, True, provider_id) for copy in parcel.copies]  # noqa: FBT003 - by place, a thousand times
        if "Magnificent" in reply.text:
            raise AccountRefused("this is not the address of Mailgun's API: look at provider.base_url")
        raise Unclear("Mailgun answered 200 without an id")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise NotProcessed(f"Mailgun asks to wait: {said}", reply.retry_after or _wait(reply, said))
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or (
        status == HTTPStatus.BAD_REQUEST and _ACCOUNT.search(said)
    ):
        raise AccountRefused(f"Mailgun refuses the account: {status} {said}; look at {KEY} and the account's page")
    if status == HTTPStatus.NOT_FOUND:
        raise AccountRefused(f"Mailgun does not know this domain: {said}; look at provider.domain and provider.region")
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY):
        raise CallRefused(f"Mailgun refuses the call: {status} {said}")
    raise Unclear(f"Mailgun answered {status}")


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
