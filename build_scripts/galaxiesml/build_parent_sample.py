"""Build GalaxiesML as partitions in HEALPix cells, from the archive of Hyper Suprime-Cam or from the published files.

    export SSP_PDR_USR=... SSP_PDR_PWD=...         # an account of the archive; or ~/.netrc, or a prompt
    skyset build galaxiesml --tiny
    skyset build galaxiesml -o data/galaxiesml     # 286,401 galaxies: days of downloads, see the card
    skyset build galaxiesml --local_data_path DIR  # converts the published files, and --published those of Zenodo
    skyset build galaxiesml --print_sql            # for the archive's page; its answer is a --catalog

Query, cuts, images in five bands by lists of cutouts, shapes measured in each band, three datasets. It can be interrupted at
any moment: the same command goes on from what is complete. In the output folder lie ``127``, ``64`` and ``tabular``, each a
dataset with its manifest; GalaxiesML_filtered.csv.gz, the catalogue after the cuts; Images/*.tar with the cutouts of 1,000
galaxies each; catalog/, the archive's answer.
"""

import argparse
import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from skyset.build_scripts.galaxiesml import catalog
from skyset.build_scripts.galaxiesml.asked import check_options, shared
from skyset.build_scripts.galaxiesml.published import add_published_options, build_published
from skyset.build_scripts.galaxiesml.records import TOGETHER, Reading, read_galaxies, read_galaxy
from skyset.build_scripts.galaxiesml.single_files import write_single_files
from skyset.build_scripts.galaxiesml.splits import split_of
from skyset.building.alone import alone
from skyset.building.cutouts.declaration import Config, Cutouts
from skyset.building.cutouts.lists import DasImages
from skyset.building.cutouts.options import add_config_options, add_das_options, add_tar_option
from skyset.building.cutouts.plan import build_cutouts
from skyset.building.cutouts.stamps import CENTRINGS
from skyset.building.options import Options
from skyset.building.script import Script, run_as_file
from skyset.extraction.engines import need_compiled
from skyset.loaders.galaxiesml import CONFIGS, RAW, SURVEY
from skyset.survey import Survey

#: Columns that a build has if they were asked for.
PLANES, PSF = ("mask", "variance"), "psf"
#: The middle 64 x 64 pixels of 127 x 127: the target is at [32, 32].
MIDDLE = slice(31, 95)


def reading(asked: argparse.Namespace) -> Reading:
    """How columns are made, as asked for."""
    planes = tuple(plane for plane in PLANES if plane in asked.planes)
    return Reading(float(asked.pad), asked.centring, planes, asked.psf, not asked.no_sersic)


def as_asked(survey: Survey, how: Reading) -> Survey:
    """A dataset's declaration with the columns that are made like this."""
    without = {column.name for column in RAW} | {*PLANES, PSF} - {*how.planes, *([PSF] if how.psf else [])}
    return survey.as_built([column for column in survey.columns if column.name not in without])


def middle(values: Mapping) -> dict:
    """The middle of the pixels of a galaxy, and all else."""
    cut = {name: np.ascontiguousarray(values[name][:, MIDDLE, MIDDLE]) for name in ("image", *PLANES) if name in values}
    return {**values, **cut}


def nothing(row: Mapping) -> dict:
    """What is kept of a galaxy beside its row of the catalogue."""
    return {}


def cutouts(asked: argparse.Namespace, how: Reading) -> Cutouts:
    """The survey, as asked for."""
    surveys = {name: as_asked(survey, how) for name, survey in CONFIGS.items()}
    return Cutouts(
        survey=surveys["127"],
        columns=catalog.COLUMNS,
        filtered="GalaxiesML_filtered.csv.gz",
        source=catalog.source,
        cuts=catalog.cuts,
        images=DasImages.asked,
        describe=nothing,
        read=functools.partial(read_galaxy, reading=how),
        sql=catalog.PRINTED,
        described=(),
        splits=functools.partial(split_of, published=asked.splits),
        configs={name: Config(survey, middle if name == "64" else dict) for name, survey in surveys.items()},
        read_together=functools.partial(read_galaxies, reading=how),
        together=TOGETHER,
        settings=how.to_json(),
    )


def build(asked: argparse.Namespace, options: Options, command: Sequence[str]) -> int:
    """Build what was asked for; returns the exit status."""
    declared = cutouts(asked, reading(asked))
    if asked.print_sql:
        return build_cutouts(declared, asked, options, command)
    check_options(asked, SCRIPT.parser())
    if asked.published or options.local_data_path is not None:
        status = build_published(asked, options, command)
    else:
        need_compiled("measuring shapes")
        declared = dataclasses.replace(declared, asked=shared(asked))
        with alone(options.output_dir):
            status = build_cutouts(declared, asked, options, command)
    if asked.single_files is not None:
        write_single_files(options.output_dir, asked.single_files)
    return status


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this survey."""
    add_published_options(parser.add_argument_group("published files").add_argument)
    catalog.add_options(parser.add_argument_group("catalogue").add_argument)
    add = parser.add_argument_group("cutouts").add_argument
    add_das_options(add)
    add_tar_option(add)
    add = parser.add_argument_group("columns").add_argument
    add_config_options(add, tuple(CONFIGS))
    add("--pad", choices=("0", "nan"), default="0", help="where a cutout has no pixels (default: %(default)s, as published)")
    add(
        "--centring",
        choices=CENTRINGS,
        default="wcs",
        help="wcs puts the pixel that the galaxy is in into the middle; published puts the same border around each cutout, "
        "as the authors do (default: %(default)s)",
    )
    add(
        "--no_sersic",
        action="store_true",
        help="no Sersic fits: their columns are NaN, and measuring takes a third of the time",
    )


SCRIPT = Script(__doc__, SURVEY, build, add_options)
parser, main = SCRIPT.parser, SCRIPT.main

if __name__ == "__main__":
    run_as_file("skyset.build_scripts.galaxiesml.build_parent_sample")
