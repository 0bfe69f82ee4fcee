"""The fake's ledger and its HTTP: what was taken, once and for all to be counted, whatever became of the client.

One thread, one loop; a call is taken at the instant at which its last byte was read. Paths that begin with
`/_` are for whoever runs a trial.
"""

import asyncio
import base64
import hashlib
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson

from tests.fake_api.dialect import Answer, Dialect, Item, Mail, Refused, Request, told
from tests.fake_api.faults import Fault, Plan
from tests.fake_api.mailgun import Mailgun
from tests.fake_api.postmark import Postmark
from tests.fake_api.resend import Resend

DIALECTS: tuple[Dialect, ...] = (Mailgun(), Postmark(), Resend())
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Keyed:
    """What was answered under a key; while it is not `told`, a second call under it comes too early."""

    digest: bytes
    answer: Answer
    told: bool = False


@dataclass
class Fake:
    """What came and what was taken. `counting` counts copies without reading them, `keeping` keeps whole requests."""

    counting: bool = False
    keeping: bool = False
    log: Path | None = None
    plan: Plan = field(default_factory=Plan)
    number: int = 0
    copies: int = 0
    calls: list[dict[str, Any]] = field(default_factory=list)
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    accepted: list[tuple[str, str, int]] = field(default_factory=list)
    refused: list[tuple[str, str, int]] = field(default_factory=list)
    mails: dict[str, list[Mail]] = field(default_factory=dict)
    keys: dict[str, Keyed] = field(default_factory=dict)
    held: list[Callable[[], None]] = field(default_factory=list)

    def begin(self, who: str) -> tuple[int, Fault | None]:
        """Number a call that sends, and see what goes wrong with it."""
        self.number += 1
        fault = self.plan.fault(self.number)
        self.calls.append({"number": self.number, "provider": who, "fault": fault, "status": 0, "copies": 0})
        return self.number, fault

    def take(self, who: str, number: int, items: list[Item], ids: list[str]) -> None:
        """Write down what is taken, and what is refused for good."""
        now = time.time()
        for item, given in zip(items, ids, strict=True):
            if item.refusal:
                self.refused.append((item.address, item.ref, number))
            else:
                self.accepted.append((item.address, item.ref, number))
                self.mails.setdefault(who, []).append(Mail(item, given, now))
        self.taken(number, sum(not item.refusal for item in items))
        if self.log:
            line = {"call": number, "provider": who, "at": now, "copies": [(item.address, item.ref) for item in items]}
            with self.log.open("ab") as file:
                file.write(orjson.dumps(line) + b"\n")

    def taken(self, number: int, copies: int) -> None:
        """Count what is taken."""
        self.copies += copies
        self.calls[number - 1]["copies"] = copies

    def answer(self, dialect: Dialect, request: Request, number: int, fault: Fault | None) -> Answer:
        """Take a call or not, and say so; or say what comes of a fault."""
        match fault:
            case Fault.UNAUTHORISED:
                return dialect.unauthorised()
            case Fault.LIMIT:
                return dialect.limited(number, self.plan.patience)
            case Fault.BEFORE:
                return dialect.broken()
        try:
            whole = self._answer_under_key(dialect, request, number, fault)
        except Refused as refused:
            return refused.answer
        return _spoil(dialect, whole, fault)

    def _answer_under_key(self, dialect: Dialect, request: Request, number: int, fault: Fault | None) -> Answer:
        name = request.headers.get("idempotency-key")
        if not name or not isinstance(dialect, Resend):
            return self._answer(dialect, request, number, fault)
        digest = hashlib.sha256(request.body).digest()
        known = self.keys.get(name)
        if known is None:
            # What is refused is not kept: the key is as good as new.
            self.keys[name] = Keyed(digest, self._answer(dialect, request, number, fault))
            return self.keys[name].answer
        if known.digest != digest:
            raise Refused(dialect.mistaken())
        if not known.told:
            raise Refused(dialect.concurrent())
        return known.answer

    def _answer(self, dialect: Dialect, request: Request, number: int, fault: Fault | None) -> Answer:
        if self.counting:
            copies = dialect.count(request.body)
            self.taken(number, copies)
            return dialect.accepted_unread(number, copies)
        items = [self._judged(dialect, item, place, fault) for place, item in enumerate(dialect.read(request))]
        ids = dialect.ids(number, len(items))
        self.take(dialect.name, number, items, ids)
        return dialect.accepted(items, ids)

    def is_told(self, request: Request) -> None:
        """The answer of a call has left, or never will."""
        known = self.keys.get(request.headers.get("idempotency-key", ""))
        if known:
            known.told = True

    def _judged(self, dialect: Dialect, item: Item, place: int, fault: Fault | None) -> Item:
        guilty = item.address in self.plan.bad
        if guilty and not dialect.by_item:
            raise Refused(dialect.refused(item.address))
        if dialect.by_item and (guilty or (fault is Fault.PARTIAL and place % 5 == 4)):
            return item._replace(refusal=dialect.refused(item.address).body.decode())
        return item

    def control(self, request: Request) -> Answer:
        """What whoever runs a trial asks or orders."""
        if request.path == "/_accepted":
            return told(200, {"copies": self.copies, "accepted": self.accepted, "refused": self.refused})
        if request.path == "/_calls":
            return told(200, {"calls": self.calls, "held": len(self.held)})
        if request.path == "/_exchanges":
            return told(200, self.exchanges)
        if request.path == "/_faults":
            self.plan = _plan(orjson.loads(request.body))
        elif request.path == "/_release":
            waiting, self.held = self.held, []
            for answer in waiting:
                answer()
        elif request.path == "/_reset":
            self.number = self.copies = 0
            self.plan = Plan()
            for each in (self.calls, self.exchanges, self.accepted, self.refused, self.mails, self.keys, self.held):
                each.clear()
        else:
            return told(404, {})
        return told(200, {})


def _spoil(dialect: Dialect, whole: Answer, fault: Fault | None) -> Answer:
    match fault:
        case Fault.AFTER:
            return dialect.broken()
        case Fault.GARBLED:
            return replace(whole, body=whole.body[: len(whole.body) // 2])
        case Fault.MISCOUNTED:
            return dialect.miscounted(whole)
    return whole


def _plan(asked: Mapping[str, Any]) -> Plan:
    calls = {int(number): Fault(fault) for number, fault in asked.get("calls", {}).items()}
    rates = {Fault(name): float(rate) for name, rate in asked.get("rates", {}).items()}
    rest = {name: asked[name] for name in ("seed", "slow", "patience", "forgetful") if name in asked}
    return Plan(calls=calls, rates=rates, bad=frozenset(asked.get("bad", ())), **rest)


class Connection(asyncio.Protocol):
    """One connection of a client: HTTP/1.1, bodies of a declared length, one call after another."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._buffer = bytearray()
        self._head: Request | None = None
        self._length = 0
        self._dialect: Dialect | None = None
        self._number = 0
        self._fault: Fault | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it, and send small answers at once."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Go as far as the bytes reach."""
        self._buffer += data
        if self._head is None and not self._open():
            return
        if self._head and len(self._buffer) >= self._length:
            head, body = self._head, bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
            self._head = None
            self._handle(Request(head.method, head.path, head.query, head.headers, body))

    def _open(self) -> bool:
        """Read the head of a request; False if it is not all there, or leads to nothing."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._head = Request(method, path, query, headers, b"")
        self._length = int(headers.get("content-length", 0))
        self._dialect = next((each for each in DIALECTS if each.sends(self._head)), None)
        if self._dialect:
            self._number, self._fault = self._fake.begin(self._dialect.name)
            if self._fault is Fault.RESET:
                self._break()
                return False
        return True

    def _break(self) -> None:
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _handle(self, request: Request) -> None:
        fake, dialect, number, fault = self._fake, self._dialect, self._number, self._fault
        if request.path.startswith("/_"):
            self._say(fake.control(request))
        elif dialect is None:
            mails = {} if fake.plan.forgetful else fake.mails
            found = (each.look_up(request, mails.get(each.name, ())) for each in DIALECTS)
            answer = next((answer for answer in found if answer), told(404, {"message": "Not Found"}))
            self._keep(request, answer)
            self._say(answer)
        else:
            self._tell(request, number, fake.answer(dialect, request, number, fault), fault)

    def _tell(self, request: Request, number: int, answer: Answer, fault: Fault | None) -> None:
        fake = self._fake
        self._keep(request, answer)

        def say() -> None:
            fake.calls[number - 1]["status"] = answer.status
            fake.is_told(request)
            self._say(answer)

        if fault is Fault.LOST:
            fake.is_told(request)
            self._transport.abort()
        elif fault is Fault.SLOW:
            asyncio.get_running_loop().call_later(fake.plan.slow, say)
        elif fault is Fault.HELD:
            fake.held.append(say)
        else:
            say()

    def _keep(self, request: Request, answer: Answer) -> None:
        if self._fake.keeping:
            self._fake.exchanges.append(_exchange(request, answer))

    def _say(self, answer: Answer) -> None:
        phrase = HTTPStatus(answer.status).phrase
        lines = [f"HTTP/1.1 {answer.status} {phrase}", f"Content-Type: {answer.kind}", f"Content-Length: {len(answer.body)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        self._transport.write("\r\n".join([*lines, "\r\n"]).encode("latin-1") + answer.body)


def _exchange(request: Request, answer: Answer) -> dict[str, Any]:
    return {
        "method": request.method, "path": request.path, "query": request.query, "headers": dict(request.headers),
        "body": base64.b64encode(request.body).decode(), "status": answer.status, "kind": answer.kind,
        "answer": answer.body.decode(),
    }  # fmt: skip
