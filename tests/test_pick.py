"""Which stories make the issue: what is grouped, what it scores and why, and what stays out."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.group import MEMORY, group_stories
from pipeline.issue import Chosen, Selection, Story
from pipeline.pick import Weights, pick, score

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
WEIGHTS = Weights()
LONG = "The hall was full at nine and nobody had brought an umbrella, so the talk went on until the rain had stopped."


def story(title: str, source: str = "Wire", hours: float = 24, summary: str = "", url: str = "") -> Story:
    address = url or f"https://{source.lower()}.example/{'-'.join(title.lower().split())}"
    return Story(address, title, source, NOW - timedelta(hours=hours), summary)


RELEASE = story(
    "Merrowind releases Quillfern 3, an open-weights model for astronomers",
    summary="Merrowind published the weights of Quillfern 3 on Tuesday. The model reads noise from radio telescopes.",
)
RELEASE_TOO = story(
    "Quillfern 3 debuts: Merrowind's new model listens to radio telescopes",
    "Ledger",
    summary="The weights can be downloaded. Astronomers in Estravald say that it finds pulsars in telescope noise.",
)
LAWSUIT = story(
    "Merrowind sued by songwriters over lyrics in its training data",
    "Post",
    summary="Three songwriters filed a suit in Estravald. They say that the company copied lyrics to train its chatbot.",
)
LAWSUIT_TOO = story(
    "Songwriters take Merrowind to court over training on lyrics",
    "Ledger",
    summary="The suit says that the chatbot repeats whole lyrics of three songwriters. Merrowind calls it fair use.",
)
PRICES = story(
    "Merrowind raises prices for Quillfern",
    summary="From January a million tokens cost four marks. Old contracts run until summer, says the company.",
)
PRICES_AGAIN = story(
    "Merrowind raises prices of Quillfern",
    hours=20,
    summary="From January a million tokens will cost four marks. Old contracts run until summer, says the company.",
)
PRICES_DOWN = story(
    "Merrowind lowers prices for its small model",
    summary="The small one costs half from January. Old contracts run until summer, says the company.",
)
OTHERS = [
    story("Harbor town powers a data center with tidal turbines", "Post", 40, "The first megawatts flow in spring."),
    story("Nurses' union signs a contract on scheduling software", "Gazette", 41, "Shifts need a human signature."),
    story("Chip maker Corvalite opens a fab in the mountains", "Post", 42, "Cold air halves the cooling bill."),
    story("Teachers test a tutor that refuses to give answers", "Ledger", 43, "Pupils solved more fractions alone."),
    story("Insurers price losses caused by autonomous agents", "Herald", 44, "Premiums double without approval."),
]
WEEK = [RELEASE, RELEASE_TOO, LAWSUIT, LAWSUIT_TOO, PRICES, PRICES_AGAIN, PRICES_DOWN, *OTHERS]


def together(one: Story, other: Story, *week: Story) -> bool:
    """Whether two tellings end in one group in a week with other stories."""
    groups = group_stories([one, other, *week, *OTHERS], WEIGHTS.alike)
    return any(one in group and other in group for group in groups)


def titles(chosen: tuple[Chosen, ...]) -> list[str]:
    return [each.story.title for each in chosen]


def points(group: list[Story], weights: Weights = WEIGHTS, trust: Mapping[str, float] | None = None) -> Chosen:
    return score(group, weights, trust or {})


def texts(chosen: Chosen) -> list[str]:
    return [reason.text for reason in chosen.reasons]


def test_addresses_of_one_page_are_one_story_whatever_the_words() -> None:
    one = story("Merrowind opens an office", url="https://www.post.example/a/?utm_source=rss")
    other = story("Thirty chairs for Estravald", "Ledger", url="http://post.example/a#top")
    assert together(one, other)


def test_the_same_event_in_other_words_is_one_story() -> None:
    assert together(RELEASE, RELEASE_TOO, LAWSUIT, PRICES)
    assert together(LAWSUIT, LAWSUIT_TOO, RELEASE, PRICES)


def test_different_events_of_one_company_stay_apart() -> None:
    assert not together(RELEASE, LAWSUIT)
    assert not together(RELEASE_TOO, LAWSUIT_TOO)
    assert not together(RELEASE, replace(PRICES, source="Ledger"))


def test_bare_titles_that_share_a_company_s_name_stay_apart() -> None:
    one = story("Corvalite's chief resigns after twelve years")
    assert not together(one, story("Corvalite recalls a graphics card that overheats", "Ledger"))


def test_two_tellings_by_one_source_are_two_stories() -> None:
    assert together(RELEASE, RELEASE_TOO)
    assert not together(RELEASE, replace(RELEASE_TOO, source=RELEASE.source))
    assert not together(PRICES, PRICES_DOWN)


def test_two_tellings_by_one_source_in_nearly_the_same_words_are_one_story() -> None:
    assert together(PRICES, replace(PRICES, url="https://wire.example/again", title=PRICES_AGAIN.title))


def test_a_story_that_everybody_tells_is_one_story() -> None:
    everybody = [story(RELEASE.title, f"Source{number}", number, RELEASE.summary) for number in range(60)]
    selection = pick([*everybody, *OTHERS], [], WEIGHTS, 5)
    assert len(selection.stories[0].also) == 59


def test_a_week_without_stories_gives_an_empty_selection() -> None:
    assert pick([], [], WEIGHTS, 5) == Selection((), (), None, 0, 0)
    assert pick([], WEEK, WEIGHTS, 5) == Selection((), (), None, 0, 0)


def test_a_selection_counts_all_that_was_told_and_by_how_many() -> None:
    selection = pick(WEEK, OTHERS, WEIGHTS, 2)
    assert (selection.told, selection.sources) == (len(WEEK), 5)
    assert selection.term is None


def test_a_story_told_by_several_is_chosen_once_with_all_who_told_it() -> None:
    selection = pick(WEEK, [], WEIGHTS, 5)
    (release,) = [chosen for chosen in selection.stories if RELEASE in (chosen.story, *chosen.also)]
    assert {release.story, *release.also} == {RELEASE, RELEASE_TOO}
    assert set(release.sources) == {"Wire", "Ledger"}
    told = [each for chosen in (*selection.stories, *selection.runners_up) for each in (chosen.story, *chosen.also)]
    assert sorted(told, key=repr) == sorted(WEEK, key=repr)


@pytest.mark.parametrize("returned", [RELEASE, RELEASE_TOO, replace(RELEASE, url=f"{RELEASE.url}/?utm_source=rss#top")])
def test_nothing_of_a_past_issue_returns_though_its_address_or_its_words_are_others(returned: Story) -> None:
    selection = pick([returned, *OTHERS], [replace(RELEASE, published=NOW - timedelta(days=9))], WEIGHTS, 9)
    assert returned.title not in titles(selection.stories)
    assert len(selection.stories) == len(OTHERS)


def test_in_other_words_a_past_story_may_return_when_nobody_remembers_it() -> None:
    told = [RELEASE, *OTHERS]
    earliest = min(each.published for each in told)
    remembered = replace(RELEASE_TOO, published=earliest - MEMORY)
    forgotten = replace(RELEASE_TOO, published=earliest - MEMORY - timedelta(seconds=1))
    assert RELEASE.title not in titles(pick(told, [remembered], WEIGHTS, 9).stories)
    assert RELEASE.title in titles(pick(told, [forgotten], WEIGHTS, 9).stories)


def test_under_its_own_address_a_past_story_never_returns() -> None:
    long_ago = replace(RELEASE, published=NOW - 9 * MEMORY)
    assert RELEASE.title not in titles(pick([RELEASE, *OTHERS], [long_ago], WEIGHTS, 9).stories)


def test_a_new_event_of_a_company_from_a_past_issue_is_told() -> None:
    assert LAWSUIT.title in titles(pick([LAWSUIT, *OTHERS], [RELEASE], WEIGHTS, 9).stories)


def test_stories_of_past_issues_are_not_chosen_themselves() -> None:
    selection = pick(OTHERS, [RELEASE, LAWSUIT], WEIGHTS, 9)
    assert sorted(titles(selection.stories)) == sorted(each.title for each in OTHERS)


def test_the_points_of_the_reasons_sum_to_the_score() -> None:
    selection = pick(WEEK, [], WEIGHTS, 3)
    everything = (*selection.stories, *selection.runners_up)
    assert len(everything) > 5
    for chosen in everything:
        assert chosen.score == round(sum(reason.points for reason in chosen.reasons), 2)


def test_each_thing_that_matters_is_a_reason_of_its_own() -> None:
    title = "Sandermere invests $1.3 billion in Quillfern 3"
    chosen = points([story(title), story("Quillfern 3", "Ledger")])
    assert [(reason.points, reason.text) for reason in chosen.reasons] == [
        (4.75, "told by 2 sources: Ledger, Wire"),
        (1.0, "something happened: “invests”"),
        (0.6, "names a version: Quillfern 3"),
        (0.5, "money: $1.3 billion"),
    ]


def test_a_story_of_one_source_in_which_nothing_happens_has_one_reason() -> None:
    assert texts(points([story("Harbor town by night")])) == ["told by Wire"]


@pytest.mark.parametrize(
    "title",
    ["How to talk to a chatbot", "Is this the fab of the future?", "7 tips for prompts", "A podcast on chips", "Opinion: wait"],
)
def test_advice_opinion_and_round_ups_lose_points(title: str) -> None:
    chosen = points([story(title)])
    assert chosen.reasons[-1].points == WEIGHTS.aside
    assert chosen.score == 3.0 + WEIGHTS.aside


def test_news_that_one_of_three_tells_as_advice_stays_news() -> None:
    group = [story("Harbor town by night"), story("Harbor town", "Ledger"), story("How to see Harbor town", "Post")]
    assert not any(reason.points < 0 for reason in points(group).reasons)


def test_the_weights_decide_what_a_reason_is_worth() -> None:
    heavy = Weights(sources=1.0, event=7.0, version=5.0, money=3.0)
    chosen = points([story("Sandermere invests $2m in Quillfern 3")], heavy)
    assert [reason.points for reason in chosen.reasons] == [1.0, 7.0, 5.0, 3.0]


def test_the_trust_in_a_source_makes_its_telling_count_more() -> None:
    assert points([story("A fab")], trust={"Wire": 3.0}).score == 6.0
    assert points([story("A fab", "Ledger")], trust={"Wire": 3.0}).score == 3.0


def test_one_source_that_tells_a_story_twice_counts_once() -> None:
    assert points([story("A fab"), story("The fab")]).score == points([story("A fab")]).score


@pytest.mark.parametrize(
    ("linked", "other"),
    [
        (story("A", url="https://a.example/", summary="", hours=1), story("B", url="http://b.example/", summary=LONG, hours=9)),
        (story("A", summary=LONG, hours=1), story("B", summary="Short.", hours=9)),
        (story("A", "Heavy", summary=LONG, hours=1), story("B", summary=LONG, hours=9)),
        (story("A", summary=LONG, hours=9), story("B", summary=LONG, hours=1)),
        (story("A", summary=LONG), story("B", summary=LONG)),
    ],
    ids=["https before anything", "something to read", "the heavier source", "the earlier", "else by address"],
)
def test_the_telling_that_is_linked_is_safe_readable_trusted_and_first(linked: Story, other: Story) -> None:
    for group in ([linked, other], [other, linked]):
        assert points(group, trust={"Heavy": 2.0}).story == linked


def test_the_best_come_first_and_of_equals_the_latest() -> None:
    chosen = pick([*OTHERS, RELEASE], [], Weights(per_source=9), 4).stories
    assert titles(chosen) == [RELEASE.title, OTHERS[1].title, OTHERS[0].title, OTHERS[2].title]


def test_no_source_is_linked_more_than_its_share_while_others_have_stories() -> None:
    greedy = [story(each.title, "Wire", 50, each.summary) for each in OTHERS]
    quiet = [story("Rain in Estravald", "Ledger", 60), story("Fog in Sandermere", "Ledger", 61), story("Wind", "Ledger", 62)]
    selection = pick([*greedy, *quiet], [], WEIGHTS, 4, {"Wire": 5.0})
    assert [each.story.source for each in selection.stories] == ["Wire", "Wire", "Ledger", "Ledger"]
    assert [each.story.source for each in selection.runners_up] == ["Wire", "Wire", "Wire", "Ledger"]


def test_a_source_that_is_alone_fills_the_issue_with_its_best() -> None:
    alone = [story(each.title, "Wire", 50, each.summary) for each in OTHERS]
    selection = pick(alone, [], WEIGHTS, 4)
    assert len(selection.stories) == 4
    scores = [each.score for each in (*selection.stories, *selection.runners_up)]
    assert scores == sorted(scores, reverse=True)


def test_runners_up_follow_by_rank_and_are_cut_at_their_number() -> None:
    weights = Weights(runners_up=2, per_source=9)
    everything = pick(WEEK, [], Weights(per_source=9), 9).stories
    selection = pick(WEEK, [], weights, 3)
    assert selection.stories == everything[:3]
    assert selection.runners_up == everything[3:5]


def test_fewer_are_chosen_where_there_are_fewer() -> None:
    selection = pick(OTHERS[:2], [], WEIGHTS, 5)
    assert len(selection.stories) == 2
    assert selection.runners_up == ()


def test_a_story_that_does_not_reach_the_least_is_not_chosen_though_there_is_room() -> None:
    advice = story("How to talk to a chatbot", "Herald")
    assert advice.title in titles(pick([advice, OTHERS[1]], [], WEIGHTS, 5).stories)
    assert titles(pick([advice, OTHERS[1]], [], Weights(least=1.5), 5).stories) == [OTHERS[1].title]


@settings(deadline=None, database=None, derandomize=True, max_examples=40)
@given(st.permutations(WEEK))
def test_the_order_in_which_a_week_was_told_makes_no_difference(shuffled: list[Story]) -> None:
    past = [replace(OTHERS[0], source="Echo", url="https://echo.example/tides")]
    assert pick(shuffled, past, WEIGHTS, 4) == pick(WEEK, past, WEIGHTS, 4)


@st.composite
def weeks(draw: st.DrawFn) -> tuple[list[Story], list[Story]]:
    """A week of short tellings in which nearly everything ties, and the same week in another order."""
    word = st.sampled_from("Quillfern Corvalite fab tide lyrics sues opens".split())
    title = st.lists(word, min_size=1, max_size=4).map(" ".join)
    told = draw(
        st.lists(
            st.builds(story, title, st.sampled_from(["Wire", "Ledger", "Post"]), st.sampled_from([1.0, 2.0])),
            max_size=9,
            unique_by=lambda each: each.url,
        )
    )
    return told, draw(st.permutations(told))


@settings(deadline=None, database=None, derandomize=True, max_examples=80)
@given(weeks())
def test_the_order_makes_no_difference_even_where_everything_ties(case: tuple[list[Story], list[Story]]) -> None:
    told, shuffled = case
    assert pick(shuffled, [], WEIGHTS, 3) == pick(told, [], WEIGHTS, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alike": 0.0}, "alike must lie between 0 and 1"),
        ({"alike": 1.01}, "alike must lie between 0 and 1"),
        ({"per_source": 0}, "per_source must be at least 1, and runners_up not below 0"),
        ({"runners_up": -1}, "per_source must be at least 1, and runners_up not below 0"),
    ],
)
def test_weights_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Weights(**wrong)


def test_what_came_of_a_past_story_is_not_chosen_by_itself_and_shown_with_the_reason() -> None:
    past = story("Merrowind releases Quillfern 3", summary="Merrowind opened the weights of Quillfern 3 to all.")
    after = story(
        "Merrowind withdraws Quillfern 3",
        "Ledger",
        summary="The weights of Quillfern 3 leaked keys, and Merrowind took it back.",
    )
    selection = pick([after, *OTHERS], [replace(past, published=NOW - timedelta(days=8))], WEIGHTS, 9)
    assert after.title not in titles(selection.stories)
    (shown,) = [each for each in selection.runners_up if each.story == after]
    assert f"a past issue told something like it: “{past.title}”" in texts(shown)[-1]
    assert shown.score > 0


def test_a_story_that_others_told_too_is_linked_elsewhere_rather_than_left_out() -> None:
    alone = [
        story(title, "Wire", hours=40 + place)
        for place, title in enumerate(["Tides power a data center", "Nurses sign a pact"])
    ]
    shared = "Corvalite opens a fab in the mountains of Estravald"
    twice = [story(shared, "Wire", hours=30), story(shared, "Ledger", hours=20, url="https://ledger.example/fab")]
    best = replace(WEIGHTS, per_source=1, event=9.0)
    selection = pick([*alone, *twice, story("Merrowind sues a poet", "Wire", hours=10)], [], best, 3)
    (fab,) = [chosen for chosen in selection.stories if chosen.story.title == shared]
    assert (fab.story.source, [each.source for each in fab.also]) == ("Ledger", ["Wire"])
