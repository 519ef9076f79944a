"""How good photometric redshifts are: points against spectroscopic redshifts, and distributions p(z) against one of each.

A distribution is given by its cumulative function on a grid of redshifts, ``cdf`` (rows, nodes) over ``grid`` (nodes,),
straight lines between nodes: mixtures, bins, samples and ensembles all have one, and are measured in the same way. Before
the first node it is 0, after the last 1.

dz is (z_phot - z_spec) / (1 + z_spec). Do et al. 2024 (arXiv:2410.00271) print two things otherwise, which are measured too:
the scatter of z_phot - z_spec undivided (equation 4), and the loss over 1 + z_phot (equation 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kstest, norm

from skyset.errors import UserError

#: |dz| above which a galaxy is an outlier, and the width of the loss (Tanaka et al. 2018, PASJ 70, S9).
OUTLIER, GAMMA = 0.15, 0.15
#: |z_phot - z_spec| above which it is a catastrophe.
CATASTROPHE = 1.0
#: Of a normal distribution, its standard deviation over its median absolute deviation; 1.48 in the papers.
MAD_TO_SIGMA = 1 / norm.ppf(0.75)
#: Central intervals whose coverage is measured.
INTERVALS = (0.68, 0.95)
#: Names for tables, in their order.
NAMES = {
    "bias": "bias",
    "scatter": "scatter",
    "outliers": "outliers",
    "rms": "RMS",
    "mse": "MSE",
    "loss": "loss",
    "catastrophic": "catastrophic",
    "bias_mean": "mean bias",
    "scatter_paper": "scatter of z_phot - z_spec",
    "loss_paper": "loss over 1 + z_phot",
    "crps": "CRPS",
    "pit_ks": "PIT KS",
    "coverage_68": "in 68 %",
    "coverage_95": "in 95 %",
}
#: What the paper's figure 6 shows over redshift.
FIGURE_6 = ("bias", "scatter", "outliers", "mse", "loss")
#: Of rows whose distributions are looked at together: memory does not grow with the table.
_ROWS = 4096


def point_metrics(z_phot: ArrayLike, z_spec: ArrayLike) -> dict[str, float]:
    """Metrics of points.

    Args:
        z_phot: (rows,) predicted.
        z_spec: (rows,) true.

    Returns:
        ``bias`` (median dz), ``bias_mean``, ``scatter`` (1.48 MAD of dz), ``scatter_paper``, ``outliers`` (share with
        \\|dz\\| > 0.15), ``catastrophic`` (share with \\|z_phot - z_spec\\| > 1), ``rms`` of dz, ``mse`` of z_phot - z_spec,
        ``loss`` and ``loss_paper``: means of 1 - 1 / (1 + (dz / 0.15)^2).

    Raises:
        UserError: no rows, other numbers of rows, or a value that is not finite.
    """
    predicted, true = _redshifts(z_phot, z_spec)
    difference = predicted - true
    dz = difference / (1 + true)
    return {
        "bias": float(np.median(dz)),
        "bias_mean": float(dz.mean()),
        "scatter": scatter(dz),
        "scatter_paper": scatter(difference),
        "outliers": float((np.abs(dz) > OUTLIER).mean()),
        "catastrophic": float((np.abs(difference) > CATASTROPHE).mean()),
        "rms": float(np.sqrt((dz**2).mean())),
        "mse": float((difference**2).mean()),
        "loss": float(_loss(difference, 1 + true).mean()),
        "loss_paper": float(_loss(difference, 1 + predicted).mean()),
    }


def scatter(values: ArrayLike) -> float:
    """1.48 times the median absolute deviation from the median."""
    values = np.asarray(values, np.float64)
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def _loss(difference: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """1 - 1 / (1 + (difference / (0.15 scale))^2), which is 1 where the scale is 0."""
    return difference**2 / np.maximum(difference**2 + (GAMMA * scale) ** 2, np.finfo(float).tiny)


def pdf_metrics(cdf: np.ndarray, grid: np.ndarray, z_spec: ArrayLike) -> dict[str, float]:
    """Metrics of distributions: ``crps`` (mean, in units of z), ``pit_ks``, ``coverage_68``, ``coverage_95``.

    Args:
        cdf: (rows, nodes), from 0 to 1, never falling.
        grid: (nodes,) of redshift, rising.
        z_spec: (rows,) true.

    Raises:
        UserError: as ``point_metrics``, or a ``cdf`` of another shape.
    """
    values = pit(cdf, grid, z_spec)
    metrics = {"crps": float(crps(cdf, grid, z_spec).mean()), "pit_ks": pit_ks(values)}
    return metrics | {f"coverage_{share * 100:.0f}": coverage(values, share) for share in INTERVALS}


def all_metrics(cdf: np.ndarray, grid: np.ndarray, z_spec: ArrayLike, z_phot: ArrayLike | None = None) -> dict[str, float]:
    """``point_metrics`` of ``z_phot``, of the medians without, and ``pdf_metrics``; arguments and errors as there."""
    points = quantile(cdf, grid) if z_phot is None else z_phot
    return point_metrics(points, z_spec) | pdf_metrics(cdf, grid, z_spec)


def pit(cdf: np.ndarray, grid: np.ndarray, z_spec: ArrayLike) -> np.ndarray:
    """Probability integral transform: the cumulative function at the true redshift, float64 (rows,)."""
    cdf, grid, true = distributions(cdf, grid, z_spec)
    left, part = _place(grid, true)
    rows = np.arange(len(true))
    values = cdf[rows, left] * (1 - part) + cdf[rows, left + 1] * part
    return np.where(true < grid[0], 0.0, np.where(true > grid[-1], 1.0, values)).clip(0, 1)


def pit_ks(values: ArrayLike) -> float:
    """Largest distance of the values' cumulative distribution from the uniform one (Kolmogorov-Smirnov)."""
    return float(kstest(np.asarray(values), "uniform").statistic)


def coverage(values: ArrayLike, share: float) -> float:
    """How many true redshifts lie in the central interval that should hold ``share`` of them, of ``pit`` values."""
    return float((np.abs(np.asarray(values) - 0.5) <= share / 2).mean())


def quantile(cdf: np.ndarray, grid: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Redshift below which ``share`` of each distribution lies, float64 (rows,); the median by default."""
    cdf, grid, _ = distributions(cdf, grid, np.zeros(len(cdf)))
    right = np.clip((cdf < share).sum(axis=1), 1, len(grid) - 1)
    rows = np.arange(len(cdf))
    low, high = cdf[rows, right - 1], cdf[rows, right]
    step = np.where(high > low, high - low, 1.0)
    return grid[right - 1] + np.clip((share - low) / step, 0, 1) * (grid[right] - grid[right - 1])


def crps(cdf: np.ndarray, grid: np.ndarray, z_spec: ArrayLike) -> np.ndarray:
    """Continuous ranked probability score (Gneiting & Raftery 2007), float64 (rows,), in units of z; 0 is perfect.

    The integral of (F(z) - [z >= z_spec])^2 over all z, exact for the straight lines between nodes.
    """
    cdf, grid, true = distributions(cdf, grid, z_spec)
    parts = [slice(first, first + _ROWS) for first in range(0, len(true), _ROWS)]
    return np.concatenate([_crps(cdf[part], grid, true[part]) for part in parts])


def _crps(cdf: np.ndarray, grid: np.ndarray, true: np.ndarray) -> np.ndarray:
    step = np.diff(grid)
    low, high = cdf[:, :-1].astype(float), cdf[:, 1:].astype(float)
    below = step * _square(low, high)  # of F^2, where the true redshift is still to come
    above = step * _square(1 - low, 1 - high)
    left, part = _place(grid, true)
    rows, nodes = np.arange(len(true)), np.arange(len(step))
    total = np.where(nodes < left[:, None], below, np.where(nodes > left[:, None], above, 0)).sum(axis=1)
    first, last, width = low[rows, left], high[rows, left], step[left]
    middle = first + part * (last - first)
    total += width * (part * _square(first, middle) + (1 - part) * _square(1 - middle, 1 - last))
    return total + np.maximum(grid[0] - true, 0) + np.maximum(true - grid[-1], 0)


def _square(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Mean of the square of a straight line."""
    return (first * first + first * last + last * last) / 3


def _place(grid: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the node before each redshift, and how far on it is towards the next, 0 to 1."""
    left = np.clip(np.searchsorted(grid, true, "right") - 1, 0, len(grid) - 2)
    return left, np.clip((true - grid[left]) / (grid[left + 1] - grid[left]), 0, 1)


def cdf_of_samples(samples: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Cumulative functions of draws, such as the leaves of a forest or single predictions: share at or below each node.

    Args:
        samples: (rows, draws) of redshift.
        grid: (nodes,), rising.

    Returns:
        float32 (rows, nodes).
    """
    draws = np.sort(np.asarray(samples, np.float64), axis=1)
    return np.stack([np.searchsorted(row, grid, "right") / draws.shape[1] for row in draws]).astype(np.float32)


def by_redshift(z_phot: ArrayLike, z_spec: ArrayLike, edges: Sequence[float]) -> list[dict[str, float]]:
    """``point_metrics`` of each bin of the true redshift that has any, with its ``low``, ``high`` and number of ``rows``."""
    predicted, true = _redshifts(z_phot, z_spec)
    found = []
    for number, (low, high) in enumerate(pairwise(edges)):
        last = number == len(edges) - 2
        inside = (true >= low) & ((true <= high) if last else (true < high))
        if inside.any():
            metrics = point_metrics(predicted[inside], true[inside])
            found.append({"low": float(low), "high": float(high), "rows": int(inside.sum()), **metrics})
    return found


def bootstrap_errors(
    measure: Callable[[np.ndarray], dict[str, float]], rows: int, samples: int = 200, seed: int = 0
) -> dict[str, float]:
    """Standard deviation of metrics over samples of the rows, drawn with replacement; the model is fixed.

    Args:
        measure: metrics of the rows of these numbers, int64 (rows,).
        rows: how many there are.
        samples, seed: how often rows are drawn, and of what random numbers.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(samples):
        for name, value in measure(rng.integers(0, rows, rows)).items():
            found.setdefault(name, []).append(value)
    return {name: float(np.std(values)) for name, values in found.items()}


def metrics_errors(
    z_phot: ArrayLike,
    z_spec: ArrayLike,
    distributions: tuple[np.ndarray, np.ndarray] | None = None,
    samples: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """``bootstrap_errors`` of ``point_metrics`` and, where ``distributions`` (cdf, grid) are given, of ``pdf_metrics``."""
    predicted, true = _redshifts(z_phot, z_spec)
    scores = places = None
    if distributions is not None:
        cdf, grid = distributions
        scores, places = crps(cdf, grid, true), pit(cdf, grid, true)

    def measure(rows: np.ndarray) -> dict[str, float]:
        metrics = point_metrics(predicted[rows], true[rows])
        if scores is not None and places is not None:
            metrics |= {"crps": float(scores[rows].mean()), "pit_ks": pit_ks(places[rows])}
            metrics |= {f"coverage_{share * 100:.0f}": coverage(places[rows], share) for share in INTERVALS}
        return metrics

    return bootstrap_errors(measure, len(true), samples, seed)


def _redshifts(z_phot: ArrayLike, z_spec: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    predicted, true = np.asarray(z_phot, np.float64), np.asarray(z_spec, np.float64)
    if predicted.shape != true.shape or predicted.ndim != 1 or not len(true):
        raise UserError(f"{predicted.shape} predicted and {true.shape} true redshifts cannot be compared")
    for name, values in (("predicted", predicted), ("true", true)):
        if not np.isfinite(values).all():
            raise UserError(f"a {name} redshift is {values[~np.isfinite(values)][0]}: not a finite number")
    return predicted, true


def distributions(cdf: np.ndarray, grid: np.ndarray, z_spec: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As arrays, if they are distributions of so many rows; else UserError."""
    cdf, grid, true = np.asarray(cdf), np.asarray(grid, np.float64), np.asarray(z_spec, np.float64)
    if cdf.shape != (len(true), len(grid)) or len(grid) < 2:
        raise UserError(f"distributions {cdf.shape} of {len(true)} redshifts on a grid of {len(grid)} cannot be measured")
    if not np.isfinite(true).all() or not np.isfinite(cdf).all():
        raise UserError("a distribution or a true redshift is not finite")
    return cdf, grid, true
