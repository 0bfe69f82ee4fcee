"""People in and out: a file onto the roll, every line of it taken, known or refused with its reason; and the roll into a file.

An import never makes anybody active who left, bounced, complained or has not confirmed elsewhere, and changes nobody
who is on the roll. What was exported is imported again without loss, but for what the roll alone knows: histories,
evidence of consent, tokens.
"""

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import func
from sqlmodel import Session, col, select

from pipeline.database import Database
from subscribers import bulk, dialects, entries, history, roll, sheets
from subscribers.dialects import FRIDAY
from subscribers.entries import Person, Refused
from subscribers.models import Label, LabelKind, State, Subscriber, Suppression, Why

# Half a second of writing at a million people; with fewer an import mostly waits for the disk.
BATCH = 10_000
PAGE = 1_000
COLUMNS = (
    "address", "name", "state", "suppressed", "joined", "left", "time_zone", "language", "topics", "tags", "source",
    "paused_until", "attributes",
)  # fmt: skip
FORMATS = ("csv", "json")
_ERASED = "erased, as the person wished; only the person can come back, by signing up"

Progress: TypeAlias = Callable[[int, int], object]
# The keys under which an erased address may be suppressed, one for each secret that there was.
Erased: TypeAlias = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Imported:
    """The report of an import: of each line, in which way it was taken.

    `added` are active (or, from our own export, pending), `unsubscribed` came onto the roll as such, `suppressed` are
    suppressed since, as they were said to have bounced or complained; somebody of our own export may be one of the
    first and of the last. `undated` of those added had a date that cannot be right, and joined today. `beware` is what a
    person should know of this house's exports.
    """

    dialect: str
    beware: str
    added: int = 0
    unsubscribed: int = 0
    suppressed: int = 0
    known: int = 0
    refused: int = 0
    undated: int = 0


@dataclass(slots=True)
class _Rehearsed:
    """What a rehearsal would have written, by the hashes of keys: a million of them must fit into memory."""

    known: set[int] = field(default_factory=set)
    barred: dict[int, Why] = field(default_factory=dict)


@dataclass(slots=True)
class _Taken:
    """What is to be done for one batch."""

    add: list[Person]
    suppress: dict[str, Why]
    refused: list[Refused]
    known: int = 0


def import_file(
    database: Database,
    path: Path,
    now: datetime,
    *,
    attributes: Sequence[str] = (),
    erased: Erased | None = None,
    dry_run: bool = False,
    refuse: Callable[[int, str], object] = lambda _line, _reason: None,
    progress: Progress = lambda _done, _rows: None,
) -> Imported:
    """Bring the people of a CSV, or of our own JSON, onto the roll.

    Every few thousand rows are a transaction, since reading is slow and a send must not wait for it; after an interruption
    the same import goes on where it stopped, and once it is through it changes nothing any more.

    Args:
        database: where the roll is.
        path: the file.
        now: when those join, or leave, of whom the file does not say it.
        attributes: columns that are kept as attributes of the person, by name.
        erased: gives the keys under which an erased address may be suppressed; without it none is erased.
        dry_run: find out what would come of it, and write nothing.
        refuse: hears of each refused line its number, which counts from 1, and the reason, once it is settled.
        progress: hears after each transaction how many rows are done, and how many there are.

    Raises:
        UsageError: the file cannot be read or understood; nothing was written.
    """
    sheet = sheets.look_through(path)
    reading = None if sheet.is_json else dialects.recognise(sheet.header, attributes, f"{path}:1")
    dialect = reading.dialect if reading else FRIDAY
    lines = entries.understood(sheet, reading, now)
    rehearsed = _Rehearsed()
    sums = dict.fromkeys(("added", "unsubscribed", "suppressed", "known", "refused", "undated"), 0)
    done = 0
    with _seldom_collected():
        while batch := list(islice(lines, BATCH)):
            with database.read() if dry_run else database.write() as session:
                taken = _sort(session, batch, erased, rehearsed)
                if dry_run:
                    rehearsed.known.update(hash(each.key) for each in taken.add)
                    rehearsed.barred.update((hash(key), why) for key, why in taken.suppress.items())
                else:
                    bulk.make_room(session, much=True)
                    _write(session, taken, dialect.source, now)
            gone = sum(each.row["state"] == State.UNSUBSCRIBED for each in taken.add)
            counts = {"added": len(taken.add) - gone, "unsubscribed": gone, "suppressed": len(taken.suppress)}
            counts |= {"known": taken.known, "refused": len(taken.refused), "undated": sum(each.undated for each in taken.add)}
            sums = {what: sums[what] + count for what, count in counts.items()}
            for line, reason in sorted(taken.refused):
                refuse(line, reason)
            done += len(batch)
            progress(done, sheet.rows)
    with database.read() as session:
        bulk.make_room(session, much=False)
    if done > BATCH and not dry_run:
        # SQLite's log has grown large, and it would stay so.
        database.scrub()
    return Imported(dialect.name, dialect.beware, **sums)


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Let the collector wait until a batch is done with: it would look at every person of it again and again, for nothing."""
    often, *later = gc.get_threshold()
    gc.set_threshold(max(often, 20 * BATCH), *later)
    try:
        yield
    finally:
        gc.set_threshold(often, *later)


def _sort(session: Session, batch: Iterable[Person | Refused], erased: Erased | None, before: _Rehearsed) -> _Taken:
    """Find out for each line of a batch what is to be done, in the order of the file."""
    taken = _Taken([], {}, [each for each in batch if isinstance(each, Refused)])
    people = [each for each in batch if isinstance(each, Person)]
    blinded = {each.key: erased(each.key) if erased else () for each in people}
    looked_up = [*blinded, *chain.from_iterable(blinded.values())]
    known = {*bulk.found(session, blinded, Subscriber.key), *(key for key in blinded if hash(key) in before.known)}
    barred = {key: Why(why) for key, why in bulk.found(session, looked_up, Suppression.key, Suppression.why)}
    barred |= {key: before.barred[hash(key)] for key in blinded if hash(key) in before.barred}
    for each in people:
        if not barred.keys().isdisjoint(blinded[each.key]):
            taken.refused.append(Refused(each.line, _ERASED))
        else:
            _decide(each, known, barred, taken)
    return taken


def _decide(person: Person, known: set[str], barred: dict[str, Why], taken: _Taken) -> None:
    key, told = person.key, person.told
    free = key not in known and key not in barred
    graver = told is not None and _weight(told) > _weight(barred.get(key))
    if free and person.may_join:
        taken.add.append(person)
        known.add(key)
    elif not told and (free or key in barred):
        taken.refused.append(Refused(person.line, person.reason if free else f"suppressed ({barred[key]})"))
    elif not graver:
        taken.known += 1
    if told and graver:
        taken.suppress[key] = barred[key] = told


def _write(session: Session, taken: _Taken, source: str, now: datetime) -> None:
    ids = roll.add_rows(session, [each.row for each in taken.add])
    # On PostgreSQL somebody else may have added the same person since we looked.
    ours = [each for each in taken.add if each.key in ids]
    taken.known += len(taken.add) - len(ours)
    taken.add = ours
    labels = [(ids[each.key], kind, name) for each in ours for kind, name in each.labels]
    bulk.insert(session, Label, ("subscriber_id", "kind", "name"), labels)
    for why in set(taken.suppress.values()):
        keys = [key for key, each in taken.suppress.items() if each is why]
        roll.suppress_keys(session, keys, why, now, source, history.IMPORT)


def _weight(why: Why | None) -> int:
    return list(Why).index(why) if why else -1


def export(
    database: Database, form: str, state: State | None = None, progress: Progress = lambda _done, _people: None
) -> Iterator[str]:
    """Everybody on the roll, or in one state, by address: the text of a CSV or JSON file, piece by piece.

    It is read in pages, each as it is at that moment, so that nobody who writes waits for it. Cells of the CSV are
    safe to open in a spreadsheet; times are in UTC.
    """
    with database.read() as session:
        count = select(func.count(col(Subscriber.id)))
        people = session.exec(count.where(Subscriber.state == state) if state else count).one()
    done, between = 0, "[\n"
    if form == "csv":
        yield sheets.csv_line(COLUMNS)
    for page in _pages(database, state):
        if form == "csv":
            yield "".join(sheets.csv_line(_cells(person)) for person in page)
        else:
            yield between + ",\n".join(json.dumps(person, ensure_ascii=False) for person in page)
            between = ",\n"
        done += len(page)
        progress(done, max(done, people))
    if form == "json":
        yield "[]\n" if between == "[\n" else "\n]\n"


def _cells(person: Mapping[str, Any]) -> list[str]:
    packed = {what: sheets.packed(person[what]) for what in ("topics", "tags")}
    kept = person["attributes"]
    packed["attributes"] = json.dumps(kept, ensure_ascii=False, sort_keys=True) if kept else ""
    return [packed[what] if what in packed else person[what] or "" for what in COLUMNS]


def _pages(database: Database, state: State | None) -> Iterator[list[dict[str, Any]]]:
    of_person = (
        "id", "key", "address", "name", "state", "joined", "left", "zone", "language", "source", "paused_until", "attributes",
    )  # fmt: skip
    columns = (*(getattr(Subscriber, name) for name in of_person), Suppression.why)
    last = ""
    while True:
        query = (
            select(*(col(each) for each in columns))
            .join(Suppression, col(Suppression.key) == col(Subscriber.key), isouter=True)
            .where(col(Subscriber.key) > last)
            .order_by(col(Subscriber.key))
            .limit(PAGE)
        )
        if state:
            query = query.where(Subscriber.state == state)
        with database.read() as session:
            rows = session.connection().execute(query).all()
            labels = _labels_of(session, [row.id for row in rows])
        if not rows:
            return
        last = rows[-1].key
        yield [
            {
                "address": row.address,
                "name": row.name,
                "state": row.state,
                "suppressed": row.why,
                "joined": row.joined.isoformat(),
                "left": row.left.isoformat() if row.left else None,
                "time_zone": row.zone,
                "language": row.language,
                "topics": labels.get((row.id, LabelKind.TOPIC), []),
                "tags": labels.get((row.id, LabelKind.TAG), []),
                "source": row.source,
                "paused_until": row.paused_until.isoformat() if row.paused_until else None,
                "attributes": row.attributes,
            }
            for row in rows
        ]


def _labels_of(session: Session, ids: Sequence[int]) -> dict[tuple[int, str], list[str]]:
    query = (
        select(col(Label.subscriber_id), col(Label.kind), col(Label.name))
        .where(col(Label.subscriber_id).in_(ids))
        .order_by(col(Label.subscriber_id), col(Label.kind), col(Label.name))
    )
    found: dict[tuple[int, str], list[str]] = {}
    for number, kind, name in session.connection().execute(query):
        found.setdefault((number, kind), []).append(name)
    return found
