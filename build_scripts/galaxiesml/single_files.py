"""GalaxiesML's partitions written as the authors publish them: three HDF5 files a size, and CSV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skyset.errors import PartitionError, UserError
from skyset.loaders.galaxiesml import CONFIGS, SIZES
from skyset.loading.reader import Piece, PieceReader
from skyset.messages import say
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import Manifest
from skyset.partitions.partition import Partition
from skyset.published.galaxiesml import PublishedWriter, file_name, published_rows
from skyset.published.writer import refuse_csv
from skyset.survey import Survey

#: Rows that are read and written at a time.
_ROWS = 64


def write_single_files(root: Path, folder: Path) -> None:
    """Write the partitions below ``root`` as the authors publish them; a file that is there is complete, and is left.

    Args:
        root: with a folder a config.
        folder: for ``5x127x127_training_with_morphology.hdf5`` and the others, and the CSV of the largest size.

    Raises:
        UserError: there are no partitions, one cannot be read, or the files cannot be written.
    """
    made: dict[Path, tuple] = {}
    sizes = [size for size in SIZES if (root / str(size) / MANIFEST).exists()]
    if not sizes:
        raise UserError(f"{root} has no partitions with images")
    for size in sizes:
        manifest = Manifest.load(root / str(size))
        survey = CONFIGS[str(size)].as_built(manifest.columns)
        for split in manifest.splits:
            made[folder / file_name(size, split)] = size, survey, root / str(size), manifest, split, size == sizes[0]
    for path, (*_, csv) in made.items():
        if csv:
            refuse_csv(path)
    for path, (*arguments, csv) in made.items():
        if path.exists():
            lacks = csv and not path.with_suffix(".csv").exists()
            say(f"{path} is there, and is left" + " without a CSV: remove it to have both written" * lacks)
            continue
        try:
            _write_single(path, *arguments, csv=csv)
        except (PartitionError, OSError) as error:
            raise UserError(f"{path}: {error}") from error
        say(f"wrote {path}")


def _numbers(ids: list[str], path: str) -> np.ndarray:
    """Identifiers, int64, which they are in published files."""
    for each in ids:
        if not (each.isascii() and each.isdecimal() and int(each) < 1 << 63):
            raise PartitionError(f"{path} has {each!r}, which cannot be an object_id there: an integer of 64 bits")
    return np.array(ids, object).astype(np.int64)


def _write_single(path: Path, size: int, survey: Survey, root: Path, manifest: Manifest, split: str, csv: bool) -> None:
    """One file, sorted by id as the published ones are."""
    entries, ids = manifest.splits[split], []
    for number, entry in enumerate(entries):
        with Partition(root / entry.path, [survey.column("object_id")]) as partition:
            names = _numbers(partition.text("object_id"), entry.path)
        ids.append(np.stack([names, np.full(len(names), number), np.arange(len(names))], axis=1))
    rows = np.concatenate(ids)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    names = [feature.name for feature in survey.features if feature.name not in ("mask", "variance", "psf")]
    with PieceReader(survey, names) as reader, PublishedWriter(path, size, len(rows), csv=csv) as writer:
        for start in range(0, len(rows), _ROWS):
            pieces = [
                Piece(str(root / entries[number].path), row, row + 1, entries[number].rows)
                for _, number, row in rows[start : start + _ROWS].tolist()
            ]
            columns = reader.read(pieces)
            writer.append(published_rows(columns | {"object_id": rows[start : start + _ROWS, 0]}))
