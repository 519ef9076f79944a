"""Torch tensors from slabs, and batches of them for a ``DataLoader``: without a copy, as one tensor between processes.

Rows that come straight from a slab remember it (``Row``), and ``default_collate``, which a ``DataLoader`` uses unless told
otherwise, is told of the type. A worker's slabs lie in shared memory and hold as many rows as a batch, so that a batch is
the slab itself; to the main process it travels as one tensor (``Packed``) in place of one per column. A row or a batch
that somebody changed goes the ordinary way.

Only processes that have imported torch import this module.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from skyset.loading.encoded import ImageRows, same_shapes
from skyset.loading.memory import carve, reused
from skyset.loading.ragged import Ragged
from skyset.pixels import ARRAY

_last_batch_size: int | None = None


def batch_size() -> int | None:
    """Rows of the last batch that was collated in this process: what a slab should hold. None before the first."""
    return _last_batch_size


def in_worker() -> bool:
    """Whether this is a worker process of a ``DataLoader``."""
    return get_worker_info() is not None


class Block:
    """Memory of one slab. A worker's is shared with the main process, and used again once nobody sees it any more.

    Fresh shared memory costs ten times as much as memory that was in use before. The last byte tells: the main process
    sets it when the last tensor of a batch is gone.
    """

    __slots__ = ("_memory", "sent", "tensor")

    def __init__(self, size: int):
        # As default_collate makes it: share_memory_() would copy what is not there yet.
        self.tensor = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size + 1))

    def take(self, size: int) -> np.ndarray:
        """The memory for a new slab, uint8 (bytes,)."""
        self.sent, self.tensor[-1] = False, _IN_USE
        memory = self.tensor.numpy()
        self._memory = weakref.ref(memory)
        return memory[:size]

    def is_free(self) -> bool:
        """Whether no array in this process, and no batch in the main one, is a part of it."""
        return self._memory() is None and (not self.sent or bool(self.tensor[-1] == _FREE))


_IN_USE, _FREE = 0, 1
_pool: list[Block] = []


class Blocks:
    """Makes memory for slabs, uint8 (bytes,), and remembers the last one made, None outside of workers."""

    def __init__(self) -> None:
        self.last: Block | None = None

    def __call__(self, size: int) -> np.ndarray:
        if not in_worker():
            return reused(size)
        free = [block for block in _pool if block.is_free()]
        self.last = min((b for b in free if len(b.tensor) > size), key=lambda block: len(block.tensor), default=None)
        if self.last is None:
            _pool[:] = [block for block in _pool if block not in free]  # too small, now that slabs are larger
            self.last = Block(size)
            _pool.append(self.last)
        return self.last.take(size)


def as_tensors(columns: dict) -> dict:
    """Columns with tensors in place of arrays, sharing their memory; text stays text; images become tensors later."""
    return {
        name: as_tensors(values)
        if isinstance(values, dict)
        else torch.from_numpy(values)
        if isinstance(values, np.ndarray)
        else values.with_changes(finish=torch.from_numpy)
        if isinstance(values, Ragged)
        else values
        for name, values in columns.items()
    }


def leaves(values: dict) -> Iterator:
    """All values, those of a group in its place."""
    for value in values.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield value


def _filled(name: str):
    """A method of dict that needs all the values."""
    method = getattr(dict, name)

    @functools.wraps(method)
    def filled(self, *args, **kwargs):
        self._fill()
        return method(self, *args, **kwargs)

    return filled


class Row(dict):
    """One row of a slab: a dict whose values are taken from the slab when somebody looks.

    Most rows go to ``default_collate`` unseen, as parts of a batch, and making a tensor a column for each would cost more
    than reading the pixels. It pickles and copies as a plain dict.
    """

    __slots__ = ("block", "columns", "number")

    def __init__(self, columns: dict, number: int, block: Block | None):
        self.columns: Any = columns  # None once somebody has looked
        self.number, self.block = number, block

    def untouched(self) -> bool:
        """Whether nobody has looked, or put something in."""
        return self.columns is not None and not dict.__len__(self)

    def _fill(self) -> None:
        if self.columns is not None:
            values = {**_row(self.columns, self.number), **{name: dict.__getitem__(self, name) for name in dict.keys(self)}}
            self.columns = None
            dict.update(self, values)

    def __missing__(self, name):
        if self.columns is None or name not in self.columns:
            raise KeyError(name)
        value = self[name] = _row({name: self.columns[name]}, self.number)[name]
        return value

    def __reduce__(self):
        return dict, (dict(self),)


for _name in (
    *("__contains__", "__delitem__", "__eq__", "__ior__", "__iter__", "__len__", "__ne__", "__or__", "__repr__"),
    *(
        "__reversed__",
        "__ror__",
        "clear",
        "copy",
        "get",
        "items",
        "keys",
        "pop",
        "popitem",
        "setdefault",
        "update",
        "values",
    ),
):
    setattr(Row, _name, _filled(_name))


def _row(columns: dict, number: int) -> dict:
    return {name: _row(values, number) if isinstance(values, dict) else values[number] for name, values in columns.items()}


def rows_of_slab(columns: dict, block: Block | None, count: int) -> Iterator[Row]:
    """Rows of columns; ``block`` is what all arrays and tensors of the columns are parts of, in a worker."""
    return (Row(columns, number, block) for number in range(count))


def collate_rows(batch: Sequence[Row], *, collate_fn_map=None) -> dict:
    """What ``default_collate`` makes of these rows as plain dicts, taken from their slabs where they are untouched."""
    global _last_batch_size
    _last_batch_size = len(batch)
    if not all(row.untouched() for row in batch):
        return default_collate([dict(row) for row in batch])
    first, numbers = batch[0], [row.number for row in batch]
    run = range(numbers[0], numbers[0] + len(batch))
    whole = not any(isinstance(values, Ragged) for values in leaves(first.columns))  # or images, yet to be decoded
    whole = whole and not (first.block is None and in_worker())  # texts of any length come from where others do
    if whole and numbers == list(run) and all(row.columns is first.columns for row in batch):
        return Packed(_sliced(first.columns, slice(run.start, run.stop)), first.block)
    return _copied(batch)


default_collate_fn_map[Row] = collate_rows


def _sliced(columns: dict, rows: slice) -> dict:
    return {
        name: _sliced(values, rows) if isinstance(values, dict) else _collated(values[rows])
        for name, values in columns.items()
    }


def _collated(values, ragged: bool = False):
    """A column as ``default_collate`` gives it: a tensor; a list of text; for lists of text, one tuple a place.

    Images that are not to be decoded, ``{"bytes": ..., "path": None}``, are one dict of two lists. Ragged rows are a list of
    tensors, or of lists of text, of whatever lengths they have.
    """
    if isinstance(values, np.ndarray):
        return torch.from_numpy(values)
    if _all(values, np.ndarray):
        return [torch.from_numpy(value) for value in values]
    if _all(values, dict):
        return {name: [value[name] for value in values] for name in values[0]}
    if _all(values, list) and not ragged:
        return list(zip(*values, strict=True))
    return values


def _all(values, kind: type) -> bool:
    """Whether values are a list of these alone: a row without a match has None."""
    return isinstance(values, list) and bool(values) and all(isinstance(value, kind) for value in values)


def _copied(batch: Sequence[Row]) -> Packed:
    """A batch of rows from here and there, copied into one block."""
    blocks, shapes, first = Blocks(), {}, batch[0].columns
    pictures = _decoded(batch)
    for place, values in enumerate(leaves(first)):
        if place in pictures and same_shapes(pictures[place]):
            shapes[place] = pictures[place][0].dtype, (len(batch), *pictures[place][0].shape)
        elif not isinstance(values, list | Ragged):
            dtype = values.numpy().dtype if isinstance(values, torch.Tensor) else values.dtype
            shapes[place] = dtype, (len(batch), *values.shape[1:])
    arrays = carve(blocks, shapes)
    texts: dict[int, list] = {place: [] for place, values in enumerate(leaves(first)) if place not in shapes}
    for columns, numbers, at in _runs(batch):
        for place, values in enumerate(leaves(columns)):
            if place in pictures:
                continue
            if place in texts:
                texts[place].extend(values[number] for number in numbers)
            else:
                np.take(np.asarray(values), numbers, axis=0, out=arrays[place][at : at + len(numbers)], mode="clip")
    for place, images in pictures.items():
        arrays[place] = _stacked(list(leaves(first))[place], images, arrays.get(place))
    columns = texts | arrays
    return Packed(_rebuilt(first, iter(columns[place] for place in range(len(columns)))), blocks.last)


def _decoded(batch: Sequence[Row]) -> dict[int, list[np.ndarray]]:
    """Pixels of the batch's images, by the place of their column."""
    pictures: dict[int, list[np.ndarray]] = {
        place: []
        for place, values in enumerate(leaves(batch[0].columns))
        if isinstance(values, ImageRows) and values.form == ARRAY
    }
    for row in batch if pictures else ():
        columns = list(leaves(row.columns))
        for place, images in pictures.items():
            images.append(columns[place].pixels(row.number))
    return pictures


def _stacked(values: ImageRows, images: Sequence[np.ndarray], out: np.ndarray | None):
    """Images of one size as one array in ``out``, others as a list of tensors."""
    if out is None:
        return [torch.from_numpy(values.with_changes(finish=None).finished(np.array(image))) for image in images]
    np.stack(images, out=out)
    return values.with_changes(finish=None).finished(out)


def _runs(batch: Sequence[Row]) -> Iterator[tuple[dict, list[int], int]]:
    """(columns, numbers of rows, place in the batch) of neighbouring rows of one slab."""
    start = 0
    for end in range(1, len(batch) + 1):
        if end == len(batch) or batch[end].columns is not batch[start].columns:
            yield batch[start].columns, [row.number for row in batch[start:end]], start
            start = end


def _rebuilt(columns: dict, parts: Iterator) -> dict:
    return {
        name: _rebuilt(values, parts)
        if isinstance(values, dict)
        else _collated(next(parts), ragged=isinstance(values, Ragged))
        for name, values in columns.items()
    }


class Packed(dict):
    """A batch whose tensors are parts of one block: it travels to another process as that block and a list of places."""

    __slots__ = ("block", "given")

    def __init__(self, values: dict, block: Block | None):
        super().__init__(values)
        self.block, self.given = block, tuple(leaves(values))

    def __reduce__(self):
        values = tuple(leaves(self))
        same = len(values) == len(self.given) and all(a is b for a, b in zip(values, self.given, strict=True))
        if not same or not in_worker():
            return dict, (dict(self),)
        self.block.sent = True
        return _unpacked, (self.block.tensor, _places(self, self.block.tensor.data_ptr()))


def _places(values: dict, start: int) -> dict:
    """Where each tensor lies in the block: an ``np.ndarray``'s (shape, dtype, offset in bytes, strides in bytes)."""
    places: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            places[name] = _places(value, start)
        elif isinstance(value, torch.Tensor):
            array = value.numpy()
            places[name] = _Place((array.shape, array.dtype.str, array.ctypes.data - start, array.strides))
        elif _all(value, torch.Tensor):
            places[name] = _packed_rows(value)
        else:
            places[name] = value
    return places


class _Place(tuple):
    """Marks a tensor's place among the other values of a batch."""

    __slots__ = ()


class _Rows(tuple):
    """Tensors of different lengths as (values one after the other, shapes): each alone would be a file of shared memory."""

    __slots__ = ()


def _packed_rows(rows: Sequence[torch.Tensor]) -> _Rows:
    return _Rows((np.concatenate([row.numpy().reshape(-1) for row in rows]), [tuple(row.shape) for row in rows]))


def _unpacked_rows(rows: _Rows) -> list[torch.Tensor]:
    values, shapes = rows
    parts = torch.split(torch.from_numpy(values), [math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _unpacked(block: torch.Tensor, places: dict) -> dict:
    """The batch in the process that it was sent to. Its tensors hold ``memory``; with the last of them it goes."""
    memory = block.numpy()
    weakref.finalize(memory, block.__setitem__, -1, _FREE).atexit = False
    return _parts(memory, places)


def _parts(memory: np.ndarray, places: dict) -> dict:
    batch: dict[str, object] = {}
    for name, place in places.items():
        if isinstance(place, dict):
            batch[name] = _parts(memory, place)
        elif isinstance(place, _Place):
            shape, dtype, offset, strides = place
            batch[name] = torch.from_numpy(np.ndarray(shape, dtype, memory, offset, strides))
        elif isinstance(place, _Rows):
            batch[name] = _unpacked_rows(place)
        else:
            batch[name] = place
    return batch
