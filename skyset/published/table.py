"""A published CSV file read as a partition: it is taken into memory once, as a catalogue of some 100,000 rows can be."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyset.errors import PartitionError, RecordError
from skyset.partitions.adopted import Form
from skyset.partitions.partition import decoded
from skyset.survey import Column, fitting

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns by file, as long as it is not written to.
_tables: dict[str, tuple[tuple, dict[str, np.ndarray]]] = {}


def table_keys(path: Path, keys: Sequence[Column], check: Callable[[Mapping[str, Column]], None]) -> dict[str, Column]:
    """The keys that a CSV file has, as columns; PartitionError where it cannot be read."""
    stored = {key.name: key for key in keys if key.name in _read(path, keys)}
    try:
        check(stored)
    except RecordError as error:
        raise PartitionError(f"{path}: {error}") from error
    return stored


def table_rows(path: Path) -> int:
    """Rows of a file whose keys were looked at."""
    return len(next(iter(_tables[str(path)][1].values())))


def _read(path: str | Path, keys: Sequence[Column]) -> dict[str, np.ndarray]:
    """Arrays (rows, *shape) by key, in the dtypes that are published."""
    try:
        status = Path(path).stat()
        stamp = status.st_ino, status.st_size, status.st_mtime_ns
        if _tables.get(str(path), (None,))[0] != stamp:
            _tables[str(path)] = stamp, _parsed(path, keys)
    except (OSError, ValueError, LookupError, StopIteration) as error:
        raise PartitionError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    except RecordError as error:
        raise PartitionError(f"{path}: {error}") from error
    return _tables[str(path)][1]


def _parsed(path: str | Path, keys: Sequence[Column]) -> dict[str, np.ndarray]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = _header(path)
    text = {key.name for key in keys if key.is_text or key.name == "object_id" or key.dtype == "bool"}
    kinds = {name: pa.string() if name in text else pa.float64() for name in names}
    table = arrow_csv.read_csv(
        path,
        arrow_csv.ReadOptions(skip_rows=1, column_names=names),
        arrow_csv.ParseOptions(newlines_in_values=True),
        arrow_csv.ConvertOptions(column_types=kinds, strings_can_be_null=True),
    )
    found: dict[str, np.ndarray] = {}
    for key in keys:
        parts = [key.name, *(f"{key.name}.{place}" for place in range(1, max(1, *key.shape, 1)))]
        if set(parts) <= set(names):
            values = np.stack([_values(table[part], key) for part in parts], axis=-1)
            found[key.name] = values.reshape(table.num_rows, *key.shape)
    return found


def _header(path: str | Path) -> list[str]:
    """Names of the columns; one that is there again is called ``<name>.1``, as pandas calls it."""
    names: list[str] = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        for name in next(csv.reader(file)):
            name = name.strip("# ")
            again = names.count(name)
            names.append(f"{name}.{again}" if again else name)
    return names


def _values(column: pa.ChunkedArray, key: Column) -> np.ndarray:
    if key.name == "object_id":
        ids = column.to_pylist()
        for row, text in enumerate(ids):
            if text is None or not text.strip().isdecimal():
                raise RecordError(
                    f"object_id holds {text} in row {row + 1}: identifiers that went through floating point "
                    "(a spreadsheet?) cannot be repaired"
                )
            if not (text.isascii() and int(text) < 1 << 63):
                raise RecordError(f"object_id holds {text[:60]} in row {row + 1}: not an integer of 64 bits")
        return np.array(ids).astype(np.int64)
    if key.is_text:
        return fitting(Column(key.name, key.dtype), [text or "" for text in column.to_pylist()])
    if key.dtype == "bool":
        return np.isin([str(text).strip().lower() for text in column.to_pylist()], ("true", "t", "1", "1.0"))
    values = column.to_numpy()
    if key.dtype == "float64":
        return values
    try:
        return fitting(Column(key.name, key.dtype), np.nan_to_num(values))
    except RecordError as error:
        raise RecordError(f"{error}, where there can be integers alone") from error


class AdoptedTable:
    """A published CSV file, as ``PieceReader`` reads partitions; arguments and errors are those of ``AdoptedFile``."""

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[Column],
        trusted_rows: int | None = None,
        trusted_bytes: int | None = None,
        sha256: str | None = None,
        *,
        keys: Sequence[Column],
        form: Form,
        checked: bool = False,
    ):
        self.path, self.columns = path, {column.name: column for column in columns}
        stored = _read(path, keys)
        self.rows = len(next(iter(stored.values())))
        if trusted_rows is not None and self.rows != trusted_rows:
            raise PartitionError(f"{path}: has {self.rows} rows, it had {trusted_rows}")
        try:
            made = form.convert(stored, list(self.columns))
            self._values = {name: fitting(column, made[name]) for name, column in self.columns.items()}
        except (RecordError, LookupError) as error:
            raise PartitionError(f"{path}: {error}") from error

    def read_columns(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        """Rows ``start:stop`` of several columns, each into its array (rows, *shape)."""
        if not 0 <= start <= stop <= self.rows:
            raise PartitionError(f"{self.path}: has {self.rows} rows, {start} to {stop} were asked for")
        for name, out in outs.items():
            out[...] = self._values[name][start:stop]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows ``start:stop`` of a column, (rows, *shape)."""
        return np.array(self._values[name][start:stop])

    def text(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        """Rows of a text column as Python strings."""
        return decoded(self.read(name, start, stop))

    def close(self) -> None:
        """Nothing: the table stays in memory for the next piece."""

    def __enter__(self) -> AdoptedTable:
        return self

    def __exit__(self, *_) -> None:
        pass
