"""The catalogue of GalaxiesML: the query, where its rows come from, and the cuts, as the authors made them or as printed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from skyset.building.cutouts.columns import Columns
from skyset.building.cutouts.declaration import CatalogueSource, Chosen
from skyset.building.cutouts.jobs import JobCatalogue
from skyset.building.cutouts.sources import FileCatalogue
from skyset.building.options import Options
from skyset.loaders.galaxiesml import BANDS, BASE, CATALOG
from skyset.tables.cuts import Cut, equals, on_sky, unique, valid_magnitudes
from skyset.tables.repeats import first_named, not_repeated

ID, NAME, Z, ERROR, MAG_I = "object_id", "specz_name", "specz_redshift", "specz_redshift_err", "specz_mag_i"
SECURE = "specz_flag_homogeneous"
RELEASE = "pdr2"
#: What the database writes where nothing was measured.
MISSING = (float("inf"), float("-inf"), -99.0, -99.9)
#: Rows that are asked for where few are wanted: most fall to the cuts, repeated ones above all.
FEWEST, TIMES = 1000, 10

COLUMNS = Columns(
    (*(column for column in BASE if column.name in ("ra", "dec")), *CATALOG),
    key=ID,
    ids=(ID,),
    needed=("ra", "dec", Z, ERROR, SECURE, *(f"{band}_cmodel_mag" for band in BANDS)),
    missing=MISSING,
    names={ID: (f"# {ID}",)},  # what pandas makes of the archive's CSV
)
#: With its comments, for people.
PRINTED = Path(__file__).with_name("catalog.sql").read_text()


def query(limit: int | None = None) -> str:
    """The query without comments; for a few galaxies, some rows of its answer, of which the rest is not waited for."""
    sql = "\n".join(line for line in PRINTED.splitlines() if not line.startswith("--"))
    return sql if limit is None else f"{sql}\nLIMIT {max(FEWEST, TIMES * limit)}"


def source(asked: argparse.Namespace, options: Options) -> CatalogueSource:
    """Where the rows come from: a file, or a job of the archive."""
    if asked.catalog:
        return FileCatalogue(COLUMNS, asked.catalog)
    return JobCatalogue(COLUMNS, asked.archive_url, query(options.limit), RELEASE, asked.keep_job)


def add_options(add: Callable) -> None:
    """The catalogue's options; ``add`` is a group's ``add_argument``. ``--archive_url`` is for all three services."""
    add(
        "--catalog",
        type=Path,
        metavar="FILE",
        help="the query's rows from a file instead (csv or fits, each also .gz, sqlite3 or parquet), as the archive's page "
        "exports them: --print_sql shows the query",
    )
    add("--print_sql", action="store_true", help=f"print the query (release {RELEASE}) for the archive's page, and end")
    add("--keep_job", action="store_true", help="leave the job and its result at the archive")
    add(
        "--cuts",
        choices=("authors", "paper"),
        default="authors",
        help="as the authors made them, which gives the published galaxies, or as the paper prints them: error below "
        "0.005 / (1 + z), no cut on specz_mag_i, the first of repeated objects kept (default: %(default)s)",
    )
    add(
        "--splits",
        type=Path,
        metavar="FILE",
        help="the split of each galaxy as published: a table with object_id and split, or the folder of the published files",
    )


def cuts(asked: argparse.Namespace) -> list[Chosen]:
    """The cuts in their order, those of the authors' code (``asked.cuts`` is authors) or of the paper."""
    by_authors = asked.cuts == "authors"
    magnitudes = [f"{band}_cmodel_mag" for band in BANDS]
    made = [
        Chosen(("ra", "dec"), on_sky()),
        Chosen((SECURE,), equals(SECURE, True).called("secure", f"{SECURE} is true")),
        Chosen((Z,), between([Z], 0.01, 4, "redshift")),
        Chosen((ERROR,), between([ERROR], 0, 1, "error")),
        Chosen((Z, ERROR), precise(times=by_authors)),
        Chosen(magnitudes, between(magnitudes, 0, 50, "cmodel")),
    ]
    if by_authors:
        made.insert(-1, Chosen((MAG_I,), between([MAG_I], 0, 28, MAG_I)))
    repeated = not_repeated(ID) if by_authors else unique(ID)
    return [*made, Chosen((NAME,), first_named(NAME)), Chosen((), repeated)]


def between(columns: list[str], low: float, high: float, name: str) -> Cut:
    """Every column is between the two, both excluded."""
    return valid_magnitudes(columns, low, high).called(name, f"{low:g} < {', '.join(columns)} < {high:g}")


def precise(times: bool) -> Cut:
    """The redshift's error is below 0.005 times, or by, 1 + z."""

    def keep(batch) -> np.ndarray:
        z, error = (pc.fill_null(batch[name], np.nan).to_numpy(zero_copy_only=False) for name in (Z, ERROR))
        return error < (0.005 * (1 + z) if times else 0.005 / (1 + z))

    return Cut("precise", f"{ERROR} < 0.005 {'x' if times else '/'} (1 + {Z})", keep)
