"""A provider that takes everything and keeps nothing, as fast as Python can: what benchmarks send to.

Run as a process: it prints its port and ends when its standard input does. By default it looks at no more of a
call than for whom it is, which even the laziest provider must; with `--discard` not even at that. Whether a call
is right otherwise the fake providers of the tests say.
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

import orjson

_ROOM = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MAILGUN = b'{"id": "<20261127.%08x@news.example.com>", "message": "Queued. Thank you."}'
_POSTMARK = (
    b'{"To":"%s","SubmittedAt":"2026-11-27T08:00:00.0000000-00:00",'
    b'"MessageID":"%08x-0000-4000-8000-%012x","ErrorCode":0,"Message":"OK"}'
)
_RESEND = b'{"id":"%08x-0000-4000-8000-%012x"}'


def _of_mailgun(body: bytearray) -> list[bytes]:
    """The addressees of a form, each of which must have its variables."""
    boundary = body[: body.find(b"\r\n")]
    readers, variables = [], None
    for part in body.split(b"\r\n" + boundary):
        head = part.find(b"\r\n\r\n")
        if part.endswith(b'name="to"', 0, head):
            readers.append(bytes(part[head + 4 :]))
        elif part.endswith(b'name="recipient-variables"', 0, head):
            variables = orjson.loads(memoryview(part)[head + 4 :])
    if not variables or len(variables) != len(readers) or any(each.decode() not in variables for each in readers):
        raise ValueError("an addressee without variables, or the other way round")
    return readers


def _after(mark: bytes) -> Callable[[bytearray], list[bytes]]:
    """What follows each mark, up to the next quote."""

    def find(body: bytearray) -> list[bytes]:
        found, at = [], body.find(mark)
        while at >= 0:
            at += len(mark)
            found.append(bytes(body[at : body.index(b'"', at)]))
            at = body.find(mark, at)
        return found

    return find


@dataclass(frozen=True)
class Shape:
    """How a provider is called: who the addressees of a call are, and the answer to call number so-and-so for them."""

    readers: Callable[[bytearray], list[bytes]]
    answer: Callable[[int, list[bytes]], bytes]


def _one(answer: Callable[[int, list[bytes]], bytes]) -> Callable[[int, list[bytes]], bytes]:
    return lambda call, readers: answer(call, readers[:1])[1:-1]


def _postmark(call: int, readers: list[bytes]) -> bytes:
    return b"[%s]" % b",".join([_POSTMARK % (reader, call, place) for place, reader in enumerate(readers)])


def _resend(call: int, readers: list[bytes]) -> bytes:
    return b'{"data":[%s]}' % b",".join([_RESEND % (call, place) for place, _ in enumerate(readers)])


# By the end of the path, the longest first.
SHAPES = {
    b"/emails/batch": Shape(_after(b'"to":["'), _resend),
    b"/email/batch": Shape(_after(b'"To":"'), _postmark),
    b"/emails": Shape(_after(b'"to":["'), lambda call, _readers: _RESEND % (call, 0)),
    b"/email": Shape(_after(b'"To":"'), _one(_postmark)),
    b"/messages": Shape(_of_mailgun, lambda call, _readers: _MAILGUN % call),
}


@dataclass
class Sink:
    """What all connections share.

    Who discards knows the addressees of a path's first call alone, and takes all others for as many of as many
    bytes each: the bench's readers are of one length.
    """

    delay: float
    keep: Path | None
    discards: bool
    calls: int = 0
    known: dict[bytes, tuple[int, list[bytes]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket) -> None:
        """Answer every call of a connection until it ends."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        room = bytearray(_ROOM)
        while call := _head(connection, room):
            head, held = call
            path = head[: head.find(b" HTTP/")].rpartition(b" ")[2]
            kind = next(each for each in SHAPES if path.endswith(each))
            length = int(match[1]) if (match := _LENGTH.search(head)) else 0
            looks = self.keep is not None or not self.discards or kind not in self.known
            if looks and length > len(room):
                room.extend(bytes(length - len(room)))
            if not _read(connection, memoryview(room), held, length, onto_itself=not looks):
                return
            body = (room if len(room) == length else room[:length]) if looks else None
            answer = self._answer(kind, head, body, length)
            if self.delay:
                time.sleep(self.delay)
            connection.sendall(answer)

    def _answer(self, kind: bytes, head: bytes, body: bytearray | None, length: int) -> bytes:
        shape = SHAPES[kind]
        with self.lock:
            self.calls += 1
            number = self.calls
        if self.keep and body is not None:
            (self.keep / f"{number:04}.head").write_bytes(head)
            (self.keep / f"{number:04}.body").write_bytes(body)
        if body is None:
            size, readers = self.known[kind]
            readers = readers[:1] * round(len(readers) * length / size)
        else:
            readers = shape.readers(body)
            self.known.setdefault(kind, (length, readers))
        said = shape.answer(number, readers)
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)


def _head(connection: socket.socket, room: bytearray) -> tuple[bytes, int] | None:
    """The head of a call; what came of its body with it is put at the start of the room, so many bytes."""
    held = 0
    while True:
        got = connection.recv_into(memoryview(room)[held:])
        if not got:
            return None
        held += got
        end = room.find(b"\r\n\r\n", 0, held)
        if end >= 0:
            head, body = bytes(room[:end]), bytes(room[end + 4 : held])
            room[: len(body)] = body
            return head, len(body)


def _read(connection: socket.socket, room: memoryview, held: int, length: int, *, onto_itself: bool) -> bool:
    """Read the rest of a call in as few strokes as there can be; False if it ends before."""
    while held < length:
        start = 0 if onto_itself else held
        got = connection.recv_into(room[start:], min(length - held, len(room) - start), socket.MSG_WAITALL)
        if not got:
            return False
        held += got
    return True


def main() -> None:
    """Listen on a free port of loopback, a thread for each connection."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.sink", description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="wait so long before each answer")
    parser.add_argument("--discard", action="store_true", help="do not even look for whom a call is")
    parser.add_argument("--keep", type=Path, help="write each call into this folder, for whoever wants to post it again")
    options = parser.parse_args()
    sink = Sink(options.delay_ms / 1000, options.keep, options.discard)
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
