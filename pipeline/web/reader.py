"""What a reader does on the web: sign up, confirm, choose, leave. GET and HEAD change nothing; no page tells of anybody else.

Who is on the roll can be told neither from an answer nor from the time that it takes: a sign-up is only kept here,
and answered by mail. The addresses of the other pages hold a token and never an address of mail.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated, Any
from zoneinfo import available_timezones

from fastapi import FastAPI, Path, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from limits import RateLimitItemPerHour
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException

from pipeline import admit
from pipeline.errors import UsageError
from pipeline.newsroom import Newsroom
from pipeline.web.client import network_of
from pipeline.web.pages import shown_at
from subscribers import links, preferences, roll
from subscribers.consent import Asked, Confirmed, Proof
from subscribers.models import State
from subscribers.preferences import Wishes

# A person takes longer to fill in a form than a program does; what lay open for a day is asked for once more.
QUICKEST, LONGEST = timedelta(seconds=2), timedelta(hours=24)
PER_NETWORK = 5
MOST_BYTES = 20_000
# A field that people do not see; whoever fills it in is none.
BAIT = "website"
PAUSES = (0, 1, 2, 4, 8)
Page = Callable[..., HTMLResponse]
Token = Annotated[str, Path(max_length=200)]

_FIELDS = {"email": {"type": "string"}, "topics": {"type": "array", "items": {"type": "string"}}, "stamp": {"type": "string"}}
_BODY = {"schema": {"type": "object", "required": ["email"], "properties": _FIELDS}}
_TAKES = {
    "requestBody": {
        "required": True,
        "content": dict.fromkeys(("application/json", "application/x-www-form-urlencoded", "multipart/form-data"), _BODY),
    }
}
_SAYS: dict[Confirmed, tuple[int, str, str]] = {
    Confirmed.UNKNOWN: (
        404,
        "This link is not known",
        "It may have been cut in two by a mail program. Copy all of it from the mail.",
    ),
    Confirmed.TOO_LATE: (
        410,
        "This link is too old",
        "It was good for seven days, or you have left since. Sign up once more to get a new one.",
    ),
    Confirmed.BARRED: (
        403,
        "This address is closed",
        "It once asked never to be written to, or refused our mail. Write to us if that has changed.",
    ),
    Confirmed.ALREADY: (200, "You are in", "There is nothing left to do."),
    Confirmed.WELCOME: (200, "You are in", "A mail with all that you need to know is on its way."),
}


class Gate:
    """What keeps programs from filling in forms: a signed time, and so many sign-ups in an hour."""

    def __init__(self, newsroom: Newsroom) -> None:
        # Made now where there is none, since no GET may write a file.
        self._keys = newsroom.keys
        self._now = newsroom.now
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._in_all = RateLimitItemPerHour(newsroom.config.web.sign_ups_per_hour, namespace="all")
        self._of_network = RateLimitItemPerHour(PER_NETWORK, namespace="network")

    def stamp(self) -> str:
        """What a form carries: when it was made, signed."""
        return self._keys.sign(links.FORM, int(self._now().timestamp()))

    def is_timely(self, stamp: str) -> bool:
        """Whether a form was filled in neither at once nor days later."""
        made = self._keys.read(links.FORM, stamp)
        if not isinstance(made, int):
            return False
        took = timedelta(seconds=self._now().timestamp() - made)
        return QUICKEST <= took <= LONGEST

    def lets_in(self, network: str) -> bool:
        """Whether one more sign-up is taken, from this network and in all."""
        return self._limiter.hit(self._of_network, network) and self._limiter.hit(self._in_all)


class Unreadable(Exception):
    """A body that is no form and no JSON object, or is too large, by its HTTP status."""

    def __init__(self, status: int = 400) -> None:
        super().__init__(status)
        self.status = status


def add_readers_pages(app: FastAPI, newsroom: Newsroom, page: Page) -> Gate:
    """The pages of readers. `page` fills in a template by its name."""
    gate = Gate(newsroom)
    _add_sign_up(app, newsroom, page, gate)
    _add_confirmation(app, newsroom, page, gate)
    _add_own_pages(app, newsroom, page)
    return gate


def form_values(newsroom: Newsroom, gate: Gate) -> dict[str, object]:
    """What a page needs to show the sign-up form."""
    return {
        "stamp": gate.stamp(), "wording": admit.wording(newsroom), "topics": newsroom.config.topics, "bait": BAIT,
        "typed": "", "chosen": (), "trouble": "",
    }  # fmt: skip


def _add_sign_up(app: FastAPI, newsroom: Newsroom, page: Page, gate: Gate) -> None:
    @shown_at(app, "/subscribe")
    def form() -> HTMLResponse:
        return page("subscribe.html", **form_values(newsroom, gate))

    @app.post("/subscribe", openapi_extra=_TAKES, responses={400: {}, 413: {}, 422: {}, 429: {}})
    async def sign_up(request: Request) -> Response:
        as_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        say = _in_json if as_json else partial(_in_html, page)
        try:
            said = await _read(request, as_json=as_json)
        except Unreadable as error:
            return say(Said(error.status, "This cannot be read", "Send a form or a JSON object."))
        form = "json" if as_json else "snippet" if said.get("form") == "snippet" else "page"
        return say(await run_in_threadpool(_take, newsroom, gate, said, form, proof_of(newsroom, request)))


@dataclass(frozen=True, slots=True)
class Said:
    """What a sign-up is answered: a page of its own, or the form again with these values."""

    status: int
    title: str
    text: str
    again: str = ""
    values: Mapping[str, object] = field(default_factory=dict)


_KEPT = Said(
    200,
    "Look into your mailbox",
    "A mail is on its way to the address that you gave. The link in it makes you a reader; it is good for seven days.",
)
_TOO_MANY = Said(
    429, "Not now", "So many sign-ups have come within an hour that this one was not taken. Try again in an hour or two."
)
_TOO_QUICK = f"Send this stamp with the form, not earlier than {QUICKEST.seconds} seconds from now."


def _take(newsroom: Newsroom, gate: Gate, said: Mapping[str, Any], form: str, proof: Proof) -> Said:
    """Keep a sign-up if a person seems to have made it. Nothing of this depends on who is on the roll."""
    typed = _text(said.get("email"), 320)
    topics = tuple(each for each in _texts(said.get("topics")) if each in newsroom.config.topics)
    if _text(said.get(BAIT), 1):
        return _KEPT
    shown = {**form_values(newsroom, gate), "typed": typed, "chosen": topics}
    try:
        address = roll.normalise(typed)
    except UsageError as error:
        trouble = f"This is {error}." if typed else "Write your mail address into the field."
        return Said(422, "Sign up", trouble, "subscribe.html", {**shown, "trouble": trouble})
    if not gate.is_timely(_text(said.get("stamp"), 200)):
        return Said(422 if form == "json" else 200, "One more click", _TOO_QUICK, "once_more.html", shown)
    if not gate.lets_in(proof.network):
        return _TOO_MANY
    admit.keep(newsroom, Asked(address, form, admit.wording(newsroom), proof, topics=topics))
    return _KEPT


def _in_json(said: Said) -> Response:
    stamp = {"stamp": said.values["stamp"]} if said.again else {}
    told = {"ok": True, "next": said.text} if said is _KEPT else {"error": said.text, **stamp}
    return JSONResponse(told, said.status)


def _in_html(page: Page, said: Said) -> Response:
    if said.again:
        return page(said.again, said.status, **said.values)
    return page("message.html", said.status, title=said.title, text=said.text)


def _add_confirmation(app: FastAPI, newsroom: Newsroom, page: Page, gate: Gate) -> None:
    def say(outcome: Confirmed) -> HTMLResponse:
        status, title, text = _SAYS[outcome]
        if outcome is Confirmed.TOO_LATE:
            return page("subscribe.html", status, **{**form_values(newsroom, gate), "trouble": f"{title}. {text}"})
        return page("message.html", status, title=title, text=text)

    @shown_at(app, "/c/{token}", responses={403: {}, 404: {}, 410: {}})
    def confirming(token: Token) -> HTMLResponse:
        outcome = admit.look(newsroom, token)
        return (
            page("confirm.html", token=token, wording=admit.wording(newsroom)) if outcome is Confirmed.WELCOME else say(outcome)
        )

    @app.post("/c/{token}", responses={403: {}, 404: {}, 410: {}})
    def confirm(request: Request, token: Token) -> HTMLResponse:
        outcome, subscriber = admit.confirm(newsroom, token, proof_of(newsroom, request))
        if outcome in (Confirmed.WELCOME, Confirmed.ALREADY) and subscriber:
            status, title, text = _SAYS[outcome]
            return page("welcome.html", status, title=title, text=text, token=subscriber.token)
        return say(outcome)


def _add_own_pages(app: FastAPI, newsroom: Newsroom, page: Page) -> None:
    zones = sorted(available_timezones() - {"Factory", "localtime"})

    def unknown() -> HTMLResponse:
        return page("message.html", 404, title="This link is not known", text=UNKNOWN_LINK)

    def only_a_test() -> HTMLResponse:
        return page("message.html", title="This was a test", text=TEST_LINK)

    def left(token: str) -> HTMLResponse:
        return page("left.html", token=token)

    @shown_at(app, "/u/{token}", responses={404: {}})
    def leaving(token: Token) -> HTMLResponse:
        with newsroom.database.read() as session:
            subscriber = roll.by_token(session, token)
        if subscriber is None:
            return only_a_test() if token == links.OF_A_TEST else unknown()
        return left(token) if subscriber.state == State.UNSUBSCRIBED else page("leave.html", token=token)

    @app.post("/u/{token}", responses={404: {}})
    def leave(token: Token) -> HTMLResponse:
        if token == links.OF_A_TEST:
            return only_a_test()
        # RFC 8058: no cookie, no redirect, whatever the body says; doing it twice is as doing it once.
        with newsroom.database.write() as session:
            found = roll.unsubscribe_by_token(session, token, newsroom.now())
        return left(token) if found else unknown()

    def preferences_page(token: str, *, saved: bool = False, trouble: str = "", status: int = 200) -> HTMLResponse:
        with newsroom.database.read() as session:
            subscriber = roll.by_token(session, token)
            wishes = preferences.of(session, subscriber) if subscriber else None
        if subscriber is None or wishes is None:
            return unknown()
        paused = subscriber.paused_until
        still = paused if paused and paused > newsroom.now() else None
        return page(
            "preferences.html", status, token=token, wishes=wishes, state=subscriber.state, saved=saved, trouble=trouble,
            topics=newsroom.config.topics, languages=newsroom.config.languages, pauses=PAUSES, zones=zones,
            paused_until=f"{still.astimezone(newsroom.schedule.zone):%-d %B %Y}" if still else "",
            newsletters_zone=newsroom.schedule.zone.key,
        )  # fmt: skip

    @shown_at(app, "/p/{token}", responses={404: {}})
    def choosing(token: Token) -> HTMLResponse:
        return preferences_page(token)

    @app.post("/p/{token}", responses={400: {}, 404: {}, 413: {}, 422: {}})
    async def choose(request: Request, token: Token) -> HTMLResponse:
        try:
            said = await _read(request, as_json=False)
        except Unreadable:
            return page("message.html", 400, title="This cannot be read", text="Send the form of this page.")
        return await run_in_threadpool(keep, token, said)

    def keep(token: str, said: Mapping[str, Any]) -> HTMLResponse:
        zone, language, weeks = (_text(said.get(name), 100) for name in ("zone", "language", "pause"))
        if zone not in ("", *zones):
            return preferences_page(token, trouble="Choose a time zone from the list, such as Europe/Berlin.", status=422)
        if language not in ("", *newsroom.config.languages):
            return preferences_page(token, trouble="Choose a language from the list.", status=422)
        if weeks not in ("", *map(str, PAUSES)):
            return preferences_page(token, trouble="Choose for how many weeks to pause from the list.", status=422)
        now = newsroom.now()
        until = now + timedelta(weeks=int(weeks)) if weeks and int(weeks) else None
        topics = frozenset(each for each in _texts(said.get("topics")) if each in newsroom.config.topics)
        with newsroom.database.write() as session:
            subscriber = roll.by_token(session, token)
            if subscriber is None:
                return unknown()
            keeps_pause = not weeks
            wishes = Wishes(topics, zone, language, subscriber.paused_until if keeps_pause else until)
            preferences.keep(session, subscriber, wishes, frozenset(newsroom.config.topics), now)
        return preferences_page(token, saved=True)


TEST_LINK = "In a reader's copy this link leads to the page by which they leave. In a test copy it changes nothing."
UNKNOWN_LINK = "It may have been cut in two by a mail program. Copy all of it from the end of an issue, or reply to one."


def proof_of(newsroom: Newsroom, request: Request) -> Proof:
    """Where a request came from, as far as it is kept as evidence."""
    agent = roll.clean_name(request.headers.get("user-agent", ""))
    return Proof(network_of(request, newsroom.config.web.trusted_proxies), agent)


async def _read(request: Request, *, as_json: bool) -> Mapping[str, Any]:
    """A form, or a JSON object, as a mapping; of a form, `topics` are a list.

    Raises:
        Unreadable: it is neither, or too large.
    """
    body = await request.body()
    if len(body) > MOST_BYTES:
        raise Unreadable(413)
    if as_json:
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            raise Unreadable from None
        if not isinstance(said, dict):
            raise Unreadable
        return said
    try:
        async with request.form(max_files=0, max_fields=100, max_part_size=MOST_BYTES) as form:
            return {**dict(form.items()), "topics": form.getlist("topics")}
    except (MultiPartException, ValueError):
        raise Unreadable from None


def _text(value: object, most: int) -> str:
    return value.strip()[:most] if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
