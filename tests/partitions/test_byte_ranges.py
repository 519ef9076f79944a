"""A file that is read at offsets: what changes in it is noticed, what is done with its name is not taken for a change."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from skyset.partitions.byte_ranges import LocalFile

CONTENT = bytes(range(256)) * 8


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    os.utime(path, ns=(10**18, 10**18))
    return path


def opened(path: Path, checksum: bool) -> LocalFile:
    return LocalFile(str(path), hashlib.sha256(CONTENT).hexdigest() if checksum else "")


def read(file: LocalFile) -> bytes:
    out = np.empty(256, np.uint8)
    file.read([(256, out)])
    return out.tobytes()


def write_and_set_time_back(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(300)
        file.write(b"!")
    os.utime(path, ns=(10**18, 10**18))


def link(path: Path) -> None:
    os.link(path, path.with_suffix(".backup"))


def link_for_a_while(path: Path) -> None:
    link(path)
    path.with_suffix(".backup").unlink()


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("done", [link, lambda path: path.chmod(0o600)])
def test_links_and_permissions_are_no_change(path, checksum, done):
    file = opened(path, checksum)
    before = file.stamp, file.touched
    done(path)
    assert read(file) == read(file) == CONTENT[:256]
    assert file.stamp == before[0] and file.touched != before[1]
    file.close()


def test_a_link_that_came_and_went_is_none_where_the_checksum_is_known(path):
    for checksum in (True, False):
        file = opened(path, checksum)
        link_for_a_while(path)
        if checksum:
            assert read(file) == CONTENT[:256]
        else:
            with pytest.raises(OSError, match="was changed while it was being read"):
                read(file)
        file.close()


@pytest.mark.parametrize("checksum", [True, False])
def test_a_write_whose_time_was_set_back_is_noticed(path, checksum):
    file = opened(path, checksum)
    write_and_set_time_back(path)
    with pytest.raises(OSError, match="was changed while it was being read"):
        read(file)
    file.close()


def test_a_write_beside_a_link_is_noticed_by_the_checksum(path):
    file = opened(path, True)
    link(path)
    write_and_set_time_back(path)
    with pytest.raises(OSError, match="was changed while it was being read"):
        read(file)
    file.close()


@pytest.mark.parametrize("checksum", [True, False])
def test_a_write_is_noticed(path, checksum):
    file = opened(path, checksum)
    with open(path, "ab") as other:
        other.write(b"more")
    with pytest.raises(OSError, match="was changed while it was being read"):
        read(file)
    file.close()
