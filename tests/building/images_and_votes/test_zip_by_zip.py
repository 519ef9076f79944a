"""Builds from a record: archive after archive, a few images out of remote ones, and what the network does to them."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pandas as pd
import pytest

from skyset.archives.fetch import Fetcher
from skyset.building import zips
from skyset.testing.zenodo import ZenodoServer, picture, write_zip
from tests.building.images_and_votes.builds import COUNT, differences, rejected, remote, rows, same
from tests.building.images_and_votes.zoo import ARCHIVES, RECORD, SURVEY, TABLE
from tests.processes import imported, wait_for

ONLY = ("--configs", "default")
PLAN = "skyset.building.images_and_votes.plan"


@pytest.fixture
def own_record(tmp_path, record) -> Path:
    """A copy of the record that a test may change."""
    return Path(shutil.copytree(record, tmp_path / "record"))


def in_archive(galaxies, part) -> list[str]:
    return galaxies.names[part::3]


def test_archive_after_archive(tmp_path, server, whole):
    assert remote(tmp_path, server) == 0
    assert same(rows(tmp_path), rows(whole)) and differences(tmp_path) == []
    assert same(rows(tmp_path / "rings"), rows(whole / "rings"))
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("healpix=")} - {"validation", "test"}
    assert left == {"manifest.json", "README.md", "catalogs", "archives", "rings"}
    assert all(server.downloads(name) == 1 for name in ARCHIVES)
    before = len(server.requests)
    assert remote(tmp_path, server) == 0
    assert [request.path for request in server.requests[before:] if ".zip" in request.path] == []
    assert same(rows(tmp_path), rows(whole))


def test_the_disk_holds_one_archive_at_a_time(tmp_path, server, monkeypatch):
    seen, members = [], zips.members

    def look(path):
        seen.append(sorted(each.name for each in path.parent.iterdir()))
        return members(path)

    monkeypatch.setattr(zips, "members", look)
    assert remote(tmp_path, server, *ONLY) == 0
    assert seen == [[name] for name in ARCHIVES]


def test_kept_archives_stay_and_a_damaged_partition_gets_its_archive_again(tmp_path, server, whole, capsys):
    """The archive that is fetched for it is removed again, unless it was there."""
    assert remote(tmp_path, server, *ONLY, "--keep_archives") == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()}
    assert set(kept) == set(ARCHIVES)
    for arguments in ([], ["--overwrite"]):
        assert remote(tmp_path, server, *ONLY, *arguments) == 0
        assert {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()} == kept
    assert all(server.downloads(name) == 1 for name in ARCHIVES)
    shutil.rmtree(tmp_path / "raw")
    path = next(tmp_path.rglob("healpix=*/*.hdf5"))
    with h5py.File(path) as file:
        place = file["image"].id.get_offset() + 50
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert len(differences(tmp_path)) == 1
    capsys.readouterr()
    assert remote(tmp_path, server, *ONLY) == 0
    assert "damaged since it was written" in capsys.readouterr().err
    assert same(rows(tmp_path), rows(whole)) and differences(tmp_path) == []
    assert sum(server.downloads(name) - 1 for name in ARCHIVES) >= 1
    assert not (tmp_path / "raw").exists() and not (tmp_path / ".downloads").exists()


def test_an_archive_with_another_checksum_is_built_again(tmp_path, own_record, galaxies, whole, capsys):
    own = in_archive(galaxies, 0)
    new = {name: picture(900 + k, side=8) for k, name in enumerate(own)}
    with ZenodoServer(own_record, RECORD) as server:
        assert remote(tmp_path / "out", server, *ONLY) == 0
        write_zip(own_record / ARCHIVES[0], {f"{name}.png": data for name, data in new.items()})
        for _ in range(2):
            assert remote(tmp_path / "out", server, *ONLY) == 0
            assert [server.downloads(name) for name in ARCHIVES] == [2, 1, 1]
    assert f"{ARCHIVES[0]} has another checksum than when it was built" in capsys.readouterr().err
    assert {name: row["image"] for name, row in rows(tmp_path / "out").items()} == galaxies.images | new
    assert differences(tmp_path / "out") == []


def test_cells_of_several_files_lose_no_row_of_an_earlier_archive(tmp_path, server, monkeypatch, whole):
    """Each archive brings galaxies of every cell, so that rows move from file to file."""
    monkeypatch.setattr("skyset.building.folder.MAX_FILE_BYTES", 2 * SURVEY.row_bytes)
    assert remote(tmp_path, server, *ONLY) == 0
    assert rejected(tmp_path) == {} and same(rows(tmp_path), rows(whole)) and differences(tmp_path) == []
    assert len(list(tmp_path.rglob("healpix=*/*"))) >= COUNT / 2


def test_a_few_are_read_out_of_the_remote_archives(tmp_path, server, galaxies, whole):
    """They are of two archives; the build of all takes them over, although the first archive has not all of them."""
    assert remote(tmp_path, server, "--tiny", *ONLY) == 0
    found = rows(tmp_path)
    assert len(found) == 5 and all(row["image"] == galaxies.images[name] for name, row in found.items())
    assert not found.keys() <= set(in_archive(galaxies, 0))
    assert not (tmp_path / "raw").exists() and differences(tmp_path) == []
    assert remote(tmp_path, server, *ONLY) == 0
    assert same(rows(tmp_path), rows(whole)) and rejected(tmp_path) == {}
    assert all(server.downloads(name) >= 1 for name in ARCHIVES)


def test_a_few_of_other_catalogues_are_no_reason_to_refuse_all(tmp_path, own_record, galaxies, whole):
    few = own_record / TABLE
    galaxies.rows(in_archive(galaxies, 0)).to_csv(few, index=False)
    with ZenodoServer(own_record, RECORD) as server:
        assert remote(tmp_path / "out", server, "--limit", 2, *ONLY) == 0
        galaxies.table.to_csv(few, index=False)
        assert remote(tmp_path / "out", server, *ONLY) == 0
    assert same(rows(tmp_path / "out"), rows(whole)) and differences(tmp_path / "out") == []


def test_a_limit_whose_galaxies_are_in_a_later_archive(tmp_path, own_record, galaxies, monkeypatch, capsys):
    monkeypatch.setattr(f"{PLAN}.FEW", 3)
    names = galaxies.names
    for archive, own in zip(ARCHIVES, (names[8:], names[:4], names[4:8]), strict=True):
        write_zip(own_record / archive, {f"{name}.png": galaxies.images[name] for name in own})
    with ZenodoServer(own_record, RECORD) as running:
        assert remote(tmp_path / "out", running, "--limit", 4, *ONLY) == 0
        assert rows(tmp_path / "out").keys() == set(names[:4]) and rejected(tmp_path / "out") == {}
        assert not (tmp_path / "out" / "raw").exists()
        assert remote(tmp_path / "none", running, "--limit", 4, "--archives", ARCHIVES[0], ARCHIVES[2]) == 2
        assert "none of 4 galaxies" in capsys.readouterr().err
        assert remote(tmp_path / "out", running, *ONLY) == 0  # a limit that grows
        assert all(running.downloads(name) >= 2 for name in ARCHIVES)
    assert {name: row["image"] for name, row in rows(tmp_path / "out").items()} == galaxies.images
    assert rejected(tmp_path / "out") == {}


def test_a_damaged_member_of_an_archive_stays_rejected(tmp_path, own_record, galaxies):
    own, images = in_archive(galaxies, 0), galaxies.images
    write_zip(own_record / ARCHIVES[0], {f"{n}.png": images[n][:99] if n == own[2] else images[n] for n in own})
    with ZenodoServer(own_record, RECORD) as running:
        for _ in range(2):
            assert remote(tmp_path / "out", running, *ONLY) == 1
            assert rejected(tmp_path / "out").keys() == {own[2]} and "truncated" in rejected(tmp_path / "out")[own[2]]
            assert len(rows(tmp_path / "out")) == COUNT - 1


def test_a_second_row_of_a_galaxy_does_not_cost_its_image(tmp_path, own_record, galaxies, whole):
    name = galaxies.names[0]
    pd.concat([galaxies.table, galaxies.rows([name])]).to_csv(own_record / TABLE, index=False)
    with ZenodoServer(own_record, RECORD) as running:
        for _ in range(2):
            assert remote(tmp_path / "out", running, *ONLY) == 1
            assert same(rows(tmp_path / "out"), rows(whole)) and differences(tmp_path / "out") == []
            assert rejected(tmp_path / "out").keys() == {name} and "second row" in rejected(tmp_path / "out")[name]
        assert all(running.downloads(archive) == 1 for archive in ARCHIVES)


def test_other_catalogues_do_not_cost_the_archives(tmp_path, own_record, galaxies, whole, capsys):
    with ZenodoServer(own_record, RECORD) as server:
        assert remote(tmp_path / "out", server, *ONLY) == 0
        galaxies.rows(galaxies.names[:9]).to_csv(own_record / TABLE, index=False)
        assert remote(tmp_path / "out", server, *ONLY) == 2
        assert "other catalogues" in capsys.readouterr().err
        assert same(rows(tmp_path / "out"), rows(whole))
        assert remote(tmp_path / "out", server, *ONLY, "--overwrite") == 0
    assert len(rows(tmp_path / "out")) == 9 and len(pd.read_csv(tmp_path / "out" / "unused.csv")) == COUNT - 9


# --- the network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pattern", "kind"), [(f"*{ARCHIVES[0]}*", "500"), (f"*{TABLE}*", "404"), (f"*{RECORD}", "500")])
def test_what_a_dead_server_costs_is_one_line(tmp_path, server, pattern, kind, capsys, monkeypatch):
    monkeypatch.setattr("skyset.archives.fetch.Fetcher.__init__.__defaults__", (8, 0, *Fetcher.__init__.__defaults__[2:]))
    server.fault(pattern, kind)
    assert remote(tmp_path, server, "--tiny") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("kind", ["cut", "500", "html", "wrong-checksum"])
def test_faults_of_the_network_heal(tmp_path, server, whole, kind):
    server.fault(f"*{ARCHIVES[1]}*", kind, times=2)
    status = remote(tmp_path, server, *ONLY)
    if status == 2:
        server.clear()
        status = remote(tmp_path, server, *ONLY)
    assert status == 0 and same(rows(tmp_path), rows(whole))


def test_a_wrong_checksum_is_one_line_and_keeps_what_was_done(tmp_path, server, whole, capsys):
    server.md5[ARCHIVES[2]] = "0" * 32
    assert remote(tmp_path, server, *ONLY) == 2
    error = capsys.readouterr().err
    assert ARCHIVES[2] in error and "MD5" in error and len(error.splitlines()) == 1
    server.md5.clear()
    assert remote(tmp_path, server, *ONLY) == 0
    assert server.downloads(ARCHIVES[0]) == 1 and same(rows(tmp_path), rows(whole))


def test_the_number_of_all_versions_leads_to_the_newest(tmp_path, server):
    assert remote(tmp_path, server, "--tiny", "--record", RECORD - 1) == 0
    assert len(rows(tmp_path)) == 5


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b'{"files": [{"key": "../x"}]}', b'{"files": 3}'])
def test_an_answer_that_is_no_record(tmp_path, server, monkeypatch, capsys, answer):
    monkeypatch.setattr(server, "answer_record", lambda: answer)
    assert remote(tmp_path, server) == 2
    error = capsys.readouterr().err
    assert "Zenodo's API" in error or "has no" in error
    assert len(error.splitlines()) == 1


def test_no_such_record_or_file(tmp_path, server, capsys):
    assert remote(tmp_path, server, "--record", 1) == 2
    assert "cannot get record 1" in capsys.readouterr().err
    assert remote(tmp_path, server, "--archives", "d.zip") == 2
    assert "record 77 has no d.zip (it has a.zip, b.zip, c.zip, votes.csv)" in capsys.readouterr().err


# --- kills --------------------------------------------------------------------------------------------------


def start(root, server, *arguments):
    command = [sys.executable, "-m", "tests.building.images_and_votes.zoo", "-o", str(root), "--num_processes", "1"]
    options = {"start_new_session": True, "cwd": Path(__file__).parents[3]}
    return imported([*command, "--api_url", server.api_url, *ONLY, *arguments], **options)


@pytest.mark.slow
def test_a_second_build_in_the_folder_is_refused(tmp_path, server, whole):
    process = start(tmp_path, server)
    wait_for((tmp_path / "journal.jsonl").exists)
    statuses = {remote(tmp_path, server, *ONLY) for _ in range(2)}
    process.communicate(timeout=120)
    assert statuses <= {0, 2}
    assert remote(tmp_path, server, *ONLY) == 0 and same(rows(tmp_path), rows(whole))


@pytest.mark.slow
def test_a_build_killed_at_random_moments_has_every_galaxy_once(record, whole, tmp_path):
    """From its first request on: before that, Python starts."""
    dice, kills, root = random.Random(5), int(os.environ.get("SKYSET_KILLS", "2")), tmp_path / "out"
    with ZenodoServer(record, RECORD, latency=0.02) as running:
        for turn in range(kills + 1):
            process, asked = start(root, running), len(running.requests)
            try:
                if turn == kills:
                    process.wait(120)
                else:
                    wait_for(lambda asked=asked: len(running.requests) > asked)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(dice.uniform(0.0, 1.0))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                _, err = process.communicate(timeout=60)
            assert process.returncode in ((0,) if turn == kills else (0, -signal.SIGKILL)), err
    assert same(rows(root), rows(whole))
    assert (differences(root), rejected(root)) == ([], {})
    assert not (root / "raw").exists() and not list(root.rglob("*.tmp"))


def test_ctrl_c_is_one_line_and_goes_on(record, whole, tmp_path):
    with ZenodoServer(record, RECORD) as running:
        running.fault(ARCHIVES[1], "hang", times=1)
        process = start(tmp_path, running)
        wait_for(lambda: running.downloads(ARCHIVES[1]))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130 and len(err.splitlines()) == 1 and "goes on from here" in err
        assert remote(tmp_path, running, *ONLY) == 0
        assert running.downloads(ARCHIVES[0]) == 1
    assert same(rows(tmp_path), rows(whole))
