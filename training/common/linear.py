"""Small models beside the large ones, scikit-learn's: logistic regression (plain and with a kernel), neighbours, folds."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.feature_selection import VarianceThreshold
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skyset.errors import UserError


class Logistic:
    """Logistic regression on standardised columns.

    Args:
        pipeline: of scikit-learn, fitted; its last step is the regression.
    """

    def __init__(self, pipeline: Pipeline):
        self.pipeline = pipeline

    @classmethod
    def fit(cls, rows: np.ndarray, labels: np.ndarray, strength: float = 1.0) -> Logistic:
        """Minimise ``strength`` x (sum of the log losses) + |weights|^2 / 2; the bias is free.

        Args:
            rows: (rows, columns) of features.
            labels: (rows,) 0 or 1.
            strength: larger trusts the data more (``C`` in scikit-learn).

        Raises:
            UserError: the labels are all the same.
        """
        # The weights lie in the space that the rows span: with few rows and many columns it is the smaller one.
        turned = [PCA(svd_solver="full")] if len(rows) < np.shape(rows)[1] else []
        return cls(_fitted(rows, labels, standard(), *turned, _regression(strength)))

    def score(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) log-odds of class 1."""
        return self.pipeline.decision_function(np.asarray(rows, np.float64))

    def probability(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) probability of class 1."""
        return self.pipeline.predict_proba(np.asarray(rows, np.float64))[:, 1]


class KernelLogistic(Logistic):
    """Logistic regression in the space of a Gaussian kernel: a smooth, non-linear boundary for few rows."""

    @classmethod
    def fit(cls, rows: np.ndarray, labels: np.ndarray, strength: float = 1.0, width: float = 1.0) -> KernelLogistic:
        """Args as in ``Logistic.fit``; ``width`` is the kernel's, in units of the square root of the number of columns."""
        gamma = 1 / (2 * width**2 * np.shape(rows)[1])
        space = Nystroem(kernel="rbf", gamma=gamma, n_components=len(rows), random_state=0)  # all rows: no approximation
        return cls(_fitted(rows, labels, standard(), space, _regression(strength)))


def standard() -> Pipeline:
    """Columns with mean 0 and standard deviation 1, as seen in training; columns that are constant there are left out."""
    return make_pipeline(VarianceThreshold(), StandardScaler())


def _regression(strength: float) -> LogisticRegression:
    """By Newton's method, which comes to the minimum itself: lbfgs stops where log-odds are some 1e-5 from it."""
    return LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-8, max_iter=100)


def _fitted(rows: np.ndarray, labels: np.ndarray, *steps) -> Pipeline:
    if len(np.unique(labels)) < 2:
        raise UserError("the rows to learn from are of one class only")
    return make_pipeline(*steps).fit(np.asarray(rows, np.float64), labels)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(scores)))


def neighbours_share(train: np.ndarray, labels: np.ndarray, rows: np.ndarray, k: int = 15) -> np.ndarray:
    """Share of ones among each row's ``k`` nearest training rows by cosine, (rows,)."""
    model = KNeighborsRegressor(min(k, len(train)), algorithm="brute", metric="cosine")
    return model.fit(train, np.asarray(labels, np.float64)).predict(rows)


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold number of each row, (rows,): every fold has the same share of each class, to within one row.

    Not scikit-learn's ``StratifiedKFold``, which deals the rows out otherwise: the published card was measured on these.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), int)
    start = 0
    for value in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == value))
        fold[rows] = (np.arange(len(rows)) + start) % folds
        start += len(rows)
    return fold
