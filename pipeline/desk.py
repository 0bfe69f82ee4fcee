"""The desk of a slot: what was said and done there, each thing a row, and what follows from all of them.

Every function takes a session and commits nothing itself. Rows are only ever added, so nothing that somebody wrote
is lost, and who did what when is what the rows are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, func, select

from pipeline.books import EditRow, IssueRow, IssueState, SlotRow, Stance
from pipeline.issue import NO_EDITS, Edits, Wording
from pipeline.rows import is_postgres


class Kind(StrEnum):
    """What can be done at a desk. The first ones change the draft, and can be taken back; the others are only told of."""

    MOVE = "move"
    SWAP = "swap"
    ADD = "add"
    DROP = "drop"
    PIN = "pin"
    UNPIN = "unpin"
    WORDS = "words"
    HEAD = "head"
    TERM = "term"
    UNDO = "undo"
    APPROVE = "approve"
    REOPEN = "reopen"
    HOLD = "hold"
    SKIP = "skip"
    SEND = "send"
    TEST = "test"


LINE_UP = (Kind.MOVE, Kind.SWAP, Kind.ADD, Kind.DROP, Kind.PIN, Kind.UNPIN)
CHANGES = (*LINE_UP, Kind.WORDS, Kind.HEAD, Kind.TERM)


@dataclass(frozen=True, slots=True)
class Deed:
    """One row: who did what, when. `undone` says that it was taken back."""

    id: int
    kind: Kind
    about: Mapping[str, Any]
    by: str
    at: datetime
    undone: bool = False

    @property
    def field(self) -> tuple[str, ...]:
        """What it says something of, so that two people who do so at once can be told of each other; else empty."""
        match self.kind:
            case Kind.WORDS:
                return (self.kind, self.about["page"], self.about["field"])
            case Kind.HEAD:
                return (self.kind, self.about["field"])
            case Kind.TERM:
                return (self.kind,)
            case _:
                return ("line-up",) if self.kind in LINE_UP else ()


def lock(session: Session, slot: str) -> SlotRow:
    """The row of a slot, for the transaction that changes it, its desk or its issue; others wait until it is over."""
    insert: Any = (postgresql if is_postgres(session) else sqlite).insert
    row = {"slot": slot, "stance": Stance.NONE, "by": "", "why": ""}
    session.connection().execute(insert(SlotRow).values(row).on_conflict_do_nothing())
    return session.get_one(SlotRow, slot, with_for_update=True, populate_existing=True)


def slot(session: Session, name: str) -> SlotRow:
    """What is known of a slot beside its issue, to look at."""
    return session.get(SlotRow, name) or SlotRow(slot=name)


def take_stance(row: SlotRow, stance: Stance, by: str, now: datetime, why: str = "") -> None:
    """Say something of a slot whose row is locked, in place of what was said before."""
    row.stance, row.by, row.why, row.changed_at = stance, by, why, now


def ordered(session: Session, now: datetime) -> Sequence[str]:
    """The slots whose issues somebody wants sent whatever the time is, until that is done; the oldest first."""
    begun = col(IssueRow.state).in_((IssueState.APPROVED, IssueState.SENDING))
    again = (col(IssueRow.state) == IssueState.PAUSED) & (col(IssueRow.resume_at) <= now)
    query = select(SlotRow.slot).join(IssueRow, col(IssueRow.slot) == col(SlotRow.slot))
    return session.exec(query.where(SlotRow.stance == Stance.ORDERED, begun | again).order_by(col(SlotRow.slot))).all()


def write(session: Session, slot: str, kind: Kind, about: Mapping[str, Any], by: str, now: datetime) -> int:
    """Add a row; its number."""
    row = EditRow(slot=slot, kind=kind, about=dict(about), by=by, at=now)
    session.add(row)
    session.flush()
    return row.id or 0


def deeds(session: Session, slot: str, after: int = 0) -> list[Deed]:
    """All that was done at a desk, or after a row, the oldest first."""
    query = select(EditRow).where(EditRow.slot == slot).order_by(col(EditRow.id))
    rows = session.exec(query).all()
    undone = {row.about["edit"] for row in rows if row.kind == Kind.UNDO}
    return [
        Deed(row.id or 0, Kind(row.kind), row.about, row.by, row.at, row.id in undone) for row in rows if (row.id or 0) > after
    ]


def revision(session: Session, slot: str) -> int:
    """The number of the last row that changed the draft of a slot; 0 where there is none."""
    changes = col(EditRow.kind).in_([*CHANGES, Kind.UNDO])
    return session.exec(select(func.max(col(EditRow.id))).where(EditRow.slot == slot, changes)).one() or 0


def edits(session: Session, slot: str) -> Edits:
    """What follows from all that was done at a desk."""
    return fold(deeds(session, slot))


def fold(done: Iterable[Deed]) -> Edits:
    """What follows from what was done, the oldest first. Of two who say something of the same, the last is heard."""
    found, changed = NO_EDITS, 0
    for deed in done:
        if deed.kind in (*CHANGES, Kind.UNDO):
            changed = deed.id
        if not deed.undone:
            found = _after(found, deed)
    return replace(found, revision=changed)


def _after(found: Edits, deed: Deed) -> Edits:
    about, changed = deed.about, dict[str, Any]()
    page = str(about.get("page", ""))
    match deed.kind:
        case Kind.MOVE | Kind.SWAP | Kind.ADD | Kind.DROP:
            as_it_was = {each: place for each, place in found.places.items() if each != page}
            places = {each: place for place, each in enumerate(about["pages"], 1)} if "pages" in about else as_it_was
            # What was taken out for another does not come back by itself either.
            dropped = {page} if deed.kind in (Kind.DROP, Kind.SWAP) else set()
            changed = {"places": places, "dropped": (found.dropped | dropped) - places.keys()}
        case Kind.PIN:
            changed = {"places": {**found.places, page: about["place"]}, "dropped": found.dropped - {page}}
        case Kind.UNPIN:
            changed = {"places": {each: place for each, place in found.places.items() if each != page}}
        case Kind.WORDS:
            wording = replace(found.wordings.get(page, Wording()), **{about["field"]: about["text"]})
            # What somebody has worked on is not pushed out by what comes in later.
            stays = about["place"] and page not in found.dropped
            places = {page: about["place"], **found.places} if stays else dict(found.places)
            changed = {"wordings": {**found.wordings, page: wording}, "places": places}
        case Kind.HEAD:
            changed = {about["field"]: about["text"]}
        case Kind.TERM:
            changed = {"term": about["slug"]}
    return replace(found, **changed)
