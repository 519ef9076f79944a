"""Cuts on rows that come several times under one name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from skyset.errors import UserError
from skyset.tables.catalog import require
from skyset.tables.cuts import Cut
from skyset.tables.numeric_text import is_text, values_and_mask


def first_named(column: str) -> Cut:
    """The first row of each text; rows without one are kept. It remembers what it saw: make a new one for each pass."""
    seen: set[str] = set()

    def keep(batch) -> np.ndarray:
        values = batch[require(batch.schema.names, column, "the catalogue")]
        if not is_text(values.type):
            raise UserError(f"column {column} is {values.type}, not text")
        new = np.ones(batch.num_rows, bool)
        for row, value in enumerate(values.to_pylist()):
            if value is not None:
                new[row] = value not in seen
                seen.add(value)
        return new

    return Cut(f"first {column}", f"{column} not in an earlier row", keep)


def not_repeated(column: str) -> Cut:
    """Rows whose integer no other row that reaches the cut has: of a repeated one, none is kept.

    It remembers all values, 8 bytes each: make a new one for each pass.
    """
    parts: list[np.ndarray] = []
    repeated: list[np.ndarray] = []

    def learn(batch) -> None:
        values = batch[require(batch.schema.names, column, "the catalogue")]
        if not pa.types.is_integer(values.type):
            raise UserError(f"column {column} is {values.type}; only integers can be distinguished exactly here")
        numbers, missing = values_and_mask(values)
        parts.append(numbers[~missing])

    def keep(batch) -> np.ndarray:
        if not repeated:
            values, times = np.unique(np.concatenate(parts), return_counts=True)
            repeated.append(values[times > 1])
            parts.clear()
        numbers, missing = values_and_mask(batch[column])
        return ~missing & ~np.isin(numbers, repeated[0])

    return Cut(f"{column} once", f"{column} in no other row", keep, learn)
