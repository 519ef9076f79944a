"""Ragged columns and groups without labels, published: pushed Parquet and HATS give back each row by value."""

import dataclasses
import json
import subprocess
import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skyset
from skyset.building.card import features_table, stock_recipe
from skyset.loading.arrow import arrow_array
from skyset.loading.found import opened
from skyset.loading.partition_rows import PartitionRows
from skyset.loading.ragged import Ragged
from skyset.loading.reader import cut
from skyset.loading.stream import SurveyStream
from skyset.publishing import plan, push
from skyset.publishing.contents import Form
from skyset.publishing.croissant import croissant
from skyset.publishing.hats import Asked, export
from skyset.publishing.hats_groups import plain_array, tables_in
from skyset.publishing.hats_rows import IMAGES
from skyset.publishing.preview import PREVIEW, pictured
from skyset.publishing.request import Request
from skyset.publishing.source import sources
from skyset.publishing.verify import verify_published
from skyset.survey import Trim
from skyset.testing.hub import HubServer
from tests import long_rows
from tests.conftest import once
from tests.hub import TOKEN, environment, talking_to
from tests.long_survey import NAME, SURVEY
from tests.publishing.test_verify import write_pushed

STORED = long_rows.values()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders ``source``, ``pushed`` and of HATS in three forms, of the same rows. Do not change them."""
    skyset.register(NAME, "tests.long_survey")

    def make(folder):
        long_rows.write(folder / "source")
        write_pushed(folder / "source", folder / "pushed")
        for images in IMAGES:
            export(str(folder / "source"), folder / images, Asked(images=images, max_rows=8, margin=600))

    return once(tmp_path_factory, "long_rows_published", make)


def lines(folder, against=None) -> list[str]:
    return list(verify_published(str(folder), against and str(against)))


def check(rows, side: str = "", count: int = long_rows.ROWS) -> None:
    seen = 0
    for row in rows:
        long_rows.assert_row(row, STORED, side)
        seen += 1
    assert seen == count


def test_pushed_files_hold_rows_without_padding(made):
    tables = [pq.read_table(path, partitioning=None) for path in sorted((made / "pushed").rglob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len(rows) == long_rows.ROWS
    spectrum = tables[0].schema.field("spectrum").type
    assert spectrum.field("flux").type == pa.list_(pa.float32())
    assert spectrum.field("mask").type == pa.list_(pa.bool_())
    for row in rows:
        long_rows.assert_row(row, STORED, exact=False)


def test_pushed_rows_are_read_back(made):
    check(skyset.load(NAME, data_dir=str(made / "pushed"), streaming=True).with_format("numpy"))
    check(skyset.load(NAME, data_dir=str(made / "pushed"), streaming=True).with_format("numpy").shuffle(seed=3))
    check(skyset.load(str(made / "pushed")).with_format("numpy"))
    root, survey, manifest = opened(str(made / "pushed"))
    assert survey.trims == () and survey.column("cube").shape == (-1, 2, 3) and manifest.rows == long_rows.ROWS
    entry = manifest.files[0]
    with survey.opens(f"{root}/{entry.path}", survey.columns, entry.rows) as file:
        assert file.ends("panels")[-1] == len(file.read("panels"))


def test_a_pushed_file_is_verified_by_value(made, tmp_path):
    assert lines(made / "pushed") == lines(made / "pushed", made / "source") == []
    long_rows.write(tmp_path / "other", lc_flux=[flux + 1 for flux in STORED["lc_flux"]])
    told = lines(made / "pushed", tmp_path / "other")
    assert told and all("lightcurve is not that of the source" in line for line in told)


def test_the_preview_is_of_a_group(made):
    assert pictured(SURVEY) == "image.flux"
    path = next((made / "pushed").rglob("*.parquet"))
    (first, *_) = pq.read_table(path, columns=[PREVIEW], partitioning=None)[PREVIEW].to_pylist()
    assert np.asarray(datasets.Image().decode_example(first)).shape == (16, 16, 3)


def test_croissant_has_the_members_of_groups(made):
    (source,) = sources(str(made / "source")).values()
    features = datasets.Features.from_arrow_schema(Form().schema(source))
    values = json.loads(croissant({"default": source}, {"default": features}, "https://example.org", "# A card\n"))
    fields = {field["name"].partition("/")[2]: field for field in values["recordSet"][0]["field"]}
    flux, wave, _ = fields["spectrum"]["subField"]
    assert (flux["dataType"], flux["repeated"], flux["source"]["transform"]) == ("sc:Float", True, {"jsonPath": "flux"})
    assert wave["description"] == "wavelength [Angstrom]"
    assert fields["cube"]["repeated"] and "dataType" not in fields["image"]
    assert "dataType" in fields["z"] and "repeated" not in fields["z"]


def test_the_card_tells_what_is_of_any_length(made, tmp_path):
    assert "| `spectrum.flux` | float32 | any |" in features_table(SURVEY)
    text = stock_recipe(SURVEY)
    assert "but for arrays" in text
    code = text.split("```python\n")[1].split("```")[0].replace(f"data/{NAME}", str(made / "source"))
    found: dict = {}
    exec(code.replace('split="train"', f'split="train", cache_dir={str(tmp_path)!r}'), found)
    assert len(found["rows"]) == long_rows.ROWS and "z" in found["rows"].features


READ = """
import json, sys
sys.modules["skyset"] = None
import numpy as np
from datasets import load_dataset

def plain(value):
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value

for streaming in (True, False):
    rows = load_dataset("sky/long", split="train", streaming=streaming)
    print(json.dumps({name: str(feature) for name, feature in rows.features.items()}))
    for row in rows:
        row.pop("preview")
        print(json.dumps(plain(row)))
"""


@pytest.mark.datasets3
def test_a_push_is_read_without_skyset(made, tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        hub.add_user("alice", TOKEN, organisations=("sky",))
        with talking_to(hub):
            push.push(plan.planned(Request(NAME, made / "source", "sky/long", work_dir=tmp_path / "work")))
            check(skyset.load(NAME, data_dir="hf://datasets/sky/long", streaming=True).with_format("numpy"))
            assert lines("hf://datasets/sky/long", made / "source") == []
        run = [sys.executable, "-c", READ]
        done = subprocess.run(run, env=environment(hub, tmp_path), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(printed) == 2 * (1 + long_rows.ROWS)
    expected = skyset.load(NAME, data_dir=str(made / "source")).features
    for told in printed[:: 1 + long_rows.ROWS]:
        told.pop("preview")
        assert told == {name: str(feature) for name, feature in expected.items()}
    for row in printed[1 : 1 + long_rows.ROWS] + printed[2 + long_rows.ROWS :]:
        long_rows.assert_row(row, STORED, exact=False)


@pytest.mark.parametrize("images", IMAGES)
def test_lsdb_opens_light_curves_as_tables_in_rows(made, images):
    lsdb = pytest.importorskip("lsdb")
    frame = lsdb.open_catalog(str(made / images)).compute()
    assert len(frame) == long_rows.ROWS
    for _, row in frame.iterrows():
        expected = long_rows.trimmed(STORED, long_rows.number(row["object_id"]))
        for group, keys in (
            ("lightcurve", ("time", "flux", "band")),
            ("spectrum", ("flux", "lambda", "mask")),
            ("catalog", ("flux", "type")),
        ):
            for key in keys:
                want = expected[group][key]
                got = row[group][key].tolist()
                assert got == (want.astype(str) if want.dtype.kind == "S" else want).tolist()
        assert [list(map(list, plane)) for plane in row["cube"]] == expected["cube"].tolist()
        assert [list(part) for part in row["panels"]] == expected["panels"].tolist()
    nested = frame["lightcurve.flux"]
    assert len(nested) == sum(len(long_rows.trimmed(STORED, row)["lightcurve"]["flux"]) for row in range(long_rows.ROWS))


@pytest.mark.parametrize("images", IMAGES)
def test_a_catalogue_is_read_back_as_the_survey_hands_it_out(made, images):
    assert lines(made / images) == lines(made / images, made / "source") == []
    root, survey, manifest = opened(str(made / images))
    assert survey.features == SURVEY.features and survey.trims == () and manifest.rows == long_rows.ROWS
    pieces = cut(root, manifest.files, survey.columns)
    rows = PartitionRows(survey, pieces, [feature.name for feature in survey.features])
    check(SurveyStream(rows, info=datasets.DatasetInfo(features=rows.features), split="train").with_format("numpy"))


def test_a_change_in_a_table_of_a_catalogue_is_named(made, tmp_path):
    long_rows.write(tmp_path / "other", time=[time + 1 for time in STORED["time"]])
    told = lines(made / "array", tmp_path / "other")
    assert told and all("lightcurve is not that of the source" in line for line in told)


@pytest.mark.datasets3
def test_datasets_read_a_catalogue(made, tmp_path):
    rows = datasets.load_dataset(str(made / "array"), split="train", cache_dir=str(tmp_path)).with_format("numpy")
    assert len(rows) == long_rows.ROWS
    for row in rows:
        expected = long_rows.trimmed(STORED, long_rows.number(row["object_id"]))
        for group in ("lightcurve", "spectrum"):
            for key, want in expected[group].items():
                assert np.asarray(row[group][key]).astype(str).tolist() == want.astype(str).tolist()
        assert np.array_equal(row["image_array"], expected["image"]["flux"])
        assert np.asarray(row["cube"]).size == 0 or np.array_equal(row["cube"], expected["cube"])


def test_a_catalogue_of_anybodys_has_ragged_columns(made):
    """The catalogue alone has no note of ours: its columns are what the files say."""
    root, survey, manifest = opened(str(made / "array" / NAME))
    found = {column.name: column.shape for column in survey.columns}
    assert (found["spectrum.flux"], found["lightcurve.band"], found["image_array"]) == ((-1,), (-1,), (3, 16, 16))
    entry = manifest.files[0]
    with survey.opens(f"{root}/{entry.path}", survey.columns, entry.rows) as file:
        ends, flux = file.ends("spectrum.flux"), file.read("spectrum.flux")
        for row, name in enumerate(file.text("object_id")):
            want = long_rows.trimmed(STORED, long_rows.number(name))["spectrum"]["flux"]
            np.testing.assert_array_equal(flux[ends[row] : ends[row + 1]], want)


def test_groups_whose_columns_are_of_other_lengths_are_columns(made, tmp_path):
    """Without padding's rule lengths alone tell; where they differ, LSDB would open no struct."""
    assert list(tables_in(SURVEY)) == ["spectrum", "lightcurve"]
    partly = dataclasses.replace(SURVEY, trims=(Trim(("time", "lc_flux"), "time", (0.0,)),))
    assert list(tables_in(partly)) == ["spectrum"]
    skyset.register("other_lengths", "tests.long_survey")
    shorter = [value[: len(value) // 2] for value in STORED["spectrum_flux"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.long_survey.SURVEY", dataclasses.replace(SURVEY, trims=SURVEY.trims[1:]))
        long_rows.write(tmp_path / "source", spectrum_flux=shorter)
        export(str(tmp_path / "source"), tmp_path / "hats", Asked())
    schema = pq.read_schema(next((tmp_path / "hats").glob(f"{NAME}/dataset/*/*/*.parquet")))
    assert {"spectrum_flux", "wave", "lightcurve"} < set(schema.names) and "spectrum" not in schema.names


def test_lists_of_arrays_are_plain_without_a_copy():
    feature = datasets.Features(
        {"cube": datasets.Sequence(datasets.Array2D((2, 3), "int16")), "n": {"x": datasets.Array2D((1, 2), "int8")}}
    )
    schema = feature.arrow_schema
    cube = arrow_array(
        Ragged(np.arange(12, dtype=np.int16), np.array([0, 0, 12]), shape=(-1, 2, 3)), schema.field("cube").type
    )
    plain = plain_array(cube.slice(1))
    assert plain.type == pa.list_(pa.list_(pa.list_(pa.int16())))
    assert plain.to_pylist() == np.arange(12).reshape(1, 2, 2, 3).tolist()
    group = arrow_array({"x": np.array([[[1, 2]]], np.int8)}, schema.field("n").type)
    assert plain_array(group).type == pa.struct([("x", pa.list_(pa.list_(pa.int8())))])
    assert plain_array(group).to_pylist() == [{"x": [[1, 2]]}]
