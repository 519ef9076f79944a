"""FITS files of a few images, from their fixed blocks: for many small files, of which astropy takes 30 times as long.

Raises RecordError throughout: a file that ends in the middle, or is damaged, is one object that cannot be used.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from skyset.errors import RecordError
from skyset.headers import BLOCK, CARD

MOST = 4  # HDUs that are read
_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_LARGEST = 1 << 26  # pixels
_END = b"END".ljust(8)

Cards = dict[bytes, bytes]  # what follows "= ", by keyword


class Hdu(NamedTuple):
    """A header, and the pixels that follow it, as they are in the file."""

    cards: Cards
    pixels: np.ndarray | None


def read_hdus(data: bytes) -> list[Hdu]:
    """The HDUs that hold nothing or an image.

    Raises:
        RecordError: they end in the middle, or it is no FITS file.
    """
    if data[:9] != b"SIMPLE  =":
        raise RecordError("not a FITS file" if data else "an empty file")
    found: list[Hdu] = []
    at = 0
    while at < len(data) and len(found) < MOST:
        if found and data[at : at + 8] != b"XTENSION":
            raise RecordError(f"damaged FITS file: no HDU at byte {at:,}")
        cards, at = _header(data, at)
        lengths = [whole_of(cards, b"NAXIS%d" % axis) for axis in range(whole_of(cards, b"NAXIS"), 0, -1)]
        if not lengths:
            found.append(Hdu(cards, None))
            continue
        if len(lengths) != 2 or not 0 < lengths[0] * lengths[1] <= _LARGEST:
            raise RecordError(f"an HDU of {' x '.join(map(str, reversed(lengths)))} pixels, not an image")
        kind = np.dtype(_TYPES.get(whole_of(cards, b"BITPIX"), "V"))
        size = lengths[0] * lengths[1] * kind.itemsize
        if kind.itemsize == 0 or whole_of(cards, b"PCOUNT", 0) or whole_of(cards, b"GCOUNT", 1) != 1:
            raise RecordError("damaged FITS file: BITPIX, PCOUNT or GCOUNT cannot be")
        if at + size > len(data):
            raise RecordError(f"truncated FITS file: {len(data):,} bytes, and its data go on to {at + size:,}")
        found.append(Hdu(cards, np.frombuffer(data, kind, lengths[0] * lengths[1], at).reshape(lengths)))
        at += -(-size // BLOCK) * BLOCK
    return found


def _header(data: bytes, at: int) -> tuple[Cards, int]:
    """The cards with a value, and where the data begin."""
    cards: Cards = {}
    while len(block := data[at : at + BLOCK]) == BLOCK:
        at += BLOCK
        for start in range(0, BLOCK, CARD):
            keyword = block[start : start + 8]
            if keyword == _END:
                return cards, at
            if block[start + 8 : start + 9] == b"=":
                cards[keyword.rstrip()] = block[start + 9 : start + CARD]
    raise RecordError(f"truncated FITS file: {len(data):,} bytes, and it ends in a header")


def text_of(cards: Cards, keyword: bytes) -> str:
    """A card's text; empty where it has none."""
    value = cards.get(keyword, b"").strip()
    if value[:1] == b"'":
        value = value[1:].partition(b"'")[0]
    return value.decode("ascii", "replace").strip()


def number_of(cards: Cards, keyword: bytes, default: float | None = None) -> float:
    """A card's number.

    Raises:
        RecordError: it has none, or there is no card and no default.
    """
    text = cards.get(keyword)
    if text is None and default is not None:
        return default
    try:
        value = float((text or b"").partition(b"/")[0].replace(b"D", b"E"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecordError(f"damaged FITS file: {keyword.decode()} is {'missing' if text is None else 'no number'}")
    return value


def whole_of(cards: Cards, keyword: bytes, default: int | None = None) -> int:
    """A card's number as an integer that can be a length (BITPIX also below 0)."""
    value = number_of(cards, keyword, default)
    if value != int(value) or (value < 0 and keyword != b"BITPIX") or abs(value) > 1 << 31:
        raise RecordError(f"damaged FITS file: {keyword.decode()} is {value:g}")
    return int(value)
