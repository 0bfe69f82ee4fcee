"""Connections to one mail server that threads share: opened, made safe, signed in, used again, timed out, never retried."""

import smtplib
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipeline.errors import AccountRefused, NotProcessed, ProviderError
from pipeline.wire import redact

Security = Literal["starttls", "tls", "none"]
# To connect, and to be greeted, which some servers put off to see who is impatient.
CONNECT_SECONDS = 20.0
REPLY_SECONDS = 30.0
# Servers end what is idle or has carried much, some without a word.
IDLE_SECONDS = 15.0
MOST_MESSAGES = 100
_GOODBYE_SECONDS = 1.0
_CLOSING = 421


class Broken(Exception):
    """The connection is gone, or what came over it is no SMTP."""


class Answer(NamedTuple):
    """What the server said: a code of three digits and its text."""

    code: int
    text: str

    @property
    def good(self) -> bool:
        """It did what it was told."""
        return self.code // 100 == 2  # noqa: PLR2004 - RFC 5321, 4.2.1: the first digit tells

    @property
    def later(self) -> bool:
        """It did not, and may do so another time."""
        return self.code // 100 == 4  # noqa: PLR2004 - the same

    @property
    def never(self) -> bool:
        """It did not, and will not."""
        return self.code // 100 == 5  # noqa: PLR2004 - the same

    def __str__(self) -> str:
        return redact(f"{self.code} {self.text}")


class Line:
    """One connection, for one call at a time."""

    def __init__(self, smtp: smtplib.SMTP) -> None:
        self._smtp = smtp
        self.messages = 0
        self.idle_since = time.monotonic()
        self.clean = True
        self.broken = False

    @property
    def used_before(self) -> bool:
        """Whether it has carried something already, so that the server may have ended it meanwhile."""
        return self.messages > 0

    def offers(self, extension: str) -> str | None:
        """The parameter of an extension of the server, in lower case; None where it does not offer it."""
        return self._smtp.esmtp_features.get(extension) if self._smtp.has_extn(extension) else None

    def say(self, command: str) -> Answer:
        """A command and its answer; after it the line is not clean until the transaction has ended.

        Raises:
            Broken: there is none.
        """
        self.clean = False
        self._smtp.command_encoding = "utf-8"
        with self._watched():
            self._smtp.putcmd(command)
        return self.hear(REPLY_SECONDS)

    def send(self, content: bytes) -> None:
        """Bytes as they are.

        Raises:
            Broken: they may have left in part.
        """
        with self._watched():
            self._smtp.send(content)

    def hear(self, seconds: float) -> Answer:
        """The server's next answer.

        Raises:
            Broken: there is none within the time, or it is no answer.
        """
        with self._watched():
            self._patience(seconds)
            code, text = self._smtp.getreply()
            if not 200 <= code < 600:  # noqa: PLR2004 - RFC 5321, 4.2
                raise Broken("its answer is no SMTP")
        self.broken = self.broken or code == _CLOSING
        return Answer(code, text.decode("utf-8", "replace"))

    def reset(self) -> None:
        """End a transaction that came to nothing, so that the line is clean again or known to be broken."""
        with suppress(Broken):
            self.clean = self.say("RSET").good

    def hang_up(self) -> None:
        """Say goodbye, without waiting long for an answer."""
        with suppress(OSError):
            if not self.broken:
                self._patience(_GOODBYE_SECONDS)
                self._smtp.quit()
        self._smtp.close()

    def _patience(self, seconds: float) -> None:
        if self._smtp.sock:
            self._smtp.sock.settimeout(seconds)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (OSError, Broken) as error:
            self.broken = True
            self._smtp.close()
            raise Broken(str(error) if isinstance(error, Broken) else type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class Server:
    """Where a mail server is and how it is spoken to; without a user nobody signs in."""

    host: str
    port: int
    security: Security
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Relay:
    """As many lines to one server as there are calls at a time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._context = None if server.security == "none" else ssl.create_default_context()
        self._name: str | None = None
        self._lock = threading.Lock()
        self._idle: list[Line] = []
        self._sweeper: threading.Timer | None = None
        weakref.finalize(self, _hang_up_all, self._idle)

    @contextmanager
    def line(self) -> Iterator[Line]:
        """A line of one's own for a while: one that is idle, or a new one.

        Raises:
            NotProcessed: the server cannot be reached now.
            AccountRefused: it will not have us before a person acts.
        """
        line = self._take() or self._open()
        try:
            yield line
        finally:
            self._give_back(line)

    def _take(self) -> Line | None:
        with self._lock:
            line = self._idle.pop() if self._idle else None
        if line and time.monotonic() - line.idle_since > IDLE_SECONDS:
            line.hang_up()
            return self._take()
        return line

    def _give_back(self, line: Line) -> None:
        line.messages += 1
        if not line.clean and not line.broken:
            line.reset()
        if line.broken or not line.clean or line.messages >= MOST_MESSAGES:
            line.hang_up()
            return
        line.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(line)
            self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweeper is None and self._idle:
            self._sweeper = threading.Timer(IDLE_SECONDS, _sweep, [weakref.ref(self)])
            self._sweeper.daemon = True
            self._sweeper.start()

    def sweep(self) -> None:
        """Hang up what has been idle for long."""
        with self._lock:
            now = time.monotonic()
            old = [line for line in self._idle if now - line.idle_since >= IDLE_SECONDS]
            self._idle[:] = [line for line in self._idle if line not in old]
            self._sweeper = None
            self._sweep_later()
        _hang_up_all(old)

    def _open(self) -> Line:
        smtp = self._connect()
        try:
            # A message goes out in two pieces, and the second must not wait for word of the first.
            if smtp.sock:
                smtp.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                smtp.sock.settimeout(REPLY_SECONDS)
            smtp.ehlo_or_helo_if_needed()
            if self.server.security == "starttls":
                smtp.starttls(context=self._context)
                smtp.ehlo_or_helo_if_needed()
            if self.server.user:
                smtp.login(self.server.user, self.server.password)
        except (OSError, ValueError) as error:
            smtp.close()
            raise self._failure(error) from error
        return Line(smtp)

    def _connect(self) -> smtplib.SMTP:
        server = self.server
        try:
            if server.security == "tls":
                smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                    server.host, server.port, self._name, timeout=CONNECT_SECONDS, context=self._context
                )
            else:
                smtp = smtplib.SMTP(server.host, server.port, self._name, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise self._failure(error) from error
        # To find one's own name may take the name service many seconds, so it is done once.
        self._name = smtp.local_hostname
        return smtp

    def _failure(self, error: Exception) -> ProviderError:
        if isinstance(error, smtplib.SMTPNotSupportedError):
            return AccountRefused(
                f"{self.server} offers no sign-in: look at provider.user and provider.port"
                if self.server.user and "AUTH" in str(error)
                else f"{self.server} offers no STARTTLS: look at provider.security and provider.port"
            )
        if isinstance(error, smtplib.SMTPResponseException):
            return self._refusal(error, Answer(error.smtp_code, _text(error.smtp_error)))
        if isinstance(error, ssl.SSLCertVerificationError):
            return NotProcessed(f"{self.server} cannot be trusted: its certificate cannot be verified ({error.verify_message})")
        if type(error) is smtplib.SMTPException:
            return AccountRefused(f"{self.server} offers no way to sign in that is known here")
        why = error.strerror if isinstance(error, OSError) else ""
        return NotProcessed(f"{self.server} cannot be reached: {redact(why or type(error).__name__)}")

    def _refusal(self, error: smtplib.SMTPResponseException, answer: Answer) -> ProviderError:
        if not answer.never:
            return NotProcessed(f"{self.server} is not ready: {answer}")
        if isinstance(error, smtplib.SMTPAuthenticationError):
            return AccountRefused(
                f"{self.server} refuses the sign-in: {answer}; look at provider.user and FRIDAY_SMTP_PASSWORD"
            )
        return AccountRefused(f"{self.server} turns this machine away: {answer}; look at provider.host and whom it serves")


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said


def _sweep(relay: "weakref.ref[Relay]") -> None:
    if there := relay():
        there.sweep()


def _hang_up_all(lines: list[Line]) -> None:
    for line in lines:
        line.hang_up()
