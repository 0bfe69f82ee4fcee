"""What is told later, from the door or the box to the ledger: heard once, answered at once, applied in its own time."""

import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import requests
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col, select

from pipeline import events, listen, mailbox
from pipeline import publish as route
from pipeline.books import DeliveryRow, DeliveryState, IssueState, NoticeRow
from pipeline.config import Mailbox
from pipeline.errors import Forged, ProviderError, Unclear
from pipeline.issue import Event, Kind, Notice
from pipeline.listen import apply_notices, hear, read_mailbox
from pipeline.newsroom import Newsroom
from pipeline.providers import WEBHOOK_KEY
from pipeline.serve import bells
from pipeline.web.hooks import MOST_BYTES
from pipeline.web.public import public_app
from subscribers import links, roll
from subscribers.models import State
from tests.conftest import FakeProvider, World, build_world
from tests.serving import serving
from tests.test_events import copy_of, issue_of, publish, ref, state_of, suppressed
from tests.test_mailbox import BOUNCES, BOX, a_complaint, a_report
from tests.test_providers import provider_of
from tests.test_web import everything
from tests.webhooks import (
    KEYS,
    NOW,
    REF,
    SIGN,
    Post,
    mailgun,
    mailgun_event,
    mailgun_failed,
    postmark_bounce,
    resend_bounce,
    resend_event,
)

NAMES = sorted(SIGN)
TABLES = {name: f'name = "{name}"' + ('\ndomain = "news.example.com"' if name == "mailgun" else "") for name in NAMES}
DEAD = {
    "mailgun": mailgun_failed("permanent", "bounce", 550, "5.1.1 No such user"),
    "postmark": postmark_bounce("HardBounce"),
    "resend": resend_bounce("Permanent"),
}


def notices(world: World) -> list[NoticeRow]:
    with world.database.read() as session:
        return list(session.exec(select(NoticeRow).order_by(col(NoticeRow.id))))


def give_the_copy_its_ref(session: Session, name: str = "ada", to: str = REF) -> None:
    copy = session.exec(select(DeliveryRow).where(DeliveryRow.ref == ref(1, name))).one()
    copy.ref = to
    session.add(copy)


# The door


@dataclass
class Door:
    """A running door, and the newsroom behind it, whose one copy is unknown."""

    world: World
    url: str

    def post(self, name: str, post: Post, **more: Any) -> requests.Response:
        sent: Any = post.body
        return requests.post(f"{self.url}/hooks/{name}", data=sent, headers=dict(post.headers), timeout=5, **more)

    @property
    def copy(self) -> tuple[str, str]:
        with self.world.database.read() as session:
            found = session.exec(select(DeliveryRow)).one()
            return found.state, found.fate


def listening(folder: Path, name: str, empty: bytes) -> World:
    """A newsroom that is told of its copies by a provider, beginning with an empty database file."""
    (folder / "friday.db").write_bytes(empty)
    world = build_world(folder, f"sqlite:///{folder}/friday.db", TABLES[name])
    world.clock.at = NOW
    provider = provider_of(name, folder, secrets={WEBHOOK_KEY: KEYS[name]})
    world.newsroom = replace(world.newsroom, provider=provider)
    publish(world, "ada", state=DeliveryState.UNKNOWN, stands=IssueState.NEEDS_DECISION)
    with world.database.write() as session:
        give_the_copy_its_ref(session)
    return world


@pytest.fixture(params=NAMES)
def door(request: pytest.FixtureRequest, tmp_path: Path, empty: bytes) -> Iterator[Door]:
    world = listening(tmp_path, request.param, empty)
    with serving(public_app(world.newsroom)) as url:
        yield Door(world, url)
    world.database.engine.dispose()


@pytest.fixture
def mailguns(tmp_path: Path, empty: bytes) -> Iterator[Door]:
    world = listening(tmp_path, "mailgun", empty)
    with serving(public_app(world.newsroom)) as url:
        yield Door(world, url)
    world.database.engine.dispose()


def test_what_a_provider_tells_is_answered_first_and_applied_afterwards(door: Door) -> None:
    name = door.world.newsroom.provider_name
    answer = door.post(name, SIGN[name](DEAD[name]))
    assert (answer.status_code, answer.text) == (200, "ok")
    assert (door.copy, suppressed(door.world)) == (("unknown", ""), {})
    (kept,) = notices(door.world)
    assert (kept.origin, kept.came_at, kept.applied_at) == (name, NOW, None)
    assert apply_notices(door.world.newsroom) == 1
    assert (door.copy, suppressed(door.world)) == (("accepted", "hard_bounce"), {"ada@example.com": "bounce"})
    assert issue_of(door.world).state == IssueState.SENT


def test_what_comes_again_is_answered_alike_and_has_no_effect(door: Door) -> None:
    name = door.world.newsroom.provider_name
    post = SIGN[name](DEAD[name])
    assert [door.post(name, post).status_code for _ in range(3)] == [200] * 3
    assert apply_notices(door.world.newsroom) == 1
    before = everything(door.world)
    assert door.post(name, post).status_code == 200
    assert apply_notices(door.world.newsroom) == 0
    assert everything(door.world) == before
    assert len(notices(door.world)) == 1


def test_what_was_applied_is_forgotten_but_for_its_key(door: Door) -> None:
    name = door.world.newsroom.provider_name
    door.post(name, SIGN[name](DEAD[name]))
    (kept,) = notices(door.world)
    assert "ada@example.com" in kept.body
    apply_notices(door.world.newsroom)
    (kept,) = notices(door.world)
    assert (kept.body, kept.trouble, kept.applied_at) == ("", "", NOW)
    assert "ada" not in kept.key


def test_what_is_not_the_providers_is_answered_401_and_not_kept(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    name = door.world.newsroom.provider_name
    post = SIGN[name](DEAD[name])
    key = KEYS["resend"].replace("d", "e") if name == "resend" else "another"
    forged = [SIGN[name](DEAD[name], NOW, key), replace(post, body=b"")]
    # Mailgun signs in the body. Postmark signs nothing and has a password, so that any body and time are its own.
    if name != "mailgun":
        forged.append(Post({}, post.body))
    if name != "postmark":
        forged += [SIGN[name](DEAD[name], NOW - timedelta(days=2)), replace(post, body=b"{}")]
    with caplog.at_level(logging.DEBUG):
        answers = [door.post(name, each) for each in forged]
    assert {(each.status_code, each.text) for each in answers} == {(401, "not accepted")}
    assert notices(door.world) == []
    assert door.copy == ("unknown", "")
    assert WEBHOOK_KEY in caplog.text
    for secret in ("ada@example.com", KEYS[name], REF, "another"):
        assert secret not in caplog.text


def test_a_call_that_cannot_be_looked_at_now_comes_again(mailguns: Door, caplog: pytest.LogCaptureFixture) -> None:
    class Elsewhere:
        def hear(self, *_call: object) -> list[Notice]:
            raise Unclear("what it signs with cannot be fetched")

    held = mailguns.world.newsroom
    newsroom = replace(held, provider=replace(cast("Any", held.provider), hook=Elsewhere()))
    with serving(public_app(newsroom)) as url:
        answer = requests.post(f"{url}/hooks/mailgun", data=b"{}", timeout=60)
    assert (answer.status_code, answer.text) == (503, "not now")
    assert "cannot be fetched" in caplog.text
    assert notices(mailguns.world) == []


@pytest.mark.parametrize("path", ["postmark", "outbox", "nobody", "ada%40example.com", "a%0Aforged%20line", "x" * 5_000])
def test_a_provider_that_is_not_the_configured_one_is_answered_401_and_not_repeated(
    mailguns: Door, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    for signed in (SIGN["postmark"](DEAD["postmark"]), SIGN["mailgun"](DEAD["mailgun"])):
        answer = mailguns.post(path, signed)
        assert (answer.status_code, answer.text) == (401, "not accepted")
    assert notices(mailguns.world) == []
    (said,) = {record.getMessage() for record in caplog.records}
    assert said == "a call to a hook was refused: no provider of that name is configured"


def test_without_the_secret_of_its_webhooks_a_provider_is_not_believed_and_the_log_says_why(
    tmp_path: Path, empty: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    world = listening(tmp_path, "mailgun", empty)
    world.newsroom = replace(world.newsroom, provider=provider_of("mailgun", tmp_path, secrets={WEBHOOK_KEY: ""}))
    with serving(public_app(world.newsroom)) as url:
        assert Door(world, url).post("mailgun", mailgun(DEAD["mailgun"])).status_code == 401
        assert Door(world, url).post("mailgun", mailgun(DEAD["mailgun"], key="")).status_code == 401
    assert f"{WEBHOOK_KEY} is not set" in caplog.text
    assert notices(world) == []
    world.database.engine.dispose()


@pytest.mark.parametrize("length", ["told", "not told"])
def test_a_call_of_more_than_a_million_bytes_is_too_large_whether_or_not_it_tells_its_length(
    mailguns: Door, length: str
) -> None:
    def answer(size: int) -> requests.Response:
        body = b" " * size
        parts: Any = body if length == "told" else iter([body[: size // 2], body[size // 2 :]])
        return requests.post(f"{mailguns.url}/hooks/mailgun", data=parts, timeout=60)

    assert answer(MOST_BYTES + 1).status_code == 413
    assert answer(MOST_BYTES).status_code == 401
    assert notices(mailguns.world) == []


def test_a_call_that_is_as_large_as_may_be_is_heard(mailguns: Door) -> None:
    post = mailgun(mailgun_event("delivered", filler="x" * (MOST_BYTES - 2_000)))
    assert MOST_BYTES - 2_000 < len(post.body) < MOST_BYTES
    assert mailguns.post("mailgun", post).status_code == 200
    apply_notices(mailguns.world.newsroom)
    assert mailguns.copy == ("accepted", "delivered")


@pytest.mark.parametrize("path", ["mailgun", "postmark", ""])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_nothing_but_a_post_does_anything(mailguns: Door, method: str, path: str) -> None:
    post = mailgun(DEAD["mailgun"])
    before = everything(mailguns.world)
    answer = requests.request(
        method, f"{mailguns.url}/hooks/{path}", data=post.body, headers=dict(post.headers), timeout=60, allow_redirects=False
    )
    assert answer.status_code == (405 if path else 404)
    assert everything(mailguns.world) == before
    assert notices(mailguns.world) == []


def test_who_hangs_up_in_the_middle_is_no_bug_of_ours(tmp_path: Path, empty: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    world = listening(tmp_path, "mailgun", empty)
    with serving(public_app(world.newsroom)) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port or 0), 5) as connection:
            connection.sendall(b"POST /hooks/mailgun HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nhalf of it")
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
        assert Door(world, url).post("mailgun", mailgun(DEAD["mailgun"])).status_code == 200
    assert "Exception" not in capfd.readouterr().err
    assert len(notices(world)) == 1
    world.database.engine.dispose()


# From what was kept to the ledger


class Words:
    """A hook that believes everybody and reads `kind ref` lines; `puzzle` cannot be read."""

    def hear(self, _headers: Mapping[str, str], body: bytes, _now: datetime) -> list[Notice]:
        return [Notice(sha256(body).hexdigest(), body.decode())]

    def read(self, body: str) -> list[Event]:
        if body.startswith("puzzle"):
            raise ValueError(body.partition(" ")[2])
        told = (line.split() for line in body.splitlines())
        return [Event(Kind(kind), whose) for kind, whose in told]


@dataclass
class Telling(FakeProvider):
    """A provider that tells what became of its copies in plain words."""

    hook: Words = field(default_factory=Words)  # type: ignore[assignment] # that of the others tells nothing


def hearing(world: World) -> Newsroom:
    return world.with_provider(Telling())


def told(newsroom: Newsroom, *bodies: str) -> None:
    assert [hear(newsroom, "outbox", {}, body.encode()) for body in bodies] == [1] * len(bodies)


def delivered(*names: str) -> list[str]:
    return [f"delivered {ref(1, name)}" for name in names]


def test_a_notice_that_cannot_be_read_is_set_aside_and_does_not_hold_up_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    publish(world, "ada", "ben")
    told(hearing(world), *delivered("ada"), "puzzle of ada@example.com", *delivered("ben"))
    assert apply_notices(hearing(world)) == 3
    assert [copy_of(world, 1, name)[1] for name in ("ada", "ben")] == ["delivered", "delivered"]
    first, odd, _ = notices(world)
    assert (first.body, first.trouble) == ("", "")
    assert (odd.body, odd.trouble) == ("puzzle of ada@example.com", "cannot be read: of an address")
    assert odd.applied_at == world.clock()
    assert "ada@example.com" not in caplog.text
    assert "cannot be read: of an address" in caplog.text
    assert apply_notices(hearing(world)) == 0


@pytest.mark.parametrize("error", [RuntimeError("a bug with ada@example.com"), UnicodeEncodeError("utf-8", "x", 0, 1, "no")])
def test_a_notice_that_cannot_be_applied_is_set_aside_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    publish(world, "ada", "ben", "cleo")
    real = events.apply

    def stumble(session: Session, event: Event, now: datetime) -> None:
        if event.ref == ref(1, "ben"):
            raise error
        real(session, event, now)

    monkeypatch.setattr(events, "apply", stumble)
    told(hearing(world), "\n".join(delivered("ada", "ben")), *delivered("cleo"))
    assert apply_notices(hearing(world)) == 2
    assert [copy_of(world, 1, name)[1] for name in ("ada", "ben", "cleo")] == ["", "", "delivered"]
    odd, _ = notices(world)
    assert (odd.body, odd.trouble) == ("\n".join(delivered("ada", "ben")), f"cannot be applied: {type(error).__name__}")
    assert "ada@example.com" not in caplog.text


def test_a_database_that_is_not_to_be_had_leaves_a_notice_for_the_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(world, "ada")
    told(hearing(world), *delivered("ada"))

    def fail(*_: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("the database is gone"))

    with monkeypatch.context() as patch:
        patch.setattr(events, "apply", fail)
        with pytest.raises(OperationalError):
            apply_notices(hearing(world))
    (kept,) = notices(world)
    assert (kept.applied_at, kept.trouble) == (None, "")
    assert apply_notices(hearing(world)) == 1
    assert copy_of(world, 1, "ada")[1] == "delivered"


def test_two_who_apply_at_once_apply_each_notice_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"reader{number:02}" for number in range(30)]
    publish(world, *names, state=DeliveryState.UNKNOWN, stands=IssueState.NEEDS_DECISION)
    told(hearing(world), *(f"hard_bounce {ref(1, name)}" for name in names))
    start, applied, real = threading.Barrier(2), list[str](), events.apply

    def count(session: Session, event: Event, now: datetime) -> None:
        applied.append(event.ref)
        real(session, event, now)

    def run() -> None:
        start.wait()
        apply_notices(hearing(world))

    monkeypatch.setattr(events, "apply", count)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == sorted(ref(1, name) for name in names)
    assert len(suppressed(world)) == 30
    assert issue_of(world).state == IssueState.SENT


def test_an_applier_that_lost_the_race_does_nothing(world: World) -> None:
    publish(world, "ada")
    told(hearing(world), *delivered("ada"))
    with world.database.read() as session:
        (notice,) = events.waiting(session, 9)
    apply_notices(hearing(world))
    with world.database.write() as session:
        assert not events.finish(session, notice, world.clock(), "too late")
    assert notices(world)[0].trouble == ""


def test_a_full_pile_is_applied_in_portions(local_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("ada", "ben", "cleo", "dora")
    publish(local_world, *names)
    told(hearing(local_world), *delivered(*names))
    monkeypatch.setattr(listen, "AT_A_TIME", 2)
    assert apply_notices(hearing(local_world)) == 4
    assert {copy_of(local_world, 1, name)[1] for name in names} == {"delivered"}


def test_told_to_stop_it_applies_no_more_and_the_rest_is_applied_next_time(
    local_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(local_world, "ada", "ben", "cleo")
    told(hearing(local_world), *delivered("ada", "ben", "cleo"))
    newsroom, real = replace(hearing(local_world), stopping=threading.Event()), events.apply

    def stop(session: Session, event: Event, now: datetime) -> None:
        newsroom.stopping.set()
        real(session, event, now)

    monkeypatch.setattr(events, "apply", stop)
    assert apply_notices(newsroom) == 1
    assert apply_notices(hearing(local_world)) == 2


def test_what_the_provider_told_waits_while_its_secret_is_missing(local_world: World) -> None:
    publish(local_world, "ada", "ben")
    told(hearing(local_world), *delivered("ada"))
    assert apply_notices(local_world.newsroom) == 0
    assert notices(local_world)[0].applied_at is None
    assert apply_notices(hearing(local_world)) == 1
    assert copy_of(local_world, 1, "ada")[1] == "delivered"


def test_what_a_former_provider_told_is_set_aside(local_world: World) -> None:
    publish(local_world, "ada", "ben")
    with local_world.database.write() as session:
        events.keep(session, "pigeon", [Notice("a", "coo")], local_world.clock())
    told(hearing(local_world), *delivered("ada"))
    assert apply_notices(hearing(local_world)) == 2
    odd, _ = notices(local_world)
    assert (odd.body, odd.trouble) == ("coo", "cannot be read: pigeon is not the provider any more")


def test_hearing_does_not_wait_for_what_is_being_read(world: World) -> None:
    publish(world, "ada", "ben")
    asked, answered = threading.Event(), threading.Event()

    class Slow(Words):
        def read(self, body: str) -> list[Event]:
            asked.set()
            assert answered.wait(60)
            return super().read(body)

    newsroom = world.with_provider(Telling(hook=Slow()))
    told(newsroom, *delivered("ada"))
    applier = threading.Thread(target=apply_notices, args=(newsroom,))
    applier.start()
    assert asked.wait(60)
    told(newsroom, *delivered("ben"))
    assert copy_of(world, 1, "ada")[1] == ""
    answered.set()
    applier.join()
    assert copy_of(world, 1, "ada")[1] == "delivered"


def test_nobody_is_heard_under_another_name(local_world: World) -> None:
    with pytest.raises(Forged, match="no provider of that name"):
        hear(hearing(local_world), "mailgun", {}, b"delivered x")
    with pytest.raises(Forged, match="nobody listens to outbox"):
        hear(local_world.newsroom, "outbox", {}, b"delivered x")


def test_an_event_in_the_middle_of_a_call_is_believed_though_the_call_ends_in_nothing(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada", "ben")
    provider = Telling()
    newsroom = world.with_provider(provider)

    def heard_before_answered(parcel: Any) -> None:
        told(newsroom, f"delivered {parcel.copies[0].ref}")
        apply_notices(newsroom)
        raise Unclear("no answer")

    provider.after = heard_before_answered
    report = route.publish(newsroom, world.slot)
    assert (report.state, report.counts["accepted"], report.counts["unknown"]) == (IssueState.NEEDS_DECISION, 1, 1)
    assert [each.address for each in report.unknown] == ["ben@example.com"]
    told(newsroom, f"soft_bounce {provider.parcels[0].copies[1].ref}")
    apply_notices(newsroom)
    report = route.report(newsroom, world.slot)
    assert (report.state, report.counts["accepted"]) == (IssueState.SENT, 2)
    assert report.fates == {"delivered": 1, "soft_bounce": 1}


# The box


@dataclass
class Box:
    """A Maildir that the newsroom reads, and a copy with a reference that mails can name."""

    world: World
    folder: Path
    count: int = 0

    def put(self, raw: bytes) -> None:
        self.count += 1
        (self.folder / "new" / f"{self.count}.x.host").write_bytes(raw)

    def read(self) -> int:
        return read_mailbox(self.world.newsroom)


@pytest.fixture
def box(world: World, tmp_path: Path) -> Box:
    folder = tmp_path / "Maildir"
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir(parents=True)
    config = replace(world.newsroom.config, mailbox=Mailbox(address=BOX, maildir=folder))
    world.newsroom = replace(world.newsroom, config=config)
    publish(world, "ada", "ben", state=DeliveryState.UNKNOWN, stands=IssueState.NEEDS_DECISION)
    with world.database.write() as session:
        give_the_copy_its_ref(session)
    return Box(world, folder)


def fate_of(box: Box) -> tuple[str, str]:
    with box.world.database.read() as session:
        found = session.exec(select(DeliveryRow).where(DeliveryRow.ref == REF)).one()
        return found.state, found.fate


def test_a_bounce_that_comes_to_the_box_is_kept_once_and_suppresses(box: Box) -> None:
    box.put((BOUNCES / "postfix.eml").read_bytes())
    assert (box.read(), box.read()) == (1, 0)
    assert suppressed(box.world) == {}
    assert apply_notices(box.world.newsroom) == 1
    assert (fate_of(box), suppressed(box.world)) == (("accepted", "hard_bounce"), {"ada@example.com": "bounce"})
    assert [each.body for each in notices(box.world)] == [""]


def test_a_mail_with_the_token_lets_its_reader_leave(box: Box) -> None:
    with box.world.database.read() as session:
        ben = roll.by_key(session, "ben@example.com")
        assert ben is not None
    subject = links.leave_mail(BOX, ben.token).partition("subject=")[2]
    box.put(f"From: someone@example.net\nTo: {BOX}\nSubject: {subject}\n\n".encode())
    box.read()
    apply_notices(box.world.newsroom)
    assert (state_of(box.world, "ada"), state_of(box.world, "ben")) == (State.ACTIVE, State.UNSUBSCRIBED)


def test_a_complaint_that_comes_to_the_box_outweighs_the_bounce_before_it(box: Box) -> None:
    box.put((BOUNCES / "postfix.eml").read_bytes())
    box.put(a_complaint())
    box.read()
    apply_notices(box.world.newsroom)
    assert (fate_of(box)[1], suppressed(box.world)) == ("complained", {"ada@example.com": "complaint"})


def test_whatever_characters_a_mail_server_answers_with_the_next_mail_is_applied(box: Box) -> None:
    odd = a_report("Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 no @@ user")
    box.put(odd.replace(b"@@", b"\xff\x00\xed\xa0\x80"))
    box.put(a_complaint())
    box.read()
    assert apply_notices(box.world.newsroom) == 2
    assert [each.trouble for each in notices(box.world)] == ["", ""]
    assert suppressed(box.world) == {"ada@example.com": "complaint"}


def test_a_mail_that_cannot_be_read_is_set_aside_and_the_others_are_applied(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.put(b"Subject: a knot\n\n")
    box.put(a_complaint())
    box.read()
    real = mailbox.read

    def stumble(body: str) -> list[Event]:
        if body == notices(box.world)[0].body:
            raise ValueError("a mail cannot be read: RecursionError")
        return real(body)

    monkeypatch.setattr(mailbox, "read", stumble)
    assert apply_notices(box.world.newsroom) == 2
    assert suppressed(box.world) == {"ada@example.com": "complaint"}
    knot, _ = notices(box.world)
    assert knot.trouble.startswith("cannot be read")
    assert knot.body


def test_a_death_before_a_mail_is_marked_keeps_it_once(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.put(a_complaint())

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            box.read()
    assert len(notices(box.world)) == 1
    assert box.read() == 0
    assert len(notices(box.world)) == 1
    assert list((box.folder / "new").iterdir()) == []


def test_a_mail_is_not_marked_where_it_could_not_be_kept(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.put(a_complaint())

    def full(*_: object) -> int:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(events, "keep", full)
        with pytest.raises(OperationalError):
            box.read()
    assert len(list((box.folder / "new").iterdir())) == 1
    assert box.read() == 1


def test_the_box_and_the_webhook_tell_of_one_copy_and_the_gravest_stays(box: Box) -> None:
    newsroom = replace(box.world.newsroom, provider=Telling())
    told(newsroom, f"complained {REF}", f"delivered {REF}")
    box.put((BOUNCES / "postfix.eml").read_bytes())
    box.read()
    apply_notices(newsroom)
    assert (fate_of(box), suppressed(box.world)) == (("accepted", "complained"), {"ada@example.com": "complaint"})


def test_a_box_that_is_gone_is_told_and_what_was_kept_is_applied_all_the_same(box: Box) -> None:
    box.put(a_complaint())
    box.read()
    (box.folder / "new").rename(box.folder / "elsewhere")
    with pytest.raises(ProviderError, match="cannot be read"):
        box.read()
    rung = {bell.name: bell.ring for bell in bells(box.world.newsroom)}
    rung["events"]()
    assert suppressed(box.world) == {"ada@example.com": "complaint"}


def test_the_clock_reads_the_box_and_applies_what_lay_there(box: Box) -> None:
    box.put(a_complaint())
    (ring,) = (bell.ring for bell in bells(box.world.newsroom) if bell.name == "mailbox")
    ring()
    assert suppressed(box.world) == {"ada@example.com": "complaint"}


def test_without_a_box_there_is_nothing_to_read(local_world: World) -> None:
    assert read_mailbox(local_world.newsroom) == 0
    assert "mailbox" not in [bell.name for bell in bells(local_world.newsroom)]


def test_a_tag_of_another_message_names_no_copy_of_ours(mailguns: Door) -> None:
    data = mailgun_event("complained", **{"user-variables": {"delivery": "f" * 32}}, recipient="stranger@example.net")
    assert mailguns.post("mailgun", mailgun(data)).status_code == 200
    apply_notices(mailguns.world.newsroom)
    assert (mailguns.copy, suppressed(mailguns.world)) == (("unknown", ""), {})


def test_resends_events_of_other_kinds_are_answered_and_change_nothing(tmp_path: Path, empty: bytes) -> None:
    world = listening(tmp_path, "resend", empty)
    with serving(public_app(world.newsroom)) as url:
        assert Door(world, url).post("resend", SIGN["resend"](resend_event("email.opened"))).status_code == 200
        apply_notices(world.newsroom)
        assert Door(world, url).copy == ("unknown", "")
    world.database.engine.dispose()
