"""Catalogues in SQLite files, as archives export them: opened without a way to write, one table, a batch at a time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from skyset.errors import UserError
from skyset.tables.catalog import Catalog, chosen_columns

#: Bytes of one value, and of one statement.
_LONGEST = 16 << 20
_EXACT = 2**53
#: Rows, and columns, of one question; SQLite's answers have at most 2,000 columns.
_ROWS, _AT_ONCE = 8192, 100
#: Which kinds of values a column holds, and the range of its integers.
_LOOK = ", ".join(
    [f"max(typeof({{0}}) = '{kind}')" for kind in ("blob", "text", "real", "integer")]
    + [f"{end}(CASE WHEN typeof({{0}}) = 'integer' THEN {{0}} END)" for end in ("min", "max")]
)
_DECLARED = {"INT": pa.int64(), "REAL": pa.float64(), "FLOA": pa.float64(), "DOUB": pa.float64()}


@dataclass(frozen=True)
class _Table:
    name: str
    columns: list[str]


def open_sqlite(path: str, columns: Sequence[str] | None) -> Catalog:
    """The first table that has an ``object_id``, or else the first.

    SQLite gives each value a type: a column of integers alone is int64, of numbers float64, everything else is text. NaN is
    null in SQLite. Columns that hold blobs are left out with a note.
    """
    with _opened(path) as file:
        table = _table(file, path)
        wanted = chosen_columns(table.columns, columns, path)
        kinds = _kinds(file, table, wanted, path)
        left_out = [name for name in wanted if kinds[name] is None]
        (rows,) = file.execute(f"SELECT count(*) FROM {_quoted(table.name)}").fetchone()
    schema = pa.schema([(name, kinds[name]) for name in wanted if kinds[name] is not None])
    notes = tuple(f"column {name} left out: it holds blobs" for name in left_out)
    return Catalog(path, schema, rows, partial(_read, path, table, schema), notes)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[sqlite3.Connection]:
    """A connection that neither writes nor makes a file, and runs nothing that the file brings along."""
    with open(path, "rb") as head:
        if not (start := head.read(16)):
            raise UserError(f"{path}: the file is empty")
    if start != b"SQLite format 3\0":
        raise UserError(
            f"{path}: not an SQLite file" + (f" (unpack it first: gunzip {path})" if start[:1] == b"\x1f" else "")
        )
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        raise UserError(f"{path}: somebody is writing to it: rows that are in {log.name} alone would be missing")
    try:
        file = sqlite3.connect(f"file:{quote(str(Path(path).absolute()))}?mode=ro&immutable=1", uri=True)
        with contextlib.closing(file):
            for limit in (sqlite3.SQLITE_LIMIT_LENGTH, sqlite3.SQLITE_LIMIT_SQL_LENGTH):
                file.setlimit(limit, _LONGEST)
            file.execute("PRAGMA trusted_schema = OFF")
            file.execute("PRAGMA cell_size_check = ON")
            yield file
    except (sqlite3.Error, OverflowError) as error:
        raise UserError(f"{path}: cannot be read as SQLite: {error}") from error


def _table(file: sqlite3.Connection, path: str) -> _Table:
    """The table of objects; views and virtual tables, which run code of the file's, are none."""
    listed = file.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
        "AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY rowid"
    )
    tables = [_Table(name, _columns(file, name)) for (name,) in listed.fetchall()]
    if not tables:
        raise UserError(f"{path}: has no table")
    return next((table for table in tables if "object_id" in table.columns), tables[0])


def _columns(file: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in file.execute(f"PRAGMA table_info({_quoted(table)})")]


def _kinds(file: sqlite3.Connection, table: _Table, wanted: Sequence[str], path: str) -> dict[str, pa.DataType | None]:
    """The type of each column over all its rows; None where it holds blobs."""
    declared = {name: kind for _, name, kind, *_ in file.execute(f"PRAGMA table_info({_quoted(table.name)})")}
    kinds: dict[str, pa.DataType | None] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        names = wanted[start : start + _AT_ONCE]
        looks = ", ".join(_LOOK.format(_quoted(name)) for name in names)
        (found,) = file.execute(f"SELECT {looks} FROM {_quoted(table.name)}")
        for place, name in enumerate(names):
            try:
                kinds[name] = _kind(declared[name].upper(), *found[6 * place : 6 * place + 6])
            except OverflowError:
                text = "has decimals beside integers that they cannot hold exactly"
                raise UserError(f"{path}: column {name} {text}") from None
    return kinds


def _kind(declared: str, blob, text, real, integer, low: int | None, high: int | None) -> pa.DataType | None:
    """The type of a column with values of these kinds; OverflowError where no type holds them all."""
    if blob:
        return None
    if not (text or real or integer):
        return next((kind for word, kind in _DECLARED.items() if word in declared), pa.string())
    if text:
        return pa.string()
    if not real:
        return pa.int64()
    if integer and max(abs(low or 0), abs(high or 0)) > _EXACT:
        raise OverflowError
    return pa.float64()


def _read(path: str, table: _Table, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    with _opened(path) as file:
        columns = ", ".join(map(_quoted, schema.names))
        cursor = file.execute(f"SELECT {columns} FROM {_quoted(table.name)}")
        while batch := cursor.fetchmany(min(rows, _ROWS)):
            arrays = [_array(values, field.type) for values, field in zip(zip(*batch, strict=True), schema, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence, kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        values = [None if value is None else value if isinstance(value, str) else repr(value) for value in values]
    return pa.array(values, kind)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
