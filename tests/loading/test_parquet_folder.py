"""HATS catalogues and pushed Parquet as `datasets` gives them after ``import skyset``: own dtypes, no margins."""

import json
import shutil

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.distributed import split_dataset_by_node
from huggingface_hub import HfApi

import skyset
from skyset.errors import UserError
from skyset.loading.hats import catalogue_in, read_properties
from skyset.loading.parquet_folder import features_in, without_tensors
from skyset.loading.stream import SurveyStream, SurveyTable
from skyset.publishing.hats import Asked, export
from skyset.publishing.parquet import write_parquet
from skyset.publishing.source import sources
from skyset.testing.hub import HubServer
from skyset.testing.server import ArchiveServer
from tests.hub import TOKEN, talking_to

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


@pytest.fixture(scope="module")
def catalogue(decoded_rings, tmp_path_factory):
    """40 galaxies of 16 x 16 pixels in partitions of a few rows. Do not change it."""
    folder = tmp_path_factory.mktemp("catalogue") / "rings_hats"
    export(str(decoded_rings), folder, Asked(max_rows=6, margin=3600))
    return folder


@pytest.fixture(scope="module")
def images(decoded_rings):
    """The same galaxies' pixels from the partitions, by object_id."""
    loaded = (skyset.load("gz_decals", "default", str(decoded_rings), split=s) for s in ("train", "validation", "test"))
    return {row["object_id"]: row["image"] for split in loaded for row in split}


def check(rows, images):
    """Ids of rows whose pixels and dtypes are those of the partitions."""
    ids = []
    for row in rows:
        assert row["image"].dtype == np.uint8 and np.array_equal(row["image"], images[row["object_id"]])
        ids.append(row["object_id"])
    return ids


def test_rows_keep_dtypes_and_shapes(catalogue, images):
    stream = skyset.load(str(catalogue))
    assert isinstance(stream, SurveyStream) and stream.num_shards > 5
    assert stream.features["image"] == datasets.Array3D((16, 16, 3), "uint8")
    assert "Walmsley" in stream.info.citation
    assert sorted(check(stream, images)) == sorted(images)
    row = next(iter(stream.take(1)))
    assert row["ra"].dtype == np.float64 and row["_healpix_29"].dtype == np.int64 and isinstance(row["object_id"], str)
    batch = next(iter(stream.iter(batch_size=3)))
    assert batch["image"].shape == (3, 16, 16, 3) and batch["image"].dtype == np.uint8
    tensors = next(iter(stream.with_format("torch")))
    assert str(tensors["image"].dtype) == "torch.uint8"


def test_tables_too(catalogue, images):
    table = datasets.load_dataset(str(catalogue), split="train")
    assert isinstance(table, SurveyTable) and len(table) == 40
    assert sorted(check(table.with_format("numpy"), images)) == sorted(images)
    assert sorted(check(skyset.load(str(catalogue / "gz_decals"), streaming=False), images)) == sorted(images)


@pytest.mark.parametrize("form", ["list", "tensor"])
def test_other_forms_of_arrays(decoded_rings, images, tmp_path, form):
    export(str(decoded_rings), tmp_path / "out", Asked(images=form))
    stream = skyset.load(str(tmp_path / "out"))
    assert stream.features["image"] == datasets.Array3D((16, 16, 3), "uint8")
    assert sorted(check(stream, images)) == sorted(images)


def test_others_catalogues_of_lists_and_tensors(catalogue, images, tmp_path):
    """Without our declaration: what the types tell."""
    for form in ("list", "tensor"):
        copy = shutil.copytree(catalogue / "gz_decals", tmp_path / form)
        (copy / "hats.properties").write_text("obs_collection=x\ndataproduct_type=object\n")
        for path in copy.glob("dataset/Norder=*/Dir=*/Npix=*.parquet"):
            table = pq.read_table(path, partitioning=None)
            image = table.column("image").combine_chunks()
            image = image.chunk(0) if isinstance(image, pa.ChunkedArray) else image
            pixels = np.array(image.storage.to_pylist(), np.uint8)
            stored = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels) if form == "tensor" else image.storage
            pq.write_table(
                table.set_column(table.column_names.index("image"), "image", stored).replace_schema_metadata(), path
            )
        assert sorted(check(skyset.load(str(copy)), images)) == sorted(images)


def test_tensors_of_any_dimension():
    arrays = {n: np.arange(2 * 3**n, dtype=np.float32).reshape(2, *[3] * n) for n in (1, 2, 3, 4)}
    table = pa.table({f"t{n}": pa.FixedShapeTensorArray.from_numpy_ndarray(array) for n, array in arrays.items()})
    features = features_in(table.schema)
    assert features["t1"] == datasets.Features({"x": datasets.Sequence(datasets.Value("float32"), length=3)})["x"]
    plain = without_tensors(table)
    assert plain.schema.equals(features.arrow_schema)
    for n, array in arrays.items():
        assert plain[f"t{n}"].to_pylist() == array.tolist()


def test_resumed_sharded_and_shuffled(catalogue, images):
    stream = skyset.load(str(catalogue)).select_columns(["object_id"])
    whole = [row["object_id"] for row in stream]
    rows = iter(stream)
    first = [next(rows)["object_id"] for _ in range(11)]
    state = stream.state_dict()
    again = skyset.load(str(catalogue)).select_columns(["object_id"])
    again.load_state_dict(state)
    assert first + [row["object_id"] for row in again] == whole
    parts = [[row["object_id"] for row in split_dataset_by_node(stream, rank, 2)] for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(whole) and all(parts)
    shuffled = [row["object_id"] for row in stream.shuffle(seed=3)]
    assert sorted(shuffled) == sorted(whole) != shuffled != whole


def test_a_pushed_folder(decoded_rings, images, tmp_path):
    (source,) = [source for config, source in sources(str(decoded_rings)).items() if config == "default"]
    folder = tmp_path / "pushed"
    (folder / "data" / "train").mkdir(parents=True)
    rows = write_parquet(
        folder / "data" / "train" / "a.parquet", source.features.arrow_schema, source.batches(source.manifest.files)
    )
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train/*.parquet\n---\n"
    )
    record = {"format": "skyset-published/1", "survey": "gz_decals", "files": []}
    (folder / "manifest.json").write_text(json.dumps(record, indent=1))
    for load in (
        skyset.load(str(folder)),
        datasets.load_dataset(str(folder), split="train", streaming=True).with_format("numpy"),
    ):
        assert isinstance(load, SurveyStream)
        assert len(check(load, images)) == rows.rows == 40


def test_a_shuffled_catalogue_resumes_exactly(catalogue, images):
    stream = skyset.load(str(catalogue)).shuffle(seed=5)
    whole = [row["object_id"] for row in stream]
    assert sorted(whole) == sorted(images)
    for taken in (1, 17, 39):
        rows = iter(stream)
        first = [next(rows)["object_id"] for _ in range(taken)]
        again = skyset.load(str(catalogue)).shuffle(seed=5)
        again.load_state_dict(stream.state_dict())
        assert first + [row["object_id"] for row in again] == whole


def test_a_catalogue_behind_a_url(catalogue, images):
    with ArchiveServer(catalogue.parent) as server:
        for name in (catalogue.name, f"{catalogue.name}/gz_decals"):
            stream = skyset.load(f"{server.url}{name}")
            assert isinstance(stream, SurveyStream) and "Walmsley" in stream.info.citation
            assert sorted(check(stream.shuffle(seed=1), images)) == sorted(images)
        with pytest.raises(UserError, match="neither partitions nor a HATS catalogue"):
            skyset.load(f"{server.url}nowhere")


def test_a_catalogue_on_the_hub(catalogue, images, tmp_path, monkeypatch):
    with HubServer(tmp_path / "hub") as hub, talking_to(hub):
        hub.add_user("alice", TOKEN)
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.host)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        HfApi().create_repo("alice/rings", repo_type="dataset")
        HfApi().upload_folder(repo_id="alice/rings", folder_path=catalogue, repo_type="dataset", ignore_patterns="*.fits")
        stream = skyset.load("alice/rings", cache_dir=str(tmp_path / "cache"))  # with a margin beside it
        assert sorted(check(stream.shuffle(seed=1), images)) == sorted(images) and len(stream) == len(images)


def test_catalogues_that_are_none(catalogue, tmp_path):
    assert catalogue_in(tmp_path) is None
    (tmp_path / "collection.properties").write_text("hats_primary_table_url=../other\n")
    for url in ("../other", "gone", ""):
        (tmp_path / "collection.properties").write_text(f"#x\nhats_primary_table_url={url}\n")
        with pytest.raises(UserError, match="is not there"):
            skyset.load(str(tmp_path))
    (tmp_path / "gone" / "dataset").mkdir(parents=True)
    (tmp_path / "collection.properties").write_text("hats_primary_table_url=gone\n")
    with pytest.raises(UserError, match="has no files of rows"):
        skyset.load(str(tmp_path))


def test_properties(tmp_path):
    (tmp_path / "x").write_text("# a=b\n! c=d\nkey = value=with=more \n\nbroken\npath=a\\\\b\n")
    assert read_properties(tmp_path / "x") == {"key": "value=with=more", "path": "a\\b"}
    with pytest.raises(UserError, match="cannot be read"):
        read_properties(tmp_path / "y")
