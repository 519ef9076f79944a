"""Catalogues: what is a number, what survives which format, what a cut removes, and what is said of damaged files."""

import gc
import gzip
import io
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.io import fits, votable
from astropy.table import Column, MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from rich.console import Console

from skyset.errors import UserError
from skyset.tables import catalog as catalog_module
from skyset.tables import cuts, numeric_text
from skyset.tables.cuts import Counts, Cut
from skyset.tables.delimited_writer import write_csv
from skyset.tables.numeric_text import safe_to_numeric
from skyset.tables.open import column_names, open_catalog
from skyset.tables.parquet import write_parquet

#: Tables of votes, and their rows.
GZ2 = [("gz2/gz2_stripe82_excerpt.fits.gz", 264), ("gz2/gz2_stripe82_table5.fits.gz", 19761)]

OBJID = 587722984435351614  # as float64 it is 587722984435351552
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_infinity=False)


def same(one, other) -> bool:
    """Equal values, types, signs of zero; NaN equals NaN and nothing else."""
    return list(map(repr, one)) == list(map(repr, other))


def written(path: Path, table: pa.Table, rows: int = 1000) -> Path:
    assert write_csv(path, table.to_batches(max_chunksize=rows), table.schema) == table.num_rows
    return path


def text_file(folder: Path, content: str | bytes, name: str = "c.csv") -> Path:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


# --- What is a number ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        ([str(OBJID), "", " ", "null", "NULL", "\\N", "--"], [OBJID] + [None] * 6),
        ([str(OBJID), "nan"], [OBJID, None]),
        (["  7", "8\t", "9"], [7, 8, 9]),
        (["18446744073709551615", "0"], [2**64 - 1, 0]),
        (["-9223372036854775808", "9223372036854775807"], [-(2**63), 2**63 - 1]),
        (["1.5", "2", ""], [1.5, 2.0, None]),
        (["+02.156", "-12.5", "007.5"], [2.156, -12.5, 7.5]),
        (["1e5", "1E-05", ".5", "5."], [1e5, 1e-5, 0.5, 5.0]),
        (["9007199254740992", "0.5"], [2.0**53, 0.5]),
        (["nan", "NaN", ""], [math.nan, math.nan, None]),
        (["0.1", "nan", "-nan"], [0.1, math.nan, math.nan]),
        (["-0", "5"], [-0.0, 5.0]),
        (["1e999", "-1e999", "1e-400"], [math.inf, -math.inf, 0.0]),
        (["0." + "1" * 400], [float("0." + "1" * 400)]),
    ],
)
def test_wholly_numeric_text_becomes_numbers(texts, numbers):
    assert same(safe_to_numeric(texts), numbers)
    assert same(safe_to_numeric(pa.array(texts)).to_pylist(), numbers)


@pytest.mark.parametrize(
    "texts",
    [
        ["007", "8"],
        ["+5"],
        ["00"],
        ["1.5", "007"],
        ["0x1F"],
        ["1_000"],
        ["1,000"],
        ["inf"],
        ["1.5", "-Infinity"],
        ["True", "False"],
        ["1", "True"],
        ["٣", "4"],
        ["1.５"],
        ["1 2"],
        ["1.5.2"],
        ["1.5D+03"],
        ["12e4567"],
        ["J000411.19+020924.0"],
        ["9007199254740993", "0.5"],
        [str(OBJID), "5.87722984435352E+17"],
        ["18446744073709551616"],
        ["-1", "18446744073709551615"],
        ["", "null", None],
        [],
        ["."],
        ["e5"],
        ["nan(12)"],
        ["\u20075"],
    ],
)
def test_any_other_column_comes_back_itself(texts):
    for column in (texts, pa.array(texts, pa.string()), pd.Series(texts, dtype=object), np.array(texts, object)):
        assert safe_to_numeric(column) is column


def test_numbers_come_back_themselves():
    for column in (
        pa.array([1, 2]),
        pa.chunked_array([[1.5]]),
        pd.Series([1.0, 2.0]),
        pd.Series([True]),
        pd.Series(["1"], dtype="category"),
        np.arange(3),
        np.array([["1"]]),
        Column([1.5]),
        MaskedColumn([1], mask=[True]),
    ):
        assert safe_to_numeric(column) is column
    with pytest.raises(TypeError, match="not a column: dict"):
        safe_to_numeric({})


def test_containers_stay_what_they_are():
    texts = [str(OBJID), "", "-3"]
    arrow = safe_to_numeric(pa.chunked_array([texts[:2], [], texts[2:]]))
    assert isinstance(arrow, pa.ChunkedArray) and arrow.type == pa.int64() and arrow.num_chunks == 3
    assert arrow.to_pylist() == [OBJID, None, -3]
    series = safe_to_numeric(pd.Series(texts, index=list("abc"), name="objid"))
    assert series.dtype == "Int64" and series.name == "objid" and series["a"] == OBJID and series["b"] is pd.NA
    assert safe_to_numeric(pd.Series(["18446744073709551615", None])).dtype == "UInt64"
    assert safe_to_numeric(pd.Series([str(OBJID)])).dtype == np.int64
    floats = safe_to_numeric(pd.Series(["1.5", None]))
    assert floats.dtype == np.float64 and math.isnan(floats[1])
    masked = safe_to_numeric(np.array(texts))
    assert isinstance(masked, np.ma.MaskedArray) and masked.dtype == np.int64
    assert masked.tolist() == [OBJID, None, -3]
    plain = safe_to_numeric(np.array([str(OBJID).encode(), b"1"]))
    assert type(plain) is np.ndarray and plain.tolist() == [OBJID, 1]
    assert same(safe_to_numeric(np.array(["1.5", "--"])), [np.float64(1.5), np.float64("nan")])
    assert safe_to_numeric(np.array(["4", "5"], np.dtypes.StringDType())).tolist() == [4, 5]
    assert (plain := safe_to_numeric(plain)).flags.writeable


def test_astropy_columns_keep_name_unit_and_mask():
    about = {"name": "objid", "unit": "mag", "description": "of it", "meta": {"a": 1}}
    column = safe_to_numeric(Column([str(OBJID), "2"], **about))
    assert type(column) is Column and column.dtype == np.int64 and column[0] == OBJID
    assert (column.name, str(column.unit), column.description, column.meta) == ("objid", "mag", "of it", {"a": 1})
    holes = safe_to_numeric(Column([str(OBJID), "--"], **about))
    assert type(holes) is MaskedColumn and holes.tolist() == [OBJID, None] and holes.name == "objid"
    masked = safe_to_numeric(MaskedColumn(["1.5", "word"], mask=[False, True], **about))
    assert type(masked) is MaskedColumn and masked.tolist() == [1.5, None] and str(masked.unit) == "mag"


def test_objects_count_as_python_prints_them():
    assert safe_to_numeric(pd.Series([OBJID, None, "5"], dtype=object)).tolist() == [OBJID, pd.NA, 5]
    assert safe_to_numeric([1, 2.5]) == [1.0, 2.5]
    assert safe_to_numeric(pd.Series([np.int64(OBJID), pd.NA], dtype=object))[0] == OBJID
    mixed = pd.Series([True, 1], dtype=object)
    assert safe_to_numeric(mixed) is mixed


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1))
def test_floats_are_rounded_as_python_does(values):
    assert same(safe_to_numeric([*map(repr, values), "0.5"]), [*values, 0.5])


@settings(deadline=None)
@given(st.lists(st.from_regex(r"\A[-+]?[0-9]{0,25}\.[0-9]{1,25}([eE][-+]?[0-9]{1,3})?\Z"), min_size=1))
def test_any_decimal_is_pythons_float(texts):
    assert same(safe_to_numeric(texts), [float(text) for text in texts])


NUMBERLIKE = st.one_of(
    INT64.map(str),
    FLOATS.map(repr),
    st.from_regex(r"\A[ ]?[-+]?[0-9]{0,20}\.?[0-9]{0,3}([eE][-+]?[0-9]{1,2})?[ ]?\Z"),
    st.sampled_from(["", "nan", "--", "null", "-0", "inf", "x", "18446744073709551615"]),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(NUMBERLIKE, max_size=8), st.data())
def test_the_answer_does_not_depend_on_the_blocks(texts, data):
    """Also: the fast way and the careful way agree."""
    whole = safe_to_numeric(pa.array(texts, pa.string()))
    cut = data.draw(st.integers(0, len(texts)))
    blocks = safe_to_numeric(pa.chunked_array([texts[:cut], texts[cut:]], pa.string()))
    assert blocks.type == whole.type and same(blocks.to_pylist(), whole.to_pylist())
    seen = numeric_text._look_closely(pa.array(texts, pa.string()))
    assert (seen.type or pa.string()) == whole.type


@settings(deadline=None)
@given(st.lists(INT64, min_size=1))
def test_any_int64_survives_every_format(values):
    values = [OBJID, *values]
    text = "objid,word\n" + "".join(f"{value},x\n" for value in values)
    frame = pd.read_csv(io.StringIO(text), dtype=str)
    arrow = safe_to_numeric(pa.array(frame["objid"]))
    numeric_text = safe_to_numeric(arrow.cast(pa.string()).to_pandas()).to_numpy()
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        file["objid"] = numeric_text
        numeric_text = file["objid"][:]
    for form in ("binary2", "tabledata"):
        buffer = io.BytesIO()
        Table({"objid": numeric_text}).write(buffer, format="votable", tabledata_format=form)
        numeric_text = np.asarray(votable.parse_single_table(buffer).to_table()["objid"])
    back = safe_to_numeric(pa.array(numeric_text).cast(pa.string()))
    assert arrow.type == back.type == pa.int64() and numeric_text.dtype == np.int64
    assert back.to_pylist() == values


def test_a_million_numbers_take_a_moment():
    values = pa.array(np.arange(OBJID, OBJID + 1_000_000)).cast(pa.string())
    start = time.process_time()
    assert safe_to_numeric(values)[-1].as_py() == OBJID + 999_999
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([5.87722984435351614e17], "is double"),
        (["12", "5.87722984435352E+17"], r"holds 5.87722984435352E\+17 in row 2"),
        (["587722984435351552.0"], r"holds 587722984435351552.0 in row 1"),
    ],
)
def test_spoilt_identifiers_are_refused(values, reason):
    with pytest.raises(UserError, match=f"column objid {reason}.*cannot be repaired"):
        catalog_module.check_ids(pa.table({"objid": values}), "objid")


def test_sound_identifiers_pass():
    table = pa.table({"a": [OBJID], "b": ["1-24"], "c": ["J000411.19+020924.0"], "d": ["007"], "e": ["587E12"]})
    for name in table.column_names:
        catalog_module.check_ids(table, name)
    with pytest.raises(UserError, match="no column objid"):
        catalog_module.check_ids(table, "objid")


# --- Reading CSV -----------------------------------------------------------------------------------------------------


def test_a_word_in_the_last_row_makes_text_of_the_column_everywhere(tmp_path):
    rows = 300_000  # several blocks
    lines = "".join(f"{OBJID + n},{n}.5,{n}\n" for n in range(rows))
    path = text_file(tmp_path, f"objid,mag,plate\n{lines}{OBJID},2,007\n", "c.csv.gz")
    table = open_catalog(path)
    assert table.rows == rows + 1 and len(list(table.batches())) > 3
    assert table.schema.types == [pa.int64(), pa.float64(), pa.string()]
    columns = table.table()
    assert columns["objid"][rows - 1].as_py() == OBJID + rows - 1
    assert columns["plate"][0].as_py() == "0" and columns["mag"][-1].as_py() == 2.0
    assert max(batch.num_rows for batch in table.batches(1000)) == 1000


def test_csv_oddities(tmp_path):
    rows = ['1,"say ""hi"", you",null,+1.5,--,', '2,,--,-2,a,"" ', '3,"",4,nan,b,', "", "", ""]
    text = "\r\n".join(["\ufeff#Table1", 'objid,"na,me",x,d,w,e', *rows])
    table = open_catalog(text_file(tmp_path, text)).table()
    assert table.column_names == ["objid", "na,me", "x", "d", "w", "e"]
    assert table["na,me"].to_pylist() == ['say "hi", you', None, ""]
    assert table["x"].to_pylist() == [None, None, 4] and table["x"].type == pa.int64()
    assert same(table["d"].to_pylist(), [1.5, -2.0, math.nan])
    assert table["w"].to_pylist() == ["--", "a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "#ra,dec\n1.5,2\n",
        "# ra,dec\n1.5,2\n",
        "# made by us\n#ra,dec\n1.5,2\n",
        "# made, by us, today\nra,dec\n1.5,2\n",
        "\n\nra,dec\n1.5,2",
        '#Table 2\n"ra",dec\r1.5,2\r',
    ],
)
def test_headers(tmp_path, text):
    assert open_catalog(text_file(tmp_path, text)).table().to_pydict() == {"ra": [1.5], "dec": [2]}


def test_one_column_behind_a_comment_sign(tmp_path):
    assert open_catalog(text_file(tmp_path, "#objid\n5\n")).table().to_pydict() == {"objid": [5]}
    assert open_catalog(text_file(tmp_path, "#Table1\nobjid\n5\n")).table().to_pydict() == {"objid": [5]}


def test_a_header_alone_is_an_empty_catalogue(tmp_path):
    for text in ("ra,dec\n", "ra,dec", "#Table1\nra,dec\r\n\r\n"):
        table = open_catalog(text_file(tmp_path, text))
        assert (table.rows, table.schema.names, list(table.batches())) == (0, ["ra", "dec"], [])


def test_tabs_and_chosen_columns(tmp_path):
    table = open_catalog(text_file(tmp_path, "a\tb\tc\n1\tx,y\t2.5\n", "c.tsv"), columns=["c", "a"]).table()
    assert table.to_pydict() == {"c": [2.5], "a": [1]}


def test_rows_of_quoted_lines(tmp_path):
    table = open_catalog(text_file(tmp_path, 'a,"two\nlines"\n1,"x\ny"\n2,z\n')).table()
    assert table.to_pydict() == {"a": [1, 2], "two\nlines": ["x\ny", "z"]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "has no header"),
        (b"a,b\n1,2\n3\n", "row 2 has 1 fields, the header has 2"),
        (b"#Table1\na,b\n1,2\n1,2\n3,4,5\n", "row 3 has 3 fields, the header has 2"),
        (b"a,b,a\n1,2,3\n", "several columns are named 'a'"),
        (b"\x89PNG\r\n\0\0\0", "is binary, not text"),
        (b"a,b\n1,\xe9\n", r"is not UTF-8 text \(byte 6\)"),
        (b"a,b\n" + b"1,2\n" * 300_000 + b"1,\xe9\n", "column b is not UTF-8 text"),
        (b'a,b\n1,"' + b"x,1\n" * 2_000_000 + b"x", "a quote that is never closed"),
        (b'a,b\n1,2\n1,"2\n3,4\n', "the last row has a quote that is never closed"),
        (gzip.compress(b"a,b\n", mtime=0), "is gzip data; name it c.csv.gz"),
    ],
)
def test_damaged_csv(tmp_path, content, reason):
    path = text_file(tmp_path, content)
    with pytest.raises(UserError, match=rf"c\.csv: .*{reason}") as caught:
        open_catalog(path)
    assert "\n" not in str(caught.value)


def test_damaged_gzip(tmp_path):
    rng = random.Random(1)
    whole = gzip.compress(("a,b\n" + "".join(f"{rng.random()},{rng.random()}\n" for _ in range(100_000))).encode())
    path = tmp_path / "c.csv.gz"
    for content, reason in (
        (b"a,b\n1,2\n", "not a gzip file"),
        (b"<html>no</html>", "not a gzip file .it is an HTML page"),
        (whole[: len(whole) // 2], "cut short"),
        (whole[:-6], "cut short"),
        (whole[:20000] + b"\xff" * 200 + whole[20200:], "cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=reason) as caught:
            open_catalog(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_what_is_asked_for_wrongly(tmp_path):
    path = text_file(tmp_path, "objid,petroMag_r\n1,2\n")
    with pytest.raises(UserError, match=r"no column petromag_r; did you mean petroMag_r\? \(there are: objid, petro"):
        open_catalog(path, ["petromag_r"])
    with pytest.raises(UserError, match="no column is asked for"):
        open_catalog(path, [])
    with pytest.raises(UserError, match="there is no folder"):
        write_csv(tmp_path / "no" / "t.csv.gz", [], pa.schema({"a": pa.int8()}))
    with pytest.raises(UserError, match="No such file"):
        open_catalog(tmp_path / "no.csv")
    with pytest.raises(UserError, match=r"unknown kind of catalogue \(known: .csv"):
        open_catalog(tmp_path / "no.docx")
    with pytest.raises(ValueError, match="0 rows"):
        next(open_catalog(path).batches(0))


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path):
    path = text_file(tmp_path, "a\n1\n2\n")
    table = open_catalog(path)
    path.write_text("a\n1\n")
    with pytest.raises(UserError, match="had 2 rows when it was opened and has 1 now"):
        table.table()
    path.write_text("a\n1\nx\n")
    with pytest.raises(UserError, match=r"c\.csv: "):
        table.table()


def test_a_reader_may_stop_early(tmp_path):
    path = text_file(tmp_path, "a,b\n" + "1,2\n" * 2_000_000, "c.csv.gz")
    table = open_catalog(path)
    for _ in range(3):
        batches = table.batches(10)
        assert next(batches).num_rows == 10
        batches.close()


# --- Reading FITS, VOTable and Parquet -------------------------------------------------------------------------------


def fits_table() -> fits.BinTableHDU:
    n = 5
    return fits.BinTableHDU.from_columns(
        [
            fits.Column("objid", "K", array=np.arange(n) + OBJID),
            fits.Column("holes", "K", array=[1, -99, 3, -99, OBJID], null=-99),
            fits.Column("u8", "B", array=np.arange(n, dtype=np.uint8), unit="adu"),
            fits.Column("i8", "B", bzero=-128, array=np.array([-128, -1, 0, 1, 127], np.int8)),
            fits.Column("u16", "I", bzero=2**15, array=np.array([0, 1, 2, 3, 65535], np.uint16)),
            fits.Column("u32", "J", bzero=2**31, array=np.array([0, 1, 2, 3, 2**32 - 1], np.uint32)),
            fits.Column("u64", "K", bzero=2**63, array=np.array([0, 1, 2, 3, 2**64 - 1], np.uint64)),
            fits.Column("ra", "D", array=[0.1, math.nan, 2, 3, 4], unit="deg"),
            fits.Column("mag", "E", array=[0.1, math.nan, 2, 3, 4]),
            fits.Column("flux", "5E", array=np.arange(5 * n, dtype=np.float32).reshape(n, 5)),
            fits.Column("clean", "L", array=[True, False, True, False, True]),
            fits.Column("name", "6A", array=["a", " b ", "", "long", "x y"]),
            fits.Column("scaled", "E", bscale=0.5, bzero=10, array=np.array([10, 10.5, 11, 12, 13])),
            fits.Column("bits", "11X", array=np.ones((n, 11), bool)),
            fits.Column("wave", "M", array=np.ones(n, complex)),
            fits.Column("list", "PJ()", array=np.array([np.arange(k) for k in range(n)], object)),
            fits.Column("last", "I", array=np.arange(n)),
        ]
    )


@pytest.mark.parametrize("name", ["t.fits", "t.fits.gz"])
def test_fits_tables_of_every_type(tmp_path, name):
    image = fits.ImageHDU(np.zeros((3, 3000), np.float32))
    fits.HDUList([fits.PrimaryHDU(np.zeros(7, np.int16)), image, fits_table()]).writeto(tmp_path / name)
    found, reference = open_catalog(tmp_path / name), fits.getdata(tmp_path / name, 2)
    assert found.rows == 5
    assert [note.split()[1] for note in found.notes] == ["bits", "wave", "list"]
    assert found.schema.field("ra").metadata == {b"unit": b"deg"}
    table = found.table()
    for column, kind in (
        ("objid", "int64"),
        ("u8", "uint8"),
        ("i8", "int8"),
        ("u16", "uint16"),
        ("u32", "uint32"),
        ("u64", "uint64"),
        ("ra", "float64"),
        ("mag", "float32"),
        ("last", "int16"),
    ):
        wanted = reference[column]
        values = table[column].to_numpy()
        assert values.dtype == kind and np.array_equal(values, wanted, equal_nan=wanted.dtype.kind == "f")
        assert column == "i8" or wanted.dtype.newbyteorder("=") == kind  # astropy widens int8 to float64
    assert table["holes"].to_pylist() == [1, None, 3, None, OBJID]
    assert table["flux"].type == pa.list_(pa.float32(), 5) and table["flux"][4].as_py() == [20, 21, 22, 23, 24]
    assert table["clean"].to_pylist() == [True, False, True, False, True]
    assert table["name"].to_pylist() == ["a", " b", "", "long", "x y"]
    assert table["scaled"].to_pylist() == [10, 10.5, 11, 12, 13]
    few = open_catalog(tmp_path / name, ["last", "objid"])
    assert [batch.to_pylist() for batch in few.batches(2)][2] == [{"last": 4, "objid": OBJID + 4}]


def test_damaged_fits(tmp_path):
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(Table({"a": np.arange(5000)}))]).writeto(buffer)
    whole = buffer.getvalue()
    empty = io.BytesIO()
    fits.PrimaryHDU().writeto(empty)
    for name, content, reason in (
        ("t.fits", whole[:20000], "cut short in row 1781 of 5000"),
        ("t.fits", empty.getvalue(), "has no binary table"),
        ("t.fits", b"not FITS at all" * 500, "not readable as FITS"),
        ("t.fits", whole.replace(b"'K       '", b"'W       '"), "column a has the format 'W', which is not FITS"),
        ("t.fits", whole.replace(b"TFIELDS ", b"NOFIELDS"), "not readable as FITS"),
        ("t.fits.gz", whole, "not a gzip file"),
        ("t.fits.gz", gzip.compress(whole)[:5000], "cut short"),
        ("t.fits.gz", gzip.compress(whole)[:100], "cut short"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=reason) as caught:
            open_catalog(path).table()
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def votable_bytes() -> bytes:
    buffer = io.BytesIO()
    Table({"objid": [OBJID, 2], "ra": [1.5, 2.5]}).write(buffer, format="votable")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["t.vot", "t.xml", "t.vot.gz"])
def test_votables(tmp_path, name):
    path = text_file(tmp_path, votable_bytes(), name)
    table = open_catalog(path, ["objid"])
    assert (table.rows, table.table().to_pydict()) == (2, {"objid": [OBJID, 2]})
    assert table.table()["objid"].type == pa.int64()
    assert len(list(table.batches(1))) == 2
    table = open_catalog(path).table()
    assert table.to_pydict() == {"objid": [OBJID, 2], "ra": [1.5, 2.5]}

    overflow = votable_bytes().replace(b"<TABLE", b'<INFO name="QUERY_STATUS" value="OVERFLOW"/><TABLE', 1)
    with pytest.raises(UserError, match="rows are missing"):
        open_catalog(text_file(tmp_path, overflow, name))
    for bad in (b"<html>", votable_bytes()[:-20], b"\x1f\x8b\x08 is no gzip"):
        with pytest.raises(UserError, match=rf"{name}: not (a )?whole"):
            open_catalog(text_file(tmp_path, bad, name))


def test_several_parquet_files(tmp_path):
    paths = [tmp_path / f"{n}.parquet" for n in range(3)]
    for n, path in enumerate(paths):
        table = pa.table({"objid": np.arange(n, n + 4), "ra": np.full(4, 0.5)})
        assert write_parquet(path, table.to_batches(), table.schema) == 4
    found = open_catalog(paths, ["ra", "objid"])
    assert found.rows == 12 and found.schema.names == ["ra", "objid"]
    assert found.table()["objid"].to_pylist() == [0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5]
    assert open_catalog(paths[0]).rows == 4 and max(batch.num_rows for batch in found.batches(3)) == 3
    parquet.write_table(pa.table({"objid": [1.5], "ra": [0.5]}), paths[1])
    with pytest.raises(UserError, match=r"1\.parquet: its columns differ .*objid is int64 and double"):
        open_catalog(paths)
    paths[1].write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"1\.parquet: cannot be read"):
        open_catalog(paths)
    with pytest.raises(UserError, match="no Parquet file"):
        open_catalog([])


def test_parquet_gz_is_known_by_its_bytes(tmp_path):
    """People call gzipped columns so; others gzip the file."""
    table = pa.table({"objid": np.arange(200_000), "FITS_ID": np.arange(200_000).astype(str)})
    columns, whole = tmp_path / "columns.parquet.gz", tmp_path / "whole.parquet.gz"
    parquet.write_table(table, columns, compression="gzip")
    whole.write_bytes(gzip.compress(columns.read_bytes(), 1))
    for path in (columns, whole):
        found = open_catalog(path, ["FITS_ID", "objid"])
        assert found.path == str(path) and found.rows == 200_000 and found.schema.names == ["FITS_ID", "objid"]
        assert found.table() == table.select(["FITS_ID", "objid"]) and found.table()["objid"][-1].as_py() == 199_999
        one, other = found.batches(1000), found.batches(7)  # at the same time
        assert next(one)["objid"].to_pylist() == list(range(1000)) and next(other)["objid"].to_pylist() == list(range(7))
        assert column_names(path) == ["objid", "FITS_ID"]


def test_what_was_unpacked_is_not_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    found = open_catalog(tmp_path / "a.parquet.gz")
    assert len(list((tmp_path / "temporary").iterdir())) == 1 and found.table()["a"].to_pylist() == [1]
    del found
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda good: gzip.compress(good)[:-30], "gzip data are cut short"),
        (lambda good: gzip.compress(good[:-30]), "cannot be read"),
        (lambda good: good[:-30], "cannot be read"),
        (lambda good: b"<html><body>no</body></html>", "not a gzip file .it is an HTML page"),
        (lambda good: b"", "the file is empty"),
    ],
)
def test_damaged_parquet_gz(tmp_path, damage, said):
    parquet.write_table(pa.table({"a": np.arange(1000)}), tmp_path / "a.parquet")
    path = tmp_path / "bad.parquet.gz"
    path.write_bytes(damage((tmp_path / "a.parquet").read_bytes()))
    with pytest.raises(UserError, match=rf"bad\.parquet\.gz: {said}"):
        open_catalog(path)


# --- Cuts ------------------------------------------------------------------------------------------------------------


def passing(cut: Cut, **columns) -> list[int]:
    """Numbers of the rows that a cut keeps."""
    table = pa.table({**columns, "row": range(len(next(iter(columns.values()))))})
    return [n for batch in cuts.apply([cut], table.to_batches(), Counts()) for n in batch["row"].to_pylist()]


def test_ready_made_cuts():
    odd = [18.0, None, math.nan, math.inf, -9999, 0.0, 40.0, 39.9]
    assert passing(cuts.valid_magnitudes(["u"]), u=odd) == [0, 7]
    assert passing(cuts.valid_magnitudes(["u", "g"], faint=20), u=[18.0, 18, 21], g=[18.0, None, 18]) == [0]
    assert passing(cuts.max_error(["e"], 0.1), e=[0.1, 0.0, -1, 0.11, math.nan, None]) == [0, 1]
    assert passing(cuts.positive("r"), r=[1e-9, 0.0, -1, math.nan, None, math.inf]) == [0]
    assert passing(cuts.equals("clean", 1), clean=[1, 0, None]) == [0]
    assert passing(cuts.equals("clean", True), clean=[True, False, None]) == [0]
    assert passing(cuts.equals("kind", "spiral"), kind=["spiral", "", None]) == [0]
    assert passing(cuts.equals("id", OBJID), id=[OBJID, OBJID - 1]) == [0]
    assert passing(cuts.equals("k", "a"), k=pa.array(["a", "b"]).dictionary_encode()) == [0]
    assert passing(cuts.equals("u", 2**64 - 1), u=pa.array([2**64 - 1, 1], pa.uint64())) == [0]
    assert passing(cuts.equals("u", -9999), u=pa.array([1], pa.uint8())) == []
    assert passing(cuts.equals("u", 1.5), u=[1, 2]) == []
    assert passing(cuts.max_error(["e"], 0.1), e=pa.array([0.1, 0.2], pa.float32())) == [0]
    assert passing(cuts.positive("u"), u=pa.array([2**64 - 1, 0], pa.uint64())) == [0]
    assert passing(cuts.at_least(["s", "e"], 0.8), s=[0.8, None, 0.1, math.nan], e=[0.1, 0.9, 0.2, 0.9]) == [0, 1, 3]
    assert passing(cuts.at_least(["s", "e"], 0.8, every=True), s=[0.8, None, 0.9], e=[0.1, 0.9, 0.8]) == [2]
    assert passing(cuts.on_sky(), ra=[0.0, 360, 361, -1, 5, math.nan], dec=[-90.0, 90, 0, 0, 91, 0]) == [0, 1]
    assert passing(cuts.unique("id"), id=[5, 5, None, 6, None]) == [0, 3]
    assert passing(cuts.unique("id"), id=np.array([2**64 - 1, 2**63, 2**64 - 1], np.uint64)) == [0, 1]


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (cuts.positive("rr"), "no column rr"),
        (cuts.positive("word"), "column word is string, not a number.*'a'"),
        (cuts.equals("word", 1), "column word is string and cannot equal 1"),
        (cuts.equals("r", "1"), "column r is double and cannot equal '1'"),
        (cuts.unique("r"), "column r is double; only integers"),
    ],
)
def test_cuts_on_unfit_columns(cut, reason):
    with pytest.raises(UserError, match=reason):
        passing(cut, r=[1.5], word=["a"])
    with pytest.raises(ValueError, match="no column"):
        cuts.positive("r") and cuts.at_least([], 1)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-20, 20), max_size=60), max_size=12))
def test_unique_keeps_the_first_of_each(blocks):
    cut, counts = cuts.unique("id"), Counts()
    batches = [pa.record_batch({"id": pa.array(block, pa.int64())}) for block in blocks]
    kept = [n for batch in cuts.apply([cut], batches, counts) for n in batch["id"].to_pylist()]
    assert kept == list(dict.fromkeys(n for block in blocks for n in block))


def test_unique_is_thrifty():
    seen = cuts._SeenIntegers()
    rng = np.random.default_rng(0)
    for _ in range(50):
        seen.add(rng.integers(-(2**63), 2**63, 10_000))
    assert sum(run.nbytes for run in seen._runs) <= 8 * 500_000 and len(seen._runs) < 12


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 9))), max_size=80),
    st.integers(1, 20),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=4),
)
def test_each_row_is_counted_at_the_first_cut_that_removes_it(rows, size, limits):
    table = pa.table({"a": pa.array([a for a, _ in rows], pa.int64()), "b": pa.array([b for _, b in rows], pa.int64())})
    chosen = [cuts.at_least([name], limit) for name, limit in limits]
    counts = Counts()
    kept = sum(batch.num_rows for batch in cuts.apply(chosen, table.to_batches(max_chunksize=size), counts))
    left, removed = [dict(zip("ab", row, strict=True)) for row in rows], []
    for name, limit in limits:
        stays = [row for row in left if row[name] is not None and row[name] >= limit]
        removed.append(len(left) - len(stays))
        left = stays
    assert (counts.rows, [cut.rows for cut in counts.cuts], counts.left, kept) == (len(rows), removed, len(left), len(left))
    assert Counts.from_json(counts.to_json()) == counts


def some_counts() -> Counts:
    counts = Counts()
    table = pa.table({"r": np.arange(-500.0, 1500), "id": np.arange(2000) // 2})
    list(cuts.apply([cuts.positive("r"), cuts.unique("id")], table.to_batches(), counts))
    return counts


def test_counts_as_table_figure_and_json():
    counts = some_counts()
    console = Console(width=100, file=io.StringIO())
    console.print(counts.table())
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines[1] == ["read", "2,000", "100.0"]
    assert lines[2] == ["r", ">", "0", "501", "1,499", "75.0", "r", ">", "0"]
    assert counts.to_json()[2] == {
        "name": "unique id",
        "description": "id not in an earlier row",
        "removed": 749,
        "left": 750,
    }
    figure = counts.figure()
    figure.savefig(io.BytesIO(), format="png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["2,000", "1,499", "750"]
    Counts().figure().savefig(io.BytesIO(), format="png")
    Console(file=io.StringIO()).print(Counts().table())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda steps: steps.clear(),
        lambda steps: steps[1].update(left=0),
        lambda steps: steps[1].update(removed=-1),
        lambda steps: steps[1].update(removed="x"),
        lambda steps: steps[1].pop("name"),
        lambda steps: steps.append(5),
    ],
)
def test_counts_that_do_not_add_up(spoil):
    steps = some_counts().to_json()
    spoil(steps)
    with pytest.raises(ValueError, match="count"):
        Counts.from_json(steps)


def test_cuts_that_are_wrong_themselves():
    table = pa.table({"a": [1, 2]})
    for keep, reason in ((lambda b: np.array([True]), "gave 1 bool for 2 rows"), (lambda b: b["a"], "gave 2 int64")):
        with pytest.raises(TypeError, match=reason):
            list(cuts.apply([Cut("odd", "", keep)], table.to_batches(), Counts()))
    with pytest.raises(ValueError, match="of other cuts"):
        cuts.apply([cuts.positive("a")], table.to_batches(), some_counts())
    by_numpy = Cut("second", "", lambda b: np.asarray(b["a"]) == 2)
    assert next(cuts.apply([by_numpy], table.to_batches(), Counts()))["a"].to_pylist() == [2]


# --- Writing ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.none(), INT64),
            st.one_of(st.none(), st.floats()),
            st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"))),
            st.one_of(st.none(), st.integers(0, 2**64 - 1)),
            st.one_of(st.none(), st.floats(width=32)),
        )
    )
)
def test_what_is_written_comes_back(tmp_path_factory, rows):
    # The last row keeps each column what it is.
    columns = zip(*rows, (OBJID, 0.5, "word", 2**64 - 1, 0.5), strict=True)
    types = (pa.int64(), pa.float64(), pa.string(), pa.uint64(), pa.float32())
    table = pa.table([pa.array(values, kind) for values, kind in zip(columns, types, strict=True)], list("abcde"))
    found = open_catalog(written(tmp_path_factory.mktemp("csv") / "t.csv.gz", table, 7))
    assert found.schema.types[:4] == list(types[:4])
    back = found.table()
    for name in "abcd":
        assert same(back[name].to_pylist(), table[name].to_pylist())
    assert same(back["e"].cast(pa.float32(), safe=False).to_pylist(), table["e"].to_pylist())


def test_the_text_of_a_file(tmp_path):
    table = pa.table(
        {
            "id": [OBJID, None, 3],
            "x": [1.0, math.nan, -0.0],
            "y": [math.inf, None, 1e-7],
            "f": pa.array([0.1, 16777216, None], pa.float32()),
            "ok": [True, False, None],
            "k": pa.array(["a", "b", "a"]).dictionary_encode(),
            "h": pa.array([0.5, None, 2], pa.float16()),
            'na"me': ["a,b", 'say "x"', "null"],
            "w": ["", None, "plain text"],
        }
    )
    path = written(tmp_path / "t.csv.gz", table)
    assert gzip.decompress(path.read_bytes()).decode().split("\n") == [
        'id,x,y,f,ok,k,h,"na""me",w',
        f'{OBJID},1.0,1e999,0.1,1,a,0.5,"a,b",""',
        ',nan,,16777216.0,0,b,,"say ""x""",',
        '3,-0.0,1e-7,,,a,2.0,"null",plain text',
        "",
    ]
    first = path.read_bytes()
    assert first == written(tmp_path / "u.csv.gz", table, 2).read_bytes() and first[4:8] == bytes(4)
    assert pd.read_csv(path)["y"][0] == math.inf
    assert sorted(os.listdir(tmp_path)) == ["t.csv.gz", "u.csv.gz"]


def test_one_column_and_no_rows(tmp_path):
    table = pa.table({"#a": pa.array([1, None, 3, None])})
    assert open_catalog(written(tmp_path / "t.csv.gz", table)).table().equals(table)
    assert open_catalog(written(tmp_path / "t.csv.gz", table[:0])).rows == 0


def test_a_failed_write_leaves_what_was_there(tmp_path):
    table = pa.table({"a": [1, 2]})
    path = written(tmp_path / "t.csv.gz", table)

    def batches():
        yield from table.to_batches()
        raise RuntimeError("gone")

    for write in (write_csv, write_parquet):
        with pytest.raises(RuntimeError, match="gone"):
            write(path, batches(), table.schema)
    assert os.listdir(tmp_path) == ["t.csv.gz"] and open_catalog(path).table().equals(table)
    with pytest.raises(UserError, match=r"column a is list.*does not fit into a CSV cell"):
        write_csv(path, [], pa.schema({"a": pa.list_(pa.int8())}))


MEASURE = """
import sys
import pyarrow
from skyset.tables import cuts
from skyset.tables.delimited_writer import write_csv
from skyset.tables.open import open_catalog
table = open_catalog(sys.argv[1])
chosen = [cuts.positive("x0"), cuts.unique("id")]
write_csv(sys.argv[2], cuts.apply(chosen, table.batches(), cuts.Counts()), table.schema)
print(pyarrow.default_memory_pool().max_memory())
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for rows in (150_000, 600_000):  # 16 and 62 MB as numbers, more as text
        columns = {"id": np.arange(rows) + OBJID} | {f"x{n}": np.arange(rows) + 0.5 for n in range(12)}
        path = written(tmp_path / "t.csv.gz", pa.table(columns), 20_000)
        command = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / "o.csv.gz")]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < 50e6 and peaks[1] - peaks[0] < 15e6


# --- Real tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rows"), GZ2)
def test_real_fits_table_equals_astropys_and_comes_back_from_csv(tmp_path, real, name, rows):
    wanted = Table.read(real(name))
    found = open_catalog(real(name))
    table = found.table()
    assert (found.rows, len(found.schema), found.notes) == (rows, 228, ())
    for name in wanted.colnames:
        values, reference = table[name].to_numpy(), np.asarray(wanted[name])
        if reference.dtype.kind in "SU":
            assert table[name].to_pylist() == [text.strip() for text in reference.astype(str)]
        else:
            assert values.dtype == reference.dtype.newbyteorder("=")
            assert np.array_equal(values, reference, equal_nan=reference.dtype.kind == "f")
    back = open_catalog(written(tmp_path / "t.csv.gz", table)).table()
    assert back["objid"].type == pa.int64()
    for field in table.schema:
        again = back[field.name].cast(field.type, safe=not pa.types.is_floating(field.type)).to_numpy()
        assert np.array_equal(again, table[field.name].to_numpy(), equal_nan=again.dtype.kind == "f")


@pytest.mark.parametrize(("name", "rows"), GZ2)
def test_cuts_on_a_real_table(tmp_path, real, name, rows):
    found, counts = open_catalog(real(name)), Counts()
    chosen = [cuts.on_sky(), cuts.at_least(["total_votes"], 100), cuts.unique("objid")]
    path = tmp_path / "t.csv.gz"
    left = write_csv(path, cuts.apply(chosen, found.batches(rows // 4), counts), found.schema)
    wanted = Table.read(real(name))
    wanted = wanted[np.asarray(wanted["total_votes"]) >= 100]
    assert 0 < left == counts.left == len(np.unique(wanted["objid"])) < rows
    assert counts.rows == rows and counts.cuts[0].rows == 0
    frame = pd.read_csv(path)
    assert len(frame) == left and set(frame["objid"]) == set(np.asarray(wanted["objid"]).tolist())


@pytest.mark.parametrize("name", ["volunteer_votes_panoptes.csv", "example_ring_catalog_basic.csv"])
def test_real_csv_equals_pandas(real, name):
    table = open_catalog(real(f"gz_decals/{name}")).table()
    wanted = pd.read_csv(real(f"gz_decals/{name}"))
    assert table.num_rows == len(wanted) and table.num_columns == wanted.shape[1]
    for number, column in enumerate(table.columns):
        reference = wanted.iloc[:, number]
        if reference.dtype == bool:
            assert [text == "True" for text in column.to_pylist()] == reference.tolist()
        elif pa.types.is_string(column.type):
            assert column.to_pylist() == [None if pd.isna(value) else value for value in reference]
        else:
            values = column.to_numpy()
            assert values.dtype == reference.dtype and np.array_equal(values, reference, equal_nan=values.dtype.kind == "f")


def test_blanks_after_the_commas_belong_to_nobody(tmp_path):
    (tmp_path / "a.csv").write_text("id, ra, class, n \na, 10.5,  spiral, 1\nb, , , 2\n")
    catalog = open_catalog(tmp_path / "a.csv")
    assert catalog.table().to_pydict() == {"id": ["a", "b"], "ra": [10.5, None], "class": ["spiral", None], "n": [1, 2]}
    assert catalog.schema.types == [pa.string(), pa.float64(), pa.string(), pa.int64()]
    assert column_names(tmp_path / "a.csv") == ["id", "ra", "class", "n"]


def test_blanks_inside_values_stay_where_the_header_has_none(tmp_path):
    (tmp_path / "a.csv").write_text("id,class\na, spiral\n")
    assert open_catalog(tmp_path / "a.csv").table()["class"].to_pylist() == [" spiral"]


def test_csv_is_packed_by_its_name(tmp_path):
    table = pa.table({"a": [1, 2]})
    for name, packed in (("a.csv", False), ("a.csv.gz", True)):
        assert write_csv(tmp_path / name, table.to_batches(), table.schema) == 2
        assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == packed
        assert open_catalog(tmp_path / name).table().equals(table)


@pytest.mark.parametrize("name", ["x.csv", "x.fits", "x.parquet", "x.vot", "x.csv.gz"])
def test_a_named_pipe_is_no_catalogue(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="a named pipe, not a regular file"):
        open_catalog(tmp_path / name)
    with pytest.raises(UserError, match="a named pipe, not a regular file"):
        column_names(tmp_path / name)  # what `skyset crossmatch` asks first


def test_a_fits_header_without_an_end_is_not_read_to_the_end_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("skyset.tables.fits.LONGEST_FITS_HEADER", 288_000)
    header = b"SIMPLE  =                    T".ljust(80) + b"COMMENT x".ljust(80) * 36_000
    (tmp_path / "x.fits").write_bytes(header)
    with pytest.raises(UserError, match="a header without an END in its first 288000 bytes"):
        open_catalog(tmp_path / "x.fits")
