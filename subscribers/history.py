"""What happened to people on the roll: written beside each change, in the same transaction."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import insert
from sqlmodel import Session, col, select

from subscribers.models import Change


class What(StrEnum):
    """What happened to a subscriber."""

    ASKED = "asked"
    CONFIRMED = "confirmed"
    LEFT = "left"
    CAME_BACK = "came back"
    PAUSED = "paused"
    GOES_ON = "goes on"
    EDITED = "edited"
    SUPPRESSED = "suppressed"
    LIFTED = "lifted"


READER = "the reader"
COMMAND = "command line"
IMPORT = "import"
PROVIDER = "provider"


def note(session: Session, ids: Sequence[int], what: What, by: str, now: datetime, **detail: str) -> None:
    """Write down that the same happened to some subscribers. `by` says who did it: one of the above, or an admin."""
    if ids:
        rows = [{"subscriber_id": each, "at": now, "what": what.value, "by": by, "detail": detail} for each in ids]
        session.execute(insert(Change), rows)


def of(session: Session, subscriber_id: int) -> Sequence[Change]:
    """The history of a subscriber, oldest first."""
    return session.exec(select(Change).where(Change.subscriber_id == subscriber_id).order_by(col(Change.id))).all()
