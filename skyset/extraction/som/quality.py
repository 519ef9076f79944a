"""What a map is worth for some rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Quality:
    """How a map describes some rows.

    Attributes:
        hits: int64 (rows, columns) of the map, rows of the data in each group.
        quantisation_error: mean distance of the rows to their units' centres, in standard deviations (without
            ``standardise``, in the features' units).
        topographic_error: share of the rows whose nearest and second nearest units are not neighbours (Kiviluoto 1996); on a
            rectangular map diagonal ones are. NaN for a map of one unit.
        dropped: rows left out for want of a value.
        distances: float64 (rows, columns), the quantisation error of each unit's rows; NaN where it has none.
        strays: float64 (rows, columns), their topographic error.
    """

    hits: np.ndarray
    quantisation_error: float
    topographic_error: float
    dropped: int
    distances: np.ndarray
    strays: np.ndarray
