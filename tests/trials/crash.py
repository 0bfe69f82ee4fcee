"""`make crash`: senders killed a thousand times, at random, at named points and at system calls; and what must hold then.

After that come single misfortunes: a full disk, a failing one, a database that is killed, many senders at once.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.providers import names
from tests.fake_api import running
from tests.trials.rounds import DATABASES, KINDS, Round, Tally, rounds
from tests.trials.scenarios import play_all
from tests.trials.server import postgres
from tests.trials.stage import Stages


@contextmanager
def stages(folder: Path, databases: Sequence[str], readers: int = 300) -> Iterator[Stages]:
    """All that rounds are played on."""
    with running("--smtp", "--state", str(folder)) as fake:
        if "postgresql" not in databases:
            yield Stages(folder, fake, readers=readers)
            return
        with postgres() as server:
            yield Stages(folder, fake, server, readers)


def play(made: Stages, rounds: Iterator[Round], crashes: int) -> dict[tuple[str, str], Tally]:
    """Play rounds until there were so many crashes, and tell on stderr how far it is."""
    tallies: dict[tuple[str, str], Tally] = {}
    done, began = 0, time.monotonic()
    for each in rounds:
        try:
            tally = each.play(made)
        except AssertionError as error:
            tally = Tally(issues=1, wrong=[str(error)])
        tally.wrong = [f"{what}; try --again {each.name}" for what in tally.wrong]
        tallies.setdefault((each.provider, each.database), Tally()).__iadd__(tally)
        done += tally.crashes.total()
        sys.stderr.write("".join(f"\n{what}\n" for what in tally.wrong))
        sys.stderr.write(f"\r{done:,} crashes in {time.monotonic() - began:.0f} s")
        sys.stderr.flush()
        if done >= crashes:
            break
    sys.stderr.write("\n")
    return tallies


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    """The tallies as a table in Markdown."""
    heads = ("provider", "database", "crashes", *KINDS, "issues", "copies", "twice", "lost", "unknown", "after its log")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for (provider, database), each in sorted(tallies.items()):
        row = (
            each.crashes.total(), *(each.crashes[kind] for kind in KINDS), each.issues, each.accepted,
            each.duplicates, each.lost, each.unknown_first, each.unknown,
        )  # fmt: skip
        lines.append("| " + " | ".join((provider, database, *(f"{cell:,}" for cell in row))) + " |")
    return "\n".join(lines)


def main() -> int:
    """Crash so often, print a table and JSON; 1 where anything is not as promised."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--crashes", type=int, default=1_000)
    words.add_argument("--seed", type=int, default=int(time.time()))
    words.add_argument("--providers", type=lambda text: text.split(","), default=names())
    words.add_argument("--databases", type=lambda text: text.split(","), default=list(DATABASES))
    words.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS))
    words.add_argument("--scenarios", action=argparse.BooleanOptionalAction, default=True, help="single misfortunes too")
    words.add_argument("--again", type=lambda text: text.split("/", 2), help="play the one round of this name")
    words.add_argument("--json", type=Path, help="where the figures go, beside stdout")
    asked = words.parse_args()
    sys.stderr.write(f"seed {asked.seed}\n")
    folder = Path(tempfile.mkdtemp(prefix="friday-crash-"))
    began = time.monotonic()
    with stages(folder, asked.databases) as made:
        if asked.again:
            tallies, wrong = play(made, iter([Round(*asked.again)]), 1), []
        else:
            tallies = play(made, rounds(asked.seed, asked.providers, asked.databases, asked.kinds), asked.crashes)
            wrong = play_all(made, asked.providers, asked.databases, asked.seed) if asked.scenarios else []
    total = Tally()
    for each in tallies.values():
        total += each
    total.wrong += wrong
    sys.stderr.write("".join(f"{what}\n" for what in wrong))
    figures = {
        "seed": asked.seed, "seconds": round(time.monotonic() - began), "total": total.told,
        "parts": [{"provider": provider, "database": database, **each.told} for (provider, database), each in tallies.items()],
    }  # fmt: skip
    sys.stdout.write(f"{table(tallies)}\n{json.dumps(figures)}\n")
    if total.wrong:
        sys.stderr.write(f"what there was is kept in {folder}\n")
    else:
        shutil.rmtree(folder)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2), "utf-8")
    return 1 if total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
