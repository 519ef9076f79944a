"""Build my_survey: a folder of images and a table, an object a row.

    skyset build my_survey --module my_survey/my_survey.py -o data/my_survey
    skyset build my_survey --module my_survey/my_survey.py --local_data_path photos --table catalogue.csv

Rows without a position or an image, and images that are damaged, are named in rejected.csv. The same command goes on where
it was stopped, and makes rows again whose image or table changed.
"""

import functools
import sys
from pathlib import Path

from skyset.building.build import build
from skyset.building.image_folder import Names
from skyset.building.image_folder import Table
from skyset.building.image_folder import image_value
from skyset.building.options import BuildParser
from skyset.building.options import Options
from skyset.building.task import Found
from skyset.command_line import main as run
from skyset.template.my_survey import CLASSES
from skyset.template.my_survey import COLUMNS
from skyset.template.my_survey import SURVEY

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


def parser(program: str | None = None) -> BuildParser:
    """The command line."""
    known = BuildParser(program, __doc__, SURVEY)
    add = known.add_argument_group("images and table").add_argument
    add("--local_data_path", type=Path, default=Path(FOLDER), metavar="DIR",
        help="the images, at any depth (default: %(default)s)")
    add("--table", type=Path, default=Path(TABLE), metavar="FILE",
        help="csv, fits, vot (each also .gz) or parquet (default: %(default)s)")
    return known


def main(arguments: list[str] | None = None, program: str | None = None) -> int:
    """Run a command line; returns the exit status: 0, 1 where objects were rejected, 2 where nothing can be built."""
    known = parser(program)
    asked = known.parse_args(arguments)
    command = [known.prog, *(sys.argv[1:] if arguments is None else arguments)]
    table = Table(asked.table, NAMES, COLUMNS, CLASSES)
    how = functools.partial(read, table=table), Options.from_arguments(asked), functools.partial(find, table=table)
    return run(lambda: build(SURVEY, *how, command))
