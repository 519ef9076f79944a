"""A survey shaped like GalaxiesML, of noise: five 64 x 64 float32 images and sixty numbers per row. For benchmarks only."""

from skyset.builder import SurveyBuilder
from skyset.survey import HEALPIX, Column, Feature, Survey

NUMBERS = [
    f"{band}_{name}"
    for band in "grizy"
    for name in (
        "mag",
        "magerr",
        "ellipticity",
        "half_light_radius",
        "isophotal_area",
        "major_axis",
        "minor_axis",
        "peak_surface_brightness",
        "petro_rad",
        "pos_angle",
        "sersic_index",
        "total_galaxies",
    )
]

COLUMNS = (
    Column("object_id", "S20"),
    Column("ra", "float64", (), "deg"),
    Column("dec", "float64", (), "deg"),
    HEALPIX,
    Column("image", "float32", (5, 64, 64)),
    *(Column(name, "float32") for name in NUMBERS),
)

SURVEY = Survey(
    name="galaxiesml_like",
    title="Noise in the shape of GalaxiesML",
    homepage="",
    citation="",
    license="",
    base_url="",
    columns=COLUMNS,
    features=tuple(Feature(column.name, column.name) for column in COLUMNS),
)


class GalaxiesMLLike(SurveyBuilder):
    """Noise in the shape of GalaxiesML."""

    SURVEY = SURVEY
