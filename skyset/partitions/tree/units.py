"""``units.arrow``: where the objects of a tree lie that has one file, or one group, for each of them.

An Arrow file beside the manifest, one record batch for each of its entries and in their order. A column of the survey that
is small is in it with all its values, so that they are never read from the tree again; of each array there is where it lies
in its file. Names of our own begin with ``/``, which none of a column does:

- ``/file``, ``/bytes``, ``/mtime``: path below the tree, size, time of the last write in ns; ``/group``: of kind ``groups``;
- ``/offset:<dataset>``: of the first value in the file; -1 where HDF5 must read it, -2 where there is none;
- ``/dims:<dataset>``: int32, the axes, -1 after the last one; ``/dtype:<dataset>``: as ``structure.text_of_dtype`` tells it;
- ``/labels:<dataset>``: texts with commas between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skyset.errors import PartitionError, RecordError
from skyset.files import replacing
from skyset.partitions.tree.form import CELL, LABELS, NAME, Source, TreeForm
from skyset.partitions.tree.making import cast, cells_of, made
from skyset.partitions.tree.structure import MOST_AXES, Stored, Unit, dtype_of_text, text_of_dtype
from skyset.survey import Column

UNITS = "units.arrow"
FORMAT = "skyset-units/1"
#: Columns of a fixed shape and of no more bytes a row than this are kept with their values.
KEPT_BYTES = 512
#: Files that make one entry of kind ``objects``.
FILES_OF_ENTRY = 1024
HDF5, NONE = -1, -2
#: Values of nothing at all are packed by no more than this (deflate: 1032).
_MAX_RATIO = 1200
_FORMAT_KEY, _ENTRIES_KEY = b"skyset_format", b"skyset_entries"
_DAMAGE = (pa.ArrowException, OSError, LookupError, ValueError, TypeError, RecursionError)


def is_kept(column: Column) -> bool:
    """Whether a column's values are in ``units.arrow``."""
    return not column.is_ragged and column.row_bytes <= KEPT_BYTES


def arrays_of(form: TreeForm, columns: Iterable[Column]) -> tuple[list[str], list[str]]:
    """The datasets whose places are kept, and those of labels."""
    large = [form.sources[column.name] for column in columns if not is_kept(column)]
    like = [form.sources[source.like].dataset for source in large if source.how == LABELS]
    arrays = [source.dataset for source in large if source.how != LABELS and source.of]
    labels = [source.dataset for source in large if source.how == LABELS and source.of]
    return sorted({*arrays, *like}), sorted(set(labels))


def write_units(
    path: str | Path, form: TreeForm, columns: Sequence[Column], entries: Sequence[str], units: Iterable[Sequence[Unit]]
) -> None:
    """Write ``units.arrow``, whole or not at all; one entry is in memory at a time.

    Args:
        path: of the file.
        form: of the tree.
        columns: the survey's.
        entries: paths of the manifest's entries, in its order.
        units: the objects of each.

    Raises:
        RecordError: a value does not fit its column; the message names the file.
    """
    schema = _schema(form, columns).with_metadata({_FORMAT_KEY: FORMAT, _ENTRIES_KEY: json.dumps(list(entries))})
    with replacing(Path(path)) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        for _, some in zip(entries, units, strict=True):
            file.write_batch(pa.record_batch(_columns(form, columns, some), schema=schema))


def _schema(form: TreeForm, columns: Sequence[Column]) -> pa.Schema:
    fields = [("/file", pa.string()), ("/bytes", pa.int64()), ("/mtime", pa.int64()), ("/group", pa.string())]
    fields += [(column.name, _arrow_type(column)) for column in columns if is_kept(column)]
    arrays, labels = arrays_of(form, columns)
    for name in arrays:
        kinds = {"offset": pa.int64(), "dims": pa.list_(pa.int32(), MOST_AXES), "dtype": pa.string()}
        fields += [(f"/{what}:{name}", kind) for what, kind in kinds.items()]
    fields += [(f"/labels:{name}", pa.string()) for name in labels]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


def _arrow_type(column: Column) -> pa.DataType:
    """Numbers as they are; text, bool and small arrays as their bytes."""
    if column.shape or column.stored_dtype.kind in "Sb":
        return pa.binary(column.row_bytes)
    return pa.from_numpy_dtype(column.stored_dtype)


def _columns(form: TreeForm, columns: Sequence[Column], units: Sequence[Unit]) -> list[pa.Array]:
    arrays: list = [
        pa.array([unit.file for unit in units], pa.string()),
        pa.array([unit.bytes for unit in units], pa.int64()),
        pa.array([unit.mtime for unit in units], pa.int64()),
        pa.array([unit.group for unit in units], pa.string()),
    ]
    for name, values in kept_values(form, columns, units).items():
        arrays.append(_as_arrow(next(column for column in columns if column.name == name), values))
    places, labels = arrays_of(form, columns)
    for name in places:
        stored = [unit.arrays.get(name) for unit in units]
        dims = np.full((len(units), MOST_AXES), -1, np.int32)
        for row, one in enumerate(stored):
            if one is not None:
                dims[row, : len(one.dims)] = one.dims
        arrays.append(pa.array([NONE if one is None else one.offset for one in stored], pa.int64()))
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(dims.reshape(-1)), MOST_AXES))
        arrays.append(pa.array(["" if one is None else text_of_dtype(one.dtype) for one in stored], pa.string()))
    arrays += [pa.array([_joined(unit.values.get(name)) for unit in units], pa.string()) for name in labels]
    return arrays


def _as_arrow(column: Column, values: np.ndarray) -> pa.Array:
    kind = _arrow_type(column)
    if not pa.types.is_fixed_size_binary(kind):
        return pa.array(values, kind)
    data = np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data.tobytes())])


def _joined(labels: np.ndarray | None) -> str:
    """Labels as one text with commas between."""
    if labels is None:
        return ""
    return ",".join(label.decode("ascii", "replace") for label in np.ravel(labels).astype("S").tolist())


def kept_values(form: TreeForm, columns: Sequence[Column], units: Sequence[Unit]) -> dict[str, np.ndarray]:
    """The columns that are kept, (objects, *shape) in their dtypes; what an object has not is ``Column.missing``.

    Raises:
        RecordError: a value does not fit its column; the message names the file.
    """
    by_name = {column.name: column for column in columns if is_kept(column)}
    cells = [name for name in by_name if form.sources[name].how == CELL]
    kept = {name: _made(form, column, units) for name, column in by_name.items() if name not in cells}
    for name in cells:
        kept[name] = cells_of(kept["ra"], kept["dec"]).astype(by_name[name].stored_dtype)
    return {name: kept[name] for name in by_name}


def _made(form: TreeForm, column: Column, units: Sequence[Unit]) -> np.ndarray:
    """One kept column; objects whose values are stored alike are made together."""
    source = form.sources[column.name]
    if source.how == NAME:
        names = [(unit.group or Path(unit.file).stem).encode() for unit in units]
        return cast(column, source, np.array(names, "S"))
    out = np.full((len(units), *column.shape), column.missing, column.stored_dtype)
    groups: dict[tuple, list[int]] = {}
    for row, unit in enumerate(units):
        value = unit.values.get(source.of[0])
        if value is not None:
            groups.setdefault((value.shape, value.dtype.char if value.dtype.kind == "S" else value.dtype), []).append(row)
    for rows in groups.values():
        stored = np.stack([units[row].values[source.of[0]] for row in rows])
        try:
            out[rows] = made(column, source, stored)
        except RecordError as error:
            raise _named(error, column, source, units, rows) from error
    return out


def _named(error: RecordError, column: Column, source: Source, units: Sequence[Unit], rows: Sequence[int]) -> RecordError:
    """The same, with the file that is to blame."""
    for row in rows:
        unit = units[row]
        try:
            made(column, source, unit.values[source.of[0]][None])
        except RecordError as own:
            return RecordError(f"{unit.file}{f', {unit.group}' if unit.group else ''}: {own}")
    return error


class UnitsFile:
    """``units.arrow``, memory-mapped.

    Args:
        path: of the file.

    Attributes:
        entries: paths of the manifest's entries.
        stamp: device, inode, bytes and time of the last write.

    Raises:
        PartitionError: it is missing, or no such file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            status = os.stat(path)
            self.stamp = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
            self._file = pa.ipc.open_file(pa.memory_map(str(path)))
            metadata = self._file.schema.metadata or {}
            if metadata.get(_FORMAT_KEY) != FORMAT.encode():
                raise ValueError(f"its format is not {FORMAT}")
            self.entries: list[str] = json.loads(metadata[_ENTRIES_KEY])
            if len(self.entries) != self._file.num_record_batches:
                raise ValueError(f"{self._file.num_record_batches} batches for {len(self.entries)} entries")
            self._numbers = {entry: number for number, entry in enumerate(self.entries)}
        except FileNotFoundError:
            raise PartitionError(f"{path}: no such file: run `skyset adopt` again") from None
        except _DAMAGE as error:
            raise PartitionError(f"{path} is damaged: {error}: run `skyset adopt` again") from error

    def rows_of(self, entry: str) -> UnitRows:
        """The objects of an entry; PartitionError where there is none of this path, or what is said of them cannot be."""
        try:
            if entry not in self._numbers:
                raise ValueError(f"has no {entry}")
            batch = self._file.get_batch(self._numbers[entry])
            batch.validate(full=True)
            return UnitRows(batch)
        except _DAMAGE as error:
            raise PartitionError(f"{self.path} is damaged: {error}: run `skyset adopt` again") from error

    def __iter__(self) -> Iterator[tuple[str, UnitRows]]:
        """Each entry with its objects."""
        for entry in self.entries:
            yield entry, self.rows_of(entry)


class UnitRows:
    """The objects of one entry.

    Attributes:
        rows: how many.
        files: the path of each below the tree, and ``groups`` the group in it, ``""`` for none.
        sizes, mtimes: int64 (rows,), of the files.

    Raises:
        ValueError, LookupError: what is said of them cannot be.
    """

    def __init__(self, batch: pa.RecordBatch):
        self._batch = batch
        self.rows: int = batch.num_rows
        self.files: list[str] = batch.column("/file").to_pylist()
        self.groups: list[str] = batch.column("/group").to_pylist()
        self.sizes, self.mtimes = self._numbers("/bytes"), self._numbers("/mtime")
        for file in set(self.files):
            if not file or file.startswith("/") or ".." in file.split("/") or not file.isprintable():
                raise ValueError(f"{str(file)[:100]!r} is no file of a tree")

    def _numbers(self, name: str) -> np.ndarray:
        return self._batch.column(name).to_numpy(zero_copy_only=False)

    def values(self, column: Column) -> np.ndarray:
        """A column that is kept, (rows, *shape), read-only; KeyError where it is not kept so."""
        array = self._batch.column(column.name)
        if array.type != _arrow_type(column):
            raise KeyError(f"{column.name} is {array.type}")
        if not pa.types.is_fixed_size_binary(array.type):
            return array.to_numpy()
        data = np.frombuffer(array.buffers()[1], np.uint8)
        first = array.offset * column.row_bytes
        flat = data[first : first + self.rows * column.row_bytes].view(column.stored_dtype)
        return flat.reshape(self.rows, *column.shape)

    def arrays(self, dataset: str) -> Arrays:
        """Where a dataset lies in each object's file."""
        offsets = self._numbers(f"/offset:{dataset}")
        dims = self._batch.column(f"/dims:{dataset}").flatten().to_numpy().reshape(self.rows, MOST_AXES)
        texts = self._batch.column(f"/dtype:{dataset}").dictionary_encode()
        dtypes = [dtype_of_text(text) if text else np.dtype("V1") for text in texts.dictionary.to_pylist()]
        return Arrays(offsets, dims, dtypes, texts.indices.to_numpy(), self.sizes)

    def labels(self, dataset: str) -> list[str]:
        """The labels of each object, as one text with commas between."""
        return self._batch.column(f"/labels:{dataset}").to_pylist()


class Arrays:
    """One dataset in each of some objects.

    Args:
        offsets: int64 (rows,), see the head of this module.
        dims: int32 (rows, axes), -1 after the last axis.
        dtypes, which: the dtypes that there are, and the number of each row's.
        sizes: of the files, int64 (rows,), bytes.

    Raises:
        ValueError: they reach out of the files.
    """

    def __init__(self, offsets: np.ndarray, dims: np.ndarray, dtypes: list[np.dtype], which: np.ndarray, sizes: np.ndarray):
        self.offsets, self.dims, self.dtypes, self.which = offsets, dims, dtypes, which
        self.counts = np.where(dims >= 0, dims, 1).astype(np.float64).prod(axis=1)
        self.counts[offsets == NONE] = 0
        self.bytes = self.counts * np.array([dtype.itemsize for dtype in dtypes], np.float64)[which]
        if (offsets < NONE).any() or ((offsets >= 0) & (offsets + self.bytes > sizes)).any():
            raise ValueError("a dataset reaches out of its file")
        if ((offsets == HDF5) & (self.bytes > _MAX_RATIO * sizes.astype(np.float64))).any():
            raise ValueError("a dataset cannot be packed into its file")
        self.counts, self.bytes = self.counts.astype(np.int64), self.bytes.astype(np.int64)

    def stored(self, row: int) -> Stored | None:
        """Of one object; None where it has none."""
        if self.offsets[row] == NONE:
            return None
        dims = tuple(size for size in self.dims[row].tolist() if size >= 0)
        return Stored(dims, self.dtypes[self.which[row]], int(self.offsets[row]))
