"""Masks drawn beside the volunteers', and how far predicted shares can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from skyset.figures import COLOURS, draw_sky, extent
from skyset.loaders.gz3d import CLASSES, DRAWERS
from skyset.training.common.mask_metrics import VOTERS, calibration_of

#: As in the survey's own pictures.
COLOUR = dict(zip(CLASSES, COLOURS, strict=False))
_LINES = ("dotted", "solid")


def masks_figure(
    images: Sequence[np.ndarray],
    drawn: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    classes: Sequence[str],
    names: Sequence[str],
    scale_arcsec: float | None = None,
) -> Figure:
    """A row a galaxy: the image, what the volunteers drew on it, what the model says they would.

    Args:
        images: uint8 (height, width, 3) each, row 0 north.
        drawn: share of volunteers (classes, height, width) each; all NaN where nobody was asked.
        predicted: the model's, likewise; NaN where it was not shown the image.
        classes: of the masks.
        names: of the galaxies.
        scale_arcsec: of a pixel, in arcsec.
    """
    figure = Figure(figsize=(9, 3.05 * len(images) + 0.6), layout="constrained")
    grid = figure.subplots(len(images), 3, squeeze=False)
    for row, image, theirs, ours, name in zip(grid, images, drawn, predicted, names, strict=True):
        place = extent(image.shape, scale_arcsec)
        shown = image, _drawn(image, theirs, classes), _drawn(image, ours, classes)
        draw_sky(row[0], image, scale_arcsec)
        for axes, picture in zip(row, shown, strict=True):
            if axes is not row[0]:
                axes.imshow(picture, extent=place)
            axes.set(xlabel="", ylabel="", xticks=[], yticks=[])
        # Between two counts: at a count itself a drawn mask has no edge. Predicted shares have one.
        _outline(row[1], theirs, classes, place, 0.5)
        _outline(row[2], ours, classes, place, 0)
        row[0].set_ylabel(name, fontsize="small")
        missing = [name for name, mask in zip(classes, theirs, strict=True) if np.isnan(mask).all()]
        if missing:
            words = f"not asked: {', '.join(missing)}"
            row[1].text(0.03, 0.97, words, color="white", fontsize=7, va="top", transform=row[1].transAxes)
    for axes, heading in zip(grid[0], ("image", "volunteers", "model"), strict=True):
        axes.set_title(heading)
    key = [Patch(color=COLOUR[name], label=name) for name in classes]
    key += [
        Line2D([], [], color="0.3", linestyle=line, label=f"{voters} of {DRAWERS} volunteers")
        for voters, line in zip(VOTERS, _LINES, strict=True)
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key), fontsize="small")
    return figure


def _drawn(image: np.ndarray, masks: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The image in grey with the masks over it, uint8: the more volunteers, the less transparent."""
    light = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    for name, mask in zip(classes, np.nan_to_num(masks), strict=True):
        cover = 0.65 * mask[..., None]
        light = light * (1 - cover) + 255 * np.array(to_rgb(COLOUR[name])) * cover
    return light.clip(0, 255).astype(np.uint8)


def _outline(axes, masks: np.ndarray, classes: Sequence[str], place: Sequence[float], below: float) -> None:
    """Lines at the numbers of volunteers from which on IoU counts a pixel, ``below`` lower."""
    for name, mask in zip(classes, np.nan_to_num(masks), strict=True):
        for voters, line in zip(VOTERS, _LINES, strict=True):
            level = (voters - below) / DRAWERS
            if mask.min() < level < mask.max():
                axes.contour(
                    mask, [level], colors=COLOUR[name], linestyles=line, linewidths=0.9, origin="upper", extent=place
                )


def shares_figure(sums: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Drawn over predicted share of volunteers, a panel a class, with errors from other samples of the galaxies.

    Args:
        sums: (galaxies, classes, ``len(SUMS)``) by the model's name, of the same galaxies.
        classes: their names.
    """
    figure = Figure(figsize=(2.9 * len(classes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(classes), squeeze=False, sharex=True, sharey=True)[0]
    points = {name: calibration_of(one) for name, one in sums.items()}
    for number, (axes, title) in enumerate(zip(panels, classes, strict=True)):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for name, found in points.items():
            p, q, errors, _ = found[number]
            axes.errorbar(p, q, errors, marker="o", markersize=3.5, linewidth=1, capsize=2, label=name)
        axes.set(title=title, xlim=(0, 1), ylim=(0, 1), xlabel="predicted share")
        axes.set_box_aspect(1)
    panels[0].set_ylabel("drawn share")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(points), fontsize="small")
    return figure
