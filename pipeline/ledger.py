"""The right half of the route: issues frozen, enrolled, paused, closed and told of, one guarded step at a time.

Every function takes a session and commits nothing itself. Every change of state is an UPDATE that names
the state it leaves, so a second process that does the same finds nothing to do.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, delete, func, select, update

from pipeline.batches import move_copies
from pipeline.books import DeliveryRow, DeliveryState, IssueRow, IssueState, ToldRow
from pipeline.errors import DecisionNeeded, UsageError
from pipeline.issue import Draft, Slot, Story
from subscribers.models import State, Subscriber, Suppression

_ENROL_BATCH = 5_000
_ON_THE_WAY = (DeliveryState.PENDING, DeliveryState.SENDING)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A copy of which nobody can tell whether it left, with the evidence."""

    address: str
    ref: str
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """How an issue stands: each of the `enrolled` readers is in exactly one of `counts`."""

    slot: str
    number: int
    state: str
    subject: str
    enrolled: int
    excluded: int
    counts: dict[str, int]
    unknown: tuple[Unknown, ...]
    trouble: str


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
    query = select(IssueRow).where(col(IssueRow.enrolled_at).is_not(None)).order_by(col(IssueRow.slot).desc())
    return session.exec(query).all()


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
    found = find(session, draft.slot.name)
    if found:
        return found
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
        # Another process froze the slot between our look and our write; where writers take turns it cannot.
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


def enrol(session: Session, issue: IssueRow, now: datetime) -> None:
    """Write down the audience, once: a delivery for every active subscriber, or an exclusion with its reason.

    An issue that was enrolled before is left as it is.
    """
    if not _move_issue(session, issue, (IssueState.APPROVED,), state=IssueState.SENDING, enrolled_at=now):
        return
    audience = session.exec(
        select(Subscriber.id, Suppression.why)
        .join(Suppression, col(Suppression.key) == col(Subscriber.key), isouter=True)
        .where(Subscriber.state == State.ACTIVE)
        .order_by(col(Subscriber.id))
    )
    for rows in audience.partitions(_ENROL_BATCH):
        deliveries = [
            {
                "issue_id": issue.id,
                "subscriber_id": subscriber,
                "ref": uuid.uuid4().hex,
                "state": DeliveryState.EXCLUDED if why else DeliveryState.PENDING,
                "reason": why or "",
                "suspect": False,
                "changed_at": now,
            }
            for subscriber, why in rows
        ]
        session.execute(insert(DeliveryRow), deliveries)


def pause(session: Session, issue: IssueRow, trouble: str, resume_at: datetime | None) -> None:
    """Stop claiming: until a time at which the trouble may have passed, or until a person has mended it."""
    _lock(session, issue)
    paused = {"state": IssueState.PAUSED, "trouble": trouble, "resume_at": resume_at}
    _move_issue(session, issue, (IssueState.SENDING,), **paused)


def resume(session: Session, issue: IssueRow) -> None:
    """Go on with a paused issue."""
    _move_issue(session, issue, (IssueState.PAUSED,), state=IssueState.SENDING, trouble="", resume_at=None)


def close(session: Session, issue: IssueRow, now: datetime) -> None:
    """Call an issue sent, or in need of a decision, once no copy of it is on the way any more."""
    _lock(session, issue)
    counts = tally(session, issue)
    if any(counts[state] for state in _ON_THE_WAY):
        return
    state = IssueState.NEEDS_DECISION if counts[DeliveryState.UNKNOWN] else IssueState.SENT
    before = (IssueState.SENDING, IssueState.PAUSED, IssueState.NEEDS_DECISION)
    _move_issue(session, issue, before, state=state, closed_at=now, trouble="", resume_at=None)


def is_on_the_way(session: Session, issue: IssueRow) -> bool:
    """Whether a copy of the issue is still pending or sending."""
    counts = tally(session, issue)
    return any(counts[state] for state in _ON_THE_WAY)


def tally(session: Session, issue: IssueRow) -> Counter[str]:
    """How many copies are in each state."""
    query = select(DeliveryRow.state, func.count()).where(DeliveryRow.issue_id == issue.id).group_by(DeliveryRow.state)
    return Counter(dict(session.exec(query).all()))


def report(session: Session, issue: IssueRow) -> Report:
    """How an issue stands, every unknown copy by name."""
    counts = tally(session, issue)
    excluded = counts.pop(DeliveryState.EXCLUDED, 0)
    states = [state for state in DeliveryState if state is not DeliveryState.EXCLUDED]
    unknown = session.exec(
        select(Subscriber.address, DeliveryRow.ref, DeliveryRow.changed_at, DeliveryRow.reason)
        .select_from(DeliveryRow)
        .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id), isouter=True)
        .where(DeliveryRow.issue_id == issue.id, DeliveryRow.state == DeliveryState.UNKNOWN)
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
    _lock(session, issue)
    which: ColumnElement[bool] = col(DeliveryRow.issue_id) == issue.id
    if key is not None:
        which &= col(DeliveryRow.subscriber_id).in_(select(Subscriber.id).where(Subscriber.key == key))
    unlinked = {"batch_id": None} if decision is Decision.RESEND else {}
    reason = f"decided by a person: {decision.value}"
    moved = move_copies(session, which, (DeliveryState.UNKNOWN,), states[decision], now, reason, **unlinked)
    if moved and decision is Decision.RESEND:
        _move_issue(session, issue, (IssueState.NEEDS_DECISION,), state=IssueState.SENDING, closed_at=None)
    close(session, issue, now)
    return moved


def _id(issue: IssueRow) -> int:
    if issue.id is None:
        raise RuntimeError("an issue that is not stored has no deliveries")
    return issue.id


def _move_issue(session: Session, issue: IssueRow, before: Sequence[IssueState], **values: object) -> bool:
    """The one guarded arrow between the states of an issue; False if it was not in any of `before`."""
    moved = session.exec(
        update(IssueRow)
        .where(col(IssueRow.id) == issue.id, col(IssueRow.state).in_(before))
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount > 0


def _lock(session: Session, issue: IssueRow) -> None:
    """Let nobody else change the issue between our counting and our verdict; writers of SQLite take turns anyway."""
    session.exec(select(IssueRow.id).where(IssueRow.id == issue.id).with_for_update()).one()
