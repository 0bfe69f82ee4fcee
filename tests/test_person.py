"""All that is held of a person: it is shown whole, and erased without a trace but a hash."""

import json
import logging
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from sqlalchemy import text
from sqlmodel import SQLModel, select

from pipeline import admit, events, gate, mail, person, uploads
from pipeline import publish as route
from pipeline.config import Secrets
from pipeline.errors import UsageError
from pipeline.issue import Notice
from pipeline.providers.outbox import Options, build
from pipeline.serve import bells
from pipeline.web.public import public_app
from subscribers import roll
from subscribers.consent import Asked, Proof
from subscribers.keys import Keys
from subscribers.models import Label, LabelKind, State, Subscriber, Suppression, Why
from tests.conftest import World
from tests.serving import serving

ADA = "ada.lovelace@example.com"


@pytest.fixture
def known(world: World) -> World:
    """A newsroom with an outbox, where somebody has signed up, confirmed, chosen, got an issue and bounced softly."""
    folder = world.folder / "outbox"
    provider = build(Options(name="outbox", path=folder), Secrets({}), world.folder)
    world.newsroom = replace(world.newsroom, provider=provider)
    world.subscribe("ben")
    admit.keep(world.newsroom, Asked(roll.normalise(ADA), "page", "Yes.", Proof("192.0.2.0/24", "Browser"), "Ada Lovelace"))
    admit.admit_all(world.newsroom)
    mail.send_due(world.newsroom)
    admit.confirm(world.newsroom, world.newsroom.keys.sign("confirm", 1), Proof("198.51.100.0/24", "Telephone"))
    mail.send_due(world.newsroom)
    with world.database.write() as session:
        number = session.exec(select(Subscriber.id).where(Subscriber.key == ADA)).one()
        session.add(Label(subscriber_id=number or 0, kind=LabelKind.TAG, name="vip"))
    world.tell_a_week()
    route.publish(world.newsroom, world.slot)
    with world.database.write() as session:
        broken = Notice("1", f"this cannot be read, and names <{ADA}>")
        events.keep(session, "outbox", [broken], world.clock())
    return world


def everything(world: World) -> str:
    """Every value of every table."""
    with world.database.read() as session:
        rows = {
            name: [tuple(row) for row in session.execute(table.select())] for name, table in SQLModel.metadata.tables.items()
        }
    return str(rows).lower()


def files(world: World) -> Iterator[tuple[Path, bytes]]:
    for path in world.folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes().lower()


def test_all_that_is_held_is_shown_as_json(known: World) -> None:
    held = person.held(known.newsroom, ADA.upper())
    assert held == json.loads(json.dumps(held))
    assert held
    about = held["subscriber"]
    assert (about["address"], about["name"], about["state"], about["tags"]) == (ADA, "Ada Lovelace", "active", ["vip"])
    (consent,) = about["consents"]
    assert (consent["text"], consent["asked_network"], consent["confirmed_agent"]) == ("Yes.", "192.0.2.0/24", "Telephone")
    assert [each["what"] for each in about["changes"]] == ["asked", "confirmed"]
    assert [(each["slot"], each["state"]) for each in about["issues"]] == [(known.slot.name, "accepted")]
    assert [(each["kind"], each["state"]) for each in about["mails"]] == [("confirm", "sent"), ("welcome", "sent")]


def test_of_who_is_not_known_nothing_is_held(known: World) -> None:
    assert person.held(known.newsroom, "nobody@example.com") is None
    assert person.erase(known.newsroom, "nobody@example.com") is False
    with pytest.raises(UsageError):
        person.held(known.newsroom, "nobody")


def test_a_sign_up_that_waits_is_shown_and_erased_too(world: World) -> None:
    admit.keep(world.newsroom, Asked(roll.normalise(ADA), "page", "Yes.", Proof()))
    held = person.held(world.newsroom, ADA)
    assert held
    assert [each["address"] for each in held["sign_ups"]] == [ADA]
    assert person.erase(world.newsroom, ADA)
    assert ADA not in everything(world)


def test_who_is_erased_stands_in_no_table_no_file_and_no_log(known: World, caplog: pytest.LogCaptureFixture) -> None:
    assert ADA in everything(known)
    assert [path for path, content in files(known) if ADA.encode() in content]
    with caplog.at_level(logging.DEBUG):
        assert person.erase(known.newsroom, ADA)
    assert ADA not in everything(known)
    assert "lovelace" not in everything(known)
    assert [path for path, content in files(known) if b"lovelace" in content] == []
    assert "lovelace" not in caplog.text.lower()
    with known.database.read() as session:
        assert [each.key for each in session.exec(select(Subscriber))] == ["ben@example.com"]
        (kept,) = session.exec(select(Suppression)).all()
    assert (kept.why, kept.note) == (Why.ERASED, "")
    held = person.held(known.newsroom, ADA)
    assert held
    assert held["suppression"]["why"] == "erased"
    assert held["subscriber"] is None


def test_so_does_who_was_sent_tests_or_told_of_drafts(known: World) -> None:
    newsletter = known.newsroom.config.newsletter.model_copy(update={"test_addresses": (ADA.title(),)})
    known.newsroom = replace(known.newsroom, config=replace(known.newsroom.config, newsletter=newsletter))
    for _ in range(2):
        gate.send_test(known.newsroom, known.slot, [ADA], "ed")
    mail.send_due(known.newsroom)
    assert person.erase(known.newsroom, ADA)
    assert ADA not in everything(known).lower()
    assert not [path for path in known.folder.rglob("*.eml") if ADA in path.read_text("utf-8", "replace").lower()]


def test_a_file_that_was_sent_to_be_looked_at_goes_when_anybody_is_erased(known: World) -> None:
    path = uploads.room(known.newsroom.config.imports, ".csv")
    path.write_text(f"email\n{ADA}\nnobody@example.com\n")
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert not person.erase(known.newsroom, "nobody@example.com")
    assert not path.exists()


def test_a_file_that_was_sent_is_kept_for_half_an_hour(world: World) -> None:
    old, new, used = (uploads.room(world.newsroom.config.imports, ".csv") for _ in range(3))
    for path in (old, new, used):
        path.write_text("email\n")
    for path in (old, used):
        os.utime(path.parent, times=(time.time() - 1_801,) * 2)
    assert uploads.is_kept(used)
    (ring,) = (bell.ring for bell in bells(world.newsroom) if bell.name == "uploads")
    ring()
    assert [path.exists() for path in (old, new, used)] == [False, True, True]
    assert not uploads.is_kept(old)


def test_nothing_is_erased_while_files_that_may_name_somebody_cannot_be_deleted(known: World) -> None:
    known.newsroom.config.imports.write_text("no folder")
    with pytest.raises(UsageError, match=r"imports cannot be emptied: Not a directory; run this as"):
        person.erase(known.newsroom, ADA)
    assert ADA in everything(known)


def test_erasing_twice_is_as_once_and_the_counts_of_an_issue_stay(known: World) -> None:
    before = route.report(known.newsroom, known.slot).counts
    assert person.erase(known.newsroom, ADA)
    assert not person.erase(known.newsroom, ADA)
    assert route.report(known.newsroom, known.slot).counts == before


def test_nobody_but_the_person_brings_an_erased_address_back(known: World) -> None:
    person.erase(known.newsroom, ADA)
    with known.database.write() as session, pytest.raises(UsageError, match=r"erased.*sign-up of the person's own"):
        roll.add(session, ADA, known.clock(), keys=known.newsroom.keys)
    admit.keep(known.newsroom, Asked(roll.normalise(ADA), "page", "Yes.", Proof()))
    admit.admit_all(known.newsroom)
    with known.database.read() as session:
        assert session.exec(select(Suppression)).all()
        consent = session.execute(text("SELECT max(id) FROM consents")).scalar_one()
    admit.confirm(known.newsroom, known.newsroom.keys.sign("confirm", consent), Proof())
    with known.database.read() as session:
        back = roll.by_key(session, ADA)
        assert back
        assert back.state == State.ACTIVE
        assert session.exec(select(Suppression)).all() == []


@pytest.mark.parametrize("why", [Why.COMPLAINT, Why.BOUNCE, Why.MANUAL])
def test_who_was_suppressed_before_being_erased_stays_so(known: World, why: Why) -> None:
    with known.database.write() as session:
        roll.suppress(session, ADA, why, known.clock(), note=f"{ADA} said so")
    person.erase(known.newsroom, ADA)
    assert "lovelace" not in everything(known)
    admit.keep(known.newsroom, Asked(roll.normalise(ADA), "page", "Yes.", Proof()))
    admit.admit_all(known.newsroom)
    with known.database.read() as session:
        assert roll.by_key(session, ADA) is None


def test_an_erased_address_is_known_again_after_the_secret_has_changed(known: World) -> None:
    person.erase(known.newsroom, ADA)
    (old,) = known.newsroom.keys.secrets
    with known.database.read() as session:
        assert roll.suppressed(session, ADA, Keys(("n" * 40, old)))
        assert roll.suppressed(session, ADA, Keys(("n" * 40,))) is None


def test_another_persons_notice_is_not_lost_with_it(known: World) -> None:
    with known.database.write() as session:
        events.keep(session, "outbox", [Notice("2", "cannot be read either: <ben@example.com>")], known.clock())
    person.erase(known.newsroom, ADA)
    assert "cannot be read either: <ben@example.com>" in everything(known)


def test_the_links_of_an_erased_person_lead_nowhere(known: World) -> None:
    with known.database.read() as session:
        found = roll.by_key(session, ADA)
        assert found
    person.erase(known.newsroom, ADA)
    known.clock.at += timedelta(minutes=1)
    with serving(public_app(known.newsroom)) as site:
        for path in (f"/p/{found.token}", f"/u/{found.token}", f"/c/{known.newsroom.keys.sign('confirm', 1)}"):
            assert requests.get(site + path, timeout=60).status_code == 404
