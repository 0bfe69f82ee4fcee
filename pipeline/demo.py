"""The whole Friday on bundled sample data, told as it happens; it uses the route as every door does."""

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import publish as route
from pipeline import show
from pipeline.collect import collect
from pipeline.errors import UsageError
from pipeline.issue import Slot
from pipeline.newsroom import Newsroom, open_newsroom
from subscribers import exchange

SAMPLE = Path(__file__).parent / "sample"
ROOT = SAMPLE.parent.parent
MARKER = ".friday-demo"


def run_demo(folder: Path, say: Callable[[str], object]) -> tuple[Newsroom, Slot]:
    """Collect, draft, import, publish, and publish again; the newsroom and the slot of what was sent.

    Args:
        folder: where everything is written; an earlier demo in it is removed.
        say: told each line.

    Raises:
        UsageError: the folder holds something else than a demo.
    """
    newsroom, slot = set_up(folder)
    say(f"A week in {folder}, with the slot {slot.name}.")
    say("\nCollect: every source into the inbox")
    visits = collect(newsroom, lambda visit: say(show.visit_line(visit)))
    say(f"  {show.visits_summary(visits)}")
    say("\nSubscribers: a CSV onto the roll")
    people = SAMPLE / "subscribers.csv"
    imported = exchange.import_file(
        newsroom.database, people, newsroom.now(), refuse=lambda line, reason: say(f"  line {line} refused: {reason}")
    )
    say(f"  {show.imported_summary(imported)}")
    say("\nDraft: what was picked, and why\n")
    for text in show.draft_lines(route.draft(newsroom, slot)):
        say(text)
    say("\nPublish: freeze, enrol, deliver")
    sent = route.publish(newsroom, slot, anyway=True)
    for text in show.report_lines(sent):
        say(f"  {text}")
    again = route.publish(newsroom, slot, anyway=True)
    say(f"  Called a second time, it sends nothing: {again.counts['accepted']} accepted, as before.")
    outbox = folder / "outbox" / slot.name
    if outbox.is_dir():
        say(f"\n{len(list(outbox.glob('*.eml')))} mails lie in {outbox}")
    return newsroom, slot


def set_up(folder: Path) -> tuple[Newsroom, Slot]:
    """A newsroom of its own in a folder, its sources dated so that they tell the week of its slot.

    Raises:
        UsageError: the folder holds something else than a demo.
    """
    if folder.exists():
        if not folder.is_dir():
            raise UsageError(f"{folder} is a file: name another --folder")
        if any(folder.iterdir()) and not (folder / MARKER).exists():
            raise UsageError(f"{folder} holds something else than a demo: name another --folder")
        shutil.rmtree(folder)
    (folder / "sources").mkdir(parents=True)
    (folder / MARKER).touch()
    (folder / "config.toml").write_text((SAMPLE / "config.toml").read_text(encoding="utf-8"), encoding="utf-8")
    for shelf in ("terms", "templates"):
        shutil.copytree(ROOT / shelf, folder / shelf)
    newsroom = open_newsroom(folder / "config.toml", {})
    newsroom.database.migrate()
    slot = newsroom.schedule.last(newsroom.now())
    write_sources(folder / "sources", slot.at)
    return newsroom, slot


def write_sources(folder: Path, at: datetime) -> None:
    """The sample feeds as files, each story dated by its distance from a slot that opens `at`."""
    environment = Environment(loader=FileSystemLoader(SAMPLE), undefined=StrictUndefined, autoescape=False)  # noqa: S701 - our own files
    environment.globals.update(
        rfc822=lambda hours: format_datetime(at - timedelta(hours=hours)),
        rfc3339=lambda hours: (at - timedelta(hours=hours)).isoformat(),
    )
    for template in sorted(SAMPLE.glob("*.j2")):
        (folder / template.stem).write_text(environment.get_template(template.name).render(), encoding="utf-8")
