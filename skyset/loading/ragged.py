"""Rows of any length, spectra and light curves among them: parts of one flat array, and their padding, which is left out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import numpy as np

from skyset.errors import PartitionError
from skyset.loading.memory import carve, reused
from skyset.partitions.partition import bounds_of, decoded, run_starts
from skyset.survey import ANY, Trim

#: Text is taken in runs where these have at least so many values on the mean.
_IN_TURN = 4


class Ragged(Sequence):
    """Rows of a ragged column; each is a part of the slab's array, of the column's shape. Text comes as lists of ``str``.

    Args:
        data: (values,), the values of all rows one after the other.
        bounds: int64 (rows + 1,); row k is ``data[bounds[k]:bounds[k + 1]]``, or less of it where it was trimmed.
        origins: where the rows are from, for messages: (rows, file, number of the first one there) of each run of rows.
        shape: of a row, one axis of it -1.
    """

    finish: Callable[[np.ndarray], object] | None = None
    _stops: np.ndarray | None = None
    _texts: _Texts | None = None

    def __init__(
        self,
        data: np.ndarray,
        bounds: np.ndarray,
        origins: Sequence[tuple[int, str, int]] = (),
        shape: tuple[int, ...] = (ANY,),
    ):
        self.data, self.bounds, self.origins, self.shape = data, bounds, origins, shape

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, row):
        if isinstance(row, slice):
            return self._part(*row.indices(len(self))[:2])
        return self._value(range(len(self))[row])

    def __iter__(self) -> Iterator:
        if type(self)._value is not Ragged._value or self.finish or len(self.shape) > 1 or self.data.dtype.kind == "S":
            return map(self._value, range(len(self)))
        return map(self.data.__getitem__, map(slice, self.bounds[:-1].tolist(), self.stops.tolist()))

    @property
    def stops(self) -> np.ndarray:
        """Where each row ends, int64 (rows,)."""
        return self.bounds[1:] if self._stops is None else self._stops

    @property
    def lengths(self) -> np.ndarray:
        """How many values each row has, int64 (rows,)."""
        return self.stops - self.bounds[:-1]

    @property
    def step(self) -> int:
        """Values of a row whose ragged axis has the length 1."""
        return math.prod(size for size in self.shape if size != ANY)

    def with_changes(self, **changes) -> Self:
        """The same rows, handed out otherwise."""
        twin = copy.copy(self)
        twin.__dict__.update(changes, _texts=None)
        return twin

    def _part(self, start: int, stop: int) -> Self:
        """Some rows, of the same block."""
        origins = [(1, *self.origin(row)) for row in range(start, stop)] if self.origins else ()
        stops = None if self._stops is None else self._stops[start:stop]
        return self.with_changes(bounds=self.bounds[start : stop + 1], _stops=stops, origins=origins)

    def _value(self, row: int):
        if self.data.dtype.kind == "S" and len(self.shape) == 1:
            self._texts = self._texts or _Texts(self.data, self.bounds, self.stops)
            return self._texts.of(row)
        values = self.raw(row).reshape(self.shape)
        if values.dtype.kind == "S":
            return decoded(values)
        return self.finish(values) if self.finish else values

    def raw(self, row: int) -> np.ndarray:
        """The values of a row as they lie, (values,), as a view."""
        return self.data[self.bounds[row] : self.stops[row]]

    def origin(self, row: int) -> tuple[str, int]:
        """File of a row, and its number there."""
        for rows, path, first in self.origins:
            if row < rows:
                return path, first + row
            row -= rows
        return "", row

    def batch(self):
        """All rows as one value of a batch."""
        return list(self)

    def compact(self) -> Self:
        """The same rows one after the other, from the first value of ``data`` to the last."""
        if self._stops is None:
            data = self.data[self.bounds[0] : self.bounds[-1]]
        else:
            data = np.concatenate([self.data[:0], *(self.raw(row) for row in range(len(self)))])
        return self.with_changes(data=data, bounds=bounds_of(self.lengths), _stops=None)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Rows of several slabs one after the other."""
        packed = [part.compact() for part in parts]
        return parts[0].with_changes(
            data=np.concatenate([part.data for part in packed]),
            bounds=bounds_of(np.concatenate([part.lengths for part in packed])),
            origins=[origin for part in parts for origin in part.origins],
            _stops=None,
        )


class _Texts:
    """Rows of text as lists of ``str``. Those of light curves are names of bands, each many times in turn: decoded once.

    Args:
        data: (values,), ``S``.
        bounds, stops: of the rows, see ``Ragged``.
    """

    def __init__(self, data: np.ndarray, bounds: np.ndarray, stops: np.ndarray):
        self._data, self._bounds, self._stops = data, bounds, stops
        starts = bounds[:-1][bounds[:-1] < stops]
        runs = np.union1d(run_starts(data[bounds[0] : bounds[-1]]) + bounds[0], starts)
        self._alone = len(runs) * _IN_TURN > bounds[-1] - bounds[0]
        if self._alone:
            return
        ends = np.append(runs[1:], bounds[-1])
        row = np.searchsorted(bounds, runs, side="right") - 1
        self._counts = np.maximum(np.minimum(ends, stops[row]) - runs, 0).tolist()
        self._names = decoded(data[runs])
        self._first = np.searchsorted(runs, bounds).tolist()
        self._key: tuple = ()
        self._again: list[str] | None = None

    def of(self, row: int) -> list[str]:
        if self._alone:
            return decoded(self._data[self._bounds[row] : self._stops[row]])
        runs = slice(self._first[row], self._first[row + 1])
        names, counts = self._names[runs], self._counts[runs]
        if (key := (names, counts)) != self._key:
            self._key, self._again = key, None
        elif self._again is not None:  # rows with their padding are alike
            return self._again.copy()
        else:
            self._again = _repeated(names, counts)
        return _repeated(names, counts)


def _repeated(names: Sequence[str], counts: Sequence[int]) -> list[str]:
    texts: list[str] = []
    for name, count in zip(names, counts, strict=True):
        texts += [name] * count
    return texts


def trim(columns: dict, trims: Sequence[Trim]) -> None:
    """Leave the padding out of ragged columns, in place: of what ends with it the rows become shorter views.

    Args:
        columns: as they are stored, ``Ragged`` by name; ``by`` of each trim is among them where one of its columns is.
        trims: what is padding.

    Raises:
        PartitionError: columns that belong together have rows of different lengths.
    """
    for each in trims:
        names = [name for name in each.columns if name in columns]
        if not names:
            continue
        by: Ragged = columns[each.by]
        good = _is_value(by.data[by.bounds[0] : by.bounds[-1]].reshape(-1, by.step), each.values)
        if good.all():
            continue
        counts, last = _extent(good, (by.bounds - by.bounds[0]) // by.step)
        for name in names:
            _check_lengths(columns[name], by, each.by, name)
        if each.at == "end" or bool((counts == last).all()):
            columns.update({name: _up_to(columns[name], last) for name in names})
        else:
            columns.update(_without({name: columns[name] for name in names}, good, counts))


def _is_value(steps: np.ndarray, padding: Sequence[float]) -> np.ndarray:
    """Which steps (steps, values) are not all padding."""
    good = np.ones(steps.shape, bool)
    for value in padding:
        if math.isnan(value):
            good &= ~np.isnan(steps) if steps.dtype.kind == "f" else True
        else:
            good &= steps != value
    return good[:, 0] if steps.shape[1] == 1 else np.any(good, axis=1)


def _extent(good: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row, how many values it has, and how many lie before the end of the last one of them."""
    length = int(bounds[1]) if len(bounds) > 1 else 0
    if length and len(good) == length * (len(bounds) - 1) and (np.diff(bounds) == length).all():
        rows = good.reshape(-1, length)
        counts = np.count_nonzero(rows, axis=1)
        return counts, np.where(counts > 0, length - np.argmax(rows[:, ::-1], axis=1), 0)
    places = np.flatnonzero(good)
    before = np.searchsorted(places, bounds)
    counts = np.diff(before)
    last = np.where(counts > 0, np.append(places, 0)[before[1:] - 1] + 1 - bounds[:-1], 0)
    return counts, last


def _check_lengths(column: Ragged, by: Ragged, by_name: str, name: str) -> None:
    """PartitionError where a column's rows have not as many steps as those of what their padding is told by."""
    if column is by:
        return
    step, steps = column.step, by.lengths // by.step
    if not np.array_equal(column.lengths, steps * step):
        row = int(np.flatnonzero(column.lengths != steps * step)[0])
        path, number = by.origin(row)
        lengths = f"{column.lengths[row] // step} and {steps[row]}"
        raise PartitionError(f"{path}: row {number}: {name} and {by_name} have {lengths} values: they belong together")


def _up_to(column: Ragged, last: np.ndarray) -> Ragged:
    """The first ``last`` steps of each row, as views."""
    return column.with_changes(_stops=column.bounds[:-1] + last * column.step)


def _without(columns: Mapping[str, Ragged], good: np.ndarray, counts: np.ndarray) -> dict[str, Ragged]:
    """The ``good`` steps of all rows, ``counts`` of each, in one block of memory."""
    places, bounds = np.flatnonzero(good), bounds_of(counts)
    arrays = carve(reused, {name: (each.data.dtype, (len(places), each.step)) for name, each in columns.items()})
    for name, each in columns.items():
        steps = each.data[each.bounds[0] : each.bounds[-1]].reshape(-1, each.step)
        _take(steps, places, arrays[name])
    return {
        name: each.with_changes(data=arrays[name].reshape(-1), bounds=bounds * each.step, _stops=None)
        for name, each in columns.items()
    }


def _take(steps: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    """Some steps, as ``numpy.take``; values as long as integers are moved as these, which is three times as fast."""
    word = f"u{steps.dtype.itemsize}"
    if steps.dtype.itemsize in (1, 2, 4, 8):
        steps, out = steps.view(word), out.view(word)
    if steps.shape[1] == 1:
        np.take(steps[:, 0], places, out=out[:, 0], mode="clip")
    else:
        np.take(steps, places, axis=0, out=out, mode="clip")


def padded(rows: Sequence[np.ndarray], fill=0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of different lengths as one array.

    Args:
        rows: arrays that differ in the length of one axis at most.
        fill: what stands behind the shorter ones; 0 where their dtype has no such number.

    Returns:
        (rows, longest, ...) of the rows' dtype, and int64 (rows, axes): the shape of each.
    """
    shapes = np.array([np.shape(row) for row in rows], np.int64).reshape(len(rows), -1)
    dtype = np.result_type(*{np.asarray(row).dtype for row in rows})
    fits = dtype.kind == "f" or (math.isfinite(fill) and fill == int(fill))
    whole = np.full((len(rows), *shapes.max(axis=0, initial=0)), fill if fits else 0, dtype)
    for place, row in enumerate(rows):
        whole[place][tuple(slice(size) for size in np.shape(row))] = row
    return whole, shapes
