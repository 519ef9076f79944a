"""What is different in two builds: which rows, which columns, which values, made how.

Rows are compared cell by cell, so that no more of their keys are held than a cell has. Values are those of a bounded sample
of the rows that both have; that of columns of pixels is smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from skyset.errors import PartitionError
from skyset.explore.report.sample import Build, is_small
from skyset.partitions.manifest import FileEntry
from skyset.survey import Column

#: Rows that only one build has, which are named; rows whose values are compared, and cells that these are from; bytes of
#: pixels and other long values that are compared.
MOST_NAMED, MOST_ROWS, MOST_CELLS, MOST_BYTES = 20, 20_000, 256, 256 << 20
#: Keys that may have moved to another cell and are held until all cells are seen.
_MOST_MOVED = 200_000
_EXAMPLES = 3


class Change(NamedTuple):
    """A value of one row: its key, what the first and what the second build have."""

    key: str
    before: str
    after: str


@dataclass
class Changed:
    """Of a column that both builds have: rows that were compared, rows whose values differ, the largest difference where
    it is of numbers, and examples."""

    compared: int = 0
    different: int = 0
    largest: float = 0.0
    examples: list[Change] = field(default_factory=list)


@dataclass
class Rows:
    """Rows of two builds by their keys: how many both have and only one has, of these some; how many lie in another cell.

    ``moved`` counts rows that both have, in different cells. Where too many are candidates ``moved_known`` is False, and
    they count as rows that only one has.
    """

    common: int = 0
    only: tuple[int, int] = (0, 0)
    named: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    moved: int = 0
    moved_known: bool = True


def column_changes(one: Sequence[Column], other: Sequence[Column]) -> list[tuple[str, str, str, str]]:
    """What is different in two tables of columns: the column's name, what, in the first, in the second."""
    before, after = ({column.name: column for column in columns} for columns in (one, other))
    changes = []
    for name in dict.fromkeys([*before, *after]):
        if name not in after or name not in before:
            here = before.get(name) or after[name]
            told = f"{here.dtype} {here.unit}".strip()
            changes.append((name, "column", told if name in before else "", told if name in after else ""))
            continue
        for what in ("dtype", "shape", "unit", "description"):
            mine, yours = (getattr(columns[name], what) for columns in (before, after))
            if mine != yours:
                changes.append((name, what, _shown(mine), _shown(yours)))
    return changes


def _shown(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def option_changes(one: Mapping, other: Mapping) -> list[tuple[str, str, str]]:
    """What is different in what two manifests say of their builds: the name (``versions.numpy``), first, second."""
    before, after = dict(_flat(one)), dict(_flat(other))
    return [
        (name, before.get(name, ""), after.get(name, ""))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def _flat(values: Mapping, start: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{start}{name}.")
        elif name == "command" and isinstance(value, list):
            yield f"{start}{name}", " ".join(map(str, value))
        else:
            yield f"{start}{name}", str(value)


class Comparison:
    """Compares the rows of two builds; afterwards ``rows``, ``changed`` by column, and ``problems`` say what was found.

    Args:
        one, other: the builds; their keys have one name.
        seed: of the cells whose values are compared, where these are too many.
    """

    def __init__(self, one: Build, other: Build, seed: int = 0):
        self.builds, self.rows = (one, other), Rows()
        self.problems: dict[str, str] = {}
        self.key = one.manifest.key
        together = not (one.cells_known and other.cells_known)
        self._by_cell = [_by_cell(build, together) for build in self.builds]
        cells = sorted(set(self._by_cell[0]) | set(self._by_cell[1]))
        both = [cell for cell in cells if all(cell in files for files in self._by_cell)]
        order = np.random.default_rng(seed).permutation(len(both))[:MOST_CELLS]
        self._cells, self._looked_into = cells, {both[place] for place in order}
        shared = _comparable(one, other)
        self._small = [column for column in shared if is_small(column) and not column.is_ragged and column.name != self.key]
        self._long = [column for column in shared if not is_small(column) or column.is_ragged]
        self.changed = {column.name: Changed() for column in shared if column.name != self.key}
        self._left_rows, self._left_bytes = MOST_ROWS, MOST_BYTES
        self._loose: tuple[dict[bytes, None], dict[bytes, None]] = ({}, {})

    def run(self, progress: Callable[[list], Iterable] = iter) -> Comparison:
        """Look at every cell; ``progress`` wraps their list."""
        for cell in progress(self._cells):
            self._compare_cell(cell)
        self._settle()
        return self

    def _compare_cell(self, cell: int) -> None:
        entries = [files.get(cell, []) for files in self._by_cell]
        if not (all(entries) and cell in self._looked_into) and self._are_same(*entries):
            self.rows.common += sum(entry.rows for entry in entries[0])
            return
        sides = [self._keys(build, files) for build, files in zip(self.builds, entries, strict=True)]
        common = sides[0].keys() & sides[1].keys()
        self.rows.common += len(common)
        for place, side in enumerate(sides):
            self._only_in(place, [key for key in side if key not in common])
        if common and cell in self._looked_into and self._left_rows > 0:
            self._compare_values([key for key in sides[0] if key in common], sides)

    def _are_same(self, one: Sequence[FileEntry], other: Sequence[FileEntry]) -> bool:
        """Whether the manifests say that these files hold the same keys, in the same order."""
        if not all(build.cells_known for build in self.builds) or not one:
            return False
        return [(entry.keys, entry.rows) for entry in one] == [(entry.keys, entry.rows) for entry in other]

    def _keys(self, build: Build, entries: Sequence[FileEntry]) -> dict[bytes, tuple[FileEntry, int]]:
        """Where each row is, by its key."""
        column = next(column for column in build.manifest.columns if column.name == self.key)
        found: dict[bytes, tuple[FileEntry, int]] = {}
        for entry in entries:
            try:
                with build.opened(entry, [column]) as file:
                    keys = file.read(self.key)
            except PartitionError as error:
                self.problems[f"{build.root}/{entry.path}"] = str(error)
                continue
            for row, key in enumerate(keys.tolist()):
                found[key if isinstance(key, bytes) else str(key).encode()] = entry, row
        return found

    def _only_in(self, place: int, keys: Sequence[bytes]) -> None:
        loose = self._loose[place]
        if len(loose) + len(keys) > _MOST_MOVED:
            self.rows.moved_known = False
        if self.rows.moved_known:
            loose.update(dict.fromkeys(keys))
        named = self.rows.named[place]
        named += [key.decode("ascii", "replace") for key in keys[: MOST_NAMED - len(named)]]
        counts = list(self.rows.only)
        counts[place] += len(keys)
        self.rows.only = counts[0], counts[1]

    def _settle(self) -> None:
        """Rows that left one cell and are in another are in both builds."""
        if not self.rows.moved_known:
            return
        one, other = self._loose
        both = one.keys() & other.keys()
        self.rows.moved, self.rows.common = len(both), self.rows.common + len(both)
        self.rows.only = len(one) - len(both), len(other) - len(both)
        left = ([key.decode("ascii", "replace") for key in side if key not in both] for side in (one, other))
        mine, yours = (names[:MOST_NAMED] for names in left)
        self.rows.named = mine, yours

    def _compare_values(self, keys: Sequence[bytes], sides: Sequence[Mapping[bytes, tuple[FileEntry, int]]]) -> None:
        keys = keys[: self._left_rows]
        self._left_rows -= len(keys)
        try:
            values = [
                _rows(build, self._small, [side[key] for key in keys])
                for build, side in zip(self.builds, sides, strict=True)
            ]
            for column in self._small:
                self._note(column.name, keys, values[0][column.name], values[1][column.name])
            for key in keys if self._long else ():
                if self._left_bytes <= 0:
                    break
                self._compare_long(key, [side[key] for side in sides])
        except PartitionError as error:
            self.problems.setdefault("values", str(error))

    def _compare_long(self, key: bytes, places: Sequence[tuple[FileEntry, int]]) -> None:
        opened = []
        for build, (entry, row) in zip(self.builds, places, strict=True):
            with build.opened(entry, self._long) as file:
                opened.append([file.read(column.name, row, row + 1) for column in self._long])
        for column, mine, yours in zip(self._long, *opened, strict=True):
            self._left_bytes -= mine.nbytes
            if column.is_bytes:
                mine, yours = (np.array([value.tobytes()], object) for value in (mine, yours))
            elif column.is_ragged and len(mine) == len(yours):
                mine, yours = mine[None], yours[None]
            elif column.is_ragged:
                mine, yours = (np.array([f"{len(value):,} values"], object) for value in (mine, yours))
            self._note(column.name, [key], mine, yours)

    def _note(self, name: str, keys: Sequence[bytes], mine: np.ndarray, yours: np.ndarray) -> None:
        changed = self.changed[name]
        different = rows_differ(mine, yours)
        changed.compared += len(keys)
        changed.different += int(different.sum())
        if different.any() and mine.dtype.kind in "iuf":
            changed.largest = max(changed.largest, largest_difference(mine[different], yours[different]))
        for row in np.flatnonzero(different)[: _EXAMPLES - len(changed.examples)]:
            key = keys[row].decode("ascii", "replace")
            changed.examples.append(Change(key, *_difference(mine[row], yours[row])))


def _by_cell(build: Build, together: bool) -> dict[int, list[FileEntry]]:
    cells: dict[int, list[FileEntry]] = {}
    for entry in build.manifest.files:
        cells.setdefault(0 if together else entry.healpix, []).append(entry)
    return cells


def _comparable(one: Build, other: Build) -> list[Column]:
    """Columns of the first that the second has in the same shape, of numbers or of text in both."""
    there = {column.name: column for column in other.manifest.columns}

    def alike(mine: Column, yours: Column) -> bool:
        return mine.shape == yours.shape and (mine.is_bytes, mine.is_text) == (yours.is_bytes, yours.is_text)

    return [column for column in one.manifest.columns if column.name in there and alike(column, there[column.name])]


def _rows(build: Build, columns: Sequence[Column], places: Sequence[tuple[FileEntry, int]]) -> dict[str, np.ndarray]:
    """Values of some rows, (rows, *shape) by column, in the dtypes of this build."""
    there = {column.name: column for column in build.manifest.columns}
    own = [there[column.name] for column in columns]
    values = {column.name: np.empty((len(places), *column.shape), column.dtype) for column in own}
    by_file: dict[str, tuple[FileEntry, list[tuple[int, int]]]] = {}
    for place, (entry, row) in enumerate(places):
        by_file.setdefault(entry.path, (entry, []))[1].append((row, place))
    for entry, wanted in by_file.values():
        rows, into = (np.array(numbers) for numbers in zip(*wanted, strict=True))
        low, high = int(rows.min()), int(rows.max()) + 1
        with build.opened(entry, own) as file:
            read = {column.name: np.empty((high - low, *column.shape), column.dtype) for column in own}
            file.read_columns(read, low, high)
        for name, array in read.items():
            values[name][into] = array[rows - low]
    return values


def rows_differ(mine: np.ndarray, yours: np.ndarray) -> np.ndarray:
    """Which rows (rows, ...) of two arrays are not the same; NaN is NaN. bool (rows,)."""
    same = mine == yours
    if mine.dtype.kind == "f" and yours.dtype.kind == "f":
        same |= np.isnan(mine) & np.isnan(yours)
    return ~same.reshape(len(mine), math.prod(mine.shape[1:])).all(axis=1)


def largest_difference(mine: np.ndarray, yours: np.ndarray) -> float:
    """The largest difference of numbers; 0 where none of them can be subtracted (NaN)."""
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(mine.astype(np.float64) - yours.astype(np.float64))
    return float(np.nanmax(distance)) if not np.isnan(distance).all() else 0.0


def _difference(mine, yours) -> tuple[str, str]:
    """Two values in a few characters; of arrays the first elements that differ, and where."""
    if not np.ndim(mine):
        return _value(mine), _value(yours)
    different = rows_differ(mine.ravel(), yours.ravel())
    first = int(np.flatnonzero(different)[0])
    place = ", ".join(map(str, np.unravel_index(first, mine.shape)))
    before = f"{different.sum():,} of {mine.size:,} elements, [{place}]: {_value(mine.ravel()[first])}"
    return before, _value(yours.ravel()[first])


def _value(value) -> str:
    if isinstance(value, bytes):
        return value.decode() if value.isascii() and len(value) < 200 else f"{len(value):,} bytes"
    return f"{value:.9g}" if isinstance(value, np.floating) else str(value)
