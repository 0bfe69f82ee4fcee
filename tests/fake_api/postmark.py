"""Postmark as the fake speaks it: up to 500 whole messages in a call, an answer for each, and the message search.

Postmark publishes no OpenAPI document; the shapes are those of its developer pages.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import orjson

from tests.fake_api.dialect import Answer, Item, Mail, Refused, Request, ref_in, told

_MOST_COPIES = 500
_MOST_BYTES = 50 * 1024 * 1024
_MOST_BODY = 5 * 1024 * 1024
_MOST_KEY, _MOST_VALUE, _MOST_TAG = 20, 80, 1_000
_MOST_FOUND, _DEEPEST = 500, 10_000
_ZONE = ZoneInfo("America/New_York")


class Postmark:
    """One server, with any stream."""

    name = "postmark"
    by_item = True

    def sends(self, request: Request) -> bool:
        """A batch."""
        return (request.method, request.path) == ("POST", "/email/batch")

    def read(self, request: Request) -> list[Item]:
        """A copy for each message; what is wrong with one refuses that one."""
        self._see_the_token(request)
        if len(request.body) > _MOST_BYTES:
            raise Refused(Answer(413, b"", kind="text/html"))
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise Refused(Answer(415, b"", kind="text/html"))
        try:
            messages = orjson.loads(request.body)
        except ValueError:
            raise _wrong(402, "Invalid JSON") from None
        if not isinstance(messages, list):
            raise _wrong(403, "Incompatible JSON")
        if len(messages) > _MOST_COPIES:
            raise _wrong(410, "Too many batch messages")
        return [_item(message) for message in messages]

    def count(self, body: bytes) -> int:
        """The keys `To`; inside a text the quote would be escaped."""
        return body.count(b'"To":')

    def ids(self, number: int, copies: int) -> list[str]:
        """One for each."""
        return [f"{number:08x}-0000-4000-8000-{place:012x}" for place in range(copies)]

    def accepted(self, items: Sequence[Item], ids: Sequence[str]) -> Answer:
        """An object for each message, in their order, and with HTTP 200 whatever they say."""
        at = datetime.now(UTC).isoformat()
        return told(200, [
            orjson.loads(item.refusal) if item.refusal
            else {"To": item.address, "SubmittedAt": at, "MessageID": given, "ErrorCode": 0, "Message": "OK"}
            for item, given in zip(items, ids, strict=True)
        ])  # fmt: skip

    def accepted_unread(self, number: int, copies: int) -> Answer:
        """The same without addresses."""
        given = '{{"SubmittedAt":"2026-11-27T08:00:00Z","MessageID":"{}","ErrorCode":0,"Message":"OK"}}'
        return Answer(200, f"[{','.join(map(given.format, self.ids(number, copies)))}]".encode())

    def miscounted(self, whole: Answer) -> Answer:
        """The last message is not answered for."""
        return told(200, orjson.loads(whole.body)[:-1])

    def refused(self, _address: str) -> Answer:
        """What stands for a message that is refused."""
        return told(200, {"ErrorCode": 406, "Message": "the recipient is inactive"})

    def limited(self, _number: int, _patience: int) -> Answer:
        """Neither a header nor a number tells how long."""
        return told(429, {"ErrorCode": 429, "Message": "Rate limit exceeded"})

    def broken(self) -> Answer:
        """As documented."""
        return told(500, {"ErrorCode": 0, "Message": "Internal Server Error"})

    def unauthorised(self) -> Answer:
        """Error code 10."""
        return told(401, {"ErrorCode": 10, "Message": "Bad or missing API token."})

    def look_up(self, request: Request, mails: Sequence[Mail]) -> Answer | None:
        """The search of outbound messages; its dates are of New York, its stream is `outbound` unless one is named."""
        if (request.method, request.path) != ("GET", "/messages/outbound"):
            return None
        asked = dict(parse_qsl(request.query))
        try:
            self._see_the_token(request)
            count, offset = int(asked["count"]), int(asked["offset"])
        except Refused as refused:
            return refused.answer
        except (KeyError, ValueError):
            return _wrong(600, "count and offset are required").answer
        if count > _MOST_FOUND or count + offset > _DEEPEST:
            return _wrong(600, "count is at most 500, and with offset at most 10,000").answer
        found = [mail for mail in reversed(mails) if _fits(mail, asked)]
        return told(200, {"TotalCount": len(found), "Messages": [_found(mail) for mail in found[offset : offset + count]]})

    def _see_the_token(self, request: Request) -> None:
        if not request.headers.get("x-postmark-server-token"):
            raise Refused(self.unauthorised())


def _wrong(code: int, message: str) -> Refused:
    return Refused(told(422, {"ErrorCode": code, "Message": message}))


def _item(message: Mapping[str, Any]) -> Item:
    data = message.get("Metadata") or {}
    shown = {name: message.get(name) or "" for name in ("From", "Subject", "Tag")}
    shown |= {"Metadata": data, "MessageStream": message.get("MessageStream") or "outbound"}
    address = str(message.get("To", ""))
    wrong = _what_is_wrong(message, data)
    refusal = orjson.dumps({"ErrorCode": 300, "Message": wrong}).decode() if wrong else ""
    return Item(address.rpartition("<")[2].rstrip(">"), ref_in(data.values()), shown, refusal)


def _what_is_wrong(message: Mapping[str, Any], data: Mapping[str, str]) -> str:
    to, bodies = message.get("To", ""), [message.get(name) or "" for name in ("HtmlBody", "TextBody")]
    wrong = {
        "'To' or 'From' is no address": "@" not in to or "@" not in message.get("From", ""),
        # Postmark would take it, and show each reader the other.
        "more than one reader in a message": "," in to,
        "there is neither TextBody nor HtmlBody": not any(bodies),
        "a body is over 5 MB": max(map(len, bodies)) > _MOST_BODY,
        "Metadata has a key over 20 or a value over 80 characters": any(
            len(key) > _MOST_KEY or len(value) > _MOST_VALUE for key, value in data.items()
        ),
        "Tag is over 1,000 characters": len(message.get("Tag") or "") > _MOST_TAG,
        "Headers are objects of Name and Value": any(set(each) != {"Name", "Value"} for each in message.get("Headers", [])),
    }
    return next((what for what, is_so in wrong.items() if is_so), "")


def _fits(mail: Mail, asked: Mapping[str, str]) -> bool:
    shown = mail.item.shown
    has = {"recipient": mail.item.address, "tag": shown["Tag"], "subject": shown["Subject"], "fromemail": shown["From"]}
    has |= {f"metadata_{key}": value for key, value in shown["Metadata"].items()}
    filters = {name: value for name, value in asked.items() if name in has or name.startswith("metadata_")}
    if asked.get("messagestream", "outbound") != shown["MessageStream"]:
        return False
    if any(has.get(name) != value for name, value in filters.items()):
        return False
    since, until = (_moment(asked.get(name), late=late) for name, late in (("fromdate", False), ("todate", True)))
    return (since is None or mail.at >= since) and (until is None or mail.at <= until)


def _moment(text: str | None, *, late: bool) -> float | None:
    if not text:
        return None
    local = datetime.fromisoformat(text)
    if late and "T" not in text:
        local = local.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return local.replace(tzinfo=_ZONE).timestamp()


def _found(mail: Mail) -> dict[str, Any]:
    at = datetime.fromtimestamp(mail.at, _ZONE)
    return {
        **mail.item.shown, "MessageID": mail.provider_id, "To": [{"Email": mail.item.address, "Name": None}],
        "Cc": [], "Bcc": [],
        "Recipients": [mail.item.address], "ReceivedAt": at.isoformat(), "Attachments": [], "Status": "Sent",
        "TrackOpens": False, "TrackLinks": "None", "Sandboxed": False,
    }  # fmt: skip
