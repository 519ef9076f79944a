"""Stamps in modes with torch, all objects at once, on the CPU or a GPU."""

from __future__ import annotations

import math

import numpy as np

from skyset.errors import MissingPackage
from skyset.extraction.sersic.batch import Batch
from skyset.extraction.sersic.psf import Grid
from skyset.extraction.sersic.theta import E1, E2


class TorchBatch(Batch):
    """All objects at once, on the CPU or a GPU."""

    def __init__(self, grid: Grid, pixels: np.ndarray, weights: np.ndarray | None, device: str, dtype: str):
        try:
            import torch
        except ImportError as error:
            what = "backend='torch' needs torch: pip install torch, or leave out backend and device"
            raise MissingPackage(what, "torch") from error
        self.xp, self.device, self.real = torch, torch.device(device), getattr(torch, dtype)
        self.rounding = 1e-11 if dtype == "float64" else 1e-6
        super().__init__(grid, pixels, weights)
        self.values, self.ix, self.iy = self.array(self.table.values), self.array(grid.ix), self.array(grid.iy)
        self.amplitude = self.array(grid.amplitude)
        self.phase = self.array(grid.phase.real) + 1j * self.array(grid.phase.imag)
        self.data = self.zeros((self.count, len(grid.ix)), self.phase.dtype)

    def array(self, values):
        return self.xp.as_tensor(np.asarray(values), dtype=self.real, device=self.device)

    def index(self, values):
        return self.xp.as_tensor(values, dtype=self.xp.int64, device=self.device)

    def zeros(self, shape, dtype):
        return self.xp.zeros(shape, dtype=dtype, device=self.device)

    def numpy(self, values) -> np.ndarray:
        return values.cpu().numpy().astype(np.float64)

    def take(self, active: np.ndarray, spectrum) -> None:
        """New data of these objects."""
        self.data[self.index(active)] = spectrum * self._of(self.phase, active).conj()

    def sums(self, model, point) -> np.ndarray:
        """As ``pixel_sums`` has them, (10, objects)."""
        weights = self.xp.ones_like(self.pixels) if self.weights is None else self.weights
        data, away = self.pixels, self.pixels - model
        used = (weights > 0).to(self.real)
        pairs = (
            (weights, used),
            (used, used),
            (1 - used, model),
            *((weights, each) for each in (away, data, point)),
            (weights * away, away),
            (weights * data, data),
            (weights * data, point),
            (weights * point, point),
        )
        return np.stack([self.numpy((one * other).sum(2).sum(1)) for one, other in pairs])

    def _of(self, values, active: np.ndarray):
        return values if len(values) == 1 else values[self.index(active)]

    def _rows(self, log_n):
        """As the numba function of this name, for all objects and nodes: (objects, kappa nodes, 4)."""
        xp, step = self.xp, self.table.n_step
        place = (log_n - self.table.log_n) / step
        i = place.floor().long().clamp(0, self.values.shape[0] - 2)
        f = (place - i)[:, None, None]
        a, b = self.values[i], self.values[i + 1]
        value = (1 + 2 * f) * (1 - f) ** 2 * a[..., :2] + f * f * (3 - 2 * f) * b[..., :2]
        value += f * (1 - f) ** 2 * step * a[..., 2:] + f * f * (f - 1) * step * b[..., 2:]
        slope = 6 * f * (1 - f) / step * (b[..., :2] - a[..., :2])
        slope += (1 - f) * (1 - 3 * f) * a[..., 2:] + f * (3 * f - 2) * b[..., 2:]
        return xp.cat([value, slope], 2)

    def jacobian_columns(self, theta: np.ndarray, active: np.ndarray):
        """As the numba function of this name: (objects, 6, modes); and the phase's angle (objects, modes)."""
        xp, table, side = self.xp, self.table, self.grid.side
        flux, log_r, e1, e2, log_n, x, y = self.array(theta.T)[:, :, None]
        eta = np.hypot(theta[:, E1], theta[:, E2])
        small = np.maximum(eta, 1e-3)
        s = np.where(eta > 1e-3, np.sinh(small) / small, 1 + eta**2 / 6)
        t = np.where(eta > 1e-3, (np.cosh(small) - np.sinh(small) / small) / small**2, 1 / 3 + eta**2 / 30)
        c, s, t = (self.array(each)[:, None] for each in (np.cosh(eta), s, t))
        kk, a, b = self.ix**2 + self.iy**2, self.ix**2 - self.iy**2, 2 * self.ix * self.iy
        ab = a * e1 + b * e2
        square = c * kk + s * ab
        start = log_r + math.log(2 * math.pi / side) - table.log_kappa
        step, nodes = table.kappa_step, self.values.shape[1]
        place = (start + 0.5 * square.log()) / step
        j = place.floor().long().clamp(0, nodes - 2)
        f = place - j
        g = 1 - f
        rows = self._rows(log_n[:, 0])
        lower, upper = (rows.gather(1, each[:, :, None].expand(-1, -1, 4)) for each in (j, j + 1))
        v0, v1, s0, s1 = ((1 + 2 * f) * g * g, f * f * (3 - 2 * f), f * g * g * step, -f * f * g * step)
        h, h_n = (v0 * lower[..., k] + v1 * upper[..., k] + s0 * lower[..., k + 1] + s1 * upper[..., k + 1] for k in (0, 2))
        slope = 6 * f * g / step * (upper[..., 0] - lower[..., 0])
        slope = slope + g * (1 - 3 * f) * lower[..., 1] + f * (3 * f - 2) * upper[..., 1]
        below, beyond = place < 0, place >= nodes - 1
        h = xp.where(below, 1.0, xp.where(beyond, 0.0, h))
        slope, h_n = (xp.where(below | beyond, 0.0, each) for each in (slope, h_n))
        p = self._of(self.amplitude, active)
        along = 0.5 * p * flux * slope / square
        common = s * kk + t * ab
        columns = [
            p * h,
            p * flux * slope,
            along * (e1 * common + s * a),
            along * (e2 * common + s * b),
            p * flux * h_n,
            p * flux * h,
        ]
        return xp.stack(columns, 1), 2 * math.pi / side * (self.ix * x + self.iy * y)

    def normal(self, theta: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        xp = self.xp
        columns, angle = self.jacobian_columns(theta, active)
        model = columns[:, 5]
        residual = self.data[self.index(active)] * (xp.cos(angle) + 1j * xp.sin(angle)) - model
        residual = residual * (self._of(self.amplitude, active) > 0)
        unit = 2 * math.pi / self.grid.side
        moved = xp.stack([-unit * self.ix * model, -unit * self.iy * model], 1)
        shape = columns[:, :5]
        normal = self.xp.zeros((len(active), 7, 7), dtype=self.real, device=self.device)
        normal[:, :5, :5] = shape @ shape.transpose(1, 2)
        normal[:, 5:, 5:] = moved @ moved.transpose(1, 2)
        gradient = xp.cat([(shape @ residual.real[:, :, None])[..., 0], (moved @ residual.imag[:, :, None])[..., 0]], 1)
        chi2 = (residual.real**2 + residual.imag**2).sum(1)
        return self.numpy(chi2) * self.scale, self.numpy(gradient) * self.scale, self.numpy(normal) * self.scale

    def modes(self, theta: np.ndarray, active: np.ndarray, jacobian: bool = False):
        """Modes of the model (active, modes), or of its derivatives (active, 7, modes)."""
        columns, angle = self.jacobian_columns(theta, active)
        turn = self._of(self.phase, active) * (self.xp.cos(angle) - 1j * self.xp.sin(angle))
        model = columns[:, 5] * turn
        if not jacobian:
            return model
        unit = -2j * math.pi / self.grid.side
        moved = self.xp.stack([unit * self.ix * model, unit * self.iy * model], 1)
        return self.xp.cat([columns[:, :5] * turn[:, None], moved], 1)
