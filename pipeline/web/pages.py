"""What the pages of preview and public site share: templates, styles, security headers, refused hosts."""

import logging
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

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

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            response = await call_next(request)
        except ClientDisconnect:
            raise
        except Exception:  # whoever asked gets a page and a number, and whoever looks into the log the rest
            number = secrets.token_hex(4)
            # The route and not the path, in which there may be a token.
            log.exception("number %s: %s %s", number, request.method, getattr(request.scope.get("route"), "path", "somewhere"))
            response = apology(number)
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        if over_tls:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        return response

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return app


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
