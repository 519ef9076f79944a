"""A large set of short names."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Set

import numpy as np

_FEW = 1 << 16  # keys that are cheap to keep as text


class Keys(Set):
    """A set of ASCII keys that takes as many bytes per key as the longest one has letters; a Python set takes 130."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._sorted = np.array([], "S")
        self._new: set[str] = set()
        for key in keys:
            self.add(key)

    def __contains__(self, key: object) -> bool:
        if key in self._new:
            return True
        if not isinstance(key, str) or not key.isascii():
            return False
        data = key.encode()
        place = bisect.bisect_left(self._sorted, data)
        return place < len(self._sorted) and self._sorted[place] == data

    def __iter__(self) -> Iterator[str]:
        yield from (key.decode() for key in self._sorted)
        yield from self._new

    def __len__(self) -> int:
        return len(self._sorted) + len(self._new)

    def add(self, key: str) -> None:
        """Take in a key that is not there yet."""
        self._new.add(key)
        if len(self._new) >= _FEW:
            self._sorted = np.concatenate([self._sorted, np.array(sorted(self._new), "S")])
            self._sorted.sort(kind="stable")
            self._new = set()
