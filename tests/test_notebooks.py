"""Every notebook runs from top to bottom on a small survey, and shows its figures."""

import pytest

from tests.conftest import once

nbformat = pytest.importorskip("nbformat", reason="notebooks run in the main environment only")
pytest.importorskip("nbclient", reason="notebooks run in the main environment only")
notebooks = pytest.importorskip("tests.notebooks")

from tests.megacam_rows import write_map, write_megacam
from tests.photoz import write_galaxiesml


@pytest.mark.slow
def test_demo_gz3d(built, tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_DATA", str(built.parent))
    check("demo_gz3d", tmp_path, 3, "(525, 525, 3) uint8", "(4, 525, 525, 3) (4, 4, 525, 525)")


@pytest.mark.slow
def test_segment_gz3d(built, tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_DATA", str(built.parent))
    check(
        "segment_gz3d",
        tmp_path,
        4,
        "galaxies to learn from,",
        "learn: spiral",
        "torch.uint8 [0, 1, 2",
        "spiral       binomial",
    )


@pytest.mark.slow
def test_demo_sdss_galaxy_zoo(built_sdss, tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_DATA", str(built_sdss.parent))
    check("demo_sdss_galaxy_zoo", tmp_path, 4, "(16, 64, 64, 3) uint8", "72 galaxies; median g - i")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "figures", "printed"),
    [("demo_gz_decals", 3, "(424, 424, 3) uint8"), ("find_rings", 4, "350 galaxies,")],
)
def test_gz_decals(real_decals, tmp_path, monkeypatch, name, figures, printed):
    monkeypatch.setenv("SKYSET_DATA", str(real_decals.parent))
    check(name, tmp_path, figures, printed)


@pytest.mark.slow
def test_demo_galaxiesml(tmp_path_factory, tmp_path, monkeypatch):
    pytest.importorskip("galsim", reason="GalSim is not installed: pip install galsim")
    for name in ("SSP_PDR_USR", "SSP_PDR_PWD"):  # put back at the end
        monkeypatch.setenv(name, "")
    root = once(tmp_path_factory, "simulated_galaxiesml", lambda folder: notebooks.build_galaxiesml(folder, 30))
    monkeypatch.setenv("SKYSET_DATA", str(root))
    check("demo_galaxiesml", tmp_path, 5, "30 galaxies;", "(16, 5, 127, 127) float32 redshifts float64")


@pytest.mark.slow
def test_demo_megacam_iqa(tmp_path, monkeypatch):
    root = write_megacam(tmp_path / "data" / "megacam_iqa")
    write_map(root)
    monkeypatch.setenv("SKYSET_DATA", str(root.parent))
    (tmp_path / "here").mkdir()
    check(
        "demo_megacam_iqa",
        tmp_path / "here",
        6,
        "40 CCDs of 20 exposures; {'test': 4, 'train': 12,",
        "(16, 96, 120) float32",
    )


@pytest.mark.slow
def test_demo_extraction(tmp_path):
    check("demo_extraction", tmp_path, 5, "(800, 800) float32", "SOM(4 x 5, rectangular,")
    assert not list(tmp_path.iterdir()), "the notebook leaves files behind"


@pytest.mark.slow
def test_crossmatch_and_publish(tmp_path, monkeypatch):
    notebooks.build_matched(tmp_path, 16)
    monkeypatch.setenv("SKYSET_DATA", str(tmp_path))
    (tmp_path / "here").mkdir()
    printed = "are in all three", "of 16 are in SDSS", "(4, 525, 525, 3), torch.uint8"
    check("crossmatch_and_publish", tmp_path / "here", 3, *printed)


@pytest.mark.slow
def test_photoz(tmp_path_factory, tmp_path, monkeypatch):
    root = once(tmp_path_factory, "photoz_galaxiesml", write_galaxiesml)
    monkeypatch.setenv("SKYSET_DATA", str(root))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    check("photoz", tmp_path / "here", 4, "12 galaxies; half of the distributions are narrower than", "PIT KS")


def check(name, folder, figures, *printed):
    """A notebook whose cells all run in ``folder``, which shows so many figures and prints these texts."""
    notebook = notebooks.run(name, folder, forked=True)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == figures
    assert [words for words in printed if words not in text] == []
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.mark.parametrize("name", notebooks.NOTEBOOKS)
def test_stored_outputs_can_be_read_without_running(name):
    """Run ``python -m tests.notebooks`` where cells were changed."""
    path = notebooks.FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "not run from top to bottom"
    pictures = [output["data"] for cell in cells for output in cell.outputs if "image/jpeg" in output.get("data", {})]
    assert len(pictures) >= 3 and path.stat().st_size < notebooks.LARGEST
    assert notebooks.STAMP in notebook.cells[0].source
    assert notebooks.paths_in(notebooks.text_of(notebook)) == []
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_every_notebook_is_stored_and_run():
    assert {path.stem for path in notebooks.FOLDER.glob("*.ipynb")} == set(notebooks.NOTEBOOKS)
