"""A build's folder that holds other things: what is a build's own is replaced and removed, all else stays."""

import pytest

from skyset.build_scripts.megacam_iqa.build_parent_sample import main
from skyset.testing.megacam import make_exposures
from tests.conftest import once


def build(root, *arguments):
    options = "--num_processes", "1", "--allow_few_exposures"
    return main(["-o", str(root), *options, *map(str, arguments)])


@pytest.fixture(scope="module")
def exposures(tmp_path_factory):
    """Four exposures of one class, of four small CCDs each."""

    def make(folder):
        make_exposures(folder, 4, ccds=4, suffix=".fits", shape=(256, 128), classes=("GOOD",), density=8)

    return once(tmp_path_factory, "megacam_four", make)


def asked(folder):
    return "--local_data_path", folder, "--labels", folder / "labels.json", "--map", "1x2"


@pytest.fixture(scope="module")
def built(exposures, tmp_path_factory):
    return once(tmp_path_factory, "megacam_four_built", lambda folder: build(folder / "o", *asked(exposures))) / "o"


def contents(root):
    """Every file but locks, by path."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def names(exposures):
    return sorted(path.name.partition(".")[0] for path in exposures.glob("*.fits"))


def test_what_somebody_keeps_in_staged_stays(exposures, tmp_path):
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "mine.f16").write_text("a week's work")
    assert build(tmp_path, *asked(exposures)) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "staged").iterdir()} == {"mine.f16": "a week's work"}


@pytest.mark.parametrize("place", ["LDAC/{}.ldac", "staged/{}.f16", "objects_catalog.parquet", "som/som.npz"])
def test_a_file_that_no_build_made_is_not_replaced(exposures, tmp_path, capsys, place):
    path = tmp_path / place.format(names(exposures)[2])
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert build(tmp_path, *asked(exposures)) == 2
    assert f"{path} was made by no build of this folder: move it" in capsys.readouterr().err
    assert path.read_text() == "mine" and not (tmp_path / "sources").exists()
    assert build(tmp_path, *asked(exposures), "--overwrite") == 2 and path.read_text() == "mine"
