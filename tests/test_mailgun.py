"""Mailgun over real HTTP: the shape of a call, and what becomes of each kind of answer."""

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from openapi_core.exceptions import OpenAPIError

from pipeline.config import Secrets
from pipeline.errors import AccountRefused, CallRefused, NotProcessed, ProviderError, Unclear
from pipeline.issue import Receipt, Shown
from pipeline.providers import build_provider
from pipeline.providers.mailgun import HOSTS, MOST_COPIES, Mailgun
from pipeline.text import wire_address
from tests.fake_http import Call, FakeHttp, Reply, fake_http
from tests.openapi import validate_call
from tests.test_providers import COPIES, ISSUE, PARCEL

SPEC = "mailgun/openapi.yaml"


@pytest.fixture
def fake() -> Iterator[FakeHttp]:
    with fake_http() as running:
        yield running


def mailgun(url: str) -> Mailgun:
    table = {"name": "mailgun", "domain": "news.example.com", "base_url": url}
    provider, problems = build_provider(table, Secrets({"FRIDAY_PROVIDER_KEY": "k-123"}), Path())
    assert problems == []
    assert isinstance(provider, Mailgun)
    return provider


def test_one_call_carries_every_copy_under_the_domain_and_the_key(fake: FakeHttp) -> None:
    mailgun(fake.url).send(ISSUE, PARCEL)
    (call,) = fake.calls
    assert call.path == "/v3/news.example.com/messages"
    assert call.headers["authorization"] == "Basic " + base64.b64encode(b"api:k-123").decode()
    assert call.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert call.all("to") == [wire_address(copy.address) for copy in COPIES]


def test_no_reader_sees_another_since_each_has_variables(fake: FakeHttp) -> None:
    mailgun(fake.url).send(ISSUE, PARCEL)
    (call,) = fake.calls
    assert set(call.variables) == set(call.all("to"))
    assert len({frozenset(own) for own in call.variables.values()}) == 1


def test_a_call_holds_no_value_twice_unless_html_needs_it_escaped_and_no_way_out_by_mail_without_a_box(fake: FakeHttp) -> None:
    bare = {"ref", "address", "unsubscribe_url"}
    for box, copies, more in (
        ("", COPIES[:1], set()),
        ("leave@news.example.com", COPIES[:1], {"unsubscribe_mail"}),
        ("", COPIES, {"html_address"}),
    ):
        mailgun(fake.url).send(replace(ISSUE, mailbox=box), replace(PARCEL, copies=copies))
        assert {frozenset(own) for own in fake.calls[-1].variables.values()} == {frozenset(bare | more)}
        printed = set(re.findall(r"%recipient\.(\w+)%", fake.calls[-1].one("html")))
        assert printed == {"html_address" if more == {"html_address"} else "address", "unsubscribe_url"}


def test_the_delivery_is_named_to_mailgun_by_its_ref_alone(fake: FakeHttp) -> None:
    mailgun(fake.url).send(ISSUE, PARCEL)
    (call,) = fake.calls
    assert call.copy_for(COPIES[0].address)["v:delivery"] == COPIES[0].ref
    assert call.one("o:tag") == "issue-2026-11-27"
    assert call.one("o:tracking") == "no"


def test_the_limit_is_a_thousand_copies(fake: FakeHttp) -> None:
    assert mailgun(fake.url).limits.copies == MOST_COPIES == 1_000
    assert mailgun(fake.url).limits.key_lifetime is None


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(401, "Forbidden"), AccountRefused),
        (Reply(403, '{"message": "not allowed to send large batches yet"}'), AccountRefused),
        (Reply(404, '{"message": "Domain not found: news.example.com"}'), AccountRefused),
        (Reply(400, '{"message": "Free accounts are for test purposes only"}'), AccountRefused),
        (Reply(400, '{"message": "to parameter is not a valid address"}'), CallRefused),
        (Reply(413, "too large"), CallRefused),
        (Reply(429, '{"message": "limit exceeded"}'), NotProcessed),
        (Reply(500, "oops"), Unclear),
        (Reply(502, "<html>bad gateway</html>"), Unclear),
        (Reply(302, "", {"Location": "https://elsewhere.example/"}), Unclear),
        (Reply(200, "not json"), Unclear),
        (Reply(200, '{"message": "Queued"}'), Unclear),
        (Reply(200, "Mailgun Magnificent API"), AccountRefused),
        (Reply(drop=True), Unclear),
    ],
)
def test_each_answer_means_one_thing(fake: FakeHttp, reply: Reply, error: type[ProviderError]) -> None:
    fake.reply = lambda _number, _call: reply
    with pytest.raises(error) as caught:
        mailgun(fake.url).send(ISSUE, PARCEL)
    assert type(caught.value) is error
    assert len(fake.calls) == 1


def test_nobody_listening_is_surely_not_processed() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(NotProcessed):
        mailgun(f"http://127.0.0.1:{port}").send(ISSUE, PARCEL)


def test_no_answer_in_time_is_unclear(fake: FakeHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    fake.reply = lambda _number, _call: Reply() if answer.wait(60) else Reply(500)
    monkeypatch.setattr("pipeline.wire.READ_SECONDS", 0.1)
    try:
        with pytest.raises(Unclear):
            mailgun(fake.url).send(ISSUE, PARCEL)
    finally:
        answer.set()


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("account-requests-per-sec limit exceeded, try again after 120 seconds", timedelta(seconds=120)),
        ("message limit exceeded, try again after Fri, 27 Nov 2026 08:01:30 UTC", timedelta(seconds=90)),
        ("limit exceeded", None),
    ],
)
def test_both_of_its_ways_to_ask_for_patience_are_understood(fake: FakeHttp, said: str, wait: timedelta | None) -> None:
    fake.reply = lambda _number, _call: Reply(429, f'{{"message": "{said}"}}', {"Date": "Fri, 27 Nov 2026 08:00:00 GMT"})
    with pytest.raises(NotProcessed) as caught:
        mailgun(fake.url).send(ISSUE, PARCEL)
    assert caught.value.retry_after == wait


def test_neither_key_nor_addresses_reach_a_message(fake: FakeHttp) -> None:
    fake.reply = lambda _number, _call: Reply(400, '{"message": "\'ada@example.com\' is not a valid address"}')
    with pytest.raises(CallRefused) as caught:
        mailgun(fake.url).send(ISSUE, PARCEL)
    assert "example.com" not in str(caught.value)
    assert "k-123" not in repr(mailgun(fake.url)) + str(caught.value)


def test_a_call_is_valid_by_mailguns_own_document(fake: FakeHttp) -> None:
    mailgun(fake.url).send(ISSUE, PARCEL)
    (call,) = fake.calls
    validate_call(SPEC, HOSTS["us"], call)
    broken = replace(call, body=call.body.replace(b'name="from"', b'name="sender"'))
    with pytest.raises(OpenAPIError):
        validate_call(SPEC, HOSTS["us"], broken)


def entry(ref: str, place: int, **more: object) -> dict[str, object]:
    return {
        "id": f"e{place}", "event": "accepted", "@timestamp": "2026-11-27T08:00:05.5Z", "domain": {"name": "news.example.com"},
        "recipient": "x@example.com", "user-variables": json.dumps({"delivery": ref}),
        "message": {"headers": {"message-id": f"{place}@news.example.com"}}, **more,
    }  # fmt: skip


class Log:
    """Mailgun's log: a hundred entries a page, a token to the next."""

    def __init__(self, *entries: dict[str, object]) -> None:
        self.entries = entries
        self.asked: list[Any] = []

    def __call__(self, _number: int, call: Call) -> Reply:
        self.asked.append(call.json)
        begin = int(call.json["pagination"].get("token", "0"))
        page = self.entries[begin : begin + 100]
        more = {"next": str(begin + 100)} if begin + 100 < len(self.entries) else {}
        return Reply(200, json.dumps({"start": "", "end": "", "items": page, "pagination": more}))


def test_the_log_shows_which_copies_it_took(fake: FakeHttp) -> None:
    log = Log(
        entry(COPIES[2].ref, 1), entry("f" * 32, 2), entry(COPIES[0].ref, 3, **{"user-variables": {"delivery": COPIES[0].ref}})
    )
    fake.reply = log
    assert mailgun(fake.url).look_up(ISSUE, COPIES, PARCEL.dated).receipts == [
        Receipt(COPIES[2].ref, accepted=True, provider_id="<1@news.example.com>"),
        Receipt(COPIES[0].ref, accepted=True, provider_id="<3@news.example.com>"),
    ]
    (call,) = fake.calls
    assert call.path == "/v1/analytics/logs"
    assert call.headers["authorization"].startswith("Basic ")
    assert call.json == {
        "start": "Fri, 27 Nov 2026 08:00:05 +0000", "events": ["accepted"],
        "pagination": {"sort": "timestamp:asc", "limit": 100},
        "filter": {"AND": [
            {"attribute": "domain", "comparator": "=", "values": [{"label": "news.example.com", "value": "news.example.com"}]},
        ]},
    }  # fmt: skip
    validate_call(SPEC, HOSTS["us"], call)


def test_the_log_is_read_page_by_page_until_everybody_is_found(fake: FakeHttp) -> None:
    log = Log(*(entry(f"{place:032x}", place) for place in range(350)))
    fake.reply = log
    copies = [COPIES[0]._replace(ref=f"{place:032x}") for place in (5, 205)]
    assert len(mailgun(fake.url).look_up(ISSUE, copies, PARCEL.dated).receipts) == 2
    assert [asked["pagination"].get("token") for asked in log.asked] == [None, "100", "200"]
    validate_call(SPEC, HOSTS["us"], fake.calls[-1])
    log.asked.clear()
    copies.append(COPIES[0]._replace(ref="f" * 32))
    assert len(mailgun(fake.url).look_up(ISSUE, copies, PARCEL.dated).receipts) == 2
    assert len(log.asked) == 4


@pytest.mark.parametrize(("entries", "token"), [(99, "on"), (100, ""), (100, None)])
def test_a_page_that_is_not_full_or_has_no_next_is_the_last(fake: FakeHttp, entries: int, token: str | None) -> None:
    said = json.dumps({"items": [{}] * entries, "pagination": {"next": token}})
    fake.reply = lambda _number, _call: Reply(200, said)
    assert mailgun(fake.url).look_up(ISSUE, COPIES, PARCEL.dated) == Shown([])
    assert len(fake.calls) == 1


def test_a_log_without_end_is_given_up(fake: FakeHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.providers.mailgun.MOST_PAGES", 3)
    said = json.dumps({"items": [{}] * 100, "pagination": {"next": "on"}})
    fake.reply = lambda _number, _call: Reply(200, said)
    assert mailgun(fake.url).look_up(ISSUE, COPIES, PARCEL.dated) == Shown([], whole=False)
    assert len(fake.calls) == 3


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(401, "Forbidden"), AccountRefused),
        (Reply(429, "{}"), NotProcessed),
        (Reply(500, ""), Unclear),
        (Reply(200, "not json"), Unclear),
        (Reply(200, '{"items": {}}'), Unclear),
    ],
)
def test_a_log_that_cannot_be_read_now_says_so(fake: FakeHttp, reply: Reply, error: type[ProviderError]) -> None:
    fake.reply = lambda _number, _call: reply
    with pytest.raises(error):
        mailgun(fake.url).look_up(ISSUE, COPIES, PARCEL.dated)
