"""`make bench-import N=1000000`: how fast an import is beside a bare `email-validator` loop over the same addresses, as JSON.

Both run in this one process by turns, some thousand rows each, so that whatever else the machine does slows both.
It measures and says which bars hold.
"""

import argparse
import csv
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from email_validator import validate_email

from pipeline.database import Database
from subscribers.exchange import import_file

RATIO = 0.4
PEAK_MB = 250
# Half of the people are with one of a few great houses, the others share a domain with some others.
GREAT = 20
SHARING = 10


def people(rows: int, domains: int) -> Iterator[tuple[str, str]]:
    """Addresses that differ, in no order, and names many of which are the same."""
    chance = random.Random(rows)  # noqa: S311 - the same each time
    for number in range(rows):
        domain = number % GREAT if number % 2 and domains < rows else GREAT + chance.randrange(max(1, domains - GREAT))
        if domains >= rows:
            domain = number
        local = f"{chance.choice('abcdefghijklmnopqrstuvwxyz')}.reader.{number}"
        yield f"{local}@mail{domain}.example.com", f"Reader{chance.randrange(977)} Family{chance.randrange(9973)}"


@dataclass
class Watch:
    """How long some work took in all: by the clock, and of the processor's time, in seconds."""

    clock: float = 0.0
    processor: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure what is done within."""
        clock, processor = time.perf_counter(), time.process_time()
        yield
        self.clock += time.perf_counter() - clock
        self.processor += time.process_time() - processor

    def told(self, rows: int) -> dict[str, float]:
        """The same for each row."""
        per_second, microseconds = round(rows / self.clock), round(self.processor / rows * 1e6, 1)
        return {"seconds": round(self.clock, 2), "rows_per_second": per_second, "cpu_us_per_row": microseconds}


def main() -> None:
    """Import and validate by turns, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, help="how many domains there are; as many as rows is the worst case")
    chosen = parser.parse_args()
    rows, domains = chosen.rows, chosen.domains or max(1, chosen.rows // 2 // SHARING)
    both, bare, making = Watch(), Watch(), Watch()
    same, told = people(rows, domains), list[int]()

    def validate(done: int, _rows: int) -> None:
        with making.running():
            part = [address for address, _ in islice(same, done - (told[-1] if told else 0))]
            told.append(done)
        with bare.running():
            for address in part:
                validate_email(address, check_deliverability=False)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "people.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(("email", "name"))
            csv.writer(file).writerows(people(rows, domains))
        database = Database(f"sqlite:///{folder}/friday.db")
        database.migrate()
        with both.running():
            came = import_file(database, path, datetime.now(UTC), progress=validate)
        database.engine.dispose()
    if came.added != rows:
        sys.exit(f"{came.added:,} of {rows:,} were added")
    alone = Watch(both.clock - bare.clock - making.clock, both.processor - bare.processor - making.processor)
    ratio, peak = bare.clock / alone.clock, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "rows": rows,
        "domains": domains,
        "import": alone.told(rows),
        "bare": bare.told(rows),
        "ratio": round(ratio, 3),
        "cpu_ratio": round(bare.processor / alone.processor, 3),
        "peak_mb": round(peak, 1),
        "holds": {"ratio": ratio >= RATIO, "peak": peak < PEAK_MB},
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
