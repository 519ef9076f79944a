"""The quantities that can be measured, in one table: SExtractor's names, dtypes and units, and what each one means.

Names, units and meanings are those of the SExtractor manual (https://sextractor.readthedocs.io, chapters "Measurements"
and "The measurement parameter file"); dtypes are those of its FITS catalogues.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from skyset.errors import UserError

#: What has to be worked out before a column is known; each stage costs time and is done only for columns that want it.
STAGES = ("isophote", "window", "aperture", "kron", "petrosian", "radius", "classifier", "world", "vignet", "external")


@dataclass(frozen=True)
class Quantity:
    """One measured quantity. ``repeat``: what a row's vector runs over (``apertures``, ``fractions``, ``vignet``)."""

    name: str
    dtype: str
    unit: str
    meaning: str
    stage: str
    repeat: str = ""
    #: As the ASCII catalogues print it.
    format: str = "%11.4f"


def _parse(text: str, stage: str) -> Iterable[Quantity]:
    for line in text.strip().splitlines():
        name, dtype, unit, form, meaning = (part.strip() for part in line.split("|"))
        repeat = {"FLUX_RADIUS": "fractions", "VIGNET": "vignet"}.get(name, "apertures" if name.endswith("_APER") else "")
        yield Quantity(name, dtype, unit, meaning, stage, repeat, form)


_ISOPHOTE = """
NUMBER          | i4 |                 | %10d    | running number, from 1 in each extension
EXT_NUMBER      | i2 |                 | %3d     | number of the extension among those with an image, from 1
X_IMAGE         | f4 | pix             | %11.4f  | barycentre along x, first pixel's centre is 1
Y_IMAGE         | f4 | pix             | %11.4f  | barycentre along y
X_IMAGE_DBL     | f8 | pix             | %11.4f  | barycentre along x, double precision
Y_IMAGE_DBL     | f8 | pix             | %11.4f  | barycentre along y, double precision
XMIN_IMAGE      | i4 | pix             | %10d    | least x of pixels above the detection threshold
YMIN_IMAGE      | i4 | pix             | %10d    | least y of pixels above the detection threshold
XMAX_IMAGE      | i4 | pix             | %10d    | greatest x of pixels above the detection threshold
YMAX_IMAGE      | i4 | pix             | %10d    | greatest y of pixels above the detection threshold
XPEAK_IMAGE     | i4 | pix             | %10d    | x of the brightest pixel
YPEAK_IMAGE     | i4 | pix             | %10d    | y of the brightest pixel
X2_IMAGE        | f8 | pix2            | %18.10e | variance along x
Y2_IMAGE        | f8 | pix2            | %18.10e | variance along y
XY_IMAGE        | f8 | pix2            | %18.10e | covariance of x and y
CXX_IMAGE       | f4 | pix-2           | %15.7e  | ellipse: Cxx x^2 + Cyy y^2 + Cxy x y = R^2
CYY_IMAGE       | f4 | pix-2           | %15.7e  | the same
CXY_IMAGE       | f4 | pix-2           | %15.7e  | the same
A_IMAGE         | f4 | pix             | %9.3f   | rms of the profile along the major axis
B_IMAGE         | f4 | pix             | %9.3f   | rms of the profile along the minor axis
THETA_IMAGE     | f4 | deg             | %6.2f   | position angle of the major axis, from +x towards +y, -90 to 90
ELONGATION      | f4 |                 | %8.3f   | A_IMAGE / B_IMAGE
ELLIPTICITY     | f4 |                 | %8.3f   | 1 - B_IMAGE / A_IMAGE
POLAR_IMAGE     | f4 |                 | %7.5f   | (A^2 - B^2) / (A^2 + B^2)
ERRX2_IMAGE     | f8 | pix2            | %18.10e | variance of the barycentre along x
ERRY2_IMAGE     | f8 | pix2            | %18.10e | variance of the barycentre along y
ERRXY_IMAGE     | f8 | pix2            | %18.10e | covariance of the barycentre's x and y
ERRA_IMAGE      | f4 | pix             | %9.5f   | rms error of the position along its major axis
ERRB_IMAGE      | f4 | pix             | %9.5f   | rms error of the position along its minor axis
ERRTHETA_IMAGE  | f4 | deg             | %6.2f   | position angle of the error ellipse, from +x towards +y
ISOAREA_IMAGE   | i4 | pix2            | %9d     | pixels above the analysis threshold
ISOAREAF_IMAGE  | i4 | pix2            | %9d     | pixels above the detection threshold, on the filtered image
ISO0            | i4 | pix2            | %8d     | isophotal area at level 0, the analysis threshold
ISO1            | i4 | pix2            | %8d     | isophotal area at level 1: threshold (peak / threshold)^(1/8)
ISO2            | i4 | pix2            | %8d     | isophotal area at level 2
ISO3            | i4 | pix2            | %8d     | isophotal area at level 3
ISO4            | i4 | pix2            | %8d     | isophotal area at level 4
ISO5            | i4 | pix2            | %8d     | isophotal area at level 5
ISO6            | i4 | pix2            | %8d     | isophotal area at level 6
ISO7            | i4 | pix2            | %8d     | isophotal area at level 7
FWHM_IMAGE      | f4 | pix             | %8.2f   | full width at half maximum of a Gaussian core
FLUX_ISO        | f4 | ct              | %12.7g  | isophotal flux
FLUXERR_ISO     | f4 | ct              | %12.7g  | rms error of FLUX_ISO
MAG_ISO         | f4 | mag             | %8.4f   | isophotal magnitude
MAGERR_ISO      | f4 | mag             | %8.4f   | rms error of MAG_ISO
FLUX_MAX        | f4 | ct              | %12.7g  | peak above the background
MU_MAX          | f4 | mag.arcsec-2    | %8.4f   | surface brightness of the peak
BACKGROUND      | f4 | ct              | %12.7g  | background of the image at the barycentre, whatever BACK_TYPE MANUAL subtracts
THRESHOLD       | f4 | ct              | %12.7g  | detection threshold above the background
MU_THRESHOLD    | f4 | mag.arcsec-2    | %8.4f   | analysis threshold as surface brightness
FLAGS           | i2 |                 | %3d     | 1 neighbours, 2 deblended, 4 saturated, 8 cut by the border, 16 aperture incomplete, 32 isophote incomplete, 64 and 128 (overflows) do not occur
"""  # noqa: E501

_WINDOW = """
XWIN_IMAGE      | f8 | pix             | %11.4f  | Gaussian-windowed centre along x
YWIN_IMAGE      | f8 | pix             | %11.4f  | Gaussian-windowed centre along y
X2WIN_IMAGE     | f8 | pix2            | %18.10e | Gaussian-windowed variance along x
Y2WIN_IMAGE     | f8 | pix2            | %18.10e | Gaussian-windowed variance along y
XYWIN_IMAGE     | f8 | pix2            | %18.10e | Gaussian-windowed covariance
AWIN_IMAGE      | f4 | pix             | %9.3f   | windowed rms along the major axis
BWIN_IMAGE      | f4 | pix             | %9.3f   | windowed rms along the minor axis
THETAWIN_IMAGE  | f4 | deg             | %6.2f   | windowed position angle, from +x towards +y
ERRX2WIN_IMAGE  | f8 | pix2            | %18.10e | variance of the windowed centre along x
ERRY2WIN_IMAGE  | f8 | pix2            | %18.10e | variance of the windowed centre along y
ERRXYWIN_IMAGE  | f8 | pix2            | %18.10e | covariance of the windowed centre's x and y
ERRAWIN_IMAGE   | f4 | pix             | %9.5f   | rms error of the windowed centre along its major axis
ERRBWIN_IMAGE   | f4 | pix             | %9.5f   | rms error of the windowed centre along its minor axis
ERRTHETAWIN_IMAGE | f4 | deg           | %6.2f   | position angle of the windowed error ellipse
FLUX_WIN        | f4 | ct              | %12.7g  | Gaussian-weighted flux
FLUXERR_WIN     | f4 | ct              | %12.7g  | rms error of FLUX_WIN
MAG_WIN         | f4 | mag             | %8.4f   | Gaussian-weighted magnitude
MAGERR_WIN      | f4 | mag             | %8.4f   | rms error of MAG_WIN
SNR_WIN         | f4 |                 | %10.4g  | FLUX_WIN / FLUXERR_WIN
FLAGS_WIN       | i2 |                 | %3d     | 1 moments inconsistent, 2 not above 0, 4 no flux, 8 isophotal instead
"""

_APERTURE = """
FLUX_APER       | f4 | ct              | %12.7g  | flux in circular apertures
FLUXERR_APER    | f4 | ct              | %12.7g  | rms errors of FLUX_APER
MAG_APER        | f4 | mag             | %8.4f   | magnitudes in circular apertures
MAGERR_APER     | f4 | mag             | %8.4f   | rms errors of MAG_APER
"""

_KRON = """
KRON_RADIUS     | f4 |                 | %5.2f   | Kron radius, in units of A_IMAGE or B_IMAGE
FLUX_AUTO       | f4 | ct              | %12.7g  | flux in the Kron ellipse
FLUXERR_AUTO    | f4 | ct              | %12.7g  | rms error of FLUX_AUTO
MAG_AUTO        | f4 | mag             | %8.4f   | Kron magnitude
MAGERR_AUTO     | f4 | mag             | %8.4f   | rms error of MAG_AUTO
"""

_PETROSIAN = """
PETRO_RADIUS    | f4 |                 | %5.2f   | Petrosian radius, in units of A_IMAGE or B_IMAGE
FLUX_PETRO      | f4 | ct              | %12.7g  | flux in the Petrosian ellipse
FLUXERR_PETRO   | f4 | ct              | %12.7g  | rms error of FLUX_PETRO
MAG_PETRO       | f4 | mag             | %8.4f   | Petrosian magnitude
MAGERR_PETRO    | f4 | mag             | %8.4f   | rms error of MAG_PETRO
"""

_RADIUS = """
FLUX_RADIUS     | f4 | pix             | %10.3f  | radii of circles with given fractions of FLUX_AUTO
"""

_CLASSIFIER = """
CLASS_STAR      | f4 |                 | %6.3f   | probability of a star, from 0 (galaxy) to 1
"""

_WORLD = """
X_WORLD         | f8 | deg             | %18.10e | barycentre along the first world axis
Y_WORLD         | f8 | deg             | %18.10e | barycentre along the second world axis
ALPHA_SKY       | f8 | deg             | %11.7f  | right ascension, native system
DELTA_SKY       | f8 | deg             | %+11.7f | declination, native system
ALPHA_J2000     | f8 | deg             | %11.7f  | right ascension, J2000
DELTA_J2000     | f8 | deg             | %+11.7f | declination, J2000
XWIN_WORLD      | f8 | deg             | %18.10e | windowed centre along the first world axis
YWIN_WORLD      | f8 | deg             | %18.10e | windowed centre along the second world axis
ALPHAWIN_J2000  | f8 | deg             | %11.7f  | windowed right ascension, J2000
DELTAWIN_J2000  | f8 | deg             | %+11.7f | windowed declination, J2000
ERRAWIN_WORLD   | f4 | deg             | %12.7g  | rms error of the windowed centre along its major axis
ERRBWIN_WORLD   | f4 | deg             | %12.7g  | rms error of the windowed centre along its minor axis
ERRTHETAWIN_J2000 | f4 | deg           | %6.2f   | position angle of the windowed error ellipse, east of north
A_WORLD         | f4 | deg             | %12.7g  | rms of the profile along the major axis
B_WORLD         | f4 | deg             | %12.7g  | rms of the profile along the minor axis
THETA_J2000     | f4 | deg             | %6.2f   | position angle of the major axis, east of north
FWHM_WORLD      | f4 | deg             | %12.7g  | full width at half maximum of a Gaussian core
ISOAREA_WORLD   | f4 | deg2            | %12.7g  | isophotal area above the analysis threshold
"""

_VIGNET = """
VIGNET          | f4 | ct              | %12.7g  | pixels around the barycentre, less the background; -1e30: none
"""

_EXTERNAL = """
IMAFLAGS_ISO    | i4 |                 | %9u     | flags of the flag image, combined over the isophote
NIMAFLAGS_ISO   | i4 |                 | %9d     | number of flagged pixels of the isophote
"""

#: Every column by name, in the order of the manual's chapters.
COLUMNS: dict[str, Quantity] = {
    column.name: column
    for stage, text in zip(
        STAGES,
        (_ISOPHOTE, _WINDOW, _APERTURE, _KRON, _PETROSIAN, _RADIUS, _CLASSIFIER, _WORLD, _VIGNET, _EXTERNAL),
        strict=True,
    )
    for column in _parse(text, stage)
}

#: What is measured where nothing is said: everything that the two surveys made from sources need.
DEFAULT = [
    "NUMBER",
    "X_IMAGE",
    "Y_IMAGE",
    "A_IMAGE",
    "B_IMAGE",
    "THETA_IMAGE",
    "ELONGATION",
    "ELLIPTICITY",
    "ISOAREA_IMAGE",
    "ISO0",
    "ISO1",
    "ISO2",
    "ISO3",
    "ISO4",
    "ISO5",
    "ISO6",
    "ISO7",
    "FWHM_IMAGE",
    "KRON_RADIUS",
    "FLUX_AUTO",
    "FLUXERR_AUTO",
    "MAG_AUTO",
    "MAGERR_AUTO",
    "FLUX_RADIUS",
    "PETRO_RADIUS",
    "MU_MAX",
    "FLUX_MAX",
    "BACKGROUND",
    "FLAGS",
    "CLASS_STAR",
]
#: Added where there is a WCS.
DEFAULT_WORLD = ["ALPHA_J2000", "DELTA_J2000"]
#: The check images that are made, by CHECKIMAGE_TYPE.
CHECKS = (
    "BACKGROUND",
    "BACKGROUND_RMS",
    "MINIBACKGROUND",
    "MINIBACK_RMS",
    "-BACKGROUND",
    "FILTERED",
    "OBJECTS",
    "-OBJECTS",
    "SEGMENTATION",
    "APERTURES",
)
#: What the SOM of image quality is made from.
IMAGE_QUALITY = ["NUMBER", "X_IMAGE", "Y_IMAGE", "ISO0", "ELONGATION", "ELLIPTICITY", "CLASS_STAR", "BACKGROUND", "FLAGS"]


def check(names: Iterable[str]) -> list[str]:
    """The names, upper case and each once; UserError names those that are not measured here, with near ones."""
    import difflib

    wanted = list(dict.fromkeys(name.upper() for name in names))
    unknown = [name for name in wanted if name not in COLUMNS]
    if unknown:
        near = [
            f"{name} (is {'/'.join(close)} meant?)" if (close := difflib.get_close_matches(name, COLUMNS, 2)) else name
            for name in unknown
        ]
        raise UserError(f"not measured here: {', '.join(near)}")
    if not wanted:
        raise UserError("no columns are wanted: name at least one, such as X_IMAGE")
    return wanted


def split_vector(text: str) -> tuple[str, tuple[int, ...]]:
    """``FLUX_RADIUS(3)`` is ``("FLUX_RADIUS", (3,))``: how a .param file gives the length of a vector.

    Raises UserError where it is no name with or without positive lengths."""
    match = re.fullmatch(r"(\w+)(?:\(\s*(\d+(?:\s*,\s*\d+)*)\s*\))?", text.strip())
    parts = [part.strip() for part in match[2].split(",")] if match and match[2] else []
    lengths = tuple(int(part) for part in parts if len(part) < 10)
    if match is None or len(lengths) < len(parts) or any(length < 1 for length in lengths):
        raise UserError(f"{text[:100]}: neither NAME nor NAME(length)")
    return match[1].upper(), lengths
