"""Real feeds, as publishers wrote them: every one is taken in, and their week makes an issue."""

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline import publish as route
from pipeline.collect import collect
from pipeline.group import group_stories
from pipeline.issue import Story
from pipeline.newsroom import Newsroom
from pipeline.sources import Validators
from pipeline.sources.feed import Feed
from tests.conftest import World, write_feed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def feeds() -> Path:
    data = os.environ.get("FRIDAY_REAL_DATA")
    if not data:
        pytest.skip("FRIDAY_REAL_DATA is not set: the real feeds are not at hand")
    return Path(data) / "feeds"


def newsroom_of(world: World, paths: Sequence[Path]) -> Newsroom:
    return replace(world.newsroom, sources=tuple(Feed(path.stem, str(path), 1.0, private=False) for path in paths))


def test_all_ai_feeds_are_taken_in_and_their_week_gives_five_stories(local_world: World, feeds: Path) -> None:
    paths = sorted((feeds / "ai_blogs").glob("*.xml"))
    newsroom = newsroom_of(local_world, paths)
    visits = collect(newsroom)
    assert len(visits) == 34
    assert [visit.trouble for visit in visits if visit.trouble] == []
    assert all(visit.new for visit in visits)
    slot = newsroom.schedule.named("2026-08-21")
    drafted = route.draft(newsroom, slot)
    chosen = drafted.selection.stories
    assert len({each.story.title for each in chosen}) == len({each.story.url for each in chosen}) == 5
    assert all(slot.at - timedelta(days=7) <= each.story.published < slot.at for each in chosen)
    assert drafted.errors == ()
    assert len(drafted.rendered.html.encode()) < 80_000


def test_collecting_them_again_brings_nothing_new(local_world: World, feeds: Path) -> None:
    newsroom = newsroom_of(local_world, sorted((feeds / "ai_blogs").glob("*.xml"))[:8])
    first = collect(newsroom)
    assert sum(visit.new for visit in first) > 100
    second = collect(newsroom)
    assert [visit.new for visit in second] == [0] * 8
    assert [visit.known for visit in second] == [visit.new for visit in first]


def test_feeds_in_every_dialect_are_read_or_refused_in_a_sentence(local_world: World, feeds: Path) -> None:
    paths = sorted((feeds / "native").iterdir())
    visits = collect(newsroom_of(local_world, paths))
    assert len(visits) == 140
    assert [visit.trouble for visit in visits if "bug" in visit.trouble] == []
    assert sum(not visit.trouble for visit in visits) >= 130


REPEATS = {
    "Cursor is now a part of SpaceX": [
        ("SpaceX completes takeover of Cursor", "Cursor, the maker of the AI code editor, now belongs to SpaceX."),
        ("Rocket maker swallows an AI code editor: Cursor joins SpaceX", "SpaceX has closed its purchase."),
    ],
    "Codex as a platform: build on the open agent harness": [
        ("OpenAI opens the Codex agent harness for others to build on", "Companies can embed Codex, OpenAI says."),
        ("Codex turns into a platform", "OpenAI wants developers to build their agents on the open harness."),
    ],
}  # fmt: skip


def test_repeats_in_other_words_under_other_addresses_come_out_as_one_story(local_world: World, feeds: Path) -> None:
    newsroom = newsroom_of(local_world, sorted((feeds / "ai_blogs").glob("*.xml")))
    slot = newsroom.schedule.named("2026-08-21")
    for place in range(2):
        stories = [
            Story(
                f"https://paper{place}.example/{number}",
                *tellings[place][:1],
                f"Paper {place}",
                slot.at - timedelta(hours=20),
                tellings[place][1],
            )
            for number, tellings in enumerate(REPEATS.values())
        ]
        path = local_world.folder / f"paper{place}.json"
        write_feed(path, *stories)
        newsroom = replace(newsroom, sources=(*newsroom.sources, Feed(f"Paper {place}", str(path), 1.0, private=False)))
    collect(newsroom)
    chosen = route.draft(newsroom, slot).selection.stories
    first, second = chosen[:2]
    assert {len(first.sources), len(second.sources)} == {3}
    told = [story.title for each in (first, second) for story in (each.story, *each.also)]
    assert sorted(told) == sorted([*REPEATS, *(title for tellings in REPEATS.values() for title, _ in tellings)])


def test_the_order_in_which_feeds_come_makes_no_difference(local_world: World, feeds: Path) -> None:
    now = local_world.clock()
    paths = sorted((feeds / "ai_blogs").glob("*.xml"))
    told = [
        story
        for path in paths
        for story in Feed(path.stem, str(path), 1.0, private=False).collect(Validators(), now).stories[:10]
    ]
    groups = {frozenset(story.url for story in group) for group in group_stories(told, 0.18)}
    random.Random(7).shuffle(told)  # noqa: S311 - an order, not a secret
    assert {frozenset(story.url for story in group) for group in group_stories(told, 0.18)} == groups
