"""The newsroom in the browser: signing in and out, the home page, one's own account, and the frame that screens hang in.

A screen is a function of its own file that takes the app and the `Frame`, adds routes below `/newsroom`, and asks for
`guest: Here`, or for an owner by `require`. Sessions and tokens are seen to before it, by `guard`.
"""

import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Form, Request, Response
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from pipeline import gate, ledger, place, show
from pipeline import publish as route
from pipeline.errors import UsageError
from pipeline.newsroom import Newsroom
from pipeline.staff import MOST_CHARACTERS, Guest, Passwords, Role
from pipeline.web.door import KNOCK, ROOT, SIGN_IN, Door, Here, Refused, lies_below, require, token_of
from pipeline.web.guard import Guard
from pipeline.web.pages import page_environment, serve_file

ACCOUNT = f"{ROOT}/account"
MOST_ADDRESS = 320
_WAY = re.compile(r"/newsroom(/[A-Za-z0-9_-]+)*")

# What the door answers in place of any route behind it, for the description of the app.
_PAGE: dict[str, Any] = {"content": {"text/html": {"schema": {"type": "string"}}}}
GUARDED: dict[int | str, dict[str, Any]] = {
    303: {"description": "Sign in first, or done: look there"},
    401: {"description": "Not signed in", **_PAGE},
    403: {"description": "Not from here, or not for an editor", **_PAGE},
    422: {"description": "The form is not whole", **_PAGE},
}
SIGNING_IN: dict[int | str, dict[str, Any]] = {
    **GUARDED,
    429: {"description": "Too many tries", **_PAGE},
    503: {"description": "Too many people at once", **_PAGE},
}

Password = Annotated[str, Form(min_length=1, max_length=4 * MOST_CHARACTERS)]


@dataclass(frozen=True)
class Frame:
    """What every screen of the newsroom is shown in: its templates, with whoever is signed in and the token of the forms."""

    newsroom: Newsroom
    door: Door
    templates: Environment

    def page(self, request: Request, name: str, status: int = 200, **values: object) -> HTMLResponse:
        """A page of `templates/web/newsroom/`. It gets `guest`, `token`, `path` and `masthead` beside what is given."""
        guest: Guest | None = getattr(request.state, "guest", None)
        token = token_of(self.door.secret(request) or "") if guest else ""
        known: dict[str, object] = {
            "guest": guest,
            "token": token,
            "path": request.url.path,
            "masthead": self.newsroom.masthead,
        }
        return HTMLResponse(self.templates.get_template(f"newsroom/{name}").render({**known, **values}), status)

    def message(self, request: Request, status: int, title: str, text: str) -> Response:
        """A sentence to a person, or to a script that asked for JSON."""
        if _wants_json(request):
            return JSONResponse({"title": title, "detail": text}, status)
        return self.page(request, "message.html", status, title=title, text=text)


def add_newsroom(app: FastAPI, newsroom: Newsroom, passwords: Passwords) -> Frame:
    """Put the door before every route of the app, and the newsroom behind it. Screens are added to what comes back."""
    door = Door(newsroom, passwords)
    frame = Frame(newsroom, door, page_environment(newsroom.config.templates))
    _answer_errors(app, frame)
    # The innermost, so that what it answers gets the headers of every page, and no host but ours comes that far.
    app.user_middleware.append(Middleware(Guard, door, lambda request, refused: _refuse(frame, request, refused)))
    for name in ("newsroom.css", "import.js", "people.js"):
        serve_file(app, newsroom.config.templates, name)

    @app.get(SIGN_IN, response_class=HTMLResponse, responses=GUARDED)
    def sign_in_page(request: Request, to: str = ROOT) -> Response:
        if getattr(request.state, "guest", None):
            return RedirectResponse(_way(to), 303)
        return _sign_in_form(frame, request, to=_way(to))

    @app.post(SIGN_IN, status_code=303, response_class=HTMLResponse, responses=SIGNING_IN)
    async def sign_in(
        request: Request,
        address: Annotated[str, Form(min_length=1, max_length=MOST_ADDRESS)],
        password: Password,
        to: Annotated[str, Form()] = ROOT,
    ) -> Response:
        try:
            secret = await door.sign_in(request, address, password)
        except Refused as refused:
            return _sign_in_form(frame, request, refused, to=_way(to), address=address)
        response = RedirectResponse(_way(to), 303)
        door.set_cookie(request, response, secret)
        door.drop_cookie(request, response, KNOCK)
        return response

    @app.post(f"{ROOT}/sign-out", status_code=303, response_class=HTMLResponse, responses=GUARDED)
    def sign_out(request: Request) -> Response:
        door.sign_out(request)
        response = RedirectResponse(SIGN_IN, 303)
        door.drop_cookie(request, response)
        return response

    @app.get(ROOT, response_class=HTMLResponse, responses=GUARDED)
    def home(request: Request) -> Response:
        moved = place.see(newsroom)
        return frame.page(request, "home.html", news=_news(newsroom, moved=bool(moved)), moved=moved)

    @app.post(f"{ROOT}/adopt", response_class=HTMLResponse, responses=GUARDED)
    def adopt(request: Request, guest: Annotated[Guest, Depends(require(Role.OWNER))]) -> Response:
        try:
            adopted = place.adopt(newsroom, guest.admin.address)
        except UsageError:
            return RedirectResponse(ROOT, 303)
        return frame.message(request, 200, "This is the one from now on", " ".join(show.adopted_lines(adopted)))

    @app.get(ACCOUNT, response_class=HTMLResponse, responses=GUARDED)
    def account(request: Request, *, done: bool = False) -> Response:
        return frame.page(request, "account.html", trouble="", done=done)

    @app.post(ACCOUNT, status_code=303, response_class=HTMLResponse, responses=SIGNING_IN)
    async def change_password(request: Request, guest: Here, current: Password, new: Password, again: Password) -> Response:
        if new != again:
            return _account_form(frame, request, 422, "the new password was not typed the same twice")
        try:
            secret = await door.change_password(request, guest, current, new)
        except UsageError as error:
            return _account_form(frame, request, 422, str(error))
        except Refused as refused:
            text = "The current password is wrong." if refused.status == _WRONG else refused.text
            return _account_form(frame, request, refused.status, text, refused.headers)
        response = RedirectResponse(f"{ACCOUNT}?done=1", 303)
        door.set_cookie(request, response, secret)
        return response

    return frame


_WRONG = 401


def _sign_in_form(frame: Frame, request: Request, refused: Refused | None = None, *, to: str, address: str = "") -> Response:
    knock = frame.door.knock(request)
    status, text = (refused.status, refused.text) if refused else (200, "")
    response = frame.page(request, "sign-in.html", status, token=token_of(knock), trouble=text, to=to, address=address)
    frame.door.set_cookie(request, response, knock, KNOCK)
    response.headers.update(refused.headers if refused else {})
    return response


def _account_form(frame: Frame, request: Request, status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    sentence = text[0].upper() + text[1:].removesuffix(".") + "."
    response = frame.page(request, "account.html", status, trouble=sentence, done=False)
    response.headers.update(headers or {})
    return response


def _refuse(frame: Frame, request: Request, refused: Refused) -> Response:
    """What is answered in place of a route: a person who looks is shown the way in, everything else is told why."""
    looks = request.method in {"GET", "HEAD"} and not _wants_json(request)
    if refused.status == _WRONG and looks:
        way = _way(request.url.path)
        return RedirectResponse(SIGN_IN if way == ROOT else f"{SIGN_IN}?to={way}", 303)
    response = frame.message(request, refused.status, refused.title, refused.text)
    response.headers.update(refused.headers)
    return response


def _answer_errors(app: FastAPI, frame: Frame) -> None:
    """Answer errors behind the door by pages of the newsroom, and leave those before it to who answered them before."""
    public = app.exception_handlers.get(404)

    @app.exception_handler(404)
    async def nothing(request: Request, error: HTTPException) -> Response:
        if public and not lies_below(request.url.path, ROOT):
            answer: Response | Awaitable[Response] = public(request, error)
            return await answer if isinstance(answer, Awaitable) else answer
        return frame.message(request, 404, "Nothing here", "There is no page under this address, or no longer.")

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _refuse(frame, request, error)

    @app.exception_handler(RequestValidationError)
    async def not_whole(request: Request, error: RequestValidationError) -> Response:
        if not lies_below(request.url.path, ROOT):
            return await request_validation_exception_handler(request, error)
        # What was sent is not repeated: there may be a password in it.
        fields = sorted({str(each["loc"][-1]) for each in error.errors()})
        text = f"Something is missing, too long or of another kind than expected: {', '.join(fields)}. Go back and mend it."
        return frame.message(request, 422, "The form is not whole", text)


def _way(to: str) -> str:
    """Where somebody wanted to go, if that lies in the newsroom."""
    return to if _WAY.fullmatch(to) and to != SIGN_IN else ROOT


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


@dataclass(frozen=True, slots=True)
class _Last:
    """The last issue as the home page tells of it."""

    slot: str
    number: int
    subject: str
    state: str
    trouble: str
    counts: dict[str, int]
    fates: dict[str, int]


def _news(newsroom: Newsroom, *, moved: bool) -> dict[str, object]:
    """What the home page tells: the slot that comes, the last issue, and how many readers there are."""
    with newsroom.database.read() as session:
        slot = ledger.coming(session, newsroom.schedule, newsroom.now())
        issue = ledger.newest(session)
        tally = issue and ledger.tally(session, issue)
        last = issue and tally and _Last(
            issue.slot, issue.number, issue.rendered.subject, issue.state.replace("_", " "), issue.trouble,
            dict(tally.states), {fate.replace("_", " "): number for fate, number in tally.fates.items()},
        )  # fmt: skip
    schedule = newsroom.schedule
    opens = slot.at.astimezone(schedule.zone)
    hour = (f"{schedule.at:%H:%M}", "where each reader is") if schedule.reader_time else (f"{opens:%H:%M}", f"{opens:%Z}")
    readers, stands = route.count_readers(newsroom), gate.standing(newsroom, slot)
    wrong = stands.issue is None and route.is_blocked(newsroom, slot)
    return {
        "slot": slot,
        "hour": hour,
        "stands": show.standing_text(newsroom, stands, readers, wrong=wrong, moved=moved),
        "last": last,
        "readers": readers,
    }
