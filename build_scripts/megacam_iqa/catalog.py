"""Step 4 and the sources of step 7: all sources as a Parquet file, and as partitions, an exposure at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skyset.build_scripts.megacam_iqa.grouping import Grouping
from skyset.build_scripts.megacam_iqa.labels import NONE, Labels
from skyset.build_scripts.megacam_iqa.representative import object_id
from skyset.build_scripts.megacam_iqa.staged import Staged
from skyset.building.whole_files import Whole
from skyset.files import short_digest
from skyset.loaders.megacam_iqa import CLASSES, CONFIGS, FEATURES
from skyset.sky import healpix_cell
from skyset.splits import SPLITS
from skyset.tables.parquet import write_parquet

CATALOGUE = "objects_catalog.parquet"
SCHEMA = pa.schema(
    [
        ("OBJECT_ID", pa.string()),
        ("FITS_ID", pa.string()),
        ("CCD_ID", pa.uint8()),
        *((name, pa.float32()) for name in FEATURES),
        ("FLAGS", pa.int16()),
        ("EXPTIME", pa.float64()),
        ("gt_label1", pa.string()),
        ("gt_label2", pa.string()),
    ]
)


def ids_of(staged: Staged, rows: np.ndarray) -> np.ndarray:
    """The object_id of each source, S24: its exposure, its CCD, and its number there."""
    parts = [np.zeros(0, "S24")]
    for ccd in staged.ccds:
        start = object_id(staged.fits_id, ccd["ccd"])
        parts.append(np.array([f"{start}_{number:05d}" for number in range(ccd["sources"])], "S24"))
    return np.concatenate(parts)


def labels_of(staged: Staged, rows: np.ndarray, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """The two labels of each source, int64, -1 for none."""
    found = np.full((40, 2), NONE)
    for ccd in staged.ccds:
        found[ccd["ccd"]] = labels.of(staged.fits_id, ccd["ccd"])
    return found[rows["ccd"], 0], found[rows["ccd"], 1]


def write_catalogue(path: Path, exposures: Sequence[Staged], labels: Labels) -> int:
    """Write ``objects_catalog.parquet``, a row group an exposure; returns the number of sources."""
    words = pa.array([*CLASSES, None])

    def batches() -> Iterator[pa.RecordBatch]:
        for staged in exposures:
            rows = staged.rows()
            first, second = labels_of(staged, rows, labels)
            columns = {
                "OBJECT_ID": pa.array(ids_of(staged, rows)).cast(pa.string()),
                "FITS_ID": pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int32), [staged.fits_id]).cast(pa.string()),
                "CCD_ID": rows["ccd"].astype(np.uint8),
                **{name: rows[name] for name in FEATURES},
                "FLAGS": rows["FLAGS"],
                "EXPTIME": np.full(len(rows), staged.facts["exptime"]),
                "gt_label1": words.take(pa.array(first % len(words))),
                "gt_label2": words.take(pa.array(second % len(words))),
            }
            yield pa.RecordBatch.from_arrays([pa.array(columns[name]) for name in SCHEMA.names], schema=SCHEMA)

    return write_parquet(path, batches(), SCHEMA)


class Sources:
    """Config ``sources``: which partitions there are, and their rows.

    Args:
        exposures: those that were measured.
        grouping: the map.
        labels: of exposures.
        split_of: ``split_of(fits_id, object_id)``, of an exposure or of each object.
        by_object: whether it is of each object.
    """

    def __init__(self, exposures: Sequence[Staged], grouping: Grouping, labels: Labels, split_of: Callable, by_object: bool):
        self.exposures = {each.fits_id: each for each in exposures}
        self.grouping, self.labels, self.split_of, self.by_object = grouping, labels, split_of, by_object
        self._last: tuple[str, Mapping[str, np.ndarray], np.ndarray] | None = None

    def wholes(self) -> list[Whole]:
        """A partition for each exposure in each cell and split that it has sources in."""
        found = []
        for staged in self.exposures.values():
            said = [self.labels.of(staged.fits_id, ccd["ccd"]) for ccd in staged.ccds]
            made_of = short_digest(f"{staged.facts['made_of']} {self.grouping.digest} {said} {self.by_object}")
            columns, splits = self._columns(staged.fits_id)
            pairs = np.unique(np.stack([splits, columns["healpix"]]), axis=1) if len(splits) else np.zeros((2, 0), int)
            found += [Whole(staged.fits_id, SPLITS[split], int(cell), made_of) for split, cell in pairs.T]
        return found

    def rows(self, whole: Whole) -> dict[str, np.ndarray]:
        """The columns of a partition."""
        columns, splits = self._columns(whole.name)
        wanted = (columns["healpix"] == whole.healpix) & (splits == SPLITS.index(whole.split))
        return {name: values[wanted] for name, values in columns.items()}

    def _columns(self, fits_id: str) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        """All sources of an exposure, and the number of each one's split."""
        if self._last is None or self._last[0] != fits_id:
            staged = self.exposures[fits_id]
            rows = staged.rows()
            first, second = labels_of(staged, rows, self.labels)
            ids = ids_of(staged, rows)
            columns = {name: rows[name] for name in ("ra", "dec", "X", "Y", *FEATURES, "FLAGS")} | {
                "object_id": ids,
                "FITS_ID": np.full(len(rows), fits_id.encode(), "S12"),
                "CCD_ID": rows["ccd"].astype(np.int32),
                "healpix": healpix_cell(rows["ra"], rows["dec"]) if len(rows) else np.zeros(0, np.int64),
                "EXPTIME": np.full(len(rows), staged.facts["exptime"], np.float32),
                "gt_label1": first,
                "gt_label2": second,
                "unit": self.grouping.of(staged)[0],
            }
            names = [key.decode() for key in ids] if self.by_object else [""] * min(1, len(ids))
            splits = np.array([SPLITS.index(self.split_of(fits_id, name)) for name in names], np.int64)
            self._last = fits_id, columns, splits if self.by_object else np.repeat(splits, len(rows))
        return self._last[1:]


SURVEY = CONFIGS["sources"]
