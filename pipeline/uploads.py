"""Files of people that were sent to be looked at: they lie beside the config, for half an hour at most.

They are full of addresses, so they are nobody's but ours to read, and go when anybody is erased; who needs one sends it
again. A file that is being read at that moment is read to its end.
"""

import contextlib
import os
import shutil
import tempfile
import time
from datetime import timedelta
from pathlib import Path

FOLDER = "imports"
KEPT = timedelta(minutes=30)


def room(here: Path, suffix: str) -> Path:
    """Where the next file of a newsroom may be written; `here` is the folder of its config."""
    (here / FOLDER).mkdir(mode=0o700, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="file-", dir=here / FOLDER)) / f"people{suffix}"


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


def forget_all(here: Path, kept: timedelta = timedelta(0)) -> None:
    """Delete the files of a newsroom, or those that have lain for longer than so."""
    before = time.time() - kept.total_seconds()
    for folder in (here / FOLDER).glob("file-*"):
        # Another process may be quicker.
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_mtime <= before:
                shutil.rmtree(folder, ignore_errors=True)
