"""Shares of votes, labels, positions, and images under other names: by value."""

from pathlib import Path

import numpy as np
import pytest

from skyset.building.imagefiles import Images, Place
from skyset.building.images_and_votes.image_names import by_object, read_names
from skyset.building.images_and_votes.positions import placed, with_positions
from skyset.building.images_and_votes.release import ImageNames, Names
from skyset.building.images_and_votes.votes import labels, shares
from skyset.errors import UserError
from skyset.sky import is_name, position_of
from skyset.tables.join import Joined

NUMBERS, IAU = Names(("objid",)), Names(("name",), "IAU names", is_name, position_of)


def test_shares_of_those_who_were_asked():
    votes, total = np.array([1, 0, -1, 3, 2], np.int16), np.array([4, 5, 5, 0, -1], np.int32)
    np.testing.assert_array_equal(shares(votes, total), [0.25, 0, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_by_share(dtype):
    share = np.array([0.26, 0.25, 0.05, 0.04, 0, 1, np.nan], dtype)
    assert labels(share, 0.25, 0.05).tolist() == [1, -1, -1, 0, 0, 1, -1]
    assert labels(share, 0.25, 0.05).dtype == np.int64


def test_positions_are_the_catalogues_or_those_of_the_names():
    keys = ["J000400.00+010000.0", "J000800.00-020000.0", "no name"]
    joined = Joined(keys, {"ra": np.array([1.5, np.nan, np.nan]), "dec": np.array([2.5, 3.0, np.nan])})
    found = with_positions(joined, IAU).values
    np.testing.assert_array_equal([found["ra"], found["dec"]], [[1.5, 2, np.nan], [2.5, -2, np.nan]])
    np.testing.assert_array_equal(with_positions(joined, NUMBERS).values["ra"], joined.values["ra"])
    np.testing.assert_array_equal(with_positions(Joined(keys, {}), IAU).values["ra"], [1, 2, np.nan])


def test_objects_of_another_table_are_placed_where_they_are_known():
    known = Joined(["g1", "g2"], {"ra": np.array([1.0, 2.0]), "dec": np.array([-1.0, -2.0]), "z": np.zeros(2)})
    found = placed(["g2", "g3", "g1"], [("g2", "file", "why")], known, NUMBERS)
    np.testing.assert_array_equal(found.values["ra"], [2, np.nan, 1])
    assert [*found.values] == ["ra", "dec"] and found.rejected == [("g2", "file", "why")]
    assert placed(["J000400.00+010000.0"], [], None, IAU).values["dec"].tolist() == [1]


def test_images_by_the_names_of_their_objects(tmp_path):
    (tmp_path / "names.csv").write_text("objid,asset_id,sample\n11,1,a\n12,2,a\n11,3,b\n13,4,a\n14,2,b\n")
    names = read_names(tmp_path / "names.csv", ImageNames("names.csv", "objid", "asset_id"))
    assert names == {"11": ["1", "3"], "12": ["2"], "13": ["4"], "14": ["2"]}
    places = {stem: Place(Path(f"{stem}.jpg")) for stem in ("13", "4", "3", "2", "99")}
    images = by_object(Images(places, [("1", "1.jpg", "bad"), ("98", "98.jpg", "bad")]), names)
    assert {key: place.path.stem for key, place in images.places.items()} == {
        "11": "3",
        "12": "2",
        "13": "13",
        "14": "2",
        "4": "4",
        "99": "99",
    }
    assert images.problems == [("11", "1.jpg", "bad"), ("98", "98.jpg", "bad")]
    assert by_object(images, {}) is images


def test_names_of_images_that_were_floats_are_refused(tmp_path):
    (tmp_path / "names.csv").write_text("objid,asset_id\n5.87722981736120E+17,1\n")
    with pytest.raises(UserError, match="column objid"):
        read_names(tmp_path / "names.csv", ImageNames("names.csv", "objid", "asset_id"))
