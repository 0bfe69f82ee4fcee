"""Settle: the provider's answers at the counter, written down."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Update, bindparam, or_
from sqlmodel import Session, col, update

from pipeline import batches
from pipeline.batches import FEW, Batch, end_attempts, move_copies, of
from pipeline.books import DeliveryRow, DeliveryState
from pipeline.issue import Parcel, Receipt
from pipeline.rows import Rows, execute
from pipeline.text import printable

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


def settle(session: Session, outcomes: Sequence[Outcome], now: datetime, most_put_off: int) -> int:
    """Write down what came of calls: the answers, and what is known of those that brought none.

    A copy that is put off comes back last and alone, and is rejected when that has happened `most_put_off` times;
    how many were is what comes back.

    An answer that accepts or rejects copies is believed even when it comes late, after somebody else has given
    their batch up or begun its next attempt, as long as they are in no other. That it put copies off, or did not
    name them, says nothing then.
    """
    spent = _settle_answers(session, [each for each in outcomes if isinstance(each, Answered)], now, most_put_off)
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
    return spent


def _settle_answers(session: Session, answered: Sequence[Answered], now: datetime, most_put_off: int) -> int:
    ended, alike, others = [], [], []
    for each in answered:
        same = _one_answer(each)
        if same:
            ended.append(each.batch)
            alike.append((each.batch.id, *_as_told(same)))
        else:
            others.append(each)
    end_attempts(session, ended, now)
    if len(alike) > FEW:
        execute(session, _settling, alike, now=now)
    else:
        for batch, state, its_id, why in alike:
            values = {"batch": batch, "after": state, "its_id": its_id, "why": why, "now": now}
            session.connection().execute(_settling_one(), values)
    return sum(_settle_one_by_one(session, each, now, most_put_off) for each in others)


def _one_answer(answered: Answered) -> Receipt | None:
    """The answer that every copy of the batch got, if it is a final one."""
    receipts = answered.receipts
    if not receipts or len(set(map(_SAID, receipts))) > 1 or receipts[0].later:
        return None
    refs = {copy.ref for copy in answered.parcel.copies}
    return receipts[0] if {receipt.ref for receipt in receipts} == refs else None


_SAID = itemgetter(slice(1, None))


def _settle_one_by_one(session: Session, answered: Answered, now: datetime, most_put_off: int) -> int:
    batch = answered.batch
    current = end_attempts(session, [batch], now)
    refs = {copy.ref for copy in answered.parcel.copies}
    answers = {receipt.ref: receipt for receipt in answered.receipts if receipt.ref in refs}
    final = [(each.ref, *_as_told(each), batch.id) for each in answers.values() if not each.later]
    if final:
        execute(session, _settling_each, final, now=now)
    if not current:
        return 0
    spent = 0
    for each in answers.values():
        if each.later:
            this, times, why = (
                of(batch) & (col(DeliveryRow.ref) == each.ref),
                col(DeliveryRow.put_off) + 1,
                printable(each.reason),
            )
            tried, last = this & (times >= most_put_off), f"put off {most_put_off} times: {why}"
            spent += move_copies(session, tried, (DeliveryState.SENDING,), DeliveryState.REJECTED, now, last)
            back = {"batch_id": None, "suspect": True, "put_off": times}
            move_copies(session, this, (DeliveryState.SENDING,), DeliveryState.PENDING, now, why, **back)
    silent = "the provider did not answer for it"
    move_copies(session, of(batch), (DeliveryState.SENDING,), DeliveryState.UNKNOWN, now, silent)
    return spent


def after(receipt: Receipt) -> DeliveryState:
    """The state that a final answer leads to."""
    return DeliveryState.ACCEPTED if receipt.accepted else DeliveryState.REJECTED


def _as_told(receipt: Receipt) -> tuple[DeliveryState, str, str]:
    return after(receipt), printable(receipt.provider_id), printable(receipt.reason)


def believe(session: Session, receipts: Sequence[Receipt], now: datetime) -> int:
    """Write down what a log shows of unknown copies; how many it moved."""
    rows = [(each.ref, *_as_told(each)) for each in receipts]
    return execute(session, _believing, rows, now=now).rowcount


def _believing(rows: Rows) -> Update:
    return _telling(col(DeliveryRow.ref) == rows.text(0), (DeliveryState.UNKNOWN,), *map(rows.text, (1, 2, 3)))


def _settling(rows: Rows) -> Update:
    return _telling(col(DeliveryRow.batch_id) == rows.number(0), _UNSETTLED, *map(rows.text, (1, 2, 3)))


def _settling_each(rows: Rows) -> Update:
    this = (col(DeliveryRow.ref) == rows.text(0)) & (col(DeliveryRow.batch_id) == rows.number(4))
    return _telling(this, _UNSETTLED, *map(rows.text, (1, 2, 3)))


@cache
def _settling_one() -> Update:
    return _telling(col(DeliveryRow.batch_id) == bindparam("batch"), _UNSETTLED, *map(bindparam, ("after", "its_id", "why")))


def _telling(which: Any, before: Sequence[DeliveryState], state: Any, its_id: Any, why: Any) -> Update:
    return (
        update(DeliveryRow)
        .where(which, or_(*(col(DeliveryRow.state) == each for each in before)))
        .values(state=state, provider_id=its_id, reason=why, changed_at=bindparam("now"))
    )
