"""Row groups of Parquet files, kept decoded for a while: pieces and row groups do not end at the same rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import pyarrow as pa

#: Bytes that are kept, of all files.
KEPT_BYTES = 96 << 20


class Kept:
    """The row groups that were used last, of whatever file."""

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0

    def get(self, file: int, group: int, read: Callable[[], pa.Table]) -> pa.Table:
        with self._lock:
            if (table := self._tables.get((file, group))) is not None:
                self._tables.move_to_end((file, group))
                return table
        table = read()
        with self._lock:
            self._take((file, group))
            self._tables[file, group] = table
            self._bytes += table.nbytes
            while self._bytes > KEPT_BYTES and len(self._tables) > 1:
                self._take(next(iter(self._tables)))
        return table

    def _take(self, key: tuple[int, int]) -> None:
        if (table := self._tables.pop(key, None)) is not None:
            self._bytes -= table.nbytes

    def forget(self, file: int) -> None:
        with self._lock:
            for key in [key for key in self._tables if key[0] == file]:
                self._take(key)


kept = Kept()
