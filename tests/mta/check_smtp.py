"""An issue through a real Postfix to a sink that refuses some, and what comes back of it; run by `make check-smtp`."""

import re
import smtplib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlmodel import col, select

from pipeline import listen, mailbox, publish
from pipeline.books import DeliveryRow
from pipeline.config import Mailbox, Secrets
from pipeline.issue import Event, Kind, Notice
from pipeline.newsroom import Newsroom, open_newsroom
from subscribers.models import State, Subscriber, Suppression
from tests.conftest import FRIDAY, Clock, build_world
from tests.mta import servers
from tests.mta.servers import PASSWORD, Postfix, imap, postfix
from tests.sink import CERTIFICATE, Sink, sink

BOX = "box@news.example.com"
REFUSED = {
    "RCPT gone@example.com": "550 5.1.1 no such user",
    "RCPT full@example.com": "452 4.2.2 mailbox full",
    "RCPT policy@example.com": "550 5.7.1 this sender is not wanted here",
    "DATA spam@example.com": "554 5.7.1 message looks like spam",
    "DATA big@example.com": "552 5.3.4 message too big",
}
WELL = ("ada@example.com", "ben@example.com")
MEANS = {
    "gone@example.com": Kind.HARD_BOUNCE,
    "full@example.com": Kind.SOFT_BOUNCE,
    "policy@example.com": Kind.BLOCKED,
    "spam@example.com": Kind.BLOCKED,
    "big@example.com": Kind.BLOCKED,
}


@dataclass
class Sent:
    """An issue that went out: what arrived, what the relay is, and each reader's reference."""

    sink: Sink
    relay: Postfix
    refs: dict[str, str]
    dns: Path
    newsroom: Newsroom


def until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + servers.SECONDS
    while not holds():
        assert time.monotonic() < deadline, log.read_text("utf-8", "replace")
        time.sleep(0.05)


def a_key(folder: Path) -> Path:
    """A private key, and beside it the DNS as OpenDKIM reads it for a test."""
    subprocess.run(
        ["/usr/sbin/opendkim-genkey", "-b", "2048", "-d", "news.example.com", "-s", "s1", "-D", str(folder)], check=True
    )
    public = subprocess.run(
        ["openssl", "rsa", "-in", str(folder / "s1.private"), "-pubout", "-outform", "pem"],  # noqa: S607 - from the path, as everybody has it
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    record = "".join(line for line in public.splitlines() if "-----" not in line)
    (folder / "dns").write_text(f"s1._domainkey.news.example.com v=DKIM1; k=rsa; p={record}\n", "utf-8")
    # The newsroom's clock stands on a Friday of its own.
    settings = f"Mode v\nTestDNSData {folder}/dns\nSyslog no\nClockDrift {10 * 365 * 86400}\n"
    (folder / "opendkim.conf").write_text(settings, "utf-8")
    return folder / "s1.private"


def verdict(folder: Path, content: bytes) -> str:
    """What OpenDKIM says of a mail."""
    (folder / "mail").write_bytes(content)
    judged = subprocess.run(
        ["/usr/sbin/opendkim", "-x", str(folder / "opendkim.conf"), "-t", str(folder / "mail")],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return judged.stdout + judged.stderr


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """A whole Friday over STARTTLS through Postfix, signed, all its bounces back in the box."""
    folder = tmp_path_factory.mktemp("friday")
    key = a_key(folder)
    with pytest.MonkeyPatch.context() as patch, sink() as opened, postfix(opened.port) as relay:
        patch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        opened.answers |= REFUSED
        table = f'name = "smtp"\nhost = "localhost"\nport = {relay.port}\ndkim_selector = "s1"'
        world = build_world(folder, f"sqlite:///{folder}/friday.db")
        config = (folder / "config.toml").read_text("utf-8").replace('name = "outbox"', table)
        (folder / "config.toml").write_text(f'{config}\n[mailbox]\naddress = "{BOX}"\nmaildir = "{relay.maildir}"\n', "utf-8")
        world.tell_a_week()
        world.subscribe(*(address.partition("@")[0] for address in (*WELL, *MEANS)))
        newsroom = replace(open_newsroom(folder / "config.toml", {"FRIDAY_DKIM_KEY_FILE": str(key)}), now=Clock())
        report = publish.publish(newsroom, newsroom.schedule.slot(FRIDAY.date()))
        assert report.counts["accepted"] == len(WELL) + len(MEANS)
        with newsroom.database.read() as session:
            pairs = session.exec(
                select(Subscriber.address, DeliveryRow.ref).join(
                    DeliveryRow, col(DeliveryRow.subscriber_id) == col(Subscriber.id)
                )
            )
            refs = {str(address): str(ref) for address, ref in pairs}
        new = relay.maildir / "new"
        until(lambda: len(list(new.iterdir())) == len(MEANS), relay.log)
        until(lambda: len(opened.got) == len(WELL), relay.log)
        yield Sent(opened, relay, refs, folder, newsroom)
        newsroom.database.engine.dispose()
        world.database.engine.dispose()


def as_new(maildir: Path) -> None:
    """Nobody has seen anything of it yet."""
    for seen in (maildir / "cur").iterdir():
        seen.rename(maildir / "new" / seen.name.partition(":")[0])


def told(events: list[Event], refs: dict[str, str]) -> dict[str, Kind]:
    addresses = {ref: address for address, ref in refs.items()}
    assert all(event.address == "" for event in events)
    return {addresses[event.ref]: event.kind for event in events}


def test_who_is_not_refused_has_a_signed_copy_that_opendkim_verifies(sent: Sent) -> None:
    assert sorted(sent.sink.readers) == sorted(WELL)
    for address in WELL:
        got = sent.sink.to(address)
        assert got.sender == f"box+{sent.refs[address]}@news.example.com"
        assert "2048-bit key) succeeded" in verdict(sent.dns, got.content)


@pytest.mark.parametrize(
    ("before", "after"), [(b"List-Unsubscribe: <https://news", b"List-Unsubscribe: <https://evil"), (b"</html>", b"<p></html>")]
)
def test_a_tampered_copy_fails_at_opendkim(sent: Sent, before: bytes, after: bytes) -> None:
    content = sent.sink.to(WELL[0]).content
    assert before in content
    assert ") failed: " in verdict(sent.dns, content.replace(before, after))


def test_an_imap_box_gives_what_came_back_and_loses_nothing_to_a_death_between(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_new(sent.relay.maildir)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    secrets = Secrets({"FRIDAY_MAILBOX_PASSWORD": PASSWORD})

    class Died(Exception):
        pass

    def die(_notices: object) -> None:
        raise Died

    with imap(sent.relay.maildir) as server:
        for port in (server.tls, server.plain):
            box = Mailbox(address=BOX, host="localhost", port=port, user="friday")
            with monkeypatch.context() as patch:
                # Any port but 993 of this machine is spoken to in the clear.
                patch.setattr(mailbox, "_TLS_PORT", server.tls)
                with pytest.raises(Died):
                    mailbox.look_into(box, secrets, die)
        kept: list[Notice] = []
        assert mailbox.look_into(box, secrets, kept.extend) == len(MEANS)
        assert mailbox.look_into(box, secrets, kept.extend) == 0
        assert len({notice.key for notice in kept}) == len(MEANS)
    events = [event for notice in kept for event in mailbox.read(notice.body)]
    assert told(events, sent.refs) == MEANS


def test_a_maildir_gives_what_came_back(sent: Sent) -> None:
    as_new(sent.relay.maildir)
    box = Mailbox(address=BOX, maildir=sent.relay.maildir)
    kept: list[Notice] = []
    assert mailbox.look_into(box, Secrets({}), kept.extend) == len(MEANS)
    assert mailbox.look_into(box, Secrets({}), kept.extend) == 0
    events = [event for notice in kept for event in mailbox.read(notice.body)]
    assert told(events, sent.refs) == MEANS
    assert not any("@" in event.reason for event in events)


def test_what_came_back_reaches_the_roll_and_the_report(sent: Sent) -> None:
    """The whole circle: a bounce ends in a suppression, a mail to the address in a copy's header in a reader who has left."""
    header = str(sent.sink.to(WELL[0]).mail["List-Unsubscribe"])
    found = re.search(r"<mailto:([^?>]+)\?subject=([^>]+)>", header)
    assert found, header
    with smtplib.SMTP("127.0.0.1", sent.relay.port) as client:
        client.sendmail(WELL[0], [found.group(1)], f"From: {WELL[0]}\r\nSubject: {found.group(2)}\r\n\r\n")
    as_new(sent.relay.maildir)
    new = sent.relay.maildir / "new"
    until(lambda: len(list(new.iterdir())) == len(MEANS) + 1, sent.relay.log)
    assert listen.read_mailbox(sent.newsroom) == len(MEANS) + 1
    assert listen.apply_notices(sent.newsroom) == len(MEANS) + 1
    with sent.newsroom.database.read() as session:
        readers = {reader.address: reader for reader in session.exec(select(Subscriber))}
        suppressed = set(session.exec(select(Suppression.key)))
        fates = {str(ref): fate for ref, fate in session.exec(select(DeliveryRow.ref, DeliveryRow.fate))}
    assert readers[WELL[0]].state == State.UNSUBSCRIBED
    assert readers[WELL[1]].state == State.ACTIVE
    assert suppressed == {readers["gone@example.com"].key}
    assert {address: fates[sent.refs[address]] for address in MEANS} == {address: kind.value for address, kind in MEANS.items()}
