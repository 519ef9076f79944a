"""What the simulated archive of Hyper Suprime-Cam shows: the protocol of a sky, windows of its tracts, FITS like its own.

    sky = BlobSky(galaxies=20)                      # or any other `Sky`
    where = window(ra, dec, sw=10 / 3600, sh=10 / 3600)
    data = stamp_bytes(sky, "i", where, planes=("image", "mask"))

Windows are those of the real service: `tests/testing/test_hsc_sky.py` has it repeat six of its answers, card by card.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from skyset.archives.hsc_skymap import CENTRE, patch_at, tract_at, tract_centre

if TYPE_CHECKING:
    from astropy.wcs import WCS

BANDS = "grizy"
FILTERS = {f"HSC-{band.upper()}": band for band in BANDS}
RERUNS = (
    "pdr2_wide",
    "pdr2_dud",
    "pdr2_cosmos_wide_depth_best",
    "pdr2_cosmos_wide_depth_median",
    "pdr2_cosmos_wide_depth_worst",
)
PLANES = ("image", "mask", "variance")
FLUXMAG0 = 63095734448.0194  # the flux of magnitude 0: zero point 27
#: Names of the mask's bits (hscPipe).
MASK_BITS = {
    "BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "EDGE": 4, "DETECTED": 5, "DETECTED_NEGATIVE": 6, "SUSPECT": 7, "NO_DATA": 8,
    "BRIGHT_OBJECT": 9, "CROSSTALK": 10, "NOT_DEBLENDED": 11, "UNMASKEDNAN": 12, "REJECTED": 13, "CLIPPED": 14,
    "SENSOR_EDGE": 15, "INEXACT_PSF": 16,
}  # fmt: skip

_CD = (-4.666666666663e-05, 4.66666666666382e-05)  # degrees a pixel, as the real files have them
_BLOCK, _CARD = 2880, 80

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


class Sky(Protocol):
    """What a simulated archive shows. Methods are called from several threads at once."""

    def catalogue(self) -> dict[str, np.ndarray]:
        """The SQL's columns, one row an object, also rows that the cuts take away.

        ``object_id`` int64, ``ra``, ``dec``, ``skymap_id``, ``coord``, ``specz_*``, ``{b}_cmodel_mag``,
        ``{b}_cmodel_magsigma``; angles in ICRS degrees.
        """

    def render(self, band: str, wcs: WCS, shape: tuple[int, int]) -> Planes | None:
        """Pixels of a window: image float32 (zero point 27), mask int32, variance float32, each of ``shape`` (y, x).

        Args:
            band: one of g, r, i, z, y.
            wcs: of the window, TAN; `target_of` gives the position that was asked for, at its middle.
            shape: rows and columns.

        Returns:
            None: no data there.
        """

    def psf(self, band: str, ra: float, dec: float) -> np.ndarray | None:
        """The point spread function at a position: float64, sum 1, about 41 x 41; None: no data there."""


@dataclass(frozen=True)
class Window:
    """A part of a tract: ``x, y`` is its first pixel, counted from 0 in the tract."""

    tract: int
    x: int
    y: int
    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def wcs(self) -> WCS:
        """Its WCS: TAN at the tract's centre."""
        return tract_wcs(self.tract, self.x, self.y)

    @property
    def patch(self) -> tuple[int, int]:
        """The patch at its middle."""
        return patch_at(self.x + self.width / 2, self.y + self.height / 2)


def tract_wcs(tract: int, x: int = 0, y: int = 0) -> WCS:
    """The WCS of a tract's pixels from this one on."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = tract_centre(tract)
    wcs.wcs.crpix = (CENTRE + 1 - x, CENTRE + 1 - y)
    wcs.wcs.cd = [[_CD[0], 0], [0, _CD[1]]]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def window(ra: float, dec: float, sw: float, sh: float, tract: int | None = None) -> Window:
    """The window that the service cuts out for a position: the box between two corners, each rounded to a pixel.

    Corners are at ``(ra - sw / cos dec, dec - sh)`` and ``(ra + sw / cos dec, dec + sh)``; tracts whose north is turned
    against that of the position therefore give a pixel more or less.

    Args:
        ra, dec: ICRS degrees.
        sw, sh: **half** of its width and height, degrees.
        tract: None: the one in which the position is.
    """
    tract = tract_at(ra, dec) if tract is None else tract
    wide = sw / math.cos(math.radians(dec))
    corners = [(ra - wide, dec - sh), (ra + wide, dec + sh)]
    pixels = tract_wcs(tract).all_world2pix(corners, 0)
    (left, low), (right, high) = np.sort(np.floor(pixels + 0.5).astype(int), axis=0).tolist()
    return Window(tract, left, low, right - left + 1, high - low + 1)


def target_of(wcs: WCS, shape: tuple[int, int]) -> tuple[float, float]:
    """The position at the middle of a window, ICRS degrees: within a pixel of the one that was asked for."""
    ra, dec = wcs.all_pix2world([[(shape[1] - 1) / 2, (shape[0] - 1) / 2]], 0)[0].tolist()
    return ra, dec


# --- FITS ---------------------------------------------------------------------------------------------------


def stamp_bytes(sky: Sky, band: str, where: Window, planes: Iterable[str] = ("image",)) -> bytes | None:
    """A cutout as the service sends it; None: no data there."""
    rendered = sky.render(band, where.wcs, where.shape)
    return None if rendered is None else cutout_fits(band, where, rendered, planes)


def cutout_fits(
    band: str,
    where: Window,
    rendered: Sequence[np.ndarray],
    planes: Iterable[str] = ("image",),
    fluxmag0: float = FLUXMAG0,
    background: tuple[float, float, float] = (0.0127070078343629, 0.000134410888000884, 1.16067850592502),
    archive: int = 2943,
) -> bytes:
    """Four HDUs always, big-endian, without EXTNAME; a plane that was not asked for is an empty one.

    Args:
        band: becomes FILTER.
        where: the window.
        rendered: image, mask, variance.
        planes: those asked for.
        fluxmag0: of the image's zero point.
        background: BGMEAN, BGVAR and variance_scale of the patch.
        archive: the first of the numbers that lead into the patch's tables, which a cutout lacks.
    """
    hdus = [_primary(band, where.patch, fluxmag0, background, archive)]
    for name, kind, pixels in zip(PLANES, (">f4", ">i4", ">f4"), rendered, strict=True):
        if name not in set(planes):
            hdus.append(_header(_card("XTENSION", "'IMAGE   '", "Image extension"), *_sizes(8, ()), *_COUNTS))
            continue
        bits = 32 if kind == ">i4" else -32
        cards = [_card("XTENSION", "'IMAGE   '", "Image extension"), *_sizes(bits, where.shape), *_COUNTS]
        cards += [*_wcs_cards(where), _card("INHERIT", "T"), _card("EXTTYPE", f"'{name.upper():<8}'")]
        if name == "mask":
            cards += [_card(f"MP_{bit}", str(place)) for bit, place in MASK_BITS.items()]
        data = np.ascontiguousarray(pixels, kind).tobytes()
        hdus.append(_header(*cards, *_pixel_cards(where)) + data + bytes(-len(data) % _BLOCK))
    return b"".join(hdus)


def _primary(
    band: str, patch: tuple[int, int], fluxmag0: float, background: tuple[float, float, float], archive: int
) -> bytes:
    mean, variance, scale = map(_number, background)
    column, row = patch
    return _header(
        _card("SIMPLE", "T", "conforms to FITS standard"),
        _card("BITPIX", "8", "array data type"),
        _card("NAXIS", "0", "number of array dimensions"),
        _card("EXTEND", "T"),
        "COMMENT   FITS (Flexible Image Transport System) format is defined in 'Astronomy",
        "COMMENT   and Astrophysics', volume 376, page 359; bibcode: 2001A&A...376..359H",
        "COMMENT DAS Cutout version 200424",
        _card("variance_scale", scale),
        _card("BGMEAN", mean),
        _card("BGVAR", variance),
        _card("AR_HDU", "5", "HDU (1-indexed) containing the archive used to"),
        _card("COADD_INPUTS_ID", "1", "archive ID for coadd inputs catalogs"),
        _card("AP_CORR_MAP_ID", str(archive), "archive ID for aperture correction map"),
        _card("PSF_ID", str(archive + 48), "archive ID for the Exposure's main Psf"),
        _card("SKYWCS_ID", str(archive + 2), "archive ID for the Exposure's main Wcs"),
        _card("TRANSMISSION_CURVE_ID", str(archive + 50), "archive ID for the Exposure's transmissi"),
        _card("FILTER", f"'{band:<8}'"),
        _card("FLUXMAG0", _number(fluxmag0), "AB mag = 2.5*log(fluxMag0/flux)"),
        _card(f"SRC_FLUXMAG0_{column}_{row}", _number(fluxmag0), f"fluxMag0 of source patch {column},{row}"),
        _card(f"SRC_FLUXMAG0ERR_{column}_{row}", "0.0", f"fluxMag0Err of src patch {column},{row}"),
    )


def _sizes(bits: int, shape: tuple[int, ...]) -> list[str]:
    axes = [_card(f"NAXIS{axis}", str(length)) for axis, length in enumerate(reversed(shape), 1)]
    count = _card("NAXIS", str(len(shape)), "number of array dimensions")
    return [_card("BITPIX", str(bits), "array data type"), count, *axes]


def _wcs_cards(where: Window) -> list[str]:
    (ra, dec), x, y = tract_centre(where.tract), CENTRE + 1 - where.x, CENTRE + 1 - where.y
    return [
        _card("WCSAXES", "2", "Number of WCS axes"),
        _card("CRPIX1", _number(x), "Reference pixel on axis 1"),
        _card("CRPIX2", _number(y), "Reference pixel on axis 2"),
        _card("CRVAL1", _number(ra), "Value at ref. pixel on axis 1"),
        _card("CRVAL2", _number(dec), "Value at ref. pixel on axis 2"),
        _card("CTYPE1", "'RA---TAN'", "Type of co-ordinate on axis 1"),
        _card("CTYPE2", "'DEC--TAN'", "Type of co-ordinate on axis 2"),
        _card("CD1_1", _number(_CD[0]), "Transformation matrix element"),
        _card("CD2_2", _number(_CD[1]), "Transformation matrix element"),
        _card("MJD-OBS", "51544.4992571308", "Modified Julian Date of observation"),
        _card("DATE-OBS", "'2000-01-01T11:58:55.816'", "Date of observation"),
        _card("RADESYS", "'ICRS    '", "Reference frame for RA/DEC values"),
        _card("LTV1", _number(-where.x)),
        _card("LTV2", _number(-where.y)),
    ]


def _pixel_cards(where: Window) -> list[str]:
    """The alternate WCS ``A``: pixels of the tract."""
    return [
        _card("CTYPE1A", "'LINEAR  '", "Type of projection"),
        _card("CTYPE2A", "'LINEAR  '", "Type of projection"),
        _card("CRPIX1A", "1.0", "Column Pixel Coordinate of Reference"),
        _card("CRPIX2A", "1.0", "Row Pixel Coordinate of Reference"),
        _card("CRVAL1A", _number(where.x), "Column pixel of Reference Pixel"),
        _card("CRVAL2A", _number(where.y), "Row pixel of Reference Pixel"),
        _card("CUNIT1A", "'PIXEL   '", "Column unit"),
        _card("CUNIT2A", "'PIXEL   '", "Row unit"),
    ]


def _number(value: float) -> str:
    """As the service writes reals: at most 15 digits, never without a point."""
    text = f"{float(value):.15G}"
    return text if "." in text or "E" in text else f"{text}.0"


def _card(keyword: str, value: str, comment: str = "") -> str:
    """One card; keywords that are longer than eight letters or have small ones are ESO's HIERARCH."""
    if len(keyword) > 8 or not keyword.isupper():
        text = f"HIERARCH {keyword} = {value}"
    else:
        text = f"{keyword:<8}= " + (f"{value:<20}" if value.startswith("'") else f"{value:>20}")
    return f"{text} / {comment}"[:_CARD] if comment else text


def _header(*cards: str) -> bytes:
    text = "".join(f"{card:<{_CARD}}" for card in (*cards, "END"))
    return text.ljust(-(-len(text) // _BLOCK) * _BLOCK).encode("ascii")


_COUNTS = [_card("PCOUNT", "0", "number of parameters"), _card("GCOUNT", "1", "number of groups")]


def psf_fits(psf: np.ndarray, ra: float, dec: float, tract: int) -> bytes:
    """A PSF as the PSF picker sends it: one HDU of float64; where it is in the tract says the WCS ``A``.

    Args:
        psf: (h, w).
        ra, dec: ICRS degrees.
        tract: in whose pixels its place is given.
    """
    x, y = np.floor(tract_wcs(tract).all_world2pix([[ra, dec]], 0)[0] + 0.5).astype(int).tolist()
    height, width = psf.shape
    corner = Window(tract, x - width // 2, y - height // 2, width, height)
    start = [_card("SIMPLE", "T", "conforms to FITS standard"), *_sizes(-64, psf.shape), _card("EXTEND", "T")]
    data = np.ascontiguousarray(psf, ">f8").tobytes()
    return _header(*start, *_pixel_cards(corner)) + data + bytes(-len(data) % _BLOCK)
