"""How fast do rows come from a server that is 30 ms away, on a line of 1 Gbit/s, and how soon the first one?

    python benchmarks/remote.py                                       # 400 MB of each kind, 3 rounds, about ten minutes
    python benchmarks/remote.py --peers /tmp/peers/bin/python         # a Python with litdata, mosaicml-streaming, webdataset
    python benchmarks/remote.py --local                               # the same formats from the disk

The server is a process of its own on 127.0.0.1. Every new connection waits for the latency, every request too, and all
bodies share one line. A measurement is a process with everything imported, and for `datasets` a row read from the disk; ways
take turns within a round, and a table gives medians. Peers that are not installed are named below it.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import peers  # noqa: E402
from benchmarks.measure import machine  # noqa: E402
from benchmarks.streaming import KINDS, ROWS_A_FILE, make_data, ours, pixels  # noqa: E402

PATIENCE = 300
OURS = {
    "rows": "**skyset** rows",
    "shuffled": "**skyset** rows, shuffled",
    "filling": "**skyset** rows, `cache_limit`, first pass",
    "filled": "**skyset** rows, `cache_limit`, second pass",
}
THEIRS = {
    "hdf5": "stock `datasets`, the same HDF5 through fsspec",
    "parquet": "stock `datasets`, Parquet of raw bytes through fsspec",
    "litdata": "litdata, chunks of 64 MB (S3)",
    "mds": "mosaicml-streaming, shards of 64 MB (S3)",
    "webdataset": "webdataset, tars of 64 MB (curl)",
}


def serve(folder: str, latency: float, rate: float | None, pipe) -> None:
    """Answer until told to end; each word is answered with what was asked for since the last one."""
    from skyset.testing.server import ArchiveServer

    with ArchiveServer(folder, latency) as server:
        server.connecting, server.rate = latency, rate
        pipe.send(server.url)
        while pipe.recv():
            pipe.send({"requests": len(server.requests), "sent": server.body_bytes, "connections": server.connections})
            server.clear()


def our_rows(where: str, kind: str, way: str, cache: str) -> Iterator[list[np.ndarray]]:
    options = {"cache_dir": cache, "cache_limit": "100GB"} if way.startswith("fill") else {}
    stream = ours(where, kind, **options)
    for row in stream.shuffle(seed=0) if way == "shuffled" else stream:
        yield pixels(row)


def run(command: list[str]) -> dict:
    """The numbers that a process prints last; NaN with a reason where it fails."""
    failed = dict.fromkeys(("first", "seconds", "rows", "cpu"), math.nan)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return failed | {"why": f"not done after {PATIENCE} s"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines() or ["?"]
        return failed | {"why": lines[-1][:150]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def written(data: Path, folder: Path, python: str) -> dict[str, str]:
    """Write the peers' formats; why one could not be, by its name."""
    problems = {}
    for name in peers.NAMES[1:]:
        print(f"  writing {name}", file=sys.stderr)
        done = run([python, str(ROOT / "benchmarks/peers.py"), "write", name, str(data), str(folder / name)])
        if "why" in done:
            problems[name] = done["why"]
        else:
            files = sorted(path.name for path in (folder / name).iterdir())
            (folder / name / "files.json").write_text(json.dumps(files))
    files = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.hdf5"))
    (data / "files.json").write_text(json.dumps(files))
    return problems


def measured(way: str, kind: str, where: str, python: str, folder: Path) -> dict:
    name, scratch = "partitions" if way in OURS or way == "hdf5" else way, folder / "scratch"
    if way in OURS:
        return run(
            [sys.executable, __file__, "--call", f"{where}/{name}", kind, way, str(scratch / "ours"), str(folder / name)]
        )
    command = [python, str(ROOT / "benchmarks/peers.py"), "read", way, f"{where}/{name}", str(scratch / way)]
    return run([*command, str(folder / name)])


def table(kind: str, arguments: argparse.Namespace, folder: Path) -> None:
    row_bytes = {"gz3d": 525 * 525 * 7, "galaxiesml": 5 * 64 * 64 * 4}[kind]
    files = max(2, round(arguments.megabytes * 1e6 / row_bytes / ROWS_A_FILE[kind]))
    (folder / "partitions").mkdir(parents=True)
    make_data(folder / "partitions", kind, files, ROWS_A_FILE[kind])
    problems = written(folder / "partitions", folder, arguments.peers)
    ways = [way for way in (*OURS, *THEIRS) if way not in problems and not (arguments.local and way.startswith("fill"))]
    here, there = multiprocessing.Pipe()
    latency, rate = (0.0, None) if arguments.local else (arguments.latency / 1000, arguments.gigabits * 1e9 / 8)
    server = multiprocessing.get_context("fork").Process(target=serve, args=(str(folder), latency, rate, there))
    server.start()
    where = str(folder) if arguments.local else here.recv().rstrip("/")
    found: dict[str, list[dict]] = {way: [] for way in ways}
    for number in range(arguments.rounds):
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        for way in ways:
            result = measured(way, kind, where, arguments.peers, folder)
            here.send(1)
            asked = here.recv()
            if isinstance(asked, str):  # the address that nobody wanted
                asked = here.recv()
            found[way].append(result | asked)
            said = result.get("why", f"{result['seconds']:.1f} s")
            print(f"  round {number + 1}/{arguments.rounds}: {way}: {said}", file=sys.stderr)
    here.send(0)
    server.join()
    show(kind, found, problems, rate, row_bytes, arguments)


def show(kind: str, found: dict[str, list[dict]], problems: dict, rate: float | None, row_bytes: int, arguments) -> None:
    far = not arguments.local
    line = f"{arguments.latency:g} ms, {arguments.gigabits:g} Gbit/s" if far else "from the page cache"
    print(f"\n### {KINDS[kind][0]}, {line}\n\n{machine()}; load {os.getloadavg()[0]:.0f}; {arguments.rounds} rounds\n")
    more = " | of the line | first row, s | requests | bytes to pixels" if far else " | first row, s"
    print(f"| way of iterating | MB/s{more} | CPU, s |\n|---{'|---' * (2 + more.count('|'))}|")
    for way, runs in found.items():
        speed = statistics.median(each["rows"] * row_bytes / each["seconds"] / 1e6 for each in runs)
        first, cpu = (statistics.median(each[name] for each in runs) for name in ("first", "cpu"))
        cells = [f"{speed:.0f}"]
        if rate:
            sent = statistics.median(each["sent"] / each["rows"] / row_bytes for each in runs)
            cells += [f"{speed * 1e6 / rate:.2f}", f"{first:.2f}", f"{statistics.median(e['requests'] for e in runs):.0f}"]
            cells += [f"{sent:.2f}"]
        else:
            cells += [f"{first:.2f}"]
        print(f"| {(OURS | THEIRS)[way]} | {' | '.join([*cells, f'{cpu:.1f}'])} |")
        if why := next((each["why"] for each in runs if "why" in each), None):
            problems = problems | {way: why}
    for name, why in problems.items():
        print(f"\n- {THEIRS.get(name, name)}: not measured: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=400, help="of pixels, of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--latency", type=float, default=30, help="ms")
    parser.add_argument("--gigabits", type=float, default=1, help="a second")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="that has the peers' packages")
    parser.add_argument("--local", action="store_true", help="read from the disk, without server")
    parser.add_argument("--call", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        where, kind, way, cache, near = arguments.call
        next(our_rows(near, kind, "rows", cache))
        import requests  # noqa: F401

        from skyset import cached_file, remote  # noqa: F401

        print(json.dumps(peers.measure(our_rows(where, kind, way, cache), time.perf_counter())))
        return
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            table(kind, arguments, Path(folder))


if __name__ == "__main__":
    main()
