"""Several figures on one sheet, as each draws itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Dots an inch at which commands save pictures; width of a sheet, inches, to which columns of narrow figures are added.
DPI, _WIDTH = 120, 13.0


def sheet_of(figures: Iterable[Figure], dpi: int = DPI) -> Figure:
    """Figures in columns from left to right, each as large as it is, in lines from the top.

    Args:
        figures: one is in memory at a time.
        dpi: dots an inch; a sheet that is saved with as many has every pixel as the figure has it.

    Returns:
        matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    pictures = [_pixels(figure, dpi) for figure in figures]
    widest = max((picture.shape[1] for picture in pictures), default=dpi)
    columns = max(1, min(len(pictures), int(_WIDTH * dpi / widest)))
    lines = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.shape[0] for picture in line) for line in lines]
    width, height = columns * widest, max(1, sum(heights))
    sheet = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    for line, bottom, high in zip(lines, height - np.cumsum(heights), heights, strict=True):
        for place, picture in enumerate(line):
            rows, wide = picture.shape[:2]
            box = (place * widest / width, (bottom + high - rows) / height, wide / width, rows / height)
            axes = sheet.add_axes(box)
            axes.imshow(picture, interpolation="none", aspect="auto")
            axes.axis("off")
    return sheet


def _pixels(figure: Figure, dpi: int) -> np.ndarray:
    """A figure as it is seen, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
