"""What is told later of copies and their readers: kept once as notices, and applied in any order to the same end.

Every function takes a session and commits nothing itself.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import literal_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, func, select, update

from pipeline import ledger
from pipeline.batches import move_copies
from pipeline.books import DeliveryRow, DeliveryState, Fate, IssueRow, IssueState, MailRow, NoticeRow, Pause
from pipeline.errors import UsageError
from pipeline.issue import Event, Kind, Notice
from pipeline.text import printable
from subscribers import roll
from subscribers.models import Subscriber, Why

# So many issues in a row that a reader's mailbox did not take, and it is not tried again.
SOFT_BOUNCES = 5
# One copy in so many that is refused for what it holds or who sends it, and the issue waits for a person.
BLOCKED_ONE_IN = 100
FATES = {
    Kind.DELIVERED: Fate.DELIVERED,
    Kind.BLOCKED: Fate.BLOCKED,
    Kind.SOFT_BOUNCE: Fate.SOFT_BOUNCE,
    Kind.HARD_BOUNCE: Fate.HARD_BOUNCE,
    Kind.COMPLAINED: Fate.COMPLAINED,
}
_SUPPRESSES = {Kind.HARD_BOUNCE: Why.BOUNCE, Kind.COMPLAINED: Why.COMPLAINT}
_GONE = (DeliveryState.ACCEPTED, DeliveryState.SENDING)
# The fate stands in the statement itself, since the index is that of the blocked ones.
_IS_BLOCKED = col(DeliveryRow.fate) == literal_column(f"'{Fate.BLOCKED.value}'")
_NEVER_TAKEN = (DeliveryState.REJECTED, DeliveryState.SKIPPED, DeliveryState.EXCLUDED)
_NOT_YET_TAKEN = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.UNKNOWN)


def keep(session: Session, origin: str, notices: Sequence[Notice], now: datetime) -> int:
    """Store notices that were not stored before; how many they were."""
    if not notices:
        return 0
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    rows = [{"origin": origin, "key": each.key, "body": each.body, "came_at": now, "trouble": ""} for each in notices]
    added = session.execute(
        insert(NoticeRow).on_conflict_do_nothing(index_elements=["origin", "key"]).returning(col(NoticeRow.id)), rows
    )
    return len(added.all())


def waiting(session: Session, most: int, but_of: str = "") -> Sequence[NoticeRow]:
    """The oldest notices that are not applied yet, but for those of one origin."""
    query = select(NoticeRow).where(col(NoticeRow.applied_at).is_(None), NoticeRow.origin != but_of)
    return session.exec(query.order_by(col(NoticeRow.id)).limit(most)).all()


def finish(session: Session, notice: NoticeRow, now: datetime, trouble: str = "") -> bool:
    """Take a notice off the pile; False if somebody else has done so.

    What was applied is forgotten but for its key, since it is full of addresses; what could not be read stays.
    """
    kept = {} if trouble else {"body": ""}
    done = session.exec(
        update(NoticeRow)
        .where(col(NoticeRow.id) == notice.id, col(NoticeRow.applied_at).is_(None))
        .values(applied_at=now, trouble=printable(trouble), **kept)
        .execution_options(synchronize_session=False)
    )
    return done.rowcount > 0


def apply(session: Session, event: Event, now: datetime) -> None:
    """Let an event have its effect; a second time, or in another order, it has none beyond that.

    An event that names a copy proves that the provider took it, whatever was believed before. Its fate is the
    gravest that was told. A hard bounce or complaint suppresses its address, and so do five soft bounces in a
    row; what a reader is not to blame for pauses the issue instead, if it is still being sent.
    """
    if event.kind is Kind.OTHER:
        return
    delivery = _copy_of(session, event)
    if delivery:
        ledger.lock(session, delivery.issue_id)
    reader = _reader_of(session, delivery) or _reader_of_mail(session, event)
    if delivery:
        _took(session, delivery, event, now)
    if event.kind is Kind.UNSUBSCRIBED:
        _leave(session, event, reader, now)
    elif event.kind in _SUPPRESSES:
        address = _address(session, event, reader)
        if address:
            roll.suppress(session, address, _SUPPRESSES[event.kind], now, note=printable(event.reason))
    elif event.kind is Kind.SOFT_BOUNCE and delivery and reader and _gave_up_on(session, reader, delivery):
        roll.suppress(session, reader.address, Why.BOUNCE, now, note=f"{SOFT_BOUNCES} issues in a row came back")
    elif event.kind is Kind.BLOCKED and delivery:
        _hold_if_it_is_the_issue(session, delivery.issue_id, printable(event.reason))


def _copy_of(session: Session, event: Event) -> DeliveryRow | None:
    return session.exec(select(DeliveryRow).where(DeliveryRow.ref == event.ref)).first() if event.ref else None


def _reader_of(session: Session, delivery: DeliveryRow | None) -> Subscriber | None:
    # Locked, so that of two soft bounces that are applied at once the second sees the first.
    query = select(Subscriber).where(Subscriber.id == (delivery.subscriber_id if delivery else None))
    return session.exec(query.with_for_update()).first() if delivery and delivery.subscriber_id else None


def _reader_of_mail(session: Session, event: Event) -> Subscriber | None:
    """Whom a single mail went to: a confirmation that bounces says as much of an address as an issue does."""
    if not event.ref:
        return None
    mail = select(Subscriber).join(MailRow, col(MailRow.subscriber_id) == col(Subscriber.id))
    return session.exec(mail.where(MailRow.ref == event.ref)).first()


def _took(session: Session, delivery: DeliveryRow, event: Event, now: datetime) -> None:
    this = col(DeliveryRow.id) == delivery.id
    proof = f"told later: {event.kind.value.replace('_', ' ')}"
    if move_copies(session, this, _NOT_YET_TAKEN, DeliveryState.ACCEPTED, now, proof, provider_id=event.provider_id):
        ledger.close(session, session.get_one(IssueRow, delivery.issue_id), now)
    fate = FATES.get(event.kind)
    if fate:
        order = list(Fate)
        lesser = ["", *order[: order.index(fate)]]
        session.exec(
            update(DeliveryRow)
            .where(this, col(DeliveryRow.fate).in_(lesser))
            .values(fate=fate)
            .execution_options(synchronize_session=False)
        )


def _address(session: Session, event: Event, reader: Subscriber | None) -> str:
    """Whose address it is about: the one that the provider names, if a copy went there or it is on the roll."""
    try:
        named = roll.normalise(event.address) if event.address else None
    except UsageError:
        named = None
    if named and (reader or roll.by_key(session, named.key)):
        return named.written
    return reader.address if reader else ""


def _leave(session: Session, event: Event, reader: Subscriber | None, now: datetime) -> None:
    if event.token:
        roll.unsubscribe_by_token(session, event.token, now)
    elif reader:
        # Whatever address they used, it is the reader of this copy who leaves.
        roll.unsubscribe(session, reader.key, now)
    elif address := _address(session, event, reader):
        roll.unsubscribe(session, roll.normalise(address).key, now)


def _gave_up_on(session: Session, reader: Subscriber, delivery: DeliveryRow) -> bool:
    """Whether so many issues in a row came back, a copy's own among them.

    An issue of which nothing is known breaks the row, and so does one that may still be taken, so order plays no
    part. What was never sent is not counted.
    """
    history = session.exec(
        select(DeliveryRow.id, DeliveryRow.fate)
        .where(DeliveryRow.subscriber_id == reader.id, col(DeliveryRow.state).not_in(_NEVER_TAKEN))
        .order_by(col(DeliveryRow.issue_id))
    )
    row: list[int | None] = []
    for copy, fate in history:
        row = [*row, copy] if fate == Fate.SOFT_BOUNCE else []
        if delivery.id in row[-SOFT_BOUNCES:] and len(row) >= SOFT_BOUNCES:
            return True
    return False


def _hold_if_it_is_the_issue(session: Session, issue_id: int, reason: str) -> None:
    issue = session.get_one(IssueRow, issue_id, populate_existing=True)
    if issue.state not in (IssueState.SENDING, IssueState.PAUSED):
        return
    blocked = session.exec(select(func.count()).where(DeliveryRow.issue_id == issue_id, _IS_BLOCKED)).one()
    # What is on its way may have come to the provider before its answer came to us. Nobody needs to know how many
    # more there are than would do.
    enough = blocked * BLOCKED_ONE_IN + 1
    gone = select(DeliveryRow.id).where(DeliveryRow.issue_id == issue_id, col(DeliveryRow.state).in_(_GONE)).limit(enough)
    left = session.exec(select(func.count()).select_from(gone.subquery())).one()
    if left < enough:
        if issue.resume_at:
            # It would have gone on by itself, tomorrow or after an outage.
            ledger.resume(session, issue)
        trouble = f"{blocked:,} of {left:,} copies were refused for what they hold or who sends them: {reason}"
        ledger.pause(session, issue, Pause.TROUBLE, trouble)
