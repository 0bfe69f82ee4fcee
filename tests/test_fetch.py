"""The one safe GET: what it sends, what it refuses, and that nobody can make it wait or read for ever."""

import gzip
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.fetch import FetchError, Page, fetch, is_public

PUBLIC = "93.184.215.14"
# A certificate for 127.0.0.1 that is worth nothing anywhere else.
CERTIFICATE = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIIyckG6f5y6SQ1sDgpHbsjdrP7DaJckdsI32oK+GQXb8oAoGCCqGSM49
AwEHoUQDQgAEGjJt0kW8H1988o/FWtqJ9aTtJnKFoSAkwMeYzRARFinfdnHYGHQA
MZoURAh1w/SNaAsa63vJ003Foks9Noinvw==
-----END EC PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBajCCARCgAwIBAgIBATAKBggqhkjOPQQDAjATMREwDwYDVQQDDAhsb29wYmFj
azAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowEzERMA8GA1UEAwwI
bG9vcGJhY2swWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQaMm3SRbwfX3zyj8Va
2on1pO0mcoWhICTAx5jNEBEWKd92cdgYdAAxmhRECHXD9I1oCxrre8nTTcWiSz02
iKe/o1MwUTAPBgNVHREECDAGhwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0O
BBYEFPV6TxQIExyMhP6NcrH2AzZWBhGhMA4GA1UdDwEB/wQEAwIChDAKBggqhkjO
PQQDAgNIADBFAiEAnhxIcGcKrhuSqKg9NdV2pWC8la4PQyQYODRJyo+MtRgCIAh/
A20RjE4u3HyIF5Il1KZ7XFd+ukLkdSIUYrYPOXXv
-----END CERTIFICATE-----
"""
DEADLINE = 0.3
SOON = 30.0

Answer = Callable[["Request"], Iterable[bytes]]


@dataclass(frozen=True)
class Request:
    """What a server was asked. `over` is set when the test ends."""

    path: str
    headers: dict[str, str]
    over: threading.Event


@dataclass
class Site:
    """A server on loopback that answers piece by piece and remembers what it was asked."""

    answer: Answer
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._over.set()
        # Closing alone does not wake a thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with plain:
                plain.settimeout(5)
                try:
                    if self.tls is None:
                        self._talk(plain)
                    else:
                        with self.tls.wrap_socket(plain, server_side=True) as encrypted:
                            self._talk(encrypted)
                except OSError:
                    continue

    def _talk(self, connection: socket.socket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            part = connection.recv(65536)
            if not part:
                return
            asked += part
        first, *lines = asked.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.requests.append(Request(first.split(" ")[1], headers, self._over))
        for part in self.answer(self.requests[-1]):
            connection.sendall(part)
            self.sent += len(part)


MakeSite = Callable[..., Site]


@pytest.fixture
def site() -> Iterator[MakeSite]:
    """Makes servers that end with the test."""
    made: list[Site] = []

    def make(answer: Answer, tls: ssl.SSLContext | None = None) -> Site:
        made.append(Site(answer, tls))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """The server's side of TLS."""
    (tmp_path / "both.pem").write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    return context


@pytest.fixture
def trusted(tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The same with a certificate that requests trusts."""
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(tmp_path / "both.pem"))
    return tls


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every address that a connection is tried to; none is made."""
    tried: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        assert timeout > 0
        tried.append(address)
        raise ConnectionRefusedError("a stub that connects to nothing")

    monkeypatch.setattr("pipeline.fetch.create_connection", connect)
    return tried


def reply(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def always(answer: bytes) -> Answer:
    """The same answer to every request."""
    return lambda _request: [answer]


def dripping(start: bytes) -> Answer:
    """An answer that begins like this and then gives a byte now and then, for much longer than anybody should wait."""

    def answer(request: Request) -> Iterator[bytes]:
        yield start
        for _ in range(5000):
            if request.over.wait(0.02):
                return
            yield b"x"

    return answer


def stalling(start: bytes) -> Answer:
    """An answer that begins like this and then says nothing more, with the line kept open."""

    def answer(request: Request) -> Iterator[bytes]:
        yield start
        request.over.wait(60)

    return answer


def refusal(url: str, **options: Any) -> str:
    """Why fetch refuses an address."""
    with pytest.raises(FetchError) as caught:
        fetch(url, **options)
    return str(caught.value)


def test_a_page_comes_back_with_its_address_body_and_headers(site: MakeSite) -> None:
    there = site(always(reply(b"hello", 'ETag: "a"')))
    page = fetch(f"{there.url}/feed", private=True)
    assert (page.status, page.url, page.body) == (200, f"{there.url}/feed", b"hello")
    assert page.headers["ETag"] == '"a"'


def test_conditional_headers_are_sent_beside_our_own_name(site: MakeSite) -> None:
    there = site(always(reply(b"hello")))
    fetch(there.url, {"If-None-Match": '"a"', "If-Modified-Since": "Fri, 20 Nov 2026 08:00:00 GMT"}, private=True)
    (request,) = there.requests
    assert request.headers["if-none-match"] == '"a"'
    assert request.headers["if-modified-since"] == "Fri, 20 Nov 2026 08:00:00 GMT"
    assert request.headers["user-agent"].startswith("Friday/")


def test_not_modified_is_an_answer_without_a_body(site: MakeSite) -> None:
    there = site(always(reply(status="304 Not Modified")))
    page = fetch(there.url, {"If-None-Match": '"a"'}, private=True)
    assert (page.status, page.body) == (304, b"")


@pytest.mark.parametrize(
    "status", ["404 Not Found", "500 Internal Server Error", "410 Gone", "204 No Content", "206 Partial Content"]
)
def test_any_other_status_is_an_error_that_names_it(site: MakeSite, status: str) -> None:
    assert refusal(site(always(reply(b"x", status=status))).url, private=True) == f"answered {status}"


def test_a_compressed_body_is_unpacked(site: MakeSite) -> None:
    there = site(always(reply(gzip.compress(b"hello"), "Content-Encoding: gzip")))
    assert fetch(there.url, private=True).body == b"hello"


def test_a_body_of_just_the_limit_is_taken_and_one_byte_more_is_not(site: MakeSite) -> None:
    there = site(lambda request: [reply(b"x" * int(request.path[1:]))])
    assert len(fetch(f"{there.url}/1000", most_bytes=1_000, private=True).body) == 1_000
    assert refusal(f"{there.url}/1001", most_bytes=1_000, private=True) == "larger than 1,000 bytes"


def test_the_size_limit_stops_a_body_that_never_ends(site: MakeSite) -> None:
    def endless(_request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        while True:
            yield b"x" * 65536

    there = site(endless)
    assert refusal(there.url, most_bytes=100_000, private=True) == "larger than 100,000 bytes"


def test_a_gzip_bomb_is_stopped_by_its_unpacked_size_before_it_fills_the_memory(site: MakeSite) -> None:
    bomb = gzip.compress(bytes(30 * 1024 * 1024), 1)
    there = site(always(reply(bomb, "Content-Encoding: gzip")))
    tracemalloc.start()
    try:
        assert refusal(there.url, most_bytes=1_000_000, private=True) == "larger than 1,000,000 bytes"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(bomb) < 1_000_000
    assert peak < 6_000_000


SLOW = {
    "a status line": b"HTTP/1.1 200 ",
    "a header": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: ",
    "a body with a length": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    "a body without one": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    "the length of a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;",
    # A gzip header may carry a file name of any length, which unpacks to nothing at all.
    "a gzip header": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\0",
}


def endings(sites: Mapping[str, str]) -> dict[str, tuple[str, bool]]:
    """Why each address was refused and whether that was soon, all asked at the same time."""

    def end(url: str) -> tuple[str, bool]:
        began = time.monotonic()
        try:
            why = f"read {fetch(url, deadline=DEADLINE, private=True)}"
        except FetchError as error:
            why = str(error)
        return why, time.monotonic() - began < SOON

    with ThreadPoolExecutor(len(sites)) as pool:
        return dict(zip(sites, pool.map(end, sites.values()), strict=True))


CUT = ("took longer than the deadline", True)


def test_an_answer_that_drips_is_cut_at_the_deadline(site: MakeSite) -> None:
    sites = {part: site(dripping(start)).url for part, start in SLOW.items()}
    assert endings(sites) == dict.fromkeys(sites, CUT)


def test_an_answer_that_drips_over_tls_is_cut_at_the_deadline(site: MakeSite, trusted: ssl.SSLContext) -> None:
    sites = {part: site(dripping(start), trusted).url for part, start in SLOW.items()}
    assert endings(sites) == dict.fromkeys(sites, CUT)


def test_an_answer_that_stalls_is_not_taken_for_a_whole_one(site: MakeSite) -> None:
    sites = {part: site(stalling(start + b"half of it")).url for part, start in SLOW.items()}
    assert endings(sites) == dict.fromkeys(sites, CUT)


def test_a_server_that_never_greets_is_cut_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sites = {scheme: f"{scheme}://127.0.0.1:{silent.getsockname()[1]}" for scheme in ("http", "https")}
        assert endings(sites) == dict.fromkeys(sites, CUT)


def test_the_deadline_covers_the_look_up_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def resolve(*_args: object, **_kwargs: object) -> list[Any]:
        over.wait(60)
        raise socket.gaierror("a name server that takes its time")

    monkeypatch.setattr("pipeline.fetch.socket.getaddrinfo", resolve)
    began = time.monotonic()
    refusal("http://slow.example/", deadline=DEADLINE)
    took = time.monotonic() - began
    over.set()
    assert took < SOON


def test_a_page_over_tls_is_read_from_a_server_with_a_trusted_certificate(site: MakeSite, trusted: ssl.SSLContext) -> None:
    assert fetch(site(always(reply(b"hello")), trusted).url, private=True).body == b"hello"


def test_a_certificate_that_nobody_vouches_for_is_refused(site: MakeSite, tls: ssl.SSLContext) -> None:
    there = site(always(reply(b"hello")), tls)
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(there.url, private=True)
    assert there.requests == []


def test_a_certificate_of_another_name_is_refused(site: MakeSite, trusted: ssl.SSLContext) -> None:
    there = site(always(reply(b"hello")), trusted)
    assert "match" in refusal(f"https://localhost:{there.port}", private=True)
    assert there.requests == []


@pytest.mark.parametrize(
    "status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
)
def test_a_redirect_is_followed_and_the_page_knows_where_it_ended(site: MakeSite, status: str) -> None:
    there = site(lambda request: [reply(b"new") if request.path == "/new" else reply(b"old", "Location: /new", status=status)])
    page = fetch(f"{there.url}/old", {"If-None-Match": '"a"'}, private=True)
    assert (page.url, page.body) == (f"{there.url}/new", b"new")
    assert [request.headers["if-none-match"] for request in there.requests] == ['"a"', '"a"']


def test_a_redirect_loop_ends_after_three(site: MakeSite) -> None:
    there = site(always(reply(b"", "Location: /again", status="302 Found")))
    assert refusal(there.url, private=True) == "more than 3 redirects"
    assert len(there.requests) == 4


@pytest.mark.parametrize(
    "inside",
    ["http://127.0.0.2/", "http://localhost/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/"],
)
def test_a_private_source_may_not_redirect_into_another_private_host(site: MakeSite, inside: str) -> None:
    there = site(always(reply(b"", f"Location: {inside}", status="302 Found")))
    assert "private network" in refusal(there.url, private=True)


def test_nor_to_another_port_of_its_own_host(site: MakeSite) -> None:
    other = site(always(reply(b"a database's answer")))
    there = site(always(reply(b"", f"Location: {other.url}/", status="302 Found")))
    assert refusal(there.url, private=True) == f"port {other.port} is not the port of http"
    assert other.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/", "javascript:alert(1)"])
def test_a_redirect_leaves_http_no_more_than_an_address_does(site: MakeSite, target: str) -> None:
    there = site(always(reply(b"", f"Location: {target}", status="302 Found")))
    assert refusal(there.url, private=True) == "not an absolute http or https address"


def test_a_redirect_may_not_smuggle_in_a_user_name(site: MakeSite) -> None:
    there = site(lambda request: [reply(b"", f"Location: http://me:pw@{request.headers['host']}/", status="302 Found")])
    # Its port is no ordinary one and its host no longer the trusted one, so either reason will do.
    refusal(there.url, private=True)
    assert len(there.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "", "/feed.xml", "example.org", "//example.org/", "http://", "http:///feed", "file:///etc/passwd", "ftp://example.org/",
        "gopher://example.org/", "data:text/plain,x", "http+unix://%2Fvar%2Frun%2Fdocker.sock/info", "javascript:alert(1)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("private", [False, True])
def test_only_absolute_http_and_https_addresses_are_read(
    connections: list[tuple[str, int]], url: str, *, private: bool
) -> None:
    assert refusal(url, private=private) == "not an absolute http or https address"
    assert connections == []


@pytest.mark.parametrize("url", ["http://[::1", "http://example.org:99999/", "http://example.org:x/", "http://[nonsense]/"])
def test_what_is_no_address_is_said_to_be_none(connections: list[tuple[str, int]], url: str) -> None:
    assert refusal(url) == "not a valid address"
    assert connections == []


@pytest.mark.parametrize("url", ["http://me@example.org/", "https://me:hunter2@example.org/", "http://:hunter2@example.org/"])
@pytest.mark.parametrize("private", [False, True])
def test_an_address_with_a_user_name_is_refused_without_repeating_it(
    connections: list[tuple[str, int]], url: str, *, private: bool
) -> None:
    assert refusal(url, private=private) == "the address carries a user name"
    assert connections == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org:8080/",
        "https://example.org:22/",
        "http://example.org:443/",
        "https://example.org:80/",
        "http://example.org:0/",
    ],
)
def test_a_public_host_is_read_on_its_usual_port_only(connections: list[tuple[str, int]], url: str) -> None:
    assert "is not the port of" in refusal(url)
    assert connections == []


PRIVATE = """
    127.0.0.1 127.1 127.255.255.254 0x7f000001 0x7f.1 0177.0.0.1 2130706433 0.0.0.0 0 10.0.0.1 172.16.0.1 172.31.255.254
    192.168.1.1 169.254.169.254 100.64.0.1 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250
    240.0.0.1 255.255.255.255 localhost
    [::1] [::] [::ffff:127.0.0.1] [::ffff:10.0.0.1] [::ffff:a9fe:a9fe] [::127.0.0.1] [::ffff:0:7f00:1] [fe80::1] [fc00::1]
    [fd00:ec2::254] [fec0::1] [ff02::1] [64:ff9b::7f00:1] [64:ff9b:1::a00:1] [2002:7f00:1::] [2002:a9fe:a9fe::1]
    [2001:0:7f00:1::1] [2001:db8::1] [100::1]
""".split()


@pytest.mark.parametrize("host", PRIVATE)
def test_an_address_in_a_private_network_is_refused_however_it_is_spelled(
    connections: list[tuple[str, int]], host: str
) -> None:
    assert "lies in a private network" in refusal(f"http://{host}/")
    assert connections == []


@pytest.mark.parametrize("host", ["①②⑦.0.0.1", "127。0。0。1", "１２７.0.0.1"])
def test_digits_and_dots_of_other_scripts_lead_nowhere(connections: list[tuple[str, int]], host: str) -> None:
    assert refusal(f"http://{host}/")
    assert connections == []


@pytest.mark.parametrize("host", ["[::ffff:8.8.8.8]", "[2606:2800:220:1::1]", "8.8.8.8", "134744072"])
def test_a_public_address_is_connected_to(connections: list[tuple[str, int]], host: str) -> None:
    assert "cannot connect" in refusal(f"http://{host}/")
    assert len(connections) == 1


@pytest.mark.parametrize("text", ["", "example.org", "1.2.3", "1.2.3.4.5", "nonsense%eth0"])
def test_what_is_no_ip_address_is_not_public(text: str) -> None:
    assert not is_public(text)


Resolve = Callable[..., list[Any]]


def answering(*rounds: list[str]) -> tuple[Resolve, list[str]]:
    """A name server that answers differently each time, and the names that it was asked for."""
    asked: list[str] = []

    def resolve(host: str, port: int, *_args: object, **_kwargs: object) -> list[Any]:
        addresses = rounds[min(len(asked), len(rounds) - 1)]
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return resolve, asked


@pytest.fixture
def detour(monkeypatch: pytest.MonkeyPatch) -> Callable[[Site], list[tuple[str, int]]]:
    """Leads every connection to a loopback server instead, and tells where it would have gone."""

    def lead(to: Site) -> list[tuple[str, int]]:
        went: list[tuple[str, int]] = []

        def connect(address: tuple[str, int], timeout: float) -> socket.socket:
            went.append(address)
            made = socket.socket()
            made.settimeout(timeout)
            made.connect(("127.0.0.1", to.port))
            return made

        monkeypatch.setattr("pipeline.fetch.create_connection", connect)
        return went

    return lead


Detour = Callable[[Site], list[tuple[str, int]]]


def test_the_connection_goes_to_the_address_that_was_checked_though_the_name_means_another_later(
    site: MakeSite, detour: Detour, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = answering([PUBLIC], ["127.0.0.1"])
    went = detour(site(always(reply(b"hello"))))
    monkeypatch.setattr("pipeline.fetch.socket.getaddrinfo", resolve)
    assert fetch("http://rebind.example/").body == b"hello"
    assert asked == ["rebind.example"]
    assert went == [(PUBLIC, 80)]


def test_a_redirect_is_checked_anew_though_the_name_is_the_same(
    site: MakeSite, detour: Detour, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = answering([PUBLIC], ["127.0.0.1"])
    went = detour(site(always(reply(b"", "Location: /admin", status="302 Found"))))
    monkeypatch.setattr("pipeline.fetch.socket.getaddrinfo", resolve)
    assert refusal("http://rebind.example/") == "rebind.example lies in a private network"
    assert asked == ["rebind.example"] * 2
    assert went == [(PUBLIC, 80)]


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    connections: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, _ = answering([PUBLIC, "10.0.0.1"])
    monkeypatch.setattr("pipeline.fetch.socket.getaddrinfo", resolve)
    assert refusal("http://mixed.example/") == "mixed.example lies in a private network"
    assert connections == []


def test_every_address_of_a_name_is_tried(connections: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, _ = answering([PUBLIC, "8.8.8.8"])
    monkeypatch.setattr("pipeline.fetch.socket.getaddrinfo", resolve)
    assert "cannot connect to two.example" in refusal("http://two.example/")
    assert sorted(connections) == [("8.8.8.8", 80), (PUBLIC, 80)]


def test_a_name_that_does_not_exist_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_args: object, **_kwargs: object) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("pipeline.fetch.socket.getaddrinfo", resolve)
    assert "the name nowhere.example cannot be found" in refusal("http://nowhere.example/")


def test_a_proxy_of_the_environment_is_not_asked(site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, there = site(always(reply(b"proxy"))), site(always(reply(b"direct")))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    assert fetch(there.url, private=True).body == b"direct"
    assert proxy.requests == []


def test_nobody_listening_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "cannot connect to 127.0.0.1" in refusal(f"http://127.0.0.1:{port}/", private=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x16\x03\x01 this is no http\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut short",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[bad/\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["silence", "no http", "cut short", "false gzip", "false chunks", "too many headers", "false redirect"],
)
def test_a_server_that_answers_nonsense_is_an_error_like_any_other(site: MakeSite, answer: bytes) -> None:
    assert refusal(site(always(answer)).url, private=True)


def test_the_connection_is_closed_and_no_thread_left_behind(site: MakeSite) -> None:
    there = site(always(reply(b"hello")))
    before = {*threading.enumerate()}
    page: Page = fetch(there.url, private=True)
    assert page.body == b"hello"
    new = [thread for thread in threading.enumerate() if thread not in before]
    for thread in new:
        thread.join(60)
    assert not any(thread.is_alive() for thread in new)
