"""DKIM (RFC 6376): a signature over a whole message, by which others see that its domain vouches for it.

It is RSA with SHA-256 and relaxed on both sides, which survives what relays do to spaces. dkimpy computes in
Python: some 7 ms for a copy of 40 kB under a key of 2048 bits, 5 of them the RSA step, which threads do not share.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dkim  # type: ignore[import-untyped] # it has no types
from dkim import crypto

# RFC 8301, 3.2: what is shorter is taken for no signature at all.
SHORTEST_KEY = 1024
# RFC 8058, 4: a way out with one click counts only where a signature covers it.
_SIGNED = (
    b"from", b"to", b"subject", b"date", b"message-id", b"reply-to", b"mime-version", b"content-type",
    b"list-unsubscribe", b"list-unsubscribe-post", b"list-id", b"feedback-id",
)  # fmt: skip
# Named once more than they are there, so that nobody adds another one (RFC 6376, 8.15).
_SEALED = (b"from", b"to", b"cc", b"subject", b"date", b"reply-to", b"list-unsubscribe")


class _Signer(dkim.DKIM):  # type: ignore[misc] # it has no types
    """The library's signer, with the time of the signature given to it."""

    def __init__(self, message: bytes, dated: datetime) -> None:
        super().__init__(message)
        self._dated = b"%d" % dated.timestamp()

    def gen_header(self, fields: list[tuple[bytes, bytes]], *rest: Any, **more: Any) -> Any:
        """The header, whose `t` is what was given instead of now."""
        return super().gen_header([(name, self._dated if name == b"t" else value) for name, value in fields], *rest, **more)


@dataclass(frozen=True, slots=True)
class Signature:
    """A domain's key and the selector under which its public half is in the DNS."""

    selector: str
    key: str = field(repr=False)
    domain: str = ""

    def sign(self, message: bytes, sender: str, dated: datetime) -> bytes:
        """The message with its signature in front; the same message and time give the same bytes.

        Args:
            message: with its lines ended by CRLF.
            sender: whose domain signs where the signature names none.
            dated: when it says that it was made.
        """
        domain = self.domain or sender.rpartition("@")[2]
        there = {line.partition(b":")[0].lower() for line in message.partition(b"\r\n\r\n")[0].split(b"\r\n")}
        header: bytes = _Signer(message, dated).sign(
            self.selector.encode(),
            domain.encode(),
            self.key.encode(),
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=[*(name for name in _SIGNED if name in there), *_SEALED],
        )
        return header + message


def check_key(pem: str) -> None:
    """See that a private key can sign.

    Raises:
        ValueError: it cannot; the sentence says why, and holds nothing of the key.
    """
    try:
        key = crypto.parse_pem_private_key(pem.encode())
        signed = crypto.RSASSA_PKCS1_v1_5_sign(hashlib.sha256(), key)
        whole = crypto.RSASSA_PKCS1_v1_5_verify(hashlib.sha256(), signed, key)
    except (crypto.UnparsableKeyError, crypto.DigestTooLargeError, ValueError, TypeError, LookupError, ArithmeticError):
        raise ValueError("is not an RSA private key in PEM without a passphrase") from None
    if not whole:
        raise ValueError("is damaged: what it signs does not verify")
    bits = int(key["modulus"]).bit_length()
    if bits < SHORTEST_KEY:
        raise ValueError(f"has {bits} bits, and no less than {SHORTEST_KEY} count (RFC 8301)")
