"""A file of an adopted tree whose datasets are columns, row = axis 0, read as a partition."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence

import h5py
import numpy as np

from skyset.errors import PartitionError
from skyset.partitions.byte_ranges import LocalFile
from skyset.partitions.chunks import Chunks, check_superblock
from skyset.partitions.tree import held as stored
from skyset.partitions.tree.file import TreeFile, changed, gone
from skyset.partitions.tree.form import CELL, LABELS, MEMBER, NAME, PART, STORED, Source, TreeForm
from skyset.partitions.tree.held import Held, held_in
from skyset.partitions.tree.making import cast, cells_of, fits, labels_for, made, split_labels, taken
from skyset.partitions.tree.structure import DAMAGE, reason_of
from skyset.survey import Column

_numbers = itertools.count()
#: Datasets of files that were opened, of which it is kept how they lie: 200 bytes each.
_MAX_HELD = 200_000
#: Of what columns are made of; it stays in the processor's cache until they are.
_BLOCK_BYTES = 512 << 10
_Layout = tuple[tuple, Mapping[str, Held]]
#: Where the datasets of the files lie that were opened, by path and names, with the file's stamp.
_layouts: dict[tuple[str, tuple[str, ...]], _Layout] = {}


class TreeColumns(TreeFile):
    """An open file of a tree of kind ``columns``.

    Columns that are stored contiguously and as they are declared are read at their offsets into the reader's memory.

    Args:
        path: of the file, absolute.
        columns: those of the survey that are wanted.
        trusted_rows, trusted_bytes: what the manifest says.
        form: how the tree holds them.
        written: when the file was last written to as it was adopted, ns; None where that is not known.

    Raises:
        PartitionError: the file is gone, was changed, is no HDF5, or a column cannot be made of what it has.
    """

    def __init__(
        self,
        path: str,
        columns: Sequence[Column],
        trusted_rows: int | None,
        trusted_bytes: int | None,
        form: TreeForm,
        written: int | None = None,
    ):
        super().__init__(path, columns, form)
        self._number = next(_numbers)
        self._datasets: dict[str, h5py.h5d.DatasetID] = {}
        self._chunks: dict[str, Chunks] = {}
        self._hdf5: h5py.File | None = None
        self._lengths: tuple = ()
        try:
            self._file = LocalFile(path)
        except OSError as error:
            raise gone(path, form.tree, error) from error
        try:
            if trusted_bytes is not None and self._file.size != trusted_bytes:
                raise changed(path, f"has {self._file.size} bytes, not {trusted_bytes}")
            if written is not None and self._file.written != written:
                raise changed(path, "has another time")
            self._held = self._layout()
            self.rows = self._count(trusted_rows)
            if trusted_rows is not None and self.rows != trusted_rows:
                raise changed(path, f"has {self.rows} rows, not {trusted_rows}")
        except PartitionError:
            self.close()
            raise
        except DAMAGE as error:
            self.close()
            raise PartitionError(f"{path}: {reason_of(error)}") from error

    # What is there.

    def _wanted(self) -> tuple[str, ...]:
        """The datasets that the columns are made of."""
        sources = self._form.sources
        chosen = [sources[name] for name in self.columns]
        chosen += [sources[source.like] for source in chosen if source.how == LABELS]
        if any(source.how == CELL for source in chosen):
            chosen += [sources["ra"], sources["dec"]]
        return tuple(dict.fromkeys(source.dataset for source in chosen if source.of))

    def _layout(self) -> Mapping[str, Held]:
        key = self.path, self._wanted()
        known = _layouts.get(key)
        if known is not None and known[0] == self._file.touched:
            return known[1]
        if len(_layouts) * len(key[1]) >= _MAX_HELD:
            _layouts.clear()
        try:
            found = {name: held_in(self._opened().id, name) for name in key[1]}
        except PartitionError as error:
            raise PartitionError(f"{self.path}: {error}") from None
        held = {name: each for name, each in found.items() if each is not None}
        _layouts[key] = self._file.touched, held
        return held

    def _count(self, trusted_rows: int | None) -> int:
        counts = {held.rows for held in self._held.values()}
        if len(counts) > 1:
            raise PartitionError(f"{self.path}: columns have {sorted(counts)} rows")
        return counts.pop() if counts else trusted_rows or 0

    def _opened(self) -> h5py.File:
        if self._hdf5 is None:
            check_superblock(self._file.bytes, self._file.size)
            self._hdf5 = self._file.hdf5()
        return self._hdf5

    def _dataset(self, name: str) -> h5py.h5d.DatasetID:
        if name not in self._datasets:
            self._datasets[name] = h5py.h5o.open(self._opened().id, name.encode())
        return self._datasets[name]

    @property
    def stamp(self) -> tuple:
        """Of the file: another one once somebody has written to it."""
        return self._file.stamp

    # Reading.

    def _read(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        flat, rest = self._parted(outs, start, stop)
        self._file.read([part for part in flat if part[1].size])
        lies = [name for name in rest if self._lies(name)]
        for first, last in self._blocks(lies, start, stop):
            low, high = first - start, last - start
            raw = self._raw(lies, first, last)
            for name in lies:
                step = len(outs[name]) // (stop - start)  # a value of a row, or of ragged ones all of its values
                self._make(name, outs[name][low * step : high * step], first, last, raw)
        for name in rest:
            if name not in lies:
                self._make(name, outs[name], start, stop, {})

    def _lies(self, name: str) -> bool:
        """Whether a column is made of numbers that lie in one piece, row by row."""
        source = self._form.sources[name]
        held = self._held.get(source.dataset)
        return held is not None and held.offset >= 0 and source.how != LABELS and held.has(source.member)

    def _blocks(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Rows that are read at a time where columns are made of what is read: so many that it stays in the processor."""
        datasets = {self._form.sources[name].dataset for name in names}
        size = sum(self._held[name].row_bytes for name in datasets)
        step = max(1, _BLOCK_BYTES // max(1, size))
        return ((first, min(first + step, stop)) for first in range(start, stop, step)) if names else iter(())

    def _raw(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows of the datasets of which some columns are made, as they are stored, by name."""
        held = {name: self._held[name] for name in dict.fromkeys(self._form.sources[name].dataset for name in names)}
        raw = {name: np.empty((stop - start, *each.dims[1:]), each.dtype) for name, each in held.items()}
        self._file.read([(each.offset + start * each.row_bytes, raw[name]) for name, each in held.items() if raw[name].size])
        return raw

    def _parted(
        self, outs: Mapping[str, np.ndarray], start: int, stop: int
    ) -> tuple[list[tuple[int, np.ndarray]], list[str]]:
        """What is read as it lies, (offset in the file, array), and the names of the other columns."""
        flat, rest = [], []
        for name, out in outs.items():
            held = self._held.get(self._form.sources[name].dataset)
            if held is not None and held.offset >= 0 and self._is_as_stored(name, held) and _in_pieces(out):
                flat.append((held.offset + start * held.row_bytes, out))
            else:
                rest.append(name)
        return flat, rest

    def _is_as_stored(self, name: str, held: Held) -> bool:
        """Whether a column's values are those of a dataset, in their dtype and order."""
        source, column = self._form.sources[name], self.columns[name]
        alike = source.how == STORED and not held.any_length and held.dtype == column.stored_dtype
        return alike and fits(column, math.prod(held.dims[1:]))

    def _make(self, name: str, out: np.ndarray, start: int, stop: int, raw: Mapping[str, np.ndarray]) -> None:
        """Rows of a column that is not read as it lies, into ``out``; ``raw`` has what was read of datasets already."""
        source, column = self._form.sources[name], self.columns[name]
        if source.how == NAME:
            out[...] = cast(column, source, self._names(start, stop))
        elif source.how == CELL:
            out[...] = cells_of(*(self._position(axis, start, stop) for axis in ("ra", "dec")))
        elif source.how == LABELS:
            out[...] = self._labels(name, start, stop, raw).reshape(out.shape)
        elif (held := self._held.get(source.dataset)) is None or not held.has(source.member):
            out[...] = column.missing
        elif held.is_numbers_of_any_length:
            out[...] = cast(column, source, np.concatenate([np.zeros(0, held.dtype), *self._any(source, start, stop)]))
        elif held.chunk and self._is_as_stored(name, held) and out.flags.c_contiguous:
            self._unpack(source.dataset, held, start, out.reshape(stop - start, *held.dims[1:]))
        else:
            values = made(column, source, self._stored(source, held, start, stop, raw))
            if out.flags.c_contiguous:  # a part of each row is copied once
                out.reshape(values.shape)[...] = values
            else:
                out[...] = values.reshape(out.shape)

    def _stored(self, source: Source, held: Held, start: int, stop: int, raw: Mapping[str, np.ndarray]) -> np.ndarray:
        """Rows of what a column is made of, as it is stored."""
        if source.dataset in raw and (source.how != MEMBER or raw[source.dataset].dtype[source.member].kind != "V"):
            return raw[source.dataset][source.member] if source.how == MEMBER else raw[source.dataset]
        if source.how == MEMBER:
            return stored.members(self._dataset(source.dataset), source.member, start, stop)
        if held.any_length:
            return stored.texts(self._dataset(source.dataset), start, stop)
        out = np.empty((stop - start, *held.dims[1:]), held.dtype)
        self._unpack(source.dataset, held, start, out)
        return out

    def _unpack(self, name: str, held: Held, start: int, out: np.ndarray) -> None:
        if held.chunk and name not in self._chunks:
            self._chunks[name] = Chunks(self._dataset(name))
        key = self._number, name
        stored.read_rows(self._dataset(name), held, start, out, self._file.bytes, key, self._chunks.get(name))

    def _any(self, source: Source, start: int, stop: int) -> list[np.ndarray]:
        """Rows of numbers of any length; the last ones are kept: their lengths are asked for first."""
        key = source.dataset, start, stop
        if self._lengths[:1] != (key,):
            held = self._held[source.dataset]
            self._lengths = key, stored.numbers(self._dataset(source.dataset), held, start, stop)
        return self._lengths[1]

    def _names(self, start: int, stop: int) -> np.ndarray:
        name = os.path.splitext(os.path.relpath(self.path, self._form.tree))[0]
        return np.array([f"{name}:{row}".encode() for row in range(start, stop)], "S")

    def _position(self, axis: str, start: int, stop: int) -> np.ndarray:
        source, column = self._form.sources[axis], Column(axis, "float64")
        held = self._held.get(source.dataset)
        if held is None:
            return np.full(stop - start, np.nan)
        raw = np.empty((stop - start, *held.dims[1:]), held.dtype)
        if held.offset < 0:
            raw = self._stored(source, held, start, stop, {})
        elif raw.size:
            self._file.read([(held.offset + start * held.row_bytes, raw)])
        return made(column, source, raw[source.member] if source.how == MEMBER and raw.dtype.names else raw)

    def _labels(self, name: str, start: int, stop: int, raw: Mapping[str, np.ndarray]) -> np.ndarray:
        """A label for each value of the column that they run along, (values,)."""
        source, column = self._form.sources[name], self.columns[name]
        counts = self._counts(source.like, start, stop)
        if not column.is_ragged:  # as many as that column has, however it is made, and where it is missing, too
            counts = np.full(stop - start, math.prod(column.shape), np.int64)
        if source.of:
            held = self._held.get(source.dataset)
            rows = () if held is None else self._stored(source, held, start, stop, raw)
            texts = [_label_list(row) for row in rows] or [[]] * (stop - start)
        else:
            texts = [[label.encode() for label in source.argument]] * (stop - start)
            if (counts == counts[:1]).all():  # as in a dataset: its rows are of one shape
                one = labels_for(texts[0], int(counts[0]), name, column.stored_dtype) if texts else np.zeros(0, "S")
                return np.tile(one, stop - start)
        made_of = [
            labels_for(labels, count, name, column.stored_dtype)
            for labels, count in zip(texts, counts.tolist(), strict=True)
        ]
        return np.concatenate([np.zeros(0, column.stored_dtype), *made_of])

    # Ragged rows.

    def _counts(self, name: str, start: int, stop: int) -> np.ndarray:
        """How many values each row has, int64 (rows,)."""
        source = self._form.sources[name]
        if source.how == LABELS:
            return self._counts(source.like, start, stop)
        held = self._held.get(source.dataset)
        if held is None or not held.has(source.member):
            return np.zeros(stop - start, np.int64)
        if held.is_numbers_of_any_length:
            return np.array([len(row) for row in self._any(source, start, stop)], np.int64)
        return np.full(stop - start, _values_of_row(source, held), np.int64)

    def close(self) -> None:
        stored.kept.forget(self._number)
        self._datasets.clear()
        self._chunks.clear()
        if self._hdf5 is not None:
            self._hdf5.close()
        self._file.close()


def _in_pieces(out: np.ndarray) -> bool:
    """Whether each row of an array is in one piece."""
    return out.flags.c_contiguous or (out.ndim > 1 and bool(out[:1].flags.c_contiguous))


def _values_of_row(source: Source, held: Held) -> int:
    """How many values a row of a column has that is made of a dataset."""
    if source.how == MEMBER:
        return math.prod((*held.dims[1:], *held.dtype[source.member].shape))
    if source.how == PART:
        return math.prod(taken(source, np.empty((0, *held.dims[1:]), np.bool_)).shape[1:])
    return math.prod(held.dims[1:])


def _label_list(row) -> list[bytes]:
    """The labels that a row has: texts, or one text with commas between."""
    return split_labels(bytes(row)) if np.ndim(row) == 0 else [bytes(label) for label in row]
