"""What a network has to beat: logistic regression on a few numbers per galaxy."""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from PIL import Image
from sklearn.decomposition import PCA

from skyset.explore import description
from skyset.training.common.images import as_picture
from skyset.training.common.linear import KernelLogistic, Logistic, sigmoid

#: The network's votes in the basic catalogue.
FRACTIONS = ("smooth-or-featured_featured-or-disk_fraction", "disk-edge-on_no_fraction", "has-spiral-arms_no_fraction")


def thumbnail(image, size: int = 53) -> np.ndarray:
    """Pixels of the image averaged down to ``size`` a side, float64 (size * size * 3,)."""
    picture = as_picture(image).convert("RGB").resize((size, size), Image.Resampling.BOX)
    return np.asarray(picture, np.float64).ravel()


def fractions(rows: Dataset) -> np.ndarray | None:
    """The catalogue's automatic vote fractions (rows, 3), None where the dataset has none."""
    if not set(FRACTIONS) <= set(rows.column_names):
        return None
    return np.column_stack([np.asarray(rows[name], np.float64) for name in FRACTIONS])


def score_baselines(train: Dataset, test: Dataset) -> dict[str, np.ndarray]:
    """Probabilities of a ring for the test rows, by the name of the simple model.

    Args:
        train, test: rows with ``image`` and ``label``.
    """
    labels = np.asarray(train["label"])
    described = [np.array([description.describe(image) for image in rows["image"]]) for rows in (train, test)]
    profiles = [rows[:, : 3 * description.RADII] for rows in described]
    pixels = [np.array([thumbnail(image) for image in rows["image"]]) for rows in (train, test)]
    scores = {
        "polar features, kernel logistic regression": KernelLogistic.fit(described[0], labels).probability(described[1]),
        "radial profiles, logistic regression": Logistic.fit(profiles[0], labels, 0.1).probability(profiles[1]),
        "30 principal components, logistic regression": sigmoid(components_scores(*pixels, labels)),
    }
    votes = [fractions(rows) for rows in (train, test)]
    if votes[0] is not None:
        scores["the catalogue's vote fractions, logistic regression"] = Logistic.fit(votes[0], labels).probability(votes[1])
    return scores


def components_scores(train: np.ndarray, test: np.ndarray, labels: np.ndarray, count: int = 30) -> np.ndarray:
    """Log-odds by logistic regression on the first principal components of the training rows."""
    axes = PCA(min(count, len(train) - 1), svd_solver="full").fit(train)
    return Logistic.fit(axes.transform(train), labels).score(axes.transform(test))
