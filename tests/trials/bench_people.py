"""`make bench-people N=1000000`: pages, searches and counts among N people, beside a hundredth of them, as JSON.

It fills two SQLite files, asks each question of both by turns, and names those that take more than twice as long of
a hundred times as many people though they show no more of them. It judges nothing else.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from pipeline.database import Database
from subscribers import labels, names, search
from subscribers.models import LabelKind, State, Subscriber
from subscribers.search import Counted, Found, Wanted
from subscribers.segments import parse

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
SHARE = 100
FIRST = (
    "ada ben cleo dora emil fay gus hana ines jon kira liam mia noor omar pia quinn rosa sam tara uma vera wim yara zoe".split()
)
SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo zu".split()
DOMAINS = ["gmail.com"] * 8 + ["example.org"] * 3 + ["example.com", "example.net", "rare.example"]
STATES = [State.ACTIVE] * 17 + [State.UNSUBSCRIBED] * 2 + [State.PENDING]
ADD_PERSON = "INSERT INTO subscribers (id, address, key, name, state, token, source, joined) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
Row = tuple[Any, ...]


def main() -> None:
    """Fill, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.bench_people", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--folder", type=Path, help="where the files stay for the next time; else they are made anew and removed"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        folder = options.folder or Path(passing)
        sizes = [max(options.rows // SHARE, 1_000), options.rows]
        began = time.perf_counter()
        databases = [filled(folder / f"people-{rows}.db", rows) for rows in sizes]
        filling = time.perf_counter() - began
        told = {"rows": sizes, "fill_seconds": round(filling, 1), "ms": measured(databases, options.rounds)}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")


def filled(path: Path, rows: int) -> Database:
    """A database with that many people: names, topics, tags and suppressions as a large roll may have them."""
    database = Database(f"sqlite:///{path}")
    if path.exists():
        return database
    path.parent.mkdir(parents=True, exist_ok=True)
    database.migrate()
    raw = database.engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.execute("PRAGMA cache_size = -400000")
    tables = ("subscribers", "labels", "name_words")
    asked = "SELECT name, sql, tbl_name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    indexes = [(name, sql) for name, sql, table in cursor.execute(asked).fetchall() if table in tables]
    cursor.execute("BEGIN")
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    chance = random.Random(rows)  # noqa: S311 - people need no secrets here
    everybody = people(rows, chance)
    while some := list(islice(everybody, 50_000)):
        cursor.executemany(ADD_PERSON, some)
        worn = [row for each in some for row in labels_of(each[0], chance)]
        cursor.executemany("INSERT INTO labels (subscriber_id, kind, name) VALUES (?, ?, ?)", worn)
        words = [(word, each[0]) for each in some for word in names.words_of(each[3])]
        cursor.executemany("INSERT INTO name_words (word, subscriber_id) VALUES (?, ?)", words)
        barred = [(each[2], "bounce", NOW.isoformat(" ")) for each in some if each[0] % 40 == 0]
        cursor.executemany("INSERT INTO suppressions (key, why, note, since) VALUES (?, ?, '', ?)", barred)
    for _, sql in indexes:
        cursor.execute(sql)
    cursor.execute("COMMIT")
    raw.close()
    return database


def people(rows: int, chance: random.Random) -> Iterator[Row]:
    """The rows of subscribers, in the order in which they came."""
    for number in range(1, rows + 1):
        first = chance.choice(FIRST)
        last = "".join(chance.choices(SYLLABLES, k=3))
        address = f"{first}.{last}{number}@{chance.choice(DOMAINS)}"
        joined = f"{NOW - timedelta(minutes=rows - number):%Y-%m-%d %H:%M:%S.%f}"
        name = f"{first} {last}".title()
        yield number, address, address, name, chance.choice(STATES).value, f"{number:022}", "import", joined


def labels_of(number: int, chance: random.Random) -> Iterator[Row]:
    """Topics that many have, and tags that few have."""
    for kind, name, share in (("topic", "chips", 0.3), ("topic", "policy", 0.5), ("tag", "vip", 0.02)):
        if chance.random() < share:
            yield number, kind, name
    if number % 997 == 0:
        yield number, "tag", "rare"


def questions(session: Session) -> dict[str, Callable[[Session], object]]:
    """What is asked, by name. `count` reads more as people grow only until it says that there are more than it counts."""
    middle = session.exec(select(Subscriber.id).where(Subscriber.key > "k").order_by(col(Subscriber.key)).limit(1)).one()
    wanted = {
        "everybody": Wanted(),
        "a state": Wanted(State.UNSUBSCRIBED),
        "the suppressed": Wanted(suppressed=True),
        "a topic": Wanted(topic="policy"),
        "a tag": Wanted(tag="vip"),
        "a rare tag": Wanted(tag="rare"),
        "a topic and a state": Wanted(State.UNSUBSCRIBED, topic="policy"),
        "a segment": Wanted(segment=parse("topic:policy and not tag:vip and (joined>2026-01-01 or name:*)")),
        "a segment of a domain": Wanted(segment=parse("domain:rare.example and topic:chips")),
    }
    typed = ("a", "ada.ba", "kira.lomuna", "@gmail", "@rare.example", "example.o", "noor", "ada lo", "vanape", "nobody at all")
    return {
        **{f"page 1 of {name}": partial(search.page, wanted=each) for name, each in wanted.items()},
        **{f"a middle page of {name}": partial(search.page, wanted=each, cursor=f"a{middle}") for name, each in wanted.items()},
        **{f"search {each!r}": partial(search.find, text=each) for each in typed},
        **{f"search {each!r} of a tag": partial(search.find, text=each, wanted=wanted["a tag"]) for each in ("ada", "@gmail")},
        **{f"count {name}": partial(search.count, wanted=each) for name, each in wanted.items()},
        "tags in use": partial(labels.in_use, kind=LabelKind.TAG),
    }


def measured(databases: list[Database], rounds: int) -> dict[str, Any]:
    """Median milliseconds of each question in each database, the ratio, and how many people each answer shows."""
    asked = []
    for database in databases:
        with database.read() as session:
            asked.append(questions(session))
    told: dict[str, Any] = {}
    for name in asked[0]:
        taken: list[list[float]] = [[] for _ in databases]
        shows = [0, 0]
        for _ in range(rounds):
            for at, database in enumerate(databases):
                with database.read() as session:
                    session.connection()
                    began = time.perf_counter()
                    answer = asked[at][name](session)
                    taken[at].append((time.perf_counter() - began) * 1_000)
                    shows[at] = size_of(answer)
        few, many = (round(statistics.median(each), 2) for each in taken)
        # Of the quickest rounds, which whatever else runs on the machine disturbs least.
        ratio = round(min(taken[1]) / min(taken[0]), 2)
        told[name] = {"few": few, "many": many, "ratio": ratio, "shows": shows}
    over = [name for name, each in told.items() if each["ratio"] > 2 and each["shows"][1] <= each["shows"][0]]
    return {**told, "more than twice": over}


def size_of(answer: object) -> int:
    """How many people an answer shows or counts."""
    if isinstance(answer, Counted):
        return answer.number
    return len(answer.people) if isinstance(answer, Found) else 0


if __name__ == "__main__":
    main()
