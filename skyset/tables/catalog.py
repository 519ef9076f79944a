"""A catalogue of any length: its columns, and its rows a batch at a time."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib

from skyset.errors import RecordError, UserError
from skyset.messages import listed
from skyset.tables.numeric_text import is_text

ROWS = 65536


def check_ids(table: pa.Table | pa.RecordBatch, name: str) -> None:
    """Refuse a column of identifiers that has been through floating point: what it lost cannot be repaired.

    Raises:
        UserError: there is no such column, its type is a float, or some value is written as ``5.87722984435352E+17`` or
            ``587722984435351614.0``.
    """
    ids = table[require(table.schema.names, name, "the catalogue")]
    advice = "identifiers that went through floating point (a spreadsheet?) cannot be repaired: export them again, as text"
    if pa.types.is_floating(ids.type):
        raise UserError(f"column {name} is {ids.type}, not integer: {advice}")
    if not is_text(ids.type):
        return
    spoilt = pc.match_substring_regex(ids, r"^\s*[+-]?([0-9](\.[0-9]*)?[eE]\+?[0-9]+|[0-9]{16,}\.0*)\s*$")
    if pc.any(spoilt).as_py():
        row = pc.index(spoilt, True).as_py()
        raise UserError(f"column {name} holds {ids[row].as_py()} in row {row + 1}: {advice}")


def require(names: Sequence[str], name: str, where: str) -> str:
    """``name``, if it is one of ``names``.

    Raises:
        UserError: it is not; the nearest name and all that exist are named.
    """
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1, 0.6) or [n for n in names if n.lower() == name.lower()]
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"{where} has no column {name}{hint} (there are: {listed(names, 60)})")


@dataclass(frozen=True)
class Catalog:
    """A catalogue that can be read from its beginning any number of times.

    Attributes:
        path: the file, or the first of several.
        schema: names and types of the columns; units, where the file has them, in the fields' metadata (``unit``).
        rows: their number.
        notes: what was left out and why, a line each.
    """

    path: str
    schema: pa.Schema
    rows: int
    _read: Callable[[int], Iterator[pa.RecordBatch]] = field(repr=False)
    notes: tuple[str, ...] = ()

    def batches(self, rows: int = ROWS) -> Iterator[pa.RecordBatch]:
        """All rows in their order, in batches of at most ``rows``.

        Raises:
            UserError: the file is damaged.
        """
        if rows < 1:
            raise ValueError(f"batches of {rows} rows")
        with explained(self.path):
            for batch in self._read(rows):
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)

    def table(self) -> pa.Table:
        """All rows at once, for catalogues that fit into memory."""
        return pa.Table.from_batches(self.batches(), self.schema)


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Whatever damage shows inside the block is a UserError that begins with the file."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except EOFError as error:
        raise UserError(f"{path}: gzip data are cut short") from error
    except RecordError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, isal_zlib.IsalError, pa.ArrowException) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read: {' '.join(text.split())[:200]}") from error


def chosen_columns(names: Sequence[str], columns: Sequence[str] | None, where: str) -> list[str]:
    """The columns wanted, in their order; UserError unless each exists, once."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where}: several columns are named {', '.join(map(repr, twice))}")
    if columns is not None and not len(columns):
        raise UserError(f"{where}: no column is asked for")
    return list(names) if columns is None else [require(names, name, where) for name in dict.fromkeys(columns)]


def kind_of(path: str | Path) -> str:
    """What a catalogue is by its name: ``csv`` of ``a.csv.gz``."""
    return Path(path).name.lower().removesuffix(".gz").rpartition(".")[2]
