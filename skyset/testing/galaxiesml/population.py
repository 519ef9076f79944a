"""Galaxies as they are, before anybody looks at them: redshifts, magnitudes, shapes, positions.

Every quantity has a stream of random numbers of its own, so that galaxy 17 of a seed is the same in a sky of 20 and of
200,000. Redshifts and magnitudes are like those of the spectroscopic surveys that HSC's table merges (0.01 to 4, few beyond
2.5; bright nearby, 24 far away), sizes like those of Shen et al. (2003) that shrink with redshift; none is fitted to data.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from skyset.testing.galaxiesml.colours import BANDS, light

#: Arcsec per pixel, and the zero point of counts.
PIXEL_SCALE, ZERO_POINT = 0.168, 27.0
#: Depths of HSC's Wide layer (5 sigma, point sources): Aihara et al. 2019 (PASJ 71, 114), table 2.
DEPTH = {"g": 26.6, "r": 26.2, "i": 26.2, "z": 25.3, "y": 24.5}
#: A galaxy. Lengths in pixels along the major axis, angles in degrees from +x towards +y (-90 to 90), fluxes in counts.
#: ``n`` is NaN where the galaxy is a disc (n = 1) and a bulge (n = 4); else it is one profile and ``bulge_*`` are NaN.
TRUTH = np.dtype(
    [
        ("ra", "f8"),
        ("dec", "f8"),
        ("redshift", "f8"),
        ("template", "f8"),
        ("n", "f8"),
        ("r_e", "f8"),
        ("q", "f8"),
        ("pa", "f8"),
        ("bulge_r_e", "f8"),
        ("bulge_q", "f8"),
        ("flux", "f8", len(BANDS)),
        ("bulge_flux", "f8", len(BANDS)),
    ]
)
#: Square degrees that are filled one after the other, ``PER_CELL`` galaxies in each: fields of HSC's Wide layer.
_FIELDS = ((30, 39, -6, -2), (129, 140, -1, 4), (174, 225, -1, 2), (331, 341, -1, 2), (241, 249, 42, 44))
_CELLS = np.array([(ra, dec) for a, b, c, d in _FIELDS for dec in range(c, d) for ra in range(a, b)], float)
PER_CELL = 1000
#: Share, mean and spread of the redshifts of the kinds of surveys.
_SURVEYS = ((0.30, 0.22, 0.12), (0.25, 0.55, 0.12), (0.28, 0.80, 0.28), (0.13, 1.50, 0.40), (0.04, 2.60, 0.60))
_MAGNITUDE = ((0.01, 0.1, 0.3, 0.55, 0.8, 1.2, 2.0, 3.0, 4.0), (15.5, 17.6, 19.2, 20.3, 21.5, 22.5, 23.1, 23.7, 24.1))
_BRIGHTEST, _FAINTEST = 14.5, 24.6
_BULGE_SHARE = 0.4


def flux_of(magnitude: Any) -> Any:
    """AB magnitudes as counts."""
    return 10 ** (-0.4 * (magnitude - ZERO_POINT))


def dice(seed: int, *what: str | int) -> np.random.Generator:
    """The stream of random numbers of one quantity."""
    return np.random.default_rng([seed, *(zlib.crc32(each.encode()) if isinstance(each, str) else each for each in what)])


def draw(count: int, seed: int = 0) -> np.ndarray:
    """Draw galaxies.

    Args:
        count: how many; the first of them are the same for any number.
        seed: another seed, other galaxies.

    Returns:
        (count,) of `TRUTH`.

    Raises:
        MissingPackage: GalSim is not installed.
    """
    truth = np.zeros(count, TRUTH)
    truth["ra"], truth["dec"] = _positions(count, seed)
    redshift = truth["redshift"] = _redshifts(count, seed)
    magnitude = _magnitudes(redshift, seed)
    early = dice(seed, "early").random(count) < np.clip(0.55 - 0.35 * redshift, 0, 1)
    where = dice(seed, "template").random(count)
    truth["template"] = np.where(early, 0.6 * where, 0.8 + 2.2 * where)
    _shapes(truth, magnitude, early, seed)
    _fluxes(truth, magnitude, seed)
    return truth


def _positions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    cell = _CELLS[np.arange(count) // PER_CELL % len(_CELLS)]
    return cell[:, 0] + dice(seed, "ra").random(count), cell[:, 1] + dice(seed, "dec").random(count)


def _redshifts(count: int, seed: int) -> np.ndarray:
    shares, means, spreads = np.array(_SURVEYS).T
    survey = np.searchsorted(np.cumsum(shares)[:-1], dice(seed, "survey").random(count), "right")
    redshift = means[survey] + spreads[survey] * dice(seed, "redshift").standard_normal(count)
    # Reflected at the limits rather than cut, so that nothing piles up there.
    low, high = 0.0105, 3.99
    return high - np.abs((np.abs(redshift - low)) % (2 * (high - low)) - (high - low))


def _magnitudes(redshift: np.ndarray, seed: int) -> np.ndarray:
    magnitude = np.interp(redshift, *_MAGNITUDE) + 0.9 * dice(seed, "magnitude").standard_normal(len(redshift))
    return np.maximum(_FAINTEST - np.abs(_FAINTEST - magnitude), _BRIGHTEST)


def _shapes(truth: np.ndarray, magnitude: np.ndarray, early: np.ndarray, seed: int) -> None:
    from astropy.cosmology import Planck18

    count, redshift = len(truth), truth["redshift"]
    grid = np.geomspace(0.005, 4.5, 400)
    distance = np.interp(redshift, grid, Planck18.angular_diameter_distance(grid).value)  # Mpc
    absolute = magnitude - 25 - 5 * np.log10(distance * (1 + redshift) ** 2)
    size = np.where(early, 3.4, 4.2) * 10 ** (-0.12 * (absolute + 21.5)) * (1 + redshift) ** -0.5  # kpc
    size *= 10 ** (0.16 * dice(seed, "size").standard_normal(count))
    arcsec = np.degrees(size / (1000 * distance)) * 3600

    half_integers = dice(seed, "n").random(count)
    n = np.where(early, 2.5 + np.floor(8 * half_integers**1.3) / 2, 0.5 + np.floor(5 * half_integers) / 2)
    composite = dice(seed, "composite").random(count) < _BULGE_SHARE
    truth["n"] = np.where(composite, np.nan, n)
    truth["r_e"] = np.clip(arcsec, 0.12, np.where(~composite & (n > 2.5), 2.5, 4.0)) / PIXEL_SCALE
    flat = dice(seed, "q").random(count)
    truth["q"] = np.where(early, 0.5 + 0.5 * flat, 0.2 + 0.8 * flat)
    truth["pa"] = 180 * dice(seed, "pa").random(count) - 90
    smaller = 0.2 + 0.4 * dice(seed, "bulge_size").random(count)
    truth["bulge_r_e"] = np.where(composite, truth["r_e"] * smaller, np.nan)
    truth["bulge_q"] = np.where(composite, 1 - 0.4 * (1 - truth["q"]), np.nan)


def _fluxes(truth: np.ndarray, magnitude: np.ndarray, seed: int) -> None:
    """Light of both components: the bulge is as red as an elliptical, unless the galaxy is far away and all is young."""
    total = flux_of(magnitude)[:, None]
    share = 0.1 + 0.6 * dice(seed, "bulge").random(len(truth))
    share = np.where(np.isnan(truth["n"]), share, 0)[:, None]
    red = np.minimum(truth["template"], np.where(truth["redshift"] < 1.6, 0.3, 2.0))
    truth["flux"] = total * (1 - share) * light(truth["template"], truth["redshift"])
    truth["bulge_flux"] = total * share * light(red, truth["redshift"])
    truth["flux"] += truth["bulge_flux"]
