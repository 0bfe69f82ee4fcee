"""Postfix and Dovecot as processes of a test: on loopback, in a folder of their own, touching nothing of the machine's."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.sink import CERTIFICATE

SECONDS = 60
PASSWORD = "hunter2"  # noqa: S105 - a test's

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = relay.example.net
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {certificate}
smtpd_tls_security_level = may
smtp_tls_security_level = none
smtp_host_lookup = native
smtp_dns_support_level = disabled
relayhost = [127.0.0.1]:{onward}
maximal_queue_lifetime = 0
bounce_queue_lifetime = 0
recipient_delimiter = +
virtual_mailbox_domains = news.example.com
virtual_mailbox_maps = inline:{{ {{ box@news.example.com = box/ }} }}
virtual_mailbox_base = {folder}/mail
virtual_uid_maps = static:{user.pw_uid}
virtual_gid_maps = static:{user.pw_gid}
"""

_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_DOVECOT = """
base_dir = {folder}/run
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{certificate}
disable_plaintext_auth = no
mail_location = maildir:{maildir}
first_valid_uid = 1
first_valid_gid = 1
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={user.pw_uid} gid={user.pw_gid} home={folder}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {plain}
  }}
  inet_listener imaps {{
    port = {tls}
  }}
}}
"""


@dataclass(frozen=True)
class Postfix:
    """A relay; what it cannot hand on it sends back to the Maildir."""

    port: int
    maildir: Path
    log: Path


@dataclass(frozen=True)
class Imap:
    """The same Maildir by IMAP."""

    plain: int
    tls: int


@contextmanager
def postfix(onward: int) -> Iterator[Postfix]:
    """Postfix that takes mail on loopback and hands it on to a port there."""
    assert os.geteuid() == 0, "Postfix is started by root only"
    with _folder("postfix") as folder:
        owner = pwd.getpwnam("postfix")
        for name in ("queue", "data", "conf", "mail", "mail/box", "mail/box/new", "mail/box/cur", "mail/box/tmp"):
            (folder / name).mkdir()
            if name.startswith(("data", "mail")):
                os.chown(folder / name, owner.pw_uid, owner.pw_gid)
        port = _free_port()
        main = _MAIN.format(folder=folder, onward=onward, user=owner, certificate=CERTIFICATE)
        (folder / "conf/main.cf").write_text(main, "utf-8")
        (folder / "conf/master.cf").write_text(_MASTER.format(port=port), "utf-8")
        command = ["/usr/sbin/postfix", "-c", str(folder / "conf")]
        with _running([*command, "start-fg"], port, folder / "log", [*command, "stop"]):
            yield Postfix(port, folder / "mail/box", folder / "log")


@contextmanager
def imap(maildir: Path) -> Iterator[Imap]:
    """Dovecot over a Maildir, whose owner it works as."""
    with _folder("dovecot") as folder:
        user = pwd.getpwuid(maildir.stat().st_uid)
        ports = Imap(_free_port(), _free_port())
        values = {"folder": folder, "certificate": CERTIFICATE, "maildir": maildir, "password": PASSWORD, "user": user}
        (folder / "dovecot.conf").write_text(_DOVECOT.format(**values, plain=ports.plain, tls=ports.tls), "utf-8")
        command = ["/usr/sbin/dovecot", "-c", str(folder / "dovecot.conf")]
        with _running([*command, "-F"], ports.tls, folder / "log", [*command, "stop"]):
            yield ports


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """Not below pytest's own, which only its owner may enter; the servers work as users of their own."""
    folder = Path(tempfile.mkdtemp(prefix=f"friday-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(command: list[str], port: int, log: Path, stop: list[str]) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _until_it_listens(process, port, log)
            yield
        finally:
            subprocess.run(stop, check=False, capture_output=True, timeout=SECONDS)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _until_it_listens(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            said = log.read_text("utf-8", "replace") if log.exists() else ""
            if process.poll() is not None:
                said += process.stderr.read().decode("utf-8", "replace") if process.stderr else ""
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
