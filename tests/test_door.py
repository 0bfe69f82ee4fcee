"""The door of the newsroom: nobody gets behind it without a session, and nothing is done that another site asked for."""

import logging
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated

import pytest
import requests
from fastapi import Depends, FastAPI, Form, Request, UploadFile
from fastapi.responses import PlainTextResponse
from fastapi.routing import iter_route_contexts
from sqlmodel import select
from starlette.routing import Mount, Route

from pipeline import publish as route
from pipeline import staff
from pipeline.staff import Guest, Passwords, Role
from pipeline.web.client import Network, client_address, network_of
from pipeline.web.door import Here, require, token_of
from pipeline.web.guard import WITHOUT_TOKEN
from pipeline.web.newsroom import add_newsroom
from pipeline.web.pages import make_app
from pipeline.web.public import public_app
from pipeline.web.throttle import Throttle
from tests.conftest import World
from tests.serving import serving
from tests.test_staff import CHEAP, CHIEF, GOOD, OTHER, TITLE, hashing

WRONG = "no such password here"
ED = "ed@news.example.com"
PUBLIC = "https://news.example.com"
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
SIGN_IN = "/newsroom/sign-in"


@dataclass
class House:
    """A newsroom with an owner and an editor, and an app that is not served yet."""

    world: World
    app: FastAPI
    acts: list[str] = field(default_factory=list)


@dataclass
class Browser:
    """Somebody at a browser that tells where a form comes from, as all of them do."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.url + path, headers=headers, timeout=60, allow_redirects=False)

    def token(self, path: str = "/newsroom") -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.get(path).text)
        assert found
        return found.group(1)

    def post(self, path: str, form: Mapping[str, str] | None = None, **headers: str) -> requests.Response:
        sent = {"Origin": self.url, "Sec-Fetch-Site": "same-origin", **headers}
        sent = {name: value for name, value in sent.items() if value}
        return self.session.post(self.url + path, data=form, headers=sent, timeout=60, allow_redirects=False)

    def try_to_sign_in(self, address: str = CHIEF, password: str = GOOD, **headers: str) -> requests.Response:
        form = {"csrf": self.token(SIGN_IN), "address": address, "password": password}
        return self.post(SIGN_IN, form, **headers)

    def sign_in(self, address: str = CHIEF, password: str = GOOD) -> "Browser":
        assert self.try_to_sign_in(address, password).status_code == 303
        return self

    @property
    def cookie(self) -> str:
        return self.session.cookies["friday"]

    @property
    def is_in(self) -> bool:
        return self.get("/newsroom").status_code == 200


def furnish(world: World, passwords: Passwords = CHEAP, proxies: tuple[Network, ...] = ()) -> House:
    web = world.newsroom.config.web.model_copy(update={"trusted_proxies": proxies})
    newsroom = replace(world.newsroom, config=replace(world.newsroom.config, web=web))
    with newsroom.database.write() as session:
        for address, role in ((CHIEF, Role.OWNER), (ED, Role.EDITOR)):
            staff.add(session, address, passwords.choose(GOOD, address, TITLE), role, newsroom.now())
    return House(world, public_app(newsroom, passwords))


@pytest.fixture
def house(local_world: World) -> House:
    return furnish(local_world)


@pytest.fixture
def url(house: House) -> Iterator[str]:
    """Where the house is served, with routes in it whose makers thought of nothing."""

    @house.app.post("/newsroom/forgetful")
    def act(what: Annotated[str, Form()] = "") -> PlainTextResponse:
        house.acts.append(what)
        return PlainTextResponse("done")

    @house.app.post("/forgetful")
    def act_in_public() -> PlainTextResponse:
        house.acts.append("public")
        return PlainTextResponse("done")

    @house.app.get("/newsroom/owners")
    def owners(guest: Annotated[Guest, Depends(require(Role.OWNER))]) -> PlainTextResponse:
        return PlainTextResponse(guest.admin.address)

    @house.app.get("/newsroom/all")
    def for_all(guest: Here) -> PlainTextResponse:
        return PlainTextResponse(guest.admin.address)

    async def raw(request: Request) -> PlainTextResponse:
        house.acts.append(request.url.path)
        return PlainTextResponse("done")

    house.app.router.routes.append(Route("/newsroom/raw", raw, methods=["GET", "POST"]))
    house.app.router.routes.append(Mount("/newsroom/mounted", routes=[Route("/inside", raw, methods=["GET", "POST"])]))
    with serving(house.app) as served:
        yield served


@pytest.fixture
def browser(url: str) -> Browser:
    return Browser(url)


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path that the app answers to, whoever added it, mounted ones too."""
    found = []
    for each in iter_route_contexts(app.routes):
        path = re.sub(r"\{[^}]*\}", "x", getattr(each, "path", "") or "")
        for inner in getattr(each, "routes", None) or ():
            found += [(method, path + inner.path) for method in inner.methods]
        found += [(method, path) for method in getattr(each, "methods", None) or ()]
    return found


def test_without_a_session_every_route_of_the_newsroom_refuses(house: House, browser: Browser) -> None:
    inside = [(method, path) for method, path in every_route(house.app) if path.startswith("/newsroom/") or path == "/newsroom"]
    assert {"/newsroom", "/newsroom/account", "/newsroom/forgetful", "/newsroom/raw", "/newsroom/mounted/inside"} <= {
        path for _, path in inside
    }
    for method, path in inside:
        if path == SIGN_IN:
            continue
        answer = browser.session.request(method, browser.url + path, timeout=60, allow_redirects=False)
        if method in {"GET", "HEAD"}:
            assert answer.status_code == 303, (method, path)
            assert answer.headers["Location"].startswith(SIGN_IN), path
            assert browser.get(path, Accept="application/json").status_code == 401, path
        else:
            assert answer.status_code == 401, (method, path)
    assert house.acts == []


def test_without_a_token_every_unsafe_route_refuses(house: House, browser: Browser) -> None:
    browser.sign_in()
    headers = {"Origin": browser.url, "Sec-Fetch-Site": "same-origin"}
    walked = 0
    for path in {path for _, path in every_route(house.app)} | {"/newsroom/nothing", "/nothing"}:
        if any(path == each or path.startswith(each + "/") for each in WITHOUT_TOKEN):
            continue
        for method in UNSAFE:
            for wrong in ({}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": "é"}):
                sent = {**headers, **{name: value.encode().decode("latin-1") for name, value in wrong.items()}}
                answer = browser.session.request(
                    method, browser.url + path, headers=sent, data={"csrf": "x"}, timeout=60, allow_redirects=False
                )
                assert answer.status_code == 403, (method, path, wrong)
                walked += 1
    assert walked > 100
    assert house.acts == []
    assert browser.is_in


def test_what_needs_no_token_is_reached_without_one(browser: Browser) -> None:
    for path, status in (("/u/rubbish", 404), ("/hooks/nobody", 401)):
        assert requests.post(browser.url + path, timeout=60).status_code == status


def test_with_session_and_token_a_form_is_done(house: House, browser: Browser) -> None:
    token = browser.sign_in().token()
    assert browser.post("/newsroom/forgetful", {"what": "ü", "csrf": token}).text == "done"
    assert browser.post("/newsroom/forgetful", {"what": "by header"}, **{"X-CSRF-Token": token}).text == "done"
    assert house.acts == ["ü", "by header"]


FROM_ELSEWHERE = [
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": ""},
    {"Origin": "null", "Sec-Fetch-Site": ""},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": ""},
    {"Origin": PUBLIC, "Sec-Fetch-Site": ""},
    {"Origin": "", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "", "Sec-Fetch-Site": ""},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
]


def test_what_another_site_sends_is_refused_though_it_carries_cookie_and_token(house: House, browser: Browser) -> None:
    token = browser.sign_in().token()
    for said in FROM_ELSEWHERE:
        for path in ("/newsroom/forgetful", "/newsroom/sign-out"):
            assert browser.post(path, {"csrf": token}, **said).status_code == 403, said
    assert house.acts == []
    assert browser.is_in


def test_a_browser_that_says_one_of_both_is_believed(house: House, browser: Browser) -> None:
    token = browser.sign_in().token()
    for said in ({"Origin": ""}, {"Sec-Fetch-Site": ""}):
        assert browser.post("/newsroom/forgetful", {"csrf": token}, **said).text == "done"
    assert house.acts == ["", ""]


def test_the_token_of_one_session_is_worth_nothing_in_another(url: str, house: House) -> None:
    chief, ed = Browser(url).sign_in(), Browser(url).sign_in(ED)
    assert ed.post("/newsroom/forgetful", {"csrf": chief.token()}).status_code == 403
    assert house.acts == []


def test_nobody_is_signed_in_by_another_site(browser: Browser) -> None:
    form = {"address": CHIEF, "password": GOOD}
    assert browser.post(SIGN_IN, form).status_code == 403
    assert browser.try_to_sign_in(Origin="https://evil.example", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    stranger = Browser(browser.url)
    assert stranger.post(SIGN_IN, {**form, "csrf": browser.token(SIGN_IN)}).status_code == 403
    assert not browser.is_in


def test_signing_in_leads_to_where_one_wanted_to_go(browser: Browser) -> None:
    answer = browser.get("/newsroom/account")
    assert answer.headers["Location"] == "/newsroom/sign-in?to=/newsroom/account"
    page = browser.get(answer.headers["Location"]).text
    assert 'name="to" value="/newsroom/account"' in page
    form = {"csrf": browser.token(SIGN_IN), "address": CHIEF, "password": GOOD, "to": "/newsroom/account"}
    assert browser.post(SIGN_IN, form).headers["Location"] == "/newsroom/account"
    assert browser.get("/newsroom/account").status_code == 200
    assert browser.get(SIGN_IN).headers["Location"] == "/newsroom"


def test_signing_in_leads_nowhere_else(url: str) -> None:
    evil = (
        "//evil.example",
        "https://evil.example",
        "/newsroom//evil.example",
        "/newsroom\\evil",
        "/newsroom?to=//evil.example",
    )
    for to in (*evil, "/newsroom/../u/x", "/newsroom\n", "/newsroomer", SIGN_IN, ""):
        browser = Browser(url)
        form = {"csrf": browser.token(SIGN_IN), "address": CHIEF, "password": GOOD, "to": to}
        assert browser.post(SIGN_IN, form).headers["Location"] == "/newsroom", to


def test_a_wrong_password_and_an_unknown_address_are_told_the_same(browser: Browser) -> None:
    answers = [browser.try_to_sign_in(address, OTHER) for address in (CHIEF, "nobody@news.example.com")]
    assert [answer.status_code for answer in answers] == [401, 401]
    wrong, unknown = (answer.text.replace(CHIEF, "X").replace("nobody@news.example.com", "X") for answer in answers)
    assert wrong == unknown
    assert "The address or the password is wrong." in wrong
    assert not browser.is_in


def test_the_cookie_is_bound_to_host_and_tls_and_kept_from_scripts(browser: Browser) -> None:
    asked = browser.get(SIGN_IN, Host="news.example.com")
    knock = asked.headers["Set-Cookie"]
    assert re.fullmatch(r"__Host-friday-door=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", knock)
    token = re.search(r'name="csrf" value="(\w+)"', asked.text)
    assert token
    form = {"csrf": token.group(1), "address": CHIEF, "password": GOOD}
    over_tls = {"Host": "news.example.com", "Origin": PUBLIC, "Cookie": knock.partition(";")[0]}
    came = Browser(browser.url).post(SIGN_IN, form, **over_tls)
    assert came.status_code == 303
    (cookie,) = (each for each in came.raw.headers.getlist("Set-Cookie") if each.startswith("__Host-friday="))
    assert re.fullmatch(r"__Host-friday=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", cookie)
    secret = cookie.partition(";")[0]
    assert Browser(browser.url).get("/newsroom", Host="news.example.com", Cookie=secret).status_code == 200
    # A name without the prefix could have been set by a sibling of the host.
    plain = secret.removeprefix("__Host-")
    assert Browser(browser.url).get("/newsroom", Host="news.example.com", Cookie=plain).status_code == 303


def test_in_the_clear_on_this_machine_the_cookie_has_no_prefix_and_is_kept_from_scripts_too(browser: Browser) -> None:
    answer = browser.try_to_sign_in()
    (cookie,) = (each for each in answer.raw.headers.getlist("Set-Cookie") if each.startswith("friday="))
    assert re.fullmatch(r"friday=[\w-]{43}; HttpOnly; Path=/; SameSite=lax", cookie)


def test_a_new_session_begins_at_each_sign_in_and_the_old_one_is_over(browser: Browser) -> None:
    first = browser.sign_in().cookie
    again = Browser(browser.url)
    again.session.cookies.set("friday", first)
    token = Browser(browser.url)
    form = {"csrf": token.token(SIGN_IN), "address": CHIEF, "password": GOOD}
    knock = token.session.cookies["friday-door"]
    answer = again.post(SIGN_IN, form, Cookie=f"friday={first}; friday-door={knock}")
    assert answer.status_code == 303
    assert answer.cookies["friday"] != first
    assert not browser.is_in


def test_a_session_that_a_stranger_made_up_is_none(house: House, browser: Browser) -> None:
    secret = browser.sign_in().cookie
    with house.world.database.read() as session:
        (digest,) = session.exec(select(staff.SessionRow.digest)).all()
    for made_up in (digest, "x", secret[:-1], "\udcff".encode(errors="replace").decode(), token_of(secret)):
        assert Browser(browser.url).get("/newsroom", Cookie=f"friday={made_up}").status_code == 303


def test_signing_out_ends_the_session_itself(browser: Browser) -> None:
    cookie = browser.sign_in().cookie
    answer = browser.post("/newsroom/sign-out", {"csrf": browser.token()})
    assert (answer.status_code, answer.headers["Location"]) == (303, SIGN_IN)
    assert "friday" not in browser.session.cookies
    assert browser.get("/newsroom", Cookie=f"friday={cookie}").status_code == 303


def test_another_password_ends_the_other_sessions_and_gives_this_browser_a_new_one(url: str) -> None:
    here, elsewhere = Browser(url).sign_in(), Browser(url).sign_in()
    before = here.cookie
    form = {"csrf": here.token(), "current": GOOD, "new": OTHER, "again": OTHER}
    assert here.post("/newsroom/account", form).headers["Location"] == "/newsroom/account?done=1"
    assert here.cookie != before
    assert "Your password is changed" in here.get("/newsroom/account?done=1").text
    assert not elsewhere.is_in
    assert Browser(url).get("/newsroom", Cookie=f"friday={before}").status_code == 303
    assert Browser(url).try_to_sign_in().status_code == 401
    Browser(url).sign_in(CHIEF, OTHER)


NO_GOOD = [
    ({"current": OTHER, "new": OTHER, "again": OTHER}, 401, "The current password is wrong."),
    ({"current": GOOD, "new": OTHER, "again": OTHER + "s"}, 422, "not typed the same twice"),
    ({"current": GOOD, "new": "short", "again": "short"}, 422, "too short"),
    ({"current": GOOD, "new": f"i am {CHIEF}", "again": f"i am {CHIEF}"}, 422, "contains the mail address"),
]


def test_a_password_is_not_changed_to_what_is_no_good(browser: Browser) -> None:
    browser.sign_in()
    for form, status, says in NO_GOOD:
        answer = browser.post("/newsroom/account", {"csrf": browser.token(), **form})
        assert answer.status_code == status
        assert says in answer.text
        assert not any(password in answer.text for password in (GOOD, OTHER))
    assert browser.is_in
    Browser(browser.url).sign_in()


def test_a_session_is_over_twelve_hours_after_it_was_used_and_seven_days_after_it_began(house: House, browser: Browser) -> None:
    clock = house.world.clock
    browser.sign_in()
    clock.at += timedelta(hours=12)
    assert not browser.is_in
    browser.sign_in()
    for _ in range(20):
        clock.at += timedelta(hours=8)
        assert browser.is_in
    clock.at += timedelta(hours=8)
    assert not browser.is_in


def test_an_editor_is_kept_from_what_is_for_owners(url: str) -> None:
    assert Browser(url).sign_in().get("/newsroom/owners").text == CHIEF
    ed = Browser(url).sign_in(ED)
    assert ed.get("/newsroom/all").text == ED
    refused = ed.get("/newsroom/owners")
    assert refused.status_code == 403
    assert "For owners only" in refused.text


def test_the_sixth_wrong_password_of_an_account_is_not_tried_and_neither_is_the_right_one_then(browser: Browser) -> None:
    answers = [browser.try_to_sign_in(password=OTHER) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401] * 5
    for password in (OTHER, GOOD):
        sixth = browser.try_to_sign_in(" CHIEF@news.example.com", password)
        assert sixth.status_code == 429
        assert 800 < int(sixth.headers["Retry-After"]) <= 900
        assert "Too many passwords were wrong. Try again in 15 minutes." in sixth.text
    assert browser.sign_in(ED).is_in


def test_an_unknown_account_is_held_up_like_a_known_one(browser: Browser) -> None:
    answers = [browser.try_to_sign_in("nobody@news.example.com", OTHER).status_code for _ in range(6)]
    assert answers == [401] * 5 + [429]


def test_the_right_password_forgets_the_wrong_ones(browser: Browser) -> None:
    for _ in range(2):
        for _ in range(4):
            assert browser.try_to_sign_in(password=OTHER).status_code == 401
        Browser(browser.url).sign_in()


def test_wrong_passwords_at_once_are_counted_too(url: str) -> None:
    browsers = [Browser(url) for _ in range(12)]
    tokens = [browser.token(SIGN_IN) for browser in browsers]

    def guess(browser: Browser, token: str) -> int:
        return browser.post(SIGN_IN, {"csrf": token, "address": CHIEF, "password": OTHER}).status_code

    with ThreadPoolExecutor(12) as pool:
        answers = sorted(pool.map(guess, browsers, tokens))
    assert answers == [401] * 5 + [429] * 7


def test_the_current_password_cannot_be_found_by_trying_either(browser: Browser) -> None:
    form = {"csrf": browser.sign_in().token(), "current": OTHER, "new": OTHER, "again": OTHER}
    answers = [browser.post("/newsroom/account", form).status_code for _ in range(6)]
    assert answers == [401] * 5 + [429]


def wrong_ones(url: str, number: int, forwarded: Callable[[int], str]) -> list[int]:
    """So many wrong passwords, each of another account, as the header says from there."""
    browser = Browser(url)
    form = {"csrf": browser.token(SIGN_IN), "password": OTHER}
    answers = []
    for each in range(number):
        guess = {**form, "address": f"n{each}@news.example.com"}
        answers.append(browser.post(SIGN_IN, guess, **{"X-Forwarded-For": forwarded(each)}).status_code)
    return answers


def test_twenty_wrong_passwords_of_a_network_hold_it_up_and_no_other(local_world: World) -> None:
    house = furnish(local_world, proxies=(ip_network("127.0.0.0/8"),))
    with serving(house.app) as url:
        answers = wrong_ones(url, 21, lambda each: f"10.9.8.7, 203.0.113.{each}")
        assert answers == [401] * 20 + [429]
        assert Browser(url).try_to_sign_in(**{"X-Forwarded-For": "203.0.113.200"}).status_code == 429
        assert Browser(url).try_to_sign_in(**{"X-Forwarded-For": "203.0.112.1"}).status_code == 303


def test_what_a_peer_says_of_whom_it_forwards_is_not_believed_unless_it_is_a_proxy_of_ours(url: str) -> None:
    assert wrong_ones(url, 21, lambda each: f"203.0.{each}.1") == [401] * 20 + [429]


class Hours:
    """The time as the throttle sees it."""

    def __init__(self) -> None:
        self.passed = 0.0

    def time(self) -> float:
        return 1_800_000_000 + self.passed


def test_wrong_passwords_are_forgotten_after_a_quarter_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = Hours()
    for module in ("limits.storage.memory", "pipeline.web.throttle"):
        monkeypatch.setattr(f"{module}.time", hours)
    throttle = Throttle()
    for minute in range(5):
        hours.passed = minute * 60
        assert throttle.enter(CHIEF, "203.0.113.0/24") is None
    assert throttle.enter(CHIEF, "203.0.113.0/24") == 11 * 60
    assert throttle.enter(ED, "203.0.113.0/24") is None
    hours.passed = 15 * 60 + 1
    assert throttle.enter(CHIEF, "203.0.113.0/24") is None
    assert throttle.enter(CHIEF, "203.0.113.0/24") == 59


def test_an_unknown_address_is_answered_as_slowly_as_a_known_one(local_world: World) -> None:
    passwords = hashing(memory=16_384)
    house = furnish(local_world, passwords)
    taken: dict[str, list[float]] = {"known": [], "unknown": []}
    with house.world.database.write() as session:
        hashed = passwords.choose(GOOD, CHIEF, TITLE)
        for each in range(9):
            staff.add(session, f"known{each}@news.example.com", hashed, Role.EDITOR, house.world.clock())
    with serving(house.app) as url:
        browser = Browser(url)
        form = {"csrf": browser.token(SIGN_IN), "password": OTHER}
        for each in range(9):
            for kind, times in taken.items():
                began = time.process_time()
                assert browser.post(SIGN_IN, {**form, "address": f"{kind}{each}@news.example.com"}).status_code == 401
                times.append(time.process_time() - began)
    assert 0.8 < statistics.median(taken["unknown"]) / statistics.median(taken["known"]) < 1.25


def test_neither_passwords_nor_secrets_nor_addresses_reach_the_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    browser = Browser(url)
    browser.try_to_sign_in(CHIEF, WRONG)
    knock, first = browser.session.cookies["friday-door"], browser.sign_in().cookie
    token = browser.token()
    browser.post("/newsroom/account", {"csrf": token, "current": GOOD, "new": OTHER, "again": OTHER})
    second = browser.cookie
    browser.post("/newsroom/sign-out", {"csrf": browser.token()})
    for _ in range(6):
        browser.try_to_sign_in(ED, WRONG)
    assert "signed in" in caplog.text
    assert "too many wrong passwords for one account" in caplog.text
    for secret in (GOOD, OTHER, WRONG, knock, first, second, token, CHIEF, ED, "argon2"):
        assert secret not in caplog.text


def test_the_pages_of_the_newsroom_carry_the_headers_and_no_code(browser: Browser) -> None:
    pages = [browser.get(SIGN_IN), browser.try_to_sign_in(password=OTHER)]
    browser.sign_in()
    pages += [browser.get(path) for path in ("/newsroom", "/newsroom/account", "/newsroom/people/nobody", "/newsroom/owners")]
    pages.append(browser.post("/newsroom/account", {"csrf": "wrong"}))
    assert [page.status_code for page in pages] == [200, 401, 200, 200, 404, 200, 403]
    for page in pages:
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "same-origin"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert not re.search(r"<script|<style|style=|\son\w+=", page.text)
        assert page.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert browser.get("/newsroom.css").headers["Content-Type"].startswith("text/css")


def test_a_house_without_tls_does_not_ask_for_it(local_world: World) -> None:
    own = local_world.newsroom.config
    plain = replace(own, newsletter=own.newsletter.model_copy(update={"base_url": "http://localhost:8010"}))
    local_world.newsroom = replace(local_world.newsroom, config=plain)
    with serving(furnish(local_world).app) as url:
        browser = Browser(url.replace("127.0.0.1", "localhost"))
        assert "Strict-Transport-Security" not in browser.get(SIGN_IN).headers
        assert browser.sign_in().is_in


def test_what_is_missing_in_a_form_is_named_and_nothing_of_it_repeated(browser: Browser) -> None:
    answer = browser.post(SIGN_IN, {"csrf": browser.token(SIGN_IN), "address": "a" * 321, "password": GOOD})
    assert answer.status_code == 422
    assert "expected: address." in answer.text
    assert GOOD not in answer.text
    assert "aaaa" not in answer.text


def test_a_form_of_more_than_64_kilobytes_is_refused_before_it_is_read(house: House, browser: Browser) -> None:
    token = browser.sign_in().token()
    form = {"csrf": token, "what": "x" * 65_600}
    assert browser.post("/newsroom/forgetful", form).status_code == 413
    assert browser.post(SIGN_IN, form).status_code == 413

    def dripping() -> Iterator[bytes]:
        yield f"csrf={token}&what=".encode()
        for _ in range(80):
            yield b"x" * 1024

    headers = {"Origin": browser.url, "Content-Type": "application/x-www-form-urlencoded"}
    dripped = browser.session.post(f"{browser.url}/newsroom/forgetful", data=dripping(), headers=headers, timeout=60)
    assert dripped.status_code == 413
    assert house.acts == []


def test_a_path_that_makes_room_takes_a_long_file_behind_the_token(local_world: World) -> None:
    furnish(local_world)
    app = make_app(("127.0.0.1",))
    frame = add_newsroom(app, local_world.newsroom, CHEAP)
    frame.door.make_room("/newsroom/bring", 5_000_000)

    @app.post("/newsroom/bring")
    async def bring(file: UploadFile) -> PlainTextResponse:
        return PlainTextResponse(str(len(await file.read())))

    with serving(app) as url:
        browser = Browser(url).sign_in()
        headers = {"Origin": url}
        for size, status in ((3_000_000, 200), (6_000_000, 413)):
            parts: dict[str, tuple[str | None, bytes | str]] = {
                "csrf": (None, browser.token()),
                "file": ("people.csv", b"x" * size),
            }
            answer = browser.session.post(f"{url}/newsroom/bring", files=parts, headers=headers, timeout=60)
            assert answer.status_code == status
        backwards: dict[str, tuple[str | None, bytes | str]] = {
            "file": ("people.csv", b"x" * 3_000_000),
            "csrf": (None, browser.token()),
        }
        assert browser.session.post(f"{url}/newsroom/bring", files=backwards, headers=headers, timeout=60).status_code == 403


NO_FORM = [
    ("text/plain", "csrf={token}"),
    ("application/json", '{{"csrf": "{token}"}}'),
    ("multipart/form-data", "csrf={token}"),
    ("multipart/form-data; boundary=", "csrf={token}"),
    ("multipart/form-data; boundary=b", "nonsense {token}"),
    ("application/x-www-form-urlencoded", "xcsrf={token}"),
    ("application/x-www-form-urlencoded", "csrf"),
    ("", "csrf={token}"),
]


def test_a_token_in_what_is_no_form_of_ours_is_none(house: House, browser: Browser) -> None:
    token = browser.sign_in().token()
    for kind, body in NO_FORM:
        headers = {"Origin": browser.url, **({"Content-Type": kind} if kind else {})}
        sent = body.format(token=token).encode()
        answer = browser.session.post(f"{browser.url}/newsroom/forgetful", data=sent, headers=headers, timeout=60)
        assert answer.status_code == 403, (kind, body)
    assert house.acts == []


def test_the_home_page_tells_of_the_slot_the_last_issue_and_the_readers(house: House, browser: Browser) -> None:
    world = house.world
    assert "None yet" in browser.sign_in().get("/newsroom").text
    assert "it cannot go out before what is wrong with it is mended" in browser.get("/newsroom").text
    world.tell_a_week()
    assert "Not approved. Its slot has opened" in browser.get("/newsroom").text
    world.subscribe("ada", "ben", "cleo")
    route.publish(world.newsroom, world.slot)
    page = browser.get("/newsroom").text
    assert "Friday, 4 December, 09:00" in page
    assert "No. 1 of 2026-11-27" in page
    assert re.search(r"<dt>accepted</dt><dd>3</dd>", page)


# Routes that answer GET and HEAD have one name for both.
def test_the_description_of_the_app_names_what_signing_in_takes(house: House) -> None:
    described = house.app.openapi()
    assert set(described["paths"]["/newsroom/sign-in"]) == {"get", "post"}
    assert set(described["paths"]["/newsroom/sign-in"]["post"]["responses"]) >= {"303", "401", "403", "422", "429", "503"}
    (form,) = (kind for name, kind in described["components"]["schemas"].items() if "sign_in" in name)
    assert set(form["required"]) == {"address", "password"}


def asked_from(peer: str | None, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    return Request({"type": "http", "headers": headers, "client": (peer, 5) if peer else None})


PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", (), "198.51.100.7"),
        ("198.51.100.7", ("203.0.113.9",), "198.51.100.7"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("192.0.2.1, 203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("192.0.2.1, 203.0.113.9, 10.2.3.4",), "203.0.113.9"),
        ("10.0.0.1", ("192.0.2.1", "203.0.113.9", "10.2.3.4"), "203.0.113.9"),
        ("10.0.0.1", ("10.2.3.4",), "10.2.3.4"),
        ("10.0.0.1", ("203.0.113.9, rubbish, 10.2.3.4",), "10.2.3.4"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9:4711",), "203.0.113.9"),
        ("::ffff:10.0.0.1", ("[2001:db8:7::1]:4711",), "2001:db8:7::1"),
        ("2001:db8:1::5", ("::ffff:203.0.113.9",), "203.0.113.9"),
        ("fe80::1%eth0", (), "fe80::1"),
        ("testclient", ("203.0.113.9",), "None"),
        (None, ("203.0.113.9",), "None"),
    ],
)
def test_the_client_is_who_our_own_proxies_say_and_nobody_else(
    peer: str | None, forwarded: tuple[str, ...], client: str
) -> None:
    assert str(client_address(asked_from(peer, *forwarded), PROXIES)) == client


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:7:8:9::1", "2001:db8:7::/48"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        (None, ""),
    ],
)
def test_a_client_is_remembered_by_its_network(peer: str | None, network: str) -> None:
    assert network_of(asked_from(peer), ()) == network
