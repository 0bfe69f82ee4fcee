"""The desk of a slot in the browser: what is to go out, everything that may be changed of it, and the decision.

Each change is a form of its own, so that it works without scripts; a script only sends the same forms by itself. What
somebody saw when they changed something comes along, so that two editors are told of each other.
"""

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Form, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from pipeline import desk as rows
from pipeline import edit, gate, ledger, place, show
from pipeline import publish as route
from pipeline.compose import pages_of
from pipeline.desk import CHANGES, Deed
from pipeline.edit import HEAD_FIELDS, MOST, STORY_FIELDS, Closed, Desk, EditedMeanwhile, clean
from pipeline.errors import ContentError, DecisionNeeded, FridayError, UsageError
from pipeline.gate import Standing
from pipeline.issue import Chosen, Copy, Draft, Line, RenderedIssue, Slot, Term, Wording
from pipeline.jobs import jobs
from pipeline.newsroom import Newsroom
from pipeline.render import address, listed
from pipeline.staff import Guest
from pipeline.text import canonical_url, one_line, plain, shorten
from pipeline.web.door import ROOT, Here, Refused
from pipeline.web.newsroom import GUARDED, Frame
from pipeline.web.pages import issue_page, serve_file
from subscribers import links

DESK = f"{ROOT}/desk"
SLOTS = f"{ROOT}/slots"
# How long somebody counts as being there after their page has last said so.
STAYS = timedelta(seconds=25)
MOST_PAGES = 60
MOST_TOLD = 50
HINT = 80
CLOSED = "It is approved meanwhile, so nothing was changed. Load the page and reopen it first."
SAMPLE_ADDRESS = "reader@example.com"

SlotName = Annotated[str, Path(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Short = Annotated[str, Form(max_length=2_100)]
Long = Annotated[str, Form(max_length=8_000)]
ANSWERS: dict[int | str, dict[str, Any]] = {
    **GUARDED,
    404: {"description": "No such slot"},
    409: {"description": "Somebody else was there first"},
}
_HTML: dict[str, Any] = {"response_class": HTMLResponse, "responses": ANSWERS}
_GOES_ON: dict[str, Any] = {**_HTML, "status_code": 303}


@dataclass(frozen=True, slots=True)
class Card:
    """A story as the desk shows it: `line` is what the issue prints of it, if it is in the selection."""

    page: str
    place: int
    chosen: Chosen
    line: Line | None
    pinned: bool
    edited: bool
    dropped: bool


@dataclass
class Visitors:
    """Who is at which desk, as their pages say so now and then. It is not kept: it is only good for some seconds."""

    _seen: dict[tuple[str, str], datetime] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def come(self, slot: str, who: str, now: datetime) -> list[str]:
        """Say that somebody is at a desk; who else is."""
        with self._lock:
            self._seen[slot, who] = now
            self._seen = {key: at for key, at in self._seen.items() if now - at <= STAYS}
            return sorted(other for (desk, other) in self._seen if desk == slot and other != who)


def add_desk(app: FastAPI, frame: Frame) -> None:
    """Add the desk, and the calendar of slots, to the newsroom."""
    newsroom, visitors = frame.newsroom, Visitors()
    frame.door.is_asked_by_itself(rf"{DESK}/[^/]+/news")
    for name in ("desk.css", "desk.js", "desk-order.js"):
        serve_file(app, newsroom.config.templates, name)

    def slot_of(name: str) -> Slot:
        try:
            return route.named(newsroom, name)
        except UsageError as error:
            raise Refused(404, "No such slot", f"{_sentence(error)} The calendar shows the next ones.") from None

    def shown(
        request: Request,
        guest: Guest,
        slot: Slot,
        status: int = 200,
        trouble: str = "",
        done: int = 0,
        said: str = "",
        asked: Asked | None = None,
    ) -> Response:
        visitors.come(slot.name, guest.admin.address, newsroom.now())
        values = _values(newsroom, slot, guest, done)
        values |= {"trouble": trouble, "said": said or values["said"], "asked": asked}
        # What could not be kept is given back.
        values["lost"] = [asked.texts[name][0] for name in asked.changed([*STORY_FIELDS, *HEAD_FIELDS])] if asked else []
        return frame.page(request, "desk.html", status, **values)

    @app.get(DESK, **_HTML)
    def current() -> Response:
        return RedirectResponse(f"{DESK}/{_coming(newsroom).name}", 303)

    @app.get(SLOTS, **_HTML)
    def slots(request: Request) -> Response:
        now, schedule = newsroom.now(), newsroom.schedule
        planned = [(each, gate.standing(newsroom, each.slot).state) for each in schedule.upcoming(now)]
        last = schedule.last(now)
        with newsroom.database.read() as session:
            ran = [
                (_at(newsroom, job.began_at), job, job.next_at and _at(newsroom, job.next_at))
                for job in reversed(jobs(session))
            ]
        return frame.page(
            request, "slots.html", planned=planned, last=schedule.planned(last), jobs=ran, zone=schedule.zone.key,
            last_state=gate.standing(newsroom, last).state,
        )  # fmt: skip

    @app.get(f"{DESK}/{{name}}", **_HTML)
    def desk(request: Request, guest: Here, name: SlotName, done: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0) -> Response:
        return shown(request, guest, slot_of(name), done=done)

    @app.get(f"{DESK}/{{name}}/issue", **_HTML)
    def issue(request: Request, name: SlotName) -> Response:
        slot = slot_of(name)
        try:
            rendered = route.look(newsroom, slot).rendered
        except ContentError as error:
            return frame.message(request, 422, "There is something to mend first", str(error))
        return issue_page(address(rendered, _sample(rendered)).html, frame_ancestors="'self'")

    @app.get(f"{DESK}/{{name}}/news", responses=ANSWERS)
    def news(guest: Here, name: SlotName, after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0) -> Response:
        slot, me = slot_of(name), guest.admin.address
        stands = gate.standing(newsroom, slot)
        others = [deed for deed in stands.deeds if deed.id > after and deed.by != me]
        here = visitors.come(slot.name, me, newsroom.now())
        titles = gate.titles(newsroom, others)
        told = [{"by": deed.by, "at": _at(newsroom, deed.at), "what": show.deed_text(deed, titles)} for deed in others]
        return JSONResponse({"state": stands.state, "others": told, "here": here})

    _add_changes(app, frame, slot_of, shown)
    _add_decisions(app, frame, slot_of, shown)


def _add_changes(app: FastAPI, frame: Frame, slot_of: Callable[[str], Slot], shown: Callable[..., Response]) -> None:
    newsroom = frame.newsroom

    @app.post(f"{DESK}/{{name}}/change", **_GOES_ON)
    def change(
        request: Request,
        guest: Here,
        name: SlotName,
        what: Annotated[str, Form(max_length=20)],
        page: Short = "",
        other: Short = "",
        place: Annotated[int, Form(ge=0, le=MOST_PAGES)] = 0,
        to: Annotated[int, Form(ge=0, le=MOST_PAGES)] = 0,
        title: Long = "",
        was_title: Long = "",
        summary: Long = "",
        was_summary: Long = "",
        why: Long = "",
        was_why: Long = "",
        subject: Long = "",
        was_subject: Long = "",
        preheader: Long = "",
        was_preheader: Long = "",
        note: Long = "",
        was_note: Long = "",
        seen: Annotated[int | None, Form(ge=0, le=2**31 - 1)] = None,
        told: Annotated[list[int] | None, Form(max_length=MOST_TOLD)] = None,
        line_up: Annotated[str, Form(max_length=100_000)] = "",
    ) -> Response:
        slot = slot_of(name)
        desk = Desk(newsroom, slot, guest.admin.address, seen, _line_up(line_up), frozenset(told or ()))
        texts = {
            "title": (title, was_title), "summary": (summary, was_summary), "why": (why, was_why),
            "subject": (subject, was_subject), "preheader": (preheader, was_preheader), "note": (note, was_note),
        }  # fmt: skip
        asked, written = Asked(what, page, other, place, to, texts), dict[str, int]()
        try:
            _do(desk, asked, written)
        except EditedMeanwhile as error:
            return _conflict(request, frame, desk, asked, error, written)
        except (UsageError, DecisionNeeded, ContentError) as error:
            said = CLOSED if isinstance(error, Closed) else _sentence(error)
            if _is_script(request):
                return JSONResponse({"trouble": said}, 422)
            return shown(request, guest, slot, 422, said, asked=asked)
        with newsroom.database.read() as session:
            done = rows.deeds(session, slot.name)
        if _is_script(request):
            return JSONResponse({"seen": _seen(desk, done, written.values()), "written": written})
        return _back(slot, done, _place_of(asked, done))


def _seen(desk: Desk, done: Sequence[Deed], written: Collection[int]) -> int:
    """The last row that a page knows of whose words were kept: the last of all, unless others came in between."""
    seen, known = desk.seen or 0, {*desk.told, *written}
    return done[-1].id if done and all(deed.id in known for deed in done if deed.id > seen) else seen


def _do(desk: Desk, asked: "Asked", written: dict[str, int]) -> None:
    """Change what is asked for; `written` takes the rows of the words that are kept, by their fields."""
    changes: dict[str, Callable[[], object]] = {
        "words": lambda: written.update(
            (name, desk.tell(asked.page, name, asked.texts[name][0])) for name in asked.changed(STORY_FIELDS)
        ),
        "head": lambda: written.update((name, desk.head(name, asked.texts[name][0])) for name in asked.changed(HEAD_FIELDS)),
        "own words": lambda: [desk.tell(asked.page, name, None) for name in STORY_FIELDS],
        "own head": lambda: [desk.head(name, None) for name in HEAD_FIELDS],
        "move": lambda: desk.move(asked.page, asked.to),
        "up": lambda: desk.move(asked.page, asked.place - 1),
        "down": lambda: desk.move(asked.page, asked.place + 1),
        "swap": lambda: desk.swap(asked.other, asked.page),
        "use": lambda: desk.use(asked.page),
        "drop": lambda: desk.drop(asked.page),
        "pin": lambda: desk.pin(asked.page),
        "unpin": lambda: desk.unpin(asked.page),
        "add": lambda: desk.add(asked.page, asked.texts["title"][0]),
        "term": lambda: desk.term(asked.other or None),
        "undo": desk.undo,
    }
    if asked.what not in changes:
        raise UsageError("that is nothing that can be done at a desk: load the page again")
    changes[asked.what]()


def _back(slot: Slot, done: Sequence[Deed], anchor: str = "") -> Response:
    """Back to the desk, which says what was done last."""
    number = f"?{urlencode({'done': done[-1].id})}" if done else ""
    return RedirectResponse(f"{DESK}/{slot.name}{number}{anchor}", 303)


def _place_of(asked: "Asked", done: Sequence[Deed]) -> str:
    """Where on the page somebody goes on who has changed something."""
    if asked.what in ("term", "head", "own head"):
        return "#term" if asked.what == "term" else "#head"
    pages = done[-1].about.get("pages", ()) if done else ()
    place = pages.index(asked.page) + 1 if asked.page in pages else len(pages) if asked.what == "add" else asked.place
    return f"#s{place}" if place else "#stories"


@dataclass(frozen=True, slots=True)
class Asked:
    """A change as a form asks for it; of each text also what it was when it was shown."""

    what: str
    page: str
    other: str
    place: int
    to: int
    texts: Mapping[str, tuple[str, str]]

    def changed(self, names: Sequence[str]) -> list[str]:
        """The texts that somebody has changed: another who changed the others meanwhile is not written over."""
        return [name for name in names if _said(name, self.texts[name][0]) != _said(name, self.texts[name][1])]


def _said(name: str, text: str) -> str | None:
    try:
        return clean(name, text)
    except UsageError:
        # Too long, which whoever keeps it says.
        return text


def _conflict(
    request: Request, frame: Frame, desk: Desk, asked: Asked, error: EditedMeanwhile, written: Mapping[str, int]
) -> Response:
    """Show what somebody else has written meanwhile beside what was to be written over it."""
    theirs = error.deed.about.get("text")
    # Nothing was written by whoever wanted to take something back.
    name = "" if asked.what == "undo" else str(error.deed.about.get("field", ""))
    mine = asked.texts[name][0] if name else ""
    trouble = f"{_who(desk, error.deed)} changed that meanwhile."
    if _is_script(request):
        return JSONResponse(
            {"trouble": trouble, "field": name, "theirs": theirs, "told": error.deed.id, "written": written}, 409
        )
    fields = {"words": STORY_FIELDS, "head": HEAD_FIELDS}.get(asked.what, ())
    return frame.page(
        request, "desk-conflict.html", 409, slot=desk.slot, by=_who(desk, error.deed), at=_at(desk.newsroom, error.deed.at),
        field=name, theirs=theirs, mine=mine, asked=asked, seen=desk.seen, told=sorted({*desk.told, error.deed.id}),
        line_up=json.dumps(desk.line_up or ()), rest={*asked.changed(fields)} - {name, *written},
    )  # fmt: skip


def _who(desk: Desk, deed: Deed) -> str:
    return "You, on another page, have" if deed.by == desk.by else f"{deed.by} has"


def _add_decisions(app: FastAPI, frame: Frame, slot_of: Callable[[str], Slot], shown: Callable[..., Response]) -> None:
    newsroom = frame.newsroom

    @app.post(f"{DESK}/{{name}}/decide", **_GOES_ON)
    def decide(
        request: Request,
        guest: Here,
        name: SlotName,
        what: Annotated[str, Form(max_length=20)],
        seen: Annotated[str, Form(max_length=64)] = "",
        why: Annotated[str, Form(max_length=300)] = "",
    ) -> Response:
        slot, me = slot_of(name), guest.admin.address
        decisions: dict[str, Callable[[], object]] = {
            "approve": lambda: route.approve(newsroom, slot, me, seen),
            "reopen": lambda: route.reopen(newsroom, slot, me),
            "hold": lambda: gate.hold(newsroom, slot, me, one_line(why)),
            "skip": lambda: gate.skip(newsroom, slot, me, one_line(why)),
            "send": lambda: gate.order(newsroom, slot, me, seen),
        }
        if what not in decisions:
            return shown(request, guest, slot, 422, "That is nothing that can be decided at a desk.")
        try:
            decisions[what]()
        except (UsageError, DecisionNeeded) as error:
            return shown(request, guest, slot, 409, _sentence(error))
        except ContentError as error:
            return shown(request, guest, slot, 422, f"It cannot be approved yet. {_sentence(error)}")
        with newsroom.database.read() as session:
            return _back(slot, rows.deeds(session, slot.name))

    @app.post(f"{DESK}/{{name}}/test", **_GOES_ON)
    def test(
        request: Request, guest: Here, name: SlotName, to: Annotated[list[str] | None, Form(max_length=100)] = None
    ) -> Response:
        slot = slot_of(name)
        try:
            chosen = gate.send_test(newsroom, slot, to or [], guest.admin.address, own=guest.admin.address)
        except (UsageError, ContentError, DecisionNeeded) as error:
            return shown(request, guest, slot, 422, _sentence(error))
        # To whom is said here and now: no address stands in any URL.
        return shown(request, guest, slot, said=f"The test is on its way to {listed(chosen)}.")


def _values(newsroom: Newsroom, slot: Slot, guest: Guest, done: int) -> dict[str, object]:
    """All that the page of a desk prints; `done` is the number of what was done last."""
    stands = gate.standing(newsroom, slot)
    drafted, problems = None, ""
    if stands.issue is None:
        try:
            drafted = route.draft(newsroom, slot)
        except ContentError as error:
            problems = str(error)
    issue = stands.issue
    wrong = issue is None and (drafted is None or bool(drafted.errors))
    looked = issue.rendered if issue else drafted.rendered if drafted else None
    titles = _titles(newsroom, stands, drafted)
    history = [(_at(newsroom, deed.at), deed.by, show.deed_text(deed, titles), deed.undone) for deed in reversed(stands.deeds)]
    readers = route.count_readers(newsroom) if not (issue and issue.enrolled_at) else 0
    mine = [deed for deed in stands.deeds if deed.id == done and deed.by == guest.admin.address]
    tally = route.report(newsroom, slot).counts if issue and issue.enrolled_at else {}
    return {
        "slot": slot,
        "stands": stands,
        "state": stands.state,
        "planned": newsroom.schedule.planned(slot),
        "sentence": show.standing_text(newsroom, stands, readers, wrong=wrong, moved=place.see(newsroom) is not None),
        "said": f"You {show.deed_text(mine[0], titles)}." if mine else "",
        "readers": readers,
        "terms": _terms(newsroom, drafted) if drafted else (),
        "drafted": drafted,
        "looked": looked,
        "problems": problems,
        "cards": _cards(drafted) if drafted else [],
        "runners_up": _runners_up(drafted) if drafted else [],
        "line_up": json.dumps(edit.line_up(drafted)) if drafted else "",
        "seen": stands.deeds[-1].id if stands.deeds else 0,
        "others": max((deed.id for deed in stands.deeds if deed.by != guest.admin.address), default=0),
        "history": history,
        "just_changed": bool(mine) and mine[0] == next((each for each in reversed(stands.deeds) if _stays(each)), None),
        "can_undo": next((show.deed_text(each, titles) for each in reversed(stands.deeds) if _stays(each)), "")
        if drafted
        else "",
        "most": MOST,
        "sender": newsroom.masthead.sender_name,
        "tests": gate.allowed(newsroom, guest.admin.address),
        "full": drafted is not None and len(drafted.selection.stories) >= newsroom.config.newsletter.stories,
        "counts": {name: number for name, number in tally.items() if number},
        "me": guest.admin.address,
    }


def _cards(drafted: Draft) -> list[Card]:
    pairs = zip(drafted.selection.stories, drafted.issue.lines, strict=True)
    return [_card(drafted, chosen, place, line) for place, (chosen, line) in enumerate(pairs, 1)]


def _runners_up(drafted: Draft) -> list[Card]:
    return [_card(drafted, chosen, place, None) for place, chosen in enumerate(drafted.selection.runners_up, 1)]


def _card(drafted: Draft, chosen: Chosen, place: int, line: Line | None) -> Card:
    page, edits = canonical_url(chosen.story.url), drafted.edits
    told = pages_of(chosen)
    edited, dropped = edits.wording(told) != Wording(), bool(edits.dropped & {*told})
    return Card(page, place, chosen, line, page in edits.places, edited, dropped)


def _titles(newsroom: Newsroom, stands: Standing, drafted: Draft | None) -> dict[str, str]:
    """The titles of the stories that the history speaks of, as they are now."""
    now = {card.page: card.line.title for card in _cards(drafted) if card.line} if drafted else {}
    return gate.titles(newsroom, stands.deeds) | now


def _coming(newsroom: Newsroom) -> Slot:
    """The slot that an editor means who names none: the one that is due or comes, and is not sent."""
    with newsroom.database.read() as session:
        return ledger.coming(session, newsroom.schedule, newsroom.now())


def _line_up(given: str) -> tuple[str, ...] | None:
    try:
        pages = json.loads(given) if given else None
    except (ValueError, RecursionError):
        pages = None
    if not isinstance(pages, list) or len(pages) > MOST_PAGES or not all(isinstance(each, str) for each in pages):
        return None
    return tuple(dict.fromkeys(pages))


def _sample(rendered: RenderedIssue) -> Copy:
    return Copy("0" * 32, SAMPLE_ADDRESS, links.leave_url(rendered.base_url, links.OF_A_TEST))


def _stays(deed: Deed) -> bool:
    return deed.kind in CHANGES and not deed.undone


def _terms(newsroom: Newsroom, drafted: Draft) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The terms that fit best beside the one that is chosen, and all others, each with the beginning of its definition."""
    best = [each.term for each in drafted.selection.other_terms]
    taken = {each.slug for each in best} | ({drafted.selection.term.term.slug} if drafted.selection.term else set())
    rest = [term for slug, term in newsroom.glossary.items() if slug not in taken]
    return [_named(term) for term in best], [_named(term) for term in rest]


def _named(term: Term) -> tuple[str, str]:
    return term.slug, f"{term.name}: {shorten(plain(term.definition.replace('*', '')), HINT)}"


def _at(newsroom: Newsroom, at: datetime) -> str:
    local = at.astimezone(newsroom.schedule.zone)
    return f"{local:%a %H:%M}" if newsroom.now() - at < timedelta(days=6) else f"{local:%Y-%m-%d %H:%M}"


def _is_script(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _sentence(error: FridayError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:].removesuffix(".") + "."
