"""What does a Sersic fit cost, and how near to the truth is it?

    python benchmarks/sersic.py                    # 300 simulated cutouts, 5 rounds, 3 minutes
    python benchmarks/sersic.py --rounds 1 --count 60
    python benchmarks/sersic.py --device cuda      # and the rate of 4,096 fits at once on a GPU

The peer: SExtractor's SPHEROID fit with a PSFEx model of stars through the same PSF, where both programs are installed. It
gets all cutouts as one mosaic, so that starting the program hardly counts, and has to detect the galaxies, where skyset is
told the middle of the cutout and the noise: what the same run takes without the model columns is taken off for "the fit
alone". It runs with its automatic background (BACK_SIZE 64) and with the true one; skyset fits a background of its own.

Each way runs in a process of its own, in turn; CPU seconds of the process (and of the programs it starts) are counted
without start-up, reading and compiling. Bias is the median of n_fit - n_true; scatters are 1.4826 x the median absolute
deviation of (fit - truth) / truth.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIZE, NOISE, ZERO_POINT, PIXEL_SCALE, SEEING = 127, 0.07, 27.0, 0.168, 0.65
BATCH = 4096
#: SExtractor's SERSIC fit and where it starts from.
MODEL = (
    "XMODEL_IMAGE",
    "YMODEL_IMAGE",
    "FLUX_SPHEROID",
    "SPHEROID_REFF_IMAGE",
    "SPHEROID_ASPECT_IMAGE",
    "SPHEROID_THETA_IMAGE",
    "SPHEROID_SERSICN",
)
MEASURED = ("X_IMAGE", "Y_IMAGE", "FLUX_AUTO", "FLUX_RADIUS", "FLAGS")
STARS = (
    "VIGNET(45,45)",
    "X_IMAGE",
    "Y_IMAGE",
    "FLUX_APER(1)",
    "FLUXERR_APER(1)",
    "FLUX_RADIUS",
    "ELONGATION",
    "FLAGS",
    "SNR_WIN",
    "FLUX_MAX",
)


# --- What is fitted -------------------------------------------------------------------------------


def make_cutouts(folder: Path, count: int) -> None:
    """Cutouts and truth for all ways; for SExtractor a mosaic of them and PSFEx's model of the PSF."""
    from skyset.extraction.simulate import simulate_cutouts

    folder.mkdir(parents=True)
    cutouts = simulate_cutouts(count, seed=1, size=SIZE, neighbours=False, sky_sigma=NOISE)
    np.savez(folder / "cutouts.npz", images=cutouts.images, psf=cutouts.psf, truth=cutouts.truth)
    if have_sextractor():
        _write_mosaic(folder, cutouts.images)
        _write_psf(folder, cutouts.psf)


def have_sextractor() -> bool:
    return bool(shutil.which("source-extractor") and shutil.which("psfex"))


def _columns(count: int) -> int:
    return int(np.ceil(np.sqrt(count)))


def _write_mosaic(folder: Path, images: np.ndarray) -> None:
    from astropy.io import fits

    across = _columns(len(images))
    mosaic = np.random.default_rng(0).normal(0, NOISE, (across * SIZE, across * SIZE)).astype(np.float32)
    for i, image in enumerate(images):
        row, column = divmod(i, across)
        mosaic[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE] = image
    fits.writeto(folder / "mosaic.fits", mosaic)


def _write_psf(folder: Path, psf: np.ndarray) -> None:
    """100 bright stars at random fractions of pixels, and PSFEx's model of them."""
    from astropy.io import fits

    from skyset.extraction.simulate import render, sources

    rng = np.random.default_rng(0)
    y, x = np.mgrid[60:1024:100, 60:1024:100].reshape(2, -1) + rng.uniform(-0.5, 0.5, (2, 100))
    field = render((1024, 1024), sources(x, y, 1e4), psf)
    fits.writeto(folder / "stars.fits", (field + rng.normal(0, NOISE, field.shape)).astype(np.float32))
    sextractor(folder, "stars.fits", "stars.ldac", STARS, CATALOG_TYPE="FITS_LDAC", PHOT_APERTURES=20)
    settings = {
        "SAMPLE_AUTOSELECT": "N",
        "SAMPLE_FWHMRANGE": "1,20",
        "PSF_SIZE": "45,45",
        "PSF_SAMPLING": 0.5,
        "PSFVAR_DEGREES": 0,
        "BASIS_TYPE": "PIXEL_AUTO",
        "CHECKPLOT_TYPE": "NONE",
        "CHECKIMAGE_TYPE": "NONE",
        "WRITE_XML": "N",
        "VERBOSE_TYPE": "QUIET",
        "NTHREADS": 1,
    }
    _run(folder, ["psfex", "stars.ldac", *(word for key, value in settings.items() for word in (f"-{key}", str(value)))])


def sextractor(folder: Path, image: str, catalogue: str, columns: tuple[str, ...], **settings) -> float:
    """Run SExtractor; its CPU seconds."""
    (folder / f"{catalogue}.param").write_text("\n".join(columns) + "\n")
    (folder / "filter.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    everything = {
        "PARAMETERS_NAME": f"{catalogue}.param",
        "CATALOG_NAME": catalogue,
        "CATALOG_TYPE": "FITS_1.0",
        "FILTER_NAME": "filter.conv",
        "DETECT_THRESH": 3,
        "ANALYSIS_THRESH": 3,
        "GAIN": 0,
        "SATUR_LEVEL": 1e9,
        "MAG_ZEROPOINT": ZERO_POINT,
        "PIXEL_SCALE": PIXEL_SCALE,
        "SEEING_FWHM": SEEING,
        "BACK_SIZE": 64,
        "VERBOSE_TYPE": "QUIET",
        "WRITE_XML": "N",
        "NTHREADS": 1,
        **settings,
    }
    words = [word for key, value in everything.items() for word in (f"-{key}", str(value))]
    (folder / "empty.sex").write_text("")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(folder, ["source-extractor", image, "-c", "empty.sex", *words])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _run(folder: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}{done.stdout}")


# --- The ways -------------------------------------------------------------------------------------


def _skyset(folder: Path, one_by_one: bool = False, **more) -> dict:
    from skyset.extraction.sersic import fit_sersic

    with np.load(folder / "cutouts.npz") as file:
        images, psf = file["images"], file["psf"]
    where = {"x": SIZE // 2, "y": SIZE // 2, "sigma": NOISE, **more}
    fit_sersic(images[:40], psf, **where)  # compiles, and makes the tables
    start = time.process_time()
    if one_by_one:
        found = [fit_sersic(image, psf, **where) for image in images]
        n, r_e = ([float(getattr(each, name)[0]) for each in found] for name in ("n", "r_e"))
    else:
        found = fit_sersic(images, psf, **where)
        n, r_e = found.n.tolist(), found.r_e.tolist()
    return {"seconds": time.process_time() - start, "n": n, "r_e": r_e}


def way_numba(folder: Path) -> dict:
    return _skyset(folder)


def way_single(folder: Path) -> dict:
    return _skyset(folder, one_by_one=True)


def way_torch(folder: Path) -> dict:
    import torch

    torch.set_num_threads(1)
    return _skyset(folder, backend="torch")


def way_sextractor(folder: Path, **settings) -> dict:
    """All objects detected are fitted: seconds are scaled to as many fits as there are cutouts."""
    from astropy.io import fits

    with np.load(folder / "cutouts.npz") as file:
        count = len(file["images"])
    without = sextractor(folder, "mosaic.fits", "without.fits", MEASURED, **settings)
    seconds = sextractor(folder, "mosaic.fits", "model.fits", (*MEASURED, *MODEL), PSF_NAME="stars.psf", **settings)
    table = fits.getdata(folder / "model.fits", 1)
    row, column = np.divmod(np.arange(count), _columns(count))
    n, r_e = np.full((2, count), np.nan)
    for i, (x, y) in enumerate(zip(column * SIZE + SIZE // 2 + 1, row * SIZE + SIZE // 2 + 1, strict=True)):
        away = np.hypot(table["X_IMAGE"] - x, table["Y_IMAGE"] - y)
        nearest = int(np.argmin(away))
        if away[nearest] < 3:
            n[i], r_e[i] = table["SPHEROID_SERSICN"][nearest], table["SPHEROID_REFF_IMAGE"][nearest]
    share = count / len(table)
    return {"seconds": seconds * share, "alone": (seconds - without) * share, "n": n.tolist(), "r_e": r_e.tolist()}


def way_sextractor_known(folder: Path) -> dict:
    return way_sextractor(folder, BACK_TYPE="MANUAL", BACK_VALUE=0.0)


WAYS = {
    "**skyset, numba, a batch**": way_numba,
    "skyset, numba, one by one": way_single,
    "skyset, torch on the CPU, a batch": way_torch,
    "SExtractor SPHEROID + PSFEx, automatic background": way_sextractor,
    "SExtractor SPHEROID + PSFEx, known background": way_sextractor_known,
}


def available() -> list[str]:
    """Ways whose programs and libraries are installed."""
    import importlib.util

    names = list(WAYS)[:2] + ([list(WAYS)[2]] if importlib.util.find_spec("torch") else [])
    return names + (list(WAYS)[3:] if have_sextractor() else [])


def work(way: str, folder: Path) -> None:
    """One measurement, appended to the folder's file of results."""
    result = WAYS[way](folder)
    with open(folder / "results.jsonl", "a") as file:
        file.write(json.dumps({"way": way, **result}) + "\n")


# --- The table ------------------------------------------------------------------------------------


def table(rounds: int = 5, count: int = 300, device: str | None = None) -> list[str]:
    """Lines of Markdown: CPU milliseconds a fit, peak memory, bias and scatters of each way, interleaved."""
    from benchmarks.measure import interleave, machine

    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # what is counted is one core
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "cutouts"
        make_cutouts(folder, count)
        names = available()
        command = {name: lambda name=name: [sys.executable, __file__, "--work", name, str(folder)] for name in names}
        series = interleave(command, rounds)
        measured = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        with np.load(folder / "cutouts.npz") as file:
            truth = file["truth"]
    results = {name: [each for each in measured if each["way"] == name][1:] for name in names}  # the first warmed up
    lines = [f"{machine()}; {count} simulated cutouts of {SIZE} x {SIZE}, magnitude 18 to 23, {rounds} rounds, one core", ""]
    lines += ["" if have_sextractor() else "source-extractor or psfex is not installed: left out\n"]
    head = [
        "way",
        "CPU ms a fit, all in",
        "the fit alone",
        "time to skyset's",
        "bias of n",
        "scatter of n, mag < 20",
        "20 to 22",
        "scatter of r_e",
        "not fitted",
        "peak MB",
    ]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    ours = [each["seconds"] for each in results[names[0]]]
    lines += [_line(name, results[name], ours, truth, series[name].peak_total) for name in names]
    return [*lines, "", _gpu_line(device)]


def _line(name: str, results: list[dict], ours: list[float], truth: np.ndarray, peak: int) -> str:
    from benchmarks.measure import Series, ratios

    seconds = [each["seconds"] for each in results]
    alone = [each["alone"] for each in results if "alone" in each]
    n, r_e = (np.array(results[-1][key], np.float64) for key in ("n", "r_e"))
    fitted = np.isfinite(n)
    relative = n / truth["n"] - 1
    spread = {"bright": truth["mag"] < 20, "middle": (truth["mag"] >= 20) & (truth["mag"] < 22)}
    spread = {key: _scatter(relative[fitted & chosen]) for key, chosen in spread.items()}
    milliseconds = [f"{1e3 * statistics.median(each) / len(n):.2f}" if each else "" for each in (seconds, alone)]
    cells = [
        *milliseconds,
        ratios(Series(ours), Series(seconds)),
        f"{np.median((n - truth['n'])[fitted]):+.3f}",
        f"{spread['bright']:.3f}",
        f"{spread['middle']:.3f}",
        f"{_scatter((r_e / truth['r_e'] - 1)[fitted]):.3f}",
        f"{np.count_nonzero(~fitted)}",
        f"{peak / 1e6:.0f}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _scatter(values: np.ndarray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if len(values) else float("nan")


def _gpu_line(device: str | None) -> str:
    """The rate at a batch of 4,096 on the device, wall clock, images copied to it included."""
    name = f"skyset on a GPU, a batch of {BATCH:,}"
    try:
        import torch
    except ImportError:
        return f"{name}: not measured (torch is not installed)"
    if device is None or not (torch.cuda.is_available() or device == "cpu"):
        return f"{name}: not measured ({'no device was asked for' if device is None else f'{device} is not at hand'})"
    from skyset.extraction.sersic import fit_sersic
    from skyset.extraction.simulate import simulate_cutouts

    cutouts = simulate_cutouts(256, seed=1, size=SIZE, neighbours=False, sky_sigma=NOISE)
    images = np.tile(cutouts.images, (BATCH // 256, 1, 1))
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        fit_sersic(images, cutouts.psf, x=SIZE // 2, y=SIZE // 2, sigma=NOISE, device=device, backend="torch")
        seconds.append(time.perf_counter() - start)
    best = statistics.median(seconds[1:])
    called = torch.cuda.get_device_name(device) if device != "cpu" else "the CPU"
    return f"{name} ({called}): {BATCH / best:,.0f} fits a second, {1e3 * best / BATCH:.3f} ms a fit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=300, help="cutouts")
    parser.add_argument("--device", help="as torch names it, for instance cuda")
    parser.add_argument("--work", nargs=2, metavar=("WAY", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work[0], Path(arguments.work[1]))
        return
    print("\n".join(table(arguments.rounds, arguments.count, arguments.device)))


if __name__ == "__main__":
    main()
