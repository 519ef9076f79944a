"""The options that surveys of cutouts share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from skyset.archives.das import HOST, PLANES, RERUNS
from skyset.archives.hips import FORMATS, MIRROR, SERVICE
from skyset.building.cutouts.sources import NARROW_SLICES, SLICES
from skyset.building.options import positive_integer
from skyset.secrets import without_login


def number(low: float, high: float = math.inf, text: str = "") -> Callable[[str], float]:
    """The type of an option that takes numbers from ``low`` to ``high``; ``text`` says which these are."""

    def parse(written: str) -> float:
        value = float(written)
        if not (low <= value <= high and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"must be {text}, not {value}")
        return value

    parse.__name__ = "number"
    return parse


above_zero = number(math.ulp(0.0), text="above 0")
zero_or_more = number(0, text="0 or more")
share = number(0, 1, "from 0 to 1")


def add_tap_options(add: Callable) -> None:
    """A catalogue from TAP services, or from a file; ``add`` is a group's ``add_argument``."""
    add(
        "--adql",
        type=Path,
        metavar="FILE",
        help="one query of your own with {low} and {high} where the borders of a slice "
        "of right ascension belong; columns named as ours, see the dataset card",
    )
    add(
        "--catalog",
        type=Path,
        metavar="FILE",
        help="the catalogue from a file instead (csv, fits, vot, each also .gz, sqlite3 or "
        "parquet), such as SkyServer or CasJobs export: --print_sql shows the query",
    )
    add("--print_sql", action="store_true", help="print the query for SkyServer and CasJobs, and end")
    add(
        "--slices",
        type=positive_integer,
        metavar="N",
        help=f"slices of right ascension (default: {SLICES}, or {NARROW_SLICES} where few rows are wanted)",
    )
    add("--maxrec", type=positive_integer, metavar="N", help="rows of one answer at most; a slice with more is halved")
    add(
        "--sync",
        action="store_true",
        help="ask the services at /sync, without jobs: for those that have no /async, or "
        "lose jobs; what is complete is used either way",
    )


def add_hips_options(add: Callable, hips: str, size: int, margin: float, radius: str) -> None:
    """Images by hips2fits, as `hips.HipsImages.asked` takes them; ``add`` is a group's ``add_argument``.

    Args:
        hips: the HiPS by default.
        size: pixels of a side by default.
        margin: around the object by default.
        radius: the column of the objects' radii.
    """
    add("--hips_url", type=without_login, default=SERVICE, metavar="URL", help="hips2fits service (default: %(default)s)")
    add(
        "--hips_mirror",
        type=without_login,
        metavar="URL",
        help=f"asked where the first does not answer (default: {MIRROR}; none where --hips_url is given)",
    )
    add("--hips", default=hips, metavar="ID", help="the sky survey's images (default: %(default)s)")
    add("--width", type=positive_integer, default=size, metavar="N", help="pixels (default: %(default)s)")
    add("--height", type=positive_integer, default=size, metavar="N", help="pixels (default: %(default)s)")
    add(
        "--margin",
        type=zero_or_more,
        default=margin,
        metavar="F",
        help=f"the longer side is 2 x {radius} x (1 + F) (default: %(default)s)",
    )
    add("--format", choices=FORMATS, default="jpg", help="of the images (default: %(default)s)")


def add_config_options(add: Callable, configs: Sequence[str]) -> None:
    """Which of a survey's datasets are built."""
    add(
        "--configs",
        nargs="+",
        choices=tuple(configs),
        metavar="NAME",
        help=f"one or more: {', '.join(configs)} (default: all); each after the first is cut from one before it",
    )


def add_das_options(add: Callable) -> None:
    """Cutouts of Hyper Suprime-Cam, as `lists.DasImages.asked` takes them; ``add`` is a group's ``add_argument``."""
    add("--archive_url", type=without_login, default=HOST, metavar="URL", help="the archive's host (default: %(default)s)")
    add("--rerun", choices=RERUNS, default="pdr2_wide", help="of the survey's processing (default: %(default)s)")
    add(
        "--half_size",
        type=number(1, 1050, "from 1 to 1050"),
        default=10.0,
        metavar="ARCSEC",
        help="half of the cutouts' side (default: %(default)g)",
    )
    add(
        "--planes",
        nargs="+",
        choices=PLANES,
        metavar="NAME",
        default=["image"],
        help=f"of the cutouts, one or more: {', '.join(PLANES)}; mask and variance become columns (default: image)",
    )
    add("--psf", action="store_true", help="each band's PSF at each galaxy too, as a column")


def add_archive_options(add: Callable) -> None:
    """How images are asked for, and archives that are there already."""
    add("--rate", type=above_zero, metavar="N", help="requests per second at most (default: as many as come back)")
    add_tar_option(add)


def add_tar_option(add: Callable) -> None:
    """Archives that are there already."""
    add(
        "--from_tar",
        type=Path,
        metavar="DIR",
        help="build from the TAR archives in this folder alone, without network; they were cut when they were made",
    )
