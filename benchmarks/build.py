"""How fast is a build from local FITS files, and how much memory does it take?

    python benchmarks/build.py                # 600 objects, 5 rounds, about 10 minutes
    python benchmarks/build.py --objects 100 --rounds 1

The floor: as many processes do nothing but gunzip and read all HDUs with astropy. The peer: read everything, stack it, write
a file per cell, as public scripts for this catalogue do. All are whole commands, start-up included, in turn in one run.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import io
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

UNIQUE = 40


def read_all_hdus(path: Path) -> int:
    """The floor's work on one file."""
    from astropy.io import fits

    with fits.open(io.BytesIO(gzip.decompress(path.read_bytes())), memmap=False) as hdus:
        return sum(hdu.data.nbytes for hdu in hdus if hdu.data is not None)


def floor(folder: Path, processes: int) -> None:
    with ProcessPoolExecutor(processes) as pool:
        sum(pool.map(read_all_hdus, sorted(folder.glob("*.fits.gz")), chunksize=8))


def read_columns(path: Path) -> dict:
    """The peer's work on one file."""
    from astropy.io import fits

    with fits.open(io.BytesIO(gzip.decompress(path.read_bytes())), memmap=False) as hdus:
        row = {name.lower(): hdus[5].data[name][0] for name in hdus[5].columns.names}
        pixels = {name: hdus[i].data.astype("uint8") for i, name in enumerate(("rgb", "center", "star", "spiral", "bar"))}
    return {**row, **pixels}


def stack_everything(folder: Path, output: Path, processes: int) -> None:
    """The peer: all pixels of the survey in memory, then one file per cell."""
    import h5py
    import numpy as np

    from skyset.sky import healpix_cell

    with ProcessPoolExecutor(processes) as pool:
        rows = list(pool.map(read_columns, sorted(folder.glob("*.fits.gz"))))
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    cells = healpix_cell(columns["ra"], columns["dec"])
    for cell in np.unique(cells):
        (output / f"healpix={cell}").mkdir(parents=True, exist_ok=True)
        with h5py.File(output / f"healpix={cell}" / "001-of-001.hdf5", "w") as file:
            for name, values in columns.items():
                chosen = values[cells == cell]
                file.create_dataset(name, data=chosen.astype("S") if chosen.dtype.kind == "U" else chosen)


def make_archive(folder: Path, objects: int) -> Path:
    """``objects`` files with their metadata table: UNIQUE galaxies, and copies of them under other names."""
    from skyset.testing.gz3d import draw_sample, metadata_table, write_archive

    folder.mkdir()
    galaxies = draw_sample(UNIQUE, clustered=True)
    originals = write_archive(folder / "originals", UNIQUE, clustered=True)
    contents = [path.read_bytes() for path in originals]
    copies = []
    for number in range(objects):
        galaxy, content = galaxies[number % UNIQUE], contents[number % UNIQUE]
        twin = dataclasses.replace(galaxy, subject_id=galaxy.subject_id + 1000 * (number // UNIQUE))
        # Another time stamp in the gzip header: byte-identical files would be refused as duplicates.
        stamped = content[:4] + number.to_bytes(4, "little") + content[8:]
        (folder / f"{twin.mangaid}_{twin.ifu}_{twin.subject_id}.fits.gz").write_bytes(stamped)
        copies.append(twin)
    metadata_table(copies).writeto(folder / "gz3d_metadata.fits")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--work", nargs=2, type=Path, metavar=("WHAT", "DIR"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        what, folder = arguments.work
        if str(what) == "floor":
            floor(folder, arguments.processes)
        else:
            stack_everything(folder, arguments.output, arguments.processes)
        return
    with tempfile.TemporaryDirectory() as folder:
        speed(Path(folder), arguments)
        memory(Path(folder), arguments)


def speed(folder: Path, arguments: argparse.Namespace) -> None:
    from benchmarks.measure import interleave, machine, ratios

    archive = make_archive(folder / "archive", arguments.objects)
    bare = folder / "bare"
    shutil.copytree(archive, bare, copy_function=os.link, ignore=shutil.ignore_patterns("gz3d_metadata.fits", "originals"))
    processes = ["--processes", str(arguments.processes)]
    results = interleave(
        {
            "floor: gunzip + astropy.io.fits": lambda: _work("floor", archive, *processes),
            "**skyset build**": lambda: _skyset(archive, folder / "out", arguments.processes),
            "skyset build, no metadata table": lambda: _skyset(bare, folder / "out", arguments.processes),
            "skyset build --compression blosc-lz4": lambda: _skyset(
                archive, folder / "out", arguments.processes, "--compression", "blosc-lz4"
            ),
            "peer: stack everything, then write": lambda: _work(
                "peer", archive, "--output", _empty(folder / "out"), *processes
            ),
        },
        arguments.rounds,
    )
    print(f"\n{machine()}; {arguments.objects} objects, {arguments.processes} processes, {arguments.rounds} rounds\n")
    print("| way | objects/s | speed to the floor | peak MB a process | peak MB together |\n|---|---|---|---|---|")
    base = next(iter(results.values()))
    for name, series in results.items():
        print(
            f"| {name} | {arguments.objects / series.median:.0f} | {ratios(series, base)} "
            f"| {series.peak_process / 1e6:.0f} | {series.peak_total / 1e6:.0f} |"
        )


def memory(folder: Path, arguments: argparse.Namespace) -> None:
    from benchmarks.measure import Series, run

    print("\n| objects | peak MB a process | peak MB together |\n|---|---|---|")
    for objects in (200, 2000):
        archive, series = make_archive(folder / f"archive{objects}", objects), Series()
        run(_skyset(archive, folder / "out", arguments.processes), series)
        print(f"| {objects} | {series.peak_process / 1e6:.0f} | {series.peak_total / 1e6:.0f} |")


def _work(what: str, folder: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, __file__, "--work", what, str(folder), *map(str, arguments)]


def _skyset(archive: Path, output: Path, processes: int, *options: str) -> list[str]:
    script = ROOT / "build_scripts" / "gz3d" / "build_parent_sample.py"
    return [
        sys.executable,
        str(script),
        "--local_data_path",
        str(archive),
        "-o",
        str(_empty(output)),
        "--num_processes",
        str(processes),
        *options,
    ]


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


if __name__ == "__main__":
    main()
