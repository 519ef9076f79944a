"""Names of objects that tell their position, as the IAU recommends: ``J000411.19+020924.0``."""

from __future__ import annotations

import re
from fractions import Fraction

from skyset.errors import RecordError

_NAME = re.compile(r"J(\d\d)(\d\d)(\d\d(?:\.\d+)?)([+-])(\d\d)(\d\d)(\d\d(?:\.\d+)?)")


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
