"""From a selection to an issue: number, subject, preheader, order and lines."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from pipeline.compose import PREHEADER, SUBJECT, SUMMARY, TITLE, WHY, compose
from pipeline.issue import Chosen, Featured, Issue, Masthead, RelatedTerm, Selection, Slot, Story, Term
from tests.conftest import MASTHEAD

SLOT = Slot(date(2026, 11, 27), datetime(2026, 11, 27, 8, tzinfo=UTC))
TOKEN = Term("token", "Token", "Data", "A piece of a word.", "It is what you pay for.", "Count them.", ("prompt",))
PROMPT = Term("prompt", "Prompt", "Use", "What you ask.", "It decides.", "Write it down.")
GLOSSARY = {"token": TOKEN, "prompt": PROMPT}


def story(title: str, source: str = "Wire", summary: str = "", why: str = "", minutes: int | None = None) -> Story:
    return Story(f"https://{source.lower()}.example/{len(title)}", title, source, SLOT.at, summary, why, minutes)


def chosen(first: Story, *also: Story) -> Chosen:
    return Chosen(first, 3.0, (), also)


def issue(
    *stories: Chosen, term: Term | None = TOKEN, told: int = 40, sources: int = 7, masthead: Masthead = MASTHEAD
) -> Issue:
    featured = Featured(term, 2.0, ()) if term else None
    return compose(12, SLOT, Selection(stories, (), featured, told, sources), GLOSSARY, masthead)


def three() -> list[Chosen]:
    return [chosen(story(title)) for title in ("A fab opens", "A tutor refuses", "A court rules")]


def test_an_issue_has_its_number_its_slot_and_its_address() -> None:
    made = issue(*three())
    assert (made.number, made.slot, made.masthead) == (12, SLOT, MASTHEAD)
    assert made.view_url == "https://news.example.com/issues/2026-11-27"


def test_the_lines_keep_the_order_of_the_selection() -> None:
    assert [line.title for line in issue(*three()).lines] == ["A fab opens", "A tutor refuses", "A court rules"]


def test_the_subject_is_the_title_of_the_best_story() -> None:
    assert issue(*three()).subject == "A fab opens"


def test_a_long_title_is_a_short_subject_and_a_whole_line() -> None:
    title = "A court in Estravald rules after two years of hearings that lyrics may not train a chatbot without consent"
    made = issue(chosen(story(title)))
    assert SUBJECT < len(title) < TITLE
    assert len(made.subject) <= SUBJECT
    assert made.subject.endswith("…")
    assert title.startswith(made.subject.removesuffix("…"))
    assert made.lines[0].title == title


def test_texts_are_cut_to_what_an_issue_prints() -> None:
    (line,) = issue(chosen(story("title " * 60, summary="summary " * 90, why="why " * 90))).lines
    assert TITLE - 10 < len(line.title) <= TITLE
    assert SUMMARY - 10 < len(line.summary) <= SUMMARY
    assert WHY - 10 < len(line.why) <= WHY


def test_a_line_says_where_it_leads_how_long_it_takes_and_who_told_it_too() -> None:
    first = story("A fab opens", "Post", minutes=4)
    (line,) = issue(chosen(first, story("Fab", "Ledger"), story("The fab", "Post"), story("A fab", "Ledger"))).lines
    assert (line.url, line.source, line.minutes) == (first.url, "Post", 4)
    assert line.also == ("Ledger",)


def test_the_linked_telling_s_own_words_are_preferred() -> None:
    first = story("A fab opens", summary="Cold air cools it.", why="Bills fall.")
    (line,) = issue(chosen(first, story("Fab", "Post", "A much longer text about the fab in the mountains.", "No."))).lines
    assert (line.summary, line.why) == ("Cold air cools it.", "Bills fall.")


@pytest.mark.parametrize("repeats", ["", "A fab opens.", "a FAB — opens!"])
def test_a_summary_that_only_repeats_the_title_gives_way_to_the_fullest_other(repeats: str) -> None:
    others = [story("Fab", "Post", "Cold air."), story("Fab", "Ledger", "Cold air halves the bill."), story("Fab", "Echo")]
    (line,) = issue(chosen(story("A fab opens", summary=repeats), *others)).lines
    assert line.summary == "Cold air halves the bill."


def test_where_nobody_says_more_than_the_title_there_is_no_summary() -> None:
    (line,) = issue(chosen(story("A fab opens", summary="A fab opens"), story("A fab", "Post", "Opens: a fab"))).lines
    assert line.summary == ""


def test_why_it_matters_is_taken_from_another_telling_where_the_linked_has_none() -> None:
    (line,) = issue(chosen(story("A fab opens"), story("Fab", "Post"), story("Fab", "Ledger", why="Bills fall."))).lines
    assert line.why == "Bills fall."


def test_the_preheader_names_the_second_story_and_the_term() -> None:
    assert issue(*three()).preheader == "Also: A tutor refuses · The term: Token"


def test_the_preheader_of_few_stories_names_what_there_is() -> None:
    assert issue(*three()[:1]).preheader == "The term: Token"
    assert issue(*three()[:2], term=None).preheader == "Also: A tutor refuses"
    assert issue(*three()[:1], term=None).preheader == ""


def test_a_long_second_title_leaves_room_for_the_term_in_the_inbox_line() -> None:
    long = [
        chosen(story(f"Story number {number} has a title that goes on and on and on for {'ever ' * 20}")) for number in (1, 2)
    ]
    preheader = issue(*long).preheader
    assert preheader.startswith("Also: Story number 2 has")
    assert preheader.endswith("… · The term: Token")
    assert 60 < len(preheader) <= PREHEADER


def test_an_issue_without_stories_bears_the_newsletter_s_name() -> None:
    made = issue(told=0, sources=0)
    assert made.subject == "The Test Five"
    assert made.lines == ()


@pytest.mark.parametrize(
    ("number", "told", "sources", "note"),
    [
        (3, 40, 7, "40 stories came in from seven sources this week. These three are the ones to know"),
        (2, 2, 1, "Two stories came in from one source this week. These two are the ones to know"),
        (1, 1, 1, "One story came in from one source this week. This is the one to know"),
        (3, 12, 13, "Twelve stories came in from 13 sources this week. These three are the ones to know"),
        (3, 1234, 40, "1,234 stories came in from 40 sources this week. These three are the ones to know"),
    ],
)
def test_the_note_counts_the_week_in_words_up_to_twelve(number: int, told: int, sources: int, note: str) -> None:
    assert issue(*three()[:number], told=told, sources=sources, term=None).note == f"{note}."
    assert issue(*three()[:number], told=told, sources=sources).note == f"{note}, and Token is the term to know them by."


def test_the_note_of_a_week_without_stories_counts_none_to_know() -> None:
    assert "these no" not in issue(told=0, sources=0).note.lower()


def test_the_box_has_the_term_s_parts_and_its_neighbours_with_their_addresses() -> None:
    public = replace(MASTHEAD, glossary_url="https://terms.example/{slug}.html")
    box = issue(*three(), masthead=public).term
    assert box is not None
    assert (box.name, box.topic, box.url) == ("Token", "Data", "https://terms.example/token.html")
    assert (box.definition, box.why, box.practice) == (TOKEN.definition, TOKEN.why, TOKEN.practice)
    assert box.related == (RelatedTerm("Prompt", "What you ask.", "https://terms.example/prompt.html"),)


def test_without_a_public_glossary_no_term_has_an_address() -> None:
    box = issue(*three()).term
    assert box is not None
    assert box.url == ""
    assert [other.url for other in box.related] == [""]


def test_an_issue_without_a_term_has_no_box() -> None:
    assert issue(*three(), term=None).term is None
