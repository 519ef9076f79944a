"""The bias level of an amplifier, and its subtraction.

It is that of its own overscan (BSECA, BSECB): the mean of the middle half of the values of 32 rows, between which it is
linear. A bleed trail through some rows does not draw a line, and read noise adds 0.1 ADU. (Elixir takes the median of each
row, which adds 0.7 ADU.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from skyset.errors import MissingPackage

_ROWS = 32  # that have one bias level


def bias_level(overscan: np.ndarray) -> np.ndarray:
    """Bias level of each row, float32 (rows,), from its overscan (rows, columns), without the columns at either edge."""
    edge = 4 if overscan.shape[1] >= 16 else 0
    rows = len(overscan)
    blocks = max(rows // _ROWS, 1)
    size = rows // blocks
    values = overscan[: blocks * size, edge : overscan.shape[1] - edge].reshape(blocks, -1)
    quarter = values.shape[1] // 4
    ends = [quarter, max(values.shape[1] - quarter - 1, 0)]
    values = np.partition(values, ends, axis=1)[:, quarter : -quarter or None]
    centres = (np.arange(blocks) + 0.5) * size - 0.5
    return np.interp(np.arange(rows), centres, values.mean(axis=1)).astype(np.float32)


def amplifier_columns(frame: np.ndarray, left: tuple[int, int], turned: bool) -> np.ndarray:
    """An amplifier's columns of a frame, as they are read."""
    return (frame[::-1, ::-1] if turned else frame)[:, left[0] : left[1]]


def subtract_by_numpy(
    stored: np.ndarray,
    corner: tuple[int, int],
    level: np.ndarray,
    factor: np.float32,
    out: np.ndarray,
    left: tuple[int, int],
    turned: bool,
) -> tuple[float, float]:
    """An amplifier's part of a frame is what was stored, less the level of its row, times a factor, float32; it begins at
    the row and column ``corner`` of ``stored``. Least and greatest of what was stored there. `subtract.subtract` does the
    same in a third of the time."""
    pixels = stored[corner[0] : corner[0] + len(level), corner[1] : corner[1] + left[1] - left[0]]
    target = amplifier_columns(out, left, turned)
    np.subtract(pixels, level[:, None], out=target, dtype=np.float32)
    target *= factor
    return pixels.min(), pixels.max()


@functools.cache
def subtraction() -> Callable[..., tuple[float, float]]:
    """`subtract.subtract`, or `subtract_by_numpy` without numba, which is imported no earlier: a process that hands CCDs to
    others does without."""
    try:
        from skyset.build_scripts.megacam_iqa.subtract import subtract
    except MissingPackage:
        return subtract_by_numpy
    return subtract
