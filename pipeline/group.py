"""Which tellings are one story, and which only echo a past one. Pure.

The measure is the cosine of TF-IDF vectors in which names weigh more; DECISIONS.md tells what was measured.
"""

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from pipeline.issue import Story
from pipeline.text import canonical_url, stem, tokens

_LOWER_CASE = re.compile(r"\b[a-z]+\b")
_CAPITALISED = re.compile(r"\b[A-Z]\w*(?:[- ]\d[\d.]*)?")

# How a story's words count when tellings are compared; measured on weeks of real headlines, see DECISIONS.md.
IN_TITLE = 2.0
NAMED = 2.5
OPENING = 400
# With so few words there is only a title, with so many a whole opening.
BARE_TITLE, FULL_TEXT = 8, 24
# One word in common, be it a company's name, never makes two tellings one story.
EVIDENCE = 2
# A word of more stories than this tells next to nothing about two of them, and pairs grow with its square.
COMMON = 100
COMMON_SHARE = 0.05
# Of all the words of two texts so many are in both: then they are one text. One source seldom tells a story twice.
SAME_TEXT = 0.7
# Under its own address a told story never returns; in other words it may after so long, since nobody remembers.
MEMORY = timedelta(weeks=13)


@dataclass(frozen=True, slots=True)
class Echo:
    """What a past issue told that is most like a story, and whether it is the very same."""

    of: Story | None = None
    similarity: float = 0.0
    same: bool = False


def find_echoes(told: Sequence[Story], past: Sequence[Story]) -> dict[Story, Echo]:
    """The echo of each story: the same page, or nearly the same text, was told; less alike may be what came of it."""
    pages = {canonical_url(story.url) for story in past}
    earliest = min((story.published for story in told), default=None)
    recent = [story for story in past if earliest and story.published >= earliest - MEMORY]
    echoes = {story: Echo(same=canonical_url(story.url) in pages) for story in told}
    for (a, b), likeness in _likeness([*recent, *told]).items():
        if a < len(recent) <= b:
            story, before = told[b - len(recent)], echoes[told[b - len(recent)]]
            same = before.same or likeness.same_text
            louder = likeness.similarity > before.similarity
            echoes[story] = Echo(recent[a], likeness.similarity, same) if louder else replace(before, same=same)
    return echoes


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
