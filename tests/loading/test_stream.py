"""Streams over files that change or go bad, from near and far: the right rows, or an error that names the file."""

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

import skyset
from skyset.errors import PartitionError, UserError
from skyset.loading.partition_rows import PartitionRows
from skyset.loading.reader import PIECE_BYTES
from skyset.partitions import byte_ranges
from skyset.partitions.manifest import Manifest
from skyset.testing.server import ArchiveServer
from tests.processes import wait_for

ROWS = 24


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "gz3d")


def ids(stream) -> list[str]:
    return [row["object_id"] for row in stream]


def truncate(path):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)


def cut_last_row(path):
    """Another file of the right format, with fewer rows and bytes."""
    import h5py

    with h5py.File(path) as old, h5py.File(path.with_suffix(".new"), "w") as new:
        for name, data in old.items():
            new[name] = data[:-1]
    path.with_suffix(".new").replace(path)


DAMAGES = {
    "gone": lambda path: path.unlink(),
    "cut short": truncate,
    "fewer rows": cut_last_row,
    "no HDF5": lambda path: path.write_bytes(b"x" * path.stat().st_size),
}


@pytest.mark.parametrize("seed", [None, 1], ids=["in order", "shuffled"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_stream_names_a_bad_partition(copy, damage, seed):
    victim = Manifest.load(copy).files[1]
    stream = skyset.load("gz3d", str(copy))
    stream = stream if seed is None else stream.shuffle(seed=seed)
    DAMAGES[damage](copy / victim.path)
    with pytest.raises(PartitionError, match=victim.path):
        ids(stream)


@pytest.mark.parametrize("seed", [None, 1], ids=["in order", "shuffled"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_stream_skips_a_bad_partition_and_counts_its_rows(copy, damage, seed):
    whole = ids(skyset.load("gz3d", str(copy)))
    files = Manifest.load(copy).files
    first = files[0].rows
    left = whole[:first] + whole[first + files[1].rows :]
    stream = skyset.load("gz3d", str(copy), on_bad_partition="skip")
    stream = stream if seed is None else stream.shuffle(seed=seed)
    DAMAGES[damage](copy / files[1].path)
    with pytest.warns(UserWarning, match=files[1].path):
        found = ids(stream)
    assert sorted(found) == sorted(left)
    assert (found == left) is (seed is None)
    assert sum(stream.skipped.values()) == files[1].rows
    batches = [batch["object_id"] for batch in stream.iter(batch_size=7)]  # it is told of each once
    assert sorted(itertools.chain(*batches)) == sorted(left)


def test_resume_after_a_skipped_partition(copy):
    files = Manifest.load(copy).files
    (copy / files[1].path).unlink()
    stream = skyset.load("gz3d", str(copy), on_bad_partition="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = ids(stream)
        for stop in range(1, len(whole)):
            rows = iter(stream)
            head = [next(rows)["object_id"] for _ in range(stop)]
            again = skyset.load("gz3d", str(copy), on_bad_partition="skip")
            again.load_state_dict(stream.state_dict())
            assert head + ids(again) == whole


def test_good_files_are_not_skipped(built):
    stream = skyset.load("gz3d", str(built), on_bad_partition="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ids(stream.shuffle(seed=0))) == len(ids(stream)) == ROWS
    assert stream.skipped == {}


def test_on_bad_partition_is_raise_or_skip(built):
    with pytest.raises(UserError, match='"raise" or "skip"'):
        skyset.load("gz3d", str(built), on_bad_partition="ignore")


def test_stream_notices_a_file_that_changes_under_it(copy):
    entry = max(Manifest.load(copy).files, key=lambda entry: entry.rows)
    stream = skyset.load("gz3d", str(copy))
    rows = iter(stream)
    while next(rows)["healpix"] != entry.healpix:
        pass
    with open(copy / entry.path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    os.utime(copy / entry.path)
    with pytest.raises(PartitionError, match=f"{entry.path}.*was changed while it was being read"):
        list(rows)


def test_stream_reads_a_replaced_file_anew(copy):
    """What is remembered of a file's layout holds for that file, not for its name."""
    first = ids(skyset.load("gz3d", str(copy)))
    entry = Manifest.load(copy).files[0]
    other = copy / "other.hdf5"
    shutil.copy(copy / entry.path, other)
    other.replace(copy / entry.path)
    assert ids(skyset.load("gz3d", str(copy))) == first


def test_stream_opens_a_file_with_hdf5_once(copy, monkeypatch):
    """The second epoch needs no HDF5: offsets are known."""
    stream = skyset.load("gz3d", str(copy))
    first = ids(stream)
    monkeypatch.setattr(byte_ranges.LocalFile, "hdf5", lambda self: pytest.fail("opened again"))
    assert ids(stream) == first
    assert sorted(ids(stream.shuffle(seed=0))) == sorted(first)


def test_a_stream_left_open_at_the_end_of_a_program_says_nothing(built):
    code = "import skyset, sys; rows = iter(skyset.load('gz3d', sys.argv[1])); print(next(rows)['image'].shape)"
    done = subprocess.run([sys.executable, "-c", code, built], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(525, 525, 3)\n", "")


def test_shuffled_stream_reads_rows_where_they_lie(built, monkeypatch):
    """Pixels of a row are read when its turn comes, so that mixing costs no memory."""
    sizes = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: sizes.append(real(*arguments)) or sizes[-1])
    rows = iter(skyset.load("gz3d", str(built)).shuffle(seed=0))
    next(rows)
    assert sum(sizes) < 6 * 525 * 525 * 7  # 4 rows per slab, and the small columns of all


@pytest.mark.parametrize(
    "options", [(), ("--compression", "gzip"), ("--files_per_object",)], ids=["plain", "gzip", "objects"]
)
def test_stream_from_far_is_the_stream_from_near(archive, tmp_path, options):
    from skyset.build_scripts.gz3d.build_parent_sample import main as build

    arguments = ["--limit", "8", "--local_data_path", str(archive), "-o", str(tmp_path / "gz3d"), "--num_processes", "1"]
    assert build([*arguments, *options]) == 0
    near = skyset.load("gz3d", str(tmp_path / "gz3d"))
    with ArchiveServer(tmp_path) as server:
        far = skyset.load("gz3d", server.url + "gz3d")
        for some in (near, near.shuffle(seed=3)):
            other = far if some is near else far.shuffle(seed=3)
            for mine, theirs in zip(some, other, strict=True):
                assert mine["object_id"] == theirs["object_id"]
                np.testing.assert_array_equal(mine["image"], theirs["image"])
                np.testing.assert_array_equal(mine["segmentation"]["array"], theirs["segmentation"]["array"])


def test_two_columns_from_far_cost_few_bytes(built):
    """HDF5's structure and two small columns, not the pixels."""
    whole = Manifest.load(built)
    with ArchiveServer(built.parent) as server:
        names = [
            (row["object_id"], row["ra"])
            for row in skyset.load("gz3d", server.url + "gz3d").select_columns(["object_id", "ra"])
        ]
        assert len(names) == ROWS
        assert server.body_bytes < len(whole.files) * 2 * (256 << 10) + 100_000
        assert server.body_bytes < whole.bytes / 10


def test_stream_from_far_reads_each_pixel_once(built):
    whole = Manifest.load(built)
    with ArchiveServer(built.parent) as server:
        assert len(ids(skyset.load("gz3d", server.url + "gz3d"))) == ROWS
        assert server.body_bytes < 1.1 * whole.bytes


def test_partition_that_is_gone_from_the_server(built, tmp_path):
    root = shutil.copytree(built, tmp_path / "gz3d")
    victim = Manifest.load(root).files[1]
    (root / victim.path).unlink()
    with ArchiveServer(tmp_path) as server, pytest.raises(PartitionError, match=victim.path):
        ids(skyset.load("gz3d", server.url + "gz3d"))


def test_stream_from_far_reads_ahead(built):
    """While rows of one piece are used the next piece is on its way: waiting for the server overlaps with work."""
    with ArchiveServer(built.parent) as server:
        rows = iter(skyset.load("gz3d", server.url + "gz3d"))
        next(rows)
        wait_for(lambda: server.body_bytes >= 2 * PIECE_BYTES)  # nobody asks for a row
        assert len(list(rows)) == ROWS - 1


@pytest.mark.parametrize("size", [3, 7])
def test_batches_from_far_resume_in_the_middle(built, size):
    near = [batch["object_id"] for batch in skyset.load("gz3d", str(built)).iter(batch_size=size)]
    with ArchiveServer(built.parent) as server:
        far = skyset.load("gz3d", server.url + "gz3d")
        batches = far.iter(batch_size=size)
        head = [next(batches)["object_id"] for _ in range(2)]
        again = skyset.load("gz3d", server.url + "gz3d")
        again.load_state_dict(far.state_dict())
        assert head + [batch["object_id"] for batch in again.iter(batch_size=size)] == near


def test_state_names_the_files_that_came_or_went(copy):
    stream = skyset.load("gz3d", str(copy))
    rows = iter(stream)
    next(rows)
    state = stream.state_dict()
    manifest = Manifest.load(copy)
    lost = manifest.files[2]
    dataclasses.replace(manifest, files=[entry for entry in manifest.files if entry != lost]).save(copy)
    with pytest.raises(ValueError, match=f"saved by another stream.*gone: {lost.path}, {lost.rows} rows"):
        resume(copy, state)
    manifest.save(copy)
    fewer = skyset.load("gz3d", str(copy)).take(3)
    next(iter(fewer))
    with pytest.raises(ValueError, match=r"new: healpix=\d+/001-of-001.hdf5"):
        resume(copy, fewer.state_dict())


def resume(root, state):
    stream = skyset.load("gz3d", str(root))
    stream.load_state_dict(state)
    return ids(stream)


@pytest.mark.parametrize("split", ["all", "test + train"])
def test_several_splits_are_one_stream_of_ours(split, real_decals):
    together = skyset.load("gz_decals", data_dir=str(real_decals), split=split, streaming=True)
    names = list(together.info.splits) if split == "all" else split.split(" + ")
    alone = [skyset.load("gz_decals", data_dir=str(real_decals), split=name, streaming=True) for name in names]
    expected = [row for one in alone for row in ids(one.select_columns(["object_id"]))]
    assert ids(together.select_columns(["object_id"])) == expected and len(together) == len(expected)
    assert ids(together.select_columns(["object_id"]).skip(5).take(3)) == expected[5:8]
    assert next(iter(together.with_format("numpy")))["image"].dtype == np.uint8
    with pytest.raises(ValueError, match="Bad split"):
        skyset.load("gz_decals", data_dir=str(real_decals), split="train+none", streaming=True)


def test_all_of_one_split_is_that_split(built):
    every = skyset.load("gz3d", str(built), split="all")
    assert isinstance(every._ex_iterable, PartitionRows)  # chained by `datasets`, its rows would be formatted anew
    assert ids(every) == ids(skyset.load("gz3d", str(built), split="train")) and str(every.split) == "train"
