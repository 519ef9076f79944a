"""Several datasets of the same cutouts: a sample is read once for all; each dataset stands alone and goes on by itself."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pyarrow as pa
import pytest

from skyset.building.built_rows import built_rows, read_rows
from skyset.building.cutouts.declaration import Config, Cutouts
from skyset.building.cutouts.options import add_archive_options, add_config_options, add_tap_options
from skyset.building.cutouts.plan import script
from skyset.errors import PartitionError, RecordError
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.survey import Column
from tests.building.test_cutouts import BROUGHT, COLUMNS, KEYS, SURVEY, Rows, Service, read, rejected, table
from tests.builds import leftovers

MEASURED = Column("brightest", "uint8", (), "count", "largest value of the image")
LARGE = dataclasses.replace(SURVEY.variant("Made up", (*COLUMNS, MEASURED)), shaped_by_build=(), train_folder=True)
SMALL = dataclasses.replace(
    LARGE,
    columns=tuple(dataclasses.replace(c, shape=(4, 4, 3)) if c.name == "image" else c for c in LARGE.columns),
)
TABLE = LARGE.variant("Made up", tuple(c for c in LARGE.columns if c.name != "image"))
SPLITS = {"101": "validation", "102": "test", "106": "test"}


def middle(values):
    return values | {"image": values["image"][2:6, 2:6]}


def splits(batches):
    """The galaxies with a colour of 0.1, 0.2 and 0.6; all rows have to be there."""
    table = pa.Table.from_batches(list(batches))
    assert table.schema == BROUGHT.schema
    sides = {0.1: "validation", 0.2: "test", 0.6: "test"}
    colours = [round(colour, 3) for colour in table["colour"].to_pylist()]
    return {str(key): sides.get(c, "train") for key, c in zip(table["id"].to_pylist(), colours, strict=True)}


@pytest.fixture
def reads(monkeypatch):
    """How many samples were read together at a time, each time."""
    noted = []
    monkeypatch.setattr(Measuring, "noted", noted)
    return noted


class Measuring:
    noted: ClassVar[list[int]] = []
    unfit: ClassVar[set[int]] = set()

    @classmethod
    def together(cls, objects):
        cls.noted.append(len(objects))
        for row, members in objects:
            if row["new_id"] in cls.unfit:
                yield RecordError("unfit")
            else:
                image = read(row, members)["image"]
                yield {"image": image, "brightest": image.max()}


def build(root, *arguments, service=None, **changes):
    def add_options(parser):
        add_tap_options(parser.add_argument)
        add_archive_options(parser.add_argument)
        add_config_options(parser.add_argument, ("large", "small", "table"))

    cutouts = Cutouts(
        LARGE,
        BROUGHT,
        "filtered.csv.gz",
        lambda *_: Rows(table()),
        lambda _: [],
        lambda _: service or Service(),
        lambda row: {"class": row["new_id"] % 2},
        read,
        described=("class", "fov"),
        splits=splits,
        configs={"large": Config(LARGE), "small": Config(SMALL, middle), "table": Config(TABLE)},
        read_together=Measuring.together,
        together=4,
        **changes,
    )
    return script("Build.", cutouts, add_options).main(["-o", str(root), "--num_processes", "1", *map(str, arguments)])


def built(root):
    """Rows by key, with the split that they lie in."""
    found = {}
    for path in sorted(Path(root).glob("*/healpix=*/*.hdf5")):
        with h5py.File(path) as file:
            for i, key in enumerate(file["object_id"][:].astype(str).tolist()):
                assert key not in found
                found[key] = {name: file[name][i] for name in file} | {"split": path.parents[1].name}
    return found


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[key][name], other[key][name]) for key in one for name in one[key]
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All three datasets. Do not change it."""
    root = tmp_path_factory.mktemp("configs") / "out"
    assert build(root) == 0
    return root


def test_three_datasets_of_one_list_in_folders_of_their_names_and_splits(whole):
    large, small, alone = (built(whole / name) for name in ("large", "small", "table"))
    assert sorted(large) == KEYS
    for key, row in large.items():
        assert row["split"] == SPLITS.get(key, "train") and row["brightest"] == row["image"].max()
        rest = {name: value for name, value in row.items() if name != "image"}
        assert np.array_equal(small[key].pop("image"), row["image"][2:6, 2:6])
        assert small[key] == rest == alone[key]
    for name, survey in (("large", LARGE), ("small", SMALL), ("table", TABLE)):
        manifest = Manifest.load(whole / name)
        assert manifest.config == name and manifest.splits.keys() == {"train", "validation", "test"}
        assert all(entry.path.startswith(f"{entry.split}/healpix=") for entry in manifest.files)
        assert manifest.sources == ["memory", "memory:"] and manifest.build["queries"] == ["all rows"]
        assert list(verify(whole / name, survey)) == []
    assert [name for name in leftovers(whole) if "/" not in name] == ["filtered.csv.gz"]
    assert not (whole / "manifest.json").exists()


def test_samples_are_read_once_and_some_at_a_time(tmp_path, reads):
    assert build(tmp_path) == 0
    assert sum(reads) == 10 and max(reads) == 4
    assert build(tmp_path) == 0
    assert sum(reads) == 10


@pytest.mark.parametrize("name", ["small", "table"])
def test_a_dataset_alone_is_the_same_without_the_larger_one(whole, tmp_path, name, reads):
    assert build(tmp_path, "--configs", name) == 0
    assert same(built(tmp_path / name), built(whole / name)) and sum(reads) == 10
    assert [path.name for path in sorted(tmp_path.iterdir()) if path.is_dir()] == ["Images", "catalog", name]
    assert build(tmp_path, "--from_tar", tmp_path / "Images", "-o", tmp_path / "again", "--configs", name) == 0
    assert same(built(tmp_path / "again" / name), built(whole / name))


def test_a_dataset_that_is_built_later_is_cut_from_what_is_there(whole, tmp_path, reads):
    assert build(tmp_path, "--configs", "small") == 0
    reads.clear()
    assert build(tmp_path, "--configs", "table") == 0
    assert reads == [] and same(built(tmp_path / "table"), built(whole / "table"))
    assert build(tmp_path, "--configs", "large") == 0
    assert sum(reads) == 10 and same(built(tmp_path / "large"), built(whole / "large"))


def test_rows_are_not_cut_from_those_made_in_another_way_or_written_to(whole, tmp_path, reads):
    assert build(tmp_path, "--configs", "large") == 0
    reads.clear()
    assert build(tmp_path / "other", "--from_tar", tmp_path / "Images", "--configs", "table") == 0
    assert sum(reads) == 10
    assert build(tmp_path, "--configs", "small", settings={"pad": 1}) == 0
    assert sum(reads) == 20
    train = next((tmp_path / "large" / "train").glob("healpix=*/*.hdf5"))
    train.write_bytes(train.read_bytes())
    assert build(tmp_path, "--configs", "table") == 0
    assert sum(reads) == 27 and same(built(tmp_path / "table"), built(whole / "table"))


def test_other_ways_of_making_rows_make_them_again_only_if_asked_for_and_in_every_dataset(tmp_path, reads, capsys):
    assert build(tmp_path, "--tiny", settings={"pad": 0}) == 0
    assert build(tmp_path, settings={"pad": 0}) == 0
    assert sum(reads) == 10
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments in ((), ("--configs", "table"), ("--tiny",)):
        capsys.readouterr()
        assert build(tmp_path, *arguments, settings={"pad": 1}) == 2
        assert f"{tmp_path / 'large'} was built with --pad 0, this is with --pad 1: use the same" in capsys.readouterr().err
    assert build(tmp_path, "--overwrite", "--configs", "small", settings={"pad": 1}) == 2
    assert "name large in --configs too" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before and sum(reads) == 10
    assert build(tmp_path, "--overwrite", settings={"pad": 1}) == 0
    assert sum(reads) == 20
    assert Manifest.load(tmp_path / "table").build["settings"] == {"pad": 1}
    assert build(tmp_path, "--overwrite", "--configs", "small", settings={"pad": 1}) == 0  # as the others are


def test_what_cannot_be_used_is_rejected_in_each(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(Measuring, "unfit", {103, 106})
    service = Service(faults={"104": "blank"})
    assert build(tmp_path, service=service) == 1
    for name in ("large", "small", "table"):
        assert rejected(tmp_path / name) == {"103": "unfit", "104": "no image: blank", "106": "unfit"}
        assert sorted(built(tmp_path / name)) == sorted({*KEYS} - {"103", "104", "106"})
        assert list(verify(tmp_path / name)) == []
    assert build(tmp_path / "strict", "--strict") == 2


def test_what_stopped_in_the_second_goes_on_there(whole, tmp_path, reads, monkeypatch):
    monkeypatch.setattr("tests.building.test_cutout_configs.middle", None)
    service = Service()
    with pytest.raises(TypeError):
        build(tmp_path, service=service)
    monkeypatch.undo()
    assert built(tmp_path / "small") == {}
    assert build(tmp_path, service=service) == 0
    assert service.asked == KEYS
    for name in ("large", "small", "table"):
        assert same(built(tmp_path / name), built(whole / name))


def test_a_larger_selection_makes_only_the_rest(whole, tmp_path, reads):
    assert build(tmp_path, "--tiny") == 0
    assert sum(reads) == 5
    assert build(tmp_path) == 0
    assert sum(reads) == 10
    for name in ("large", "small", "table"):
        assert same(built(tmp_path / name), built(whole / name))


def test_rows_are_read_in_runs_and_in_any_order(whole):
    manifest = Manifest.load(whole / "large")
    places = built_rows(whole / "large", manifest)
    columns = [LARGE.column("object_id"), LARGE.column("image")]
    wanted = [*KEYS, "103", "102", "108"]
    found = list(read_rows([(places[key].file, places[key].row) for key in wanted], columns))
    assert [row["object_id"].decode() for row in found] == wanted
    large = built(whole / "large")
    assert all(np.array_equal(row["image"], large[key]["image"]) for row, key in zip(found, wanted, strict=True))
    gone = whole / "large" / "none.hdf5"
    one, *two = read_rows([(places["100"].file, places["100"].row), (gone, 0), (gone, 1)], columns)
    assert one["object_id"] == b"100" and all(isinstance(each, PartitionError) for each in two) and len(two) == 2
