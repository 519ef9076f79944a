"""Positions on the sky: checked, as HEALPix cells, as IAU names."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np

from skyset.errors import RecordError

_NAME = re.compile(r"J(\d\d)(\d\d)(\d\d(?:\.\d+)?)([+-])(\d\d)(\d\d)(\d\d(?:\.\d+)?)")


def check_position(ra: float, dec: float) -> None:
    """Raise RecordError unless 0 <= ra <= 360 and -90 <= dec <= 90 (degrees); NaN fails both."""
    if not (0.0 <= ra <= 360.0 and -90.0 <= dec <= 90.0):
        raise RecordError(f"position is not on the sky: ra {ra}, dec {dec}")


def healpix_cell(ra, dec, nside: int = 16) -> np.ndarray:
    """HEALPix cell of each position.

    Args:
        ra, dec: degrees, any shape.
        nside: power of two.

    Returns:
        int64 of the same shape, a number for a number, nested ordering (Gorski et al. 2005, ApJ 622, 759).
    """
    from astropy import units
    from astropy_healpix import lonlat_to_healpix

    ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    return np.asarray(lonlat_to_healpix(ra * units.deg, dec * units.deg, nside, order="nested"), np.int64)[()]


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def position_of(name: str) -> tuple[float, float]:
    """Right ascension and declination in degrees that a name spells, ``Jhhmmss.ss+ddmmss.s``.

    Digits of such names are truncated, not rounded: the object is up to one unit of the last digit further along, both in
    right ascension and away from the equator.

    Raises:
        RecordError: it is no such name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise RecordError(f"{name!r} is no IAU name like J000411.19+020924.0")
    hours, minutes, seconds, sign, degrees, arcminutes, arcseconds = match.groups()
    if int(hours) > 23 or max(map(int, (minutes, arcminutes))) > 59 or max(map(float, (seconds, arcseconds))) >= 60:
        raise RecordError(f"{name!r} spells no position")
    ra = Fraction(15 * (60 * (60 * int(hours) + int(minutes)) + Fraction(seconds)), 3600)
    dec = Fraction(60 * (60 * int(degrees) + int(arcminutes)) + Fraction(arcseconds), 3600)
    if dec > 90:
        raise RecordError(f"{name!r} spells no position")
    return float(ra), float(dec if sign == "+" else -dec)
