"""Cells of a catalogue and their margins: each row in one cell, and in every margin that it is near enough to."""

import numpy as np
import pytest
from astropy_healpix import HEALPix

from skyset.errors import UserError
from skyset.publishing.hats_plan import _corners, cells_of, highest_order, index_of, margins_of
from skyset.tables.match import match_positions

ARCSEC = 10.0


@pytest.fixture(scope="module")
def sky():
    """Positions all over the sky, a cluster, many about corners of cells, poles and RA 0 among them, sorted by index."""
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 40_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 40_000)))
    corners = np.concatenate([_corners(order, pixel) for order in range(4) for pixel in range(0, 12 * 4**order, 7)], axis=1)
    near = np.repeat(np.arange(corners.shape[1]), 30)
    angle, away = rng.uniform(0, 2 * np.pi, len(near)), rng.uniform(0, 1.3 * ARCSEC, len(near)) / 3600
    north = np.clip(corners[1][near] + away * np.sin(angle), -90, 90)
    east = corners[0][near] + away * np.cos(angle) / np.maximum(np.cos(np.radians(north)), 1e-6)
    cluster = rng.normal(0, 0.2, (2, 5000))
    ra = np.concatenate([ra, east % 360, 150 + cluster[0], [0, 0, 360]])
    dec = np.concatenate([dec, north, 2 + cluster[1], [90, -90, 0]])
    index = index_of(ra, dec)
    order = np.argsort(index, kind="stable")
    return ra[order], dec[order], index[order]


def test_the_index_is_that_of_hats(sky):
    spatial_index = pytest.importorskip("hats.pixel_math.spatial_index", reason="the package hats is not installed")
    theirs = spatial_index.compute_spatial_index(sky[0], sky[1])
    assert (theirs != sky[2]).mean() < 1e-4, "they differ by rounding alone, a quarter of a milliarcsecond"
    assert np.abs((theirs >> 8) - (sky[2] >> 8)).max() <= 1


def test_cells_hold_each_row_once_and_no_more_than_they_may(sky):
    index = sky[2]
    sizes = np.random.default_rng(2).integers(1, 100, len(index))
    cells = cells_of(index, sizes, 100_000, 3000, 10)
    assert [cell.stop for cell in cells[:-1]] == [cell.start for cell in cells[1:]]
    assert (cells[0].start, cells[-1].stop) == (0, len(index))
    for cell in cells:
        assert set((index[cell.start : cell.stop] >> (2 * (29 - cell.order))).tolist()) == {cell.pixel}
        assert sizes[cell.start : cell.stop].sum() <= 100_000 and len(cell) <= 3000
    assert len({cell.order for cell in cells}) > 1
    for parent in {(cell.order - 1, cell.pixel // 4) for cell in cells if cell.order}:
        below = [c for c in cells if c.order > parent[0] and c.pixel >> (2 * (c.order - parent[0])) == parent[1]]
        whole = slice(below[0].start, below[-1].stop)
        assert sizes[whole].sum() > 100_000 or below[-1].stop - below[0].start > 3000, "no cell is cut needlessly"


def test_rows_at_one_place_end_at_the_highest_order():
    index = np.full(1000, index_of(np.array([10.0]), np.array([20.0]))[0])
    (cell,) = cells_of(index, np.full(1000, 1 << 20), 1 << 20, None, 10)
    assert (cell.order, len(cell)) == (10, 1000)
    assert cell.path == f"Norder=10/Dir={cell.pixel // 10000 * 10000}/Npix={cell.pixel}.parquet"


def test_margins_have_all_rows_about_a_cell_and_no_others(sky):
    ra, dec, index = sky
    cells = cells_of(index, np.ones(len(index), int), 1 << 60, 2000, highest_order(ARCSEC))
    margins = margins_of(cells, ra, dec, index, ARCSEC)
    checked = 0
    for cell, rows in list(zip(cells, margins, strict=True))[::9]:
        border = HEALPix(2**cell.order, order="nested").boundaries_lonlat([cell.pixel], step=min(3000, 52_000 >> cell.order))
        longitude, latitude = (each.deg[0] for each in border)
        inside = np.unique(match_positions(ra, dec, longitude % 360, latitude, ARCSEC).left)
        inside = inside[(inside < cell.start) | (inside >= cell.stop)]
        assert np.setdiff1d(inside, rows).size == 0
        about = np.unique(match_positions(ra[rows], dec[rows], longitude % 360, latitude, 1.3 * ARCSEC).left)
        assert len(about) == len(rows)
        assert (np.diff(rows) > 0).all() and not ((rows >= cell.start) & (rows < cell.stop)).any()
        checked += len(inside)
    assert checked > 500


@pytest.mark.parametrize(("margin", "order"), [(0, 10), (5, 10), (60, 9), (3600, 3)])
def test_cells_are_wider_than_the_margin(margin, order):
    assert highest_order(margin) == order


@pytest.mark.parametrize("margin", [-1, 3601, float("nan")])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(UserError, match="--margin"):
        highest_order(margin)
