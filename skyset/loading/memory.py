"""Memory that slabs are read into: used again once nobody sees it, and carved into arrays."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

_ALIGNMENT = 64
#: Blocks that are kept for the next slab: the consumer holds the one before while one is read.
_KEPT = 3


def fresh(size: int) -> np.ndarray:
    """uint8 (bytes,), of no value yet."""
    return np.empty(size, np.uint8)


class Reused:
    """Makes blocks, uint8 (bytes,): out of memory that was handed out before, once no array is a part of it any more.

    The allocator gives blocks of many megabytes back to the system, and clearing their pages anew takes a third of the
    time of reading into them.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[np.ndarray, weakref.ref]] = deque(maxlen=_KEPT)

    def __call__(self, size: int) -> np.ndarray:
        if not size:
            return fresh(size)
        store = next((store for store, seen in self._kept if seen() is None and size <= len(store) <= 2 * size), None)
        if store is None:
            self._drop_unseen()
            store = fresh(size)
        else:
            self._kept = deque((pair for pair in self._kept if pair[0] is not store), _KEPT)
        # Arrays that are made of this one hold it, not the store: through a memoryview numpy does not look further.
        memory: np.ndarray = np.frombuffer(store.data, np.uint8)
        self._kept.append((store, weakref.ref(memory)))
        return memory[:size]

    def _drop_unseen(self) -> None:
        """Of another size, now that slabs have changed."""
        self._kept = deque((pair for pair in self._kept if pair[1]() is not None), _KEPT)


def carve(new_block: Callable[[int], np.ndarray], shapes: Mapping) -> dict:
    """Arrays of the given (dtype, shape), by key, as parts of one block of memory."""
    offsets, end = [], 0
    for dtype, shape in shapes.values():
        offsets.append(end)
        end += -(-np.dtype(dtype).itemsize * math.prod(shape) // _ALIGNMENT) * _ALIGNMENT
    block = new_block(end)
    return {
        key: np.ndarray(shape, dtype, block, offset)
        for offset, (key, (dtype, shape)) in zip(offsets, shapes.items(), strict=True)
    }
