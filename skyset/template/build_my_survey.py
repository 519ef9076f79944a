"""Build my_survey: a folder of images and a table, an object a row.

    skyset build my_survey --module my_survey/my_survey.py -o data/my_survey
    skyset build my_survey --module my_survey/my_survey.py --local_data_path photos --table catalogue.csv

Rows without a position or an image, and images that are damaged, are named in rejected.csv. The same command goes on where
it was stopped, and makes rows again whose image or table changed.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from skyset.building.build import build
from skyset.building.image_folder import Names, Table, image_value
from skyset.building.options import Options
from skyset.building.script import Script
from skyset.building.task import Found
from skyset.template.my_survey import CLASSES, COLUMNS, SURVEY

#: Where the images and the table are, unless the command says otherwise.
FOLDER, TABLE = "photos", "catalogue.csv"
#: What the table calls these; the other columns have the same name here and there.
NAMES = Names(object_id="object_id", ra="ra", dec="dec", image="object_id")


def read(image: Path, row: int, _: int, *, table: Table) -> dict:
    """One object, a value per column: change it where your files need more. RecordError rejects the object."""
    return table.row(row) | {"image": image_value(image, SURVEY.column("image"))}


def find(options: Options, _network, *, table: Table) -> Found:
    """The objects to build."""
    return table.find(options.local_data_path or Path(FOLDER), options.limit)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this survey."""
    add = parser.add_argument_group("images and table").add_argument
    add(
        "--local_data_path",
        type=Path,
        default=Path(FOLDER),
        metavar="DIR",
        help="the images, at any depth (default: %(default)s)",
    )
    add(
        "--table",
        type=Path,
        default=Path(TABLE),
        metavar="FILE",
        help="csv, fits, vot or parquet, each also .gz (default: %(default)s)",
    )


def build_all(asked: argparse.Namespace, options: Options, command: Sequence[str]) -> int:
    """Build what was asked for; returns the exit status."""
    table = Table(asked.table, NAMES, COLUMNS, CLASSES)
    return build(SURVEY, functools.partial(read, table=table), options, functools.partial(find, table=table), command)


SCRIPT = Script(__doc__, SURVEY, build_all, add_options)
parser, main = SCRIPT.parser, SCRIPT.main
