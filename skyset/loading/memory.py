"""Memory that slabs are read into: used again once nobody sees it, and carved into arrays."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping

import numpy as np

_ALIGNMENT = 64
#: Blocks that are kept for the next slab: the consumer holds the one before while one is read.
_KEPT = 3
#: Larger ones are not: there may be little else in memory.
_LARGEST = 32 << 20


def fresh(size: int) -> np.ndarray:
    """uint8 (bytes,), of no value yet."""
    return np.empty(size, np.uint8)


class Reused:
    """Makes blocks, uint8 (bytes,): out of memory that was handed out before, once no array is a part of it any more.

    The allocator gives blocks of many megabytes back to the system, and clearing their pages anew takes a third of the
    time of reading into them. Threads may share one: a block is taken out of the dictionary by whoever uses it.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[np.ndarray, weakref.ref]] = {}

    def __call__(self, size: int) -> np.ndarray:
        if not 0 < size <= _LARGEST:
            return fresh(size)
        store = self._unseen(size)
        # Arrays that are made of this one hold it, not the store: through a memoryview numpy does not look further.
        memory: np.ndarray = np.frombuffer(store.data, np.uint8)
        self._kept[id(store)] = store, weakref.ref(memory)
        for key in list(self._kept)[:-_KEPT]:
            self._kept.pop(key, None)
        return memory[:size]

    def forget(self) -> None:
        """Let go of what is kept."""
        self._kept.clear()

    def _unseen(self, size: int) -> np.ndarray:
        """The smallest store of at least so many bytes that nobody sees; a new one in place of those too small."""
        unseen = [(len(store), key) for key, (store, seen) in list(self._kept.items()) if seen() is None]
        for length, key in sorted(unseen):
            if length >= size and (pair := self._kept.pop(key, None)):
                return pair[0]
        for _, key in unseen:
            self._kept.pop(key, None)
        return fresh(size)


#: Of this process: passes over a stream follow each other, and their slabs are alike.
reused = Reused()


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
