"""The one safe way to GET a foreign address: http(s) only, bounded in bytes and time, never into a private network."""

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.poolmanager import PoolManager
from urllib3.util.connection import create_connection

USER_AGENT = "Friday/0.1 (newsletter; reads feeds)"
MOST_BYTES = 5 * 1024 * 1024
DEADLINE = 15.0
REDIRECTS = 3
LATE = "took longer than the deadline"
_MOVED = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
# Globally routed by the registry, yet gateways into private networks: NAT64, 6to4, Teredo.
_GATEWAYS = [ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]


class FetchError(Exception):
    """An address that could not be read, and why."""


@dataclass(frozen=True, slots=True)
class Page:
    """What came back. `status` is 200 or 304; `url` is where redirects ended."""

    status: int
    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def fetch(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    most_bytes: int = MOST_BYTES,
    deadline: float = DEADLINE,
    private: bool = False,
) -> Page:
    """Read an address, following at most three redirects, each checked like the first.

    Args:
        url: an absolute http or https address.
        headers: sent along, for conditional requests.
        most_bytes: of the decoded body; more is an error.
        deadline: seconds for everything, redirects and name look-up included.
        private: whether the host of `url` may lie in a private network and on any port. Hosts that it
            redirects to may not.

    Raises:
        FetchError: whatever went wrong, in a sentence.
    """
    ends = time.monotonic() + deadline
    start = _checked(url, private=private).netloc
    with requests.Session() as session:
        # Proxies, netrc and the like would go round the check of addresses.
        session.trust_env = False
        for _ in range(REDIRECTS + 1):
            inside = private and urlsplit(url).netloc == start
            guard = _Guard(ends, private=inside)
            session.mount(f"{_checked(url, private=inside).scheme}://", guard)
            page = _get(session, url, {"User-Agent": USER_AGENT, **(headers or {})}, guard, most_bytes)
            if page.status not in _MOVED:
                return page
            url = _moved(url, page)
    raise FetchError(f"more than {REDIRECTS} redirects")


def _moved(url: str, page: Page) -> str:
    try:
        there = urljoin(url, page.headers.get("Location", ""))
        _ = urlsplit(there).port
    except ValueError:
        raise FetchError("redirects to what is no address") from None
    return there


def _checked(url: str, *, private: bool) -> Any:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise FetchError("not a valid address") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise FetchError("not an absolute http or https address")
    if not private and port not in (None, _PORTS[parts.scheme]):
        raise FetchError(f"port {port} is not the port of {parts.scheme}")
    if parts.username or parts.password:
        raise FetchError("the address carries a user name")
    return parts


def _get(session: requests.Session, url: str, headers: Mapping[str, str], guard: "_Guard", most_bytes: int) -> Page:
    try:
        with guard, session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=guard.left()) as answer:
            body = _body(answer, guard, most_bytes) if answer.status_code == HTTPStatus.OK else b""
            page = Page(answer.status_code, url, body, dict(answer.headers))
    except FetchError:
        raise
    except (requests.RequestException, HTTPError, OSError, ValueError) as error:
        if guard.over():
            raise FetchError(LATE) from None
        raise FetchError(_reason(error)) from None
    # A connection that the alarm closed reads like one that ended.
    if guard.over():
        raise FetchError(LATE)
    if page.status not in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED, *_MOVED):
        raise FetchError(f"answered {page.status} {answer.reason}")
    return page


def _body(answer: requests.Response, guard: "_Guard", most_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := answer.raw.read1(64 * 1024, decode_content=True):
        size += len(part)
        if size > most_bytes:
            raise FetchError(f"larger than {most_bytes:,} bytes")
        if guard.over():
            raise FetchError(LATE)
        parts.append(part)
    return b"".join(parts)


def _reason(error: Exception) -> str:
    """The innermost cause, which says more than the layers around it."""
    causes = (getattr(error, "reason", None), *error.args)
    inner = next((cause for cause in causes if isinstance(cause, Exception)), None)
    return _reason(inner) if inner else f"{type(error).__name__}: {error}".removesuffix(": ")


class _Guard(HTTPAdapter):
    """Connects to checked addresses only, and closes the connection when time is over."""

    def __init__(self, ends: float, *, private: bool) -> None:
        self._ends = ends
        self._private = private
        self._sockets: list[socket.socket] = []
        self._alarm: threading.Timer | None = None
        super().__init__(max_retries=0)

    def left(self) -> float:
        return max(0.001, self._ends - time.monotonic())

    def over(self) -> bool:
        return time.monotonic() >= self._ends

    def __enter__(self) -> Self:
        self._alarm = threading.Timer(self.left(), self._close)
        self._alarm.daemon = True
        self._alarm.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._alarm:
            self._alarm.cancel()
        self.close()
        for each in self._sockets:
            each.close()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Build the pool whose connections are made by `connect`."""
        guard = self

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return guard.connect(self._dns_host, self.port or 80)

        class Encrypted(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return guard.connect(self._dns_host, self.port or 443)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class EncryptedPool(HTTPSConnectionPool):
            ConnectionCls = Encrypted

        self.poolmanager = PoolManager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}

    def connect(self, host: str, port: int) -> socket.socket:
        """Resolve once, refuse unless every address is public, and connect to just those."""
        found = self._look_up(host, port)
        if not self._private and not all(is_public(address) for address in found):
            raise FetchError(f"{host} lies in a private network")
        trouble: OSError | None = None
        for address in sorted(found, key=lambda each: ":" in each):
            try:
                made = create_connection((address, port), timeout=self.left())
            except OSError as error:
                trouble = error
                continue
            # A second handle on the connection, since TLS takes the first one's away.
            self._sockets.append(made.dup())
            return made
        raise FetchError(f"cannot connect to {host}: {trouble}")

    def _look_up(self, host: str, port: int) -> set[str]:
        """The addresses of a host. The system's look-up knows no deadline, so it is left behind when time is over."""
        answer: queue.SimpleQueue[set[str] | OSError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answer.put({str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
            except (OSError, UnicodeError) as error:
                answer.put(OSError(str(error)))

        threading.Thread(target=ask, daemon=True).start()
        try:
            found = answer.get(timeout=self.left())
        except queue.Empty:
            raise FetchError(LATE) from None
        if isinstance(found, OSError):
            raise FetchError(f"the name {host} cannot be found: {found}")
        return found

    def _close(self) -> None:
        for each in self._sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def is_public(address: str) -> bool:
    """Whether an IP address is a plain public unicast one, not a way into a private network."""
    try:
        ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        return is_public(str(mapped))
    if ip.is_multicast or getattr(ip, "is_site_local", False) or ip.is_reserved:
        return False
    return ip.is_global and not any(ip in network for network in _GATEWAYS if ip.version == network.version)
