"""VOTables as Arrow tables, value for value: no integer ever passes through a float.

    table = votable_to_arrow(open("answer.vot", "rb"))
    table.schema.field("ra").metadata  # {b"unit": b"deg", b"description": b"Right ascension", ...}

TABLEDATA, BINARY and BINARY2 give the same table, which is why an empty cell is null in every column, text too, and
a NaN as well: not every one of the three can tell these apart. Rows go straight into Arrow, a few thousand at a
time, so that a document of many rows is never a tree in memory.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import html
import os
import re
import struct
import zlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat

import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import SkysetError

ROWS = 8192  # rows that are Python values at a time
TYPES = {
    "boolean": pa.bool_(),
    "unsignedByte": pa.uint8(),
    "short": pa.int16(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "char": pa.string(),
    "unicodeChar": pa.string(),
}
CODES = {"boolean": "c", "unsignedByte": "B", "short": "h", "int": "i", "long": "q", "float": "f", "double": "d"}
TRUTH = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False, "?": None, "": None, "\0": None}
KEPT = ("unit", "ucd", "utype", "xtype", "arraysize")  # attributes of a FIELD that the Arrow field keeps


class VOTableError(SkysetError, ValueError):
    """The document cannot become a table: one line that says why."""


class BrokenVOTable(VOTableError):
    """The document is no VOTable or has lost its end: another copy of it may be whole."""


@dataclass(frozen=True)
class VOTable:
    """A document's first table (None: it has none), its QUERY_STATUS (OK, OVERFLOW, ERROR, "") and the words beside it."""

    table: pa.Table | None
    status: str
    message: str


@dataclass
class Field:
    """A FIELD element: its attributes, and what stands inside it."""

    attributes: dict[str, str]
    null: str | None = None
    description: str = ""

    @property
    def name(self) -> str:
        return self.attributes.get("name") or self.attributes.get("ID", "")

    @property
    def datatype(self) -> str:
        return self.attributes.get("datatype", "")

    @property
    def arraysize(self) -> str:
        size = self.attributes.get("arraysize", "").strip()
        return "" if size == "1" else size

    @property
    def is_text(self) -> bool:
        return self.datatype in ("char", "unicodeChar")

    @property
    def is_list(self) -> bool:
        return bool(self.arraysize) and not self.is_text

    @property
    def length(self) -> int | None:
        """Values in a cell, None if that differs from row to row."""
        size = self.arraysize or "1"
        return int(size) if size.isdigit() else None

    @property
    def arrow(self) -> pa.Field:
        """The Arrow field, always nullable; VOTableError for a type that Arrow has no match for."""
        if self.datatype not in TYPES or not re.fullmatch(r"(\d+|\d*\*)?", self.arraysize):
            shape = f" array {self.arraysize}" if self.arraysize else ""
            raise VOTableError(f"column {self.name}: {self.datatype or 'untyped'}{shape} values are not supported")
        kind = TYPES[self.datatype]
        notes = {key: self.attributes[key] for key in KEPT if self.attributes.get(key)}
        notes |= {"description": self.description} if self.description else {}
        return pa.field(self.name, pa.list_(kind) if self.is_list else kind, metadata=notes or None)


def votable_to_arrow(source: bytes | str | os.PathLike | BinaryIO) -> pa.Table:
    """The first table of a VOTable document, with the service's column names.

    Args:
        source: the document, an open binary file, or a path; gzip is seen by its first bytes.

    Returns:
        All columns nullable: boolean, uint8, int16, int32, int64, float32, float64 or string, lists of these for
        array columns. Unit, description, ucd, utype, xtype and arraysize are metadata of the fields. QUERY_STATUS
        is ``query_status`` in the schema's metadata: with OVERFLOW there, rows are missing.

    Raises:
        BrokenVOTable: not a VOTable, or only the beginning of one.
        VOTableError: no table, an ERROR document, a value that is not of its column's type or does not fit it, a
            type without a match (bit, complex, arrays of several dimensions), data in another file.
    """
    document = read_votable(source)
    if document.status == "ERROR":
        raise VOTableError(document.message or "QUERY_STATUS is ERROR")
    if document.table is None:
        raise VOTableError("the VOTable has no table")
    return document.table.replace_schema_metadata({"query_status": document.status})


def read_votable(source: bytes | str | os.PathLike | BinaryIO) -> VOTable:
    """Like `votable_to_arrow`, but for documents of any status, with or without a table."""
    reader = _Reader()
    try:
        reader.parser.Parse(_bytes(source), True)
    except expat.ExpatError as error:
        raise BrokenVOTable(f"not a whole VOTable: {error}") from error
    return reader.result()


def one_line(text: str, longest: int = 400) -> str:
    """The text in one line of at most `longest` characters."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 4] + " ..."


def readable(body: bytes, longest: int = 400) -> str:
    """What a person reads in plain text, HTML or XML of whatever kind, in one line."""
    text = re.sub(r"(?is)<(script|style|head)\b.*?</\1>|<!--.*?-->", " ", _decoded(body[: 1 << 16]))
    return one_line(html.unescape(re.sub(r"<!\[CDATA\[|\]\]>|<[/?!]?[a-zA-Z][^<>]*>", " ", text)), longest)


def _bytes(source: bytes | str | os.PathLike | BinaryIO) -> bytes:
    """The document, unzipped."""
    if isinstance(source, str | os.PathLike):
        source = Path(source).read_bytes()
    elif not isinstance(source, bytes):
        source = source.read()
    if not source.startswith(b"\x1f\x8b"):
        return source
    try:
        return gzip.decompress(source)
    except (EOFError, OSError, zlib.error) as error:
        raise BrokenVOTable(f"not a whole gzip file: {error}") from error


class _Reader:
    """Handlers for expat: one pass over the document, which keeps the first table and every QUERY_STATUS."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self._text: list[str] = []
        self.parser.CharacterDataHandler = self._text.append
        self._root = ""
        self._tables = 0
        self._info: dict[str, str] | None = None
        self._field: Field | None = None
        self._fields: list[Field] = []
        self._row: list[str] = []
        self._serialisation = ""
        self._rows: _Rows | None = None
        self._statuses: list[tuple[str, str]] = []

    def result(self) -> VOTable:
        """What was found, once all is parsed."""
        if self._root != "VOTABLE":
            raise BrokenVOTable(f"not a VOTable but {self._root or 'nothing'}")
        words = dict(reversed(self._statuses))
        status = next((known for known in ("ERROR", "OVERFLOW") if known in words), next(iter(words), ""))
        if status == "ERROR":
            return VOTable(None, status, words[status])  # whatever rows there are, they are not the answer
        if self._tables and self._rows is None:
            self._rows = self._columns()  # a TABLE without DATA has no rows
        return VOTable(self._rows.table() if self._rows else None, status, words.get(status, ""))

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._text.clear()
        if tag == "TD":
            if attributes.get("encoding"):
                raise VOTableError(f"cells encoded as {attributes['encoding']} are not supported")
            return
        tag = tag.rpartition(":")[2]
        self._root = self._root or tag
        if tag == "TABLE":
            self._tables += 1
        elif tag == "INFO" and attributes.get("name") == "QUERY_STATUS":
            self._info = attributes
        elif self._tables == 1:
            self._start_in_table(tag, attributes)

    def _start_in_table(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "FIELD":
            self._field = Field(attributes)
            self._fields.append(self._field)
        elif tag == "VALUES" and self._field is not None:
            self._field.null = attributes.get("null", self._field.null)
        elif tag in ("TABLEDATA", "BINARY", "BINARY2"):
            self._rows, self._serialisation = self._columns(), tag
        elif tag == "FITS":
            raise VOTableError("the table is a FITS file inside the VOTable, which is not supported")
        elif tag == "STREAM" and (attributes.get("href") or attributes.get("encoding") != "base64"):
            raise VOTableError("the table's data lie outside the VOTable, or not as base64, which is not supported")

    def _end(self, tag: str) -> None:
        if tag == "TD":
            self._row.append("".join(self._text))
            self._text.clear()
            return
        tag = tag.rpartition(":")[2]
        if tag == "TD":
            self._row.append("".join(self._text))
        elif tag == "TR":
            if self._tables == 1 and self._rows is not None:
                self._rows.add_cells(self._row)
            self._row = []
        elif tag == "INFO" and self._info is not None:
            self._end_of_status()
        elif tag == "DESCRIPTION" and self._field is not None:
            self._field.description = " ".join("".join(self._text).split())
        elif tag == "FIELD":
            self._field = None
        elif tag == "STREAM" and self._tables == 1 and self._rows is not None:
            self._rows.add_stream("".join(self._text), self._serialisation == "BINARY2")
        self._text.clear()

    def _end_of_status(self) -> None:
        value, text = self._info.get("value", "").strip(), " ".join("".join(self._text).split())
        self._statuses.append((value.upper(), text))
        self._info = None

    def _columns(self) -> _Rows:
        return _Rows(self._fields)


class _Rows:
    """Collects rows, and turns them into Arrow whenever there are `ROWS` of them."""

    def __init__(self, fields: Sequence[Field]) -> None:
        names = [field.name for field in fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise VOTableError(f"two columns are called {twice[0]}: rename one in the query (AS)")
        self.fields = list(fields)
        self.schema = pa.schema([field.arrow for field in fields])
        self._rows: list[Sequence] = []
        self._of_text = True
        self._batches: list[pa.RecordBatch] = []

    def table(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self._batches, self.schema)

    def add_cells(self, cells: list[str]) -> None:
        """One row of TABLEDATA."""
        if len(cells) != len(self.fields):
            raise BrokenVOTable(f"a row has {len(cells)} cells, not {len(self.fields)}")
        self._rows.append(cells)
        if len(self._rows) == ROWS:
            self._flush()

    def add_stream(self, text: str, has_mask: bool) -> None:
        """All rows of a BINARY or BINARY2 stream."""
        self._of_text = False
        try:
            data = base64.b64decode(text)
        except binascii.Error as error:
            raise BrokenVOTable(f"not whole base64 data: {error}") from error
        for row in _binary_rows(data, self.fields, has_mask):
            self._rows.append(row)
            if len(self._rows) == ROWS:
                self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        convert = _from_text if self._of_text else _from_values
        columns = []
        for field, kind, values in zip(self.fields, self.schema.types, zip(*self._rows, strict=True), strict=True):
            try:
                columns.append(_without_nulls(convert(values, field, kind), field))
            except (ValueError, OverflowError, pa.ArrowException) as error:
                raise VOTableError(f"column {field.name}: {error}") from error
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        self._rows = []


def _from_text(cells: Sequence[str], field: Field, kind: pa.DataType) -> pa.Array:
    """The cells of one column of TABLEDATA."""
    if field.is_text:
        return pa.array([cell or None for cell in cells], kind)
    if field.is_list:
        return pa.array([_each(cell.split(), field) if cell.strip() else None for cell in cells], kind)
    if field.datatype == "boolean":
        return pa.array(_each(cells, field), kind)
    text = pc.utf8_trim_whitespace(pa.array(cells, pa.string()))
    text = pc.if_else(pc.equal(text, ""), None, text)
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:  # +1, 0x1F and +Inf are numbers too
        return pa.array(_each(cells, field), kind)


def _each(cells: Sequence[str], field: Field) -> list:
    """Python values of the cells, None for empty ones."""
    convert = {"boolean": _truth, "float": float, "double": float}.get(field.datatype, _integer)
    return [convert(cell.strip()) if cell.strip() else None for cell in cells]


def _integer(cell: str) -> int:
    return int(cell, 16) if cell[:2].lower() == "0x" else int(cell)


def _truth(cell: str) -> bool | None:
    try:
        return TRUTH[cell.strip().lower()]
    except KeyError:
        raise ValueError(f"{cell!r} is neither true nor false") from None


def _from_values(values: Sequence, field: Field, kind: pa.DataType) -> pa.Array:
    """The values of one column of a binary stream."""
    return pa.array(values, kind)


def _without_nulls(column: pa.Array, field: Field) -> pa.Array:
    """Null for NaN, and for the number that the column's VALUES element declares to mean null."""
    if field.is_text or field.is_list or field.datatype == "boolean":
        return column
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    if field.null is None or not field.null.strip():
        return column
    text = field.null.strip()
    null = float(text) if pa.types.is_floating(column.type) else _integer(text)
    try:
        return pc.if_else(pc.equal(column, pa.scalar(null, column.type)), None, column)
    except (pa.ArrowInvalid, OverflowError):  # such as -1 for an unsigned byte, which no value can be
        return column


def _binary_rows(data: bytes, fields: Sequence[Field], has_mask: bool) -> Iterator[list]:
    """Rows of a stream; `has_mask` tells that each begins with one bit a column, set for null."""
    decoders = [_decoder(field) for field in fields]
    count = len(fields)
    mask_bytes = (count + 7) // 8 if has_mask else 0
    start, position = -1, 0
    while position < len(data):
        if position == start:
            raise VOTableError("binary data in a table whose rows have no bytes")
        start = position
        mask = int.from_bytes(data[position : position + mask_bytes]) >> (8 * mask_bytes - count) if has_mask else 0
        position += mask_bytes
        row = []
        try:
            for decode in decoders:
                value, position = decode(data, position)
                row.append(value)
        except struct.error as error:
            raise BrokenVOTable(f"the binary data end in the middle of a row: {error}") from error
        if mask:
            row = [None if mask >> (count - 1 - i) & 1 else value for i, value in enumerate(row)]
        yield row


def _decoder(field: Field) -> Callable[[bytes, int], tuple[object, int]]:
    """A function (data, position) -> (value, next position) for the cells of one column."""
    if field.is_text:
        return _text_decoder(field)
    code, length = CODES[field.datatype], field.length
    convert = (lambda byte: _truth(byte.decode("latin-1"))) if code == "c" else (lambda value: value)
    if not field.is_list:
        one = struct.Struct(f">{code}")

        def scalar(data: bytes, position: int) -> tuple[object, int]:
            return convert(one.unpack_from(data, position)[0]), position + one.size

        return scalar

    def several(data: bytes, position: int) -> tuple[object, int]:
        count, position = _count(data, position) if length is None else (length, position)
        values = struct.unpack_from(f">{count}{code}", data, position)
        return [convert(value) for value in values] or None, position + count * struct.calcsize(f">{code}")

    return several


def _text_decoder(field: Field) -> Callable[[bytes, int], tuple[object, int]]:
    width, length = (2, field.length) if field.datatype == "unicodeChar" else (1, field.length)

    def text(data: bytes, position: int) -> tuple[object, int]:
        count, position = _count(data, position) if length is None else (length, position)
        raw = struct.unpack_from(f">{count * width}s", data, position)[0]
        value = raw.decode("utf-16-be", "replace") if width == 2 else _decoded(raw)
        return value.partition("\0")[0] or None, position + count * width

    return text


def _count(data: bytes, position: int) -> tuple[int, int]:
    """The number that stands before a cell of variable length."""
    return struct.unpack_from(">I", data, position)[0], position + 4


def _decoded(raw: bytes) -> str:
    """UTF-8, of which ASCII is a part; older services send Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
