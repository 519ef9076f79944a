"""Compiled kernels. All run over whole blocks, padding too: what a row gives does not depend on its place in the block."""

from __future__ import annotations

import numpy as np

from skyset.extraction.compiled import jit

#: Rows that stay in the innermost cache.
_TILE = 512
#: Sums may be taken in several lanes, multiplications and additions fused; NaN and infinity stay what they are.
_FAST = {"contract", "nsz", "reassoc"}
#: Scaled values beyond are taken for it, so that their squares are float32.
FARTHEST = 1e18


@jit(fastmath=_FAST)
def block_moments(values, weight, total, mean, scatter):
    features, rows = values.shape
    for k in range(features):
        row = values[k]
        sum_ = 0.0
        for i in range(rows):
            sum_ += weight[i] * row[i]
        mean[k] = sum_ / total
        for m in range(k + 1):
            other, a, b = values[m], mean[k], mean[m]
            sum_ = 0.0
            for i in range(rows):
                sum_ += weight[i] * (row[i] - a) * (other[i] - b)
            scatter[k, m] = sum_
            scatter[m, k] = sum_


@jit(fastmath=_FAST)
def scale_rows(values, mean, inverse, scaled):
    for k in range(values.shape[0]):
        a, b = mean[k], inverse[k]
        for i in range(values.shape[1]):
            scaled[k, i] = np.float32(min(max((values[k, i] - a) * b, -FARTHEST), FARTHEST))


@jit(fastmath=_FAST)
def nearest_units(scaled, weights, half_squares, without, nearest):
    """The unit of smallest |w|**2 / 2 - x.w, which is half the squared distance less |x|**2 / 2; of equals the first.

    The unit ``without`` is left out, for the second nearest; -1 for none.
    """
    score, best = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    chosen = np.empty(_TILE, np.int32)
    for start in range(0, scaled.shape[1], _TILE):
        other = without[start : start + _TILE]
        best[:] = np.inf
        chosen[:] = 0
        for j in range(weights.shape[0]):
            score[:] = half_squares[j]
            for k in range(weights.shape[1]):
                w, row = weights[j, k], scaled[k, start : start + _TILE]
                for i in range(_TILE):
                    score[i] -= w * row[i]
            unit = np.int32(j)
            for i in range(_TILE):  # choices instead of branches: many rows at a time
                nearer = (score[i] < best[i]) & (other[i] != unit)
                best[i] = score[i] if nearer else best[i]
                chosen[i] = unit if nearer else chosen[i]
        nearest[start : start + _TILE] = chosen


@jit
def add_up(scaled, winner, weight, rows, sums, mass):
    for i in range(rows):
        j, w = winner[i], weight[i]
        mass[j] += w
        for k in range(scaled.shape[0]):
            sums[j, k] += w * scaled[k, i]


@jit
def distances_to(scaled, weights, winner, distance):
    for i in range(scaled.shape[1]):
        square = np.float32(0)
        for k in range(scaled.shape[0]):
            apart = scaled[k, i] - weights[winner[i], k]
            square += apart * apart
        distance[i] = np.sqrt(square)


@jit
def uniform(numbers, key):
    """Float64 in 0..1 for each row number: SplitMix64 (Steele, Lea & Flood 2014) of the number, with the seed's stream."""
    result = np.empty(len(numbers))
    state = _mixed(key + np.uint64(0x9E3779B97F4A7C15))
    for i in range(len(numbers)):
        mixed = _mixed(state + (np.uint64(numbers[i]) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
        result[i] = np.float64(mixed >> np.uint64(11)) * 2.0**-53
    return result


@jit
def _mixed(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@jit
def keep_smallest(winner, values, numbers, best, chosen):
    for i in range(len(winner)):
        if values[i] < best[winner[i]]:
            best[winner[i]] = values[i]
            chosen[winner[i]] = numbers[i]
