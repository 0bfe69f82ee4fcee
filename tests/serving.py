"""Serve an app of ours on loopback for as long as a test lasts."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def serving(app: ASGIApp, stopping: threading.Event | None = None, **more: Any) -> Iterator[str]:
    """The base address of the running app; `stopping` is set before the server waits for open answers.

    `more` goes to uvicorn, such as a certificate.
    """
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, proxy_headers=False, **more)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            if stopping:
                stopping.set()
            server.should_exit = True
            thread.join()
