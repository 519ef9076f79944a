"""Shares of votes, and labels that follow from them."""

from __future__ import annotations

import numpy as np


def shares(votes: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Votes as shares of all who were asked.

    Args:
        votes, total: integers (rows,); below 0 where a catalogue has none.

    Returns:
        float64 (rows,), NaN where either is not given, or nobody was asked.
    """
    asked = (votes >= 0) & (total > 0)
    return np.divide(votes, total, out=np.full(len(votes), np.nan), where=asked)


def labels(share: np.ndarray, above: float, below: float) -> np.ndarray:
    """Labels by a share of votes.

    Args:
        share: (rows,), NaN where it is not known.
        above, below: more than the one is 1, less than the other 0.

    Returns:
        int64 (rows,), -1 in between and where the share is not known.
    """
    with np.errstate(invalid="ignore"):
        return np.where(share > above, 1, np.where(share < below, 0, -1)).astype(np.int64)
