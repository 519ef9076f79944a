"""Which side an object is on follows from its name, for ever."""

import pytest

from skyset.splits import SPLITS, split_of


def test_splits_are_as_they_were():
    names = ("J000411.19+020924.0", "J001655.18-002739.1", "x", "7")
    assert [split_of(name, "gz_decals") for name in names] == ["train", "train", "validation", "train"]
    assert [split_of(name, "gz2") for name in names] == ["train", "train", "train", "test"]


def test_four_fifths_are_for_training():
    found = [split_of(str(number), "gz_decals") for number in range(20000)]
    assert [found.count(split) / 20000 for split in SPLITS] == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
