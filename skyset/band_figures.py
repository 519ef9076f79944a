"""Pictures of a galaxy in several bands: what was measured on them, a colour image, and what a Sersic model leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from skyset.figures import COLOURS, draw_marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Of the noise, where the asinh stretch turns from linear to logarithmic; of the brightest pixels, what is drawn white.
_SOFTENING, _WHITE = 3.0, 99.9
#: Of the noise, where the colours of a residual end.
_RESIDUAL = 10
_MAD = 1.4826


def noise_of(image: np.ndarray) -> float:
    """Standard deviation of the sky, from the pixels' median absolute deviation; pixels of exactly 0 are padding."""
    pixels = image[np.isfinite(image) & (image != 0)]
    return float(_MAD * np.median(np.abs(pixels - np.median(pixels)))) or 1.0 if pixels.size else 1.0


def asinh_stretch(image: np.ndarray, noise: float | None = None, white: float | None = None) -> np.ndarray:
    """Counts as 0 to 1 for a screen: linear in the noise, logarithmic above it.

    Args:
        image: counts; NaN becomes 0.
        noise: standard deviation of the sky, by default `noise_of` the image.
        white: counts that become 1, by default the 99.9th percentile.

    Returns:
        float array of the image's shape.
    """
    noise = noise_of(image) if noise is None else noise
    image = np.nan_to_num(np.asarray(image, float), posinf=0, neginf=0)
    white = max(float(np.percentile(image, _WHITE)), 5 * noise) if white is None else white
    low, high = np.arcsinh([-1 / _SOFTENING, white / (_SOFTENING * noise)])
    return np.clip((np.arcsinh(image / (_SOFTENING * noise)) - low) / (high - low), 0, 1)


def lupton_rgb(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """A colour image after Lupton et al. 2004 (PASP 116, 133): the stretch of the mean, so that colours do not wash out.

    Args:
        red, green, blue: counts of one zero point, (H, W).

    Returns:
        uint8 (H, W, 3).
    """
    planes = np.nan_to_num(np.stack([red, green, blue], axis=-1).astype(float))
    # The redder the filter, the more counts most galaxies have: each plane by the light in it, or all would be red.
    light = np.clip(planes, 0, None).reshape(-1, 3).sum(0)
    planes *= np.clip((light.mean() / np.maximum(light, 1e-9)) ** 0.7, 0.3, 3)
    mean = planes.mean(-1)
    noise = noise_of(mean)
    # In the noise there is no colour.
    trust = (np.clip(mean - noise, 0, None) / (np.abs(mean) + 3 * noise))[..., None]
    planes = trust * planes + (1 - trust) * mean[..., None]
    share = asinh_stretch(mean, noise) / np.where(mean > 0, mean, np.inf)
    colours = np.clip(planes, 0, None) * share[..., None]
    top = colours.max(-1, keepdims=True)
    return np.round(255 * colours / np.maximum(top, 1)).astype(np.uint8)


def bands_figure(
    row: Mapping, bands: Sequence[str], title: str, pixel_scale: float, models: Mapping[str, np.ndarray] | None = None
) -> Figure:
    """A galaxy in all its bands, row 0 south: images with ellipses, and below them what the Sersic models leave.

    Args:
        row: one row with numpy formatting: ``image`` (bands, H, W) in counts and, where measured,
            ``{band}_half_light_radius``, ``_major_axis``, ``_minor_axis``, ``_pos_angle``, ``_sersic_index`` and
            ``_cmodel_mag``. Where ``_central_image_pop_5px_rad`` is 0 the shapes are another object's and are not drawn.
        bands: their names in order, the bluest first.
        title: over all.
        pixel_scale: arcsec a pixel.
        models: of some bands what was fitted, (H, W) in counts, as `skyset.extraction.fitted_picture` gives it.

    Returns:
        matplotlib.figure.Figure: a panel a band and the colours beside them; where a band has a Sersic model, two more rows:
        model and residual.
    """
    from matplotlib.figure import Figure

    image = np.asarray(row["image"])
    models = models or {}
    lines = 3 if models else 1
    figure = Figure(figsize=(2.6 * (len(bands) + 1), 2.75 * lines + 0.55), layout="constrained")
    panels = figure.subplots(lines, len(bands) + 1, squeeze=False)
    for place, band in enumerate(bands):
        axes, plane = panels[0, place], image[place]
        _show(axes, asinh_stretch(plane))
        axes.set_title(_heading(row, band))
        draw_ellipse(axes, row, band, plane.shape)
        if models:
            _draw_model(panels[1:, place], plane, models.get(band), _number(row, f"{band}_sersic_index"))
    red, green, blue = (image[min(place, len(bands) - 1)] for place in (2, 1, 0))
    panels[0, -1].imshow(lupton_rgb(red, green, blue), origin="lower")
    panels[0, -1].set_title(", ".join(reversed(bands[:3])) + " as red, green, blue", fontsize="medium")
    for axes in panels[1:, -1]:
        axes.axis("off")
    drawn = [axes.images[0] for axes in panels[-1, :-1] if models and axes.images]
    if drawn:
        figure.colorbar(drawn[0], ax=panels[-1, -1], label="residual / noise", location="left", shrink=0.9, fraction=0.3)
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
    draw_marks(panels[0, -1], image.shape[1:], pixel_scale)
    figure.suptitle(title)
    figure.supxlabel("ellipse: holds half of the light, as seen through the PSF", fontsize="small")
    return figure


def _number(row: Mapping, name: str) -> float:
    return float(row.get(name, np.nan))


def _show(axes: Axes, stretched: np.ndarray) -> None:
    axes.imshow(stretched, cmap="gray", origin="lower", vmin=0, vmax=1)


def _heading(row: Mapping, band: str) -> str:
    magnitude = _number(row, f"{band}_cmodel_mag")
    return f"{band} = {magnitude:.2f}" if np.isfinite(magnitude) else band


def draw_ellipse(axes: Axes, row: Mapping, band: str, shape: Sequence[int]) -> None:
    """Draw the ellipse with half of the light that was measured in a band, or say why there is none.

    It has the axis ratio and the angle of the isophote, and the area of the circle of ``{band}_half_light_radius``.

    Args:
        axes: matplotlib's, with the image on it.
        row: as for `bands_figure`.
        band: its name.
        shape: of the image, (H, W); the target is in its middle.
    """
    from matplotlib.patches import Ellipse

    names = ("half_light_radius", "major_axis", "minor_axis", "pos_angle")
    radius, major, minor, angle = (_number(row, f"{band}_{name}") for name in names)
    missing = not np.isfinite([radius, major, minor, angle]).all() or not major > 0 or not minor > 0
    if missing or _number(row, f"{band}_central_image_pop_5px_rad") == 0:
        text = "not measured" if missing else "target not detected"
        axes.text(0.5, 0.03, text, color="white", fontsize="small", ha="center", transform=axes.transAxes)
        return
    stretch = np.sqrt(major / minor)
    centre = (shape[1] // 2, shape[0] // 2)
    style = {"fill": False, "edgecolor": COLOURS[2], "linewidth": 1.2}
    axes.add_patch(Ellipse(centre, 2 * radius * stretch, 2 * radius / stretch, angle=angle, **style))


def _draw_model(panels: Sequence[Axes] | np.ndarray, plane: np.ndarray, model: np.ndarray | None, n: float) -> None:
    """The model as the image is drawn, and the residual in units of the noise."""
    if model is None:
        for axes in panels:
            axes.axis("off")
        return
    noise = noise_of(plane)
    white = max(float(np.nanpercentile(plane, _WHITE)), 5 * noise)
    _show(panels[0], asinh_stretch(model, noise, white))
    panels[0].set_title(f"model, n = {n:.2f}", fontsize="medium")
    panels[1].imshow((plane - model) / noise, cmap="RdBu_r", origin="lower", vmin=-_RESIDUAL, vmax=_RESIDUAL)
    panels[1].set_title("image - model", fontsize="medium")
