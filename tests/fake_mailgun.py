"""A server on loopback that speaks as much of Mailgun's API as sending needs, and does as it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Call:
    """One request as it came over the wire."""

    path: str
    authorization: str
    content_type: str
    body: bytes
    fields: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    @property
    def variables(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = json.loads(self.one("recipient-variables"))
        return found

    def copy_for(self, address: str) -> dict[str, str]:
        """What Mailgun would send to one of the addresses: every field with its variables filled in."""
        variables = self.variables[address]
        filled = {}
        for key, text in self.fields:
            value = text
            for name, own in variables.items():
                value = value.replace(f"%recipient.{name}%", own)
            filled[key] = value
        return filled


@dataclass(frozen=True)
class Reply:
    """An answer. With `drop` the connection is cut instead, after the call was taken or before."""

    status: int = 200
    body: str = '{"id": "<20261127.1@news.example.com>", "message": "Queued. Thank you."}'
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


OK = Reply()


@dataclass
class FakeMailgun:
    """Keeps what it accepted in `calls`; `reply` decides about each call by its number, from 1."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    accepted: list[Call] = field(default_factory=list)
    reply: Callable[[int, Call], Reply] = lambda _number, _call: OK
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def readers(self) -> list[str]:
        """Every address that a copy was accepted for."""
        return [address for call in self.accepted for address in call.all("to")]

    def take(self, call: Call) -> Reply:
        with self.lock:
            self.calls.append(call)
            number = len(self.calls)
        reply = self.reply(number, call)
        if reply.status == 200:
            with self.lock:
                self.accepted.append(call)
        return reply


@contextmanager
def fake_mailgun() -> Iterator[FakeMailgun]:
    """A running fake on a free port."""
    fake = FakeMailgun()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            content_type = self.headers["Content-Type"]
            call = Call(self.path, self.headers["Authorization"], content_type, body, _fields(content_type, body))
            reply = fake.take(call)
            if reply.drop:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self.send_response_only(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body.encode())))
            self.end_headers()
            self.wfile.write(reply.body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _fields(content_type: str, body: bytes) -> list[tuple[str, str]]:
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    return [
        (str(part.get_param("name", header="content-disposition")), (part.get_payload(decode=True) or b"").decode())  # type: ignore[union-attr]  # bytes, since it is decoded
        for part in message.iter_parts()
    ]
