"""Rounds of crashes: an issue whose senders are killed again and again, while the provider fails by a seeded plan.

A reader leaves now and then. The issue is published until it settles, and is judged then. A round is repeated by its name.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

from tests.fake_api.faults import Fault
from tests.trials import child
from tests.trials.judge import SETTLED, judge
from tests.trials.stage import PUBLISH, End, Running, Stage, Stages, strace

DATABASES = ("sqlite", "postgresql")
KINDS = ("moment", "point", "system call")
MOST_CRASHES = 7
MOST_TRIES = 60
RATES: dict[Fault, float] = {
    Fault.LOST: 0.04, Fault.RESET: 0.04, Fault.AFTER: 0.03, Fault.BEFORE: 0.03, Fault.GARBLED: 0.02, Fault.MISCOUNTED: 0.02,
    Fault.LIMIT: 0.04, Fault.SLOW: 0.02, Fault.PARTIAL: 0.03, Fault.UNAUTHORISED: 0.01,
}  # fmt: skip
# The system calls of each kind of database and of the outbox, and how many of them a run may come to.
SYSTEM_CALLS = {
    "sqlite": {"fdatasync": 60, "pwrite64": 150, "sendto": 20},
    "postgresql": {"sendto": 120, "recvfrom": 120},
    "outbox": {"fsync": 200, "rename": 200},
}


@dataclass
class Tally:
    """What came of many rounds."""

    crashes: Counter[str] = field(default_factory=Counter)
    issues: int = 0
    runs: int = 0
    accepted: int = 0
    unknown_first: int = 0
    unknown: int = 0
    duplicates: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    def __iadd__(self, other: Self) -> Self:
        self.crashes += other.crashes
        for name in ("issues", "runs", "accepted", "unknown_first", "unknown", "duplicates", "lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong += other.wrong
        return self

    @property
    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self.__dict__, "crashes": self.crashes.total(), "by_kind": dict(self.crashes)}


@dataclass(frozen=True)
class Round:
    """One issue, its crashes and faults, all by its seed; `kinds` says how processes are killed."""

    provider: str
    database: str
    seed: str
    kinds: Sequence[str] = KINDS

    @property
    def name(self) -> str:
        """What `--again` takes to play it once more."""
        return f"{self.provider}/{self.database}/{self.seed}"

    def play(self, stages: Stages) -> Tally:
        """Kill senders of the issue some times, publish until it settles, and judge."""
        chance = Random(self.seed)  # noqa: S311 - it is to be repeated
        frozen, calls = chance.random() < 0.8, chance.choice((1, 1, 2, 4))
        batch = 3 if self.provider == "smtp" else 10
        with stages.stage(self.provider, self.database, frozen=frozen, batch=batch, concurrency=calls) as stage:
            bad = chance.sample(stage.readers, 2)
            forgetful = chance.random() < 0.5
            stage.fake.script(rates=RATES, bad=bad, seed=chance.randrange(10**9), slow=0.05, forgetful=forgetful)
            tally, left = Tally(issues=1), set[str]()
            for _ in range(MOST_CRASHES):
                kind = chance.choice(self.kinds)
                end = self._run(stage, chance, kind, left)
                tally.runs += 1
                tally.crashes[kind] += end.killed
                if end.report and end.report["state"] in SETTLED:
                    break
            stage.fake.script(bad=bad, forgetful=forgetful)
            first = judge(stage, settle(stage, tally), left, bad, asked_log=not forgetful)
            # By now the log shows everything; asking it must neither double nor lose.
            stage.fake.script(bad=bad)
            last = judge(stage, settle(stage, tally), left, bad, asked_log=True) if first.unknown else first
            tally.accepted, tally.unknown_first, tally.unknown = last.accepted, first.unknown, last.unknown
            tally.duplicates, tally.lost = last.duplicates, last.lost
            tally.wrong += dict.fromkeys((*first.wrong, *last.wrong))
            if tally.wrong:
                shutil.copytree(stage.folder, stages.folder / "kept" / self.name)
        return tally

    def _run(self, stage: Stage, chance: Random, kind: str, left: set[str]) -> End:
        tracer = None
        if kind == "point":
            running = stage.start(*PUBLISH, point=chance.choice(child.POINTS), passage=chance.randint(1, 12))
        elif kind == "system call":
            calls = SYSTEM_CALLS[self.database] | (SYSTEM_CALLS["outbox"] if self.provider == "outbox" else {})
            call = chance.choice(sorted(calls))
            running = stage.start(*PUBLISH, traced=True)
            tracer = strace(running, f"{call}:signal=KILL:when={chance.randint(1, calls[call])}")
        else:
            running = stage.start(*PUBLISH)
        self._disturb(stage, chance, running, left)
        if kind == "moment" and running.nap(chance.random() * 0.5):
            running.kill()
        end = running.end()
        if tracer:
            tracer.wait()
        return end

    def _disturb(self, stage: Stage, chance: Random, running: Running, left: set[str]) -> None:
        """Let a reader leave, now and then, while the process runs."""
        if chance.random() < 0.25:
            running.nap(chance.random() * 0.2)
            reader = chance.choice(stage.readers)
            if stage.leave(reader, complaining=chance.random() < 0.5):
                left.add(reader)


def settle(stage: Stage, tally: Tally) -> dict[str, Any]:
    """Publish until the issue is sent or needs a decision.

    Raises:
        AssertionError: it never is.
    """
    end = End(0, "", "")
    for _ in range(MOST_TRIES):
        end = stage.publish()
        tally.runs += 1
        if end.report and end.report["state"] in SETTLED:
            return end.report
    raise AssertionError(f"the issue does not settle: exit {end.code}: {end.err}")


def rounds(seed: int, providers: Sequence[str], databases: Sequence[str], kinds: Sequence[str] = KINDS) -> Iterator[Round]:
    """Rounds without an end, by turns for each provider and database."""
    number = 0
    while True:
        number += 1
        for provider in providers:
            for database in databases:
                yield Round(provider, database, f"{seed}/{number}", kinds)
