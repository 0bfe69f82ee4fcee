"""A server on loopback that speaks as much of the providers' HTTP APIs as sending needs, and does as it is told."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class Call:
    """One request as it came over the wire; names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def json(self) -> Any:
        return json.loads(self.body)

    @cached_property
    def fields(self) -> list[tuple[str, str]]:
        """The parts of a form (RFC 7578), or the fields of one that is encoded like a query."""
        if self.headers["content-type"] == "application/x-www-form-urlencoded":
            return parse_qsl(self.body.decode(), keep_blank_values=True)
        raw = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode() + self.body
        return [
            (str(part.get_param("name", header="content-disposition")), (part.get_payload(decode=True) or b"").decode())  # type: ignore[union-attr]  # bytes, since it is decoded
            for part in BytesParser(policy=HTTP).parsebytes(raw).iter_parts()
        ]

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

    @property
    def addresses(self) -> list[str]:
        """Whom the call is for; nobody, if it sends nothing."""
        if self.path.endswith("/messages"):
            return self.all("to")
        if self.path == "/email/batch":
            return [each["To"] for each in self.json]
        return [each["to"][0] for each in self.json] if self.path == "/emails/batch" else []

    def answer(self, number: int) -> object:
        """What the API says when it takes the call."""
        if self.path.endswith("/messages"):
            return {"id": f"<20261127.{number}@news.example.com>", "message": "Queued. Thank you."}
        ids = [f"{number:08x}-0000-4000-8000-{place:012x}" for place in range(len(self.addresses))]
        if self.path == "/email/batch":
            return [
                {"To": to, "SubmittedAt": "2026-11-27T03:00:05-05:00", "MessageID": own, "ErrorCode": 0, "Message": "OK"}
                for to, own in zip(self.addresses, ids, strict=True)
            ]
        return {"data": [{"id": own} for own in ids]} if self.path == "/emails/batch" else {}


@dataclass(frozen=True)
class Reply:
    """An answer; without a body what the API says. With `drop` the connection is cut instead, after the call was taken."""

    status: int = 200
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


OK = Reply()


@dataclass
class FakeHttp:
    """Keeps what it accepted in `accepted`; `reply` decides about each call by its number, from 1."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    accepted: list[Call] = field(default_factory=list)
    reply: Callable[[int, Call], Reply] = lambda _number, _call: OK
    lock: threading.Lock = field(default_factory=threading.Lock)
    keys: dict[str, tuple[bytes, Reply]] = field(default_factory=dict)

    @property
    def readers(self) -> list[str]:
        """Every address that a copy was accepted for."""
        return [address for call in self.accepted for address in call.addresses]

    def take(self, call: Call) -> Reply:
        with self.lock:
            self.calls.append(call)
            number = len(self.calls)
        key = call.headers.get("idempotency-key", "")
        if key in self.keys:
            body, first = self.keys[key]
            return first if body == call.body else Reply(409, json.dumps({"name": "invalid_idempotent_request"}))
        reply = self.reply(number, call)
        if reply.status == 200:
            with self.lock:
                self.accepted.append(call)
        if reply.body is None:
            said = json.dumps(call.answer(number)) if reply.status == 200 else ""
            reply = Reply(reply.status, said, reply.headers, reply.drop)
        if key and reply.status == 200:
            self.keys[key] = (call.body, Reply(200, reply.body))
        return reply


@contextmanager
def fake_http() -> Iterator[FakeHttp]:
    """A running fake on a free port."""
    fake = FakeHttp()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = fake.take(Call(self.command, self.path, headers, body))
            if reply.drop:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            said = (reply.body or "").encode()
            self.send_response_only(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

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
