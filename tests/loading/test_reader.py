"""What a user relies on when loading: the archive's values and dtypes, each row once, the same by every road."""

import gc
import itertools
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from astropy import units
from astropy.io import fits
from astropy_healpix import lonlat_to_healpix
from datasets import concatenate_datasets, interleave_datasets, load_dataset
from datasets.distributed import split_dataset_by_node

import skyset
from skyset.build_scripts.gz3d.build_parent_sample import main as build
from skyset.errors import PartitionError, SkysetError, UserError
from skyset.loading.formatting import merge
from skyset.loading.memory import reused
from skyset.partitions.partition import Partition
from skyset.testing.gz3d import PIXEL_SCALE, write_archive
from skyset.testing.server import ArchiveServer
from tests.conftest import once

pytestmark = pytest.mark.datasets3

NAMES = ["total_classifications", "healpix", "ra", "dec", "object_id", "image", "scale", "segmentation"]
DTYPES = {
    "total_classifications": "int32",
    "healpix": "int64",
    "ra": "float32",
    "dec": "float32",
    "image": "uint8",
    "scale": "float64",
    "segmentation.vote_fraction": "float32",
    "segmentation.array": "uint8",
}
SHAPES = {"image": (525, 525, 3), "segmentation.vote_fraction": (4,), "segmentation.array": (4, 525, 525)}
PIXELS = 525 * 525


# --- helpers ----------------------------------------------------------------------------------------------


def stream(root, format="numpy", **options):
    return load_dataset("gz3d", data_dir=str(root), split="train", streaming=True, **options).with_format(format)


def table(root, cache, **options):
    return load_dataset("gz3d", data_dir=str(root), split="train", cache_dir=str(cache), **options)


def flat(row) -> dict:
    """A row without its nesting: ``{"segmentation.array": ...}``."""
    inner = {f"segmentation.{name}": value for name, value in row.get("segmentation", {}).items()}
    return {name: value for name, value in row.items() if name != "segmentation"} | inner


def exact(row) -> dict:
    """What two equal rows have in common: text, and dtype, shape and bytes of everything else."""
    return {name: _exact(value) for name, value in flat(row).items()}


def _exact(value):
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray | np.generic):
        return str(value.dtype), value.shape, zlib.crc32(np.ascontiguousarray(value))
    return value


def ids(rows) -> list[str]:
    return [row["object_id"] for row in rows]


def dtypes(row) -> dict[str, str]:
    return {k: str(v.dtype).removeprefix("torch.") for k, v in flat(row).items() if hasattr(v, "dtype")}


@pytest.fixture(scope="module")
def rows(built):
    """All rows by streaming; do not write to them."""
    return list(stream(built))


@pytest.fixture(scope="module")
def cached(built, tmp_path_factory):
    return table(built, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def cached_crops(built, tmp_path_factory):
    """As ``cached``, but small: `datasets` is slow with large images where no format is set."""
    return table(built, tmp_path_factory.mktemp("cache"), image_size=32)


@pytest.fixture(scope="module")
def archived(archive):
    """All rows from the FITS files, by plain astropy."""
    found = {}
    for path in archive.glob("*.fits.gz"):
        with fits.open(path) as hdus:
            info = {name.lower(): hdus[5].data[name][0] for name in hdus[5].columns.names}
            total = int(info["gz_total_classifications"])
            votes = [info["gz_spiral_votes"] / total, info["gz_bar_votes"] / total] if total else [-0.5, -0.5]
            found[info["mangaid"]] = {
                "total_classifications": total,
                "ra": info["ra"],
                "dec": info["dec"],
                "image": hdus[0].data.copy(),
                "votes": [-1, -1, *votes],
                "masks": np.stack([hdus[k].data for k in range(1, 5)]),
            }
    return found


def test_no_columns_are_as_many_empty_rows(built):
    data = stream(built)
    for format in (None, "numpy", "torch"):
        assert list(data.with_format(format).select_columns([])) == [{}] * 24
        assert list(data.with_format(format).select_columns(["image"]).select_columns([]).take(2)) == [{}] * 2
        assert list(data.with_format(format).remove_columns(list(data.features))) == [{}] * 24


# --- the rows ---------------------------------------------------------------------------------------------


def test_features_have_the_names_order_dtypes_and_shapes_of_the_card(built, cached):
    for features in (stream(built).features, cached.features):
        assert list(features) == NAMES
        assert features["object_id"] == datasets.Value("string")
        assert {n: features[n].dtype for n in NAMES if n not in ("object_id", "segmentation")} == {
            n: dtype for n, dtype in DTYPES.items() if "." not in n
        }
        assert features["image"] == datasets.Array3D(shape=(525, 525, 3), dtype="uint8")
        group = getattr(features["segmentation"], "feature", features["segmentation"])
        assert list(group) == ["class", "vote_fraction", "array"]
        assert getattr(group["array"], "feature", group["array"]) == datasets.Array2D(shape=(525, 525), dtype="uint8")


def test_rows_have_the_dtypes_and_shapes_of_the_features(rows):
    for row in rows:
        assert list(row) == NAMES
        assert dtypes(row) == DTYPES
        values = flat(row)
        assert {name: values[name].shape for name in SHAPES} == SHAPES
        assert row["segmentation"]["class"] == ["center", "star", "spiral", "bar"]
        assert type(row["object_id"]) is str and row["object_id"].startswith("1-")


def test_rows_are_the_archives_by_value(rows, archived):
    assert sorted(ids(rows)) == sorted(archived)
    for row in rows:
        source, group = archived[row["object_id"]], row["segmentation"]
        np.testing.assert_array_equal(row["image"], source["image"])
        np.testing.assert_array_equal(group["array"], source["masks"])
        np.testing.assert_array_equal(group["vote_fraction"], np.float32(source["votes"]))
        assert (row["ra"], row["dec"]) == (source["ra"], source["dec"])
        assert row["total_classifications"] == source["total_classifications"]
        assert row["scale"] == pytest.approx(PIXEL_SCALE / 3600, rel=1e-9)
        ra, dec = (float(source[name]) * units.deg for name in ("ra", "dec"))
        assert row["healpix"] == lonlat_to_healpix(ra, dec, 16, order="nested")


def test_without_a_format_numbers_are_pythons(built, rows):
    row = next(iter(stream(built, None)))
    assert type(row["total_classifications"]) is int and type(row["scale"]) is float
    np.testing.assert_array_equal(row["image"], rows[0]["image"])


def test_arrow_cache_gives_the_rows_of_the_stream(cached, rows, built, tmp_path):
    assert list(map(exact, cached.with_format("numpy"))) == list(map(exact, rows))
    parallel = table(built, tmp_path, num_proc=2).with_format("numpy")
    assert [exact(parallel[k]) for k in range(len(parallel))] == list(map(exact, rows))


@pytest.mark.parametrize("options", [("--files_per_object",), ("--compression", "gzip")], ids=lambda o: o[0])
def test_other_layouts_give_the_same_rows(archive, rows, tmp_path_factory, options):
    def make(folder):
        assert build(["--local_data_path", str(archive), "-o", str(folder / "gz3d"), "--num_processes", "1", *options]) == 0

    root = once(tmp_path_factory, options[0].strip("-"), make) / "gz3d"
    assert sorted(map(str, map(exact, stream(root)))) == sorted(map(str, map(exact, rows)))


def test_batches_are_the_rows_stacked(built, rows, cached):
    for batches in (stream(built).iter(batch_size=5), cached.with_format("numpy").iter(batch_size=5)):
        batches = list(batches)
        assert [len(batch["image"]) for batch in batches] == [5, 5, 5, 5, 4]
        assert batches[0]["image"].dtype == np.uint8 and batches[0]["image"].shape == (5, 525, 525, 3)
        assert batches[0]["segmentation"]["array"].shape == (5, 4, 525, 525)
        single = [{name: batch[name][k] for name in NAMES} for batch in batches for k in range(len(batch["image"]))]
        assert list(map(exact, single)) == list(map(exact, rows))
    assert [len(b["ra"]) for b in stream(built).iter(batch_size=5, drop_last_batch=True)] == [5, 5, 5, 5]


def test_batch_method_and_batched_map_take_groups_of_layers(built, rows, cached):
    first = next(iter(stream(built).batch(5)))
    assert first["segmentation"]["array"].shape == (5, 4, 525, 525) and first["scale"].dtype == np.float64

    def area(batch):
        return {"area": (batch["segmentation"]["array"][:, 2] > 0).sum(axis=(1, 2))}

    wanted = [(row["segmentation"]["array"][2] > 0).sum() for row in rows]
    for data in (stream(built), cached.with_format("numpy")):
        mapped = data.map(area, batched=True, batch_size=7)
        assert [row["area"] for row in mapped] == wanted
        assert exact({k: v for k, v in next(iter(mapped)).items() if k != "area"}) == exact(rows[0])


def test_arrow_and_pandas_have_the_same_values(built, rows):
    tables = list(stream(built, "arrow").iter(batch_size=7))
    assert [len(part) for part in tables] == [7, 7, 7, 3]
    assert tables[0].schema.field("image").type.value_type == "uint8"
    for part, row in zip(stream(built, "arrow"), rows, strict=True):
        assert part["object_id"].to_pylist() == [row["object_id"]] and part["ra"].to_pylist() == [row["ra"]]
        np.testing.assert_array_equal(part["image"].combine_chunks().to_numpy(zero_copy_only=False)[0], row["image"])
    frames = list(stream(built, "pandas").select_columns(["object_id", "ra", "scale"]).iter(batch_size=24))
    assert frames[0]["object_id"].tolist() == ids(rows)
    assert frames[0].dtypes.astype(str).tolist()[1:] == ["float32", "float64"]


def test_torch_tensors_have_the_values_and_dtypes(built, rows, cached):
    for data in (stream(built, "torch"), cached.with_format("torch")):
        for got, row in zip(data, rows, strict=True):
            assert isinstance(got["image"], torch.Tensor)
            assert exact(got) == exact(row)
    batch = next(stream(built, "torch").iter(batch_size=3))
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (3, 525, 525, 3)


def test_image_size_is_the_centre_crop(built, rows, tmp_path):
    crop = slice(6, 518)  # of 525, the middle 512
    for data in (stream(built, image_size=512), table(built, tmp_path, image_size=512).with_format("numpy")):
        assert data.features["image"].shape == (512, 512, 3)
        for got, row in zip(data, rows, strict=True):
            np.testing.assert_array_equal(got["image"], row["image"][crop, crop])
            np.testing.assert_array_equal(got["segmentation"]["array"], row["segmentation"]["array"][:, crop, crop])


@pytest.mark.parametrize("size", [0, -3, 526, "big", 64.5])
def test_impossible_image_size_is_one_clear_line(built, size):
    with pytest.raises(UserError, match=f"image_size must be 1 to 525 pixels, not {size}"):
        stream(built, image_size=size)


def test_number_of_rows_is_known_before_reading(built, cached):
    assert stream(built).info.splits["train"].num_examples == 24 == len(cached)


def test_splits(built, tmp_path):
    every = load_dataset("gz3d", data_dir=str(built), streaming=True).with_format("numpy")
    assert list(every) == ["train"] and next(iter(every["train"]))["scale"].dtype == np.float64
    every = load_dataset("gz3d", data_dir=str(built), cache_dir=str(tmp_path)).with_format("numpy")
    assert dtypes(every["train"][0]) == DTYPES
    half = load_dataset("gz3d", data_dir=str(built), split="train[:50%]", cache_dir=str(tmp_path)).with_format("numpy")
    assert len(half) == 12 and dtypes(half[0]) == DTYPES


# --- dtypes -----------------------------------------------------------------------------------------------

OPERATIONS = {
    "map": lambda ds: ds.map(lambda row: {"more": 1}).remove_columns("more"),
    "filter": lambda ds: ds.filter(lambda row: True),
    "filter twice": lambda ds: ds.filter(lambda row: True).filter(lambda row: True),
    "take": lambda ds: ds.take(3),
    "skip": lambda ds: ds.skip(3),
    "rename": lambda ds: ds.rename_column("scale", "other").rename_column("other", "scale"),
    "filter and rename": lambda ds: ds.filter(lambda row: True).rename_columns({"scale": "x"}).rename_column("x", "scale"),
    "shard": lambda ds: ds.shard(num_shards=2, index=1),
    "shuffle": lambda ds: ds.shuffle(seed=1),
    "node": lambda ds: split_dataset_by_node(ds, rank=1, world_size=2),
    "select": lambda ds: ds.select_columns(NAMES),
    "cast": lambda ds: ds.cast(ds.features),
    "concatenate": lambda ds: concatenate_datasets([ds, ds]),
    "interleave": lambda ds: interleave_datasets([ds.take(3), ds.skip(3)]),
    "repeat": lambda ds: ds.repeat(2),
}


@pytest.mark.parametrize("format", ["numpy", "torch"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_dtypes_survive_operations(built, cached_crops, operation, format):
    for data in (stream(built, None), cached_crops):
        assert dtypes(next(iter(operation(data).with_format(format)))) == DTYPES
        assert dtypes(next(iter(operation(data.with_format(format)).with_format(format)))) == DTYPES
        batch = next(iter(operation(data).with_format(format).iter(batch_size=2)))
        assert dtypes({name: batch[name] for name in NAMES}) == DTYPES


def test_dtypes_survive_train_test_split_and_conversion_to_a_stream(cached_crops):
    parts = cached_crops.train_test_split(test_size=6, seed=1).with_format("numpy")
    assert sorted(map(len, parts.values())) == [6, 18]
    assert all(dtypes(part[0]) == DTYPES for part in parts.values())
    again = cached_crops.to_iterable_dataset(num_shards=3)
    assert dtypes(next(iter(again.with_format("numpy")))) == DTYPES
    shuffled = again.with_format("numpy").shuffle(seed=1)
    assert ids(shuffled) != ids(again) and sorted(ids(shuffled)) == sorted(ids(again))


def test_stock_datasets_widen_as_before(rows):
    stock = datasets.Dataset.from_dict(
        {"image": [np.zeros((2, 2), np.uint8)] * 2, "x": [1.5, 2.5]},
        features=datasets.Features({"image": datasets.Array2D((2, 2), "uint8"), "x": datasets.Value("float64")}),
    )
    for data in (stock, stock.to_iterable_dataset()):
        assert type(data) in (datasets.Dataset, datasets.IterableDataset)
        assert next(iter(data.with_format("numpy")))["image"].dtype == np.int64
        row = next(iter(data.with_format("torch")))
        assert (row["image"].dtype, row["x"].dtype) == (torch.int64, torch.float32)
        doubled = concatenate_datasets([data, data])
        assert type(doubled) is type(data) and next(iter(doubled.with_format("numpy")))["image"].dtype == np.int64
        assert type(split_dataset_by_node(data, 0, 2)) is type(data)
    assert rows[0]["image"].dtype == np.uint8


def test_a_mapped_function_gets_the_format_that_was_asked_for_before_it(built):
    seen = []
    mapped = stream(built).map(lambda row: seen.append(row["scale"]) or {"half": row["scale"] / 2})
    assert next(iter(mapped.with_format(None)))["half"] == seen[0] / 2
    assert isinstance(seen[0], np.float64)


def test_merge_leaves_what_cannot_be_stacked():
    ragged = merge([np.zeros(2), np.zeros(3)])
    assert [part.shape for part in ragged] == [(2,), (3,)]
    group = merge([{"a": np.float32(1), "b": "x"}, {"a": np.float32(2), "b": "y"}])
    assert len(group) == 2 and group["a"].dtype == np.float32 and group[1] == {"a": 2, "b": "y"}


# --- rows are safe ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 3])
def test_writing_into_a_row_changes_no_other_and_no_later_epoch(built, rows, seed):
    data = stream(built) if seed is None else stream(built).shuffle(seed=seed)
    kept = []
    for row in data:
        kept.append((row["object_id"], exact(row)))
        row["image"][...] = 255
        row["segmentation"]["array"][...] = 255
        row["segmentation"]["vote_fraction"][...] = 9
    wanted = {row["object_id"]: exact(row) for row in rows}
    assert dict(kept) == wanted and {row["object_id"]: exact(row) for row in data} == wanted


def test_rows_kept_after_the_stream_moved_on_stay_right(built, rows):
    kept = list(stream(built).shuffle(seed=1, buffer_bytes=8 << 20))
    gc.collect()
    assert {row["object_id"]: exact(row) for row in kept} == {row["object_id"]: exact(row) for row in rows}


def test_two_iterators_do_not_disturb_each_other(built, rows):
    data = stream(built).select_columns(["object_id"])
    assert [(a["object_id"], b["object_id"]) for a, b in zip(data, data, strict=True)] == [(i, i) for i in ids(rows)]


# --- what is read -----------------------------------------------------------------------------------------


@pytest.fixture
def read_bytes(monkeypatch):
    """Sizes of the reads of pixels and numbers from local files."""
    sizes, preadv = [], os.preadv

    def counting(*arguments):
        sizes.append(preadv(*arguments))
        return sizes[-1]

    monkeypatch.setattr("skyset.partitions.byte_ranges.os.preadv", counting)
    return sizes


@pytest.mark.parametrize(
    ("choose", "row_bytes"),
    [
        (lambda ds: ds.select_columns(["image"]), 3 * PIXELS),
        (lambda ds: ds.select_columns("ra"), 4),
        (lambda ds: ds.remove_columns(["image"]), 4 * PIXELS + 16 + 4 + 8 + 4 + 4 + 16 + 8),
        (lambda ds: ds.remove_columns("segmentation").select_columns(["object_id", "image"]), 3 * PIXELS + 16),
        (lambda ds: ds.rename_column("image", "pixels").select_columns(["pixels", "ra"]), 3 * PIXELS + 4),
        (lambda ds: ds.shuffle(seed=1).remove_columns(["image", "segmentation"]), 16 + 4 + 8 + 4 + 4 + 8),
    ],
)
def test_only_the_bytes_of_chosen_columns_are_read(built, rows, read_bytes, choose, row_bytes):
    got = list(choose(stream(built)))
    assert len(got) == 24 and sum(read_bytes) == 24 * row_bytes
    if "image" in got[0] and "object_id" not in got[0]:
        np.testing.assert_array_equal(got[7]["image"], rows[7]["image"])


def test_chosen_columns_are_missing_from_rows_and_unknown_ones_refused(built):
    data = stream(built)
    assert list(next(iter(data.select_columns(["ra", "healpix"])))) == ["ra", "healpix"]
    assert list(data.remove_columns("image").features) == [name for name in NAMES if name != "image"]
    with pytest.raises(ValueError, match="nothing"):
        data.select_columns(["nothing"])


def test_skipped_rows_are_not_read(built, rows, read_bytes):
    data = stream(built).select_columns(["image", "object_id"]).skip(20)
    assert ids(data) == ids(rows)[20:]
    assert sum(read_bytes) == 4 * (3 * PIXELS + 16)


def test_take_and_skip_split_the_rows(built, rows):
    data = stream(built).select_columns(["object_id"])
    for n in (0, 1, 5, 23, 24, 30):
        assert ids(data.take(n)) == ids(rows)[:n] and ids(data.skip(n)) == ids(rows)[n:]
    assert ids(data.skip(3).take(7).skip(2)) == ids(rows)[5:10]


# --- shuffling --------------------------------------------------------------------------------------------

SMALL = 2 * 5 * 16  # bytes: windows of five object_id's


def shuffled(root, seed=1, **options):
    return stream(root).select_columns(["object_id"]).shuffle(seed=seed, **({"buffer_bytes": SMALL} | options))


def test_shuffle_is_a_permutation_reproducible_by_seed_and_new_in_each_epoch(built, rows):
    data = shuffled(built)
    first = ids(data)
    assert sorted(first) == sorted(ids(rows)) and first != ids(rows)
    assert ids(data) == first == ids(shuffled(built))
    assert ids(shuffled(built, 2)) != first
    assert ids(shuffled(built, None, generator=np.random.default_rng(5))) == ids(
        shuffled(built, None, generator=np.random.default_rng(5))
    )
    assert ids(shuffled(built, None)) != ids(shuffled(built, None))
    data.set_epoch(1)
    second = ids(data)
    assert second != first and sorted(second) == sorted(first)
    data.set_epoch(0)
    assert ids(data) == first


def test_an_unshuffled_stream_keeps_its_order_in_every_epoch(built, rows):
    data = stream(built).select_columns(["object_id"])
    data.set_epoch(3)
    assert ids(data) == ids(rows)


def test_whole_rows_are_shuffled(built, rows):
    wanted = {row["object_id"]: exact(row) for row in rows}
    assert all(exact(row) == wanted[row["object_id"]] for row in stream(built).shuffle(seed=4))
    tables = stream(built, "arrow").shuffle(seed=4)
    assert [t["object_id"][0].as_py() for t in tables] == ids(stream(built).shuffle(seed=4))


def test_cells_are_mixed_across_files(built):
    cells = [row["healpix"] for row in stream(built).select_columns(["healpix"]).shuffle(seed=1)]
    assert len(set(cells[:8])) >= 3  # unshuffled: one or two


@pytest.mark.parametrize("prepare", [lambda ds: ds.take(9), lambda ds: ds.map(lambda row: row).take(9)], ids=["", "map"])
def test_shuffling_the_first_rows_gives_just_those(built, rows, prepare):
    data = prepare(stream(built).select_columns(["object_id"])).shuffle(seed=1)
    assert sorted(ids(data)) == sorted(ids(rows)[:9]) and ids(data) != ids(rows)[:9]


def test_first_rows_of_a_shuffled_stream(built):
    data = shuffled(built)
    assert ids(data.take(9)) == ids(data)[:9] and ids(data.skip(9)) == ids(data)[9:]


def test_rows_of_several_streams_are_mixed(built, rows):
    data = stream(built).select_columns(["object_id"])
    both = concatenate_datasets([data.take(12), data.skip(12)])
    assert ids(both) == ids(rows)
    mixed = ids(both.shuffle(seed=1))
    assert sorted(mixed) == sorted(ids(rows)) and set(mixed[:12]) != set(ids(rows)[:12])


def test_columns_put_side_by_side_stay_together_when_shuffled(built, rows):
    data = stream(built)
    pair = concatenate_datasets([data.select_columns("object_id"), data.select_columns("ra")], axis=1).shuffle(seed=1)
    assert {row["object_id"]: row["ra"] for row in pair} == {row["object_id"]: row["ra"] for row in rows}


def test_shuffling_takes_no_more_memory_than_asked_for(built):
    row = 7 * PIXELS
    budget = 16 * row
    data = stream(built).shuffle(seed=1, buffer_bytes=budget)
    next(iter(data))  # imports
    gc.collect()
    reused.forget()  # or what is used again would not be counted
    tracemalloc.start()
    try:
        assert sum(1 for _ in data) == 24
        assert 4 * row < tracemalloc.get_traced_memory()[1] < budget * 1.02
    finally:
        tracemalloc.stop()


# --- resuming ---------------------------------------------------------------------------------------------

RESUMED = {
    "rows": lambda root: stream(root).select_columns(["object_id", "healpix"]),
    "shuffled": shuffled,
    "later epoch": shuffled,
    "take": lambda root: stream(root).select_columns(["object_id"]).take(13),
    "skip": lambda root: stream(root).select_columns(["object_id"]).skip(13),
    "shuffled take": lambda root: shuffled(root).take(13),
    "take shuffled": lambda root: stream(root).select_columns(["object_id"]).take(13).shuffle(seed=1, buffer_bytes=SMALL),
    "map": lambda root: shuffled(root).map(lambda row: {"more": 1}),
    "batched map": lambda root: shuffled(root).map(lambda batch: batch, batched=True, batch_size=4),
    "filter": lambda root: shuffled(root).filter(lambda row: row["object_id"] > "1-2"),
    "node": lambda root: split_dataset_by_node(shuffled(root), 1, 2),
    "arrow": lambda root: stream(root, "arrow").select_columns(["object_id"]),
    "shuffled arrow": lambda root: shuffled(root).with_format("arrow"),
}


def names_of(data) -> list[str]:
    return [row["object_id"] if isinstance(row, dict) else row["object_id"][0].as_py() for row in data]


@pytest.mark.parametrize("name", RESUMED)
def test_resuming_at_every_position_gives_the_very_next_row(built, name):
    epoch = 2 * (name == "later epoch")
    data, again = RESUMED[name](built), RESUMED[name](built)
    data.set_epoch(epoch)
    again.set_epoch(epoch)
    every = names_of(again)
    states, source = [json.dumps(data.state_dict())], iter(data)
    for _ in every:
        next(source)
        states.append(json.dumps(data.state_dict()))
    for position, state in enumerate(states):
        again.load_state_dict(json.loads(state))
        assert names_of(again) == every[position:], f"resumed at {position}"


def test_resuming_does_not_read_what_was_done(built, read_bytes):
    data = stream(built)
    source = iter(data)
    for _ in range(20):
        next(source)
    data.load_state_dict(data.state_dict())
    read_bytes.clear()
    assert sum(1 for _ in data) == 4 and sum(read_bytes) < 6 * 7.1 * PIXELS


def test_state_of_another_stream_is_refused(built):
    data = shuffled(built)
    rows = iter(data)
    next(rows)
    for other in (shuffled(built, 2), shuffled(built).shard(2, 0), stream(built).select_columns("object_id").take(5)):
        other.load_state_dict(data.state_dict())
        with pytest.raises(ValueError, match="saved by another stream"):
            next(iter(other))


def test_state_before_the_first_row_is_the_start_of_any_stream(built):
    """Workers of a loader save it before they have taken their share of the files."""
    whole = names_of(shuffled(built, 2))
    other = shuffled(built, 2)
    other.load_state_dict(shuffled(built).state_dict())
    source = iter(other)
    head = [next(source)["object_id"] for _ in range(3)]
    again = shuffled(built, 2)
    again.load_state_dict(other.state_dict())
    assert head + names_of(again) == whole


def test_state_outlives_a_move_of_the_data(built, tmp_path):
    data = shuffled(built)
    source = iter(data)
    for _ in range(7):
        next(source)
    (tmp_path / "elsewhere").symlink_to(built)
    moved = shuffled(tmp_path / "elsewhere")
    moved.load_state_dict(data.state_dict())
    assert ids(moved) == ids(source)


# --- nodes and workers ------------------------------------------------------------------------------------


class Worker:
    """Stands for torch's WorkerInfo: a worker of a DataLoader without a process."""

    def __init__(self, number, count):
        self.id, self.num_workers, self.seed, self.dataset = number, count, 0, None


def consumed(make, nodes, workers, monkeypatch) -> list[str]:
    found = []
    for rank, worker in itertools.product(range(nodes), range(max(workers, 1))):
        with monkeypatch.context() as patch:
            if workers:
                patch.setattr("torch.utils.data.get_worker_info", lambda worker=worker: Worker(worker, workers))
            found += ids(split_dataset_by_node(make(), rank=rank, world_size=nodes))
    return found


@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_nodes_and_workers_get_each_row_once(built, rows, nodes, workers, monkeypatch):
    few = lambda: stream(built).select_columns(["object_id"]).take(5)  # noqa: E731, fewer pieces than consumers
    assert sorted(consumed(few, nodes, workers, monkeypatch)) == sorted(ids(rows)[:5])
    for make in (lambda: shuffled(built), lambda: stream(built).select_columns(["object_id"])):
        assert sorted(consumed(make, nodes, workers, monkeypatch)) == sorted(ids(rows))


def test_nodes_need_a_common_seed(built):
    data = stream(built).select_columns(["object_id"])
    with pytest.raises(ValueError, match="pass seed="):
        split_dataset_by_node(data.shuffle(), rank=0, world_size=2)
    with pytest.raises(ValueError, match="pass seed="):
        split_dataset_by_node(data, rank=0, world_size=2).shuffle()
    with pytest.raises(ValueError, match="pass seed="):
        split_dataset_by_node(data.map(lambda row: row).take(5).shuffle(), rank=0, world_size=2)
    assert len(ids(split_dataset_by_node(data.shuffle(), rank=0, world_size=1))) == 24
    reseeded = data.shuffle().map(lambda row: row).shuffle(seed=1)
    assert len(ids(split_dataset_by_node(reseeded, rank=0, world_size=2))) == 12


def test_shards_are_disjoint_and_complete(built, rows):
    data = stream(built).select_columns(["object_id"])
    assert ids(itertools.chain(*(data.shard(3, k) for k in range(3)))) == ids(rows)
    parts = [ids(data.shard(3, k).shuffle(seed=1)) for k in range(3)]
    assert sorted(itertools.chain(*parts)) == sorted(ids(rows))


def test_dataloader_gives_batches_of_the_right_dtype(built, rows):
    loader = torch.utils.data.DataLoader(stream(built).shuffle(seed=1), batch_size=4, num_workers=2)
    seen = Counter()
    for batch in loader:
        count = len(batch["object_id"])
        assert batch["image"].shape == (count, 525, 525, 3) and batch["image"].dtype == torch.uint8
        assert batch["segmentation"]["array"].shape == (count, 4, 525, 525)
        assert batch["ra"].dtype == torch.float32 and batch["scale"].dtype == torch.float64
        seen.update(batch["object_id"])
    assert seen == Counter(ids(rows))


def test_dataloader_over_the_arrow_cache(cached, rows):
    loader = torch.utils.data.DataLoader(cached.with_format("torch"), batch_size=8)
    batches = list(loader)
    assert [len(batch["image"]) for batch in batches] == [8, 8, 8] and batches[0]["image"].dtype == torch.uint8
    np.testing.assert_array_equal(batches[0]["segmentation"]["array"][3], rows[3]["segmentation"]["array"])


def test_persistent_and_spawned_workers_follow_the_epoch(built, rows):
    data = shuffled(built)
    loader = torch.utils.data.DataLoader(
        data, batch_size=None, num_workers=1, persistent_workers=True, multiprocessing_context="spawn"
    )
    wanted = []
    for epoch in (0, 1):
        data.set_epoch(epoch)
        wanted.append(ids(data))
        assert ids(loader) == wanted[-1]
    assert wanted[0] != wanted[1]


# --- other roads ------------------------------------------------------------------------------------------


def test_streaming_over_http(built, rows):
    with ArchiveServer(built.parent) as server:
        data = stream(f"{server.url}gz3d")
        assert list(map(exact, data)) == list(map(exact, rows))
        server.clear()
        assert ids(data.select_columns(["object_id"]).take(2)) == ids(rows)[:2]


def test_parquet_keeps_uint8(built, rows, cached, tmp_path):
    cached.to_parquet(tmp_path / "table.parquet")
    files = [tmp_path / "table.parquet"]
    if hasattr(datasets.IterableDataset, "to_parquet"):
        stream(built).take(6).to_parquet(tmp_path / "stream.parquet")
        files.append(tmp_path / "stream.parquet")
    for file in files:
        back = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
        assert back.features["image"].dtype == "uint8" and back.features["scale"].dtype == "float64"
        row = back.with_format("arrow")[2]
        np.testing.assert_array_equal(row["image"].combine_chunks().to_numpy(zero_copy_only=False)[0], rows[2]["image"])


def test_short_form(built, rows):
    data = skyset.load("gz3d", str(built), image_size=64)
    row = next(iter(data))
    assert row["image"].shape == (64, 64, 3) and row["image"].dtype == np.uint8
    assert isinstance(next(iter(skyset.load("gz3d", built, format="torch")))["image"], torch.Tensor)


def test_table_short_form(built, tmp_path):
    data = skyset.load("gz3d", str(built), streaming=False, cache_dir=str(tmp_path))
    assert dtypes(data[23]) == DTYPES


def test_data_are_found_in_the_usual_places(built, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_DATA", str(built.parent))
    assert next(iter(skyset.load("gz3d")))["object_id"] == rows[0]["object_id"]
    monkeypatch.delenv("SKYSET_DATA")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gz3d").symlink_to(built)
    monkeypatch.chdir(tmp_path)
    assert next(iter(skyset.load("gz3d")))["object_id"] == rows[0]["object_id"]


# --- what goes wrong --------------------------------------------------------------------------------------


def made(folder, archive, *options):
    arguments = ["--local_data_path", str(archive), "-o", str(folder), "--num_processes", "1", *options]
    assert build(arguments) == 0
    return folder


def test_rebuilt_data_never_give_stale_rows(archive, tmp_path):
    root = made(tmp_path / "gz3d", archive, "--limit", "3")
    before = table(root, tmp_path / "cache")
    write_archive(tmp_path / "other", 3, seed=1)
    made(root, tmp_path / "other", "--overwrite")
    after, new = table(root, tmp_path / "cache"), stream(root)
    assert ids(after) == ids(new) and not set(ids(after)) & set(ids(before))
    assert list(map(exact, after.with_format("numpy"))) == list(map(exact, new))


def test_no_data_says_how_to_build_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="skyset build gz3d -o data/gz3d"):
        skyset.load("gz3d")
    with pytest.raises(UserError, match="skyset build gz3d -o data/gz3d"):
        load_dataset("gz3d", split="train", cache_dir=str(tmp_path / "cache"))


def test_folder_without_a_manifest(tmp_path):
    with pytest.raises(UserError, match=f"no manifest.json in {tmp_path}"):
        stream(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "is damaged"), ("[]", "is damaged"), ('{"format": "skyset-manifest/99"}', "99")]
)
def test_damaged_manifest(tmp_path, text, reason):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=f"manifest.json.*{reason}"):
        stream(tmp_path)


def test_folder_of_another_survey(built, tmp_path):
    (tmp_path / "manifest.json").write_text((built / "manifest.json").read_text().replace('"gz3d"', '"megacam"'))
    with pytest.raises(UserError, match="holds megacam, not gz3d"):
        stream(tmp_path)


def test_data_files_are_refused(built):
    with pytest.raises(UserError, match="give data_dir="):
        load_dataset("gz3d", data_files=str(built / "*/*.hdf5"), data_dir=str(built), split="train", streaming=True)


@pytest.mark.parametrize("fault", ["deleted", "truncated", "replaced", "not HDF5"])
def test_a_partition_that_goes_bad_while_streaming_is_named(built, tmp_path, fault):
    root = shutil.copytree(built, tmp_path / "gz3d")
    source = iter(stream(root))
    next(source)
    last = sorted(root.glob("*/*.hdf5"), key=lambda path: str(path.relative_to(root)))[-1]
    if fault == "deleted":
        last.unlink()
    elif fault == "truncated":
        os.truncate(last, last.stat().st_size // 2)
    elif fault == "replaced":
        write_archive(tmp_path / "one", 1, seed=9)
        made(tmp_path / "other", tmp_path / "one")
        os.replace(next((tmp_path / "other").glob("*/*.hdf5")), last)
    else:
        last.write_bytes(b"<html>" * 1000)
    with pytest.raises(PartitionError, match=str(last.relative_to(root))):
        list(source)


def test_import_is_light():
    code = """
import sys, time
import datasets
loaded, start = set(sys.modules), time.process_time()
import skyset
print(time.process_time() - start)
print(*{name.split(".")[0] for name in set(sys.modules) - loaded})
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    assert float(out[0]) < 1
    assert not {"torch", "transformers", "dask", "distributed", "hats", "lsdb", "matplotlib"} & set(out[1].split())


# --- manifests that anybody may have written --------------------------------------------------------------


def with_manifest(built, folder, change):
    """A folder with the partitions of ``built``, and its manifest after ``change``."""
    folder.mkdir(exist_ok=True)
    for path in built.iterdir():
        if path.name != "manifest.json" and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    values = json.loads((built / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(change(values) or values))
    return folder


def first_entry(**changes):
    return lambda values: values["files"][0].update(changes)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 10**18}, r"healpix=\S+ cannot have 1000000000000000000 rows in \d+ bytes"),
        ({"rows": 10**6}, r"healpix=\S+ cannot have 1000000 rows in \d+ bytes"),
        ({"rows": 10**18, "bytes": 2**62}, r"healpix=\S+ cannot have 1000000000000000000 rows in 4611686018427387904 bytes"),
        ({"rows": 10**10, "bytes": 10**15}, r"healpix=\S+: \d+ bytes, the manifest says 1000000000000000"),
        ({"rows": 10**400}, r"is damaged: ValueError"),
        ({"rows": -1}, r"has -1 rows"),
        ({"rows": 0}, r"has 0 rows"),
        ({"rows": 2.0}, r"rows is 2\.0"),
        ({"rows": "5"}, r"rows is '5'"),
        ({"rows": True}, r"rows is True"),
        ({"rows": [[[5]]]}, r"rows is \[\[\[5\]\]\]"),
        ({"split": "no split"}, r"is of split 'no split'"),
        ({"bytes": 1}, r"healpix=\S+ cannot have \d+ rows in 1 bytes"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused_in_one_line_at_once(built, tmp_path, changes, message, streaming):
    root = with_manifest(built, tmp_path / "gz3d", first_entry(**changes))
    tracemalloc.start()
    with pytest.raises(UserError, match=message) as info:
        load_dataset("gz3d", data_dir=str(root), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(info.value) and peak < 50 << 20


def test_more_rows_than_can_be_read_in_pieces(built, tmp_path, monkeypatch):
    monkeypatch.setattr("skyset.loading.reader.MAX_PIECES", 3)
    with pytest.raises(UserError, match=r"24 rows would be read in \d pieces: too many"):
        stream(built)


WRONG = [
    None,
    True,
    0,
    -1,
    10**18,
    2**63,
    1.5,
    float("nan"),
    "",
    "x",
    "../x",
    "é" * 300,
    [],
    {},
    {"a": 1},
    [[[[]]]],
    "S8",
    "V8",
    "bytes",
    "f16",
    "f4,f4",
    "S99999999999999",
    [525, 525],
    [-1],
    [10**9, 10**9],
    [1, 2, 3, 4, 5, 6],
]


def places(value, path=()):
    """Every place in nested dicts and lists."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def test_wrong_values_anywhere_in_a_manifest_are_refused_or_harmless(built, tmp_path):
    rng, outcomes = np.random.default_rng(1), Counter()
    whole = json.loads((built / "manifest.json").read_text())
    everywhere = list(places(whole))[1:]

    def change(values):
        place = everywhere[rng.integers(len(everywhere))]
        for key in place[:-1]:
            values = values[key]
        if rng.random() < 0.2:
            del values[place[-1]]
        else:
            values[place[-1]] = WRONG[rng.integers(len(WRONG))]

    for _ in range(300):
        root = with_manifest(built, tmp_path / "gz3d", change)
        try:
            for row in stream(root).select_columns(["object_id", "scale"]).take(3):
                assert row["object_id"]
            outcomes["read"] += 1
        except SkysetError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
    assert outcomes["read"] > 20 and outcomes["refused"] > 100


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"a":' * 50_000, "9" * 6000, "\udcff"])
def test_a_manifest_that_is_none(built, tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="is damaged"):
        stream(tmp_path)


def test_a_manifest_that_is_no_file_or_too_long(built, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(UserError, match="cannot be read: not a regular file"):
        stream(tmp_path)
    monkeypatch.setattr("skyset.partitions.manifest.LARGEST", 1000)
    with pytest.raises(UserError, match="more than 1,000"):
        stream(built)


# --- checksums --------------------------------------------------------------------------------------------


@pytest.fixture
def rotten(built, tmp_path):
    """A copy with one bit of one image flipped, size and time as before; and that file's path."""
    root = shutil.copytree(built, tmp_path / "gz3d")
    path = root / json.loads((root / "manifest.json").read_text())["files"][1]["path"]
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return root, path


@pytest.mark.parametrize(
    "operation",
    [
        lambda s: s,
        lambda s: s.shuffle(seed=1),
        lambda s: s.iter(batch_size=5),
        lambda s: s.select_columns(["object_id"]),
        lambda s: s.skip(3),
        lambda s: torch.utils.data.DataLoader(s.with_format("torch"), num_workers=2),
    ],
    ids=["rows", "shuffle", "batches", "columns", "skip", "workers"],
)
def test_bit_rot_is_noticed_where_that_is_asked_for(rotten, operation):
    root, path = rotten
    assert sum(1 for _ in operation(stream(root))) > 0  # else not
    with pytest.raises(PartitionError, match=rf"{path.name}: SHA-256 is \w{{12}}\.\.\., the manifest says \w{{12}}\.\.\.$"):
        for _ in operation(stream(root, verify=True)):
            pass
    with pytest.raises(PartitionError, match="SHA-256"):
        for _ in operation(skyset.load("gz3d", data_dir=str(root), verify=True)):
            pass


def test_bit_rot_is_noticed_by_tables_and_from_afar(rotten, tmp_path):
    root, _ = rotten
    with pytest.raises(datasets.exceptions.DatasetGenerationError) as info:
        table(root, tmp_path / "cache", verify=True)
    assert isinstance(info.value.__cause__, PartitionError) and "SHA-256" in str(info.value.__cause__)
    with ArchiveServer(root.parent) as server, pytest.raises(PartitionError, match="SHA-256"):
        list(stream(server.url + "gz3d", verify=True))


def test_rotten_files_are_skipped_where_that_is_asked_for(rotten, rows):
    root, path = rotten
    lost = sum(1 for row in rows if f"healpix={row['healpix']}" == path.parent.name)
    for shuffled in (False, True):
        some = stream(root, verify=True, on_bad_partition="skip")
        some = some.shuffle(seed=1) if shuffled else some
        with pytest.warns(UserWarning, match="SHA-256"):
            found = ids(some)
        wanted = [row["object_id"] for row in rows if f"healpix={row['healpix']}" != path.parent.name]
        assert sorted(found) == sorted(wanted) and lost and sum(some.skipped.values()) == lost


def test_each_file_is_checked_once_in_a_process(built, tmp_path, monkeypatch):
    root, checked = shutil.copytree(built, tmp_path / "gz3d"), []
    digest = Partition._digest
    monkeypatch.setattr(Partition, "_digest", lambda self: checked.append(str(self.path)) or digest(self))
    monkeypatch.setattr("skyset.loading.reader.MAX_OPEN", 1)
    for _ in range(2):
        assert len(ids(stream(root, verify=True).shuffle(seed=2))) == 24
    assert sorted(checked) == sorted(map(str, root.glob("healpix=*/*.hdf5")))
    checked.clear()
    one = sorted(root.glob("healpix=*/*.hdf5"))[0]
    one.write_bytes(one.read_bytes())  # written to: looked at again
    assert len(ids(stream(root, verify=True))) == 24 and checked == [str(one)]
    checked.clear()
    assert len(ids(stream(root))) == 24 and not checked
    with pytest.raises(UserError, match="verify must be True or False, not 'yes'"):
        stream(root, verify="yes")
