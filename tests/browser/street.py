"""Newsrooms as a browser reaches them: by their own names, over TLS, on one port; and what it saw there."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Literal

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Response, expect
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline import admit, mail
from pipeline.config import Secrets
from pipeline.providers.outbox import Options, build
from subscribers import exchange, labels, roll
from subscribers.models import LabelKind, Subscriber, Why
from tests.conftest import World, build_world
from tests.serving import serving
from tests.sink import CERTIFICATE
from tests.test_door import furnish
from tests.test_staff import CHEAP, CHIEF, GOOD

OURS = "https://news.example.com"
BLOG = "https://blog.example.net"
LANGUAGES = {"en": "English", "de": "Deutsch"}
TOPICS = {"policy": "Policy and law", "chips": "Chips"}
LONG_NAME = "Wolfeschlegelsteinhausenbergerdorff-" * 3 + "Montgomery X"
LONG_ADDRESS = f"{'x' * 60}@{'very-long-name.' * 10}example.com"
ARABIC_NAME = ("مرحبا بالعالم العربي الجميل " * 5)[:119] + "ا"
_ANSWERED = re.compile(r"Failed to load resource: the server responded with a status of (\d+) .*")

Scheme = Literal["light", "dark"]


class Street:
    """An app that hands each request to the app that lives under its name, as a proxy in front of several does."""

    def __init__(self) -> None:
        self.homes: dict[str, ASGIApp] = {}
        self.port = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode()
            await self.homes.get(host, PlainTextResponse("nobody lives here", 404))(scope, receive, send)

    @contextmanager
    def home(self, url: str, app: ASGIApp) -> Iterator[str]:
        """Let an app live under a name."""
        name = url.removeprefix("https://")
        self.homes[name] = app
        try:
            yield url
        finally:
            del self.homes[name]

    @property
    def arguments(self) -> list[str]:
        """What makes Chromium find these names, and nothing else of the world."""
        here = f"127.0.0.1:{self.port}"
        rules = f"MAP *.example.com {here},MAP *.example.net {here},MAP * ~NOTFOUND,EXCLUDE 127.0.0.1,EXCLUDE localhost"
        return ["--no-sandbox", f"--host-resolver-rules={rules}"]


@contextmanager
def street() -> Iterator[Street]:
    """A street with nobody in it, over TLS."""
    made = Street()
    pem = str(CERTIFICATE)
    with serving(made, ssl_certfile=pem, ssl_keyfile=pem) as url:
        made.port = int(url.rpartition(":")[2])
        yield made


@dataclass
class House:
    """A newsroom whose mails fall into an outbox, with topics and languages, and the app that serves it."""

    world: World
    app: FastAPI
    url: str = OURS
    _read: set[Path] = field(default_factory=set)

    def wait(self, seconds: float = 3) -> None:
        """Let time pass on the house's clock: a person takes a while to fill in a form."""
        self.world.clock.wait(seconds)

    def mails(self) -> list[EmailMessage]:
        """What the clock of `friday serve` would do now; the mails that fell into the outbox since the last time."""
        admit.admit_all(self.world.newsroom)
        mail.send_due(self.world.newsroom)
        return self.unread()

    def unread(self) -> list[EmailMessage]:
        """The mails that fell into the outbox since the last time."""
        new = sorted(set(self.world.folder.glob("outbox/**/*.eml")) - self._read)
        self._read |= set(new)
        read = [BytesParser(policy=policy.default).parsebytes(each.read_bytes()) for each in new]
        return [each for each in read if isinstance(each, EmailMessage)]

    def person(self, key: str) -> Subscriber | None:
        with self.world.database.read() as session:
            return roll.by_key(session, key)

    def marks(self, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The topics and tags of somebody."""
        found = self.person(key)
        assert found
        with self.world.database.read() as session:
            of = labels.of(session, [found.id or 0])[found.id or 0]
        return tuple(of.topics), tuple(of.tags)


def link_in(message: EmailMessage, kind: str) -> str:
    """The link of a mail that leads to one of our pages, as a reader of its text would click on it."""
    text = message.get_body(("plain",))
    assert text
    (link,) = set(re.findall(rf"\bhttps?://\S+/{kind}/[\w.=-]+", text.get_content()))
    return str(link)


def build_house(folder: Path, empty: bytes, url: str = OURS) -> House:
    """A newsroom in a folder, without people."""
    (folder / "friday.db").write_bytes(empty)
    world = build_world(folder, f"sqlite:///{folder}/friday.db")
    config = world.newsroom.config
    own = config.newsletter.model_copy(update={"base_url": url})
    world.newsroom = replace(
        world.newsroom,
        config=replace(config, newsletter=own, languages=LANGUAGES, topics=TOPICS),
        provider=build(Options(name="outbox", path=folder / "outbox"), Secrets({}), folder),
    )
    assert world.newsroom.keys
    return House(world, furnish(world, CHEAP).app, url)


def settle_people(house: House) -> None:
    """Three people and two that are hard to show: with long names, in Arabic, suppressed, left."""
    world, now = house.world, house.world.clock()
    people = [
        ("ada@example.com", "Ada Lovelace"), ("ben@example.com", "Ben"), ("cleo@example.org", ""),
        (LONG_ADDRESS, LONG_NAME), ("arabic@example.com", ARABIC_NAME),
    ]  # fmt: skip
    with world.database.write() as session:
        ids = [roll.add(session, address, now, name).subscriber.id or 0 for address, name in people]
        labels.add(session, [ids[0], *ids[3:]], LabelKind.TAG, "vip", "us", now)
        labels.put(session, ids[0], LabelKind.TOPIC, ["policy", "chips"], "us", now)
        roll.unsubscribe(session, "ben@example.com", now)
        roll.suppress(session, "cleo@example.org", Why.BOUNCE, now, "550 5.1.1 no such user")


@contextmanager
def slow_import(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Imports stop after 400 of 1,000 lines, until the event is set."""
    goes_on, whole = threading.Event(), exchange.import_file

    def import_file(*about: Any, progress: Callable[[int, int], None], **more: Any) -> exchange.Imported:
        progress(400, 1_000)
        goes_on.wait(60)
        return whole(*about, progress=progress, **more)

    monkeypatch.setattr(exchange, "import_file", import_file)
    try:
        yield goes_on
    finally:
        goes_on.set()


@dataclass
class Visit:
    """A page in a browser of its own, and whatever that browser complained of.

    `status` is that of the page. Chromium calls one from 400 on an error, which for a page it need not be.
    """

    page: Page
    house: House
    scripts: bool = True
    complaints: list[str] = field(default_factory=list)
    status: int = 0
    pages: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("response", self._answer)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self._missed(request.url, request.failure))

    def _answer(self, response: Response) -> None:
        if response.request.is_navigation_request() and response.frame == self.page.main_frame:
            self.status = response.status
            self.pages.add((response.url, response.status))

    def _hear(self, message: ConsoleMessage) -> None:
        url, answered = str(message.location.get("url")), _ANSWERED.fullmatch(message.text)
        of_a_page = answered and (url, int(answered[1])) in self.pages
        # An issue names no icon, since a mail has none, and Chromium then looks for one by itself.
        if message.type in {"error", "warning"} and not of_a_page and not url.endswith("/favicon.ico"):
            self.complaints.append(f"{url}: {message.text}")

    def _missed(self, url: str, why: str | None) -> None:
        # A download, and a page that is left before it is whole, are aborted by the browser itself.
        if why != "net::ERR_ABORTED":
            self.complaints.append(f"{url}: {why}")

    def has_nothing_to_complain_of(self) -> None:
        """See that the browser had nothing to say against what it was shown."""
        said, self.complaints[:] = "\n".join(self.complaints), []
        assert not said, said

    def forgives(self, *texts: str) -> None:
        """Take back those complaints that a test has asked for."""
        self.complaints[:] = [each for each in self.complaints if not any(text in each for text in texts)]

    def go(self, path: str) -> "Visit":
        """Open a page of the house, or a whole address."""
        self.page.goto(path if path.startswith("http") else self.house.url + path)
        return self

    def field(self, label: str) -> Locator:
        return self.page.get_by_label(label, exact=True)

    def fill(self, **values: str) -> "Visit":
        """Fill in fields by their names."""
        for name, value in values.items():
            self.page.locator(f"[name={name}]").fill(value)
        return self

    def press(self, name: str) -> "Visit":
        """Press a button, and wait for the page behind it."""
        with self.page.expect_navigation():
            self.page.get_by_role("button", name=name, exact=True).click()
        return self

    def follow(self, name: str) -> "Visit":
        """Click on a link, and wait for the page behind it."""
        with self.page.expect_navigation():
            self.page.get_by_role("link", name=name, exact=True).first.click()
        return self

    def sees(self, text: str) -> "Visit":
        """Wait until a text can be seen."""
        expect(self.page.get_by_text(text).first).to_be_visible()
        return self

    def reads(self, title: str) -> "Visit":
        """Wait until the page has this heading."""
        expect(self.page.get_by_role("heading", level=1)).to_have_text(title)
        return self

    def sign_in(self, address: str = CHIEF, password: str = GOOD) -> "Visit":
        return self.go("/newsroom/sign-in").fill(address=address, password=password).press("Sign in").sees("The next issue")

    def tab_to(self, wanted: Locator) -> "Visit":
        """Go there by the keyboard alone, seeing on the way where one is."""
        for _ in range(60):
            self.page.keyboard.press("Tab")
            assert self.page.evaluate(SHOWS_FOCUS), self.page.evaluate("document.activeElement.outerHTML")
            if wanted.evaluate("element => element === document.activeElement"):
                return self
        raise AssertionError(f"no way by Tab to {wanted}")


SHOWS_FOCUS = """() => {
  const at = document.activeElement, style = getComputedStyle(at);
  const box = at.getBoundingClientRect();
  return at.matches(':focus-visible') && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1
    && box.width > 0 && box.left >= 0 && box.right <= innerWidth + 1;
}"""


@contextmanager
def visiting(browser: Browser, house: House, *, scripts: bool = True, **more: Any) -> Iterator[Visit]:
    """Somebody with a browser of their own, who must have nothing to complain of at the end."""
    context: BrowserContext = browser.new_context(java_script_enabled=scripts, ignore_https_errors=True, **more)
    context.set_default_timeout(10_000)
    visit = Visit(context.new_page(), house, scripts)
    try:
        yield visit
    finally:
        context.close()
    visit.has_nothing_to_complain_of()


def plain_page(html: str) -> ASGIApp:
    """A site that consists of one page, which is not ours."""
    app = FastAPI()

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(html)

    return app
