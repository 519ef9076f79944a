"""HEALPix HDF5 partitions: where they lie, how one is written, and how one is read without trusting it.

Layout (MultimodalUniverse's, so that its tools feel at home), ``<root>`` being one survey's folder::

    <root>/[<split>/]healpix=<pix>/<kkk>-of-<nnn>.hdf5

One HDF5 dataset a column, row = axis 0, attributes ``unit`` and ``description``. Pixels are stored contiguously, so that a
slab of rows is one read at a known offset, unless a compression was asked for. A column of bytes is two datasets:
``<name>``, uint8, has the bytes of all rows one after the other, always contiguous (encoded images do not compress);
``<name>_end``, int64, says where each row ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import re
import stat
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from skyset import remote
from skyset.chunks import Unsound
from skyset.chunks import check_filters
from skyset.chunks import check_superblock
from skyset.chunks import unpacked_chunk
from skyset.errors import PartitionError
from skyset.errors import UserError
from skyset.files import Temporary
from skyset.files import opened_hdf5
from skyset.files import replaced_by
from skyset.files import sync_folder
from skyset.survey import MAX_VALUE_BYTES
from skyset.survey import Column
from skyset.versions import install_command

SUFFIX = ".hdf5"
FORMAT = "skyset-partition/1"
COMPRESSIONS = ("none", "gzip", "blosc-lz4", "bitshuffle-lz4")
#: The last of HDF5's filters that each stores pixels through, 0 for none.
FILTERS = {"none": 0, "gzip": 1, "blosc-lz4": 32001, "bitshuffle-lz4": 32008}
#: A column of at least this many bytes a row is written as its rows come; smaller ones are collected and written at once.
PIXELS_FROM = 4096
#: Files are split where a cell holds more than this, so that no task is much longer than the others.
MAX_FILE_BYTES = 256 << 20
SLAB_BYTES = 8 << 20
#: Of a column of bytes, at a time. Slabs are cut by the mean length of a file's rows, and are far below that.
MAX_READ_BYTES = 256 << 20
#: Where rows end is kept of files with no more rows than this: a file is asked once.
_KEPT_ENDS = 1 << 16
#: Digests of rows' sources in one attribute of a file, which takes 64 kB.
_SOURCES = 4096
#: Most buffers that one ``preadv`` takes (IOV_MAX on Linux).
_MAX_BUFFERS = 1024

#: What h5py raises on a damaged file.
_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError)

_PATH = re.compile(r"(?:(?P<split>[^/]+)/)?healpix=(?P<healpix>[0-9]{1,10})/[^/]+" + re.escape(SUFFIX))
#: Bytes of a file's name on the usual file systems.
_LONGEST_NAME = 255


def partition_path(healpix: int, part: int = 1, parts: int = 1, split: str | None = None) -> str:
    """Path relative to the survey's root, ``healpix=1234/001-of-002.hdf5``."""
    return f"{split}/" * bool(split) + f"healpix={healpix}/{part:03d}-of-{parts:03d}{SUFFIX}"


def object_path(healpix: int, key: str, split: str | None = None) -> str:
    """Path of a file that holds one object alone, ``healpix=1234/<key>.hdf5``."""
    return f"{split}/" * bool(split) + f"healpix={healpix}/{key}{SUFFIX}"


def cell_of_path(path: str) -> int:
    """HEALPix cell that a relative path names; PartitionError where it names none, or cannot be a file's below the root."""
    return int(_parts_of(path)["healpix"])


def split_of_path(path: str) -> str:
    """The split whose folder a relative path lies in: ``train`` where it is in none; PartitionError as ``cell_of_path``."""
    return _parts_of(path)["split"] or "train"


def _parts_of(path: str) -> re.Match:
    match = _PATH.fullmatch(path)
    names = path.split("/")
    if match is None or {".", ".."} & set(names) or not path.isprintable():
        raise PartitionError(f"{path[:200]!r} is not a partition's path (healpix=<pix>/<name>{SUFFIX})")
    if max(len(name.encode()) for name in names) > _LONGEST_NAME:
        raise PartitionError(f"{path[:200]!r}... is longer than a file's name can be")
    return match


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
            raise UserError(f"{required} needs hdf5plugin: {install_command('compression')}") from None


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
    a ``Temporary`` file beside it, and it is removed when anything fails. Columns of bytes wait in nameless files on the
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
        self._bytes = [c for c in self.columns if c.is_bytes]
        self._pixels = [c for c in self.columns if c.row_bytes >= PIXELS_FROM and not c.is_bytes]
        small = [c for c in self.columns if c.row_bytes < PIXELS_FROM and not c.is_bytes]
        self._scalars = {c.name: np.zeros((rows, *c.shape), c.dtype) for c in small}
        self._ends = {c.name: np.zeros(rows, np.int64) for c in self._bytes}
        self._crc = dict.fromkeys((c.name for c in self.columns), 0)
        self._spools: dict[str, BinaryIO] = {}

    def __enter__(self) -> PartitionWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path = replaced_by(self.path)
        self._temporary = Temporary(self.path)
        try:
            for column in self._bytes:
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

    def append(self, record: Mapping[str, np.ndarray | bytes], source: int = 0) -> None:
        """Add one row: a validated record, as ``Survey.record`` gives it, and the digest of its source, 0 if unknown."""
        for name, values in self._scalars.items():
            values[self.rows] = record[name]
        for column in self._pixels:
            pixels = np.ascontiguousarray(record[column.name], column.dtype)
            self._file[column.name][self.rows] = pixels
            self._crc[column.name] = zlib.crc32(pixels, self._crc[column.name])
        for name, ends in self._ends.items():
            ends[self.rows] = len(record[name]) + (ends[self.rows - 1] if self.rows else 0)
            self._spools[name].write(record[name])
            self._crc[name] = zlib.crc32(record[name], self._crc[name])
        self._disk.check()
        self._sources.append(source)
        self.rows += 1

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
            if column.is_bytes:
                self._store_bytes(column)
            elif column.name in self._scalars:
                self._file.create_dataset(column.name, data=self._scalars[column.name][: self.rows])
            self._describe(column)
        for start in range(0, self.rows, _SOURCES) if any(self._sources) else ():
            self._file.attrs[f"sources_{start}"] = np.array(self._sources[start : start + _SOURCES], np.uint64)
        self._close()
        self._check()
        with open(self._temporary.path, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self._temporary.path, self.path)
        sync_folder(self.path.parent)

    def _describe(self, column: Column) -> None:
        self._file[column.name].attrs.update({"unit": column.unit, "description": column.description})

    def _store_bytes(self, column: Column) -> None:
        """Both datasets of a column of bytes, the bytes in one piece."""
        spool, ends = self._spools[column.name], self._ends[column.name][: self.rows]
        spool.seek(0)
        data = self._file.create_dataset(column.name, (int(ends[-1]),), np.uint8)
        for start, stop in slabs(len(data), 1):
            data[start:stop] = np.frombuffer(spool.read(stop - start), np.uint8)
            self._disk.check()
        data.attrs.update({"kind": column.dtype, "end": column.end.name})
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
        self._disk = _Disk(self._temporary.path, "r+")
        self._file = h5py.File(self._disk, "r+")

    def _check(self) -> None:
        """Read the file back before it gets its name: the raw files may be deleted on the strength of it."""
        with Partition(self._temporary.path, self.columns, trusted_rows=self.rows) as written:
            for column in self._pixels:
                crc = 0
                for start, stop in slabs(self.rows, column.row_bytes):
                    crc = zlib.crc32(written.read(column.name, start, stop), crc)
                if crc != self._crc[column.name]:
                    raise PartitionError(f"{self.path}: {column.name} reads back otherwise than it was written")
            for column in self._bytes:
                crc = 0
                for row in range(self.rows):
                    crc = zlib.crc32(written.read(column.name, row, row + 1), crc)
                same_ends = np.array_equal(written.ends(column.name)[1:], self._ends[column.name][: self.rows])
                if crc != self._crc[column.name] or not same_ends:
                    raise PartitionError(f"{self.path}: {column.name} reads back otherwise than it was written")
            for name, values in self._scalars.items():
                if written.read(name).tobytes() != values[: self.rows].tobytes():
                    raise PartitionError(f"{self.path}: {name} reads back otherwise than it was written")


def row_sources(attributes: Mapping) -> list[int]:
    """The digest of what each row of a partition was made of, 0 where that is unknown; empty where none is known.

    Args:
        attributes: the file's.
    """
    sources: list[int] = []
    while (some := attributes.get(f"sources_{len(sources)}")) is not None and np.size(some):
        sources += [int(source) for source in np.ravel(some)]
    return sources


def slabs(rows: int, row_bytes: int, start: int = 0, slab_bytes: int = SLAB_BYTES) -> Iterator[tuple[int, int]]:
    """Cut ``start..rows`` into runs (start, stop) of at most ``slab_bytes``, at least one row each."""
    starts = slab_starts(rows, row_bytes, start, slab_bytes)
    for first in starts:
        yield first, min(first + starts.step, rows)


def slab_starts(rows: int, row_bytes: int, start: int = 0, slab_bytes: int = SLAB_BYTES) -> range:
    """The first rows of ``slabs``."""
    return range(start, rows, max(1, slab_bytes // max(1, row_bytes)))


class _LocalFile:
    """A file on this machine, read at known offsets; notices when somebody writes to it meanwhile."""

    def __init__(self, path: str):
        self.path = path
        self._stack = contextlib.ExitStack()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # not to wait at a named pipe
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.close()
            raise OSError("not a regular file")
        self.stamp = self._now()
        self.size = self.stamp[2]

    def _now(self) -> tuple:
        status = os.fstat(self._descriptor)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def hdf5(self) -> h5py.File:
        return self._stack.enter_context(opened_hdf5(self._descriptor))

    def bytes(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def read(self, parts: Sequence[tuple[int, np.ndarray]]) -> None:
        """Fill arrays, each from one stretch of bytes at an offset; the rows of an array may lie apart from each other."""
        for offset, out in parts:
            self._scatter(offset, out)
        if self._now() != self.stamp:
            raise OSError("the file was changed while it was being read")

    def _scatter(self, offset: int, out: np.ndarray) -> None:
        buffers = deque(memoryview(row).cast("B") for row in ([out] if out.flags.c_contiguous else out))
        while buffers:
            count = os.preadv(self._descriptor, list(islice(buffers, _MAX_BUFFERS)), offset)
            if count == 0:
                raise EOFError("the file ends before them")
            offset += count
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.popleft())
            if count:
                buffers[0] = buffers[0][count:]

    def close(self) -> None:
        self._stack.close()
        os.close(self._descriptor)


class _RemoteFile:
    """A file that fsspec reads by ranges (``https://``, ``hf://``): the columns of a piece in concurrent requests."""

    def __init__(self, url: str):
        with remote.os_errors():
            self._system, self._path = remote.opened(url)
            status = self._system.info(self._path)
            if status["type"] != "file":
                raise OSError("not a regular file")
            remote.check_parts(self._system, self._path)
        self.size = status.get("size")
        self.stamp = self.size, status.get("ETag") or status.get("etag"), str(status.get("mtime"))
        self._stream = None

    def hdf5(self) -> h5py.File:
        # HDF5 reads its structure in many small steps: blocks of 256 kB, kept, make them few requests.
        self._stream = self._system.open(self._path, "rb", cache_type="blockcache", block_size=256 << 10)
        return h5py.File(self._stream, "r")

    def bytes(self, offset: int, size: int) -> bytes:
        with remote.os_errors():
            data = self._system.cat_file(self._path, start=offset, end=offset + size)
        if len(data) > size:
            raise OSError(remote.NO_PARTS)
        return data

    def read(self, parts: Sequence[tuple[int, np.ndarray]]) -> None:
        """Fill arrays, each from one stretch of bytes at an offset."""
        starts = [offset for offset, _ in parts]
        ends = [offset + out.nbytes for offset, out in parts]
        with remote.os_errors():
            answers = self._system.cat_ranges([self._path] * len(parts), starts, ends, on_error="raise")
        for (_, out), data in zip(parts, answers, strict=True):
            if len(data) > out.nbytes:
                raise OSError(remote.NO_PARTS)
            if len(data) != out.nbytes:
                raise EOFError("the file ends before them")
            out[...] = np.frombuffer(data, out.dtype).reshape(out.shape)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


@dataclass(frozen=True)
class _Layout:
    """Where the datasets of a file lie that was found good: byte offsets, -1 for those that HDF5 must read; lengths."""

    stamp: tuple
    rows: int
    offsets: np.ndarray
    lengths: np.ndarray


#: Layouts of the files that were opened, by path and names of columns: a file is opened again without HDF5.
_layouts: dict[tuple[str, tuple[str, ...]], _Layout] = {}
_MAX_LAYOUTS = 100_000
#: Stamp and SHA-256 of the files that were checked, by path.
_digests: dict[str, tuple[tuple, str]] = {}


class Partition:
    """An open partition. Nothing in the file is believed before it is checked against the table of columns.

    Columns that are stored contiguously are read at their offsets, without HDF5.

    Args:
        path: local path, or a URL that fsspec can open for reading.
        columns: what must be there; other datasets in the file are ignored.
        trusted_rows, trusted_bytes: what the manifest says; None where nothing is known.
        sha256: what the whole file's checksum must be, hexadecimal; read once in a process for as long as the file is not
            written to.

    Raises:
        PartitionError: the file is missing, has another size or checksum, is no HDF5, lacks a column, has one of another
            dtype or shape, or keeps data outside itself (soft and external links, external or virtual storage); its bytes
            are not in one piece.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[Column],
        trusted_rows: int | None = None,
        trusted_bytes: int | None = None,
        sha256: str | None = None,
    ):
        self.path, self.columns = path, {c.name: c for c in columns}
        self._stored = {**self.columns, **{c.end.name: c.end for c in columns if c.is_bytes}}
        self._has_bytes = len(self._stored) > len(self.columns)
        self._bounds: dict[str, np.ndarray] = {}
        self._hdf5: h5py.File | None = None
        self._checked: dict[str, h5py.h5d.DatasetID] = {}
        try:
            self._file = (_RemoteFile if "://" in str(path) else _LocalFile)(str(path))
        except OSError as error:
            raise PartitionError(f"{path}: {_reason(error)}") from error
        try:
            if None not in (trusted_bytes, self._file.size) and self._file.size != trusted_bytes:
                raise PartitionError(f"{path}: has {self._file.size} bytes, the manifest says {trusted_bytes}")
            if sha256 is not None:
                self._check_digest(sha256)
            layout = self._layout()
            self.rows = layout.rows
            self._offsets = dict(zip(self._stored, layout.offsets.tolist(), strict=True))
            self._lengths = dict(zip(self._stored, layout.lengths.tolist(), strict=True))
            if trusted_rows is not None and self.rows != trusted_rows and self.columns:
                raise PartitionError(f"{path}: has {self.rows} rows, the manifest says {trusted_rows}")
        except PartitionError:
            self.close()
            raise
        except _DAMAGE as error:
            self.close()
            raise PartitionError(f"{path}: {_reason(error)}") from error

    def _check_digest(self, wanted: str) -> None:
        known = _digests.get(str(self.path))
        if known is None or known[0] != self._file.stamp:
            if len(_digests) >= _MAX_LAYOUTS:
                _digests.clear()
            known = _digests[str(self.path)] = self._file.stamp, self._digest()
        if known[1] != wanted:
            raise PartitionError(f"{self.path}: SHA-256 is {known[1][:12]}..., the manifest says {wanted[:12]}...")

    def _digest(self) -> str:
        """SHA-256 of the whole file, hexadecimal."""
        digest, offset = hashlib.sha256(), 0
        while data := self._file.bytes(offset, min(SLAB_BYTES, (self._file.size or offset + SLAB_BYTES) - offset)):
            digest.update(data)
            offset += len(data)
            if offset == self._file.size:
                break
        return digest.hexdigest()

    def _layout(self) -> _Layout:
        key = str(self.path), tuple(self._stored)
        known = _layouts.get(key)
        if known is not None and known.stamp == self._file.stamp:
            return known
        if len(_layouts) >= _MAX_LAYOUTS:
            _layouts.clear()
        _layouts[key] = layout = self._examined()
        return layout

    def _examined(self) -> _Layout:
        """Open the file with HDF5 and check all columns."""
        data = [(column, self._dataset(column)) for column in self._stored.values()]
        counts = {dataset.shape[0] for column, dataset in data if not column.is_bytes}
        if len(counts) > 1:
            raise PartitionError(f"{self.path}: columns have {sorted(counts)} rows")
        offsets = np.array([_offset(dataset, column) for column, dataset in data], np.int64)
        lengths = np.array([dataset.shape[0] for _, dataset in data], np.int64)
        return _Layout(self._file.stamp, counts.pop() if counts else 0, offsets, lengths)

    def _dataset(self, column: Column) -> h5py.h5d.DatasetID:
        """A column as HDF5 sees it; examined once, since a compressed one is asked for at every read."""
        if column.name not in self._checked:
            self._checked[column.name] = self._checked_dataset(column)
        return self._checked[column.name]

    def _opened_hdf5(self) -> h5py.File:
        if self._hdf5 is None:
            check_superblock(self._file.bytes, self._file.size)
            self._hdf5 = self._file.hdf5()
        return self._hdf5

    def _checked_dataset(self, column: Column) -> h5py.h5d.DatasetID:
        """A column as HDF5 sees it, if it is what it should be. In h5py's low-level calls: a file may have a hundred."""
        group, name, where = self._opened_hdf5().id, column.name.encode(), f"{self.path}: column {column.name}"
        if not group.links.exists(name):
            raise PartitionError(f"{where} is missing")
        link = group.links.get_info(name)
        if link.type != h5py.h5l.TYPE_HARD:
            raise PartitionError(f"{where} is a soft or external link: refused")
        data = h5py.h5o.open(group, name)
        if not isinstance(data, h5py.h5d.DatasetID):
            raise PartitionError(f"{where} is a {type(data).__name__.removesuffix('ID')}, not a dataset")
        properties = data.get_create_plist()
        if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
            raise PartitionError(f"{where} keeps its data in another file: refused")
        if column.is_bytes:
            _check_bytes(data, properties, where)
            return data
        wanted, shape, dtype = np.dtype(column.dtype), data.shape, data.dtype
        narrower_text = column.is_text and dtype.kind == "S" and dtype.itemsize <= wanted.itemsize
        if not (dtype == wanted or narrower_text) or len(shape) != len(column.shape) + 1 or shape[1:] != column.shape:
            raise PartitionError(f"{where} is {dtype}{shape}, not {wanted}(rows, *{column.shape})")
        if properties.get_layout() == h5py.h5d.CHUNKED:
            try:
                check_filters(properties, shape, dtype)
            except Unsound as error:
                raise PartitionError(f"{where} cannot be read: {error}") from error
        if not _is_stored(data, properties):
            raise PartitionError(f"{where} is not all there: {shape} values are declared")
        return data

    def read(self, name: str, start: int = 0, stop: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Rows ``start:stop`` of a column, shape (rows, *shape), in its own dtype; of bytes, all of them, uint8 (bytes,).

        ``out`` takes them where given; its rows may lie apart from each other (a layer of a stack of layers).

        Raises:
            PartitionError: the bytes are not there or do not unpack, or the file was changed since it was opened.
        """
        stop = self.rows if stop is None else stop
        if out is None:
            column = self._stored[name]
            out = (
                np.empty(self.size(name, start, stop), np.uint8)
                if column.is_bytes
                else np.empty((max(0, stop - start), *column.shape), column.dtype)
            )
        self.read_columns({name: out}, start, stop)
        return out

    def read_columns(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        """Rows ``start:stop`` of several columns, each into its array (rows, *shape), those of bytes into uint8 (bytes,).

        Raises:
            PartitionError: see ``read``.
        """
        self._check_rows(start, stop)
        parts = []
        if self._has_bytes:
            stretches = [self._stretch(name, out, start, stop) for name, out in outs.items() if self._stored[name].is_bytes]
            parts = [(offset, out) for offset, out in stretches if out.size]
            outs = {name: out for name, out in outs.items() if not self._stored[name].is_bytes}
        for name, out in outs.items():
            if out.shape != (stop - start, *self._stored[name].shape):
                raise ValueError(f"an array of shape {out.shape} cannot take {stop - start} rows of {name}")
        try:
            for name, out in outs.items():
                column = self._stored[name]
                if self._offsets[name] >= 0 and _rows_are_flat(out, column):
                    parts.append((self._offsets[name] + start * column.row_bytes, out))
                elif stop > start:
                    self._unpack(column, out, start, stop)
            if parts:
                self._file.read(parts)
        except (*_DAMAGE, EOFError) as error:
            names = f"column {next(iter(outs))}" if len(outs) == 1 else f"{len(outs)} columns"
            raise PartitionError(f"{self.path}: {names}, rows {start} to {stop}: {_reason(error)}") from error

    def _stretch(self, name: str, out: np.ndarray, start: int, stop: int) -> tuple[int, np.ndarray]:
        """Where the bytes of some rows begin in the file, and what takes them."""
        bounds = self.ends(name, start, stop)
        if out.shape != (bounds[-1] - bounds[0],):
            raise ValueError(f"an array of shape {out.shape} cannot take {bounds[-1] - bounds[0]} bytes of {name}")
        return self._offsets[name] + int(bounds[0]), out

    def _check_rows(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.rows:
            raise PartitionError(f"{self.path}: has {self.rows} rows, {start} to {stop} were asked for")

    def ends(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Where rows ``start:stop`` of a column of bytes lie among all of its bytes, int64 (rows + 1,).

        Raises:
            PartitionError: they do not lie one after the other, or one has more than ``MAX_VALUE_BYTES``.
        """
        stop = self.rows if stop is None else stop
        self._check_rows(start, stop)
        bounds, where = self._raw_bounds(name, start, stop), f"{self.path}: column {name}, rows {start} to {stop}"
        if bounds[0] < 0 or bounds[-1] > self._lengths[name] or (bounds[1:] < bounds[:-1]).any():
            raise PartitionError(f"{where}: do not lie one after the other in {self._lengths[name]} bytes")
        if (largest := int(np.diff(bounds).max(initial=0))) > MAX_VALUE_BYTES:
            raise PartitionError(f"{where}: one has {largest} bytes, more than {MAX_VALUE_BYTES}")
        return bounds

    def size(self, name: str, start: int, stop: int) -> int:
        """Bytes of rows ``start:stop`` of a column of bytes.

        Raises:
            PartitionError: see ``ends``; or there are too many to be read at a time.
        """
        bounds = self.ends(name, start, stop)
        if (size := int(bounds[-1] - bounds[0])) > MAX_READ_BYTES:
            raise PartitionError(
                f"{self.path}: column {name}, rows {start} to {stop}: {size} bytes, more than {MAX_READ_BYTES} at a time"
            )
        return size

    def _raw_bounds(self, name: str, start: int, stop: int) -> np.ndarray:
        """As the file has them; the first row begins at 0."""
        end = self.columns[name].end.name
        if self.rows <= _KEPT_ENDS:
            if name not in self._bounds:
                self._bounds[name] = np.concatenate([np.zeros(1, np.int64), self.read(end)])
            return self._bounds[name][start : stop + 1]
        if start:
            return self.read(end, start - 1, stop)
        return np.concatenate([np.zeros(1, np.int64), self.read(end, start, stop)])

    def _unpack(self, column: Column, out: np.ndarray, start: int, stop: int) -> None:
        """Rows of a column that is not stored in one piece. Chunks hold whole rows."""
        data = self._dataset(column)
        if data.get_create_plist().get_layout() != h5py.h5d.CHUNKED:
            out[...] = h5py.Dataset(data)[start:stop]
            return
        rows = data.get_create_plist().get_chunk()[0]
        for first in range(start // rows * rows, stop, rows):
            low, high = max(first, start), min(first + rows, stop)
            out[low - start : high - start] = unpacked_chunk(data, first, self._file.bytes)[low - first : high - first]

    def attributes(self) -> dict:
        """The file's own attributes; PartitionError where they cannot be read."""
        try:
            return dict(self._opened_hdf5().attrs)
        except _DAMAGE as error:
            raise PartitionError(f"{self.path}: {_reason(error)}") from error

    def described(self) -> dict[str, dict]:
        """What is in the file, by name: ``unit`` and ``description`` as it has them, ``filters``, the numbers of those that
        its values are stored through.

        Raises:
            PartitionError: it cannot be read.
        """
        found: dict[str, dict] = {}
        try:
            file = self._opened_hdf5()
            for name in file:
                found[name] = {"filters": []}
                if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                    continue
                thing = file[name]
                found[name] |= {key: thing.attrs[key] for key in ("unit", "description") if key in thing.attrs}
                if isinstance(thing, h5py.Dataset):
                    properties = thing.id.get_create_plist()
                    found[name]["filters"] = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        except _DAMAGE as error:
            raise PartitionError(f"{self.path}: {_reason(error)}") from error
        return found

    def sources(self) -> list[int]:
        """The digest of what each row was made of, 0 where that is unknown; PartitionError where it cannot be read."""
        try:
            known = row_sources(self.attributes())
        except _DAMAGE as error:
            raise PartitionError(f"{self.path}: {_reason(error)}") from error
        return known if len(known) == self.rows else [0] * self.rows

    def text(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        """Rows of a text column as Python strings."""
        return decoded(self.read(name, start, stop))

    def record(self, row: int) -> dict[str, np.ndarray | bytes]:
        """One row with all its columns, as ``PartitionWriter.append`` takes it."""
        values = {name: self.read(name, row, row + 1) for name in self.columns}
        return {name: value.tobytes() if self.columns[name].is_bytes else value[0] for name, value in values.items()}

    def close(self) -> None:
        self._checked.clear()
        if self._hdf5 is not None:
            self._hdf5.close()
        self._file.close()

    def __enter__(self) -> Partition:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def decoded(values: np.ndarray) -> list[str]:
    """A text column's bytes as Python strings."""
    return [value.decode("ascii", "replace") for value in values.tolist()]


def _offset(data: h5py.h5d.DatasetID, column: Column) -> int:
    """Where a dataset lies in the file if it is in one piece and in the column's dtype, else -1."""
    dtype = np.dtype(np.uint8 if column.is_bytes else column.dtype)
    offset = data.get_offset() if data.dtype == dtype else None  # None where it is in chunks
    return -1 if offset is None else offset


def _check_bytes(data: h5py.h5d.DatasetID, properties: h5py.h5p.PropDCID, where: str) -> None:
    """Raise PartitionError unless a dataset is uint8 (bytes,), all there, and in one piece as the writer leaves it."""
    if data.dtype != np.uint8 or len(data.shape) != 1:
        raise PartitionError(f"{where} is {data.dtype}{data.shape}, not bytes: uint8(bytes,)")
    if not _is_stored(data, properties):
        raise PartitionError(f"{where} is not all there: {data.shape} values are declared")
    if data.shape[0] and (properties.get_layout() != h5py.h5d.CONTIGUOUS or data.get_offset() is None):
        raise PartitionError(f"{where} is not stored in one piece: refused")


def _is_stored(data: h5py.h5d.DatasetID, properties: h5py.h5p.PropDCID) -> bool:
    """Whether the file holds all of a dataset: HDF5 gives zeros for what was declared and never written."""
    if properties.get_layout() == h5py.h5d.CHUNKED:
        chunks = properties.get_chunk()
        return data.get_num_chunks() == math.prod(-(-size // chunk) for size, chunk in zip(data.shape, chunks, strict=True))
    return data.get_storage_size() == data.dtype.itemsize * math.prod(data.shape)


def _rows_are_flat(out: np.ndarray, column: Column) -> bool:
    """Whether the bytes of a file can go into ``out`` as they are: same type, each row in one piece."""
    rows_in_one_piece = out.flags.c_contiguous or (out.ndim > 1 and out[:1].flags.c_contiguous)
    return out.size > 0 and out.dtype == np.dtype(column.dtype) and rows_in_one_piece


def _reason(error: BaseException) -> str:
    """HDF5's message without its stack of internal calls."""
    text = " ".join(str(error).split()).strip("'\"")
    if isinstance(error, FileNotFoundError):
        return "no such file"
    match = re.search(r"\((.*)\)$", text)
    return (match[1] if match else text) or type(error).__name__
