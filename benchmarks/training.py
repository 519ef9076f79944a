"""How fast do shuffled batches of images, magnitudes and redshifts reach a network: our ways, the stock one, a peer's?

    python benchmarks/training.py                          # 4,096 galaxies (340 MB), 5 rounds, some minutes
    python benchmarks/training.py --rounds 1 --files 2

Rows are in the shape of GalaxiesML: five 64 x 64 float32 images and sixty numbers. Each way hands out batches of 64 as
float32 on the CPU and reads what a training reads: images, five magnitudes, one label; the order differs from epoch to epoch
where nothing else is said. Each measurement is a process of its own with a warm page cache, for a few seconds after the
first batch; ways take turns within a round, the ratios are the medians of the rounds' ratios. CPU is of the process and its
workers.

- resident: `--resident` of the trainings, the split as float16 in memory, cut by row numbers;
- map: `Rows` over the Arrow copy that `load_dataset` makes, 2 loader workers: how trainings read by default;
- stream: the partitions themselves, shuffled, 2 loader workers;
- floor: one row after another of raw h5py slabs, in the order of the files, no shuffling;
- stock `datasets`: its hdf5 module streamed, a buffer of 1,000 rows, 2 loader workers;
- the published example: GalaxiesML's own generator, which opens its HDF5 file anew for each array of a batch, batches in
  order, as its authors do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import machine  # noqa: E402
from benchmarks.streaming import _Peak, make_data, ours, stock, warm_up  # noqa: E402

BATCH, WORKERS, ROWS_A_FILE = 64, 2, 512
MAGNITUDES = [f"{band}_mag" for band in "grizy"]
LABEL = "g_petro_rad"
READ = ["image", *MAGNITUDES, LABEL]
KIND = "galaxiesml"


def table(folder: Path):
    """The survey as `datasets` copies it into Arrow, once."""
    return ours(folder, KIND, None, streaming=False, cache_dir=str(folder / "cache")).select_columns(READ)


def small(rows) -> dict:
    """Magnitudes and labels of all rows, as tensors."""
    import torch

    columns = rows.select_columns([*MAGNITUDES, LABEL]).with_format("numpy")[:]
    magnitudes = np.stack([columns[name] for name in MAGNITUDES], 1)
    return {"photometry": torch.from_numpy(magnitudes), "labels": torch.from_numpy(columns[LABEL])}


def batches_of(dataset, workers: int) -> Iterator:
    """Epoch after epoch as a training draws them."""
    from skyset.training.common.batches import EpochBatches, EpochLoader
    from skyset.training.common.resident import collate

    loader = EpochLoader(
        dataset,
        batch_sampler=EpochBatches(len(dataset), BATCH, seed=0),
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def resident(folder: Path) -> Iterator:
    import torch

    from skyset.training.common.photoz_data import to_half
    from skyset.training.common.resident import Resident, fill

    rows = table(folder)
    images = rows.select_columns(["image"]).with_format("numpy")
    halves = (to_half(torch.from_numpy(batch["image"])) for batch in images.iter(256))
    held = fill(len(rows), (5, 64, 64), halves, torch.float16, "cpu", "images")
    for batch in batches_of(Resident({"pixel_values": held, **small(rows)}), 0):
        yield {**batch, "pixel_values": batch["pixel_values"].float()}


def mapped(folder: Path) -> Iterator:
    import torch

    from skyset.training.common.images import Rows

    rows = table(folder)
    read = {"pixel_values": ("image", lambda image: torch.from_numpy(np.array(image, np.float32)))}
    return batches_of(Rows(rows, read, small(rows)), WORKERS)


def streamed(folder: Path) -> Iterator:
    from torch.utils.data import DataLoader

    stream = ours(folder, KIND, "torch").select_columns(READ).shuffle(seed=0)
    epoch = 0
    while True:
        stream.set_epoch(epoch)
        yield from DataLoader(stream, batch_size=BATCH, num_workers=WORKERS)
        epoch += 1


def floor(folder: Path) -> Iterator:
    import h5py
    import torch

    while True:
        for path in sorted(folder.glob("healpix=*/*.hdf5")):
            with h5py.File(path) as file:
                for start in range(0, len(file[LABEL]), BATCH):
                    yield {name: torch.from_numpy(file[name][start : start + BATCH]) for name in READ}


def stock_stream(folder: Path) -> Iterator:
    from torch.utils.data import DataLoader

    stream = stock(folder, "torch").select_columns(READ).shuffle(seed=0, buffer_size=1000)
    while True:
        yield from DataLoader(stream, batch_size=BATCH, num_workers=WORKERS)


def published_example(folder: Path) -> Iterator:
    import h5py
    import torch

    path = folder / "published" / "one.hdf5"
    with h5py.File(path) as file:
        count = len(file[LABEL])
    while True:
        for start in range(0, count - BATCH + 1, BATCH):
            found = {}
            for name in READ:
                with h5py.File(path) as file:
                    found[name] = torch.from_numpy(file[name][start : start + BATCH])
            yield found


WAYS: dict[str, Callable[[Path], Iterator]] = {
    "floor: raw h5py, in order": floor,
    "**skyset** resident, fp16": resident,
    "**skyset** map, 2 workers": mapped,
    "**skyset** stream, 2 workers": streamed,
    "stock `datasets`, hdf5 streamed, 2 workers": stock_stream,
    "GalaxiesML's published example": published_example,
}


def make(folder: Path, files: int) -> None:
    """The partitions, their Arrow copy, and the same rows in one HDF5 file."""
    import h5py

    make_data(folder, KIND, files, ROWS_A_FILE)
    rows = table(folder)
    (folder / "published").mkdir()
    with h5py.File(folder / "published" / "one.hdf5", "w") as file:
        for name in READ:
            file.create_dataset(name, (len(rows), *((5, 64, 64) if name == "image" else ())), np.float32)
        for start in range(0, len(rows), 512):
            for name, values in rows.with_format("numpy")[start : start + 512].items():
                file[name][start : start + len(values)] = values


def measure(way: str, folder: Path, seconds: float) -> dict:
    """Rows a second, seconds to the first batch, CPU seconds for 1,000 rows, and growth in memory."""
    import datasets  # noqa: F401
    import psutil

    import skyset.training.common.photoz_data  # noqa: F401

    me = psutil.Process()
    base, peak = me.memory_info().rss, _Peak(me)
    warm_up(folder)
    start = time.perf_counter()
    batches = WAYS[way](folder)
    next(batches)
    first, cpu, rows = time.perf_counter(), _all_cpu(me), 0
    for batch in batches:
        images = batch.get("pixel_values", batch.get("image"))
        assert images.shape[1:] == (5, 64, 64) and str(images.dtype) == "torch.float32", images.shape
        rows += len(images)
        if time.perf_counter() - first > seconds:
            break
    elapsed, cpu = time.perf_counter() - first, _all_cpu(me) - cpu
    peak.stop()
    return {"rate": rows / elapsed, "first": first - start, "cpu": 1000 * cpu / rows, "memory": peak.bytes - base}


def _all_cpu(process) -> float:
    """Of the process and the workers it has now."""
    own = process.cpu_times()
    each = [own.user + own.system, own.children_user + own.children_system]
    for child in process.children(recursive=True):
        times = child.cpu_times()
        each.append(times.user + times.system)
    return sum(each)


def in_a_process(way: str, folder: Path, seconds: float) -> dict:
    command = [sys.executable, __file__, "--call", json.dumps([way, str(folder), seconds])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(results: dict[str, list[dict]], rows: int, rounds: int) -> None:
    """The table."""
    print(f"\n{machine()}; {rows:,} galaxies, batches of {BATCH}, {rounds} rounds\n")
    print("| way of reading | rows/s | to the stock loader | CPU s for 1,000 rows | first batch, s | memory, MB |")
    print("|---|---|---|---|---|---|")
    other = results["stock `datasets`, hdf5 streamed, 2 workers"]
    for way, found in results.items():
        ratio = sorted(one["rate"] / two["rate"] for one, two in zip(found, other, strict=True))
        middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
        print(
            f"| {way} | {middle['rate']:.0f} | {statistics.median(ratio):.1f} ({ratio[0]:.1f} to {ratio[-1]:.1f}) | "
            f"{middle['cpu']:.2f} | {middle['first']:.2f} | {middle['memory'] / 1e6:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=8, help=f"of {ROWS_A_FILE} rows (default: 8)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="that each way is measured in a round (default: 4)")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        way, folder, seconds = json.loads(arguments.call)
        print(json.dumps(measure(way, Path(folder), float(seconds))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder, arguments.files)
        results: dict[str, list[dict]] = {way: [] for way in WAYS}
        for number in range(arguments.rounds):
            for way in WAYS:
                results[way].append(in_a_process(way, folder, arguments.seconds))
                print(f"  round {number + 1}/{arguments.rounds}: {way}: {results[way][-1]['rate']:.0f}/s", file=sys.stderr)
        show(results, arguments.files * ROWS_A_FILE, arguments.rounds)


if __name__ == "__main__":
    main()
