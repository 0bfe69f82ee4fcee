"""Findings on a rendered issue: what an editor should see before it leaves. Pure."""

import copy
import re
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import urlsplit

import lxml.html
from lxml.html import HtmlElement

from pipeline.issue import LEADS_TO_TERM, THE_TERM, Finding, Issue, Level, RenderedIssue
from pipeline.text import as_markdown

# Gmail clipped mails at 99,507 to 100,217 bytes of source; see DECISIONS.md.
CLIPPED = 95_000
HEAVY = 80_000
# Gmail drops the style block that crosses this.
STYLE = 16 * 1024
SUBJECT = 70
PREHEADER = range(40, 131)


def proof(issue: Issue, rendered: RenderedIssue, wanted: int, fewest: int) -> tuple[Finding, ...]:
    """All findings, errors first.

    Args:
        issue: what was composed.
        rendered: what came of it.
        wanted: how many stories an issue has.
        fewest: below this number of stories an editor must act.
    """
    document = lxml.html.document_fromstring(rendered.html)
    found = [
        *_enough(issue, wanted, fewest),
        *_promises(issue, rendered, document),
        *_weight(rendered, document),
        *_envelope(rendered),
        *_left_over(rendered),
        *_names_another_term(issue),
        *_links(rendered, document),
        *_access(document),
    ]
    return tuple(sorted(found, key=lambda finding: list(Level).index(finding.level)))


def _enough(issue: Issue, wanted: int, fewest: int) -> Iterator[Finding]:
    number = len(issue.lines)
    if number < fewest:
        yield Finding(
            Level.ERROR,
            "stories",
            f"only {number} of {wanted} stories, and {fewest} is the fewest to send",
            "collect from more sources, or lower newsletter.fewest",
        )
    elif number < wanted:
        yield Finding(Level.WARNING, "stories", f"a thin week: {number} of {wanted} stories")
    if issue.term is None:
        yield Finding(Level.ERROR, "term", "there is no term to feature", "write one into the folder of terms")


def _promises(issue: Issue, rendered: RenderedIssue, document: HtmlElement) -> Iterator[Finding]:
    own = rendered.stand_ins["unsubscribe_url"]
    shown = _shown(document)
    linked = any(anchor.get("href") == own and "".join(map(str, anchor.itertext())).strip() for anchor in shown.iter("a"))
    for part, there in (("HTML", linked), ("text", own in rendered.text)):
        if not there:
            yield Finding(
                Level.ERROR,
                "unsubscribe",
                f"the {part} part has no unsubscribe link",
                "print {{ reader.unsubscribe_url }} in the template",
            )
    address = _squeezed(issue.masthead.postal_address)
    # The string value of a document leaves comments out, where nobody reads an address.
    for part, text in (("HTML", str(shown.xpath("string(//body)"))), ("text", rendered.text)):
        if not address or address not in _squeezed(text):
            yield Finding(
                Level.ERROR,
                "postal address",
                f"the {part} part has no postal address",
                "print {{ masthead.postal_address }} in the template",
            )


def _shown(document: HtmlElement) -> HtmlElement:
    """The document without what is hidden from every reader by its own style."""
    shown = copy.deepcopy(document)
    for element in list(shown.iter()):
        style = str(element.get("style") or "").replace(" ", "").lower() if isinstance(element.tag, str) else ""
        if "display:none" in style or "visibility:hidden" in style:
            element.drop_tree()
    return shown


def _weight(rendered: RenderedIssue, document: HtmlElement) -> Iterator[Finding]:
    size = len(rendered.html.encode())
    if size > CLIPPED:
        yield Finding(Level.ERROR, "size", f"the HTML has {size:,} bytes; Gmail clips it near {CLIPPED:,}", "shorten it")
    elif size > HEAVY:
        yield Finding(Level.WARNING, "size", f"the HTML has {size:,} bytes, near the {CLIPPED:,} where Gmail clips")
    style = sum(len((element.text or "").encode()) for element in document.iter("style"))
    if style >= STYLE:
        yield Finding(Level.ERROR, "styles", f"the style blocks have {style:,} bytes; Gmail drops what crosses {STYLE:,}")


def _envelope(rendered: RenderedIssue) -> Iterator[Finding]:
    if not rendered.subject.strip():
        yield Finding(Level.ERROR, "subject", "the subject is empty")
    if len(rendered.subject) > SUBJECT:
        yield Finding(
            Level.WARNING, "subject", f"the subject has {len(rendered.subject)} characters and will be cut near {SUBJECT}"
        )
    for name, value in (("subject", rendered.subject), ("sender", rendered.sender_name), ("reply-to", rendered.reply_to)):
        if re.search(r"[\x00-\x1f\x7f\u0085\u2028\u2029]", value):
            yield Finding(Level.ERROR, name, f"the {name} contains a line break or control character")
    if len(rendered.preheader) not in PREHEADER:
        yield Finding(
            Level.NOTE, "preheader", f"the preheader has {len(rendered.preheader)} characters; 40 to 130 fill the inbox line"
        )


def _left_over(rendered: RenderedIssue) -> Iterator[Finding]:
    for part, text in (("subject", rendered.subject), ("HTML", rendered.html), ("text", rendered.text)):
        if match := re.search(r"%recipient\.|%unsubscribe_url%|\{\{|\{%", text):
            yield Finding(
                Level.ERROR,
                "placeholders",
                f"the {part} contains {match.group()!r}, which a template or provider would fill in",
                "take it out of the story or the template",
            )


def _names_another_term(issue: Issue) -> Iterator[Finding]:
    """What an editor wrote around the machine's words for a term that is not this week's any more."""
    name = issue.term.name if issue.term else ""
    for part, text, words in (
        ("opening note", issue.note, LEADS_TO_TERM.format(as_markdown(name))),
        ("preheader", issue.preheader, THE_TERM.format(name)),
    ):
        frame = LEADS_TO_TERM.format("").strip() if part == "opening note" else THE_TERM.format("").strip()
        if frame in text and words not in text:
            yield Finding(Level.WARNING, part, f"the {part} names another term than {name or 'none'}", "write it anew")


def _links(rendered: RenderedIssue, document: HtmlElement) -> Iterator[Finding]:
    own = rendered.stand_ins["unsubscribe_url"]
    for element in document.iter("a", "img", "link"):
        url = element.get("href") or element.get("src") or ""
        if url == own or url.startswith("mailto:"):
            continue
        try:
            parts = urlsplit(url)
        except ValueError:
            yield Finding(Level.ERROR, "links", f"not an absolute https address: {url}", "mend it in the template")
            continue
        if parts.scheme == "http":
            yield Finding(Level.WARNING, "links", f"not encrypted: {url}")
        elif parts.scheme != "https" or not parts.netloc:
            yield Finding(
                Level.ERROR, "links", f"not an absolute https address: {url or 'an empty link'}", "mend it in the template"
            )
    for url in dict.fromkeys(anchor.get("href", "") for anchor in document.iter("a")):
        if url not in ("", own) and not url.startswith("mailto:") and url not in rendered.text:
            yield Finding(Level.WARNING, "links", f"in the HTML part only: {url}")


def _access(document: HtmlElement) -> Iterator[Finding]:
    if not document.get("lang"):
        yield Finding(Level.ERROR, "language", "the html element has no lang", "set it to {{ masthead.language }}")
    for image in document.iter("img"):
        if image.get("alt") is None:
            yield Finding(Level.ERROR, "images", f"no alt text: {image.get('src')}")
    levels = [int(str(heading.tag)[1]) for heading in document.iter("h1", "h2", "h3", "h4", "h5", "h6")]
    if levels.count(1) != 1:
        yield Finding(Level.WARNING, "headings", f"{levels.count(1)} first-level headings instead of one")
    if any(after - before > 1 for before, after in pairwise(levels)):
        yield Finding(Level.WARNING, "headings", "a level of headings is skipped")


def _squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)
