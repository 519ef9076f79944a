"""What is found in rows to be drawn."""

import numpy as np
import pytest

from skyset.explore.row_pictures.found import are_declared, pictures_of
from skyset.survey import Column, Layers, Survey, plain_features
from tests.explore.row_pictures import rows


def test_a_row_of_everything():
    row = {
        "object_id": "a",
        "z": 0.1,
        "image": rows.bands("gri"),
        "spectrum": rows.spectrum(),
        "lightcurve": rows.light_curve(),
        "rgb": np.zeros((20, 30, 3), np.uint8),
        "map": np.zeros((20, 30), np.float32),
        "vector": np.zeros(512),
    }
    found = pictures_of(row, {"spectrum.flux": "Jy", "lightcurve.time": "d"})
    assert [each.bands for each in found.stacks] == [("g", "r", "i")] and found.stacks[0].scale == pytest.approx(0.2)
    assert [each.flux_unit for each in found.spectra] == ["Jy"] and found.spectra[0].redshift == 0.1
    assert [each.time_unit for each in found.curves] == ["d"]
    assert [each.name for each in found.others] == ["rgb", "map"]


def test_names_without_groups_and_with_the_groups_name_in_the_columns_are_the_same():
    fields, curve = rows.spectrum(), rows.light_curve()
    grouped = pictures_of({"spectrum": fields, "lightcurve": curve, "image": rows.bands("gri")})
    joined = pictures_of(
        {f"spectrum_{key}": value for key, value in fields.items()}
        | {f"image_{key}": value for key, value in rows.bands("gri").items()}
        | {"bands": curve["band"]}
        | {key: curve[key] for key in ("time", "flux", "flux_err")}
    )
    one, other = grouped.spectra[0], joined.spectra[0]
    for name in ("x", "flux", "error", "bad"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    for name in ("time", "value", "error", "band"):
        np.testing.assert_array_equal(getattr(grouped.curves[0], name), getattr(joined.curves[0], name), name)
    assert len(joined.spectra) == len(joined.curves) == len(joined.stacks) == 1
    assert joined.stacks[0].bands == ("g", "r", "i")


def test_the_masked_are_of_no_weight_and_the_error_is_that_of_the_weights():
    (found,) = pictures_of({"spectrum": rows.spectrum(signal=20)}).spectra
    assert np.flatnonzero(found.bad).tolist() == list(range(100, 110))
    assert np.nanmax(np.abs(found.error - 0.25)) < 1e-6 and np.isnan(found.error[100:110]).all()


def test_of_many_spectra_the_brightest_is_drawn():
    one = rows.spectrum(pixels=500)
    many = {key: np.stack([value] * 3) for key, value in one.items() if key != "flux"}
    many["flux"] = np.stack([one["flux"], 3 * one["flux"], 0 * one["flux"]])
    (found,) = pictures_of({"spaxels": many}).spectra
    assert np.array_equal(found.flux, many["flux"][1]) and found.note == "the brightest of 3" and found.bad.sum() == 10
    assert not pictures_of({"spaxels": many | {"lsf": many["ivar"]}}).others  # 500 x 3 pixels are no picture either


def test_a_field_beside_may_say_the_unit():
    (found,) = pictures_of({"spectrum": rows.spectrum(50) | {"flux_units": ["erg"] * 50, "lambda_unit": "nm"}}).spectra
    assert (found.flux_unit, found.x_unit) == ("erg", "nm")


def test_energies_are_no_wavelengths_and_logarithms_are_taken_back():
    energy = {"ene_center_bin": np.array([1.0, 2]), "flux": np.array([3.0, 4]), "flux_error": np.array([0.1, 0.2])}
    (found,) = pictures_of({"spectrum": energy}).spectra
    assert found.is_energy and found.error.tolist() == [0.1, 0.2]
    (found,) = pictures_of({"loglam": np.array([3.5, 4]), "flux": np.array([3.0, 4])}).spectra
    assert found.x == pytest.approx([10**3.5, 10**4]) and found.x_unit == "Angstrom" and found.error is None


def test_bands_side_by_side_lose_their_padding():
    row = {
        "bands": "g,r,Y",
        "time": np.array([[59000, 59001, -99], [59000.5, -99, -99], [0, 0, 0]]),
        "flux": np.array([[1.0, 2, 0], [3, 0, 0], [0, 0, 0]]),
        "flux_err": np.array([[0.1, 0.2, 0], [0.3, 0, 0], [0, 0, 0]]),
    }
    (found,) = pictures_of(row).curves
    assert found.band.tolist() == ["g", "g", "r"] and found.time.tolist() == [59000, 59001, 59000.5]
    assert (found.value.tolist(), found.error.tolist()) == ([1, 2, 3], [0.1, 0.2, 0.3]) and not found.is_magnitude


def test_bands_may_be_numbers():
    (found,) = pictures_of({"time": np.arange(1.0, 4), "flux": np.ones(3), "passband": np.array([2, 0, 2], np.int8)}).curves
    assert found.band.tolist() == ["2", "0", "2"]


def test_magnitudes_that_are_none_are_left_out():
    row = {
        "time": np.arange(1.0, 6),
        "mag": np.array([20, 99, np.nan, -99, 0.0]),
        "mag_err": np.array([0.1, 9, 0.1, 0.1, 0]),
    }
    (found,) = pictures_of({"lightcurve": row}).curves
    assert found.is_magnitude and found.value.tolist() == [20] and found.band.tolist() == [""]


@pytest.mark.parametrize("key", ["pdcsap_flux", "sap_flux", "psf_flux"])
def test_fluxes_of_space_telescopes_are_known(key):
    (found,) = pictures_of({"time": np.arange(1.0, 6), key: np.arange(5.0), f"{key}_err": np.ones(5)}).curves
    assert found.what == key and found.error.tolist() == [1] * 5


def test_views_in_the_last_axis_are_planes_and_a_band_that_is_one_for_all_is_none_of_their_names():
    planes = np.moveaxis(rows.bands("abc")["flux"], 0, 2)
    image = {"view": ["science", "reference", "difference"], "flux": planes, "band": "r", "scale": 1.01}
    (found,) = pictures_of({"image": image}).stacks
    assert found.bands == ("science", "reference", "difference") and not found.are_bands and found.scale == 1.01
    assert np.array_equal(found.planes, np.moveaxis(planes, 2, 0))


def test_planes_without_names_and_their_views_are_drawn_one_by_one():
    found = pictures_of({"flux": np.zeros((3, 20, 20)), "views": np.zeros((20, 20, 3), np.float32)})
    names = ["flux[0]", "views[0]", "flux[1]", "flux[2]", "views[1]", "views[2]"]
    assert [each.name for each in found.others] == names and not found.stacks


def test_the_views_of_an_alert_have_their_names():
    (found,) = pictures_of({"image_triplet": np.zeros((20, 20, 3), np.float32), "band": "r", "image_scale": 1.01}).stacks
    assert found.bands == ("science", "reference", "difference") and found.scale == 1.01 and not found.are_bands


def test_members_of_a_table_may_have_the_groups_name_again():
    image = rows.bands("griz")
    (found,) = pictures_of({"images": {"image_band": image["band"], "image_array": image["flux"]}}).stacks
    assert found.bands == ("g", "r", "i", "z")


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"flux": np.arange(5.0)},
        {"spectrum": {"flux": np.arange(5.0), "lambda": np.arange(4.0)}},
        {"spectrum": {"flux": np.empty(0), "lambda": np.empty(0)}},
        {"time": 3.0, "flux": 2.0},
        {"time": np.arange(3.0), "flux": ["a", "b", "c"]},
        {"image": {"band": ["g"], "flux": np.zeros((1, 2, 2))}},
        {"image": {"band": ["g", "r"], "flux": None}},
        {"table": np.zeros((4, 400)), "lsf": np.zeros((11, 7781)), "none": np.zeros((0, 20, 20))},
        {"lists": [[1, 2], [3]]},
    ],
)
def test_what_is_no_picture_is_none(row):
    found = pictures_of(row)
    assert not (found.stacks or found.spectra or found.curves or found.others)


def declared(*columns, groups=()):
    grouped = {source for group in groups for source in group.sources}
    features = (*plain_features([column for column in columns if column.name not in grouped], {}, ()), *groups)
    return Survey("s", "s", "", "", "", "", columns, features)


def test_surveys_say_by_their_declaration_whether_there_is_something_to_draw():
    number, text = Column("mag", "f4"), Column("name", "S5")
    flux, wave = Column("spectrum_flux", "f4", (-1,)), Column("spectrum_lambda", "f4", (-1,))
    assert not are_declared(
        declared(number, text, Column("vector", "f4", (512,)), Column("time", "f8"), Column("flux", "f8"))
    )
    assert are_declared(declared(number, flux, wave)) and not are_declared(declared(number, flux))
    assert are_declared(declared(flux, wave, groups=(Layers("spectrum", (), "", {"flux": flux.name, "lambda": wave.name}),)))
    assert are_declared(declared(Column("time", "f8", (-1,)), Column("mag", "f4", (-1,))))
    assert are_declared(declared(Column("image_array", "f4", (5, 160, 160))))
    assert are_declared(declared(Column("image_triplet", "f4", (63, 63, 3))))
    assert not are_declared(declared(Column("spectrum_lsf", "f4", (11, 7781)), Column("bands", "S5", (9, 9))))
