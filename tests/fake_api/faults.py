"""What a fake provider does wrong, call by call: scripted by number, or drawn from a seed; it answers nothing itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random


class Fault(StrEnum):
    """What goes wrong with one call. What is not said to be taken is not taken.

    `lost`, `slow`, `held`, `after`, `garbled` and `miscounted` strike when the copies are taken already: the
    connection is cut, the answer comes late, comes when it is released, is a 500, is no JSON, or answers for too
    few. `partial` refuses every fifth copy for good, where a provider can. `reset` breaks the connection before
    the body is read; `before` is a 500, `limit` a 429 and `unauthorised` a 401.
    """

    LOST = "lost"
    SLOW = "slow"
    HELD = "held"
    AFTER = "after"
    GARBLED = "garbled"
    MISCOUNTED = "miscounted"
    PARTIAL = "partial"
    RESET = "reset"
    BEFORE = "before"
    LIMIT = "limit"
    UNAUTHORISED = "unauthorised"


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes wrong when. The same plan does the same to the same calls, whatever the threads of a client do.

    `calls` says it by number, from 1; for all others each of `rates` is the probability of its fault. Addresses
    in `bad` are refused for good. `slow` is how late a slow answer is and `patience` what a 429 asks for, in seconds.
    A provider that is `forgetful` shows nothing in its log yet.
    """

    seed: int = 0
    calls: Mapping[int, Fault] = field(default_factory=dict)
    rates: Mapping[Fault, float] = field(default_factory=dict)
    bad: frozenset[str] = frozenset()
    slow: float = 0.2
    patience: int = 1
    forgetful: bool = False

    def fault(self, number: int) -> Fault | None:
        """What goes wrong with one call; None where nothing does."""
        if number in self.calls:
            return self.calls[number]
        if not self.rates:
            return None
        # Seeding by the number makes the draw independent of the order in which calls arrive.
        drawn = Random(f"{self.seed}/{number}").random()  # noqa: S311 - a trial that can be repeated is wanted
        for fault, rate in sorted(self.rates.items()):
            if drawn < rate:
                return fault
            drawn -= rate
        return None


def read_rates(text: str) -> dict[Fault, float]:
    """Rates as the command line has them: `lost=.05,reset=.05`."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {Fault(name): float(rate) for name, _, rate in pairs}
