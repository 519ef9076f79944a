"""Archives that survive a kill at any moment, with a ledger that agrees with them."""

import contextlib
import csv
import errno
import gzip
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections import Counter

import pandas as pd
import pytest
import requests

from skyset.building.tars.ledger import head, read_rows
from skyset.building.tars.read import BLOCK
from skyset.building.tars.sink import TarSink
from skyset.errors import UserError
from skyset.testing.hips import HipsServer
from tests.processes import imported, steps_of, wait_for
from tests.samples import content, fill, members

KILLS = int(os.environ.get("SKYSET_KILLS", "6"))
COLUMNS = ["objid", "archive", "member", "bytes", "sha256", "http_status", "tries"]


def ledger(folder):
    return pd.read_csv(folder / "Images_downloaded.csv.gz", dtype={"objid": str})


def check(folder, keys, per_archive=4):
    """Everything agrees with everything, by other people's readers."""
    rows = ledger(folder)
    assert list(rows.columns) == COLUMNS
    assert sorted(rows.objid) == sorted(map(str, keys))
    archives = sorted(path.name for path in folder.glob("*.tar"))
    assert sorted(set(rows.archive)) == archives
    lists = [name.replace(".tar", ".csv") for name in archives]
    assert set(os.listdir(folder)) == {*archives, *lists, "Images_downloaded.csv.gz"}
    every = pd.concat(pd.read_csv(folder / name, dtype={"objid": str}) for name in lists)
    assert rows.equals(every[COLUMNS].reset_index(drop=True))
    for name, group in rows.groupby("archive"):
        assert len(group) <= per_archive
        with tarfile.open(folder / name) as tar:
            found = {member.name: tar.extractfile(member).read() for member in tar}
        assert list(found) == [f"{key}.{kind}" for key in group.objid for kind in ("jpg", "json")]
        for row in group.itertuples():
            assert row.member == f"{row.objid}.jpg"
            assert found[row.member] == content(row.objid)
            assert (row.bytes, row.sha256) == (len(content(row.objid)), hashlib.sha256(content(row.objid)).hexdigest())
            assert (row.http_status, row.tries) == (200, 1 + int(row.objid) % 3)
    assert len(archives) == -(-len(keys) // per_archive)


# --- writing ------------------------------------------------------------------------------------------------


def test_archives_and_ledger(tmp_path):
    fill(tmp_path / "a", range(10))
    check(tmp_path / "a", range(10))
    assert sorted(path.name for path in (tmp_path / "a").glob("*.tar")) == [f"images-0000{n}.tar" for n in range(3)]
    with tarfile.open(tmp_path / "a" / "images-00000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.type) for m in tar} == {(0, 0, 0, 0o644, "", tarfile.REGTYPE)}
    with gzip.open(tmp_path / "a" / "Images_downloaded.csv.gz", "rt") as file:
        assert file.readline() == ",".join(COLUMNS) + "\n"


def test_archives_depend_on_their_contents_only(tmp_path):
    for name in "ab":
        fill(tmp_path / name, range(10))
        time.sleep(0.01)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_short_archives_are_filled_up(tmp_path):
    for stop in range(1, 12):
        sink = fill(tmp_path, range(stop))
        check(tmp_path, range(stop))
    assert len(sink.done) == 11


def test_open_archive_is_not_under_the_final_name(tmp_path):
    with TarSink(tmp_path, per_archive=4) as sink:
        sink.add("1", members(1))
        assert [path.name for path in tmp_path.glob("*.tar*")] == ["images-00000.tar.part"]
    assert [path.name for path in tmp_path.glob("*.tar*")] == ["images-00000.tar"]


def test_a_short_archive_is_opened_again_when_a_sample_comes(tmp_path):
    fill(tmp_path, range(2))
    with TarSink(tmp_path, per_archive=4) as sink:
        assert [path.name for path in tmp_path.glob("*.tar*")] == ["images-00000.tar"]
        sink.add("2", members(2), 200, 3)
        assert [path.name for path in tmp_path.glob("*.tar*")] == ["images-00000.tar.part"]
    check(tmp_path, range(3))


def test_rows_say_where_a_sample_ends_and_what_its_bytes_add_up_to(tmp_path):
    fill(tmp_path, range(3))
    rows, data = read_rows(tmp_path / "images-00000.csv", "objid"), (tmp_path / "images-00000.tar").read_bytes()
    starts = [0, *(row.end for row in rows)]
    for row, start in zip(rows, starts, strict=False):
        assert zlib.crc32(data[start : row.end]) == row.crc32
        assert data[start : start + 6].rstrip(b"\0") == f"{row.key}.jpg".encode()
    assert not data[starts[-1] :].strip(b"\0")


def test_names_and_options(tmp_path):
    with TarSink(tmp_path, per_archive=2, prefix="cut", listed="l.csv.gz", failed="f.csv", key="object_id") as sink:
        sink.add("a-b+c_D", {"seg.png": b"1"}, 200, 1)
        sink.fail("x", "no\nway", None, 3, "http://a/?b=1,2")
    assert sorted(os.listdir(tmp_path)) == ["cut-00000.csv", "cut-00000.tar", "f.csv", "l.csv.gz"]
    assert pd.read_csv(tmp_path / "l.csv.gz").columns[0] == "object_id"
    with open(tmp_path / "f.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["object_id", "reason", "http_status", "tries", "url"],
            ["x", "no way", "", "3", "http://a/?b=1,2"],
        ]
    with pytest.raises(UserError, match="columns"):
        TarSink(tmp_path, prefix="cut", listed="l.csv.gz")
    with pytest.raises(ValueError):
        TarSink(tmp_path, prefix="a/b")


@pytest.mark.parametrize("key", ["", "a/b", "../a", "a.b", "a b", "ä", "a" * 81, "a\n", "."])
def test_keys_that_cannot_name_a_file(tmp_path, key):
    with TarSink(tmp_path) as sink, pytest.raises(UserError, match="cannot name a sample"):
        sink.add(key, {"jpg": b"1"})


def test_what_cannot_be_added(tmp_path):
    with TarSink(tmp_path) as sink:
        sink.add("1", {"jpg": b"1"})
        for key, files in (("1", {"jpg": b"2"}), ("2", {}), ("2", {"../x": b"1"})):
            with pytest.raises(ValueError):
                sink.add(key, files)
    assert ledger(tmp_path).objid.tolist() == ["1"]


def test_failures_are_kept_until_success(tmp_path):
    with TarSink(tmp_path) as sink:
        sink.fail("1", "404 Not Found", 404, 1, "http://a/1")
        sink.fail("2", "blank", 200, 1, "http://a/2")
    with TarSink(tmp_path) as sink:
        assert sorted(sink.failures) == ["1", "2"]
        assert "1" not in sink.done
        sink.add("1", members(1))
    assert pd.read_csv(tmp_path / "Images_failed.csv").objid.tolist() == [2]
    with TarSink(tmp_path) as sink:
        sink.add("2", members(2))
    assert not (tmp_path / "Images_failed.csv").exists()


def test_one_process_at_a_time(tmp_path):
    with TarSink(tmp_path), pytest.raises(UserError, match="another process is writing"):
        TarSink(tmp_path)
    with TarSink(tmp_path):
        pass


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        TarSink(tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        TarSink(tmp_path / "file" / "below")


@pytest.mark.parametrize("when", range(6))
def test_full_disk(tmp_path, monkeypatch, when):
    """Each write in turn fails after half of its bytes."""
    real, calls = os.pwrite, []

    def full(descriptor, data, offset):
        calls.append(offset)
        if when * 5 <= len(calls) - 1:
            if len(calls) - 1 == when * 5:
                return real(descriptor, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    added = []
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="No space left on device"), TarSink(tmp_path, per_archive=4) as sink:
        for key in map(str, range(12)):
            sink.add(key, members(key), 200, 1 + int(key) % 3)
            added.append(key)
    monkeypatch.undo()
    assert set(added) <= set(done(tmp_path))
    fill(tmp_path, range(12))
    check(tmp_path, range(12))


def test_interrupted_completion_is_completed_by_the_next_run(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), TarSink(tmp_path, per_archive=4) as sink:
        monkeypatch.setattr(os, "fsync", interrupt)
        for key in map(str, range(4)):
            sink.add(key, members(key), 200, 1 + int(key) % 3)
    with pytest.raises(UserError):
        sink.add("9", members(9))
    monkeypatch.undo()
    assert len(done(tmp_path)) == 4
    check(tmp_path, range(4))


def done(folder):
    with TarSink(folder, per_archive=4) as sink:
        return set(sink.done)


# --- what an earlier run left -------------------------------------------------------------------------------


def test_a_list_lost_or_torn(tmp_path):
    """The archive is read again; of its samples' tries nothing is known any more."""
    fill(tmp_path, range(10))
    path = tmp_path / "images-00001.csv"
    whole = path.read_text()
    plain = pd.read_csv(path).assign(tries=1).to_csv(index=False)
    for size in (0, 5, 30, len(whole) // 2, len(whole) - 1):
        path.write_text(whole[:size])
        assert done(tmp_path) == set(map(str, range(10)))
        assert path.read_text() == plain
    path.write_text(whole + "garbage,1,")
    assert len(done(tmp_path)) == 10
    path.write_text("object_id,made\n1,2\n")
    with pytest.raises(UserError, match=r"images-00001\.csv has columns"):
        TarSink(tmp_path)


def test_the_list_of_all_samples_is_written_again_where_it_is_not_theirs(tmp_path):
    fill(tmp_path, range(6))
    path = tmp_path / "Images_downloaded.csv.gz"
    whole, written = path.read_bytes(), path.stat().st_mtime_ns
    fill(tmp_path, range(6))
    assert path.stat().st_mtime_ns == written
    path.unlink()
    fill(tmp_path, range(6))
    assert path.read_bytes() == whole
    os.utime(path, ns=(0, 0))  # a killed run completed an archive after it
    path.write_bytes(b"old")
    os.utime(path, ns=(0, 0))
    fill(tmp_path, range(6))
    assert path.read_bytes() == whole
    (tmp_path / "images-00001.tar").unlink()
    fill(tmp_path, range(4))
    check(tmp_path, range(4))


@pytest.mark.parametrize("damage", ["gone", "truncated", "longer", "garbage"])
def test_archives_gone_or_damaged(tmp_path, damage):
    fill(tmp_path, range(12))
    path = tmp_path / "images-00001.tar"
    match damage:
        case "gone":
            path.unlink()
        case "truncated":
            os.truncate(path, 3000)
        case "longer":
            path.write_bytes(b"x" * BLOCK + path.read_bytes())
        case "garbage":
            path.write_bytes(bytes(range(256)) * 50)
    with TarSink(tmp_path, per_archive=4) as sink:
        assert set(sink.done) == {"0", "1", "2", "3", "8", "9", "10", "11"}
        assert list(sink.aside) == ([] if damage == "gone" else ["images-00001.tar"])
    (tmp_path / "images-00001.tar.damaged").unlink(missing_ok=True)
    fill(tmp_path, range(12))
    check(tmp_path, range(12))


def test_an_archive_exchanged_for_another(tmp_path):
    """Of the same size, so that only reading it tells."""
    for name, keys in (("a", "12"), ("b", "34")):
        with TarSink(tmp_path / name) as sink:
            for key in keys:
                sink.add(key, {"jpg": b"x"})
    shutil.copy(tmp_path / "b" / "images-00000.tar", tmp_path / "a" / "images-00000.tar")
    with TarSink(tmp_path / "a") as sink, pytest.raises(UserError, match="holds other samples than"):
        sink.add("5", {"jpg": b"x"})


def test_archives_of_another_length(tmp_path):
    """Gaps in the numbers, and a smaller ``per_archive`` than before."""
    fill(tmp_path, range(10))
    os.rename(tmp_path / "images-00001.tar", tmp_path / "images-00004.tar")
    fill(tmp_path, range(14), per_archive=3)
    rows = ledger(tmp_path)
    assert sorted(map(int, rows.objid)) == list(range(14))
    assert rows.groupby("archive").size().to_dict() == {
        "images-00000.tar": 4,
        "images-00002.tar": 2,
        "images-00004.tar": 4,
        "images-00005.tar": 3,
        "images-00006.tar": 1,
    }


def test_leftovers_of_a_kill(tmp_path):
    fill(tmp_path, range(4))
    for name in (".Images_downloaded.csv.gz.77.tmp", ".Images_failed.csv.77.tmp", ".images-00003.csv.77.0123abcd.tmp"):
        (tmp_path / name).write_text("half")
    fill(tmp_path, range(4))
    check(tmp_path, range(4))


def test_nothing_that_no_list_of_ours_names_is_deleted(tmp_path):
    fill(tmp_path, range(4))
    (tmp_path / "images-00007.tar.part").write_text("hello")
    (tmp_path / "images-00005.csv").write_text("somebody,else\n")
    with TarSink(tmp_path, per_archive=4) as sink:
        assert sink.aside == {"images-00007.tar.part": "no list says which of its samples are whole"}
    assert (tmp_path / "images-00007.tar.part.damaged").read_text() == "hello"
    assert (tmp_path / "images-00005.csv").read_text() == "somebody,else\n"


def test_an_archive_that_came_back(tmp_path):
    fill(tmp_path, range(8))
    shutil.copy(tmp_path / "images-00000.tar", tmp_path / "images-00007.tar")
    with TarSink(tmp_path, per_archive=4) as sink:
        assert "is in another archive too" in sink.aside["images-00007.tar"]
    (tmp_path / "images-00007.tar.damaged").unlink()
    check(tmp_path, range(8))


def test_torn_samples_are_cut_off(tmp_path):
    """Every length that a power cut may leave of the open archive, and of its list."""
    base = tmp_path / "base"
    sink = TarSink(base, per_archive=10)
    for key in "123":
        sink.add(key, members(key), 200, 1 + int(key) % 3)
    whole, lines = (base / "images-00000.tar.part").read_bytes(), (base / "images-00000.csv").read_bytes()
    sink.close()
    ends = [row.end for row in read_rows(base / "images-00000.csv", "objid")]
    starts = [len(head("objid")) + len(b"".join(lines.splitlines(keepends=True)[1 : 1 + n])) for n in range(4)]
    dice = random.Random(0)
    for number in range(60):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        data, rows = whole[: dice.choice([dice.randrange(ends[-1] + 1), *ends])], lines
        if number % 3 == 1:
            rows = lines[: dice.randrange(len(lines))]
        if number % 3 == 2:
            data = data.ljust(ends[-1], b"\0")  # as some file systems do
        (folder / "images-00000.tar.part").write_bytes(data)
        (folder / "images-00000.csv").write_bytes(rows)
        with TarSink(folder, per_archive=10) as other:
            complete = sum(data[:end] == whole[:end] for end in ends)
            vouched = sum(len(rows) >= end for end in starts[1:])
            assert set(other.done) == set("123"[: min(complete, vouched)])
        fill(folder, range(1, 4), per_archive=10)
        check(folder, range(1, 4), per_archive=10)


@pytest.mark.parametrize("before", [0, 2, 4, 6])
def test_killed_before_each_step(tmp_path, before):
    """Renames, deletions and files opened for writing, each time from the same start."""
    base, root = tmp_path / "base", tmp_path / "out"
    fill(base, range(before))
    deaths = 0

    def action():
        fill(root, range(11))
        return 0

    while True:
        shutil.copytree(base, root)
        if not steps_of(root, action, deaths + 1):
            break
        deaths += 1
        assert action() == 0
        check(root, range(11))
        shutil.rmtree(root)
    assert deaths >= 6


SCRIPT = """
import sys
from skyset.archives.image_pool import ImagePool, ImageRequest
from skyset.pixels import check_image
from skyset.archives.hips import hips2fits_url
from skyset.building.tars.sink import TarSink
folder, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
pool = ImagePool(4, backoff=0.01, check=lambda data: check_image(data, "jpg", 16, 16))
with TarSink(folder, per_archive=20) as sink:
    print("ready", flush=True)
    wanted = (key for key in map(str, range(count)) if key not in sink.done)
    urls = ((key, hips2fits_url(url, "CDS/P/SDSS9/color", int(key) / 4, 2, 0.01, 16, 16)) for key in wanted)
    requests = (ImageRequest(key, (url,)) for key, url in urls)
    for answer in pool.run(requests):
        sink.add(answer.key, {"jpg": answer.data, "json": b"{}"}, answer.status, answer.tries)
        print(answer.key, flush=True)
"""


def settled(server: HipsServer) -> int:
    """How many requests there are once the server has noted those that a killed client had sent."""
    requests.head(server.url)  # connections are accepted one after the other
    wait_for(lambda: server.ended == server.connections)
    return len(server.requests)


def run_script(folder, server, count, seconds):
    """Start the download; kill it `seconds` after it has opened its sink (None: never). True if it came to its end."""
    command = [sys.executable, "-c", SCRIPT, str(folder), server.url, str(count)]
    with imported(command) as process:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        process.wait()
        assert process.returncode in (0, -signal.SIGKILL), process.stderr.read()
    return process.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(60 + 5 * KILLS)
def test_a_download_killed_at_random_moments(tmp_path):
    count, dice, in_flight = 600, random.Random(KILLS), 16
    whole = count / 4 * 0.013  # seconds without a kill
    kills = 0
    with HipsServer(latency=0.01) as server:
        for kill in range(KILLS):
            kills += not run_script(tmp_path, server, count, dice.uniform(0, 1.5 * whole / KILLS))
            with TarSink(tmp_path, per_archive=20) as sink:
                safe, before = set(sink.done), settled(server)
            if kill % 3 == 0:
                with contextlib.suppress(IndexError):
                    os.truncate(dice.choice(sorted(tmp_path.glob("*.csv"))), dice.randrange(200))
        assert run_script(tmp_path, server, count, None)
        later = server.requests[before:]
        wanted = Counter(f"ra={int(key) / 4}&" for key in map(str, range(count)) if key not in safe)
        assert Counter(re.search(r"\bra=.*?&", query)[0] for query in later) == wanted
        assert len(server.requests) <= count + KILLS * (in_flight + 1)  # and the one of `settled`
    rows = ledger(tmp_path)
    assert sorted(map(int, rows.objid)) == list(range(count))
    for name, group in rows.groupby("archive"):
        with tarfile.open(tmp_path / name) as tar:
            assert tar.getnames() == [f"{key}.{kind}" for key in group.objid for kind in ("jpg", "json")]
            for row in group.itertuples():
                assert hashlib.sha256(tar.extractfile(row.member).read()).hexdigest() == row.sha256
    assert len(list(tmp_path.glob("*.tar"))) == count // 20
    assert kills >= KILLS // 2


@pytest.mark.parametrize("kind", ["mute", "500"])
def test_ctrl_c_ends_a_download_at_once(tmp_path, kind):
    """In a hung read or a pause; what was there is in a complete archive."""
    with HipsServer() as server:
        server.hips.fault(kind, "ra=2.5&")
        script = SCRIPT.replace("backoff=0.01", "backoff=100")
        command = [sys.executable, "-c", script, str(tmp_path), server.url, "40"]
        with imported(command) as process:
            for _ in range(1 + 39):
                assert process.stdout.readline()
            wait_for(lambda: len(server.requests) >= 40)
            process.send_signal(signal.SIGINT)
            error = process.communicate(timeout=40)[1]  # of 60, or 100
        assert "KeyboardInterrupt" in error
    assert len(ledger(tmp_path)) == 39
    assert not list(tmp_path.glob("*.part"))


def test_nothing_is_added_after_the_end(tmp_path):
    with TarSink(tmp_path) as sink:
        sink.add("1", members(1))
    sink.close()
    with pytest.raises(UserError, match="nothing can be added"):
        sink.add("2", members(2))
