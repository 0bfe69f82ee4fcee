"""What the verbs share: the newsroom that they open, how a slot is named, what goes to stdout and stderr."""

import getpass
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

if TYPE_CHECKING:
    from pipeline.issue import Slot
    from pipeline.newsroom import Newsroom

SLOT_HELP = "The slot's date, such as 2026-11-27; the due or next one if left out."
SlotName = Annotated[str | None, typer.Argument(metavar="[SLOT]", help=SLOT_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
_config: Path | None = None


def use(config: Path | None) -> None:
    """Let every verb of this process open the newsroom of a config file."""
    global _config  # noqa: PLW0603 - one process runs one verb, and every verb needs the path
    _config = config


def configured() -> "Newsroom":
    """The newsroom of the config file; its database is not looked at."""
    from pipeline.newsroom import open_newsroom

    return open_newsroom(_config)


def opened(*, writes: bool = False, drafts: bool = False) -> "Newsroom":
    """The newsroom with its database ready to read, or to write.

    A verb that drafts finds nothing in a new database, so none is made for it: what it would stumble over in
    terms and templates is told first.
    """
    from pipeline.publish import check as check_content

    newsroom = configured()
    new = newsroom.database.revision is None
    if drafts and new:
        check_content(newsroom)
    if writes and not (drafts and new):
        newsroom.database.migrate()
    else:
        newsroom.database.require()
    return newsroom


def slot_of(newsroom: "Newsroom", name: str | None) -> "Slot":
    """The slot of a date; without one that which a person means who names none."""
    from pipeline.publish import named

    return named(newsroom, name) if name else newsroom.schedule.current(newsroom.now())


def me() -> str:
    """Who is at the terminal, as others read it at the desk."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # Not every user of a container has a name.
        name = str(os.getuid())
    return f"terminal ({name})"


def is_sure(question: str) -> bool:
    """Whether who sits at the terminal says yes; Ctrl-C and Ctrl-D say no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False


def echo_lines(lines: Iterable[str]) -> None:
    """Say lines on stdout."""
    for line in lines:
        typer.echo(line)


def echo_json(value: Any) -> None:
    """Say a value to scripts."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


class Progress:
    """How far the copies or rows are, on stderr: a bar with rate and time left at a terminal; of copies a line at the end."""

    def __init__(self, label: str, what: str = "rows") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        task, rate = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
        columns = (task, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, disable=not console.is_terminal)
        self._label, self._what = label, what
        self._task = self._bar.add_task(label, total=None, rate="")
        self._first = 0
        self.began = False
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __call__(self, settled: int, copies: int) -> None:
        """Hear how many are done, of how many."""
        if not self.began:
            # Copies may have been sent before this run; rows are all of this one.
            self.began, self._first = True, settled if self._what == "copies" else 0
            self._bar.start()
        self.done = settled - self._first
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, completed=settled, total=copies, rate=f"{speed:,.0f}/s" if speed else "")

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self.done and self._what == "copies":
            copies = "1 copy" if self.done == 1 else f"{self.done:,} copies"
            typer.echo(f"{self._label}: {copies} handled", err=True)
