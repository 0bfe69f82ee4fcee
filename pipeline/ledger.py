"""The right half of the route: issues frozen, enrolled, paused, closed and told of, one guarded step at a time.

Every function takes a session and commits nothing itself. Every change of state is an UPDATE that names
the state it leaves, so a second process that does the same finds nothing to do.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Text, bindparam, case, cast, insert, literal, literal_column, text, union_all
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, delete, func, select, update
from sqlmodel.sql.expression import SelectOfScalar

from pipeline.batches import is_on_the_way, move_copies, pending_of, unsettled_of
from pipeline.books import UNUSUAL, BatchRow, DeliveryRow, DeliveryState, Fate, IssueRow, IssueState, Pause, ToldRow
from pipeline.database import Utc
from pipeline.errors import DecisionNeeded, UsageError
from pipeline.hours import Hour, all_later, hours_of, progress
from pipeline.issue import Copy, Draft, Receipt, Slot, Story
from pipeline.schedule import Schedule
from pipeline.settle import believe
from subscribers import roll
from subscribers.models import Subscriber, Suppression

_NO_PAUSE: dict[str, object] = {"paused_by": "", "trouble": "", "resume_at": None}


@dataclass(frozen=True, slots=True)
class Unknown:
    """A copy of which nobody can tell whether it left, with the evidence."""

    address: str
    ref: str
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """How an issue stands: each of the `enrolled` readers is in exactly one of `counts`, and in one of the `hours` if any."""

    slot: str
    number: int
    state: str
    subject: str
    enrolled: int
    excluded: int
    counts: dict[str, int]
    unknown: tuple[Unknown, ...]
    trouble: str
    paused_by: str
    fates: dict[str, int]
    hours: tuple[Hour, ...] = ()


@dataclass(frozen=True, slots=True)
class Lost:
    """An unknown copy as a provider's log is asked about it: its first attempt and its last. Its way out is not part of it."""

    copy: Copy
    resent: int
    claimed_at: datetime
    attempted_at: datetime


class Decision(StrEnum):
    """What a person may decide about unknown copies."""

    ACCEPTED = "accepted"
    RESEND = "resend"
    SKIP = "skip"


def find(session: Session, slot: str) -> IssueRow | None:
    """The frozen issue of a slot."""
    return session.exec(select(IssueRow).where(IssueRow.slot == slot)).first()


def published(session: Session) -> Sequence[IssueRow]:
    """The issues whose audience is enrolled, newest first: what the public may see."""
    return session.exec(_published()).all()


def newest(session: Session) -> IssueRow | None:
    """The last issue whose audience is enrolled."""
    return session.exec(_published().limit(1)).first()


def _published() -> SelectOfScalar[IssueRow]:
    return select(IssueRow).where(col(IssueRow.enrolled_at).is_not(None)).order_by(col(IssueRow.slot).desc())


def number_of(session: Session, slot: Slot) -> int:
    """The number of a slot's issue; the next one where nothing is frozen for it."""
    issue = find(session, slot.name)
    return issue.number if issue else (session.exec(select(func.max(col(IssueRow.number)))).one() or 0) + 1


def past_stories(session: Session, before: Slot) -> list[Story]:
    """Every telling of every story that an issue of an earlier slot carried."""
    query = select(ToldRow).join(IssueRow).where(IssueRow.slot < before.name).order_by(col(ToldRow.id))
    return [Story(row.url, row.title, row.source, row.published, row.summary) for row in session.exec(query)]


def featured_terms(session: Session, before: Slot) -> dict[str, date]:
    """When each term was last featured by an issue of an earlier slot, by slug."""
    query = select(IssueRow.term, func.max(col(IssueRow.slot))).where(IssueRow.slot < before.name)
    return {slug: date.fromisoformat(slot) for slug, slot in session.exec(query.group_by(col(IssueRow.term)))}


def freeze(session: Session, draft: Draft, now: datetime) -> IssueRow:
    """Store the bytes of a draft as the slot's issue, once: a slot that is frozen already is left as it is."""
    issue = IssueRow(
        slot=draft.slot.name,
        number=draft.issue.number,
        state=IssueState.APPROVED,
        frozen=draft.rendered.to_json(),
        digest=draft.rendered.digest,
        term=draft.selection.term.term.slug if draft.selection.term else "",
        frozen_at=now,
    )
    try:
        with session.begin_nested():
            session.add(issue)
    except IntegrityError:
        # It was frozen before, by whomever.
        found = find(session, draft.slot.name)
        if found is None:
            raise DecisionNeeded(f"number {issue.number} was given to another issue meanwhile: run it again") from None
        return found
    for place, chosen in enumerate(draft.selection.stories, 1):
        for story in (chosen.story, *chosen.also):
            row = ToldRow(
                issue_id=_id(issue), place=place, url=story.url, title=story.title,
                source=story.source, summary=story.summary, published=story.published,
            )  # fmt: skip
            session.add(row)
    return issue


def coming(session: Session, schedule: Schedule, now: datetime) -> Slot:
    """The next slot whose readers are not enrolled yet: that which is due, or the first after it."""
    slot = schedule.current(now)
    while (issue := find(session, slot.name)) and issue.enrolled_at:
        slot = schedule.next(slot.at)
    return slot


def reopen(session: Session, slot: str) -> None:
    """Void an approval: the slot is open again, with nothing frozen.

    Raises:
        UsageError: nothing is frozen for the slot.
        DecisionNeeded: readers are enrolled, so the issue can no longer change.
    """
    issue = find(session, slot)
    if issue is None:
        raise UsageError(f"nothing is approved for {slot}")
    approved = col(IssueRow.state) == IssueState.APPROVED
    if not session.exec(delete(IssueRow).where(col(IssueRow.id) == issue.id, approved)).rowcount:
        what = f"issue {issue.number} of {slot} is {issue.state}: its readers are enrolled, so it cannot change"
        raise DecisionNeeded(what)


def enrol(
    session: Session,
    issue: IssueRow,
    now: datetime,
    audience: ColumnElement[bool] | None = None,
    hours: Callable[[str], datetime] | None = None,
) -> None:
    """Write down the audience, once: a delivery for every active subscriber, or an exclusion with its reason.

    An issue that was enrolled before is left as it is.

    Args:
        session: a writing session.
        issue: whose readers.
        now: when; whoever has paused for longer is not of the audience.
        audience: a condition on `Subscriber`, or None for everybody.
        hours: when it is time in a zone, if each reader has an hour of their own; the copies then lie in the order of
            the hours, so that those that may leave are found first.
    """
    if not _move_issue(session, issue, (IssueState.APPROVED,), state=IssueState.SENDING, enrolled_at=now):
        return
    postgres = session.get_bind().dialect.name == "postgresql"
    ref = func.lower(func.hex(func.randomblob(16)))
    if postgres:
        ref = func.replace(cast(func.gen_random_uuid(), Text), "-", "")
    barred = col(Suppression.why)
    wanted = [roll.is_wanted(now), *([] if audience is None else [audience])]
    copies: Select[Any] = (
        select(
            literal(issue.id),
            col(Subscriber.id),
            ref,
            case((barred.is_(None), DeliveryState.PENDING.value), else_=DeliveryState.EXCLUDED.value),
            func.coalesce(barred, ""),
            literal(value=False),
            literal(now, Utc()),
        )  # type: ignore[call-overload]  # more columns than sqlmodel has overloads for
        .join(Suppression, col(Suppression.key) == col(Subscriber.key), isouter=True)
        .where(*wanted)
    )
    columns = ["issue_id", "subscriber_id", "ref", "state", "reason", "suspect", "changed_at"]
    if hours:
        hour, named, is_of_zone = hours_of(session, wanted, hours)
        columns.append("due_at")
        copies = copies.add_columns(hour).join(named, is_of_zone, isouter=True).order_by(hour)
    session.execute(insert(DeliveryRow).from_select(columns, copies.order_by(col(Subscriber.id))))
    if postgres:
        # It would look by itself only after a minute, and until then plan as for an empty table.
        session.execute(text("ANALYZE deliveries"))


def pause(session: Session, issue: IssueRow, by: Pause, trouble: str, resume_at: datetime | None = None) -> bool:
    """Stop claiming, until a time at which the trouble may have passed or until a person says so.

    False if it was not sending.
    """
    lock(session, issue.id)
    paused = {"state": IssueState.PAUSED, "paused_by": by, "trouble": trouble, "resume_at": resume_at}
    return _move_issue(session, issue, (IssueState.SENDING,), **paused)


def rest(session: Session, issue: IssueRow, now: datetime) -> bool:
    """Pause an issue until the next of its readers' hours, if every copy that is on the way waits for one."""
    later = all_later(session, issue, now)
    if later is None:
        return False
    readers = "1 reader has the hour" if later.copies == 1 else f"{later.copies:,} readers have their hour"
    trouble = f"{readers} later; it goes on by itself at {later.first:%H:%M UTC on %A, %d %B}"
    return pause(session, issue, Pause.ZONES, trouble, later.first)


def resume(session: Session, issue: IssueRow) -> bool:
    """Go on with a paused issue; False if it was not paused."""
    return _move_issue(session, issue, (IssueState.PAUSED,), state=IssueState.SENDING, stuck_at=None, **_NO_PAUSE)


def close(session: Session, issue: IssueRow, now: datetime) -> None:
    """Call an issue sent, or in need of a decision, once no copy of it is on the way; open it again where one is anew."""
    lock(session, issue.id)
    if is_on_the_way(session, issue):
        closed = (IssueState.SENT, IssueState.NEEDS_DECISION)
        _move_issue(session, issue, closed, state=IssueState.SENDING, closed_at=None)
        return
    state = IssueState.NEEDS_DECISION if _has_unknown(session, issue) else IssueState.SENT
    before = (IssueState.SENDING, IssueState.PAUSED, IssueState.NEEDS_DECISION)
    _move_issue(session, issue, before, state=state, closed_at=now, **_NO_PAUSE)


def is_sending(session: Session, issue: IssueRow) -> bool:
    """Whether an issue's copies may be handed over."""
    return session.connection().execute(_SENDING, {"issue": issue.id}).first() is not None


_SENDING = select(IssueRow.id).where(IssueRow.id == bindparam("issue"), IssueRow.state == IssueState.SENDING)


def is_undecided(session: Session, issue: IssueRow) -> bool:
    """Whether an issue is closed and needs a decision; it is locked then, so that the caller may close it anew."""
    if session.connection().execute(_UNDECIDED, {"issue": issue.id}).first() is None:
        return False
    lock(session, issue.id)
    return True


_UNDECIDED = select(IssueRow.id).where(IssueRow.id == bindparam("issue"), IssueRow.state == IssueState.NEEDS_DECISION)


def _has_unknown(session: Session, issue: IssueRow) -> bool:
    unknown = select(DeliveryRow.id).where(_unknown_of(issue)).order_by(col(DeliveryRow.id)).limit(1)
    return session.exec(unknown).first() is not None


def _unknown_of(issue: IssueRow) -> ColumnElement[bool]:
    # The state stands in the statement itself, since the index is that of the unknown ones.
    unknown = col(DeliveryRow.state) == literal_column(f"'{DeliveryState.UNKNOWN.value}'")
    return (col(DeliveryRow.issue_id) == issue.id) & unknown


def to_go_on_with(session: Session, now: datetime) -> Sequence[IssueRow]:
    """The issues that were interrupted, or paused until now or earlier, the oldest first."""
    over = (col(IssueRow.state) == IssueState.PAUSED) & (col(IssueRow.resume_at) <= now)
    which = over | (col(IssueRow.state) == IssueState.SENDING)
    return session.exec(select(IssueRow).where(which).order_by(col(IssueRow.slot))).all()


def undecided(session: Session, since: datetime) -> Sequence[IssueRow]:
    """The issues that were closed since an instant with copies that nobody can tell of."""
    query = select(IssueRow).where(IssueRow.state == IssueState.NEEDS_DECISION, col(IssueRow.closed_at) >= since)
    return session.exec(query.order_by(col(IssueRow.slot))).all()


class Tally(NamedTuple):
    """How many copies are in each state, and how many have each fate that events have told of, where there are any."""

    states: Counter[str]
    fates: dict[str, int]


def tally(session: Session, issue: IssueRow) -> Tally:
    """Count the copies of an issue, in one statement that reads indexes, and no rows but those of calls that are out.

    Nearly all are accepted or still pending. All together are counted, the pending ones, those in calls that are out,
    and those that are anything else or have a fate; what is left over is accepted.
    """
    mine, state, fate = col(DeliveryRow.issue_id) == issue.id, col(DeliveryRow.state), col(DeliveryRow.fate)
    is_out = (state == DeliveryState.SENDING) & col(DeliveryRow.batch_id).in_(select(BatchRow.id).where(unsettled_of(issue)))
    alike = (("", mine), (DeliveryState.PENDING, pending_of(issue)), (DeliveryState.SENDING, is_out))
    parts = (
        *(select(literal(what), literal(""), func.count()).where(which) for what, which in alike),
        select(state, fate, func.count()).where(mine, text(UNUSUAL)).group_by(state, fate),
    )
    states, fates = Counter[str](), Counter[str]()
    for what, told, copies in session.execute(union_all(*parts)):
        states[what] += 0 if told and what in _USUAL else copies
        fates[told] += copies
    states[DeliveryState.ACCEPTED.value] = states.pop("") - states.total()
    return Tally(+states, {each.value: fates[each] for each in Fate if fates[each]})


_USUAL = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.ACCEPTED)


def lost_sight_of(session: Session, issue: IssueRow) -> list[Lost]:
    """The unknown copies with what a provider must be told to look for them."""
    query = (
        select(DeliveryRow.ref, Subscriber.address, DeliveryRow.resent)
        .add_columns(col(BatchRow.claimed_at), col(BatchRow.attempted_at))
        .join(Subscriber)
        .join(BatchRow)
        .where(_unknown_of(issue))
        .order_by(col(DeliveryRow.id))
    )
    return [Lost(Copy(ref, address, ""), resent, first, last) for ref, address, resent, first, last in session.execute(query)]


def found(session: Session, issue: IssueRow, receipts: Sequence[Receipt], now: datetime) -> int:
    """Believe the provider's log about unknown copies; how many it settled."""
    lock(session, issue.id)
    moved = believe(session, receipts, now)
    if moved:
        close(session, issue, now)
    return moved


def send_again(session: Session, issue: IssueRow, refs: Sequence[str], most: int, now: datetime) -> int:
    """Make unknown copies pending, since `on_unknown` asks for it, but none more than `most` times; how many."""
    lock(session, issue.id)
    rows = [{"this_ref": ref} for ref in refs]
    moved = session.connection().execute(
        update(DeliveryRow)
        .where(col(DeliveryRow.ref) == bindparam("this_ref"), col(DeliveryRow.state) == DeliveryState.UNKNOWN)
        .where(col(DeliveryRow.resent) < most)
        .values(
            state=DeliveryState.PENDING, batch_id=None, resent=DeliveryRow.resent + 1, reason="sent again: on_unknown",
            changed_at=literal(now, Utc()),
        ),
        rows,
    ).rowcount  # fmt: skip
    if moved:
        close(session, issue, now)
    return moved


def report(session: Session, issue: IssueRow) -> Report:
    """How an issue stands, every unknown copy by name."""
    counts, fates = tally(session, issue)
    excluded = counts.pop(DeliveryState.EXCLUDED, 0)
    states = [state for state in DeliveryState if state is not DeliveryState.EXCLUDED]
    unknown = session.exec(
        select(Subscriber.address, DeliveryRow.ref, DeliveryRow.changed_at, DeliveryRow.reason)
        .select_from(DeliveryRow)
        .join(Subscriber, isouter=True)
        .where(_unknown_of(issue))
        .order_by(col(DeliveryRow.id))
    )
    return Report(
        slot=issue.slot,
        number=issue.number,
        state=issue.state,
        subject=issue.rendered.subject,
        enrolled=counts.total(),
        excluded=excluded,
        counts={state.value: counts[state] for state in states},
        unknown=tuple(Unknown(address or "erased", ref, since, reason) for address, ref, since, reason in unknown),
        trouble=issue.trouble,
        paused_by=issue.paused_by,
        fates=fates,
        hours=progress(session, issue),
    )


def resolve(session: Session, issue: IssueRow, decision: Decision, key: str | None, now: datetime) -> int:
    """Settle unknown copies as a person decided, all of them or one reader's; how many there were.

    Args:
        session: a writing session.
        issue: whose copies.
        decision: what becomes of them; `resend` makes them pending, at the risk of a second copy.
        key: the compared address of one reader, or None for all.
        now: when it was decided.
    """
    states = {
        Decision.ACCEPTED: DeliveryState.ACCEPTED,
        Decision.RESEND: DeliveryState.PENDING,
        Decision.SKIP: DeliveryState.SKIPPED,
    }
    lock(session, issue.id)
    which: ColumnElement[bool] = col(DeliveryRow.issue_id) == issue.id
    if key is not None:
        which &= col(DeliveryRow.subscriber_id).in_(select(Subscriber.id).where(Subscriber.key == key))
    unlinked = {"batch_id": None} if decision is Decision.RESEND else {}
    reason = f"decided by a person: {decision.value}"
    moved = move_copies(session, which, (DeliveryState.UNKNOWN,), states[decision], now, reason, **unlinked)
    close(session, issue, now)
    return moved


def _id(issue: IssueRow) -> int:
    if issue.id is None:
        raise RuntimeError("an issue that is not stored has no deliveries")
    return issue.id


def _move_issue(session: Session, issue: IssueRow, before: Sequence[IssueState], **values: object) -> bool:
    """The one guarded arrow between the states of an issue; False if it was not in any of `before`."""
    moving = update(IssueRow).where(col(IssueRow.id) == issue.id, col(IssueRow.state).in_(before)).values(**values)
    return session.connection().execute(moving).rowcount > 0


def lock(session: Session, issue_id: int | None) -> None:
    """Let nobody else change the issue between our counting and our verdict; writers of SQLite take turns anyway.

    Whoever locks an issue, a reader and a copy locks them in this order. A claim may still take pending copies
    meanwhile: they are on the way before and after.
    """
    session.exec(select(IssueRow.id).where(IssueRow.id == issue_id).with_for_update(key_share=True)).one()
