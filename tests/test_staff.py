"""Who may sign in: passwords that can be guessed are refused, sessions end when they should, and one owner always stays."""

import re
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlmodel import select

from pipeline import staff
from pipeline.database import Database
from pipeline.errors import UsageError
from pipeline.staff import Admin, AdminRow, Guest, Passwords, Recognised, Role, SessionRow

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CHIEF = "chief@news.example.com"
GOOD = "nine lanterns over the quay"
OTHER = "seven herons in the fog"
TITLE = "The Test Five"


def hashing(memory: int = 8) -> Passwords:
    return Passwords(PasswordHash((Argon2Hasher(time_cost=1, memory_cost=memory, parallelism=1),)))


CHEAP = hashing()


@pytest.fixture
def both(database_url: str) -> Iterator[Database]:
    """A database without admins, of each kind."""
    made = Database(database_url)
    yield made
    made.engine.dispose()


@pytest.fixture
def house(tmp_path: Path, empty: bytes) -> Iterator[Database]:
    """The same on SQLite, for what does not depend on the kind."""
    (tmp_path / "friday.db").write_bytes(empty)
    made = Database(f"sqlite:///{tmp_path}/friday.db")
    yield made
    made.engine.dispose()


def let_in(database: Database, address: str = CHIEF, role: Role = Role.OWNER, password: str = GOOD) -> Admin:
    hashed = CHEAP.choose(password, address, TITLE)
    with database.write() as session:
        return staff.add(session, address, hashed, role, NOW)


def recognise(database: Database, address: str = CHIEF, password: str = GOOD) -> Recognised | None:
    return staff.recognise(database, CHEAP, address, password)


def begin(database: Database, address: str = CHIEF, now: datetime = NOW) -> str:
    who = recognise(database, address)
    assert who
    with database.write() as session:
        secret = staff.begin(session, who, now)
    assert secret
    return secret


def whose(database: Database, secret: str, now: datetime = NOW) -> Guest | None:
    with database.read() as session:
        return staff.whose(session, secret, now)


def seen(database: Database, secret: str, now: datetime) -> None:
    with database.write() as session:
        staff.seen(session, secret, now)


def remove(database: Database, address: str = CHIEF) -> None:
    with database.write() as session:
        staff.remove(session, address)


def test_an_admin_is_known_by_the_address_however_it_is_written(both: Database) -> None:
    assert let_in(both, " Chief@NEWS.example.com ").address == "Chief@news.example.com"
    who = recognise(both, "cHIEF@news.EXAMPLE.com")
    assert who
    assert who.admin.role is Role.OWNER
    with pytest.raises(UsageError, match="may sign in already"):
        let_in(both, "CHIEF@news.example.com")


def test_a_wrong_password_an_unknown_address_and_no_address_are_nobody(both: Database) -> None:
    let_in(both)
    assert recognise(both, password=OTHER) is None
    assert recognise(both, "nobody@news.example.com") is None
    assert recognise(both, "no address") is None
    assert recognise(both, password=GOOD[:-1]) is None
    assert recognise(both, password="x" * 60_000) is None


def test_what_is_stored_is_argon2id_with_the_recommended_parameters() -> None:
    hashed = Passwords().choose(GOOD, CHIEF, TITLE)
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert GOOD not in hashed


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("eleven char", "too short"),
        ("x" * 257, "too long"),
        ("nine lanterns\x00 over", "control character"),
        ("my chief@NEWS.example.com", "mail address"),
        ("the CHIEF of all of it", "mail address"),
        ("i read the test  five", "title"),
        ("ireadTHETESTFIVE", "title"),
    ],
)
def test_a_password_that_is_guessed_first_is_refused_and_not_repeated(password: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        CHEAP.choose(password, CHIEF, TITLE)
    assert password not in str(caught.value)
    assert CHIEF not in str(caught.value)


@pytest.mark.parametrize("password", ["x" * 12, "x" * 256, GOOD, "パスワードは長いほど良いです", "twelve chars"])
def test_a_long_enough_password_of_any_script_is_taken(password: str) -> None:
    assert CHEAP.verify(password, CHEAP.choose(password, "ed@news.example.com", TITLE)).right


def test_a_password_is_the_same_whichever_keyboard_composed_it() -> None:
    hashed = CHEAP.choose("caf\u00e9 au lait, froid", CHIEF, TITLE)
    assert CHEAP.verify("cafe\u0301 au lait, froid", hashed).right
    assert CHEAP.verify("e\u0301" * 256, CHEAP.choose("\u00e9" * 256, CHIEF, TITLE)).right


def test_a_hash_of_older_parameters_is_made_anew_when_its_password_comes(both: Database) -> None:
    let_in(both)
    stronger = hashing(memory=16)
    assert staff.recognise(both, stronger, CHIEF, OTHER) is None
    assert ",t=1,p=1" in stored(both)
    assert "m=8," in stored(both)
    who = staff.recognise(both, stronger, CHIEF, GOOD)
    assert "m=16," in stored(both)
    assert who
    with both.write() as session:
        assert staff.begin(session, who, NOW)
    assert staff.recognise(both, stronger, CHIEF, GOOD)


def stored(database: Database) -> str:
    with database.read() as session:
        return session.exec(select(AdminRow.password)).one()


def test_an_unknown_address_takes_as_long_as_a_known_one(house: Database) -> None:
    slow = hashing(memory=8192)
    hashed = slow.choose(GOOD, CHIEF, TITLE)
    with house.write() as session:
        staff.add(session, CHIEF, hashed, Role.OWNER, NOW)
    taken: dict[str, list[float]] = {CHIEF: [], "nobody@news.example.com": [], "no address": []}
    for _ in range(21):
        for address, times in taken.items():
            began = time.process_time()
            assert staff.recognise(house, slow, address, OTHER) is None
            times.append(time.process_time() - began)
    known, *others = (statistics.median(times) for times in taken.values())
    for other in others:
        assert 0.8 < other / known < 1.25


class Crowded(Argon2Hasher):
    """Knows how many hash at once, and lets each wait for another."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.inside = 0
        self.most = 0
        self.two = threading.Barrier(2)

    def verify(self, password: str | bytes, hash: str | bytes) -> bool:  # noqa: A002 - as the library names it
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.two.wait(60)
        right = super().verify(password, hash)
        self.inside -= 1
        return right


def test_two_passwords_are_verified_at_once_and_never_three() -> None:
    hasher = Crowded()
    passwords = Passwords(PasswordHash((hasher,)))
    hashed = passwords.choose(GOOD, CHIEF, TITLE)
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda _n: passwords.verify(GOOD, hashed), range(8)))
    assert all(verdict.right for verdict in verdicts)
    assert hasher.most == 2


def test_the_first_admin_is_an_owner_and_the_last_owner_stays(both: Database) -> None:
    with pytest.raises(UsageError, match="first admin must be an owner"):
        let_in(both, role=Role.EDITOR)
    let_in(both)
    let_in(both, "ed@news.example.com", Role.EDITOR)
    with pytest.raises(UsageError, match="last owner"):
        remove(both)
    let_in(both, "second@news.example.com")
    remove(both)
    remove(both, "ed@news.example.com")
    with both.read() as session:
        assert [each.address for each in staff.listed(session)] == ["second@news.example.com"]


def test_of_two_owners_who_remove_each_other_at_once_one_stays(both: Database) -> None:
    let_in(both)
    let_in(both, "second@news.example.com")
    with ThreadPoolExecutor(1) as pool:
        with both.write() as session:
            staff.remove(session, CHIEF)
            second = pool.submit(remove, both, "second@news.example.com")
            with pytest.raises(TimeoutError):
                second.result(0.1)
        with pytest.raises(UsageError, match="last owner"):
            second.result(10)


@pytest.mark.parametrize("address", ["nobody@news.example.com", "no address"])
def test_who_is_no_admin_is_not_found_removed_or_given_a_password(house: Database, address: str) -> None:
    let_in(house)
    for act in (
        lambda session: staff.remove(session, address),
        lambda session: staff.set_password(session, address, "hash"),
        lambda session: staff.find(session, address),
    ):
        with pytest.raises(UsageError) as caught, house.write() as session:
            act(session)
        assert address not in str(caught.value)


def test_a_session_is_known_by_the_secret_of_its_cookie_and_not_by_what_is_stored(both: Database) -> None:
    let_in(both)
    secret = begin(both)
    assert len(secret) >= 43  # 256 bits, six in each
    guest = whose(both, secret)
    assert guest
    assert guest.admin.address == CHIEF
    with both.read() as session:
        digest = session.exec(select(SessionRow.digest)).one()
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert secret not in digest
    assert whose(both, digest) is None
    assert whose(both, "") is None
    assert begin(both) != secret


def test_a_session_ends_twelve_hours_after_it_was_last_seen(both: Database) -> None:
    let_in(both)
    secret = begin(both)
    assert whose(both, secret, NOW + timedelta(hours=12) - MINUTE)
    assert whose(both, secret, NOW + timedelta(hours=12)) is None
    seen(both, secret, NOW + timedelta(hours=11))
    assert whose(both, secret, NOW + timedelta(hours=22))


def test_a_session_ends_seven_days_after_it_began_however_often_it_was_seen(both: Database) -> None:
    let_in(both)
    secret = begin(both)
    for hours in range(0, 7 * 24, 6):
        seen(both, secret, NOW + timedelta(hours=hours))
    assert whose(both, secret, NOW + timedelta(days=7) - MINUTE)
    assert whose(both, secret, NOW + timedelta(days=7)) is None


def test_that_a_session_was_seen_is_written_once_a_minute_at_most(house: Database) -> None:
    let_in(house)
    secret = begin(house)
    seen(house, secret, NOW + MINUTE / 2)
    assert last_seen(house, secret) == NOW
    seen(house, secret, NOW + MINUTE)
    assert last_seen(house, secret) == NOW + MINUTE


def last_seen(database: Database, secret: str) -> datetime:
    guest = whose(database, secret)
    assert guest
    return guest.seen_at


def test_a_session_that_was_ended_is_gone_and_the_others_are_not(both: Database) -> None:
    let_in(both)
    first, second = begin(both), begin(both)
    with both.write() as session:
        staff.end(session, first)
        staff.end(session, first)
    assert whose(both, first) is None
    assert whose(both, second)


def test_another_password_ends_every_session_of_that_admin_and_of_nobody_else(both: Database) -> None:
    let_in(both)
    let_in(both, "ed@news.example.com", Role.EDITOR)
    first, second, eds = begin(both), begin(both), begin(both, "ed@news.example.com")
    with both.write() as session:
        staff.set_password(session, "CHIEF@news.example.com", CHEAP.choose(OTHER, CHIEF, TITLE))
    assert whose(both, first) is None
    assert whose(both, second) is None
    assert whose(both, eds)
    assert recognise(both) is None
    assert recognise(both, password=OTHER)


def test_whoever_is_removed_is_out_at_once(both: Database) -> None:
    let_in(both)
    let_in(both, "ed@news.example.com", Role.EDITOR)
    secret = begin(both, "ed@news.example.com")
    remove(both, "ed@news.example.com")
    assert whose(both, secret) is None
    with both.read() as session:
        assert session.exec(select(SessionRow)).all() == []


@pytest.mark.parametrize("meanwhile", ["another password", "removed"])
def test_a_password_that_was_right_a_moment_ago_begins_nothing(both: Database, meanwhile: str) -> None:
    let_in(both)
    let_in(both, "second@news.example.com")
    who = recognise(both)
    assert who
    with both.write() as session:
        if meanwhile == "removed":
            staff.remove(session, CHIEF)
        else:
            staff.set_password(session, CHIEF, CHEAP.choose(OTHER, CHIEF, TITLE))
    with both.write() as session:
        assert staff.begin(session, who, NOW) is None


def test_a_session_that_begins_while_the_password_is_changed_does_not_outlive_the_change(both: Database) -> None:
    let_in(both)
    who = recognise(both)
    assert who
    hashed = CHEAP.choose(OTHER, CHIEF, TITLE)

    def change() -> None:
        with both.write() as session:
            staff.set_password(session, CHIEF, hashed)

    with ThreadPoolExecutor(1) as pool:
        with both.write() as session:
            secret = staff.begin(session, who, NOW)
            changing = pool.submit(change)
            with pytest.raises(TimeoutError):
                changing.result(0.1)
        changing.result(10)
    assert secret
    assert whose(both, secret) is None


def test_what_has_ended_is_swept_away_when_a_session_begins(both: Database) -> None:
    let_in(both)
    begin(both)
    begin(both, now=NOW + timedelta(hours=11))
    begin(both, now=NOW + timedelta(hours=13))
    with both.read() as session:
        assert len(session.exec(select(SessionRow)).all()) == 2


def test_neither_hash_nor_password_shows_in_what_is_printed_of_an_admin(house: Database) -> None:
    let_in(house)
    who = recognise(house)
    shown = f"{who!r} {whose(house, begin(house))!r} {CHEAP.verify(GOOD, stored(house))!r}"
    assert "argon2" not in shown
    assert GOOD not in shown
