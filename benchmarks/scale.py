"""A survey of 3,072 cells x 10 parts and 1e8 rows: planned, resumed, verified, listed, opened; and what a task costs.

    python benchmarks/scale.py                      # 30,720 files, 100 million rows: 5 GB, an hour, most of it to make them
    python benchmarks/scale.py --parts 1 --rows 10_000_000     # a tenth of it
    python benchmarks/scale.py --folder DIR         # keep the survey there, to measure again
    python benchmarks/scale.py --tasks              # only what a task costs: in this process, in processes, on Dask

What is real: every file is an HDF5 partition as builds write it, with positions inside its cell, unique ids, and the entry
in the manifest that ``describe_file`` would give; all that is measured are the functions that commands call. What is
simulated: there are no pixels (a row is 40 bytes, so that 1e8 rows fit on a disk), files are made of one template whose
columns are overwritten, all have the same number of rows, and the raw files of the plan do not exist. Every step runs in a
process of its own; seconds are of its CPU (user and system, which a busy machine changes little) and of the clock, memory is
what its peak grew by.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from skyset.builder import SurveyBuilder  # noqa: E402
from skyset.survey import HEALPIX, Column, Survey, plain_features  # noqa: E402

CELLS, PARTS, ROWS = 3072, 10, 100_000_000
COLUMNS = (
    Column("object_id", "S16", (), "", "name of the object"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS)"),
    Column("dec", "float64", (), "deg", "declination (ICRS)"),
    HEALPIX,
)
SURVEY = Survey("scale", "A survey of no pixels", "", "", "", "", COLUMNS, plain_features(COLUMNS, {}, ()))
#: Objects that are planned; the plan of more is extrapolated by the row.
PLANNED = 1_000_000


class Scale(SurveyBuilder):
    SURVEY = SURVEY


# --- The survey --------------------------------------------------------------------------------------------------------


def positions(cell: int, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of random places inside a cell of nside 16: centres of its subcells of nside 16,384."""
    from astropy_healpix import healpix_to_lonlat

    inside = rng.integers(0, 4**10, rows)
    lon, lat = healpix_to_lonlat((cell << 20) + inside, 2**14, order="nested")
    return lon.deg, lat.deg


def make(root: Path, cells: int, parts: int, rows: int) -> None:
    """The partitions and their manifest, unless they are there."""
    from skyset.partitions.layout import partition_path
    from skyset.partitions.manifest import FileEntry, Manifest, keys_digest
    from skyset.partitions.writer import PartitionWriter

    each = max(1, rows // (cells * parts))
    if (root / "manifest.json").exists():
        manifest = Manifest.load(root)
        if len(manifest.files) == cells * parts and manifest.rows == each * cells * parts:
            return
        raise SystemExit(f"{root} holds another survey: name another --folder")
    root.mkdir(parents=True, exist_ok=True)
    template = root / ".template.hdf5"
    with PartitionWriter(template, COLUMNS, each, {"survey": "scale", "healpix": 0}) as writer:
        for row in range(each):
            values = {"object_id": b"%016d" % row, "ra": 0.0, "dec": 0.0, "healpix": 0}
            writer.append({column.name: column.coerce(values[column.name]) for column in COLUMNS})
    rng, entries = np.random.default_rng(0), []
    for cell in range(cells):
        (root / f"healpix={cell}").mkdir(exist_ok=True)
        plain, offsets = of_cell(template, cell)
        for part in range(1, parts + 1):
            path = partition_path(cell, part, parts)
            ra, dec = positions(cell, each, rng)
            keys = names(len(entries) * each, each)
            for name, values in (("object_id", keys), ("ra", ra), ("dec", dec)):
                content = np.ascontiguousarray(values).tobytes()
                plain[offsets[name] : offsets[name] + len(content)] = content
            (root / path).write_bytes(plain)
            bounds = ((float(axis.min()), float(axis.max())) for axis in (ra, dec))
            digest, texts = hashlib.sha256(plain).hexdigest(), keys.astype(str).tolist()
            entries.append(FileEntry(path, "train", cell, each, len(plain), digest, keys_digest(texts), *bounds))
    template.unlink()
    build = {"command": ["benchmarks/scale.py"], "compression": "none", "versions": {}}
    Manifest("scale", list(COLUMNS), "object_id", sorted(entries, key=lambda e: e.path), ["simulated"], build).save(root)


def of_cell(template: Path, cell: int) -> tuple[bytearray, dict[str, int]]:
    """A partition of this cell, and where its columns begin."""
    import h5py

    with h5py.File(template, "r+") as file:
        file["healpix"][:] = cell
        file.attrs.modify("healpix", cell)
        offsets = {column.name: file[column.name].id.get_offset() for column in COLUMNS}
    return bytearray(template.read_bytes()), offsets


def names(first: int, rows: int) -> np.ndarray:
    """Numbers of 16 digits, ``S16`` (rows,)."""
    digits = np.arange(first, first + rows)[:, None] // 10 ** np.arange(15, -1, -1) % 10
    return (digits + ord("0")).astype(np.uint8).view("S16")[:, 0]


# --- The steps: each in a process of its own ---------------------------------------------------------------------------


def load_manifest(root: Path) -> str:
    from skyset.partitions.manifest import Manifest

    with measured():
        manifest = Manifest.load(root)
    size = (root / "manifest.json").stat().st_size
    return f"{size / 1e6:.1f} MB, {size / len(manifest.files):.0f} bytes a file"


def open_survey(root: Path) -> str:
    """From ``skyset.load`` to the first row."""
    import skyset
    from skyset.loading import registry

    registry.register_module(__file__)
    opened_before()
    with measured():
        row = next(iter(skyset.load("scale", data_dir=str(root))))
    return f"object_id {row['object_id']}"


def opened_before() -> None:
    """Another survey, of one file: what is imported on the way is not measured."""
    import skyset

    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "one"), 1, 1, 10)
        rows = skyset.load("scale", data_dir=str(Path(folder, "one")))
        next(iter(rows.shuffle(seed=1)))


def shuffled(root: Path) -> str:
    """The same, shuffled, without the opening."""
    import skyset
    from skyset.loading import registry

    registry.register_module(__file__)
    opened_before()
    rows = skyset.load("scale", data_dir=str(root))
    with measured():
        row = next(iter(rows.shuffle(seed=1)))
    return f"object_id {row['object_id']}"


def info(root: Path) -> str:
    """What ``skyset info --json`` finds out."""
    from skyset.explore.info import facts
    from skyset.partitions.manifest import Manifest

    with measured():
        found = facts(Manifest.load(root))
    return f"{len(json.dumps(found, default=str)):,} characters"


def listing(root: Path) -> str:
    """``skyset verify`` without the files' contents: what is there, what is listed, numbers, sizes."""
    from skyset.partitions import verify

    def look(root, manifest, survey, entries):
        wrong = [(root / each.path).stat().st_size != each.bytes for each in entries]
        return [(["size"] * bad, np.zeros(0, "<u8")) for bad in wrong]

    verify._look_at = look
    with measured():
        lines = list(verify.verify(root, SURVEY))
    assert lines == [], lines[:3]
    return "no difference"


def whole(root: Path) -> str:
    """All of ``skyset verify``, of every twentieth file: checksums, positions, keys."""
    from skyset.partitions.manifest import Manifest
    from skyset.partitions.verify import _verify_files

    manifest = Manifest.load(root)
    manifest.files = manifest.files[::20]
    with measured():
        lines = list(_verify_files(root, manifest, SURVEY, iter, 1, None))
    assert lines == [], lines[:3]
    return f"{manifest.rows:,} rows in {len(manifest.files):,} files"


def twice(root: Path) -> str:
    """Whether keys come twice among all rows of the survey: of their digests, drawn at random here."""
    from skyset.partitions.manifest import Manifest
    from skyset.partitions.twice import Digests

    rng, manifest = np.random.default_rng(0), Manifest.load(root)
    with measured(), Digests() as keys:
        for number, entry in enumerate(manifest.files):
            keys.add(number, rng.integers(0, 2**64, entry.rows, np.uint64))
        common, files = keys.twice()
    return f"{manifest.rows:,} rows, {len(common)} digests several times, in {len(files)} files"


def options_of(root: Path):
    from skyset.building.options import Options

    names = {field.name for field in dataclasses.fields(Options)}
    wanted = {"output_dir": root, "local_data_path": root, "num_processes": 1, "compression": "none"}
    return Options(**{name: value for name, value in wanted.items() if name in names})


def resume(root: Path) -> str:
    """A build that is there already: the manifest is read, every file looked at."""
    from skyset.building.folder import BuildFolder

    with measured(), BuildFolder(root, SURVEY, options_of(root)) as folder:
        left = folder.plan_files(dict.fromkeys(folder.entries, ""))
        over = len(folder.entries)
    assert left == []
    return f"{over:,} files are there"


def resume_killed(root: Path) -> str:
    """The same of a build that was killed before it wrote its manifest: all stands in the journal."""
    from skyset.building.folder import BuildFolder
    from skyset.partitions.manifest import Manifest

    manifest, text = Manifest.load(root), (root / "manifest.json").read_bytes()
    (root / "manifest.json").unlink()
    try:
        with open(root / "journal.jsonl", "w") as journal:
            for entry in manifest.files:
                status = (root / entry.path).stat()
                stamp = status.st_mtime_ns, status.st_ctime_ns
                line = {"compression": "none", "entry": dataclasses.asdict(entry), "stamp": stamp}
                journal.write("\n" + json.dumps(line))
        with measured(), BuildFolder(root, SURVEY, options_of(root)) as folder:
            left = folder.plan_files(dict.fromkeys(folder.entries, ""))
            there = len(folder.entries)
        assert left == [] and there == len(manifest.files)
    finally:
        (root / "journal.jsonl").unlink(missing_ok=True)
        (root / "manifest.json").write_bytes(text)
    return f"{there:,} lines of the journal"


def plan(root: Path) -> str:
    """A list of objects cut into partitions that are all to be written: ``PLANNED`` of them."""
    from skyset.building.folder import BuildFolder
    from skyset.building.task import Item

    rng = np.random.default_rng(0)
    cells = rng.integers(0, CELLS, PLANNED).tolist()
    with tempfile.TemporaryDirectory(dir=root.parent) as empty, measured():
        items = [Item(f"{n:016d}", f"images/{n:016d}.fits", cell) for n, cell in enumerate(cells)]
        with BuildFolder(Path(empty) / "new", SURVEY, options_of(Path(empty) / "new")) as folder:
            tasks = folder.plan(items, dict)
    return f"{len(tasks):,} tasks of {PLANNED:,} objects"


STEPS: dict[str, Callable[[Path], str]] = {
    "manifest: read": load_manifest,
    "open: `skyset.load` and the first row": open_survey,
    "first row, shuffled (opened before)": shuffled,
    "list: `skyset info`": info,
    "plan 1e6 objects": plan,
    "resume: all files are there": resume,
    "resume: killed before the manifest": resume_killed,
    "verify: listing (names, numbers, sizes)": listing,
    "verify: 1/20 of the files, all bytes": whole,
    "verify: keys that come twice, of all rows": twice,
}

_RESULT: dict[str, float] = {}


@contextlib.contextmanager
def measured() -> Iterator[None]:
    """Seconds of the block, and what memory grew by at its peak."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    before, clock, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    yield
    _RESULT.update(cpu=time.process_time() - cpu, clock=time.perf_counter() - clock, mb=memory("VmHWM") - before)


def memory(what: str) -> float:
    """MB of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024 / 1e6


def step(name: str, root: Path) -> dict:
    """Run one in a process of its own."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# --- What a task costs -------------------------------------------------------------------------------------------------


def nothing(task) -> int:
    """A task that has its partition's whole description, and does nothing."""
    return len(task.items)


def task_of(objects: int):
    from skyset.building.task import Item, Task

    items = tuple(Item(f"{n:016d}", f"images/{n:016d}.fits", 7) for n in range(objects))
    files = tuple(Path("/data/raw", item.file) for item in items)
    return Task(Path("/data/scale"), "healpix=7/001-of-001.hdf5", "train", 7, items, files, (), SURVEY, dict, "none")


def tasks(count: int, workers: int) -> list[list]:
    """What a task costs, and what memory grows by between a tenth of the tasks and all; here, and in Dask's scheduler."""
    from skyset.runner import executor, in_order

    rows = []
    task = task_of(100)
    ways: list[tuple[str, contextlib.AbstractContextManager]] = [
        ("in this process", contextlib.nullcontext((1, None, os.getpid()))),
        (f"{workers} processes", contextlib.nullcontext((workers, None, os.getpid()))),
        (f"Dask, {workers} workers (loopback)", dask_cluster(workers)),
    ]
    for name, opened in ways:
        with opened as (processes, address, scheduler), executor(processes, address) as pool:
            for _ in in_order(pool, nothing, (task for _ in range(50))):
                pass
            clock, sizes, cpu = time.perf_counter(), [], [cpu_of(os.getpid()), cpu_of(scheduler)]
            for number, _ in enumerate(in_order(pool, nothing, (task for _ in range(count)))):
                if number in (count // 10, count - 1):
                    sizes.append((resident(os.getpid()), resident(scheduler)))
            clock = time.perf_counter() - clock
            cpu = [cpu_of(pid) - before for pid, before in zip((os.getpid(), scheduler), cpu, strict=True)]
        grown = [(after - before) / 1e6 for before, after in zip(*sizes, strict=True)]
        each = [1000 * seconds / count for seconds in (clock, *cpu)]
        there = [f"{each[2]:.2f}", f"{grown[1]:.1f}"] if address else ["", ""]
        rows.append([name, f"{each[0]:.2f}", f"{each[1]:.2f}", f"{grown[0]:.1f}", *there])
    return rows


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@contextlib.contextmanager
def dask_cluster(workers: int) -> Iterator[tuple[int, str, int]]:
    """A scheduler in a process of its own, so that its memory is seen apart, and workers."""
    run, env = [sys.executable, "-m", "distributed.cli"], {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "scheduler.json")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
        first = [*run[:2], "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        scheduler = subprocess.Popen([*first, "--scheduler-file", str(said)], **quiet)
        while not said.exists() or not said.read_text().endswith("}"):
            time.sleep(0.1)
        address = json.loads(said.read_text())["address"]
        more = ["--nworkers", str(workers), "--nthreads", "1", "--no-dashboard", "--local-directory", folder]
        started = subprocess.Popen([*run[:2], "distributed.cli.dask_worker", address, *more], **quiet)
        try:
            yield 1, address, scheduler.pid
        finally:
            for process in (started, scheduler):
                process.terminate()
                process.wait(30)


def resident(pid: int) -> int:
    import psutil

    return psutil.Process(pid).memory_info().rss


# --- The tables --------------------------------------------------------------------------------------------------------


def main() -> None:
    number = lambda text: int(text.replace("_", ""))  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the survey lies, and stays (default: a temporary one)")
    parser.add_argument("--cells", type=number, default=CELLS)
    parser.add_argument("--parts", type=number, default=PARTS, help="files in each cell")
    parser.add_argument("--rows", type=number, default=ROWS)
    parser.add_argument("--tasks", action="store_true", help="only what a task costs")
    parser.add_argument("--count", type=number, default=10_000, help="of the tasks")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        _RESULT["note"] = STEPS[asked.step](asked.folder)
        print(json.dumps(_RESULT))
        return
    from benchmarks.measure import machine

    print(f"{machine()}, load {os.getloadavg()[0]:.1f}\n")
    if not asked.tasks:
        with contextlib.ExitStack() as stack:
            folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            survey_table(folder / "scale", asked.cells, asked.parts, asked.rows)
    print("| tasks | clock, ms | CPU here, ms | MB more here | CPU of the scheduler, ms | MB more there |")
    print("|---|---|---|---|---|---|")
    for row in tasks(asked.count, 2):
        print(f"| {' | '.join(row)} |", flush=True)


def survey_table(root: Path, cells: int, parts: int, rows: int) -> None:
    """Each step of the survey and of a quarter of its cells, which tells how it grows."""
    few = root.with_name(f"{root.name}_quarter")
    clock = time.perf_counter()
    make(few, cells // 4, parts, rows // 4)
    make(root, cells, parts, rows)
    seconds = time.perf_counter() - clock
    print(f"made, or there, in {seconds:.0f} s: {cells * parts:,} files, {rows:,} rows\n", file=sys.stderr)
    print("| step | CPU s | clock s | peak MB | CPU s, MB of a quarter | |\n|---|---|---|---|---|---|")
    for name in STEPS:
        found, less = step(name, root), step(name, few)
        quarter = f"{less['cpu']:.2f}, {less['mb']:.0f}"
        print(
            f"| {name} | {found['cpu']:.2f} | {found['clock']:.2f} | {found['mb']:.0f} | {quarter} | {found['note']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
