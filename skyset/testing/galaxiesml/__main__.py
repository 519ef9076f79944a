"""``python -m skyset.testing.galaxiesml``: simulated galaxies as published files, or as an archive that answers."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from skyset.command_line import main as run_command
from skyset.errors import MissingPackage
from skyset.extraction.engines import load_engine
from skyset.testing.galaxiesml.published import SIZES, TRUTH_NAME, make_galaxiesml
from skyset.testing.galaxiesml.sky import GalSimSky
from skyset.testing.hsc import HscArchive

EXAMPLES = """\
examples:
  python -m skyset.testing.galaxiesml --galaxies 2000 -o published
      six HDF5 files and their CSVs as on Zenodo, and truth.csv: what each galaxy is. Then
      skyset build galaxiesml --local_data_path published -o data/galaxiesml_pub
      or, without a copy: skyset.load("galaxiesml", "64", data_dir="published", split="train")
  python -m skyset.testing.galaxiesml --galaxies 286401 --sizes 64 --processes 16 -o published
      as many as the real one has, 64 pixels wide
  python -m skyset.testing.galaxiesml --serve --galaxies 200
      HSC's archive with simulated galaxies at http://127.0.0.1:8000/ until Ctrl-C; it says what to run, and
      what it is asked: a line for each job and each list of cutouts

The galaxies are spectra of Coleman, Wu & Weedman (1980) at redshifts of 0.01 to 4 through the passbands g, r, i, z, y, in
Sersic profiles or bulges and discs, with neighbours, HSC's seeing, depth and noise, drawn by GalSim
(pip install galsim scipy).
The same --seed gives the same galaxies, whatever their number.
"""

#: What it is made with, beside what skyset needs.
PACKAGES = ("galsim", "scipy")
#: Of the archive's account.
USER, PASSWORD = "simulated", "galaxies"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = arguments()
    options = parser.parse_args(argv)
    if options.serve == bool(options.output):
        parser.error("one of --output and --serve says what to do; see --help")
    return run_command(lambda: simulate(options))


def simulate(options: argparse.Namespace) -> None:
    """Do what was asked for; what is missing is said before anything is done.

    Raises:
        MissingPackage: GalSim, scipy or what measures is not installed.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        names = " ".join(missing)
        raise MissingPackage(f"simulated galaxies need {' and '.join(missing)}: pip install {names}", missing[0])
    if options.serve:
        serve(options)
    else:
        load_engine("compiled")
        write(options)


def write(options: argparse.Namespace) -> None:
    """Write the published form."""
    try:
        paths = make_galaxiesml(
            options.output,
            options.galaxies,
            sizes=options.sizes,
            seed=options.seed,
            processes=options.processes,
            sersic=not options.no_sersic,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("start again with another folder, or without the files in this one") from None
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    print(f"{options.output / TRUTH_NAME}: what each galaxy is")
    print(f"\n    skyset build galaxiesml --local_data_path {options.output} -o data/galaxiesml_pub")


def serve(options: argparse.Namespace) -> None:
    """Answer as HSC's archive until Ctrl-C."""
    sky = GalSimSky(options.galaxies, options.seed)
    rows = len(sky.catalogue()["object_id"])
    with HscArchive(sky, (USER, PASSWORD), port=options.port) as archive:
        try:  # from here on: who reads that Ctrl-C ends it may press it at once
            print(
                f"{options.galaxies} galaxies and {rows - options.galaxies} rows that cuts take away, at {archive.url}\n\n"
                f"    export SSP_PDR_USR={USER} SSP_PDR_PWD={PASSWORD}\n"
                f"    skyset build galaxiesml --tiny --archive_url {archive.url} -o data/galaxiesml\n\n"
                "Ctrl-C ends it.",
                flush=True,
            )
            for line in told(archive):
                print(line, flush=True)
        except KeyboardInterrupt:
            print()


def told(archive: HscArchive, every: float = 0.5) -> Iterator[str]:
    """A line for each job and each list of cutouts or PSFs that is asked, as they come; without end.

    Args:
        archive: the one that answers.
        every: seconds between looks.
    """
    jobs = requests = 0
    while True:
        while jobs < len(archive.jobs.submitted):
            yield f"job {archive.jobs.submitted[jobs]}"
            jobs += 1
        while requests < len(archive.requests):
            asked = archive.requests[requests]
            requests += 1
            lines = asked.list.splitlines()[1:]
            if lines and asked.status == HTTPStatus.OK:
                yield f"{'PSFs' if '/psf/' in asked.path else 'cutouts'}: a list of {len(lines)}, {lines[0].strip()} ..."
        time.sleep(every)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m skyset.testing.galaxiesml",
        description="Simulate galaxies of known truth in the form of GalaxiesML.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--galaxies", type=_number, default=200, metavar="N", help="how many (default: %(default)s)")
    add("-o", "--output", type=Path, metavar="DIR", help="write files in the published form into this folder")
    add("--serve", action="store_true", help="serve them as HSC's archive: catalogue jobs, cutouts, PSF picker")
    add("--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES), help="sides of the images (default: both)")
    add("--seed", type=int, default=0, help="another seed, other galaxies (default: %(default)s)")
    add("--processes", type=_number, default=1, metavar="P", help="that draw and measure (default: %(default)s)")
    add("--no_sersic", action="store_true", help="fit no profiles: the Sersic indices are nan, in half of the time")
    add("--port", type=int, default=8000, help="of --serve; 0 takes any free one (default: %(default)s)")
    return parser


def _number(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
