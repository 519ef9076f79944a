"""Spectra of rows: the lines that are drawn, by value."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from skyset.explore.row_pictures.found import pictures_of
from skyset.explore.row_pictures.spectra import draw_spectrum, line_places
from tests.explore.row_pictures import rows


def drawn(fields, units=None, **scalars):
    figure = Figure()
    (found,) = pictures_of({"spectrum": fields, **scalars}, units).spectra
    axes = figure.subplots()
    draw_spectrum(axes, found)
    rows.laid_out(figure)
    return axes


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_flux_is_drawn_over_wavelength_and_not_where_it_is_masked():
    fields = rows.spectrum()
    axes = drawn(fields)
    x, y = lines(axes)["flux"].get_data()
    kept = ~fields["mask"]
    np.testing.assert_array_equal(x, fields["lambda"])
    np.testing.assert_array_equal(y[kept], fields["flux"][kept])
    assert np.isnan(y[~kept]).all()
    np.testing.assert_array_equal(lines(axes)["masked"].get_ydata(), fields["flux"])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["error", "masked", "flux"]


def test_the_grey_band_is_one_error_wide():
    fields = rows.spectrum(signal=20)
    axes = drawn(fields)
    (band,) = axes.collections
    points = np.concatenate([path.vertices for path in band.get_paths()])
    at = points[points[:, 0] == fields["lambda"][1000]][:, 1]
    assert (at.min(), at.max()) == pytest.approx((fields["flux"][1000] - 0.25, fields["flux"][1000] + 0.25))


def test_without_errors_and_masks_there_is_the_flux_alone():
    fields = rows.spectrum()
    axes = drawn({"flux": fields["flux"], "lambda": fields["lambda"]})
    assert list(lines(axes)) == ["flux"] and not axes.collections and axes.get_legend() is None


def test_pixels_are_drawn_in_the_order_of_wavelengths():
    axes = drawn({"flux": np.array([1.0, 2, 3]), "wave": np.array([5000.0, 4000, 6000])})
    assert lines(axes)["flux"].get_xydata().tolist() == [[4000, 2], [5000, 1], [6000, 3]]


def test_pixels_without_a_wavelength_are_left_out():
    wave = np.array([np.inf, 4000, np.nan, 5000, -1])
    line = lines(drawn({"flux": np.arange(5.0), "lambda": wave}))["flux"]
    np.testing.assert_array_equal(line.get_xydata(), [[-1, np.nan], [4000, 1], [5000, 3]])
    assert len(drawn({"flux": np.ones(2), "loglam": np.array([3.6, 400])}).lines) == 1


def test_between_the_arms_of_a_spectrograph_there_is_no_line():
    wave = np.concatenate([np.linspace(4700, 4900, 100), np.linspace(5650, 5880, 100)])
    fields = {"lambda": wave, "flux": np.arange(200.0), "ivar": np.ones(200)}
    x, y = lines(drawn(fields))["flux"].get_data()
    assert np.isnan(y[100]) and len(y) == 201 and np.array_equal(np.delete(y, 100), fields["flux"])
    assert np.array_equal(np.delete(x, 100), wave)


def test_a_faint_spectrum_has_its_means_over_it():
    fields = rows.spectrum(pixels=3000, signal=1.0)
    axes = drawn(fields)
    good = np.where(fields["mask"], np.nan, fields["flux"])
    means = lines(axes)["mean of 9 pixels"].get_ydata()
    assert means[500] == pytest.approx(good[496:505].mean(), rel=1e-5)
    assert np.isfinite(means[110]) and np.isnan(means[105]) and "mean of 9 pixels" not in lines(drawn(rows.spectrum()))


@pytest.mark.parametrize(("unit", "factor"), [("", 1), ("Angstrom", 1), ("nm", 0.1), ("um", 1e-4), ("m", 1e-10)])
def test_lines_stand_where_the_redshift_puts_them(unit, factor):
    fields = rows.spectrum(redshift=0.2)
    fields["lambda"] = fields["lambda"].astype(float) * factor
    axes = drawn(fields, {"spectrum.lambda": unit}, Z=np.float32(0.2))
    marks = [line for line in axes.lines if "alpha" in line.get_label()]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([6564.61 * 1.2 * factor], rel=1e-6)
    names = [text.get_text() for text in axes.texts]
    assert {r"H$\alpha$", r"H$\beta$", "[O III]", "Ca K, H"} <= set(names) and "C IV" not in names
    assert axes.get_title() == "spectrum, z = 0.2"
    x, y = lines(axes)["flux"].get_data()
    assert x[np.nanargmax(y)] == pytest.approx(6564.61 * 1.2 * factor, rel=1e-3)


def test_no_marks_without_a_redshift_or_where_the_unit_is_not_known():
    assert not drawn(rows.spectrum()).texts
    assert not drawn(rows.spectrum(), {"spectrum.lambda": "furlongs"}, z=0.1).texts
    pixels = rows.spectrum() | {"lambda": np.arange(2000.0)}  # numbers of pixels are no Angstroms
    assert not drawn(pixels, z=0.1).texts and line_places(0.1, "s") == []


def test_units_are_typeset_and_what_is_taken_for_one_is_said():
    units = {"spectrum.flux": "10**-17 erg / (s cm2 Angstrom)", "spectrum.lambda": "Angstrom"}
    axes = drawn(rows.spectrum(), units)
    assert axes.get_xlabel() == r"wavelength ($\mathrm{Å}$)"
    assert axes.get_ylabel().startswith(r"flux ($\mathrm{10^{-17}\,erg")
    axes = drawn(rows.spectrum(), {"spectrum.flux": "$nobody's {unit"})
    assert axes.get_xlabel() == "wavelength (Å, by its values)" and axes.get_ylabel() == r"flux (\$nobody's {unit)"


def test_a_cosmic_ray_does_not_flatten_the_spectrum_and_a_line_is_in_it():
    fields = rows.spectrum()
    fields["flux"][500] = 3e38
    low, high = drawn(fields).get_ylim()
    assert -5 < low < 5 and 20 < high < 60


def test_energies_are_drawn_over_decades():
    energy = np.geomspace(0.5, 8, 50)
    fields = {"ene_center_bin": energy, "flux": energy**-2, "flux_error": 0.1 * energy}
    axes = drawn(fields, {"spectrum.ene_center_bin": "keV"}, z=0.1)
    assert axes.get_xscale() == "log" and axes.get_xlabel() == r"energy ($\mathrm{keV}$)" and not axes.texts


@pytest.mark.parametrize("pixels", [1, 40])
@pytest.mark.parametrize("value", [0.0, -3.0, 1e30, np.inf])
@pytest.mark.parametrize("ivar", [None, 0.0, np.inf, 3.4e38])
def test_spectra_of_nothing_much_are_drawn(pixels, value, ivar):
    weights = {} if ivar is None else {"ivar": np.full(pixels, ivar)}
    axes = drawn({"flux": np.full(pixels, value), "lambda": np.linspace(4000, 5000, pixels), **weights}, z=0.0)
    assert ("not masked" in "".join(text.get_text() for text in axes.texts)) == (not np.isfinite(value))


def test_a_spectrum_that_is_masked_throughout_is_drawn_faint():
    fields = rows.spectrum(200) | {"mask": np.ones(200, bool), "ivar": np.zeros(200)}
    fields["ivar"][0], fields["mask"][1] = 1, False
    axes = drawn(fields)
    assert np.isfinite(lines(axes)["masked"].get_ydata()).all() and axes.get_ylim()[1] < 100
