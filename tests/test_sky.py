"""Positions on the sky, and names that spell them."""

import pytest

from skyset.errors import RecordError
from skyset.sky import is_name, position_of


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
