"""Simulated images: flux, moments and profiles as the formulas say, and the same image for the same seed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.extraction.simulate import (
    expected_counts,
    gaussian_psf,
    moffat_psf,
    render,
    render_sersic,
    sersic_b,
    simulate_ccd,
    simulate_cutouts,
    sources,
)

PSF = moffat_psf(3.87, 3.5, 65)


def moments(image: np.ndarray) -> tuple[float, float, float, float, float, float]:
    """Sum, barycentre and second moments."""
    y, x = np.indices(image.shape)
    total = image.sum()
    mean_x, mean_y = (image * x).sum() / total, (image * y).sum() / total
    dx, dy = x - mean_x, y - mean_y
    return total, mean_x, mean_y, *((image * product).sum() / total for product in (dx * dx, dy * dy, dx * dy))


# --- PSF ------------------------------------------------------------------------------------------


def test_psf_has_unit_sum_and_its_width_at_half_maximum():
    fine = moffat_psf(40.0, 2.5, 401)
    row = fine[200, 200:]
    half = np.interp(-0.5, -row / row[0], np.arange(len(row)))
    assert fine.sum() == pytest.approx(1, abs=1e-12)
    assert half == pytest.approx(20.0, abs=0.01)


def test_gaussian_psf_is_the_integral_of_a_gaussian_over_each_pixel():
    sigma = 2.0 / math.sqrt(8 * math.log(2))
    edges = np.arange(-12.5, 13)
    along = np.diff([0.5 * math.erf(edge / sigma / math.sqrt(2)) for edge in edges])
    np.testing.assert_allclose(gaussian_psf(2.0, 25), np.outer(along, along), atol=1e-7)


def test_psf_may_be_an_ellipse_turned_counter_clockwise():
    _, _, _, xx, yy, xy = moments(gaussian_psf(8.0, 81, q=0.5, pa=30.0))
    assert math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) == pytest.approx(30, abs=0.01)
    assert xy > 0


@pytest.mark.parametrize("arguments", [{"fwhm": 0}, {"fwhm": 3, "size": 24}, {"fwhm": 3, "beta": 1}, {"fwhm": 3, "q": 0}])
def test_psf_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match=r"FWHM|odd|beta"):
        moffat_psf(**arguments)


# --- Sersic profiles ------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "b"), [(0.5, math.log(2)), (1.0, 1.6783469900166605), (4.0, 7.669249442500804)])
def test_half_of_the_light_lies_within_the_half_light_radius(n, b):
    assert sersic_b(n) == pytest.approx(b, rel=1e-12)


@given(
    st.floats(0.3, 6),
    st.floats(0.4, 8),
    st.floats(0.1, 1),
    st.floats(-90, 90),
    st.floats(-0.5, 0.5),
    st.floats(-0.5, 0.5),
)
@settings(max_examples=25, deadline=None)
def test_flux_and_barycentre_are_what_was_asked_for(n, r_e, q, pa, dx, dy):
    image = render_sersic((161, 161), 80 + dx, 80 + dy, 1000.0, r_e, n, q, pa, PSF)
    total, x, y, *_ = moments(image)
    beyond = 1000 * outside(80.0, r_e, n)
    assert 1000 - beyond - 0.5 <= total <= 1000.01
    assert (x, y) == pytest.approx((80 + dx, 80 + dy), abs=1e-3 + 0.02 * beyond)


def outside(radius: float, r_e: float, n: float) -> float:
    """Share of a circular profile's light beyond a radius, by a sum in logarithmic steps."""
    step = 0.002
    r = np.exp(np.arange(math.log(r_e) - 25, math.log(r_e) + 25, step))
    light = r * r * np.exp(-sersic_b(n) * ((r / r_e) ** (1 / n) - 1))
    return float(light[r > radius].sum() / light.sum())


def test_gaussian_galaxy_has_the_moments_of_a_gaussian_through_the_psf():
    image = render_sersic((161, 161), 80.3, 79.8, 500.0, 8.0, 0.5, 0.4, 25.0, gaussian_psf(4.0, 65))
    sigma, psf = 8.0 / math.sqrt(2 * math.log(2)), 16 / (8 * math.log(2)) + 1 / 12
    cos, sin = math.cos(math.radians(25)), math.sin(math.radians(25))
    major, minor = sigma**2, (0.4 * sigma) ** 2
    expected = (major * cos**2 + minor * sin**2 + psf, major * sin**2 + minor * cos**2 + psf, (major - minor) * cos * sin)
    assert moments(image)[3:] == pytest.approx(expected, rel=1e-4)


def brute_force(size: int, x: float, y: float, flux: float, r_e: float, n: float, q: float, pa: float, fwhm: float):
    """The profile summed over points of equal light, each through an exactly integrated Gaussian."""
    b, count, angles = sersic_b(n), 400, 48
    r = np.exp(np.linspace(math.log(r_e) - 22, math.log(r_e) + 7, 200_001))
    growth = np.cumsum(r * r * np.exp(-b * (r / r_e) ** (1 / n)))
    radii = np.interp((np.arange(count) + 0.5) / count, growth / growth[-1], r)
    turn = 2 * np.pi * (np.arange(angles)[None, :] / angles + 0.618 * np.arange(count)[:, None])
    along, across = (radii[:, None] * np.cos(turn)).ravel(), (q * radii[:, None] * np.sin(turn)).ravel()
    cos, sin = math.cos(math.radians(pa)), math.sin(math.radians(pa))
    edges = np.arange(size + 1) - 0.5
    unit = fwhm / math.sqrt(8 * math.log(2)) * math.sqrt(2)
    erf = np.vectorize(math.erf)
    table = np.linspace(-6, 6, 24_001)
    smooth = erf(table)

    def share(position: np.ndarray) -> np.ndarray:
        return 0.5 * np.diff(np.interp((edges[None, :] - position[:, None]) / unit, table, smooth), axis=1)

    columns, rows = share(x + along * cos - across * sin), share(y + along * sin + across * cos)
    return flux / len(along) * rows.T @ columns


@pytest.mark.parametrize(("r_e", "n", "q", "pa"), [(2, 1, 0.5, 30), (3, 2.5, 0.7, -60), (1.5, 6, 0.3, 80), (0.4, 4, 1, 0)])
def test_agrees_with_a_brute_force_sum_of_shifted_gaussians(r_e, n, q, pa):
    image = render_sersic((41, 41), 20.2, 19.7, 1.0, r_e, n, q, pa, gaussian_psf(3.5, 41))
    expected = brute_force(41, 20.2, 19.7, 1.0, r_e, n, q, pa, 3.5)
    assert np.abs(image - expected).max() < 2e-3 * expected.max()


def test_a_star_is_the_psf_and_shifts_by_whole_pixels_exactly():
    image = render((65, 65), sources(32, 32, 2.0), PSF)
    shifted = render((65, 65), sources([40], [30], [2.0]), PSF)
    np.testing.assert_allclose(image, 2 * PSF, atol=1e-6)
    np.testing.assert_allclose(shifted[:60, 10:], image[2:62, 2:57], atol=1e-12)


def test_tiles_meet_without_a_seam():
    table = sources([510.0, 300.0], [515.0, 511.7], [1e4, 1e4], [6.0, 0.0], 4.0, 0.5, 20.0)
    whole = render((700, 700), table, PSF)
    part = render((400, 400), sources(table["x"] - 250, table["y"] - 300, table["flux"], table["r_e"], 4.0, 0.5, 20.0), PSF)
    np.testing.assert_allclose(whole[300:, 250:650], part, atol=1e-4 * whole.max())


@pytest.mark.parametrize("wrong", [{"n": 0.1}, {"q": 1.5}, {"q": 0}, {"r_e": -1}, {"flux": np.nan}])
def test_a_galaxy_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sources(**({"x": 1, "y": 1, "flux": 1, "r_e": 2, "n": 1, "q": 0.5} | wrong))


def test_an_even_psf_is_refused():
    with pytest.raises(ValueError, match="odd"):
        render_sersic((20, 20), 10, 10, 1, 2, 1, 1, 0, np.ones((4, 4)))


# --- Images ---------------------------------------------------------------------------------------


def test_ccd_is_the_same_for_the_same_seed_and_another_for_another():
    first, again, other = (simulate_ccd(seed, (300, 200)) for seed in (1, 1, 2))
    assert first.image.dtype == np.float32
    assert first.image.shape == (300, 200)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.truth, again.truth)
    assert not np.array_equal(first.image, other.image)


def test_ccd_has_sky_noise_and_sources_as_asked_for():
    sky = simulate_ccd(3, (512, 512), stars=0, galaxies=0, sky=2500.0, gain=2.0, read_noise=20.0)
    assert len(sky.truth) == 0
    assert sky.image.mean() == pytest.approx(2500, abs=0.5)
    assert sky.image.std() == pytest.approx(math.sqrt(2500 / 2 + 100), rel=0.01)
    field = simulate_ccd(3, (512, 512), stars=30, galaxies=70)
    assert [(field.truth["kind"] == kind).sum() for kind in ("star", "galaxy")] == [30, 70]
    np.testing.assert_allclose(field.truth["mag"], 34.9 - 2.5 * np.log10(field.truth["flux"]))


def test_brightest_star_lies_where_the_truth_says():
    field = simulate_ccd(5, (256, 256), stars=1, galaxies=0, magnitudes=(17.0, 17.1), sky=100.0)
    star = field.truth[0]
    light = field.image.astype(np.float64) - 100
    box = light[max(round(star["y"]) - 15, 0) : round(star["y"]) + 16, max(round(star["x"]) - 15, 0) : round(star["x"]) + 16]
    total, x, y, *_ = moments(box)
    assert total == pytest.approx(star["flux"], rel=0.02)
    assert (x + max(round(star["x"]) - 15, 0), y + max(round(star["y"]) - 15, 0)) == pytest.approx(
        (star["x"], star["y"]), abs=0.03
    )


def test_numbers_grow_with_area_and_depth():
    few, many = expected_counts((1000, 1000), 0.187, (15, 24)), expected_counts((1000, 1000), 0.187, (15, 26))
    assert many[0] > few[0]
    assert many[1] > 4 * few[1]


def test_saturation_cuts_pixels():
    assert simulate_ccd(5, (128, 128), stars=3, galaxies=0, magnitudes=(15, 16), saturation=9000.0).image.max() == 9000


@pytest.mark.parametrize("wrong", [{"gain": 0}, {"seeing": -1}, {"pixel_scale": 0}])
def test_ccd_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        simulate_ccd(0, (64, 64), **wrong)


def test_cutouts_go_on_with_the_same_images_and_know_their_truth():
    few, more = simulate_cutouts(2, seed=4, size=63), simulate_cutouts(4, seed=4, size=63)
    np.testing.assert_array_equal(few.images, more.images[:2])
    assert more.images.shape == (4, 63, 63)
    assert more.images.dtype == np.float32
    assert np.abs(more.truth["x"] - 31).max() <= 0.5
    assert ((more.truth["mag"] >= 18) & (more.truth["mag"] <= 23)).all()
    assert ((more.truth["n"] >= 0.5) & (more.truth["n"] <= 6)).all()
    assert len(more.owners) == len(more.neighbours)


def test_cutouts_without_neighbours_are_the_galaxy_and_noise():
    cutouts = simulate_cutouts(3, seed=1, neighbours=False, sky_sigma=0.05)
    assert not cutouts.truth["blended"].any()
    for image, row in zip(cutouts.images, cutouts.truth, strict=True):
        shape = (row["x"], row["y"], row["flux"], row["r_e"], row["n"], row["q"], row["pa"])
        rest = image - render_sersic(image.shape, *shape, cutouts.psf)
        assert rest.std() == pytest.approx(0.05, rel=0.03)
        assert abs(rest.mean()) < 0.002


def test_blended_says_whether_the_neighbours_light_matters():
    cutouts = simulate_cutouts(12, seed=2, size=95, mag=(22, 23))
    assert 0 < cutouts.truth["blended"].sum() < 12
    clean = np.flatnonzero(~cutouts.truth["blended"])[0]
    row = cutouts.truth[clean]
    shape = (row["x"], row["y"], row["flux"], row["r_e"], row["n"], row["q"], row["pa"])
    light = render_sersic((95, 95), *shape, cutouts.psf)
    others = render((95, 95), cutouts.neighbours[cutouts.owners == clean], cutouts.psf)
    assert (others * light).sum() <= 0.01 * (light * light).sum() * (1 + 1e-3) + 1e-6
