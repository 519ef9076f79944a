"""Cutouts of all sources of an image."""

from __future__ import annotations

import numpy as np

#: The largest number that float16 holds.
_LARGEST = 65504.0
_TOGETHER = 1024


def source_stamps(image: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """A square of pixels around each source.

    Args:
        image: (rows, columns), background subtracted.
        x, y: positions, counted from 1 as SExtractor does.
        size: pixels of a side.

    Returns:
        float16 (sources, size, size): the position's nearest pixel is at [size // 2, size // 2]; 0 beyond the edge and where
        the image is not finite; what float16 cannot hold is the largest that it can.
    """
    out = np.zeros((len(x), size, size), np.float16)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, size), (size, size))
    corners = [np.rint(at).astype(np.int64) - 1 - size // 2 + size for at in (y, x)]
    rows, columns = (np.clip(at, 0, side - 1) for at, side in zip(corners, windows.shape, strict=False))
    for start in range(0, len(x), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        out[some] = np.clip(np.nan_to_num(windows[rows[some], columns[some]]), -_LARGEST, _LARGEST)
    return out
