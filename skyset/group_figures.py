"""Pictures of a sample of groups: one stamp a group in the order of their map, beside how many sources each group has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from skyset.band_figures import asinh_stretch, noise_of
from skyset.figures import COLOURS, draw_marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Of the noise: a stamp's brightest pixel is white, but noise alone stays grey.
_WHITE = 12.0


def stamps_of(image: np.ndarray, groups: int) -> np.ndarray:
    """The stamps of an image, in the order of their groups.

    Args:
        image: (rows * S, columns * S); group 0 is in its first rows and columns, group 1 beside it.
        groups: rows * columns.

    Returns:
        (rows, columns, S, S), a view where that is possible.

    Raises:
        ValueError: an image of this shape is not so many square stamps.
    """
    image = np.asarray(image)
    side = math.isqrt(image.size // groups) if groups > 0 and image.ndim == 2 else 0
    if not side or image.size != groups * side**2 or image.shape[0] % side or image.shape[1] % side:
        raise ValueError(f"an image of shape {image.shape} is not {groups} square stamps")
    rows, columns = (size // side for size in image.shape)
    return image.reshape(rows, side, columns, side).swapaxes(1, 2)


def draw_stamps(axes: Axes, image: np.ndarray, empty: Sequence[bool] | np.ndarray, noise: float | None = None) -> None:
    """Stamps with their groups' numbers, the map's first row at the top; in each, row 0 is below. Empty ones are hatched.

    Args:
        axes: matplotlib's.
        image: as in `stamps_of`; each stamp is stretched to its own brightest pixel.
        empty: (groups,) those without a source.
        noise: standard deviation of the sky; by default `noise_of` the image.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    stamps = stamps_of(image, len(empty))
    rows, columns, side, _ = stamps.shape
    noise = noise if noise is not None and np.isfinite(noise) and noise > 0 else noise_of(np.asarray(image))
    tiles = [
        asinh_stretch(s, noise, max(float(np.nan_to_num(s).max()), _WHITE * noise)) for s in stamps.reshape(-1, side, side)
    ]
    drawn = np.stack(tiles).reshape(rows, columns, side, side)[:, :, ::-1].swapaxes(1, 2).reshape(rows * side, -1)
    axes.imshow(drawn, cmap="gray", vmin=0, vmax=1, extent=(0, columns, rows, 0))
    for group, nothing in enumerate(empty):
        down, across = divmod(group, columns)
        if nothing:
            axes.add_patch(Rectangle((across, down), 1, 1, facecolor="0.8", edgecolor="0.55", hatch="///", linewidth=0))
            axes.text(across + 0.5, down + 0.55, "empty", ha="center", va="center", fontsize=8, backgroundcolor="0.8")
        outline = [] if nothing else [withStroke(linewidth=2, foreground="black")]
        colour = "black" if nothing else COLOURS[0]
        axes.text(across + 0.05, down + 0.05, group, color=colour, path_effects=outline, fontsize=8, ha="left", va="top")
    for place in range(1, rows):
        axes.axhline(place, color="white", linewidth=1)
    for place in range(1, columns):
        axes.axvline(place, color="white", linewidth=1)
    axes.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[])


def draw_group_hits(axes: Axes, hits: np.ndarray, shares: bool = False) -> None:
    """A bar a group, the first at the top; groups without a source have a 0 instead.

    Args:
        axes: matplotlib's.
        hits: (groups,) numbers of sources, or shares of them.
        shares: they are shares.
    """
    hits = np.asarray(hits)
    bars = axes.barh(np.arange(len(hits)), hits, 0.8, color=COLOURS[1])
    axes.bar_label(bars, [f"{hit:.1%}" if shares else f"{hit:,}" for hit in hits], padding=3, fontsize=8)
    axes.set(ylim=(len(hits) - 0.4, -0.6), ylabel="group", xlabel="share of the sources" if shares else "sources")
    axes.set_xlim(0, 1.2 * max(float(hits.max(initial=0)), 1e-3 if shares else 1))
    axes.set_yticks(np.arange(len(hits)))
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def groups_figure(row: Mapping, title: str, note: str = "") -> Figure:
    """The stamps of a sample beside its hits.

    Args:
        row: one row with numpy formatting: ``image``, ``hits`` and ``empty`` of its groups; ``background_rms`` where known.
        title: over both.
        note: under the stamps.

    Returns:
        matplotlib.figure.Figure: two panels.

    Raises:
        ValueError: the image is not one stamp a group.
    """
    from matplotlib.figure import Figure

    image, hits, empty = (np.asarray(row[name]) for name in ("image", "hits", "empty"))
    rows, columns, side, _ = stamps_of(image, len(hits)).shape
    figure = Figure(figsize=(1.45 * columns + 4, max(1.45 * rows, 0.2 * len(hits)) + 1.2), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(1.45 * columns, 3.4))
    draw_stamps(panels[0], image, empty, float(row.get("background_rms", np.nan)))
    panels[0].set_title(f"one source a group, {side} x {side} pixels; each to its own brightest", fontsize="medium")
    panels[0].set_xlabel(note, fontsize="small")
    draw_marks(panels[0], (rows, columns))
    draw_group_hits(panels[1], hits)
    panels[1].set_title(f"hits: {int(hits.sum()):,} sources", fontsize="medium")
    figure.suptitle(title)
    return figure
