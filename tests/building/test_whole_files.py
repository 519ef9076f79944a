"""Datasets of which whole partitions are at hand: what is written, taken over, and written again."""

import dataclasses

import numpy as np
import pytest

from skyset.building.options import Options
from skyset.building.task import Rejected
from skyset.building.whole_files import Whole, build_whole, paths_of
from skyset.errors import UserError
from skyset.partitions.partition import Partition
from skyset.partitions.verify import verify
from skyset.sky import healpix_cell
from skyset.survey import HEALPIX, Column, Survey, plain_features

COLUMNS = (
    Column("object_id", "S8"),
    Column("ra", "float64", (), "deg"),
    Column("dec", "float64", (), "deg"),
    HEALPIX,
    Column("value", "float32"),
)
SURVEY = Survey("things", "Things", "", "", "", "", COLUMNS, plain_features(COLUMNS, {}), train_folder=True)
WHOLES = [
    Whole(name, split, int(healpix_cell(ra, 10.0)), f"{name} 1")
    for name, split, ra in (("b", "train", 5.0), ("a", "train", 5.0), ("c", "test", 5.0), ("d", "train", 95.0))
]


def rows(whole, ra=None, count=3):
    places = np.full(count, 5.0 if whole.name != "d" else 95.0)
    return {
        "object_id": [f"{whole.name}{number}" for number in range(count)],
        "ra": places,
        "dec": np.full(count, 10.0),
        "healpix": np.full(count, whole.healpix),
        "value": np.arange(count, dtype=np.float32),
    }


def build(root, wholes=tuple(WHOLES), give=rows, **options):
    return build_whole(SURVEY, wholes, give, Options(root, **options), ["build"], rejected=[Rejected("x", "y", "z")])


def test_files_of_a_cell_are_numbered_by_name(tmp_path):
    manifest = build(tmp_path)
    cell, other = WHOLES[0].healpix, WHOLES[3].healpix
    assert {path: each.name for path, each in paths_of(WHOLES, SURVEY).items()} == {
        f"train/healpix={cell}/001-of-002.hdf5": "a",
        f"train/healpix={cell}/002-of-002.hdf5": "b",
        f"test/healpix={cell}/001-of-001.hdf5": "c",
        f"train/healpix={other}/001-of-001.hdf5": "d",
    }
    assert manifest.rows == 12 and manifest.rejected == 1 and list(verify(tmp_path, SURVEY)) == []
    with Partition(tmp_path / f"train/healpix={cell}/001-of-002.hdf5", COLUMNS) as partition:
        assert partition.text("object_id") == ["a0", "a1", "a2"] and partition.read("value").tolist() == [0, 1, 2]


def test_what_is_there_is_not_written_again_and_what_changed_is(tmp_path):
    build(tmp_path)
    given = []

    def give(whole):
        given.append(whole.name)
        return rows(whole)

    build(tmp_path, give=give)
    assert given == []
    changed = [*WHOLES[:3], dataclasses.replace(WHOLES[3], made_of="d 2")]
    build(tmp_path, changed, give)
    assert given == ["d"]
    build(tmp_path, changed[:1] + changed[2:], give)  # one of two in a cell: the other has another name
    assert given == ["d", "b"] and list(verify(tmp_path, SURVEY)) == []


def test_a_build_that_ended_in_the_middle_goes_on(tmp_path):
    given = []

    def give(whole):
        if len(given) == 2:
            raise KeyboardInterrupt
        given.append(whole.name)
        return rows(whole)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, give=give)
    given.append("pause")
    build(tmp_path, give=lambda whole: given.append(whole.name) or rows(whole))
    assert sorted(given) == ["a", "b", "c", "d", "pause"] and list(verify(tmp_path, SURVEY)) == []


def test_folders_of_others_are_refused(tmp_path):
    build(tmp_path)
    other = dataclasses.replace(SURVEY, name="others")
    with pytest.raises(UserError, match="holds things"):
        build_whole(other, WHOLES, rows, Options(tmp_path), ["build"])
