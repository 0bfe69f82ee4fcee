"""Resend: up to 100 whole messages in a call, all or none, under a key that it honours for a day.

Sources: Resend's OpenAPI document, its pages on batch emails, errors, idempotency keys, rate limits and webhooks,
and Svix's page on verifying by hand.
"""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.utils import parseaddr
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipeline.bounce import classify
from pipeline.config import Origin, Secrets
from pipeline.errors import AccountRefused, CallRefused, ConfigError, Forged, NotProcessed, Problem, ProviderError, Unclear
from pipeline.foreign import dig, read_object, told, words
from pipeline.issue import Copy, Event, Kind, Notice, Parcel, Receipt, RenderedIssue, Shown
from pipeline.providers import KEY, WEBHOOK_KEY, Limits, ProviderOptions
from pipeline.render import Message
from pipeline.stencil import Stencil
from pipeline.text import wire_address
from pipeline.wire import Reply, Wire, redact

HOST = "https://api.resend.com"
MOST_COPIES = 100
KEY_LIFETIME = timedelta(hours=24)
CALLS_PER_SECOND = 10.0
TOLERANCE = timedelta(minutes=5)

_QUOTAS = {
    "daily_quota_exceeded": "the day's quota is used up: wait for tomorrow or raise the plan",
    "monthly_quota_exceeded": "the month's quota is used up: raise the plan",
}
# Of what it says with 409: an earlier call under the key is still at work.
_AT_WORK = frozenset({"concurrent_idempotent_requests", "resource_locked"})
_WRONG_KEYS = {
    "invalid_idempotent_request": "other bytes went out under this key before: the issue is not sent on with this version",
    "invalid_idempotency_key": "the key is not one: please report this bug",
}
_CALL_AT_FAULT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
_CURES = {
    HTTPStatus.UNAUTHORIZED: f"look at {KEY}",
    HTTPStatus.FORBIDDEN: f"look at {KEY}, and whether the domain of newsletter.from is verified",
    HTTPStatus.NOT_FOUND: "this is not the address of its API, look at provider.base_url",
    HTTPStatus.METHOD_NOT_ALLOWED: "this is not the address of its API, look at provider.base_url",
}
_KINDS = {
    "email.sent": Kind.ACCEPTED,
    "email.delivered": Kind.DELIVERED,
    "email.complained": Kind.COMPLAINED,
    "email.failed": Kind.BLOCKED,
}
_BLOCKED_SUBTYPES = frozenset({"MessageTooLarge", "ContentRejected", "AttachmentRejected"})


class Options(ProviderOptions):
    """`base_url` overrides the host."""

    batch_size: Annotated[int, Field(ge=1, le=MOST_COPIES)] | None = None
    base_url: Origin | None = None


@dataclass(frozen=True, slots=True)
class Resend:
    """One account."""

    wire: Wire
    limits: Limits
    authorization: str = field(repr=False)
    hook: "ResendHook | None" = None

    def send(self, issue: RenderedIssue, parcel: Parcel) -> list[Receipt]:
        """One POST for the whole parcel under its key; strictly, so that one bad message refuses all."""
        stencil = Stencil(issue, lambda copy, message: letter(issue, copy, message))
        heads = {
            "Authorization": self.authorization,
            "Content-Type": "application/json",
            "Idempotency-Key": parcel.key,
            "x-batch-validation": "strict",
        }
        return _receipts(self.wire.call("POST", "/emails/batch", heads, stencil.array(parcel.copies)), parcel)

    def look_up(self, _issue: RenderedIssue, _copies: Sequence[Copy], _since: datetime) -> Shown:
        """Nothing: its list of mails cannot be searched, and under its key a parcel is simply sent again."""
        return Shown([])


def build(options: Options, secrets: Secrets, _here: Path) -> Resend:
    """The provider of a config whose secrets are there.

    Raises:
        ConfigError: the secret of its webhooks is none.
    """
    limits = Limits(
        options.batch_size or MOST_COPIES,
        None,
        options.concurrency or 4,
        options.rate_per_second or CALLS_PER_SECOND,
        KEY_LIFETIME,
    )
    wire = Wire("Resend", options.base_url or HOST)
    secret = secrets.get(WEBHOOK_KEY)
    hook = ResendHook(_signing_key(secret)) if secret else None
    return Resend(wire, limits, f"Bearer {secrets.get(KEY)}", hook)


def letter(issue: RenderedIssue, copy: Copy, message: Message) -> dict[str, object]:
    """One message as its API takes it, to an address as it goes over the wire."""
    return {
        "from": str(Address(issue.sender_name, addr_spec=wire_address(issue.sender))),
        "to": [copy.address],
        "reply_to": [wire_address(issue.reply_to)],
        "subject": message.subject,
        "html": message.html,
        "text": message.text,
        "headers": message.headers,
        "tags": [{"name": "delivery", "value": copy.ref}],
    }


@dataclass(frozen=True, slots=True)
class ResendHook:
    """Hears its webhooks, which Svix signs."""

    key: bytes = field(repr=False)

    def hear(self, headers: Mapping[str, str], body: bytes, now: datetime) -> list[Notice]:
        """One notice under the message's id, which stays the same when it is sent again with a new signature."""
        own_id, moment, signatures = (headers.get(f"svix-{name}", "") for name in ("id", "timestamp", "signature"))
        if not own_id or not re.fullmatch(r"\d{1,12}", moment, re.ASCII):
            raise Forged("the call carries no signature of Resend's")
        signed = b".".join([own_id.encode(errors="replace"), moment.encode(), body])
        due = b64encode(hmac.digest(self.key, signed, sha256))
        given = [value for each in signatures.split() for version, _, value in [each.partition(",")] if version == "v1"]
        if not any(hmac.compare_digest(each.encode(errors="replace"), due) for each in given):
            raise Forged(f"the call is not signed with the secret of Resend's webhook: look at {WEBHOOK_KEY}")
        if abs(now.timestamp() - int(moment)) > TOLERANCE.total_seconds():
            raise Forged("the call was signed more than five minutes away from this machine's time")
        try:
            read_object(body)
        except ValueError as error:
            raise Forged("the body is not a JSON object") from error
        return [Notice(own_id, body.decode())]

    def read(self, body: str) -> list[Event]:
        """The one event of a notice; a mail has one reader."""
        said = read_object(body)
        data = said.get("data")
        kind = _kind(said)
        _, address = parseaddr(words(dig(data, "to", 0)))
        return [told(kind, _tag(dig(data, "tags")), address, dig(data, "email_id"), _reason(data))]


def _kind(said: Mapping[str, Any]) -> Kind:
    what = said.get("type")
    if what == "email.bounced":
        return _bounce(dig(said, "data", "bounce"))
    if what == "email.suppressed":
        complained = dig(said, "data", "suppressed", "reason") == "previous_complaint"
        return Kind.COMPLAINED if complained else Kind.HARD_BOUNCE
    return _KINDS.get(words(what), Kind.OTHER)


def _bounce(bounce: object) -> Kind:
    if words(dig(bounce, "subType")) in _BLOCKED_SUBTYPES:
        return Kind.BLOCKED
    if dig(bounce, "type") != "Permanent":
        return Kind.SOFT_BOUNCE
    blocked = classify("", _diagnosis(bounce)) is Kind.BLOCKED
    return Kind.BLOCKED if blocked else Kind.HARD_BOUNCE


def _diagnosis(bounce: object) -> str:
    """What the reader's server said."""
    lines = dig(bounce, "diagnosticCode")
    return " ".join(map(words, lines)) if isinstance(lines, list) else words(lines)


def _reason(data: object) -> str:
    told_of = [dig(data, each) for each in ("bounce", "suppressed", "failed")]
    return " ".join(filter(None, (words(dig(each, name)) for each in told_of for name in ("subType", "reason", "message"))))


def _tag(tags: object) -> object:
    """The value of our tag: tags are an object today, and were a list of names and values."""
    if isinstance(tags, list):
        return next((dig(each, "value") for each in tags if dig(each, "name") == "delivery"), None)
    return dig(tags, "delivery")


def _signing_key(secret: str) -> bytes:
    try:
        key = b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ConfigError([Problem(WEBHOOK_KEY, "is not a signing secret of Resend's", "copy it anew; it begins with whsec_")])
    return key


def _receipts(reply: Reply, parcel: Parcel) -> list[Receipt]:
    if reply.status != HTTPStatus.OK:
        raise _failure(reply)
    items = dig(reply.json, "data")
    ids = [words(dig(item, "id")) for item in items] if isinstance(items, list) else []
    if len(ids) != len(parcel.copies) or not all(ids) or dig(reply.json, "errors"):
        raise Unclear("Resend answered 200, but not for each message")
    return [Receipt(copy.ref, accepted=True, provider_id=own) for copy, own in zip(parcel.copies, ids, strict=True)]


def _failure(reply: Reply) -> ProviderError:
    """What an answer other than 200 means."""
    status, name = reply.status, words(dig(reply.json, "name"))
    said = f"Resend answered {status} {redact(name)}"
    if name in _QUOTAS or name in _WRONG_KEYS:
        return AccountRefused(f"{said}: {(_QUOTAS | _WRONG_KEYS)[name]}")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return NotProcessed(f"{said}: it asks to wait", reply.retry_after or _reset(reply))
    if status in _CURES:
        return AccountRefused(f"{said}: {redact(words(dig(reply.json, 'message')))}; {_CURES[HTTPStatus(status)]}")
    if status in _CALL_AT_FAULT:
        return CallRefused(f"{said}: {redact(words(dig(reply.json, 'message')))}")
    return Unclear(f"{said}: an earlier call under the key is still at work" if name in _AT_WORK else said)


def _reset(reply: Reply) -> timedelta | None:
    """When the window of its rate limit ends, in seconds from now (draft-ietf-httpapi-ratelimit-headers)."""
    seconds = reply.headers.get("ratelimit-reset", "")
    return timedelta(seconds=int(seconds)) if re.fullmatch(r"\d{1,6}", seconds, re.ASCII) else None
