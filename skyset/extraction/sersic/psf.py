"""PSFs as users give them, and their modes on a stamp of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from skyset.extraction.hankel import moffat_transform

#: Modes where the PSF's transform is below this carry next to no light.
PSF_FLOOR = 0.02
#: The same where weights are uneven on the core, and for chi2: what is below shifts n by 0.4 sigma at most at magnitude 18.
FINE_FLOOR = 0.001
#: A PSF is undersampled where more than this of its transform is left at the pixels' Nyquist frequency.
NYQUIST = 0.02


@dataclass(frozen=True)
class Moffat:
    """A circular Moffat PSF (1969, A&A 3, 455), the pixel's extent included.

    Attributes:
        fwhm: pixels, one or (count,).
        beta: exponent, above 1.
    """

    fwhm: float | np.ndarray
    beta: float = 3.5


@dataclass(frozen=True)
class Gaussian:
    """A circular Gaussian PSF, the pixel's extent included; ``fwhm`` in pixels, one or (count,)."""

    fwhm: float | np.ndarray


def one_each(value, count: int, what: str) -> np.ndarray:
    """float64 (count,), a copy."""
    value = np.asarray(getattr(value, "value", value), np.float64)
    if value.ndim > 1 or (value.ndim == 1 and len(value) != count):
        raise ValueError(f"{what} has shape {value.shape}; one value or {count} are needed")
    return np.broadcast_to(value, count).copy()


@dataclass(frozen=True, eq=False)
class Grid:
    """Modes of a periodic stamp: half of them, as those of -k follow.

    Attributes:
        side: pixels.
        ix, iy: int64 (modes,): k = 2 pi (ix, iy) / side; ix >= 0.
        amplitude: float64 (1 or objects, modes), |PSF(k)|, 0 where below the floor.
        phase: complex128, as ``amplitude``: PSF(k) / |PSF(k)|.
    """

    side: int
    ix: np.ndarray
    iy: np.ndarray
    amplitude: np.ndarray
    phase: np.ndarray


class Psf:
    """A PSF as given, checked; its modes on any stamp."""

    def __init__(self, psf, count: int):
        self.given, self.count = psf, count
        if isinstance(psf, Moffat | Gaussian):
            self.fwhm = one_each(psf.fwhm, count, "the PSF's fwhm")
            if not (np.isfinite(self.fwhm) & (self.fwhm > 0)).all():
                raise ValueError("the PSF's fwhm must be a number of pixels above 0")
            if isinstance(psf, Moffat) and not 1 < psf.beta < 1e3:
                raise ValueError(f"the PSF's beta is {psf.beta}; a Moffat profile has a finite flux above 1")
            self.shared = np.ndim(psf.fwhm) == 0
            # Twice: what lies beyond the Nyquist frequency is folded back onto it.
            self.undersampled = 2 * np.abs(self._of_profile(math.log(math.pi), self.fwhm)) > NYQUIST
            return
        self.array = np.ma.filled(np.ma.asarray(psf).astype(np.float64), np.nan)
        if self.array.ndim not in (2, 3) or self.array.size == 0 or (self.array.ndim == 3 and len(self.array) != count):
            raise ValueError(f"the PSF has shape {self.array.shape}; (rows, columns) or ({count}, rows, columns) is needed")
        self.shared = self.array.ndim == 2
        self.array = self.array.reshape(-1, *self.array.shape[-2:])
        if bad := int(np.count_nonzero(~np.isfinite(self.array).all(axis=(1, 2)))):
            raise ValueError(f"{bad} of {len(self.array)} PSFs have pixels that are NaN or infinite")
        total = self.array.sum(axis=(1, 2))
        if not (total > 1e-6 * np.abs(self.array).sum(axis=(1, 2))).all():
            raise ValueError("a PSF's sum is not positive: it cannot be normalised")
        self.array = self.array / total[:, None, None]
        self.centre = _middle(self.array)
        # The Gaussian with this peak: only to choose the stamp.
        peak = np.minimum(self.array.max(axis=(1, 2)), 1.0)
        self.fwhm = np.broadcast_to(2.3548 / np.sqrt(2 * np.pi * peak), count)
        nyquist = [self.array.sum(axis=axis) @ np.cos(np.pi * np.arange(self.array.shape[3 - axis])) for axis in (1, 2)]
        self.undersampled = np.broadcast_to(np.abs(nyquist).max(axis=0) > NYQUIST, count)

    def grid(self, members: np.ndarray, side: int, floor: float = PSF_FLOOR) -> Grid:
        """Modes of these objects. Kept for a shared PSF.

        Raises:
            ValueError: no mode passes.
        """
        if not self.shared:
            return self._make(members, side, floor)
        return _kept_grid(_Same(self, self._key()), side, floor)

    def _key(self):
        return (type(self.given), self.given) if not hasattr(self, "array") else (self.array.shape, self.array.tobytes())

    def _make(self, members: np.ndarray, side: int, floor: float) -> Grid:
        half = (side - 1) // 2
        ix, iy = (each.ravel() for each in np.meshgrid(np.arange(half + 1), np.arange(-half, half + 1)))
        keep = (ix > 0) | (iy > 0)
        ix, iy = ix[keep], iy[keep]
        if hasattr(self, "array"):
            values = self._of_array(members, side, ix, iy)
        else:
            log_k = np.log(2 * np.pi / side * np.hypot(ix, iy))
            values = np.stack(
                [self._of_profile(log_k, fwhm) for fwhm in self.fwhm[:1] if self.shared]
                or [self._of_profile(log_k, self.fwhm[i]) for i in members]
            )
        amplitude = np.abs(values)
        passing = amplitude > max(floor, 1e-12)
        any_passing = passing.any(axis=0)
        if not passing.any(axis=1).all():
            raise ValueError(f"the PSF lets next to nothing through on a stamp of {side} pixels: it is wider than the stamp")
        amplitude, passing, values = amplitude[:, any_passing], passing[:, any_passing], values[:, any_passing]
        phase = np.where(passing, values / np.maximum(amplitude, 1e-300), 0)
        amplitude, phase = (np.ascontiguousarray(each) for each in (np.where(passing, amplitude, 0), phase))
        return Grid(side, ix[any_passing], iy[any_passing], amplitude, phase)

    def _of_array(self, members: np.ndarray, side: int, ix: np.ndarray, iy: np.ndarray) -> np.ndarray:
        """The transform of the pixels, about the centre; a PSF larger than the stamp is wrapped around, which is exact."""
        which = np.zeros(1, np.int64) if self.shared else members
        rows, columns = self.array.shape[1:]
        values = np.empty((len(which), len(ix)), np.complex128)
        for place, i in enumerate(which):
            padded = np.zeros([math.ceil(size / side) * side for size in (rows, columns)])
            padded[:rows, :columns] = self.array[i]
            folded = padded.reshape(padded.shape[0] // side, side, -1, side).sum(axis=(0, 2))
            values[place] = np.fft.rfft2(np.roll(folded, -self.centre[i], (0, 1)))[iy, ix]
        return values

    def _of_profile(self, log_k: np.ndarray | float, fwhm: np.ndarray | float) -> np.ndarray:
        if isinstance(self.given, Gaussian):
            return np.exp(-np.exp(2 * log_k) * fwhm**2 / (16 * math.log(2))) + 0j
        scale = fwhm / (2 * math.sqrt(2 ** (1 / self.given.beta) - 1))
        return moffat_transform(float(self.given.beta), log_k + np.log(scale)) + 0j


class _Same:
    """A PSF that equals another with the same key."""

    def __init__(self, psf: Psf, key):
        self.psf, self.key = psf, key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other) -> bool:
        return self.key == other.key


@lru_cache(maxsize=32)
def _kept_grid(same: _Same, side: int, floor: float) -> Grid:
    return same.psf._make(np.zeros(1, np.int64), side, floor)


def _middle(arrays: np.ndarray) -> np.ndarray:
    """int64 (count, 2), row and column of the centre: of two middle pixels that nearer the centroid."""
    middle = np.empty((len(arrays), 2), np.int64)
    for axis in (0, 1):
        size = arrays.shape[axis + 1]
        along = arrays.sum(axis=2 - axis)
        mean = (along * np.arange(size)).sum(axis=1)
        middle[:, axis] = size // 2 if size % 2 else np.where(mean < (size - 1) / 2, size // 2 - 1, size // 2)
    return middle
