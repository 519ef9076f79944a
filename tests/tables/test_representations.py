"""Representations: which columns hold the vectors, which one names the objects, and the values that come of them."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from pyarrow import parquet

from skyset.errors import UserError
from skyset.explore.similar import load_representations
from skyset.tables.representations import features_in, iter_vectors, key_in, read_vectors, vector_columns

NAMES = [f"J{number:02d}" for number in range(30)]
VECTORS = np.random.default_rng(0).normal(size=(30, 9)).astype(np.float32)
NUMBERED = {f"feat_{k}_pred": VECTORS[:, k] for k in reversed(range(9))}
OTHER = {"spectrum": pa.array([[1.0, 2.0]] * 30), "mag_1": VECTORS[:, 0], "mag_2": VECTORS[:, 0], "redshift": VECTORS[:, 0]}
FIXED = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), 9)
FORMS = {
    "lists": {"representation": pa.array(list(VECTORS))},
    "lists of a fixed length": {"embedding": FIXED},
    "large lists of doubles": {"cnn_features": pa.array(list(VECTORS.astype(float)), pa.large_list(pa.float64()))},
    "numbered columns": NUMBERED,
    "numbered columns without an underscore": {f"pc{k}": VECTORS[:, k] for k in range(9)},
    "lists of any name": {"v": FIXED},
    "numbered columns of any name": {f"z{k}": VECTORS[:, k] for k in reversed(range(9))},
}


def written(path, columns: dict, names=NAMES, key: str = "iauname"):
    parquet.write_table(pa.table({key: names, **columns}), path, row_group_size=7)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_reader_takes_the_same_vectors(tmp_path, form):
    others = OTHER if form in list(FORMS)[:5] else {}  # names that say so come before any other list or number
    path = written(tmp_path / "x.parquet", {**others, **FORMS[form]})
    names, vectors, rejected = read_vectors(path, "iauname")
    assert names == NAMES and rejected == []
    loaded = load_representations(path)
    assert loaded.keys.tolist() == NAMES
    pieces = list(iter_vectors(path, rows=4))
    assert max(len(some) for some, _ in pieces) == 4
    for found in (vectors, loaded.vectors, np.concatenate([piece for _, piece in pieces])):
        assert found.dtype == np.float32
        assert_array_equal(found, VECTORS)


def test_what_a_table_is_follows_from_the_names_alone(tmp_path):
    def schema(**columns):
        return pa.table({"iauname": NAMES, **columns}).schema

    assert features_in(schema(**OTHER, v=FIXED)) == [] and vector_columns(schema(**OTHER, v=FIXED)) == ["spectrum"]
    assert features_in(schema(**OTHER, representation=FIXED)) == ["representation"]
    few = {f"feat_{k}": VECTORS[:, k] for k in range(7)}
    assert features_in(schema(**few)) == [] and vector_columns(schema(**few)) == list(few)
    assert features_in(schema(**NUMBERED)) == [f"feat_{k}_pred" for k in range(9)]
    assert vector_columns(schema()) == []


def test_the_usual_names_of_objects_in_their_order():
    schema = pa.table({"dr7objid": [1], "id_str": [2], "iauname": ["J"], "name": ["x"]}).schema
    assert key_in(schema, "x.parquet") == "iauname"
    with pytest.raises(UserError, match=r"x\.parquet has none of the key columns object_id, iauname"):
        key_in(pa.table({"name": ["x"]}).schema, "x.parquet")


def test_ids_are_names_by_their_digits(tmp_path):
    ids = [588018090547020096 + k for k in range(30)]
    path = written(tmp_path / "x.parquet", NUMBERED, ids, "objid")
    assert read_vectors(path, "objid")[0] == [str(each) for each in ids] == load_representations(path).keys.tolist()
    path = written(tmp_path / "bytes.parquet", NUMBERED, [name.encode() for name in NAMES], "object_id")
    assert read_vectors(path, "object_id")[0] == NAMES


def test_second_rows_of_an_object_are_named(tmp_path):
    path = written(tmp_path / "x.parquet", NUMBERED, [*NAMES[:-2], "J00", "J03"])
    names, vectors, rejected = read_vectors(path, "iauname")
    assert names == NAMES[:-2]
    assert_array_equal(vectors, VECTORS[:-2])
    assert rejected == [(name, str(path), f"a second row of {name} in x.parquet") for name in ("J00", "J03")]


def test_catalogues_of_every_kind_are_read(tmp_path):
    lines = [",".join(["iauname", *(f"feat_{k}" for k in range(9))])]
    lines += [",".join([name, *map(str, row)]) for name, row in zip(NAMES, VECTORS.tolist(), strict=True)]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    names, vectors, _ = read_vectors(tmp_path / "x.csv", "iauname")
    assert names == NAMES
    assert_array_equal(vectors, VECTORS)


REFUSED = {
    "lists of different lengths": ({"v": [[1.0], [1.0, 2.0]]}, "the lists in v differ in length"),
    "a missing list": ({"v": [[1.0], None]}, "the lists in v differ in length"),
    "missing values in lists": ({"v": [[1.0, 2.0], [None, 2.0]]}, "a representation has missing values"),
    "missing values": ({f"feat_{k}": [1.0, None] for k in range(9)}, "a representation has missing values"),
    "too large for float32": ({"v": [[1.0, 2.0], [1e300, 2.0]]}, r"v holds 1e\+300, which float32 cannot hold"),
    "no vectors": ({"redshift": [1.0, 2.0]}, "has no vectors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_representation(tmp_path, case):
    columns, words = REFUSED[case]
    path = written(tmp_path / "x.parquet", columns, ["J1", "J2"])
    with pytest.raises(UserError, match=rf"x\.parquet.*{words}"):
        read_vectors(path, "iauname")


def test_lists_that_change_their_length_later_on(tmp_path):
    path = written(tmp_path / "x.parquet", {"v": [[1.0]] * 4 + [[1.0, 2.0]] * 4}, NAMES[:8])
    with pytest.raises(UserError, match="the lists in v differ in length"):
        list(iter_vectors(path, rows=4))


def test_names_that_went_through_floating_point(tmp_path):
    path = written(tmp_path / "x.parquet", NUMBERED, np.arange(30.0), "id_str")
    with pytest.raises(UserError, match="the key column id_str holds floating-point numbers: digits of the ids are lost"):
        read_vectors(path, "id_str")


def test_an_empty_file(tmp_path):
    path = written(tmp_path / "x.parquet", {"v": pa.array([], pa.list_(pa.float32()))}, pa.array([], pa.string()))
    with pytest.raises(UserError, match=r"x\.parquet: no row"):
        read_vectors(path, "iauname")
