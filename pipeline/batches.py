"""Batches: copies claimed, handed over and settled, one guarded step at a time.

Every function takes a session and commits nothing itself. Every change of state is an UPDATE that names the
state it leaves, so a second process that does the same finds nothing to do.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select, update

from pipeline.books import BatchRow, DeliveryRow, DeliveryState, IssueRow, IssueState
from pipeline.issue import Copy, Parcel, Receipt
from subscribers import links
from subscribers.models import State, Subscriber, Suppression

_UNSETTLED = (DeliveryState.SENDING, DeliveryState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that is committed as sending.

    `attempt` counts the calls made under its key. Nobody holds it where `runner` is empty. The one copy of a
    batch that is `suspect` was refused alone before.
    """

    id: int
    attempt: int
    runner: str
    claimed_at: datetime
    attempted_at: datetime
    suspect: bool = False


def claim(
    session: Session, issue: IssueRow, base_url: str, size: int, runner: str, now: datetime
) -> tuple[Batch, Parcel] | None:
    """Take up to `size` pending copies as a batch that is sending; None if there is nothing to take.

    Copies that were refused alone come last, one by one.

    Permission is asked again for each reader here: whoever has left or was suppressed since is skipped.
    The caller commits before the first byte leaves.
    """
    sending = select(IssueRow.id).where(IssueRow.id == issue.id, IssueRow.state == IssueState.SENDING)
    if session.exec(sending).first() is None:
        return None
    while rows := _pending(session, issue, size, suspect=False) or _pending(session, issue, 1, suspect=True):
        allowed = [row for row in rows if not _barred(row)]
        barred: defaultdict[str, list[int]] = defaultdict(list)
        for row in rows:
            if reason := _barred(row):
                barred[reason].append(row.id)
        for reason, ids in barred.items():
            move_copies(session, col(DeliveryRow.id).in_(ids), (DeliveryState.PENDING,), DeliveryState.SKIPPED, now, reason)
        if allowed:
            _, alike = next(groupby(allowed, key=attrgetter("cap")))
            taken = list(islice(alike, allowed[0].cap or size))
            return _new_batch(session, issue, base_url, taken, runner, now)
    return None


def _pending(session: Session, issue: IssueRow, size: int, *, suspect: bool) -> Sequence[Any]:
    query = (
        select(DeliveryRow.id, DeliveryRow.ref, DeliveryRow.cap, DeliveryRow.suspect)
        .add_columns(col(Subscriber.address), col(Subscriber.token), col(Subscriber.state), col(Suppression.why))
        .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id), isouter=True)
        .join(Suppression, col(Suppression.key) == col(Subscriber.key), isouter=True)
        .where(col(DeliveryRow.issue_id) == issue.id, col(DeliveryRow.state) == DeliveryState.PENDING)
        .where(col(DeliveryRow.suspect).is_(suspect))
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
        issue_id=issue.id or 0, key=parcel.key, digest=parcel.digest(issue.digest), runner=runner,
        claimed_at=parcel.dated, attempted_at=now,
    )  # fmt: skip
    session.add(row)
    session.flush()
    ids = col(DeliveryRow.id).in_([row.id for row in taken])
    moved = move_copies(session, ids, (DeliveryState.PENDING,), DeliveryState.SENDING, now, batch_id=row.id, cap=None)
    if moved != len(taken):
        raise RuntimeError(f"claimed {moved} of {len(taken)} copies: another writer was not kept out")
    return replace(_batch(row), suspect=taken[0].suspect), parcel


def in_flight(session: Session, issue: IssueRow) -> list[Batch]:
    """The batches that are sending, by whomever."""
    query = select(BatchRow).where(BatchRow.issue_id == issue.id, col(BatchRow.settled_at).is_(None))
    return [_batch(row) for row in session.exec(query.order_by(col(BatchRow.id)))]


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
        move_copies(session, which, _UNSETTLED, state, now, reason, provider_id=provider_id)
    if current:
        silent = "the provider did not answer for it"
        move_copies(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.UNKNOWN, now, silent)


def give_back(
    session: Session, batch: Batch, now: datetime, reason: str, cap: int | None = None, *, suspect: bool = False
) -> None:
    """Return copies that surely did not leave; `cap` limits the size of the batches they go into next."""
    if _end_attempt(session, batch, now):
        back: dict[str, object] = {"batch_id": None, "cap": cap, "suspect": suspect}
        move_copies(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.PENDING, now, reason, **back)


def let_go(session: Session, batch: Batch) -> None:
    """Leave a batch as sending for whoever comes next, who need not wait until it is old."""
    session.exec(update(BatchRow).where(*_this_attempt(batch)).values(runner="").execution_options(synchronize_session=False))


def reject(session: Session, batch: Batch, now: datetime, reason: str) -> None:
    """Write down that the provider refuses every copy of a batch for good."""
    if _end_attempt(session, batch, now):
        move_copies(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.REJECTED, now, reason)


def lose_sight(session: Session, batch: Batch, now: datetime, reason: str) -> None:
    """Write down that nobody can tell whether a batch left."""
    if _end_attempt(session, batch, now):
        move_copies(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.UNKNOWN, now, reason)


def _batch(row: BatchRow) -> Batch:
    return Batch(row.id or 0, row.attempt, row.runner, row.claimed_at, row.attempted_at)


def _of(batch: Batch) -> ColumnElement[bool]:
    return col(DeliveryRow.batch_id) == batch.id


def move_copies(
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


def _this_attempt(batch: Batch) -> tuple[ColumnElement[bool], ...]:
    same = (col(BatchRow.id) == batch.id, col(BatchRow.attempt) == batch.attempt)
    return (*same, col(BatchRow.settled_at).is_(None))


def _end_attempt(session: Session, batch: Batch, now: datetime) -> bool:
    """Settle a batch; False if this attempt is not the current one any more, so that its failure says nothing."""
    ended = session.exec(
        update(BatchRow).where(*_this_attempt(batch)).values(settled_at=now).execution_options(synchronize_session=False)
    )
    return ended.rowcount > 0
