"""The command that matches catalogues: crossmatch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyset.cli.app import app, console, end
from skyset.cli.running import Scheduler
from skyset.errors import UserError
from skyset.files import human_bytes, keep_inputs, keep_others
from skyset.loading import registry
from skyset.secrets import without_login

if TYPE_CHECKING:
    from skyset.explore.match_table import Asked


@app.command(
    help="Objects of two or more catalogues that belong together: folders of partitions, HATS or pushed Parquet, or csv, "
    "fits, vot or parquet files; as a table, or with --images as rows with the columns and pixels of all. As a stream of "
    "such rows: skyset.crossmatch in Python.",
    epilog="Examples:\n\n"
    "skyset crossmatch data/gz_decals data/gz2 --radius 1 -o pairs.parquet\n\n"
    "skyset crossmatch data/gz3d mine.fits --ra RAJ2000:hour --dec DEJ2000 --how left -o all.csv\n\n"
    "skyset crossmatch gaia.parquet data/sdss_galaxy_zoo --pm --epochs 2016=2005 -o stars.fits\n\n"
    "skyset crossmatch data/gz3d data/sdss_galaxy_zoo data/gz_decals --radius 3 --partitions data/three --images\n\n"
    "What stands for each catalogue is written A=B, or once where all call it the same; --ra and --dec once: for the "
    "files, as partitions have ra and dec.",
)
def crossmatch(
    left: Annotated[
        str, typer.Argument(metavar="LEFT", help="a folder or URL of partitions, HATS or pushed Parquet; or a file")
    ],
    right: Annotated[str, typer.Argument(metavar="RIGHT", help="the same")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MORE]...", help="further ones, each matched with LEFT", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help=".parquet, .csv, .csv.gz, .fits or .vot")
    ] = None,
    radius: Annotated[float, typer.Option("--radius", metavar="ARCSEC", help="largest separation")] = 1.0,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="COLUMN[=COLUMN]",
            help="match equal names instead of positions: iauname, id_str, left_name=right_name",
        ),
    ] = None,
    how: Annotated[
        str,
        typer.Option(
            "--how",
            metavar="HOW",
            help="inner: left objects that have a match; left: all of them; nearest: the nearest match alone",
        ),
    ] = "inner",
    best: Annotated[
        str,
        typer.Option(
            "--best", metavar="HOW", help="all pairs, the nearest of each left object, or mutual (nearest of each other)"
        ),
    ] = "all",
    ids: Annotated[
        str | None,
        typer.Option(
            "--ids",
            metavar="COLUMN[=COLUMN]",
            help="the names of objects (default: object_id, iauname, id, ..., whichever is there)",
        ),
    ] = None,
    ra: Annotated[
        str | None,
        typer.Option(
            "--ra",
            metavar="COLUMN[:UNIT][=COLUMN]",
            help="right ascension, unit deg, hour or rad (default: ra, RAJ2000, ALPHA_J2000, ..., whichever is there, in "
            "the table's unit or degrees)",
        ),
    ] = None,
    dec: Annotated[str | None, typer.Option("--dec", metavar="COLUMN[:UNIT][=COLUMN]", help="declination")] = None,
    pm: Annotated[
        bool,
        typer.Option("--pm", help="take objects with proper motions (pmra, pmdec) to the epoch of the catalogues without"),
    ] = False,
    epochs: Annotated[
        str | None,
        typer.Option(
            "--epochs", metavar="YEAR=YEAR", help="of the positions, for --pm (default: a column ref_epoch's, else 2000)"
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="A,B",
            help="further columns of any side for the table: mag_r becomes mag_r_left, mag_r_right; of three, mag_r_1 ...",
        ),
    ] = None,
    partitions: Annotated[
        Path | None,
        typer.Option(
            "--partitions", metavar="DIR", help='the pairs as partitions too: load_dataset("crossmatch", data_dir=DIR)'
        ),
    ] = None,
    images: Annotated[
        bool,
        typer.Option(
            "--images",
            help="--partitions gets the columns of all sides (of --columns those), pixels included: skyset.load(DIR)",
        ),
    ] = False,
    names: Annotated[
        str | None,
        typer.Option(
            "--names", metavar="A,B", help="what the columns of each are named by, for --images (default: the surveys)"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace a file that is no table of matches, or rows of another match in DIR")
    ] = False,
    scheduler: Scheduler = None,
) -> None:
    def run() -> None:
        from skyset.explore.match_table import Asked

        if output is None and partitions is None:
            raise UserError("where to? -o pairs.parquet, or --partitions DIR")
        if partitions is not None and more and not images:
            raise UserError("--partitions takes pairs, of two catalogues; -o FILE takes more, and so does --images")
        sources = tuple(without_login(each) for each in (left, right, *(more or ())))
        asked = Asked(sources, radius, key, how, best, ids, ra, dec, columns, pm, epochs)
        if images:
            without = {"-o": output, "--key": key, "--ids": ids, "--scheduler": scheduler}
            if partitions is None or any(each is not None for each in without.values()):
                given = next((name for name, each in without.items() if each is not None), "")
                raise UserError(f"--images is without {given}" if given else "--images is for --partitions DIR")
            _with_images(asked, partitions, names, overwrite)
            return
        if names is not None:
            raise UserError("--names is for --images")
        _crossmatch(asked, output, partitions, scheduler, overwrite)

    end(run)


def _with_images(asked: Asked, folder: Path, names: str | None, overwrite: bool) -> None:
    from skyset.explore.match_table import stream_of_matches
    from skyset.explore.matched_partitions import to_partitions

    stream = stream_of_matches(asked, names.split(",") if names else None)
    console.print(f"{len(stream):,} matches", highlight=False)
    manifest = to_partitions(stream, folder, overwrite=overwrite, command=["skyset", *sys.argv[1:]])
    print(f"wrote {folder}: {manifest.rows:,} rows, {human_bytes(manifest.bytes)}")


def _crossmatch(asked: Asked, output: Path | None, partitions: Path | None, scheduler: str | None, overwrite: bool) -> None:
    from skyset.explore.match_table import table_of_matches
    from skyset.explore.pairs import write_partitions
    from skyset.explore.pairs_file import check_output, is_matches, write_pairs

    if output is not None:
        check_output(output)
        names = ["the left catalogue", "the right catalogue", *(f"catalogue {n}" for n in range(3, len(asked.sources) + 1))]
        keep_inputs(output, dict(zip(names, asked.sources, strict=True)))
        keep_others(output, is_matches, "table of matches", overwrite)
    table, counts, alone = table_of_matches(asked, scheduler)
    many = ", ".join(f"{count:,}" for count in counts[:-1]) + f" and {counts[-1]:,}"
    without = f"; {alone:,} of {counts[0]:,} have none" if asked.how == "left" else ""
    matches = "pairs" if len(counts) == 2 else "matches"
    rows = table.num_rows - (alone if asked.how == "left" and len(counts) == 2 else 0)
    console.print(f"{rows:,} {matches} of {many} objects{without}", highlight=False)
    if output is not None:
        write_pairs(table, output)
        print(f"wrote {output}")
    if partitions is not None:
        command = ["skyset", *sys.argv[1:]]
        write_partitions(table, partitions, registry.survey("crossmatch"), command, list(asked.sources))
        print(f"wrote {partitions}")
