"""Files of people, as text: CSV and JSON read row by row, and cells that no spreadsheet runs; what they mean is not told here.

A spreadsheet runs a cell that begins with = + - @, a tab or a line break, or their full-width forms, as a formula
(https://owasp.org/www-community/attacks/CSV_Injection). Such a cell is written with ' before it, and read without.
"""

import codecs
import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from pipeline.errors import UsageError

# Longer is no row of a person: the memory that a file takes does not depend on the file.
LONGEST_ROW = 1 << 20
_DELIMITERS = ",;\t"
_FORMULA = re.compile(r"'*[\t\r\n\0]|['\s]*[=+\-@＝＋－＠]")
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file that was looked through once: it is text, and every row of it ends. `rows` counts those below the header.

    A row comes with the number of the line that it begins on: of CSV the cells, of JSON the object.
    """

    path: Path
    rows: int
    header: tuple[str, ...] = ()
    is_json: bool = False
    delimiter: str = ","

    def cells(self) -> Iterator[tuple[int, list[str]]]:
        """The rows of a CSV below its header."""
        rows = _csv_rows(self.path, self.delimiter)
        next(rows, None)
        return rows

    def objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The objects of a JSON array."""
        return _json_rows(self.path)


def look_through(path: Path) -> Sheet:
    """Read a file from end to end and keep nothing, so that what is wrong with it is told before anything is done.

    Raises:
        UsageError: it cannot be read, holds nobody, or is not text in UTF-8 all of whose rows end.
    """
    try:
        begins = _check_bytes(path)
        if begins.startswith("["):
            count = sum(1 for _ in _json_rows(path))
            sheet = Sheet(path, count, is_json=True)
        else:
            delimiter = max(_DELIMITERS, key=begins.count)
            rows = _csv_rows(path, delimiter)
            header = next(rows, (0, []))[1]
            sheet = Sheet(path, sum(1 for _ in rows), tuple(header), delimiter=delimiter)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    if not sheet.rows:
        what = "an empty list" if sheet.is_json else "a header and no line below it"
        raise UsageError(f"{path}: {what if begins else 'the file is empty'}: there is nobody to import")
    return sheet


@contextmanager
def written(path: Path) -> Iterator[IO[str]]:
    """A text file that is there whole at the end, or not at all, and that only its owner may read.

    Raises:
        UsageError: it cannot be written.
    """
    path = path.resolve()
    try:
        if path.exists() and not path.is_file():
            # A pipe or /dev/stdout takes what it gets; nothing is put in its place.
            with path.open("w", encoding="utf-8", newline="") as file:
                yield file
            return
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    try:
        with open(number, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - it is open already
            yield file
            file.flush()
            os.fsync(number)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def safe(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell and _FORMULA.match(cell) else cell


def plain(cell: str) -> str:
    """What a cell said before it was made safe."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell, 1) else cell


def csv_line(cells: Sequence[str]) -> str:
    """A line of CSV (RFC 4180), each cell safe."""
    return _line([safe(cell) for cell in cells])


def packed(words: Sequence[str]) -> str:
    """Words in one cell, with commas between them, as a line of CSV is written."""
    return _line([f" {word}" if word[:1] in {"[", " "} else word for word in words], end="") if words else ""


def unpacked(cell: str) -> list[str]:
    """The words of a cell, written with commas between them or as a JSON array."""
    if cell.startswith("["):
        try:
            found = json.loads(cell)
        except (ValueError, RecursionError):
            return []
        return [each for each in found if isinstance(each, str)]
    if '"' not in cell:
        return cell.split(",") if cell else []
    return next(csv.reader([" ".join(cell.splitlines())], skipinitialspace=True), [])


def _line(cells: Sequence[str], end: str = "\r\n") -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator=end).writerow(cells)
    return line.getvalue()


def _check_bytes(path: Path) -> str:
    """See that a file is text, and tell its first line."""
    decoder, at, begins, gap = codecs.getincrementaldecoder("utf-8")(), 0, "", 0
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, LONGEST_ROW), b""):
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise _no_text(path, at - held + error.start) from None
            if (zero := chunk.find(0)) >= 0:
                raise UsageError(f"{path}: a NUL at byte {at + zero}: this is no CSV in UTF-8; save it as that")
            begins = begins or text.removeprefix("\ufeff").lstrip()
            gap = 0 if b"\n" in chunk or b"\r" in chunk else gap + 1
            if gap > 1:
                raise UsageError(f"{path}: a line of more than a megabyte before byte {at}: this is no list of people")
            at += len(chunk)
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise _no_text(path, at - len(decoder.getstate()[0])) from None
    return begins.splitlines()[0] if begins else ""


def _no_text(path: Path, byte: int) -> UsageError:
    return UsageError(f"{path}: not UTF-8 at byte {byte}: save it as UTF-8")


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        line = 1
        try:
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise UsageError(f"{path}:{line}: {_csv_trouble(str(error))}") from None


def _csv_trouble(said: str) -> str:
    if "field larger" in said or "unexpected end" in said:
        return 'a field without end begins here: a " is missing that would close it'
    if "expected after" in said:
        return 'text behind the closing " of a field: inside a field, a " is written twice'
    return said


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON array, however it is laid out, never more than one piece of the file at a time."""
    with path.open(encoding="utf-8-sig") as file:
        read: Callable[[], str] = partial(file.read, 1 << 16)
        text, line, at = read().lstrip(), 1, 1
        while True:
            begin = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
            line += text.count("\n", at, begin)
            try:
                value, end = json.JSONDecoder().raw_decode(text, begin)
            except (ValueError, RecursionError):
                more = read()
                if more and len(text) - begin < LONGEST_ROW:
                    text, at = text[begin:] + more, 0
                    continue
                if text[begin:].strip() == "]":
                    return
                raise UsageError(f"{path}:{line}: not JSON: a list of objects was expected, as `export` writes it") from None
            if not isinstance(value, dict):
                raise UsageError(f"{path}:{line}: not an object: a list of objects was expected, as `export` writes it")
            yield line, value
            line += text.count("\n", begin, end)
            at = end
