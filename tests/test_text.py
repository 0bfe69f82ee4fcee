"""Addresses, plain text, shortening and tokens: what several thinkers share about text."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.text import canonical_url, clean_url, one_line, plain, shorten, tokens, versions, wire_address, words

facts = settings(deadline=None, database=None, derandomize=True, max_examples=150)

TRACKED = ["utm_source=x", "UTM_Campaign=y", "mc_cid=1", "mc_eid=2", "fbclid=3", "gclid=4", "msclkid=5", "_hsenc=6", "igshid"]
MARKUP = [
    "<p>",
    "</p>",
    "<br/>",
    "<html>",
    "</html>",
    "<head>",
    "</head>",
    "<body>",
    "</body>",
    "<!DOCTYPE html>",
    "<!--",
    "-->",
]
MARKUP += [
    "<script>",
    "</script>",
    "<style>",
    "</style>",
    "<template>",
    "<frameset>",
    "<table>",
    "<tr>",
    "<svg>",
    "<a href='x'>",
]
MARKUP += [
    "&amp;",
    "&#0;",
    "&#x110000;",
    "&lt;",
    "<?xml version='1.0' encoding='utf-8'?>",
    "<![CDATA[",
    "]]>",
    "\x00",
    "\x0b",
    "\ud83d",
]

any_text = st.text(st.characters())
markup = st.lists(st.sampled_from(MARKUP) | st.text(max_size=5), max_size=8).map("".join)
names = st.text("abcdefgh", min_size=1, max_size=6)
pairs = st.builds("{}={}".format, names, st.text("abc%20+/:?.", max_size=6))


@pytest.mark.parametrize(
    "other",
    [
        "http://wire.example/a/b?x=1&y=2",
        "https://www.wire.example/a/b?x=1&y=2",
        "https://m.wire.example/a/b?x=1&y=2",
        "https://WIRE.example/a/b?x=1&y=2",
        "https://wire.example:443/a/b?x=1&y=2",
        "http://wire.example:80/a/b?x=1&y=2",
        "https://wire.example/a/b/?x=1&y=2",
        "https://wire.example/a/b/index.html?x=1&y=2",
        "https://wire.example/a/b/amp/?x=1&y=2",
        "https://wire.example/a/b?y=2&x=1",
        "https://wire.example/a/b?x=1&y=2#comments",
        "https://wire.example/a/b?utm_source=rss&x=1&ref=home&y=2&fbclid=z",
        "  https://wire.example/a/b?x=1&y=2\n",
    ],
)
def test_addresses_of_one_page_compare_equal(other: str) -> None:
    assert canonical_url(other) == canonical_url("https://wire.example/a/b?x=1&y=2")


@pytest.mark.parametrize(
    "other",
    [
        "https://wire.example/a/c?x=1",
        "https://wire.example/A/b?x=1",
        "https://wire.example/a/b?x=2",
        "https://wire.example/a/b",
        "https://wire.example/a/b?x=",
        "https://other.example/a/b?x=1",
        "https://wire.example:8443/a/b?x=1",
        "https://blog.wire.example/a/b?x=1",
    ],
)
def test_addresses_of_different_pages_compare_different(other: str) -> None:
    assert canonical_url(other) != canonical_url("https://wire.example/a/b?x=1")


@pytest.mark.parametrize("broken", ["https://wire.example:99999/a", "https://wire.example:port/a", "https://[wire/a"])
def test_no_address_is_too_broken_to_be_compared(broken: str) -> None:
    assert canonical_url(broken) == canonical_url(f"{broken}#comments")


@facts
@given(
    st.lists(st.tuples(st.just("kept"), pairs) | st.tuples(st.just("tracking"), st.sampled_from(TRACKED)), max_size=5),
    st.sampled_from(["", "#top", "#a=b&c"]),
)
def test_cleaning_takes_out_tracking_and_keeps_the_rest_letter_for_letter(query: list[tuple[str, str]], fragment: str) -> None:
    def page(*pairs: str) -> str:
        return "https://wire.example/A%20b/" + ("?" + "&".join(pairs) if pairs else "") + fragment

    cleaned = clean_url(page(*(pair for _, pair in query)))
    assert cleaned == page(*(pair for kind, pair in query if kind == "kept"))


@pytest.mark.parametrize(
    "url",
    [
        "https://wire.example/a?ref=home&source=rss&share=1",
        "https://wire.example/watch?v=utm_source",
        "https://wire.example/a?my_utm_source=1",
        "https://wire.example/a?gclids=1",
        "https://wire.example/a?b=1&&c",
        "https://wire.example/utm_source=1",
    ],
)
def test_what_only_looks_like_tracking_stays(url: str) -> None:
    assert clean_url(url) == url


@pytest.mark.parametrize("url", ["https://wiki.example/Iron#Is_it_red?", "https://wire.example/#/a?b=1&utm_source=x"])
def test_a_question_mark_in_a_fragment_begins_no_query(url: str) -> None:
    assert clean_url(url) == url


@facts
@given(st.lists(pairs, max_size=4), st.sampled_from(TRACKED))
def test_a_cleaned_address_is_the_same_page(kept: list[str], tracked: str) -> None:
    url = "https://wire.example/a?" + "&".join([tracked, *kept])
    assert canonical_url(clean_url(url)) == canonical_url(url)


def test_a_mail_address_goes_out_with_its_domain_in_ascii_and_its_name_as_it_is() -> None:
    assert wire_address("Jürgen@bücher.example") == "Jürgen@xn--bcher-kva.example"
    assert wire_address("ada@news.example") == "ada@news.example"


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>One</p><p>two<br>three</p>", "One two three"),
        ("<p>One</p>two", "One two"),
        ("a<b>b</b>c", "abc"),
        ("<ul><li>x</li><li>y</li></ul>", "x y"),
        ("Q&amp;A &lt;live&gt; &eacute;", "Q&A <live> é"),
        ("before<script>alert(1)</script><style>p{}</style><!-- note --> after", "before after"),
        ("<noscript>a</noscript><template>b</template>c", "c"),
        ("1 < 2", "1 < 2"),
        ("plain\n  text", "plain text"),
        ("", ""),
        ("<?xml version='1.0' encoding='utf-8'?><p>x</p>", "x"),
    ],
)
def test_plain_text_is_what_a_reader_would_see(markup: str, text: str) -> None:
    assert plain(markup) == text


def test_a_control_character_does_not_let_scripts_and_entities_through() -> None:
    assert plain("one\x0b <script>alert(1)</script>&amp; two") == "one & two"


@pytest.mark.parametrize("page", ["<!DOCTYPE html><html><head></head></html>", "<html></html><html>"])
def test_an_empty_page_has_no_text(page: str) -> None:
    assert plain(page) == ""


@facts
@given(any_text | markup)
def test_any_text_at_all_has_a_plain_form_on_one_line(text: str) -> None:
    found = plain(text)
    assert found == " ".join(found.split())


@facts
@given(any_text)
@example("a\r\nBcc: b\x85c\u2028d\u2029e\x00f\x1cg")
def test_one_line_holds_no_control_or_line_characters_and_no_double_spaces(text: str) -> None:
    found = one_line(text)
    assert not {unicodedata.category(char) for char in found} & {"Cc", "Zl", "Zp"}
    assert len(found.splitlines()) <= 1
    assert found == " ".join(found.split(" ")).strip()
    assert "  " not in found


def test_one_line_keeps_words_apart_where_a_line_breaks() -> None:
    assert one_line("Subject\r\nBcc: all") == "Subject Bcc: all"


def test_one_line_takes_out_what_turns_the_direction_or_hides() -> None:
    assert one_line("\ufeffuser\u202egpj.exe\u2066 zero\u200bwidth") == "usergpj.exe zerowidth"


def test_one_line_joins_a_letter_and_its_accent() -> None:
    assert one_line("Cafe\u0301") == "Café"


@facts
@given(any_text)
@example("e\u200b\u0301")
def test_one_line_is_in_nfc_and_twice_is_as_once(text: str) -> None:
    found = one_line(text)
    assert unicodedata.is_normalized("NFC", found)
    assert one_line(found) == found


@facts
@given(st.text(st.characters(categories=["Cs", "Ll"])))
@example("cut off \ud83d")
def test_one_line_can_always_be_stored_and_mailed(text: str) -> None:
    one_line(text).encode()


@facts
@given(st.text("ab .!,é。", max_size=60) | st.text(max_size=60), st.integers(1, 60))
def test_a_shortened_text_never_exceeds_the_limit_and_is_a_beginning(text: str, limit: int) -> None:
    found = shorten(text, limit)
    assert len(found) <= limit
    assert found == text or text.startswith(found.removesuffix("…"))
    if len(text) <= limit:
        assert found == text


@pytest.mark.parametrize(
    ("limit", "short"),
    [
        (43, "It rained. The fair went on all the same!"),
        (42, "It rained. The fair went on all the same!"),
        (41, "It rained. The fair went on all the same!"),
        (40, "It rained. The fair went on all…"),
        (20, "It rained."),
        (12, "It rained."),
    ],
)
def test_whole_sentences_are_kept_where_they_fill_half_and_else_whole_words(limit: int, short: str) -> None:
    assert shorten("It rained. The fair went on all the same! So did the band.", limit) == short


def test_a_version_is_no_end_of_a_sentence() -> None:
    assert shorten("Merrowind ships Quillfern 3.1 today, and nobody was told", 32) == "Merrowind ships Quillfern 3.1…"


def test_no_comma_or_bracket_stands_before_the_ellipsis() -> None:
    assert shorten("Nobody came, nobody went", 14) == "Nobody came…"
    assert shorten("Nobody came (though asked)", 15) == "Nobody came…"


def test_no_article_preposition_or_and_stands_before_the_ellipsis() -> None:
    assert shorten("Judges sided with three songwriters and a composer", 42) == "Judges sided with three songwriters…"


def test_a_word_longer_than_the_limit_is_cut() -> None:
    assert shorten("x" * 30, 10) == "x" * 9 + "…"


def test_words_are_in_lower_case_and_compatibility_forms_are_plain() -> None:
    assert words("The ＡＩ Act, ﬁnally: 5.2%") == ("the", "ai", "act", "finally", "5.2")


def test_tokens_are_stems_without_common_words() -> None:
    assert tokens("The judges were ruling on models") == tokens("A judge rules: model")
    assert "the" not in tokens("The judges")


@pytest.mark.parametrize("spelling", ["GPT 5.2", "GPT-5.2", "GPT5.2", "The new GPT 5.2"])
def test_a_name_and_its_version_are_one_token_however_they_are_joined(spelling: str) -> None:
    assert tokens(spelling) == ("gpt5.2",)


def test_a_version_tells_a_model_from_its_predecessor() -> None:
    assert not set(tokens("Quillfern 3.1")) & set(tokens("Quillfern 3"))


def test_a_possessive_is_its_owner() -> None:
    assert tokens("Merrowind's chatbot") == tokens("Merrowind’s chatbot") == tokens("Merrowind chatbot")


def test_versions_are_spelled_as_the_text_spells_them() -> None:
    assert versions("Llama 3.1 beats GPT-5.2 and Quillfern 4b, says Merrowind") == ("Llama 3.1", "GPT-5.2", "Quillfern 4b")


@pytest.mark.parametrize(
    "title",
    [
        "The AI Index 2026 is out",
        "Merrowind Raises 500 million",
        "Sales Up 40% in a year",
        "The 5 stories that matter",
        "In 30 days",
        "Nothing here",
        "Aug 18 and March 3 are days",
    ],
)
def test_years_sums_shares_and_counts_are_no_versions(title: str) -> None:
    assert versions(title) == ()


@pytest.mark.parametrize("title", ["Merrowind Raises 1.5 billion", "Sales Grow 3.5% in a year", "Merrowind Raises 500m"])
def test_a_sum_or_share_is_no_version_however_it_is_written(title: str) -> None:
    assert versions(title) == ()
