"""Pictures of a map: its U-matrix, hits and component planes, a cell for each unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from skyset.extraction.som.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from skyset.extraction.som.quality import Quality

#: Units up to which figures have a number in each cell.
_LABELLED = 120


def panels_of(grid: Grid, count: int) -> tuple[Figure, np.ndarray]:
    """A figure with a panel for each of ``count`` pictures of the map, at most four side by side."""
    from matplotlib.figure import Figure

    across = min(count, 4)
    down = -(-count // across)
    shape = grid.rows / grid.columns * (0.866 if grid.topology == "hexagonal" else 1.0)
    height = np.clip(3.2 * shape, 1.2, 8.0) + 0.9
    figure = Figure(figsize=(4.2 * across, height * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def draw_u_matrix(axes: Axes, grid: Grid, u_matrix: np.ndarray, apart: np.ndarray) -> None:
    """Cells in the colour of ``u_matrix``, edges in that of the distance ``apart`` (units, units) across."""
    from matplotlib.collections import LineCollection

    title = "U-matrix: mean distance to neighbouring centres"
    cells = _draw_cells(axes, grid, u_matrix, title, "{:.2f}", colours="magma_r", bar="scaled units")
    one, other = np.nonzero(np.triu(grid.beside()))
    if not len(one):
        return
    # Units share an edge of this half length, across the middle of the line between them.
    half = 0.5 / np.sqrt(3) if grid.topology == "hexagonal" else 0.5
    places = grid.places()
    middle, along = (places[one] + places[other]) / 2, (places[other] - places[one])[:, ::-1] * [-half, half]
    across = apart[one, other]
    width = min(5.0, 40 / max(grid.rows, grid.columns))
    ends = np.stack([middle - along, middle + along], 1)
    lines = LineCollection(ends, array=across, cmap="magma_r", linewidths=width)
    for drawn in (lines, cells):
        drawn.set_clim(across.min(), across.max())
    axes.add_collection(lines)


def draw_hits(axes: Axes, grid: Grid, hits: np.ndarray) -> None:
    """Cells in the colour of the number of rows in each, (rows, columns) of the map."""
    title = f"hits: where {int(hits.sum()):,} sources are"
    _draw_cells(axes, grid, hits, title, "{:,.0f}", colours="Blues", lowest=0, bar="sources")


def draw_errors(panels, grid: Grid, quality: Quality) -> None:
    """Two panels: mean distance of each unit's rows to its centre, and the share that strays; grey without rows."""
    title = f"quantisation error {quality.quantisation_error:.3f}\nmean distance to the centre, scaled units"
    _draw_cells(panels[0], grid, quality.distances, title, "{:.2f}", colours="magma_r", lowest=0)
    title = f"topographic error {quality.topographic_error:.3f}\nshare whose second nearest unit is no neighbour"
    _draw_cells(panels[1], grid, quality.strays, title, "{:.2f}", colours="magma_r", lowest=0)


def draw_history(axes: Axes, history: np.ndarray) -> None:
    """The root mean square distance at the start of each epoch, (epochs,)."""
    from matplotlib.ticker import MaxNLocator

    axes.plot(np.arange(1, len(history) + 1), history, marker="o", markersize=3)
    axes.set_ylim(0, 1.05 * history.max())
    axes.set_title("quantisation error in training\nroot mean square distance, scaled units", fontsize="medium")
    axes.set_xlabel("epoch, at its start")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_components(panels, grid: Grid, features: Sequence[str], centres: np.ndarray, logged: np.ndarray) -> None:
    """A panel for each feature, in the colours of the ``centres`` (units, features), logarithmic ones where ``logged``."""
    for axes, name, values, log in zip(panels, features, centres.T, logged, strict=True):
        _draw_cells(axes, grid, values.reshape(grid.rows, grid.columns), name, "{:.3g}", logged=bool(log))


def draw_groups(axes: Axes, grid: Grid, groups: np.ndarray) -> None:
    """Cells in a colour for each group, int (units,), with its number."""
    _draw_cells(axes, grid, groups.reshape(grid.rows, grid.columns), "groups of units", "{:.0f}", colours="tab20")


def _draw_cells(axes, grid, values, title, text, *, colours="viridis", logged=False, lowest=None, bar=""):
    """The units as cells, NaN in grey; ``text`` is the format of the numbers in them, ``bar`` what the colours say."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogFormatter

    places = grid.places()
    angles = np.radians(np.arange(30, 390, 60) if grid.topology == "hexagonal" else np.arange(45, 405, 90))
    radius = 1 / np.sqrt(3) if grid.topology == "hexagonal" else np.sqrt(0.5)
    corners = radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    values = np.ma.masked_invalid(values)
    norm = LogNorm() if logged and values.min() < values.max() else None
    cells = PolyCollection(places[:, None] + corners, array=values.ravel(), cmap=colours, norm=norm)
    cells.set(edgecolors="white", linewidths=min(1.0, 8 / max(grid.rows, grid.columns)))
    axes.add_collection(cells)
    if lowest is not None:
        cells.set_clim(lowest, values.max() if values.count() and values.max() > lowest else lowest + 1)
    axes.set(xlim=(-0.6, places[:, 0].max() + 0.6), ylim=(places[:, 1].max() + 0.7, -0.7))
    cells.set_cmap(cells.cmap.with_extremes(bad="lightgrey"))
    _number(axes, grid)
    axes.set_title(title, fontsize="medium")
    axes.spines[:].set_visible(False)
    scale = axes.figure.colorbar(cells, ax=axes, shrink=0.8, label=bar)
    if norm is not None:  # 60, not 6 x 10^1
        scale.formatter, scale.minorformatter = LogFormatter(), LogFormatter()
    if len(places) <= _LABELLED:
        for (x, y), value in zip(places, values.ravel(), strict=True):
            if value is np.ma.masked:
                continue
            dark = np.dot(cells.cmap(cells.norm(value))[:3], [0.3, 0.59, 0.11]) < 0.5
            size = 8 if max(grid.rows, grid.columns) <= 6 else 5
            colour = "white" if dark else "black"
            axes.text(x, y, text.format(value), ha="center", va="center", fontsize=size, color=colour)
    return cells


def _number(axes: Axes, grid: Grid) -> None:
    """A unit's number is that at its row plus that below its column; of long sides some are named."""
    down, across = (max(1, -(-side // 8)) for side in (grid.rows, grid.columns))
    places = grid.places()
    axes.set(aspect="equal", xlabel="unit: number at the left + number below")
    axes.set_xticks(range(0, grid.columns, across), [f"+{c}" for c in range(0, grid.columns, across)])
    axes.set_yticks(places[:: grid.columns, 1][::down], range(0, len(places), grid.columns)[::down])
    axes.tick_params(length=0, labelsize="small")
    axes.xaxis.label.set_size("small")
