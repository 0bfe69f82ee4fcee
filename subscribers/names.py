"""Names as they are compared and found: folded, word by word; the one writer of that index."""

import re
import unicodedata
from collections.abc import Iterable
from itertools import islice

from sqlalchemy import delete, insert
from sqlmodel import Session, col

from subscribers.models import NameWord

WORDS_LIMIT = 8
WORD_LENGTH = 60
_AT_ONCE = 1_000
_ASCII_WORD = re.compile(r"\w+")


def folded(name: str) -> str:
    """A name as names are compared: casefolded words without accents, one space between them, at most 60 characters."""
    if name.isascii():
        return " ".join(_ASCII_WORD.findall(name.lower()))[:WORD_LENGTH]
    bare = "".join(char for char in unicodedata.normalize("NFKD", name) if unicodedata.category(char)[0] != "M")
    return " ".join(re.findall(r"\w+", bare.casefold()))[:WORD_LENGTH]


def words_of(name: str) -> set[str]:
    """What a name is found by: itself from each of its words on, what stands before that word coming last.

    So "lovelace ada" begins one of them as "ada l" begins another, and one index finds both.
    """
    words = folded(name[: WORDS_LIMIT * WORD_LENGTH]).split()[:WORDS_LIMIT]
    return {" ".join(words[at:] + words[:at]) for at in range(len(words))}


def index(session: Session, people: Iterable[tuple[int | None, str]]) -> None:
    """Let people be found by their names as they are now, given by id: when they come on the roll and when they are renamed."""
    left = iter(people)
    while some := {each: name for each, name in islice(left, _AT_ONCE) if each is not None}:
        session.execute(delete(NameWord).where(col(NameWord.subscriber_id).in_(some)))
        rows = [{"word": word, "subscriber_id": each} for each, name in some.items() for word in words_of(name)]
        if rows:
            session.execute(insert(NameWord), rows)
