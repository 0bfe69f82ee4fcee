"""The fake of the providers: what it takes, refuses and does wrong is what they document; their documents judge it."""

import json
import smtplib
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
import requests
from openapi_core.exceptions import OpenAPIError

from pipeline.config import Secrets
from pipeline.providers import build_provider, names
from tests import specs
from tests.fake_api import FakeApi, Taken, running
from tests.fake_api.faults import Fault, Plan, read_rates
from tests.test_providers import COPIES, ISSUE, PARCEL

READERS = [(f"reader{number}@example.com", f"{number:032x}") for number in range(3)]


@dataclass(frozen=True)
class Ask:
    """A call as a client of one provider makes it."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    more: Mapping[str, str] = field(default_factory=dict)

    def send(self, fake: FakeApi, **more: str) -> requests.Response:
        return requests.post(fake.url + self.path, self.body, headers={**self.headers, **more}, timeout=60)


def to_mailgun(readers: Sequence[tuple[str, str]], **more: str | None) -> Ask:
    variables = {address: {"ref": ref} for address, ref in readers}
    fields: dict[str, Any] = {
        "from": "friday@news.example.com", "subject": "Five", "html": "<p>Hi</p>", "text": "Hi", "o:tag": "issue-2026-11-27",
        "recipient-variables": json.dumps(variables), "v:delivery": "%recipient.ref%", **more,
    }  # fmt: skip
    files = [(name, (None, value)) for name, value in fields.items() if value is not None]
    files += [("to", (None, address)) for address, _ in readers]
    made = requests.Request("POST", "http://x/v3/news.example.com/messages", files=files, auth=("api", "k")).prepare()
    assert isinstance(made.body, bytes)
    return Ask("/v3/news.example.com/messages", dict(made.headers), made.body)


def to_postmark(readers: Sequence[tuple[str, str]], **more: object) -> Ask:
    messages = [
        {
            "From": "friday@news.example.com", "To": address, "Subject": "Five", "HtmlBody": "<p>Hi</p>", "TextBody": "Hi",
            "Metadata": {"d": ref}, "Tag": "issue-2026-11-27", "MessageStream": "broadcast", **more,
        }
        for address, ref in readers
    ]  # fmt: skip
    headers = {"X-Postmark-Server-Token": "k", "Accept": "application/json", "Content-Type": "application/json"}
    return Ask("/email/batch", headers, json.dumps(messages).encode())


def to_resend(readers: Sequence[tuple[str, str]], **more: object) -> Ask:
    messages = [
        {
            "from": "friday@news.example.com", "to": [address], "subject": "Five", "html": "<p>Hi</p>", "text": "Hi",
            "tags": [{"name": "delivery", "value": ref}], **more,
        }
        for address, ref in readers
    ]  # fmt: skip
    headers = {"Authorization": "Bearer k", "Content-Type": "application/json", "User-Agent": "friday"}
    return Ask("/emails/batch", headers, json.dumps(messages).encode())


MAKERS: dict[str, Callable[..., Ask]] = {"mailgun": to_mailgun, "postmark": to_postmark, "resend": to_resend}
every_provider = pytest.mark.parametrize("provider", MAKERS)


@pytest.fixture(scope="module")
def process() -> Iterator[FakeApi]:
    with running("--keep") as started:
        yield started


@pytest.fixture
def fake(process: FakeApi) -> FakeApi:
    process.reset()
    return process


@every_provider
def test_every_copy_is_counted_by_reader_and_reference(fake: FakeApi, provider: str) -> None:
    answer = MAKERS[provider](READERS).send(fake)
    assert answer.status_code == 200
    assert fake.accepted() == [Taken(address, ref, 1) for address, ref in READERS]
    assert fake.count() == 3
    (call,) = fake.calls()
    assert (call["provider"], call["fault"], call["status"], call["copies"]) == (provider, None, 200, 3)


def test_each_answers_in_its_own_shape(fake: FakeApi) -> None:
    assert set(to_mailgun(READERS).send(fake).json()) == {"id", "message"}
    items = to_postmark(READERS).send(fake).json()
    assert [(item["To"], item["ErrorCode"]) for item in items] == [(address, 0) for address, _ in READERS]
    assert len({each["id"] for each in to_resend(READERS).send(fake).json()["data"]}) == 3


@every_provider
def test_copies_that_are_only_counted_are_as_many(provider: str) -> None:
    with running("--count") as counting:
        assert MAKERS[provider](READERS).send(counting).status_code == 200
        assert counting.count() == 3
        assert counting.accepted() == []


@pytest.mark.parametrize("provider", [name for name in MAKERS if specs.has_document(name)])
@pytest.mark.parametrize("fault", [None, Fault.LIMIT, Fault.BEFORE, Fault.AFTER, Fault.UNAUTHORISED])
def test_calls_and_answers_are_valid_by_the_providers_own_document(fake: FakeApi, provider: str, fault: Fault | None) -> None:
    if fault:
        fake.script({1: fault})
    answer = MAKERS[provider](READERS).send(fake)
    (exchange,) = fake.exchanges()
    if answer.status_code == 200 or provider == "mailgun":
        specs.judge(provider, exchange)
    else:
        # Resend's document declares no answer but 200.
        specs.judge_request(provider, exchange)


def test_a_judge_finds_what_is_wrong(fake: FakeApi) -> None:
    to_mailgun(READERS, subject="Five", **{"o:tracking": "perhaps"}).send(fake)
    with pytest.raises(OpenAPIError):
        specs.judge_request("mailgun", fake.exchanges()[0])
    fake.script({2: Fault.MISCOUNTED})
    to_mailgun(READERS).send(fake)
    with pytest.raises(OpenAPIError, match="id"):
        specs.judge("mailgun", fake.exchanges()[1])


TAKEN = {Fault.LOST, Fault.SLOW, Fault.AFTER, Fault.GARBLED, Fault.MISCOUNTED}


@every_provider
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in (Fault.HELD, Fault.PARTIAL)])
def test_a_fault_strikes_one_call_before_or_after_it_is_taken(fake: FakeApi, provider: str, fault: Fault) -> None:
    fake.script({1: fault}, slow=0.01)
    ask = MAKERS[provider](READERS)
    if fault in (Fault.LOST, Fault.RESET):
        with pytest.raises(requests.ConnectionError):
            ask.send(fake)
    else:
        answer = ask.send(fake)
        status = {Fault.LIMIT: 429, Fault.BEFORE: 500, Fault.AFTER: 500, Fault.UNAUTHORISED: 401}
        assert answer.status_code == status.get(fault, 200)
        if fault is Fault.GARBLED:
            with pytest.raises(ValueError, match="line 1"):
                answer.json()
    assert fake.count() == (3 if fault in TAKEN else 0)
    assert ask.send(fake).status_code == 200


@every_provider
def test_a_held_answer_comes_when_it_is_released(fake: FakeApi, provider: str) -> None:
    fake.script({1: Fault.HELD})
    answers: list[int] = []
    client = threading.Thread(target=lambda: answers.append(MAKERS[provider](READERS).send(fake).status_code))
    client.start()
    while not fake.held():
        pass
    assert (answers, fake.count()) == ([], 3)
    fake.release()
    client.join()
    assert answers == [200]


def test_each_asks_for_patience_in_its_own_manner(fake: FakeApi) -> None:
    fake.script(dict.fromkeys(range(1, 5), Fault.LIMIT), patience=7)
    assert "try again after 7 seconds" in to_mailgun(READERS).send(fake).json()["message"]
    assert "GMT" in to_mailgun(READERS).send(fake).json()["message"]
    assert to_resend(READERS).send(fake).headers["retry-after"] == "7"
    assert "retry-after" not in to_postmark(READERS).send(fake).headers


@pytest.mark.parametrize(("provider", "status"), [("mailgun", 400), ("resend", 422)])
def test_one_bad_address_refuses_a_whole_call(fake: FakeApi, provider: str, status: int) -> None:
    fake.script(bad=[READERS[1][0]])
    assert MAKERS[provider](READERS).send(fake).status_code == status
    assert MAKERS[provider]([READERS[0], READERS[2]]).send(fake).status_code == 200
    assert [each.address for each in fake.accepted()] == [READERS[0][0], READERS[2][0]]


def test_where_each_copy_is_answered_for_a_bad_address_refuses_itself_alone(fake: FakeApi) -> None:
    fake.script(bad=[READERS[1][0]])
    answer = to_postmark(READERS).send(fake)
    assert [item["ErrorCode"] for item in answer.json()] == [0, 406, 0]
    assert [each.address for each in fake.refused()] == [READERS[1][0]]
    assert fake.count() == 2


def test_a_partial_refusal_refuses_every_fifth_copy(fake: FakeApi) -> None:
    fake.script({1: Fault.PARTIAL})
    readers = [(f"reader{number}@example.com", f"{number:032x}") for number in range(10)]
    answer = to_postmark(readers).send(fake)
    assert [place for place, item in enumerate(answer.json()) if item["ErrorCode"]] == [4, 9]


@every_provider
def test_nobody_is_served_without_a_key(fake: FakeApi, provider: str) -> None:
    ask = MAKERS[provider](READERS)
    answer = ask.send(fake, **{"Authorization": "", "X-Postmark-Server-Token": ""})
    assert (answer.status_code, fake.count()) == (401, 0)


@pytest.mark.parametrize(
    ("provider", "most", "status"), [("mailgun", 1_000, 400), ("postmark", 500, 422), ("resend", 100, 422)]
)
def test_a_call_holds_no_more_than_documented(fake: FakeApi, provider: str, most: int, status: int) -> None:
    readers = [(f"reader{number}@example.com", f"{number:032x}") for number in range(most + 1)]
    assert MAKERS[provider](readers).send(fake).status_code == status
    assert MAKERS[provider](readers[:most]).send(fake).status_code == 200
    assert fake.count() == most


@pytest.mark.parametrize(
    "ask",
    [
        to_mailgun(READERS, **{"recipient-variables": None}),
        to_mailgun(READERS, **{"recipient-variables": '{"reader0@example.com": {}}'}),
        to_mailgun(READERS, subject=None),
        to_mailgun(READERS, html=None, text=None),
        to_mailgun(READERS, **{"h:X-Long": "x" * 16_400}),
        to_mailgun([("reader", "1")]),
        to_resend(READERS, to=["a@example.com", "b@example.com"]),
        to_resend(READERS, subject=""),
        to_resend(READERS, html="", text=""),
        to_resend(READERS, tags=[{"name": "delivery", "value": "no blanks"}]),
        to_resend(READERS, attachments=[]),
    ],
    ids=range(11),
)
def test_what_a_provider_would_refuse_or_should_is_refused_whole(fake: FakeApi, ask: Ask) -> None:
    answer = ask.send(fake)
    assert answer.status_code in (400, 422)
    assert fake.count() == 0


@pytest.mark.parametrize(
    "more",
    [
        {"To": "a@example.com, b@example.com"}, {"To": ""}, {"From": "nobody"}, {"HtmlBody": "", "TextBody": ""},
        {"Metadata": {"d": "x" * 81}}, {"Metadata": {"x" * 21: "d"}}, {"Tag": "x" * 1_001}, {"Headers": [{"X-A": "b"}]},
    ],
    ids=range(8),
)  # fmt: skip
def test_what_postmark_would_refuse_or_should_is_refused_by_message(fake: FakeApi, more: dict[str, object]) -> None:
    answer = to_postmark(READERS, **more).send(fake)
    assert [item["ErrorCode"] for item in answer.json()] == [300, 300, 300]
    assert fake.count() == 0


def test_an_address_twice_in_a_call_gets_one_copy_from_mailgun(fake: FakeApi) -> None:
    to_mailgun([READERS[0], READERS[0]]).send(fake)
    assert fake.count() == 1


def test_the_same_key_with_the_same_body_is_answered_the_same_and_taken_once(fake: FakeApi) -> None:
    ask = to_resend(READERS)
    first, second = (ask.send(fake, **{"Idempotency-Key": "one"}) for _ in range(2))
    assert first.json() == second.json()
    assert ask.send(fake, **{"Idempotency-Key": "two"}).json() != first.json()
    assert [each.call for each in fake.accepted()] == [1, 1, 1, 3, 3, 3]


def test_the_same_key_with_another_body_is_a_mistake(fake: FakeApi) -> None:
    to_resend(READERS).send(fake, **{"Idempotency-Key": "one"})
    answer = to_resend(READERS[:1]).send(fake, **{"Idempotency-Key": "one"})
    assert (answer.status_code, answer.json()["name"], fake.count()) == (409, "invalid_idempotent_request", 3)


def test_the_same_key_at_the_same_time_comes_too_early(fake: FakeApi) -> None:
    fake.script({1: Fault.HELD})
    ask = to_resend(READERS)
    client = threading.Thread(target=lambda: ask.send(fake, **{"Idempotency-Key": "one"}))
    client.start()
    while not fake.held():
        pass
    answer = ask.send(fake, **{"Idempotency-Key": "one"})
    fake.release()
    client.join()
    assert (answer.status_code, answer.json()["name"]) == (409, "concurrent_idempotent_requests")
    assert ask.send(fake, **{"Idempotency-Key": "one"}).status_code == 200
    assert fake.count() == 3


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.AFTER, Fault.GARBLED, Fault.MISCOUNTED, Fault.BEFORE, Fault.LIMIT])
def test_under_its_key_a_call_goes_through_once_whatever_goes_wrong_twice(fake: FakeApi, fault: Fault) -> None:
    fake.script({1: fault, 2: fault})
    ask = to_resend(READERS)
    for _ in range(2):
        if fault is Fault.LOST:
            with pytest.raises(requests.ConnectionError):
                ask.send(fake, **{"Idempotency-Key": "one"})
        else:
            ask.send(fake, **{"Idempotency-Key": "one"})
    answer = ask.send(fake, **{"Idempotency-Key": "one"})
    assert (answer.status_code, len(answer.json()["data"])) == (200, 3)
    assert fake.count() == 3


def test_a_key_of_no_length_or_too_much_is_refused(fake: FakeApi) -> None:
    answer = to_resend(READERS).send(fake, **{"Idempotency-Key": "k" * 257})
    assert (answer.status_code, answer.json()["name"]) == (400, "invalid_idempotency_key")


def logs(fake: FakeApi, **more: object) -> dict[str, Any]:
    domain = {"attribute": "domain", "comparator": "=", "values": [{"label": "d", "value": "news.example.com"}]}
    named = {"recipient", "tag"} & set(more)
    own = [{"attribute": name, "comparator": "=", "values": [{"label": "x", "value": more.pop(name)}]} for name in named]
    body = {"filter": {"AND": [domain, *own]}, "events": ["accepted"], **more}
    headers = {"Authorization": "Basic " + b64encode(b"api:k").decode()}
    answer = requests.post(f"{fake.url}/v1/analytics/logs", json=body, headers=headers, timeout=60)
    specs.judge("mailgun", fake.exchanges()[-1])
    found: dict[str, Any] = answer.json()
    return found


def test_mailguns_log_shows_what_was_taken_page_by_page(fake: FakeApi) -> None:
    readers = [(f"reader{number}@example.com", f"{number:032x}") for number in range(150)]
    fake.script({1: Fault.LOST})
    with pytest.raises(requests.ConnectionError):
        to_mailgun(readers).send(fake)
    first = logs(fake, tag="issue-2026-11-27", pagination={"sort": "timestamp:asc", "limit": 100})
    assert len(first["items"]) == 100
    second = logs(fake, pagination={"sort": "timestamp:asc", "limit": 100, "token": first["pagination"]["next"]})
    assert "next" not in second["pagination"]
    items = first["items"] + second["items"]
    assert [(item["recipient"], json.loads(item["user-variables"])["delivery"]) for item in items] == readers
    (only,) = logs(fake, recipient="reader7@example.com")["items"]
    assert json.loads(only["user-variables"]) == {"delivery": f"{7:032x}"}
    assert logs(fake, tag="issue-2026-11-20")["items"] == []
    now = datetime.now(UTC)
    assert logs(fake, end=format_datetime(now - timedelta(minutes=1)))["items"] == []
    assert logs(fake, start=format_datetime(now - timedelta(minutes=1)))["items"]
    assert logs(fake, events=["failed"])["items"] == []


OURS: dict[str, dict[str, object]] = {"mailgun": {"domain": "news.example.com"}, "resend": {}}


@pytest.mark.parametrize("provider", [name for name in names() if specs.has_document(name)])
def test_what_we_send_and_ask_is_valid_by_the_providers_own_document(fake: FakeApi, provider: str) -> None:
    table = {"name": provider, "base_url": fake.url, **OURS[provider]}
    ours, problems = build_provider(table, Secrets({"FRIDAY_PROVIDER_KEY": "k"}), Path())
    assert problems == []
    assert ours is not None
    assert all(receipt.accepted for receipt in ours.send(ISSUE, PARCEL))
    assert {each.ref for each in fake.accepted()} == {copy.ref for copy in COPIES}
    if ours.limits.has_log:
        found = ours.look_up(ISSUE, COPIES, datetime.now(UTC) - timedelta(minutes=1))
        assert {receipt.ref for receipt in found.receipts} == {copy.ref for copy in COPIES}
    assert fake.exchanges()
    for exchange in fake.exchanges():
        specs.judge(provider, exchange)


def search(fake: FakeApi, **asked: object) -> requests.Response:
    query = urlencode({"count": 500, "offset": 0, **asked})
    headers = {"X-Postmark-Server-Token": "k", "Accept": "application/json"}
    return requests.get(f"{fake.url}/messages/outbound?{query}", headers=headers, timeout=60)


def test_postmarks_search_shows_what_was_taken_in_the_stream_that_is_named(fake: FakeApi) -> None:
    to_postmark(READERS).send(fake)
    found = search(fake, messagestream="broadcast", tag="issue-2026-11-27").json()
    assert found["TotalCount"] == 3
    assert {(each["Recipients"][0], each["Metadata"]["d"]) for each in found["Messages"]} == set(READERS)
    assert search(fake, tag="issue-2026-11-27").json()["TotalCount"] == 0
    (only,) = search(fake, messagestream="broadcast", metadata_d=READERS[1][1]).json()["Messages"]
    assert only["Recipients"] == [READERS[1][0]]
    assert search(fake, messagestream="broadcast", metadata_x="1").json()["TotalCount"] == 0
    page = search(fake, messagestream="broadcast", count=2, offset=2).json()
    assert (page["TotalCount"], len(page["Messages"])) == (3, 1)
    assert search(fake, messagestream="broadcast", offset=9_501).status_code == 422


def test_a_forgetful_log_shows_nothing_yet(fake: FakeApi) -> None:
    fake.script(forgetful=True)
    to_mailgun(READERS).send(fake)
    to_postmark(READERS).send(fake)
    assert logs(fake)["items"] == search(fake, messagestream="broadcast").json()["Messages"] == []
    fake.script()
    assert len(logs(fake)["items"]) == search(fake, messagestream="broadcast").json()["TotalCount"] == 3


def test_postmarks_dates_are_of_new_york(fake: FakeApi) -> None:
    to_postmark(READERS).send(fake)
    now = datetime.now(ZoneInfo("America/New_York")).replace(tzinfo=None)
    ago = (now - timedelta(minutes=5)).isoformat(timespec="seconds")
    assert search(fake, messagestream="broadcast", fromdate=ago).json()["TotalCount"] == 3
    assert search(fake, messagestream="broadcast", todate=ago).json()["TotalCount"] == 0
    # By the clock of Greenwich it is later, so this is still to come in New York.
    later = (datetime.now(UTC) - timedelta(minutes=5)).replace(tzinfo=None).isoformat(timespec="seconds")
    assert search(fake, messagestream="broadcast", fromdate=later).json()["TotalCount"] == 0


LETTER = f"From: friday@news.example.com\r\nTo: {READERS[1][0]}\r\nMessage-ID: <{READERS[1][1]}@news.example.com>\r\n\r\nHi\r\n"
SMTP_ENDS: dict[Fault | None, tuple[type[smtplib.SMTPException] | None, int, int]] = {
    None: (None, 250, 1),
    Fault.SLOW: (None, 250, 1),
    Fault.LOST: (smtplib.SMTPServerDisconnected, 0, 1),
    Fault.AFTER: (smtplib.SMTPServerDisconnected, 0, 1),
    Fault.GARBLED: (smtplib.SMTPDataError, 0, 1),
    Fault.RESET: (smtplib.SMTPServerDisconnected, 0, 0),
    Fault.BEFORE: (smtplib.SMTPDataError, 451, 0),
    Fault.LIMIT: (smtplib.SMTPSenderRefused, 451, 0),
    Fault.UNAUTHORISED: (smtplib.SMTPSenderRefused, 530, 0),
    Fault.PARTIAL: (smtplib.SMTPRecipientsRefused, 550, 0),
}


@pytest.fixture(scope="module")
def mail_server() -> Iterator[FakeApi]:
    with running("--smtp") as started:
        yield started


@pytest.mark.parametrize("fault", SMTP_ENDS)
def test_as_a_mail_server_it_takes_or_fails_one_copy_a_transaction(mail_server: FakeApi, fault: Fault | None) -> None:
    error, status, taken = SMTP_ENDS[fault]
    mail_server.reset()
    mail_server.script({1: fault} if fault else {}, slow=0.01)
    with pytest.raises(error) if error else nullcontext(), smtplib.SMTP("127.0.0.1", mail_server.smtp) as line:
        line.sendmail("friday@news.example.com", [READERS[1][0]], LETTER)
    assert mail_server.accepted() == [Taken(*READERS[1], 1)] * taken
    assert [each.address for each in mail_server.refused()] == [READERS[1][0]] * (fault is Fault.PARTIAL)
    assert mail_server.calls()[0]["status"] == status


def test_the_same_seed_does_the_same_and_another_does_not() -> None:
    rates = {Fault.LOST: 0.2, Fault.RESET: 0.1}
    first, again, other = ([Plan(seed, rates=rates).fault(number) for number in range(1, 400)] for seed in (1, 1, 2))
    assert first == again != other
    assert 50 < first.count(Fault.LOST) < 110
    assert 20 < first.count(Fault.RESET) < 65


def test_rates_are_read_as_they_are_written_on_the_command_line() -> None:
    assert read_rates("lost=.05,reset=.1") == {Fault.LOST: 0.05, Fault.RESET: 0.1}


@every_provider
def test_what_was_taken_is_kept_in_a_file_too(tmp_path: Any, provider: str) -> None:
    with running("--state", str(tmp_path)) as fake:
        MAKERS[provider](READERS).send(fake)
    (line,) = (tmp_path / "accepted.jsonl").read_text("utf-8").splitlines()
    assert [tuple(copy) for copy in json.loads(line)["copies"]] == READERS
