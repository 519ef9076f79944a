"""What HSC's database says of the simulated galaxies: the columns of the paper's query, with errors, and rows to cut.

For each cut that GalaxiesML makes there are rows that it alone takes away; `Observed.planted` says how many:

- ``flag``: the redshift is not secure.
- ``error``: its error is too large, 0.005 (1 + z) or more.
- ``redshift``: it is below 0.01 or above 4.
- ``magnitude``: that of one band is nan, inf, -99 or 90.
- ``specz_mag_i``: it is -1, as in PRIMUS, or nan, as in GAMA.
- ``specz_name``: the second measurement of a galaxy whose first stays, with an object_id of its own.
- ``object_id``: two rows of one object with two names; the authors drop both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skyset.archives.hsc_skymap import patch_at, tract_at
from skyset.testing.galaxiesml.colours import BANDS
from skyset.testing.galaxiesml.population import PIXEL_SCALE, ZERO_POINT, dice
from skyset.testing.hsc_sky import tract_wcs

#: Rows that each cut takes away, for each galaxy that stays; at least one (two of the last).
PLANTED = {
    "flag": 0.05,
    "error": 0.05,
    "redshift": 0.01,
    "magnitude": 0.02,
    "specz_mag_i": 0.03,
    "specz_name": 0.10,
    "object_id": 0.02,
}
#: Names of surveys, by the redshift below which they are used.
_SURVEYS = ((0.3, "SDSS-DR14"), (0.6, "WIGGLEZ"), (1.0, "VIPERS-PDR2"), (1.6, "DEEP23-DR4"), (9.0, "VVDS-DR2"))
#: The second measurement of an object is numbered so much higher.
_AGAIN = 1 << 31
_BAD_MAGNITUDES = (np.nan, np.inf, -99.0, 90.0)


class Observed(NamedTuple):
    """A catalogue.

    Attributes:
        columns: by name, each (rows,); sorted by object_id.
        numbers: int64 (rows,), the number of the galaxy that a row is of.
        planted: how many rows each cut of the authors takes away.
    """

    columns: dict[str, np.ndarray]
    numbers: np.ndarray
    planted: dict[str, int]


def planted(galaxies: int) -> dict[str, int]:
    """How many rows each cut takes away where ``galaxies`` stay."""
    counts = {cut: max(1, round(share * galaxies)) if galaxies else 0 for cut, share in PLANTED.items()}
    return counts | {"object_id": 2 * counts["object_id"]}


def spare(galaxies: int) -> int:
    """How many galaxies a catalogue needs beside those that stay."""
    counts = planted(galaxies)
    return sum(counts.values()) - counts["specz_name"] - counts["object_id"] // 2


def observe(truth: np.ndarray, galaxies: int, noise: dict[str, tuple[float, float]], seed: int) -> Observed:
    """Write a catalogue.

    Args:
        truth: (galaxies + `spare`,) of `population.TRUTH`; the first stay after all cuts.
        galaxies: how many stay.
        noise: of a pixel and electrons a count, by band (`sky.noise_of`).
        seed: of the errors.

    Returns:
        Columns as the query names them: object_id and skymap_id int64, the flag bool, magnitudes float32, text ``U``, all
        else float64.
    """
    counts = planted(galaxies)
    columns = _columns(truth, noise, seed)
    kinds = ("flag", "error", "redshift", "magnitude", "specz_mag_i", "object_id")
    sizes = [counts[kind] // (2 if kind == "object_id" else 1) for kind in kinds]
    rows = dict(zip(kinds, np.split(np.arange(galaxies, len(truth)), np.cumsum(sizes)[:-1]), strict=True))
    _spoil(columns, rows, seed)
    again = np.concatenate([np.arange(counts["specz_name"]), rows["object_id"]])
    numbers = np.concatenate([np.arange(len(truth)), again])
    columns = {name: values[numbers] for name, values in columns.items()}
    second = np.arange(len(truth), len(truth) + counts["specz_name"])
    columns["object_id"][second] += _AGAIN
    columns["ra"][second] += 0.05 / 3600
    for band in BANDS:
        columns[f"{band}_cmodel_mag"][second] += np.float32(0.02)
    for row in range(len(truth) + counts["specz_name"], len(numbers)):
        columns["specz_name"][row] = f"PRIMUS-DR1-{numbers[row]:07d}"
    order = np.argsort(columns["object_id"], kind="stable")
    return Observed({name: values[order] for name, values in columns.items()}, numbers[order], counts)


def _columns(truth: np.ndarray, noise: dict[str, tuple[float, float]], seed: int) -> dict[str, np.ndarray]:
    count, redshift = len(truth), truth["redshift"]
    deviates = dice(seed, "specz").standard_normal((count, 4))
    object_id, skymap_id = _numbers(truth)
    magnitudes, errors = _magnitudes(truth, noise, seed)
    error = np.minimum(10 ** (-3.7 + 0.35 * deviates[:, 0]), 0.004) * (1 + redshift)
    table = {
        "object_id": object_id,
        "specz_redshift_err": error,
        "specz_redshift": redshift,
        "specz_mag_i": magnitudes[:, BANDS.index("i")] + 0.05 * deviates[:, 1],
        "specz_name": _names(redshift),
        "specz_ra": truth["ra"] + 0.06 / 3600 * deviates[:, 2],
        "specz_dec": truth["dec"] + 0.06 / 3600 * deviates[:, 3],
        "specz_flag_homogeneous": np.ones(count, bool),
        "ra": truth["ra"],
        "dec": truth["dec"],
        "coord": _coords(truth),
        "skymap_id": skymap_id,
    }
    table |= {f"{band}_cmodel_mag": magnitudes[:, place].astype("f4") for place, band in enumerate(BANDS)}
    return table | {f"{band}_cmodel_magsigma": errors[:, place].astype("f4") for place, band in enumerate(BANDS)}


def _numbers(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """HSC's object_id (tract, patch, number in it) and skymap_id."""
    tracts = np.array([tract_at(*each) for each in zip(truth["ra"], truth["dec"], strict=True)], np.int64)
    patches = np.zeros((len(truth), 2), np.int64)
    for tract in np.unique(tracts):
        here = np.flatnonzero(tracts == tract)
        pixels = tract_wcs(int(tract)).all_world2pix(np.column_stack([truth["ra"][here], truth["dec"][here]]), 0)
        patches[here] = [patch_at(x, y) for x, y in pixels]
    identifiers = (tracts << 42) + (patches[:, 0] << 37) + (patches[:, 1] << 32) + np.arange(len(truth))
    return identifiers, tracts * 10_000 + patches @ [100, 1]


def _names(redshift: np.ndarray) -> np.ndarray:
    places = np.searchsorted([limit for limit, _ in _SURVEYS], redshift)
    return np.array([f"{_SURVEYS[place][1]}-{number:07d}" for number, place in enumerate(places)], "U40")


def _coords(truth: np.ndarray) -> np.ndarray:
    ra, dec = np.radians(truth["ra"]), np.radians(truth["dec"])
    unit = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], -1)
    return np.array([f"({x:.15f}, {y:.15f}, {z:.15f})" for x, y, z in unit], "U80")


def _magnitudes(truth: np.ndarray, noise: dict[str, tuple[float, float]], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Model magnitudes with the errors of a fit: noise under the profile, and that of the galaxy's own light."""
    seeing_and_size = 4 * np.pi * ((0.65 / PIXEL_SCALE / 2.355) ** 2 + (truth["r_e"] / 1.18) ** 2 * truth["q"])
    sigma, gain = np.array([noise[band] for band in BANDS]).T
    error = np.sqrt(sigma**2 * seeing_and_size[:, None] + truth["flux"] / gain)
    flux = truth["flux"] + error * dice(seed, "photometry").standard_normal(error.shape)
    flux = np.maximum(flux, 0.5 * error)  # the query asks for detections in all bands
    return ZERO_POINT - 2.5 * np.log10(flux), 2.5 / np.log(10) * error / flux


def _spoil(columns: dict[str, np.ndarray], rows: dict[str, np.ndarray], seed: int) -> None:
    columns["specz_flag_homogeneous"][rows["flag"]] = False
    size = dice(seed, "too large").random(len(rows["error"]))
    limit = 0.005 * (1 + columns["specz_redshift"][rows["error"]])
    columns["specz_redshift_err"][rows["error"]] = limit * (1 + size)
    columns["specz_redshift"] = columns["specz_redshift"].copy()
    columns["specz_redshift"][rows["redshift"]] = np.where(np.arange(len(rows["redshift"])) % 2, 4.5, 0.002)
    columns["specz_redshift_err"][rows["redshift"]] = 1e-4
    for place, row in enumerate(rows["magnitude"]):
        columns[f"{BANDS[place % 5]}_cmodel_mag"][row] = _BAD_MAGNITUDES[place % len(_BAD_MAGNITUDES)]
    columns["specz_mag_i"][rows["specz_mag_i"]] = np.where(np.arange(len(rows["specz_mag_i"])) % 2, np.nan, -1.0)
