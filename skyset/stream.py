"""Streaming rows out of partitions: whole slabs are read, rows are views of them.

``PartitionRows`` is the source that `datasets` iterates; ``SurveyStream`` is its ``IterableDataset`` with the formats
that keep dtypes. Every slab is fresh memory and every row its own part of it: a row may be written to or kept for
ever (it keeps its slab alive, at most ``PIECE_BYTES`` of pixels, or half of ``BUFFER_BYTES`` when shuffled).
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from itertools import islice

import datasets
import numpy as np
import pyarrow as pa
from datasets.iterable_dataset import ExamplesIterable
from datasets.iterable_dataset import FormattingConfig
from datasets.iterable_dataset import HorizontallyConcatenatedMultiSourcesExamplesIterable
from datasets.iterable_dataset import IterableDataset
from datasets.iterable_dataset import MappedExamplesIterable
from datasets.iterable_dataset import SelectColumnsIterable
from datasets.iterable_dataset import _BaseExamplesIterable

from skyset.arrow import arrow_table
from skyset.arrow import features_of
from skyset.arrow import needed_columns
from skyset.formatting import is_tensor_format
from skyset.formatting import merge
from skyset.formatting import own_format
from skyset.manifest import FileEntry
from skyset.partitions import Partition
from skyset.partitions import load_filters
from skyset.partitions import slabs
from skyset.survey import Layers
from skyset.survey import Survey

#: What is read at a time, and handed to a worker or a node at a time: a part of one file.
PIECE_BYTES = 8 << 20
#: Memory of a shuffled stream: half of it are the rows being handed out, mixed, and half those read after them.
BUFFER_BYTES = 256 << 20


@dataclass(frozen=True)
class Piece:
    """Rows ``start:stop`` of one partition, which has ``rows`` rows; ``path`` is absolute or a URL."""

    path: str
    start: int
    stop: int
    rows: int


def cut(root: str, files: Sequence[FileEntry], row_bytes: int, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """All rows of the files, in the manifest's order, in pieces of at most ``piece_bytes`` (at least one row)."""
    base = root.rstrip("/")
    return [
        Piece(f"{base}/{entry.path}", start, stop, entry.rows)
        for entry in files
        for start, stop in slabs(entry.rows, row_bytes, slab_bytes=piece_bytes)
    ]


class PieceReader:
    """Reads pieces as columns of features, keeping the last file open: neighbouring pieces are of one file.

    Args:
        survey: the declaration.
        names: the features that are wanted; no other column is read.
        image_size: side of the centre crop in pixels, None for all of them.
    """

    def __init__(self, survey: Survey, names: Sequence[str], image_size: int | None = None):
        load_filters()
        self.survey, self.image_size = survey, image_size
        self._wanted = [f for f in survey.features if f.name in names]
        self._columns = needed_columns(survey, names)
        self._open: Partition | None = None

    def __enter__(self) -> PieceReader:
        return self

    def __exit__(self, *_) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _partition(self, piece: Piece) -> Partition:
        if self._open is None or self._open.path != piece.path:
            self.__exit__()
            self._open = Partition(piece.path, self._columns, trusted_rows=piece.rows)
        return self._open

    def read(self, pieces: Sequence[Piece]) -> dict:
        """Columns of all rows of ``pieces``: arrays (rows, ...), lists of str, dicts of these for groups of layers.

        Raises:
            PartitionError: a file is gone, cut short, or not what the manifest says.
        """
        raw = self._allocate(sum(piece.stop - piece.start for piece in pieces))
        row = 0
        for piece in pieces:
            partition, end = self._partition(piece), row + piece.stop - piece.start
            for name, array in raw.items():
                partition.read(name, piece.start, piece.stop, out=array[row:end])
            row = end
        return {feature.name: self._assemble(feature, raw, row) for feature in self._wanted}

    def _allocate(self, rows: int) -> dict[str, np.ndarray]:
        """One array a column; the layers of a group are views of one array (rows, layers, ...): no copy to stack them."""
        raw = {}
        self._stacks = {}
        for feature in self._wanted:
            for key, source in feature.fields.items() if isinstance(feature, Layers) else ():
                if not isinstance(source, str):
                    column = self.survey.column(source[0])
                    stack = np.empty((rows, len(source), *column.shape), column.dtype)
                    self._stacks[feature.name, key] = stack
                    raw.update({name: stack[:, i] for i, name in enumerate(source)})
        for column in self._columns:
            if column.name not in raw:
                raw[column.name] = np.empty((rows, *column.shape), column.dtype)
        return raw

    def _assemble(self, feature, raw: dict[str, np.ndarray], rows: int):
        if not isinstance(feature, Layers):
            return self._finish(raw[feature.source], feature.name)
        group = {feature.label_field: [list(feature.labels) for _ in range(rows)]}
        for key, source in feature.fields.items():
            values = raw[source] if isinstance(source, str) else self._stacks[feature.name, key]
            group[key] = self._finish(values, f"{feature.name}.{key}")
        return group

    def _finish(self, values: np.ndarray, name: str):
        if values.dtype.kind == "S":
            return [text.decode("ascii", "replace") for text in values.tolist()]
        axis = self.survey.image_axes.get(name)
        if axis is None or self.image_size is None:
            return values
        return centre_crop(values, axis + 1, self.image_size)


def centre_crop(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The middle ``size`` pixels of ``axis`` and the next one, as a view."""
    first = [(values.shape[a] - size) // 2 for a in (axis, axis + 1)]
    window = [slice(None)] * axis + [slice(start, start + size) for start in first]
    return values[tuple(window)]


def row_of(columns: dict, row: int, scalars: Callable) -> dict:
    """One row of columns; ``scalars`` turns a numpy number into what the format hands out."""
    return {name: _value(values, row, scalars) for name, values in columns.items()}


def _value(values, row: int, scalars: Callable):
    if isinstance(values, dict):
        return row_of(values, row, scalars)
    value = values[row]
    return scalars(value) if isinstance(value, np.generic) else value


class PartitionRows(_BaseExamplesIterable):
    """Rows of partitions, as `datasets` iterates them. A shard is one piece.

    Args:
        survey, image_size: see ``PieceReader``.
        pieces: what to read, in this order.
        names: features wanted, in the order they are handed out; a mapping gives them other names.
        mode: ``"python"`` (numbers are Python's), ``"numpy"`` (numbers keep their dtype) or ``"arrow"`` (tables).
        seed: shuffle pieces, and rows within windows of pieces, reproducibly; None keeps the order.
        window_bytes: what one window holds.
    """

    _sleep_on_threads_shutdown = False

    def __init__(self, survey: Survey, pieces: list[Piece], names: Iterable[str], image_size: int | None = None):
        super().__init__()
        self.survey, self.pieces, self.image_size = survey, pieces, image_size
        self.mode = "python"
        self.seed: tuple[int, ...] | None = None
        self.seed_was_drawn = False
        self.window_bytes = BUFFER_BYTES // 2
        self._set_names(names if isinstance(names, Mapping) else {name: name for name in names})

    def _set_names(self, names: Mapping[str, str]) -> None:
        """``names``: the survey's features by the names they are handed out under."""
        every = features_of(self.survey, self.image_size)
        self._names = names
        self._features = datasets.Features({name: every[source] for name, source in names.items()})
        self._row_bytes = sum(c.row_bytes for c in needed_columns(self.survey, list(names.values()))) or 1

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

    def between(self, start: int, stop: int | None) -> PartitionRows:
        """Rows ``start:stop`` of these, in the order they are in."""
        pieces, first = [], 0
        for piece in self.pieces:
            rows = piece.stop - piece.start
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

    def ordered(self, epoch: int) -> PartitionRows:
        """In the order of one epoch: the same for the same seed and epoch on every worker and node."""
        if self.seed is None:
            return self
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
        return hashlib.sha256("\n".join([str(order), *pieces]).encode()).hexdigest()[:16]

    def _init_state_dict(self) -> dict:
        state = {"shard_idx": 0, "shard_example_idx": 0, "pieces": self._digest(), "type": type(self).__name__}
        self._state_dict = state
        return self._state_dict

    def _window(self, first: int) -> tuple[list[Piece], np.ndarray]:
        """The pieces to read at a time, from number ``first`` on, and the order of their rows."""
        window, size = [], 0
        for piece in map(self.pieces.__getitem__, range(first, len(self.pieces))):
            size += (piece.stop - piece.start) * self._row_bytes
            if window and (self.seed is None or size > self.window_bytes):
                break
            window.append(piece)
        rows = sum(piece.stop - piece.start for piece in window)
        order = np.arange(rows) if self.seed is None else np.random.default_rng((*self.seed, first)).permutation(rows)
        return window, order

    def _slabs(self) -> Iterator[tuple[dict, np.ndarray]]:
        """(columns, rows still to be handed out in their order) from the state on; keeps no hold of them itself."""
        state = self._state_dict or self._init_state_dict()
        if state["pieces"] != self._digest():
            raise ValueError(
                "this state was saved by another stream: files were added or removed since, or seed, epoch, number of "
                "workers or nodes differ"
            )
        with PieceReader(self.survey, list(self._names.values()), self.image_size) as reader:
            while state["shard_idx"] < len(self.pieces):
                window, order = self._window(state["shard_idx"])
                order = order[state["shard_example_idx"] :]
                if len(order):  # a state may lie behind the last row
                    columns = reader.read(window)
                    yield {name: columns.pop(source) for name, source in self._names.items()}, order
                state["shard_idx"] += len(window)
                state["shard_example_idx"] = 0

    def __iter__(self) -> Iterator[tuple[str, dict]]:
        scalars = np.generic.item if self.mode == "python" else (lambda value: value)
        for columns, order in self._slabs():
            for row in order.tolist():
                self._state_dict["shard_example_idx"] += 1
                yield str(row), row_of(columns, row, scalars)
            del columns  # before the next are read

    def _iter_arrow(self) -> Iterator[tuple[str, pa.Table]]:
        for columns, order in self._slabs():
            table = arrow_table(columns, self._features)
            if self.seed is not None or len(order) < len(table):
                table = table.take(pa.array(order))
            del columns
            self._state_dict["shard_example_idx"] += len(table)
            yield "0", table
            del table


def map_source(rows: _BaseExamplesIterable, change: Callable[[PartitionRows], PartitionRows]) -> _BaseExamplesIterable:
    """A copy of a chain of iterables with its ``PartitionRows`` changed; other sources stay as they are."""
    if isinstance(rows, PartitionRows):
        return change(rows)
    twin = copy.copy(rows)
    if hasattr(rows, "ex_iterable"):
        twin.ex_iterable = map_source(rows.ex_iterable, change)
    elif hasattr(rows, "ex_iterables"):
        twin.ex_iterables = [map_source(child, change) for child in rows.ex_iterables]
    return twin


def links(rows: _BaseExamplesIterable) -> Iterator[_BaseExamplesIterable]:
    """All iterables of a chain, the outermost first."""
    yield rows
    for child in [rows.ex_iterable] if hasattr(rows, "ex_iterable") else getattr(rows, "ex_iterables", ()):
        yield from links(child)


def is_settled(rows: _BaseExamplesIterable) -> bool:
    """Whether the sources' order may not change: after ``take`` and ``skip``, or rows put side by side."""
    return any(
        getattr(link, "block_sources_order_when_shuffling", False)
        or isinstance(link, HorizontallyConcatenatedMultiSourcesExamplesIterable)
        for link in links(rows)
    )


class SurveyStream(IterableDataset):
    """``datasets.IterableDataset`` over partitions; what it does differently is in the methods below."""

    def with_format(self, type: str | None = None) -> SurveyStream:
        """As in `datasets`, but ``"numpy"`` and ``"torch"`` keep the columns' dtypes (uint8 stays uint8)."""
        config = FormattingConfig(format_type=own_format(type))
        mode = "arrow" if config.is_table else "numpy" if config.is_tensor else "python"
        mapped = any(isinstance(link, MappedExamplesIterable) for link in links(self._ex_iterable))

        def change(rows: PartitionRows) -> PartitionRows:
            # A function mapped before keeps getting what it got; but Python's numbers would lose their dtypes here.
            return rows if mapped and (rows.mode, mode) != ("python", "numpy") else rows.with_changes(mode=mode)

        stream = adopt(super().with_format(config.format_type))
        return stream._with_source(map_source(stream._ex_iterable, change))

    def shuffle(self, seed: int | None = None, generator=None, buffer_size: int | None = None,
                buffer_bytes: int = BUFFER_BYTES, **options) -> SurveyStream:  # fmt: skip
        """Shuffle pieces of files, then the rows of as many pieces as fit into half of ``buffer_bytes``.

        The order depends on seed and epoch alone, so resuming by ``state_dict`` is exact. Where the rows come from several
        datasets, or ``take`` or ``skip`` follow on another shuffle or a map, they go through a stock shuffle buffer.

        Args:
            seed: pass one where several nodes read; without it every call draws another.
            generator: numpy.random.Generator to draw the seed from instead.
            buffer_size: rows of the stock shuffle buffer, by default as many as fit.
            buffer_bytes: memory to take, 256 MiB by default; more mixes more cells.
            options: for the stock shuffle buffer.
        """
        drawn = seed is None and generator is None
        if seed is None:
            generator = np.random.default_rng() if generator is None else copy.deepcopy(generator)
            seed = int(generator.integers(2**63))
        source, settled = self._ex_iterable, is_settled(self._ex_iterable)
        if not settled:
            changes = {"seed": (seed,), "seed_was_drawn": drawn, "window_bytes": buffer_bytes // 2}
            source = map_source(source, lambda rows: rows.with_changes(**changes))
        stream = self._with_source(source)
        leaves = [link for link in links(source) if not hasattr(link, "ex_iterable") and not hasattr(link, "ex_iterables")]
        ours = [leaf for leaf in leaves if isinstance(leaf, PartitionRows)]
        if settled or len(leaves) > 1 or not ours:
            if buffer_size is None and ours:
                buffer_size = max(1, buffer_bytes // max(rows._row_bytes for rows in ours))
            options |= {} if buffer_size is None else {"buffer_size": buffer_size}
            stream = adopt(IterableDataset.shuffle(stream, seed=seed, **options))
            stream._ex_iterable.seed_was_drawn = drawn
            stream._check_seed()
        return stream

    def _check_seed(self) -> None:
        several_nodes = self._distributed and self._distributed.world_size > 1
        if several_nodes and any(getattr(link, "seed_was_drawn", False) for link in links(self._ex_iterable)):
            raise ValueError(
                "pass seed= to shuffle() where several nodes read: without it every node draws an order of its own, "
                "and rows would be read twice or never"
            )

    def take(self, n: int) -> SurveyStream:
        """As in `datasets`; without a shuffle before it, the very first ``n`` rows however many workers read them."""
        return self._cut(0, n) or adopt(super().take(n))

    def skip(self, n: int) -> SurveyStream:
        """As in `datasets`; without a shuffle before it, the bytes of skipped rows are not read."""
        return self._cut(n, None) or adopt(super().skip(n))

    def _cut(self, start: int, stop: int | None) -> SurveyStream | None:
        rows = self._ex_iterable
        if not isinstance(rows, PartitionRows) or rows.seed is not None or self._distributed:
            return None
        return self._with_source(rows.between(start, stop))

    def _with_source(self, rows: _BaseExamplesIterable) -> SurveyStream:
        options = {"shuffling": self._shuffling} if hasattr(self, "_shuffling") else {}  # datasets 3
        return SurveyStream(
            rows,
            info=self._info,
            split=self._split,
            formatting=self._formatting,
            distributed=copy.deepcopy(self._distributed),
            token_per_repo_id=self._token_per_repo_id,
            **options,
        )

    def filter(self, *args, **kwargs) -> SurveyStream:
        """As in `datasets`; version 3 fails on sources that know their features, so it is shown one that does not."""
        if not datasets.__version__.startswith("3.") or (self._formatting and self._formatting.is_table):
            return adopt(super().filter(*args, **kwargs))
        blank = self._with_source(ExamplesIterable(iter, {}))
        filtered = IterableDataset.filter(blank, *args, **kwargs)._ex_iterable
        filtered._features = self._info.features  # without, rows would be turned into Arrow and back
        inner = filtered if filtered.ex_iterable is blank._ex_iterable else filtered.ex_iterable
        inner.ex_iterable = self._ex_iterable
        return self._with_source(filtered)

    def select_columns(self, column_names: str | list[str]) -> SurveyStream:
        """As in `datasets`; the bytes of other columns are not read."""
        selected = adopt(super().select_columns(column_names))
        rows = selected._ex_iterable
        if isinstance(rows, SelectColumnsIterable) and isinstance(rows.ex_iterable, PartitionRows):
            selected = selected._with_source(rows.ex_iterable.select(rows.column_names))
        return selected

    def remove_columns(self, column_names: str | list[str]) -> SurveyStream:
        """As in `datasets`; the bytes of these columns are not read."""
        gone = [column_names] if isinstance(column_names, str) else column_names
        if isinstance(self._ex_iterable, PartitionRows) and set(gone) <= set(self.features):
            return self.select_columns([name for name in self.features if name not in gone])
        return adopt(super().remove_columns(column_names))

    def rename_columns(self, column_mapping: dict[str, str]) -> SurveyStream:
        """As in `datasets`; costs nothing."""
        rows, old = self._ex_iterable, set(column_mapping)
        final = [column_mapping.get(name, name) for name in self.features or ()]
        if not isinstance(rows, PartitionRows) or not old <= set(self.features) or len(set(final)) < len(final):
            return adopt(super().rename_columns(column_mapping))
        renamed = rows.rename(column_mapping)
        stream = self._with_source(renamed)
        stream._info.features = renamed.features
        return stream

    def rename_column(self, original_column_name: str, new_column_name: str) -> SurveyStream:
        """As in `datasets`; costs nothing."""
        return self.rename_columns({original_column_name: new_column_name})

    def iter(self, batch_size: int, drop_last_batch: bool = False) -> Iterator[dict]:
        """As in `datasets`; with numpy or torch formatting arrays are stacked, in groups of layers too."""
        if not (self._formatting and is_tensor_format(self._formatting.format_type)):
            yield from super().iter(batch_size, drop_last_batch)
            return
        rows = (row for _, row in self._prepare_ex_iterable_for_iteration(batch_size, drop_last_batch))
        while batch := list(islice(rows, batch_size)):
            if drop_last_batch and len(batch) < batch_size:
                return
            yield {name: merge([row[name] for row in batch]) for name in batch[0]}

    def _prepare_ex_iterable_for_iteration(self, *args, **kwargs) -> _BaseExamplesIterable:
        """Put the source into the epoch's order first; `datasets` then splits it among nodes and workers."""
        self._check_seed()
        twin = object.__new__(type(self))  # two threads may iterate at a time
        source = map_source(self._ex_iterable, lambda rows: rows.ordered(self.epoch))
        twin.__dict__ = {**self.__dict__, "_ex_iterable": source}
        rows = super(SurveyStream, twin)._prepare_ex_iterable_for_iteration(*args, **kwargs)
        self._state_dict = twin._state_dict
        return rows


def adopt(result):
    """Make a stock stream or table that one of ours gave rise to ours again."""
    if type(result) is IterableDataset:
        result.__class__ = SurveyStream
        result._prepare_ex_iterable_for_iteration()  # its state is of our order
    elif type(result) is datasets.Dataset:
        result.__class__ = SurveyTable
    elif isinstance(result, dict) and type(result) in (datasets.DatasetDict, datasets.IterableDatasetDict):
        for key, value in result.items():
            result[key] = adopt(value)
    return result


class SurveyTable(datasets.Dataset):
    """``datasets.Dataset`` whose ``"numpy"`` and ``"torch"`` formats keep dtypes."""

    def set_format(self, type: str | None = None, *args, **kwargs) -> None:
        """As in `datasets`, but ``"numpy"`` and ``"torch"`` keep the columns' dtypes (uint8 stays uint8)."""
        super().set_format(own_format(type), *args, **kwargs)


def _keep_class(cls: type, names: Sequence[str]) -> None:
    """`datasets` makes a new stock object in each of these methods: give them back as ``cls``."""

    def keeping(method: Callable) -> Callable:
        return functools.wraps(method)(lambda *args, **kwargs: adopt(method(*args, **kwargs)))

    for name in names:
        if hasattr(cls, name):
            setattr(cls, name, keeping(getattr(cls, name)))


_keep_class(SurveyStream, (
    "add_column", "batch", "cast", "cast_column", "decode", "map", "repeat", "reshard", "shard", "_resolve_features",
    "_step",
))  # fmt: skip
_keep_class(SurveyTable, (
    "add_column", "add_item", "batch", "cast", "cast_column", "class_encode_column", "filter", "flatten",
    "flatten_indices", "map", "remove_columns", "rename_column", "rename_columns", "repeat", "select",
    "select_columns", "shard", "shuffle", "skip", "sort", "take", "to_iterable_dataset", "train_test_split",
))  # fmt: skip
