"""What files of adopted trees have in common as ``PieceReader`` reads them, of whatever kind; and what is said where one
is not what it was.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np

from skyset.errors import PartitionError, RecordError
from skyset.partitions.partition import bounds_of, decoded, one_row
from skyset.partitions.tree.form import TreeForm
from skyset.partitions.tree.structure import DAMAGE, reason_of
from skyset.survey import Column


def changed(path: str, what: str) -> PartitionError:
    """What to say of a file that is not the one that was adopted."""
    return PartitionError(f"{path}: {what}: it was changed since it was adopted: run `skyset adopt` again")


def gone(path: str, tree: str, error: OSError) -> PartitionError:
    """What to say of a file that cannot be opened."""
    if not os.path.isdir(tree):
        return PartitionError(f"{path}: the tree {tree} is not there: where it was moved to, run `skyset adopt` again")
    if isinstance(error, FileNotFoundError):
        return PartitionError(f"{path}: no such file: the tree lost it since it was adopted: run `skyset adopt` again")
    return PartitionError(f"{path}: {error.strerror or error}")


def named(error: PartitionError, path: str, tree: str) -> PartitionError:
    """The same, with the file that is to blame where it names none of its tree."""
    return error if f"{tree}/" in str(error) else PartitionError(f"{path}: {error}")


class TreeFile(ABC):
    """An open file of a tree, or several that are read as one.

    Args:
        path: of the file, absolute.
        columns: those of the survey that are wanted.
        form: how the tree holds them.

    Attributes:
        rows: how many there are.
    """

    rows: int

    def __init__(self, path: str, columns: Sequence[Column], form: TreeForm):
        self.path, self.columns, self._form = path, {column.name: column for column in columns}, form
        self._lock = threading.RLock()

    @property
    @abstractmethod
    def stamp(self) -> tuple:
        """Of the file: another one once somebody has written to it."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _read(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        """See ``read_columns``; what goes wrong may be told as it comes, RecordError where a value does not fit."""

    @abstractmethod
    def _counts(self, name: str, start: int, stop: int) -> np.ndarray:
        """How many values each row of a ragged column has, int64 (rows,)."""

    def read_columns(self, outs: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        """Rows ``start:stop`` of several columns, each into its array (rows, *shape), ragged ones into (values,).

        Raises:
            PartitionError: the bytes are not there or do not unpack, a value does not fit, or the file was changed.
        """
        self._check_rows(start, stop)
        with self._lock:
            try:
                self._read(outs, start, stop)
            except RecordError as error:
                raise PartitionError(f"{self.path}: row {self._blamed(outs, start, stop)}: {error}") from error
            except PartitionError as error:
                raise named(error, self.path, self._form.tree) from error
            except (*DAMAGE, EOFError) as error:
                names = f"column {next(iter(outs))}" if len(outs) == 1 else f"{len(outs)} columns"
                raise PartitionError(f"{self.path}: {names}, rows {start} to {stop}: {reason_of(error)}") from error

    def _check_rows(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.rows:
            raise PartitionError(f"{self.path}: has {self.rows} rows, {start} to {stop} were asked for")

    def _blamed(self, names: Iterable[str], start: int, stop: int) -> int:
        """The first row of which these columns cannot be made."""
        names = list(names)
        while stop - start > 1:
            half = (start + stop) // 2
            try:
                self._read(self._memory(names, start, half), start, half)
                start = half
            except RecordError:
                stop = half
        return start

    def _memory(self, names: Iterable[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Arrays for some rows of columns."""
        memory: dict[str, np.ndarray] = {}
        for column in (self.columns[name] for name in names):
            rows = stop - start
            shape = (self.size(column.name, start, stop),) if column.is_ragged else (rows, *column.shape)
            memory[column.name] = np.empty(shape, column.stored_dtype)
        return memory

    def read_runs(self, runs: Sequence[tuple[Mapping[str, np.ndarray], int, int]]) -> None:
        """Several runs of rows, (outs, start, stop) as ``read_columns`` takes them."""
        for run in runs:
            self.read_columns(*run)

    def ends(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Where rows ``start:stop`` of a ragged column lie among the values of these rows, int64 (rows + 1,).

        Raises:
            PartitionError: the file is damaged.
        """
        stop = self.rows if stop is None else stop
        self._check_rows(start, stop)
        with self._lock:
            try:
                return bounds_of(self._counts(name, start, stop))
            except (RecordError, *DAMAGE) as error:
                raise PartitionError(f"{self.path}: column {name}: {reason_of(error)}") from error

    def size(self, name: str, start: int, stop: int) -> int:
        """How many values rows ``start:stop`` of a ragged column have; PartitionError as ``ends``."""
        return int(self.ends(name, start, stop)[-1])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows ``start:stop`` of a column, (rows, *shape), of a ragged one (values,); PartitionError as ``read_columns``."""
        stop = self.rows if stop is None else stop
        self._check_rows(start, stop)
        outs = self._memory([name], start, stop)
        self.read_columns(outs, start, stop)
        return outs[name]

    def text(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        """Rows of a text column as Python strings."""
        return decoded(self.read(name, start, stop))

    def record(self, row: int) -> dict[str, np.ndarray | bytes]:
        """One row with all its columns, as ``PartitionWriter.append`` takes it."""
        return {name: one_row(self.read(name, row, row + 1), column) for name, column in self.columns.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()
