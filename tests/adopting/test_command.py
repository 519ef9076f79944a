"""``skyset adopt`` and ``skyset verify`` from the command line."""

import csv
import json
import re

import h5py
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import skyset
from skyset.cli import app
from skyset.errors import UserError
from skyset.testing.mmu import write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.stdout, result.stderr


def test_adopt_says_what_is_there_and_how_to_load_it(tmp_path):
    write("sdss", tmp_path / "sdss", rows=40, cells=1)
    status, text, _ = run("adopt", "sdss")
    assert status == 0
    assert "40 rows in 1 file (one dataset a column); train 40" in text
    assert "no findings; arrays of 6 of the rows were looked at (--all_pixels: all)" in text
    assert "load it: skyset.load('sdss', split='train', streaming=True)" in text
    assert "look at it: skyset show sdss --limit 4 -o rows.png" in text
    assert "no file has changed" in run("adopt", "sdss")[1]
    status, text, _ = run("verify", "sdss")
    assert status == 0 and text.startswith("OK: 40 rows in 1 piece")


def test_broken_files_are_told_and_the_status_says_so(tmp_path):
    write("gaia", tmp_path / "gaia", faults=["truncated", "zero_rows"])
    status, text, error = run("adopt", "gaia", "-o", "index")
    assert status == 1 and "1 file cannot be read and was left out" in error
    assert re.search(r"  broken file, \S+: is cut short: [\d,]+ of its [\d,]+ bytes are there: copy it again\n", text)
    assert "1 broken file" in text and "all-zero row" in text and "index/findings.csv" in text
    status, text, error = run("verify", "index")
    assert status == 1 and "findings over all values" in text and "OK" not in text
    assert error.splitlines()[-1] == "1 file in index cannot be read: mend or replace, and adopt again"
    next((tmp_path / "gaia").rglob("*.hdf5")).unlink()
    status, text, error = run("verify", "index")
    assert status == 1 and "missing" in text and "`skyset adopt` with the same folder renews the index" in error


def test_a_declaration_goes_to_the_output_and_all_else_to_the_errors(tmp_path):
    write("yse", tmp_path / "yse")
    status, text, error = run("adopt", "yse", "--print_declaration")
    assert status == 0 and "SURVEY = Survey(" in text and "rows in" in error
    (tmp_path / "mine.py").write_text(text)
    status, text, _ = run("adopt", "yse", "--declaration", "mine.py", "--name", "mine")
    assert status == 0 and "skyset.load(" in text


def test_the_tree_and_the_name_lead_to_an_index_that_was_put_somewhere(tmp_path):
    write("plasticc", tmp_path / "plasticc", rows=2, cells=1)
    for more, leads in (((), "plasticc"), (("--name", "boss"), "boss")):
        status, text, _ = run("adopt", "plasticc", "-o", f"index/{leads}", *more)
        assert status == 0 and f"load it: skyset.load('{leads}', split='train', streaming=True)" in text
        assert len(skyset.load(leads)) == len(list(skyset.load(leads))) > 0
        assert run("info", leads)[0] == run("verify", leads)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "there is no such folder"),
        (("gaia", "-o", "gaia/index"), "is only read"),
        (("gaia", "--position_unit", "furlong"), "one of deg, hour, rad"),
        (("gaia", "--declaration", "no.py"), "there is no such file"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, arguments, message):
    write("gaia", tmp_path / "gaia", rows=1, cells=1)
    status, text, error = run("adopt", *arguments)
    assert status == 2 and text == "" and message in error and len(error.splitlines()) == 1


def test_verify_tells_how_many_findings_there_are(tmp_path):
    write("gaia", tmp_path / "gaia", rows=6, cells=2, faults=["duplicate_ids"])
    (folder,) = [each for each in (tmp_path / "gaia").iterdir() if each.is_dir()]
    for number in range(70):
        (tmp_path / "gaia" / f"{number}.csv").write_text("")
    run("adopt", "gaia")
    status, text, _ = run("verify", "gaia")
    count = int(re.search(r"(\d+) duplicate id", text)[1])
    assert status == 0 and f"  duplicate id, {folder.name}/healpix=" in text
    assert text.splitlines()[-1].startswith("OK: ") and text.splitlines()[-1].endswith(f", with {count} findings")


def test_examples_of_findings_are_some(tmp_path):
    write("hsc", tmp_path / "hsc", rows=50, cells=1, faults=["infinite_ivar"])
    run("adopt", "hsc")
    text = run("verify", "hsc")[1]
    shown = sum(line.startswith("  infinite ivar, pdr3_dud_22.5/healpix=") for line in text.splitlines())
    total = int(re.search(r"(\d+) rows? of infinite ivar", text)[1])
    assert shown < total and f"  and {total - shown} more" in text.splitlines()


@pytest.mark.parametrize(("fault", "kind"), [("two_dtypes", "dtypes differ"), ("missing_column", "column missing")])
def test_a_file_that_differs_is_named(tmp_path, fault, kind):
    write("yse", tmp_path / "yse", rows=3, cells=2, faults=[fault])
    run("adopt", "yse", "-o", "index")
    with open("index/findings.csv") as file:
        (found,) = [each for each in csv.DictReader(file) if each["kind"] == kind]
    name, dtypes = found["what"].split(":")[0], {}
    for path in (tmp_path / "yse").rglob("*.hdf5"):
        with h5py.File(path) as one:
            dtypes[str(path.relative_to(tmp_path / "yse"))] = str(one[name].dtype) if name in one else ""
    odd = dtypes.pop(found["file"])
    assert len(dtypes) == 5 and odd not in dtypes.values() and (odd == "") == (fault == "missing_column")


def test_a_tree_goes_by_its_name_and_its_files_are_files(tmp_path, monkeypatch):
    write("yse", tmp_path / "yse", rows=3, cells=2)
    monkeypatch.setattr("sys.argv", ["skyset", "adopt", "yse", "--name", "transients", "--print_declaration"])
    run("adopt", "yse", "--name", "transients", "--print_declaration")
    for where in ("yse", "transients"):
        text = run("info", where)[1]
        assert re.search(r"^tree +transients *$", text, re.MULTILINE) and re.search(r"^files +6 in ", text, re.MULTILINE)
    status, _, _ = run("report", "yse", "-o", "report.html")
    page = (tmp_path / "report.html").read_text()
    assert status == 0 and "<h1>transients</h1>" in page and "<title>transients</title>" in page
    manifest = next((tmp_path / "cache" / "adopted").glob("transients-*/manifest.json")).read_text()
    assert json.loads(manifest)["build"]["command"] == ["skyset", "adopt", "yse", "--name", "transients"]


def test_a_tree_is_pushed_by_its_folder_alone(tmp_path):
    write("gaia", tmp_path / "gaia", rows=1, cells=1)
    run("adopt", "gaia")
    status, _, error = run("push", "gaia", "--data_dir", "gaia", "--repo", "me/gaia")
    assert status == 2 and error.strip().endswith(
        "gaia is an adopted tree: `skyset push gaia --repo ORG/NAME`, without --data_dir"
    )
    status, _, error = run("show", "gaia", "--data_dir", "gaia")
    assert status == 2 and "gaia is an adopted tree, and no survey's name" in error and len(error.splitlines()) == 1


def test_info_of_somebodys_parquet(tmp_path):
    (tmp_path / "mine").mkdir()
    table = pa.table({"name": ["a", "b"], "ra": [1.0, 2.0], "dec": [3.0, 4.0], "mag": pa.array([5, 6], pa.float32())})
    pq.write_table(table, tmp_path / "mine" / "train.parquet")
    status, text, _ = run("info", "mine")
    assert status == 0 and re.search(r"^rows +2 *$", text, re.MULTILINE) and "ra and dec" in text and "mag" in text
    told = json.loads(run("info", "mine", "--json")[1])
    assert (told["rows"], told["files"], "cells" in told, "ra" in told) == (2, 1, False, False)
    assert [each["name"] for each in told["columns"]] == ["name", "ra", "dec", "mag"]
    status, _, error = run("info", "mine", "--plot", "a.png")
    assert status == 2 and "`skyset report mine` draws it" in error


def test_adopted_trees_are_listed_after_the_surveys(tmp_path):
    assert "adopted tree" not in run("surveys")[1]
    write("gaia", tmp_path / "gaia", rows=3, cells=2)
    write("sdss", tmp_path / "sdss", rows=1, cells=1)
    run("adopt", "gaia")
    run("adopt", "gaia", "--name", "stars-1", "-o", "index")
    run("adopt", "sdss")
    assert run("surveys")[1].splitlines()[-3:] == [
        f"gaia              an adopted tree, 6 rows: {tmp_path / 'gaia'}",
        f"sdss              an adopted tree, 1 row: {tmp_path / 'sdss'}",
        f"stars-1           an adopted tree, 6 rows: {tmp_path / 'gaia'}",
    ]
    next((tmp_path / "cache" / "adopted").glob("sdss-*/manifest.json")).write_text("{")
    assert [line.split()[0] for line in run("surveys")[1].splitlines()[-2:]] == ["gaia", "stars-1"]


def test_what_is_nowhere_says_where_was_looked(tmp_path):
    with pytest.raises(
        UserError, match=r"unknown survey 'nothere'; known: .*gz3d.*; no folder here and no adopted tree has"
    ):
        skyset.load("nothere")
    (tmp_path / "empty").mkdir()
    for folder in ("empty", str(tmp_path / "empty")):
        with pytest.raises(UserError, match=rf"the folder {folder} has no data that can be loaded: .*; known surveys: "):
            skyset.load(folder)
    with pytest.raises(UserError, match=r"there is no folder /no/such/place; known surveys: "):
        skyset.load("/no/such/place")
    status, _, error = run("info", "nothere")
    assert status == 2 and "no folder here and no adopted tree has this name" in error


def test_other_units_are_told(tmp_path):
    write("gaia", tmp_path / "gaia", faults=["radians"])
    assert "positions are stored in rad, and handed out in degrees" in run("adopt", "gaia")[1]


def test_columns_without_anything_to_judge_are_not_said_to_be_looked_at(tmp_path):
    write("gaia", tmp_path / "gaia", rows=40, cells=1)
    assert run("adopt", "gaia")[1].splitlines()[1] == "no findings"


def test_parquet_needs_no_index(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.parquet").write_bytes(b"PAR1")
    status, _, error = run("adopt", "mine")
    assert status == 2 and "no HDF5 file" in error and "needs no index: skyset.load('" in error


def test_help_teaches():
    status, text, _ = run("adopt", "--help")
    assert status == 0 and "MultimodalUniverse" in text and "--print_declaration" in text and "healpix=" in text
