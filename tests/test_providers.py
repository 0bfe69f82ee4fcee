"""What every provider keeps to, whichever files there are: options, secrets, receipts, keys, one reader per copy."""

import importlib
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import default
from email.utils import parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Secrets
from pipeline.errors import Forged, NotProcessed, Unclear
from pipeline.issue import Copy, Parcel, RenderedIssue
from pipeline.mime import message
from pipeline.providers import KEY, WEBHOOK_KEY, Provider, build_provider, names
from pipeline.text import one_line, wire_address
from tests.fake_http import FakeHttp, Reply, fake_http
from tests.sink import CERTIFICATE, Sink, sink

ISSUE = RenderedIssue(
    slot="2026-11-27",
    number=7,
    title="The Test Five",
    sender_name="The Test Fïve",
    sender="friday@news.example.com",
    reply_to="editors@news.example.com",
    base_url="https://news.example.com",
    subject="Ein Wörd & more",
    preheader="Also",
    html='<!DOCTYPE html><html><body><p>TOKENADDRESS</p><a href="TOKENLEAVE">Leave</a></body></html>',
    text="For TOKENADDRESS\nLeave: TOKENLEAVE\n",
    stand_ins={"address": "TOKENADDRESS", "unsubscribe_url": "TOKENLEAVE"},
)
COPIES = tuple(
    Copy(f"{number:032x}", address, f"https://news.example.com/u/token{number}")
    for number, address in enumerate(("ada@example.com", "o'ben+tag@example.com", "cléo@exämple.com"), 1)
)
PARCEL = Parcel("key1", datetime(2026, 11, 27, 8, 0, 5, tzinfo=UTC), COPIES)


Mail = dict[str, str]


def as_read(raw: bytes) -> Mail:
    """What a reader sees of a whole message."""
    mail = message_from_bytes(raw, policy=default)
    html, text = mail.get_body(("html",)), mail.get_body(("plain",))
    assert html is not None
    assert text is not None
    return {
        "html": html.get_content(), "text": text.get_content(), "subject": str(mail["Subject"]), "from": str(mail["From"]),
        "leave": str(mail["List-Unsubscribe"] or ""), "machine": str(mail["Auto-Submitted"] or ""),
        "one click": str(mail["List-Unsubscribe-Post"] or ""), "reply to": str(mail["Reply-To"]), "to": str(mail["To"]),
    }  # fmt: skip


def sent_by_outbox(folder: Path) -> dict[str, Mail]:
    mails = [as_read(path.read_bytes()) for path in sorted((folder / "outbox").rglob("*.eml"))]
    return {mail["to"]: mail for mail in mails}


def sent_by_smtp(box: Sink) -> dict[str, Mail]:
    return {got.reader: as_read(got.content) for got in box.got}


def sent_by_mailgun(fake: FakeHttp) -> dict[str, Mail]:
    sent = {}
    for call in fake.accepted:
        for address in call.all("to"):
            copy = call.copy_for(address)
            sent[address] = {
                "html": copy["html"], "text": copy["text"], "subject": copy["subject"], "from": copy["from"],
                "leave": copy.get("h:List-Unsubscribe", ""), "machine": copy.get("h:Auto-Submitted", ""),
                "one click": copy.get("h:List-Unsubscribe-Post", ""), "reply to": copy["h:Reply-To"],
            }  # fmt: skip
    return sent


def sent_by_postmark(fake: FakeHttp) -> dict[str, Mail]:
    sent = {}
    for each in (each for call in fake.accepted for each in call.json):
        heads = {head["Name"]: head["Value"] for head in each["Headers"]}
        sent[each["To"]] = {
            "html": each["HtmlBody"], "text": each["TextBody"], "subject": each["Subject"], "from": each["From"],
            "leave": heads.get("List-Unsubscribe", ""), "machine": heads.get("Auto-Submitted", ""),
            "one click": heads.get("List-Unsubscribe-Post", ""), "reply to": each["ReplyTo"],
        }  # fmt: skip
    return sent


def sent_by_resend(fake: FakeHttp) -> dict[str, Mail]:
    sent = {}
    for each in (each for call in fake.accepted for each in call.json):
        (to,), (reply_to,), heads = each["to"], each["reply_to"], each["headers"]
        sent[to] = {
            "html": each["html"], "text": each["text"], "subject": each["subject"], "from": each["from"],
            "leave": heads.get("List-Unsubscribe", ""), "machine": heads.get("Auto-Submitted", ""),
            "one click": heads.get("List-Unsubscribe-Post", ""), "reply to": reply_to,
        }  # fmt: skip
    return sent


@dataclass(frozen=True)
class Taker:
    """What takes a provider's mail: where it listens, what each reader got (html, text, subject, ...), how many copies."""

    url: str
    sent: Callable[[], dict[str, Mail]]
    count: Callable[[], int]
    http: FakeHttp | None = None


@dataclass(frozen=True)
class Row:
    """What the suite has to know about a provider: options and secrets that work, and what takes its mail."""

    taker: Callable[[Path], AbstractContextManager[Taker]]
    options: Callable[[str], dict[str, Any]]
    secrets: dict[str, str]
    webhook_key: str = ""


@dataclass(frozen=True)
class Bench:
    """A working provider, and what takes its mail."""

    provider: Provider
    taker: Taker


@contextmanager
def a_folder(folder: Path) -> Iterator[Taker]:
    yield Taker("", lambda: sent_by_outbox(folder), lambda: len(list(folder.rglob("*.eml"))))


def an_api(sent: Callable[[FakeHttp], dict[str, Mail]]) -> Callable[[Path], AbstractContextManager[Taker]]:
    @contextmanager
    def running(_folder: Path) -> Iterator[Taker]:
        with fake_http() as fake:
            yield Taker(fake.url, lambda: sent(fake), lambda: len(fake.readers), fake)

    return running


@contextmanager
def a_relay(_folder: Path) -> Iterator[Taker]:
    with sink(auth=True) as box:
        yield Taker(f"smtp://127.0.0.1:{box.port}", lambda: sent_by_smtp(box), lambda: len(box.got))


def relay_options(url: str) -> dict[str, Any]:
    """To sign in without TLS is allowed on loopback only."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    more = {"port": port, "security": "none"} if port else {}
    return {"host": host or "mail.example.com", "user": "friday", "dkim_selector": "s1", **more}


SECRET = {KEY: "k-3cre7"}
RELAY_SECRETS = {
    "FRIDAY_SMTP_PASSWORD": "secret",
    "FRIDAY_DKIM_KEY": (CERTIFICATE.parent / "dkim.pem").read_text("utf-8").strip(),
}
BENCHES = {
    "outbox": Row(a_folder, lambda _url: {}, {}),
    "smtp": Row(a_relay, relay_options, RELAY_SECRETS),
    "mailgun": Row(an_api(sent_by_mailgun), lambda url: {"domain": "news.example.com", "base_url": url}, SECRET, "signing-key"),
    "postmark": Row(an_api(sent_by_postmark), lambda url: {"base_url": url}, SECRET, "pass-word"),
    "resend": Row(an_api(sent_by_resend), lambda url: {"base_url": url}, SECRET, "whsec_c2VjcmV0IG9mIGEgd2ViaG9vaw=="),
}
HTTP = [name for name, row in BENCHES.items() if "base_url" in row.options("")]


def row_of(name: str) -> Row:
    assert name in BENCHES, f"pipeline/providers/{name}.py has no row in BENCHES: see CONTRIBUTING, “Adding a provider”"
    return BENCHES[name]


def table_of(name: str, **more: object) -> dict[str, object]:
    return {"name": name, **row_of(name).options("https://api.example.com"), **more}


def provider_of(name: str, folder: Path, url: str = "", secrets: dict[str, str] | None = None) -> Provider:
    """The provider of a name, in front of what listens at an address."""
    row = row_of(name)
    table = {"name": name, **row.options(url or "https://api.example.com")}
    provider, problems = build_provider(table, Secrets(row.secrets | (secrets or {})), folder)
    assert problems == []
    assert provider is not None
    return provider


@pytest.fixture(params=names())
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Every provider that there is a file for, in front of something that takes its mail."""
    with row_of(request.param).taker(tmp_path) as taker:
        yield Bench(provider_of(request.param, tmp_path, taker.url), taker)


@pytest.fixture(params=HTTP)
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Provider, FakeHttp]]:
    """Every provider with an HTTP API, in front of a fake of it."""
    with fake_http() as fake:
        yield provider_of(request.param, tmp_path, fake.url), fake


def test_every_copy_has_one_receipt_in_the_order_of_the_parcel(bench: Bench) -> None:
    receipts = bench.provider.send(ISSUE, PARCEL)
    assert [receipt.ref for receipt in receipts] == [copy.ref for copy in COPIES]
    assert all(receipt.accepted and receipt.provider_id for receipt in receipts)


def test_every_reader_gets_an_own_copy_with_an_own_way_out(bench: Bench) -> None:
    bench.provider.send(ISSUE, PARCEL)
    sent = bench.taker.sent()
    assert set(sent) == {wire_address(copy.address) for copy in COPIES}
    for copy in COPIES:
        got = sent[wire_address(copy.address)]
        assert got["leave"] == f"<{copy.unsubscribe_url}>"
        assert got["one click"] == "List-Unsubscribe=One-Click"
        assert copy.unsubscribe_url in got["html"]
        assert f"For {copy.address}\nLeave: {copy.unsubscribe_url}" in got["text"].replace("\r\n", "\n")
        others = [other.address for other in COPIES if other is not copy]
        assert not any(other in got["html"] + got["text"] for other in others)


def test_a_single_mail_says_that_a_machine_wrote_it_and_is_no_newsletter(bench: Bench) -> None:
    single = replace(
        ISSUE, slot="mail-confirm", number=0, single=True, html=ISSUE.html.replace("TOKENLEAVE", "x"), text="Hello\n"
    )
    parcel = replace(PARCEL, copies=COPIES[:1])
    (receipt,) = bench.provider.send(single, parcel)
    assert receipt.accepted
    (got,) = bench.taker.sent().values()
    assert (got["machine"], got["leave"], got["one click"]) == ("auto-generated", "", "")
    assert got["text"].strip() == "Hello"


def test_a_value_is_escaped_in_html_and_as_it_is_in_text(bench: Bench) -> None:
    bench.provider.send(ISSUE, PARCEL)
    got = bench.taker.sent()["o'ben+tag@example.com"]
    assert "o&#x27;ben+tag@example.com" in got["html"]
    assert "o'ben+tag@example.com" in got["text"]


def test_the_envelope_is_the_issues(bench: Bench) -> None:
    bench.provider.send(ISSUE, PARCEL)
    for got in bench.taker.sent().values():
        assert got["subject"] == ISSUE.subject
        assert got["from"] == f"{ISSUE.sender_name} <{ISSUE.sender}>"
        assert got["reply to"] == ISSUE.reply_to
        assert "TOKEN" not in got["html"] + got["text"]


@pytest.mark.parametrize("name", names())
def test_a_batch_is_as_large_as_asked_and_never_larger_than_the_limit(name: str, tmp_path: Path) -> None:
    secrets = Secrets(row_of(name).secrets)
    provider, _ = build_provider(table_of(name, batch_size=7), secrets, tmp_path)
    assert provider is not None
    assert provider.limits.copies == 7
    most = importlib.import_module(f"pipeline.providers.{name}").MOST_COPIES
    _, problems = build_provider(table_of(name, batch_size=most + 1), secrets, tmp_path)
    assert [problem.where for problem in problems] == ["provider.batch_size"]


def test_the_same_parcel_twice_is_delivered_once_just_where_keys_are_honoured(bench: Bench) -> None:
    bench.provider.send(ISSUE, PARCEL)
    first = bench.taker.count()
    bench.provider.send(ISSUE, PARCEL)
    honours_keys = bench.provider.limits.key_lifetime is not None
    assert bench.taker.count() == (first if honours_keys else 2 * first)


@pytest.mark.parametrize("name", names())
def test_a_secret_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"pipeline.providers.{name}")
    needed = module.Options.model_validate(table_of(name)).secrets
    _, problems = build_provider(table_of(name), Secrets({}), tmp_path)
    assert [problem.where for problem in problems] == list(needed)


@pytest.mark.parametrize("name", names())
def test_an_option_that_is_not_known_is_named(name: str, tmp_path: Path) -> None:
    _, problems = build_provider(table_of(name, colour="red"), Secrets(row_of(name).secrets), tmp_path)
    assert [problem.where for problem in problems] == ["provider.colour"]


@pytest.mark.parametrize("name", ["mailgun", "postmark", "resend"])
def test_another_address_of_its_api_is_a_host_of_its_own(name: str, tmp_path: Path) -> None:
    table = table_of(name, base_url="https://gateway.example.com/mail")
    _, problems = build_provider(table, Secrets(row_of(name).secrets), tmp_path)
    assert [problem.where for problem in problems] == ["provider.base_url"]


@pytest.mark.parametrize("name", names())
def test_neither_secrets_nor_addresses_are_printed(name: str, tmp_path: Path) -> None:
    row = row_of(name)
    provider = provider_of(name, tmp_path, secrets={WEBHOOK_KEY: row.webhook_key} if row.webhook_key else {})
    printed = repr(provider) + repr(provider.limits) + repr(provider.hook)
    assert not any(secret in printed for secret in (*row.secrets.values(), row.webhook_key) if secret)


@pytest.mark.parametrize("name", names())
def test_a_provider_hears_events_only_with_a_secret_to_know_them_by(name: str, tmp_path: Path) -> None:
    row = row_of(name)
    assert provider_of(name, tmp_path).hook is None
    if not row.webhook_key:
        return
    hook = provider_of(name, tmp_path, secrets={WEBHOOK_KEY: row.webhook_key}).hook
    assert hook is not None
    for body in (b"", b"{}", b"[]", b"\xff", b"event=delivered&token=a", b"[" * 5_000):
        with pytest.raises(Forged):
            hook.hear({}, body, PARCEL.dated)


def test_a_provider_without_a_log_shows_nothing_and_asks_nobody(bench: Bench) -> None:
    if not bench.provider.limits.has_log:
        assert list(bench.provider.look_up(ISSUE, COPIES, PARCEL.dated).receipts) == []
        assert bench.taker.http is None or bench.taker.http.calls == []


@pytest.mark.parametrize("name", names())
def test_the_rate_and_the_connections_are_as_asked(name: str, tmp_path: Path) -> None:
    table = table_of(name, concurrency=3, rate_per_second=2.5)
    provider, _ = build_provider(table, Secrets(row_of(name).secrets), tmp_path)
    assert provider is not None
    assert (provider.limits.connections, provider.limits.per_second) == (3, 2.5)


def test_a_parcel_is_one_call_and_always_the_same_bytes(api: tuple[Provider, FakeHttp], tmp_path: Path) -> None:
    provider, fake = api
    provider.send(ISSUE, PARCEL)
    assert len(fake.calls) == 1
    provider.send(ISSUE, PARCEL)
    first, second = fake.calls
    assert first.body == second.body
    assert first.headers == second.headers
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_breaks_off_is_unclear_and_is_not_tried_again(api: tuple[Provider, FakeHttp]) -> None:
    provider, fake = api
    fake.reply = lambda _number, _call: Reply(drop=True)
    with pytest.raises(Unclear):
        provider.send(ISSUE, PARCEL)
    assert len(fake.calls) == 1


@pytest.mark.parametrize(
    "body", ["", "not json", "null", "[]", "{}", "[1, 2, 3]", '{"data": [1]}', '{"data": [{}, {}, {}]}', '"id"', '{"id": ""}']
)
def test_an_answer_that_cannot_be_read_is_unclear(api: tuple[Provider, FakeHttp], body: str) -> None:
    provider, fake = api
    fake.reply = lambda _number, _call: Reply(200, body)
    with pytest.raises(Unclear):
        provider.send(ISSUE, PARCEL)


@pytest.mark.parametrize("status", [201, 202, 301, 302, 408, 418, 500, 502, 503, 504])
def test_a_status_that_no_page_promises_anything_about_is_unclear(api: tuple[Provider, FakeHttp], status: int) -> None:
    provider, fake = api
    fake.reply = lambda _number, _call: Reply(status, "<html>", {"Location": "https://elsewhere.example/"})
    with pytest.raises(Unclear):
        provider.send(ISSUE, PARCEL)
    assert len(fake.calls) == 1


@pytest.mark.parametrize("name", HTTP)
def test_nobody_listening_is_surely_not_processed(name: str, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(NotProcessed):
        provider_of(name, tmp_path, f"http://127.0.0.1:{port}").send(ISSUE, PARCEL)


def test_a_mailbox_gives_every_copy_a_second_way_out(api: tuple[Provider, FakeHttp]) -> None:
    provider, fake = api
    copies = tuple(copy._replace(unsubscribe_mail=f"mailto:box+{copy.ref}@news.example.com") for copy in COPIES)
    provider.send(replace(ISSUE, mailbox="box@news.example.com"), replace(PARCEL, copies=copies))
    (call,) = fake.calls
    for copy in copies:
        both = f"<{copy.unsubscribe_url}>, <{copy.unsubscribe_mail}>"
        if "messages" in call.path:
            assert call.copy_for(wire_address(copy.address))["h:List-Unsubscribe"] == both
        else:
            assert both in call.body.decode()


def test_the_outbox_writes_the_same_bytes_for_the_same_parcel_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    provider, _ = build_provider({"name": "outbox"}, Secrets({}), tmp_path)
    assert provider is not None
    provider.send(ISSUE, PARCEL)
    folder = tmp_path / "outbox" / ISSUE.slot
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    provider.send(ISSUE, PARCEL)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert set(first) == {f"{copy.ref}.eml" for copy in COPIES}


def test_an_eml_is_a_mail_that_any_program_reads(tmp_path: Path) -> None:
    provider, _ = build_provider({"name": "outbox"}, Secrets({}), tmp_path)
    assert provider is not None
    provider.send(ISSUE, PARCEL)
    raw = (tmp_path / "outbox" / ISSUE.slot / f"{COPIES[0].ref}.eml").read_bytes()
    assert b"\r\n" in raw
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    mail = message_from_bytes(raw, policy=default)
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert mail["Date"] == "Fri, 27 Nov 2026 08:00:05 +0000"
    assert mail["Message-ID"] == f"<{COPIES[0].ref}@news.example.com>"
    assert str(mail["List-Id"]) == "The Test Five <issues.news.example.com>"
    assert mail.defects == []


@settings(deadline=None, database=None, max_examples=150)
@given(st.text(max_size=160), st.text(max_size=60))
def test_whatever_a_subject_or_a_name_is_made_of_comes_out_as_it_was(subject: str, name: str) -> None:
    issue = replace(ISSUE, subject=one_line(subject) or "A", sender_name=one_line(name))
    raw = message(issue, PARCEL, COPIES[0]).as_bytes()
    mail = message_from_bytes(raw, policy=default)
    assert str(mail["Subject"]) == issue.subject
    # The new parser keeps the space between two encoded words of a name; RFC 2047 and the old one drop it.
    name_part, _ = parseaddr(message_from_bytes(raw)["From"])
    assert str(make_header(decode_header(name_part))) == issue.sender_name
    assert mail["To"].addresses[0].addr_spec == COPIES[0].address
    assert max(map(len, raw.split(b"\r\n"))) <= 998


def test_a_subject_is_not_given_a_second_space() -> None:
    subject = "Merrowind Labs releases Quillfern 3 with open weights and a 512k…"
    raw = message(replace(ISSUE, subject=subject), PARCEL, COPIES[0]).as_bytes()
    assert str(message_from_bytes(raw, policy=default)["Subject"]) == subject


def test_a_full_disk_is_told_as_not_processed(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file where the folder should be")
    provider, _ = build_provider({"name": "outbox"}, Secrets({}), tmp_path)
    assert provider is not None
    with pytest.raises(NotProcessed, match="cannot write to"):
        provider.send(ISSUE, PARCEL)
    assert [path.name for path in tmp_path.iterdir()] == ["outbox"]
