"""Resend as the fake speaks it: up to 100 whole messages in a call, under a key that is honoured for a day.

Source: Resend's OpenAPI document and its page on errors. What a key does stands in the server, with the calls.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tests.fake_api.dialect import Answer, Item, Mail, Refused, Request, ref_in, told

_MOST_COPIES = 100
_MOST_KEY = 256
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_RATE = {"ratelimit_limit": "10", "ratelimit_remaining": "9", "ratelimit_reset": "1"}


class Resend:
    """One account. Batches are strict: a message that is wrong refuses all."""

    name = "resend"
    by_item = False

    def sends(self, request: Request) -> bool:
        """A batch."""
        return (request.method, request.path) == ("POST", "/emails/batch")

    def read(self, request: Request) -> list[Item]:
        """A copy for each message."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not key:
            raise Refused(self.unauthorised())
        if not request.headers.get("user-agent"):
            raise Refused(_said(403, "validation_error", "a User-Agent is required"))
        if len(request.headers.get("idempotency-key", "k")) not in range(1, _MOST_KEY + 1):
            raise Refused(_said(400, "invalid_idempotency_key", "the key must have 1 to 256 characters"))
        try:
            messages = orjson.loads(request.body)
        except ValueError:
            messages = None
        if not isinstance(messages, list) or not 1 <= len(messages) <= _MOST_COPIES:
            raise Refused(_said(422, "validation_error", "the body must be an array of 1 to 100 messages"))
        return [_item(message) for message in messages]

    def count(self, body: bytes) -> int:
        """The keys `to`; inside a text the quote would be escaped."""
        return body.count(b'"to":')

    def ids(self, number: int, copies: int) -> list[str]:
        """One for each."""
        return [f"{number:08x}-0000-4000-9000-{place:012x}" for place in range(copies)]

    def accepted(self, _items: Sequence[Item], ids: Sequence[str]) -> Answer:
        """An id for each, in order."""
        return told(200, {"data": [{"id": each} for each in ids]}, **_RATE)

    def accepted_unread(self, number: int, copies: int) -> Answer:
        """The same."""
        return self.accepted((), self.ids(number, copies))

    def miscounted(self, whole: Answer) -> Answer:
        """The last message is not answered for."""
        return told(200, {"data": orjson.loads(whole.body)["data"][:-1]}, **_RATE)

    def refused(self, _address: str) -> Answer:
        """A strict batch is refused as a whole."""
        return _said(422, "validation_error", "`to` holds what is no address")

    def limited(self, _number: int, patience: int) -> Answer:
        """A header says how long."""
        answer = _said(429, "rate_limit_exceeded", "Too many requests.")
        waits = {"ratelimit-limit": "10", "ratelimit-remaining": "0", "ratelimit-reset": str(patience)}
        return Answer(answer.status, answer.body, {**waits, "retry-after": str(patience)})

    def broken(self) -> Answer:
        """As documented."""
        return _said(500, "application_error", "something broke")

    def unauthorised(self) -> Answer:
        """No key, or one that is not known."""
        return _said(401, "missing_api_key", "no API key came")

    def look_up(self, _request: Request, _mails: Sequence[Mail]) -> Answer | None:
        """Its list of mails shows no tags, so nothing is asked of it."""
        return None

    def mistaken(self) -> Answer:
        """A key that came before with another body."""
        return _said(409, "invalid_idempotent_request", "the key came before with another body")

    def concurrent(self) -> Answer:
        """A key whose first call is not done."""
        return _said(409, "concurrent_idempotent_requests", "the first call under the key is not done")


def _said(status: int, name: str, message: str) -> Answer:
    return told(status, {"statusCode": status, "name": name, "message": message})


def _item(message: Mapping[str, Any]) -> Item:
    for name in ("from", "to", "subject"):
        if not message.get(name):
            raise Refused(_said(422, "missing_required_field", f"`{name}` is missing"))
    to = [message["to"]] if isinstance(message["to"], str) else message["to"]
    if len(to) != 1:
        # Resend would take up to 50, and show each reader the others.
        raise Refused(_said(422, "validation_error", "more than one reader in a message"))
    if not message.get("html") and not message.get("text"):
        raise Refused(_said(422, "missing_required_field", "`html` or `text` is missing"))
    if "attachments" in message:
        raise Refused(_said(422, "invalid_attachment", "a batch takes no attachments"))
    tags = message.get("tags", [])
    if not all(_TAG.fullmatch(str(tag.get(part, ""))) for tag in tags for part in ("name", "value")):
        raise Refused(_said(422, "invalid_parameter", "a tag holds what no tag may"))
    values = [*(tag["value"] for tag in tags), *message.get("headers", {}).values()]
    return Item(to[0].rpartition("<")[2].rstrip(">"), ref_in(values), {"subject": message["subject"]})
