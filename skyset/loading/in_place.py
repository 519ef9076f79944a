"""Published files that are read where they lie: what a manifest would say of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from skyset.errors import PartitionError, UserError
from skyset.loading import registry
from skyset.partitions.adopted import Lying
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import FileEntry, Manifest
from skyset.survey import Column, Survey


def read_in_place(survey: Survey, data_dir: str | None, config: str) -> tuple[str, Survey, Manifest] | None:
    """The published files of a survey in a local folder without partitions.

    Args:
        survey: the config's declaration.
        data_dir: the folder that is asked for.
        config: its name.

    Returns:
        The folder, the declaration with the columns that can be made of the files, and a manifest of them that is nowhere
        on the disk: ``keys`` of its entries tells of the file's time, a checksum there is none. None where there are no
        such files.

    Raises:
        UserError: a file cannot be used.
    """
    if survey.published is None or data_dir is None or "://" in str(data_dir):
        return None
    folder = Path(data_dir).expanduser().absolute()
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return None
    try:
        found = survey.published(folder, config)
        if found is None:
            return None
        _refuse_bad_rows(found, survey.key)
    except PartitionError as error:
        raise UserError(str(error)) from error
    there = set(found.columns)
    columns = [column for column in survey.columns if column.name in there]
    absent = tuple(column.name for column in survey.columns if column.name not in there)
    survey = replace(replace(survey, optional=absent).as_built(columns), opens=partial(found.opens, checked=True))
    files = [_entry(folder, path, split, found.rows[split]) for split, path in found.files.items() if found.rows[split]]
    build = {"config": config, "in_place": True}
    return str(folder), survey, Manifest(survey.name, list(survey.columns), survey.key, files, [str(folder)], build)


#: Ids of files whose rows were looked at, sorted, by path and time.
_looked_at: dict[tuple, np.ndarray] = {}


def _refuse_bad_rows(found: Lying, key: str) -> None:
    """PartitionError naming rows without a position, or with the id of another: in place, nothing can leave them out."""
    seen: dict[Path, np.ndarray] = {}
    for path in found.files.values():
        status = path.stat()
        stamp = str(path), status.st_ino, status.st_size, status.st_mtime_ns
        if stamp not in _looked_at:
            with found.opens(path, [Column(key, "S20"), Column("healpix", "int64")]) as file:
                ids = file.read(key)
                _refuse(path, np.flatnonzero(file.read("healpix") < 0), ids, "no position on the sky")
            different, first = np.unique(ids, return_index=True)
            _refuse(path, np.setdiff1d(np.arange(len(ids)), first), ids, "the id of another row")
            _looked_at[stamp] = different
        for other, ids in seen.items():
            if len(both := np.intersect1d(ids, _looked_at[stamp], assume_unique=True)):
                raise PartitionError(f"{path}: {both[0].decode()} is in {other.name} too{_CONVERT}")
        seen[path] = _looked_at[stamp]


_CONVERT = ": convert the files (skyset build --local_data_path), which leaves such rows out"


def _refuse(path: Path, rows: np.ndarray, ids: np.ndarray, what: str) -> None:
    if len(rows):
        named = ", ".join(f"{row} ({ids[row].decode()})" for row in rows[:10]) + f" and {len(rows) - 10} more" * (
            len(rows) > 10
        )
        raise PartitionError(f"{path}: row {named}: {what}{_CONVERT}")


def published_in(name: str, data_dir: str) -> tuple[str, Survey, Manifest] | None:
    """The published files of a survey's first dataset that a folder without partitions has; see ``read_in_place``."""
    root = registry.find_root(name, data_dir)
    if root is not None and (Path(root) / MANIFEST).exists():
        return None
    found = (read_in_place(survey, data_dir, config) for config, survey in registry.configs(name).items())
    return next(filter(None, found), None)


def lying_in(folder: str | Path) -> dict[str, tuple[str, Survey, Manifest]]:
    """The datasets whose published files a local folder without partitions has, by config; see ``read_in_place``.

    Of the first survey that knows the files; empty where there are none.
    """
    folder = Path(folder).expanduser()
    if "://" in str(folder) or not folder.is_dir() or (folder / MANIFEST).exists() or registry.folders_below(folder):
        return {}
    for name in registry.surveys():
        try:
            configs = registry.configs(name)
        except UserError:  # somebody's package that is broken
            continue
        found = {config: read_in_place(survey, str(folder), config) for config, survey in configs.items()}
        if there := {config: each for config, each in found.items() if each is not None}:
            return there
    return {}


def _entry(folder: Path, path: Path, split: str, rows: int) -> FileEntry:
    status = path.stat()
    stamp = f"{status.st_ino} {status.st_mtime_ns}"
    where = path.relative_to(folder).as_posix()
    return FileEntry(where, split, 0, rows, status.st_size, "", stamp, (0.0, 360.0), (-90.0, 90.0))
