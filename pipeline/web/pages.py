"""What the pages of preview and public site share: templates, styles, security headers, refused hosts."""

import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import UsageError

Page = TypeVar("Page", bound=Callable[..., Any])

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost")
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; frame-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# An issue may hold anything that a source wrote, so it gets no script, no request and no origin.
ISSUE_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src https: data:"
)


def _apology(number: str) -> Response:
    return PlainTextResponse(f"Something went wrong. It stands in the log under the number {number}.", 500)


def make_app(hosts: tuple[str, ...], *, over_tls: bool = False, apology: Callable[[str], Response] = _apology) -> FastAPI:
    """An app without documentation pages that answers to these hosts only and sends the security headers.

    What nobody has foreseen goes into the log under a number, and `apology` makes the answer that tells it.
    `over_tls` says that there is TLS in front of it, which browsers then ask for by themselves for a year.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(_Cover, over_tls=over_tls, apology=apology)
    return app


class _Cover:
    """Lies around all answers: it gives them their headers, and answers what nobody has foreseen.

    An answer that breaks off in the middle is left broken, so that nobody takes it for whole.
    """

    def __init__(self, app: ASGIApp, *, over_tls: bool, apology: Callable[[str], Response]) -> None:
        self._app, self._over_tls, self._apology = app, over_tls, apology

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._add_headers(MutableHeaders(scope=message))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            # Nobody is there to be answered.
            return
        except Exception:  # whoever asked gets a page and a number, and whoever looks into the log the rest
            number = secrets.token_hex(4)
            # The route and not the path, in which there may be a token.
            route = getattr(scope.get("route"), "path", "somewhere")
            log.exception("number %s: %s %s", number, scope["method"], route)
            if begun:
                raise
            await self._sorry(number)(scope, receive, sending)

    def _sorry(self, number: str) -> Response:
        try:
            return self._apology(number)
        except Exception:  # the templates of pages may be what is broken
            log.exception("number %s: the page that should tell it", number)
            return _apology(number)

    def _add_headers(self, headers: MutableHeaders) -> None:
        headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Content-Type-Options"] = "nosniff"
        headers.setdefault("Referrer-Policy", "no-referrer")
        if self._over_tls:
            headers["Strict-Transport-Security"] = "max-age=31536000"


class Server(uvicorn.Server):
    """A server that says at once that it was told to stop, to those who must let go before it can."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Hear of SIGINT or SIGTERM."""
        self._stopping.set()
        super().handle_exit(sig, frame)


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket.

    Raises:
        UsageError: the port is taken, or is not ours to take.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, or asyncio leaves Nagle's delay on and each answer after the first of a connection comes 40 ms late.
    with socket.socket(family, proto=socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}; name another by --port") from None
        listening.listen()
        yield listening


def page_environment(templates: Path) -> Environment:
    """The templates of pages, escaped, an undefined name being a bug."""
    return ImmutableSandboxedEnvironment(loader=FileSystemLoader(templates / "web"), autoescape=True, undefined=StrictUndefined)


def shown_at(app: FastAPI, path: str, **more: Any) -> Callable[[Page], Page]:
    """The decorator of a page: what GET shows, and HEAD without its body. Only GET stands in the app's description."""

    def add(page: Page) -> Page:
        app.get(path, **more)(page)
        app.head(path, include_in_schema=False)(page)
        return page

    return add


def serve_file(app: FastAPI, folder: Path, name: str) -> None:
    """Offer one file of the web templates under its name."""

    @shown_at(app, f"/{name}", include_in_schema=False)
    def file() -> FileResponse:
        return FileResponse(folder / "web" / name)


def issue_page(html: str, *, frame_ancestors: str) -> HTMLResponse:
    """An issue's HTML, which may be framed by `frame_ancestors` only."""
    return HTMLResponse(html, headers={"Content-Security-Policy": f"{ISSUE_POLICY}; frame-ancestors {frame_ancestors}"})
