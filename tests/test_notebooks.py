"""Every notebook runs from top to bottom on a small survey, and shows its figures."""

from pathlib import Path

import pytest

from skyset.build_scripts.gz_decals.build_parent_sample import main as build_decals
from tests.conftest import once

nbformat = pytest.importorskip("nbformat", reason="notebooks run in the main environment only")
nbclient = pytest.importorskip("nbclient", reason="notebooks run in the main environment only")

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.mark.slow
def test_demo_gz3d(built, tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_DATA", str(built.parent))
    notebook = executed("demo_gz3d.ipynb", tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.get("text", "") for output in outputs)
    assert len(figures) == 3
    assert "(525, 525, 3) uint8" in printed
    assert "(4, 525, 525, 3) (4, 4, 525, 525)" in printed
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.mark.slow
def test_demo_sdss_galaxy_zoo(built_sdss, tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_DATA", str(built_sdss.parent))
    notebook = executed("demo_sdss_galaxy_zoo.ipynb", tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.get("text", "") for output in outputs)
    assert len(figures) == 4
    assert "(16, 64, 64, 3) uint8" in printed
    assert "144 galaxies; median g - i" in printed
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.fixture(scope="session")
def built_decals(tmp_path_factory, shared):
    """The 350 real galaxies as partitions, in a folder named ``gz_decals``."""

    def make(folder):
        arguments = ["--local_data_path", str(shared / "gz_decals"), "-o", str(folder / "gz_decals"), "--num_processes", "1"]
        assert build_decals(arguments) == 0

    return once(tmp_path_factory, "real_decals", make) / "gz_decals"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "figures", "printed"),
    [("demo_gz_decals", 3, "(424, 424, 3) uint8"), ("find_rings", 4, "350 galaxies,")],
)
def test_gz_decals(built_decals, tmp_path, monkeypatch, name, figures, printed):
    monkeypatch.setenv("SKYSET_DATA", str(built_decals.parent))
    notebook = executed(f"{name}.ipynb", tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == figures
    assert printed in "".join(output.get("text", "") for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]


def executed(name, folder):
    """A notebook after all its cells ran in ``folder``."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def test_notebooks_are_committed_without_outputs():
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells), f"{path.name} holds outputs: clear them"
