"""Addresses of cutouts: hips2fits, the CDS service that renders any part of a HiPS as a small image.

url = hips2fits_url(SERVICE, "CDS/P/DSS2/color", ra=202.47, dec=47.2, fov=field_of_view(radius_arcsec=300))
"""

from __future__ import annotations

import math
from urllib.parse import urlencode, urlsplit

from skyset.errors import UserError
from skyset.pixels import MAX_PIXELS

SERVICE = "https://alasky.cds.unistra.fr/hips-image-services/hips2fits"
MIRROR = "https://alaskybis.cds.unistra.fr/hips-image-services/hips2fits"
FORMATS = ("jpg", "png", "fits")


def field_of_view(radius_arcsec: float, margin: float = 0.25) -> float:
    """Side in degrees of a square cutout that holds a circle of ``radius_arcsec``, with ``margin`` (a share) around it.

    Raises:
        ValueError: the radius is not a positive number, or the margin a negative one.
    """
    if not (math.isfinite(radius_arcsec) and radius_arcsec > 0):
        raise ValueError(f"a radius of {radius_arcsec} arcsec")
    if not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"a margin of {margin}")
    return 2 * float(radius_arcsec) * (1 + margin) / 3600


def hips2fits_url(
    base: str,
    hips: str,
    ra: float,
    dec: float,
    fov: float,
    width: int = 64,
    height: int = 64,
    format: str = "jpg",
    projection: str = "TAN",
) -> str:
    """The address of one cutout; equal arguments give equal text, so that it can serve as a key.

    Args:
        base: address of the service, such as `SERVICE` or `MIRROR`.
        hips: identifier of the HiPS, such as ``CDS/P/DSS2/color``.
        ra, dec: centre, ICRS degrees.
        fov: size of the longer side, degrees.
        width, height: pixels.
        format: one of `FORMATS`.
        projection: its FITS code.

    Raises:
        UserError: the service's address, the HiPS, the format, the projection or the size cannot be used.
        ValueError: the position or the field of view is not one on the sky.
    """
    _check_service(base, hips, width, height, format, projection)
    if not (math.isfinite(ra) and 0 <= ra <= 360 and math.isfinite(dec) and -90 <= dec <= 90):
        raise ValueError(f"no position on the sky: ra {ra}, dec {dec}")
    if not (math.isfinite(fov) and 0 < fov <= 360):
        raise ValueError(f"a field of view of {fov} degrees")
    query = {
        "hips": hips,
        "width": int(width),
        "height": int(height),
        "projection": projection,
        "fov": repr(float(fov)),
        "ra": repr(float(ra)),
        "dec": repr(float(dec)),
        "coordsys": "icrs",
        "format": format,
    }
    return f"{base}?{urlencode(query)}"


def _check_service(base: str, hips: str, width: int, height: int, format: str, projection: str) -> None:
    address = urlsplit(base)
    if address.scheme not in ("http", "https") or not address.hostname or address.query or address.fragment:
        raise UserError(f"not the address of a hips2fits service: {base!r}")
    if not hips or hips != hips.strip():
        raise UserError(f"not the name of a HiPS: {hips!r}")
    if format not in FORMATS:
        raise UserError(f"no such image format: {format!r} (known: {', '.join(FORMATS)})")
    if not (projection.isascii() and projection.isalpha() and len(projection) == 3):
        raise UserError(f"not a projection's code: {projection!r}")
    if int(width) != width or int(height) != height or min(width, height) < 1 or width * height > MAX_PIXELS:
        raise UserError(f"an image of {width} x {height} pixels")
