"""Pages of people and searches among them, as fast on a roll of a million as on one of a hundred. Changes nothing.

No statement here reads more than a fixed number of rows: a page follows one index, and where people on it must meet
other conditions too, it looks at so many of them and then says how to go on. (Only suppressions of nobody on the
roll are stepped over uncounted.) Whoever wants an exact number of many asks `roll.count_mailable`.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func
from sqlmodel import Session, col, select

from pipeline.errors import UsageError
from subscribers import labels, names, segments
from subscribers.models import DOMAIN_OF_KEY, Label, NameWord, State, Subscriber, Suppression
from subscribers.segments import Home, Segment, Term

PAGE = 50
FOUND_LIMIT = 100
# So many people are looked at for one page or count, and for one search. Each costs some microseconds.
LOOKED_AT = 10_000
LOOKED_AT_IN_A_SEARCH = 2_000
TEXT_LIMIT = 320
# A cursor names some people, so that it leads on though the last of them is erased meanwhile.
_SPARE = 4
_CURSOR = re.compile(r"[abAB][0-9]{1,10}(\.[0-9]{1,10}){0,3}")
_MOST = 2**31 - 1
_ID, _KEY = col(Subscriber.id), col(Subscriber.key)
_LAST_CHARACTER = "\U0010ffff"
# Surrogates are no characters, and no database takes them.
_BEFORE_SURROGATES, _AFTER_SURROGATES = "\ud7ff", "\ue000"


@dataclass(frozen=True, slots=True)
class Person:
    """A subscriber as a list shows it. `suppressed` is why it may not be mailed."""

    id: int
    address: str
    name: str
    state: State
    suppressed: str | None
    joined: datetime
    paused_until: datetime | None
    topics: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A page, with the cursors of those beside it, or what a search found, and whether there is `more` than it shows.

    A page may be short, or even empty, and go on: then nobody else was found among those whom it looked at.
    """

    people: tuple[Person, ...]
    before: str | None = None
    after: str | None = None
    more: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """How many there are, or at least how many where that is not `exact`."""

    number: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which people: those that meet every condition that is set.

    Raises:
        UsageError: no topic or tag has such a name.
    """

    state: State | None = None
    suppressed: bool | None = None
    topic: str = ""
    tag: str = ""
    segment: Segment | None = None
    home: Home = field(default_factory=Home)

    def __post_init__(self) -> None:
        for name in filter(None, (self.topic, self.tag)):
            labels.clean(name)


EVERYBODY = Wanted()


def page(session: Session, wanted: Wanted = EVERYBODY, cursor: str = "", size: int = PAGE) -> Found:
    """A page of people, the first one without a cursor.

    They come by address; those of a topic, a tag or a domain in the order in which they came on the roll.

    Raises:
        UsageError: the cursor is none of ours, or all whom it names are gone.
    """
    road = _road(wanted)
    backward = cursor[:1].lower() == "b"
    ahead = [_ahead(session, road, cursor) if cursor else road.from_the_start]
    end = _end_of_sight(session, road, ahead, backward=backward) if road.filters else []
    met = list(_places(session, road, [*ahead, *_up_to(road.place, end, backward=backward)], size + 1, backward=backward))
    shown = met[:size][::-1] if backward else met[:size]
    people = _people(session, road, shown)
    edge = people if len(met) > size else _people(session, road, end[::-1] if backward else end)
    further = _cursor_at(edge, backward=backward)
    back = _cursor_at(people, backward=not backward) if people else (cursor and _turned(cursor))
    before, after = (further, back) if backward else (back if cursor else None, further)
    return Found(people, before or None, after or None)


def everybody(session: Session, wanted: Wanted = EVERYBODY) -> Iterator[Person]:
    """Everybody who is wanted, in the order of the pages."""
    found = page(session, wanted, size=1_000)
    yield from found.people
    while found.after:
        found = page(session, wanted, found.after, size=1_000)
        yield from found.people


def count(session: Session, wanted: Wanted = EVERYBODY) -> Counted:
    """How many are wanted, exact up to ten thousand people looked at."""
    road = _road(wanted)
    ahead = [road.from_the_start]
    end = _end_of_sight(session, road, ahead, backward=False)
    near = _walk(road, [*ahead, *_up_to(road.place, end, backward=False)]).subquery()
    number = session.execute(select(func.count()).select_from(near)).scalar_one()
    return Counted(number, exact=not end)


def find(session: Session, text: str, wanted: Wanted = EVERYBODY) -> Found:
    """People whose address, domain or name begins with a text, a name with any of its words; at most a hundred, by address.

    A text that begins with @ is a domain. Where there is `more`, a longer text finds it.

    Raises:
        UsageError: the text is empty, too long, or has control characters.
    """
    key = _as_typed(text)
    local, _, place = key.rpartition("@")
    ways: list[Select[Any]] = []
    if local or (place == key and " " not in key):
        ways.append(_beginning(_ID, _KEY, key))
    if not local and (place != key or "." in key):
        ways.append(_beginning(_ID, DOMAIN_OF_KEY, place))
    if place == key and (name := names.folded(key)):
        ways.append(_beginning(col(NameWord.subscriber_id), col(NameWord.word), name))
    filters = _conditions(wanted, None)
    ids: set[int] = set()
    more = False
    for way in ways:
        some, cut = _some(session, way, filters)
        ids.update(some)
        more |= cut
    people = [person for _, person in sorted(_load(session, _ID, ids), key=itemgetter(0))]
    return Found(tuple(people[:FOUND_LIMIT]), more=more or len(people) > FOUND_LIMIT)


@dataclass(frozen=True, slots=True)
class _Road:
    """An index along which people are met: their place on it, what leads onto it, and what they must meet besides."""

    place: Any
    known_by: Any
    entry: tuple[ColumnElement[bool], ...]
    filters: tuple[ColumnElement[bool], ...]
    members: tuple[ColumnElement[bool], ...] = ()

    @property
    def is_of_people(self) -> bool:
        """Whether the people themselves stand along it."""
        return self.place is self.known_by

    @property
    def from_the_start(self) -> ColumnElement[bool]:
        """That a place lies anywhere: said so that a database takes the index from its beginning on."""
        anywhere: ColumnElement[bool] = self.place > (0 if self.known_by is _ID else "")
        return anywhere


def _road(wanted: Wanted) -> _Road:
    """The narrowest road to those who are wanted."""
    for term in segments.demanded(wanted.segment) if wanted.segment else ():
        if term.field == "domain" and term.value:
            entry: tuple[ColumnElement[bool], ...] = (segments.of_domain(term.value),)
            return _Road(_ID, _ID, entry, _conditions(wanted, term))
    label = next(_labels_of(wanted), None)
    if label:
        entry = (col(Label.kind) == label.field, col(Label.name) == label.value)
        return _Road(col(Label.subscriber_id), _ID, entry, _conditions(wanted, label))
    if wanted.suppressed:
        # A suppression may be of somebody who is not on the roll.
        there = segments.there_is(Suppression, col(Suppression.key) == _KEY)
        return _Road(col(Suppression.key), _KEY, (), _conditions(wanted, "suppressed"), (there,))
    if wanted.state:
        entry = (col(Subscriber.state) == wanted.state.value,)
        return _Road(_KEY, _KEY, entry, _conditions(wanted, "state"))
    return _Road(_KEY, _KEY, (), _conditions(wanted, None))


def _labels_of(wanted: Wanted) -> Iterator[Term]:
    if wanted.tag:
        yield Term("tag", ":", wanted.tag)
    if wanted.topic:
        yield Term("topic", ":", wanted.topic)
    for term in segments.demanded(wanted.segment) if wanted.segment else ():
        if term.field in ("tag", "topic") and term.value:
            yield term


def _conditions(wanted: Wanted, met: Term | str | None) -> tuple[ColumnElement[bool], ...]:
    """What is wanted, but for what the road itself sees to."""
    found: list[ColumnElement[bool]] = []
    if wanted.state and met != "state":
        # Said so that no index of states leads away from the road.
        found.append(func.coalesce(col(Subscriber.state), "") == wanted.state.value)
    if wanted.suppressed is not None and met != "suppressed":
        barred = segments.there_is(Subscriber, col(Suppression.key) == _KEY)
        found.append(barred if wanted.suppressed else ~barred)
    chosen = [Term(kind, ":", name) for kind, name in (("topic", wanted.topic), ("tag", wanted.tag)) if name]
    rest = segments.without(wanted.segment, met) if wanted.segment and isinstance(met, Term) else wanted.segment
    found += [segments.compile_segment(each, wanted.home) for each in (*chosen, rest) if each and each != met]
    return tuple(found)


def _walk(road: _Road, within: Sequence[ColumnElement[bool]], *, looking: bool = False) -> Select[Any]:
    """The places of people along a road, who meet its filters unless it is only looked along."""
    query = select(road.place).where(*road.entry, *within)
    if road.is_of_people:
        return query.where(*(() if looking else road.filters))
    if looking or not road.filters:
        return query.where(*road.members)
    return query.where(segments.there_is(road.place.table, road.known_by == road.place, *road.filters))


def _places(
    session: Session, road: _Road, within: Sequence[ColumnElement[bool]], most: int, *, backward: bool
) -> Sequence[Any]:
    query = _walk(road, within).order_by(road.place.desc() if backward else road.place).limit(most)
    return session.execute(query).scalars().all()


def _end_of_sight(session: Session, road: _Road, ahead: Sequence[ColumnElement[bool]], *, backward: bool) -> list[Any]:
    """The last places that are looked at along a road, in its direction; none where its end is nearer."""
    walk = _walk(road, ahead, looking=True).order_by(road.place.desc() if backward else road.place)
    last = session.execute(walk.offset(LOOKED_AT - _SPARE).limit(_SPARE + 1)).scalars().all()
    return list(last[:_SPARE]) if len(last) > _SPARE else []


def _up_to(place: Any, end: Sequence[Any], *, backward: bool) -> list[ColumnElement[bool]]:
    if not end:
        return []
    return [place >= end[-1] if backward else place <= end[-1]]


def _ahead(session: Session, road: _Road, cursor: str) -> ColumnElement[bool]:
    """That a place lies where a cursor leads: beyond the first whom it names, or from there on if its letter is large."""
    ids = [int(each) for each in cursor[1:].split(".")] if _CURSOR.fullmatch(cursor) else []
    if not ids or max(ids) > _MOST:
        raise UsageError("this is not the address of a page of people: begin at the first one")
    start = ids[0] if road.known_by is _ID else _key_at_the_edge(session, ids)
    beyond: dict[str, ColumnElement[bool]] = {
        "a": road.place > start,
        "A": road.place >= start,
        "b": road.place < start,
        "B": road.place <= start,
    }
    return beyond[cursor[0]]


def _key_at_the_edge(session: Session, ids: Sequence[int]) -> str:
    """The key of the first of some people who is still there; they are named from the edge of a page inwards."""
    found = dict(session.exec(select(Subscriber.id, Subscriber.key).where(_ID.in_(ids))).all())
    left = [found[each] for each in ids if each in found]
    if not left:
        raise UsageError("whoever stood at the edge of this page is gone: begin at the first one")
    return left[0]


def _cursor_at(people: Sequence[Person], *, backward: bool) -> str:
    edge = people[:_SPARE] if backward else people[: -_SPARE - 1 : -1]
    return ("b" if backward else "a") + ".".join(str(each.id) for each in edge) if edge else ""


def _turned(cursor: str) -> str:
    # Nobody stood on this page, so whoever leads back from it was not seen on it.
    return ("A" if cursor[0] in "bB" else "B") + cursor[1:]


def _people(session: Session, road: _Road, places: Sequence[Any]) -> tuple[Person, ...]:
    """People by their places, in that order."""
    found = _load(session, road.known_by, places)
    by_place = {key if road.known_by is _KEY else person.id: person for key, person in found}
    return tuple(by_place[place] for place in places if place in by_place)


def _load(session: Session, known_by: Any, values: Collection[Any]) -> list[tuple[str, Person]]:
    """People with their keys, by which they are in order."""
    if not values:
        return []
    rows = {who.id: who for who in session.exec(select(Subscriber).where(known_by.in_(values))) if who.id is not None}
    worn = labels.of(session, list(rows))
    # Asked for by themselves: a join reads all suppressions where the planner believes that they are few.
    keys = [who.key for who in rows.values()]
    barred = dict(session.exec(select(Suppression.key, Suppression.why).where(col(Suppression.key).in_(keys))).all())
    return [
        (
            who.key,
            Person(
                id=each,
                address=who.address,
                name=who.name,
                state=State(who.state),
                suppressed=barred.get(who.key),
                joined=who.joined,
                paused_until=who.paused_until,
                topics=worn[each].topics,
                tags=worn[each].tags,
            ),
        )
        for each, who in rows.items()
    ]


def _as_typed(text: str) -> str:
    """What is looked for, as addresses are compared.

    Raises:
        UsageError: the text is empty, too long, or has control characters.
    """
    key = unicodedata.normalize("NFC", " ".join(text.split()).casefold())
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise UsageError("a search has no control characters: take them out")
    if not key or key == "@":
        raise UsageError("type the beginning of an address, of a name, or of a domain after an @")
    if len(key) > TEXT_LIMIT:
        raise UsageError(f"a search is of at most {TEXT_LIMIT} characters: type less")
    return key


def _beginning(who: Any, column: Any, text: str) -> Select[Any]:
    """The numbers of people of whom something begins with a text: a range, which an index finds, in its order."""
    begins: ColumnElement[str] = bindparam("begins", text, unique=True)
    ends: ColumnElement[str] = bindparam("ends", _after(text), unique=True)
    order = (column,) if column is _KEY else (column, who)
    return select(who.label("id")).where(column >= begins, column < ends).order_by(*order)


def _after(text: str) -> str:
    """The first text, in the order of code points, that comes after all that begin with this one."""
    bare = text.rstrip(_LAST_CHARACTER)
    if not bare:
        return _LAST_CHARACTER * (TEXT_LIMIT + 1)
    return bare[:-1] + (_AFTER_SURROGATES if bare[-1] == _BEFORE_SURROGATES else chr(ord(bare[-1]) + 1))


def _some(session: Session, near: Select[Any], filters: Sequence[ColumnElement[bool]]) -> tuple[list[int], bool]:
    """The numbers of people among those who are near by, and whether there are more."""
    if not filters:
        found = session.execute(near.limit(FOUND_LIMIT + 1)).scalars().all()
        return list(found), len(found) > FOUND_LIMIT
    looked_at = near.limit(LOOKED_AT_IN_A_SEARCH).subquery()
    meets = segments.there_is(looked_at, looked_at.c.id == _ID, *filters)
    found = session.execute(select(looked_at.c.id).where(meets).limit(FOUND_LIMIT + 1)).scalars().all()
    cut = len(found) > FOUND_LIMIT or session.execute(near.offset(LOOKED_AT_IN_A_SEARCH).limit(1)).first() is not None
    return list(found), cut
