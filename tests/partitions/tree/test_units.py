"""Objects of which each has a file or a group: what is found in them, and the list of where they lie."""

import re

import h5py
import numpy as np
import pyarrow as pa
import pytest

from skyset.errors import PartitionError, RecordError
from skyset.partitions.tree.form import Source, TreeForm
from skyset.partitions.tree.structure import Stored, dtype_of_text, text_of_dtype, units_in
from skyset.partitions.tree.units import UnitsFile, write_units
from skyset.sky import healpix_cell
from skyset.survey import Column

COLUMNS = (
    Column("object_id", "S12"),
    Column("ra", "float64"),
    Column("dec", "float64"),
    Column("healpix", "int64"),
    Column("z", "float64"),
    Column("good", "bool"),
    Column("pair", "int16", (2,)),
    Column("name", "S20"),
    Column("flux", "float32", (7, 40)),
    Column("band", "S4", (7, 40)),
)
SOURCES = {
    "object_id": Source(("object_id",), "text"),
    "ra": Source(("RA",), "scaled", 15.0),
    "dec": Source(("dec",)),
    "healpix": Source((), "cell"),
    "z": Source(("z",)),
    "good": Source(("good",)),
    "pair": Source(("pair",)),
    "name": Source((), "name"),
    "flux": Source(("flux",)),
    "band": Source(("bands",), "labels", like="flux"),
}
DICE = np.random.default_rng(3)


def write_object(place, number: int, **changes) -> None:
    values = {
        "object_id": np.int64(10**9 + number),
        "RA": np.float32(number),
        "dec": np.float64(-number),
        "z": np.float32(number / 4) if number % 2 else np.int64(number),
        "good": np.bool_(number % 2),
        "pair": np.array([number, -number], ">i2"),
        "flux": DICE.normal(size=(7, 40)).astype("f4"),
        "bands": "u,g,r,i,z,Y,Jrc2",
    }
    for name, value in (values | changes).items():
        if value is not None:
            place[name] = value


def form(tree, kind="objects") -> TreeForm:
    return TreeForm(str(tree), kind, SOURCES)


@pytest.fixture
def tree(tmp_path):
    for number in range(5):
        with h5py.File(tmp_path / f"n{number}.hdf5", "w") as file:
            write_object(file, number, **({"z": None, "flux": None} if number == 3 else {}))
    return tmp_path


def found(tree, kind="objects"):
    units = [unit for n in range(5) for unit in units_in(tree, f"n{n}.hdf5", kind)]
    write_units(tree / "units.arrow", form(tree, kind), COLUMNS, ["n0.hdf5", "n3.hdf5"], [units[:3], units[3:]])
    return UnitsFile(tree / "units.arrow")


def test_small_columns_are_kept_by_value(tree):
    file = found(tree)
    assert file.entries == ["n0.hdf5", "n3.hdf5"]
    parts = [rows for _, rows in file]
    assert [part.rows for part in parts] == [3, 2]
    kept = {c.name: np.concatenate([part.values(c) for part in parts]) for c in COLUMNS[:8]}
    assert {name: values.dtype for name, values in kept.items()} == {c.name: c.stored_dtype for c in COLUMNS[:8]}
    numbers = np.arange(5)
    assert kept["object_id"].tolist() == [b"100000000%d" % n for n in numbers]
    assert kept["ra"].tolist() == [15.0 * n for n in numbers]
    assert kept["dec"].tolist() == [-1.0 * n for n in numbers]
    np.testing.assert_array_equal(kept["healpix"], healpix_cell(15.0 * numbers, -1.0 * numbers))
    np.testing.assert_array_equal(kept["z"], [0, 0.25, 2, np.nan, 4])
    assert kept["good"].tolist() == [False, True, False, True, False]
    np.testing.assert_array_equal(kept["pair"], np.stack([numbers, -numbers], axis=1))
    assert kept["name"].tolist() == [b"n0", b"n1", b"n2", b"n3", b"n4"]


def test_where_arrays_lie_is_where_their_values_are(tree):
    for entry, rows in found(tree):
        arrays = rows.arrays("flux")
        for row, file in enumerate(rows.files):
            with h5py.File(tree / file) as hdf5:
                if "flux" not in hdf5:
                    assert (entry, row, arrays.stored(row)) == ("n3.hdf5", 0, None)
                    continue
                stored = arrays.stored(row)
                assert (stored.dims, stored.dtype) == ((7, 40), np.dtype("<f4"))
                data = (tree / file).read_bytes()[stored.offset : stored.offset + 4 * 280]
                np.testing.assert_array_equal(np.frombuffer(data, "<f4").reshape(7, 40), hdf5["flux"][:])
                assert rows.labels("bands")[row] == "u,g,r,i,z,Y,Jrc2"
                assert rows.sizes[row] == (tree / file).stat().st_size
                assert rows.mtimes[row] == (tree / file).stat().st_mtime_ns


def test_groups_are_objects_in_the_order_of_their_names(tmp_path):
    with h5py.File(tmp_path / "all.hdf5", "w") as file:
        for number in (2, 0, 1):
            write_object(file.create_group(f"galaxy-{number}"), number)
        file["beside"] = 1
    units = units_in(tmp_path, "all.hdf5", "groups")
    assert [unit.group for unit in units] == ["galaxy-0", "galaxy-1", "galaxy-2"]
    assert [int(unit.values["object_id"]) for unit in units] == [10**9, 10**9 + 1, 10**9 + 2]
    write_units(tmp_path / "units.arrow", form(tmp_path, "groups"), COLUMNS, ["all.hdf5"], [units])
    rows = UnitsFile(tmp_path / "units.arrow").rows_of("all.hdf5")
    assert rows.groups == [unit.group for unit in units]
    assert rows.values(COLUMNS[7]).tolist() == [b"galaxy-0", b"galaxy-1", b"galaxy-2"]


def test_compound_members_lie_where_the_file_has_them(tmp_path):
    kind = np.dtype([("name", h5py.string_dtype()), ("flux", "f4", (50, 60)), ("x", "i2")])
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        data = np.zeros(3, kind)
        data["name"], data["x"] = ["g", "r", "iz"], [7, 8, 9]
        data["flux"] = DICE.normal(size=(3, 50, 60))
        file["maps/images"] = data
        file["curve"] = h5py.Empty("f4")
        file["times"] = np.arange(2000.0)
        file.create_dataset("packed", data=np.arange(5000), compression="gzip")
        file.create_dataset("steps", (), h5py.vlen_dtype("f8"))[()] = np.arange(600.0)
    (unit,) = units_in(tmp_path, "a.hdf5", "objects")
    assert unit.values["maps/images/x"].tolist() == [7, 8, 9]
    assert unit.values["maps/images/name"].tolist() == [b"g", b"r", b"iz"]
    assert set(unit.values) == {"maps/images/x", "maps/images/name"}
    stored = unit.arrays["maps/images"]
    whole = np.frombuffer((tmp_path / "a.hdf5").read_bytes(), stored.dtype, 3, stored.offset)
    np.testing.assert_array_equal(whole["flux"], data["flux"])
    assert dtype_of_text(text_of_dtype(stored.dtype)) == stored.dtype
    assert unit.arrays["packed"] == Stored((5000,), np.dtype("<i8"), -1)
    assert unit.arrays["steps"] == Stored((600,), np.dtype("<f8"), -1)
    assert "curve" not in unit.arrays


NO_DTYPES = ["", "O", "f4,f4", "m8[s]", '{"size":1}', '["O",[2]]', "[1]", '{"size":4,"members":{"a":["<f8",0]}}']


@pytest.mark.parametrize("text", NO_DTYPES)
def test_what_tells_no_dtype_is_refused(text):
    with pytest.raises((ValueError, LookupError, TypeError)):
        dtype_of_text(text)


@pytest.mark.parametrize("link", [h5py.SoftLink("/flux"), h5py.ExternalLink("other.hdf5", "flux")], ids=["soft", "external"])
def test_links_out_of_an_object_are_refused(tmp_path, link):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        write_object(file, 1)
        file["bad"] = link
    with pytest.raises(PartitionError, match=r"a.hdf5: bad is a soft or external link: refused"):
        units_in(tmp_path, "a.hdf5", "objects")


def test_data_in_another_file_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("flux", (10,), "f4", external=[("raw.bin", 0, 40)])
    with pytest.raises(PartitionError, match="flux keeps its data in another file: refused"):
        units_in(tmp_path, "a.hdf5", "objects")


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.hdf5").write_bytes(b"nothing of the kind" * 100)
    for name in ("a.hdf5", "gone.hdf5"):
        with pytest.raises(PartitionError, match=name):
            units_in(tmp_path, name, "objects")


def test_a_value_that_does_not_fit_is_named_with_its_file(tree):
    with h5py.File(tree / "n4.hdf5", "r+") as file:
        del file["pair"]
        file["pair"] = np.array([1, 70_000])
    with pytest.raises(RecordError, match=re.escape("n4.hdf5: pair holds 70000, which int16 cannot hold")):
        found(tree)


def test_a_list_that_lies_is_refused(tree):
    found(tree)
    path = tree / "units.arrow"
    with pa.ipc.open_file(path) as file:
        schema, batches = file.schema, [file.get_batch(n) for n in range(2)]

    def rewritten(name, values):
        number = schema.get_field_index(name)
        with pa.ipc.new_file(path, schema) as out:
            out.write_batch(batches[0].set_column(number, schema.field(number), values))
            out.write_batch(batches[1])
        return lambda: UnitsFile(path).rows_of("n0.hdf5").arrays("flux")

    for name, values, words in [
        ("/file", pa.array(["../a", "b", "c"]), "is no file of a tree"),
        ("/file", pa.array([None, "b", "c"]), "is no file of a tree"),
        ("/offset:flux", pa.array([2**40, 0, 0]), "reaches out of its file"),
        ("/offset:flux", pa.array([-3, 0, 0]), "reaches out of its file"),
        ("/dtype:flux", pa.array(["O", "<f4", "<f4"]), "no dtype"),
    ]:
        with pytest.raises((PartitionError, ValueError), match=words):
            rewritten(name, values)()


@pytest.mark.parametrize("data", [b"", b"ARROW1\0\0" + b"x" * 100])
def test_no_list_is_told_what_to_do(tmp_path, data):
    path = tmp_path / "units.arrow"
    with pytest.raises(PartitionError, match="no such file: run `skyset adopt` again"):
        UnitsFile(path)
    path.write_bytes(data)
    with pytest.raises(PartitionError, match=r"is damaged: .*: run `skyset adopt` again"):
        UnitsFile(path)
