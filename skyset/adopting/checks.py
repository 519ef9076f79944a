"""What is wrong with the values of somebody's rows: pure functions over arrays, for `skyset adopt` and `skyset verify`."""

from __future__ import annotations

import re

import numpy as np

#: Kinds of findings, as ``findings.csv`` names them.
WRONG_CELL = "wrong cell"
ALL_ZERO = "all-zero row"
TWICE = "duplicate id"
UNSTABLE = "unstable id"
EMPTY_BAND = "empty band"
INVERTED = "inverted mask"
INFINITE = "infinite ivar"
FOREIGN = "foreign file"
DTYPE = "dtypes differ"
SHAPE = "shapes differ"
MISSING = "column missing"
LEFT_OUT = "left out"
UNFIT = "object left out"
NOT_HEALPIX = "not a HEALPix cell"
BROKEN = "broken file"
NO_POSITION = "no position"
KINDS = (
    WRONG_CELL, ALL_ZERO, TWICE, UNSTABLE, EMPTY_BAND, INVERTED, INFINITE, FOREIGN, DTYPE, SHAPE, MISSING, LEFT_OUT, UNFIT,
    NOT_HEALPIX, BROKEN, NO_POSITION,
)  # fmt: skip
#: What is counted of each kind, one and more; of a whole dataset there is no count.
WORDS = {
    WRONG_CELL: ("row in the wrong cell", "rows in the wrong cell"),
    ALL_ZERO: ("all-zero row", "all-zero rows"),
    TWICE: ("duplicate id", "duplicate ids"),
    UNSTABLE: ("unstable ids", "unstable ids"),
    EMPTY_BAND: ("empty band", "empty bands"),
    INVERTED: ("inverted mask", "inverted masks"),
    INFINITE: ("row of infinite ivar", "rows of infinite ivar"),
    FOREIGN: ("foreign file", "foreign files"),
    DTYPE: ("column of different dtypes", "columns of different dtypes"),
    SHAPE: ("column of different shapes", "columns of different shapes"),
    MISSING: ("column missing in some files", "columns missing in some files"),
    LEFT_OUT: ("dataset left out", "datasets left out"),
    UNFIT: ("object left out", "objects left out"),
    NOT_HEALPIX: ("cells that are not HEALPix", "cells that are not HEALPix"),
    BROKEN: ("broken file", "broken files"),
    NO_POSITION: ("row without a position", "rows without a position"),
}
_UNCOUNTED = (UNSTABLE, NOT_HEALPIX)
#: What a variance of 0 becomes as float32 where somebody's ``nan_to_num`` made a number of its inverse: 3.4e38.
HUGE = 3e38
#: Shares of pixels above which a mask counts as the opposite of what bad pixels are.
_MOSTLY, _HARDLY = 0.99, 0.01
#: What names of inverse variances, masks, and flags of failed redshifts look like.
IVAR = re.compile(r"(^|.*[_/])(ivar|invvar|inverse_variance|[a-z]+_ivar)", re.IGNORECASE)
MASK = re.compile(r"(^|.*[_/])mask", re.IGNORECASE)
FAILED = re.compile(r"(^|.*[_/])(zwarn|zwarning)", re.IGNORECASE)
#: By how much of themselves the ends of the circle may be passed.
_ROUNDED = 1e-9
#: Python's hash of a text is any number of 64 bits; archives' ids are not below this, and seldom above the other.
_NEGATIVE, _FAR = -(1 << 32), 1 << 60


def told(kind: str, count: int) -> str:
    """How many findings of a kind there are: ``3 rows in the wrong cell``."""
    words = WORDS[kind][count != 1]
    return words if kind in _UNCOUNTED else f"{count:,} {words}"


def all_zero(ids: np.ndarray | None, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Rows that were never filled: position exactly 0, 0 and an id of 0 or none; bool (rows,).

    Args:
        ids: (rows,) integers or text; None where there are none.
        ra, dec: (rows,), in any unit.
    """
    zero = (ra == 0) & (dec == 0)
    if ids is None or not zero.any():
        return zero
    return zero & ((ids == 0) if ids.dtype.kind in "iu" else np.isin(ids, (b"", b"0")))


def no_position(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Rows whose position, in degrees, is NaN or not on the sky; bool (rows,)."""
    return ~((ra >= 0) & (ra <= 360) & (dec >= -90) & (dec <= 90))


def on_the_sky(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Rows whose position can be one in any unit, right ascension from -360 on: bool (rows,)."""
    return (np.abs(ra) <= 360 * (1 + _ROUNDED)) & (np.abs(dec) <= 90 * (1 + _ROUNDED))


def infinite(values: np.ndarray) -> np.ndarray:
    """Rows (axis 0) with an inverse variance of infinity, or of the largest float32: bool (rows,)."""
    if values.dtype.kind != "f":
        return np.zeros(len(values), bool)
    with np.errstate(invalid="ignore"):
        return (np.abs(values) >= HUGE).reshape(len(values), -1).any(axis=1)


def inverted(mask: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Rows whose mask is set where the inverse variance is positive, and not where it is 0: there, True means good.

    Args:
        mask: (rows, *axes) bool or integers.
        ivar: (rows, *axes), or with one more axis (of bands) before the mask's.

    Returns:
        bool (rows,). A row without any positive inverse variance tells nothing, and is False.
    """
    if ivar.ndim == mask.ndim + 1:
        ivar = ivar.max(axis=1)
    with np.errstate(invalid="ignore"):
        good, is_set = (ivar > 0).reshape(len(ivar), -1), (mask != 0).reshape(len(mask), -1)
    count, others = good.sum(axis=1), (~good).sum(axis=1)
    on_good, on_others = (is_set & good).sum(axis=1), (is_set & ~good).sum(axis=1)
    return (count > 0) & (on_good >= _MOSTLY * count) & (on_others <= _HARDLY * others)


def empty_bands(values: np.ndarray, axis: int = 1) -> np.ndarray:
    """Bands all of whose values are 0 or NaN: bool (rows, bands).

    Args:
        values: (rows, ..., bands, ...).
        axis: of the bands.
    """
    moved = np.moveaxis(values, axis, 1).reshape(len(values), values.shape[axis], -1)
    return ((moved == 0) | np.isnan(moved)).all(axis=2) if moved.dtype.kind == "f" else (moved == 0).all(axis=2)


def says_success(true: int, rows: int) -> bool:
    """Whether a flag that should tell failures is set in most rows: surveys' redshifts fail in a few per cent."""
    return rows >= 10 and true > 0.5 * rows


def counts_up(ids: np.ndarray) -> bool:
    """Whether integer ids are a count, each one more than that of the row before."""
    return len(ids) > 1 and bool((np.diff(ids.astype(np.int64)) == 1).all())


def like_hashes(lowest: int, highest: int, rows: int) -> bool:
    """Whether a file's ids look as if a hash of Python's had been added to a count: it is another one in each process.

    Either one is far below 0, where no archive's ids are; or all are above 2^60 and as close together as a count: ids that
    archives pack of fields, or number by cell, leave gaps there.
    """
    return lowest < _NEGATIVE or (rows > 1 and lowest > _FAR and highest - lowest < 4 * rows)
