"""``loaders/gz3d.py`` as a loading script of datasets 3, in a fresh process that does not know skyset."""

import json
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import pytest

import skyset.loaders

pytestmark = [
    pytest.mark.datasets3,
    pytest.mark.skipif(not version("datasets").startswith("3."), reason="loading scripts ended with datasets 4"),
]
#: Has what `datasets` and the loader import, and neither of them; runs each script in a fork of itself.
HOST = """
import json, sys
import h5py, numpy, pandas, pyarrow.parquet, torch
from tests.processes import imported

for line in sys.stdin:
    script, options = json.loads(line)
    process = imported([sys.executable, script], **options)
    out, error = process.communicate(timeout=200)
    print(json.dumps([process.returncode, out, error]), flush=True)
"""
SCRIPT = Path(skyset.loaders.__path__[0]) / "gz3d.py"
HEAD = """
import sys
from pathlib import Path
import numpy as np
from datasets import load_dataset

def load(path=SCRIPT, **options):
    options = {"data_dir": ROOT, "split": "train", "streaming": True, "cache_dir": CACHE} | options
    return load_dataset(path, trust_remote_code=True, **options)

def check(row):
    assert row["image"].dtype == np.uint8 and row["image"].shape == (525, 525, 3)
    assert row["segmentation"]["array"].dtype == np.uint8 and row["segmentation"]["array"].shape == (4, 525, 525)
    assert row["ra"].dtype == np.float32 and row["scale"].dtype == np.float64

def ids(rows):
    return [row["object_id"] for row in rows]
"""


@pytest.fixture(scope="module")
def host():
    command, root = [sys.executable, "-c", HOST], Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def run(host, built, tmp_path):
    """Run code after HEAD; everything it asserts holds or the test fails with its output."""

    def run(code: str, folder: Path = tmp_path, **environment) -> list[str]:
        names = f"SCRIPT, ROOT, CACHE = {str(SCRIPT)!r}, {str(built)!r}, {str(tmp_path / 'cache')!r}\n"
        (tmp_path / "user.py").write_text(
            names
            + HEAD
            + "\ndef main():\n"
            + textwrap.indent(textwrap.dedent(code), "    ")
            + "\n\nif __name__ == '__main__':\n    assert 'skyset' not in sys.modules\n    main()\n"
        )
        modules = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
        options = {"cwd": str(folder), "env": modules | environment}
        print(json.dumps([str(tmp_path / "user.py"), options]), file=host.stdin, flush=True)
        status, out, error = json.loads(host.stdout.readline())
        assert status == 0, error[-3000:]
        return out.split()

    return run


@pytest.fixture(scope="module")
def wanted(built):
    return [row["object_id"] for row in skyset.load("gz3d", str(built))]


def test_streaming(run, wanted):
    out = run("""
        rows = load().with_format("numpy")
        for row in rows:
            check(row)
        print(*ids(rows))
    """)
    assert out == wanted


def test_streaming_shuffled_and_resumed(run, wanted):
    out = run("""
        rows = load().with_format("numpy").shuffle(seed=1)
        source = iter(rows)
        first = [next(source)["object_id"] for _ in range(10)]
        state = rows.state_dict()
        again = load().with_format("numpy").shuffle(seed=1)
        again.load_state_dict(state)
        print(*first, *ids(again))
    """)
    assert sorted(out) == sorted(wanted) and out != wanted


def test_arrow_cache(run, wanted):
    out = run("""
        rows = load(streaming=False).with_format("numpy")
        check(rows[5])
        parts = rows.train_test_split(test_size=4, seed=1)
        check(parts["test"][0])
        print(*ids(rows))
    """)
    assert out == wanted


def test_arrow_cache_by_two_processes(run, wanted):
    assert run('print(*ids(load(streaming=False, num_proc=2).with_format("numpy")))') == wanted


def test_dataloader_with_workers(run, wanted):
    out = run("""
        import torch
        rows = load().with_format("numpy").shuffle(seed=1)
        seen = []
        for batch in torch.utils.data.DataLoader(rows, batch_size=4, num_workers=2):
            assert batch["image"].dtype == torch.uint8 and batch["image"].shape[1:] == (525, 525, 3)
            seen += batch["object_id"]
        print(*seen)
    """)
    assert sorted(out) == sorted(wanted)


@pytest.mark.parametrize("place", ["beside", "data", "environment"])
def test_bare_name_of_the_script_and_data_in_the_usual_places(run, wanted, built, tmp_path, place):
    folder = tmp_path / "loaders"
    folder.mkdir()
    (folder / "gz3d.py").write_text(SCRIPT.read_text())
    environment = {"SKYSET_DATA": str(built.parent)} if place == "environment" else {}
    if place == "data":
        (folder / "data").mkdir()
        (folder / "data" / "gz3d").symlink_to(built)
    if place == "beside":
        for path in built.iterdir():
            (folder / path.name).symlink_to(path)
    out = run(
        'print(*ids(load("gz3d.py", data_dir=None).with_format("numpy").select_columns("object_id")))', folder, **environment
    )
    assert out == wanted


def test_script_and_name_give_the_same_once_skyset_is_imported(run, wanted):
    out = run("""
        script = ids(load().with_format("numpy").select_columns("object_id"))
        import skyset
        assert script == ids(load().select_columns("object_id")) == ids(load("gz3d").select_columns("object_id"))
        print(*script)
    """)
    assert out == wanted
