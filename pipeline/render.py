"""Jinja2 and premailer, once per issue; `address` fills in one reader.

Pure but for reading the templates. The templates get plain data in a sandbox; an undefined name, a
syntax error or forbidden access is the editor's to mend and names file and line.
"""

import hashlib
import html as html_escape
import logging
import re
import textwrap
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from premailer import Premailer

from pipeline import issue as vocabulary
from pipeline.errors import ContentError, Problem
from pipeline.issue import Copy, Issue, Line, Masthead, RenderedIssue
from pipeline.text import plain

TEXT_WIDTH = 72
_RIGHT_TO_LEFT = frozenset({"ar", "dv", "fa", "he", "ps", "ur", "yi"})
_STAND_INS = ("address", "unsubscribe_url")
_MARKDOWN = MarkdownIt("commonmark", {"html": False, "typographer": False})


@dataclass(frozen=True, slots=True)
class Message:
    """One reader's copy, filled in: what a provider that takes whole messages sends."""

    subject: str
    html: str
    text: str
    headers: dict[str, str]


def render(issue: Issue, templates: Path) -> RenderedIssue:
    """The issue as HTML with its styles inline and as text, with stand-ins for the reader's values.

    Args:
        issue: what is printed.
        templates: the folder of one issue template, with `issue.html`, `issue.txt` and `*.css`.

    Raises:
        ContentError: a template is missing or broken.
    """
    stand_ins = _stand_ins(repr(issue))
    values = {
        "issue": issue,
        "masthead": issue.masthead,
        "reader": stand_ins,
        "direction": direction(issue.masthead.language),
    }
    html = _fill(templates, "issue.html", values)
    if not re.search(r"<\w", html):
        raise ContentError([Problem(str(templates / "issue.html"), "prints no HTML")])
    html = _inline(html)
    text = _fill(templates, "issue.txt", values)
    return RenderedIssue(
        slot=issue.slot.name,
        number=issue.number,
        title=issue.masthead.title,
        sender_name=issue.masthead.sender_name,
        sender=issue.masthead.sender,
        reply_to=issue.masthead.reply_to,
        base_url=issue.masthead.base_url,
        subject=issue.subject,
        preheader=issue.preheader,
        html=html,
        text=re.sub(r"\n{3,}", "\n\n", text).strip() + "\n",
        stand_ins=stand_ins,
        mailbox=issue.masthead.mailbox,
    )


def render_mail(kind: str, masthead: Masthead, values: Mapping[str, object], templates: Path) -> RenderedIssue:
    """A single mail, complete but for the address that it goes to.

    Args:
        kind: the name of its templates, `<kind>.html` and `<kind>.txt`; the text begins with a line `Subject: ...`.
        masthead: what every mail of the newsletter has in common.
        values: what the templates may print besides.
        templates: their folder.

    Raises:
        ContentError: a template is missing or broken.
    """
    printed = {"masthead": masthead, "direction": direction(masthead.language), **values}
    html = _inline(_fill(templates, f"{kind}.html", printed))
    head, _, text = _fill(templates, f"{kind}.txt", printed).partition("\n")
    name, _, subject = head.partition(":")
    if name.strip().lower() != "subject" or not subject.strip():
        raise ContentError([Problem(f"{templates / kind}.txt:1", "does not begin with a line such as Subject: Welcome")])
    return RenderedIssue(
        slot=f"mail-{kind}",
        number=0,
        title=masthead.title,
        sender_name=masthead.sender_name,
        sender=masthead.sender,
        reply_to=masthead.reply_to,
        base_url=masthead.base_url,
        subject=" ".join(subject.split()),
        preheader="",
        html=html,
        text=text.strip() + "\n",
        stand_ins=_stand_ins(html),
        mailbox=masthead.mailbox,
        single=True,
    )


def direction(language: str) -> str:
    """In which direction a language is written, as HTML says it."""
    return "rtl" if language.split("-", maxsplit=1)[0].lower() in _RIGHT_TO_LEFT else "ltr"


def address(issue: RenderedIssue, copy: Copy) -> Message:
    """One reader's copy: values escaped in HTML, as they are in text."""
    return Message(
        subject=issue.subject,
        html=fill_in(issue.html, issue, {name: html_escape.escape(value) for name, value in copy.values.items()}),
        text=fill_in(issue.text, issue, copy.values),
        headers=headers(issue, copy.unsubscribe_url, copy.unsubscribe_mail),
    )


def fill_in(text: str, issue: RenderedIssue, values: dict[str, str]) -> str:
    """The text with each stand-in replaced by the value of its name."""
    for name, token in issue.stand_ins.items():
        text = text.replace(token, values[name])
    return text


def headers(issue: RenderedIssue, unsubscribe_url: str, unsubscribe_mail: str = "") -> dict[str, str]:
    """The headers that make a copy a newsletter that can be left with one click (RFC 2369, 2919, 8058).

    `Feedback-ID` is Gmail's: three fields to tell complaints by, and a sender's name of 5 to 15 characters.
    A provider that writes its own leaves it out. A single mail is no newsletter, and says that a machine wrote it
    (RFC 3834).
    """
    if issue.single:
        return {"Auto-Submitted": "auto-generated"}
    host = urlsplit(issue.base_url).hostname or "localhost"
    name = re.sub(r"[^\w ]", "", issue.title).strip()
    label = f"{name} " if name.isascii() and name else ""
    ways_out = [unsubscribe_url, *([unsubscribe_mail] if unsubscribe_mail else [])]
    sender = re.sub(r"[^a-z0-9]", "", host.lower())[:15].ljust(5, "0")
    return {
        "List-Unsubscribe": ", ".join(f"<{each}>" for each in ways_out),
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "List-Id": f"{label}<issues.{host}>",
        "Feedback-ID": f"issue{issue.number}:{issue.slot}:newsletter:{sender}",
    }


def public_page(issue: RenderedIssue) -> str:
    """The issue's HTML for everybody: the bytes that were sent, without any reader's values."""
    return fill_in(issue.html, issue, {"address": "its readers", "unsubscribe_url": issue.base_url})


def minutes_label(line: Line) -> str:
    """Reading time as the issue prints it, empty where it is not known."""
    return f"{line.minutes} min" if line.minutes else ""


def _stand_ins(content: str) -> dict[str, str]:
    # Derived from what is printed itself: the same for preview and sending, and no story can contain it.
    mark = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {name: f"STANDIN{name.replace('_', '').upper()}{mark}" for name in _STAND_INS}


def _fill(templates: Path, name: str, values: Mapping[str, object]) -> str:
    try:
        return environment(templates, autoescape=name.endswith(".html")).get_template(name).render(values)
    except Exception as error:
        raise ContentError([template_problem(templates, name, error)]) from error


def template_problem(templates: Path, name: str, error: Exception) -> Problem:
    """What is wrong with a template, at its file and line.

    Raises:
        Exception: the error again, if it does not come from a template.
    """
    if isinstance(error, TemplateSyntaxError):
        return Problem(f"{error.filename or templates / name}:{error.lineno}", error.message or "cannot be read")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(templates)]
    if frames:
        return Problem(f"{frames[-1].filename}:{frames[-1].lineno}", *_in_an_editors_words(error))
    if isinstance(error, UnicodeDecodeError):
        return Problem(str(templates / name), f"is not UTF-8 at byte {error.start}", "save it as UTF-8")
    if isinstance(error, TemplateError | OSError):
        return Problem(str(templates / name), f"cannot be read: {error}")
    raise error


def _in_an_editors_words(error: Exception) -> tuple[str, str]:
    """What a template tripped over, and what it may have meant."""
    said = str(error) or type(error).__name__
    unknown = re.fullmatch(r"'pipeline\.issue\.(\w+) object' has no attribute '(\w+)'", said)
    if not unknown:
        return said, ""
    kind: type = getattr(vocabulary, unknown.group(1))
    return f"{kind.__name__.lower()} has no {unknown.group(2)!r}", f"it has {', '.join(each.name for each in fields(kind))}"


@lru_cache(maxsize=16)
def environment(templates: Path, *, autoescape: bool) -> Environment:
    """A sandbox without access to the environment, configuration or any attribute with an underscore."""
    made = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(templates),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        markdown=lambda text: Markup(_MARKDOWN.render(text)),  # noqa: S704 - html=False: the text is escaped by it
        paragraphs=paragraphs,
        wrap=wrap,
        minutes=minutes_label,
        day=lambda day: f"{day:%A}, {day.day} {day:%B} {day.year}",
        listed=listed,
    )
    return made


def wrap(text: str, indent: str = "", width: int = TEXT_WIDTH) -> str:
    """The text in lines of at most `width` characters, each after `indent`; addresses stay whole."""
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def paragraphs(text: str) -> str:
    """Markdown as plain paragraphs and items of lists, wrapped; behind each link stands where it leads."""
    printed, item = list[str](), False
    for token in _MARKDOWN.parse(text):
        if token.type == "list_item_open":
            item = True
        elif token.type == "inline" and token.children:
            printed.append(wrap(f"- {_spoken(token.children)}" if item else _spoken(token.children)))
            item = False
    return "\n\n".join(printed)


def _spoken(children: Iterable[Token]) -> str:
    said, link = "", ("", 0)
    for token in children:
        if token.type == "link_open":
            link = (str(token.attrGet("href") or ""), len(said))
        elif token.type == "link_close" and said[link[1] :] != link[0]:
            said += f" ({link[0]})"
        elif token.type in ("softbreak", "hardbreak"):
            said += " "
        else:
            said += token.content
    return plain(html_escape.escape(said, quote=False))


def listed(names: Iterable[str]) -> str:
    """Names as a sentence lists them: `A`, `A and B`, `A, B and C`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else str(last)


def _inline(html: str) -> str:
    transformed = Premailer(
        html,
        base_url=None,
        disable_link_rewrites=True,
        keep_style_tags=False,
        strip_important=False,
        exclude_pseudoclasses=True,
        remove_classes=False,
        disable_validation=True,
        allow_network=False,
        allow_loading_external_files=False,
        disable_basic_attributes=["width", "height", "bgcolor", "align", "valign"],
        cssutils_logging_level=logging.CRITICAL,
        remove_unset_properties=False,
    ).transform(pretty_print=False)
    return str(transformed)
