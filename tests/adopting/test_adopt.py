"""Trees adopted: indexes by value, findings for what was planted, none for what was not, runs that go on."""

import csv
import json
import shutil

import h5py
import numpy as np
import pytest

from skyset import load
from skyset.adopting.adopt import adopt
from skyset.errors import PartitionError, UserError
from skyset.partitions.manifest import keys_digest
from skyset.sky import healpix_cell
from skyset.testing.mmu import KINDS, write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_CACHE", str(tmp_path / "cache"))


def adopted(tmp_path, kind="gaia", faults=(), **more):
    truth = write(kind, tmp_path / kind, faults=faults, **({"rows": 6, "cells": 3} | more))
    return truth, adopt(tmp_path / kind, tmp_path / "index").datasets[0]


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def found(dataset):
    """Findings as they are in the file: (kind, file, row)."""
    with open(dataset.folder / "findings.csv") as file:
        return [(each["kind"], each["file"], each["row"]) for each in csv.DictReader(file)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_without_a_finding(tmp_path, kind):
    truth, dataset = adopted(tmp_path, kind, rows=2, cells=2)
    assert dataset.findings.lines() == [] and dataset.broken == 0
    values = manifest(tmp_path / "index")
    assert values["rows"] == dataset.rows == len(truth.rows) and values["survey"] == "adopted"
    root = values["build"]["adopted"]["tree"]
    for entry in values["files"]:
        path = f"{root}/{entry['path']}"
        ids = truth.files[path.removeprefix(f"{tmp_path / kind}/")]
        if dataset.inferred.form.kind != "objects":
            assert entry["keys"] == keys_digest(ids) and entry["rows"] == len(ids)
        assert 0 <= entry["ra"][0] <= entry["ra"][1] <= 360 and entry["sha256"] == ""
    assert not list((tmp_path / kind).rglob("manifest.json"))


def test_entries_are_what_h5py_reads(tmp_path):
    _, dataset = adopted(tmp_path, "gaia")
    for entry in manifest(dataset.folder)["files"]:
        with h5py.File(tmp_path / "gaia" / "gaia" / entry["path"]) as file:
            ra, dec, ids = file["ra"][:], file["dec"][:], file["source_id"][:]
        assert entry["keys"] == keys_digest([str(each) for each in ids]) and entry["rows"] == len(ids)
        assert entry["ra"] == [ra.min(), ra.max()] and entry["dec"] == [dec.min(), dec.max()]
        assert entry["healpix"] == healpix_cell(ra[0], dec[0])
        assert entry["bytes"] == (tmp_path / "gaia" / "gaia" / entry["path"]).stat().st_size


@pytest.mark.parametrize(
    ("kind", "fault", "expected"),
    [
        ("jwst", "wrong_cell", "wrong cell"),
        ("jwst", "hashed_ids", "unstable id"),
        ("desi", "restarting_ids", "unstable id"),
        ("gaia", "zero_rows", "all-zero row"),
        ("plasticc", "empty_band", "empty band"),
        ("legacysurvey", "duplicate_ids", "duplicate id"),
        ("sdss", "inverted_mask", "inverted mask"),
        ("hsc", "inverted_mask", "inverted mask"),
        ("hsc", "infinite_ivar", "infinite ivar"),
        ("yse", "wrong_cell", "wrong cell"),
        ("gaia", "foreign_file", "foreign file"),
        ("gaia", "foreign_hdf5", "foreign file"),
        ("sdss", "two_dtypes", "dtypes differ"),
        ("sdss", "missing_column", "column missing"),
        ("yse", "missing_column", "column missing"),
        ("sdss", "not_healpix", "not a HEALPix cell"),
        ("sdss", "truncated", "broken file"),
        ("manga", "truncated", "broken file"),
        ("gaia", "not_hdf5", "broken file"),
        ("gaia", "nan_position", "no position"),
        ("yse", "nan_position", "no position"),
    ],
)
def test_planted_faults_are_named_and_no_others(tmp_path, kind, fault, expected):
    truth, dataset = adopted(tmp_path, kind, [fault])
    kinds = {each[0] for each in found(dataset)}
    assert expected in kinds and kinds <= {expected, "duplicate id"}
    if fault != "restarting_ids" and fault != "duplicate_ids":
        assert kinds == {expected}
    if expected in ("wrong cell", "all-zero row", "broken file", "no position") and kind != "yse":
        where = {(path, row) for _, path, row in found(dataset)}
        assert where == {(each.path, "" if each.row < 0 else str(each.row)) for each in truth.planted}
    assert dataset.broken == (expected == "broken file")


def test_duplicates_are_counted_and_shown(tmp_path):
    truth, dataset = adopted(tmp_path, "gaia", ["duplicate_ids"])
    assert dataset.findings.counts["duplicate id"] == 2 * len(truth.planted)
    again = {(path, int(row)) for _, path, row in found(dataset) if row}
    assert again == {(each.path, each.row) for each in truth.planted}


@pytest.mark.parametrize(("fault", "unit"), [("radians", "rad"), ("hours", "hour")])
@pytest.mark.parametrize("kind", ["sdss", "yse"])
def test_other_units_are_proved_by_the_cells(tmp_path, kind, fault, unit):
    _, right = adopted(tmp_path / "right", kind)
    _, dataset = adopted(tmp_path / "other", kind, [fault])
    assert dataset.unit == unit and right.unit == "deg" and dataset.findings.lines() == []
    both = [manifest(each.folder)["files"] for each in (right, dataset)]
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one["ra"], other["ra"], atol=1e-4)
        np.testing.assert_allclose(one["dec"], other["dec"], atol=1e-4)
        assert one["keys"] == other["keys"] and one["healpix"] == other["healpix"]


def test_units_that_nothing_proves_are_asked_for(tmp_path):
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["ra"], file["dec"], file["id"] = np.linspace(0.1, 6.2, 50), np.linspace(-1.5, 1.5, 50), np.arange(9, 59)
    (tmp_path / "tree").mkdir()
    shutil.move(tmp_path / "mine.h5", tmp_path / "tree")
    with pytest.raises(UserError, match="--position_unit deg, or --position_unit rad"):
        adopt(tmp_path / "tree", tmp_path / "index")
    assert adopt(tmp_path / "tree", tmp_path / "index", position_unit="rad").datasets[0].unit == "rad"
    assert manifest(tmp_path / "index")["files"][0]["dec"] == pytest.approx([np.degrees(-1.5), np.degrees(1.5)])
    with h5py.File(tmp_path / "tree/mine.h5", "a") as file:
        file["ra"].attrs["unit"] = "deg"
    assert adopt(tmp_path / "tree", tmp_path / "index").datasets[0].unit == "deg"


def test_a_second_run_reads_what_changed(tmp_path):
    truth, first = adopted(tmp_path, "yse")
    before = (tmp_path / "index/manifest.json").read_bytes()
    again = adopt(tmp_path / "yse", tmp_path / "index").datasets[0]
    assert first.read == first.files == len(truth.rows) and again.read == 0
    after = json.loads((tmp_path / "index/manifest.json").read_bytes())
    assert after == json.loads(before)
    path = tmp_path / "yse" / next(iter(truth.files))
    with h5py.File(path, "a") as file:
        file["redshift"][()] = 0.5
    (path.parent / "more.hdf5").write_bytes(path.read_bytes())
    third = adopt(tmp_path / "yse", tmp_path / "index").datasets[0]
    assert third.read == 2 and third.rows == first.rows + 1
    path.unlink()
    (path.parent / "more.hdf5").unlink()
    assert adopt(tmp_path / "yse", tmp_path / "index").datasets[0].rows == first.rows - 1


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    write("gaia", tmp_path / "gaia", cells=6)
    monkeypatch.setattr("skyset.adopting.gather._FILES", 2)
    with monkeypatch.context() as patch:
        patch.setattr("skyset.adopting.adopt.infer", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            adopt(tmp_path / "gaia", tmp_path / "index")
    journal = tmp_path / "index/adopted.journal"
    assert not (tmp_path / "index/manifest.json").exists()
    journal.write_bytes(journal.read_bytes()[:-50])  # cut in its last frame
    assert adopt(tmp_path / "gaia", tmp_path / "index").datasets[0].read == 2


def test_two_at_once_do_not_mix(tmp_path):
    from skyset.adopting.journal import Journal

    write("gaia", tmp_path / "gaia")
    with Journal(tmp_path / "index"), pytest.raises(UserError, match=r"another `skyset adopt` works in"):
        adopt(tmp_path / "gaia", tmp_path / "index")


def test_configs_are_folders(tmp_path):
    write("gaia", tmp_path / "tree/gaia")
    write("sdss", tmp_path / "tree/sdss", configs=["sdss", "boss"])
    found = adopt(tmp_path / "tree", tmp_path / "index")
    assert sorted(each.name for each in found.datasets) == ["gaia_gaia", "sdss_boss", "sdss_sdss"]
    for each in found.datasets:
        assert each.folder == tmp_path / "index" / each.name and manifest(each.folder)["build"]["config"] == each.name
    shutil.rmtree(tmp_path / "tree/sdss")
    assert adopt(tmp_path / "tree", tmp_path / "index").datasets[0].name == "default"
    assert [path.parent for path in (tmp_path / "index").rglob("manifest.json")] == [tmp_path / "index"]


def test_splits_by_prefix_and_the_index_in_the_cache(tmp_path):
    write("btsbot", tmp_path / "btsbot", rows=6)
    found = adopt(tmp_path / "btsbot", name="alerts")
    assert set(found.datasets[0].splits) == {"train", "validation", "test"}
    assert found.index.parent == tmp_path / "cache/adopted" and found.index.name.startswith("alerts-")
    assert manifest(found.index)["build"]["about"]["name"] == "alerts"


def test_nothing_is_written_into_the_tree_or_over_others(tmp_path):
    write("gaia", tmp_path / "gaia")
    (tmp_path / "link").symlink_to(tmp_path / "gaia")
    for inside in ("gaia", "gaia/index", "link/index"):
        with pytest.raises(UserError, match="is only read"):
            adopt(tmp_path / "gaia", tmp_path / inside)
    adopt(tmp_path / "gaia", tmp_path / "index")
    write("sdss", tmp_path / "sdss")
    with pytest.raises(UserError, match="holds the index of"):
        adopt(tmp_path / "sdss", tmp_path / "index")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/manifest.json").write_text('{"survey": "gz3d", "sources": ["x"]}')
    with pytest.raises(UserError, match="holds something else"):
        adopt(tmp_path / "sdss", tmp_path / "ours")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tree: None, "has no HDF5 file"),
        (lambda tree: (tree / "x.txt").write_text("x"), r"x\.txt: no HDF5 by its name"),
        (lambda tree: (tree / "x.h5").write_text("x"), r"no file that can be adopted: x\.h5: file signature not found"),
        (lambda tree: h5py.File(tree / "x.h5", "w").close(), r"no dataset of right ascension"),
    ],
)
def test_what_cannot_be_adopted(tmp_path, make, message):
    (tmp_path / "tree").mkdir()
    make(tmp_path / "tree")
    with pytest.raises(UserError, match=message):
        adopt(tmp_path / "tree", tmp_path / "index")


def test_wrong_arguments(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        adopt(tmp_path / "nowhere")
    (tmp_path / "tree").mkdir()
    with pytest.raises(UserError, match="letters, digits"):
        adopt(tmp_path / "tree", name="a/b")
    with pytest.raises(UserError, match="one of deg, hour, rad"):
        adopt(tmp_path / "tree", position_unit="arcsec")


def test_strict_stops_at_a_broken_file(tmp_path):
    write("gaia", tmp_path / "gaia", faults=["truncated"])
    with pytest.raises(UserError, match="is cut short"):
        adopt(tmp_path / "gaia", tmp_path / "index", strict=True)


def test_a_file_whose_id_has_another_name_is_read_by_that_of_most(tmp_path):
    write("gaia", tmp_path / "gaia", cells=3)
    odd = sorted((tmp_path / "gaia").rglob("*.hdf5"))[0]
    with h5py.File(odd, "a") as file:
        file.move("source_id", "candid")
    dataset = adopt(tmp_path / "gaia", tmp_path / "index").datasets[0]
    assert dataset.inferred.form.sources["object_id"].of == ("source_id",)
    entry = next(each for each in manifest(dataset.folder)["files"] if odd.as_posix().endswith(each["path"]))
    assert entry["keys"] == keys_digest([""] * entry["rows"])
    assert ("column missing", str(odd.relative_to(tmp_path / "gaia")), "") in found(dataset)
    assert adopt(tmp_path / "gaia", tmp_path / "index").datasets[0].read == 0


def test_all_pixels_finds_what_a_sample_does_not(tmp_path):
    write("sdss", tmp_path / "sdss", rows=40, cells=1)
    path = next((tmp_path / "sdss").rglob("*.hdf5"))
    with h5py.File(path, "a") as file:
        file["spectrum_ivar"][17, 3] = np.inf
    few = adopt(tmp_path / "sdss", tmp_path / "index").datasets[0]
    assert few.findings.lines() == [] and few.sampled < few.rows
    every = adopt(tmp_path / "sdss", tmp_path / "index", all_pixels=True).datasets[0]
    assert every.findings.lines() == ["1 row of infinite ivar"] and every.sampled == every.rows == 40
    assert found(every)[0][2] == "17"


def test_in_worker_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("skyset.adopting.adopt._FOR_PROCESSES", 2)
    monkeypatch.setattr("skyset.adopting.gather._FILES", 3)
    write("yse", tmp_path / "yse", rows=3, cells=4)
    adopt(tmp_path / "yse", tmp_path / "one")
    adopt(tmp_path / "yse", tmp_path / "two", processes=2)
    assert manifest(tmp_path / "one") == manifest(tmp_path / "two")
    assert (tmp_path / "one/units.arrow").read_bytes() == (tmp_path / "two/units.arrow").read_bytes()


def test_a_file_that_was_written_to_is_told_when_it_is_read(tmp_path):
    """Of the same size: by its time, and no more once it was adopted again."""
    _, dataset = adopted(tmp_path, "gaia")
    assert len(list(load(str(dataset.folder)))) == dataset.rows
    path = sorted((tmp_path / "gaia").rglob("*.hdf5"))[1]
    with h5py.File(path, "r+") as file:
        file["ra"][0] += 1e-3
    with pytest.raises(PartitionError, match=f"{path}: has another time: it was changed since it was adopted: run `skyset"):
        list(load(str(dataset.folder)))
    adopt(tmp_path / "gaia", tmp_path / "index")
    assert len(list(load(str(dataset.folder)))) == dataset.rows
