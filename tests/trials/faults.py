"""`make faults`: one fault at a time on each provider, what peers were seen to do then, and what is measured of ours.

The figures are the same each time, so README holds the table between two marks, and `--check README.md` fails where it
is not what is measured now.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.providers import names
from tests.fake_api import running
from tests.fake_api.faults import Fault
from tests.trials.judge import SETTLED, Verdict, judge
from tests.trials.stage import PUBLISH, End, Running, Stage, Stages

READERS = 100
BATCH = 10
MOST_RUNS = 6
# So long after a call the dates of a log, which have seconds, tell it from the next one.
LATER = 2.5
BEGIN, END = "<!-- faults -->", "<!-- end of faults -->"
# In the order of what they give to go by after a fault.
ORDER = ("outbox", "resend", "mailgun", "postmark", "smtp")
# What is true of the outbox though no fault of an API can befall it.
_OUTBOX = "outbox"


@dataclass(frozen=True)
class Row:
    """One fault.

    `calls` are the provider's own faults, `bad` readers are refused for good, and `first` is what happens in the first
    run, which gives back who had left before they were claimed. It befalls none of `not_for`.
    """

    what: str
    peers: str = ""
    calls: Mapping[int, Fault] = field(default_factory=dict)
    bad: tuple[str, ...] = ()
    first: Callable[[Stage], tuple[End, set[str]]] = lambda stage: (stage.publish(), set())
    not_for: tuple[str, ...] = (_OUTBOX,)


def _middle(stage: Stage) -> Running:
    """A sender in the middle of its third call, which is taken and not answered, all before it settled."""
    if stage.provider == _OUTBOX:
        running = stage.start(*PUBLISH, point="before call", passage=2 * BATCH + 5)
        running.nap(30)
        return running
    stage.fake.script({3: Fault.HELD}, forgetful=True)
    running = stage.start(*PUBLISH)
    done = 2 * copies_in_a_call(stage.provider)
    ends = time.monotonic() + 30
    while time.monotonic() < ends and not (stage.fake.held() and accepted_in_ledger(stage) == done):
        time.sleep(0.01)
    return running


def _kill(stage: Stage) -> tuple[End, set[str]]:
    running = _middle(stage)
    running.kill()
    end = running.end()
    stage.fake.release()
    time.sleep(LATER)
    return end, set()


def _leave(stage: Stage) -> tuple[End, set[str]]:
    running, reader = _middle(stage), stage.readers[-1]
    left = {reader} if stage.leave(reader) else set[str]()
    stage.fake.release()
    return running.end(), left


_TWICE_A_500 = "two drop readers for good"
ROWS = (
    Row(
        "the answers of two calls are lost",
        "one sends whole batches again: 2,000 readers got two copies; Ghost repeats a call up to six times on any error",
        {3: Fault.LOST, 5: Fault.LOST},
    ),
    Row("500, though the call was taken", _TWICE_A_500, {3: Fault.AFTER}),
    Row("500, and nothing was taken", _TWICE_A_500, {3: Fault.BEFORE}),
    Row(
        "the sender is killed in the middle of a call, and started again",
        "one sends a second copy to everyone already mailed; listmonk skips what it had in hand and says finished (#3022)",
        first=_kill,
        not_for=(),
    ),
    Row("the connection is reset before the call is read", calls={3: Fault.RESET}),
    Row("an answer that is not what it should be", calls={3: Fault.GARBLED}),
    Row("an answer for fewer copies than were sent", calls={3: Fault.MISCOUNTED}, not_for=(_OUTBOX, "smtp")),
    Row("429: too many calls", calls={3: Fault.LIMIT}),
    Row("one bad address in a call", bad=("reader25@example.com",)),
    Row(
        "401 in the middle, and the key is mended",
        "listmonk pauses on errors and sends from the start again (#2313: five copies to some, none to a third)",
        {3: Fault.UNAUTHORISED},
    ),
    Row("an answer that comes late", calls={3: Fault.SLOW}),
    Row("a reader unsubscribes during the send", first=_leave, not_for=()),
)


@dataclass(frozen=True)
class Cell:
    """What came of a fault with one provider: the verdicts before and after its log shows all, the exits of the runs."""

    first: Verdict
    last: Verdict
    exits: tuple[int, ...]
    rejected: int
    skipped: int
    asked_log: bool = False

    def __str__(self) -> str:
        unknown = f"{self.first.unknown} → {self.last.unknown}" if self.asked_log else str(self.first.unknown)
        named = ((self.rejected, "rejected"), (self.skipped, "skipped"), (self.first.unknown and unknown, "unknown"))
        told = ", ".join(f"{number} {what}" for number, what in named if number) or "all accepted"
        return f"{told} ({', '.join('killed' if each < 0 else str(each) for each in self.exits)})"


def copies_in_a_call(provider: str) -> int:
    """SMTP has one, as it is by default."""
    return 1 if provider == "smtp" else BATCH


def accepted_in_ledger(stage: Stage) -> int:
    """How many copies the ledger has as accepted."""
    return sum(state == "accepted" for _, _, state in stage.copies())


def measure(row: Row, provider: str, stages: Stages) -> Cell:
    """Let a fault happen, publish until the issue is settled, then once more when the provider's log shows everything.

    Raises:
        AssertionError: it does not settle.
    """
    with stages.stage(provider, "sqlite", batch=copies_in_a_call(provider)) as stage:
        stage.fake.script(row.calls, bad=row.bad, forgetful=True)
        end, left = row.first(stage)
        exits = [end.code]
        stage.fake.script(bad=row.bad, forgetful=True)
        while not end.report or end.report["state"] not in SETTLED:
            assert len(exits) < MOST_RUNS, f"{row.what}, {provider}: does not settle: {end.err}"
            end = stage.publish()
            exits.append(end.code)
        first = last = judge(stage, end.report, left, row.bad)
        asks = first.unknown > 0 and stage.limits.has_log
        if asks:
            stage.fake.script(bad=row.bad)
            end = stage.publish()
            exits.append(end.code)
        report = end.report
        assert report, end.err
        if asks:
            last = judge(stage, report, left, row.bad, asked_log=True)
        counts = report["counts"]
        return Cell(first, last, tuple(exits), counts["rejected"], counts["skipped"], asks)


def measure_all(stages: Stages) -> tuple[str, list[str]]:
    """The table in Markdown, and whatever is not as promised."""
    there = [provider for provider in ORDER if provider in names()]
    lines = [
        "| | peers | twice | forgotten | " + " | ".join(f"`{each}`" for each in there) + " |",
        "|---" * (len(there) + 4) + "|",
    ]
    wrong: list[str] = []
    for row in ROWS:
        cells = {each: measure(row, each, stages) for each in there if each not in row.not_for}
        verdicts = [verdict for cell in cells.values() for verdict in (cell.first, cell.last)]
        twice, lost = sum(each.duplicates for each in verdicts), sum(each.lost for each in verdicts)
        told = [str(cells[each]) if each in cells else "–" for each in there]
        lines.append(f"| {row.what} | {row.peers or '–'} | {twice} | {lost} | " + " | ".join(told) + " |")
        wrong += [
            f"{row.what}, {name}: {what}"
            for name, cell in cells.items()
            for what in dict.fromkeys((*cell.first.wrong, *cell.last.wrong))
        ]
    return "\n".join(lines), wrong


def between_marks(text: str) -> str:
    """What stands between the marks.

    Raises:
        ValueError: they are not there.
    """
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[begin:end].strip()


def put_between_marks(text: str, table: str) -> str:
    """The same text with another table."""
    return text[: text.index(BEGIN) + len(BEGIN)] + f"\n{table}\n" + text[text.index(END) :]


@contextmanager
def stages() -> Iterator[Stages]:
    """What it is measured on."""
    folder = Path(tempfile.mkdtemp(prefix="friday-faults-"))
    with running("--smtp") as fake:
        yield Stages(folder, fake, readers=READERS)
    shutil.rmtree(folder)


def main() -> int:
    """Measure and print the table; 1 where anything is not as promised, or not as a file says."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--check", type=Path, help="a file that must hold this very table between its marks")
    words.add_argument("--write", type=Path, help="a file to put it into, between its marks")
    asked = words.parse_args()
    with stages() as made:
        table, wrong = measure_all(made)
    sys.stdout.write(f"{table}\n")
    if asked.write:
        asked.write.write_text(put_between_marks(asked.write.read_text("utf-8"), table), "utf-8")
    if asked.check and between_marks(asked.check.read_text("utf-8")) != table:
        wrong.append(f"{asked.check} says something else: `make faults WRITE=README.md` puts this table there")
    sys.stderr.write("".join(f"{what}\n" for what in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
