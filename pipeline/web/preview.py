"""The preview: the very issue of a slot in a browser on loopback, reloaded when a file of it is saved."""

import contextlib
import os
import re
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import uvicorn
import watchfiles
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse

from pipeline import publish as route
from pipeline.errors import ContentError, Problem
from pipeline.issue import Copy, Finding, RenderedIssue, Slot
from pipeline.newsroom import Newsroom
from pipeline.render import Message, address
from pipeline.web.pages import LOOPBACK, Server, issue_page, listen, make_app, page_environment, serve_file
from subscribers import links

SAMPLE_ADDRESS = "reader@example.com"
_SCHEME = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)")

Scheme = Literal["auto", "light", "dark"]
Part = Literal["html", "text"]
Width = Literal["wide", "narrow"]


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows of a slot: the bytes for a sample reader, or what stands in the way."""

    rendered: RenderedIssue | None
    message: Message | None
    frozen: bool
    findings: tuple[Finding, ...] = ()
    problems: tuple[Problem, ...] = ()


def look_at(newsroom: Newsroom, slot: Slot) -> View:
    """The slot's issue as it is now; a broken term or template is shown, not raised."""
    try:
        shown = route.look(newsroom, slot)
    except ContentError as error:
        return View(None, None, frozen=False, problems=error.problems)
    return View(shown.rendered, address(shown.rendered, sample_copy(shown.rendered)), shown.frozen, shown.findings)


def sample_copy(rendered: RenderedIssue) -> Copy:
    """The copy of a reader who does not exist; the unsubscribe link leads nowhere."""
    return Copy("0" * 32, SAMPLE_ADDRESS, links.leave_url(rendered.base_url, "preview"))


def preview_app(newsroom: Newsroom, slot: Slot, stopping: threading.Event) -> FastAPI:
    """The preview of one slot. All of its state is in the query, and it works without scripts.

    Args:
        newsroom: what the route reaches for.
        slot: which issue.
        stopping: set when the server is about to stop, so that pages that wait for changes let go.
    """
    app = make_app(LOOPBACK)
    pages = page_environment(newsroom.config.templates)
    for name in ("preview.css", "preview.js", "icon.svg"):
        serve_file(app, newsroom.config.templates, name)

    @app.get("/")
    def page(part: Part = "html", width: Width = "wide", scheme: Scheme = "auto") -> HTMLResponse:
        view = look_at(newsroom, slot)
        chosen = {"part": part, "width": width, "scheme": scheme}
        html = pages.get_template("preview.html").render(
            view=view, slot=slot, chosen=chosen, size=len(view.message.html.encode()) if view.message else 0,
        )  # fmt: skip
        return HTMLResponse(html, status_code=200 if view.message else 500)

    @app.get("/issue.html")
    def issue_html(scheme: Scheme = "auto") -> Response:
        view = look_at(newsroom, slot)
        if not view.message:
            return PlainTextResponse("There is no issue to show.", 500)
        return issue_page(with_scheme(view.message.html, scheme), frame_ancestors="'self'")

    @app.get("/issue.txt")
    def issue_text() -> Response:
        view = look_at(newsroom, slot)
        return PlainTextResponse(
            view.message.text if view.message else "There is no issue to show.", 200 if view.message else 500
        )

    @app.get("/changes")
    async def changes() -> StreamingResponse:
        return StreamingResponse(_changes(newsroom, stopping), media_type="text/event-stream")

    return app


def with_scheme(html: str, scheme: Scheme) -> str:
    """The issue as a reader's light or dark setting would show it: its own media queries, answered.

    `auto` leaves the bytes as they are sent.
    """
    if scheme == "auto":
        return html
    return _SCHEME.sub(lambda query: "(min-width: 0)" if query.group(1) == scheme else "(max-width: 0)", html)


async def _changes(newsroom: Newsroom, stopping: threading.Event) -> AsyncIterator[str]:
    yield "retry: 500\n\n"
    watched = (newsroom.config.templates, newsroom.config.terms)
    # Only `is_set` is asked of the event, which every kind of event has.
    watching = watchfiles.awatch(*watched, stop_event=cast("Any", stopping), yield_on_timeout=True, rust_timeout=1_000)
    async for changed in watching:
        yield "data: changed\n\n" if changed else ": still watching\n\n"


def serve_preview(newsroom: Newsroom, slot: Slot, port: int, *, open_browser: bool) -> None:
    """Serve the preview until Ctrl-C."""
    stopping = threading.Event()
    app = preview_app(newsroom, slot, stopping)
    url = f"http://127.0.0.1:{port}/"
    with listen("127.0.0.1", port) as listening:
        print(f"The preview of {slot.name} is at {url} until Ctrl-C.", flush=True)  # noqa: T201 - a door's own result
        if open_browser and sys.stdout.isatty() and (sys.platform == "darwin" or "DISPLAY" in os.environ):
            webbrowser.open(url)
        config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=2)
        with contextlib.suppress(KeyboardInterrupt):
            Server(config, stopping).run(sockets=[listening])
