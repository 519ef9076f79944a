"""The published form of GalaxiesML: what is stored, what our columns are made of, and both ways."""

import csv

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.errors import UserError
from skyset.loaders.galaxiesml import CONFIGS
from skyset.published.galaxiesml import BANDS, FORM, SHAPES, PublishedWriter, convert, file_name, keys, published_rows
from tests.published.files import published, write

#: As printed by the authors' notebooks (there: sorted).
PRINTED = [
    "coord",
    "dec",
    "image",
    "object_id",
    "ra",
    "skymap_id",
    "specz_dec",
    "specz_flag_homogeneous",
    "specz_mag_i",
    "specz_name",
    "specz_ra",
    "specz_redshift",
    "specz_redshift_err",
    "x_coord",
    "x_coord_x",
    "x_coord_y",
    "y_coord",
    "y_coord_x",
    "y_coord_y",
]
OF_A_BAND = [
    "central_image_pop_10px_rad",
    "central_image_pop_15px_rad",
    "central_image_pop_5px_rad",
    "cmodel_mag",
    "cmodel_magsigma",
    "ellipticity",
    "half_light_radius",
    "isophotal_area",
    "major_axis",
    "minor_axis",
    "peak_surface_brightness",
    "petro_rad",
    "pos_angle",
    "sersic_index",
]


def test_a_file_has_the_keys_that_are_published_in_their_dtypes_and_shapes(tmp_path):
    write(tmp_path, sizes=(64,), counts={"train": 9})
    with h5py.File(tmp_path / "5x64x64_training_with_morphology.hdf5") as file:
        assert sorted(file) == sorted(PRINTED + [f"{band}_{name}" for band in "grizy" for name in OF_A_BAND])
        assert file["image"].dtype == "<f4" and file["image"].shape == (9, 5, 64, 64)
        assert all(file[name].chunks is None for name in file)
        assert file["object_id"].dtype == "<i8" and file["g_central_image_pop_5px_rad"].dtype == "<i8"
        assert file["specz_flag_homogeneous"].dtype == bool
        for name in ("coord", "skymap_id", "specz_name"):
            assert file[name].dtype.kind == "S" and file[name].shape == (9, 1)
        for name in ("x_coord_x", "y_coord_y"):
            assert file[name].dtype == "<f8" and file[name].shape == (9, 2)
        rest = set(file) - {"image", "object_id", "specz_flag_homogeneous", "coord", "skymap_id", "specz_name"}
        assert all(file[n].dtype == ("<i8" if "_pop_" in n else "<f8") for n in rest)
        assert file["x_coord"].shape == file["g_petro_rad"].shape == (9,)


def test_the_csv_has_all_but_the_pixels(tmp_path):
    write(tmp_path, sizes=(64,), counts={"train": 9})
    with open(tmp_path / "5x64x64_training_with_morphology.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = published(0, 9, 64)
    assert [int(row["object_id"]) for row in rows] == wanted["object_id"].tolist()
    assert [float(row["g_petro_rad"]) for row in rows] == wanted["g_petro_rad"].tolist()
    assert [[float(row["x_coord_y"]), float(row["x_coord_y.1"])] for row in rows] == wanted["x_coord_y"].tolist()
    assert [row["specz_name"] for row in rows] == wanted["specz_name"].tolist() and "image" not in rows[0]


@pytest.mark.parametrize("row", [0, 2])
def test_columns_of_a_published_row(row):
    """By hand, not by the code's own tables."""
    stored = published(0, 3, 64)
    ours = convert(stored, list(FORM.needs))
    assert ours["object_id"][row] == str(stored["object_id"][row]).encode()
    for place, band in enumerate("zg"):
        assert ours[f"{band}_x_image"][row] == stored["x_coord_x"][row, place]
        assert ours[f"{band}_y_image"][row] == stored["y_coord_x"][row, place]
    assert ours["y_x_image"][row] == stored["x_coord"][row] and ours["i_y_image"][row] == stored["y_coord_y"][row, 0]
    assert ours["g_peak_surface_brightness"][row] == stored["g_peak_surface_brightness"][row] + 27
    assert ours["g_peak_surface_brightness_raw"][row] == stored["g_peak_surface_brightness"][row]
    assert ours["z_petro_rad"][row] == pytest.approx(stored["z_petro_rad"][row] * stored["z_major_axis"][row] / 2)
    assert ours["z_petro_rad_raw"][row] == stored["z_petro_rad"][row]
    unseen = row == 2
    for name in SHAPES:
        assert np.isnan(ours[f"r_{name}"][row]) == unseen and not np.isnan(ours[f"g_{name}"][row])
    assert np.isnan(ours["r_x_image"][row]) == np.isnan(ours["r_y_image"][row]) == unseen
    assert ours["r_petro_rad_raw"][row] == stored["r_petro_rad"][row]
    assert (ours["r_central_image_pop_5px_rad"] == stored["r_central_image_pop_5px_rad"]).all()


def test_one_shape_that_is_zero_is_a_number():
    stored = published(0, 1, 64)
    for name in SHAPES[:-1]:
        stored[f"i_{name}"][:] = 0
    assert convert(stored, ["i_pos_angle", "i_sersic_index"])["i_pos_angle"] == 0


def test_a_position_that_is_none_has_no_cell():
    stored = published(0, 4, 64) | {"ra": np.array([10.0, np.nan, 400, 10]), "dec": np.array([0.0, 0, 0, 95])}
    assert (convert(stored, ["healpix"])["healpix"] >= 0).tolist() == [True, False, False, False]


def test_every_column_of_the_survey_is_made_of_keys_or_is_ours():
    made = set(FORM.needs)
    ours = {c.name for c in CONFIGS["64"].columns} - made
    assert made <= {c.name for c in CONFIGS["64"].columns}
    sersic = {f"{b}_sersic_{name}" for b in BANDS for name in ("r_e", "q", "pa", "n_err", "r_e_err", "chi2", "flags")}
    assert ours == sersic | {f"{b}_{name}" for b in BANDS for name in ("n_padded", "total_galaxies")} | {
        "mask",
        "variance",
        "psf",
    }
    assert {key for needs in FORM.needs.values() for key in needs} == {key.name for key in keys(64)}


shapes = st.floats(0.25, 60, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(shapes, shapes, shapes, st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_our_columns_come_back_from_the_published_form(rows):
    """Measured float32 columns without the raw ones, some missing: the same bits."""
    values = np.array([row[:3] for row in rows], np.float32)
    ours = {f"g_{name}": values[:, 0] + k for k, name in enumerate(SHAPES)}
    ours["g_petro_rad"], ours["g_major_axis"] = values[:, 1], values[:, 2]
    for number, row in enumerate(rows):
        for name in SHAPES if row[3] else ("sersic_index",) if row[4] else ():
            ours[f"g_{name}"] = ours[f"g_{name}"].copy()
            ours[f"g_{name}"][number] = np.nan
    stored = published_rows(ours)
    unseen = np.array([row[3] for row in rows])
    assert all(((stored[f"g_{name}"] == 0) == unseen).all() for name in SHAPES)
    again = convert(stored, list(ours))
    for name, wanted in ours.items():
        np.testing.assert_array_equal(again[name].astype(np.float32), wanted)


def test_rows_that_do_not_come_leave_no_file(tmp_path):
    path = tmp_path / file_name(64, "test")
    with pytest.raises(UserError, match="7 rows came, 9 were announced"), PublishedWriter(path, 64, 9) as writer:
        writer.append(published(0, 7, 64))
    with pytest.raises(UserError, match="7 rows came, 5 were announced"), PublishedWriter(path, 64, 5) as writer:
        writer.append(published(0, 7, 64))
    with pytest.raises(UserError, match="rows without image"), PublishedWriter(path, 64, 5) as writer:
        writer.append({"object_id": np.arange(5)})
    with pytest.raises(UserError, match=r"object_id holds 0\.5"), PublishedWriter(path, 64, 1) as writer:
        writer.append(published(0, 1, 64) | {"object_id": np.array([0.5])})
    assert list(tmp_path.iterdir()) == []
