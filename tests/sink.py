"""A mail server on loopback that takes mail as told: aiosmtpd, so that another's eyes read what we say."""

import asyncio
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

# For localhost and 127.0.0.1, made for these tests and trusted by nobody else.
CERTIFICATE = Path(__file__).parent / "data" / "smtp" / "server.pem"
DROP = "drop"


@dataclass
class Got:
    """One mail that was taken."""

    sender: str
    reader: str
    content: bytes
    options: list[str]

    @property
    def mail(self) -> EmailMessage:
        return message_from_bytes(self.content, policy=default)


@dataclass
class Sink:
    """What came in, and what is answered.

    `answers` maps `MAIL`, `RCPT` or `DATA` alone, or with a reader's address behind it, to the server's answer; `DROP`
    ends the connection instead. A list is worked off from the front and its last answer stays.
    """

    port: int = 0
    answers: dict[str, str | list[str]] = field(default_factory=dict)
    got: list[Got] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    without: tuple[str, ...] = ()
    password: str = "secret"  # noqa: S105 - a test's
    auth_answer: str = "535 5.7.8 Authentication credentials invalid"
    connections: int = 0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop, repr=False)
    open_ones: set[Any] = field(default_factory=set, repr=False)

    @property
    def count(self) -> Counter[str]:
        """How often each command was heard."""
        return Counter(said.partition(" ")[0] for said in self.said)

    def cut(self) -> None:
        """End every connection without a word."""
        self.loop.call_soon_threadsafe(lambda: [transport.abort() for transport in list(self.open_ones)])

    @property
    def readers(self) -> list[str]:
        return [got.reader for got in self.got]

    def to(self, address: str) -> Got:
        """The one mail for an address."""
        (got,) = (got for got in self.got if got.reader == address)
        return got

    def _answer(self, server: SMTP, verb: str, address: str = "") -> str | None:
        self.said.append(f"{verb} {address}".strip())
        answer = self.answers.get(f"{verb} {address}", self.answers.get(verb))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if answer == DROP:
            server.transport.abort()  # type: ignore[union-attr] # while it speaks there is one
        return answer

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.said.append("EHLO")
        session.host_name = hostname
        return [each for each in responses if not any(name in each for name in self.without)]

    async def handle_MAIL(  # noqa: N802 - the same
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self._answer(server, "MAIL")
        if answer is None or answer.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return answer or "250 OK"

    async def handle_RCPT(  # noqa: N802 - the same
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        answer = self._answer(server, "RCPT", address)
        if answer is None or answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - the same
        reader = envelope.rcpt_tos[0]
        answer = self._answer(server, "DATA", reader)
        if answer is None or answer == DROP or answer.startswith("2"):
            content = bytes(envelope.original_content or b"")
            self.got.append(Got(envelope.mail_from or "", reader, content, list(envelope.mail_options)))
        return answer or f"250 2.0.0 Ok: queued as Q{len(self.got)}"

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802 - the same
        self.said.append("QUIT")
        return "221 Bye"

    async def handle_RSET(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802 - the same
        self.said.append("RSET")
        return "250 OK"

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        self.said.append("AUTH")
        assert isinstance(data, LoginPassword)
        right = data.password == self.password.encode()
        return AuthResult(success=right, handled=False, message=None if right else self.auth_answer)


class _Talk(SMTP):
    """A connection that is closed with its server."""

    def __init__(self, sink: Sink, **options: Any) -> None:
        super().__init__(sink, **options)
        self._sink = sink

    def connection_made(self, transport: Any) -> None:
        # The same connection is made again when TLS begins on it.
        if self._original_transport is None:
            self._sink.connections += 1
        self._sink.open_ones.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:
            self._sink.open_ones.discard(self.transport)
        super().connection_lost(error)


def server_context() -> ssl.SSLContext:
    """TLS for a server, with the certificate of these tests."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@contextmanager
def sink(security: str = "none", *, auth: bool = False, **options: Any) -> Iterator[Sink]:
    """A sink that listens; `security` as in `[provider]`, `options` are aiosmtpd's."""
    told = Sink()
    loop = told.loop
    more: dict[str, Any] = {"hostname": "sink.example.com", "loop": loop, "enable_SMTPUTF8": True, **options}
    if security == "starttls":
        more |= {"tls_context": server_context(), "require_starttls": True}
    if auth:
        more |= {
            "authenticator": told.authenticate,
            "auth_required": security == "starttls",
            "auth_require_tls": security == "starttls",
        }

    async def listen() -> asyncio.Server:
        context = server_context() if security == "tls" else None
        return await loop.create_server(lambda: _Talk(told, **more), "127.0.0.1", 0, ssl=context)

    server = loop.run_until_complete(listen())
    told.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:

        async def end() -> None:
            server.close()
            for transport in list(told.open_ones):
                transport.abort()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def parrot(*answers: str) -> Iterator[int]:
    """A server that says one answer after the other, whatever it hears; its port. After the last it hangs up.

    An answer is a line, `DROP`, or empty where it says nothing at all until the client gives up.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    ending = threading.Event()

    def talk() -> None:
        while not ending.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as heard, suppress(OSError):
                for place, answer in enumerate(answers):
                    before = answers[place - 1] if place else "354"
                    while place and (line := heard.readline()) and before.startswith("354") and line != b".\r\n":
                        pass
                    if answer == DROP:
                        break
                    if not answer:
                        ending.wait(60)
                    connection.sendall(answer.encode() + b"\r\n")

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        ending.set()
        with suppress(OSError):
            socket.create_connection(listening.getsockname(), 1).close()
        listening.close()
        thread.join(10)
