"""A small sky of Gaussian blobs for tests of the archive of Hyper Suprime-Cam: quick, and every value of it is known."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from skyset.archives.hsc_skymap import PIXEL, patch_at, tract_at
from skyset.testing.hsc_sky import BANDS, Planes, target_of, tract_wcs

if TYPE_CHECKING:
    from astropy.wcs import WCS

NOISE = {"g": 0.015, "r": 0.02, "i": 0.025, "z": 0.04, "y": 0.09}  # zero point 27, a pixel
SEEING = {"g": 0.77, "r": 0.76, "i": 0.58, "z": 0.68, "y": 0.68}  # arcsec, FWHM
DETECTED = 1 << 5


class BlobSky:
    """Elliptical Gaussians at random places of a disc: see `hsc_sky.Sky`.

    Args:
        galaxies: those that every cut leaves.
        seed: of places, shapes, magnitudes and redshifts.
        centre: ICRS degrees.
        radius: of the disc, degrees.
        bad: whether rows follow that cuts take away (one for each cut of GalaxiesML, and twice a repeated object).
        holes: bands that were not observed, by object.

    Attributes:
        table: what `catalogue` gives.
        sigma: of each galaxy along its axes, arcsec, (n, 2).
        angle: from north through east to the first axis, radians, (n,).
    """

    def __init__(
        self,
        galaxies: int = 20,
        seed: int = 0,
        centre: tuple[float, float] = (150.1, 2.2),
        radius: float = 0.3,
        bad: bool = False,
        holes: Mapping[int, str] | None = None,
    ) -> None:
        dice = np.random.default_rng(seed)
        far, around = radius * np.sqrt(dice.random(galaxies)), 2 * np.pi * dice.random(galaxies)
        dec = centre[1] + far * np.sin(around)
        ra = (centre[0] + far * np.cos(around) / np.cos(np.radians(dec))) % 360
        sigma = dice.uniform(0.35, 0.9, galaxies)
        self.sigma = np.stack([sigma, sigma * dice.uniform(0.4, 1, galaxies)], axis=-1)
        self.angle = dice.uniform(0, np.pi, galaxies)
        self.holes = dict(holes or {})
        self.table = _table(ra, dec, dice)
        if bad:
            self._add_bad_rows()

    def catalogue(self) -> dict[str, np.ndarray]:
        """See `hsc_sky.Sky`."""
        return self.table

    def render(self, band: str, wcs: WCS, shape: tuple[int, int]) -> Planes | None:
        """See `hsc_sky.Sky`."""
        near = self._near(*target_of(wcs, shape), 30.0)
        if self._is_hole(band, *target_of(wcs, shape)):
            return None
        name = f"{band} {wcs.wcs.crval.tolist()} {wcs.wcs.crpix.tolist()} {shape}"
        dice = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
        image = np.zeros(shape)
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        for index in near:
            (x, y), angle = self._pixel(index, wcs), self.angle[index]
            along, across = np.hypot(self.sigma[index], SEEING[band] / 2.355) / PIXEL
            north, west = rows - y, columns - x
            u, v = north * math.cos(angle) - west * math.sin(angle), north * math.sin(angle) + west * math.cos(angle)
            flux = 10 ** ((27 - self.table[f"{band}_cmodel_mag"][index]) / 2.5)
            image += flux / (2 * np.pi * along * across) * np.exp(-((u / along) ** 2 + (v / across) ** 2) / 2)
        mask = np.where(image > 5 * NOISE[band], DETECTED, 0)
        image += dice.normal(0, NOISE[band], shape)
        return image.astype(np.float32), mask.astype(np.int32), np.full(shape, NOISE[band] ** 2, np.float32)

    def psf(self, band: str, ra: float, dec: float) -> np.ndarray | None:
        """See `hsc_sky.Sky`."""
        if self._is_hole(band, ra, dec):
            return None
        rows, columns = np.mgrid[-20:21, -20:21] * PIXEL / (SEEING[band] / 2.355)
        psf = np.exp(-(rows**2 + columns**2) / 2)
        return psf / psf.sum()

    def _near(self, ra: float, dec: float, arcsec: float) -> list[int]:
        """The galaxies around a position."""
        east = ((self.table["ra"] - ra + 180) % 360 - 180) * math.cos(math.radians(dec))
        far = np.hypot(east, self.table["dec"] - dec)[: len(self.angle)]
        return np.flatnonzero(far < arcsec / 3600).tolist()

    def _is_hole(self, band: str, ra: float, dec: float) -> bool:
        return any(band in self.holes.get(int(self.table["object_id"][index]), "") for index in self._near(ra, dec, 1.0))

    def _pixel(self, index: int, wcs: WCS) -> tuple[float, float]:
        x, y = wcs.all_world2pix([[self.table["ra"][index], self.table["dec"][index]]], 0)[0].tolist()
        return x, y

    def _add_bad_rows(self) -> None:
        changes: list[dict] = [
            {"specz_flag_homogeneous": False},
            {"specz_redshift": 0.005},
            {"specz_redshift_err": 0.5},
            {"specz_mag_i": 29.0},
            {"y_cmodel_mag": math.nan},
            {"object_id": int(self.table["object_id"][0]) + 90_000, "specz_name": self.table["specz_name"][0]},
            {"specz_name": "again-1"},
            {"specz_name": "again-2"},
        ]
        count = len(self.angle)
        table = {name: np.concatenate([values, values[[0] * len(changes)]]) for name, values in self.table.items()}
        for place, change in enumerate(changes, count):
            table["object_id"][place] += 50_000 + min(place - count, 6)  # the last two are one object
            for name, value in {"specz_name": f"bad-{place}", **change}.items():
                table[name][place] = value
        self.table = table


def _table(ra: np.ndarray, dec: np.ndarray, dice: np.random.Generator) -> dict[str, np.ndarray]:
    """The catalogue's columns of galaxies at these positions."""
    count = len(ra)
    tracts = np.array([tract_at(*place) for place in zip(ra, dec, strict=True)], np.int64)
    patches = np.array([_patch(*place) for place in zip(tracts.tolist(), ra, dec, strict=True)], np.int64).reshape(-1, 2)
    redshift, bright = dice.uniform(0.05, 1.5, count), dice.uniform(18.5, 21.5, count)
    east, north = np.radians(ra), np.radians(dec)
    vectors = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=-1)
    table = {
        "object_id": (tracts << 42) + (patches @ [9 << 34, 1 << 34]) + np.arange(count),
        "specz_redshift_err": np.full(count, 1e-4),
        "specz_redshift": redshift,
        "specz_mag_i": bright,
        "specz_name": np.array([f"blob-{number:05d}" for number in range(count)], "U40"),
        "specz_ra": ra,
        "specz_dec": dec,
        "specz_flag_homogeneous": np.ones(count, bool),
        "ra": ra,
        "dec": dec,
        "coord": np.array([f"({x:.15f}, {y:.15f}, {z:.15f})" for x, y, z in vectors], "U80"),
        "skymap_id": tracts * 10_000 + patches @ [100, 1],
    }
    for place, band in enumerate(BANDS):
        table[f"{band}_cmodel_mag"] = (bright + (2 - place) * 0.4 * redshift).astype(np.float32)
    for band in BANDS:
        table[f"{band}_cmodel_magsigma"] = np.full(count, 0.01, np.float32)
    return table


def _patch(tract: int, ra: float, dec: float) -> tuple[int, int]:
    wcs = tract_wcs(tract)
    x, y = wcs.all_world2pix([[ra, dec]], 0)[0].tolist()
    return patch_at(x, y)
