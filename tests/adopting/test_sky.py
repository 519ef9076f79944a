"""The unit of positions: asked for, said, proved by cells, or not to be known."""

import numpy as np
import pytest

from skyset.adopting.sky import Sky, in_degrees, possible, unit_of
from skyset.errors import UserError


def sky(ra, dec, said="", judged=0, **wrong):
    found = Sky()
    found.add(ra, dec, said, judged, wrong)
    return found


def test_units_by_their_names():
    assert [unit_of(each) for each in ("deg", "Degrees", "HOUR", "hourangle", "rad", "radians", "", "mJy")] == [
        "deg", "deg", "hour", "hour", "rad", "rad", "", "",
    ]  # fmt: skip


def test_in_degrees():
    ra, dec = np.array([12, 3], "f4"), np.array([1.0, -1.0], "f4")
    assert in_degrees(ra, dec, "hour")[0].tolist() == [180, 45] and in_degrees(ra, dec, "hour")[1].tolist() == [1, -1]
    np.testing.assert_allclose(in_degrees(np.array([np.pi]), np.array([-np.pi / 2]), "rad"), [[180], [-90]])


def test_possible():
    assert possible((0, 359), (-10, 10)) == ["deg"]
    assert possible((0, 23.9), (-10, 10)) == ["deg", "hour"]
    assert possible((0, 6.28), (-1.5, 1.5)) == ["deg", "hour", "rad"]


@pytest.mark.parametrize(
    ("found", "unit"),
    [
        (sky((0.1, 6.2), (-1.5, 1.5), "rad"), "rad"),
        (sky((0.1, 6.2), (-1.5, 1.5), judged=100, deg=97, hour=99, rad=1), "rad"),
        (sky((0.1, 23), (-50, 60), judged=100, deg=97, hour=0), "hour"),
        (sky((0.1, 6.2), (-1.5, 1.5), judged=100, deg=3, hour=90, rad=90), "deg"),
        (sky((10, 11), (2, 3)), "deg"),
        (sky((1.2, 1.4), (0.1, 0.3)), "deg"),  # a field of a fifth of a degree
        (sky((10, 300), (2, 3), judged=10, deg=10), "deg"),  # the cells are none
        (Sky(), "deg"),
    ],
)
def test_unit(found, unit):
    assert found.unit() == unit
    assert found.unit("hour") == "hour"


def test_what_nothing_proves_is_asked_for():
    with pytest.raises(UserError, match="--position_unit deg, or --position_unit rad"):
        sky((0.1, 6.2), (-1.5, 1.5)).unit()
    with pytest.raises(UserError, match="--position_unit hour"):
        sky((0.1, 23), (-60, 50)).unit()
    assert sky((0.1, 23), (-60, 50)).unit("deg") == "deg"


def test_files_together():
    found = sky((0.1, 1), (0, 1), judged=10, deg=9, rad=0, hour=9)
    found.add((200, 300), (0, 50), "", 10, {"deg": 0})
    assert found.wrong == {"deg": 9, "rad": 10, "hour": 19} and found.unit() == "deg"
