"""One file of somebody's tree, opened once: its datasets, what it says of them, and values, read without trust."""

from __future__ import annotations

import math
from collections.abc import Mapping

import h5py
import numpy as np

from skyset.adopting.fields import Field, fields_of, name_of
from skyset.partitions.byte_ranges import LocalFile
from skyset.partitions.chunks import check_filters, check_superblock, unpacked_rows
from skyset.partitions.tree.making import as_texts
from skyset.partitions.tree.structure import MOST_AXES, Stored, check_inside, datasets_in, file_dtype, offset_of

_UNITS, _TEXTS = ("unit", "units"), ("description", "comment")
_LONGEST_UNIT, _LONGEST_TEXT = 60, 500
#: Texts of any length that are read to know how long they are, at a time.
_TEXTS_AT_A_TIME = 1 << 16


class TreeHDF5:
    """A file of a tree.

    Args:
        path: where it is.

    Raises:
        PartitionError, or what is in ``structure.DAMAGE``: it is no HDF5 file that can be read, or links elsewhere.

    Attributes:
        datasets: HDF5's handles by path.
    """

    def __init__(self, path: str) -> None:
        self._file = LocalFile(path)
        try:
            check_superblock(self._file.bytes, self._file.size)
            self.datasets: dict[str, h5py.h5d.DatasetID] = dict(datasets_in(self._file.hdf5().id))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TreeHDF5:
        return self

    def __exit__(self, *_) -> None:
        self.datasets = {}
        self._file.close()

    def fields(self) -> dict[str, Field]:
        """All that can be handed out, with all axes. Text of any length is of one byte: see ``longest``."""
        found: dict[str, Field] = {}
        for name, handle in self.datasets.items():
            check_inside(name, handle)
            if handle.shape is None or len(handle.shape) > MOST_AXES or not name.isprintable():
                continue
            dtype = file_dtype(handle.get_type())
            if dtype is None:
                if (field := _of_any_length(name, handle)) is not None:
                    found[name] = field
                continue
            stored = Stored(handle.shape, dtype, offset_of(handle, dtype))
            found |= {field.name: field for field in fields_of({name: stored}, {})}
        return found

    def told(self, name: str) -> tuple[str, str]:
        """Unit and description of a dataset by its attributes, ``""`` where they say nothing that can be kept."""
        handle = self._handle(name)
        if not h5py.h5a.get_num_attrs(handle):
            return "", ""
        attributes = h5py.Dataset(handle).attrs
        unit, text = (
            next((_text(attributes[each]) for each in names if each in attributes), "") for names in (_UNITS, _TEXTS)
        )
        return unit[:_LONGEST_UNIT], text[:_LONGEST_TEXT]

    def _handle(self, name: str) -> h5py.h5d.DatasetID:
        return self.datasets[name] if name in self.datasets else self.datasets[name.rpartition("/")[0]]

    def longest(self, field: Field) -> int:
        """How many bytes the longest text of a dataset has, at least 1."""
        handle, longest = self._handle(field.name), 1
        if not handle.shape:
            return max(1, as_texts(np.array(h5py.Dataset(handle)[()], object)).dtype.itemsize)
        for start in range(0, handle.shape[0], _TEXTS_AT_A_TIME):
            longest = max(longest, as_texts(h5py.Dataset(handle)[start : start + _TEXTS_AT_A_TIME]).dtype.itemsize)
        return longest

    def read(self, field: Field, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Values, or rows ``start:stop`` of them, in this machine's byte order; rows of any length are objects.

        Raises:
            PartitionError, or what is in ``structure.DAMAGE``: they are not there, or do not unpack.
        """
        handle = self._handle(field.name)
        rows = handle.shape[0] if handle.shape else 1
        found = self._stored(handle, start, rows if stop is None else min(stop, rows))
        if field.member:
            found = found[field.name.rpartition("/")[2]]
        if field.is_text:
            return as_texts(found)
        return found if found.dtype.kind == "O" or found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))

    def _stored(self, handle: h5py.h5d.DatasetID, start: int, stop: int) -> np.ndarray:
        properties, shape, dtype = handle.get_create_plist(), handle.shape, file_dtype(handle.get_type())
        if properties.get_layout() == h5py.h5d.CHUNKED and dtype is not None and dtype.names is None:
            check_filters(properties, shape, handle.dtype, whole_rows=False)
            return self._unpacked(handle, start, stop)
        if dtype is None or (offset := offset_of(handle, dtype)) < 0:
            raw = h5py.Dataset(handle)
            return raw[start:stop] if shape else np.array(raw[()])
        out = np.empty((stop - start, *shape[1:]) if shape else (), dtype)
        if out.size:
            row = dtype.itemsize * math.prod(shape[1:])
            self._file.read([(offset + start * row, np.atleast_1d(out).reshape(-1).view(np.uint8))])
        return out

    def _unpacked(self, handle: h5py.h5d.DatasetID, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *handle.shape[1:]), handle.dtype)
        rows = handle.get_create_plist().get_chunk()[0]
        for first in range(start // rows * rows, stop, rows):
            low, high = max(first, start), min(first + rows, stop)
            unpacked_rows(handle, low, out[low - start : high - start], self._file.bytes)
        return out


def _of_any_length(name: str, handle: h5py.h5d.DatasetID) -> Field | None:
    """A dataset of texts or of rows of numbers of any length; None of anything else."""
    kind = handle.get_type()
    if isinstance(kind, h5py.h5t.TypeStringID):
        return Field(name, "S1", handle.shape, any_length=True, packed=True)
    if isinstance(kind, h5py.h5t.TypeVlenID):
        dtype = kind.get_super().dtype
        if dtype.kind in "biuf" and dtype.itemsize <= 8 and len(handle.shape) <= 1:
            return Field(name, name_of(dtype), handle.shape, any_length=True, packed=True)
    return None


def _text(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return text.strip() if isinstance(text, str) and text.isascii() and text.isprintable() else ""


def columns_at(file: TreeHDF5, fields: Mapping[str, Field], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some rows of fields of a file of columns, (rows, *dims) by name.

    Args:
        fields: of a row.
        rows: ascending numbers, int64.
    """
    if not len(rows):
        return {}
    if rows[-1] - rows[0] + 1 == len(rows):
        return {name: file.read(field, int(rows[0]), int(rows[-1]) + 1) for name, field in fields.items()}
    return {
        name: np.concatenate([file.read(field, row, row + 1) for row in rows.tolist()]) for name, field in fields.items()
    }
