"""Padding is recognised by values; what is no padding is not."""

import numpy as np
import pytest

from skyset.adopting.families import Family, families
from skyset.adopting.fields import Field
from skyset.adopting.padding import evidence, trimmed_by


def of(*fields):
    return {name: Field(name, dtype, dims) for name, dtype, dims in fields}


SPECTRUM = of(
    ("spectrum_flux", "float32", (9,)), ("spectrum_ivar", "float32", (9,)), ("spectrum_lambda", "float32", (9,)),
    ("spectrum_mask", "bool", (9,)), ("spectrum_B_ind_start", "int32", ()), ("z", "float32", ()),
)  # fmt: skip
CURVES = of(("time", "float32", (2, 5)), ("flux", "float32", (2, 5)), ("bands", "S4", (2,)), ("z", "float32", ()))


def test_families_by_wavelength_time_mask_and_parts():
    names = ("spectrum_flux", "spectrum_ivar", "spectrum_lambda", "spectrum_mask")
    assert families(SPECTRUM) == [Family("spectrum_lambda", "wave", names)]
    assert families(CURVES) == [Family("time", "time", ("time", "flux"))]
    masked = {name: field for name, field in SPECTRUM.items() if name != "spectrum_lambda"}
    beside = ("spectrum_ivar", "spectrum_flux")
    assert families(masked) == [Family("spectrum_mask", "mask", (names[0], names[1], names[3]), beside)]
    assert families(of(("lightcurve", "float64", (6, 3, 50)))) == [Family("lightcurve", "parts", ("lightcurve",))]
    assert families(of(("image_mask", "bool", (5, 8, 8)), ("time", "float64", ()))) == []


def test_wavelengths():
    family = families(SPECTRUM)[0]
    rows = np.array([[1, 2, 3, 4], [1, 2, -1, -1]], "f4")
    assert evidence(family, {"spectrum_lambda": rows}) == {"-1": 1}
    assert evidence(family, {"spectrum_lambda": np.abs(rows)}) == {}
    assert evidence(family, {"spectrum_lambda": np.array([[1, 2, 0, 0], [1, 2, 3, np.nan]])}) == {"0": 1, "nan": 1}
    assert trimmed_by("wave", {"-1": 1, "0": 3}, False) == ((-1.0,), "anywhere")
    assert trimmed_by("wave", {"0": 3}, False) == ((0.0,), "end")
    assert trimmed_by("wave", {}, False)[0] == ()


def test_times():
    family = families(CURVES)[0]
    assert evidence(family, {"time": np.array([[[1, 2, 0], [0, 0, 0]]], "f4")}) == {"0": 1}
    assert evidence(family, {"time": np.array([[[-3, 0, 2], [1, 0, 0]]], "f4")}) == {"0": 1, "inside": 1}
    assert evidence(family, {"time": np.array([[[1, 2, -99]], [[1, 2, 3]]], "f4")}) == {"-99": 1}
    assert evidence(family, {"time": np.array([[1, np.nan, 3], [1, np.nan, np.nan]])}) == {"nan": 1}
    assert trimmed_by("time", {"0": 2}, True) == ((0.0,), "anywhere")
    assert trimmed_by("time", {"0": 2}, False) == ((0.0,), "end")
    assert trimmed_by("time", {"0": 2, "inside": 1}, True)[0] == ()
    assert trimmed_by("time", {"0": 2, "-99": 1}, True) == ((-99.0,), "anywhere")
    values, at = trimmed_by("time", {"nan": 2}, False)
    assert np.isnan(values).tolist() == [True] and at == "end"


def test_parts_are_looked_at_by_time():
    curve = np.zeros((1, 6, 3, 4))
    curve[:, :5, 0, :3] = [5, 6, 7]
    assert evidence(Family("lightcurve", "parts", ("lightcurve",)), {"lightcurve": curve}) == {"0": 1}


@pytest.mark.parametrize(("flux", "rows"), [([1, 2, 3, 3, 3], 1), ([1, 2, 3, 4, 5], 0), ([0, 0, 0, 0, 0], 0)])
def test_masked_ends(flux, rows):
    family = families({name: field for name, field in SPECTRUM.items() if name != "spectrum_lambda"})[0]
    ivar, mask = np.array([[1, 1, 1, 0, 0]], "f4"), np.array([[0, 0, 0, 1, 1]], bool)
    if not any(flux):
        ivar, mask = ivar * 0, mask | True  # nothing of it was observed: that is no padding
    found = evidence(family, {"spectrum_mask": mask, "spectrum_ivar": ivar, "spectrum_flux": np.array([flux], "f4")})
    assert found == ({"end": rows} if rows else {})
    assert trimmed_by("mask", {"end": 1}, False) == ((1.0,), "end")


TABLE = {
    name: Field(name, dtype, dims, member=True)
    for name, dtype, dims in (
        ("spaxels/flux", "float32", (4, 3)), ("spaxels/ivar", "float32", (4, 3)), ("spaxels/mask", "int64", (4, 3)),
        ("spaxels/x", "int64", (4,)), ("spaxels/units", "S4", (4,)), ("maps/mask", "float32", (2, 3, 3)),
    )
}  # fmt: skip


def test_records_of_nothing():
    (family,) = families(TABLE)
    assert family.by == "spaxels/mask" and family.role == "records"
    assert set(family.members) == {name for name in TABLE if name.startswith("spaxels/")}
    mask = np.array([[[1024] * 3, [1024, 0, 0], [7] * 3, [0] * 3]])
    flux = np.array([[[0] * 3, [1, 2, 3], [0, 0, 1], [0] * 3]], "f4")
    arrays = {"spaxels/mask": mask, "spaxels/flux": flux, "spaxels/ivar": flux}
    found = evidence(family, arrays)
    assert found == {"empty 1024": 1, "kept 7": 1}
    assert trimmed_by("records", found, False) == ((1024.0,), "anywhere")
    assert trimmed_by("records", found | {"kept 1024": 1}, False)[0] == ()
    assert evidence(family, arrays | {"spaxels/ivar": np.ones_like(flux)}) == {"kept 1024": 1, "kept 7": 1}
    assert trimmed_by("records", {}, False)[0] == ()


def test_tables_without_a_flux_and_its_weight_are_no_family():
    assert families({name: field for name, field in TABLE.items() if name != "spaxels/ivar"}) == []
    assert families(TABLE | {"spaxels/ivar": Field("spaxels/ivar", "float32", (4, 2), member=True)}) == []


def test_neighbours():
    fields = of(("catalog_TYPE", "int64", (3,)), ("catalog_RA", "float64", (3,)), ("catalog_NAME", "S3", (3,)))
    (family,) = families(fields)
    assert family == Family("catalog_TYPE", "neighbours", ("catalog_TYPE", "catalog_RA"), ("catalog_RA",))
    kinds = np.array([[1, 2, 0], [3, 0, 0]])
    found = evidence(family, {"catalog_TYPE": kinds, "catalog_RA": np.where(kinds, 5.0, 0)})
    assert found == {"0": 2} and trimmed_by("neighbours", found, False) == ((0.0,), "end")
    for ra, kind in ((np.full((2, 3), 5.0), kinds), (np.where(kinds, 5.0, 0), kinds[:, ::-1])):
        found = evidence(family, {"catalog_TYPE": kind, "catalog_RA": ra})
        assert found["inside"] == 2 and trimmed_by("neighbours", found, False)[0] == ()
    assert evidence(family, {"catalog_TYPE": kinds + 1, "catalog_RA": kinds + 1.0}) == {}
