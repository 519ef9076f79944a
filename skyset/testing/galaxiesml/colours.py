"""Magnitudes that carry the redshift: GalSim's galaxy spectra through its LSST g, r, i, z, y passbands.

The spectra are those of Coleman, Wu & Weedman (1980, ApJS 43, 393) with GalSim's extensions to short and long wavelengths:
E, Sbc, Scd and Im. A galaxy's template is a number from 0 (E) to 3 (Im); between two of them lies the mixture of both, each
normalised to the same light in the passband i at rest.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType

import numpy as np

from skyset.errors import MissingPackage

BANDS = "grizy"
TEMPLATES = ("E", "Sbc", "Scd", "Im")
#: Redshifts of the table, which is interpolated linearly: 0.005 apart.
_REDSHIFTS = np.linspace(0, 4.5, 901)


def galsim() -> ModuleType:
    """GalSim, which only this package needs.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        import galsim
    except ImportError:
        raise MissingPackage("simulated galaxies need the package GalSim: pip install galsim", "galsim") from None
    return galsim


def spectrum_file(template: str) -> Path:
    """The spectrum of one of `TEMPLATES`: two columns, Angstrom and erg/s/cm2/Angstrom."""
    return Path(galsim().meta_data.share_dir) / "SEDs" / f"CWW_{template}_ext.sed"


def passband_file(band: str) -> Path:
    """The throughput of one of `BANDS`: two columns, nm and the fraction of photons."""
    return Path(galsim().meta_data.share_dir) / "bandpasses" / f"LSST_{band}.dat"


@functools.cache
def _table() -> np.ndarray:
    """Light in each band over that in i: float64 (templates, redshifts, bands), unnormalised between redshifts."""
    simulator = galsim()
    bands = [simulator.Bandpass(str(passband_file(band)), "nm").withZeropoint("AB").thin(1e-4) for band in BANDS]
    table = np.empty((len(TEMPLATES), len(_REDSHIFTS), len(BANDS)))
    for row, template in zip(table, TEMPLATES, strict=True):
        rest = simulator.SED(str(spectrum_file(template)), "Ang", "flambda").withMagnitude(0, bands[BANDS.index("i")])
        for cell, redshift in zip(row, _REDSHIFTS, strict=True):
            shifted = rest.atRedshift(redshift)
            cell[:] = [10 ** (-0.4 * shifted.calculateMagnitude(band)) for band in bands]
    return table


def light(template: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Light of galaxies in each band over that in i.

    Args:
        template: (count,), 0 to 3, see above.
        redshift: (count,), 0 to 4.5.

    Returns:
        float64 (count, 5), 1 in the third column: ratios of AB flux densities.

    Raises:
        MissingPackage: GalSim is not installed.
    """
    table = _table()
    first = np.clip(np.floor(template).astype(int), 0, len(TEMPLATES) - 2)
    place = np.clip(redshift / _REDSHIFTS[1], 0, len(_REDSHIFTS) - 1.001)
    left = place.astype(int)
    along, across = (place - left)[:, None], (template - first)[:, None]

    def at(kind: np.ndarray) -> np.ndarray:
        return table[kind, left] * (1 - along) + table[kind, left + 1] * along

    total = at(first) * (1 - across) + at(first + 1) * across
    return total / total[:, [BANDS.index("i")]]
