"""Rows of any kind of table, in blocks of a fixed number of usable ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skyset.errors import UserError

#: Rows that pass through the compiled kernels together.
BLOCK = 8192
_SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows, in memory that the next block uses again.

    Attributes:
        values: float64 (features, block), logarithms taken; columns beyond the rows are padding.
        numbers: int64 (rows,), increasing, which rows of the data these are.
    """

    values: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)


class Stream:
    """The data as blocks of a fixed number of usable rows (the last has fewer), whatever chunks they come in.

    Args:
        expected: rows that each pass must have; None for any number.

    Attributes:
        seen, dropped: rows of the last pass, and those of them left out.
    """

    def __init__(
        self, data: Any, names: tuple[str, ...], logged: np.ndarray, missing: str, block: int, expected: int | None = None
    ):
        self.data, self.names, self.missing, self.block, self.expected = data, names, missing, block, expected
        self.logged = np.flatnonzero(logged)
        self.seen = self.dropped = 0

    def __iter__(self) -> Iterator[Block]:
        self.seen = self.dropped = 0
        values, numbers, filled = np.ones((len(self.names), self.block)), np.zeros(self.block, np.int64), 0
        for chunk in _chunks(self.data, self.names):
            columns, length = _columns(chunk, self.names)
            start = 0
            while start < length:
                count = min(length - start, self.block - filled)
                for row, column in zip(values, columns, strict=True):
                    row[filled : filled + count] = _plain(column[start : start + count])
                numbers[filled : filled + count] = np.arange(self.seen, self.seen + count)
                start, self.seen = start + count, self.seen + count
                filled += self._keep_usable(values[:, filled : filled + count], numbers[filled : filled + count])
                if filled == self.block:
                    yield self._block(values, numbers)
                    filled = 0
        if filled:
            values[:, filled:] = 1.0
            yield self._block(values, numbers[:filled])
        if self.expected not in (None, self.seen):
            was = f"the data had {self.expected} rows at the first pass, and {self.seen} at a later one"
            raise UserError(f"{was}: they must be the same each time")

    def _block(self, values: np.ndarray, numbers: np.ndarray) -> Block:
        for k in self.logged:
            np.log10(values[k], out=values[k])
        return Block(values, numbers)

    def _keep_usable(self, values: np.ndarray, numbers: np.ndarray) -> int:
        """Move usable rows to the front; their number."""
        if np.isfinite(values).all() and all(values[k].min() >= _SMALLEST for k in self.logged):
            return len(numbers)
        usable = np.isfinite(values)
        usable[self.logged] &= values[self.logged] >= _SMALLEST
        if self.missing == "raise":
            row = int(np.argmin(usable.all(0)))
            k = int(np.argmin(usable[:, row]))
            why = "cannot be used" if not np.isfinite(values[k, row]) else "has no logarithm"
            advice = "choose other rows, or missing='drop' to leave such rows out"
            raise UserError(f"row {numbers[row]}: {self.names[k]} is {values[k, row]:g}, which {why}: {advice}")
        good = usable.all(0)
        kept = int(np.count_nonzero(good))
        values[:, :kept], numbers[:kept] = values[:, good], numbers[good]
        self.dropped += len(good) - kept
        return kept

    def warn(self) -> None:
        if self.dropped:
            text = f"{self.dropped:,} of {self.seen:,} rows were left out"
            warnings.warn(f"{text}: a feature is missing, not finite, or has no logarithm", UserWarning, stacklevel=3)


class Importance:
    """How much rows count, by their numbers."""

    def __init__(self, weights: np.ndarray | None):
        self.weights = None if weights is None else np.asanyarray(weights)
        if self.weights is not None and (self.weights.ndim != 1 or self.weights.dtype.kind not in "buif"):
            raise ValueError(f"weights must be numbers (rows,), not {self.weights.dtype} {self.weights.shape}")

    def of(self, block: Block) -> np.ndarray:
        """Float64, one for each column of the block, 0 for its padding."""
        result = np.zeros(block.values.shape[1])
        if self.weights is None:
            result[: len(block)] = 1.0
            return result
        if block.numbers[-1] >= len(self.weights):
            raise UserError(f"there are {len(self.weights)} weights, but more rows")
        result[: len(block)] = self.weights[block.numbers]
        if not np.isfinite(result).all() or result.min() < 0:
            raise UserError("weights must be finite and not negative")
        return result

    def check(self, rows: int) -> None:
        if self.weights is not None and len(self.weights) != rows:
            raise UserError(f"there are {len(self.weights)} weights, but {rows} rows")
        if self.weights is not None and not self.weights.any():
            raise UserError("all weights are 0")


def _chunks(data: Any, names: tuple[str, ...] | None) -> Iterator[Any]:
    """Arrays and tables that the data consist of."""
    if callable(data):
        data = data()
    if hasattr(data, "with_format") and hasattr(data, "select_columns"):  # a Hugging Face dataset, whose numpy format rounds
        if names is None:
            raise UserError("a dataset has more columns than the features of a map: name those with features=")
        data = data.select_columns(list(names)).with_format("arrow").iter(BLOCK)
    if hasattr(data, "to_batches") and hasattr(data, "num_rows"):  # an arrow table, whose columns may be in many pieces
        data = data.to_batches()
    if isinstance(data, np.ndarray) or _column_names(data) is not None:
        yield data
        return
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Path):
        raise UserError(f"data must be an array, a table, or an iterable of them, not {type(data).__name__}")
    yield from data


def names_in(data: Any) -> tuple[str, ...]:
    """Features that the first chunk has."""
    for chunk in _chunks(data, None):
        names = _column_names(chunk)
        if names is None:
            names = tuple(f"feature {k}" for k in range(_table(chunk).shape[1]))
        if not names or not all(isinstance(name, str) for name in names):
            raise UserError(f"features must have names that are text, not {names}")
        return names
    raise UserError("there are no rows in the data")


def _column_names(chunk: Any) -> tuple[str, ...] | None:
    """None where columns have no names."""
    if isinstance(chunk, np.ndarray):
        return chunk.dtype.names
    if isinstance(chunk, Mapping):
        return tuple(chunk)
    if hasattr(chunk, "colnames"):  # astropy
        return tuple(chunk.colnames)
    if hasattr(chunk, "schema") and hasattr(chunk, "num_rows"):  # pyarrow
        return tuple(chunk.schema.names)
    if hasattr(chunk, "iloc"):  # pandas
        return tuple(chunk.columns)
    return None


def _columns(chunk: Any, names: tuple[str, ...]) -> tuple[list[np.ndarray], int]:
    """One array a feature, without copies where the chunk has arrays; and their length."""
    known = _column_names(chunk)
    if known is None:
        table = _table(chunk)
        if table.shape[1] != len(names):
            raise UserError(f"the data have {table.shape[1]} features, the map {len(names)}: {', '.join(names)}")
        columns = list(table.T)
    else:
        if lacking := [name for name in names if name not in known]:
            raise UserError(f"the data have no column {', '.join(lacking)}; they have {', '.join(known)}")
        columns = [_column(chunk[name]) for name in names]
    for name, column in zip(names, columns, strict=True):
        if column.ndim != 1 or column.dtype.kind not in "buif" or len(column) != len(columns[0]):
            count = len(columns[0])
            raise UserError(f"{name} must be one number per row, {count} of them, not {column.dtype} {column.shape}")
    return columns, len(columns[0])


def _column(values: Any) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray):
        return values
    if hasattr(values, "unmasked"):  # astropy's masked quantities
        return np.ma.MaskedArray(np.asarray(values.unmasked), values.mask)
    if hasattr(values, "iloc") and hasattr(values.dtype, "na_value"):  # pandas' types with missing values
        return values.to_numpy(object, na_value=np.nan).astype(np.float64)
    return np.asarray(values)


def _table(chunk: Any) -> np.ndarray:
    if not isinstance(chunk, np.ndarray) or chunk.ndim != 2:
        what = f"an array of shape {chunk.shape}" if isinstance(chunk, np.ndarray) else type(chunk).__name__
        raise UserError(f"data must be arrays (rows, features) or tables with named columns, not {what}")
    return chunk


def _plain(values: np.ndarray) -> np.ndarray:
    """Masked values as NaN."""
    return np.ma.filled(values.astype(np.float64), np.nan) if isinstance(values, np.ma.MaskedArray) else values
