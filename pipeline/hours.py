"""Each reader's own hour: who of an audience has which, how many copies still wait for theirs, how far each hour has come.

An issue goes by hours if its readers had them when they were enrolled: then every copy of it has one, else none has.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, cast, column, exists, func, literal, values
from sqlmodel import Session, col, select

from pipeline.batches import pending_of
from pipeline.books import BatchRow, DeliveryRow, DeliveryState, IssueRow
from pipeline.database import Utc
from subscribers.models import Subscriber


@dataclass(frozen=True, slots=True)
class Hour:
    """The readers who have one hour: when that is, in which zones, most readers first, and how their copies stand.

    The zones are those that the readers have by now; one who has none has the newsletter's, and stands here as "".
    """

    due_at: datetime
    zones: tuple[str, ...]
    counts: dict[str, int]


class Later(NamedTuple):
    """How many copies have their hour later, and when the first of them has it."""

    copies: int
    first: datetime


def goes_by_hours(session: Session, issue: IssueRow) -> bool:
    """Whether the readers of an issue have hours of their own."""
    # In the order of an index, or PostgreSQL might walk through all past issues to the first copy of this one.
    one = select(DeliveryRow.due_at).where(DeliveryRow.issue_id == issue.id).order_by(col(DeliveryRow.subscriber_id)).limit(1)
    return session.exec(one).first() is not None


def is_due(now: datetime | ColumnElement[datetime], *, by_hours: bool) -> ColumnElement[bool]:
    """That a copy's hour has come.

    In an issue without hours it has none; both at once no database would find in its index.
    """
    return col(DeliveryRow.due_at) <= now if by_hours else col(DeliveryRow.due_at).is_(None)


def hours_of(
    session: Session, wanted: Sequence[ColumnElement[bool]], hours: Callable[[str], datetime]
) -> tuple[ColumnElement[datetime], Any, ColumnElement[bool]]:
    """The hour of a subscriber as a column, and what to join for it on which condition: one row for each zone.

    Args:
        session: to read the zones with.
        wanted: the conditions on `Subscriber` that make the audience.
        hours: when it is time in a zone; the newsletter's hour where the name is empty or no zone.
    """
    own = hours("")
    zones = session.exec(select(Subscriber.zone).where(*wanted).distinct()).all()
    # Everybody else has the newsletter's, also who has chosen another zone since.
    given = {"": own} | {zone: hour for zone in zones if (hour := hours(zone)) != own}
    rows = values(column("zone", String()), column("due_at", Utc()), name="given").data(list(given.items())).cte("given")
    # SQLite would walk through them for each reader, unless they are a table of their own and text as the zones are.
    named = select(cast(rows.c.zone, String).label("zone"), rows.c.due_at).cte("named").prefix_with("MATERIALIZED")
    return func.coalesce(named.c.due_at, literal(own, Utc())), named, named.c.zone == col(Subscriber.zone)


def all_later(session: Session, issue: IssueRow, now: datetime) -> Later | None:
    """What waits, where every copy that is on the way waits for an hour to come; None where one is in a call or due.

    Asked in one statement, since copies go into calls and come back between two.
    """
    is_out = exists().where(col(BatchRow.issue_id) == issue.id, col(BatchRow.settled_at).is_(None))
    waiting = select(func.count(), func.min(col(DeliveryRow.due_at)), is_out).select_from(DeliveryRow).where(pending_of(issue))
    copies, first, out = session.exec(waiting).one()
    return Later(copies, first) if first and not out and first > now else None


def progress(session: Session, issue: IssueRow) -> tuple[Hour, ...]:
    """How far an issue has come hour by hour; nothing if it does not go by hours."""
    if not goes_by_hours(session, issue):
        return ()
    enrolled = (col(DeliveryRow.issue_id) == issue.id, col(DeliveryRow.state) != DeliveryState.EXCLUDED)
    kinds = (col(DeliveryRow.due_at), col(Subscriber.zone), col(DeliveryRow.state))
    query = (
        select(*kinds, func.count())
        .select_from(DeliveryRow)
        .join(Subscriber, col(Subscriber.id) == col(DeliveryRow.subscriber_id), isouter=True)
        .where(*enrolled)
        .group_by(*kinds)
    )
    states: defaultdict[datetime, Counter[str]] = defaultdict(Counter)
    zones: defaultdict[datetime, Counter[str]] = defaultdict(Counter)
    for due_at, zone, state, copies in session.execute(query):
        states[due_at][state] += copies
        # Of whoever was erased nobody knows the zone.
        zones[due_at].update({} if zone is None else {zone: copies})
    return tuple(
        Hour(
            due_at,
            tuple(sorted(zones[due_at], key=lambda zone, readers=zones[due_at]: (-readers[zone], zone))),  # type: ignore[misc]
            {state.value: states[due_at][state] for state in DeliveryState if states[due_at][state]},
        )
        for due_at in sorted(states)
    )
