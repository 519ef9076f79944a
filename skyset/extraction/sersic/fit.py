"""The fit of Sersic galaxies, from images to `SersicFits`: stamps of one size at a time, each kind of weights by itself."""

from __future__ import annotations

import math

import numpy as np

from skyset.extraction.fourier import good_size
from skyset.extraction.sersic.batch import Batch
from skyset.extraction.sersic.batch_numba import NumbaBatch
from skyset.extraction.sersic.batch_torch import TorchBatch
from skyset.extraction.sersic.job import SIDES, Job
from skyset.extraction.sersic.minimise import ETA_MAX, TOLERANCE, Box, Minimum, minimise
from skyset.extraction.sersic.psf import FINE_FLOOR, PSF_FLOOR, Grid, Psf
from skyset.extraction.sersic.results import PARAMETERS, SersicFits, SersicFlag
from skyset.extraction.sersic.stamps import EVEN, ON_CORE, Stamps, bounds, cut_stamps, filled, weight_kinds
from skyset.extraction.sersic.theta import E1, E2, F, N, R, X, Y, from_theta, to_theta

#: Light that wraps around matters where a galaxy's surface brightness at the stamp's edge is above this, sigmas of a pixel.
WRAPPED = 0.1
#: Pixels that are fitted together: on the CPU what its caches hold, on a GPU some 6 GB for 4,096 stamps of 112 x 112.
_CHUNK_PIXELS = {"cpu": 1 << 18, "gpu": 1 << 26}


def fit_sersic(
    images,
    psf,
    *,
    x,
    y,
    r_e=None,
    q=None,
    pa=None,
    n=None,
    sigma=None,
    ivar=None,
    mask=None,
    device: str | None = None,
    backend: str | None = None,
    max_iterations: int = 60,
    dtype: str = "float64",
) -> SersicFits:
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
        MissingPackage: torch is asked for and not installed.
    """
    job = Job(images, psf, x, y, r_e, q, pa, n, sigma, ivar, mask)
    backend = backend or ("numba" if device in (None, "cpu") else "torch")
    if backend not in ("numba", "torch"):
        raise ValueError(f"backend is {backend!r}; it is numba or torch")
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype is {dtype!r}; it is float64 or float32")
    if backend == "numba" and (device not in (None, "cpu") or dtype != "float64"):
        raise ValueError(f"numba computes on the CPU in float64; for {device or 'cpu'} in {dtype} take backend='torch'")
    if max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations}; it must be at least 1")

    def make(grid: Grid, pixels: np.ndarray, weights: np.ndarray | None) -> Batch:
        if backend == "numba":
            return NumbaBatch(grid, pixels, weights)
        return TorchBatch(grid, pixels, weights, device or "cpu", dtype)

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
    psf = Psf(psf, len(fits))
    for i in np.flatnonzero(fits.measured):
        # Light that leaves a periodic grid comes in again on the other side: far off.
        side = good_size(2 * max(shape) + int(4 * min(fits.r_e[i], max(shape))))
        grid = psf.grid(np.array([i]), side, floor=0.0)
        corner = (side - np.array(shape)) // 2
        theta = to_theta(*(getattr(fits, name)[i : i + 1] for name in PARAMETERS))
        theta[:, X] += corner[1]
        theta[:, Y] += corner[0]
        batch = NumbaBatch(grid, np.zeros((1, side, side)), None)
        image = batch.images(batch.modes(theta, np.zeros(1, np.int64)))[0] + fits.flux[i] / side**2
        images[i] = image[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
    return images


def _starts(batch: Batch, theta: np.ndarray, box: Box, sized: bool) -> np.ndarray:
    """The best of some radii and indices, each with its best flux."""
    count = len(theta)
    everything = np.arange(count)
    best, chi2 = theta.copy(), np.full(count, np.inf)
    batch.load()
    factors = (0.4, 0.75, 1.1) if sized else 0.7 * 1.8 ** np.arange(0, math.log(batch.grid.side / 6) / math.log(1.8))
    for factor in factors:
        for n_factor in (1.0, 2.0) if sized else (1.0,):
            trial = theta.copy()
            trial[:, R] = trial[:, R] + math.log(factor) if sized else math.log(factor)
            trial[:, N] += math.log(n_factor)
            trial[:, F] = 1.0
            trial = box.clip(trial)
            value, gradient, normal = batch.normal(trial, everything)
            slope, curvature = gradient[:, F], normal[:, F, F]
            with np.errstate(invalid="ignore", divide="ignore"):
                trial[:, F] += slope / curvature
                value = value - slope**2 / curvature
            better = value < chi2
            best[better], chi2[better] = trial[better], value[better]
    return best


def _fit_chunk(job: Job, members: np.ndarray, side: int, make, max_iterations: int) -> None:
    """Fit some objects on stamps of one size and note the results."""
    stamps = cut_stamps(job, members, side)
    # Too few pixels, none of them near the centre, or no noise and no light.
    good = np.isfinite(stamps.sigma) & (stamps.sigma > 0) & ((stamps.weights > 0).sum(axis=(1, 2)) > 16)
    job.values["flags"][members] = SersicFlag.NOT_MEASURED
    kinds = np.where(good, weight_kinds(job, stamps), -1)
    for kind in np.unique(kinds[good]):
        _fit_kind(job, stamps.of(kinds == kind), kind, make, max_iterations)


def _fit_kind(job: Job, stamps: Stamps, kind: int, make, max_iterations: int) -> None:
    count, members, side = len(stamps), stamps.members, stamps.side
    uneven, pixels, box = kind != EVEN, stamps.pixels, bounds(job, stamps)
    theta, again = _start(job, stamps)
    theta = box.clip(theta)
    weights, floor = stamps.weights if uneven else None, FINE_FLOOR if kind == ON_CORE else PSF_FLOOR
    everything = np.arange(count)

    def batch(rows: np.ndarray, floor: float) -> Batch:
        return make(job.psf.grid(members[rows], side, floor), pixels[rows], None if weights is None else weights[rows])

    normal, covariance = np.zeros((2, count, 7, 7))
    found = Minimum(theta, normal, covariance, np.zeros(count, np.int64), np.zeros(count, bool))
    if not (uneven and again):
        # With uneven weights this is only most of the way, at no cost: what stands opposite in place of pixels not used.
        first = make(job.psf.grid(members, side), filled(stamps) if uneven else pixels, None)
        if not again:
            found.theta[:] = _starts(first, theta, box, job.sized)
        found.take(everything, minimise(first, found.theta, box, max_iterations, 1.0 if uneven else TOLERANCE))
    if uneven:
        found.take(everything, minimise(batch(everything, floor), found.theta, box, max_iterations))
    wrapped = np.flatnonzero(found.converged & (_edge(found.theta, side) > WRAPPED) & (2 * side <= SIDES[-1]))
    if len(wrapped):
        pixels = pixels.copy()
        pixels[wrapped] += _overflow(job, stamps, found.theta, wrapped, make)
        start, known = found.theta[wrapped], found.normal[wrapped] if uneven else None
        found.take(wrapped, minimise(batch(wrapped, floor), start, box.of(wrapped), max_iterations, normal=known))
    _note(job, stamps, box, found, batch(everything, FINE_FLOOR).closing(found.theta))


def _start(job: Job, stamps: Stamps) -> tuple[np.ndarray, bool]:
    """Where fits start from, and whether that is what they found on a smaller stamp: all of a chunk, or none."""
    earlier = {name: job.values[name][stamps.members] for name in PARAMETERS}
    again = bool(np.isfinite(earlier["n"]).all())
    if again:
        theta = to_theta(**earlier)
        theta[:, F] /= stamps.sigma
    else:
        start = {name: getattr(job, name)[stamps.members] for name in ("n", "r_e", "q", "pa", "x", "y")}
        theta = to_theta(**start, flux=np.ones(len(stamps)))
    theta[:, X : Y + 1] -= stamps.corners[:, ::-1]
    return theta, again


def _edge(theta: np.ndarray, side: int) -> np.ndarray:
    """Surface brightness at the stamp's edge along the major axis, (count,), without the PSF."""
    n, r_c = np.exp(theta[:, N]), np.exp(theta[:, R])
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)  # Ciotti & Bertin (1999, A&A 352, 447)
    away = side / 2 / (r_c * np.exp(np.hypot(theta[:, E1], theta[:, E2]) / 2))
    norm = 2 * n * np.log(b) - np.array([math.lgamma(2 * each) for each in n]) - np.log(2 * np.pi * n * r_c**2)
    return theta[:, F] * np.exp(norm - b * away ** (1 / n))


def _overflow(job: Job, stamps: Stamps, theta: np.ndarray, rows: np.ndarray, make) -> np.ndarray:
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


def _note(job: Job, stamps: Stamps, box: Box, fits: Minimum, closing) -> None:
    """Results in the user's terms."""
    theta, covariance = fits.theta, fits.covariance
    members, corners, level, sigma = stamps.members, stamps.corners, stamps.level, stamps.sigma
    chi2, background, unseen, gain = closing
    bound = (theta <= box.low) | (theta >= box.high)
    flags = np.zeros(len(members), np.int64)
    found, covariance_out = from_theta(theta, covariance)
    found["x"], found["y"] = found["x"] + corners[:, 1], found["y"] + corners[:, 0]
    found["flux"] = found["flux"] * sigma
    covariance_out[:, 4, :] *= sigma[:, None]
    covariance_out[:, :, 4] *= sigma[:, None]
    at_q = np.hypot(theta[:, E1], theta[:, E2]) >= ETA_MAX * (1 - 1e-9)
    for row, where in ((0, bound[:, N]), (1, bound[:, R]), (2, at_q), (5, bound[:, X]), (6, bound[:, Y])):
        covariance_out[where, row, :] = covariance_out[where, :, row] = np.nan
    reach = 4 * found["r_e"]
    shapes = job.shapes[members]
    cut = (found["x"] < reach) | (found["y"] < reach)
    cut |= (found["x"] > shapes[:, 1] - 1 - reach) | (found["y"] > shapes[:, 0] - 1 - reach)
    for flag, where in (
        (SersicFlag.N_AT_BOUND, bound[:, N]),
        (SersicFlag.R_E_AT_BOUND, bound[:, R]),
        (SersicFlag.Q_AT_BOUND, at_q),
        (SersicFlag.POSITION_AT_BOUND, bound[:, X] | bound[:, Y]),
        (SersicFlag.NOT_CONVERGED, ~fits.converged),
        (SersicFlag.MASKED, unseen > 0.1),
        (SersicFlag.FAINT, ~(theta[:, F] > 3 * np.sqrt(covariance[:, F, F]))),
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
