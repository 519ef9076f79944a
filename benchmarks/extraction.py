"""How fast are sources found, measured, fitted and mapped, against SExtractor, sep and MiniSom?

    python benchmarks/extraction.py                         # everything, about 25 minutes
    python benchmarks/extraction.py ccd cutouts --rounds 1  # two of: ccd, cutouts, sersic, som
    python benchmarks/extraction.py --ccds 4                # a smaller mosaic

Each way is a command of its own; the ways take turns within one run. What counts is the processor's time of the whole
command (user and system, one core), start-up included, and its largest resident memory: the ratios survive a busy machine.
SExtractor (Debian: source-extractor) is left out where it is not installed. All are told the same: 3 sigma, the
3 x 3 pyramid filter, 32 levels of deblending.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import machine  # noqa: E402
from skyset.extraction import columns  # noqa: E402
from skyset.extraction.sex_file import STANDARD_FOLDERS  # noqa: E402

PROGRAM = shutil.which("source-extractor") or shutil.which("sex")
#: Columns of image quality, and all that the two surveys made from sources need; SExtractor's names for both.
COLUMNS = {
    "quality": columns.IMAGE_QUALITY,
    "all": columns.DEFAULT,
    "cutout": [
        "X_IMAGE",
        "Y_IMAGE",
        "A_IMAGE",
        "B_IMAGE",
        "THETA_IMAGE",
        "ELLIPTICITY",
        "ISOAREA_IMAGE",
        "FLUX_AUTO",
        "FLUX_RADIUS",
        "PETRO_RADIUS",
        "MU_MAX",
        "FLAGS",
    ],
}
SETTINGS = {
    "mosaic": {"threshold": 3, "seeing": 0.7, "pixel_scale": 0.187, "zero_point": 34.9, "gain": 1.6, "saturation": 6e4},
    "cutouts": {"threshold": 3, "seeing": 0.65, "pixel_scale": 0.168, "zero_point": 27.0},
}
DIFFERENT = 4


def make_mosaic(path: Path, ccds: int) -> None:
    """CCDs of a MegaCam exposure, 2048 x 4612; a few different ones in turn."""
    from astropy.io import fits

    from skyset.extraction.simulate import simulate_ccd

    some = [simulate_ccd(seed=k).image for k in range(min(ccds, DIFFERENT))]
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(some[k % len(some)]) for k in range(ccds))]
    fits.HDUList(hdus).writeto(path)


def make_cutouts(folder: Path, count: int) -> None:
    """HSC-like galaxies: one file each, and all of them as one array."""
    from astropy.io import fits

    from skyset.extraction.simulate import simulate_cutouts

    images = simulate_cutouts(count, seed=0).images
    np.save(folder / "cutouts.npy", images)
    for number, image in enumerate(images):
        fits.writeto(folder / f"cutout{number:04d}.fits", image)


def work(way: str, folder: Path, wanted: str, count: int) -> None:
    """What a process of ours, or of sep's, does."""
    from skyset.extraction.detect import measure
    from skyset.extraction.engines import ENGINES, load_engine
    from skyset.extraction.mosaic import extract_file
    from skyset.extraction.settings import Settings

    if way == "start":
        load_engine("compiled")
        return
    if way.startswith("make"):
        make_mosaic(folder / "mosaic.fits", count) if way == "make mosaic" else make_cutouts(folder, count)
        return
    if way in ENGINES:
        how, measured = Settings(**SETTINGS["mosaic"]), load_engine(way).MEASURED
        names = [name for name in COLUMNS[wanted] if name in measured]
        images = extract_file(folder / "mosaic.fits", how, names, engine=way, processes=1)
        found = sum(len(one.measured) for one in images)
    elif way == "skyset cutouts":
        how = Settings(**SETTINGS["cutouts"])
        found = sum(len(measure(image, how, COLUMNS[wanted])) for image in np.load(folder / "cutouts.npy"))
    else:  # "sep alone"
        found = _sep(folder, wanted)
    print(found)


def _sep(folder: Path, wanted: str) -> int:
    """As near as sep comes: no classifier; with ``all`` its own Kron fluxes and radii, without PETRO_RADIUS."""
    import sep
    from astropy.io import fits

    sep.set_extract_pixstack(3_000_000)
    found = 0
    with fits.open(folder / "mosaic.fits", memmap=False, lazy_load_hdus=True) as file:
        for number in range(1, len(file)):
            image = file[number].data.astype(np.float32)
            del file[number].data
            background = sep.Background(image)
            image -= background.back()
            kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
            objects, segments = sep.extract(image, 3, err=background.globalrms, filter_kernel=kernel, segmentation_map=True)
            found += len(objects)
            if wanted == "all":
                mine = {"segmap": segments, "seg_id": np.arange(1, len(objects) + 1, dtype=np.int32)}
                place = [objects[name] for name in ("x", "y", "a", "b", "theta")]
                kron, _ = sep.kron_radius(image, *place, 6.0, **mine)
                flux, _, _ = sep.sum_ellipse(image, *place, np.maximum(2.5 * kron, 3.5), subpix=1, **mine)
                sep.flux_radius(image, *place[:2], 6 * place[2], 0.5, normflux=flux, subpix=5, **mine)
    return found


def sextractor(folder: Path, images: list[str], wanted: str, settings: dict) -> list[str]:
    """The program's command for some files, one after the other, as the published recipe runs it."""
    parameters = folder / f"{wanted}.param"
    parameters.write_text("\n".join(COLUMNS[wanted]))
    (folder / "pyramid.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    (folder / "empty.sex").write_text("")
    how = {
        "PARAMETERS_NAME": parameters,
        "CATALOG_NAME": folder / "out.cat",
        "CATALOG_TYPE": "FITS_LDAC",
        "VERBOSE_TYPE": "QUIET",
        "DETECT_THRESH": 3,
        "ANALYSIS_THRESH": 3,
        "FILTER_NAME": folder / "pyramid.conv",
        "SEEING_FWHM": settings["seeing"],
        "PIXEL_SCALE": settings["pixel_scale"],
        "MAG_ZEROPOINT": settings["zero_point"],
        "GAIN": settings.get("gain", 0),
        "SATUR_LEVEL": settings.get("saturation", 50000),
        "NTHREADS": 1,
        "MEMORY_PIXSTACK": 3000000,
        "STARNNW_NAME": _network(),
    }
    options = " ".join(f"-{key} {value}" for key, value in how.items())
    program = f"{PROGRAM} $image -c {folder}/empty.sex {options}"
    return ["sh", "-c", f"for image in {' '.join(images)}; do {program} || exit 1; done"]


def _network() -> Path:
    for folder in STANDARD_FOLDERS:
        if (path := folder / "default.nnw").is_file():
            return path
    raise FileNotFoundError("SExtractor's default.nnw is not where its packages put it")


def run(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of a command and what it started."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    output, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise RuntimeError(f"{command[:3]} failed:\n{output.decode()[-500:]}{errors.decode()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare(title: str, ways: dict[str, list[str]], rounds: int, unit: int, what: str) -> list[str]:
    """A table of ways: CPU seconds of the whole command, a piece, SExtractor's over ours, peak memory."""
    seconds, memory = {way: [] for way in ways}, dict.fromkeys(ways, 0.0)
    for number in range(rounds + 1):
        for way, command in ways.items():
            spent, peak = run(command)
            if number:  # the first round compiles and warms up
                seconds[way].append(spent)
                memory[way] = max(memory[way], peak)
            print(f"  round {number}/{rounds}: {title}: {way}: {spent:.2f} s", file=sys.stderr)
    peer = next((way for way in ways if way.startswith("SExtractor")), None)
    head = ("way", "CPU s", f"ms a {what}", "SExtractor's time over it", "peak memory, MB")
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for way, values in seconds.items():
        median = statistics.median(values)
        if peer is None or way.startswith("start"):
            ratio = ""
        else:
            shares = sorted(a / b for a, b in zip(seconds[peer], values, strict=True))
            ratio = f"{statistics.median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
        lines.append(f"| {way} | {median:.2f} | {1000 * median / unit:.2f} | {ratio} | {memory[way]:.0f} |")
    return [*lines, ""]


def _ours(way: str, folder: Path, wanted: str = "", count: int = 0) -> list[str]:
    return [sys.executable, __file__, "--work", way, "--folder", str(folder), "--columns", wanted, "--count", str(count)]


def ccd(folder: Path, rounds: int, arguments: argparse.Namespace) -> list[str]:
    # In a process of its own: a command that is started inherits the size of who starts it, as its largest.
    run(_ours("make mosaic", folder, count=arguments.ccds))
    lines = []
    for wanted, title in (("quality", "columns of image quality"), ("all", "all columns")):
        ways = {"start-up of ours": _ours("start", folder), "**skyset**": _ours("compiled", folder, wanted)}
        ways["skyset, engine sep"] = _ours("sep", folder, wanted)
        if PROGRAM:
            ways["SExtractor"] = sextractor(folder, [str(folder / "mosaic.fits")], wanted, SETTINGS["mosaic"])
        ways["sep alone"] = _ours("sep alone", folder, wanted)
        lines += compare(f"{arguments.ccds} CCDs, {title}", ways, rounds, arguments.ccds, "CCD")
    return lines


def cutouts(folder: Path, rounds: int, arguments: argparse.Namespace) -> list[str]:
    run(_ours("make cutouts", folder, count=arguments.cutouts))
    ways = {"start-up of ours": _ours("start", folder), "**skyset**": _ours("skyset cutouts", folder, "cutout")}
    if PROGRAM:
        files = sorted(str(path) for path in folder.glob("cutout*.fits"))
        ways["SExtractor, a file each"] = sextractor(folder, files, "cutout", SETTINGS["cutouts"])
    return compare(f"{arguments.cutouts} cutouts of 127 x 127, without Sersic", ways, rounds, arguments.cutouts, "cutout")


def sersic(folder: Path, rounds: int, arguments: argparse.Namespace) -> list[str]:
    from benchmarks.sersic import table

    return ["### Sersic fits", "", *table(rounds), ""]


def som(folder: Path, rounds: int, arguments: argparse.Namespace) -> list[str]:
    from benchmarks.som import table

    return ["### Self-organising map", "", *table(rounds), ""]


PARTS: dict[str, Callable] = {"ccd": ccd, "cutouts": cutouts, "sersic": sersic, "som": som}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ccds", type=int, default=36)
    parser.add_argument("--cutouts", type=int, default=1000)
    for name in ("--work", "--folder", "--columns", "--count"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, Path(arguments.folder), arguments.columns, int(arguments.count))
        return
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"{unknown[0]}: the parts are {', '.join(PARTS)}")
    if arguments.rounds < 1 or arguments.ccds < 1 or arguments.cutouts < 1:
        parser.error("rounds, CCDs and cutouts are counted from 1")
    os.environ["OMP_NUM_THREADS"] = "1"
    begin, lines = time.monotonic(), [machine(), ""]
    for part in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            lines += PARTS[part](Path(folder), arguments.rounds, arguments)
    print("\n".join(lines))
    print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
