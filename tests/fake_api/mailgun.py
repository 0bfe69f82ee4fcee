"""Mailgun as the fake speaks it: a form for up to a thousand readers, one id for all, and the log.

Source: Mailgun's OpenAPI document; what it leaves open says so here.
"""

from base64 import b64decode
from binascii import Error
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import orjson

from tests.fake_api.dialect import Answer, Item, Mail, Refused, Request, ref_in, told

_MOST_COPIES = 1_000
_MOST_BYTES = 52_400_000
_MOST_OPTION_BYTES = 16_384
_MOST_LOGS = 100


class Mailgun:
    """One account, for any domain."""

    name = "mailgun"
    by_item = False

    def sends(self, request: Request) -> bool:
        """A post of a message."""
        return request.method == "POST" and request.path.startswith("/v3/") and request.path.endswith("/messages")

    def read(self, request: Request) -> list[Item]:
        """A copy for each address, its variables filled in; an address that stands there twice gets one."""
        self._see_the_key(request)
        if len(request.body) > _MOST_BYTES:
            raise Refused(Answer(413, b"Request Entity Too Large", kind="text/plain"))
        fields = _fields(request)
        _see_that_it_is_whole(fields)
        own: dict[str, dict[str, str]] = orjson.loads(fields.get("recipient-variables", ["null"])[0]) or {}
        readers = list(dict.fromkeys(fields["to"]))
        if len(readers) > 1 and "recipient-variables" not in fields:
            # Mailgun would take it, and show every reader all the others.
            raise _bad("recipient-variables is missing: every reader would see all addresses")
        if any(reader not in own for reader in readers) and own:
            # Mailgun would send the bare placeholders.
            raise _bad("recipient-variables lacks a reader")
        data = [text for name, (text, *_) in fields.items() if name.startswith("v:")]
        shown = {
            "domain": request.path.split("/")[2], "tags": fields.get("o:tag", []), "from": fields["from"][0],
            "subject": fields["subject"][0], "to": ", ".join(readers), "message-id": fields.get("h:Message-Id", [""])[0],
        }  # fmt: skip
        names = [name for name in fields if name.startswith("v:")]
        items = []
        for reader in readers:
            values = own.get(reader, {})
            filled = [_fill_in(text, values) for text in data]
            variables = {name[2:]: text for name, text in zip(names, filled, strict=True)}
            items.append(Item(reader, ref_in(filled) or ref_in(values.values()), {**shown, "variables": variables}))
        return items

    def count(self, body: bytes) -> int:
        """The parts named `to`."""
        return body.count(b'name="to"\r\n')

    def ids(self, number: int, copies: int) -> list[str]:
        """The same for all."""
        return [f"20261127.{number}@mailgun.example"] * copies

    def accepted(self, items: Sequence[Item], ids: Sequence[str]) -> Answer:
        """One id in angle brackets."""
        return told(200, {"id": f"<{items[0].shown['message-id'].strip('<>') or ids[0]}>", "message": "Queued. Thank you."})

    def accepted_unread(self, number: int, copies: int) -> Answer:
        """The same."""
        return told(200, {"id": f"<{self.ids(number, copies)[0]}>", "message": "Queued. Thank you."})

    def miscounted(self, _whole: Answer) -> Answer:
        """Mailgun answers for all or nobody: here without the id."""
        return told(200, {"message": "Queued. Thank you."})

    def refused(self, _address: str) -> Answer:
        """One bad address refuses the call."""
        return told(400, {"message": "to parameter is not a valid address. please check documentation"})

    def limited(self, number: int, patience: int) -> Answer:
        """No header: the text says it, by turns in its newer and in its older form."""
        until = format_datetime(datetime.fromtimestamp(datetime.now(UTC).timestamp() + patience, UTC), usegmt=True)
        if number % 2:
            text = f"account-requests-per-sec limit exceeded, try again after {patience} seconds"
        else:
            text = f"message limit exceeded, try again after {until}"
        return told(429, {"message": f"Domain news.example.com is not allowed to send: {text}"})

    def broken(self) -> Answer:
        """As documented."""
        return told(500, {"message": "Internal Server Error"})

    def unauthorised(self) -> Answer:
        """One word."""
        return told(401, "Forbidden")

    def look_up(self, request: Request, mails: Sequence[Mail]) -> Answer | None:
        """The analytics log: between two dates, by predicates, a hundred at a time."""
        if (request.method, request.path) != ("POST", "/v1/analytics/logs"):
            return None
        try:
            self._see_the_key(request)
        except Refused as refused:
            return refused.answer
        asked = orjson.loads(request.body)
        start, end = (_date(asked.get(name)) for name in ("start", "end"))
        if asked.get("events") and "accepted" not in asked["events"]:
            mails = ()
        predicates = asked.get("filter", {}).get("AND", [])
        found = [
            mail for mail in mails
            if (start is None or mail.at >= start) and (end is None or mail.at <= end)
            and all(_fits(mail, predicate) for predicate in predicates)
        ]  # fmt: skip
        pages = asked.get("pagination", {})
        if pages.get("sort", "timestamp:desc").endswith(":desc"):
            found.reverse()
        first, size = int(pages.get("token") or 0), min(int(pages.get("limit") or _MOST_LOGS), _MOST_LOGS)
        page = found[first : first + size]
        tokens = {"first": "0", "next": str(first + size)} if first + size < len(found) else {"first": "0"}
        return told(200, {
            "start": asked.get("start", ""), "end": asked.get("end", ""), "items": [_logged(mail) for mail in page],
            "pagination": {**tokens, "total": len(found)}, "aggregates": {},
        })  # fmt: skip

    def _see_the_key(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, key = b64decode(given, validate=True).decode().partition(":")
        except (Error, ValueError):
            user = key = ""
        if (scheme, user) != ("Basic", "api") or not key:
            raise Refused(self.unauthorised())


def _fields(request: Request) -> dict[str, list[str]]:
    """The fields of a form (RFC 7578): fast, and so for forms without files only."""
    kind, _, boundary = request.headers.get("content-type", "").partition("boundary=")
    if not kind.startswith("multipart/form-data"):
        raise _bad("the document declares multipart/form-data only")
    marked = b"--" + boundary.strip('"').encode()
    before, *parts, after = request.body.split(marked)
    if before.strip() or after.strip() != b"--":
        raise _bad("the form is not whole")
    fields: dict[str, list[str]] = {}
    for part in parts:
        head, _, value = part.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        fields.setdefault(name, []).append(value.removesuffix(b"\r\n").decode())
    return fields


def _see_that_it_is_whole(fields: Mapping[str, Sequence[str]]) -> None:
    for name in ("from", "to", "subject"):
        if not any(fields.get(name, [])):
            raise _bad(f"{name} parameter is missing")
    if not {"text", "html", "amp-html", "template"} & set(fields):
        raise _bad("Need at least one of 'text', 'html', 'amp-html' or 'template' parameters specified")
    if len(fields["to"]) > _MOST_COPIES:
        raise _bad("to parameter holds more than 1000 addresses")
    options = sum(
        len(name) + len(value) for name, values in fields.items() if name[:2] in ("o:", "h:", "v:") for value in values
    )
    if options > _MOST_OPTION_BYTES:
        raise _bad("Send options (parameters starting with o:, h:, or v:) are limited to 16KB total")
    if any("@" not in address for address in fields["to"]):
        raise _bad("to parameter is not a valid address. please check documentation")


def _bad(message: str) -> Refused:
    return Refused(told(400, {"message": message}))


def _fill_in(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"%recipient.{name}%", value)
    return text


def _date(text: str | None) -> float | None:
    return parsedate_to_datetime(text).timestamp() if text else None


def _fits(mail: Mail, predicate: Mapping[str, Any]) -> bool:
    values = {str(each["value"]) for each in predicate["values"]}
    shown = mail.item.shown
    has = {
        "domain": {shown["domain"]}, "recipient": {mail.item.address}, "tag": set(shown["tags"]), "tags": set(shown["tags"]),
        "subject": {shown["subject"]}, "message_id": {mail.provider_id}, "event": {"accepted"},
    }.get(str(predicate["attribute"]))  # fmt: skip
    if has is None:
        return False
    return not has.isdisjoint(values) if predicate["comparator"] == "=" else has.isdisjoint(values)


def _logged(mail: Mail) -> dict[str, Any]:
    shown = mail.item.shown
    return {
        "id": mail.item.ref or mail.provider_id, "event": "accepted", "log-level": "info", "method": "HTTP",
        "@timestamp": datetime.fromtimestamp(mail.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "account": {"id": "12345"}, "domain": {"name": shown["domain"]}, "tags": shown["tags"], "recipient": mail.item.address,
        "recipient-domain": mail.item.address.rpartition("@")[2],
        # The document has it as a string.
        "user-variables": orjson.dumps(shown["variables"]).decode(),
        "message": {
            "headers": {
                "to": mail.item.address, "message-id": mail.provider_id, "from": shown["from"], "subject": shown["subject"],
            },
        },
    }  # fmt: skip
