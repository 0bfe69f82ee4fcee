"""The desk of a slot: what may be changed there, what is refused, and how two editors are told of each other."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import desk, edit, gate, inbox
from pipeline import publish as route
from pipeline.books import Stance
from pipeline.desk import Kind
from pipeline.edit import MOST, Desk, EditedMeanwhile
from pipeline.errors import DecisionNeeded, UsageError
from pipeline.fetch import FetchError, Page
from pipeline.issue import Story
from pipeline.text import canonical_url
from tests.conftest import FRIDAY, World
from tests.desks import ADA, BEN, TITLES, at, deeds, drafted, pages_of, revision, runner_up, titles


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


def test_words_of_another_telling_are_given_back_with_those_of_the_linked_one(local_world: World) -> None:
    local_world.tell_a_week()
    first = drafted(local_world).selection.stories[0].story
    other = replace(first, url="https://ledger.example/the-same", source="Ledger")
    local_world.tell("Ledger", other)
    tellings = drafted(local_world).selection.stories[0]
    assert len(tellings.also) == 1
    at(local_world).tell(canonical_url(tellings.also[0].url), "title", "Written for the other")
    assert titles(local_world)[0] == "Written for the other"
    at(local_world).tell(canonical_url(tellings.story.url), "title", None)
    assert titles(local_world)[0] == TITLES[0]


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


@settings(deadline=None, database=None, derandomize=True, max_examples=300)
@given(st.text(max_size=80) | st.text("\x00\u202e\u2069\r\n\t a-#*[](<&", max_size=40))
def test_any_text_is_cleaned_to_the_same_when_it_is_cleaned_again(written: str) -> None:
    for field in MOST:
        once = edit.clean(field, written)
        assert once is not None
        assert edit.clean(field, once) == once
        assert not set("\x00\u202e\u2069\r") & set(once)
        assert field == "note" or "\n" not in once


# Two editors


def test_two_who_write_the_same_field_are_told_of_each_other(world: World) -> None:
    world.tell_a_week()
    first = pages_of(world)[0]
    at(world, BEN).head("subject", "Earlier")
    seen = revision(world)
    at(world, BEN, seen).tell(first, "title", "Ben's title")
    with pytest.raises(EditedMeanwhile, match=f"{BEN} has changed the title meanwhile, at 08:01 UTC") as caught:
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


def unreachable(_url: str) -> Page:
    raise FetchError("cannot connect")


def every_change(world: World, pages: list[str]) -> list[Callable[[], object]]:
    ada = at(world, pages=tuple(pages))
    return [
        lambda: ada.move(pages[0], 3), lambda: ada.swap(pages[0], runner_up(world)), lambda: ada.drop(pages[0]),
        lambda: ada.pin(pages[0]), lambda: ada.unpin(pages[0]), lambda: ada.use(runner_up(world)),
        lambda: ada.tell(pages[0], "title", "X"), lambda: ada.head("subject", "X"), lambda: ada.term(None), ada.undo,
        lambda: ada.add("https://new.example/page", "A title"),
    ]  # fmt: skip


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
