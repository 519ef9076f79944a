"""The pixels of a MegaCam CCD: amplifiers joined, trimmed, overscan subtracted, bad pixels marked, turned to one sense.

Once their bias levels are subtracted (`bias`), the halves are brought to the mean gain of the CCD (GAINA/GAIN, GAINB/GAIN),
or the sky had a step between them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from astropy.io import fits

from skyset.build_scripts.megacam_iqa import geometry
from skyset.build_scripts.megacam_iqa.bias import amplifier_columns, bias_level, subtraction
from skyset.build_scripts.megacam_iqa.geometry import identify


class Frame(NamedTuple):
    """One CCD.

    Attributes:
        ccd: 0 to 39.
        pixels: float32, (4612, 2048) for a whole CCD, in ADU; x runs west and y north.
        bad: pixels to be left out (masked by Elixir, saturated, not finite), of the same shape; None where all are good.
        gain: e-/ADU, mean of the amplifiers.
        read_noise: e-.
        saturation: ADU, above the subtracted bias level.
        header: the image's, as turned and trimmed (NAXISn, CRPIXn, CDi_j, DETSEC); without what says how it was stored.
        turned: by 180 degrees.
        overscan: median bias level of amplifiers A and B that was subtracted, ADU; NaN where none was.
        notes: what is unusual.
    """

    ccd: int
    pixels: np.ndarray
    bad: np.ndarray | None
    gain: float
    read_noise: float
    saturation: float
    header: fits.Header
    turned: bool
    overscan: tuple[float, float]
    notes: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether any pixel is good."""
        return self.bad is None or not self.bad.all()


class _Half(NamedTuple):
    """What one amplifier read, as if read from A: ``area`` of ``stored`` is of the sky, ``overscan`` rows beside it (None:
    none)."""

    stored: np.ndarray
    area: tuple[slice, slice]
    overscan: np.ndarray | None
    gain: float

    @property
    def pixels(self) -> np.ndarray:
        return self.stored[self.area]


def frame(number: int, parts: list[tuple[np.ndarray, fits.Header]]) -> Frame:
    """The frame of a CCD from its image, or from those of its amplifiers A and B: (scaled pixels, header) of each."""
    header = parts[0][1]
    notes = []
    if identify(header)[1]:
        halves, corner = [_amplifier(*part) for part in parts], geometry.corner(header, "DATASEC", parts[0][0].shape)
    else:
        halves, corner = _halves(*parts[0])
    turned = geometry.is_turned(number, header)
    shape = halves[0].pixels.shape[0], sum(half.pixels.shape[1] for half in halves)
    pixels = np.empty(shape, np.float32)
    raw = not any(str(key).startswith("IMRED_O") for key in header)
    gain, limit = _mean([half.gain for half in halves], header, "GAIN"), geometry.number(header, "SATURATE")
    levels, ranges = _fill(pixels, halves, raw, gain, turned)
    empty = all(least == most for least, most in ranges)
    bad = None
    if not (raw and parts[0][0].dtype.kind in "iu" and all(most < limit for _, most in ranges)):
        bad = _bad(halves, turned, shape, limit, raw)
    if empty:
        bad, _ = np.ones(shape, bool), notes.append("all pixels are the same: no light")
    if raw and not np.isfinite(levels).any():
        notes.append("no overscan in it: the bias level is not subtracted")
    level = max((level for level in levels if math.isfinite(level)), default=0.0)
    noises = [geometry.number(part[1], "RDNOISE") for part in parts]
    if len(parts) == 1:
        noises = [geometry.number(header, f"RDNOISE{letter}") for letter in "AB"]
    noise = _mean(noises, header, "RDNOISE")
    where = geometry.oriented(header, corner, shape, turned)
    for key, value in (("GAIN", gain), ("RDNOISE", noise), ("SATURATE", limit - level)):
        if math.isfinite(value):
            where[key] = round(value, 4)
    return Frame(number, pixels, bad, gain, noise, limit - level, where, turned, (levels[0], levels[-1]), tuple(notes))


def _halves(stored: np.ndarray, header: fits.Header) -> tuple[list[_Half], tuple[int, int]]:
    """The amplifiers of an image of the whole CCD; one for all of it where the header's sections do not fit: a cutout."""
    sections = [geometry.section(header, f"{key}SEC{letter}", stored.shape) for letter in "AB" for key in "DB"]
    data = geometry.section(header, "DATASEC", stored.shape)
    if data is None or any(section is None for section in sections[::2]):
        corner = geometry.corner(header, "DATASEC", stored.shape)  # (0, 0) where there is no section
        return [_Half(stored, data or _whole(stored), None, math.nan)], corner
    halves = []
    for letter, area, bias in zip("AB", sections[::2], sections[1::2], strict=True):
        strip = None if bias is None else stored[area[0], bias[1]]
        halves.append(_Half(stored, area, strip, geometry.number(header, f"GAIN{letter}")))
    return halves, geometry.corner(header, "DATASEC", stored.shape)


def _amplifier(stored: np.ndarray, header: fits.Header) -> _Half:
    """An amplifier's own image; B reads from the other side."""
    area, bias = (geometry.section(header, key, stored.shape) for key in ("DATASEC", "BIASSEC"))
    strip = None if bias is None or area is None else stored[area[0], bias[1]]
    if identify(header)[1] == "b":
        stored = np.ascontiguousarray(stored[area or _whole(stored)][:, ::-1])
        area, strip = None, None if strip is None else strip[:, ::-1]
    return _Half(stored, area or _whole(stored), strip, geometry.number(header, "GAIN"))


def _whole(stored: np.ndarray) -> tuple[slice, slice]:
    return slice(0, stored.shape[0]), slice(0, stored.shape[1])


def _fill(
    target: np.ndarray, halves: list[_Half], raw: bool, gain: float, turned: bool
) -> tuple[list[float], list[tuple[float, float]]]:
    """The halves beside each other in ``target``, without their bias levels, at one gain; the levels' medians, ADU, and
    least and greatest of what was stored."""
    levels, ranges, x = [], [], 0
    for half in halves:
        left = x, x + half.area[1].stop - half.area[1].start
        x = left[1]
        if not raw or half.overscan is None:
            pixels = half.pixels
            np.copyto(amplifier_columns(target, left, turned), pixels)
            levels.append(math.nan)
            ranges.append((pixels.min(), pixels.max()))
            continue
        level = bias_level(half.overscan)
        factor = np.float32(half.gain / gain if len(halves) == 2 and 0.5 < half.gain / gain < 2 else 1)
        corner = half.area[0].start, half.area[1].start
        ranges.append(subtraction()(half.stored, corner, level, factor, target, left, turned))
        levels.append(float(np.median(level)))
    return levels, ranges


def _mean(values: list[float], header: fits.Header, key: str) -> float:
    """Of the amplifiers' values where both are there, else what the header says."""
    return sum(values) / 2 if len(values) == 2 and all(map(math.isfinite, values)) else geometry.number(header, key)


def _bad(halves: list[_Half], turned: bool, shape: tuple[int, int], limit: float, raw: bool) -> np.ndarray | None:
    bad, x = np.empty(shape, bool), 0
    for half in halves:
        pixels = half.pixels
        _mark(amplifier_columns(bad, (x, x + pixels.shape[1]), turned), pixels, limit, raw)
        x += pixels.shape[1]
    return bad if bad.any() else None


def _mark(marks: np.ndarray, stored: np.ndarray, limit: float, raw: bool) -> None:
    np.greater_equal(stored, math.ceil(limit) if stored.dtype.kind in "iu" and math.isfinite(limit) else limit, out=marks)
    if stored.dtype.kind == "f":
        marks |= ~np.isfinite(stored)
    if not raw:
        # Elixir multiplies masked pixels by 0 (BZERO is a multiple of BSCALE); a sky near 0 has twice as many a step away.
        size = np.abs(stored)
        zero = size < 0.05
        if (count := np.count_nonzero(zero)) and count > np.count_nonzero(size < 1.5) - count:
            marks |= zero
