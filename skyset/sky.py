"""Positions on the sky: checked, as HEALPix cells, as IAU names."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np

from skyset.errors import RecordError

_NAME = re.compile(r"J(\d\d)(\d\d)(\d\d(?:\.\d+)?)([+-])(\d\d)(\d\d)(\d\d(?:\.\d+)?)")


#: Points that a side of a HEALPix cell is followed by; how far it may lie beside them, of the cell's side.
_EDGE, _SLACK = 8, 0.05


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


def cell_boxes(cells, nside: int) -> np.ndarray:
    """The part of the sky that each of some HEALPix cells lies in.

    Args:
        cells: numbers of the cells, nested ordering.
        nside: theirs.

    Returns:
        float64 (cells, 4), degrees: the smallest and the largest right ascension, and declination; a little more than the
        cell. The former may lie below 0 or above 360.
    """
    from astropy_healpix import boundaries_lonlat, healpix_to_lonlat

    cells = np.asarray(cells, np.int64)
    if not len(cells):
        return np.zeros((0, 4))
    lon, lat = (each.deg for each in boundaries_lonlat(cells, _EDGE, nside, order="nested"))
    centre = healpix_to_lonlat(cells, nside, order="nested")[0].deg
    slack = _SLACK * 60 / nside  # of a border between two of the points that it is followed by
    south, north = np.maximum(lat.min(1) - slack, -90), np.minimum(lat.max(1) + slack, 90)
    furthest = np.maximum(-south, north)
    at_pole = furthest > 90 - slack
    wider = slack / np.cos(np.radians(np.where(at_pole, 0, furthest)))
    away = (lon - centre[:, None] + 180) % 360 - 180
    west, east = centre + away.min(1) - wider, centre + away.max(1) + wider
    return np.stack([np.where(at_pole, 0.0, west), np.where(at_pole, 360.0, east), south, north], axis=1)


def joint_box(boxes: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """What holds all of some boxes of ``cell_boxes``: smallest and largest right ascension, and declination, degrees."""
    dec = float(boxes[:, 2].min()), float(boxes[:, 3].max())
    middle = boxes[:, :2].mean(1)
    moved = (middle - middle[0] + 180) % 360 - 180 + middle[0] - middle  # to the side of the first one
    ra = float((boxes[:, 0] + moved).min()), float((boxes[:, 1] + moved).max())
    return (ra, dec) if ra[1] - ra[0] < 180 else ((0.0, 360.0), dec)
