"""Two TAP services as one catalogue: the rows of one with the columns of the nearest object of the other."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.building.cutouts.columns import Columns, present
from skyset.building.cutouts.sources import Query
from skyset.tables.match import match_positions, nearest


@dataclass(frozen=True)
class MatchedCatalogues:
    """The rows of ``left`` with what they lack, and the position, of the nearest object of ``right``; null where none is.

    Args:
        columns: what they bring together.
        left, right: two queries in slices of right ascension, of any borders; ``right`` gives the overlap on both sides.
        radius_arcsec: how far the two positions may be apart.
        overlap: degrees by which a slice of ``right`` is wider than its borders, more than two releases differ by.
    """

    columns: Columns
    left: Query
    right: Query
    radius_arcsec: float
    overlap: float

    @property
    def addresses(self) -> list[str]:
        return list(dict.fromkeys((self.left.url, self.right.url)))

    @property
    def queries(self) -> list[str]:
        return [self.left.text, self.right.text]

    def batches(self, folder: Path, connections: int) -> Generator[pa.RecordBatch, None, None]:
        """See `declaration.CatalogueSource`."""
        left, right = self.left, self.right
        names = left.names(folder) if left.names else None
        with (
            contextlib.closing(right.slices(folder, connections)) as paths,
            contextlib.closing(left.slices(folder, connections)) as left_paths,
        ):
            for table in self._joined(left_paths, names, _Right(self, paths, folder, connections)):
                yield from table.to_batches()

    def _joined(self, paths: Iterator[Path], names, right: _Right) -> Iterator[pa.Table]:
        for path in paths:
            others = right.around(*slice_of(path))
            yield self.join(self.left.rows(self.columns, path, names), others)

    def join(self, left: pa.Table, right: pa.Table) -> pa.Table:
        """The rows of ``left`` with those of ``right``."""
        columns, ids = self.columns, self.columns.ids
        (ra, dec, rows), (other_ra, other_dec, other_rows) = _positions(left), _positions(right)
        pairs = nearest(match_positions(ra, dec, other_ra, other_dec, self.radius_arcsec))
        places = np.full(left.num_rows, -1)
        places[rows[pairs.left]] = other_rows[pairs.right]
        places = pa.array(places, mask=places < 0)
        ours = present(left) - {"ra", "dec", columns.key}
        found = {name: left[name] if name in ours else right[name].take(places) for name in columns.schema.names}
        for name in ("ra", "dec"):
            found[name] = pc.coalesce(found[name], left[name])
        found[columns.key] = pc.coalesce(*(found[name] for name in ids), left[columns.key])
        have = {*ours, *present(right), columns.key}
        return pa.table(list(found.values()), schema=columns.marked(sorted(have)))


class _Right:
    """The slices of the other service around those of the first, both in order of right ascension."""

    def __init__(self, source: MatchedCatalogues, paths: Iterator[Path], folder: Path, connections: int) -> None:
        self.source, self.paths, self.where = source, paths, (folder, connections)
        self.held: list[tuple[float, float, pa.Table]] = []
        self.first: list[pa.Table] = []

    def around(self, low: float, high: float) -> pa.Table:
        """The objects from ``low`` to ``high``; those just below 360 degrees are near to 0, and the other way round."""
        while not self.held or self.held[-1][1] < high:
            if (path := next(self.paths, None)) is None:
                break
            self.held.append((*slice_of(path), self._read(path)))
        self.held = [part for part in self.held if part[1] > low]
        tables = [table for *_, table in self.held]
        if low == 0:
            tables += self._end()
            self.first = [tables[0].filter(pc.less(tables[0]["ra"], self.source.overlap))] if self.held else []
        if high == 360:
            tables += self.first
        return pa.concat_tables([*tables, self.source.columns.marked(()).empty_table()])

    def _end(self) -> list[pa.Table]:
        """The objects just below 360 degrees."""
        query = self.source.right
        sliced = dataclasses.replace(query.sliced, low=360 - self.source.overlap, high=360.0, slices=1)
        with contextlib.closing(dataclasses.replace(query, sliced=sliced).slices(*self.where)) as paths:
            return [self._read(path) for path in paths]

    def _read(self, path: Path) -> pa.Table:
        return self.source.right.rows(self.source.columns, path, None)


def slice_of(path: Path) -> tuple[float, float]:
    """The borders in degrees that a slice's file is named by."""
    low, _, high = path.stem.partition("-")
    return float(low), float(high)


def _positions(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right ascensions and declinations, degrees, of the rows that have both, and their numbers."""
    ra, dec = (table[name].to_numpy() for name in ("ra", "dec"))
    rows = np.flatnonzero((ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90))
    return ra[rows], dec[rows], rows
