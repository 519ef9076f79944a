"""Light curves of rows: points, colours, axes, by value."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from skyset.explore.row_pictures.bands import colours
from skyset.explore.row_pictures.found import pictures_of
from skyset.explore.row_pictures.light_curves import draw_light_curve
from tests.explore.row_pictures import rows


def drawn(fields, units=None):
    figure = Figure()
    (found,) = pictures_of({"lightcurve": fields}, units).curves
    axes = figure.subplots()
    draw_light_curve(axes, found)
    rows.laid_out(figure)
    return axes


def bands_of(axes):
    """The points of each band, in the order in which they are drawn."""
    containers = {each.get_label(): each for each in axes.containers}
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    return {name: each.lines[0] for name, each in containers.items()} | lines


def test_each_band_has_its_points_its_errors_and_a_colour_by_its_wavelength():
    fields = rows.light_curve(("z", "g", "i", "u", "r"))
    axes = drawn(fields)
    found = bands_of(axes)
    assert list(found) == ["u", "g", "r", "i", "z"]
    assert [line.get_color() for line in found.values()] == colours(5)
    assert found["i"].get_xydata().tolist() == [[59000.0 + k, 3.0] for k in range(10)]
    bars = axes.containers[0].lines[2][0].get_segments()
    assert np.allclose([bar[:, 1].tolist() for bar in bars], [3.9, 4.1])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list("ugriz")
    assert len({line.get_marker() for line in found.values()}) == 5
    assert axes.get_xlabel() == "time (MJD, by its values)" and axes.get_ylabel() == "flux" and not axes.yaxis_inverted()


def test_points_are_in_the_order_of_time():
    fields = {"time": np.array([3.0, 1, 2]), "flux": np.array([30.0, 10, 20]), "flux_err": np.array([3.0, 1, 2])}
    axes = drawn(fields)
    assert axes.containers[0].lines[0].get_xydata().tolist() == [[1, 10], [2, 20], [3, 30]] and axes.get_legend() is None


def test_magnitudes_are_upside_down():
    fields = {"band": ["g"] * 3, "mjd": np.array([55000.0, 55001, 55002]), "mag": np.array([20.0, 19, 18.5])}
    axes = drawn(fields | {"mag_err": np.full(3, 0.1)})
    assert axes.yaxis_inverted() and axes.get_ylabel() == r"magnitude ($\mathrm{mag}$)" and axes.get_xlabel() == "MJD"
    low, high = sorted(axes.get_ylim())
    assert low < 18.4 and 20.1 < high < 21


@pytest.mark.parametrize(
    ("time", "unit", "label"),
    [
        (59000.0, "", "time (MJD, by its values)"),
        (2459000.5, "", "time (JD, by its values)"),
        (250.0, "", "time"),
        (59000.0, "d", r"time ($\mathrm{d}$)"),
        (1683.0, "BTJD", "time (BTJD)"),
    ],
)
def test_the_axis_says_what_the_time_is(time, unit, label):
    fields = {"time": time + np.arange(3.0), "flux": np.arange(3.0)}
    assert drawn(fields, {"lightcurve.time": unit}).get_xlabel() == label


def test_units_of_the_flux_are_on_its_axis():
    fields = rows.light_curve()
    assert drawn(fields, {"lightcurve.flux": "uJy"}).get_ylabel() == r"flux ($\mathrm{\mu Jy}$)"
    kepler = {"time": np.arange(1.0, 4), "pdcsap_flux": np.arange(3.0)}
    assert drawn(kepler, {"lightcurve.pdcsap_flux": "electron / s"}).get_ylabel().startswith("PDCSAP flux (")


def test_one_value_of_3e38_and_one_endless_error_hide_no_other_point():
    fields = rows.light_curve()
    fields["flux"][3], fields["flux_err"][7] = 3e38, 3.4e38
    axes = drawn(fields)
    low, high = axes.get_ylim()
    assert -1 < low < 1 and 3 < high < 5 and [text.get_text() for text in axes.texts] == ["1 point outside"]
    longest = [np.ptp(bar[:, 1]) for each in axes.containers for bar in each.lines[2][0].get_segments()]
    assert max(longest) < 1


def test_thousands_of_points_are_dots_without_bars():
    time = np.linspace(1.0, 27, 18_000)
    axes = drawn({"time": time, "flux": np.sin(time), "flux_err": np.full(time.shape, 0.1)})
    assert not axes.containers and len(axes.lines[0].get_xdata()) == 18_000 and axes.lines[0].get_marker() == "."


@pytest.mark.parametrize("points", [0, 1, 2])
@pytest.mark.parametrize("value", [0.0, 1e35, np.nan])
@pytest.mark.parametrize("error", [None, 0.0, 1.0, np.inf])
def test_light_curves_of_nothing_much_are_drawn(points, value, error):
    count = max(points, 1)
    fields = {"band": ["g"] * count, "time": np.full(count, 59000.0), "flux": np.full(count, value)}
    if not points:
        fields["time"][:] = -99
    axes = drawn(fields | ({} if error is None else {"flux_err": np.full(count, error)}))
    assert bool(bands_of(axes)) == (points > 0 and np.isfinite(value))
    assert bool(axes.texts) == (not bands_of(axes))


def test_twelve_bands_and_names_that_would_be_formulas():
    names = ["UVW2", "UVM2", "UVW1", "U", "B", "g", "V", "r", "i", "z", "J", "$\\frac{"]
    axes = drawn(rows.light_curve(names[::-1]))
    assert list(bands_of(axes)) == [*names[:-1], "\\$\\frac{"]
