"""Positions on the sky, and names that spell them."""

import numpy as np
import pytest

from skyset.errors import RecordError
from skyset.sky import cell_boxes, healpix_cell, is_name, joint_box, position_of


@pytest.mark.parametrize(
    ("name", "ra", "dec"),
    [
        ("J000411.19+020924.0", 15 * (4 * 60 + 11.19) / 3600, 2 + 9 / 60 + 24 / 3600),
        ("J235959.99-000000.1", 15 * (86399.99) / 3600, -0.1 / 3600),
        ("J120000+900000", 180, 90),
    ],
)
def test_the_position_of_a_name(name, ra, dec):
    assert is_name(name) and position_of(name) == pytest.approx((ra, dec), abs=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "J240000.00+000000.0",
        "J006000.00+000000.0",
        "J000000.00+906000.0",
        "588018090547020096",
        "J120000+900000.1",
        "j000411.19+020924.0",
        "J000411.19+020924.0 ",
    ],
)
def test_what_is_no_name(name):
    with pytest.raises(RecordError, match=r"no IAU name|no position"):
        position_of(name)


@pytest.mark.parametrize("nside", [1, 2, 16])
def test_boxes_hold_their_cells(nside):
    rng = np.random.default_rng(nside)
    ra, dec = rng.uniform(0, 360, 4000), np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))
    cells = healpix_cell(ra, dec, nside)

    def inside(boxes):
        turned = [(ra + turn >= boxes[:, 0]) & (ra + turn <= boxes[:, 1]) for turn in (-360, 0, 360)]
        return np.any(turned, axis=0) & (dec >= boxes[:, 2]) & (dec <= boxes[:, 3])

    assert inside(cell_boxes(cells, nside)).all()
    few = np.unique(cells)[[0, 2, 3]]
    (west, east), (south, north) = joint_box(cell_boxes(few, nside))
    assert inside(np.array([[west, east, south, north]]))[np.isin(cells, few)].all()
    assert len(cell_boxes([], nside)) == 0
    if nside == 16:
        assert np.median(np.diff(cell_boxes(cells, nside)[:, 2:])) < 2 * 3.7, "little more than the cell"
