"""What must hold of an issue, whatever was done to those who sent it."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from tests.trials.stage import Stage

SETTLED = ("sent", "needs_decision")


@dataclass(frozen=True)
class Verdict:
    """How an issue ended, in copies, and every way in which that is not as promised.

    `duplicates` are copies beyond a reader's first; `lost` are readers who have no copy and are not named.
    """

    accepted: int
    unknown: int
    duplicates: int
    lost: int
    wrong: tuple[str, ...]


def judge(
    stage: Stage,
    report: dict[str, Any],
    left: Collection[str] = (),
    refusable: Collection[str] = (),
    *,
    asked_log: bool = False,
) -> Verdict:
    """Compare the provider's record, the ledger and the report of an issue that is settled.

    Args:
        stage: where it was sent.
        report: what the last `friday publish --json` printed.
        left: readers who had left before a copy for them was claimed.
        refusable: readers whom the provider was told to refuse.
        asked_log: whether the provider's log has been asked since it shows everything.
    """
    if not is_whole(stage):
        return Verdict(0, 0, 0, 0, ("the database is damaged",))
    taken, ledger = stage.accepted(), stage.copies()
    copies = Counter(each.address for each in taken)
    states = {address: state for address, _, state in ledger}
    refs = {address: ref for address, ref, _ in ledger}
    refused = {each.address for each in stage.fake.refused()} | set(refusable)
    named = {each["address"] for each in report["unknown"]}
    by_state = Counter(states.values())
    duplicates = sum(copies.values()) - len(copies)
    # What is told of a reader without a copy must be why there is none: `accepted` is no such reason.
    lost = [
        address for address in stage.readers
        if address not in copies and states.get(address) not in ("skipped", "rejected", "unknown") and address not in left
    ]  # fmt: skip
    wrong = {
        "a reader got a second copy": duplicates > 0,
        "a reference went out twice": len({each.ref for each in taken}) != len(taken),
        "a copy went out under another reference than the ledger's": any(refs.get(each.address) != each.ref for each in taken),
        "a reader is neither served nor named": bool(lost),
        "a copy that is told as not sent was accepted": any(
            states.get(address) in ("pending", "skipped", "rejected") for address in copies
        ),
        "a copy that is told as accepted never was": any(
            state == "accepted" and address not in copies for address, state in states.items()
        ),
        "a reader is rejected whom the provider did not refuse": any(
            state == "rejected" and address not in refused for address, state in states.items()
        ),
        "a reader who had left got a copy": any(address in copies for address in left),
        "the counts do not add up to the enrolled": sum(report["counts"].values()) != report["enrolled"],
        "the report and the ledger differ": any(by_state[state] != number for state, number in report["counts"].items()),
        "an unknown reader is not named": named != {address for address, state in states.items() if state == "unknown"},
        "a copy is unknown though keys are honoured": by_state["unknown"] > 0 and stage.limits.key_lifetime is not None,
        "a copy is unknown though the log shows it": asked_log
        and stage.limits.has_log
        and any(states.get(address) == "unknown" for address in copies),
        "a settled issue has copies on the way": by_state["pending"] + by_state["sending"] > 0,
        "the state is not that of the counts": report["state"] != ("needs_decision" if by_state["unknown"] else "sent"),
    }
    return Verdict(
        len(copies), by_state["unknown"], duplicates, len(lost), tuple(what for what, is_so in wrong.items() if is_so)
    )


def is_whole(stage: Stage) -> bool:
    """Whether SQLite finds nothing wrong with its file; PostgreSQL has no such question."""
    if not stage.url.startswith("sqlite"):
        return True
    try:
        with stage.database() as database, database.read() as session:
            found = session.connection().execute(text("PRAGMA integrity_check")).scalars().all()
            astray = session.connection().execute(text("PRAGMA foreign_key_check")).all()
    except DatabaseError:
        return False
    return list(found) == ["ok"] and not astray
