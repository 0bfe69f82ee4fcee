"""Topics and tags: who has which, given and taken singly or in bulk, with the history written beside it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert
from sqlmodel import Session, col, select

from pipeline.errors import UsageError
from subscribers import history
from subscribers.history import What
from subscribers.models import Label, LabelKind, Subscriber

NAME_LIMIT = 40
MOST_OF_A_PERSON = 50
# Statements name people one by one, and databases take only so many values in one.
_AT_ONCE = 1_000
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Labels:
    """What a subscriber has, by name."""

    topics: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def clean(name: str) -> str:
    """The name of a topic or tag.

    Raises:
        UsageError: it is none: small letters, digits and single hyphens between them, at most 40.
    """
    if len(name) > NAME_LIMIT or not _NAME.fullmatch(name):
        what = f"a topic or tag is at most {NAME_LIMIT} small letters and digits, with hyphens between them, such as early-bird"
        raise UsageError(what)
    return name


def of(session: Session, ids: Sequence[int]) -> dict[int, Labels]:
    """The topics and tags of some subscribers; each of the ids has an answer."""
    found: dict[int, dict[str, list[str]]] = {each: {kind: [] for kind in LabelKind} for each in ids}
    for some in _parts(ids):
        query = select(Label.subscriber_id, Label.kind, Label.name).where(col(Label.subscriber_id).in_(some))
        for each, kind, name in session.exec(query):
            found[each][kind].append(name)
    return {
        each: Labels(tuple(sorted(kinds[LabelKind.TOPIC])), tuple(sorted(kinds[LabelKind.TAG])))
        for each, kinds in found.items()
    }


def in_use(session: Session, kind: LabelKind, most: int = 200) -> list[str]:
    """The names that somebody has, in order: found one after the other, since each may be had by a million people."""
    found: list[str] = []
    after = ""
    while len(found) < most:
        following = select(func.min(col(Label.name))).where(Label.kind == kind.value, Label.name > after)
        name: str | None = session.execute(following).scalar()
        if name is None:
            break
        found.append(name)
        after = name
    return found


def put(session: Session, subscriber_id: int, kind: LabelKind, names: Iterable[str], by: str, now: datetime) -> bool:
    """Let a subscriber have just these topics or tags; False if that is so already.

    Raises:
        UsageError: a name is none, there are more than fifty, or nobody of that id is on the roll.
    """
    wanted = {clean(name) for name in names}
    if len(wanted) > MOST_OF_A_PERSON:
        raise UsageError(f"at most {MOST_OF_A_PERSON} topics and {MOST_OF_A_PERSON} tags for one person")
    if not _lock(session, [subscriber_id]):
        raise UsageError("nobody of that number is on the roll")
    whose = (col(Label.subscriber_id) == subscriber_id, col(Label.kind) == kind.value)
    had = set(session.exec(select(Label.name).where(*whose)))
    if had == wanted:
        return False
    session.execute(delete(Label).where(*whose, col(Label.name).in_(had - wanted)))
    if new := wanted - had:
        rows = [{"subscriber_id": subscriber_id, "kind": kind.value, "name": name} for name in sorted(new)]
        session.execute(insert(Label), rows)
    detail = {f"{kind.value}s": ", ".join(sorted(wanted))}
    history.note(session, [subscriber_id], What.EDITED, by, now, **detail)
    return True


def add(session: Session, ids: Sequence[int], kind: LabelKind, name: str, by: str, now: datetime) -> int:
    """Give many subscribers a topic or a tag; how many had it not. Ids of nobody, and whoever has fifty, are passed over.

    Raises:
        UsageError: it is no name.
    """
    clean(name)
    changed = 0
    for some in _parts(sorted(set(ids))):
        there = _lock(session, some)
        query = select(Label.subscriber_id, Label.name).where(col(Label.subscriber_id).in_(there), Label.kind == kind.value)
        had: dict[int, set[str]] = defaultdict(set)
        for each, label in session.exec(query):
            had[each].add(label)
        new = [each for each in there if name not in had[each] and len(had[each]) < MOST_OF_A_PERSON]
        if new:
            session.execute(insert(Label), [{"subscriber_id": each, "kind": kind.value, "name": name} for each in new])
            history.note(session, new, What.EDITED, by, now, **{f"{kind.value} added": name})
        changed += len(new)
    return changed


def remove(session: Session, ids: Sequence[int], kind: LabelKind, name: str, by: str, now: datetime) -> int:
    """Take a topic or a tag from many subscribers; how many had it."""
    changed = 0
    for some in _parts(sorted(set(ids))):
        which = (col(Label.subscriber_id).in_(some), col(Label.kind) == kind.value, col(Label.name) == name)
        had = session.execute(delete(Label).where(*which).returning(col(Label.subscriber_id))).scalars().all()
        history.note(session, sorted(had), What.EDITED, by, now, **{f"{kind.value} removed": name})
        changed += len(had)
    return changed


def _lock(session: Session, ids: Sequence[int]) -> list[int]:
    """Those who are on the roll, kept from being changed by others until the commit."""
    query = (
        select(Subscriber.id).where(col(Subscriber.id).in_(ids)).order_by(col(Subscriber.id)).with_for_update(key_share=True)
    )
    return [each for each in session.exec(query) if each is not None]


def _parts(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE))
