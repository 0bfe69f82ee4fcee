"""The right half of the route: issues, batches and deliveries, moved one guarded step at a time.

Every function takes a session and commits nothing itself. Every change of state is an UPDATE that names
the state it leaves, so a second process that does the same finds nothing to do.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, delete, func, select, update

from pipeline.books import BatchRow, DeliveryRow, DeliveryState, IssueRow, IssueState, ToldRow
from pipeline.errors import DecisionNeeded, UsageError
from pipeline.issue import Copy, Draft, Parcel, Receipt, Slot, Story
from subscribers import links
from subscribers.models import State, Subscriber, Suppression

_ENROL_BATCH = 5_000
_ON_THE_WAY = (DeliveryState.PENDING, DeliveryState.SENDING)
_UNSETTLED = (DeliveryState.SENDING, DeliveryState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that is committed as sending. `attempt` counts the calls made under its key."""

    id: int
    attempt: int
    runner: str
    claimed_at: datetime
    attempted_at: datetime


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
                "changed_at": now,
            }
            for subscriber, why in rows
        ]
        session.execute(insert(DeliveryRow), deliveries)


def claim(
    session: Session, issue: IssueRow, base_url: str, size: int, runner: str, now: datetime
) -> tuple[Batch, Parcel] | None:
    """Take up to `size` pending copies as a batch that is sending; None if there is nothing to take.

    Permission is asked again for each reader here: whoever has left or was suppressed since is skipped.
    The caller commits before the first byte leaves.
    """
    sending = select(IssueRow.id).where(IssueRow.id == issue.id, IssueRow.state == IssueState.SENDING)
    if session.exec(sending).first() is None:
        return None
    while rows := _pending(session, issue, size):
        allowed = [row for row in rows if not _barred(row)]
        barred: defaultdict[str, list[int]] = defaultdict(list)
        for row in rows:
            if reason := _barred(row):
                barred[reason].append(row.id)
        for reason, ids in barred.items():
            _move(session, col(DeliveryRow.id).in_(ids), (DeliveryState.PENDING,), DeliveryState.SKIPPED, now, reason)
        if allowed:
            _, alike = next(groupby(allowed, key=attrgetter("cap")))
            taken = list(islice(alike, allowed[0].cap or size))
            return _new_batch(session, issue, base_url, taken, runner, now)
    return None


def _pending(session: Session, issue: IssueRow, size: int) -> Sequence[Any]:
    query = (
        select(DeliveryRow.id, DeliveryRow.ref, DeliveryRow.cap)
        .add_columns(col(Subscriber.address), col(Subscriber.token), col(Subscriber.state), col(Suppression.why))
        .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id), isouter=True)
        .join(Suppression, col(Suppression.key) == col(Subscriber.key), isouter=True)
        .where(col(DeliveryRow.issue_id) == issue.id, col(DeliveryRow.state) == DeliveryState.PENDING)
        .order_by(col(DeliveryRow.id))
        .limit(size)
        .with_for_update(skip_locked=True, of=DeliveryRow)
    )
    return session.execute(query).all()


def _barred(row: Any) -> str:
    if row.address is None:
        return "erased"
    return row.why or ("" if row.state == State.ACTIVE else str(row.state))


def _new_batch(
    session: Session, issue: IssueRow, base_url: str, taken: Sequence[Any], runner: str, now: datetime
) -> tuple[Batch, Parcel]:
    copies = tuple(Copy(row.ref, row.address, links.leave_url(base_url, row.token)) for row in taken)
    parcel = Parcel(uuid.uuid4().hex, now.replace(microsecond=0), copies)
    row = BatchRow(
        issue_id=_id(issue), key=parcel.key, digest=parcel.digest(issue.digest), runner=runner,
        claimed_at=parcel.dated, attempted_at=now,
    )  # fmt: skip
    session.add(row)
    session.flush()
    ids = col(DeliveryRow.id).in_([row.id for row in taken])
    moved = _move(session, ids, (DeliveryState.PENDING,), DeliveryState.SENDING, now, batch_id=row.id, cap=None)
    if moved != len(taken):
        raise RuntimeError(f"claimed {moved} of {len(taken)} copies: another writer was not kept out")
    return _batch(row), parcel


def in_flight(session: Session, issue: IssueRow) -> list[Batch]:
    """The batches that are sending, by whomever."""
    query = select(BatchRow).where(BatchRow.issue_id == issue.id, col(BatchRow.settled_at).is_(None))
    return [_batch(row) for row in session.exec(query.order_by(col(BatchRow.id)))]


def is_on_the_way(session: Session, issue: IssueRow) -> bool:
    """Whether the issue is being sent and a copy of it is still pending or sending."""
    if session.exec(select(IssueRow.state).where(IssueRow.id == issue.id)).one() != IssueState.SENDING:
        return False
    counts = tally(session, issue)
    return any(counts[state] for state in _ON_THE_WAY)


def take_over(session: Session, batch: Batch, runner: str, now: datetime) -> Batch | None:
    """Begin the next attempt of a batch; None if somebody else has settled it or begun one meanwhile."""
    taken = session.exec(
        update(BatchRow)
        .where(*_this_attempt(batch))
        .values(attempt=batch.attempt + 1, runner=runner, attempted_at=now)
        .execution_options(synchronize_session=False)
    )
    return replace(batch, attempt=batch.attempt + 1, runner=runner, attempted_at=now) if taken.rowcount else None


def parcel_again(session: Session, issue: IssueRow, base_url: str, batch: Batch) -> Parcel | None:
    """The parcel of a batch as it was handed over before; None if it would no longer be the same bytes.

    It differs when a member was erased or has another address now. The same key goes out only with the
    same bytes, so such a batch is never sent again.
    """
    row = session.get_one(BatchRow, batch.id)
    members = session.exec(
        select(DeliveryRow.ref, Subscriber.address, Subscriber.token)
        .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id))
        .where(_of(batch))
        .order_by(col(DeliveryRow.id))
    )
    copies = tuple(Copy(ref, address, links.leave_url(base_url, token)) for ref, address, token in members)
    parcel = Parcel(row.key, row.claimed_at, copies)
    return parcel if parcel.digest(issue.digest) == row.digest else None


def settle(session: Session, batch: Batch, parcel: Parcel, receipts: Sequence[Receipt], now: datetime) -> None:
    """Write down the provider's answers; copies that it did not answer for become unknown.

    An answer that names its copies is believed even when it comes late, after somebody else has given the
    batch up or begun the next attempt; its silence then says nothing.
    """
    current = _end_attempt(session, batch, now)
    refs = {copy.ref for copy in parcel.copies}
    answered: defaultdict[tuple[bool, str, str], set[str]] = defaultdict(set)
    for receipt in receipts:
        if receipt.ref in refs:
            answered[receipt.accepted, receipt.provider_id, receipt.reason].add(receipt.ref)
    for (accepted, provider_id, reason), members in answered.items():
        state = DeliveryState.ACCEPTED if accepted else DeliveryState.REJECTED
        which = _of(batch) if members == refs else _of(batch) & col(DeliveryRow.ref).in_(members)
        _move(session, which, _UNSETTLED, state, now, reason, provider_id=provider_id)
    if current:
        silent = "the provider did not answer for it"
        _move(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.UNKNOWN, now, silent)


def give_back(session: Session, batch: Batch, now: datetime, reason: str, cap: int | None = None) -> None:
    """Return copies that surely did not leave; `cap` limits the size of the batches they go into next."""
    if _end_attempt(session, batch, now):
        back: dict[str, object] = {"batch_id": None, "cap": cap}
        _move(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.PENDING, now, reason, **back)


def reject(session: Session, batch: Batch, now: datetime, reason: str) -> None:
    """Write down that the provider refuses every copy of a batch for good."""
    if _end_attempt(session, batch, now):
        _move(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.REJECTED, now, reason)


def lose_sight(session: Session, batch: Batch, now: datetime, reason: str) -> None:
    """Write down that nobody can tell whether a batch left."""
    if _end_attempt(session, batch, now):
        _move(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.UNKNOWN, now, reason)


def pause(session: Session, issue: IssueRow, trouble: str, *, temporary: bool) -> None:
    """Stop claiming: until the trouble has passed, or until a person has mended it."""
    _lock(session, issue)
    paused = {"state": IssueState.PAUSED, "trouble": trouble, "temporary": temporary}
    _move_issue(session, issue, (IssueState.SENDING,), **paused)


def resume(session: Session, issue: IssueRow) -> None:
    """Go on with a paused issue."""
    _move_issue(session, issue, (IssueState.PAUSED,), state=IssueState.SENDING, trouble="", temporary=False)


def close(session: Session, issue: IssueRow, now: datetime) -> None:
    """Call an issue sent, or in need of a decision, once no copy of it is on the way any more."""
    _lock(session, issue)
    counts = tally(session, issue)
    if any(counts[state] for state in _ON_THE_WAY):
        return
    state = IssueState.NEEDS_DECISION if counts[DeliveryState.UNKNOWN] else IssueState.SENT
    before = (IssueState.SENDING, IssueState.PAUSED, IssueState.NEEDS_DECISION)
    _move_issue(session, issue, before, state=state, closed_at=now, trouble="", temporary=False)


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
    moved = _move(session, which, (DeliveryState.UNKNOWN,), states[decision], now, reason, **unlinked)
    if moved and decision is Decision.RESEND:
        _move_issue(session, issue, (IssueState.NEEDS_DECISION,), state=IssueState.SENDING, closed_at=None)
    close(session, issue, now)
    return moved


def _id(issue: IssueRow) -> int:
    if issue.id is None:
        raise RuntimeError("an issue that is not stored has no deliveries")
    return issue.id


def _batch(row: BatchRow) -> Batch:
    return Batch(row.id or 0, row.attempt, row.runner, row.claimed_at, row.attempted_at)


def _of(batch: Batch) -> ColumnElement[bool]:
    return col(DeliveryRow.batch_id) == batch.id


def _move(
    session: Session,
    which: ColumnElement[bool],
    before: Sequence[DeliveryState],
    after: DeliveryState,
    now: datetime,
    reason: str = "",
    **values: object,
) -> int:
    """The one guarded arrow between the states of copies; how many went along it."""
    moved = session.exec(
        update(DeliveryRow)
        .where(which, col(DeliveryRow.state).in_(before))
        .values(state=after, changed_at=now, reason=reason, **values)
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount


def _move_issue(session: Session, issue: IssueRow, before: Sequence[IssueState], **values: object) -> bool:
    """The one guarded arrow between the states of an issue; False if it was not in any of `before`."""
    moved = session.exec(
        update(IssueRow)
        .where(col(IssueRow.id) == issue.id, col(IssueRow.state).in_(before))
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount > 0


def _this_attempt(batch: Batch) -> tuple[ColumnElement[bool], ...]:
    same = (col(BatchRow.id) == batch.id, col(BatchRow.attempt) == batch.attempt)
    return (*same, col(BatchRow.settled_at).is_(None))


def _end_attempt(session: Session, batch: Batch, now: datetime) -> bool:
    """Settle a batch; False if this attempt is not the current one any more, so that its failure says nothing."""
    ended = session.exec(
        update(BatchRow).where(*_this_attempt(batch)).values(settled_at=now).execution_options(synchronize_session=False)
    )
    return ended.rowcount > 0


def _lock(session: Session, issue: IssueRow) -> None:
    """Let nobody else change the issue between our counting and our verdict; writers of SQLite take turns anyway."""
    session.exec(select(IssueRow.id).where(IssueRow.id == issue.id).with_for_update()).one()
