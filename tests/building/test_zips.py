"""ZIP archives from anywhere."""

import os
import zipfile

import pytest

from skyset.building import zips
from skyset.building.imagefiles import images_below
from skyset.errors import RecordError


def archive(path, packing):
    with zipfile.ZipFile(path, "w", packing) as file:
        file.writestr("a.png", bytes(1000))
    return path


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read(tmp_path, packing):
    path = archive(tmp_path / "x.zip", packing)
    assert list(zips.members(path)) == [(0, "a.png", None)]
    assert zips.read(path, 0) == bytes(1000)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_zipfile_unpacks_without_bound_is_refused(tmp_path, packing):
    path = archive(tmp_path / "x.zip", packing)
    ((_, _, problem),) = zips.members(path)
    assert problem.startswith("packed in another way")
    with pytest.raises(RecordError, match="packed in another way"):
        zips.read(path, 0)


def test_a_named_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "x.zip")
    os.mkfifo(tmp_path / "y.png")
    with pytest.raises(RecordError, match="a named pipe, not a regular file"):
        list(zips.members(tmp_path / "x.zip"))
    ((name, _, reason),) = images_below(tmp_path).archives
    assert name == "x.zip" and "a named pipe" in reason


def test_a_list_of_members_has_bounds(tmp_path, monkeypatch):
    path = archive(tmp_path / "x.zip", zipfile.ZIP_STORED)
    monkeypatch.setattr(zips, "LONGEST_LIST", 40)
    with pytest.raises(RecordError, match="a list of members of 51 bytes, more than 40"):
        list(zips.members(path))
