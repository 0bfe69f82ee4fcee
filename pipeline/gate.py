"""The gate before each slot: what its editors decide, what becomes of it when they do not, and who is told.

`tend` is what the clock rings for. What is due is asked of the database at each ring, so a clock that was away, or
two of them, come to the same end.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from pipeline import desk, inbox, ledger, mail, place
from pipeline.books import BatchRow, IssueRow, IssueState, LeaseRow, Pause, SlotRow, Stance
from pipeline.desk import Deed, Kind
from pipeline.errors import ContentError, DecisionNeeded, UsageError, Waits
from pipeline.issue import Draft, Slot
from pipeline.ledger import Report
from pipeline.newsroom import Newsroom
from pipeline.publish import draft, goes_on, look, named, publish_due
from pipeline.rows import is_postgres
from pipeline.schedule import WEEK, Timing
from subscribers import roll

CLOCK = "the clock"
# As far back a slot is looked for that the clock was not awake for.
FARTHEST = timedelta(days=60)
# For so long nothing is heard of a run that has ended.
QUIET = timedelta(minutes=10)
SAYS_SO_EVERY = timedelta(minutes=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a slot stands, as its desk shows it."""

    slot: Slot
    timing: Timing
    row: SlotRow
    issue: IssueRow | None
    deeds: tuple[Deed, ...]

    @property
    def state(self) -> str:
        """The state of its issue, or what was said of the slot, or `open`."""
        if self.issue and self.issue.enrolled_at:
            return self.issue.state
        return self.row.stance or (self.issue.state if self.issue else "open")


def standing(newsroom: Newsroom, slot: Slot) -> Standing:
    """How a slot stands, and all that was done at its desk."""
    with newsroom.database.read() as session:
        row, issue = desk.slot(session, slot.name), ledger.find(session, slot.name)
        done = desk.deeds(session, slot.name)
    return Standing(slot, newsroom.schedule.timing(slot, newsroom.now()), row, issue, tuple(done))


def titles(newsroom: Newsroom, deeds: Iterable[Deed]) -> dict[str, str]:
    """What the stories are called that things were done to, by their pages."""
    pages = {str(deed.about[name]) for deed in deeds for name in ("page", "other") if name in deed.about}
    with newsroom.database.read() as session:
        return {page: story.title for page, story in inbox.told_on(session, pages).items()}


def hold(newsroom: Newsroom, slot: Slot, by: str, why: str = "") -> None:
    """Let nothing go out for a slot before somebody approves or reopens it.

    Raises:
        UsageError: its readers are enrolled, or it is skipped.
    """
    with newsroom.database.write() as session:
        row = _not_begun(session, slot)
        if row.stance == Stance.SKIPPED:
            raise UsageError(f"{slot.name} is skipped; `friday reopen {slot.name}` opens it again")
        desk.take_stance(row, Stance.HELD, by, newsroom.now(), why)
        desk.write(session, slot.name, Kind.HOLD, {"why": why}, by, newsroom.now())


def skip(newsroom: Newsroom, slot: Slot, by: str, why: str = "") -> None:
    """Publish nothing for a slot; an approval is void.

    Raises:
        UsageError: its readers are enrolled.
    """
    with newsroom.database.write() as session:
        row = _not_begun(session, slot)
        if ledger.find(session, slot.name):
            ledger.reopen(session, slot.name)
        desk.take_stance(row, Stance.SKIPPED, by, newsroom.now(), why)
        desk.write(session, slot.name, Kind.SKIP, {"why": why}, by, newsroom.now())


def order(newsroom: Newsroom, slot: Slot, by: str, seen: str = "") -> None:
    """Have the clock send an approved issue now, however early or late it is.

    Args:
        newsroom: where.
        slot: which issue.
        by: who wants it.
        seen: the digest of what was looked at; nothing else is sent then.

    Raises:
        UsageError: it is not approved, or its readers are enrolled already.
        DecisionNeeded: it is held, or not what was looked at any more.
    """
    with newsroom.database.write() as session:
        row = _not_begun(session, slot)
        issue = ledger.find(session, slot.name)
        if issue is None:
            raise UsageError(f"{slot.name} is not approved yet: what is to be sent is approved first")
        if row.stance == Stance.HELD:
            raise DecisionNeeded(f"{slot.name} is held, by {row.by or 'a person'}: approve it first, which lets it go")
        if seen and seen != issue.digest:
            raise DecisionNeeded(f"what is approved for {slot.name} has changed since you looked at it: look again")
        desk.take_stance(row, Stance.ORDERED, by, newsroom.now())
        desk.write(session, slot.name, Kind.SEND, {}, by, newsroom.now())


def _not_begun(session: Session, slot: Slot) -> SlotRow:
    row = desk.lock(session, slot.name)
    issue = ledger.find(session, slot.name)
    if issue and issue.enrolled_at:
        state = issue.state.replace("_", " ")
        raise UsageError(
            f"{slot.name} is {state}: its readers are enrolled; `friday pause {slot.name}` stops what is being sent"
        )
    return row


def allowed(newsroom: Newsroom, own: str = "") -> tuple[str, ...]:
    """Where tests may go: to the addresses that config.toml names for them, to those who edit, and to who is signed in."""
    named = newsroom.config.newsletter.test_addresses
    return tuple(dict.fromkeys([*([own] if own else []), *named, *_everybody(newsroom)]))


def send_test(newsroom: Newsroom, slot: Slot, addresses: Sequence[str], by: str, own: str = "") -> tuple[str, ...]:
    """Have the very issue sent to addresses that are allowed, marked as a test; to which.

    Args:
        newsroom: what the route reaches for.
        slot: which issue.
        addresses: where to.
        by: who wants it.
        own: the address of who is signed in, which is allowed too.

    Raises:
        UsageError: one of them is not on that list, or there is none.
        ContentError: a term or a template is broken.
        DecisionNeeded: this is a copy of the newsroom, which sends nothing.
    """
    known = {roll.normalise(each).key: each for each in allowed(newsroom, own)}
    if not addresses:
        raise UsageError("name an address to send the test to")
    wanted = [roll.normalise(each).key for each in addresses]
    if not set(wanted) <= known.keys():
        cure = "add it there" if known else 'write them there, such as test_addresses = ["you@example.org"]'
        where = "newsletter.test_addresses, or of editors and owner, in config.toml"
        raise UsageError(f"tests go only to the addresses of {where}: {cure}")
    chosen = tuple(known[key] for key in dict.fromkeys(wanted))
    place.require(newsroom)
    about = {"issue": look(newsroom, slot).rendered.to_json(), "slot": slot.name}
    with newsroom.database.write() as session:
        mail.queue_for_staff(session, mail.TEST, chosen, newsroom.now(), about)
        desk.write(session, slot.name, Kind.TEST, {"to": len(chosen)}, by, newsroom.now())
    return chosen


def tend(newsroom: Newsroom) -> Report | None:
    """What the clock rings for: tell editors of drafts and of what waits, publish what is due, tell the owner of the end.

    Raises:
        FridayError: as `publish` does.
    """
    _take_back_what_is_not_missed(newsroom)
    _notice_the_missed(newsroom)
    slot = newsroom.schedule.due(newsroom.now())
    if slot:
        _decide_for_the_editors(newsroom, slot)
    try:
        sent = publish_due(newsroom)
    except (ContentError, Waits) as error:
        if slot:
            _wait(newsroom, slot, str(error), approved=isinstance(error, Waits))
        raise
    finally:
        # Whatever keeps one issue from going out, editors hear of the next.
        _tell_of_the_stuck(newsroom)
        _report_the_closed(newsroom)
        _announce_the_coming(newsroom)
    return sent


def _notice_the_missed(newsroom: Newsroom) -> None:
    """Mark each slot whose grace has ended without an issue, since the clock was last awake."""
    now, schedule = newsroom.now(), newsroom.schedule
    with newsroom.database.read() as session:
        last = session.exec(select(LeaseRow.beat_at).where(LeaseRow.name == AWAKE)).first()
    awake = max(last or now, now - FARTHEST)
    # At the very end of its grace a slot is still due.
    slept_through = schedule.between(awake - schedule.grace - _INSTANT, now - schedule.grace - _INSTANT)
    for slot in (*slept_through, *_late_of_a_sudden(newsroom)):
        with newsroom.database.read() as session:
            missed = _is_missed(session, slot)
        if missed:
            _miss(newsroom, slot)
    # Afterwards, so that whoever is killed in between looks at the same slots again.
    if last is None or now - last > SAYS_SO_EVERY:
        with newsroom.database.write() as session:
            insert: Any = (postgresql if is_postgres(session) else sqlite).insert
            beat = {"holder": newsroom.runner, "until": now, "beat_at": now}
            say = insert(LeaseRow).values(name=AWAKE, **beat).on_conflict_do_update(index_elements=["name"], set_=beat)
            session.connection().execute(say)


def _take_back_what_is_not_missed(newsroom: Newsroom) -> None:
    """Let a slot that the clock has called missed go its way again, where the time or the schedule was put right since."""
    by_the_clock = (col(SlotRow.stance) == Stance.MISSED) & (col(SlotRow.by) == CLOCK)
    since = (newsroom.now() - FARTHEST).date().isoformat()
    with newsroom.database.read() as session:
        names = session.exec(select(SlotRow.slot).where(by_the_clock, col(SlotRow.slot) >= since)).all()
    for slot in (named(newsroom, name) for name in names):
        if newsroom.schedule.timing(slot, newsroom.now()) is Timing.LATE:
            continue
        with newsroom.database.write() as session:
            row = desk.lock(session, slot.name)
            if row.stance == Stance.MISSED and row.by == CLOCK:
                desk.take_stance(row, Stance.NONE, CLOCK, newsroom.now())
                row.waits_since = None
                log.warning("%s is not missed after all: its time has not passed", slot.name)


def _late_of_a_sudden(newsroom: Newsroom) -> list[Slot]:
    """The slots that editors were told of or have approved, and whose grace was over before the clock came to its end.

    The schedule, or the time of the machine, was changed meanwhile. What was opened again after its grace is not among them.
    """
    now, schedule = newsroom.now(), newsroom.schedule
    waiting = (
        select(SlotRow.slot, SlotRow.changed_at, IssueRow.id)
        .join(IssueRow, col(IssueRow.slot) == col(SlotRow.slot), isouter=True)
        .where(col(SlotRow.slot).between((now - FARTHEST).date().isoformat(), (now + WEEK).date().isoformat()))
        .where(SlotRow.stance == Stance.NONE, col(IssueRow.enrolled_at).is_(None))
        .where(col(SlotRow.drafted_at).is_not(None) | col(IssueRow.id).is_not(None))
    )
    late = []
    with newsroom.database.read() as session:
        rows = session.exec(waiting).all()
    for name, changed_at, approved in rows:
        with suppress(UsageError):
            # Nobody waits for a draft of a day that has no slot any more, but for what was approved.
            slot = named(newsroom, name) if approved else schedule.named(name)
            over = schedule.timing(slot, now) is Timing.LATE
            late += [slot] if over and not (changed_at and changed_at > slot.at + schedule.grace) else []
    return late


def _is_missed(session: Session, slot: Slot) -> bool:
    row, issue = desk.slot(session, slot.name), ledger.find(session, slot.name)
    # What a person holds is not forgotten.
    forgotten = row.stance == Stance.NONE or (row.stance == Stance.HELD and row.by == CLOCK)
    return forgotten and not (issue and issue.enrolled_at)


def _miss(newsroom: Newsroom, slot: Slot) -> None:
    with newsroom.database.write() as session:
        row = desk.lock(session, slot.name)
        if not _is_missed(session, slot):
            return
        waited = row.stance == Stance.HELD or row.waits_since
        why = "it waited until its grace was over" if waited else "the clock did not come to it within its grace"
        # What it waited for is gone where somebody has opened it again.
        why += f" ({row.why})" if waited and row.why else ""
        desk.take_stance(row, Stance.MISSED, CLOCK, newsroom.now(), why)
        _tell(session, newsroom, "missed", _everybody(newsroom), slot, {"why": why})
    log.error("%s was missed: %s; `friday publish %s --anyway` or `friday skip %s`", slot.name, why, slot.name, slot.name)


AWAKE = "gate"
_INSTANT = timedelta.resolution


def _announce_the_coming(newsroom: Newsroom) -> None:
    ahead = timedelta(hours=newsroom.config.timetable.draft_before_hours)
    for coming in newsroom.schedule.between(newsroom.now(), newsroom.now() + ahead):
        _announce(newsroom, coming)


def _announce(newsroom: Newsroom, slot: Slot) -> None:
    """Tell the editors once that there is a draft, and once more shortly before the slot opens."""
    soon = slot.at - newsroom.now() <= timedelta(hours=newsroom.config.timetable.remind_before_hours)
    with newsroom.database.read() as session:
        if not _is_to_be_told(session, desk.slot(session, slot.name), soon=soon):
            return
    try:
        about = _of_draft(newsroom, draft(newsroom, slot))
    except ContentError as error:
        # Whoever is to mend it has most time now.
        about = {**_NO_DRAFT, "findings": str(error), "unapproved": newsroom.config.timetable.unapproved}
    with newsroom.database.write() as session:
        row = desk.lock(session, slot.name)
        if not _is_to_be_told(session, row, soon=soon):
            return
        kind = "reminder" if row.drafted_at else "drafted"
        # Whoever comes to a draft late needs no reminder of it as well.
        row.reminded_at = newsroom.now() if soon else None
        row.drafted_at = row.drafted_at or newsroom.now()
        _tell(session, newsroom, kind, _editors(newsroom), slot, about)


def _is_to_be_told(session: Session, row: SlotRow, *, soon: bool) -> bool:
    if row.stance != Stance.NONE or row.reminded_at or (row.drafted_at and not soon):
        return False
    return ledger.find(session, row.slot) is None


def _decide_for_the_editors(newsroom: Newsroom, slot: Slot) -> None:
    """What becomes of a slot that has opened and is not approved, as `schedule.unapproved` says."""
    unapproved = newsroom.config.timetable.unapproved
    if unapproved == "send":
        return
    with newsroom.database.read() as session:
        row, issue = desk.slot(session, slot.name), ledger.find(session, slot.name)
    if issue or row.stance != Stance.NONE:
        return
    if unapproved == "hold":
        _wait(newsroom, slot, "nobody has approved it, and schedule.unapproved is hold", Stance.HELD)
        return
    if row.waits_since:
        # Whoever mends it, or opens it again, needs time to approve it.
        return
    try:
        wrong = "; ".join(f"{each.check}: {each.what}" for each in draft(newsroom, slot).errors)
    except ContentError as error:
        wrong = str(error)
    if wrong:
        # What an editor must mend waits for an editor, whatever else was said.
        _wait(newsroom, slot, wrong)
        return
    with newsroom.database.write() as session:
        row = desk.lock(session, slot.name)
        if row.stance == Stance.NONE and row.waits_since is None and ledger.find(session, slot.name) is None:
            why = "nobody had approved it when it opened, and schedule.unapproved is skip"
            row.waits_since = newsroom.now()
            desk.take_stance(row, Stance.SKIPPED, CLOCK, newsroom.now(), why)
            desk.write(session, slot.name, Kind.SKIP, {"why": why}, CLOCK, newsroom.now())
            _tell(session, newsroom, "waits", _editors(newsroom), slot, {"why": why, "skipped": "yes"})


def _wait(newsroom: Newsroom, slot: Slot, why: str, stance: Stance = Stance.NONE, *, approved: bool = False) -> None:
    """Tell the editors once that a slot has opened and waits for them; `approved` says that an approved issue may wait too."""
    with newsroom.database.write() as session:
        row, issue = desk.lock(session, slot.name), ledger.find(session, slot.name)
        if row.stance != Stance.NONE or (issue and (issue.enrolled_at or not approved)):
            return
        if stance is not Stance.NONE:
            desk.take_stance(row, stance, CLOCK, newsroom.now(), why)
        if row.waits_since is None:
            row.waits_since, row.why = newsroom.now(), why
            needs = {"send": "mending", "hold": "approval", "skip": "both"}[newsroom.config.timetable.unapproved]
            about = {"why": why, "skipped": "", "needs": "mending" if issue else needs}
            _tell(session, newsroom, "waits", _editors(newsroom), slot, about)


def _tell_of_the_stuck(newsroom: Newsroom) -> None:
    """Tell people once of each issue that is not over and does not go on by itself."""
    on_the_way = col(IssueRow.state).in_((IssueState.SENDING, IssueState.PAUSED))
    told = on_the_way & col(IssueRow.stuck_at).is_(None) & (col(IssueRow.paused_by).not_in((Pause.PERSON, Pause.RAMP)))
    with newsroom.database.read() as session:
        waiting = [issue for issue in session.exec(select(IssueRow).where(told)).all() if _is_stuck(newsroom, session, issue)]
    for issue in waiting:
        with newsroom.database.write() as session:
            found = session.get_one(IssueRow, issue.id, with_for_update=True)
            if found.stuck_at is None and found.state in (IssueState.SENDING, IssueState.PAUSED):
                found.stuck_at = newsroom.now()
                why = found.trouble or "it was interrupted, and its time is over"
                about = _of_report(newsroom, ledger.report(session, found)) | {"why": why}
                mail.queue_for_staff(session, "stuck", _everybody(newsroom), newsroom.now(), about)


def _is_stuck(newsroom: Newsroom, session: Session, issue: IssueRow) -> bool:
    now = newsroom.now()
    if issue.paused_by == Pause.TROUBLE and issue.resume_at is None:
        return True
    ordered = desk.slot(session, issue.slot).stance == Stance.ORDERED
    if ordered or goes_on(newsroom, issue, max(now, issue.resume_at or now)):
        return False
    # Somebody may be sending it by hand at this moment.
    calls = select(BatchRow.attempted_at).where(BatchRow.issue_id == issue.id).order_by(col(BatchRow.id).desc()).limit(1)
    last = max(session.exec(calls).first() or now - FARTHEST, issue.enrolled_at or now - FARTHEST)
    return issue.state == IssueState.PAUSED or now - last > QUIET


def _report_the_closed(newsroom: Newsroom) -> None:
    """Tell the owner once of each issue that has come to its end."""
    closed = (IssueState.SENT, IssueState.NEEDS_DECISION)
    unreported = (col(IssueRow.reported_at).is_(None), col(IssueRow.closed_at).is_not(None), col(IssueRow.state).in_(closed))
    with newsroom.database.read() as session:
        if session.exec(select(IssueRow.id).where(*unreported)).first() is None:
            return
    with newsroom.database.write() as session:
        for issue in session.exec(select(IssueRow).where(*unreported).with_for_update(skip_locked=True)).all():
            issue.reported_at = newsroom.now()
            found = ledger.report(session, issue)
            mail.queue_for_staff(session, "report", _owner(newsroom), newsroom.now(), _of_report(newsroom, found))


def _tell(
    session: Session, newsroom: Newsroom, kind: str, addresses: Iterable[str], slot: Slot, about: Mapping[str, str]
) -> None:
    mail.queue_for_staff(session, kind, addresses, newsroom.now(), {**_of_slot(newsroom, slot), **about})


def _editors(newsroom: Newsroom) -> tuple[str, ...]:
    return newsroom.config.newsletter.editors or _owner(newsroom)


def _owner(newsroom: Newsroom) -> tuple[str, ...]:
    owner = newsroom.config.newsletter.owner
    return (owner,) if owner else ()


def _everybody(newsroom: Newsroom) -> tuple[str, ...]:
    return (*_owner(newsroom), *newsroom.config.newsletter.editors)


def _of_slot(newsroom: Newsroom, slot: Slot) -> dict[str, str]:
    schedule = newsroom.schedule
    local = slot.at.astimezone(schedule.zone)
    return {
        "slot": slot.name,
        "day": f"{slot.day:%A}, {slot.day.day} {slot.day:%B}",
        "opens": f"{local:%A, %H:%M} {local:%Z}",
        "own_hour": f"{schedule.at:%H:%M}" if schedule.reader_time else "",
    }


def _of_draft(newsroom: Newsroom, drafted: Draft) -> dict[str, str]:
    issue = drafted.issue
    return {
        "subject": issue.subject,
        "stories": "\n".join(line.title for line in issue.lines),
        "term": issue.term.name if issue.term else "",
        "findings": "\n".join(f"{each.level.value}: {each.what}" for each in drafted.findings),
        "unapproved": newsroom.config.timetable.unapproved,
        "blocked": "yes" if drafted.errors else "",
    }


_NO_DRAFT = {"subject": "there is something to mend first", "stories": "", "term": "", "blocked": "yes"}


def _of_report(newsroom: Newsroom, found: Report) -> dict[str, str]:
    return {
        "slot": found.slot,
        "number": str(found.number),
        "subject": found.subject,
        "state": "waiting for a decision" if found.state == IssueState.NEEDS_DECISION else found.state,
        "readers": "1 reader" if found.enrolled == 1 else f"{found.enrolled:,} readers",
        "counts": "\n".join(f"{number:,} {state}" for state, number in found.counts.items() if number),
        "excluded": f"{found.excluded:,}" if found.excluded else "",
        # Who they are is not written into a mail, where no erasure reaches it.
        "unknown": f"{len(found.unknown):,}" if found.unknown else "",
        "issue_url": f"{newsroom.masthead.base_url}/issues/{found.slot}",
    }
