"""Many rows over to the database, or back from it, as one JSON value, so that one step of one statement does for all.

A driver gives up Python's lock and takes it again at each row that it hands over, and there are thousands of rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from sqlalchemy import JSON, Column, ColumnElement, Integer, Select, String, Text, bindparam, cast, func, literal_column
from sqlalchemy.sql.base import Executable
from sqlmodel import Session, select

# A statement for each kind of database, by whether it is PostgreSQL.
ForBoth = dict[bool, Any]


class Rows:
    """Rows, or single numbers, that a statement is given as `rows`."""

    def __init__(self, *, postgres: bool) -> None:
        value: Any = bindparam("rows", type_=String())
        if postgres:
            self._row: Any = func.json_array_elements(cast(value, JSON)).column_valued("each_row", joins_implicitly=True)
            self.itself: ColumnElement[Any] = cast(cast(self._row, Text), Integer)
        else:
            table = func.json_each(value).table_valued(Column("value", Integer), name="each_row", joins_implicitly=True)
            self._row = self.itself = table.c.value

    def text(self, place: int) -> Any:
        """A value of each row as text."""
        return self._row.op("->>")(literal_column(str(place)))

    def number(self, place: int) -> ColumnElement[Any]:
        """A value of each row as a whole number."""
        return cast(self.text(place), Integer)


def for_both(made: Callable[[Rows], Executable]) -> ForBoth:
    """A statement over rows for both kinds of database."""
    return {postgres: made(Rows(postgres=postgres)) for postgres in (False, True)}


def execute(session: Session, statements: ForBoth, rows: Sequence[object], **values: object) -> Any:
    """The result of a statement for all rows at once."""
    given = {"rows": orjson.dumps(rows).decode(), **values}
    return session.connection().execute(statements[is_postgres(session)], given)


def in_columns(query: Select[Any]) -> ForBoth:
    """A query whose answer is one row, with a JSON array for each of its columns."""
    found = query.subquery()
    return {
        False: select(*[func.json_group_array(column, type_=String()) for column in found.c]),
        True: select(*[cast(func.json_agg(column), String) for column in found.c]),
    }


def columns(session: Session, queries: ForBoth, **values: object) -> list[list[Any]]:
    """The columns that such a query finds, all in one order."""
    found = session.connection().execute(queries[is_postgres(session)], values).one()
    return [orjson.loads(each or "[]") for each in found]


def is_postgres(session: Session) -> bool:
    """Whether the database is PostgreSQL."""
    return session.get_bind().dialect.name == "postgresql"
