"""Fills what was allocated for a slab of matches out of one file: its rows lie apart, and some are wanted several times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from skyset.partitions.layout import PIXELS_FROM
from skyset.partitions.parquet_file import ParquetFile
from skyset.partitions.partition import Partition
from skyset.survey import Column

#: Of small columns, as many bytes between two wanted rows are read with them.
_GAP_BYTES = 64 << 10


@dataclass(frozen=True, eq=False)
class Group:
    """Matches whose rows lie in one file: ``rows`` there, sorted, each once; ``places`` in the slab that take them.

    ``again`` are places whose row ``copied_from`` takes already: an object may have several matches.
    """

    file: int
    rows: np.ndarray
    places: np.ndarray
    again: np.ndarray
    copied_from: np.ndarray


class Taken:
    """Rows of files that are read in groups of rows, by side and file: one slab's, which are read once."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], pa.Table] = {}

    def of(self, side: int, group: Group, file: ParquetFile) -> pa.Table:
        """The rows of a group; each side and file has one."""
        table = self._tables.get((side, group.file))
        if table is None:
            table = self._tables[side, group.file] = file.taken(group.rows)
        return table


class Filling:
    """Fills the places of a slab from one file."""

    def __init__(
        self, partition: Partition | ParquetFile, own: Mapping[str, Column], raw: Mapping, bounds: Mapping[str, np.ndarray]
    ):
        self._partition, self._raw, self._bounds = partition, raw, bounds
        self._small = {n: c for n, c in own.items() if not c.is_ragged and c.row_bytes < PIXELS_FROM}
        self._large = {n: c for n, c in own.items() if n not in self._small}

    def fill(self, group: Group) -> None:
        stretches = list(self._stretches(group.rows)) if self._small else []
        runs = [(outs, start, stop) for outs, start, stop, _ in stretches] + list(self._runs(group))
        self._partition.read_runs(runs)
        for outs, start, _, wanted in stretches:
            rows, places = group.rows[wanted] - start, group.places[wanted]
            for name, column in self._small.items():
                self._raw[name][places] = outs[column.name][rows]
        self._repeat(group)

    def fill_from(self, file: ParquetFile, table: pa.Table, group: Group) -> None:
        """From the group's rows, which were taken of a file of groups of rows."""
        for name, column in (self._small | self._large).items():
            values = file.values(table, column.name)
            bounds = self._bounds.get(name)
            if bounds is None:
                self._raw[name][group.places] = values
                continue
            first = 0
            for place in group.places.tolist():
                part = self._part(name, place, place + 1)
                part[...] = values[first : first + len(part)]
                first += len(part)
        self._repeat(group)

    def _stretches(self, rows: np.ndarray) -> Iterator[tuple[dict[str, np.ndarray], int, int, slice]]:
        """Small columns in stretches of rows, without those that many bytes would lie before: (outs, start, stop, which)."""
        gap = max(1, _GAP_BYTES // max(1, sum(column.row_bytes for column in self._small.values())))
        for start, stop in _runs_of(rows, gap):
            first, last = int(rows[start]), int(rows[stop - 1]) + 1
            outs = {c.name: np.empty((last - first, *c.shape), c.dtype) for c in self._small.values()}
            yield outs, first, last, slice(start, stop)

    def _runs(self, group: Group) -> Iterator[tuple[dict[str, np.ndarray], int, int]]:
        """Pixels and bytes: rows that follow each other both in the file and in the slab at a time."""
        if not self._large:
            return
        for start, stop in _runs_of(group.rows, 1, group.places):
            place, end = int(group.places[start]), int(group.places[stop - 1]) + 1
            yield (
                {column.name: self._part(name, place, end) for name, column in self._large.items()},
                int(group.rows[start]),
                int(group.rows[stop - 1]) + 1,
            )

    def _part(self, name: str, start: int, stop: int) -> np.ndarray:
        bounds = self._bounds.get(name)
        return self._raw[name][start:stop] if bounds is None else self._raw[name][bounds[start] : bounds[stop]]

    def _repeat(self, group: Group) -> None:
        for name in (*self._small, *self._large) if len(group.again) else ():
            if name not in self._bounds:
                self._raw[name][group.again] = self._raw[name][group.copied_from]
                continue
            for place, source in zip(group.again.tolist(), group.copied_from.tolist(), strict=True):
                self._part(name, place, place + 1)[...] = self._part(name, source, source + 1)


def equal_runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True)[: len(values)]) + 1
    yield from zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True) if len(ends) else ()


def _runs_of(rows: np.ndarray, gap: int, places: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
    """Where sorted rows are at most ``gap`` apart, and their places follow each other: (start, stop)."""
    apart = np.diff(rows) > gap
    if places is not None:
        apart |= np.diff(places) != 1
    ends = [*(np.flatnonzero(apart) + 1).tolist(), len(rows)]
    yield from zip([0, *ends[:-1]], ends, strict=True)
