"""Streaming rows out of partitions: whole slabs are read, rows are views of them.

``PartitionRows`` is the source that `datasets` iterates; ``SurveyStream`` is its ``IterableDataset`` with the formats
that keep dtypes. Every slab is fresh memory and every row its own part of it: a row may be written to or kept for
ever (it keeps its slab alive, ``PIECE_BYTES`` of pixels or a batch).
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import datasets
import numpy as np
from datasets.iterable_dataset import (
    CyclingMultiSourcesExamplesIterable,
    ExamplesIterable,
    FormattedExamplesIterable,
    FormattingConfig,
    HorizontallyConcatenatedMultiSourcesExamplesIterable,
    IterableDataset,
    MappedExamplesIterable,
    RebatchedArrowExamplesIterable,
    SelectColumnsIterable,
    _BaseExamplesIterable,
)

from skyset.errors import UserError
from skyset.loading.casts import check_cast, is_picture
from skyset.loading.elastic import ElasticRows, check_steps, made_elastic
from skyset.loading.formatting import ArrayFeatures, DecodedFeatures, is_tensor_format, merge, own_format, stock_format
from skyset.loading.partition_rows import BUFFER_BYTES, PartitionRows, row_count
from skyset.loading.steps import (
    Cast,
    Fixed,
    Renamed,
    Repeated,
    Replayed,
    Shuffled,
    Whole,
    children,
    goes_through,
    is_exact,
    links,
    made_exact,
    makes_batches,
    rebuilt,
    rows_in,
)


def map_source(rows: _BaseExamplesIterable, change: Callable[[PartitionRows], PartitionRows]) -> _BaseExamplesIterable:
    """A copy of a chain of iterables with its ``PartitionRows`` changed; other sources stay as they are."""
    return rebuilt(rows, lambda link: change(link) if isinstance(link, PartitionRows) else link)


def is_settled(rows: _BaseExamplesIterable) -> bool:
    """Whether the sources' order may not change, for the rows would not be the same ones.

    That is after ``take`` and ``skip``, of rows put side by side, counted, or in batches, and of those that take turns.
    """
    return any(
        getattr(link, "block_sources_order_when_shuffling", False)
        or isinstance(link, HorizontallyConcatenatedMultiSourcesExamplesIterable)
        or getattr(link, "with_indices", False)
        or makes_batches(link)
        or getattr(link, "stopping_strategy", _ALL) != _ALL
        for link in links(rows)
    )


#: The way of interleaving that ends with each row of each source handed out once, whatever their order.
_ALL = "all_exhausted_without_replacement"


class SurveyStream(IterableDataset):
    """``datasets.IterableDataset`` over partitions; what it does differently is in the methods below."""

    _starting_state_dict: dict | None

    def with_format(self, type: str | None = None) -> SurveyStream:
        """As in `datasets`, but ``"numpy"`` and ``"torch"`` keep the columns' dtypes (uint8 stays uint8).

        Encoded images come as RGB, uint8 (H, W, 3).
        """
        config = FormattingConfig(format_type=own_format(type))
        mode = "arrow" if config.is_table else "numpy" if config.is_tensor else "python"
        mapped = any(isinstance(link, MappedExamplesIterable) for link in links(self._ex_iterable))
        interleaved = any(isinstance(link, CyclingMultiSourcesExamplesIterable) for link in links(self._ex_iterable))
        if interleaved and mode == "arrow":
            mode = "python"  # or tables would take turns, not rows

        def change(rows: PartitionRows) -> PartitionRows:
            # A function mapped before keeps getting what it got; but Python's numbers would lose their dtypes here.
            if mapped:
                return rows if (rows.mode, mode) != ("python", "numpy") else rows.with_changes(mode=mode)
            return rows.with_changes(mode=mode, plain=not config.is_tensor)

        stream = adopt(super().with_format(config.format_type))
        return stream._with_source(map_source(stream._ex_iterable, change))

    def shuffle(
        self,
        seed: int | None = None,
        generator=None,
        buffer_size: int | None = None,
        buffer_bytes: int = BUFFER_BYTES,
        **options,
    ) -> SurveyStream:
        """Shuffle pieces of files, then the rows of as many pieces as ``buffer_bytes`` spans.

        Pixels in local files are read row by row when their turn comes; rows from a URL are held in memory until then.

        The order depends on seed and epoch alone, so resuming by ``state_dict`` is exact. Rows of several datasets go
        through a buffer, too, which is handed out before it is filled again: resuming is exact, and fills one buffer again.
        They go through that alone where another order of files would change which rows there are: after ``batch``, ``take``,
        ``skip`` or ``interleave_datasets`` (to mix whole surveys, shuffle each before) and functions that get indices.

        Args:
            seed: pass one where several nodes read; without it every call draws another.
            generator: numpy.random.Generator to draw the seed from instead.
            buffer_size: rows of that buffer, by default as many as fit into ``buffer_bytes``.
            buffer_bytes: rows to mix at a time, 256 MiB by default; more mixes more cells.
            options: ``max_buffer_input_shards`` of stock.
        """
        drawn = seed is None and generator is None
        if seed is None:
            generator = np.random.default_rng() if generator is None else copy.deepcopy(generator)
            seed = int(generator.integers(2**63))
        source, settled = self._ex_iterable, is_settled(self._ex_iterable)
        if not settled:
            changes = {"seed": (seed,), "seed_was_drawn": drawn, "window_bytes": buffer_bytes}
            source = map_source(source, lambda rows: rows.with_changes(**changes))
        else:
            source = Fixed(source)
            if "max_buffer_input_shards" in inspect.signature(IterableDataset.shuffle).parameters:  # not in datasets 3
                options["max_buffer_input_shards"] = 1
        stream = self._with_source(source)
        leaves = [link for link in links(source) if not children(link)]
        ours = [leaf for leaf in leaves if isinstance(leaf, PartitionRows)]
        if settled or len(leaves) > 1 or not ours:
            if buffer_size is None and ours:
                together = np.prod([link.batch_size or 1 for link in links(source) if makes_batches(link)], dtype=int)
                buffer_size = max(1, buffer_bytes // max(rows._row_bytes for rows in ours) // int(together))
            options |= {} if buffer_size is None else {"buffer_size": buffer_size}
            stream = adopt(IterableDataset.shuffle(stream, seed=seed, **options))
            stream._ex_iterable.seed_was_drawn = drawn
            stream._check_seed()
        return stream

    def deterministic(self, batch_size: int = 1) -> SurveyStream:
        """The same order of rows for any number of nodes and workers, so that a run may go on with other numbers of them.

        Comes before all other steps; after it only those go that hand on each row (``shuffle``, which wants a seed,
        ``map`` of single rows, columns selected, renamed, cast). With the same rows in all batches of a step, such as
        64 = 1 x 64 = 4 x 16, each step has the same rows. Every worker goes through all files.

        Args:
            batch_size: rows of a batch of each node's ``DataLoader``; 1 where rows are taken one by one.

        Raises:
            UserError: there are other steps already.
        """
        return self._with_source(made_elastic(self._ex_iterable, batch_size))

    def state_after(self, rows: int) -> dict:
        """The state of a deterministic stream after all nodes together handed out ``rows`` rows of this epoch.

        ``load_state_dict`` of it, before a ``DataLoader`` begins, goes on from there with any number of nodes and workers.

        Raises:
            UserError: the stream is not deterministic.
        """
        state, source = self._prepared()
        elastic = next((link for link in links(source) if isinstance(link, ElasticRows)), None)
        if elastic is None:
            raise UserError("state_after() is for deterministic streams: skyset.load(..., deterministic=True)")
        elastic._state_dict.update(origin=rows, position=rows)
        return copy.deepcopy({"examples_iterable": source._state_dict, "epoch": state["epoch"]})

    def _check_seed(self) -> None:
        several_nodes = self._distributed and self._distributed.world_size > 1
        if several_nodes and any(getattr(link, "seed_was_drawn", False) for link in links(self._ex_iterable)):
            raise ValueError(
                "pass seed= to shuffle() where several nodes read: without it every node draws an order of its own, "
                "and rows would be read twice or never"
            )

    @property
    def skipped(self) -> dict[str, int]:
        """Rows that were left out so far in this process because of ``on_bad_partition="skip"``, by the reason."""
        return {reason: rows for link in links(self._ex_iterable) for reason, rows in getattr(link, "bad", {}).items()}

    def take(self, n: int) -> SurveyStream:
        """As in `datasets`; without a shuffle before it, the very first ``n`` rows however many workers read them."""
        return self._cut(0, n) or adopt(super().take(n))

    def skip(self, n: int) -> SurveyStream:
        """As in `datasets`; without a shuffle before it, the bytes of skipped rows are not read."""
        return self._cut(n, None) or adopt(super().skip(n))

    def _cut(self, start: int, stop: int | None) -> SurveyStream | None:
        """Cut the partitions' rows, if all steps after them hand on each row that they get."""
        rows = self._ex_iterable
        while not isinstance(rows, PartitionRows) and goes_through(rows, skipping=start > 0):
            rows = rows.ex_iterable
        if not isinstance(rows, PartitionRows) or rows.seed is not None or self._distributed:
            return None
        return self._with_source(map_source(self._ex_iterable, lambda rows: rows.between(start, stop)))

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

    def repeat(self, num_times: int | None) -> SurveyStream:
        """As in `datasets`; workers and nodes share the rows in version 3 too."""
        return self._with_source(Repeated(self._ex_iterable, num_times))

    def select_columns(self, column_names: str | list[str]) -> SurveyStream:
        """As in `datasets`; the bytes of other columns are not read."""
        selected = adopt(super().select_columns(column_names))
        rows = selected._ex_iterable
        if isinstance(rows, SelectColumnsIterable) and isinstance(rows.ex_iterable, PartitionRows):
            if rows.column_names:
                return selected._with_source(rows.ex_iterable.select(rows.column_names))
            narrow = min(self.features, key=lambda name: not isinstance(self.features[name], datasets.Value))
            rows.ex_iterable = rows.ex_iterable.select([narrow])  # how many rows there are, and no pixels
        return selected

    def remove_columns(self, column_names: str | list[str]) -> SurveyStream:
        """As in `datasets`; the bytes of these columns are not read."""
        gone = [column_names] if isinstance(column_names, str) else column_names
        if self.features and set(gone) <= set(self.features) and not set(self.features) <= set(gone):
            return self.select_columns([name for name in self.features if name not in gone])
        return adopt(super().remove_columns(column_names))

    def cast(self, features: datasets.Features) -> SurveyStream:
        """As in `datasets`, and values change in every format; images that are not to be decoded are not.

        Raises:
            UserError: other columns than there are, or a feature whose values would have another layout.
        """
        old = self.features
        stream = adopt(super().cast(features))
        if not old:
            return stream  # after a map: `datasets` makes the values fit
        features = stream.features
        if set(features) != set(old):
            raise UserError(f"cast() wants a feature for each column, and no other: {', '.join(sorted(old))}")
        pictures = {name for name in old if isinstance(old[name], datasets.Image)}
        pictures -= {name for name in pictures if not isinstance(features[name], datasets.Image)}
        for name in set(old) - pictures:
            check_cast(old[name], features[name], name)
        rows = stream._ex_iterable
        changed = [name for name in old if name not in pictures and old[name] != features[name]]
        if isinstance(rows, PartitionRows):
            return stream._with_source(rows.cast(features))
        return stream._with_source(Cast(rows, features, changed)) if rows.is_typed and changed else stream

    def cast_column(self, column: str, feature) -> SurveyStream:
        """As in `datasets`, and values change in every format; ``datasets.Image()`` asks for ``PIL.Image``."""
        if self.features is None:
            raise UserError(f"cannot cast {column}: which columns there are is not known after map(); tell it features=")
        if column not in self.features:
            raise UserError(f"there is no column {column} to cast: {', '.join(self.features)}")
        stream = self.cast(datasets.Features({**self.features, column: feature}))
        if not is_picture(feature):
            return stream
        return stream._with_source(map_source(stream._ex_iterable, lambda rows: rows.with_changes(pil=True)))

    def rename_columns(self, column_mapping: dict[str, str]) -> SurveyStream:
        """As in `datasets`; costs nothing."""
        rows, old = self._ex_iterable, set(column_mapping)
        final = [column_mapping.get(name, name) for name in self.features or ()]
        if not self.features or not old <= set(self.features) or len(set(final)) < len(final):
            return adopt(super().rename_columns(column_mapping))
        renamed = rows.rename(column_mapping) if isinstance(rows, PartitionRows) else Renamed(rows, column_mapping)
        stream = self._with_source(renamed)
        stream._info.features = datasets.Features(dict(zip(final, self.features.values(), strict=True)))
        return stream

    def rename_column(self, original_column_name: str, new_column_name: str) -> SurveyStream:
        """As in `datasets`; costs nothing."""
        return self.rename_columns({original_column_name: new_column_name})

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        """Rows of one pass, from the manifest; for the ``len`` of a ``DataLoader`` what its workers will hand out.

        Raises:
            TypeError: only reading tells, as after ``filter`` or a batched ``map``.
        """
        rows = self._prepared()[1]
        loader = _asking_loader(self)
        count = rows_in(rows) if loader is None else _rows_for(loader, rows)
        if count is None:
            raise TypeError("how many rows this stream has is known only once they are read")
        return count

    def __iter__(self) -> Iterator[dict]:
        return self._resumed_once(super().__iter__())

    def load_state_dict(self, state_dict: dict) -> None:
        """As in `datasets`: the next pass goes on from there. Passes after that one are whole."""
        super().load_state_dict(state_dict)
        self._state_dict = copy.deepcopy(state_dict)  # until a pass begins, this is where the stream is

    def _resumed_once(self, rows: Iterator[dict]) -> Iterator[dict]:
        """A state that was loaded is for one pass: the passes after it are whole again.

        It is spent with the pass's end; in a loader's worker, where only the loader begins passes, with its beginning.
        """
        state = self._starting_state_dict
        if state is None or state["epoch"] != self.epoch:
            yield from rows
            return
        if _in_worker():
            first = next(rows, None)
            self._starting_state_dict = None
            if first is not None:
                yield first
        yield from rows
        if self._starting_state_dict is state:
            self._starting_state_dict = None

    def iter(self, batch_size: int, drop_last_batch: bool = False) -> Iterator[dict]:
        """As in `datasets`; with numpy or torch formatting arrays are stacked, in groups of layers too."""
        if self._formatting and is_tensor_format(self._formatting.format_type):
            return self._resumed_once(self._tensor_batches(batch_size, drop_last_batch))
        return self._resumed_once(super().iter(batch_size, drop_last_batch))

    def _tensor_batches(self, batch_size: int, drop_last_batch: bool) -> Iterator[dict]:
        source = self._prepare_ex_iterable_for_iteration(batch_size, drop_last_batch)
        batches = source.batches(batch_size) if isinstance(source, PartitionRows) else _merged(source, batch_size)
        for batch in batches:
            if drop_last_batch and row_count(batch) < batch_size:
                return
            yield batch

    def _prepare_ex_iterable_for_iteration(self, *args, **kwargs) -> _BaseExamplesIterable:
        """Put the source into the epoch's order first; `datasets` then splits it among nodes and workers."""
        self._check_seed()
        self._state_dict, rows = self._prepared(*args, **kwargs)
        return rows

    def _prepared(self, *args, **kwargs) -> tuple[dict, _BaseExamplesIterable]:
        """The state, and the iterable that it is of."""
        check_steps(self._ex_iterable)
        nodes = self._distributed.world_size if self._distributed else 1
        source = made_exact(map_source(self._ex_iterable, lambda rows: rows.ordered(self.epoch, nodes)))
        has_several = any(hasattr(link, "ex_iterables") for link in links(source))
        if has_several and not any(is_shuffled(link) for link in links(source)):
            source = Fixed(source)
        if any(getattr(link, "with_indices", False) for link in links(source)):
            source = Whole(source)
        twin = object.__new__(type(self))  # two threads may iterate at a time
        twin.__dict__ = {**self.__dict__, "_ex_iterable": source, "_starting_state_dict": None}
        rows = super(SurveyStream, twin)._prepare_ex_iterable_for_iteration(*args, **kwargs)
        _keep_decoded(rows, any(link.has_images for link in links(rows) if isinstance(link, PartitionRows)))
        rows = self._without_formatting(rows)
        rows = rows if is_exact(rows) else Replayed(rows)
        state = {"examples_iterable": rows._init_state_dict(), "epoch": self.epoch}
        if self._starting_state_dict and self.epoch == self._starting_state_dict["epoch"] and not _in_worker():
            try:
                rows.load_state_dict(self._starting_state_dict["examples_iterable"])
            except (KeyError, IndexError, TypeError, AttributeError):
                raise ValueError("this state was saved by another stream (its steps differ)") from None
            state["examples_iterable"] = rows._state_dict
        return state, rows

    def _without_formatting(self, rows: _BaseExamplesIterable) -> _BaseExamplesIterable:
        """Rows straight from partitions come in their format; `datasets` would go through every value once more."""
        inner = rows
        while isinstance(inner, FormattedExamplesIterable | RebatchedArrowExamplesIterable):
            inner = inner.ex_iterable
        if not isinstance(inner, PartitionRows) or not self._formatting or inner.mode != "numpy":
            return rows
        inner.mode = "torch" if self._formatting.format_type == own_format("torch") else "numpy"
        return inner


def _keep_decoded(rows: _BaseExamplesIterable, has_images: bool) -> None:
    """Spare rows from becoming tables and rows again, and decoded images from being encoded again.

    Both happens wherever a step made `datasets` forget the rows' features, the first in version 3.
    """
    for link in links(rows):
        if not isinstance(link, FormattedExamplesIterable) or (link.formatting and link.formatting.is_table):
            continue
        inner = link.ex_iterable
        if isinstance(inner, RebatchedArrowExamplesIterable) and not inner.ex_iterable.iter_arrow:
            link.ex_iterable = inner.ex_iterable
        if has_images and link._features and not link.iter_arrow:
            link._features = DecodedFeatures(link._features)


def is_shuffled(rows: _BaseExamplesIterable) -> bool:
    return isinstance(rows, Shuffled) or getattr(rows, "seed", None) is not None


def _in_worker() -> bool:
    """Whether this is a worker process of a ``DataLoader``."""
    if "torch" not in sys.modules:
        return False
    from skyset.loading import batches

    return batches.in_worker()


def _asking_loader(stream: SurveyStream):
    """The ``DataLoader`` whose ``__len__`` asks for the stream's; None where somebody else does.

    A loader rounds up, or down, once: it does not know that each worker ends with a batch of its own.
    """
    caller = sys._getframe(2)
    loader = caller.f_locals.get("self") if caller.f_code.co_name == "__len__" else None
    fields = ("dataset", "num_workers", "batch_size", "drop_last")
    if loader is None or loader is stream or not all(hasattr(loader, name) for name in fields):
        return None
    return loader if loader.dataset is stream and loader.num_workers > 1 else None


def _rows_for(loader, rows: _BaseExamplesIterable) -> int | None:
    """As many rows as make a loader count the batches that its workers will hand out."""
    workers, size = loader.num_workers, loader.batch_size
    counts = [
        rows_in(rows.shard_data_sources(num_shards=workers, index=worker, contiguous=False))
        for worker in range(min(workers, rows.num_shards))
    ]
    shares = [count for count in counts if count is not None]
    if len(shares) < len(counts):
        return None
    if size is None:
        return sum(shares)
    return size * sum(share // size if loader.drop_last else -(-share // size) for share in shares)


def _merged(source: _BaseExamplesIterable, batch_size: int) -> Iterator[dict]:
    """Batches of rows that went through other steps."""
    rows = (row for _, row in source)
    while batch := list(islice(rows, batch_size)):
        yield {name: merge([row[name] for row in batch]) for name in batch[0]}


def adopt(result, pil: bool = False):
    """Make a stock stream or table that one of ours gave rise to ours again; ``pil`` as in ``ArrayFeatures``."""
    if type(result) is IterableDataset:
        result.__class__ = SurveyStream
        result._prepare_ex_iterable_for_iteration()  # its state is of our order
    elif type(result) in (datasets.Dataset, SurveyTable):
        result.__class__ = SurveyTable
        result._format_type = own_format(result._format_type)
        result._set_pil(pil)
    elif isinstance(result, dict) and type(result) in (datasets.DatasetDict, datasets.IterableDatasetDict):
        for key, value in result.items():
            result[key] = adopt(value, pil)
    return result


class SurveyTable(datasets.Dataset):
    """``datasets.Dataset`` that gives numpy arrays without a format, and whose formats keep dtypes."""

    @property
    def pil(self) -> bool:
        """Whether encoded images come as ``PIL.Image`` where there is no format: by ``decode="pil"``, or after a cast."""
        return getattr(self._info.features, "pil", False)

    def _set_pil(self, pil: bool) -> None:
        features = ArrayFeatures(self._info.features)
        features.pil = pil
        self._info.features = features

    def set_format(self, type: str | None = None, *args, **kwargs) -> None:
        """As in `datasets`, but ``"numpy"`` and ``"torch"`` keep the columns' dtypes (uint8 stays uint8)."""
        super().set_format(own_format(type), *args, **kwargs)

    def cast(self, features: datasets.Features, *args, **kwargs) -> SurveyTable:
        """As in `datasets`; images that were none before, or of another mode, come as ``PIL.Image``."""
        asked = any(is_picture(feature) and feature != self.features.get(name) for name, feature in features.items())
        return adopt(super().cast(features, *args, **kwargs), self.pil or asked)

    def cast_column(self, column: str, feature, *args, **kwargs) -> SurveyTable:
        """As in `datasets`; a column that is cast to ``datasets.Image()`` comes as ``PIL.Image``."""
        return adopt(super().cast_column(column, feature, *args, **kwargs), self.pil or is_picture(feature))

    def save_to_disk(self, *args, **kwargs) -> None:
        """As in `datasets`; what is saved can be loaded without skyset too."""
        twin = copy.copy(self)
        twin._format_type = stock_format(self._format_type)
        datasets.Dataset.save_to_disk(twin, *args, **kwargs)


def _keep_class(cls: type, names: Sequence[str]) -> None:
    """`datasets` makes a new stock object in each of these methods: give them back as ``cls``."""

    def keeping(method: Callable) -> Callable:
        return functools.wraps(method)(
            lambda self, *args, **kwargs: adopt(method(self, *args, **kwargs), getattr(self, "pil", False))
        )

    for name in names:
        if hasattr(cls, name):
            setattr(cls, name, keeping(getattr(cls, name)))


_keep_class(
    SurveyStream,
    (
        "add_column",
        "batch",
        "cast",
        "cast_column",
        "decode",
        "map",
        "reshard",
        "shard",
        "_resolve_features",
        "_step",
    ),
)
_keep_class(
    SurveyTable,
    (
        "add_column",
        "add_item",
        "batch",
        "class_encode_column",
        "filter",
        "flatten",
        "flatten_indices",
        "map",
        "remove_columns",
        "rename_column",
        "rename_columns",
        "repeat",
        "select",
        "select_columns",
        "shard",
        "shuffle",
        "skip",
        "sort",
        "take",
        "to_iterable_dataset",
        "train_test_split",
        "_fast_select_column",
    ),
)
