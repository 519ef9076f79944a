"""Columns out of Parquet files: only what is declared, whatever somebody has written into one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyset.errors import PartitionError
from skyset.partitions.parquet_columns import columns_in, uneven_in
from skyset.partitions.parquet_file import ParquetFile, Place
from skyset.survey import Column

ROWS = 23


@pytest.fixture
def file(tmp_path):
    def write(columns: dict, rows: int = 5) -> str:
        path = tmp_path / "rows.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=rows)
        return str(path)

    return write


def test_rows_out_of_several_groups(file):
    values = np.arange(ROWS * 6, dtype=np.float32).reshape(ROWS, 2, 3)
    text, blobs = [f"object {n}" for n in range(ROWS)], [bytes([n]) * n for n in range(ROWS)]
    path = file({"pixels": values.tolist(), "name": text, "blob": blobs})
    path = file({"pixels": pa.array(values.tolist(), pa.list_(pa.list_(pa.float32()))), "name": text, "blob": blobs})
    columns = [Column("pixels", "float32", (2, 3)), Column("name", "S9"), Column("blob", "bytes")]
    with ParquetFile(path, columns, ROWS) as opened:
        for start, stop in [(0, ROWS), (4, 6), (7, 7), (3, 19), (22, 23)]:
            assert np.array_equal(opened.read("pixels", start, stop), values[start:stop])
            assert opened.text("name", start, stop) == text[start:stop]
            assert opened.read("blob", start, stop).tobytes() == b"".join(blobs[start:stop])
            assert np.diff(opened.ends("blob", start, stop)).tolist() == [len(blob) for blob in blobs[start:stop]]
        with pytest.raises(PartitionError, match="has no rows"):
            opened.read("pixels", 0, ROWS + 1)


def test_layers_of_a_group(file):
    layers = np.arange(ROWS * 8, dtype=np.uint8).reshape(ROWS, 2, 2, 2)
    kind = pa.struct([("array", pa.list_(pa.list_(pa.list_(pa.uint8())))), ("share", pa.list_(pa.float32()))])
    rows = [{"array": row.tolist(), "share": [1.5, n]} for n, row in enumerate(layers)]
    path = file({"masks": pa.array(rows, kind)}, rows=4)
    columns = [Column("bar", "uint8", (2, 2)), Column("share", "float32", (2,))]
    places = {"bar": Place("masks", "array", 1), "share": Place("masks", "share")}
    with ParquetFile(path, columns, places=places) as opened:
        assert np.array_equal(opened.read("bar", 3, 14), layers[3:14, 1])
        assert opened.read("share", 2, 4).tolist() == [[1.5, 2.0], [1.5, 3.0]]


LENGTHS = [0, 3, 1, 0, 0, 4, 2, 5, 1, 0, 3]


@pytest.mark.parametrize("rows", [1, 3, 4, 11])
@pytest.mark.parametrize("shape", [(-1,), (-1, 2), (2, -1), (2, -1, 3), (-1, 2, 3)])
def test_rows_of_any_length(file, rows, shape):
    random = np.random.default_rng(len(shape))
    values = [random.random([n if size == -1 else size for size in shape], np.float32) for n in LENGTHS]
    kind = pa.float32()
    for size in reversed(shape):
        kind = pa.list_(kind, size) if size == 3 else pa.list_(kind)
    lists = pa.array([value.tolist() for value in values], kind)
    grouped = pa.StructArray.from_arrays([lists], ["flux"])
    path = file({"flux": lists, "group": grouped}, rows)
    columns = [Column("flux", "float32", shape), Column("in_group", "float32", shape)]
    with ParquetFile(path, columns, places={"in_group": Place("group", "flux")}) as opened:
        for name in ("flux", "in_group"):
            for start, stop in [(0, 11), (2, 9), (3, 5), (4, 4), (10, 11)]:
                flat = [value.ravel() for value in values[start:stop]]
                assert np.array_equal(opened.read(name, start, stop), np.concatenate([np.zeros(0), *flat]))
                assert opened.ends(name, start, stop).tolist() == np.cumsum([0, *map(len, flat)]).tolist()
        some = np.array([1, 5, 7])
        table = opened.taken(some)
        assert opened.lengths(table, "flux").tolist() == [values[row].size for row in some]
        assert np.array_equal(opened.values(table, "flux"), np.concatenate([values[row].ravel() for row in some]))


def test_texts_of_any_number_and_what_is_missing(file):
    path = file({"band": [["g", "rr"], [], ["i"], None, ["z", None]], "flux": [[1.0, None], None, [], [2.0], [None]]}, 2)
    columns = [Column("band", "S4", (-1,)), Column("flux", "float64", (-1,))]
    with ParquetFile(path, columns, fill=True) as opened:
        assert opened.read("band").tolist() == [b"g", b"rr", b"i", b"z", b""]
        assert opened.ends("band").tolist() == [0, 2, 2, 3, 3, 5]
        np.testing.assert_array_equal(opened.read("flux"), [1, np.nan, 2, np.nan])
        assert opened.ends("flux").tolist() == [0, 2, 2, 2, 3, 4]
    with pytest.raises(PartitionError, match="flux lacks values"), ParquetFile(path, columns) as opened:
        opened.read("flux", 1, 2)


@pytest.mark.parametrize(
    ("values", "shape"),
    [([[[1, 2]], [[3]]], (-1, 2)), ([[[1], [2, 3]]], (2, -1)), ([[[1]]], (-1,)), ([[1]], (2, -1)), ([1], (-1,))],
)
def test_rows_that_are_not_of_the_shape(file, values, shape):
    path = file({"x": values})
    with (
        pytest.raises(PartitionError, match=r"rows\.parquet: column x"),
        ParquetFile(path, [Column("x", "int64", shape)]) as f,
    ):
        f.ends("x")


def test_the_shape_that_a_sample_has():
    table = pa.table(
        {
            "flux": [[1.0], [1.0, 2.0]],
            "alike": [[1, 2], [3, 4]],
            "empty": pa.array([[], []], pa.list_(pa.int8())),
            "cube": [[[1, 2]], [[1, 2], [3, 4]]],
            "wild": [[[1], [2, 3]], [[4]]],
            "band": [["g"], []],
            "curve": [{"time": [1.0], "n": 1}, {"time": [], "n": 2}],
        }
    )
    columns, places, others = columns_in(table.schema, table.select)
    assert {column.name: column.shape for column in columns} == {
        "flux": (-1,),
        "alike": (2,),
        "empty": (-1,),
        "cube": (-1, 2),
        "band": (-1,),
        "curve.time": (-1,),
        "curve.n": (),
    }
    assert others == ["wild"]
    assert places["curve.time"] == Place("curve", "time")


def test_footers_tell_of_lists_that_a_sample_cannot(file):
    lists = [[n] * (2 if n < 5 else 3) for n in range(10)]
    alike = [[n, n] for n in range(10)]
    path = file({"x": lists, "y": alike, "s": [{"x": each, "n": 1} for each in lists], "m": [[each] for each in lists]}, 5)
    with ParquetFile(path, []) as opened:
        uneven = uneven_in(opened.footer)
        assert uneven == {"x", "s.x", "m"}
        columns, _, _ = columns_in(opened.schema, lambda names: opened.head(names, 3), uneven)
    shapes = {column.name: column.shape for column in columns}
    assert shapes == {"x": (-1,), "y": (2,), "s.x": (-1,), "s.n": (), "m": (-1, 2)}


@pytest.mark.parametrize(
    ("values", "column", "why"),
    [
        ([1.0, 2.0], Column("x", "float32"), "float64, not float32"),
        (["a", "bc"], Column("x", "S1"), "more than 1 character"),
        ([1, None], Column("x", "int64"), "lacks values"),
        ([[1, 2], [3]], Column("x", "int64", (2,)), "rows.parquet"),
        ([[1, 2], [3, None]], Column("x", "int64", (2,)), "lacks values"),
        ([b"a", None], Column("x", "bytes"), "missing"),
        ([{"a": 1}, {"a": 2}], Column("x", "int64"), "rows.parquet"),
        ([1, 2], Column("y", "int64"), "column y is missing"),
    ],
)
def test_values_that_are_not_as_declared(file, values, column, why):
    path = file({"x": values})
    with pytest.raises(PartitionError, match=why), ParquetFile(path, [column]) as opened:
        opened.read(column.name)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"\x89HDF\r\n\x1a\n" * 40, b"PAR1" + b"\0" * 100 + b"\xff\xff\xff\x7fPAR1"]
)
def test_files_that_are_none(tmp_path, content):
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(PartitionError, match=r"rows\.parquet"):
        ParquetFile(str(path), [])
