"""Bias levels subtracted from an amplifier's pixels in one pass; needs numba."""

from __future__ import annotations

from skyset.extraction.compiled import jit


@jit
def subtract(stored, level, factor, out):
    """``out`` (rows, columns) = (``stored`` - ``level`` of the row) * ``factor``, float32."""
    for y in range(stored.shape[0]):
        for x in range(stored.shape[1]):
            out[y, x] = (stored[y, x] - level[y]) * factor
