"""The one way to call an API over real HTTP: connections kept and renewed, and each failure told as what it means."""

import os
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline import wire
from pipeline.errors import ConfigError, NotProcessed, Unclear
from pipeline.wire import Reply, Wire, redact
from tests.sink import CERTIFICATE, server_context

LARGE = b"x" * 8_000_000
LED = b"HTTP/1.1 200 Led\r\n\r\n"


@dataclass
class Desk:
    """A server that notes which connection each call came by and answers as it is told."""

    url: str = ""
    calls: list[tuple[int, str, dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[bytes], bytes] = lambda _body: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    hangs_up: bool = False
    reads: bool = True
    led: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def connections(self) -> list[int]:
        return [number for number, *_ in self.calls]


@contextmanager
def desk(tls: ssl.SSLContext | None = None) -> Iterator[Desk]:
    made = Desk()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)) if made.reads else 1)
            made.calls.append((self.client_address[1], self.path, dict(self.headers), body))
            self.wfile.write(made.answer(body))
            self.close_connection = made.hangs_up

        def do_CONNECT(self) -> None:
            made.led.append((self.path, dict(self.headers)))
            if said := made.answer(b""):
                self.wfile.write(said)
            if not said.startswith(b"HTTP/1.1 200"):
                self.close_connection = True
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                back = threading.Thread(target=pass_on, args=(there, self.connection), daemon=True)
                back.start()
                pass_on(self.connection, there)
                back.join()
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def shutdown_request(self, request: Any) -> None:
            super().shutdown_request(request)
            made.left.release()

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    """Hand over what comes, until it ends."""
    with suppress(OSError):
        while some := source.recv(65_536):
            sink.sendall(some)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing of proxies and certificates."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.delenv(name)


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
            assert go_on.wait(60)
        return usual(body)

    there.answer = answer
    line, replies = Wire("X", there.url), list[Reply]()
    slow = threading.Thread(target=lambda: replies.append(line.call("POST", "/", {}, b"slow")))
    slow.start()
    assert arrived.wait(60)
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


@pytest.mark.parametrize("tls", [None, server_context()], ids=["plain", "TLS"])
def test_an_answer_that_comes_before_the_call_was_read_is_an_answer(
    tls: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with desk(tls) as there:
        there.answer, there.reads, there.hangs_up = lambda _body: b"HTTP/1.1 413 Too large\r\n\r\n", False, True
        line = Wire("X", there.url)
        assert line.call("POST", "/", {}, LARGE).status == 413
        there.answer, there.reads = Desk.answer, True
        assert line.call("POST", "/", {}, b"small").status == 200
        assert len(set(there.connections)) == 2


def test_an_answer_that_only_announces_another_is_unclear_and_no_later_call_gets_it(there: Desk) -> None:
    usual = there.answer
    there.answer = lambda body: b"HTTP/1.1 103 Early Hints\r\n\r\n" * (body == b"hinted") + usual(body).replace(b"ok", body[:2])
    line = Wire("X", there.url)
    with pytest.raises(Unclear, match="the connection broke before X answered"):
        line.call("POST", "/", {}, b"hinted")
    assert line.call("POST", "/", {}, b"my").text == "my"
    assert len(set(there.connections)) == 2


def test_an_answer_to_go_on_is_waited_behind(there: Desk) -> None:
    usual = there.answer
    there.answer = lambda body: b"HTTP/1.1 100 Continue\r\n\r\n" + usual(body)
    assert Wire("X", there.url).call("POST", "/", {}, b"").text == "ok"


@pytest.mark.parametrize(
    "head", [b"Content-Length: 99999999999999999999", b"Content-Length: 9999999999999", b"Transfer-Encoding: chunked\r\n\r\n-5"]
)
def test_an_answer_of_an_absurd_length_is_unclear(there: Desk, head: bytes) -> None:
    there.answer, there.hangs_up = lambda _body: b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\nok", True
    with pytest.raises(Unclear, match="the connection broke before X answered"):
        Wire("X", there.url).call("POST", "/", {}, b"")


def test_connections_that_rest_for_long_are_closed_though_others_are_used(there: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, both = there.answer, threading.Barrier(2)
    there.answer = lambda body: usual(body) if not body or both.wait(60) >= 0 else b""
    line = Wire("X", there.url)
    calls = [threading.Thread(target=line.call, args=("POST", "/", {}, b"both")) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    monkeypatch.setattr(wire, "IDLE_SECONDS", -1.0)
    line.call("POST", "/", {}, b"")
    assert [there.left.acquire(timeout=60) for _ in range(2)] == [True, True]


def test_a_call_that_is_not_read_and_not_answered_is_unclear(there: Desk) -> None:
    there.answer, there.reads, there.hangs_up = lambda _body: b"", False, True
    with pytest.raises(Unclear, match="the connection broke before X answered"):
        Wire("X", there.url).call("POST", "/", {}, LARGE)
    assert len(there.calls) == 1


def test_no_answer_in_time_is_unclear(there: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "READ_SECONDS", 0.05)
    over, usual = threading.Event(), there.answer
    there.answer = lambda body: usual(body) if not over.wait(2) else b""
    with pytest.raises(Unclear, match="the connection broke before X answered: TimeoutError"):
        Wire("X", there.url).call("POST", "/", {}, b"")
    over.set()


@pytest.mark.parametrize("says_so", [False, True])
def test_a_connection_that_the_other_end_has_closed_is_not_used_again(there: Desk, *, says_so: bool) -> None:
    close = b"Connection: close\r\n" if says_so else b""
    there.answer = lambda _body: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + close + b"\r\nok"
    there.hangs_up = True
    line = Wire("X", there.url)
    for _ in range(2):
        assert line.call("POST", "/", {}, b"").text == "ok"
        assert there.left.acquire(timeout=60)
    assert len(set(there.connections)) == 2


def test_no_host_of_that_name_is_surely_not_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(NotProcessed, match="X cannot be reached"):
        Wire("X", "http://api.example.com").call("POST", "/", {}, b"")


def test_a_certificate_that_nobody_vouches_for_gets_no_word() -> None:
    with desk(server_context()) as there, pytest.raises(NotProcessed, match="its certificate cannot be verified"):
        Wire("X", there.url).call("POST", "/", {}, b"")
    assert there.calls == []


def test_a_certificate_of_another_host_gets_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest, **more: look_up("127.0.0.1", *rest, **more))
    with desk(server_context()) as there, pytest.raises(NotProcessed, match="its certificate cannot be verified"):
        Wire("X", there.url.replace("127.0.0.1", "api.example.com")).call("POST", "/", {}, b"")
    assert there.calls == []


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_is_believed_that_the_environment_vouches_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(CERTIFICATE))
    with desk(server_context()) as there:
        line = Wire("X", there.url)
        assert [line.call("POST", "/", {}, LARGE).text for _ in range(2)] == ["ok", "ok"]
        assert len(set(there.connections)) == 1


@pytest.mark.parametrize("holds", [None, "no certificate at all"])
def test_certificates_that_cannot_be_read_are_named_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: str | None
) -> None:
    path = tmp_path / "own.pem"
    if holds:
        path.write_text(holds)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(ConfigError, match=r"the environment: the certificates that it names, .*own\.pem, cannot be read: "):
        Wire("X", "https://api.example.com")


def test_a_proxy_of_the_environment_gets_the_whole_address_and_its_own_password(
    there: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", there.url.replace("http://", "http://us:secret@"))
    assert Wire("X", "http://api.example.com").call("POST", "/v1/send?a=b", {}, b"body").text == "ok"
    ((_, path, headers, body),) = there.calls
    assert (path, headers["Host"], body) == ("http://api.example.com/v1/send?a=b", "api.example.com", b"body")
    assert headers["Proxy-Authorization"] == "Basic dXM6c2VjcmV0"


def test_a_call_over_tls_goes_through_a_proxy_that_sees_only_the_host(there: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    monkeypatch.setenv("https_proxy", there.url.replace("http://", "us:secret@"))
    there.answer = lambda _body: LED
    with desk(server_context()) as behind:
        line = Wire("X", behind.url)
        assert [line.call("POST", "/v1/send", {}, LARGE).text for _ in range(2)] == ["ok", "ok"]
    ((address, headers),) = there.led
    assert address == behind.url.removeprefix("https://")
    assert headers["Proxy-Authorization"] == "Basic dXM6c2VjcmV0"
    assert there.calls == []
    assert {(path, "Proxy-Authorization" in heads) for _, path, heads, _ in behind.calls} == {("/v1/send", False)}


def test_a_proxy_that_is_spoken_to_over_tls_leads_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    with desk(server_context()) as proxy, desk(server_context()) as behind:
        monkeypatch.setenv("https_proxy", proxy.url)
        proxy.answer = lambda _body: LED
        assert Wire("X", behind.url).call("POST", "/", {}, b"body").text == "ok"
        assert [address for address, _ in proxy.led] == [behind.url.removeprefix("https://")]


def test_a_proxy_that_lets_nobody_through_is_surely_not_processed(there: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", there.url)
    there.answer = lambda _body: b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(NotProcessed, match="X cannot be reached"):
        Wire("X", "https://api.example.com").call("POST", "/", {}, b"")


def test_a_host_that_the_environment_excepts_is_called_without_the_proxy(there: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Wire("X", there.url).call("POST", "/", {}, b"").text == "ok"


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (
            "socks5://us:secret@127.0.0.1:1080",
            r"the proxy that it names for api\.example\.com is of the kind socks5",
        ),
        ("http://us:secret@proxy:99999", r"the proxy that it names for api\.example\.com has no address"),
        ("http://\u03b1:secret@proxy:80", r"the proxy that it names for api\.example\.com has no address"),
        ("http://", r"the proxy that it names for api\.example\.com has no address"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str, said: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(ConfigError, match=said) as raised:
        Wire("X", "https://api.example.com")
    assert "secret" not in "".join(traceback.format_exception(raised.value))


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
