"""Light curves by simple models: supernovae that rise and fall, stars with spots and transits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skyset.testing.mmu.rows import LightCurve


def supernova(
    rng: np.random.Generator,
    bands: Sequence[str],
    longest: int,
    *,
    dtype: type = np.float32,
    start: float = 59000.0,
    magnitudes: bool = False,
    empty: Sequence[str] = (),
) -> LightCurve:
    """A supernova in several bands (Bazin et al. 2009, A&A 499, 653).

    Args:
        rng: its dice.
        bands: from blue to red: the redder, the slower.
        longest: points of a band, at most; at least a third of it.
        dtype: of the points.
        start: of the season, MJD.
        magnitudes: mag and mag_err, of the points that are bright enough, instead of flux and flux_err.
        empty: bands without any point.

    Returns:
        It, times ascending in each band.
    """
    peak, height = start + rng.uniform(30, 60), rng.uniform(300, 4000)
    rise, fall = rng.uniform(3, 6), rng.uniform(20, 45)
    names = ("time", "mag", "mag_err") if magnitudes else ("time", "flux", "flux_err")
    points: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for place, band in enumerate(bands):
        count = 0 if band in empty else int(rng.integers(max(1, longest // 3), longest + 1))
        time: np.ndarray = np.sort(start + 150 * rng.random(count)).astype(dtype)
        slower = 1 + 0.15 * place
        phase = time.astype(np.float64) - peak - 2 * place
        flux = height / slower * np.exp(-phase / (fall * slower)) / (1 + np.exp(-phase / rise).clip(max=1e30))
        error = rng.uniform(0.9, 1.4, count) * np.sqrt(15.0**2 + 0.1 * flux)
        first, second = flux + error * rng.standard_normal(count), error
        if magnitudes:
            seen = flux > 5 * error
            seen[: 1 if band not in empty else 0] = True
            time, flux, error = time[seen], np.maximum(flux[seen], 5 * error[seen]), error[seen]
            first, second = 27.5 - 2.5 * np.log10(flux), 1.0857 * error / flux
        for name, values in zip(names, (time, first, second), strict=True):
            points[name].append(values.astype(dtype))
    return LightCurve(tuple(bands), points)


def star_curve(
    rng: np.random.Generator, longest: int, *, start: float, cadence: float, dtype: type
) -> dict[str, np.ndarray]:
    """A star with spots, and sometimes a planet.

    Args:
        rng: its dice.
        longest: points, at most; at least 60 per cent of it.
        start: days.
        cadence: days.
        dtype: of what comes out.

    Returns:
        time (days), flux and flux_err (electrons/s), raw (with the instrument's drift), each (points,).
    """
    slots = np.sort(rng.choice(longest, int(rng.integers(int(0.6 * longest) or 1, longest + 1)), replace=False))
    time = start + cadence * (slots + 0.5)
    level, period = 10 ** rng.uniform(2.5, 4.5), rng.uniform(0.5, 12)
    flux = level * (1 + 0.01 * rng.random() * np.sin(2 * np.pi * time / period + rng.uniform(0, 6)))
    if rng.random() < 0.5:
        flux[np.mod(time - start, rng.uniform(1, 5)) < 0.1] *= 1 - rng.uniform(0.002, 0.02)
    error = np.sqrt(level) * rng.uniform(0.9, 1.1, len(time))
    flux = flux + error * rng.standard_normal(len(time))
    drift = 1 + 0.02 * np.sin((time - start) / (longest * cadence + 1e-9) * np.pi)
    values = {"time": time, "flux": flux, "flux_err": error, "raw": flux * drift}
    return {name: value.astype(dtype) for name, value in values.items()}
