"""The command that measures images: extract."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from skyset.cli.app import app, end
from skyset.cli.pictures import picture_path, save_figure
from skyset.cli.running import Scheduler
from skyset.files import keep_inputs


class _SExtractorOptions(TyperCommand):
    """`-DETECT_THRESH 3`, as SExtractor's users write it, is `--set DETECT_THRESH=3`."""

    def parse_args(self, context, arguments: list[str]) -> list[str]:
        rest, written = iter(arguments), []
        for argument in rest:
            if re.fullmatch(r"-[A-Z][A-Z0-9_]+", argument):
                written += ["--set", f"{argument[1:]}={next(rest, '')}"]
            else:
                written.append(argument)
        return super().parse_args(context, written)


@app.command(
    cls=_SExtractorOptions,
    help="Detect and measure the sources of a FITS image, or of every extension of a mosaic: SExtractor's quantities, names "
    "and configuration files. Works without a configuration too.",
    epilog="Examples:\n\n"
    "skyset extract image.fits -o sources.parquet\n\n"
    "skyset extract image.fits -c default.sex -o cat.ldac --check segmentation.fits,background.fits\n\n"
    "skyset extract image.fits -DETECT_THRESH 3 -MAG_ZEROPOINT 27 --columns X_IMAGE,Y_IMAGE,MAG_AUTO -o bright.csv\n\n"
    "skyset extract image.fits -o cat.ldac --plot sources.png\n\n"
    "skyset extract image.fits --engine sep -o sources.csv\n\n"
    "Any keyword of SExtractor may be given as -KEYWORD value. What is not honoured is said.",
)
def extract(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="a FITS file; every 2-D image of the sky in it is "
            "measured; image.fits\\[1], image.fits\\[SCI] and image.fits\\[SCI,2] are one of "
            "them, cube.fits\\[0]\\[2] a plane of a cube",
        ),
    ],
    config: Annotated[Path | None, typer.Option("-c", "--config", metavar="SEX", help="SExtractor's configuration")] = None,
    parameters: Annotated[
        Path | None,
        typer.Option(
            "-p", "--parameters", metavar="PARAM", help="the columns wanted, one a line (default: PARAMETERS_NAME)"
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B", help="instead of a .param file: X_IMAGE,Y_IMAGE,FLUX_RADIUS(2)")
    ] = None,
    skip_unknown: Annotated[
        bool,
        typer.Option(
            "--skip_unknown", help="leave out what is not measured here, and columns of the sky where an image has none"
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="the catalogue: .ldac, .fits, "
            ".parquet, .csv, .csv.gz, .vot (default: CATALOG_NAME, or IMAGE's name with "
            ".ldac)",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="ldac, fits, parquet, csv, ascii_head, ascii or votable (default: by the ending, then CATALOG_TYPE)",
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="FILES",
            help="check images, by their names (segmentation.fits,background.fits,rms.fits) or as TYPE=FILE",
        ),
    ] = None,
    weight: Annotated[
        Path | None,
        typer.Option("--weight", metavar="FITS", help="weights, such as both.fits\\[WHT] (default: WEIGHT_IMAGE)"),
    ] = None,
    flag: Annotated[Path | None, typer.Option("--flag", metavar="FITS", help="flag image (default: FLAG_IMAGE)")] = None,
    classifier: Annotated[
        Path | None,
        typer.Option("--classifier", metavar="NNW", help="SExtractor's default.nnw (default: STARNNW_NAME, else our own)"),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="what finds and measures: compiled, our own "
            "kernels, has every column and needs numba; sep, the package, has most and "
            "starts at once (default: compiled where numba is installed)",
        ),
    ] = None,
    seeing: Annotated[
        str | None,
        typer.Option(
            "--seeing",
            metavar="ARCSEC",
            help="FWHM of a star: CLASS_STAR "
            "needs it, and the WCS's or -PIXEL_SCALE's pixel (default: SEEING_FWHM); "
            "auto: from the stars of each image",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEYWORD=VALUE", help="instead of the configuration's value; the same as -KEYWORD VALUE"
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, metavar="N", help="extensions at once (default: one per core)")
    ] = None,
    scheduler: Scheduler = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="PNG", help="the image, each source in an ellipse")] = None,
) -> None:
    def run() -> None:
        from skyset.extraction import command

        inputs = {"the image": re.sub(r"\[[^]]*\]$", "", image), "the weights": weight, "the flag image": flag}
        inputs |= {"the configuration": config, "the list of columns": parameters, "the classifier": classifier}
        picture = None if plot is None else picture_path(plot)
        for each in (picture, output):
            keep_inputs(each, inputs)
        keep_inputs(picture, {"the catalogue": output})
        made = command.extract(
            image,
            config,
            parameters=parameters,
            columns=columns,
            skip_unknown=skip_unknown,
            overrides=[*(set_ or []), *([] if seeing is None else [f"SEEING_FWHM={seeing}"])],
            output=output,
            format=format,
            check=check,
            weight=weight,
            flag_image=flag,
            classifier=classifier,
            engine=engine,
            processes=processes,
            scheduler=scheduler,
            draw=picture is not None,
            plot=picture,
            tell=functools.partial(print, "skyset:", file=sys.stderr),
        )
        print(made)
        if picture is not None:
            save_figure(made.figure(), picture)

    end(run)
