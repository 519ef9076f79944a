"""Rows from a server, fetched before they are asked for: how many requests, how many bytes, in which order."""

import gc
import shutil
import threading
import time

import numpy as np
import pytest
from torch.utils.data import DataLoader

import skyset
from skyset import ranges
from skyset.errors import PartitionError, UserError
from skyset.loading import ahead, partition_rows, registry
from skyset.loading.far import Far
from skyset.loading.reader import PieceReader
from skyset.partitions.manifest import Manifest
from skyset.testing.server import ArchiveServer

ROW = 525 * 525 * 7
ROWS = 24


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(ranges, "BACKOFF", 0.001)


class Rounds(ArchiveServer):
    """Answers all requests that are there at once, when no other has come for a while: a round trip."""

    rounds = 0

    def __init__(self, folder):
        super().__init__(folder)
        self._waiting: list[threading.Event] = []
        self._last = 0.0

    def __enter__(self):
        threading.Thread(target=self._release, daemon=True).start()
        return super().__enter__()

    def next_fault(self, name):
        event = threading.Event()
        self._last = time.monotonic()
        self._waiting.append(event)
        event.wait(30)
        return super().next_fault(name)

    def _release(self):
        while not self.closing.wait(0.02):
            if self._waiting and time.monotonic() - self._last > 1.0:
                waiting, self._waiting = self._waiting, []
                self.rounds += 1
                for event in waiting:
                    event.set()


@pytest.fixture
def server(built):
    with ArchiveServer(built.parent) as running:
        yield running


def ids(rows):
    return [row["object_id"] for row in rows]


def settled(server):
    """The bytes of bodies once no more come."""
    before = -1
    while before != server.body_bytes:
        before = server.body_bytes
        time.sleep(0.2)
    return before


def threads():
    return [each.name for each in threading.enumerate() if each.name.split("-")[0] in ("pieces", "windows", "ranges")]


def test_the_first_row_comes_after_three_round_trips(built):
    with Rounds(built.parent) as server:
        rows = iter(skyset.load("gz3d", server.url + "gz3d"))
        next(rows)
        # The manifest; both ends of the file; the row. With that of the first connection it is one more.
        assert server.rounds <= 3
        rows.close()


def test_each_byte_once_in_few_requests(server, built):
    whole = Manifest.load(built)
    assert len(list(skyset.load("gz3d", server.url + "gz3d"))) == ROWS
    assert server.body_bytes < 1.03 * whole.bytes
    # Of each file both ends, and of each piece five columns; the first row apart.
    pieces = sum(-(-entry.bytes // (8 << 20)) for entry in whole.files)
    assert len(server.requests) <= 1 + 2 * len(whole.files) + 5 * (pieces + 1) + whole.bytes // ranges.SPLIT
    assert server.connections <= ranges.CONNECTIONS


def test_a_second_pass_looks_at_no_file_again(server):
    rows = skyset.load("gz3d", server.url + "gz3d").select_columns(["object_id", "ra"])
    first = ids(rows)
    server.clear()
    assert ids(rows) == first and server.requests == []


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_is_fetched_ahead_is_bounded(server, monkeypatch, shuffled):
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 3 * ROW)
    rows = skyset.load("gz3d", server.url + "gz3d")
    rows = iter(rows.shuffle(seed=1) if shuffled else rows)
    next(rows)
    # A slab of four rows, and at most a unit of four more than there is room for; both ends of five files.
    assert settled(server) < 8 * ROW + 5 * 2 * 70_000
    rows.close()


@pytest.mark.parametrize("long", [1, 1 << 30], ids=["rows", "windows"])
@pytest.mark.parametrize("window", [3 * ROW, 256 << 20])
def test_a_shuffled_stream_is_the_one_from_the_disk(server, built, monkeypatch, long, window):
    monkeypatch.setattr(partition_rows, "LONG", long)
    far = skyset.load("gz3d", server.url + "gz3d").shuffle(seed=5, buffer_bytes=window)
    near = skyset.load("gz3d", str(built)).shuffle(seed=5, buffer_bytes=window)
    for one, other in zip(far, near, strict=True):
        assert one["object_id"] == other["object_id"] and np.array_equal(one["image"], other["image"])
        assert np.array_equal(one["segmentation"]["array"], other["segmentation"]["array"])
    rows = iter(far)
    head = [next(rows)["object_id"] for _ in range(7)]
    again = skyset.load("gz3d", server.url + "gz3d").shuffle(seed=5, buffer_bytes=window)
    again.load_state_dict(far.state_dict())
    assert head + ids(again) == ids(near)
    rows.close()


@pytest.mark.parametrize("long", [1, 1 << 30], ids=["rows", "windows"])
@pytest.mark.parametrize("which", ["rings", "decoded_rings"])
def test_images_of_any_length(request, monkeypatch, which, long):
    monkeypatch.setattr(partition_rows, "LONG", long)
    root = request.getfixturevalue(which)
    with ArchiveServer(root) as server:
        for change in (lambda rows: rows, lambda rows: rows.shuffle(seed=3, buffer_bytes=5000)):
            near, far = (change(skyset.load("gz_decals", place)) for place in (str(root), server.url))
            for one, other in zip(near, far, strict=True):
                assert one["object_id"] == other["object_id"] and np.array_equal(one["image"], other["image"])
            batches = [batch["object_id"] for batch in far.iter(batch_size=7)]
            assert [key for batch in batches for key in batch] == ids(near)


@pytest.mark.parametrize("long", [1, 1 << 30], ids=["rows", "windows"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_bad_partition_is_skipped_as_on_the_disk(built, tmp_path, monkeypatch, long, shuffled):
    monkeypatch.setattr(partition_rows, "LONG", long)
    root = shutil.copytree(built, tmp_path / "gz3d")
    gone = Manifest.load(root).files[2]
    (root / gone.path).unlink()
    found = []
    with ArchiveServer(tmp_path) as server:
        for place in (str(root), server.url + "gz3d"):
            rows = skyset.load("gz3d", place, on_bad_partition="skip").select_columns(["object_id", "ra"])
            rows = rows.shuffle(seed=2) if shuffled else rows
            with pytest.warns(UserWarning, match=gone.path):
                found.append(ids(rows))
            assert sum(rows.skipped.values()) == gone.rows
    assert found[0] == found[1] and len(found[0]) == ROWS - gone.rows


def test_a_file_that_is_exchanged_in_mid_stream_is_named(built, tmp_path):
    root = shutil.copytree(built, tmp_path / "gz3d")
    with ArchiveServer(tmp_path) as server:
        for _ in skyset.load("gz3d", server.url + "gz3d").select_columns(["object_id"]):
            pass  # all files have been looked at
        victim = root / Manifest.load(root).files[3].path
        data = bytearray(victim.read_bytes())
        data[20_000] ^= 1
        victim.write_bytes(data)
        with pytest.raises(PartitionError, match=rf"{victim.name}: .*the file was changed on the server"):
            list(skyset.load("gz3d", server.url + "gz3d"))


def test_passing_faults_change_nothing(server, built):
    server.chaos(7, 0.2, ["503", "cut", "500"])
    assert ids(skyset.load("gz3d", server.url + "gz3d")) == ids(skyset.load("gz3d", str(built)))
    assert {request.status for request in server.requests} >= {503, 500, 206}


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_stream_that_is_left_leaves_no_thread(server, shuffled):
    stream = skyset.load("gz3d", server.url + "gz3d")
    stream = stream.shuffle(seed=1) if shuffled else stream
    rows = iter(stream)
    next(rows)
    assert threads()
    server.fault("*.hdf5", "hang")
    rows.close()
    gc.collect()
    assert threads() == []
    server.clear()
    assert len(ids(stream.select_columns(["object_id"]))) == ROWS
    assert threads() == []


def test_a_thread_under_way_begins_nothing_anew_while_its_reader_is_closed():
    """It would have lines of its own, which nobody closes, and the reader would wait for what comes by them."""
    reader, seen = PieceReader(registry.survey("gz3d"), ["object_id"]), []

    class Closing(Far):
        def close(self):
            seen.append(reader._far)
            super().close()

    reader._far_away = far = Closing()
    reader.close()
    assert seen == [far] and reader._far is not far
    reader.close()


def test_workers_share_rows_and_connections(server, built):
    rows = skyset.load("gz3d", server.url + "gz3d").select_columns(["object_id", "image"])
    first = next(iter(rows))["object_id"]  # this process has connections of its own, which are not the workers'
    server.clear()
    loader = DataLoader(rows, batch_size=5, num_workers=2, multiprocessing_context="fork")
    found = [key for batch in loader for key in batch["object_id"]]
    assert sorted(found) == sorted(ids(skyset.load("gz3d", str(built)))) and first in found
    assert server.connections <= ranges.CONNECTIONS + 2


def test_a_cache_on_the_disk_serves_every_later_pass(server, built, tmp_path):
    options = {"cache_dir": str(tmp_path / "cache"), "cache_limit": "1GB"}
    near = ids(skyset.load("gz3d", str(built), **options))
    assert not (tmp_path / "cache" / "skyset_blocks").exists(), "what lies on a disk is not kept again"
    assert ids(skyset.load("gz3d", server.url + "gz3d", **options)) == near
    assert server.body_bytes < 1.03 * Manifest.load(built).bytes
    server.clear()
    rows = skyset.load("gz3d", server.url + "gz3d", **options)
    assert ids(rows) == near
    loader = DataLoader(rows.shuffle(seed=1), batch_size=5, num_workers=2)
    assert sorted(key for batch in loader for key in batch["object_id"]) == sorted(near)
    assert {request.path for request in server.requests} == {"/gz3d/manifest.json"}


def test_a_small_cache_is_of_use_and_stays_small(server, built, tmp_path):
    options = {"cache_dir": str(tmp_path / "cache"), "cache_limit": "20MB"}
    for _ in range(2):
        assert len(ids(skyset.load("gz3d", server.url + "gz3d", **options))) == ROWS
    kept = [path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.name.isdigit()]
    assert 10e6 < sum(kept) <= 20e6


def test_options_of_a_cache_are_looked_at(server, tmp_path):
    with pytest.raises(UserError, match='cache_limit must be a size such as "50GB" or "800MB", not \'plenty\''):
        skyset.load("gz3d", server.url + "gz3d", cache_limit="plenty")
    (tmp_path / "skyset_blocks").mkdir()
    (tmp_path / "skyset_blocks" / "thesis.tex").touch()
    with pytest.raises(UserError, match="skyset_blocks has files that are not of a skyset cache"):
        skyset.load("gz3d", server.url + "gz3d", cache_dir=str(tmp_path), cache_limit="1GB")
