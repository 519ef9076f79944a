"""The options of builds from exposures of MegaPrime at CADC, and what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from skyset.archives.cadc import HOST
from skyset.archives.cadc_query import KINDS, ExposureQuery
from skyset.building.cutouts.sources import read_adql
from skyset.secrets import without_login


def add_cadc_options(add: Callable) -> None:
    """Which exposures, and where from; ``add`` is a group's ``add_argument``."""
    add("--ids", nargs="+", default=(), metavar="ID", help="these exposures: 979412p, or 979412 and --kind")
    add("--kind", choices=tuple(KINDS), default="p", help="as read out, or processed by Elixir (default: %(default)s)")
    add("--program", nargs="+", default=(), metavar="ID", help="exposures of observing programmes: 08AC14")
    add("--dates", nargs=2, metavar=("FIRST", "LAST"), help="exposures of these days and those between, UTC: 2008-03-30")
    add("--filter", nargs="+", default=(), metavar="NAME", help="exposures in filters: r, or r.MP9601 of one generation")
    add("--type", default="OBJECT", metavar="TYPE", help="OBJECT, FLAT, BIAS or DARK (default: %(default)s)")
    add(
        "--adql",
        type=Path,
        metavar="FILE",
        help="exposures that a query of your own finds (ADQL over CAOM2); its rows need a column productID, publisherID or "
        "observationID",
    )
    add("--datalink", action="store_true", help="ask datalink for the files' addresses (default: those of the data service)")
    add("--sync", action="store_true", help="ask TAP at /sync, without jobs")
    add(
        "--archive_url",
        type=without_login,
        default=HOST,
        metavar="URL",
        help="the host of CADC's services (default: %(default)s); https://user:password@host logs in, as a line of .netrc "
        "does, and is written nowhere",
    )


def exposures_asked(asked: argparse.Namespace, limit: int | None = None) -> ExposureQuery:
    """What was asked for by the options; ``limit``: the first exposures, all with None.

    Raises:
        UserError: an option's value cannot be what it should be.
    """
    return ExposureQuery(
        ids=tuple(asked.ids),
        kind=asked.kind,
        programs=tuple(asked.program),
        dates=tuple(asked.dates) if asked.dates else None,
        filters=tuple(asked.filter),
        type=asked.type,
        adql=read_adql(asked.adql) if asked.adql else None,
        limit=limit,
    )
