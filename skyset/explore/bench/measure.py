"""How fast a folder is read, way by way, beside the floor: the bytes of its files as they are."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import cast

import datasets
import numpy as np

import skyset
from skyset.errors import PartitionError, UserError
from skyset.explore.bench.machine import memory_bytes
from skyset.loading import registry
from skyset.loading.arrow import needed_columns
from skyset.loading.partition_rows import row_count
from skyset.loading.stream import SurveyStream, map_source
from skyset.partitions.manifest import FileEntry, Manifest
from skyset.partitions.tree.opens import OpensTree
from skyset.survey import Feature, Survey

BATCH = 32  # rows
BLOCK_BYTES = 8 << 20
BUFFER_BYTES = 64 << 20
#: Files that are looked at: more than a few seconds can read, and few enough to drop from the page cache quickly.
SAMPLE_FILES, SAMPLE_BYTES = 4096, 32 << 30
#: What the warm ways loop over: small enough to stay in memory.
WARM_BYTES = 2 << 30
#: No machine hands out more bytes per second; how often to repeat the warm files follows from it.
TOP_SPEED = 20e9
MOST_PIECES = 20_000
#: Of the shuffled way: less than the default, so that a short measurement sees several windows of rows.
SHUFFLE_BYTES = 64 << 20
#: Arrays with fewer bytes per row are no pixels.
PIXEL_BYTES = 256
FLOOR = "files end to end (floor)"
ROWS, BATCHES, SHUFFLED = "rows", f"iter(batch_size={BATCH})", "rows, shuffled"
COLD, WARM = "cold", "warm"


@dataclass(frozen=True)
class Target:
    """The files to read: of the largest split, as many as ``sample`` takes. ``root`` is absolute."""

    root: str
    manifest: Manifest
    survey: Survey
    split: str
    files: list[FileEntry]

    def path(self, entry: FileEntry) -> str:
        """Of one of the files."""
        return f"{self.manifest.files_root(self.root)}/{entry.path}"

    def paths(self, entry: FileEntry) -> list[str]:
        """Of one of the files; of a tree of objects, those that are one entry."""
        opens = self.survey.opens
        return opens.files(self.path(entry)) if isinstance(opens, OpensTree) else [self.path(entry)]

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row as it is handed out; images decoded and ragged columns as long as in the first rows."""
        names = [feature.name for feature in self.survey.features]
        columns = needed_columns(self.survey, names)
        size = sum(column.row_bytes for column in columns if not column.is_ragged)
        return size + self._bytes_of_first() if any(column.is_ragged for column in columns) else size

    @cached_property
    def is_encoded(self) -> bool:
        """Whether images are stored as JPEG or PNG: then the bytes on disk are other bytes than those handed out."""
        names = [feature.name for feature in self.survey.features]
        return any(column.is_bytes for column in needed_columns(self.survey, names))

    @property
    def stored_row_bytes(self) -> float:
        """Bytes of one row on disk."""
        return self.manifest.bytes / self.manifest.rows

    def _bytes_of_first(self) -> int:
        """Of the ragged columns of a row, in the mean of the first ones; of an image one is decoded."""
        many = 1 if self.is_encoded else BATCH
        with readable_errors():
            rows = list(islice(stream(self, "numpy", self.files[:1], 1), many))
        return sum(_size(value) for row in rows for value in self._ragged_of(row)) // max(1, len(rows))

    def _ragged_of(self, row: Mapping) -> Iterator:
        """Those values of a row."""
        for feature in self.survey.features:
            if isinstance(feature, Feature):
                if self.survey.column(feature.source).is_ragged:
                    yield row[feature.name]
                continue
            for key, source in feature.fields.items():
                if isinstance(source, str) and self.survey.column(source).is_ragged:
                    yield row[feature.name][key]


def _size(value) -> int:
    """Bytes of an array, of bytes, or of texts."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(len, value)) if isinstance(value, list) else len(value)


def open_target(folder: Path) -> Target:
    """What a folder holds, from its manifest.

    Raises:
        UserError: there is no manifest, its survey is not known here, or it has no rows.
    """
    manifest = Manifest.load(folder)
    survey = registry.survey(manifest.survey, manifest.config).as_built(manifest.columns, manifest.build)
    if not manifest.files:
        raise UserError(f"{folder} has no rows to read")
    split, files = max(manifest.splits.items(), key=lambda item: sum(entry.rows for entry in item[1]))
    return Target(registry.find_root(survey.name, str(folder)) or str(folder), manifest, survey, split, sample(files))


def sample(files: Sequence[FileEntry], most_files: int = SAMPLE_FILES, most_bytes: int = SAMPLE_BYTES) -> list[FileEntry]:
    """The first files, at least one, up to a number and a size."""
    chosen: list[FileEntry] = []
    size = 0
    for entry in files[:most_files]:
        size += entry.bytes
        if chosen and size > most_bytes:
            break
        chosen.append(entry)
    return chosen


def total_bytes(files: Iterable[FileEntry]) -> int:
    return sum(entry.bytes for entry in files)


def stored_compression(manifest: Manifest) -> str | None:
    """What the build was told; without such a note ``"none"`` if the files are as large as their rows, else None."""
    row_bytes = sum(column.row_bytes for column in manifest.columns)
    as_large = not any(column.is_ragged for column in manifest.columns) and manifest.bytes >= manifest.rows * row_bytes
    return manifest.build.get("compression") or ("none" if as_large else None)


@dataclass(frozen=True)
class Way:
    """``items(files, times)`` goes through the files so many times; ``workers`` of a DataLoader, None for other ways."""

    name: str
    items: Callable[[list[FileEntry], int], Iterator]
    workers: int | None = None


def ways(target: Target, workers: Sequence[int]) -> list[Way]:
    """The floor, the ways without torch, and a DataLoader for each number of workers."""

    def rows(files, times):
        return single_rows(stream(target, "numpy", files, times))

    def batches(files, times):
        return whole_batches(stream(target, "numpy", files, times).iter(batch_size=BATCH))

    def shuffled(files, times):
        return single_rows(stream(target, "numpy", files, times).shuffle(seed=0, buffer_bytes=SHUFFLE_BYTES))

    def loader(number):
        return lambda files, times: whole_batches(data_loader(stream(target, "torch", files, times), number))

    return [
        Way(FLOOR, lambda files, times: whole_files(target, files, times)),
        Way(ROWS, rows),
        Way(BATCHES, batches),
        Way(SHUFFLED, shuffled),
        *(Way(f"DataLoader, {n} worker{'s' * (n != 1)}", loader(n), n) for n in workers),
    ]


def whole_files(target: Target, files: Sequence[FileEntry], times: int = 1) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Blocks of files from their first byte to their last; a block counts as the part of the file's rows that it is."""
    block = np.empty(BLOCK_BYTES, np.uint8)
    for _ in range(times):
        for entry in files:
            for path in target.paths(entry):
                with open(path, "rb", buffering=0) as file:
                    while count := file.readinto(block):
                        yield count * entry.rows / entry.bytes, [block[:count]]


def stream(target: Target, format: str, files: Sequence[FileEntry], times: int) -> SurveyStream:
    """The rows of some files, one pass after the other. A stock ``repeat`` would be another way of iterating."""
    wanted = {target.path(entry) for entry in files}
    rows = skyset.load(target.survey.name, target.root, split=target.split, format=format)

    def change(source):
        return source.with_changes(pieces=[piece for piece in source.pieces if piece.path in wanted] * times)

    return rows._with_source(map_source(rows._ex_iterable, change))


def data_loader(rows: SurveyStream, workers: int) -> Iterable[Mapping]:
    from torch.utils.data import DataLoader

    return DataLoader(rows, batch_size=BATCH, num_workers=workers)


def single_rows(rows: Iterable[Mapping]) -> Iterator[tuple[int, list[np.ndarray]]]:
    for row in rows:
        yield 1, pixels(arrays_of(row), 1)


def whole_batches(batches: Iterable[Mapping]) -> Iterator[tuple[int, list[np.ndarray]]]:
    for batch in batches:
        count = row_count(batch)
        yield count, pixels(arrays_of(batch), count)


def arrays_of(values: Mapping) -> Iterator[np.ndarray]:
    """The arrays and tensors of a row or a batch, those of groups too; no text and no single numbers."""
    for value in values.values():
        if isinstance(value, Mapping):
            yield from arrays_of(value)
        elif isinstance(value, list) and value and np.ndim(value[0]):  # images of several sizes
            yield from map(np.asarray, value)
        elif getattr(value, "ndim", 0):
            yield np.asarray(value)


def pixels(arrays: Iterable[np.ndarray], rows: int) -> list[np.ndarray]:
    return [array for array in arrays if array.nbytes >= PIXEL_BYTES * rows]


def copy_out(array: np.ndarray, buffer: np.ndarray) -> None:
    """Copy all pixels to the start of the buffer, part by part where it is too small for all."""
    if array.nbytes > buffer.nbytes:
        for part in array:
            copy_out(part, buffer)
    else:
        np.copyto(buffer[: array.nbytes].view(array.dtype).reshape(array.shape), array)


@dataclass(frozen=True)
class Speed:
    """``rows`` a second, and the ``bytes`` a second of their pixels (of the files, for the floor)."""

    rows: float
    bytes: float


def measure(
    items: Iterator, seconds: float, buffer: np.ndarray, skipped: int = 0, clock: Callable[[], float] = time.perf_counter
) -> Speed | None:
    """Copy pixels for some seconds, or until there are no more; None if nothing was left to be timed.

    Args:
        items: (rows, arrays) at a time.
        seconds: how long.
        buffer: uint8 (bytes,), where pixels are copied to.
        skipped: items before the clock starts (but no longer than ``seconds``): the first of each worker, which come
            after the start of a process.
        clock: seconds.
    """
    rows = size = 0
    begun = start = clock()
    for number, (count, arrays) in enumerate(items):
        for array in arrays:
            copy_out(array, buffer)
        if number < skipped and clock() - begun < seconds:
            start = clock()
            continue
        rows += count
        size += sum(array.nbytes for array in arrays)
        if clock() - start > seconds:
            break
    elapsed = clock() - start
    return Speed(rows / elapsed, size / elapsed) if rows and elapsed else None


def drop_pages(paths: Sequence[str]) -> str:
    """Drop files from the operating system's page cache; why that is not possible, or nothing."""
    if not hasattr(os, "posix_fadvise"):
        return "this system cannot drop files from its page cache"
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # pages that are not yet on the disk would stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if all(is_cached(path) for path in paths[:8]):
        return "this file system keeps its files in memory"
    return ""


def is_cached(path: str) -> bool:
    """Whether the middle of a file is in the page cache; False where nobody can tell."""
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    with open(path, "rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], os.fstat(file.fileno()).st_size // 2, os.RWF_NOWAIT) > 0
        except OSError:  # it would have to wait for the disk, or the file system does not know the question
            return False


def read_into_memory(target: Target, seconds: float, most_bytes: int) -> list[FileEntry]:
    """Read files for some seconds; those that are in the page cache then, at least one."""
    start, read = time.perf_counter(), []
    for entry in sample(target.files, most_bytes=most_bytes):
        for _ in whole_files(target, [entry]):
            pass
        read.append(entry)
        if time.perf_counter() - start > seconds:
            break
    return read


def repeats(files: Sequence[FileEntry], seconds: float) -> int:
    """How often to go through files so that no way comes to their end in time."""
    size = total_bytes(files)
    pieces = len(files) + size // BLOCK_BYTES
    return max(1, min(math.ceil(seconds * TOP_SPEED / size), MOST_PIECES // pieces))


@dataclass
class Results:
    """What was measured, by phase (cold, warm) and way; ``notes`` say what could not be."""

    speeds: dict[str, dict[str, Speed]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    def of_workers(self, phase: str, all_ways: Iterable[Way]) -> dict[int, float]:
        """Rows a second by number of a DataLoader's workers."""
        speeds = self.speeds.get(phase, {})
        return {way.workers: speeds[way.name].rows for way in all_ways if way.workers is not None and way.name in speeds}


def measure_all(
    target: Target, all_ways: Sequence[Way], seconds: float, results: Results, say: Callable[[str], None]
) -> None:
    """Measure every way, cold and then warm, into ``results``; ``say`` is told what comes next.

    Raises:
        UserError: a file cannot be read.
    """
    buffer = np.zeros(BUFFER_BYTES, np.uint8)
    buffer[:] = 1  # its pages exist from now on
    paths = [path for entry in target.files for path in target.paths(entry)]
    with quiet_datasets(), readable_errors():
        for way in all_ways:
            say(f"{COLD}: {way.name}")
            if reason := drop_pages(paths):
                since = "" if way is all_ways[0] else f" from {way.name} on"
                results.notes.append(f"No cold numbers{since}: {reason}.")
                break
            _measure_way(way, COLD, way.items(target.files, 1), seconds, buffer, results)
        say("reading files into memory")
        files = read_into_memory(target, seconds, min(WARM_BYTES, memory_bytes() // 4))
        for way in all_ways:
            say(f"{WARM}: {way.name}")
            _measure_way(way, WARM, way.items(files, repeats(files, seconds)), seconds, buffer, results)


def _measure_way(way: Way, phase: str, items: Iterator, seconds: float, buffer: np.ndarray, results: Results) -> None:
    try:
        with contextlib.closing(cast(Generator, items)):  # ends the workers
            speed = measure(items, seconds, buffer, skipped=way.workers or 0)
    except RuntimeError as error:
        if not way.workers:
            raise
        results.notes.append(f"{way.name}, {phase}: {last_line(error)}")  # such as too little shared memory
        return
    if speed is not None:
        results.speeds.setdefault(phase, {})[way.name] = speed


def last_line(error: Exception) -> str:
    """What is the matter; an error from a worker has the worker's traceback above."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """What a file makes go wrong becomes a UserError of one line."""
    try:
        yield
    except (PartitionError, OSError) as error:
        raise UserError(f"{last_line(error)} (`skyset verify` names every damaged file)") from error


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """Without what `datasets` says when there are more workers than files; here that is meant."""
    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)
