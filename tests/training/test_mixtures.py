"""Mixtures of log(1 + z): densities that have the integral 1, cumulative functions that are theirs, ensembles."""

import numpy as np
import pytest
from scipy.stats import norm

torch = pytest.importorskip("torch")

from skyset.training.common.mixtures import FIRST, FLOOR, Mixture, components_of, start_head

GRID = np.expm1(np.linspace(-0.5, 2.5, 6001))


@pytest.fixture
def ensemble():
    numbers = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3, 12)).astype(np.float32))
    return Mixture(components_of(numbers, centre=0.6, spread=0.2))


def test_components_are_weights_means_and_widths(ensemble):
    log_weights, means, scales = ensemble.components.unbind(-1)
    assert ensemble.components.shape == (5, 3, 4, 3)
    assert torch.allclose(log_weights.exp().sum(-1), torch.ones(5, 3))
    assert (scales > 0.2 * FLOOR).all() and (means - 0.6).abs().max() < 1
    zero = components_of(torch.zeros(3), 0.6, 0.2)
    assert zero[0].tolist() == pytest.approx([0, 0.6, 0.2 * (FIRST + FLOOR)])
    weight, bias = torch.empty(3, 50, 12), torch.empty(3, 1, 12)
    start_head(weight, bias, 50)
    assert bias[1, 0, 4:8].tolist() == [-1.5, -0.5, 0.5, 1.5] and bias[0, 0, :4].abs().max() == 0
    assert weight.std() == pytest.approx(0.1 / 50**0.5, rel=0.1)


def test_density_and_cumulative_function_are_of_one_distribution(ensemble):
    cdf = ensemble.cdf(GRID)
    assert cdf.shape == (5, len(GRID)) and cdf.dtype == np.float32
    assert np.abs(cdf[:, -1] - 1).max() < 1e-3 and (np.diff(cdf, axis=1) >= -1e-6).all()
    middles = (GRID[1:] + GRID[:-1]) / 2
    one = Mixture(ensemble.components[2:3].expand(len(middles), -1, -1, -1))
    density = one.log_prob(torch.from_numpy(middles)).exp().mean(1).numpy()
    assert np.abs(np.cumsum(density * np.diff(GRID)) + cdf[2, 0] - cdf[2, 1:]).max() < 2e-3


def test_one_component_is_a_normal_distribution_of_log1p():
    z = np.array([0.1, 0.8, 2.0])
    components = torch.tensor([[[0.0, 0.5, 0.1]]]).expand(3, -1, -1)
    log_prob = Mixture(components).log_prob(torch.from_numpy(z)).numpy()
    assert log_prob == pytest.approx(norm.logpdf(np.log1p(z), 0.5, 0.1) - np.log1p(z), rel=1e-5)
    assert Mixture(components).cdf(z)[0] == pytest.approx(norm.cdf(np.log1p(z), 0.5, 0.1), abs=1e-6)


def test_an_ensemble_is_the_mean_of_its_members_or_of_some(ensemble):
    each = np.stack([Mixture(ensemble.components[:, member]).cdf(GRID[::50]) for member in range(3)])
    assert ensemble.cdf(GRID[::50]) == pytest.approx(each.mean(0), abs=1e-5)
    use = torch.tensor([[True, False, True]] * 5)
    assert ensemble.cdf(GRID[::50], use) == pytest.approx(each[[0, 2]].mean(0), abs=1e-5)
    assert ensemble.joined().components.shape == (5, 12, 3)
