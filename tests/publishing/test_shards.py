"""Parquet files of about equal bytes, whose ends stay where they are when a survey grows."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from skyset.loaders.gz3d import SURVEY
from skyset.partitions.manifest import FileEntry, Manifest
from skyset.publishing import shards
from skyset.publishing.shards import planned

SIZE = 1 << 20


def entry(cell: int, size: int, part: int = 1, parts: int = 1, split: str = "train", salt: str = "") -> FileEntry:
    path = f"healpix={cell}/{part:03d}-of-{parts:03d}.hdf5"
    path = path if split == "train" else f"{split}/{path}"
    digest = hashlib.sha256(f"{path} {salt}".encode()).hexdigest()
    return FileEntry(path, split, cell, 3, size, digest, "", (0.0, 1.0), (0.0, 1.0))


def manifest(files: list[FileEntry]) -> Manifest:
    return Manifest("gz3d", list(SURVEY.columns), "file_name", files)


@pytest.fixture(scope="module")
def sky() -> list[FileEntry]:
    """2,000 cells of 10 to 300 kB."""
    sizes = np.random.default_rng(1).integers(10_000, 300_000, 2000)
    return [entry(cell, int(size)) for cell, size in enumerate(sizes)]


def test_files_are_in_order_and_of_about_equal_bytes(sky):
    found = planned(manifest(sky[::-1]), "how", SIZE)
    assert [each.path for shard in found for each in shard.files] == [each.path for each in sky]
    sizes = [shard.bytes for shard in found[:-1]]
    assert min(sizes) >= SIZE // 2 and max(sizes) <= SIZE * 3 // 2
    assert len({shard.path for shard in found}) == len(found)
    assert found[0].path == "data/default/train/healpix-0000.parquet"


def test_what_grows_in_one_place_changes_files_there(sky):
    before = {shard.path: shard.made_of for shard in planned(manifest(sky), "how", SIZE)}
    grown = [replace(each, bytes=each.bytes * 3, sha256="0" * 64) if each.healpix == 1000 else each for each in sky]
    grown += [entry(2000 + n, 50_000) for n in range(30)]
    after = {shard.path: shard.made_of for shard in planned(manifest(grown), "how", SIZE)}
    assert len(before.items() & after.items()) >= len(before) - 8
    assert len(before) > 250


def test_another_way_of_writing_changes_all(sky):
    one, other = planned(manifest(sky), "one", SIZE), planned(manifest(sky), "other", SIZE)
    assert not {shard.made_of for shard in one} & {shard.made_of for shard in other}


def test_a_cell_of_many_parts_is_many_files():
    files = [entry(7, SIZE, part, 5) for part in range(1, 6)] + [entry(8, 100)]
    found = planned(manifest(files), "how", SIZE)
    assert [shard.path.rpartition("/")[2] for shard in found][:3] == [
        "healpix-0007.parquet",
        "healpix-0007-002.parquet",
        "healpix-0007-003.parquet",
    ]


def test_splits_have_folders_of_their_own():
    found = planned(manifest([entry(1, 100), entry(1, 100, split="test")]), "how", SIZE)
    assert {shard.path for shard in found} == {
        "data/default/train/healpix-0001.parquet",
        "data/default/test/healpix-0001.parquet",
    }


def test_a_folder_never_has_too_many(sky, monkeypatch):
    monkeypatch.setattr(shards, "MOST_IN_FOLDER", 50)
    assert len(planned(manifest(sky), "how", SIZE)) <= 50
