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
from skyset.tables.catalog import ROWS, Catalog, chosen_columns

#: Bytes of one value, and of one statement.
_LONGEST = 16 << 20
_EXACT = 2**53
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
    return {name: _kind(file, table, name, declared[name].upper(), path) for name in wanted}


def _kind(file: sqlite3.Connection, table: _Table, name: str, declared: str, path: str) -> pa.DataType | None:
    column, source = _quoted(name), _quoted(table.name)
    rows = file.execute(f"SELECT typeof({column}), min({column}), max({column}) FROM {source} GROUP BY 1").fetchall()
    seen = {kind: (low, high) for kind, low, high in rows if kind != "null"}
    if "blob" in seen:
        return None
    if not seen:
        return next((kind for word, kind in _DECLARED.items() if word in declared), pa.string())
    if "text" in seen:
        return pa.string()
    if "real" not in seen:
        return pa.int64()
    if "integer" in seen and max(map(abs, seen["integer"])) > _EXACT:
        raise UserError(f"{path}: column {name} has decimals beside integers that they cannot hold exactly")
    return pa.float64()


def _read(path: str, table: _Table, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    with _opened(path) as file:
        columns = ", ".join(map(_quoted, schema.names))
        cursor = file.execute(f"SELECT {columns} FROM {_quoted(table.name)}")
        while batch := cursor.fetchmany(min(rows, ROWS)):
            arrays = [_array(values, field.type) for values, field in zip(zip(*batch, strict=True), schema, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence, kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        values = [None if value is None else value if isinstance(value, str) else repr(value) for value in values]
    return pa.array(values, kind)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
