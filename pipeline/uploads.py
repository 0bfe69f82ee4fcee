"""Files of people that were sent to be looked at: they lie in a folder of their own, for about half an hour.

They are full of addresses, so they are nobody's but ours to read, and all go when anybody is erased; who still needs one
sends it again.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from pipeline.errors import UsageError

KEPT = timedelta(minutes=30)
MARK = "file-"


def room(folder: Path, suffix: str) -> Path:
    """Where the next file may be written.

    Raises:
        UsageError: the folder cannot be made or written.
    """
    with _told(folder, "written"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=MARK, dir=folder)) / f"people{suffix}"


def is_kept(path: Path) -> bool:
    """Whether a file is still there; then it is for half an hour from now on."""
    try:
        os.utime(path.parent)
    except FileNotFoundError:
        return False
    return path.exists()


def forget(path: Path) -> None:
    """Delete one file."""
    shutil.rmtree(path.parent, ignore_errors=True)


def forget_all(folder: Path, kept: timedelta = timedelta(0)) -> None:
    """Delete all files, or those that have lain for longer than so.

    Raises:
        UsageError: they cannot be deleted by whoever runs this.
    """
    before = time.time() - kept.total_seconds()
    with _told(folder, "emptied"), suppress(FileNotFoundError), os.scandir(folder) as found:
        for each in found:
            # Another process may be quicker.
            with suppress(FileNotFoundError):
                if each.name.startswith(MARK) and each.stat(follow_symlinks=False).st_mtime <= before:
                    shutil.rmtree(each.path)


@contextmanager
def _told(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        cure = "run this as the user whose server it is, or name another folder as folders.imports"
        raise UsageError(f"{folder} cannot be {what}: {error.strerror}; {cure}") from error
