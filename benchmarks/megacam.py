"""How long does one exposure of MegaCam take, against SExtractor, and what follows: the catalogue, the samples?

    python benchmarks/megacam.py                              # everything: simulating an exposure takes two minutes of it
    python benchmarks/megacam.py exposure --exposure 979412o.fits.fz --rounds 1
    python benchmarks/megacam.py catalogue sample --rounds 1  # two of: exposure, catalogue, sample

exposure: 36 raw CCDs of a RICE-compressed file on two processes, the columns of image quality in the published
configuration. Ours decompresses, trims, subtracts the bias levels, measures. SExtractor gets the frames that ours made, as
two uncompressed FITS files of 18 CCDs each, one for each of two processes at once; making them is not in its time, but
decompressing the raw file is: with funpack, or where that is not installed with astropy. What counts is the processor's time
of all processes, user and system, start-up included, and their resident memory together (pages that they share counted
twice).

catalogue: objects_catalog.parquet of 3,000,000 sources. sample: groups, hits and stamps of CCDs with 4,000 sources each,
once the sources are there; the map itself is in benchmarks/som.py.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import machine  # noqa: E402

PROGRAM = shutil.which("source-extractor") or shutil.which("sex")
FUNPACK = shutil.which("funpack")
COLUMNS = "X_IMAGE Y_IMAGE ISO0 ELONGATION ELLIPTICITY CLASS_STAR BACKGROUND FLAGS FWHM_IMAGE ALPHA_J2000 DELTA_J2000"
#: `sources.PUBLISHED`; to import that module is to import datasets, which nothing is needed of here.
PUBLISHED = {"DETECT_THRESH": "5", "DETECT_MINAREA": "5", "FILTER": "N", "DEBLEND_MINCONT": "0", "SEEING_FWHM": "1.2"}
PROCESSES = 2
CCDS, SOURCES = 36, 4000


def adopt_orphans() -> None:
    """What a process leaves behind when it ends becomes a child of this one, so that its CPU time is counted (Linux)."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def run(command: list[str]) -> tuple[float, float, float, str]:
    """CPU seconds of a command and all that it started, wall seconds, peak memory of all together (MB), its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    adopt_orphans()
    before = _cpu_of_children()
    begin, peak = time.monotonic(), 0
    process = psutil.Popen(command, stdout=subprocess.PIPE, env=environment)
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]))
        time.sleep(0.02)
    wall = time.monotonic() - begin
    with contextlib.suppress(ChildProcessError):
        while True:  # the server of workers ends after its last client
            os.wait()
    if process.returncode:
        raise RuntimeError(f"{command[:4]} ended with status {process.returncode}")
    return _cpu_of_children() - before, wall, peak / 1e6, process.stdout.read().decode()


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(ways: dict[str, list[str]], rounds: int) -> list[str]:
    """The table of some ways, in turn; the first round, which compiles, is not counted."""
    made: dict[str, list[tuple[float, float, float, str]]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, command in ways.items():
            result = run(command)
            print(f"  round {number}/{rounds}: {way}: {result[0]:.2f} CPU s, {result[1]:.1f} s", file=sys.stderr)
            if number:
                made[way].append(result)
    peer = next((way for way in ways if way.startswith("SExtractor")), None)
    lines = ["| way | CPU s | ms a CCD | s | SExtractor's CPU time over it | memory of all processes, MB | sources |"]
    lines.append("|---" * 7 + "|")
    for way, results in made.items():
        cpu, wall, memory = (statistics.median(one[k] for one in results) for k in range(3))
        ratio = ""
        if peer:
            ratios = sorted(a[0] / b[0] for a, b in zip(made[peer], results, strict=True))
            ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        found = results[-1][3].strip()
        lines.append(f"| {way} | {cpu:.2f} | {1000 * cpu / CCDS:.0f} | {wall:.1f} | {ratio} | {memory:.0f} | {found} |")
    return [*lines, ""]


# --- one exposure ---------------------------------------------------------------------------------


@functools.cache
def configuration(columns: tuple[str, ...]):
    from skyset.extraction.config import read_config

    return read_config(None, overrides=PUBLISHED.items(), columns=columns)


def sources_of(ccd) -> int:
    """What a process of ours does with a CCD: the columns that SExtractor is asked for too."""
    import warnings

    from skyset.extraction.detect import measure
    from skyset.extraction.world import celestial_wcs

    warnings.simplefilter("ignore")
    frame = ccd.frame()
    wcs = celestial_wcs(frame.header)
    columns = tuple(COLUMNS.split())
    settings = configuration(columns).for_header(frame.header)
    return len(measure(frame.pixels, settings, columns, mask=frame.bad, wcs=wcs, overwrite=True))


def whole_step(ccd) -> int:
    """As the build has it: with the cutouts of all sources."""
    from skyset.build_scripts.megacam_iqa.sources import COLUMNS, How, measure_ccd

    return len(measure_ccd(ccd, How(configuration(COLUMNS))).rows)


def ours(way: str, path: Path) -> None:
    from skyset.runner import executor

    # By its name, so that a worker finds it: this file is the main module.
    work = {"sources": sources_of, "build": whole_step}[way]
    modules = {"sources": "frames", "build": "sources"}[way]
    with executor(PROCESSES, preload=("skyset.extraction.ready", f"skyset.build_scripts.megacam_iqa.{modules}")) as pool:
        from skyset.build_scripts.megacam_iqa.frames import ccds

        print(sum(pool.map(work, ccds(path))))


def prepare(path: Path, folder: Path) -> None:
    """The frames of an exposure as files for SExtractor, float32, and its configuration."""
    from astropy.io import fits

    from skyset.build_scripts.megacam_iqa.frames import ccds

    every = ccds(path)
    first = every[0].frame()
    for half in range(PROCESSES):
        hdus = fits.HDUList([fits.PrimaryHDU()])
        for ccd in every[half::PROCESSES]:
            frame = ccd.frame()
            hdus.append(fits.ImageHDU(frame.pixels, frame.header))
        hdus.writeto(folder / f"half{half}.fits", output_verify="silentfix")
    (folder / "columns.param").write_text(COLUMNS.replace(" ", "\n"))
    how = {
        "PARAMETERS_NAME": folder / "columns.param",
        "CATALOG_TYPE": "FITS_LDAC",
        "VERBOSE_TYPE": "QUIET",
        "DETECT_THRESH": 5,
        "ANALYSIS_THRESH": 5,
        "DETECT_MINAREA": 5,
        "FILTER": "N",
        "DEBLEND_MINCONT": 0,
        "SEEING_FWHM": 1.2,
        "PIXEL_SCALE": 0,
        "GAIN": first.gain,
        "SATUR_LEVEL": first.saturation,
        "NTHREADS": 1,
        "MEMORY_PIXSTACK": 3000000,
        "STARNNW_NAME": Path("/usr/share/source-extractor/default.nnw"),
    }
    (folder / "exposure.sex").write_text("".join(f"{key} {value}\n" for key, value in how.items()))


def peer(path: Path, folder: Path) -> list[str]:
    """Decompression, then as many processes at once as ours has; the number of sources is what their catalogues hold."""
    unpack = f"{FUNPACK} -O {folder}/raw.fits {path}" if FUNPACK else f"{sys.executable} {__file__} --work unpack {path}"
    each = [
        f"{PROGRAM} {folder}/half{k}.fits -c {folder}/exposure.sex -CATALOG_NAME {folder}/{k}.cat" for k in range(PROCESSES)
    ]
    started = " ".join(f"{command} & p{k}=$!;" for k, command in enumerate(each))
    waited = " && ".join(f"wait $p{k}" for k in range(PROCESSES))
    return ["sh", "-c", f"rm -f {folder}/raw.fits; {unpack} && {{ {started} {waited}; }}"]


def exposure(folder: Path, arguments: argparse.Namespace) -> list[str]:
    path = arguments.exposure
    if path is None:
        options = ["--exposures", "1", "--full_size", "--classes", "GOOD", "-o", str(folder / "raw")]
        run([sys.executable, "-m", "skyset.testing.megacam", *options])
        path = next((folder / "raw").glob("*.fits.fz"))
    ways = {
        "**skyset**, the same columns": [sys.executable, __file__, "--work", "sources", str(path)],
        "**skyset**, step of the build: and cutouts of all sources": [
            sys.executable,
            __file__,
            "--work",
            "build",
            str(path),
        ],
    }
    if PROGRAM:
        run([sys.executable, __file__, "--work", "prepare", str(path), str(folder)])
        ways[f"SExtractor, two processes, after {'funpack' if FUNPACK else 'astropy'}"] = peer(path, folder)
    lines = [f"### One raw exposure of {CCDS} CCDs, {PROCESSES} processes", "", *compare(ways, arguments.rounds)]
    if PROGRAM:
        lines += [f"SExtractor found {_in_catalogues(folder)} sources.", ""]
    return lines


def _in_catalogues(folder: Path) -> int:
    from astropy.io import fits

    found = 0
    for k in range(PROCESSES):
        with fits.open(folder / f"{k}.cat") as opened:
            found += sum(hdu.header["NAXIS2"] for hdu in opened[2::2])
    return found


# --- what follows ---------------------------------------------------------------------------------


def staged(folder: Path, rows: int) -> list:
    """Exposures as the first pass of a build leaves them, without pixels."""
    from skyset.build_scripts.megacam_iqa.sources import ROW
    from skyset.build_scripts.megacam_iqa.staged import CATALOG, Staged

    rng = np.random.default_rng(0)
    (folder / CATALOG).mkdir(exist_ok=True)
    made = []
    for number in range(-(-rows // (CCDS * SOURCES))):
        fits_id = f"{1000000 + number}p"
        values = np.zeros(CCDS * SOURCES, ROW)
        for name in ROW.names:
            values[name] = rng.lognormal(1, 0.5, len(values))
        values["ccd"] = np.repeat(np.arange(CCDS), SOURCES)
        np.save(folder / CATALOG / f"{fits_id}.npy", values)
        ccds = [{"ccd": ccd, "usable": True, "sources": SOURCES} for ccd in range(CCDS)]
        made.append(Staged(folder, {"fits_id": fits_id, "exptime": 600.0, "ccds": ccds, "made_of": ""}))
    return made


def catalogue(folder: Path, arguments: argparse.Namespace) -> list[str]:
    from pyarrow import parquet

    from skyset.build_scripts.megacam_iqa.catalog import write_catalogue
    from skyset.build_scripts.megacam_iqa.labels import Labels

    exposures = staged(folder, 3_000_000)
    path = folder / "objects_catalog.parquet"
    lines = ["### Catalogue of 3,000,000 sources", "", "| what | CPU s | s |", "|---|---|---|"]
    ways: dict[str, Callable] = {
        "write": lambda: write_catalogue(path, exposures, Labels()),
        "read, all columns": lambda: parquet.read_table(path, use_threads=False),
    }
    for what, do in ways.items():
        seconds = [_timed(do) for _ in range(arguments.rounds)]
        cpu, wall = (statistics.median(values) for values in zip(*seconds, strict=True))
        lines.append(f"| {what} | {cpu:.2f} | {wall:.2f} |")
    rows, size = parquet.read_metadata(path).num_rows, path.stat().st_size / 1e6
    return [*lines, "", f"{rows:,} rows, {size:.0f} MB.", ""]


def sample(folder: Path, arguments: argparse.Namespace) -> list[str]:
    from skyset.build_scripts.megacam_iqa.grouping import LOG, drawn_stamps, first_of_each
    from skyset.build_scripts.megacam_iqa.labels import Labels
    from skyset.build_scripts.megacam_iqa.representative import Made
    from skyset.build_scripts.megacam_iqa.representative import sample as sample_of
    from skyset.extraction.som.groups import Groups, Scaling
    from skyset.loaders.megacam_iqa import FEATURES, MAP, STAMP

    (one,) = staged(folder, CCDS * SOURCES)
    rows = one.rows()
    features = tuple(FEATURES)
    columns = {name: rows[name] for name in features}
    scaling = Scaling.fit(columns, features, LOG)
    scaled = scaling(columns)
    groups = Groups.fit(lambda: scaled, scaling, MAP, None, seed=0)
    stamps = folder / "stamps.f16"
    np.random.default_rng(1).normal(0, 30, (len(rows), STAMP, STAMP)).astype(np.float16).tofile(stamps)
    made = Made(groups.count, MAP, STAMP, Labels())

    def every() -> None:
        for ccd in range(CCDS):
            some = slice(ccd * SOURCES, (ccd + 1) * SOURCES)
            units, _ = groups.of({name: values[some] for name, values in columns.items()})
            drawn = first_of_each(units, np.random.default_rng(ccd).random(SOURCES), groups.count)
            (squares,) = drawn_stamps(stamps, np.array([some.start]), drawn[None], len(rows), STAMP)
            sample_of(made, rows[some], units, drawn, squares)

    every()
    cpu, wall = (
        1000 * statistics.median(values) / CCDS
        for values in zip(*(_timed(every) for _ in range(arguments.rounds)), strict=True)
    )
    return [
        "### A sample, once the sources are there",
        "",
        f"{SOURCES:,} sources of a CCD: groups, {groups.count} stamps, hits, statistics: {cpu:.1f} CPU ms, {wall:.1f} ms.",
        "",
    ]


def _timed(do: Callable) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.monotonic()
    do()
    return time.process_time() - cpu, time.monotonic() - wall


def unpack(path: Path) -> None:
    from astropy.io import fits

    with fits.open(path) as opened:
        for hdu in opened[1:]:
            assert hdu.data.ndim == 2
            del hdu.data


PARTS: dict[str, Callable] = {"exposure": exposure, "catalogue": catalogue, "sample": sample}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exposure", type=Path, help="a raw exposure of 36 CCDs; default: one is simulated")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        way, path, *rest = arguments.work
        if way == "prepare":
            prepare(Path(path), Path(rest[0]))
        elif way == "unpack":
            unpack(Path(path))
        else:
            ours(way, Path(path))
        return
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"{unknown[0]}: the parts are {', '.join(PARTS)}")
    if arguments.rounds < 1:
        parser.error("rounds are counted from 1")
    lines = [machine(), ""]
    for part in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            lines += PARTS[part](Path(folder), arguments)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
