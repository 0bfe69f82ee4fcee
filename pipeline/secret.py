"""The newsletter's own secret: from the environment, else from a file beside the config that is made once."""

import contextlib
import os
import secrets
from pathlib import Path

from pipeline.config import Secrets
from pipeline.errors import ConfigError, Problem
from subscribers.keys import Keys

NAME = "FRIDAY_SECRET"
OLD = "FRIDAY_SECRET_OLD"
FILE = "friday.secret"


def keys(given: Secrets, here: Path) -> Keys:
    """The keys by which tokens are signed and erased addresses known again.

    `FRIDAY_SECRET` signs; what stands in `FRIDAY_SECRET_OLD`, separated by blanks, is still believed. Where neither
    is set, the secret lies in a file that nobody but the owner may read.

    Raises:
        ConfigError: a secret is too short, or the file can be neither read nor made.
    """
    newest = given.get(NAME)
    older = (given.get(OLD) or "").split()
    try:
        return Keys((newest or _own(here / FILE), *older))
    except ValueError as error:
        cure = 'make one with `python3 -c "import secrets; print(secrets.token_urlsafe(32))"`'
        raise ConfigError([Problem(NAME if newest else OLD if older else FILE, str(error), cure)]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(NAME, f"is not set, and {here / FILE} cannot be used: {error}")]) from None


def is_there(given: Secrets, here: Path) -> bool:
    """Whether there is a secret already.

    Raises:
        ConfigError: its file cannot be read.
    """
    return bool(given.get(NAME)) or (here / FILE).exists()


def _own(path: Path) -> str:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    if not path.exists():
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        # A link fails where another process was first, and never leaves half a secret.
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
        part.unlink()
    return path.read_text(encoding="ascii").strip()
