"""Reads matches of several surveys as columns of features: of each file the rows that are wanted, and no other pixels."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from skyset.errors import PartitionError
from skyset.loading.encoded import Bytes, bounds_of
from skyset.loading.far import MAX_OPEN
from skyset.loading.matched import Matched
from skyset.loading.reader import Piece, PieceReader, Window
from skyset.partitions.layout import PIXELS_FROM
from skyset.partitions.partition import Partition
from skyset.survey import Column

#: Of small columns, as many bytes between two wanted rows are read with them.
_GAP_BYTES = 64 << 10
#: Files of servers that are read at a time.
_THREADS = 16
#: In a slab: which sides have no match, bool (rows, sides). No column can be called so.
MISSING = "\0missing"


@dataclass(frozen=True, eq=False)
class _Group:
    """Matches whose rows lie in one file: ``rows`` there, sorted, each once; ``places`` in the slab that take them.

    ``again`` are places whose row ``copied_from`` takes already: an object may have several matches.
    """

    file: int
    rows: np.ndarray
    places: np.ndarray
    again: np.ndarray
    copied_from: np.ndarray


class MatchedWindow(Window):
    """Matches to be read in any order; ``numbers`` are theirs."""

    def __init__(self, pieces: Sequence[Piece], held: dict[str, np.ndarray | Bytes], bounds: dict[str, np.ndarray]):
        super().__init__(pieces, held, bounds)
        self.numbers = _numbers(pieces)


class MatchedReader(PieceReader):
    """Reads matches as columns of features: of each file the rows that are wanted, and no other pixels.

    A row that several matches of a slab share is read once.

    Args:
        matched: what was found; pieces are runs of its matches.
        names, image_size, new_block: see ``PieceReader``.
    """

    def __init__(self, matched: Matched, names: Iterable[str], image_size: int | None = None, **options):
        super().__init__(matched.survey, names, image_size, **options)
        self.matched, self._lock = matched, threading.Lock()
        wanted = {column.name for column in self._columns}
        self._of_side = [
            {f"{side.name}.{c.name}": c for c in side.survey.columns if f"{side.name}.{c.name}" in wanted}
            for side in matched.sides
        ]
        self._side_of = {name: number for number, names in enumerate(self._of_side) for name in names}

    def read(self, pieces: Sequence[Piece]) -> dict:
        """Columns of all matches of ``pieces``; see ``PieceReader.read``."""
        numbers = _numbers(pieces)
        bounds = self._bounds_at(numbers)
        raw, stacks = self._allocate(len(numbers), bounds)
        self._fill_at(numbers, raw, bounds)
        return self._made(numbers, raw, stacks, bounds)

    def open(self, piece: Piece) -> None:
        """Nothing: its rows lie in many files."""

    def fetch(self, piece: Piece) -> Future[Window]:
        """The matches of a piece, on their way; with columns of sides that are near, too."""
        return self._far.pieces.submit(self.window, [piece], True)

    def _made_of(self, parts: Sequence[tuple[Window, int, int]], raw: dict, stacks: Mapping, bounds: Mapping) -> dict:
        numbers = [window.numbers[start:stop] for window, start, stop in parts if isinstance(window, MatchedWindow)]
        return self._made(np.concatenate(numbers), raw, stacks, bounds)

    def window(self, pieces: Sequence[Piece], whole: bool = False) -> MatchedWindow:
        """The matches of these pieces, to be read in any order; ``whole`` holds what a disk could give later, too."""
        numbers = _numbers(pieces)
        bounds = self._bounds_at(numbers)
        held = {}
        for column in self._columns:
            small = column.row_bytes < PIXELS_FROM and not column.is_bytes
            if small or whole or self._is_far(column.name):
                shape = (bounds[column.name][-1],) if column.is_bytes else (len(numbers), *column.shape)
                held[column.name] = np.empty(shape, column.stored_dtype)
        self._fill_at(numbers, held, bounds)
        return MatchedWindow(pieces, {n: Bytes(a, bounds[n]) if n in bounds else a for n, a in held.items()}, bounds)

    def read_rows(self, window: Window, rows: np.ndarray) -> dict:
        """Columns of some matches of a window, in the order of their numbers ``rows``."""
        assert isinstance(window, MatchedWindow)
        numbers = window.numbers[rows]
        raw, stacks, bounds, apart = self._from_window(window, rows)
        self._fill_at(numbers, apart, bounds)
        return self._made(numbers, raw, stacks, bounds)

    def _made(self, numbers: np.ndarray, raw: dict, stacks: Mapping, bounds: Mapping[str, np.ndarray]) -> dict:
        origins = {side: self._origins(side, numbers) for side in {self._side_of[name] for name in bounds}}
        read = {**raw, **{n: Bytes(raw[n], ends, origins[self._side_of[n]]) for n, ends in bounds.items()}}
        columns = self._assembled(read, stacks, len(numbers))
        if self.matched.missing is not None:
            columns[MISSING] = self.matched.missing[numbers]
        return columns

    def _origins(self, side: int, numbers: np.ndarray) -> list[tuple[int, str, int]]:
        files, firsts = self.matched.sides[side].files, self.matched.sides[side].firsts
        rows = self.matched.rows[side][numbers].tolist()
        at = np.searchsorted(firsts, rows, side="right") - 1
        return [
            (1, files[f].path, r - int(firsts[f])) if r >= 0 else (1, "", 0) for f, r in zip(at.tolist(), rows, strict=True)
        ]

    def _is_far(self, name: str) -> bool:
        return name in self._side_of and self.matched.sides[self._side_of[name]].is_far

    def _finish(self, values: np.ndarray, name: str):
        if values.dtype.kind == "S":  # of catalogues: not ASCII alone
            return [value.decode("utf-8", "replace") for value in values.tolist()]
        return super()._finish(values, name)

    # --- Where rows lie ---

    def _groups(self, side: int, numbers: np.ndarray) -> Iterator[_Group]:
        """The matches by file."""
        firsts, rows = self.matched.sides[side].firsts, self.matched.rows[side][numbers]
        order = np.argsort(rows, kind="stable")
        order = order[np.searchsorted(rows[order], 0) :]  # without those that have no row
        rows = rows[order]
        files = np.searchsorted(firsts, rows, side="right") - 1
        for start, stop in _equal_runs(files):
            file = int(files[start])
            own, places = rows[start:stop] - firsts[file], order[start:stop]
            new = np.append(True, own[1:] != own[:-1])
            first = places[new]
            yield _Group(file, own[new], first, places[~new], first[np.cumsum(new) - 1][~new])

    def _opened(self, side: int, file: int) -> Partition:
        owner, piece = self.matched.sides[side], self.matched.sides[side].files[file]
        key = f"{side} {piece.path}"
        with self._lock:
            if (known := self._open.get(key)) is not None:
                self._open.move_to_end(key)
                return known
        opened = owner.opened(file, self._of_side[side].values(), self._far.lines if owner.is_far else None)
        if self.matched.stamps.get(piece.path, opened.stamp) != opened.stamp:
            opened.close()
            raise PartitionError(f"{piece.path}: was changed since the surveys were matched: match them again")
        with self._lock:
            if len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[key] = opened
        return opened

    # --- Reading ---

    def _bounds_at(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Where the bytes of each match come to lie, by column of bytes."""
        lengths = {name: np.zeros(len(numbers), np.int64) for name in self._bytes}
        for side in {self._side_of[name] for name in self._bytes}:
            own = {name: column.name for name, column in self._of_side[side].items() if name in lengths}

            def measure(group: _Group, side=side, own=own) -> None:
                partition, first, last = self._opened(side, group.file), int(group.rows[0]), int(group.rows[-1]) + 1
                for name, column in own.items():
                    size = np.diff(partition.ends(column, first, last))
                    lengths[name][group.places] = size[group.rows - first]
                    lengths[name][group.again] = lengths[name][group.copied_from]

            self._each(side, measure, self._groups(side, numbers))
        return {name: bounds_of(sizes) for name, sizes in lengths.items()}

    def _fill_at(self, numbers: np.ndarray, raw: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray]) -> None:
        """Read the columns that ``raw`` has, into it."""
        for name in self.matched.separations.keys() & raw.keys():
            raw[name][...] = self.matched.separations[name][numbers]
        for number, side in enumerate(self.matched.sides):
            own = {name: column for name, column in self._of_side[number].items() if name in raw}
            if side.values is not None:
                rows = self.matched.rows[number][numbers]
                for name, column in own.items():
                    raw[name][rows >= 0] = side.values[column.name][rows[rows >= 0]]
                    raw[name][rows < 0] = np.zeros((), column.stored_dtype)
            elif own:
                for name, column in own.items() if self.matched.missing is not None else ():
                    if column.row_bytes < PIXELS_FROM and not column.is_bytes:
                        raw[name][self.matched.rows[number][numbers] < 0] = np.zeros((), column.stored_dtype)

                def fill(group: _Group, number=number, own=own) -> None:
                    _Filling(self._opened(number, group.file), own, raw, bounds).fill(group)

                self._each(number, fill, self._groups(number, numbers))

    def _each(self, side: int, work, groups: Iterator[_Group]) -> None:
        """Of files on servers several at a time: reading them is waiting for answers."""
        if not self.matched.sides[side].is_far:
            for group in groups:
                work(group)
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            for done in [pool.submit(work, group) for group in groups]:
                done.result()


class _Filling:
    """Fills the places of a slab from one file."""

    def __init__(self, partition: Partition, own: Mapping[str, Column], raw: Mapping, bounds: Mapping[str, np.ndarray]):
        self._partition, self._raw, self._bounds = partition, raw, bounds
        self._small = {n: c for n, c in own.items() if not c.is_bytes and c.row_bytes < PIXELS_FROM}
        self._large = {n: c for n, c in own.items() if n not in self._small}

    def fill(self, group: _Group) -> None:
        stretches = list(self._stretches(group.rows)) if self._small else []
        runs = [(outs, start, stop) for outs, start, stop, _ in stretches] + list(self._runs(group))
        self._partition.read_runs(runs)
        for outs, start, _, wanted in stretches:
            rows, places = group.rows[wanted] - start, group.places[wanted]
            for name, column in self._small.items():
                self._raw[name][places] = outs[column.name][rows]
        for name in (*self._small, *self._large) if len(group.again) else ():
            self._repeat(name, group)

    def _stretches(self, rows: np.ndarray) -> Iterator[tuple[dict[str, np.ndarray], int, int, slice]]:
        """Small columns in stretches of rows, without those that many bytes would lie before: (outs, start, stop, which)."""
        gap = max(1, _GAP_BYTES // max(1, sum(column.row_bytes for column in self._small.values())))
        for start, stop in _runs_of(rows, gap):
            first, last = int(rows[start]), int(rows[stop - 1]) + 1
            outs = {c.name: np.empty((last - first, *c.shape), c.dtype) for c in self._small.values()}
            yield outs, first, last, slice(start, stop)

    def _runs(self, group: _Group) -> Iterator[tuple[dict[str, np.ndarray], int, int]]:
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

    def _repeat(self, name: str, group: _Group) -> None:
        if name not in self._bounds:
            self._raw[name][group.again] = self._raw[name][group.copied_from]
            return
        for place, source in zip(group.again.tolist(), group.copied_from.tolist(), strict=True):
            self._part(name, place, place + 1)[...] = self._part(name, source, source + 1)


def _equal_runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True)[: len(values)]) + 1
    yield from zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True) if len(ends) else ()


def _runs_of(rows: np.ndarray, gap: int, places: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
    """Where sorted rows are at most ``gap`` apart, and their places follow each other: (start, stop)."""
    apart = np.diff(rows) > gap
    if places is not None:
        apart |= np.diff(places) != 1
    ends = [*(np.flatnonzero(apart) + 1).tolist(), len(rows)]
    yield from zip([0, *ends[:-1]], ends, strict=True)


def _numbers(pieces: Sequence[Piece]) -> np.ndarray:
    return np.concatenate([np.arange(piece.start, piece.stop) for piece in pieces])
