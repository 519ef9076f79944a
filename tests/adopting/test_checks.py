"""Faults in values, each planted and each absent."""

import numpy as np
import pytest

from skyset.adopting.checks import (
    all_zero,
    counts_up,
    empty_bands,
    infinite,
    inverted,
    like_hashes,
    no_position,
    says_success,
)  # fmt: skip


def test_all_zero_rows():
    ra, dec = np.array([0.0, 0, 0, 1]), np.array([0.0, 0, 0, 0])
    assert all_zero(np.array([0, 5, 0, 0]), ra, dec).tolist() == [True, False, True, False]
    assert all_zero(np.array([b"", b"0", b"J1", b""]), ra, dec).tolist() == [True, True, False, False]
    assert all_zero(None, ra, dec).tolist() == [True, True, True, False]


def test_positions():
    ra, dec = np.array([0, 360, 360.1, -1, np.nan, 5]), np.array([-90, 90, 0, 0, 0, np.nan])
    assert no_position(ra, dec).tolist() == [False, False, True, True, True, True]


def test_infinite_ivar():
    values = np.ones((4, 2, 3), "f4")
    values[1, 0, 0], values[2, 1, 2] = np.inf, np.nan_to_num(np.float32(np.inf))
    values[3] = np.nan
    assert infinite(values).tolist() == [False, True, True, False]
    assert infinite(np.full((2, 3), 2**62)).tolist() == [False] * 2


@pytest.mark.parametrize("bands", [(), (3,)])
def test_masks(bands):
    ivar = np.random.default_rng(0).random((5, *bands, 8, 8)) + 0.1
    ivar[:, ..., :2, :] = 0
    good = np.broadcast_to(ivar.max(axis=1) > 0, (5, 8, 8)) if bands else ivar > 0
    assert inverted(good, ivar).all()
    assert not inverted(~good, ivar).any()
    assert not inverted(np.zeros_like(good), ivar).any()
    assert not inverted(np.ones_like(good), ivar).any()  # all are masked, whatever their weight
    assert not inverted(good, np.zeros_like(ivar)).any()  # no weight anywhere tells nothing
    assert inverted(np.ones_like(good), np.ones_like(ivar)).all()


def test_empty_bands():
    values = np.ones((2, 3, 4, 4))
    values[0, 1], values[1, 2], values[1, 0, 0, 0] = 0, np.nan, 0
    assert empty_bands(values).tolist() == [[False, True, False], [False, False, True]]
    assert empty_bands(np.moveaxis(values, 1, 3), axis=3).tolist() == empty_bands(values).tolist()
    assert empty_bands(values[:1].astype("u1")).tolist() == [[False, True, False]]


def test_flags_that_say_success():
    assert says_success(90, 100) and not says_success(5, 100) and not says_success(3, 3)


def test_ids():
    assert counts_up(np.arange(7, 12)) and not counts_up(np.array([1, 2, 4])) and not counts_up(np.array([3]))
    hashed = hash_of = -7_312_905_112_345_678_901
    assert like_hashes(hashed, hashed + 200, 200)
    hash_of = 6_100_000_000_000_000_000
    assert like_hashes(hash_of, hash_of + 300, 200)
    assert not like_hashes(hash_of, hash_of + (1 << 40), 200)  # Gaia's, SDSS's: packed of fields
    assert not like_hashes(39627733216988000, 39627733216988100, 100)  # DESI's
    assert not like_hashes(-1, 100, 100)
