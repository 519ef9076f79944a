"""Rows of one dataset of somebody else's: in one piece, in chunks of whatever shape, of any length; axis 0 = row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import h5py
import numpy as np

from skyset.errors import PartitionError
from skyset.partitions.chunks import Chunks, Unsound, check_filters
from skyset.partitions.kept import Kept
from skyset.partitions.tree.making import as_texts
from skyset.partitions.tree.structure import file_dtype, found_in, offset_of

#: Unpacked rows of chunks that were used last, of all files: what is read seldom ends where chunks do.
kept: Kept[np.ndarray] = Kept(128 << 20)
#: More than this is not kept, but unpacked again.
_MOST_KEPT = 64 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """A dataset, as a file has it.

    Args:
        dims: its axes; the first one counts rows.
        dtype: of a value on the disk; of numbers of any length theirs, of text of any length ``V16``.
        offset: of its first value in the file, -1 where it is not in one piece.
        chunk: rows of a chunk, 0 where there are no chunks.
        any_length: values of any length.
    """

    dims: tuple[int, ...]
    dtype: np.dtype
    offset: int
    chunk: int = 0
    any_length: bool = False

    @property
    def rows(self) -> int:
        return self.dims[0]

    def has(self, member: str) -> bool:
        """Whether it is a compound with this member; ``""`` is the dataset itself."""
        return not member or member in (self.dtype.names or ())

    @property
    def is_numbers_of_any_length(self) -> bool:
        return self.any_length and self.dtype.kind != "V"

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.dims[1:])


def held_in(group: h5py.h5g.GroupID, name: str) -> Held | None:
    """A dataset of rows by its path, None where there is none; PartitionError where it cannot be read."""
    dataset = found_in(group, name)
    return held_in_dataset(name, dataset) if dataset is not None and dataset.shape else None


def held_in_dataset(name: str, dataset: h5py.h5d.DatasetID) -> Held:
    """The same of a dataset."""
    kind = dataset.get_type()
    dtype = file_dtype(kind)
    if dtype is None:
        return _any_length(name, dataset, kind)
    if not _is_stored(dataset, dtype):
        raise PartitionError(f"{name} is not all there: {dataset.shape} values are declared")
    return Held(dataset.shape, dtype, offset_of(dataset, dtype), _checked_chunk(name, dataset, dtype))


def _any_length(name: str, dataset: h5py.h5d.DatasetID, kind: h5py.h5t.TypeID) -> Held:
    if isinstance(kind, h5py.h5t.TypeStringID):
        return Held(dataset.shape, np.dtype("V16"), -1, 0, any_length=True)
    if isinstance(kind, h5py.h5t.TypeVlenID) and len(dataset.shape) == 1 and kind.get_super().dtype.kind in "biuf":
        return Held(dataset.shape, np.dtype(kind.get_super().dtype.str), -1, 0, any_length=True)
    raise PartitionError(f"{name} holds neither numbers nor text")


def _checked_chunk(name: str, dataset: h5py.h5d.DatasetID, dtype: np.dtype) -> int:
    """Rows of a chunk, 0 for none; PartitionError where its filters are not known here."""
    properties = dataset.get_create_plist()
    if properties.get_layout() != h5py.h5d.CHUNKED:
        return 0
    try:
        check_filters(properties, dataset.shape, dtype, whole_rows=False)
    except Unsound as error:
        raise PartitionError(f"{name} cannot be read: {error}") from error
    return int(properties.get_chunk()[0])


def _is_stored(dataset: h5py.h5d.DatasetID, dtype: np.dtype) -> bool:
    """Whether the file holds all of a dataset: HDF5 gives zeros for what was declared and never written."""
    properties, shape = dataset.get_create_plist(), dataset.shape
    if properties.get_layout() == h5py.h5d.CHUNKED:
        chunks = properties.get_chunk()
        return dataset.get_num_chunks() == math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
    return dataset.get_storage_size() == dtype.itemsize * math.prod(shape)


def read_rows(
    dataset: h5py.h5d.DatasetID,
    held: Held,
    start: int,
    out: np.ndarray,
    read: Callable[[int, int], bytes],
    key: tuple[int, str],
    chunks: Chunks | None = None,
) -> None:
    """Rows from ``start`` on of a dataset that is not in one piece, nor of any length.

    Args:
        dataset: as HDF5 has it.
        held: the same.
        start: the first row.
        out: (rows, *axes) in the dtype on the disk.
        read: gives bytes of the file, by offset and number, to several threads.
        key: a number of the open file and the dataset's name, for what is kept of it.
        chunks: the dataset's, where it is read more than once.

    Raises:
        Unsound, OSError: it does not unpack.
    """
    if not held.chunk:
        out[...] = h5py.Dataset(dataset)[start : start + len(out)]
        return
    stop = start + len(out)
    chunks = chunks or Chunks(dataset)
    for first in range(start // held.chunk * held.chunk, stop, held.chunk):
        last = min(first + held.chunk, held.rows)
        low, high = max(first, start), min(last, stop)
        if (low, high) == (first, last) or held.row_bytes * held.chunk > _MOST_KEPT:
            chunks.rows(low, out[low - start : high - start], read, at_once=True)
            continue

        def unpacked(first: int = first, last: int = last) -> np.ndarray:
            whole = np.empty((last - first, *held.dims[1:]), held.dtype)
            chunks.rows(first, whole, read, at_once=True)
            return whole

        block = kept.get(key[0], (key[1], first), unpacked)
        out[low - start : high - start] = block[low - first : high - first]


def members(dataset: h5py.h5d.DatasetID, name: str, start: int, stop: int) -> np.ndarray:
    """Rows of one member of a compound dataset, text of any length as ``S``."""
    return as_texts(h5py.Dataset(dataset).fields([name])[start:stop][name])


def texts(dataset: h5py.h5d.DatasetID, start: int, stop: int) -> np.ndarray:
    """Rows of texts of any length, as ``S``."""
    return as_texts(np.asarray(h5py.Dataset(dataset)[start:stop], object))


def numbers(dataset: h5py.h5d.DatasetID, held: Held, start: int, stop: int) -> list[np.ndarray]:
    """Rows of numbers of any length, an array each."""
    return [np.asarray(row, held.dtype) for row in h5py.Dataset(dataset)[start:stop]]


def whole(dataset: h5py.h5d.DatasetID, name: str, member: str, read: Callable[[int, int], bytes]) -> np.ndarray:
    """All values of a dataset of one object, of its axes; of numbers of any length, its one row of them.

    Raises:
        PartitionError: it cannot be read.
        Unsound, OSError: it does not unpack.
    """
    if not dataset.shape:
        values = h5py.Dataset(dataset)[()]
        return as_texts(np.asarray(values[member] if member else values))
    held = held_in_dataset(name, dataset)
    if member:
        return members(dataset, member, 0, held.rows)
    if held.is_numbers_of_any_length:
        return numbers(dataset, held, 0, 1)[0]
    if held.any_length:
        return texts(dataset, 0, held.rows)
    out = np.empty(held.dims, held.dtype)
    read_rows(dataset, held, 0, out, read, (-1, name))
    return out
