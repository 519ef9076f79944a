"""``skyset verify`` of adopted trees: every difference, and findings over all values."""

import json
import shutil

import h5py
import numpy as np
import pytest

import skyset
from skyset.adopting.adopt import adopt
from skyset.adopting.verify import index_at, verify
from skyset.errors import UserError
from skyset.testing.mmu import write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_CACHE", str(tmp_path / "cache"))


def made(tmp_path, kind):
    write(kind, tmp_path / kind, rows=3, cells=3)
    adopt(tmp_path / kind, tmp_path / "index")
    return tmp_path / "index", sorted((tmp_path / kind).rglob("*.hdf5"))


def differences(index):
    return [line for each in verify(index) for line in each.differences]


@pytest.mark.parametrize("kind", ["sdss", "yse", "manga", "plasticc"])
def test_nothing_changed(tmp_path, kind):
    index, _ = made(tmp_path, kind)
    before = {path: path.read_bytes() for path in index.iterdir()}
    found = list(verify(index))
    assert [each.differences for each in found] == [[]] and found[0].findings.lines() == []
    assert {path: path.read_bytes() for path in index.iterdir()} == before


@pytest.mark.parametrize("kind", ["gaia", "yse"])
def test_files_that_changed(tmp_path, kind):
    index, files = made(tmp_path, kind)
    files[0].unlink()
    shutil.copy(files[1], files[1].with_name("new.hdf5"))
    with h5py.File(files[2], "a") as file:
        file["dec"][...] = file["dec"][...] + 0.001
    found = "\n".join(differences(index))
    for name, what in ((files[0], "missing"), (files[2], "was written to")):
        assert f"{name.relative_to(name.parents[1])}: {what}" in found
    assert kind == "yse" or ": dec runs from" in found  # the first of several objects is gone: another entry
    assert "new.hdf5: is there but not in the index" in found


def test_other_objects_and_other_columns(tmp_path):
    index, files = made(tmp_path, "gaia")
    for path in files:
        with h5py.File(path, "a") as file:
            file["source_id"][0] += 1
            del file["parallax"]
            file["pmra"][...] = 1
            old = file["pmdec"][...]
            del file["pmdec"]
            file["pmdec"] = np.stack([old, old], axis=1)
    found = differences(index)
    assert sum("holds other objects" in line for line in found) == len(files)
    assert "parallax: no file has parallax, which it is made of" in found
    assert any(line.startswith("pmdec: files have rows of other shapes") for line in found)


def test_a_broken_file(tmp_path):
    index, files = made(tmp_path, "sdss")
    files[0].write_bytes(files[0].read_bytes()[:1000])
    assert any("is cut short" in line for line in differences(index))


def test_findings_over_all_values(tmp_path):
    write("sdss", tmp_path / "sdss", rows=40, cells=1)
    adopt(tmp_path / "sdss", tmp_path / "index")
    path = next((tmp_path / "sdss").rglob("*.hdf5"))
    with h5py.File(path, "a") as file:
        file["spectrum_ivar"][17, 3] = np.inf
    assert next(verify(tmp_path / "index")).findings.lines() == ["1 row of infinite ivar"]


def test_a_tree_that_is_gone(tmp_path):
    index, _ = made(tmp_path, "gaia")
    shutil.move(tmp_path / "gaia", tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is gone"):
        differences(index)


def test_a_damaged_index(tmp_path):
    index, _ = made(tmp_path, "yse")
    (index / "units.arrow").write_bytes(b"x")
    with pytest.raises(UserError, match=r"units\.arrow is damaged"):
        differences(index)
    (index / "manifest.json").write_text('{"survey": "adopted"}')
    with pytest.raises(UserError, match="is damaged"):
        differences(index)


def test_indexes_by_folder_tree_and_name(tmp_path):
    write("gaia", tmp_path / "gaia")
    found = adopt(tmp_path / "gaia", name="stars")
    assert index_at(str(found.index)) == index_at(str(tmp_path / "gaia")) == index_at("stars") == found.index
    assert index_at("nothing") is None and index_at(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("place", "value"), [("adopted/tree", "/"), ("adopted/sources", []), ("features", []), ("adopted", None)]
)
def test_a_manifest_that_lies_is_refused(tmp_path, place, value):
    index, _ = made(tmp_path, "yse")
    values = json.loads((index / "manifest.json").read_text())
    *above, name = place.split("/")
    holder = values["build"]
    for step in above:
        holder = holder[step]
    holder[name] = value
    (index / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"damaged"):
        list(verify(index))


def test_a_config_that_is_a_path_is_refused(tmp_path):
    index, _ = made(tmp_path, "yse")
    values = json.loads((index / "manifest.json").read_text())
    values["build"]["config"] = "../../x"
    (index / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"'\.\./\.\./x' is no name of a config"):
        skyset.load(str(index), split="train", streaming=True)
