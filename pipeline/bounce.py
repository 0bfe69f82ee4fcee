"""Pure: what a refusal means for a reader, from its codes and its words; where they came from is others' business.

Only evidence that the address is dead makes a hard bounce, since that keeps mail from a reader for good.
Sources: RFC 3463 (codes of the form 5.1.1) with its registry at IANA, RFC 5321 (codes of three digits).
"""

import re

from pipeline.issue import Kind

# Not a part of an IP address or a version.
_ENHANCED = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?!\.?\d)")
_REPLY = re.compile(r"(?:^|\W)([245]\d\d)(?=[\s-]|$)")
_DEAD_SUBJECT, _MAILBOX, _CONTENT, _POLICY = "1", "2", "6", "7"
_SENDERS = frozenset({"1.7", "1.8"})
_TOO_LARGE = frozenset({"2.3", "3.4"})
_DEAD = frozenset({"2.1"})
_SAYS_NOTHING = frozenset({"0", "3", "4", "5"})
_DEAD_REPLIES = frozenset({"550", "551", "553"})

_BLOCKED_WORDS = re.compile(
    r"spam|spf\b|dkim|dmarc|polic(?:y|ies)|reputation|unsolicited|(?:black|block|deny|rb)-?_?list|blocked|dnsbl|banned"
    r"|virus|malware|phish|prohibit|too (?:large|big)|message size|size limit|content|not allowed to send"
    r"|(?<!address rejected: )access denied|sender (?:address|domain|verif)|authenticat",
    re.IGNORECASE,
)
_FULL_WORDS = re.compile(r"(?:mailbox|inbox|storage)\b.{0,20}\bfull|quota|insufficient (?:system )?storage", re.IGNORECASE)
_DEAD_WORDS = re.compile(
    r"(?:unknown|invalid|no such|inactive|disabled|non-?existent) (?:\w+ )?(?:user|recipient|mailbox|address|account)"
    r"|(?:user|recipient|mailbox|address|account)\b.{0,80}\b(?:unknown|not found|invalid|inactive|disabled|unavailable)"
    r"|(?:user|recipient|mailbox|address|account|domain)\b.{0,80}(?:\bnot|n't) (?:exist|have)"
    r"|no mailbox|unrout(?:e)?able address|recipient address rejected: access denied|null ?mx",
    re.IGNORECASE,
)
_WAITED_WORDS = re.compile(r"gr[ea]y-?\s?list", re.IGNORECASE)


def classify(code: str, text: str = "") -> Kind:
    """A refusal as a soft or a hard bounce, or as blocked.

    A temporary refusal is soft, as one that was given up on. A code that is specific is believed; words count
    where it says no more than that something is wrong.

    Args:
        code: of a reply, enhanced or plain or both; what is empty is looked for in the text.
        text: what the server said.
    """
    # A name such as no-spam@ says nothing.
    words = re.sub(r"\S+@\S+", "", " ".join(text.split()))
    said = f"{code} {words}"
    enhanced = _ENHANCED.search(said)
    reply = _REPLY.search(code) or _REPLY.match(words)
    level, subject, detail = enhanced.groups() if enhanced else (reply.group(1)[0] if reply else "", "0", "0")
    if subject == _POLICY:
        return Kind.SOFT_BOUNCE if _WAITED_WORDS.search(words) else Kind.BLOCKED
    if level == "4":
        return Kind.SOFT_BOUNCE
    if enhanced and (kind := _specific(subject, f"{subject}.{detail}")):
        return kind
    return _from_words(words) or (Kind.HARD_BOUNCE if reply and reply.group(1) in _DEAD_REPLIES else Kind.SOFT_BOUNCE)


def _specific(subject: str, code: str) -> Kind | None:
    """What a permanent code says by itself; None where it leaves that to the words."""
    if subject == _CONTENT or code in _SENDERS | _TOO_LARGE:
        return Kind.BLOCKED
    if subject == _DEAD_SUBJECT or code in _DEAD:
        return Kind.HARD_BOUNCE
    if subject in _SAYS_NOTHING or code == "2.0":
        return None
    return Kind.SOFT_BOUNCE


def _from_words(words: str) -> Kind | None:
    if _BLOCKED_WORDS.search(words):
        return Kind.BLOCKED
    if _FULL_WORDS.search(words):
        return Kind.SOFT_BOUNCE
    if _DEAD_WORDS.search(words):
        return Kind.HARD_BOUNCE
    return None
