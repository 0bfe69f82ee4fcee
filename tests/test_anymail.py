"""django-anymail as an independent judge: the same mail, the same replies and the same events, read by it and by us.

Where the two differ on purpose, the difference stands here with its reason, and no other is allowed.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from anymail.exceptions import (  # type: ignore[import-untyped]  # neither it nor Django brings types
    AnymailAPIError,
    AnymailRecipientsRefused,
    AnymailWebhookValidationFailure,
)
from anymail.message import AnymailMessage  # type: ignore[import-untyped]  # the same
from anymail.signals import tracking  # type: ignore[import-untyped]  # the same
from anymail.webhooks.mailgun import MailgunTrackingWebhookView  # type: ignore[import-untyped]  # the same
from anymail.webhooks.postmark import PostmarkTrackingWebhookView  # type: ignore[import-untyped]  # the same
from anymail.webhooks.resend import ResendTrackingWebhookView  # type: ignore[import-untyped]  # the same
from django.conf import settings  # type: ignore[import-untyped]  # the same
from django.core.mail import get_connection  # type: ignore[import-untyped]  # the same
from django.test import RequestFactory  # type: ignore[import-untyped]  # the same

from pipeline.errors import ProviderError
from pipeline.issue import Copy, Kind, Receipt
from pipeline.providers import WEBHOOK_KEY
from pipeline.render import address
from pipeline.text import wire_address
from tests.fake_http import Call, FakeHttp, Reply, fake_http
from tests.test_hooks_of_providers import MAILGUN, POSTMARK, RESEND
from tests.test_providers import COPIES, ISSUE, PARCEL, provider_of
from tests.webhooks import KEYS, NOW, SIGN, Post

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"], TIME_ZONE="UTC", USE_TZ=True, ANYMAIL={"WEBHOOK_SECRET": f"friday:{KEYS['postmark']}"}
    )

NAMES = ["mailgun", "postmark", "resend"]
BACKENDS: dict[str, dict[str, str]] = {
    "mailgun": {"api_key": "k", "sender_domain": "news.example.com"},
    "postmark": {"server_token": "k", "message_stream": "broadcast"},
    "resend": {"api_key": "k"},
}
OURS_ALONE = {
    "mailgun": {
        "h:date": "the same parcel is the same bytes, so it is dated by us",
        "o:tracking": "one word for both kinds",
        "o:tracking-clicks": "the same",
        "o:tracking-opens": "the same",
    },
    "postmark": {
        "date": "the same parcel is the same bytes, so it is dated by us",
        "message-id": "the reader's own, kept by the next header",
        "x-pm-keepid": "see above",
    },
    "resend": {
        "tags": "Resend's own tags come back in its events, and take hexadecimal digits",
        "x-tags": "theirs, for what Resend's tags do not take",
        "x-metadata": "the same",
    },
}


@pytest.fixture
def fake() -> Iterator[FakeHttp]:
    with fake_http() as running:
        yield running


def letter(fake: FakeHttp, name: str, *copies: Copy) -> Any:
    """A mail by anymail to several readers, each with an own reference and own headers."""
    base = f"{fake.url}/v3/" if name == "mailgun" else fake.url
    message = address(ISSUE, copies[0])
    mail = AnymailMessage(
        subject=message.subject,
        body=message.text,
        from_email=f"{ISSUE.sender_name} <{ISSUE.sender}>",
        to=[copy.address for copy in copies],
        reply_to=[ISSUE.reply_to],
        connection=get_connection(f"anymail.backends.{name}.EmailBackend", api_url=base, **BACKENDS[name]),
    )
    mail.attach_alternative(message.html, "text/html")
    mail.merge_metadata = {copy.address: {"delivery": copy.ref} for copy in copies}
    mail.merge_headers = {copy.address: address(ISSUE, copy).headers for copy in copies}
    mail.tags = [f"issue-{ISSUE.slot}"]
    if name != "resend":
        mail.track_clicks = mail.track_opens = False
    return mail


def fields_for(call: Call, copy: Copy) -> dict[str, Any]:
    """What a call says about one reader: every field, with names of headers in lower case beside the others."""
    if call.path.endswith("/messages"):
        variables = call.variables.get(copy.address) or call.variables[wire_address(copy.address)]
        filled = {}
        for field, text in call.fields:
            value = text
            for name, own in variables.items():
                value = value.replace(f"%recipient.{name}%", own)
            filled[field.lower()] = value
        # Addressees and their variables come for all at once.
        return {field: value for field, value in filled.items() if field not in ("to", "recipient-variables")}
    (said,) = (each for each in call.json if copy.ref in json.dumps(each))
    heads = said.pop("Headers", None) or said.pop("headers")
    pairs = heads.items() if isinstance(heads, dict) else ((head["Name"], head["Value"]) for head in heads)
    to = said.pop("To", None) or said.pop("to")[0]
    return {**said, "to": wire_address(to), **{name.lower(): value for name, value in pairs}}


@pytest.mark.parametrize("copy", COPIES, ids=["ascii", "quoted", "international"])
@pytest.mark.parametrize("name", NAMES)
def test_a_mail_of_ours_is_the_one_that_anymail_makes(name: str, copy: Copy, fake: FakeHttp) -> None:
    provider_of(name, Path(), fake.url).send(ISSUE, PARCEL)
    letter(fake, name, copy).send()
    our_call, their_call = fake.calls
    assert our_call.path == their_call.path
    ours, theirs = fields_for(our_call, copy), fields_for(their_call, copy)
    assert {field for field in ours | theirs if ours.get(field) != theirs.get(field)} == set(OURS_ALONE[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_call_identifies_the_account_as_anymail_does(name: str, fake: FakeHttp) -> None:
    provider_of(name, Path(), fake.url, {"FRIDAY_PROVIDER_KEY": "k"}).send(ISSUE, PARCEL)
    letter(fake, name, *COPIES).send()
    ours, theirs = (call.headers for call in fake.calls)
    assert ours.get("authorization") == theirs.get("authorization")
    assert ours.get("x-postmark-server-token") == theirs.get("x-postmark-server-token")


INACTIVE = (
    "You tried to send to recipient(s) that have been marked as inactive. Found inactive addresses: {}. "
    "Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression."
)
SENT = {"SubmittedAt": "2026-11-27T03:00:05-05:00", "ErrorCode": 0, "Message": "OK"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mailgun", {"id": "<1@news.example.com>", "message": "Queued. Thank you."}),
        ("resend", {"data": [{"id": "a"}, {"id": "b"}]}),
        (
            "postmark",
            [{**SENT, "To": COPIES[0].address, "MessageID": "a"}, {**SENT, "To": COPIES[1].address, "MessageID": "b"}],
        ),
        (
            "postmark",
            [
                {**SENT, "To": COPIES[0].address, "MessageID": "a"},
                {"ErrorCode": 406, "Message": INACTIVE.format(COPIES[1].address)},
            ],
        ),
        (
            "postmark",
            [
                {"ErrorCode": 300, "Message": "Invalid 'To' address: 'ada@example.com'."},
                {"MessageID": "b", "To": COPIES[1].address, "Message": "Message accepted, but delivery may be delayed."},
            ],
        ),
        ("postmark", [{"ErrorCode": 406, "Message": INACTIVE.format(copy.address)} for copy in COPIES[:2]]),
    ],
)
def test_a_reply_means_to_us_what_it_means_to_anymail(name: str, said: object, fake: FakeHttp) -> None:
    fake.reply = lambda _number, _call: Reply(200, json.dumps(said))
    copies = COPIES[:2]
    receipts = provider_of(name, Path(), fake.url).send(ISSUE, replace(PARCEL, copies=copies))
    mail = letter(fake, name, *copies)
    # That everybody is refused is an error there.
    with suppress(AnymailRecipientsRefused):
        mail.send()
    theirs = [
        Receipt(copy.ref, status.status in ("queued", "sent"), status.message_id or "")
        for copy in copies
        for status in [mail.anymail_status.recipients[copy.address]]
    ]
    assert [receipt._replace(reason="") for receipt in receipts] == theirs


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, "not json"),
        Reply(200, "{}"),
        Reply(400, "{}"),
        Reply(401, "{}"),
        Reply(403, ""),
        Reply(422, '{"ErrorCode": 412, "Message": "no"}'),
        Reply(429, "{}"),
        Reply(500, ""),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_reply_that_is_an_error_to_anymail_is_one_to_us(name: str, reply: Reply, fake: FakeHttp) -> None:
    fake.reply = lambda _number, _call: reply
    with pytest.raises(AnymailAPIError):
        letter(fake, name, *COPIES).send()
    with pytest.raises(ProviderError):
        provider_of(name, Path(), fake.url).send(ISSUE, PARCEL)


VIEWS = {
    "mailgun": MailgunTrackingWebhookView.as_view(webhook_signing_key=KEYS["mailgun"]),
    "postmark": PostmarkTrackingWebhookView.as_view(),
    "resend": ResendTrackingWebhookView.as_view(signing_secret=KEYS["resend"]),
}
SAME = {
    Kind.ACCEPTED: {"queued", "sent"},
    Kind.DELIVERED: {"delivered"},
    Kind.SOFT_BOUNCE: {"bounced", "deferred"},
    Kind.HARD_BOUNCE: {"bounced", "rejected"},
    Kind.BLOCKED: {"bounced", "rejected"},
    Kind.COMPLAINED: {"complained"},
    Kind.UNSUBSCRIBED: {"unsubscribed"},
    Kind.OTHER: {"opened", "clicked", "deferred", "autoresponded", "subscribed", "unknown"},
}
# What anymail calls an event, and why we call it something else.
DIFFERENT = {
    ("mailgun", "suppress-complaint"): ("bounced", "it was not delivered since its reader complained before"),
    ("mailgun", "suppress-unsubscribe"): ("bounced", "the same for one who left"),
    ("mailgun", None): ("bounced", "a failure without severity; only one that is called permanent is believed"),
    ("postmark", "SpamNotification"): ("complained", "a filter's word against the mail, not the reader's"),
    ("postmark", "Unknown"): ("unknown", "a bounce all the same"),
    ("postmark", "BounceOfTomorrow"): ("bounced", "we do not know its type"),
    ("resend", "email.suppressed"): ("unknown", "an event that anymail does not know"),
    ("resend", "email.failed"): ("unknown", "the same"),
}


def by_anymail(name: str, post: Post) -> Any:
    """The event that anymail's view makes of a call."""
    heard: list[Any] = []

    def hear(event: Any, **_: Any) -> None:
        heard.append(event)

    tracking.connect(hear)
    try:
        credentials = base64.b64encode(f"friday:{KEYS['postmark']}".encode()).decode()
        headers = {"authorization": f"Basic {credentials}", **post.headers}
        request = RequestFactory().post("/", post.body, content_type="application/json", headers=headers)
        assert VIEWS[name](request).status_code == 200
    finally:
        tracking.disconnect(hear)
    (event,) = heard
    return event


def word_of(name: str, data: dict[str, Any]) -> str | None:
    """The word by which a provider tells its events apart."""
    if name == "mailgun":
        word = data.get("reason") if data["event"] == "failed" else data["event"]
    else:
        word = data["type"] if name == "resend" else data.get("Type", data["RecordType"])
    return None if word is None else str(word)


@pytest.mark.parametrize(
    ("name", "data"),
    [(name, data) for name, rows in (("mailgun", MAILGUN), ("postmark", POSTMARK), ("resend", RESEND)) for data, _ in rows],
)
def test_an_event_is_to_us_what_it_is_to_anymail(name: str, data: dict[str, Any]) -> None:
    # The library behind anymail's view looks at the time itself.
    now = datetime.now(UTC) if name == "resend" else NOW
    post = SIGN[name](data, now)
    theirs = by_anymail(name, post)
    hook = provider_of(name, Path(), secrets={WEBHOOK_KEY: KEYS[name]}).hook
    assert hook is not None
    (notice,) = hook.hear(post.headers, post.body, now)
    (ours,) = hook.read(notice.body)
    known = DIFFERENT.get((name, word_of(name, data)))
    if known:
        assert (theirs.event_type, theirs.event_type in SAME[ours.kind]) == (known[0], False)
    else:
        assert theirs.event_type in SAME[ours.kind]
    assert ours.address == theirs.recipient
    assert ours.provider_id == theirs.message_id
    # Resend gives tags back, anymail looks for a header.
    assert ours.ref == (theirs.metadata["delivery"] if name != "resend" else data["data"]["tags"]["delivery"])
    if name in ("mailgun", "resend"):
        assert notice.key == theirs.event_id


@pytest.mark.parametrize("name", NAMES)
def test_what_is_forged_to_us_fails_anymails_validation(name: str) -> None:
    key = KEYS["resend"].replace("d", "e") if name == "resend" else "another"
    post = SIGN[name]({"event": "delivered"}, datetime.now(UTC), key)
    with pytest.raises(AnymailWebhookValidationFailure):
        by_anymail(name, post)
