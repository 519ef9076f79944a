"""Pictures of one object: its image as astronomers read it, with masks, or beside what people and networks said of it.

Everywhere row 0 is north and east is left, unless ``origin="lower"``: then row 0 is south.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from skyset.pixels import as_array
from skyset.questions import Campaign, Reached, answers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which colour-blind readers can distinguish too.
COLOURS = ("#F0E442", "#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#0072B2")
VOLUNTEERS, NETWORK = COLOURS[1], COLOURS[2]
#: Length of the arrows to north and east, in points.
ARROW = 22.0
#: Lengths of scale bars in arcsec: the longest that takes up to a quarter of the image.
BARS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


def draw_sky(axes: Axes, image, scale_arcsec: float | None = None, origin: str = "upper") -> None:
    """Draw an image with north up and east left, arrows that say so, and a scale bar.

    Args:
        axes: matplotlib's.
        image: ``PIL.Image``, or (H, W, 3) uint8, (H, W, 4), or one band (H, W), drawn between its 1st and 99.5th percentile.
        scale_arcsec: size of a pixel in arcsec; None where it is not known: then axes are in pixels, without a bar.
        origin: ``"upper"`` if row 0 is north, ``"lower"`` if it is south.
    """
    image = as_array(image)
    axes.imshow(drawable(image), cmap="gray", origin=origin, extent=extent(image.shape, scale_arcsec))
    unit = "arcsec" if scale_arcsec else "pixels"
    axes.set(xlabel=f"offset east ({unit})", ylabel=f"offset north ({unit})")
    draw_marks(axes, image.shape, scale_arcsec)


def draw_marks(
    axes: Axes,
    shape: Sequence[int],
    scale_arcsec: float | None = None,
    north: Sequence[float] | np.ndarray = (0, 1),
    east: Sequence[float] | np.ndarray = (-1, 0),
    colour: str = "white",
) -> None:
    """Arrows to north and east, and a scale bar where the scale is known, on an image that fills the axes.

    Args:
        axes: matplotlib's.
        shape: of the image, (H, W, ...).
        scale_arcsec: size of a pixel in arcsec.
        north, east: directions on the picture, unit vectors (x, y).
        colour: ``"white"`` with a black outline, for a dark image, or ``"black"`` with a white one, for a light image.
    """
    from matplotlib.transforms import ScaledTranslation

    to_north, to_east = np.asarray(north, float), np.asarray(east, float)
    # Of one length in every panel, with room for the letters behind the corner.
    corner = 9 - ARROW * np.minimum(0, np.minimum(to_north, to_east))
    place = axes.transAxes + ScaledTranslation(*corner / 72, axes.figure.dpi_scale_trans)
    style = {"color": colour, "path_effects": _outlined(colour), "fontsize": 7, "ha": "center", "va": "center"}
    for direction, name in ((to_east, "E"), (to_north, "N")):
        axes.annotate(
            name,
            (0, 0),
            ARROW * direction,
            xycoords=place,
            textcoords="offset points",
            **style,
            arrowprops={"arrowstyle": "<-", "color": colour, "path_effects": _outlined(colour), "shrinkA": 3, "shrinkB": 0},
        )
    if scale_arcsec:
        draw_bar(axes, shape[1] * scale_arcsec, colour)


def extent(shape: Sequence[int], scale_arcsec: float | None = None) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of an image (H, W, ...) in arcsec (or pixels) from its centre, positive east and north."""
    height, width = (size / 2 * (scale_arcsec or 1) for size in shape[:2])
    return width, -width, -height, height


def _outlined(colour: str) -> list:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="black" if colour == "white" else "white")]


def draw_bar(axes: Axes, width_arcsec: float, colour: str) -> None:
    """A scale bar in the lower right corner of an image that fills the axes and is so wide; colours as in `draw_marks`."""
    length = max((bar for bar in BARS if bar <= width_arcsec / 4), default=BARS[0])
    text = f"{length / 60:g} arcmin" if length >= 60 else f"{length:g} arcsec"
    share = length / width_arcsec
    axes.plot(
        [0.96 - share, 0.96], [0.05, 0.05], transform=axes.transAxes, color=colour, lw=2, path_effects=_outlined(colour)
    )
    axes.text(
        0.97,
        0.07,
        text,
        transform=axes.transAxes,
        color=colour,
        ha="right",
        va="bottom",
        fontsize=8,
        path_effects=_outlined(colour),
    )


def drawable(image: np.ndarray) -> np.ndarray:
    """Floats, which no screen shows, as 0 to 1 between their 1st and 99.5th percentile; 0 where they are no numbers."""
    if image.dtype == np.uint8 or image.shape[-1:] == (4,):
        return image
    there = np.isfinite(image)
    if not there.any():
        return np.zeros(image.shape)
    low, high = np.percentile(image[there].astype(float), [1, 99.5])
    return np.clip((np.where(there, image, low) - low) / ((high - low) or 1), 0, 1)


def image_figure(image, title: str = "", note: str = "", scale_arcsec: float | None = None) -> Figure:
    """One cutout; row 0 is north.

    Args:
        image: as in `draw_sky`.
        title: over the image.
        note: under it.
        scale_arcsec: size of a pixel in arcsec, where known.

    Returns:
        matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6.4), layout="constrained")
    axes = figure.subplots()
    draw_sky(axes, image, scale_arcsec)
    axes.set_title(title)
    figure.supxlabel(note, fontsize="small")
    return figure


def plot_votes(
    row: Mapping, title: str, campaigns: Sequence[Campaign], classes: Sequence[str] = (), scale_arcsec: float | None = None
) -> Figure:
    """A row of a survey of votes: its image beside the answers down the tree of questions.

    Args:
        row: one row with numpy formatting.
        title: over both; the row's ``label`` is added by its name.
        campaigns: whose answers may be shown, see `skyset.questions.answers_of`.
        classes: names of the labels 0, 1, ...
        scale_arcsec: size of a pixel in arcsec, where known.

    Returns:
        matplotlib.figure.Figure
    """
    label = row.get("label", -1)
    answers, by = answers_of(row, campaigns)
    return votes_figure(row.get("image"), answers, f"{title}: {classes[label]}" if label >= 0 else title, by, scale_arcsec)


def votes_figure(image, answers: Sequence[Reached], title: str, by: str, scale_arcsec: float | None = None) -> Figure:
    """An image beside the shares of the answers, down the tree of questions.

    Args:
        image: as in `draw_sky`; None where there is none.
        answers: as `skyset.questions.along` gives them; may be empty.
        title: over both.
        by: ``"volunteers"``, who answered, or ``"network"``, which predicted what they would.
        scale_arcsec: size of a pixel in arcsec, where known.

    Returns:
        matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    rows = sum(len(each.shares) + 1.5 for each in answers)
    panels = 1 + (image is not None)
    figure = Figure(figsize=(5.8 * panels, max(5.5, 0.24 * rows)), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if image is not None:
        draw_sky(axes[0], image, scale_arcsec)
    _draw_answers(axes[-1], answers, NETWORK if by == "network" else VOLUNTEERS)
    kind = "a network's predictions of the shares of votes" if by == "network" else "shares of the volunteers' votes"
    axes[-1].set_title(kind if answers else "no votes", fontsize="medium")
    figure.suptitle(title)
    return figure


def _draw_answers(axes: Axes, answers: Sequence[Reached], colour: str) -> None:
    place, ticks, names = 0.0, [], []
    for reached in answers:
        who = "" if reached.voters is None else f"  ({reached.voters:,.0f} volunteer{'' if reached.voters == 1 else 's'})"
        asked = f"  (asked of {reached.share:.0%})" if reached.voters is None and reached.share < 0.995 else ""
        lines = textwrap.wrap(reached.question.text + who + asked, 74)
        place += 0.6 * (len(lines) - 1)
        axes.text(0.01, place, "\n".join(lines), fontsize=7.5, va="center", style="italic")
        place += 0.2 * (len(lines) - 1)
        for answer, share in zip(reached.question.answers, reached.shares, strict=True):
            if share != share:
                continue
            place += 1
            bar = axes.barh(place, share, 0.8, color=colour)
            axes.bar_label(bar, [f"{share:.0%}"], padding=3, fontsize=8)
            ticks.append(place)
            names.append(re.sub(r"^a\d+ ", "", re.sub("[-_]", " ", answer)))
        place += 1.2
    axes.set(xlim=(0, 1.18), ylim=(place, -1), xticks=[])
    axes.set_yticks(ticks, names, fontsize=8)
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom", *(() if answers else ("left",))):
        axes.spines[side].set_visible(False)


def overlay_figure(
    image,
    masks,
    labels: Sequence[str],
    title: str = "",
    scale_arcsec: float | None = None,
    origin: str = "lower",
    volunteers: int | None = None,
) -> Figure:
    """A cutout beside the same cutout with its masks overlaid, and the colour key.

    Args:
        image: uint8 (H, W, 3).
        masks: counts (len(labels), H, W); the more, the less transparent; a line is drawn at half of the largest.
        labels: what each mask shows.
        title: over both panels.
        scale_arcsec: size of a pixel in arcsec, where known.
        origin: where row 0 is: ``"lower"`` (south) as usual in FITS, or ``"upper"`` (north).
        volunteers: who drew each mask.

    Returns:
        matplotlib.figure.Figure
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    image, masks = as_array(image), np.asarray(masks)
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, heading in zip(panels, ("image", "masks"), strict=True):
        draw_sky(axes, image, scale_arcsec, origin)
        axes.set_title(heading)
        axes.label_outer()
    axes, key = panels[1], []
    place = {"origin": origin, "extent": extent(image.shape, scale_arcsec)}
    for mask, label, colour in zip(masks, labels, COLOURS, strict=False):
        top = int(mask.max())
        layer = np.zeros((*image.shape[:2], 4), np.float32)
        layer[..., :3] = to_rgb(colour)
        layer[..., 3] = 0.7 * mask / max(1, top)
        axes.imshow(layer, **place)
        if top:
            axes.contour(mask, levels=[top / 2], colors=colour, linewidths=1.2, **place)
        of = f" of {volunteers} volunteers" if volunteers else ""
        key.append(Patch(color=colour, label=f"{label}: up to {top}{of}" if top else f"{label}: none drawn"))
    figure.legend(handles=key, loc="outside lower center", ncols=min(len(key), 2 if volunteers else 4), frameon=False)
    figure.suptitle(title)
    return figure
