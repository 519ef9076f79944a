"""Any local folder of Parquet files as what commands read: a declaration of its columns, and a manifest of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from skyset.errors import PartitionError, UserError
from skyset.loading import registry
from skyset.loading.hats import anybodys
from skyset.loading.parquet_folder import ParquetFolder
from skyset.partitions.manifest import FileEntry, Manifest
from skyset.partitions.parquet_file import DAMAGE
from skyset.survey import Survey
from skyset.tables.usual_names import NAMES, POSITIONS

_WHOLE = (0.0, 360.0), (-90.0, 90.0)


def read_parquet(root: str) -> tuple[str, Survey, Manifest]:
    """The Parquet files of a folder: those of its card's first config, in the splits that `datasets` sees in their names.

    Args:
        root: absolute.

    Returns:
        The folder, a declaration of the columns of the first file, and a manifest that is nowhere on a disk, without
        checksums, whose ``build["position"]`` names the columns of positions where there are such.

    Raises:
        UserError: files are damaged, or no Parquet.
    """
    try:
        with registry.anybodys():
            builder = datasets.load_dataset_builder(root)
    except (OSError, ValueError) as error:
        raise UserError(f"{root} cannot be read: {str(error).strip().partition(chr(10))[0]}") from error
    if not isinstance(builder, ParquetFolder) or not builder.config.data_files:
        raise UserError(f"{root} holds other files than Parquet")
    files = {str(split): list(map(str, paths)) for split, paths in builder.config.data_files.items()}
    first = next(path for paths in files.values() for path in paths)
    try:
        survey = anybodys(first, root, Path(root).name, keys=NAMES)
        position = _position(survey)
        entries = [_entry(root, path, split, position) for split, paths in files.items() for path in paths]
    except (*DAMAGE, PartitionError) as error:
        raise UserError(f"{root} cannot be read: {str(error) or type(error).__name__}") from error
    entries = [entry for entry in entries if entry.rows]
    if not entries:
        raise UserError(f"{root} has no rows")
    build = {"position": position} if position else {}
    return root, survey, Manifest(survey.name, list(survey.columns), survey.key, entries, [root], build)


def _position(survey: Survey) -> list[str]:
    """The columns of right ascension and declination, degrees, by their usual names; empty where there are none."""
    lower = {column.name.lower(): column.name for column in survey.columns if not column.shape and not column.is_ragged}
    return next(([lower[ra], lower[dec]] for ra, dec in POSITIONS if ra in lower and dec in lower), [])


def _entry(root: str, path: str, split: str, position: Sequence[str]) -> FileEntry:
    """What a manifest would say of a file; where on the sky it is, its footer may tell."""
    file = Path(path)
    footer = pq.read_metadata(file)
    ra, dec = (_bounds(footer, name) for name in position) if position else (None, None)
    ra = ra if ra is not None and ra[0] >= 0 and ra[1] <= 360 else _WHOLE[0]
    dec = dec if dec is not None and dec[0] >= -90 and dec[1] <= 90 else _WHOLE[1]
    where = file.resolve().relative_to(Path(root).resolve()).as_posix()
    return FileEntry(where, split, 0, footer.num_rows, file.stat().st_size, "", "", ra, dec)


def _bounds(footer: pq.FileMetaData, name: str) -> tuple[float, float] | None:
    """The least and the largest value of a column of numbers; None where a row group does not tell."""
    place = next((n for n in range(footer.num_columns) if footer.schema.column(n).path == name), None)
    if place is None:
        return None
    counted = [footer.row_group(n).column(place).statistics for n in range(footer.num_row_groups)]
    if not counted or not all(each is not None and each.has_min_max for each in counted):
        return None
    return float(min(each.min for each in counted)), float(max(each.max for each in counted))
