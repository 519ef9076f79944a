"""`GalSimSky`: the galaxies of `population` on HSC's sky, through its seeing, with its noise.

GalSim gives the Fourier transforms of profiles and PSFs. A source is drawn on a stamp of its own around the nearest pixel of
the tract and laid into whatever window is asked for; noise depends on the pixel of the tract alone. So a galaxy has the same
pixels in any window, in any order, in any process.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from skyset.extraction.morphology import HSC_SEEING
from skyset.testing.galaxiesml.catalogue import Observed, observe, spare
from skyset.testing.galaxiesml.colours import BANDS, galsim
from skyset.testing.galaxiesml.neighbours import COMPONENT, draw_neighbours
from skyset.testing.galaxiesml.population import DEPTH, PIXEL_SCALE, draw, flux_of

if TYPE_CHECKING:
    from astropy.wcs import WCS

#: Exponent of the PSF, a Moffat profile with the median seeing of each band; that is measured on pixels, so that their
#: extent is in it.
BETA = 3.5
_PSF_SIZE = 41
#: Brightness of the night sky, mag per square arcsec: with the depth, it says how much noise a galaxy's own light adds.
_SKY = {"g": 21.4, "r": 20.6, "i": 19.7, "z": 18.3, "y": 17.9}
#: Sides of stamps. A profile whose transform asks for more is folded by the largest.
_SIDES = np.array([32, 48, 64, 96, 128, 192, 256])
#: Of the noise of a pixel: light that ends at the edge of a stamp is fainter.
_UNSEEN = 0.05
#: How far beyond a window (degrees) the centre of a galaxy may be whose neighbours or wings are seen in it.
_MARGIN = 22 / 3600
_DETECTED = 1 << 5


class GalSimSky:
    """A sky of galaxies of known truth: a `skyset.testing.hsc_sky.Sky`.

    Args:
        galaxies: how many stay after all cuts; the first of them are the same for any number.
        seed: another seed, other galaxies.
        neighbours: whether anything else is on the sky.
        noise: whether pixels have noise; without, ``variance`` is that of the noise they would have.

    Attributes:
        galaxies: as given.
        truth: of `population.TRUTH`: the galaxies that stay, then those of rows that are cut.

    Raises:
        MissingPackage: GalSim is not installed.
    """

    def __init__(self, galaxies: int, seed: int = 0, *, neighbours: bool = True, noise: bool = True) -> None:
        self.galaxies, self.seed, self.neighbours, self.noise = galaxies, seed, neighbours, noise
        self.truth = draw(galaxies + spare(galaxies), seed)
        self._by_dec = np.argsort(self.truth["dec"], kind="stable")
        self._decs = self.truth["dec"][self._by_dec]

    @functools.cached_property
    def _rows(self) -> Observed:
        return observe(self.truth, self.galaxies, {band: noise_of(band) for band in BANDS}, self.seed)

    @property
    def planted(self) -> dict[str, int]:
        """How many rows of the catalogue each cut of the authors takes away, by its name in `catalogue`."""
        return self._rows.planted

    @property
    def numbers(self) -> np.ndarray:
        """For each row of the catalogue which galaxy of `truth` it is of, int64."""
        return self._rows.numbers

    def catalogue(self) -> dict[str, np.ndarray]:
        """What HSC's database answers, as `hsc_sky.Sky` has it: `galaxies` rows that stay and those that the cuts take."""
        return dict(self._rows.columns)

    def render(self, band: str, wcs: WCS, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """One band of a window: image float32 (counts, zero point 27), mask int32, variance float32, each of ``shape``."""
        image, mask, variance = self.render_bands(band, wcs, shape)
        return image[0], mask[0], variance[0]

    def render_bands(self, bands: str, wcs: WCS, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Several bands of a window in little more time than one: as `render`, each of shape (bands, rows, columns)."""
        image = self.light(bands, wcs, shape)
        levels = np.array([noise_of(band) for band in bands])[:, :, None, None]
        variance = (levels[:, 0] ** 2 + image / levels[:, 1]).astype(np.float32)
        mask = np.where(image > 3 * levels[:, 0], np.int32(_DETECTED), np.int32(0))
        if self.noise:
            for place, band in enumerate(bands):
                image[place] += _noise(self.seed, band, wcs, shape) * np.sqrt(variance[place])
        return image, mask, variance

    def light(self, bands: str, wcs: WCS, shape: tuple[int, int]) -> np.ndarray:
        """A window without noise, float32 (bands, rows, columns)."""
        image = np.zeros((len(bands), *shape), np.float32)
        for number in self._near(wcs, shape):
            x, y = wcs.all_world2pix([[self.truth["ra"][number], self.truth["dec"][number]]], 0)[0]
            draw_components(image, bands, self.components(int(number)), x, y)
        return image

    def components(self, number: int) -> np.ndarray:
        """The light of a galaxy and its neighbours, `neighbours.COMPONENT`; its own are the first one or two."""
        truth = self.truth[number]
        bulge = ~np.isnan(truth["bulge_r_e"])
        own = np.zeros(1 + bulge, COMPONENT)
        own["pa"] = truth["pa"]
        own[0]["n"], own[0]["r_e"], own[0]["q"] = 1 if bulge else truth["n"], truth["r_e"], truth["q"]
        own[0]["flux"] = truth["flux"] - truth["bulge_flux"]
        if bulge:
            own[1]["n"], own[1]["r_e"], own[1]["q"] = 4, truth["bulge_r_e"], truth["bulge_q"]
            own[1]["flux"] = truth["bulge_flux"]
        return np.concatenate([own, draw_neighbours(self.seed, number)]) if self.neighbours else own

    def psf(self, band: str, ra: float, dec: float) -> np.ndarray | None:
        """The PSF of a band: float64 (41, 41), sum 1; everywhere the same."""
        return psf_image(band).copy()

    def _near(self, wcs: WCS, shape: tuple[int, int]) -> np.ndarray:
        """Galaxies of which something may be seen in a window, by number."""
        ra, dec = wcs.all_pix2world([[(shape[1] - 1) / 2, (shape[0] - 1) / 2]], 0)[0]
        reach = max(shape) / 2 * PIXEL_SCALE / 3600 + _MARGIN
        found = self._by_dec[np.searchsorted(self._decs, dec - reach) : np.searchsorted(self._decs, dec + reach)]
        away = (self.truth["ra"][found] - ra + 180) % 360 - 180
        return np.sort(found[np.abs(away) * np.cos(np.radians(dec)) < reach])


# --- Light ----------------------------------------------------------------------------------------


def draw_components(image: np.ndarray, bands: str, components: np.ndarray, x: float, y: float) -> None:
    """Add sources to an image.

    Args:
        image: float32 (bands, rows, columns).
        bands: their names.
        components: `neighbours.COMPONENT`.
        x, y: 0-based pixel that their offsets count from.
    """
    places = [BANDS.index(band) for band in bands]
    rows, columns = image.shape[1:]
    for source in components:
        # Rounded, so that rounding errors of windows' coordinates do not show.
        at_x, at_y = round((x + source["dx"]) * 4096) / 4096, round((y + source["dy"]) * 4096) / 4096
        column, row = int(np.floor(at_x + 0.5)), int(np.floor(at_y + 0.5))
        side = _side(source)
        left, low = column - side // 2, row - side // 2
        if left >= columns or low >= rows or left + side <= 0 or low + side <= 0:
            continue
        transform = _transform(source, side, at_x - column, at_y - row)
        fluxes = source["flux"][places].astype(np.float32)[:, None, None]
        stamps = np.fft.irfft2(transform * (_psf_transforms(bands, side) * fluxes), s=(side, side))
        here = slice(max(low, 0), min(low + side, rows)), slice(max(left, 0), min(left + side, columns))
        there = slice(here[0].start - low, here[0].stop - low), slice(here[1].start - left, here[1].stop - left)
        image[:, here[0], here[1]] += stamps[:, there[0], there[1]]


@functools.cache
def _profile(n: float):
    """A round profile of half-light radius 1 pixel and flux 1, whose tables GalSim makes once."""
    simulator = galsim()
    return simulator.DeltaFunction() if n == 0 else simulator.Sersic(n, half_light_radius=1)


def _side(source: np.void) -> int:
    """The side of a source's stamp: little light is folded back, and its edge is not seen in the noise, within limits."""
    n, r_e = float(source["n"]), float(source["r_e"])
    brightest = max(float(flux) / noise_of(band)[0] for flux, band in zip(source["flux"], BANDS, strict=True)) / _UNSEEN
    # Far out the PSF is a power law.
    scale = 1.5 * max(HSC_SEEING.values()) / PIXEL_SCALE / 2 / (2 ** (1 / BETA) - 1) ** 0.5
    wanted = 2 * scale * (brightest / scale**2) ** (0.5 / BETA)
    if n:
        b = 2 * n - 1 / 3
        at_r_e = b ** (2 * n) / (2 * math.pi * n * math.exp(b) * math.gamma(2 * n) * source["q"] * r_e**2)
        faint = max(math.log(max(brightest * at_r_e, 1)) / b + 1, 1)
        wanted = max(wanted, 2 * math.pi / _stepk(n) * r_e, 2 * r_e * faint**n)
    return int(_SIDES[min(int(np.searchsorted(_SIDES, wanted)), len(_SIDES) - 1)])


@functools.cache
def _stepk(n: float) -> float:
    return _profile(n).stepk


def _transform(source: np.void, side: int, dx: float, dy: float) -> np.ndarray:
    """A source of flux 1, shifted by a part of a pixel: complex64 (side, side // 2 + 1), as ``irfft2`` wants it."""
    simulator = galsim()
    profile = _profile(float(source["n"]))
    if source["n"]:
        profile = profile.dilate(source["r_e"] * source["q"] ** 0.5)
        profile = profile.shear(q=source["q"], beta=source["pa"] * simulator.degrees)
    return _drawn(profile.shift(dx, dy), side).astype(np.complex64)


def _drawn(profile, side: int) -> np.ndarray:
    simulator = galsim()
    box = simulator.BoundsI(0, side // 2, -side // 2, side // 2 - 1)
    image = simulator.ImageCD(box, scale=2 * np.pi / side)
    profile.drawKImage(image=image, recenter=False)
    return np.fft.ifftshift(image.array, axes=0)


def _moffat(band: str):
    return galsim().Moffat(beta=BETA, fwhm=HSC_SEEING[band] / PIXEL_SCALE)


@functools.cache
def _psf_transforms(bands: str, side: int) -> np.ndarray:
    """The PSF of each band, float32 (bands, side, side // 2 + 1), from the stamp's corner to its middle."""
    signs = 1 - 2 * (np.indices((side, side // 2 + 1)).sum(0) % 2)
    return np.stack([_drawn(_moffat(band), side).real * signs for band in bands]).astype(np.float32)


@functools.cache
def psf_image(band: str) -> np.ndarray:
    """The PSF of a band: float64 (41, 41), sum 1."""
    image = _moffat(band).drawImage(nx=_PSF_SIZE, ny=_PSF_SIZE, scale=1, method="no_pixel", dtype=float).array
    return image / image.sum()


# --- Noise ----------------------------------------------------------------------------------------


@functools.cache
def noise_of(band: str) -> tuple[float, float]:
    """Noise of a pixel of the night sky (counts), and the electrons that are a count.

    A point source at the 5 sigma depth is measured through the PSF; the coadd's gain is what makes the sky's light as noisy.
    """
    sigma = flux_of(DEPTH[band]) / 5 * np.sqrt((psf_image(band) ** 2).sum())
    sky = flux_of(_SKY[band]) * PIXEL_SCALE**2
    return float(sigma), float(sky / sigma**2)


def _noise(seed: int, band: str, wcs: WCS, shape: tuple[int, int]) -> np.ndarray:
    """Gaussian deviates, float32, from the band and the pixel of the tract (counted from its reference pixel)."""
    first = [-int(np.floor(pixel)) for pixel in wcs.wcs.crpix]
    tract = [round(degrees * 1e6) % (1 << 32) for degrees in wcs.wcs.crval]
    key = np.random.SeedSequence([seed, ord(band), *tract]).generate_state(1, np.uint64)[0]
    x = (np.arange(shape[1]) + first[0]).astype(np.uint64)
    y = (np.arange(shape[0]) + first[1]).astype(np.uint64)
    bits = _mixed(_mixed(y + key)[:, None] + x)
    first_half = ((bits >> np.uint64(40)).astype(np.float32) + 0.5) / (1 << 24)
    second_half = (bits & np.uint64(0xFFFFFF)).astype(np.float32) / (1 << 24)
    return np.sqrt(-2 * np.log(first_half)) * np.cos(np.float32(2 * np.pi) * second_half)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele et al. 2014): every bit depends on every other."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
