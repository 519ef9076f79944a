"""Files are whole or as before, what killed processes left is cleared and nothing else, HDF5's locks are in nobody's way."""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import QTable
from matplotlib.figure import Figure

from skyset import files
from skyset.build_scripts.gz3d import build_parent_sample
from skyset.building.build import build as build_survey
from skyset.building.options import Options
from skyset.cli import save_figure
from skyset.command_line import main as exit_status
from skyset.errors import UserError
from skyset.explore.bench import run
from skyset.extraction.ldac import write_ldac
from skyset.files import (
    Temporary,
    clear_leftovers,
    keep_inputs,
    open_locked,
    put_in_place,
    replacing,
    short_digest,
    write_atomically,
)
from skyset.loaders.gz3d import SURVEY
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.tables.delimited_writer import write_csv
from tests.builds import build, rows
from tests.processes import starve

HOLD = """
import sys
from pathlib import Path
from skyset.files import Temporary
temporary = Temporary(Path(sys.argv[1]))
print(temporary.path, flush=True)
sys.stdin.read()
"""


def holder(target):
    """A process that writes a temporary file for ``target``, and the file."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, target], stdin=-1, stdout=-1, text=True)
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_cleared_at_the_next_start_and_nothing_of_a_living_one(tmp_path):
    target = tmp_path / "x.csv"
    living, of_living = holder(target)
    killed, of_killed = holder(target)
    killed.kill()
    killed.wait()
    theirs = [tmp_path / name for name in (".x.csv.tmp", ".x.csv.swp", "x.csv.1.tmp", ".hidden", ".cshrc.bak.tmp")]
    old = [tmp_path / name for name in (".x.csv.77.tmp", ".x.csv.deadbeef.tmp", ".x.csv.7.shrunk.tmp")]
    for path in (*theirs, *old):
        path.write_text("")
    assert of_living.exists() and of_killed.exists()
    try:
        with replacing(target) as temporary:
            temporary.write_text("new")
        assert sorted(tmp_path.iterdir()) == sorted([target, of_living, *theirs])
        clear_leftovers(tmp_path)
        assert of_living.exists()
    finally:
        living.communicate("")
    clear_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([target, *theirs])


def test_without_locks_age_and_process_tell(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    descriptor, has_locks = open_locked(tmp_path / "lock")
    os.close(descriptor)
    assert not has_locks
    own, gone, young = (tmp_path / f".x.{pid}.deadbeef.tmp" for pid in (os.getpid(), 2**22 + 1, 2**22 + 2))
    for path in (own, gone, young):
        path.write_text("")
        os.utime(path, (time.time() - 2 * 86_400,) * 2)
    os.utime(young)
    clear_leftovers(tmp_path)
    assert (own.exists(), gone.exists(), young.exists()) == (True, False, True)
    with replacing(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "x").read_text() == "new"


def test_two_writers_of_one_file_in_one_process_and_long_names(tmp_path):
    target = tmp_path / ("é" * 120 + ".csv")  # 244 bytes
    with Temporary(target) as one, Temporary(target) as other:
        assert one != other and one.exists() and other.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_result_does_not_take_the_place_of_what_it_is_made_of(tmp_path):
    (tmp_path / "a").write_text("")
    os.link(tmp_path / "a", tmp_path / "hard")
    (tmp_path / "soft").symlink_to("a")
    for name in ("a", "hard", "soft", "../" + tmp_path.name + "/a"):
        with pytest.raises(UserError, match=r" would replace the input: choose another name for the result"):
            keep_inputs(tmp_path / name, {"the input": tmp_path / "a"})
    keep_inputs(tmp_path / "b", {"the input": tmp_path / "a", "another": None})
    keep_inputs(None, {"the input": tmp_path / "a"})


TABLE = pa.table({"a": [1.0]})
WRITERS = {
    "text": lambda path: write_atomically(path, "new"),
    "catalogue": lambda path: write_csv(path, TABLE.to_batches(), TABLE.schema),
    "ldac": lambda path: write_ldac(path, [(fits.Header(), QTable({"X_IMAGE": [1.0]}))]),
    "json": lambda path: run.save({"a": 1}, path),
    "picture": lambda path: save_figure(Figure(figsize=(1, 1)), path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_is_no_file_is_not_replaced_and_links_are_followed(tmp_path, write):
    """A pipe stands for devices too: nothing but its kind is looked at."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        (tmp_path / f"to_{name}").symlink_to(name)
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name in ("pipe.png", "to_pipe.png", "folder.png", "to_folder.png", "loop.png"):
        before = os.lstat(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}.*: .*(no regular file|is a folder|symbolic links)"):
            write(tmp_path / name)
        assert os.path.samestat(before, os.lstat(tmp_path / name))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "old.png").write_text("old")
    for target in ("other/old.png", "other/absent.png"):
        (tmp_path / "link.png").unlink(missing_ok=True)
        (tmp_path / "link.png").symlink_to(target)
        write(tmp_path / "link.png")
        assert os.readlink(tmp_path / "link.png") == target
        assert (tmp_path / target).read_bytes() not in (b"", b"old")
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["absent.png", "old.png"]


# --- HDF5's locks -------------------------------------------------------------------------------------------


@pytest.fixture
def locked(built):
    """A built folder all of whose files are locked by another descriptor, as by another process."""
    descriptors = [os.open(path, os.O_RDWR) for path in built.rglob("*.hdf5")]
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(OSError, match="unable to lock file"):
        h5py.File(next(built.rglob("*.hdf5")))
    yield built
    for descriptor in descriptors:
        os.close(descriptor)


READ = """
import sys, skyset
from skyset.partitions.verify import verify
rows = list(skyset.load("gz3d", data_dir=sys.argv[1], split="train", streaming=True).with_format("numpy"))
assert len(rows) == 24 and rows[0]["image"].any(), len(rows)
assert list(verify(sys.argv[1])) == []
"""


@pytest.mark.parametrize("setting", ["TRUE", "BEST_EFFORT", None])
def test_files_that_another_process_has_locked_are_read(locked, setting):
    environment = {k: v for k, v in os.environ.items() if k != "HDF5_USE_FILE_LOCKING"}
    environment |= {"HDF5_USE_FILE_LOCKING": setting} if setting else {}
    command = [sys.executable, "-W", "ignore", "-c", READ, locked]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_build_goes_on_where_there_are_no_locks(tmp_path, archive, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    assert build(tmp_path, "--local_data_path", archive, "--limit", 2) == 0
    assert f"the file system of {tmp_path} has no locks" in capsys.readouterr().err
    assert build(tmp_path, "--local_data_path", archive, "--limit", 4) == 0
    assert len(rows(tmp_path)) == Manifest.load(tmp_path).rows == 4
    assert list(verify(tmp_path, SURVEY)) == []


# --- what the machine refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_no_memory_in_a_build_is_one_line(tmp_path, archive, monkeypatch, capsys, processes):
    monkeypatch.setattr(build_parent_sample, "read_record", starve)
    assert build(tmp_path, "--local_data_path", archive, processes=processes) == 2
    line = "skyset: not enough memory: the same command goes on from here; try a smaller --num_processes\n"
    assert capsys.readouterr().err == line
    monkeypatch.undo()
    assert build(tmp_path, "--local_data_path", archive) == 0


def test_no_memory_before_anything_is_built(tmp_path, capsys):
    options = Options(tmp_path)
    assert exit_status(lambda: build_survey(SURVEY, starve, options, starve)) == 2
    assert exit_status(starve) == 2
    assert [line[:25] for line in capsys.readouterr().err.splitlines()] == ["skyset: not enough memory"] * 2


COMMANDS = [["--help"], ["info", "DIR"], ["verify", "DIR"], ["build", "gz3d", "--help"]]


@pytest.mark.parametrize(("command", "buffered"), list(zip(COMMANDS, [True, True, False, False], strict=True)))
def test_standard_output_on_a_full_disk_is_one_line(built, command, buffered):
    words = [str(built) if word == "DIR" else word for word in command]
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-W", "ignore", "-m", "skyset.cli", *words]
        environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
        done = subprocess.run(command, stdout=full, stderr=-1, text=True, env=environment)
    assert done.stderr.splitlines() == ["skyset: standard output cannot be written: No space left on device"]
    assert done.returncode == 2


def test_standard_error_on_a_full_disk_is_no_traceback(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "skyset.cli", "info", tmp_path], stderr=full, stdout=-1, text=True)
    assert done.returncode == 2 and done.stdout == ""


def test_a_reader_that_goes_away_ends_it_quietly(built):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "skyset.cli", "info", built], stdout=write, stderr=-1, text=True)
    os.close(write)
    assert done.stderr == "" and done.returncode in (1, 141)


LIMITED = "ulimit -f 1; exec {python} -W ignore -m skyset.cli {command}"


def test_files_that_may_not_grow_are_one_line(built, tmp_path):
    """As on a disk quota: EFBIG."""
    command = LIMITED.format(python=sys.executable, command=f"info {built} --plot {tmp_path / 'x.png'}")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"skyset: cannot write {tmp_path / 'x.png'}: [Errno 27] File too large"]
    assert list(tmp_path.iterdir()) == []


def test_a_finished_file_gets_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    (tmp_path / "new").write_text("new")
    (tmp_path / "file").write_text("old")
    put_in_place(tmp_path / "new", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new" and os.listdir(tmp_path) == ["file"]
    assert synced == [str(tmp_path / "new"), str(tmp_path)]


def test_short_digests_differ_with_the_text():
    assert short_digest("a") == hashlib.sha256(b"a").hexdigest()[:16] and short_digest("a") != short_digest("b")
