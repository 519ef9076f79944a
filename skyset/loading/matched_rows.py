"""Matches of several surveys as `datasets` iterates them: one row a match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from skyset.errors import PartitionError
from skyset.loading.encoded import ImageRows
from skyset.loading.matched import Matched
from skyset.loading.matched_reader import MISSING, MatchedReader
from skyset.loading.partition_rows import PartitionRows
from skyset.loading.reader import Piece, rows_of


class MatchedRows(PartitionRows):
    """Matches as `datasets` iterates them, see ``PartitionRows``: all steps of a stream go over them as over one survey's.

    Where a side has no match, its values are None, in every format; in Arrow null. Batches hold such columns as lists.
    """

    def __init__(self, matched: Matched):
        self.matched = matched
        super().__init__(matched.survey, matched.pieces(), [feature.name for feature in matched.survey.features])

    def _reader(self, **options) -> MatchedReader:
        return MatchedReader(self.matched, self._names.values(), self.image_size, cache=self.cache, **options)

    @property
    def _is_far(self) -> bool:
        return any(side.is_far for side in self.matched.sides)

    def _renamed(self, columns: dict) -> dict:
        missing = columns.pop(MISSING, None)
        columns = super()._renamed(columns)
        return columns if missing is None else {**columns, MISSING: missing}

    def _gone(self, columns: dict) -> dict[str, np.ndarray]:
        """Which rows have no value, by the names of the columns that there can be none in."""
        missing = columns.pop(MISSING, None)
        if missing is None:
            return {}
        never = self.matched.rows.min(axis=1, initial=0) >= 0
        sides = {name: self._side(name) for name in self._names}
        return {name: missing[:, side] for name, side in sides.items() if side is not None and not never[side]}

    def _side(self, name: str) -> int | None:
        """The number of the side that a column is of; None where it is of none."""
        prefix = self._names[name].partition(".")[0]
        return next((number for number, side in enumerate(self.matched.sides) if side.name == prefix), None)

    def _finished(self, columns: dict) -> dict:
        columns = dict(columns)
        gone = self._gone(columns)
        return columns | {name: _without(columns[name], rows) for name, rows in gone.items()}

    def _table(self, columns: dict) -> pa.Table:
        gone = self._gone(columns)
        table = super()._table(columns)
        for name, rows in gone.items():
            there = pa.array(np.arange(len(rows)), mask=rows)
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), table[name].take(there))
        return table

    def _halves(self, wanted: Sequence | np.ndarray) -> list:
        """Matches of a piece are of several files."""
        if len(wanted) == 1 and isinstance(piece := wanted[0], Piece) and len(piece) > 1:
            middle = (piece.start + piece.stop) // 2
            return [[replace(piece, stop=middle)], [replace(piece, start=middle)]]
        return super()._halves(wanted)

    def _undecodable(self, name: str, columns: dict) -> dict[int, PartitionError]:
        bad, missing = super()._undecodable(name, columns), columns.get(MISSING)
        if missing is None:
            return bad
        side = self._side(name)  # where there is no match there is no image to decode
        return {row: error for row, error in bad.items() if not missing[row, side]}


def _without(values, gone: np.ndarray) -> list:
    """A column as a list, None where a row has no value."""
    if isinstance(values, Mapping):
        values = list(rows_of(values))
    if isinstance(values, ImageRows):
        return [None if none else values[row] for row, none in enumerate(gone.tolist())]
    return [None if none else value for value, none in zip(values, gone.tolist(), strict=True)]
