"""What everybody gets and what one reader gets: styles, templates, escaping, text and headers."""

from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import lxml.html
import pytest

from pipeline.errors import ContentError
from pipeline.issue import Copy, Issue, Line, Masthead, RelatedTerm, RenderedIssue, Slot, TermBox
from pipeline.render import TEXT_WIDTH, address, headers, listed, paragraphs, public_page, render, wrap
from tests.conftest import MASTHEAD, ROOT

WEEKLY = ROOT / "templates" / "issue" / "weekly"
LONG_URL = "https://wire.example/" + "a-very-long-address-" * 6 + "?x=1&y=2"
LINE = Line("A fab opens", "https://wire.example/fab", "Wire", (), 4, "Cold air halves the bill. " * 6, "Bills fall. " * 9)
BOX = TermBox(
    "Token",
    "Data & training",
    "https://terms.example/token",
    "A token is a **piece** of a word.",
    "It is what you pay for.\n\nBills are written in it.",
    "A hundred make about 75 words.",
    (RelatedTerm("Prompt", "What you ask.", "https://terms.example/prompt"), RelatedTerm("Model", "What answers.", "")),
)
READER = Copy("0" * 32, "o'neil&co@reader.example", "https://news.example.com/leave?r=1&t=<x>")


def issue(*lines: Line, masthead: Masthead = MASTHEAD, term: TermBox | None = BOX, note: str = "A note.") -> Issue:
    return Issue(
        number=12,
        slot=Slot(date(2026, 11, 27), datetime(2026, 11, 27, 8, tzinfo=UTC)),
        masthead=masthead,
        subject="A fab opens",
        preheader="Also: A tutor refuses · The term: Token",
        note=note,
        lines=lines or (LINE,),
        term=term,
        view_url="https://news.example.com/issues/2026-11-27",
    )


@cache
def weekly() -> RenderedIssue:
    """The project's own template, filled in."""
    return render(issue(), WEEKLY)


def folder(path: Path, html: str = "<p>x</p>", txt: str = "x", **others: str) -> Path:
    """A template of one's own."""
    files = {"issue.html": html, "issue.txt": txt, **{f"{name}.html": text for name, text in others.items()}}
    for name, text in files.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def complaint(templates: Path, made: Issue | None = None) -> str:
    """What is wrong with a template, with its path cut to the name of the file."""
    with pytest.raises(ContentError) as caught:
        render(made or issue(), templates)
    (problem,) = caught.value.problems
    return str(problem).replace(f"{templates}/", "")


def look_up(html: str, path: str) -> Any:
    """What an XPath finds."""
    return lxml.html.document_fromstring(html).xpath(path)


def of_class(html: str, name: str) -> Any:
    """The elements of a class."""
    return look_up(html, f"//*[contains(concat(' ', @class, ' '), ' {name} ')]")


def test_styles_stand_at_the_elements() -> None:
    html = weekly().html
    assert "font-size:27px" in of_class(html, "title")[0].get("style")
    assert "background-color:#f4f1ea" in of_class(html, "page")[0].get("style")
    assert "margin:5px 0 0" in look_up(html, "//div[@class='part-text']/p")[0].get("style")
    assert ".tagline { padding" not in html


def test_the_newsletter_s_own_colour_reaches_the_styles() -> None:
    html = render(issue(masthead=replace(MASTHEAD, accent="#123456", accent_dark="#abcdef")), WEEKLY).html
    assert "color:#123456" in of_class(html, "numeral")[0].get("style")
    assert "color: #abcdef !important" in html


def test_media_queries_and_what_is_important_in_them_stay() -> None:
    html = weekly().html
    assert "@media (prefers-color-scheme: dark)" in html
    assert "@media (max-width: 480px)" in html
    assert ".preheader { color: #191714 !important; }" in html
    assert "[data-ogsb] .box { background-color: #26231e !important; }" in html


def test_every_class_that_a_media_query_names_stays_on_its_element() -> None:
    for name in ("column", "numeral", "headline", "box-cell", "preheader", "source", "small-link"):
        assert of_class(weekly().html, name), name


def test_the_doctype_and_the_comments_for_outlook_stay() -> None:
    assert weekly().html.startswith("<!DOCTYPE html>\n<html lang=")
    assert weekly().html.count("<!--[if mso]>") == 3


def test_a_rendered_issue_keeps_what_the_envelope_needs() -> None:
    made = weekly()
    assert (made.slot, made.number, made.subject) == ("2026-11-27", 12, "A fab opens")
    assert (made.title, made.sender, made.reply_to) == (MASTHEAD.title, MASTHEAD.sender, MASTHEAD.reply_to)
    assert (made.sender_name, made.base_url, made.preheader) == (MASTHEAD.sender_name, MASTHEAD.base_url, issue().preheader)


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert render(issue(), WEEKLY) == weekly()
    assert render(issue(), WEEKLY).digest == weekly().digest


def test_an_addressed_copy_holds_no_stand_in_and_both_of_the_reader_s_values() -> None:
    message = address(weekly(), READER)
    for part in (message.html, message.text):
        assert "STANDIN" not in part
        assert not any(token in part for token in weekly().stand_ins.values())
    assert message.subject == "A fab opens"
    assert message.text.count(READER.address) == message.text.count(READER.unsubscribe_url) == 1


def test_a_reader_s_values_are_escaped_in_html_and_as_they_are_in_text() -> None:
    message = address(weekly(), READER)
    assert "Sent to o&#x27;neil&amp;co@reader.example because" in message.html
    assert 'href="https://news.example.com/leave?r=1&amp;t=&lt;x&gt;"' in message.html
    assert "Sent to o'neil&co@reader.example\n" in message.text
    assert "\nhttps://news.example.com/leave?r=1&t=<x>\n" in message.text


def test_two_readers_get_the_same_but_for_their_own_values() -> None:
    other = Copy("1" * 32, "ada@reader.example", "https://news.example.com/leave?r=2")
    one, two = address(weekly(), READER), address(weekly(), other)
    assert one.text.replace(READER.address, other.address).replace(READER.unsubscribe_url, other.unsubscribe_url) == two.text


def test_a_story_cannot_pose_as_a_reader_s_value() -> None:
    names = " ".join(token.rstrip("0123456789abcdef") for token in weekly().stand_ins.values())
    posing = replace(LINE, title=" ".join(weekly().stand_ins.values()), summary=names)
    made = render(issue(posing), WEEKLY)
    message = address(made, READER)
    assert posing.title in message.html
    assert posing.title in " ".join(message.text.split())
    assert message.text.count(READER.address) == 1


def test_the_page_for_everybody_holds_no_reader_s_values_and_no_stand_in() -> None:
    page = public_page(weekly())
    assert "STANDIN" not in page
    assert "Sent to its readers because" in page
    assert 'href="https://news.example.com"' in page


def test_markup_in_a_story_is_inert_text() -> None:
    hostile = replace(
        LINE,
        title="<script>alert(1)</script> {{ 7*7 }} {% raw %}",
        summary="<img src=x onerror=alert(1)> & {{ masthead }}",
        source="<b>Wire</b>",
        why="</td></table>",
    )
    made = render(issue(hostile, note="<i>note</i>"), WEEKLY)
    assert not look_up(made.html, "//script|//img|//b|//i")
    assert look_up(made.html, "string(//a[@class='headline-link'])") == hostile.title
    assert look_up(made.html, "string(//p[@class='summary'])") == hostile.summary
    assert hostile.title in made.text
    assert hostile.summary in made.text
    assert "49" not in made.text


def test_an_address_cannot_break_out_of_its_link() -> None:
    made = render(issue(replace(LINE, url='https://wire.example/"onclick="alert(1)')), WEEKLY)
    link = of_class(made.html, "headline-link")[0]
    assert link.get("href") == 'https://wire.example/"onclick="alert(1)'
    assert link.get("onclick") is None


def test_markdown_of_a_term_is_markup_in_html_and_plain_in_text() -> None:
    assert "a <strong>piece</strong> of a word" in weekly().html
    assert "A token is a piece of a word." in weekly().text
    assert "It is what you pay for.\n\nBills are written in it.\n" in weekly().text


def test_html_in_a_term_is_shown_and_does_nothing() -> None:
    made = render(issue(term=replace(BOX, definition="Use <script>alert(1)</script> & [x](javascript:alert(1)).")), WEEKLY)
    assert not look_up(made.html, "//script|//a[starts-with(@href, 'javascript')]")
    assert "Use <script>alert(1)</script> & [x]" in look_up(made.html, "string(//div[@class='definition serif'])")


def test_an_issue_without_a_term_and_lines_without_extras_leave_no_gaps() -> None:
    bare = render(issue(replace(LINE, summary="", why="", minutes=None), term=None), WEEKLY)
    assert not of_class(bare.html, "box")
    assert "Why it matters" not in bare.html
    assert "1. A fab opens\n   Wire\n\n   https://wire.example/fab\n" in bare.text
    assert "\n\n\n" not in bare.text


def test_who_told_it_too_and_how_long_it_takes_stand_beside_the_source() -> None:
    made = render(issue(replace(LINE, also=("Ledger", "Post", "Echo"))), WEEKLY)
    assert "Wire, 4 min; also in Ledger, Post and Echo" in made.text
    assert "</strong> · 4 min · also in Ledger, Post and Echo</p>" in made.html


def test_text_is_wrapped_and_addresses_stay_whole() -> None:
    text = render(issue(replace(LINE, url=LONG_URL)), WEEKLY).text
    assert f"   {LONG_URL}\n" in text
    long = [line for line in text.splitlines() if len(line) > TEXT_WIDTH]
    assert long == [f"   {LONG_URL}"]
    assert any(len(line) > TEXT_WIDTH - 12 for line in text.splitlines())


def test_a_wrapped_text_is_indented_in_every_line_and_not_broken_at_hyphens() -> None:
    wrapped = wrap("a-long-way " * 20, "   ").splitlines()
    assert len(wrapped) > 2
    assert all(line.startswith("   a-long-way") and line.endswith("a-long-way") for line in wrapped)


def test_an_address_inside_a_wrapped_text_stays_whole() -> None:
    assert wrap(f"See {LONG_URL} for more").splitlines() == ["See", LONG_URL, "for more"]


def test_paragraphs_of_markdown_are_wrapped_apart() -> None:
    assert paragraphs("One *two*\nthree\n\n\n\nQ&A `four`") == "One two three\n\nQ&A four"


@pytest.mark.parametrize(("language", "direction"), [("en", "ltr"), ("ar", "rtl"), ("he-IL", "rtl"), ("de-AT", "ltr")])
def test_the_language_sets_the_direction_of_writing(language: str, direction: str) -> None:
    made = render(issue(masthead=replace(MASTHEAD, language=language)), WEEKLY)
    elements = look_up(made.html, "/html|/html/body|//div[@role='article']")
    assert [(each.get("lang"), each.get("dir")) for each in elements] == [(language, direction)] * 3


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ("<p>\n{% if %}\n</p>", "issue.html:2: Expected an expression, got 'end of statement block'"),
        ("<p>\n\n{{ issue.nonsense }}", "issue.html:3: issue has no 'nonsense'"),
        ("<p>\n{{ nonsense }}", "issue.html:2: 'nonsense' is undefined"),
        ("\n\n{{ issue.note | shout }}", "issue.html:3: No filter named 'shout'."),
        ("\n{% include 'no.css' %}", "issue.html:2: 'no.css' not found in search path: '{folder}'"),
        ("\n{{ 1 / 0 }}", "issue.html:2: division by zero"),
        ("\n{{ range(1000000000) }}", "issue.html:2: Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000)."),
        ("\n{% include 'issue.html' %}", "issue.html:2: maximum recursion depth exceeded"),
    ],
)
def test_a_broken_template_is_named_with_its_file_and_line(tmp_path: Path, html: str, found: str) -> None:
    assert complaint(folder(tmp_path, html)).startswith(found.replace("{folder}", str(tmp_path)))


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__.__mro__",
        "cycler.__init__.__globals__",
        "issue.lines.__class__",
        "('{0.__class__}').format(issue)",
        "issue.__init__",
        "issue['__class__']",
    ],
)
def test_the_sandbox_lets_no_template_behind_the_values(tmp_path: Path, expression: str) -> None:
    found = complaint(folder(tmp_path, f"<p>\n{{{{ {expression} }}}}</p>"))
    assert found.startswith("issue.html:2: access to attribute '__")
    assert found.endswith(" is unsafe.")


@pytest.mark.parametrize("name", ["config", "environment", "os", "request"])
def test_a_template_sees_nothing_but_the_issue(tmp_path: Path, name: str) -> None:
    assert complaint(folder(tmp_path, f"{{{{ {name} }}}}")) == f"issue.html:1: '{name}' is undefined"


def test_a_template_reads_no_file_outside_its_folder(tmp_path: Path) -> None:
    inner = tmp_path / "weekly"
    inner.mkdir()
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    assert "secret.txt" in complaint(folder(inner, "{% include '../secret.txt' %}"))


def test_a_mistake_in_an_included_part_names_the_part(tmp_path: Path) -> None:
    templates = folder(tmp_path, "<p>{% include 'part.html' %}</p>", part="x\ny\n{{ nonsense }}")
    assert complaint(templates) == "part.html:3: 'nonsense' is undefined"


def test_a_mistake_in_the_text_part_names_it(tmp_path: Path) -> None:
    assert complaint(folder(tmp_path, txt="x\n{{ nonsense }}")) == "issue.txt:2: 'nonsense' is undefined"


@pytest.mark.parametrize("name", ["issue.html", "issue.txt"])
def test_a_missing_template_is_named(tmp_path: Path, name: str) -> None:
    templates = folder(tmp_path)
    (templates / name).unlink()
    assert complaint(templates).startswith(f"{name}: cannot be read: '{name}' not found")


@pytest.mark.parametrize("name", ["issue.html", "issue.txt"])
def test_a_template_that_is_not_utf_8_is_named(tmp_path: Path, name: str) -> None:
    templates = folder(tmp_path)
    (templates / name).write_bytes("<p>caf\u00e9</p>".encode("latin-1"))
    assert complaint(templates).startswith(name)


@pytest.mark.parametrize("html", ["", "<!-- later -->"])
def test_a_template_that_prints_nothing_is_named(tmp_path: Path, html: str) -> None:
    assert complaint(folder(tmp_path, html)).startswith("issue.html")


def test_what_a_style_calls_important_stays_so_at_its_element(tmp_path: Path) -> None:
    made = render(issue(), folder(tmp_path, "<style>p { color: red !important }</style><p>x</p>"))
    assert '<p style="color:red !important">' in made.html


def test_a_template_of_one_s_own_prints_what_it_likes(tmp_path: Path) -> None:
    html = "<!DOCTYPE html>\n<style>{% include 'part.html' %}</style><p>{{ issue.slot.day | day }}</p>"
    made = render(issue(), folder(tmp_path, html, "{{ masthead.title }}\n\n\n\n{{ reader.address }}", part="p { color: red }"))
    assert '<p style="color:red">Friday, 27 November 2026</p>' in made.html
    assert address(made, READER).text == f"The Test Five\n\n{READER.address}\n"


def test_a_copy_can_be_left_with_one_click() -> None:
    message = address(weekly(), READER._replace(unsubscribe_url="https://news.example.com/leave?r=1&t=2"))
    assert message.headers == {
        "List-Unsubscribe": "<https://news.example.com/leave?r=1&t=2>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "List-Id": "The Test Five <issues.news.example.com>",
        "Feedback-ID": "issue12:2026-11-27:newsletter:newsexamplecom",
    }


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ('Five, "the" <best>\r\nBcc: x', "Five the bestBcc x <issues.news.example.com>"),
        ("Füüf", "<issues.news.example.com>"),
        ("!!!", "<issues.news.example.com>"),
    ],
)
def test_a_list_s_name_is_plain_ascii_or_left_out(title: str, name: str) -> None:
    assert headers(replace(weekly(), title=title), "https://news.example.com/leave")["List-Id"] == name


def test_names_are_listed_as_a_sentence_lists_them() -> None:
    assert listed(["A"]) == "A"
    assert listed(["A", "B"]) == "A and B"
    assert listed(iter(("A", "B", "C"))) == "A, B and C"
