"""What others send as JSON, read without trust in its shape; it knows neither providers nor their words."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from pipeline.issue import Copy, Event, Kind, Receipt, Shown

_REF = re.compile(r"[0-9a-f]{32}")
_ADDRESS = re.compile(r"\S+@\S+")


class CutShort(Exception):
    """A list from outside goes on beyond what is read of it."""


def accepted_in(told: Iterable[tuple[object, str]], copies: Sequence[Copy]) -> Shown:
    """What a log shows of copies, from its entries' references and ids; it is read until everybody is found."""
    wanted = {copy.ref for copy in copies}
    found: dict[str, Receipt] = {}
    try:
        for ref, provider_id in told:
            if isinstance(ref, str) and ref in wanted and provider_id:
                found[ref] = Receipt(ref, accepted=True, provider_id=provider_id)
            if len(found) == len(wanted):
                break
    except CutShort:
        return Shown(list(found.values()), whole=False)
    return Shown(list(found.values()))


def read_object(body: bytes | str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is none.
    """
    # Unlike the standard library's, this parser takes no NaN, no half characters and no nesting without end.
    found = orjson.loads(body)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - what is wrong is a value that came from outside
    return found


def dig(found: object, *path: str | int) -> Any:
    """What lies at a path of names and places; None where there is nothing."""
    for step in path:
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and isinstance(step, int) and 0 <= step < len(found):
            found = found[step]
        else:
            return None
    return found


def words(found: object) -> str:
    """A text or a number as one printable line of at most 500 characters; empty for anything else."""
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return ""
    line = " ".join(str(found).split())
    return "".join(each for each in line if each.isprintable())[:500]


def told(kind: Kind, ref: object, address: object, provider_id: object, reason: str = "") -> Event:
    """An event of foreign values; what cannot be a reference or an address is left out, and addresses in a reason are."""
    return Event(
        kind,
        ref if isinstance(ref, str) and _REF.fullmatch(ref) else "",
        address if isinstance(address, str) and "@" in address and address.isprintable() else "",
        words(provider_id),
        _ADDRESS.sub("an address", words(reason)),
    )
