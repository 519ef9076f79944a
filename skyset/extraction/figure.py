"""The picture of an extraction: the image with an ellipse around each source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skyset.extraction.images import Image
from skyset.extraction.plan import Plan
from skyset.extraction.world import celestial_wcs, compass
from skyset.figures import draw_marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Columns that the picture is drawn from.
DRAWN = ("X_IMAGE", "Y_IMAGE", "A_IMAGE", "B_IMAGE", "THETA_IMAGE", "FLAGS")
#: Ellipses are drawn this often their rms axes where there is no Kron radius.
_PLAIN = 3.0


def figure(plan: Plan, drawn: list[dict[str, np.ndarray]]) -> Figure:
    """The image with an ellipse around each source, one panel for each extension, at most 64.

    ``drawn`` has the columns `DRAWN` of each, and KRON_RADIUS where it was measured. Ellipses are the Kron ones where there
    is a KRON_RADIUS, three times A_IMAGE and B_IMAGE otherwise; the legend says which. Axes are X_IMAGE and Y_IMAGE, pixels.
    """
    from astropy.visualization import ZScaleInterval
    from matplotlib.collections import EllipseCollection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    images, shown = plan.chosen.images, drawn[:64]
    sources = sum(len(measured["FLAGS"]) for measured in drawn)
    columns = int(np.ceil(np.sqrt(len(shown))))
    height, width = images[0].shape[-2:]
    size = 10 if len(shown) == 1 else 14
    figure = Figure(
        (size, max(3.0, min(20.0, size * height / width * int(np.ceil(len(shown) / columns)) / columns)) + 0.6),
        layout="constrained",
    )
    axes = figure.subplots(int(np.ceil(len(shown) / columns)), columns, squeeze=False).ravel()
    colours = ("deepskyblue", "orange")
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    for place, (axis, one, measured) in enumerate(zip(axes, images, shown, strict=False)):
        step, pixels = _reduced(one, 1400 if len(shown) == 1 else 500)
        low, high = ZScaleInterval().get_limits(pixels[np.isfinite(pixels)]) if np.isfinite(pixels).any() else (0, 1)
        rows, sides = pixels.shape[0] * step, pixels.shape[1] * step
        axis.imshow(
            pixels,
            cmap="gray_r",
            vmin=low,
            vmax=low + (high - low) * 2,
            origin="lower",
            interpolation="nearest",
            extent=(0.5, sides + 0.5, 0.5, rows + 0.5),
        )
        factor = np.asarray(measured.get("KRON_RADIUS", np.zeros(len(measured["X_IMAGE"]))))
        factor = np.where(factor > 0, factor, _PLAIN)
        for flagged, colour in enumerate(colours):
            rows_of = (np.asarray(measured["FLAGS"]) != 0) == bool(flagged)
            values = {name: np.asarray(measured[name])[rows_of] for name in DRAWN}
            axis.add_collection(
                EllipseCollection(
                    2 * factor[rows_of] * values["A_IMAGE"],
                    2 * factor[rows_of] * values["B_IMAGE"],
                    values["THETA_IMAGE"],
                    units="xy",
                    offsets=np.column_stack([values["X_IMAGE"], values["Y_IMAGE"]]),
                    offset_transform=axis.transData,
                    facecolors="none",
                    edgecolors=colour,
                    linewidths=0.8 if len(shown) == 1 else 0.5,
                )
            )
        wcs, shape = celestial_wcs(one.header), (one.shape[-2], one.shape[-1])
        if one.scale and wcs is not None and (directions := compass(wcs, shape)):
            draw_marks(axis, shape, one.scale, *directions, colour="black")
        axis.set_title(f"{one.place}: {sources_text(len(factor))}" if len(shown) > 1 else "", fontsize=8)
        axis.tick_params(labelsize=7)
        if place + columns >= len(shown):  # none below it
            axis.set_xlabel("X_IMAGE (pixels)", fontsize=8)
        if place % columns == 0:
            axis.set_ylabel("Y_IMAGE (pixels)", fontsize=8)
    flagged = sum(int((np.asarray(measured["FLAGS"]) != 0).sum()) for measured in drawn)
    said = (("without flags", sources - flagged), ("flagged (neighbours, saturation, border)", flagged))
    handles = [
        Line2D([], [], color=colour, label=f"{count:,} {kind}")
        for colour, (kind, count) in zip(colours, said, strict=True)
        if count
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=2, frameon=False, title=_ellipses(drawn), title_fontsize=9
        )
    more = f", the first {len(shown)} of {len(drawn)} extensions" if len(shown) < len(drawn) else ""
    figure.suptitle(f"{plan.image.name}{plan.which}: {sources_text(sources)}{more}")
    return figure


def sources_text(count: int) -> str:
    """``1 source``, ``2,000 sources``."""
    return f"{count:,} source{'s' * (count != 1)}"


def _ellipses(drawn: list[dict[str, np.ndarray]]) -> str:
    """What the ellipses of the picture are."""
    plain = f"{_PLAIN:g} x A_IMAGE, B_IMAGE"
    if not any("KRON_RADIUS" in measured for measured in drawn):
        return f"ellipses: {plain}"
    without = any((np.asarray(measured["KRON_RADIUS"]) <= 0).any() for measured in drawn)
    return "Kron ellipses: KRON_RADIUS x A_IMAGE, B_IMAGE" + f" ({plain} where KRON_RADIUS is 0)" * without


def _reduced(image: Image, most: int) -> tuple[int, np.ndarray]:
    """Means of blocks, so that the longer side has at most ``most`` pixels, and the block's side."""
    with np.errstate(over="ignore"):
        pixels = image.pixels().astype(np.float32)
    step = max(1, -(-max(pixels.shape) // most))
    rows, sides = (max(1, length // step) for length in pixels.shape)
    block = pixels[: rows * step, : sides * step]
    if min(block.shape) < step:
        return 1, pixels
    return step, block.reshape(rows, step, sides, step).mean((1, 3))
