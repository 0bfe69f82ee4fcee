"""The exports of other houses: which one a file is, what its columns say of a person, and who may be mailed; nothing is stored.

A house is known by columns that no other has. Column names are compared in lower case, with spaces for _ and -.
What each exports was looked up in November 2026:

- Mailchimp: one file each of subscribed, unsubscribed and cleaned, told apart by UNSUB_TIME and CLEAN_TIME;
  github.com/TryGhost/migrate, packages/mg-mailchimp-members/src/test/fixtures; cleaned are bounced:
  ginkgo.st/~ca/roadmap/mailchimp-and-civicrm-overview/notes-on-mailchimp-data-exports
- Substack: `email_list.csv` of the archive, TryGhost/migrate, packages/mg-substack-members-csv/test/fixtures; the file
  of the dashboard begins `Email,Name,Stripe plan,Cancel date,Start date`, as several public readers of it have it
- Buttondown: the fields and kinds of a subscriber in its API, github.com/buttondown/openapi, enums.json, and
  pypi.org/project/tap-buttondown; no file of its own was found
- Ghost: github.com/TryGhost/Ghost, the columns that the tests of its members' export expect
- listmonk: github.com/knadh/listmonk, cmd/subscribers.go; who has left which list is not in it: its issue 738
- beehiiv: TryGhost/migrate, packages/mg-beehiiv-members/src/test/fixtures; `inactive` is who has left:
  beehiiv.com/support/article/25257855415191
- Kit: `first_name,email,created_at,status` in public readers of it; its states: developers.kit.com/api-reference
  and help.convertkit.com/en/articles/2502651, by which `inactive` has not confirmed
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from pipeline.errors import UsageError


class Standing(IntEnum):
    """How the other house stood with a person. Where its columns differ, the greatest holds."""

    ACTIVE = 0
    UNCONFIRMED = 1
    OTHER = 2
    UNSUBSCRIBED = 3
    BOUNCED = 4
    COMPLAINED = 5


@dataclass(frozen=True, slots=True)
class Sign:
    """A column that says how a person stands: what its words mean, and what being filled, or empty, does."""

    words: Mapping[str, Standing] = field(default_factory=dict)
    filled: Standing = Standing.OTHER
    empty: Standing = Standing.ACTIVE

    def of(self, cell: str) -> Standing:
        """What a cell says."""
        word = cell.strip().lower()
        return self.words.get(word, self.filled) if word else self.empty


_STATES = {
    **dict.fromkeys(("active", "subscribed", "enabled", "confirmed", "true", "yes"), Standing.ACTIVE),
    **dict.fromkeys(("pending", "unconfirmed", "unactivated", "validating", "not confirmed"), Standing.UNCONFIRMED),
    **dict.fromkeys(("unsubscribed", "cancelled", "canceled", "opted out", "left", "blocklisted"), Standing.UNSUBSCRIBED),
    **dict.fromkeys(("bounced", "cleaned", "undeliverable", "hard bounced"), Standing.BOUNCED),
    **dict.fromkeys(("complained", "complaint", "abuse", "marked as spam"), Standing.COMPLAINED),
}
_NO = dict.fromkeys(("false", "no", "0", "none", "null"), Standing.ACTIVE)


def _state(**more: Standing) -> Sign:
    return Sign({**_STATES, **more})


def _when(standing: Standing) -> Sign:
    """A time, or a yes, that means this."""
    return Sign(_NO, filled=standing)


def _unless(standing: Standing) -> Sign:
    """A yes; anything else means this."""
    return Sign({"true": Standing.ACTIVE, "yes": Standing.ACTIVE, "1": Standing.ACTIVE}, filled=standing, empty=Standing.OTHER)


# Understood of every house, and of a file that nobody knows.
_SIGNS = {
    "status": _state(),
    "subscription status": _state(),
    "subscriber status": _state(),
    "unsubscribed": _when(Standing.UNSUBSCRIBED),
    "unsubscribed at": _when(Standing.UNSUBSCRIBED),
    "bounced at": _when(Standing.BOUNCED),
    "complained at": _when(Standing.COMPLAINED),
    "email disabled": _when(Standing.UNSUBSCRIBED),
}
_COLUMNS = {
    "address": ("email", "address", "email address", "e mail", "e mail address"),
    "name": ("name", "full name"),
    "first": ("first name", "fname", "given name"),
    "last": ("last name", "lname", "surname", "family name"),
    "joined": ("joined", "subscribed at", "created at", "date joined", "sign up date", "signed up at"),
    "left": ("left", "unsubscribed at"),
    "zone": ("time zone", "timezone"),
    "language": ("language", "locale"),
    "topics": ("topics",),
    "tags": ("tags", "labels"),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a house writes its people: the columns by which it is known, and what is its own.

    Of each set of `marks` one must be there whole. `columns` are looked at before those that all houses have, `signs`
    instead of those. `bag` is a column that holds further values as a JSON object. What an export leaves out and
    its reader must know stands in `beware`.
    """

    name: str
    marks: tuple[frozenset[str], ...] = ()
    signs: Mapping[str, Sign] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bag: str = ""
    beware: str = ""

    @property
    def source(self) -> str:
        """What is written down as the source of whoever comes from there."""
        return f"import: {self.name}" if self.marks else "import"


def _marks(*names: str) -> frozenset[str]:
    return frozenset(names)


FRIDAY = Dialect(
    "Friday",
    (_marks("address", "state", "suppressed", "joined", "source", "paused until"),),
    columns={"source": ("source",), "state": ("state",), "suppressed": ("suppressed",), "paused": ("paused until",)},
    bag="attributes",
)
OTHER = Dialect("a list", signs={**_SIGNS, "state": _state()})
DIALECTS = (
    FRIDAY,
    Dialect(
        "Mailchimp",
        (_marks("email address", "leid", "euid"), _marks("email address", "member rating")),
        {
            **_SIGNS,
            "unsub time": Sign(filled=Standing.UNSUBSCRIBED, empty=Standing.OTHER),
            "clean time": Sign(filled=Standing.BOUNCED, empty=Standing.OTHER),
            "unsub reason": Sign({"spam": Standing.COMPLAINED, "abuse": Standing.COMPLAINED}, filled=Standing.ACTIVE),
        },
        {"joined": ("confirm time", "optin time"), "left": ("unsub time",)},
    ),
    Dialect(
        "Substack",
        (
            _marks("email", "active subscription", "expiry"),
            _marks("email", "email disabled", "expiry"),
            _marks("email", "stripe plan", "start date"),
        ),
        # It is filled both when somebody leaves and when only a paid plan is over, so a person must look.
        {**_SIGNS, "cancel date": _when(Standing.OTHER)},
        {"joined": ("created at", "start date")},
    ),
    Dialect(
        "Buttondown",
        (
            _marks("email address", "metadata", "notes"),
            _marks("email", "metadata", "notes"),
            _marks("email address", "creation date"),
            _marks("email", "creation date", "secondary id"),
        ),
        {
            **_SIGNS,
            **dict.fromkeys(
                ("type", "subscriber type"),
                _state(
                    regular=Standing.ACTIVE, premium=Standing.ACTIVE, trialed=Standing.ACTIVE, unpaid=Standing.ACTIVE,
                    gifted=Standing.ACTIVE, churning=Standing.ACTIVE, paused=Standing.ACTIVE, past_due=Standing.ACTIVE,
                ),
            ),
        },
        {"joined": ("creation date",)},
        bag="metadata",
    ),
    Dialect(
        "Ghost",
        (_marks("email", "subscribed to emails"), _marks("email", "complimentary plan")),
        {**_SIGNS, "subscribed to emails": _unless(Standing.UNSUBSCRIBED), "deleted at": _when(Standing.OTHER)},
    ),
    Dialect(
        "listmonk",
        (_marks("uuid", "email", "attributes", "status"),),
        bag="attributes",
        signs=_SIGNS,
        beware="listmonk writes nothing of its lists: whoever has left a list, but is not blocklisted, is active here",
    ),
    Dialect(
        "beehiiv",
        (
            _marks("email", "status", "tier"),
            _marks("email", "status", "subscription tier"),
            _marks("email", "status", "free tier"),
            _marks("email", "status", "utm source"),
        ),
        {**_SIGNS, "status": _state(inactive=Standing.UNSUBSCRIBED)},
        {"joined": ("subscribed at", "created at", "created")},
    ),
    Dialect(
        "Kit",
        (
            _marks("email", "first name", "created at", "status"),
            _marks("email address", "first name", "created at", "state"),
        ),
        {**_SIGNS, **dict.fromkeys(("status", "state"), _state(inactive=Standing.UNCONFIRMED))},
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """How the rows of one file are read: where each thing stands, by its column's number.

    `joined` and `signs` may be several; the first filled one, and the greatest, hold. `asked` are attributes by name.
    """

    dialect: Dialect
    address: int
    places: Mapping[str, int]
    joined: tuple[int, ...]
    signs: tuple[tuple[int, str, Sign], ...]
    asked: Mapping[str, int]
    bag: int | None
    wanted: frozenset[str]


def recognise(header: Sequence[str], attributes: Sequence[str], where: str) -> Reading:
    """Find out whose export a header begins, and where in it stands what is taken over.

    Args:
        header: the names of the columns, as they stand in the file.
        attributes: the names of further columns that are asked for.
        where: file and line, for the complaint.

    Raises:
        UsageError: no column holds addresses, one that is needed is there twice, or one that is asked for is not there.
    """
    names = [_folded(name) for name in header]
    present = frozenset(names)
    dialect = next((each for each in DIALECTS if any(marks <= present for marks in each.marks)), OTHER)
    use: Callable[[str], int] = _Columns(header, names, where).number
    found = {what: [use(name) for name in _wanted(dialect, what) if name in present] for what in (*_COLUMNS, *dialect.columns)}
    if not found["address"]:
        hint = ", ".join(_COLUMNS["address"])
        raise UsageError(f"{where}: no column of addresses: the first line names the columns, one of them {hint}")
    bag = use(dialect.bag) if dialect.bag in present else None
    asked = {name: _folded(name) for name in attributes}
    missing = [name for name, folded in asked.items() if folded not in present]
    if missing and bag is None:
        raise UsageError(f"{where}: no column {missing[0]!r}, which --attributes asks for; the columns are {_listed(header)}")
    return Reading(
        dialect,
        found["address"][0],
        {what: places[0] for what, places in found.items() if places},
        tuple(found["joined"]),
        tuple((use(name), name, sign) for name, sign in dialect.signs.items() if name in present),
        {name: use(folded) for name, folded in asked.items() if folded in present},
        bag,
        frozenset(missing),
    )


def standing(reading: Reading, row: Sequence[str]) -> tuple[Standing, str]:
    """How a person stands by its row, and the words for it where it may not be mailed. They repeat nothing but a state."""
    worst, column, cell = Standing.ACTIVE, "", ""
    for place, name, sign in reading.signs:
        says = sign.of(row[place])
        if says > worst:
            worst, column, cell = says, name, row[place].strip()
    if worst is Standing.ACTIVE:
        return worst, ""
    told = f"is {cell!r}" if _STATE_LIKE.fullmatch(cell) else "is filled" if cell else "is empty"
    what = "has not confirmed" if worst is Standing.UNCONFIRMED else "not mailable"
    return worst, f"{what}: its {column} {told}"


# Such as states are, and no address in a column that we misread.
_STATE_LIKE = re.compile(r"[A-Za-z]+([ _-][A-Za-z]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Columns:
    header: Sequence[str]
    names: Sequence[str]
    where: str

    def number(self, name: str) -> int:
        """Where a column stands."""
        if self.names.count(name) > 1:
            raise UsageError(f"{self.where}: two columns are called {name!r}: take out the one that is not meant")
        return self.names.index(name)


def _wanted(dialect: Dialect, what: str) -> tuple[str, ...]:
    own, general = dialect.columns.get(what, ()), _COLUMNS.get(what, ())
    return (*own, *(name for name in general if name not in own))


def _listed(header: Sequence[str]) -> str:
    return ", ".join(repr(name.strip()[:40]) for name in header[:30] if "@" not in name) or "without names"


def _folded(name: str) -> str:
    return " ".join(re.sub(r"[_\-\s]+", " ", name).lower().split())
