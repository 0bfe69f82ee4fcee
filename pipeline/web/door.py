"""The door of the newsroom: cookies, tokens, coming and going; `guard` sees that nobody gets around it. It makes no page."""

import hashlib
import hmac
import logging
import math
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from fastapi import Depends, Request, Response
from sqlalchemy.exc import OperationalError

from pipeline import staff
from pipeline.errors import UsageError
from pipeline.newsroom import Newsroom
from pipeline.staff import Guest, Passwords, Role
from pipeline.web.client import network_of
from pipeline.web.pages import LOOPBACK
from pipeline.web.throttle import Throttle
from subscribers import roll

ROOT = "/newsroom"
SIGN_IN = f"{ROOT}/sign-in"
SESSION = "friday"
KNOCK = "friday-door"
FIELD = "csrf"
HEADER = "X-CSRF-Token"
FORM_BYTES = 64 * 1024
HOOK_BYTES = 1_000_000

MOST_WAITING = 20

log = logging.getLogger(__name__)


class Refused(Exception):
    """What the door does not let through: with which status, and what to tell the person."""

    def __init__(self, status: int, title: str, text: str, *, retry_after: int | None = None) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.text = text
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


@dataclass(frozen=True, slots=True)
class Own:
    """How the newsroom is reached: by its own origin, or in the clear by a name of this machine."""

    origin: str
    host: str

    @classmethod
    def of(cls, base_url: str) -> "Own":
        """The same from the base URL of the config."""
        parts = urlsplit(base_url.lower())
        # Browsers leave the usual port out.
        place = parts.netloc.removesuffix(":443" if parts.scheme == "https" else ":80")
        return cls(f"{parts.scheme}://{place}", parts.hostname or "")

    def origin_of(self, request: Request) -> str:
        """The origin that a form of ours has when it comes by the address that this request came by."""
        named = request.headers.get("host", "").lower()
        host = urlsplit(f"//{named}").hostname
        return self.origin if host not in LOOPBACK or (host == self.host and self.is_safe) else f"http://{named}"

    @property
    def is_safe(self) -> bool:
        """Whether it is reached over TLS."""
        return self.origin.startswith("https://")


class Door:
    """Sessions, tokens and the throttle of one app."""

    def __init__(self, newsroom: Newsroom, passwords: Passwords) -> None:
        self.newsroom = newsroom
        self.passwords = passwords
        self.throttle = Throttle()
        self._own = Own.of(newsroom.masthead.base_url)
        self._room = {"/hooks": HOOK_BYTES}
        self._by_itself: list[re.Pattern[str]] = []
        # Their turn is waited for here and not in the threads that everybody else is served by.
        self._verifying = anyio.CapacityLimiter(staff.VERIFIED_AT_ONCE)

    def make_room(self, path: str, most: int) -> None:
        """Let a path and what lies below it take more bytes than a form: a file that is brought in."""
        self._room[path] = most

    def is_asked_by_itself(self, path: str) -> None:
        """Say of paths, by a pattern, that open pages ask for them though nobody is there: that keeps no session alive."""
        self._by_itself.append(re.compile(path))

    def most_bytes(self, path: str) -> int:
        """How many bytes may come to a path."""
        return max((most for root, most in self._room.items() if lies_below(path, root)), default=FORM_BYTES)

    # Cookies. Over TLS they have the prefix that binds them to this host and to TLS (RFC 6265bis, 4.1.3.2); in the clear,
    # which is for loopback only, browsers would not take that.

    def is_plain(self, request: Request) -> bool:
        """Whether the browser reached us in the clear, on this machine."""
        return self._own.origin_of(request).startswith("http://")

    def cookie_name(self, request: Request, name: str = SESSION) -> str:
        """What a cookie is called, by the way on which the request came."""
        return name if self.is_plain(request) else f"__Host-{name}"

    def set_cookie(self, request: Request, response: Response, secret: str, name: str = SESSION) -> None:
        """Give the browser a secret until it is closed."""
        plain = self.is_plain(request)
        response.set_cookie(self.cookie_name(request, name), secret, path="/", secure=not plain, httponly=True, samesite="lax")

    def drop_cookie(self, request: Request, response: Response, name: str = SESSION) -> None:
        """Let the browser forget it."""
        plain = self.is_plain(request)
        response.delete_cookie(self.cookie_name(request, name), path="/", secure=not plain, httponly=True, samesite="lax")

    def secret(self, request: Request) -> str | None:
        """What the cookie of the session holds."""
        return request.cookies.get(self.cookie_name(request))

    def knock(self, request: Request) -> str:
        """What the sign-in form is tied to before there is a session: what its cookie holds, else something new."""
        return request.cookies.get(self.cookie_name(request, KNOCK)) or secrets.token_urlsafe(32)

    # What every request is asked.

    def enter(self, request: Request) -> Guest | None:
        """Who the cookie says is here. Now and then writes down that the session is in use."""
        secret, now = self.secret(request), self.newsroom.now()
        if not secret:
            return None
        with self.newsroom.database.read() as session:
            guest = staff.whose(session, secret, now)
        by_itself = any(each.fullmatch(request.url.path) for each in self._by_itself)
        if guest and not by_itself and now - guest.seen_at >= staff.SEEN_EVERY:
            # A database that a long import keeps busy is no reason to show no page.
            with suppress(OperationalError), self.newsroom.database.write() as session:
                staff.seen(session, secret, now)
        return guest

    def check_origin(self, request: Request) -> None:
        """See that a page of ours sent this, by what the browser says and no page can change.

        `Sec-Fetch-Site` says it; browsers that do not know it send `Origin` with everything that is not GET or HEAD.

        Raises:
            Refused: it is another's, or nothing says whose.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site not in (None, "same-origin") or (origin or site) is None:
            raise _of_elsewhere()
        if origin is not None and origin.lower() != self._own.origin_of(request):
            raise _of_elsewhere()

    def is_token(self, request: Request, given: str) -> bool:
        """Whether a token belongs to the session of the request, or to its sign-in form."""
        name = KNOCK if request.url.path == SIGN_IN else SESSION
        secret = request.cookies.get(self.cookie_name(request, name))
        return bool(secret) and hmac.compare_digest(token_of(secret or "").encode(), given.encode())

    # Coming and going.

    async def sign_in(self, request: Request, address: str, password: str) -> str:
        """Begin a session: the secret of its cookie, new each time; whatever session the browser had is over.

        Raises:
            Refused: the address or the password is wrong, too many were, or too many people wait.
        """
        return await self._in_turn(lambda: self._begin(request, address, password))

    def sign_out(self, request: Request) -> None:
        """End the session of a request."""
        secret = self.secret(request)
        if secret:
            with self.newsroom.database.write() as session:
                staff.end(session, secret)

    async def change_password(self, request: Request, guest: Guest, current: str, new: str) -> str:
        """Give the admin who is in another password; every session of theirs ends, and this browser gets a new one.

        Raises:
            Refused: the current password is wrong, or too many were.
            UsageError: the new one is too easily guessed.
        """
        return await self._in_turn(lambda: self._change(request, guest, current, new))

    def _begin(self, request: Request, address: str, password: str) -> str:
        who = self._recognise(request, address, password)
        with self.newsroom.database.write() as session:
            staff.end(session, self.secret(request) or "")
            secret = staff.begin(session, who, self.newsroom.now())
        if secret is None:
            raise _wrong()
        log.info("admin %s signed in", who.admin.id)
        return secret

    def _change(self, request: Request, guest: Guest, current: str, new: str) -> str:
        address = guest.admin.address
        self._recognise(request, address, current)
        hashed = self.passwords.choose(new, address, self.newsroom.masthead.title)
        with self.newsroom.database.write() as session:
            staff.set_password(session, address, hashed)
            secret = staff.begin(session, staff.Recognised(guest.admin, hashed), self.newsroom.now())
        if secret is None:
            raise _wrong()
        log.info("admin %s has another password", guest.admin.id)
        return secret

    def _recognise(self, request: Request, address: str, password: str) -> staff.Recognised:
        account, network = account_of(address), network_of(request, self.newsroom.config.web.trusted_proxies)
        seconds = self.throttle.enter(account, network)
        if seconds is not None:
            minutes = math.ceil(seconds / 60)
            text = f"Too many passwords were wrong. Try again in {minutes} {'minute' if minutes == 1 else 'minutes'}."
            raise Refused(429, "Too many tries", text, retry_after=seconds)
        who = staff.recognise(self.newsroom.database, self.passwords, address, password)
        if who is None:
            self.throttle.was_wrong(network)
            raise _wrong()
        self.throttle.was_right(account)
        return who

    async def _in_turn(self, work: Callable[[], str]) -> str:
        if self._verifying.statistics().tasks_waiting >= MOST_WAITING:
            text = "Many people are signing in at this moment. Try again in some seconds."
            raise Refused(503, "One moment", text, retry_after=5)
        return await anyio.to_thread.run_sync(work, limiter=self._verifying)


def token_of(secret: str) -> str:
    """The token of a session's forms: nobody can tell it without the cookie, nor the cookie from it."""
    return hmac.new(secret.encode(), b"forms of this session", hashlib.sha256).hexdigest()


def account_of(address: str) -> str:
    """An address as wrong passwords are counted for it, whether or not it is one."""
    try:
        return roll.normalise(address).key
    except UsageError:
        return address.strip().casefold()


def lies_below(path: str, root: str) -> bool:
    """Whether a path is `root` or lies below it."""
    return path == root or path.startswith(root + "/")


def guest_of(request: Request) -> Guest:
    """Who is signed in, for a route of the newsroom: `guest: Here`.

    Raises:
        Refused: nobody is, which `Guard` has seen to already.
    """
    guest = getattr(request.state, "guest", None)
    if not isinstance(guest, Guest):
        raise not_signed_in()
    return guest


Here = Annotated[Guest, Depends(guest_of)]


def require(role: Role) -> Callable[[Guest], Guest]:
    """The dependency of a route that is for owners only: `guest: Annotated[Guest, Depends(require(Role.OWNER))]`."""

    def required(guest: Here) -> Guest:
        if role is Role.OWNER and guest.admin.role is not Role.OWNER:
            raise Refused(403, "For owners only", "An owner of this newsletter can do this, or make you one.")
        return guest

    return required


def not_signed_in() -> Refused:
    """What is said to somebody without a session."""
    return Refused(401, "Sign in first", "You are not signed in, or were away for long.")


def _of_elsewhere() -> Refused:
    text = (
        "This was sent from another site, or the browser does not say from where. "
        "If a proxy stands in front of the newsroom, it must hand on the headers Host and Origin."
    )
    return Refused(403, "Not from here", text)


def _wrong() -> Refused:
    return Refused(401, "Not signed in", "The address or the password is wrong.")
