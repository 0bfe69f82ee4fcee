"""What follows for an issue from what was done at its desk: which stories, in which order, in whose words."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import edit
from pipeline.compose import compose
from pipeline.desk import CHANGES, LINE_UP, Deed, Kind, fold
from pipeline.feature import feature
from pipeline.issue import NO_EDITS, Edits, Selection, Slot, Story, Term, Wording
from pipeline.pick import Weights, pick
from pipeline.render import paragraphs
from pipeline.text import as_markdown, canonical_url
from tests.conftest import FRIDAY, MASTHEAD, WEEK
from tests.desks import ADA, TITLES

PAGES = "abcdef"


def deed(number: int, kind: Kind, *, by: str = ADA, undone: bool = False, **about: Any) -> Deed:
    return Deed(number, kind, about, by, FRIDAY, undone)


some_pages = st.lists(st.sampled_from(PAGES), unique=True, max_size=5)
one_page = st.sampled_from(PAGES)
texts = st.none() | st.sampled_from(["", "One", "Two"])
abouts: dict[Kind, st.SearchStrategy[Mapping[str, Any]]] = {
    **{kind: st.fixed_dictionaries({"page": one_page, "pages": some_pages}) for kind in (Kind.MOVE, Kind.SWAP, Kind.ADD)},
    Kind.DROP: st.tuples(one_page, some_pages).map(
        lambda drawn: {"page": drawn[0], "pages": [each for each in drawn[1] if each != drawn[0]]}
    ),
    Kind.PIN: st.fixed_dictionaries({"page": one_page, "place": st.integers(1, 6)}),
    Kind.UNPIN: st.fixed_dictionaries({"page": one_page}),
    Kind.WORDS: st.fixed_dictionaries(
        {"page": one_page, "field": st.sampled_from(edit.STORY_FIELDS), "text": texts, "place": st.integers(0, 6)}
    ),
    Kind.HEAD: st.fixed_dictionaries({"field": st.sampled_from(edit.HEAD_FIELDS), "text": texts}),
    Kind.TERM: st.fixed_dictionaries({"slug": st.sampled_from([None, "token", "recall"])}),
}


@st.composite
def histories(draw: st.DrawFn) -> list[Deed]:
    """What may have been done at a desk, each thing by the rules of its kind, some of it taken back."""
    done: list[Deed] = []
    for number in range(1, draw(st.integers(0, 14)) + 1):
        kind = draw(st.sampled_from(list(Kind)))
        about = draw(abouts.get(kind, st.just({})))
        done.append(Deed(number, kind, about, ADA, FRIDAY, draw(st.booleans()) if kind in CHANGES else False))
    return done


facts = settings(deadline=None, database=None, derandomize=True, max_examples=300)


def told(place: int, source: str = "Wire", hours: int = 24, url: str = "", summary: str = "") -> Story:
    title, own = WEEK[place]
    return Story(
        url or f"https://{PAGES[place]}.example", title, source, FRIDAY - timedelta(hours=hours + place), summary or own
    )


def page(story: Story) -> str:
    return canonical_url(story.url)


@facts
@given(histories())
def test_whatever_was_done_something_follows_from_it(done: list[Deed]) -> None:
    found = fold(done)
    assert not found.places.keys() & found.dropped
    assert all(place >= 1 for place in found.places.values())
    standing = [each for each in done if not each.undone]
    assert replace(found, revision=0) == replace(fold(standing), revision=0)
    changes = [each.id for each in done if each.kind in (*CHANGES, Kind.UNDO)]
    assert found.revision == (changes[-1] if changes else 0)
    line_ups = [each for each in standing if each.kind in LINE_UP]
    if line_ups and line_ups[-1].kind not in (Kind.PIN, Kind.UNPIN) and standing[-1] is line_ups[-1]:
        assert sorted(found.places.values()) == list(range(1, len(line_ups[-1].about["pages"]) + 1))
    for field in edit.HEAD_FIELDS:
        said = [each.about["text"] for each in standing if each.kind is Kind.HEAD and each.about["field"] == field]
        assert getattr(found, field) == (said[-1] if said else None)


WEIGHTS = Weights()


STORIES = [told(place, f"Source {PAGES[place]}") for place in range(6)]


def chosen(selection: Selection) -> list[str]:
    return [each.story.title for each in selection.stories]


@facts
@given(
    st.dictionaries(st.sampled_from([page(each) for each in STORIES]), st.integers(1, 9)),
    st.frozensets(st.sampled_from([page(each) for each in STORIES])),
)
def test_however_stories_are_pinned_and_dropped_each_is_chosen_once_or_not_at_all(
    places: dict[str, int], dropped: frozenset[str]
) -> None:
    edits = Edits(places=places, dropped=dropped - places.keys())
    selection = pick(STORIES, [], WEIGHTS, 4, edits=edits)
    found = [page(each.story) for each in selection.stories]
    runners_up = [page(each.story) for each in selection.runners_up]
    assert sorted(found + runners_up) == sorted(page(each) for each in STORIES)
    assert places.keys() <= set(found)
    assert edits.dropped <= set(runners_up)
    free = len(STORIES) - len(places) - len(edits.dropped)
    assert len(found) == len(places) + max(0, min(4 - len(places), free))
    pinned = [each for each in found if each in places]
    assert [places[each] for each in pinned] == sorted(places.values())


def test_a_pinned_story_has_its_place_though_it_is_weak_and_the_others_move_round_it() -> None:
    weak = Story("https://weak.example", "How to talk to a chatbot", "Blog", FRIDAY - timedelta(hours=3))
    week = [*STORIES, weak]
    assert weak.title not in chosen(pick(week, [], WEIGHTS, 3))
    alone = chosen(pick(STORIES, [], WEIGHTS, 3))
    with_it = pick(week, [], replace(WEIGHTS, least=2.0), 3, edits=Edits(places={page(weak): 2}))
    assert chosen(with_it) == [alone[0], weak.title, alone[1]]


def test_a_pinned_story_stays_though_a_past_issue_told_it_or_something_like_it() -> None:
    past = [replace(STORIES[2], published=FRIDAY - timedelta(days=9))]
    echo = [replace(past[0], url="https://past.example", title=f"{STORIES[2].title} now")]
    pinned = Edits(places={page(STORIES[2]): 1})
    for told_before in (past, echo):
        assert STORIES[2].title not in chosen(pick(STORIES, told_before, WEIGHTS, 4))
        assert chosen(pick(STORIES, told_before, WEIGHTS, 4, edits=pinned))[0] == STORIES[2].title


def test_a_dropped_story_is_a_runner_up_whatever_its_points_are_and_so_are_its_other_tellings() -> None:
    best = told(0, "Ledger", 20, url="https://ledger.example/same")
    week = [*STORIES, best]
    assert TITLES[0] in chosen(pick(week, [], WEIGHTS, 3))
    for dropped in (STORIES[0], best):
        selection = pick(week, [], WEIGHTS, 6, edits=Edits(dropped=frozenset((page(dropped),))))
        assert TITLES[0] not in chosen(selection)
        assert [each.story.title for each in selection.runners_up] == [TITLES[0]]


def test_a_pinned_telling_is_linked_though_another_would_be_and_tells_of_the_others() -> None:
    poor = told(0, "Ledger", 20, url="https://ledger.example/same", summary="Short.")
    (first, *_) = pick([*STORIES, poor], [], WEIGHTS, 5).stories
    assert first.story == STORIES[0]
    (pinned, *_) = pick([*STORIES, poor], [], WEIGHTS, 5, edits=Edits(places={page(poor): 1})).stories
    assert (pinned.story, pinned.also) == (poor, (STORIES[0],))
    assert pinned.score == first.score


def test_of_two_sources_that_tell_of_one_address_the_linked_one_stays_linked_when_it_is_pinned() -> None:
    poor = told(0, "Ledger", 20, url=STORIES[0].url + "/?utm_source=feed", summary="Short.")
    for week in ([*STORIES, poor], [poor, *STORIES]):
        (first, *_) = pick(week, [], WEIGHTS, 5).stories
        (pinned, *_) = pick(week, [], WEIGHTS, 5, edits=Edits(places={page(STORIES[0]): 1})).stories
        assert pinned == first
        assert pinned.story == STORIES[0]


def test_two_pinned_tellings_of_one_story_are_two_stories() -> None:
    other = told(0, "Ledger", 20, url="https://ledger.example/same")
    edits = Edits(places={page(STORIES[0]): 1, page(other): 2})
    first, second, *rest = pick([*STORIES, other], [], WEIGHTS, 4, edits=edits).stories
    assert (first.story, first.also) == (STORIES[0], (other,))
    assert (second.story, second.also, second.sources) == (other, (), ("Ledger",))
    assert len(rest) == 2


def test_two_pinned_to_one_place_follow_each_other() -> None:
    edits = Edits(places={page(STORIES[3]): 2, page(STORIES[5]): 2})
    assert chosen(pick(STORIES, [], WEIGHTS, 4, edits=edits))[1:3] == [TITLES[3], TITLES[5]]


def test_a_place_beyond_the_end_is_the_end() -> None:
    assert chosen(pick(STORIES[:3], [], WEIGHTS, 4, edits=Edits(places={page(STORIES[0]): 9})))[-1] == TITLES[0]


def test_holes_are_filled_with_the_next_best_and_a_pinned_one_counts_for_its_source() -> None:
    greedy = [replace(each, source="Wire") for each in STORIES[:4]]
    others = [replace(STORIES[4], source="Post"), replace(STORIES[5], source="Post")]
    edits = Edits(places={page(greedy[3]): 3})
    selection = pick([*greedy, *others], [], replace(WEIGHTS, per_source=2), 4, {"Wire": 5.0}, edits)
    assert [each.story.source for each in selection.stories].count("Wire") == 2
    assert selection.stories[2].story == greedy[3]
    assert {each.story for each in selection.runners_up} == {greedy[1], greedy[2]}


def test_what_is_pinned_and_not_told_is_not_missed() -> None:
    assert pick(STORIES, [], WEIGHTS, 4, edits=Edits(places={"nowhere.example": 1})) == pick(STORIES, [], WEIGHTS, 4)


def term(slug: str) -> Term:
    return Term(slug, slug.title(), "models", "What it is.", "Why.", "How.")


def test_the_chosen_term_is_featured_and_the_others_come_next() -> None:
    glossary = {slug: term(slug) for slug in ("apple", "beech", "cedar")}
    selection = pick(STORIES, [], WEIGHTS, 4)
    machine = feature(selection, glossary, {}, FRIDAY.date())
    wanted = feature(selection, glossary, {}, FRIDAY.date(), "cedar")
    assert machine.term
    assert wanted.term
    assert (machine.term.term.slug, wanted.term.term.slug) == ("apple", "cedar")
    assert [each.term.slug for each in wanted.other_terms] == ["apple", "beech"]
    assert [each.term.slug for each in machine.other_terms] == ["beech", "cedar"]
    assert feature(selection, glossary, {}, FRIDAY.date(), "gone") == machine


def composed(**words: Any) -> Any:
    edits = replace(NO_EDITS, **words)
    slot = Slot(FRIDAY.date(), FRIDAY)
    return compose(1, slot, pick(STORIES, [], WEIGHTS, 4, edits=edits), {}, MASTHEAD, edits)


def test_an_editor_s_words_stand_where_there_are_any_and_an_empty_text_takes_them_out() -> None:
    own = composed()
    first = canonical_url(own.lines[0].url)
    edited = composed(wordings={first: Wording(title="My title", summary="", why="My reason")}, preheader="", note="*Hi*")
    assert (edited.lines[0].title, edited.lines[0].summary, edited.lines[0].why) == ("My title", "", "My reason")
    assert edited.lines[1:] == own.lines[1:]
    assert (edited.preheader, edited.note) == ("", "*Hi*")
    assert edited.subject == "My title"
    assert composed(subject="Mine").subject == "Mine"


def test_an_editor_s_words_stay_when_another_telling_of_the_story_is_linked() -> None:
    one, other = told(0, "Wire"), told(0, "Ledger", url="https://ledger.example/same")
    linked = {page(one): Wording(summary="By Ada"), page(other): Wording(title="By Ben", summary="Older")}
    edits = Edits(wordings=linked)
    assert edits.wording([page(one), page(other)]) == Wording(title="By Ben", summary="By Ada")
    assert edits.wording([page(other)]) == Wording(title="By Ben", summary="Older")
    assert edits.wording(["https://nobody.example"]) == Wording()
    chosen = pick([one, other], [], WEIGHTS, 1).stories
    assert {page(story) for story in (chosen[0].story, *chosen[0].also)} == {page(one), page(other)}
    for words in ({page(one): Wording(title="Mine")}, {page(other): Wording(title="Mine")}):
        issue = compose(1, Slot(FRIDAY.date(), FRIDAY), pick([one, other], [], WEIGHTS, 1), {}, MASTHEAD, Edits(wordings=words))
        assert issue.lines[0].title == "Mine"


def test_the_machine_s_note_prints_as_it_is_whatever_is_in_a_term_s_name() -> None:
    odd = "A*B_c [x](y) `z` <b> & \\"
    assert paragraphs(as_markdown(odd)) == odd


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("One\ntwo.\n\nThree.", "One two.\n\nThree."),
        ("Read [the paper](https://example.org/p) now.", "Read the paper (https://example.org/p) now."),
        ("<https://example.org/p>", "https://example.org/p"),
        ("- one\n- *two*", "- one\n\n- two"),
        ("**Bold** and `code` & <b>tags</b>", "Bold and code & <b>tags</b>"),
        ("", ""),
    ],
)
def test_a_note_in_markdown_prints_plain(written: str, printed: str) -> None:
    assert paragraphs(written) == printed
