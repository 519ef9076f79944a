"""How fast do the rows of a survey come out of this disk, on this machine? Measured in a minute, with advice.

Every way of iterating copies each pixel once into memory that is used again. First the files' pages are dropped from
the page cache before each way (cold), then the same ways loop over files that were just read (warm). The floor is reading
whole files one after the other: rows cannot come faster than their bytes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np

import skyset
from skyset.errors import PartitionError
from skyset.errors import UserError
from skyset.files import human_bytes
from skyset.files import write_atomically
from skyset.loading import registry
from skyset.loading.arrow import needed_columns
from skyset.loading.partition_rows import row_count
from skyset.loading.stream import SurveyStream
from skyset.loading.stream import map_source
from skyset.partitions.manifest import FileEntry
from skyset.partitions.manifest import Manifest
from skyset.survey import Feature
from skyset.survey import Survey
from skyset.versions import versions

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FORMAT = "skyset-bench/1"
BATCH = 32  # rows
PREFETCH = 2  # batches that a worker of a DataLoader makes ahead, torch's default
BLOCK_BYTES = 8 << 20
BUFFER_BYTES = 64 << 20

#: Files that are looked at: more than a few seconds can read, and few enough to drop from the page cache quickly.
SAMPLE_FILES, SAMPLE_BYTES = 4096, 32 << 30
#: What the warm ways loop over: small enough to stay in memory.
WARM_BYTES = 2 << 30
#: No machine hands out more bytes a second; how often to repeat the warm files follows from it.
TOP_SPEED = 20e9
MOST_PIECES = 20_000
#: Of the shuffled way: less than the default, so that a short measurement sees several windows of rows.
SHUFFLE_BYTES = 64 << 20
#: Arrays with fewer bytes a row are no pixels.
PIXEL_BYTES = 256

FLOOR = "files end to end (floor)"
ROWS, BATCHES, SHUFFLED = "rows", f"iter(batch_size={BATCH})", "rows, shuffled"
COLD, WARM = "cold", "warm"


# --- what is measured ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """The files to read: of the largest split, as many as ``sample`` takes. ``root`` is absolute."""

    root: str
    manifest: Manifest
    survey: Survey
    split: str
    files: list[FileEntry]

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row as it is handed out; images decoded, of the size of the first row's."""
        names = [feature.name for feature in self.survey.features]
        columns = needed_columns(self.survey, names)
        size = sum(column.row_bytes for column in columns if not column.is_bytes)
        return size + self._decoded_bytes() if any(column.is_bytes for column in columns) else size

    @cached_property
    def is_encoded(self) -> bool:
        """Whether images are stored as JPEG or PNG: then the bytes on disk are other bytes than those handed out."""
        names = [feature.name for feature in self.survey.features]
        return any(column.is_bytes for column in needed_columns(self.survey, names))

    @property
    def stored_row_bytes(self) -> float:
        """Bytes of one row on disk."""
        return self.manifest.bytes / self.manifest.rows

    def _decoded_bytes(self) -> int:
        with readable_errors():
            row = next(iter(stream(self, "numpy", self.files[:1], 1)))
        values = [row[feature.name] for feature in self.survey.features if isinstance(feature, Feature)
                  and self.survey.column(feature.source).is_bytes]  # fmt: skip
        return sum(value.nbytes if isinstance(value, np.ndarray) else len(value) for value in values)


def open_target(folder: Path) -> Target:
    """What a folder holds, from its manifest.

    Raises:
        UserError: there is no manifest, its survey is not known here, or it has no rows.
    """
    manifest = Manifest.load(folder)
    survey = registry.survey(manifest.survey, manifest.config).as_built(manifest.columns)
    if not manifest.files:
        raise UserError(f"{folder} has no rows to read")
    split, files = max(manifest.splits.items(), key=lambda item: sum(entry.rows for entry in item[1]))
    return Target(registry.find_root(survey.name, str(folder)), manifest, survey, split, sample(files))


def sample(files: Sequence[FileEntry], most_files: int = SAMPLE_FILES, most_bytes: int = SAMPLE_BYTES) -> list[FileEntry]:
    """The first files, at least one, up to a number and a size."""
    chosen, size = [], 0
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
    as_large = not any(column.is_bytes for column in manifest.columns) and manifest.bytes >= manifest.rows * row_bytes
    return manifest.build.get("compression") or ("none" if as_large else None)


# --- ways of reading: each yields (rows, the arrays whose pixels are then copied) ------------------------------------------


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
        Way(FLOOR, lambda files, times: whole_files(target.root, files, times)),
        Way(ROWS, rows),
        Way(BATCHES, batches),
        Way(SHUFFLED, shuffled),
        *(Way(f"DataLoader, {n} worker{'s' * (n != 1)}", loader(n), n) for n in workers),
    ]


def whole_files(root: str, files: Sequence[FileEntry], times: int = 1) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Blocks of files from their first byte to their last; a block counts as the part of the file's rows that it is."""
    block = np.empty(BLOCK_BYTES, np.uint8)
    for _ in range(times):
        for entry in files:
            with open(f"{root}/{entry.path}", "rb", buffering=0) as file:
                while count := file.readinto(block):
                    yield count * entry.rows / entry.bytes, [block[:count]]


def stream(target: Target, format: str, files: Sequence[FileEntry], times: int) -> SurveyStream:
    """The rows of some files, one pass after the other. A stock ``repeat`` would be another way of iterating."""
    wanted = {f"{target.root}/{entry.path}" for entry in files}
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
        elif isinstance(value, list) and getattr(value[0] if value else None, "ndim", 0):  # images of several sizes
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


# --- measuring -----------------------------------------------------------------------------------------------------------


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
        for _ in whole_files(target.root, [entry]):
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
    paths = [f"{target.root}/{entry.path}" for entry in target.files]
    with quiet_datasets(), readable_errors():
        for way in all_ways:
            say(f"{COLD}: {way.name}")
            if reason := drop_pages(paths):
                results.notes.append(f"No cold numbers: {reason}.")
                break
            _measure_way(way, COLD, way.items(target.files, 1), seconds, buffer, results)
        say("reading files into memory")
        files = read_into_memory(target, seconds, min(WARM_BYTES, memory_bytes() // 4))
        for way in all_ways:
            say(f"{WARM}: {way.name}")
            _measure_way(way, WARM, way.items(files, repeats(files, seconds)), seconds, buffer, results)


def _measure_way(way: Way, phase: str, items: Iterator, seconds: float, buffer: np.ndarray, results: Results) -> None:
    try:
        with contextlib.closing(items):  # ends the workers
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


# --- the machine ---------------------------------------------------------------------------------------------------------


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine, bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_shared_memory() -> int | None:
    """Bytes left in the folder through which workers hand out batches; None where there is no such folder."""
    shared = Path("/dev/shm")
    return shutil.disk_usage(shared).free if shared.is_dir() else None


def machine() -> dict:
    """What the numbers depend on, for the record."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"processor": model, "cores": core_count(), "memory_bytes": memory_bytes(), "system": platform.platform()}


def worker_counts(cores: int, batch_bytes: int, shared_bytes: int | None) -> list[int]:
    """0, 1, 2, 4, ... up to the cores, and no more than shared memory has room for the batches of."""
    counts = [0, *(2**power for power in range(cores.bit_length()))]
    return [n for n in counts if not n or shared_bytes is None or ahead_bytes(n, batch_bytes) <= shared_bytes]


def ahead_bytes(workers: int, batch_bytes: int) -> int:
    """Memory of the batches that workers have ready, bytes."""
    return workers * PREFETCH * batch_bytes


# --- advice: from numbers to words; rates are rows a second unless bytes are said ------------------------------------------


def fewest_workers(rates: Mapping[int, float]) -> int:
    """The smallest number of workers within 10 % of the best rate."""
    return min(workers for workers, rate in rates.items() if rate >= 0.9 * max(rates.values()))


def workers_advice(rates: Mapping[str, Mapping[int, float]]) -> str:
    """How many workers a DataLoader should have; ``rates`` by phase and number of workers."""
    chosen = {phase: fewest_workers(by_number) for phase, by_number in rates.items()}
    told = [f"{rates[phase][number]:,.0f} rows/s {phase}" for phase, number in chosen.items()]
    if len(set(chosen.values())) > 1:
        told = [f"num_workers={number} {phase} ({rates[phase][number]:,.0f} rows/s)" for phase, number in chosen.items()]
        return f"DataLoader: {', '.join(told)}."
    number = next(iter(chosen.values()))
    if number:
        return f"DataLoader: num_workers={number} ({', '.join(told)}); more do not help much."
    return (
        f"DataLoader: num_workers=0 ({', '.join(told)}); workers do not make it faster. "
        "One is worth it if a model on another device computes meanwhile."
    )


def limit(cold: float, warm: float, cold_floor: float) -> str:
    """``"processor"`` if the disk hardly matters, ``"disk"`` if it gives all it can, ``"waiting"`` in between."""
    if cold >= 0.9 * warm:
        return "processor"
    return "disk" if cold >= 0.8 * cold_floor else "waiting"


def limit_advice(cold: float, warm: float, cold_floor: float, is_encoded: bool = False) -> str:
    """Whether a faster disk would help."""
    numbers = f"{cold:,.0f} rows/s cold, {warm:,.0f} warm"
    if is_encoded and limit(cold, warm, cold_floor) == "waiting":
        return f"Decoding is the limit where files are in memory, else partly the disk: {numbers}. Workers read and decode."
    return {
        "processor": f"The processor is the limit, not the disk: {numbers}. A faster disk would not help.",
        "disk": f"The disk is the limit: {numbers}; reading files from end to end gives {cold_floor:,.0f}.",
        "waiting": f"Reading waits for the disk without keeping it busy: {numbers}, where reading files from end to end "
        f"gives {cold_floor:,.0f}. Workers of a DataLoader keep more reads under way.",
    }[limit(cold, warm, cold_floor)]


def trust_advice(cold: float, cold_floor: float) -> str | None:
    """A warning where rows beat what should be the floor: the cold ways did not meet the same disk."""
    if cold < 1.3 * cold_floor:
        return None
    return (
        "Cold rows came faster than the floor, which is measured first: the disk was busy then, or what lies below the page "
        "cache (a virtual machine's host, a file server) remembered the files. Do not trust the cold numbers; measure again."
    )


def memory_advice(survey_bytes: int, memory: int) -> str:
    """Which numbers count: those from the disk or those from memory."""
    sizes = f"The survey ({human_bytes(survey_bytes)}) "
    if survey_bytes < 0.7 * memory:
        return sizes + f"fits into memory ({human_bytes(memory)}): from the second epoch on the warm numbers count."
    return sizes + f"does not fit into memory ({human_bytes(memory)}): the cold numbers count in every epoch."


def compression_advice(compression: str | None, cold_floor: float | None, share: float) -> str | None:
    """Whether another compression would pay.

    Args:
        compression: of the files, None if not known.
        cold_floor: bytes a second that the disk reads, None if not measured.
        share: of the warm floor that the best way reaches.
    """
    if compression == "gzip" and share < 0.8:
        return (
            f"Decoding gzip is the limit: rows come at {share:.0%} of the rate at which the files can be read. "
            "Built with --compression blosc-lz4 or none they decode faster."
        )
    if compression != "none" or cold_floor is None:
        return None
    speed = f"{human_bytes(cold_floor)}/s"
    if cold_floor < 500e6:
        return f"The disk reads {speed}: built with --compression blosc-lz4 there are fewer bytes to read (about half)."
    return f"The disk reads {speed}: uncompressed files are right for it."


def encoded_advice(times: float, share: float) -> str:
    """What images stored as JPEG or PNG cost.

    Args:
        times: how much larger a row is decoded.
        share: of the rate at which files can be read, reached by the best way.
    """
    text = "Images are stored as JPEG or PNG: --compression would not make them smaller."
    if share > 0.8:
        return text
    return text + (
        f" Decoding takes the time: rows come at {share:.0%} of the rate at which the files can be read. Built with "
        f"--decode there is nothing to decode, and the files are about {times:,.0f} times as large."
    )


def batches_advice(rows: float, batches: float) -> str:
    """Whether ``iter(batch_size=)`` is worth it."""
    if batches >= 1.2 * rows:
        return f"iter(batch_size={BATCH}) gives {batches / rows:.1f} times as many rows/s as row by row."
    if rows >= 1.2 * batches:
        return f"Row by row is {rows / batches:.1f} times as fast as iter(batch_size={BATCH})."
    return f"iter(batch_size={BATCH}) is about as fast as row by row: take what suits the code."


def batch_memory_advice(batch_bytes: int, workers: int | None, shared_bytes: int | None) -> str:
    """What batches take; ``workers`` None where there is no torch."""
    text = f"A batch of {BATCH} takes {human_bytes(batch_bytes)}."
    if not workers:
        return text
    text += (
        f" num_workers={workers}, with {PREFETCH} batches ahead each, take {human_bytes(ahead_bytes(workers, batch_bytes))}"
    )
    return text + (f" of shared memory ({human_bytes(shared_bytes)} are free)." if shared_bytes is not None else ".")


def advice(target: Target, all_ways: Sequence[Way], results: Results) -> list[str]:
    """All that can be said from what was measured, a sentence or two each."""
    cold, warm = (results.speeds.get(phase, {}) for phase in (COLD, WARM))
    rates = {phase: r for phase in (COLD, WARM) if len(r := results.of_workers(phase, all_ways)) > 1}
    told = [workers_advice(rates)] if rates else []
    told.append(memory_advice(target.manifest.bytes, memory_bytes()))
    shared = set(cold) & set(warm) - {FLOOR}
    if shared and FLOOR in cold:
        best = max(shared, key=lambda name: cold[name].rows)
        told.append(limit_advice(cold[best].rows, max(warm[name].rows for name in shared), cold[FLOOR].rows,
                                 target.is_encoded))  # fmt: skip
        told.append(trust_advice(cold[best].rows, cold[FLOOR].rows))
    told.append(_storage_advice(target, cold[FLOOR].bytes if FLOOR in cold else None, best_share(warm)))
    every = warm or cold
    if {ROWS, BATCHES} <= set(every):
        told.append(batches_advice(every[ROWS].rows, every[BATCHES].rows))
    workers = max(map(fewest_workers, rates.values()), default=None)
    told.append(batch_memory_advice(BATCH * target.row_bytes, workers, free_shared_memory()))
    return [text for text in told if text]


def _storage_advice(target: Target, cold_floor: float | None, share: float) -> str | None:
    if target.is_encoded:
        return encoded_advice(target.row_bytes / target.stored_row_bytes, share)
    return compression_advice(stored_compression(target.manifest), cold_floor, share)


def best_share(speeds: Mapping[str, Speed]) -> float:
    """Of the floor, reached by the fastest way; 1 if only the floor was measured."""
    others = [speed.rows for name, speed in speeds.items() if name != FLOOR]
    return max(others) / speeds[FLOOR].rows if others and FLOOR in speeds else 1.0


# --- showing -------------------------------------------------------------------------------------------------------------


def speed_table(all_ways: Sequence[Way], results: Results, stored: float | None = None) -> Table:
    """Ways down, for each phase rows/s, MB/s and the share of the floor's rows/s.

    Where images are decoded, ``stored`` is a row's bytes on disk: MB/s are named by where they are, and the floor, which
    decodes nothing, is no measure.
    """
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("\nway", no_wrap=True)
    for phase in results.speeds:
        last = ("MB/s\nof disk", "MB/s\ndecoded") if stored else ("\nMB/s", "of\nfloor")
        for heading in (f"{phase}\nrows/s", *last):
            table.add_column(heading, justify="right", no_wrap=True)
    for way in all_ways:
        cells = [cell for speeds in results.speeds.values() for cell in _cells(speeds, way.name, stored)]
        if any(cells):
            table.add_row(way.name, *cells)
    return table


def _cells(speeds: Mapping[str, Speed], name: str, stored: float | None) -> tuple[str, str, str]:
    if name not in speeds:
        return "", "", ""
    speed, floor = speeds[name], speeds.get(FLOOR)
    if stored:
        decoded = f"{speed.bytes / 1e6:,.0f}" if name != FLOOR else ""
        return f"{speed.rows:,.0f}", f"{speed.rows * stored / 1e6:,.0f}", decoded
    share = f"{speed.rows / floor.rows:.0%}" if floor else ""
    return f"{speed.rows:,.0f}", f"{speed.bytes / 1e6:,.0f}", share


def _encoded_text(target: Target) -> str:
    stored, given = human_bytes(target.stored_row_bytes), human_bytes(target.row_bytes)
    return f"images encoded: a row is {stored} on disk and {given} decoded"


def show(target: Target, all_ways: Sequence[Way], results: Results, console: Console) -> None:
    """The head, the table, and the advice."""
    entries, compression = target.files, stored_compression(target.manifest)
    part = f"{sum(entry.rows for entry in entries):,} rows, {len(entries):,} files, {human_bytes(total_bytes(entries))}"
    here = machine()
    kind = _encoded_text(target) if target.is_encoded else f"compression {compression or 'not known'}"
    console.print(f"{target.survey.name}, {part}, {kind}", highlight=False)
    console.print(
        f"{here['processor']}, {here['cores']} cores, {human_bytes(here['memory_bytes'])} of memory\n", highlight=False
    )
    console.print(speed_table(all_ways, results, target.stored_row_bytes if target.is_encoded else None))
    console.print()
    if COLD in results.speeds:
        console.print(
            "cold: the files were dropped from the operating system's page cache first (a server's or a virtual machine's "
            "host may still hold them); warm: they were read just before.\n",
            highlight=False,
        )
    for text in (*results.notes, *advice(target, all_ways, results)):
        console.print(f"- {text}", highlight=False, markup=False)


def record(target: Target, all_ways: Sequence[Way], results: Results, seconds: float) -> dict:
    """All numbers with machine, versions and date, as it goes into a JSON file."""
    workers = {way.name: way.workers for way in all_ways}
    more = {"datasets": datasets.__version__}
    if "torch" in sys.modules:
        more["torch"] = sys.modules["torch"].__version__
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {**versions(), **more},
        "folder": target.root,
        "survey": target.survey.name,
        "split": target.split,
        "compression": stored_compression(target.manifest),
        "rows": sum(entry.rows for entry in target.files),
        "files": len(target.files),
        "bytes": total_bytes(target.files),
        "row_bytes": target.row_bytes,
        "stored_row_bytes": target.stored_row_bytes,
        "batch_size": BATCH,
        "seconds": seconds,
        "interrupted": results.interrupted,
        "speeds": [
            {
                "phase": phase,
                "way": name,
                "workers": workers[name],
                "rows_per_second": speed.rows,
                "bytes_per_second": speed.bytes,
                "share_of_floor": speed.rows / speeds[FLOOR].rows if FLOOR in speeds else None,
            }
            for phase, speeds in results.speeds.items()
            for name, speed in speeds.items()
        ],
        "notes": results.notes,
        "advice": advice(target, all_ways, results),
    }


# --- the command ---------------------------------------------------------------------------------------------------------


def run(folder: Path, seconds: float, output: Path | None, console: Console) -> int:
    """Measure, show and save; exit status 130 after Ctrl-C, with what was measured until then.

    Args:
        folder: with a manifest.
        seconds: that each way is measured, cold and warm.
        output: JSON file to write, None for none.
        console: where table and advice go.

    Raises:
        UserError: nothing can be measured, or the file cannot be written.
    """
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise UserError(f"cannot write {output}: no such folder")  # now, not after a minute
    target = open_target(folder)
    all_ways = ways(target, chosen_workers(target, results := Results()))
    try:
        with progress(2 * len(all_ways) + 1) as say:
            measure_all(target, all_ways, seconds, results, say)
    except KeyboardInterrupt:
        results.interrupted = True
    if results.interrupted:
        print("skyset: interrupted; what was measured so far:" if results.speeds else "skyset: interrupted", file=sys.stderr)
    if results.speeds:
        show(target, all_ways, results, console)
        if output is not None:
            save(record(target, all_ways, results, seconds), output)
    return 130 if results.interrupted else 0


def chosen_workers(target: Target, results: Results) -> list[int]:
    """Numbers of workers to measure; a note where there is no torch, or too little shared memory."""
    if not datasets.config.TORCH_AVAILABLE:
        results.notes.append("No DataLoader: torch is not installed.")
        return []
    batch_bytes, shared = BATCH * target.row_bytes, free_shared_memory()
    counts = worker_counts(core_count(), batch_bytes, shared)
    if len(counts) < len(worker_counts(core_count(), batch_bytes, None)):
        results.notes.append(f"More than {counts[-1]} workers would not fit into shared memory, {human_bytes(shared)}.")
    return counts


@contextlib.contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """A line that says what is being measured. Without a thread: processes are forked meanwhile."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps)
        done = iter(range(steps))
        yield lambda text: bar.update(task, description=text, completed=next(done, steps), refresh=True)


def save(values: dict, path: Path) -> None:
    """Write JSON and say where it is; UserError if that is not possible."""
    try:
        write_atomically(path, json.dumps(values, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    print(f"wrote {path}")
