"""A row as one figure: what stands where."""

import numpy as np
import pytest

from skyset.explore.row_pictures.figure import figure_of
from tests.explore.row_pictures import rows


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.axison]


def words(figure):
    return [line for axes in figure.axes if not axes.axison for line in axes.texts[0].get_text().splitlines()]


def everything(values=5):
    row = {"object_id": "a", "redshift": 0.1, "image": rows.bands("griz"), "spectrum": rows.spectrum()}
    row |= {"lightcurve": rows.light_curve(), "rgb": np.zeros((48, 48, 3), np.uint8)}
    return row | {f"mag_{number}": 20.5 + number for number in range(values)}


@pytest.mark.parametrize("values", [0, 60, 300])
def test_all_of_a_row_is_in_one_figure_and_nothing_is_cut_off(values):
    figure = rows.laid_out(figure_of(everything(values), "mine: a", {"mag_0": "mag"}), dpi=100)
    images = ["i, r, g as red, green, blue", *"griz", "rgb"]
    assert titles(figure) == [*images, "spectrum, z = 0.1", "lightcurve"] and figure.get_suptitle() == "mine: a"
    lines = words(figure)
    assert {"object_id: a", "redshift: 0.1", "image.band: g, r, i, z", "lightcurve.band: 30: g, r, i"} <= set(lines)
    assert sum(line.startswith("mag_") for line in lines) == values and ("mag_0: 20.5 mag" in lines) == (values > 0)
    assert figure.get_figwidth() <= 13.1
    for axes in figure.axes:
        box = axes.texts[0].get_window_extent() if not axes.axison else axes.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, axes


def test_values_stand_beside_a_picture_where_there_is_room_and_below_it_where_there_is_not():
    few = rows.laid_out(figure_of({"spectrum": rows.spectrum(), "object_id": "a"}, ""))
    assert few.axes[-1].get_window_extent().x0 > few.axes[0].get_window_extent().x1
    many = rows.laid_out(figure_of({"spectrum": rows.spectrum()} | {f"x{n}": n for n in range(200)}, ""))
    below = [axes for axes in many.axes if not axes.axison]
    assert len(below) > 1 and all(axes.get_window_extent().y1 < many.axes[0].get_window_extent().y0 for axes in below)
    assert [int(line[1:].partition(":")[0]) for line in words(many) if line.startswith("x")] == list(range(200))


def test_a_row_of_values_alone_has_them_in_columns():
    figure = rows.laid_out(figure_of({f"x{n}": n for n in range(130)}, "t"))
    assert [len(axes.texts[0].get_text().splitlines()) for axes in figure.axes] == [44, 44, 42] and not titles(figure)


def test_a_row_of_nothing_is_drawn_too():
    assert rows.laid_out(figure_of({}, "t")).get_suptitle() == "t"


def test_extra_planes_are_drawn_the_way_up_that_the_bands_are():
    row = {"image": rows.bands("gri"), "object_mask": np.eye(48), "kernel": np.eye(21)}
    figure = figure_of(row, "")
    assert {axes.get_title(): axes.images[0].origin for axes in figure.axes if axes.images} == {
        "i, r, g as red, green, blue": "lower",
        **dict.fromkeys("gri", "lower"),
        "object_mask": "lower",
        "kernel": "upper",
    }


def test_no_more_planes_than_asked_for():
    figure = figure_of({"flux": np.zeros((40, 32, 32)), "psf": np.zeros((9, 9))}, "", most=3)
    assert titles(figure) == ["flux[0]", "psf", "flux[1]"]


def test_words_of_a_row_are_no_formulas():
    row = {"object_id": "$\\frac{", "n$\\x": "$\\bad$", "lightcurve": rows.light_curve(["$a", "$\\q$"])}
    figure = rows.laid_out(figure_of(row, "mine: $\\frac{", {"lightcurve.flux": "$\\x{"}))
    assert "object_id: $\\frac{" in words(figure)


def test_few_numbers_are_written_out_as_long_as_they_are():
    row = {"scale": np.full(3, 0.2, np.float32), "pair": [1, 2**60], "matrix": np.eye(2), "one": np.array([True])}
    lines = words(figure_of(row, ""))
    assert lines == ["scale: [0.2, 0.2, 0.2]", f"pair: [1, {2**60}]", "matrix: [[1, 0], [0, 1]]", "one: [True]"]


@pytest.mark.parametrize(
    "value", [None, [], [[1], [2, 3]], np.empty(0), np.array(["a"] * 100), {"a": {"b": 1}}, b"x", 10**30, True]
)
def test_any_value_has_a_line(value):
    (axes,) = rows.laid_out(figure_of({"value": value}, "")).axes
    assert axes.texts[0].get_text().startswith("value")
