"""The rows of some partitions, one slab after the other: what streams, workers and tables read."""

from __future__ import annotations

import copy
import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.iterable_dataset import _BaseExamplesIterable

from skyset.block_cache import BlockCache
from skyset.errors import PartitionError
from skyset.files import short_digest
from skyset.loading.ahead import FIRST_BYTES, LONG, Ahead, NextWindow
from skyset.loading.arrow import arrow_table, features_of, needed_columns
from skyset.loading.casts import cast_values, is_picture
from skyset.loading.encoded import ImageRows
from skyset.loading.formatting import Group
from skyset.loading.ragged import Ragged
from skyset.loading.reader import (
    PIECE_BYTES,
    Piece,
    PieceReader,
    Window,
    is_remote,
    join,
    python_numbers,
    row_bytes,
    rows_of,
)
from skyset.pixels import ARRAY, PIL_IMAGE, UNDECODED
from skyset.survey import Survey

#: Of rows that a shuffled stream mixes at a time. Those of local files do not take that memory.
BUFFER_BYTES = 256 << 20


class PartitionRows(_BaseExamplesIterable):
    """Rows of partitions, as `datasets` iterates them. A shard is one piece.

    Args:
        survey, image_size: see ``PieceReader``.
        pieces: what to read, in this order.
        names: features wanted, in the order they are handed out; a mapping gives them other names.
        mode: ``"python"`` (numbers are Python's), ``"numpy"`` (numbers keep their dtype), ``"torch"`` (tensors) or
            ``"arrow"`` (tables).
        images: ``datasets.Image`` features that differ from the survey's, by its names: undecoded, or of another mode.
        casts: other features that differ from the survey's, by its names.
        plain: there is no tensor format.
        pil: encoded images are handed out as ``PIL.Image`` where ``plain``, else as arrays.
        seed: shuffle pieces, and rows within windows of pieces, reproducibly; None keeps the order.
        window_bytes: what one window holds.
        cache: keeps on the disk what is read from a server.
        skip_bad: go on without the rows of partitions that cannot be read, and without those whose images cannot be decoded
            in the other modes, counting them in ``bad`` (rows by message).
    """

    _sleep_on_threads_shutdown = False
    _state_dict: dict[str, Any]

    def __init__(self, survey: Survey, pieces: list[Piece], names: Iterable[str], image_size: int | None = None):
        super().__init__()
        self.survey, self.pieces, self.image_size = survey, pieces, image_size
        self.mode, self.plain, self.pil = "python", True, False
        self.images: dict[str, datasets.Image] = {}
        self.casts: dict = {}
        self.seed: tuple[int, ...] | None = None
        self.seed_was_drawn = False
        self.skip_bad = False
        self.bad: dict[str, int] = {}
        self.window_bytes = BUFFER_BYTES
        self.cache: BlockCache | None = None
        self._set_names(names if isinstance(names, Mapping) else {name: name for name in names})

    def _set_names(self, names: Mapping[str, str]) -> None:
        """``names``: the survey's features by the names they are handed out under."""
        every = features_of(self.survey, self.image_size) | self.images | self.casts
        self._names = names
        self._features = datasets.Features({name: every[source] for name, source in names.items()})
        self.has_images = any(isinstance(feature, datasets.Image) for feature in self._features.values())
        self._row_bytes = row_bytes(needed_columns(self.survey, list(names.values())), self.pieces) or 1

    def with_changes(self, **changes) -> PartitionRows:
        twin = copy.copy(self)
        for name, value in changes.items():
            setattr(twin, name, value)
        return twin

    def select(self, names: Sequence[str]) -> PartitionRows:
        """Read and hand out these features only."""
        return self._named({name: self._names[name] for name in names})

    def rename(self, names: Mapping[str, str]) -> PartitionRows:
        """Hand out features under other names."""
        return self._named({names.get(name, name): source for name, source in self._names.items()})

    def _named(self, names: Mapping[str, str]) -> PartitionRows:
        twin = copy.copy(self)
        twin._set_names(names)
        return twin

    def cast(self, features: Mapping) -> PartitionRows:
        """Hand out values as these features say; encoded images by ``datasets.Image(decode=False)``, or as ``PIL.Image``."""
        images = {
            source: features[name]
            for name, source in self._names.items()
            if isinstance(self._features[name], datasets.Image)
            and isinstance(features.get(name), datasets.Image)
            and self._features[name] != features[name]
        }
        casts = {
            source: features[name]
            for name, source in self._names.items()
            if (source not in images or source in self.casts) and self._features[name] != features[name]
        }
        pil = self.pil or any(map(is_picture, (images | casts).values()))
        names = {name: self._names[name] for name in features}
        return self.with_changes(images=self.images | images, casts=self.casts | casts, pil=pil)._named(names)

    def between(self, start: int, stop: int | None) -> PartitionRows:
        """Rows ``start:stop`` of these, in the order they are in."""
        pieces, first = [], 0
        for piece in self.pieces:
            rows = len(piece)
            low, high = max(start - first, 0), rows if stop is None else min(stop - first, rows)
            if low < high:
                pieces.append(replace(piece, start=piece.start + low, stop=piece.start + high))
            first += rows
        return self.with_changes(pieces=pieces)

    @property
    def is_typed(self) -> bool:
        return True

    @property
    def features(self) -> datasets.Features:
        return self._features

    @property
    def num_shards(self) -> int:
        return len(self.pieces)

    @property
    def iter_arrow(self) -> Callable | None:
        return self._iter_arrow if self.mode == "arrow" else None

    @property
    def total(self) -> int:
        """Rows of one pass."""
        return sum(map(len, self.pieces))

    def ordered(self, epoch: int, nodes: int = 1) -> PartitionRows:
        """In the order of one epoch: the same for the same seed and epoch on every worker, and each of ``nodes`` nodes."""
        if self.seed is None:
            return self.with_changes()  # an iteration keeps its own state
        seed = (*self.seed, epoch)
        order = np.random.default_rng(seed).permutation(len(self.pieces))
        return self.with_changes(pieces=[self.pieces[i] for i in order], seed=seed)

    def shuffle_data_sources(self, generator: np.random.Generator) -> PartitionRows:
        """Nothing: ``SurveyStream.shuffle`` seeds, and ``ordered`` shuffles, so that no wrapper shuffles twice."""
        return self

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> PartitionRows:
        chosen = self.split_shard_indices_by_worker(num_shards, index, contiguous=contiguous)
        return self.with_changes(pieces=[self.pieces[i] for i in chosen])

    def reshard_data_sources(self) -> PartitionRows:
        return self

    def _digest(self) -> str:
        """Of what is read in which order; not of the root, so that a state outlives a move to another disk."""
        pieces = (f"{'/'.join(p.path.rsplit('/', 2)[1:])} {p.start} {p.stop} {p.rows}" for p in self.pieces)
        order = (self.seed, self.window_bytes // self._row_bytes) if self.seed else None
        return short_digest("\n".join([str(order), *pieces]))

    def _files(self) -> str:
        """A line per file: ``healpix=7/001-of-001.hdf5, 12 rows``. As one string it costs nothing to copy with a state."""
        names = {piece.path: f"{'/'.join(piece.path.rsplit('/', 2)[1:])}, {piece.rows} rows" for piece in self.pieces}
        return "\n".join(names.values())

    def _init_state_dict(self) -> dict:
        state = {"shard_idx": 0, "shard_example_idx": 0, "pieces": self._digest(), "files": self._files()}
        self._state_dict = {**state, "type": type(self).__name__}
        return self._state_dict

    def _advance(self, rows: int) -> None:
        """Note that so many more rows were handed out. In a shuffled stream they are counted within a window."""
        state = self._state_dict
        state["shard_example_idx"] += rows
        if self.seed is None:
            while state["shard_example_idx"] > len(piece := self.pieces[state["shard_idx"]]):
                state["shard_example_idx"] -= len(piece)
                state["shard_idx"] += 1

    def _next_pieces(self, rows: int | None) -> list[Piece]:
        """The next ``rows`` rows in order; None for the rest of one piece."""
        pieces, count, skipped = [], 0, self._state_dict["shard_example_idx"]
        for number in range(self._state_dict["shard_idx"], len(self.pieces)):
            piece = self.pieces[number]
            stop = piece.stop if rows is None else min(piece.stop, piece.start + skipped + rows - count)
            if piece.start + skipped < stop:
                pieces.append(replace(piece, start=piece.start + skipped, stop=stop))
                count += len(pieces[-1])
            if count and (rows is None or count == rows):
                break
            skipped = max(0, skipped - len(piece))
        return pieces

    def _next_window(self, after: int = 0) -> list[Piece]:
        """As many pieces as a window holds, leaving out ``after`` pieces before them."""
        window: list[Piece] = []
        size = 0
        for number in range(self._state_dict["shard_idx"] + after, len(self.pieces)):
            size += len(self.pieces[number]) * self._row_bytes
            if window and size > self.window_bytes:
                break
            window.append(self.pieces[number])
        return window

    def _check_state(self) -> None:
        if self._state_dict is None:
            self._init_state_dict()
        state = self._state_dict
        if not state["shard_idx"] and not state["shard_example_idx"]:
            # Before the first row: a loader's workers save what they were given, before they have taken their share.
            state.update(pieces=self._digest(), files=self._files())
        if state["pieces"] == self._digest():
            return
        then, now = set(state["files"].splitlines()), set(self._files().splitlines())
        differences = {"new": sorted(now - then)[:5], "gone": sorted(then - now)[:5]}
        changes = [f"{word}: {'; '.join(files)}" for word, files in differences.items() if files]
        reason = ", ".join(changes) or "seed, epoch, number of workers or nodes, or buffer_bytes differ"
        raise ValueError(f"this state was saved by another stream ({reason})")

    def _slabs(self, rows: Callable[[], int | None], blocks: Callable | None = None) -> Iterator[dict]:
        """Columns of the rows to hand out next, from the state on; keeps no hold of what it yields.

        The consumer must have called ``_advance`` for all rows before the next slab.

        Args:
            rows: asked before each slab: how many rows it may hold, None for as many as are read at a time.
            blocks: makes the memory, see ``PieceReader``.
        """
        self._check_state()
        with self._reader(**({} if blocks is None else {"new_block": blocks})) as reader:
            if self.seed is None:
                yield from self._in_order(reader, rows)
            windows = NextWindow(reader)
            while self.seed is not None and self._state_dict["shard_idx"] < len(self.pieces):
                yield from self._mixed(reader, rows, windows)

    def _reader(self, **options) -> PieceReader:
        return PieceReader(self.survey, self._names.values(), self.image_size, cache=self.cache, **options)

    @property
    def _is_far(self) -> bool:
        """Whether reading is mostly waiting for a server."""
        return bool(self.pieces) and is_remote(self.pieces[0])

    @property
    def _in_groups(self) -> bool:
        """Whether a row costs as much as all rows of its group, see ``OpensParquet``."""
        return bool(getattr(self.survey.opens, "in_groups", False))

    @property
    def _slab_rows(self) -> int | None:
        """Rows of a slab where pieces are whole groups, of any length; None where they are as long as slabs."""
        return max(1, PIECE_BYTES // self._row_bytes) if self._in_groups else None

    def _in_order(self, reader: PieceReader, rows: Callable[[], int | None]) -> Iterator[dict]:
        """Slab after slab; from afar the next ones are fetched while this one is used."""
        read, most, first = reader.read, self._slab_rows, None
        if self._is_far or self._in_groups:
            first = max(1, FIRST_BYTES // self._row_bytes)
        if self._is_far:
            assert first is not None
            read = Ahead(reader, self._units(first), self._row_bytes).read
        while pieces := self._next_pieces(rows() or first):
            yield from self._readable(read, pieces)
            first = most

    def _units(self, first: int) -> Iterator[Piece]:
        """All pieces from the state on, the ``first`` rows apart from the others."""
        alone = self._next_pieces(first)
        left = self.pieces[self._state_dict["shard_idx"] :]
        done = self._state_dict["shard_example_idx"] + sum(map(len, alone))
        yield from alone
        for piece in left:
            if done < len(piece):
                yield replace(piece, start=piece.start + done)
            done = max(0, done - len(piece))

    def _mixed(self, reader: PieceReader, rows: Callable[[], int | None], windows: NextWindow) -> Iterator[dict]:
        """The slabs of one window, from the state on."""
        state = self._state_dict
        pieces = self._next_window()
        good = [piece for piece in pieces if self._opens(reader, piece)] if self.skip_bad else pieces
        order = np.random.default_rng((*(self.seed or ()), state["shard_idx"])).permutation(sum(map(len, good)))
        if state["shard_example_idx"] < len(order):  # a state may lie behind the last row
            read = self._reads_mixed(reader, good, order[state["shard_example_idx"] :], windows)
            while (done := state["shard_example_idx"]) < len(order):
                count = rows() or max(1, PIECE_BYTES // self._row_bytes)
                yield from self._readable(read, order[done : done + count])
        state["shard_idx"] += len(pieces)
        state["shard_example_idx"] = 0

    def _reads_mixed(
        self, reader: PieceReader, pieces: list[Piece], order: np.ndarray, windows: NextWindow
    ) -> Callable[[np.ndarray], dict]:
        """What reads rows of a window by their numbers, all of ``order`` one after the other.

        From afar long rows are fetched where they lie, a few before their turn; short ones with all of their window.
        """
        if not self._is_far:
            return functools.partial(reader.read_rows, reader.window(pieces))
        if self._in_groups or self._row_bytes < LONG * len(reader.long_columns):
            following = [] if self.skip_bad else self._next_window(after=len(pieces))
            return functools.partial(reader.read_rows, windows(pieces, following))
        window = Window(pieces, {}, {})

        def alone(rows: np.ndarray) -> Iterator[Piece]:
            return (replace(piece, start=row, stop=row + 1) for piece, row in window.places(rows))

        ahead = Ahead(reader, alone(order), self._row_bytes)
        return lambda rows: ahead.read(list(alone(rows)))

    def _readable(self, read: Callable, wanted: Sequence | np.ndarray) -> Iterator[dict]:
        """``read(wanted)``: pieces, or numbers of rows; where bad partitions are skipped, in halves, without theirs."""
        try:
            columns = read(wanted)
        except PartitionError as error:
            if not self.skip_bad:
                raise
            for half in self._halves(wanted):
                yield from self._readable(read, half)
            if not self._halves(wanted):
                rows = len(wanted[0]) if isinstance(wanted[0], Piece) else 1
                self._note_bad(error, rows)
                self._advance(rows)
            return
        columns = self._renamed(columns)
        if self.skip_bad and self.mode != "arrow" and self.has_images:
            yield from self._decodable(columns)
        else:
            yield columns

    def _halves(self, wanted: Sequence | np.ndarray) -> list:
        """What cannot be read as a whole in two parts; nothing where one file, or one row, is to blame."""
        half = len(wanted) // 2
        return [wanted[:half], wanted[half:]] if half else []

    def _decodable(self, columns: dict) -> Iterator[dict]:
        """The rows in runs between those with an image that cannot be decoded."""
        bad: dict[int, PartitionError] = {}
        for name, values in columns.items():
            if isinstance(values, ImageRows) and values.form != UNDECODED:
                bad |= self._undecodable(name, columns)
        start = 0
        for row in [*sorted(bad), row_count(columns)]:
            if start < row:
                yield part(columns, start, row)
            if row in bad:
                self._note_bad(bad[row], 1)
                self._advance(1)
            start = row + 1

    def _undecodable(self, name: str, columns: dict) -> dict[int, PartitionError]:
        """What is wrong with the images of a column, by row."""
        return columns[name].keep()

    def _opens(self, reader: PieceReader, piece: Piece) -> bool:
        try:
            reader.window([piece])
        except PartitionError as error:
            self._note_bad(error, len(piece))
            return False
        return True

    def _note_bad(self, error: PartitionError, rows: int) -> None:
        if str(error) not in self.bad:
            warnings.warn(f"skipped: {error}", stacklevel=2)
        self.bad[str(error)] = self.bad.get(str(error), 0) + rows

    def _renamed(self, columns: dict) -> dict:
        for source in self.casts.keys() & columns.keys():
            columns[source] = cast_values(columns[source], self.casts[source], source)
        renamed = {name: columns[source] for name, source in self._names.items()}
        return {name: self._formed(values, name) for name, values in renamed.items()} if self.has_images else renamed

    def _formed(self, values, name: str):
        if not isinstance(values, ImageRows):
            return values
        feature = self._features[name]
        form = UNDECODED if not feature.decode else PIL_IMAGE if self.pil and self.plain else ARRAY
        values = values.encoded() if form == UNDECODED or self.mode == "arrow" else values
        return values.with_changes(form=form, mode=feature.mode, column=self._names[name])

    def _finished(self, columns: dict) -> dict:
        """Columns as their rows are handed out: a subclass may have rows without some values."""
        return columns

    def _table(self, columns: dict) -> pa.Table:
        return arrow_table(columns, self._features)

    def __iter__(self) -> Iterator[tuple[int, dict]]:
        rows = self._loader_rows() if self._for_loader() else self._plain_rows()
        for row in rows:
            self._advance(1)
            yield 0, row

    def _for_loader(self) -> bool:
        """Whether rows may go to a torch ``DataLoader``: then they remember their slab, see ``batches.py``."""
        if "torch" not in sys.modules or self.mode not in ("numpy", "torch"):
            return False
        from skyset.loading import batches

        return self.mode == "torch" or batches.in_worker()

    def _plain_rows(self) -> Iterator[dict]:
        for columns in self._slabs(lambda: None):
            yield from rows_of(self._finished(python_numbers(columns) if self.mode == "python" else columns))
            del columns  # before the next are read

    def _loader_rows(self) -> Iterator[dict]:
        """Rows out of slabs that end where batches end, once a batch was made in this process."""
        from skyset.loading import batches

        handed_out, blocks = 0, batches.Blocks()
        # A batch is no part of the values of ragged rows: these need not be shared.
        shared = not any(column.is_ragged for column in needed_columns(self.survey, list(self._names.values())))

        def rows() -> int | None:
            size = batches.batch_size() if batches.in_worker() else None
            return size and size - handed_out % size

        for columns in self._slabs(rows, blocks if shared else None):
            count = row_count(columns)
            handed_out += count
            if self.mode == "torch":
                columns = batches.as_tensors(columns)
            yield from batches.rows_of_slab(self._finished(columns), blocks.last, count)
            del columns

    def batches(self, size: int) -> Iterator[dict]:
        """Columns of ``size`` rows at a time, the last ones fewer; tensors in mode ``"torch"``."""
        parts, missing = [], size

        def wanted() -> int:
            return missing

        for columns in self._slabs(wanted):
            parts.append(columns)
            missing -= row_count(columns)
            self._advance(row_count(columns))
            del columns
            if not missing:
                yield self._batch(parts)
                parts, missing = [], size
        if parts:
            yield self._batch(parts)

    def _batch(self, parts: list[dict]) -> dict:
        columns = join(parts)
        if self.mode == "torch":
            from skyset.loading.batches import as_tensors

            columns = as_tensors(columns)
        return _batch_of(self._finished(columns))

    def _iter_arrow(self) -> Iterator[tuple[str, pa.Table]]:
        for columns in self._slabs(lambda: None):
            table = self._table(columns)
            del columns
            self._advance(len(table))
            yield "0", table
            del table


def _batch_of(columns: Mapping) -> dict:
    return {
        name: values
        if isinstance(values, np.ndarray)  # most are, and to ask for Ragged takes longer
        else Group(_batch_of(values))
        if isinstance(values, dict)
        else values.batch()
        if isinstance(values, Ragged)
        else values
        for name, values in columns.items()
    }


def row_count(columns: Mapping) -> int:
    values = next(iter(columns.values()))
    return row_count(values) if isinstance(values, Mapping) else len(values)


def part(columns: Mapping, start: int, stop: int) -> dict:
    """Rows ``start:stop`` of columns."""
    return {
        name: part(values, start, stop) if isinstance(values, Mapping) else values[start:stop]
        for name, values in columns.items()
    }
