"""What every provider keeps to, whichever files there are: options, secrets, receipts, keys, one reader per copy."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import default
from email.utils import parseaddr
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Secrets
from pipeline.errors import NotProcessed
from pipeline.issue import Copy, Parcel, RenderedIssue
from pipeline.mime import message
from pipeline.providers import Provider, build_provider, names
from pipeline.text import one_line, wire_address
from tests.fake_mailgun import FakeMailgun, fake_mailgun

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


def sent_by_outbox(folder: Path) -> dict[str, dict[str, str]]:
    sent = {}
    for path in sorted((folder / "outbox").rglob("*.eml")):
        mail = message_from_bytes(path.read_bytes(), policy=default)
        html, text = mail.get_body(("html",)), mail.get_body(("plain",))
        assert html is not None
        assert text is not None
        sent[str(mail["To"])] = {
            "html": html.get_content(), "text": text.get_content(), "subject": str(mail["Subject"]), "from": str(mail["From"]),
            "leave": str(mail["List-Unsubscribe"]),
            "one click": str(mail["List-Unsubscribe-Post"]), "reply to": str(mail["Reply-To"]),
        }  # fmt: skip
    return sent


def sent_by_mailgun(fake: FakeMailgun) -> dict[str, dict[str, str]]:
    sent = {}
    for call in fake.accepted:
        for address in call.all("to"):
            copy = call.copy_for(address)
            sent[address] = {
                "html": copy["html"], "text": copy["text"], "subject": copy["subject"], "from": copy["from"],
                "leave": copy["h:List-Unsubscribe"],
                "one click": copy["h:List-Unsubscribe-Post"], "reply to": copy["h:Reply-To"],
            }  # fmt: skip
    return sent


@dataclass(frozen=True)
class Bench:
    """A working provider and what its readers got of it: per address html, text, subject, from, and so on."""

    provider: Provider
    sent: Callable[[], dict[str, dict[str, str]]]
    count: Callable[[], int]


@dataclass(frozen=True)
class Row:
    """What the suite has to know about a provider: options and secrets that work, how to read and count its mail."""

    options: Callable[[FakeMailgun], dict[str, Any]]
    secrets: dict[str, str]
    sent: Callable[[Path, FakeMailgun], dict[str, dict[str, str]]]
    count: Callable[[Path, FakeMailgun], int]


BENCHES = {
    "outbox": Row(
        lambda _fake: {},
        {},
        lambda folder, _fake: sent_by_outbox(folder),
        lambda folder, _fake: len(list(folder.rglob("*.eml"))),
    ),
    "mailgun": Row(
        lambda fake: {"domain": "news.example.com", "base_url": fake.url},
        {"FRIDAY_PROVIDER_KEY": "secret"},
        lambda _folder, fake: sent_by_mailgun(fake),
        lambda _folder, fake: len(fake.readers),
    ),
}


def row_of(name: str) -> Row:
    assert name in BENCHES, f"pipeline/providers/{name}.py has no row in BENCHES: see CONTRIBUTING, “A provider”"
    return BENCHES[name]


def table_of(name: str, **more: object) -> dict[str, object]:
    return {"name": name, **row_of(name).options(FakeMailgun("https://api.example.com")), **more}


@pytest.fixture(params=names())
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Every provider that there is a file for, in front of something that takes its mail."""
    row = row_of(request.param)
    with fake_mailgun() as fake:
        provider, problems = build_provider({"name": request.param, **row.options(fake)}, Secrets(row.secrets), tmp_path)
        assert problems == []
        assert provider is not None
        yield Bench(provider, lambda: row.sent(tmp_path, fake), lambda: row.count(tmp_path, fake))


def test_every_copy_has_one_receipt_in_the_order_of_the_parcel(bench: Bench) -> None:
    receipts = bench.provider.send(ISSUE, PARCEL)
    assert [receipt.ref for receipt in receipts] == [copy.ref for copy in COPIES]
    assert all(receipt.accepted and receipt.provider_id for receipt in receipts)


def test_every_reader_gets_an_own_copy_with_an_own_way_out(bench: Bench) -> None:
    bench.provider.send(ISSUE, PARCEL)
    sent = bench.sent()
    assert set(sent) == {wire_address(copy.address) for copy in COPIES}
    for copy in COPIES:
        got = sent[wire_address(copy.address)]
        assert got["leave"] == f"<{copy.unsubscribe_url}>"
        assert got["one click"] == "List-Unsubscribe=One-Click"
        assert copy.unsubscribe_url in got["html"]
        assert f"For {copy.address}\nLeave: {copy.unsubscribe_url}" in got["text"].replace("\r\n", "\n")
        others = [other.address for other in COPIES if other is not copy]
        assert not any(other in got["html"] + got["text"] for other in others)


def test_a_value_is_escaped_in_html_and_as_it_is_in_text(bench: Bench) -> None:
    bench.provider.send(ISSUE, PARCEL)
    got = bench.sent()["o'ben+tag@example.com"]
    assert "o&#x27;ben+tag@example.com" in got["html"]
    assert "o'ben+tag@example.com" in got["text"]


def test_the_envelope_is_the_issues(bench: Bench) -> None:
    bench.provider.send(ISSUE, PARCEL)
    for got in bench.sent().values():
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
    default, _ = build_provider(table_of(name), secrets, tmp_path)
    assert default is not None
    _, problems = build_provider(table_of(name, batch_size=default.limits.copies + 1), secrets, tmp_path)
    assert [problem.where for problem in problems] == ["provider.batch_size"]


def test_the_same_parcel_twice_is_delivered_once_just_where_keys_are_honoured(bench: Bench) -> None:
    bench.provider.send(ISSUE, PARCEL)
    first = bench.count()
    bench.provider.send(ISSUE, PARCEL)
    honours_keys = bench.provider.limits.key_lifetime is not None
    assert bench.count() == (first if honours_keys else 2 * first)


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
