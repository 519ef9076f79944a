"""One file of somebody's tree, opened once: its datasets, what it says of them, and values, read without trust.

In h5py's low-level calls, each made once: a tree has a million files, and a file a hundred datasets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import h5py
import numpy as np

from skyset.adopting.fields import Field, fields_of, name_of
from skyset.errors import PartitionError
from skyset.partitions.byte_ranges import LocalFile
from skyset.partitions.chunks import check_filters, check_superblock, unpacked_rows
from skyset.partitions.tree.held import held_in_dataset
from skyset.partitions.tree.making import as_texts
from skyset.partitions.tree.structure import MOST_AXES, Stored, check_inside, file_dtype, held
from skyset.partitions.tree.units import KEPT_BYTES

_UNITS, _TEXTS = ("unit", "units"), ("description", "comment")
_LONGEST_UNIT, _LONGEST_TEXT = 60, 500
#: Texts of any length that are read to know how long they are, at a time.
_TEXTS_AT_A_TIME = 1 << 16
#: Groups within groups, datasets of a file.
_DEEPEST, _MOST = 8, 100_000
#: Values in one piece of at most so many bytes are read by a call of their own.
_SMALL = 1 << 16
#: Records of which one member is wanted are read so many bytes at a time.
_RECORD_BYTES = 8 << 20
#: A row of a column may have so many bytes: Arrow counts values in 32 bits.
_MOST_ROW_BYTES = (1 << 31) - 1
#: Dtypes on the disk by HDF5's own encoding of them: a million files have the same few.
_dtypes: dict[bytes, np.dtype | None] = {}
_MOST_DTYPES = 4096


class TreeHDF5:
    """A file of a tree.

    Args:
        path: where it is.

    Raises:
        PartitionError, or what is in ``structure.DAMAGE``: it is no HDF5 file that can be read, or links elsewhere.

    Attributes:
        datasets: HDF5's handles by path.
        stored: how they are stored; without those that no column can be made of, and those of any length.
    """

    def __init__(self, path: str) -> None:
        self._file = LocalFile(path)
        self.datasets: dict[str, h5py.h5d.DatasetID] = {}
        self.stored: dict[str, Stored] = {}
        try:
            check_superblock(self._file.bytes, self._file.size)
            for name, handle in _below(self._file.hdf5().id, "", _DEEPEST):
                if len(self.datasets) >= _MOST:
                    raise PartitionError(f"more than {_MOST} datasets: too many")
                self.datasets[name] = handle
                if (stored := _stored(name, handle)) is not None:
                    self.stored[name] = stored
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
            stored = self.stored.get(name)
            if stored is not None:
                found |= {field.name: field for field in fields_of({name: stored}, {})}
            elif (field := _of_any_length(name, handle)) is not None:
                found[name] = field
        return found

    def held(self, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Stored]]:
        """The values of small datasets of an object, as they are stored, and how all of it is stored, by path within it.

        Args:
            prefix: what the paths of its datasets begin with, ``"<group>/"``.
        """
        values: dict[str, np.ndarray] = {}
        arrays: dict[str, Stored] = {}
        for path, handle in self.datasets.items():
            if not path.startswith(prefix):
                continue
            name, stored = path[len(prefix) :], self.stored.get(path)
            if stored is None or stored.dtype.names is not None or stored.offset < 0:
                own, how = held([(name, handle)])
                values |= {each: value for each, value in own.items() if value.nbytes <= KEPT_BYTES}
                arrays |= how
                continue
            arrays[name] = stored
            size = stored.dtype.itemsize * math.prod(stored.dims)
            if size <= KEPT_BYTES:
                data = self._bytes(stored.offset, size)
                values[name] = np.frombuffer(data, stored.dtype).reshape(stored.dims)
        return values, arrays

    def _bytes(self, offset: int, size: int) -> bytes:
        data = self._file.bytes(offset, size)
        if len(data) != size:
            raise EOFError("the file ends before its values")
        return data

    def says(self, name: str) -> bool:
        """Whether a dataset has attributes."""
        return h5py.h5a.get_num_attrs(self._handle(name)) > 0

    def told(self, name: str) -> tuple[str, str]:
        """Unit and description of a dataset by its attributes, ``""`` where they say nothing that can be kept."""
        attributes = h5py.Dataset(self._handle(name)).attrs
        unit, text = (
            next((_text(attributes[each]) for each in names if each in attributes), "") for names in (_UNITS, _TEXTS)
        )
        return unit[:_LONGEST_UNIT], text[:_LONGEST_TEXT]

    def _handle(self, name: str) -> h5py.h5d.DatasetID:
        return self.datasets[name] if name in self.datasets else self.datasets[name.rpartition("/")[0]]

    def unreadable(self, field: Field) -> str:
        """Why rows of a field of a file of columns cannot be streamed, ``""`` where they can."""
        name = field.name.rpartition("/")[0] if field.member else field.name
        stored = self.stored.get(name)
        size = np.dtype(field.dtype).itemsize * math.prod(field.dims[1:])
        if size > _MOST_ROW_BYTES:
            return f"{field.name}: {size:,} bytes a row, more than {_MOST_ROW_BYTES:,}"
        if stored is not None and stored.offset >= 0:
            return ""
        try:
            held_in_dataset(name, self.datasets[name])
        except PartitionError as error:
            return str(error)
        return ""

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
        name = field.name.rpartition("/")[0] if field.member else field.name
        stored = self.stored.get(name)
        rows = (stored.dims if stored is not None else self._handle(name).shape)[:1]
        last = rows[0] if rows else 1
        stop = last if stop is None else min(stop, last)
        if field.member:
            found = self._member(name, field.name.rpartition("/")[2], stored, start, stop)
        else:
            found = self._read(name, stored, start, stop)
        if field.is_text:
            return as_texts(found)
        return found if found.dtype.kind == "O" or found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))

    def _member(self, name: str, member: str, stored: Stored | None, start: int, stop: int) -> np.ndarray:
        """A member of a compound dataset, without the others: some records at a time."""
        if stored is None or not stored.dims:
            return self._read(name, stored, start, stop)[member]
        step = max(1, _RECORD_BYTES // max(1, stored.dtype.itemsize * math.prod(stored.dims[1:])))
        runs = [(first, min(first + step, stop)) for first in range(start, stop, step)] or [(start, stop)]
        return np.concatenate([self._read(name, stored, *run)[member].copy() for run in runs])

    def _read(self, name: str, stored: Stored | None, start: int, stop: int) -> np.ndarray:
        if stored is not None and stored.offset >= 0:
            return self._flat(stored, start, stop)
        handle = self.datasets[name]
        properties = handle.get_create_plist()
        if properties.get_layout() == h5py.h5d.CHUNKED and stored is not None and stored.dtype.names is None:
            check_filters(properties, handle.shape, handle.dtype, whole_rows=False)
            return self._unpacked(handle, start, stop)
        raw = h5py.Dataset(handle)
        return raw[start:stop] if handle.shape else np.array(raw[()])

    def _flat(self, stored: Stored, start: int, stop: int) -> np.ndarray:
        """Values in one piece."""
        row = stored.dtype.itemsize * math.prod(stored.dims[1:])
        shape = (stop - start, *stored.dims[1:]) if stored.dims else ()
        if (size := row * (stop - start)) <= _SMALL:
            return np.frombuffer(self._bytes(stored.offset + start * row, size), stored.dtype).reshape(shape)
        out = np.empty(shape, stored.dtype)
        self._file.read([(stored.offset + start * row, np.atleast_1d(out).reshape(-1).view(np.uint8))])
        return out

    def _unpacked(self, handle: h5py.h5d.DatasetID, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *handle.shape[1:]), handle.dtype)
        rows = handle.get_create_plist().get_chunk()[0]
        for first in range(start // rows * rows, stop, rows):
            low, high = max(first, start), min(first + rows, stop)
            unpacked_rows(handle, low, out[low - start : high - start], self._file.bytes)
        return out


def _below(group: h5py.h5g.GroupID, above: str, deepest: int) -> Iterator[tuple[str, h5py.h5d.DatasetID]]:
    """All datasets below a group by their paths, in the order of names; PartitionError where it links elsewhere."""
    links: list[tuple[bytes, int]] = []
    group.links.iterate(lambda name, info: links.append((name, info.type)), info=True)
    for key, kind in sorted(links):
        path = above + key.decode("utf-8", "replace")
        if kind != h5py.h5l.TYPE_HARD:
            raise PartitionError(f"{path} is a soft or external link: refused")
        thing = h5py.h5o.open(group, key)
        if isinstance(thing, h5py.h5d.DatasetID):
            yield path, thing
        elif isinstance(thing, h5py.h5g.GroupID):
            if not deepest:
                raise PartitionError(f"{path}: groups within more than {_DEEPEST} groups")
            yield from _below(thing, f"{path}/", deepest - 1)


def _stored(name: str, handle: h5py.h5d.DatasetID) -> Stored | None:
    """How a dataset is stored; None of one of any length, of many axes, or with no value at all."""
    offset = handle.get_offset()
    if offset is None:  # in chunks, of nothing yet, or elsewhere
        check_inside(name, handle)
    shape = handle.shape
    if shape is None or len(shape) > MOST_AXES or not name.isprintable():
        return None
    dtype = _dtype_of(handle.get_type())
    if dtype is None:
        return None
    whole = offset is not None and handle.get_storage_size() == dtype.itemsize * math.prod(shape)
    return Stored(shape, dtype, int(offset) if whole else -1)


def _dtype_of(kind: h5py.h5t.TypeID) -> np.dtype | None:
    """``file_dtype``, looked up where the same type was met before."""
    key = kind.encode()
    if key not in _dtypes:
        if len(_dtypes) >= _MOST_DTYPES:
            _dtypes.clear()
        _dtypes[key] = file_dtype(kind)
    return _dtypes[key]


def _of_any_length(name: str, handle: h5py.h5d.DatasetID) -> Field | None:
    """A dataset of texts or of rows of numbers of any length; None of anything else."""
    shape = handle.shape
    if shape is None or len(shape) > MOST_AXES or not name.isprintable():
        return None
    kind = handle.get_type()
    if isinstance(kind, h5py.h5t.TypeStringID):
        return Field(name, "S1", shape, any_length=True, packed=True)
    if isinstance(kind, h5py.h5t.TypeVlenID):
        dtype = kind.get_super().dtype
        if dtype.kind in "biuf" and dtype.itemsize <= 8 and len(shape) <= 1:
            return Field(name, name_of(dtype), shape, any_length=True, packed=True)
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
