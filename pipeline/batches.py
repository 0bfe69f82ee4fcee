"""Batches: copies claimed, handed over and settled, one guarded step at a time.

Every function takes a session and commits nothing itself. Every change of state is an UPDATE that names the
state it leaves, so a second process that does the same finds nothing to do.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import orjson
from sqlalchemy import JSON, ColumnElement, Integer, String, Update, bindparam, case, cast, func, insert, literal_column, or_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Session, col, select, update

from pipeline.books import BatchRow, DeliveryRow, DeliveryState, IssueRow, IssueState
from pipeline.database import Utc
from pipeline.issue import Copy, Parcel, Receipt, RenderedIssue
from subscribers import links
from subscribers.models import State, Subscriber, Suppression

_UNSETTLED = (DeliveryState.SENDING, DeliveryState.UNKNOWN)
# Up to so many batches are settled one by one: each may be of many copies, and a row of JSON is read at each copy.
_FEW = 4


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much to claim: up to `calls` batches of up to `size` copies, and no more than `most` copies in all."""

    size: int
    calls: int
    most: int

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

    Permission is asked again for each reader here: whoever has left or was suppressed since is skipped, and
    nobody can leave between the question and the commit. The caller commits before the first byte leaves.
    """
    skipped = 0
    if session.connection().execute(_IS_SENDING, {"issue": issue.id}).first() is None:
        return Claim([], skipped)
    while rows := _pending(session, issue, wanted.copies):
        # Copies that were refused or put off alone stand last, and go one by one.
        rows = [row for row in rows if not row.suspect] if not rows[0].suspect else rows[:1]
        for reason in set(map(attrgetter("barred"), rows)) - {""}:
            barred = [(row.id, None) for row in rows if row.barred == reason]
            skipped += _move_each(session, barred, DeliveryState.SKIPPED, now, reason)
            rows = [row for row in rows if row.barred != reason]
        if rows:
            taken = list(islice(_cut(rows, wanted.size), wanted.calls))
            return Claim(_new_batches(session, issue, rendered, taken, runner, now), skipped)
    return Claim([], skipped + _skip_the_erased(session, issue, now))


_IS_SENDING = select(IssueRow.id).where(IssueRow.id == bindparam("issue"), IssueRow.state == IssueState.SENDING)


class _Pending(NamedTuple):
    """A pending copy with all that the claim must know of its reader; `barred` says why it may not be mailed."""

    id: int
    ref: str
    cap: int | None
    suspect: bool
    address: str
    token: str
    barred: str


def _pending(session: Session, issue: IssueRow, most: int) -> list[_Pending]:
    """The first pending copies."""
    values: dict[str, object] = {"issue": issue.id, "most": most}
    if not _is_postgres(session):
        rows = session.connection().execute(_WITH_READERS, values).all()
    else:
        # Locked first and looked at afterwards: what another transaction has committed until then is seen, and
        # whoever leaves now waits for us. Suppressing locks the subscriber too. SQLite's writers take turns.
        locked = session.connection().execute(_LOCKED, values).scalars().all()
        rows = session.connection().execute(_WITH_LOCKED_READERS, {"ids": locked}).all()
    return list(map(_Pending._make, rows))


def _is_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


# The state stands in the statement itself, since the index is that of the pending ones.
_IS_PENDING = col(DeliveryRow.state) == literal_column(f"'{DeliveryState.PENDING.value}'")
_FIRST = (col(DeliveryRow.issue_id) == bindparam("issue")) & _IS_PENDING
_IN_ORDER = (col(DeliveryRow.suspect), col(DeliveryRow.id))
_READERS = (
    select(DeliveryRow.id, DeliveryRow.ref, DeliveryRow.cap, DeliveryRow.suspect)
    .add_columns(col(Subscriber.address), col(Subscriber.token))
    .add_columns(
        func.coalesce(col(Suppression.why), case((col(Subscriber.state) == State.ACTIVE.value, ""), else_=Subscriber.state))
    )
    .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id))
    .join(Suppression, col(Suppression.key) == col(Subscriber.key), isouter=True)
)
_WITH_READERS = _READERS.where(_FIRST).order_by(*_IN_ORDER).limit(bindparam("most"))
_WITH_LOCKED_READERS = _READERS.where(col(DeliveryRow.id) == func.any(bindparam("ids", type_=ARRAY(Integer)))).order_by(
    *_IN_ORDER
)
_LOCKED = (
    select(DeliveryRow.id)
    .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id))
    .where(_FIRST)
    .order_by(*_IN_ORDER)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True, key_share=True, of=[DeliveryRow, Subscriber])
)


def _pending_of(issue: IssueRow) -> ColumnElement[bool]:
    return (col(DeliveryRow.issue_id) == issue.id) & _IS_PENDING


def _skip_the_erased(session: Session, issue: IssueRow, now: datetime) -> int:
    nobody = _pending_of(issue) & col(DeliveryRow.subscriber_id).is_(None)
    return move_copies(session, nobody, (DeliveryState.PENDING,), DeliveryState.SKIPPED, now, "erased")


def _cut(rows: Sequence[_Pending], size: int) -> Iterator[list[_Pending]]:
    """Rows in batches: those that were in a refused call before in smaller ones, and not with others."""
    for cap, alike in groupby(rows, key=attrgetter("cap")):
        while some := list(islice(alike, cap or size)):
            yield some


def _new_batches(
    session: Session, issue: IssueRow, rendered: RenderedIssue, taken: list[list[_Pending]], runner: str, now: datetime
) -> list[tuple[Batch, Parcel]]:
    dated = now.replace(microsecond=0)
    readers = ([(row.ref, row.address, row.token) for row in rows] for rows in taken)
    parcels = [Parcel(uuid.uuid4().hex, dated, _copies(rendered, each)) for each in readers]
    digest = issue.digest
    rows = [
        {
            "issue_id": issue.id, "key": parcel.key, "digest": parcel.digest(digest), "attempt": 1, "runner": runner,
            "claimed_at": dated, "attempted_at": now,
        }
        for parcel in parcels
    ]  # fmt: skip
    made: dict[str, Any] = {key: each for each, key in session.connection().execute(_INSERT_BATCHES, rows)}
    members = [(row.id, made[parcel.key]) for parcel, rows in zip(parcels, taken, strict=True) for row in rows]
    moved = _move_each(session, members, DeliveryState.SENDING, now)
    if moved != len(members):
        raise RuntimeError(f"claimed {moved} of {len(members)} copies: another writer was not kept out")
    return [
        (Batch(made[parcel.key], 1, runner, dated, now, suspect=rows[0].suspect), parcel)
        for parcel, rows in zip(parcels, taken, strict=True)
    ]


_INSERT_BATCHES = insert(BatchRow).returning(col(BatchRow.id), col(BatchRow.key))


def _copies(rendered: RenderedIssue, readers: Iterable[tuple[str, str, str]]) -> tuple[Copy, ...]:
    base, mailbox = links.leave_url(rendered.base_url, ""), rendered.mailbox
    if mailbox:
        return tuple([Copy(ref, address, base + token, links.leave_mail(mailbox, token)) for ref, address, token in readers])
    return tuple([Copy(ref, address, base + token) for ref, address, token in readers])


def in_flight(session: Session, issue: IssueRow) -> list[Batch]:
    """The batches that are sending, by whomever."""
    query = select(BatchRow).where(BatchRow.issue_id == issue.id, col(BatchRow.settled_at).is_(None))
    return [_batch(row) for row in session.exec(query.order_by(col(BatchRow.id)))]


def is_on_the_way(session: Session, issue: IssueRow) -> bool:
    """Whether a copy of the issue is still pending or sending."""
    pending = select(DeliveryRow.id).where(_pending_of(issue)).order_by(*_IN_ORDER).limit(1)
    return bool(in_flight(session, issue)) or session.exec(pending).first() is not None


def take_over(session: Session, batch: Batch, runner: str, now: datetime) -> Batch | None:
    """Begin the next attempt of a batch; None if somebody else has settled it or begun one meanwhile."""
    taken = session.exec(
        update(BatchRow)
        .where(*_this_attempt(batch))
        .values(attempt=batch.attempt + 1, runner=runner, attempted_at=now)
        .execution_options(synchronize_session=False)
    )
    return replace(batch, attempt=batch.attempt + 1, runner=runner, attempted_at=now) if taken.rowcount else None


def parcel_again(session: Session, issue: IssueRow, rendered: RenderedIssue, batch: Batch) -> Parcel | None:
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
    parcel = Parcel(row.key, row.claimed_at, _copies(rendered, members))
    return parcel if parcel.digest(issue.digest) == row.digest else None


class Answered(NamedTuple):
    """A batch, what was handed over, and the provider's answers."""

    batch: Batch
    parcel: Parcel
    receipts: Sequence[Receipt]


def settle(session: Session, answered: Sequence[Answered], now: datetime, most_put_off: int) -> None:
    """Write down the provider's answers; copies that it did not answer for become unknown.

    A copy that is put off comes back last and alone, and is rejected when that has happened `most_put_off` times.

    An answer that names its copies is believed even when it comes late, after somebody else has given the
    batch up or begun the next attempt; its silence then says nothing.
    """
    ended, alike, others = [], [], []
    for each in answered:
        same = _one_answer(each)
        if same:
            ended.append(each.batch)
            alike.append((each.batch.id, after(same), same.provider_id, same.reason))
        else:
            others.append(each)
    _end_attempts(session, ended, now)
    if len(alike) > _FEW:
        _execute(session, _SETTLE, alike, now=now)
    else:
        for of, state, its_id, why in alike:
            values = {"of": of, "after": state, "its_id": its_id, "why": why, "now": now}
            session.connection().execute(_SETTLE_ONE, values)
    for each in others:
        _settle_one_by_one(session, each, now, most_put_off)


def _one_answer(answered: Answered) -> Receipt | None:
    """The answer that every copy of the batch got, if it is a final one."""
    receipts = answered.receipts
    if not receipts or len(set(map(_SAID, receipts))) > 1 or receipts[0].later:
        return None
    refs = {copy.ref for copy in answered.parcel.copies}
    return receipts[0] if {receipt.ref for receipt in receipts} == refs else None


def _settle_one_by_one(session: Session, answered: Answered, now: datetime, most_put_off: int) -> None:
    batch = answered.batch
    current = _end_attempts(session, [batch], now)
    refs = {copy.ref for copy in answered.parcel.copies}
    answers = {receipt.ref: receipt for receipt in answered.receipts if receipt.ref in refs}
    believe(session, [each for each in answers.values() if not each.later], _UNSETTLED, now)
    for each in answers.values():
        if each.later:
            this, times = col(DeliveryRow.ref) == each.ref, col(DeliveryRow.put_off) + 1
            patient, spent = this & (times < most_put_off), this & (times >= most_put_off)
            move_copies(session, spent, _UNSETTLED, DeliveryState.REJECTED, now, f"put off {most_put_off} times: {each.reason}")
            last = {"batch_id": None, "suspect": True, "put_off": times}
            move_copies(session, patient, _UNSETTLED, DeliveryState.PENDING, now, each.reason, **last)
    if current:
        silent = "the provider did not answer for it"
        move_copies(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.UNKNOWN, now, silent)


_SAID = itemgetter(slice(1, None))


def _settle(rows: "_Rows") -> Update:
    return _settle_by(rows.number(0), rows.text(1), rows.text(2), rows.text(3))


def _settle_by(batch: Any, after: Any, its_id: Any, why: Any) -> Update:
    return (
        update(DeliveryRow)
        .where(col(DeliveryRow.batch_id) == batch, or_(*(col(DeliveryRow.state) == state for state in _UNSETTLED)))
        .values(state=after, provider_id=its_id, reason=why, changed_at=bindparam("now", type_=Utc()))
    )


_SETTLE_ONE = _settle_by(*(bindparam(name) for name in ("of", "after", "its_id", "why")))


def after(receipt: Receipt) -> DeliveryState:
    """The state that a final answer leads to."""
    return DeliveryState.ACCEPTED if receipt.accepted else DeliveryState.REJECTED


def believe(session: Session, receipts: Sequence[Receipt], before: Sequence[DeliveryState], now: datetime) -> int:
    """Write down answers that are final, each at its copy; how many copies they moved."""
    rows = [(each.ref, after(each), each.provider_id, each.reason) for each in receipts]
    return _execute(session, _believe(tuple(before)), rows, now=now) if rows else 0


@cache
def _believe(before: tuple[DeliveryState, ...]) -> dict[bool, Update]:
    def made(rows: "_Rows") -> Update:
        return (
            update(DeliveryRow)
            .where(col(DeliveryRow.ref) == rows.text(0), or_(*(col(DeliveryRow.state) == state for state in before)))
            .values(state=rows.text(1), provider_id=rows.text(2), reason=rows.text(3))
            .values(changed_at=bindparam("now", type_=Utc()))
        )

    return _for_both(made)


def give_back(
    session: Session, batch: Batch, now: datetime, reason: str, cap: int | None = None, *, suspect: bool = False
) -> None:
    """Return copies that surely did not leave; `cap` limits the size of the batches they go into next."""
    if _end_attempts(session, [batch], now):
        back: dict[str, object] = {"batch_id": None, "cap": cap, "suspect": suspect}
        move_copies(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.PENDING, now, reason, **back)


def let_go(session: Session, batch: Batch) -> None:
    """Leave a batch as sending for whoever comes next, who need not wait until it is old."""
    session.exec(update(BatchRow).where(*_this_attempt(batch)).values(runner="").execution_options(synchronize_session=False))


def reject(session: Session, batch: Batch, now: datetime, reason: str) -> None:
    """Write down that the provider refuses every copy of a batch for good."""
    if _end_attempts(session, [batch], now):
        move_copies(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.REJECTED, now, reason)


def lose_sight(session: Session, batch: Batch, now: datetime, reason: str) -> int:
    """Write down that nobody can tell whether a batch left; how many copies that concerns."""
    if not _end_attempts(session, [batch], now):
        return 0
    return move_copies(session, _of(batch), (DeliveryState.SENDING,), DeliveryState.UNKNOWN, now, reason)


def left_since(session: Session, then: datetime) -> int:
    """How many copies of all issues have left, or may have left, in batches that were claimed since an instant."""
    claimed = select(func.count(col(DeliveryRow.id))).join(BatchRow, col(BatchRow.id) == col(DeliveryRow.batch_id))
    return session.exec(claimed.where(col(BatchRow.claimed_at) >= then)).one()


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
    """The guarded arrow between the states of copies; how many went along it."""
    moved = session.exec(
        update(DeliveryRow)
        .where(which, col(DeliveryRow.state).in_(before))
        .values(state=after, changed_at=now, reason=reason, **values)
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount


def _move_each(
    session: Session, members: Sequence[tuple[int, int | None]], after: DeliveryState, now: datetime, reason: str = ""
) -> int:
    """The same arrow from pending, for copies by their ids, each into a batch if there is one."""
    return _execute(session, _MOVE, members, after=after, now=now, why=reason)


def _move(rows: "_Rows") -> Update:
    return (
        update(DeliveryRow)
        .where(col(DeliveryRow.id) == rows.number(0), _IS_PENDING)
        .values(state=bindparam("after"), changed_at=bindparam("now", type_=Utc()), reason=bindparam("why"))
        .values(batch_id=rows.number(1), cap=None)
    )


def _this_attempt(batch: Batch) -> tuple[ColumnElement[bool], ...]:
    same = (col(BatchRow.id) == batch.id, col(BatchRow.attempt) == batch.attempt)
    return (*same, col(BatchRow.settled_at).is_(None))


def _end_attempts(session: Session, ended: Sequence[Batch], now: datetime) -> bool:
    """Settle batches; False if one of these attempts is not the current one any more, so that its failure says nothing."""
    rows = [(batch.id, batch.attempt) for batch in ended]
    return not rows or _execute(session, _END, rows, now=now) == len(rows)


def _end(rows: "_Rows") -> Update:
    return (
        update(BatchRow)
        .where(col(BatchRow.id) == rows.number(0), col(BatchRow.attempt) == rows.number(1))
        .where(col(BatchRow.settled_at).is_(None))
        .values(settled_at=bindparam("now", type_=Utc()))
    )


class _Rows:
    """Rows that go over to the database as one JSON value, however many they are, so that one statement does for all."""

    def __init__(self, *, postgres: bool) -> None:
        value: Any = bindparam("rows", type_=String())
        if postgres:
            self._row: Any = func.json_array_elements(cast(value, JSON)).column_valued("each_row", joins_implicitly=True)
        else:
            self._row = func.json_each(value).table_valued("value", name="each_row", joins_implicitly=True).c.value

    def text(self, place: int) -> Any:
        """A value of each row as text."""
        return self._row.op("->>")(literal_column(str(place)))

    def number(self, place: int) -> ColumnElement[Any]:
        """A value of each row as a whole number."""
        return cast(self.text(place), Integer)


def _for_both(made: Callable[[_Rows], Update]) -> dict[bool, Update]:
    return {postgres: made(_Rows(postgres=postgres)) for postgres in (False, True)}


_MOVE, _SETTLE, _END = _for_both(_move), _for_both(_settle), _for_both(_end)


def _execute(session: Session, statements: dict[bool, Update], rows: Sequence[object], **values: object) -> int:
    statement = statements[_is_postgres(session)]
    return session.connection().execute(statement, {"rows": orjson.dumps(rows).decode(), **values}).rowcount
