"""Objects of folders drawn: a survey without a plot of its own, by its arrays, in `show`, `report` and `similar`."""

import dataclasses

import numpy as np
import pytest

from skyset.explore.objects import lookalikes_figure, object_figure, row_figure
from skyset.explore.report import pictures
from skyset.loading import registry
from tests.explore.row_pictures import rows, survey


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    registry.register("pictured", survey.__name__)
    yield survey.write(tmp_path_factory.mktemp("pictured") / "pictured")
    registry._modules.pop("pictured")


def by_title(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.axison}


@pytest.mark.datasets3
def test_bands_spectrum_and_light_curve_of_an_object_are_those_of_its_row(folder):
    figure = rows.laid_out(object_figure(survey.SURVEY, str(folder), "pictured2"))
    found = by_title(figure)
    assert list(found) == ["i, r, g as red, green, blue", "g", "r", "i", "spectrum, z = 0.2", "lightcurve"]
    assert figure.get_suptitle() == "pictured: pictured2"
    given = rows.spectrum(1500, redshift=0.2, seed=2)
    line = {line.get_label(): line for line in found["spectrum, z = 0.2"].lines}["masked"]
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([given["lambda"], given["flux"]]))
    assert found["spectrum, z = 0.2"].get_xlabel() == r"wavelength ($\mathrm{Å}$)"
    assert "erg" in found["spectrum, z = 0.2"].get_ylabel()
    curve = found["lightcurve"]
    assert curve.yaxis_inverted() and [line.get_label() for line in curve.lines] == ["g", "r"]
    assert curve.lines[1].get_xydata().tolist() == [[59000.0 + k, 21.0] for k in range(15)]
    lines = [line for axes in figure.axes if not axes.axison for line in axes.texts[0].get_text().splitlines()]
    assert {"object_id: pictured2", "obj_type: SNIa", f"spectrum.flux: float32, 1500 {survey.FLUX_UNIT}"} <= set(lines)
    assert "image.band: g, r, i" in lines and "lightcurve.band: 30: g, r" in lines


def test_a_row_of_an_adopted_tree_is_named_by_its_tree():
    named = {"name": "adopted", "title": "sdss: files that were adopted"}
    figure = row_figure({"object_id": "a"}, dataclasses.replace(survey.SURVEY, **named))
    assert figure.get_suptitle() == "sdss: a"


def test_show_draws_the_first_rows_on_one_sheet(folder, tmp_path):
    from PIL import Image

    from tests.test_cli import skyset

    sizes = []
    for limit in (1, 3):
        status, text = skyset("show", "pictured", "--data_dir", folder, "--limit", limit, "-o", tmp_path / "x.png")
        assert (status, "wrote" in text) == (0, True), text
        with Image.open(tmp_path / "x.png") as image:
            sizes.append(image.size)
    assert sizes[1][0] == pytest.approx(sizes[0][0], rel=0.02) and sizes[1][1] == pytest.approx(3 * sizes[0][1], rel=0.01)
    assert skyset("show", "pictured", "--data_dir", folder, "--limit", 0, "-o", tmp_path / "x.png")[0] == 2


def test_a_report_has_pictures_of_rows_whose_survey_has_no_plot(folder, tmp_path):
    from tests.explore.test_report import report_on

    assert pictures.has_images(survey.SURVEY)
    page = report_on(folder, tmp_path, "--images", "2")
    assert len([each for each in page.attributes("img") if "as the survey draws it" in each["alt"]]) == 2


def test_a_report_of_a_survey_that_nobody_knows_draws_by_the_names_of_its_columns(folder, tmp_path):
    from tests.explore.test_report import report_on

    registry._modules.pop("pictured")
    try:
        page = report_on(folder, tmp_path, "--images", "1")
    finally:
        registry.register("pictured", survey.__name__)
    assert "A survey that this skyset does not know" in page.texts("p")
    assert len([each for each in page.attributes("img") if "as the survey draws it" in each["alt"]]) == 1


def test_objects_that_look_alike_are_laid_out_in_colour(folder):
    figure, found, _ = lookalikes_figure(str(folder), "pictured1", k=2)
    assert {name for name, _ in found} < {"pictured0", "pictured2", "pictured3"} and len(found) == 2
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert [image.shape for image in images] == [(48, 48, 3)] * 3
    star = images[0][39, 8]
    assert star.min() > 150  # north is up: row 8 of the image
