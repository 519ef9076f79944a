"""Writing a partition: rows as they come, in bounded memory, under a temporary name until it is complete."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
from isal import isal_zlib

from skyset.errors import PartitionError
from skyset.files import Temporary, put_in_place, replaced_by
from skyset.partitions.layout import FORMAT, PIXELS_FROM, compression_options, slabs
from skyset.partitions.partition import Partition
from skyset.survey import Column

#: Pixels that are read back at a time: what stays in a core's cache.
_CACHED_BYTES = 1 << 20
#: Digests of rows' sources in one attribute of a file, which takes 64 kB.
_SOURCES = 4096


class Disk(io.FileIO):
    """A file that keeps the first failed write in ``error`` instead of telling HDF5.

    HDF5 cannot close a file after a full disk: it raises again at every attempt, and crashes when Python ends.
    """

    error: OSError | None = None

    def write(self, data) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = self.error or error
        return len(data)

    def check(self) -> None:
        if self.error is not None:
            raise self.error


class PartitionWriter:
    """Write one partition, row by row, in memory that does not grow with the rows' pixels.

    The file appears under its name only when it is complete, synced and read back: until then it is
    a ``Temporary`` file beside it, and it is removed when anything fails. Ragged columns wait in nameless files on the
    same disk, since how long they get is known only at the end.

    Args:
        path: final path.
        columns: the table of columns.
        rows: number of rows that will come at most; fewer are fine (the file is then copied once).
        attributes: HDF5 attributes of the file.
        compression: one of ``COMPRESSIONS``.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[Column],
        rows: int,
        attributes: Mapping[str, str | int] | None = None,
        compression: str = "none",
    ):
        self.path, self.columns, self.compression = Path(path), tuple(columns), compression
        self.attributes = dict(attributes or {})
        self.rows = 0
        self._sources: list[int] = []
        self._capacity = rows
        self._ragged = {c.name: c for c in self.columns if c.is_ragged}
        self._pixels = [c for c in self.columns if c.row_bytes >= PIXELS_FROM and not c.is_ragged]
        small = [c for c in self.columns if c.row_bytes < PIXELS_FROM and not c.is_ragged]
        self._scalars = {c.name: np.zeros((rows, *c.shape), c.dtype) for c in small}
        self._ends = {c.name: np.zeros(rows, np.int64) for c in self._ragged.values()}
        self._crc = dict.fromkeys((c.name for c in self.columns), 0)
        self._spools: dict[str, BinaryIO] = {}

    def __enter__(self) -> PartitionWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path = replaced_by(self.path)
        self._temporary = Temporary(self.path)
        try:
            for column in self._ragged.values():
                self._spools[column.name] = tempfile.TemporaryFile(dir=self.path.parent)
            self._disk, self._file = self._create(self._temporary.path, self._capacity)
        except BaseException:
            self._close_spools()
            self._temporary.close()
            raise
        return self

    def _close_spools(self) -> None:
        for spool in self._spools.values():
            with contextlib.suppress(OSError):  # what a full disk did not take
                spool.close()

    def _create(self, path: Path, rows: int) -> tuple[Disk, h5py.File]:
        with contextlib.ExitStack() as on_error:
            disk = on_error.enter_context(Disk(path, "w+"))
            file = on_error.enter_context(h5py.File(disk, "w"))
            file.attrs.update({"format": FORMAT, **self.attributes})
            for column in self._pixels:
                options = compression_options(self.compression, column.shape)
                file.create_dataset(column.name, (rows, *column.shape), column.dtype, **options)
            on_error.pop_all()
        return disk, file

    def _close(self) -> None:
        self._file.close()
        self._disk.close()
        self._disk.check()

    def append(self, record: Mapping[str, np.ndarray | bytes], source: int = 0) -> None:
        """Add one row: a validated record, as ``Survey.record`` gives it, and the digest of its source, 0 if unknown."""
        for name, values in self._scalars.items():
            values[self.rows] = record[name]
        for column in self._pixels:
            pixels = np.ascontiguousarray(record[column.name], column.dtype)
            self._file[column.name][self.rows] = pixels
            self._crc[column.name] = isal_zlib.crc32(pixels, self._crc[column.name])
        for name in self._ends:
            self._spool(name, self.rows, record[name])
        self._disk.check()
        self._sources.append(source)
        self.rows += 1

    def _spool(self, name: str, row: int, value: bytes | np.ndarray) -> None:
        """Add one row's values to those that wait."""
        ends, column = self._ends[name], self._ragged[name]
        data = value if isinstance(value, bytes) else np.ascontiguousarray(value, column.stored_dtype).ravel().view(np.uint8)
        ends[row] = len(data) // column.stored_dtype.itemsize + (ends[row - 1] if row else 0)
        self._spools[name].write(data)
        self._crc[name] = isal_zlib.crc32(data, self._crc[name])

    def append_rows(self, columns: Mapping[str, np.ndarray | Sequence], sources: Sequence[int]) -> None:
        """Add rows: arrays (rows, *shape) of values that fit, of ragged columns one array, or bytes, for each row;
        and digests of the rows' sources.
        """
        start, stop = self.rows, self.rows + len(sources)
        for name, values in self._scalars.items():
            values[start:stop] = columns[name]
        for column in self._pixels if stop > start else ():
            pixels = np.ascontiguousarray(columns[column.name], column.dtype)
            self._file[column.name][start:stop] = pixels
            self._crc[column.name] = isal_zlib.crc32(pixels, self._crc[column.name])
        for name in self._ends:
            for row, value in enumerate(columns[name], start):
                self._spool(name, row, value)
        self._disk.check()
        self._sources += sources
        self.rows = stop

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None and self.rows:
                self._finish()
        finally:
            self._close_spools()
            with contextlib.suppress(OSError):  # the error of a full disk, again
                self._close()
            self._temporary.close()

    def _finish(self) -> None:
        if self.rows < self._capacity:
            self._shrink()
        for column in self.columns:
            if column.is_ragged:
                self._store_ragged(column)
            elif column.name in self._scalars:
                self._file.create_dataset(column.name, data=self._scalars[column.name][: self.rows])
            self._describe(column)
        for start in range(0, self.rows, _SOURCES) if any(self._sources) else ():
            self._file.attrs[f"sources_{start}"] = np.array(self._sources[start : start + _SOURCES], np.uint64)
        self._close()
        self._check()
        put_in_place(self._temporary.path, self.path)

    def _describe(self, column: Column) -> None:
        self._file[column.name].attrs.update({"unit": column.unit, "description": column.description})

    def _store_ragged(self, column: Column) -> None:
        """Both datasets of a ragged column, the values in one piece."""
        spool, ends, dtype = self._spools[column.name], self._ends[column.name][: self.rows], column.stored_dtype
        spool.seek(0)
        data = self._file.create_dataset(column.name, (int(ends[-1]),), dtype)
        for start, stop in slabs(len(data), dtype.itemsize):
            data[start:stop] = np.frombuffer(spool.read((stop - start) * dtype.itemsize), dtype)
            self._disk.check()
        data.attrs.update({"kind": column.dtype if column.is_bytes else "ragged", "end": column.end.name})
        if not column.is_bytes:
            data.attrs["row_shape"] = column.shape
        self._file.create_dataset(column.end.name, data=ends)
        self._describe(column.end)

    def _shrink(self) -> None:
        """Copy to a file of as many rows as came: a contiguous dataset cannot be cut."""
        smaller = Temporary(self.path)
        try:
            disk, target = self._create(smaller.path, self.rows)
            with disk, target:
                for column in self._pixels:
                    for start, stop in slabs(self.rows, column.row_bytes):
                        target[column.name][start:stop] = self._file[column.name][start:stop]
            disk.check()
            self._close()
            smaller, self._temporary = self._temporary, smaller
        finally:
            smaller.close()
        self._disk = Disk(self._temporary.path, "r+")
        self._file = h5py.File(self._disk, "r+")

    def _check(self) -> None:
        """Read the file back before it gets its name: the raw files may be deleted on the strength of it."""
        with Partition(self._temporary.path, self.columns, trusted_rows=self.rows) as written:
            for column in self._pixels:
                crc = 0
                for start, stop in slabs(self.rows, column.row_bytes, slab_bytes=_CACHED_BYTES):
                    crc = isal_zlib.crc32(written.read(column.name, start, stop), crc)
                if crc != self._crc[column.name]:
                    raise PartitionError(f"{self.path}: {column.name} reads back otherwise than it was written")
            for column in self._ragged.values():
                crc = 0
                for row in range(self.rows):
                    crc = isal_zlib.crc32(written.read(column.name, row, row + 1), crc)
                same_ends = np.array_equal(written.ends(column.name)[1:], self._ends[column.name][: self.rows])
                if crc != self._crc[column.name] or not same_ends:
                    raise PartitionError(f"{self.path}: {column.name} reads back otherwise than it was written")
            for name, values in self._scalars.items():
                if written.read(name).tobytes() != values[: self.rows].tobytes():
                    raise PartitionError(f"{self.path}: {name} reads back otherwise than it was written")
