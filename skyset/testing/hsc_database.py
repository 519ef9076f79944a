"""The catalogue database of the simulated HSC archive: SQL over tables of pdr2_wide, answered by SQLite in memory.

Queries run as they are written, schema names and joins included, so that a wrong condition shows in the rows. Names of
tables and columns that the real ones have not are refused in PostgreSQL's words.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from skyset.errors import SkysetError

SCHEMA = "pdr2_wide"
BANDS = "grizy"
#: Flags of each band, false where a sky does not say otherwise, by table.
FLAGS = {
    "forced": (
        "cmodel_flag",
        *(f"pixelflags_{name}" for name in ("edge", "bad", "interpolatedcenter", "saturatedcenter", "crcenter")),
    ),
    "forced2": ("sdsscentroid_flag",),
}
SPECZ = (
    *("d_pos", "d_mag", "specz_ra", "specz_dec", "specz_redshift", "specz_redshift_err", "specz_mag_i", "specz_name"),
    *("specz_flag_homogeneous", "specz_original_flag"),
)
FORMATS = ("csv", "csv.gz", "sqlite3", "fits")
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


class SqlError(SkysetError):
    """A query is refused; the text is PostgreSQL's, more or less."""


@dataclass(frozen=True)
class Result:
    """What a query gave: `dtypes` as the database declares them, object where it does not know; null is None."""

    sql: str
    names: list[str]
    dtypes: list[np.dtype]
    rows: list[tuple]


class Database:
    """Tables forced, forced2 and specz of a sky.

    Args:
        catalogue: columns by name, a row a match of an object and a spectrum: rows of one ``object_id`` are one object with
            several spectra; a NaN ``specz_redshift`` is none.
    """

    def __init__(self, catalogue: Mapping[str, np.ndarray]) -> None:
        count = len(catalogue["object_id"])
        columns = {f"{band}_{flag}": np.zeros(count, bool) for names in FLAGS.values() for flag in names for band in BANDS}
        columns |= {name: np.asarray(values) for name, values in catalogue.items()}
        self._dtypes = {name: values.dtype for name, values in columns.items()}
        self._lock = threading.Lock()
        self._file = sqlite3.connect(":memory:", check_same_thread=False)
        self._file.execute(f"ATTACH ':memory:' AS {SCHEMA}")
        objects = np.unique(columns["object_id"], return_index=True)[1]
        spectra = np.flatnonzero(~np.isnan(columns.get("specz_redshift", np.full(count, np.nan)).astype(float)))
        of_forced2 = [f"{band}_{flag}" for flag in FLAGS["forced2"] for band in BANDS]
        forced = [name for name in columns if name not in (*SPECZ, *of_forced2, "object_id")]
        self._table("forced", forced, columns, np.sort(objects))
        self._table("forced2", of_forced2, columns, np.sort(objects))
        self._table("specz", [name for name in SPECZ if name in columns], columns, spectra)
        self._file.set_authorizer(lambda what, *_: sqlite3.SQLITE_OK if what in _ALLOWED else sqlite3.SQLITE_DENY)

    def _table(self, table: str, names: Sequence[str], columns: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        names = ["object_id", *names]
        listed = ", ".join(f'"{name}"' for name in names)
        self._file.execute(f"CREATE TABLE {SCHEMA}.{table} ({listed})")
        self._file.execute(f"CREATE INDEX {SCHEMA}.of_{table} ON {table} (object_id)")
        values = zip(*(_plain(columns[name][rows]) for name in names), strict=True)
        self._file.executemany(f"INSERT INTO {SCHEMA}.{table} VALUES ({', '.join('?' * len(names))})", values)

    def check(self, sql: str) -> None:
        """Raise SqlError unless the query could run."""
        self._execute(f"EXPLAIN {_one_statement(sql)}", 0)

    def run(self, sql: str, limit: int = -1) -> Result:
        """All rows of a query, or the first of them."""
        names, rows = self._execute(_one_statement(sql), limit)
        return Result(sql, names, [self._dtypes.get(name, np.dtype(object)) for name in names], rows)

    def _execute(self, sql: str, limit: int) -> tuple[list[str], list[tuple]]:
        try:
            with self._lock:
                cursor = self._file.execute(sql)
                rows = cursor.fetchall() if limit < 0 else cursor.fetchmany(limit)
                return [each[0] for each in cursor.description or ()], rows
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SqlError(_in_postgres(str(error))) from error


def _one_statement(sql: str) -> str:
    text = sql.strip().rstrip(";")
    if not re.match(r"(?is)(\s|--[^\n]*\n|/\*.*?\*/)*(select|with)\b", text):
        raise SqlError(f'ERROR:  syntax error at or near "{(text.split() or [""])[0][:40]}": only SELECT is allowed')
    return text


def _plain(values: np.ndarray) -> list:
    """Python's values as SQLite takes them; NaN is null."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "ascii")
    if values.dtype.kind == "f":
        return [None if value != value else value for value in values.astype(float).tolist()]
    return [int(value) if isinstance(value, bool) else value for value in values.tolist()]


def _in_postgres(text: str) -> str:
    for pattern, words in (
        (r"no such column: (\S+)", r'ERROR:  column "\1" does not exist'),
        (r"no such table: (\S+)", r'ERROR:  relation "\1" does not exist'),
        (r"no such function: (\S+)", r"ERROR:  function \1 does not exist"),
        (r"ambiguous column name: (\S+)", r'ERROR:  column reference "\1" is ambiguous'),
        (r'near "(.*)": syntax error', r'ERROR:  syntax error at or near "\1"'),
        (r".*(not authorized|prohibited).*", r"ERROR:  permission denied"),
        (r"You can only execute one statement.*", r"ERROR:  only one SELECT statement is allowed"),
    ):
        if re.fullmatch(pattern, text):
            return re.sub(pattern, words, text)
    return f"ERROR:  {text}"


def encoded(result: Result, out_format: str, metainfo: bool = False) -> bytes:
    """A result as the service writes it: in CSV a ``#`` comes before the names, after which other comments may stand."""
    if out_format == "sqlite3":
        return _as_sqlite(result)
    if out_format == "fits":
        return _as_fits(result)
    text = _as_csv(result, metainfo)
    return gzip.compress(text, 1, mtime=0) if out_format == "csv.gz" else text


def _as_csv(result: Result, metainfo: bool) -> bytes:
    file = io.StringIO(newline="")
    if metainfo:
        sql = " ".join(result.sql.split())
        file.write(f"# sql: {sql}\n# date: {datetime.now(UTC):%Y-%m-%d}\n#\n")
    file.write("# ")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(result.names)
    pairs = list(zip(result.names, result.dtypes, strict=True))
    writer.writerows(
        [_cell(name, dtype, value) for (name, dtype), value in zip(pairs, row, strict=True)] for row in result.rows
    )
    return file.getvalue().encode()


def _cell(name: str, dtype: np.dtype, value):
    if value is None:
        return "nan" if dtype.kind == "f" and not name.startswith("specz") else ""
    if dtype.kind == "b":
        return str(bool(value))
    return str(np.float32(value)) if dtype == np.float32 else value


def _as_sqlite(result: Result) -> bytes:
    kinds = {"i": "BIGINT", "f": "REAL", "b": "BOOLEAN"}
    columns = ", ".join(
        f'"{name}" {kinds.get(dtype.kind, "TEXT")}' for name, dtype in zip(result.names, result.dtypes, strict=True)
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "result.sqlite3"
        file = sqlite3.connect(path)
        file.execute(f"CREATE TABLE table_1 ({columns})")
        file.executemany(f"INSERT INTO table_1 VALUES ({', '.join('?' * len(result.names))})", result.rows)
        file.commit()
        file.close()
        return path.read_bytes()


def _as_fits(result: Result) -> bytes:
    from astropy.io import fits

    codes = {"int64": "K", "float64": "D", "float32": "E", "bool": "L"}
    columns = []
    for place, (name, dtype) in enumerate(zip(result.names, result.dtypes, strict=True)):
        values = [row[place] for row in result.rows]
        missing = np.array([value is None for value in values], bool)
        if code := codes.get(dtype.name):
            array = np.array([0 if value is None else value for value in values], dtype)
        else:
            array = np.array(["" if value is None else str(value) for value in values], "U")
            code = f"{max(1, array.dtype.itemsize // 4)}A"
        columns += [fits.Column(name, code, array=array), fits.Column(f"{name}_isnull", "L", array=missing)]
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(file)
    return file.getvalue()
