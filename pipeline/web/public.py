"""What everybody may see: the past issues, and the page by which a reader leaves. The newsroom stands behind its door."""

from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from pipeline import ledger
from pipeline.newsroom import Newsroom
from pipeline.render import public_page
from pipeline.staff import Passwords
from pipeline.web.hooks import add_hooks
from pipeline.web.newsroom import add_newsroom
from pipeline.web.pages import LOOPBACK, issue_page, make_app, page_environment, serve_file
from subscribers import roll
from subscribers.models import State


def public_app(newsroom: Newsroom, passwords: Passwords | None = None) -> FastAPI:
    """The public pages, and the newsroom behind its door. GET and HEAD change nothing."""
    own = urlsplit(newsroom.masthead.base_url)
    app = make_app((*LOOPBACK, *((own.hostname,) if own.hostname else ())), over_tls=own.scheme == "https")
    pages = page_environment(newsroom.config.templates)
    for name in ("public.css", "icon.svg"):
        serve_file(app, newsroom.config.templates, name)

    def page(name: str, status: int = 200, **values: object) -> HTMLResponse:
        return HTMLResponse(pages.get_template(name).render(masthead=newsroom.masthead, **values), status)

    @app.api_route("/", methods=["GET", "HEAD"])
    def home() -> HTMLResponse:
        with newsroom.database.read() as session:
            issues = [(issue.slot, issue.number, issue.rendered.subject) for issue in ledger.published(session)]
        return page("home.html", issues=issues)

    @app.api_route("/issues/{slot}", methods=["GET", "HEAD"])
    def issue(slot: str) -> Response:
        with newsroom.database.read() as session:
            found = ledger.find(session, slot)
        if found is None or found.enrolled_at is None:
            return page("message.html", 404, title="No such issue", text="Nothing was published under this address.")
        return issue_page(public_page(found.rendered), frame_ancestors="'none'")

    @app.api_route("/u/{token}", methods=["GET", "HEAD"])
    def leaving(token: str) -> HTMLResponse:
        with newsroom.database.read() as session:
            subscriber = roll.by_token(session, token)
        if subscriber is None:
            return page("message.html", 404, title="This link is not known", text=_UNKNOWN_LINK)
        if subscriber.state == State.UNSUBSCRIBED:
            return page("message.html", title="You have left", text="No more issues are sent to you.")
        return page("leave.html", token=token)

    @app.post("/u/{token}")
    def leave(token: str) -> HTMLResponse:
        # RFC 8058: no cookie, no redirect, whatever the body says; doing it twice is as doing it once.
        with newsroom.database.write() as session:
            found = roll.unsubscribe_by_token(session, token, newsroom.now())
        if not found:
            return page("message.html", 404, title="This link is not known", text=_UNKNOWN_LINK)
        return page("message.html", title="You have left", text="No more issues are sent to you.")

    add_hooks(app, newsroom)

    @app.exception_handler(404)
    def nothing(_request: Request, _error: Exception) -> HTMLResponse:
        return page("message.html", 404, title="Nothing here", text="There is no page under this address.")

    @app.get("/healthz")
    def healthy() -> PlainTextResponse:
        with newsroom.database.read() as session:
            ledger.published(session)
        return PlainTextResponse("ok")

    add_newsroom(app, newsroom, passwords or Passwords())
    return app


_UNKNOWN_LINK = "It may have been cut in two by a mail program. Copy all of it from the end of an issue, or reply to one."
