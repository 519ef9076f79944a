"""What a file's datasets are: kinds, ids and positions by their names, members, text of any length."""

import h5py
import numpy as np
import pytest

from skyset.adopting.fields import Field, Names, kind_of, names_of, of_rows
from skyset.adopting.reading import TreeHDF5
from skyset.errors import PartitionError


def fields(*names, dims=(5,), dtype="float64"):
    return {name: Field(name, dtype, dims) for name in names}


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (fields("ra", "dec", "RA", "DEC"), ("", "ra", "dec")),
        (fields("RA", "Dec"), ("", "RA", "Dec")),
        (fields("RAJ2000", "DEJ2000"), ("", "RAJ2000", "DEJ2000")),
        (fields("ra", "dec") | fields("source_id", "id", dtype="int64"), ("source_id", "ra", "dec")),
        (fields("ra", "dec") | fields("ID", dtype="S8"), ("ID", "ra", "dec")),
        (fields("ra", "dec", "object_id"), ("", "ra", "dec")),  # ids that are floats are none
        (fields("ra", "dec") | fields("object_id", dims=(5, 2), dtype="int64"), ("", "ra", "dec")),
        (fields("cat/ra", "cat/dec", "ra") | fields("cat/id", dtype="int32"), ("cat/id", "cat/ra", "cat/dec")),
        (fields("ra") | fields("dec", dims=(4,)), None),
        (fields("ra", "dec", dtype="S10"), None),
        (fields("flux"), None),
    ],
)
def test_names(found, names):
    assert names_of(found) == (names and Names(*names))


def test_kinds():
    assert kind_of(fields("ra", "dec")) == "columns"
    assert kind_of(fields("ra", "dec", dims=())) == "objects"
    assert kind_of(fields("a/ra", "a/dec", "b/ra", "b/dec", dims=())) == "groups"
    assert kind_of(fields("a/ra", "a/dec")) == "columns"
    assert kind_of(fields("flux", dims=())) == ""


def test_rows_and_what_has_others():
    columns, others = of_rows([Field("a", "int8", (5, 2)), Field("b", "int8", (4,)), Field("c", "int8")], 5)
    assert columns == [Field("a", "int8", (2,))]
    assert [each.name for each in others] == ["b", "c"]


def test_json_both_ways():
    field = Field("a/b", "S12", (3, 4), True, False, True, "deg", "text")
    assert Field.from_json(field.to_json()) == field


@pytest.fixture
def file(tmp_path):
    dice = np.random.default_rng(1)
    with h5py.File(tmp_path / "x.hdf5", "w") as hdf5:
        hdf5["flat"] = np.arange(12, dtype=">f4").reshape(4, 3)
        hdf5["flat"].attrs["units"] = "nmgy"
        hdf5.create_dataset("packed", data=dice.normal(size=(40, 6)), chunks=(7, 4), compression="gzip", shuffle=True)
        hdf5.create_dataset("lzf", data=np.arange(40, dtype="i2"), chunks=(16,), compression="lzf")
        hdf5["text"] = np.array(["a", "longer"], h5py.string_dtype())
        hdf5["good"] = np.array([True, False])
        hdf5["fixed"] = np.array([b"ab", b"c"])
        hdf5["one"] = np.float32(2.5)
        hdf5["void"] = h5py.Empty("f4")
        hdf5["complex"] = np.zeros(2, complex)
        ragged = hdf5.create_dataset("ragged", (2,), h5py.vlen_dtype(np.float64))
        ragged[0], ragged[1] = [1.0], [1.0, 2.0]
        table = np.zeros(3, [("flux", "<f4", (2,)), ("name", "S3"), ("inner", [("x", "i1")])])
        table["flux"] = [[1, 2], [3, 4], [5, 6]]
        hdf5["group/table"] = table
    return tmp_path / "x.hdf5"


def test_fields_of_a_file(file):
    with TreeHDF5(str(file)) as opened:
        found = opened.fields()
        assert found == {
            "flat": Field("flat", "float32", (4, 3)),
            "packed": Field("packed", "float64", (40, 6), packed=True),
            "lzf": Field("lzf", "int16", (40,), packed=True),
            "text": Field("text", "S1", (2,), any_length=True, packed=True),
            "good": Field("good", "bool", (2,)),
            "fixed": Field("fixed", "S2", (2,)),
            "one": Field("one", "float32", ()),
            "ragged": Field("ragged", "float64", (2,), any_length=True, packed=True),
            "group/table/flux": Field("group/table/flux", "float32", (3, 2), member=True),
            "group/table/name": Field("group/table/name", "S3", (3,), member=True),
        }
        assert opened.longest(found["text"]) == 6
        assert opened.told("flat") == ("nmgy", "") and opened.told("group/table/flux") == ("", "")


def test_values_as_h5py_reads_them(file):
    with h5py.File(file) as hdf5, TreeHDF5(str(file)) as opened:
        for name, field in opened.fields().items():
            if name not in ("ragged", "text") and not field.member:
                np.testing.assert_array_equal(opened.read(field), hdf5[name][()])
        assert opened.read(opened.fields()["flat"]).dtype == np.dtype("f4")
        np.testing.assert_array_equal(opened.read(opened.fields()["packed"], 5, 23), hdf5["packed"][5:23])
        np.testing.assert_array_equal(opened.read(opened.fields()["group/table/flux"], 1), [[3, 4], [5, 6]])
        assert opened.read(opened.fields()["text"]).tolist() == [b"a", b"longer"]


def test_links_elsewhere_are_refused(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as hdf5:
        hdf5["ra"] = h5py.ExternalLink("y.hdf5", "ra")
    with pytest.raises(PartitionError, match="link: refused"):
        TreeHDF5(str(tmp_path / "x.hdf5"))
