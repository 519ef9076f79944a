"""Measured columns as tables: astropy's with units, Arrow's with them in the fields' metadata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import QTable

from skyset.extraction.columns import COLUMNS
from skyset.extraction.ldac import parse_unit, quantity

if TYPE_CHECKING:
    import pyarrow as pa


def as_table(columns: dict[str, np.ndarray], names: Iterable[str], number: int = 1) -> QTable:
    """Measured columns as a table with units, descriptions and formats; EXT_NUMBER is ``number``."""
    rows = len(next(iter(columns.values())))
    table = QTable()
    for name in names:
        column = COLUMNS[name]
        values = np.full(rows, number, column.dtype) if name == "EXT_NUMBER" else np.asarray(columns[name])
        table[name] = quantity(values, parse_unit(column.unit))
        table[name].info.description, table[name].info.format = column.meaning, column.format
    return table


def as_arrow(table: QTable) -> pa.Table:
    """The same with units and descriptions in the fields' metadata, vectors as lists of fixed size; ``meta`` as texts."""
    import pyarrow as pa

    fields, arrays = [], []
    for name in table.colnames:
        column = COLUMNS[name]
        values = np.ascontiguousarray(getattr(table[name], "value", table[name]))
        # pa.array would import pandas, a quarter of a command's second, to ask whether this is a Series.
        array = pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), values.size, [None, pa.py_buffer(values)])
        for side in values.shape[:0:-1]:
            array = pa.FixedSizeListArray.from_arrays(array, side)
        said = {"description": column.meaning} | ({"unit": column.unit} if column.unit else {})
        fields.append(pa.field(name, array.type, metadata=said))
        arrays.append(array)
    return pa.table(arrays, pa.schema(fields, {key: str(value) for key, value in table.meta.items()}))
