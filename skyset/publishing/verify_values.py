"""The values of published rows, column by column, against those of the partitions that they were made of.

Rows find each other by the survey's key. Ids of all rows are held; of pixels, a few megabytes at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skyset.loading.arrow import arrow_table, features_of, needed_columns
from skyset.loading.parquet_folder import without_tensors
from skyset.loading.reader import Piece, PieceReader, row_bytes
from skyset.partitions.partition import Partition, bounds_of
from skyset.publishing.hats_plan import index_of
from skyset.publishing.hats_rows import SPLIT, WHOLE
from skyset.publishing.source import Source
from skyset.publishing.verify_files import damage_told, dtype_and_shape, examples, opened, rows_are
from skyset.survey import Survey

_BATCH_BYTES = 4 << 20
#: Of the rows of a file whose bands are tried in another order.
_TRIED = 3


class Against:
    """The partitions that published rows were made of.

    Args:
        source: with the features that the rows have.
        key: the column that rows find each other by. Where several rows have the same, the first finds the first: then
            files of rows are looked at in the order of the sky.
        on_sky: rows of one key are in the order of the sky, and those of a tree without a position are nowhere.

    Raises:
        PartitionError: a partition cannot be read.
    """

    def __init__(self, source: Source, key: str, on_sky: bool = False):
        self.source, self.survey = source, source.survey
        self.files = sorted(source.manifest.files, key=lambda entry: (entry.split, entry.healpix, entry.path))
        self.pieces = source.pieces(self.files, WHOLE, verify=False)
        column = self.survey.column(key)
        parts = []
        for piece in self.pieces:
            with (self.survey.opens or Partition)(piece.path, [column], piece.rows, piece.bytes, None) as file:
                parts.append(file.read(column.name))
        self.keys = np.concatenate(parts) if parts else np.zeros(0, "S1")
        self.starts = bounds_of([len(part) for part in parts])
        self._repeats: Counter[bytes] | None = None
        told_apart = self.keys
        if len(np.unique(self.keys)) < len(self.keys):
            order = np.lexsort(self._by_sky()) if on_sky else np.arange(len(self.keys))
            told, self._repeats = _told_apart(self.keys[order], Counter()), Counter()
            told_apart = np.empty_like(told)
            told_apart[order] = told
        self._order = np.argsort(told_apart, kind="stable")
        self._sorted = told_apart[self._order]
        self._found = np.zeros(len(self.keys), bool)
        if on_sky and source.manifest.is_adopted:
            ra, dec = self._positions()
            self._found |= np.isnan(ra) | np.isnan(dec)

    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination of all rows, float64 degrees."""
        columns = [self.survey.column(name) for name in ("ra", "dec")]
        parts: tuple[list[np.ndarray], list[np.ndarray]] = ([np.zeros(0)], [np.zeros(0)])
        for piece in self.pieces:
            with (self.survey.opens or Partition)(piece.path, columns, piece.rows, piece.bytes, None) as file:
                for part, column in zip(parts, columns, strict=True):
                    part.append(file.read(column.name).astype(np.float64))
        return np.concatenate(parts[0]), np.concatenate(parts[1])

    def _by_sky(self) -> tuple[np.ndarray, ...]:
        """What rows are sorted by in a catalogue, the last first: the sky, then the manifest's files, then their rows."""
        ranks = {(entry.split, entry.path): rank for rank, entry in enumerate(self.source.manifest.files)}
        ranked = np.array([ranks[entry.split, entry.path] for entry in self.files], np.int64)
        ra, dec = self._positions()
        placed = ~(np.isnan(ra) | np.isnan(dec))
        index = np.full(len(ra), np.iinfo(np.int64).max)
        index[placed] = index_of(ra[placed], dec[placed])
        rows = np.arange(len(ra))
        return rows, ranked[self._file_of(rows)], index

    def numbers(self, keys: np.ndarray) -> np.ndarray:
        """The rows of the source that have these keys (bytes), -1 where there is none; int64 (n,)."""
        if not len(self._sorted):
            return np.full(len(keys), -1, np.int64)
        place = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, self._order[place], -1).astype(np.int64)

    def look_at(
        self, root: str, path: str, file: pq.ParquetFile, key_name: str, split: str | None = None, counts: bool = True
    ) -> tuple[list[str], Values | None]:
        """Rows of a file that the source has not, or in another order or split; and the values that are to be compared.

        Args:
            root, path: the file's.
            file: open.
            key_name: its column of keys.
            split: of all its rows; None where a column tells it, or nothing.
            counts: whether a row that is here is none that is missing.
        """
        keys = keys_in(file, key_name)
        numbers = self.numbers(keys if self._repeats is None else _told_apart(keys, self._repeats))
        lines = []
        if len(foreign := np.flatnonzero(numbers < 0)):
            lines.append(f"{path}: {rows_are(len(foreign))} not in the source: {examples(_texts(keys[foreign]))}")
        if counts:
            self._found[numbers[numbers >= 0]] = True
        if split is not None:
            lines += self._order_and_split(path, keys, numbers, split)
        return lines, self._values(root, path, keys, numbers) if (numbers >= 0).any() else None

    def _values(self, root: str, path: str, keys: np.ndarray, numbers: np.ndarray) -> Values:
        known = numbers >= 0
        used = np.unique(self._file_of(numbers[known]))
        firsts = bounds_of([len(self.pieces[n]) for n in used.tolist()])
        owner = self._file_of(numbers[known])
        within = np.full(len(numbers), -1)
        within[known] = firsts[np.searchsorted(used, owner)] + numbers[known] - self.starts[owner]
        pieces, splits = [self.pieces[n] for n in used.tolist()], [self.files[n].split for n in used.tolist()]
        return Values(root, path, self.survey, pieces, splits, firsts, keys, within)

    def _order_and_split(self, path: str, keys: np.ndarray, numbers: np.ndarray, split: str) -> Iterator[str]:
        there = np.flatnonzero(numbers >= 0)
        back = there[1:][np.diff(numbers[there]) < 0]
        if len(back):
            first = f"row {back[0]} ({_texts(keys[back])[0]})"
            yield f"{path}: its rows are in another order than the source's, first {first}"
        splits = np.array([entry.split for entry in self.files])[self._file_of(numbers[there])]
        if len(other := there[splits != split]):
            yield f"{path}: {rows_are(len(other))} of another split in the source: {examples(_texts(keys[other]))}"

    def _file_of(self, numbers: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.starts, numbers, side="right") - 1

    def missing(self) -> Iterator[str]:
        """Rows of the source that no file had."""
        lost = np.flatnonzero(~self._found)
        owners = self._file_of(lost)
        for number in np.unique(owners).tolist():
            rows = lost[owners == number]
            named = examples(_texts(self.keys[rows]))
            yield f"{rows_are(len(rows))} missing, of the source's {self.files[number].path}: {named}"


@dataclass(frozen=True, eq=False)
class Values:
    """The rows of a file and those of the source that they are to be equal to.

    Args:
        root, path: of the file.
        survey: the source's, with the features that the rows have.
        pieces, splits: of the source's files that have these rows.
        firsts: number of the first row of each of these among all of theirs, and of all: int64 (files + 1,).
        keys: of the file's rows, bytes (rows,).
        within: number of each row among those of ``pieces``, -1 where there is none; int64 (rows,).
    """

    root: str
    path: str
    survey: Survey
    pieces: list[Piece]
    splits: list[str]
    firsts: np.ndarray
    keys: np.ndarray
    within: np.ndarray


def compare_values(asked: Values) -> list[str]:
    """Every difference in a value, a line each; a few megabytes of pixels are held at a time.

    Raises:
        PartitionError: a partition of the source cannot be read.
    """
    lines: list[str] = []
    with damage_told(asked.path, lines), opened(asked.root, asked.path) as file:
        lines += _value_differences(asked, file)
    return lines


def _value_differences(asked: Values, file: pq.ParquetFile) -> Iterator[str]:
    features = features_of(asked.survey)
    names = [name for name in features if name in file.schema_arrow.names]
    wanted = datasets.Features({name: features[name] for name in names})
    with_split = SPLIT in file.schema_arrow.names and SPLIT not in features
    told: dict[str, _Told] = {}
    with PieceReader(asked.survey, names) as reader:
        window = reader.window(asked.pieces)
        step = max(1, _BATCH_BYTES // max(1, row_bytes(needed_columns(asked.survey, names), asked.pieces)))
        start = 0
        for batch in file.iter_batches(step, columns=[*names, *([SPLIT] if with_split else [])]):
            here = asked.within[start : start + len(batch)]
            rows = np.flatnonzero(here >= 0)
            start += len(batch)
            if not len(rows):
                continue
            expected = arrow_table(reader.read_rows(window, here[rows]), wanted)
            ours = without_tensors(pa.Table.from_batches([batch.take(pa.array(rows))]))
            ids = asked.keys[start - len(batch) + rows]
            columns = {name: expected.column(name) for name in names}
            if with_split:
                owner = np.searchsorted(asked.firsts, here[rows], side="right") - 1
                columns[SPLIT] = pa.chunked_array([[asked.splits[n] for n in owner.tolist()]])
            for name, column in columns.items():
                told.setdefault(name, _Told()).take(ours.column(name).combine_chunks(), column.combine_chunks(), ids)
    for name, each in told.items():
        yield from each.lines(asked.path, name)


def keys_in(file: pq.ParquetFile, name: str) -> np.ndarray:
    """A column of texts as bytes (rows,); nulls are empty."""
    column = file.read(columns=[name]).column(0)
    values = ["" if value is None else str(value) for value in column.to_pylist()]
    return np.array([value.encode("ascii", "replace") for value in values], "S")


def _told_apart(keys: np.ndarray, seen: Counter[bytes]) -> np.ndarray:
    """Keys of which those that were there before have the number of their turn behind them."""
    found = []
    for key in keys.tolist():
        found.append(key + b"#%d" % seen[key] if seen[key] else key)
        seen[key] += 1
    return np.array(found, "S")


def _texts(keys: np.ndarray) -> list[str]:
    return [key.decode("ascii", "replace") for key in keys.tolist()]


@dataclass
class _Told:
    """What differs in one column of a file."""

    kind: str = ""
    rows: list[bytes] = field(default_factory=list)
    bands: list[tuple[bytes, str]] = field(default_factory=list)

    def take(self, ours: pa.Array, theirs: pa.Array, ids: np.ndarray) -> None:
        one, other = dtype_and_shape(ours.type), dtype_and_shape(theirs.type)
        if _leaf(one[0]) != _leaf(other[0]):
            self.kind = f"{one[0]}, that of the source {other[0]}"
            return
        for row in np.flatnonzero(different(ours, theirs)).tolist():
            self.rows.append(ids[row])
            if len(self.rows) <= _TRIED and (order := _order_of_bands(ours[row], theirs[row], other[1])):
                self.bands.append((ids[row], order))

    def lines(self, path: str, name: str) -> Iterator[str]:
        if self.kind:
            yield f"{path}: column {name} is {self.kind}: its values are not compared"
        if self.rows:
            count = f"{len(self.rows):,} row{'s' * (len(self.rows) != 1)}"
            yield f"{path}: {name} is not that of the source in {count}: {examples(_decoded(self.rows))}"
        for key, order in self.bands:
            yield f"{path}: {name} of {_decoded([key])[0]} has the source's bands in another order: {order}"


def _decoded(keys: list[bytes]) -> list[str]:
    return [key.decode("ascii", "replace") for key in keys]


def _leaf(dtype: str) -> str:
    """What is compared alike: texts, and structs whatever their fields are called in the type's text."""
    return {"large_string": "string", "large_binary": "binary"}.get(dtype, dtype.split("<")[0])


def _order_of_bands(ours: pa.Scalar, theirs: pa.Scalar, shape: tuple) -> str:
    """``[2, 1, 0]`` where an image has the other's planes, each once; empty where it has not."""
    if len(shape) != 3 or None in shape:
        return ""
    one, other = (_pixels(value).reshape(shape) for value in (ours, theirs))
    axis = 0 if shape[0] < shape[-1] else 2
    planes = [[np.ascontiguousarray(plane).tobytes() for plane in np.moveaxis(each, axis, 0)] for each in (one, other)]
    if sorted(planes[0]) != sorted(planes[1]):
        return ""
    order = [planes[1].index(plane) for plane in planes[0]]
    return str(order) if order != sorted(order) else ""


def _pixels(value: pa.Scalar) -> np.ndarray:
    array = value.value if isinstance(value, pa.ExtensionScalar) else value
    array = array.values
    while pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type) or isinstance(array, pa.ExtensionArray):
        array = array.storage if isinstance(array, pa.ExtensionArray) else array.flatten()
    return array.to_numpy(zero_copy_only=False)


def different(ours: pa.Array, theirs: pa.Array) -> np.ndarray:
    """Rows whose values differ in a bit, bool (n,); in what kind of lists they are does not matter, nor a NaN's payload."""
    ours, theirs = (each.storage if isinstance(each, pa.ExtensionArray) else each for each in (ours, theirs))
    nulls = _nulls(ours) != _nulls(theirs)
    both = ~(_nulls(ours) | _nulls(theirs))
    if pa.types.is_struct(theirs.type):
        return nulls | (both & _different_fields(ours, theirs))
    if _is_list(theirs.type):
        return nulls | _different_lists(ours, theirs, both)
    return nulls | (both & _different_values(ours, theirs))


def _nulls(array: pa.Array) -> np.ndarray:
    return np.asarray(array.is_null()) if array.null_count else np.zeros(len(array), bool)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _different_fields(ours: pa.Array, theirs: pa.Array) -> np.ndarray:
    found = np.zeros(len(theirs), bool)
    for number in range(theirs.type.num_fields):
        name = theirs.type.field(number).name
        if pa.types.is_struct(ours.type) and ours.type.get_field_index(name) >= 0:
            found |= different(pc.struct_field(ours, name), pc.struct_field(theirs, name))
        else:
            found[:] = True
    return found


def _different_lists(ours: pa.Array, theirs: pa.Array, both: np.ndarray) -> np.ndarray:
    if not _is_list(ours.type):
        return both
    lengths = [np.asarray(pc.fill_null(pc.list_value_length(each), 0), np.int64) for each in (ours, theirs)]
    alike = np.flatnonzero(both & (lengths[0] == lengths[1]))
    found = both & (lengths[0] != lengths[1])
    if len(alike) < len(both):
        ours, theirs = ours.take(pa.array(alike)), theirs.take(pa.array(alike))
    values = different(ours.flatten(), theirs.flatten())
    ends = bounds_of(lengths[1][alike])
    at = np.flatnonzero(values)
    found[alike[np.unique(np.searchsorted(ends, at, side="right") - 1)]] = True
    return found


def _different_values(ours: pa.Array, theirs: pa.Array) -> np.ndarray:
    kind = theirs.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        one, other = (np.asarray(pc.fill_null(each, 0)) if each.null_count else each.to_numpy() for each in (ours, theirs))
        if one.dtype != other.dtype:
            return np.ones(len(other), bool)
        if other.dtype.kind == "f":
            same = one.view(f"u{one.dtype.itemsize}") == other.view(f"u{other.dtype.itemsize}")
            return ~(same | (np.isnan(one) & np.isnan(other)))
        return one != other
    if pa.types.is_null(kind):
        return np.zeros(len(theirs), bool)
    return np.asarray(pc.fill_null(pc.not_equal(ours.cast(kind), theirs), False))
