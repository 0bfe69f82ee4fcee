"""What comes from outside as JSON is read without trust."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.foreign import dig, read_object, told, words
from pipeline.issue import Event, Kind


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"null", b'{"a": NaN}', b"\xff", b'{"a": "\\ud800"}', b"[" * 100_000])
def test_what_is_no_json_object_is_told_as_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_object(body)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("a",), [{"b": 1}]),
        (("a", 0, "b"), 1),
        (("a", 1), None),
        (("a", -1), None),
        (("a", "b"), None),
        (("c", "d"), None),
        ((0,), None),
    ],
)
def test_a_path_that_leads_nowhere_is_nothing(path: tuple[str | int, ...], found: object) -> None:
    assert dig({"a": [{"b": 1}]}, *path) == found


@pytest.mark.parametrize(
    ("found", "line"),
    [("a\r\n b\x00", "a b"), (550, "550"), (1.5, "1.5"), (True, ""), (None, ""), ([], ""), ({}, ""), ("x" * 900, "x" * 500)],
)
def test_words_are_one_printable_line(found: object, line: str) -> None:
    assert words(found) == line


def test_an_event_holds_no_foreign_value_that_it_is_not_made_for() -> None:
    ref = "0" * 31 + "a"
    assert told(Kind.OTHER, ref, "ada@example.com", 7, "to ada@example.com: no") == Event(
        Kind.OTHER, ref, "ada@example.com", "7", "to an address no"
    )
    assert told(Kind.OTHER, f"{ref}0", "", None) == Event(Kind.OTHER)
    assert told(Kind.OTHER, ref.upper(), "ada\x00@example.com", None) == Event(Kind.OTHER)
    assert told(Kind.OTHER, ["a"], {"a": 1}, [1]) == Event(Kind.OTHER)


@settings(deadline=None, database=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_nothing_that_lies_at_a_path_is_a_surprise(found: object) -> None:
    event = told(Kind.OTHER, dig(found, "a"), dig(found, 0), found, words(found))
    assert all(each.isprintable() for each in (event.ref, event.address, event.provider_id, event.reason))
