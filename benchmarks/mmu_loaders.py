"""MultimodalUniverse's own loading scripts, as a measure: how fast they read a tree, and that they read what is in it.

They are not copied here: a clone of theirs is named. They need datasets 3.6, the last that runs scripts, and of sdss a
version that does without ``newbyteorder`` of numpy's scalars, which numpy 2 has not:

    git clone https://github.com/MultimodalUniverse/MultimodalUniverse mmu_clone
    git -C mmu_clone checkout c8593a187c47d75da2f07aae6792c90a64c05a1a -- scripts/sdss

    python benchmarks/mmu_loaders.py check --scripts mmu_clone/scripts
    python benchmarks/mmu_loaders.py read sdss TREE --scripts mmu_clone/scripts --way streaming

`check` makes trees with skyset.testing.mmu and compares values; `read` prints one line of JSON: rows, seconds, first (s to
the first row, in which datasets lists the files and imports the script), rows_per_s (after the first). Ways: generator (the
script's own reading, nothing of datasets around it: the fastest that it can be), streaming, cached (all rows into Arrow
first, then read). hsc cannot be streamed: datasets 3.6 has no cast of its arrays.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Script:
    """One of theirs: configuration, splits of it, and the folder of the tree that it looks into."""

    config: str
    splits: tuple[str, ...] = ("train",)
    below: str = ""


SCRIPTS = {
    "hsc": Script("pdr3_dud_22.5"),
    "sdss": Script("all"),
    "plasticc": Script("plasticc", ("train", "test")),
    "yse": Script("yse_dr1", below="yse_dr1"),
}
WAYS = ("generator", "streaming", "cached")


def rows_of(kind: str, tree: Path, scripts: Path, way: str) -> Iterator[dict[str, Any]]:
    """Rows as a script gives them."""
    import datasets

    script = SCRIPTS[kind]
    path = scripts / kind / f"{kind}.py"
    if not path.is_file():
        sys.exit(f"{path} is not there: --scripts names the folder scripts of a clone of MultimodalUniverse")
    wanted = {"name": script.config, "data_dir": str((tree / script.below).absolute()), "trust_remote_code": True}
    if way == "generator":
        from datasets.download.streaming_download_manager import StreamingDownloadManager

        builder = datasets.load_dataset_builder(str(path), **wanted)
        for part in builder._split_generators(StreamingDownloadManager()):
            for _, row in builder._generate_examples(**part.gen_kwargs):
                yield row
        return
    for split in script.splits:
        with tempfile.TemporaryDirectory() as cache:
            streaming = way == "streaming"
            yield from datasets.load_dataset(str(path), split=split, streaming=streaming, cache_dir=cache, **wanted)


def read(kind: str, tree: Path, scripts: Path, way: str, most: float = math.inf) -> dict[str, Any]:
    """How long it takes to read all rows, or those of the first ``most`` seconds after the first one."""
    import datasets  # noqa: F401, its import is no reading, nor that of torch, which comes with the first stream

    if importlib.util.find_spec("torch"):
        import torch.utils.data  # noqa: F401

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = rows_of(kind, tree, scripts, way)
    start = time.perf_counter()
    next(rows)
    first, count = time.perf_counter() - start, 1
    for _ in rows:
        count += 1
        if time.perf_counter() - start - first > most:
            break
    seconds = time.perf_counter() - start
    rate = (count - 1) / (seconds - first)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024
    return {
        "kind": kind,
        "way": way,
        "rows": count,
        "seconds": seconds,
        "first": first,
        "rows_per_s": rate,
        "memory": grown,
    }


def check(scripts: Path) -> None:
    """Compare what they read with what trees hold, value by value; an AssertionError where it differs."""
    from skyset.testing.mmu import write

    for kind in SCRIPTS:
        with tempfile.TemporaryDirectory() as folder:
            truth = write(kind, Path(folder) / kind, rows=4, cells=3, full_size=kind == "hsc")
            rows = list(rows_of(kind, truth.folder, scripts, "generator"))
            left = dict(truth.rows)
            for row in rows:
                # Of bytes their ids are "b'...'".
                values = left.pop(str(row["object_id"]).removeprefix("b'").removesuffix("'"))
                COMPARE[kind](row, values)
            assert not left, f"{kind}: {len(left)} rows are missing"
            print(f"{kind}: {len(rows)} rows are those of the tree", flush=True)


def same(mine: Any, theirs: Any) -> None:
    np.testing.assert_array_equal(np.asarray(theirs), np.asarray(mine))


def compare_hsc(row: dict[str, Any], values: dict[str, Any]) -> None:
    names = {"flux": "image_array", "ivar": "image_ivar", "mask": "image_mask", "psf_fwhm": "image_psf_fwhm"}
    for theirs, mine in (names | {"scale": "image_scale"}).items():
        same(values[mine], np.stack([band[theirs] for band in row["image"]]))
    assert [band["band"].encode() for band in row["image"]] == values["image_band"].tolist()
    same(values["g_cmodel_mag"], row["g_cmodel_mag"])


def compare_sdss(row: dict[str, Any], values: dict[str, Any]) -> None:
    padding = np.ravel(row["spectrum"]["lambda"]) == -1
    for name in ("lambda", "flux", "ivar", "lsf_sigma"):
        same(values[f"spectrum_{name}"], np.ravel(row["spectrum"][name])[~padding])
    for name in ("Z", "Z_ERR", "VDISP"):
        same(values[name], row[name])
    same(values["SPECTROFLUX"], [row[f"SPECTROFLUX_{band}"] for band in "UGRIZ"])


def compare_curve(row: dict[str, Any], values: dict[str, Any], pad: float) -> None:
    there = row["lightcurve"]["time"] != pad
    for name, points in values["lightcurve"].flat().items():
        same(points, row["lightcurve"][name][there])
    same(np.float32(values["redshift"]), row["redshift"])


COMPARE = {
    "hsc": compare_hsc,
    "sdss": compare_sdss,
    "plasticc": lambda row, values: compare_curve(row, values, 0),
    "yse": lambda row, values: compare_curve(row, values, -99),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    checking, reading = commands.add_parser("check"), commands.add_parser("read")
    reading.add_argument("kind", choices=SCRIPTS)
    reading.add_argument("tree", type=Path)
    reading.add_argument("--way", choices=WAYS, default="generator")
    reading.add_argument(
        "--seconds", type=float, default=math.inf, help="after the first row, at most (default: to the end)"
    )
    for command in (checking, reading):
        command.add_argument("--scripts", type=Path, required=True, help="folder scripts of a clone of MultimodalUniverse")
    options = parser.parse_args()
    if options.command == "check":
        check(options.scripts)
    else:
        print(json.dumps(read(options.kind, options.tree, options.scripts, options.way, options.seconds)))


if __name__ == "__main__":
    main()
