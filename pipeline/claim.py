"""Claim: pending copies become batches that are sending, and nobody among them may not be mailed."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Insert, Integer, Update, bindparam, case, exists, func, insert, literal
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Session, col, select, update

from pipeline.batches import FEW, IN_ORDER, IS_PENDING, Batch, copies_for, move_copies, pending_of
from pipeline.books import BatchRow, DeliveryRow, DeliveryState, IssueRow, IssueState
from pipeline.database import Utc
from pipeline.hours import is_due
from pipeline.issue import Copy, Parcel, RenderedIssue
from pipeline.rows import Rows, columns, execute, is_postgres
from subscribers.models import State, Subscriber, Suppression

PAUSED = "paused"
_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much to claim: up to `calls` batches of up to `size` copies, and no more than `most` copies in all.

    Where the issue goes `by_hours`, only copies whose hour has come.
    """

    size: int
    calls: int
    most: int
    by_hours: bool = False

    @property
    def copies(self) -> int:
        """How many copies that are at most."""
        return min(self.size * self.calls, self.most)


class Claim(NamedTuple):
    """The batches that may leave, and how many copies were skipped since their readers may not be mailed any more."""

    leaving: list[tuple[Batch, Parcel]]
    skipped: int


def claim(session: Session, issue: IssueRow, rendered: RenderedIssue, wanted: Wanted, runner: str, now: datetime) -> Claim:
    """Take pending copies as batches that are sending; none if there is nothing to take.

    Permission is asked again for each reader here: whoever has left, paused or was suppressed since is skipped,
    and nobody can leave between the question and the commit. The caller commits before the first byte leaves.
    """
    skipped = 0
    while rows := _pending(session, issue, rendered, wanted, now):
        # Copies that were refused or put off alone stand last, and go one by one.
        rows = [row for row in rows if not row.suspect] if not rows[0].suspect else rows[:1]
        for reason in set(map(attrgetter("barred"), rows)) - {""}:
            barred = [row.id for row in rows if row.barred == reason]
            skipped += _move(session, barred, DeliveryState.SKIPPED, now, reason=reason)
            rows = [row for row in rows if row.barred != reason]
        if rows:
            taken = list(islice(_cut(rows, wanted.size), wanted.calls))
            return Claim(_new_batches(session, issue, taken, runner, now), skipped)
    return Claim([], skipped + _skip_the_erased(session, issue, wanted, now))


class _Pending(NamedTuple):
    """A pending copy with all that the claim must know of its reader; `barred` says why it may not be mailed."""

    suspect: bool
    id: int
    cap: int | None
    barred: str
    copy: Copy


def _pending(session: Session, issue: IssueRow, rendered: RenderedIssue, wanted: Wanted, now: datetime) -> list[_Pending]:
    """The first pending copies that may leave now, those that are suspect last."""
    given = {"issue": issue.id, "most": wanted.copies, "now": now}
    if not is_postgres(session):
        found = columns(session, _WITH_READERS[wanted.by_hours], **given)
    else:
        # Locked first and looked at afterwards: what another transaction has committed until then is seen, and
        # whoever leaves now waits for us. Suppressing locks the subscriber too. SQLite's writers take turns.
        locked = session.connection().execute(_LOCKED[wanted.by_hours], given).scalars().all()
        found = columns(session, _WITH_LOCKED_READERS, ids=locked, now=now)
    suspect, ids, caps, barred, *readers = found
    return sorted(map(_Pending._make, zip(suspect, ids, caps, barred, copies_for(rendered, *readers), strict=True)))


_IS_SENDING = exists().where(col(IssueRow.id) == bindparam("issue"), col(IssueRow.state) == IssueState.SENDING)
_PENDING = (col(DeliveryRow.issue_id) == bindparam("issue")) & IS_PENDING & _IS_SENDING
_NOW = bindparam("now", type_=Utc())
# By whether the issue goes by hours.
_FIRST = {by_hours: _PENDING & is_due(_NOW, by_hours=by_hours) for by_hours in (False, True)}
_IS_ACTIVE = col(Subscriber.state) == State.ACTIVE.value
_IS_PAUSED = col(Subscriber.paused_until) > _NOW
_READERS = (
    select(DeliveryRow.suspect, DeliveryRow.id, DeliveryRow.cap)
    .add_columns(
        func.coalesce(
            col(Suppression.why), case((_IS_ACTIVE & _IS_PAUSED, PAUSED), (_IS_ACTIVE, ""), else_=col(Subscriber.state))
        )
    )
    .add_columns(col(DeliveryRow.ref), col(Subscriber.address), col(Subscriber.token))
    .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id))
    .join(Suppression, col(Suppression.key) == col(Subscriber.key), isouter=True)
)
_WITH_READERS = {
    by_hours: _READERS.where(first).order_by(*IN_ORDER).limit(bindparam("most")) for by_hours, first in _FIRST.items()
}
_WITH_LOCKED_READERS = _READERS.where(col(DeliveryRow.id) == func.any(bindparam("ids", type_=ARRAY(Integer))))
_LOCKED = {
    by_hours: select(DeliveryRow.id)
    .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id))
    .where(first)
    .order_by(*IN_ORDER)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True, key_share=True, of=[DeliveryRow, Subscriber])
    for by_hours, first in _FIRST.items()
}


def _skip_the_erased(session: Session, issue: IssueRow, wanted: Wanted, now: datetime) -> int:
    nobody = pending_of(issue) & is_due(now, by_hours=wanted.by_hours) & col(DeliveryRow.subscriber_id).is_(None)
    return move_copies(session, nobody, (DeliveryState.PENDING,), DeliveryState.SKIPPED, now, "erased")


def _cut(rows: Sequence[_Pending], size: int) -> Iterator[list[_Pending]]:
    """Rows in batches: those that were in a refused call before in smaller ones, and not with others."""
    for cap, alike in groupby(rows, key=attrgetter("cap")):
        while some := list(islice(alike, cap or size)):
            yield some


def _new_batches(
    session: Session, issue: IssueRow, taken: list[list[_Pending]], runner: str, now: datetime
) -> list[tuple[Batch, Parcel]]:
    dated = now.replace(microsecond=0)
    copies = [tuple([row.copy for row in rows]) for rows in taken]
    parcels = _under_keys(copies, dated)
    made = [(parcel.key, parcel.digest(issue.digest)) for parcel in parcels]
    inserted = execute(session, _insert, made, issue=issue.id, runner=runner, dated=dated, now=now)
    ids: dict[str, Any] = {row.key: row.id for row in inserted}
    leaving = list(zip(parcels, taken, strict=True))
    members = [(ids[parcel.key], [row.id for row in rows]) for parcel, rows in leaving]
    if len(members) > FEW:
        moved = _move_each(session, [(row, batch) for batch, rows in members for row in rows], now)
    else:
        moved = sum(_move(session, rows, DeliveryState.SENDING, now, batch=batch) for batch, rows in members)
    if moved != sum(map(len, taken)):
        raise RuntimeError(f"claimed {moved} of {sum(map(len, taken))} copies: another writer was not kept out")
    return [(Batch(ids[parcel.key], 1, runner, dated, now, rows[0].suspect, rows[0].cap), parcel) for parcel, rows in leaving]


def _under_keys(copies: Sequence[tuple[Copy, ...]], dated: datetime) -> list[Parcel]:
    """Parcels under keys that nobody else has; their chance comes in one stroke, since asking for it is slow."""
    chance = secrets.token_bytes(_KEY_BYTES * len(copies))
    keys = (chance[place * _KEY_BYTES : (place + 1) * _KEY_BYTES].hex() for place in range(len(copies)))
    return [Parcel(key, dated, each) for key, each in zip(keys, copies, strict=True)]


def _insert(rows: Rows) -> Insert:
    given: dict[str, Any] = {"issue_id": bindparam("issue"), "key": rows.text(0), "digest": rows.text(1)}
    given |= {"attempt": literal(1), "runner": bindparam("runner")}
    given |= {"claimed_at": bindparam("dated", type_=Utc()), "attempted_at": bindparam("now", type_=Utc())}
    return insert(BatchRow).from_select(list(given), select(*given.values())).returning(col(BatchRow.id), col(BatchRow.key))


def _move(
    session: Session, ids: Sequence[int], after: DeliveryState, now: datetime, *, batch: int | None = None, reason: str = ""
) -> int:
    """The guarded arrow from pending, for copies by their ids, into a batch if there is one."""
    return execute(session, _moving, ids, after=after, now=now, why=reason, batch=batch).rowcount


def _move_each(session: Session, pairs: Sequence[tuple[int, int]], now: datetime) -> int:
    """The arrow to sending for copies by their ids, each into its own batch."""
    return execute(session, _moving_each, pairs, after=DeliveryState.SENDING, now=now, why="").rowcount


def _moving(rows: Rows) -> Update:
    return _from_pending(col(DeliveryRow.id).in_(select(rows.itself)), bindparam("batch"))


def _moving_each(rows: Rows) -> Update:
    return _from_pending(col(DeliveryRow.id) == rows.number(0), rows.number(1))


def _from_pending(which: Any, batch: Any) -> Update:
    return (
        update(DeliveryRow)
        .where(which, IS_PENDING)
        .values(state=bindparam("after"), changed_at=bindparam("now"), reason=bindparam("why"))
        .values(batch_id=batch, cap=None)
    )
