"""Catalogues in SQLite: what types columns have, which table is read, and that nothing is written or run."""

import contextlib
import hashlib
import math
import sqlite3

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.errors import UserError
from skyset.tables.open import column_names, open_catalog

ID = 36407053045309821


def database(path, *statements, rows=()):
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA synchronous = OFF")
        for statement in statements:
            file.execute(statement)
        if rows:
            file.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(rows[0]))})", rows)
    return path


def test_ids_numbers_text_and_nothing(tmp_path):
    rows = [(ID, 1.5, "a", None, 1, None), (ID + 1, 2, "'\n", 0, None, None), (-ID, None, None, 1.25, 0, None)]
    path = database(
        tmp_path / "t.sqlite3",
        "CREATE TABLE t (object_id BIGINT, ra REAL, name TEXT, dec, flag BOOLEAN, mag FLOAT)",
        rows=rows,
    )
    catalog = open_catalog(path)
    assert catalog.schema.types == [pa.int64(), pa.float64(), pa.string(), pa.float64(), pa.int64(), pa.float64()]
    assert catalog.rows == 3 and [tuple(row.values()) for row in catalog.table().to_pylist()] == rows
    assert [batch.num_rows for batch in catalog.batches(2)] == [2, 1]
    assert column_names(path) == ["object_id", "ra", "name", "dec", "flag", "mag"]
    assert open_catalog(path, ["name", "object_id"]).table().column_names == ["name", "object_id"]
    with pytest.raises(UserError, match="has no column redshift"):
        open_catalog(path, ["redshift"])


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES, max_size=20))
def test_any_column_comes_as_what_all_of_its_values_are(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("any") / "t.db"
    database(path, "CREATE TABLE t (n INTEGER, v BLOB)", rows=list(enumerate(values)))
    found = open_catalog(path).table()["v"].to_pylist()
    if any(isinstance(value, str) for value in values):
        assert found == [value if isinstance(value, str | None) else repr(value) for value in values]
    else:
        assert found == values and len({type(value) for value in found if value is not None}) < 2


def test_many_columns_with_braces_and_quotes_in_their_names(tmp_path):
    names = [f'c{n} {{0}} "{n}"' for n in range(320)]
    listed = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    row = tuple(n if n % 3 else n / 2 + 0.25 if n % 2 else f"t{n}" for n in range(320))
    path = database(tmp_path / "t.db", f"CREATE TABLE t ({listed})", rows=[row] * 3)
    assert [tuple(found.values()) for found in open_catalog(path).table().to_pylist()] == [row] * 3


def test_the_table_with_objects_is_read(tmp_path):
    other, objects = "CREATE TABLE a (x)", "CREATE TABLE t (object_id INTEGER)"
    assert open_catalog(database(tmp_path / "one.db", other)).schema.names == ["x"]
    assert open_catalog(database(tmp_path / "two.db", other, objects, rows=[(7,)])).table().to_pylist() == [{"object_id": 7}]


def test_a_view_is_no_table(tmp_path):
    path = database(tmp_path / "t.db", "CREATE TABLE t (x)", "CREATE VIEW v AS SELECT x AS object_id FROM t", rows=[(1,)])
    assert open_catalog(path).schema.names == ["x"]
    empty = database(tmp_path / "v.db", "CREATE TABLE t (x)", "CREATE VIEW v AS SELECT 1 AS x", "DROP TABLE t")
    with pytest.raises(UserError, match=r"v\.db: has no table"):
        open_catalog(empty)


def test_blobs_are_left_out_with_a_note(tmp_path):
    path = database(tmp_path / "t.db", "CREATE TABLE t (id, picture)", rows=[(1, b"\x00\xff")])
    catalog = open_catalog(path)
    assert catalog.schema.names == ["id"] and catalog.notes == ("column picture left out: it holds blobs",)


def test_decimals_beside_an_id_are_refused(tmp_path):
    path = database(tmp_path / "t.db", "CREATE TABLE t (object_id)", rows=[(ID,), (3.6e16,)])
    with pytest.raises(UserError, match="column object_id has decimals beside integers"):
        open_catalog(path)


def test_infinity_stays(tmp_path):
    path = database(tmp_path / "t.db", "CREATE TABLE t (mag REAL)", rows=[(math.inf,), (-99.9,)])
    assert open_catalog(path).table()["mag"].to_pylist() == [math.inf, -99.9]


def test_neither_the_file_nor_its_folder_changes(tmp_path):
    path = database(tmp_path / "t?#%41.db", "PRAGMA journal_mode = WAL", "CREATE TABLE t (x)", rows=[(1,)])
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    tmp_path.chmod(0o555)
    path.chmod(0o444)
    try:
        assert open_catalog(path).table()["x"].to_pylist() == [1]
    finally:
        tmp_path.chmod(0o755)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_rows_that_are_in_a_log_alone_would_be_missing(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("CREATE TABLE t (x)")
        file.commit()
        with pytest.raises(UserError, match=r"somebody is writing to it: rows that are in t\.db-wal"):
            open_catalog(tmp_path / "t.db")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"object_id,ra\n1,2\n", "not an SQLite file$"),
        (b"\x1f\x8b" + bytes(20), "not an SQLite file .unpack it first"),
        (b"SQLite format 3\0" + bytes(84), "cannot be read as SQLite|has no table"),
    ],
)
def test_what_is_no_database_is_one_line(tmp_path, content, words):
    (tmp_path / "t.sqlite3").write_bytes(content)
    with pytest.raises(UserError, match=words):
        open_catalog(tmp_path / "t.sqlite3")


def test_a_file_cut_short_is_refused(tmp_path):
    path = database(tmp_path / "t.db", "CREATE TABLE t (x, y)", rows=[(n, "text" * 100) for n in range(500)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"t\.db: cannot be read as SQLite"):
        open_catalog(path).table()
