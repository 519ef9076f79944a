"""Any folder of Parquet files with positions, as commands read it: matched, described, by value."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import skyset
from skyset.cli import app
from skyset.errors import UserError
from skyset.loading.found import opened, position_in
from tests.image_sets import jpegs, pixels

pytestmark = pytest.mark.usefixtures("cache_of_its_own")
ROWS = 12
RA, DEC = np.linspace(10, 340, ROWS), np.linspace(-40, 60, ROWS)


@pytest.fixture
def folder(tmp_path):
    """Two splits, images, and votes of objects along a line on the sky."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    images = pa.array([{"bytes": each, "path": None} for each in jpegs(ROWS)], kind)
    votes, names = pa.array(range(ROWS), pa.int32()), [f"g{n}" for n in range(ROWS)]
    table = pa.table({"id_str": names, "RAJ2000": RA, "DEJ2000": DEC, "smooth": votes, "image": images})
    for split, start, stop in (("train", 0, 8), ("test", 8, ROWS)):
        (tmp_path / "set" / split).mkdir(parents=True)
        pq.write_table(table.slice(start, stop - start), tmp_path / "set" / split / "rows.parquet", row_group_size=3)
    return tmp_path / "set"


def test_what_lies_in_a_folder(folder):
    root, survey, manifest = opened(str(folder))
    assert root == str(folder) and survey.key == "id_str" and position_in((root, survey, manifest)) == ("RAJ2000", "DEJ2000")
    assert {split: sum(entry.rows for entry in files) for split, files in manifest.splits.items()} == {"train": 8, "test": 4}
    (entry,) = manifest.splits["test"]
    assert entry.path == "test/rows.parquet" and entry.ra == (RA[8], RA[-1]) and entry.dec == (DEC[8], DEC[-1])
    with survey.opens(f"{root}/{entry.path}", survey.columns, entry.rows, entry.bytes) as file:
        assert file.read("smooth").tolist() == [8, 9, 10, 11] and file.text("id_str") == ["g8", "g9", "g10", "g11"]


def test_a_folder_is_matched(folder, tmp_path):
    pq.write_table(pa.table({"ra": RA[::2], "dec": DEC[::2], "mine": np.arange(6)}), tmp_path / "mine.parquet")
    stream = skyset.crossmatch(tmp_path / "mine.parquet", folder, names=("mine", "set"), radius=1)
    rows = list(stream)
    assert sorted(row["mine.mine"] for row in rows) == list(range(6))
    for row in rows:
        number = 2 * int(row["mine.mine"])
        assert row["set.id_str"] == f"g{number}" and row["set.smooth"] == number
        assert np.array_equal(row["set.image"], pixels(jpegs(ROWS)[number]))


def test_folders_that_cannot_be_read_are_told_in_one_line(folder):
    (folder / "test" / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read") as error:
        opened(str(folder))
    assert "\n" not in str(error.value)


def test_rows_of_a_folder_are_drawn_and_reported(folder, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, [*map(str, arguments)])

    for more in (("--object", "g7"), ("--limit", 3)):
        assert run("show", folder, *more, "-o", tmp_path / "picture.png").exit_code == 0
        assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    refused = run("show", folder, "--object", "g99", "-o", tmp_path / "none.png")
    assert refused.exit_code == 2 and "no object g99" in refused.output
    assert run("report", folder, "-o", tmp_path / "report.html", "--images", 2).exit_code == 0
    page = (tmp_path / "report.html").read_text()
    assert "smooth" in page and "RAJ2000" in page


def test_files_without_a_card_are_read_too(tmp_path):
    pq.write_table(
        pa.table({"id": [1, 2, 3], "ra": RA[:3], "dec": DEC[:3], "flux": [[1.0], [], [2.0, 3.0]]}), tmp_path / "a.parquet"
    )
    root, survey, manifest = opened(str(tmp_path))
    assert root == str(tmp_path) and manifest.rows == 3
    assert survey.key == "id" and position_in((root, survey, manifest)) == ("ra", "dec")
