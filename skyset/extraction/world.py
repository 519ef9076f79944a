"""Positions and shapes on the sky of what was measured in pixels, and the sky of an image's header.

Source: SExtractor manual, "Measurements": WORLD coordinates are those of the image's WCS, SKY its native celestial system,
J2000 that system turned to FK5 at equinox J2000 (ICRS is taken as J2000: they differ by less than 0.1 arcsec).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.wcs import WCS


def celestial_wcs(header: fits.Header) -> WCS | None:
    """The celestial axes of a header's WCS, read as `headers.sky` says; None where it has none that is understood."""
    wcs = _remembered(_celestial_wcs, header)
    return None if wcs is None else wcs.deepcopy()


#: What was worked out of the last headers: an image's is asked for its sky again and again, at 10 ms.
_KNOWN: dict[tuple, Any] = {}
_MOST_KNOWN = 16


def _remembered(work: Callable[[fits.Header], Any], header: fits.Header) -> Any:
    from skyset import headers

    key = work, headers.sky_cards(header)
    if key in _KNOWN:
        return _KNOWN[key]
    made = work(header)
    for oldest in list(_KNOWN)[: len(_KNOWN) + 1 - _MOST_KNOWN]:
        _KNOWN.pop(oldest, None)
    _KNOWN[key] = made
    return made


def _celestial_wcs(header: fits.Header) -> WCS | None:
    from astropy.wcs import WCS

    from skyset import headers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = headers.sky(header)
            wcs = WCS(made) if made is not None else None
            return wcs.celestial if wcs is not None and wcs.has_celestial else None
        except Exception:  # wcslib raises many kinds for headers that are none; an image without WCS can be measured
            return None


def sky_faults(header: fits.Header) -> list[str]:
    """What is wrong with a WCS that a header means to have, a sentence each (`headers.sky_faults`)."""
    return list(_remembered(_sky_faults, header))


def _sky_faults(header: fits.Header) -> list[str]:
    from skyset import headers

    kinds = [str(header.get(f"CTYPE{axis}", "")).strip().upper() for axis in (1, 2)]
    if not any(re.match(r"RA-|DEC-|.LON|.LAT|..LN|..LT", kind) for kind in kinds):
        return []
    faults = headers.sky_faults(header)
    if not faults and celestial_wcs(header) is None:
        faults = ["the header's WCS is not understood: the image has no sky, and its pixel scale is not known"]
    return faults


def pixel_scale(wcs: WCS, shape: tuple[float, float]) -> float:
    """Side of a pixel in arcsec: the root of the area of the pixel at the centre of an image of ``shape`` (rows, columns),
    distortions included, as SExtractor has it; 0 where the WCS has no celestial axes or no sky there."""
    if not wcs.has_celestial:
        return 0.0
    rows, columns = shape
    centre = np.array([columns / 2 - 1]), np.array([rows / 2 - 1])
    try:
        area = abs(float(np.linalg.det(_jacobian(wcs.celestial, *centre)[0])))
    except Exception:  # wcslib raises many kinds for projections that cannot be
        return 0.0
    return math.sqrt(area) * 3600 if math.isfinite(area) else 0.0


def compass(wcs: WCS, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Where north and east (ICRS) are in the middle of an image (rows, columns): unit vectors (x, y) on its pixels.

    None where the WCS has no sky there.
    """
    from astropy import units

    try:
        middle = wcs.pixel_to_world((shape[1] - 1) / 2, (shape[0] - 1) / 2).icrs
        step = pixel_scale(wcs, shape) * units.arcsec
        here = np.array(wcs.world_to_pixel(middle))
        ways = [
            np.array(wcs.world_to_pixel(middle.directional_offset_by(angle * units.deg, step))) - here for angle in (0, 90)
        ]
    except Exception:  # wcslib raises many kinds for projections that cannot be
        return None
    lengths = [np.hypot(*way) for way in ways]
    return tuple(way / length for way, length in zip(ways, lengths, strict=True)) if all(np.isfinite(lengths)) else None


def world_columns(measured: Mapping[str, np.ndarray], wcs: WCS, windowed: Collection[str]) -> dict[str, np.ndarray]:
    """All columns of the stage ``world``, float64 (rows,), degrees; of the windowed ones positions where ``windowed`` names
    any, their errors where it names those."""
    x, y = measured["X_IMAGE_DBL"] - 1, measured["Y_IMAGE_DBL"] - 1
    lon, lat = _sky(wcs, x, y)
    alpha, delta = _j2000(wcs, lon, lat)
    jacobian = _jacobian(wcs, x, y)
    a, b, theta = _on_sky(jacobian, *(measured[name] for name in ("X2_IMAGE", "Y2_IMAGE", "XY_IMAGE")))
    area = np.abs(np.linalg.det(jacobian)) if len(x) else np.zeros(0)
    first, second = _axes(wcs, lon, lat)
    out = {
        "X_WORLD": first,
        "Y_WORLD": second,
        "ALPHA_SKY": lon,
        "DELTA_SKY": lat,
        "ALPHA_J2000": alpha,
        "DELTA_J2000": delta,
        "A_WORLD": a,
        "B_WORLD": b,
        "THETA_J2000": _to_j2000(wcs, lon, lat, theta),
        "FWHM_WORLD": measured["FWHM_IMAGE"] * np.sqrt(area),
        "ISOAREA_WORLD": measured["ISOAREA_IMAGE"] * area,
    }
    if windowed:
        x, y = measured["XWIN_IMAGE"] - 1, measured["YWIN_IMAGE"] - 1
        lon, lat = _sky(wcs, x, y)
        alpha, delta = _j2000(wcs, lon, lat)
        first, second = _axes(wcs, lon, lat)
        out |= {"XWIN_WORLD": first, "YWIN_WORLD": second, "ALPHAWIN_J2000": alpha, "DELTAWIN_J2000": delta}
    if any(name.startswith("ERR") for name in windowed):
        errors = (measured[name] for name in ("ERRX2WIN_IMAGE", "ERRY2WIN_IMAGE", "ERRXYWIN_IMAGE"))
        a, b, theta = _on_sky(_jacobian(wcs, x, y), *errors)
        out |= {"ERRAWIN_WORLD": a, "ERRBWIN_WORLD": b, "ERRTHETAWIN_J2000": _to_j2000(wcs, lon, lat, theta)}
    return out


def _sky(wcs: WCS, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude, 0 to 360, and latitude, whichever comes first in the WCS."""
    if not len(x):
        return np.zeros(0), np.zeros(0)
    lon, lat = _axes(wcs, *wcs.all_pix2world(x, y, 0))
    return lon % 360.0, lat


def _axes(wcs: WCS, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the order of the WCS's axes to longitude and latitude, or back."""
    return (one, other) if wcs.wcs.lng == 0 else (other, one)


def _frame(wcs: WCS):
    """The WCS's celestial frame, or None where it is J2000 already."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    frame = wcs_to_celestial_frame(wcs)
    j2000 = frame.name == "icrs" or (frame.name == "fk5" and abs(frame.equinox.jyear - 2000) < 1e-6)
    return None if j2000 else frame


def _j2000(wcs: WCS, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frame = _frame(wcs)
    if frame is None or not len(lon):
        return lon, lat
    from astropy.coordinates import FK5, SkyCoord

    turned = SkyCoord(lon, lat, unit="deg", frame=frame).transform_to(FK5(equinox="J2000"))
    return turned.ra.deg, turned.dec.deg


def _to_j2000(wcs: WCS, lon: np.ndarray, lat: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Position angles (degrees) of the WCS's system from J2000's north."""
    if _frame(wcs) is None or not len(lon):
        return angle
    step = 1e-4
    alpha, delta = _j2000(wcs, lon, lat)
    north_alpha, north_delta = _j2000(wcs, lon, np.clip(lat + step, -90, 90))
    east = ((north_alpha - alpha + 180) % 360 - 180) * np.cos(np.radians(delta))
    turned = angle + np.degrees(np.arctan2(east, north_delta - delta))
    return (turned + 90) % 180 - 90


def _jacobian(wcs: WCS, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Degrees to the east and to the north of a step of one pixel along x and y, float64 (rows, 2, 2)."""
    out = np.empty((len(x), 2, 2))
    for axis, (dx, dy) in enumerate(((0.5, 0.0), (0.0, 0.5))):
        (lon0, lat0), (lon1, lat1) = _sky(wcs, x - dx, y - dy), _sky(wcs, x + dx, y + dy)
        out[:, 0, axis] = ((lon1 - lon0 + 180) % 360 - 180) * np.cos(np.radians(0.5 * (lat0 + lat1)))
        out[:, 1, axis] = lat1 - lat0
    return out


def _on_sky(jacobian: np.ndarray, x2, y2, xy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axes (degrees) of ellipses on the sky, and the major one's position angle, east of north, -90 to 90."""
    moments = np.stack([np.stack([x2, xy], -1), np.stack([xy, y2], -1)], -2)
    sky = jacobian @ moments @ jacobian.transpose(0, 2, 1)
    east, north, both = sky[:, 0, 0], sky[:, 1, 1], sky[:, 0, 1]
    half, part = 0.5 * (east + north), np.hypot(0.5 * (east - north), both)
    angle = np.degrees(0.5 * np.arctan2(2 * both, north - east))
    return np.sqrt(np.maximum(half + part, 0)), np.sqrt(np.maximum(half - part, 0)), angle
