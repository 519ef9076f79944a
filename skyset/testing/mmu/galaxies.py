"""Pictures of galaxies by a simple model: a disc and a bulge behind a seeing, some neighbours, noise, bad pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """What takes the pictures.

    Attributes:
        scale: arcsec a pixel.
        zero_point: magnitude of a flux of 1.
        fwhm: of the seeing in each band, arcsec.
        sky: noise of a pixel in each band, in units of flux.
    """

    scale: float
    zero_point: float
    fwhm: Sequence[float]
    sky: Sequence[float]


@dataclass(frozen=True)
class Picture:
    """One object in every band.

    Attributes:
        flux: float32 (bands, side, side).
        ivar: float32, likewise, 0 where a pixel is bad.
        good: bool, likewise.
        fwhm: float32 (bands,): the seeing that night, arcsec.
    """

    flux: np.ndarray
    ivar: np.ndarray
    good: np.ndarray
    fwhm: np.ndarray


def take_picture(rng: np.random.Generator, side: int, magnitudes: Sequence[float] | np.ndarray, camera: Camera) -> Picture:
    """Draw a galaxy.

    Args:
        rng: its dice.
        side: pixels.
        magnitudes: AB, one a band, from blue to red: bulges are redder.
        camera: what takes it.

    Returns:
        The picture, with noise.
    """
    fwhm = (np.asarray(camera.fwhm) * rng.normal(1.0, 0.08, len(magnitudes)).clip(0.7, 1.6)).astype(np.float32)
    axis_ratio, angle, radius = (
        rng.uniform(0.25, 1.0),
        rng.uniform(0, np.pi),
        rng.uniform(0.6, 0.2 * side * camera.scale + 0.7),
    )
    bulge_part = rng.uniform(0.05, 0.7)
    flux = np.empty((len(magnitudes), side, side), np.float32)
    neighbours = _neighbours(rng, side)
    for band, magnitude in enumerate(magnitudes):
        sigma = float(fwhm[band]) / 2.355
        total = 10 ** (-0.4 * (magnitude - camera.zero_point))
        redness = bulge_part * (0.7 + 0.3 * band / max(1, len(magnitudes) - 1))
        r = _radius(side, camera.scale, axis_ratio, angle, sigma)
        disc, bulge = np.exp(-1.678 * r / radius), np.exp(-7.67 * (r / (0.4 * radius)) ** 0.25)
        flux[band] = total * ((1 - redness) * disc / disc.sum() + redness * bulge / bulge.sum())
        for x, y, brightness in neighbours:
            r = _radius(side, camera.scale, 1.0, 0.0, 0.0, (x, y))
            spot = np.exp(-0.5 * (r / sigma) ** 2)
            flux[band] += total * brightness * spot / max(spot.sum(), 1e-9)
    sky = np.asarray(camera.sky, np.float32)[:, None, None]
    variance = sky**2 + np.maximum(flux, 0) * 0.02 * sky
    flux += np.sqrt(variance) * rng.standard_normal(flux.shape, np.float32)
    good = _good_pixels(rng, flux.shape)
    return Picture(flux, np.where(good, 1 / variance, 0).astype(np.float32), good, fwhm)


def colours(rng: np.random.Generator, bands: int, brightest: float = 17.5, faintest: float = 22.0) -> np.ndarray:
    """Magnitudes of a galaxy from the bluest band to the reddest, float32 (bands,)."""
    steps = rng.uniform(0.15, 0.8) * 0.75 ** np.arange(bands)
    return (rng.uniform(brightest, faintest) + steps[::-1].cumsum()[::-1] - steps[-1]).astype(np.float32)


def as_rgb(flux: np.ndarray, stretch: float) -> np.ndarray:
    """Three bands, blue first, as uint8 (side, side, 3), red first, on an arcsinh scale."""
    brightness = np.maximum(flux, 0).mean(axis=0) + 1e-9
    factor = np.arcsinh(brightness / stretch) / brightness
    return (255 * np.clip(flux[::-1] * factor / 3, 0, 1)).astype(np.uint8).transpose(1, 2, 0)


def _radius(
    side: int, scale: float, axis_ratio: float, angle: float, soft: float, centre: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Distance of pixels from a centre along an ellipse, arcsec, (side, side)."""
    axis = (np.arange(side, dtype=np.float32) - (side - 1) / 2) * scale
    x, y = axis[None, :] - centre[0] * scale, axis[:, None] - centre[1] * scale
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.sqrt(along**2 + (across / axis_ratio) ** 2 + soft**2)


def _neighbours(rng: np.random.Generator, side: int) -> list[tuple[float, float, float]]:
    return [
        (rng.uniform(-0.45, 0.45) * side, rng.uniform(-0.45, 0.45) * side, rng.uniform(0.03, 0.4))
        for _ in range(rng.integers(0, 4))
    ]


def _good_pixels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Some cosmic rays in every band, and sometimes a bad column in one."""
    good = rng.random(shape, np.float32) > 0.002
    if rng.random() < 0.4:
        good[rng.integers(shape[0]), :, rng.integers(shape[2])] = False
    good[0, 0, 0] = False
    return good
