"""Metrics of photometric redshifts against values that are known, and against scipy's."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from skyset.errors import UserError
from skyset.training.common import photoz_metrics as metrics


def test_points_that_can_be_reckoned_by_hand():
    z_spec = np.array([0.0, 1.0, 1.0, 3.0, 0.25])
    z_phot = np.array([0.1, 1.0, 1.4, 1.0, 0.25])  # dz 0.1, 0, 0.2, -0.5, 0
    found = metrics.point_metrics(z_phot, z_spec)
    assert found["bias"] == 0 and found["bias_mean"] == pytest.approx(-0.04)
    assert found["outliers"] == pytest.approx(2 / 5) and found["catastrophic"] == pytest.approx(1 / 5)
    assert found["scatter"] == pytest.approx(0.1 * 1.4826, rel=1e-4)
    assert found["scatter_paper"] == pytest.approx(0.1 * 1.4826, rel=1e-4)
    assert found["mse"] == pytest.approx((0.01 + 0.16 + 4) / 5)
    assert found["rms"] == pytest.approx(np.sqrt((0.01 + 0.04 + 0.25) / 5))
    assert found["loss"] == pytest.approx(np.mean([1 - 1 / (1 + (d / 0.15) ** 2) for d in (0.1, 0, 0.2, -0.5, 0)]))
    over_phot = [d / (1 + p) for d, p in zip(z_phot - z_spec, z_phot, strict=True)]
    assert found["loss_paper"] == pytest.approx(np.mean([1 - 1 / (1 + (d / 0.15) ** 2) for d in over_phot]))


def test_undivided_scatter_differs_from_divided():
    z_spec = np.full(101, 3.0)
    found = metrics.point_metrics(z_spec + np.linspace(-1, 1, 101), z_spec)
    assert found["scatter_paper"] == pytest.approx(4 * found["scatter"])


@pytest.fixture(scope="module")
def normals():
    """2,000 galaxies whose redshifts are drawn from the very distributions that are given for them."""
    rng = np.random.default_rng(3)
    mean, sigma = rng.uniform(0.3, 2, 2000), rng.uniform(0.02, 0.1, 2000)
    grid = np.linspace(0, 3, 1201)
    return norm.cdf(grid, mean[:, None], sigma[:, None]), grid, rng.normal(mean, sigma), mean, sigma


def test_honest_distributions_are_called_so(normals):
    cdf, grid, true, mean, sigma = normals
    found = metrics.all_metrics(cdf, grid, true)
    assert found["pit_ks"] < 0.03 and found["coverage_68"] == pytest.approx(0.68, abs=0.03)
    assert found["coverage_95"] == pytest.approx(0.95, abs=0.02)
    assert metrics.quantile(cdf, grid) == pytest.approx(mean, abs=1e-3)
    assert metrics.quantile(cdf, grid, 0.975) == pytest.approx(mean + 1.96 * sigma, abs=2e-3)
    narrow = norm.cdf(grid, mean[:, None], sigma[:, None] / 3)
    assert metrics.pdf_metrics(narrow, grid, true)["pit_ks"] > 0.15
    assert metrics.pdf_metrics(narrow, grid, true)["coverage_68"] < 0.4
    assert metrics.pdf_metrics(narrow, grid, true)["crps"] > found["crps"]


def test_crps_is_the_integral(normals):
    cdf, grid, true, mean, sigma = normals
    # Of a normal distribution in closed form: Gneiting & Raftery 2007, equation 5.
    w = (true - mean) / sigma
    closed = sigma * (w * (2 * norm.cdf(w) - 1) + 2 * norm.pdf(w) - 1 / np.sqrt(np.pi))
    assert metrics.crps(cdf, grid, true) == pytest.approx(closed, abs=2e-5)
    nodes, steps = np.array([0.0, 0.4, 1.0]), np.array([[0.0, 0.7, 1.0]])
    for z in (-0.2, 0.0, 0.3, 0.4, 0.9, 1.0, 1.5):

        def integrand(t, z=z):
            return (np.interp(t, nodes, steps[0], left=0, right=1) - (t >= z)) ** 2

        exact = quad(integrand, -1, 2, points=sorted({0.0, 0.4, 1.0, z}))[0]
        assert metrics.crps(steps, nodes, [z])[0] == pytest.approx(exact, abs=1e-8)


def test_pit_between_and_beyond_nodes():
    cdf, grid = np.array([[0.0, 0.5, 1.0]] * 4), np.array([0.0, 1.0, 2.0])
    assert metrics.pit(cdf, grid, [0.5, 1.5, -1, 5]) == pytest.approx([0.25, 0.75, 0, 1])


def test_a_point_has_its_distance_as_crps():
    grid = np.linspace(0, 2, 2001)
    cdf = metrics.cdf_of_samples(np.array([[0.5], [1.2]]), grid)
    assert metrics.crps(cdf, grid, [0.7, 1.0]) == pytest.approx([0.2, 0.2], abs=1e-3)


def test_bins_of_redshift_hold_every_row_once():
    rng = np.random.default_rng(1)
    z_spec = np.append(rng.uniform(0, 2, 500), [0.0, 0.5, 2.0])
    found = metrics.by_redshift(z_spec + 0.01, z_spec, [-1, 0, 0.5, 1, 2])
    assert sum(each["rows"] for each in found) == 503 and [each["low"] for each in found] == [0, 0.5, 1]
    assert all(each["mse"] == pytest.approx(1e-4) for each in found)


def test_errors_shrink_as_the_root_of_the_rows(normals):
    cdf, grid, true, mean, _ = normals
    few = metrics.metrics_errors(mean[:200], true[:200], (cdf[:200], grid), samples=60)
    many = metrics.metrics_errors(mean, true, (cdf, grid), samples=60)
    assert set(few) == set(metrics.NAMES)
    assert 2 < few["crps"] / many["crps"] < 5 and many["mse"] > 0


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UserError, match="a true redshift is nan"):
        metrics.point_metrics([1.0, 2.0], [1.0, np.nan])
    with pytest.raises(UserError, match="a predicted redshift is inf"):
        metrics.point_metrics([np.inf], [1.0])
    with pytest.raises(UserError, match="cannot be compared"):
        metrics.point_metrics([], [])
    with pytest.raises(UserError, match="cannot be measured"):
        metrics.pdf_metrics(np.zeros((2, 3)), np.arange(4), [1, 2])
    with pytest.raises(UserError, match="not finite"):
        metrics.pit(np.full((1, 3), np.nan), np.arange(3), [1])
