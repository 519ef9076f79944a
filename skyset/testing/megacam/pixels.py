"""What a CCD reads: stars and galaxies through the exposure's PSF, sky, noise, cosmic rays, bleeding, bias, overscan.

All is made in the sense of the sky (x west, y north) and turned at the end for CCDs that are mounted upside down.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from skyset.testing.megacam.conditions import Conditions, background
from skyset.testing.megacam.layout import FULL, OVERSCAN, SCALE, Detector

FULL_WELL = 105_000.0  # e-
ADU_MAX = 65535
_PIXEL = SCALE * 3600  # arcsec


class Amplifiers(NamedTuple):
    """What is fixed of a CCD: gain (e-/ADU), read noise (e-) and bias (ADU) of A and B, its flat field (float32, about 1 in
    the middle of the mosaic), its bad columns as (column, first row), and the stretching factor of processed files."""

    gain: tuple[float, float]
    noise: tuple[int, int]
    bias: tuple[float, float]
    flat: np.ndarray
    columns: list[tuple[int, int]]
    stretch: float


class Reading(NamedTuple):
    """A CCD's file frame: uint16 with overscan if raw; float32 ADU if processed, masked pixels 0."""

    raw: np.ndarray
    processed: np.ndarray


def amplifiers(detector: Detector) -> Amplifiers:
    """The CCD itself, in the file's sense: the same in all exposures."""
    rng = np.random.default_rng([20030101, detector.ccd])
    gain = rng.uniform(1.5, 1.7, 2).round(3)
    noise, bias = rng.integers(3, 7, 2), rng.uniform(950, 1200, 2)
    x, y = detector.field()
    flat = (1 - 0.12 * (x * x + y * y) ** 1.5).astype(np.float32) * np.float32(rng.uniform(0.95, 1.05))
    flat = flat[::-1, ::-1] if detector.turned else flat
    flat = flat * (1 + 0.006 * rng.standard_normal(detector.shape, np.float32))
    rows, columns = detector.shape
    bad = [(int(rng.integers(columns)), int(rng.integers(rows // 2))) for _ in range(1 + rng.integers(3))]
    stretch = round(float(rng.uniform(0.96, 1.10)), 2)
    a, b = gain, noise
    return Amplifiers(
        (float(a[0]), float(a[1])), (int(b[0]), int(b[1])), (float(bias[0]), float(bias[1])), flat, bad, stretch
    )


def point_spread(conditions: Conditions, detector: Detector, seed: int) -> np.ndarray:
    """The PSF of a CCD, float64 (odd, odd), sum 1: seeing that grows and stretches to the edges, moved along the track."""
    from skyset.extraction.simulate import moffat_psf  # here: it takes numba, which a help text needs not wait for

    x, y = (float(np.mean(each)) for each in detector.field())
    distance = math.hypot(x, y)
    fwhm = conditions.seeing / _PIXEL * (1 + 0.06 * distance**2)
    axis_ratio, angle = 1 - 0.07 * distance**2, math.degrees(math.atan2(y, x))
    track = conditions.track(seed)
    reach = np.abs(track[:, :2]).max() / _PIXEL
    psf = moffat_psf(fwhm, 3.3, 2 * math.ceil(4.5 * fwhm + reach) + 1, axis_ratio, angle)
    u, v = np.fft.fftfreq(psf.shape[0])[:, None, None], np.fft.rfftfreq(psf.shape[1])[None, :, None]
    west, north, share = track.T
    moved = (np.exp(-2j * math.pi * (u * north + v * west) / _PIXEL) * share).sum(-1)
    psf = np.maximum(np.fft.irfft2(np.fft.rfft2(psf) * moved, s=psf.shape), 0)
    return psf / psf.sum()


def read(conditions: Conditions, detector: Detector, seed: tuple[int, int], density: float | None = None) -> Reading:
    """An exposure of a CCD.

    Args:
        conditions: of the exposure.
        detector: the CCD.
        seed: of the run, and the exposure's number in it.
        density: stars and galaxies, times what a field far from the Milky Way has; default 3.5, more on small CCDs.
    """
    from skyset.extraction.simulate import render

    rng = np.random.default_rng([*seed, detector.ccd])
    shape, fixed = detector.shape, amplifiers(detector)
    gain = sum(fixed.gain) / 2
    zero_point = conditions.zero_point + 2.5 * math.log10(conditions.exptime)
    sky = 10 ** (-0.4 * (conditions.sky - zero_point)) * _PIXEL**2  # ADU
    density = density or (3.5 if shape[0] * shape[1] > FULL[0] * FULL[1] // 4 else 6.0)
    pattern = int(np.random.default_rng([*seed, 999]).integers(1 << 31))
    psf = point_spread(conditions, detector, pattern)
    light = render(shape, _sources(rng, shape, zero_point, density), psf, 0.1 * math.sqrt(sky / gain))
    amplifier = 2 * detector.ccd + (np.arange(shape[1]) >= shape[1] // 2)
    light += sky * background(conditions, *detector.field(), pattern, amplifier)
    if detector.turned:
        light = light[::-1, ::-1]
    electrons = (light * (fixed.flat * gain)).astype(np.float32)
    electrons += np.sqrt(np.maximum(electrons, 0)) * rng.standard_normal(shape, np.float32)
    _cosmic_rays(rng, electrons, conditions.exptime)
    _bleed(electrons)
    return _digits(rng, electrons, detector, fixed)


def _sources(rng: np.random.Generator, shape: tuple[int, int], zero_point: float, density: float) -> np.ndarray:
    from skyset.extraction.simulate import draw_field

    limits = (14.3, 24.8)
    tables = [draw_field(rng, shape, _PIXEL, zero_point, limits, None, None) for _ in range(math.ceil(density))]
    table = np.concatenate(tables)
    return table[rng.random(len(table)) < density / math.ceil(density)]


def _cosmic_rays(rng: np.random.Generator, electrons: np.ndarray, exptime: float) -> None:
    """Some 500 in a whole CCD in eight minutes, most of them a few pixels long."""
    rows, columns = electrons.shape
    for _ in range(rng.poisson(500 * exptime / 480 * electrons.size / (FULL[0] * FULL[1]))):
        x, y, angle = rng.uniform(0, columns), rng.uniform(0, rows), rng.uniform(0, 2 * math.pi)
        steps = np.arange(0, 1 + rng.exponential(4), 0.5)
        i, j = (y + steps * math.sin(angle)).astype(int), (x + steps * math.cos(angle)).astype(int)
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        np.add.at(electrons, (i[inside], j[inside]), rng.uniform(400, 2500))


def _bleed(electrons: np.ndarray) -> None:
    """Charge beyond the full well runs along the columns, to both sides alike."""
    for column in np.flatnonzero((electrons > FULL_WELL).any(axis=0)):
        values = electrons[:, column]
        over = values > FULL_WELL
        edges = np.flatnonzero(np.diff(np.concatenate([[False], over, [False]]).astype(np.int8)))
        for first, last in edges.reshape(-1, 2):
            excess = float((values[first:last] - FULL_WELL).sum()) / 2
            values[first:last] = FULL_WELL
            for side in (values[last:], values[:first][::-1]):
                room = np.cumsum(np.maximum(FULL_WELL - side, 0))
                full = int(np.searchsorted(room, excess))
                side[:full] = np.maximum(side[:full], FULL_WELL)
                if full < len(side):
                    side[full] += excess - (room[full - 1] if full else 0)


def _digits(rng: np.random.Generator, electrons: np.ndarray, detector: Detector, fixed: Amplifiers) -> Reading:
    """ADU of both amplifiers with their overscan, and what Elixir would make of them."""
    rows, columns = detector.shape
    half = columns // 2
    frame = np.zeros(detector.frame, np.float32)
    levels = np.empty(detector.frame, np.float32)
    slope = np.linspace(0, 6, detector.frame[0], dtype=np.float32)[:, None]  # the bias rises while the CCD is read
    middle = OVERSCAN + half
    mask = np.zeros(detector.shape, bool)
    for column, first in fixed.columns:
        mask[first:, column] = True
    electrons[mask] = 0
    frame[:rows, OVERSCAN:-OVERSCAN] = electrons
    for part, k in ((slice(None, middle), 0), (slice(middle, None), 1)):
        frame[:, part] += fixed.noise[k] * rng.standard_normal(frame[:, part].shape, np.float32)
        frame[:, part] /= fixed.gain[k]
        levels[:, part] = fixed.bias[k] + slope * (1, -0.5)[k]
    raw = np.clip(np.rint(frame + levels), 0, ADU_MAX).astype(np.uint16)
    processed = np.zeros(detector.frame, np.float32)
    sky = raw[:rows, OVERSCAN:-OVERSCAN] - levels[:rows, OVERSCAN:-OVERSCAN]
    gain = sum(fixed.gain) / 2
    sky *= np.where(np.arange(columns) < half, *fixed.gain).astype(np.float32) / np.float32(gain)
    sky /= fixed.flat
    sky[mask] = 0
    processed[:rows, OVERSCAN:-OVERSCAN] = sky
    return Reading(raw, processed)
