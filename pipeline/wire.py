"""The one way to call a mail provider's HTTP API: timeouts always, no retry, no redirect, each failure named.

It uses the connections of `requests`, without what a session does about cookies and redirects at each call.
"""

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, cast

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)

from pipeline.errors import NotProcessed, ProviderError, Unclear

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
# Servers close what is idle, and a call that meets the closing is lost without anybody knowing how far it came.
IDLE_SECONDS = 10.0
TIMEOUT = Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
_BEFORE_SENDING = (NewConnectionError, NameResolutionError, ConnectTimeoutError)


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
    """Connections to the host of one API. Threads may share it; each call has a connection to itself."""

    def __init__(self, who: str, url: str, connections: int = 1) -> None:
        self._who = who
        self._adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections)
        self._request = requests.Request("GET", url).prepare()
        with requests.Session() as session:
            self._settings: Any = session.merge_environment_settings(url, {}, None, None, None)
        # A proxy that is spoken to in plain HTTP wants whole addresses.
        whole = self._adapter.request_url(self._request, self._settings["proxies"]) != self._request.path_url
        self._base = url.rstrip("/") if whole else ""
        self._lock = threading.Lock()
        self._used = 0.0
        self._open: HTTPConnectionPool | None = None

    def call(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """One call, to a path on the host, with its query.

        Raises:
            NotProcessed: it surely did not reach the provider.
            Unclear: nobody can tell whether it did.
        """
        try:
            answer = self._pool().urlopen(
                method,
                self._base + path,
                body=body,
                headers={"User-Agent": "friday", **headers},
                timeout=TIMEOUT,
                retries=False,
                redirect=False,
                assert_same_host=False,
            )
            content = answer.data
        except (HTTPError, OSError) as error:
            raise self._failure(error) from error
        self._used = time.monotonic()
        return Reply(answer.status, answer.headers, content)

    def _pool(self) -> HTTPConnectionPool:
        with self._lock:
            if self._open is None or time.monotonic() - self._used > IDLE_SECONDS:
                self._adapter.poolmanager.clear()
                verify, proxies, cert = (self._settings[name] for name in ("verify", "proxies", "cert"))
                pool = self._adapter.get_connection_with_tls_context(self._request, verify, proxies, cert)
                self._open = cast("HTTPConnectionPool", pool)
                self._used = time.monotonic()
            return self._open

    def _failure(self, error: Exception) -> ProviderError:
        cause = error.original_error if isinstance(error, ProxyError) else error
        # Any other TLS error may strike in the middle of a call.
        untrusted = isinstance(cause, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(cause)
        if untrusted or isinstance(cause, _BEFORE_SENDING):
            return NotProcessed(
                f"{self._who} cannot be reached" + (": its certificate cannot be verified" if untrusted else "")
            )
        return Unclear(f"the connection broke before {self._who} answered: {type(error).__name__}")


def redact(said: str) -> str:
    """What a provider said, on one line of at most 200 characters; addresses stay out of messages."""
    return re.sub(r"\S+@\S+", "an address", " ".join(said.split()))[:200]
