"""Choose the week's stories: group what tells the same story, score each group, say why.

Pure. `_reasons` is where a story's points come from, one `yield` each; `Weights` is the `[picking]` table of
config.toml, so a new weight there is a new key.
"""

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

from pipeline.issue import Chosen, Reason, Selection, Story
from pipeline.text import canonical_url, stem, tokens, versions, words

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

_LOWER_CASE = re.compile(r"\b[a-z]+\b")
_CAPITALISED = re.compile(r"\b[A-Z]\w*(?:[- ]\d[\d.]*)?")

# How a story's words count when tellings are compared; measured on weeks of real headlines, see DECISIONS.md.
IN_TITLE = 2.0
NAMED = 2.5
OPENING = 400
BARE_TITLE = 8
# One word in common, be it a company's name, never makes two tellings one story.
EVIDENCE = 2
# A word of more stories than this tells next to nothing about two of them, and pairs grow with its square.
COMMON = 100
COMMON_SHARE = 0.05
FULL_TEXT = 24
# Of all the words of two texts so many are in both: then they are one text. One source seldom tells a story twice.
SAME_TEXT = 0.7
# Under its own address a told story never returns; in other words it may after so long, since nobody remembers.
MEMORY = timedelta(weeks=13)
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
    stories: Sequence[Story], past: Sequence[Story], weights: Weights, wanted: int, trust: Mapping[str, float] | None = None
) -> Selection:
    """The best `wanted` stories of those told, none that a past issue already told, with runners-up.

    What only sounds like a past story may be what came of it: it is not chosen, and shown among the runners-up.

    Args:
        stories: all that was told in the slot's week, in any order.
        past: every telling of the stories of past issues.
        weights: points and thresholds.
        wanted: how many to choose; fewer are chosen when fewer reach `weights.least`.
        trust: how much a source's telling counts, by its name; 1 for those not in it.
    """
    told = sorted(stories, key=lambda story: (story.published, story.source, story.url))
    echoes = _echoes(told, past)
    groups = [group for group in group_stories(told, weights.alike) if not any(echoes[story].same for story in group)]
    ranked = sorted((score(group, weights, trust or {}, _loudest(group, echoes, weights.alike)) for group in groups), key=_rank)
    fresh, stale = list[Chosen](), list[Chosen]()
    for each in ranked:
        (fresh if each.score > weights.least and not each.echo else stale).append(each)
    chosen, rest = _spread(fresh, wanted, weights.per_source)
    rest = sorted([*rest, *stale], key=_rank)
    return Selection(
        stories=tuple(chosen),
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


def _loudest(group: Sequence[Story], echoes: Mapping[Story, "_Echo"], alike: float) -> Story | None:
    echo = max((echoes[story] for story in group), key=lambda each: each.similarity)
    return echo.of if echo.similarity >= alike else None


@dataclass(frozen=True, slots=True)
class _Echo:
    """What a past issue told that is most like a story, and whether it is the very same."""

    of: Story | None = None
    similarity: float = 0.0
    same: bool = False


def _echoes(told: Sequence[Story], past: Sequence[Story]) -> dict[Story, _Echo]:
    """The echo of each story: the same page, or nearly the same text, was told; less alike may be what came of it."""
    pages = {canonical_url(story.url) for story in past}
    recent = [story for story in past if told and story.published >= told[0].published - MEMORY]
    echoes = {story: _Echo(same=canonical_url(story.url) in pages) for story in told}
    for (a, b), likeness in _likeness([*recent, *told]).items():
        if a < len(recent) <= b:
            story, before = told[b - len(recent)], echoes[told[b - len(recent)]]
            same = before.same or likeness.same_text
            louder = likeness.similarity > before.similarity
            echoes[story] = _Echo(recent[a], likeness.similarity, same) if louder else replace(before, same=same)
    return echoes


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


def _spread(ranked: Sequence[Chosen], wanted: int, per_source: int) -> tuple[list[Chosen], list[Chosen]]:
    chosen: list[Chosen] = []
    rest: list[Chosen] = []
    linked: Counter[str] = Counter()
    for each in ranked:
        if len(chosen) < wanted and linked[each.story.source] < per_source:
            chosen.append(each)
            linked[each.story.source] += 1
        else:
            rest.append(each)
    # A week with one source only is better told by that source than not at all.
    while rest and len(chosen) < wanted:
        chosen.append(rest.pop(0))
    return sorted(chosen, key=_rank), rest


def group_stories(stories: Sequence[Story], alike: float) -> list[list[Story]]:
    """Tellings of the same story, each group in the order given.

    Addresses that are the same page belong together. Beyond that, groups are merged by average linkage
    over the cosine of TF-IDF vectors, the most alike first, until the average falls below `alike`. One
    source seldom tells a story twice, so two tellings by it must be nearly the same text.
    """
    pages: defaultdict[str, list[int]] = defaultdict(list)
    for place, story in enumerate(stories):
        pages[canonical_url(story.url)].append(place)
    clusters = dict(enumerate(pages.values()))
    links = _links(stories, list(clusters.values()))
    heap = [(-total / (len(clusters[a]) * len(clusters[b])), a, b) for a in links for b, total in links[a].items() if a < b]
    heapq.heapify(heap)
    while heap:
        average, a, b = heapq.heappop(heap)
        if -average < alike:
            break
        if a not in clusters or b not in clusters:
            continue
        merged = max(clusters) + 1
        clusters[merged] = clusters.pop(a) + clusters.pop(b)
        totals: Counter[int] = Counter()
        for part in (a, b):
            totals.update(links.pop(part))
        links[merged] = {other: total for other, total in totals.items() if other in clusters}
        for other, total in links[merged].items():
            links[other][merged] = total
            heapq.heappush(heap, (-total / (len(clusters[merged]) * len(clusters[other])), other, merged))
    return [[stories[place] for place in sorted(members)] for members in sorted(clusters.values(), key=min)]


def _links(stories: Sequence[Story], clusters: Sequence[Sequence[int]]) -> dict[int, dict[int, float]]:
    """The sum of similarities between each two clusters that share a word."""
    home = {place: cluster for cluster, members in enumerate(clusters) for place in members}
    links: dict[int, dict[int, float]] = {cluster: {} for cluster in range(len(clusters))}
    for (a, b), similarity in _similarities(stories).items():
        one, other = home[a], home[b]
        if one != other:
            links[one][other] = links[other][one] = links[one].get(other, 0.0) + similarity
    return links


def _similarities(stories: Sequence[Story]) -> dict[tuple[int, int], float]:
    """How alike each two tellings are, from 0 to 1; two by one source only if they are nearly the same text."""
    return {
        (a, b): likeness.similarity
        for (a, b), likeness in _likeness(stories).items()
        if likeness.same_text or stories[a].source != stories[b].source
    }


@dataclass(frozen=True, slots=True)
class _Likeness:
    """How alike two stories are, from 0 to 1, and whether they are nearly word for word the same."""

    similarity: float
    same_text: bool


def _likeness(stories: Sequence[Story]) -> dict[tuple[int, int], _Likeness]:
    """The likeness of each two stories that share words: their cosine, damped by how little text there is.

    Two bare titles that share a company's name look alike by their cosine, so the less text there is, the
    less it counts: down to half for titles alone.
    """
    names = _names(stories)
    vectors = [_vector(story, names) for story in stories]
    fullness = [min(1.0, max(0.0, (len(vector) - BARE_TITLE) / (FULL_TEXT - BARE_TITLE))) for vector in vectors]
    return {
        (a, b): _Likeness(cosine / (2 - (fullness[a] + fullness[b]) / 2), _same_text(vectors[a], vectors[b]))
        for (a, b), cosine in _cosines(vectors).items()
    }


def _same_text(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    shared = len(one.keys() & other.keys())
    return shared >= SAME_TEXT * (len(one) + len(other) - shared)


def _names(stories: Sequence[Story]) -> set[str]:
    """The tokens that are capitalised wherever they stand this week: who and what the stories are about."""
    texts = [text for story in stories for text in (story.title, story.summary)]
    common = {stem(word) for text in texts for word in _LOWER_CASE.findall(text)}
    capitalised = {token for text in texts for name in _CAPITALISED.findall(text) for token in tokens(name)}
    return capitalised - common


def _vector(story: Story, names: set[str]) -> dict[str, float]:
    vector = dict.fromkeys(tokens(story.summary[:OPENING]), 1.0) | dict.fromkeys(tokens(story.title), IN_TITLE)
    return {
        token: weight * (NAMED if token in names or any(char.isdigit() for char in token) else 1.0)
        for token, weight in vector.items()
    }


def _cosines(vectors: Sequence[Mapping[str, float]]) -> dict[tuple[int, int], float]:
    seen = Counter(token for vector in vectors for token in vector)
    rarity = {token: math.log((1 + len(vectors)) / number) for token, number in seen.items()}
    postings: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for place, vector in enumerate(vectors):
        weighed = {token: weight * rarity[token] for token, weight in vector.items()}
        length = math.sqrt(sum(value * value for value in weighed.values())) or 1.0
        for token, value in weighed.items():
            postings[token].append((place, value / length))
    products: defaultdict[tuple[int, int], float] = defaultdict(float)
    shared: Counter[tuple[int, int]] = Counter()
    common = max(COMMON, len(vectors) * COMMON_SHARE)
    for listed in postings.values():
        if len(listed) <= common:
            for pair, product in _pairs(listed):
                products[pair] += product
                shared[pair] += 1
    return {pair: product for pair, product in products.items() if shared[pair] >= EVIDENCE}


def _pairs(listed: Sequence[tuple[int, float]]) -> Iterable[tuple[tuple[int, int], float]]:
    for index, (place, value) in enumerate(listed):
        for other, another in listed[index + 1 :]:
            yield (place, other), value * another
