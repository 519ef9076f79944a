"""Pieces of partitions as columns of features: each slab is one block of memory of its own that is read into once.

Small columns beside the pixels are parts of longer runs, see ``runs.py``.
"""

from __future__ import annotations

import atexit
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from weakref import WeakSet

import numpy as np

from skyset import remote
from skyset.block_cache import BlockCache
from skyset.cached_file import CachedStream
from skyset.errors import UserError
from skyset.loading.arrow import needed_columns
from skyset.loading.encoded import Bytes, ImageRows
from skyset.loading.far import MAX_OPEN, Far
from skyset.loading.memory import carve, reused
from skyset.loading.ragged import Ragged, trim
from skyset.loading.runs import Runs
from skyset.partitions.layout import PIXELS_FROM, load_filters, slab_starts, slabs
from skyset.partitions.manifest import FileEntry
from skyset.partitions.partition import Partition, bounds_of, decoded
from skyset.ranges import Lines
from skyset.secrets import login_of, remember
from skyset.survey import Column, Feature, Layers, Survey

#: What is read at a time, and handed to a worker or a node at a time: a part of one file.
PIECE_BYTES = 8 << 20
#: Of one file, from which on its size is looked at first; of all files.
_MANY_PIECES, MAX_PIECES = 10_000, 1 << 23
#: From so many on a row is a copy of one that was made before.
_MANY_COLUMNS = 16
#: A stream that a program leaves open is closed before Python takes apart what closing needs.
_readers: WeakSet[PieceReader] = WeakSet()


@atexit.register
def _close_readers() -> None:
    for reader in list(_readers):
        reader.close()


@dataclass(frozen=True)
class Piece:
    """Rows ``start:stop`` of one partition of ``rows`` rows and ``bytes`` bytes; ``path`` is absolute or a URL.

    ``sha256`` is what the file's checksum must be; None where that is not looked at. ``digest`` is what the manifest says it
    is: it names the version of a file that lies afar.
    """

    path: str
    start: int
    stop: int
    rows: int
    bytes: int | None = None
    sha256: str | None = None
    digest: str = ""

    def __len__(self) -> int:
        return self.stop - self.start

    def __reduce__(self):
        """A worker process that opens the piece's file from afar needs the login."""
        login = login_of(self.path) if is_remote(self) else None
        return _piece, (login, self.path, self.start, self.stop, self.rows, self.bytes, self.sha256, self.digest)


def _piece(login: tuple[str, str] | None, path: str, *rest) -> Piece:
    if login:
        remember(path, login)
    return Piece(path, *rest)


def cut(
    root: str, files: Sequence[FileEntry], columns: Sequence[Column], piece_bytes: int = PIECE_BYTES, verify: bool = False
) -> list[Piece]:
    """All rows of the files, in the manifest's order, in pieces of at most ``piece_bytes`` (at least one row).

    Of ragged columns that is about as many: how long their rows are follows from the file's size.
    With ``verify`` the files' checksums are looked at as they are first read.

    Raises:
        UserError: there would be more pieces than can be, or a local file that would have many is of another size.
    """
    base, sizes = root.rstrip("/"), [row_bytes(columns, [])] * len(files)
    if any(column.is_ragged for column in columns):  # those of thousands of files, in one sum
        known, mean = sum(column.row_bytes for column in columns if not column.is_ragged), sizes[:1]
        sizes = [known + entry.bytes // entry.rows if entry.bytes else mean[0] for entry in files]
    counts = [len(slab_starts(entry.rows, size, slab_bytes=piece_bytes)) for entry, size in zip(files, sizes, strict=True)]
    for entry, count in zip(files, counts, strict=True):
        if count > _MANY_PIECES and "://" not in base:
            _check_size(f"{base}/{entry.path}", entry)
    if sum(counts) > MAX_PIECES:
        raise UserError(f"{root}: {sum(entry.rows for entry in files)} rows would be read in {sum(counts)} pieces: too many")
    return [
        Piece(f"{base}/{entry.path}", start, stop, entry.rows, entry.bytes, (verify and entry.sha256) or None, entry.sha256)
        for entry, size in zip(files, sizes, strict=True)
        for start, stop in slabs(entry.rows, size, slab_bytes=piece_bytes)
    ]


def _check_size(path: str, entry: FileEntry) -> None:
    """UserError where a file's size is not the manifest's: before lists are made that are as long as that says."""
    try:
        size = os.path.getsize(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if size != entry.bytes:
        raise UserError(f"{path}: {size} bytes, the manifest says {entry.bytes}")


def row_bytes(columns: Sequence[Column], files: Sequence[FileEntry | Piece]) -> int:
    """Bytes of one row of some columns; with bytes of any length among them, a mean that follows from the files' size."""
    known = sum(column.row_bytes for column in columns if not column.is_ragged)
    if not any(column.is_ragged for column in columns):
        return known
    means = [file.bytes // file.rows for file in files if file.bytes]
    return known + (sum(means) // len(means) if means else sum(c.row_bytes for c in columns if c.is_ragged))


class PieceReader:
    """Reads pieces as columns of features, keeping the last files open.

    Args:
        survey: the declaration.
        names: the features that are wanted; no other column is read.
        image_size: side of the centre crop in pixels, None for all of them.
        new_block: makes the memory that all columns of a slab are read into, uint8 (bytes,). Without it small columns may
            lie elsewhere.
        cache: keeps on the disk what is read from afar.
    """

    def __init__(
        self,
        survey: Survey,
        names: Iterable[str],
        image_size: int | None = None,
        new_block: Callable[[int], np.ndarray] | None = None,
        cache: BlockCache | None = None,
    ):
        load_filters()
        names = set(names)
        self._cache = cache
        self.survey, self.image_size, self._new_block = survey, image_size, new_block or reused
        self._wanted = {f.name: f for f in survey.features if f.name in names}
        self._columns = needed_columns(survey, names)
        self._row_bytes = sum(column.row_bytes for column in self._columns)
        self._by_name = {column.name: column for column in self._columns}
        self._ragged = [column.name for column in self._columns if column.is_ragged]
        self.long_columns = [column.name for column in self._columns if column.is_ragged or column.row_bytes >= PIXELS_FROM]
        self._planned = self._shapes()
        layers = {name for name, (_, layer) in self._planned[1].items() if layer is not None}
        in_runs = [] if getattr(survey.opens, "one_by_one", False) else [c for c in self._columns if c.name not in layers]
        self._runs, self._in_one_block = Runs(in_runs), new_block is not None
        self._as_they_are = {
            name: f.source for name, f in self._wanted.items() if isinstance(f, Feature) and self._is_as_read(f)
        }
        self._open: OrderedDict[str, Partition] = OrderedDict()
        self._far_away: Far | None = None
        _readers.add(self)

    def __enter__(self) -> PieceReader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; what is read again opens them again."""
        self._runs.forget()
        try:
            if self._far_away is not None:
                self._far_away.close()
        finally:
            self._far_away = None  # not sooner: a thread that is under way would begin anew, with lines that nobody closes
        while self._open:
            self._open.popitem()[1].close()

    @property
    def _far(self) -> Far:
        if self._far_away is None:
            self._far_away = Far()
        return self._far_away

    def _partition(self, piece: Piece) -> Partition:
        if is_remote(piece):
            return self._far.opened(piece.path, lambda lines: self._opened_far(piece, lines))
        partition = self._open.get(piece.path)
        if partition is None:
            if len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            opens = self.survey.opens or Partition
            partition = self._open[piece.path] = opens(piece.path, self._columns, piece.rows, piece.bytes, piece.sha256)
        self._open.move_to_end(piece.path)
        return partition

    def _opened_far(self, piece: Piece, lines: Lines) -> Partition:
        if self.survey.opens is None:
            lines.warm(piece.path, min(len(self.long_columns), lines.count // 2))
        return opened_far(self.survey, piece, self._columns, lines, self._cache)

    def read(self, pieces: Sequence[Piece]) -> dict:
        """Columns of all rows of ``pieces``: arrays (rows, ...), lists of str, ``Bytes``, dicts of these for layers.

        All arrays are parts of one block of memory, or of a run of small columns; nothing else uses these parts.

        Raises:
            PartitionError: a file is gone, cut short, or not what the manifest says.
        """
        pieces = joined(pieces)
        rows = sum(map(len, pieces))
        # A file refuses rows that it does not have before memory is taken for many. Not before a usual slab: that takes what
        # the last one gave back, unless files opened in between have split it.
        for piece in pieces if rows * self._row_bytes > 4 * PIECE_BYTES else ():
            self._partition(piece)
        bounds = self._bounds(pieces)
        one = len(pieces) == 1 and not self._in_one_block
        held = self._held(pieces[0]) if one else {}
        raw, stacks = self._allocate(rows, bounds, held)
        self._fill(raw, bounds, pieces)
        raw |= held
        origins = [(len(piece), piece.path, piece.start) for piece in pieces] if bounds else ()
        return self._assembled(self._with_bounds(raw, bounds, origins), stacks, rows)

    def _held(self, piece: Piece) -> dict[str, np.ndarray]:
        """Those of a piece's small columns that are in a run."""
        if is_remote(piece):
            return {}
        return self._runs.take(lambda: self._partition(piece), piece.path, piece.start, piece.stop)

    def _bounds(self, pieces: Sequence[Piece]) -> dict[str, np.ndarray]:
        """Where the values of each row come to lie if they are read one after the other, by ragged column."""
        lengths = {name: [np.diff(self._ends(name, piece)) for piece in pieces] for name in self._ragged}
        return {name: bounds_of(np.concatenate(parts)) for name, parts in lengths.items()}

    def _ends(self, name: str, piece: Piece) -> np.ndarray:
        partition = self._partition(piece)
        partition.size(name, piece.start, piece.stop)  # refuses too many, before memory is taken for them
        return partition.ends(name, piece.start, piece.stop)

    def _fill(self, raw: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray], pieces: Sequence[Piece]) -> None:
        if len(pieces) == 1 and raw:
            self._read_columns(pieces[0], raw)
            return
        row, jobs = 0, []
        for piece in pieces:
            end = row + len(piece)
            outs = {name: array[row:end] for name, array in raw.items()}
            outs |= {name: raw[name][b[row] : b[end]] for name, b in bounds.items() if name in raw}
            jobs.append((piece, outs))
            row = end
        self._at_once(self._read_columns, jobs)

    def _read_columns(self, piece: Piece, outs: Mapping[str, np.ndarray]) -> None:
        self._partition(piece).read_columns(outs, piece.start, piece.stop)

    def _at_once(self, function: Callable[..., object], jobs: Sequence[tuple]) -> None:
        """Call ``function(piece, ...)`` for each job; what lies afar at the same time."""
        if len(jobs) < 2 or not is_remote(jobs[0][0]):
            for job in jobs:
                function(*job)
            return
        futures = [self._far.pieces.submit(function, *job) for job in jobs]
        wait(futures)  # all of them: none writes into the memory after that
        for future in futures:
            future.result()

    def open(self, piece: Piece) -> None:
        """Look at the file of a piece; PartitionError where that cannot be read."""
        self._partition(piece)

    def fetch(self, piece: Piece) -> Future[Window]:
        """The rows of a piece that lies afar, on their way."""
        return self._far.pieces.submit(self.window, [piece])

    def fetch_window(self, pieces: Sequence[Piece]) -> Future[Window]:
        """Those of several, which are fetched at the same time."""
        return self._far.windows.submit(self.window, pieces)

    def gathered(self, parts: Sequence[tuple[Window, int, int]]) -> dict:
        """Columns of the rows ``start:stop`` of each of some windows that hold all columns; see ``read``."""
        bounds = {
            name: bounds_of(np.concatenate([np.diff(each.bounds[name][start : stop + 1]) for each, start, stop in parts]))
            for name in self._ragged
        }
        rows = sum(stop - start for _, start, stop in parts)
        raw, stacks = self._allocate(rows, bounds)
        row = 0
        for window, start, stop in parts:
            end = row + stop - start
            for name, values in window.held.items():
                if isinstance(values, Ragged):
                    those = values.data[values.bounds[start] : values.bounds[stop]]
                    raw[name][bounds[name][row] : bounds[name][end]] = those
                else:
                    raw[name][row:end] = values[start:stop]
            row = end
        return self._made_of(parts, raw, stacks, bounds)

    def _made_of(self, parts: Sequence[tuple[Window, int, int]], raw: dict, stacks: Mapping, bounds: Mapping) -> dict:
        """Columns of features of what was read."""
        origins = [origin for part in parts if bounds for origin in part[0].origins(*part[1:])]
        return self._assembled(
            self._with_bounds(raw, bounds, origins), stacks, sum(stop - start for _, start, stop in parts)
        )

    def window(self, pieces: Sequence[Piece]) -> Window:
        """The rows of these pieces, to be read in any order."""
        far = is_remote(pieces[0])
        if far and self._ragged:
            self._at_once(lambda piece: [self._ends(name, piece) for name in self._ragged], [(piece,) for piece in pieces])
        # From afar, and in groups of rows, a row costs as much as a piece: then all is held.
        whole, bounds = far or getattr(self.survey.opens, "in_groups", False), self._bounds(pieces)
        held = [c for c in self._columns if whole or (c.row_bytes < PIXELS_FROM and not c.is_ragged)]
        rows = sum(map(len, pieces))
        raw = {c.name: np.empty((bounds[c.name][-1],) if c.is_ragged else (rows, *c.shape), c.stored_dtype) for c in held}
        self._fill(raw, bounds, pieces)
        return Window(pieces, self._with_bounds(raw, bounds), bounds)

    def _from_window(self, window: Window, rows: np.ndarray) -> tuple[dict, Mapping, dict, dict]:
        """Memory for some rows, filled with what the window holds: all, stacks, bounds of ragged ones, what is unread."""
        bounds = {name: bounds_of(np.diff(whole)[rows]) for name, whole in window.bounds.items()}
        raw, stacks = self._allocate(len(rows), bounds)
        for name, values in window.held.items():
            if isinstance(values, Ragged):
                for place, row in enumerate(rows.tolist()):
                    raw[name][bounds[name][place] : bounds[name][place + 1]] = values.raw(row)
            else:
                raw[name][...] = values[rows]
        return raw, stacks, bounds, {name: array for name, array in raw.items() if name not in window.held}

    def read_rows(self, window: Window, rows: np.ndarray) -> dict:
        """Columns of some rows of a window, in the order of their numbers ``rows``; see ``read``."""
        raw, stacks, bounds, apart = self._from_window(window, rows)
        for place, (piece, row) in enumerate(window.places(rows) if apart else ()):
            outs = {name: array[place : place + 1] for name, array in apart.items()}
            outs |= {name: apart[name][b[place] : b[place + 1]] for name, b in bounds.items() if name in apart}
            self._partition(piece).read_columns(outs, row, row + 1)
        origins = [(1, piece.path, row) for piece, row in window.places(rows)] if bounds else ()
        return self._assembled(self._with_bounds(raw, bounds, origins), stacks, len(rows))

    def _with_bounds(self, raw: Mapping, bounds: Mapping[str, np.ndarray], origins: Sequence = ()) -> dict:
        """Arrays by column, those of ragged ones as their rows."""
        return {
            **raw,
            **{name: self._rows_of(name, raw[name], ends, origins) for name, ends in bounds.items() if name in raw},
        }

    def _rows_of(self, name: str, values: np.ndarray, ends: np.ndarray, origins: Sequence = ()) -> Ragged:
        column = self._by_name[name]
        return Bytes(values, ends, origins) if column.is_bytes else Ragged(values, ends, origins, column.shape)

    def _assembled(self, raw: dict, stacks: Mapping, rows: int) -> dict:
        trim(raw, self.survey.trims)
        as_they_are = self._as_they_are
        return {
            name: raw[as_they_are[name]] if name in as_they_are else self._assemble(feature, raw, stacks, rows)
            for name, feature in self._wanted.items()
        }

    def _is_as_read(self, feature: Feature) -> bool:
        """Whether a feature is its column's array, neither text nor ragged nor cropped."""
        column = self._by_name[feature.source]
        cropped = self.image_size is not None and self.survey.image_axes.get(feature.name) is not None
        return not (column.is_text or column.is_ragged or cropped)

    def _allocate(
        self, rows: int, bounds: Mapping[str, np.ndarray], held: Collection[str] = ()
    ) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray]]:
        """One array a column that is not held; the layers of a group are views of one array (rows, layers, ...): no copy
        to stack them.
        """
        shapes, layers = self._planned
        if held:
            shapes = {key: shape for key, shape in shapes.items() if key not in held}
            layers = {name: place for name, place in layers.items() if name not in held}
        flat = {name: (self._by_name[name].stored_dtype, (int(ends[-1]),)) for name, ends in bounds.items()}
        arrays = carve(self._new_block, {key: (dtype, (rows, *shape)) for key, (dtype, shape) in shapes.items()} | flat)
        raw = {name: arrays[key] if place is None else arrays[key][:, place] for name, (key, place) in layers.items()}
        return raw, {key: array for key, array in arrays.items() if isinstance(key, tuple)}

    def _shapes(self) -> tuple[dict, dict]:
        """(dtype, shape of a row) of each array to allocate, and for each column on disk (array, layer or None)."""
        shapes: dict[str | tuple[str, str], tuple[np.dtype, tuple[int, ...]]] = {}
        places: dict[str, tuple[str | tuple[str, str], int | None]] = {}
        for feature in self._wanted.values():
            for key, source in feature.fields.items() if isinstance(feature, Layers) else ():
                if not isinstance(source, str):
                    column = self._by_name[source[0]]
                    shapes[feature.name, key] = column.stored_dtype, (len(source), *column.shape)
                    places.update({name: ((feature.name, key), layer) for layer, name in enumerate(source)})
        for column in self._columns:
            if column.name not in places:
                shapes[column.name] = column.stored_dtype, column.shape
                places[column.name] = column.name, None
        return shapes, places

    def _assemble(self, feature: Feature | Layers, raw: Mapping, stacks: Mapping, rows: int):
        if not isinstance(feature, Layers):
            values = raw[feature.source]
            if isinstance(values, Bytes) and feature.encoded:
                return ImageRows(values.data, values.bounds, values.origins)
            if isinstance(values, Bytes) and feature.text:
                return values.texts()
            return self._finish(values, feature.name)
        group: dict = {feature.label_field: [list(feature.labels) for _ in range(rows)]} if feature.labels else {}
        for key, source in feature.fields.items():
            values = raw[source] if isinstance(source, str) else stacks[feature.name, key]
            group[key] = self._finish(values, f"{feature.name}.{key}")
        return group

    def _finish(self, values: np.ndarray | Ragged, name: str):
        if isinstance(values, Ragged):
            return values
        if values.dtype.kind == "S":
            return decoded(values)
        axis = self.survey.image_axes.get(name)
        if axis is None or self.image_size is None:
            return values
        return centre_crop(values, axis + 1, self.image_size)


def is_remote(piece: Piece) -> bool:
    return "://" in piece.path


def opened_far(
    survey: Survey, piece: Piece, columns: Sequence[Column], lines: Lines, cache: BlockCache | None = None
) -> Partition:
    """The file of a piece behind a URL, for these columns of the survey.

    Raises:
        PartitionError: it is not what the manifest says.
    """
    known = piece.path, columns, piece.rows, piece.bytes, piece.sha256
    if survey.opens is None:
        return Partition(*known, digest=piece.digest, lines=lines, cache=cache)
    if cache is None or piece.bytes is None or not piece.digest:
        return survey.opens(*known)
    size, kept = piece.bytes, cache

    def stream() -> CachedStream:
        key = kept.key(piece.path, piece.digest)
        return CachedStream(remote.found(piece.path, kept.version(key)), kept, key, size, piece.digest, lines)

    return survey.opens(*known, stream=stream)


class Window:
    """Rows of several pieces. Small columns are held in memory, pixels are read row by row when they are wanted.

    ``bounds`` has where the values of each ragged row would lie if all were read, by column.
    """

    def __init__(self, pieces: Sequence[Piece], held: dict[str, np.ndarray | Ragged], bounds: dict[str, np.ndarray]):
        self.held, self.bounds, self._pieces = held, bounds, pieces
        self._ends = np.cumsum([len(piece) for piece in pieces])

    def places(self, rows: np.ndarray) -> Iterator[tuple[Piece, int]]:
        """(piece, row in its file) of each row's number."""
        for row, number in zip(rows.tolist(), np.searchsorted(self._ends, rows, side="right").tolist(), strict=True):
            piece = self._pieces[number]
            yield piece, piece.stop - int(self._ends[number]) + row

    def origins(self, start: int, stop: int) -> Iterator[tuple[int, str, int]]:
        """(rows, file, the first one's number in it) of the rows ``start:stop``."""
        for piece, end in zip(self._pieces, self._ends.tolist(), strict=True):
            low, high = max(start, end - len(piece)), min(stop, end)
            if low < high:
                yield high - low, piece.path, piece.stop - end + low


def joined(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Pieces of one file that follow each other as one: each column of theirs is one read."""
    if len(pieces) < 2:
        return pieces
    whole = [pieces[0]]
    for piece in pieces[1:]:
        if piece.path == whole[-1].path and piece.start == whole[-1].stop:
            whole[-1] = replace(whole[-1], stop=piece.stop)
        else:
            whole.append(piece)
    return whole


def centre_crop(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The middle ``size`` pixels of ``axis`` and the next one, as a view."""
    first = [(values.shape[a] - size) // 2 for a in (axis, axis + 1)]
    window = [slice(None)] * axis + [slice(start, start + size) for start in first]
    return values[tuple(window)]


def rows_of(columns: Mapping) -> Iterator[dict]:
    """The rows of columns; arrays give views, and numbers as the column's sequence holds them."""
    # The first question is for speed: there may be a hundred arrays, and the second one takes a microsecond each.
    parts = [
        rows_of(values) if type(values) is not np.ndarray and isinstance(values, Mapping) else values
        for values in columns.values()
    ]
    names = tuple(columns)
    if len(names) < _MANY_COLUMNS:
        for row in zip(*parts, strict=True):
            yield dict(zip(names, row, strict=True))
        return
    blank = dict.fromkeys(names)  # a copy has its full size at once, where a new dict grows six times
    for row in zip(*parts, strict=True):
        filled = blank.copy()
        filled.update(zip(names, row, strict=True))
        yield filled


def python_numbers(columns: Mapping) -> dict:
    """Columns whose numbers are Python's; arrays of more than one number per row stay arrays."""
    return {
        name: (values.tolist() if values.ndim == 1 else values)
        if isinstance(values, np.ndarray)
        else python_numbers(values)
        if isinstance(values, Mapping)
        else values
        for name, values in columns.items()
    }


def join(parts: Sequence[Mapping]) -> dict:
    """Columns of several slabs one after the other."""
    if len(parts) == 1:
        return dict(parts[0])
    first = parts[0]
    return {
        name: np.concatenate([part[name] for part in parts])
        if isinstance(values, np.ndarray)
        else join([part[name] for part in parts])
        if isinstance(values, Mapping)
        else values.joined([part[name] for part in parts])
        if isinstance(values, Ragged)
        else [value for part in parts for value in part[name]]
        for name, values in first.items()
    }
