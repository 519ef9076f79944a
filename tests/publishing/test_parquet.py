"""Rows as Parquet: stock `datasets` gives them back as they are, and the same rows are the same bytes."""

import dataclasses
import hashlib
import io
import shutil
import subprocess
import sys

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skyset
from skyset.errors import PartitionError, UserError
from skyset.publishing.parquet import row_bytes, write_parquet
from skyset.publishing.preview import add_previews, pictured, pixels_of, thumbnail, with_preview
from skyset.publishing.source import sources
from skyset.survey import Feature


def written(source, path, split="train", **options):
    return write_parquet(path, source.features.arrow_schema, source.batches(source.manifest.splits[split]), **options)


@pytest.mark.datasets3
@pytest.mark.parametrize("folder", ["built", "rings", "decoded_rings"])
def test_stock_datasets_gives_the_rows_back(folder, request, tmp_path, cache_of_its_own):
    root = str(request.getfixturevalue(folder))
    for config, source in sources(root).items():
        for split in source.manifest.splits:
            path = tmp_path / f"{config}-{split}.parquet"
            facts = written(source, path, split)
            assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert facts.bytes == path.stat().st_size
            stock = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
            ours = skyset.load(source.survey.name, config, root, split=split, format="arrow")
            assert stock.features == ours.features == source.features
            one, other = (pa.concat_tables(each.iter(100)) for each in (stock.with_format("arrow"), ours))
            assert one.schema.equals(other.schema)
            assert (
                pq.read_metadata(path).num_rows == facts.rows == sum(entry.rows for entry in source.manifest.splits[split])
            )
            assert one.combine_chunks().equals(other.combine_chunks())


def test_every_config_and_published_form_is_found(rings, built):
    assert [*sources(str(rings))] == ["default", "rings_basic"]
    assert [*sources(str(rings / "rings_basic"))] == ["rings_basic"]
    with pytest.raises(UserError, match=r"no manifest\.json"):
        sources(str(built.parent))


def test_every_column_and_flat_layers(built, tmp_path):
    source = sources(str(built))["default"].with_flat_layers().with_every_column()
    facts = written(source, tmp_path / "rows.parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    assert facts.rows == len(table) == 24
    assert {"file_name", "iauname", "spiral", "vote_fraction", "wcs_cd"} <= set(table.column_names)
    assert "segmentation" not in table.column_names
    assert len({c.name for c in source.columns}) == len(source.survey.columns)
    rows = skyset.load("gz3d", data_dir=str(built)).take(3)
    spiral = pixels_of(table.column("spiral").combine_chunks(), source.features["spiral"])
    assert spiral.dtype == np.uint8 and spiral.shape == (24, 525, 525)
    for number, row in enumerate(rows):
        assert row["object_id"] == table["object_id"][number].as_py()
        assert np.array_equal(spiral[number], row["segmentation"]["array"][2])


def test_a_row_group_of_rows_that_stay_keeps_its_bytes(tmp_path):
    """Rows that come before it move it in the file, and change nothing in it: a store of equal pieces has it already."""
    table = pa.table({"id": pa.array([f"g{n % 7}" for n in range(60)]), "value": pa.array(range(60), pa.int64())})
    found = []
    for name, rows, ends in (("fewer", table.slice(10), [20, 50]), ("more", table, [10, 30, 60])):
        path = tmp_path / name
        assert write_parquet(path, table.schema, rows.to_batches(9), row_group_bytes=1 << 20, ends=ends).rows == len(rows)
        content, metadata = path.read_bytes(), pq.read_metadata(path)
        columns = [metadata.row_group(number).column(0) for number in range(metadata.num_row_groups)]
        found.append([content[c.dictionary_page_offset :][: c.total_compressed_size] for c in columns])
    assert found[0] == found[1][1:] and len(found[0]) == 2
    assert pq.read_table(tmp_path / "more").equals(table)


def test_row_groups_are_of_a_few_megabytes_with_pages_that_can_be_found(built, tmp_path):
    source = sources(str(built))["default"]
    megabytes = 525 * 525 * 7 / 2**20  # of a row
    for size, expected in ((1 << 20, 1), (int(2.1 * megabytes * 2**20), 2), (64 << 20, 4)):
        batches = source.batches(source.manifest.files[1:2])  # of four rows
        write_parquet(tmp_path / "rows.parquet", source.features.arrow_schema, batches, row_group_bytes=size)
        metadata = pq.read_metadata(tmp_path / "rows.parquet")
        assert {metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)} == {expected}
        assert metadata.row_group(0).column(0).has_offset_index


def test_equal_rows_are_equal_bytes_in_whatever_batches_they_come(rings, tmp_path):
    source = sources(str(rings))["default"]
    files, schema = source.manifest.splits["train"], source.features.arrow_schema
    batches = list(source.batches(files, piece_bytes=1))
    assert len(batches) == 34
    whole = pa.Table.from_batches(list(source.batches(files)), schema).combine_chunks().to_batches()
    options = {"row_group_bytes": 5000}
    assert len(whole) == 1
    one = write_parquet(tmp_path / "one.parquet", schema, batches, **options)
    other = write_parquet(tmp_path / "other.parquet", schema, whole, **options)
    assert one == other and one.row_groups > 3
    assert row_bytes(whole[0]).tolist() == [int(row_bytes(batch)[0]) for batch in batches]


def test_a_version_with_one_more_row_shares_its_pages(tmp_path):
    """Content-defined chunks: most bytes of the second file are in the first."""
    features = datasets.Features({"counts": datasets.Value("int64")})
    values = np.random.default_rng(0).integers(0, 1 << 20, 1 << 20)

    def data(rows, chunked):
        batch = pa.record_batch([pa.array(rows)], schema=features.arrow_schema)
        write_parquet(tmp_path / "rows.parquet", features.arrow_schema, [batch], "zstd", 64 << 20, chunked=chunked)
        return (tmp_path / "rows.parquet").read_bytes()

    def shared(chunked):
        one, other = data(values, chunked), data(np.concatenate([values[-777:], values]), chunked)
        return np.mean([other[start : start + 64] in one for start in range(0, len(other), 1 << 16)])

    with_chunks, without = shared(chunked=True), shared(chunked=False)
    assert with_chunks > 0.6 > 0.3 > without


@pytest.mark.parametrize("compression", ["zstd", "lz4", "snappy", "gzip", "none"])
def test_compressions(rings, tmp_path, compression):
    source = sources(str(rings))["rings_basic"]
    written(source, tmp_path / "rows.parquet", compression=compression)
    column = pq.read_metadata(tmp_path / "rows.parquet").row_group(0).column(0)
    assert column.compression == {"none": "UNCOMPRESSED"}.get(compression, compression.upper())


def test_bad_options_and_places_are_one_line(rings, tmp_path):
    source = sources(str(rings))["default"]
    with pytest.raises(UserError, match="unknown compression 'rar'"):
        written(source, tmp_path / "rows.parquet", compression="rar")
    with pytest.raises(UserError, match="there is no folder"):
        written(source, tmp_path / "none" / "rows.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(built, tmp_path):
    code = f"""
import resource, signal
from pathlib import Path
from skyset.publishing.parquet import write_parquet
from skyset.publishing.source import sources
source = sources({str(built)!r})["default"]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
write_parquet(Path({str(tmp_path / "rows.parquet")!r}), source.features.arrow_schema, source.batches(source.manifest.files))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert "UserError: cannot write" in done.stderr and "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_feature_keeps_its_name_from_a_column_that_has_it_too(rings):
    source = sources(str(rings))["default"]
    features = tuple(Feature("ra", "dec") if f.source == "dec" else f for f in source.survey.features if f.source != "ra")
    every = dataclasses.replace(source, survey=dataclasses.replace(source.survey, features=features)).with_every_column()
    names = {f.name: f.source for f in every.survey.features}
    assert (names["ra"], names["ra_stored"]) == ("dec", "ra")


def test_a_broken_partition_is_named_and_nothing_is_written(built, tmp_path):
    copy = shutil.copytree(built, tmp_path / "gz3d")
    source = sources(str(copy))["default"]
    entry = source.manifest.files[1]
    data = bytearray((copy / entry.path).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / entry.path).write_bytes(data)
    with pytest.raises(PartitionError, match=rf"{entry.path}: SHA-256"):
        written(source, tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()
    assert len(list(source.batches(source.manifest.files, verify=False))) > 0


def test_batches_and_row_groups_are_bounded(built):
    source = sources(str(built))["default"]
    batches = list(source.batches(source.manifest.files, piece_bytes=4 << 20))
    assert {len(batch) for batch in batches} <= {1, 2}, "a galaxy has 1.9 MB"
    assert sum(len(batch) for batch in batches) == source.manifest.rows
    assert max(row_bytes(batch).sum() for batch in batches) < 4 << 20


def test_previews_are_small_pictures(built, decoded_rings, rings, tmp_path):
    source = sources(str(built))["default"]
    assert pictured(source.survey) == "image"
    assert pictured(sources(str(rings))["default"].survey) is None, "those are pictures already"
    assert pictured(sources(str(decoded_rings))["default"].survey) == "image"
    features = with_preview(source.features)
    batches = add_previews(source.batches(source.manifest.files[1:2]), "image", source.features, side=50)
    write_parquet(tmp_path / "rows.parquet", features.arrow_schema, batches)
    stock = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train", streaming=True)
    assert stock.features == features
    row, *_ = list(stock)  # all: pyarrow's threads may keep a process from ending that leaves a stream open
    assert row["preview"].size == (50, 50)
    reduced = np.asarray(PIL.Image.fromarray(np.array(row["image"], np.uint8)).resize((50, 50)), float)
    assert np.abs(np.asarray(row["preview"], float) - reduced).mean() < 8


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64), (2, 64, 64), (5, 64, 64), (64, 64, 3)])
def test_thumbnails_of_bands_and_grey(shape):
    rng = np.random.default_rng(1)
    pixels = rng.normal(0, 1, shape).astype("f4")
    y, x = np.indices((64, 64)) - 32
    pixels += (300 * np.exp(-(x**2 + y**2) / 50)).reshape(64, 64, 1) if shape[-1] == 3 else 300 * np.exp(-(x**2 + y**2) / 50)
    pixels[..., :2, :2] = np.nan
    picture = np.asarray(PIL.Image.open(io.BytesIO(thumbnail(pixels, 32))).convert("L"), float)
    assert picture.shape == (32, 32)
    assert picture[14:18, 14:18].mean() > 150 > 100 > picture[:8].mean()
