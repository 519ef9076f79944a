"""The values of rows, by the names that surveys give them."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from skyset.explore.row_pictures.fields import bad_pixels, errors_of, groups_of, redshift_of, scale_of, shown, texts
from tests.explore.row_pictures.rows import laid_out


def group(row, name):
    return next(fields for fields in groups_of(row) if fields.name == name)


def test_groups_are_found_by_dicts_and_by_the_names_of_columns():
    row = {"spectrum": {"Flux": 1}, "image_flux": 2, "IMAGE_band": "g", "flux": 3, "TIME": 4}
    assert group(row, "spectrum").values == {"flux": ("spectrum.Flux", 1)}
    assert group(row, "image").values == {"flux": ("image_flux", 2), "band": ("IMAGE_band", "g")}
    assert {"flux": ("flux", 3), "time": ("TIME", 4)}.items() <= group(row, "").values.items()


def test_texts_are_lists_bytes_or_joined_by_commas():
    assert (
        texts("g, r,i")
        == texts(b"g,r,i")
        == texts(np.array([b"g", b"r", b"i"]))
        == texts(["g", "r", "i"])
        == ["g", "r", "i"]
    )
    assert texts(np.arange(3)) == texts([1, "a"]) == texts(None) == []


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("true_is_good", [True, False])
def test_a_mask_is_understood_whichever_way_it_is(weights, true_is_good):
    bad = np.zeros((3, 10, 10), bool)
    bad[1, :2] = True
    values, ivar = np.ones(bad.shape), np.where(bad, 0.0, 3.0)
    found = bad_pixels(values, ~bad if true_is_good else bad, ivar if weights else np.empty(0))
    assert np.array_equal(found, bad)


def test_one_mask_may_be_of_all_bands_and_flags_are_masks():
    flags = np.zeros((10, 10), np.int64)
    flags[0, 0] = 1024
    bad = bad_pixels(np.ones((2, 10, 10)), flags, np.empty(0))
    assert np.argwhere(bad).tolist() == [[0, 0, 0], [1, 0, 0]]


def test_weights_alone_and_no_numbers_are_bad_and_weights_that_are_all_0_say_nothing():
    values = np.array([1.0, np.nan, np.inf, 2.0])
    assert bad_pixels(values, np.empty(0), np.array([1.0, 1, 1, 0])).tolist() == [False, True, True, True]
    assert bad_pixels(values, np.empty(0), np.zeros(4)).tolist() == [False, True, True, False]


def test_errors_are_read_or_made_of_weights():
    row = {
        "s": {"flux": [1.0, 2, 3], "ivar": [4.0, 0, np.inf]},
        "n": {"flux": [1.0], "noise": [0.5]},
        "e": {"mag_err": [-1.0]},
    }
    error, used = errors_of(group(row, "s"), "flux", (3,))
    assert used == ["s.ivar"] and error[0] == 0.5 and np.isnan(error[1]) and error[2] == 0
    assert errors_of(group(row, "n"), "flux", (1,))[0].tolist() == [0.5]
    assert np.isnan(errors_of(group(row, "e"), "mag", (1,))[0]).all()
    assert errors_of(group(row, "n"), "flux", (2,)) == (None, [])


@pytest.mark.parametrize(
    ("row", "redshift"),
    [
        ({"Z": 0.5}, 0.5),
        ({"redshift": np.float32(0.25), "z": 21.3}, 0.25),  # a magnitude
        ({"z": np.nan, "redshift": 1}, 1.0),
        ({"catalog": {"z": 2.0}}, None),
        ({"z": -9.0}, None),
        ({"z": [0.1, 0.2]}, None),
        ({"z": "0.1"}, None),
        ({}, None),
    ],
)
def test_a_redshift_is_a_number_that_can_be_one(row, redshift):
    assert redshift_of(row) == redshift


def test_the_size_of_a_pixel_is_the_groups_or_the_rows():
    row = {"image": {"scale": np.array([0.2, 0.2, 0.3])}, "other": {"scale": np.array([np.nan, 0])}, "pxscale": 0.5}
    sizes = [scale_of(group(row, name), row) for name in ("image", "other")]
    assert sizes == [pytest.approx(0.2), 0.5]
    assert scale_of(group({"image": {"scale": -1}}, "image"), {}) is None


def test_somebodys_text_is_drawn_letter_by_letter():
    figure = Figure()
    figure.suptitle(shown(r"$\frac{a$ and $b$"))
    laid_out(figure)
