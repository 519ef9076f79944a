"""Columns made of what is stored: casts, digits, units, parts of arrays, labels; pure functions over arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from skyset.errors import RecordError
from skyset.partitions.tree.form import MEMBER, MOVED, PART, REPEATED, SCALED, TEXT, Source
from skyset.sky import healpix_cell
from skyset.survey import Column
from skyset.values import as_stored


def made(column: Column, source: Source, stored: np.ndarray) -> np.ndarray:
    """Rows of a column of what is stored of them.

    Args:
        column: what is wanted.
        source: how it is made: all but those of labels, cells and names.
        stored: (rows, *axes) in the dtype on the disk; of a member, that member's.

    Returns:
        (rows, *shape) in the column's dtype; of a ragged column (rows, *axes), whatever they are.

    Raises:
        RecordError: a value does not fit, or the shape.
    """
    values = cast(column, source, taken(source, stored))
    return _repeated(column, values) if source.how == REPEATED else shaped(column, values)


def _repeated(column: Column, values: np.ndarray) -> np.ndarray:
    """The one value of each row in all places of the column's shape, a view."""
    if values.size != len(values):
        raise RecordError(f"{column.name} is of one value a row, and there are rows of {values.shape[1:]}")
    return np.broadcast_to(values.reshape(len(values), *(1 for _ in column.shape)), (len(values), *column.shape))


def taken(source: Source, stored: np.ndarray) -> np.ndarray:
    """The part of each row that is meant, or another order of its axes, a view."""
    if source.how == MOVED and source.argument + 1 < stored.ndim:
        return np.moveaxis(stored, source.argument + 1, 1)
    if source.how == MOVED:
        raise RecordError(f"{source.of[0]} has no axis {source.argument} in rows of {stored.shape[1:]}")
    if source.how != PART:
        return stored
    axis, place = source.argument
    if axis + 1 >= stored.ndim or place >= stored.shape[axis + 1]:
        raise RecordError(f"{source.of[0]} has no place {place} of axis {axis} in rows of {stored.shape[1:]}")
    return stored[(slice(None),) * (axis + 1) + (place,)]


def cast(column: Column, source: Source, values: np.ndarray) -> np.ndarray:
    """Values of any shape in the column's dtype; RecordError where one does not fit."""
    if values.dtype.kind == "O":
        values = as_texts(values)
    if source.how == TEXT or column.is_text:
        return _text(column, values)
    if source.how == SCALED:
        if values.dtype.kind not in "biuf":
            raise RecordError(f"{column.name} is of {source.of[0]}, which holds no numbers")
        values = values.astype(np.float64) * source.argument
    if column.name == "ra" and source.how in (SCALED, MEMBER) and values.dtype.kind == "f":
        values = wrapped(values)
    return as_stored(column.name, values, column.stored_dtype)


def _text(column: Column, values: np.ndarray) -> np.ndarray:
    dtype = column.stored_dtype
    if values.dtype.kind in "iu":
        values = values.astype("S20")  # 2^64 has 20 digits
    if values.dtype.kind != "S":
        return as_stored(column.name, values, dtype)
    if values.dtype.itemsize > dtype.itemsize and (lengths := np.char.str_len(values)).max(initial=0) > dtype.itemsize:
        long = values.ravel()[int(np.argmax(lengths))].decode("ascii", "replace")
        raise RecordError(f"{column.name} is longer than {dtype.itemsize} characters: {long[:40]}")
    return values.astype(dtype, copy=False)


def as_texts(values: np.ndarray) -> np.ndarray:
    """Texts of any length as ``S``; other values as they are."""
    if values.dtype.kind != "O":
        return values
    texts = [value.encode() if isinstance(value, str) else bytes(value or b"") for value in values.ravel().tolist()]
    return np.array(texts, np.dtype(f"S{max(1, max(map(len, texts), default=1))}")).reshape(values.shape)


def shaped(column: Column, values: np.ndarray) -> np.ndarray:
    """Rows of a column of a fixed shape in just that shape: axes of one value may be more or fewer; others as they are."""
    if values.shape[1:] == column.shape or (column.is_ragged and fits(column, math.prod(values.shape[1:]))):
        return values
    if [size for size in values.shape[1:] if size != 1] != [size for size in column.shape if size != 1]:
        raise RecordError(f"{column.name} has shape {values.shape[1:]}, not {column.shape}")
    return values.reshape(len(values), *column.shape)


def fits(column: Column, values: int) -> bool:
    """Whether a row of a column can have so many values."""
    step = column.step_bytes // column.stored_dtype.itemsize
    return values % step == 0 if column.is_ragged else values == step


def labels_for(labels: Sequence[bytes], size: int, name: str, dtype: np.dtype) -> np.ndarray:
    """A label for each of ``size`` values that lie in as many equal stretches as there are labels: (size,).

    Raises:
        RecordError: they do not, or a label is too long.
    """
    if size == 0:
        return np.zeros(0, dtype)
    if not labels or size % len(labels):
        raise RecordError(f"{name}: {len(labels)} labels for {size} values")
    if (longest := max(map(len, labels))) > dtype.itemsize:
        raise RecordError(f"{name} is longer than {dtype.itemsize} characters: one of {longest}")
    return np.repeat(np.array(labels, dtype), size // len(labels))


def split_labels(text: bytes | str) -> list[bytes]:
    """Labels that are one text with commas between; none of an empty one."""
    data = text.encode() if isinstance(text, str) else text
    return [label.strip() for label in data.split(b",")] if data else []


def wrapped(ra: np.ndarray) -> np.ndarray:
    """Right ascensions in degrees, those from -360 to 0 as 0 to 360; others as they are."""
    return np.where((ra < 0) & (ra >= -360), ra + 360, ra)


def cells_of(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """HEALPix cells of nside 16, int64; -1 where there is no position."""
    good = (ra >= 0) & (ra <= 360) & (dec >= -90) & (dec <= 90)
    cells = np.full(ra.shape, -1, np.int64)
    if good.any():
        cells[good] = healpix_cell(ra[good], dec[good])
    return cells
