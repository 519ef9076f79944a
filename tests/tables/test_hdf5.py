"""Tables in HDF5: which group, which columns, and what is refused."""

import h5py
import numpy as np
import pyarrow as pa
import pytest

from skyset.errors import UserError
from skyset.tables.open import column_names, open_catalog


def table(path, group="/", **columns):
    with h5py.File(path, "w") as file:
        where = file.require_group(group)
        for name, values in columns.items():
            where[name] = values
    return path


def test_columns_of_the_only_group_in_their_types(tmp_path):
    columns = {
        "id": np.array([2**60 + 1, -1, 3]),
        "mag": np.array([1.5, np.nan, 99], ">f4"),
        "good": np.array([True, False, True]),
        "name": np.array([b"a", b"", b"caf\xc3\xa9"]),
    }
    path = table(tmp_path / "t.hdf5", "photometry", **columns, image=np.zeros((3, 2), "f4"))
    with h5py.File(path, "r+") as file:
        file["photometry/mag"].attrs["unit"] = "mag"
    catalog = open_catalog(path)
    assert catalog.rows == 3 and catalog.notes == ("column image left out: it is float32[3, 2]",)
    assert dict(zip(catalog.schema.names, catalog.schema.types, strict=True)) == {
        "good": pa.bool_(),
        "id": pa.int64(),
        "mag": pa.float32(),
        "name": pa.string(),
    }
    assert catalog.schema.field("mag").metadata == {b"unit": b"mag"}
    found = catalog.table().to_pydict()
    assert found["id"] == [2**60 + 1, -1, 3] and found["name"] == ["a", "", "café"] and found["good"] == [True, False, True]
    assert found["mag"][::2] == [1.5, 99] and np.isnan(found["mag"][1])
    assert [batch.num_rows for batch in catalog.batches(2)] == [2, 1]
    assert column_names(path) == ["good", "id", "mag", "name"]
    assert open_catalog(path, ["name", "id"]).table().column_names == ["name", "id"]
    assert table(tmp_path / "u.h5", z=[1.0, 2.0]) and open_catalog(tmp_path / "u.h5").table()["z"].to_pylist() == [1, 2]


def test_what_is_no_table_is_one_line(tmp_path):
    path = tmp_path / "t.hdf5"
    with pytest.raises(UserError, match="a has 3 rows, b has 2: this is no table"):
        open_catalog(table(path, a=[1, 2, 3], b=[1, 2]))
    with pytest.raises(UserError, match="holds no table"):
        open_catalog(table(path, "g/deeper", a=[1]))
    table(path, "g", a=[1, 2])
    with h5py.File(path, "r+") as file:
        file["h/b"] = [1, 2]
    with pytest.raises(UserError, match=r"several tables \(g, h\)"):
        open_catalog(path)
    with pytest.raises(UserError, match="has no column redshift; did you mean redshifts"):
        open_catalog(table(path, redshifts=[1.0]), ["redshift"])
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"t.hdf5: cannot be read"):
        open_catalog(path).table()
    path.write_text("no HDF5")
    with pytest.raises(UserError, match=r"t.hdf5: cannot be read"):
        open_catalog(path)


def test_data_of_another_file_are_refused(tmp_path):
    other = table(tmp_path / "other.h5", a=[1, 2])
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["b"] = [1, 2]
        file["a"] = h5py.ExternalLink(str(other), "a")
    with pytest.raises(UserError, match="a is a soft or external link: refused"):
        open_catalog(tmp_path / "link.h5")
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("a", (2,), "u1", external=[(str(other), 0, 2)])
    with pytest.raises(UserError, match="keeps its data in another file: refused"):
        open_catalog(tmp_path / "outside.h5")
    layout = h5py.VirtualLayout((2,), "i8")
    layout[:] = h5py.VirtualSource(other, "a", (2,))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("a", layout)
    with pytest.raises(UserError, match="keeps its data in another file: refused"):
        open_catalog(tmp_path / "virtual.h5")
