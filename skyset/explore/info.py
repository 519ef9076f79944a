"""What a folder holds: its counts, columns, cuts, sources and its footprint on the sky."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from skyset.declaration import HEAD, column_rows
from skyset.errors import UserError
from skyset.explore.objects import SKY_DEG2
from skyset.files import human_bytes
from skyset.loading.trees import called
from skyset.messages import plain
from skyset.partitions.manifest import Manifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table


def sky_figure(manifest: Manifest) -> Figure:
    """Rows per HEALPix cell on the whole sky (ICRS): Mollweide projection, east to the left, RA 0 h in the middle."""
    from astropy import units
    from astropy_healpix import healpix_to_lonlat
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows: dict[int, int] = {}
    for entry in manifest.files:
        rows[entry.healpix] = rows.get(entry.healpix, 0) + entry.rows
    lon, lat = healpix_to_lonlat(np.array(list(rows), int), manifest.nside, order="nested")
    east_left = -lon.wrap_at(180 * units.deg).rad
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.add_subplot(projection="mollweide")
    dots = axes.scatter(east_left, lat.rad, c=list(rows.values()), s=24, marker="D", cmap="viridis")
    hours = {-120: "8 h", -60: "4 h", 0: "0 h", 60: "20 h", 120: "16 h"}
    axes.set_xticks(np.radians(list(hours)), [""] * len(hours))  # labels would stand on the data
    for place, text in hours.items():
        axes.text(0.5 + place / 360, -0.03, text, transform=axes.transAxes, ha="center", va="top", fontsize="small")
    axes.text(0.5, -0.1, "right ascension at the equator (ICRS)", transform=axes.transAxes, ha="center", va="top")
    axes.set_ylabel("declination (ICRS)")
    axes.grid(alpha=0.3)
    axes.set_title(f"{called(manifest)}: {manifest.rows:,} rows in {len(rows):,} cells")
    figure.colorbar(dots, label="rows per cell", shrink=0.7, ticks=MaxNLocator(integer=True))
    return figure


def print_info(manifest: Manifest, console: Console, in_cells: bool = True) -> None:
    """Rows, cells, bytes, sky coverage and the table of columns.

    Args:
        manifest: what is told.
        console: where.
        in_cells: files are of a HEALPix cell each; those of somebody's Parquet are not.
    """
    from rich.table import Table
    from rich.text import Text

    def text(value: object) -> Text:  # as it is: [red] in a description is no colour
        return Text(plain(value))

    facts = Table.grid(padding=(0, 2))
    told = _facts_in_place if manifest.build.get("in_place") else _facts if in_cells else _facts_of_parquet
    for name, value in told(manifest):
        facts.add_row(name, text(value))
    table = Table("column", *HEAD, header_style="bold", box=None, padding=(0, 2, 0, 0))
    for row in column_rows(manifest.columns):
        table.add_row(*map(text, row.cells()))
    console.print(facts)
    console.print()
    if "cuts" in manifest.build:
        console.print(_cuts(manifest.build["cuts"]))
        console.print()
    console.print(table)


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    cells = {entry.healpix for entry in manifest.files}
    return [
        ("tree" if manifest.is_adopted else "survey", called(manifest)),
        ("rows", f"{manifest.rows:,}" + (f" ({manifest.rejected} objects rejected)" if manifest.rejected else "")),
        ("files", f"{_files(manifest):,} in {len(cells):,} cells (nside {manifest.nside}, nested)"),
        ("bytes", human_bytes(manifest.bytes)),
        ("sky", f"cells cover {covered_text(manifest)} of the sky; {bounds_text(manifest)}"),
        ("splits", _splits(manifest)),
        ("from", ", ".join(manifest.sources)),
        ("built by", " ".join(manifest.build.get("command", []))),
    ]


def _facts_in_place(manifest: Manifest) -> list[tuple[str, str]]:
    """Of published files, of which nobody has looked at the rows."""
    return [
        ("survey", manifest.survey),
        ("config", manifest.config),
        ("rows", f"{manifest.rows:,}"),
        ("files", f"{', '.join(entry.path for entry in manifest.files)}: as published, read where they lie"),
        ("bytes", human_bytes(manifest.bytes)),
        ("splits", _splits(manifest)),
        ("from", ", ".join(manifest.sources)),
    ]


def _files(manifest: Manifest) -> int:
    """How many files there are: an entry of an adopted tree may be many, each of one object."""
    noted = manifest.build.get("files") if manifest.is_adopted else None
    return noted if type(noted) is int else len(manifest.files)


def _facts_of_parquet(manifest: Manifest) -> list[tuple[str, str]]:
    """Of Parquet files that others wrote, whose footers say how many rows there are."""
    position = manifest.build.get("position")
    return [
        ("name", manifest.survey),
        ("rows", f"{manifest.rows:,}"),
        ("files", f"{len(manifest.files):,} of Parquet, read where they lie"),
        ("bytes", human_bytes(manifest.bytes)),
        ("position", " and ".join(position) if position else "no columns of right ascension and declination are known"),
        ("splits", _splits(manifest)),
        ("from", ", ".join(manifest.sources)),
    ]


def _splits(manifest: Manifest) -> str:
    return ", ".join(f"{name} {sum(entry.rows for entry in files):,}" for name, files in manifest.splits.items())


def facts(manifest: Manifest, in_cells: bool = True) -> dict:
    """What `skyset info` tells, for programs: counts, bytes, splits, sky bounds in degrees, sources, cuts and columns.

    Args:
        manifest: what is told.
        in_cells: see ``print_info``.
    """
    bounds = (
        {
            axis: [min(getattr(e, axis)[0] for e in manifest.files), max(getattr(e, axis)[1] for e in manifest.files)]
            for axis in ("ra", "dec")
        }
        if in_cells and manifest.files and not manifest.build.get("in_place")
        else {}
    )
    return {
        "survey": manifest.survey,
        "config": manifest.config,
        "rows": manifest.rows,
        "rejected": manifest.rejected,
        "files": _files(manifest),
        **({"cells": len({entry.healpix for entry in manifest.files}), "nside": manifest.nside} if in_cells else {}),
        "bytes": manifest.bytes,
        "splits": {name: sum(e.rows for e in files) for name, files in manifest.splits.items()},
        **bounds,
        "key": manifest.key,
        "sources": manifest.sources,
        "build": manifest.build,
        "columns": [row._asdict() for row in column_rows(manifest.columns)],
    }


def _cuts(steps: list[dict]) -> Table:
    """How much each cut on the catalogue removed."""
    from skyset.tables.cuts import Counts

    try:
        return Counts.from_json(steps).table()
    except ValueError as error:
        raise UserError(f"the manifest's cuts cannot be read: {error}") from error


def covered_text(manifest: Manifest) -> str:
    """What the cells that have rows cover: ``13 deg2, 0.0%``."""
    share = len({entry.healpix for entry in manifest.files}) / (12 * manifest.nside**2)
    return f"{share * SKY_DEG2:,.0f} deg2, {share:.1%}"


def bounds_text(manifest: Manifest) -> str:
    """Between which right ascensions and declinations the rows lie."""
    if not manifest.files:
        return "no rows"
    low, high = min(entry.dec[0] for entry in manifest.files), max(entry.dec[1] for entry in manifest.files)
    west, east = ra_range([entry.ra for entry in manifest.files])
    through = " through 0" if west > east else ""
    return f"RA {west:.3f} to {east:.3f}{through}, Dec {low:+.3f} to {high:+.3f} deg"


def ra_range(bounds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The shortest range of right ascension, degrees eastwards, that holds all these; from above to below where it holds 0.

    A file on both sides of 0 has bounds that are more than 180 deg apart: it lies outside of them.
    """
    spans = sorted((high - 360, low) if high - low > 180 else (low, high) for low, high in bounds)
    end, gaps = spans[0][1], []
    for start, high in spans[1:]:
        gaps.append((start - end, end, start))
        end = max(end, high)
    gaps.append((spans[0][0] + 360 - end, end, spans[0][0]))
    _, east, west = max(gaps)
    return west % 360, east % 360 if east != 360 else east
