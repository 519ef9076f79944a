"""Kernels against plain forms of what they do, on random pixels: exactly the same numbers."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("numba")

from skyset.extraction import apertures, segments

NONE, NO_MASK = np.zeros((0, 0), np.float32), np.zeros((0, 0), np.bool_)
PYRAMID = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16


def noise(seed, shape):
    image = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    image[:, ::7] *= 3
    return image


@pytest.mark.parametrize("shape", [(40, 300), (3, 3), (2, 9), (9, 2), (1, 1), (5, 64), (4, 3)])
def test_the_filter_of_nine_weights_is_that_of_any_number(shape):
    """In a frame of zeros the same nine weights go the general way."""
    image, framed = noise(1, shape), np.zeros((5, 5), np.float32)
    framed[1:4, 1:4] = PYRAMID
    np.testing.assert_array_equal(segments.filtered(image, PYRAMID), segments.filtered(image, framed))


def groups(above):
    """Pixels that touch, group by group in the order of their first pixel; each group's in reading order."""
    left, out = set(zip(*np.nonzero(above), strict=True)), []
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        found, waiting = [], [start]
        while waiting:
            y, x = waiting.pop()
            found.append((int(y), int(x)))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            waiting += near
        out.append(sorted(found))
    return out


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 200, 5000])
@pytest.mark.parametrize("threshold", [0.0, 1.0, 4.0])
def test_groups_are_those_of_pixels_that_touch(columns, threshold):
    image = noise(columns, (max(9000 // columns, 6), columns))
    for minarea, scale in ((1, NONE), (3, NONE), (1, np.full_like(image, 1.5))):
        x, y, value, starts = segments.find(image, NONE, np.float32(threshold), scale, minarea, 0)
        limit = threshold * 1.5 if scale.size else threshold
        expected = [group for group in groups(image > np.float32(limit)) if len(group) >= minarea]
        found = [list(zip(y[a:b].tolist(), x[a:b].tolist(), strict=True)) for a, b in pairwise(starts)]
        assert found == expected
        np.testing.assert_array_equal(value, image[y, x])


def circle_plainly(image, owner, bad, number, x, y, diameter):
    """The sum over pixels by the share of 5 x 5 points inside; a neighbour's pixel is the one opposite of the centre."""
    rows, columns = image.shape
    radius, flux, spoilt = 0.5 * diameter, 0.0, False
    for j in range(max(int(np.floor(y - radius)), 0), min(int(np.floor(y + radius)) + 2, rows)):
        for i in range(max(int(np.floor(x - radius)), 0), min(int(np.floor(x + radius)) + 2, columns)):
            parts = [(i - x + (p + 0.5) / 5 - 0.5, j - y + (q + 0.5) / 5 - 0.5) for q in range(5) for p in range(5)]
            share = sum(a * a + b * b < radius * radius for a, b in parts) / 25
            if share == 0:
                continue
            value = float(image[j, i])
            spoilt |= bool(bad[j, i])
            if bad[j, i] or owner[j, i] not in (0, number):
                k, m = int(np.floor(2 * x - i + 0.5)), int(np.floor(2 * y - j + 0.5))
                opposite = 0 <= k < columns and 0 <= m < rows and owner[m, k] in (0, number) and not bad[m, k]
                value = float(image[m, k]) if opposite else 0.0
            flux += share * value
    return flux, spoilt


@pytest.mark.parametrize("diameters", [[3.74, 7.48, 11.22], [0.3], [30.0, 1.0]])
def test_circles_are_sums_of_shares_of_pixels(diameters):
    rng = np.random.default_rng(len(diameters))
    image = noise(2, (60, 70)) + 3
    owner = np.where(rng.random(image.shape) < 0.1, rng.integers(1, 40, image.shape), 0).astype(np.int32)
    bad = rng.random(image.shape) < 0.02
    x, y = rng.uniform(-0.5, 69.5, 30), rng.uniform(-0.5, 59.5, 30)
    field = image, owner, bad, NONE, 1.0, 1.6, apertures.MASKS["correct"]
    flux, variance, flags = apertures.circles(field, x, y, np.array(diameters))
    assert flux.shape == variance.shape == (30, len(diameters))
    assert (variance > 0).any()
    for n in range(30):
        plain = [circle_plainly(image, owner, bad, n + 1, x[n], y[n], diameter) for diameter in diameters]
        np.testing.assert_allclose(flux[n], [one[0] for one in plain], rtol=1e-12, atol=1e-12)
        assert flags[n] or not any(one[1] for one in plain), "a bad pixel in an aperture is flagged"
