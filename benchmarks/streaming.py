"""How fast do rows come out of partitions, in every way people iterate, against the floor and the alternatives?

    python benchmarks/streaming.py                        # 2 GB of each kind, 5 rounds, about half an hour
    python benchmarks/streaming.py --gigabytes 0.2 --rounds 1 --kinds galaxiesml

Every way copies each pixel once into a buffer that is used again. The floor does that with h5py, slabs of 32 rows, and
nothing else. Each measurement is a process of its own that iterates for a few seconds with a warm page cache; ways take
turns within a round, and the ratios are the medians of the rounds' ratios. Memory is what the process (and its workers) grew
by over the interpreter with everything imported.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BATCH = 32
#: Seconds after which a way is given up. Its line then says nan, as that of one which runs out of memory.
PATIENCE = 40
FAILED = {"rate": math.nan, "first": math.nan, "memory": math.nan}
KINDS = {"gz3d": ("GZ3D-like", "gz3d"), "galaxiesml": ("GalaxiesML-like", "galaxiesml_like")}
ROWS_A_FILE = {"gz3d": 64, "galaxiesml": 512}


# --- data ----------------------------------------------------------------------------------------------------------------


def declaration(kind: str):
    """The survey of a kind of data; importing it here keeps it out of the peers' processes."""
    import skyset

    skyset.register("galaxiesml_like", "benchmarks.galaxiesml_like")
    return skyset.loading.registry.survey(KINDS[kind][1])


def make_data(folder: Path, kind: str, files: int, rows: int) -> None:
    """Partitions of noise with a manifest, written as a build writes them: ``files`` cells of ``rows`` rows each."""
    from skyset.partitions.layout import partition_path
    from skyset.partitions.manifest import Manifest, describe_file
    from skyset.partitions.writer import PartitionWriter

    survey, rng = declaration(kind), np.random.default_rng(0)
    record = {column.name: _noise(column, rng) for column in survey.columns}
    entries = []
    for cell in range(files):
        with PartitionWriter(folder / partition_path(cell), survey.columns, rows) as writer:
            for row in range(rows):
                record[survey.key] = np.bytes_(f"{cell}-{row}")
                record["healpix"] = np.int64(cell)
                writer.append(record)
        entries.append(describe_file(folder, partition_path(cell), survey, "train"))
    Manifest(survey.name, list(survey.columns), survey.key, entries).save(folder)


def _noise(column, rng: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(column.dtype)
    if dtype.kind == "S":
        return np.bytes_(b"x" * min(10, dtype.itemsize))
    if dtype.kind in "iu":
        return rng.integers(0, 16, column.shape).astype(dtype)
    return rng.random(column.shape).astype(dtype)


# --- ways of iterating: each yields (rows, the arrays whose pixels are then copied) ----------------------------------------


def pixels(value) -> list[np.ndarray]:
    """The arrays of at least 4 kB in a row or a batch."""
    if isinstance(value, dict):
        return [array for item in value.values() for array in pixels(item)]
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [array for item in value for array in pixels(item)]
    if isinstance(value, list) and value and isinstance(value[0], dict | np.ndarray):
        return [array for item in value for array in pixels(item)]
    return [value] if isinstance(value, np.ndarray) and value.nbytes >= 4096 else []


def floor(folder: Path, kind: str) -> Iterator:
    import h5py

    names = [c.name for c in declaration(kind).columns]
    for path in sorted(folder.glob("healpix=*/*.hdf5")):
        with h5py.File(path) as file:
            count = len(file[names[0]])
            for start in range(0, count, BATCH):
                stop = min(start + BATCH, count)
                yield stop - start, [file[name][start:stop] for name in names]


def ours(folder: Path, kind: str, format: str | None = "numpy", **options):
    import skyset

    declaration(kind)
    return skyset.load(KINDS[kind][1], str(folder), format=format, **options)


def stock(folder: Path, format: str = "numpy"):
    from datasets import load_dataset

    files = sorted(map(str, folder.glob("healpix=*/*.hdf5")))
    return load_dataset("hdf5", data_files={"train": files}, split="train", streaming=True).with_format(format)


def as_rows(dataset) -> Iterator:
    return ((1, list(row.values())) for row in dataset)


def as_batches(dataset) -> Iterator:
    for batch in dataset.iter(batch_size=BATCH):
        yield len(next(iter(batch.values()))), list(batch.values())


def as_loader(dataset) -> Iterator:
    from torch.utils.data import DataLoader

    for batch in DataLoader(dataset, batch_size=BATCH, num_workers=2):
        yield len(next(iter(batch.values()))), list(batch.values())


def parquet(folder: Path) -> Iterator:
    from datasets import load_dataset

    files = sorted(map(str, (folder / "parquet").glob("*.parquet")))
    return load_dataset("parquet", data_files=files, split="train", streaming=True).with_format("numpy")


WAYS: dict[str, Callable[[Path, str], Iterator]] = {
    "floor: raw h5py, slabs of 32 rows": floor,
    "**skyset** rows, numpy": lambda folder, kind: as_rows(ours(folder, kind)),
    "**skyset** `iter(32)`, numpy": lambda folder, kind: as_batches(ours(folder, kind)),
    "**skyset** DataLoader, torch, 2 workers": lambda folder, kind: as_loader(ours(folder, kind, "torch")),
    "**skyset** rows, shuffled": lambda folder, kind: as_rows(ours(folder, kind).shuffle(seed=0)),
    "**skyset** DataLoader, shuffled": lambda folder, kind: as_loader(ours(folder, kind, "torch").shuffle(seed=0)),
    "stock hdf5 rows, numpy": lambda folder, kind: as_rows(stock(folder)),
    "stock hdf5 `iter(32)`, numpy": lambda folder, kind: as_batches(stock(folder)),
    "stock hdf5 DataLoader, torch, 2 workers": lambda folder, kind: as_loader(stock(folder, "torch")),
    "stock hdf5 rows, shuffled (100 rows)": lambda folder, kind: as_rows(stock(folder).shuffle(seed=0, buffer_size=100)),
    "stock Parquet rows, numpy": lambda folder, kind: as_rows(parquet(folder)),
    "stock Parquet `iter(32)`, numpy": lambda folder, kind: as_batches(parquet(folder)),
}


# --- one measurement, in a process of its own ------------------------------------------------------------------------------


def measure(way: str, folder: Path, kind: str, seconds: float) -> dict:
    """Rows a second, seconds to the first row, and growth in memory of this process and its workers."""
    import psutil

    _import_everything()
    me = psutil.Process()
    base, peak = me.memory_info().rss, _Peak(me)
    warm_up(folder)
    buffer = np.zeros(64 << 20, np.uint8)
    buffer[:] = 1  # its pages exist from now on
    base += buffer.nbytes
    start = time.perf_counter()
    rows, first = 0, None
    for count, values in WAYS[way](folder, kind):
        if first is None:
            first = time.perf_counter()
        for array in pixels(values):
            copy_out(array, buffer)
        rows += count
        if time.perf_counter() - first > seconds:
            break
    elapsed = time.perf_counter() - first
    peak.stop()
    return {"rate": rows / elapsed, "first": first - start, "memory": peak.bytes - base}


def warm_up(folder: Path) -> None:
    """Read all files twice: in a virtual machine the first look at a page of the cache is slow, whoever takes it."""
    block = bytearray(8 << 20)
    for path in 2 * sorted(path for path in folder.glob("**/*.*") if path.is_file()):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(block):
                pass


def copy_out(array: np.ndarray, buffer: np.ndarray) -> None:
    """Copy all pixels to the start of the buffer, row by row where it is too small for all."""
    for part in [array] if array.nbytes <= buffer.nbytes else array:
        np.copyto(buffer[: part.nbytes].view(part.dtype).reshape(part.shape), part)


def _import_everything() -> None:
    """What is imported anyway does not count as a way's memory."""
    import datasets  # noqa: F401
    import h5py  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch.utils.data  # noqa: F401

    import skyset  # noqa: F401


class _Peak(threading.Thread):
    """Watches the memory of a process and its children; what forked children share counts once."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self._process, self._ended, self.bytes = process, threading.Event(), 0
        self.start()

    def run(self) -> None:
        import psutil

        while not self._ended.wait(0.02):
            try:
                own = self._process.memory_info().rss
                children = [child.memory_full_info().uss for child in self._process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            self.bytes = max(self.bytes, own + sum(children))

    def stop(self) -> None:
        self._ended.set()
        self.join()


# --- the other questions ---------------------------------------------------------------------------------------------------


def build_cache(folder: Path, kind: str, which: str) -> float:
    """Seconds to build the Arrow cache of the whole survey."""
    from datasets import load_dataset

    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        start = time.perf_counter()
        if which == "skyset":
            ours(folder, kind, None, streaming=False, cache_dir=cache)
        else:
            files = sorted(map(str, folder.glob("healpix=*/*.hdf5")))
            load_dataset("hdf5", data_files={"train": files}, split="train", cache_dir=cache)
        return time.perf_counter() - start


def selected_bytes(folder: Path, kind: str) -> tuple[int, int]:
    """(bytes read to iterate two columns, bytes that they hold), counted at the system call."""
    names = ["object_id", "ra"]
    counted, real = [], os.preadv
    os.preadv = lambda *arguments: counted.append(real(*arguments)) or counted[-1]
    try:
        rows = sum(1 for _ in ours(folder, kind).select_columns(names))
    finally:
        os.preadv = real
    survey = declaration(kind)
    return sum(counted), rows * sum(survey.column(name).row_bytes for name in names)


def cold(folder: Path, kind: str, which: str) -> float:
    """Bytes a second of the whole set, its pages dropped from the cache first."""
    files = sorted(folder.glob("healpix=*/*.hdf5"))
    rows, buffer = ours(folder, kind), np.zeros(64 << 20, np.uint8)
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    if which == "skyset":
        for _, values in as_rows(rows):
            for array in pixels(values):
                copy_out(array, buffer)
    else:
        for path in files:
            subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=8M", "status=none"], check=True)
    return sum(path.stat().st_size for path in files) / (time.perf_counter() - start)


def mixing(folder: Path, kind: str) -> str:
    """Mean number of different cells in a batch of 32: shuffled with several buffers, drawn uniformly, and unshuffled."""
    cells = [int(row["healpix"]) for row in ours(folder, kind).select_columns(["healpix"])]
    lines = []
    for mebibytes in (32, 128, 512):
        stream = ours(folder, kind).shuffle(seed=0, buffer_bytes=mebibytes << 20)
        order = [int(row["healpix"]) for row in islice(stream, 100 * BATCH)]
        lines.append(f"{mebibytes} MiB {_cells_a_batch(order):.1f}")
    uniform = np.random.default_rng(0).permutation(cells)[: 100 * BATCH]
    return ", ".join(lines) + f"; uniform {_cells_a_batch(uniform):.1f}; unshuffled {_cells_a_batch(cells):.1f}"


def _cells_a_batch(cells) -> float:
    batches = [cells[i : i + BATCH] for i in range(0, len(cells) - BATCH + 1, BATCH)]
    return statistics.mean(len(set(batch)) for batch in map(list, batches))


def first_row(folder: Path) -> float:
    """Seconds to the first row, from `load_dataset` on: after the imports, of which torch's alone takes longer."""
    _import_everything()
    start = time.perf_counter()
    next(iter(ours(folder, "galaxiesml")))
    return time.perf_counter() - start


# --- the tables ------------------------------------------------------------------------------------------------------------


def in_a_process(what: str, *arguments: str | Path | float):
    """Call a function of this file in a fresh process and give back its result."""
    command = [sys.executable, __file__, "--call", json.dumps([what, *map(str, arguments)])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE if what == "measure" else None)
    except subprocess.TimeoutExpired:
        return FAILED
    if done.returncode == -9:  # out of memory
        return FAILED
    if done.returncode:
        raise RuntimeError(f"{what} {arguments} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def call(what: str, *arguments: str):
    """The other end of ``in_a_process``."""
    if what == "measure":
        way, folder, kind, seconds = arguments
        return measure(way, Path(folder), kind, float(seconds))
    functions = {f.__name__: f for f in (build_cache, selected_bytes, cold, mixing, first_row)}
    return functions[what](Path(arguments[0]), *arguments[1:])


def progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def speed_table(folder: Path, kind: str, rounds: int, seconds: float) -> None:
    """Rows a second of every way, and their ratios to the floor and to the stock way of the same kind."""
    results: dict[str, list[dict]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            failed = results[way] and results[way][-1] is FAILED
            results[way].append(FAILED if failed else in_a_process("measure", way, folder, kind, seconds))
            progress(f"{kind} round {number + 1}/{rounds}: {way}: {results[way][-1]['rate']:.0f} rows/s")
    print("| way of iterating | rows/s | to the floor | to stock | memory, MB | first row, s |\n|---|---|---|---|---|---|")
    for way, runs in results.items():
        stock_way = STOCK_TWIN.get(way)
        print(
            f"| {way} | {median(runs, 'rate'):.0f} | {ratio(runs, results[FLOOR]):.2f} "
            f"| {f'{ratio(runs, results[stock_way]):.1f}' if stock_way else ''} "
            f"| {max(run['memory'] for run in runs) / 1e6:.0f} | {median(runs, 'first'):.2f} |"
        )


FLOOR = next(iter(WAYS))
STOCK_TWIN = {
    "**skyset** rows, numpy": "stock hdf5 rows, numpy",
    "**skyset** `iter(32)`, numpy": "stock hdf5 `iter(32)`, numpy",
    "**skyset** DataLoader, torch, 2 workers": "stock hdf5 DataLoader, torch, 2 workers",
    "**skyset** rows, shuffled": "stock hdf5 rows, shuffled (100 rows)",
}


def median(runs: list[dict], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def ratio(runs: list[dict], base: list[dict]) -> float:
    return statistics.median(run["rate"] / other["rate"] for run, other in zip(runs, base, strict=True))


def pair_line(what: str, folder: Path, kind: str, rounds: int, ways: tuple[str, str]) -> tuple[float, float, float]:
    """Medians of two ways in turn, and of the rounds' ratios."""
    pairs = []
    for number in range(rounds):
        pairs.append([in_a_process(what, folder, kind, way) for way in ways])
        progress(f"{kind} round {number + 1}/{rounds}: {what}: {pairs[-1]}")
    return *(statistics.median(column) for column in zip(*pairs, strict=True)), statistics.median(a / b for a, b in pairs)


def other_lines(folder: Path, kind: str, rounds: int) -> None:
    ours_s, stock_s, share = pair_line("build_cache", folder, kind, rounds, ("skyset", "stock"))
    print(f"\n- Arrow cache: built in {ours_s:.1f} s, stock {stock_s:.1f} s: {1 / share:.1f} x")
    ours_rate, dd_rate, share = pair_line("cold", folder, kind, rounds, ("skyset", "dd"))
    print(f"- page cache dropped: rows {ours_rate / 1e6:.0f} MB/s, `dd` {dd_rate / 1e6:.0f} MB/s: {share:.2f} x")
    read, held = in_a_process("selected_bytes", folder, kind)
    print(f"- `select_columns` of two: {read} bytes read, they hold {held}")
    print(f"- different cells in a batch of 32, shuffled with {in_a_process('mixing', folder, kind)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of each kind of data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="that each way iterates in each round")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        print(json.dumps(call(*json.loads(arguments.call))))
        return
    from benchmarks.measure import machine

    print(f"{machine()}; {arguments.gigabytes} GB of each kind, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as top:
        for kind in arguments.kinds:
            folder, rows = Path(top) / kind, ROWS_A_FILE[kind]
            make_data(folder, kind, max(2, round(arguments.gigabytes * 1e9 / declaration(kind).row_bytes / rows)), rows)
            make_parquet(folder, kind)
            print(f"\n## {KINDS[kind][0]}\n")
            speed_table(folder, kind, arguments.rounds, arguments.seconds)
            other_lines(folder, kind, arguments.rounds)
            shutil.rmtree(folder)
        make_data(Path(top) / "cells", "galaxiesml", 3072, 1)
        seconds = [in_a_process("first_row", Path(top) / "cells") for _ in range(arguments.rounds)]
        first = f"{statistics.median(seconds):.2f} s from `load_dataset` on (imports done before)"
        print(f"\nFirst row of a survey of 3,072 cells: {first}")


def make_parquet(folder: Path, kind: str) -> None:
    """The same rows as `datasets` writes them to Parquet; a part of them is enough to time its reader."""
    (folder / "parquet").mkdir()
    rows = ours(folder, kind, None).take(16 * BATCH)
    rows.to_parquet(folder / "parquet" / "rows.parquet", batch_size=BATCH)


if __name__ == "__main__":
    main()
