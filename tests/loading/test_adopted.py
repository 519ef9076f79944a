"""Adopted trees through everything that loads: by value against the truth of made-up ones, whatever their structure."""

from __future__ import annotations

import os
import re
from pathlib import Path

import datasets
import h5py
import numpy as np
import pytest
from datasets import load_dataset

import skyset
from skyset.adopting.adopt import adopt
from skyset.errors import UserError
from skyset.explore.row_pictures.found import pictures_of
from skyset.loading import registry
from skyset.loading.found import opened
from skyset.partitions.manifest import Manifest
from skyset.testing.mmu import write

pytestmark = pytest.mark.datasets3
POINTS = ("time", "flux", "flux_err")
SPECTRUM = ("flux", "ivar", "lsf_sigma", "lambda", "mask")


def adopted(kind, folder, **options):
    """A made-up tree, and its index: the truth, and the folder of the index."""
    truth = write(kind, folder / "tree" / kind, **options)
    index = folder / "index" / kind
    adopt(truth.folder, index)
    return truth, index


def same(kind, row, want):
    """Whether a row, with arrays, is what the truth says, without padding."""
    if kind == "sdss":
        for name in SPECTRUM:
            np.testing.assert_array_equal(row["spectrum"][name], want[f"spectrum_{name}"], name)
            assert np.asarray(row["spectrum"][name]).dtype == want[f"spectrum_{name}"].dtype
    elif kind == "hsc":
        np.testing.assert_array_equal(row["image"]["flux"], want["image_array"])
        np.testing.assert_array_equal(row["image"]["mask"], want["image_mask"])
        assert list(row["image"]["band"]) == [band.decode() for band in want["image_band"].tolist()]
        np.testing.assert_array_equal(row["a_g"], want["a_g"])
    elif kind in ("plasticc", "yse"):
        flat = want["lightcurve"].flat()
        for name in POINTS:
            np.testing.assert_array_equal(row["lightcurve"][name], flat[name], name)
        assert list(row["lightcurve"]["band"]) == flat["band"].tolist()
    elif kind == "manga":
        spaxels = want["spaxels"][want["spaxels"]["flux"].any(axis=1)]  # beyond the bundle of fibres there are none
        assert 0 < len(spaxels) < len(want["spaxels"])
        for key, values in row["spaxels"].items():
            member = spaxels["lsf_sigma" if key == "lsf" else key]
            if member.dtype.kind == "S":
                assert list(values) == [each.decode() for each in member.tolist()]
            else:
                np.testing.assert_array_equal(values, member, key)
        np.testing.assert_array_equal(row["images"]["array"], want["images"]["image_array"])
        assert list(row["images"]["filter"]) == [band.decode() for band in want["images"]["image_band"].tolist()]
        assert row["z"] == want["z"]
    np.testing.assert_allclose([row["ra"], row["dec"]], [float(want["ra"]), float(want["dec"])])


KINDS_READ = ("sdss", "hsc", "plasticc", "yse", "manga")


@pytest.fixture(scope="module", params=KINDS_READ)
def tree(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, *adopted(request.param, folder, rows=6, cells=3)


def check_all(kind, truth, rows):
    ids = []
    for row in rows:
        same(kind, row, truth.rows[str(row["object_id"]).strip()])
        ids.append(str(row["object_id"]).strip())
    assert len(ids) == len(set(ids))
    return ids


def ids_of(truth, split):
    return sorted(key.strip() for file, ids in truth.files.items() if truth.splits[file] == split for key in ids)


def test_streams_tables_and_every_split(tree):
    kind, truth, index = tree
    for split in sorted(set(truth.splits.values())):
        rows = load_dataset(str(index), split=split, streaming=True).with_format("numpy")
        assert sorted(check_all(kind, truth, rows)) == ids_of(truth, split)
        table = load_dataset(str(index), Manifest.load(index).config, split=split).with_format("numpy")
        assert sorted(check_all(kind, truth, table)) == ids_of(truth, split)


def test_a_shuffled_stream_goes_on_where_it_was(tree):
    kind, truth, index = tree
    rows = skyset.load(str(index)).shuffle(seed=3)
    whole = check_all(kind, truth, rows)
    assert sorted(whole) == ids_of(truth, "train") and whole != sorted(whole)
    first, state = [], None
    for row in rows:
        first.append(str(row["object_id"]).strip())
        if len(first) == 5:
            state = rows.state_dict()
            break
    again = skyset.load(str(index)).shuffle(seed=3)
    again.load_state_dict(state)
    assert first + [str(row["object_id"]).strip() for row in again] == whole


def test_torch_and_workers(tree):
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader

    kind, truth, index = tree
    rows = skyset.load(str(index), format="torch").select_columns(["object_id", "ra", "dec"])
    ids = [key for batch in DataLoader(rows, batch_size=4, num_workers=2) for key in batch["object_id"]]
    assert sorted(key.strip() for key in ids) == ids_of(truth, "train")
    row = next(iter(skyset.load(str(index), format="torch")))
    if kind == "sdss":
        assert isinstance(row["spectrum"]["flux"], torch.Tensor)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_padding_is_kept_where_it_is_asked_for(home):
    truth, index = adopted("sdss", home, rows=4, cells=1)
    longest = max(len(row["spectrum_flux"]) for row in truth.rows.values())
    for row in skyset.load(str(index), keep_padding=True):
        want = truth.rows[row["object_id"]]["spectrum_lambda"]
        assert row["spectrum"]["flux"].shape == row["spectrum"]["mask"].shape == (longest,)
        np.testing.assert_array_equal(row["spectrum"]["lambda"], np.pad(want, (0, longest - len(want)), constant_values=-1))


def test_neighbours_are_those_that_there_are(home):
    truth, index = adopted("legacysurvey", home, rows=6, cells=2)
    for row in skyset.load(str(index)):
        want = truth.rows[row["object_id"].strip()]
        there = want["catalog_TYPE"] != 0
        for key, values in row["catalog"].items():
            np.testing.assert_array_equal(values, want[f"catalog_{key}"][there], key)
        assert row["catalog"]["RA"].dtype == np.float64
    whole = next(iter(skyset.load(str(index), keep_padding=True)))
    assert whole["catalog"]["TYPE"].shape == truth.rows[whole["object_id"].strip()]["catalog_TYPE"].shape


def test_a_galaxy_without_any_spaxel_is_empty_and_no_error(home):
    truth = write("manga", home / "tree", rows=3, cells=1)
    (path,) = truth.folder.rglob("*.hdf5")
    with h5py.File(path, "r+") as file:
        name = sorted(file)[1]
        table = file[name]["spaxels"][:]
        table["mask"], table["flux"], table["ivar"] = 1024, 0, 0
        file[name]["spaxels"][...] = table
        length = table["flux"].shape[1]
    adopt(truth.folder, home / "index")
    rows = list(skyset.load(str(home / "index")))
    empty = [row for row in rows if not len(row["spaxels"]["flux"])]
    assert len(rows) == 3 and len(empty) == 1
    assert empty[0]["spaxels"]["flux"].shape == (0, length) and empty[0]["spaxels"]["x"].shape == (0,)


def test_a_tree_is_found_by_its_folder_and_by_its_name(home):
    truth = write("sdss", home / "tree", rows=2, cells=2)
    place, count = Path(adopt(truth.folder, name="mine").index), len(truth.rows)
    for given in (str(truth.folder), "tree", str(place), "mine", "tree/sdss"):
        assert len(list(skyset.load(given))) == count
        root, survey, manifest = opened(given)
        assert (root, survey.name, manifest.rows) == (str(truth.folder / "sdss"), "adopted", count)
        assert registry.is_folder(given) or given == "mine"
    assert len(load_dataset("tree", split="train")) == count
    assert registry.folders_below("tree") == {"default": str(place)}
    assert registry.is_adopted("tree") and registry.is_adopted(str(place)) and not registry.is_adopted(".")


@pytest.mark.parametrize(("kind", "stored"), [("legacysurvey", "image_array"), ("jwst", "image_flux")])
def test_pixels_are_called_as_their_loader_does(home, kind, stored):
    truth = write(kind, kind, rows=2, cells=2)
    adopt(kind)
    for row in skyset.load(kind):
        np.testing.assert_array_equal(row["image"]["array"], truth.rows[row["object_id"]][stored])
        assert list(row["image"]["band"]) == [each.decode() for each in truth.rows[row["object_id"]]["image_band"].tolist()]


def test_the_views_of_an_alert(home):
    truth = write("btsbot", "btsbot", rows=3, cells=2)
    adopt("btsbot")
    shuffled = skyset.load("btsbot").shuffle(seed=3)
    table = skyset.load("btsbot", streaming=False)
    for row in [*shuffled, *table]:
        want, image = truth.rows[row["object_id"]], row["image"]
        assert list(image["view"]) == ["science", "reference", "difference"]
        assert list(image["band"]) == [want["band"].decode()] * 3
        np.testing.assert_array_equal(image["array"], np.moveaxis(want["image_triplet"], 2, 0))
        np.testing.assert_array_equal(image["scale"], np.full(3, want["image_scale"]))
        assert (image["array"].dtype, image["scale"].dtype) == (np.float32, np.float32)
    small = next(iter(skyset.load("btsbot", image_size=8)))["image"]["array"]
    side = want["image_triplet"].shape[0]
    assert small.shape == (3, 8, 8) and side > 8
    (picture,) = pictures_of(row).stacks
    assert picture.bands == ("science", "reference", "difference") and picture.scale == pytest.approx(1.01)


def test_the_folder_of_the_one_dataset_is_its_config(home):
    truth = write("hsc", "hsc")
    adopt("hsc")
    (folder,) = [path.name for path in Path("hsc").iterdir() if path.is_dir()]
    for rows in (
        skyset.load("hsc", folder),
        skyset.load("hsc", config=folder),
        load_dataset("hsc", folder, split="train", streaming=True),
        skyset.load("hsc", "default"),
    ):
        assert sorted(row["object_id"] for row in rows) == ids_of(truth, "train")
    with pytest.raises(UserError, match="adopted has no config 'pdr4'; known: default"):
        skyset.load("hsc", "pdr4")


def test_the_datasets_of_a_tree_are_configs(home):
    truths = {kind: write(kind, home / "tree" / kind, rows=2, cells=2) for kind in ("sdss", "yse")}
    place = adopt(home / "tree").index
    configs = registry.folders_below("tree")
    assert len(configs) == 2
    for given in ("tree", str(place)):
        for config, (kind, truth) in zip(configs, truths.items(), strict=True):
            assert sorted(check_all(kind, truth, skyset.load(given, config))) == ids_of(truth, "train")
        assert skyset.load(given).column_names == skyset.load(given, next(iter(configs))).column_names
        with pytest.raises(UserError, match=rf"adopted has no config 'boss'; known: {', '.join(configs)}"):
            load_dataset(given, "boss")
    for kind, truth in truths.items():  # the folder of one of them
        folder = os.path.dirname(os.path.dirname(truth.folder / next(iter(truth.files))))
        assert sorted(check_all(kind, truth, skyset.load(folder))) == ids_of(truth, "train")


def test_a_folder_that_nobody_adopted_says_what_to_do(home):
    truth = write("sdss", home / "tree", rows=1, cells=1)
    for load in (skyset.load, load_dataset, opened):
        with pytest.raises(UserError, match=rf"`skyset adopt {re.escape(str(truth.folder))}`"):
            load(str(truth.folder))
    (home / "plain").mkdir()
    (home / "plain/a.h5").write_bytes(b"x")
    with pytest.raises(UserError, match="`skyset adopt plain`"):
        skyset.load("plain")


def test_a_folder_with_a_loading_script_of_its_own_is_left_to_datasets(home):
    write("sdss", home / "sdss", rows=1, cells=1)
    (home / "sdss/sdss.py").write_text("raise RuntimeError('theirs')\n")
    with pytest.raises((RuntimeError, ValueError), match=r"theirs|script") as caught:  # which datasets 4 refuses
        load_dataset("sdss", trust_remote_code=True) if datasets.__version__ < "4" else load_dataset("sdss")
    assert not isinstance(caught.value, UserError)


def test_a_tree_that_was_moved_is_one_line(home):
    truth, index = adopted("sdss", home, rows=1, cells=1)
    truth.folder.rename(home / "elsewhere")
    for load in (skyset.load, opened):
        with pytest.raises(
            UserError, match=r"is the index of .*tree/sdss/sdss, which is not there: adopt it where it is now"
        ):
            load(str(index))


def test_checksums_are_not_known(home):
    _, index = adopted("sdss", home, rows=1, cells=1)
    with pytest.raises(UserError, match="verify needs the checksums"):
        skyset.load(str(index), verify=True)


def change(index, edit):
    text = (index / "manifest.json").read_text()
    (index / "manifest.json").write_text(edit(text))


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('"path": "', '"path": "../', "no path below a tree"),
        ('"path": "', '"path": "/', "no path below a tree"),
        ('"kind": "columns"', '"kind": "pickles"', "no trees of 'pickles'"),
        ('"tree": "/', '"tree": "', "no absolute path"),
        ('"how": "text"', '"how": "eval"', "by 'eval'"),
        ('"rows": 1, "bytes"', '"rows": 1000000000000, "bytes"', "rows in"),
        ('"adopted": {', '"adopted": [],\n"x": {', "is damaged"),
    ],
)
def test_an_index_that_lies_is_refused(home, old, new, words):
    _, index = adopted("sdss", home, rows=1, cells=1)
    change(
        index,
        lambda text: (
            text.replace(old, new) if old != '"rows": 1,' else text.replace(', "rows": 1, "bytes"', f', {new} "bytes"')
        ),
    )
    with pytest.raises(UserError, match=re.escape(words)):
        Manifest.load(index)


def test_where_an_index_lies_is_not_noted_in_it(home):
    _, index = adopted("sdss", home, rows=1, cells=1)
    manifest = Manifest.load(index)
    assert manifest.build["adopted"]["index"] == str(index)
    digest = manifest.digest()
    manifest.save(index)
    assert '"index"' not in (index / "manifest.json").read_text()
    index.rename(home / "moved")
    assert Manifest.load(home / "moved").digest() == digest
    assert len(list(skyset.load(str(home / "moved")))) == 1
