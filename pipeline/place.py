"""Where the newsroom lives: a copy of its database knows that it is one, and sends nothing until a person adopts it."""

import hashlib
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session, col, select, update

from pipeline import desk, lease, ledger
from pipeline.books import IssueRow, IssueState, MailRow, MailState, Pause, PlaceRow, SlotRow, Stance
from pipeline.errors import DecisionNeeded, UsageError
from pipeline.issue import Slot
from pipeline.newsroom import Newsroom

MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
DIGITS = 32
NAMED, FILE, SERVER, BACKUP = "named", "file", "server", "backup"
SLOT_TROUBLE = "this copy does not know whether it was sent"
EARLY_TROUBLE = "the other one may have sent it early: approve it if it has not"
MAIL_TROUBLE = "this copy does not know whether it was sent"


@dataclass(frozen=True, slots=True)
class Moved:
    """A database that is not where it was at home. As text it says so, why nothing is sent, and what to do."""

    why: str
    host: str
    since: datetime
    heard: datetime | None

    def __str__(self) -> str:
        home = f"at home on {self.host}" if self.host else "at home elsewhere"
        beat = f", where its clock last beat at {_minute(self.heard)}" if self.heard else ""
        looked = f"opened since about {_minute(self.heard)}" if self.heard else "opened last"
        return (
            f"this newsroom has moved, so it sends nothing: since {_minute(self.since)} it was {home}{beat}; {self.why}. "
            "The other one may still be alive and sending. If it is, leave this one as it is, or delete it. If this one is to "
            "go on from now on, stop the other one for good and run `friday adopt` here: it calls each slot missed that "
            f"{looked} and may have been sent there, holds those to come that may have been sent early, pauses issues that "
            "were on their way until you have looked at what was sent, and gives up mails that waited. To call both the same "
            "place, set FRIDAY_INSTANCE before the first start"
        )


@dataclass(frozen=True, slots=True)
class Adopted:
    """What adopting a copy did: slots that may have been sent elsewhere, issues that wait for a person, mails given up.

    Those that are `held` have not opened yet.
    """

    missed: tuple[str, ...]
    held: tuple[str, ...]
    paused: tuple[str, ...]
    mails: int


def see(newsroom: Newsroom) -> Moved | None:
    """How the newsroom has moved, if it has; one that never settled anywhere has not. Writes nothing."""
    with newsroom.database.read() as session:
        home = session.get(PlaceRow, 1)
        if home is None:
            return None
        here = _identity(newsroom, session)
        if home.identity == here:
            return None
        last = lease.last(session, lease.CLOCK)
    host = last.holder.partition("/")[0] if last else ""
    return Moved(_difference(home.identity, here), host, home.since, last.beat_at if last else None)


def settle(newsroom: Newsroom) -> Moved | None:
    """The same, and one that never settled anywhere is at home here from now on."""
    with newsroom.database.read() as session:
        settled = session.get(PlaceRow, 1)
    if not settled:
        # Another process may be quicker.
        with suppress(IntegrityError), newsroom.database.write() as session:
            session.add(PlaceRow(identity=_identity(newsroom, session), since=newsroom.now()))
    return see(newsroom)


def require(newsroom: Newsroom) -> None:
    """See that the newsroom is where it is at home. Writes nothing.

    Raises:
        DecisionNeeded: it has moved.
    """
    moved = see(newsroom)
    if moved:
        raise DecisionNeeded(str(moved))


def adopt(newsroom: Newsroom, by: str) -> Adopted:
    """Let this copy be the one from now on, and let nothing of it go by itself that may have been sent elsewhere.

    Raises:
        UsageError: it is at home here already; nothing was changed.
    """
    now = newsroom.now()
    with newsroom.database.write() as session:
        home = session.get(PlaceRow, 1, with_for_update=True)
        here = _identity(newsroom, session)
        if home is None or home.identity == here:
            raise UsageError("this newsroom is at home here: there is nothing to adopt, and nothing was changed")
        last = lease.last(session, lease.CLOCK)
        heard = last.beat_at if last else None
        home.identity, home.since = here, now
        if last:
            lease.end(session, last.name, last.holder)
        missed = [slot for slot in _in_doubt(newsroom, session, heard, now) if _miss(session, slot, by, now)]
        held = [slot for slot in _perhaps_early(newsroom, session, now) if _hold(session, slot, by, now)]
        paused = _pause_all(session, heard)
        return Adopted(tuple(missed), tuple(held), tuple(paused), _give_up_mails(session, now))


def _in_doubt(newsroom: Newsroom, session: Session, heard: datetime | None, now: datetime) -> list[str]:
    """The slots that the other place may have sent after what is known here of it."""
    schedule = newsroom.schedule
    # One that had opened before may have waited there, and gone at the end of its grace.
    opened: list[Slot] = schedule.between(heard - schedule.grace, now) if heard else [schedule.last(now)]
    ordered = session.exec(select(SlotRow.slot).where(SlotRow.stance == Stance.ORDERED)).all()
    names = sorted({*(slot.name for slot in opened), *ordered})
    enrolled = select(IssueRow.slot).where(col(IssueRow.slot).in_(names), col(IssueRow.enrolled_at).is_not(None))
    known = set(session.exec(enrolled).all())
    return [name for name in names if name not in known]


def _miss(session: Session, slot: str, by: str, now: datetime) -> bool:
    """Call a slot missed; False where it gets no issue anyway."""
    row = desk.lock(session, slot)
    if row.stance == Stance.SKIPPED:
        return False
    desk.take_stance(row, Stance.MISSED, by, now, SLOT_TROUBLE)
    return True


def _perhaps_early(newsroom: Newsroom, session: Session, now: datetime) -> list[str]:
    """The slots to come that the other place may have sent before they open, since there was a draft to look at.

    Of one whose draft is due by now editors may have been told there, though this copy is older than that.
    """
    enrolled = select(IssueRow.slot).where(col(IssueRow.enrolled_at).is_not(None))
    drafted = select(SlotRow.slot).where(col(SlotRow.drafted_at).is_not(None))
    known = {*session.exec(enrolled).all()}
    names = {*session.exec(drafted).all(), *session.exec(select(IssueRow.slot)).all()} - known
    to_come = [name for name in names if newsroom.schedule.opening(date.fromisoformat(name)) > now]
    ahead = timedelta(hours=newsroom.config.timetable.draft_before_hours)
    told_by_now = [slot.name for slot in newsroom.schedule.between(now, now + ahead) if slot.name not in known]
    return sorted({*to_come, *told_by_now})


def _hold(session: Session, slot: str, by: str, now: datetime) -> bool:
    """Let a slot wait for a person; False where nothing is sent for it by itself anyway."""
    row = desk.lock(session, slot)
    if row.stance in (Stance.SKIPPED, Stance.MISSED):
        return False
    desk.take_stance(row, Stance.HELD, by, now, EARLY_TROUBLE)
    desk.write(session, slot, desk.Kind.HOLD, {"why": EARLY_TROUBLE}, by, now)
    return True


def _pause_all(session: Session, heard: datetime | None) -> list[str]:
    """Let issues that go on by themselves wait for a person."""
    on_the_way = col(IssueRow.state).in_((IssueState.SENDING, IssueState.PAUSED)) & (col(IssueRow.paused_by) != Pause.PERSON)
    issues = session.exec(select(IssueRow).where(on_the_way).order_by(col(IssueRow.slot))).all()
    after = f" after {_minute(heard)}" if heard else ""
    for issue in issues:
        ledger.resume(session, issue)
        trouble = f"this is a copy: look what was sent{after} first; `friday resume {issue.slot}` sends what is pending here"
        ledger.pause(session, issue, Pause.PERSON, trouble)
    return [issue.slot for issue in issues]


def _give_up_mails(session: Session, now: datetime) -> int:
    waiting = col(MailRow.settled_at).is_(None) & col(MailRow.state).in_((MailState.QUEUED, MailState.SENDING))
    giving_up = update(MailRow).where(waiting).values(state=MailState.UNKNOWN, settled_at=now, trouble=MAIL_TROUBLE)
    return session.exec(giving_up.execution_options(synchronize_session=False)).rowcount


def as_backup(identity: str) -> str:
    """The identity that a backup of a database carries, which is that of no place: whoever restores it adopts it."""
    return identity if identity.startswith(f"{BACKUP}/") else f"{BACKUP}/{identity}"


def _identity(newsroom: Newsroom, session: Session) -> str:
    """What kind of place this is, and digests of what tells it from others."""
    named = newsroom.config.secrets.get("FRIDAY_INSTANCE")
    if named:
        return f"{NAMED}/{_digest(NAMED, named)}"
    if newsroom.database.is_sqlite:
        return f"{FILE}/{_digest('machine', _machine())}/{_digest(FILE, _file(newsroom.database.path))}"
    try:
        with session.begin_nested():
            server = session.execute(text("SELECT system_identifier FROM pg_control_system()")).scalar_one()
    except DBAPIError:
        # Some who rent out servers do not let their clients know.
        server = "hidden"
    own = session.execute(text("SELECT oid FROM pg_database WHERE datname = current_database()")).scalar_one()
    return f"{SERVER}/{_digest(SERVER, str(server))}/{_digest('database', str(own))}"


def _difference(was: str, here: str) -> str:
    kind, _, rest = was.partition("/")
    if kind == BACKUP:
        return "this is a backup that was restored"
    if kind == NAMED and here.startswith(NAMED):
        return "FRIDAY_INSTANCE was something else there"
    if NAMED in (kind, here.partition("/")[0]):
        return "FRIDAY_INSTANCE is set here, and was not there, or the other way round"
    if kind != here.partition("/")[0]:
        return "its database was of another kind there"
    same = rest.partition("/")[0] == here.split("/")[1]
    if kind == FILE:
        return "its database is another file of the same machine now" if same else "this is another machine"
    return "this is another database of the same server" if same else "this is another database server"


def _machine() -> str:
    for path in MACHINE_IDS:
        try:
            found = path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
        if found and found != "uninitialized":
            return found
    node = uuid.getnode()
    # Where there is no network card it is drawn by lot, anew in each process, which this bit tells.
    return "" if node >> 40 & 1 else f"{node:012x}"


def _file(path: Path | None) -> str:
    # The file system by what comes from its UUID on ext4, btrfs and ZFS; on XFS and f2fs it is the device's number, on NFS 0.
    # `st_dev` is drawn anew at each start on btrfs, ZFS, NFS and overlays, and may change on LVM and NVMe.
    return f"{os.statvfs(path).f_fsid}:{path.stat().st_ino}" if path else ""


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(("friday", *parts)).encode()).hexdigest()[:DIGITS]


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
