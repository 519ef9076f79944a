"""Points of distributions of which the best redshift is known."""

import numpy as np
import pytest
from scipy.stats import norm

from skyset.errors import UserError
from skyset.training.common.photoz_metrics import point_metrics
from skyset.training.common.photoz_points import POINTS, check_point, point, score

GRID = np.expm1(np.linspace(0, np.log(5), 801))


def mixture(*parts):
    """Weight, redshift and width in log(1 + z) of each part."""
    logs = np.log1p(GRID)
    return sum(weight * norm.cdf(logs, np.log1p(z), width) for weight, z, width in parts)[None]


@pytest.mark.parametrize("kind", POINTS)
def test_of_a_narrow_peak_all_are_the_peak(kind):
    found = point(np.concatenate([mixture((1, z, 0.01)) for z in (0.301, 1.2345, 3.0)]), GRID, kind)
    assert found == pytest.approx([0.301, 1.2345, 3.0], abs=1e-3)


def test_of_several_peaks():
    two = mixture((0.55, 0.5, 0.02), (0.45, 2.0, 0.02))
    assert point(two, GRID, "mode") == pytest.approx(0.5, abs=2e-3) == point(two, GRID, "best")
    # A narrow peak that holds less than a wide one: the mode is on it, the best where most of p(z) is no outlier.
    wide = mixture((0.3, 0.5, 0.01), (0.7, 2.0, 0.05))
    assert point(wide, GRID, "mode") == pytest.approx(0.5, abs=5e-3)
    assert point(wide, GRID, "best") == pytest.approx(2.0, abs=0.02)
    # Between two peaks is a median that is near neither.
    between = mixture((0.49, 0.3, 0.02), (0.02, 0.9, 0.02), (0.49, 2.0, 0.02))
    assert 0.7 < point(between, GRID, "median")[0] < 1.1
    assert min(abs(point(between, GRID, "best")[0] - z) for z in (0.3, 2.0)) < 0.01


def test_best_has_the_highest_expected_score():
    rng = np.random.default_rng(1)
    cdf = np.concatenate([mixture((0.6, z, 0.03), (0.4, z + 0.4, 0.1)) for z in rng.uniform(0.2, 2, 5)])
    middles, shares = (GRID[1:] + GRID[:-1]) / 2, np.diff(cdf, axis=1)

    def expected(asked):
        return (shares * score((asked[:, None] - middles) / (1 + middles))).sum(axis=1)

    top = expected(point(cdf, GRID))
    for shift in (-0.2, -0.02, 0.02, 0.2):
        assert (expected(point(cdf, GRID) + shift) < top).all()
    assert (expected(point(cdf, GRID, "median")) <= top).all()


def test_of_right_distributions_best_has_fewer_outliers():
    rng = np.random.default_rng(2)
    z, other = rng.uniform(0.3, 2.5, (2, 800))
    true = np.expm1(np.log1p(np.where(rng.random(800) < 0.55, z, other)) + rng.normal(0, 0.03, 800))
    cdf = np.concatenate([mixture((0.55, a, 0.03), (0.45, b, 0.03)) for a, b in zip(z, other, strict=True)])
    found = {kind: point_metrics(point(cdf, GRID, kind), true) for kind in POINTS}
    assert found["best"]["outliers"] < min(found["median"]["outliers"], found["mode"]["outliers"])


def test_ends_steps_and_what_is_none():
    steps = np.zeros((2, len(GRID)))
    steps[0], steps[1, -1] = 1, 1  # all below the grid, all in its last step
    for kind in ("best", "mode"):
        found = point(steps, GRID, kind)
        assert np.isfinite(found).all() and found[1] == pytest.approx(GRID[-1], rel=0.01)
    assert point(np.zeros((0, len(GRID))), GRID).shape == (0,)
    with pytest.raises(UserError, match="cannot be measured"):
        point(np.zeros((2, 3)), GRID)
    with pytest.raises(UserError, match="no point 'mean'; there are best, median, mode"):
        check_point("mean")
