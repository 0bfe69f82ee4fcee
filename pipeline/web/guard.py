"""What stands before every route of the app, whatever it is and whoever added it, and asks who comes and from where.

Below `/newsroom` nothing answers without a session, and nowhere is anything but GET, HEAD and OPTIONS answered without
a token, unless its path stands in `WITHOUT_TOKEN`. A route has nothing to do for this, and cannot forget it.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from fastapi import Request, Response
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, FormParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.web.door import FIELD, FORM_BYTES, HEADER, ROOT, SIGN_IN, Door, Refused, lies_below, not_signed_in

# What comes to these acts for nobody who is signed in: providers sign what they tell, a link of RFC 8058 holds its
# own secret, and the public forms are for everybody.
WITHOUT_TOKEN = ("/hooks", "/subscribe", "/c", "/p", "/u")
_SAFE = {"GET", "HEAD", "OPTIONS"}
_FORMS = {b"application/x-www-form-urlencoded", b"multipart/form-data"}


class Guard:
    """The middleware that asks every request who it is and where it comes from, before any route sees it."""

    def __init__(self, app: ASGIApp, door: Door, refuse: Callable[[Request, Refused], Response]) -> None:
        self._app = app
        self._door = door
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "http":
            await RequestBodyLimitResponder(self._ask, self._door.most_bytes(scope["path"]))(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            # There is none, and one that is added must think of its door first.
            await send({"type": "websocket.close", "code": 1008})

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, inside = Request(scope, receive), lies_below(scope["path"], ROOT)
        send = _with_headers(send) if inside else send
        try:
            if inside:
                request.state.guest = await run_in_threadpool(self._door.enter, request)
                if request.state.guest is None and scope["path"] != SIGN_IN:
                    raise not_signed_in()
            if request.method not in _SAFE and not any(lies_below(scope["path"], each) for each in WITHOUT_TOKEN):
                self._door.check_origin(request)
                receive = await self._check_token(request, receive)
        except Refused as refused:
            await self._refuse(request, refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _check_token(self, request: Request, receive: Receive) -> Receive:
        """See that a request brings its token; gives back what the route then reads the whole body from.

        Of a form only the beginning is read here, so that a long file can follow the token.

        Raises:
            Refused: it brings none, or another's.
        """
        heard: deque[Message] = deque()
        given = request.headers.get(HEADER) or await _token_in_form(request, receive, heard)
        if not given or not self._door.is_token(request, given):
            text = "The page that this came from has lain open for too long, or cookies are off. Load it again and repeat."
            raise Refused(403, "This page is too old", text)

        async def again() -> Message:
            return heard.popleft() if heard else await receive()

        return again


async def _token_in_form(request: Request, receive: Receive, heard: deque[Message]) -> str | None:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind not in _FORMS or (kind == b"multipart/form-data" and not boundary):
        return None
    found: list[bytes] = []

    def on_field(field: Field) -> None:
        if field.field_name == FIELD.encode():
            found.append(field.value or b"")

    with suppress(FormParserError):
        parser = FormParser(kind.decode("latin-1"), on_field, None, boundary=boundary)
        read, more = 0, True
        while more and not found and read < FORM_BYTES:
            message = await receive()
            heard.append(message)
            body, more = message.get("body", b""), message.get("more_body", False)
            parser.write(body)
            read += len(body)
        if not more:
            parser.finalize()
    return found[0].decode("latin-1") if found else None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            # With `no-referrer` browsers send our own forms with `Origin: null` (https://fetch.spec.whatwg.org/#origin-header).
            headers["Referrer-Policy"] = "same-origin"
            headers["Cache-Control"] = "no-store"
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
        await send(message)

    return sending
