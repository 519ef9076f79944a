"""A survey whose datasets all lie in folders of their names: the first is the one that is meant where none is named."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from datasets import load_dataset

import skyset
import skyset.loaders
from skyset.cli import app
from skyset.errors import UserError
from skyset.loading import registry
from tests.conftest import once
from tests.published import files

FOUR = {"train": 4}


def make(folder: Path) -> None:
    from skyset.build_scripts.galaxiesml.build_parent_sample import main

    files.write(folder / "published", counts=FOUR)
    assert main(["--local_data_path", str(folder / "published"), "-o", str(folder / "gml"), "--num_processes", "1"]) == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Folders 127, 64 and tabular. Do not change it."""
    return once(tmp_path_factory, "first_config", make) / "gml"


def side(rows) -> int:
    return next(iter(rows))["image"].shape[-1]


def test_the_root_and_a_dataset_s_own_folder_lead_to_it(root, tmp_path, monkeypatch):
    load = skyset.load
    assert side(load("galaxiesml", data_dir=str(root))) == side(load("galaxiesml", "127", data_dir=str(root))) == 127
    assert (
        side(load("galaxiesml", "64", data_dir=str(root))) == side(load("galaxiesml", "64", data_dir=str(root / "64"))) == 64
    )
    assert side(load("galaxiesml", data_dir=str(root / "64"))) == side(load(str(root / "64"))) == 64
    assert side(load(str(root))) == side(load("galaxiesml", str(root))) == 127
    assert "image" not in next(iter(load("galaxiesml", data_dir=str(root / "tabular"))))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "galaxiesml").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    assert side(load("galaxiesml")) == 127 and side(load("galaxiesml", "64")) == 64
    assert registry.find_root("galaxiesml") == str(tmp_path / "data" / "galaxiesml" / "127")
    rows = load_dataset("galaxiesml", data_dir=str(root), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 4 and "galaxiesml/127" in rows.cache_files[0]["filename"]


@pytest.mark.parametrize(
    "config, folder, words",
    [
        ("127", "64", 'holds config 64, not 127: load_dataset("galaxiesml", "64", data_dir=<the folder above it>)'),
        ("32", "", "galaxiesml has no config '32'; known: 127, 64, tabular"),
        ("default", "", "galaxiesml has no config 'default'; known: 127, 64, tabular"),
        (None, "64/train", "config 127 is not built in"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(root, config, folder, words):
    with pytest.raises(UserError, match=re.escape(words)):
        skyset.load("galaxiesml", config, data_dir=str(root / folder))


def test_commands_know_the_folder_above_the_datasets(root, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            app([*map(str, arguments)])
        assert not ended.value.code
        return capsys.readouterr()

    said = run("verify", root).out
    assert [line.split(",")[0] for line in said.splitlines()] == [f"OK: config {c}" for c in ("127", "64", "tabular")]
    said = run("info", root, "--columns")
    assert "(5, 127, 127)" in said.out.replace("5 x 127 x 127", "(5, 127, 127)")
    assert f"of the same survey: {root / '64'}, {root / 'tabular'}" in said.err
    assert (root / "README.md").exists() and not (root / "127" / "README.md").exists()


def test_its_declaration_without_data():
    info = skyset.info("galaxiesml")
    assert info.config == "127" and info.configs == ("127", "64", "tabular")
    assert skyset.info("galaxiesml", "64").survey.column("image").shape == (5, 64, 64)
    assert registry.survey("gz3d") is registry.survey("gz3d", "default")


SCRIPT = Path(skyset.loaders.__path__[0]) / "galaxiesml.py"
CODE = """
import sys
import numpy as np
from datasets import load_dataset

assert "skyset" not in sys.modules
options = {"trust_remote_code": True, "split": "train", "cache_dir": sys.argv[3]}
for config, size in ((None, 127), ("64", 64)):
    for streaming in (True, False):
        for data_dir in sys.argv[2:3]:
            rows = load_dataset(sys.argv[1], config, data_dir=data_dir, streaming=streaming, **options).with_format("numpy")
            row = next(iter(rows))
            assert row["image"].dtype == np.float32 and row["image"].shape == (5, size, size), row["image"].shape
            assert row["g_ellipticity"].dtype == np.float32 and row["ra"].dtype == np.float64
print("fine")
"""


@pytest.mark.datasets3
@pytest.mark.skipif(not version("datasets").startswith("3."), reason="loading scripts ended with datasets 4")
def test_as_a_loading_script(root, tmp_path):
    (tmp_path / "user.py").write_text(CODE)
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(tmp_path / "user.py"), str(SCRIPT), str(root), str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.stdout == "fine\n", done.stderr[-3000:]


def test_a_number_is_the_config_of_this_name():
    assert skyset.info("galaxiesml", 64).survey.column("image").shape == (5, 64, 64)
    for numbers in ({"name": 65}, {"config": 65}):
        with pytest.raises(UserError, match="galaxiesml has no config '65'"):
            skyset.load("galaxiesml", **numbers)
    with pytest.raises(UserError, match="nowhere"):
        skyset.load("galaxiesml", 64, data_dir="nowhere")
