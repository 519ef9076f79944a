"""A dataset of which whole partitions are at hand at a time, such as the sources of an exposure in one cell.

For tables of millions of small rows: no object is planned by itself, and what is known of a row's making is known of its
file. Killed at any moment and started again, a build writes what is not there yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyset.building.build import describe_failure
from skyset.building.card import leave_card
from skyset.building.folder import BuildFolder
from skyset.building.options import Options
from skyset.building.task import Found, Rejected
from skyset.errors import PartitionError, UserError
from skyset.partitions.layout import compression_options, partition_path, slabs
from skyset.partitions.manifest import FileEntry, Manifest, describe_file
from skyset.partitions.writer import PartitionWriter
from skyset.survey import Column, Survey, fitting


@dataclass(frozen=True)
class Whole:
    """A partition to be.

    Attributes:
        name: of the group of rows, such as an exposure: files of a cell stand in the order of their names.
        split, healpix: where it belongs.
        made_of: digest of what its rows are made of.
    """

    name: str
    split: str
    healpix: int
    made_of: str


def paths_of(wholes: Sequence[Whole], survey: Survey) -> dict[str, Whole]:
    """The partitions by path: those of a cell are numbered."""
    cells: dict[tuple[str, int], list[Whole]] = defaultdict(list)
    for each in wholes:
        cells[each.split, each.healpix].append(each)
    found = {}
    for (split, healpix), group in sorted(cells.items()):
        folder = None if split == "train" and not survey.train_folder else split
        for part, each in enumerate(sorted(group, key=lambda each: each.name), 1):
            found[partition_path(healpix, part, len(group), folder)] = each
    return found


def build_whole(
    survey: Survey,
    wholes: Sequence[Whole],
    rows: Callable[[Whole], Mapping[str, np.ndarray]],
    options: Options,
    command: Sequence[str],
    **found,
) -> Manifest:
    """Write a dataset and its manifest, out of partitions that are in memory one at a time.

    Args:
        rows: the columns of one, (rows, *shape) each.

    The others, and what is raised, as for ``build_slabs``.
    """

    def slabs_of(whole: Whole) -> tuple[int, Iterator[Mapping[str, np.ndarray]]]:
        columns = rows(whole)
        made = {column.name: _fitting(column, np.asarray(columns[column.name])) for column in survey.columns}
        count = len(made[survey.key])
        parts = slabs(count, survey.row_bytes)
        return count, ({name: values[start:stop] for name, values in made.items()} for start, stop in parts)

    return build_slabs(survey, wholes, slabs_of, options, command, **found)


def build_slabs(
    survey: Survey,
    wholes: Sequence[Whole],
    rows: Callable[[Whole], tuple[int, Iterable[Mapping]]],
    options: Options,
    command: Sequence[str],
    *,
    rejected: Sequence[Rejected] = (),
    sources: Sequence[str] = (),
    notes: Mapping | None = None,
    progress: Callable = iter,
) -> Manifest:
    """Write a dataset and its manifest.

    Args:
        survey: the declaration.
        wholes: all of its partitions.
        rows: how many rows one has, and its columns in slabs as ``PartitionWriter.append_rows`` takes them.
        options: what all builds share; ``output_dir`` is the dataset's.
        command: what the user typed.
        rejected, sources, notes: for ``rejected.csv`` and the manifest.
        progress: wraps the list of partitions that are to be written.

    Raises:
        UserError: the folder cannot be used, or the disk is full.
        RecordError: a column's values do not fit.
    """
    compression_options(options.compression, ())
    files = paths_of(wholes, survey)
    try:
        with BuildFolder(options.output_dir, survey, options) as folder:
            folder.refuse_other_columns()
            folder.rejected.extend(rejected)
            for path in progress(folder.plan_files({path: each.made_of for path, each in files.items()})):
                folder.done(_write(folder.root, path, files[path], *rows(files[path]), survey, options.compression))
            manifest = folder.finish(command, Found([], rejected, sources=sources, notes=notes or {}))
            leave_card(options.output_dir, survey, manifest.config)
            return manifest
    except PartitionError as error:
        raise UserError(str(error)) from error
    except (OSError, RuntimeError, MemoryError) as error:
        raise UserError(describe_failure(error, options.output_dir)) from error


def _write(
    root: Path, path: str, whole: Whole, count: int, rows: Iterable[Mapping], survey: Survey, compression: str
) -> FileEntry:
    attributes: dict[str, str | int] = {"survey": survey.name, "healpix": whole.healpix, "made_of": whole.made_of}
    with PartitionWriter(root / path, survey.columns, count, attributes, compression) as writer:
        for slab in rows:
            writer.append_rows(slab, [0] * len(slab[survey.key]))
    return describe_file(root, path, survey, whole.split)


def _fitting(column: Column, values: np.ndarray) -> np.ndarray:
    if values.dtype == column.stored_dtype and values.shape[1:] == column.shape:
        return values
    return fitting(column, values)
