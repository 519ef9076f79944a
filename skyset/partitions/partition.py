"""HEALPix HDF5 partitions: where they lie, how one is written, and how one is read without trusting it.

Layout (MultimodalUniverse's, so that its tools feel at home), ``<root>`` being one survey's folder::

    <root>/[<split>/]healpix=<pix>/<kkk>-of-<nnn>.hdf5

One HDF5 dataset per column, row = axis 0, attributes ``unit`` and ``description``. Pixels are stored contiguously, so that a
slab of rows is one read at a known offset, unless a compression was asked for. A column of bytes is two datasets:
``<name>``, uint8, has the bytes of all rows one after the other, always contiguous (encoded images do not compress);
``<name>_end``, int64, says where each row ends. So is a ragged column of numbers or text: ``<name>`` has all values one
after the other, of one axis, and ``<name>_end`` counts values.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from skyset.block_cache import BlockCache
from skyset.errors import PartitionError
from skyset.partitions.byte_ranges import LocalFile
from skyset.partitions.chunks import Chunks, Unsound, check_filters, check_superblock, chunk_places
from skyset.partitions.layout import PIXELS_FROM, SLAB_BYTES
from skyset.partitions.remote_file import RemoteFile
from skyset.ranges import Lines
from skyset.survey import MAX_VALUE_BYTES, Column

#: Of a ragged column, at a time. Slabs are cut by the mean length of a file's rows, and are far below that.
MAX_READ_BYTES = 256 << 20
#: Where rows end is kept of files with no more rows than this: a file is asked once.
_KEPT_ENDS = 1 << 16
#: From so many texts on it is worth looking for equal ones.
_MANY_TEXTS = 64

#: What HDF5 writes between small columns, about; most of these, at a file's end, that are asked for with its structure.
_BETWEEN, _MAX_SMALL = 1 << 10, 1 << 20
#: What h5py raises on a damaged file.
_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError)


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


def stored_columns(path: str | Path, names: Iterable[str]) -> dict[str, Column]:
    """The datasets of these names that a file has, as columns of the dtypes and shapes that they are stored with.

    Raises:
        PartitionError: the file is missing, cut short or no HDF5, or one of them is no dataset of numbers or fixed text.
    """
    with Partition(path, ()) as file:
        return {name: column for name in names if (column := file.stored(name)) is not None}


class Partition:
    """An open partition. Nothing in the file is believed before it is checked against the table of columns.

    Columns that are stored contiguously are read at their offsets, without HDF5.

    Args:
        path: local path, or a URL that fsspec can open for reading.
        columns: what must be there; other datasets in the file are ignored.
        trusted_rows, trusted_bytes: what the manifest says; None where nothing is known.
        sha256: what the whole file's checksum must be, hexadecimal; read once in a process for as long as the file is not
            written to.
        whole_rows: chunks must be of whole rows, as ours are; others' files may have others.
        digest: the manifest's SHA-256, which is not looked at: of a file behind a URL it names the version.
        lines: what a file behind a URL is read by; else it has lines of its own.
        cache: keeps on the disk what is read of such a file.

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
        whole_rows: bool = True,
        digest: str = "",
        lines: Lines | None = None,
        cache: BlockCache | None = None,
    ):
        self._whole_rows = whole_rows
        self.path, self.columns = path, {c.name: c for c in columns}
        self._stored = {**self.columns, **{c.end.name: c.end for c in columns if c.is_ragged}}
        self._is_ragged = len(self._stored) > len(self.columns)
        self._bounds: dict[str, np.ndarray] = {}
        self._hdf5: h5py.File | None = None
        self._opening = threading.RLock()
        self._file: LocalFile | RemoteFile
        self._checked: dict[str, h5py.h5d.DatasetID] = {}
        try:
            if "://" in str(path):
                tail = self._small_bytes(trusted_rows or 0)
                self._file = RemoteFile(str(path), trusted_bytes, tail, digest, lines, cache)
            else:
                self._file = LocalFile(str(path), sha256 or digest)
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
            raise PartitionError(f"{path}: {self._why(error)}") from error

    def _small_bytes(self, rows: int) -> int:
        """About how many bytes the small columns take at a file's end, with what HDF5 writes between them."""
        small = [column for column in self._stored.values() if column.row_bytes < PIXELS_FROM and not column.is_ragged]
        return min(sum(rows * column.row_bytes + _BETWEEN for column in small), _MAX_SMALL)

    def _why(self, error: BaseException) -> str:
        return _reason(self._file.failure or error)

    def _check_digest(self, wanted: str) -> None:
        known = _digests.get(str(self.path))
        if known is None or known[0] != self._file.touched:
            if len(_digests) >= _MAX_LAYOUTS:
                _digests.clear()
            known = _digests[str(self.path)] = self._file.touched, self._digest()
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
        if known is not None and known.stamp == self._file.touched:
            return known
        if len(_layouts) >= _MAX_LAYOUTS:
            _layouts.clear()
        _layouts[key] = layout = self._examined()
        return layout

    def _examined(self) -> _Layout:
        """Open the file with HDF5 and check all columns."""
        data = [(column, self._dataset(column)) for column in self._stored.values()]
        counts = {dataset.shape[0] for column, dataset in data if not column.is_ragged}
        if len(counts) > 1:
            raise PartitionError(f"{self.path}: columns have {sorted(counts)} rows")
        offsets = np.array([_offset(dataset, column) for column, dataset in data], np.int64)
        lengths = np.array([dataset.shape[0] for _, dataset in data], np.int64)
        return _Layout(self._file.touched, counts.pop() if counts else 0, offsets, lengths)

    def _dataset(self, column: Column) -> h5py.h5d.DatasetID:
        """A column as HDF5 sees it; examined once, since a compressed one is asked for at every read."""
        if column.name not in self._checked:
            self._checked[column.name] = self._checked_dataset(column)
        return self._checked[column.name]

    def _opened_hdf5(self) -> h5py.File:
        with self._opening:
            if self._hdf5 is None:
                check_superblock(self._file.bytes, self._file.size)
                self._hdf5 = self._file.hdf5()
            return self._hdf5

    def stored(self, name: str) -> Column | None:
        """A dataset as a column, None where there is none of this name; PartitionError where it cannot be a column."""
        where = f"{self.path}: column {name}"
        try:
            group, key = self._opened_hdf5().id, name.encode()
            if not group.links.exists(key):
                return None
            if group.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise PartitionError(f"{where} is a soft or external link: refused")
            data = h5py.h5o.open(group, key)
            if not isinstance(data, h5py.h5d.DatasetID) or not data.shape:
                raise PartitionError(f"{where} is no dataset of rows")
            return Column(name, data.dtype.str if data.dtype.kind != "b" else "bool", data.shape[1:])
        except _DAMAGE as error:
            raise PartitionError(f"{where}: {self._why(error)}") from error

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
        if column.is_ragged:
            _check_ragged(data, properties, column, where)
            return data
        wanted, shape, dtype = np.dtype(column.dtype), data.shape, data.dtype
        narrower_text = column.is_text and dtype.kind == "S" and dtype.itemsize <= wanted.itemsize
        if not (dtype == wanted or narrower_text) or len(shape) != len(column.shape) + 1 or shape[1:] != column.shape:
            raise PartitionError(f"{where} is {dtype}{shape}, not {wanted}(rows, *{column.shape})")
        if properties.get_layout() == h5py.h5d.CHUNKED:
            try:
                check_filters(properties, shape, dtype, self._whole_rows)
            except Unsound as error:
                raise PartitionError(f"{where} cannot be read: {error}") from error
        if not _is_stored(data, properties):
            raise PartitionError(f"{where} is not all there: {shape} values are declared")
        return data

    def read(self, name: str, start: int = 0, stop: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Rows ``start:stop`` of a column, shape (rows, *shape), in its own dtype; of a ragged one all values, (values,).

        ``out`` takes them where given; its rows may lie apart from each other (a layer of a stack of layers).

        Raises:
            PartitionError: the bytes are not there or do not unpack, or the file was changed since it was opened.
        """
        stop = self.rows if stop is None else stop
        if out is None:
            column = self._stored[name]
            shape = (self.size(name, start, stop),) if column.is_ragged else (max(0, stop - start), *column.shape)
            out = np.empty(shape, column.stored_dtype)
        self.read_columns({name: out}, start, stop)
        return out

    def read_columns(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        """Rows ``start:stop`` of several columns, each into its array (rows, *shape), ragged ones into (values,).

        Raises:
            PartitionError: see ``read``.
        """
        self.read_runs([(outs, start, stop)])

    def read_runs(self, runs: Sequence[tuple[Mapping[str, np.ndarray], int, int]]) -> None:
        """Several runs of rows, (outs, start, stop) as ``read_columns`` takes them: from a server in concurrent requests.

        Raises:
            PartitionError: see ``read``.
        """
        parts = []
        for outs, start, stop in runs:
            self._check_rows(start, stop)
            if self._is_ragged:
                stretches = [
                    self._stretch(name, out, start, stop) for name, out in outs.items() if self._stored[name].is_ragged
                ]
                parts += [(offset, out) for offset, out in stretches if out.size]
                outs = {name: out for name, out in outs.items() if not self._stored[name].is_ragged}
            for name, out in outs.items():
                if out.shape != (stop - start, *self._stored[name].shape):
                    raise ValueError(f"an array of shape {out.shape} cannot take {stop - start} rows of {name}")
            try:
                parts += self._flat_parts(outs, start, stop)
            except (*_DAMAGE, EOFError) as error:
                raise self._unreadable(error, outs, start, stop) from error
        try:
            if parts:
                self._file.read(parts)
        except (*_DAMAGE, EOFError) as error:
            outs, start, stop = runs[0][0], min(run[1] for run in runs), max(run[2] for run in runs)
            raise self._unreadable(error, outs, start, stop) from error

    def _flat_parts(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> list[tuple[int, np.ndarray]]:
        """(offset in the file, array) of the columns that are there in one piece; the others are filled."""
        parts = []
        for name, out in outs.items():
            column = self._stored[name]
            if self._offsets[name] >= 0 and _rows_are_flat(out, column):
                parts.append((self._offsets[name] + start * column.row_bytes, out))
            elif stop > start:
                self._unpack(column, out, start, stop)
        return parts

    def _unreadable(self, error: BaseException, outs: Mapping, start: int, stop: int) -> PartitionError:
        names = f"column {next(iter(outs))}" if len(outs) == 1 else f"{len(outs)} columns"
        return PartitionError(f"{self.path}: {names}, rows {start} to {stop}: {self._why(error)}")

    @property
    def stamp(self) -> tuple:
        """Of the file: another one once somebody has written to it."""
        return self._file.stamp

    def _stretch(self, name: str, out: np.ndarray, start: int, stop: int) -> tuple[int, np.ndarray]:
        """Where the values of some rows begin in the file, and what takes them."""
        bounds, dtype = self.ends(name, start, stop), self._stored[name].stored_dtype
        if out.shape != (bounds[-1] - bounds[0],) or out.dtype != dtype:
            raise ValueError(f"{out.dtype}{out.shape} cannot take {bounds[-1] - bounds[0]} values of {name}")
        return self._offsets[name] + int(bounds[0]) * dtype.itemsize, out

    def _check_rows(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.rows:
            raise PartitionError(f"{self.path}: has {self.rows} rows, {start} to {stop} were asked for")

    def ends(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Where rows ``start:stop`` of a ragged column lie among all of its values, int64 (rows + 1,).

        Raises:
            PartitionError: they do not lie one after the other, one has more than ``MAX_VALUE_BYTES``, or its values do not
                make its shape.
        """
        stop = self.rows if stop is None else stop
        self._check_rows(start, stop)
        bounds, where = self._raw_bounds(name, start, stop), f"{self.path}: column {name}, rows {start} to {stop}"
        if bounds[0] < 0 or bounds[-1] > self._lengths[name] or (bounds[1:] < bounds[:-1]).any():
            raise PartitionError(f"{where}: do not lie one after the other in {self._lengths[name]} values")
        column, lengths = self.columns[name], np.diff(bounds)
        if (largest := int(lengths.max(initial=0)) * column.stored_dtype.itemsize) > MAX_VALUE_BYTES:
            raise PartitionError(f"{where}: one has {largest} bytes, more than {MAX_VALUE_BYTES}")
        if (step := column.step_bytes // column.stored_dtype.itemsize) > 1 and (lengths % step).any():
            raise PartitionError(
                f"{where}: a row of {column.shape} cannot have {int(lengths[lengths % step > 0][0])} values"
            )
        return bounds

    def size(self, name: str, start: int, stop: int) -> int:
        """How many values rows ``start:stop`` of a ragged column have: of bytes, bytes.

        Raises:
            PartitionError: see ``ends``; or there are too many to be read at a time.
        """
        bounds = self.ends(name, start, stop)
        count = int(bounds[-1] - bounds[0])
        if (size := count * self.columns[name].stored_dtype.itemsize) > MAX_READ_BYTES:
            raise PartitionError(
                f"{self.path}: column {name}, rows {start} to {stop}: {size} bytes, more than {MAX_READ_BYTES} at a time"
            )
        return count

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
        """Rows of a column that is not stored in one piece."""
        data = self._dataset(column)
        if data.get_create_plist().get_layout() != h5py.h5d.CHUNKED:
            out[...] = h5py.Dataset(data)[start:stop]
            return
        rows = data.get_create_plist().get_chunk()[0]
        firsts, chunks = range(start // rows * rows, stop, rows), Chunks(data)
        with self._file.holding(chunk_places(data, firsts) if isinstance(self._file, RemoteFile) else ()):
            for first in firsts:
                low, high = max(first, start), min(first + rows, stop)
                chunks.rows(low, out[low - start : high - start], self._file.bytes)

    def attributes(self) -> dict:
        """The file's own attributes; PartitionError where they cannot be read."""
        try:
            return dict(self._opened_hdf5().attrs)
        except _DAMAGE as error:
            raise PartitionError(f"{self.path}: {self._why(error)}") from error

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
            raise PartitionError(f"{self.path}: {self._why(error)}") from error
        return found

    def sources(self) -> list[int]:
        """The digest of what each row was made of, 0 where that is unknown; PartitionError where it cannot be read."""
        try:
            known = row_sources(self.attributes())
        except _DAMAGE as error:
            raise PartitionError(f"{self.path}: {self._why(error)}") from error
        return known if len(known) == self.rows else [0] * self.rows

    def text(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        """Rows of a text column as Python strings."""
        return decoded(self.read(name, start, stop))

    def record(self, row: int) -> dict[str, np.ndarray | bytes]:
        """One row with all its columns, as ``PartitionWriter.append`` takes it."""
        return {name: one_row(self.read(name, row, row + 1), column) for name, column in self.columns.items()}

    def close(self) -> None:
        self._checked.clear()
        if self._hdf5 is not None:
            self._hdf5.close()
        self._file.close()

    def __enter__(self) -> Partition:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def one_row(values: np.ndarray, column: Column) -> np.ndarray | bytes:
    """One row of what ``Partition.read`` gave."""
    if column.is_bytes:
        return values.tobytes()
    return values.reshape(column.shape) if column.is_ragged else values[0]


def decoded(values: np.ndarray) -> list:
    """A text column's bytes as Python strings: a list of them, or of lists where rows are arrays of text."""
    if values.ndim > 1:
        nested = decoded(values.reshape(-1)) if values.size else values.tolist()
        for size in values.shape[:0:-1] if values.size else ():
            nested = [nested[first : first + size] for first in range(0, len(nested), size)]
        return nested
    if len(values) >= _MANY_TEXTS and len(starts := run_starts(values)) * 4 < len(values):
        counts = np.diff(np.append(starts, len(values))).tolist()
        texts: list[str] = []
        for value, count in zip(values[starts].tolist(), counts, strict=True):
            texts += [value.decode("ascii", "replace")] * count
        return texts
    return [value.decode("ascii", "replace") for value in values.tolist()]


def run_starts(values: np.ndarray) -> np.ndarray:
    """Where each run of equal texts begins, such as the points of a light curve in one band: int64, of no texts 0."""
    if values.dtype.itemsize in (1, 2, 4, 8):
        values = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")  # texts are compared forty times slower
    return np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)


def bounds_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where rows of these lengths begin and end, one after the other from 0 on: int64 (rows + 1,)."""
    bounds = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.asarray(lengths, np.int64), out=bounds[1:])
    return bounds


def _offset(data: h5py.h5d.DatasetID, column: Column) -> int:
    """Where a dataset lies in the file if it is in one piece and in the column's dtype, else -1."""
    offset = data.get_offset() if data.dtype == column.stored_dtype else None  # None where it is in chunks
    return -1 if offset is None else offset


def _check_ragged(data: h5py.h5d.DatasetID, properties: h5py.h5p.PropDCID, column: Column, where: str) -> None:
    """Raise PartitionError unless a dataset is of one axis, all there, and in one piece as the writer leaves it."""
    if data.dtype != column.stored_dtype or len(data.shape) != 1:
        wanted = "bytes: uint8(bytes,)" if column.is_bytes else f"{column.stored_dtype}(values,)"
        raise PartitionError(f"{where} is {data.dtype}{data.shape}, not {wanted}")
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


def row_sources(attributes: Mapping) -> list[int]:
    """The digest of what each row of a partition was made of, 0 where that is unknown; empty where none is known.

    Args:
        attributes: the file's.
    """
    sources: list[int] = []
    while (some := attributes.get(f"sources_{len(sources)}")) is not None and np.size(some):
        sources += [int(source) for source in np.ravel(some)]
    return sources
