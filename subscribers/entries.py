"""A row of a file as a person whom the roll can take, or the reason why it cannot; nothing is looked up."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, NamedTuple
from zoneinfo import available_timezones

from pipeline.errors import UsageError
from subscribers import dialects, roll, sheets
from subscribers.dialects import FRIDAY, Reading, Standing
from subscribers.models import LabelKind, State, Why, new_token

LABEL_LIMIT = 100
ATTRIBUTE_LIMIT = 2_000
# Dates of joining before there were newsletters, or in the future, are none.
_FIRST = datetime(1990, 1, 1, tzinfo=UTC)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,4}", re.ASCII)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_TOLD = {Standing.BOUNCED: Why.BOUNCE, Standing.COMPLAINED: Why.COMPLAINT}


class Refused(NamedTuple):
    """A line that nothing comes of."""

    line: int
    reason: str


class Person(NamedTuple):
    """A line that can be understood.

    `row` would be the person's on the roll, `labels` the kinds and names of its topics and tags, `told` why the file
    would have it suppressed, `reason` why it may not be mailed; `undated` that its date of joining cannot be right.
    """

    line: int
    key: str
    standing: Standing
    reason: str
    row: dict[str, Any]
    labels: dict[tuple[str, str], None]
    told: Why | None
    undated: bool = False

    @property
    def may_join(self) -> bool:
        """Whether the person may come onto the roll, be it as one who has left."""
        return self.standing in {Standing.ACTIVE, Standing.UNSUBSCRIBED}


def understood(sheet: sheets.Sheet, reading: Reading | None, now: datetime) -> Iterator[Person | Refused]:
    """Every row of a file, as a person or refused; `reading` is None where it is our own JSON."""
    if reading is None:
        for line, told in sheet.objects():
            yield _tried(line, partial(_of_object, line, told))
        return
    understand = _of_ours if reading.dialect is FRIDAY else _of_theirs
    for line, row in sheet.cells():
        cells = [sheets.plain(cell) for cell in row] + [""] * (len(sheet.header) - len(row))
        yield _tried(line, partial(understand, reading, now, line, cells))


def _tried(line: int, understand: Callable[[], Person]) -> Person | Refused:
    try:
        return understand()
    except UsageError as error:
        return Refused(line, str(error))


def _of_theirs(reading: Reading, now: datetime, line: int, row: Sequence[str]) -> Person:
    """A person of another house's export, or of a list."""
    address = roll.normalise(row[reading.address])
    standing, reason = dialects.standing(reading, row)
    places = reading.places

    def cell(what: str) -> str:
        return row[places[what]].strip() if what in places else ""

    name = cell("name") or f"{cell('first')} {cell('last')}"
    dated = next((row[place] for place in reading.joined if row[place].strip()), "")
    joined = _past(dated, now)
    gone = standing is Standing.UNSUBSCRIBED
    language = cell("language").replace("_", "-")
    zone = cell("zone")
    labels = _labels(sheets.unpacked(cell("topics")), sheets.unpacked(cell("tags")))
    made = {
        "address": address.written,
        "key": address.key,
        "name": roll.clean_name(name),
        "state": State.UNSUBSCRIBED if gone else State.ACTIVE,
        "token": new_token(),
        "source": reading.dialect.source,
        "joined": joined or now,
        "left": (_past(cell("left"), now) or now) if gone else None,
        "zone": zone if zone and zone in _zones() else "",
        "language": language if _LANGUAGE.fullmatch(language) else "",
        "paused_until": None,
        "attributes": _attributes(reading, row) if reading.asked or reading.wanted else {},
    }
    return Person(line, address.key, standing, reason, made, labels, _TOLD.get(standing), bool(dated) and joined is None)


def _attributes(reading: Reading, row: Sequence[str]) -> dict[str, str]:
    found = {name: row[place] for name, place in reading.asked.items()}
    if reading.wanted and reading.bag is not None:
        bag = _loaded(row[reading.bag])
        of_bag = {name: bag[name] for name in reading.wanted if isinstance(bag, dict) and bag.get(name) is not None}
        found |= {name: value if isinstance(value, str) else json.dumps(value) for name, value in of_bag.items()}
    clean = {name: roll.clean_name(value, ATTRIBUTE_LIMIT) for name, value in found.items()}
    return {name: value for name, value in clean.items() if value}


def _of_ours(reading: Reading, _now: datetime, line: int, row: Sequence[str]) -> Person:
    """A person of our own export in CSV."""
    told: dict[str, Any] = {what: row[place] for what, place in reading.places.items()}
    told |= {what: sheets.unpacked(told.get(what, "")) for what in ("topics", "tags")}
    told["attributes"] = _loaded(row[reading.bag]) if reading.bag is not None and row[reading.bag] else {}
    return _restored(line, told)


def _of_object(line: int, told: Mapping[str, Any]) -> Person:
    """A person of our own export in JSON."""
    return _restored(line, {**told, "zone": told.get("time_zone"), "paused": told.get("paused_until")})


def _restored(line: int, told: Mapping[str, Any]) -> Person:
    """A person as it was on the roll.

    Raises:
        UsageError: something is not as we write it.
    """
    address = roll.normalise(_text(told, "address"))
    why = _text(told, "suppressed")
    reasons = [each for each in Why if each is not Why.ERASED]
    joined, zone = _time(told, "joined"), _text(told, "zone")
    kept = told.get("attributes") or {}
    for wrong, complaint in (
        (_text(told, "state") not in list(State), f"its state is none of {', '.join(State)}"),
        (why and why not in reasons, f"its suppressed is none of {', '.join(reasons)}"),
        (zone and zone not in _zones(), "its time_zone is not known here"),
        (not _LANGUAGE.fullmatch(_text(told, "language") or "en"), "its language is no tag such as en or pt-BR"),
        (joined is None, "its joined is empty"),
        (not _storable(kept), "its attributes are no object of texts by name"),
    ):
        if wrong:
            raise UsageError(complaint)
    made = {
        "address": address.written,
        "key": address.key,
        "name": roll.clean_name(_text(told, "name")),
        "state": State(_text(told, "state")),
        "token": new_token(),
        "source": roll.clean_name(_text(told, "source")),
        "joined": joined,
        "left": _time(told, "left"),
        "zone": zone,
        "language": _text(told, "language"),
        "paused_until": _time(told, "paused"),
        "attributes": kept,
    }
    labels = _labels(_words(told, "topics"), _words(told, "tags"))
    return Person(line, address.key, Standing.ACTIVE, "", made, labels, Why(why) if why else None)


def _text(told: Mapping[str, Any], what: str) -> str:
    value = told.get(what)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"its {what} is no text")
    return (value or "").strip()


def _time(told: Mapping[str, Any], what: str) -> datetime | None:
    text = _text(told, what)
    found = _moment(text)
    if text and found is None:
        raise UsageError(f"its {what} is no date and time such as 2026-11-27T08:00:00+00:00")
    return found


def _words(told: Mapping[str, Any], what: str) -> list[str]:
    value = told.get(what) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"its {what} are no list of texts")
    return value


def _storable(kept: Any) -> bool:
    texts = [each for pair in kept.items() for each in pair] if isinstance(kept, dict) else [None]
    return all(isinstance(each, str) and not _UNSTORABLE.search(each) for each in texts)


def _labels(topics: Iterable[str], tags: Iterable[str]) -> dict[tuple[str, str], None]:
    """Topics and tags, each once."""
    named = ((kind, roll.clean_name(each, LABEL_LIMIT)) for kind, each in (
        *((LabelKind.TOPIC, each) for each in topics), *((LabelKind.TAG, each) for each in tags),
    ))  # fmt: skip
    return {(kind, name): None for kind, name in named if name}


def _loaded(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return None


def _moment(cell: str) -> datetime | None:
    """A time in ISO 8601, or as most exports write it; of UTC where it names no zone."""
    cell = cell.strip()
    try:
        found = datetime.fromisoformat(cell.removesuffix(" UTC"))
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _past(cell: str, now: datetime) -> datetime | None:
    found = _moment(cell) if cell else None
    return found if found and _FIRST <= found <= now else None


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
