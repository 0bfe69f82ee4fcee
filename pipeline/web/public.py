"""What everybody may see: the past issues, and the pages of readers. The newsroom stands behind its door."""

from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from pipeline import ledger
from pipeline.newsroom import Newsroom
from pipeline.render import public_page
from pipeline.staff import Passwords
from pipeline.web.desk import add_desk
from pipeline.web.hooks import add_hooks
from pipeline.web.newsroom import add_newsroom
from pipeline.web.pages import LOOPBACK, issue_page, make_app, page_environment, serve_file, shown_at
from pipeline.web.people import add_people
from pipeline.web.reader import add_readers_pages, form_values


def public_app(newsroom: Newsroom, passwords: Passwords | None = None) -> FastAPI:
    """The public pages, and the newsroom behind its door. GET and HEAD change nothing."""
    own = urlsplit(newsroom.masthead.base_url)
    pages = page_environment(newsroom.config.templates)

    def page(name: str, status: int = 200, /, **values: object) -> HTMLResponse:
        return HTMLResponse(pages.get_template(name).render(masthead=newsroom.masthead, **values), status)

    def apology(number: str) -> HTMLResponse:
        text = f"That is our fault and not yours. If it happens again, write to us and name this number: {number}."
        return page("message.html", 500, title="Something went wrong", text=text)

    hosts = (*LOOPBACK, *((own.hostname,) if own.hostname else ()))
    app = make_app(hosts, over_tls=own.scheme == "https", apology=apology)
    for name in ("public.css", "icon.svg"):
        serve_file(app, newsroom.config.templates, name)
    gate = add_readers_pages(app, newsroom, page)

    @shown_at(app, "/")
    def home() -> HTMLResponse:
        with newsroom.database.read() as session:
            issues = [(issue.slot, issue.number, issue.rendered.subject) for issue in ledger.published(session)]
        return page("home.html", issues=issues, **form_values(newsroom, gate))

    @shown_at(app, "/issues/{slot}")
    def issue(slot: str) -> Response:
        with newsroom.database.read() as session:
            found = ledger.find(session, slot)
        if found is None or found.enrolled_at is None:
            return page("message.html", 404, title="No such issue", text="Nothing was published under this address.")
        return issue_page(public_page(found.rendered), frame_ancestors="'none'")

    add_hooks(app, newsroom)

    @app.exception_handler(404)
    def nothing(_request: Request, _error: Exception) -> HTMLResponse:
        return page("message.html", 404, title="Nothing here", text="There is no page under this address.")

    @app.get("/healthz")
    def healthy() -> PlainTextResponse:
        with newsroom.database.read() as session:
            ledger.published(session)
        return PlainTextResponse("ok")

    frame = add_newsroom(app, newsroom, passwords or Passwords())
    add_people(app, frame)
    add_desk(app, frame)
    return app
