"""HEALPix HDF5 partitions: where they lie, how one is written, and how one is read without trusting it.

Layout (MultimodalUniverse's, so that its tools feel at home), ``<root>`` being one survey's folder::

    <root>/[<split>/]healpix=<pix>/<kkk>-of-<nnn>.hdf5

One HDF5 dataset a column, row = axis 0, attributes ``unit`` and ``description``. Pixels are stored contiguously, so that a
slab of rows is one read at a known offset, unless a compression was asked for.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import zlib
from collections import deque
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import h5py
import numpy as np

from skyset.errors import PartitionError
from skyset.errors import UserError
from skyset.survey import Column

SUFFIX = ".hdf5"
FORMAT = "skyset-partition/1"
COMPRESSIONS = ("none", "gzip", "blosc-lz4", "bitshuffle-lz4")
#: A column of at least this many bytes a row is written as its rows come; smaller ones are collected and written at once.
PIXELS_FROM = 4096
#: Files are split where a cell holds more than this, so that no task is much longer than the others.
MAX_FILE_BYTES = 256 << 20
SLAB_BYTES = 8 << 20
#: Most buffers that one ``preadv`` takes (IOV_MAX on Linux).
_MAX_BUFFERS = 1024

#: What h5py raises on a damaged file.
_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError)

_PATH = re.compile(r"(?:(?P<split>[^/]+)/)?healpix=(?P<healpix>\d+)/[^/]+" + re.escape(SUFFIX))


def partition_path(healpix: int, part: int = 1, parts: int = 1, split: str | None = None) -> str:
    """Path relative to the survey's root, ``healpix=1234/001-of-002.hdf5``."""
    return f"{split}/" * bool(split) + f"healpix={healpix}/{part:03d}-of-{parts:03d}{SUFFIX}"


def object_path(healpix: int, key: str, split: str | None = None) -> str:
    """Path of a file that holds one object alone, ``healpix=1234/<key>.hdf5``."""
    return f"{split}/" * bool(split) + f"healpix={healpix}/{key}{SUFFIX}"


def cell_of_path(path: str) -> int:
    """HEALPix cell that a relative path names; PartitionError where it names none or leaves the root."""
    match = _PATH.fullmatch(path)
    if match is None or ".." in path.split("/"):
        raise PartitionError(f"{path!r} is not a partition's path (healpix=<pix>/<name>{SUFFIX})")
    return int(match["healpix"])


def compression_options(compression: str, row_shape: tuple[int, ...]) -> dict:
    """Arguments for ``h5py.Group.create_dataset``: contiguous for ``none``, else chunks of one whole row.

    Raises:
        UserError: an unknown name, or hdf5plugin is needed and not installed.
    """
    if compression == "none":
        return {}
    chunks = (1, *row_shape)
    if compression == "gzip":
        return {"chunks": chunks, "compression": "gzip", "compression_opts": 1, "shuffle": True}
    if compression not in COMPRESSIONS:
        raise UserError(f"unknown compression {compression!r}: choose one of {', '.join(COMPRESSIONS)}")
    load_filters(required=compression)
    import hdf5plugin

    if compression == "blosc-lz4":
        return {"chunks": chunks, "compression": hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE)}
    return {"chunks": chunks, "compression": hdf5plugin.Bitshuffle(cname="lz4")}


def load_filters(required: str = "") -> None:
    """Make hdf5plugin's filters known to HDF5, where it is installed; UserError if it is ``required`` and is not."""
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        if required:
            raise UserError(f"{required} needs hdf5plugin: pip install 'skyset[compression]'") from None


class _Disk(io.FileIO):
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
    ``.<name>.<pid>.tmp`` beside it, and it is removed when anything fails.

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
        self._capacity = rows
        self._pixels = [c for c in self.columns if c.row_bytes >= PIXELS_FROM]
        self._scalars = {c.name: np.zeros((rows, *c.shape), c.dtype) for c in self.columns if c.row_bytes < PIXELS_FROM}
        self._crc = dict.fromkeys((c.name for c in self._pixels), 0)

    def __enter__(self) -> PartitionWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            self._disk, self._file = self._create(self._temporary, self._capacity)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        return self

    def _create(self, path: Path, rows: int) -> tuple[_Disk, h5py.File]:
        with contextlib.ExitStack() as on_error:
            disk = on_error.enter_context(_Disk(path, "w+"))
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

    def append(self, record: Mapping[str, np.ndarray]) -> None:
        """Add one row: a validated record, as ``Survey.record`` gives it."""
        for name, values in self._scalars.items():
            values[self.rows] = record[name]
        for column in self._pixels:
            pixels = np.ascontiguousarray(record[column.name], column.dtype)
            self._file[column.name][self.rows] = pixels
            self._crc[column.name] = zlib.crc32(pixels, self._crc[column.name])
        self._disk.check()
        self.rows += 1

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None and self.rows:
                self._finish()
        finally:
            with contextlib.suppress(OSError):  # the error of a full disk, again
                self._close()
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self.rows < self._capacity:
            self._shrink()
        for column in self.columns:
            if column.name in self._scalars:
                self._file.create_dataset(column.name, data=self._scalars[column.name][: self.rows])
            self._file[column.name].attrs.update({"unit": column.unit, "description": column.description})
        self._close()
        self._check()
        with open(self._temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self._temporary, self.path)
        sync_folder(self.path.parent)

    def _shrink(self) -> None:
        """Copy to a file of as many rows as came: a contiguous dataset cannot be cut."""
        smaller = self._temporary.with_suffix(".shrunk.tmp")
        try:
            disk, target = self._create(smaller, self.rows)
            with disk, target:
                for column in self._pixels:
                    for start, stop in slabs(self.rows, column.row_bytes):
                        target[column.name][start:stop] = self._file[column.name][start:stop]
            disk.check()
            self._close()
            os.replace(smaller, self._temporary)
        finally:
            smaller.unlink(missing_ok=True)
        self._disk = _Disk(self._temporary, "r+")
        self._file = h5py.File(self._disk, "r+")

    def _check(self) -> None:
        """Read the file back before it gets its name: the raw files may be deleted on the strength of it."""
        with Partition(self._temporary, self.columns, trusted_rows=self.rows) as written:
            for column in self._pixels:
                crc = 0
                for start, stop in slabs(self.rows, column.row_bytes):
                    crc = zlib.crc32(written.read(column.name, start, stop), crc)
                if crc != self._crc[column.name]:
                    raise PartitionError(f"{self.path}: {column.name} reads back otherwise than it was written")
            for name, values in self._scalars.items():
                if written.read(name).tobytes() != values[: self.rows].tobytes():
                    raise PartitionError(f"{self.path}: {name} reads back otherwise than it was written")


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def slabs(rows: int, row_bytes: int, start: int = 0, slab_bytes: int = SLAB_BYTES) -> Iterator[tuple[int, int]]:
    """Cut ``start..rows`` into runs (start, stop) of at most ``slab_bytes``, at least one row each."""
    step = max(1, slab_bytes // max(1, row_bytes))
    for first in range(start, rows, step):
        yield first, min(first + step, rows)


class Partition:
    """An open partition. Nothing in the file is believed before it is checked against the table of columns.

    Args:
        path: local path, or a URL that fsspec can open for reading.
        columns: what must be there; other datasets in the file are ignored.
        trusted_rows: number of rows the manifest says; None where nothing is known.

    Raises:
        PartitionError: the file is missing, is no HDF5, lacks a column, has one of another dtype or shape, or keeps data
            outside itself (soft and external links, external or virtual storage).
    """

    def __init__(self, path: str | Path, columns: Sequence[Column], trusted_rows: int | None = None):
        self.path, self.columns = path, {c.name: c for c in columns}
        self._stream = None
        self._descriptor = None
        try:
            self._file = h5py.File(self._source(), "r")
        except _DAMAGE as error:
            self._close_stream()
            raise PartitionError(f"{path}: {_reason(error)}") from error
        try:
            self._data = {name: self._dataset(column) for name, column in self.columns.items()}
            self.rows = self._common_rows(trusted_rows)
            self._offsets = self._contiguous_offsets()
        except PartitionError:
            self.close()
            raise
        except _DAMAGE as error:
            self.close()
            raise PartitionError(f"{path}: {_reason(error)}") from error

    def _source(self):
        if "://" not in str(self.path):
            return str(self.path)
        import fsspec

        self._stream = fsspec.open(str(self.path), "rb", block_size=8 << 20).open()
        return self._stream

    def _dataset(self, column: Column) -> h5py.Dataset:
        link = self._file.get(column.name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            what = "is missing" if link is None else "is a soft or external link: refused"
            raise PartitionError(f"{self.path}: column {column.name} {what}")
        data = self._file[column.name]
        if not isinstance(data, h5py.Dataset):
            raise PartitionError(f"{self.path}: {column.name} is a {type(data).__name__}, not a dataset")
        if data.is_virtual or data.external:
            raise PartitionError(f"{self.path}: column {column.name} keeps its data in another file: refused")
        if not _is_stored(data):
            raise PartitionError(f"{self.path}: column {column.name} is not all there: {data.shape} values are declared")
        wanted = np.dtype(column.dtype)
        same = data.dtype.kind == "S" if column.is_text else data.dtype == wanted
        if not same or data.shape[1:] != column.shape or data.ndim != len(column.shape) + 1:
            raise PartitionError(
                f"{self.path}: column {column.name} is {data.dtype}{data.shape}, not {wanted}(rows, *{column.shape})"
            )
        return data

    def _common_rows(self, trusted: int | None) -> int:
        counts = {data.shape[0] for data in self._data.values()}
        if len(counts) > 1 or (trusted is not None and counts - {trusted}):
            wanted = f", the manifest says {trusted}" if trusted is not None else ""
            raise PartitionError(f"{self.path}: columns have {sorted(counts)} rows{wanted}")
        return counts.pop() if counts else (trusted or 0)

    def _contiguous_offsets(self) -> dict[str, int]:
        """Where the columns lie in a local file that are stored in one piece, in their own dtype."""
        if self._stream is not None:
            return {}
        self._descriptor = os.open(self.path, os.O_RDONLY)
        return {
            name: offset
            for name, data in self._data.items()
            if data.chunks is None and (offset := data.id.get_offset()) is not None
        }

    def read(self, name: str, start: int = 0, stop: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Rows ``start:stop`` of a column, shape (rows, *shape), in its own dtype.

        ``out`` takes them where given; its rows may lie apart from each other (a layer of a stack of layers).

        Raises:
            PartitionError: the bytes are not there or do not unpack.
        """
        stop = self.rows if stop is None else stop
        data = self._data[name]
        if out is None:
            out = np.empty((stop - start, *data.shape[1:]), data.dtype)
        try:
            if name in self._offsets and _rows_are_flat(out, (stop - start, *data.shape[1:]), data.dtype):
                row_bytes = data.dtype.itemsize * int(np.prod(data.shape[1:]))
                self._read_into(out, self._offsets[name] + start * row_bytes)
            elif stop > start:
                out[...] = data[start:stop]
        except (OSError, RuntimeError, EOFError) as error:
            raise PartitionError(f"{self.path}: column {name}, rows {start} to {stop}: {_reason(error)}") from error
        return out

    def _read_into(self, out: np.ndarray, offset: int) -> None:
        """Scatter one stretch of the file over the rows of ``out``, without HDF5 and without a copy in between."""
        contiguous = out.flags.c_contiguous
        buffers = deque(memoryview(row).cast("B") for row in ([out] if contiguous else out))
        while buffers:
            count = os.preadv(self._descriptor, list(islice(buffers, _MAX_BUFFERS)), offset)
            if count == 0:
                raise EOFError("the file ends before them")
            offset += count
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.popleft())
            if count:
                buffers[0] = buffers[0][count:]

    def text(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        """Rows of a text column as Python strings."""
        return [value.decode("ascii", "replace") for value in self.read(name, start, stop).tolist()]

    def record(self, row: int) -> dict[str, np.ndarray]:
        """One row with all its columns, as ``PartitionWriter.append`` takes it."""
        return {name: self.read(name, row, row + 1)[0] for name in self.columns}

    def close(self) -> None:
        self._file.close()
        self._close_stream()

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Partition:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _is_stored(data: h5py.Dataset) -> bool:
    """Whether the file holds all of a dataset: HDF5 gives zeros for what was declared and never written."""
    if data.chunks is None:
        return data.id.get_storage_size() == data.nbytes
    needed = math.prod(-(-size // chunk) for size, chunk in zip(data.shape, data.chunks, strict=True))
    return data.id.get_num_chunks() == needed


def _rows_are_flat(out: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether the bytes of a file can go into ``out`` as they are: same type, each row in one piece."""
    rows_in_one_piece = out.flags.c_contiguous or (out.ndim > 1 and out[:1].flags.c_contiguous)
    return out.size > 0 and out.shape == shape and out.dtype == dtype and rows_in_one_piece


def _reason(error: BaseException) -> str:
    """HDF5's message without its stack of internal calls."""
    text = " ".join(str(error).split()).strip("'\"")
    if isinstance(error, FileNotFoundError):
        return "no such file"
    match = re.search(r"\((.*)\)$", text)
    return (match[1] if match else text) or type(error).__name__
