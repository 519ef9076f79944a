"""Rows from afar, fetched before they are asked for: so that a stream waits for the line, and the line for nobody.

A stream's rows are fetched in units, pieces of files or single rows, in the order in which they will be handed out; several
at a time, and no more than ``AHEAD_BYTES`` of them. Slabs are copied out of them, whatever their lengths.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from skyset.errors import PartitionError
from skyset.loading.far import MOST
from skyset.loading.reader import Piece, PieceReader, Window, is_remote

#: On their way, or waiting for their turn.
AHEAD_BYTES = 32 << 20
#: The first rows of a stream come alone, for they are waited for.
FIRST_BYTES = 1 << 20
#: Rows of a shuffled stream are fetched one by one if what they are made of is as long as this; shorter ones would wait for
#: the server more than for the line, and are fetched with all others of their window.
LONG = 256 << 10


class Ahead:
    """Reads pieces as ``PieceReader.read`` does, out of units that it has fetched.

    Args:
        reader: fetches them.
        units: what will be wanted, in this order; what is wanted must be parts of them, one after the other.
        row_bytes: of a row, about.
    """

    def __init__(self, reader: PieceReader, units: Iterable[Piece], row_bytes: int):
        self._reader, self._units, self._row_bytes = reader, iter(units), row_bytes
        self._fetched: deque[tuple[Piece, Future[Window]]] = deque()

    def read(self, pieces: Sequence[Piece]) -> dict:
        """Columns of all rows of ``pieces``; PartitionError as ``PieceReader.read``."""
        if not self._fetched and self._fetch_next():
            with contextlib.suppress(PartitionError):  # it is raised below
                self._reader.open(self._fetched[0][0])  # so that no other unit gets in the way of what is waited for
        parts: list[tuple[Piece, Future[Window], int, int]] = []
        for piece in pieces:
            place = piece.start
            while place < piece.stop:
                unit, future = self._unit(piece, place, first=not parts)
                stop = min(piece.stop, unit.stop)
                parts.append((unit, future, place - unit.start, stop - unit.start))
                place = stop
        return self._reader.gathered([self._window(*part) for part in parts])

    def _window(self, unit: Piece, future: Future[Window], start: int, stop: int) -> tuple[Window, int, int]:
        """What has the rows ``start:stop`` of a unit, and where they are in it."""
        try:
            return future.result(), start, stop
        except PartitionError:
            if is_remote(unit) or stop - start == len(unit):
                raise
        # Matches of surveys are of several files: one that cannot be read does not take others' rows along.
        part = replace(unit, start=unit.start + start, stop=unit.start + stop)
        return self._reader.fetch(part).result(), 0, stop - start

    def _unit(self, piece: Piece, row: int, first: bool) -> tuple[Piece, Future[Window]]:
        """The one that has a row of a piece. The ``first`` that is wanted frees those before it."""
        while True:
            for number, (unit, future) in enumerate(self._fetched):
                if unit.path == piece.path and unit.start <= row < unit.stop:
                    for _ in range(number if first else 0):
                        self._fetched.popleft()
                    while self._has_room() and self._fetch_next():
                        pass
                    return unit, future
            if not self._fetch_next():
                raise ValueError(f"{piece.path}: row {row} is not what comes next")

    def _has_room(self) -> bool:
        size = sum(len(unit) for unit, _ in self._fetched) * self._row_bytes
        return size < AHEAD_BYTES and len(self._fetched) < MOST

    def _fetch_next(self) -> bool:
        unit = next(self._units, None)
        if unit is not None:
            self._fetched.append((unit, self._reader.fetch(unit)))
        return unit is not None


class NextWindow:
    """Fetches the next window of a shuffled stream while the rows of this one are handed out."""

    def __init__(self, reader: PieceReader):
        self._reader = reader
        self._pieces: list[Piece] = []
        self._future: Future[Window] | None = None

    def __call__(self, pieces: list[Piece], following: list[Piece]) -> Window:
        """The window of ``pieces``; that of the ``following`` ones, if any, is on its way from now on."""
        future = self._future if self._pieces == pieces else None
        self._future, self._pieces = None, following
        window = future.result() if future else self._reader.window(pieces)
        if following:
            self._future = self._reader.fetch_window(following)
        return window
