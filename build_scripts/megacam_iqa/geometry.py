"""Where a MegaCam image stands on the mosaic, by its header: its CCD, its sections, and which way round it is."""

from __future__ import annotations

import math
import re
from copy import copy

from astropy.io import fits

from skyset import headers

#: CCDs that are mounted the other way round: in the file x runs east and y south.
TURNED = frozenset({*range(18), 36, 37})
_SECTION = re.compile(r"\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*")
#: What says how the pixels were stored, and where in the raw frame.
_LEFT = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|BSCALE|BZERO|BLANK|DATAMIN|DATAMAX|Z?CHECKSUM|Z?DATASUM|"
    r"(DATA|BIAS|TRIM)SEC|[ABCDT]SEC[AB]|DETSEC[AB]|AMPLIST"
)
_MATRIX = re.compile(r"(CD|PC)[12]_[12]")
_SIP = re.compile(r"[AB]P?_(\d)_(\d)")


def identify(header: fits.Header) -> tuple[int, str]:
    """The number of the CCD, and ``a`` or ``b`` for the image of one amplifier.

    EXTNAME says it (``ccd07``, ``amp15``), else AMPNAME of an amplifier, EXTVER, or the end of FILENAME (``979412p07``).

    Raises:
        ValueError: nothing does.
    """
    name = str(header.get("EXTNAME", "")).strip().lower()
    if match := re.fullmatch(r"ccd_?(\d\d?)", name):
        return int(match[1]), ""
    amplifier = re.fullmatch(r"(\d\d)([ab])", str(header.get("AMPNAME", "")).strip().lower())
    if amplifier:
        return int(amplifier[1]), amplifier[2]
    if match := re.fullmatch(r"amp_?(\d\d?)", name):
        # Amplifier 2n is A of CCD n, or B of one that is mounted the other way round.
        number, second = divmod(int(match[1]), 2)
        return number, "ab"[second ^ (number in TURNED)]
    version = headers.number(header.get("EXTVER"))
    if version is None and (match := re.search(r"\d[a-z](\d\d)$", str(header.get("FILENAME", "")).strip())):
        version = int(match[1])
    if version is None or not 0 <= version < 40:
        raise ValueError("no image of MegaCam: neither EXTNAME, AMPNAME, EXTVER nor FILENAME says which CCD it is")
    return int(version), ""


def number(header: fits.Header, key: str) -> float:
    """A card's number; NaN where there is none."""
    value = headers.number(header.get(key))
    return math.nan if value is None else float(value)


def section(header: fits.Header, key: str, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """A section such as ``[33:2080,1:4612]`` as slices of rows and columns; None: there is none, or the image is smaller."""
    match = _SECTION.fullmatch(str(header.get(key, "")))
    if match is None:
        return None
    x0, x1, y0, y1 = (int(text) for text in match.groups())
    if not (1 <= x0 <= x1 <= shape[1] and 1 <= y0 <= y1 <= shape[0]):
        return None
    return slice(y0 - 1, y1), slice(x0 - 1, x1)


def corner(header: fits.Header, key: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Columns and rows that trimming to a section takes away at the left and below."""
    found = section(header, key, shape)
    return (0, 0) if found is None else (found[1].start, found[0].start)


def is_turned(ccd: int, header: fits.Header) -> bool:
    """Whether x runs east and y south: by the WCS, else by DETSEC, else by the CCD's number.

    A file that another pipeline has turned already is left as it is.
    """
    x, y = (headers.number(header.get(key)) for key in ("CD1_1", "CD2_2"))
    if x and y and x * y < 0:
        return x > 0
    match = _SECTION.fullmatch(str(header.get("DETSEC", "")))
    return int(match[1]) > int(match[2]) if match else ccd in TURNED


def oriented(header: fits.Header, trimmed: tuple[int, int], shape: tuple[int, int], turned: bool) -> fits.Header:
    """The header of the trimmed and turned image: its WCS goes with the pixels, sections of the raw frame go."""
    size = [("NAXIS", 2), ("NAXIS1", shape[1]), ("NAXIS2", shape[0])]
    made = fits.Header([*size, *(copy(card) for card in header.cards if not _LEFT.fullmatch(card.keyword))])
    for axis, off, side in zip((1, 2), trimmed, shape[::-1], strict=True):
        centre = headers.number(made.get(f"CRPIX{axis}"))
        if centre is not None:
            made[f"CRPIX{axis}"] = side + 1 - (centre - off) if turned else centre - off
    if turned:
        _turn(made)
    return made


def _turn(header: fits.Header) -> None:
    for key in [key for key in header if _MATRIX.fullmatch(key) or key in ("CDELT1", "CDELT2")]:
        if (value := headers.number(header[key])) is not None and not (key.startswith("PC") and "CDELT1" in header):
            header[key] = -value
    for key in list(header):
        # The distortion is a polynomial of pixels from CRPIX: even terms change their sign against the result's.
        if (match := _SIP.fullmatch(key)) and (int(match[1]) + int(match[2])) % 2 == 0:
            header[key] = -header[key]
    if match := _SECTION.fullmatch(str(header.get("DETSEC", ""))):
        header["DETSEC"] = f"[{match[2]}:{match[1]},{match[4]}:{match[3]}]"
