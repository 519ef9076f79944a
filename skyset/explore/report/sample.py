"""Rows of a dataset that a report looks at: all of them where they are few, else a bounded sample that is drawn by a seed.

Rows are drawn in blocks that follow each other in a file, each block with the same chance: so many fewer files are opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from skyset.errors import PartitionError, SkysetError
from skyset.loading.ragged import Ragged, trim
from skyset.loading.reader import Piece
from skyset.partitions.layout import PIXELS_FROM
from skyset.partitions.manifest import FileEntry, Manifest
from skyset.partitions.parquet_file import OpensParquet
from skyset.partitions.partition import Partition
from skyset.partitions.tree.form import ADOPTED, OBJECTS
from skyset.runner import executor, in_order
from skyset.survey import Column, Survey, Trim

#: Rows of a block; files that are opened where all rows are read; bytes of all columns that are held.
BLOCK, MOST_FILES, MOST_BYTES = 32, 1024, 64 << 20
#: Of values of ragged columns that are held.
ELEMENT_BYTES = 32 << 20
#: Files whose size is looked at, to name those that are gone or cut short.
MOST_LOOKED_AT = 50_000
#: Files that one task of a cluster reads.
_FILES_AT_ONCE = 16


@dataclass(frozen=True)
class Build:
    """A dataset that is there: its folder or URL, its manifest, and its declaration, None where its survey is not known."""

    root: str
    manifest: Manifest
    survey: Survey | None

    @property
    def in_place(self) -> bool:
        """Whether these are published files, of which there are neither positions nor checksums in the manifest."""
        return bool(self.manifest.build.get("in_place"))

    @property
    def is_parquet(self) -> bool:
        """Whether these are files of a HATS catalogue, or of what ``skyset push`` made."""
        return self.survey is not None and isinstance(self.survey.opens, OpensParquet)

    @property
    def cells_known(self) -> bool:
        """Whether each file holds the rows of one cell of the sky, which the manifest names."""
        return not (self.in_place or self.is_parquet or self.manifest.is_adopted)

    @property
    def position(self) -> tuple[str, str]:
        """The columns of right ascension and declination, degrees."""
        ra, dec = self.manifest.build.get("position", ("ra", "dec"))
        return str(ra), str(dec)

    @property
    def trims(self) -> tuple[Trim, ...]:
        """What of its ragged columns is padding; nothing where its notes are damaged, which pictures tell."""
        if self.survey is None:
            return ()
        try:
            return self.survey.as_built(self.manifest.columns, self.manifest.build).trims
        except SkysetError:
            return ()

    @property
    def is_remote(self) -> bool:
        return "://" in self.root

    def opened(self, entry: FileEntry, columns: Sequence[Column]) -> Any:
        """One of its files, as `Partition`; PartitionError where it cannot be used."""
        opens: Callable = self.survey.opens if self.survey is not None and self.survey.opens else Partition
        return opens(f"{self.root.rstrip('/')}/{entry.path}", columns, entry.rows, entry.bytes or None)

    def piece(self, entry: FileEntry, row: int) -> Piece:
        """One of its rows."""
        return Piece(f"{self.root.rstrip('/')}/{entry.path}", row, row + 1, entry.rows, entry.bytes or None)


@dataclass
class Sample:
    """Rows that were read.

    Args:
        values: by column, (rows, *shape); of a ragged column how long each row is stored, int64 (rows,). There are none of
            pixels.
        files: number in the manifest of the file that each row is in, int64 (rows,).
        places: number of each row in its file, int64 (rows,).
        whole: these are all rows.
        opened: how many files were opened.
        problems: what is wrong with files, by path.
        elements: of ragged columns but those of bytes and of long rows, of some of the rows and without padding: all
            values one after the other, and how long each row is, int64.
    """

    values: dict[str, np.ndarray]
    files: np.ndarray
    places: np.ndarray
    whole: bool
    opened: int
    problems: dict[str, str] = field(default_factory=dict)
    elements: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.files)

    def lengths(self, name: str) -> np.ndarray:
        """How long rows of a ragged column are, without padding where values were read: int64 (some rows,)."""
        return self.elements[name][1] if name in self.elements else self.values[name]


def is_small(column: Column) -> bool:
    """Whether a report reads a column of every row of its sample."""
    return column.is_ragged or column.row_bytes < PIXELS_FROM


def blocks(files: Sequence[FileEntry], most: int, seed: int) -> tuple[list[tuple[int, list[tuple[int, int]]]], bool]:
    """Which rows are read.

    Args:
        files: of the manifest.
        most: rows, about.
        seed: of the draw.

    Returns:
        by file, its number and runs (start, stop) of its rows; and whether these are all rows.
    """
    counts = np.array([entry.rows for entry in files], np.int64)
    if counts.sum() <= most and len(files) <= MOST_FILES:
        return [(number, [(0, entry.rows)]) for number, entry in enumerate(files)], True
    ends = np.cumsum(-(-counts // BLOCK))
    total, wanted = int(ends[-1]), max(1, most // BLOCK)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(total, min(wanted, total), replace=False, shuffle=False))
    numbers = np.searchsorted(ends, chosen, side="right")
    runs: dict[int, list[tuple[int, int]]] = {}
    for number, block in zip(numbers.tolist(), chosen.tolist(), strict=True):
        start = (block - int(ends[number] - -(-counts[number] // BLOCK))) * BLOCK
        runs.setdefault(number, []).append((start, min(start + BLOCK, int(counts[number]))))
    return list(runs.items()), len(chosen) == total


def take(
    build: Build,
    most: int,
    seed: int,
    progress: Callable[[list], Iterable] = iter,
    scheduler: str | None = None,
) -> Sample:
    """Read the sample of a dataset; what cannot be read is left out and named.

    Args:
        build: the dataset.
        most: rows, about; fewer where they would take more than `MOST_BYTES`.
        seed: of the draw.
        progress: wraps the list of files that are opened.
        scheduler: address of a Dask cluster that reads them, see `skyset.runner.executor`.
    """
    files = build.manifest.files
    columns = [column for column in build.manifest.columns if is_small(column)]
    row_bytes = sum(8 if column.is_ragged else column.row_bytes for column in columns)
    chosen, whole = blocks(files, max(BLOCK, min(most, MOST_BYTES // max(1, row_bytes))), seed)
    problems = _not_there(build)
    parts: list[dict[str, np.ndarray]] = []
    elements: list[dict[str, tuple[np.ndarray, np.ndarray]]] = []
    where: list[tuple[int, int, int]] = []
    usable = [(number, runs) for number, runs in chosen if files[number].path not in problems]
    for (number, runs), read in zip(progress(usable), _all_read(build, columns, usable, scheduler), strict=True):
        if isinstance(read, str):
            problems[files[number].path] = read
            continue
        parts += [values for values, _ in read]
        elements += [some for _, some in read]
        where += [(number, *run) for run in runs]
    return Sample(
        {column.name: _together(column, parts) for column in columns},
        np.concatenate([np.full(stop - start, number) for number, start, stop in where] or [np.zeros(0, int)]),
        np.concatenate([np.arange(start, stop) for _, start, stop in where] or [np.zeros(0, int)]),
        whole,
        len({number for number, *_ in where}),
        problems,
        _elements(elements),
    )


def _elements(parts: Sequence[Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Those of all runs of rows together."""
    found: dict[str, list] = {}
    for part in parts:
        for name, each in part.items():
            found.setdefault(name, []).append(each)
    return {
        name: (np.concatenate([v for v, _ in each]), np.concatenate([n for _, n in each])) for name, each in found.items()
    }


def _all_read(build: Build, columns: Sequence[Column], chosen: Sequence, scheduler: str | None) -> Iterator[list | str]:
    """What ``_read_file`` gives of each file."""
    files = build.manifest.files
    root = build.root if build.is_remote or not scheduler else os.path.abspath(build.root)
    small = replace(build, root=root, manifest=replace(build.manifest, files=[]))
    size = _FILES_AT_ONCE if scheduler else 1
    most = ELEMENT_BYTES // max(1, sum(len(runs) for _, runs in chosen))
    groups = ([(files[n], runs) for n, runs in chosen[start : start + size]] for start in range(0, len(chosen), size))
    shared = [f"{root.rstrip('/')}/{files[chosen[0][0]].path}"] if chosen else []
    with executor(1, scheduler, shared=shared) as pool:
        for _, found in in_order(pool, partial(_read_files, small, columns, most), groups):
            yield from found


def _read_files(build: Build, columns: Sequence[Column], most: int, files: Sequence) -> list[list | str]:
    return [_read_file(build, columns, most, entry, runs) for entry, runs in files]


def _read_file(
    build: Build, columns: Sequence[Column], most: int, entry: FileEntry, runs: Sequence[tuple[int, int]]
) -> list | str:
    """The values of each run of rows of a file, or why it cannot be read."""
    trims = build.trims
    try:
        with build.opened(entry, columns) as file:
            return [_read(file, columns, trims, most, *run) for run in runs]
    except PartitionError as error:
        return str(error).removeprefix(f"{build.root.rstrip('/')}/{entry.path}: ")


def _read(
    file: Partition, columns: Sequence[Column], trims: Sequence[Trim], most: int, start: int, stop: int
) -> tuple[dict[str, np.ndarray], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Of ragged columns the lengths of all rows, and the values of as many as have ``most`` bytes; of others the values."""
    fixed = [column for column in columns if not column.is_ragged]
    outs = {column.name: np.empty((stop - start, *column.shape), column.dtype) for column in fixed}
    file.read_columns(outs, start, stop)
    ragged = [column for column in columns if column.is_ragged]
    ends = {column.name: file.ends(column.name, start, stop) for column in ragged}
    numbers = [column for column in ragged if not column.is_bytes]
    there = {column.name for column in numbers}
    trims = [trim for trim in (each.within(there) for each in trims) if trim is not None]
    rows, short = _few(numbers, ends, trims, most)
    flat = {column.name: np.empty(ends[column.name][rows], column.stored_dtype) for column in short}
    if rows:
        file.read_columns(flat, start, start + rows)
    found = {c.name: Ragged(flat[c.name], ends[c.name][: rows + 1], shape=c.shape) for c in short}
    trim(found, [each for each in trims if each.by in found])
    elements = {name: (each.compact().data, each.lengths // each.step) for name, each in found.items()}
    return outs | {c.name: np.diff(ends[c.name]) // _step(c) for c in ragged}, elements


def _step(column: Column) -> int:
    """Values of a row of a ragged column whose axis has the length 1."""
    return column.step_bytes // column.stored_dtype.itemsize


def _few(
    columns: Sequence[Column], ends: Mapping[str, np.ndarray], trims: Sequence[Trim], most: int
) -> tuple[int, list[Column]]:
    """How many of the first rows have no more than so many bytes, and of which columns: long ones are left out."""
    own = {c.name: ends[c.name] * c.stored_dtype.itemsize for c in columns}
    share = most // max(1, len(columns))
    long = {name for name, each in own.items() if each[1:2].max(initial=0) > max(share, PIXELS_FROM)}
    long |= {name for each in trims if each.by in long for name in each.columns}
    short = [column for column in columns if column.name not in long]
    if not short:
        return 0, []
    total = sum((own[column.name] for column in short), np.zeros(1, np.int64))
    return max(1, int(np.searchsorted(total, most, side="right")) - 1), short


def _together(column: Column, parts: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    if parts:
        return np.concatenate([part[column.name] for part in parts])
    return np.zeros(0, np.int64) if column.is_ragged else np.zeros((0, *column.shape), column.dtype)


def _not_there(build: Build) -> dict[str, str]:
    """Files of another size than the manifest says, or gone: what needs no opening, of the first `MOST_LOOKED_AT`."""
    return dict(_sizes(build)) if not build.is_remote else {}


def _sizes(build: Build) -> Iterator[tuple[str, str]]:
    together = build.manifest.is_adopted and build.manifest.build[ADOPTED]["kind"] == OBJECTS  # an entry is many files
    for entry in build.manifest.files[:MOST_LOOKED_AT] if not together else ():
        try:
            size = os.stat(f"{build.root}/{entry.path}").st_size
        except OSError as error:
            yield entry.path, "is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
            continue
        if size != entry.bytes:
            yield entry.path, f"has {size:,} bytes, the manifest says {entry.bytes:,}"
