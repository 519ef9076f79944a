"""A build killed at any moment and started again gives the same rows, each once, and leaves nothing behind.

The tests kill a few builds; ``python tests/building/test_faults.py --kills 50`` (or SKYSET_KILLS=50 for pytest) kills more.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from skyset.archives.fetch import Fetcher
from skyset.testing.gz3d import write_archive
from skyset.testing.server import ArchiveServer
from tests.building.conftest import COUNT
from tests.builds import build, differences, files, leftovers, rejected, rows, start
from tests.processes import steps_of

KILLS = int(os.environ.get("SKYSET_KILLS", "3"))
MODES = ([], ["--files_per_object"], ["--compression", "gzip"])


# --- a process killed at a random moment --------------------------------------------------------------------


def kill_until(folder, root, kills, seed, log=lambda line: None):
    """Start builds and kill them at random moments until there were ``kills`` kills and the last build is complete.

    Returns:
        Counter of what was killed, of the builds that were completed, and of the runs.
    """
    dice, counts = random.Random(seed), Counter()
    reference = build_reference(folder, root.parent / "reference")
    with ArchiveServer(folder, latency=0.03) as server:
        while counts["parent"] + counts["worker"] < kills or counts["complete"] == 0:
            mode = MODES[counts["complete"] % len(MODES)]
            done = run_once(root, server, mode, dice, counts, may_kill=counts["parent"] + counts["worker"] < kills)
            counts["runs"] += 1
            if done:
                counts["complete"] += 1
                assert rows(root) == reference
                assert (differences(root), leftovers(root), rejected(root)) == ([], [], {})
                shutil.rmtree(root)
            log(f"{dict(counts)}")
    return counts


def build_reference(folder, root):
    assert build(root, "--local_data_path", folder) == 0
    return rows(root)


def run_once(root, server, mode, dice, counts, may_kill):
    """One start of the script; True if it came to its end."""
    process = start(root, "--base_url", server.url, *mode, processes=2)
    try:
        if may_kill:
            with contextlib.suppress(TimeoutError):
                return wait_for_end(process, dice.uniform(0.8, 3.0))
            kill(process, dice.random() < 0.3, dice, counts)
        return wait_for_end(process, 120)
    finally:
        process.kill()
        process.communicate(timeout=60)  # orphans would keep the pipes open


def wait_for_end(process, seconds):
    """Whether the build succeeded; TimeoutError if it still runs, AssertionError if it failed by itself."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)
    if process.returncode == -signal.SIGKILL:
        return False
    out, err = process.communicate()
    if process.returncode == 2:
        assert err.startswith("skyset: a worker process was killed (out of memory?): the same command goes on from here"), (
            err
        )
        assert len(err.splitlines()) == 1, err
        return False
    assert (process.returncode, err) == (0, ""), (process.returncode, out, err)
    return True


def kill(process, a_worker, dice, counts):
    """SIGKILL to the driver alone, or to one of its workers; orphans must end by themselves."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        if a_worker and workers:
            dice.choice(workers).kill()
            counts["worker"] += 1
        else:
            process.kill()
            counts["parent"] += 1
            if dice.random() < 0.5:  # the other half of the time the next build meets the dying orphans
                assert psutil.wait_procs(children, timeout=30)[1] == [], "orphans stay"


@pytest.mark.slow
@pytest.mark.timeout(240 + 15 * KILLS)
def test_a_build_killed_at_random_moments(small, tmp_path):
    counts = kill_until(small, tmp_path / "out", KILLS, seed=KILLS)
    assert counts["parent"] + counts["worker"] == KILLS


# --- a process that ends before each of its steps on the disk -----------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("before", ["empty", "smaller build", "one file per object"])
def test_killed_before_each_step(small, tmp_path, before):
    """Renames, deletions and files opened for writing, one after the other, each time from the same start."""
    wanted = build_reference_of_two(small, tmp_path / "reference")
    root, base = tmp_path / "out", tmp_path / "base"
    deaths = 0
    replacing = ["--overwrite"] if before == "one file per object" else []  # another layout is replaced only where asked for
    with ArchiveServer(small) as server:
        if before == "smaller build":
            assert build(base, "--base_url", server.url, "--limit", 1) == 0
        elif before == "one file per object":
            assert build(base, "--base_url", server.url, "--limit", 2, "--files_per_object") == 0

        def action():
            return build(root, "--base_url", server.url, "--limit", 2, "--max_connections", 1, *replacing)

        while True:
            if base.exists():
                shutil.copytree(base, root)
            if not steps_of(root, action, deaths + 1):
                break
            deaths += 1
            assert action() == 0
            assert files(root) == wanted
            assert (differences(root), leftovers(root), rejected(root)) == ([], [], {})
            shutil.rmtree(root)
    assert deaths >= 6


def build_reference_of_two(archive, root):
    with ArchiveServer(archive) as server:
        assert build(root, "--base_url", server.url, "--limit", 2) == 0
    return files(root)


def test_an_error_of_one_download_that_nobody_thought_of_is_one_rejection(tmp_path, small, monkeypatch):
    spoilt, fetch = sorted(path.name for path in small.glob("*.fits.gz"))[3], Fetcher.fetch

    def failing(self, url, *arguments, **options):
        if url.endswith(spoilt):
            raise ArithmeticError("what\nis \x1b[31mthis")
        return fetch(self, url, *arguments, **options)

    monkeypatch.setattr(Fetcher, "fetch", failing)
    with ArchiveServer(small) as server:
        assert build(tmp_path, "--base_url", server.url) == 1
    assert rejected(tmp_path) == {spoilt: r"download failed: ArithmeticError: what is \x1b[31mthis"}
    assert len(rows(tmp_path)) == COUNT - 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_archive(Path(scratch) / "archive", COUNT, clustered=True)
        print(kill_until(Path(scratch) / "archive", Path(scratch) / "out", options.kills, options.seed, log=print))
