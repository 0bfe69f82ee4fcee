"""Many rows over to the database as one JSON value, so that one step of one statement does for all; `pipeline.rows` for people.

It is what makes an import fast: of a statement with values for each row, most of the time goes into preparing them.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from sqlalchemy import JSON, Column, ColumnElement, DateTime, Integer, String, bindparam, cast, func, literal_column, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.base import Executable
from sqlmodel import Session, SQLModel, col, select

from pipeline.database import Utc

# Of pages that SQLite keeps at hand, in KiB: beyond them each row of an import reads its places in the indexes anew.
_ROOM, _USUAL_ROOM = 65_536, 2_000
# Of pages that SQLite lets its log grow to before it takes them over into the file: a batch writes thousands of them,
# most of which the next writes again. 200 MB, and as usual.
_LOG, _USUAL_LOG = 50_000, 1_000


def make_room(session: Session, *, much: bool) -> None:
    """Let SQLite keep many pages at hand and in its log, or as few as usual.

    It holds for the connection, and for the next one to get it.
    """
    if not _is_postgres(session):
        session.connection().exec_driver_sql(f"PRAGMA cache_size = -{_ROOM if much else _USUAL_ROOM}")
        session.connection().exec_driver_sql(f"PRAGMA wal_autocheckpoint = {_LOG if much else _USUAL_LOG}")
        if not much:
            session.connection().exec_driver_sql("PRAGMA shrink_memory")


def insert(
    session: Session,
    table: type[SQLModel],
    columns: tuple[str, ...],
    rows: Iterable[Sequence[object]],
    tell: tuple[str, ...] = (),
) -> Sequence[Any]:
    """Put rows into a table, those that are not there by any of its keys; what is asked of the ones that were put in.

    Times are aware; they are in UTC from here on.
    """
    postgres = _is_postgres(session)
    offset = "+00" if postgres else ""

    def utc(moment: datetime) -> str:
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds") + offset

    value = orjson.dumps(list(rows), default=utc, option=orjson.OPT_PASSTHROUGH_DATETIME)
    done = session.connection().execute(_insert(table, columns, tell, postgres=postgres), {"rows": value.decode()})
    return done.all() if tell else ()


def found(session: Session, keys: Collection[str], key: Any, *more: Any) -> Sequence[Any]:
    """The rows of some keys: the keys alone, or with further columns."""
    query = _found(key, more, postgres=_is_postgres(session))
    rows = session.connection().execute(query, {"rows": orjson.dumps(list(keys)).decode()})
    return rows.all() if more else rows.scalars().all()


@cache
def _insert(table: type[SQLModel], columns: tuple[str, ...], tell: tuple[str, ...], *, postgres: bool) -> Executable:
    row, make = _each(postgres=postgres), postgresql.insert if postgres else sqlite.insert
    types = {each.name: each.type for each in SQLModel.metadata.tables[str(table.__tablename__)].columns}

    def cell(place: int, name: str) -> ColumnElement[Any]:
        said = row.op("->>")(literal_column(str(place)))
        if isinstance(types[name], Integer):
            return cast(said, Integer)
        if postgres and isinstance(types[name], Utc):
            return cast(said, DateTime(timezone=True))
        return cast(said, JSONB) if postgres and isinstance(types[name], JSON) else said

    # Without a condition SQLite takes ON CONFLICT for a part of the join.
    given = select(*(cell(place, name) for place, name in enumerate(columns))).where(text("1 = 1"))
    made = make(table).from_select(columns, given).on_conflict_do_nothing()
    return made.returning(*(getattr(table, name) for name in tell)) if tell else made


@cache
def _found(key: Any, more: tuple[Any, ...], *, postgres: bool) -> Executable:
    row = _each(postgres=postgres)
    said = row.op("#>>")(literal_column("'{}'")) if postgres else row
    return select(col(key), *(col(each) for each in more)).where(col(key).in_(select(said)))


def _each(*, postgres: bool) -> Any:
    value: Any = bindparam("rows", type_=String())
    if postgres:
        return func.json_array_elements(cast(value, JSON)).column_valued("each_row")
    return func.json_each(value).table_valued(Column("value", String), name="each_row").c.value


def _is_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
