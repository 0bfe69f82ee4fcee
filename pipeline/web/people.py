"""The people screens of the newsroom: the list, a search, one person with all that happened, import and export.

A search is a POST and a person's page is addressed by a number, so that no mail address stands in any URL. Whatever
changes somebody is written into that person's history with the admin who did it.
"""

import contextlib
import json
import logging
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Form, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from pipeline import person as everything
from pipeline import show, uploads
from pipeline.errors import UsageError
from pipeline.newsroom import Newsroom
from pipeline.staff import Guest, Role
from pipeline.web.door import ROOT, Here, require
from pipeline.web.newsroom import GUARDED, Frame
from subscribers import exchange, labels, roll, search
from subscribers.models import LabelKind, State, Subscriber, Why
from subscribers.search import Found, Wanted
from subscribers.segments import parse

PEOPLE = f"{ROOT}/people"
IMPORT = f"{PEOPLE}/import"
MOST_IMPORTED = 200_000_000
SHOWN_REFUSALS = 50
# Of imports that were looked at and never ordered, so many are kept.
KEPT_IMPORTS = 8
PIECE = 1 << 20
GONE = "The file has been deleted meanwhile, as it is after half an hour and when anybody is erased."

log = logging.getLogger(__name__)

Owner = Annotated[Guest, Depends(require(Role.OWNER))]
Number = Annotated[int, Query(ge=1, le=2**31 - 1)]
Words = Annotated[str, Form(max_length=1_000)]
ANSWERS: dict[int | str, dict[str, Any]] = {**GUARDED, 404: {"description": "Nobody of that number"}}
Page = dict[str, Any]
_HTML: Page = {"response_class": HTMLResponse, "responses": ANSWERS}
_GOES_ON: Page = {**_HTML, "status_code": 303}


@dataclass(frozen=True, slots=True)
class Filter:
    """What the list is narrowed to, as it stands in the address of the page."""

    state: str = ""
    topic: str = ""
    tag: str = ""
    suppressed: str = ""
    segment: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The same as it goes into an address."""
        return {name: value for name in ("state", "topic", "tag", "suppressed", "segment") if (value := getattr(self, name))}

    def wanted(self, newsroom: Newsroom) -> Wanted:
        """The same as the roll understands it.

        Raises:
            UsageError: something of it is not known.
        """
        if self.state not in ("", *State):
            raise UsageError(f"{self.state!r} is not a state: there is {', '.join(State)}")
        return Wanted(
            state=State(self.state) if self.state else None,
            suppressed={"yes": True, "no": False}.get(self.suppressed),
            topic=self.topic.strip(),
            tag=self.tag.strip(),
            segment=parse(self.segment) if self.segment.strip() else None,
            home=newsroom.home,
        )


@dataclass
class Import:
    """A file that is looked at, or being brought in, in a thread of its own."""

    path: Path
    name: str
    dry_run: bool = True
    done: int = 0
    rows: int = 0
    over: bool = False
    summary: str = ""
    dialect: str = ""
    trouble: str = ""
    refused: list[tuple[int, str]] = field(default_factory=list)
    more_refused: int = 0

    def run(self, newsroom: Newsroom) -> None:
        """Look at the file, or bring it in; whatever comes of it stands here afterwards."""

        def refuse(line: int, reason: str) -> None:
            if len(self.refused) < SHOWN_REFUSALS:
                self.refused.append((line, reason))
            else:
                self.more_refused += 1

        def tell(done: int, rows: int) -> None:
            self.done, self.rows = done, rows

        self.refused, self.more_refused, self.over = [], 0, False
        try:
            came = exchange.import_file(
                newsroom.database, self.path, newsroom.now(), dry_run=self.dry_run, refuse=refuse, progress=tell,
                erased=newsroom.blinded,
            )  # fmt: skip
            self.summary, self.dialect = show.imported_summary(came), came.dialect
        except (UsageError, OSError) as error:
            if self.path.exists():
                self.trouble = _sentence(error).replace(str(self.path), self.name)
            else:
                self.trouble = f"{GONE} Send it again: it goes on where it stopped."
        except Exception:  # nobody waits for this thread, so the page must say whatever went wrong
            log.exception("an import has failed")
            self.trouble = "Something went wrong in the middle. Send the file again: it goes on where it stopped."
        finally:
            self.over = True
            if not self.dry_run or self.trouble:
                self.forget()

    def forget(self) -> None:
        """Delete the file, which is full of addresses."""
        uploads.forget(self.path)


class Imports:
    """The imports of this process, by a number that cannot be guessed."""

    def __init__(self, newsroom: Newsroom) -> None:
        self._newsroom = newsroom
        self._all: dict[str, Import] = {}

    def find(self, number: str) -> Import | None:
        """An import of this process."""
        return self._all.get(number)

    async def look_at(self, upload: UploadFile) -> str:
        """Keep a file that was sent, and begin to look at what would come of it."""
        suffix = ".json" if (upload.filename or "").lower().endswith(".json") else ".csv"
        path = uploads.room(self._newsroom.config.imports, suffix)
        try:
            with path.open("wb") as file:
                while piece := await upload.read(PIECE):
                    await run_in_threadpool(file.write, piece)
        except OSError as error:
            uploads.forget(path)
            raise UsageError(f"the file cannot be kept to be looked at: {error.strerror}") from error
        number = uuid.uuid4().hex
        self._all[number] = Import(path, roll.clean_name(upload.filename or "the file"))
        for old in list(self._all)[:-KEPT_IMPORTS]:
            self._all.pop(old).forget()
        self._begin(self._all[number])
        return number

    def bring_in(self, found: Import) -> None:
        """Do what was looked at before; a second time nothing."""
        if not found.over or not found.dry_run or found.trouble:
            return
        if not uploads.is_kept(found.path):
            found.trouble = f"{GONE} Nothing was written: send it again."
            return
        found.dry_run, found.done = False, 0
        self._begin(found)

    def _begin(self, found: Import) -> None:
        found.over = False
        threading.Thread(target=found.run, args=(self._newsroom,), name="import", daemon=True).start()


def add_people(app: FastAPI, frame: Frame) -> None:
    """Add the people screens to the newsroom."""

    @app.exception_handler(UsageError)
    async def not_so(request: Request, error: UsageError) -> Response:
        return frame.message(request, 422, "That cannot be done", _sentence(error))

    _add_list(app, frame)
    _add_exchange(app, frame)
    _add_person(app, frame)


def _who(guest: Guest) -> str:
    return guest.admin.address


def _add_list(app: FastAPI, frame: Frame) -> None:
    newsroom = frame.newsroom

    def shown(request: Request, chosen: Filter, cursor: str = "", found: Found | None = None, **more: object) -> Response:
        trouble, status = "", 200
        with newsroom.database.read() as session:
            try:
                wanted = chosen.wanted(newsroom)
                people = found or search.page(session, wanted, cursor)
                number = None if found else search.count(session, wanted)
            except UsageError as error:
                trouble, status, people, number = _sentence(error), 422, Found(()), None
            tags = labels.in_use(session, LabelKind.TAG)
        ways = {
            name: f"{PEOPLE}?{urlencode({**chosen.query, 'cursor': at})}" if at else ""
            for name, at in (("before", people.before), ("after", people.after))
        }
        values = {
            "people": people.people, "number": number, "more": people.more, "ways": ways, "chosen": chosen,
            "states": list(State),
            "topics": newsroom.config.topics, "tags": tags, "trouble": trouble, "typed": "", "searched": found is not None,
            "said": "",
        }  # fmt: skip
        return frame.page(request, "people.html", status, **{**values, **more})

    @app.get(PEOPLE, **_HTML)
    def people(
        request: Request,
        state: Annotated[str, Query(max_length=20)] = "",
        topic: Annotated[str, Query(max_length=40)] = "",
        tag: Annotated[str, Query(max_length=40)] = "",
        suppressed: Annotated[str, Query(max_length=3)] = "",
        segment: Annotated[str, Query(max_length=1_000)] = "",
        cursor: Annotated[str, Query(max_length=60)] = "",
        said: Annotated[str, Query(max_length=20)] = "",
    ) -> Response:
        return shown(request, Filter(state, topic, tag, suppressed, segment), cursor, said=_SAID.get(said, ""))

    @app.post(f"{PEOPLE}/search", **_HTML)
    def find(request: Request, text: Annotated[str, Form(max_length=320)] = "") -> Response:
        if not text.strip():
            return RedirectResponse(PEOPLE, 303)
        try:
            with newsroom.database.read() as session:
                found = search.find(session, text)
        except UsageError as error:
            return shown(request, Filter(), found=Found(()), trouble=_sentence(error), typed=text)
        return shown(request, Filter(), found=found, typed=text)

    @app.post(f"{PEOPLE}/bulk", **_GOES_ON)
    def bulk(
        request: Request,
        guest: Here,
        action: Annotated[str, Form(max_length=20)],
        ids: Annotated[list[int] | None, Form(max_length=1_000)] = None,
        name: Annotated[str, Form(max_length=60)] = "",
        back: Annotated[str, Form(max_length=1_200)] = "",
    ) -> Response:
        chosen = [each for each in ids or [] if 0 < each < 2**31]
        if not chosen:
            return frame.message(request, 422, "Nobody is chosen", "Tick the people first, then say what to do with them.")
        with newsroom.database.write() as session:
            match action:
                case "tag":
                    labels.add(session, chosen, LabelKind.TAG, name.strip(), _who(guest), newsroom.now())
                case "untag":
                    labels.remove(session, chosen, LabelKind.TAG, name.strip(), _who(guest), newsroom.now())
                case "unsubscribe":
                    roll.unsubscribe_all(session, chosen, newsroom.now(), _who(guest))
                case _:
                    raise UsageError("choose what to do: add a tag, take a tag away, or unsubscribe")
        query = f"?{back}" if back and back.isascii() and back.isprintable() else ""
        return RedirectResponse(f"{PEOPLE}{query}{'&' if query else '?'}said=bulk", 303)

    @app.get(f"{PEOPLE}/add", **_HTML)
    def adding(request: Request) -> Response:
        return frame.page(
            request, "person-add.html", trouble="", typed=dict.fromkeys(("address", "name", "tags", "consent"), "")
        )

    @app.post(f"{PEOPLE}/add", **_GOES_ON)
    def add(
        request: Request,
        guest: Here,
        address: Annotated[str, Form(max_length=320)],
        name: Words = "",
        tags: Words = "",
        consent: Annotated[str, Form(max_length=1_000)] = "",
    ) -> Response:
        typed = {"address": address, "name": name, "tags": tags, "consent": consent}
        if not consent.strip():
            text = "Write down how the person agreed, such as: on paper at the fair, 3 November."
            return frame.page(request, "person-add.html", 422, trouble=text, typed=typed)
        try:
            with newsroom.database.write() as session:
                source = roll.clean_name(f"newsroom: {consent}")
                added = roll.add(session, address, newsroom.now(), name, source, newsroom.known_keys)
                number = added.subscriber.id or 0
                if added.new and tags.strip():
                    labels.put(session, number, LabelKind.TAG, tags.replace(",", " ").split(), _who(guest), newsroom.now())
        except UsageError as error:
            return frame.page(request, "person-add.html", 422, trouble=_sentence(error), typed=typed)
        return RedirectResponse(f"{PEOPLE}/{number}?said={'added' if added.new else 'known'}", 303)


_SAID = {
    "bulk": "Done. It stands in the history of each of them.",
    "added": "Added.",
    "known": "This person was on the roll already. Nothing was changed.",
    "saved": "Saved.",
    "left": "Unsubscribed.",
    "suppressed": "Suppressed: no mail goes there any more.",
    "erased": "Erased. Nothing of this person is left but a keyed hash.",
}


def _add_person(app: FastAPI, frame: Frame) -> None:
    newsroom = frame.newsroom

    def nobody(request: Request) -> Response:
        return frame.message(request, 404, "Nobody here", "Nobody of this number is on the roll, or no longer.")

    def shown(request: Request, number: int, status: int = 200, trouble: str = "", said: str = "") -> Response:
        with newsroom.database.read() as session:
            found = roll.by_id(session, number)
            if found is None:
                return nobody(request)
            suppression = roll.suppressed(session, found.key, None)
            marks = labels.of(session, [number])[number]
        held = everything.held(newsroom, found.address) or {}
        values = {
            "person": found, "suppression": suppression, "labels": marks, "trouble": trouble, "said": _SAID.get(said, ""),
            "timeline": list(_timeline(held)), "consents": (held.get("subscriber") or {}).get("consents", []),
            "topics": newsroom.config.topics, "zone": newsroom.schedule.zone, "now": newsroom.now(),
        }  # fmt: skip
        return frame.page(request, "person.html", status, **values)

    @app.get(f"{PEOPLE}/{{number:int}}", **_HTML)
    def person(request: Request, number: int, said: Annotated[str, Query(max_length=20)] = "") -> Response:
        return shown(request, number, said=said) if 0 < number < 2**31 else nobody(request)

    def change(number: int) -> contextlib.AbstractContextManager[tuple[Any, Subscriber | None]]:
        @contextlib.contextmanager
        def within() -> Iterator[tuple[Any, Subscriber | None]]:
            with newsroom.database.write() as session:
                yield session, roll.by_id(session, number) if 0 < number < 2**31 else None

        return within()

    @app.post(f"{PEOPLE}/{{number:int}}/edit", **_GOES_ON)
    def edit(
        request: Request,
        guest: Here,
        number: int,
        name: Annotated[str, Form(max_length=400)] = "",
        tags: Words = "",
        topics: Annotated[list[str] | None, Form(max_length=100)] = None,
    ) -> Response:
        try:
            with change(number) as (session, found):
                if found is None:
                    return nobody(request)
                now, by = newsroom.now(), _who(guest)
                roll.rename(session, found, name, by, now)
                labels.put(session, number, LabelKind.TAG, tags.replace(",", " ").split(), by, now)
                had = set(labels.of(session, [number])[number].topics)
                # Topics that are not offered any more cannot be ticked, and stay.
                kept = had - newsroom.config.topics.keys()
                wanted = {each for each in topics or [] if each in newsroom.config.topics}
                labels.put(session, number, LabelKind.TOPIC, kept | wanted, by, now)
        except UsageError as error:
            return shown(request, number, 422, _sentence(error))
        return RedirectResponse(f"{PEOPLE}/{number}?said=saved", 303)

    @app.post(f"{PEOPLE}/{{number:int}}/unsubscribe", **_GOES_ON)
    def unsubscribe(request: Request, guest: Here, number: int) -> Response:
        with change(number) as (session, found):
            if found is None:
                return nobody(request)
            roll.unsubscribe(session, found.key, newsroom.now(), _who(guest))
        return RedirectResponse(f"{PEOPLE}/{number}?said=left", 303)

    @app.post(f"{PEOPLE}/{{number:int}}/suppress", **_GOES_ON)
    def suppress(request: Request, guest: Here, number: int, note: Annotated[str, Form(max_length=400)] = "") -> Response:
        with change(number) as (session, found):
            if found is None:
                return nobody(request)
            roll.suppress(session, found.address, Why.MANUAL, newsroom.now(), roll.clean_name(note), _who(guest))
        return RedirectResponse(f"{PEOPLE}/{number}?said=suppressed", 303)

    @app.post(f"{PEOPLE}/{{number:int}}/erase", **_GOES_ON)
    def erase(request: Request, guest: Owner, number: int, typed: Annotated[str, Form(max_length=400)] = "") -> Response:
        with newsroom.database.read() as session:
            found = roll.by_id(session, number) if 0 < number < 2**31 else None
        if found is None:
            return nobody(request)
        if typed.strip().casefold() != found.key:
            return shown(
                request, number, 422, "Type the person's address as it stands above: nothing brings back what is erased."
            )
        everything.erase(newsroom, found.address)
        log.info("admin %s has erased subscriber %s", guest.admin.id, number)
        return RedirectResponse(f"{PEOPLE}?said=erased", 303)

    @app.get(f"{PEOPLE}/{{number:int}}/all.json", responses=ANSWERS)
    def all_of(request: Request, guest: Owner, number: int) -> Response:
        with newsroom.database.read() as session:
            found = roll.by_id(session, number) if 0 < number < 2**31 else None
        held = everything.held(newsroom, found.address) if found else None
        if held is None:
            return nobody(request)
        log.info("admin %s has taken out what is held of subscriber %s", guest.admin.id, number)
        return Response(
            json.dumps(held, ensure_ascii=False, indent=2),
            media_type="application/json",
            headers=_attachment(f"subscriber-{number}.json"),
        )


def _add_exchange(app: FastAPI, frame: Frame) -> None:
    newsroom, imports = frame.newsroom, Imports(frame.newsroom)
    frame.door.make_room(IMPORT, MOST_IMPORTED)

    @app.get(IMPORT, **_HTML)
    def importing(request: Request) -> Response:
        return frame.page(request, "import.html", found=None, number="", trouble="")

    @app.post(IMPORT, **_GOES_ON)
    async def look_at(request: Request, _guest: Here, file: UploadFile) -> Response:
        if not file.filename:
            text = "Choose a file first: a CSV, or the JSON that an export writes."
            return frame.page(request, "import.html", 422, found=None, number="", trouble=text)
        return RedirectResponse(f"{IMPORT}/{await imports.look_at(file)}", 303)

    @app.get(f"{IMPORT}/{{number}}", **_HTML)
    def standing(request: Request, number: str) -> Response:
        found = imports.find(number)
        if found is None:
            return frame.message(request, 404, "No such import", "The server was started anew since, or it is long ago.")
        return frame.page(request, "import.html", found=found, number=number, trouble="")

    @app.post(f"{IMPORT}/{{number}}", **_GOES_ON)
    def bring_in(request: Request, guest: Here, number: str) -> Response:
        found = imports.find(number)
        if found is None:
            return frame.message(request, 404, "No such import", "The server was started anew since, or it is long ago.")
        log.info("admin %s brings in a file", guest.admin.id)
        imports.bring_in(found)
        return RedirectResponse(f"{IMPORT}/{number}", 303)

    @app.get(f"{PEOPLE}/export.{{form}}", responses=ANSWERS)
    def export(request: Request, guest: Owner, form: str) -> Response:
        if form not in exchange.FORMATS:
            return frame.message(request, 404, "No such format", f"There is {' and '.join(exchange.FORMATS)}.")
        log.info("admin %s has exported the roll", guest.admin.id)
        pieces = exchange.export(newsroom.database, form)
        kind = "text/csv; charset=utf-8" if form == "csv" else "application/json"
        return StreamingResponse(pieces, media_type=kind, headers=_attachment(f"subscribers-{newsroom.now():%Y-%m-%d}.{form}"))


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to a person, when, and what is known of it."""

    at: datetime
    what: str
    detail: str = ""


def _timeline(held: Mapping[str, Any]) -> Iterator[Happening]:
    """All that happened to a person, the latest first."""
    about = held.get("subscriber")
    if not about:
        return
    all_of_it = [Happening(_moment(about["joined"]), "on the roll", about["source"])]
    for each in about["changes"]:
        detail = ", ".join(f"{name}: {value or 'none'}" for name, value in each["detail"].items())
        all_of_it.append(Happening(_moment(each["at"]), each["what"], f"{detail + ', ' if detail else ''}by {each['by']}"))
    for each in about["issues"]:
        told = each["fate"].replace("_", " ") or each["reason"]
        all_of_it.append(Happening(_moment(each["changed_at"]), f"issue {each['number']}: {each['state']}", told))
    for each in about["mails"]:
        moment = each["settled_at"] or each["queued_at"]
        all_of_it.append(Happening(_moment(moment), f"mail “{each['kind']}”: {each['state']}", each["trouble"]))
    if held.get("suppression"):
        why = held["suppression"]
        all_of_it.append(Happening(_moment(why["since"]), f"suppressed: {why['why']}", why["note"]))
    # Of what happened at one moment, what was written last comes first.
    ordered = sorted(enumerate(all_of_it), key=lambda numbered: (numbered[1].at, numbered[0]), reverse=True)
    yield from (each for _, each in ordered)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
