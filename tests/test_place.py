"""A copy of the newsroom knows that it is one: it sends nothing, says why, and goes on when a person adopts it."""

import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import text
from sqlmodel import select, update

from pipeline import desk, gate, lease, ledger, mail, place, show
from pipeline.books import BatchRow, IssueRow, IssueState, MailRow, MailState, Pause, PlaceRow, SlotRow, Stance
from pipeline.config import Secrets
from pipeline.database import Database
from pipeline.errors import DecisionNeeded, ProviderError, UsageError
from pipeline.lease import Lease
from pipeline.newsroom import Newsroom
from pipeline.publish import approve, pause, publish, publish_due, report, resume
from pipeline.serve import Watch, hung
from tests.conftest import FRIDAY, World

BEAT = FRIDAY - timedelta(minutes=30)
ELSEWHERE = "0" * place.DIGITS


def named(world: World, instance: str) -> Newsroom:
    """The newsroom as a process sees it that was started with FRIDAY_INSTANCE."""
    config = replace(world.newsroom.config, secrets=Secrets({"FRIDAY_INSTANCE": instance}))
    return replace(world.newsroom, config=config)


def beat(world: World, at: datetime = BEAT, holder: str = "hal/1/1.00") -> None:
    """Let the other place be the clock once."""
    assert Lease(world.database, lease.CLOCK, holder, lambda: at, is_running=lambda _: True).beat()


@pytest.fixture
def copied(world: World) -> World:
    """A newsroom that was at home elsewhere, where its clock last beat half an hour before the slot."""
    world.tell_a_week()
    world.subscribe("ada", "ben", "cleo")
    assert place.settle(named(world, "the first")) is None
    beat(world)
    return world


def slot_row(world: World, slot: str | None = None) -> SlotRow | None:
    with world.database.read() as session:
        return session.get(SlotRow, slot or world.slot.name)


def say(world: World, stance: Stance, slot: str | None = None) -> None:
    with world.database.write() as session:
        session.add(SlotRow(slot=slot or world.slot.name, stance=stance, by="ada"))


def say_of_known(world: World, stance: Stance) -> None:
    with world.database.write() as session:
        session.get_one(SlotRow, world.slot.name).stance = stance


def issue_of(world: World) -> IssueRow:
    with world.database.read() as session:
        found = ledger.find(session, world.slot.name)
    assert found is not None
    return found


def test_one_that_never_settled_has_not_moved(world: World) -> None:
    assert place.see(world.newsroom) is None
    place.require(world.newsroom)
    with world.database.read() as session:
        assert session.exec(select(PlaceRow)).all() == []


def test_it_settles_once_and_stays(world: World) -> None:
    assert place.settle(world.newsroom) is None
    with world.database.read() as session:
        first = session.get_one(PlaceRow, 1)
    world.clock.wait(3600)
    assert place.settle(world.newsroom) is None
    with world.database.read() as session:
        again = session.get_one(PlaceRow, 1)
    assert (
        (again.identity, again.since) == (first.identity, first.since) == (again.identity, world.clock.at - timedelta(hours=1))
    )
    place.require(world.newsroom)


def test_it_is_the_same_place_after_a_restart(world: World, other: Database) -> None:
    place.settle(world.newsroom)
    assert place.settle(replace(world.newsroom, database=other)) is None


def test_many_that_settle_at_once_agree(world: World) -> None:
    rooms = [replace(world.newsroom, database=Database(world.database.url)) for _ in range(4)]
    with ThreadPoolExecutor(len(rooms)) as pool:
        assert list(pool.map(place.settle, rooms)) == [None] * len(rooms)
    for room in rooms:
        room.database.engine.dispose()


def test_what_is_kept_tells_nothing_of_the_machine(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n", "ascii")
    monkeypatch.setattr(place, "MACHINE_IDS", (tmp_path / "machine-id",))
    place.settle(world.newsroom)
    with world.database.read() as session:
        identity = session.get_one(PlaceRow, 1).identity
    kind, *digests = identity.split("/")
    assert kind in (place.FILE, place.SERVER)
    assert [len(each) for each in digests] == [place.DIGITS] * 2
    assert "0123456789abcdef" not in identity


def test_a_copied_file_is_another_place(local_world: World) -> None:
    place.settle(local_world.newsroom)
    local_world.database.engine.dispose()
    shutil.copy(local_world.folder / "friday.db", local_world.folder / "copy.db")
    room = replace(local_world.newsroom, database=Database(f"sqlite:///{local_world.folder}/copy.db"))
    moved = place.see(room)
    assert moved is not None
    assert "another file of the same machine" in str(moved)
    room.database.engine.dispose()


def test_a_file_that_was_renamed_is_the_same_place(local_world: World) -> None:
    place.settle(local_world.newsroom)
    local_world.database.engine.dispose()
    (local_world.folder / "friday.db").rename(local_world.folder / "named.db")
    room = replace(local_world.newsroom, database=Database(f"sqlite:///{local_world.folder}/named.db"))
    assert place.see(room) is None
    room.database.engine.dispose()


def test_a_disk_that_is_numbered_anew_is_the_same_place(local_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    place.settle(local_world.newsroom)
    stat = Path.stat

    def renumbered(path: Path, **how: bool) -> os.stat_result:
        found = stat(path, **how)
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:]))

    monkeypatch.setattr(Path, "stat", renumbered)
    assert place.see(local_world.newsroom) is None


def test_another_file_system_is_another_place(local_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    place.settle(local_world.newsroom)
    # A restored volume: the file has the same inode there.
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_fsid=1))
    assert "another file of the same machine" in str(place.see(local_world.newsroom))


def test_another_machine_is_another_place(local_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    place.settle(local_world.newsroom)
    monkeypatch.setattr(place, "_machine", lambda: "another")
    assert "this is another machine" in str(place.see(local_world.newsroom))


def test_a_machine_without_a_number_of_its_own_has_that_of_its_network_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").write_text("\n", "ascii")
    monkeypatch.setattr(place, "MACHINE_IDS", (tmp_path / "missing", tmp_path / "empty"))
    monkeypatch.setattr("uuid.getnode", lambda: 0x001122334455)
    assert place._machine() == "001122334455"
    # Drawn by lot, where there is none.
    monkeypatch.setattr("uuid.getnode", lambda: 0x011122334455)
    assert place._machine() == ""
    (tmp_path / "empty").write_text("0123\n", "ascii")
    assert place._machine() == "0123"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_another_server_or_database_is_another_place(world: World) -> None:
    place.settle(world.newsroom)
    with world.database.write() as session:
        row = session.get_one(PlaceRow, 1)
        kind, server, own = row.identity.split("/")
        row.identity = f"{kind}/{ELSEWHERE}/{own}"
    assert "this is another database server" in str(place.see(world.newsroom))
    with world.database.write() as session:
        session.get_one(PlaceRow, 1).identity = f"{kind}/{server}/{ELSEWHERE}"
    assert "another database of the same server" in str(place.see(world.newsroom))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_that_hides_its_number_is_told_by_its_database(world: World) -> None:
    with world.database.write() as session:
        session.execute(text("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"))
        session.execute(text("CREATE ROLE friday_guest LOGIN"))
        session.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO friday_guest"))
    try:
        guest = Database(world.database.engine.url.set(username="friday_guest").render_as_string(hide_password=False))
        room = replace(world.newsroom, database=guest)
        assert place.settle(room) is None
        assert place.settle(room) is None
        guest.engine.dispose()
    finally:
        with world.database.write() as session:
            session.execute(text("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC"))
            session.execute(text("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM friday_guest"))
            session.execute(text("DROP ROLE friday_guest"))


def test_a_name_makes_two_places_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    place.settle(named(world, "friday-1"))
    monkeypatch.setattr(place, "_machine", lambda: "another")
    assert place.see(named(world, "friday-1")) is None
    assert "FRIDAY_INSTANCE was something else" in str(place.see(named(world, "friday-2")))
    assert "FRIDAY_INSTANCE is set here, and was not there" in str(place.see(world.newsroom))


def test_it_says_where_it_was_and_what_to_do(copied: World) -> None:
    said = str(place.see(copied.newsroom))
    for part in (
        "since 2026-11-27 08:01 UTC it was at home on hal",
        "its clock last beat at 2026-11-27 07:30 UTC",
        "may still be alive",
        "`friday adopt`",
        "FRIDAY_INSTANCE",
    ):
        assert part in said


def test_a_copy_publishes_nothing(copied: World) -> None:
    with pytest.raises(DecisionNeeded, match="this newsroom has moved"):
        publish(copied.newsroom, copied.slot)
    with pytest.raises(DecisionNeeded, match="this newsroom has moved"):
        publish_due(copied.newsroom)
    assert copied.provider.got == []
    with copied.database.read() as session:
        assert ledger.find(session, copied.slot.name) is None


def test_a_copy_takes_no_test_that_it_would_not_send(copied: World) -> None:
    with pytest.raises(DecisionNeeded, match="this newsroom has moved"):
        gate.send_test(copied.newsroom, copied.slot, ["ada@news.example.com"], "ada", own="ada@news.example.com")
    with copied.database.read() as session:
        assert session.exec(select(MailRow)).all() == []


def rung(world: World, watch: Watch) -> dict[str, Callable[[], object]]:
    return {bell.name: bell.ring for bell in hung(world.newsroom, watch)}


def test_the_clock_of_a_copy_sends_nothing_and_says_why_once(copied: World, caplog: pytest.LogCaptureFixture) -> None:
    with copied.database.write() as session:
        mail.queue(session, "welcome", 1, copied.clock())
    watch = Watch(copied.newsroom)
    rings = rung(copied, watch)
    for _ in range(2):
        for name in ("lease", "collect", "publish", "mails", "unknown", "backup"):
            rings[name]()
    assert copied.provider.parcels == []
    assert not (copied.folder / "backups").exists()
    (said,) = [each for each in caplog.records if "has moved" in each.getMessage()]
    assert said.levelno == logging.ERROR
    with copied.database.read() as session:
        row = lease.last(session, lease.CLOCK)
    assert row is not None
    # When the other one was last heard of is not written over.
    assert (row.holder, row.beat_at) == ("hal/1/1.00", BEAT)
    assert watch.is_clock


def test_an_adopted_copy_goes_on_without_a_restart(copied: World) -> None:
    watch = Watch(copied.newsroom)
    rings = rung(copied, watch)
    rings["lease"]()
    copied.clock.at = FRIDAY + timedelta(days=5)
    place.adopt(copied.newsroom, "ada")
    copied.clock.at = FRIDAY + timedelta(days=7)
    copied.tell_a_week(before=copied.clock.at)
    rings["lease"]()
    rings["publish"]()
    assert sorted(copied.provider.got) == [f"{name}@example.com" for name in ("ada", "ben", "cleo")]


def test_adopting_makes_this_the_place(copied: World) -> None:
    place.adopt(copied.newsroom, "ada")
    place.require(copied.newsroom)
    with copied.database.read() as session:
        assert session.get_one(PlaceRow, 1).since == copied.clock.at
    assert place.see(named(copied, "the first")) is not None
    with pytest.raises(UsageError, match="at home here"):
        place.adopt(copied.newsroom, "ada")


def test_one_that_never_settled_has_nothing_to_adopt(world: World) -> None:
    with pytest.raises(UsageError, match="at home here"):
        place.adopt(world.newsroom, "ada")


def test_a_slot_that_may_have_been_sent_elsewhere_is_missed(copied: World) -> None:
    adopted = place.adopt(copied.newsroom, "ada")
    assert adopted.missed == (copied.slot.name,)
    row = slot_row(copied)
    assert row is not None
    assert (row.stance, row.by, row.changed_at) == (Stance.MISSED, "ada", copied.clock.at)
    assert "does not know whether it was sent" in row.why


def test_so_are_all_slots_since_the_other_was_heard_of(copied: World) -> None:
    copied.clock.at = FRIDAY + timedelta(days=15)
    assert place.adopt(copied.newsroom, "ada").missed == ("2026-11-27", "2026-12-04", "2026-12-11")


def test_so_is_one_that_waited_when_the_copy_was_made(copied: World) -> None:
    # Five of its six hours of grace were over, and the other one may have sent it in the last.
    beat(copied, FRIDAY + timedelta(hours=5), "hal/1/1.00")
    copied.clock.at = FRIDAY + timedelta(hours=5, minutes=1)
    assert place.adopt(copied.newsroom, "ada").missed == (copied.slot.name,)


def test_one_whose_grace_was_over_before_is_left_alone(copied: World) -> None:
    beat(copied, FRIDAY + timedelta(hours=7), "hal/1/1.00")
    copied.clock.at = FRIDAY + timedelta(hours=8)
    assert place.adopt(copied.newsroom, "ada").missed == ()
    assert slot_row(copied) is None


def test_without_any_beat_the_last_slot_is_missed(world: World) -> None:
    place.settle(named(world, "the first"))
    world.clock.at = FRIDAY + timedelta(days=8)
    assert place.adopt(world.newsroom, "ada").missed == ("2026-12-04",)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Stance.NONE, Stance.MISSED),
        (Stance.HELD, Stance.MISSED),
        (Stance.ORDERED, Stance.MISSED),
        (Stance.SKIPPED, Stance.SKIPPED),
    ],
)
def test_what_was_said_of_the_slot_before(copied: World, before: Stance, after: Stance) -> None:
    say(copied, before)
    adopted = place.adopt(copied.newsroom, "ada")
    row = slot_row(copied)
    assert row is not None
    assert row.stance == after
    assert adopted.missed == ((copied.slot.name,) if after is Stance.MISSED else ())


def test_an_old_slot_that_was_ordered_is_missed_too(copied: World) -> None:
    say(copied, Stance.ORDERED, "2026-11-13")
    assert place.adopt(copied.newsroom, "ada").missed == ("2026-11-13", copied.slot.name)


@pytest.fixture
def early(copied: World) -> World:
    """A copy that was made on Thursday noon, and is adopted that evening; what the other one sent meanwhile, nobody knows."""
    copied.clock.at = FRIDAY - timedelta(hours=12)
    beat(copied, FRIDAY - timedelta(hours=20), "hal/1/1.00")
    return copied


def test_an_approved_issue_that_may_have_been_sent_early_is_not_sent_twice(early: World) -> None:
    approve(early.newsroom, early.slot)
    adopted = place.adopt(early.newsroom, "ada")
    assert (adopted.missed, adopted.held) == ((), (early.slot.name,))
    row = slot_row(early)
    assert row is not None
    assert (row.stance, row.by, row.changed_at) == (Stance.HELD, "ada", early.clock.at)
    assert row.why == "the other one may have sent it early: approve it if it has not"
    with early.database.read() as session:
        (deed,) = (each for each in desk.deeds(session, early.slot.name) if each.kind is desk.Kind.HOLD)
    assert (deed.by, deed.about) == ("ada", {"why": row.why})
    said = (
        f"{early.slot.name} is held, since it may have been sent early elsewhere: `friday approve {early.slot.name}` lets it go"
    )
    assert any(said in line for line in show.adopted_lines(adopted))
    early.clock.at = FRIDAY + timedelta(minutes=1)
    assert publish_due(early.newsroom) is None
    assert early.provider.got == []
    approve(early.newsroom, early.slot, "ada")
    publish_due(early.newsroom)
    assert sorted(early.provider.got) == [f"{name}@example.com" for name in ("ada", "ben", "cleo")]


def test_so_is_one_that_had_a_draft_only_after_the_copy_was_made(early: World) -> None:
    # The copy is of Thursday morning; the other one told its editors at nine, and may have sent it since.
    assert place.adopt(early.newsroom, "ada").held == (early.slot.name,)


def test_a_slot_to_come_that_nobody_was_told_of_is_left_alone(early: World) -> None:
    early.clock.at = FRIDAY - timedelta(hours=24, seconds=1)
    say(early, Stance.NONE)
    assert place.adopt(early.newsroom, "ada").held == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Stance.NONE, Stance.HELD),
        (Stance.HELD, Stance.HELD),
        (Stance.MISSED, Stance.MISSED),
        (Stance.SKIPPED, Stance.SKIPPED),
    ],
)
def test_what_was_said_of_a_slot_to_come_before(early: World, before: Stance, after: Stance) -> None:
    say(early, before)
    with early.database.write() as session:
        session.get_one(SlotRow, early.slot.name).drafted_at = FRIDAY - timedelta(hours=24)
    adopted = place.adopt(early.newsroom, "bob")
    row = slot_row(early)
    assert row is not None
    assert row.stance == after
    assert adopted.held == ((early.slot.name,) if after is Stance.HELD else ())
    assert (row.by == "bob") == (after is Stance.HELD)


def test_one_that_was_ordered_early_is_missed_and_not_held_as_well(early: World) -> None:
    approve(early.newsroom, early.slot)
    say_of_known(early, Stance.ORDERED)
    adopted = place.adopt(early.newsroom, "ada")
    assert (adopted.missed, adopted.held) == ((early.slot.name,), ())


def test_one_that_was_sent_early_before_the_copy_was_made_stays_as_it_is(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    world.clock.at = FRIDAY - timedelta(hours=12)
    publish(world.newsroom, world.slot, anyway=True)
    place.settle(named(world, "the first"))
    assert place.adopt(world.newsroom, "ada").held == ()
    assert issue_of(world).state == IssueState.SENT


def test_one_whose_day_has_no_slot_any_more_is_held_too(early: World) -> None:
    approve(early.newsroom, early.slot)
    plan = early.newsroom.config.timetable.model_copy(update={"skip": (early.slot.day,)})
    room = replace(early.newsroom, config=replace(early.newsroom.config, timetable=plan))
    assert place.adopt(room, "ada").held == (early.slot.name,)


def test_an_approved_issue_does_not_go_by_itself_after_its_slot(copied: World) -> None:
    approve(copied.newsroom, copied.slot)
    assert place.adopt(copied.newsroom, "ada").missed == (copied.slot.name,)


def test_an_issue_that_was_sent_is_neither_missed_nor_paused(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    publish(world.newsroom, world.slot)
    place.settle(named(world, "the first"))
    adopted = place.adopt(world.newsroom, "ada")
    assert (adopted.missed, adopted.paused) == ((), ())
    assert issue_of(world).state == IssueState.SENT


@pytest.fixture
def half_sent(copied: World) -> World:
    """A copy that was made when two of three readers had got theirs."""

    def copied_here(_parcel: object) -> None:
        raise KeyboardInterrupt

    first = named(copied, "the first")
    copied.provider.copies = 1
    copied.provider.before = lambda parcel: copied_here(parcel) if len(copied.provider.parcels) == 2 else None
    with pytest.raises(KeyboardInterrupt):
        publish(first, copied.slot)
    copied.provider.before = lambda _parcel: None
    with copied.database.write() as session:
        # A process of this machine that is gone, or the copy would be waited for.
        session.execute(update(BatchRow).values(runner=f"{os.uname().nodename}/999999999/1.00"))
    assert issue_of(copied).state == IssueState.SENDING
    return copied


def test_an_issue_on_its_way_waits_for_a_person(half_sent: World) -> None:
    adopted = place.adopt(half_sent.newsroom, "ada")
    assert (adopted.missed, adopted.paused) == ((), (half_sent.slot.name,))
    issue = issue_of(half_sent)
    assert (issue.state, issue.paused_by, issue.resume_at) == (IssueState.PAUSED, Pause.PERSON, None)
    assert "this is a copy: look what was sent after 2026-11-27 07:30 UTC first" in issue.trouble
    assert f"friday resume {half_sent.slot.name}" in issue.trouble
    with pytest.raises(DecisionNeeded, match="paused by a person"):
        publish(half_sent.newsroom, half_sent.slot)
    assert publish_due(half_sent.newsroom) is None
    assert len(half_sent.provider.got) == 2


def test_a_person_lets_it_go_on_and_nobody_gets_it_twice(half_sent: World) -> None:
    place.adopt(half_sent.newsroom, "ada")
    resume(half_sent.newsroom, half_sent.slot)
    publish(half_sent.newsroom, half_sent.slot)
    assert len(half_sent.provider.got) == len(set(half_sent.provider.got))
    assert report(half_sent.newsroom, half_sent.slot).enrolled == 3


@pytest.mark.parametrize("by", [Pause.TROUBLE, Pause.RAMP, Pause.ZONES])
def test_one_that_would_go_on_by_itself_waits_for_a_person(half_sent: World, by: Pause) -> None:
    with half_sent.database.write() as session:
        ledger.pause(session, issue_of(half_sent), by, "for a while", half_sent.clock())
    assert place.adopt(half_sent.newsroom, "ada").paused == (half_sent.slot.name,)
    issue = issue_of(half_sent)
    assert (issue.state, issue.paused_by, issue.resume_at) == (IssueState.PAUSED, Pause.PERSON, None)


def test_one_that_a_person_paused_stays_as_it_is(half_sent: World) -> None:
    pause(half_sent.newsroom, half_sent.slot)
    before = issue_of(half_sent)
    assert place.adopt(half_sent.newsroom, "ada").paused == ()
    assert issue_of(half_sent) == before


def test_mails_that_wait_are_given_up(copied: World) -> None:
    with copied.database.write() as session:
        for number, state in enumerate(MailState, 1):
            row = MailRow(ref=f"{number:032x}", kind="welcome", subscriber_id=1, state=state, queued_at=BEAT, due_at=BEAT)
            row.settled_at = None if state in (MailState.QUEUED, MailState.SENDING) else BEAT
            session.add(row)
    assert place.adopt(copied.newsroom, "ada").mails == 2
    with copied.database.read() as session:
        found = session.exec(select(MailRow).order_by(MailRow.ref)).all()
    assert [row.state for row in found] == [MailState.UNKNOWN, MailState.UNKNOWN, "sent", "failed", "unknown"]
    assert [row.settled_at for row in found[:2]] == [copied.clock.at] * 2
    assert all("does not know" in row.trouble for row in found[:2])
    assert mail.send_due(copied.newsroom) == 0


def test_adopting_is_whole_or_not_at_all(copied: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise ProviderError("in the middle")

    monkeypatch.setattr(place, "_give_up_mails", broken)
    with pytest.raises(ProviderError):
        place.adopt(copied.newsroom, "ada")
    assert slot_row(copied) is None
    assert place.see(copied.newsroom) is not None


def test_after_adopting_the_lease_is_free(copied: World) -> None:
    # Its old holder is alive, and is the clock of the other place.
    place.adopt(copied.newsroom, "ada")
    assert Lease(copied.database, lease.CLOCK, "here/2/2.00", copied.clock, is_running=lambda _: True).beat()
