"""VOTables become Arrow tables value for value, or a clear refusal; astropy's own reader and writer are the measure."""

import base64
import gzip
import io
import math
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pytest
from astropy.io.votable import parse
from astropy.io.votable.tree import Field, Resource, TableElement, VOTableFile
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.tables import votable as module
from skyset.tables.votable import BrokenVOTable, VOTableError, check_xml, one_line, read_votable, readable, votable_to_arrow
from skyset.testing.tap import votable

FIRST = 587722984435351614
IDS = st.integers(-(2**63), 2**63 - 1) | st.just(587722984435351614) | st.integers(2**53, 2**53 + 9).map(lambda x: -x)
HEAD = '<?xml version="1.0"?>\n<VOTABLE version="1.{version}"><RESOURCE type="results">'
TAIL = "</RESOURCE></VOTABLE>"


def document(fields: str, rows: str = "", info: str = "", version: int = 4) -> bytes:
    """A VOTable with TABLEDATA; `fields` and `rows` are XML."""
    table = f"<TABLE>{fields}<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE>"
    return f"{HEAD.format(version=version)}{info}{table}{TAIL}".encode()


def column(datatype: str, *cells: str, attributes: str = "", inside: str = "", version: int = 4) -> pa.ChunkedArray:
    """One column of the given cells, read."""
    field = f'<FIELD name="x" datatype="{datatype}" {attributes}>{inside}</FIELD>'
    rows = "".join(f"<TR><TD>{cell}</TD></TR>" for cell in cells)
    return votable_to_arrow(document(field, rows, version=version))["x"]


def written(fields: list[dict], rows: list[tuple], tabledata_format: str) -> bytes:
    """A VOTable as astropy writes it; None is a masked value."""
    file = VOTableFile(version="1.4")
    resource = Resource()
    table = TableElement(file)
    file.resources.append(resource)
    resource.tables.append(table)
    table.fields.extend(Field(file, ID=field["name"], **field) for field in fields)
    table.create_arrays(len(rows))
    for i, row in enumerate(rows):
        table.array[i] = tuple(0 if value is None else value for value in row)
        table.array.mask[i] = tuple(value is None for value in row)
    table.format = tabledata_format
    stream = io.BytesIO()
    file.to_xml(stream)
    return stream.getvalue()


def seen_by_astropy(source) -> dict[str, list]:
    """The first table by astropy's reader, by our rules: masked, NaN and "" are None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = next(parse(source, verify="ignore").iter_tables())
    columns = {}
    for field in table.fields:
        values, masks = table.array[field.ID], np.ma.getmaskarray(table.array[field.ID])
        columns[field.name] = [_plain(value, mask) for value, mask in zip(values.data, masks, strict=True)]
    return columns


def _plain(value, mask):
    if isinstance(value, np.ndarray):
        return np.ma.asarray(value).tolist() or None
    if np.any(mask) or value == "" or (isinstance(value, np.floating) and np.isnan(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("tap_astroquery_1710099405832VAL-result.vot", 2),
        ("tap_astroquery_job_1.vot", 3),
        ("tap_astroquery_result_1.vot.gz", 1),
        ("tap_pyvo_query_overflowstatus.xml", 3),
        ("tap_pyvo_scs_result.xml", 1273),
        ("tap_pyvo_sia_dataset.xml", 2),
        ("tap_pyvo_tap_obscore-image.xml", 10),
    ],
)
def test_real_answers_are_read_as_astropy_reads_them(real, name, rows):
    table = votable_to_arrow(real(f"sdss/{name}"))
    expected = seen_by_astropy(str(real(f"sdss/{name}")))
    assert table.num_rows == rows
    assert table.column_names == list(expected)
    for field in table.schema:
        ours, theirs = table[field.name].to_pylist(), expected[field.name]
        if pa.types.is_list(field.type):  # astropy keeps those of float32 as float64
            ours, theirs = np.float32(ours).tolist(), np.float32(theirs).tolist()
        assert ours == theirs


def test_the_statuses_of_real_answers(real):
    overflow = votable_to_arrow(real("sdss/tap_pyvo_query_overflowstatus.xml"))
    assert overflow.schema.metadata == {b"query_status": b"OVERFLOW"}
    with pytest.raises(VOTableError, match="ERROR"):
        votable_to_arrow(real("sdss/tap_pyvo_query_errorstatus.xml"))


def test_units_and_descriptions_of_a_real_answer(real):
    gaia = votable_to_arrow(real("sdss/tap_astroquery_1710099405832VAL-result.vot"))
    assert gaia["source_id"].to_pylist() == [4583627001381815936, 5348723816842275584]
    assert gaia.schema.field("ref_epoch").metadata[b"unit"] == b"yr"
    assert gaia.schema.field("solution_id").metadata[b"description"] == b"Solution Identifier"


@settings(max_examples=60, deadline=None)
@given(st.lists(IDS | st.none(), max_size=30), st.sampled_from(["TABLEDATA", "BINARY2"]))
def test_any_64_bit_integer_with_nulls_survives(ids, serialisation):
    body = votable([pa.field("objID", pa.int64())], [(value,) for value in ids], serialisation=serialisation)
    assert votable_to_arrow(body)["objID"].to_pylist() == ids
    assert votable_to_arrow(body)["objID"].type == pa.int64()


@pytest.mark.parametrize("tabledata_format", ["tabledata", "binary", "binary2"])
def test_all_types_as_astropy_writes_them(tabledata_format):
    nullable = {"short": -99, "int": -99, "long": -(2**63), "unsignedByte": 255}
    kinds = ["boolean", "unsignedByte", "short", "int", "long", "float", "double"]
    fields = [{"name": kind, "datatype": kind} for kind in kinds]
    fields += [
        {"name": "text", "datatype": "char", "arraysize": "*"},
        {"name": "fixed", "datatype": "char", "arraysize": "5"},
        {"name": "unicode", "datatype": "unicodeChar", "arraysize": "*"},
        {"name": "list", "datatype": "long", "arraysize": "*"},
        {"name": "pair", "datatype": "double", "arraysize": "2"},
    ]
    some, none = np.ma.array([2**62 + 1, -3], mask=[0, 0]), np.ma.array([], int)
    rows = [
        (True, 254, -32768, 2**31 - 1, 587722984435351614, 0.1, -1e300, "a <b> & c", "abc", "Ωα", some, [1, 2]),
        (False, 0, 7, -7, -(2**53) - 1, 1e-30, math.inf, "", "abcde", "", none, [0.25, 4]),
    ]
    body = written(fields, rows, tabledata_format)
    if tabledata_format == "binary":
        for kind, null in nullable.items():
            body = body.replace(f'name="{kind}"/>'.encode(), f'name="{kind}"><VALUES null="{null}"/></FIELD>'.encode())
    table = votable_to_arrow(body)
    expected = seen_by_astropy(io.BytesIO(body))
    assert {name: table[name].to_pylist() for name in table.column_names} == expected
    assert table.schema.types[:7] == [module.TYPES[kind] for kind in kinds]
    assert table.schema.types[7:] == [pa.string()] * 3 + [pa.list_(pa.int64()), pa.list_(pa.float64())]
    assert table["list"].to_pylist() == [[2**62 + 1, -3], None]


@pytest.mark.parametrize("tabledata_format", ["tabledata", "binary2"])
def test_masked_values_are_null(tabledata_format):
    fields = [{"name": kind, "datatype": kind} for kind in ("unsignedByte", "short", "int", "long", "float", "double")]
    body = written(fields, [(None,) * 6, (1, 2, 3, 4, 5.0, 6.0)], tabledata_format)
    assert votable_to_arrow(body).to_pylist() == [
        dict.fromkeys(("unsignedByte", "short", "int", "long", "float", "double")),
        {"unsignedByte": 1, "short": 2, "int": 3, "long": 4, "float": 5.0, "double": 6.0},
    ]


def test_the_declared_null_is_null():
    null = '<VALUES null="-9223372036854775807"/>'
    ids = column("long", "-9223372036854775807", "-9223372036854775806", inside=null)
    assert ids.to_pylist() == [None, -9223372036854775806]
    assert column("double", "-999", "-999.5", inside='<VALUES null="-999"/>').to_pylist() == [None, -999.5]
    assert column("unsignedByte", "255", inside='<VALUES null="-1"/>').to_pylist() == [255]
    assert column("char", "-1", attributes='arraysize="*"', inside='<VALUES null="-1"/>').to_pylist() == ["-1"]


@pytest.mark.parametrize("version", [1, 4])
def test_empty_cells_are_null_in_every_version_and_type(version):
    for datatype in module.TYPES:
        size = 'arraysize="*"' if "har" in datatype else ""
        cells = column(datatype, "", "1", attributes=size, version=version)
        assert cells.null_count == 1 and cells[1].as_py() is not None


def test_numbers_in_all_spellings():
    assert column("int", " 12 ", "+5", "0x1F", "-0").to_pylist() == [12, 5, 31, 0]
    assert column("double", "NaN", "+Inf", "-Inf", "1E3", " .5 ").to_pylist() == [None, math.inf, -math.inf, 1000, 0.5]
    assert column("boolean", "T", "f", "true", "False", "1", "0", "?", " ").to_pylist() == [
        True,
        False,
        True,
        False,
        True,
        False,
        None,
        None,
    ]


def test_text_is_kept():
    cells = column("char", " a  b ", "<![CDATA[<x>&amp;]]>", "1 &lt; 2", "naïve", attributes='arraysize="*"')
    assert cells.to_pylist() == [" a  b ", "<x>&amp;", "1 < 2", "naïve"]
    assert column("char", "T", attributes='arraysize="1"').to_pylist() == ["T"]
    latin = HEAD.replace("?>", ' encoding="ISO-8859-1"?>', 1).format(version=4)
    field = '<TABLE><FIELD name="x" datatype="char" arraysize="*"/><DATA><TABLEDATA><TR><TD>é</TD></TR></TABLEDATA></DATA>'
    assert votable_to_arrow(f"{latin}{field}</TABLE>{TAIL}".encode("latin-1"))["x"].to_pylist() == ["é"]


@pytest.mark.parametrize(
    ("datatype", "cell", "attributes"),
    [
        ("short", "32768", ""),
        ("long", "9223372036854775808", ""),
        ("long", "5.0", ""),
        ("long", "5.877e17", ""),
        ("int", "NaN", ""),
        ("double", "north", ""),
        ("boolean", "maybe", ""),
        ("bit", "1", ""),
        ("floatComplex", "1 2", ""),
        ("int", "1 2", 'arraysize="1x2"'),
    ],
)
def test_what_does_not_fit_is_refused_with_the_column_s_name(datatype, cell, attributes):
    with pytest.raises(VOTableError, match=r"column x: [\w']") as caught:
        column(datatype, cell, attributes=attributes)
    assert not isinstance(caught.value, BrokenVOTable)


def test_other_refusals():
    field = '<FIELD name="x" datatype="int"/>'
    with pytest.raises(VOTableError, match="two columns are called x: rename one"):
        votable_to_arrow(document(field * 2))
    with pytest.raises(VOTableError, match="no table"):
        votable_to_arrow(f"{HEAD.format(version=4)}{TAIL}".encode())
    with pytest.raises(VOTableError, match="no such thing"):
        votable_to_arrow(document(field, info='<INFO name="QUERY_STATUS" value="ERROR">no such thing</INFO>'))
    stream = (
        b'<TABLE><FIELD name="x" datatype="int"/><DATA><BINARY><STREAM href="file:///etc/passwd"/></BINARY></DATA></TABLE>'
    )
    with pytest.raises(VOTableError, match="outside the VOTable"):
        votable_to_arrow(HEAD.format(version=4).encode() + stream + TAIL.encode())
    endless = b'<TABLE><DATA><BINARY><STREAM encoding="base64">AAAA</STREAM></BINARY></DATA></TABLE>'
    with pytest.raises(VOTableError, match="no bytes"):
        votable_to_arrow(HEAD.format(version=4).encode() + endless + TAIL.encode())
    with pytest.raises(BrokenVOTable, match="not a VOTable but html"):
        votable_to_arrow(b"<html><body>Login</body></html>")
    with pytest.raises(BrokenVOTable, match="gzip"):
        votable_to_arrow(gzip.compress(document(field))[:-9])


def test_rows_beyond_one_batch_prefixes_and_a_second_table(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 3)
    for serialisation in ("TABLEDATA", "BINARY2"):
        body = votable([pa.field("x", pa.int32())], [(i,) for i in range(10)], serialisation=serialisation)
        assert votable_to_arrow(body)["x"].to_pylist() == list(range(10))
    text = document('<FIELD name="x" datatype="int"/>', "<TR><TD>1</TD></TR>").decode()
    twice = text.replace("</TABLE>", '</TABLE><TABLE><FIELD name="y" datatype="int"/></TABLE>')
    assert votable_to_arrow(twice.encode()).column_names == ["x"]
    prefixed = text.replace("<VOTABLE", '<v:VOTABLE xmlns:v="http://www.ivoa.net/xml/VOTable/v1.3"')
    for tag in ("RESOURCE", "TABLE", "FIELD", "DATA", "TABLEDATA", "TR", "TD"):
        prefixed = prefixed.replace(f"<{tag} ", f"<v:{tag} ").replace(f"<{tag}>", f"<v:{tag}>")
        prefixed = prefixed.replace(f"</{tag}>", f"</v:{tag}>")
    prefixed = prefixed.replace("</VOTABLE>", "</v:VOTABLE>")
    assert votable_to_arrow(prefixed.encode())["x"].to_pylist() == [1]


@pytest.mark.parametrize("serialisation", ["TABLEDATA", "BINARY2"])
def test_an_answer_cut_anywhere_is_broken(serialisation):
    fields = [pa.field("x", pa.int64()), pa.field("s", pa.string())]
    body = votable(fields, [(1, "one"), (None, None), (3, "three")], True, serialisation).rstrip()
    assert read_votable(body).status == "OVERFLOW"
    for size in range(len(body)):
        with pytest.raises(BrokenVOTable):
            read_votable(body[:size])


def test_a_binary_stream_with_a_torn_row_is_broken():
    body = votable([pa.field("x", pa.int64())], [(1,), (2,)], serialisation="BINARY2")
    for whole, torn in ((b"AAAAAAAAAAABAAAAAAAAAAAC", b"AAAAAAAAAAABAAAAAAAA"), (b"AAAAAAAAAAABAAAAAAAAAAAC", b"AAA")):
        assert whole in body
        with pytest.raises(BrokenVOTable):
            votable_to_arrow(body.replace(whole, torn))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_documents_never_raise_anything_else(data):
    fields = [pa.field("x", pa.int64()), pa.field("s", pa.string()), pa.field("f", pa.float32())]
    serialisation = data.draw(st.sampled_from(["TABLEDATA", "BINARY2"]))
    body = bytearray(votable(fields, [(1, "one", 0.5), (None, None, None)], True, serialisation))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
    try:
        read_votable(bytes(body))
    except VOTableError as error:
        assert "\n" not in str(error)


def test_one_line_shows_what_a_person_reads():
    page = b"<html><head><title>x</title></head><body><h1>500&nbsp;Oops</h1>\n<p>It <b>broke</b>: a < b</p></body></html>"
    assert readable(page) == "500 Oops It broke : a < b"
    assert one_line("a\n\tb " * 300, 20).endswith(" ...") and len(one_line("ab " * 300, 20)) == 20


FIELD = '<FIELD name="x" datatype="int"/>'

FIELDS_OF_MEGABYTES = "".join(f'<FIELD name="x{i}" datatype="short" arraysize="1000000"/>' for i in range(6))


def stream(text: str, fields: str = FIELD, kind: str = "BINARY", attributes: str = "") -> bytes:
    """A VOTable whose table is this base64."""
    data = f'<{kind}><STREAM encoding="base64">{text}</STREAM></{kind}>'
    return f"{HEAD.format(version=4)}<TABLE{attributes}>{fields}<DATA>{data}</DATA></TABLE>{TAIL}".encode()


def packed(pieces: Iterable[bytes]) -> bytes:
    """The pieces as gzip, which is small whatever they are."""
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(map(made.compress, pieces)) + made.flush()


def test_base64_with_anything_wrong_is_broken_and_never_a_shorter_table():
    rows = base64.b64encode(struct.pack(">8i", *range(1, 9))).decode()
    for whole in (rows, "\n".join([rows[:10], f"  {rows[10:31]}\t", rows[31:]]), f"\r\n{rows}\n"):
        assert votable_to_arrow(stream(whole))["x"].to_pylist() == list(range(1, 9))
    damaged = ["!" * 16 + rows[16:], rows[:16] + "\ufffd" * 16 + rows[32:], rows[:20] + "-_-_" + rows[24:]]
    damaged += [rows[:-1], rows[:8] + "A" + rows[8:], rows[:8] + "====" + rows[8:], rows[:8] + rows[9:], rows + "="]
    damaged += [rows + "AA", rows[:22] + "==" + rows[24:], "@@@@!!!!", rows + "!"]
    for text in damaged:
        with pytest.raises(BrokenVOTable, match=r"base64|middle of a row"):
            votable_to_arrow(stream(text))


@pytest.mark.parametrize("step", [1, 5, 4096])
def test_a_stream_is_decoded_as_it_comes(monkeypatch, step):
    monkeypatch.setattr(module, "CHUNK", step)
    fields = [pa.field("x", pa.int64()), pa.field("s", pa.string()), pa.field("b", pa.bool_())]
    rows = [(FIRST + i if i % 3 else None, "é" * (i % 7), bool(i % 2)) for i in range(40)]
    expected = [FIRST + i if i % 3 else None for i in range(40)]
    for serialisation in ("BINARY2", "TABLEDATA"):
        table = read_votable(io.BytesIO(gzip.compress(votable(fields, rows, serialisation=serialisation)))).table
        assert table["x"].to_pylist() == expected
        assert table["s"].to_pylist() == ["é" * (i % 7) or None for i in range(40)]
        assert table["b"].to_pylist() == [bool(i % 2) for i in range(40)]


def test_fewer_rows_than_declared_are_noticed():
    body = document(FIELD, "<TR><TD>1</TD></TR>" * 3)
    overflow = b'</TABLE><INFO name="QUERY_STATUS" value="OVERFLOW"/>'
    for rows in ("3", " 3 ", "2", "", "many", "9" * 5000):
        assert votable_to_arrow(body.replace(b"<TABLE>", f'<TABLE nrows="{rows}">'.encode())).num_rows == 3
    with pytest.raises(BrokenVOTable, match="3 rows of 4"):
        votable_to_arrow(body.replace(b"<TABLE>", b'<TABLE nrows="4">'))
    with pytest.raises(BrokenVOTable, match="1 rows of 2"):
        votable_to_arrow(stream("AAAAAA==", kind="BINARY", attributes=' nrows="2"'))
    cut = body.replace(b"<TABLE>", b'<TABLE nrows="4">').replace(b"</TABLE>", overflow)
    assert read_votable(cut).status == "OVERFLOW"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda: packed([b"<VOTABLE>", *[b" " * (1 << 20)] * 300]), "8,388,608 characters"),
        (lambda: packed([b"<VOTABLE>", *[b"<!-- -->" * (1 << 17)] * 300]), "of gzip unpack to more than"),
        (lambda: packed([packed([b"<VOTABLE>", *[b"<!-- -->" * (1 << 17)] * 300])]), "of gzip unpack to more than"),
        (lambda: packed([b"<VOTABLE ", b"a" * (30 << 20)]), "a tag of more than"),
        (lambda: packed([b"<VOTABLE a='", b"a" * (30 << 20)]), "a tag of more than"),
        (lambda: packed([b"<VOTABLE><!--", b"a" * (30 << 20)]), "a tag of more than"),
        (lambda: packed([b"<VOTABLE>", b"<a>" * 100_000]), "64 deep"),
        (lambda: packed([b"<VOTABLE><TABLE>", *(b'<FIELD name="f%d"/>' % i for i in range(100_000))]), "10,000 columns"),
        (lambda: document(FIELD, "<TR><TD>" + "1" * (30 << 20)), "8,388,608 characters"),
        (lambda: document(FIELD, "<TR>" + "<TD/>" * (1 << 20)), "10,000 cells|not 1"),
        (lambda: stream("AAAA", '<FIELD name="x" datatype="double" arraysize="2000000"/>'), "a cell of 16,000,000 bytes"),
        (lambda: stream("AAAA" * (4 << 20), FIELDS_OF_MEGABYTES), "a row of more than 8,388,608 bytes"),
        (lambda: stream("/////w==", '<FIELD name="x" datatype="double" arraysize="*"/>'), "a cell of 34,359,738,360 bytes"),
        (lambda: stream("AAAA", FIELD.replace("/", ' arraysize="1000000000000000000"/')), "values are not supported"),
    ],
)
def test_documents_that_grow_are_refused_in_little_memory(body, words):
    body = body()
    tracemalloc.start()
    try:
        with pytest.raises(VOTableError, match=words):
            read_votable(body)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_what_real_services_send_is_within_the_limits(monkeypatch):
    """Packed best of all real tables: an id, and 29 columns that are the same in every row."""
    monkeypatch.setattr(module, "ROOM", 1 << 16)
    fields = [pa.field("id", pa.int64()), *(pa.field(f"x{i}", pa.float64()) for i in range(29))]
    rows = [(i, *[0.0] * 29) for i in range(20_000)]
    for serialisation in ("TABLEDATA", "BINARY2"):
        body = votable(fields, rows, serialisation=serialisation)
        sent = gzip.compress(body)
        assert len(body) > 60 * len(sent)
        assert votable_to_arrow(sent)["id"].to_pylist() == list(range(20_000))


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE v [<!ENTITY x "y">]><VOTABLE>&x;</VOTABLE>',
        '<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><VOTABLE>&x;</VOTABLE>',
        '<!DOCTYPE v [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><VOTABLE/>',
        '<!DOCTYPE v SYSTEM "http://127.0.0.1:9/x.dtd"><VOTABLE><TABLE><FIELD name="x" datatype="int"/><DATA><TABLEDATA>'
        "<TR><TD>1&x;</TD></TR></TABLEDATA></DATA></TABLE></VOTABLE>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_in_every_encoding(text, encoding):
    for read in (read_votable, check_xml):
        with pytest.raises(VOTableError, match="entities"):
            read(text.encode(encoding))


def test_a_document_type_alone_is_harmless():
    """As documents of VOTable 1.0 have it; it is not fetched."""
    text = document(FIELD, "<TR><TD>1</TD></TR>").decode()
    text = text.replace("?>", '?><!DOCTYPE VOTABLE SYSTEM "http://127.0.0.1:9/VOTable.dtd">')
    assert votable_to_arrow(text.encode())["x"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("declared", "encoding", "expected"),
    [
        ("UTF-8", "utf-8-sig", "é"),
        ("UTF-16", "utf-16", "é"),
        ("ISO-8859-1", "latin-1", "é"),
        ("windows-1252", "cp1252", "é"),
        ("UTF-8", "latin-1", None),
        ("UTF-16", "utf-8", None),
        ("UTF-8", "utf-16-le", None),
        ("utf-7", "utf-7", None),
        ("bz2_codec", "utf-8", None),
        ("rot13", "utf-8", None),
        ("unicode_escape", "utf-8", None),
        ("klingon", "utf-8", None),
        ("x" * 5000, "utf-8", None),
        ("gbk", "gbk", None),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_encodings_are_read_or_refused_in_one_line(declared, encoding, expected):
    field = '<FIELD name="x" datatype="unicodeChar" arraysize="*"/>'
    text = document(field, "<TR><TD>é</TD></TR>").decode().replace("?>", f' encoding="{declared}"?>')
    if expected:
        assert votable_to_arrow(text.encode(encoding))["x"].to_pylist() == [expected]
        return
    try:
        assert votable_to_arrow(text.encode(encoding))["x"].to_pylist() != ["é"]
    except VOTableError as error:
        assert "\n" not in str(error) and len(str(error)) < 200


@pytest.mark.parametrize("digits", ["9" * 5000, "-" + "9" * 5000, "0x" + "f" * 5000, "1_000", "٣", "²", "1" * 30])
def test_numbers_that_are_none_are_one_short_line(digits):
    bodies = [document(FIELD, f"<TR><TD>{digits}</TD></TR>")]
    bodies += [document(f'<FIELD name="x" datatype="int" arraysize="{digits}"/>', "<TR><TD>1</TD></TR>")]
    if not digits.startswith("1" * 30):  # a null that no int can be is never met
        bodies += [document(f'<FIELD name="x" datatype="int"><VALUES null="{digits}"/></FIELD>', "<TR><TD>1</TD></TR>")]
    for body in bodies:
        try:
            assert votable_to_arrow(body)["x"].to_pylist() == [1]  # a null beyond all ints
        except VOTableError as error:
            assert "column x" in str(error) and "\n" not in str(error) and len(str(error)) < 300
        else:
            assert b"null" in body
