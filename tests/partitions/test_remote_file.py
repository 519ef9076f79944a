"""Partitions behind a URL: few requests, all of one version."""

import itertools

import h5py
import numpy as np
import pytest

from skyset import ranges
from skyset.errors import PartitionError
from skyset.partitions import remote_file
from skyset.partitions.partition import Partition
from skyset.partitions.remote_file import cuts, grouped
from skyset.partitions.writer import PartitionWriter
from skyset.survey import Column
from skyset.testing.server import ArchiveServer

ROWS = 12
COLUMNS = (
    Column("object_id", "S20"),
    Column("image", "float32", (60, 64, 64)),
    Column("mask", "uint8", (200, 1000)),
    *(Column(f"value_{n}", "float64") for n in range(30)),
)


def write(path, compression="none", seed=0):
    rng = np.random.default_rng(seed)
    with PartitionWriter(path, COLUMNS, ROWS, compression=compression) as writer:
        for row in range(ROWS):
            values = {column.name: rng.integers(0, 9, column.shape).astype(column.dtype) for column in COLUMNS[1:]}
            writer.append({"object_id": np.bytes_(f"{row}"), **values})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("far")
    write(folder / "plain.hdf5")
    write(folder / "gzip.hdf5", "gzip")
    return folder


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setattr(ranges, "BACKOFF", 0.001)
    with ArchiveServer(folder) as running:
        yield running


@pytest.mark.parametrize("name", ["plain", "gzip"])
@pytest.mark.parametrize("trusted", [False, True])
def test_a_file_from_afar_gives_what_it_gives_here(server, folder, name, trusted):
    size = (folder / f"{name}.hdf5").stat().st_size
    known = (ROWS, size) if trusted else ()
    with Partition(f"{server.url}{name}.hdf5", COLUMNS, *known) as far, Partition(folder / f"{name}.hdf5", COLUMNS) as near:
        for column in COLUMNS:
            assert np.array_equal(far.read(column.name), near.read(column.name))
            assert np.array_equal(far.read(column.name, 3, 8), near.read(column.name, 3, 8))
        assert far.attributes().keys() == near.attributes().keys() and far.described() == near.described()


def test_opening_and_small_columns_take_two_requests(server, folder):
    size = (folder / "plain.hdf5").stat().st_size
    with Partition(server.url + "plain.hdf5", COLUMNS, ROWS, size) as far:
        for column in COLUMNS[3:]:
            far.read(column.name)
        assert len(server.requests) == 2 and server.body_bytes <= 140_000
        far.read_columns({"mask": np.empty((2, 200, 1000), np.uint8)}, 4, 6)
        assert len(server.requests) == 3 and server.body_bytes <= 540_000


def test_long_stretches_are_several_requests_at_a_time(server):
    with Partition(server.url + "plain.hdf5", COLUMNS) as far:
        server.clear()
        server.latency = 0.05
        far.read("image")
        server.latency = 0.0
        assert len(server.requests) == 6 and server.max_concurrent >= 4
        assert server.body_bytes == ROWS * COLUMNS[1].row_bytes


def test_compressed_rows_come_at_a_time_too(server):
    with Partition(server.url + "gzip.hdf5", COLUMNS) as far:
        far.read("mask", 0, 1)
        server.clear()
        server.latency = 0.05
        far.read("mask")
        server.latency = 0.0
        assert server.max_concurrent >= 2 or len(server.requests) == 1
        assert server.body_bytes < 1.1 * ROWS * 200_000


def test_structure_that_lies_in_the_middle_is_found(server, folder, monkeypatch):
    monkeypatch.setattr(remote_file, "_BLOCK", 4 << 10)
    with h5py.File(folder / "middle.hdf5", "w") as file:
        file["first"] = np.zeros((ROWS, 100_000), np.uint8)
        file["object_id"] = np.array([b"%d" % n for n in range(ROWS)], "S20")
        file["last"] = np.zeros((ROWS, 100_000), np.uint8)
    with Partition(server.url + "middle.hdf5", COLUMNS[:1]) as far:
        assert far.text("object_id") == [str(n) for n in range(ROWS)]
        assert 2 < len(server.requests) < 8 and server.body_bytes < 200_000


def test_a_file_that_changes_meanwhile_is_named_and_looked_at_again(server, folder):
    path, url = write(folder / "new.hdf5"), server.url + "new.hdf5"
    with Partition(url, COLUMNS) as far:
        far.read("image", 0, 1)
        write(path, seed=1)
        with pytest.raises(PartitionError, match=r"new\.hdf5: column image, .*the file was changed on the server"):
            far.read("image", 1, 2)
    with Partition(url, COLUMNS) as far, Partition(path, COLUMNS) as near:
        assert np.array_equal(far.read("image", 1, 2), near.read("image", 1, 2))


def test_another_digest_is_another_version(server, folder):
    path, url = write(folder / "other.hdf5"), server.url + "other.hdf5"
    Partition(url, COLUMNS, digest="a").close()
    write(path, seed=2)
    with Partition(url, COLUMNS, digest="b") as far, Partition(path, COLUMNS) as near:
        assert np.array_equal(far.read("image", 1, 2), near.read("image", 1, 2))


def test_hdf5_tells_why_it_could_not_read(server, folder, monkeypatch):
    monkeypatch.setattr(remote_file, "HEAD", 1 << 10)
    monkeypatch.setattr(remote_file, "_BLOCK", 1 << 10)
    server.fault("plain.hdf5", "403")
    with pytest.raises(PartitionError, match=r"plain\.hdf5: 403 Forbidden"):
        Partition(server.url + "plain.hdf5", COLUMNS)
    server.clear()
    with Partition(server.url + "plain.hdf5", COLUMNS[:1]) as partition:
        server.fault("plain.hdf5", "403")
        with pytest.raises(PartitionError, match="403 Forbidden"):
            partition.described()


def test_an_empty_and_a_short_file(server, folder):
    (folder / "empty.hdf5").touch()
    with pytest.raises(PartitionError, match=r"empty\.hdf5: the file is empty"):
        Partition(server.url + "empty.hdf5", COLUMNS)
    whole = (folder / "plain.hdf5").read_bytes()
    (folder / "short.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PartitionError, match=r"short\.hdf5: .*bytes, the manifest says"):
        Partition(server.url + "short.hdf5", COLUMNS, ROWS, len(whole))
    with pytest.raises(PartitionError, match=r"short\.hdf5"):
        Partition(server.url + "short.hdf5", COLUMNS)


def test_places_that_fsspec_knows():
    import fsspec

    with fsspec.open("memory://far/x.hdf5", "wb") as file, h5py.File(file, "w") as made:
        made["object_id"] = np.array([b"a", b"b"], "S20")
        made["mask"] = np.full((2, 200, 1000), 7, np.uint8)
    with Partition("memory://far/x.hdf5", (COLUMNS[0], COLUMNS[2])) as far:
        assert far.text("object_id") == ["a", "b"] and far.read("mask", 1, 2).min() == 7


def test_stretches_near_each_other_are_one_request():
    def part(offset, size):
        return offset, np.empty(size, np.uint8)

    near = [part(1000, 10), part(0, 10), part(70_000, 5), part(70_002, 1), part(10**6, 0), part(2 * 10**6, 9)]
    assert [[offset for offset, _ in group] for group in grouped(near)] == [[0, 1000], [70_000, 70_002], [2 * 10**6]]
    assert remote_file.GAP < 68_990
    assert cuts(1) == [(0, 1)] and cuts(0) == []
    for size in (ranges.SPLIT, ranges.SPLIT + 1, 10**7 + 3):
        pieces = cuts(size)
        assert pieces[0][0] == 0 and pieces[-1][1] == size and all(stop - start <= ranges.SPLIT for start, stop in pieces)
        assert all(one[1] == two[0] for one, two in itertools.pairwise(pieces))
