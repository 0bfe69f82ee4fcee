"""Choose the week's stories: score each group of tellings, choose the best, say why.

Pure. `_reasons` is where a story's points come from, one `yield` each; `Weights` is the `[picking]` table of
config.toml, so a new weight there is a new key.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar

from pipeline.group import Echo, find_echoes, group_stories
from pipeline.issue import NO_EDITS, Chosen, Edits, Reason, Selection, Story
from pipeline.text import canonical_url, stem, versions, words

_EVENTS = {
    stem(word)
    for word in """acquires announces approves bans blocks buys charges closes cuts debuts defeats drops ends fines fires
    halts introduces introducing invests joins launches leaks lawsuit loses merges open-sources orders outage overturns
    passes partners probes raises recalls releases releasing replaces resigns retires reveals rules ruling shuts signs
    sued sues suing suit unveils upholds vetoes wins withdraws breach steps""".split()
}
_ASIDES = re.compile(
    r"^(how|why|what|when|is|are|can|should|do|does|the case|on |inside|show hn|ask hn|tell hn|lessons|building|understanding"
    r"|getting started|\d+ (ways|things|tips|lessons))\b|\b(guide|tutorial|how to|podcast|webinar|newsletter|roundup|round-up"
    r"|recap|digest|opinion|interview|q&a|part \d|course|hiring|tips|explained|my |i )\b|\?$",
    re.IGNORECASE,
)
_MONEY = re.compile(r"[$€£]\s?\d[\d.,]*\s?(b|bn|billion|m|mn|million|t|trillion)\b", re.IGNORECASE)

# A summary shorter than this tells too little to link to it rather than to another telling.
TEASER = 80


@dataclass(frozen=True, slots=True)
class Weights:
    """The `[picking]` table: points for what makes a story matter, and where groups end.

    Attributes:
        sources: times the logarithm (base 2) of one more than the weights of its sources.
        event: a title says that something happened.
        version: a title names something with its version.
        money: a title names a sum.
        aside: most titles read like advice, opinion or a round-up.
        alike: how alike two tellings must be on average to be one story, or to echo a past one, from 0 to 1.
        least: stories with fewer points are not chosen.
        per_source: how many stories may link to one source, if there are others.
        runners_up: how many are shown.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    sources: float = 3.0
    event: float = 1.0
    version: float = 0.6
    money: float = 0.5
    aside: float = -1.5
    alike: float = 0.18
    least: float = 0.0
    per_source: int = 2
    runners_up: int = 8

    def __post_init__(self) -> None:
        """Refuse what makes no sense, in words for the operator."""
        if not 0 < self.alike <= 1:
            raise ValueError("alike must lie between 0 and 1")
        if self.per_source < 1 or self.runners_up < 0:
            raise ValueError("per_source must be at least 1, and runners_up not below 0")


def pick(
    stories: Sequence[Story],
    past: Sequence[Story],
    weights: Weights,
    wanted: int,
    trust: Mapping[str, float] | None = None,
    edits: Edits = NO_EDITS,
) -> Selection:
    """The best `wanted` stories of those told, none that a past issue already told, with runners-up.

    What only sounds like a past story may be what came of it: it is not chosen, and shown among the runners-up.
    What an editor pinned is in its place whatever its points are, and what was dropped is a runner-up at most.

    Args:
        stories: all that was told in the slot's week, in any order, and what is pinned.
        past: every telling of the stories of past issues.
        weights: points and thresholds.
        wanted: how many to choose; fewer are chosen when fewer reach `weights.least`.
        trust: how much a source's telling counts, by its name; 1 for those not in it.
        edits: what was pinned and dropped at the desk.
    """
    told = sorted(stories, key=lambda story: (story.published, story.source, story.url))
    echoes = find_echoes(told, past)
    touched = edits.places.keys() | edits.dropped
    groups = [
        group
        for group in group_stories(told, weights.alike)
        if not any(echoes[story].same for story in group) or any(canonical_url(story.url) in touched for story in group)
    ]
    ranked = sorted((score(group, weights, trust or {}, _loudest(group, echoes, weights.alike)) for group in groups), key=_rank)
    pinned, ranked = _take_out(ranked, edits.places, weights, trust or {})
    fresh, stale = list[Chosen](), list[Chosen]()
    for each in ranked:
        dropped = next((story for story in (each.story, *each.also) if canonical_url(story.url) in edits.dropped), None)
        if dropped:
            # It keeps the name under which it was taken out.
            stale.append(_linked(each, dropped))
        else:
            (stale if each.echo or each.score <= weights.least else fresh).append(each)
    chosen, rest = _spread(fresh, wanted - len(pinned), weights.per_source, pinned.values())
    rest = sorted([*rest, *stale], key=_rank)
    return Selection(
        stories=tuple(_in_their_places(pinned, chosen)),
        runners_up=tuple(rest[: weights.runners_up]),
        term=None,
        told=len(told),
        sources=len({story.source for story in told}),
    )


def score(group: Sequence[Story], weights: Weights, trust: Mapping[str, float], echo: Story | None = None) -> Chosen:
    """One story out of all its tellings: the best is linked, the points are the sum of the reasons.

    Args:
        group: the tellings.
        weights: points for each reason.
        trust: how much a source's telling counts, by its name.
        echo: a story of a past issue that sounds like this one.
    """
    reasons = tuple(_reasons(group, weights, trust, echo))
    best, *others = sorted(group, key=lambda story: _telling(story, trust))
    points = round(sum(reason.points for reason in reasons), 2)
    return Chosen(best, points, reasons, tuple(others), echo=echo)


def _loudest(group: Sequence[Story], echoes: Mapping[Story, Echo], alike: float) -> Story | None:
    echo = max((echoes[story] for story in group), key=lambda each: each.similarity)
    return echo.of if echo.similarity >= alike else None


def _reasons(group: Sequence[Story], weights: Weights, trust: Mapping[str, float], echo: Story | None) -> Iterator[Reason]:
    titles = [story.title for story in group]
    sources = sorted({story.source for story in group})
    weight = sum(trust.get(source, 1.0) for source in sources)
    told = f"told by {len(sources)} sources: {', '.join(sources)}" if len(sources) > 1 else f"told by {sources[0]}"
    yield Reason(round(weights.sources * math.log2(1 + weight), 2), told)
    happened = next((word for title in titles for word in words(title) if stem(word) in _EVENTS), None)
    if happened:
        yield Reason(weights.event, f"something happened: “{happened}”")
    named = next((name for title in titles for name in versions(title)), None)
    if named:
        yield Reason(weights.version, f"names a version: {named}")
    sum_of_money = next((match.group() for title in titles if (match := _MONEY.search(title))), None)
    if sum_of_money:
        yield Reason(weights.money, f"money: {sum_of_money}")
    asides = [title for title in titles if _ASIDES.search(title)]
    if len(asides) * 2 > len(titles):
        yield Reason(weights.aside, "reads like advice, opinion or a round-up rather than news")
    if echo:
        yield Reason(0.0, f"not chosen by itself, since a past issue told something like it: “{echo.title}”")


def _rank(chosen: Chosen) -> tuple[float, float, str]:
    return (-chosen.score, -chosen.story.published.timestamp(), chosen.story.url)


def _telling(story: Story, trust: Mapping[str, float]) -> tuple[bool, bool, float, float, str]:
    # The one to link is safe to open, has something to read, and came first.
    return (
        not story.url.startswith("https:"),
        len(story.summary) < TEASER,
        -trust.get(story.source, 1.0),
        story.published.timestamp(),
        story.url,
    )


def _take_out(
    ranked: Sequence[Chosen], places: Mapping[str, int], weights: Weights, trust: Mapping[str, float]
) -> tuple[dict[int, Chosen], list[Chosen]]:
    """What is pinned, by its place and linked as it was pinned, and what is not.

    Of two pinned tellings of one story the second one stands alone, since an editor wants both.
    """
    pinned: dict[int, Chosen] = {}
    rest = list(ranked)
    # Of two tellings under one address the one that is linked comes last, and so is the one that is found.
    of = {canonical_url(story.url): (story, each) for each in ranked for story in (*each.also, each.story)}
    for page, place in sorted(places.items(), key=lambda item: item[1]):
        if page not in of:
            continue
        story, each = of[page]
        free = next(number for number in count(place) if number not in pinned)
        if each in rest:
            rest.remove(each)
            pinned[free] = _linked(each, story)
        else:
            pinned[free] = score([story], weights, trust)
    return pinned, rest


def _linked(each: Chosen, story: Story) -> Chosen:
    """The same by another of its tellings."""
    return replace(each, story=story, also=tuple(other for other in (each.story, *each.also) if other is not story))


def _in_their_places(pinned: Mapping[int, Chosen], chosen: Sequence[Chosen]) -> Iterator[Chosen]:
    others = iter(chosen)
    for place in range(1, len(pinned) + len(chosen) + 1):
        if place in pinned:
            yield pinned[place]
        elif (other := next(others, None)) is not None:
            yield other
    yield from (pinned[place] for place in sorted(pinned) if place > len(pinned) + len(chosen))


def _spread(
    ranked: Sequence[Chosen], wanted: int, per_source: int, beside: Iterable[Chosen] = ()
) -> tuple[list[Chosen], list[Chosen]]:
    """The first `wanted` that link to no source too often, by another telling where there is one; and the rest."""
    chosen: list[Chosen] = []
    rest: list[Chosen] = []
    linked = Counter(each.story.source for each in beside)
    for each in ranked:
        link = next((story for story in (each.story, *each.also) if linked[story.source] < per_source), None)
        if len(chosen) < wanted and link:
            chosen.append(_linked(each, link))
            linked[link.source] += 1
        else:
            rest.append(each)
    # A week with one source only is better told by that source than not at all.
    while rest and len(chosen) < wanted:
        chosen.append(rest.pop(0))
    return sorted(chosen, key=_rank), rest
