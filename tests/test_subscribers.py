"""People and permission: who is on the roll, who never comes back by accident, and what a CSV may do."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.database import Database
from pipeline.errors import UsageError
from subscribers import exchange, links, roll, search
from subscribers.exchange import Imported
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


def import_csv(people: Database, folder: Path, content: str | bytes) -> Imported:
    path = folder / "people.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return exchange.import_csv(people, path, NOW)


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


def test_an_import_puts_every_address_on_the_roll_with_its_name(both: Database, tmp_path: Path) -> None:
    report = import_csv(both, tmp_path, "email,name\nada@example.com,Ada\nBen@Example.com,\n")
    assert asdict(report) == {"added": 2, "known": 0, "refused": []}
    ada, ben = find(both, "ada@example.com"), find(both, "ben@example.com")
    assert (ada.name, ada.state, ada.source, ada.joined) == ("Ada", State.ACTIVE, "import", NOW)
    assert (ben.address, ben.name) == ("Ben@example.com", "")
    assert ada.token != ben.token


def test_importing_twice_adds_nobody(people: Database, tmp_path: Path) -> None:
    import_csv(people, tmp_path, "email\nada@example.com\n")
    assert asdict(import_csv(people, tmp_path, "email\nADA@example.com\n")) == {"added": 0, "known": 1, "refused": []}
    assert mailable(people) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfemail,name\nada@example.com,Ada\n",
        b"email;name\nada@example.com;Ada\n",
        b"email\tname\nada@example.com\tAda\n",
        b"email,name\r\nada@example.com,Ada\r\n",
        b"email,name\rada@example.com,Ada\r",
        b'"E-Mail","Full Name"\n"ada@example.com","Ada"\n',
        b"id,Name , EMAIL ADDRESS\n7,Ada, ada@example.com\n",
        b"email,name\n\n\nada@example.com,Ada",
        b"email,name\nada@example.com,Ada,more,than,the,header\n",
    ],
    ids=["BOM", "semicolons", "tabs", "CRLF", "CR", "quotes", "other order", "empty lines", "a long line"],
)
def test_a_csv_is_read_however_a_spreadsheet_writes_it(people: Database, tmp_path: Path, content: bytes) -> None:
    assert asdict(import_csv(people, tmp_path, content)) == {"added": 1, "known": 0, "refused": []}
    assert find(people, "ada@example.com").name == "Ada"


def test_a_comma_in_quotes_is_part_of_a_name(people: Database, tmp_path: Path) -> None:
    import_csv(people, tmp_path, 'email,name\nada@example.com,"Lovelace, Ada ""the first"""\n')
    assert find(people, "ada@example.com").name == 'Lovelace, Ada "the first"'


def test_a_line_break_in_an_imported_name_is_taken_out(people: Database, tmp_path: Path) -> None:
    import_csv(people, tmp_path, 'email,name\nada@example.com,"Ada\nBcc: all@example.com"\n')
    assert find(people, "ada@example.com").name == "Ada Bcc: all@example.com"


@pytest.mark.parametrize("content", ["", "\n", "name\nAda\n", "ada@example.com\nben@example.com\n"])
def test_a_csv_without_a_column_of_addresses_is_refused(people: Database, tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match=r"people\.csv:1: no column of addresses: name one of email, "):
        import_csv(people, tmp_path, content)
    assert everybody(people) == []


def test_every_refused_line_has_its_number_and_reason_and_the_others_are_taken(people: Database, tmp_path: Path) -> None:
    suppress(people, "cleo@example.com", Why.COMPLAINT)
    content = "email\nada@example.com\nsecretperson@\ncleo@example.com\n\nben@example.com\nsecretperson\n"
    report = import_csv(people, tmp_path, content)
    assert (report.added, report.known) == (2, 0)
    assert [line for line, _ in report.refused] == [3, 4, 7]
    reasons = [reason for _, reason in report.refused]
    assert reasons[0].startswith("not a mail address: ")
    assert reasons[1] == "suppressed (complaint)"
    assert "secretperson" not in " ".join(reasons)
    assert [address for address, _, _ in everybody(people)] == ["ada@example.com", "ben@example.com"]


def test_a_line_without_an_address_is_refused(people: Database, tmp_path: Path) -> None:
    report = import_csv(people, tmp_path, "name,email\nAda\nBen,\nCleo,cleo@example.com\n")
    assert [line for line, _ in report.refused] == [2, 3]
    assert report.added == 1


def test_an_import_never_brings_back_who_has_left_or_is_suppressed(both: Database, tmp_path: Path) -> None:
    for name in ("ada", "ben"):
        add(both, f"{name}@example.com")
    unsubscribe(both, "ada@example.com")
    suppress(both, "ben@example.com")
    suppress(both, "cleo@example.com", Why.ERASED)
    report = import_csv(
        both, tmp_path, "email,state\nada@example.com,active\nben@example.com,active\nCleo@example.com,active\n"
    )
    assert report.added == 0
    assert everybody(both) == [("ada@example.com", "unsubscribed", None), ("ben@example.com", "active", "bounce")]
    assert mailable(both) == 0


def test_an_address_that_comes_twice_in_a_file_is_added_once(people: Database, tmp_path: Path) -> None:
    report = import_csv(people, tmp_path, "email,name\nada@example.com,Ada\nADA@example.com,Other\n ada@EXAMPLE.com ,\n")
    assert asdict(report) == {"added": 1, "known": 2, "refused": []}
    assert find(people, "ada@example.com").name == "Ada"


@pytest.mark.parametrize("header", ["state", "Status", "subscription status"])
def test_only_those_whom_the_other_house_mailed_are_taken(people: Database, tmp_path: Path, header: str) -> None:
    states = ["", "active", "Subscribed", " enabled ", "unsubscribed", "bounced", "pending", "cleaned"]
    lines = [f"p{place}@example.com,{state}" for place, state in enumerate(states)]
    report = import_csv(people, tmp_path, "\n".join([f"email,{header}", *lines]))
    assert report.added == 4
    assert report.refused == [
        (6, "not mailable: its state is 'unsubscribed'"),
        (7, "not mailable: its state is 'bounced'"),
        (8, "not mailable: its state is 'pending'"),
        (9, "not mailable: its state is 'cleaned'"),
    ]


def test_a_file_that_is_not_utf_8_is_refused_whole_and_the_byte_named(people: Database, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"people\.csv: not UTF-8 at byte 26: save it as UTF-8"):
        import_csv(people, tmp_path, "email,name\nada@example.com,é\n".encode("latin-1").replace(b",\xe9", b"\xe9"))
    assert everybody(people) == []


def test_the_byte_is_named_by_its_place_in_the_file_however_far_down(people: Database, tmp_path: Path) -> None:
    lines = [f"p{number:06}@example.com,P" for number in range(600)]
    content = "\n".join(["email,name", *lines, "ada@example.com,José"]).encode("latin-1")
    with pytest.raises(UsageError, match=f"not UTF-8 at byte {content.index(0xE9)}:"):
        import_csv(people, tmp_path, content)
    assert everybody(people) == []


def test_a_file_that_is_not_there_is_said(people: Database, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv: No such file or directory"):
        exchange.import_csv(people, tmp_path / "none.csv", NOW)


def test_a_field_without_end_is_refused(people: Database, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"people\.csv:\d+: field larger than field limit"):
        import_csv(people, tmp_path, 'email,name\nada@example.com,"' + "x" * 200_000)
    assert everybody(people) == []


def test_ten_thousand_lines_are_imported_quickly(people: Database, tmp_path: Path) -> None:
    content = "email,name\n" + "".join(f"person{number}@example.com,Person {number}\n" for number in range(10_000))
    began = time.process_time()
    report = import_csv(people, tmp_path, content)
    assert time.process_time() - began < 5
    assert report.added == 10_000
    assert mailable(people) == 10_000
