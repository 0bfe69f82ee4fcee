"""What can go wrong, named by who must act; each kind carries the exit code that scripts rely on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands, what it is, how to mend it."""

    where: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.cure})" if self.cure else "")


class FridayError(Exception):
    """Anything that Friday foresees; whatever else is raised is a bug and exits 1."""

    exit_code = 1


class _Listed(FridayError):
    def __init__(self, problems: Sequence[Problem], title: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([*([title] if title else []), *map(str, problems)]))


class UsageError(FridayError):
    """The command was given something that it cannot take."""

    exit_code = 2


class ConfigError(_Listed):
    """The operator must mend config.toml or the environment. Carries every mistake at once."""

    exit_code = 2


class ContentError(_Listed):
    """An editor must act: a broken term or template, a finding that blocks, too little to send."""

    exit_code = 3


class ProviderError(FridayError):
    """The mail provider stands in the way."""

    exit_code = 4


class NotProcessed(ProviderError):
    """The call was surely not processed, so the same copies may be tried again after a while."""

    def __init__(self, what: str, retry_after: timedelta | None = None) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class AccountRefused(ProviderError):
    """The provider refuses the account, not a reader: nothing was sent and trying again is useless."""


class CallRefused(ProviderError):
    """The whole call was refused, nothing of it was sent; one bad copy may be the reason."""


class Unclear(ProviderError):
    """Nobody can tell whether the call was processed: its copies become unknown."""


class Forged(FridayError):
    """What came to a webhook is not the provider's, too old, or cannot be read; nothing of it was kept."""


class DecisionNeeded(FridayError):
    """A person must decide: not due, grace over, copies unknown, interrupted."""

    exit_code = 5


class Waits(DecisionNeeded):
    """A slot is due, and its issue waits for what editors should hear of: no source can be read, nobody would get it."""
