"""The box that bounces and readers' mails come to, a Maildir or IMAP: kept as notices first, marked as seen then."""

import base64
import hashlib
import imaplib
import ipaddress
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from imap_tools import BaseMailBox, MailboxLoginError
from imap_tools.errors import ImapToolsError

from pipeline import returned
from pipeline.config import Mailbox, Secrets
from pipeline.envelope import LONGEST_LOCAL
from pipeline.errors import AccountRefused, Problem, ProviderError
from pipeline.issue import Event, Notice
from pipeline.wire import redact

PASSWORD = "FRIDAY_MAILBOX_PASSWORD"  # noqa: S105 - the name of a secret
# What counts stands in front; behind it there is only more of the original.
MOST_BYTES = 256 * 1024
AT_A_TIME = 100
SECONDS = 30.0
_TLS_PORT, _STARTTLS_PORT = 993, 143


def check(box: Mailbox, secrets: Secrets) -> list[Problem]:
    """What would keep the box from being read, or bounces from reaching it.

    Raises:
        ConfigError: the file of the password cannot be read.
    """
    problems = []
    local = box.address.rpartition("@")[0]
    if not local.isascii() or len(local) > LONGEST_LOCAL:
        cure = f"at most {LONGEST_LOCAL} ASCII characters before the @, since +<reference> is added"
        problems.append(Problem("mailbox.address", "leaves no room for the name of a copy", cure))
    if box.host and not secrets.get(PASSWORD):
        problems.append(
            Problem(PASSWORD, "is not set, and the mailbox needs it", f"export it, or name a file in {PASSWORD}_FILE")
        )
    if box.maildir and not (box.maildir / "new").is_dir():
        problems.append(
            Problem("mailbox.maildir", f"{box.maildir} is no Maildir", "a Maildir has the folders new, cur and tmp")
        )
    return problems


def look_into(box: Mailbox, secrets: Secrets, keep: Callable[[Sequence[Notice]], object]) -> int:
    """Have all kept that is new in the box, and only then mark it as seen; how many mails there were.

    Whoever dies in between gets the same notices, with the same keys, once more.

    Args:
        box: that of the config.
        secrets: from the environment.
        keep: writes notices down for good, some at a time, in order.

    Raises:
        ProviderError: the box cannot be read now.
        AccountRefused: it does not let us in.
        ConfigError: the file of the password cannot be read.
    """
    if box.maildir:
        return _look_into_maildir(box.maildir, keep)
    with _opened(box, secrets.get(PASSWORD) or "") as opened:
        return _look_into_imap(opened, keep)


def read(body: str) -> list[Event]:
    """What a notice from the box says.

    Raises:
        ValueError: it cannot be read.
    """
    return returned.read(base64.b64decode(body, validate=True))


def _notice(raw: bytes) -> Notice:
    # In base64, since no database takes every byte as text.
    return Notice(hashlib.sha256(raw).hexdigest(), base64.b64encode(raw).decode())


def _look_into_maildir(folder: Path, keep: Callable[[Sequence[Notice]], object]) -> int:
    """A Maildir: what is in `new`, and what another program has moved to `cur` without its being seen."""
    try:
        paths = iter(sorted([*(folder / "new").iterdir(), *filter(_is_unseen, (folder / "cur").iterdir())], key=_name))
        count = 0
        while some := list(islice(paths, AT_A_TIME)):
            keep([_notice(_beginning(path)) for path in some])
            for path in some:
                # Somebody else may have marked it meanwhile; its key says that it is the same.
                with suppress(FileNotFoundError):
                    path.rename(folder / "cur" / _seen(path.name))
            count += len(some)
    except OSError as error:
        raise ProviderError(f"the mailbox {folder} cannot be read: {error.strerror or type(error).__name__}") from error
    return count


def _name(path: Path) -> str:
    return path.name


def _is_unseen(path: Path) -> bool:
    return "S" not in path.name.partition(":2,")[2]


def _seen(name: str) -> str:
    name, _, flags = name.partition(":2,")
    return f"{name}:2,{''.join(sorted({*flags, 'S'}))}"


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


def _look_into_imap(box: BaseMailBox, keep: Callable[[Sequence[Notice]], object]) -> int:
    """An IMAP folder: what is not seen. Nothing is deleted."""
    uids = box.uids("UNSEEN")
    for begin in range(0, len(uids), AT_A_TIME):
        some = uids[begin : begin + AT_A_TIME]
        keep([_notice(raw) for uid in some if (raw := _fetched(box, uid)) is not None])
        # The library's own way would also expunge what somebody else has marked as deleted.
        _expect_ok(box.client.uid("STORE", ",".join(some), "+FLAGS", r"(\Seen)"))
    return len(uids)


def _fetched(box: BaseMailBox, uid: str) -> bytes | None:
    """The beginning of a mail, which fetching does not mark; None where it is gone."""
    answer = _expect_ok(box.client.uid("FETCH", uid, f"(BODY.PEEK[]<0.{MOST_BYTES}>)"))
    return next((bytes(part[1]) for part in answer if isinstance(part, tuple)), None)


def _expect_ok(answer: tuple[str, list[object]]) -> list[object]:
    if answer[0] != "OK":
        raise imaplib.IMAP4.error(f"the server answered {answer[0]}")
    return answer[1]


@contextmanager
def _opened(box: Mailbox, password: str) -> Iterator[BaseMailBox]:
    where = f"{box.host}:{box.port}"
    opened: BaseMailBox | None = None
    try:
        opened = _Box(box)
        opened.login(box.user or box.address, password, box.folder)
        yield opened
    except MailboxLoginError as error:
        raise AccountRefused(f"{where} does not let us in: look at mailbox.user and {PASSWORD}") from error
    except (OSError, ValueError, imaplib.IMAP4.error, ImapToolsError) as error:
        said = redact(str(error) or type(error).__name__)
        raise ProviderError(f"the mailbox at {where} cannot be read: {said}") from error
    finally:
        if opened:
            with suppress(OSError, imaplib.IMAP4.error, ImapToolsError):
                opened.logout()
            with suppress(OSError):
                opened.client.shutdown()


class _Box(BaseMailBox):
    """TLS from the start; STARTTLS on its port; in the clear only on this machine."""

    def __init__(self, box: Mailbox) -> None:
        self._host, self._port = box.host or "", box.port
        super().__init__()

    def _get_mailbox_client(self) -> imaplib.IMAP4:
        in_the_clear = self._port != _TLS_PORT and _is_loopback(self._host)
        if not in_the_clear and self._port != _STARTTLS_PORT:
            return imaplib.IMAP4_SSL(self._host, self._port, ssl_context=ssl.create_default_context(), timeout=SECONDS)
        client = imaplib.IMAP4(self._host, self._port, timeout=SECONDS)
        try:
            if not in_the_clear:
                client.starttls(ssl.create_default_context())
        except (OSError, imaplib.IMAP4.error):
            client.shutdown()
            raise
        return client


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
