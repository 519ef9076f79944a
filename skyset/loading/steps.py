"""Steps of a stream that `datasets` lacks or has otherwise: exact resuming through any chain of steps, and its length.

A step is what `datasets` calls an examples iterable: it wraps the one before it, and its state is a part of the stream's.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice

import datasets
import numpy as np
import pyarrow as pa
from datasets import iterable_dataset as stock
from datasets.iterable_dataset import (
    BufferShuffledExamplesIterable,
    CyclingMultiSourcesExamplesIterable,
    FilteredExamplesIterable,
    FormattedExamplesIterable,
    HorizontallyConcatenatedMultiSourcesExamplesIterable,
    MappedExamplesIterable,
    RandomlyCyclingMultiSourcesExamplesIterable,
    RebatchedArrowExamplesIterable,
    RepeatExamplesIterable,
    SelectColumnsIterable,
    SkipExamplesIterable,
    StepExamplesIterable,
    TakeExamplesIterable,
    VerticallyConcatenatedMultiSourcesExamplesIterable,
    _BaseExamplesIterable,
)
from datasets.table import cast_table_to_features

from skyset.loading.casts import cast_values

#: What hands its rows on as they are, one for one.
_SAME_ROWS = tuple(
    getattr(stock, name)
    for name in (
        "BufferShuffledExamplesIterable",
        "FormattedExamplesIterable",
        "InterleavedShardsExamplesIterable",  # not in datasets 3
        "SelectColumnsIterable",
    )
    if hasattr(stock, name)
)


_IS_OLD = datasets.__version__.startswith("3.")


def children(rows: _BaseExamplesIterable) -> list[_BaseExamplesIterable]:
    """The iterables that one takes its rows from; none for a source."""
    return [rows.ex_iterable] if hasattr(rows, "ex_iterable") else list(getattr(rows, "ex_iterables", ()))


def links(rows: _BaseExamplesIterable) -> Iterator[_BaseExamplesIterable]:
    """All iterables of a chain, the outermost first."""
    yield rows
    for child in children(rows):
        yield from links(child)


def rebuilt(rows: _BaseExamplesIterable, change: Callable) -> _BaseExamplesIterable:
    """A copy of a chain; ``change`` is called with each link, the innermost first, and gives what stands in its place."""
    twin = copy.copy(rows)
    if hasattr(rows, "ex_iterable"):
        twin.ex_iterable = rebuilt(rows.ex_iterable, change)
    elif hasattr(rows, "ex_iterables"):
        twin.ex_iterables = [rebuilt(child, change) for child in rows.ex_iterables]
    return change(twin)


class Step(_BaseExamplesIterable):
    """A step over one other; rows and tables are what that one has, unless a subclass says otherwise."""

    def __init__(self, ex_iterable: _BaseExamplesIterable):
        super().__init__()
        self.ex_iterable = ex_iterable

    @property
    def iter_arrow(self) -> Callable | None:
        return self._iter_arrow if self.ex_iterable.iter_arrow else None

    @property
    def is_typed(self) -> bool:
        return self.ex_iterable.is_typed

    @property
    def features(self) -> datasets.Features | None:
        return self.ex_iterable.features

    @property
    def num_shards(self) -> int:
        return self.ex_iterable.num_shards

    def _init_state_dict(self) -> dict:
        self._state_dict = self.ex_iterable._init_state_dict()
        return self._state_dict

    def __iter__(self) -> Iterator[tuple]:
        return iter(self.ex_iterable)

    def _iter_arrow(self) -> Iterator[tuple]:
        return self.ex_iterable.iter_arrow()

    def over(self, ex_iterable: _BaseExamplesIterable) -> Step:
        """This step over another iterable."""
        twin = copy.copy(self)
        twin.ex_iterable = ex_iterable
        return twin

    def shuffle_data_sources(self, generator: np.random.Generator) -> Step:
        return self.over(self.ex_iterable.shuffle_data_sources(generator))

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> Step:
        return self.over(self.ex_iterable.shard_data_sources(num_shards, index, contiguous=contiguous))

    def reshard_data_sources(self) -> Step:
        return self.over(self.ex_iterable.reshard_data_sources())


class Shuffled(Step):
    """Shuffles windows of rows, one after the other: what a buffer holds is handed out before it is filled again.

    Its state is that of the rows at the window's beginning and how many of the window were handed out: resuming is
    exact, and reads one window again. (The buffer of `datasets` keeps rows from fill to fill, and its state forgets them.)

    Args:
        size: rows of a window; rows that come as tables stay whole tables until then.
        generator: of the order.
    """

    def __init__(self, ex_iterable: _BaseExamplesIterable, size: int, generator: np.random.Generator):
        super().__init__(ex_iterable)
        self.size, self._seed = size, _seed_of(generator)

    def _init_state_dict(self) -> dict:
        self.ex_iterable._init_state_dict()
        self._state_dict = {"window_start": None, "window": 0, "done": 0, "type": type(self).__name__}
        return self._state_dict

    def shuffle_data_sources(self, generator: np.random.Generator) -> Shuffled:
        return self._reseeded(super().shuffle_data_sources(generator), _seed_of(generator))

    def shift_rngs(self, value: int) -> Shuffled:
        """Another order for each worker."""
        return self._reseeded(copy.copy(self), value)

    def _reseeded(self, twin: Shuffled, more: int) -> Shuffled:
        twin._seed = _seed_of(np.random.default_rng((self._seed, more)))
        return twin

    def __iter__(self) -> Iterator[tuple]:
        for window in self._windows(iter, lambda rows: islice(rows, self.size)):
            order = self._order(len(window))
            while (done := self._state_dict["done"]) < len(order):
                row, window[order[done]] = window[order[done]], None  # keeps no hold of what it yields
                self._state_dict["done"] += 1
                yield row
                del row

    def _iter_arrow(self) -> Iterator[tuple]:
        for window in self._windows(lambda rows: rows.iter_arrow(), self._tables):
            if not self._state_dict["done"]:
                table = pa.concat_tables([table for _, table in window])
                self._state_dict["done"] = 1
                yield window[-1][0], table.take(self._order(len(table)))

    def _tables(self, tables: Iterator) -> Iterator[tuple]:
        """The next tables, until they hold enough rows."""
        rows = 0
        for key, table in tables:
            yield key, table
            rows += len(table)
            if rows >= self.size:
                return

    def _windows(self, begin: Callable, fill: Callable) -> Iterator[list]:
        if self._state_dict is None:
            self._init_state_dict()
        state = self._state_dict
        if state["window_start"]:
            self.ex_iterable.load_state_dict(state["window_start"])
        start, rows = self.ex_iterable.state_dict(), begin(self.ex_iterable)
        while window := list(fill(rows)):
            state["window_start"] = start
            yield window
            start = self.ex_iterable.state_dict()
            state.update(window_start=start, window=state["window"] + 1, done=0)

    def _order(self, rows: int) -> np.ndarray:
        return np.random.default_rng((self._seed, self._state_dict["window"])).permutation(rows)


def _seed_of(generator: np.random.Generator) -> int:
    return int(copy.deepcopy(generator).integers(2**63))


class Fixed(Step):
    """Keeps the order of sources in every epoch, as that of one source is kept."""

    def shuffle_data_sources(self, generator: np.random.Generator) -> Fixed:
        return self


class Repeated(RepeatExamplesIterable):
    """As in `datasets`, whose version 3 cannot share repeated rows among workers and nodes."""

    @property
    def num_shards(self) -> int:
        return self.ex_iterable.num_shards

    def shuffle_data_sources(self, generator: np.random.Generator) -> Repeated:
        return Repeated(self.ex_iterable.shuffle_data_sources(generator), self.num_times)

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> Repeated:
        return Repeated(self.ex_iterable.shard_data_sources(num_shards, index, contiguous=contiguous), self.num_times)


class Whole(Fixed):
    """One source, which one worker or node reads: rows that are counted have their numbers in the whole stream."""

    @property
    def num_shards(self) -> int:
        return 1

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> Whole:
        if index:
            raise IndexError(f"share {index} of rows that are one source")
        return self

    def reshard_data_sources(self) -> Whole:
        return self


class Replayed(Step):
    """Resumes by reading from the beginning and leaving out what was handed out: for steps whose own state is not exact."""

    def _init_state_dict(self) -> dict:
        self.ex_iterable._init_state_dict()
        self._state_dict = {"done": 0, "sources": self._sources(), "type": type(self).__name__}
        return self._state_dict

    def _sources(self) -> list[str]:
        return [link._digest() for link in links(self.ex_iterable) if hasattr(link, "_digest")]

    def __iter__(self) -> Iterator[tuple]:
        return self._rest(lambda: iter(self.ex_iterable))

    def _iter_arrow(self) -> Iterator[tuple]:
        return self._rest(lambda: self.ex_iterable.iter_arrow())

    def _rest(self, begin: Callable) -> Iterator[tuple]:
        if self._state_dict is None:
            self._init_state_dict()
        state = self._state_dict
        if state["done"] and state["sources"] != self._sources():
            raise ValueError("this state was saved by another stream")
        state["sources"] = self._sources()
        self.ex_iterable._init_state_dict()
        for item in islice(begin(), state["done"], None):
            state["done"] += 1
            yield item


class Renamed(Step):
    """Gives columns other names, in every format."""

    def __init__(self, ex_iterable: _BaseExamplesIterable, names: Mapping[str, str]):
        super().__init__(ex_iterable)
        self.names = names

    @property
    def features(self) -> datasets.Features | None:
        features = self.ex_iterable.features
        return features and datasets.Features(self._renamed(features))

    def _renamed(self, row: Mapping) -> dict:
        return {self.names.get(name, name): value for name, value in row.items()}

    def __iter__(self) -> Iterator[tuple]:
        for key, row in self.ex_iterable:
            yield key, self._renamed(row)

    def _iter_arrow(self) -> Iterator[tuple]:
        for key, table in self.ex_iterable.iter_arrow():
            yield key, table.rename_columns([self.names.get(name, name) for name in table.column_names])


class Cast(Step):
    """Hands out columns as other features, in every format.

    Args:
        features: of all columns.
        changed: names of the columns that change.
    """

    def __init__(self, ex_iterable: _BaseExamplesIterable, features: datasets.Features, changed: list[str]):
        super().__init__(ex_iterable)
        self._features, self._changed = features, changed

    @property
    def features(self) -> datasets.Features:
        return self._features

    def __iter__(self) -> Iterator[tuple]:
        for key, row in self.ex_iterable:
            new = {name: self._cast(row[name], name) for name in self._changed if row.get(name) is not None}
            yield key, {**row, **new}

    def _cast(self, value, name: str):
        is_number = isinstance(value, bool | int | float)
        cast = cast_values(_column_of(value), self._features[name], name)
        if isinstance(cast, dict):
            return {key: values[0] for key, values in cast.items()}
        return cast[0].item() if is_number and isinstance(cast, np.ndarray) else cast[0]

    def _iter_arrow(self) -> Iterator[tuple]:
        for key, table in self.ex_iterable.iter_arrow():
            yield key, cast_table_to_features(table, self._features)


def _column_of(value):
    """A column of one row."""
    if isinstance(value, dict):
        return {key: _column_of(part) for key, part in value.items()}
    return [value] if isinstance(value, str) else np.asarray(value)[None]


def made_exact(rows: _BaseExamplesIterable) -> _BaseExamplesIterable:
    """A chain whose steps all resume exactly, but for those that ``is_exact`` denies."""

    def change(link: _BaseExamplesIterable) -> _BaseExamplesIterable:
        if isinstance(link, BufferShuffledExamplesIterable):
            exact = Shuffled(link.ex_iterable, link.buffer_size, link.generator)
            exact.seed_was_drawn = getattr(link, "seed_was_drawn", False)
            return exact
        return link

    return rebuilt(rows, change)


def is_exact(rows: _BaseExamplesIterable) -> bool:
    """Whether the states of all steps say just where they are.

    Those of functions on tables do not, nor those of asynchronous functions, which are ahead of what was handed out; and
    those of other people's sources in datasets 3, where a step reads them a table at a time.
    """
    return not any(
        _is_ahead(link) if isinstance(link, MappedExamplesIterable) else _IS_OLD and _is_foreign(link)
        for link in links(rows)
    )


def _is_ahead(link: MappedExamplesIterable) -> bool:
    return bool(link.formatting and link.formatting.is_table) or _is_asynchronous(link.function)


def _is_foreign(link: _BaseExamplesIterable) -> bool:
    return not children(link) and not hasattr(link, "pieces")


def _is_asynchronous(function: Callable) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function)


def rows_in(rows: _BaseExamplesIterable) -> int | None:
    """How many rows an iterable will hand out, from the manifest; None where only reading tells."""
    found = [rows_in(child) for child in children(rows)]
    if hasattr(rows, "pieces"):
        return rows.total
    if not found and hasattr(rows, "ex_iterables"):
        return 0  # a worker that gets none of the sources
    counts = [count for count in found if count is not None]
    if not counts or len(counts) < len(found):
        return None
    first = counts[0]
    if isinstance(rows, FilteredExamplesIterable):
        return None
    if isinstance(rows, MappedExamplesIterable):
        return _mapped_count(rows, first)
    if isinstance(rows, (*_SAME_ROWS, Step)):
        return first
    if isinstance(rows, RebatchedArrowExamplesIterable):
        return first
    if isinstance(rows, SkipExamplesIterable):
        return max(first - rows.n, 0)
    if isinstance(rows, TakeExamplesIterable):
        return min(first, max(rows.n, 0))
    if isinstance(rows, RepeatExamplesIterable):
        return None if rows.num_times is None else first * max(rows.num_times, 0)
    if isinstance(rows, StepExamplesIterable):
        return max(-((rows.offset - first) // rows.step), 0)
    if isinstance(rows, VerticallyConcatenatedMultiSourcesExamplesIterable):
        return sum(counts)
    if isinstance(rows, HorizontallyConcatenatedMultiSourcesExamplesIterable):
        return max(counts)
    if isinstance(rows, CyclingMultiSourcesExamplesIterable):
        return _interleaved_count(rows, counts)
    return None


def makes_batches(rows: _BaseExamplesIterable) -> bool:
    """Whether this is what ``batch()`` of `datasets` makes: a row is a batch from then on."""
    function = getattr(rows, "function", None)
    names = ("_batch_fn", "batch_fn", "_batch_arrow_table")  # the second in datasets 3
    return getattr(function, "__name__", "") in names and function.__module__.startswith("datasets.")


def _mapped_count(rows: MappedExamplesIterable, count: int) -> int | None:
    if rows.batched:
        size = rows.batch_size if rows.batch_size and rows.batch_size > 0 else max(count, 1)
        if makes_batches(rows):
            return count // size if rows.drop_last_batch else -(-count // size)
        return None  # a function may hand out more rows, or fewer
    return None if rows.formatting and rows.formatting.is_table else count


def _interleaved_count(rows: CyclingMultiSourcesExamplesIterable, counts: list[int]) -> int | None:
    if rows.stopping_strategy == "all_exhausted_without_replacement":
        return sum(counts)
    if isinstance(rows, RandomlyCyclingMultiSourcesExamplesIterable):
        return None
    if rows.stopping_strategy == "all_exhausted" and 0 in counts:
        return None
    # The last row of a source says that it is the last; the first source is asked first.
    ends = [place + max(0, count - 1) * len(counts) + (count > 0) for place, count in enumerate(counts)]
    return max(ends) if rows.stopping_strategy == "all_exhausted" else min(ends)


def goes_through(rows: _BaseExamplesIterable, skipping: bool) -> bool:
    """Whether the first rows of a step are made of the first rows that it is given, one by one.

    Args:
        rows: the step.
        skipping: rows are to be left out at the beginning: then a step may not count them.
    """
    if isinstance(rows, FilteredExamplesIterable):
        return False
    if isinstance(rows, MappedExamplesIterable):
        of_tables = rows.formatting and rows.formatting.is_table
        return not rows.batched and not of_tables and not (skipping and rows.with_indices)
    return isinstance(rows, SelectColumnsIterable | FormattedExamplesIterable | Renamed | Cast)
