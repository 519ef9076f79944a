"""VOTables as Arrow tables, value for value: no integer ever passes through a float.

    table = votable_to_arrow(open("answer.vot", "rb"))
    table.schema.field("ra").metadata  # {b"unit": b"deg", b"description": b"Right ascension", ...}

TABLEDATA, BINARY and BINARY2 give the same table, which is why an empty cell is null in every column, text too, and
a NaN as well: not every one of the three can distinguish these. Documents are unpacked and parsed as they come, and
rows go straight into Arrow, a few thousand at a time: a document is never a tree in memory, nor whole.

astropy reads the same tables in 1.4 (TABLEDATA) to 2.7 (BINARY2) times the time; what no library does is to read them in
bounded memory, and to refuse numbers beyond their column's range instead of clamping them (40000 as a short to 32767).

Documents come from strangers. What no real one has is refused before it fills the memory: entities of its own,
elements more than `DEEPEST` deep, more than `FIELDS` columns, a tag, text or row of more than `LONGEST` bytes, and gzip
that unpacks to more than `ROOM` bytes and more than `RATIO` times its size.
"""

from __future__ import annotations

import binascii
import html
import itertools
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeGuard
from xml.parsers import expat

import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import SkysetError

ROWS = 8192  # rows that are Python values at a time
PENDING = 32 << 20  # bytes, about, of these rows
OBJECT = 50  # bytes of a Python value, about
CHUNK = 1 << 18  # bytes parsed at a time
ROOM = 64 << 20  # bytes that gzip may unpack to, however few it has itself
RATIO = 200  # unpacked bytes beyond these for each packed one: tables reach 3 to 10, of nothing but nulls some 200
LONGEST = 8 << 20  # bytes of one tag, of one cell or other text, and of one binary row
DEEPEST = 64  # elements inside each other; VOTable has use for a dozen
FIELDS = 10_000  # columns; the widest tables of the archives have some 1,500
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
        return None if self.arraysize.endswith("*") else int(self.arraysize or "1")

    @property
    def arrow(self) -> pa.Field:
        """The Arrow field, always nullable; VOTableError for a type that Arrow has no match for."""
        if self.datatype not in TYPES or not re.fullmatch(r"([0-9]{1,9}|[0-9]*\*)?", self.arraysize):
            shape = f" array {one_line(self.arraysize, 40)}" if self.arraysize else ""
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
        BrokenVOTable: not a VOTable, only the beginning of one, fewer rows than it declares (``nrows``), or base64 with
            other characters in it.
        VOTableError: no table, an ERROR document, a value that is not of its column's type or does not fit it, a
            type without a match (bit, complex, arrays of several dimensions), data in another file, an encoding that
            cannot be read, or more of something than a real document has (see the top of this module).
        OSError: the file cannot be read.
    """
    document = read_votable(source)
    if document.status == "ERROR":
        raise VOTableError(document.message or "QUERY_STATUS is ERROR")
    if document.table is None:
        raise VOTableError("the VOTable has no table")
    return document.table.replace_schema_metadata({"query_status": document.status})


def read_votable(source: bytes | str | os.PathLike | BinaryIO | Iterable[bytes], largest: int | None = None) -> VOTable:
    """Like `votable_to_arrow`, but for documents of any status, with or without a table.

    Args:
        source: the document; also its bytes in pieces, as from `inflated`.
        largest: bytes, unpacked, of a document at most; None for no such limit.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return read_votable(file, largest)
    pieces = pieces_of(source) if isinstance(source, bytes) or _is_file(source) else source
    reader = _Reader()
    parse(reader.parser, inflated(pieces, largest), reader.check)
    return reader.result()


def check_xml(body: bytes) -> None:
    """Refuse what no honest document has, before another parser sees it; VOTableError says what."""
    parser = expat.ParserCreate()
    open_tags: list[str] = []

    def start(tag: str, _) -> None:
        open_tags.append(tag)
        check_depth(len(open_tags))

    parser.StartElementHandler, parser.EndElementHandler = start, lambda _: open_tags.pop()
    parse(parser, [body])


def check_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise VOTableError(f"elements more than {DEEPEST} deep")


def _no_entities(*_) -> None:
    raise VOTableError("the XML has entities of its own, which are not read")


def parse(parser, pieces: Iterable[bytes], check: Callable[[], None] | None = None) -> None:
    """Feed a document to a parser of expat's, and raise whatever is wrong with it as VOTableError.

    Entities, and a tag, comment or processing instruction of more than `LONGEST` bytes are refused; `check` is called
    after every `CHUNK` bytes, to refuse more.
    """
    parser.EntityDeclHandler = parser.SkippedEntityHandler = _no_entities
    fed = 0
    try:
        for piece in pieces:
            for start in range(0, len(piece), CHUNK):
                part = piece[start : start + CHUNK]
                parser.Parse(part, False)
                fed += len(part)
                if fed - max(parser.CurrentByteIndex, 0) > LONGEST:
                    raise VOTableError(f"a tag of more than {LONGEST:,} bytes")
                if check is not None:
                    check()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise BrokenVOTable(f"not whole XML: {error}") from error
    except VOTableError:
        raise
    except (LookupError, ValueError, TypeError) as error:  # Python's codecs, which expat asks about the names of encodings
        raise VOTableError(f"the XML cannot be read: {one_line(str(error), 100)}") from error


def _is_file(source: object) -> TypeGuard[BinaryIO]:
    return hasattr(source, "read")


def pieces_of(source: bytes | BinaryIO) -> Iterator[bytes]:
    """The bytes of a document or file, `CHUNK` at a time."""
    if isinstance(source, bytes):
        yield from (source[start : start + CHUNK] for start in range(0, len(source), CHUNK))
        return
    while piece := source.read(CHUNK):
        yield piece


def inflated(pieces: Iterable[bytes], largest: int | None = None) -> Iterator[bytes]:
    """The pieces, unpacked if they are gzip (by their first bytes), twice if that gives gzip once more.

    Raises:
        BrokenVOTable: the gzip data are damaged or cut short.
        VOTableError: more than `largest` bytes, or, where packed, than `ROOM` and `RATIO` times the packed size.
    """
    packed = 0

    def counted() -> Iterator[bytes]:
        nonlocal packed
        for piece in pieces:
            packed += len(piece)
            yield piece

    size = 0
    for piece in _unpacked(_unpacked(counted())):
        size += len(piece)
        if size > max(ROOM, RATIO * packed):
            raise VOTableError(f"{packed:,} bytes of gzip unpack to more than {max(ROOM, RATIO * packed):,}")
        if largest is not None and size > largest:
            raise VOTableError(f"a document of more than {largest:,} bytes")
        yield piece


def _unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces, or what they hold if they begin as gzip does; several members are one."""
    pieces = iter(pieces)
    head = b""
    while len(head) < 2 and (piece := next(pieces, None)) is not None:
        head += piece
    if not head.startswith(b"\x1f\x8b"):
        yield head
        yield from pieces
        return
    decoder = zlib.decompressobj(31)
    try:
        for piece in itertools.chain([head], pieces):
            while piece:
                if decoder.eof:
                    if not (piece := piece.lstrip(b"\0")):
                        break
                    decoder = zlib.decompressobj(31)
                yield decoder.decompress(piece, CHUNK)
                piece = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    except zlib.error as error:
        raise BrokenVOTable(f"not a whole gzip file: {error}") from error
    if not decoder.eof:
        raise BrokenVOTable("not a whole gzip file: its end is missing")


def one_line(text: str, longest: int = 400) -> str:
    """The text in one line of at most `longest` characters."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 4] + " ..."


def readable(body: bytes, longest: int = 400) -> str:
    """What a person reads in plain text, HTML or XML of whatever kind, in one line."""
    text = re.sub(r"(?is)<(script|style|head)\b.*?</\1>|<!--.*?-->", " ", _decoded(body[: 1 << 16]))
    return one_line(html.unescape(re.sub(r"<!\[CDATA\[|\]\]>|<[/?!]?[a-zA-Z][^<>]*>", " ", text)), longest)


class _Reader:
    """Handlers for expat: one pass over the document, which keeps the first table and every QUERY_STATUS."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self._text: list[str] = []
        self.parser.CharacterDataHandler = self._text.append
        self._depth = 0
        self._root = ""
        self._tables = 0
        self._declared: int | None = None
        self._info: dict[str, str] | None = None
        self._field: Field | None = None
        self._fields: list[Field] = []
        self._row: list[str] = []
        self._rows: _Rows | None = None
        self._stream: _Stream | None = None
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
            self._rows = _Rows(self._fields)  # a TABLE without DATA has no rows
        table = self._rows.table() if self._rows else None
        if table is not None and status != "OVERFLOW" and table.num_rows < (self._declared or 0):
            raise BrokenVOTable(f"{table.num_rows:,} rows of {self._declared:,}")
        return VOTable(table, status, words.get(status, ""))

    def check(self) -> None:
        """Refuse text or a row that grows beyond all measure."""
        if sum(map(len, self._text)) + sum(map(len, self._row)) > LONGEST or len(self._row) > FIELDS:
            raise VOTableError(f"a row of more than {LONGEST:,} characters or {FIELDS:,} cells")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._text.clear()
        self._depth += 1
        check_depth(self._depth)
        if tag == "TD":
            if attributes.get("encoding"):
                raise VOTableError(f"cells encoded as {attributes['encoding']} are not supported")
            return
        tag = tag.rpartition(":")[2]
        self._root = self._root or tag
        if tag == "TABLE":
            self._tables += 1
            if self._tables == 1 and re.fullmatch(r"[0-9]{1,18}", attributes.get("nrows", "").strip()):
                self._declared = int(attributes["nrows"])
        elif tag == "INFO" and attributes.get("name") == "QUERY_STATUS":
            self._info = attributes
        elif self._tables == 1:
            self._start_in_table(tag, attributes)

    def _start_in_table(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "FIELD":
            self._field = Field(attributes)
            self._fields.append(self._field)
            if len(self._fields) > FIELDS:
                raise VOTableError(f"more than {FIELDS:,} columns")
        elif tag == "VALUES" and self._field is not None:
            self._field.null = attributes.get("null", self._field.null)
        elif tag in ("TABLEDATA", "BINARY", "BINARY2"):
            self._rows, self._serialisation = _Rows(self._fields), tag
        elif tag == "FITS":
            raise VOTableError("the table is a FITS file inside the VOTable, which is not supported")
        elif tag == "STREAM" and (attributes.get("href") or attributes.get("encoding") != "base64"):
            raise VOTableError("the table's data lie outside the VOTable, or not as base64, which is not supported")
        elif tag == "STREAM" and self._rows is not None:
            self._stream = _Stream(self._rows, self._serialisation == "BINARY2")
            self.parser.CharacterDataHandler = self._stream.add

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if tag == "TD":
            self._row.append("".join(self._text))
            self._text.clear()
            return
        text, tag = "".join(self._text), tag.rpartition(":")[2]
        self._text.clear()
        if tag == "TD":
            self._row.append(text)
        elif tag == "TR":
            if self._tables == 1 and self._rows is not None:
                self._rows.add_cells(self._row)
            self._row = []
        elif tag == "INFO" and self._info is not None:
            self._statuses.append((self._info.get("value", "").strip().upper(), " ".join(text.split())))
            self._info = None
        elif tag == "DESCRIPTION" and self._field is not None:
            self._field.description = " ".join(text.split())
        elif tag == "FIELD":
            self._field = None
        elif tag == "STREAM" and self._stream is not None:
            self.parser.CharacterDataHandler = self._text.append
            self._stream.end()
            self._stream = None


class _Rows:
    """Collects rows, and turns them into Arrow whenever there are `ROWS` of them."""

    def __init__(self, fields: Sequence[Field]) -> None:
        twice = sorted(name for name, times in Counter(field.name for field in fields).items() if times > 1)
        if twice:
            raise VOTableError(f"two columns are called {twice[0]}: rename one in the query (AS)")
        self.fields = list(fields)
        self.schema = pa.schema([field.arrow for field in fields])
        self._rows: list[Sequence] = []
        self._of_text = True
        self._bytes = 0
        self._batches: list[pa.RecordBatch] = []

    def table(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self._batches, self.schema)

    def add_cells(self, cells: list[str]) -> None:
        """One row of TABLEDATA."""
        if len(cells) != len(self.fields):
            raise BrokenVOTable(f"a row has {len(cells)} cells, not {len(self.fields)}")
        self._add(cells, sum(map(len, cells)))

    def add_values(self, row: list, size: int) -> None:
        """One row of a binary stream, of so many bytes."""
        self._of_text = False
        self._add(row, size)

    def _add(self, row: list, size: int) -> None:
        self._rows.append(row)
        self._bytes += size + OBJECT * len(row)
        if len(self._rows) == ROWS or self._bytes > PENDING:
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
                raise VOTableError(f"column {field.name}: {one_line(str(error), 200)}") from error
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        self._rows, self._bytes = [], 0


class _Stream:
    """The rows of a BINARY or BINARY2 stream, decoded as its base64 comes."""

    def __init__(self, rows: _Rows, has_mask: bool) -> None:
        self.rows = rows
        self._count = len(rows.fields)
        self._mask_bytes = (self._count + 7) // 8 if has_mask else 0
        self._decoders = [_decoder(field) for field in rows.fields]
        self._text, self._data, self._ended = "", bytearray(), False

    def add(self, text: str) -> None:
        """Further characters of the stream."""
        text = self._text + "".join(text.split())
        whole = len(text) // 4 * 4
        self._text = text[whole:]
        if not whole:
            return
        if self._ended:
            raise BrokenVOTable("not whole base64 data: more after their end")
        try:
            self._data += binascii.a2b_base64(text[:whole], strict_mode=True)
        except ValueError as error:  # binascii.Error too; a plain one for what is not ASCII
            raise BrokenVOTable(f"not whole base64 data: {error}") from error
        self._ended = text[whole - 1] == "="
        if len(self._data) > CHUNK:
            self._take(final=False)

    def end(self) -> None:
        """The stream is complete."""
        if self._text:
            raise BrokenVOTable("not whole base64 data: the last characters are missing")
        self._take(final=True)

    def _take(self, final: bool) -> None:
        """Make rows of the bytes so far; the torn one at their end waits for the rest, unless it is `final`."""
        data, position = bytes(self._data), 0
        while position < len(data):
            try:
                row, end = self._row(data, position)
            except struct.error as error:
                if final:
                    raise BrokenVOTable(f"the binary data end in the middle of a row: {error}") from error
                if len(data) - position > LONGEST:
                    raise BrokenVOTable(f"a row of more than {LONGEST:,} bytes") from error
                break
            if end == position:
                raise VOTableError("binary data in a table whose rows have no bytes")
            self.rows.add_values(row, end - position)
            position = end
        del self._data[:position]

    def _row(self, data: bytes, position: int) -> tuple[list, int]:
        """One row, and where the next begins; each of BINARY2 begins with one bit a column, set for null."""
        mask = 0
        if self._mask_bytes:
            if len(data) < position + self._mask_bytes:
                raise struct.error(f"{self._mask_bytes} bytes of a mask are needed")
            mask = int.from_bytes(data[position : position + self._mask_bytes]) >> (8 * self._mask_bytes - self._count)
            position += self._mask_bytes
        row = []
        for decode in self._decoders:
            value, position = decode(data, position)
            row.append(value)
        if mask:
            row = [None if mask >> (self._count - 1 - i) & 1 else value for i, value in enumerate(row)]
        return row, position


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
    kinds: dict[str, Callable] = {"boolean": _truth, "float": float, "double": float}
    convert = kinds.get(field.datatype, _integer)
    return [convert(cell.strip()) if cell.strip() else None for cell in cells]


def _integer(cell: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+|0[xX][0-9a-fA-F]+", cell):  # int() takes 1_000 and the digits of other scripts too
        raise ValueError(f"{one_line(cell, 40)!r} is not a whole number")
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
        count, position = _count(data, position, struct.calcsize(code), length)
        values = struct.unpack_from(f">{count}{code}", data, position)
        return [convert(value) for value in values] or None, position + count * struct.calcsize(f">{code}")

    return several


def _text_decoder(field: Field) -> Callable[[bytes, int], tuple[object, int]]:
    width, length = (2, field.length) if field.datatype == "unicodeChar" else (1, field.length)

    def text(data: bytes, position: int) -> tuple[object, int]:
        count, position = _count(data, position, width, length)
        raw = struct.unpack_from(f">{count * width}s", data, position)[0]
        value = raw.decode("utf-16-be", "replace") if width == 2 else _decoded(raw)
        return value.partition("\0")[0] or None, position + count * width

    return text


def _count(data: bytes, position: int, width: int, length: int | None) -> tuple[int, int]:
    """How many values of `width` bytes a cell has, and where they begin: variable ones have the number before them."""
    if length is None:
        length, position = struct.unpack_from(">I", data, position)[0], position + 4
    if length * width > LONGEST:
        raise BrokenVOTable(f"a cell of {length * width:,} bytes")
    return length, position


def _decoded(raw: bytes) -> str:
    """UTF-8, of which ASCII is a part; older services send Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
