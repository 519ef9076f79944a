"""What does a push to the Hub cost: seconds, CPU, memory; what does a second one send after a row in a hundred changed?

    python benchmarks/publish.py                        # 400 MB in the shape of GalaxiesML, 3 rounds, about 10 minutes
    python benchmarks/publish.py --cells 8 --rounds 1

All ways push to a loopback Hub, which answers from its own process, by LFS (``HF_HUB_DISABLE_XET``): the network is no
limit, and the table shows what each way costs the machine that pushes. With Xet, as on the real Hub, a changed file sends
its changed pieces alone: those are counted by the chunks that Parquet's content-defined pages share.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ROWS = 100  # a cell
TOKEN = "hf_benchmark0123"


def make(folder: Path, cells: int, changed: bool = False) -> None:
    """Partitions in the shape of GalaxiesML, of smooth galaxies with noise; ``changed``: one row in a hundred is another."""
    import skyset
    from benchmarks.galaxiesml_like import SURVEY
    from skyset.partitions.layout import partition_path
    from skyset.partitions.manifest import Manifest, describe_file
    from skyset.partitions.writer import PartitionWriter
    from skyset.sky import healpix_cell

    skyset.register("galaxiesml_like", "benchmarks.galaxiesml_like")
    entries, spot = [], np.hypot(*np.mgrid[-32:32, -32:32])
    for cell in range(cells):
        random = np.random.default_rng(cell)
        ra, dec = _inside(cell)
        path = partition_path(cell)
        with PartitionWriter(folder / path, SURVEY.columns, ROWS) as writer:
            for row in range(ROWS):
                values = random.normal(size=60).astype(np.float32)
                noise = random.normal(scale=0.02, size=(5, 64, 64))
                if changed and row == cell % ROWS:
                    values += 1
                image = (np.exp(-spot / (2 + values[:5, None, None] ** 2)) + noise).astype(np.float32)
                numbers = dict(zip((column.name for column in SURVEY.columns[5:]), values, strict=True))
                record = {"object_id": f"{cell}-{row}".encode(), "ra": ra, "dec": dec, "healpix": cell, "image": image}
                writer.append({**record, **numbers})
        entries.append(describe_file(folder, path, SURVEY, "train"))
    assert healpix_cell(np.array([ra]), np.array([dec]), 16)[0] == cells - 1
    Manifest(SURVEY.name, list(SURVEY.columns), SURVEY.key, entries).save(folder)


def _inside(cell: int) -> tuple[float, float]:
    from astropy_healpix import healpix_to_lonlat

    ra, dec = healpix_to_lonlat(cell, 16, order="nested")
    return float(ra.to_value("deg")), float(dec.to_value("deg"))


# --- the ways, each a process of its own ---------------------------------------------------------------------


def skyset_push(folder: str, name: str, work: str, processes: str) -> None:
    import skyset
    from skyset.publishing.contents import Form
    from skyset.publishing.plan import planned
    from skyset.publishing.push import push
    from skyset.publishing.request import Request

    skyset.register("galaxiesml_like", "benchmarks.galaxiesml_like")
    form = Form(shard_bytes=32 << 20)
    request = Request(
        "galaxiesml_like", Path(folder), name, work_dir=Path(work), form=form, processes=int(processes), overwrite=True
    )
    push(planned(request))


def stock_push(folder: str, name: str, work: str, processes: str) -> None:
    """``push_to_hub`` of `datasets` of the same rows: a table in its Arrow cache first, as it must be."""
    import skyset

    skyset.register("galaxiesml_like", "benchmarks.galaxiesml_like")
    table = skyset.load("galaxiesml_like", data_dir=folder, streaming=False, format=None, cache_dir=work)
    table.push_to_hub(name, max_shard_size="32MB")


def upload_folder(folder: str, name: str, work: str, processes: str) -> None:
    """The files that skyset's push makes, ready on the disk: hashing and sending alone."""
    from huggingface_hub import HfApi

    HfApi().create_repo(name, repo_type="dataset", exist_ok=True)
    HfApi().upload_folder(repo_id=name, folder_path=folder, repo_type="dataset")


WAYS = {each.__name__: each for each in (skyset_push, stock_push, upload_folder)}


# --- the run ------------------------------------------------------------------------------------------------


def serve(folder: str) -> None:
    """A Hub that says its address, and for each line on its input how many bytes of objects it has got."""
    from skyset.testing.hub import HubServer

    with HubServer(folder) as hub:
        hub.add_user("me", TOKEN)
        print(hub.host, flush=True)
        for line in sys.stdin:
            if line.startswith("save "):
                _, name, target = line.split()
                for path, content in hub.files(name).items():
                    (Path(target) / path).parent.mkdir(parents=True, exist_ok=True)
                    (Path(target) / path).write_bytes(content)
            print(hub.objects.received, flush=True)


@contextmanager
def hub(folder: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        host = process.stdout.readline().strip()
        os.environ |= {
            "HF_ENDPOINT": host,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        yield process
        process.stdin.close()


def received(server: subprocess.Popen, line: str = "bytes") -> int:
    """Bytes of objects so far."""
    print(line, file=server.stdin, flush=True)
    return int(server.stdout.readline())


def pieces(paths: list[Path], target: int = 1 << 16) -> dict[str, int]:
    """The bytes of content-defined pieces of files by digest, 64 kB on average as Xet's: what a store of pieces keeps."""
    table = np.random.default_rng(0).integers(0, 2**32, 256, np.uint32)
    found: dict[str, int] = {}
    for path in paths:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        gear, rolling = table[data], np.zeros(len(data), np.uint32)
        for back in range(32):  # a gear hash of the last 32 bytes, all places at once
            rolling[back:] += gear[: len(data) - back] << np.uint32(back)
        start = 0
        for end in [*(np.flatnonzero(rolling >> np.uint32(16) & np.uint32(target - 1) == 0) + 1).tolist(), len(data)]:
            if end - start >= target // 8 or end == len(data):
                piece = data[start:end].tobytes()
                found[hashlib.sha256(piece).hexdigest()] = len(piece)
                start = end
    return found


def cpu_seconds() -> float:
    """Of all processes that were started here and have ended; a Hub that is still answering is none of them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(folder: Path, cells: int, rounds: int, processes: int) -> None:
    from benchmarks.measure import Series, machine, ratios
    from benchmarks.measure import run as run_once

    first, second = folder / "first", folder / "second"
    for each, changed in ((first, False), (second, True)):
        make(each, cells, changed)
    size = sum(path.stat().st_size for path in first.rglob("*.hdf5"))
    numbers = iter(range(10**6))

    def command(way: str, source: Path, name: str = "") -> list[str]:
        number = next(numbers)
        arguments = [str(source), name or f"me/{way}-{number}", str(folder / f"work-{number}"), str(processes)]
        return [sys.executable, __file__, "--way", way, *arguments]

    with hub(folder / "hub") as server:
        run_once(command("skyset_push", first, "me/ours"), Series())
        ready, again = folder / "ready", folder / "again"
        before = received(server, f"save me/ours {ready}")
        run_once(command("skyset_push", second, "me/ours"), Series())
        sent = received(server, f"save me/ours {again}") - before
        ways = {
            "skyset push": lambda: command("skyset_push", first),
            "push_to_hub": lambda: command("stock_push", first),
            "upload_folder of ready files": lambda: command("upload_folder", ready),
        }
        # Content that the Hub has is not sent again: each push has a Hub of its own.
        results = {name: Series() for name in ways}
        used: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name, way in ways.items():
                with hub(folder / f"hub-{number}-{len(name)}"):
                    before_cpu = cpu_seconds()
                    run_once(way(), results[name])
                    used[name].append(cpu_seconds() - before_cpu)
    shards = sorted(ready.glob("data/**/*.parquet"))
    total = sum(path.stat().st_size for path in shards)
    print(f"\n{machine()}; {cells * ROWS} rows, {size / 1e6:.0f} MB, as Parquet {total / 1e6:.0f} MB; {rounds} rounds\n")
    print("| way | s | to ours | CPU, s | memory, MB |\n|---|---|---|---|---|")
    for name, series in results.items():
        to = "" if name == "skyset push" else ratios(series, results["skyset push"])
        cpu = statistics.median(used[name])
        print(f"| {name} | {series.median:.1f} | {to} | {cpu:.1f} | {series.peak_total / 1e6:.0f} |")
    old, new = pieces(shards), pieces(sorted(again.glob("data/**/*.parquet")))
    fresh = sum(count for digest, count in new.items() if digest not in old)
    by_pieces = f"{fresh / 1e6:.1f} MB ({fresh / total:.0%}) by pieces of 64 kB, as with Xet"
    print(f"\na row in a hundred changed: {sent / 1e6:.1f} MB sent by LFS ({sent / total:.0%}), {by_pieces}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=48, help="of 100 rows, 8.2 MB each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=0, help="that make files; 0: as skyset chooses")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--way", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    elif arguments.way:
        WAYS[arguments.way[0]](*arguments.way[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), arguments.cells, arguments.rounds, arguments.processes)


if __name__ == "__main__":
    main()
