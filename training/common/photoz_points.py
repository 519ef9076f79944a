"""One redshift for each distribution p(z): the median, the mode, or the best for how redshifts are judged.

``best`` has the highest expected score, of a score that falls with \\|dz\\|, dz = (z - z') / (1 + z'), z' the true one:
Tanaka et al. 2018 (PASJ 70, S9) take 1 / (1 + (dz / 0.15)^2), which lowers outliers and widens the core. Here
it is 1 for what is no outlier, with a soft edge, and a narrow peak on top: outliers fall as with that, and the core stays.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from skyset.errors import UserError
from skyset.training.common.photoz_metrics import OUTLIER, distributions, quantile

#: What ``--point`` can be, for people who read cards.
POINTS = {
    "best": "the redshift with the highest expected score",
    "median": "the median of p(z)",
    "mode": "the mode of p(z) of log(1 + z)",
}
#: Of the score: where and how softly its box ends, and height and width of its peak. Chosen by cross-validation on RAIL's
#: training sample, see model_cards/photoz_dc2.
EDGE, SOFT, HEIGHT, PEAK = OUTLIER - 0.01, 0.01, 0.5, 0.015
#: Rows whose scores are made at once: memory does not grow with the table.
_ROWS = 4096


def point(cdf: np.ndarray, grid: np.ndarray, kind: str = "best") -> np.ndarray:
    """A redshift of each distribution, float64 (rows,).

    Args:
        cdf: (rows, nodes), from 0 to 1, never falling.
        grid: (nodes,) of redshift, equally far apart in log(1 + z) or nearly so.
        kind: of ``POINTS``.

    Raises:
        UserError: a ``cdf`` of another shape, or not finite.
    """
    if kind == "median":
        return quantile(cdf, grid)
    cdf, grid, _ = distributions(cdf, grid, np.zeros(len(cdf)))
    middles = (grid[1:] + grid[:-1]) / 2
    scores = np.diag(1 / np.diff(np.log1p(grid)))
    if kind == "best":
        scores = score((middles - middles[:, None]) / (1 + middles[:, None]))  # (true, asked)
    scores = scores.astype(np.float32)
    found = [np.zeros(0)]
    for first in range(0, len(cdf), _ROWS):
        shares = np.diff(cdf[first : first + _ROWS].astype(np.float64), axis=1)
        found.append(_highest(shares.astype(np.float32) @ scores, middles))
    return np.concatenate(found)


def check_point(kind: str) -> None:
    """Raise UserError where ``kind`` is none of ``POINTS``."""
    if kind not in POINTS:
        raise UserError(f"no point {kind!r}; there are {', '.join(POINTS)}")


def score(dz: np.ndarray) -> np.ndarray:
    """What a redshift is worth that is wrong by dz: the larger, the better."""
    return expit((EDGE - np.abs(dz)) / SOFT) + HEIGHT / (1 + (dz / PEAK) ** 2)


def _highest(values: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Where each row is highest, by a parabola through its highest node and the two beside it."""
    rows, values = np.arange(len(values)), values.astype(np.float64)
    top = np.clip(values.argmax(axis=1), 1, len(middles) - 2)
    before, here, after = (values[rows, top + step] for step in (-1, 0, 1))
    bend = 2 * here - before - after
    away = np.where(bend > 0, 0.5 * (after - before) / np.where(bend > 0, bend, 1.0), np.sign(after - before)).clip(-1, 1)
    logs = np.log1p(middles)
    return np.expm1(logs[top] + away * np.where(away > 0, logs[top + 1] - logs[top], logs[top] - logs[top - 1]))
