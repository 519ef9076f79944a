"""Small columns of slabs that follow each other: read in long runs of rows, handed out as parts of them.

Pixels are what a slab is read for. A hundred small columns beside them would each cost a read and an array per slab, and
other people's files the making of values from what is stored: as much time as the pixels take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from skyset.errors import PartitionError
from skyset.loading.memory import carve, fresh
from skyset.partitions.layout import PIXELS_FROM
from skyset.survey import Column

#: Rows that are read at a time, and what they may take.
RUN_ROWS, RUN_BYTES = 16_384, 8 << 20
#: Slabs follow each other where no more rows than this lie between them: those of other workers.
GAP_ROWS = RUN_ROWS // 4
#: A run is read where it holds at least as many slabs.
_SLABS = 4


class Source(Protocol):
    """What a run is read from: ``Partition``, or one that reads as it does."""

    rows: int

    def read_columns(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None: ...


@dataclass
class _Run:
    path: str
    start: int
    stop: int
    taken: int  # rows before this one were handed out, and may have been written to
    values: dict[str, np.ndarray]


class Runs:
    """The run that is being handed out. Every row of it is handed out once: it may be written to, or kept.

    Args:
        columns: those of a survey that are wanted; small ones of numbers and text are read in runs.
    """

    def __init__(self, columns: Sequence[Column]):
        small = [column for column in columns if not column.is_ragged and column.row_bytes < PIXELS_FROM]
        self._shapes = {column.name: (column.stored_dtype, column.shape) for column in small}
        self._rows = min(RUN_ROWS, RUN_BYTES // max(1, sum(column.row_bytes for column in small))) if small else 0
        self._run: _Run | None = None
        self._path, self._last = "", 0
        self._bad: set[str] = set()

    @property
    def names(self) -> set[str]:
        return set(self._shapes)

    def forget(self) -> None:
        """Let go of the run."""
        self._run, self._path = None, ""

    def take(self, source: Callable[[], Source], path: str, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows ``start:stop`` of the small columns, arrays (rows, *shape) by name; nothing where they are not in a run.

        Args:
            source: opens the file.
            path: which one it is.
        """
        run = self._run
        if run is None or run.path != path or not run.taken <= start <= stop <= run.stop:
            follows = path == self._path and 0 <= start - self._last <= GAP_ROWS
            wanted = follows and self._rows >= _SLABS * (stop - start) and path not in self._bad
            self._run = run = None  # its memory is for the next one
            if wanted:
                self._run = run = self._read(source(), path, start, stop)
        self._path, self._last = path, stop
        if run is None:
            return {}
        run.taken = stop
        first, last = start - run.start, stop - run.start
        return {name: values[first:last] for name, values in run.values.items()}

    def _read(self, source: Source, path: str, start: int, stop: int) -> _Run | None:
        last = max(stop, min(source.rows, start + self._rows))
        values = carve(fresh, {name: (dtype, (last - start, *shape)) for name, (dtype, shape) in self._shapes.items()})
        try:
            source.read_columns(values, start, last)
        except PartitionError:
            self._bad.add(path)  # the slab that is bad will say so when its turn comes
            return None
        return _Run(path, start, last, start, values)
