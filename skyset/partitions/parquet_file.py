"""A Parquet file of a survey's features, as ``skyset push`` writes it, read as a partition: columns of their own dtypes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyset import remote
from skyset.cached_file import CachedStream
from skyset.errors import PartitionError
from skyset.partitions.kept import Kept
from skyset.partitions.layout import SLAB_BYTES
from skyset.partitions.parquet_values import (
    binary_of,
    bounds_of_lists,
    bytes_of,
    member_of,
    offsets_in,
    one_array,
    values_of,
)
from skyset.partitions.partition import bounds_of
from skyset.survey import MAX_VALUE_BYTES, Column, Layers, Survey

#: Of a row group, decoded: those of ``skyset push`` have 8 MB, or one row.
MAX_GROUP_BYTES = 1 << 30
#: Row groups that were used last, of all files: pieces and row groups do not end at the same rows.
kept: Kept[pa.Table] = Kept(96 << 20)
#: What pyarrow raises on a damaged file.
DAMAGE = (pa.ArrowException, OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError)


class Place(NamedTuple):
    """Where a column's values are: a feature, for a group of layers the field in it, and which of the layers (-1: all)."""

    feature: str
    field: str = ""
    layer: int = -1


@dataclass(frozen=True)
class OpensParquet:
    """Opens the files of a survey, as ``Partition`` does its own; for ``Survey.opens``.

    Args:
        places: by column.
        fill: a missing number or text is what partitions have for it; else it is damage.
    """

    places: Mapping[str, Place]
    fill: bool = False
    #: Whether a row costs as much as all rows of its group: shuffled reading holds whole pieces.
    in_groups = True

    @classmethod
    def of(cls, survey: Survey) -> OpensParquet:
        """For files of a survey's features."""
        places: dict[str, Place] = {}
        for feature in survey.features:
            if not isinstance(feature, Layers):
                places.setdefault(feature.source, Place(feature.name))
                continue
            for field, source in feature.fields.items():
                if isinstance(source, str):
                    places.setdefault(source, Place(feature.name, field))
                else:
                    for layer, name in enumerate(source):
                        places.setdefault(name, Place(feature.name, field, layer))
        return cls(places)

    def __call__(
        self,
        path: str,
        columns: Sequence[Column],
        trusted_rows: int | None = None,
        trusted_bytes: int | None = None,
        sha256: str | None = None,
        stream: Callable[[], CachedStream] | None = None,
    ) -> ParquetFile:
        return ParquetFile(path, columns, trusted_rows, trusted_bytes, sha256, self.places, stream, self.fill)


_numbers = itertools.count()


class ParquetFile:
    """An open Parquet file.

    Args:
        path: local path, or a URL that fsspec can open for reading.
        columns: the survey's that are wanted.
        trusted_rows, trusted_bytes: what the manifest says.
        sha256: what the whole file's checksum must be, hexadecimal.
        places: where the columns are; one that is not named is a feature of its name.
        stream: opens the file of a URL in place of fsspec.
        fill: see ``OpensParquet``.

    Raises:
        PartitionError: the file is missing, has another size, checksum or number of rows, is no Parquet, or lacks a column.
    """

    def __init__(
        self,
        path: str,
        columns: Sequence[Column],
        trusted_rows: int | None = None,
        trusted_bytes: int | None = None,
        sha256: str | None = None,
        places: Mapping[str, Place] | None = None,
        stream: Callable[[], CachedStream] | None = None,
        fill: bool = False,
    ):
        self.path, self.columns, self._fill = path, {column.name: column for column in columns}, fill
        self._places = {name: (places or {}).get(name) or Place(name) for name in self.columns}
        self._lock = threading.RLock()
        self._number = next(_numbers)
        self._stack = contextlib.ExitStack()
        with self._told():
            self._source, size = self._opened(stream)
            if trusted_bytes is not None and size != trusted_bytes:
                raise PartitionError(f"{path}: has {size} bytes, the manifest says {trusted_bytes}")
            if sha256 is not None and (found := self._digest()) != sha256:
                raise PartitionError(f"{path}: SHA-256 is {found[:12]}..., the manifest says {sha256[:12]}...")
            self._file = pq.ParquetFile(self._source)
            self.rows = self._file.metadata.num_rows
            if trusted_rows is not None and self.rows != trusted_rows:
                raise PartitionError(f"{path}: has {self.rows} rows, the manifest says {trusted_rows}")
            self._starts = self._group_starts()
            names = {place.feature for place in self._places.values()}
            if missing := sorted(names - set(self._file.schema_arrow.names)):
                raise PartitionError(f"{path}: column {missing[0]} is missing")
            self._features = sorted(names)

    def _opened(self, stream: Callable[[], CachedStream] | None):
        """The file, and its size."""
        if stream is not None:
            raw = stream()
            return self._stack.enter_context(io.BufferedReader(raw, SLAB_BYTES)), raw.size
        if "://" not in str(self.path):
            return self._stack.enter_context(open(self.path, "rb")), os.path.getsize(self.path)
        with remote.os_errors():
            system, path = remote.opened(str(self.path))
            remote.check_parts(system, path)
            file = self._stack.enter_context(system.open(path, "rb", block_size=SLAB_BYTES, cache_type="readahead"))
            return file, file.size

    @property
    def schema(self) -> pa.Schema:
        return self._file.schema_arrow

    @property
    def footer(self) -> pq.FileMetaData:
        return self._file.metadata

    def head(self, names: Sequence[str], rows: int) -> pa.Table:
        """Some rows of the first row group that has any, of these of the file's own columns.

        Raises:
            PartitionError: the file is damaged.
        """
        with self._told():
            number = int(np.argmax(np.diff(self._starts) > 0))
            return self._file.read_row_group(number, columns=list(names)).slice(0, rows)

    def _digest(self) -> str:
        digest = hashlib.sha256()
        while data := self._source.read(SLAB_BYTES):
            digest.update(data)
        self._source.seek(0)
        return digest.hexdigest()

    def _group_starts(self) -> np.ndarray:
        """The first row of each row group, and the number of rows."""
        groups = [self._file.metadata.row_group(n) for n in range(self._file.num_row_groups)]
        for number, group in enumerate(groups):
            if group.total_byte_size > MAX_GROUP_BYTES:
                raise PartitionError(f"{self.path}: row group {number} has {group.total_byte_size:,} bytes: too many")
        return bounds_of([group.num_rows for group in groups])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """One thread at a time; whatever is wrong with the file, as a PartitionError that names it."""
        try:
            with self._lock:  # pieces that lie afar are read at the same time
                yield
        except PartitionError:
            self.close()
            raise
        except DAMAGE as error:
            self.close()
            reason = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
            raise PartitionError(f"{self.path}: {reason}") from error

    @property
    def stamp(self) -> tuple:
        """Of the file: another one once somebody has written to it."""
        if "://" in str(self.path):
            return (str(self.path),)
        status = os.stat(self.path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _group(self, number: int) -> pa.Table:
        return kept.get(self._number, number, lambda: self._file.read_row_group(number, columns=self._features))

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[pa.Table, int, int]]:
        """The row groups of some rows: a part of each, and which of the rows it is."""
        if not 0 <= start <= stop <= self.rows:
            raise PartitionError(f"{self.path}: has no rows {start} to {stop}, but {self.rows}")
        for number in range(len(self._starts) - 1):
            first, last = int(self._starts[number]), int(self._starts[number + 1])
            low, high = max(first, start), min(last, stop)
            if low < high:
                yield self._group(number).slice(low - first, high - low), low - start, high - start

    def read_columns(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        """Rows ``start:stop`` of several columns, each into its array (rows, *shape), ragged ones into (values,).

        Raises:
            PartitionError: the file is damaged, or a value is missing or of another dtype or shape.
        """
        with self._told():
            filled = dict.fromkeys(outs, 0)
            for table, first, last in self._stretches(start, stop):
                for name, out in outs.items():
                    values = self._values(table, name)
                    if self.columns[name].is_ragged:
                        out[filled[name] : filled[name] + len(values)] = values
                        filled[name] += len(values)
                    else:
                        out[first:last] = values

    def read_runs(self, runs: Sequence[tuple[Mapping[str, np.ndarray], int, int]]) -> None:
        """Several runs of rows, (outs, start, stop) as ``read_columns`` takes them."""
        for run in runs:
            self.read_columns(*run)

    def taken(self, rows: np.ndarray) -> pa.Table:
        """Some rows, ascending numbers: each row group that has one is read once.

        Raises:
            PartitionError: the file is damaged, or has no such rows.
        """
        with self._told():
            groups = np.searchsorted(self._starts, rows, side="right") - 1
            if len(rows) and not 0 <= rows[0] <= rows[-1] < self.rows:
                raise PartitionError(f"{self.path}: has no rows {rows[0]} to {rows[-1]}, but {self.rows}")
            chosen = np.unique(groups).tolist()
            parts = [self._group(n).take(pa.array(rows[groups == n] - self._starts[n])) for n in chosen]
            return pa.concat_tables(parts)

    def values(self, table: pa.Table, name: str) -> np.ndarray:
        """A column of rows that ``taken`` gave; see ``read``."""
        with self._told():
            return self._values(table, name)

    def lengths(self, table: pa.Table, name: str) -> np.ndarray:
        """How many values each row of a ragged column has, of rows that ``taken`` gave: int64 (rows,)."""
        with self._told():
            return self._lengths(table, name)

    def _lengths(self, table: pa.Table, name: str) -> np.ndarray:
        column, place = self.columns[name], self._places[name]
        array = one_array(table.column(place.feature))
        if column.is_bytes:
            each = np.diff(offsets_in(binary_of(array, self._fill)))
        else:
            with self._named():
                each = np.diff(bounds_of_lists(member_of(array, place.field), column))
        if each.max(initial=0) * column.stored_dtype.itemsize > MAX_VALUE_BYTES:
            raise PartitionError(f"{self.path}: column {name}: a row has more than {MAX_VALUE_BYTES} bytes")
        return each

    def _values(self, table: pa.Table, name: str) -> np.ndarray:
        """A column of a part of a row group: (rows, *shape); of a ragged one, all values one after the other."""
        column, place = self.columns[name], self._places[name]
        array = one_array(table.column(place.feature))
        with self._named():
            if column.is_bytes:
                return bytes_of(array, self._fill)
            return values_of(array, column, place.field, place.layer, self._fill)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """What is wrong with a column, with the file's name before it."""
        try:
            yield
        except PartitionError as error:
            raise PartitionError(f"{self.path}: {error}") from None

    def ends(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Where rows ``start:stop`` of a ragged column lie among the values of these rows, int64 (rows + 1,).

        Raises:
            PartitionError: the file is damaged, or a row has more than ``MAX_VALUE_BYTES``.
        """
        with self._told():
            stretches = self._stretches(start, self.rows if stop is None else stop)
            lengths = [self._lengths(table, name) for table, _, _ in stretches]
            return bounds_of(np.concatenate([np.zeros(0, np.int64), *lengths]))

    def size(self, name: str, start: int, stop: int) -> int:
        """Values of rows ``start:stop`` of a ragged column; PartitionError as ``ends``."""
        return int(self.ends(name, start, stop)[-1])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows ``start:stop`` of a column, (rows, *shape), of a ragged one (values,); PartitionError as ``read_columns``."""
        column, stop = self.columns[name], self.rows if stop is None else stop
        shape = (self.size(name, start, stop),) if column.is_ragged else (stop - start, *column.shape)
        out = np.empty(shape, column.stored_dtype)
        self.read_columns({name: out}, start, stop)
        return out

    def text(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        """Rows of a text column as Python strings."""
        return [value.decode("ascii", "replace") for value in self.read(name, start, stop).tolist()]

    def close(self) -> None:
        kept.forget(self._number)
        self._stack.close()

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()
