"""A desk of the test newsroom, and what it shows."""

from pipeline import desk
from pipeline import publish as route
from pipeline.desk import Deed
from pipeline.edit import Desk, line_up
from pipeline.issue import Draft
from pipeline.text import canonical_url
from tests.conftest import WEEK, World

ADA, BEN = "ada@news.example.com", "ben@news.example.com"
TITLES = [title for title, _ in WEEK]


def at(world: World, by: str = ADA, seen: int | None = None, pages: tuple[str, ...] | None = None) -> Desk:
    return Desk(world.newsroom, world.slot, by, seen, pages)


def drafted(world: World) -> Draft:
    return route.draft(world.newsroom, world.slot)


def pages_of(world: World) -> list[str]:
    return list(line_up(drafted(world)))


def titles(world: World) -> list[str]:
    return [line.title for line in drafted(world).issue.lines]


def revision(world: World) -> int:
    with world.database.read() as session:
        return desk.revision(session, world.slot.name)


def deeds(world: World) -> list[Deed]:
    with world.database.read() as session:
        return desk.deeds(session, world.slot.name)


def runner_up(world: World) -> str:
    return canonical_url(drafted(world).selection.runners_up[0].story.url)
