"""Pure: what a mail that came back says, as events: delivery reports, plain bounces, complaints, readers who leave.

Anybody can write to the box, so nothing is believed but for a copy whose reference the mail shows, which only its
reader and the servers on its way know, or for a subscriber whose token it carries. Addresses in it are not used.
"""

import base64
import logging
import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.utils import parseaddr

from flufl.bounce import all_failures

from pipeline.bounce import classify
from pipeline.envelope import ref_of_address, ref_of_message_id
from pipeline.issue import Event, Kind
from pipeline.wire import redact

# What it logs is raised as well, and may hold a piece of the mail.
logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL)

_MOST_REPORTS = 20
_MOST_WORDS = 300
_TO = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To")
_LEAVE = re.compile(r"\s*leave-([A-Za-z0-9_-]{16,64})\s*", re.IGNORECASE)
# RFC 5965, 7.3, and the ways that are in use.
_COMPLAINTS = frozenset({"abuse", "fraud", "virus", "other", "miscategorized"})
_DAEMONS = re.compile(r"mailer-?daemon|mail-?daemon|postmaster|mdaemon|mail(?:er)?[-.]?delivery.*", re.IGNORECASE)
_ORIGINALS = frozenset({"message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"})
_INLINE_ID = re.compile(r"^[> \t]*message-id:\s*(<[^>\s]{34,300}>)", re.IGNORECASE | re.MULTILINE)
_ORIGINAL_BEGINS = re.compile(
    r"^[> \t]*(?:(?:received|return-path|message-id|dkim-signature): |-{2,}.{0,40}(?:original|copy)"
    r"|.{0,20}copy of (?:the|your) (?:original )?(?:message|mail|headers))",
    re.IGNORECASE | re.MULTILINE,
)
# A bare code counts only where a reply begins, since a vacation may be spent in room 550.
_CODE = re.compile(
    r"(?<![\w.#-])(?:([45]\d\d)[ -]+)?\(?#?([45]\.\d{1,3}\.\d{1,3})(?!\.?\d)"
    r"|(?:^|[:;>])[ \t]*([45]\d\d)(?=[ -])(?![ -]+\(?#?[45]\.\d)",
    re.MULTILINE,
)
_WAITS = re.compile(r"delayed|still (?:trying|being retried)|will (?:be retried|keep trying|retry)|not yet been", re.IGNORECASE)


def read(raw: bytes) -> list[Event]:
    """What a mail says about copies and readers; nothing where it is of no concern.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return _read(message_from_bytes(raw))
    except Exception as error:
        # Mail may hold anything, and the libraries that take it apart stumble over some of it in ways of their own.
        raise ValueError(f"a mail cannot be read: {type(error).__name__}") from error


def _read(mail: Message) -> list[Event]:
    kind = mail.get_content_type()
    if kind != "multipart/report" and (leaving := _LEAVE.fullmatch(_header(mail, "Subject"))):
        return [Event(Kind.UNSUBSCRIBED, token=leaving.group(1), reason="a mail to the box")]
    parts = list(_leaves(mail))
    for part in parts:
        if part.get_content_type() == "message/feedback-report":
            return _complaint(mail, parts, _blocks(part))
        if part.get_content_type() in ("message/delivery-status", "message/global-delivery-status"):
            return _reports(mail, parts, _blocks(part))
    return _plain(mail)


def _complaint(mail: Message, parts: list[Message], fields: list[Message]) -> list[Event]:
    """A feedback report (RFC 5965)."""
    said = next((block["Feedback-Type"] for block in fields if block["Feedback-Type"]), "")
    sender = next((block["Original-Mail-From"] for block in fields if block["Original-Mail-From"]), "")
    ref = _ref(mail, parts) or ref_of_address(str(sender))
    kind = str(said).strip().lower()
    reason = redact(f"a feedback report: {kind}")
    if kind == "opt-out":
        return [Event(Kind.UNSUBSCRIBED if ref else Kind.OTHER, ref, reason=reason)]
    return [Event(Kind.COMPLAINED if ref and kind in _COMPLAINTS else Kind.OTHER, ref, reason=reason)]


def _reports(mail: Message, parts: list[Message], blocks: list[Message]) -> list[Event]:
    """A delivery report (RFC 3464): one block of fields for each address that the copy went on to."""
    ref = _ref(mail, parts)
    told = [block for block in blocks if block["Action"] or block["Status"]]
    words = _words(parts)
    return [_report(ref, block, words) for block in told[:_MOST_REPORTS]]


def _report(ref: str, block: Message, words: str) -> Event:
    status, action = _header(block, "Status"), _header(block, "Action").lower()
    diagnosis = _header(block, "Diagnostic-Code")
    # Its type stands in front, as in `smtp; 550 5.1.1 unknown`. OpenSMTPD gives none, and 5.0.0 for whatever happened.
    code, said = _reply(diagnosis.partition(";")[2] or diagnosis)
    if not diagnosis:
        code, said = _reply(words, _header(block, "Final-Recipient").partition(";")[2].strip())
    said = said or diagnosis
    reason = redact(f"{action} {status} {said}")
    if not ref:
        return Event(Kind.OTHER, reason=redact(f"a report that names no copy: {reason}"))
    if action == "delivered":
        return Event(Kind.DELIVERED, ref, reason=reason)
    if action != "failed" and (action or not status.startswith("5")):
        return Event(Kind.OTHER, ref, reason=reason)
    says_nothing = not status or status.endswith(".0.0")
    return Event(classify((says_nothing and code) or status, said), ref, reason=reason)


def _plain(mail: Message) -> list[Event]:
    """A bounce in words of its own, as qmail and others write them."""
    by_a_daemon = bool(_DAEMONS.fullmatch(parseaddr(_header(mail, "From"))[1].partition("@")[0]))
    # RFC 5321, 4.5.5: a bounce has no sender in its envelope, and neither has many an answer of somebody who is away.
    if _is_of_no_concern(mail) or not (by_a_daemon or _header(mail, "Return-Path") == "<>"):
        return []
    parts = list(_leaves(mail))
    words = _words(parts)
    code, said = _reply(words)
    waiting, gone = _recognised(mail)
    if not (waiting or gone):
        answers_by_itself = _header(mail, "Auto-Submitted").lower().startswith("auto-replied")
        if not code or not (by_a_daemon or ("." in code and not answers_by_itself)):
            return []
    quoted = _INLINE_ID.findall("\n".join(map(_text, parts)))
    ref = _ref(mail, parts) or next((ref for each in quoted if (ref := ref_of_message_id(each))), "")
    said = said or " ".join(words.split())[:_MOST_WORDS]
    if not ref:
        return [Event(Kind.OTHER, reason=redact(f"a bounce that names no copy: {said}"))]
    if not gone and (waiting or _WAITS.search(f"{_header(mail, 'Subject')} {words}")):
        return [Event(Kind.OTHER, ref, reason=redact(said))]
    return [Event(classify(code, said), ref, reason=redact(said))]


def _recognised(mail: Message) -> tuple[bool, bool]:
    """Whether a bounce of a known form says that the mail waits, and whether it says that it was given up."""
    try:
        waiting, gone = all_failures(mail)
    except Exception:  # noqa: BLE001 - it stumbles, in ways of its own, over headers that are not as it expects
        return False, False
    return bool(waiting), bool(gone)


def _words(parts: list[Message]) -> str:
    """What a report says to people, without the original that it may bring along in its text."""
    text = "\n".join(_text(part) for part in parts if part.get_content_type() == "text/plain")
    begins = _ORIGINAL_BEGINS.search(text)
    return text[: begins.start()] if begins else text


def _reply(text: str, about: str = "") -> tuple[str, str]:
    """The codes and the words of the first server's answer in a text, behind the address that it is about."""
    found = text.find(about) + len(about) if about and about in text else 0
    code = _CODE.search(text, found)
    if not code:
        return "", ""
    paragraph = re.split(r"\n\s*\n", text[code.start() :], maxsplit=1)[0]
    return " ".join(filter(None, code.groups())), " ".join(paragraph.split())[:_MOST_WORDS].lstrip(":;> ")


def _is_of_no_concern(mail: Message) -> bool:
    """A newsletter, such as a copy of our own that came round, or the answer of somebody who is away."""
    of_a_list = ("List-Id", "List-Unsubscribe", "List-Post")
    away = ("X-Autoreply", "X-Autorespond", "X-Autoresponder", "Vacation")
    return any(mail[name] for name in (*of_a_list, *away))


def _ref(mail: Message, parts: list[Message]) -> str:
    """The copy's reference: from the return address that it was sent to, else from the original that it brings along."""
    sent_to = " ".join(str(value) for name in _TO for value in mail.get_all(name, []))
    if ref := ref_of_address(sent_to):
        return ref
    for original in _originals(parts):
        ref = ref_of_message_id(_header(original, "Message-ID")) or ref_of_address(_header(original, "Return-Path"))
        if ref:
            return ref
    return ""


def _originals(parts: list[Message]) -> Iterator[Message]:
    for part in parts:
        if part.get_content_type() in _ORIGINALS:
            payload = part.get_payload()
            if isinstance(payload, list):
                yield from (each for each in payload[:1] if isinstance(each, Message))
            else:
                yield message_from_bytes(_bytes(part))


def _leaves(mail: Message) -> Iterator[Message]:
    """The parts of a mail, down to messages that it brings along, but not into them."""
    if mail.get_content_maintype() != "multipart":
        yield mail
        return
    for part in _parts(mail):
        yield from _leaves(part)


def _parts(mail: Message) -> list[Message]:
    payload = mail.get_payload()
    return [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []


def _blocks(part: Message) -> list[Message]:
    """The groups of fields of a report, which some servers encode though they must not."""
    body = part.as_bytes().partition(b"\n\n")[2]
    if _header(part, "Content-Transfer-Encoding").lower() == "base64":
        body = base64.b64decode(body)
    return [message_from_bytes(block) for block in re.split(rb"\r?\n[ \t]*\r?\n", body)]


def _header(mail: Message, name: str) -> str:
    return " ".join(str(mail[name] or "").split())


def _text(part: Message) -> str:
    return _bytes(part).decode("utf-8", "replace").replace("\r\n", "\n")


def _bytes(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
