"""Pairs of rows of two tables: by position on the sky within a radius, or by key.

Positions are matched by zones (Gray, Nieto-Santisteban & Szalay 2006, MSR-TR-2006-52): the sky is cut into stripes of equal
declination, and the objects of a stripe are sorted by right ascension. No pair within a separation r can be lost, because
two inequalities hold for it everywhere on the sphere, at the poles and across RA = 0 too::

    |dec2 - dec1| <= r        |ra2 - ra1| <= arcsin(sin r / cos dec1), or anything where dec1 is within r of a pole

They give the candidates of an object as one run of sorted objects in each of at most two stripes. Neighbouring HEALPix cells
would be nine runs, and their shapes, largest near the poles and with only seven neighbours at some corners, have no bound
as short as these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import UserError

#: Pairs that one call gives at most: 24 bytes each, and as much again for a moment while they are put together.
MAX_PAIRS = 200_000_000
MAX_RADIUS_ARCSEC = 90 * 3600.0
#: Added to the radius where candidates are looked up, in degrees: far more than rounding could lose.
_SLACK_DEG = 1e-6
#: A stripe's number and the right ascension in units of 360 / 2**34 degrees (0.08 mas) make one sorted int64.
_RA_BITS = 34
_RA_UNITS = 2**_RA_BITS / 360.0
#: Candidates that are looked at together; an object with more than these makes a chunk alone.
_CHUNK = 1 << 18


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of rows of two catalogues, sorted by the left row.

    Attributes:
        left, right: int64 (pairs,), row numbers in the two catalogues.
        separation: float64 (pairs,), arcsec; None where positions were not looked at.
    """

    left: np.ndarray
    right: np.ndarray
    separation: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.left)

    def where(self, keep: np.ndarray) -> Pairs:
        """Those for which ``keep``, bool (pairs,), is true."""
        return Pairs(self.left[keep], self.right[keep], None if self.separation is None else self.separation[keep])


def match_positions(ra1, dec1, ra2, dec2, radius_arcsec: float, max_pairs: int = MAX_PAIRS) -> Pairs:
    """All pairs whose separation, as given in the answer, is not larger than the radius.

    Args:
        ra1, dec1: left positions, (n,), degrees; any right ascension is taken modulo 360.
        ra2, dec2: right positions, (m,), degrees.
        radius_arcsec: 0 (the same position) to 90 degrees.
        max_pairs: more than these are an error. Where there could be more, they are counted before any is kept.

    Returns:
        Pairs sorted by left row, separation and right row.

    Raises:
        UserError: a position is missing, NaN or not on the sky, the radius is out of range, or there are too many pairs.
        ValueError: ra and dec are not one-dimensional and of one length.
    """
    if not 0 <= radius_arcsec <= MAX_RADIUS_ARCSEC:
        raise UserError(f"radius is {radius_arcsec} arcsec; it must be from 0 to {MAX_RADIUS_ARCSEC:g} (90 degrees)")
    left, right = _positions(ra1, dec1, "left"), _positions(ra2, dec2, "right")
    runs, right_order = _candidates(*left, *right, radius_arcsec / 3600)

    def found() -> Iterator[Pairs]:
        for pairs in _chunks(runs, right_order):
            separation = separation_arcsec(*(x[pairs.left] for x in left), *(x[pairs.right] for x in right))
            close = separation <= radius_arcsec
            yield Pairs(pairs.left[close], pairs.right[close], separation[close])

    if runs.counts.sum() > max_pairs:
        _check_count((len(pairs) for pairs in found()), max_pairs, f"within {radius_arcsec:g} arcsec")
    return _joined(map(_sorted, found()))


def separation_arcsec(ra1, dec1, ra2, dec2) -> np.ndarray:
    """Great-circle separations, float64, of positions in degrees, by the haversine formula.

    Differences are taken in degrees before any rounding, so that small separations are as accurate as the positions
    (relative error some 1e-15; near 180 degrees 1e-8).
    """
    ra = np.abs(np.subtract(ra1, ra2, dtype=np.float64))
    ra = np.minimum(ra, np.abs(360.0 - ra))
    dec = np.subtract(dec1, dec2, dtype=np.float64)
    cosines = np.cos(np.radians(dec1, dtype=np.float64)) * np.cos(np.radians(dec2, dtype=np.float64))
    square = np.sin(np.radians(dec / 2)) ** 2 + cosines * np.sin(np.radians(ra / 2)) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.minimum(square, 1.0)))) * 3600


def _positions(ra, dec, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Checked degrees, float64, with 0 <= ra <= 360; masked values count as NaN."""
    ra, dec = (np.ma.filled(np.ma.asarray(x).astype(np.float64), np.nan) for x in (ra, dec))
    if ra.ndim != 1 or ra.shape != dec.shape:
        raise ValueError(f"{side} ra has shape {ra.shape}, dec {dec.shape}")
    if bad := int(np.count_nonzero(~(np.isfinite(ra) & np.isfinite(dec)))):
        raise UserError(f"{bad} of {len(ra)} positions of the {side} catalogue are missing (NaN or infinite)")
    if bad := int(np.count_nonzero(np.abs(dec) > 90)):
        raise UserError(f"{bad} of {len(ra)} positions of the {side} catalogue are not on the sky: dec beyond +-90 degrees")
    return np.mod(ra, 360.0), dec


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of candidates, sorted by ``rows``: the left row, where the run starts in the right order, and its length."""

    rows: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


def _candidates(ra1, dec1, ra2, dec2, radius_deg: float) -> tuple[_Runs, np.ndarray]:
    """Runs of all right objects that may lie within the radius of each left one, and the right rows' order, int64."""
    reach = radius_deg + _SLACK_DEG
    height = 2.5 * reach  # more than the 2 that a circle is high: it touches two stripes at most, whatever is rounded
    keys = _zone_keys(_stripe(dec2, height), ra2)
    right_order = np.argsort(keys)
    keys = np.append(keys[right_order], np.iinfo(np.int64).max)  # a last one that no search goes beyond
    # Left objects in the order of the right ones look at neighbouring memory.
    order = np.argsort(_zone_keys(_stripe(dec1, height), ra1))
    ra1, dec1 = ra1[order], dec1[order]
    low, high = _stripe(dec1 - reach, height), _stripe(dec1 + reach, height)
    runs = []
    for rows, west, east in _ra_ranges(ra1, dec1, reach):
        runs.append(_look_up(keys, rows, low[rows], west, east))
        two = high[rows] > low[rows]
        runs.append(_look_up(keys, rows[two], high[rows[two]], west[two], east[two]))
    rows, starts, counts = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    rows = order[rows]
    by_row = np.argsort(rows, kind="stable")
    return _Runs(rows[by_row], starts[by_row], counts[by_row]), right_order


def _stripe(dec: np.ndarray, height: float) -> np.ndarray:
    return np.floor((dec + 90.0) / height).astype(np.int64)


def _zone_keys(stripe: np.ndarray, ra: np.ndarray) -> np.ndarray:
    """Sorted as stripe, then right ascension. Every step is monotonic: rounding cannot swap two objects."""
    return (stripe << _RA_BITS) + np.minimum((ra * _RA_UNITS).astype(np.int64), 2**_RA_BITS - 1)


def _ra_ranges(ra: np.ndarray, dec: np.ndarray, reach: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Where pairs can lie in right ascension: (rows, west, east) within 0..360, a second range where RA = 0 is crossed."""
    polar = np.abs(dec) + reach + _SLACK_DEG >= 90.0
    sine = np.sin(np.radians(reach)) / np.where(polar, 1.0, np.cos(np.radians(dec)))
    width = np.where(polar, 360.0, np.degrees(np.arcsin(np.minimum(sine, 1.0))))
    west, east = ra - width, ra + width
    yield np.arange(len(ra)), np.maximum(west, 0.0), np.minimum(east, 360.0)
    rows = np.flatnonzero((west < 0) & ~polar)
    yield rows, west[rows] + 360.0, np.full(len(rows), 360.0)
    rows = np.flatnonzero((east >= 360) & ~polar)
    yield rows, np.zeros(len(rows)), east[rows] - 360.0


def _look_up(keys: np.ndarray, rows: np.ndarray, stripe: np.ndarray, west: np.ndarray, east: np.ndarray) -> tuple:
    """Runs of ``keys`` between west and east in a stripe, of the rows that have any: (rows, starts, counts)."""
    first, last = _zone_keys(stripe, west), _zone_keys(stripe, east)
    starts = np.searchsorted(keys, first)
    some = np.flatnonzero(keys[starts] <= last)  # most objects of most catalogues have no candidate: no second search
    starts = starts[some]
    return rows[some], starts, np.searchsorted(keys, last[some], side="right") - starts


def _chunks(runs: _Runs, right_order: np.ndarray) -> Iterator[Pairs]:
    """Candidate pairs in pieces of about ``_CHUNK``, all those of a left row in one piece."""
    if not len(runs.rows):
        return
    ends = np.append(np.flatnonzero(np.diff(runs.rows)) + 1, len(runs.rows))  # of each left row's runs
    totals = np.append(0, np.cumsum(runs.counts)[ends - 1])  # candidates before each left row
    group = begin = 0
    while begin < len(runs.rows):
        group = max(group + 1, int(np.searchsorted(totals, totals[group] + _CHUNK, side="right")) - 1)
        piece = slice(begin, ends[group - 1])
        counts = runs.counts[piece]
        yield Pairs(np.repeat(runs.rows[piece], counts), right_order[expanded(runs.starts[piece], counts)])
        begin = piece.stop


def expanded(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``starts[0], starts[0] + 1, ...`` as many as ``counts[0]``, and so on."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _sorted(pairs: Pairs) -> Pairs:
    if len(pairs) < 2 or np.all(pairs.left[1:] > pairs.left[:-1]):
        return pairs
    keys = (pairs.right, pairs.left) if pairs.separation is None else (pairs.right, pairs.separation, pairs.left)
    return pairs.where(np.lexsort(keys))


def _check_count(counts: Iterator[int] | Sequence[int], max_pairs: int, which: str) -> None:
    total = 0
    for count in counts:
        total += count
        if total > max_pairs:
            raise UserError(f"more than {max_pairs:,} pairs {which}: ask for less, or allow more (max_pairs)")


def merged(parts: Iterable[Pairs]) -> Pairs:
    """Several lots of pairs with separations as one, sorted by left row, separation and right row."""
    return _sorted(_joined(parts))


def _joined(parts: Iterable[Pairs]) -> Pairs:
    every = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)), *parts]
    return Pairs(*(np.concatenate([getattr(part, name) for part in every]) for name in ("left", "right", "separation")))


def nearest(pairs: Pairs, one_to_one: bool = False) -> Pairs:
    """The nearest right row of each left row; of equally near ones the first.

    Args:
        pairs: as ``match_positions`` gives them.
        one_to_one: only those where the left row is also the nearest of the right one.

    Raises:
        UserError: the pairs have no separations.
    """
    if pairs.separation is None:
        raise UserError("pairs that were matched by key have no separations, so none is the nearest")
    chosen = _first_of(pairs.left)
    if one_to_one:
        order = np.lexsort((pairs.left, pairs.separation, pairs.right))
        back = np.zeros(len(pairs), bool)
        back[order] = _first_of(pairs.right[order])
        chosen &= back
    return pairs.where(chosen)


def _first_of(rows: np.ndarray) -> np.ndarray:
    """True where a run of equal rows begins."""
    return np.append(True, rows[1:] != rows[:-1])[: len(rows)]


def match_keys(left, right, max_pairs: int = MAX_PAIRS) -> Pairs:
    """All pairs of equal keys; a key that is repeated gives every combination.

    Keys are compared exactly: letter case, blanks and leading zeros matter, and 64-bit integers never pass through floating
    point. Integers on one side and text on the other are compared as written in decimal digits.

    Args:
        left, right: keys, (n,) and (m,): Arrow arrays, numpy arrays (S, U, integers, masked ones too), Series or lists.
            Missing, empty and blank ones match nothing.
        max_pairs: more than these are an error.

    Returns:
        Pairs sorted by left and right row, without separations.

    Raises:
        UserError: keys are neither text nor integers (floating point does not hold 64-bit identifiers), or there are too
            many pairs.
    """
    left, right = _keys(left, "left"), _keys(right, "right")
    if left.type != right.type:
        left, right = left.cast(pa.large_string()), right.cast(pa.large_string())
    codes = pa.concat_arrays([left, right]).dictionary_encode()
    distinct = len(codes.dictionary)
    # Missing keys get a number of their own, one beyond the last.
    numbers = pc.fill_null(codes.indices, distinct).to_numpy()
    left, right = numbers[: len(left)], numbers[len(left) :]
    counts = np.bincount(right, minlength=distinct + 1)
    order, starts = np.argsort(right, kind="stable"), np.cumsum(counts) - counts
    counts[distinct] = 0
    _check_count([int(counts[left].sum())], max_pairs, "of equal keys")
    rows = np.repeat(np.arange(len(left)), counts[left])
    return Pairs(rows, order[expanded(starts[left], counts[left])])


def _keys(values, side: str) -> pa.Array:
    """Keys as one Arrow array, int64 or large_string; null where there is none."""
    try:
        if not isinstance(values, (pa.Array, pa.ChunkedArray)):
            values = pa.array(_native(values), from_pandas=True)
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_integer(values.type):
            return values.cast(pa.int64())
        if not is_text(values.type):
            advice = "; floating point does not hold 64-bit identifiers" * pa.types.is_floating(values.type)
            raise UserError(f"keys of the {side} catalogue are {values.type}, neither text nor integers{advice}")
        values = values.cast(pa.large_string())
    except pa.ArrowException as error:
        raise UserError(f"keys of the {side} catalogue cannot be compared: {str(error)[:200]}") from error
    blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(values)), 0)
    return pc.if_else(blank, pa.scalar(None, values.type), values)


def _native(values):
    """Big-endian numbers, as FITS has them, in the byte order that Arrow takes."""
    if isinstance(values, np.ndarray) and not values.dtype.isnative:
        return values.astype(values.dtype.newbyteorder("="))
    return values


def is_text(kind: pa.DataType) -> bool:
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary", "null")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)
