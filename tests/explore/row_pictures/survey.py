"""A survey without a plot of its own, whose rows have bands, a spectrum and a light curve of any length, in groups."""

import numpy as np

from skyset.builder import SurveyBuilder
from skyset.survey import Column, Feature, Layers
from tests.explore.row_pictures import rows
from tests.matched import declared, write_survey

FLUX_UNIT = "10**-17 erg / (s cm2 Angstrom)"
ARRAYS = (
    Column("image_band", "S1", (3,)),
    Column("image_array", "float32", (3, 48, 48), "nmgy"),
    Column("image_scale", "float32", (3,), "arcsec"),
    Column("spectrum_flux", "float32", (-1,), FLUX_UNIT),
    Column("spectrum_ivar", "float32", (-1,)),
    Column("spectrum_lambda", "float32", (-1,), "Angstrom"),
    Column("lightcurve_band", "S1", (-1,)),
    Column("lightcurve_time", "float64", (-1,), "d"),
    Column("lightcurve_mag", "float32", (-1,), "mag"),
)
SCALARS = (Column("Z", "float32"), Column("obj_type", "S4"))
GROUPS = (
    Layers("image", (), "", {"band": "image_band", "flux": "image_array", "scale": "image_scale"}),
    Layers("spectrum", (), "", {key: f"spectrum_{key}" for key in ("flux", "ivar", "lambda")}),
    Layers("lightcurve", (), "", {key: f"lightcurve_{key}" for key in ("band", "time", "mag")}),
)
_POSITION = ("object_id", "ra", "dec", "healpix")
FEATURES = (*(Feature(name, name) for name in (*_POSITION, "Z", "obj_type")), *GROUPS)
SURVEY = declared("pictured", *ARRAYS, *SCALARS, features=FEATURES)


class Pictured(SurveyBuilder):
    SURVEY = SURVEY


def write(root, count=4):
    """So many rows in one cell; spectra and light curves of row k are k + 1 times as long."""
    spectra = [rows.spectrum(500 * (k + 1), redshift=0.1 * k, seed=k) for k in range(count)]
    curves = [rows.light_curve("gr", 5 * (k + 1)) for k in range(count)]
    images = [rows.bands("gri", seed=k) for k in range(count)]
    values = {f"spectrum_{key}": [each[key] for each in spectra] for key in ("flux", "ivar", "lambda")}
    values |= {"lightcurve_band": [np.array(each["band"], "S1") for each in curves]}
    values |= {
        "lightcurve_time": [each["time"] for each in curves],
        "lightcurve_mag": [each["flux"] + 19 for each in curves],
    }
    values |= {"image_band": [np.array(list("gri"), "S1")] * count, "image_array": [each["flux"] for each in images]}
    values |= {"image_scale": [each["scale"] for each in images], "Z": 0.1 * np.arange(count), "obj_type": ["SNIa"] * count}
    # Python's dtypes are those of the columns.
    for column in ARRAYS:
        if column.dtype.startswith("float"):
            values[column.name] = [np.asarray(each, column.dtype) for each in values[column.name]]
    values["Z"] = values["Z"].astype(np.float32)
    return write_survey(root, SURVEY, 150 + 0.01 * np.arange(count), np.full(count, 2.0), **values)
