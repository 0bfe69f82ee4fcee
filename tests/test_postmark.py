"""Postmark over real HTTP: the shape of a call, what becomes of each answer, and what its search shows."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it brings no types

from pipeline.config import Secrets
from pipeline.errors import AccountRefused, CallRefused, NotProcessed, ProviderError, Unclear
from pipeline.issue import Copy, Receipt, Shown
from pipeline.providers import build_provider
from pipeline.providers.postmark import MOST_BYTES, MOST_COPIES, Postmark
from pipeline.text import wire_address
from tests.fake_http import Call, FakeHttp, Reply, fake_http
from tests.test_providers import COPIES, ISSUE, PARCEL

TEXT = {"type": "string", "minLength": 1}
# Of Postmark's page on batch emails and its limits on tags and metadata.
BATCH = {
    "type": "array",
    "maxItems": 500,
    "items": {
        "type": "object",
        "required": ["From", "To", "Subject", "HtmlBody", "TextBody", "MessageStream"],
        "additionalProperties": False,
        "properties": {
            "From": TEXT,
            "To": {**TEXT, "pattern": r"^[^,\s]+@[A-Za-z0-9.-]+$"},
            "ReplyTo": TEXT,
            "Subject": {**TEXT, "maxLength": 2_000},
            "Tag": {**TEXT, "maxLength": 1_000},
            "HtmlBody": {**TEXT, "maxLength": 5_000_000},
            "TextBody": {**TEXT, "maxLength": 5_000_000},
            "Headers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["Name", "Value"],
                    "additionalProperties": False,
                    "properties": {"Name": {**TEXT, "pattern": r"^[!-9;-~]+$"}, "Value": {**TEXT, "pattern": r"^[ -~]+$"}},
                },
            },
            "TrackOpens": {"type": "boolean"},
            "TrackLinks": {"enum": ["None", "HtmlAndText", "HtmlOnly", "TextOnly"]},
            "Metadata": {
                "type": "object",
                "propertyNames": {"maxLength": 20},
                "additionalProperties": {"type": "string", "maxLength": 80},
            },
            "MessageStream": TEXT,
        },
    },
}
SINCE = datetime(2026, 11, 27, 8, tzinfo=UTC)


@pytest.fixture
def fake() -> Iterator[FakeHttp]:
    with fake_http() as running:
        yield running


def postmark(url: str, **more: object) -> Postmark:
    table = {"name": "postmark", "base_url": url, **more}
    provider, problems = build_provider(table, Secrets({"FRIDAY_PROVIDER_KEY": "t-123"}), Path())
    assert problems == []
    assert isinstance(provider, Postmark)
    return provider


def ok(place: int) -> dict[str, Any]:
    return {"To": "x@example.com", "MessageID": f"id{place}", "ErrorCode": 0, "Message": "OK"}


def bad(code: int, said: str = "no") -> dict[str, Any]:
    return {"ErrorCode": code, "Message": said}


def answer(fake: FakeHttp, *items: object, status: int = 200) -> None:
    fake.reply = lambda _number, _call: Reply(status, json.dumps(items if status == 200 else items[0]))


def test_one_call_carries_every_message_with_the_token_to_the_stream(fake: FakeHttp) -> None:
    postmark(fake.url).send(ISSUE, PARCEL)
    (call,) = fake.calls
    assert (call.method, call.path) == ("POST", "/email/batch")
    assert call.headers["x-postmark-server-token"] == "t-123"
    assert call.headers["content-type"] == call.headers["accept"] == "application/json"
    for copy, each in zip(COPIES, call.json, strict=True):
        assert each["To"] == wire_address(copy.address)
        assert each["Metadata"] == {"delivery": copy.ref}
        assert each["MessageStream"] == "broadcast"
        assert (each["TrackOpens"], each["TrackLinks"], each["Tag"]) == (False, "None", "issue-2026-11-27")
        heads = {head["Name"]: head["Value"] for head in each["Headers"]}
        assert heads["Message-ID"] == f"<{copy.ref}@news.example.com>"
        assert heads["X-PM-KeepID"] == "true"
        assert heads["Date"] == "Fri, 27 Nov 2026 08:00:05 +0000"
        assert heads["List-Id"] == "The Test Five <issues.news.example.com>"
        assert heads["Feedback-ID"].startswith("issue7:2026-11-27:")


def test_a_call_is_what_postmarks_page_takes(fake: FakeHttp) -> None:
    postmark(fake.url, stream="weekly").send(replace(ISSUE, mailbox="box@news.example.com"), PARCEL)
    (call,) = fake.calls
    Draft202012Validator(BATCH).validate(call.json)
    assert {each["MessageStream"] for each in call.json} == {"weekly"}


def test_the_limits_are_postmarks() -> None:
    limits = postmark("https://api.example.com").limits
    assert (limits.copies, limits.size) == (MOST_COPIES, MOST_BYTES) == (500, 50_000_000)
    assert limits.key_lifetime is None
    assert limits.has_log


def test_each_message_has_an_answer_of_its_own(fake: FakeHttp) -> None:
    said = "Found inactive addresses: o'ben+tag@example.com. Inactive recipients have generated a hard bounce."
    answer(fake, ok(1), bad(406, said), bad(300, "Invalid 'To' address: 'cléo@exämple.com'."))
    first, second, third = postmark(fake.url).send(ISSUE, PARCEL)
    assert first == Receipt(COPIES[0].ref, accepted=True, provider_id="id1")
    assert (second.ref, second.accepted, third.ref, third.accepted) == (COPIES[1].ref, False, COPIES[2].ref, False)
    assert second.reason.startswith("Postmark: 406 Found inactive addresses")
    assert "example.com" not in second.reason + third.reason


def test_a_message_that_is_accepted_but_delayed_may_have_no_code(fake: FakeHttp) -> None:
    late = {"To": "x@example.com", "MessageID": "late", "Message": "Message accepted, but delivery may be delayed."}
    answer(fake, ok(1), late, ok(3))
    assert [receipt.provider_id for receipt in postmark(fake.url).send(ISSUE, PARCEL)] == ["id1", "late", "id3"]


@pytest.mark.parametrize("odd", [{}, None, 7, [], {"ErrorCode": "0"}, {"ErrorCode": 0, "Message": "OK"}, bad(405), bad(100)])
def test_of_a_message_without_a_clear_answer_nothing_is_said_where_others_were_taken(fake: FakeHttp, odd: object) -> None:
    answer(fake, ok(1), odd, ok(3))
    assert [receipt.ref for receipt in postmark(fake.url).send(ISSUE, PARCEL)] == [COPIES[0].ref, COPIES[2].ref]


@pytest.mark.parametrize(
    ("items", "error", "says"),
    [
        ([bad(405)] * 3, AccountRefused, "credits"),
        ([bad(406), bad(413), bad(413)], AccountRefused, "may not send"),
        ([bad(400), bad(100), bad(402)], AccountRefused, "newsletter.from"),
        ([bad(1235)] * 3, AccountRefused, "provider.stream"),
        ([bad(100), bad(300, "Invalid 'From' address"), bad(100)], NotProcessed, "maintained"),
        ([bad(300, "Invalid 'From' address")] * 3, CallRefused, "'From'"),
        ([bad(402)] * 3, CallRefused, "402"),
        ([{}, bad(405), bad(405)], Unclear, "codes"),
        ([ok(1)] * 2, Unclear, "each message"),
        ([ok(1)] * 4, Unclear, "each message"),
    ],
)
def test_an_answer_by_which_nothing_was_taken_is_that_of_the_whole_call(
    fake: FakeHttp, items: list[object], error: type[ProviderError], says: str
) -> None:
    answer(fake, *items)
    with pytest.raises(error, match=says) as caught:
        postmark(fake.url).send(ISSUE, PARCEL)
    assert type(caught.value) is error


def test_readers_who_are_refused_alone_are_rejected_even_if_nobody_is_accepted(fake: FakeHttp) -> None:
    answer(fake, *[bad(406)] * 3)
    assert [receipt.accepted for receipt in postmark(fake.url).send(ISSUE, PARCEL)] == [False] * 3
    answer(fake, bad(406), {}, bad(405))
    assert [receipt.accepted for receipt in postmark(fake.url).send(ISSUE, PARCEL)] == [False]


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (Reply(401, json.dumps(bad(10))), AccountRefused, "FRIDAY_PROVIDER_KEY"),
        (Reply(403, "<html>blocked</html>"), AccountRefused, "firewall"),
        (Reply(404, ""), AccountRefused, "provider.base_url"),
        (Reply(413, ""), CallRefused, "too large"),
        (Reply(415, ""), CallRefused, "takes"),
        (Reply(422, json.dumps(bad(412))), AccountRefused, "approval"),
        (Reply(422, json.dumps(bad(1236))), AccountRefused, "provider.stream"),
        (Reply(422, json.dumps(bad(410, "too many"))), CallRefused, "410 too many"),
        (Reply(422, json.dumps(bad(300, "bad: ada@example.com"))), CallRefused, "an address"),
        (Reply(422, json.dumps(bad(100))), NotProcessed, "maintained"),
        (Reply(422, "<html>"), Unclear, "without a code"),
        (Reply(503, json.dumps(bad(100))), NotProcessed, "maintained"),
        (Reply(503, "<html>"), Unclear, "503"),
        (Reply(500, json.dumps(bad(0))), Unclear, "500"),
        (Reply(429, ""), NotProcessed, "wait"),
    ],
)
def test_each_answer_means_one_thing(fake: FakeHttp, reply: Reply, error: type[ProviderError], says: str) -> None:
    fake.reply = lambda _number, _call: reply
    with pytest.raises(error, match=says) as caught:
        postmark(fake.url).send(ISSUE, PARCEL)
    assert type(caught.value) is error
    assert len(fake.calls) == 1
    assert "t-123" not in str(caught.value)


def test_it_waits_as_long_as_it_is_asked_to(fake: FakeHttp) -> None:
    fake.reply = lambda _number, _call: Reply(429, "", {"Retry-After": "7"})
    with pytest.raises(NotProcessed) as caught:
        postmark(fake.url).send(ISSUE, PARCEL)
    assert caught.value.retry_after == timedelta(seconds=7)


class Log:
    """A message search like Postmark's: the newest first, 500 a page, 10,000 at most, Eastern time to the second."""

    def __init__(self, *sent: tuple[datetime, str]) -> None:
        self.sent = sorted(sent, reverse=True)
        self.queries: list[dict[str, str]] = []

    def __call__(self, _number: int, call: Call) -> Reply:
        query = {name: value for name, (value,) in parse_qs(urlsplit(call.path).query).items()}
        self.queries.append(query)
        begin = self._utc(query["fromdate"])
        end = self._utc(query.get("todate", "2027-01-01T00:00:00"))
        found = [(moment, ref) for moment, ref in self.sent if begin <= moment <= end]
        offset, count = int(query["offset"]), int(query["count"])
        assert count <= 500
        assert offset + count <= 10_000
        page = [
            {"MessageID": f"id-{ref[-4:]}", "Tag": query["tag"], "Status": "Sent", "Metadata": {"delivery": ref}}
            for _, ref in found[offset : offset + count]
        ]
        return Reply(200, json.dumps({"TotalCount": len(found), "Messages": page}))

    def _utc(self, eastern: str) -> datetime:
        # Eastern Standard Time all winter.
        return datetime.fromisoformat(eastern).replace(tzinfo=UTC) + timedelta(hours=5)


def copies_of(count: int) -> list[Copy]:
    return [Copy(f"{number:032x}", f"r{number}@example.com", "https://news.example.com/u/t") for number in range(count)]


def test_the_search_shows_which_copies_it_took(fake: FakeHttp) -> None:
    log = Log((SINCE + timedelta(seconds=3), COPIES[0].ref), (SINCE, COPIES[2].ref), (SINCE, "f" * 32))
    fake.reply = log
    shown = postmark(fake.url).look_up(ISSUE, COPIES, SINCE)
    assert shown.whole
    assert sorted(shown.receipts) == [
        Receipt(COPIES[0].ref, accepted=True, provider_id="id-0001"),
        Receipt(COPIES[2].ref, accepted=True, provider_id="id-0003"),
    ]
    (query,) = log.queries
    assert query == {
        "count": "500", "offset": "0", "tag": "issue-2026-11-27", "messagestream": "broadcast",
        "fromdate": "2026-11-27T03:00:00",
    }  # fmt: skip
    assert fake.calls[0].method == "GET"


def test_the_search_is_read_page_by_page_until_everybody_is_found(fake: FakeHttp) -> None:
    copies = copies_of(1_200)
    log = Log(*((SINCE + timedelta(seconds=place), copy.ref) for place, copy in enumerate(copies)))
    fake.reply = log
    assert len(postmark(fake.url).look_up(ISSUE, copies[:3], SINCE).receipts) == 3
    assert [query["offset"] for query in log.queries] == ["0", "500", "1000"]
    log.queries.clear()
    assert len(postmark(fake.url).look_up(ISSUE, copies[-3:], SINCE).receipts) == 3
    assert len(log.queries) == 1


def test_more_than_the_search_shows_is_asked_for_in_windows_of_time(fake: FakeHttp) -> None:
    copies = copies_of(25_000)
    log = Log(*((SINCE + timedelta(seconds=place // 5), copy.ref) for place, copy in enumerate(copies)))
    fake.reply = log
    wanted = [copies[0], copies[12_345], copies[24_999]]
    shown = postmark(fake.url).look_up(ISSUE, wanted, SINCE)
    assert shown.whole
    assert {receipt.ref for receipt in shown.receipts} == {copy.ref for copy in wanted}
    assert len(log.queries) < 80


def test_a_search_without_end_is_given_up(fake: FakeHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.providers.postmark.MOST_PAGES", 5)
    fake.reply = lambda _number, _call: Reply(200, json.dumps({"TotalCount": 10_000, "Messages": [{}]}))
    assert postmark(fake.url).look_up(ISSUE, COPIES, SINCE) == Shown([], whole=False)
    assert len(fake.calls) == 5


def test_more_in_an_instant_than_the_search_shows_is_told(fake: FakeHttp) -> None:
    copies = copies_of(12_000)
    fake.reply = Log(*((SINCE, copy.ref) for copy in copies))
    shown = postmark(fake.url).look_up(ISSUE, COPIES, SINCE)
    assert not shown.whole


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(401, ""), AccountRefused),
        (Reply(429, ""), NotProcessed),
        (Reply(500, ""), Unclear),
        (Reply(200, "not json"), Unclear),
        (Reply(200, '{"TotalCount": "3", "Messages": []}'), Unclear),
        (Reply(200, '{"TotalCount": 3}'), Unclear),
    ],
)
def test_a_search_that_cannot_be_read_now_says_so(fake: FakeHttp, reply: Reply, error: type[ProviderError]) -> None:
    fake.reply = lambda _number, _call: reply
    with pytest.raises(error):
        postmark(fake.url).look_up(ISSUE, COPIES, SINCE)
