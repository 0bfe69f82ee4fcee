"""The desk of a slot: what follows from what was done there, what is refused, and that nothing of it is lost."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import select

from pipeline import desk, edit, gate, inbox
from pipeline import publish as route
from pipeline.books import EditRow, Stance
from pipeline.compose import compose
from pipeline.desk import CHANGES, LINE_UP, Deed, Kind, fold
from pipeline.edit import MOST, MOST_URL, Desk, EditedMeanwhile, line_up
from pipeline.errors import DecisionNeeded, FridayError, UsageError
from pipeline.feature import feature
from pipeline.fetch import FetchError, Page
from pipeline.issue import NO_EDITS, Draft, Edits, Selection, Slot, Story, Term, Wording
from pipeline.newsroom import Newsroom
from pipeline.pick import Weights, pick
from pipeline.render import paragraphs
from pipeline.text import as_markdown, canonical_url
from tests.conftest import FRIDAY, MASTHEAD, ROOT, WEEK, World

ADA, BEN = "ada@news.example.com", "ben@news.example.com"
PAGES = "abcdef"
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


# What follows from deeds


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


def told(place: int, source: str = "Wire", hours: int = 24, url: str = "", summary: str = "") -> Story:
    title, own = WEEK[place]
    return Story(
        url or f"https://{PAGES[place]}.example", title, source, FRIDAY - timedelta(hours=hours + place), summary or own
    )


STORIES = [told(place, f"Source {PAGES[place]}") for place in range(6)]


def page(story: Story) -> str:
    return canonical_url(story.url)


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


# Changes at the desk


def test_a_moved_story_is_in_its_place_and_from_then_on_all_of_them_stay(world: World) -> None:
    world.tell_a_week(7)
    before = pages_of(world)
    at(world).move(before[3], 1)
    after = [before[3], *before[:3], before[4]]
    assert pages_of(world) == after
    assert drafted(world).edits.places == {each: place for place, each in enumerate(after, 1)}
    late = Story("https://l.example", "Everybody sues Quillfern 9 for $3 billion", "Wire", FRIDAY - timedelta(hours=2))
    world.tell("Ledger", replace(late, source="Ledger"))
    assert pages_of(world) == after


@pytest.mark.parametrize(("place", "found"), [(-3, 0), (0, 0), (1, 0), (5, 4), (99, 4)])
def test_a_place_out_of_range_is_the_first_or_the_last(local_world: World, place: int, found: int) -> None:
    local_world.tell_a_week()
    moved = pages_of(local_world)[2]
    at(local_world).move(moved, place)
    assert pages_of(local_world).index(moved) == found


def test_a_swapped_story_leaves_its_place_to_the_other(world: World) -> None:
    world.tell_a_week(7)
    before = pages_of(world)
    runner_up = canonical_url(drafted(world).selection.runners_up[0].story.url)
    at(world).swap(before[1], runner_up)
    assert pages_of(world) == [before[0], runner_up, *before[2:]]
    with pytest.raises(UsageError, match="in the selection already"):
        at(world).swap(before[0], runner_up)
    with pytest.raises(UsageError, match="not in the selection any more"):
        at(world).swap(before[1], before[0])


def test_a_dropped_story_makes_room_for_the_next_best_and_stays_out(world: World) -> None:
    world.tell_a_week(7)
    before = pages_of(world)
    runner_up = canonical_url(drafted(world).selection.runners_up[0].story.url)
    at(world).drop(before[0])
    assert pages_of(world) == [*before[1:], runner_up]
    assert before[0] in {canonical_url(each.story.url) for each in drafted(world).selection.runners_up}


def test_a_used_story_joins_a_thin_week_and_else_takes_the_last_place(world: World) -> None:
    world.tell_a_week(7)
    before = pages_of(world)
    dropped = before[0]
    at(world).drop(dropped)
    at(world).use(dropped)
    assert pages_of(world) == [*before[1:], dropped]
    with pytest.raises(UsageError, match="in the selection already"):
        at(world).use(dropped)


def test_a_thin_week_takes_one_more_at_its_end(world: World) -> None:
    world.tell_a_week(3)
    before = pages_of(world)
    at(world).drop(before[0])
    assert pages_of(world) == before[1:]
    at(world).use(before[0])
    assert pages_of(world) == [*before[1:], before[0]]


def test_a_pinned_story_stays_when_stronger_ones_come_and_an_unpinned_one_goes(world: World) -> None:
    world.tell_a_week(5)
    last = pages_of(world)[-1]
    strong = [
        Story(
            f"https://s.example/{number}",
            f"Court in {town} fines a {maker} for $3 billion",
            "Ledger",
            FRIDAY - timedelta(hours=3),
        )
        for number, (town, maker) in enumerate([("Sandermere", "ferry"), ("Oxleigh", "bakery"), ("Tarnow", "zoo")])
    ]
    at(world).pin(last)
    world.tell("Ledger", *strong)
    assert pages_of(world)[4] == last
    at(world).unpin(last)
    assert last not in pages_of(world)


def test_a_story_of_long_ago_may_be_pinned(world: World) -> None:
    old = Story("https://old.example/a", "An old story of lighthouses", "Wire", FRIDAY - timedelta(days=40))
    world.tell("Ledger", old)
    world.tell_a_week(7)
    assert canonical_url(old.url) not in pages_of(world)
    at(world).pin(canonical_url(old.url))
    assert pages_of(world)[4] == canonical_url(old.url)
    assert len(pages_of(world)) == 5


def test_words_stand_in_the_draft_and_none_brings_back_the_story_s_own(world: World) -> None:
    world.tell_a_week()
    first, own = pages_of(world)[0], drafted(world).issue.lines[0]
    for field in edit.STORY_FIELDS:
        at(world).tell(first, field, f"  My\n{field}  ")
    line = drafted(world).issue.lines[0]
    assert (line.title, line.summary, line.why) == ("My title", "My summary", "My why")
    assert "My why" in drafted(world).rendered.html
    for field in edit.STORY_FIELDS:
        at(world).tell(first, field, None)
    assert drafted(world).issue.lines[0] == own


def test_a_story_that_somebody_has_worked_on_stays(world: World) -> None:
    world.tell_a_week(5)
    last = pages_of(world)[-1]
    at(world).tell(last, "why", "It is ours.")
    world.tell("Ledger", Story("https://s.example", "Court fines a zoo for $3 billion", "Ledger", FRIDAY - timedelta(hours=3)))
    assert pages_of(world)[4] == last


def test_words_for_a_story_that_was_dropped_meanwhile_do_not_bring_it_back(world: World) -> None:
    world.tell_a_week(7)
    seen = tuple(pages_of(world))
    at(world, BEN).drop(seen[1])
    at(world, ADA, 0, seen).tell(seen[1], "why", "It mattered.")
    assert seen[1] not in pages_of(world)
    at(world).use(seen[1])
    assert drafted(world).issue.lines[-1].why == "It mattered."


def test_the_head_is_written_and_given_back(world: World) -> None:
    world.tell_a_week()
    own = drafted(world).issue
    at(world).head("subject", "A subject")
    at(world).head("preheader", "A preheader")
    at(world).head("note", "# Hello\r\n\r\n- one\n- **two**\n")
    issue = drafted(world).issue
    assert (issue.subject, issue.preheader, issue.note) == ("A subject", "A preheader", "# Hello\n\n- one\n- **two**")
    assert "<strong>two</strong>" in drafted(world).rendered.html
    for field in edit.HEAD_FIELDS:
        at(world).head(field, None)
    assert drafted(world).issue == own


def test_the_term_is_chosen_and_given_back(world: World) -> None:
    world.tell_a_week()
    machine = drafted(world).selection.term
    other = drafted(world).selection.other_terms[0].term.slug
    at(world).term(other)
    found = drafted(world).selection.term
    assert found
    assert found.term.slug == other
    at(world).term(None)
    assert drafted(world).selection.term == machine
    with pytest.raises(UsageError, match="there is no term 'nothing'"):
        at(world).term("nothing")


def test_what_was_done_last_is_taken_back_first_and_told_of_for_good(world: World) -> None:
    world.tell_a_week()
    before, own = pages_of(world), drafted(world).issue
    at(world).move(before[4], 1)
    at(world, BEN).head("subject", "Mine")
    assert at(world).undo().kind is Kind.HEAD
    assert at(world).undo().kind is Kind.MOVE
    assert drafted(world).issue == own
    with pytest.raises(UsageError, match="nothing was changed"):
        at(world).undo()
    assert [(each.kind, each.by, each.undone) for each in deeds(world)] == [
        (Kind.MOVE, ADA, True), (Kind.HEAD, BEN, True), (Kind.UNDO, ADA, False), (Kind.UNDO, ADA, False),
    ]  # fmt: skip
    assert drafted(world).edits.revision == revision(world) == deeds(world)[-1].id


def test_what_was_not_collected_cannot_be_used(local_world: World) -> None:
    local_world.tell_a_week()
    first = pages_of(local_world)[0]
    acts: list[Callable[[], object]] = [
        lambda: at(local_world).pin("nowhere.example"),
        lambda: at(local_world).drop("nowhere.example"),
        lambda: at(local_world).use("nowhere.example"),
        lambda: at(local_world).swap(first, "nowhere.example"),
        lambda: at(local_world).tell("nowhere.example", "title", "A title"),
    ]
    for act in acts:
        with pytest.raises(UsageError, match="no story of that address was collected"):
            act()
    assert deeds(local_world) == []


def test_fields_that_are_not_there_are_refused_by_name(local_world: World) -> None:
    local_world.tell_a_week()
    with pytest.raises(UsageError, match="a story has no 'url': it has title, summary, why"):
        at(local_world).tell(pages_of(local_world)[0], "url", "x")
    with pytest.raises(UsageError, match="an issue has no 'number': it has subject, preheader, note"):
        at(local_world).head("number", "2")


@pytest.mark.parametrize("field", sorted(MOST))
def test_a_text_that_is_too_long_is_refused_with_both_numbers(local_world: World, field: str) -> None:
    local_world.tell_a_week()

    def write(text: str) -> None:
        if field in edit.HEAD_FIELDS:
            at(local_world).head(field, text)
        else:
            at(local_world).tell(pages_of(local_world)[0], field, text)

    write("x" * MOST[field])
    with pytest.raises(UsageError, match=rf"the {field} has {MOST[field] + 1:,} characters, and {MOST[field]:,} is the most"):
        write("x" * (MOST[field] + 1))
    assert len(deeds(local_world)) == 1


@pytest.mark.parametrize("blank", ["", "  \n", "\u202e", "\x00\u200b\ufeff"])
def test_a_title_and_a_subject_cannot_be_empty(local_world: World, blank: str) -> None:
    local_world.tell_a_week()
    with pytest.raises(UsageError, match="needs a title"):
        at(local_world).tell(pages_of(local_world)[0], "title", blank)
    with pytest.raises(UsageError, match="needs a subject"):
        at(local_world).head("subject", blank)
    at(local_world).head("preheader", blank)
    assert drafted(local_world).issue.preheader == ""


def test_control_characters_and_overrides_of_direction_are_taken_out(world: World) -> None:
    world.tell_a_week()
    ugly = "A\x00B\u202eC\u2066D\x07\ud800 e\u0301\r\nBcc: x@example.com"
    first = pages_of(world)[0]
    at(world).tell(first, "title", ugly)
    at(world).head("subject", ugly)
    at(world).head("note", f"{ugly}\x00\n\n\u202eend")
    issue = drafted(world).issue
    assert issue.lines[0].title == issue.subject == "ABCD \u00e9 Bcc: x@example.com"
    assert issue.note == "ABCD \u00e9\nBcc: x@example.com\n\nend"


@facts
@given(st.text(max_size=80) | st.text("\x00\u202e\u2069\r\n\t a-#*[](<&", max_size=40))
def test_any_text_is_cleaned_to_the_same_when_it_is_cleaned_again(written: str) -> None:
    for field in MOST:
        once = edit.clean(field, written)
        assert once is not None
        assert edit.clean(field, once) == once
        assert not set("\x00\u202e\u2069\r") & set(once)
        assert field == "note" or "\n" not in once


def test_a_script_in_any_text_is_only_text(local_world: World) -> None:
    local_world.tell_a_week()
    bad = '<script>alert("1")</script>'
    first = pages_of(local_world)[0]
    for field in edit.STORY_FIELDS:
        at(local_world).tell(first, field, bad)
    for field in edit.HEAD_FIELDS:
        at(local_world).head(field, f"{bad} [x](javascript:alert(1))")
    html = drafted(local_world).rendered.html
    assert "<script" not in html
    assert 'href="javascript' not in html


# Two editors


def test_two_who_write_the_same_field_are_told_of_each_other(world: World) -> None:
    world.tell_a_week()
    first = pages_of(world)[0]
    at(world, BEN).head("subject", "Earlier")
    seen = revision(world)
    at(world, BEN, seen).tell(first, "title", "Ben's title")
    with pytest.raises(EditedMeanwhile, match=f"{BEN} has changed that meanwhile, at 08:01 UTC") as caught:
        at(world, ADA, seen).tell(first, "title", "Ada's title")
    assert (caught.value.deed.by, caught.value.deed.about["text"]) == (BEN, "Ben's title")
    assert titles(world)[0] == "Ben's title"
    at(world, ADA, revision(world)).tell(first, "title", "Ada's title")
    assert titles(world)[0] == "Ada's title"


def test_two_who_write_different_fields_do_not_hear_of_each_other(world: World) -> None:
    world.tell_a_week()
    first, second, *_ = pages = tuple(pages_of(world))
    at(world, BEN, 0, pages).tell(first, "title", "Ben's title")
    at(world, ADA, 0, pages).tell(first, "why", "Ada's reason")
    at(world, ADA, 0, pages).tell(second, "title", "Ada's title")
    at(world, ADA, 0, pages).head("subject", "Ada's subject")
    at(world, BEN, 0, pages).head("preheader", "Ben's preheader")
    issue = drafted(world).issue
    assert [line.title for line in issue.lines[:2]] == ["Ben's title", "Ada's title"]
    assert (issue.lines[0].why, issue.subject, issue.preheader) == ("Ada's reason", "Ada's subject", "Ben's preheader")


def test_two_who_change_the_line_up_are_told_of_each_other_whatever_they_do_to_it(world: World) -> None:
    world.tell_a_week(7)
    pages = tuple(pages_of(world))
    at(world, BEN, 0, pages).drop(pages[0])
    acts: list[Callable[[Desk], object]] = [
        lambda ada: ada.move(pages[4], 1),
        lambda ada: ada.pin(pages[0]),
        lambda ada: ada.drop(pages[1]),
        lambda ada: ada.unpin(pages[1]),
    ]
    for act in acts:
        with pytest.raises(EditedMeanwhile):
            act(at(world, ADA, 0, pages))
    assert pages[0] not in pages_of(world)


def test_who_writes_what_the_other_wrote_or_was_taken_back_is_not_stopped(world: World) -> None:
    world.tell_a_week()
    at(world, BEN, 0).head("subject", "The same")
    at(world, ADA, 0).head("subject", "The same")
    at(world, ADA, 0).term(None)
    at(world, BEN, 0).head("preheader", "Gone")
    at(world, BEN).undo()
    at(world, ADA, 0).head("preheader", "Ada's")
    assert drafted(world).issue.preheader == "Ada's"


def test_who_has_two_pages_open_does_not_write_over_what_they_wrote_on_the_other(world: World) -> None:
    world.tell_a_week()
    seen = at(world, ADA, 0).head("preheader", "On one page")
    with pytest.raises(EditedMeanwhile):
        at(world, ADA, 0).head("preheader", "On the other")
    at(world, ADA, seen).head("preheader", "On the same again")
    assert drafted(world).issue.preheader == "On the same again"


def test_whoever_does_not_look_writes_over_the_other_and_both_are_kept(world: World) -> None:
    world.tell_a_week()
    at(world, BEN).head("subject", "Ben's")
    at(world, ADA).head("subject", "Ada's")
    assert drafted(world).issue.subject == "Ada's"
    assert [each.about["text"] for each in deeds(world)] == ["Ben's", "Ada's"]


# When it is closed


def every_change(world: World, pages: list[str]) -> list[Callable[[], object]]:
    ada = at(world, pages=tuple(pages))
    return [
        lambda: ada.move(pages[0], 3), lambda: ada.swap(pages[0], runner_up(world)), lambda: ada.drop(pages[0]),
        lambda: ada.pin(pages[0]), lambda: ada.unpin(pages[0]), lambda: ada.use(runner_up(world)),
        lambda: ada.tell(pages[0], "title", "X"), lambda: ada.head("subject", "X"), lambda: ada.term(None), ada.undo,
        lambda: ada.add("https://new.example/page", "A title"),
    ]  # fmt: skip


def runner_up(world: World) -> str:
    return canonical_url(drafted(world).selection.runners_up[0].story.url)


def test_nothing_is_changed_once_it_is_approved_until_it_is_reopened(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit, "fetch", unreachable)
    world.tell_a_week(7)
    at(world).head("subject", "Before")
    pages = pages_of(world)
    frozen = route.approve(world.newsroom, world.slot, ADA)
    before = route.look(world.newsroom, world.slot)
    count = len(deeds(world))
    for change in every_change(world, pages):
        with pytest.raises(DecisionNeeded, match="is approved, so nothing of it can be changed: `friday reopen 2026-11-27`"):
            change()
    assert len(deeds(world)) == count
    assert route.look(world.newsroom, world.slot) == before
    assert frozen.state == "approved"
    with world.database.read() as session:
        assert inbox.told_on(session, ["new.example/page"]) == {}
    route.reopen(world.newsroom, world.slot, ADA)
    at(world).head("subject", "After")
    assert drafted(world).issue.subject == "After"


def test_nothing_is_changed_once_readers_are_enrolled(world: World) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    route.publish(world.newsroom, world.slot)
    with pytest.raises(DecisionNeeded, match="is sent, so nothing of it can be changed: its readers are enrolled"):
        at(world).head("subject", "Late")


def test_what_is_held_or_missed_can_be_changed(world: World) -> None:
    world.tell_a_week()
    gate.hold(world.newsroom, world.slot, ADA)
    at(world).head("subject", "Held")
    with world.database.write() as session:
        desk.take_stance(desk.lock(session, world.slot.name), Stance.MISSED, gate.CLOCK, world.clock())
    at(world).head("preheader", "Missed")
    assert (drafted(world).issue.subject, drafted(world).issue.preheader) == ("Held", "Missed")


# Pages that are added by their address


def unreachable(_url: str) -> Page:
    raise FetchError("cannot connect")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> dict[str, Page | str]:
    """Pages by their address; a text is why one cannot be read."""
    pages: dict[str, Page | str] = {}

    def fetch(url: str) -> Page:
        found = pages[url]
        if isinstance(found, str):
            raise FetchError(found)
        return found

    monkeypatch.setattr(edit, "fetch", fetch)
    return pages


def html(url: str, body: str | bytes) -> Page:
    return Page(200, url, body if isinstance(body, bytes) else body.encode(), {"Content-Type": "text/html"})


NEW = "https://www.new.example/page?utm_source=x&id=1"


def added(world: World, url: str = NEW, title: str = "") -> Story:
    found = at(world).add(url, title)
    with world.database.read() as session:
        return inbox.told_on(session, [found])[found]


def test_a_page_that_is_added_is_told_as_it_tells_of_itself(world: World, web: dict[str, Page | str]) -> None:
    world.tell_a_week(7)
    before = pages_of(world)
    web[NEW] = html(
        NEW,
        '<title>Other</title><meta property="og:title" content="A &amp; B &lt;i&gt;rise&lt;/i&gt;">'
        '<meta property="og:site_name" content="New Times"><meta name="description" content="What it says.">',
    )
    story = added(world)
    assert (story.url, story.title, story.source, story.summary, story.published) == (
        "https://www.new.example/page?id=1", "A & B rise", "New Times", "What it says.", world.clock(),
    )  # fmt: skip
    assert pages_of(world) == [*before[:4], "new.example/page?id=1"]


def test_a_page_without_marks_is_told_by_its_title_and_its_host(local_world: World, web: dict[str, Page | str]) -> None:
    web[NEW] = html(NEW, "<html><head><title>\n Only  this\u202e </title></head><body>Text</body>")
    story = added(local_world)
    assert (story.title, story.source, story.summary) == ("Only this", "new.example", "")


def test_a_redirected_page_is_told_under_its_last_address_and_once(world: World, web: dict[str, Page | str]) -> None:
    world.tell_a_week(7)
    known = f"https://wire.example/{FRIDAY:%Y%m%d}/6"
    world.clock.at = FRIDAY - timedelta(hours=5)
    web[NEW] = html(known, "<title>As the page says</title>")
    assert added(world).title == TITLES[6]
    with world.database.read() as session:
        assert [each.source for each in inbox.window(session, world.slot) if each.url == known] == ["Wire"]


def test_a_story_that_was_collected_is_used_without_being_read(world: World, web: dict[str, Page | str]) -> None:
    world.tell_a_week(7)
    assert web == {}
    unused = runner_up(world)
    assert at(world).add(f"http://www.{unused}/#top", "By my title") == unused
    assert titles(world)[-1] == "By my title"


def test_an_editor_s_title_stands_before_the_page_s_own(world: World, web: dict[str, Page | str]) -> None:
    web[NEW] = html(NEW, "<title>Theirs</title>")
    assert added(world, title=" My\ntitle ").title == "Theirs"
    assert titles(world)[-1] == "My title"


@pytest.mark.parametrize(
    "body",
    ["<title>Caf\u00e9</title>", '<meta charset="iso-8859-1"><title>Caf\u00e9</title>', "\ufeff<title>Caf\u00e9</title>"],
)
def test_a_page_in_utf_8_is_read_as_such_whatever_it_says(local_world: World, web: dict[str, Page | str], body: str) -> None:
    web[NEW] = html(NEW, body)
    assert added(local_world).title == "Caf\u00e9"


def test_a_page_in_another_encoding_is_read_as_it_says(local_world: World, web: dict[str, Page | str]) -> None:
    web[NEW] = html(NEW, '<meta charset="iso-8859-2"><title>\u0141\u00f3d\u017a</title>'.encode("iso-8859-2"))
    assert added(local_world).title == "\u0141\u00f3d\u017a"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"<!-- -->",
        b"%PDF-1.4 \xff\xfe\x00",
        b"{}",
        b"<?xml version='1.0'?>",
        b"<title> </title>",
        b"\xff\xfe<",
        b"GIF89a",
    ],
)
def test_what_has_no_title_asks_for_one_and_is_added_with_it(world: World, web: dict[str, Page | str], body: bytes) -> None:
    web[NEW] = html(NEW, body)
    with pytest.raises(
        UsageError, match=r"^new\.example (has a page there that does not say|could not be read: ).*give it a title"
    ):
        added(world)
    assert deeds(world) == []
    assert added(world, title="Mine").title == "Mine"


@pytest.mark.parametrize("why", ["larger than 5,242,880 bytes", "answered 404 Not Found", "took longer than the deadline"])
def test_what_cannot_be_read_says_why_and_is_added_with_a_title(world: World, web: dict[str, Page | str], why: str) -> None:
    web[NEW] = why
    with pytest.raises(UsageError, match=rf"^new\.example could not be read: {why}; give it a title"):
        added(world)
    story = added(world, title="Mine")
    assert (story.url, story.title, story.source) == ("https://www.new.example/page?id=1", "Mine", "new.example")


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://[::1]/", "http://10.0.0.1/x", "http://169.254.169.254/latest"])
def test_a_private_address_is_not_read(local_world: World, url: str) -> None:
    with pytest.raises(UsageError, match="lies in a private network"):
        added(local_world, url)


@pytest.mark.parametrize(
    "url",
    [
        "", "news", "ftp://new.example/", "javascript:alert(1)", "https://", "http://[", "https://new.example:99999/",
        "https://new.example/a b", "https://new.example/\x00", "https://new.example/\u202eexe", "https://new.example/?q=\ud800",
        "https://ada:secret@new.example/", "https://new.example/" + "x" * MOST_URL, "data:text/html,x", "//new.example/",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_page_is_refused_even_with_a_title(world: World, web: dict[str, Page | str], url: str) -> None:
    with pytest.raises(UsageError, match="that is no address of a page: write one such as"):
        added(world, url, "A title")
    assert web == {}
    assert deeds(world) == []


def test_a_title_of_hidden_characters_is_none_and_one_too_long_is_refused(
    local_world: World, web: dict[str, Page | str]
) -> None:
    web[NEW] = "answered 500"
    with pytest.raises(UsageError, match="give it a title"):
        added(local_world, title="\u202e\u200b")
    with pytest.raises(UsageError, match="the title has 201 characters"):
        added(local_world, title="x" * 201)


def test_what_a_page_says_of_itself_is_cut_to_what_fits(local_world: World, web: dict[str, Page | str]) -> None:
    long = "word " * 100_000
    web[NEW] = html(
        NEW, f'<title>{long}</title><meta property="og:site_name" content="{long}"><meta name="description" content="{long}">'
    )
    story = added(local_world)
    assert len(story.title) <= MOST["title"]
    assert len(story.source) <= 60
    assert len(story.summary) <= 280


# Nothing is lost

_CHILD = """
import os, signal, sys
from pathlib import Path
from pipeline.edit import Desk
from pipeline.newsroom import open_newsroom
newsroom = open_newsroom(Path(sys.argv[1]), {"FRIDAY_PROVIDER_KEY": "secret"})
Desk(newsroom, newsroom.schedule.named("2026-11-27"), "ada").head("subject", "Written and killed")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_an_edit_is_there_after_its_process_was_killed(world: World) -> None:
    world.tell_a_week()
    command = [sys.executable, "-c", _CHILD, str(world.folder / "config.toml")]
    assert subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode == -signal.SIGKILL
    assert drafted(world).issue.subject == "Written and killed"
    at(world, BEN).tell(pages_of(world)[0], "title", "Goes on")


class Killed(BaseException):
    """Stands for a process that dies on the spot."""


def test_an_edit_that_dies_before_it_is_written_leaves_nothing_and_locks_nobody_out(world: World) -> None:
    world.tell_a_week()

    def die() -> Any:
        raise Killed

    with pytest.raises(Killed):
        Desk(replace(world.newsroom, now=die), world.slot, ADA).head("subject", "Never")
    assert deeds(world) == []
    at(world).head("subject", "Then")


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except FridayError as error:
        return str(error)
    return ""


def at_once(*acts: Callable[[], object]) -> list[str]:
    """What became of each, begun at the same time: nothing, or why it was refused."""
    start, found = threading.Barrier(len(acts)), [""] * len(acts)

    def run(number: int, act: Callable[[], object]) -> None:
        start.wait(60)
        found[number] = outcome(act)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return found


@pytest.mark.slow
def test_an_edit_at_the_moment_of_approval_is_in_the_bytes_or_one_of_the_two_is_refused(world: World) -> None:
    world.tell_a_week()
    for number in range(8):
        subject = f"Subject {number}"
        edited, approved = at_once(
            partial(at(world).head, "subject", subject), lambda: route.approve(world.newsroom, world.slot, BEN)
        )
        shown = route.look(world.newsroom, world.slot)
        assert not (edited and approved)
        assert shown.frozen != bool(approved)
        assert (shown.rendered.subject == subject) != bool(edited)
        if shown.frozen:
            route.reopen(world.newsroom, world.slot, BEN)


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once, after the next draft was made and before anybody writes."""
    made, done = route.draft, list[bool]()

    def draft(newsroom: Newsroom, slot: Slot) -> Draft:
        found = made(newsroom, slot)
        if not done:
            done.append(True)
            thread = threading.Thread(target=act)
            thread.start()
            thread.join(60)
        return found

    monkeypatch.setattr(route, "draft", draft)


def test_an_edit_between_draft_and_approval_refuses_the_approval(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tell_a_week()
    meanwhile(monkeypatch, lambda: at(world).head("subject", "In between"))
    with pytest.raises(DecisionNeeded, match="was changed meanwhile: look at it again"):
        route.approve(world.newsroom, world.slot, BEN)
    assert not route.look(world.newsroom, world.slot).frozen
    route.approve(world.newsroom, world.slot, BEN)
    assert route.look(world.newsroom, world.slot).rendered.subject == "In between"


def test_an_edit_between_draft_and_publication_refuses_the_publication(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tell_a_week()
    world.subscribe("ada")
    meanwhile(monkeypatch, lambda: at(world).head("subject", "In between"))
    with pytest.raises(DecisionNeeded, match="was changed meanwhile"):
        gate.tend(world.newsroom)
    assert world.provider.got == []
    gate.tend(world.newsroom)
    assert world.provider.got == ["ada@example.com"]
    assert route.look(world.newsroom, world.slot).rendered.subject == "In between"


@pytest.mark.slow
def test_many_who_edit_at_once_lose_nothing(world: World) -> None:
    world.tell_a_week()
    pages = tuple(pages_of(world))
    desks = [Desk(world.newsroom, world.slot, f"editor{number}", 0, pages) for number in range(5)]
    told_so = at_once(*(partial(one.tell, its, "why", one.by) for one, its in zip(desks, pages, strict=True)))
    assert told_so == [""] * 5
    assert [line.why for line in drafted(world).issue.lines] == [one.by for one in desks]
    refused = at_once(*(partial(one.head, "subject", one.by) for one in desks))
    assert sum(not each for each in refused) == 1
    with world.database.read() as session:
        assert len(session.exec(select(EditRow)).all()) == 6


def test_whoever_approves_is_told_when_it_is_not_what_they_saw(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tell_a_week()
    seen = route.look(world.newsroom, world.slot).rendered.digest

    def another() -> None:
        at(world, BEN).head("subject", "Ben's")
        route.approve(world.newsroom, world.slot, BEN)

    meanwhile(monkeypatch, another)
    with pytest.raises(DecisionNeeded, match="was approved meanwhile"):
        route.approve(world.newsroom, world.slot, ADA, seen)
    assert [each.by for each in deeds(world) if each.kind is Kind.APPROVE] == [BEN]


def test_nobody_takes_back_what_somebody_else_has_done_since_they_looked(local_world: World) -> None:
    local_world.tell_a_week()
    ada = edit.Desk(local_world.newsroom, local_world.slot, "ada@example.com")
    seen = ada.head("subject", "Ada's")
    ben = replace(ada, by="ben@example.com")
    ben.head("subject", "Ben's")
    with pytest.raises(edit.EditedMeanwhile, match="ben"):
        replace(ada, seen=seen).undo()
    assert ben.undo().about["text"] == "Ben's"
    assert replace(ada, seen=seen).undo().about["text"] == "Ada's"


def test_what_was_swapped_out_stays_out_and_comes_back_under_its_own_name(local_world: World) -> None:
    local_world.tell_a_week(7)
    pages, others = pages_of(local_world), [canonical_url(each.story.url) for each in drafted(local_world).selection.runners_up]
    at(local_world, ADA).swap(pages[1], others[0])
    at(local_world, ADA).drop(pages[4])
    now = pages_of(local_world)
    assert pages[1] not in now
    assert [canonical_url(each.story.url) for each in drafted(local_world).selection.runners_up].count(pages[1]) == 1
    at(local_world, ADA).swap(others[0], pages[1])
    assert pages_of(local_world)[1] == pages[1]


def test_a_page_that_was_added_at_one_desk_comes_into_no_other_week(
    local_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_world.tell_a_week(3)
    page = b"<html><head><title>Added for next week</title></head></html>"
    monkeypatch.setattr(edit, "fetch", lambda url: Page(200, url, page))
    next_week = local_world.newsroom.schedule.next(local_world.slot.at)
    added = edit.Desk(local_world.newsroom, next_week, ADA).add("https://blog.example/added")
    assert added in edit.line_up(route.draft(local_world.newsroom, next_week))
    told = drafted(local_world).selection
    assert added not in [canonical_url(each.story.url) for each in (*told.stories, *told.runners_up)]
