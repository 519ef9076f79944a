"""Blocks of files from servers on the disk: never more than the limit, never a wrong one, nobody else's files touched."""

import hashlib
import os
import pickle
import subprocess
import sys
import threading

import pytest

from skyset import block_cache, ranges
from skyset.block_cache import BlockCache, size_of
from skyset.cached_file import CachedFile
from skyset.errors import UserError
from skyset.ranges import Changed, HttpFile, Lines
from skyset.testing.server import ArchiveServer

BLOCK = 1000
DATA = os.urandom(10_300)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(block_cache, "BLOCK", BLOCK)
    monkeypatch.setattr("skyset.cached_file.BLOCK", BLOCK)
    monkeypatch.setattr(ranges, "BACKOFF", 0.001)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x").write_bytes(DATA)
    with ArchiveServer(tmp_path / "far") as running:
        yield running


@pytest.fixture
def lines():
    with Lines(4) as running:
        yield running


def cached(server, cache, sha256=SHA256, size=10_300):
    url = server.url + "x"
    key = cache.key(url, sha256)
    return CachedFile(HttpFile(url, version=cache.version(key)), cache, key, size, sha256)


def got(file, lines, start, size):
    out = bytearray(size)
    return bytes(out[: file.get(start, memoryview(out), lines)])


def used(folder):
    return sum(path.stat().st_size for path in (folder / "blocks").rglob("*") if path.name.isdigit())


@pytest.mark.parametrize(
    ("text", "size"), [("50GB", 50e9), ("1.5 tb", 1.5e12), ("512MiB", 512 << 20), (10**9, 1e9), ("5e", None), ("4G", 4e9)]
)
def test_sizes_as_people_write_them(text, size):
    if size is None:
        with pytest.raises(UserError, match='cache_limit must be a size such as "50GB"'):
            size_of(text)
    else:
        assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-3GB", "much", True, None, "3 XB", "1,5GB", [], 12.5j, "nan", "10", 0])
def test_what_is_no_size(text):
    with pytest.raises(UserError, match="cache_limit must be"):
        size_of(text)


def test_a_second_reading_asks_nothing(server, lines, tmp_path):
    cache = BlockCache(tmp_path / "cache", 10**6)
    for start, size in ((0, 10), (2500, 3000), (9900, 400), (0, 10_300), (10_200, 500), (3, 9000)):
        assert got(cached(server, cache), lines, start, size) == DATA[start : start + size]
    assert server.body_bytes == len(DATA)  # each byte once
    server.clear()
    again = pickle.loads(pickle.dumps(cache))
    assert got(cached(server, again), lines, 100, 10_000) == DATA[100:10_100] and server.requests == []
    assert (tmp_path / "cache" / "blocks" / cache.key(server.url + "x", SHA256) / "whole").exists()


def test_threads_fetch_no_block_twice(server, lines, tmp_path):
    file = cached(server, BlockCache(tmp_path / "cache", 10**6))
    server.latency = 0.05
    answers = [lines.submit(got, file, lines, start, 700) for start in range(0, 10_000, 350)]
    assert [answer.result() for answer in answers] == [DATA[start : start + 700] for start in range(0, 10_000, 350)]
    assert server.body_bytes <= len(DATA) and block_cache._fetching == {}


def test_a_damaged_block_is_fetched_again(server, lines, tmp_path):
    cache = BlockCache(tmp_path / "cache", 10**6)
    got(cached(server, cache), lines, 0, len(DATA))
    folder = tmp_path / "cache" / "blocks" / cache.key(server.url + "x", SHA256)
    damages = {"2": b"", "3": b"SKYB", "4": None, "5": (folder / "6").read_bytes()}
    for name, data in damages.items():
        whole = bytearray((folder / name).read_bytes())
        whole[500] ^= 4
        (folder / name).write_bytes(whole if data is None else data)
    server.clear()
    assert got(cached(server, cache), lines, 2000, 3000) == DATA[2000:5000]
    assert server.body_bytes == 3 * BLOCK
    assert got(cached(server, cache), lines, 5000, 1000) == DATA[5000:6000]
    assert server.body_bytes == 4 * BLOCK


def test_the_limit_holds_and_what_was_used_longest_ago_goes(server, lines, tmp_path):
    size = BLOCK + block_cache._HEAD.size
    cache = BlockCache(tmp_path / "cache", 4 * size)
    file = cached(server, cache)
    for number in range(4):
        got(file, lines, number * BLOCK, 10)
    folder = tmp_path / "cache" / "blocks" / cache.key(server.url + "x", SHA256)
    for number, age in enumerate((40, 30, 20, 10)):
        os.utime(folder / str(number), (1e9 - age, 1e9 - age))
    got(file, lines, 0, 10)  # used now
    for number in (5, 6):
        got(file, lines, number * BLOCK, 10)
        assert used(tmp_path / "cache") <= cache.limit
    names = {path.name for path in folder.iterdir()} - {"version.json"}
    assert "0" in names and {"5", "6"} <= names and not {"1", "2"} & names
    got(file, lines, 0, len(DATA))
    assert used(tmp_path / "cache") <= cache.limit


FILL = """
import sys
from skyset import block_cache
from skyset.block_cache import BlockCache
from skyset.ranges import Version
block_cache.BLOCK = 1000
cache = BlockCache(sys.argv[1], 20_000)
for number in range(60):
    cache.write(cache.key(sys.argv[2], str(number % 3)), Version(10**6), [(number, memoryview(bytes([number]) * 1000))])
"""


def test_processes_share_a_folder_and_its_limit(tmp_path):
    cache = BlockCache(tmp_path / "cache", 20_000)
    commands = [[sys.executable, "-c", FILL, str(cache.folder), name] for name in "abc"]
    running = [subprocess.Popen(command) for command in commands]
    largest = 0
    while any(process.poll() is None for process in running):
        with cache._locked():  # or blocks that come and go during the look would both be counted
            largest = max(largest, used(cache.folder))
    assert [process.returncode for process in running] == [0, 0, 0]
    assert 10_000 < used(cache.folder) <= 20_000 and largest <= 20_000
    for path in (cache.folder / "blocks").rglob("*"):
        if path.name.isdigit():
            assert cache.read(path.parent.name, int(path.name), 1000) == bytes([int(path.name)]) * 1000


def test_the_checksum_of_a_whole_file_is_the_manifests(server, lines, tmp_path):
    cache = BlockCache(tmp_path / "cache", 10**6)
    other = hashlib.sha256(b"").hexdigest()
    file = cached(server, cache, other)
    assert got(file, lines, 0, 9000) == DATA[:9000]
    with pytest.raises(OSError, match="SHA-256 of what the server gives is not what the manifest says, e3b0c44298fc"):
        got(file, lines, 9000, 1300)
    assert used(tmp_path / "cache") == 0


def test_a_file_that_was_exchanged_is_not_mixed_with_the_old_one(server, lines, tmp_path):
    cache = BlockCache(tmp_path / "cache", 10**6)
    got(cached(server, cache), lines, 0, 3000)
    (server.folder / "x").write_bytes(DATA[::-1])
    file = cached(server, cache)
    assert got(file, lines, 0, 3000) == DATA[:3000]  # as the manifest has it
    with pytest.raises(Changed):
        got(file, lines, 2000, 3000)
    assert used(tmp_path / "cache") == 0
    assert got(cached(server, cache), lines, 0, 3000) == DATA[::-1][:3000]


def test_a_file_of_another_size_is_not_kept(server, lines, tmp_path):
    cache = BlockCache(tmp_path / "cache", 10**6)
    assert got(cached(server, cache, size=9000), lines, 100, 500) == DATA[100:600]
    assert got(cached(server, cache, size=20_000), lines, 10_000, 5000) == DATA[10_000:]
    assert used(tmp_path / "cache") == 0


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="has files that are not of a skyset cache"):
        BlockCache(tmp_path, 10**6)
    with pytest.raises(UserError, match="cannot be used"):
        BlockCache(tmp_path / "mine", 10**6)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "skyset-cache.json").write_text("[]")
    with pytest.raises(UserError, match="is none of this skyset's"):
        BlockCache(tmp_path / "other", 10**6)


def test_nothing_is_removed_that_it_did_not_write(server, lines, tmp_path):
    cache = BlockCache(tmp_path / "cache", 3 * (BLOCK + 16))
    got(cached(server, cache), lines, 0, 1000)
    folder = tmp_path / "cache" / "blocks" / cache.key(server.url + "x", SHA256)
    kept = [folder / "notes.txt", tmp_path / "cache" / "blocks" / "thesis" / "7", tmp_path / "cache" / "8"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")
        os.utime(path, (1, 1))
    (tmp_path / "cache" / "blocks" / ("a" * 40)).symlink_to(tmp_path / "far")
    got(cached(server, cache), lines, 0, len(DATA))
    cache.forget(folder.name)
    assert all(path.read_text() == "precious" for path in kept) and (tmp_path / "far" / "x").read_bytes() == DATA


def test_a_full_disk_is_told_of_once_and_done_without(server, lines, tmp_path, monkeypatch):
    cache = BlockCache(tmp_path / "cache", 10**6)

    def full(path, mode):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(block_cache, "open", full, raising=False)
    file = cached(server, cache)
    with pytest.warns(UserWarning, match="No space left on device: what comes from now on is not kept") as warned:
        assert got(file, lines, 0, 5000) == DATA[:5000] and got(file, lines, 0, 6000) == DATA[:6000]
    assert len(warned) == 1 and used(tmp_path / "cache") == 0


def test_what_a_killed_process_left_goes_when_room_is_made(server, lines, tmp_path):
    cache = BlockCache(tmp_path / "cache", 3 * (BLOCK + 16))
    got(cached(server, cache), lines, 0, 1000)
    folder = tmp_path / "cache" / "blocks" / cache.key(server.url + "x", SHA256)
    old, new = folder / ".1.0123abcd.tmp", folder / ".2.0123abcd.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    got(cached(server, cache), lines, 1000, 5000)
    assert not old.exists() and new.exists()


def test_a_forked_process_waits_for_nobody(monkeypatch):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with block_cache.fetching("key", range(3)):
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(30)
    if (child := os.fork()) == 0:
        with block_cache.fetching("key", range(3)):
            os._exit(0)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0 and block_cache._fetching == {}
