"""The Sersic model of a fit whose shape is stored, on its image, for pictures and residuals; needs no numba.

Tables of galaxies keep a fit's index, size, axis ratio and angle, but neither its centre nor its flux and background: these
four are found again here, by Gauss-Newton steps with the stored shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from skyset.extraction.fourier import good_size
from skyset.extraction.hankel import N_MAX, N_MIN, hankel_transform, log_radii, moffat_transform, sersic_light

#: Of the Moffat PSF, where its FWHM is given.
_BETA = 3.5
_STEPS = 12
#: The centre is looked for so far from the middle, pixels: detections that are farther off are other objects.
_REACH = 6.0
#: Pixels this much brighter than the model, in units of the noise and of the model, are a neighbour's.
_NEIGHBOUR, _SHARE = 5.0, 0.3
_MAD = 1.4826


def fitted_model(row: Mapping, band: str, plane: np.ndarray, psf: float | np.ndarray) -> np.ndarray | None:
    """The Sersic model of a band where it fits its image best; None where there is none, or none of the target.

    Args:
        row: with ``{band}_sersic_index``, ``_sersic_r_e``, ``_sersic_q`` and ``_sersic_pa``; where its
            ``_central_image_pop_5px_rad`` is 0, these are another object's.
        band: its name.
        plane: (H, W), counts; 0 and NaN are no pixels.
        psf: FWHM of a Moffat profile (beta 3.5), pixels, or its image, (rows, columns).

    Returns:
        float64 (H, W), counts, its background included.
    """
    n, r_e, q, pa = (float(row.get(f"{band}_sersic_{name}", np.nan)) for name in ("index", "r_e", "q", "pa"))
    if not np.isfinite([n, r_e, q, pa]).all() or not (n > 0 and r_e > 0 and q > 0) or not on_target(row, band):
        return None
    plane = np.asarray(plane, float)
    return _placed(_Modes(plane.shape, n, r_e, q, pa, psf), plane)


def on_target(row: Mapping, band: str) -> bool:
    """Whether what was measured in a band is of the target: something was detected within 5 pixels of the middle."""
    return float(row.get(f"{band}_central_image_pop_5px_rad", np.nan)) != 0


class _Modes:
    """A profile of flux 1 through its PSF, in Fourier space, where moving it is a phase.

    The stamp is twice as large as the image: what leaves it on one side does not come in on the other.
    """

    def __init__(self, shape: tuple[int, ...], n: float, r_e: float, q: float, pa: float, psf: float | np.ndarray):
        self.shape, self.side = shape, good_size(2 * max(shape))
        self.x, self.y = (2 * np.pi * f for f in (np.fft.rfftfreq(self.side)[None], np.fft.fftfreq(self.side)[:, None]))
        cosine, sine = np.cos(np.radians(pa)), np.sin(np.radians(pa))
        kappa = r_e * np.hypot(self.x * cosine + self.y * sine, q * (self.y * cosine - self.x * sine))
        transform = hankel_transform(sersic_light(float(np.clip(n, N_MIN, N_MAX)), log_radii()))
        log_k = np.log(np.maximum(kappa, 1e-12))
        self.values = np.interp(log_k, log_radii(), transform) * self._psf(psf)

    def _psf(self, psf: float | np.ndarray) -> np.ndarray:
        if np.ndim(psf) == 0:
            width = float(psf) / (2 * np.sqrt(2 ** (1 / _BETA) - 1))
            return moffat_transform(_BETA, np.log(width * np.maximum(np.hypot(self.x, self.y), 1e-12)))
        image = np.nan_to_num(np.asarray(psf, float))
        padded = np.zeros((self.side, self.side))
        rows, columns = (slice(0, min(size, self.side)) for size in image.shape)
        padded[rows, columns] = image[rows, columns]
        middle = [-(size // 2) for size in image.shape]
        return np.fft.rfft2(np.roll(padded, middle, (0, 1))) / image.sum()

    def at(self, x: float, y: float) -> list[np.ndarray]:
        """The profile with its centre there, and its derivatives over x and y: float64 (H, W) each."""
        moved = self.values * np.exp(-1j * (self.x * x + self.y * y))
        rows, columns = (slice(0, size) for size in self.shape)
        three = (moved, -1j * self.x * moved, -1j * self.y * moved)
        return [np.fft.irfft2(each, (self.side, self.side))[rows, columns] for each in three]


def _placed(modes: _Modes, plane: np.ndarray) -> np.ndarray:
    """The profile with the centre, flux and background for which the squared residuals are least, neighbours left out."""
    pixels = np.isfinite(plane) & (plane != 0)
    if np.count_nonzero(pixels) < 9:
        return np.zeros(plane.shape)
    data = np.where(pixels, plane, 0)
    middle = np.array([plane.shape[1] // 2, plane.shape[0] // 2], float)
    centre = _centre_of(data, middle)
    noise = float(_MAD * np.median(np.abs(data[pixels] - np.median(data[pixels])))) or 1.0
    use, model = pixels, np.zeros(plane.shape)
    for step in range(_STEPS):
        profile, over_x, over_y = modes.at(*centre)
        if step == 0:
            near = profile > 0.3 * profile.max()
            flux = float((data * profile)[near & pixels].sum() / max((profile[near & pixels] ** 2).sum(), 1e-30))
            background = float(np.median(data[pixels]))
        model = flux * profile + background
        use = pixels & (data - model < _NEIGHBOUR * noise + _SHARE * np.abs(model - background))
        columns = np.stack([profile, flux * over_x, flux * over_y, np.ones_like(profile)], -1)[use]
        change, *_ = np.linalg.lstsq(columns, (data - model)[use], rcond=None)
        flux, background = flux + float(change[0]), background + float(change[3])
        centre = np.clip(centre + np.clip(change[1:3], -1, 1), middle - _REACH, middle + _REACH)
        if np.abs(change[1:3]).max() < 1e-3 and abs(change[0]) < 1e-4 * abs(flux):
            break
    return flux * modes.at(*centre)[0] + background


def _centre_of(data: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """x, y of the light around the middle pixel, where the steps begin."""
    y, x = np.indices(data.shape)
    at = middle
    for _ in range(5):
        light = np.where(np.hypot(x - at[0], y - at[1]) < 4, np.clip(data, 0, None), 0)
        if not light.any():
            return middle
        at = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
    return at if np.hypot(*(at - middle)) < _REACH else middle
