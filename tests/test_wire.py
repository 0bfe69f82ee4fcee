"""The one way to call an API over real HTTP: connections kept and renewed, and each failure told as what it means."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline import wire
from pipeline.errors import NotProcessed, Unclear
from pipeline.wire import Reply, Wire, redact


@dataclass
class Desk:
    """A server that notes which connection each call came by and answers as it is told."""

    url: str = ""
    calls: list[tuple[int, str, dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[bytes], bytes] = lambda _body: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    hangs_up: bool = False

    @property
    def connections(self) -> list[int]:
        return [number for number, *_ in self.calls]


@contextmanager
def desk() -> Iterator[Desk]:
    made = Desk()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made.calls.append((self.client_address[1], self.path, dict(self.headers), body))
            self.wfile.write(made.answer(body))
            self.close_connection = made.hangs_up

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def there() -> Iterator[Desk]:
    with desk() as made:
        yield made


def test_a_call_carries_its_body_its_headers_and_no_more(there: Desk) -> None:
    reply = Wire("X", there.url).call("POST", "/v1/send?a=b", {"Authorization": "Bearer k"}, b"body")
    ((_, path, headers, body),) = there.calls
    assert (reply.status, reply.text, path, body) == (200, "ok", "/v1/send?a=b", b"body")
    assert headers["Authorization"] == "Bearer k"
    assert headers["User-Agent"] == "friday"
    assert "Cookie" not in headers


def test_calls_after_each_other_share_a_connection(there: Desk) -> None:
    line = Wire("X", there.url)
    for _ in range(3):
        line.call("POST", "/", {}, b"")
    assert len(set(there.connections)) == 1


def test_after_a_rest_a_fresh_connection_is_made(there: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "IDLE_SECONDS", -1.0)
    line = Wire("X", there.url)
    for _ in range(2):
        line.call("POST", "/", {}, b"")
    assert len(set(there.connections)) == 2


def test_a_call_that_is_under_way_is_not_hurt_by_a_fresh_connection(there: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "IDLE_SECONDS", -1.0)
    arrived, go_on = threading.Event(), threading.Event()
    usual = there.answer

    def answer(body: bytes) -> bytes:
        if body == b"slow":
            arrived.set()
            assert go_on.wait(5)
        return usual(body)

    there.answer = answer
    line, replies = Wire("X", there.url, 2), list[Reply]()
    slow = threading.Thread(target=lambda: replies.append(line.call("POST", "/", {}, b"slow")))
    slow.start()
    assert arrived.wait(5)
    assert line.call("POST", "/", {}, b"quick").status == 200
    go_on.set()
    slow.join()
    assert [reply.status for reply in replies] == [200]
    assert line.call("POST", "/", {}, b"quick").status == 200


def test_a_redirect_is_an_answer_and_not_followed(there: Desk) -> None:
    there.answer = lambda _body: b"HTTP/1.1 307 Elsewhere\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    assert Wire("X", there.url).call("POST", "/", {}, b"").status == 307
    assert len(there.calls) == 1


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", b"\x00\x01 not HTTP at all\r\n\r\n"]
)
def test_an_answer_that_breaks_off_is_unclear_and_nothing_is_tried_again(there: Desk, answer: bytes) -> None:
    there.answer, there.hangs_up = lambda _body: answer, True
    with pytest.raises(Unclear, match="the connection broke before X answered"):
        Wire("X", there.url).call("POST", "/", {}, b"")
    assert len(there.calls) == 1


def test_nobody_listening_is_surely_not_processed() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(NotProcessed, match="X cannot be reached"):
        Wire("X", url).call("POST", "/", {}, b"")


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "120"}, timedelta(seconds=120)),
        ({"Retry-After": "1.5"}, timedelta(seconds=1.5)),
        (
            {"Retry-After": "Fri, 27 Nov 2026 08:01:30 GMT", "Date": "Fri, 27 Nov 2026 08:00:00 GMT"},
            timedelta(seconds=90),
        ),
        (
            {"Retry-After": "Fri, 27 Nov 2026 07:00:00 GMT", "Date": "Fri, 27 Nov 2026 08:00:00 GMT"},
            timedelta(0),
        ),
        ({"Retry-After": "Fri, 27 Nov 2026 08:01:30 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_as_seconds_or_by_the_answers_own_clock(
    headers: dict[str, str], wait: timedelta | None
) -> None:
    assert Reply(429, headers, b"").retry_after == wait


@pytest.mark.parametrize("body", [b"", b"no", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_none(body: bytes) -> None:
    assert Reply(200, {}, body).json is None


def test_what_a_provider_says_is_kept_short_on_one_line_and_without_addresses() -> None:
    said = redact("  'ada@example.com'\nis  not valid " + "x" * 300)
    assert said.startswith("an address is not valid xxx")
    assert len(said) == 200
