"""A model of which only the shape is stored is put on its image: by an independent renderer."""

import numpy as np
import pytest

from skyset.extraction.fitted_picture import fitted_model
from skyset.extraction.simulate import moffat_psf, render_sersic

NOISE = 0.07
PSF = moffat_psf(3.45, 3.5, 41)


def row(n, r_e, q=0.6, pa=30.0, **more):
    return {"i_sersic_index": n, "i_sersic_r_e": r_e, "i_sersic_q": q, "i_sersic_pa": pa, **more}


@pytest.mark.parametrize("n, r_e, flux", [(0.5, 2.0, 300), (1.0, 3.0, 2000), (4.0, 8.0, 4000), (6.0, 4.0, 6000)])
@pytest.mark.parametrize("x, y", [(63.4, 62.7), (66.1, 60.2)])
def test_residuals_are_noise_beside_a_neighbour_and_on_a_background(n, r_e, flux, x, y):
    light = render_sersic((127, 127), x, y, flux, r_e, n, 0.6, 30.0, PSF)
    other = render_sersic((127, 127), 82.0, 73.0, 500.0, 3.0, 1.0, 0.6, 30.0, PSF)
    noise = np.random.default_rng(0).normal(0, NOISE, light.shape)
    image = (light + other + 0.02 + noise).astype(np.float32)
    image[:3], image[:, -4:] = 0, np.nan  # no pixels
    model = fitted_model(row(n, r_e), "i", image, PSF)
    assert np.abs(model - light - 0.02).max() < 2.5 * NOISE
    residual = ((image - other - model) / NOISE)[3:, :-4]
    assert residual.std() == pytest.approx(1, abs=0.02)
    core = residual[50:73, 53:76]
    assert abs(core.mean()) < 0.2 and np.abs(core).max() < 5


def test_a_moffat_profile_is_its_image():
    """Its FWHM holds the pixel's extent; the image of a broad one hardly differs."""
    image = render_sersic((101, 101), 50.3, 49.8, 1000.0, 6.0, 1.5, 0.8, -20.0, moffat_psf(12.0, 3.5, 201))
    model = fitted_model(row(1.5, 6.0, 0.8, -20.0), "i", image, 12.0)
    assert np.abs(model - image).max() < 0.01 * image.max()


def test_there_is_no_model_of_another_object_and_none_without_a_fit():
    image = np.ones((64, 64))
    assert fitted_model(row(1.0, 3.0, i_central_image_pop_5px_rad=0.0), "i", image, 3.0) is None
    assert fitted_model(row(np.nan, 3.0), "i", image, 3.0) is None
    assert fitted_model({}, "i", image, 3.0) is None
    assert fitted_model(row(1.0, 3.0, i_central_image_pop_5px_rad=1.0), "i", np.zeros((64, 64)), 3.0).max() == 0
