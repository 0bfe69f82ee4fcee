"""The vocabulary: one frozen type for each station of the route, and nothing that acts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime
from enum import StrEnum
from itertools import chain
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Slot:
    """One planned publication. `at` is the aware UTC instant at which it opens."""

    day: date
    at: datetime

    @property
    def name(self) -> str:
        """The slot's local date in ISO 8601, such as `2026-11-27`."""
        return self.day.isoformat()


@dataclass(frozen=True, slots=True)
class Story:
    """Something worth reading, as a source told it. Texts are plain; `published` is aware UTC."""

    url: str
    title: str
    source: str
    published: datetime
    summary: str = ""
    why: str = ""
    minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a term's text, letter for letter, and where it comes from."""

    figure: str
    source: str
    url: str


@dataclass(frozen=True, slots=True)
class Term:
    """A glossary entry. `definition`, `why` and `practice` are Markdown paragraphs."""

    slug: str
    name: str
    topic: str
    definition: str
    why: str
    practice: str
    related: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something scored: the points it gave and a sentence that an editor understands."""

    points: float
    text: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """A story of a selection with its score, the reasons, who else told it, and what past story it sounds like."""

    story: Story
    score: float
    reasons: tuple[Reason, ...]
    also: tuple[Story, ...] = ()
    echo: Story | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that told it, the one that is linked first."""
        return tuple(dict.fromkeys((self.story.source, *(other.source for other in self.also))))


@dataclass(frozen=True, slots=True)
class Featured:
    """The term of the week with the reasons for it."""

    term: Term
    score: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What `pick` and `feature` chose, out of how many stories of how many sources; `other_terms` come next, best first."""

    stories: tuple[Chosen, ...]
    runners_up: tuple[Chosen, ...]
    term: Featured | None
    told: int
    sources: int
    other_terms: tuple[Featured, ...] = ()


@dataclass(frozen=True, slots=True)
class Wording:
    """What an editor writes in place of a story's own words; None leaves them as they are, an empty text takes them out."""

    title: str | None = None
    summary: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Edits:
    """What editors have changed of a slot's draft. Stories go by their canonical URL, the `page`.

    `places` are those of pinned stories, from 1 on: they stay, whatever comes in. `revision` is the last edit's
    number, 0 where there is none.
    """

    places: Mapping[str, int] = field(default_factory=dict, hash=False)
    dropped: frozenset[str] = frozenset()
    wordings: Mapping[str, Wording] = field(default_factory=dict, hash=False)
    subject: str | None = None
    preheader: str | None = None
    note: str | None = None
    term: str | None = None
    revision: int = 0

    def wording(self, pages: Sequence[str]) -> Wording:
        """An editor's words for a story by the pages of its tellings: those of the first page that has any, field by field."""
        found = [self.wordings[page] for page in pages if page in self.wordings]

        def first(name: str) -> str | None:
            return next((text for each in found if (text := getattr(each, name)) is not None), None)

        return Wording(*(first(each.name) for each in fields(Wording)))


NO_EDITS = Edits()


@dataclass(frozen=True, slots=True)
class Masthead:
    """What every issue of one newsletter has in common."""

    title: str
    tagline: str
    sender_name: str
    sender: str
    reply_to: str
    postal_address: str
    base_url: str
    signup_url: str
    language: str
    glossary_url: str = ""
    accent: str = "#a3391a"
    accent_dark: str = "#ee9473"
    mark: str = "F"
    mailbox: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One story as an issue prints it."""

    title: str
    url: str
    source: str
    also: tuple[str, ...]
    minutes: int | None
    summary: str
    why: str


@dataclass(frozen=True, slots=True)
class RelatedTerm:
    """A neighbour of the featured term; `url` is empty where no public glossary is known."""

    name: str
    definition: str
    url: str


@dataclass(frozen=True, slots=True)
class TermBox:
    """The featured term as an issue prints it; the parts are Markdown paragraphs."""

    name: str
    topic: str
    url: str
    definition: str
    why: str
    practice: str
    related: tuple[RelatedTerm, ...]


# How the machine names the term in its own note and preheader.
LEADS_TO_TERM, THE_TERM = "{} is the term to know them by", "The term: {}"


@dataclass(frozen=True, slots=True)
class Issue:
    """Everything that a template may print. The note is Markdown."""

    number: int
    slot: Slot
    masthead: Masthead
    subject: str
    preheader: str
    note: str
    lines: tuple[Line, ...]
    term: TermBox | None
    view_url: str


@dataclass(frozen=True, slots=True)
class RenderedIssue:
    """The bytes that everybody gets, with stand-ins where a reader's own values go.

    `stand_ins` maps the name of a value (`address`, `unsubscribe_url`) to the token that stands for it
    in `html` and `text`. `mailbox` is the address of a box that is read for bounces and for mails by which
    readers leave; empty where there is none. What is `single` is no issue but a mail to one person, such as
    the one that asks for a confirmation; its `slot` says which.
    """

    slot: str
    number: int
    title: str
    sender_name: str
    sender: str
    reply_to: str
    base_url: str
    subject: str
    preheader: str
    html: str
    text: str
    stand_ins: Mapping[str, str] = field(hash=False)
    mailbox: str = ""
    single: bool = False

    @property
    def tag(self) -> str:
        """By what a provider's statistics and logs tell it from others."""
        return self.slot if self.single else f"issue-{self.slot}"

    def to_json(self) -> str:
        """The canonical form that is stored and hashed; what came later than the first issues is there only if it is used."""
        values = asdict(self)
        for name in ("mailbox", "single"):
            if not values[name]:
                del values[name]
        return json.dumps(values, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, frozen: str) -> "RenderedIssue":
        """The issue that `to_json` wrote."""
        return cls(**json.loads(frozen))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form, in hex: what an approval binds to."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


class Copy(NamedTuple):
    """One issue for one reader. `ref` is opaque: 32 hex digits, the delivery's name outside.

    `unsubscribe_mail` is a mailto address, empty where no box is read for such mails.
    """

    ref: str
    address: str
    unsubscribe_url: str
    unsubscribe_mail: str = ""

    @property
    def values(self) -> dict[str, str]:
        """The reader's own values by the names of the stand-ins."""
        return {"address": self.address, "unsubscribe_url": self.unsubscribe_url}


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is handed to a provider in one call: ordered copies under one key and one date.

    The same key always means the same bytes, so everything that shapes them is here.
    """

    key: str
    dated: datetime
    copies: tuple[Copy, ...]

    def digest(self, issue_digest: str) -> str:
        """SHA-256 in hex over all that determines the bytes of this parcel of an issue."""
        parts = chain((issue_digest, self.key, self.dated.isoformat()), *self.copies)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Receipt(NamedTuple):
    """The provider's answer at the counter for one copy: accepted, rejected, or surely not taken and welcome `later`."""

    ref: str
    accepted: bool
    provider_id: str = ""
    reason: str = ""
    later: bool = False


class Shown(NamedTuple):
    """What a provider's log shows: receipts for the copies that it took, and whether it was read to its end."""

    receipts: Sequence[Receipt]
    whole: bool = True


class Notice(NamedTuple):
    """What came in by a webhook or a mailbox, as it came. `key` is the same whenever it comes again."""

    key: str
    body: str


class Kind(StrEnum):
    """What an event tells of a copy or its reader.

    A soft bounce is final for its copy and says nothing against the reader; `blocked` is a refusal for what
    the copy holds or who sends it: size, content, policy (RFC 3463, 5.7.x). `other` changes nothing.
    """

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    SOFT_BOUNCE = "soft_bounce"
    HARD_BOUNCE = "hard_bounce"
    BLOCKED = "blocked"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Event:
    """What a provider or a mail server tells later, of a copy by its `ref`, of an address, or of a subscriber by a token."""

    kind: Kind
    ref: str = ""
    address: str = ""
    provider_id: str = ""
    reason: str = ""
    token: str = ""


class Level(StrEnum):
    """How bad a finding is. An error blocks freezing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about an issue that an editor should see before it leaves."""

    level: Level
    check: str
    what: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """The left half of the route for one slot: all that can be known before anything is written.

    `state` is that of the slot's issue in the ledger: `open` as long as nothing is frozen.
    """

    slot: Slot
    selection: Selection
    issue: Issue
    rendered: RenderedIssue
    findings: tuple[Finding, ...] = field(default=())
    state: str = "open"
    edits: Edits = NO_EDITS

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that block freezing."""
        return tuple(finding for finding in self.findings if finding.level is Level.ERROR)
