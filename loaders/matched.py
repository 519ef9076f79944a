"""Rows of surveys that show the same objects, with the columns of all: ``skyset crossmatch A B --partitions DIR --images``.

Which columns there are follows from what was matched: those of each side are called ``<side>.<column>``, and the features
are the sides' own, ``gz3d.image``, ``sdss_galaxy_zoo.image``. A row lies in the HEALPix cell of the first side's object.
"""

from skyset.builder import SurveyBuilder
from skyset.noted import of_build
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Survey
from skyset.survey import plain_features

COLUMNS = (
    Column("object_id", "S128", (), "", "the names of the sides' objects, joined by vertical bars; unique to a row"),
    Column("ra", "float64", (), "deg", "right ascension of the first side's object"),
    Column("dec", "float64", (), "deg", "declination of the first side's object"),
    HEALPIX,
)

SURVEY = Survey(
    name="matched",
    title="Rows of several surveys that show the same objects, made by skyset crossmatch",
    homepage="",
    citation="",
    license="those of the surveys",
    base_url="",
    columns=COLUMNS,
    features=plain_features(COLUMNS, {}),
    of_build=of_build,
)


class Matched(SurveyBuilder):
    """``load_dataset("matched", data_dir=..., split="train")`` after ``import skyset``."""

    SURVEY = SURVEY
