"""How fast are trees read that others wrote: MultimodalUniverse's layouts, adopted, against their scripts and plain h5py?

    python benchmarks/adopt.py --scripts mmu_clone/scripts      # everything, 5 rounds, about half an hour
    python benchmarks/adopt.py --quick                          # small trees, one round, two minutes
    python benchmarks/adopt.py --only sdss plasticc             # these tables alone

The trees are made up (skyset.testing.mmu), as large a row as published, and adopted once. Each measurement is a process of
its own that goes through a tree again and again for a few seconds with a warm page cache; the ways take turns within a
round, and the ratios are the medians of the rounds' ratios: they hold on a busy machine, the rows per second do not.

The ways: skyset's stream in the format "numpy", without padding (as it comes) and with it; the floor, h5py reading the same
columns in slabs of 8 MiB of rows, or, where objects have a file or a group each, opening one after the other and reading
its datasets; and MultimodalUniverse's own loading scripts, for which --scripts names a clone and .venv-datasets3 has
datasets 3.6 (see mmu_loaders.py). Their stream is what their users wait for; their generator is the reading alone, nothing
of datasets around it. hsc cannot be streamed by them: datasets 3.6 has no cast of its arrays. manga has no script there.

Then: seconds to the first row of a tree of 3,072 cells, the time in which 10,000 files are adopted, and the memory of
adopting and streaming 2,000 and 20,000 files.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # and not this folder: its modules' names are not for everybody

SLAB_BYTES = 8 << 20
STREAM, PADDED, FLOOR = "**skyset** stream", "**skyset** stream, `keep_padding`", "floor"
THEIR_STREAM, THEIR_GENERATOR = "MMU's script, stream", "MMU's script, generator alone"


@dataclass(frozen=True)
class Tree:
    """A kind of tree: what is read for the floor, how many cells and rows of them, and of them with --quick."""

    floor: str
    cells: int
    rows: int
    quick_rows: int
    options: dict[str, Any] = field(default_factory=lambda: {"full_size": True})
    scripts: tuple[str, ...] = ("streaming", "generator")


TREES = {
    "hsc": Tree("h5py, slabs of rows", 8, 40, 4, scripts=("generator",)),
    "sdss": Tree("h5py, slabs of rows", 12, 250, 40),
    "plasticc": Tree("h5py, slabs of rows", 12, 500, 40),
    "yse": Tree("h5py, file by file", 30, 100, 10),
    "manga": Tree("h5py, group by group", 8, 16, 2, {"side": 24, "length": 512}, ()),
}
OTHERS = ("first", "index", "memory")


# --- ways of reading: each yields rows -------------------------------------------------------------------------------------


def floor(kind: str, tree: Path) -> Iterator[int]:
    """How many rows were read, each time some were."""
    read = {"yse": _file_by_file, "manga": _group_by_group}.get(kind, _slabs)
    for path in sorted(tree.glob("**/*.hdf5")):
        yield from read(path)


def _slabs(path: Path) -> Iterator[int]:
    import h5py

    with h5py.File(path) as file:
        columns = list(file.values())
        rows = len(columns[0])
        step = max(1, SLAB_BYTES // sum(c.dtype.itemsize * math.prod(c.shape[1:]) for c in columns))
        for start in range(0, rows, step):
            slab = [column[start : start + step] for column in columns]
            yield len(slab[0])


def _file_by_file(path: Path) -> Iterator[int]:
    import h5py

    with h5py.File(path) as file:
        yield len({name: dataset[()] for name, dataset in file.items()}) and 1


def _group_by_group(path: Path) -> Iterator[int]:
    import h5py

    with h5py.File(path) as file:
        for group in file.values():
            yield len({name: dataset[()] for name, dataset in group.items()}) and 1


def stream(index: Path, **options: Any) -> Iterable:
    """The rows of an index, to be gone through again and again."""
    import skyset

    return skyset.load(str(index), split="all", format="numpy", **options)


# --- one measurement, in a process of its own ------------------------------------------------------------------------------


def measure(way: str, kind: str, tree: str, index: str, seconds: float) -> dict[str, float]:
    """Rows per second from the first row on, seconds to the first row, bytes that the process grew by."""
    import_everything()
    warm_up(Path(tree))
    base, start = _largest(), time.perf_counter()
    rows, first = 0, 0.0
    again = None if way == FLOOR else stream(Path(index), keep_padding=way == PADDED)
    while True:
        for count in floor(kind, Path(tree)) if again is None else (1 for _ in again):
            first = first or time.perf_counter()
            rows += count
            if (elapsed := time.perf_counter() - first) > seconds:
                return {"rate": rows / elapsed, "first": first - start, "memory": _largest() - base}


def import_everything() -> None:
    """What is imported anyway counts neither as memory nor as time; `datasets` imports torch and scipy late."""
    wanted = ["datasets", "h5py", "skyset.builder", "skyset.loaders.adopted"]
    for name in [
        *wanted,
        *(name for name in ("torch.utils.data", "scipy.io") if importlib.util.find_spec(name.split(".")[0])),
    ]:
        importlib.import_module(name)


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def warm_up(tree: Path) -> None:
    """Read all files, into the page cache."""
    block = bytearray(8 << 20)
    for path in tree.glob("**/*.hdf5"):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(block):
                pass


def first_row(index: str) -> float:
    """Seconds to the first row, imports done."""
    import_everything()
    import skyset

    start = time.perf_counter()
    next(iter(skyset.load(index, split="train", format="numpy")))
    return time.perf_counter() - start


def stream_all(index: str) -> float:
    """All rows of an index once; bytes that the process grew by."""
    import_everything()
    base = _largest()
    for _ in stream(Path(index)):
        pass
    return _largest() - base


def in_a_process(what: str, *arguments: Any) -> Any:
    """Call a function of this file in a fresh process and give back its result."""
    command = [sys.executable, __file__, "--call", json.dumps([what, *map(str, arguments)])]
    return _last_line(command)


def _last_line(command: list[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def call(what: str, *arguments: str) -> Any:
    """The other end of ``in_a_process``."""
    if what == "measure":
        return measure(*arguments[:4], seconds=float(arguments[4]))
    return {"first_row": first_row, "stream_all": stream_all}[what](*arguments)


def theirs(kind: str, tree: Path, way: str, options: argparse.Namespace) -> dict[str, float]:
    """What their script does in as many seconds."""
    command = [str(options.python3), str(ROOT / "benchmarks/mmu_loaders.py"), "read", kind, str(tree)]
    found = _last_line([*command, "--scripts", str(options.scripts), "--way", way, "--seconds", str(options.seconds)])
    return {"rate": found["rows_per_s"], "first": found["first"], "memory": found["memory"]}


def why_not(options: argparse.Namespace) -> str:
    """Why their scripts are not run; ``""`` where they are."""
    if options.scripts is None:
        return "--scripts names no clone of MultimodalUniverse"
    if not options.scripts.is_dir():
        return f"{options.scripts} is not there"
    if not options.python3.exists():
        return f"{options.python3}, with datasets 3.6, is not there"
    return ""


# --- the tables ------------------------------------------------------------------------------------------------------------


def progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def adopt(tree: Path, index: Path, processes: int = 2) -> list[str]:
    """The command that adopts a tree."""
    return [sys.executable, "-m", "skyset", "adopt", str(tree), "-o", str(index), "--processes", str(processes)]


def make(kind: str, tree: Path, rows: int, cells: int, **options: Any) -> None:
    from skyset.testing.mmu import write

    write(kind, tree, rows=rows, cells=cells, keep=False, **options)


def speed(kind: str, folder: Path, options: argparse.Namespace) -> None:
    """The table of one kind of tree."""
    about, tree, index = TREES[kind], folder / kind, folder / f"{kind}_index"
    rows = about.quick_rows if options.quick else about.rows
    make(kind, tree, rows, 2 if options.quick else about.cells, **about.options)
    subprocess.run(adopt(tree, index), check=True, capture_output=True)
    scripts = () if why_not(options) else about.scripts
    results: dict[str, list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for way in (STREAM, PADDED, FLOOR):
            results.setdefault(way, []).append(in_a_process("measure", way, kind, tree, index, options.seconds))
            progress(f"{kind} round {number + 1}/{options.rounds}: {way}: {results[way][-1]['rate']:.0f} rows/s")
        for name in scripts:
            way = THEIR_STREAM if name == "streaming" else THEIR_GENERATOR
            results.setdefault(way, []).append(theirs(kind, tree, name, options))
            progress(f"{kind} round {number + 1}/{options.rounds}: {way}: {results[way][-1]['rate']:.1f} rows/s")
    megabytes = sum(path.stat().st_size for path in tree.glob("**/*.hdf5")) / 1e6
    print(f"\n### {kind}-like, {rows * (2 if options.quick else about.cells):,} rows, {megabytes:.0f} MB\n")
    peers = [way for way in (THEIR_STREAM, THEIR_GENERATOR) if way in results]
    print(f"| way | rows/s | to the floor |{''.join(f' to {way} |' for way in peers)} memory, MB | first row, s |")
    print("|---" * (5 + len(peers)) + "|")
    for way, runs in results.items():
        cells = [f"{name_of(way, about)}", f"{median(runs, 'rate'):,.{0 if median(runs, 'rate') > 20 else 1}f}"]
        cells += [
            f"{ratio(runs, results[base]):.2f}" if base == FLOOR else f"{ratio(runs, results[base]):.0f}"
            for base in (FLOOR, *peers)
        ]
        cells += [f"{max(run['memory'] for run in runs) / 1e6:.0f}", f"{median(runs, 'first'):.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    shutil.rmtree(tree)


def name_of(way: str, about: Tree) -> str:
    return f"floor: {about.floor}" if way == FLOOR else way


def median(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def ratio(runs: list[dict[str, float]], base: list[dict[str, float]]) -> float:
    return statistics.median(run["rate"] / other["rate"] for run, other in zip(runs, base, strict=True))


def first(folder: Path, options: argparse.Namespace) -> None:
    """First row of a tree of many cells."""
    cells = 100 if options.quick else 3072
    make("sdss", folder / "cells", 1, cells)
    subprocess.run(adopt(folder / "cells", folder / "cells_index"), check=True, capture_output=True)
    program = f"import skyset; next(iter(skyset.load({str(folder / 'cells_index')!r}, split='train', format='numpy')))"
    inside, whole = [], []
    for number in range(options.rounds):
        inside.append(in_a_process("first_row", folder / "cells_index"))
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)
        whole.append(time.perf_counter() - start)
        progress(f"first row, round {number + 1}/{options.rounds}: {inside[-1]:.3f} s, {whole[-1]:.2f} s")
    print(
        f"\n- First row of a tree of {cells:,} cells, once adopted: {statistics.median(inside):.2f} s; with the start of "
        f"Python and all imports {statistics.median(whole):.2f} s"
    )


def tree_of_files(folder: Path, files: int, of: Path | None = None) -> Path:
    """Objects, a file each, in cells of a hundred; hard links to those of another tree."""
    tree = folder / f"files_{files}"
    if of is None:
        make("yse", tree, 100, files // 100)
        return tree
    for cell in sorted(path for path in of.glob("**/healpix=*") if path.is_dir())[: files // 100]:
        shutil.copytree(cell, tree / cell.relative_to(of), copy_function=os.link)
    return tree


def index(folder: Path, options: argparse.Namespace) -> None:
    """Time in which many files are adopted, and memory that it takes, and a stream of them."""
    from benchmarks.measure import Series, run

    sizes = (200, 1000, 2000) if options.quick else (2_000, 10_000, 20_000)
    all_files = tree_of_files(folder, sizes[-1])
    trees = {size: tree_of_files(folder, size, all_files) for size in sizes[:-1]} | {sizes[-1]: all_files}
    if "index" in options.only:
        timed = Series()
        for number in range(options.rounds):
            run(adopt(trees[sizes[1]], folder / f"timed_{number}"), timed)
            progress(f"index, round {number + 1}/{options.rounds}: {timed.seconds[-1]:.1f} s")
        print(f"\n- {sizes[1]:,} files of an object each are adopted by two processes in {timed.median:.1f} s", flush=True)
    if "memory" in options.only:
        for size in (sizes[0], sizes[-1]):
            series, place = Series(), folder / f"memory_{size}"
            run(adopt(trees[size], place), series)
            grown = in_a_process("stream_all", place)
            print(
                f"- Memory of {size:,} files: adopting {series.peak_process / 1e6:.0f} MB a process, "
                f"{series.peak_total / 1e6:.0f} MB together; a stream grows by {grown / 1e6:.0f} MB",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*TREES, *OTHERS]
    add = parser.add_argument
    add("--only", nargs="+", choices=every, default=every, metavar="WHAT", help=f"of {', '.join(every)} (default: all)")
    add("--rounds", type=int, help="of all ways in turn (default: 5; 1 with --quick)")
    add("--seconds", type=float, help="that each way reads in each round (default: 3; 1 with --quick)")
    add("--quick", action="store_true", help="small trees: to see that all of it runs, its numbers mean little")
    add("--scripts", type=Path, metavar="DIR", help="scripts/ of a clone of MultimodalUniverse, see mmu_loaders.py")
    add("--python3", type=Path, default=ROOT / ".venv-datasets3/bin/python", metavar="PYTHON", help="with datasets 3.6")
    add("--folder", type=Path, metavar="DIR", help="for the trees, 4 GB (default: the system's for temporary files)")
    add("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        print(json.dumps(call(*json.loads(options.call))))
        return
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 3.0)
    from benchmarks.measure import machine

    versions = f"datasets {importlib.metadata.version('datasets')}"
    print(f"{machine()}, {versions}; load {os.getloadavg()[1]:.1f}; {options.rounds} rounds")
    if reason := why_not(options):
        print(f"\nMultimodalUniverse's own scripts are left out: {reason}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for kind in options.only:
            if kind in TREES:
                speed(kind, folder, options)
        if "first" in options.only:
            first(folder, options)
        if {"index", "memory"} & set(options.only):
            index(folder, options)
    print(f"\nLoad at the end: {os.getloadavg()[1]:.1f}")


if __name__ == "__main__":
    main()
