"""Several catalogues as one table: which value an object gets, what stands for a missing one, what is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyset.errors import UserError
from skyset.survey import Column
from skyset.tables.join import Source, digest, join

COLUMNS = {
    column.name: column
    for column in (
        Column("count", "int16"),
        Column("share", "float32"),
        Column("objid", "int64"),
        Column("spectrum", "uint64"),
        Column("kind", "S4"),
    )
}


def source(path, table, key="name", **columns) -> Source:
    """A catalogue in a file; ``columns``: its names by ours, all but the key by default."""
    if isinstance(table, dict):
        table = pd.DataFrame(table)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        pq.write_table(table if isinstance(table, pa.Table) else pa.Table.from_pandas(table), path)
    names = table.schema.names if isinstance(table, pa.Table) else table.columns
    return Source(path, key, columns or {name: name for name in names if name != key})


def one(path, name, values, dtype=None):
    """A column after it was joined alone."""
    table = pa.table({"name": [f"g{k}" for k in range(len(values))], name: pa.array(values, dtype)})
    return join([source(path, table)], COLUMNS).values[name]


def test_the_first_catalogue_that_has_a_value_gives_it(tmp_path):
    first = source(tmp_path / "a.csv", {"name": ["g2", "g1"], "count": [5, None], "share": [0.5, 0.25]})
    second = source(
        tmp_path / "b.parquet",
        {"id": ["g1", "g3", "g2"], "n": [7, 8, 9], "kind": ["E", "S", None]},
        "id",
        count="n",
        kind="kind",
    )
    joined = join([first, second], COLUMNS)
    assert joined.keys == ["g2", "g1", "g3"] and joined.rejected == []
    assert joined.values["count"].tolist() == [5, 7, 8] and joined.values["count"].dtype == np.int16
    np.testing.assert_array_equal(joined.values["share"], np.array([0.5, 0.25, np.nan], np.float32))
    assert joined.values["kind"].tolist() == [b"", b"E", b"S"]
    assert join([second, first], COLUMNS).values["count"].tolist() == [7, 8, 9]


def test_a_second_row_of_an_object_is_left_out_and_named(tmp_path):
    table = source(tmp_path / "a.csv", {"name": ["g1", "g2", "g1"], "count": [1, 2, 3]})
    joined = join([table], COLUMNS)
    assert (joined.keys, joined.values["count"].tolist()) == (["g1", "g2"], [1, 2])
    assert joined.rejected == [("g1", str(tmp_path / "a.csv"), "a second row of g1 in a.csv (row 3)")]


@pytest.mark.parametrize(
    ("name", "values", "dtype", "wanted"),
    [
        ("count", [None, 3], pa.int64(), [-1, 3]),
        ("count", [None, 3.0], pa.float64(), [-1, 3]),
        ("spectrum", [None, 2**64 - 1], pa.uint64(), [0, 2**64 - 1]),
        ("objid", [None, 2**62 + 1], pa.int64(), [-1, 2**62 + 1]),
        ("share", [None, 0.5], pa.float64(), [np.nan, 0.5]),
        ("kind", [None, "Sb"], pa.string(), [b"", b"Sb"]),
        ("count", ["true", None, "0"], pa.string(), [1, -1, 0]),
        ("count", [True, None], pa.bool_(), [1, -1]),
        ("count", [None, None], pa.null(), [-1, -1]),
        ("kind", [None], pa.null(), [b""]),
    ],
)
def test_what_stands_for_a_missing_value(tmp_path, name, values, dtype, wanted):
    found = one(tmp_path / "a.parquet", name, values, dtype)
    np.testing.assert_array_equal(found, np.array(wanted, found.dtype))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("count", [40000], "count holds 40000, which int16 cannot hold"),
        ("count", [1.5], "count holds 1.5, which int16 cannot hold"),
        ("kind", ["S", "spiral"], "kind is longer than 4 characters"),
        ("kind", ["né"], "kind is not ASCII: 'né'"),
        ("share", [1e300], r"share holds 1e\+300, which float32 cannot hold"),
        ("share", ["many"], "many"),
        ("count", ["perhaps"], "holds 'perhaps', no int16"),
        ("objid", [5.87722981736120347e17], "lost digits in floating point"),
    ],
)
def test_a_value_that_a_column_cannot_hold_names_file_and_column(tmp_path, name, values, words):
    with pytest.raises(UserError, match=words) as caught:
        one(tmp_path / "a.parquet", name, values)
    assert f"a.parquet: column {name}: " in str(caught.value)


def test_the_first_rows_of_a_join(tmp_path):
    joined = join([source(tmp_path / "a.csv", {"name": ["g1", "g2", "g1"], "count": [1, 2, 3]})], COLUMNS)
    head = joined.head(1)
    assert (head.keys, head.values["count"].tolist(), head.rejected) == (["g1"], [1], joined.rejected)
    assert joined.head(None).keys == joined.keys


def test_a_digest_follows_contents_names_and_what_is_added(tmp_path):
    table = {"name": ["g1"], "count": [1], "share": [0.5]}
    first = source(tmp_path / "a.csv", table)
    same = source(tmp_path / "b.csv", table)
    others = [
        digest([source(tmp_path / "c.csv", table | {"count": [2]})]),
        digest([first], True),
        digest([first, same]),
        digest([Source(first.path, "name", {"count": "count"})]),
        digest([]),
    ]
    assert digest([first]) == digest([same])
    assert len({digest([first]), *others}) == 6
