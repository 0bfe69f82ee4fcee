"""Pure: the return address that names its copy (VERP), written by who sends and read by who gets mail back."""

import re

from pipeline.text import wire_address

# RFC 5321, 4.5.3.1.1: a local part has at most 64 octets, and a plus and the reference take 33 of them.
LONGEST_LOCAL = 31
_REF = re.compile(r"\+([0-9a-f]{32})@", re.IGNORECASE)
_OWN_ID = re.compile(r"<\s*([0-9a-f]{32})@", re.IGNORECASE)


def return_path(address: str, ref: str) -> str:
    """The address `name+<ref>@host` of the box at `name@host`; without the reference where the name leaves no room for it."""
    local, _, domain = wire_address(address).rpartition("@")
    return f"{local}+{ref}@{domain}" if len(local.encode()) <= LONGEST_LOCAL else f"{local}@{domain}"


def ref_of_address(text: str) -> str:
    """The copy's reference in the first return address in a text; empty where there is none."""
    found = _REF.search(text)
    return found.group(1).lower() if found else ""


def ref_of_message_id(text: str) -> str:
    """The copy's reference in a Message-ID, which is `<ref@host>`; empty where it is not one of ours."""
    found = _OWN_ID.match(text.strip())
    return found.group(1).lower() if found else ""
