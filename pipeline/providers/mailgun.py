"""Mailgun: up to 1,000 copies in a call, filled in by its recipient variables; it honours no key.

Sources: Mailgun's OpenAPI document and its manual's page on batch sending.
"""

import html as html_escape
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from email.headerregistry import Address
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal

import requests
from pydantic import Field
from requests.exceptions import ConnectTimeout, SSLError
from urllib3.exceptions import NameResolutionError, NewConnectionError

from pipeline.config import Secrets, WebAddress
from pipeline.errors import AccountRefused, CallRefused, NotProcessed, ProviderError, Unclear
from pipeline.issue import Copy, Parcel, Receipt, RenderedIssue
from pipeline.providers import Limits, ProviderOptions
from pipeline.render import fill_in, headers
from pipeline.text import wire_address

KEY = "FRIDAY_PROVIDER_KEY"
SECRETS = (KEY,)
HOSTS = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}
MOST_COPIES = 1_000
TIMEOUT = (5.0, 60.0)
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

    url: str
    key: str
    limits: Limits

    def __repr__(self) -> str:
        return f"Mailgun({self.url})"

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        """One POST for the whole parcel; Mailgun answers with one id for all of it."""
        try:
            with requests.Session() as session:
                answer = session.post(
                    self.url,
                    auth=("api", self.key),
                    files=[(name, (None, value.encode())) for name, value in form(issue, parcel)],
                    timeout=TIMEOUT,
                    allow_redirects=False,
                )
        except requests.RequestException as error:
            raise _failure(error) from error
        return _receipts(answer, parcel)


def build(options: Options, secrets: Secrets, _here: Path) -> Mailgun:
    """The provider of a config whose secrets are there."""
    host = options.base_url or HOSTS[options.region]
    url = f"{host}/v3/{options.domain}/messages"
    return Mailgun(url, secrets.get(KEY) or "", Limits(options.batch_size or MOST_COPIES))


def form(issue: RenderedIssue, parcel: Parcel) -> list[tuple[str, str]]:
    """The fields of a call.

    Without recipient variables every reader would see all addresses in To, so they are always there. A
    value goes in twice where it is escaped for HTML.
    """
    in_html = {name: f"%recipient.html_{name}%" for name in issue.stand_ins}
    in_text = {name: f"%recipient.{name}%" for name in issue.stand_ins}
    common = headers(issue, "%recipient.unsubscribe_url%")
    return [
        ("from", str(Address(issue.sender_name, addr_spec=wire_address(issue.sender)))),
        *(("to", wire_address(copy.address)) for copy in parcel.copies),
        ("subject", issue.subject),
        ("html", fill_in(issue.html, issue, in_html)),
        ("text", fill_in(issue.text, issue, in_text)),
        (
            "recipient-variables",
            json.dumps({wire_address(copy.address): _variables(copy) for copy in parcel.copies}, ensure_ascii=False),
        ),
        ("h:Reply-To", wire_address(issue.reply_to)),
        ("h:Date", format_datetime(parcel.dated)),
        *((f"h:{name}", value) for name, value in common.items()),
        ("v:delivery", "%recipient.ref%"),
        ("o:tag", f"issue-{issue.slot}"),
        ("o:tracking", "no"),
    ]


def _variables(copy: Copy) -> dict[str, str]:
    return {
        "ref": copy.ref,
        **copy.values,
        **{f"html_{name}": html_escape.escape(value) for name, value in copy.values.items()},
    }


def _failure(error: requests.RequestException) -> ProviderError:
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    before_sending = isinstance(error, ConnectTimeout) or isinstance(reason, NewConnectionError | NameResolutionError)
    # Any other TLS error may strike in the middle of a call.
    untrusted = isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)
    if before_sending or untrusted:
        return NotProcessed("Mailgun cannot be reached" + (": its certificate cannot be verified" if untrusted else ""))
    return Unclear(f"the connection broke before Mailgun answered: {type(error).__name__}")


def _receipts(answer: requests.Response, parcel: Parcel) -> list[Receipt]:
    said = _message(answer)
    status = answer.status_code
    if status == HTTPStatus.OK:
        provider_id = _id(answer)
        if provider_id:
            return [Receipt(copy.ref, accepted=True, provider_id=provider_id) for copy in parcel.copies]
        if "Magnificent" in answer.text:
            raise AccountRefused("this is not the address of Mailgun's API: look at provider.base_url")
        raise Unclear("Mailgun answered 200 without an id")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise NotProcessed(f"Mailgun asks to wait: {said}", _wait(answer, said))
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or (
        status == HTTPStatus.BAD_REQUEST and _ACCOUNT.search(said)
    ):
        raise AccountRefused(f"Mailgun refuses the account: {status} {said}; look at {KEY} and the account's page")
    if status == HTTPStatus.NOT_FOUND:
        raise AccountRefused(f"Mailgun does not know this domain: {said}; look at provider.domain and provider.region")
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY):
        raise CallRefused(f"Mailgun refuses the call: {status} {said}")
    raise Unclear(f"Mailgun answered {status}")


def _message(answer: requests.Response) -> str:
    try:
        said = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        said = answer.text
    # Mailgun repeats the address that it refuses, and addresses stay out of messages.
    return re.sub(r"\S+@\S+", "an address", " ".join(said.split()))[:200]


def _id(answer: requests.Response) -> str:
    try:
        return str(answer.json()["id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _wait(answer: requests.Response, said: str) -> timedelta | None:
    if match := _SECONDS.search(said):
        return timedelta(seconds=int(match.group(1)))
    if match := _DATE.search(said):
        try:
            until = parsedate_to_datetime(match.group(1))
            return max(until - parsedate_to_datetime(answer.headers["Date"]), timedelta(0))
        except (KeyError, ValueError, TypeError):
            return None
    return None
