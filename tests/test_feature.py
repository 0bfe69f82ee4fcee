"""The term of the week: it fits the stories, has waited longest, and says why."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pytest

from pipeline.feature import MOST_FIT, REST_WEEKS, feature, rank_terms
from pipeline.issue import Chosen, Featured, Reason, Selection, Story, Term

TODAY = date(2026, 11, 27)


def term(name: str, *aliases: str) -> Term:
    return Term(name.lower().replace(" ", "-"), name, "A topic", "What it is.", "Why.", "How.", aliases=aliases)


def glossary(*terms: Term) -> dict[str, Term]:
    return {each.slug: each for each in terms}


def chosen(title: str, summary: str = "") -> Chosen:
    story = Story("https://wire.example/a", title, "Wire", datetime(2026, 11, 26, tzinfo=UTC), summary)
    return Chosen(story, 3.0, (Reason(3.0, "told by Wire"),))


def weeks_ago(weeks: int) -> date:
    return TODAY - timedelta(weeks=weeks)


def rank(terms: Mapping[str, Term], *stories: Chosen, **featured: date) -> list[Featured]:
    return rank_terms(stories, terms, featured, TODAY)


def fitting(text: str, *terms: Term) -> set[str]:
    """The slugs of the terms that a title mentions."""
    return {each.term.slug for each in rank(glossary(*terms), chosen(text)) if len(each.reasons) > 1}


def test_a_term_in_a_title_wins_over_one_in_a_summary_and_that_over_none() -> None:
    terms = glossary(term("Attention"), term("Benchmark"), term("Compute"))
    ranked = rank(terms, chosen("A compute shortage"), chosen("A new fab", "It does well on a benchmark."))
    assert [each.term.slug for each in ranked] == ["compute", "benchmark", "attention"]
    assert [each.score for each in ranked] == [4.0, 3.0, 2.0]


def test_the_best_term_joins_the_selection_and_nothing_else_changes() -> None:
    selection = Selection((chosen("A compute shortage"),), (), None, 7, 3)
    found = feature(selection, glossary(term("Attention"), term("Compute")), {}, TODAY)
    assert found.term is not None
    assert found.term.term.slug == "compute"
    assert (found.stories, found.runners_up, found.told, found.sources) == (selection.stories, (), 7, 3)


def test_runners_up_have_no_say() -> None:
    selection = Selection((chosen("A new fab"),), (chosen("A compute shortage"),), None, 2, 1)
    found = feature(selection, glossary(term("Attention"), term("Compute")), {}, TODAY)
    assert found.term is not None
    assert found.term.term.slug == "attention"


def test_an_empty_glossary_gives_no_term() -> None:
    selection = Selection((chosen("A new fab"),), (), None, 1, 1)
    assert feature(selection, {}, {}, TODAY).term is None


def test_a_week_without_stories_still_has_a_term() -> None:
    found = feature(Selection((), (), None, 0, 0), glossary(term("Token"), term("Prompt")), {"prompt": weeks_ago(30)}, TODAY)
    assert found.term is not None
    assert found.term.term.slug == "token"


def test_the_reasons_say_where_the_term_stands_and_how_long_it_has_waited() -> None:
    stories = (chosen("A new fab", "Compute is short."), chosen("Compute shortage ends"))
    (found,) = rank(glossary(term("Compute")), *stories, compute=weeks_ago(13))
    assert found.reasons == (
        Reason(3.0, "in 2 of the stories, first in “Compute shortage ends”"),
        Reason(0.5, "featured 13 weeks ago"),
    )
    assert found.score == 3.5


def test_the_points_of_the_reasons_sum_to_the_score() -> None:
    terms = glossary(term("Compute"), term("Token"), term("Prompt"), term("Attention"))
    ranked = rank(
        terms, chosen("A prompt of a million tokens"), compute=weeks_ago(17), token=weeks_ago(3), prompt=weeks_ago(400)
    )
    for each in ranked:
        assert each.score == round(sum(reason.points for reason in each.reasons), 2)


def test_a_story_counts_once_for_a_term_however_often_it_names_it() -> None:
    (found,) = rank(glossary(term("Token", "tokens")), chosen("Token, token, tokens", "Tokens and a token."))
    assert found.reasons[0] == Reason(2.0, "in 1 of the stories, first in “Token, token, tokens”")


def test_a_term_that_is_in_everything_does_not_outweigh_all_waiting() -> None:
    stories = [chosen(f"Compute, part {number}") for number in range(5)]
    (found,) = rank(glossary(term("Compute")), *stories)
    assert found.reasons[0].points == MOST_FIT


def test_the_longer_name_wins_where_one_is_part_of_the_other() -> None:
    data, training, pre = term("Pre-training data"), term("Training"), term("Pre-training")
    assert fitting("Lawsuit over pre-training data", data, training, pre) == {"pre-training-data"}
    assert fitting("Pre-training takes months", data, training, pre) == {"pre-training"}
    assert fitting("Training takes months", data, training, pre) == {"training"}


@pytest.mark.parametrize(
    "title",
    ["Token prices fall", "TOKEN prices", "Tokens are cheap", "The token’s price", "a token's price", "“Token”: a word"],
)
def test_case_plural_and_possessive_make_no_difference(title: str) -> None:
    assert fitting(title, term("Token")) == {"token"}


@pytest.mark.parametrize("title", ["A tokenizer for Estravald", "Betokens luck", "token-based prices", "anti-token law"])
def test_a_name_inside_another_word_is_no_mention(title: str) -> None:
    assert fitting(title, term("Token")) == set()


def test_a_plural_in_es_is_a_mention() -> None:
    assert fitting("Vector indexes grow", term("Index")) == {"index"}


def test_an_alias_is_a_mention() -> None:
    assert fitting("Foundation models for all", term("Large language model", "foundation model")) == {"large-language-model"}


def test_an_acronym_keeps_its_case() -> None:
    acronym = term("Retrieval-augmented generation", "RAG")
    assert fitting("RAGs for riches: RAG in practice", acronym) == {acronym.slug}
    assert fitting("A rag doll that talks", acronym) == set()


def test_a_name_is_taken_letter_for_letter() -> None:
    assert fitting("Using Cxx today", term("C++")) == set()
    assert fitting("Using C++ today", term("C++")) == {"c++"}


@pytest.mark.parametrize("title", ["TRAİNİNG MERKEZİ", "traınıng", "Tokens and tranſformers", "A toKen"])
def test_letters_that_only_fold_to_those_of_a_name_stop_nothing(title: str) -> None:
    terms = glossary(term("Training"), term("Transformer"), term("Token"))
    assert len(rank(terms, chosen(title))) == len(terms)


def test_a_term_that_rests_comes_last_though_it_fits() -> None:
    stories = [chosen(f"Compute, part {number}") for number in range(3)]
    ranked = rank(glossary(term("Compute"), term("Token")), *stories, compute=weeks_ago(REST_WEEKS - 1))
    assert [each.term.slug for each in ranked] == ["token", "compute"]
    assert ranked[1].score > ranked[0].score
    assert ranked[1].reasons[1] == Reason(0.0, "featured 7 weeks ago, rests for 8")


def test_a_term_has_rested_after_its_weeks() -> None:
    ranked = rank(glossary(term("Compute"), term("Token")), chosen("Compute"), compute=weeks_ago(REST_WEEKS))
    assert [each.term.slug for each in ranked] == ["compute", "token"]


def test_where_every_term_rests_one_is_featured_all_the_same() -> None:
    ranked = rank(glossary(term("Compute"), term("Token")), compute=weeks_ago(1), token=weeks_ago(2))
    assert ranked[0].term.slug == "token"


def test_of_terms_that_fit_alike_the_one_that_waited_longest_wins() -> None:
    terms = glossary(term("Attention"), term("Compute"), term("Token"))
    ranked = rank(terms, attention=weeks_ago(60), compute=weeks_ago(80), token=weeks_ago(70))
    assert [each.term.slug for each in ranked] == ["compute", "token", "attention"]
    assert {each.score for each in ranked} == {2.0}


def test_a_term_never_featured_has_waited_longest() -> None:
    ranked = rank(glossary(term("Attention"), term("Token")), attention=weeks_ago(500))
    assert [each.term.slug for each in ranked] == ["token", "attention"]
    assert ranked[0].reasons == (Reason(2.0, "never featured"),)


def test_terms_that_tie_in_everything_come_in_alphabetical_order() -> None:
    backwards = glossary(term("Token"), term("Compute"), term("Attention"))
    assert [each.term.slug for each in rank(backwards)] == ["attention", "compute", "token"]
