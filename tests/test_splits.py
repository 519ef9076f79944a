"""Which side an object is on follows from its name, for ever."""

import pytest

from skyset.splits import SPLITS, split_of, stratified


def test_splits_are_as_they_were():
    names = ("J000411.19+020924.0", "J001655.18-002739.1", "x", "7")
    assert [split_of(name, "gz_decals") for name in names] == ["train", "train", "validation", "train"]
    assert [split_of(name, "gz2") for name in names] == ["train", "train", "train", "test"]


def test_four_fifths_are_for_training():
    found = [split_of(str(number), "gz_decals") for number in range(20000)]
    assert [found.count(split) / 20000 for split in SPLITS] == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_every_class_has_its_share_of_each_split():
    classes = {f"a{n}": "a" for n in range(40)} | {f"b{n}": "b" for n in range(4)} | {"c1": "c", "c2": "c", "d": "d"}
    found = stratified(classes, "x", (0.7, 0.15, 0.15))
    counts = {kind: [sum(found[k] == split for k, v in classes.items() if v == kind) for split in SPLITS] for kind in "abcd"}
    assert counts == {"a": [28, 6, 6], "b": [2, 1, 1], "c": [1, 0, 1], "d": [1, 0, 0]}
    assert found == stratified(dict(reversed(classes.items())), "x", (0.7, 0.15, 0.15))
    assert found != stratified(classes, "y", (0.7, 0.15, 0.15))
