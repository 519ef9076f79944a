"""What a user may rely on when a build meets trouble: one clear line, the right exit status, nothing lost, nothing twice."""

import contextlib
import gzip
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace

import h5py
import psutil
import pytest

from skyset.archives.fetch import Fetcher
from skyset.build_scripts.gz3d import build_parent_sample
from skyset.build_scripts.gz3d.targets import file_key
from skyset.building import build as build_module
from skyset.building import folder as folder_module
from skyset.building import options as options_module
from skyset.errors import UserError
from skyset.partitions.manifest import Manifest
from skyset.runner import InlineExecutor, executor
from skyset.testing.gz3d import METADATA_NAME, write_checksums
from skyset.testing.server import KINDS, ArchiveServer
from tests.building.conftest import COUNT
from tests.builds import build, differences, files, leftovers, link, rejected, rows, start
from tests.processes import broken, die, fail, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    """The same objects, built from the folder without any trouble."""
    root = tmp_path_factory.mktemp("undisturbed")
    assert build(root, "--local_data_path", small) == 0
    return root


@pytest.fixture
def server(archive):
    with ArchiveServer(archive) as server:
        yield server


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Downloads that try again at once, so that faults take no time."""

    def quick(max_connections):
        return Fetcher(max_connections, backoff=0.01, timeout=(10, 2), min_rate=5000, stall_seconds=1)

    monkeypatch.setattr(build_module, "Fetcher", quick)


def names(folder):
    """Names of the galaxies' files in the order of the table: the order in which they were drawn."""
    return sorted((path.name for path in folder.glob("*.fits.gz")), key=lambda name: int(name.split("_")[2].split(".")[0]))


def downloads(server):
    return [request.path[1:] for request in server.requests if request.path.endswith(".fits.gz")]


def error_line(capsys):
    """The only line on stderr, without its ``skyset: ``."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("skyset: ")
    return lines[0].removeprefix("skyset: ")


# --- from the network ---------------------------------------------------------------------------------------


def test_network_and_folder_give_the_same_partitions(tmp_path, small, undisturbed, capsys):
    with ArchiveServer(small) as server:
        assert build(tmp_path / "out", "--base_url", server.url.rstrip("/")) == 0
        assert sorted(downloads(server)) == sorted(names(small))
    assert files(tmp_path / "out") == files(undisturbed)
    assert differences(tmp_path / "out") == leftovers(tmp_path / "out") == []
    captured = capsys.readouterr()
    assert captured.out.startswith(f"gz3d: {COUNT} rows in 2 partitions (19.3 MB) in ")
    assert captured.err == "", "no progress bar where there is no terminal"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["sources"] == [server.url]
    assert manifest["build"]["command"][1:3] == ["-o", str(tmp_path / "out")]
    assert set(manifest["build"]["versions"]) >= {"python", "skyset", "numpy", "astropy", "h5py"}


def test_a_finished_build_downloads_nothing_again_and_changes_nothing(tmp_path, small):
    with ArchiveServer(small) as server:
        build(tmp_path, "--base_url", server.url)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.hdf5")}
        server.requests.clear()
        assert build(tmp_path, "--base_url", server.url) == 0
        assert downloads(server) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.hdf5")} == before


@pytest.mark.parametrize("kind", KINDS)
def test_two_faults_a_file_are_overcome(tmp_path, small, undisturbed, kind):
    """Two in a row, as they come; those that the archive means (404) or that come back as a whole file name the object."""
    arguments = ["--limit", 3, "--base_url"]
    with ArchiveServer(small) as server:
        bad = names(small)[1]
        server.fault(bad, kind, times=2, retry_after=0 if kind == "429" else None)
        status = build(tmp_path, *arguments, server.url)
        if kind in ("404", "html", "truncated", "wrong-checksum"):
            assert status == 1
            assert list(rejected(tmp_path)) == [bad] and len(rows(tmp_path)) == 2
            assert rejected(tmp_path)[bad].startswith("download failed: ")
            server.clear()
            status = build(tmp_path, *arguments, server.url)  # the archive is well again
            assert set(downloads(server)) == {bad}
        assert status == 0
    assert rejected(tmp_path) == {}
    expected = rows(undisturbed)
    assert rows(tmp_path) == {key: expected[key] for key in map(file_key, names(small)[:3])}
    assert differences(tmp_path) == leftovers(tmp_path) == []


def test_chaos(tmp_path, small, undisturbed):
    with ArchiveServer(small) as server:
        server.chaos(1, 0.3, [kind for kind in KINDS if kind != "drip"])
        for _ in range(12):
            status = build(tmp_path, "--base_url", server.url)
            assert rows(tmp_path).items() <= rows(undisturbed).items()
            if status == 0:
                break
            if status == 1:
                missing = set(rows(undisturbed)) - set(rows(tmp_path))
                assert {file_key(name) for name in rejected(tmp_path)} == missing
    assert status == 0
    assert files(tmp_path) == files(undisturbed)
    assert differences(tmp_path) == leftovers(tmp_path) == []


def test_unreachable_server(tmp_path, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert build(tmp_path, "--base_url", url) == 2
    assert error_line(capsys).startswith(f"{url}/manga_morphology_galaxyzoo3d_v4_0_0.sha1sum: ")
    assert os.listdir(tmp_path) == []


def test_archive_without_checksums_is_listed(tmp_path, small, undisturbed, capsys):
    source = link(small, tmp_path / "source")
    next(source.glob("*.sha1sum")).unlink()
    with ArchiveServer(source) as server:
        assert build(tmp_path / "out", "--base_url", server.url) == 0
    assert rows(tmp_path / "out") == rows(undisturbed)
    assert "downloads can be checked by their length only" in capsys.readouterr().err


def test_table_and_files_that_do_not_match(tmp_path, archive):
    """The table lists 24, the archive has two of them, one under two names, and one that the table does not know."""
    first, second = names(archive)[:2]
    source = link(archive, tmp_path / "source", {METADATA_NAME, first, second})
    shutil.copy(archive / first, source / f"gz3d_{first}")
    shutil.copy(archive / second, source / "1-1_19_7.fits.gz")
    write_checksums(source, list(source.iterdir()))
    with ArchiveServer(source) as server:
        assert build(tmp_path / "out", "--base_url", server.url) == 1
    found = rejected(tmp_path / "out")
    assert found.pop("1-1_19_7.fits.gz") == f"not in {METADATA_NAME}: its position is not known"
    assert found.pop(f"gz3d_{first}") == f"duplicate of {first}"
    assert set(found) == {file_key(name) for name in names(archive)[2:]}
    assert set(found.values()) == {f"in {METADATA_NAME}, but the archive has no such file"}
    assert set(rows(tmp_path / "out")) == {file_key(first), file_key(second)}


def test_names_that_a_url_must_quote(tmp_path, archive):
    source = link(archive, tmp_path / "source", {METADATA_NAME})
    name = names(archive)[0]
    shutil.copy(archive / name, source / name)
    weird = f"#50%20 {name}"
    shutil.copy(archive / name, source / weird)
    write_checksums(source, list(source.iterdir()))
    with ArchiveServer(source) as server:
        build(tmp_path / "out", "--base_url", server.url, "--limit", 1)
        with Fetcher() as fetcher:
            assert fetcher.fetch(server.url + build_module.quote(weird), tmp_path / "x").stat().st_size
    assert set(rows(tmp_path / "out")) == {file_key(name)}


# --- how much, and what is kept -----------------------------------------------------------------------------


def test_tiny_then_more_downloads_only_what_is_new(tmp_path, server, archive):
    assert build(tmp_path, "--base_url", server.url, "--tiny") == 0
    assert sorted(downloads(server)) == sorted(names(archive)[:5])
    first = rows(tmp_path)
    assert set(first) == {file_key(name) for name in names(archive)[:5]}
    server.requests.clear()
    assert build(tmp_path, "--base_url", server.url, "--limit", 12) == 0
    assert sorted(downloads(server)) == sorted(names(archive)[5:12])
    assert first.items() <= rows(tmp_path).items()
    assert set(rows(tmp_path)) == {file_key(name) for name in names(archive)[:12]}
    assert differences(tmp_path) == leftovers(tmp_path) == []


def test_a_cell_that_grows_keeps_its_rows_without_their_files(tmp_path, small, undisturbed):
    with ArchiveServer(small) as server:
        assert build(tmp_path, "--base_url", server.url, "--limit", 3) == 0
        server.requests.clear()
        assert build(tmp_path, "--base_url", server.url) == 0
        assert sorted(downloads(server)) == sorted(names(small)[3:])
    assert files(tmp_path) == files(undisturbed)


def test_a_smaller_selection_is_refused_unless_asked_for(tmp_path, small, capsys):
    build(tmp_path, "--local_data_path", small)
    before = files(tmp_path)
    capsys.readouterr()
    assert build(tmp_path, "--local_data_path", small, "--tiny") == 2
    assert error_line(capsys) == (
        f"{tmp_path} holds 5 objects that this selection leaves out: choose another folder, or --overwrite to drop them"
    )
    assert files(tmp_path) == before and differences(tmp_path) == []
    assert build(tmp_path, "--local_data_path", small, "--tiny", "--overwrite") == 0
    assert set(rows(tmp_path)) == {file_key(name) for name in names(small)[:5]}
    assert differences(tmp_path) == leftovers(tmp_path) == []


def test_another_compression_is_refused_unless_asked_for(tmp_path, small, undisturbed, capsys):
    build(tmp_path, "--local_data_path", small, "--compression", "gzip")
    before = files(tmp_path)
    capsys.readouterr()
    assert build(tmp_path, "--local_data_path", small) == 2
    assert error_line(capsys).startswith(
        f"{tmp_path} was built with --compression gzip: use the same, another folder, or --ov"
    )
    assert files(tmp_path) == before
    assert rows(tmp_path) == rows(undisturbed)
    assert build(tmp_path, "--local_data_path", small, "--overwrite") == 0
    assert files(tmp_path) == files(undisturbed)


def test_one_file_an_object_and_back_only_if_asked_for(tmp_path, small, undisturbed, capsys):
    for arguments, holds in ([], "a file per cell"), (["--files_per_object"], "a file per object"):
        assert build(tmp_path, "--local_data_path", small, "--overwrite", *arguments) == 0
        before = files(tmp_path)
        capsys.readouterr()
        other = [] if arguments else ["--files_per_object"]
        assert build(tmp_path, "--local_data_path", small, *other) == 2
        how = "with" if arguments else "without"
        assert error_line(capsys) == (
            f"{tmp_path} holds {holds}: build {how} --files_per_object, choose another folder, or --overwrite"
        )
        assert files(tmp_path) == before and rows(tmp_path) == rows(undisturbed)
    assert {path.stem for path in tmp_path.rglob("*.hdf5")} == set(rows(undisturbed))
    assert build(tmp_path, "--local_data_path", small, "--overwrite") == 0
    assert files(tmp_path) == files(undisturbed)
    assert differences(tmp_path) == leftovers(tmp_path) == []


def test_a_large_cell_is_cut_into_files(tmp_path, small, undisturbed, monkeypatch):
    monkeypatch.setattr(folder_module, "MAX_FILE_BYTES", 2 * build_parent_sample.SURVEY.row_bytes)
    assert build(tmp_path, "--local_data_path", small) == 0
    assert sorted(path.name for path in tmp_path.rglob("*.hdf5")) == sorted(
        ["001-of-003.hdf5", "002-of-003.hdf5", "003-of-003.hdf5"] * 2
    )
    assert rows(tmp_path) == rows(undisturbed) and differences(tmp_path) == []


@pytest.mark.parametrize("source", ["network", "folder"])
def test_vote_fraction_cut(tmp_path, small, undisturbed, source):
    with ArchiveServer(small) as server:
        where = ["--base_url", server.url] if source == "network" else ["--local_data_path", small]
        assert build(tmp_path, *where, "--vote_fraction_cut", 0.5) == 0
    fractions = {}
    for path in undisturbed.rglob("*.hdf5"):
        with h5py.File(path) as file:
            keys = file["file_name"][:].astype(str).tolist()
            fractions.update(zip(keys, file["vote_fraction"][:, 2:].max(axis=1).tolist(), strict=True))
    assert set(rows(tmp_path)) == {key for key, fraction in fractions.items() if fraction >= 0.5}
    assert 0 < len(rows(tmp_path)) < COUNT


def test_a_cut_that_nothing_passes(tmp_path, small, capsys):
    assert build(tmp_path, "--local_data_path", small, "--vote_fraction_cut", 1.5) == 2
    assert error_line(capsys) == "nothing to build: no galaxy passes --vote_fraction_cut 1.5"


def test_keep_fits(tmp_path, small):
    with ArchiveServer(small) as server:
        assert build(tmp_path, "--base_url", server.url, "--keep_fits") == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()}
    assert kept == {name: (small / name).read_bytes() for name in names(small)}


def test_files_are_deleted_only_after_their_partition_is_there_and_read_back(tmp_path, small, monkeypatch):
    intact, seen = os.replace, []

    def watched(source, target):
        if str(target).endswith(".hdf5"):
            raw = {file_key(path.name) for path in (tmp_path / "raw").iterdir()}
            with h5py.File(source) as file:
                keys = set(file["file_name"][:].astype(str).tolist())
            seen.append(keys <= raw)
        intact(source, target)

    monkeypatch.setattr(os, "replace", watched)
    with ArchiveServer(small) as server:
        assert build(tmp_path, "--base_url", server.url) == 0
    assert seen == [True, True]
    assert not (tmp_path / "raw").exists()


def test_a_partition_that_reads_back_wrong_keeps_its_files(tmp_path, small, monkeypatch, capsys):
    with monkeypatch.context() as patch, ArchiveServer(small) as server:
        never_twice = SimpleNamespace(crc32=lambda data, start=0: start + 1 + time.monotonic_ns())
        patch.setattr("skyset.partitions.writer.isal_zlib", never_twice)
        assert build(tmp_path, "--base_url", server.url, "--tiny") == 2
    assert "reads back otherwise than it was written" in error_line(capsys)
    assert {path.name for path in (tmp_path / "raw").iterdir()} == set(names(small)[:5])
    assert list(tmp_path.rglob("*.hdf5")) == []


def test_local_files_are_never_deleted(tmp_path, archive):
    source = link(archive, tmp_path / "source", names(archive)[:2])
    before = sorted(os.listdir(source))
    assert build(tmp_path / "out", "--local_data_path", source) == 0
    assert sorted(os.listdir(source)) == before


# --- what an earlier build left -----------------------------------------------------------------------------


def test_a_partition_of_another_size_or_gone_is_built_again(tmp_path, small, undisturbed):
    build(tmp_path, "--local_data_path", small)
    first, second = sorted(tmp_path.rglob("*.hdf5"))
    first.write_bytes(first.read_bytes()[:5000])
    second.unlink()
    assert build(tmp_path, "--local_data_path", small) == 0
    assert files(tmp_path) == files(undisturbed)


def spoil(path, keep_times=False):
    """Flip a byte of the pixels; the size stays."""
    times = path.stat()
    with h5py.File(path) as file:
        data = file["false_color"]
        place = (data.id.get_offset() if data.chunks is None else data.id.get_chunk_info(0).byte_offset) + 100
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    if keep_times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(("compression", "grows"), [("none", False), ("none", True), ("gzip", True)])
def test_a_damaged_partition_of_the_same_size_is_built_again(tmp_path, small, undisturbed, capsys, compression, grows):
    """None of its rows is taken over, also not where others are added."""
    with ArchiveServer(small) as server:
        arguments = ["--base_url", server.url, "--compression", compression]
        build(tmp_path, *arguments, "--limit", 2)
        (path,) = tmp_path.rglob("*.hdf5")
        spoil(path, keep_times=True)
        assert [line.split(":")[0] for line in differences(tmp_path)][:1] == [path.relative_to(tmp_path).as_posix()]
        server.requests.clear()
        capsys.readouterr()
        assert build(tmp_path, *arguments, "--limit", 4 if grows else 2) == 0
        said = "damaged since it was written (its SHA-256 is another one): built again"
        assert capsys.readouterr().err == f"{path.relative_to(tmp_path)}: {said}\n"
        assert sorted(downloads(server)) == sorted(names(small)[: 4 if grows else 2])
    assert differences(tmp_path) == []
    assert rows(tmp_path).items() <= rows(undisturbed).items() and len(rows(tmp_path)) == (4 if grows else 2)


def test_damage_that_left_no_time_is_found_by_recheck(tmp_path, small, undisturbed):
    """As a failing disk does it: here the manifest is younger than the damage."""
    build(tmp_path, "--local_data_path", small)
    path = next(tmp_path.rglob("*.hdf5"))
    spoil(path)
    time.sleep(0.02)
    os.utime(tmp_path / "manifest.json")
    assert build(tmp_path, "--local_data_path", small) == 0
    assert len(differences(tmp_path)) == 1
    assert build(tmp_path, "--local_data_path", small, "--recheck") == 0
    assert differences(tmp_path) == [] and files(tmp_path) == files(undisturbed)


def test_a_manifest_that_lies_is_mended_by_recheck(tmp_path, small, undisturbed):
    build(tmp_path, "--local_data_path", small)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"][0]["ra"] = [1.0, 2.0]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert len(differences(tmp_path)) == 1
    assert build(tmp_path, "--local_data_path", small, "--recheck") == 0
    assert differences(tmp_path) == [] and files(tmp_path) == files(undisturbed)


def test_a_killed_build_checks_what_its_journal_says(tmp_path, small, undisturbed):
    build(tmp_path, "--local_data_path", small)
    entries = json.loads((tmp_path / "manifest.json").read_text())["files"]
    (tmp_path / "manifest.json").unlink()
    lines = []
    for entry in entries:
        status = (tmp_path / entry["path"]).stat()
        lines.append({"compression": "none", "entry": entry, "stamp": [status.st_mtime_ns, status.st_ctime_ns]})
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spoil(tmp_path / entries[0]["path"], keep_times=True)
    kept = (tmp_path / entries[1]["path"]).stat().st_ino
    assert build(tmp_path, "--local_data_path", small) == 0
    assert files(tmp_path) == files(undisturbed)
    assert (tmp_path / entries[1]["path"]).stat().st_ino == kept


def test_a_file_that_changes_while_the_build_runs_is_not_signed(tmp_path, small, capsys, monkeypatch):
    build(tmp_path, "--local_data_path", small, "--limit", 3)
    (first,) = tmp_path.rglob("*.hdf5")
    intact = folder_module.BuildFolder.plan

    def plan(self, *arguments):
        tasks = intact(self, *arguments)
        if not tasks:
            spoil(first)
        return tasks

    monkeypatch.setattr(folder_module.BuildFolder, "plan", plan)
    capsys.readouterr()
    assert build(tmp_path, "--local_data_path", small, "--limit", 3) == 2
    assert "damaged since it was written (its SHA-256 is another one) while the build ran" in error_line(capsys)
    monkeypatch.undo()
    assert build(tmp_path, "--local_data_path", small, "--limit", 3) == 0
    assert differences(tmp_path) == []


def test_files_whose_checksum_changed_in_the_archives_list_are_built_again(tmp_path, small, archive):
    source = link(small, tmp_path / "source")
    changed = names(small)[0]
    with ArchiveServer(source) as server:
        assert build(tmp_path / "out", "--base_url", server.url) == 0
        before = rows(tmp_path / "out")
        content = (archive / changed).read_bytes()
        (source / changed).unlink()
        (source / changed).write_bytes(content + gzip.compress(b""))  # the same object, other bytes
        next(source.glob("*.sha1sum")).unlink()
        write_checksums(source, list(source.iterdir()))
        server.requests.clear()
        times = {path: path.stat().st_ino for path in tmp_path.rglob("*.hdf5")}
        assert build(tmp_path / "out", "--base_url", server.url) == 0
        assert downloads(server) == [changed], "the other rows of its cell are taken over"
        assert sum(path.stat().st_ino == inode for path, inode in times.items()) == 1
        server.requests.clear()
        assert build(tmp_path / "out", "--base_url", server.url) == 0
        assert downloads(server) == []
    assert rows(tmp_path / "out") == before and differences(tmp_path / "out") == []


def test_a_partition_of_which_nothing_can_be_saved_is_not_listed(tmp_path, small):
    """It is damaged, and the archive gives none of its objects."""
    with ArchiveServer(small) as server:
        arguments = ["--base_url", server.url, "--limit"]
        build(tmp_path, *arguments, 1)
        (path,) = tmp_path.rglob("*.hdf5")
        spoil(path)
        for name in names(small)[:2]:
            server.fault(name, "404", times=9)
        assert build(tmp_path, *arguments, 2) == 1
    assert Manifest.load(tmp_path).files == []
    assert differences(tmp_path) == leftovers(tmp_path) == []
    assert set(rejected(tmp_path)) == set(names(small)[:2])


# --- what is the user's -------------------------------------------------------------------------------------


def test_kept_files_stay_whatever_is_built_later(tmp_path, small):
    """With --keep_fits, then without; by another layout too."""
    with ArchiveServer(small) as server:
        arguments = ["--base_url", server.url]
        assert build(tmp_path, *arguments, "--keep_fits", "--limit", 2) == 0
        kept = {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()}
        assert set(kept) == set(names(small)[:2])
        for more in ([], ["--overwrite"], ["--overwrite", "--files_per_object"]):
            assert build(tmp_path, *arguments, "--limit", 3, *more) == 0
            assert {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()} == kept
        server.requests.clear()
        assert build(tmp_path, *arguments, "--limit", 3, "--overwrite") == 0
        assert downloads(server) == [names(small)[2]]


@pytest.mark.parametrize("keep", [False, True])
def test_what_a_killed_build_downloaded_is_removed_by_the_next_one_unless_it_keeps(tmp_path, small, keep):
    theirs = names(small)[0]
    (tmp_path / "raw").mkdir()
    shutil.copy(small / theirs, tmp_path / "raw" / theirs)
    with ArchiveServer(small, latency=0.1) as server:
        process = start(tmp_path, "--base_url", server.url, "--max_connections", 2, processes=1)
        wait_for(lambda: len(list((tmp_path / "raw").glob("*.gz"))) >= 3)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        left = {path.name for path in (tmp_path / "raw").glob("*.gz")}
        assert len(left) > 1
        server.latency = 0
        assert build(tmp_path, "--base_url", server.url, *(["--keep_fits"] if keep else [])) == 0
    after = {path.name for path in (tmp_path / "raw").iterdir()}
    assert after == (set(names(small)) if keep else {theirs})
    assert not (tmp_path / ".downloads").exists()


FOREIGN = [
    ("healpix=1750/001-of-001.hdf5", b"of MultimodalUniverse", "not built by gz3d"),
    ("healpix=7/mine.hdf5", b"mine", "not built by gz3d"),
    ("rejected.csv", b"name,why\n1,2\n", "is not a build's, and would be replaced"),
    ("journal.jsonl", b'{"mine": 1}\n', "is not a build's"),
    ("journal.jsonl", b"dear diary\n", "is not a build's"),
    ("manifest.json", b'{"name": "a web application"}', "is damaged"),
]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("name", "content", "said"), FOREIGN, ids=lambda value: str(value)[:30])
def test_files_of_somebody_else_are_not_replaced_nor_removed(tmp_path, small, capsys, name, content, said, overwrite):
    for path, text in ((name, content), ("notes.txt", b"mine"), (".hidden.tmp", b"mine"), ("healpix=9/x.fits", b"mine")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(text)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert build(tmp_path, "--local_data_path", small, *(["--overwrite"] if overwrite else [])) == 2
    assert said in error_line(capsys)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / name).unlink()
    assert build(tmp_path, "--local_data_path", small, "--limit", 1) == 0
    assert all(path.read_bytes() == text for path, text in before.items() if path != tmp_path / name)


def test_copies_that_somebody_put_among_the_partitions_stay(tmp_path, small, undisturbed, capsys):
    source, output = small, tmp_path / "out"
    shutil.copytree(undisturbed, output)
    first = sorted(output.glob("healpix=*/*.hdf5"))[0]
    mine = [first.with_name("backup.hdf5"), output / "healpix=5" / "mycopy.hdf5"]
    superseded = [first.with_name("001-of-003.hdf5"), first.with_name("001-of-001.0123abcd.hdf5")]  # of killed builds
    mine[1].parent.mkdir()
    for path in (*mine, *superseded):
        shutil.copy(first, path)
    for options in ((), ("--overwrite",)):
        capsys.readouterr()
        assert build(output, "--local_data_path", source, *options) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "left alone" in line]
        there = ", ".join(sorted(path.relative_to(output).as_posix() for path in mine))
        assert said == [f"not of this build, left alone: {there}"]
        assert all(path.exists() for path in mine) and not any(path.exists() for path in superseded)
        assert len(differences(output)) == 2 and all("mycopy" in d or "backup" in d for d in differences(output))


@pytest.mark.parametrize("listed", [True, False])
def test_a_pipe_in_the_place_of_a_partition_stays(tmp_path, small, undisturbed, capsys, listed):
    output = shutil.copytree(undisturbed, tmp_path / "out")
    pipe = sorted(output.glob("healpix=*/*.hdf5"))[0]
    kept = pipe.rename(tmp_path / "moved.hdf5")
    pipe.symlink_to(kept)  # a partition that lies on another disk
    assert build(output, "--local_data_path", small, "--recheck") == 0 and pipe.is_symlink()
    spoil(kept)
    assert build(output, "--local_data_path", small) == 0 and pipe.is_symlink() and differences(output) == []
    pipe.unlink()
    os.mkfifo(pipe)
    if not listed:
        (output / "manifest.json").unlink()
    capsys.readouterr()
    assert build(output, "--local_data_path", small) == 2
    assert ("no regular file" if listed else "not built by gz3d") in capsys.readouterr().err
    assert pipe.is_fifo()


def test_partitions_do_not_go_among_the_archives_files(tmp_path, small, capsys):
    source = link(small, tmp_path / "source")
    before = sorted(os.listdir(source))
    (tmp_path / "link").symlink_to(source)
    assert build(tmp_path / "link", "--local_data_path", source) == 2
    assert error_line(capsys) == f"{tmp_path / 'link'} holds the archive's files: choose another folder for the partitions"
    assert sorted(os.listdir(source)) == before


def test_a_partition_whose_objects_are_all_rejected_now_is_gone(tmp_path, small):
    source = link(small, tmp_path / "source")
    out = tmp_path / "out"
    build(out, "--local_data_path", source)
    for name in names(small)[5:]:
        (source / name).unlink()
        (source / name).write_bytes(b"")
    assert build(out, "--local_data_path", source) == 0, "what is there is complete and is not read again"
    assert build(out, "--local_data_path", source, "--overwrite") == 1
    assert set(rows(out)) == {file_key(name) for name in names(small)[:5]}
    assert set(rejected(out)) == set(names(small)[5:])
    assert differences(out) == leftovers(out) == []
    assert not any(path.is_dir() and not any(path.iterdir()) for path in out.iterdir()), "empty folders are removed"


def test_a_journal_that_was_cut_and_temporary_files(tmp_path, small, undisturbed):
    build(tmp_path, "--local_data_path", small)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").unlink()
    lines = [json.dumps({"compression": "none", "entry": entry}) for entry in manifest["files"]]
    (tmp_path / "journal.jsonl").write_text(lines[0] + "\n" + lines[1][: len(lines[1]) // 2])
    (tmp_path / ".manifest.json.1.tmp").write_text("half")
    next(tmp_path.glob("healpix=*")).joinpath(".001-of-001.hdf5.7.tmp").write_bytes(b"half")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.hdf5")}
    assert build(tmp_path, "--local_data_path", small) == 0
    assert files(tmp_path) == files(undisturbed)
    assert leftovers(tmp_path) == []
    assert sum(path.stat().st_mtime_ns == before for path, before in times.items()) == 1, "the journal's first line held"


def test_two_builds_in_one_folder(tmp_path, small, capsys):
    """The second is refused, and does not take the first one's lock or journal away."""
    options = options_module.Options(tmp_path, small)
    with folder_module.BuildFolder(tmp_path, build_parent_sample.SURVEY, options):
        for _ in range(2):
            assert build(tmp_path, "--local_data_path", small) == 2
            assert error_line(capsys) == f"another build is running in {tmp_path}"
            assert (tmp_path / "journal.jsonl").exists()
    assert os.listdir(tmp_path) == []
    assert build(tmp_path, "--local_data_path", small, "--tiny") == 0


def test_folder_of_another_survey(tmp_path, small, capsys):
    build(tmp_path, "--local_data_path", small, "--tiny")
    manifest = Manifest.load(tmp_path)
    manifest.survey = "sdss"
    manifest.save(tmp_path)
    capsys.readouterr()
    assert build(tmp_path, "--local_data_path", small) == 2
    assert error_line(capsys) == f"{tmp_path} holds sdss: choose another folder, or --overwrite"


def test_strict_stops_at_the_first(tmp_path, small, capsys):
    source = link(small, tmp_path / "source")
    bad = names(small)[2]
    (source / bad).unlink()
    (source / bad).write_bytes(b"")
    out = tmp_path / "out"
    assert build(out, "--local_data_path", source, "--strict") == 2
    assert error_line(capsys) == f"{source / bad}: not a gzip file (it is empty) (--strict stops at the first)"
    assert not (out / "manifest.json").exists()
    assert list(rejected(out)) == [bad]
    assert build(out, "--local_data_path", source) == 1
    assert len(rows(out)) == COUNT - 1


# --- what the user got wrong --------------------------------------------------------------------------------


def test_missing_and_empty_source_folders(tmp_path, capsys):
    assert build(tmp_path / "out", "--local_data_path", tmp_path / "nowhere") == 2
    assert error_line(capsys) == f"--local_data_path {tmp_path / 'nowhere'} is not a folder"
    (tmp_path / "empty").mkdir()
    assert build(tmp_path / "out", "--local_data_path", tmp_path / "empty") == 2
    assert error_line(capsys) == f"no *.fits.gz in {tmp_path / 'empty'}"
    assert list((tmp_path / "out").iterdir()) == []


def test_output_that_is_a_file_or_lies_in_one(tmp_path, small, capsys):
    (tmp_path / "file").write_text("")
    assert build(tmp_path / "file", "--local_data_path", small) == 2
    assert error_line(capsys) == f"{tmp_path / 'file'} is not a folder"
    assert build(tmp_path / "file" / "out", "--local_data_path", small) == 2
    assert error_line(capsys) == f"{tmp_path / 'file' / 'out'}: Not a directory"


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize("existing", [False, True])
def test_output_that_may_not_be_written(tmp_path, small, existing):
    """As root everything may be written, so another user tries."""
    for folder in tmp_path.parents[:3]:
        folder.chmod(0o755)
    tmp_path.chmod(0o755)
    if existing:
        build(tmp_path / "out", "--local_data_path", small, "--tiny")
    command = (
        "import os, sys\n"
        "from skyset.build_scripts.gz3d.build_parent_sample import main\n"
        "os.setuid(65534)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["-o", str(tmp_path / "out"), "--local_data_path", str(small)]
    done = subprocess.run([sys.executable, "-c", command, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(f"skyset: no permission for {tmp_path / 'out'}")


@pytest.mark.parametrize(("option", "value"), [("--limit", "0"), ("--num_processes", "-1"), ("--compression", "zip")])
def test_options_that_cannot_be(tmp_path, option, value):
    with pytest.raises(SystemExit) as info:
        build(tmp_path, option, value)
    assert info.value.code == 2


# --- a full disk --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no small disk can be mounted: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("source", "compression", "processes"),
    [("network", "none", 2), ("folder", "gzip", 1)],
)
def test_full_disk(tmp_path, small, undisturbed, source, compression, processes):
    """One line; what was complete stays; the same command goes on when there is room."""
    megabytes = {"none": 14, "gzip": 3}[compression]
    with ArchiveServer(small) as server, small_disk(tmp_path / "disk", f"{megabytes}m") as disk:
        where = ["--base_url", server.url] if source == "network" else ["--local_data_path", small]
        arguments = [disk / "out", *where, "--compression", compression]
        process = start(*arguments, processes=processes)
        out, err = process.communicate(timeout=60)
        line = f"no space left on the disk of {disk / 'out'}: free some and run the same command again, it goes on from here"
        assert (process.returncode, err.splitlines(), out) == (2, [f"skyset: {line}"], "")
        assert list((disk / "out").rglob("*.tmp")) == []
        complete = rows(disk / "out")
        assert complete.items() <= rows(undisturbed).items()
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert build(*arguments) == 0
        assert rows(disk / "out") == rows(undisturbed)
        assert differences(disk / "out") == leftovers(disk / "out") == []


# --- Ctrl-C -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("moment", "processes"), [("downloading", 1), ("workers start", 2), ("half done", 2)])
def test_ctrl_c(tmp_path, small, undisturbed, processes, moment):
    """As a terminal sends it: to all processes at once. One line, nobody stays behind, and it goes on."""
    with ArchiveServer(small) as server:
        server.fault(names(small)[-1], "hang")  # in the second of two cells: it never comes to its end
        arguments = [tmp_path, "--base_url", server.url, "--max_connections", 2]
        process = start(*arguments, processes=processes)
        family = psutil.Process(process.pid)
        if moment == "downloading":
            wait_for(lambda: len(downloads(server)) >= 2)
        elif moment == "workers start":
            wait_for(lambda: any("spawn_main" in " ".join(child.cmdline()) for child in family.children()))
        else:
            wait_for(lambda: any(tmp_path.rglob("*.hdf5")))
        family = family.children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err.splitlines(), out) == (
            130,
            ["skyset: interrupted; the same command goes on from here"],
            "",
        )
        assert psutil.wait_procs(family, timeout=30)[1] == []
        server.clear()
        assert build(*arguments) == 0
    assert files(tmp_path) == files(undisturbed)
    assert differences(tmp_path) == leftovers(tmp_path) == []


# --- where it runs ------------------------------------------------------------------------------------------


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("processes", [1, 2])
def test_results_and_errors_come_back_from_where_it_ran(processes):
    with executor(processes) as pool:
        assert list(pool.map(pow, [2, 3], [5, 2])) == [32, 9]
        assert pool.submit(os.getpid).result() == os.getpid() or processes > 1
        for kind in (ValueError, OSError, ZeroDivisionError):
            with pytest.raises(kind, match="this went wrong"):
                pool.submit(fail, kind).result()


def test_ctrl_c_is_not_taken_for_a_result():
    with pytest.raises(KeyboardInterrupt):
        InlineExecutor().submit(interrupt)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("victim", [0, 1], ids=["first", "second"])
def test_a_worker_killed_while_the_pool_ends_does_not_leave_it_waiting(victim):
    """One of two idle workers holds the lock of the queue by which both are told to end."""
    with executor(2) as pool:
        assert list(pool.map(pow, [2, 3], [5, 2])) == [32, 9]
        killed, other = sorted((w.pid for w in multiprocessing.active_children()), reverse=victim)
        time.sleep(0.3)  # both are idle
        for pid in (killed, other):
            os.kill(pid, signal.SIGSTOP)  # so that neither ends before the kill
        threading.Timer(0.3, lambda: (os.kill(killed, signal.SIGKILL), os.kill(other, signal.SIGCONT))).start()
    assert multiprocessing.active_children() == []


def test_killed_worker_is_one_line():
    with pytest.raises(UserError, match=r"a worker process was killed \(out of memory\?\)"), executor(2) as pool:
        pool.submit(die).result()


def test_an_unexpected_error_in_a_worker_is_shown_whole(tmp_path, small, monkeypatch):
    """A defect is neither a rejected object nor one line: its traceback is wanted."""
    monkeypatch.setattr(build_parent_sample, "read_record", broken)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        build(tmp_path, "--local_data_path", small, processes=2)
    assert multiprocessing.active_children() == []


def test_processes_give_the_same_bytes(tmp_path, small, undisturbed):
    assert build(tmp_path, "--local_data_path", small, processes=2) == 0
    assert files(tmp_path) == files(undisturbed)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    import dask

    how = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None, "silence_logs": 50}
    # A task that has killed two workers is given up; each worker more takes seconds to start.
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), distributed.LocalCluster(**how) as cluster:
        yield cluster


def test_dask_gives_the_same_bytes(tmp_path, small, undisturbed, cluster, monkeypatch):
    """Also where the paths are relative and the workers stand in another folder."""
    monkeypatch.chdir(tmp_path)
    os.symlink(small, "source")
    assert build("out", "--local_data_path", "source", "--scheduler", cluster.scheduler_address) == 0
    assert files(tmp_path / "out") == files(undisturbed)


def test_dask_worker_killed_in_mid_build(tmp_path, small, undisturbed, cluster):
    with ArchiveServer(small, latency=0.05) as server:
        process = start(
            tmp_path,
            "--base_url",
            server.url,
            "--files_per_object",
            "--scheduler",
            cluster.scheduler_address,
            "--max_connections",
            1,
        )
        wait_for(lambda: any(tmp_path.rglob("*.hdf5")))
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err  # where Dask itself tells of the lost worker
    assert rows(tmp_path) == rows(undisturbed)
    assert differences(tmp_path) == leftovers(tmp_path) == []


def test_dask_workers_or_scheduler_that_die_are_one_line(cluster):
    address = cluster.scheduler_address
    with pytest.raises(UserError, match=r"Dask's workers were killed \(out of memory\?\)"), executor(1, address) as pool:
        pool.submit(die).result()
    with pytest.raises(UserError, match=f"the Dask scheduler at {address} went away"), executor(1, address):
        raise CancelledError  # what the futures of a lost scheduler raise


def test_no_dask_scheduler(tmp_path, small, capsys, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr("skyset.dask_pool.DASK_TIMEOUT", 1)
        assert build(tmp_path, "--local_data_path", small, "--scheduler", address) == 2
    assert error_line(capsys).startswith(f"no Dask scheduler answers at {address}: ")
    assert build(tmp_path, "--local_data_path", small, "--scheduler", "nonsense://x") == 2
    assert error_line(capsys).startswith("no Dask scheduler answers at nonsense://x: ")


def test_dask_is_not_installed(tmp_path, small, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert build(tmp_path, "--local_data_path", small, "--scheduler", "tcp://127.0.0.1:1") == 2
    assert error_line(capsys) == "--scheduler needs dask.distributed: pip install 'skyset-surveys[scale]'"


# --- memory -------------------------------------------------------------------------------------------------


def peak_of_replicas(folder, archive, count):
    """Peak memory in MB of a build of ``count`` objects: the archive's first file under as many names, all in one cell."""
    from astropy.table import Table

    name = names(archive)[0]
    folder.mkdir()
    table = Table.read(archive / METADATA_NAME)[[0] * count]
    for k in range(count):
        key = f"1-{100_000 + k}_127_{k}"
        os.link(archive / name, folder / f"{key}.fits.gz")
        table["file_name"][k] = f"{key}.fits"
    table.write(folder / METADATA_NAME)
    command = (
        "import resource, sys\n"
        "from skyset.build_scripts.gz3d.build_parent_sample import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    arguments = ["-o", folder / "out", "--local_data_path", folder, "--num_processes", "1"]
    done = subprocess.run([sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=True)
    assert Manifest.load(folder / "out").rows == count
    shutil.rmtree(folder)
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_survey(tmp_path, archive):
    few, many = (peak_of_replicas(tmp_path / str(count), archive, count) for count in (10, 50))
    assert many < 1.1 * few, f"{few:.0f} MB for 10 objects, {many:.0f} MB for 50"
