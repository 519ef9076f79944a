"""A survey of somebody's own in one file, as users write one: loader, and build script over a folder of JPEGs with a CSV."""

import csv
import io

import numpy as np

from skyset.builder import SurveyBuilder
from skyset.building.build import build
from skyset.building.script import Script
from skyset.building.task import Found, Item
from skyset.sky import healpix_cell
from skyset.survey import HEALPIX, Column, Survey, plain_features

COLUMNS = (
    Column("object_id", "S16", (), "", "name of the JPEG"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS)"),
    Column("dec", "float64", (), "deg", "declination (ICRS)"),
    HEALPIX,
    Column("image", "uint8", (16, 16, 3), "", "RGB"),
    Column("mag_r", "float32", (), "mag", "r-band magnitude"),
)
SURVEY = Survey(
    name="my_survey",
    title="Galaxies of mine",
    homepage="https://example.org",
    citation="@misc{me, title = {Mine}}",
    license="CC-BY-4.0",
    base_url="",
    columns=COLUMNS,
    features=plain_features(COLUMNS, {}, ()),
    image_axes={"image": 0},
)
BUILD_SCRIPT = __name__


class MySurvey(SurveyBuilder):
    SURVEY = SURVEY


def read_record(path):
    from PIL import Image

    row = next(row for row in rows(path.parent) if row["object_id"] == path.stem)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return {"image": pixels} | {name: float(row[name]) for name in ("mag_r", "ra", "dec")}


def rows(folder):
    return list(csv.DictReader(io.StringIO((folder / "objects.csv").read_text())))


def find_items(options, network):
    folder = options.local_data_path
    return Found(
        [
            Item(
                row["object_id"], str(folder / f"{row['object_id']}.jpg"), healpix_cell(float(row["ra"]), float(row["dec"]))
            )
            for row in rows(folder)
        ]
    )


def build_all(asked, options, command):
    return build(SURVEY, read_record, options, find_items, command)


SCRIPT = Script(__doc__, SURVEY, build_all, raw="jpg")
parser, main = SCRIPT.parser, SCRIPT.main
