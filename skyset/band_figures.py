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
#: Subpixels along a pixel's side, and the FWHM (pixels) and beta of the PSF that a model is drawn with.
_OVERSAMPLING, _SEEING, _BETA = 5, 4.2, 3.5
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


def sersic_image(
    shape: tuple[int, int], centre: tuple[float, float], r_e: float, n: float, q: float, pa: float, fwhm: float = _SEEING
) -> np.ndarray:
    """A Sersic profile of total flux 1 seen through a Moffat PSF: good enough to be looked at.

    Args:
        shape: (H, W).
        centre: (x, y) in pixels, counted from 0.
        r_e: half-light radius along the major axis, pixels.
        n: Sersic index.
        q: axis ratio.
        pa: angle of the major axis from +x towards +y, degrees.
        fwhm: of the PSF, pixels.

    Returns:
        float64 (H, W).
    """
    grid = [(np.arange(size * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - 0.5 for size in shape]
    radius = _elliptical(grid[1][None] - centre[0], grid[0][:, None] - centre[1], q, pa)
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)  # Ciotti & Bertin 1999
    fine = np.exp(-b * (np.maximum(radius, 0.5 / _OVERSAMPLING) / r_e) ** (1 / n))
    pixels = fine.reshape(shape[0], _OVERSAMPLING, shape[1], _OVERSAMPLING).mean((1, 3))
    y, x = (np.fft.fftfreq(2 * size, 1 / (2 * size)) for size in shape)
    width = fwhm / (2 * np.sqrt(2 ** (1 / _BETA) - 1))
    psf = (1 + (x[None] ** 2 + y[:, None] ** 2) / width**2) ** -_BETA
    padded = np.zeros(psf.shape)
    padded[: shape[0], : shape[1]] = pixels
    blurred = np.fft.irfft2(np.fft.rfft2(padded) * np.fft.rfft2(psf / psf.sum()), psf.shape)[: shape[0], : shape[1]]
    return blurred / blurred.sum()


def _elliptical(x: np.ndarray, y: np.ndarray, q: float, pa: float) -> np.ndarray:
    """Distance along the major axis of the ellipse that a point lies on."""
    cosine, sine = np.cos(np.radians(pa)), np.sin(np.radians(pa))
    return np.hypot(x * cosine + y * sine, (y * cosine - x * sine) / max(q, 0.05))


def bands_figure(
    row: Mapping, bands: Sequence[str], title: str, pixel_scale: float, seeing: Mapping[str, float] | None = None
) -> Figure:
    """A galaxy in all its bands, row 0 south: images with ellipses, and below them what the Sersic models leave.

    Args:
        row: one row with numpy formatting: ``image`` (bands, H, W) in counts and, where measured,
            ``{band}_half_light_radius``, ``_major_axis``, ``_minor_axis``, ``_pos_angle`` and ``_sersic_index``,
            ``_sersic_r_e``, ``_sersic_q``, ``_sersic_pa``, ``{band}_cmodel_mag``.
        bands: their names in order, the bluest first.
        title: over all.
        pixel_scale: arcsec a pixel.
        seeing: FWHM of the PSF by band, arcsec.

    Returns:
        matplotlib.figure.Figure: a panel a band and the colours beside them; where a band has a Sersic model, two more rows:
        model and residual.
    """
    from matplotlib.figure import Figure

    image = np.asarray(row["image"])
    models = {}
    for band, plane in zip(bands, image, strict=False):
        fwhm = seeing[band] / pixel_scale if seeing else _SEEING
        if (model := fitted_model(row, band, plane, fwhm)) is not None:
            models[band] = model
    lines = 3 if models else 1
    figure = Figure(figsize=(2.6 * (len(bands) + 1), 2.75 * lines + 0.55), layout="constrained")
    panels = figure.subplots(lines, len(bands) + 1, squeeze=False)
    for place, band in enumerate(bands):
        axes, plane = panels[0, place], image[place]
        _show(axes, asinh_stretch(plane))
        axes.set_title(_heading(row, band))
        _draw_ellipse(axes, row, band, plane.shape)
        if models:
            _draw_model(panels[1:, place], plane, models.get(band), _number(row, f"{band}_sersic_index"))
    red, green, blue = (image[min(place, len(bands) - 1)] for place in (2, 1, 0))
    panels[0, -1].imshow(lupton_rgb(red, green, blue), origin="lower")
    panels[0, -1].set_title("".join(reversed(bands[:3])) + " as red, green, blue")
    for axes in panels[1:, -1]:
        axes.axis("off")
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
    draw_marks(panels[0, -1], image.shape[1:], pixel_scale)
    figure.suptitle(title)
    return figure


def _number(row: Mapping, name: str) -> float:
    return float(row.get(name, np.nan))


def _show(axes: Axes, stretched: np.ndarray) -> None:
    axes.imshow(stretched, cmap="gray", origin="lower", vmin=0, vmax=1)


def _heading(row: Mapping, band: str) -> str:
    magnitude = _number(row, f"{band}_cmodel_mag")
    return f"{band} = {magnitude:.2f}" if np.isfinite(magnitude) else band


def _draw_ellipse(axes: Axes, row: Mapping, band: str, shape: Sequence[int]) -> None:
    """The ellipse of the axis ratio and angle that were measured, its area that of the circle with half of the light."""
    from matplotlib.patches import Ellipse

    names = ("half_light_radius", "major_axis", "minor_axis", "pos_angle")
    radius, major, minor, angle = (_number(row, f"{band}_{name}") for name in names)
    if not np.isfinite([radius, major, minor, angle]).all() or not major > 0 or not minor > 0:
        axes.text(0.5, 0.03, "not measured", color="white", fontsize="small", ha="center", transform=axes.transAxes)
        return
    stretch = np.sqrt(major / minor)
    centre = (shape[1] // 2, shape[0] // 2)
    style = {"fill": False, "edgecolor": COLOURS[2], "linewidth": 1.2}
    axes.add_patch(Ellipse(centre, 2 * radius * stretch, 2 * radius / stretch, angle=angle, **style))


def fitted_model(row: Mapping, band: str, plane: np.ndarray, fwhm: float = _SEEING) -> np.ndarray | None:
    """The Sersic model of a band, scaled to its image; None where there is none.

    Args:
        row: with ``{band}_sersic_index``, ``_r_e``, ``_q`` and ``_pa``.
        band: its name.
        plane: (H, W), counts; 0 and NaN are no pixels.
        fwhm: of the PSF, pixels.

    Returns:
        float64 (H, W), counts.
    """
    n, r_e, q, pa = (_number(row, f"{band}_sersic_{name}") for name in ("index", "r_e", "q", "pa"))
    if not np.isfinite([n, r_e, q, pa]).all() or not (n > 0 and r_e > 0 and q > 0):
        return None
    height, width = plane.shape
    shape = sersic_image((height, width), _centre_of(plane), r_e, n, q, pa, fwhm)
    use = np.isfinite(plane) & (plane != 0)
    weight = np.where(use, np.sqrt(shape), 0)  # the galaxy more than its neighbours
    return shape * float((weight * np.nan_to_num(plane) * shape).sum() / (weight * shape**2).sum())


def _centre_of(plane: np.ndarray) -> tuple[float, float]:
    """x, y of the light around the middle pixel: the target is in it, but not at its middle."""
    y, x = np.indices(plane.shape)
    middle = plane.shape[1] // 2, plane.shape[0] // 2
    at = middle
    for _ in range(5):
        light = np.where(np.hypot(x - at[0], y - at[1]) < 4, np.clip(np.nan_to_num(plane), 0, None), 0)
        if not light.any():
            return middle
        at = float((light * x).sum() / light.sum()), float((light * y).sum() / light.sum())
    return at if np.hypot(at[0] - middle[0], at[1] - middle[1]) < 1.5 else middle


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
    panels[1].imshow((plane - model) / noise, cmap="RdBu_r", origin="lower", vmin=-10, vmax=10)
    panels[1].set_title(r"residual, $\pm$10 $\sigma$", fontsize="medium")
