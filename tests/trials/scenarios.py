"""Single misfortunes beside the crashes: a full disk, a disk that fails, a database that is killed, many senders at once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from tests.fake_api.faults import Fault
from tests.trials.judge import judge
from tests.trials.rounds import DATABASES, Tally, settle
from tests.trials.server import Server, own_server
from tests.trials.stage import PUBLISH, End, Stage, Stages, strace

A_BUG = 1
# So that a misfortune finds a sender in the middle of its calls.
_LEISURELY = {Fault.SLOW: 1.0}
_UNSTEADY = {Fault.SLOW: 0.3, Fault.LOST: 0.03, Fault.RESET: 0.03, Fault.AFTER: 0.02}


@dataclass(frozen=True)
class Scenario:
    """A misfortune, the databases that it can befall, what is done, and how the provider behaves meanwhile.

    `play` gives back how the processes ended; what `traces` needs strace.
    """

    name: str
    databases: tuple[str, ...]
    play: Callable[[Stage, Random], list[End]]
    rates: Mapping[Fault, float] = field(default_factory=dict)
    traces: bool = False

    def judge(self, stages: Stages, provider: str, database: str, seed: str) -> list[str]:
        """Let it happen, publish until the issue settles, and say what is not as promised."""
        chance = Random(seed)  # noqa: S311 - it is to be repeated
        with stages.stage(provider, database, batch=3 if provider == "smtp" else 10) as stage:
            stage.fake.script(rates=self.rates, seed=chance.randrange(10**9), slow=0.02)
            ends = self.play(stage, chance)
            wrong = [f"exit 1, as if it were a bug: {end.err.strip()[-300:]}" for end in ends if end.code == A_BUG]
            stage.fake.script()
            try:
                wrong += judge(stage, settle(stage, Tally())).wrong
            except AssertionError as error:
                wrong.append(str(error))
        return [f"{self.name}, {provider} on {database}, seed {seed}: {each}" for each in wrong]


def _injected(*inject: str) -> Callable[[Stage, Random], list[End]]:
    """One process, to which a system call fails; `{}` is the number of the call."""

    def play(stage: Stage, chance: Random) -> list[End]:
        running = stage.start(*PUBLISH, traced=True)
        tracer = strace(running, *(each.format(chance.randint(2, 20)) for each in inject))
        end = running.end()
        tracer.wait()
        return [end]

    return play


def _senders(number: int, killed: int) -> Callable[[Stage, Random], list[End]]:
    """So many processes at once, some of which are killed."""

    def play(stage: Stage, chance: Random) -> list[End]:
        senders = [stage.start(*PUBLISH) for _ in range(number)]
        for sender in senders[:killed]:
            sender.nap(chance.random() * 0.3)
            sender.kill()
        return [sender.end() for sender in senders]

    return play


FULL = Scenario("disk full", ("sqlite",), _injected("pwrite64:error=ENOSPC:when={}+"), traces=True)
FAILING = Scenario("disk fails", ("sqlite",), _injected("fdatasync:error=EIO:when={}"), traces=True)
SENDERS = tuple(
    Scenario(f"{number} senders, {killed} killed", DATABASES, _senders(number, killed))
    for number in (2, 4)
    for killed in (0, 1)
)
SCENARIOS = (FULL, FAILING, *SENDERS)


def killed_database(server: Server, *, whole: bool) -> Scenario:
    """The database is killed under a sender; a person starts it again."""

    def play(stage: Stage, chance: Random) -> list[End]:
        running = stage.start(*PUBLISH)
        running.nap(0.05 + chance.random() * 0.3)
        server.kill(whole=whole)
        if whole:
            # The sender may end before or after the server is back.
            running.nap(chance.random() * 0.3)
            server.restart()
        end = running.end()
        _wait_until_it_answers(stage)
        return [end]

    return Scenario("database killed" if whole else "database's process killed", ("postgresql",), play, _LEISURELY)


def _wait_until_it_answers(stage: Stage) -> None:
    for _ in range(100):
        try:
            stage.copies()
        except Exception:  # noqa: BLE001 - it recovers, in whatever way it says so
            time.sleep(0.1)
        else:
            return


def play_all(stages: Stages, providers: list[str], databases: list[str], seed: int) -> list[str]:
    """Every scenario on every provider and database that it can befall; what is not as promised."""
    wrong = [
        what
        for scenario in SCENARIOS
        for provider in providers
        for database in scenario.databases
        if database in databases
        for what in scenario.judge(stages, provider, database, f"{seed}/{scenario.name}")
    ]
    if "postgresql" in databases:
        with own_server() as server:
            folder = stages.folder / "own"
            folder.mkdir()
            own = replace(stages, folder=folder, server=server.url, _bases={}, _made=0)
            for whole in (False, True):
                for provider in providers:
                    wrong += killed_database(server, whole=whole).judge(own, provider, "postgresql", f"{seed}/killed")
    return wrong
