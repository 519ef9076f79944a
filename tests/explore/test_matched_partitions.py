"""Matched rows as partitions of their own: the stream's values, whatever interrupted it; every command takes them."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

import skyset
from skyset.building.folder import BuildFolder
from skyset.cli import app
from skyset.errors import UserError
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.publishing.hats import Asked, export
from tests.conftest import once
from tests.loading.test_pushed import same
from tests.matched import MASKED, STAMPS, cutouts, write_survey

ROWS = 12
RA, DEC = np.linspace(0, 40, ROWS), np.linspace(-30, 30, ROWS)
MASKS = np.random.default_rng(1).integers(0, 9, (ROWS, 2, 80, 80)).astype(np.uint8)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Partitions ``stamps`` and ``masked``, HATS of the latter, and a catalogue in hours. Do not change it."""
    skyset.register("masked", "tests.matched")

    def make(folder):
        write_survey(folder / "stamps", STAMPS, RA, DEC, image=cutouts(ROWS), mag=np.arange(ROWS, dtype=np.float32))
        write_survey(folder / "masked", MASKED, RA, DEC, bar=MASKS[:, 0], arm=MASKS[:, 1])
        export(str(folder / "masked"), folder / "hats", Asked(max_bytes=100_000))
        hours = pa.table({"who": [f"o{n}" for n in range(ROWS)], "hour": RA / 15, "north": DEC})
        parquet.write_table(hours, folder / "hours.parquet")

    return once(tmp_path_factory, "sides_to_write", make)


def check(folder, stream):
    """The folder's rows are the stream's, and nothing is wrong with it."""
    manifest = Manifest.load(folder)
    assert list(verify(folder, skyset.loading.registry.survey("matched"))) == []
    wanted = sorted(stream, key=lambda row: tuple(str(row[name]) for name in row if name.endswith("object_id")))
    found = skyset.load(str(folder))
    rows = sorted(found, key=lambda row: tuple(str(row[name]) for name in row if name.endswith(".object_id")))
    assert list(found.features)[4:] == list(stream.features)
    assert {name: found.features[name] for name in stream.features} == dict(stream.features)
    assert len(rows) == len(wanted) == manifest.rows and len({row["object_id"] for row in rows}) == len(rows)
    for row, expected in zip(rows, wanted, strict=True):
        assert all(same(row[name], expected[name]) for name in expected)
    return rows


def test_rows_are_those_of_the_stream(sides, tmp_path):
    stream = skyset.crossmatch(sides / "stamps", sides / "masked", sides / "hours.parquet", ra="hour:hour", dec="north")
    manifest = skyset.to_partitions(stream, tmp_path / "three")
    rows = check(tmp_path / "three", stream)
    assert rows[1]["object_id"].split("|")[:2] == [rows[1]["stamps.object_id"], rows[1]["masked.object_id"]]
    assert {row["object_id"].split("|")[2] for row in rows} == {f"#{n}" for n in range(ROWS)}
    assert manifest.sources == [str(sides / name) for name in ("stamps", "masked", "hours.parquet")]
    table = skyset.load(str(tmp_path / "three"), streaming=False, cache_dir=str(tmp_path / "cache"))
    assert len(table) == ROWS and table[0]["masked.masks"]["array"].dtype == np.uint8
    assert "stamps.image" in (tmp_path / "three" / "README.md").read_text()


def test_a_catalogue_first_hats_beside_it_and_columns_selected(sides, tmp_path):
    stream = skyset.crossmatch(sides / "hours.parquet", sides / "hats", ra=("hour:hour", ""), dec=("north", ""))
    stream = stream.select_columns(["masked.masks", "hours.who"])
    skyset.to_partitions(stream, tmp_path / "some")
    found = list(skyset.load(str(tmp_path / "some")))
    assert set(found[0]) == {"object_id", "ra", "dec", "healpix", "masked.masks", "hours.who"}
    by_name = {row["hours.who"]: row for row in found}
    assert all(np.array_equal(by_name[f"o{n}"]["masked.masks"]["array"], MASKS[n]) for n in range(ROWS))
    assert np.allclose([by_name[f"o{n}"]["ra"] for n in range(ROWS)], RA) and found[0]["object_id"].startswith("#")
    taken = skyset.crossmatch(sides / "stamps", sides / "masked").skip(2).take(5)
    assert skyset.to_partitions(taken, tmp_path / "five").rows == 5


def run(*arguments):
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command(sides, tmp_path):
    arguments = ("crossmatch", sides / "stamps", sides / "masked", "--names", "a,b", "--columns", "masks,image")
    told = run(*arguments, "--partitions", tmp_path / "both", "--images")
    assert f"{ROWS} matches" in told and f"{ROWS} rows" in told
    names = ["a.image", "b.masks", "separation_arcsec"]
    check(tmp_path / "both", skyset.crossmatch(sides / "stamps", sides / "masked", names=("a", "b")).select_columns(names))
    result = CliRunner().invoke(app, ["crossmatch", "a", "b", "--images", "-o", "x.csv", "--partitions", "y"])
    assert result.exit_code == 2 and "--images is without -o" in result.output


def test_encoded_images_and_what_takes_the_rows(rings, tmp_path):
    stream = skyset.crossmatch(rings, rings, names=("a", "b"), radius=0.1).take(5)
    skyset.to_partitions(stream, tmp_path / "both")
    check(tmp_path / "both", stream)
    assert "a.image" in run("info", tmp_path / "both")
    run("show", tmp_path / "both", "-o", tmp_path / "a.png")
    run("hats", tmp_path / "both", "-o", tmp_path / "hats")
    run("verify", tmp_path / "hats", "--against", tmp_path / "both")
    assert "5 rows" in run("push", "matched", "--data_dir", tmp_path / "both", "--repo", "me/both", "--dry_run")
    for again in (tmp_path / "both", tmp_path / "hats"):  # what was matched may be matched
        row = next(iter(skyset.crossmatch(again, rings, radius=0.1)))
        assert row["matched.b.image"].shape == (16, 16, 3)


_KILLED = """
import os, signal, sys
import skyset
from skyset.building.folder import BuildFolder
done, left = BuildFolder.done, [4]
def killed(self, entry):
    done(self, entry)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
BuildFolder.done = killed
skyset.register("masked", "tests.matched")
skyset.to_partitions(skyset.crossmatch(*sys.argv[2:]), sys.argv[1])
"""


def test_after_a_kill_the_same_call_goes_on(sides, tmp_path, monkeypatch):
    both = [str(sides / "stamps"), str(sides / "hats")]
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "out"), *both])
    assert ended.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "out").glob("healpix=*/*.hdf5"))) == 4
    assert not (tmp_path / "out" / "manifest.json").exists()
    written, done = [], BuildFolder.done
    monkeypatch.setattr(BuildFolder, "done", lambda self, entry: written.append(entry.path) or done(self, entry))
    stream = skyset.crossmatch(*both)
    manifest = skyset.to_partitions(stream, tmp_path / "out")
    assert len(written) == len(manifest.files) - 4
    check(tmp_path / "out", stream)
    written.clear()
    skyset.to_partitions(stream, tmp_path / "out")
    assert not written, "a second time there is nothing to do"


def test_what_cannot_be_written_is_one_line(sides, tmp_path):
    def refused(stream, folder=tmp_path / "out", **options):
        with pytest.raises(UserError) as error:
            skyset.to_partitions(stream, folder, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    stream = skyset.crossmatch(sides / "stamps", sides / "masked")
    parquet.write_table(pa.table({"ra": RA[:2], "dec": DEC[:2]}), tmp_path / "two.parquet")
    left = skyset.crossmatch(sides / "stamps", tmp_path / "two.parquet", how="left")
    assert "have no images to be written" in refused(left)
    skyset.to_partitions(stream, tmp_path / "written")
    assert "is a match" in refused(skyset.load(str(tmp_path / "written")))
    assert "is a match" in refused(stream.map(lambda row: row))
    assert "neither cast nor renamed" in refused(stream.rename_column("stamps.mag", "mag"))
    assert "no matches" in refused(stream.take(0))
    assert "holds masked" in refused(stream, shutil.copytree(sides / "masked", tmp_path / "masked"))
    damaged = shutil.copytree(sides / "masked", tmp_path / "damaged")
    stream = skyset.crossmatch(sides / "stamps", damaged)
    file = next(damaged.glob("healpix=*/*.hdf5"))
    os.truncate(file, 1000)
    assert file.name in refused(stream, tmp_path / "new")


def test_notes_that_cannot_be_true_are_refused(sides, tmp_path):
    skyset.to_partitions(skyset.crossmatch(sides / "stamps", sides / "masked"), tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    whole = path.read_text()
    for change in (
        lambda build: build["features"][0].update(source="gone"),
        lambda build: build["features"].append({"name": "x"}),
        lambda build: build["features"][5].update(encoded=True),
        lambda build: build["image_axes"].update({"stamps.image": 7}),
        lambda build: build.update(features=3),
    ):
        values = json.loads(whole)
        change(values["build"])
        path.write_text(json.dumps(values))
        with pytest.raises(UserError, match="what its manifest notes of features is damaged"):
            skyset.load(str(tmp_path / "out"))
    values = json.loads(whole)
    values["build"] = {}
    path.write_text(json.dumps(values))
    assert "masked.bar" in skyset.load(str(tmp_path / "out")).features, "the columns as they are"
