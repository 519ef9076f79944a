"""Lists of the cutout service and of the PSF picker, as their servers read them (grammar of the DAS Cutout manual)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from skyset.errors import SkysetError
from skyset.testing.hsc_sky import BANDS, FILTERS, PLANES, RERUNS

COLUMNS = {
    "cutout": ("rerun", "filter", "tract", "ra", "dec", "sw", "sh", *PLANES, "type", "nodata", "name"),
    "psf": ("rerun", "type", "filter", "tract", "patch", "ra", "dec", "centered"),
}
#: Of what neither the list nor the address says; the lists of the two services have no others.
DEFAULTS = {
    "cutout": {"rerun": "any", "tract": "any", "image": "true", "mask": "false", "variance": "false", "type": "coadd"},
    "psf": {"rerun": "any", "tract": "auto", "patch": "auto", "type": "coadd", "centered": "true"},
}
_UNITS = {
    "": 1.0, "deg": 1.0, "amin": 1 / 60, "arcmin": 1 / 60, "asec": 1 / 3600, "arcsec": 1 / 3600, "rad": math.degrees(1),
}  # fmt: skip
_TRUE, _FALSE = ("true", "on", "1", "yes", "t", "y"), ("false", "off", "0", "no", "f", "n")
_TYPES = ("coadd", "coadd/bg")


class Refusal(SkysetError):
    """The request is refused: HTTP status, and the words of the answer."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class Line(NamedTuple):
    """What one line of a list asks for; ``number`` counts from 1, and the header is line 1. Angles are degrees."""

    number: int
    text: str
    rerun: str
    band: str
    tract: int | None
    ra: float
    dec: float
    sw: float
    sh: float
    planes: tuple[str, ...]
    type: str


def read_list(text: str, given: Mapping[str, str], service: str = "cutout") -> list[Line]:
    """The lines of a list.

    Args:
        text: the list.
        given: what the address says, for columns that the list does not have.
        service: ``cutout`` or ``psf``.

    Raises:
        Refusal: the list is broken.
    """
    first, *lines = text.splitlines() or [""]
    if not first.startswith("#?"):
        raise Refusal(400, "line 1: the list must begin with a header such as '#? ra dec filter'")
    columns = first[2:].split()
    if unknown := [name for name in columns if name not in COLUMNS[service] and name not in ("ra1", "dec1", "ra2", "dec2")]:
        raise Refusal(400, f"line 1: unknown column: {' '.join(unknown)}")
    if len(set(columns)) < len(columns):
        raise Refusal(400, "line 1: a column is there twice")
    found = []
    for number, line in enumerate(lines, 2):
        if not line.strip() or line.startswith("#"):
            continue
        values = line.split()
        if len(values) != len(columns):
            raise Refusal(400, f"line {number}: {len(values)} values for {len(columns)} columns")
        known = {name: value for name, value in given.items() if name in COLUMNS[service]}
        found.append(read_line(number, line, {**DEFAULTS[service], **known, **dict(zip(columns, values, strict=True))}))
    return found


def read_line(number: int, text: str, values: Mapping[str, str]) -> Line:
    """A line of these values by column.

    Raises:
        Refusal: one of them is missing, or cannot be.
    """
    try:
        band = _band(values["filter"])
        ra, dec = angle(values["ra"], hours=True), angle(values["dec"])
        sw, sh = (angle(values[name]) if name in values else 0.0 for name in ("sw", "sh"))
        tract = None if values["tract"] in ("any", "auto") else int(values["tract"])
        planes = tuple(name for name in PLANES if name in values and flag(values[name]))
    except KeyError as error:
        raise Refusal(400, f"line {number}: no {error.args[0]}") from error
    except ValueError as error:
        raise Refusal(400, f"line {number}: {error}") from error
    if values["rerun"] not in ("any", *RERUNS):
        raise Refusal(400, f"line {number}: unknown rerun: {values['rerun']}")
    if values["type"] not in _TYPES:
        raise Refusal(400, f"line {number}: unknown type: {values['type']}")
    if not (-90 <= dec <= 90 and 0 <= ra <= 360):
        raise Refusal(400, f"line {number}: no position on the sky: {ra} {dec}")
    if max(sw, sh) > 35 / 60:
        raise Refusal(400, f"line {number}: resultant image size exceeds limit")
    rerun = RERUNS[0] if values["rerun"] == "any" else values["rerun"]
    return Line(number, text, rerun, band, tract, ra, dec, sw, sh, planes, values["type"])


def _band(text: str) -> str:
    band = FILTERS.get(text.upper(), text)
    if len(band) != 1 or band not in BANDS:
        raise ValueError(f"unknown filter: {text}")
    return band


def flag(text: str) -> bool:
    """``true on 1 yes`` and their opposites.

    Raises:
        ValueError: it is neither.
    """
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ValueError(f"neither true nor false: {text}")
    return text.lower() in _TRUE


def angle(text: str, hours: bool = False) -> float:
    """Degrees: a bare number, one with a unit, or sexagesimal (of hours, where ``hours``).

    Raises:
        ValueError: it is none of these.
    """
    if re.fullmatch(r"[+-]?\d+:\d+(:\d+(\.\d*)?)?", text):
        whole, minutes, seconds = (*text.lstrip("+-").split(":"), "0")[:3]
        value = float(whole) + float(minutes) / 60 + float(seconds) / 3600
        return (-value if text[0] == "-" else value) * (15 if hours else 1)
    match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([a-z]*)", text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"not an angle: {text}")
    return float(match[1]) * _UNITS[match[2]]
