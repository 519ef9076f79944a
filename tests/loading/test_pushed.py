"""Parquet that ``skyset push`` made, read by our loaders: from the Hub, and from a folder with the repository's files."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfFileSystem

import skyset
from skyset.errors import PartitionError, UserError
from skyset.publishing import plan, push
from skyset.publishing.contents import Form
from skyset.publishing.request import Request
from skyset.testing.hub import HubServer
from tests.conftest import once
from tests.hub import TOKEN, talking_to

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


def push_all(folder: Path, surveys: dict[str, Path], form: Form) -> None:
    """Each survey as the files of a repository, in a folder of its name."""
    with HubServer(folder / "hub") as hub, talking_to(hub):
        hub.add_user("sky", TOKEN)
        for survey, source in surveys.items():
            push.push(plan.planned(Request(survey, source, f"sky/{survey}", work_dir=folder / "work", form=form)))
            for path, content in hub.files(f"sky/{survey}").items():
                (folder / survey / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / survey / path).write_bytes(content)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory, built, rings) -> Path:
    """Two surveys as they were pushed. Do not change them."""
    surveys, form = {"gz3d": built, "gz_decals": rings}, Form(shard_bytes=12 << 20, preview=False)
    return once(tmp_path_factory, "pushed_surveys", lambda folder: push_all(folder, surveys, form))


def same(one, other) -> bool:
    """Whether two values are equal, dtypes and shapes too."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and one == other


def check_same(rows, expected, key: str = "object_id") -> None:
    by_key = {row[key]: row for row in expected}
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        assert same(row, by_key[row[key]])
    assert count == len(by_key)


def test_rows_come_as_from_partitions(pushed, built):
    """gz3d has layers, text and pixels."""
    ours, expected = skyset.load("gz3d", data_dir=str(pushed / "gz3d")), skyset.load("gz3d", str(built))
    assert ours.features == expected.features
    columns = ["object_id", "image", "segmentation", "ra", "total_classifications"]
    key = "ra"  # a galaxy may be there twice
    check_same(ours.select_columns(columns), expected.select_columns(columns), key)


@pytest.mark.parametrize("config", ["default", "rings_basic"])
def test_encoded_images_and_labels(pushed, rings, config):
    folder = str(pushed / "gz_decals")
    ours, expected = skyset.load("gz_decals", config, data_dir=folder), skyset.load("gz_decals", config, data_dir=str(rings))
    assert ours.features == expected.features
    check_same(ours, expected)
    ids = [row["object_id"] for row in expected]
    shuffled = [row["object_id"] for row in ours.shuffle(seed=3, buffer_size=20)]
    assert sorted(shuffled) == sorted(ids) and shuffled != ids
    rows = iter(ours)
    for _ in range(5):
        next(rows)
    again = skyset.load("gz_decals", config, data_dir=folder)
    again.load_state_dict(ours.state_dict())
    assert len(list(again)) == len(ids) - 5


def test_as_a_side_of_a_match(pushed, rings, built):
    expected = {row["object_id"]: row for row in skyset.load(str(rings))}
    matched = skyset.crossmatch(pushed / "gz_decals", rings, names=("a", "b"), radius=0.1, split="train")
    for stream in (matched, matched.shuffle(seed=1)):
        rows = list(stream)
        assert {row["a.object_id"] for row in rows} == expected.keys()
        assert all(np.array_equal(row["a.image"], expected[row["a.object_id"]]["image"]) for row in rows)
    layers = skyset.crossmatch(pushed / "gz3d", built, names=("a", "b"), radius=0.1, how="nearest")
    row = next(iter(layers.select_columns(["a.segmentation", "b.segmentation"])))
    assert same(row["a.segmentation"], row["b.segmentation"])


def test_a_table_of_them(pushed, rings):
    table = skyset.load("gz_decals", "rings_basic", data_dir=str(pushed / "gz_decals"), streaming=False, verify=True)
    check_same(table, skyset.load("gz_decals", "rings_basic", data_dir=str(rings)))


def test_from_the_hub(rings, tmp_path):
    HfFileSystem.clear_instance_cache()
    with HubServer(tmp_path / "hub") as hub, talking_to(hub):
        hub.add_user("sky", TOKEN)
        push.push(plan.planned(Request("gz_decals", rings, "sky/rings", work_dir=tmp_path / "work")))
        ours = skyset.load("gz_decals", "rings_basic", data_dir="hf://datasets/sky/rings")
        check_same(ours, skyset.load("gz_decals", "rings_basic", data_dir=str(rings)))
        options = {"cache_dir": str(tmp_path / "cache"), "cache_limit": "50MB"}
        for epoch in range(2):
            before = len(hub.requests)
            kept = skyset.load("gz_decals", "rings_basic", data_dir="hf://datasets/sky/rings", **options)
            check_same(kept, skyset.load("gz_decals", "rings_basic", data_dir=str(rings)))
            assert any("/data/" in each.path for each in hub.requests[before:]) == (epoch == 0), "then from the disk"
        with pytest.raises(UserError, match="cache_limit must be"):
            skyset.load("gz_decals", "rings_basic", data_dir="hf://datasets/sky/rings", cache_limit="x")
        images = {row["object_id"]: row["image"] for row in skyset.load(str(rings))}
        options |= {"names": ("a", "b"), "radius": 0.1, "split": "train"}
        both = skyset.crossmatch(rings, "hf://datasets/sky/rings", **options)
        for stream in (both, both.shuffle(seed=1)):
            before = len(hub.requests)
            assert all(np.array_equal(row["b.image"], images[row["a.object_id"]]) for row in stream)
        assert not any("/data/" in each.path for each in hub.requests[before:]), "from the disk"
        assert len(both) == len(images)
    HfFileSystem.clear_instance_cache()


@pytest.fixture
def changed(pushed, tmp_path):
    """A copy whose list of files is changed by a function; its path."""
    import shutil

    def change(how=lambda values: None) -> Path:
        copy = Path(shutil.copytree(pushed / "gz_decals", tmp_path / "copy"))
        values = json.loads((copy / "manifest.json").read_text())
        how(values)
        (copy / "manifest.json").write_text(json.dumps(values))
        return copy

    return change


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", "../../etc/passwd"),
        ("path", "data/default/train/../x.parquet"),
        ("rows", 0),
        ("rows", "many"),
        ("bytes", -1),
        ("split", "a b"),
        ("sha256", None),
    ],
)
def test_a_list_that_cannot_be_true_is_refused(changed, name, value):
    folder = changed(lambda values: [each.update({name: value}) for each in values["files"]])
    with pytest.raises(UserError, match="is damaged"):
        skyset.load("gz_decals", "rings_basic", data_dir=str(folder))


@pytest.mark.parametrize(("name", "why"), [("rows", "rows, the manifest says"), ("bytes", "bytes, the manifest says")])
def test_another_file_than_the_list_says(changed, name, why):
    folder = changed(lambda values: [each.update({name: each[name] + 1}) for each in values["files"]])
    with pytest.raises(PartitionError, match=why):
        list(skyset.load("gz_decals", "rings_basic", data_dir=str(folder)))


def test_damaged_files_are_named(changed):
    folder = changed()
    (path, *_) = sorted(folder.glob("data/rings_basic/train/*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(content)
    with pytest.raises(PartitionError, match=path.name):
        list(skyset.load("gz_decals", "rings_basic", data_dir=str(folder), verify=True))
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(PartitionError, match=path.name):
        list(skyset.load("gz_decals", "rings_basic", data_dir=str(folder)))
    path.unlink()
    with pytest.raises(PartitionError, match="no such file"):
        list(skyset.load("gz_decals", "rings_basic", data_dir=str(folder)))
