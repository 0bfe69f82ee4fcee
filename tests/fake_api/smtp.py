"""A mail server as the fake plays it: one call is one transaction, and takes one copy.

The protocol is aiosmtpd's; here stands what a reply means for the copy, and how each fault looks over SMTP.
"""

import asyncio
import logging
import re
from collections.abc import Callable

from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.fake_api.dialect import Item
from tests.fake_api.faults import Fault
from tests.fake_api.server import Fake

NAME = "smtp"
_MESSAGE_ID = re.compile(rb"^Message-ID:\s*<([0-9a-f]{32})@", re.IGNORECASE | re.MULTILINE)
_AT_MAIL = {Fault.UNAUTHORISED: "530 5.7.0 Authentication required", Fault.LIMIT: "451 4.7.0 try again in {} seconds"}


def speak(fake: Fake) -> Callable[[], SMTP]:
    """What makes a protocol for each connection."""
    logging.getLogger("mail").setLevel(logging.CRITICAL)
    return lambda: SMTP(Handler(fake), hostname="fake.example", loop=asyncio.get_running_loop(), enable_SMTPUTF8=True)


class Handler:
    """One connection: a number and a fault for each transaction, from MAIL to the end of its data."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._number = 0
        self._fault: Fault | None = None

    async def handle_MAIL(  # noqa: N802 - so it is called
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Begin a call."""
        self._number, self._fault = self._fake.begin(NAME)
        if self._fault is Fault.RESET:
            _cut(server)
        if refusal := _AT_MAIL.get(self._fault) if self._fault else None:
            return self._said(refusal.format(self._fake.plan.patience))
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802 - so it is called
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Refuse a bad reader for good, here and now."""
        if address in self._fake.plan.bad or self._fault is Fault.PARTIAL:
            self._fake.refused.append((address, "", self._number))
            return self._said("550 5.1.1 no such user here")
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - so it is called
        """Take the copy or not, and say so."""
        if self._fault is Fault.BEFORE:
            return self._said("451 4.3.0 queue file cannot be written")
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        found = _MESSAGE_ID.search(content)
        (reader,) = envelope.rcpt_tos
        self._fake.take(NAME, self._number, [Item(reader, found.group(1).decode() if found else "")], [str(self._number)])
        match self._fault:
            case Fault.LOST | Fault.AFTER | Fault.MISCOUNTED:
                _cut(server)
            case Fault.GARBLED:
                return self._said("Ok, and yet no reply")
            case Fault.SLOW:
                await asyncio.sleep(self._fake.plan.slow)
            case Fault.HELD:
                released = asyncio.Event()
                self._fake.held.append(released.set)
                await released.wait()
        return self._said(f"250 2.0.0 Ok: queued as F{self._number:09X}")

    def _said(self, reply: str) -> str:
        code = reply.partition(" ")[0]
        self._fake.calls[self._number - 1]["status"] = int(code) if code.isdecimal() else 0
        return reply


def _cut(server: SMTP) -> None:
    assert isinstance(server.transport, asyncio.Transport)
    server.transport.abort()
    raise ConnectionResetError
