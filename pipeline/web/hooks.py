"""Where providers tell what became of copies: heard and kept at once, applied later by the clock."""

import logging

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from pipeline.errors import Forged, ProviderError
from pipeline.listen import hear
from pipeline.newsroom import Newsroom

# The largest that a provider sends are a few hundred events in one call.
MOST_BYTES = 1_000_000

log = logging.getLogger(__name__)


def add_hooks(app: FastAPI, newsroom: Newsroom) -> None:
    """Let providers call at `/hooks/<provider>`. What is not theirs is answered 401, and says nothing more."""

    @app.post("/hooks/{provider}")
    async def hook(provider: str, request: Request) -> PlainTextResponse:
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    return PlainTextResponse("too large", 413)
        except ClientDisconnect:
            return PlainTextResponse("not whole", 400)
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            await run_in_threadpool(hear, newsroom, provider, headers, bytes(body))
        except Forged as error:
            # The path is whatever the caller likes, so it is not repeated.
            log.warning("a call to a hook was refused: %s", error)
            return PlainTextResponse("not accepted", 401)
        except ProviderError as error:
            # What proves the call is the provider's cannot be had now; it calls again.
            log.warning("a call to a hook cannot be looked at now: %s", error)
            return PlainTextResponse("not now", 503)
        return PlainTextResponse("ok")
