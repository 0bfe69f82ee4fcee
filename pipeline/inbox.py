"""The stories that were collected, one row for each telling, and what is known of each source."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, Session, SQLModel, and_, col, or_, select

from pipeline.database import Utc
from pipeline.issue import Slot, Story
from pipeline.text import canonical_url

WEEK = timedelta(days=7)
# A story told shortly before a slot and collected after it had no chance; it joins the next week.
LATE = timedelta(days=1)
# The address of what was added at a desk. It belongs to that desk's slot, and to no other week by itself.
DESK = "desk"


class StoryRow(SQLModel, table=True):
    """A story as one source told it. `page` is the canonical URL; `address` is the source's, whatever its name."""

    __tablename__ = "stories"
    __table_args__ = (UniqueConstraint("address", "page"),)

    id: int | None = Field(default=None, primary_key=True)
    address: str
    source: str
    page: str
    url: str
    title: str
    summary: str = ""
    why: str = ""
    minutes: int | None = None
    published: datetime = Field(sa_type=Utc, index=True)
    collected: datetime = Field(sa_type=Utc)


class SourceRow(SQLModel, table=True):
    """What the last visit to a source left: validators for a conditional request, and how it went."""

    __tablename__ = "sources"

    address: str = Field(primary_key=True)
    etag: str = ""
    last_modified: str = ""
    visited: datetime = Field(sa_type=Utc)
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """How many stories of one visit were new, and how many known."""

    new: int
    known: int


def take_in(session: Session, address: str, stories: Iterable[Story], now: datetime) -> Taken:
    """Store what the source at an address told. A story told again is brought up to date, its dates stay."""
    by_page = {canonical_url(story.url): story for story in stories}
    query = select(StoryRow).where(StoryRow.address == address, col(StoryRow.page).in_(by_page))
    known = {row.page: row for row in session.exec(query)}
    for page, story in by_page.items():
        row = known.get(page)
        if row is None:
            # A date in the future would keep a story out of every week, so it counts as told now.
            row = StoryRow(
                address=address, page=page, source=story.source, url=story.url, title=story.title,
                published=min(story.published, now), collected=now,
            )  # fmt: skip
        row.source, row.url, row.title, row.summary = story.source, story.url, story.title, story.summary
        row.why, row.minutes = story.why, story.minutes
        session.add(row)
    return Taken(new=len(by_page) - len(known), known=len(known))


def window(session: Session, slot: Slot) -> list[Story]:
    """The stories of the seven days that end at the slot, with those that came too late for the one before."""
    start = slot.at - WEEK
    in_time = and_(col(StoryRow.published) >= start, col(StoryRow.published) < slot.at)
    too_late_before = and_(
        col(StoryRow.published) >= start - LATE,
        col(StoryRow.published) < start,
        col(StoryRow.collected) >= start,
        col(StoryRow.collected) < slot.at,
    )
    query = select(StoryRow).where(or_(in_time, too_late_before), StoryRow.address != DESK)
    query = query.order_by(col(StoryRow.published), col(StoryRow.id))
    return [_story(row) for row in session.exec(query)]


def told_on(session: Session, pages: Iterable[str]) -> dict[str, Story]:
    """The first telling of each of some pages, by its canonical URL, whenever it was told."""
    query = select(StoryRow).where(col(StoryRow.page).in_(list(pages))).order_by(col(StoryRow.id).desc())
    return {row.page: _story(row) for row in session.exec(query)}


def search(session: Session, words: str, since: datetime, most: int) -> list[Story]:
    """The newest stories since an instant whose title or source holds each of some words."""
    query = select(StoryRow).where(col(StoryRow.published) >= since)
    for word in words.split():
        query = query.where(
            or_(*(column.icontains(word, autoescape=True) for column in (col(StoryRow.title), col(StoryRow.source))))
        )
    return [_story(row) for row in session.exec(query.order_by(col(StoryRow.published).desc(), col(StoryRow.id)).limit(most))]


def _story(row: StoryRow) -> Story:
    return Story(row.url, row.title, row.source, row.published, row.summary, row.why, row.minutes)


def last_success(session: Session) -> datetime | None:
    """When a source was last read without trouble."""
    query = select(SourceRow.visited).where(SourceRow.trouble == "").order_by(col(SourceRow.visited).desc()).limit(1)
    return session.exec(query).first()


def last_visit(session: Session) -> datetime | None:
    """When a source was last tried, with trouble or without."""
    return session.exec(select(SourceRow.visited).order_by(col(SourceRow.visited).desc()).limit(1)).first()


def visit(session: Session, address: str) -> SourceRow | None:
    """What is known of a source from its last visit."""
    return session.get(SourceRow, address)


def record_visit(session: Session, visited: SourceRow) -> None:
    """Keep how a visit went."""
    session.merge(visited)
