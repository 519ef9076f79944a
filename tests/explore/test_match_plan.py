"""A block of files at a time finds the pairs that all positions at once give; only files near something are opened."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.explore import match_plan
from skyset.explore.match_plan import Places, joined, pairs_within, places_of
from skyset.sky import healpix_cell
from skyset.tables.match import Pairs, match_positions

#: Poles, RA = 0, corners of HEALPix base cells, and a place like any other.
CENTRES = [
    (0.0, 0.0),
    (0.0, 90.0),
    (10.0, -90.0),
    (0.0, 41.8103148957786),
    (45.0, 0.0),
    (90.0, 66.44353569089876),
    (200.0, 30.0),
]


def in_files(ra, dec, opened=None):
    """Places by HEALPix cell, as partitions have them, and the row numbers of the files' rows one after the other."""
    cells = healpix_cell(ra, dec)
    rows = [np.flatnonzero(cells == cell) for cell in np.unique(cells)]
    boxes = [(ra[r].min(), ra[r].max(), dec[r].min(), dec[r].max()) for r in rows]

    def read(file):
        if opened is not None:
            opened.append(file)
        return ra[rows[file]], dec[rows[file]]

    return Places([len(r) for r in rows], np.array(boxes), read), np.concatenate(rows)


def around(rng, centre, count, spread):
    ra, dec = centre
    dec = dec + rng.normal(0, spread, count)
    over = np.abs(dec) > 90
    dec = np.where(over, np.sign(dec) * 180 - dec, dec)
    ra = ra + rng.normal(0, spread, count) / np.maximum(np.cos(np.radians(dec)), 1e-3) + 180 * over
    return ra % 360, dec


@settings(max_examples=60, deadline=None, derandomize=True)
@given(centre=st.sampled_from(CENTRES), seed=st.integers(0, 2**32 - 1), block=st.sampled_from([1, 7, 1000]))
def test_blocks_of_files_find_all_pairs(centre, seed, block):
    rng = np.random.default_rng(seed)
    radius = float(rng.choice([1.0, 60.0, 3600.0]))
    left = around(rng, centre, 60, 3 * radius / 3600)
    right = around(rng, centre, 60, 3 * radius / 3600)
    for axis in (0, 1):  # the same places, and the same again
        right[axis][:10] = left[axis][:10]
        left[axis][10:15] = left[axis][:5]
    wanted = match_positions(*left, *right, radius)
    whole = set(zip(wanted.left.tolist(), wanted.right.tolist(), strict=True))
    before, match_plan.BLOCK_ROWS = match_plan.BLOCK_ROWS, block
    try:
        for best in ("all", "nearest", "mutual"):
            (a, rows_a), (b, rows_b) = in_files(*left), in_files(*right)
            found = pairs_within(a, b, radius, best)
            assert np.array_equal(np.lexsort((found.right, found.separation, found.left)), np.arange(len(found)))
            pairs = set(zip(rows_a[found.left].tolist(), rows_b[found.right].tolist(), strict=True))
            if best == "all":
                assert pairs == whole
            else:
                assert pairs <= whole
                assert len(set(found.left.tolist())) == len(found)
                assert best == "mutual" or len(found) == len(set(wanted.left.tolist()))
    finally:
        match_plan.BLOCK_ROWS = before


def test_files_without_anything_near_are_not_opened():
    rng = np.random.default_rng(0)
    whole = rng.uniform(0, 360, 3000), np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    some = np.array([0.001, 120.0, 240.0]), np.array([0.0, 30.0, -85.0])
    whole[0][:3], whole[1][:3] = some[0] - 0.0001, some[1]
    opened: list = []
    sky, rows = in_files(*whole, opened)
    found = pairs_within(places_of(*some), sky, 1.0)
    assert rows[found.right].tolist() == [0, 1, 2]
    assert 3 <= len(set(opened)) < 12 and len(sky.counts) > 1500
    opened.clear()
    assert len(pairs_within(sky, places_of(*some), 1.0)) == 3 and len(set(opened)) < len(sky.counts) / 2


def test_rows_without_a_position_match_nothing():
    ra, dec = np.array([1.0, np.nan, 3.0]), np.array([2.0, 2.0, np.nan])
    places = Places([3], np.array([[0, 360, -90, 90]]), lambda _: (ra, dec))
    found = pairs_within(places, places, 1.0)
    assert (found.left.tolist(), found.right.tolist()) == ([0], [0])


def test_too_many_pairs_are_one_line(monkeypatch):
    from skyset.errors import UserError

    monkeypatch.setattr(match_plan, "MAX_PAIRS", 5)
    clump = places_of(np.zeros(3), np.zeros(3))
    with pytest.raises(UserError, match="more than 5 pairs within 1 arcsec"):
        pairs_within(clump, clump, 1.0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.integers(1, 3).flatmap(
        lambda n: st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), unique=True), min_size=n, max_size=n)
    )
)
def test_joined_against_loops(lists):
    pairs = [np.array(sorted(each), np.int64).reshape(-1, 2) for each in lists]
    several = [Pairs(p[:, 0], p[:, 1], p[:, 1].astype(float)) for p in pairs]
    for objects in (None, 5):
        wanted = []
        for left in range(5):
            rows = [(left,)]
            for each in lists:
                others = sorted(b for a, b in each if a == left) or ([-1] if objects else [])
                rows = [(*row, other) for row in rows for other in others]
            wanted += rows
        found, separations = joined(several, objects)
        assert sorted(map(tuple, found.T.tolist())) == sorted(wanted)
        for row, apart in zip(found[1:], separations, strict=True):
            assert np.array_equal(apart, np.where(row < 0, np.nan, row), equal_nan=True)
        assert np.all(np.diff(found[0]) >= 0)
