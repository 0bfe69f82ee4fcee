"""Incoming mail: a box loses nothing, and what comes back to it is believed for the copy that it names only."""

import base64
import hashlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import mailbox
from pipeline.config import Mailbox, Secrets
from pipeline.errors import AccountRefused, ProviderError
from pipeline.issue import Event, Kind, Notice
from pipeline.returned import read
from tests.fake_imap import FakeImap, fake_imap
from tests.sink import CERTIFICATE, server_context

BOUNCES = Path(__file__).parent / "data" / "bounces"
REF = "0123456789abcdef0123456789abcdef"
VERP = f"box+{REF}@news.example.com"
BOX = "box@news.example.com"
ORIGINAL = f"Message-ID: <{REF}@news.example.com>\nSubject: The Test Five\nTo: ada@example.com\n"


def a_mail(headers: dict[str, str], body: str = "") -> bytes:
    return ("".join(f"{name}: {value}\n" for name, value in headers.items()) + "\n" + body).encode()


def a_report(
    fields: str, *, to: str = VERP, original: str = "", words: str = "It did not work.", kind: str = "report"
) -> bytes:
    """A delivery report (RFC 3464)."""
    parts = [
        f"Content-Type: text/plain\n\n{words}\n",
        f"Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx\n\n{fields}\n",
    ]
    if original:
        parts.append(f"Content-Type: text/rfc822-headers\n\n{original}\n")
    body = "".join(f"--=b\n{part}\n" for part in parts) + "--=b--\n"
    heads = {"From": "MAILER-DAEMON@mx.example.org", "To": to, "Subject": "Undelivered", "MIME-Version": "1.0"}
    return a_mail(heads | {"Content-Type": f'multipart/{kind}; report-type=delivery-status; boundary="=b"'}, body)


def a_bounce(text: str, to: str = VERP, **more: str) -> bytes:
    heads = {"Return-Path": "<>", "From": "MAILER-DAEMON@mx.example.org", "To": to, "Subject": "failure notice"}
    return a_mail(heads | {name.replace("_", "-"): value for name, value in more.items()}, text)


def a_complaint(kind: str = "abuse", *, to: str = "fbl@news.example.com", original: str = ORIGINAL, more: str = "") -> bytes:
    """A feedback report (RFC 5965)."""
    body = (
        "--=b\nContent-Type: text/plain\n\nSomebody complains.\n"
        f"--=b\nContent-Type: message/feedback-report\n\nFeedback-Type: {kind}\nVersion: 1\n{more}\n"
        f"--=b\nContent-Type: message/rfc822\n\n{original}\nHello.\n--=b--\n"
    )
    heads = {"From": "fbl@example.org", "To": to, "MIME-Version": "1.0"}
    return a_mail(heads | {"Content-Type": 'multipart/report; report-type=feedback-report; boundary="=b"'}, body)


def kinds(raw: bytes) -> list[tuple[Kind, str]]:
    events = read(raw)
    # Whoever writes to the box could name anybody.
    assert all(event.address == "" for event in events)
    assert not any("@" in event.reason for event in events)
    return [(event.kind, event.ref) for event in events]


# Delivery reports


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ("Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no such user", Kind.HARD_BOUNCE),
        ("Action: Failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 550 5.1.1 no such user", Kind.HARD_BOUNCE),
        ("Action: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 550 no such user", Kind.HARD_BOUNCE),
        ("Action: failed\nStatus: 5.4.4\nDiagnostic-Code: X-Postfix; Host not found", Kind.SOFT_BOUNCE),
        ("Action: failed\nStatus: 5.2.2\nDiagnostic-Code: smtp; 552 5.2.2 full", Kind.SOFT_BOUNCE),
        ("Action: failed\nStatus: 4.4.7\nDiagnostic-Code: smtp; 421 4.4.7 expired", Kind.SOFT_BOUNCE),
        ("Action: failed\nStatus: 5.7.1\nDiagnostic-Code: smtp; 550 5.7.1 spam", Kind.BLOCKED),
        ("Action: failed\nStatus: 5.3.4", Kind.BLOCKED),
        ("Action: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 554 5.7.1 no", Kind.BLOCKED),
        ("Action: failed\nStatus: 5.2.2\nDiagnostic-Code: smtp; 550 odd", Kind.SOFT_BOUNCE),
        ("Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 <ada@example.com> unknown", Kind.HARD_BOUNCE),
        ("Status: 5.1.1", Kind.HARD_BOUNCE),
        ("Action: delayed\nStatus: 4.4.1", Kind.OTHER),
        ("Action: relayed\nStatus: 2.0.0", Kind.OTHER),
        ("Action: expanded\nStatus: 2.0.0", Kind.OTHER),
        ("Action: delivered\nStatus: 2.0.0", Kind.DELIVERED),
    ],
)
def test_a_delivery_report_is_what_its_fields_say(fields: str, kind: Kind) -> None:
    assert kinds(a_report(f"Final-Recipient: rfc822; ada@example.com\n{fields}\n")) == [(kind, REF)]


def test_a_report_is_that_of_the_copy_whose_address_it_came_to_or_whose_original_it_brings() -> None:
    fields = "Final-Recipient: rfc822; ada@example.com\nAction: failed\nStatus: 5.1.1\n"
    assert kinds(a_report(fields, to=VERP.upper())) == [(Kind.HARD_BOUNCE, REF)]
    assert kinds(a_report(fields, to=BOX, original=ORIGINAL)) == [(Kind.HARD_BOUNCE, REF)]
    assert kinds(a_report(fields, to=BOX, original=f"Return-Path: <{VERP}>\nSubject: x\n")) == [(Kind.HARD_BOUNCE, REF)]
    for header in ("Delivered-To", "X-Original-To"):
        assert kinds(a_report(fields, to=BOX).replace(b"To: ", f"{header}: {VERP}\nTo: ".encode(), 1)) == [
            (Kind.HARD_BOUNCE, REF)
        ]


@pytest.mark.parametrize("to", [BOX, "box+abc@news.example.com", f"box+{REF}0@news.example.com", f"box{REF}@news.example.com"])
def test_a_report_that_names_no_copy_of_ours_changes_nothing(to: str) -> None:
    fields = "Final-Recipient: rfc822; victim@example.com\nAction: failed\nStatus: 5.1.1\n"
    forged = a_report(fields, to=to, original="Message-ID: <other@example.org>\nTo: victim@example.com\n")
    (event,) = read(forged)
    assert (event.kind, event.ref, event.address) == (Kind.OTHER, "", "")
    assert "names no copy" in event.reason


def test_a_report_on_several_addresses_is_as_many_events_and_no_flood() -> None:
    block = "Final-Recipient: rfc822; {}@example.com\nAction: failed\nStatus: {}\n\n"
    assert kinds(a_report(block.format("a", "5.1.1") + block.format("b", "4.2.2"))) == [
        (Kind.HARD_BOUNCE, REF),
        (Kind.SOFT_BOUNCE, REF),
    ]
    assert len(read(a_report(block.format("a", "5.1.1") * 1000))) == 20


def test_a_report_that_is_encoded_though_it_must_not_be_is_read() -> None:
    fields = "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; a@example.com\nAction: failed\nStatus: 5.1.1\n"
    encoded = base64.encodebytes(fields.encode()).decode()
    body = f"--=b\nContent-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n\n{encoded}\n--=b--\n"
    heads = {"From": "postmaster@mx.example.org", "To": VERP, "Content-Type": 'multipart/report; boundary="=b"'}
    assert kinds(a_mail(heads, body)) == [(Kind.HARD_BOUNCE, REF)]


def test_what_postfix_and_opensmtpd_send_back_is_read() -> None:
    assert kinds((BOUNCES / "postfix.eml").read_bytes()) == [(Kind.HARD_BOUNCE, REF)]
    # Its status is 5.0.0 whatever happened; what did is in its words.
    assert kinds((BOUNCES / "opensmtpd.eml").read_bytes()) == [(Kind.HARD_BOUNCE, REF)]
    blocked = (BOUNCES / "opensmtpd.eml").read_bytes().replace(b"550 5.1.1 no such user", b"554 5.7.1 looks like spam")
    assert kinds(blocked) == [(Kind.BLOCKED, REF)]


def test_where_there_are_only_words_those_behind_the_address_count() -> None:
    words = "b@example.com: 554 5.7.1 spam\n\na@example.com: 550 5.1.1 unknown\n"
    block = "Final-Recipient: rfc822; {}@example.com\nAction: failed\nStatus: 5.0.0\n\n"
    report = a_report(block.format("a") + block.format("b"), words=words, kind="mixed")
    assert kinds(report) == [(Kind.HARD_BOUNCE, REF), (Kind.BLOCKED, REF)]


def test_a_diagnosis_without_a_code_is_believed_before_what_is_written_for_people() -> None:
    fields = "Action: failed\nStatus: 5.0.0\nDiagnostic-Code: X-Mx; the mailbox does not exist\n"
    (event,) = read(a_report(fields, words="ada@example.com: 554 5.7.1 spam"))
    assert event == Event(Kind.HARD_BOUNCE, REF, reason="failed 5.0.0 X-Mx; the mailbox does not exist")


# Plain bounces

QMAIL = """This is the mail program at mx.example.org. It could not hand on what you sent.

<ada@example.com>:
192.0.2.1 does not like recipient.
Remote host said: 550 5.1.1 unknown
"""
EXIM = """What you sent could not be delivered.

  ada@example.com
    SMTP error from remote mail server after RCPT TO:<ada@example.com>:
    550 no such user
"""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (QMAIL, Kind.HARD_BOUNCE),
        (EXIM, Kind.HARD_BOUNCE),
        ("Your mail was refused.\n\nada@example.com: 554 5.7.1 blocked by policy\n", Kind.BLOCKED),
        ("The box is full.\n\nada@example.com: 552 5.2.2 over quota\n", Kind.SOFT_BOUNCE),
        ("We have given up.\n\n451 4.4.1 no answer from host\n", Kind.SOFT_BOUNCE),
        ("Warning: it is delayed and will be retried.\n\n451 4.4.1 no answer from host\n", Kind.OTHER),
    ],
)  # fmt: skip
def test_a_plain_bounce_is_what_its_words_say(text: str, kind: Kind) -> None:
    assert kinds(a_bounce(text)) == [(kind, REF)]


def test_a_plain_bounce_is_known_by_its_empty_sender_or_by_the_name_of_a_daemon() -> None:
    assert kinds(a_bounce(QMAIL, From="bounces@mx.example.org")) == [(Kind.HARD_BOUNCE, REF)]
    assert kinds(a_bounce(QMAIL, Return_Path="<bounces@mx.example.org>")) == [(Kind.HARD_BOUNCE, REF)]
    assert kinds(a_bounce(QMAIL, Return_Path="<bounces@mx.example.org>", From="bounces@mx.example.org")) == []


def test_a_bounce_of_a_known_form_is_final_though_its_words_tell_of_a_delay() -> None:
    text = "Hi. This is the qmail-send program at mx.\n\n<ada@example.com>:\n550 5.1.1 unknown, and it was delayed before\n"
    assert kinds(a_bounce(text)) == [(Kind.HARD_BOUNCE, REF)]


def test_a_reason_is_the_servers_answer() -> None:
    assert read(a_bounce("ada@example.com: 550 no such user\n"))[0].reason == "550 no such user"


def test_a_plain_bounce_is_that_of_the_original_below_it_and_its_words_are_not_the_originals() -> None:
    text = "ada@example.com: 550 5.1.1 unknown\n\n--- Below this line is a copy of the message.\n\n" + ORIGINAL
    assert kinds(a_bounce(text, BOX)) == [(Kind.HARD_BOUNCE, REF)]
    quoted = f"Your mail.\n\nReceived: from here\n{ORIGINAL}\n550 5.1.1 stories about mail servers\n"
    assert kinds(a_bounce(quoted)) == []


def test_a_plain_bounce_that_names_no_copy_changes_nothing() -> None:
    assert kinds(a_bounce("victim@example.com: 550 5.1.1 unknown\n", BOX)) == [(Kind.OTHER, "")]


@pytest.mark.parametrize(
    "raw",
    [
        a_bounce("Thank you, I am away, in room 550 until Monday.", From="ada@example.com", Auto_Submitted="auto-replied"),
        a_bounce("Thank you, I am away.\n550 is my room.", From="ada@example.com"),
        a_bounce("I am away. See 5.1.1 of our rules.", From="ada@example.com", Auto_Submitted="auto-replied (vacation)"),
        a_bounce("ada@example.com: 550 5.1.1 unknown", X_Autoreply="yes"),
        a_bounce("ada@example.com: 550 5.1.1 unknown", List_Id="<list.example.org>"),
        a_bounce("550 5.1.1 is what my server said", Return_Path="<ada@example.com>", From="ada@example.com"),
        a_mail({"From": "ada@example.com", "To": BOX, "Subject": "Hello"}, "How are you?"),
        a_mail({"From": "postmaster@news.example.com", "To": VERP, "List-Unsubscribe": "<x>"}, "550 5.1.1 a headline"),
        b"",
        b"\n",
        b"no mail at all",
    ],
)  # fmt: skip
def test_answers_of_people_who_are_away_and_newsletters_are_nothing(raw: bytes) -> None:
    assert read(raw) == []


# Complaints and readers who leave


@pytest.mark.parametrize(
    ("kind", "means"),
    [
        ("abuse", Kind.COMPLAINED), ("Fraud", Kind.COMPLAINED), ("virus", Kind.COMPLAINED), ("other", Kind.COMPLAINED),
        ("not-spam", Kind.OTHER), ("auth-failure", Kind.OTHER), ("dmarc", Kind.OTHER), ("opt-out", Kind.UNSUBSCRIBED),
    ],
)  # fmt: skip
def test_a_feedback_report_is_a_complaint(kind: str, means: Kind) -> None:
    assert kinds(a_complaint(kind)) == [(means, REF)]


def test_a_complaint_is_believed_for_the_copy_that_it_shows_only() -> None:
    nobody = "Message-ID: <x@example.org>\nTo: victim@example.com\n"
    assert kinds(a_complaint(original=nobody, more="Original-Rcpt-To: <victim@example.com>\n")) == [(Kind.OTHER, "")]
    assert kinds(a_complaint("opt-out", original=nobody)) == [(Kind.OTHER, "")]
    assert kinds(a_complaint(original=nobody, more=f"Original-Mail-From: <{VERP}>\n")) == [(Kind.COMPLAINED, REF)]
    assert kinds(a_complaint(original=f"Return-Path: <{VERP}>\nSubject: x\n")) == [(Kind.COMPLAINED, REF)]


def test_a_report_is_a_report_whatever_its_subject() -> None:
    raw = a_report("Action: failed\nStatus: 5.1.1\n").replace(b"Subject: Undelivered", b"Subject: leave-" + b"t" * 22)
    assert kinds(raw) == [(Kind.HARD_BOUNCE, REF)]


@pytest.mark.parametrize("subject", ["leave-{}", "Leave-{}", "  leave-{} ", "leave-{}\n "])
def test_a_mail_to_leave_carries_the_subscribers_token(subject: str) -> None:
    token = "Abc_-0123456789xyzABCD"  # noqa: S105 - a test's
    raw = a_mail({"From": "ada@example.com", "To": BOX, "Subject": subject.format(token)}, "unsubscribe")
    assert read(raw) == [Event(Kind.UNSUBSCRIBED, token=token, reason="a mail to the box")]


def test_a_mail_client_that_leaves_by_itself_is_heard() -> None:
    heads = {"From": "ada@example.com", "To": BOX, "Subject": f"leave-{'t' * 22}", "Auto-Submitted": "auto-generated"}
    assert [event.kind for event in read(a_mail(heads))] == [Kind.UNSUBSCRIBED]


@pytest.mark.parametrize(
    "subject", ["leave-", "leave-short", f"please leave-{'t' * 22}", f"leave-{'t' * 22} now", f"leave-{'t' * 65}"]
)
def test_another_subject_leaves_nothing(subject: str) -> None:
    assert read(a_mail({"From": "ada@example.com", "To": BOX, "Subject": subject})) == []


# Whatever comes

PIECES = st.sampled_from(
    [
        b"Content-Type: multipart/report; boundary=b\n", b"Content-Type: message/delivery-status\n", b"--b\n", b"--b--\n",
        b"\n",
        b"Content-Type: message/rfc822\n", b"Content-Type: message/feedback-report\n", b"Content-Transfer-Encoding: base64\n",
        b"Action: failed\n", b"Status: 5.1.1\n", b"From: MAILER-DAEMON@x\n", f"To: {VERP}\n".encode(), b"Return-Path: <>\n",
        ORIGINAL.encode(), b"550 5.1.1 x\n", b"Content-Type: text/plain; charset=nonsense\n", b"Subject: =?x?q?\xff?=\n",
        b"Content-Type: text/rfc822-headers\n", b"Content-Type: multipart/mixed; boundary=b\n", b"Feedback-Type: abuse\n",
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(st.lists(PIECES | st.binary(max_size=40), max_size=25).map(b"".join))
def test_whatever_bytes_come_are_events_or_a_value_error(raw: bytes) -> None:
    try:
        events = read(raw)
    except ValueError:
        return
    for event in events:
        assert event.ref in ("", REF)
        assert event.kind is Kind.OTHER or event.ref or event.token
        assert event.address == ""


@settings(deadline=None)
@given(st.text(max_size=200))
def test_whatever_a_notice_holds_is_events_or_a_value_error(body: str) -> None:
    with suppress(ValueError):
        mailbox.read(body)


def test_a_mail_nested_beyond_reason_is_a_value_error() -> None:
    deep = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(2000)).encode()
    with pytest.raises(ValueError, match="RecursionError"):
        read(deep)


# The box


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    for name in ("new", "cur", "tmp"):
        (tmp_path / "box" / name).mkdir(parents=True)
    return tmp_path / "box"


def look(folder: Path, kept: list[Notice]) -> int:
    return mailbox.look_into(Mailbox(address=BOX, maildir=folder), Secrets({}), kept.extend)


def test_a_maildir_gives_each_mail_once_and_keeps_it(maildir: Path) -> None:
    (maildir / "new" / "1.a.host").write_bytes(b"Subject: one\n\n\xff\x00")
    (maildir / "cur" / "2.b.host:2,").write_bytes(b"two")
    (maildir / "cur" / "3.c.host:2,FR").write_bytes(b"three")
    (maildir / "cur" / "4.d.host:2,S").write_bytes(b"seen by somebody")
    (maildir / "tmp" / "5.e.host").write_bytes(b"half of i")
    kept: list[Notice] = []
    assert look(maildir, kept) == 3
    assert [base64.b64decode(notice.body) for notice in kept] == [b"Subject: one\n\n\xff\x00", b"two", b"three"]
    assert kept[1].key == hashlib.sha256(b"two").hexdigest()
    assert look(maildir, kept) == 0
    assert sorted(path.name for path in (maildir / "cur").iterdir()) == [
        "1.a.host:2,S", "2.b.host:2,S", "3.c.host:2,FRS", "4.d.host:2,S",
    ]  # fmt: skip
    assert list((maildir / "new").iterdir()) == []


class Died(Exception):
    pass


def die(_notices: object) -> None:
    raise Died


def test_a_death_before_notices_are_kept_loses_none(maildir: Path) -> None:
    (maildir / "new" / "1.a.host").write_bytes(b"one")
    with pytest.raises(Died):
        mailbox.look_into(Mailbox(address=BOX, maildir=maildir), Secrets({}), die)
    kept: list[Notice] = []
    assert look(maildir, kept) == 1


def test_a_death_before_a_mail_is_marked_gives_the_same_notice_again(maildir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (maildir / "new" / "1.a.host").write_bytes(b"one")
    kept: list[Notice] = []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: die(None))
        with pytest.raises(Died):
            look(maildir, kept)
    look(maildir, kept)
    assert len(kept) == 2
    assert kept[0] == kept[1]


def test_a_full_box_is_kept_in_portions(maildir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "AT_A_TIME", 2)
    for number in range(5):
        (maildir / "new" / f"{number}.a.host").write_bytes(b"%d" % number)
    portions: list[int] = []
    mailbox.look_into(Mailbox(address=BOX, maildir=maildir), Secrets({}), lambda notices: portions.append(len(notices)))
    assert portions == [2, 2, 1]


def test_a_mail_that_another_has_marked_meanwhile_is_no_trouble(maildir: Path) -> None:
    (maildir / "new" / "1.a.host").write_bytes(b"one")
    took = mailbox.look_into(
        Mailbox(address=BOX, maildir=maildir),
        Secrets({}),
        lambda _notices: (maildir / "new" / "1.a.host").rename(maildir / "cur" / "1.a.host:2,S"),
    )
    assert took == 1


def test_a_huge_mail_is_kept_by_its_beginning(maildir: Path) -> None:
    (maildir / "new" / "1.a.host").write_bytes(b"x" * (mailbox.MOST_BYTES + 1))
    kept: list[Notice] = []
    look(maildir, kept)
    assert len(base64.b64decode(kept[0].body)) == mailbox.MOST_BYTES


def test_a_folder_that_is_no_maildir_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=f"the mailbox {tmp_path} cannot be read: No such file"):
        look(tmp_path, [])


# IMAP


def a_box(fake: FakeImap, **more: object) -> Mailbox:
    return Mailbox.model_validate({"address": BOX, "host": "127.0.0.1", "port": fake.port, **more})


IMAP = Secrets({"FRIDAY_MAILBOX_PASSWORD": "secret"})


def test_an_imap_box_gives_each_unseen_mail_once_and_deletes_nothing() -> None:
    with fake_imap({1: b"one", 2: b"two\xff\x00", 3: b"three"}, seen={3}) as fake:
        kept: list[Notice] = []
        assert mailbox.look_into(a_box(fake), IMAP, kept.extend) == 2
        assert [base64.b64decode(notice.body) for notice in kept] == [b"one", b"two\xff\x00"]
        assert fake.seen == {1, 2, 3}
        assert mailbox.look_into(a_box(fake), IMAP, kept.extend) == 0
        assert fake.logins == [(BOX, "secret")] * 2
        assert not any("EXPUNGE" in said or "DELETED" in said.upper() for said in fake.said)


def test_a_death_before_notices_of_an_imap_box_are_kept_loses_none() -> None:
    with fake_imap({1: b"one"}) as fake:
        with pytest.raises(Died):
            mailbox.look_into(a_box(fake), IMAP, die)
        assert fake.seen == set()
        assert mailbox.look_into(a_box(fake), IMAP, lambda _notices: None) == 1


def test_another_folder_and_user_are_asked_for() -> None:
    with fake_imap({}) as fake:
        mailbox.look_into(a_box(fake, folder="Bounces", user="friday"), IMAP, die)
        assert fake.logins == [("friday", "secret")]
        assert any(said.startswith('SELECT "Bounces"') for said in fake.said)


def test_a_huge_mail_is_fetched_by_its_beginning_only() -> None:
    with fake_imap({1: b"x" * (mailbox.MOST_BYTES + 1)}) as fake:
        kept: list[Notice] = []
        mailbox.look_into(a_box(fake), IMAP, kept.extend)
        assert len(base64.b64decode(kept[0].body)) == mailbox.MOST_BYTES


def test_a_wrong_password_is_named_and_not_told() -> None:
    with fake_imap({}) as fake, pytest.raises(AccountRefused, match=r"mailbox\.user and FRIDAY_MAILBOX_PASSWORD") as refused:
        mailbox.look_into(a_box(fake), Secrets({"FRIDAY_MAILBOX_PASSWORD": "hunter2"}), die)
    assert "hunter2" not in str(refused.value)


def test_a_server_that_is_gone_or_breaks_off_is_told() -> None:
    with fake_imap({1: b"one"}) as fake:
        fake.refuses = "SEARCH"
        with pytest.raises(ProviderError, match=f"the mailbox at 127.0.0.1:{fake.port} cannot be read"):
            mailbox.look_into(a_box(fake), IMAP, die)
        fake.refuses = "STORE"
        with pytest.raises(ProviderError):
            mailbox.look_into(a_box(fake), IMAP, lambda _notices: None)
        fake.refuses = "drop"
        with pytest.raises(ProviderError):
            mailbox.look_into(a_box(fake), IMAP, die)
    with pytest.raises(ProviderError):
        mailbox.look_into(a_box(fake), IMAP, die)


def test_tls_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_imap({1: b"one"}, context=server_context()) as fake:
        monkeypatch.setattr(mailbox, "_TLS_PORT", fake.port)
        with pytest.raises(ProviderError, match="CERTIFICATE_VERIFY_FAILED"):
            mailbox.look_into(a_box(fake), IMAP, die)
        assert fake.logins == []
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        assert mailbox.look_into(a_box(fake), IMAP, lambda _notices: None) == 1


def test_a_host_elsewhere_never_gets_the_password_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "_is_loopback", lambda _host: False)
    monkeypatch.setattr(mailbox, "SECONDS", 0.3)
    with fake_imap({}) as fake:
        with pytest.raises(ProviderError):
            mailbox.look_into(a_box(fake), IMAP, die)
        monkeypatch.setattr(mailbox, "_STARTTLS_PORT", fake.port)
        with pytest.raises(ProviderError):
            mailbox.look_into(a_box(fake), IMAP, die)
        assert fake.logins == []


def test_what_a_box_lacks_is_told_at_once(tmp_path: Path, maildir: Path) -> None:
    none = Secrets({})
    assert mailbox.check(Mailbox(address=BOX, maildir=maildir), none) == []
    assert mailbox.check(Mailbox(address=BOX, host="imap.example.com"), IMAP) == []
    wrong = Mailbox(address="b" * 32 + "@example.com", host="imap.example.com")
    assert [problem.where for problem in mailbox.check(wrong, none)] == ["mailbox.address", "FRIDAY_MAILBOX_PASSWORD"]
    assert [problem.where for problem in mailbox.check(Mailbox(address=BOX, maildir=tmp_path / "no"), none)] == [
        "mailbox.maildir"
    ]
