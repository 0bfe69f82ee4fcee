"""What providers send to a webhook, signed as they sign it: literal JSON of their pages, with our reference in it."""

import base64
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from svix.webhooks import Webhook

NOW = datetime(2026, 11, 27, 9, 0, 0, tzinfo=UTC)
REF = "0123456789abcdef0123456789abcdef"
READER = "ada@example.com"
KEYS = {
    "mailgun": "signing-key-of-mailgun",
    "postmark": "pass:word",
    "resend": "whsec_" + base64.b64encode(b"twenty-four secret bytes").decode(),
}


@dataclass(frozen=True)
class Post:
    """A call to a webhook, with header names in lower case."""

    headers: Mapping[str, str]
    body: bytes


def mailgun(data: object, at: datetime = NOW, key: str = KEYS["mailgun"], token: str = "a" * 50) -> Post:
    moment = str(int(at.timestamp()))
    own = hmac.new(key.encode(), f"{moment}{token}".encode(), "sha256").hexdigest()
    said = {"signature": {"timestamp": moment, "token": token, "signature": own}, "event-data": data}
    return Post({"content-type": "application/json"}, json.dumps(said).encode())


def postmark(data: object, _at: datetime = NOW, key: str = KEYS["postmark"], user: str = "friday") -> Post:
    credentials = base64.b64encode(f"{user}:{key}".encode()).decode()
    return Post({"content-type": "application/json", "authorization": f"Basic {credentials}"}, json.dumps(data).encode())


def resend(data: object, at: datetime = NOW, key: str = KEYS["resend"], own_id: str = "msg_1") -> Post:
    body = json.dumps(data)
    headers = {
        "content-type": "application/json",
        "svix-id": own_id,
        "svix-timestamp": str(int(at.timestamp())),
        "svix-signature": Webhook(key).sign(own_id, at, body),
    }
    return Post(headers, body.encode())


SIGN: dict[str, Callable[..., Post]] = {"mailgun": mailgun, "postmark": postmark, "resend": resend}


def mailgun_event(event: str, **more: Any) -> dict[str, Any]:
    return {
        "event": event, "id": "Ase7i2zsRYeDXztHGENqRA", "timestamp": 1_795_770_000.5, "log-level": "info",
        "recipient": READER, "recipient-domain": "example.com", "tags": ["issue-2026-11-27"],
        "user-variables": {"delivery": REF}, "flags": {"is-test-mode": False},
        "message": {"headers": {"message-id": "20261127.1@news.example.com", "to": READER, "subject": "Hello"}, "size": 111},
        **more,
    }  # fmt: skip


def mailgun_failed(severity: str, reason: str, code: int, message: str, **more: Any) -> dict[str, Any]:
    status = {"attempt-no": 1, "code": code, "message": message, "description": "", "session-seconds": 0.4, **more}
    return mailgun_event("failed", severity=severity, reason=reason, **{"delivery-status": status})


def postmark_event(record: str, **more: Any) -> dict[str, Any]:
    return {
        "RecordType": record, "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483", "Recipient": READER, "ServerID": 23,
        "Tag": "issue-2026-11-27", "Metadata": {"delivery": REF}, "MessageStream": "broadcast", **more,
    }  # fmt: skip


def postmark_bounce(kind: str, record: str = "Bounce", **more: Any) -> dict[str, Any]:
    said = postmark_event(
        record, ID=4_323_372_036_854_775_807, Type=kind, TypeCode=1, Name="Bounce", Email=READER, Inactive=True,
        From="friday@news.example.com", Description="The server was unable to deliver your message", CanActivate=True,
        Details="Test bounce details", BouncedAt="2026-11-27T08:59:00Z", DumpAvailable=True, Subject="Hello", **more,
    )  # fmt: skip
    del said["Recipient"]
    return said


def resend_event(what: str, **more: Any) -> dict[str, Any]:
    return {
        "type": what,
        "created_at": "2026-11-27T08:59:00.000Z",
        "data": {
            "email_id": "56761188-7520-42d8-8898-ff6fc54ce618", "created_at": "2026-11-27T08:00:05.000Z",
            "from": "The Test Five <friday@news.example.com>", "to": [READER], "subject": "Hello",
            "tags": {"delivery": REF}, **more,
        },
    }  # fmt: skip


def resend_bounce(kind: str, subtype: str = "General", *diagnosis: str) -> dict[str, Any]:
    bounce = {"type": kind, "subType": subtype, "message": "The mail bounced.", "diagnosticCode": list(diagnosis)}
    return resend_event("email.bounced", bounce=bounce)


def resend_suppressed(reason: str) -> dict[str, Any]:
    said = {"type": "OnAccountSuppressionList", "reason": reason, "message": "It is suppressed.", "diagnosticCode": []}
    return resend_event("email.suppressed", suppressed=said)
