"""Resend over real HTTP: the shape of a call, its key, and what becomes of each kind of answer."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from openapi_core.exceptions import OpenAPIError

from pipeline.config import Secrets
from pipeline.errors import AccountRefused, CallRefused, NotProcessed, ProviderError, Unclear
from pipeline.issue import Receipt
from pipeline.providers import build_provider
from pipeline.providers.resend import Resend
from pipeline.text import wire_address
from tests.fake_http import FakeHttp, Reply, fake_http
from tests.openapi import validate_call
from tests.test_providers import COPIES, ISSUE, PARCEL


@pytest.fixture
def fake() -> Iterator[FakeHttp]:
    with fake_http() as running:
        yield running


def resend(url: str) -> Resend:
    provider, problems = build_provider({"name": "resend", "base_url": url}, Secrets({"FRIDAY_PROVIDER_KEY": "re_123"}), Path())
    assert problems == []
    assert isinstance(provider, Resend)
    return provider


def refused(status: int, name: str, message: str = "no", **headers: str) -> Reply:
    heads = {each.replace("_", "-"): value for each, value in headers.items()}
    return Reply(status, json.dumps({"statusCode": status, "name": name, "message": message}), heads)


def test_one_call_carries_every_message_under_the_key_of_the_parcel(fake: FakeHttp) -> None:
    receipts = resend(fake.url).send(ISSUE, PARCEL)
    (call,) = fake.calls
    assert (call.method, call.path) == ("POST", "/emails/batch")
    assert call.headers["authorization"] == "Bearer re_123"
    assert call.headers["idempotency-key"] == PARCEL.key
    assert call.headers["x-batch-validation"] == "strict"
    assert call.headers["user-agent"] == "friday"
    for copy, each in zip(COPIES, call.json, strict=True):
        assert each["to"] == [wire_address(copy.address)]
        assert each["tags"] == [{"name": "delivery", "value": copy.ref}]
        assert each["headers"]["List-Unsubscribe"] == f"<{copy.unsubscribe_url}>"
        assert each["headers"]["List-Id"] == "The Test Five <issues.news.example.com>"
    assert receipts[1] == Receipt(COPIES[1].ref, accepted=True, provider_id="00000001-0000-4000-8000-000000000001")


def test_a_call_is_valid_by_resends_own_document(fake: FakeHttp) -> None:
    resend(fake.url).send(replace(ISSUE, mailbox="box@news.example.com"), PARCEL)
    (call,) = fake.calls
    validate_call("resend/resend.yaml", "https://api.resend.com", call)
    broken = replace(call, body=call.body.replace(b'"subject"', b'"topic"'))
    with pytest.raises(OpenAPIError):
        validate_call("resend/resend.yaml", "https://api.resend.com", broken)


def test_the_limits_are_resends() -> None:
    limits = resend("https://api.example.com").limits
    assert (limits.copies, limits.per_second, limits.key_lifetime) == (100, 10, timedelta(hours=24))
    assert not limits.has_log


def test_under_the_same_key_the_same_receipts_come_again(fake: FakeHttp) -> None:
    provider = resend(fake.url)
    assert provider.send(ISSUE, PARCEL) == provider.send(ISSUE, PARCEL)
    assert len(fake.accepted) == 1


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (refused(400, "validation_error", "bad: ada@example.com"), CallRefused, "bad: an address"),
        (refused(400, "invalid_idempotency_key"), AccountRefused, "bug"),
        (refused(401, "missing_api_key"), AccountRefused, "FRIDAY_PROVIDER_KEY"),
        (refused(401, "restricted_api_key"), AccountRefused, "FRIDAY_PROVIDER_KEY"),
        (refused(403, "validation_error", "The domain is not verified"), AccountRefused, "not verified.*newsletter.from"),
        (refused(403, "suspended_api_key"), AccountRefused, "suspended_api_key"),
        (refused(404, "not_found"), AccountRefused, "provider.base_url"),
        (refused(405, "method_not_allowed"), AccountRefused, "provider.base_url"),
        (refused(409, "concurrent_idempotent_requests"), Unclear, "still at work"),
        (refused(409, "resource_locked"), Unclear, "still at work"),
        (refused(409, "invalid_idempotent_request"), AccountRefused, "other bytes"),
        (refused(409, "of_tomorrow"), Unclear, "409"),
        (refused(413, ""), CallRefused, "413"),
        (refused(422, "invalid_parameter"), CallRefused, "invalid_parameter"),
        (refused(422, "missing_required_field"), CallRefused, "missing_required_field"),
        (refused(429, "rate_limit_exceeded"), NotProcessed, "wait"),
        (refused(429, "daily_quota_exceeded"), AccountRefused, "tomorrow"),
        (refused(429, "monthly_quota_exceeded"), AccountRefused, "plan"),
        (refused(500, "application_error"), Unclear, "500"),
        (refused(503, "service_unavailable"), Unclear, "503"),
        (Reply(429, "<html>"), NotProcessed, "wait"),
        (Reply(200, json.dumps({"data": [{"id": "a"}] * 3, "errors": [{"index": 0}]})), Unclear, "each message"),
        (Reply(200, json.dumps({"data": [{"id": "a"}] * 2})), Unclear, "each message"),
        (Reply(200, json.dumps({"data": [{"id": "a"}] * 2 + [{}]})), Unclear, "each message"),
    ],
)
def test_each_answer_means_one_thing(fake: FakeHttp, reply: Reply, error: type[ProviderError], says: str) -> None:
    fake.reply = lambda _number, _call: reply
    with pytest.raises(error, match=says) as caught:
        resend(fake.url).send(ISSUE, PARCEL)
    assert type(caught.value) is error
    assert len(fake.calls) == 1
    assert "re_123" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (refused(429, "rate_limit_exceeded", retry_after="3", ratelimit_reset="1"), 3),
        (refused(429, "rate_limit_exceeded", ratelimit_reset="2"), 2),
        (refused(429, "rate_limit_exceeded", ratelimit_reset="soon"), None),
    ],
)
def test_it_waits_as_long_as_it_is_asked_to(fake: FakeHttp, reply: Reply, seconds: int | None) -> None:
    fake.reply = lambda _number, _call: reply
    with pytest.raises(NotProcessed) as caught:
        resend(fake.url).send(ISSUE, PARCEL)
    assert caught.value.retry_after == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize("secret", ["whsec_", "whsec_???", "whsec_ä"])
def test_a_webhook_secret_that_is_none_is_named(secret: str) -> None:
    secrets = Secrets({"FRIDAY_PROVIDER_KEY": "re_123", "FRIDAY_WEBHOOK_KEY": secret})
    provider, problems = build_provider({"name": "resend"}, secrets, Path())
    assert provider is None
    assert [problem.where for problem in problems] == ["FRIDAY_WEBHOOK_KEY"]
    assert "???" not in str(problems)
