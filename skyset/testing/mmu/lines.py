"""Spectra by a simple model: galaxies of some age with their lines, stars as black bodies with theirs."""

from __future__ import annotations

import numpy as np

#: Rest wavelengths, Angstrom in air, with strength and width (Angstrom); in absorption, from an old population.
ABSORPTION = (
    (3933.7, 0.35, 9.0),
    (3968.5, 0.30, 9.0),
    (4304.4, 0.18, 14.0),
    (5175.3, 0.16, 14.0),
    (5894.0, 0.14, 8.0),
)
#: In emission, from gas that young stars light up.
EMISSION = (
    (3727.3, 1.2, 3.5),
    (4861.3, 0.7, 3.0),
    (4958.9, 0.4, 3.0),
    (5006.8, 1.2, 3.0),
    (6562.8, 2.4, 3.5),
    (6583.6, 0.9, 3.5),
    (6716.4, 0.45, 3.5),
    (6730.8, 0.35, 3.5),
)
#: Of stars: Balmer, calcium, sodium; in the infrared Brackett, magnesium, aluminium.
STELLAR = (
    (3933.7, 0.4, 8.0),
    (4101.7, 0.25, 9.0),
    (4340.5, 0.25, 9.0),
    (4861.3, 0.3, 9.0),
    (5894.0, 0.2, 5.0),
    (6562.8, 0.35, 8.0),
    (8542.1, 0.3, 7.0),
    (15753.0, 0.15, 2.0),
    (15884.9, 0.12, 9.0),
    (16113.7, 0.14, 9.0),
    (16411.7, 0.16, 9.0),
    (16723.5, 0.18, 2.0),
    (16811.1, 0.18, 9.0),
)


def log_wavelengths(first: float, last: float, length: int) -> np.ndarray:
    """Equal steps of the logarithm, Angstrom, float32 (length,)."""
    return np.geomspace(first, last, length).astype(np.float32)


def galaxy_spectrum(rng: np.random.Generator, wavelength: np.ndarray, redshift: float) -> np.ndarray:
    """Flux of a galaxy, 1e-17 erg/s/cm2/Angstrom, without noise, float32."""
    rest, young = wavelength / (1 + redshift), rng.random()
    step = 0.55 + 0.45 * np.tanh((rest - 4000) / 60)
    shape = (rest / 5500) ** rng.uniform(-1.2 * young, 0.6) * (young + (1 - young) * step)
    for centre, depth, width in ABSORPTION:
        shape *= 1 - depth * (1 - 0.8 * young) * _bell(rest, centre, width)
    for centre, height, width in EMISSION:
        shape += young**2 * height * _bell(rest, centre, width)
    return (rng.uniform(3, 60) * shape).astype(np.float32)


def star_spectrum(rng: np.random.Generator, wavelength: np.ndarray, temperature: float, velocity: float = 0.0) -> np.ndarray:
    """Flux of a star, about 1 at its largest, without noise, float32.

    Args:
        rng: its dice, for the depths of lines.
        wavelength: Angstrom.
        temperature: K.
        velocity: away from us, km/s.
    """
    rest = wavelength / (1 + velocity / 299792.458)
    shape = (5500 / rest) ** 5 / np.expm1(1.43877e8 / (rest * temperature))
    shape /= shape.max()
    for centre, depth, width in STELLAR:
        shape *= 1 - depth * rng.uniform(0.4, 1.0) * _bell(rest, centre, width)
    return shape.astype(np.float32)


def observe(rng: np.random.Generator, flux: np.ndarray, snr: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A spectrum with noise.

    Args:
        rng: its dice.
        flux: without.
        snr: of a typical pixel.

    Returns:
        flux and ivar, float32; bad, bool: some pixels, where ivar is 0.
    """
    sigma = np.median(np.abs(flux)) / snr * np.sqrt(0.5 + 0.5 * np.abs(flux) / max(float(np.median(np.abs(flux))), 1e-9))
    bad = rng.random(len(flux)) < 0.01
    bad[0] = True
    noisy = flux + sigma * rng.standard_normal(len(flux), np.float32)
    return noisy.astype(np.float32), np.where(bad, 0, 1 / sigma**2).astype(np.float32), bad


def _bell(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - centre) / width) ** 2)
