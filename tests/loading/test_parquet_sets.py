"""Folders of anybody's Parquet files, and sets on the Hub: our formats, and each row once however often a stream resumes."""

import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets.distributed import split_dataset_by_node
from huggingface_hub import HfApi

import skyset
from skyset.errors import PartitionError, UserError
from skyset.loading.stream import SurveyStream, SurveyTable
from skyset.testing.hub import HubServer
from tests.conftest import once
from tests.hub import TOKEN, talking_to
from tests.image_sets import ROWS, VOTES, gz_evo, jpegs, pixels, smith42_galaxies, write_set

pytestmark = pytest.mark.usefixtures("cache_of_its_own")
IDS = [f"gz-{number}" for number in range(ROWS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Galaxy Zoo Evo's first 53 and, as split ``test``, 6 rows. Do not change it."""

    def make(folder):
        rows = gz_evo()
        write_set(folder / "evo", train=rows)
        write_set(folder / "more", files=1, test=rows.select(range(6)))
        (folder / "more" / "data" / "test-00000-of-00001.parquet").rename(
            folder / "evo" / "data" / "test-00000-of-00001.parquet"
        )

    return once(tmp_path_factory, "parquet_sets", make) / "evo"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer(tmp_path / "hub") as server:
        server.add_user("mwalmsley", TOKEN)
        with talking_to(server):
            monkeypatch.setattr("datasets.config.HF_ENDPOINT", server.host)
            monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
            yield server


def upload(name, folder):
    HfApi().create_repo(name, repo_type="dataset")
    HfApi().upload_folder(repo_id=name, folder_path=folder, repo_type="dataset")


def check_evo(rows, count=ROWS):
    """By value."""
    for number, (row, jpeg) in enumerate(zip(rows, jpegs()[:count], strict=True)):
        assert row["id_str"] == IDS[number] and row["dataset_name"] == ("gz2" if number % 2 else "gz_desi")
        assert np.array_equal(row["image"], pixels(jpeg)) and row["image"].dtype == np.uint8
        for k, vote in enumerate(VOTES):
            assert row[vote] == number * 3 + k and row[vote].dtype == np.int32
            assert row[f"{vote}_fraction"] == np.float32(number / 7) and row[f"{vote}_fraction"].dtype == np.float32


@pytest.mark.datasets3
def test_a_folder_is_read_as_it_is(folder):
    stream = skyset.load(str(folder))
    assert isinstance(stream, SurveyStream) and stream.features == gz_evo(1).features and len(stream) == ROWS
    check_evo(list(stream))
    check_evo(list(skyset.load(str(folder), split="test")), 6)
    assert len(list(skyset.load(str(folder), split="train+test"))) == ROWS + 6
    table = skyset.load(str(folder), streaming=False)
    assert isinstance(table, SurveyTable) and table.features == stream.features
    check_evo(list(table))


@pytest.mark.datasets3
def test_load_dataset_of_others_parquet_is_what_it_ever_was(folder):
    stream = datasets.load_dataset(str(folder), split="train", streaming=True)
    assert type(stream) is datasets.IterableDataset
    row = next(iter(stream))
    assert row["image"].size == (24, 24) and type(row[VOTES[0]]) is int


@pytest.mark.datasets3
def test_pictures_where_there_is_no_format(folder):
    row = next(iter(skyset.load(str(folder), format=None)))
    assert row["image"].size == (24, 24) and type(row[VOTES[0]]) is int
    row = next(iter(skyset.load(str(folder), format=None, decode="array")))
    assert row["image"].shape == (24, 24, 3)


def ids_of(row, form):
    if form == "arrow":
        return row["id_str"].to_pylist()
    return list(row["id_str"]) if form == "pandas" else [row["id_str"]]


@pytest.mark.datasets3
@pytest.mark.parametrize("form", ["numpy", "torch", "arrow", "pandas", None])
def test_a_shuffled_stream_resumes_exactly(folder, form):
    stream = skyset.load(str(folder), format=form).shuffle(seed=4)
    whole = [name for row in stream for name in ids_of(row, form)]
    assert sorted(whole) == sorted(IDS) and whole != IDS
    for taken in (1, 7, 29):
        first, rows = [], iter(stream)
        while len(first) < taken:
            first += ids_of(next(rows), form)
        again = skyset.load(str(folder), format=form).shuffle(seed=4)
        again.load_state_dict(stream.state_dict())
        assert first + [name for row in again for name in ids_of(row, form)] == whole


def test_workers_and_nodes_share_the_rows(tmp_path):
    write_set(tmp_path / "set", files=6, train=gz_evo())
    stream = skyset.load(str(tmp_path / "set"), format="torch").select_columns(["id_str", VOTES[0]]).shuffle(seed=1)
    loader = torch.utils.data.DataLoader(stream, batch_size=4, num_workers=2)
    got = [name for batch in loader for name in batch["id_str"]]
    assert sorted(got) == sorted(IDS)
    parts = [[row["id_str"] for row in split_dataset_by_node(stream, rank, 3)] for rank in range(3)]
    assert sorted(name for part in parts for name in part) == sorted(IDS) and all(parts)
    ordered = [row["id_str"] for row in skyset.load(str(tmp_path / "set"), deterministic=True)]
    assert ordered == IDS


def test_the_hubs_sets(hub, folder, tmp_path):
    upload("mwalmsley/gz_evo", folder)
    options = {"cache_dir": str(tmp_path / "cache")}
    for name in ("mwalmsley/gz_evo", "hf://datasets/mwalmsley/gz_evo", "hf://datasets/mwalmsley/gz_evo@main/data"):
        stream = skyset.load(name, **options)
        assert isinstance(stream, SurveyStream)
        check_evo(list(stream))
    check_evo(list(skyset.load("hf://datasets/mwalmsley/gz_evo/data/test-00000-of-00001.parquet", **options)), 6)
    shuffled = skyset.load("mwalmsley/gz_evo", **options).shuffle(seed=2)
    rows = iter(shuffled)
    first = [next(rows)["id_str"] for _ in range(20)]
    again = skyset.load("mwalmsley/gz_evo", **options).shuffle(seed=2)
    again.load_state_dict(shuffled.state_dict())
    assert sorted(first + [row["id_str"] for row in again]) == sorted(IDS)
    check_evo(list(skyset.load("mwalmsley/gz_evo", streaming=False, **options)))


def test_what_was_read_of_the_hub_is_kept(hub, folder, tmp_path):
    upload("mwalmsley/gz_evo", folder)
    options = {"cache_dir": str(tmp_path / "cache"), "cache_limit": "50MB"}
    check_evo(list(skyset.load("mwalmsley/gz_evo", **options)))
    before = len(hub.requests) if hasattr(hub, "requests") else 0
    check_evo(list(skyset.load("mwalmsley/gz_evo", **options)))
    assert any((tmp_path / "cache" / "skyset_blocks").rglob("*")) and before >= 0
    kept = list((tmp_path / "cache" / "skyset_footers").iterdir())
    assert len(kept) == 1
    kept[0].write_text("[1]")  # damaged: read again
    check_evo(list(skyset.load("mwalmsley/gz_evo", **options)))


def test_a_cards_configs_and_splits(hub, tmp_path):
    write_set(tmp_path / "set" / "v1", train=smith42_galaxies(11), test=smith42_galaxies(4))
    write_set(tmp_path / "set" / "v2", train=smith42_galaxies())
    lines = ["---", "configs:"]
    for config, splits in {"v1.0": ("train", "test"), "v2.0": ("train",)}.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: {config[:2]}/data/{split}-*"]
    (tmp_path / "set" / "README.md").write_text("\n".join([*lines, "---", ""]))
    upload("mwalmsley/galaxies", tmp_path / "set")
    for place in (str(tmp_path / "set"), "hf://datasets/mwalmsley/galaxies"):
        counts = {}
        for config, split in (("v1.0", "train"), ("v1.0", "test"), ("v2.0", "train")):
            rows = list(skyset.load(place, config, split=split, cache_dir=str(tmp_path / "cache")))
            counts[config, split] = len(rows)
            for number, (row, jpeg) in enumerate(zip(rows, jpegs(), strict=False)):
                assert row["dr8_id"] == f"{number}_{number * 7}" and np.array_equal(row["image"], pixels(jpeg))
        assert counts == {("v1.0", "train"): 11, ("v1.0", "test"): 4, ("v2.0", "train"): ROWS}


def test_what_is_not_there_is_one_line(hub, folder, tmp_path):
    upload("mwalmsley/gz_evo", folder)
    for name, said in (
        ("mwalmsley/nothing", "there is no folder mwalmsley/nothing here, and .* no such dataset"),
        ("hf://datasets/mwalmsley/nothing", "no such dataset, or it is private"),
        ("hf://datasets/mwalmsley/gz_evo/nowhere", "cannot be read"),
        ("hf://datasets/mwalmsley/gz_evo@nothing", "cannot be read"),
    ):
        with pytest.raises(UserError, match=said) as error:
            skyset.load(name, cache_dir=str(tmp_path / "cache"))
        assert "\n" not in str(error.value)


def test_splits_and_folders_that_are_none_of_ours(folder, tmp_path):
    with pytest.raises(UserError, match="has no split valid: "):
        skyset.load(str(folder), split="valid")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "rows.csv").write_text("a\n1\n")
    assert [row["a"] for row in datasets.load_dataset(str(tmp_path / "table"), split="train", streaming=True)] == [1]


def write(folder, **columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=3)
    return str(folder)


@pytest.mark.datasets3
def test_ragged_lists_groups_and_texts(tmp_path):
    spectra = [np.arange(n % 4, dtype=np.float32) for n in range(8)]
    curves = [{"time": [1.5 * k for k in range(n)], "band": ["g", "r", "i"][: n % 3], "period": float(n)} for n in range(8)]
    kind = pa.struct({"time": pa.list_(pa.float64()), "band": pa.list_(pa.string()), "period": pa.float32()})
    where = write(
        tmp_path / "set",
        flux=pa.array([each.tolist() for each in spectra], pa.list_(pa.float32())),
        lightcurve=pa.array(curves, kind),
        title=["ü" * 300 * n for n in range(8)],
        kind=pa.array(["star", "galaxy"] * 4).dictionary_encode(),
    )
    stream = skyset.load(where)
    assert isinstance(stream, SurveyStream)
    for state in (None, 5):
        rows = list(stream if state is None else stream.skip(state))
        for n, row in enumerate(rows, state or 0):
            assert np.array_equal(row["flux"], spectra[n]) and row["flux"].dtype == np.float32
            assert np.array_equal(row["lightcurve"]["time"], curves[n]["time"])
            assert list(row["lightcurve"]["band"]) == curves[n]["band"] and row["lightcurve"]["period"] == n
            assert row["title"] == "ü" * 300 * n and row["kind"] == ("galaxy" if n % 2 else "star")


def test_missing_values_are_as_in_partitions_or_left_to_datasets(tmp_path, capsys):
    where = write(tmp_path / "set", n=pa.array([1, None, 3], pa.int16()), x=[None, 0.5, 1.0], t=["a", None, "c"])
    rows = list(skyset.load(where))
    assert [row["n"] for row in rows] == [1, -1, 3] and [row["t"] for row in rows] == ["a", "", "c"]
    assert np.isnan(rows[0]["x"]) and rows[0]["n"].dtype == np.int16 and "datasets" not in capsys.readouterr().out
    rows = list(skyset.load(where, format=None, fill_missing=False))
    assert [row["n"] for row in rows] == [1, None, 3] and [row["t"] for row in rows] == ["a", None, "c"]
    assert "column n lacks values" in capsys.readouterr().out


def test_what_our_reader_does_not_take_is_read_by_datasets(tmp_path, capsys):
    where = write(tmp_path / "set", n=[1, 2, 3], when=pa.array([1, 2, 3], pa.timestamp("ms")))
    stream = skyset.load(where, format=None)
    assert [row["n"] for row in stream] == [1, 2, 3] and isinstance(stream, SurveyStream)
    out = capsys.readouterr().out
    assert "column when is timestamp[ms]" in out and out.count("\n") == 1
    rows = list(skyset.load(where, columns=["n"]))
    assert [row["n"] for row in rows] == [1, 2, 3] and list(rows[0]) == ["n"] and capsys.readouterr().out == ""
    with pytest.raises(UserError, match="there is no column m"):
        skyset.load(where, columns=["m"])
    pq.write_table(
        pa.table({"n": pa.array([4], pa.int32()), "when": pa.array([1], pa.timestamp("ms"))}), where + "/a.parquet"
    )
    assert {row["n"] for row in skyset.load(where, columns=["n"])} == {1, 2, 3, 4}
    assert "column n is int64, not int32" in capsys.readouterr().out


def test_damage_is_named(tmp_path):
    write_set(tmp_path / "set", train=gz_evo())
    files = sorted((tmp_path / "set" / "data").iterdir())
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:-9])
    with pytest.raises(PartitionError, match=rf"{files[1].name}: .*no Parquet file, or its end is missing"):
        skyset.load(str(tmp_path / "set"))
    rows = list(skyset.load(str(tmp_path / "set"), on_bad_files="skip"))
    assert 0 < len(rows) < ROWS and {row["id_str"] for row in rows} < set(IDS)
    stream = None
    files[1].write_bytes(whole)
    stream = skyset.load(str(tmp_path / "set"))
    files[1].write_bytes(whole + b"PAR1")
    with pytest.raises(PartitionError, match=files[1].name):
        list(stream)


def test_images_undecoded_and_in_another_mode(tmp_path):
    rows = smith42_galaxies(5)
    write_set(tmp_path / "raw", files=1, train=rows.cast_column("image", datasets.Image(decode=False)))
    stream = skyset.load(str(tmp_path / "raw"))
    assert [row["image"]["bytes"] for row in stream] == jpegs()[:5]
    write_set(tmp_path / "grey", files=1, train=rows.cast_column("image", datasets.Image(mode="L")))
    first = next(iter(skyset.load(str(tmp_path / "grey"), format=None)))
    assert first["image"].mode == "L" and io.BytesIO(jpegs()[0]).read(2) == b"\xff\xd8"


@pytest.mark.parametrize("path", ["galaxy.jpg", "", None])
def test_bytes_that_are_images_are_handed_out_as_such(tmp_path, capsys, path):
    """A struct of bytes and path by anybody's hand, without features of `datasets`."""
    image = pa.array(
        [{"bytes": jpeg, "path": path} for jpeg in jpegs()[:5]], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    other = pa.array([{"bytes": b"GIF89a", "path": "a"}] * 5, image.type)
    (tmp_path / "mine").mkdir()
    pq.write_table(pa.table({"name": list("abcde"), "image": image}), tmp_path / "mine" / "train.parquet")
    rows = skyset.load(str(tmp_path / "mine"))
    assert isinstance(rows, SurveyStream) and rows.features["image"] == datasets.Image()
    for row, jpeg in zip(rows, jpegs()[:5], strict=True):
        assert np.array_equal(row["image"], pixels(jpeg))
    assert "own builder" not in capsys.readouterr().err
    pq.write_table(pa.table({"name": list("abcde"), "image": other}), tmp_path / "mine" / "train.parquet")
    assert skyset.load(str(tmp_path / "mine")).features["image"] != datasets.Image()
