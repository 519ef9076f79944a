"""Columns out of Parquet files: only what is declared, whatever somebody has written into one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyset.errors import PartitionError
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
