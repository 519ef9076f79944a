"""Positions and shapes on the sky of what was measured in pixels.

Source: SExtractor manual, "Measurements": WORLD coordinates are those of the image's WCS, SKY its native celestial system,
J2000 that system turned to FK5 at equinox J2000 (ICRS is taken as J2000: they differ by less than 0.1 arcsec).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.wcs import WCS


def world_columns(measured: Mapping[str, np.ndarray], wcs: WCS, windowed: bool) -> dict[str, np.ndarray]:
    """All columns of the stage ``world``, float64 (rows,), degrees; the windowed ones only where ``windowed``."""
    x, y = measured["X_IMAGE_DBL"] - 1, measured["Y_IMAGE_DBL"] - 1
    lon, lat = _sky(wcs, x, y)
    alpha, delta = _j2000(wcs, lon, lat)
    jacobian = _jacobian(wcs, x, y)
    a, b, theta = _on_sky(jacobian, *(measured[name] for name in ("X2_IMAGE", "Y2_IMAGE", "XY_IMAGE")))
    area = np.abs(np.linalg.det(jacobian)) if len(x) else np.zeros(0)
    out = {
        "X_WORLD": lon, "Y_WORLD": lat, "ALPHA_SKY": lon, "DELTA_SKY": lat, "ALPHA_J2000": alpha, "DELTA_J2000": delta,
        "A_WORLD": a, "B_WORLD": b, "THETA_J2000": _to_j2000(wcs, lon, lat, theta),
        "FWHM_WORLD": measured["FWHM_IMAGE"] * np.sqrt(area), "ISOAREA_WORLD": measured["ISOAREA_IMAGE"] * area,
    }  # fmt: skip
    if windowed:
        x, y = measured["XWIN_IMAGE"] - 1, measured["YWIN_IMAGE"] - 1
        lon, lat = _sky(wcs, x, y)
        alpha, delta = _j2000(wcs, lon, lat)
        errors = (measured[name] for name in ("ERRX2WIN_IMAGE", "ERRY2WIN_IMAGE", "ERRXYWIN_IMAGE"))
        a, b, theta = _on_sky(_jacobian(wcs, x, y), *errors)
        out |= {
            "XWIN_WORLD": lon, "YWIN_WORLD": lat, "ALPHAWIN_J2000": alpha, "DELTAWIN_J2000": delta,
            "ERRAWIN_WORLD": a, "ERRBWIN_WORLD": b, "ERRTHETAWIN_J2000": _to_j2000(wcs, lon, lat, theta),
        }  # fmt: skip
    return out


def _sky(wcs: WCS, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(x):
        return np.zeros(0), np.zeros(0)
    lon, lat = wcs.all_pix2world(x, y, 0)
    return lon % 360.0, lat


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
    from astropy.coordinates import FK5
    from astropy.coordinates import SkyCoord

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
