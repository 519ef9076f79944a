"""A tree's files in order; configs, splits and cells by their paths."""

import os

import pytest

from skyset.adopting.scan import Foreign, Places, TreeFile, cell_number, config_names, files_of
from skyset.errors import UserError


def make(tree, *paths):
    for path in paths:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(b"x" * len(path))


def test_files_in_order_locks_and_hidden_passed_over_others_named(tmp_path):
    make(tmp_path, "b/2.h5", "b/10.HDF5", "a/x.hdf", "top.hdf5", "a/x.hdf.lock", ".hidden/y.hdf5", "a/.z.hdf5", "a/read.me")
    found = list(files_of(tmp_path))
    assert [each.path for each in found] == ["top.hdf5", "a/read.me", "a/x.hdf", "b/10.HDF5", "b/2.h5"]
    assert [each.path for each in found if isinstance(each, Foreign)] == ["a/read.me"]
    status = os.stat(tmp_path / "b/2.h5")
    assert found[-1] == TreeFile("b/2.h5", len("b/2.h5"), status.st_mtime_ns)


def test_links_are_followed_but_not_round_and_round(tmp_path):
    make(tmp_path / "elsewhere", "1.hdf5")
    make(tmp_path / "tree", "a/2.hdf5")
    (tmp_path / "tree/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree/a/loop").symlink_to(tmp_path / "tree")
    (tmp_path / "tree/gone.hdf5").symlink_to(tmp_path / "nowhere")
    found = {each.path: each for each in files_of(tmp_path / "tree")}
    assert found.keys() == {"gone.hdf5", "a/2.hdf5", "a/loop", "linked/1.hdf5"}
    assert isinstance(found["gone.hdf5"], Foreign) and "lies in itself" in found["a/loop"].what


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        list(files_of(tmp_path / "none"))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("healpix=12/001-of-001.hdf5", ("", "train", "12")),
        ("sdss/healpix=0012/001.h5", ("sdss", "train", "0012")),
        ("hsc/pdr3/healpix=1/train_1.hdf5", ("hsc/pdr3", "train", "1")),
        ("data/healpix=1/val_001-of-001.hdf5", ("data", "validation", "1")),
        ("data/healpix=1/testament.hdf5", ("data", "train", "1")),
        ("test/healpix=7/x.hdf5", ("", "test", "7")),
        ("sdss/valid/healpix=7/x.hdf5", ("sdss", "validation", "7")),
        ("sdss/healpix=odd/x.hdf5", ("sdss", "train", "odd")),
        ("mine/deep/er/x.hdf5", ("mine", "train", None)),
        ("train/deep/x.hdf5", ("", "train", None)),
        ("x.hdf5", ("", "train", None)),
        ("test.hdf5", ("", "test", None)),
    ],
)
def test_places(tmp_path, path, place):
    make(tmp_path, path)
    assert Places(tmp_path).of(path) == place


@pytest.mark.parametrize("names", [("00", "a3", "ff"), ("part-0", "part-1"), ("2024-01-01", "2024-01-02"), range(100)])
def test_folders_of_parts_are_one_dataset(tmp_path, names):
    make(tmp_path, *(f"{name}/x.hdf5" for name in names))
    assert {Places(tmp_path).of(f"{name}/x.hdf5").folder for name in names} == {""}


def test_names_of_configs():
    assert config_names(["sdss"]) == {"sdss": "default"}
    assert config_names(["", "a/b c", "a_b_c"]) == {"": "root", "a/b c": "a_b_c", "a_b_c": "a_b_c_2"}


def test_cells():
    assert [cell_number(each, 3072) for each in ("0", "0017", "3071", "3072", "x", "", None, "9" * 40, "²")] == [
        0, 17, 3071, -1, -1, -1, -1, -1, -1,
    ]  # fmt: skip
