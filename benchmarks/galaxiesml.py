"""How fast do GalaxiesML's downloaded cutouts become partitions, with shapes measured in five bands, and in what memory?

    python benchmarks/galaxiesml.py                          # 200 galaxies, 5 rounds, about 3 minutes
    python benchmarks/galaxiesml.py --galaxies 1000 --memory 500 5000

Simulated galaxies in TAR archives as a build downloads them; one process. The floor reads the archives' bytes and writes
the partitions'. The peer is the plain way: tarfile, astropy.io.fits, sep for each cutout, all in memory, then a file per
cell; and the same with SExtractor, where it is installed, started for each cutout. What counts is the processor's time, user
and system, without start-up: the ways take turns in one process, after a round that warms them up. Memory is that of whole
commands.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BANDS = "grizy"
SCRIPT = ROOT / "build_scripts" / "galaxiesml" / "build_parent_sample.py"
#: Different galaxies; more are the same ones elsewhere.
UNIQUE = 100


def make(folder: Path, count: int) -> None:
    """Archives of galaxies within one cell, as a build downloads them."""
    from skyset.building.cutouts.download import digest_of_members
    from skyset.building.tars.sink import TarSink
    from skyset.extraction.simulate import simulate_cutouts
    from skyset.testing.hsc_sky import cutout_fits, window

    rng = np.random.default_rng(1)
    images = simulate_cutouts(5 * UNIQUE, seed=1, mag=(18.0, 22.5)).images.reshape(UNIQUE, 5, 127, 127)
    with TarSink(folder, key="object_id") as sink:
        for number in range(count):
            ra, dec = 33 + 0.5 * rng.random(), -4.5 + 0.5 * rng.random()
            where = window(ra, dec, 10 / 3600, 10 / 3600)
            x, y = (63 - round(float(value)) for value in where.wcs.all_world2pix([[ra, dec]], 0)[0])
            rows, columns = slice(y, y + where.height), slice(x, x + where.width)
            members = {
                f"{band}.fits": cutout_fits(band, where, [image[rows, columns]] * 3)
                for band, image in zip(BANDS, images[number % UNIQUE], strict=True)
            }
            key = str(36_411_452_835_240_000 + number)
            row = {"object_id": key, "ra": ra, "dec": dec, "specz_ra": ra, "specz_dec": dec, "specz_redshift": 0.5}
            row |= {
                "specz_redshift_err": 1e-4,
                "specz_mag_i": 20.0,
                "specz_flag_homogeneous": True,
                "coord": "(0.8,0.5,-0.1)",
            }
            row |= {"skymap_id": "87650405", "specz_name": f"made-{number}"}
            row |= {f"{band}_cmodel_{name}": 20.0 for band in BANDS for name in ("mag", "magsigma")}
            kept = json.dumps(row | {"sha256": digest_of_members(members)}).encode()
            sink.add(key, {**members, "json": kept})


def floor(folder: Path, output: Path) -> None:
    """Read the archives' bytes, write as many as the partitions of 127 x 127 pixels have, to the disk."""
    output.mkdir()
    size, count = 0, 0
    for path in sorted(folder.glob("*.tar")):
        with open(path, "rb", buffering=0) as file:
            while block := file.read(1 << 22):
                size += len(block)
        count += len(path.with_suffix(".csv").read_bytes().splitlines()) - 1
    row = bytes(5 * 127 * 127 * 4 + 800)
    with open(output / "rows", "wb", buffering=0) as file:
        for start in range(0, count, 16):
            file.write(row * min(16, count - start))
        os.fsync(file.fileno())


def cutouts_of(folder: Path) -> Iterator[tuple[dict, list[bytes]]]:
    """The peer's way: row and files of each galaxy."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = []
            for member in tar:
                data = tar.extractfile(member).read()
                if member.name.endswith(".json"):
                    yield json.loads(data), files
                    files = []
                else:
                    files.append(data)


def padded(data: bytes) -> np.ndarray:
    """The peer's way of a frame: the same border on all sides, as the authors of GalaxiesML have it."""
    from astropy.io import fits

    with fits.open(io.BytesIO(data)) as hdus:
        image = hdus[1].data.astype(np.float32)
    frame = np.zeros((127, 127), np.float32)
    y, x = ((127 - side) // 2 for side in image.shape)
    frame[y : y + image.shape[0], x : x + image.shape[1]] = image
    return frame


def shapes_by_sep(image: np.ndarray) -> list[float]:
    """As near as sep comes: no Petrosian radius, no surface brightness."""
    import sep

    background = sep.Background(image)
    image = image - background.back()
    kernel = np.array([[0.13, 0.37, 0.13], [0.37, 1, 0.37], [0.13, 0.37, 0.13]])
    objects, segments = sep.extract(image, 3, err=background.globalrms, filter_kernel=kernel, segmentation_map=True)
    away = np.hypot(objects["x"] - 63, objects["y"] - 63)
    if not len(away):
        return [np.nan] * 12
    one = [objects[int(away.argmin())][name] for name in ("x", "y", "a", "b", "theta")]
    mine = {"segmap": segments, "seg_id": np.array([away.argmin() + 1], np.int32)}
    place = [np.array([value]) for value in one]
    kron, _ = sep.kron_radius(image, *place, 6.0, **mine)
    flux, _, _ = sep.sum_ellipse(image, *place, np.maximum(2.5 * kron, 3.5), subpix=1, **mine)
    radius, _ = sep.flux_radius(image, *place[:2], 6 * place[2], 0.5, normflux=flux, subpix=5, **mine)
    counts = [np.count_nonzero(away <= limit) for limit in (5, 10, 15)]
    return [*map(float, one), *map(float, (kron[0], flux[0], radius[0])), *counts, len(away)]


def shapes_by_sextractor(image: np.ndarray, folder: Path) -> list[float]:
    """A process a cutout, as the published recipe has it."""
    from astropy.io import fits

    from benchmarks.extraction import SETTINGS, sextractor

    fits.writeto(folder / "cutout.fits", image, overwrite=True)
    subprocess.run(sextractor(folder, [str(folder / "cutout.fits")], "cutout", SETTINGS["cutouts"]), check=True)
    with fits.open(folder / "out.cat") as hdus:
        table = hdus[2].data
    away = np.hypot(table["X_IMAGE"] - 64, table["Y_IMAGE"] - 64)
    return [float(value) for value in table[int(away.argmin())]] if len(away) else [np.nan] * 12


def peer(folder: Path, output: Path, way: str) -> None:
    """All galaxies in memory, then a file per cell."""
    import h5py

    from skyset.sky import healpix_cell

    rows, images, shapes = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for row, files in cutouts_of(folder):
            image = np.stack([padded(data) for data in files])
            measure = shapes_by_sep if way == "sep" else lambda one: shapes_by_sextractor(one, Path(scratch))
            rows.append(row)
            images.append(image)
            shapes.append([measure(one) for one in image])
    cells = healpix_cell([row["ra"] for row in rows], [row["dec"] for row in rows])
    for cell in np.unique(cells):
        chosen = np.flatnonzero(cells == cell)
        (output / f"healpix={cell}").mkdir(parents=True)
        with h5py.File(output / f"healpix={cell}" / "001-of-001.hdf5", "w") as file:
            file.create_dataset("image", data=np.stack(images)[chosen])
            file.create_dataset("shapes", data=np.array(shapes)[chosen])
            for name, value in rows[0].items():
                values = np.array([rows[number][name] for number in chosen])
                file.create_dataset(name, data=values.astype("S") if isinstance(value, str) else values)


def ways(has_sextractor: bool) -> dict[str, Callable[[Path, Path], object]]:
    """What is compared, by name: from the archives' folder into a folder that is not there."""
    from skyset.build_scripts.galaxiesml.build_parent_sample import main as build

    def ours(*options: str) -> Callable[[Path, Path], object]:
        return lambda folder, output: build([*command(folder, output), *options])

    found: dict[str, Callable[[Path, Path], object]] = {
        "floor: bytes in, bytes out": floor,
        "**skyset build --no_sersic**, 127": ours("--configs", "127", "--no_sersic"),
        "**skyset build**, 127, with fits": ours("--configs", "127"),
        "**skyset build**, 127, 64 and tabular, with fits": ours(),
        "peer: tarfile, astropy, sep, h5py; no fits": functools.partial(peer, way="sep"),
    }
    return found | ({"peer with SExtractor; no fits": functools.partial(peer, way="sextractor")} if has_sextractor else {})


def command(folder: Path, output: Path) -> list[str]:
    return ["--from_tar", str(folder), "-o", str(output), "--num_processes", "1"]


def compare(asked: argparse.Namespace, base: Path) -> None:
    """A table of the ways' times."""
    from benchmarks.extraction import PROGRAM
    from benchmarks.measure import machine

    make(base / "tars", asked.galaxies)
    each: dict[str, list[float]] = {}
    for number in range(asked.rounds + 1):
        for name, way in ways(bool(PROGRAM) and not asked.no_sextractor).items():
            shutil.rmtree(base / "out", ignore_errors=True)
            before = sum(os.times()[:4])  # with those of children that have ended
            way(base / "tars", base / "out")
            took = (sum(os.times()[:4]) - before) / asked.galaxies
            if number:
                each.setdefault(name, []).append(took)
            print(f"  round {number}/{asked.rounds}: {name}: {1000 * took:.1f} ms a galaxy", file=sys.stderr)
    print(f"{machine()}; load {os.getloadavg()[1]:.1f}; {asked.galaxies} galaxies, {asked.rounds} rounds\n")
    print("| way | ms a galaxy | galaxies a minute and core | time to the peer |\n|---|---|---|---|")
    peers = next(values for name, values in each.items() if name.startswith("peer"))
    for name, values in each.items():
        shares = sorted(a / b for a, b in zip(values, peers, strict=True))
        share = f"{statistics.median(shares):.3f} ({shares[0]:.3f} to {shares[-1]:.3f})"
        median = statistics.median(values)
        print(f"| {name} | {1000 * median:.1f} | {60 / median:,.0f} | {share} |")


def memory(counts: Sequence[int], base: Path) -> None:
    """A table of the largest memory of whole commands."""
    from benchmarks.extraction import run

    own = [sys.executable, str(Path(__file__).resolve())]
    print("\n| galaxies | skyset build --no_sersic, peak MB | peer, peak MB |\n|---|---|---|")
    for count in counts:
        folder = base / str(count)
        run([*own, "--work", "make", "--folder", str(folder), "--count", str(count)])
        _, build = run([sys.executable, str(SCRIPT), *command(folder, base / "of build"), "--no_sersic"])
        _, plain = run([*own, "--work", "sep", "--folder", str(folder), "--output", str(base / "of peer")])
        print(f"| {count:,} | {build:.0f} | {plain:.0f} |", flush=True)
        for path in (folder, base / "of build", base / "of peer"):
            shutil.rmtree(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galaxies", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--memory", type=int, nargs="*", default=(200, 2000), metavar="N", help="galaxies (default: 200 2000)"
    )
    parser.add_argument("--no_sextractor", action="store_true", help="leave SExtractor out, which takes most of the time")
    for name in ("--work", "--folder", "--output", "--count"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work == "make":
        make(Path(asked.folder), int(asked.count))
    elif asked.work:
        peer(Path(asked.folder), Path(asked.output), asked.work)
    else:
        with tempfile.TemporaryDirectory() as base:
            if asked.rounds:
                compare(asked, Path(base))
            memory(asked.memory, Path(base))


if __name__ == "__main__":
    main()
