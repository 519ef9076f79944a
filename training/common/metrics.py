"""Numbers that say how good a binary classifier is, from probabilities and labels; numpy only."""

from __future__ import annotations

import numpy as np


def roc_curve(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positive rates at every distinct score.

    Args:
        labels: (rows,) 0 or 1.
        scores: (rows,) higher means more like 1.

    Returns:
        ``false_rate, true_rate, thresholds``: float64 arrays; the first point is (0, 0) at an infinite threshold.

    Raises:
        ValueError: only one class, or a score that is not a number.
    """
    thresholds, false, true = _counts(labels, scores)
    return false / false[-1], true / true[-1], thresholds


def precision_recall_curve(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``precision, recall, thresholds`` at every distinct score, from the highest down; arguments as in ``roc_curve``."""
    thresholds, false, true = _counts(labels, scores)
    return true[1:] / (true[1:] + false[1:]), true[1:] / true[-1], thresholds[1:]


def _counts(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of either class at or above each distinct score; rows of equal score enter together."""
    labels, scores = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    if labels.all() or not labels.any():
        raise ValueError("the labels hold one class only: no curve can be drawn")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not a finite number")
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    true, false = np.cumsum(labels[order])[last_of_equals], np.cumsum(~labels[order])[last_of_equals]
    thresholds = scores[order][last_of_equals]
    return np.append(np.inf, thresholds), np.append(0.0, false), np.append(0.0, true)


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a random 1 scores above a random 0, ties counted half."""
    false_rate, true_rate, _ = roc_curve(labels, scores)
    return float(np.trapezoid(true_rate, false_rate))


def auc_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """Standard error of ``auc`` (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, 837); NaN with a class of one row."""
    labels, scores = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    ones, zeros = np.sort(scores[labels]), np.sort(scores[~labels])
    if min(len(ones), len(zeros)) < 2:
        return float("nan")

    def share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))

    wins, losses = share_below(ones, zeros), share_below(zeros, ones)
    return float(np.sqrt(np.var(wins, ddof=1) / len(ones) + np.var(losses, ddof=1) / len(zeros)))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean precision over the gains in recall (no interpolation)."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(np.sum(np.diff(np.append(0.0, recall)) * precision))


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share of ones and number of rows in each of ``bins`` equal bins of probability that is not empty."""
    labels, probabilities = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    place = np.clip((probabilities * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    mean = np.bincount(place, probabilities, bins)[used] / count[used]
    share = np.bincount(place, labels, bins)[used] / count[used]
    return mean, share, count[used]


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> float:
    """How far probabilities are from frequencies, averaged over bins by their number of rows (Guo et al. 2017)."""
    mean, share, count = calibration(labels, probabilities, bins)
    return float(np.average(np.abs(mean - share), weights=count))


def binary_metrics(labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """All of them by name; ``auc`` and ``average_precision`` only where both classes are present.

    Args:
        labels: (rows,) 0 or 1.
        probabilities: (rows,) of class 1.
        threshold: at and above which a row is called 1, for ``accuracy``, ``precision``, ``recall`` and ``f1``.
    """
    labels, called = np.asarray(labels).astype(bool), np.asarray(probabilities) >= threshold
    hits = float(np.sum(labels & called))
    metrics = {
        "accuracy": float(np.mean(labels == called)),
        "precision": hits / max(1, int(called.sum())),
        "recall": hits / max(1, int(labels.sum())),
        "f1": 2 * hits / max(1, int(called.sum() + labels.sum())),
        "brier": float(np.mean((probabilities - labels) ** 2)),
        "ece": expected_calibration_error(labels, probabilities),
    }
    if labels.any() and not labels.all():
        metrics |= {"auc": auc(labels, probabilities), "average_precision": average_precision(labels, probabilities)}
    return metrics


def bootstrap_errors(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5, samples: int = 500, seed: int = 0
) -> dict[str, float]:
    """Standard deviation of each of ``binary_metrics`` over samples of the rows, drawn with replacement; the model is fixed.

    Samples of one class only are left out of the metrics that need two. Arguments as in ``binary_metrics``.
    """
    rng = np.random.default_rng(seed)
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    found: dict[str, list[float]] = {}
    for _ in range(samples):
        rows = rng.integers(0, len(labels), len(labels))
        for name, value in binary_metrics(labels[rows], probabilities[rows], threshold).items():
            found.setdefault(name, []).append(value)
    return {name: float(np.std(values)) for name, values in found.items()}


def interval(value: float, error: float, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """95 %: the value and 1.96 standard errors on either side, within what the number can be."""
    return max(low, value - 1.96 * error), min(high, value + 1.96 * error)


def binomial_interval(hits: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """68 % of a share ``hits / count`` (Wilson 1927, JASA 22, 209): lowest and highest."""
    share = hits / count
    middle = (share + 0.5 / count) / (1 + 1 / count)
    half = np.sqrt(share * (1 - share) / count + 0.25 / count**2) / (1 + 1 / count)
    return middle - half, middle + half


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (rows, classes) from logits (rows, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
