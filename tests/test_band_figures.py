"""Figures of a galaxy in several bands: what is drawn is what the row says."""

import numpy as np
import pytest
from matplotlib.patches import Ellipse

pytest.importorskip("numba", reason="galaxies are simulated with numba")

from skyset.band_figures import asinh_stretch, lupton_rgb, noise_of
from skyset.extraction.morphology import HSC_SEEING
from skyset.extraction.simulate import moffat_psf, render_sersic
from skyset.loaders import galaxiesml


def row(size=127, sersic=True, **changes):
    dice = np.random.default_rng(1)
    psfs = np.stack([moffat_psf(HSC_SEEING[band] / 0.168, 3.5, 41) for band in "grizy"])
    fluxes = zip((150, 380, 600, 760, 900), psfs, strict=True)
    models = [
        render_sersic((size, size), size // 2 + 0.4, size // 2 - 0.3, f, 9.0, 2.0, 0.5, 35.0, psf) for f, psf in fluxes
    ]
    image = np.stack(models) + dice.normal(0, 0.05, (5, size, size))
    values = {"object_id": "43158722000000001", "specz_redshift": 0.2, "image": image.astype(np.float32), "psf": psfs}
    for band in "grizy":
        values |= {f"{band}_half_light_radius": 8.0, f"{band}_major_axis": 6.0, f"{band}_minor_axis": 3.0}
        values |= {f"{band}_pos_angle": 35.0, f"{band}_sersic_index": 2.0, f"{band}_cmodel_mag": 21.0}
        if sersic:
            values |= {f"{band}_sersic_r_e": 9.0, f"{band}_sersic_q": 0.5, f"{band}_sersic_pa": 35.0}
    return values | changes


def test_bands_ellipses_models_and_residuals_are_drawn():
    figure = galaxiesml.plot(row(y_half_light_radius=np.nan, y_sersic_index=np.nan))
    assert "43158722000000001: z = 0.2000" in figure.get_suptitle() and len(figure.axes) == 19
    panels = np.array(figure.axes[:18]).reshape(3, 6)
    assert [axes.get_title() for axes in panels[0]] == [*(f"{b} = 21.00" for b in "grizy"), "i, r, g as red, green, blue"]
    (ellipse,) = (patch for patch in panels[0, 1].patches if isinstance(patch, Ellipse))
    assert ellipse.get_center() == (63, 63) and ellipse.angle == 35
    assert ellipse.width * ellipse.height == pytest.approx(16**2) and ellipse.width / ellipse.height == pytest.approx(2)
    assert not panels[0, 4].patches and panels[0, 4].texts[0].get_text() == "not measured"
    residual = panels[2, 2].images[0].get_array()
    assert np.abs(residual).max() < 6 and residual.std() == pytest.approx(1, abs=0.1)  # in units of the noise
    assert not panels[1, 4].axison
    assert figure.axes[18].get_ylabel() == "residual / noise" and "half of the light" in figure.get_supxlabel()


def test_what_was_measured_on_another_object_is_not_drawn_on_the_target():
    figure = galaxiesml.plot(row(i_central_image_pop_5px_rad=0.0, r_central_image_pop_5px_rad=1.0))
    panels = np.array(figure.axes[:18]).reshape(3, 6)
    assert not panels[0, 2].patches and panels[0, 2].texts[0].get_text() == "target not detected"
    assert not panels[1, 2].axison and panels[0, 1].patches and panels[1, 1].axison


def test_without_models_there_is_one_row_and_a_crop_is_drawn_around_its_middle():
    figure = galaxiesml.plot(row(64, sersic=False))
    assert len(figure.axes) == 6
    (ellipse,) = (patch for patch in figure.axes[0].patches if isinstance(patch, Ellipse))
    assert ellipse.get_center() == (32, 32)


def test_stretch_and_colours():
    dice = np.random.default_rng(0)
    image = dice.normal(0, 0.2, (80, 80))
    image[:4] = 0
    assert noise_of(image) == pytest.approx(0.2, rel=0.05)
    assert noise_of(np.zeros((9, 9))) == 1 and noise_of(np.full((9, 9), np.nan)) == 1
    image[40, 40], image[50, 50] = 1000, np.nan
    stretched = asinh_stretch(image, white=1000)
    assert stretched.min() >= 0 and stretched[40, 40] == 1 and 0 < stretched[50, 50] < 0.2
    red = np.where(np.hypot(*np.mgrid[-40:40, -40:40]) < 9, 50.0, 0) + image[::-1]
    colours = lupton_rgb(red, red / 3, red / 9)
    assert colours.dtype == np.uint8 and colours.shape == (80, 80, 3)
    middle = colours[38:42, 38:42].mean((0, 1))
    assert middle[0] > middle[1] > middle[2] > 0
    assert np.ptp(colours[70:78, 70:78].astype(int), axis=-1).mean() < 12  # the sky is grey
