"""Figures on one sheet."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from skyset.explore.sheet import sheet_of


def plain(width, height, colour):
    return Figure(figsize=(width, height), facecolor=colour)


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def test_figures_lie_in_lines_from_the_top_and_keep_their_pixels():
    colours = ["#ff0000", "#00ff00", "#0000ff"]
    seen = pixels(sheet_of((plain(5, 1 + k, colour) for k, colour in enumerate(colours)), dpi=20))
    assert seen.shape == ((2 + 3) * 20, 2 * 100, 3)
    assert (seen[:20, :100] == (255, 0, 0)).all() and (seen[:40, 100:] == (0, 255, 0)).all()
    assert (seen[20:40, :100] == 255).all()  # the first one is lower than its neighbour
    assert (seen[40:, :100] == (0, 0, 255)).all() and (seen[40:, 100:] == 255).all()


@pytest.mark.parametrize(("width", "columns"), [(12, 1), (6.6, 1), (6, 2), (4, 3)])
def test_narrow_figures_stand_side_by_side(width, columns):
    sheet = sheet_of([plain(width, 1, "#000000") for _ in range(6)], dpi=10)
    assert sheet.get_size_inches().tolist() == pytest.approx([columns * width, 6 / columns])
