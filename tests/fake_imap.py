"""A mailbox by IMAP (RFC 3501) on loopback: as much of it as a client needs that reads and marks."""

import re
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class FakeImap:
    """Mails by UID, those that are seen, and what was said. `refuses` names a command, or `drop` for all after the login."""

    mails: dict[int, bytes]
    seen: set[int]
    port: int = 0
    said: list[str] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    refuses: str = ""


class _Talk(socketserver.StreamRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        with suppress(OSError, ValueError):
            if not self.server.context:
                self._talk()
                return
            with self.server.context.wrap_socket(self.connection, server_side=True) as safe, safe.makefile("rwb", 0) as both:
                self.rfile = self.wfile = both  # type: ignore[assignment] # it reads and writes
                self._talk()

    def _talk(self) -> None:
        self.wfile.write(b"* OK hello\r\n")
        while line := self.rfile.readline():
            tag, _, command = line.decode().strip().partition(" ")
            if not self._answer(tag, command):
                return

    def _answer(self, tag: str, command: str) -> bool:
        fake = self.server.fake
        name = command.removeprefix("UID ").partition(" ")[0].upper()
        if name != "LOGIN":
            fake.said.append(command)
        if fake.refuses == "drop" and name == "SEARCH":
            return False
        lines, verdict = ([b""], "NO") if fake.refuses == name else self._do(name, command)
        self.wfile.write(b"".join(lines) + f"{tag} {verdict} {name} done\r\n".encode())
        return name != "LOGOUT"

    def _do(self, name: str, command: str) -> tuple[list[bytes], str]:
        fake = self.server.fake
        said: list[bytes] = []
        match name:
            case "CAPABILITY":
                said = [b"* CAPABILITY IMAP4rev1\r\n"]
            case "LOGIN":
                user, password = (
                    quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', command.partition(" ")[2])
                )
                if password != "secret":  # noqa: S105 - a test's
                    return [], "NO"
                fake.logins.append((user, password))
            case "SELECT":
                said = [b"* %d EXISTS\r\n* OK [UIDVALIDITY 1] fine\r\n" % len(fake.mails)]
            case "SEARCH":
                asked = set(fake.mails) - (fake.seen if "UNSEEN" in command else set())
                said = [f"* SEARCH {' '.join(map(str, sorted(asked)))}\r\n".encode()]
            case "FETCH":
                uid, most = map(int, re.findall(r"FETCH (\d+) \(BODY\.PEEK\[\]<0\.(\d+)>\)", command)[0])
                part = fake.mails[uid][:most]
                said = [b"* 1 FETCH (UID %d BODY[]<0> {%d}\r\n" % (uid, len(part)), part, b")\r\n"]
            case "STORE":
                assert command.endswith(r"+FLAGS (\Seen)"), command
                fake.seen |= set(map(int, command.split(" ")[2].split(",")))
            case "LOGOUT":
                said = [b"* BYE\r\n"]
            case _:
                return [], "BAD"
        return said, "OK"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    fake: FakeImap
    context: ssl.SSLContext | None


@contextmanager
def fake_imap(
    mails: dict[int, bytes], seen: set[int] | None = None, context: ssl.SSLContext | None = None
) -> Iterator[FakeImap]:
    """A box that listens, with TLS where there is a context."""
    fake = FakeImap(mails, seen or set())
    with _Server(("127.0.0.1", 0), _Talk) as server:
        server.fake, server.context = fake, context
        fake.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join(10)
