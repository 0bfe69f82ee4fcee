"""Batches: copies that leave in one call, and each guarded step that they take together.

Every function takes a session and commits nothing itself. Every change of state is an UPDATE that names the
state it leaves, so a second process that does the same finds nothing to do.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import repeat
from typing import NamedTuple

from sqlalchemy import ColumnElement, Update, bindparam, func, literal_column
from sqlmodel import Session, col, select, update

from pipeline.books import BatchRow, DeliveryRow, DeliveryState, IssueRow
from pipeline.issue import Copy, Parcel, RenderedIssue
from pipeline.rows import Rows, execute
from subscribers import links
from subscribers.models import Subscriber

# Up to so many batches are written one by one: each may be of many copies, and a row of JSON is read at each copy.
FEW = 4
# The state stands in the statement itself, since the index is that of the pending ones.
IS_PENDING = col(DeliveryRow.state) == literal_column(f"'{DeliveryState.PENDING.value}'")
IN_ORDER = (col(DeliveryRow.suspect), col(DeliveryRow.id))


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that is committed as sending.

    `attempt` counts the calls made under its key. Nobody holds it where `runner` is empty. The one copy of a
    batch that is `suspect` was refused alone before; `cap` is the most that it could hold, since its copies were
    in a call that was refused.
    """

    id: int
    attempt: int
    runner: str
    claimed_at: datetime
    attempted_at: datetime
    suspect: bool = False
    cap: int | None = None


def pending_of(issue: IssueRow) -> ColumnElement[bool]:
    """That a copy of an issue is pending."""
    return (col(DeliveryRow.issue_id) == issue.id) & IS_PENDING


def unsettled_of(issue: IssueRow) -> ColumnElement[bool]:
    """That a batch of an issue is out: its copies are sending, and no others are."""
    return (col(BatchRow.issue_id) == issue.id) & col(BatchRow.settled_at).is_(None)


def copies_for(rendered: RenderedIssue, refs: Iterable[str], addresses: Iterable[str], tokens: Sequence[str]) -> Iterator[Copy]:
    """A copy for each reader."""
    base, mailbox = links.leave_url(rendered.base_url, ""), rendered.mailbox
    urls = [base + token for token in tokens]
    mails = [links.leave_mail(mailbox, token) for token in tokens] if mailbox else repeat("", len(urls))
    return map(Copy._make, zip(refs, addresses, urls, mails, strict=True))


def in_flight(session: Session, issue: IssueRow) -> list[Batch]:
    """The batches that are sending, by whomever."""
    query = select(BatchRow).where(unsettled_of(issue))
    return [_batch(row) for row in session.exec(query.order_by(col(BatchRow.id)))]


def is_on_the_way(session: Session, issue: IssueRow) -> bool:
    """Whether a copy of the issue is still pending or sending.

    Asked in one statement, since copies go from one to the other and back between two.
    """
    pending = select(DeliveryRow.id).where(pending_of(issue)).order_by(*IN_ORDER).limit(1)
    sending = select(BatchRow.id).where(unsettled_of(issue)).limit(1)
    return session.execute(select(pending.scalar_subquery(), sending.scalar_subquery())).one() != (None, None)


def take_over(session: Session, batch: Batch, runner: str, now: datetime) -> Batch | None:
    """Begin the next attempt of a batch; None if somebody else has settled it or begun one meanwhile."""
    begun = update(BatchRow).where(*_this_attempt(batch)).values(attempt=batch.attempt + 1, runner=runner, attempted_at=now)
    taken = session.connection().execute(begun)
    return replace(batch, attempt=batch.attempt + 1, runner=runner, attempted_at=now) if taken.rowcount else None


def parcel_again(session: Session, issue: IssueRow, rendered: RenderedIssue, batch: Batch) -> Parcel | None:
    """The parcel of a batch as it was handed over before; None if it would no longer be the same bytes.

    It differs when a member was erased or has another address now. The same key goes out only with the
    same bytes, so such a batch is never sent again.
    """
    row = session.get_one(BatchRow, batch.id)
    members = session.execute(
        select(DeliveryRow.ref, Subscriber.address, Subscriber.token)
        .join(Subscriber)
        .where(of(batch))
        .order_by(col(DeliveryRow.id))
    ).all()
    refs, addresses, tokens = ([member[place] for member in members] for place in range(3))
    parcel = Parcel(row.key, row.claimed_at, tuple(copies_for(rendered, refs, addresses, tokens)))
    return parcel if parcel.digest(issue.digest) == row.digest else None


def give_back(
    session: Session, batch: Batch, now: datetime, reason: str, cap: int | None = None, *, suspect: bool = False
) -> None:
    """Return copies that surely did not leave; `cap` limits the size of the batches they go into next."""
    if end_attempts(session, [batch], now):
        back: dict[str, object] = {"batch_id": None, "cap": cap, "suspect": suspect}
        move_copies(session, of(batch), (DeliveryState.SENDING,), DeliveryState.PENDING, now, reason, **back)


def let_go(session: Session, batch: Batch) -> None:
    """Leave a batch as sending for whoever comes next, who need not wait until it is old."""
    session.connection().execute(update(BatchRow).where(*_this_attempt(batch)).values(runner=""))


def reject(session: Session, batch: Batch, now: datetime, reason: str) -> None:
    """Write down that the provider refuses every copy of a batch for good."""
    if end_attempts(session, [batch], now):
        move_copies(session, of(batch), (DeliveryState.SENDING,), DeliveryState.REJECTED, now, reason)


def lose_sight(session: Session, batch: Batch, now: datetime, reason: str) -> int:
    """Write down that nobody can tell whether a batch left; how many copies that concerns."""
    if not end_attempts(session, [batch], now):
        return 0
    return move_copies(session, of(batch), (DeliveryState.SENDING,), DeliveryState.UNKNOWN, now, reason)


class Left(NamedTuple):
    """How many copies have left or may have left, and the last of the batches that they were in."""

    copies: int
    last: int


def left_since(session: Session, then: datetime, after: int = 0) -> Left:
    """What has left of all issues in batches that were claimed since an instant, and after another batch."""
    claimed = (
        select(func.count(), func.max(col(BatchRow.id)))
        .select_from(BatchRow)
        .join(DeliveryRow)
        .where(col(BatchRow.claimed_at) >= then, col(BatchRow.id) > after)
    )
    copies, last = session.exec(claimed).one()
    return Left(copies, last or after)


def _batch(row: BatchRow) -> Batch:
    return Batch(row.id or 0, row.attempt, row.runner, row.claimed_at, row.attempted_at)


def of(batch: Batch) -> ColumnElement[bool]:
    """That a copy is of a batch."""
    return col(DeliveryRow.batch_id) == batch.id


def move_copies(
    session: Session,
    which: ColumnElement[bool],
    before: Sequence[DeliveryState],
    after: DeliveryState,
    now: datetime,
    reason: str,
    **values: object,
) -> int:
    """The guarded arrow between the states of copies; how many went along it."""
    moving = update(DeliveryRow).where(which, col(DeliveryRow.state).in_(before))
    return session.connection().execute(moving.values(state=after, changed_at=now, reason=reason, **values)).rowcount


def _this_attempt(batch: Batch) -> tuple[ColumnElement[bool], ...]:
    same = (col(BatchRow.id) == batch.id, col(BatchRow.attempt) == batch.attempt)
    return (*same, col(BatchRow.settled_at).is_(None))


def end_attempts(session: Session, ended: Sequence[Batch], now: datetime) -> bool:
    """Settle batches; False if one of these attempts is not the current one any more, so that its failure says nothing."""
    rows = [(batch.id, batch.attempt) for batch in ended]
    return not rows or execute(session, _end, rows, now=now).rowcount == len(rows)


def _end(rows: Rows) -> Update:
    return (
        update(BatchRow)
        .where(col(BatchRow.id) == rows.number(0), col(BatchRow.attempt) == rows.number(1))
        .where(col(BatchRow.settled_at).is_(None))
        .values(settled_at=bindparam("now"))
    )
