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
from http import HTTPStatus
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
            whole = _send(connection, method, self._way.base + path, own, body)
            reply = _answer(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, _BROKEN):
                raise Unclear(f"the connection broke before {self._who} answered: {type(error).__name__}") from error
            raise
        if whole:
            self._idle.append((connection, time.monotonic()))
            self._close_those_that_rest_for_long()
        else:
            connection.close()
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

    def _close_those_that_rest_for_long(self) -> None:
        # Another thread may take away what is looked at here.
        with suppress(IndexError):
            while time.monotonic() - self._idle[0][1] > IDLE_SECONDS:
                self._idle.pop(0)[0].close()

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
    to, asked = parse_url(url), select_proxy(url, settings["proxies"])
    proxy, allowed = _proxy(asked, to.host) if asked else (None, {})
    tls = None
    if "https" in (to.scheme, proxy.scheme if proxy else ""):
        # `requests` has variables of its own, and OpenSSL's counts for mail and mailbox too.
        named = settings["verify"] if isinstance(settings["verify"], str) else os.environ.get("SSL_CERT_FILE")
        tls = _trusting(named or DEFAULT_CA_BUNDLE_PATH)
    if proxy is None:
        return _Way(partial(_connection, to, tls))
    if to.scheme == "https":
        return _Way(partial(_tunnel, to, proxy, allowed, tls))
    return _Way(partial(_connection, proxy, tls), url.rstrip("/"), allowed)


def _proxy(asked: str, host: str | None) -> tuple[Url, Mapping[str, str]]:
    """A proxy, and what it wants to be told. Its password is not repeated in an error."""
    try:
        proxy = parse_url(asked if "://" in asked else f"http://{asked}")
        allowed = HTTPAdapter().proxy_headers(proxy.url)
    except ValueError:
        proxy, allowed = Url(), {}
    if proxy.scheme in _PORTS and proxy.host:
        return proxy, allowed
    what = f"the proxy that it names for {host} has no address that can be understood"
    if proxy.scheme and proxy.scheme not in _PORTS:
        what = f"the proxy that it names for {host} is of the kind {proxy.scheme}, which is not known"
    raise ConfigError([Problem("the environment", what, "name one such as http://proxy.example.com:3128")]) from None


@cache
def _trusting(authorities: str) -> ssl.SSLContext:
    """TLS that believes the authorities in a file or a folder.

    Raises:
        ConfigError: they cannot be read.
    """
    try:
        if Path(authorities).is_dir():
            return ssl.create_default_context(capath=authorities)
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        what = f"the certificates that it names, {authorities}, cannot be read: {error.strerror or error}"
        cure = "let SSL_CERT_FILE, or REQUESTS_CA_BUNDLE, name a file or a folder of them, or nothing"
        raise ConfigError([Problem("the environment", what, cure)]) from None


def _connection(to: Url, tls: ssl.SSLContext | None) -> HTTPConnection:
    if to.scheme == "https":
        return HTTPSConnection(*_place(to), timeout=CONNECT_SECONDS, ssl_context=tls)
    return HTTPConnection(*_place(to), timeout=CONNECT_SECONDS)


def _tunnel(to: Url, proxy: Url, allowed: Mapping[str, str], tls: ssl.SSLContext | None) -> HTTPConnection:
    """A connection that asks the proxy to be led on to the host, and speaks TLS with the host through it."""
    how = ProxyConfig(tls, use_forwarding_for_https=False, assert_hostname=None, assert_fingerprint=None)
    led = HTTPSConnection(*_place(proxy), timeout=CONNECT_SECONDS, ssl_context=tls, proxy=proxy, proxy_config=how)
    host, port = _place(to)
    led.set_tunnel(host, port, allowed, proxy.scheme or "http")
    return led


def _place(of: Url) -> tuple[str, int]:
    return (of.host or "").strip("[]"), of.port or _PORTS[of.scheme or "https"]


def _send(connection: HTTPConnection, method: str, address: str, headers: Mapping[str, str], body: bytes | None) -> bool:
    """Send a request, or as much of it as the other end will read; whether that was all."""
    try:
        _ASK(connection, method, address, body, headers)
    except OSError as error:
        if error.errno not in _STOPPED_READING and not isinstance(error, ssl.SSLEOFError):
            raise
        return False
    return True


def _answer(connection: HTTPConnection) -> Reply:
    """The final answer. One that only announces another is not waited behind, or all later ones would be taken for others."""
    with _ANSWERED(connection) as answer:
        if answer.status < HTTPStatus.OK:
            raise http.client.UnknownProtocol(f"a provisional answer: {answer.status}")
        try:
            body = answer.read()
        except (ValueError, OverflowError, MemoryError) as error:
            # No length is as absurd as that.
            raise http.client.IncompleteRead(b"") from error
        return Reply(answer.status, CaseInsensitiveDict(answer.getheaders()), body)


def _close(idle: list[tuple[HTTPConnection, float]]) -> None:
    while idle:
        connection, _ = idle.pop()
        connection.close()


def redact(said: str) -> str:
    """What a provider said, on one line of at most 200 characters; addresses stay out of messages."""
    return re.sub(r"\S+@\S+", "an address", " ".join(said.split()))[:200]
