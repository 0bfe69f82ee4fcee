"""People and permission: who is on the roll, and who never comes back by accident."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.database import Database
from pipeline.errors import UsageError
from subscribers import links, roll, search
from subscribers.models import State, Subscriber, Why, new_token

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


@pytest.fixture
def people(tmp_path: Path, empty: bytes) -> Iterator[Database]:
    """A database with nobody on the roll."""
    (tmp_path / "friday.db").write_bytes(empty)
    made = Database(f"sqlite:///{tmp_path}/friday.db")
    yield made
    made.engine.dispose()


@pytest.fixture
def both(database_url: str) -> Iterator[Database]:
    """The same on each kind of database."""
    made = Database(database_url)
    made.migrate()
    yield made
    made.engine.dispose()


def add(people: Database, address: str, name: str = "") -> roll.Added:
    with people.write() as session:
        return roll.add(session, address, NOW, name)


def unsubscribe(people: Database, address: str, now: datetime = NOW) -> bool:
    with people.write() as session:
        return roll.unsubscribe(session, roll.normalise(address).key, now)


def suppress(people: Database, address: str, why: Why = Why.BOUNCE) -> bool:
    with people.write() as session:
        return roll.suppress(session, address, why, NOW)


def find(people: Database, address: str) -> Subscriber:
    with people.read() as session:
        found = roll.by_key(session, roll.normalise(address).key)
    assert found is not None
    return found


def everybody(people: Database, state: State | None = None) -> list[tuple[str, str, str | None]]:
    with people.read() as session:
        return [(who.address, who.state, who.suppressed) for who in search.everybody(session, search.Wanted(state))]


def mailable(people: Database) -> int:
    with people.read() as session:
        return roll.count_mailable(session, NOW)


@pytest.mark.parametrize(
    ("text", "written", "key"),
    [
        ("ada@example.com", "ada@example.com", "ada@example.com"),
        ("  ada@example.com\r\n", "ada@example.com", "ada@example.com"),
        ("Ada.L@Example.COM", "Ada.L@example.com", "ada.l@example.com"),
        ("ada+friday@example.com", "ada+friday@example.com", "ada+friday@example.com"),
        ("o'neil_1@sub.example.co.uk", "o'neil_1@sub.example.co.uk", "o'neil_1@sub.example.co.uk"),
        ("ada@MÜNCHEN.example.com", "ada@münchen.example.com", "ada@münchen.example.com"),
        ("ada@xn--mnchen-3ya.example.com", "ada@münchen.example.com", "ada@münchen.example.com"),
        ("JOSÉ@example.com", "JOSÉ@example.com", "josé@example.com"),
        ("JOSE\u0301@example.com", "JOSÉ@example.com", "josé@example.com"),
    ],
)
def test_an_address_has_one_form_to_write_to_and_one_to_compare(text: str, written: str, key: str) -> None:
    assert roll.normalise(text) == roll.Address(written, key)


# In each stand the words that must not come back.
RUBBISH = [
    "", " ", "secretperson", "secretperson@", "@secrethost.com", "secretperson@secrethost", "secretperson@@secrethost.com",
    "secret person@secrethost.com", "secretperson@secret host.com", "secretperson@secrethost..com", "secretperson@localhost",
    "secretperson@-secrethost.com", "secretperson@secrethost_x.com", "secretperson@secrethost.com,other@secrethost.com",
    "Secret <secretperson@secrethost.com>", "mailto:secretperson@secrethost.com", "secretperson@[127.0.0.1]",
    "secretperson@secrethost.com\nBcc: other@secrethost.com", "secretperson\0@secrethost.com",
    '"secret person"@secrethost.com', "secretperson@secrethost≠.com", "secretperson@secrethostא.com",
    "secretperson@xn--secrethost99.com", "secretperson@secrethost.invalid",
]  # fmt: skip


@pytest.mark.parametrize("text", RUBBISH)
def test_what_is_no_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UsageError, match=r"^not a mail address: ") as caught:
        roll.normalise(text)
    assert "secretperson" not in str(caught.value)
    assert "secrethost" not in str(caught.value)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.emails() | st.text(max_size=30) | st.builds("{}@{}.com".format, st.text(max_size=8), st.text(max_size=8)))
def test_normalising_twice_is_as_once_and_nothing_else_is_raised(text: str) -> None:
    try:
        once = roll.normalise(text)
    except UsageError:
        return
    assert roll.normalise(once.written) == once
    assert roll.normalise(once.key).key == once.key


def test_a_new_subscriber_is_active_from_now_on(people: Database) -> None:
    added = add(people, "Ada@Example.com", "Ada")
    assert added.new
    found = find(people, "ada@example.com")
    assert (found.address, found.name, found.state) == ("Ada@example.com", "Ada", State.ACTIVE)
    assert (found.joined, found.left) == (NOW, None)


def test_adding_twice_is_as_once_however_the_address_is_spelled(people: Database) -> None:
    token = add(people, "ada@example.com", "Ada").subscriber.token
    again = add(people, " ADA@EXAMPLE.com", "Somebody else")
    assert not again.new
    assert (again.subscriber.name, again.subscriber.token) == ("Ada", token)
    assert len(everybody(people)) == 1


def test_adding_a_plus_address_is_adding_another_one(people: Database) -> None:
    add(people, "ada@example.com")
    assert add(people, "ada+work@example.com").new


def test_adding_somebody_who_has_left_brings_nobody_back(people: Database) -> None:
    add(people, "ada@example.com")
    unsubscribe(people, "ada@example.com")
    again = add(people, "ada@example.com")
    assert not again.new
    assert again.subscriber.state == State.UNSUBSCRIBED
    assert mailable(people) == 0


@pytest.mark.parametrize("why", list(Why))
def test_adding_a_suppressed_address_is_refused_without_repeating_it(people: Database, why: Why) -> None:
    suppress(people, "Ada@example.com", why)
    with pytest.raises(UsageError, match=rf"suppressed since 2026-11-27 \({why}\)") as caught:
        add(people, "ada@example.com")
    assert "ada" not in str(caught.value)
    assert everybody(people) == []


def test_whoever_unsubscribes_is_not_mailed_and_stays_on_the_roll(both: Database) -> None:
    add(both, "ada@example.com")
    add(both, "ben@example.com")
    assert unsubscribe(both, "ADA@example.com", LATER)
    found = find(both, "ada@example.com")
    assert (found.state, found.left) == (State.UNSUBSCRIBED, LATER)
    assert mailable(both) == 1


def test_unsubscribing_twice_is_as_once(people: Database) -> None:
    add(people, "ada@example.com")
    assert unsubscribe(people, "ada@example.com", NOW)
    assert unsubscribe(people, "ada@example.com", LATER)
    assert find(people, "ada@example.com").left == NOW


def test_nobody_can_leave_who_was_never_there(people: Database) -> None:
    add(people, "ada@example.com")
    assert not unsubscribe(people, "ben@example.com")
    assert mailable(people) == 1


def test_a_token_stands_for_one_subscriber_and_lets_that_one_leave(people: Database) -> None:
    token = add(people, "ada@example.com").subscriber.token
    add(people, "ben@example.com")
    with people.write() as session:
        found = roll.by_token(session, token)
        assert found is not None
        assert found.address == "ada@example.com"
        assert roll.unsubscribe_by_token(session, token, NOW)
        assert roll.unsubscribe_by_token(session, token, LATER)
    assert find(people, "ada@example.com").left == NOW
    assert mailable(people) == 1


@pytest.mark.parametrize("token", ["", "nonsense", "ada@example.com", "%", "1"])
def test_a_token_that_there_is_not_does_nothing(people: Database, token: str) -> None:
    add(people, "ada@example.com")
    with people.write() as session:
        assert roll.by_token(session, token) is None
        assert not roll.unsubscribe_by_token(session, token, NOW)
    assert mailable(people) == 1


def test_a_token_cannot_be_guessed_and_says_nothing_about_the_person(people: Database) -> None:
    tokens = {new_token() for _ in range(1_000)}
    assert len(tokens) == 1_000
    assert {len(token) for token in tokens} == {22}
    ada, again = add(people, "ada@example.com"), add(people, "ada+again@example.com")
    assert ada.subscriber.token != again.subscriber.token
    url = links.leave_url("https://news.example.com", ada.subscriber.token)
    assert url == f"https://news.example.com/u/{ada.subscriber.token}"
    assert "ada" not in url


def test_the_first_reason_of_a_suppression_stays(people: Database) -> None:
    assert suppress(people, "ada@example.com", Why.COMPLAINT)
    assert not suppress(people, "ADA@example.com", Why.MANUAL)
    with people.read() as session:
        assert roll.suppressed_keys(session) == {"ada@example.com": "complaint"}


def test_only_a_mail_address_can_be_suppressed(people: Database) -> None:
    with pytest.raises(UsageError):
        suppress(people, "nobody")


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("Ada\r\nBcc: everybody@example.com", "Ada Bcc: everybody@example.com"),
        ("Ada\u2028\u2029\x85\0\x1b\tLovelace", "Ada Lovelace"),
        ("  Ada   Lovelace ", "Ada Lovelace"),
        ("\u202eadA", "adA"),
        ("Zoë 李", "Zoë 李"),
        ("x" * 500, "x" * 200),
        ("", ""),
    ],
)
def test_a_name_is_one_line_that_can_stand_in_a_header(people: Database, name: str, clean: str) -> None:
    assert add(people, "ada@example.com", name).subscriber.name == clean


def test_the_roll_is_listed_by_address_and_by_state(both: Database) -> None:
    for name in ("cleo", "ada", "ben"):
        add(both, f"{name}@example.com")
    unsubscribe(both, "ben@example.com")
    suppress(both, "cleo@example.com", Why.COMPLAINT)
    suppress(both, "stranger@example.com")
    with both.write() as session:
        session.add(Subscriber(address="d@example.com", key="d@example.com", state=State.PENDING, joined=NOW))
    ada, ben = ("ada@example.com", "active", None), ("ben@example.com", "unsubscribed", None)
    cleo, pending = ("cleo@example.com", "active", "complaint"), ("d@example.com", "pending", None)
    assert everybody(both) == [ada, ben, cleo, pending]
    assert everybody(both, State.ACTIVE) == [ada, cleo]
    assert everybody(both, State.UNSUBSCRIBED) == [ben]
    assert everybody(both, State.PENDING) == [pending]
    assert mailable(both) == 1
