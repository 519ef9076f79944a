"""How fast do GalaxiesML's published files stream where they lie, and how fast do they become partitions?

    python benchmarks/published.py                 # 1,200 galaxies of 127 pixels, 4,000 of 64; five rounds, about two
    minutes python benchmarks/published.py --rounds 1 --rows 200

The floor reads the pixels alone, 8 MB at a time, by ``preadv`` into one buffer: no table, no rows, no memory of their own.
The peers: a plain h5py loop over slabs of all keys, and ``load_dataset("hdf5", data_files=..., streaming=True)``. The
files are in the page cache, or taken out of it before each run. Each way is a process of its own; what is timed is the
iteration. Conversion is by two processes, their start taken off, beside ``cp`` of the same file; both end when the
disk has all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SLAB = 8 << 20
#: Rows after which the stock builder is stopped: it is slow.
STOCK_ROWS = 60


def make(folder: Path, size: int, rows: int) -> None:
    """A training file of noise in the published form."""
    from skyset.published.galaxiesml import PublishedWriter, file_name, keys

    dice = np.random.default_rng(size)
    noise = dice.normal(0, 1, (64, 5, size, size)).astype("f4")
    with PublishedWriter(folder / file_name(size, "train"), size, rows, csv=False) as writer:
        for start in range(0, rows, 64):
            count = min(64, rows - start)
            values = {key.name: dice.uniform(1, 5, (count, *key.shape)) for key in keys(None) if key.dtype == "float64"}
            values |= {"object_id": 43_000_000_000_000_000 + start + np.arange(count), "specz_name": ["a name"] * count}
            # In two cells, each other row: two partitions as large as those of the survey, for two processes.
            values |= {"ra": 150 + 10.0 * (np.arange(count) % 2), "dec": np.full(count, 2.0)}
            writer.append(values | {"image": noise[:count]})


def floor(path: Path, size: int) -> int:
    import h5py

    with h5py.File(path) as file:
        offset, end = file["image"].id.get_offset(), file["image"].id.get_storage_size()
        rows = len(file["image"])
    descriptor, buffer = os.open(path, os.O_RDONLY), np.empty(SLAB, np.uint8)
    end += offset
    while offset < end:
        offset += os.preadv(descriptor, [memoryview(buffer)[: min(SLAB, end - offset)]], offset)
    os.close(descriptor)
    return rows


def h5py_loop(path: Path, size: int) -> int:
    import h5py

    rows = 0
    with h5py.File(path) as file:
        for start in range(0, len(file["image"]), 32):
            slab = {name: data[start : start + 32] for name, data in file.items()}
            rows += sum(1 for _ in zip(*slab.values(), strict=True))
    return rows


def ours(folder: Path, size: int, names: list[str] | None = None, batch: int | None = None) -> Callable[[], int]:
    import skyset

    rows = skyset.load("galaxiesml", str(size), data_dir=str(folder), split="train")
    rows = rows.select_columns(names) if names else rows
    if batch:
        return lambda: sum(len(each["image"]) for each in rows.iter(batch))
    return lambda: sum(1 for _ in rows)


def stock(path: Path, size: int) -> Callable[[], int]:
    from datasets import load_dataset

    rows = load_dataset("hdf5", data_files={"train": str(path)}, split="train", streaming=True).with_format("numpy")
    return lambda: sum(1 for _ in rows.take(STOCK_ROWS))


#: What each way does, given the published folder, that of the partitions, and the size; what it returns is timed.
WAYS: dict[str, Callable[[Path, Path, int], Callable[[], int]]] = {
    "floor: preadv of the pixels": lambda published, built, size: lambda: floor(_file(published, size), size),
    "in place, rows": lambda published, built, size: ours(published, size),
    "in place, `iter(32)`": lambda published, built, size: ours(published, size, batch=32),
    "in place, image and redshift": lambda published, built, size: ours(published, size, ["image", "specz_redshift"]),
    "our partitions, rows": lambda published, built, size: ours(built, size),
    "our partitions, image and redshift": lambda published, built, size: ours(built, size, ["image", "specz_redshift"]),
    "plain h5py, slabs of 32 rows": lambda published, built, size: lambda: h5py_loop(_file(published, size), size),
    "stock `hdf5` builder, streaming": lambda published, built, size: stock(_file(published, size), size),
}


#: Those that are also measured from the disk, as files of 66 GB are read.
COLD = ["floor: preadv of the pixels", "in place, rows", "in place, `iter(32)`", "stock `hdf5` builder, streaming"]


def _file(folder: Path, size: int) -> Path:
    from skyset.published.galaxiesml import file_name

    return folder / file_name(size, "train")


def forget(path: Path) -> None:
    """Take a file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def one(way: str, published: Path, built: Path, size: int, cold: bool) -> None:
    """Time a way in this process; a first look at the file warms imports and the page cache up."""
    warnings.simplefilter("ignore")
    import skyset

    next(iter(skyset.load("galaxiesml", str(size), data_dir=str(published), split="train")))
    iterate = WAYS[way](published, built, size)
    for path in published.rglob("*.hdf5") if cold else ():
        forget(path)
    start = time.perf_counter()
    rows = iterate()
    seconds = time.perf_counter() - start
    print(rows / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def timed(way: str, folder: Path, size: int, cold: bool) -> tuple[float, float]:
    """Rows a second, and the peak memory in MB."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--size", str(size)] + ["--cold"] * cold
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    speed, memory = map(float, said.split())
    return speed, memory


def convert(folder: Path, size: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of conversions by two processes, less what they take to start and to end, and of copies."""
    from skyset.build_scripts.galaxiesml.published import build_published
    from skyset.building.options import Options

    source, target = folder / f"one{size}", folder / "partitions"
    source.mkdir()
    file = _file(folder / "published", size)
    os.link(file, source / file.name)

    def build(limit: int | None = None) -> float:
        shutil.rmtree(target / str(size), ignore_errors=True)
        options = Options(target, source, limit=limit, num_processes=2)
        os.sync()
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            build_published(argparse.Namespace(configs=[str(size)]), options, [])
        os.sync()
        return time.perf_counter() - start

    def copy() -> float:
        os.sync()
        start = time.perf_counter()
        shutil.copyfile(file, folder / "copy")
        os.sync()
        seconds = time.perf_counter() - start
        (folder / "copy").unlink()
        return seconds

    turns = [(copy(), build(limit=8), build()) for _ in range(rounds + 1)][1:]
    return [whole - few for _, few, whole in turns], [seconds for seconds, *_ in turns]


def report(folder: Path, size: int, rounds: int, cold: bool = False) -> None:
    ways = COLD if cold else list(WAYS)
    results: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, found in results.items():
            found.append(timed(way, folder, size, cold))
    first, last = ways[0], ways[-1]
    where = "from the disk" if cold else "from the page cache"
    print(f"\n| {size} pixels, {where} | rows/s | MB/s | to the floor | to stock | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for way, found in results.items():
        to = {
            name: statistics.median(one[0] / other[0] for one, other in zip(found, results[name], strict=True))
            for name in (first, last)
        }
        speed = statistics.median(each[0] for each in found)
        memory = max(each[1] for each in found)
        megabytes = speed * 20 * size**2 / 1e6
        print(f"| {way} | {speed:,.0f} | {megabytes:,.0f} | {to[first]:.2f} | {to[last]:.1f} | {memory:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1200, help="of 127 pixels; three times as many of 64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--way")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--size", type=int)
    asked = parser.parse_args()
    if asked.way:
        one(asked.way, asked.folder / "published", asked.folder / "partitions", asked.size, asked.cold)
        return
    from benchmarks.measure import machine

    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "published").mkdir()
        for size, rows in ((127, asked.rows), (64, 3 * asked.rows)):
            make(folder / "published", size, rows)
            seconds, copies = convert(folder, size, max(1, asked.rounds // 2))
            share = statistics.median(copy / own for own, copy in zip(seconds, copies, strict=True))
            megabytes = _file(folder / "published", size).stat().st_size / 1e6
            print(
                f"\nconversion of {megabytes:,.0f} MB, {size} pixels: {statistics.median(seconds):.2f} s; "
                f"cp: {statistics.median(copies):.2f} s; {share:.2f} of its speed"
            )
            report(folder, size, asked.rounds)
            report(folder, size, asked.rounds, cold=True)


if __name__ == "__main__":
    main()
