"""Drawing the images of a row: its bands as one colour image, each of them small beside it, and what has colours already."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from skyset.band_figures import asinh_stretch, lupton_rgb
from skyset.explore.row_pictures.bands import of_colour_image, wavelength
from skyset.explore.row_pictures.fields import shown
from skyset.explore.row_pictures.found import Other, Stack, pictures_of
from skyset.figures import COLOURS, draw_bar, drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

#: Of the good pixels of a band, the level taken as the sky (a galaxy may fill half of the image), and the brightest kept.
_SKY, _BRIGHTEST = 30.0, 99.95
#: A longer side is drawn by every so many pixels.
_SIDE = 1200
#: Grey level of pixels that are no numbers, and how strongly masked ones are tinted.
_NOTHING, _TINT = 70, 0.55
#: Of a survey of hundreds of narrow bands.
MOST_BANDS = 16


def colour_image(stack: Stack) -> tuple[np.ndarray, tuple[str, str, str]] | None:
    """The bands as a colour image after Lupton et al. 2004.

    Args:
        stack: images, row 0 as it is stored.

    Returns:
        uint8 (H, W, 3), grey where pixels are no numbers, and the bands that are red, green and blue; None where there are
        no three filters.
    """
    places = of_colour_image(stack.bands, [_has_light(plane) for plane in stack.planes])
    if places is None or not stack.are_bands:
        return None
    planes = [_above_sky(stack.planes[place], stack.bad[place]) for place in places]
    pixels = lupton_rgb(*_of_usual_size(np.stack(planes)))
    pixels[~np.isfinite(stack.planes[list(places)]).all(0)] = _NOTHING
    red, green, blue = (stack.bands[place] for place in places)
    return pixels, (red, green, blue)


def seen(image):
    """What people see of a row's image, to be compared or laid out with others.

    Args:
        image: a group of bands, ``{"band": names, "flux": (bands, H, W), ...}``, row 0 south; or an image already.

    Returns:
        uint8 (H, W, 3), row 0 north, of a group: in colour, or grey where it has no three filters. Else what was given.
    """
    stacks = pictures_of({"image": image}).stacks if isinstance(image, Mapping) else []
    if not stacks:
        return image
    coloured = colour_image(stacks[0])
    if coloured is not None:
        return coloured[0][::-1]
    lit = [place for place, plane in enumerate(stacks[0].planes) if _has_light(plane)] or [0]
    middle = lit[(len(lit) - 1) // 2] if stacks[0].are_bands else lit[0]
    return grey_image(stacks[0].planes[middle], np.zeros(stacks[0].bad.shape[1:], bool), stacks[0].are_bands)[::-1]


def grey_image(plane: np.ndarray, bad: np.ndarray, is_band: bool) -> np.ndarray:
    """One plane as a screen shows it.

    Args:
        plane: (H, W) numbers.
        bad: bool (H, W): tinted.
        is_band: light above a sky, drawn so that the faint is seen; anything else, such as the difference of two images, is
            drawn as it is, between percentiles.

    Returns:
        uint8 (H, W, 3).
    """
    levels = asinh_stretch(_of_usual_size(_above_sky(plane, bad))) if is_band else drawable(plane.astype(float))
    pixels = np.repeat(np.round(255 * levels)[..., None], 3, axis=-1)
    tint = np.array([int(COLOURS[5][place : place + 2], 16) for place in (1, 3, 5)])
    pixels[bad] = (1 - _TINT) * pixels[bad] + _TINT * tint
    pixels[~np.isfinite(plane)] = _NOTHING
    return pixels.astype(np.uint8)


def _has_light(plane: np.ndarray) -> bool:
    """Whether a plane has values that differ: some surveys leave bands empty."""
    there = plane[np.isfinite(plane)]
    return bool(there.size) and bool(there.min() < there.max())


def _above_sky(plane: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Counts above the sky, (H, W) float64; 0 where there are none, and no pixel so bright that it outshines all."""
    finite = np.isfinite(plane)
    used = plane[finite & ~bad] if (finite & ~bad).any() else plane[finite]
    if not used.size:
        return np.zeros(plane.shape)
    sky, brightest = np.percentile(used.astype(float), [_SKY, _BRIGHTEST])
    counts = np.where(finite, plane, sky).astype(float) - sky
    return np.clip(counts, -abs(brightest - sky), max(brightest - sky, 0))


def _of_usual_size(counts: np.ndarray) -> np.ndarray:
    """Counts with a brightest one of 1000: no unit makes them so small that they are taken for nothing."""
    top = np.abs(counts).max(initial=0)
    return counts / top * 1000 if top > 0 else counts


def _reduced(stack: Stack) -> Stack:
    """Images of at most `_SIDE` pixels a side."""
    step = math.ceil(max(stack.planes.shape[1:]) / _SIDE)
    if step == 1:
        return stack
    scale = None if stack.scale is None else stack.scale * step
    cut = (slice(MOST_BANDS), slice(None, None, step), slice(None, None, step))
    return Stack(stack.name, stack.planes[cut], stack.bands[:MOST_BANDS], stack.bad[cut], scale, stack.are_bands)


def grid_of(count: int, coloured: bool) -> tuple[int, int]:
    """Lines and columns of so many images: of small ones, that are as high together as the colour image beside them."""
    two, three = (4, 9) if coloured else (8, 15)
    lines = 1 if count <= 3 and not coloured else 2 if count <= two else 3 if count <= three else 4
    return lines, math.ceil(count / lines)


def size_of(stack: Stack, height: float) -> tuple[float, float]:
    """How wide and high a stack is drawn, inches, where a single image is so high."""
    coloured = _is_coloured(stack)
    count = min(len(stack.planes), MOST_BANDS)
    lines, columns = grid_of(count, coloured)
    ratio = stack.planes.shape[2] / stack.planes.shape[1]
    if coloured:
        return (height + columns * height / lines) * ratio, height
    side = height if count == 1 else 0.72 * height if lines == 1 else 0.52 * height
    return columns * side * ratio, lines * side + 0.3


def _is_coloured(stack: Stack) -> bool:
    return stack.are_bands and of_colour_image(stack.bands, [_has_light(plane) for plane in stack.planes]) is not None


def draw_stack(figure: FigureBase, stack: Stack) -> None:
    """Draw the colour image large and the bands small beside it; the planes alone where there is no colour image.

    Args:
        figure: to draw in.
        stack: images; row 0 is drawn at the bottom, as FITS images are.
    """
    small = _reduced(stack)
    coloured = colour_image(small)
    count = min(len(small.planes), MOST_BANDS)
    lines, columns = grid_of(count, coloured is not None)
    if coloured is None:
        boxes, before = figure.add_gridspec(lines, columns), 0
    else:
        boxes, before = figure.add_gridspec(lines, columns + 1, width_ratios=[lines, *[1] * columns]), 1
        large = figure.add_subplot(boxes[:, 0])
        large.imshow(coloured[0], origin="lower")
        large.set_title(shown(", ".join(coloured[1])) + " as red, green, blue", fontsize=10)
    panels = [figure.add_subplot(boxes[number // columns, before + number % columns]) for number in range(count)]
    for number, axes in enumerate(panels):
        is_band = small.are_bands and wavelength(small.bands[number]) is not None
        axes.imshow(grey_image(small.planes[number], small.bad[number], is_band), origin="lower")
        name = small.bands[number] + ("" if _has_light(small.planes[number]) else " (empty)")
        axes.set_title(shown(name), fontsize=9 if coloured else 10, pad=3)
    first = large if coloured else panels[0]
    for axes in (first, *panels):
        axes.set(xticks=[], yticks=[])
    first.set_xlabel(_note(stack), fontsize=8)
    if small.scale:
        draw_bar(first, small.planes.shape[2] * small.scale, "white")


def _note(stack: Stack) -> str:
    """What stands under the images."""
    size = f"{stack.planes.shape[2]} x {stack.planes.shape[1]} pixels" + _of_scale(stack.scale)
    more = len(stack.planes) - MOST_BANDS
    finite = np.isfinite(stack.planes)
    notes = [size, f"{more} more not drawn" if more > 0 else ""]
    notes.append("masked: orange" if (stack.bad & finite).any() else "")
    notes.append("NaN: grey" if not finite.all() else "")
    return "; ".join(note for note in notes if note)


def _of_scale(scale: float | None) -> str:
    return f", {scale:.3g} arcsec a pixel" if scale else ""


def draw_others(panels: Sequence[Axes], images: Sequence[Other], scale: float | None) -> None:
    """Draw what has colours already, and arrays that are pictures but no bands: maps, masks, kernels.

    Args:
        panels: an axes each.
        images: what to draw.
        scale: arcsec a pixel of the first, where known.
    """
    for number, (axes, image) in enumerate(zip(panels, images, strict=True)):
        step = math.ceil(max(image.pixels.shape[:2]) / _SIDE)
        axes.imshow(drawable(image.pixels[::step, ::step]), cmap="gray", origin=image.origin)
        axes.set_title(shown(image.name), fontsize=10, pad=3)
        axes.set(xticks=[], yticks=[])
        size = f"{image.pixels.shape[1]} x {image.pixels.shape[0]} pixels"
        axes.set_xlabel(size + (_of_scale(scale) if number == 0 else ""), fontsize=8)
    if scale and images:
        draw_bar(panels[0], images[0].pixels.shape[1] * scale, "white")
