"""CSV into the roll: every line is taken, known already, or refused with its number and reason."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from pipeline.database import Database
from pipeline.errors import UsageError
from subscribers import roll
from subscribers.models import Subscriber

_ADDRESS = ("email", "address", "email address", "e-mail", "email_address")
_NAME = ("name", "full name", "full_name", "first name", "first_name")
_STATE = ("state", "status", "subscription status")
_MAILABLE = ("", "active", "subscribed", "enabled", "confirmed", "true", "yes")
_BATCH = 1_000


@dataclass
class Imported:
    """The report of an import. Lines count from 1, the header being line 1."""

    added: int = 0
    known: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


def import_csv(database: Database, path: Path, now: datetime) -> Imported:
    """Add every address of a CSV file as active.

    Nobody who is on the roll already is changed, so an import never brings back who has left. Each thousand
    is committed by itself, since reading is slow and a send must not wait for it; after an interruption the
    same import goes on where it stopped.

    Raises:
        UsageError: the file cannot be read, or has no column of addresses.
    """
    with database.read() as session:
        known, suppressed = roll.known_keys(session), roll.suppressed_keys(session)
    report = Imported()
    rows = _readable(path, known, suppressed, now, report)
    while fresh := list(islice(rows, _BATCH)):
        with database.write() as session:
            added = roll.add_new(session, fresh)
        report.added += added
        report.known += len(fresh) - added
    return report


def _readable(
    path: Path, known: set[str], suppressed: Mapping[str, str], now: datetime, report: Imported
) -> Iterator[Subscriber]:
    for line, row in _rows(path):
        try:
            address = roll.normalise(row["address"])
        except UsageError as error:
            report.refused.append((line, str(error)))
            continue
        if row["state"].strip().lower() not in _MAILABLE:
            report.refused.append((line, f"not mailable: its state is {row['state'].strip()!r}"))
        elif address.key in suppressed:
            report.refused.append((line, f"suppressed ({suppressed[address.key]})"))
        elif address.key in known:
            report.known += 1
        else:
            known.add(address.key)
            name = roll.clean_name(row["name"])
            yield Subscriber(address=address.written, key=address.key, name=name, source="import", joined=now)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            sample = file.read(8192)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=_delimiter(sample))
            columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
            address = next((columns[name] for name in _ADDRESS if name in columns), None)
            if address is None:
                raise UsageError(f"{path}:1: no column of addresses: name one of {', '.join(_ADDRESS)}")
            name = next((columns[name] for name in _NAME if name in columns), None)
            state = next((columns[name] for name in _STATE if name in columns), None)
            for row in reader:
                yield (
                    reader.line_num,
                    {
                        "address": row.get(address) or "",
                        "name": (row.get(name) or "") if name else "",
                        "state": (row.get(state) or "") if state else "",
                    },
                )
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 at byte {_first_bad_byte(path)}: save it as UTF-8") from None
    except csv.Error as error:
        raise UsageError(f"{path}:{reader.line_num}: {error}") from None


def _first_bad_byte(path: Path) -> int:
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _delimiter(sample: str) -> str:
    header = sample.splitlines()[0] if sample else ""
    return max(",;\t", key=header.count)
