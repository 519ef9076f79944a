"""Adopted trees through everything that loads: by value against the truth of made-up ones, whatever their structure."""

from __future__ import annotations

import re

import numpy as np
import pytest
from datasets import load_dataset

import skyset
from skyset.errors import UserError
from skyset.loading import indexes
from skyset.loading.found import opened
from skyset.partitions.manifest import Manifest
from skyset.partitions.tree.form import Source
from skyset.survey import ANY, Column, Feature, Layers, Survey, Trim
from skyset.testing.mmu import KINDS, write
from tests.partitions.tree.hand import by_hand, index_by_hand

pytestmark = pytest.mark.datasets3
BANDS = ("u", "g", "r", "i", "z", "Y")
POINTS = ("time", "flux", "flux_err")
PLASTICC = {
    f"lightcurve_{name}": (Column(f"lightcurve_{name}", "float64", (ANY,)), Source(("lightcurve",), "part", (1, place)))
    for place, name in enumerate(POINTS)
} | {"lightcurve_band": (Column("lightcurve_band", "S2", (ANY,)), Source((), "labels", BANDS, "lightcurve_time"))}
YSE = {name: (Column(name, "float32", (ANY,)), Source((name,))) for name in POINTS} | {
    "band": (Column("band", "S8", (ANY,)), Source(("bands",), "labels", like="time"))
}
SPECTRUM = ("flux", "ivar", "lsf_sigma", "lambda", "mask")
SDSS = {
    f"spectrum_{name}": (
        Column(f"spectrum_{name}", "bool" if name == "mask" else "float32", (ANY,)),
        Source((f"spectrum_{name}",)),
    )
    for name in SPECTRUM
}


def survey_of(columns, groups, trims) -> Survey:
    grouped = {source for fields in groups.values() for source in fields.values()}
    features = [Feature(c.name, c.name) for c in columns if c.name not in grouped and c.name not in ("lightcurve", "bands")]
    features += [Layers(name, (), "", fields) for name, fields in groups.items()]
    return Survey("adopted", "made up", "", "", "", "", tuple(columns), tuple(features), trims=trims)


def adopted(kind, folder, **options):
    """A made-up tree, and its index made by hand: the truth, and the folder of the index."""
    truth = write(kind, folder / "tree" / kind, **options)
    more = {"plasticc": PLASTICC, "yse": YSE, "sdss": SDSS}.get(kind, {})
    form, columns = by_hand(truth.folder, list(truth.files), KINDS[kind].form, **more)
    groups, trims = {}, ()
    if kind == "sdss":
        groups = {"spectrum": {name: f"spectrum_{name}" for name in SPECTRUM}}
        trims = (Trim(tuple(groups["spectrum"].values()), "spectrum_lambda", (-1.0,), "end"),)
    if kind == "hsc":
        groups = {"image": {"band": "image_band", "flux": "image_array", "ivar": "image_ivar", "mask": "image_mask"}}
    if kind == "plasticc":
        groups = {"lightcurve": {name.partition("_")[2]: name for name in PLASTICC}}
        trims = (Trim(tuple(PLASTICC), "lightcurve_time", (0.0,)),)
    if kind == "yse":
        groups = {"lightcurve": {name: name for name in YSE}}
        trims = (Trim(tuple(YSE), "time", (-99.0,)),)
    entries = {file: [file] for file in truth.files}
    if KINDS[kind].form == "objects":
        files = sorted(truth.files)
        entries = {files[n]: files[n : n + 7] for n in range(0, len(files), 7)}
    survey = survey_of(columns, groups, trims)
    index = folder / "index" / kind
    index_by_hand(index, form, columns, entries, survey, config=kind, splits=truth.splits)
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
        np.testing.assert_array_equal(row["spaxels.flux"], want["spaxels"]["flux"])
        np.testing.assert_array_equal(row["images.image_array"], want["images"]["image_array"])
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
        table = load_dataset(str(index), kind, split=split).with_format("numpy")
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


def test_a_tree_is_found_by_its_folder_and_by_its_name(home):
    truth, index = adopted("sdss", home, rows=2, cells=2)
    place = indexes.default_index(truth.folder, "mine")
    place.parent.mkdir(parents=True)
    index.rename(place)
    count = len(truth.rows)
    for given in (str(truth.folder), "tree/sdss", str(place), "mine"):
        assert len(list(skyset.load(given))) == count
        root, survey, manifest = opened(given)
        assert (root, survey.name, manifest.rows) == (str(truth.folder), "adopted", count)
    assert len(load_dataset("tree/sdss", split="train")) == count
    assert len(load_dataset(str(truth.folder), "sdss", split="train", streaming=True).take(9)._head(9)["ra"]) == count


def test_the_datasets_of_a_tree_are_configs(home):
    place = indexes.default_index(home / "tree")
    truths = {}
    for kind in ("sdss", "yse"):
        truths[kind], index = adopted(kind, home, rows=2, cells=2)
        place.mkdir(parents=True, exist_ok=True)
        index.rename(place / kind)
    for given in (str(home / "tree"), str(place)):
        for kind, truth in truths.items():
            assert sorted(check_all(kind, truth, skyset.load(given, kind))) == ids_of(truth, "train")
        assert skyset.load(given).column_names == skyset.load(given, "sdss").column_names
        with pytest.raises(UserError, match=r"adopted has no config 'boss'; known: sdss, yse"):
            load_dataset(given, "boss")
    for kind, truth in truths.items():  # the folder of one of them
        assert sorted(check_all(kind, truth, skyset.load(str(truth.folder)))) == ids_of(truth, "train")


def test_a_folder_that_nobody_adopted_says_what_to_do(home):
    truth = write("sdss", home / "tree", rows=1, cells=1)
    for load in (skyset.load, load_dataset, opened):
        with pytest.raises(UserError, match=rf"`skyset adopt {re.escape(str(truth.folder))}`"):
            load(str(truth.folder))
    (home / "plain").mkdir()
    (home / "plain/a.h5").write_bytes(b"x")
    with pytest.raises(UserError, match="`skyset adopt plain`"):
        skyset.load("plain")


def test_a_tree_that_was_moved_is_one_line(home):
    truth, index = adopted("sdss", home, rows=1, cells=1)
    truth.folder.rename(home / "elsewhere")
    for load in (skyset.load, opened):
        with pytest.raises(UserError, match=r"is the index of .*tree/sdss, which is not there: adopt it where it is now"):
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
        ('"how": "cell"', '"how": "eval"', "by 'eval'"),
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
