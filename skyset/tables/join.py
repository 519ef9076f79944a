"""Several catalogues of the same objects as one table: a row an object, a column from the first table that has its value."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import RecordError, UserError
from skyset.files import file_sha256, short_digest
from skyset.survey import Column, fitting
from skyset.tables.open import open_catalog

#: How text says yes and no where a column of flags was written as words.
_FLAGS = {"true": 1, "false": 0, "1": 1, "0": 0}
#: Of the rules of digests: folders built by others are refused, or built again, but never taken for the same.
_DIGEST = 2
#: From here on, floating point skips integers.
_EXACT_BELOW = 2.0**53


@dataclass(frozen=True)
class Source:
    """A catalogue and what is taken from it.

    Args:
        path: the file.
        key: its column of names.
        columns: its names by ours.
    """

    path: Path
    key: str
    columns: Mapping[str, str]


@dataclass
class Joined:
    """The rows of all sources.

    Attributes:
        keys: names of the objects, in the order in which the sources have them.
        values: (rows,) arrays by our names.
        rejected: (key, file, why) of rows that are left out.
    """

    keys: list[str]
    values: dict[str, np.ndarray]
    rejected: list[tuple[str, str, str]] = field(default_factory=list)

    def head(self, rows: int | None) -> Joined:
        """The first rows; all where None is asked for."""
        return Joined(self.keys[:rows], {name: array[:rows] for name, array in self.values.items()}, self.rejected)


def join(sources: Sequence[Source], columns: Mapping[str, Column]) -> Joined:
    """Read the sources; the second row of an object in one of them is left out.

    Args:
        columns: our columns by name, at least those that the sources mention.

    Raises:
        UserError: a file cannot be read, or holds values that a column cannot hold unchanged.
    """
    places: dict[str, int] = {}
    joined = Joined([], {})
    read = []
    for source in sources:
        keys, values = read_source(source, columns)
        rows, taken, seen = np.empty(len(keys), np.int64), np.zeros(len(keys), bool), set()
        for number, key in enumerate(keys):
            if key in seen:
                joined.rejected.append(
                    (key, str(source.path), f"a second row of {key} in {source.path.name} (row {number + 1})")
                )
                continue
            seen.add(key)
            rows[number], taken[number] = places.setdefault(key, len(places)), True
        read.append((rows[taken], {name: array[taken] for name, array in values.items()}))
    joined.keys = list(places)
    for rows, values in read:
        for name, array in values.items():
            _fill(joined.values, columns[name], rows, array, len(places))
    return joined


def _fill(values: dict[str, np.ndarray], column: Column, rows: np.ndarray, array: np.ndarray, size: int) -> None:
    """Write an array's values where there are none yet."""
    nothing = column.missing
    if column.name not in values:
        values[column.name] = np.full(size, nothing, column.dtype)
    target = values[column.name]
    old = target[rows]
    target[rows] = np.where(np.isnan(old) if old.dtype.kind == "f" else old == nothing, array, old)


def read_source(source: Source, columns: Mapping[str, Column]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names and values of a source's rows."""
    theirs = list(dict.fromkeys([source.key, *source.columns.values()]))
    table = open_catalog(source.path, theirs).table()
    keys = [str(key or "").strip() for key in _as_text(table[source.key]).to_pylist()]
    values = {}
    for ours, name in source.columns.items():
        try:
            values[ours] = fitting(columns[ours], as_numpy(table[name], columns[ours]))
        except (RecordError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"{source.path}: column {name}: {error}") from error
    return keys, values


def as_numpy(values: pa.ChunkedArray, column: Column) -> np.ndarray:
    """Arrow's values with ours for what is missing; floats stay float64, for ``fitting`` to judge."""
    nothing = column.missing
    if column.is_text:
        return np.array([text or "" for text in _as_text(values).to_pylist()], object)
    if pa.types.is_boolean(values.type):
        values = pc.cast(values, pa.int8())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = _words(values, column)
    if pa.types.is_null(values.type):
        return np.full(len(values), nothing)
    if pa.types.is_floating(values.type) or column.dtype.startswith("float"):
        array = pc.cast(values, pa.float64(), safe=False).to_numpy()
        if np.dtype(column.dtype).kind in "iu":
            _check_exact(array)
        return array if np.isnan(nothing) else np.where(np.isnan(array), nothing, array)
    if values.null_count:
        values = pc.fill_null(values, pa.scalar(nothing, pa.int64() if nothing < 0 else values.type))
    return values.to_numpy()


def _check_exact(array: np.ndarray) -> None:
    """Refuse floats that are too large to distinguish one integer from the next."""
    large = array[np.abs(array) >= _EXACT_BELOW]
    if len(large):
        raise RecordError(f"holds {large[0]!s}, an integer that lost digits in floating point: export it again, as text")


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(values, pa.string())


def _words(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Flags that are words, and columns without any value, as numbers."""
    words = [None if not word else word.strip().lower() for word in _as_text(values).to_pylist()]
    if unknown := next((word for word in words if word is not None and word not in _FLAGS), None):
        raise RecordError(f"holds {unknown!r}, no {column.dtype}")
    return pa.chunked_array([pa.array([None if word is None else _FLAGS[word] for word in words], pa.int64())])


def digest(sources: Iterable[Source], *more) -> str:
    """What tells whether rows were made of the same sources, and ``more`` (anything that JSON takes)."""
    parts = [[_checksum(source.path, *_traits(source.path)), source.key, dict(source.columns)] for source in sources]
    return short_digest(json.dumps([_DIGEST, parts, *more], sort_keys=True))


def _traits(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@functools.lru_cache(maxsize=32)
def _checksum(path: Path, *_: int) -> str:
    """Of a file of these traits: a survey's datasets are made of the same tables, of up to gigabytes."""
    return file_sha256(path)
