"""Pairs of objects of two catalogues, as ``skyset crossmatch LEFT RIGHT --partitions DIR`` writes them.

A row is a pair: who is matched with whom, where both are, and how far apart. It lies in the HEALPix cell of the left object.
"""

from skyset.builder import SurveyBuilder
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Survey
from skyset.survey import plain_features

COLUMNS = (
    Column("object_id", "S64", (), "", "the left object"),
    Column("object_id_right", "S64", (), "", "the right object"),
    Column("pair", "S129", (), "", "both names with a | between; unique to a row"),
    Column("ra", "float64", (), "deg", "right ascension of the left object"),
    Column("dec", "float64", (), "deg", "declination of the left object"),
    Column("ra_right", "float64", (), "deg", "right ascension of the right object"),
    Column("dec_right", "float64", (), "deg", "declination of the right object"),
    Column("separation_arcsec", "float64", (), "arcsec", "great-circle distance of the two positions"),
    HEALPIX,
)

SURVEY = Survey(
    name="crossmatch",
    title="Pairs of objects of two catalogues, made by skyset crossmatch",
    homepage="",
    citation="",
    license="that of the two catalogues",
    base_url="",
    columns=COLUMNS,
    features=plain_features(COLUMNS, {}),
    key="pair",
)


class Crossmatch(SurveyBuilder):
    """``load_dataset("crossmatch", data_dir=..., split="train")`` after ``import skyset``."""

    SURVEY = SURVEY
