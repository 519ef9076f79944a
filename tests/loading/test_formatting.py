"""Tables (``streaming=False``): arrays and dtypes without a format and in every format, by every road; others stay stock."""

import io
import os
import pickle
import subprocess
import sys

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from datasets import concatenate_datasets, interleave_datasets, load_dataset, load_from_disk

from skyset.loading.formatting import ArrayFeatures, as_arrays
from skyset.loading.stream import SurveyTable

pytestmark = pytest.mark.datasets3

SIDE = 32
SHAPES = {"image": (SIDE, SIDE, 3), "vote_fraction": (4,), "array": (4, SIDE, SIDE)}
DTYPES = {"image": "uint8", "vote_fraction": "float32", "array": "uint8"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def table(built, cache):
    return load_dataset("gz3d", data_dir=str(built), split="train", image_size=SIDE, cache_dir=cache)


@pytest.fixture(scope="module")
def rows(built):
    """The same without a format, by streaming."""
    found = load_dataset("gz3d", data_dir=str(built), split="train", image_size=SIDE, streaming=True)
    return {row["object_id"]: row for row in found}


@pytest.fixture(scope="module")
def fluxes(built_sdss, cache):
    """A table with lists of a declared length: five bands."""
    return load_dataset("sdss_galaxy_zoo", data_dir=str(built_sdss), split="train", cache_dir=cache)


def check(row, rows):
    """A row without a format is the stream's, by value, type, dtype and shape."""
    wanted = rows[row["object_id"]]
    assert list(row)[: len(wanted)] == list(wanted)
    for name, value in wanted.items():
        check_value(row[name], value)
    values = {"image": row["image"], **row["segmentation"]}
    assert {name: (values[name].shape, str(values[name].dtype)) for name in SHAPES} == {
        name: (SHAPES[name], DTYPES[name]) for name in SHAPES
    }


def check_value(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            check_value(found[name], value)
    elif isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    else:
        assert found == wanted


# --- no format --------------------------------------------------------------------------------------------------------

ROADS = {
    "row": lambda t: [t[k] for k in range(5)],
    "iteration": list,
    "numbers": lambda t: unbatched(t[[4, 2, 2]]),
    "slice": lambda t: unbatched(t[3:5]),
    "batches": lambda t: [row for batch in t.iter(batch_size=7) for row in unbatched(batch)],
    "map": lambda t: t.map(lambda row: {"more": 1}),
    "map in batches": lambda t: t.map(lambda batch: {"more": [1] * len(batch["ra"])}, batched=True),
    "map in processes": lambda t: t.map(more, num_proc=2),
    "rows returned by map": lambda t: t.map(lambda row: dict(row)),
    "filter": lambda t: t.filter(lambda row: row["image"].dtype == np.uint8),
    "select": lambda t: t.select([5, 3]),
    "shuffle": lambda t: t.shuffle(seed=1),
    "shard": lambda t: t.shard(3, 1),
    "sort": lambda t: t.sort("ra"),
    "train_test_split": lambda t: list(t.train_test_split(test_size=4, seed=1)["test"]),
    "concatenate": lambda t: concatenate_datasets([t.select([0]), t.select([7])]),
    "interleave": lambda t: interleave_datasets([t, t]),
    "flatten_indices": lambda t: t.select([5, 3]).flatten_indices(),
    "format and back": lambda t: t.with_format("numpy").with_format(None),
    "pickle": lambda t: pickle.loads(pickle.dumps(t)),
    "other columns of a format": lambda t: [
        t.with_format("numpy", columns=["ra"], output_all_columns=True).with_format(None)[0]
    ],
    "stream": lambda t: t.to_iterable_dataset(num_shards=3),
    "stream, mapped": lambda t: t.to_iterable_dataset().map(lambda row: {"more": 1}),
    "dict": lambda t: datasets.DatasetDict(train=t)["train"],
}


def more(row):
    assert isinstance(row["image"], np.ndarray)
    return {"more": 1}


def unbatched(batch):
    count = len(batch["ra"])
    return [{name: values[k] for name, values in batch.items()} for k in range(count)]


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
def test_without_a_format_rows_are_the_streams(table, rows, road):
    found = list(road(table))
    assert found
    for row in found:
        check(row, rows)


def test_columns_and_lists_of_a_declared_length(table, fluxes, built_sdss):
    for images in (table["image"], table[:]["image"], table[2:9]["image"]):
        assert {(image.shape, str(image.dtype)) for image in images} == {((SIDE, SIDE, 3), "uint8")}
    stream = load_dataset("sdss_galaxy_zoo", data_dir=str(built_sdss), split="train", streaming=True)
    for found, wanted in zip(fluxes, stream, strict=True):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            check_value(found[name], value)


def test_rows_may_be_written_to(table):
    row = table[0]
    before = int(row["image"][0, 0, 0])
    row["image"][...] = before ^ 1
    row["segmentation"]["array"][...] = 1
    assert table[0]["image"][0, 0, 0] == before


@pytest.mark.parametrize("batched", [False, True])
def test_a_mapped_function_gets_arrays_and_only_what_it_looks_at(table, batched, monkeypatch):
    looked_at = []
    monkeypatch.setattr("skyset.loading.formatting.KeepDtypeNumpyFormatter.format_column", lambda *_: looked_at.append(1))
    assert len(table.map(lambda row: {"more": row["ra"]}, batched=batched, new_fingerprint=f"ra{batched}")) == 24
    assert looked_at == []  # no pixel was unpacked
    monkeypatch.undo()
    seen = []

    def look(row):
        images, masks = row["image"], row["segmentation"]
        seen.append((images[0], masks[0]["array"]) if batched else (images, masks["array"]))
        return {"more": row["ra"]}

    table.map(look, batched=batched, new_fingerprint=f"look{batched}")
    assert {(a.shape, str(a.dtype), b.shape, str(b.dtype)) for a, b in seen} == {
        ((SIDE, SIDE, 3), "uint8", (4, SIDE, SIDE), "uint8")
    }


def test_a_mapped_function_may_drop_columns_and_change_images(table, rows):
    def change(row):
        del row["segmentation"]
        row["image"] = 255 - row["image"]
        return row

    changed = table.map(change)
    assert "segmentation" not in changed.column_names and changed.features["image"] == table.features["image"]
    for row in changed:
        np.testing.assert_array_equal(row["image"], 255 - rows[row["object_id"]]["image"])


def test_lists_that_a_user_adds_stay_lists(table):
    added = table.select(range(3)).map(lambda row: {"box": [1, 2, 3], "words": ["a"], "nothing": None})
    assert added[0]["box"] == [1, 2, 3] and added[0]["words"] == ["a"] and added[0]["nothing"] is None
    assert isinstance(added[0]["image"], np.ndarray)


def test_missing_arrays_and_values_are_as_stock_has_them():
    array = datasets.Array2D((2, 2), "uint8")
    features = ArrayFeatures({"a": array, "b": datasets.Sequence(datasets.Value("float32"), length=2)})
    stock = datasets.Dataset.from_dict({"a": [None, np.ones((2, 2), np.uint8)], "b": [[1, None], [1, 2]]}, features=features)
    stock.info.features = features
    assert not isinstance(stock[0]["a"], np.ndarray) and stock[0]["b"] == [1, None]
    assert stock[1]["a"].dtype == np.uint8 and stock[1]["b"].dtype == np.float32
    assert as_arrays([[1, 2], [3, 4]], array).tolist() == [[1, 2], [3, 4]]


# --- to disk and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [None, "numpy", "torch"])
def test_saved_to_disk_and_loaded(table, rows, tmp_path, format):
    table.with_format(format).save_to_disk(str(tmp_path / "saved"))
    again = load_from_disk(str(tmp_path / "saved"))
    assert type(again) is SurveyTable
    assert str(again[0]["image"].dtype).removeprefix("torch.") == "uint8"
    assert str(again[0]["segmentation"]["vote_fraction"].dtype).removeprefix("torch.") == "float32"
    for row in again.with_format(None):
        check(row, rows)
    datasets.DatasetDict(a=table, b=again).save_to_disk(str(tmp_path / "both"))
    both = load_from_disk(str(tmp_path / "both"))
    check(both["a"].with_format(None)[0], rows)
    check(both["b"].with_format(None)[0], rows)
    check(datasets.Dataset.load_from_disk(str(tmp_path / "saved")).with_format(None)[0], rows)


STOCK = """
import sys, datasets
table = datasets.load_from_disk(sys.argv[1])
row = table[0]
print("skyset" in sys.modules, type(table).__name__, table.format["type"], type(row["image"]).__name__, len(table))
"""


def test_what_was_saved_is_stocks_without_skyset(table, tmp_path):
    table.with_format("numpy").save_to_disk(str(tmp_path / "saved"))
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", STOCK, str(tmp_path / "saved")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["False", "Dataset", "numpy", "ndarray", "24"], done.stderr


# --- one layout in every survey -----------------------------------------------------------------------------------------

SIDES = {"gz3d": 525, "sdss_galaxy_zoo": 64, "gz_decals": 16, "gz_decals, decoded": 16}


@pytest.fixture(params=SIDES)
def survey(request):
    """(name, folder, pixels per side) of each survey with images, stored as pixels and encoded."""
    fixtures = dict(zip(SIDES, ("built", "built_sdss", "rings", "decoded_rings"), strict=True))
    return request.param.partition(",")[0], request.getfixturevalue(fixtures[request.param]), SIDES[request.param]


@pytest.mark.parametrize("format", [None, "numpy", "torch"])
@pytest.mark.parametrize("streaming", [True, False])
def test_images_are_arrays_with_the_channels_last(survey, cache, format, streaming):
    name, root, side = survey
    options = {"data_dir": str(root), "split": "train", "streaming": streaming, "cache_dir": cache}
    rows = load_dataset(name, **options).select_columns(["object_id", "image"])
    wanted = {row["object_id"]: row["image"] for row in load_dataset(name, **options).with_format("numpy").take(4)}
    kind = torch.Tensor if format == "torch" else np.ndarray
    for row in rows.with_format(format).take(4):
        assert isinstance(row["image"], kind) and str(row["image"].dtype).endswith("uint8")
        assert tuple(row["image"].shape) == (side, side, 3)
        np.testing.assert_array_equal(row["image"], wanted[row["object_id"]])
    batch = next(iter(rows.with_format(format).iter(batch_size=3)))
    assert len(batch["image"]) == 3 and tuple(batch["image"][0].shape) == (side, side, 3)
    if format is not None:
        assert isinstance(batch["image"], kind) and tuple(batch["image"].shape) == (3, side, side, 3)
        loaded = next(iter(torch.utils.data.DataLoader(rows.with_format(format), batch_size=3)))
        assert tuple(loaded["image"].shape) == (3, side, side, 3) and loaded["image"].dtype == torch.uint8


COMMON = datasets.Features(
    {
        "object_id": datasets.Value("string"),
        "ra": datasets.Value("float64"),
        "dec": datasets.Value("float64"),
        "image": datasets.Image(),
    }
)


JOINS = {
    "concatenate": concatenate_datasets,
    "interleave": lambda parts: interleave_datasets(parts, stopping_strategy="all_exhausted"),
}


@pytest.mark.parametrize("join", JOINS.values(), ids=JOINS)
@pytest.mark.parametrize("streaming", [True, False])
def test_common_columns_of_several_surveys_in_one(built, built_sdss, rings, decoded_rings, cache, streaming, join):
    parts, wanted = [], {}
    for name, root in (("gz3d", built), ("sdss_galaxy_zoo", built_sdss), ("gz_decals", rings), ("gz_decals", decoded_rings)):
        options = {"image_size": SIDE} if name == "gz3d" else {}
        rows = load_dataset(name, data_dir=str(root), split="train", streaming=streaming, cache_dir=cache, **options)
        rows = rows.select_columns(list(COMMON)).take(3)
        wanted |= {row["object_id"]: row for row in rows.with_format("numpy")}
        parts.append(rows.cast(COMMON))
    every = join(parts)
    assert every.features == COMMON
    for format in (None, "numpy", "torch"):
        found = list(every.with_format(format))
        assert len(found) == 12
        for row in found:
            pixels = wanted[row["object_id"]]["image"]
            np.testing.assert_array_equal(row["image"], pixels)
            assert isinstance(row["image"], {"torch": torch.Tensor, "numpy": np.ndarray}.get(format, object))
            assert float(row["ra"]) == float(wanted[row["object_id"]]["ra"])
    assert str(next(iter(every.with_format("numpy")))["ra"].dtype) == "float64"


@pytest.mark.parametrize("streaming", [True, False])
def test_pixels_cast_to_images(built, cache, streaming):
    options = {"data_dir": str(built), "split": "train", "image_size": SIDE, "streaming": streaming, "cache_dir": cache}
    rows = load_dataset("gz3d", **options).select_columns(["object_id", "image"]).take(5)
    wanted = [row["image"] for row in rows]
    images = rows.cast_column("image", datasets.Image())
    filtered = rows.filter(lambda row: True)
    for found in (images, images.filter(lambda row: True), filtered.cast_column("image", datasets.Image())):
        for format in ("numpy", "torch"):
            for row, pixels in zip(found.with_format(format), wanted, strict=True):
                np.testing.assert_array_equal(row["image"], pixels)
            batch = next(iter(found.with_format(format).iter(batch_size=5)))
            np.testing.assert_array_equal(np.stack(list(batch["image"])), wanted)
    assert all(isinstance(row["image"], PIL.Image.Image) for row in images)
    np.testing.assert_array_equal([np.array(row["image"]) for row in images], wanted)
    for arrow in images.with_format("arrow").iter(batch_size=5):
        files = [io.BytesIO(row["bytes"]) for row in arrow["image"].to_pylist()]
        np.testing.assert_array_equal([np.array(PIL.Image.open(file)) for file in files], wanted)
    bytes_alone = datasets.Image(decode=False)
    for again in (images.cast_column("image", bytes_alone), rows.cast_column("image", bytes_alone)):
        files = [io.BytesIO(row["image"]["bytes"]) for row in again]
        np.testing.assert_array_equal([np.array(PIL.Image.open(file)) for file in files], wanted)
    grey = images.cast_column("image", datasets.Image(mode="L"))
    assert {row["image"].mode for row in grey} == {"L"}


# --- formats with options ---------------------------------------------------------------------------------------------


def test_a_dtype_that_is_asked_for_is_heeded(table, fluxes, rows):
    floats = table.with_format("numpy", dtype=np.float32)
    assert floats[0]["image"].dtype == floats[:3]["image"].dtype == floats[:]["ra"].dtype == np.float32
    assert floats[0]["segmentation"]["array"].dtype == np.float32
    np.testing.assert_array_equal(floats[0]["image"], rows[floats[0]["object_id"]]["image"])
    tensors = table.with_format("torch", dtype=torch.float16)
    assert tensors[0]["image"].dtype == tensors[:3]["image"].dtype == tensors[0]["ra"].dtype == torch.float16
    assert floats.select([1])[0]["image"].dtype == np.float32  # through other operations too
    assert next(iter(floats.iter(batch_size=5)))["image"].dtype == np.float32
    encoded = fluxes.with_format("numpy", dtype=np.float64)
    assert encoded[0]["image"].dtype == encoded[:2]["image"].dtype == np.float64
    assert floats.with_format("numpy")[0]["image"].dtype == np.uint8


@pytest.mark.parametrize("format", ["numpy", "torch"])
def test_columns_of_a_format(table, rows, format):
    some = table.with_format(format, columns=["image", "ra"])
    assert list(some[0]) == ["ra", "image"] and str(some[0]["image"].dtype).endswith("uint8")
    every = table.with_format(format, columns=["scale", "segmentation"], output_all_columns=True)
    for row in (every[0], next(iter(every)), {name: values[0] for name, values in every[:2].items()}):
        assert set(row) == set(table.column_names)
        assert str(row["scale"].dtype).endswith("float64") and str(row["segmentation"]["array"].dtype).endswith("uint8")
        check_value(row["image"], rows[row["object_id"]]["image"])  # Python's, which are numpy arrays here


def test_other_peoples_tables_are_stocks(table):
    features = datasets.Features(
        {
            "image": datasets.Array2D((2, 2), "uint8"),
            "x": datasets.Value("float64"),
            "five": datasets.Sequence(datasets.Value("float32"), length=2),
        }
    )
    values = {"image": [np.zeros((2, 2), np.uint8)] * 2, "x": [1.5, 2.5], "five": [[1, 2]] * 2}
    stock = datasets.Dataset.from_dict(values, features=features)
    check = [table[0]["image"].dtype == np.uint8]
    assert stock[0] == {"image": [[0, 0], [0, 0]], "x": 1.5, "five": [1.0, 2.0]} and check
    assert stock.with_format("numpy", dtype=np.float32)[0]["image"].dtype == np.float32
    assert stock.with_format("numpy")[0]["image"].dtype == np.int64
    seen = []
    stock.map(lambda row: seen.append(row["image"]) or {"more": 1})
    assert seen == [[[0, 0], [0, 0]]] * 2
