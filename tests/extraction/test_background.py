"""Mesh statistics against the plain form of what they do: all pixels sorted out by numpy, bins walked one by one."""

import numpy as np
import pytest

pytest.importorskip("numba")

from skyset.extraction import background
from skyset.extraction.background import MOST_BINS


def clipped_walking(histogram):
    """Mean, median and deviation of a histogram clipped at 3 sigma; the median by filling halves bin by bin."""
    bins = np.arange(len(histogram))
    low, high = 0, len(histogram) - 1
    mean, median, sigma, before = 0.0, 0.0, 10.0 * high, 1.0
    while sigma >= 0.1 and abs(sigma / before - 1.0) > 1e-4:
        before = sigma
        part = histogram[low : high + 1].astype(np.int64)
        count = part.sum()
        if count == 0:
            break
        mean = (part * bins[low : high + 1]).sum() / count
        sigma = np.sqrt(max((part * bins[low : high + 1] ** 2).sum() / count - mean * mean, 0.0))
        lower, upper, below, above = low, high, 0, 0
        while upper >= lower:
            if below < above:
                below, lower = below + histogram[lower], lower + 1
            else:
                above, upper = above + histogram[upper], upper - 1
        median = (
            upper + 0.5 + (above - below) / (2.0 * max(histogram[max(upper, 0)], histogram[min(lower, len(bins) - 1)], 1))
        )
        low = max(0, int(median - 3 * sigma + 0.5)) if median > 3 * sigma else 0
        high = max(low, min(len(bins) - 1, int(median + 3 * sigma + 0.5)))
    return mean, median, sigma


def mode_plainly(values):
    """Mode and noise of a sample, in double precision."""
    values = values.astype(np.float64)
    near = values[np.abs(values - values.mean()) <= 2 * values.std()]
    mean, sigma = near.mean(), near.std()
    bins = int(min(np.sqrt(2 / np.pi) * 5.0 / 4 * len(near) + 1, MOST_BINS))
    step = 10.0 * sigma / bins
    place = np.floor((values - mean + 5.0 * sigma) / step + 0.5).astype(np.int64)
    histogram = np.bincount(place[(place >= 0) & (place < bins)], minlength=bins)
    middle, median, spread = clipped_walking(histogram)
    mode = 2.5 * median - 1.5 * middle if spread > 0 and abs(middle - median) < 0.3 * spread else median
    return mean - 5.0 * sigma + mode * step, spread * step


def sky(seed, shape=(200, 260), dtype="f4"):
    """A steep sky with noise and sources, some of them on every mesh."""
    rng = np.random.default_rng(seed)
    image = 900 + rng.normal(0, 20, shape) + np.linspace(0, 300, shape[1])
    rows, columns = rng.integers(0, shape[0], 400), rng.integers(0, shape[1], 400)
    image[rows, columns] += rng.pareto(1.0, 400) * 200
    return np.clip(image, 0, 65535).astype(dtype)


def meshes(image, bad, size):
    """Mode and noise of each mesh, plainly."""
    rows, columns = image.shape
    out = []
    for y in range(0, rows, size):
        for x in range(0, columns, size):
            part, spoilt = (a[y : y + size, x : x + size].ravel() for a in (image, bad))
            good = part[~spoilt & (np.abs(part) < 1e15)]
            out.append(mode_plainly(good) if len(good) >= 0.5 * len(part) else (np.nan, np.nan))
    return np.array(out).T.reshape(2, -(-rows // size), -(-columns // size))


@pytest.mark.parametrize("seed", range(40))
def test_a_histogram_is_clipped_as_if_its_bins_were_walked(seed):
    rng = np.random.default_rng(seed)
    bins = int(rng.integers(3, MOST_BINS))
    shape = [rng.normal(0.5, 0.1, 4000), rng.normal(0.3, 0.01, 50), rng.beta(1, 6, 3000), rng.random(500), np.full(9, 0.4)]
    values = np.concatenate([shape[seed % 5], rng.random(seed)])
    histogram = np.histogram(values, bins, (0, 1))[0].astype(np.int32)
    found = background._clipped(histogram, np.zeros(MOST_BINS + 1, np.int32))
    assert tuple(found) == clipped_walking(histogram), "integers: exact"


@pytest.mark.parametrize("size", [64, 50, 300])
@pytest.mark.parametrize("kind", ["clean", "bad", "not finite", "far", "u2", ">f4"])
def test_meshes_are_those_worked_out_plainly(size, kind):
    image, bad = sky(size), np.zeros((200, 260), bool)
    if kind in ("bad", "not finite", "far"):
        bad[20:40, 30:90] = bad[150, :] = bad[64:128, 128:192] = True
    if kind in ("u2", ">f4"):
        image = sky(size, dtype=kind)
    expected = meshes(image, bad, size)
    if kind == "not finite":
        image[bad] = np.nan
    elif kind == "far":
        image[bad] = -1e30
    given = bad if kind == "bad" else None
    found = np.array(background._statistics(np.ascontiguousarray(image, image.dtype.newbyteorder("=")), given, size, size))
    noise = np.nanmedian(expected[1])
    np.testing.assert_allclose(found, expected, atol=2e-2 * noise, rtol=0, err_msg="a pixel at a bin's edge moves 1e-2")
    assert np.nanmedian(np.abs(found - expected)) < 2e-3 * noise


def test_a_mask_of_nothing_changes_nothing():
    """Meshes without bad pixels are worked out in the same way, whether there is a mask or not."""
    image = sky(3)
    bad = np.zeros(image.shape, bool)
    bad[5, 5] = True
    other = background._statistics(image, bad, 64, 64)
    whole = background._statistics(image, None, 64, 64)
    for a, b in zip(other, whole, strict=True):
        np.testing.assert_array_equal(a.ravel()[1:], b.ravel()[1:])
        assert a[0, 0] != b[0, 0]


def test_the_unit_of_the_counts_is_of_no_account():
    """Powers of two, so that not a bit differs."""
    image = sky(5)
    mode, noise = background._statistics(image, None, 64, 64)
    for factor in (2.0**-40, 2.0**60):
        a, b = background._statistics((image * np.float32(factor)), None, 64, 64)
        np.testing.assert_array_equal(a / factor, mode)
        np.testing.assert_array_equal(b / factor, noise)
