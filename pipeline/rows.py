"""Many rows over to the database, or back from it, as one JSON value, so that one step of one statement does for all.

A driver gives up Python's lock and takes it again at each row that it hands over, and there are thousands of rows.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    CursorResult,
    Integer,
    Select,
    String,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
)
from sqlalchemy.sql.base import Executable
from sqlmodel import Session, select


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


def execute(
    session: Session, statement: Callable[[Rows], Executable], rows: Sequence[object], **values: object
) -> CursorResult[Any]:
    """The result of a statement for all rows at once. It is made once for each kind of database."""
    given = {"rows": orjson.dumps(rows).decode(), **values}
    return session.connection().execute(_made(statement, postgres=is_postgres(session)), given)


@cache
def _made(statement: Callable[[Rows], Executable], *, postgres: bool) -> Executable:
    return statement(Rows(postgres=postgres))


def columns(session: Session, query: Select[Any], **values: object) -> list[list[Any]]:
    """The columns of what a query finds, all in one order: its answer is one row with a JSON array for each of them."""
    found = session.connection().execute(_in_columns(query, postgres=is_postgres(session)), values).one()
    return [orjson.loads(each or "[]") for each in found]


@cache
def _in_columns(query: Select[Any], *, postgres: bool) -> Executable:
    found = query.subquery().c
    if postgres:
        return select(*[cast(func.json_agg(column), String) for column in found])
    return select(*[func.json_group_array(column, type_=String()) for column in found])


def is_postgres(session: Session) -> bool:
    """Whether the database is PostgreSQL."""
    return session.get_bind().dialect.name == "postgresql"
