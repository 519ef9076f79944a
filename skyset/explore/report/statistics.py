"""What a report says of a column: how much of it is missing, its range, its distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skyset.partitions.partition import decoded
from skyset.survey import Column

#: Bars of a histogram; whole numbers that span fewer than this have a bar each.
BARS = 32
#: Percentiles between which a histogram is drawn where single values lie far out, and how far that is: in their distance.
_MIDDLE, _FAR = (0.5, 99.5), 4.0
#: Texts that are shown with their counts.
_SHOWN = 8

MISSING = (
    "Missing are: NaN; an empty text; -1 in whole numbers where no smaller value occurs. Infinite values are counted apart."
)


@dataclass(frozen=True)
class Bins:
    """Edges of bars (bars + 1,); ``whole`` if each bar is one whole number."""

    edges: np.ndarray
    whole: bool


@dataclass(frozen=True)
class Histogram:
    """Counts (bars,) in bins; how many values lie below and above them."""

    bins: Bins
    counts: np.ndarray
    below: int
    above: int


@dataclass(frozen=True)
class Summary:
    """A column's values in a sample.

    Args:
        values: how many were looked at: of arrays, all elements.
        missing: how many of them are missing.
        infinite: how many are plus or minus infinity.
        low, median, high: of those that are there and finite; None where there is none, or they are no numbers.
        histogram: of these.
        texts: the most frequent texts with their counts; () of numbers.
        distinct: how many texts there are.
    """

    values: int
    missing: int
    infinite: int = 0
    low: float | int | None = None
    median: float | None = None
    high: float | int | None = None
    histogram: Histogram | None = None
    texts: tuple[tuple[str, int], ...] = ()
    distinct: int = 0


def summarised(column: Column, values: np.ndarray) -> Summary:
    """Sum up the values of a column, (rows, *shape), or of a ragged one (values,); of bytes, their lengths."""
    if column.is_text and not column.is_bytes:
        counts = Counter(decoded(values.ravel()))
        empty = counts.pop("", 0)
        most = tuple(sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:_SHOWN])
        return Summary(values.size, empty, texts=most, distinct=len(counts))
    numbers, missing = present(column, values)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return Summary(values.size, missing, len(numbers))
    bins = bins_for([finite])
    with np.errstate(over="ignore"):
        median = float(np.median(finite))
    return Summary(
        values.size,
        missing,
        len(numbers) - len(finite),
        finite.min().item(),
        median if np.isfinite(median) else float(np.percentile(finite, 50, method="lower")),
        finite.max().item(),
        None if bins is None else histogram(finite, bins),
    )


def present(column: Column, values: np.ndarray) -> tuple[np.ndarray, int]:
    """The numbers of a column that are not missing, (n,), float64 or integers, and how many are missing."""
    numbers = values.ravel()
    if numbers.dtype.kind == "b":
        return numbers.astype(np.uint8), 0
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float64)
        there = ~np.isnan(numbers)
    elif numbers.dtype.kind == "i" and not column.is_bytes and numbers.size and numbers.min() == -1:
        there = numbers != -1
    else:
        return numbers, 0
    return numbers[there], int(len(numbers) - there.sum())


def bins_for(values: Sequence[np.ndarray]) -> Bins | None:
    """Bins that one or several sets of finite numbers are counted in; None where they span more than can be drawn.

    Where single values lie far out, the bins end at the percentiles 0.5 and 99.5 of all.
    """
    there = [each for each in values if each.size]
    if not there:
        return None
    low, high = min(each.min() for each in there).item(), max(each.max() for each in there).item()
    if all(each.dtype.kind in "iu" for each in there) and high - low < BARS:
        return Bins(np.arange(low, high + 2) - 0.5, whole=True)
    with np.errstate(over="ignore", invalid="ignore"):
        near, far = np.percentile(np.concatenate([each.astype(np.float64) for each in there]), _MIDDLE).tolist()
        if 0 < _FAR * (far - near) < high - low:
            low, high = near, far
        edges = np.array([low, high], np.float64) if low == high else np.linspace(low, high, BARS + 1)
        drawable = np.isfinite(edges).all() and (low == high or (np.diff(edges) > 0).all())
    return Bins(edges, whole=False) if drawable else None


def histogram(values: np.ndarray, bins: Bins) -> Histogram:
    """Count finite numbers in bins; the last bin has its upper edge too."""
    edges = bins.edges
    below, above = int((values < edges[0]).sum()), int((values > edges[-1]).sum())
    if edges[0] == edges[-1]:
        return Histogram(bins, np.array([len(values) - below - above]), below, above)
    return Histogram(bins, np.histogram(values, edges)[0], below, above)
