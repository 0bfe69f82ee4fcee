"""A provider that takes everything and keeps nothing, as fast as Python can: what benchmarks send to.

Run as a process: it prints its port and ends when its standard input does. It checks nothing, so it says
nothing about whether a call is right; the fake providers of the tests do.
"""

import argparse
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

BUFFER = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MAILGUN = b'{"id": "<20261127.1@news.example.com>", "message": "Queued. Thank you."}'
_POSTMARK = (
    b'{"To":"reader@example.com","SubmittedAt":"2026-11-27T08:00:00.0000000-00:00",'
    b'"MessageID":"%08x-CALL-4000-8000-000000000000","ErrorCode":0,"Message":"OK"}'
)
_RESEND = b'{"id":"%08x-CALL-4000-8000-000000000000"}'


@dataclass(frozen=True)
class Shape:
    """How a provider answers: what opens each item of a call, and the answer to so many of them."""

    item: bytes
    answer: Callable[[int], bytes]


# Longest path first; ids differ from item to item and from call to call, as they do at the provider.
SHAPES = {
    b"/emails/batch": Shape(b'"to":', lambda items: b'{"data":[%s]}' % _listed(_RESEND, items)),
    b"/email/batch": Shape(b'"To":', lambda items: b"[%s]" % _listed(_POSTMARK, items)),
    b"/emails": Shape(b"", lambda _items: _RESEND % 0),
    b"/email": Shape(b"", lambda _items: _POSTMARK % 0),
    b"/messages": Shape(b"", lambda _items: _MAILGUN),
}


def _listed(item: bytes, items: int) -> bytes:
    return b",".join(item % number for number in range(items))


@dataclass
class Sink:
    """What all connections share. Items are counted in the first call alone: the bench's readers are of one length."""

    delay: float
    keep: Path | None
    calls: int = 0
    item_sizes: dict[bytes, float] = field(default_factory=dict)
    answers: dict[tuple[bytes, int], bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket) -> None:
        """Answer every call of a connection until it ends."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        room = memoryview(bytearray(BUFFER))
        while call := _head(connection, room):
            head, start = call
            path = head[: head.find(b" HTTP/")].rpartition(b" ")[2]
            kind = next(each for each in SHAPES if path.endswith(each))
            length = int(match[1]) if (match := _LENGTH.search(head)) else 0
            wanted = self.keep is not None or (SHAPES[kind].item and kind not in self.item_sizes)
            body = _body(connection, room, start, length, keep=bool(wanted))
            answer = self._answer(kind, head, body, length)
            if self.delay:
                time.sleep(self.delay)
            connection.sendall(answer)

    def _answer(self, kind: bytes, head: bytes, body: bytes, length: int) -> bytes:
        shape = SHAPES[kind]
        with self.lock:
            self.calls += 1
            if self.keep:
                (self.keep / f"{self.calls:04}.head").write_bytes(head)
                (self.keep / f"{self.calls:04}.body").write_bytes(body)
            if shape.item and kind not in self.item_sizes:
                self.item_sizes[kind] = length / body.count(shape.item)
            items = round(length / self.item_sizes[kind]) if shape.item else 1
            if (kind, items) not in self.answers:
                self.answers[kind, items] = shape.answer(items)
            said = self.answers[kind, items].replace(b"CALL", b"%04x" % (self.calls & 0xFFFF))
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)


def _head(connection: socket.socket, room: memoryview) -> tuple[bytes, bytes] | None:
    """The head of a call and what came of its body with it; None at the end of the connection."""
    held = b""
    while (end := held.find(b"\r\n\r\n")) < 0:
        got = connection.recv_into(room)
        if not got:
            return None
        held += room[:got]
    return held[:end], held[end + 4 :]


def _body(connection: socket.socket, room: memoryview, start: bytes, length: int, *, keep: bool) -> bytes:
    """The rest of a call, read in as few strokes as there can be; empty unless it is kept."""
    kept = bytearray(start) if keep else bytearray()
    rest = length - len(start)
    while rest > 0:
        got = connection.recv_into(room, min(rest, BUFFER), socket.MSG_WAITALL)
        if not got:
            return b""
        rest -= got
        if keep:
            kept += room[:got]
    return bytes(kept)


def main() -> None:
    """Listen on a free port of loopback, a thread for each connection."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.sink", description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="wait so long before each answer")
    parser.add_argument("--keep", type=Path, help="write each call into this folder, for whoever wants to post it again")
    options = parser.parse_args()
    sink = Sink(options.delay_ms / 1000, options.keep)
    server = socket.create_server(("127.0.0.1", 0), backlog=128)

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=sink.serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdout.write(f"{server.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
