"""Whether a folder is what its manifest says, difference by difference."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from skyset.errors import PartitionError, RecordError
from skyset.files import file_sha256, is_temporary
from skyset.partitions.layout import (
    BESIDE,
    FILTERS,
    JOURNAL,
    MANIFEST,
    PIXELS_FROM,
    REJECTED,
    SUFFIX,
    cell_of_path,
    partition_path,
    split_of_path,
)
from skyset.partitions.manifest import FileEntry, Manifest, grouped, keys_digest, read_values, reasons_told
from skyset.partitions.partition import Partition
from skyset.partitions.twice import Digests, digests, repeated
from skyset.runner import executor, in_order
from skyset.sky import check_position, healpix_cell
from skyset.survey import Column, Survey

#: Of the files that one task looks at, together.
_TASK_BYTES, _TASK_FILES = 256 << 20, 64


def verify(
    root: str | Path, survey: Survey | None = None, progress=iter, processes: int = 1, scheduler: str | None = None
) -> Iterator[str]:
    """Recompute all that the manifest says and yield every difference, a line each.

    Args:
        root: a survey's local folder.
        survey: its declaration, if known, to compare the table of columns with.
        progress: wraps the list of files, for a progress bar.
        processes, scheduler: that look at the files, see `skyset.runner.executor`.

    Raises:
        UserError: there is no manifest, or it does not say what the columns are; a process or worker was killed.
    """
    root = Path(root)
    with reasons_told(root):
        values = read_values(root)
        manifest = Manifest.head(values)
        files = list(values["files"])
    broken = []
    for number, each in enumerate(files):
        try:
            entry = FileEntry.from_json(each)
            manifest.check_entry(entry)
            manifest.files.append(entry)
        except (ValueError, LookupError, TypeError, PartitionError) as error:
            broken.append(f"{MANIFEST}: entry {number}: {str(error)[:300]}")
    yield from broken
    yield from _verify_head(root, values, manifest, survey, whole=not broken)
    yield from (f"{path}: is there but not in {MANIFEST}" for path in _unlisted(root, manifest, survey))
    yield from _verify_numbers(manifest)
    yield from (f"{path}: listed twice" for path, n in Counter(e.path for e in manifest.files).items() if n > 1)
    yield from _verify_files(root, manifest, survey, progress, processes, scheduler)


def _verify_files(
    root: Path, manifest: Manifest, survey: Survey | None, progress: Callable, processes: int, scheduler: str | None
) -> Iterator[str]:
    """Each file, wherever it is looked at; what several files have is told after them."""
    small = dataclasses.replace(manifest, files=[])
    look = functools.partial(_look_at, root.absolute() if scheduler else root, small, survey)
    groups = grouped(manifest.files, _TASK_BYTES, _TASK_FILES)
    processes = min(processes, max(1, manifest.bytes // _TASK_BYTES))
    with executor(processes, scheduler, shared=[root / MANIFEST]) as pool, Digests() as keys:
        looked = (found for _, some in in_order(pool, look, groups) for found in some)
        for number, (_, (lines, found)) in enumerate(zip(progress(manifest.files), looked, strict=True)):
            yield from lines
            keys.add(number, found)
        yield from _twice(root, manifest, *keys.twice())


def _look_at(
    root: Path, manifest: Manifest, survey: Survey | None, entries: Sequence[FileEntry]
) -> list[tuple[list[str], np.ndarray]]:
    """What is wrong with some files, and the digests of their keys."""
    looked = []
    for entry in entries:
        keys: list[str] = []
        lines = list(_verify_file(root, entry, manifest, keys, survey))
        looked.append((lines, digests(keys)))
    return looked


def _twice(root: Path, manifest: Manifest, common: set[int], files: Sequence[int]) -> Iterator[str]:
    """Keys that several rows have: of those whose digests are the same, the files are read again."""
    seen: dict[str, str] = {}
    key = next(column for column in manifest.columns if column.name == manifest.key)
    for entry in (manifest.files[number] for number in files):
        with contextlib.suppress(PartitionError), Partition(root / entry.path, [key]) as partition:
            for each in repeated(partition.text(manifest.key), common):
                if each in seen:
                    yield f"{entry.path}: {manifest.key} {each} is in {seen[each]} too"
                seen[each] = entry.path


def _verify_head(root: Path, values: dict, manifest: Manifest, survey: Survey | None, whole: bool) -> Iterator[str]:
    """What stands before the files; counts of these only where all entries could be read."""
    if survey is not None:
        if _layout(survey.as_built(manifest.columns).columns) != _layout(manifest.columns):
            yield f"{MANIFEST}: the columns differ from those of this version's {survey.name}"
        if manifest.key != survey.key:
            yield f"{MANIFEST}: key is {manifest.key}, that of {survey.name} is {survey.key}"
    known = json.loads(dataclasses.replace(manifest, files=[]).to_json())
    yield from (f"{MANIFEST}: {name!r} is nothing that a manifest says" for name in values.keys() - known.keys())
    for name in ("rows", "bytes") if whole else ():
        if values.get(name) != (found := getattr(manifest, name)) or type(values[name]) is not int:
            yield f"{MANIFEST}: {name} is {values.get(name)!r}, its files have {found}"
    if values["healpix"] != {"nside": manifest.nside, "ordering": "nested"}:
        yield f"{MANIFEST}: healpix is {values['healpix']!r}, not nside {manifest.nside} and ordering nested"
    if (rejected := _rejected(root)) != manifest.rejected:
        yield f"{MANIFEST}: rejected is {manifest.rejected}, {REJECTED} has {rejected}"


def _rejected(root: Path) -> int:
    try:
        with open(root / REJECTED, newline="", encoding="utf-8", errors="replace") as file:
            return max(0, sum(1 for _ in csv.reader(file)) - 1)
    except (OSError, csv.Error):
        return 0


def _unlisted(root: Path, manifest: Manifest, survey: Survey | None) -> Iterator[str]:
    """Files below the root that are neither partitions of the manifest nor what a build leaves beside them."""
    listed = {entry.path for entry in manifest.files}
    beside = {*BESIDE, *(survey.beside if survey is not None else ())}
    for parent, folders, names in os.walk(root):
        if Path(parent) == root:
            folders[:] = [
                name
                for name in folders
                if name not in beside
                and not name.startswith(".")
                and not any((root / name / each).exists() for each in (MANIFEST, JOURNAL))
            ]
            names = [name for name in names if name not in beside and (not name.startswith(".") or is_temporary(name))]
        folders.sort()
        paths = ((Path(parent) / name).relative_to(root).as_posix() for name in sorted(names))
        yield from (path for path in paths if path not in listed)


def _verify_numbers(manifest: Manifest) -> Iterator[str]:
    """Files that are numbered and whose fellows are not listed; a cell may lack one whose objects were all rejected."""
    groups: dict[tuple[str, int], set[int]] = {}
    for entry in manifest.files:
        if match := re.fullmatch(r"(.*)/(\d{3,})-of-(\d{3,})" + re.escape(SUFFIX), entry.path):
            groups.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (folder, parts), found in groups.items() if not manifest.rejected else ():
        if len(found) < parts:
            missing = next(part for part in range(1, parts + 1) if part not in found)
            yield f"{partition_path(0, missing, parts).replace('healpix=0', folder)}: neither there nor in {MANIFEST}"


def _layout(columns: Sequence[Column]) -> list[tuple]:
    """What decides how bytes are read; a better description is no difference."""
    return [(column.name, column.dtype, column.shape, column.unit) for column in columns]


def _verify_file(root: Path, entry: FileEntry, manifest: Manifest, found: list[str], survey: Survey | None) -> Iterator[str]:
    """One file; its keys are added to those that were ``found``."""
    if entry.split != (split := split_of_path(entry.path)):
        yield f"{entry.path}: is of split {split} by its folder, {MANIFEST} says {entry.split}"
    path = root / entry.path
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            yield f"{entry.path}: is {'a folder' if stat.S_ISDIR(status.st_mode) else 'no regular file'}"
            return
        if status.st_size != entry.bytes:
            yield f"{entry.path}: {status.st_size} bytes, {MANIFEST} says {entry.bytes}"
        elif (checksum := file_sha256(path)) != entry.sha256:
            yield f"{entry.path}: SHA-256 is {checksum[:12]}..., {MANIFEST} says {entry.sha256[:12]}..."
    except (FileNotFoundError, NotADirectoryError):
        yield f"{entry.path}: missing"
        return
    except OSError as error:
        yield f"{entry.path}: cannot be read: {error.strerror or error}"
        return
    try:
        with Partition(path, manifest.columns, trusted_rows=entry.rows) as partition:
            yield from _verify_description(entry, partition, manifest, survey)
            yield from _verify_rows(entry, partition, manifest, found)
    except PartitionError as error:
        yield str(error).replace(f"{root}{os.sep}", "", 1)


def _verify_description(entry: FileEntry, partition: Partition, manifest: Manifest, survey: Survey | None) -> Iterator[str]:
    """What a file says of itself."""
    said = partition.attributes()
    for name, expected in (("survey", manifest.survey), ("healpix", entry.healpix)):
        if str(said.get(name, expected)) != str(expected):
            yield f"{entry.path}: its {name} is {said[name]}, {MANIFEST} says {expected}"
    found = partition.described()
    names = {
        name
        for column in manifest.columns
        for name in ((column.name, column.end.name) if column.is_ragged else (column.name,))
    }
    yield from (f"{entry.path}: column {name!r} is there but not in {MANIFEST}" for name in sorted(found.keys() - names))
    declared = survey.by_name if survey is not None else {}
    compression = manifest.build.get("compression")
    for column in manifest.columns:
        its = found[column.name]
        if str(its.get("unit", column.unit)) != column.unit:
            yield f"{entry.path}: the unit of {column.name} is {str(its['unit'])!r}, {MANIFEST} says {column.unit!r}"
        texts = {str(its.get("description", column.description))}
        texts |= {declared[column.name].description} if column.name in declared else set()
        if column.description not in texts:
            yield f"{entry.path}: the description of {column.name} is not that of {MANIFEST}"
        if column.row_bytes >= PIXELS_FROM and not column.is_ragged and compression is not None:
            filters = its["filters"] or [0]
            if filters[-1] != FILTERS.get(compression, -1):
                yield f"{entry.path}: {column.name} is stored through the filters {filters}, {MANIFEST} says {compression}"


def _verify_rows(entry: FileEntry, partition: Partition, manifest: Manifest, found: list[str]) -> Iterator[str]:
    ra, dec = partition.read("ra").astype(float), partition.read("dec").astype(float)
    if len(off := np.flatnonzero(~((ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90)))):
        try:
            check_position(float(ra[off[0]]), float(dec[off[0]]))
        except RecordError as error:
            yield f"{entry.path}: {error}"
        return
    cells = set(healpix_cell(ra, dec, manifest.nside).tolist()) | set(partition.read("healpix").tolist())
    if cells != {cell_of_path(entry.path)} or entry.healpix not in cells:
        yield f"{entry.path}: its rows lie in cells {sorted(cells)}"
    for name, values in (("ra", ra), ("dec", dec)):
        bounds = (float(values.min()), float(values.max()))
        if not np.allclose(bounds, getattr(entry, name), rtol=0, atol=1e-9):
            yield f"{entry.path}: {name} runs from {bounds[0]} to {bounds[1]}, {MANIFEST} says {getattr(entry, name)}"
    for column in manifest.columns:
        if column.is_ragged:
            partition.ends(column.name)
    keys = partition.text(manifest.key)
    if keys_digest(keys) != entry.keys:
        yield f"{entry.path}: holds other objects than {MANIFEST} says"
    found += keys
