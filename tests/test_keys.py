"""Tokens and blinded addresses: what was signed is read, for its purpose and under every secret that is still believed."""

import hashlib
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from itsdangerous import BadData
from itsdangerous.encoding import base64_decode

from subscribers.keys import ERASED, SHORTEST, Keys

SECRETS = st.lists(
    st.text(string.ascii_letters + string.digits, min_size=SHORTEST, max_size=48), min_size=1, max_size=4, unique=True
)
PURPOSES = st.text(string.ascii_lowercase, min_size=1, max_size=8)
VALUES = st.integers(-(2**63), 2**63) | st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
# What a link may hold without being escaped (RFC 3986, 2.3).
UNRESERVED = set(string.ascii_letters + string.digits + "-._~")
ADDRESSES = st.emails() | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(SECRETS, PURPOSES, VALUES)
def test_what_was_signed_is_read_and_fits_into_a_link(secrets: list[str], purpose: str, value: int | str) -> None:
    token = Keys(tuple(secrets)).sign(purpose, value)
    read = Keys(tuple(secrets)).read(purpose, token)
    assert (read, type(read)) == (value, type(value))
    assert set(token) <= UNRESERVED


@given(SECRETS, PURPOSES, PURPOSES, VALUES)
def test_a_token_says_nothing_for_another_purpose(secrets: list[str], purpose: str, other: str, value: int | str) -> None:
    assume(purpose != other)
    keys = Keys(tuple(secrets))
    assert keys.read(other, keys.sign(purpose, value)) is None


@given(SECRETS, PURPOSES, VALUES, st.data())
def test_a_token_that_was_changed_anywhere_says_nothing(
    secrets: list[str], purpose: str, value: int | str, data: st.DataObject
) -> None:
    keys = Keys(tuple(secrets))
    token = keys.sign(purpose, value)
    at = data.draw(st.integers(0, len(token) - 1))
    how = data.draw(st.sampled_from(["exchanged", "cut", "dropped", "doubled"]))
    another = data.draw(st.sampled_from(sorted(UNRESERVED)) | st.characters())
    changed = {
        "exchanged": token[:at] + another + token[at + 1 :],
        "cut": token[:at],
        "dropped": token[:at] + token[at + 1 :],
        "doubled": token[:at] + token[at] + token[at:],
    }[how]
    assume(changed != token)
    # The last letter of Base64 holds bits that count for nothing, so that other letters may stand for the same signature.
    assume(not _is_same_signature(token, changed))
    assert keys.read(purpose, changed) is None


@given(SECRETS, PURPOSES, st.text() | st.binary().map(lambda some: some.decode("latin-1")))
def test_whatever_comes_in_place_of_a_token_says_nothing(secrets: list[str], purpose: str, text: str) -> None:
    assert Keys(tuple(secrets)).read(purpose, text) is None


@given(SECRETS, SECRETS, PURPOSES, VALUES)
def test_a_token_is_read_as_long_as_its_secret_is_believed_and_not_longer(
    before: list[str], after: list[str], purpose: str, value: int | str
) -> None:
    assume(not set(before) & set(after))
    token = Keys(tuple(before)).sign(purpose, value)
    assert Keys((*after, *before)).read(purpose, token) == value
    assert Keys((*after, before[0])).read(purpose, token) == value
    assert Keys(tuple(after)).read(purpose, token) is None


@given(SECRETS, ADDRESSES)
def test_a_blinded_address_is_known_again_and_cannot_be_read(secrets: list[str], address: str) -> None:
    keys = Keys(tuple(secrets))
    blind = keys.blind(address)
    assert blind == keys.blinded(address)[0]
    assert blind.startswith(ERASED)
    assert len(blind) == len(ERASED) + 2 * hashlib.sha256().digest_size
    assert set(blind.removeprefix(ERASED)) <= set(string.hexdigits.lower())


@given(SECRETS, SECRETS, ADDRESSES, ADDRESSES)
def test_an_address_is_known_again_after_the_secret_was_changed_and_no_other_is(
    before: list[str], after: list[str], address: str, other: str
) -> None:
    assume(not set(before) & set(after))
    blind = Keys(tuple(before)).blind(address)
    assert blind in Keys((*after, *before)).blinded(address)
    assert blind not in Keys(tuple(after)).blinded(address)
    assert address == other or blind not in Keys((*after, *before)).blinded(other)


@pytest.mark.parametrize("secrets", [(), ("",), ("x" * (SHORTEST - 1),), ("x" * SHORTEST, "short")])
def test_a_secret_that_is_short_or_missing_is_refused(secrets: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="32 characters at least"):
        Keys(secrets)


def test_secrets_are_not_shown() -> None:
    assert "x" * SHORTEST not in repr(Keys(("x" * SHORTEST,)))


def _is_same_signature(token: str, changed: str) -> bool:
    signed, _, signature = token.rpartition(".")
    other, _, of_other = changed.rpartition(".")
    return signed == other and _bits(signature) == _bits(of_other)


def _bits(signature: str) -> bytes | None:
    try:
        return base64_decode(signature)
    except (BadData, ValueError):
        return None
