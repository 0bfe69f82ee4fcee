"""`make bench-import N=1000000`: how fast an import is beside a bare `email-validator` loop over the same addresses, as JSON.

Both run in this one process, one after the other. It measures and says which bars hold.
"""

import argparse
import csv
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from email_validator import validate_email

from pipeline.database import Database
from subscribers.exchange import Imported, import_file

RATIO = 0.4
PEAK_MB = 250
# How many readers of a list share a domain, on average; with --domains as many as rows nobody does.
SHARING = 20


def people(rows: int, domains: int) -> Iterator[tuple[str, str]]:
    """Addresses that differ, and names many of which are the same."""
    for number in range(rows):
        yield f"reader.{number}@mail{number * 7919 % domains}.example.com", f"Reader{number % 977} Family{number % 9973}"


def measured(work: Callable[[], Any], rows: int) -> dict[str, float]:
    """How long some work takes: by the clock, and of the processor's time."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return {
        "seconds": round(clock, 2),
        "rows_per_second": round(rows / clock),
        "cpu_us_per_row": round(processor / rows * 1e6, 1),
    }


def main() -> None:
    """Import, then validate; print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, help="how many domains the addresses have; else one for twenty rows")
    chosen = parser.parse_args()
    rows, domains = chosen.rows, chosen.domains or max(1, chosen.rows // SHARING)
    came: list[Imported] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "people.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("email", "name")])
            csv.writer(file).writerows(people(rows, domains))
        database = Database(f"sqlite:///{folder}/friday.db")
        database.migrate()
        imported = measured(lambda: came.append(import_file(database, path, datetime.now(UTC))), rows)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        database.engine.dispose()
    if came[0].added != rows:
        sys.exit(f"{came[0].added:,} of {rows:,} were added")

    def bare() -> None:
        for address, _ in people(rows, domains):
            validate_email(address, check_deliverability=False)

    validated = measured(bare, rows)
    ratio = imported["rows_per_second"] / validated["rows_per_second"]
    found = {
        "rows": rows,
        "domains": domains,
        "import": imported,
        "bare": validated,
        "ratio": round(ratio, 3),
        "cpu_ratio": round(validated["cpu_us_per_row"] / imported["cpu_us_per_row"], 3),
        "peak_mb": round(peak, 1),
        "holds": {"ratio": ratio >= RATIO, "peak": peak < PEAK_MB},
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
