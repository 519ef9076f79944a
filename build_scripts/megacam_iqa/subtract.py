"""Bias levels subtracted from an amplifier's pixels in one pass; needs numba."""

from __future__ import annotations

import numpy as np

from skyset.extraction.compiled import jit


@jit
def subtract(stored, corner, level, factor, out, left, turned):
    """What `bias.subtract_by_numpy` does.

    stored: of an image; corner: the first row and column of an amplifier in it; level: float32 (rows,); out: float32 (rows,
    columns), the frame; left: first and last + 1 of the amplifier's columns in it, before it is turned.
    """
    rows, columns = out.shape
    y0, x0 = corner
    first, last = left
    least = most = stored[y0, x0]
    for y in range(rows):
        source = stored[y0 + y, x0 : x0 + last - first]
        for x in range(len(source)):
            least, most = min(least, source[x]), max(most, source[x])
        if turned:
            target = out[rows - 1 - y, columns - last : columns - first]
            for x in range(len(source)):
                target[len(source) - 1 - x] = (np.float32(source[x]) - level[y]) * factor
        else:
            target = out[y, first:last]
            for x in range(len(source)):
                target[x] = (np.float32(source[x]) - level[y]) * factor
    return least, most
