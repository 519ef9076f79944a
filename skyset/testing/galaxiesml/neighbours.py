"""What else stands around a galaxy: fainter and brighter galaxies and some stars, drawn for each on its own."""

from __future__ import annotations

import numpy as np

from skyset.testing.galaxiesml.colours import light
from skyset.testing.galaxiesml.population import PIXEL_SCALE, dice, flux_of

#: One component of light, centred ``dx, dy`` pixels from the galaxy; ``n`` 0 is a point.
COMPONENT = np.dtype([("dx", "f8"), ("dy", "f8"), ("n", "f8"), ("r_e", "f8"), ("q", "f8"), ("pa", "f8"), ("flux", "f8", 5)])
#: How far out they are drawn (arcsec): a cutout of 20 arcsec has its corners at 14.2. None is nearer than the second.
RADIUS, _NEAREST = 14.5, 1.2
#: A square arcmin holds so many to i = 25.5, and a magnitude deeper 10^0.33 times as many.
_DENSITY, _FAINTEST, _BRIGHTEST, _SLOPE = 40.0, 25.5, 18.0, 0.33
_STARS = 0.12


def draw_neighbours(seed: int, number: int) -> np.ndarray:
    """Neighbours of a galaxy, the same whenever they are asked for.

    Args:
        seed: of the sky.
        number: the galaxy's.

    Returns:
        `COMPONENT`, each with its fluxes in g, r, i, z, y (counts).
    """
    draw = dice(seed, "neighbours", number)
    count = draw.poisson(_DENSITY * np.pi * RADIUS**2 / 3600)
    found = np.zeros(count, COMPONENT)
    if not count:
        return found
    away, towards, deep, star, redshift, kind, size, flat, pa = draw.random((9, count))
    radius = np.sqrt(_NEAREST**2 + away * (RADIUS**2 - _NEAREST**2)) / PIXEL_SCALE
    found["dx"], found["dy"] = radius * np.cos(2 * np.pi * towards), radius * np.sin(2 * np.pi * towards)
    magnitude = np.maximum(_FAINTEST + np.log10(deep) / _SLOPE, _BRIGHTEST)
    is_star = star < _STARS
    # A star is a spectrum at rest: early galaxies are made of K giants, late ones of hot stars.
    redshift = np.where(is_star, 0, 2.2 * redshift**1.2)
    found["flux"] = flux_of(magnitude)[:, None] * light(3 * kind, redshift)
    found["n"] = np.where(is_star, 0, 1)
    found["r_e"] = (0.15 + 0.5 * size) * 10 ** (0.06 * (_FAINTEST - magnitude)) / PIXEL_SCALE
    found["q"], found["pa"] = 0.3 + 0.7 * flat, 180 * pa - 90
    return found
