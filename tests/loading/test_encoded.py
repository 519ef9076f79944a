"""Images kept as the archive encoded them: the same bytes on disk, the pixels that stock `datasets` gives, by every road."""

import dataclasses
import errno
import functools
import io
import itertools
import os
import shutil
import zlib

import datasets
import dill
import h5py
import numpy as np
import PIL.Image
import pytest
import torch
from datasets import concatenate_datasets, interleave_datasets, load_dataset
from datasets.distributed import split_dataset_by_node
from numpy.testing import assert_array_equal
from PIL.PngImagePlugin import PngInfo
from torch.utils.data import DataLoader

import skyset
from skyset import figures
from skyset.builder import SurveyBuilder
from skyset.building import card
from skyset.errors import PartitionError, RecordError, UserError
from skyset.explore import info as info_module
from skyset.explore import objects
from skyset.explore.bench import advice, measure, run
from skyset.loading import encoded
from skyset.loading.reader import cut
from skyset.partitions import partition as partitions
from skyset.partitions import writer
from skyset.partitions.layout import COMPRESSIONS, partition_path
from skyset.partitions.manifest import Manifest, describe_file
from skyset.partitions.partition import Partition
from skyset.partitions.verify import verify
from skyset.partitions.writer import PartitionWriter
from skyset.pixels import decoded_image, rgb
from skyset.sky import healpix_cell
from skyset.survey import HEALPIX, Column, Feature, Layers, Survey
from skyset.testing.server import ArchiveServer

pytestmark = pytest.mark.datasets3

COLUMNS = (
    Column("object_id", "S8"),
    Column("ra", "float64", (), "deg"),
    Column("dec", "float64", (), "deg"),
    HEALPIX,
    Column("image", "bytes", (), "", "PNG or JPEG as it came", typical_bytes=2000),
    Column("note", "bytes", typical_bytes=10),
)
SURVEY = Survey(
    name="pictures",
    title="Pictures of nothing",
    homepage="",
    citation="",
    license="",
    base_url="",
    columns=COLUMNS,
    features=(
        Feature("object_id", "object_id"),
        Feature("image", "image", encoded=True),
        Feature("ra", "ra"),
        Feature("note", "note"),
    ),
    image_axes={"image": 0},
    shaped_by_build=("image",),
    plot=lambda row: figures.image_figure(row["image"], row["object_id"]),
)
SIDE, ROWS = 40, 12
CELL = int(healpix_cell(10.0, 5.0))


class Pictures(SurveyBuilder):
    """Pictures of nothing."""

    SURVEY = SURVEY


skyset.register("pictures", __name__)


# --- pictures and folders of them -------------------------------------------------------------------------------------


def encode(pixels, format="JPEG", **options) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    image.save(file, format, **options)
    return file.getvalue()


def noise(seed, *shape) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (SIDE, SIDE, 3)).astype(np.uint8)


def pictures() -> list[bytes]:
    return [encode(noise(k), "PNG" if k % 3 else "JPEG") for k in range(ROWS)]


def record(row: int, image: bytes) -> dict:
    ra, dec = 10.0 + row / 100, 5.0
    return {"object_id": f"g{row}", "ra": ra, "dec": dec, "healpix": CELL, "image": image, "note": b"x" * row}


def write_folder(root, images, survey=SURVEY, rows_a_file=4, **options):
    entries, files = [], -(-len(images) // rows_a_file)
    for part, first in enumerate(range(0, len(images), rows_a_file), 1):
        records = [survey.record(record(k, images[k])) for k in range(first, min(first + rows_a_file, len(images)))]
        path = partition_path(CELL, part, files)
        with PartitionWriter(root / path, survey.columns, len(records), **options) as writer:
            for values in records:
                writer.append(values)
        entries.append(describe_file(root, path, survey, "train"))
    Manifest(survey.name, list(survey.columns), survey.key, entries).save(root)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures") / "pictures", pictures())


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root, tmp_path / "pictures")


def stream(root, format=None, **options):
    return load_dataset("pictures", data_dir=str(root), split="train", streaming=True, **options).with_format(format)


def table(root, cache, format=None, **options):
    return load_dataset("pictures", data_dir=str(root), split="train", cache_dir=str(cache), **options).with_format(format)


def stock(format=None):
    """The same rows in stock `datasets`."""
    kinds = {
        "object_id": datasets.Value("string"),
        "image": datasets.Image(),
        "ra": datasets.Value("float64"),
        "note": datasets.Value("binary"),
    }
    rows = [record(k, image) for k, image in enumerate(pictures())]
    values = {name: [row[name] for row in rows] for name in kinds}
    values["image"] = [{"bytes": image, "path": None} for image in values["image"]]
    return datasets.Dataset.from_dict(values, datasets.Features(kinds)).with_format(format)


def expected_images(format):
    """Stock's arrays; stock's tensors have their channels first, and without a format it gives ``PIL.Image``."""
    images = [np.array(row["image"]) for row in stock("numpy")]
    return list(map(torch.from_numpy, images)) if format == "torch" else images


def exact(value):
    """What equal values have in common."""
    if isinstance(value, dict):
        return {name: exact(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [exact(inner) for inner in value]
    if isinstance(value, PIL.Image.Image):
        return value.mode, value.size, zlib.crc32(value.tobytes())
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        array = np.asarray(value)
        return str(array.dtype), array.shape, zlib.crc32(np.ascontiguousarray(array))
    return value


def ids(rows) -> list[str]:
    return [row["object_id"] for row in rows]


# --- on disk ----------------------------------------------------------------------------------------------------------


def test_layout_is_two_contiguous_datasets(root):
    entry = Manifest.load(root).files[0]
    with h5py.File(root / entry.path) as file:
        data, ends = file["image"], file["image_end"]
        assert (data.dtype, ends.dtype, data.chunks, ends.chunks) == (np.uint8, np.int64, None, None)
        assert ends.shape == (4,) and data.shape == (ends[-1],)
        found = [data[start:end].tobytes() for start, end in itertools.pairwise([0, *ends[:].tolist()])]
        assert dict(data.attrs) == {"unit": "", "description": "PNG or JPEG as it came", "kind": "bytes", "end": "image_end"}
        assert dict(ends.attrs) == {"unit": "byte", "description": "where the row ends in image"}
    assert set(found) < set(pictures())


@pytest.mark.parametrize("planned", [4, 7])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_written_comes_back(tmp_path, compression, planned):
    columns = (*COLUMNS, Column("mask", "uint8", (70, 70)))
    values = [b"", b"a", bytes(100_000), b"\xff" * 7]
    records = [{**record(k, value), "mask": np.full((70, 70), k)} for k, value in enumerate(values)]
    path = tmp_path / "x.hdf5"
    with PartitionWriter(path, columns, planned, compression=compression) as writer:
        for row in records:
            writer.append(row)
    with Partition(path, columns, trusted_rows=4) as partition:
        assert [partition.record(k)["image"] for k in range(4)] == values
        assert partition.read("image").tobytes() == b"".join(values)
        assert partition.read("image", 1, 3).tobytes() == b"".join(values[1:3])
        assert partition.ends("image").tolist() == [0, 0, 1, 100_001, 100_008]
        assert partition.ends("image", 2, 3).tolist() == [1, 100_001]
        assert partition.record(3)["mask"].tolist() == records[3]["mask"].tolist()
    with h5py.File(path) as file:
        assert file["image"].chunks is None and (file["mask"].chunks is None) == (compression == "none")
    assert os.listdir(tmp_path) == ["x.hdf5"]


def test_rows_without_any_bytes(tmp_path):
    write_folder(tmp_path, [b""] * 4)
    assert [row["image"]["bytes"] for row in stream(tmp_path).decode(False)] == [b""] * 4
    assert list(verify(tmp_path, SURVEY)) == []


def test_ends_of_a_file_with_many_rows_are_read_piece_by_piece(root, monkeypatch):
    whole = list(map(exact, stream(root, "numpy")))
    monkeypatch.setattr(partitions, "_KEPT_ENDS", 2)
    assert list(map(exact, stream(root, "numpy"))) == whole
    assert sorted(ids(stream(root, "numpy").shuffle(seed=0))) == sorted(row["object_id"] for row in whole)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    files = [write_folder(tmp_path / name, pictures(), rows_a_file=ROWS) / partition_path(CELL) for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("part", ["spool", "file"])
def test_full_disk_leaves_nothing(tmp_path, monkeypatch, part):
    full = OSError(errno.ENOSPC, "No space left on device")

    class Full(io.BytesIO):
        def write(self, data):
            raise full

    if part == "spool":
        monkeypatch.setattr(writer.tempfile, "TemporaryFile", lambda dir: Full())
    else:
        monkeypatch.setattr(writer.Disk, "check", lambda self: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path, pictures())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_bytes_that_read_back_otherwise_never_get_the_name(tmp_path, monkeypatch):
    intact = Partition.read
    monkeypatch.setattr(
        Partition,
        "read",
        lambda self, name, *a, **k: intact(self, name, *a, **k) ^ 1 if name == "image" else intact(self, name, *a, **k),
    )
    with pytest.raises(PartitionError, match="image reads back otherwise than it was written"):
        write_folder(tmp_path, pictures())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_coerce_takes_bytes_and_nothing_else(monkeypatch):
    column = COLUMNS[4]
    assert column.coerce(b"ab") == column.coerce(bytearray(b"ab")) == column.coerce(memoryview(b"ab")) == b"ab"
    for value in ("ab", 5, np.zeros(3, np.uint8), None):
        with pytest.raises(RecordError, match="image is of type"):
            column.coerce(value)
    monkeypatch.setattr("skyset.survey.MAX_VALUE_BYTES", 10)
    with pytest.raises(RecordError, match="image has 11 bytes, more than 10"):
        column.coerce(bytes(11))


def test_declarations_that_cannot_be():
    for options in ({"shape": (3,)}, {"typical_bytes": 0}, {"typical_bytes": 1 << 40}):
        with pytest.raises(ValueError, match=r"column x (of bytes )?cannot have"):
            Column("x", "bytes", **options)
    with pytest.raises(ValueError, match="two columns are stored under image_end"):
        dataclasses.replace(SURVEY, columns=(*COLUMNS, Column("image_end", "int64")))
    with pytest.raises(ValueError, match="layers of a group cannot be of bytes"):
        dataclasses.replace(SURVEY, features=(Layers("group", ("a",), "label", {"image": ("image",)}),))


def test_manifest_says_bytes_and_no_estimate(root):
    manifest = Manifest.load(root)
    assert [column.dtype for column in manifest.columns[-2:]] == ["bytes", "bytes"]
    assert "typical_bytes" not in (root / "manifest.json").read_text()
    assert list(verify(root, SURVEY)) == []


def test_verify_names_ends_that_are_wrong(copy):
    entry = Manifest.load(copy).files[0]
    with h5py.File(copy / entry.path, "r+") as file:
        file["image_end"][1] = 10**9
    assert any("do not lie one after the other" in line for line in verify(copy, SURVEY))


def test_a_build_may_store_pixels_instead(tmp_path):
    column = Column("image", "uint8", (SIDE, SIDE, 3))
    survey = SURVEY.as_built([column])
    write_folder(tmp_path, [noise(k) for k in range(ROWS)], survey)
    rows = stream(tmp_path, "numpy", image_size=8)
    assert isinstance(rows.features["image"], datasets.Array3D)
    assert next(iter(rows))["image"].shape == (8, 8, 3)
    with pytest.raises(UserError, match="which is no image"):
        SURVEY.as_built([Column("image", "S5")])


def test_pieces_follow_from_the_size_of_the_files(root):
    entries = Manifest.load(root).files
    pieces = cut(str(root), entries, COLUMNS, piece_bytes=2 * (entries[0].bytes // entries[0].rows) + 400)
    assert [len(piece) for piece in pieces[:2]] == [2, 2]


# --- what users get ---------------------------------------------------------------------------------------------------


def test_rows_are_those_of_stock_datasets(root, tmp_path):
    assert stream(root).features == table(root, tmp_path).features == stock().features
    for format in (None, "numpy", "torch"):
        expected = expected_images(format)
        for data in (stream(root, format), table(root, tmp_path, format)):
            found = [row["image"] for row in data]
            assert list(map(exact, found)) == list(map(exact, expected))
            assert list(map(type, found)) == list(map(type, expected))
            assert [(row["object_id"], row["note"]) for row in data] == [(f"g{k}", b"x" * k) for k in range(ROWS)]


def test_shapes_and_dtypes(root):
    row = next(iter(stream(root, "numpy")))
    assert (row["image"].dtype, row["image"].shape, row["image"].flags.writeable) == (np.uint8, (SIDE, SIDE, 3), True)
    row = next(iter(stream(root, "torch")))
    assert (row["image"].dtype, tuple(row["image"].shape)) == (torch.uint8, (SIDE, SIDE, 3))
    row["image"] += 1
    assert isinstance(next(iter(stream(root)))["image"], np.ndarray)
    batch = next(stream(root, "numpy").iter(5))
    assert batch["image"].shape == (5, SIDE, SIDE, 3) and batch["note"] == [b"x" * k for k in range(5)]
    batch = next(stream(root, "torch").iter(5))
    assert batch["image"].shape == (5, SIDE, SIDE, 3)
    assert [image.shape for image in next(stream(root).iter(5))["image"]] == [(SIDE, SIDE, 3)] * 5


PIL_ASKED = {
    "option": lambda load: load(decode="pil"),
    "cast": lambda load: load().cast_column("image", datasets.Image()),
    "cast to another mode": lambda load: load().cast(datasets.Features({**load().features, "image": datasets.Image("RGB")})),
}


@pytest.mark.parametrize("ask", PIL_ASKED.values(), ids=PIL_ASKED)
def test_images_are_pil_where_that_is_asked_for(root, tmp_path, ask):
    for load in (functools.partial(stream, root), functools.partial(table, root, tmp_path)):
        rows = ask(load)
        for some in (
            rows,
            rows.take(5),
            rows.with_format("numpy").with_format(None),
            rows.rename_column("ra", "x"),
            rows.map(lambda row: {"more": 1}),
            rows.filter(lambda row: True),
            dill.loads(dill.dumps(rows)),
            concatenate_datasets([rows, rows]),
            rows.shuffle(seed=1),
        ):
            wanted = {row["object_id"]: exact(row["image"]) for row in stock()}
            found = [(row["object_id"], exact(row["image"])) for row in some]
            assert len(found) >= 5 and all(wanted[name] == image for name, image in found)
        for format in ("numpy", "torch"):
            found = [exact(row["image"]) for row in rows.with_format(format)]
            assert found == list(map(exact, expected_images(format)))
        seen = []
        list(rows.map(lambda row, seen=seen: seen.append(type(row["image"])) or {"more": 1}))
        assert all(issubclass(kind, PIL.Image.Image) for kind in seen) and seen
    unasked = stream(root).cast(datasets.Features(stream(root).features))
    assert isinstance(next(iter(unasked))["image"], np.ndarray)


def test_pil_may_be_all_that_is_asked_for(root, tmp_path, monkeypatch):
    """Without data_dir, and with names of configs; the cache of one way is not the other's."""
    monkeypatch.setenv("SKYSET_DATA", str(root.parent))
    for name in (None, "default"):
        for options, kind in (({"decode": "pil"}, PIL.Image.Image), ({}, np.ndarray)):
            rows = load_dataset("pictures", name, split="train", streaming=True, **options)
            assert isinstance(next(iter(rows))["image"], kind)
            rows = load_dataset("pictures", name, split="train", cache_dir=str(tmp_path), **options)
            assert isinstance(rows[0]["image"], kind)


def test_pil_of_pixels_is_refused(built):
    with pytest.raises(UserError, match=r"gz3d has no images stored as JPEG or PNG.*cast_column"):
        load_dataset("gz3d", data_dir=str(built), split="train", streaming=True, decode="pil")


def test_how_images_are_decoded_is_one_of_two(root):
    with pytest.raises(UserError, match='decode must be "array" or "pil", not False'):
        stream(root, decode=False)


def test_the_cache_is_the_same_however_images_are_decoded(root, tmp_path):
    files = [table(root, tmp_path, **options).cache_files for options in ({}, {"decode": "pil"}, {"decode": "array"})]
    assert files[0] == files[1] == files[2]


def test_arrow_has_the_bytes_undecoded(root, monkeypatch):
    monkeypatch.setattr(encoded, "decoded_image", lambda *_: pytest.fail("decoded"))
    tables = list(stream(root, "arrow").iter(batch_size=5))
    assert [row["bytes"] for part in tables for row in part["image"].to_pylist()] == pictures()
    assert [row["path"] for part in tables for row in part["image"].to_pylist()] == [None] * ROWS
    assert [note for part in tables for note in part["note"].to_pylist()] == [b"x" * k for k in range(ROWS)]


def test_arrow_shares_the_memory_of_the_slab(root):
    data = np.arange(6, dtype=np.uint8)
    array = skyset.loading.arrow._binary(encoded.Bytes(data, np.array([0, 2, 6])), datasets.Image().pa_type)
    assert array.field("bytes").buffers()[2].address == data.ctypes.data
    assert array.to_pylist() == [{"bytes": b"\0\1", "path": None}, {"bytes": b"\2\3\4\5", "path": None}]


def test_images_that_are_not_to_be_decoded(root, monkeypatch):
    monkeypatch.setattr(encoded, "decoded_image", lambda *_: pytest.fail("decoded"))
    casts = [lambda ds: ds.cast_column("image", datasets.Image(decode=False))]
    casts += [lambda ds: ds.decode(False)] if hasattr(datasets.IterableDataset, "decode") else []
    for cast, format in itertools.product(casts, (None, "numpy", "torch")):
        rows = cast(stream(root, format))
        assert rows.features["image"] == datasets.Image(decode=False)
        assert [row["image"] for row in rows] == [{"bytes": image, "path": None} for image in pictures()]
        assert [row["image"]["bytes"] for row in rows.shuffle(seed=1).take(3)] != pictures()[:3]
    batch = next(iter(DataLoader(casts[0](stream(root, "torch")), batch_size=4)))
    assert batch["image"]["bytes"] == pictures()[:4]


def test_images_in_another_mode_and_decoded_in_threads(root):
    grey = stream(root).cast_column("image", datasets.Image(mode="L"))
    assert {row["image"].mode for row in grey} == {"L"}
    if hasattr(datasets.IterableDataset, "decode") and not datasets.__version__.startswith("3."):
        threads = stream(root).decode(num_threads=2)
        assert [exact(np.array(row["image"])) for row in threads] == list(map(exact, expected_images(None)))


OPERATIONS = {
    "map": lambda ds: ds.map(lambda row: {"more": 1}).remove_columns("more"),
    "filter": lambda ds: ds.filter(lambda row: row["image"] is not None),
    "take": lambda ds: ds.take(7),
    "skip": lambda ds: ds.skip(3),
    "rename": lambda ds: ds.rename_column("ra", "other").rename_column("other", "ra"),
    "filter and rename": lambda ds: ds.filter(lambda row: True).rename_columns({"ra": "x"}),
    "filter, rename and map": lambda ds: ds.filter(lambda row: True).rename_column("ra", "x").map(lambda row: {"more": 1}),
    "filter and remove": lambda ds: ds.filter(lambda row: True).remove_columns("ra"),
    "filter and select": lambda ds: ds.filter(lambda row: True).select_columns(["object_id", "image"]),
    "shard": lambda ds: ds.shard(num_shards=2, index=1),
    "shuffle": lambda ds: ds.shuffle(seed=1),
    "node": lambda ds: split_dataset_by_node(ds, rank=1, world_size=2),
    "select": lambda ds: ds.select_columns(["object_id", "image"]),
    "cast": lambda ds: ds.cast(ds.features),
    "concatenate": lambda ds: concatenate_datasets([ds, ds]),
    "interleave": lambda ds: interleave_datasets([ds.take(3), ds.skip(3)]),
    "repeat": lambda ds: ds.repeat(2),
}


@pytest.mark.parametrize("format", [None, "numpy", "torch"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_images_survive_operations(root, operation, format):
    wanted = {f"g{k}": exact(image) for k, image in enumerate(expected_images(format))}
    for rows in (operation(stream(root, format)), operation(stream(root)).with_format(format)):
        found = [(row["object_id"], exact(row["image"])) for row in rows]
        assert len(found) >= 4 and all(wanted[name] == image for name, image in found)
    batch = next(iter(operation(stream(root, format)).iter(batch_size=2)))
    assert exact(batch["image"][0]) == wanted[batch["object_id"][0]]


def test_a_mapped_function_keeps_getting_images(root):
    for rows, small in (
        (stream(root, decode="pil"), lambda row: {"image": row["image"].resize((8, 8))}),
        (stream(root), lambda row: {"image": row["image"][:8, :8]}),
    ):
        mapped = rows.map(small)
        assert next(iter(mapped.with_format("numpy")))["image"].shape == (8, 8, 3)
        assert next(iter(mapped.with_format("torch")))["image"].shape == (8, 8, 3)


@pytest.mark.parametrize("kept", [False, True])
def test_shuffled_rows_are_the_rows(root, kept):
    with ArchiveServer(root.parent) as server:
        rows = stream(server.url + "pictures" if kept else root, "numpy")
        expected = {row["object_id"]: exact(row) for row in stream(root, "numpy")}
        shuffled = [exact(row) for row in rows.shuffle(seed=3)]
        assert {row["object_id"]: row for row in shuffled} == expected and ids(shuffled) != list(expected)
        assert [exact(row) for row in rows] == list(expected.values())


@pytest.mark.parametrize("size", [None, 5])
def test_resume_in_the_middle(root, size):
    def items(rows):
        return rows if size is None else rows.iter(batch_size=size)

    for shuffled in (False, True):
        make = (lambda: stream(root, "numpy").shuffle(seed=2)) if shuffled else (lambda: stream(root, "numpy"))
        whole = list(map(exact, items(make())))
        rows = make()
        running = iter(items(rows))
        head = [exact(next(running)) for _ in range(2)]
        again = make()
        again.load_state_dict(rows.state_dict())
        assert head + list(map(exact, items(again))) == whole


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("format", ["torch", "numpy"])
def test_loader_stacks_images_of_one_size(root, workers, shuffled, format):
    rows = stream(root, format)
    expected = {row["object_id"]: exact(row["image"]) for row in stream(root, format)}
    loader = DataLoader(rows.shuffle(seed=0) if shuffled else rows, batch_size=3, num_workers=workers)
    found = {}
    for _ in range(2):
        for batch in loader:
            assert batch["image"].dtype == torch.uint8 and batch["image"].ndim == 4
            found.update(zip(batch["object_id"], map(exact, batch["image"]), strict=True))
            assert batch["note"] == [b"x" * int(name[1:]) for name in batch["object_id"]]
    assert found == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_several_sizes_make_a_list(tmp_path, workers):
    sizes = [SIDE + k % 2 for k in range(ROWS)]
    write_folder(tmp_path, [encode(noise(k, size, size, 3)) for k, size in enumerate(sizes)])
    for batch in DataLoader(stream(tmp_path, "torch"), batch_size=4, num_workers=workers):
        assert [tuple(image.shape[:2]) for image in batch["image"]] == [(SIDE, SIDE), (SIDE + 1,) * 2] * 2
    batch = next(stream(tmp_path, "numpy").iter(3))
    assert isinstance(batch["image"], list) and batch["image"][1].shape == (SIDE + 1, SIDE + 1, 3)


def test_images_are_decoded_when_they_are_wanted(root, monkeypatch):
    decoded = []
    real = encoded.decoded_image
    monkeypatch.setattr(encoded, "decoded_image", lambda *a: decoded.append(1) or real(*a))
    next(iter(stream(root, "numpy")))
    assert len(decoded) == 1
    assert ids(stream(root, "torch").select_columns(["object_id"])) and len(decoded) == 1


def test_table_keeps_the_bytes_and_goes_to_parquet(root, tmp_path):
    rows = table(root, tmp_path)
    assert rows.cast_column("image", datasets.Image(decode=False))[3]["image"]["bytes"] == pictures()[3]
    rows.to_parquet(tmp_path / "rows.parquet")
    names = ["rows.parquet"]
    if hasattr(stream(root), "to_parquet"):  # not in datasets 3
        stream(root).to_parquet(tmp_path / "more.parquet")
        names.append("more.parquet")
    for name in names:
        back = datasets.Dataset.from_parquet(str(tmp_path / name), cache_dir=str(tmp_path))
        assert back.features["image"] == datasets.Image()
        assert [exact(row["image"]) for row in back] == [exact(row["image"]) for row in stock()]


def test_image_size_is_refused(root):
    with pytest.raises(UserError, match="image_size cannot crop image, which is stored encoded"):
        stream(root, image_size=8)


# --- odd and damaged images -------------------------------------------------------------------------------------------

GREY = noise(0, SIDE, SIDE)
DEEP = (np.arange(SIDE * SIDE, dtype=np.uint16) * 40).reshape(SIDE, SIDE)


def over_black(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    black = PIL.Image.new("RGBA", alpha.shape[::-1], "black")
    image = PIL.Image.alpha_composite(black, PIL.Image.fromarray(np.dstack([pixels, alpha])))
    return np.asarray(image.convert("RGB"))


ODD = {
    "grey": (encode(GREY, "PNG"), np.repeat(GREY[..., None], 3, -1)),
    "grey JPEG": (encode(np.full((SIDE, SIDE), 77, np.uint8)), np.full((SIDE, SIDE, 3), 77, np.uint8)),
    "16 bits": (encode(DEEP, "PNG"), np.repeat((DEEP >> 8).astype(np.uint8)[..., None], 3, -1)),
    "alpha": (encode(np.dstack([noise(1), GREY]), "PNG"), over_black(noise(1), GREY)),
    "grey with alpha": (
        encode(PIL.Image.merge("LA", [PIL.Image.fromarray(GREY)] * 2), "PNG"),
        over_black(np.dstack([GREY] * 3), GREY),
    ),
    "one bit": (encode(PIL.Image.fromarray(GREY > 99), "PNG"), np.repeat((GREY > 99)[..., None] * np.uint8(255), 3, -1)),
    "palette": (
        encode(PIL.Image.fromarray(np.dstack([GREY // 64 * 64] * 3)).quantize(4), "PNG"),
        np.dstack([GREY // 64 * 64] * 3),
    ),
    "transparent palette": (
        encode(PIL.Image.fromarray(np.dstack([GREY // 64 * 64] * 3)).quantize(4), "PNG", transparency=b"\0\x80"),
        np.array([0, 64, 64, 0], np.uint8)[np.dstack([GREY // 64] * 3)],
    ),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("error")
def test_arrays_are_rgb_whatever_the_file_holds(tmp_path, name):
    data, expected = ODD[name]
    write_folder(tmp_path / "pictures", [data] * 4)
    for rows in (stream(tmp_path / "pictures"), table(tmp_path / "pictures", tmp_path / "cache")):
        assert_array_equal(next(iter(rows.with_format("numpy")))["image"], expected)
        assert_array_equal(next(iter(rows.with_format("torch")))["image"], expected)
        assert_array_equal(next(iter(rows))["image"], expected)
    pil = stream(tmp_path / "pictures", decode="pil")
    assert next(iter(pil))["image"].mode == PIL.Image.open(io.BytesIO(data)).mode


def test_images_are_turned_upright():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    data = encode(np.repeat([[[0, 0, 0], [255, 255, 255]]], 16, axis=0).astype(np.uint8).repeat(16, 1), exif=exif)
    assert exact(decoded_image(data)) == exact(datasets.Image().decode_example({"bytes": data, "path": None}))
    assert rgb(decoded_image(data)).shape == (32, 16, 3)


def bomb() -> bytes:
    """A PNG that says it has 400 million pixels."""
    data = bytearray(encode(noise(0), "PNG"))
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def chunk_bomb() -> bytes:
    """A PNG with a text that unpacks to 100 MB."""
    info = PngInfo()
    info.add_text("x", "y" * 100_000_000, zip=True)
    return encode(noise(0), "PNG", pnginfo=info)


DAMAGED = {
    "empty": b"",
    "no image": b"<html>down for maintenance</html>",
    "cut": pictures()[0][:900],
    "cut PNG": pictures()[1][:900],
    "another byte": pictures()[1][:300] + b"\0\1\2\3" + pictures()[1][304:],
    "GIF": encode(noise(0, SIDE, SIDE), "GIF"),
    "EPS": encode(noise(0), "EPS"),
    "bomb": bomb,
    "text bomb": chunk_bomb,
}


@pytest.mark.parametrize("format", [None, "numpy", "torch"])
@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.filterwarnings("ignore:Image size")
def test_damaged_image_is_named_by_file_and_row(tmp_path, name, format):
    images = pictures()
    images[6] = DAMAGED[name]() if callable(DAMAGED[name]) else DAMAGED[name]
    write_folder(tmp_path, images)
    path = Manifest.load(tmp_path).files[1].path
    match = f"{path}: column image, row 2: "
    rows = stream(tmp_path, format)
    assert ids(itertools.islice(rows, 6)) == [f"g{k}" for k in range(6)]
    for attempt in (rows, rows.shuffle(seed=0), rows.iter(batch_size=5), rows.iter(batch_size=12)):
        with pytest.raises(PartitionError, match=match) as info:
            for row in attempt:
                assert row["image"] is not None  # a row of torch's format is decoded when somebody looks
        assert "\n" not in str(info.value)
    assert len(list(rows.cast_column("image", datasets.Image(decode=False)))) == ROWS


def test_images_of_damaged_bytes_are_images_or_refused():
    rng = np.random.default_rng(0)
    outcomes = []
    for case in range(400):
        data = bytearray(pictures()[case % 2])
        for place in rng.integers(0, len(data) if case % 4 < 2 else 64, rng.integers(1, 5)):
            data[place] = rng.integers(256)
        rows = encoded.ImageRows(np.frombuffer(data, np.uint8), np.array([0, len(data)]), [(1, "x.hdf5", 7)])
        try:
            outcomes.append(rows[0].dtype)
        except PartitionError as error:
            assert str(error).startswith("x.hdf5: column image, row 7: ") and "\n" not in str(error)
            outcomes.append("refused")
    assert set(outcomes) == {np.dtype("u1"), "refused"}


def test_more_bytes_than_are_read_at_a_time(root, monkeypatch):
    monkeypatch.setattr(partitions, "MAX_READ_BYTES", 10_000)
    with pytest.raises(PartitionError, match=r"image, rows 0 to 4: \d+ bytes, more than 10000 at a time"):
        ids(stream(root))
    monkeypatch.setattr(partitions, "MAX_VALUE_BYTES", 3000)
    with pytest.raises(PartitionError, match=r"image, rows 0 to 4: one has \d+ bytes, more than 3000"):
        ids(stream(root).shuffle(seed=0))


def test_damaged_image_in_a_worker(tmp_path):
    write_folder(tmp_path, [*pictures()[:-1], b"x"])
    with pytest.raises(PartitionError, match="column image, row 3"):
        list(DataLoader(stream(tmp_path, "torch"), batch_size=3, num_workers=1))


@pytest.mark.parametrize("format", [None, "numpy", "torch"])
@pytest.mark.parametrize("seed", [None, 1])
def test_damaged_images_are_skipped_where_that_is_asked_for(tmp_path, format, seed):
    images = pictures()
    images[0] = images[5] = images[6] = images[11] = b"nothing"
    good = [f"g{k}" for k in range(ROWS) if images[k] != b"nothing"]
    write_folder(tmp_path, images)
    rows = stream(tmp_path, format, on_bad_partition="skip")
    rows = rows if seed is None else rows.shuffle(seed=seed)
    with pytest.warns(UserWarning, match="column image, row 0"):
        found = ids(rows)
    assert sorted(found) == sorted(good) and (seed is not None or found == good)
    assert len(rows.skipped) == 4
    with pytest.warns(UserWarning):
        assert ids(rows) == [name for batch in rows.iter(batch_size=3) for name in batch["object_id"]]
        for stop in range(1, len(good)):
            some = stream(tmp_path, format, on_bad_partition="skip")
            some = some if seed is None else some.shuffle(seed=seed)
            head = ids(itertools.islice(some, stop))
            again = stream(tmp_path, format, on_bad_partition="skip")
            again = again if seed is None else again.shuffle(seed=seed)
            again.load_state_dict(some.state_dict())
            assert head + ids(again) == found
        loaded = [name for batch in DataLoader(rows.with_format("torch"), batch_size=3) for name in batch["object_id"]]
    assert loaded == found


# --- tools ------------------------------------------------------------------------------------------------------------


def test_show_info_bench_and_card(root, capsys):
    from rich.console import Console

    assert objects.object_figure(SURVEY, str(root), "g5").axes[0].get_title() == "g5"
    info_module.print_info(Manifest.load(root), Console())
    assert "bytes" in capsys.readouterr().out
    assert "| `image` | image |" in card.features_table(SURVEY) and "| `image` | bytes |" in card.columns_table(SURVEY)
    target = measure.open_target(root)
    assert target.row_bytes > SIDE * SIDE * 3
    batches = measure.whole_batches(stream(root, "numpy").iter(batch_size=5))
    assert [(count, [array.shape for array in arrays]) for count, arrays in batches] == [
        (count, [(count, SIDE, SIDE, 3)]) for count in (5, 5, 2)
    ]
    assert measure.stored_compression(Manifest.load(root)) is None


def test_bench_tells_bytes_on_disk_from_decoded_bytes(root, capsys, monkeypatch):
    from rich.console import Console

    target = measure.open_target(root)
    assert target.is_encoded and target.stored_row_bytes == Manifest.load(root).bytes / 12
    monkeypatch.setattr(run, "core_count", lambda: 1)
    console = Console(width=120)
    results = measure.Results()
    results.speeds["warm"] = {
        measure.FLOOR: measure.Speed(1000.0, 1000 * target.stored_row_bytes),
        measure.ROWS: measure.Speed(100.0, 100.0 * target.row_bytes),
    }
    run.show(target, measure.ways(target, []), results, console)
    text = " ".join(capsys.readouterr().out.split())
    disk, decoded = (f"{100 * size / 1e6:,.0f}" for size in (target.stored_row_bytes, target.row_bytes))
    assert f"{measure.FLOOR} 1,000 {1000 * target.stored_row_bytes / 1e6:,.0f} " in text
    assert f"{measure.ROWS} 100 {disk} {decoded} " in text and "of floor" not in text
    assert "--compression would not make them smaller" in text and "blosc" not in text
    assert "rows come at 10% of the rate" in text
    assert "end to end gives" not in advice.limit_advice(394, 578, 10_000, is_encoded=True)
