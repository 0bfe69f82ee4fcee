"""The one way to call a mail provider's HTTP API: timeouts always, no retry, no redirect, each failure named.

Connecting is a step of its own: what fails there has surely not reached the provider, and whatever fails later may
have. It asks `requests` for what the environment says of proxies and certificates, and uses the connections that
`requests` uses, without what a session and a pool do at each call.
"""

import errno
import http.client
import os
import re
import ssl
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import orjson
import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.exceptions import HTTPError
from urllib3.util import Url, is_connection_dropped, parse_url

from pipeline.errors import ConfigError, NotProcessed, Problem, Unclear

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
# Servers close what is idle, and a call that meets the closing is lost without anybody knowing how far it came.
IDLE_SECONDS = 10.0
_PORTS = {"http": 80, "https": 443}
# A server that answers before it has read everything stops reading, but its answer can be read.
_STOPPED_READING = (errno.EPIPE, errno.ECONNRESET, errno.EPROTOTYPE)
# urllib3's connections are those of the standard library, and its own way to ask and answer costs as much as the call.
_ASK, _ANSWERED = http.client.HTTPConnection.request, http.client.HTTPConnection.getresponse
_BROKEN = (HTTPError, http.client.HTTPException, OSError)


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's answer; header names are compared without case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return orjson.loads(self.body)
        except ValueError:
            return None

    @property
    def retry_after(self) -> timedelta | None:
        """How long the provider asks to wait: seconds or a date (RFC 9110, 10.2.3)."""
        asked = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d+)?", asked):
            return timedelta(seconds=float(asked))
        return self.until(asked)

    def until(self, date: str) -> timedelta | None:
        """The time from the answer's own date to another; None where it is no date."""
        try:
            then = parsedate_to_datetime(date)
            return max(then - parsedate_to_datetime(self.headers["Date"]), timedelta(0))
        except (KeyError, ValueError, TypeError):
            return None


class Wire:
    """Connections to the host of one API. Threads may share it; each call has a connection to itself.

    Raises:
        ConfigError: the environment names a proxy of a kind that is not known, or certificates that are not there.
    """

    def __init__(self, who: str, url: str) -> None:
        self._who = who
        self._way = _way(url)
        self._idle: list[tuple[HTTPConnection, float]] = []
        weakref.finalize(self, _close, self._idle)

    def call(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """One call, to a path on the host, with its query.

        Raises:
            NotProcessed: it surely did not reach the provider.
            Unclear: nobody can tell whether it did.
        """
        connection = self._rested() or self._fresh()
        try:
            own = {"User-Agent": "friday", **self._way.headers, **headers}
            _send(connection, method, self._way.base + path, own, body)
            with _ANSWERED(connection) as answer:
                reply = Reply(answer.status, CaseInsensitiveDict(answer.getheaders()), answer.read())
        except BaseException as error:
            connection.close()
            if isinstance(error, _BROKEN):
                raise Unclear(f"the connection broke before {self._who} answered: {type(error).__name__}") from error
            raise
        self._idle.append((connection, time.monotonic()))
        return reply

    def _rested(self) -> HTTPConnection | None:
        """The connection that was used last, if it has not rested for long."""
        with suppress(IndexError):
            while True:
                connection, used = self._idle.pop()
                if time.monotonic() - used <= IDLE_SECONDS and not is_connection_dropped(connection):
                    return connection
                connection.close()
        return None

    def _fresh(self) -> HTTPConnection:
        connection = self._way.make()
        try:
            connection.connect()
        except _BROKEN as error:
            connection.close()
            untrusted = isinstance(error, ssl.SSLCertVerificationError)
            why = ": its certificate cannot be verified" if untrusted else ""
            raise NotProcessed(f"{self._who} cannot be reached{why}") from error
        connection.sock.settimeout(READ_SECONDS)
        return connection


@dataclass(frozen=True)
class _Way:
    """How a host is reached: what makes a connection, and what a call must say besides on it.

    A proxy that is spoken to in plain HTTP wants whole addresses, which begin with `base`.
    """

    make: Callable[[], HTTPConnection]
    base: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def _way(url: str) -> _Way:
    with requests.Session() as session:
        settings: Any = session.merge_environment_settings(url, {}, None, None, None)
    # `requests` knows a variable of its own, and OpenSSL's is that of everything else here that speaks TLS.
    named = settings["verify"] if isinstance(settings["verify"], str) else os.environ.get("SSL_CERT_FILE")
    authorities = Path(named or DEFAULT_CA_BUNDLE_PATH)
    if not authorities.exists():
        what = f"the certificates to trust are to be in {authorities}, where nothing is"
        raise ConfigError([Problem("SSL_CERT_FILE", what, "let it, or REQUESTS_CA_BUNDLE, name a file of them, or neither")])
    to, asked = parse_url(url), select_proxy(url, settings["proxies"])
    if not asked:
        return _Way(partial(_connection, to, authorities))
    proxy = parse_url(asked if "://" in asked else f"http://{asked}")
    if proxy.scheme not in _PORTS:
        what = f"the proxy for {to.host} is of the kind {proxy.scheme}, which is not known"
        raise ConfigError([Problem(f"{to.scheme}_proxy".upper(), what, "name one that begins with http:// or https://")])
    allowed = HTTPAdapter().proxy_headers(proxy.url)
    if to.scheme == "https":
        return _Way(partial(_tunnel, to, proxy, allowed, authorities))
    return _Way(partial(_connection, proxy, authorities), url.rstrip("/"), allowed)


def _connection(to: Url, authorities: Path) -> HTTPConnection:
    if to.scheme == "https":
        return HTTPSConnection(*_place(to), timeout=CONNECT_SECONDS, ssl_context=_trusting(authorities))
    return HTTPConnection(*_place(to), timeout=CONNECT_SECONDS)


def _tunnel(to: Url, proxy: Url, allowed: Mapping[str, str], authorities: Path) -> HTTPConnection:
    """A connection that asks the proxy to be led on to the host, and speaks TLS with the host through it."""
    tls = _trusting(authorities)
    how = ProxyConfig(tls, use_forwarding_for_https=False, assert_hostname=None, assert_fingerprint=None)
    led = HTTPSConnection(*_place(proxy), timeout=CONNECT_SECONDS, ssl_context=tls, proxy=proxy, proxy_config=how)
    host, port = _place(to)
    led.set_tunnel(host, port, allowed, proxy.scheme or "http")
    return led


def _place(of: Url) -> tuple[str, int]:
    return (of.host or "").strip("[]"), of.port or _PORTS[of.scheme or "https"]


@cache
def _trusting(authorities: Path) -> ssl.SSLContext:
    """TLS that believes the authorities in a file or a folder, which takes long to read."""
    if authorities.is_dir():
        return ssl.create_default_context(capath=authorities)
    return ssl.create_default_context(cafile=authorities)


def _send(connection: HTTPConnection, method: str, address: str, headers: Mapping[str, str], body: bytes | None) -> None:
    """Send a request, or as much of it as the other end will read."""
    try:
        _ASK(connection, method, address, body, headers)
    except OSError as error:
        if error.errno not in _STOPPED_READING:
            raise


def _close(idle: list[tuple[HTTPConnection, float]]) -> None:
    while idle:
        connection, _ = idle.pop()
        connection.close()


def redact(said: str) -> str:
    """What a provider said, on one line of at most 200 characters; addresses stay out of messages."""
    return re.sub(r"\S+@\S+", "an address", " ".join(said.split()))[:200]
