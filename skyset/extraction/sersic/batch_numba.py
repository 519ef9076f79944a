"""Stamps in modes on the CPU, object after object."""

from __future__ import annotations

import numpy as np

from skyset.extraction.sersic.batch import Batch
from skyset.extraction.sersic.kernels import jacobian_modes, model_modes, normal_equations, pixel_sums
from skyset.extraction.sersic.psf import Grid


class NumbaBatch(Batch):
    """On the CPU, object after object."""

    def __init__(self, grid: Grid, pixels: np.ndarray, weights: np.ndarray | None):
        super().__init__(grid, pixels, weights)
        self.data = np.empty((2, self.count, len(grid.ix)))

    def take(self, active: np.ndarray, spectrum: np.ndarray) -> None:
        """New data of these objects."""
        turned = spectrum * self._of(self.grid.phase, active).conj()
        self.data[0, active], self.data[1, active] = turned.real, turned.imag

    def sums(self, model: np.ndarray, point: np.ndarray) -> np.ndarray:
        """As ``pixel_sums`` has them, (10, objects)."""
        out = np.empty((10, self.count))
        pixel_sums(self.pixels, np.zeros((0, 0, 0)) if self.weights is None else self.weights, model, point, out)
        return out

    def _of(self, values: np.ndarray, active: np.ndarray) -> np.ndarray:
        return values if len(values) == 1 else values[active]

    def normal(self, theta: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        out = np.empty(len(active)), np.empty((len(active), 7)), np.empty((len(active), 7, 7))
        grid = self.grid
        normal_equations(
            theta,
            active,
            *self.data,
            grid.ix,
            grid.iy,
            grid.amplitude,
            grid.side,
            self.table.values,
            self.axes,
            self.scale,
            *out,
        )
        return out

    def modes(self, theta: np.ndarray, active: np.ndarray, jacobian: bool = False) -> np.ndarray:
        """Modes of the model (active, modes), or of its derivatives (active, 7, modes)."""
        grid, shape = self.grid, (7,) if jacobian else ()
        out = np.empty((len(active), *shape, len(grid.ix)), np.complex128)
        fill = jacobian_modes if jacobian else model_modes
        fill(theta, active, grid.ix, grid.iy, grid.amplitude, grid.phase, grid.side, self.table.values, self.axes, out)
        return out
