"""Stamps of one size in modes, and what the minimiser asks of them; numba and torch fill in how it is computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from skyset.extraction.hankel import sersic_table
from skyset.extraction.sersic.psf import Grid
from skyset.extraction.sersic.theta import E1, E2, F, N, R

#: ln r_c of a point source: its transform is 1 everywhere.
POINT = -30.0


class Batch(ABC):
    """Stamps of one size, and what Levenberg-Marquardt asks of them. Parameters and results are numpy arrays.

    Args:
        grid: the modes.
        pixels: (count, side, side), in units of the noise of a pixel of weight 1.
        weights: as ``pixels``, 1 at most; None: all 1.
    """

    xp: Any = np
    weights: Any  # of the kind of xp's arrays; None: all 1
    #: Relative error of chi2 from rounding, generously.
    rounding = 1e-11

    def __init__(self, grid: Grid, pixels: np.ndarray, weights: np.ndarray | None):
        self.grid, self.count = grid, len(pixels)
        self.loaded = False
        self.scale = 2 / grid.side**2
        self.width = int(grid.ix.max()) + 1
        self.pixels, self.weights = self.array(pixels), None if weights is None else self.array(weights)
        self.table = sersic_table()
        self.axes = np.array([self.table.log_n, self.table.n_step, self.table.log_kappa, self.table.kappa_step])
        rows = grid.iy % grid.side
        self.flat = self.index(rows * self.width + grid.ix)
        mirrored = np.flatnonzero(grid.ix == 0)
        self.mirrored, self.mirror = self.index(mirrored), self.index((-grid.iy[mirrored]) % grid.side * self.width)

    @abstractmethod
    def take(self, active: np.ndarray, spectrum) -> None:
        """New data of these objects, (active, modes)."""

    @abstractmethod
    def normal(self, theta: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `evaluate`, of the data that were taken."""

    @abstractmethod
    def modes(self, theta: np.ndarray, active: np.ndarray, jacobian: bool = False) -> Any:
        """Modes of the model, (active, modes), or with its derivatives (active, 7, modes)."""

    @abstractmethod
    def sums(self, model, point) -> np.ndarray:
        """Ten sums over the pixels of each object, (10, count), see `closing`."""

    def array(self, values):
        return np.asarray(values, np.float64)

    def index(self, values):
        return values

    def zeros(self, shape, dtype):
        return np.zeros(shape, dtype)

    def numpy(self, values) -> np.ndarray:
        return values

    def spectrum(self, images):
        """Modes of images, the PSF's phase taken off: (count, modes)."""
        fft, side = self.xp.fft, self.grid.side
        half = fft.fft(fft.rfft(images, side, 2)[:, :, : self.width], side, 1)
        return half.reshape(len(images), -1)[:, self.flat]

    def images(self, modes):
        """Images, with a mean of 0, of (count, modes)."""
        fft, side = self.xp.fft, self.grid.side
        half = self.zeros((len(modes), side * self.width), modes.dtype)
        half[:, self.flat] = modes
        half[:, self.mirror] = modes[:, self.mirrored].conj()
        return fft.irfft(fft.ifft(half.reshape(-1, side, self.width), side, 1), side, 2)

    def evaluate(self, theta: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """chi2 (active,), -gradient / 2 (active, 7) and the normal matrix (active, 7, 7), in units of chi2.

        chi2 counts modes or, with weights, pixels; the matrix is that of full weights.
        """
        if self.weights is None:
            self.load()
            return self.normal(theta, active)
        chi2 = self._refill(theta, active)
        return chi2, *self.normal(theta, active)[1:]

    def load(self) -> None:
        """Take the pixels as the data, once."""
        if not self.loaded:
            self.take(np.arange(self.count), self.spectrum(self.pixels))
            self.loaded = True

    def _refill(self, theta: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Pixels of less weight are filled with the model and its background: new data for these objects, and their chi2."""
        which = self.index(active)
        model, weights = self.images(self.modes(theta, active)), self.weights[which]
        away = self.pixels[which] - model
        weighted = weights * away
        total = weights.sum(2).sum(1)
        level = (weighted.sum(2).sum(1) / total)[:, None, None]
        weighted -= level * weights
        self.take(active, self.spectrum(model + weighted))
        chi2 = (weighted * (away - level)).sum(2).sum(1)
        return self.numpy(chi2)

    def weighted_normal(self, theta: np.ndarray, active: np.ndarray) -> np.ndarray:
        """The normal matrix with the weights, the background's part taken off: (active, 7, 7)."""
        normal = np.empty((len(active), 7, 7))
        size = 1 if self.xp is np else max(1, (1 << 23) // self.grid.side**2)  # on a CPU, what stays in its cache
        for start in range(0, len(active), size):
            part = active[start : start + size]
            modes = self.modes(theta[start : start + size], part, jacobian=True)
            images = self.images(modes.reshape(-1, modes.shape[-1])).reshape(len(part), 7, -1)
            weights = self.weights[self.index(part)].reshape(len(part), 1, -1)
            weighted = images * weights
            background = weighted.sum(2)
            products = weighted @ (images.transpose(0, 2, 1) if self.xp is np else images.transpose(1, 2))
            products -= background[:, :, None] * background[:, None, :] / weights.sum(2)[:, :, None]
            normal[start : start + size] = self.numpy(products)
        return normal

    def model(self, theta: np.ndarray, active: np.ndarray):
        """Images of the model, with all of its light."""
        flux = self.array(theta[:, F])[:, None, None]
        return self.images(self.modes(theta, active)) + flux / self.grid.side**2

    def closing(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Reduced chi2 over pixels, background, share of the light on unused pixels, and by how much chi2 is less than that
        of the best point source at the same place, of all objects."""
        everything, point = np.arange(self.count), theta.copy()
        point[:, [F, R, E1, E2, N]] = 1.0, POINT, 0.0, 0.0, 0.0
        total, used, dark, a, d, p, aa, dd, dp, pp = self.sums(
            self.model(theta, everything), self.images(self.modes(point, everything))
        )
        # Less what a constant background takes.
        square, by_data = aa - a * a / total, dd - d * d / total
        by_point = np.maximum(dp - d * p / total, 0) ** 2 / (pp - p * p / total)
        unseen = np.clip(dark / np.where(theta[:, F] == 0, np.nan, theta[:, F]), 0, 1)
        return square / np.maximum(used - 8, 1), a / total, unseen, by_data - by_point - square
