"""How fast is a self-organising map of a catalogue trained, how well does it describe it, and how much memory does it take?

    python benchmarks/som.py                       # 3,000,000 sources x 6 features, 4 x 5 groups, 5 rounds, 5 minutes
    python benchmarks/som.py --rounds 1 --rows 300000

The floor: the passes over the data that training makes, each of which does nothing but copy them. The peer: MiniSom with its
own defaults and PCA start, each row once in random order (``train``, then ``activation_response`` for the hits), and with
100,000 drawn from them only. It gets what skyset makes for itself from the catalogue: logarithms, standardised, in float64;
that is not timed.

Each way runs in a process of its own, in turn in one run, on one thread, and times its training and hits alone, in CPU
seconds, without start-up, reading and compiling. The slow ones run once, after the rounds. Errors are those of all rows,
computed for all ways by the same lines below. The memory is what a process has at its peak more than before it trains, when
it has imported, read its input and trained a small map: its input is not in it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NAMES = ("ISO0", "ELONGATION", "ELLIPTICITY", "CLASS_STAR", "BACKGROUND", "EXPTIME")
LOG = ("ISO0", "ELONGATION", "BACKGROUND", "EXPTIME")
ROWS, COLUMNS, EPOCHS = 4, 5, 20
CCDS = 36
#: Rows that the judge, and a reader of Parquet, take at a time.
CHUNK = 1 << 16


def make_catalogue(folder: Path, rows: int) -> Path:
    """Stars and galaxies of CCDs with 4,000 sources each, as raw.npy, raw.parquet and, for the peer, scaled.npy."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    ccd = np.arange(rows) // 4000
    exposures = ccd[-1] // CCDS + 1
    star = rng.random(rows) < 0.35
    ellipticity = np.where(star, rng.beta(1.5, 25, rows), rng.beta(2, 5, rows))
    sky = rng.lognormal(6.5, 0.6, exposures)[ccd // CCDS] * rng.normal(1, 0.02, ccd[-1] + 1)[ccd]
    raw = np.empty((rows, len(NAMES)), np.float32)
    raw[:, 0] = 5 + np.where(star, rng.lognormal(3.2, 0.9, rows), rng.lognormal(3.6, 0.8, rows))
    raw[:, 1], raw[:, 2] = 1 / (1 - ellipticity), ellipticity
    raw[:, 3] = np.where(star, rng.beta(8, 1, rows), rng.beta(1, 5, rows))
    raw[:, 4] = sky * rng.normal(1, 0.01, rows)
    raw[:, 5] = rng.choice([30.0, 60.0, 120.0, 300.0, 600.0], exposures)[ccd // CCDS]
    folder.mkdir()
    np.save(folder / "raw.npy", raw)
    parquet.write_table(pa.table(dict(zip(NAMES, raw.T, strict=True))), folder / "raw.parquet")
    logs = _logs(raw)
    np.save(folder / "moments.npy", [logs.mean(0), logs.std(0)])
    np.save(folder / "scaled.npy", (logs - logs.mean(0)) / logs.std(0))
    return folder


def _logs(values: np.ndarray) -> np.ndarray:
    result = values.astype(np.float64)
    for name in LOG:
        result[:, NAMES.index(name)] = np.log10(result[:, NAMES.index(name)])
    return result


def way_floor(folder: Path):
    raw, block = np.load(folder / "raw.npy"), np.empty((8192, len(NAMES)))

    def copy() -> None:
        for _ in range(EPOCHS + 2):
            for start in range(0, len(raw), len(block)):
                part = raw[start : start + len(block)]
                block[: len(part)] = part

    return copy


def way_skyset(folder: Path, device: str | None = None):
    from skyset.extraction.som import SOM

    raw = np.load(folder / "raw.npy")
    som = SOM(ROWS, COLUMNS, features=NAMES, log=LOG, epochs=EPOCHS, device=device)
    som.fit(raw[:20_000])

    def train() -> np.ndarray:
        return som.fit(raw).centres()  # it has counted the hits

    return train


def way_parquet(folder: Path):
    from pyarrow.parquet import ParquetFile

    from skyset.extraction.som import SOM

    som = SOM(ROWS, COLUMNS, features=NAMES, log=LOG, epochs=EPOCHS)

    def source():
        return ParquetFile(folder / "raw.parquet").iter_batches(CHUNK, use_threads=False)

    som.fit(lambda: [next(source())])
    return lambda: som.fit(source).centres()


def way_torch(folder: Path):
    import torch

    torch.set_num_threads(1)
    return way_skyset(folder, "cpu")


def way_minisom(folder: Path, drawn: int | None = None):
    from minisom import MiniSom

    scaled = np.load(folder / "scaled.npy")
    if drawn is not None:
        scaled = scaled[np.random.default_rng(0).integers(0, len(scaled), drawn)]
    som = MiniSom(ROWS, COLUMNS, len(NAMES), random_seed=0)

    def train() -> np.ndarray:
        som.pca_weights_init(scaled)
        som.train(scaled, len(scaled), random_order=True)
        if drawn is None:
            som.activation_response(scaled)
        return som.get_weights().reshape(-1, len(NAMES))

    return train


def way_minisom_few(folder: Path):
    return way_minisom(folder, 100_000)


#: What each way's process runs, by its name in the table; those in the second run once.
WAYS = {
    "floor: copy the data 22 times": way_floor,
    "**skyset**, array": way_skyset,
    "**skyset**, batches of a Parquet file": way_parquet,
    "MiniSom, 100,000 rows drawn, no hits": way_minisom_few,
}
SLOW = {"**skyset**, torch on the same core": way_torch, "MiniSom, each row once, hits": way_minisom}
#: Their centres are in the features' own units, MiniSom's scaled.
OURS = tuple(name for name in (*WAYS, *SLOW) if "skyset" in name)


def work(way: str, folder: Path) -> None:
    """One measurement, appended to the folder's file of results; the map's centres beside it."""
    import psutil

    train = (WAYS | SLOW)[way](folder)
    before = psutil.Process().memory_info().rss
    start = time.process_time()
    centres = train()
    seconds = time.process_time() - start
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    grown = int(peak[1]) * 1024 - before
    with open(folder / "results.jsonl", "a") as file:
        file.write(json.dumps({"way": way, "seconds": seconds, "grown": grown}) + "\n")
    if centres is not None:
        np.save(folder / f"{list(WAYS | SLOW).index(way)}.npy", centres)


def judge(folder: Path, way: str) -> tuple[float, float]:
    """Quantisation and topographic error over all rows, in float64, of the centres that the way left."""
    centres = np.load(folder / f"{list(WAYS | SLOW).index(way)}.npy")
    if way in OURS:
        mean, spread = np.load(folder / "moments.npy")
        centres = (_logs(centres) - mean) / spread
    scaled = np.load(folder / "scaled.npy", mmap_mode="r")
    total, far = 0.0, 0
    for start in range(0, len(scaled), CHUNK):
        squares = ((scaled[start : start + CHUNK, None] - centres[None]) ** 2).sum(2)
        two = np.argpartition(squares, 1, axis=1)[:, :2]
        total += np.sqrt(squares.min(1)).sum()
        far += np.count_nonzero(np.abs(np.diff(np.divmod(two, COLUMNS), axis=2)).max(0) > 1)
    return total / len(scaled), far / len(scaled)


def table(rounds: int = 5, rows: int = 3_000_000) -> list[str]:
    """The measured table's lines, in Markdown, with a line on the machine above."""
    from benchmarks.measure import Series, interleave, machine, run

    have = importlib.util.find_spec("minisom") is not None
    ways, slow = ([name for name in group if have or "MiniSom" not in name] for group in (WAYS, SLOW))
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_catalogue(Path(temporary) / "som", rows)
        series = interleave({name: lambda name=name: _command(name, folder) for name in ways}, rounds)
        for name in slow:
            series[name] = Series()
            run(_command(name, folder), series[name])
        results = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        seconds, grown = {}, {}
        for name in series:
            mine = [each for each in results if each["way"] == name]
            counted = mine[1:] if name in ways else mine  # the first of the rounds warms up
            seconds[name] = [each["seconds"] for each in counted]
            grown[name] = max(each["grown"] for each in counted) / 1e6
        errors = {name: judge(folder, name) for name in series if not name.startswith("floor")}
    first = f"{machine()}; {rows:,} x {len(NAMES)}, {ROWS} x {COLUMNS} groups, {rounds} rounds"
    lines = [first + ("" if have else "; MiniSom is not installed"), ""]
    lines += ["| way | runs | CPU s | to skyset's | quantisation error | topographic error | memory grows by, MB |"]
    lines += ["|---|---|---|---|---|---|---|"]
    ours = statistics.median(seconds["**skyset**, array"])
    for name in series:
        median = statistics.median(seconds[name])
        error = "{:.4f} | {:.3f}".format(*errors[name]) if name in errors else " | "
        count = len(seconds[name])
        lines.append(f"| {name} | {count} | {median:.2f} | {median / ours:.2f} | {error} | {grown[name]:.0f} |")
    return lines


def _command(way: str, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--work", way, str(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=2, metavar=("WAY", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work[0], Path(arguments.work[1]))
        return
    print("\n".join(table(arguments.rounds, arguments.rows)))


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    main()
