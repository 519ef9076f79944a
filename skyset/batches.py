"""Torch tensors from slabs, and batches of them for a ``DataLoader``: without a copy, as one tensor between processes.

Rows that come straight from a slab remember it (``Row``), and ``default_collate``, which a ``DataLoader`` uses unless told
otherwise, is told of the type. A worker's slabs lie in shared memory and hold as many rows as a batch, so that a batch is
the slab itself; to the main process it travels as one tensor (``Packed``) in place of one a column. A row or a batch
that somebody changed goes the ordinary way.

Only processes that have imported torch import this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import default_collate
from torch.utils.data import get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from skyset.reader import carve
from skyset.reader import rows_of

_last_batch_size: int | None = None


def batch_size() -> int | None:
    """Rows of the last batch that was collated in this process: what a slab should hold. None before the first."""
    return _last_batch_size


def in_worker() -> bool:
    """Whether this is a worker process of a ``DataLoader``."""
    return get_worker_info() is not None


class Blocks:
    """Memory for slabs, uint8 (bytes,); in a worker shared memory, which the main process can take over as it is."""

    def __init__(self):
        self.last: torch.Tensor | None = None

    def __call__(self, size: int) -> np.ndarray:
        self.last = torch.empty(size, dtype=torch.uint8)
        if in_worker():
            self.last.share_memory_()
        return self.last.numpy()


def as_tensors(columns: Mapping) -> dict:
    """Columns with tensors in place of arrays, sharing their memory; text stays text."""
    return {
        name: as_tensors(values)
        if isinstance(values, Mapping)
        else torch.from_numpy(values)
        if isinstance(values, np.ndarray)
        else values
        for name, values in columns.items()
    }


def leaves(values: Mapping) -> Iterator:
    """All values, those of a group in its place."""
    for value in values.values():
        if isinstance(value, Mapping):
            yield from leaves(value)
        else:
            yield value


def _same(values: tuple, others: tuple) -> bool:
    return len(values) == len(others) and all(a is b for a, b in zip(values, others, strict=True))


class Row(dict):
    """A row that knows its place in a slab. To everyone else it is a dict, and it pickles and copies as one."""

    __slots__ = ("block", "columns", "given", "number")

    def __reduce__(self):
        return dict, (dict(self),)

    def untouched(self) -> bool:
        """Whether all values are still those that were handed out."""
        return _same(tuple(leaves(self)), self.given)


def remembering_rows(columns: Mapping, block: torch.Tensor) -> Iterator[Row]:
    """Rows of columns; ``block`` is the memory that all arrays and tensors of the columns are parts of."""
    for number, values in enumerate(rows_of(_unbound(columns))):
        row = Row(values)
        row.block, row.columns, row.number, row.given = block, columns, number, tuple(leaves(values))
        yield row


def _unbound(columns: Mapping) -> dict:
    """Tensors taken apart into rows in one call each, which costs a fraction of indexing them row by row."""
    return {
        name: _unbound(values)
        if isinstance(values, Mapping)
        else values.unbind(0)
        if isinstance(values, torch.Tensor)
        else values
        for name, values in columns.items()
    }


def collate_rows(batch: Sequence[Row], *, collate_fn_map=None) -> dict:
    """What ``default_collate`` makes of these rows as plain dicts, taken from their slabs where they are untouched."""
    global _last_batch_size
    _last_batch_size = len(batch)
    if not all(row.untouched() for row in batch):
        return default_collate([dict(row) for row in batch])
    first, numbers = batch[0], [row.number for row in batch]
    run = range(numbers[0], numbers[0] + len(batch))
    if numbers == list(run) and all(row.columns is first.columns for row in batch):
        return Packed(_sliced(first.columns, slice(run.start, run.stop)), first.block)
    return _copied(batch)


default_collate_fn_map[Row] = collate_rows


def _sliced(columns: Mapping, rows: slice) -> dict:
    return {
        name: _sliced(values, rows) if isinstance(values, Mapping) else _collated(values[rows])
        for name, values in columns.items()
    }


def _collated(values):
    """A column as ``default_collate`` gives it: a tensor; a list of text; for lists of text, one tuple a place."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(values)
    if isinstance(values, list) and values and isinstance(values[0], list):
        return list(zip(*values, strict=True))
    return values


def _copied(batch: Sequence[Row]) -> Packed:
    """A batch of rows from here and there, copied into one block."""
    blocks, shapes, first = Blocks(), {}, batch[0].columns
    for place, values in enumerate(leaves(first)):
        if not isinstance(values, list):
            dtype = values.numpy().dtype if isinstance(values, torch.Tensor) else values.dtype
            shapes[place] = dtype, (len(batch), *values.shape[1:])
    arrays = carve(blocks, shapes)
    texts = {place: [] for place, values in enumerate(leaves(first)) if place not in shapes}
    for columns, numbers, at in _runs(batch):
        for place, values in enumerate(leaves(columns)):
            if place in texts:
                texts[place].extend(values[number] for number in numbers)
            else:
                np.take(np.asarray(values), numbers, axis=0, out=arrays[place][at : at + len(numbers)], mode="clip")
    parts = iter({**arrays, **texts}[place] for place in range(len(arrays) + len(texts)))
    return Packed(_rebuilt(first, parts), blocks.last)


def _runs(batch: Sequence[Row]) -> Iterator[tuple[dict, list[int], int]]:
    """(columns, numbers of rows, place in the batch) of neighbouring rows of one slab."""
    start = 0
    for end in range(1, len(batch) + 1):
        if end == len(batch) or batch[end].columns is not batch[start].columns:
            yield batch[start].columns, [row.number for row in batch[start:end]], start
            start = end


def _rebuilt(columns: Mapping, parts: Iterator) -> dict:
    return {
        name: _rebuilt(values, parts) if isinstance(values, Mapping) else _collated(next(parts))
        for name, values in columns.items()
    }


class Packed(dict):
    """A batch whose tensors are parts of one block: it travels to another process as that block and a list of places."""

    __slots__ = ("block", "given")

    def __init__(self, values: Mapping, block: torch.Tensor):
        super().__init__(values)
        self.block, self.given = block, tuple(leaves(values))

    def __reduce__(self):
        values = tuple(leaves(self))
        if (
            not in_worker()
            or len(values) != len(self.given)
            or any(a is not b for a, b in zip(values, self.given, strict=True))
        ):
            return dict, (dict(self),)
        return _unpacked, (self.block, _places(self, self.block.data_ptr()))


def _places(values: Mapping, start: int) -> dict:
    """Where each tensor lies in the block: (dtype, shape, stride, offset in bytes)."""
    return {
        name: _places(value, start)
        if isinstance(value, Mapping)
        else (value.dtype, value.shape, value.stride(), value.data_ptr() - start)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in values.items()
    }


def _unpacked(block: torch.Tensor, places: Mapping) -> dict:
    storage = block.untyped_storage()

    def part(place):
        if isinstance(place, Mapping):
            return {name: part(inner) for name, inner in place.items()}
        if not isinstance(place, tuple):
            return place
        dtype, shape, stride, offset = place
        return torch.empty(0, dtype=dtype).set_(storage, offset // dtype.itemsize, shape, stride)

    return part(places)
