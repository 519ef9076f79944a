"""Sersic galaxies (1963, Bol. Asoc. Argent. Astron. 6, 41) fitted through the PSF, thousands at a time, in Fourier space.

There a convolution is a product and a shift is a phase. With H the Hankel transform of the profile (``hankel.py``), a galaxy
of flux F at (x, y) with the shear matrix A (an ellipse of area pi r_c^2) has the modes::

    M(k) = F H(|A k|, n) PSF(k) exp(-i k.(x, y)),      |A k|^2 = r_c^2 k^T expm([[e1, e2], [e2, -e1]]) k

with r_c = r_e sqrt(q) and (e1, e2) = -ln q (cos 2 PA, sin 2 PA). White noise in pixels is white noise in modes (Parseval),
so that least squares over the modes where the PSF lets something through, |PSF(k)| > 0.02, are least squares over the
pixels. Leaving out k = 0 fits a constant background along. Once the data are turned by the model's phase, x and y act on
imaginary parts and all else on real ones.

Pixels that are masked, outside the image or of less weight are filled with the model of the moment, w d + (1 - w) m: this
has the gradient of the weighted least squares, thus the same minimum. Their normal matrix is made from images near the
end, for quick convergence and right errors. Where such pixels lie on the core, modes down to |PSF(k)| = 0.001 are taken:
what the model lacks is no longer orthogonal there to what it has.

A stamp is periodic, and light that leaves it on one side comes in on the other. Where that light is not faint, the
difference to the same model on a stamp twice as large goes into the data, and the fit goes on from there.

The same Levenberg-Marquardt loop drives two backends, numba (CPU) and torch (CPU or GPU), that differ only in who computes
the Jacobian's columns and their products, object after object or all at once.

Positions are 0-based, pixel centres at integers, x along the second axis; angles are degrees counter-clockwise from +x. The
pixel's extent is part of the PSF, as in a PSF measured from stars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from enum import IntFlag
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from skyset.extraction.compiled import jit
from skyset.extraction.fourier import good_size
from skyset.extraction.hankel import N_MAX
from skyset.extraction.hankel import N_MIN
from skyset.extraction.hankel import moffat_transform
from skyset.extraction.hankel import sersic_table

if TYPE_CHECKING:
    from astropy.table import QTable

#: The order of ``covariance``.
PARAMETERS = ("n", "r_e", "q", "pa", "flux", "x", "y")
UNITS = {"r_e": "pix", "pa": "deg", "x": "pix", "y": "pix"}
#: Modes where the PSF's transform is below this carry next to no light.
PSF_FLOOR = 0.02
#: The same where weights are uneven on the core, and for chi2: what is below shifts n by 0.4 sigma at most at magnitude 18.
FINE_FLOOR = 0.001
#: Weights count as uneven on the core within so many FWHM of the PSF from where the fit starts.
CORE = 3.0
#: Light that wraps around matters where a galaxy's surface brightness at the stamp's edge is above this, sigmas of a pixel.
WRAPPED = 0.1
#: A PSF is undersampled where more than this of its transform is left at the pixels' Nyquist frequency.
NYQUIST = 0.02
#: Sides of the square stamps that are fitted.
SIDES = (48, 64, 80, 96, 112, 125, 160, 192, 240, 320, 448, 640, 896, 1280, 1792, 2560)
#: Least axis ratio and radius (pixels, of the circle of the same area).
Q_MIN, R_MIN = 0.05, 0.05
#: A fit has converged when a full step would lower chi2 by less than this: parameters are within 0.01 sigma.
TOLERANCE = 1e-4

# What is fitted: flux, position on the stamp, ln r_c, the ellipse, ln n. x and y stand last, as they decouple.
_F, _R, _E1, _E2, _N, _X, _Y = range(7)
_ETA_MAX = -math.log(Q_MIN)
#: Half the side of the part in the middle where holes in the light are filled from their rims.
_HOLE = 8
#: ln r_c of a point source: its transform is 1 everywhere.
_POINT = -30.0
#: Largest change in one step.
_LONGEST = np.array([np.inf, 1.0, 0.7, 0.7, 0.7, 2.0, 2.0])
#: Pixels that are fitted together: on the CPU what its caches hold, on a GPU some 6 GB for 4,096 stamps of 112 x 112.
_CHUNK_PIXELS = {"cpu": 1 << 18, "gpu": 1 << 26}


class SersicFlag(IntFlag):
    """What to know about a fit; 0 where there is nothing to say."""

    #: n is 0.3 or 8: the profile wants a flatter or a more peaked centre than these.
    N_AT_BOUND = 1
    #: r_c is 0.05 pixels (a point source), or as large as the stamp.
    R_E_AT_BOUND = 2
    #: q is 0.05: the minor axis is not resolved.
    Q_AT_BOUND = 4
    #: The centre ran to the edge of where it may be (an eighth of the stamp from the start, and within the image).
    POSITION_AT_BOUND = 8
    #: The values are those of the last iteration.
    NOT_CONVERGED = 16
    #: More than 10 % of the model's light on the stamp falls on pixels that were not used.
    MASKED = 32
    #: The flux is below 3 sigma.
    FAINT = 64
    #: The image ends within 4 r_e of the centre: background and outer light are hard to tell apart.
    TRUNCATED = 128
    #: All values are NaN: no pixel to use, nothing above the background, or more than half of the light unseen.
    NOT_MEASURED = 256
    #: The PSF is too narrow for the pixels, its FWHM below some 2.3: n of small galaxies comes out too low, by 1 % to 17 %.
    UNDERSAMPLED = 512


@dataclass(frozen=True)
class Moffat:
    """A circular Moffat PSF (1969, A&A 3, 455), the pixel's extent included.

    Attributes:
        fwhm: pixels, one or (count,).
        beta: exponent, above 1.
    """

    fwhm: float | np.ndarray
    beta: float = 3.5


@dataclass(frozen=True)
class Gaussian:
    """A circular Gaussian PSF, the pixel's extent included; ``fwhm`` in pixels, one or (count,)."""

    fwhm: float | np.ndarray


@dataclass(frozen=True, eq=False)
class SersicFits:
    """One row an object; NaN where not measured.

    Attributes:
        n: Sersic index.
        r_e: half-light radius along the major axis, pixels.
        q: axis ratio, minor to major.
        pa: degrees counter-clockwise from +x, in [-90, 90).
        flux: of the whole profile, to infinity; counts.
        x, y: pixels of the image, 0-based.
        background: counts a pixel, under the galaxy.
        covariance: (count, 7, 7), in the order of ``PARAMETERS``, for noise as given and independent between pixels; NaN in
            the rows of a parameter at its bound.
        chi2: reduced, over the pixels of the stamp that were used.
        flags: int64, bits of ``SersicFlag``.
        iterations: int64, of Levenberg-Marquardt.
        masked_fraction: of the model's light on the stamp, what lies on pixels not used.
        sigma_pixel: noise of a pixel, as given or measured.
        resolved: how much better the fit is than the best point source at its centre, in sigmas: the square root of the
            difference in chi2. Of simulated point sources
            at magnitude 20 to 24 (S/N 120 to 3) 99 % are below 3 and 90 % below 2.
    """

    n: np.ndarray
    r_e: np.ndarray
    q: np.ndarray
    pa: np.ndarray
    flux: np.ndarray
    x: np.ndarray
    y: np.ndarray
    background: np.ndarray
    covariance: np.ndarray
    chi2: np.ndarray
    flags: np.ndarray
    iterations: np.ndarray
    masked_fraction: np.ndarray
    sigma_pixel: np.ndarray
    resolved: np.ndarray

    def __len__(self) -> int:
        return len(self.n)

    def sigma(self, parameter: str) -> np.ndarray:
        """Standard error of one of ``PARAMETERS``, (count,); of ``pa`` by its derivative: large where a galaxy is round.

        Raises:
            ValueError: no such parameter.
        """
        if parameter not in PARAMETERS:
            raise ValueError(f"{parameter} is not a parameter of the fit; these are: {', '.join(PARAMETERS)}")
        place = PARAMETERS.index(parameter)
        return np.sqrt(self.covariance[:, place, place])

    @property
    def measured(self) -> np.ndarray:
        """bool (count,): there are values."""
        return (self.flags & SersicFlag.NOT_MEASURED) == 0

    def to_table(self) -> QTable:
        """Columns as the attributes, ``<name>_err`` for each parameter, with units (pix, deg)."""
        from astropy.table import QTable

        table = QTable()
        for name in (*PARAMETERS, "background"):
            for column in (name, f"{name}_err") if name in PARAMETERS else (name,):
                table[column] = getattr(self, name) if column == name else self.sigma(name)
                if name in UNITS:
                    table[column].unit = UNITS[name]
        for name in ("covariance", "chi2", "flags", "iterations", "masked_fraction", "sigma_pixel", "resolved"):
            table[name] = getattr(self, name)
        return QTable(table)


# --- What a user calls ----------------------------------------------------------------------------


def fit_sersic(
    images, psf, *, x, y, r_e=None, q=None, pa=None, n=None, sigma=None, ivar=None, mask=None, device: str | None = None,
    backend: str | None = None, max_iterations: int = 60, dtype: str = "float64",
) -> SersicFits:  # fmt: skip
    """Fit a PSF-convolved Sersic galaxy and a constant background to each image.

    Args:
        images: (count, rows, columns), one (rows, columns), or a sequence of images of different shapes; any numbers. NaN
            and infinite pixels, and those masked in a masked array, are not used.
        psf: an image of it, (rows, columns), or one for each object, (count, rows, columns); ``Moffat`` or ``Gaussian``.
            It is normalised to a sum of 1. Its centre is the middle pixel; on an axis of even length, that of the two middle
            pixels that is nearer its centroid. It may be larger than the images.
        x, y: where to start, pixels, one or (count,). The centre is looked for up to an eighth of the stamp around.
        r_e: where to start, pixels: for instance FLUX_RADIUS; None: several are tried.
        q, pa, n: where to start; default round and 1.5.
        sigma: noise of a pixel, counts, one or (count,). None, and no ``ivar``: measured on each image, which takes as
            long as the fit and is too high where an object fills the image. The galaxy's own photons make errors larger
            than those of this even noise: where they matter, give ``ivar``.
        ivar: inverse variances of pixels, as the images; 0 is not used. Instead of ``sigma``.
        mask: True where a pixel is not used (neighbours, saturation), as the images, or one (rows, columns) for all.
        device: ``cpu``, or as torch names them (``cuda``).
        backend: ``numba`` or ``torch``; default numba on the CPU.
        max_iterations: of Levenberg-Marquardt.
        dtype: ``float64``, or ``float32`` with torch: half the memory, n to some 1e-3.

    Returns:
        SersicFits, one row an image.

    Raises:
        ValueError: shapes that do not agree, a PSF that is not one (NaN, sum not positive, no finite width), noise that is
            not positive, an unknown backend or dtype.
        ImportError: torch is asked for and not installed.
    """
    job = _Job(images, psf, x, y, r_e, q, pa, n, sigma, ivar, mask)
    backend = backend or ("numba" if device in (None, "cpu") else "torch")
    if backend not in ("numba", "torch"):
        raise ValueError(f"backend is {backend!r}; it is numba or torch")
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype is {dtype!r}; it is float64 or float32")
    if backend == "numba" and (device not in (None, "cpu") or dtype != "float64"):
        raise ValueError(f"numba computes on the CPU in float64; for {device or 'cpu'} in {dtype} take backend='torch'")
    if max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations}; it must be at least 1")

    def make(grid: _Grid, *stamps) -> _Batch:
        return _NumbaBatch(grid, *stamps) if backend == "numba" else _TorchBatch(grid, *stamps, device or "cpu", dtype)

    todo = np.flatnonzero(job.usable)
    sides = job.first_sides()
    for _ in SIDES:  # a stamp that turns out too small is fitted again on a larger one
        for side in np.unique(sides[todo]):
            members = todo[sides[todo] == side]
            size = max(1, _CHUNK_PIXELS["cpu" if device in (None, "cpu") else "gpu"] // int(side) ** 2)
            for start in range(0, len(members), size):
                _fit_chunk(job, members[start : start + size], int(side), make, max_iterations)
        wanted = job.sides_wanted(todo)
        again = wanted > sides[todo]
        sides[todo] = np.maximum(sides[todo], wanted)
        todo = todo[again]
        if not len(todo):
            break
    return job.result()


def model(fits: SersicFits, shape: tuple[int, int], psf) -> np.ndarray:
    """The fitted galaxies through the PSF, without background, for residuals.

    Args:
        shape: rows, columns.
        psf: as for ``fit_sersic``.

    Returns:
        float64 (count, rows, columns); NaN for objects that were not measured.

    Raises:
        ValueError: as ``fit_sersic``, of the PSF.
    """
    images = np.full((len(fits), *shape), np.nan)
    psf = _Psf(psf, len(fits))
    for i in np.flatnonzero(fits.measured):
        # Light that leaves a periodic grid comes in again on the other side: far off.
        side = good_size(2 * max(shape) + int(4 * min(fits.r_e[i], max(shape))))
        grid = psf.grid(np.array([i]), side, floor=0.0)
        corner = (side - np.array(shape)) // 2
        theta = _to_theta(*(getattr(fits, name)[i : i + 1] for name in PARAMETERS))
        theta[:, _X] += corner[1]
        theta[:, _Y] += corner[0]
        batch = _NumbaBatch(grid, np.zeros((1, side, side)), None)
        image = batch.images(batch.modes(theta, np.zeros(1, np.int64)))[0] + fits.flux[i] / side**2
        images[i] = image[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
    return images


# --- Input and output -----------------------------------------------------------------------------


class _Job:
    """Checked input, and the results as they come."""

    def __init__(self, images, psf, x, y, r_e, q, pa, n, sigma, ivar, mask):
        self.images = _as_images(images, "images")
        count = len(self.images)
        self.psf = _Psf(psf, count)
        self.masks = _companions(mask, self.images, "mask")
        self.ivars = _companions(ivar, self.images, "ivar")
        if sigma is not None and ivar is not None:
            raise ValueError("sigma and ivar are both given; one of them says how noisy the pixels are")
        self.x, self.y = _each(x, count, "x"), _each(y, count, "y")
        self.sized = r_e is not None
        self.r_e, self.q = _each(2.0 if r_e is None else r_e, count, "r_e"), _each(1.0 if q is None else q, count, "q")
        self.pa, self.n = _each(0.0 if pa is None else pa, count, "pa"), _each(1.5 if n is None else n, count, "n")
        # A start that is not a number is a start all the same: x and y are not, without them there is no object.
        for values, default in ((self.r_e, 2.0), (self.q, 1.0), (self.pa, 0.0), (self.n, 1.5)):
            values[~np.isfinite(values)] = default
        self.r_e, self.q = np.clip(self.r_e, 0.3, 1e4), np.clip(self.q, 0.2, 1.0)
        self.n = np.clip(self.n, 0.5, 6.0)
        self.shapes = np.array([image.shape for image in self.images]).reshape(count, 2)
        self.sigma = np.full(count, np.nan) if sigma is None else _each(sigma, count, "sigma")
        if sigma is not None and not (self.sigma > 0).all():
            raise ValueError("sigma must be above 0 for every object")
        inside = (self.x >= -0.5) & (self.x < self.shapes[:, 1] - 0.5)
        self.usable = inside & (self.y >= -0.5) & (self.y < self.shapes[:, 0] - 0.5)
        self.values = {each.name: np.full(count, np.nan) for each in fields(SersicFits)}
        self.values["covariance"] = np.full((count, 7, 7), np.nan)
        self.values["flags"] = np.full(count, int(SersicFlag.NOT_MEASURED))
        self.values["iterations"] = np.zeros(count, np.int64)
        self.values["sigma_pixel"] = self.sigma

    def pixels(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """An image and its weights (inverse variances, or 1), float64, 0 where not used."""
        image = np.ma.asarray(self.images[i])
        pixels = np.ma.getdata(image).astype(np.float64)
        used = np.isfinite(pixels)
        if np.ma.is_masked(image):
            used &= ~np.ma.getmaskarray(image)
        if self.masks is not None:
            used &= ~self.masks[i]
        weight = used.astype(np.float64)
        if self.ivars is not None:
            ivar = np.asarray(self.ivars[i], np.float64)
            if np.nanmin(ivar, initial=0.0) < 0:
                raise ValueError(f"an inverse variance of image {i} is negative")
            weight = np.where(used & np.isfinite(ivar), ivar, 0.0)
        return np.where(weight > 0, pixels, 0.0), weight

    def noise(self, i: int, pixels: np.ndarray, weight: np.ndarray) -> float:
        if self.ivars is not None:
            return 1 / math.sqrt(weight.max()) if weight.max() > 0 else math.nan
        if math.isnan(self.sigma[i]):
            self.sigma[i] = _clipped_noise(pixels[weight > 0])
        return self.sigma[i]

    def first_sides(self) -> np.ndarray:
        sides = _side_for(np.where(self.sized, self.r_e, 3.0), self.n, self.psf.fwhm)
        return np.minimum(sides, self.largest_sides())

    def largest_sides(self) -> np.ndarray:
        """A quarter beyond the image: enough that what leaves the stamp stays away from the image."""
        return _at_least(1.25 * self.shapes.max(axis=1, initial=1))

    def sides_wanted(self, members: np.ndarray) -> np.ndarray:
        """Sides for what was found; 0 where nothing was."""
        r_e, n = (self.values[name][members] for name in ("r_e", "n"))
        found = np.isfinite(r_e)
        sides = _side_for(np.where(found, r_e, 1.0), np.where(found, n, 1.0), self.psf.fwhm[members])
        return np.where(found, np.minimum(sides, self.largest_sides()[members]), 0)

    def result(self) -> SersicFits:
        return SersicFits(**self.values)


def _as_images(images, what: str) -> list[np.ndarray]:
    """Images one by one, as they came."""
    if isinstance(images, np.ndarray) or not isinstance(images, Sequence):
        images = images if isinstance(images, np.ndarray) else np.asarray(images)
        if images.ndim not in (2, 3):
            raise ValueError(f"{what} have shape {images.shape}; (count, rows, columns) or (rows, columns) is needed")
        images = [images] if images.ndim == 2 else list(images)
    images = [image if isinstance(image, np.ndarray) else np.asarray(image) for image in images]
    for i, image in enumerate(images):
        if image.ndim != 2 or image.size == 0:
            raise ValueError(f"{what}: number {i} has shape {image.shape}; (rows, columns) is needed")
        if image.dtype.kind not in "fiub":
            raise ValueError(f"{what}: number {i} holds {image.dtype}, not real numbers")
    return images


def _companions(given, images: list[np.ndarray], what: str) -> list[np.ndarray] | None:
    """Masks or inverse variances, one an image."""
    if given is None:
        return None
    given = _as_images(given, what)
    if len(given) == 1:
        given = given * len(images)
    if len(given) != len(images):
        raise ValueError(f"{len(images)} images, but {len(given)} of {what}")
    for i, (image, each) in enumerate(zip(images, given, strict=True)):
        if image.shape != each.shape:
            raise ValueError(f"image {i} has shape {image.shape}, its {what} {each.shape}")
    return [each.astype(bool) for each in given] if what == "mask" else given


def _each(value, count: int, what: str) -> np.ndarray:
    """float64 (count,), a copy."""
    value = np.asarray(getattr(value, "value", value), np.float64)
    if value.ndim > 1 or (value.ndim == 1 and len(value) != count):
        raise ValueError(f"{what} has shape {value.shape}; one value or {count} are needed")
    return np.broadcast_to(value, count).copy()


def _clipped_noise(pixels: np.ndarray, clip: float = 3.0) -> float:
    """Standard deviation of the sky from the median absolute deviation, without what is far from the median."""
    sigma = math.nan
    for _ in range(8):
        if not len(pixels):
            break
        middle = np.median(pixels)
        before, sigma = sigma, 1.4826 * float(np.median(np.abs(pixels - middle)))
        if sigma == 0 or sigma == before:
            break
        pixels = pixels[np.abs(pixels - middle) < clip * sigma]
    return sigma


def _at_least(size: np.ndarray) -> np.ndarray:
    """The smallest of ``SIDES`` that is not less, or the largest."""
    return np.array(SIDES)[np.minimum(np.searchsorted(SIDES, size), len(SIDES) - 1)]


def _side_for(r_e: np.ndarray, n: np.ndarray, fwhm: np.ndarray) -> np.ndarray:
    """Side of a stamp for a galaxy: the wings beyond it, which wrap around in the model, change n by 1.5 % at most."""
    return _at_least((3 + 4 * n) * r_e + 5 * fwhm + 4)


def _to_theta(n, r_e, q, pa, flux, x, y) -> np.ndarray:
    """What is fitted, (count, 7)."""
    eta = -np.log(q)
    twice = 2 * np.radians(pa)
    return np.stack([flux, np.log(r_e) - eta / 2, eta * np.cos(twice), eta * np.sin(twice), np.log(n), x, y], axis=1)


def _from_theta(theta: np.ndarray, covariance: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters as users know them, and their covariance by the derivatives; ``x`` and ``y`` are still on the stamp."""
    flux, log_r, e1, e2, log_n, x, y = theta.T
    eta = np.maximum(np.hypot(e1, e2), 1e-9)
    n, r_e, q = np.exp(log_n), np.exp(log_r + eta / 2), np.exp(-eta)
    pa = np.degrees(0.5 * np.arctan2(e2, e1))
    pa = np.where(pa >= 90, pa - 180, pa)
    slopes = np.zeros((len(theta), 7, 7))
    slopes[:, 0, _N] = n
    slopes[:, 1, _R] = r_e
    for place, part in ((_E1, e1), (_E2, e2)):
        slopes[:, 1, place] = r_e * part / eta / 2
        slopes[:, 2, place] = -q * part / eta
    slopes[:, 3, _E1], slopes[:, 3, _E2] = (np.degrees(each / (2 * eta**2)) for each in (-e2, e1))
    slopes[:, 4, _F] = slopes[:, 5, _X] = slopes[:, 6, _Y] = 1
    found = dict(zip(PARAMETERS, (n, r_e, q, pa, flux, x, y), strict=True))
    return found, slopes @ covariance @ slopes.transpose(0, 2, 1)


# --- The PSF and the modes ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Grid:
    """Modes of a periodic stamp: half of them, as those of -k follow.

    Attributes:
        side: pixels.
        ix, iy: int64 (modes,): k = 2 pi (ix, iy) / side; ix >= 0.
        amplitude: float64 (1 or objects, modes), |PSF(k)|, 0 where below the floor.
        phase: complex128, as ``amplitude``: PSF(k) / |PSF(k)|.
    """

    side: int
    ix: np.ndarray
    iy: np.ndarray
    amplitude: np.ndarray
    phase: np.ndarray


class _Psf:
    """A PSF as given, checked; its modes on any stamp."""

    def __init__(self, psf, count: int):
        self.given, self.count = psf, count
        if isinstance(psf, Moffat | Gaussian):
            self.fwhm = _each(psf.fwhm, count, "the PSF's fwhm")
            if not (np.isfinite(self.fwhm) & (self.fwhm > 0)).all():
                raise ValueError("the PSF's fwhm must be a number of pixels above 0")
            if isinstance(psf, Moffat) and not 1 < psf.beta < 1e3:
                raise ValueError(f"the PSF's beta is {psf.beta}; a Moffat profile has a finite flux above 1")
            self.shared = np.ndim(psf.fwhm) == 0
            # Twice: what lies beyond the Nyquist frequency is folded back onto it.
            self.undersampled = 2 * np.abs(self._of_profile(math.log(math.pi), self.fwhm)) > NYQUIST
            return
        self.array = np.ma.filled(np.ma.asarray(psf).astype(np.float64), np.nan)
        if self.array.ndim not in (2, 3) or self.array.size == 0 or (self.array.ndim == 3 and len(self.array) != count):
            raise ValueError(f"the PSF has shape {self.array.shape}; (rows, columns) or ({count}, rows, columns) is needed")
        self.shared = self.array.ndim == 2
        self.array = self.array.reshape(-1, *self.array.shape[-2:])
        if bad := int(np.count_nonzero(~np.isfinite(self.array).all(axis=(1, 2)))):
            raise ValueError(f"{bad} of {len(self.array)} PSFs have pixels that are NaN or infinite")
        total = self.array.sum(axis=(1, 2))
        if not (total > 1e-6 * np.abs(self.array).sum(axis=(1, 2))).all():
            raise ValueError("a PSF's sum is not positive: it cannot be normalised")
        self.array = self.array / total[:, None, None]
        self.centre = _middle(self.array)
        # The Gaussian with this peak: only to choose the stamp.
        peak = np.minimum(self.array.max(axis=(1, 2)), 1.0)
        self.fwhm = np.broadcast_to(2.3548 / np.sqrt(2 * np.pi * peak), count)
        nyquist = [self.array.sum(axis=axis) @ np.cos(np.pi * np.arange(self.array.shape[3 - axis])) for axis in (1, 2)]
        self.undersampled = np.broadcast_to(np.abs(nyquist).max(axis=0) > NYQUIST, count)

    def grid(self, members: np.ndarray, side: int, floor: float = PSF_FLOOR) -> _Grid:
        """Modes of these objects. Kept for a shared PSF.

        Raises:
            ValueError: no mode passes.
        """
        if not self.shared:
            return self._make(members, side, floor)
        return _kept_grid(_Same(self, self._key()), side, floor)

    def _key(self):
        return (type(self.given), self.given) if not hasattr(self, "array") else (self.array.shape, self.array.tobytes())

    def _make(self, members: np.ndarray, side: int, floor: float) -> _Grid:
        half = (side - 1) // 2
        ix, iy = (each.ravel() for each in np.meshgrid(np.arange(half + 1), np.arange(-half, half + 1)))
        keep = (ix > 0) | (iy > 0)
        ix, iy = ix[keep], iy[keep]
        if hasattr(self, "array"):
            values = self._of_array(members, side, ix, iy)
        else:
            log_k = np.log(2 * np.pi / side * np.hypot(ix, iy))
            values = np.stack([self._of_profile(log_k, fwhm) for fwhm in self.fwhm[:1] if self.shared]
                              or [self._of_profile(log_k, self.fwhm[i]) for i in members])  # fmt: skip
        amplitude = np.abs(values)
        passing = amplitude > max(floor, 1e-12)
        any_passing = passing.any(axis=0)
        if not passing.any(axis=1).all():
            raise ValueError(f"the PSF lets next to nothing through on a stamp of {side} pixels: it is wider than the stamp")
        amplitude, passing, values = amplitude[:, any_passing], passing[:, any_passing], values[:, any_passing]
        phase = np.where(passing, values / np.maximum(amplitude, 1e-300), 0)
        amplitude, phase = (np.ascontiguousarray(each) for each in (np.where(passing, amplitude, 0), phase))
        return _Grid(side, ix[any_passing], iy[any_passing], amplitude, phase)

    def _of_array(self, members: np.ndarray, side: int, ix: np.ndarray, iy: np.ndarray) -> np.ndarray:
        """The transform of the pixels, about the centre; a PSF larger than the stamp is wrapped around, which is exact."""
        which = np.zeros(1, np.int64) if self.shared else members
        rows, columns = self.array.shape[1:]
        values = np.empty((len(which), len(ix)), np.complex128)
        for place, i in enumerate(which):
            padded = np.zeros([math.ceil(size / side) * side for size in (rows, columns)])
            padded[:rows, :columns] = self.array[i]
            folded = padded.reshape(padded.shape[0] // side, side, -1, side).sum(axis=(0, 2))
            values[place] = np.fft.rfft2(np.roll(folded, -self.centre[i], (0, 1)))[iy, ix]
        return values

    def _of_profile(self, log_k: np.ndarray | float, fwhm: np.ndarray | float) -> np.ndarray:
        if isinstance(self.given, Gaussian):
            return np.exp(-np.exp(2 * log_k) * fwhm**2 / (16 * math.log(2))) + 0j
        scale = fwhm / (2 * math.sqrt(2 ** (1 / self.given.beta) - 1))
        return moffat_transform(float(self.given.beta), log_k + np.log(scale)) + 0j


class _Same:
    """A PSF that equals another with the same key."""

    def __init__(self, psf: _Psf, key):
        self.psf, self.key = psf, key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other) -> bool:
        return self.key == other.key


@lru_cache(maxsize=32)
def _kept_grid(same: _Same, side: int, floor: float) -> _Grid:
    return same.psf._make(np.zeros(1, np.int64), side, floor)


def _middle(arrays: np.ndarray) -> np.ndarray:
    """int64 (count, 2), row and column of the centre: of two middle pixels that nearer the centroid."""
    middle = np.empty((len(arrays), 2), np.int64)
    for axis in (0, 1):
        size = arrays.shape[axis + 1]
        along = arrays.sum(axis=2 - axis)
        mean = (along * np.arange(size)).sum(axis=1)
        middle[:, axis] = size // 2 if size % 2 else np.where(mean < (size - 1) / 2, size // 2 - 1, size // 2)
    return middle


# --- Kernels --------------------------------------------------------------------------------------

_FAST = {"nsz", "arcp", "contract", "reassoc"}  # all but what NaN and infinity need


@jit(fastmath=_FAST, error_model="numpy")
def _rows(values, place, first, last, rows):
    """The table between its nodes of ln n (cubic Hermite): H and dH/d ln kappa, and both over ln n, of kappa nodes."""
    step = place[1]
    i = min(max(int(place[0]), 0), values.shape[0] - 2)
    f = place[0] - i
    v0, v1 = (1 + 2 * f) * (1 - f) ** 2, f * f * (3 - 2 * f)
    s0, s1 = f * (1 - f) ** 2 * step, f * f * (f - 1) * step
    d1 = 6 * f * (1 - f) / step
    t0, t1 = (1 - f) * (1 - 3 * f), f * (3 * f - 2)
    for j in range(first, last):
        a, b = values[i, j], values[i + 1, j]
        for c in range(2):
            rows[j, c] = v0 * a[c] + v1 * b[c] + s0 * a[c + 2] + s1 * b[c + 2]
            rows[j, c + 2] = d1 * (b[c] - a[c]) + t0 * a[c + 2] + t1 * b[c + 2]


@jit(fastmath=_FAST, error_model="numpy")
def _columns(theta, ix, iy, amplitude, side, table, axes, rows, columns):
    """The Jacobian without the phase, float64 (6, modes), of flux, ln r, e1, e2, ln n, and the model itself."""
    e1, e2 = theta[2], theta[3]
    eta = math.hypot(e1, e2)
    c = math.cosh(eta)
    s = math.sinh(eta) / eta if eta > 1e-3 else 1 + eta * eta / 6
    t = (c - s) / (eta * eta) if eta > 1e-3 else 1 / 3 + eta * eta / 30
    log_n, n_step, log_kappa, step = axes[0], axes[1], axes[2], axes[3]
    nodes = table.shape[1]
    start = theta[1] + math.log(2 * math.pi / side) - log_kappa
    most = 0
    for m in range(len(ix)):
        most = max(most, ix[m] * ix[m] + iy[m] * iy[m])
    first = min(max(int((start - eta / 2) / step), 0), nodes)
    last = min(max(int((start + eta / 2 + 0.5 * math.log(most)) / step) + 3, 0), nodes)
    _rows(table, ((theta[4] - log_n) / n_step, n_step), first, last, rows)
    flux = theta[0]
    for m in range(len(ix)):
        kx, ky = float(ix[m]), float(iy[m])
        kk, a, b = kx * kx + ky * ky, kx * kx - ky * ky, 2 * kx * ky
        ab = a * e1 + b * e2
        square = c * kk + s * ab
        place = (start + 0.5 * math.log(square)) / step
        j = int(place)
        if place < 0:
            h, slope, h_n = 1.0, 0.0, 0.0
        elif j >= nodes - 1:
            h, slope, h_n = 0.0, 0.0, 0.0
        else:
            f = place - j
            g = 1 - f
            v0, v1, s0, s1 = (1 + 2 * f) * g * g, f * f * (3 - 2 * f), f * g * g * step, -f * f * g * step
            h = v0 * rows[j, 0] + v1 * rows[j + 1, 0] + s0 * rows[j, 1] + s1 * rows[j + 1, 1]
            h_n = v0 * rows[j, 2] + v1 * rows[j + 1, 2] + s0 * rows[j, 3] + s1 * rows[j + 1, 3]
            slope = 6 * f * g / step * (rows[j + 1, 0] - rows[j, 0])
            slope += g * (1 - 3 * f) * rows[j, 1] + f * (3 * f - 2) * rows[j + 1, 1]
        p = amplitude[m]
        columns[0, m] = p * h
        columns[1, m] = p * flux * slope
        along = 0.5 * p * flux * slope / square
        columns[2, m] = along * (e1 * (s * kk + t * ab) + s * a)
        columns[3, m] = along * (e2 * (s * kk + t * ab) + s * b)
        columns[4, m] = p * flux * h_n
        columns[5, m] = p * flux * h


@jit(fastmath=_FAST, error_model="numpy")
def _turns(theta, side, ix, iy, cosines, sines):
    """cos and sin of k.(x, y)."""
    half = side // 2 + 1
    cx, sx = np.empty(half), np.empty(half)
    cy, sy = np.empty(2 * half), np.empty(2 * half)
    for j in range(half):
        angle = 2 * math.pi * j * theta[5] / side
        cx[j], sx[j] = math.cos(angle), math.sin(angle)
        angle = 2 * math.pi * j * theta[6] / side
        cy[half + j], sy[half + j] = math.cos(angle), math.sin(angle)
        cy[half - j], sy[half - j] = cy[half + j], -sy[half + j]
    for m in range(len(ix)):
        a, b, c, d = cx[ix[m]], sx[ix[m]], cy[half + iy[m]], sy[half + iy[m]]
        cosines[m] = a * c - b * d
        sines[m] = b * c + a * d


@jit(fastmath=_FAST, error_model="numpy")
def _dot(a, b):
    total = 0.0
    for m in range(len(a)):
        total += a[m] * b[m]
    return total


@jit(fastmath=_FAST, error_model="numpy")
def _normal(theta, active, data_re, data_im, ix, iy, amplitude, side, table, axes, scale, chi2, gradient, normal):
    """chi2, -1/2 of its gradient, and J^T J of each active object; ``scale`` turns sums over half the modes into chi2."""
    modes = len(ix)
    rows = np.empty((table.shape[1], 4))
    columns = np.empty((8, modes))
    cosines, sines = np.empty(modes), np.empty(modes)
    real, imaginary = np.empty(modes), np.empty(modes)
    for place in range(len(active)):
        i = active[place]
        own = amplitude[i if len(amplitude) > 1 else 0]
        _columns(theta[place], ix, iy, own, side, table, axes, rows, columns)
        _turns(theta[place], side, ix, iy, cosines, sines)
        unit = 2 * math.pi / side
        for m in range(modes):
            re, im = data_re[i, m], data_im[i, m]
            real[m] = re * cosines[m] - im * sines[m] - columns[5, m]
            imaginary[m] = re * sines[m] + im * cosines[m]
            columns[6, m] = -unit * iy[m] * columns[5, m]
            columns[5, m] *= -unit * ix[m]
        total = 0.0
        for m in range(modes):
            if own[m] > 0:
                total += real[m] * real[m] + imaginary[m] * imaginary[m]
        chi2[place] = total * scale
        for p in range(7):
            gradient[place, p] = scale * _dot(columns[p], real if p < 5 else imaginary)
            for q in range(p + 1):
                value = 0.0 if q < 5 <= p else scale * _dot(columns[p], columns[q])
                normal[place, p, q] = value
                normal[place, q, p] = value


@jit(fastmath=_FAST, error_model="numpy")
def _light(theta, active, ix, iy, amplitude, phase, side, table, axes, out):
    """The model, complex (active, modes)."""
    modes, nodes = len(ix), table.shape[1]
    rows = np.empty((nodes, 4))
    cosines, sines = np.empty(modes), np.empty(modes)
    log_n, n_step, log_kappa, step = axes[0], axes[1], axes[2], axes[3]
    most = 0
    for m in range(modes):
        most = max(most, ix[m] * ix[m] + iy[m] * iy[m])
    for place in range(len(active)):
        which = active[place] if len(amplitude) > 1 else 0
        flux, e1, e2 = theta[place, 0], theta[place, 2], theta[place, 3]
        eta = math.hypot(e1, e2)
        c, s = math.cosh(eta), math.sinh(eta) / eta if eta > 1e-3 else 1 + eta * eta / 6
        start = theta[place, 1] + math.log(2 * math.pi / side) - log_kappa
        first = min(max(int((start - eta / 2) / step), 0), nodes)
        last = min(max(int((start + eta / 2 + 0.5 * math.log(most)) / step) + 3, 0), nodes)
        _rows(table, ((theta[place, 4] - log_n) / n_step, n_step), first, last, rows)
        _turns(theta[place], side, ix, iy, cosines, sines)
        for m in range(modes):
            kx, ky = float(ix[m]), float(iy[m])
            at = (start + 0.5 * math.log(c * (kx * kx + ky * ky) + s * ((kx * kx - ky * ky) * e1 + 2 * kx * ky * e2))) / step
            j = int(at)
            if at < 0:
                h = 1.0
            elif j >= nodes - 1:
                h = 0.0
            else:
                f = at - j
                g = 1 - f
                h = g * g * ((1 + 2 * f) * rows[j, 0] + f * step * rows[j, 1])
                h += f * f * ((3 - 2 * f) * rows[j + 1, 0] - g * step * rows[j + 1, 1])
            out[place, m] = flux * amplitude[which, m] * h * phase[which, m] * complex(cosines[m], -sines[m])


@jit(fastmath=_FAST, error_model="numpy")
def _jacobian(theta, active, ix, iy, amplitude, phase, side, table, axes, out):
    """The model's derivatives, complex (active, 7, modes)."""
    modes = len(ix)
    rows = np.empty((table.shape[1], 4))
    columns = np.empty((8, modes))
    cosines, sines = np.empty(modes), np.empty(modes)
    unit = 2 * math.pi / side
    for place in range(len(active)):
        which = active[place] if len(amplitude) > 1 else 0
        _columns(theta[place], ix, iy, amplitude[which], side, table, axes, rows, columns)
        _turns(theta[place], side, ix, iy, cosines, sines)
        for m in range(modes):
            turn = phase[which, m] * complex(cosines[m], -sines[m])
            for p in range(5):
                out[place, p, m] = columns[p, m] * turn
            out[place, 5, m] = complex(0, -unit * ix[m] * columns[5, m]) * turn
            out[place, 6, m] = complex(0, -unit * iy[m] * columns[5, m]) * turn


# --- Stamps in modes ------------------------------------------------------------------------------


class _Batch:
    """Stamps of one size, and what Levenberg-Marquardt asks of them. Parameters and results are numpy arrays.

    Args:
        grid: the modes.
        pixels: (count, side, side), in units of the noise of a pixel of weight 1.
        weights: as ``pixels``, 1 at most; None: all 1.
    """

    xp = np
    #: Relative error of chi2 from rounding, generously.
    rounding = 1e-11

    def __init__(self, grid: _Grid, pixels: np.ndarray, weights: np.ndarray | None):
        self.grid, self.count = grid, len(pixels)
        self.loaded = False
        self.scale = 2 / grid.side**2
        self.width = int(grid.ix.max()) + 1
        self.pixels, self.weights = self.array(pixels), None if weights is None else self.array(weights)
        self.table = sersic_table()
        self.axes = np.array([self.table.log_n, self.table.n_step, self.table.log_kappa, self.table.kappa_step])
        rows = grid.iy % grid.side
        self.flat = self.index(rows * self.width + grid.ix)
        mirrored = np.flatnonzero(grid.ix == 0)
        self.mirrored, self.mirror = self.index(mirrored), self.index((-grid.iy[mirrored]) % grid.side * self.width)

    def array(self, values):
        return np.asarray(values, np.float64)

    def index(self, values):
        return values

    def zeros(self, shape, dtype):
        return np.zeros(shape, dtype)

    def numpy(self, values) -> np.ndarray:
        return values

    def spectrum(self, images):
        """Modes of images, the PSF's phase taken off: (count, modes)."""
        fft, side = self.xp.fft, self.grid.side
        half = fft.fft(fft.rfft(images, side, 2)[:, :, : self.width], side, 1)
        return half.reshape(len(images), -1)[:, self.flat]

    def images(self, modes):
        """Images, with a mean of 0, of (count, modes)."""
        fft, side = self.xp.fft, self.grid.side
        half = self.zeros((len(modes), side * self.width), modes.dtype)
        half[:, self.flat] = modes
        half[:, self.mirror] = modes[:, self.mirrored].conj()
        return fft.irfft(fft.ifft(half.reshape(-1, side, self.width), side, 1), side, 2)

    def evaluate(self, theta: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """chi2 (active,), -gradient / 2 (active, 7) and the normal matrix (active, 7, 7), in units of chi2.

        chi2 counts modes or, with weights, pixels; the matrix is that of full weights.
        """
        if self.weights is None:
            self.load()
            return self.normal(theta, active)
        chi2 = self._refill(theta, active)
        return chi2, *self.normal(theta, active)[1:]

    def load(self) -> None:
        """Take the pixels as the data, once."""
        if not self.loaded:
            self.take(np.arange(self.count), self.spectrum(self.pixels))
            self.loaded = True

    def _refill(self, theta: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Pixels of less weight are filled with the model and its background: new data for these objects, and their chi2."""
        which = self.index(active)
        model, weights = self.images(self.modes(theta, active)), self.weights[which]
        away = self.pixels[which] - model
        weighted = weights * away
        total = weights.sum(2).sum(1)
        level = (weighted.sum(2).sum(1) / total)[:, None, None]
        weighted -= level * weights
        self.take(active, self.spectrum(model + weighted))
        chi2 = (weighted * (away - level)).sum(2).sum(1)
        return self.numpy(chi2)

    def weighted_normal(self, theta: np.ndarray, active: np.ndarray) -> np.ndarray:
        """The normal matrix with the weights, the background's part taken off: (active, 7, 7)."""
        normal = np.empty((len(active), 7, 7))
        size = 1 if self.xp is np else max(1, (1 << 23) // self.grid.side**2)  # on a CPU, what stays in its cache
        for start in range(0, len(active), size):
            part = active[start : start + size]
            modes = self.modes(theta[start : start + size], part, jacobian=True)
            images = self.images(modes.reshape(-1, modes.shape[-1])).reshape(len(part), 7, -1)
            weights = self.weights[self.index(part)].reshape(len(part), 1, -1)
            weighted = images * weights
            background = weighted.sum(2)
            products = weighted @ (images.transpose(0, 2, 1) if self.xp is np else images.transpose(1, 2))
            products -= background[:, :, None] * background[:, None, :] / weights.sum(2)[:, :, None]
            normal[start : start + size] = self.numpy(products)
        return normal

    def model(self, theta: np.ndarray, active: np.ndarray):
        """Images of the model, with all of its light."""
        flux = self.array(theta[:, _F])[:, None, None]
        return self.images(self.modes(theta, active)) + flux / self.grid.side**2

    def closing(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Reduced chi2 over pixels, background, share of the light on unused pixels, and by how much chi2 is less than that
        of the best point source at the same place, of all objects."""
        everything, point = np.arange(self.count), theta.copy()
        point[:, [_F, _R, _E1, _E2, _N]] = 1.0, _POINT, 0.0, 0.0, 0.0
        total, used, dark, a, d, p, aa, dd, dp, pp = self.sums(
            self.model(theta, everything), self.images(self.modes(point, everything))
        )
        # Less what a constant background takes.
        square, by_data = aa - a * a / total, dd - d * d / total
        by_point = np.maximum(dp - d * p / total, 0) ** 2 / (pp - p * p / total)
        unseen = np.clip(dark / np.where(theta[:, _F] == 0, np.nan, theta[:, _F]), 0, 1)
        return square / np.maximum(used - 8, 1), a / total, unseen, by_data - by_point - square


@jit(fastmath=_FAST, error_model="numpy")
def _sums(pixels, weights, model, point, out):
    """For each object sums over pixels: weights, pixels used, the model's light on the others; then, weighted, residuals,
    data, point source, and of their products: residuals squared, data squared, data by point, point squared."""
    for i in range(len(pixels)):
        total, used, dark, a, d, p, aa, dd, dp, pp = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for y in range(pixels.shape[1]):
            for x in range(pixels.shape[2]):
                weight = weights[i, y, x] if weights.size > 0 else 1.0
                datum, light, spread = pixels[i, y, x], model[i, y, x], point[i, y, x]
                away = datum - light
                total += weight
                used += 1.0 if weight > 0 else 0.0
                dark += 0.0 if weight > 0 else light
                a += weight * away
                d += weight * datum
                p += weight * spread
                aa += weight * away * away
                dd += weight * datum * datum
                dp += weight * datum * spread
                pp += weight * spread * spread
        out[:, i] = total, used, dark, a, d, p, aa, dd, dp, pp


class _NumbaBatch(_Batch):
    """On the CPU, object after object."""

    def __init__(self, grid: _Grid, pixels: np.ndarray, weights: np.ndarray | None):
        super().__init__(grid, pixels, weights)
        self.data = np.empty((2, self.count, len(grid.ix)))

    def take(self, active: np.ndarray, spectrum: np.ndarray) -> None:
        """New data of these objects."""
        turned = spectrum * self._of(self.grid.phase, active).conj()
        self.data[0, active], self.data[1, active] = turned.real, turned.imag

    def sums(self, model: np.ndarray, point: np.ndarray) -> np.ndarray:
        """As ``_sums`` has them, (10, objects)."""
        out = np.empty((10, self.count))
        _sums(self.pixels, np.zeros((0, 0, 0)) if self.weights is None else self.weights, model, point, out)
        return out

    def _of(self, values: np.ndarray, active: np.ndarray) -> np.ndarray:
        return values if len(values) == 1 else values[active]

    def normal(self, theta: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        out = np.empty(len(active)), np.empty((len(active), 7)), np.empty((len(active), 7, 7))
        grid = self.grid
        _normal(theta, active, *self.data, grid.ix, grid.iy, grid.amplitude, grid.side, self.table.values, self.axes,
                self.scale, *out)  # fmt: skip
        return out

    def modes(self, theta: np.ndarray, active: np.ndarray, jacobian: bool = False) -> np.ndarray:
        """Modes of the model (active, modes), or of its derivatives (active, 7, modes)."""
        grid, shape = self.grid, (7,) if jacobian else ()
        out = np.empty((len(active), *shape, len(grid.ix)), np.complex128)
        fill = _jacobian if jacobian else _light
        fill(theta, active, grid.ix, grid.iy, grid.amplitude, grid.phase, grid.side, self.table.values, self.axes, out)
        return out


class _TorchBatch(_Batch):
    """All objects at once, on the CPU or a GPU."""

    def __init__(self, grid: _Grid, pixels: np.ndarray, weights: np.ndarray | None, device: str, dtype: str):
        try:
            import torch
        except ImportError as error:
            raise ImportError("backend='torch' needs torch: pip install torch, or leave out backend and device") from error
        self.xp, self.device, self.real = torch, torch.device(device), getattr(torch, dtype)
        self.rounding = 1e-11 if dtype == "float64" else 1e-6
        super().__init__(grid, pixels, weights)
        self.values, self.ix, self.iy = self.array(self.table.values), self.array(grid.ix), self.array(grid.iy)
        self.amplitude = self.array(grid.amplitude)
        self.phase = self.array(grid.phase.real) + 1j * self.array(grid.phase.imag)
        self.data = self.zeros((self.count, len(grid.ix)), self.phase.dtype)

    def array(self, values):
        return self.xp.as_tensor(np.asarray(values), dtype=self.real, device=self.device)

    def index(self, values):
        return self.xp.as_tensor(values, dtype=self.xp.int64, device=self.device)

    def zeros(self, shape, dtype):
        return self.xp.zeros(shape, dtype=dtype, device=self.device)

    def numpy(self, values) -> np.ndarray:
        return values.cpu().numpy().astype(np.float64)

    def take(self, active: np.ndarray, spectrum) -> None:
        """New data of these objects."""
        self.data[self.index(active)] = spectrum * self._of(self.phase, active).conj()

    def sums(self, model, point) -> np.ndarray:
        """As ``_sums`` has them, (10, objects)."""
        weights = self.xp.ones_like(self.pixels) if self.weights is None else self.weights
        data, away = self.pixels, self.pixels - model
        used = (weights > 0).to(self.real)
        pairs = ((weights, used), (used, used), (1 - used, model), *((weights, each) for each in (away, data, point)),
                 (weights * away, away), (weights * data, data), (weights * data, point),
                 (weights * point, point))  # fmt: skip
        return np.stack([self.numpy((one * other).sum(2).sum(1)) for one, other in pairs])

    def _of(self, values, active: np.ndarray):
        return values if len(values) == 1 else values[self.index(active)]

    def _rows(self, log_n):
        """As the numba function of this name, for all objects and nodes: (objects, kappa nodes, 4)."""
        xp, step = self.xp, self.table.n_step
        place = (log_n - self.table.log_n) / step
        i = place.floor().long().clamp(0, self.values.shape[0] - 2)
        f = (place - i)[:, None, None]
        a, b = self.values[i], self.values[i + 1]
        value = (1 + 2 * f) * (1 - f) ** 2 * a[..., :2] + f * f * (3 - 2 * f) * b[..., :2]
        value += f * (1 - f) ** 2 * step * a[..., 2:] + f * f * (f - 1) * step * b[..., 2:]
        slope = 6 * f * (1 - f) / step * (b[..., :2] - a[..., :2])
        slope += (1 - f) * (1 - 3 * f) * a[..., 2:] + f * (3 * f - 2) * b[..., 2:]
        return xp.cat([value, slope], 2)

    def _columns(self, theta: np.ndarray, active: np.ndarray):
        """As the numba function of this name: (objects, 6, modes); and the phase's angle (objects, modes)."""
        xp, table, side = self.xp, self.table, self.grid.side
        flux, log_r, e1, e2, log_n, x, y = self.array(theta.T)[:, :, None]
        eta = np.hypot(theta[:, _E1], theta[:, _E2])
        small = np.maximum(eta, 1e-3)
        s = np.where(eta > 1e-3, np.sinh(small) / small, 1 + eta**2 / 6)
        t = np.where(eta > 1e-3, (np.cosh(small) - np.sinh(small) / small) / small**2, 1 / 3 + eta**2 / 30)
        c, s, t = (self.array(each)[:, None] for each in (np.cosh(eta), s, t))
        kk, a, b = self.ix**2 + self.iy**2, self.ix**2 - self.iy**2, 2 * self.ix * self.iy
        ab = a * e1 + b * e2
        square = c * kk + s * ab
        start = log_r + math.log(2 * math.pi / side) - table.log_kappa
        step, nodes = table.kappa_step, self.values.shape[1]
        place = (start + 0.5 * square.log()) / step
        j = place.floor().long().clamp(0, nodes - 2)
        f = place - j
        g = 1 - f
        rows = self._rows(log_n[:, 0])
        lower, upper = (rows.gather(1, each[:, :, None].expand(-1, -1, 4)) for each in (j, j + 1))
        v0, v1, s0, s1 = ((1 + 2 * f) * g * g, f * f * (3 - 2 * f), f * g * g * step, -f * f * g * step)
        h, h_n = (v0 * lower[..., k] + v1 * upper[..., k] + s0 * lower[..., k + 1] + s1 * upper[..., k + 1] for k in (0, 2))
        slope = 6 * f * g / step * (upper[..., 0] - lower[..., 0])
        slope = slope + g * (1 - 3 * f) * lower[..., 1] + f * (3 * f - 2) * upper[..., 1]
        below, beyond = place < 0, place >= nodes - 1
        h = xp.where(below, 1.0, xp.where(beyond, 0.0, h))
        slope, h_n = (xp.where(below | beyond, 0.0, each) for each in (slope, h_n))
        p = self._of(self.amplitude, active)
        along = 0.5 * p * flux * slope / square
        common = s * kk + t * ab
        columns = [p * h, p * flux * slope, along * (e1 * common + s * a), along * (e2 * common + s * b), p * flux * h_n,
                   p * flux * h]  # fmt: skip
        return xp.stack(columns, 1), 2 * math.pi / side * (self.ix * x + self.iy * y)

    def normal(self, theta: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        xp = self.xp
        columns, angle = self._columns(theta, active)
        model = columns[:, 5]
        residual = self.data[self.index(active)] * (xp.cos(angle) + 1j * xp.sin(angle)) - model
        residual = residual * (self._of(self.amplitude, active) > 0)
        unit = 2 * math.pi / self.grid.side
        moved = xp.stack([-unit * self.ix * model, -unit * self.iy * model], 1)
        shape = columns[:, :5]
        normal = self.xp.zeros((len(active), 7, 7), dtype=self.real, device=self.device)
        normal[:, :5, :5] = shape @ shape.transpose(1, 2)
        normal[:, 5:, 5:] = moved @ moved.transpose(1, 2)
        gradient = xp.cat([(shape @ residual.real[:, :, None])[..., 0], (moved @ residual.imag[:, :, None])[..., 0]], 1)
        chi2 = (residual.real**2 + residual.imag**2).sum(1)
        return tuple(self.numpy(each) * self.scale for each in (chi2, gradient, normal))

    def modes(self, theta: np.ndarray, active: np.ndarray, jacobian: bool = False):
        """Modes of the model (active, modes), or of its derivatives (active, 7, modes)."""
        columns, angle = self._columns(theta, active)
        turn = self._of(self.phase, active) * (self.xp.cos(angle) - 1j * self.xp.sin(angle))
        model = columns[:, 5] * turn
        if not jacobian:
            return model
        unit = -2j * math.pi / self.grid.side
        moved = self.xp.stack([unit * self.ix * model, unit * self.iy * model], 1)
        return self.xp.cat([columns[:, :5] * turn[:, None], moved], 1)


# --- The fit --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Box:
    """Where parameters may be: (count, 7) each; and the ellipse's |(e1, e2)| at most ``_ETA_MAX``."""

    low: np.ndarray
    high: np.ndarray

    def of(self, which: np.ndarray) -> _Box:
        return _Box(self.low[which], self.high[which])

    def clip(self, theta: np.ndarray) -> np.ndarray:
        theta = np.clip(theta, self.low, self.high)
        eta = np.hypot(theta[:, _E1], theta[:, _E2])
        theta[:, _E1 : _E2 + 1] /= np.maximum(eta / _ETA_MAX, 1.0)[:, None]
        return theta


@jit(error_model="numpy")
def _frame(theta, gradient, low, high, turn, stuck):
    """Which parameters would leave the box along the gradient, once the ellipse's plane is turned outwards and across."""
    eta = math.hypot(theta[2], theta[3])
    turn[0], turn[1] = (theta[2] / eta, theta[3] / eta) if eta > 0 else (1.0, 0.0)
    for p in range(7):
        stuck[p] = (theta[p] <= low[p] and gradient[p] < 0) or (theta[p] >= high[p] and gradient[p] > 0)
    stuck[2] = eta >= _ETA_MAX * (1 - 1e-9) and gradient[2] * turn[0] + gradient[3] * turn[1] > 0
    stuck[3] = False


@jit(error_model="numpy")
def _factor(normal, turn, stuck, damping, unit, lower):
    """Cholesky factor of the matrix in that frame, scaled to a diagonal of 1 by ``unit``; False where it is singular."""
    c, s = turn
    turned = normal.copy()
    for p in range(7):
        a, b = turned[p, 2], turned[p, 3]
        turned[p, 2], turned[p, 3] = c * a + s * b, c * b - s * a
    for p in range(7):
        a, b = turned[2, p], turned[3, p]
        turned[2, p], turned[3, p] = c * a + s * b, c * b - s * a
    for p in range(7):
        unit[p] = 1 / math.sqrt(turned[p, p]) if turned[p, p] > 0 else 1.0
    regular = True
    for p in range(7):
        for q in range(p + 1):
            if stuck[p] or stuck[q]:
                value = 1.0 if p == q else 0.0
            else:
                value = turned[p, q] * unit[p] * unit[q] + (damping if p == q else 0.0)
            for k in range(q):
                value -= lower[p, k] * lower[q, k]
            if p == q:
                regular &= value > 1e-13
                lower[p, p] = math.sqrt(max(value, 1e-13))
            else:
                lower[p, q] = value / lower[q, q]
    return regular


@jit(error_model="numpy")
def _solve(lower, unit, turn, stuck, right, out):
    """The solution for a right side given in the original frame, in that frame."""
    c, s = turn
    for p in range(7):
        value = right[p]
        if p == 2:
            value = c * right[2] + s * right[3]
        if p == 3:
            value = c * right[3] - s * right[2]
        value = 0.0 if stuck[p] else value * unit[p]
        for k in range(p):
            value -= lower[p, k] * out[k]
        out[p] = value / lower[p, p]
    for p in range(6, -1, -1):
        value = out[p]
        for k in range(p + 1, 7):
            value -= lower[k, p] * out[k]
        out[p] = value / lower[p, p]
    for p in range(7):
        out[p] *= unit[p]
    out[2], out[3] = c * out[2] - s * out[3], s * out[2] + c * out[3]


@jit(error_model="numpy")
def _propose(active, theta, gradient, normal, low, high, damping, longest, step, decrease):
    """Damped steps of the active objects, none too long, and by how much undamped ones would lower a quadratic chi2."""
    turn, stuck, unit = np.empty(2), np.empty(7, np.bool_), np.empty(7)
    lower = np.zeros((7, 7))
    for place in range(len(active)):
        i = active[place]
        _frame(theta[i], gradient[i], low[i], high[i], turn, stuck)
        _factor(normal[i], turn, stuck, 1e-12, unit, lower)
        _solve(lower, unit, turn, stuck, gradient[i], step[place])
        decrease[place] = 0.0
        for p in range(7):
            decrease[place] += step[place, p] * gradient[i, p]
        _factor(normal[i], turn, stuck, damping[i], unit, lower)
        _solve(lower, unit, turn, stuck, gradient[i], step[place])
        shrink = 1.0
        for p in range(7):
            shrink = max(shrink, abs(step[place, p]) / longest[p])
        for p in range(7):
            step[place, p] /= shrink


@jit(error_model="numpy")
def _covariances(theta, gradient, normal, low, high, out):
    """Inverses of the normal matrices within the directions that are free; NaN where one is singular."""
    turn, stuck, unit = np.empty(2), np.empty(7, np.bool_), np.empty(7)
    lower, right = np.zeros((7, 7)), np.zeros(7)
    for i in range(len(theta)):
        _frame(theta[i], gradient[i], low[i], high[i], turn, stuck)
        regular = _factor(normal[i], turn, stuck, 0.0, unit, lower)
        for p in range(7):
            right[:] = 0
            right[p] = 1
            _solve(lower, unit, turn, stuck, right, out[i, p])
        if not regular:
            out[i] = np.nan


@dataclass(frozen=True, eq=False)
class _Found:
    """What Levenberg-Marquardt found: parameters (count, 7), the normal matrices there and covariances (count, 7, 7),
    iterations and whether it converged (count,)."""

    theta: np.ndarray
    normal: np.ndarray
    covariance: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray

    def take(self, rows: np.ndarray, other: _Found) -> None:
        """Go on from where some objects were."""
        for name in ("theta", "normal", "covariance", "converged"):
            getattr(self, name)[rows] = getattr(other, name)
        self.iterations[rows] += other.iterations


def _minimise(
    batch: _Batch, theta: np.ndarray, box: _Box, max_iterations: int, tolerance: float = TOLERANCE,
    normal: np.ndarray | None = None,
) -> _Found:  # fmt: skip
    """Levenberg-Marquardt on all objects, each until it has converged; ``normal``: the matrices, where they are known."""
    count, theta = len(theta), theta.copy()
    chi2, gradient, full = batch.evaluate(theta, np.arange(count))
    damping, iterations, converged = np.full(count, 1e-3), np.zeros(count, np.int64), np.zeros(count, bool)
    # Far from the minimum the matrix of full weights will do; near it, or after some steps, the costly one is made. ``age``
    # counts the steps since; negative: not made yet.
    uneven, age, running = batch.weights is not None, np.full(count, -1 if normal is None else 0), np.isfinite(chi2)
    normal = full if normal is None else normal

    def propose(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step, decrease = np.empty((len(active), 7)), np.empty(len(active))
        _propose(active, theta, gradient, normal, box.low, box.high, damping, _LONGEST, step, decrease)
        return step, decrease

    for _ in range(max_iterations + 1):
        active = np.flatnonzero(running)
        if not len(active):
            break
        step, decrease = propose(active)
        if uneven:
            old = age[active]
            due = (old < 0) & ((decrease < 1) | (iterations[active] >= 3)) | (old >= 3)
            if due.any():
                late = active[due]
                normal[late], age[late] = batch.weighted_normal(theta[late], late), 0
                step[due], decrease[due] = propose(late)
        # A step that cannot lower chi2 beyond rounding has nothing left to do either.
        done = (decrease < np.maximum(tolerance, batch.rounding * chi2[active])) & ((age[active] >= 0) | (not uneven))
        converged[active[done]], running[active[done]] = True, False
        active, step = active[~done], step[~done]
        active, step = active[iterations[active] < max_iterations], step[iterations[active] < max_iterations]
        if not len(active):
            break
        trial = box.of(active).clip(theta[active] + step)
        trial_chi2, trial_gradient, trial_normal = batch.evaluate(trial, active)
        better = trial_chi2 <= chi2[active] * (1 + 0.01 * batch.rounding)
        taken = active[better]
        theta[taken], chi2[taken], gradient[taken] = trial[better], trial_chi2[better], trial_gradient[better]
        fresh = age[taken] < 0
        normal[taken[fresh]] = trial_normal[better][fresh]
        damping[active] *= np.where(better, 0.1, 8.0)
        damping[taken] = np.maximum(damping[taken], 1e-9)
        iterations[active] += 1
        age[active] += age[active] >= 0
        running[active[damping[active] > 1e9]] = False
    late = np.flatnonzero(age < 0) if uneven else ()
    if len(late):
        normal[late] = batch.weighted_normal(theta[late], late)
    covariance = np.empty((count, 7, 7))
    _covariances(theta, gradient, normal, box.low, box.high, covariance)
    return _Found(theta, normal, covariance, iterations, converged)


def _starts(batch: _Batch, theta: np.ndarray, box: _Box, sized: bool) -> np.ndarray:
    """The best of some radii and indices, each with its best flux."""
    count = len(theta)
    everything = np.arange(count)
    best, chi2 = theta.copy(), np.full(count, np.inf)
    batch.load()
    factors = (0.4, 0.75, 1.1) if sized else 0.7 * 1.8 ** np.arange(0, math.log(batch.grid.side / 6) / math.log(1.8))
    for factor in factors:
        for n_factor in (1.0, 2.0) if sized else (1.0,):
            trial = theta.copy()
            trial[:, _R] = trial[:, _R] + math.log(factor) if sized else math.log(factor)
            trial[:, _N] += math.log(n_factor)
            trial[:, _F] = 1.0
            trial = box.clip(trial)
            value, gradient, normal = batch.normal(trial, everything)
            slope, curvature = gradient[:, _F], normal[:, _F, _F]
            with np.errstate(invalid="ignore", divide="ignore"):
                trial[:, _F] += slope / curvature
                value = value - slope**2 / curvature
            better = value < chi2
            best[better], chi2[better] = trial[better], value[better]
    return best


@dataclass(frozen=True, eq=False)
class _Stamps:
    """Square parts of images about their objects.

    Attributes:
        members: of the job, int64 (count,).
        pixels, weights: (count, side, side), 0 where not used. The levels are taken off and the noise is made 1, whatever an
            image's offset and unit.
        corners: their rows and columns in the images, int64 (count, 2).
        level, sigma: what was taken off, and the noise, (count,).
    """

    members: np.ndarray
    pixels: np.ndarray
    weights: np.ndarray
    corners: np.ndarray
    level: np.ndarray
    sigma: np.ndarray

    def __len__(self) -> int:
        return len(self.members)

    @property
    def side(self) -> int:
        return self.pixels.shape[1]

    def of(self, which: np.ndarray) -> _Stamps:
        return self if which.all() else _Stamps(**{name: values[which] for name, values in vars(self).items()})


#: Where weights are below 1: nowhere, in the outskirts, on the core.
_EVEN, _OUTSKIRTS, _CORE = range(3)


def _fit_chunk(job: _Job, members: np.ndarray, side: int, make, max_iterations: int) -> None:
    """Fit some objects on stamps of one size and note the results."""
    stamps = _stamps(job, members, side)
    # Too few pixels, none of them near the centre, or no noise and no light.
    good = np.isfinite(stamps.sigma) & (stamps.sigma > 0) & ((stamps.weights > 0).sum(axis=(1, 2)) > 16)
    job.values["flags"][members] = SersicFlag.NOT_MEASURED
    kinds = np.where(good, _kinds(job, stamps), -1)
    for kind in np.unique(kinds[good]):
        _fit_kind(job, stamps.of(kinds == kind), kind, make, max_iterations)


def _kinds(job: _Job, stamps: _Stamps) -> np.ndarray:
    """``_EVEN``, ``_OUTSKIRTS`` or ``_CORE``, (count,)."""
    kinds = np.where((stamps.weights < 1).any(axis=(1, 2)), _OUTSKIRTS, _EVEN)
    for place in np.flatnonzero(kinds):
        i = stamps.members[place]
        reach = math.ceil(CORE * job.psf.fwhm[i])
        y, x = (round(value) for value in (job.y[i] - stamps.corners[place, 0], job.x[i] - stamps.corners[place, 1]))
        near = stamps.weights[place, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        if (near < 1).any():
            kinds[place] = _CORE
    return kinds


def _fit_kind(job: _Job, stamps: _Stamps, kind: int, make, max_iterations: int) -> None:
    count, members, side = len(stamps), stamps.members, stamps.side
    uneven, pixels, box = kind != _EVEN, stamps.pixels, _box(job, stamps)
    theta, again = _start(job, stamps)
    theta = box.clip(theta)
    weights, floor = stamps.weights if uneven else None, FINE_FLOOR if kind == _CORE else PSF_FLOOR
    everything = np.arange(count)

    def batch(rows: np.ndarray, floor: float) -> _Batch:
        return make(job.psf.grid(members[rows], side, floor), pixels[rows], None if weights is None else weights[rows])

    found = _Found(theta, *np.zeros((2, count, 7, 7)), np.zeros(count, np.int64), np.zeros(count, bool))
    if not (uneven and again):
        # With uneven weights this is only most of the way, at no cost: what stands opposite in place of pixels not used.
        first = make(job.psf.grid(members, side), _filled(stamps) if uneven else pixels, None)
        if not again:
            found.theta[:] = _starts(first, theta, box, job.sized)
        found.take(everything, _minimise(first, found.theta, box, max_iterations, 1.0 if uneven else TOLERANCE))
    if uneven:
        found.take(everything, _minimise(batch(everything, floor), found.theta, box, max_iterations))
    wrapped = np.flatnonzero(found.converged & (_edge(found.theta, side) > WRAPPED) & (2 * side <= SIDES[-1]))
    if len(wrapped):
        pixels = pixels.copy()
        pixels[wrapped] += _overflow(job, stamps, found.theta, wrapped, make)
        start, normal = found.theta[wrapped], found.normal[wrapped] if uneven else None
        found.take(wrapped, _minimise(batch(wrapped, floor), start, box.of(wrapped), max_iterations, normal=normal))
    _note(job, stamps, box, found, batch(everything, FINE_FLOOR).closing(found.theta))


def _start(job: _Job, stamps: _Stamps) -> tuple[np.ndarray, bool]:
    """Where fits start from, and whether that is what they found on a smaller stamp: all of a chunk, or none."""
    earlier = {name: job.values[name][stamps.members] for name in PARAMETERS}
    again = bool(np.isfinite(earlier["n"]).all())
    if again:
        theta = _to_theta(**earlier)
        theta[:, _F] /= stamps.sigma
    else:
        start = {name: getattr(job, name)[stamps.members] for name in ("n", "r_e", "q", "pa", "x", "y")}
        theta = _to_theta(**start, flux=np.ones(len(stamps)))
    theta[:, _X : _Y + 1] -= stamps.corners[:, ::-1]
    return theta, again


def _edge(theta: np.ndarray, side: int) -> np.ndarray:
    """Surface brightness at the stamp's edge along the major axis, (count,), without the PSF."""
    n, r_c = np.exp(theta[:, _N]), np.exp(theta[:, _R])
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)  # Ciotti & Bertin (1999, A&A 352, 447)
    away = side / 2 / (r_c * np.exp(np.hypot(theta[:, _E1], theta[:, _E2]) / 2))
    norm = 2 * n * np.log(b) - np.array([math.lgamma(2 * each) for each in n]) - np.log(2 * np.pi * n * r_c**2)
    return theta[:, _F] * np.exp(norm - b * away ** (1 / n))


def _overflow(job: _Job, stamps: _Stamps, theta: np.ndarray, rows: np.ndarray, make) -> np.ndarray:
    """The light of models that comes in again on the other side: (rows, side, side)."""
    side = stamps.side
    light = np.empty((len(rows), side, side))
    for start in range(0, len(rows), len(stamps) // 8 + 1):
        some = slice(start, start + len(stamps) // 8 + 1)
        images = []
        for size in (side, 2 * side):
            batch = make(job.psf.grid(stamps.members[rows[some]], size, FINE_FLOOR), stamps.pixels[rows[some]], None)
            model = batch.model(theta[rows[some]], np.arange(batch.count))
            images.append(batch.numpy(model[:, :side, :side]))
        light[some] = images[0] - images[1]
    return light


def _stamps(job: _Job, members: np.ndarray, side: int) -> _Stamps:
    pixels, weights = np.zeros((2, len(members), side, side))
    corners, (level, sigma) = np.zeros((len(members), 2), np.int64), np.zeros((2, len(members)))
    for place, i in enumerate(members):
        image, weight = job.pixels(i)
        sigma[place] = job.noise(i, image, weight)
        if job.ivars is not None and sigma[place] > 0:
            weight = weight * sigma[place] ** 2
            weight[weight > 1 - 1e-12] = 1.0
        corner = np.round([job.y[i], job.x[i]]).astype(np.int64) - side // 2
        low, high = np.maximum(corner, 0), np.minimum(corner + side, image.shape)
        there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        here = tuple(slice(a, b) for a, b in zip(low - corner, high - corner, strict=True))
        pixels[place][here], weights[place][here] = image[there], weight[there]
        corners[place] = corner
        used = weight[there] > 0
        if not used.any() or np.ptp(image[there][used]) == 0:
            sigma[place] = np.nan
            continue
        level[place] = image[there][used].mean()
        pixels[place][here][used] -= level[place]
        # An image without noise: some noise all the same, at what rounding leaves of it.
        sigma[place] = max(sigma[place], 1e-9 * np.abs(pixels[place]).max())
        pixels[place] /= sigma[place]
    return _Stamps(members, pixels, weights, corners, level, sigma)


def _box(job: _Job, stamps: _Stamps) -> _Box:
    members, side = stamps.members, stamps.side
    low, high = np.full((len(members), 7), -np.inf), np.full((len(members), 7), np.inf)
    low[:, _R], high[:, _R] = math.log(R_MIN), math.log(side)
    low[:, _N], high[:, _N] = math.log(N_MIN), math.log(N_MAX)
    for place, start, axis in ((_X, job.x, 1), (_Y, job.y, 0)):
        low[:, place] = np.maximum(start[members] - side / 8, -0.5) - stamps.corners[:, axis]
        high[:, place] = np.minimum(start[members] + side / 8, job.shapes[members, axis] - 0.5) - stamps.corners[:, axis]
    return _Box(low, high)


def _filled(stamps: _Stamps) -> np.ndarray:
    """Pixels with a first guess for those not used: the one opposite of the middle; else, near the middle, what lies around;
    else the median of the stamp."""
    pixels = stamps.pixels.copy()
    middle = stamps.side // 2
    near = slice(middle - _HOLE, middle + _HOLE + 1)
    for image, weight in zip(pixels, stamps.weights, strict=True):
        unused = weight == 0
        if unused.any():
            image[unused] = np.median(image[~unused])
            image[unused] = np.roll(image[::-1, ::-1], 1 - len(image) % 2, (0, 1))[unused]
            alone = unused & np.roll(unused[::-1, ::-1], 1 - len(image) % 2, (0, 1))
            _inpaint(image[near, near], alone[near, near].copy())
    return pixels


def _inpaint(image: np.ndarray, holes: np.ndarray) -> None:
    """Holes become, from their rims inwards, the mean of the neighbours."""
    while holes.any() and not holes.all():
        known = np.pad(~holes, 1).astype(float)
        light = np.pad(np.where(holes, 0, image), 1)
        steps = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
        known, light = (sum(np.roll(each, step, (0, 1)) for step in steps) for each in (known, light))
        rim = holes & (known[1:-1, 1:-1] > 0)
        image[rim] = (light[1:-1, 1:-1][rim]) / known[1:-1, 1:-1][rim]
        holes &= ~rim


def _note(job: _Job, stamps: _Stamps, box: _Box, fits: _Found, closing) -> None:
    """Results in the user's terms."""
    theta, covariance = fits.theta, fits.covariance
    members, corners, level, sigma = stamps.members, stamps.corners, stamps.level, stamps.sigma
    chi2, background, unseen, gain = closing
    bound = (theta <= box.low) | (theta >= box.high)
    flags = np.zeros(len(members), np.int64)
    found, covariance_out = _from_theta(theta, covariance)
    found["x"], found["y"] = found["x"] + corners[:, 1], found["y"] + corners[:, 0]
    found["flux"] = found["flux"] * sigma
    covariance_out[:, 4, :] *= sigma[:, None]
    covariance_out[:, :, 4] *= sigma[:, None]
    at_q = np.hypot(theta[:, _E1], theta[:, _E2]) >= _ETA_MAX * (1 - 1e-9)
    for row, where in ((0, bound[:, _N]), (1, bound[:, _R]), (2, at_q), (5, bound[:, _X]), (6, bound[:, _Y])):
        covariance_out[where, row, :] = covariance_out[where, :, row] = np.nan
    reach = 4 * found["r_e"]
    shapes = job.shapes[members]
    cut = (found["x"] < reach) | (found["y"] < reach)
    cut |= (found["x"] > shapes[:, 1] - 1 - reach) | (found["y"] > shapes[:, 0] - 1 - reach)
    for flag, where in (
        (SersicFlag.N_AT_BOUND, bound[:, _N]),
        (SersicFlag.R_E_AT_BOUND, bound[:, _R]),
        (SersicFlag.Q_AT_BOUND, at_q),
        (SersicFlag.POSITION_AT_BOUND, bound[:, _X] | bound[:, _Y]),
        (SersicFlag.NOT_CONVERGED, ~fits.converged),
        (SersicFlag.MASKED, unseen > 0.1),
        (SersicFlag.FAINT, ~(theta[:, _F] > 3 * np.sqrt(covariance[:, _F, _F]))),
        (SersicFlag.TRUNCATED, cut),
        (SersicFlag.UNDERSAMPLED, job.psf.undersampled[members]),
    ):
        flags[where] |= int(flag)
    finite = np.isfinite(theta).all(axis=1) & np.isfinite(chi2)
    measured = finite & (found["flux"] > 0) & (unseen <= 0.5)
    found |= {"background": background * sigma + level, "sigma_pixel": sigma, "covariance": covariance_out, "chi2": chi2}
    found |= {"masked_fraction": unseen, "resolved": np.sqrt(np.maximum(gain, 0))}
    for name, values in found.items():
        job.values[name][members] = np.where(measured.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)
    job.values["flags"][members] = np.where(measured, flags, flags & int(SersicFlag.NOT_CONVERGED) | SersicFlag.NOT_MEASURED)
    job.values["iterations"][members] += fits.iterations
