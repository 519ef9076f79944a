"""True shapes as they are measured: the radius of the circle with half of a galaxy's light.

The light of an elliptical profile is uniform in the eccentric angle, and a circle of radius R cuts the ray of the angle phi
at the fraction P(2n, b (R / s)^(1/n)) of its light, s = r_e sqrt(cos^2 phi + q^2 sin^2 phi). Indices are multiples of 1/2
here, where the incomplete gamma function P is a finite sum.
"""

from __future__ import annotations

import functools
import math

import numpy as np

_ANGLES = (np.arange(48) + 0.5) / 48 * np.pi / 2


def _gamma(m: int, x: np.ndarray) -> np.ndarray:
    """The regularised lower incomplete gamma function P(m, x) of a whole number."""
    term, total = np.ones_like(x), np.ones_like(x)
    for k in range(1, m):
        term = term * x / k
        total = total + term
    return 1 - np.exp(-x) * total


@functools.cache
def _b(n: float) -> float:
    """b with P(2n, b) = 1/2."""
    low, high = 0.0, 4 * n
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _gamma(round(2 * n), np.array(middle)) < 0.5 else (low, middle)
    return low


def flux_within(radius: np.ndarray, n: float, r_e: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The share of an elliptical Sersic profile's light within circles around its centre, float64 (count,).

    Args:
        radius: of the circles, (count,).
        n: index, a multiple of 1/2.
        r_e: half-light radius along the major axis, (count,), the same unit.
        q: axis ratio, (count,).

    Raises:
        ValueError: another index.
    """
    if not math.isclose(2 * n, round(2 * n)):
        raise ValueError(f"an index of {n}: only multiples of 1/2 have a finite sum")
    rays = r_e[:, None] * np.sqrt(np.cos(_ANGLES) ** 2 + (q[:, None] * np.sin(_ANGLES)) ** 2)
    return _gamma(round(2 * n), _b(n) * (radius[:, None] / rays) ** (1 / n)).mean(axis=1)


def half_light_radii(truth: np.ndarray) -> np.ndarray:
    """The radius of the circle with half of each galaxy's light, without any PSF.

    Args:
        truth: (count,) of `population.TRUTH`.

    Returns:
        float64 (count, 5), pixels, in g, r, i, z, y: bands differ where a bulge is redder than its disc.
    """
    bulge = np.nan_to_num(truth["bulge_flux"] / truth["flux"])
    low, high = np.zeros_like(bulge), np.repeat(3 * truth["r_e"][:, None], bulge.shape[1], axis=1)
    for _ in range(40):
        middle = (low + high) / 2
        inside = np.stack([_share(truth, each) for each in middle.T], -1, dtype=float)
        within = inside[0] * (1 - bulge) + inside[1] * bulge < 0.5
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    return low


def _share(truth: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Of the disc, or the only profile, and of the bulge: (2, count)."""
    shares = np.zeros((2, len(truth)))
    indices = np.where(np.isnan(truth["n"]), 1, truth["n"])
    for n in np.unique(indices):
        here = indices == n
        shares[0, here] = flux_within(radius[here], float(n), truth["r_e"][here], truth["q"][here])
    here = ~np.isnan(truth["bulge_r_e"])
    shares[1, here] = flux_within(radius[here], 4, truth["bulge_r_e"][here], truth["bulge_q"][here])
    return shares
