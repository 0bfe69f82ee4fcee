"""Plain SMTP: each answer of a mail server told as what it is, connections used again, what is sent as it was signed."""

import gc
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import relay
from pipeline.config import Secrets
from pipeline.errors import AccountRefused, CallRefused, NotProcessed, Problem, ProviderError, Unclear
from pipeline.issue import Copy, Receipt
from pipeline.mime import message
from pipeline.providers import Provider, build_provider, smtp
from pipeline.signature import Signature, check_key
from tests.judge import judge
from tests.sink import CERTIFICATE, DROP, Sink, parrot, sink
from tests.test_providers import COPIES, ISSUE, PARCEL

KEY = (CERTIFICATE.parent / "dkim.pem").read_text("utf-8")
ADA = replace(PARCEL, copies=COPIES[:1])
ADDRESS = COPIES[0].address
GREETING = ("220 hi", "250 hi")


def provider(port: int, secrets: dict[str, str] | None = None, **options: Any) -> Provider:
    table = {"name": "smtp", "host": "127.0.0.1", "port": port, "security": "none", **options}
    built, problems = build_provider(table, Secrets(secrets or {}), Path())
    assert problems == []
    assert built is not None
    return built


def problems_of(secrets: dict[str, str] | None = None, **options: Any) -> list[Problem]:
    built, problems = build_provider({"name": "smtp", "host": "mail.example.com", **options}, Secrets(secrets or {}), Path())
    assert (built is None) == bool(problems)
    return problems


@pytest.fixture
def box() -> Iterator[Sink]:
    with sink() as opened:
        yield opened


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate of these tests, as an operator would trust one of their own."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# What each answer means


def test_a_copy_that_is_taken_has_the_servers_own_name_for_it(box: Sink) -> None:
    assert provider(box.port).send(ISSUE, ADA) == [Receipt(COPIES[0].ref, accepted=True, provider_id="Q1")]
    assert box.readers == [ADDRESS]


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("250 OK id=1abc-2", "1abc-2"),
        ("250 Ok 0102019a-1b2c-3d4e-000000", "0102019a-1b2c-3d4e-000000"),
        ("250 thank you", COPIES[0].ref),
    ],
)
def test_what_a_server_calls_a_copy_is_found_in_its_answer_or_the_copys_own_name_stands_for_it(
    box: Sink, answer: str, name: str
) -> None:
    box.answers["DATA"] = answer
    assert provider(box.port).send(ISSUE, ADA)[0].provider_id == name


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        ("RCPT", "550 5.1.1 no such user"),
        ("RCPT", "551 5.1.6 moved"),
        ("RCPT", "553 5.1.3 what is this"),
        ("RCPT", "552 5.2.2 mailbox full"),
        ("RCPT", "550 unknown"),
        ("DATA", "550 5.1.1 no such user after all"),
        ("DATA", "552 5.2.2 mailbox full"),
    ],
)
def test_an_address_that_is_refused_for_good_is_rejected_and_the_connection_goes_on(box: Sink, where: str, answer: str) -> None:
    box.answers[f"{where} {ADDRESS}"] = answer
    first, second, third = provider(box.port).send(ISSUE, PARCEL)
    assert first == Receipt(COPIES[0].ref, accepted=False, reason=answer)
    assert second.accepted
    assert third.accepted
    assert box.connections == 1


def test_a_reason_holds_no_address(box: Sink) -> None:
    box.answers["RCPT"] = f"550 5.1.1 <{ADDRESS}>: no such user"
    (receipt,) = provider(box.port).send(ISSUE, ADA)
    assert receipt.reason == "550 5.1.1 an address no such user"


@pytest.mark.parametrize("answer", ["450 4.2.0 greylisted", "451 try later", "452 4.2.2 mailbox full"])
def test_a_reader_that_is_put_off_may_come_later_and_holds_up_nobody(box: Sink, answer: str) -> None:
    box.answers[f"RCPT {ADDRESS}"] = answer
    first, second, third = provider(box.port).send(ISSUE, PARCEL)
    assert first == Receipt(COPIES[0].ref, accepted=False, reason=answer, later=True)
    assert second.accepted
    assert third.accepted


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        *((where, answer) for where in ("MAIL", "DATA") for answer in ("450 4.2.0 greylisted", "451 try later")),
        *((where, answer) for where in ("MAIL", "RCPT", "DATA") for answer in ("421 4.3.2 going down", "452 4.3.1 disk full")),
    ],
)
def test_what_is_put_off_was_surely_not_taken(box: Sink, where: str, answer: str) -> None:
    box.answers[where] = answer
    with pytest.raises(NotProcessed, match=f"asks to wait: {answer}") as refused:
        provider(box.port).send(ISSUE, ADA)
    assert refused.value.retry_after is None
    assert box.got == []


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("greylisted, try again in 300 seconds", timedelta(minutes=5)),
        ("come back in 5 minutes", timedelta(minutes=5)),
        ("wait 60s", timedelta(minutes=1)),
        ("wait 90000 seconds", timedelta(hours=1)),
    ],
)
def test_a_server_that_says_how_long_is_waited_for(box: Sink, said: str, wait: timedelta) -> None:
    box.answers["MAIL"] = f"450 4.7.1 {said}"
    with pytest.raises(NotProcessed) as refused:
        provider(box.port).send(ISSUE, ADA)
    assert refused.value.retry_after == wait


@pytest.mark.parametrize(
    ("where", "answer", "cure"),
    [
        ("MAIL", "550 5.7.1 you may not send as this", "newsletter.from"),
        ("MAIL", "530 5.7.0 Authentication required", "provider.user"),
        ("MAIL", "553 5.1.8 the sender's domain does not exist", "newsletter.from"),
        ("RCPT", "554 5.7.1 <ada@example.com>: Relay access denied", "provider.user"),
        ("RCPT", "550 relay not permitted", "provider.user"),
        ("RCPT", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "provider.user"),
    ],
)
def test_a_server_that_refuses_us_names_what_to_look_at(box: Sink, where: str, answer: str, cure: str) -> None:
    box.answers[where] = answer
    with pytest.raises(AccountRefused, match=cure) as refused:
        provider(box.port).send(ISSUE, ADA)
    assert ADDRESS not in str(refused.value)


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        ("MAIL", "552 5.3.4 message size exceeds limit"),
        ("RCPT", "554 5.7.1 client host blocked by a blocklist"),
        ("RCPT", "550 5.7.26 fails DMARC"),
        ("DATA", "554 5.7.1 looks like spam"),
        ("DATA", "552 5.3.4 too big"),
        ("DATA", "554 5.6.0 malformed"),
        ("DATA", "554 transaction failed"),
    ],
)
def test_a_message_that_is_refused_is_held_against_no_reader(box: Sink, where: str, answer: str) -> None:
    box.answers[where] = answer
    with pytest.raises(CallRefused, match="refuses the message"):
        provider(box.port).send(ISSUE, ADA)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=st.sampled_from(["MAIL", "RCPT", "DATA"]),
    code=st.integers(200, 599),
    text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
)
def test_whatever_is_answered_a_copy_is_taken_just_where_the_server_says_so(
    box: Sink, where: str, code: int, text: str
) -> None:
    box.answers = {where: f"{code} {text}"}
    box.got.clear()
    told: Receipt | type[ProviderError]
    try:
        (told,) = provider(box.port).send(ISSUE, ADA)
    except ProviderError as error:
        told = type(error)
    if isinstance(told, Receipt):
        assert told.accepted == (code // 100 == 2)
        assert told.accepted or code // 100 == (4 if told.later else 5)
        assert told.accepted == bool(box.got)
    else:
        assert code // 100 != 2
        assert (told is Unclear) == (where == "DATA" and code // 100 == 3)


# Where the connection breaks


def test_a_server_that_is_not_there_took_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NotProcessed, match=f"127.0.0.1:{port} cannot be reached: Connection refused"):
        provider(port).send(ISSUE, ADA)


def test_a_host_that_nobody_knows_took_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NotProcessed, match="Name or service not known"):
        provider(25, host="nowhere.example.com").send(ISSUE, ADA)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (("554 no service for you",), AccountRefused),
        (("421 too busy",), NotProcessed),
        (("220 hi", "550 who are you", "550 who are you"), AccountRefused),
        (("220 hi", "421 too busy", "421 too busy"), NotProcessed),
        (("HTTP/1.1 400 Bad Request",), NotProcessed),
        ((DROP,), NotProcessed),
        (("220 hi", DROP), NotProcessed),
        ((*GREETING, DROP), NotProcessed),
        ((*GREETING, "250 ok", DROP), NotProcessed),
        ((*GREETING, "250 ok", "250 ok", DROP), NotProcessed),
        ((*GREETING, "250 ok", "250 ok", "250 odd"), NotProcessed),
        ((*GREETING, "250 ok", "250 ok", "554 no"), CallRefused),
        ((*GREETING, "250 ok", "what?"), NotProcessed),
        ((*GREETING, "250 ok", "250 ok", "354 go on", DROP), Unclear),
        ((*GREETING, "250 ok", "250 ok", "354 go on", "what?"), Unclear),
        ((*GREETING, "250 ok", "250 ok", "354 go on", "354 go on"), Unclear),
        ((*GREETING, "250 ok", "250 ok", "354 go on", "250 " + "x" * 9000), Unclear),
    ],
)
def test_a_break_is_unclear_only_behind_the_dot(answers: tuple[str, ...], error: type[ProviderError]) -> None:
    with parrot(*answers) as port, pytest.raises(error):
        provider(port).send(ISSUE, ADA)


def test_what_speaks_no_smtp_in_the_middle_is_not_spoken_to_again() -> None:
    with parrot(*GREETING, "250 ok", "what?", "250 ok", "250 ok", "354 go on", "250 ok") as port:
        sender = provider(port)
        with pytest.raises(NotProcessed, match="broke before the message was handed over: its answer is no SMTP"):
            sender.send(ISSUE, ADA)


def test_silence_behind_the_dot_is_unclear_and_before_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "END_SECONDS", 0.1)
    monkeypatch.setattr(relay, "REPLY_SECONDS", 0.1)
    with parrot(*GREETING, "250 ok", "250 ok", "354 go on", "") as port, pytest.raises(Unclear):
        provider(port).send(ISSUE, ADA)
    with parrot(*GREETING, "250 ok", "") as port, pytest.raises(NotProcessed):
        provider(port).send(ISSUE, ADA)


def test_a_message_that_breaks_off_before_its_dot_was_not_taken() -> None:
    long = replace(ISSUE, text=ISSUE.text + "word " * 4_000_000)
    listening = socket.create_server(("127.0.0.1", 0))

    def hang_up_in_the_middle() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as heard:
            for answer in ("220 hi", "250 hi", "250 ok", "250 ok", "354 go on"):
                connection.sendall(answer.encode() + b"\r\n")
                heard.readline()

    with listening, ThreadPoolExecutor(1) as pool:
        pool.submit(hang_up_in_the_middle)
        with pytest.raises(NotProcessed, match="broke before the message was handed over"):
            provider(listening.getsockname()[1]).send(long, ADA)


def test_a_break_in_the_middle_keeps_the_receipts_before_it_and_begins_nothing_after_it(box: Sink) -> None:
    box.answers[f"DATA {COPIES[1].address}"] = DROP
    first, last = provider(box.port).send(ISSUE, PARCEL)
    assert first == Receipt(COPIES[0].ref, accepted=True, provider_id="Q1")
    assert (last.ref, last.accepted, last.later) == (COPIES[2].ref, False, True)
    assert box.count["RCPT"] == 2


def test_behind_a_copy_that_nobody_can_tell_of_the_others_may_go_another_time(box: Sink) -> None:
    box.answers[f"DATA {COPIES[0].address}"] = DROP
    receipts = provider(box.port).send(ISSUE, PARCEL)
    assert [(each.ref, each.later) for each in receipts] == [(copy.ref, True) for copy in COPIES[1:]]


def test_a_call_that_takes_long_begins_no_other_copy(box: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "BEGIN_SECONDS", -1.0)
    with pytest.raises(NotProcessed, match="too slowly"):
        provider(box.port).send(ISSUE, ADA)
    assert box.count["MAIL"] == 0


# Connections


def test_one_copy_a_call_is_the_default_and_as_many_connections_as_calls_at_a_time(box: Sink) -> None:
    sender = provider(box.port)
    assert sender.limits.copies == 1
    assert sender.limits.connections == 4
    parcels = [replace(PARCEL, copies=(Copy(f"{n:032x}", f"r{n}@example.com", "https://example.com/u/x"),)) for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        receipts = [receipt for got in pool.map(lambda parcel: sender.send(ISSUE, parcel), parcels) for receipt in got]
    assert all(receipt.accepted for receipt in receipts)
    assert sorted(box.readers) == sorted(f"r{n}@example.com" for n in range(40))
    assert box.connections <= 4


def test_a_connection_carries_so_many_messages_and_then_says_goodbye(box: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MOST_MESSAGES", 2)
    sender = provider(box.port)
    for _ in range(5):
        sender.send(ISSUE, ADA)
    assert box.connections == 3
    assert box.count["QUIT"] == 2


def test_a_connection_that_the_server_ended_meanwhile_is_replaced(box: Sink) -> None:
    sender = provider(box.port)
    sender.send(ISSUE, ADA)
    box.cut()
    until(lambda: not box.open_ones)
    assert sender.send(ISSUE, ADA)[0].accepted
    assert box.connections == 2


def test_a_server_that_wants_a_new_connection_gets_one(box: Sink) -> None:
    sender = provider(box.port)
    sender.send(ISSUE, ADA)
    box.answers["MAIL"] = ["421 4.7.0 too many messages in this connection", "250 OK"]
    assert sender.send(ISSUE, ADA)[0].accepted
    assert box.connections == 2


def test_a_new_connection_that_is_turned_away_is_not_tried_again(box: Sink) -> None:
    box.answers["MAIL"] = "421 4.7.0 too many"
    with pytest.raises(NotProcessed):
        provider(box.port).send(ISSUE, ADA)
    assert box.connections == 1


@pytest.mark.parametrize("answer", ["451 4.3.0 try later", "550 5.7.1 no"])
def test_another_refusal_on_a_used_connection_stands(box: Sink, answer: str) -> None:
    sender = provider(box.port)
    sender.send(ISSUE, ADA)
    box.answers["MAIL"] = [answer, "250 OK"]
    with pytest.raises((NotProcessed, AccountRefused)):
        sender.send(ISSUE, ADA)
    assert box.connections == 1


def test_a_transaction_that_came_to_nothing_is_ended_before_the_next(box: Sink) -> None:
    box.answers["RCPT"] = ["550 5.1.1 no", "250 OK"]
    sender = provider(box.port)
    sender.send(ISSUE, ADA)
    assert sender.send(ISSUE, ADA)[0].accepted
    assert box.said.count("RSET") == 1
    assert box.connections == 1


def test_what_is_idle_is_hung_up_by_itself(box: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "IDLE_SECONDS", 0.05)
    sender = provider(box.port)
    sender.send(ISSUE, ADA)
    until(lambda: box.count["QUIT"] == 1)
    assert sender.send(ISSUE, ADA)[0].accepted
    assert box.connections == 2


def test_what_was_idle_for_long_is_not_trusted(box: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.Relay, "_sweep_later", lambda _self: None)
    sender = provider(box.port)
    sender.send(ISSUE, ADA)
    monkeypatch.setattr(relay, "IDLE_SECONDS", 0.0)
    assert sender.send(ISSUE, ADA)[0].accepted
    assert box.connections == 2


def test_connections_end_with_their_provider(box: Sink) -> None:
    sender = provider(box.port)
    sender.send(ISSUE, ADA)
    del sender
    gc.collect()
    until(lambda: box.count["QUIT"] == 1)


# TLS and sign-in


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_password_goes_out_under_tls(security: str, host: str) -> None:
    with sink(security, auth=True) as opened:
        sender = provider(opened.port, {"FRIDAY_SMTP_PASSWORD": "secret"}, host=host, security=security, user="friday")
        assert sender.send(ISSUE, ADA)[0].accepted
        assert opened.count["AUTH"] == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_nobody_vouches_for_gets_no_word(security: str) -> None:
    with sink(security, auth=True) as opened:
        sender = provider(opened.port, {"FRIDAY_SMTP_PASSWORD": "secret"}, security=security, user="friday")
        with pytest.raises(NotProcessed, match="certificate cannot be verified"):
            sender.send(ISSUE, ADA)
        assert opened.count["AUTH"] == opened.count["MAIL"] == 0


@pytest.mark.usefixtures("trusted")
def test_a_certificate_of_another_host_gets_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest, **more: look_up("127.0.0.1", *rest, **more))
    with sink("tls") as opened, pytest.raises(NotProcessed, match="certificate cannot be verified"):
        provider(opened.port, host="mail.example.com", security="tls").send(ISSUE, ADA)


def test_a_server_without_starttls_is_told_nothing(box: Sink) -> None:
    with pytest.raises(AccountRefused, match=r"no STARTTLS: look at provider\.security"):
        provider(box.port, security="starttls").send(ISSUE, ADA)
    assert box.count["MAIL"] == 0


@pytest.mark.parametrize("answer", ["535 5.7.8 wrong", "534 5.7.9 too weak", "530 5.7.0 no"])
def test_a_wrong_password_stops_at_once_and_is_not_told(answer: str) -> None:
    with sink(auth=True) as opened:
        opened.auth_answer = answer
        sender = provider(opened.port, {"FRIDAY_SMTP_PASSWORD": "hunter2"}, user="friday")
        with pytest.raises(AccountRefused, match=f"{answer}; look at provider.user and FRIDAY_SMTP_PASSWORD") as refused:
            sender.send(ISSUE, ADA)
        assert "hunter2" not in str(refused.value) + repr(sender)


def test_a_sign_in_that_cannot_be_judged_now_may_be_tried_again() -> None:
    with sink(auth=True) as opened:
        opened.auth_answer = "454 4.7.0 Temporary authentication failure"
        with pytest.raises(NotProcessed, match="454"):
            provider(opened.port, {"FRIDAY_SMTP_PASSWORD": "hunter2"}, user="friday").send(ISSUE, ADA)


@pytest.mark.parametrize("extensions", [("AUTH",), ("PLAIN", "LOGIN")])
def test_a_server_that_lets_nobody_sign_in_is_named(box: Sink, extensions: tuple[str, ...]) -> None:
    box.without = extensions
    with pytest.raises(AccountRefused, match="sign"):
        provider(box.port, {"FRIDAY_SMTP_PASSWORD": "secret"}, user="friday").send(ISSUE, ADA)


def test_a_way_to_sign_in_that_is_not_known_here_is_named() -> None:
    with parrot("220 hi", "250-hi\r\n250 AUTH XOAUTH2") as port, pytest.raises(AccountRefused, match="no way to sign in"):
        provider(port, {"FRIDAY_SMTP_PASSWORD": "secret"}, user="friday").send(ISSUE, ADA)


# What goes out


def test_a_message_arrives_as_it_was_made(box: Sink) -> None:
    issue = replace(ISSUE, text=".\n..two\n.one\n" + ISSUE.text, html=ISSUE.html.replace("<p>", "\n.\n<p>"))
    provider(box.port, batch_size=3).send(issue, PARCEL)
    for copy in COPIES:
        arrived = next(got for got in box.got if copy.ref in str(got.mail["Message-ID"]))
        assert arrived.content == message(issue, PARCEL, copy).as_bytes()
        assert f"SIZE={len(arrived.content)}" in arrived.options
        assert str(arrived.mail["Message-ID"]) == f"<{copy.ref}@news.example.com>"


@pytest.mark.parametrize(
    ("table", "mailbox", "sender"),
    [
        ({}, "", "friday@news.example.com"),
        ({}, "box@news.example.com", f"box+{COPIES[0].ref}@news.example.com"),
        ({"return_path": "back@exämple.com"}, "box@news.example.com", f"back+{COPIES[0].ref}@xn--exmple-cua.com"),
        ({}, f"{'b' * 40}@news.example.com", f"{'b' * 40}@news.example.com"),
    ],
)
def test_the_envelope_names_the_copy_where_a_box_is_read(box: Sink, table: dict[str, Any], mailbox: str, sender: str) -> None:
    provider(box.port, **table).send(replace(ISSUE, mailbox=mailbox), ADA)
    assert [got.sender for got in box.got] == [sender]


def test_an_address_beyond_ascii_needs_a_server_that_takes_it() -> None:
    with sink(enable_SMTPUTF8=False) as opened:
        receipts = provider(opened.port).send(ISSUE, PARCEL)
        assert [receipt.accepted for receipt in receipts] == [True, True, False]
        assert "SMTPUTF8" in receipts[2].reason
        with pytest.raises(AccountRefused, match=r"SMTPUTF8.*mailbox\.address"):
            provider(opened.port).send(replace(ISSUE, mailbox="böx@news.example.com"), ADA)
    with sink() as opened:
        assert provider(opened.port).send(ISSUE, PARCEL)[2].accepted
        assert opened.got[2].reader == "cléo@xn--exmple-cua.com"
        assert "SMTPUTF8" in opened.got[2].options


def test_a_message_that_is_too_large_for_the_server_is_not_sent() -> None:
    with sink(data_size_limit=900) as opened:
        with pytest.raises(CallRefused, match="at most 900 bytes"):
            provider(opened.port).send(ISSUE, ADA)
        assert opened.count["MAIL"] == 0


def test_an_old_server_without_extensions_is_spoken_to_plainly() -> None:
    answers = ("220 hi", "502 what is EHLO", "250 hi", "250 ok", "250 ok", "354 go on", "250 ok")
    with parrot(*answers) as port:
        assert provider(port).send(ISSUE, ADA)[0].accepted


# The signature


def signing(port: int, **options: Any) -> Provider:
    return provider(port, {"FRIDAY_DKIM_KEY": KEY.strip()}, dkim_selector="s1", **options)


def test_a_copy_is_signed_so_that_another_implementation_verifies_it(box: Sink) -> None:
    signing(box.port, batch_size=3).send(ISSUE, PARCEL)
    for got in box.got:
        tags = judge(got.content, KEY)
        assert (tags["d"], tags["s"], tags["c"], tags["a"]) == ("news.example.com", "s1", "relaxed/relaxed", "rsa-sha256")
        assert tags["t"] == str(int(PARCEL.dated.timestamp()))
        signed = set(re.split(r"\s*:\s*", tags["h"].lower()))
        assert signed >= {
            "from", "to", "subject", "date", "message-id", "mime-version", "content-type", "reply-to",
            "list-unsubscribe", "list-unsubscribe-post", "list-id", "feedback-id",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"For ada", b"For eve"),
        (b"/u/token1>", b"/u/token2>"),
        (b"\r\nFrom: ", b"\r\nFrom: Eve <eve@example.org>\r\nFrom: "),
        (b"\r\nSubject: ", b"\r\nSubject: Another\r\nSubject: "),
        (b"\r\nTo: ", b"\r\nCc: eve@example.org\r\nTo: "),
        (b"One-Click", b"One-Clack"),
    ],
)
def test_a_copy_that_was_changed_does_not_verify(box: Sink, before: bytes, after: bytes) -> None:
    signing(box.port).send(ISSUE, ADA)
    assert box.got[0].content.count(before) >= 1
    with pytest.raises(AssertionError):
        judge(box.got[0].content.replace(before, after, 1), KEY)


def test_spaces_that_a_relay_changes_do_no_harm(box: Sink) -> None:
    signing(box.port).send(ISSUE, ADA)
    judge(box.got[0].content.replace(b"\r\nSubject: ", b"\r\nSUBJECT:   ") + b"\r\n\r\n", KEY)


def test_the_same_parcel_is_the_same_bytes(box: Sink) -> None:
    sender = signing(box.port)
    sender.send(ISSUE, ADA)
    sender.send(ISSUE, ADA)
    assert box.got[0].content == box.got[1].content


def test_another_domain_may_sign(box: Sink) -> None:
    signing(box.port, dkim_domain="example.com").send(ISSUE, ADA)
    assert judge(box.got[0].content, KEY)["d"] == "example.com"


# The options


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"user": "u", "security": "none"}, "provider.security"),
        ({"dkim_domain": "example.com"}, "provider.dkim_domain"),
        ({"dkim_selector": "a b"}, "provider.dkim_selector"),
        ({"return_path": "b" * 32 + "@example.com"}, "provider.return_path"),
        ({"return_path": "bö@example.com"}, "provider.return_path"),
        ({"host": "https://mail.example.com"}, "provider.host"),
        ({"port": 0}, "provider.port"),
        ({"security": "ssl"}, "provider.security"),
        ({"batch_size": 101}, "provider.batch_size"),
    ],
)
def test_a_mistake_in_the_table_is_named(options: dict[str, Any], where: str) -> None:
    secrets = {"FRIDAY_SMTP_PASSWORD": "secret", "FRIDAY_DKIM_KEY": KEY.strip()}
    assert [problem.where for problem in problems_of(secrets, **options)] == [where]


def test_a_password_may_go_in_the_clear_to_this_machine_only() -> None:
    secrets = {"FRIDAY_SMTP_PASSWORD": "secret"}
    for host in ("localhost", "127.0.0.1", "::1"):
        assert problems_of(secrets, host=host, user="u", security="none") == []
    assert problems_of(security="none") == []


def test_just_the_secrets_that_are_needed_are_asked_for() -> None:
    assert problems_of() == []
    missing = problems_of(user="u", dkim_selector="s1")
    assert [problem.where for problem in missing] == ["FRIDAY_SMTP_PASSWORD", "FRIDAY_DKIM_KEY"]


def test_the_port_follows_the_security() -> None:
    ports = {}
    for security in ("starttls", "tls"):
        built, _ = build_provider({"name": "smtp", "host": "mail.example.com", "security": security}, Secrets({}), Path())
        assert isinstance(built, smtp.Smtp)
        ports[security] = built.relay.server.port
    assert ports == {"starttls": 587, "tls": 465}


def test_a_key_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(KEY, "utf-8")
    assert problems_of({"FRIDAY_DKIM_KEY_FILE": str(tmp_path / "key.pem")}, dkim_selector="s1") == []


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("nonsense", "is not an RSA private key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "is not an RSA private key"),
        (KEY.replace(KEY.splitlines()[20], ""), "is not an RSA private key"),
        (KEY.replace(KEY.splitlines()[14][20:24], "AAAA"), "is damaged"),
    ],
)
def test_a_key_that_cannot_sign_is_a_mistake_in_the_config_and_is_not_shown(key: str, what: str) -> None:
    (problem,) = problems_of({"FRIDAY_DKIM_KEY": key.strip()}, dkim_selector="s1")
    assert problem.where == "FRIDAY_DKIM_KEY"
    assert what in problem.what
    assert KEY.splitlines()[1] not in str(problem)
    assert KEY.splitlines()[1] not in repr(Signature("s1", KEY))


def test_a_key_that_is_too_short_to_count_is_named() -> None:
    with pytest.raises(ValueError, match="has 512 bits"):
        check_key((CERTIFICATE.parent / "short.pem").read_text("utf-8"))
