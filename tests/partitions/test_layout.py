"""Paths of partitions: what an object's key may be where it names a file."""

import pytest

from skyset.building.build import build
from skyset.building.options import Options
from skyset.building.task import Found, Item
from skyset.errors import RecordError
from skyset.loaders.gz3d import SURVEY
from skyset.partitions.layout import cell_of_path, object_path


@pytest.mark.parametrize("key", ["", "/etc/x", "../../victim", "healpix=2/x", "a\\b", "a\0b", "a\nb", "x" * 251, "é" * 126])
def test_a_key_that_names_no_file_beside_the_others_is_refused(key):
    with pytest.raises(RecordError, match="cannot be a file's name"):
        object_path(7, key, "test")


@pytest.mark.parametrize("key", ["1-2345", "a b", "ö", "43158722000000001", "x" * 250])
def test_other_keys_are_names(key):
    assert cell_of_path(object_path(7, key, "test")) == 7 and object_path(7, key) == f"healpix=7/{key}.hdf5"


def test_such_a_key_is_rejected_by_a_build_and_nothing_is_written_elsewhere(tmp_path):
    items = [Item(key, str(tmp_path / "raw"), 3) for key in ("../../../victim", "/x/y")]
    root = tmp_path / "a" / "out"
    options = Options(root, files_per_object=True)
    assert build(SURVEY, lambda file: {}, options, lambda *_: Found(items)) == 1
    text = (root / "rejected.csv").read_text()
    assert all(item.key in text for item in items) and text.count("cannot be a file's name") == 2
    assert not list(tmp_path.rglob("*victim*")) and not list(tmp_path.rglob("*.hdf5"))
