"""Settle: the provider's answers at the counter, written down."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Update, bindparam, or_
from sqlmodel import Session, col, update

from pipeline import batches
from pipeline.batches import FEW, Batch, end_attempts, move_copies, of
from pipeline.books import DeliveryRow, DeliveryState
from pipeline.database import Utc
from pipeline.issue import Parcel, Receipt
from pipeline.rows import Rows, execute

_UNSETTLED = (DeliveryState.SENDING, DeliveryState.UNKNOWN)


class Answered(NamedTuple):
    """The provider's answers to a batch, and what was handed over."""

    batch: Batch
    parcel: Parcel
    receipts: Sequence[Receipt]


class GivenBack(NamedTuple):
    """A batch that surely did not leave; `cap` limits the size of those that its copies go into next."""

    batch: Batch
    reason: str
    cap: int | None = None
    suspect: bool = False


class Refused(NamedTuple):
    """A batch that the provider refuses for good."""

    batch: Batch
    reason: str


class Lost(NamedTuple):
    """A batch of which nobody can tell whether it left."""

    batch: Batch
    reason: str


class LetGo(NamedTuple):
    """A batch that stays as sending: it goes out again under its key, by this run or the next."""

    batch: Batch


Outcome = Answered | GivenBack | Refused | Lost | LetGo


def settle(session: Session, outcomes: Sequence[Outcome], now: datetime, most_put_off: int) -> None:
    """Write down what came of calls: the answers, and what is known of those that brought none.

    A copy that is put off comes back last and alone, and is rejected when that has happened `most_put_off` times.

    An answer that names its copies is believed even when it comes late, after somebody else has given the
    batch up or begun the next attempt; its silence then says nothing.
    """
    _settle_answers(session, [each for each in outcomes if isinstance(each, Answered)], now, most_put_off)
    for outcome in outcomes:
        match outcome:
            case GivenBack(batch, reason, cap, suspect):
                batches.give_back(session, batch, now, reason, cap, suspect=suspect)
            case Refused(batch, reason):
                batches.reject(session, batch, now, reason)
            case Lost(batch, reason):
                batches.lose_sight(session, batch, now, reason)
            case LetGo(batch):
                batches.let_go(session, batch)


def _settle_answers(session: Session, answered: Sequence[Answered], now: datetime, most_put_off: int) -> None:
    ended, alike, others = [], [], []
    for each in answered:
        same = _one_answer(each)
        if same:
            ended.append(each.batch)
            alike.append((each.batch.id, after(same), same.provider_id, same.reason))
        else:
            others.append(each)
    end_attempts(session, ended, now)
    if len(alike) > FEW:
        execute(session, _settling, alike, now=now)
    else:
        for batch, state, its_id, why in alike:
            values = {"batch": batch, "after": state, "its_id": its_id, "why": why, "now": now}
            session.connection().execute(_settling_one(), values)
    for each in others:
        _settle_one_by_one(session, each, now, most_put_off)


def _one_answer(answered: Answered) -> Receipt | None:
    """The answer that every copy of the batch got, if it is a final one."""
    receipts = answered.receipts
    if not receipts or len(set(map(_SAID, receipts))) > 1 or receipts[0].later:
        return None
    refs = {copy.ref for copy in answered.parcel.copies}
    return receipts[0] if {receipt.ref for receipt in receipts} == refs else None


_SAID = itemgetter(slice(1, None))


def _settle_one_by_one(session: Session, answered: Answered, now: datetime, most_put_off: int) -> None:
    batch = answered.batch
    current = end_attempts(session, [batch], now)
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
        move_copies(session, of(batch), (DeliveryState.SENDING,), DeliveryState.UNKNOWN, now, silent)


def after(receipt: Receipt) -> DeliveryState:
    """The state that a final answer leads to."""
    return DeliveryState.ACCEPTED if receipt.accepted else DeliveryState.REJECTED


def believe(session: Session, receipts: Sequence[Receipt], before: Sequence[DeliveryState], now: datetime) -> int:
    """Write down answers that are final, each at its copy; how many copies they moved."""
    rows = [(each.ref, after(each), each.provider_id, each.reason) for each in receipts]
    return execute(session, _believing(tuple(before)), rows, now=now).rowcount if rows else 0


@cache
def _believing(before: tuple[DeliveryState, ...]) -> Callable[[Rows], Update]:
    return lambda rows: _telling(col(DeliveryRow.ref) == rows.text(0), before, *map(rows.text, (1, 2, 3)))


def _settling(rows: Rows) -> Update:
    return _telling(col(DeliveryRow.batch_id) == rows.number(0), _UNSETTLED, *map(rows.text, (1, 2, 3)))


@cache
def _settling_one() -> Update:
    return _telling(col(DeliveryRow.batch_id) == bindparam("batch"), _UNSETTLED, *map(bindparam, ("after", "its_id", "why")))


def _telling(which: Any, before: Sequence[DeliveryState], state: Any, its_id: Any, why: Any) -> Update:
    return (
        update(DeliveryRow)
        .where(which, or_(*(col(DeliveryRow.state) == each for each in before)))
        .values(state=state, provider_id=its_id, reason=why, changed_at=bindparam("now", type_=Utc()))
    )
