"""How good predicted classes of exposures are: CCDs vote; confusion, macro F1, usable or not, and what abstaining gains."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from skyset.loaders.megacam_iqa import CLASSES
from skyset.training.common.metrics import auc
from skyset.training.common.quality_data import Known

NAMES = {
    "accuracy": "accuracy",
    "agreement": "agreement with either label",
    "macro_f1": "macro F1",
    "usable_auc": "AUC, usable or not",
    "aurc": "area under the risk-coverage curve",
    "coverage_97": "share decided at 97 % right",
    "ccd_accuracy": "accuracy of single CCDs",
}
#: What is usable; all other classes are not.
GOOD = CLASSES.index("GOOD")
SAMPLES = 500


def votes_of(known: Known, probabilities: np.ndarray) -> tuple[Known, np.ndarray, np.ndarray]:
    """Exposures: what is known of each, the mean probabilities of its CCDs (exposures, classes), and how many of its CCDs
    are right, (exposures, 2) beside how many there are."""
    _, first, place = np.unique(known.exposures, return_index=True, return_inverse=True)
    count = np.bincount(place)
    mean = np.stack([np.bincount(place, column) / count for column in probabilities.T], axis=1)
    right = np.bincount(place, probabilities.argmax(axis=1) == known.labels)
    whole = Known(known.labels[first], known.seconds[first], known.exposures[first])
    return whole, mean, np.stack([right, count], axis=1)


def confusion(labels: np.ndarray, called: np.ndarray, classes: int = len(CLASSES)) -> np.ndarray:
    """How many of each class (rows) are called each (columns)."""
    return np.bincount(labels * classes + called, minlength=classes**2).reshape(classes, classes)


def macro_f1(counts: np.ndarray) -> float:
    """Mean F1 over the classes that are there; of ``confusion``."""
    there = counts.sum(axis=1) > 0
    f1 = 2 * np.diag(counts) / np.maximum(1, counts.sum(axis=0) + counts.sum(axis=1))
    return float(f1[there].mean())


def risk_curve(right: np.ndarray, sure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of rows decided, and of these the share that is wrong, the surest first; rows equally sure come together.

    Args:
        right: (rows,) bool.
        sure: (rows,) how sure the model is.
    """
    order = np.argsort(-sure, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(sure[order]) != 0, True))
    decided = ends + 1
    return decided / len(right), np.cumsum(~right[order])[ends] / decided


def measure(known: Known, probabilities: np.ndarray) -> dict[str, float]:
    """All of ``NAMES``, by exposure but for the last; of what is known of CCDs and their probabilities (rows, classes)."""
    return of_exposures(*votes_of(known, probabilities))


def of_exposures(known: Known, mean: np.ndarray, ccds: np.ndarray) -> dict[str, float]:
    """``measure`` of what ``votes_of`` says."""
    called = mean.argmax(axis=1)
    right = called == known.labels
    coverage, risk = risk_curve(right, mean.max(axis=1))
    safe = coverage[risk <= 0.03]
    found = {
        "accuracy": float(right.mean()),
        "agreement": float((right | (called == known.seconds)).mean()),
        "macro_f1": macro_f1(confusion(known.labels, called)),
        "aurc": float(np.sum(np.diff(coverage, prepend=0) * risk)),
        "coverage_97": float(safe[-1]) if len(safe) else 0.0,
        "ccd_accuracy": float(ccds[:, 0].sum() / ccds[:, 1].sum()),
    }
    unusable = known.labels != GOOD
    if 0 < unusable.sum() < len(unusable):
        found["usable_auc"] = auc(unusable, 1 - mean[:, GOOD])
    return found


def errors_of(known: Known, probabilities: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Standard deviation of each figure over samples of exposures, drawn with replacement, CCDs and all.

    A figure that is the same in all samples has none: with few exposures that says nothing of others.
    """
    whole, mean, ccds = votes_of(known, probabilities)
    rng, found = np.random.default_rng(seed), {}
    for _ in range(SAMPLES):
        rows = rng.integers(0, len(mean), len(mean))
        sample = Known(whole.labels[rows], whole.seconds[rows], whole.exposures[rows])
        for name, value in of_exposures(sample, mean[rows], ccds[rows]).items():
            found.setdefault(name, []).append(value)
    return {name: float(np.std(values)) for name, values in found.items() if np.ptp(values) > 0}


def confusion_table(known: Known, probabilities: np.ndarray) -> str:
    """Markdown: exposures of each class (rows) by what their CCDs vote for (columns)."""
    whole, mean, _ = votes_of(known, probabilities)
    counts = confusion(whole.labels, mean.argmax(axis=1))
    lines = ["| is / called | " + " | ".join(CLASSES) + " | right |", "|---|" + "---|" * (len(CLASSES) + 1)]
    for name, row, hits in zip(CLASSES, counts, np.diag(counts), strict=True):
        share = f"{hits / row.sum():.0%}" if row.sum() else ""
        lines.append(f"| {name} | " + " | ".join(map(str, row)) + f" | {share} |")
    return "\n".join(lines) + "\n"


def confusion_figure(known: Known, probabilities: np.ndarray) -> Figure:
    """The same as a picture, with shares of each class."""
    whole, mean, _ = votes_of(known, probabilities)
    counts = confusion(whole.labels, mean.argmax(axis=1))
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(counts):
        axes.text(column, row, str(value), ha="center", va="center", color="white" if share[row, column] > 0.5 else "black")
    axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=30)
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set(xlabel="called, by the vote of its CCDs", ylabel="label", title=f"{counts.sum()} exposures")
    return figure


def risk_figure(known: Known, models: Mapping[str, np.ndarray]) -> Figure:
    """Share of exposures that are wrong over the share that is decided, the surest first; probabilities (rows, classes)."""
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, probabilities in models.items():
        whole, mean, _ = votes_of(known, probabilities)
        coverage, risk = risk_curve(mean.argmax(axis=1) == whole.labels, mean.max(axis=1))
        axes.step(np.append(0, coverage), np.append(risk[0], risk), where="pre", label=name)
    axes.axhline(0.03, color="0.7", linewidth=0.8, label="97 % right")
    axes.set(xlabel="share of exposures decided, the surest first", ylabel="share of these that is wrong", xlim=(0, 1))
    axes.set_title("What abstaining gains")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    return figure
