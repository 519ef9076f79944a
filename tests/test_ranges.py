"""Byte ranges over HTTP: tried again, of one version, and no thread left."""

import os
import re
import threading

import pytest

from skyset import ranges
from skyset.ranges import Changed, HttpFile, Lines, Version
from skyset.testing.server import ArchiveServer, RawServer

DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(ranges, "BACKOFF", 0.001)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "x.bin").write_bytes(DATA)
    with ArchiveServer(tmp_path) as running:
        yield running


@pytest.fixture
def lines():
    with Lines(3) as running:
        yield running


def got(file: HttpFile, lines: Lines, start: int, size: int) -> bytes:
    out = bytearray(size)
    return bytes(out[: file.get(start, memoryview(out), lines)])


def test_any_part_of_a_file(server, lines):
    file = HttpFile(server.url + "x.bin")
    assert got(file, lines, 100, 1000) == DATA[100:1100]
    assert got(file, lines, -300, 300) == DATA[-300:]
    assert got(file, lines, -99_999, 99_999) == DATA  # more than there is
    assert got(file, lines, len(DATA) - 5, 100) == DATA[-5:]
    assert got(file, lines, len(DATA), 100) == b""
    assert file.version.size == len(DATA) and file.version.etag
    assert server.connections == 1


def test_what_breaks_off_goes_on_from_there(server, lines):
    server.fault("x.bin", "cut", times=1)
    server.fault("x.bin", "503", times=2)
    assert got(HttpFile(server.url + "x.bin"), lines, 1000, 4000) == DATA[1000:5000]
    assert [each.range for each in server.requests] == ["bytes=1000-4999"] + ["bytes=3000-4999"] * 3


@pytest.mark.parametrize(
    ("fault", "error", "words", "requests"),
    [
        ("404", FileNotFoundError, "404 Not Found", 1),
        ("403", OSError, "403 Forbidden", 1),
        ("500", OSError, "500 Internal Server Error, 6 tries", 6),
        ("no-range", OSError, "gives whole files only", 1),
        ("html", OSError, "gives whole files only", 1),
    ],
)
def test_what_does_not_come(server, lines, fault, error, words, requests):
    server.fault("x.bin", fault)
    with pytest.raises(error, match=words):
        got(HttpFile(server.url + "x.bin"), lines, 0, 10)
    assert len(server.requests) == requests


def test_a_file_that_changes_is_noticed(server, lines, tmp_path):
    file = HttpFile(server.url + "x.bin")
    got(file, lines, 0, 10)
    (tmp_path / "x.bin").write_bytes(DATA[::-1])
    with pytest.raises(Changed, match="the file was changed on the server"):
        got(file, lines, 10, 10)
    with pytest.raises(Changed):
        got(HttpFile(file.url, version=Version(len(DATA) + 1)), lines, 0, 10)


def test_versions():
    version = Version(5, '"a"', "Monday")
    assert version.is_same(Version(5)) and version.is_same(Version(5, '"a"', "Tuesday"))
    assert not version.is_same(Version(6, '"a"', "Monday")) and not version.is_same(Version(5, '"b"', "Monday"))
    assert Version(5, "", "Monday").is_same(Version(5, '"b"', "Monday"))
    assert not Version(5, "", "Monday").is_same(Version(5, '"b"', "Tuesday"))


def test_where_a_redirect_ends_is_asked_at_once_until_it_fails(server, lines, tmp_path):
    with ArchiveServer(tmp_path) as front:
        front.redirects["x.bin"] = server.url + "x.bin"
        file = HttpFile(front.url + "x.bin", {"Authorization": "Bearer abcdefgh1"})
        for start in (0, 10, 20):
            assert got(file, lines, start, 10) == DATA[start : start + 10]
        assert len(front.requests) == 1 and len(server.requests) == 3
        server.fault("x.bin", "403", times=1)  # such addresses are signed for an hour
        assert got(file, lines, 30, 10) == DATA[30:40]
        assert len(front.requests) == 2
        assert set(front.authorizations) == {"Bearer abcdefgh1"} and set(server.authorizations) == {None}


def test_a_server_that_gives_less_at_a_time_is_asked_again(lines):
    def answer(connection):
        first, last = map(int, re.search(r"Range: bytes=(\d+)-(\d+)", server.requests[-1]).groups())
        part = DATA[first : min(first + 700, last + 1)]
        head = f"HTTP/1.1 206 Part\r\nContent-Length: {len(part)}\r\nConnection: close\r\n"
        head += f"Content-Range: bytes {first}-{first + len(part) - 1}/{len(DATA)}\r\n\r\n"
        connection.sendall(head.encode() + part)

    with RawServer(answer) as server:
        assert got(HttpFile(server.url), lines, 500, 2000) == DATA[500:2500]
        assert got(HttpFile(server.url), lines, len(DATA) - 900, 2000) == DATA[-900:]
        assert len(server.requests) == 5


@pytest.mark.parametrize("range_", ["bytes 0-9/*", "bytes 5-14/10240", "bytes 0-10239/10240", "", "bytes 0-9/5"])
def test_answers_that_say_something_else(lines, range_):
    said = f"Content-Range: {range_}\r\n" if range_ else ""
    answer = f"HTTP/1.1 206 Part\r\nContent-Length: 10\r\n{said}\r\n0123456789"
    words = r"contradicts what was asked for|does not say which part"
    with RawServer.saying(answer) as server, pytest.raises(OSError, match=words):
        got(HttpFile(server.url), lines, 0, 10)


def test_closing_ends_what_hangs_and_leaves_no_thread(server):
    before = set(threading.enumerate())
    lines = Lines(2)
    server.fault("x.bin", "hang")
    futures = [lines.submit(got, HttpFile(server.url + "x.bin"), lines, 0, 5000) for _ in range(4)]
    while len(server.requests) < 2:
        threading.Event().wait(0.01)
    lines.close()
    assert all(future.done() for future in futures)
    assert {thread.name for thread in set(threading.enumerate()) - before if "Thread-" not in thread.name} == set()
    assert lines.submit(len, "x").cancelled()


def test_connections_are_kept_for_the_next_reader_but_not_for_a_child(server):
    for _ in range(3):
        with Lines(1) as lines:
            lines.submit(got, HttpFile(server.url + "x.bin"), lines, 0, 10).result()
    assert server.connections == 1 and any(ranges._idle.values())
    if (child := os.fork()) == 0:
        os._exit(len(ranges._idle))
    assert os.waitpid(child, 0)[1] == 0


def test_a_whole_file_has_a_largest_length(server, lines):
    file = HttpFile(server.url + "x.bin")
    server.fault("x.bin", "cut", times=1)
    assert file.whole(len(DATA), lines) == DATA
    with pytest.raises(OSError, match="it has 10,240 bytes, more than 10,239"):
        file.whole(len(DATA) - 1, lines)
