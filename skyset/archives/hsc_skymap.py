"""The tracts of Hyper Suprime-Cam's sky: which one a position is in, and where its centre is.

Rings of equal width in declination, counted from the south, each cut into tracts of equal width in right ascension
(``RingsSkyMap`` of lsst.skymap with 120 rings, https://github.com/lsst/skymap; the one of all HSC-SSP releases). A tract is
projected onto the tangential plane at its centre, in pixels of 0.168 arcsec; 9 x 9 patches of 4,000 pixels make a tract.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math

PIXEL = 0.168  # arcsec
PATCH = 4000  # pixels of a patch's side, without its overlap
#: 0-based pixel of a tract at which its centre is, on both axes.
CENTRE = 17_999.0

_RINGS = 120
_WIDTH = 180 / (_RINGS + 1)  # degrees; the two caps are half a ring each


@functools.cache
def _tracts() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many tracts each ring has, and the number of its first."""
    counts = []
    for ring in range(_RINGS):
        south = _WIDTH * (ring + 0.5) - 90
        wide = math.cos(math.radians(min(abs(south), abs(south + _WIDTH))))
        counts.append(int(360 * wide / _WIDTH) + 1)
    return tuple(counts), tuple(itertools.accumulate(counts, initial=1))


def tract_at(ra: float, dec: float) -> int:
    """The tract in which a position (ICRS degrees) lies.

    Raises:
        ValueError: it is no position.
    """
    if not (math.isfinite(ra) and -90 <= dec <= 90):
        raise ValueError(f"no position on the sky: ra {ra}, dec {dec}")
    counts, firsts = _tracts()
    ring = math.floor((dec + 90) / _WIDTH - 0.5)
    if not 0 <= ring < _RINGS:
        return 0 if ring < 0 else firsts[-1]
    return firsts[ring] + int(ra % 360 / 360 * counts[ring] + 0.5) % counts[ring]


def tract_centre(tract: int) -> tuple[float, float]:
    """Right ascension and declination of a tract's centre, ICRS degrees.

    Raises:
        ValueError: there is no such tract.
    """
    counts, firsts = _tracts()
    if not 0 <= tract <= firsts[-1]:
        raise ValueError(f"no tract {tract}: there are 0 to {firsts[-1]}")
    if tract in (0, firsts[-1]):
        return 0.0, math.copysign(90, tract - 1)
    ring = bisect.bisect_right(firsts, tract) - 1
    south = math.pi / (_RINGS + 1) * (ring + 1) - math.pi / 2  # in radians, for the last digit of their headers
    return 360 * (tract - firsts[ring]) / counts[ring], math.degrees(south)


def patch_at(x: float, y: float) -> tuple[int, int]:
    """The patch of a tract's pixel, as its two numbers from 0 to 8."""
    column, row = (min(8, max(0, int(value // PATCH))) for value in (x, y))
    return column, row
