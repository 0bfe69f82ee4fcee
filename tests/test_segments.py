"""Segments: what is one and what is not, that nothing of it reaches SQL unbound, and that both databases mean what it says."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Dialect, func
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from pipeline.database import Database
from pipeline.errors import UsageError
from subscribers import segments
from subscribers.models import Label, LabelKind, Subscriber
from subscribers.segments import And, Home, Not, Or, Segment, Term, compile_segment, parse

HOME = Home("en", "Europe/Berlin")
SETTINGS = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DIALECTS: list[Dialect] = [sqlite.dialect(), postgresql.dialect()]  # type: ignore[no-untyped-call]

EXAMPLES = {
    "topic:policy": Term("topic", ":", "policy"),
    "TOPIC:policy": None,
    " topic : policy ": Term("topic", ":", "policy"),
    "topic=Policy": Term("topic", ":", "policy"),
    "name:*": Term("name", ":", None),
    'source:"command line"': Term("source", ":", "command line"),
    'source:"*"': Term("source", ":", "*"),
    r'source:"a \"b\" \\c"': Term("source", ":", 'a "b" \\c'),
    "source:and": Term("source", ":", "and"),
    "domain:Example.ORG": Term("domain", ":", "example.org"),
    "zone:europe/berlin": Term("zone", ":", "Europe/Berlin"),
    "language:PT-br": Term("language", ":", "pt-br"),
    "attribute.company:Acme": Term("attribute", ":", "Acme", "company"),
    'attribute."Company name":Acme': Term("attribute", ":", "Acme", "Company name"),
    "joined:2026-01-31": Term("joined", "=", "2026-01-31"),
    "joined>=2026-01-31": Term("joined", ">=", "2026-01-31"),
    "not not tag:a": Not(Not(Term("tag", ":", "a"))),
    "tag:a and tag:b or tag:c": Or((And((Term("tag", ":", "a"), Term("tag", ":", "b"))), Term("tag", ":", "c"))),
    "tag:a and (tag:b or tag:c)": And((Term("tag", ":", "a"), Or((Term("tag", ":", "b"), Term("tag", ":", "c"))))),
    "(tag:a and tag:b)AND\n((tag:c))": And(tuple(Term("tag", ":", each) for each in "abc")),
    "not tag:a and tag:b": And((Not(Term("tag", ":", "a")), Term("tag", ":", "b"))),
}


@pytest.mark.parametrize("text", [text for text, tree in EXAMPLES.items() if tree])
def test_a_segment_is_read_as_it_is_meant(text: str) -> None:
    assert parse(text) == EXAMPLES[text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a field here"),
        ("topic:policy and topicc:x", "column 18: `topicc` is not a field; did you mean topic?"),
        ("TOPIC:policy", "column 1: `TOPIC` is not a field; did you mean topic?"),
        ("company:acme", "column 1: `company` is not a field: there are .*, and attribute.company if it is one of your own"),
        ("attribute:acme", "column 1: an attribute of your own is written attribute.company"),
        ("attribute.:acme", "column 1: an attribute has a name of up to 60 characters"),
        (r'attribute."a\"b":acme', "column 1: an attribute has a name of up to 60 characters, without quotes"),
        ("topic", "column 6: expected `:` and a value here"),
        ("topic:", "column 7: expected a value here"),
        ("topic:(a)", "column 7: expected a value here"),
        ("topic>a", "column 6: `>` is for dates, such as joined>2026-01-01; write `:`"),
        ('tag:""', r"column 5: nothing stands between the quotes; `not tag:\*` finds those who have none"),
        ('tag:"a', "column 5: this quotation mark is never closed"),
        ('"tag":a', "column 1: expected a field here"),
        ('tag:"a\nb"', "column 5: a value is one line"),
        ("tag:a\0", "column 6: a control character"),
        ("tag:a\ud800", "column 6: a control character"),
        ("name:ada", r"column 6: a name can only be asked for as name:\*"),
        ("joined>yesterday", "column 8: expected a date here, such as 2026-01-31"),
        ("joined:*", "column 8: expected a date here"),
        ("joined>2026-02-30", "column 8: expected a date here"),
        ("joined<=9999-12-31", "column 9: expected a date here"),
        ("joined>20260101", "column 8: expected a date here"),
        ("zone:Europe/Berln", "column 6: not a time zone; did you mean Europe/Berlin?"),
        ("language:german!", "column 10: expected a language here, such as de or pt-br"),
        ("tag:a tag:b", "column 7: expected `and` or `or` here"),
        ("tag:a and", "column 10: expected a field here"),
        ("tag:a and or tag:b", "column 11: expected a field here"),
        ("(tag:a", r"column 7: expected `\)` here, for the bracket of column 1"),
        ("tag:a)", "column 6: this bracket was never opened"),
        ("tag:a" + " " * 996, "column 1001: longer than 1,000 characters"),
        (" or ".join(["tag:a"] * 51), "column 451: more than 50 terms"),
        ("(" * 21 + "tag:a" + ")" * 21, "column 22: more than 20 brackets"),
        ("not " * 21 + "tag:a", "column 85: more than 20 brackets"),
    ],
)
def test_what_is_none_is_refused_with_its_column(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        parse(text)


def test_the_limits_themselves_are_allowed() -> None:
    assert parse(" or ".join(["tag:a"] * 50))
    assert parse("(" * 20 + "tag:a" + ")" * 20) == parse("tag:a")
    assert parse("not " * 20 + "tag:a")
    assert parse("source:" + "a" * 993)


@pytest.mark.parametrize("before", ["", "zone:", "joined>", "language:", "name:", "topic>", "tag:a ", "attribute."])
def test_a_message_never_repeats_an_address(before: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"{before}ada@example.com >")
    assert "ada" not in str(caught.value)


# What may stand in a value: everything that a database can keep on one line.
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12)
PIECES = st.sampled_from(
    """( ) and or not AND topic: tag: tag= name:* joined> joined<= 2026-01-01 9999-12-31 zone: Europe/Berlin language: de
    attribute. attribute."a attribute.b: : = > >= " "" \\ \\" * a b source: domain:example.org ' ; -- % %s :x ? /*""".split()
)
ODD = st.lists(PIECES | st.text(max_size=5) | st.just("\ud800") | st.just("\0"), max_size=15).map(" ".join)


def terms(values: st.SearchStrategy[str]) -> st.SearchStrategy[Segment]:
    days = st.dates(date(1900, 1, 1), date(2999, 12, 31)).map(date.isoformat)
    return st.one_of(
        st.builds(Term, st.sampled_from(["topic", "tag", "domain"]), st.just(":"), st.none() | values.map(str.casefold)),
        st.builds(Term, st.just("source"), st.just(":"), st.none() | values),
        st.builds(Term, st.just("joined"), st.sampled_from(["=", ">", "<", ">=", "<="]), days),
        st.builds(Term, st.just("language"), st.just(":"), st.none() | st.sampled_from(["de", "de-at", "en", "fr"])),
        st.builds(Term, st.just("zone"), st.just(":"), st.none() | st.sampled_from(["Europe/Berlin", "Asia/Tokyo", "UTC"])),
        st.just(Term("name", ":", None)),
        st.builds(
            Term, st.just("attribute"), st.just(":"), st.none() | values, st.sampled_from(["company", "Job title", "é%s"])
        ),
    )


def trees(values: st.SearchStrategy[str]) -> st.SearchStrategy[Segment]:
    def grown(smaller: st.SearchStrategy[Segment]) -> st.SearchStrategy[Segment]:
        some = st.lists(smaller, min_size=2, max_size=3)
        return smaller.map(Not) | some.map(lambda parts: And(flat(And, parts))) | some.map(lambda parts: Or(flat(Or, parts)))

    return st.recursive(terms(values), grown, max_leaves=8)


def flat(kind: type[And | Or], parts: list[Segment]) -> tuple[Segment, ...]:
    return tuple(each for part in parts for each in (part.parts if isinstance(part, kind) else (part,)))


@SETTINGS
@given(ODD | st.text(max_size=60) | st.text(st.characters(categories=["Cs", "Cc", "Zs", "Lu", "Ll", "Po"]), max_size=40))
def test_any_text_is_a_segment_or_is_refused_with_a_column_of_it(text: str) -> None:
    try:
        tree = parse(text)
    except UsageError as error:
        found = re.match(r"column (\d+): ", str(error))
        assert found
        assert 1 <= int(found[1]) <= len(text) + 1
    else:
        assert parse(str(tree)) == tree


@SETTINGS
@given(trees(WORDS))
def test_what_is_written_is_read_as_the_same(tree: Segment) -> None:
    assert parse(str(tree)) == tree
    assert str(parse(str(tree))) == str(tree)


def shape(tree: Segment) -> Segment:
    """The same questions with other values."""
    if isinstance(tree, Term):
        other = {"joined": "2001-01-01", "language": "xx", "zone": "UTC"}.get(tree.field, "x")
        return Term(tree.field, tree.sign, None if tree.value is None else other, tree.name and "other")
    return Not(shape(tree.inner)) if isinstance(tree, Not) else type(tree)(tuple(shape(part) for part in tree.parts))


@SETTINGS
@given(trees(WORDS | st.sampled_from(["'; DROP TABLE subscribers; --", '" OR 1=1', "%(key)s", "%s", ":x", "?", "$.a", "\\"])))
def test_the_sql_depends_on_the_questions_alone_so_no_value_is_in_it(tree: Segment) -> None:
    for dialect in DIALECTS:
        said = compile_segment(tree, HOME).compile(dialect=dialect)
        assert str(said) == str(compile_segment(shape(tree), Home("yy", "zz")).compile(dialect=dialect))


def test_only_the_columns_that_are_allowed_are_ever_asked() -> None:
    everything = " and ".join(f"{field}:*" for field in segments.FIELDS if field not in ("attribute", "joined"))
    said = str(compile_segment(parse(f"{everything} and joined:2026-01-01 and attribute.a:b")).compile(dialect=DIALECTS[0]))
    asked = set(re.findall(r"(subscribers|labels)\.(\w+)", said))
    allowed = {("subscribers", name) for name in ("id", "key", "name", "language", "zone", "source", "joined", "attributes")}
    assert asked - allowed == {("labels", "subscriber_id"), ("labels", "kind")}


JOINED = datetime(2026, 1, 1, tzinfo=UTC)
TASTES: list[tuple[dict[str, list[str]], str, str, str, dict[str, str], str]] = [
    ({"topic": ["policy", "chips"], "tag": ["vip"]}, "de", "Europe/Berlin", "import", {"company": "acme"}, "Ada"),
    ({"topic": ["policy"], "tag": []}, "de-AT", "Asia/Tokyo", "command line", {"company": "Acme", "Job title": "x y"}, ""),
    ({"topic": [], "tag": ["vip", "policy"]}, "", "", "import", {}, "Ben"),
    ({"topic": [], "tag": []}, "fr", "", "", {"company": ""}, ""),
    ({"topic": ["ß%_"], "tag": ["a"]}, "en", "UTC", "a", {"é%s": "a", "company": "a"}, "李"),
    ({"topic": ["policy"], "tag": ["vip"]}, "en-GB", "Asia/Tokyo", "import", {"company": "acme"}, "Cleo"),
    ({"topic": ["a"], "tag": []}, "den", "Europe/Berlin", "*", {"Job title": "a"}, " "),
]


def person(number: int) -> tuple[Subscriber, dict[str, list[str]]]:
    worn, language, zone, source, attributes, name = TASTES[number % len(TASTES)]
    domain = ("example.org", "example.com", "a", "sub.example.org")[number % 4]
    return Subscriber(
        id=number + 1, address=f"p{number}@{domain}", key=f"p{number}@{domain}", name=name, source=source, zone=zone,
        language=language, attributes=attributes, joined=JOINED + timedelta(hours=6 * number, microseconds=-(number % 2)),
    ), worn  # fmt: skip


PEOPLE = [person(number) for number in range(24)]


@pytest.fixture
def crowd(database_url: str) -> Iterator[Session]:
    database = Database(database_url)
    with database.write() as session:
        session.add_all(Subscriber(**who.model_dump()) for who, _ in PEOPLE)
        session.flush()
        session.add_all(
            Label(subscriber_id=who.id or 0, kind=kind, name=name)
            for who, worn in PEOPLE
            for kind in LabelKind
            for name in worn[kind.value]
        )
    with database.read() as session:
        yield session
    database.engine.dispose()


def means(tree: Segment, who: Subscriber, worn: dict[str, list[str]]) -> bool:
    """The plain sense of a segment."""
    match tree:
        case Not(inner):
            return not means(inner, who, worn)
        case And(parts):
            return all(means(part, who, worn) for part in parts)
        case Or(parts):
            return any(means(part, who, worn) for part in parts)
        case Term("joined", sign, value, _):
            day, wanted = who.joined.date(), date.fromisoformat(value or "")
            return {"=": day == wanted, "<": day < wanted, ">": day > wanted, "<=": day <= wanted, ">=": day >= wanted}[sign]
        case Term(field, _, value, name):
            own = values(field, name, who, worn, HOME if value else Home())
            return value in own if value else bool(own)


def values(field: str, name: str, who: Subscriber, worn: dict[str, list[str]], home: Home) -> set[str]:
    """What may be asked for, so that this person is found."""
    language = (who.language or home.language).lower()
    all_of = {
        "topic": worn["topic"],
        "tag": worn["tag"],
        "domain": [who.key.split("@")[1]],
        "attribute": [who.attributes.get(name, "")],
        "language": [language, language.rpartition("-")[0]],
        "zone": [who.zone or home.zone],
        "name": [who.name],
        "source": [who.source],
    }
    return {each for each in all_of[field] if each}


def found(session: Session, tree: Segment) -> set[int]:
    query = select(Subscriber.id).where(compile_segment(tree, HOME))
    number = session.exec(select(func.count(col(Subscriber.id))).where(compile_segment(tree, HOME))).one()
    ids = {each or 0 for each in session.exec(query)}
    assert number == len(ids)
    return ids


def meant(tree: Segment) -> set[int]:
    return {who.id or 0 for who, worn in PEOPLE if means(tree, who, worn)}


HELD = (
    st.sampled_from(["policy", "vip", "a", "acme", "Acme", "import", "command line", "*", "example.org", "x y", "ß%_"]) | WORDS
)


@settings(SETTINGS, max_examples=100)
@given(trees(HELD))
def test_a_segment_finds_just_those_whom_it_says_on_either(crowd: Session, tree: Segment) -> None:
    assert found(crowd, tree) == meant(tree)


@pytest.mark.parametrize(
    "text",
    [
        "topic:policy and tag:vip and joined>2026-01-01 and not language:de",
        "language:de", "not language:de", "language:en", "not language:*", "zone:Europe/Berlin", "domain:example.org",
        "attribute.company:acme", "not attribute.company:acme", "not attribute.company:*", 'attribute."Job title":"x y"',
        "joined=2026-01-03", "joined>2026-01-03", "joined<=2026-01-03", "name:*", 'source:"command line"', "not topic:*",
        "tag:policy or topic:chips",
    ],
)  # fmt: skip
def test_what_an_editor_writes_finds_somebody_but_not_everybody(crowd: Session, text: str) -> None:
    tree = parse(text)
    ids = found(crowd, tree)
    assert ids == meant(tree)
    assert 0 < len(ids) < len(PEOPLE)
