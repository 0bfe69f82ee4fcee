"""People by page, by search and by label: nobody twice, nobody left out, and never a table read from end to end."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert, text
from sqlmodel import Session, col, select

from pipeline.database import MIGRATIONS, Database
from pipeline.errors import UsageError
from subscribers import history, labels, names, roll, search
from subscribers.models import Label, LabelKind, NameWord, State, Subscriber, Suppression, Why
from subscribers.search import Counted, Found, Wanted
from subscribers.segments import parse
from tests.conftest import made_database

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def people(database_url: str) -> Iterator[Database]:
    """A database with nobody on the roll."""
    made = Database(database_url)
    yield made
    made.engine.dispose()


@pytest.fixture
def local(tmp_path: Path, empty: bytes) -> Iterator[Database]:
    (tmp_path / "friday.db").write_bytes(empty)
    made = Database(f"sqlite:///{tmp_path}/friday.db")
    yield made
    made.engine.dispose()


def add(database: Database, *addresses: str, name: str = "") -> list[int]:
    with database.write() as session:
        return [roll.add(session, address, NOW, name).subscriber.id or 0 for address in addresses]


def shown(found: Found) -> list[str]:
    return [each.address for each in found.people]


def find(database: Database, typed: str, wanted: Wanted = search.EVERYBODY) -> list[str]:
    with database.read() as session:
        return shown(search.find(session, typed, wanted))


def pages(session: Session, wanted: Wanted, size: int) -> Iterator[Found]:
    found = search.page(session, wanted, size=size)
    yield found
    while found.after:
        found = search.page(session, wanted, found.after, size)
        yield found


def test_a_page_shows_people_by_address_with_all_that_a_list_needs(people: Database) -> None:
    ada, ben = add(people, "Ada@example.com", "ben@example.com", name="A Name")
    with people.write() as session:
        roll.suppress(session, "ben@example.com", Why.MANUAL, NOW)
        roll.unsubscribe(session, "ada@example.com", NOW)
        labels.put(session, ada, LabelKind.TOPIC, ["policy", "chips"], "us", NOW)
        labels.put(session, ada, LabelKind.TAG, ["vip"], "us", NOW)
    with people.read() as session:
        found = search.page(session)
    assert (found.before, found.after, found.more) == (None, None, False)
    assert found.people == (
        search.Person(ada, "Ada@example.com", "A Name", State.UNSUBSCRIBED, None, NOW, None, ("chips", "policy"), ("vip",)),
        search.Person(ben, "ben@example.com", "A Name", State.ACTIVE, "manual", NOW, None, (), ()),
    )


def test_nobody_there_is_an_empty_page(people: Database) -> None:
    with people.read() as session:
        assert search.page(session) == Found(())
        assert search.page(session, Wanted(suppressed=True, segment=parse("tag:a or tag:b"))) == Found(())
        assert search.find(session, "a") == Found(())
        assert search.count(session) == Counted(0, exact=True)


STATES = [State.ACTIVE, State.ACTIVE, State.PENDING, State.UNSUBSCRIBED]


def crowd(database: Database, number: int) -> None:
    """People who differ in everything that can be asked for, whose addresses are in another order than they came."""
    with database.write() as session:
        hosts = ["rare.example", *["example.org"] * 4]
        addresses = [f"p{(each * 7919) % number:06}@{hosts[each % 5]}" for each in range(number)]
        rows = [
            {"id": each, "address": address, "key": address, "token": f"{each:022}", "name": f"Pat Number{each}",
             "state": STATES[each % 4], "source": "", "joined": NOW - timedelta(hours=each), "attributes": {}}
            for each, address in enumerate(addresses, 1)
        ]  # fmt: skip
        worn = [
            {"subscriber_id": each, "kind": kind, "name": name}
            for each in range(1, number + 1)
            for kind, name, often in (("topic", "policy", 2), ("tag", "vip", 7), ("tag", "one", number))
            if each % often == 0
        ]
        barred = [{"key": address, "why": "bounce", "note": "", "since": NOW} for address in addresses[::11]]
        barred += [
            {"key": f"p{each * 10:06}@gone.example", "why": "erased", "note": "", "since": NOW} for each in range(number // 10)
        ]
        words = [{"word": word, "subscriber_id": row["id"]} for row in rows for word in names.words_of(str(row["name"]))]
        for table, values in ((Subscriber, rows), (Label, worn), (Suppression, barred), (NameWord, words)):
            session.connection().execute(insert(table), values)


WANTED = {
    "everybody": Wanted(),
    "a state": Wanted(State.UNSUBSCRIBED),
    "the suppressed": Wanted(suppressed=True),
    "those who are not": Wanted(suppressed=False),
    "a topic": Wanted(topic="policy"),
    "a tag": Wanted(tag="vip"),
    "a topic and a tag": Wanted(topic="policy", tag="vip"),
    "a state and a tag": Wanted(State.ACTIVE, tag="vip"),
    "the suppressed of a topic": Wanted(suppressed=True, topic="policy"),
    "the suppressed of a state": Wanted(State.PENDING, suppressed=True),
    "a segment": Wanted(segment=parse("joined>2026-11-20 or tag:one")),
    "a segment of a tag": Wanted(segment=parse("tag:vip and not topic:policy")),
    "a segment of a domain": Wanted(State.ACTIVE, segment=parse("domain:rare.example and tag:vip and name:*")),
    "a segment of a domain alone": Wanted(segment=parse("domain:rare.example")),
    "a tag and a segment": Wanted(tag="vip", segment=parse("tag:vip and topic:policy")),
}


TYPED = ("p0010", "p", "@example.org", "@rare", "example.o", "pat", "number1", "pat number12", "nobody")


def middle(session: Session, wanted: Wanted, *, back: bool = False) -> Found:
    """A page in the middle, or the one before it, of those that there are."""
    who = session.exec(select(Subscriber.id).where(Subscriber.key > "p000300").order_by(col(Subscriber.key)).limit(1)).one()
    return search.page(session, wanted, f"{'b' if back else 'a'}{who}")


def meets(wanted: Wanted, each: search.Person) -> bool:
    segment = {
        "joined>2026-11-20 or tag:one": each.joined >= datetime(2026, 11, 21, tzinfo=UTC) or "one" in each.tags,
        "tag:vip and not topic:policy": "vip" in each.tags and "policy" not in each.topics,
        "domain:rare.example and tag:vip and name:*": each.address.endswith("@rare.example") and "vip" in each.tags,
        "domain:rare.example": each.address.endswith("@rare.example"),
        "tag:vip and topic:policy": "vip" in each.tags and "policy" in each.topics,
    }
    return (
        wanted.state in (None, each.state)
        and wanted.suppressed in (None, each.suppressed is not None)
        and (not wanted.topic or wanted.topic in each.topics)
        and (not wanted.tag or wanted.tag in each.tags)
        and (wanted.segment is None or segment[str(wanted.segment)])
    )


@pytest.mark.parametrize("looked_at", [20, 21, 26, 10_000])
def test_the_pages_show_all_who_are_wanted_once_there_and_back(
    people: Database, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(search, "LOOKED_AT", looked_at)
    crowd(people, 120)
    with people.read() as session:
        every = list(search.everybody(session))
        assert [each.address for each in every] == sorted(each.address for each in every)
        assert len(every) == 120
        for name, wanted in WANTED.items():
            there = list(pages(session, wanted, 7))
            met = [each for found in there for each in found.people]
            assert {each.id for each in met} == {each.id for each in every if meets(wanted, each)}, name
            by = "address" if met != sorted(met, key=lambda each: each.id) else "id"
            assert met == sorted(met, key=lambda each: getattr(each, by)), name
            assert 0 < len(met) == len(set(met)), name
            assert there[0].before is None, name
            back = there[-1]
            again = list(back.people)
            while back.before:
                back = search.page(session, wanted, back.before, 7)
                again = [*back.people, *again]
            assert again == met, name
            counted = search.count(session, wanted)
            assert counted == Counted(len(met), exact=True) or (
                not counted.exact and counted.number <= min(len(met), looked_at)
            )
            assert counted.exact or looked_at < 120, name


def test_the_way_back_from_an_empty_page_shows_the_last_who_was_seen(people: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LOOKED_AT", 20)
    crowd(people, 40)
    with people.write() as session:
        twentieth = search.page(session, size=20).people[-1]
        labels.put(session, twentieth.id, LabelKind.TAG, ["alone"], "us", NOW)
        wanted = Wanted(segment=parse("tag:alone or tag:other"))
        first, last = pages(session, wanted, 7)
        assert ([each.id for each in first.people], last.people) == ([twentieth.id], ())
        back = search.page(session, wanted, last.before or "", 7)
        assert back.people == first.people


def test_a_page_leads_on_though_the_last_on_it_are_erased_meanwhile(people: Database) -> None:
    crowd(people, 40)
    with people.write() as session:
        first = search.page(session, size=10)
        for gone in first.people[-3:]:
            session.delete(session.get_one(Subscriber, gone.id))
        session.flush()
        second = search.page(session, cursor=first.after or "", size=10)
        following = search.page(session, size=20)
        assert [each for each in second.people if each not in first.people] == list(following.people[7:17])
        for gone in first.people[:7]:
            session.delete(session.get_one(Subscriber, gone.id))
        session.flush()
        with pytest.raises(UsageError, match="whoever stood at the edge of this page is gone"):
            search.page(session, cursor=first.after or "", size=10)


@pytest.mark.parametrize(
    "cursor", ["x", "a", "c1", "a1.", "a1.2.3.4.5", "a-1", "a99999999999", "a2147483648", "a1'--", "C1", "b 1", "a١"]
)
def test_a_cursor_of_another_hand_is_refused(local: Database, cursor: str) -> None:
    with local.read() as session, pytest.raises(UsageError, match="this is not the address of a page of people"):
        search.page(session, cursor=cursor)


def test_a_cursor_holds_no_address(local: Database) -> None:
    crowd(local, 40)
    with local.read() as session:
        found = search.page(session, size=10)
        assert re.fullmatch(r"a\d+(\.\d+){3}", found.after or "")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ada", ["ada.l@example.org", "ada@example.com", "zoe@cafe.example"]),
        (" ADA.", ["ada.l@example.org", "zoe@cafe.example"]),
        ("ada.l", ["ada.l@example.org"]),
        ("ada@", ["ada@example.com"]),
        ("ada@exam", ["ada@example.com"]),
        ("@example.n", ["li@example.net", "m@example.net"]),
        ("@example.org", ["ada.l@example.org"]),
        ("example.o", ["ada.l@example.org"]),
        ("xample.org", []),
        ("love", ["ada.l@example.org"]),
        ("lovelace", ["ada.l@example.org"]),
        ("ada love", ["ada.l@example.org"]),
        ("lovelace, ad", ["ada.l@example.org"]),
        ("ovelace", []),
        ("jose", ["z@münchen.example"]),
        ("José", ["z@münchen.example"]),
        ("@Münch", ["z@münchen.example"]),
        ("محمد", ["m@example.net"]),
        ("مُحَمَّد", ["m@example.net"]),
        ("李", ["li@example.net"]),
        ("%", []),
        ("_da", []),
        ("o'ne", ["zoe@cafe.example"]),
    ],
)
def test_a_search_finds_who_begins_like_it(people: Database, typed: str, expected: list[str]) -> None:
    add(people, "ada.l@example.org", name="Ada Lovelace")
    add(people, "ada@example.com")
    add(people, "zoe@cafe.example", name="Zoë Ada O'Neil")
    add(people, "z@münchen.example", name="JOSÉ García")
    add(people, "m@example.net", name="محمد الخوارزمي")
    add(people, "li@example.net", name="李 小龍")
    assert find(people, typed) == expected


def test_a_search_is_narrowed_by_what_is_wanted(people: Database) -> None:
    crowd(people, 99)
    with people.read() as session:
        every = list(search.everybody(session))
        for name, wanted in WANTED.items():
            for typed in ("p0000", "@rare", "number", "rare.ex"):
                beginning = {"p0000": every, "number": every}
                fitting = beginning.get(typed, [each for each in every if each.address.endswith("@rare.example")])
                expected = [each for each in fitting if meets(wanted, each)]
                assert search.find(session, typed, wanted) == Found(tuple(expected)), (name, typed)


def test_a_search_shows_a_hundred_and_says_that_there_are_more(people: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(people, 260)
    with people.read() as session:
        for typed in ("p0", "pat", "@example.org"):
            found = search.find(session, typed)
            assert (len(found.people), found.more) == (100, True), typed
        assert not search.find(session, "p00000").more
        few = search.find(session, "pat", Wanted(tag="one"))
        assert (len(few.people), few.more) == (1, False)
        monkeypatch.setattr(search, "LOOKED_AT_IN_A_SEARCH", 100)
        assert search.find(session, "pat", Wanted(tag="one")).more


@pytest.mark.parametrize("typed", ["", "  ", "@", " @ ", "a\0", "a\nb", "a\ud800", "a" * 321])
def test_what_cannot_be_looked_for_is_refused_without_repeating_it(local: Database, typed: str) -> None:
    with local.read() as session, pytest.raises(UsageError, match=r"^(type the beginning|a search (has|is)) ") as caught:
        search.find(session, typed)
    assert "aa" not in str(caught.value)


@SETTINGS
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_any_other_text_finds_what_begins_with_it_and_raises_nothing(people: Database, typed: str) -> None:
    with people.write() as session:
        session.connection().execute(text("DELETE FROM subscribers"))
        key = " ".join(typed.split()).casefold()
        session.add(Subscriber(address=typed, key=search._as_typed(typed) if key.strip("@") else "x", name=typed, joined=NOW))
        session.flush()
        names.index(session, session.exec(select(Subscriber.id, Subscriber.name)).all())
        try:
            found = shown(search.find(session, typed))
        except UsageError:
            return
    wanted_by_domain_alone = key.startswith("@") and "@" in key[1:]
    if not wanted_by_domain_alone and (" " not in key or names.folded(typed)):
        assert found == [typed]


@SETTINGS
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), st.text(max_size=3))
def test_what_begins_with_a_text_lies_before_the_first_that_comes_after(text: str, more: str) -> None:
    assert text <= text + more < search._after(text)
    assert search._after(text).encode()


def test_what_comes_after_the_last_character_before_the_surrogates_is_the_first_behind_them() -> None:
    assert search._after("a\ud7ff") == "a\ue000"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Ada", {"ada"}),
        ("Ada Lovelace", {"ada lovelace", "lovelace ada"}),
        ("Ada Ada", {"ada ada"}),
        (" Zoë  O'Neil-Straße ", {"zoe o neil strasse", "o neil strasse zoe", "neil strasse zoe o", "strasse zoe o neil"}),
        ("", set()),
        ("!?", set()),
    ],
)
def test_a_name_is_found_from_each_of_its_words_on(name: str, words: set[str]) -> None:
    assert names.words_of(name) == words


def test_a_long_name_is_found_by_a_few_words() -> None:
    words = names.words_of("x" * 119 + " " + "y " * 100)
    assert len(words) <= 8
    assert max(map(len, words)) <= 60


def test_whoever_is_renamed_is_found_by_the_new_name_alone(people: Database) -> None:
    (ada,) = add(people, "a@example.com", name="Ada Lovelace")
    with people.write() as session:
        names.index(session, [(ada, "Ada King")])
    assert find(people, "king") == ["a@example.com"]
    assert find(people, "lovelace") == []


def test_names_that_were_there_before_can_be_found_after_the_migration(bare_database_url: str) -> None:
    database = Database(bare_database_url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO subscribers (address, key, name, state, token, source, joined) VALUES (:a, :a, :n, :s, :a, '', :j)"
            ),
            [{"a": f"{name}@example.com", "n": name, "s": "active", "j": NOW.isoformat()} for name in ("Zoë", "")],
        )
    database.migrate()
    assert find(database, "zoe") == ["Zoë@example.com"]
    database.engine.dispose()


# What it costs

# Less than there are of anybody in the small crowd, so that both are looked at as far as that.
SIGHT = 100
CALLS: dict[str, Callable[[Session], object]] = {
    **{f"the first page of {name}": partial(search.page, wanted=wanted) for name, wanted in WANTED.items()},
    **{f"a page of {name}": partial(middle, wanted=wanted) for name, wanted in WANTED.items()},
    **{f"a page before that of {name}": partial(middle, wanted=wanted, back=True) for name, wanted in WANTED.items()},
    **{f"the number of {name}": partial(search.count, wanted=wanted) for name, wanted in WANTED.items()},
    **{f"a search for {typed}": partial(search.find, text=typed) for typed in TYPED},
    **{f"a search for {typed} in a segment": partial(search.find, text=typed, wanted=WANTED["a segment"]) for typed in TYPED},
    "the tags in use": partial(labels.in_use, kind=LabelKind.TAG),
}


@pytest.fixture(scope="module")
def small_and_large(tmp_path_factory: pytest.TempPathFactory, empty: bytes) -> Iterator[list[Database]]:
    made = []
    for number in (2_000, 20_000):
        path = tmp_path_factory.mktemp("crowd") / "friday.db"
        path.write_bytes(empty)
        made.append(Database(f"sqlite:///{path}"))
        crowd(made[-1], number)
    yield made
    for each in made:
        each.engine.dispose()


@pytest.fixture(scope="module")
def large_on_postgres(postgres: str) -> Iterator[Database]:
    with made_database(postgres) as url:
        database = Database(url)
        database.migrate()
        crowd(database, 20_000)
        with database.engine.begin() as connection:
            connection.execute(text("ANALYZE"))
        yield database
        database.engine.dispose()


@pytest.fixture
def near_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LOOKED_AT", SIGHT)
    monkeypatch.setattr(search, "LOOKED_AT_IN_A_SEARCH", SIGHT)


def steps_for(database: Database, call: Callable[[Session], object]) -> int:
    """How many steps SQLite's machine takes, in tens."""
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    with database.read() as session:
        raw: Any = session.connection().connection.driver_connection
        raw.set_progress_handler(count, 10)
        call(session)
        raw.set_progress_handler(None, 0)
    return taken


@pytest.mark.parametrize("analyzed", [False, True], ids=["as it is", "analyzed"])
@pytest.mark.usefixtures("near_sight")
def test_sqlite_takes_no_more_steps_for_ten_times_the_people(small_and_large: list[Database], *, analyzed: bool) -> None:
    if analyzed:
        for database in small_and_large:
            with database.engine.begin() as connection:
                connection.execute(text("ANALYZE"))
    few, many = ({name: steps_for(database, call) for name, call in CALLS.items()} for database in small_and_large)
    # Some pages of the small crowd are the last ones, and so cost less than they might.
    assert {name: taken for name, taken in many.items() if taken > 2 * few[name] and taken > 2 * max(few.values())} == {}


@contextmanager
def overheard(database: Database) -> Iterator[list[tuple[str, Any]]]:
    heard: list[tuple[str, Any]] = []

    def listen(_connection: Any, _cursor: Any, sql: str, values: Any, _context: Any, _many: Any) -> None:
        heard.append((sql, values))

    event.listen(database.engine, "before_cursor_execute", listen)
    try:
        yield heard
    finally:
        event.remove(database.engine, "before_cursor_execute", listen)


@pytest.mark.usefixtures("near_sight")
def test_sqlite_plans_no_scan_and_no_sort_of_a_table(small_and_large: list[Database]) -> None:
    large = small_and_large[1]
    for name, call in CALLS.items():
        with overheard(large) as heard, large.read() as session:
            call(session)
        with large.engine.connect() as connection:
            raw = connection.connection.cursor()
            for sql, values in heard:
                plan = [str(row[-1]) for row in raw.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
                tables = [step for step in plan if re.match(r"SCAN (subscribers|labels|name_words|suppressions)", step)]
                assert not tables, (name, sql)
                assert "TEMP B-TREE" not in " ".join(plan), (name, sql, plan)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.usefixtures("near_sight")
def test_postgresql_reads_a_bounded_number_of_rows_and_no_table_from_end_to_end(large_on_postgres: Database) -> None:
    wrong = []
    for name, call in CALLS.items():
        with overheard(large_on_postgres) as heard, large_on_postgres.read() as session:
            call(session)
        with large_on_postgres.engine.connect() as connection:
            raw: Any = connection.connection.cursor()
            for sql, values in heard:
                raw.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values)
                for node in nodes(raw.fetchone()[0][0]["Plan"]):
                    read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                    if read > 8 * SIGHT or node["Node Type"] == "Seq Scan":
                        wrong.append((name, node["Node Type"], node.get("Relation Name"), read, sql[:200]))
    assert not wrong, "\n".join(map(str, wrong))


# Labels


def worn(database: Database, who: int) -> labels.Labels:
    with database.read() as session:
        return labels.of(session, [who])[who]


def told(database: Database, who: int) -> list[tuple[str, str, dict[str, str]]]:
    with database.read() as session:
        return [(each.what, each.by, each.detail) for each in history.of(session, who)]


def test_topics_and_tags_are_put_and_the_history_says_so(people: Database) -> None:
    (ada,) = add(people, "ada@example.com")
    with people.write() as session:
        assert labels.put(session, ada, LabelKind.TOPIC, ["policy", "chips", "policy"], "us", NOW)
        assert labels.put(session, ada, LabelKind.TAG, ["vip"], "us", NOW)
        assert not labels.put(session, ada, LabelKind.TOPIC, ["chips", "policy"], "us", NOW)
    assert worn(people, ada) == labels.Labels(("chips", "policy"), ("vip",))
    with people.write() as session:
        assert labels.put(session, ada, LabelKind.TOPIC, ["chips", "law"], "them", NOW)
    assert worn(people, ada) == labels.Labels(("chips", "law"), ("vip",))
    assert told(people, ada) == [
        ("edited", "us", {"topics": "chips, policy"}),
        ("edited", "us", {"tags": "vip"}),
        ("edited", "them", {"topics": "chips, law"}),
    ]


def test_many_get_and_lose_a_tag_at_once_and_only_those_who_change_are_noted(people: Database) -> None:
    ada, ben, cleo = add(people, "ada@example.com", "ben@example.com", "cleo@example.com")
    with people.write() as session:
        labels.put(session, ada, LabelKind.TAG, ["vip"], "us", NOW)
        assert labels.add(session, [ada, ben, cleo, ben, 999_999], LabelKind.TAG, "vip", "us", NOW) == 2
        assert labels.add(session, [ada, ben, cleo], LabelKind.TAG, "vip", "us", NOW) == 0
        assert labels.remove(session, [ada, ben], LabelKind.TOPIC, "vip", "us", NOW) == 0
        assert labels.remove(session, [ada, ben, 999_999], LabelKind.TAG, "vip", "them", NOW) == 2
    assert worn(people, ada) == worn(people, ben) == labels.Labels()
    assert worn(people, cleo) == labels.Labels((), ("vip",))
    assert told(people, ben) == [("edited", "us", {"tag added": "vip"}), ("edited", "them", {"tag removed": "vip"})]
    assert told(people, cleo) == [("edited", "us", {"tag added": "vip"})]


def test_thousands_get_a_tag_at_once(local: Database) -> None:
    crowd(local, 2_500)
    with local.write() as session:
        assert labels.add(session, range(1, 2_501), LabelKind.TAG, "new", "us", NOW) == 2_500
        assert labels.remove(session, range(1, 2_501), LabelKind.TAG, "new", "us", NOW) == 2_500
        assert len(labels.of(session, range(1, 2_501))) == 2_500


def test_nobody_has_more_than_fifty(local: Database) -> None:
    (ada,) = add(local, "ada@example.com")
    with local.write() as session:
        labels.put(session, ada, LabelKind.TAG, [f"t{each}" for each in range(50)], "us", NOW)
        assert labels.add(session, [ada], LabelKind.TAG, "more", "us", NOW) == 0
        with pytest.raises(UsageError, match="at most 50 topics and 50 tags"):
            labels.put(session, ada, LabelKind.TOPIC, [f"t{each}" for each in range(51)], "us", NOW)


@pytest.mark.parametrize("name", ["", "VIP", "two words", "a_b", "-a", "a-", "a--b", "é", "a\n", "a" * 41])
def test_a_label_has_a_plain_name(local: Database, name: str) -> None:
    (ada,) = add(local, "ada@example.com")
    with local.write() as session:
        with pytest.raises(UsageError, match="a topic or tag is at most 40 small letters"):
            labels.put(session, ada, LabelKind.TAG, [name], "us", NOW)
        with pytest.raises(UsageError, match="a topic or tag is at most 40 small letters"):
            labels.add(session, [ada], LabelKind.TAG, name, "us", NOW)
    if name:
        with pytest.raises(UsageError, match="a topic or tag is at most 40 small letters"):
            Wanted(tag=name)


def test_the_labels_in_use_are_told_in_order(people: Database) -> None:
    ada, ben = add(people, "ada@example.com", "ben@example.com")
    with people.write() as session:
        labels.put(session, ada, LabelKind.TAG, ["vip", "a"], "us", NOW)
        labels.put(session, ben, LabelKind.TAG, ["vip", "b"], "us", NOW)
        labels.put(session, ben, LabelKind.TOPIC, ["law"], "us", NOW)
        assert labels.in_use(session, LabelKind.TAG) == ["a", "b", "vip"]
        assert labels.in_use(session, LabelKind.TAG, most=2) == ["a", "b"]
        assert labels.in_use(session, LabelKind.TOPIC) == ["law"]


def test_nobody_of_that_number_has_no_labels(local: Database) -> None:
    with local.write() as session, pytest.raises(UsageError, match="nobody of that number"):
        labels.put(session, 7, LabelKind.TAG, ["a"], "us", NOW)
