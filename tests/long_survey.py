"""A small survey of ragged columns and groups without labels: spectra with padding, light curves, an image of bands."""

from skyset.builder import SurveyBuilder
from skyset.survey import Column, Feature, Layers, Trim
from tests.matched import OBJECT, declared

NAME = "long_rows"
GROUPS = {
    "spectrum": {"flux": "spectrum_flux", "lambda": "wave", "mask": "spectrum_mask"},
    "lightcurve": {"band": "band", "time": "time", "flux": "lc_flux"},
    "image": {"band": "image_band", "flux": "image_array"},
    "catalog": {"flux": "catalog_flux", "type": "catalog_type"},
}
#: What ``skyset.register("long_rows", "tests.long_survey")`` makes known.
SURVEY = declared(
    NAME,
    Column("spectrum_flux", "float32", (-1,), "1e-17 erg s-1 cm-2 Angstrom-1", "flux", typical_bytes=200),
    Column("wave", "float32", (-1,), "Angstrom", "wavelength", typical_bytes=200),
    Column("spectrum_mask", "bool", (-1,), "", "bad pixels", typical_bytes=50),
    Column("band", "S2", (-1,), "", "filter", typical_bytes=50),
    Column("time", "float64", (-1,), "d", "time of observation", typical_bytes=200),
    Column("lc_flux", "float32", (-1,), "", "flux of the light curve", typical_bytes=100),
    Column("image_band", "S2", (3,), "", "filter"),
    Column("image_array", "float32", (3, 16, 16), "nJy", "pixels"),
    Column("catalog_flux", "float32", (4,), "nmgy", "of the sources beside"),
    Column("catalog_type", "int16", (4,), "", "of the sources beside"),
    Column("cube", "int16", (-1, 2, 3), "", "planes", typical_bytes=100),
    Column("panels", "float64", (2, -1), "", "two rows", typical_bytes=100),
    Column("z", "float32", (), "", "redshift"),
    features=(
        *(Feature(column.name, column.name) for column in OBJECT),
        *(Layers(name, (), "", fields) for name, fields in GROUPS.items()),
        *(Feature(name, name) for name in ("cube", "panels", "z")),
    ),
    image_axes={"image.flux": 1},
    trims=(
        Trim(("spectrum_flux", "wave", "spectrum_mask"), "wave", (-1.0,), "end"),
        Trim(("band", "time", "lc_flux"), "time", (0.0, float("nan"))),
    ),
)


class LongRows(SurveyBuilder):
    """``load_dataset("long_rows", data_dir=...)``."""

    SURVEY = SURVEY
