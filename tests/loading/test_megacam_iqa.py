"""MegaCam image quality: what the loader hands out, by value, and the picture of a row."""

import numpy as np
import pytest
from datasets import ClassLabel
from typer.testing import CliRunner

pytest.importorskip("numba", reason="MegaCam's sources are measured and grouped with numba")

import skyset
from skyset.cli import app
from skyset.loaders import megacam_iqa
from skyset.loaders.megacam_iqa import CLASSES, CONFIGS, GROUPS, MAP, STAMP
from tests.conftest import once
from tests.megacam_rows import RA, SOURCES, representative, split_of, write_megacam


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """20 exposures of two CCDs. Do not change it."""
    return once(tmp_path_factory, "megacam_rows", lambda folder: write_megacam(folder / "megacam_iqa")) / "megacam_iqa"


def load(root, config, split, **options):
    return skyset.load("megacam_iqa", config, data_dir=str(root), split=split, **options).with_format("numpy")


@pytest.mark.parametrize("streaming", [True, False])
def test_representative(root, streaming):
    found = {}
    for split in ("train", "validation", "test"):
        for row in load(root, "representative", split, streaming=streaming):
            found[row["object_id"]] = row
            assert split_of(int(row["FITS_ID"][:-1]) - 1000000) == split
    assert len(found) == 40
    for exposure, ccd in ((0, 0), (2, 1), (19, 0)):
        row, wanted = found[f"{1000000 + exposure}p_{ccd:02d}"], representative(exposure, ccd)
        for name, value in wanted.items():
            assert np.array_equal(
                row[name],
                value.astype(str) if value.dtype.kind == "S" else value,
                equal_nan=name not in ("object_id", "FITS_ID", "FILTER"),
            ), name
    assert row["image"].dtype == np.float32 and row["hits"].dtype == np.int32 and row["empty"].dtype == bool
    assert row["ra"] == RA and row["label"].dtype == np.int64 and found["1000002p_01"]["label2"] == 1


def test_the_default_is_representative_and_classes_have_names(root):
    rows = skyset.load("megacam_iqa", data_dir=str(root), split="train", streaming=False)
    assert rows.features["label"] == rows.features["label2"] == ClassLabel(names=list(CLASSES))
    assert rows.features["label"].int2str(int(rows[0]["label"])) == CLASSES[int(rows[0]["FITS_ID"][:-1]) % 5]
    assert len(rows) == 24


def test_sources(root):
    rows = [row for split in ("train", "validation", "test") for row in load(root, "sources", split, streaming=True)]
    assert len({row["object_id"] for row in rows}) == len(rows) == 40 * SOURCES
    for row in rows:
        label = int(row["FITS_ID"][:-1]) % 5
        assert row["gt_label1"] == label and row["FWHM"] == 4 + label and row["FLAGS"].dtype == np.int16
        assert np.isnan(row["BACKGROUND"]) == (row["unit"] == -1) == row["object_id"].endswith("_00003")


def test_other_stamps_and_maps_are_read_as_they_were_built():
    """``--stamp`` and ``--map`` change shapes; nothing else."""
    declared = CONFIGS["representative"]
    wide = {
        "image": (300, 480),
        "hits": (240,),
        "hit_shares": (240,),
        "empty": (240,),
        "drawn": (240,),
        "features": (240, 6),
    }
    columns = [c if c.name not in wide else type(c)(c.name, c.dtype, wide[c.name]) for c in declared.columns]
    built = declared.as_built(columns)
    assert {name: built.column(name).shape for name in wide} == wide
    assert built.column("feature_median").shape == (6,) and MAP[0] * MAP[1] == GROUPS


def test_no_description_of_a_column_needs_another(root):
    for survey in CONFIGS.values():
        assert len({c.name for c in survey.columns}) == len(survey.columns)
        assert all(c.description and not c.description.endswith(".") for c in survey.columns)


@pytest.mark.parametrize(
    "changes, title, note",
    [
        ({}, "MegaCam 1000002p_01: BGP and B_SEEING", "r.MP9601, 102 s, 0.70 arcsec seeing by the tower's DIMM"),
        ({"label2": -1, "WDSEEMED": np.nan}, "MegaCam 1000002p_01: BGP", "r.MP9601, 102 s"),
        ({"label": -1, "label2": -1, "FILTER": "", "EXPTIME": np.nan}, "MegaCam 1000002p_01: no label",
         "0.70 arcsec seeing by the tower's DIMM"),
    ],
)  # fmt: skip
def test_the_picture_of_a_row(root, changes, title, note):
    row = next(row for row in load(root, "representative", "train", streaming=True) if row["object_id"] == "1000002p_01")
    figure = megacam_iqa.plot(row | changes)
    stamps, bars = figure.axes
    assert figure.get_suptitle() == title and stamps.get_xlabel() == note
    assert [text.get_text() for text in stamps.texts].count("empty") == 1
    assert [bar.get_width() for bar in bars.patches] == row["hits"].tolist()
    assert f"{STAMP} x {STAMP} pixels" in stamps.get_title()


def test_show_and_info(root, tmp_path):
    run = CliRunner().invoke(
        app, ["show", "megacam_iqa", "--data_dir", str(root), "--object", "1000002p_01", "-o", str(tmp_path / "a.png")]
    )
    assert run.exit_code == 0 and (tmp_path / "a.png").stat().st_size > 10_000
    run = CliRunner().invoke(app, ["show", str(root / "sources"), "-o", str(tmp_path / "b.png")])
    assert run.exit_code == 0 and (tmp_path / "b.png").exists()
    run = CliRunner().invoke(app, ["info", str(root / "representative")])
    assert run.exit_code == 0 and "40" in run.output and "hit_shares" in run.output
