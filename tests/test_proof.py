"""What an editor sees before an issue leaves: each fault is found once, and a clean issue has none."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache

import pytest

from pipeline.issue import Finding, Issue, Level, Line, RenderedIssue, Slot, TermBox
from pipeline.proof import CLIPPED, HEAVY, STYLE, SUBJECT, proof
from pipeline.render import render
from tests.conftest import MASTHEAD, ROOT

LINES = tuple(
    Line(title, f"https://wire.example/{number}", "Wire", (), 4, "Cold air halves the bill.", "Bills fall.")
    for number, title in enumerate(("A fab opens in the mountains", "A tutor refuses to answer", "A court rules"))
)
ISSUE = Issue(
    number=12,
    slot=Slot(date(2026, 11, 27), datetime(2026, 11, 27, 8, tzinfo=UTC)),
    masthead=MASTHEAD,
    subject="A fab opens in the mountains",
    preheader="Also: A tutor refuses to answer · The term: Token",
    note="Forty stories came in from seven sources this week.",
    lines=LINES,
    term=TermBox("Token", "Data", "https://terms.example/token", "A piece of a word.", "You pay for it.", "Count them.", ()),
    view_url="https://news.example.com/issues/2026-11-27",
)

Fault = Callable[[RenderedIssue], RenderedIssue]


@cache
def clean() -> RenderedIssue:
    return render(ISSUE, ROOT / "templates" / "issue" / "weekly")


def found(fault: Fault = lambda made: made, issue: Issue = ISSUE, wanted: int = 3, fewest: int = 1) -> list[Finding]:
    return list(proof(issue, fault(clean()), wanted, fewest))


def told(findings: list[Finding]) -> list[tuple[Level, str, str]]:
    return [(finding.level, finding.check, finding.what) for finding in findings]


def put(html: str = "", text: str = "") -> Fault:
    """Something more at the end of the HTML part and of the text part."""
    return lambda made: replace(made, html=made.html.replace("</body>", f"{html}</body>"), text=f"{made.text}{text}")


def swap(old: str, new: str) -> Fault:
    """Something else in the HTML part."""

    def fault(made: RenderedIssue) -> RenderedIssue:
        assert re.search(old, made.html)
        return replace(made, html=re.sub(old, new, made.html))

    return fault


def envelope(**values: str) -> Fault:
    def fault(made: RenderedIssue) -> RenderedIssue:
        return replace(made, **values)  # type: ignore[arg-type]

    return fault


def swap_text(old: str, new: str) -> Fault:
    def fault(made: RenderedIssue) -> RenderedIssue:
        assert old in made.text
        return replace(made, text=made.text.replace(old, new))

    return fault


def without_unsubscribe_in_text(made: RenderedIssue) -> RenderedIssue:
    return swap_text(made.stand_ins["unsubscribe_url"], "")(made)


def grown_to(size: int) -> Fault:
    """So many bytes of HTML."""
    return lambda made: put("x" * (size - len(made.html.encode())))(made)


def styled_to(size: int) -> Fault:
    """So many bytes of styles, in two blocks."""
    blocks = f"<style>{'x' * (size - 9)}</style><style>xxxxxxxxx</style></head>"
    return lambda made: replace(
        made, html=re.sub(r"<style>.*?</style>", "", made.html, flags=re.DOTALL).replace("</head>", blocks)
    )


def test_a_clean_issue_has_no_findings() -> None:
    assert found() == []


def test_a_week_at_the_fewest_is_thin_and_below_it_an_error() -> None:
    assert found(wanted=3, fewest=3) == []
    assert told(found(wanted=5, fewest=3)) == [(Level.WARNING, "stories", "a thin week: 3 of 5 stories")]
    assert told(found(wanted=5, fewest=4)) == [(Level.ERROR, "stories", "only 3 of 5 stories, and 4 is the fewest to send")]


def test_an_issue_without_a_term_is_an_error() -> None:
    assert told(found(issue=replace(ISSUE, term=None))) == [(Level.ERROR, "term", "there is no term to feature")]


def test_a_masthead_without_a_postal_address_is_an_error_in_both_parts() -> None:
    assert told(found(issue=replace(ISSUE, masthead=replace(MASTHEAD, postal_address=" ")))) == [
        (Level.ERROR, "postal address", "the HTML part has no postal address"),
        (Level.ERROR, "postal address", "the text part has no postal address"),
    ]


def test_a_postal_address_that_is_wrapped_or_marked_up_is_found() -> None:
    assert found(swap("1 Test Street, 10115", "1 Test <b>Street</b>,<br>\n  10115")) == []
    assert found(swap_text("1 Test Street, 10115", "1 Test\nStreet, 10115")) == []


CONTROL = "contains a line break or control character"
CLIPS = "near the 95,000 where Gmail clips"
ERRORS: list[tuple[str, Fault, str, str]] = [
    ("no way to leave", swap(r"<a[^>]*>Unsubscribe</a>", ""), "unsubscribe", "the HTML part has no unsubscribe link"),
    ("only remarked", swap(r"(<a[^>]*>Unsubscribe</a>)", r"<!--\1-->"), "unsubscribe", "the HTML part has no unsubscribe link"),
    ("none in text", without_unsubscribe_in_text, "unsubscribe", "the text part has no unsubscribe link"),
    ("no street", swap("1 Test Street", ""), "postal address", "the HTML part has no postal address"),
    ("a hidden street", swap("1 Test Street", "<!--1 Test Street-->"), "postal address", "the HTML part has no postal address"),
    ("no street in text", swap_text("1 Test Street", ""), "postal address", "the text part has no postal address"),
    ("too heavy", grown_to(CLIPPED + 1), "size", "the HTML has 95,001 bytes; Gmail clips it near 95,000"),
    ("too much style", styled_to(STYLE), "styles", "the style blocks have 16,384 bytes; Gmail drops what crosses 16,384"),
    ("no subject", envelope(subject=" "), "subject", "the subject is empty"),
    ("a broken subject", envelope(subject="A fab\r\nBcc: x"), "subject", f"the subject {CONTROL}"),
    ("a broken name", envelope(sender_name="A\x00"), "sender", f"the sender {CONTROL}"),
    ("a broken reply", envelope(reply_to="a@b\n"), "reply-to", f"the reply-to {CONTROL}"),
    ("a separator", envelope(subject="A\u2028b"), "subject", f"the subject {CONTROL}"),
    ("a relative link", put('<a href="/x">x</a>', "/x"), "links", "not an absolute https address: /x"),
    ("an empty link", put('<a href="">x</a>'), "links", "not an absolute https address: an empty link"),
    ("no target", put("<a>x</a>"), "links", "not an absolute https address: an empty link"),
    ("a script", put('<a href="javascript:x">x</a>', "javascript:x"), "links", "not an absolute https address: javascript:x"),
    ("no host", put('<a href="https:///x">x</a>', "https:///x"), "links", "not an absolute https address: https:///x"),
    ("a broken link", put('<a href="https://[x/">x</a>', "https://[x/"), "links", "not an absolute https address: https://[x/"),
    ("a local image", put('<img src="x.png" alt="">'), "links", "not an absolute https address: x.png"),
    ("a silent image", put('<img src="https://x.example/x.png">'), "images", "no alt text: https://x.example/x.png"),
    ("no language", swap('<html lang="en"', "<html"), "language", "the html element has no lang"),
]  # fmt: skip
OTHERS: list[tuple[str, Fault, Level, str, str]] = [
    ("heavy", grown_to(CLIPPED), Level.WARNING, "size", f"the HTML has 95,000 bytes, {CLIPS}"),
    ("nearly heavy", grown_to(HEAVY + 1), Level.WARNING, "size", f"the HTML has 80,001 bytes, {CLIPS}"),
    (
        "a long subject",
        envelope(subject="x" * (SUBJECT + 1)),
        Level.WARNING,
        "subject",
        f"the subject has {SUBJECT + 1} characters and will be cut near {SUBJECT}",
    ),
    (
        "a short preheader",
        envelope(preheader="x" * 39),
        Level.NOTE,
        "preheader",
        "the preheader has 39 characters; 40 to 130 fill the inbox line",
    ),
    (
        "a long preheader",
        envelope(preheader="x" * 131),
        Level.NOTE,
        "preheader",
        "the preheader has 131 characters; 40 to 130 fill the inbox line",
    ),
    ("plain http", put('<a href="http://x.example/">x</a>', "http://x.example/"), Level.WARNING, "links", "not encrypted: http://x.example/"),
    ("html only", put('<a href="https://x.example/">x</a>'), Level.WARNING, "links", "in the HTML part only: https://x.example/"),
    ("two titles", put("<h1>x</h1>"), Level.WARNING, "headings", "2 first-level headings instead of one"),
    ("no title", swap(r"<(/?)h1", r"<\1h2"), Level.WARNING, "headings", "0 first-level headings instead of one"),
    ("a leap", put("<h2>x</h2><h4>x</h4>"), Level.WARNING, "headings", "a level of headings is skipped"),
]  # fmt: skip
PLACEHOLDERS = ["{{ name }}", "{% if %}", "%recipient.name%", "%unsubscribe_url%"]


@pytest.mark.parametrize(("name", "fault", "check", "what"), ERRORS, ids=[name for name, *_ in ERRORS])
def test_what_must_not_leave_is_one_error(name: str, fault: Fault, check: str, what: str) -> None:
    assert told(found(fault)) == [(Level.ERROR, check, what)], name


@pytest.mark.parametrize(("name", "fault", "level", "check", "what"), OTHERS, ids=[name for name, *_ in OTHERS])
def test_what_an_editor_should_see_is_one_warning_or_note(name: str, fault: Fault, level: Level, check: str, what: str) -> None:
    assert told(found(fault)) == [(level, check, what)], name


@pytest.mark.parametrize("left", PLACEHOLDERS)
@pytest.mark.parametrize("part", ["subject", "HTML", "text"])
def test_a_placeholder_that_is_left_over_is_one_error(part: str, left: str) -> None:
    faults = {"subject": envelope(subject=f"Dear {left}"), "HTML": put(html=left), "text": put(text=left)}
    (finding,) = found(faults[part])
    assert (finding.level, finding.check) == (Level.ERROR, "placeholders")
    assert finding.what.startswith(f"the {part} contains '{left[:2]}")


@pytest.mark.parametrize(
    "fault",
    [
        grown_to(HEAVY),
        styled_to(STYLE - 1),
        envelope(subject="x" * SUBJECT),
        envelope(preheader="x" * 40),
        envelope(preheader="x" * 130),
        put('<a href="mailto:editors@news.example.com">x</a>'),
        put('<img src="https://x.example/x.png" alt="">'),
        put("<h2>x</h2><h3>x</h3><h2>x</h2>"),
        put("100% {x} %d"),
    ],
    ids=["weight", "style", "subject", "short preheader", "long preheader", "mail", "decoration", "headings", "signs"],
)
def test_what_is_just_within_its_limits_is_no_finding(fault: Fault) -> None:
    assert found(fault) == []


def test_errors_come_before_warnings_and_notes() -> None:
    def fault(made: RenderedIssue) -> RenderedIssue:
        return put("<h1>x</h1>", "{{")(replace(made, preheader="", subject="x" * 80))

    assert [finding.level for finding in found(fault)] == [Level.ERROR, Level.WARNING, Level.WARNING, Level.NOTE]


def test_several_links_that_the_text_lacks_are_told_once_each_in_the_order_of_the_issue() -> None:
    urls = [f"https://x.example/{number}" for number in (5, 3, 8, 1, 9, 2, 7)]
    links = "".join(f'<a href="{url}">x</a>' for url in [*urls, *urls])
    assert [finding.what for finding in found(put(links))] == [f"in the HTML part only: {url}" for url in urls]


def test_an_error_says_how_to_mend_it_where_there_is_a_way() -> None:
    (finding,) = found(without_unsubscribe_in_text)
    assert finding.cure == "print {{ reader.unsubscribe_url }} in the template"


HIDDEN = ["display:none", "DISPLAY : NONE", "visibility: hidden"]


@pytest.mark.parametrize("style", HIDDEN)
def test_what_nobody_can_see_does_not_count_as_printed(style: str) -> None:
    def hide(made: RenderedIssue) -> RenderedIssue:
        html = made.html.replace("<body", f'<body style="{style}" data-was', 1)
        return replace(made, html=html)

    checks = [finding.check for finding in found(hide) if finding.level is Level.ERROR]
    assert checks == ["unsubscribe", "postal address"]


def test_an_unsubscribe_link_without_words_is_none() -> None:
    def empty(made: RenderedIssue) -> RenderedIssue:
        token = made.stand_ins["unsubscribe_url"]
        return replace(made, html=re.sub(rf'(<a [^>]*href="{token}"[^>]*>)[^<]*', r"\1 ", made.html))

    assert [finding.check for finding in found(empty) if finding.level is Level.ERROR] == ["unsubscribe"]
