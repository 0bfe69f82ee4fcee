"""People in and out: what becomes of each line of a file, whose export it is, and that nothing is lost on the way round."""

import contextlib
import csv
import io
import json
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import SQLModel, col, select

from pipeline.database import Database
from pipeline.errors import UsageError
from subscribers import exchange, history, names, roll, search, sheets
from subscribers.exchange import Imported
from subscribers.models import Label, NameWord, State, Subscriber, Suppression, Why

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


@dataclass
class Came:
    """What came of an import, and each refused line."""

    report: Imported
    refused: list[tuple[int, str]] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Added, unsubscribed, suppressed, known and refused."""
        told = self.report
        assert told.refused == len(self.refused)
        return told.added, told.unsubscribed, told.suppressed, told.known, told.refused


@dataclass
class People:
    """A database that files are brought into."""

    database: Database
    folder: Path

    def bring(self, content: str | bytes, name: str = "people.csv", **how: Any) -> Came:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        refused: list[tuple[int, str]] = []
        report = exchange.import_file(self.database, path, NOW, refuse=lambda *each: refused.append(each), **how)
        return Came(report, refused)

    def add(self, *addresses: str) -> None:
        with self.database.write() as session:
            for address in addresses:
                roll.add(session, address, NOW)

    def leave(self, key: str) -> None:
        with self.database.write() as session:
            assert roll.unsubscribe(session, key, NOW)

    def suppress(self, address: str, why: Why = Why.BOUNCE) -> None:
        with self.database.write() as session:
            roll.suppress(session, address, why, NOW)

    def find(self, key: str) -> Subscriber:
        with self.database.read() as session:
            found = roll.by_key(session, key)
        assert found is not None
        return found

    def states(self) -> dict[str, str]:
        with self.database.read() as session:
            return {who.address: who.state for who in search.everybody(session)}

    def suppressed(self) -> dict[str, str]:
        with self.database.read() as session:
            return roll.suppressed_keys(session)

    def labels(self, key: str) -> list[tuple[str, str]]:
        number = self.find(key).id
        with self.database.read() as session:
            rows = session.exec(select(Label).where(Label.subscriber_id == number)).all()
        return sorted((row.kind, row.name) for row in rows)

    def words(self, key: str) -> set[str]:
        number = self.find(key).id
        with self.database.read() as session:
            return set(session.exec(select(NameWord.word).where(NameWord.subscriber_id == number)).all())

    def everything(self) -> list[Any]:
        """All that is held of people but for what chance made: numbers, tokens."""
        with self.database.read() as session:
            people = session.exec(select(Subscriber).order_by(col(Subscriber.key))).all()
            labels = session.exec(select(Label)).all()
            words = session.exec(select(NameWord)).all()
            barred = session.exec(select(Suppression.key, Suppression.why).order_by(col(Suppression.key))).all()
        keys = {who.id: who.key for who in people}
        return [
            [who.model_dump(exclude={"id", "token"}) for who in people],
            sorted((keys[each.subscriber_id], each.kind, each.name) for each in labels),
            sorted((keys[each.subscriber_id], each.word) for each in words),
            [tuple(each) for each in barred],
        ]

    def forget(self) -> None:
        """Empty the tables, which is quicker than a new database."""
        with self.database.write() as session:
            for table in reversed(SQLModel.metadata.sorted_tables):
                session.connection().execute(table.delete())

    def written(self, form: str, state: State | None = None) -> str:
        return "".join(exchange.export(self.database, form, state))


@pytest.fixture
def people(tmp_path: Path, empty: bytes) -> Iterator[People]:
    """Nobody on the roll."""
    with made(tmp_path, empty) as nobody:
        yield nobody


class made:  # noqa: N801 - it is used as a function
    """An empty database in a folder, for as long as it is used."""

    def __init__(self, folder: Path, empty: bytes) -> None:
        (folder / "friday.db").write_bytes(empty)
        self._people = People(Database(f"sqlite:///{folder}/friday.db"), folder)

    def __enter__(self) -> People:
        return self._people

    def __exit__(self, *_: object) -> None:
        self._people.database.engine.dispose()


@pytest.fixture
def both(database_url: str, tmp_path: Path) -> Iterator[People]:
    """The same on each kind of database."""
    database = Database(database_url)
    yield People(database, tmp_path)
    database.engine.dispose()


# A list that somebody has


def test_an_import_puts_every_address_on_the_roll_with_its_name(both: People) -> None:
    assert both.bring("email,name\nada@example.com,Ada\nBen@Example.com,\n").counts == (2, 0, 0, 0, 0)
    ada, ben = both.find("ada@example.com"), both.find("ben@example.com")
    assert (ada.name, ada.state, ada.source, ada.joined, ada.left) == ("Ada", State.ACTIVE, "import", NOW, None)
    assert (ben.address, ben.name, ben.attributes) == ("Ben@example.com", "", {})
    assert ada.token != ben.token
    assert len(ada.token) == 22


def test_importing_twice_adds_nobody_and_changes_nobody(both: People) -> None:
    content = "email,name,status,tags\nada@example.com,Ada,,vip\nben@example.com,Ben,bounced,\ncy@example.com,,unsubscribed,\n"
    assert both.bring(content).counts == (1, 1, 1, 0, 0)
    before = both.everything()
    assert both.bring(content.replace("Ada", "Other").replace("vip", "new")).counts == (0, 0, 0, 3, 0)
    assert both.everything() == before


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
        b"\n\nemail,name\nada@example.com,Ada",
        b"email,name\nada@example.com,Ada,more,than,the,header\n",
        b"email,name,tags,joined\nada@example.com,Ada\n",
        b"name,name2,email,colour,colour\nAda,,ada@example.com\n",
    ],
    ids=[
        "BOM", "semicolons", "tabs", "CRLF", "CR", "quotes", "other order", "empty lines", "empty lines first", "a long line",
        "a short line", "two columns of a name that nobody needs",
    ],
)  # fmt: skip
def test_a_csv_is_read_however_a_spreadsheet_writes_it(people: People, content: bytes) -> None:
    assert people.bring(content).counts == (1, 0, 0, 0, 0)
    assert people.find("ada@example.com").name == "Ada"


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        ('"Lovelace, Ada ""the first""",,', 'Lovelace, Ada "the first"'),
        ('"Ada\nBcc: all@example.com",,', "Ada Bcc: all@example.com"),
        (",Ada, Lovelace ", "Ada Lovelace"),
        (",,Lovelace", "Lovelace"),
        ("Ada L.,Ada,Lovelace", "Ada L."),
        ("'=1+1,,", "=1+1"),
        ("'Tis,,", "'Tis"),
    ],
)
def test_a_name_is_taken_over_in_one_line(people: People, cells: str, name: str) -> None:
    people.bring(f"email,name,first name,last_name\nada@example.com,{cells}\n")
    assert people.find("ada@example.com").name == name


def test_language_zone_topics_tags_and_the_day_of_joining_are_taken_over(both: People) -> None:
    content = (
        "email,language,time zone,topics,tags,joined\n"
        'ada@example.com,en_GB,Europe/London,"policy, chips","""a, b"",vip,vip",2024-02-29\n'
        'ben@example.com,?!,Mars/Base,,"[""x"", ""y"", 1]",2024-02-30\n'
        "cy@example.com,,,,,2099-01-01T00:00:00Z\n"
        "di@example.com,de,,,,2024-02-29T23:00:00-05:00\n"
    )
    came = both.bring(content)
    assert came.counts == (4, 0, 0, 0, 0)
    assert came.report.undated == 2
    ada, ben, di = both.find("ada@example.com"), both.find("ben@example.com"), both.find("di@example.com")
    assert (ada.language, ada.zone, ada.joined) == ("en-GB", "Europe/London", datetime(2024, 2, 29, tzinfo=UTC))
    assert both.labels("ada@example.com") == [("tag", "a, b"), ("tag", "vip"), ("topic", "chips"), ("topic", "policy")]
    assert (ben.language, ben.zone, ben.joined) == ("", "", NOW)
    assert both.labels("ben@example.com") == [("tag", "x"), ("tag", "y")]
    assert both.find("cy@example.com").joined == NOW
    assert di.joined == datetime(2024, 3, 1, 4, tzinfo=UTC)


def test_other_columns_are_kept_only_when_they_are_asked_for(both: People) -> None:
    content = "email,Company,Seat_No\nada@example.com,Analytical\x07 Engines,\nben@example.com,,7\n"
    both.bring(content, attributes=["company", "seat no"])
    assert both.find("ada@example.com").attributes == {"company": "Analytical Engines"}
    assert both.find("ben@example.com").attributes == {"seat no": "7"}
    both.bring(content.replace("@", "2@"))
    assert both.find("ada2@example.com").attributes == {}


def test_a_column_that_is_asked_for_and_not_there_is_said_with_those_that_are(people: People) -> None:
    with pytest.raises(UsageError, match=r"people\.csv:1: no column 'firm', .* the columns are 'email', 'Company'$"):
        people.bring("email,Company\nada@example.com,x\n", attributes=["firm"])


def test_a_person_is_found_by_the_words_of_its_name(both: People) -> None:
    both.bring("email,name\nada@example.com,Ada KING-Noel ada\nzoe@example.com,Ｚｏë Straße\nnobody@example.com,\n")
    assert both.words("ada@example.com") == names.words_of("Ada KING-Noel ada")
    assert both.words("zoe@example.com") == {"zoe strasse", "strasse zoe"}
    assert both.words("nobody@example.com") == set()


# What is refused


def test_every_refused_line_has_its_number_and_reason_and_the_others_are_taken(both: People) -> None:
    both.suppress("cleo@example.com", Why.COMPLAINT)
    content = 'email,name\nada@example.com,"A\nB"\nsecretperson@,\ncleo@example.com,\n\nben@example.com,\nsecretperson,\n,\n'
    came = both.bring(content)
    assert came.counts == (2, 0, 0, 0, 4)
    assert [line for line, _ in came.refused] == [4, 5, 8, 9]
    reasons = [reason for _, reason in came.refused]
    assert reasons[0].startswith("not a mail address: ")
    assert reasons[1] == "suppressed (complaint)"
    assert "secretperson" not in " ".join(reasons)
    assert both.states() == {"ada@example.com": "active", "ben@example.com": "active"}


def test_an_import_never_brings_back_who_has_left_or_is_suppressed(both: People) -> None:
    both.add("ada@example.com", "ben@example.com")
    both.leave("ada@example.com")
    both.suppress("ben@example.com")
    both.suppress("cleo@example.com", Why.MANUAL)
    came = both.bring("email,state\nada@example.com,active\nben@example.com,active\nCleo@example.com,active\n")
    assert came.counts == (0, 0, 0, 1, 2)
    assert came.refused == [(3, "suppressed (bounce)"), (4, "suppressed (manual)")]
    assert both.states() == {"ada@example.com": "unsubscribed", "ben@example.com": "active"}


def test_nobody_who_was_erased_comes_back_or_is_written_down_again(both: People) -> None:
    def erased(key: str) -> tuple[str, ...]:
        return "#of an older secret", f"#{key[::-1]}"

    with both.database.write() as session:
        session.add(Suppression(key=erased("ada@example.com")[1], why=Why.ERASED, since=NOW))
    came = both.bring("email,status\nAda@example.com,\nada@example.com,bounced\nben@example.com,\n", erased=erased)
    assert came.counts == (1, 0, 0, 0, 2)
    assert came.refused[0] == (2, "erased, as the person wished; only the person can come back, by signing up")
    assert list(both.suppressed().values()) == ["erased"]
    assert list(both.states()) == ["ben@example.com"]


def test_an_address_that_comes_twice_in_a_file_is_added_once(people: People) -> None:
    came = people.bring("email,name\nada@example.com,Ada\nADA@example.com,Other\n ada@EXAMPLE.com ,\n")
    assert came.counts == (1, 0, 0, 2, 0)
    assert people.find("ada@example.com").name == "Ada"


# How the other house stood with them


@pytest.mark.parametrize("header", ["state", "Status", "subscription_status", "Subscriber Status"])
def test_only_those_whom_the_other_house_mailed_become_active(people: People, header: str) -> None:
    words = {
        "": "active", "active": "active", "Subscribed": "active", " enabled ": "active", "unsubscribed": "unsubscribed",
        "Cancelled": "unsubscribed", "blocklisted": "unsubscribed", "bounced": "bounce", "cleaned": "bounce",
        "complained": "complaint", "pending": "not", "unconfirmed": "not", "inactive": "not", "disabled": "not", "?": "not",
    }  # fmt: skip
    content = "\n".join([f"email,{header}", *(f"p{place}@example.com,{word}" for place, word in enumerate(words))])
    came = people.bring(content)
    found = people.states() | people.suppressed()
    assert [found.get(f"p{place}@example.com", "not") for place in range(len(words))] == list(words.values())
    name = header.lower().replace("_", " ")
    assert came.refused == [
        (12, f"has not confirmed: its {name} is 'pending'"),
        (13, f"has not confirmed: its {name} is 'unconfirmed'"),
        (14, f"not mailable: its {name} is 'inactive'"),
        (15, f"not mailable: its {name} is 'disabled'"),
        (16, f"not mailable: its {name} is filled"),
    ]


def test_who_complained_or_bounced_elsewhere_is_suppressed_though_on_the_roll(both: People) -> None:
    both.add("ada@example.com", "ben@example.com", "cy@example.com")
    both.suppress("cy@example.com", Why.COMPLAINT)
    content = "email,status\nada@example.com,complained\nben@example.com,unsubscribed\ncy@example.com,bounced\n"
    came = both.bring(content)
    assert came.counts == (0, 0, 1, 2, 0)
    assert both.states() == dict.fromkeys(("ada@example.com", "ben@example.com", "cy@example.com"), "active")
    assert both.suppressed() == {"ada@example.com": "complaint", "cy@example.com": "complaint"}
    number = both.find("ada@example.com").id
    assert number is not None
    with both.database.read() as session:
        (change,) = history.of(session, number)
        (row,) = session.exec(select(Suppression).where(Suppression.key == "ada@example.com")).all()
    assert (change.what, change.by, change.detail) == ("suppressed", "import", {"why": "complaint"})
    assert (row.note, row.since) == ("import", NOW)


def test_a_word_in_a_column_of_states_that_may_be_an_address_is_not_repeated(people: People) -> None:
    came = people.bring("email,status\nada@example.com,secretperson@example.com\n")
    assert came.refused == [(2, "not mailable: its status is filled")]


MAILCHIMP = "Email Address,First Name,Last Name,MEMBER_RATING,OPTIN_TIME,CONFIRM_TIME,{more}LEID,EUID,NOTES,TAGS"

EXPORTS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "Mailchimp": (
        MAILCHIMP.format(more="LAST_CHANGED,"),
        ['a@example.com, Ada , King ,2,2020-01-02 03:04:05,2020-01-03 03:04:05,,1,2,,"""Editors"",""VIP, gold"""'],
        {"a@example.com": ("active", "Ada King", "2020-01-03", ["Editors", "VIP, gold"])},
    ),
    "Mailchimp, unsubscribed": (
        MAILCHIMP.format(more="UNSUB_TIME,UNSUB_REASON,"),
        [
            "a@example.com,,,2,2020-01-02 03:04:05,,2021-05-06 07:08:09,NORMAL,1,2,,",
            "b@example.com,,,2,2020-01-02 03:04:05,,2021-05-06 07:08:09,SPAM,1,2,,",
            "c@example.com,,,2,2020-01-02 03:04:05,,,,1,2,,",
        ],
        {"a@example.com": ("unsubscribed", "", "2020-01-02", []), "b@example.com": "complaint", "c@example.com": None},
    ),
    "Mailchimp, cleaned": (
        MAILCHIMP.format(more="CLEAN_TIME,CLEAN_CAMPAIGN_TITLE,"),
        ["a@example.com,Ada,,1,2020-01-02 03:04:05,,2021-05-06 07:08:09,Seven,1,2,,"],
        {"a@example.com": "bounce"},
    ),
    "Substack": (
        "email,active_subscription,expiry,plan,email_disabled,created_at,first_payment_at",
        [
            "a@example.com,false,,other,false,2020-01-02T03:04:05.678Z,",
            "b@example.com,true,2030-01-01T00:00:00.000Z,yearly,true,2020-01-02T03:04:05.678Z,",
        ],
        {"a@example.com": ("active", "", "2020-01-02", []), "b@example.com": ("unsubscribed", "", "2020-01-02", [])},
    ),
    "Substack, dashboard": (
        "Email,Name,Stripe plan,Cancel date,Start date,Paid upgrade date,Activity,Type,Subscription source (free)",
        [
            "a@example.com,Ada,,,2020-01-02T03:04:05.678Z,,5,Free,direct",
            "b@example.com,Ben,,2021-01-01T00:00:00.000Z,2020-01-02T03:04:05.678Z,,5,Free,direct",
        ],
        {"a@example.com": ("active", "Ada", "2020-01-02", []), "b@example.com": None},
    ),
    "Buttondown": (
        "id,email_address,creation_date,notes,metadata,tags,referrer_url,secondary_id,type",
        [
            'u1,a@example.com,2020-01-02T03:04:05.678Z,,"{""firm"": ""Kew""}","press,vip",,1,regular',
            "u2,b@example.com,2020-01-02T03:04:05.678Z,,,,,2,unactivated",
            "u3,c@example.com,2020-01-02T03:04:05.678Z,,,,,3,unsubscribed",
            "u4,d@example.com,2020-01-02T03:04:05.678Z,,,,,4,past_due",
            "u5,e@example.com,2020-01-02T03:04:05.678Z,,,,,5,spammy",
            "u6,f@example.com,2020-01-02T03:04:05.678Z,,,,,6,removed",
        ],
        {
            "a@example.com": ("active", "", "2020-01-02", ["press", "vip"]), "b@example.com": None,
            "c@example.com": ("unsubscribed", "", "2020-01-02", []), "d@example.com": ("active", "", "2020-01-02", []),
            "e@example.com": None, "f@example.com": None,
        },
    ),
    "Ghost": (
        "id,email,name,note,subscribed_to_emails,complimentary_plan,stripe_customer_id,created_at,deleted_at,labels,tiers",
        [
            'm1,a@example.com,Ada,,true,true,,2020-01-02T03:04:05.000Z,,"press,vip",',
            "m2,b@example.com,Ben,,false,,,2020-01-02T03:04:05.000Z,,,",
            "m3,c@example.com,Cy,,true,,,2020-01-02T03:04:05.000Z,2021-01-02T03:04:05.000Z,,",
            "m4,d@example.com,Di,,,,,2020-01-02T03:04:05.000Z,,,",
        ],
        {
            "a@example.com": ("active", "Ada", "2020-01-02", ["press", "vip"]),
            "b@example.com": ("unsubscribed", "Ben", "2020-01-02", []), "c@example.com": None, "d@example.com": None,
        },
    ),
    "listmonk": (
        "uuid,email,name,attributes,status,created_at,updated_at",
        [
            'u1,a@example.com,Ada,"{""firm"": ""Kew""}",enabled,2020-01-02T03:04:05.678901Z,2020-01-02T03:04:05Z',
            "u2,b@example.com,Ben,{},blocklisted,2020-01-02T03:04:05.678901Z,2020-01-02T03:04:05Z",
            "u3,c@example.com,Cy,{},disabled,2020-01-02T03:04:05.678901Z,2020-01-02T03:04:05Z",
        ],
        {
            "a@example.com": ("active", "Ada", "2020-01-02", []), "b@example.com": ("unsubscribed", "Ben", "2020-01-02", []),
            "c@example.com": None,
        },
    ),
    "beehiiv": (
        "email,First Name,Last Name,status,tier,created_at,stripe_customer_id,Free Tier,Premium Tier,unsubscribed_at",
        [
            "a@example.com, Ada ,King,active,free,2020-01-02 03:04:05 UTC,,Yes,No,",
            "b@example.com,,,inactive,free,2020-01-02 03:04:05 UTC,,Yes,No,",
            "c@example.com,,,pending,free,2020-01-02 03:04:05 UTC,,Yes,No,",
            "d@example.com,,,active,free,2020-01-02 03:04:05 UTC,,Yes,No,2021-01-02 03:04:05 UTC",
        ],
        {
            "a@example.com": ("active", "Ada King", "2020-01-02", []), "b@example.com": ("unsubscribed", "", "2020-01-02", []),
            "c@example.com": None, "d@example.com": ("unsubscribed", "", "2020-01-02", []),
        },
    ),
    "Kit": (
        "first_name,email,created_at,status,tags",
        [
            'Ada,a@example.com,2020-01-02T03:04:05Z,active,"press, vip"',
            "Ben,b@example.com,2020-01-02T03:04:05Z,cancelled,",
            "Cy,c@example.com,2020-01-02T03:04:05Z,bounced,",
            "Di,d@example.com,2020-01-02T03:04:05Z,complained,",
            "Ed,e@example.com,2020-01-02T03:04:05Z,inactive,",
        ],
        {
            "a@example.com": ("active", "Ada", "2020-01-02", ["press", "vip"]),
            "b@example.com": ("unsubscribed", "Ben", "2020-01-02", []), "c@example.com": "bounce",
            "d@example.com": "complaint", "e@example.com": None,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_the_export_of_another_house_is_recognised_and_its_word_is_kept(people: People, name: str) -> None:
    header, lines, expected = EXPORTS[name]
    came = people.bring("\n".join([header, *lines]))
    house = name.split(",", maxsplit=1)[0]
    assert came.report.dialect == house
    barred = people.suppressed()
    for address, what in expected.items():
        if isinstance(what, tuple):
            found = people.find(address)
            tags = [label for _, label in people.labels(address)]
            assert (found.state, found.name, f"{found.joined:%Y-%m-%d}", tags) == what
            assert found.source == f"import: {house}"
        else:
            assert (address in people.states(), barred.get(address)) == (False, what)
    refused = [place for place, what in enumerate(expected.values(), 2) if what is None]
    assert [line for line, _ in came.refused] == refused


def test_who_unsubscribed_elsewhere_left_when_that_house_says(people: People) -> None:
    header, lines, _ = EXPORTS["Mailchimp, unsubscribed"]
    people.bring("\n".join([header, *lines]))
    assert people.find("a@example.com").left == datetime(2021, 5, 6, 7, 8, 9, tzinfo=UTC)
    people.bring("email,status\nz@example.com,unsubscribed\n")
    assert people.find("z@example.com").left == NOW


@pytest.mark.parametrize("name", ["listmonk", "Buttondown"])
def test_values_that_a_house_keeps_in_one_column_can_be_asked_for(people: People, name: str) -> None:
    header, lines, _ = EXPORTS[name]
    people.bring("\n".join([header, *lines]), attributes=["firm"])
    assert people.find("a@example.com").attributes == {"firm": "Kew"}


def test_what_an_export_leaves_out_is_said(people: People) -> None:
    header, lines, _ = EXPORTS["listmonk"]
    assert "whoever has left a list" in people.bring("\n".join([header, *lines])).report.beware


# A rehearsal


def test_a_rehearsal_says_what_would_happen_and_writes_nothing(both: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BATCH", 2)
    both.add("old@example.com", "older@example.com")
    both.suppress("barred@example.com", Why.MANUAL)
    lines = [
        "ada@example.com,", "ben@example.com,bounced", "old@example.com,complained", "ada@example.com,", "ben@example.com,",
        "ben@example.com,complained", "barred@example.com,", "old@example.com,", "cy@example.com,unsubscribed", "nobody,",
        "cy@example.com,active", "older@example.com,unsubscribed", "barred@example.com,bounced", "di@example.com,pending",
    ]  # fmt: skip
    content = "\n".join(["email,status", *lines])
    before = both.everything()
    rehearsed = both.bring(content, dry_run=True)
    assert both.everything() == before
    assert both.bring(content) == rehearsed
    assert rehearsed.counts == (1, 1, 3, 4, 5)


# Files that cannot be read


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"people\.csv: the file is empty: there is nobody to import"),
        (b"\n \n", r"people\.csv: the file is empty: there is nobody to import"),
        (b"email,name\n", r"people\.csv: a header and no line below it: there is nobody to import"),
        (b"email,name\n\n\n", r"people\.csv: a header and no line below it: there is nobody to import"),
        (b"name\nAda\n", r"people\.csv:1: no column of addresses: the first line names the columns, one of them email, "),
        (b"ada@example.com\nben@example.com\n", r"people\.csv:1: no column of addresses: the first line names the columns"),
        (b"email,E-Mail,Email\nada@example.com,,\n", r"people\.csv:1: two columns are called 'email': take out the one that"),
        (b"email,name,Name\nada@example.com,,\n", r"people\.csv:1: two columns are called 'name'"),
        (b"email,name\nada@example.com\xe9,A\n", r"people\.csv: not UTF-8 at byte 26: save it as UTF-8"),
        (b"\xef\xbb\xbfemail,name\nada@example.com\xe9,A\n", r"people\.csv: not UTF-8 at byte 29: save it as UTF-8"),
        (b"email,name\nada@example.com,\xc3", r"people\.csv: not UTF-8 at byte 27: save it as UTF-8"),
        ("email,name\nada@example.com,A\n".encode("utf-16"), r"people\.csv: not UTF-8 at byte 0: save it as UTF-8"),
        ("email,name\nada@example.com,A\n".encode("utf-16-le"), r"people\.csv: a NUL at byte 1: this is no CSV in UTF-8"),
        (b"email,name\nada@example.com,A\0\n", r"people\.csv: a NUL at byte 28: this is no CSV in UTF-8"),
        (
            b'email,name\nada@example.com,"' + b"x\n" * 100_000,
            r'people\.csv:2: a field without end begins here: a " is missing that would close it',
        ),
        (
            b'email,name\nada@example.com,A\nben@example.com,"B\ncy@example.com,C\n',
            r'people\.csv:3: a field without end begins here: a " is missing that would close it',
        ),
        (
            b'email,name\nada@example.com,"Ada" King\n',
            r'people\.csv:2: text behind the closing " of a field: inside a field, a " is written twice',
        ),
        (b"email,name\n" + b"x" * 2_200_000, r"people\.csv: a line of more than a megabyte before byte 2097152"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_whole_with_a_sentence(people: People, content: bytes, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        people.bring(content)
    assert "@" not in str(caught.value)
    assert people.states() == {}


def test_what_is_wrong_far_down_is_found_before_anything_is_written(people: People) -> None:
    lines = [f"p{number:06}@example.com,P" for number in range(3_000)]
    content = "\n".join(["email,name", *lines, "ada@example.com,José"]).encode("latin-1")
    with pytest.raises(UsageError, match=f"not UTF-8 at byte {content.index(0xE9)}:"):
        people.bring(content)
    with pytest.raises(UsageError, match=r"people\.csv:3002: a field without end"):
        people.bring("\n".join(["email,name", *lines, 'ada@example.com,"José']))
    assert people.states() == {}


def test_a_byte_that_is_cut_in_two_by_the_way_of_reading_is_none_that_is_wrong(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second é begins at byte 21.
    monkeypatch.setattr(sheets, "LONGEST_ROW", 11)
    content = "email\né@example.com\né@example.org\n"
    assert people.bring(content).counts == (2, 0, 0, 0, 0)
    with pytest.raises(UsageError, match="not UTF-8 at byte 36:"):
        people.bring(content.encode() + b"\xe9")
    with pytest.raises(UsageError, match="not UTF-8 at byte 21:"):
        people.bring(content.encode().replace(b"\xc3\xa9@example.org", b"\xc3A@example.org"))


def test_a_file_that_is_not_there_is_said(people: People) -> None:
    with pytest.raises(UsageError, match=r"none\.csv: No such file or directory"):
        exchange.import_file(people.database, people.folder / "none.csv", NOW)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[]", "an empty list: there is nobody to import"),
        ("[1]", ":1: not an object"),
        ('[{"address": "ada@example.com"}', ":1: not JSON"),
        ('[\n{"address": "ada@example.com"},\n{"addr', ":3: not JSON"),
        ("[" * 100_000, ":1: not JSON"),
        ('[{"address": "' + "x" * 2_000_000, "a line of more than a megabyte|:1: not JSON"),
    ],
)
def test_a_json_that_cannot_be_read_is_refused_whole(people: People, content: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        people.bring(content, "people.json")
    assert people.states() == {}


WHOLE = {"address": "ada@example.com", "state": "active", "joined": "2026-01-02T03:04:05+00:00"}


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"state": "sleeping"}, "its state is none of pending, active, unsubscribed"),
        ({"state": 1}, "its state is no text"),
        ({"suppressed": "erased"}, "its suppressed is none of bounce, manual, complaint"),
        ({"joined": ""}, "its joined is empty"),
        ({"joined": "yesterday"}, "its joined is no date and time such as"),
        ({"time_zone": "Mars/Base"}, "its time_zone is not known here"),
        ({"language": "English"}, "its language is no tag such as"),
        ({"tags": "vip"}, "its tags are no list of texts"),
        ({"attributes": {"a": 1}}, "its attributes are no object of texts by name"),
        ({"attributes": {"a": "\0"}}, "its attributes are no object of texts by name"),
        ({"address": "nobody"}, "not a mail address: "),
    ],
)
def test_a_person_that_is_not_as_we_write_it_is_refused(people: People, more: dict[str, Any], complaint: str) -> None:
    came = people.bring("[\n" + json.dumps(WHOLE | more) + "\n]", "people.json")
    ((line, reason),) = came.refused
    assert (line, reason[: len(complaint)]) == (2, complaint)


# The way round


@dataclass(frozen=True)
class Kept:
    """A person as hypothesis makes them."""

    name: str
    state: State
    why: Why | None
    dates: tuple[datetime, datetime | None, datetime | None]
    zone: str
    language: str
    topics: list[str]
    tags: list[str]
    source: str
    attributes: dict[str, str]


NASTY = st.text(st.sampled_from("=+-@'\"\\,;[]{}\t \r\n＝＋－＠aé李\u0301:#\u2028"), max_size=6)
LINE = (NASTY | st.text(max_size=12)).map(roll.clean_name)
WORDS = st.lists((NASTY | st.text(max_size=6)).map(roll.clean_name).filter(bool), max_size=3, unique=True)
WHENS = st.datetimes(timezones=st.just(UTC))
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | NASTY
KEPT = st.builds(
    Kept, LINE, st.sampled_from(State), st.none() | st.sampled_from([Why.BOUNCE, Why.MANUAL, Why.COMPLAINT]),
    st.tuples(WHENS, st.none() | WHENS, st.none() | WHENS), st.sampled_from(["", "Europe/Berlin", "Asia/Kolkata"]),
    st.sampled_from(["", "en", "pt-BR", "zh-Hant-TW"]), WORDS, WORDS, LINE, st.dictionaries(TEXTS, TEXTS, max_size=2),
)  # fmt: skip
LOCAL = ("ada", "'=ada", "+ben", "=cy", "-di", "'ed", "josé", "''+fay")


def keep(people: People, crowd: Sequence[Kept]) -> None:
    with people.database.write() as session:
        for local, each in zip(LOCAL, crowd, strict=False):
            joined, left, paused = each.dates
            who = Subscriber(
                address=f"{local}@example.com", key=f"{local}@example.com", name=each.name, state=each.state, joined=joined,
                left=left, paused_until=paused, zone=each.zone, language=each.language, source=each.source,
                attributes=each.attributes,
            )  # fmt: skip
            roll.add_new(session, [who])
            found = roll.by_key(session, who.key)
            assert found is not None
            assert found.id is not None
            for kind, names in (("topic", each.topics), ("tag", each.tags)):
                session.add_all([Label(subscriber_id=found.id, kind=kind, name=name) for name in names])
            if each.why:
                session.add(Suppression(key=who.key, why=each.why, since=NOW))


def test_what_was_exported_is_restored_by_an_import(tmp_path: Path, empty: bytes) -> None:
    for each in ("here", "there"):
        (tmp_path / each).mkdir()

    with made(tmp_path / "here", empty) as here, made(tmp_path / "there", empty) as there:

        @settings(max_examples=80, deadline=None, derandomize=True, database=None)
        @given(crowd=st.lists(KEPT, min_size=1, max_size=len(LOCAL)), form=st.sampled_from(exchange.FORMATS))
        def goes_round(crowd: list[Kept], form: str) -> None:
            here.forget()
            there.forget()
            keep(here, crowd)
            text = here.written(form)
            came = there.bring(text, f"people.{form}")
            assert (came.report.dialect, came.refused) == ("Friday", [])
            before = there.everything()
            assert before == here.everything()
            assert there.bring(text, f"people.{form}").counts == (0, 0, 0, len(crowd), 0)
            assert there.everything() == before

        goes_round()


@pytest.mark.parametrize("form", exchange.FORMATS)
def test_the_way_round_is_the_same_on_each_kind_of_database(both: People, form: str, tmp_path: Path, empty: bytes) -> None:
    (tmp_path / "there").mkdir()
    ada = Kept(
        "=Ada, 'K'", State.UNSUBSCRIBED, Why.COMPLAINT, (NOW, LATER, LATER), "Europe/Berlin", "de", ["a, b", "[c"], ["x"],
        "import: Ghost", {"Seat": "7\n8"},
    )  # fmt: skip
    keep(both, [ada, replace(ada, why=None, state=State.PENDING)])
    with made(tmp_path / "there", empty) as there:
        there.bring(both.written(form), f"people.{form}")
        assert there.everything() == both.everything()
        both_again = there.written(form)
    assert both_again == both.written(form)


def test_an_export_in_pages_holds_everybody_once_by_address(both: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PAGE", 3)
    both.bring("email\n" + "".join(f"p{number:02}@example.com\n" for number in range(10)))
    both.leave("p04@example.com")
    told: list[tuple[int, int]] = []
    text = "".join(exchange.export(both.database, "csv", None, lambda *each: told.append(each)))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["address"] for row in rows] == [f"p{number:02}@example.com" for number in range(10)]
    assert tuple(rows[0]) == exchange.COLUMNS
    assert told == [(3, 10), (6, 10), (9, 10), (10, 10)]
    left = json.loads(both.written("json", State.UNSUBSCRIBED))
    assert [row["address"] for row in left] == ["p04@example.com"]
    assert text.count("\r\n") == text.count("\n") == 11


def test_an_empty_roll_is_an_export_too(people: People) -> None:
    assert people.written("csv") == ",".join(exchange.COLUMNS) + "\r\n"
    assert json.loads(people.written("json")) == []


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠", " =", "'=", "\u3000@"])
def test_no_cell_of_an_export_is_run_by_a_spreadsheet(first: str) -> None:
    cell = f"{first}cmd|' /C calc'!A0"
    assert sheets.safe(cell) == f"'{cell}"
    assert sheets.plain(sheets.safe(cell)) == cell


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(NASTY | st.text())
def test_a_cell_that_was_made_safe_says_afterwards_what_it_said(cell: str) -> None:
    assert sheets.plain(sheets.safe(cell)) == cell
    assert not sheets.safe(cell).startswith(tuple("=+-@\t\r\n\0＝＋－＠"))


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(WORDS)
def test_words_in_one_cell_come_out_as_they_went_in(words: list[str]) -> None:
    assert [word.strip() for word in sheets.unpacked(sheets.packed(words))] == words


def test_a_file_is_there_whole_or_not_at_all_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("old", "utf-8")
    path.chmod(0o644)
    with contextlib.suppress(ZeroDivisionError), sheets.written(path) as file:
        file.write(str(1 // 0))
    assert path.read_text("utf-8") == "old"
    with sheets.written(path) as file:
        file.write("new\r\n")
    assert path.read_bytes() == b"new\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with (
        pytest.raises(UsageError, match=r"none/people\.csv: No such file or directory"),
        sheets.written(tmp_path / "none/people.csv"),
    ):
        pass


def test_what_is_no_plain_file_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    with sheets.written(Path("/dev/null")) as file:
        file.write("x")
    assert Path("/dev/null").is_char_device()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=12), st.integers(0, 12))
def test_a_name_that_was_cleaned_is_clean(name: str, limit: int) -> None:
    once = roll.clean_name(name, limit)
    assert roll.clean_name(once, limit) == once


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(
    st.emails()
    | st.builds("{}@{}{}".format, st.text("abz09_+'-.Aé ", max_size=8), st.text("abzAZ09.-x", max_size=8), st.just(".com"))
    | st.sampled_from(["info@x.com", "Info@x.com", "a@xn--mnchen-3ya.de", "a@test", "a@x.test", "a@X.COM", "a.@x.com"])
)
def test_an_address_is_judged_as_the_validator_alone_judges_it(text: str) -> None:
    try:
        valid = validate_email(text.strip(), check_deliverability=False).normalized
    except EmailNotValidError:
        with pytest.raises(UsageError):
            roll.normalise(text)
    else:
        assert roll.normalise(text).written == valid


def test_ten_thousand_lines_are_imported_quickly(people: People) -> None:
    content = "email,name\n" + "".join(f"person{number}@example.com,Person {number}\n" for number in range(10_000))
    began = time.process_time()
    assert people.bring(content).counts == (10_000, 0, 0, 0, 0)
    assert time.process_time() - began < 5
