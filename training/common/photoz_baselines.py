"""Redshifts from photometry by simpler models: what a network has to beat, each with the p(z) that it has.

Random forests: Carrasco Kind & Brunner 2013, MNRAS 432, 1483; of all redshifts in the leaves, Meinshausen 2006, JMLR 7, 983.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPRegressor

#: Levels of LightGBM's quantiles.
LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
NEIGHBOURS, TREES = 10, 100
#: Share of the training rows that the MLP does not learn from, whose errors are its p(z).
HELD_OUT = 0.2

#: What p(z) is of each, for cards.
HOW = {
    "random forest": f"scikit-learn's, {TREES} trees, leaves of 3 or more: p(z) of the redshifts in a galaxy's leaves",
    "10 neighbours": f"p(z) of the redshifts of the {NEIGHBOURS} nearest training galaxies in standardised features",
    "MLP": "scikit-learn's, two layers of 100, early stopping: p(z) of its errors dz on the fifth of the training rows "
    "that it left out",
    "LightGBM": f"{len(LEVELS)} quantile regressions with its defaults, straight lines between them",
}


def score_baselines(
    train: np.ndarray, redshifts: np.ndarray, test: np.ndarray, grid: np.ndarray, seed: int = 0
) -> Iterator[tuple[str, np.ndarray]]:
    """Names of models and their cumulative functions of the test rows, float32 (rows, nodes); LightGBM's if it is there.

    Args:
        train: standardised features (rows, features).
        redshifts: (rows,) of them.
        test: features (rows, features).
        grid: (nodes,) of redshift.
        seed: of forest and MLP.
    """
    yield "random forest", _forest(train, redshifts, test, grid, seed)
    yield f"{NEIGHBOURS} neighbours", _neighbours(train, redshifts, test, grid)
    yield "MLP", _mlp(train, redshifts, test, grid, seed)
    if (cdf := _lightgbm(train, redshifts, test, grid, seed)) is not None:
        yield "LightGBM", cdf


def _steps(rows: np.ndarray, redshifts: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Cumulative functions of weighted training redshifts, given the weights (rows, training rows)."""
    order = np.argsort(redshifts)
    total = np.cumsum(rows[:, order], axis=1)
    total = np.concatenate([np.zeros((len(rows), 1), total.dtype), total / total[:, -1:]], axis=1)
    return total[:, np.searchsorted(redshifts[order], grid, "right")].astype(np.float32)


def _forest(train, redshifts, test, grid, seed: int, at_once: int = 512) -> np.ndarray:
    forest = RandomForestRegressor(TREES, min_samples_leaf=3, max_features=0.5, random_state=seed).fit(train, redshifts)
    leaves, found = forest.apply(train), []
    for first in range(0, len(test), at_once):
        places = forest.apply(test[first : first + at_once])
        weights = np.zeros((len(places), len(train)), np.float32)
        for tree in range(TREES):
            size = np.bincount(leaves[:, tree])
            together = places[:, tree, None] == leaves[None, :, tree]
            weights += together / size[places[:, tree], None]
        found.append(_steps(weights, redshifts, grid))
    return np.concatenate(found)


def _neighbours(train, redshifts, test, grid) -> np.ndarray:
    near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train))).fit(train).kneighbors(test, return_distance=False)
    return np.stack([np.searchsorted(np.sort(row), grid, "right") / len(row) for row in redshifts[near]]).astype(np.float32)


def _mlp(train, redshifts, test, grid, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(train))
    held_out, used = np.split(order, [max(1, round(HELD_OUT * len(train)))])
    mlp = MLPRegressor(hidden_layer_sizes=(100, 100), early_stopping=True, max_iter=300, random_state=seed)
    mlp.fit(train[used], redshifts[used])
    dz = np.sort((redshifts[held_out] - mlp.predict(train[held_out])) / (1 + redshifts[held_out]))
    # z = (z_phot + dz) / (1 - dz), which rises with dz: its place among the errors is that of dz
    z_phot = mlp.predict(test)[:, None]
    return (np.searchsorted(dz, (grid - z_phot) / (1 + grid), "right") / len(dz)).astype(np.float32)


def _lightgbm(train, redshifts, test, grid, seed: int) -> np.ndarray | None:
    try:
        from lightgbm import LGBMRegressor
    except ImportError:
        return None
    models = (LGBMRegressor(objective="quantile", alpha=level, random_state=seed, verbose=-1, n_jobs=1) for level in LEVELS)
    quantiles = np.sort(np.stack([model.fit(train, redshifts).predict(test) for model in models], axis=1), axis=1)
    return np.stack([np.interp(grid, row, LEVELS, left=0.0, right=1.0) for row in quantiles]).astype(np.float32)
