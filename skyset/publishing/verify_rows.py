"""The rows of published files without their pixels: ids that are there twice, positions, and the cells that these lie in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skyset.publishing.verify_files import examples, rows_are


@dataclass(frozen=True)
class Names:
    """What the columns of ids and of positions, in degrees, are called; no ``key`` where nothing is known of ids.

    ``unique`` tells whether no two rows have the same one.
    """

    ra: str = "ra"
    dec: str = "dec"
    key: str = ""
    unique: bool = True


@dataclass(frozen=True)
class Rows:
    """The ids (row numbers where there are none) and positions, float64 degrees, of a file's rows."""

    ids: list
    ra: np.ndarray
    dec: np.ndarray

    @classmethod
    def of(cls, file: pq.ParquetFile, names: Names) -> Rows:
        """LookupError or another of ``DAMAGE`` where a column is not there or has no numbers."""
        wanted = [names.ra, names.dec, *([names.key] if names.key else [])]
        if missing := [name for name in wanted if name not in file.schema_arrow.names]:
            raise LookupError(f"column {missing[0]!r} is missing")
        table = file.read(columns=list(dict.fromkeys(wanted)))
        ra, dec = (numbers(table.column(name), pa.float64()) for name in (names.ra, names.dec))
        ids = table.column(names.key).to_pylist() if names.key else [f"row {n}" for n in range(len(ra))]
        return cls(ids, ra.astype(np.float64), dec.astype(np.float64))

    def __len__(self) -> int:
        return len(self.ra)

    def on_the_sky(self) -> np.ndarray:
        """Rows whose position can be one, bool (n,)."""
        return (self.ra >= 0) & (self.ra <= 360) & (np.abs(self.dec) <= 90)

    def named(self, rows: np.ndarray) -> str:
        """The first few of some rows."""
        return examples([self.ids[row] for row in rows.tolist()])

    def off_the_sky(self, path: str) -> Iterator[str]:
        """A line where rows have no position."""
        if len(bad := np.flatnonzero(~self.on_the_sky())):
            first = f"ra {self.ra[bad[0]]}, dec {self.dec[bad[0]]}"
            yield f"{path}: {rows_are(len(bad))} not on the sky: {self.named(bad)} ({first})"


def numbers(column: pa.ChunkedArray, kind: pa.DataType) -> np.ndarray:
    """A column's values; what is missing is NaN, or -1 of integers.

    Raises:
        pa.ArrowInvalid: these are no numbers of this kind.
    """
    return pc.fill_null(column.cast(kind), -1 if pa.types.is_integer(kind) else float("nan")).to_numpy()


@dataclass
class Seen:
    """Where each id was first."""

    paths: list[str] = field(default_factory=list)
    first: dict = field(default_factory=dict)

    def twice(self, path: str, key: str, rows: Rows) -> Iterator[str]:
        """A line for each other file, or this one, that has the same ids."""
        number = len(self.paths)
        self.paths.append(path)
        again: dict[int, list] = {}
        for each in rows.ids:
            if (other := self.first.setdefault(each, number)) != number:
                again.setdefault(other, []).append(each)
        here, both = set(), []
        for each in rows.ids:
            (both.append(each) if each in here else here.add(each))
        if both:
            yield f"{path}: {rows_are(len(both))} there twice by {key}: {examples(both)}"
        for other, ids in again.items():
            yield f"{path}: {rows_are(len(ids))} in {self.paths[other]} too, by {key}: {examples(ids)}"
