"""What providers tell later: whom a hook believes, what it keeps, and what it reads in it."""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Forged
from pipeline.issue import Event, Kind, Notice
from pipeline.providers import WEBHOOK_KEY, Hook
from tests.openapi import validate_event
from tests.test_providers import provider_of
from tests.webhooks import (
    KEYS,
    NOW,
    READER,
    REF,
    SIGN,
    Post,
    mailgun,
    mailgun_event,
    mailgun_failed,
    postmark,
    postmark_bounce,
    postmark_event,
    resend,
    resend_bounce,
    resend_event,
    resend_suppressed,
)

NAMES = sorted(SIGN)
DELIVERED = {
    "mailgun": mailgun_event("delivered"),
    "postmark": postmark_event("Delivery", DeliveredAt="2026-11-27T08:59:00Z", Details="Test"),
    "resend": resend_event("email.delivered"),
}
IDS = {
    "mailgun": "<20261127.1@news.example.com>",
    "postmark": "883953f4-6105-42a2-a16a-77a8eac79483",
    "resend": "56761188-7520-42d8-8898-ff6fc54ce618",
}


def hook_of(name: str, key: str = "") -> Hook:
    hook = provider_of(name, Path(), secrets={WEBHOOK_KEY: key or KEYS[name]}).hook
    assert hook is not None
    return hook


def hear(name: str, post: Post, now: datetime = NOW) -> list[Notice]:
    return hook_of(name).hear(post.headers, post.body, now)


def kind_of(name: str, data: object) -> Kind:
    (notice,) = hear(name, SIGN[name](data))
    (event,) = hook_of(name).read(notice.body)
    return event.kind


@pytest.mark.parametrize("name", NAMES)
def test_a_call_of_the_providers_own_is_kept_as_it_came_and_read_as_an_event(name: str) -> None:
    post = SIGN[name](DELIVERED[name])
    (notice,) = hear(name, post)
    assert notice.body == post.body.decode()
    assert notice.key
    assert READER not in notice.key
    assert hook_of(name).read(notice.body) == [Event(Kind.DELIVERED, REF, READER, IDS[name])]


@pytest.mark.parametrize("name", NAMES)
def test_a_call_signed_with_another_secret_is_forged(name: str) -> None:
    key = KEYS["resend"].replace("d", "e") if name == "resend" else "another"
    with pytest.raises(Forged, match=WEBHOOK_KEY) as caught:
        hear(name, SIGN[name](DELIVERED[name], NOW, key))
    assert KEYS[name] not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_call_again_has_the_same_key_and_another_event_another(name: str) -> None:
    again = SIGN[name](DELIVERED[name], NOW + timedelta(minutes=1))
    other = {
        "mailgun": mailgun(DELIVERED[name], token="b" * 50),
        "postmark": postmark({**DELIVERED[name], "DeliveredAt": "2026-11-27T08:59:01Z"}),
        "resend": resend(DELIVERED[name], own_id="msg_2"),
    }[name]
    (first,), (second,), (third,) = (hear(name, post) for post in (SIGN[name](DELIVERED[name]), again, other))
    assert first.key == second.key
    assert first.key != third.key


@pytest.mark.parametrize("name", ["mailgun", "resend"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_call_signed_too_far_from_now_is_forged(name: str, sign: int) -> None:
    bound = timedelta(hours=24) if name == "mailgun" else timedelta(minutes=5)
    post = SIGN[name](DELIVERED[name])
    assert hear(name, post, NOW + sign * bound)
    with pytest.raises(Forged, match="signed more than"):
        hear(name, post, NOW + sign * (bound + timedelta(seconds=1)))


def broken(name: str) -> dict[str, Post]:
    """Calls of which something is missing or was changed."""
    post = SIGN[name](DELIVERED[name])
    if name == "mailgun":
        said = json.loads(post.body)
        signature = said["signature"]
        changed: dict[str, Any] = {
            "no signature": {**said, "signature": {}},
            "signature of another type": {**said, "signature": [1]},
            "tampered token": {**said, "signature": {**signature, "token": "b" * 50}},
            "tampered time": {**said, "signature": {**signature, "timestamp": str(int(NOW.timestamp()) + 1)}},
            "no token": {**said, "signature": {**signature, "token": ""}},
            "beyond ASCII": {**said, "signature": {**signature, "signature": "ä" * 64}},
            "a list": [said],
            "no event": {"signature": signature},
            "event of another type": {**said, "event-data": [1]},
        }
        return {what: replace(post, body=json.dumps(each).encode()) for what, each in changed.items()} | {
            "a form": replace(post, body=b"event=delivered&timestamp=1795770000&token=a&signature=b"),
            "nothing": replace(post, body=b""),
            "an empty token": mailgun(DELIVERED[name], token=""),
        }
    if name == "postmark":
        heads: dict[str, Mapping[str, str]] = {
            "no password": {},
            "another scheme": {"authorization": "Bearer cGFzczp3b3Jk"},
            "not base64": {"authorization": "Basic ä"},
            "no colon": {"authorization": "Basic " + base64.b64encode(KEYS[name].encode()).decode().replace("=", "")},
            "the user name": {"authorization": "Basic " + base64.b64encode(b"pass:word:x").decode()},
        }
        return {what: replace(post, headers=each) for what, each in heads.items()} | {
            "a list": replace(post, body=b"[]"),
            "nothing": replace(post, body=b""),
        }
    return {
        "tampered body": replace(post, body=post.body.replace(b"delivered", b"bounced")),
        "tampered id": replace(post, headers={**post.headers, "svix-id": "msg_2"}),
        "tampered time": replace(post, headers={**post.headers, "svix-timestamp": str(int(NOW.timestamp()) + 1)}),
        "no time": replace(post, headers={**post.headers, "svix-timestamp": ""}),
        "no number": replace(post, headers={**post.headers, "svix-timestamp": "١٢٣"}),
        "an empty id": resend(DELIVERED[name], own_id=""),
        "no id": replace(post, headers={**post.headers, "svix-id": ""}),
        "no signature": replace(post, headers={**post.headers, "svix-signature": ""}),
        "another version": replace(
            post, headers={**post.headers, "svix-signature": post.headers["svix-signature"].replace("v1,", "v2,")}
        ),
        "beyond ASCII": replace(post, headers={**post.headers, "svix-signature": "v1,ä"}),
        "nothing": replace(post, headers={}, body=b""),
    }


@pytest.mark.parametrize(("name", "what"), [(name, what) for name in NAMES for what in broken(name)])
def test_a_call_that_lacks_something_or_was_changed_is_forged(name: str, what: str) -> None:
    with pytest.raises(Forged):
        hear(name, broken(name)[what])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (postmark_event("Open", ReceivedAt="a"), postmark_event("Open", ReceivedAt="b")),
        (postmark_event("Click", OriginalLink="a"), postmark_event("Click", OriginalLink="b")),
        (
            postmark_event("SubscriptionChange", SuppressSending=True),
            postmark_event("SubscriptionChange", SuppressSending=False),
        ),
        (postmark_bounce("SoftBounce"), postmark_bounce("HardBounce")),
        (postmark_bounce("SpamComplaint"), postmark_bounce("SpamComplaint", "SpamComplaint")),
        (postmark_event("Delivery"), postmark_event("Delivery", Recipient="ben@example.com")),
        (postmark_event("Delivery"), postmark_event("Delivery", MessageID="b")),
    ],
)
def test_what_differs_in_postmarks_events_has_another_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    (first,), (second,) = (hear("postmark", postmark(data)) for data in (one, other))
    assert first.key != second.key


def test_any_user_name_goes_with_postmarks_password() -> None:
    assert hear("postmark", postmark(DELIVERED["postmark"], user=""))
    assert hear("postmark", postmark(DELIVERED["postmark"], user="än yone"))


def test_one_good_signature_among_several_is_enough() -> None:
    post = resend(DELIVERED["resend"])
    old = resend(DELIVERED["resend"], key="whsec_" + base64.b64encode(b"an older secret of ours!").decode())
    both = f"v1a,AAAA {old.headers['svix-signature']} {post.headers['svix-signature']}"
    assert hear("resend", replace(post, headers={**post.headers, "svix-signature": both}))


def test_the_other_library_for_the_same_signature_agrees() -> None:
    body = json.dumps(DELIVERED["resend"])
    signature = standardwebhooks.Webhook(KEYS["resend"]).sign("msg_1", NOW, body)
    assert signature == resend(DELIVERED["resend"]).headers["svix-signature"]


MAILGUN = [
    (mailgun_event("accepted"), Kind.ACCEPTED),
    (mailgun_event("opened"), Kind.OTHER),
    (mailgun_event("clicked", url="https://example.com"), Kind.OTHER),
    (mailgun_event("complained"), Kind.COMPLAINED),
    (mailgun_event("unsubscribed"), Kind.UNSUBSCRIBED),
    (mailgun_event("rejected", reject={"reason": "Sandbox subdomains are for test purposes only"}), Kind.BLOCKED),
    (mailgun_event("of-tomorrow"), Kind.OTHER),
    (mailgun_event("failed"), Kind.OTHER),
    (mailgun_failed("temporary", "generic", 452, "4.2.2 Mailbox full"), Kind.OTHER),
    (mailgun_failed("temporary", "bounce", 550, "5.1.1 No such user"), Kind.OTHER),
    (mailgun_failed("permanent", "suppress-bounce", 605, "Not delivering to previously bounced address"), Kind.HARD_BOUNCE),
    (mailgun_failed("permanent", "suppress-complaint", 607, "Not delivering to a user who complained"), Kind.COMPLAINED),
    (mailgun_failed("permanent", "suppress-unsubscribe", 606, "Not delivering to unsubscribed"), Kind.UNSUBSCRIBED),
    (mailgun_failed("permanent", "bounce", 550, "5.1.1 The email account does not exist"), Kind.HARD_BOUNCE),
    (mailgun_failed("permanent", "bounce", 550, "No such user here"), Kind.HARD_BOUNCE),
    (mailgun_failed("permanent", "generic", 550, "refused", **{"enhanced-code": "5.7.1"}), Kind.BLOCKED),
    (mailgun_failed("permanent", "espblock", 550, "5.1.1 blocked"), Kind.BLOCKED),
    (mailgun_failed("permanent", "bounce", 554, "5.6.0 malformed"), Kind.BLOCKED),
    (mailgun_failed("permanent", "bounce", 552, "5.3.4 Message too big for system"), Kind.BLOCKED),
    (mailgun_failed("permanent", "bounce", 552, "5.2.2 Over quota"), Kind.SOFT_BOUNCE),
    (mailgun_failed("permanent", "generic", 421, "try later"), Kind.SOFT_BOUNCE),
    (mailgun_failed("permanent", "old", 602, "Too old"), Kind.SOFT_BOUNCE),
    (mailgun_event("failed", severity="permanent", reason="generic", **{"delivery-status": None}), Kind.SOFT_BOUNCE),
]


@pytest.mark.parametrize(("data", "kind"), MAILGUN)
def test_what_mailgun_tells(data: dict[str, Any], kind: Kind) -> None:
    assert kind_of("mailgun", data) is kind


POSTMARK = [
    (postmark_bounce("HardBounce"), Kind.HARD_BOUNCE),
    (postmark_bounce("BadEmailAddress"), Kind.HARD_BOUNCE),
    (postmark_bounce("SoftBounce"), Kind.SOFT_BOUNCE),
    (postmark_bounce("Transient"), Kind.SOFT_BOUNCE),
    (postmark_bounce("DnsError"), Kind.SOFT_BOUNCE),
    (postmark_bounce("Unknown"), Kind.SOFT_BOUNCE),
    (postmark_bounce("Blocked"), Kind.BLOCKED),
    (postmark_bounce("DMARCPolicy"), Kind.BLOCKED),
    (postmark_bounce("SpamNotification"), Kind.BLOCKED),
    (postmark_bounce("VirusNotification"), Kind.BLOCKED),
    (postmark_bounce("ManuallyDeactivated"), Kind.BLOCKED),
    (postmark_bounce("AutoResponder"), Kind.OTHER),
    (postmark_bounce("AddressChange"), Kind.OTHER),
    (postmark_bounce("ChallengeVerification"), Kind.OTHER),
    (postmark_bounce("Subscribe"), Kind.OTHER),
    (postmark_bounce("BounceOfTomorrow"), Kind.OTHER),
    (postmark_bounce("Unsubscribe"), Kind.UNSUBSCRIBED),
    (postmark_bounce("SpamComplaint"), Kind.COMPLAINED),
    (postmark_bounce("SpamComplaint", "SpamComplaint"), Kind.COMPLAINED),
    (postmark_event("SubscriptionChange", SuppressSending=True, SuppressionReason="ManualSuppression"), Kind.UNSUBSCRIBED),
    (postmark_event("SubscriptionChange", SuppressSending=True, SuppressionReason=None), Kind.UNSUBSCRIBED),
    (postmark_event("SubscriptionChange", SuppressSending=True, SuppressionReason="HardBounce"), Kind.HARD_BOUNCE),
    (postmark_event("SubscriptionChange", SuppressSending=True, SuppressionReason="SpamComplaint"), Kind.COMPLAINED),
    (postmark_event("SubscriptionChange", SuppressSending=False, SuppressionReason=None), Kind.OTHER),
    (postmark_event("Open"), Kind.OTHER),
    (postmark_event("Click"), Kind.OTHER),
    (postmark_event("OfTomorrow"), Kind.OTHER),
]


@pytest.mark.parametrize(("data", "kind"), POSTMARK)
def test_what_postmark_tells(data: dict[str, Any], kind: Kind) -> None:
    assert kind_of("postmark", data) is kind


RESEND = [
    (resend_event("email.sent"), Kind.ACCEPTED),
    (resend_event("email.scheduled"), Kind.OTHER),
    (resend_event("email.delivery_delayed"), Kind.OTHER),
    (resend_event("email.complained"), Kind.COMPLAINED),
    (resend_event("email.opened"), Kind.OTHER),
    (resend_event("email.failed", failed={"reason": "reached_daily_quota"}), Kind.BLOCKED),
    (resend_suppressed("previous_bounce"), Kind.HARD_BOUNCE),
    (resend_suppressed("previous_complaint"), Kind.COMPLAINED),
    (resend_bounce("Permanent", "General", "smtp; 550 5.1.1 user unknown"), Kind.HARD_BOUNCE),
    (resend_bounce("Permanent", "NoEmail"), Kind.HARD_BOUNCE),
    (resend_bounce("Permanent", "General", "smtp; 550 5.7.1 rejected by policy"), Kind.BLOCKED),
    (resend_bounce("Permanent", "General", "smtp; 552 Message size exceeds fixed limit"), Kind.BLOCKED),
    (resend_bounce("Transient", "MailboxFull"), Kind.SOFT_BOUNCE),
    (resend_bounce("Transient", "General"), Kind.SOFT_BOUNCE),
    (resend_bounce("Transient", "MessageTooLarge"), Kind.BLOCKED),
    (resend_bounce("Transient", "ContentRejected"), Kind.BLOCKED),
    (resend_bounce("Undetermined", "Undetermined"), Kind.SOFT_BOUNCE),
]


@pytest.mark.parametrize(("data", "kind"), RESEND)
def test_what_resend_tells(data: dict[str, Any], kind: Kind) -> None:
    assert kind_of("resend", data) is kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (resend_event("contact.updated"), Kind.OTHER),
        (resend_event("email.of_tomorrow"), Kind.OTHER),
        (resend_event("email.bounced", bounce={"message": "older ones say no more"}), Kind.SOFT_BOUNCE),
        (resend_event("email.bounced"), Kind.SOFT_BOUNCE),
    ],
)
def test_what_resends_document_does_not_hold_is_no_surprise(data: dict[str, Any], kind: Kind) -> None:
    assert kind_of("resend", data) is kind


@pytest.mark.parametrize("data", [data for data, _ in RESEND if data["type"] != "email.opened"])
def test_the_events_of_these_tests_are_those_of_resends_own_document(data: dict[str, Any]) -> None:
    validate_event("resend/resend.yaml", data["type"], json.dumps(data).encode())


def test_resends_tags_may_be_a_list_as_they_were() -> None:
    data = resend_event("email.delivered", tags=[{"name": "a", "value": "b"}, {"name": "delivery", "value": REF}])
    (event,) = hook_of("resend").read(json.dumps(data))
    assert event.ref == REF


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        (
            "mailgun",
            mailgun_failed("permanent", "bounce", 550, f"5.1.1 {READER} unknown"),
            "bounce 550 5.1.1 an address unknown",
        ),
        ("postmark", postmark_bounce("HardBounce"), "HardBounce: The server was unable to deliver your message: Test bounce"),
        ("resend", resend_bounce("Permanent", "NoEmail"), "NoEmail The mail bounced."),
        ("resend", resend_suppressed("previous_bounce"), "previous_bounce It is suppressed."),
    ],
)
def test_a_bounce_says_why_and_names_nobody(name: str, data: dict[str, Any], says: str) -> None:
    (event,) = hook_of(name).read(SIGN[name](data).body.decode())
    assert event.reason.startswith(says)
    assert READER not in event.reason


def test_mailgun_names_the_reader_of_what_it_rejected_in_the_header() -> None:
    data = mailgun_event("rejected", reject={"reason": "Untrusted", "description": ""})
    del data["recipient"]
    (event,) = hook_of("mailgun").read(mailgun(data).body.decode())
    assert (event.address, event.reason) == (READER, "Untrusted")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda each: (
        st.lists(each, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), each, max_size=4)
    ),
    max_leaves=12,
)


def twisted(data: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An event some of whose values are anything."""
    return st.dictionaries(st.sampled_from(sorted(data)), JSON, max_size=3).map(lambda odd: {**data, **odd})


def is_read_or_refused(hook: Hook, post: Post) -> None:
    try:
        notices = hook.hear(post.headers, post.body, NOW)
    except Forged:
        return
    for notice in notices:
        for event in hook.read(notice.body):
            assert event.kind in Kind
            assert all(each.isprintable() for each in (event.ref, event.address, event.provider_id, event.reason))


@settings(deadline=None, database=None, max_examples=60)
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_whatever_a_provider_signs_is_read_or_refused(name: str, data: st.DataObject) -> None:
    whole = {
        "mailgun": [mailgun_failed("permanent", "bounce", 550, "no")],
        "postmark": [postmark_bounce("HardBounce"), postmark_event("SubscriptionChange", SuppressSending=True)],
        "resend": [resend_bounce("Permanent", "General", "no"), resend_bounce("Permanent")["data"]],
    }[name]
    event = data.draw(st.one_of(*[twisted(each) for each in whole]))
    if name == "resend" and "type" not in event:
        event = {"type": "email.bounced", "data": event}
    is_read_or_refused(hook_of(name), SIGN[name](event if data.draw(st.booleans()) else data.draw(JSON)))


@settings(deadline=None, database=None, max_examples=60)
@pytest.mark.parametrize("name", NAMES)
@given(
    body=st.binary(max_size=200) | JSON.map(lambda each: json.dumps(each).encode()),
    headers=st.dictionaries(
        st.sampled_from(["svix-id", "svix-timestamp", "svix-signature", "authorization", "content-type"]), st.text(max_size=60)
    ),
)
def test_whatever_a_stranger_posts_is_forged(name: str, body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(Forged):
        hook_of(name).hear(headers, body, NOW)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, database=None)
@given(body=st.text(max_size=200) | JSON.map(json.dumps))
def test_whatever_was_kept_is_read_or_a_value_error(name: str, body: str) -> None:
    try:
        events = hook_of(name).read(body)
    except ValueError:
        return
    assert [type(event) for event in events] == [Event]
