"""A verifier of DKIM signatures (RFC 6376) that shares no line with what makes ours."""

import base64
import hashlib
import re

# RFC 8017, 9.2, note 1: what stands before a SHA-256 digest in a signature.
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def judge(message: bytes, private_key: str) -> dict[str, str]:
    """The tags of the signature in front of a message; an AssertionError where it does not verify.

    The public half comes from the private one, as the DNS would have it.
    """
    head, _, body = message.partition(b"\r\n\r\n")
    fields = [(field.lower().strip(), value) for field, value in (each.split(b":", 1) for each in _unfolded(head))]
    first, signature = fields[0]
    assert first == b"dkim-signature"
    pairs = (tag.split("=", 1) for tag in signature.decode().split(";") if tag.strip())
    tags = {name.strip(): value.strip() for name, value in pairs}
    assert base64.b64decode(re.sub(r"\s", "", tags["bh"])) == hashlib.sha256(_relaxed_body(body)).digest(), "body"
    left = list(fields)
    chosen = []
    for wanted in re.split(r"\s*:\s*", tags["h"].lower()):
        place = max((place for place, (field, _) in enumerate(left) if field == wanted.encode()), default=None)
        if place is not None:
            chosen.append(left.pop(place))
    unsigned = re.sub(rb"(;\s*b\s*=)[^;]*", rb"\1", signature)
    text = b"".join(_relaxed(*each) + b"\r\n" for each in chosen) + _relaxed(b"dkim-signature", unsigned)
    modulus, exponent = _numbers(private_key)
    size = (modulus.bit_length() + 7) // 8
    opened = pow(int.from_bytes(base64.b64decode(re.sub(r"\s", "", tags["b"])), "big"), exponent, modulus).to_bytes(size, "big")
    digest = _DIGEST_INFO + hashlib.sha256(text).digest()
    assert opened == b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest, "headers"
    return tags


def _unfolded(head: bytes) -> list[bytes]:
    return re.split(rb"\r\n(?![ \t])", head)


def _relaxed(name: bytes, value: bytes) -> bytes:
    return name + b":" + re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip()


def _relaxed_body(body: bytes) -> bytes:
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def _numbers(private_key: str) -> tuple[int, int]:
    """Modulus and public exponent, the second and third number of an RSAPrivateKey (RFC 8017, A.1.2)."""
    der = base64.b64decode("".join(line for line in private_key.splitlines() if "-----" not in line))
    numbers: list[int] = []
    place = _into(der, 0)[0]
    while len(numbers) < 3:
        begin, end = _into(der, place)
        numbers.append(int.from_bytes(der[begin:end], "big"))
        place = end
    return numbers[1], numbers[2]


def _into(der: bytes, place: int) -> tuple[int, int]:
    length, begin = der[place + 1], place + 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[place + 2 : begin], "big")
    return begin, begin + length
