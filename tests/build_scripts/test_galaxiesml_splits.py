"""GalaxiesML's splits: shares, duplicates on one side, published ids as published."""

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.build_scripts.galaxiesml.splits import SHARES, read_splits, split_of
from skyset.errors import UserError
from skyset.tables.delimited_writer import write_csv
from skyset.tables.match import separation_arcsec
from skyset.tables.open import open_catalog
from skyset.tables.parquet import write_parquet

ID = 36407053045309821
SCHEMA = pa.schema([("object_id", pa.int64()), ("specz_name", pa.string()), ("ra", pa.float64()), ("dec", pa.float64())])


def written(folder, ids, names=None, ra=None, dec=None):
    count = len(ids)
    names = [f"s{n}" for n in range(count)] if names is None else names
    ra = np.arange(count) / 100 if ra is None else ra
    table = pa.table(
        [pa.array(ids), pa.array(names), pa.array(ra), pa.array(np.zeros(count) if dec is None else dec)], SCHEMA
    )
    folder.mkdir(exist_ok=True, parents=True)
    write_csv(folder / "list.csv.gz", table.to_batches(), SCHEMA)
    return folder / "list.csv.gz"


def test_five_sevenths_are_for_training_and_nothing_else_counts(tmp_path):
    ids = (ID + np.arange(20000)).tolist()
    found = split_of(written(tmp_path, ids))
    assert list(found) == [str(number) for number in ids]
    sides = list(found.values())
    assert [sides.count(name) / 20000 for name in ("train", "validation", "test")] == pytest.approx(SHARES, abs=0.01)
    some = ids[::37]
    assert split_of(written(tmp_path, some[::-1])) == {str(number): found[str(number)] for number in some}
    assert " ".join(found[str(ID + n)] for n in range(8)) == "validation train train train train train test train"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_duplicates_are_on_one_side(tmp_path_factory, seed):
    """Against all pairs: same name, or nearer than half an arcsec, over the pole and across 0 h too."""
    dice = np.random.default_rng(seed)
    count = 40
    names = [f"s{n}" if n < 8 else None for n in dice.integers(0, 12, count)]
    ra, dec = (
        (dice.normal(0, 1.2 / 3600, count)) % 360,
        dice.choice([0.0, 89.9999, -45.0], count) + dice.normal(0, 1 / 9e4, count),
    )
    ids = (ID + dice.permutation(count)).tolist()
    found = list(split_of(written(tmp_path_factory.mktemp("pairs"), ids, names, ra, dec)).values())
    for one in range(count):
        for other in range(one):
            near = separation_arcsec(ra[one], dec[one], ra[other], dec[other]) < 0.4999
            if near or (names[one] is not None and names[one] == names[other]):
                assert found[one] == found[other], (one, other)


def test_a_chain_of_neighbours_goes_with_its_smallest_id(tmp_path):
    count = 60
    ids = [ID + 7 * n for n in range(count)]
    alone = split_of(written(tmp_path / "alone", ids))
    chain = split_of(written(tmp_path / "chain", ids[::-1], ra=np.arange(count) * 0.4 / 3600))
    assert set(chain.values()) == {alone[str(ids[0])]}


PUBLISHED = {ID: "training", ID + 1: "validation", ID + 2: "testing", ID + 3: "training"}
SIDES = {ID: "train", ID + 1: "validation", ID + 2: "test", ID + 3: "train"}


def as_file(path):
    ids, names = pa.array(list(PUBLISHED)), pa.array(list(PUBLISHED.values()))
    table = pa.table({"object_id": ids, "split": names, "more": pa.array([1.5] * 4)})
    if path.suffix == ".hdf5":
        with h5py.File(path, "w") as file:
            file["object_id"] = ids.to_numpy()[:, None]
            file["split"] = np.array(names.to_pylist(), "S10")
    elif path.suffix == ".parquet":
        write_parquet(path, table.to_batches(), table.schema)
    else:
        write_csv(path, table.to_batches(), table.schema)
    return path


def as_folder(folder, kind):
    folder.mkdir()
    for size in (64, 127):
        for name in ("training", "validation", "testing"):
            ids = np.array([number for number, split in PUBLISHED.items() if split == name])
            path = folder / f"5x{size}x{size}_{name}_with_morphology.{kind}"
            if kind == "hdf5":
                with h5py.File(path, "w") as file:
                    file["object_id"], file["image"] = ids, np.zeros((len(ids), 5, 4, 4), "f4")
            else:
                write_csv(
                    path, pa.table({"object_id": ids, "ra": ids * 0.0}).to_batches(), pa.schema([("object_id", pa.int64())])
                )
    (folder / "README.md").write_text("more")
    return folder


@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz", "s.parquet", "s.hdf5", "csv", "hdf5"])
def test_published_splits_are_repeated(tmp_path, name):
    path = as_file(tmp_path / name) if "." in name else as_folder(tmp_path / name, name)
    assert read_splits(path) == SIDES


def test_published_sides_come_first_and_draw_their_duplicates(tmp_path, capsys):
    ids = [*PUBLISHED, *(ID + 100 + n for n in range(300))]
    ra = np.arange(len(ids)) / 100
    ra[[4, 5]] = ra[2] + 0.2 / 3600, ra[1]  # beside one of test, and one of validation
    ra[3] = ra[2]  # published on two sides, which is repeated
    found = split_of(written(tmp_path, ids, ra=ra), as_file(tmp_path / "s.csv"))
    assert [found[str(number)] for number in ids[:6]] == ["train", "validation", "test", "train", "test", "validation"]
    rest = split_of(written(tmp_path / "rest", ids[6:]))
    assert {number: found[number] for number in rest} == rest
    assert capsys.readouterr().out == f"4 of 4 objects of {tmp_path / 's.csv'} are here; 300 others go by the rule\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("object_id,split\n1,training\n2,holdout\n", "the split of 2 is 'holdout', not one of train"),
        ("object_id,split\n1,training\n1,test\n", "1 is in test, and elsewhere in train"),
        ("object_id,side\n1,training\n", "has no column split"),
        ("object_id,split\n3.6e16,train\n3.7e16,test\n", "column object_id is double.*cannot be repaired"),
        ("object_id,split\nabc,train\n", "column object_id is not of integers"),
        ("object_id,split\n", "not of integers|no published splits"),
        ("object_id,split\n1,\n", "the split of 1 is None"),
    ],
)
def test_what_is_no_list_of_splits_is_one_line(tmp_path, content, words):
    (tmp_path / "s.csv").write_text(content)
    with pytest.raises(UserError, match=words):
        read_splits(tmp_path / "s.csv")


def test_a_folder_without_published_files(tmp_path):
    (tmp_path / "train.csv").write_text("object_id\n1\n")
    with pytest.raises(UserError, match=r"no published splits: neither object_id and split, nor files \*_training_"):
        read_splits(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read_splits(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("how", ["floats", "soft link", "external link", "external data", "group", "cut", "shape"])
def test_hdf5_that_is_not_what_it_should_be(tmp_path, how):
    path = as_file(tmp_path / "s.hdf5")
    with h5py.File(path, "r+") as file:
        ids = file["object_id"][()]
        file["elsewhere"] = ids
        del file["object_id"]
        if how == "floats":
            file["object_id"] = ids.astype(float)
        elif how == "soft link":
            file["object_id"] = h5py.SoftLink("/elsewhere")
        elif how == "external link":
            file["object_id"] = h5py.ExternalLink("other.hdf5", "/object_id")
        elif how == "external data":
            file.create_dataset("object_id", (4,), "i8", external=[(str(tmp_path / "raw"), 0, 32)])
        elif how == "group":
            file.create_group("object_id")
        elif how == "shape":
            file["object_id"] = ids.reshape(2, 2)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(
        UserError, match=r"s\.hdf5: (object_id is float64|has no column object_id of its own|cannot be read as HDF5)"
    ):
        read_splits(path)


def test_the_list_is_read_as_builds_write_it(tmp_path):
    path = written(tmp_path, [ID, ID + 1], ["a, b", None])
    assert open_catalog(path).schema.field("object_id").type == pa.int64()
    assert set(split_of(path)) == {str(ID), str(ID + 1)}


def test_splits_of_other_galaxies_are_refused(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_text("object_id,split\n1,train\n2,test\n")
    with pytest.raises(UserError, match="none of its 2 objects is among the 3 that are built"):
        split_of(written(tmp_path, [11, 12, 13]), table)
