"""Levenberg-Marquardt on many objects at once, each until it has converged, within its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from skyset.extraction.compiled import jit
from skyset.extraction.sersic.batch import Batch
from skyset.extraction.sersic.theta import E1, E2

#: Least axis ratio and radius (pixels, of the circle of the same area).
Q_MIN, R_MIN = 0.05, 0.05
#: A fit has converged when a full step would lower chi2 by less than this: parameters are within 0.01 sigma.
TOLERANCE = 1e-4
ETA_MAX = -math.log(Q_MIN)
#: Largest change in one step.
_LONGEST = np.array([np.inf, 1.0, 0.7, 0.7, 0.7, 2.0, 2.0])


@dataclass(frozen=True, eq=False)
class Box:
    """Where parameters may be: (count, 7) each; and the ellipse's |(e1, e2)| at most ``ETA_MAX``."""

    low: np.ndarray
    high: np.ndarray

    def of(self, which: np.ndarray) -> Box:
        return Box(self.low[which], self.high[which])

    def clip(self, theta: np.ndarray) -> np.ndarray:
        theta = np.clip(theta, self.low, self.high)
        eta = np.hypot(theta[:, E1], theta[:, E2])
        theta[:, E1 : E2 + 1] /= np.maximum(eta / ETA_MAX, 1.0)[:, None]
        return theta


@jit(error_model="numpy")
def _frame(theta, gradient, low, high, turn, stuck):
    """Which parameters would leave the box along the gradient, once the ellipse's plane is turned outwards and across."""
    eta = math.hypot(theta[2], theta[3])
    turn[0], turn[1] = (theta[2] / eta, theta[3] / eta) if eta > 0 else (1.0, 0.0)
    for p in range(7):
        stuck[p] = (theta[p] <= low[p] and gradient[p] < 0) or (theta[p] >= high[p] and gradient[p] > 0)
    stuck[2] = eta >= ETA_MAX * (1 - 1e-9) and gradient[2] * turn[0] + gradient[3] * turn[1] > 0
    stuck[3] = False


@jit(error_model="numpy")
def _factor(normal, turn, stuck, damping, unit, lower):
    """Cholesky factor of the matrix in that frame, scaled to a diagonal of 1 by ``unit``; False where it is singular."""
    c, s = turn
    turned = normal.copy()
    for p in range(7):
        a, b = turned[p, 2], turned[p, 3]
        turned[p, 2], turned[p, 3] = c * a + s * b, c * b - s * a
    for p in range(7):
        a, b = turned[2, p], turned[3, p]
        turned[2, p], turned[3, p] = c * a + s * b, c * b - s * a
    for p in range(7):
        unit[p] = 1 / math.sqrt(turned[p, p]) if turned[p, p] > 0 else 1.0
    regular = True
    for p in range(7):
        for q in range(p + 1):
            if stuck[p] or stuck[q]:
                value = 1.0 if p == q else 0.0
            else:
                value = turned[p, q] * unit[p] * unit[q] + (damping if p == q else 0.0)
            for k in range(q):
                value -= lower[p, k] * lower[q, k]
            if p == q:
                regular &= value > 1e-13
                lower[p, p] = math.sqrt(max(value, 1e-13))
            else:
                lower[p, q] = value / lower[q, q]
    return regular


@jit(error_model="numpy")
def _solve(lower, unit, turn, stuck, right, out):
    """The solution for a right side given in the original frame, in that frame."""
    c, s = turn
    for p in range(7):
        value = right[p]
        if p == 2:
            value = c * right[2] + s * right[3]
        if p == 3:
            value = c * right[3] - s * right[2]
        value = 0.0 if stuck[p] else value * unit[p]
        for k in range(p):
            value -= lower[p, k] * out[k]
        out[p] = value / lower[p, p]
    for p in range(6, -1, -1):
        value = out[p]
        for k in range(p + 1, 7):
            value -= lower[k, p] * out[k]
        out[p] = value / lower[p, p]
    for p in range(7):
        out[p] *= unit[p]
    out[2], out[3] = c * out[2] - s * out[3], s * out[2] + c * out[3]


@jit(error_model="numpy")
def _propose(active, theta, gradient, normal, low, high, damping, longest, step, decrease):
    """Damped steps of the active objects, none too long, and by how much undamped ones would lower a quadratic chi2."""
    turn, stuck, unit = np.empty(2), np.empty(7, np.bool_), np.empty(7)
    lower = np.zeros((7, 7))
    for place in range(len(active)):
        i = active[place]
        _frame(theta[i], gradient[i], low[i], high[i], turn, stuck)
        _factor(normal[i], turn, stuck, 1e-12, unit, lower)
        _solve(lower, unit, turn, stuck, gradient[i], step[place])
        decrease[place] = 0.0
        for p in range(7):
            decrease[place] += step[place, p] * gradient[i, p]
        _factor(normal[i], turn, stuck, damping[i], unit, lower)
        _solve(lower, unit, turn, stuck, gradient[i], step[place])
        shrink = 1.0
        for p in range(7):
            shrink = max(shrink, abs(step[place, p]) / longest[p])
        for p in range(7):
            step[place, p] /= shrink


@jit(error_model="numpy")
def _covariances(theta, gradient, normal, low, high, out):
    """Inverses of the normal matrices within the directions that are free; NaN where one is singular."""
    turn, stuck, unit = np.empty(2), np.empty(7, np.bool_), np.empty(7)
    lower, right = np.zeros((7, 7)), np.zeros(7)
    for i in range(len(theta)):
        _frame(theta[i], gradient[i], low[i], high[i], turn, stuck)
        regular = _factor(normal[i], turn, stuck, 0.0, unit, lower)
        for p in range(7):
            right[:] = 0
            right[p] = 1
            _solve(lower, unit, turn, stuck, right, out[i, p])
        if not regular:
            out[i] = np.nan


@dataclass(frozen=True, eq=False)
class Minimum:
    """What Levenberg-Marquardt found: parameters (count, 7), the normal matrices there and covariances (count, 7, 7),
    iterations and whether it converged (count,)."""

    theta: np.ndarray
    normal: np.ndarray
    covariance: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray

    def take(self, rows: np.ndarray, other: Minimum) -> None:
        """Go on from where some objects were."""
        for name in ("theta", "normal", "covariance", "converged"):
            getattr(self, name)[rows] = getattr(other, name)
        self.iterations[rows] += other.iterations


def minimise(
    batch: Batch,
    theta: np.ndarray,
    box: Box,
    max_iterations: int,
    tolerance: float = TOLERANCE,
    normal: np.ndarray | None = None,
) -> Minimum:
    """Levenberg-Marquardt on all objects, each until it has converged; ``normal``: the matrices, where they are known."""
    count, theta = len(theta), theta.copy()
    chi2, gradient, full = batch.evaluate(theta, np.arange(count))
    damping, iterations, converged = np.full(count, 1e-3), np.zeros(count, np.int64), np.zeros(count, bool)
    # Far from the minimum the matrix of full weights will do; near it, or after some steps, the costly one is made. ``age``
    # counts the steps since; negative: not made yet.
    uneven, age, running = batch.weights is not None, np.full(count, -1 if normal is None else 0), np.isfinite(chi2)
    normal = full if normal is None else normal

    def propose(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step, decrease = np.empty((len(active), 7)), np.empty(len(active))
        _propose(active, theta, gradient, normal, box.low, box.high, damping, _LONGEST, step, decrease)
        return step, decrease

    for _ in range(max_iterations + 1):
        active = np.flatnonzero(running)
        if not len(active):
            break
        step, decrease = propose(active)
        if uneven:
            old = age[active]
            due = (old < 0) & ((decrease < 1) | (iterations[active] >= 3)) | (old >= 3)
            if due.any():
                late = active[due]
                normal[late], age[late] = batch.weighted_normal(theta[late], late), 0
                step[due], decrease[due] = propose(late)
        # A step that cannot lower chi2 beyond rounding has nothing left to do either.
        done = (decrease < np.maximum(tolerance, batch.rounding * chi2[active])) & ((age[active] >= 0) | (not uneven))
        converged[active[done]], running[active[done]] = True, False
        active, step = active[~done], step[~done]
        active, step = active[iterations[active] < max_iterations], step[iterations[active] < max_iterations]
        if not len(active):
            break
        trial = box.of(active).clip(theta[active] + step)
        trial_chi2, trial_gradient, trial_normal = batch.evaluate(trial, active)
        better = trial_chi2 <= chi2[active] * (1 + 0.01 * batch.rounding)
        taken = active[better]
        theta[taken], chi2[taken], gradient[taken] = trial[better], trial_chi2[better], trial_gradient[better]
        fresh = age[taken] < 0
        normal[taken[fresh]] = trial_normal[better][fresh]
        damping[active] *= np.where(better, 0.1, 8.0)
        damping[taken] = np.maximum(damping[taken], 1e-9)
        iterations[active] += 1
        age[active] += age[active] >= 0
        running[active[damping[active] > 1e9]] = False
    late = np.flatnonzero((age < 0) & uneven)
    if len(late):
        normal[late] = batch.weighted_normal(theta[late], late)
    covariance = np.empty((count, 7, 7))
    _covariances(theta, gradient, normal, box.low, box.high, covariance)
    return Minimum(theta, normal, covariance, iterations, converged)
