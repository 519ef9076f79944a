"""Small models beside the large ones: logistic regression (plain and with a kernel), principal components, neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Standard:
    """Columns shifted and scaled to mean 0 and standard deviation 1, as seen in training; constant columns become 0."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Standard:
        spread = rows.std(axis=0)
        return cls(rows.mean(axis=0), np.where(spread > 1e-9, 1 / np.maximum(spread, 1e-9), 0.0))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.mean) * self.scale


@dataclass
class Logistic:
    """Logistic regression on standardised columns."""

    standard: Standard
    weights: np.ndarray
    bias: float

    @classmethod
    def fit(cls, rows: np.ndarray, labels: np.ndarray, strength: float = 1.0, iterations: int = 50) -> Logistic:
        """Minimise ``strength`` x (sum of the log losses) + |weights|^2 / 2, by Newton's method.

        Args:
            rows: (rows, columns) of features.
            labels: (rows,) 0 or 1.
            strength: larger trusts the data more (``C`` in scikit-learn).
        """
        standard = Standard.of(np.asarray(rows, np.float64))
        x = standard(np.asarray(rows, np.float64))
        # The weights lie in the space that the rows span: with few rows and many columns it is the smaller one.
        axes = np.linalg.svd(x, full_matrices=False)[2] if len(x) < x.shape[1] else np.eye(x.shape[1])
        x = np.column_stack([x @ axes.T, np.ones(len(x))])
        ridge = np.append(np.ones(x.shape[1] - 1), 1e-9)  # the bias is free
        w = _newton(x, np.asarray(labels, np.float64), np.diag(ridge), strength, iterations)
        return cls(standard, w[:-1] @ axes, float(w[-1]))

    def score(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) log-odds of class 1."""
        return self.standard(np.asarray(rows, np.float64)) @ self.weights + self.bias

    def probability(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) probability of class 1."""
        return sigmoid(self.score(rows))


def _newton(x: np.ndarray, y: np.ndarray, penalty: np.ndarray, strength: float, iterations: int) -> np.ndarray:
    """Minimiser of ``strength`` x log loss + w'(penalty)w / 2: Newton steps, halved while they make it worse."""
    w = np.zeros(x.shape[1])

    def cost(weights: np.ndarray) -> float:
        margin = x @ weights
        return strength * float(np.sum(np.logaddexp(0, margin) - y * margin)) + 0.5 * float(weights @ penalty @ weights)

    now = cost(w)
    for _ in range(iterations):
        p = sigmoid(x @ w)
        gradient = strength * (x.T @ (p - y)) + penalty @ w
        curvature = strength * (x.T * (p * (1 - p))) @ x + penalty
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(w)), gradient)
        size = 1.0
        while size > 1e-6 and cost(w - size * step) > now:
            size /= 2
        w = w - size * step
        before, now = now, cost(w)
        if before - now < 1e-9 * (1 + abs(now)):
            break
    return w


@dataclass
class KernelLogistic:
    """Logistic regression in the space of a Gaussian kernel: a smooth, non-linear boundary for few rows."""

    standard: Standard
    anchors: np.ndarray
    weights: np.ndarray
    bias: float
    width: float

    @classmethod
    def fit(cls, rows: np.ndarray, labels: np.ndarray, strength: float = 1.0, width: float = 1.0) -> KernelLogistic:
        """Args as in ``Logistic.fit``; ``width`` is the kernel's, in units of the square root of the number of columns."""
        standard = Standard.of(np.asarray(rows, np.float64))
        anchors = standard(np.asarray(rows, np.float64))
        kernel = gaussian_kernel(anchors, anchors, width)
        x = np.column_stack([kernel, np.ones(len(kernel))])
        penalty = np.zeros((len(kernel) + 1, len(kernel) + 1))
        penalty[:-1, :-1] = kernel
        w = _newton(x, np.asarray(labels, np.float64), penalty, strength, 50)
        return cls(standard, anchors, w[:-1], float(w[-1]), width)

    def score(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) log-odds of class 1."""
        kernel = gaussian_kernel(self.standard(np.asarray(rows, np.float64)), self.anchors, self.width)
        return kernel @ self.weights + self.bias

    def probability(self, rows: np.ndarray) -> np.ndarray:
        return sigmoid(self.score(rows))


def gaussian_kernel(a: np.ndarray, b: np.ndarray, width: float = 1.0) -> np.ndarray:
    """exp(-d^2 / (2 width^2 columns)) for all pairs of rows, (len(a), len(b))."""
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.exp(-np.clip(square, 0, None) / (2 * width**2 * a.shape[1]))


def sigmoid(scores: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(scores)))


def principal_components(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``mean, components``: (columns,) and (count, columns), of the largest variance first."""
    mean = rows.mean(axis=0)
    _, _, axes = np.linalg.svd(rows - mean, full_matrices=False)
    return mean, axes[:count]


def neighbours_share(train: np.ndarray, labels: np.ndarray, rows: np.ndarray, k: int = 15, chunk: int = 4096) -> np.ndarray:
    """Share of ones among each row's ``k`` nearest training rows by cosine, (rows,); rows at a time bound the memory."""
    unit = _unit(np.asarray(train, np.float32))
    labels = np.asarray(labels, np.float64)
    k = min(k, len(unit))
    shares = []
    for start in range(0, len(rows), chunk):
        cosine = _unit(np.asarray(rows[start : start + chunk], np.float32)) @ unit.T
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        shares.append(labels[nearest].mean(axis=1))
    return np.concatenate(shares)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold number of each row, (rows,): every fold has the same share of each class, to within one row."""
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), int)
    start = 0
    for value in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == value))
        fold[rows] = (np.arange(len(rows)) + start) % folds
        start += len(rows)
    return fold
