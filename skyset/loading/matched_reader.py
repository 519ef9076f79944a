"""Reads matches of several surveys as columns of features: of each file the rows that are wanted, and no other pixels."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from skyset.errors import PartitionError
from skyset.loading.far import MAX_OPEN
from skyset.loading.matched import Matched
from skyset.loading.matched_fill import Filling, Group, Taken, equal_runs
from skyset.loading.ragged import Ragged
from skyset.loading.reader import Piece, PieceReader, Window
from skyset.partitions.layout import PIXELS_FROM
from skyset.partitions.parquet_file import ParquetFile
from skyset.partitions.partition import Partition, bounds_of

#: Files of servers that are read at a time.
_THREADS = 16
#: In a slab: which sides have no match, bool (rows, sides). No column can be called so.
MISSING = "\0missing"


class MatchedWindow(Window):
    """Matches to be read in any order; ``numbers`` are theirs."""

    def __init__(self, pieces: Sequence[Piece], held: dict[str, np.ndarray | Ragged], bounds: dict[str, np.ndarray]):
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
        numbers, taken = _numbers(pieces), Taken()
        bounds = self._bounds_at(numbers, taken)
        raw, stacks = self._allocate(len(numbers), bounds)
        self._fill_at(numbers, raw, bounds, taken)
        return self._made(numbers, raw, stacks, bounds)

    def stored(self, numbers: np.ndarray) -> dict[str, np.ndarray | list[np.ndarray]]:
        """Columns of some matches as they are stored: arrays (rows, *shape), of bytes a list of uint8 (bytes,).

        Raises:
            PartitionError: a file is gone, cut short, or not what the manifest says.
        """
        taken = Taken()
        bounds = self._bounds_at(numbers, taken)
        raw, _ = self._allocate(len(numbers), bounds)
        self._fill_at(numbers, raw, bounds, taken)
        return {name: np.split(values, bounds[name][1:-1]) if name in bounds else values for name, values in raw.items()}

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
        numbers, taken = _numbers(pieces), Taken()
        bounds = self._bounds_at(numbers, taken)
        held = {}
        for column in self._columns:
            small = column.row_bytes < PIXELS_FROM and not column.is_ragged
            if small or whole or self._is_held(column.name):
                shape = (bounds[column.name][-1],) if column.is_ragged else (len(numbers), *column.shape)
                held[column.name] = np.empty(shape, column.stored_dtype)
        self._fill_at(numbers, held, bounds, taken)
        return MatchedWindow(pieces, self._with_bounds(held, bounds), bounds)

    def read_rows(self, window: Window, rows: np.ndarray) -> dict:
        """Columns of some matches of a window, in the order of their numbers ``rows``."""
        assert isinstance(window, MatchedWindow)
        numbers = window.numbers[rows]
        raw, stacks, bounds, apart = self._from_window(window, rows)
        self._fill_at(numbers, apart, bounds, Taken())
        return self._made(numbers, raw, stacks, bounds)

    def _made(self, numbers: np.ndarray, raw: dict, stacks: Mapping, bounds: Mapping[str, np.ndarray]) -> dict:
        origins = {side: self._origins(side, numbers) for side in {self._side_of[name] for name in bounds}}
        read = {**raw, **{n: self._rows_of(n, raw[n], ends, origins[self._side_of[n]]) for n, ends in bounds.items()}}
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

    def _is_held(self, name: str) -> bool:
        """Whether a column is read with its window: from afar, and in groups of rows, a row later would cost as much."""
        side = self.matched.sides[self._side_of[name]] if name in self._side_of else None
        return side is not None and (side.is_far or side.in_groups)

    def _finish(self, values: np.ndarray | Ragged, name: str):
        if isinstance(values, np.ndarray) and values.dtype.kind == "S":  # of catalogues: not ASCII alone
            return _texts(values.tolist())
        return super()._finish(values, name)

    # --- Where rows lie ---

    def _groups(self, side: int, numbers: np.ndarray) -> Iterator[Group]:
        """The matches by file."""
        firsts, rows = self.matched.sides[side].firsts, self.matched.rows[side][numbers]
        order = np.argsort(rows, kind="stable")
        order = order[np.searchsorted(rows[order], 0) :]  # without those that have no row
        rows = rows[order]
        files = np.searchsorted(firsts, rows, side="right") - 1
        for start, stop in equal_runs(files):
            file = int(files[start])
            own, places = rows[start:stop] - firsts[file], order[start:stop]
            new = np.append(True, own[1:] != own[:-1])
            first = places[new]
            yield Group(file, own[new], first, places[~new], first[np.cumsum(new) - 1][~new])

    def _opened(self, side: int, file: int) -> Partition | ParquetFile:
        owner, piece = self.matched.sides[side], self.matched.sides[side].files[file]
        key = f"{side} {piece.path}"
        with self._lock:
            if (known := self._open.get(key)) is not None:
                self._open.move_to_end(key)
                return known
        opened = owner.opened(file, self._of_side[side].values(), self._far.lines if owner.is_far else None, self._cache)
        if self.matched.stamps.get(piece.path, opened.stamp) != opened.stamp:
            opened.close()
            raise PartitionError(f"{piece.path}: was changed since the surveys were matched: match them again")
        with self._lock:
            if len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[key] = opened
        return opened

    # --- Reading ---

    def _bounds_at(self, numbers: np.ndarray, taken: Taken) -> dict[str, np.ndarray]:
        """Where the values of each match come to lie, by ragged column; ``taken`` gets the rows that it takes to know."""
        lengths = {name: np.zeros(len(numbers), np.int64) for name in self._ragged}
        for side in {self._side_of[name] for name in self._ragged}:
            own = {name: column.name for name, column in self._of_side[side].items() if name in lengths}

            def measure(group: Group, side=side, own=own) -> None:
                partition, first, last = self._opened(side, group.file), int(group.rows[0]), int(group.rows[-1]) + 1
                for name, column in own.items():
                    if isinstance(partition, ParquetFile):
                        lengths[name][group.places] = partition.lengths(taken.of(side, group, partition), column)
                    else:
                        size = np.diff(partition.ends(column, first, last))
                        lengths[name][group.places] = size[group.rows - first]
                    lengths[name][group.again] = lengths[name][group.copied_from]

            self._each(side, measure, self._groups(side, numbers))
        return {name: bounds_of(sizes) for name, sizes in lengths.items()}

    def _fill_at(
        self, numbers: np.ndarray, raw: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray], taken: Taken
    ) -> None:
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
                    if column.row_bytes < PIXELS_FROM and not column.is_ragged:
                        raw[name][self.matched.rows[number][numbers] < 0] = np.zeros((), column.stored_dtype)

                def fill(group: Group, number=number, own=own) -> None:
                    partition = self._opened(number, group.file)
                    filling = Filling(partition, own, raw, bounds)
                    if isinstance(partition, ParquetFile):
                        filling.fill_from(partition, taken.of(number, group, partition), group)
                    else:
                        filling.fill(group)

                self._each(number, fill, self._groups(number, numbers))

    def _each(self, side: int, work, groups: Iterator[Group]) -> None:
        """Of files on servers several at a time: reading them is waiting for answers."""
        if not self.matched.sides[side].is_far:
            for group in groups:
                work(group)
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            for done in [pool.submit(work, group) for group in groups]:
                done.result()


def _texts(values: list) -> list:
    return [_texts(each) if isinstance(each, list) else each.decode("utf-8", "replace") for each in values]


def _numbers(pieces: Sequence[Piece]) -> np.ndarray:
    return np.concatenate([np.arange(piece.start, piece.stop) for piece in pieces])
