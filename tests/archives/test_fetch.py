"""Downloads: what arrives is the file, byte for byte, or an error that says why."""

import errno
import hashlib
import pickle
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skyset.archives.checksums import read_checksums
from skyset.archives.fetch import Fetcher, FetchError
from skyset.archives.listing import listing
from skyset.testing.server import KINDS, ArchiveServer, RawServer

BODY = bytes(range(256)) * 400  # 102,400 bytes
SHA1 = f"sha1:{hashlib.sha1(BODY).hexdigest()}"
NAME = "1-106630_127_14715787.fits.gz"


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / NAME).write_bytes(BODY)
    with ArchiveServer(folder) as running:
        yield running


@pytest.fixture
def fetcher():
    with quick() as made:
        yield made


@pytest.fixture
def target(tmp_path):
    return tmp_path / "raw" / NAME


def quick(**changes) -> Fetcher:
    """A fetcher that loses no time in tests."""
    return Fetcher(**{"retries": 2, "backoff": 0, "stall_seconds": 1, "timeout": (10, 2), **changes})


def names(target: Path) -> list[str]:
    """What stands in the target's folder."""
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def ranges(server: ArchiveServer) -> list[str | None]:
    return [request.range for request in server.requests]


def failure(fetcher: Fetcher, server: ArchiveServer, target: Path, checksum: str | None = SHA1) -> str:
    """The reason that the download gives for failing."""
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(server.url + NAME, target, checksum)
    assert caught.value.url == server.url + NAME
    assert not target.exists()
    return caught.value.reason


# --- one file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [None, SHA1, SHA1.upper().replace("SHA1", "sha1")])
def test_file_arrives_under_its_name_and_nothing_else_is_left(server, fetcher, target, checksum):
    assert fetcher.fetch(server.url + NAME, target, checksum) == target
    assert target.read_bytes() == BODY and names(target) == [NAME]
    assert server.requests == [("GET", f"/{NAME}", None, 200)]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_every_common_checksum_is_understood(server, fetcher, target, algorithm):
    fetcher.fetch(server.url + NAME, target, f"{algorithm}:{hashlib.new(algorithm, BODY).hexdigest()}")
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("checksum", ["sha1:12ab", "crc32:12ab34cd", "12ab", "sha1:" + "x" * 40])
def test_a_checksum_that_is_none_is_refused_before_any_request(server, fetcher, target, checksum):
    with pytest.raises(ValueError, match=r"checksum|hex digits"):
        fetcher.fetch(server.url + NAME, target, checksum)
    assert server.requests == []


def test_empty_file(server, fetcher, target):
    (server.folder / NAME).write_bytes(b"")
    assert fetcher.fetch(server.url + NAME, target).read_bytes() == b""


@pytest.mark.parametrize("checksum", [None, SHA1])
def test_existing_file_costs_no_request(server, fetcher, target, checksum):
    target.parent.mkdir()
    target.write_bytes(BODY)
    fetcher.fetch(server.url + NAME, target, checksum)
    assert server.requests == []


def test_existing_file_with_another_checksum_is_fetched_again(server, fetcher, target):
    target.parent.mkdir()
    target.write_bytes(BODY[:-1])
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert target.read_bytes() == BODY and ranges(server) == [None]


# --- every fault once, and for ever -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "404"])
def test_a_passing_fault_is_overcome(server, fetcher, target, kind):
    server.fault(NAME, kind, times=1)
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert target.read_bytes() == BODY and names(target) == [NAME]


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("404", "404 Not Found"),
        ("403", "403 Forbidden"),
        ("500", "500 Internal Server Error, 3 tries"),
        ("429", "429 Too Many Requests, 3 tries"),
        ("cut", "connection cut after 89,600 of 102,400 bytes, 3 tries"),
        ("truncated", f"SHA-1 is {hashlib.sha1(BODY[:51200]).hexdigest()}, the list says {SHA1[5:]}"),
        ("html", f"the list says {SHA1[5:]} (the answer is an HTML page)"),
        ("drip", "slower than 1 kB/s for 1 s after"),
    ],
)
def test_a_lasting_fault_is_named(server, fetcher, target, kind, reason):
    server.fault(NAME, kind)
    assert reason in failure(fetcher, server, target)


@pytest.mark.parametrize("kind, times", [("404", 1), ("403", 1), ("500", 3), ("truncated", 2), ("html", 2)])
def test_only_what_may_pass_is_asked_for_again(server, fetcher, target, kind, times):
    server.fault(NAME, kind)
    failure(fetcher, server, target)
    assert len(server.requests) == times


@pytest.mark.parametrize("kind", ["wrong-checksum", "truncated", "html", "404", "500"])
def test_useless_bytes_are_not_kept(server, fetcher, target, kind):
    server.fault(NAME, kind)
    failure(fetcher, server, target)
    assert names(target) == []


def test_html_page_is_no_file_even_without_checksum(server, fetcher, target):
    server.fault(NAME, "html")
    assert failure(fetcher, server, target, None) == "the answer is an HTML page"
    assert names(target) == []


def test_nobody_answers(server, fetcher, target):
    server.__exit__()
    assert failure(fetcher, server, target) == "Connection refused"


def test_no_answer_in_time(server, target):
    server.latency = 0.5
    with quick(timeout=(2, 0.1), retries=1) as fetcher:
        assert failure(fetcher, server, target) == "timed out"


def test_broken_off_without_checksum_leaves_nothing(server, fetcher, target):
    server.fault(NAME, "cut")
    assert failure(fetcher, server, target, None).startswith("connection cut after 89,600")
    assert names(target) == []


def test_larger_than_allowed(server, target):
    with quick(max_bytes=100_000) as fetcher:
        assert failure(fetcher, server, target) == "102,400 bytes, more than the 100,000 allowed"
    assert names(target) == []


def test_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(FetchError("http://a/b", "404 Not Found")))
    assert (error.url, error.reason, str(error)) == (
        "http://a/b",
        "404 Not Found",
        "http://a/b: 404 Not Found",
    )


# --- going on where it broke off ----------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [None, SHA1])
def test_broken_body_is_continued_and_no_byte_sent_twice(server, fetcher, target, checksum):
    server.fault(NAME, "cut", times=2)
    fetcher.fetch(server.url + NAME, target, checksum)
    assert target.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=51200-", "bytes=76800-"]
    assert server.body_bytes == len(BODY)


def test_a_file_that_changes_between_two_parts_is_never_spliced(server, fetcher, target):
    newer = BODY[::-1]
    server.fault(NAME, "cut", times=1)
    fetcher._pause = lambda seconds: (server.folder / NAME).write_bytes(newer)  # between the two
    fetcher.fetch(server.url + NAME, target)
    assert target.read_bytes() == newer and len(server.requests) > 1


def test_a_short_answer_to_a_range_is_no_end(server, fetcher, target):
    server.fault(NAME, "cut", times=1)
    server.fault(NAME, "truncated", times=1)
    fetcher.fetch(server.url + NAME, target)
    assert target.read_bytes() == BODY and ranges(server) == [None, "bytes=51200-", "bytes=76800-"]


def test_silence_is_given_up_and_continued(server, target):
    server.fault(NAME, "hang", times=1)
    with quick(timeout=(2, 1), retries=1) as fetcher:
        fetcher.fetch(server.url + NAME, target, SHA1)
        assert target.read_bytes() == BODY and ranges(server) == [None, "bytes=51200-"]
        server.fault("other", "hang")
        (server.folder / "other").write_bytes(BODY)
        with pytest.raises(FetchError, match=r"nothing for 1 s after 76,800 of 102,400 bytes, 2 tries"):
            fetcher.fetch(server.url + "other", target.with_name("other"))


def test_server_that_ignores_range_sends_all_again(server, fetcher, target):
    server.fault(NAME, "cut", times=1)
    server.fault(NAME, "no-range")
    fetcher.fetch(server.url + NAME, target)
    assert target.read_bytes() == BODY and [request.status for request in server.requests] == [200, 200]


def test_part_of_an_earlier_run_is_continued(server, fetcher, target):
    target.parent.mkdir()
    part = target.with_name(NAME + ".part")
    part.write_bytes(BODY[:100_000])
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert target.read_bytes() == BODY and names(target) == [NAME]
    assert ranges(server) == ["bytes=100000-"] and server.body_bytes == 2400


def test_part_that_was_complete_costs_no_request(server, fetcher, target):
    target.parent.mkdir()
    target.with_name(NAME + ".part").write_bytes(BODY)
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert target.read_bytes() == BODY and server.requests == []


@pytest.mark.parametrize(
    "old, asked",
    [
        (b"\0" * 100_000, ["bytes=100000-", None]),  # other bytes: found by the checksum
        (b"\0" * 102_400, ["bytes=102400-", None]),  # nothing left to send: 416
        (b"\0" * 200_000, ["bytes=200000-", None]),
    ],
)
def test_part_that_does_not_belong_is_thrown_away(server, fetcher, target, old, asked):
    target.parent.mkdir()
    target.with_name(NAME + ".part").write_bytes(old)
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert target.read_bytes() == BODY and ranges(server) == asked


def test_part_is_not_trusted_without_checksum(server, fetcher, target):
    target.parent.mkdir()
    target.with_name(NAME + ".part").write_bytes(b"\0" * 100_000)
    fetcher.fetch(server.url + NAME, target)
    assert target.read_bytes() == BODY and ranges(server) == [None]


def test_slow_body_is_given_up_and_continued(server, fetcher, target):
    server.fault(NAME, "drip", times=1)
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert target.read_bytes() == BODY
    first, second = ranges(server)
    assert first is None and 1 <= int(second.removeprefix("bytes=").rstrip("-")) <= 100


def test_a_failed_run_leaves_its_part_for_the_next(server, fetcher, target):
    server.fault(NAME, "cut", times=3)
    failure(fetcher, server, target)
    assert names(target) == [NAME + ".part"]
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert target.read_bytes() == BODY and server.body_bytes == len(BODY)


# --- patience -----------------------------------------------------------------------------------------------


def test_retry_after_in_seconds_is_waited_for(server, fetcher, target):
    server.fault(NAME, "429", times=1, retry_after=1)
    waited, wait_for = [], fetcher._pause
    fetcher._pause = lambda seconds: waited.append(seconds) or wait_for(seconds)
    began = time.monotonic()
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert time.monotonic() - began >= 1 and waited == [1]


def test_retry_after_as_a_date_is_waited_for(server, fetcher, target):
    until = datetime.now(UTC) + timedelta(seconds=2)
    server.fault(NAME, "503", times=1, retry_after=until)
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert datetime.now(UTC) >= until.replace(microsecond=0)


def test_retry_after_that_means_nothing_is_passed_over(server, fetcher, target):
    server.fault(NAME, "429", times=1, retry_after="soon")
    fetcher.fetch(server.url + NAME, target, SHA1)
    assert target.read_bytes() == BODY


# --- many files ---------------------------------------------------------------------------------------------


def many(server: ArchiveServer, count: int) -> dict[str, bytes]:
    """Write `count` small files into the archive."""
    bodies = {f"{k}.fits.gz": bytes([k]) * 1000 for k in range(count)}
    for name, body in bodies.items():
        (server.folder / name).write_bytes(body)
    return bodies


def test_no_more_connections_than_allowed(server, tmp_path):
    bodies = many(server, 24)
    server.latency = 0.02
    server.chaos(1, 0.3, ["cut", "500", "truncated"])
    with quick(max_connections=3) as fetcher, ThreadPoolExecutor(12) as users:
        sums = {name: f"sha1:{hashlib.sha1(body).hexdigest()}" for name, body in bodies.items()}
        futures = [users.submit(fetcher.fetch, server.url + n, tmp_path / n, s) for n, s in sums.items()]
        wait(futures)
    assert server.max_concurrent == 3


def test_submit_downloads_side_by_side(server, tmp_path):
    bodies = many(server, 16)
    eight = threading.Barrier(8, timeout=60)
    server.next_fault = lambda name: None if eight.wait() >= 0 else name  # no answer before eight have asked
    with quick(max_connections=8) as fetcher:
        futures = {name: fetcher.submit(server.url + name, tmp_path / name) for name in bodies}
    assert {name: future.result().read_bytes() for name, future in futures.items()} == bodies
    assert server.max_concurrent == 8


def test_same_target_twice_is_downloaded_once(server, target):
    server.latency = 0.05
    with quick() as fetcher:
        futures = [fetcher.submit(server.url + NAME, target, SHA1) for _ in range(4)]
    assert all(future.result().read_bytes() == BODY for future in futures) and len(server.requests) == 1


@pytest.mark.parametrize("kind", ["drip", "hang", "429"])
def test_cancel_stops_running_downloads_at_once(server, tmp_path, kind):
    server.fault("*", kind, retry_after=60)
    fetcher = quick(stall_seconds=60, timeout=(60, 60), max_connections=2)
    futures = [fetcher.submit(server.url + NAME, tmp_path / str(k), SHA1) for k in range(6)]
    while len(server.requests) < 2:
        time.sleep(0.01)
    began = time.monotonic()
    fetcher.close(cancel=True)
    assert time.monotonic() - began < 20  # of 60
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=0)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".part" and path.is_file()]


def test_leaving_the_block_with_an_error_cancels(server, tmp_path):
    server.fault("*", "drip")
    with pytest.raises(KeyboardInterrupt), quick(stall_seconds=60) as fetcher:
        future = fetcher.submit(server.url + NAME, tmp_path / NAME)
        raise KeyboardInterrupt
    with pytest.raises(CancelledError):
        future.result(timeout=0)


def test_full_disk_is_the_users_matter_and_not_the_files(server, fetcher, target, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        fetcher.fetch(server.url + NAME, target, SHA1)
    assert caught.value.errno == errno.ENOSPC and not target.exists()


def test_a_folder_that_cannot_be_made_is_an_oserror(server, fetcher, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        fetcher.fetch(server.url + NAME, tmp_path / "file" / NAME, SHA1)


FAULTS = ["500", "429", "404", "cut", "truncated", "wrong-checksum", "html", "no-range"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.lists(st.sampled_from(FAULTS), max_size=8), min_size=1, max_size=3),
    size=st.integers(0, 5000),
    runs=st.integers(1, 3),
)
def test_whatever_happens_final_names_hold_complete_files_only(tmp_path_factory, faults, size, runs):
    archive, raw = tmp_path_factory.mktemp("archive"), tmp_path_factory.mktemp("raw")
    bodies = {f"{k}.fits.gz": hashlib.shake_128(bytes([k])).digest(size) for k in range(len(faults))}
    with ArchiveServer(archive) as server:
        for (name, body), kinds in zip(bodies.items(), faults, strict=True):
            (archive / name).write_bytes(body)
            for kind in kinds:
                server.fault(name, kind, times=1)
        for _ in range(runs):
            arrived = run(server, bodies, raw)
            assert {name: (raw / name).read_bytes() for name in arrived} == {name: bodies[name] for name in arrived}
            others = {path.name for path in raw.iterdir()} - arrived
            assert others <= {f"{name}.part" for name in bodies}
        server.clear()
        assert run(server, bodies, raw) == set(bodies) == {path.name for path in raw.iterdir()}


def run(server: ArchiveServer, bodies: dict[str, bytes], raw: Path) -> set[str]:
    """Download everything; the names of what arrived."""
    arrived = set()
    with quick(retries=1, max_connections=3) as fetcher:
        futures = {
            name: fetcher.submit(server.url + name, raw / name, f"sha1:{hashlib.sha1(body).hexdigest()}")
            for name, body in bodies.items()
        }
    for name, future in futures.items():
        error = future.exception()
        assert error is None or isinstance(error, FetchError)
        if error is None:
            arrived.add(name)
    return arrived


# --- lists of files -----------------------------------------------------------------------------------------


def test_text_and_content(server, fetcher):
    (server.folder / "list.txt").write_bytes("α 1\n".encode() + b"\xff")
    server.fault("list.txt", "cut", times=1)
    assert fetcher.text(server.url + "list.txt") == "α 1\n\ufffd"
    assert fetcher.content(server.url + NAME) == BODY
    with pytest.raises(FetchError, match="404 Not Found"):
        fetcher.text(server.url + "other.txt")


def test_listing_gives_the_files_of_the_folder(server, fetcher):
    for name in ("b a.fits.gz", "c&d.fits.gz", "notes.txt"):
        (server.folder / name).write_text("")
    (server.folder / "older.fits.gz").mkdir()
    assert listing(fetcher, server.url, ".fits.gz") == [NAME, "b a.fits.gz", "c&d.fits.gz"]


def test_listing_leaves_out_whatever_is_not_a_plain_name_here(server, fetcher):
    links = [
        "a.gz",
        "./b.gz",
        f"{server.url}v4/c.gz",
        "/v4/d.gz",
        "../v4/e.gz",
        "a.gz",
        "/f.gz",
        "../f.gz",
        "x/f.gz",
        "..%2ff.gz",
        "f.gz?C=N",
        "%00f.gz",
        "x%5cf.gz",
        "#f.gz",
        "",
        ".",
        "http://elsewhere.org/v4/f.gz",
        "//elsewhere.org/v4/f.gz",
        "javascript:f.gz",
        "http://[broken/v4/f.gz",
    ]
    page = "".join(f'<A HREF="{link}">x</A>' for link in links) + "<a name=f.gz>"
    (server.folder / "v4").mkdir()
    (server.folder / "v4" / "index.html").write_text(page)
    assert listing(fetcher, server.url + "v4/index.html", ".gz") == ["a.gz", "b.gz", "c.gz", "d.gz", "e.gz"]


def test_read_checksums_takes_what_the_common_tools_write():
    one, two = "AB" * 20, "cd" * 16
    text = f"# made by hand\n{one}  a.fits\n\n{one} b.fits\r\n{two} *c d.fits\n{two}  ./e.fits\n{one}  a.fits\n"
    low = one.lower()
    assert read_checksums(text) == {"a.fits": low, "b.fits": low, "c d.fits": two, "e.fits": two}
    assert read_checksums("") == {}


@pytest.mark.parametrize(
    "line, message",
    [
        ("<html>", "line 2: not a checksum and a name: '<html>'"),
        ("ab" * 20, "line 2: not a checksum and a name"),
        ("abc  a.fits", "line 2: not a checksum and a name"),
        ("ab" * 20 + "  ../a.fits", "line 2: not a plain file name: '../a.fits'"),
        ("ab" * 20 + "  /etc/passwd", "line 2: not a plain file name: '/etc/passwd'"),
        ("ab" * 20 + "  sub/a.fits", "line 2: not a plain file name: 'sub/a.fits'"),
        ("ab" * 20 + "  first", "line 2: a second, different checksum for first"),
    ],
)
def test_read_checksums_names_the_line_it_cannot_read(line, message):
    with pytest.raises(ValueError) as caught:
        read_checksums("cd" * 20 + "  first\n" + line + "\n")
    assert str(caught.value).startswith(message)


# --- answers that are wrong on purpose ----------------------------------------------------------------------


def told(answer: str | bytes, *more: str | bytes, **options) -> str:
    """What a download from a server that says this ends in."""
    with RawServer.saying(answer, *more) as server, quick(**{"retries": 1, **options}) as fetcher:
        with pytest.raises(FetchError) as caught:
            fetcher.content(server.url)
        assert len(server.requests) <= 2
        return caught.value.reason


OK = "HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("length", ["²", "-5", "+5", "0x5", "5_0", "1e3", "", "9" * 30, "9" * 5000, "5;", "five"])
def test_a_content_length_that_is_none_is_an_error_of_this_file(length):
    assert told(f"{OK}Content-Length: {length}\r\n\r\nhello").startswith("the answer's Content-Length is '")


def test_two_content_lengths():
    for two in ("5, 6", "5\r\nContent-Length: 6"):
        reason = told(f"{OK}Content-Length: {two}\r\n\r\nhello")
        assert reason == "Content-Length contained multiple unmatching values (5, 6)"
    with RawServer.saying(f"{OK}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello") as server, quick() as fetcher:
        assert fetcher.content(server.url) == b"hello"


@pytest.mark.parametrize("wait", ["Fri, 31 Dec 99999 23:59:59 GMT", "nan", "-3", "1e309", "9" * 5000])
def test_a_retry_after_that_is_none_is_passed_over(wait):
    passing = f"HTTP/1.1 503 x\r\nRetry-After: {wait}\r\nContent-Length: 0\r\n\r\n"
    assert told(passing) == "503 x, 2 tries"
    with RawServer.saying(passing, f"{OK}Content-Length: 5\r\n\r\nhello") as server, quick() as fetcher:
        assert fetcher.content(server.url) == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "\r\n",
        "garbage\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "SSH-2.0\r\n",
        f"{OK}" + "X: y\r\n" * 200 + "\r\n",
        f"{OK}X: {'y' * 70000}\r\n\r\n",
        f"{OK}Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        f"{OK}Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        f"{OK}Transfer-Encoding: chunked\r\n\r\nfffffffff\r\nhi",
        "HTTP/1.1 302 Found\r\nLocation: http://[broken\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: ftp://host/x\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://host:99999/\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://\x00/\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://.../\r\n\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: http://{'a' * 300}.invalid/\r\n\r\n",
        "HTTP/1.1 206 Partial Content\r\n\r\nhello",
        "HTTP/1.1 206 x\r\nContent-Range: bytes 5-9/10\r\n\r\nhello",
        "HTTP/1.1 416 x\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 206 x\r\nContent-Range: bytes 0-" + "9" * 5000 + "/*\r\n\r\nhello",
        "HTTP/1.1 000 x\r\n\r\n",
        "HTTP/1.1 206 x\r\nContent-Range: bytes 4-0/10\r\n\r\nhello",
        "HTTP/1.1 404 \x1b[31mred\x07\r\n\r\n",
    ],
)
def test_whatever_the_answer_is_one_file_is_lost_and_one_line_says_why(answer):
    reason = told(answer)
    assert reason and reason.isprintable() and len(reason) < 600


@pytest.mark.parametrize("error", [ValueError("x"), AttributeError("y"), MemoryError(), RecursionError("z"), KeyError("k")])
def test_an_error_that_nobody_thought_of_is_one_of_this_file(server, fetcher, target, monkeypatch, error):
    def broken(*_):
        raise error

    monkeypatch.setattr(fetcher, "_store", broken)
    assert failure(fetcher, server, target, None).startswith(f"{type(error).__name__}: ")
    assert names(target) == []


def test_a_name_that_the_disk_does_not_take_is_an_error_of_this_file(server, fetcher, tmp_path):
    with pytest.raises(FetchError, match="its name cannot be a file's: File name too long"):
        fetcher.fetch(server.url + NAME, tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    "second",
    [
        'ETag: "b"\r\nContent-Range: bytes 5-9/10',
        "Content-Range: bytes 5-9/10",  # does not say of which file
        'ETag: "a"\r\nLast-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\nContent-Range: bytes 5-9/10',
        'ETag: "a"\r\nContent-Range: bytes 5-9/11',
    ],
)
def test_the_rest_of_another_file_is_never_joined(second):
    changed = "Last-Modified: Sat, 31 Oct 2026 00:00:00 GMT"
    first = f'{OK}ETag: "a"\r\n{changed}\r\nContent-Length: 10\r\n\r\nhello'
    rest = f"HTTP/1.1 206 Partial Content\r\n{second}\r\n\r\nOTHER"
    whole = f'{OK}ETag: "b"\r\nContent-Length: 10\r\n\r\nNEWERWORLD'
    with RawServer.saying(first, rest, whole) as server, quick() as fetcher:
        assert fetcher.content(server.url) == b"NEWERWORLD"
        asked = [next((line for line in head.splitlines() if line.startswith("Range")), None) for head in server.requests]
        assert asked == [None, "Range: bytes=5-", None]
        assert 'If-Range: "a"' in server.requests[1] and "If-Range" not in server.requests[2]


def test_the_rest_of_the_same_file_is_joined():
    first = f'{OK}ETag: "a"\r\nContent-Length: 10\r\n\r\nhello'
    rest = 'HTTP/1.1 206 Partial Content\r\nETag: "a"\r\nContent-Range: bytes 5-9/10\r\n\r\nWORLD'
    with RawServer.saying(first, rest) as server, quick() as fetcher:
        assert fetcher.content(server.url) == b"helloWORLD"


@pytest.mark.parametrize("etag", ['W/"a"', "a", '"a\x1b"', '"a\x00"', f'"{"a" * 300}"', '"a\xe9"'])
def test_an_etag_that_cannot_be_asked_with_vouches_for_nothing(etag):
    first = f"{OK}ETag: {etag}\r\nContent-Length: 10\r\n\r\nhello"
    with RawServer.saying(first, f"{OK}Content-Length: 10\r\n\r\nhelloWORLD") as server, quick() as fetcher:
        assert fetcher.content(server.url) == b"helloWORLD"
        assert "Range" not in server.requests[1]


def test_a_body_that_drips_above_the_slowest_rate_has_a_total_time():
    def drip(connection):
        connection.sendall(f"{OK}Content-Length: 100000\r\n\r\n".encode())
        while True:
            connection.sendall(b"x" * 10)
            time.sleep(0.01)

    began = time.monotonic()
    with RawServer(drip) as server, quick(min_rate=1, total=0.5) as fetcher:
        with pytest.raises(FetchError, match=r"not complete after [0-9] s \([0-9,]+ bytes\)"):
            fetcher.content(server.url)
        assert len(server.requests) == 1 and time.monotonic() - began < 10


@pytest.mark.parametrize("begin, endless", [("", "HTTP/1.1 100 Continue\r\n\r\n"), (f"{OK}X: ", "y")])
def test_an_answer_has_to_come_in_time(begin, endless):
    def answer(connection):
        connection.sendall(begin.encode())
        while True:
            connection.sendall(endless.encode())
            time.sleep(0.01)

    began = time.monotonic()
    with RawServer(answer) as server, quick(retries=0, timeout=(0.2, 0.2)) as fetcher:
        with pytest.raises(FetchError, match=r"no answer in 0\.4 s"):
            fetcher.content(server.url)
        assert time.monotonic() - began < 10


def test_texts_are_small(server, fetcher, monkeypatch):
    with pytest.raises(FetchError, match="102,400 bytes, more than the 1,000 allowed"):
        fetcher.text(server.url + NAME, max_bytes=1000)
    with RawServer.saying(f"{OK}\r\n" + "x" * 5000) as endless, pytest.raises(FetchError, match="more than the 1,000 bytes"):
        fetcher.content(endless.url, max_bytes=1000)


def test_an_index_that_is_no_html_names_nothing(server, fetcher):
    (server.folder / "v4").mkdir()
    for page in (b"<![x" * 100, b"<!DOCTYPE", bytes(range(256)) * 10, b"<a href=" * 1000):
        (server.folder / "v4" / "index.html").write_bytes(page)
        try:
            assert listing(fetcher, server.url + "v4/index.html", ".gz") == []
        except FetchError as error:
            assert "not a listing" in error.reason
