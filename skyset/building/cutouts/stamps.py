"""Cutouts of Hyper Suprime-Cam's archive: read, their sky, and put into frames of one size around their targets.

    stamp = read_stamp(members["i.fits"], "i")
    pixels, n_padded = framed(stamp, ra, dec)         # (127, 127) float32, the target at [63, 63]

A cutout is four HDUs (nothing, image, mask, variance) of fixed blocks, and its sky a plain TAN: both are read here without
astropy, which takes 30 times as long, and the tests hold them against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from skyset.archives.hsc_skymap import tract_at, tract_centre
from skyset.building.cutouts.fits_blocks import Cards, Hdu, number_of, read_hdus, text_of, whole_of
from skyset.errors import RecordError

ZERO_POINT = 27.0  # AB magnitude of a count of 1, of all images
SIZE = 127  # pixels of the frame's side
CENTRINGS = ("wcs", "published")

_PLANES = ("image", "mask", "variance")


class Tan(NamedTuple):
    """A tangential plane: the position (degrees) of a reference pixel (counted from 1), and degrees a pixel."""

    ra: float
    dec: float
    x: float
    y: float
    matrix: tuple[float, float, float, float]  # CD1_1, CD1_2, CD2_1, CD2_2

    def pixel_of(self, ra: float, dec: float) -> tuple[float, float]:
        """x, y of a position (degrees), counted from 0 at the first pixel's middle.

        Raises:
            RecordError: it is a quarter of the sky away.
        """
        north, south, turn = math.radians(dec), math.radians(self.dec), math.radians(ra - self.ra)
        sin, cos, sin0, cos0 = math.sin(north), math.cos(north), math.sin(south), math.cos(south)
        near = sin * sin0 + cos * cos0 * math.cos(turn)
        if not near > 0:
            raise RecordError(f"the target at {ra:.5f} {dec:.5f} is on the other side of the sky")
        east = math.degrees(cos * math.sin(turn) / near)
        up = math.degrees((sin * cos0 - cos * sin0 * math.cos(turn)) / near)
        a, b, c, d = self.matrix
        det = a * d - b * c
        return (d * east - b * up) / det + self.x - 1, (a * up - c * east) / det + self.y - 1


@dataclass(frozen=True)
class Stamp:
    """A cutout.

    Attributes:
        image: (height, width) float32 in counts of zero point 27, row 0 in the south.
        mask: (height, width) int32, or None where it was not asked for.
        variance: (height, width) float32, or None.
        band: one of g, r, i, z, y.
        tract: in whose projection it is; -1 where that is none of the survey's.
        zero_point: what the file had, AB magnitudes.
        wcs: its sky.
    """

    image: np.ndarray
    mask: np.ndarray | None
    variance: np.ndarray | None
    band: str
    tract: int
    zero_point: float
    wcs: Tan

    def pixel_of(self, ra: float, dec: float) -> tuple[float, float]:
        """x, y of a position (ICRS degrees), counted from 0 at the first pixel's middle: see `Tan`."""
        return self.wcs.pixel_of(ra, dec)


def read_stamp(data: bytes, band: str | None = None) -> Stamp:
    """A cutout from its FITS file.

    Args:
        data: the file.
        band: the one that was asked for.

    Raises:
        RecordError: the file is truncated or no cutout, of another band, without a sky, or its image holds nothing.
    """
    primary, *others = read_hdus(data)
    planes: dict[str, Hdu] = {}
    for place, hdu in enumerate(others[: len(_PLANES)]):
        if hdu.pixels is not None:
            planes[text_of(hdu.cards, b"EXTTYPE").lower() or _PLANES[place]] = hdu
    if "image" not in planes or planes["image"].pixels is None:
        raise RecordError("the FITS file has no image")
    found = _band(primary.cards)
    if band is not None and found != band:
        raise RecordError(f"the FITS file is of band {found or '?'}, not {band}")
    image = planes["image"]
    if image.pixels is not None and image.pixels.dtype.str != ">f4":
        raise RecordError(f"its image is of BITPIX {whole_of(image.cards, b'BITPIX')}, not -32")
    wcs = _tan(image.cards)
    stamp = Stamp(
        _plane(planes, "image", np.float32),
        _plane(planes, "mask", np.int32) if "mask" in planes else None,
        _plane(planes, "variance", np.float32) if "variance" in planes else None,
        found,
        _tract(wcs),
        _zero_point(primary.cards),
        wcs,
    )
    return _scaled(_checked(stamp))


def framed(
    stamp: Stamp,
    ra: float,
    dec: float,
    size: int = SIZE,
    pad: float = 0.0,
    centring: str = "wcs",
    plane: str = "image",
) -> tuple[np.ndarray, int]:
    """A plane of a stamp in a frame around its target.

    Args:
        stamp: the cutout.
        ra, dec: of the target, ICRS degrees.
        size: pixels of the frame's side.
        pad: where the stamp has no pixels.
        centring: ``wcs`` puts the pixel that the target is in at ``[size // 2, size // 2]``; ``published`` puts the same
            border around each stamp, ``int((size - n) / 2)`` pixels, as GalaxiesML's files have it.
        plane: image, mask or variance.

    Returns:
        (size, size) of the plane's dtype, and how many of its pixels the stamp does not cover.

    Raises:
        RecordError: the target is not in the stamp, its pixel there is NaN, or there is no such plane.
    """
    pixels = getattr(stamp, plane)
    if pixels is None:
        raise RecordError(f"the cutout has no {plane}")
    height, width = pixels.shape
    x, y = (math.floor(value + 0.5) for value in stamp.pixel_of(ra, dec))
    if not (0 <= x < width and 0 <= y < height):
        raise RecordError(f"the target is at pixel {x}, {y}, outside of the cutout of {width} x {height}")
    if plane == "image" and not np.isfinite(pixels[y, x]):
        raise RecordError(f"the target's pixel {x}, {y} is {pixels[y, x]}")
    if centring == "wcs":
        left, low = size // 2 - x, size // 2 - y
    elif centring == "published":
        left, low = int((size - width) / 2), int((size - height) / 2)
    else:
        raise ValueError(f"centring {centring!r}: one of {', '.join(CENTRINGS)}")
    frame = np.full((size, size), pad, pixels.dtype)
    part = pixels[max(0, -low) : max(0, size - low), max(0, -left) : max(0, size - left)]
    frame[max(0, low) :, max(0, left) :][: part.shape[0], : part.shape[1]] = part
    return frame, size * size - part.size


def read_psf(data: bytes, size: int = 41) -> np.ndarray:
    """A PSF of the PSF picker: (size, size) float32 with its middle at ``[size // 2, size // 2]``, cut or padded with 0.

    Raises:
        RecordError: the file is truncated, or holds no PSF.
    """
    pixels = next((hdu.pixels for hdu in read_hdus(data) if hdu.pixels is not None), None)
    if pixels is None or not np.isfinite(pixels).all() or not pixels.sum() > 0:
        raise RecordError("the FITS file has no PSF")
    frame = np.zeros((size, size), np.float32)
    low, left = size // 2 - pixels.shape[0] // 2, size // 2 - pixels.shape[1] // 2
    part = pixels[max(0, -low) : max(0, size - low), max(0, -left) : max(0, size - left)]
    frame[max(0, low) :, max(0, left) :][: part.shape[0], : part.shape[1]] = part
    return frame


# --- what a cutout says of itself ---------------------------------------------------------------------------


def _plane(planes: dict[str, Hdu], name: str, kind: type) -> np.ndarray:
    """A plane in the byte order of this machine."""
    cards, pixels = planes[name]
    assert pixels is not None
    scale, zero = number_of(cards, b"BSCALE", 1.0), number_of(cards, b"BZERO", 0.0)
    if (scale, zero) != (1.0, 0.0):
        pixels = pixels * scale + zero
    return pixels.astype(kind)


def _band(cards: Cards) -> str:
    """``i`` of ``i``, ``HSC-I`` or ``i2``, the filter's second make."""
    name = text_of(cards, b"FILTER").upper().removeprefix("HSC-").lower()
    return name[:1] if len(name) == 1 or name[1:] == "2" else name


def _zero_point(cards: Cards) -> float:
    flux = number_of(cards, b"FLUXMAG0")
    if not 1 < flux < 1e24:  # zero points of 0 and 60
        raise RecordError(f"its FLUXMAG0 is {flux:g}: the zero point is not known")
    return 2.5 * math.log10(flux)


def _tan(cards: Cards) -> Tan:
    """The sky of an image, whose axes are right ascension and declination.

    Raises:
        RecordError: there is none, or another projection.
    """
    kinds = text_of(cards, b"CTYPE1"), text_of(cards, b"CTYPE2")
    if kinds != ("RA---TAN", "DEC--TAN"):
        raise RecordError(f"its sky is {' '.join(kinds)}, not RA---TAN DEC--TAN" if any(kinds) else "it has no sky (WCS)")
    if number_of(cards, b"LONPOLE", 180.0) != 180 or any(keyword[:2] == b"PV" for keyword in cards):
        raise RecordError("its sky is not a plain TAN: LONPOLE or PV")
    if any(keyword[:2] == b"CD" and keyword[2:3].isdigit() for keyword in cards):
        terms = [number_of(cards, keyword, 0.0) for keyword in (b"CD1_1", b"CD1_2", b"CD2_1", b"CD2_2")]
    else:
        steps = [number_of(cards, keyword) for keyword in (b"CDELT1", b"CDELT2")]
        turns = [
            number_of(cards, keyword, usual)
            for keyword, usual in ((b"PC1_1", 1.0), (b"PC1_2", 0.0), (b"PC2_1", 0.0), (b"PC2_2", 1.0))
        ]
        terms = [steps[place // 2] * turn for place, turn in enumerate(turns)]
    a, b, c, d = terms
    if a * d == b * c:
        raise RecordError("its sky (WCS) is flat: the matrix has no inverse")
    ra, dec, x, y = (number_of(cards, keyword) for keyword in (b"CRVAL1", b"CRVAL2", b"CRPIX1", b"CRPIX2"))
    return Tan(ra, dec, x, y, (a, b, c, d))


def _tract(wcs: Tan) -> int:
    if not abs(wcs.dec) <= 90:
        raise RecordError(f"its sky (WCS) is at declination {wcs.dec:g}")
    tract = tract_at(wcs.ra, wcs.dec)
    ra, dec = tract_centre(tract)
    return tract if math.hypot(wcs.ra - ra, wcs.dec - dec) < 1e-6 else -1


def _checked(stamp: Stamp) -> Stamp:
    """RecordError unless the planes belong together and the image holds something."""
    for name in _PLANES[1:]:
        plane = getattr(stamp, name)
        if plane is not None and plane.shape != stamp.image.shape:
            raise RecordError(f"its {name} is of {plane.shape}, its image of {stamp.image.shape}")
    if not stamp.image.any():
        raise RecordError("its image is 0 everywhere")
    finite = np.isfinite(stamp.image)
    if not finite.any():
        raise RecordError("its image is NaN everywhere")
    if not finite.all() and np.isinf(stamp.image).any():
        raise RecordError("its image has infinite pixels")
    return stamp


def _scaled(stamp: Stamp) -> Stamp:
    """In counts of zero point 27."""
    if abs(stamp.zero_point - ZERO_POINT) < 1e-9:
        return stamp
    factor = 10 ** ((ZERO_POINT - stamp.zero_point) / 2.5)
    variance = None if stamp.variance is None else stamp.variance * np.float32(factor**2)
    return replace(stamp, image=stamp.image * np.float32(factor), variance=variance)
