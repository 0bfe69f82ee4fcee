"""Every page, in every state that matters, on a phone and a desk, in light and dark: axe, widths, and what Chromium says.

`FRIDAY_SHOTS` names a folder for pictures of all that is looked at.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from sqlmodel import func, select

from pipeline import admit, edit, gate, place
from pipeline import publish as route
from pipeline.books import DeliveryRow, DeliveryState, IssueRow, IssueState, PlaceRow
from pipeline.edit import HEAD_FIELDS, MOST, STORY_FIELDS, Desk
from pipeline.web.preview import preview_app
from pipeline.web.public import public_app
from subscribers import preferences, roll
from subscribers.consent import Asked, Proof
from subscribers.models import Consent, Why
from subscribers.preferences import Wishes
from tests.browser.street import (
    BLOG,
    LONG_ADDRESS,
    House,
    Scheme,
    Street,
    Visit,
    build_house,
    plain_page,
    settle_people,
    slow_import,
    visiting,
)
from tests.conftest import FRIDAY, ROOT, by_reader_time
from tests.mail.check import AXE, BAD, RUN_AXE, WCAG, WIDEST, axe_texts
from tests.serving import serving
from tests.test_door import ED, every_route
from tests.test_staff import CHEAP, CHIEF, GOOD, OTHER

VIEWS: tuple[tuple[int, Scheme], ...] = ((390, "light"), (390, "dark"), (1280, "light"), (1280, "dark"))
ADA, BEN, CLEO, DORA = "ada@example.com", "ben@example.com", "cleo@example.org", "dora@example.com"
ARABIC, GIL = "arabic@example.com", "gil@example.com"
SIGN_IN, ACCOUNT, PEOPLE = "/newsroom/sign-in", "/newsroom/account", "/newsroom/people"
DESK, SLOTS, NEXT, SENT = "/newsroom/desk", "/newsroom/slots", "/newsroom/desk/2026-12-04", "/newsroom/desk/2026-11-27"
WRONG = "no such password here"
# What answers to GET and is no page.
NOT_PAGES = {
    "/public.css", "/newsroom.css", "/import.js", "/people.js", "/icon.svg", "/healthz", "/preview.css", "/preview.js",
    "/desk.css", "/desk.js", "/desk-order.js", f"{DESK}/x/news", "/changes",
    "/issue.txt", f"{PEOPLE}/export.x", f"{PEOPLE}/x/all.json",
}  # fmt: skip

Go = Callable[[Visit], object]


@dataclass(frozen=True)
class Shown:
    """A page in one state: how it is reached, in which house, by whom, and with which status it is answered.

    `sealed` is a page whose policy lets no script run, axe's neither.
    """

    route: str
    state: str
    go: Go
    status: int = 200
    house: str = "full"
    who: str = ""
    sealed: bool = False

    def __str__(self) -> str:
        return f"{self.route} {self.state}"


def at(path: str) -> Go:
    """Open a path, in which `{token:ada@example.com}` and `{id:ada@example.com}` are looked up in the house."""
    return lambda visit: visit.go(fill_in(visit.house, path))


def fill_in(house: House, path: str) -> str:
    before, brace, rest = path.partition("{")
    if not brace:
        return path
    inside, _, after = rest.partition("}")
    kind, _, key = inside.partition(":")
    found = house.person(key)
    assert found
    return f"{before}{found.token if kind == 'token' else found.id}{after}"


def confirming(key: str) -> Go:
    """Ask for a confirmation of an address, and open the link of the mail."""

    def go(visit: Visit) -> None:
        newsroom = visit.house.world.newsroom
        admit.keep(newsroom, Asked(roll.normalise(key), "page", admit.wording(newsroom), Proof("203.0.113.0/24", "Browser/1")))
        admit.admit_all(newsroom)
        with newsroom.database.read() as session:
            number = session.exec(select(func.max(Consent.id))).one()
        visit.go(f"/c/{newsroom.keys.sign('confirm', number or 0)}")

    return go


def typed(path: str, button: str, *, wait: float = 0, **values: str) -> Go:
    """Open a path, fill in a form, and press its button."""

    def go(visit: Visit) -> None:
        visit.go(fill_in(visit.house, path))
        visit.house.wait(wait)
        visit.fill(**values).press(button)

    return go


def then(*steps: Go) -> Go:
    """One step after another."""

    def go(visit: Visit) -> None:
        for step in steps:
            step(visit)

    return go


def press(button: str) -> Go:
    return lambda visit: visit.press(button)


def shows(what: str) -> Go:
    return lambda visit: visit.page.locator(what).first.wait_for()


def follow(link: str) -> Go:
    return lambda visit: visit.follow(link)


def later(**much: float) -> Go:
    return lambda visit: visit.house.wait(timedelta(**much).total_seconds())


def spoil(selector: str) -> Go:
    """Give a field of the page a value that no page of ours has."""
    return lambda visit: visit.page.locator(selector).first.evaluate("element => { element.value = 'spoilt' }")


def suppress(key: str) -> Go:
    def go(visit: Visit) -> None:
        with visit.house.world.database.write() as session:
            roll.suppress(session, key, Why.COMPLAINT, visit.house.world.clock())

    return go


def edits(*changes: Callable[[Desk], object]) -> Go:
    """Somebody else changes the draft of the next slot."""

    def go(visit: Visit) -> None:
        newsroom = visit.house.world.newsroom
        slot = newsroom.schedule.next(newsroom.now())
        for change in changes:
            change(Desk(newsroom, slot, ED))

    return go


def lengthen(desk: Desk) -> None:
    """Write as much as may be written, everywhere."""
    for page in edit.line_up(route.draft(desk.newsroom, desk.slot)):
        for name in STORY_FIELDS:
            desk.tell(page, name, ("Wolfeschlegelsteinhausenbergerdorff " * 20)[: MOST[name]])
    for name in HEAD_FIELDS:
        desk.head(name, ("Wolfeschlegelsteinhausenbergerdorff-" * 60)[: MOST[name]])


def decides(what: Callable[..., object], *more: str) -> Go:
    """Somebody else decides about the next slot."""

    def go(visit: Visit) -> None:
        newsroom = visit.house.world.newsroom
        what(newsroom, newsroom.schedule.next(newsroom.now()), ED, *more)

    return go


def adds(url: str) -> Go:
    """Ask for a page to be added."""

    def go(visit: Visit) -> None:
        visit.page.locator(".add summary").click()
        visit.page.locator("#url").fill(url)
        with visit.page.expect_navigation():
            visit.page.locator(".add button").click()

    return go


def missed(visit: Visit) -> None:
    """The clock was away until the grace of the next slot was over."""
    world = visit.house.world
    gate.tend(world.newsroom)
    world.clock.at = world.newsroom.schedule.next(world.clock.at).at + timedelta(hours=7)
    gate.tend(world.newsroom)
    visit.sign_in()


def clashes(visit: Visit) -> None:
    """Two write the same, without scripts, and one of them something else too."""
    edits(lambda desk: desk.head("subject", "What they wrote meanwhile"))(visit)
    words = {"subject": "What was written here", "note": "And a note"}
    visit.page.evaluate("words => { for (const name in words) document.getElementById(name).value = words[name]; }", words)
    with visit.page.expect_navigation():
        visit.page.evaluate("document.getElementById('subject').form.submit()")


def moves(visit: Visit) -> None:
    """The database was at home elsewhere."""
    newsroom = visit.house.world.newsroom
    place.settle(newsroom)
    with newsroom.database.write() as session:
        session.get_one(PlaceRow, 1).identity = "file/elsewhere/another"


def stands(state: IssueState, trouble: str = "", **copies: int) -> Go:
    """The issue of the slot is under way, with so many copies in each state, and the others accepted."""

    def go(visit: Visit) -> None:
        world = visit.house.world
        slot = world.newsroom.schedule.next(world.clock())
        world.clock.at = slot.at
        route.publish(world.newsroom, slot)
        with world.database.write() as session:
            issue = session.exec(select(IssueRow).where(IssueRow.slot == slot.name)).one()
            issue.state, issue.trouble, issue.closed_at = state, trouble, None
            rows = iter(session.exec(select(DeliveryRow).where(DeliveryRow.state == DeliveryState.ACCEPTED)).all())
            for name, number in copies.items():
                for row in islice(rows, number):
                    row.state = DeliveryState(name)
        visit.sign_in()

    return go


def often(times: int, step: Go) -> Go:
    return then(*[step] * times)


def brought(content: str, until: str = ".done, .trouble") -> Go:
    """Send in a file to import, and wait until the page shows something."""

    def go(visit: Visit) -> None:
        visit.go(f"{PEOPLE}/import")
        file = {"name": "people.csv", "mimeType": "text/csv", "buffer": content.encode()}
        visit.page.locator("[name=file]").set_input_files(file)  # type: ignore[arg-type]  # a mapping is a FilePayload
        visit.press("Look at it")
        visit.page.locator(until).first.wait_for()

    return go


GOOD_FILE = "email,name\neve@example.com,Eve\nnot an address,Nobody\n" + "also none,\n" * 60
SHOWN = [
    Shown("/", "with an issue", at("/")),
    Shown("/", "before the first issue", at("/"), house="empty"),
    Shown("/subscribe", "form", at("/subscribe")),
    Shown("/subscribe", "not an address", typed("/subscribe", "Sign up", email="ada@localhost"), 422),
    Shown("/subscribe", "one more click", typed("/subscribe", "Sign up", email=LONG_ADDRESS[:254])),
    Shown("/subscribe", "kept", typed("/subscribe", "Sign up", wait=3, email="zoe@example.com")),
    Shown("/subscribe", "too many", often(6, typed("/subscribe", "Sign up", wait=3, email="zoe@example.com")), 429, "own"),
    Shown("/c/x", "waiting", confirming("fay@example.com")),
    Shown("/c/x", "confirmed", then(confirming(GIL), press("Yes, sign me up")), house="own"),
    Shown("/c/x", "unknown", at("/c/unheard-of"), 404),
    Shown("/c/x", "too late", then(confirming(GIL), later(days=8), press("Yes, sign me up")), 410, "own"),
    Shown("/c/x", "barred", then(confirming(GIL), suppress(GIL), press("Yes, sign me up")), 403, "own"),
    Shown("/u/x", "leaving", at(f"/u/{{token:{ADA}}}")),
    Shown("/u/x", "left", at(f"/u/{{token:{BEN}}}")),
    Shown("/u/x", "unknown", at("/u/unheard-of"), 404),
    Shown("/p/x", "form", at(f"/p/{{token:{ADA}}}")),
    Shown("/p/x", "saved", typed(f"/p/{{token:{ADA}}}", "Save")),
    Shown("/p/x", "paused", at(f"/p/{{token:{DORA}}}")),
    Shown("/p/x", "left", at(f"/p/{{token:{BEN}}}")),
    Shown("/p/x", "pending", then(confirming("hal@example.com"), at("/p/{token:hal@example.com}"))),
    Shown("/p/x", "unknown zone", then(at(f"/p/{{token:{ADA}}}"), spoil("[name=zone] option"), press("Save")), 422),
    Shown("/p/x", "unknown", at("/p/unheard-of"), 404),
    Shown("/issues/x", "published", at("/issues/2026-11-27"), sealed=True),
    Shown("/issues/x", "missing", at("/issues/2026-11-20"), 404),
    Shown(SIGN_IN, "form", at(SIGN_IN)),
    Shown(SIGN_IN, "wrong", typed(SIGN_IN, "Sign in", address="nobody@example.com", password=WRONG), 401),
    Shown(SIGN_IN, "throttled", often(6, typed(SIGN_IN, "Sign in", address=CHIEF, password=WRONG)), 429, "own"),
    Shown("/newsroom", "with an issue", at("/newsroom"), who=CHIEF),
    Shown("/newsroom", "empty", at("/newsroom"), 200, "empty", CHIEF),
    Shown("/newsroom", "not there", at("/newsroom/nothing"), 404, who=CHIEF),
    Shown(ACCOUNT, "form", at(ACCOUNT), who=CHIEF),
    Shown(
        ACCOUNT, "wrong", typed(ACCOUNT, "Change the password", current=WRONG, new=OTHER, again=OTHER), 401, who=CHIEF
    ),
    Shown(
        ACCOUNT, "changed", typed(ACCOUNT, "Change the password", current=GOOD, new=OTHER, again=OTHER), 200, "own", CHIEF
    ),
    Shown(ACCOUNT, "too old", then(at(ACCOUNT), spoil("[name=csrf]"), press("Sign out")), 403, who=CHIEF),
    Shown(PEOPLE, "all", at(PEOPLE), who=CHIEF),
    Shown(PEOPLE, "as an editor", at(PEOPLE), who=ED),
    Shown(PEOPLE, "nobody", at(PEOPLE), 200, "empty", CHIEF),
    Shown(PEOPLE, "many", at(f"{PEOPLE}?said=bulk"), 200, "crowded", CHIEF),
    Shown(PEOPLE, "narrowed", at(f"{PEOPLE}?tag=vip&state=active"), who=CHIEF),
    Shown(PEOPLE, "nobody is like that", at(f"{PEOPLE}?suppressed=yes&state=pending"), who=CHIEF),
    Shown(PEOPLE, "wrong segment", at(f"{PEOPLE}?segment=tagg:vip"), 422, who=CHIEF),
    Shown(PEOPLE, "found", typed(PEOPLE, "Find", text="ada"), who=CHIEF),
    Shown(PEOPLE, "nobody found", typed(PEOPLE, "Find", text="zzz"), who=CHIEF),
    Shown(PEOPLE, "nobody ticked", then(at(PEOPLE), press("Add the tag")), 422, who=CHIEF),
    Shown(f"{PEOPLE}/add", "form", at(f"{PEOPLE}/add"), who=CHIEF),
    Shown(f"{PEOPLE}/add", "wrong", typed(f"{PEOPLE}/add", "Add", address="a@localhost", consent="so"), 422, who=CHIEF),
    Shown(f"{PEOPLE}/x", "active", at(f"{PEOPLE}/{{id:{ADA}}}"), who=CHIEF),
    Shown(f"{PEOPLE}/x", "with consent", at(f"{PEOPLE}/{{id:{DORA}}}?said=saved"), who=CHIEF),
    Shown(f"{PEOPLE}/x", "left, to an editor", at(f"{PEOPLE}/{{id:{BEN}}}"), who=ED),
    Shown(f"{PEOPLE}/x", "suppressed", at(f"{PEOPLE}/{{id:{CLEO}}}"), who=CHIEF),
    Shown(f"{PEOPLE}/x", "long names", at(f"{PEOPLE}/{{id:{LONG_ADDRESS}}}"), who=CHIEF),
    Shown(f"{PEOPLE}/x", "in Arabic", at(f"{PEOPLE}/{{id:{ARABIC}}}"), who=CHIEF),
    Shown(f"{PEOPLE}/x", "not erased", typed(f"{PEOPLE}/{{id:{ADA}}}", "Erase", typed="x"), 422, who=CHIEF),
    Shown(f"{PEOPLE}/x", "nobody", at(f"{PEOPLE}/999"), 404, who=CHIEF),
    Shown(f"{PEOPLE}/import", "form", at(f"{PEOPLE}/import"), who=CHIEF),
    Shown(f"{PEOPLE}/import/x", "looked at", brought(GOOD_FILE), who=CHIEF),
    Shown(f"{PEOPLE}/import/x", "not a roll", brought("a,b\n1,2\n"), who=CHIEF),
    Shown(f"{PEOPLE}/import/x", "done", then(brought(GOOD_FILE), press("Bring them in"), shows(".done")), 200, "own", CHIEF),
    Shown(f"{PEOPLE}/import/x", "unknown", at(f"{PEOPLE}/import/unheard-of"), 404, who=CHIEF),
    Shown(DESK, "goes on to the next slot", at(DESK), who=CHIEF),
    Shown(f"{DESK}/x", "a thin week", at(NEXT), who=CHIEF),
    Shown(f"{DESK}/x", "nothing", at(SENT), 200, "empty", CHIEF),
    Shown(f"{DESK}/x", "a week", at(NEXT), 200, "busy", CHIEF),
    Shown(f"{DESK}/x", "as long as can be", then(edits(lengthen), at(NEXT)), 200, "desk", CHIEF),
    Shown(f"{DESK}/x", "approved", then(decides(route.approve), at(f"{NEXT}?done=1")), 200, "desk", CHIEF),
    Shown(f"{DESK}/x", "held", then(decides(gate.hold, "The lawyers read it"), at(NEXT)), 200, "desk", CHIEF),
    Shown(f"{DESK}/x", "skipped", then(decides(gate.skip), at(NEXT)), 200, "desk", CHIEF),
    Shown(f"{DESK}/x", "missed", then(missed, at(NEXT)), 200, "desk", CHIEF),
    Shown(f"{DESK}/x", "sent", at(SENT), who=CHIEF),
    Shown(f"{DESK}/x", "sending", then(stands(IssueState.SENDING, pending=1), at(NEXT)), 200, "desk", CHIEF),
    Shown(f"{DESK}/x", "paused", then(stands(IssueState.PAUSED, "too busy", pending=1), at(NEXT)), 200, "desk", CHIEF),
    Shown(f"{DESK}/x", "needs a decision", then(stands(IssueState.NEEDS_DECISION, unknown=1), at(NEXT)), 200, "desk", CHIEF),
    Shown(f"{DESK}/x", "twice at once", then(at(NEXT), clashes), 409, "desk", CHIEF),
    Shown(f"{DESK}/x", "by each reader's hour", at(NEXT), 200, "timed", CHIEF),
    Shown("/newsroom", "by each reader's hour", at("/newsroom"), 200, "timed", CHIEF),
    Shown("/newsroom", "moved", then(moves, at("/newsroom")), 200, "own", CHIEF),
    Shown(f"{DESK}/x", "changed meanwhile", then(at(NEXT), spoil("[data-digest]"), press("Approve")), 409, "desk", CHIEF),
    Shown(f"{DESK}/x", "a page that is none", then(at(NEXT), adds("https://127.0.0.1/")), 422, "desk", CHIEF),
    Shown(f"{DESK}/x", "no slot", at(f"{DESK}/2026-11-28"), 404, who=CHIEF),
    Shown(f"{DESK}/x/issue", "draft", at(f"{NEXT}/issue"), 200, "busy", CHIEF, sealed=True),
    Shown(SLOTS, "eight", at(SLOTS), who=CHIEF),
    Shown(SLOTS, "before the first issue", at(SLOTS), 200, "empty", CHIEF),
]  # fmt: skip
PREVIEWED = [
    Shown("/", "wide", at("/")),
    Shown("/", "text", at("/?part=text")),
    Shown("/", "narrow and dark, with findings", at("/?width=narrow&scheme=dark"), house="thin"),
    Shown("/", "something to mend", at("/"), 500, "broken"),
    Shown("/issue.html", "as sent", at("/issue.html"), sealed=True),
]


def found_on(visit: Visit) -> list[str]:
    """All that is wrong with a page, in every view."""
    page, found = visit.page, []
    page.evaluate(AXE.read_text("utf-8"))
    for width, scheme in VIEWS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        report = page.evaluate(RUN_AXE, WCAG)
        sideways = page.evaluate(WIDEST.read_text("utf-8"))
        texts = [*axe_texts(report["violations"]), *([sideways] if sideways else [])]
        found += [f"{width} {scheme}: {text}" for text in texts]
    return found


def keep_pictures(visit: Visit, name: str) -> None:
    folder = os.environ.get("FRIDAY_SHOTS")
    for width, scheme in VIEWS if folder else ():
        visit.page.set_viewport_size({"width": width, "height": 900})
        visit.page.emulate_media(color_scheme=scheme)
        file = "".join(char if char.isalnum() else "-" for char in name).strip("-")
        visit.page.screenshot(path=Path(folder or "", f"{file}-{width}-{scheme}.png"), full_page=True)


def look_at(visit: Visit, shown: Shown, name: str) -> None:
    """Reach a state, and find nothing wrong with it."""
    shown.go(visit)
    assert visit.status == shown.status
    keep_pictures(visit, name)
    if not shown.sealed:
        assert found_on(visit) == []
        return
    browser = visit.page.context.browser
    assert browser
    with visiting(browser, visit.house, bypass_csp=True) as unsealed:
        shown.go(unsealed)
        assert found_on(unsealed) == []


def settle(house: House) -> None:
    """People of every kind, one of whom signed up and paused, and an issue that is out."""
    settle_people(house)
    world = house.world
    newsroom, now = world.newsroom, world.clock()
    proof = Proof("203.0.113.0/24", "Browser/1")
    admit.keep(newsroom, Asked(roll.normalise(DORA), "page", admit.wording(newsroom), proof, topics=("policy",)))
    admit.admit_all(newsroom)
    admit.confirm(newsroom, newsroom.keys.sign("confirm", 1), proof)
    with world.database.write() as session:
        dora = roll.by_key(session, DORA)
        assert dora
        wishes = Wishes(frozenset({"policy"}), "Asia/Tokyo", "de", now + timedelta(weeks=4))
        preferences.keep(session, dora, wishes, frozenset(newsroom.config.topics), now)
    world.tell_a_week()
    route.publish(newsroom, world.slot)
    house.mails()


def have_a_week(house: House) -> None:
    """A week of stories before the next slot."""
    settle_people(house)
    world = house.world
    world.clock.at = FRIDAY + timedelta(days=6)
    world.tell_a_week(7, FRIDAY + timedelta(days=7))


def have_hours(house: House) -> None:
    """A week of stories before a slot that opens for each reader by their own hour."""
    have_a_week(house)
    house.world.newsroom = by_reader_time(house.world.newsroom)
    house.app = public_app(house.world.newsroom, CHEAP)


def crowd(house: House) -> None:
    settle_people(house)
    house.world.subscribe(*(f"reader{number:03}" for number in range(60)))


FURNISHED: dict[str, Callable[[House], None]] = {
    "empty": lambda _house: None, "crowded": crowd, "own": settle_people, "full": settle, "busy": have_a_week,
    "desk": have_a_week, "timed": have_hours,
}  # fmt: skip
NEW = ("own", "desk")


@dataclass
class Town:
    """Houses by their names, each furnished when somebody first goes there, and who is there already."""

    road: Street
    chromium: Browser
    folder: Callable[[str], Path]
    empty: bytes
    houses: dict[str, House] = field(default_factory=dict)
    there: dict[tuple[str, str], Visit] = field(default_factory=dict)
    open_ones: ExitStack = field(default_factory=ExitStack)

    def house(self, name: str) -> House:
        """A house that states share, or with the name `own` or `desk` a new one."""
        if name in NEW or name not in self.houses:
            made = build_house(self.folder(name), self.empty, f"https://{name}.example.com")
            FURNISHED[name](made)
            self.road.homes[f"{name}.example.com"] = made.app
            self.houses[name] = made
        return self.houses[name]

    @contextmanager
    def visiting(self, shown: Shown) -> Iterator[Visit]:
        """Somebody at the house of a state, signed in if it is for those who are."""
        house, key = self.house(shown.house), (shown.house, shown.who)
        if shown.house in NEW or key not in self.there:
            self.there[key] = self.open_ones.enter_context(visiting(self.chromium, house))
            if shown.who:
                self.there[key].sign_in(shown.who)
        yield self.there[key]
        if shown.house in NEW:
            # It may look for news, and there is another house under its name before long.
            self.there[key].page.goto("about:blank")
        self.there[key].has_nothing_to_complain_of()


@pytest.fixture(scope="session")
def town(road: Street, chromium: Browser, tmp_path_factory: pytest.TempPathFactory, empty: bytes) -> Iterator[Town]:
    made = Town(road, chromium, tmp_path_factory.mktemp, empty)
    with made.open_ones:
        yield made
    for each in made.houses.values():
        each.world.database.engine.dispose()


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_the_page_shuts_nobody_out(shown: Shown, town: Town) -> None:
    with town.visiting(shown) as visit:
        look_at(visit, shown, str(shown))


@pytest.mark.parametrize("shown", PREVIEWED, ids=str)
def test_the_preview_shuts_nobody_out(shown: Shown, chromium: Browser, tmp_path: Path, empty: bytes) -> None:
    house = build_house(tmp_path, empty)
    world, newsroom = house.world, house.world.newsroom
    world.tell_a_week(1 if shown.house == "thin" else 6)
    if shown.house == "broken":
        shutil.copytree(ROOT / "templates", tmp_path / "templates")
        with (tmp_path / "templates/issue/weekly/issue.html").open("a") as file:
            file.write("{{ nothing_of_that_name }}")
        newsroom = replace(newsroom, config=replace(newsroom.config, templates=tmp_path / "templates"))
    stopping = threading.Event()
    with serving(preview_app(newsroom, world.slot, stopping), stopping) as house.url, visiting(chromium, house) as visit:
        look_at(visit, shown, f"preview {shown}")
    world.database.engine.dispose()


def test_an_import_under_way_shuts_nobody_out(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(f"{PEOPLE}/import/x", "under way", brought(GOOD_FILE, "progress"), who=CHIEF)
    with slow_import(monkeypatch), town.visiting(shown) as visit:
        look_at(visit, shown, str(shown))
        visit.sees("400 of 1,000 lines")


def test_every_page_that_there_is_has_been_looked_at(town: Town) -> None:
    newsroom = town.house("empty").world.newsroom
    stopping = threading.Event()
    slot = newsroom.schedule.current(newsroom.now())
    apps = {"public": (town.house("empty").app, SHOWN), "preview": (preview_app(newsroom, slot, stopping), PREVIEWED)}
    for name, (app, states) in apps.items():
        answered = {path for method, path in every_route(app) if method == "GET"}
        assert answered - NOT_PAGES == {shown.route for shown in states}, name


def test_a_bad_page_is_found_bad(road: Street, town: Town) -> None:
    bad = BAD.read_text("utf-8").replace("360px", "1360px").replace("</body>", "<script src=/none.js></script>")
    complains = pytest.raises(AssertionError, match=r"none\.js: .* 404")
    with road.home(BLOG, plain_page(bad)), complains, visiting(town.chromium, town.house("empty")) as visit:
        found = found_on(visit.go(BLOG))
    assert {each.split(": ")[1] for each in found if each.startswith("390 dark")} >= {"color-contrast", "image-alt"}
    assert any("px too wide" in each for each in found)
