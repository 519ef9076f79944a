"""My survey: what it is, in a line or two. Instrument, sample, size, paper."""

from skyset.builder import SurveyBuilder
from skyset.survey import HEALPIX, Column, Survey, plain_features

BUILD_SCRIPT = "skyset.template.build_my_survey"

#: What the values 0, 1, ... of a column of classes are called; the table has these words.
CLASSES = {
    "kind": ("elliptical", "spiral"),
}

#: Name, dtype, shape, unit (as FITS writes it) and meaning; the features, the HDF5 attributes and the card follow.
COLUMNS = (
    Column("object_id", "S24", (), "", "name of the object"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS)"),
    Column("dec", "float64", (), "deg", "declination (ICRS)"),
    HEALPIX,
    Column("image", "bytes", (), "", "colour image, PNG or JPEG as it came", typical_bytes=15000),
    Column("mag_r", "float32", (), "mag", "r-band magnitude; NaN where not given"),
    Column("kind", "int64", (), "", "what it looks like; -1 where not given"),
)

SURVEY = Survey(
    name="my_survey",
    title="My survey: what it is, in one line",
    homepage="https://example.org/my_survey",
    citation="@misc{my_survey, title = {My survey}, author = {Me}}",
    license="CC-BY-4.0",
    base_url="",
    columns=COLUMNS,
    features=plain_features(COLUMNS, CLASSES),
    image_axes={"image": 0},
)


class MySurvey(SurveyBuilder):
    """``load_dataset("my_survey", split="train")`` where the survey is registered; see README.md."""

    SURVEY = SURVEY
