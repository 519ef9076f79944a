"""manga: spectra of every point of a galaxy, one HDF5 group an object, its parts tables of compound rows."""

from __future__ import annotations

import numpy as np

from skyset.testing.mmu.galaxies import Camera, take_picture
from skyset.testing.mmu.layout import Layout
from skyset.testing.mmu.lines import galaxy_spectrum, log_wavelengths
from skyset.testing.mmu.rows import Row, Spot

#: Bits that say "do not use": of a spaxel, of a map. What lies beyond the bundle of fibres has them.
SPAXEL_PAD, MAP_PAD = 1024, 1073741824
MAPS = (
    ("spx_mflux", "spx_mflux", "1E-17 erg/s/cm^2/ang/spaxel"),
    ("emline_gflux", "emline_gflux_ha_6564", "1E-17 erg/s/cm^2/spaxel"),
    ("stellar_vel", "stellar_vel", "km/s"),
)
CAMERA = Camera(0.5, 22.5, (2.5, 2.5, 2.5, 2.5), (0.004, 0.004, 0.005, 0.01))
FLUX_UNITS = b"1E-17 erg/s/cm^2/ang/spaxel"


def manga_row(spot: Spot) -> Row:
    """Tables as they are stored: what is beyond the bundle is in them, zero and masked."""
    redshift, side = spot.rng.uniform(0.01, 0.12), spot.side
    bundle = max(4, side // 2 - 2 * int(spot.rng.integers(0, 2)))
    inside = np.pad(np.ones((bundle, bundle), bool), (side - bundle) // 2)
    name = f"{8000 + spot.cell}-{1901 + spot.index}"
    return {
        "object_id": name,
        "ra": np.float64(spot.ra),
        "dec": np.float64(spot.dec),
        "healpix": np.int64(spot.cell),
        "z": np.float64(redshift),
        "spaxel_size": np.float64(0.5),
        "spaxel_size_unit": b"arcsec",
        "spaxels": _spaxels(spot, redshift, inside),
        "images": _images(spot, inside),
        "maps": _maps(spot, inside),
    }


def _spaxels(spot: Spot, redshift: float, inside: np.ndarray) -> np.ndarray:
    rng, side, length = spot.rng, spot.side, spot.length
    pixels, inner = side * side, inside.ravel()
    spectrum = [(name, np.float32, (length,)) for name in ("flux", "ivar")] + [("mask", np.int64, (length,))]
    spectrum += [(name, np.float32, (length,)) for name in ("lsf_sigma", "lambda")]
    numbers = [("x", np.int64), ("y", np.int64), ("spaxel_idx", np.int64), ("flux_units", "S27"), ("lambda_units", "S8")]
    places = [(f"skycoo_{axis}", np.float32) for axis in "xy"]
    places += [(f"ellcoo_{name}", np.float32) for name in ("r", "rre", "rkpc", "theta")]
    units = [("skycoo_units", "S6")] + [(f"ellcoo_{name}_units", "S7") for name in ("r", "rre", "rkpc", "theta")]
    table = np.zeros(pixels, spectrum + numbers + places + units)
    y, x = (axis.ravel() for axis in np.indices((side, side)))
    east, north = (0.5 * (axis - (side - 1) / 2) for axis in (x, y))
    radius = np.hypot(east, north)
    wavelength = log_wavelengths(3622, 10354, length)
    brightness = np.where(inner, np.exp(-radius / (0.12 * side)), 0)[:, None]
    flux = 0.1 * galaxy_spectrum(rng, wavelength, redshift)[None, :] * brightness
    table["flux"] = np.where(inner[:, None], flux + 0.02 * rng.standard_normal(flux.shape, np.float32), 0)
    table["ivar"] = np.where(inner, 2500, 0)[:, None]
    table["mask"] = np.where(inner, 0, SPAXEL_PAD)[:, None]
    table["lsf_sigma"] = np.where(inner, 1.1, 0)[:, None]
    table["lambda"] = wavelength
    table["x"], table["y"], table["spaxel_idx"] = x, y, np.arange(pixels)
    table["flux_units"], table["lambda_units"], table["skycoo_units"] = FLUX_UNITS, b"Angstrom", b"arcsec"
    for name, values in (("x", east), ("y", north)):
        table[f"skycoo_{name}"] = np.where(inner, values, 0)
    for name, values, unit in (
        ("r", radius, b"arcsec"),
        ("rre", radius / (0.1 * side), b""),
        ("rkpc", radius * 4.3e3 * redshift / 206.265, b"kpc/h"),
        ("theta", np.degrees(np.arctan2(north, east)) % 360, b"degrees"),
    ):
        table[f"ellcoo_{name}"], table[f"ellcoo_{name}_units"] = np.where(inner, values, 0), unit
    return table


def _images(spot: Spot, inside: np.ndarray) -> np.ndarray:
    side = spot.side
    columns = [("image_band", "S1"), ("image_array", np.float32, (side, side)), ("image_array_units", "S17")]
    columns += [("image_psf", np.float32, (side, side)), ("image_psf_units", "S17")]
    table = np.zeros(4, [*columns, ("image_scale", np.float64), ("image_scale_units", "S6")])
    picture = take_picture(spot.rng, side, [17.5, 16.9, 16.6, 16.4], CAMERA)
    bell = np.exp(-0.5 * (np.hypot(*np.indices((side, side)) - (side - 1) / 2) / 2.1) ** 2) * inside
    table["image_band"] = [b"g", b"r", b"i", b"z"]
    table["image_array"], table["image_psf"] = picture.flux * inside, bell / bell.sum()
    table["image_array_units"] = table["image_psf_units"] = b"nanomaggies/pixel"
    table["image_scale"], table["image_scale_units"] = 0.5, b"arcsec"
    return table


def _maps(spot: Spot, inside: np.ndarray) -> np.ndarray:
    side = spot.side
    columns: list[tuple] = [("group", "S12"), ("label", "S20")]
    columns += [(name, np.float32, (side, side)) for name in ("array", "ivar", "mask")]
    table = np.zeros(len(MAPS), [*columns, ("array_units", "S27")])
    y, x = np.indices((side, side)) - (side - 1) / 2
    shapes = (np.exp(-np.hypot(x, y) / 4), 3 * np.exp(-np.hypot(x, y) / 6), 180 * np.tanh(x / 5))
    for row, (group, label, unit), shape in zip(table, MAPS, shapes, strict=True):
        row["group"], row["label"], row["array_units"] = group.encode(), label.encode(), unit.encode()
        row["array"] = np.where(inside, shape, 0)
        row["ivar"] = np.where(inside, 400, 0)
        row["mask"] = np.where(inside, 0, MAP_PAD)
    return table


LAYOUTS = (
    Layout(
        name="manga",
        form="groups",
        path="{config}/healpix={cell}/{part4}.hdf5",
        row=manga_row,
        configs=("manga",),
        small=(12, 60),
        full=(96, 4563),
        about="one group an object: tables of spaxels, images and maps, padded to a square",
    ),
)
