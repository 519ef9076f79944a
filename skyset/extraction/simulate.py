"""Images with known truth: Sersic galaxies and stars through a PSF, whole CCDs and cutouts, the same for the same seed.

A source is a set of weighted points: one for a star; for a galaxy a quadrature of the Sersic profile in elliptical
coordinates (rings logarithmic inside and linear outside, so that the cusp of n = 6 costs nothing). All points of a tile are
spread on a grid twice as fine as the pixels with quintic B-splines, whose transform is divided out when the tile is
convolved with the PSF (the particle-mesh method of Essmann et al. 1995, J. Chem. Phys. 103, 8577). Quadrature and spreading
are exact to some 1e-5 of the peak; nothing is shared with the fits in ``sersic.py``, which tabulate the profile's Hankel
transform.

Positions are 0-based, pixel centres at integers, x along the second axis; angles are degrees counter-clockwise from +x.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from skyset.extraction.compiled import jit
from skyset.extraction.fourier import good_size

#: One source: position and size in pixels (``r_e`` along the major axis), flux in counts to infinity, ``pa`` in degrees.
SOURCE = np.dtype(
    [
        ("x", "f8"),
        ("y", "f8"),
        ("flux", "f8"),
        ("mag", "f8"),
        ("kind", "U6"),
        ("n", "f8"),
        ("r_e", "f8"),
        ("q", "f8"),
        ("pa", "f8"),
    ]
)
#: The central galaxy of a cutout: as a source, and whether a neighbour's light matters to it.
CENTRAL = np.dtype([*SOURCE.descr, ("blended", "?")])

_ORDER, _FINE = 6, 2  # B-splines of degree 5, grid points per pixel
_SPACING = 0.8  # of points on the outer rings, in pixels: any below 1 will do, as the PSF's sampling ends there
_TILE = 512


class Simulated(NamedTuple):
    """A simulated CCD: ``image`` float32 (rows, columns), ``truth`` (``SOURCE``), ``psf`` float64, ``settings``."""

    image: np.ndarray
    truth: np.ndarray
    psf: np.ndarray
    settings: dict


class Cutouts(NamedTuple):
    """Simulated cutouts.

    Attributes:
        images: float32 (count, size, size).
        truth: (count,), ``CENTRAL``.
        psf: float64, odd, square; the same for all.
        neighbours: ``SOURCE``, of all cutouts one after the other.
        owners: int64, for each neighbour the cutout that it lies in.
        settings: what the function was called with.
    """

    images: np.ndarray
    truth: np.ndarray
    psf: np.ndarray
    neighbours: np.ndarray
    owners: np.ndarray
    settings: dict


# --- Point spread functions -----------------------------------------------------------------------


def moffat_psf(fwhm: float, beta: float = 3.5, size: int | None = None, q: float = 1.0, pa: float = 0.0) -> np.ndarray:
    """A Moffat profile (1969, A&A 3, 455) integrated over pixels.

    Args:
        fwhm: along the major axis, pixels.
        beta: exponent, above 1.
        size: odd number of pixels per side; default ten times the FWHM, at least 25.
        q, pa: axis ratio and position angle (degrees).

    Returns:
        float64 (size, size), sum 1.

    Raises:
        ValueError: an argument out of range.
    """
    if not beta > 1:
        raise ValueError(f"beta is {beta}; a Moffat profile has a finite flux above 1")
    scale = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
    return _integrated(lambda square: (1 + square / scale**2) ** -beta, fwhm, size, q, pa)


def gaussian_psf(fwhm: float, size: int | None = None, q: float = 1.0, pa: float = 0.0) -> np.ndarray:
    """A Gaussian integrated over pixels; arguments, result and errors as of ``moffat_psf``."""
    sigma = fwhm / math.sqrt(8 * math.log(2))
    return _integrated(lambda square: np.exp(-0.5 * square / sigma**2), fwhm, size, q, pa)


def _integrated(profile, fwhm: float, size: int | None, q: float, pa: float) -> np.ndarray:
    """``profile`` of the squared elliptical radius over pixels, by 5 x 5 Gauss-Legendre points, more where it is narrow."""
    if not fwhm > 0 or not 0 < q <= 1:
        raise ValueError(f"FWHM {fwhm} pixels and axis ratio {q}: the first must be above 0, the second in (0, 1]")
    size = max(25, 2 * math.ceil(5 * fwhm) + 1) if size is None else size
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size is {size}; a PSF has an odd number of pixels per side")
    nodes, weights = np.polynomial.legendre.leggauss(5 if fwhm * q > 1.5 else 25)
    pixels = np.arange(size) - size // 2
    cos, sin = math.cos(math.radians(pa)), math.sin(math.radians(pa))
    total = np.zeros((size, size))
    for dy, wy in zip(nodes / 2, weights, strict=True):
        for dx, wx in zip(nodes / 2, weights, strict=True):
            y, x = pixels[:, None] + dy, pixels[None, :] + dx
            total += wx * wy * profile((x * cos + y * sin) ** 2 + ((y * cos - x * sin) / q) ** 2)
    return total / total.sum()


# --- The Sersic profile ---------------------------------------------------------------------------


@jit
def _lower_gamma(a: float, x: float) -> float:
    """Regularised lower incomplete gamma function P(a, x) by its power series, for x not far beyond a."""
    term = 1.0 / a
    total = term
    for k in range(1, 2000):
        term *= x / (a + k)
        total += term
        if term < 1e-17 * total:
            break
    return total * math.exp(a * math.log(x) - x - math.lgamma(a))


@jit
def sersic_b(n: float) -> float:
    """b_n with P(2 n, b_n) = 1/2: half of the light lies within r_e. Exact to rounding for n from 0.05 to 20.

    Ciotti & Bertin (1999, A&A 352, 447) give the start, Newton's iteration the rest.
    """
    a = 2.0 * n
    b = max(a - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n * n), 0.05 * n)
    for _ in range(60):
        slope = math.exp((a - 1) * math.log(b) - b - math.lgamma(a))
        new = max(b - (_lower_gamma(a, b) - 0.5) / slope, 0.2 * b)
        if abs(new - b) < 1e-15 * b:
            break
        b = new
    return b


@jit
def _spread(grid, x, y, flux, wx, wy):
    """Add a point at (x, y) grid steps, two at least from the grid's lower and three from its upper edges."""
    left, top = math.floor(x), math.floor(y)
    for weights, f in ((wx, x - left), (wy, y - top)):
        weights[0], weights[1] = 1 - f, f
        for k in range(3, _ORDER + 1):
            weights[k - 1] = f * weights[k - 2] / (k - 1)
            for j in range(k - 2, 0, -1):
                weights[j] = ((f + k - 1 - j) * weights[j - 1] + (j + 1 - f) * weights[j]) / (k - 1)
            weights[0] *= (1 - f) / (k - 1)
    left, top = left - (_ORDER - 2) // 2, top - (_ORDER - 2) // 2
    for i in range(_ORDER):
        row, share = grid[top + i], flux * wy[i]
        for j in range(_ORDER):
            row[left + j] += share * wx[j]


@jit
def _ring_radius(t, h):
    """r with ln r + r / h = t."""
    r = h * t if t > 1 else math.exp(t)
    for _ in range(50):
        new = r - (math.log(r) + r / h - t) / (1 / r + 1 / h)
        new = max(new, 0.1 * r)
        if abs(new - r) < 1e-14 * r:
            break
        r = new
    return r


@jit
def _spread_sersic(grid, reach, x, y, flux, r_e, n, q, pa, faintest, wx, wy):
    """Add a galaxy at (x, y) pixels of the grid, out to ``faintest`` counts per pixel; what falls off the grid is left out.

    Trapezoidal sums over smooth periodic or decaying integrands converge exponentially (Trefethen & Weideman 2014, SIAM
    Review 56, 385): over the angle, and over t = ln r + r / h, which is logarithmic within h pixels and linear beyond.
    """
    b = sersic_b(n)
    peak = flux * math.exp(2 * n * math.log(b) - math.lgamma(2 * n)) / (2 * math.pi * n * r_e * r_e * q)
    step = min(0.4, 0.6 * n)
    h = _SPACING / step
    smallest = math.log(r_e) + min(n * math.log(1e-7 / b), -9.0) - 1.0
    farthest = math.hypot(max(x, reach[1] - x), max(y, reach[0] - y)) / q + 1
    cos, sin = math.cos(pa), math.sin(pa)
    t = smallest
    ring = 0
    while True:
        r = _ring_radius(t, h)
        intensity = peak * math.exp(-b * (r / r_e) ** (1 / n))
        if r > farthest or intensity < faintest or b * (r / r_e) ** (1 / n) > 60:
            return
        count = max(12, math.ceil(2 * math.pi * r / _SPACING))
        weight = intensity * q * r * step * r / (1 + r / h) * 2 * math.pi / count
        for k in range(count):
            angle = 2 * math.pi * (k + 0.6180339887 * ring) / count
            along, across = r * math.cos(angle), q * r * math.sin(angle)
            px, py = x + along * cos - across * sin, y + along * sin + across * cos
            if 1 <= px <= reach[1] and 1 <= py <= reach[0]:
                _spread(grid, px * _FINE, py * _FINE, weight, wx, wy)
        t += step
        ring += 1


@jit
def _spread_all(grid, reach, x, y, flux, r_e, n, q, pa, faintest):
    wx, wy = np.empty(_ORDER), np.empty(_ORDER)  # scratch
    for i in range(len(x)):
        if r_e[i] > 0:
            _spread_sersic(grid, reach, x[i], y[i], flux[i], r_e[i], n[i], q[i], pa[i], faintest, wx, wy)
        elif 1 <= x[i] <= reach[1] and 1 <= y[i] <= reach[0]:
            _spread(grid, x[i] * _FINE, y[i] * _FINE, flux[i], wx, wy)


class _Convolution:
    """Sources on a tile of ``shape`` pixels through one PSF; light comes in from beyond as far as the PSF reaches."""

    def __init__(self, shape: tuple[int, int], psf: np.ndarray):
        self.shape, self.margin = shape, psf.shape[0] // 2 + 3
        self.sides = tuple(good_size(size + 2 * self.margin) for size in shape)
        centred = np.zeros(self.sides)
        centred[: psf.shape[0], : psf.shape[1]] = psf
        half = (psf.shape[0] // 2, psf.shape[1] // 2)
        spline = [np.sinc(np.fft.fftfreq(side) / _FINE) ** _ORDER for side in self.sides]
        transform = np.fft.rfft2(np.roll(centred, (-half[0], -half[1]), (0, 1)))
        self.transfer = transform / (spline[0][:, None] * spline[1][None, : transform.shape[1]])

    def __call__(self, sources: np.ndarray, left: int, top: int, faintest: float) -> np.ndarray:
        """float64 (rows, columns), the lower left pixel being (``left``, ``top``)."""
        rows, columns = self.sides
        grid = np.zeros((rows * _FINE, columns * _FINE))
        reach = np.array([size + 2.0 * self.margin - 2 for size in self.shape])
        x, y = sources["x"] - left + self.margin, sources["y"] - top + self.margin
        columns_of = [np.ascontiguousarray(sources[name]) for name in ("flux", "r_e", "n", "q")]
        _spread_all(grid, reach, x, y, *columns_of, np.radians(sources["pa"]), faintest)
        fine = np.fft.rfft2(grid)
        half = rows // 2
        modes = np.concatenate([fine[:half, : columns // 2 + 1], fine[-half:, : columns // 2 + 1]])
        image = np.fft.irfft2(modes * self.transfer, s=(rows, columns))
        inside = slice(self.margin, None)
        return image[inside, inside][: self.shape[0], : self.shape[1]]


def sources(x, y, flux, r_e=0.0, n=1.0, q=1.0, pa=0.0, zero_point: float = 0.0) -> np.ndarray:
    """A table of sources (``SOURCE``) from columns or single values; ``r_e`` 0 is a star.

    Raises:
        ValueError: a galaxy's n is outside 0.2 to 10, its q outside (0, 1], a size negative, or a value not finite.
    """
    columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, np.float64)) for v in (x, y, flux, r_e, n, q, pa)))
    table = np.zeros(columns[0].shape, SOURCE)
    for name, values in zip(("x", "y", "flux", "r_e", "n", "q", "pa"), columns, strict=True):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} of a source is not finite")
        table[name] = values
    star = table["r_e"] == 0
    for name, low, high in (("r_e", 0, np.inf), ("n", 0.2, 10), ("q", 1e-3, 1)):
        if not ((table[name] >= low) & (table[name] <= high) | star).all():
            raise ValueError(f"{name} of a source is outside {low:g} to {high:g}")
    with np.errstate(divide="ignore", invalid="ignore"):
        table["mag"] = zero_point - 2.5 * np.log10(table["flux"])
    table["kind"] = np.where(star, "star", "galaxy")
    for name in ("n", "q", "pa"):
        table[name][star] = 0
    return table


def render(shape: tuple[int, int], table: np.ndarray, psf: np.ndarray, faintest: float = 0.0) -> np.ndarray:
    """Stars and galaxies without noise.

    Args:
        shape: rows, columns.
        table: sources, dtype ``SOURCE`` (see ``sources``).
        psf: (odd, odd), pixel-integrated, as centred in the middle; between its pixels it is what the sampling theorem says.
        faintest: galaxies end where their unconvolved profile falls below so many counts per pixel.

    Returns:
        float64 of ``shape``.

    Raises:
        ValueError: the PSF is not square with an odd number of pixels per side.
    """
    psf = np.asarray(psf, np.float64)
    if psf.ndim != 2 or psf.shape[0] != psf.shape[1] or psf.shape[0] % 2 == 0:
        raise ValueError(f"the PSF has shape {psf.shape}; it must be square with an odd number of pixels per side")
    tile = min(shape[0], _TILE), min(shape[1], _TILE)
    convolution = _Convolution(tile, psf)
    image = np.empty(shape)
    reaches = _extents(table, faintest) + convolution.margin
    for top in range(0, shape[0], tile[0]):
        for left in range(0, shape[1], tile[1]):
            near = (table["x"] > left - reaches) & (table["x"] < left + tile[1] + reaches)
            near &= (table["y"] > top - reaches) & (table["y"] < top + tile[0] + reaches)
            part = convolution(table[near], left, top, faintest)
            view = image[top : top + tile[0], left : left + tile[1]]
            view[:] = part[: view.shape[0], : view.shape[1]]
    return image


def _extents(table: np.ndarray, faintest: float) -> np.ndarray:
    """How far a source's points reach, pixels; infinite for galaxies that end nowhere."""
    return np.array([_extent(*row, faintest) for row in zip(*(table[k] for k in ("flux", "r_e", "n", "q")), strict=True)])


@jit
def _extent(flux, r_e, n, q, faintest):
    if r_e == 0 or flux <= 0:
        return 0.0
    if faintest <= 0:
        return math.inf
    b = sersic_b(n)
    peak = flux * math.exp(2 * n * math.log(b) - math.lgamma(2 * n)) / (2 * math.pi * n * r_e * r_e * q)
    return r_e * (max(math.log(peak / faintest), 0.0) / b) ** n


def render_sersic(
    shape: tuple[int, int], x: float, y: float, flux: float, r_e: float, n: float, q: float, pa_deg: float, psf: np.ndarray
) -> np.ndarray:
    """One PSF-convolved, pixel-integrated Sersic galaxy (Sersic 1963) as float64 of ``shape``; arguments as of ``sources``.

    ``flux`` is to infinity: what lies beyond the image is missing from its sum. The PSF is taken as in ``render``; the
    pixel's extent is in the PSF.

    Raises:
        ValueError: as ``sources`` and ``render``.
    """
    return render(shape, sources(x, y, flux, r_e, n, q, pa_deg), psf)


# --- The sky --------------------------------------------------------------------------------------


def _magnitudes(rng: np.random.Generator, count: int, slope: float, bright: float, faint: float) -> np.ndarray:
    """Drawn from counts that grow as 10^(slope mag)."""
    low, high = 10 ** (slope * bright), 10 ** (slope * faint)
    return np.log10(rng.uniform(low, high, count)) / slope


def _draw_galaxies(rng: np.random.Generator, mag: np.ndarray) -> dict[str, np.ndarray]:
    """Sizes (arcsec), Sersic indices and axis ratios of field galaxies.

    Half-light radii fall from 1.1 arcsec at magnitude 18 to 0.35 at 24 with 0.18 dex of scatter, as in HST fields (e.g.
    Griffith et al. 2012, ApJS 200, 9); two in three are discs around n = 1.1, the others around 3.2.
    """
    count = len(mag)
    disc = rng.random(count) < 0.67
    n = np.where(disc, 1.1 * np.exp(0.35 * rng.standard_normal(count)), 3.2 * np.exp(0.3 * rng.standard_normal(count)))
    return {
        "r_e": np.clip(0.75 * 10 ** (-0.083 * (mag - 20) + 0.18 * rng.standard_normal(count)), 0.08, 6.0),
        "n": np.clip(n, 0.5, 6.0),
        "q": np.where(disc, rng.uniform(0.2, 1.0, count), rng.uniform(0.45, 1.0, count)),
        "pa": rng.uniform(-90, 90, count),
    }


#: Counts of a field far from the Milky Way: per arcmin^2 and magnitude at magnitude 20, and slopes of log10 of the counts.
_COUNTS = {"galaxy": (0.55, 0.35), "star": (0.7, 0.13)}
_EDGE = 30  # pixels around the image where sources are drawn too


def expected_counts(shape: tuple[int, int], pixel_scale: float, magnitudes: tuple[float, float]) -> tuple[float, float]:
    """How many stars and galaxies ``simulate_ccd`` draws by default, on average."""
    area = (shape[0] + 2 * _EDGE) * (shape[1] + 2 * _EDGE) * (pixel_scale / 60) ** 2
    bright, faint = magnitudes
    numbers = [
        area * density * (10 ** (slope * (faint - 20)) - 10 ** (slope * (bright - 20))) / (slope * math.log(10))
        for density, slope in (_COUNTS["star"], _COUNTS["galaxy"])
    ]
    return numbers[0], numbers[1]


def draw_field(
    rng: np.random.Generator,
    shape: tuple[int, int],
    pixel_scale: float,
    zero_point: float,
    limits: tuple[float, float],
    stars: int | None,
    galaxies: int | None,
) -> np.ndarray:
    """Stars and galaxies anywhere on an image and just beyond, as many as ``expected_counts`` says by default."""
    expected = expected_counts(shape, pixel_scale, limits)
    stars, galaxies = (
        int(rng.poisson(mean)) if given is None else int(given)
        for given, mean in zip((stars, galaxies), expected, strict=True)
    )
    mag = np.concatenate(
        [
            _magnitudes(rng, galaxies, _COUNTS["galaxy"][1], *limits),
            _magnitudes(rng, stars, _COUNTS["star"][1], *limits),
        ]
    )
    x = rng.uniform(-0.5 - _EDGE, shape[1] - 0.5 + _EDGE, len(mag))
    y = rng.uniform(-0.5 - _EDGE, shape[0] - 0.5 + _EDGE, len(mag))
    drawn = _draw_galaxies(rng, mag)
    drawn["r_e"][galaxies:] = 0
    drawn["r_e"] /= pixel_scale
    return sources(x, y, 10 ** (-0.4 * (mag - zero_point)), **drawn, zero_point=zero_point)


def simulate_ccd(
    seed: int = 0,
    shape: tuple[int, int] = (4612, 2048),
    seeing: float = 0.7,
    pixel_scale: float = 0.187,
    zero_point: float = 34.9,
    sky: float = 7500.0,
    gain: float = 1.6,
    read_noise: float = 5.0,
    stars: int | None = None,
    galaxies: int | None = None,
    saturation: float | None = None,
    beta: float = 3.5,
    psf_q: float = 1.0,
    psf_pa: float = 0.0,
    magnitudes: tuple[float, float] = (15.0, 26.5),
) -> Simulated:
    """A CCD like MegaCam's in a stack of exposures: at 3 sigma some 3,950 sources, down to magnitude 24.5.

    Args:
        seed: the same arguments and seed give the same image.
        shape: rows, columns.
        seeing: FWHM of the Moffat PSF, arcsec.
        pixel_scale: arcsec per pixel.
        zero_point: magnitude of one count.
        sky: counts per pixel.
        gain: electrons a count.
        read_noise: electrons.
        stars, galaxies: how many are drawn; default: the number counts of a field far from the Milky Way. They lie on the
            image and up to 30 pixels beyond, as their light comes in.
        saturation: counts above which pixels are cut; default: none.
        beta, psf_q, psf_pa: of the PSF, as ``moffat_psf`` takes them.
        magnitudes: of the brightest and the faintest sources.

    Returns:
        image with sky and noise, in counts; truth; PSF; settings.

    Raises:
        ValueError: a gain, sky, seeing or pixel scale that is not positive.
    """
    settings = dict(locals())
    for name in ("seeing", "pixel_scale", "gain", "sky"):
        if not settings[name] > 0:
            raise ValueError(f"{name} is {settings[name]}; it must be above 0")
    rng = np.random.default_rng(seed)
    fwhm = seeing / pixel_scale
    psf = moffat_psf(fwhm, beta, max(65, 2 * round(10 * fwhm) + 1), psf_q, psf_pa)
    truth = draw_field(rng, shape, pixel_scale, zero_point, magnitudes, stars, galaxies)
    sigma = math.sqrt(sky / gain + (read_noise / gain) ** 2)
    light = render(shape, truth, psf, faintest=3e-3 * sigma)
    noise = rng.standard_normal(shape, np.float32)
    noise *= np.sqrt(np.maximum(light, 0) / gain + sigma**2)
    image = (light + sky + noise).astype(np.float32)
    if saturation is not None:
        np.minimum(image, np.float32(saturation), out=image)
    return Simulated(image, truth, psf, settings)


def simulate_cutouts(
    count: int,
    seed: int = 0,
    size: int = 127,
    pixel_scale: float = 0.168,
    seeing: float = 0.65,
    zero_point: float = 27.0,
    sky_sigma: float = 0.07,
    neighbours: bool = True,
    mag: tuple[float, float] = (18.0, 23.0),
    n: tuple[float, float] = (0.5, 6.0),
    beta: float = 3.5,
) -> Cutouts:
    """Cutouts like those of HSC's coadds, sky subtracted, each with a galaxy within half a pixel of the middle.

    Args:
        count, size: how many, and pixels per side.
        seed: the same arguments and seed give the same images; a larger ``count`` goes on with others.
        pixel_scale, seeing: arcsec per pixel, and FWHM of the Moffat PSF in arcsec.
        zero_point: magnitude of one count.
        sky_sigma: noise of a pixel, counts; the same everywhere, as in stacks that are limited by the sky.
        neighbours: add stars and galaxies down to magnitude 26 as they lie on the sky.
        mag, n: ranges of the central galaxies; uniform in magnitude, so that bright ones are not rare, and in log n.
        beta: of the PSF.

    Returns:
        images and truth. ``blended``: the neighbours' light, weighted by the galaxy's own, is above 1 % of it
        (sum(N G) > 0.01 sum(G G)).

    Raises:
        ValueError: a range the wrong way round, or a size, scale or noise that is not positive.
    """
    settings = dict(locals())
    for name in ("size", "pixel_scale", "seeing"):
        if not settings[name] > 0:
            raise ValueError(f"{name} is {settings[name]}; it must be above 0")
    if mag[0] > mag[1] or not 0.2 <= n[0] <= n[1] <= 10:
        raise ValueError(f"ranges are the lower and the upper end: mag {mag}, n {n} (0.2 to 10)")
    fwhm = seeing / pixel_scale
    psf = moffat_psf(fwhm, beta, max(25, 2 * round(8 * fwhm) + 1))
    through = _Convolution((size, size), psf)
    images = np.empty((count, size, size), np.float32)
    truth = np.zeros(count, CENTRAL)
    tables = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        galaxy = _draw_central(rng, size, pixel_scale, zero_point, mag, n)
        field = draw_field(rng, (size, size), pixel_scale, zero_point, (18.0, 26.0), None, None)
        tables.append(field if neighbours else field[:0])
        light = through(galaxy, 0, 0, 1e-5 * sky_sigma)
        for name in SOURCE.names or ():
            truth[name][i] = galaxy[name][0]
        if len(tables[-1]):
            others = through(tables[-1], 0, 0, 1e-3 * sky_sigma)
            truth["blended"][i] = (others * light).sum() > 0.01 * (light * light).sum()
            light = light + others
        images[i] = light + sky_sigma * rng.standard_normal((size, size))
    owners = np.repeat(np.arange(count), [len(table) for table in tables])
    return Cutouts(images, truth, psf, np.concatenate([np.zeros(0, SOURCE), *tables]), owners, settings)


def _draw_central(
    rng: np.random.Generator,
    size: int,
    pixel_scale: float,
    zero_point: float,
    mag: tuple[float, float],
    n: tuple[float, float],
) -> np.ndarray:
    """One galaxy near the middle, 0.2 to 2 arcsec large."""
    magnitude = rng.uniform(*mag)
    drawn = _draw_galaxies(rng, np.array([magnitude]))
    drawn["r_e"] = np.clip(drawn["r_e"], 0.2, 2.0) / pixel_scale
    drawn["n"] = np.exp(rng.uniform(np.log(n[0]), np.log(n[1]), 1))
    x, y = size // 2 + rng.uniform(-0.5, 0.5, 2)
    return sources(x, y, 10 ** (-0.4 * (magnitude - zero_point)), **drawn, zero_point=zero_point)
