"""Images of rows: colours, tints and marks, by value."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from skyset.explore.row_pictures.found import Other, Stack, pictures_of
from skyset.explore.row_pictures.images import (
    MOST_BANDS,
    colour_image,
    draw_others,
    draw_stack,
    grey_image,
    grid_of,
    seen,
    size_of,
)
from tests.explore.row_pictures import rows


def stack(names="gri", **changes):
    return pictures_of({"image": rows.bands(names) | changes}).stacks[0]


def drawn(given):
    figure = Figure(layout="constrained")
    draw_stack(figure, given)
    return rows.laid_out(figure)


def test_the_red_middle_is_red_and_the_star_white():
    pixels, names = colour_image(stack("gri", flux=rows.bands("gri", noise=0.003)["flux"]))
    assert names == ("i", "r", "g") and pixels.shape == (48, 48, 3) and pixels.dtype == np.uint8
    middle, star, corner = pixels[24, 24].astype(int), pixels[8, 8].astype(int), pixels[44, 44].astype(int)
    assert middle[0] > middle[2] + 30 and star.min() > 150 and corner.max() < 90


@pytest.mark.parametrize("factor", [1e-20, 1, 1e4, 1e30])
@pytest.mark.parametrize("sky", [0, 100])
def test_the_picture_is_the_same_in_other_units_and_over_another_sky(factor, sky):
    flux = rows.bands("gri")["flux"].astype(float)
    usual, _ = colour_image(stack(flux=flux))
    other, _ = colour_image(stack(flux=factor * (flux + sky)))
    assert np.abs(usual.astype(int) - other.astype(int)).max() <= 2


def test_pixels_that_are_no_numbers_are_grey_and_outliers_darken_nothing():
    flux = rows.bands("gri", noise=0.01)["flux"]
    usual, _ = colour_image(stack(flux=flux))
    broken = flux.copy()
    broken[0, :5] = np.nan
    broken[1, 40, 40], broken[2, 41, 41] = np.inf, 3e38
    pixels, _ = colour_image(stack(flux=broken))
    assert (pixels[:5] == 70).all() and (pixels[40, 40] == 70).all()
    assert np.abs(pixels[10:38].astype(int) - usual[10:38].astype(int)).mean() < 6


def test_masked_pixels_are_tinted_and_keep_their_light():
    given = rows.bands("g")
    mask = np.ones((1, 48, 48), bool)
    mask[0, 20:30, 20:30] = False  # as HSC's, whose True is good
    found = stack("g", flux=given["flux"], mask=mask)
    pixels = grey_image(found.planes[0], found.bad[0], True).astype(int)
    assert (pixels[..., 0] == pixels[..., 2]).sum() == 48 * 48 - 100 and (
        pixels[20:30, 20:30, 0] > pixels[20:30, 20:30, 2]
    ).all()
    assert pixels[24, 24].sum() > pixels[29, 29].sum()


def test_a_difference_keeps_what_is_negative():
    plane = np.zeros((20, 20))
    plane[5:8, 5:8], plane[12:15, 12:15] = -5, 5
    pixels = grey_image(plane, np.zeros(plane.shape, bool), False)
    assert pixels[6, 6, 0] < pixels[0, 0, 0] < pixels[13, 13, 0]


def test_the_colour_image_stands_before_its_bands_with_a_scale_bar():
    figure = drawn(stack("grizy"))
    assert [axes.get_title() for axes in figure.axes] == ["i, r, g as red, green, blue", *"grizy"]
    large = figure.axes[0]
    assert large.images[0].origin == "lower" and large.get_xlabel() == "48 x 48 pixels, 0.2 arcsec a pixel"
    (bar,), (text,) = large.lines, large.texts
    assert text.get_text() == "2 arcsec" and np.ptp(bar.get_xdata()) == pytest.approx(2 / (48 * 0.2))
    assert [len(axes.lines) for axes in figure.axes[1:]] == [0] * 5
    sizes = [axes.get_window_extent().height for axes in figure.axes]
    assert sizes[0] > 2 * max(sizes[1:])


def test_without_a_scale_there_is_no_bar_and_without_three_filters_no_colours():
    given = {**rows.bands(["science", "reference"]), "scale": np.array([np.nan, 0])}
    found = pictures_of({"image": given}).stacks[0]
    figure = drawn(found)
    assert [axes.get_title() for axes in figure.axes] == ["science", "reference"] and not figure.axes[0].lines
    assert figure.axes[0].get_xlabel() == "48 x 48 pixels"


def test_an_empty_band_says_so_and_is_in_no_colour_image():
    flux = rows.bands("griz")["flux"]
    flux[2] = 0
    figure = drawn(stack("griz", flux=flux))
    assert [axes.get_title() for axes in figure.axes] == ["z, r, g as red, green, blue", "g", "r", "i (empty)", "z"]


@pytest.mark.parametrize("values", [np.nan, np.inf, 0.0, 7.0])
@pytest.mark.parametrize("side", [5, 40])
def test_images_without_anything_are_drawn(values, side):
    figure = drawn(stack("gri", flux=np.full((3, side, side), values)))
    assert [axes.get_title() for axes in figure.axes] == ["g (empty)", "r (empty)", "i (empty)"]
    assert ("NaN: grey" in figure.axes[0].get_xlabel()) == (not np.isfinite(values))


def test_hundreds_of_bands_are_not_all_drawn():
    names = [f"band {number}" for number in range(100)]
    figure = drawn(
        Stack("cube", np.random.default_rng(0).random((100, 20, 20)), tuple(names), np.zeros((100, 20, 20), bool))
    )
    assert [axes.get_title() for axes in figure.axes] == names[:MOST_BANDS]
    assert "84 more not drawn" in figure.axes[0].get_xlabel()


def test_large_images_are_drawn_by_some_of_their_pixels():
    found = stack("gri", flux=np.random.default_rng(0).random((3, 2500, 40)).repeat(20, axis=2))
    figure = drawn(found)
    assert max(figure.axes[0].images[0].get_array().shape) <= 1200
    assert (
        figure.axes[0].get_xlabel().startswith("800 x 2500 pixels, 0.2 arcsec")
        and "arc" in figure.axes[0].texts[0].get_text()
    )


@pytest.mark.parametrize("count", range(1, 17))
@pytest.mark.parametrize("coloured", [True, False])
def test_a_grid_has_room_for_all(count, coloured):
    lines, columns = grid_of(count, coloured)
    assert lines * columns >= count > lines * columns - max(lines, columns)


def test_the_size_follows_the_images():
    assert size_of(stack("gri"), 4.0) == (8.0, 4.0)
    assert size_of(stack("g"), 4.0)[0] == 4.0
    width, height = size_of(stack("gri", flux=rows.bands("gri")["flux"][:, :, :24]), 4.0)
    assert (width, height) == (4.0, 4.0)


def test_images_that_have_their_colours_are_drawn_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    figure = Figure()
    draw_others([figure.subplots()], [Other("rgb", pixels)], 0.5)
    (axes,) = figure.axes
    assert np.array_equal(axes.images[0].get_array(), pixels) and axes.images[0].origin == "upper"
    assert axes.get_xlabel() == "20 x 30 pixels, 0.5 arcsec a pixel" and axes.texts[0].get_text() == "2 arcsec"


def test_what_is_compared_by_similar_is_seen_with_north_up():
    image = rows.bands("gri")
    assert np.array_equal(seen(image), colour_image(stack("gri"))[0][::-1])
    grey = seen(rows.bands("gr"))
    assert grey.shape == (48, 48, 3) and (grey[..., 0] == grey[..., 2]).all() and grey[39, 8, 0] > 200  # the star
    array = np.zeros((8, 8, 3), np.uint8)
    assert seen(array) is array and seen({"png": b""}) == {"png": b""}
