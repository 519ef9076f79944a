"""``--scheduler``: the same results from a Dask cluster, a worker killed meanwhile included; what it lacks is one line."""

import filecmp
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from skyset.cli import app
from skyset.dask_pool import DaskPool, Shared, _OnWorker
from skyset.errors import UserError
from skyset.partitions.manifest import Manifest
from skyset.runner import InlineExecutor, executor, in_order
from skyset.tables import match_stripes
from skyset.tables.match import match_positions
from skyset.tables.match_stripes import match_in_stripes

pytest.importorskip("distributed", reason="dask.distributed is not installed")


@pytest.fixture(scope="module")
def cluster():
    import dask
    import distributed

    how = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": None, "silence_logs": 50}
    with dask.config.set({"distributed.scheduler.allowed-failures": 3}), distributed.LocalCluster(**how) as cluster:
        yield cluster


@pytest.fixture
def scheduler(cluster) -> tuple[str, str]:
    return "--scheduler", cluster.scheduler_address


def skyset(*arguments) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.output


def dies_once(folder: Path, number: int) -> int:
    """The number; the first worker that gets 5 is killed by it."""
    if number == 5 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_task_whose_worker_is_killed_is_run_again(cluster, tmp_path):
    with executor(1, cluster.scheduler_address, shared=[tmp_path]) as pool:
        found = [result for _, result in in_order(pool, partial(dies_once, tmp_path), range(40))]
    assert found == list(range(40)) and (tmp_path / "killed").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["killed"], "what workers look for is gone"


def test_a_worker_that_sees_another_disk_is_one_line(cluster, tmp_path, monkeypatch):
    """The file there has other contents: as where /data is each machine's own."""
    with (
        pytest.raises(UserError, match="nowhere cannot be used"),
        executor(1, cluster.scheduler_address, shared=["nowhere"]),
    ):
        pass
    (tmp_path / "manifest.json").write_text("{}")
    other = Shared(str(tmp_path / "manifest.json"), "the digest of another file", "data/manifest.json")
    monkeypatch.setattr("skyset.dask_pool._shared", lambda *_: other)
    with (
        pytest.raises(UserError, match=r"the Dask worker on \S+ does not see data/manifest.json: workers need the same"),
        executor(1, cluster.scheduler_address, shared=["data/manifest.json"]) as pool,
    ):
        pool.submit(pow, 2, 3).result()
    with pytest.raises(UserError, match=r"runs skyset \S+, this is 0.0"):
        _OnWorker(pow, (), "0.0")(2, 3)


def test_few_tasks_are_ahead():
    """However many there are, and of those that nobody waits for any more none is left."""

    class Counting(InlineExecutor):
        ahead, submitted = 3, 0

        def submit(self, function, /, *args, **kwargs):
            self.submitted += 1
            return super().submit(function, *args, **kwargs)

    pool = Counting()
    results = in_order(pool, abs, iter(range(-1000, 0)))
    assert next(results) == (-1000, 1000) and pool.submitted == 3
    assert next(results) == (-999, 999) and pool.submitted == 4
    results.close()

    class Client:
        scheduler = type("", (), {"address": "tcp://x"})
        counts = iter([{}, {"a": 3, "b": 4}])

        def get_executor(self, **_):
            return None

        def nthreads(self):
            return next(self.counts)

    dask = DaskPool(Client(), ())
    assert dask.ahead == dask.ahead == 4, "no worker yet"
    dask._asked -= 10
    assert dask.ahead == 14


def test_verify_names_the_same(rings, tmp_path, scheduler):
    root = Path(shutil.copytree(rings, tmp_path / "rings"))
    files = [root / entry.path for entry in Manifest.load(root).files]
    content = bytearray(files[0].read_bytes())
    content[-9] ^= 1
    files[0].write_bytes(content)
    files[1].unlink()
    status, here = skyset("verify", root, "--num_processes", 1)
    assert status == 1 and "SHA-256" in here and "missing" in here
    assert skyset("verify", root, *scheduler) == (status, here)


def test_an_adopted_tree_is_the_same(tmp_path, scheduler, monkeypatch):
    """Broken and foreign files too; a second run reads none again."""
    from skyset.testing.mmu import write

    monkeypatch.setattr("skyset.adopting.gather._FILES", 2)  # files of a task
    write("yse", tmp_path / "tree", rows=4, cells=3, faults=["truncated", "foreign_hdf5"])
    for name, more in (("here", ("--num_processes", 1)), ("there", scheduler)):
        status, text = skyset("adopt", tmp_path / "tree", "-o", tmp_path / name, *more)
        assert status == 1 and "1 broken file" in text, text
    for name in ("units.arrow", "findings.csv"):
        assert filecmp.cmp(tmp_path / "here" / name, tmp_path / "there" / name, shallow=False)
    assert Manifest.load(tmp_path / "here").files == Manifest.load(tmp_path / "there").files
    assert "no file has changed" in skyset("adopt", tmp_path / "tree", "-o", tmp_path / "there", *scheduler)[1]


def test_a_report_is_the_same(rings, tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr("skyset.explore.report.sample._FILES_AT_ONCE", 2)
    for name, more in (("here.html", ()), ("there.html", scheduler)):
        assert skyset("report", rings, "-o", tmp_path / name, "--images", 0, *more)[0] == 0
    assert filecmp.cmp(tmp_path / "here.html", tmp_path / "there.html", shallow=False)


def test_pairs_are_the_same(rings, tmp_path, scheduler):
    for name, more in (("here.parquet", ()), ("there.parquet", scheduler)):
        arguments = ("crossmatch", rings, rings, "--radius", 600, "-o", tmp_path / name, *more)
        assert skyset(*arguments)[0] == 0
    assert pq.read_table(tmp_path / "here.parquet").equals(pq.read_table(tmp_path / "there.parquet"))


def test_stripes_give_the_pairs_of_the_whole(monkeypatch):
    """At poles and across RA = 0, where an object is on a stripe's border."""

    class Elsewhere:
        ahead = 2
        submit = InlineExecutor().submit

    monkeypatch.setattr(match_stripes, "ROWS", 37)
    rng = np.random.default_rng(1)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, (2, 500))))
    dec[:, :60] = rng.choice([90, -90, 89.9, 0, 0.5], (2, 60))
    left, right = zip(rng.choice([0, 359.99, 0.01, 180, *rng.uniform(0, 360, 40)], (2, 500)), dec, strict=True)
    for radius in (0, 60, 3600, 36000):
        whole, found = match_positions(*left, *right, radius), match_in_stripes(Elsewhere(), left, right, radius)
        for name in ("left", "right", "separation"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    with pytest.raises(UserError, match="radius is -1"):
        match_in_stripes(Elsewhere(), left, right, -1)


def test_a_hats_collection_is_the_same(rings, tmp_path, scheduler, monkeypatch):
    """From relative paths too; and what is wrong with it is named alike, bytes, positions and values."""
    monkeypatch.chdir(tmp_path)
    os.symlink(rings, "rings")
    for name, more in (("here", ()), ("there", scheduler)):
        assert skyset("hats", "rings", "-o", f"{name}/out", "--threshold", 100, *more)[0] == 0
    trees = [{p.relative_to(n): p.read_bytes() for p in Path(n).rglob("*") if p.is_file()} for n in ("here", "there")]
    assert trees[0] == trees[1] and len(trees[0]) > 10
    first, second, third = sorted(Path("here/out").rglob("Npix=*.parquet"))[:3]
    first.write_bytes(first.read_bytes()[:-1])
    shutil.copy(second, third)
    status, here = skyset("verify", "here/out", "--against", "rings", "--num_processes", 1)
    assert status == 1 and "bytes, skyset_hats.json says" in here and "missing, of the source's" in here
    assert skyset("verify", "here/out", "--against", "rings", *scheduler) == (status, here)


def test_a_push_is_the_same(rings, tmp_path, scheduler, cluster):
    from skyset.testing.hub import HubServer
    from tests.hub import TOKEN, talking_to

    sent = []
    with HubServer(tmp_path / "hub") as server:
        server.add_user("alice", TOKEN, organisations=("sky",))
        with talking_to(server):
            for name, more in (("here", ()), ("there", scheduler)):
                arguments = ("--repo", f"sky/{name}", "--work_dir", tmp_path / name, "--data_dir", rings, *more)
                status, text = skyset("push", "gz_decals", *arguments)
                assert status == 0, text
                files = server.files(f"sky/{name}", "main")
                sent.append({path: content for path, content in files.items() if path.startswith("data/")})
    assert sent[0] == sent[1] and sent[0]


def test_a_catalogue_is_the_same(tmp_path, scheduler, cluster, monkeypatch):
    from astropy.io import fits

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frames = [rng.normal(100, 1, (60, 60)).astype("f4") for _ in range(6)]
    for frame in frames:
        frame[20:24, 30:33] += 200
    fits.HDUList([fits.PrimaryHDU(), *map(fits.ImageHDU, frames)]).writeto("mosaic.fits")
    options = ("--engine", "sep", "--columns", "NUMBER,EXT_NUMBER,X_IMAGE,Y_IMAGE,FLUX_ISO", "--seeing", 1)
    assert skyset("extract", "mosaic.fits", "-o", "here.csv", "--processes", 1, *options)[0] == 0
    status, text = skyset("extract", "mosaic.fits", "-o", "there.csv", *options, *scheduler)
    assert status == 0, text
    assert filecmp.cmp("here.csv", "there.csv", shallow=False) and len(Path("here.csv").read_text().splitlines()) == 7
