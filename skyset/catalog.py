"""Catalogues of any length: read from what archives hand out, with numbers as `skyset.numbers` has them, and write.

Rows come and go in Arrow record batches, so that memory does not grow with the file, and 64-bit identifiers never pass
through floating point. A CSV file is read twice: a column is numeric only if all its values in the whole file are.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import igzip_threaded
from isal import isal_zlib

from skyset import headers
from skyset.errors import RecordError
from skyset.errors import UserError
from skyset.files import replacing
from skyset.numbers import NULLS
from skyset.numbers import Seen
from skyset.numbers import is_text
from skyset.numbers import look
from skyset.numbers import to_number
from skyset.raw import MAX_BYTES
from skyset.raw import check_regular
from skyset.raw import ends
from skyset.raw import open_regular
from skyset.raw import read_header

ROWS = 65536
_BLOCK_BYTES = 2 << 20
_PEEK_BYTES = 1 << 20
LONGEST_FITS_HEADER = 16 << 20  # bytes: 999 columns with all that can be said of them are fewer
_GZIP = b"\x1f\x8b"
_DELIMITERS = {"csv": ",", "tsv": "\t"}


def check_ids(table: pa.Table | pa.RecordBatch, name: str) -> None:
    """Refuse a column of identifiers that has been through floating point: what it lost cannot be repaired.

    Raises:
        UserError: there is no such column, its type is a float, or some value is written as ``5.87722984435352E+17`` or
            ``587722984435351614.0``.
    """
    ids = table[require(table.schema.names, name, "the catalogue")]
    advice = "identifiers that went through floating point (a spreadsheet?) cannot be repaired: export them again, as text"
    if pa.types.is_floating(ids.type):
        raise UserError(f"column {name} is {ids.type}, not integer: {advice}")
    if not is_text(ids.type):
        return
    spoilt = pc.match_substring_regex(ids, r"^\s*[+-]?([0-9](\.[0-9]*)?[eE]\+?[0-9]+|[0-9]{16,}\.0*)\s*$")
    if pc.any(spoilt).as_py():
        row = pc.index(spoilt, True).as_py()
        raise UserError(f"column {name} holds {ids[row].as_py()} in row {row + 1}: {advice}")


def require(names: Sequence[str], name: str, where: str) -> str:
    """``name``, if it is one of ``names``.

    Raises:
        UserError: it is not; the nearest name and all that exist are named.
    """
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1, 0.6) or [n for n in names if n.lower() == name.lower()]
    hint = f"; did you mean {near[0]}?" if near else ""
    shown = ", ".join(names[:60]) + (f" and {len(names) - 60} more" if len(names) > 60 else "")
    raise UserError(f"{where} has no column {name}{hint} (there are: {shown})")


# --- Reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Catalog:
    """A catalogue that can be read from its beginning any number of times.

    Attributes:
        path: the file, or the first of several.
        schema: names and types of the columns; units, where the file has them, in the fields' metadata (``unit``).
        rows: their number.
        notes: what was left out and why, a line each.
    """

    path: str
    schema: pa.Schema
    rows: int
    _read: Callable[[int], Iterator[pa.RecordBatch]] = field(repr=False)
    notes: tuple[str, ...] = ()

    def batches(self, rows: int = ROWS) -> Iterator[pa.RecordBatch]:
        """All rows in their order, in batches of at most ``rows``.

        Raises:
            UserError: the file is damaged.
        """
        if rows < 1:
            raise ValueError(f"batches of {rows} rows")
        with _explained(self.path):
            for batch in self._read(rows):
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)

    def table(self) -> pa.Table:
        """All rows at once, for catalogues that fit into memory."""
        return pa.Table.from_batches(self.batches(), self.schema)


def open_catalog(path: str | Path | Sequence[str | Path], columns: Sequence[str] | None = None) -> Catalog:
    """Open a catalogue: ``.csv``, ``.tsv``, ``.fits``, ``.fit``, ``.vot``, ``.xml`` (each also ``.gz``) or ``.parquet``.

    CSV, FITS and Parquet are read in bounded memory; a VOTable is taken into memory whole. CSV columns get their types from
    all rows; missing in CSV text is nothing, ``null``, ``NULL`` or ``\\N``, unless in quotes. In FITS the first binary table
    is read (a compressed image and the LDAC_IMHEAD of SExtractor's catalogues are none), vectors as fixed-size lists;
    columns that Arrow has no plain type for are left out with a note.

    Args:
        path: a file, or several Parquet files with the same columns (the slices of a query).
        columns: names of the columns wanted, in this order; all by default.

    Raises:
        UserError: no such file or column, or the file is not what its name says.
    """
    if not isinstance(path, (str, Path)):
        return _open_parquet([str(each) for each in path], columns)
    kind = _kind(path)
    with _explained(str(path)):
        if kind not in (*_OPENERS, "parquet"):
            known = ", ".join(f".{each}" for each in [*_OPENERS, "parquet"])
            raise UserError(f"{path}: unknown kind of catalogue (known: {known}, all but the last also .gz)")
        check_regular(path)
        if kind == "parquet":
            return _open_parquet([str(path)], columns)
        return _OPENERS[kind](str(path), columns)


def _kind(path: str | Path) -> str:
    """What a catalogue is by its name: ``csv`` of ``a.csv.gz``."""
    return Path(path).name.lower().removesuffix(".gz").rpartition(".")[2]


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Whatever damage shows inside the block is a UserError that begins with the file."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except EOFError as error:
        raise UserError(f"{path}: gzip data are cut short") from error
    except RecordError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, isal_zlib.IsalError, pa.ArrowException) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read: {' '.join(text.split())[:200]}") from error


def _chosen(names: Sequence[str], columns: Sequence[str] | None, where: str) -> list[str]:
    """The columns wanted, in their order; UserError unless each exists, once."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where}: several columns are named {', '.join(map(repr, twice))}")
    if columns is not None and not len(columns):
        raise UserError(f"{where}: no column is asked for")
    return list(names) if columns is None else [require(names, name, where) for name in dict.fromkeys(columns)]


@contextlib.contextmanager
def _open_bytes(path: str) -> Iterator[BinaryIO]:
    """The file's bytes in their order, unpacked if its name ends in ``.gz``."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_regular(path))
        head = file.read(512)
        file.seek(0)
        if not head:
            raise UserError(f"{path}: the file is empty")
        if path.lower().endswith(".gz"):
            if not head.startswith(_GZIP):
                html = head.lstrip().lower().startswith((b"<!doctype html", b"<html"))
                raise UserError(f"{path}: not a gzip file" + (" (it is an HTML page)" if html else ""))
            yield stack.enter_context(igzip_threaded.open(file, "rb"))
        elif head.startswith(_GZIP):
            raise UserError(f"{path}: is gzip data; name it {Path(path).name}.gz")
        else:
            yield file


class _QuoteCounter:
    """What Arrow reads from, with the number of quotes that went by."""

    closed = False

    def __init__(self, file: BinaryIO):
        self._file, self.quotes = file, 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.quotes += data.count(b'"')
        return data

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class _Csv:
    """Where the rows of a delimited text begin, and their columns."""

    path: str
    delimiter: str
    names: list[str]
    skip: int  # lines
    empty: bool
    spaced: bool = False  # blanks follow the delimiters

    def stream(self, types: dict[str, pa.DataType], threads: bool = True) -> Iterator[pa.RecordBatch]:
        """All rows, with these columns only, in blocks of some megabytes."""
        from pyarrow import csv as arrow_csv

        if self.empty:  # which Arrow takes for damage
            return
        ragged: list = []

        def refuse(row) -> str:
            ragged.append(row)
            return "error"

        with _open_bytes(self.path) as raw:
            file = _QuoteCounter(raw)
            try:
                reader = arrow_csv.open_csv(
                    pa.PythonFile(file, "r"),
                    arrow_csv.ReadOptions(
                        use_threads=threads, block_size=_BLOCK_BYTES, skip_rows=self.skip, column_names=self.names
                    ),
                    arrow_csv.ParseOptions(
                        delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=refuse
                    ),
                    arrow_csv.ConvertOptions(
                        include_columns=list(types), column_types=types, null_values=list(NULLS), strings_can_be_null=True,
                        quoted_strings_can_be_null=False, timestamp_parsers=[],
                    ),
                )  # fmt: skip
                with reader:
                    yield from map(_without_blanks, reader) if self.spaced else reader
            except pa.ArrowInvalid as error:
                if ragged and threads:  # only one thread knows the row's number
                    self._fail_again(types)
                raise UserError(f"{self.path}: {self._reason(str(error), ragged, list(types))}") from error
            if file.quotes % 2 and threads:
                self._refuse_open_quote()

    def _refuse_open_quote(self) -> None:
        """A quote that is never closed makes one value of the rest of the file, which Arrow accepts."""
        last = None
        for block in self.stream(dict.fromkeys(self.names, pa.string()), threads=False):
            last = block
        if last is not None and any("\n" in (values[-1].as_py() or "") for values in last.columns):
            raise UserError(f"{self.path}: the last row has a quote that is never closed")

    def _fail_again(self, types: dict[str, pa.DataType]) -> None:
        for _ in self.stream(types, threads=False):
            pass

    def _reason(self, error: str, ragged: list, wanted: list[str]) -> str:
        if ragged and ragged[0].number is not None:
            row = ragged[0]
            return f"row {row.number - self.skip} has {row.actual_columns} fields, the header has {row.expected_columns}"
        if "straddling" in error:
            return f"a row is longer than {_BLOCK_BYTES >> 20} MB (a quote that is never closed?)"
        if found := re.search(r"column #(\d+): .*invalid UTF8", error):
            return f"column {wanted[int(found[1])]} is not UTF-8 text"
        return " ".join(error.split())[:200]


def column_names(path: str | Path) -> list[str]:
    """The columns that `open_catalog` would give; a delimited file is not read beyond its header for them.

    Raises:
        UserError: as `open_catalog`.
    """
    delimiter = _DELIMITERS.get(_kind(path))
    if delimiter is None:
        return open_catalog(path).schema.names
    with _explained(str(path)):
        return _csv_layout(str(path), delimiter).names


def _open_csv(path: str, columns: Sequence[str] | None, delimiter: str) -> Catalog:
    layout = _csv_layout(path, delimiter)
    wanted = _chosen(layout.names, columns, path)
    rows, seen = _settle(layout, wanted)
    schema = pa.schema([(name, seen[name].type or pa.string()) for name in wanted])
    return Catalog(path, schema, rows, partial(_read_csv, layout, schema, seen, rows))


def _csv_layout(path: str, delimiter: str) -> _Csv:
    """Find the header: after a byte order mark, blank lines and comments (``#Table1``), or itself behind a ``#``."""
    with _open_bytes(path) as file:
        head = file.read(_PEEK_BYTES)
    if b"\0" in head:
        raise UserError(f"{path}: is binary, not text")
    cut = head if len(head) < _PEEK_BYTES else head[: head.rfind(b"\n") + 1]
    try:
        lines = cut.decode("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    first = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    if first and _is_header(lines[first - 1], lines[first : first + 1], delimiter):
        first -= 1
    if first == len(lines):
        raise UserError(f"{path}: has no header")
    reader = csv.reader(lines[first:], delimiter=delimiter)
    names = next(reader)
    if lines[first].startswith("#"):
        names[0] = names[0].lstrip("# ")
    skip = first + reader.line_num
    spaced = any(name.startswith(" ") for name in names[1:])
    names = [name.strip() for name in names]
    return _Csv(path, delimiter, names, skip, cut is head and not any(line.strip() for line in lines[skip:]), spaced)


def _without_blanks(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of ``id, ra`` as those of ``id,ra``; a text of blanks alone is missing."""
    columns = []
    for values in batch.columns:
        if pa.types.is_string(values.type):
            values = pc.utf8_ltrim_whitespace(values)
            values = pc.if_else(pc.is_in(values, pa.array(NULLS)), pa.scalar(None, pa.string()), values)
        columns.append(values)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _is_header(comment: str, following: list[str], delimiter: str) -> bool:
    """Whether the last line behind a ``#`` is not a comment: it has as many names as the next line has values."""
    if re.match(r"\s*$|#\s*Table\s*\d*\s*$", comment):
        return False
    widths = [len(next(csv.reader([line], delimiter=delimiter))) for line in (comment, *following)]
    return len(set(widths)) == 1 and (widths[0] > 1 or re.match(r"#\s*\w+\s*$", comment) is not None)


def _settle(layout: _Csv, wanted: list[str]) -> tuple[int, dict[str, Seen]]:
    """First pass: the number of rows, and what each column is over all of them."""
    seen, rows = dict.fromkeys(wanted, Seen()), 0
    for block in layout.stream(dict.fromkeys(wanted, pa.string())):
        rows += block.num_rows
        for name, values in zip(wanted, block.columns, strict=True):
            if not seen[name].text:
                seen[name] |= look(values)
    return rows, seen


def _read_csv(layout: _Csv, schema: pa.Schema, seen: dict[str, Seen], rows: int, _: int) -> Iterator[pa.RecordBatch]:
    """Second pass. Arrow parses what it can by itself."""
    direct = {each.name: seen[each.name].direct and not layout.spaced for each in schema}
    types = {each.name: each.type if direct[each.name] else pa.string() for each in schema}
    left = rows
    for block in layout.stream(types):
        left -= block.num_rows
        pairs = zip(block.columns, schema, strict=True)
        arrays = [values if values.type == each.type else to_number(values, each.type) for values, each in pairs]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
    if left:
        raise UserError(f"{layout.path}: had {rows} rows when it was opened and has {rows - left} now")


@dataclass(frozen=True)
class _FitsColumn:
    """One column of a FITS binary table."""

    name: str
    code: str
    repeat: int
    stored: np.dtype
    offset: int
    unit: str
    null: int | None
    scale: float
    zero: float

    def convert(self, values: np.ndarray) -> pa.Array:
        """The stored values (rows,) or (rows, repeat) in Arrow's types."""
        if self.code == "A":
            text = pa.array(values.ravel().astype(f"S{max(1, self.stored.itemsize)}"), pa.binary())
            return pc.ascii_rtrim(pc.cast(text, pa.string()), " ")
        flat = values.ravel()
        numbers = pa.array(flat == b"T", mask=flat == b"") if self.code == "L" else self._numbers(flat)
        return numbers if self.repeat == 1 else pa.FixedSizeListArray.from_arrays(numbers, self.repeat)

    def _numbers(self, stored: np.ndarray) -> pa.Array:
        native = stored.astype(stored.dtype.newbyteorder("="))
        missing = None if self.null is None else native == self.null
        half = 1 << (8 * native.itemsize - 1)
        if self.code in "BIJK" and self.scale == 1 and abs(self.zero) == half:  # how FITS writes the other signedness
            other = np.dtype(f"{'i' if self.code == 'B' else 'u'}{native.itemsize}")
            native = (native.view(f"u{native.itemsize}") ^ np.array(half, f"u{native.itemsize}")).view(other)
        elif (self.scale, self.zero) != (1, 0):
            native = native * float(self.scale) + float(self.zero)
        return pa.array(native, mask=missing)


_FITS_CODES = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_FITS_BYTES = {"L": 1, "X": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}


@dataclass(frozen=True)
class _FitsTable:
    row_bytes: int
    rows: int
    columns: list[_FitsColumn]
    notes: list[str]


def _fits_columns(header, path: str) -> tuple[list[_FitsColumn], list[str]]:
    """Columns that can be read, and notes on those that cannot."""
    columns, notes, offset = [], [], 0
    for n in range(1, header["TFIELDS"] + 1):
        name = str(header.get(f"TTYPE{n}", f"col{n}")).strip()
        form = re.match(r"\s*(\d*)([LXBIJKAEDCMPQ])", str(header.get(f"TFORM{n}")))
        if not form:
            raise UserError(f"{path}: column {name} has the format {header.get(f'TFORM{n}')!r}, which is not FITS")
        repeat, code = int(form[1] or 1), form[2]
        size = -(-repeat // 8) if code == "X" else repeat * _FITS_BYTES[code]
        if code not in "A" and code not in _FITS_CODES:
            notes.append(f"column {name} left out: FITS format {form[0].strip()} (bits, complex or of variable length)")
        elif not repeat or (code == "A" and f"TDIM{n}" in header):
            notes.append(f"column {name} left out: {'lists of strings' if repeat else 'no values'}")
        else:
            stored = np.dtype(f"S{repeat}" if code == "A" else _FITS_CODES[code])
            columns.append(_FitsColumn(
                name, code, 1 if code == "A" else repeat, stored, offset, str(header.get(f"TUNIT{n}", "")),
                headers.number(header.get(f"TNULL{n}")), *_scale(header, n, path),
            ))  # fmt: skip
        offset += size
    if offset != header["NAXIS1"] or offset > MAX_BYTES:
        raise UserError(f"{path}: its columns take {offset} bytes a row, its header says {header['NAXIS1']}")
    return columns, notes


def _scale(header, n: int, path: str) -> tuple[float, float]:
    """TSCAL and TZERO of a column."""
    scale, zero = (headers.number(header.get(f"{key}{n}", default)) for key, default in (("TSCAL", 1), ("TZERO", 0)))
    if scale is None or zero is None:
        raise UserError(f"{path}: TSCAL{n} or TZERO{n} is no number")
    return scale, zero


def _fits_table_header(file: BinaryIO, path: str):
    """Go to the data of the first binary table that is a catalogue; its header, readable."""
    while True:
        block = read_header(file, LONGEST_FITS_HEADER)  # astropy's own would take in a whole file without an END
        if not block:
            raise EOFError
        if not ends(block):
            raise OSError("Header missing END card.")
        header = headers.parse(block)
        size = headers.data_bytes(header)
        # A compressed image, and in SExtractor's catalogues the image's header, are tables too, but no catalogue.
        none = header.get("ZIMAGE") is True or str(header.get("EXTNAME")).strip() == "LDAC_IMHEAD"
        if header.get("XTENSION") == "BINTABLE" and not none:
            return header
        for start in range(0, -(-size // 2880) * 2880, _BLOCK_BYTES):  # a gzip stream cannot jump
            if not file.read(min(_BLOCK_BYTES, size - start + -size % 2880)):
                raise UserError(f"{path}: the FITS file is cut short")


@contextlib.contextmanager
def _open_fits_table(path: str) -> Iterator[tuple[BinaryIO, _FitsTable]]:
    from astropy.io import fits

    with _open_bytes(path) as file:
        try:
            header = _fits_table_header(file, path)
            table = _FitsTable(header["NAXIS1"], header["NAXIS2"], *_fits_columns(header, path))
        except EOFError as error:
            if path.lower().endswith(".gz") and "end-of-stream" in str(error):
                raise
            raise UserError(f"{path}: has no binary table") from error
        except (ValueError, LookupError, TypeError, fits.VerifyError, OSError, headers.HeaderError) as error:
            raise UserError(f"{path}: not readable as FITS: {' '.join(str(error).split())[:200]}") from error
        yield file, table


def _open_fits(path: str, columns: Sequence[str] | None) -> Catalog:
    with _open_fits_table(path) as (_, table):
        by_name = {column.name: column for column in table.columns}
    wanted = [by_name[name] for name in _chosen([column.name for column in table.columns], columns, path)]
    fields = []
    for column in wanted:
        shape = (0,) if column.repeat == 1 else (0, column.repeat)
        about = {"unit": column.unit} if column.unit else None
        fields.append(pa.field(column.name, column.convert(np.empty(shape, column.stored)).type, metadata=about))
    schema = pa.schema(fields)
    return Catalog(path, schema, table.rows, partial(_read_fits, path, wanted, schema), tuple(table.notes))


def _read_fits(path: str, columns: list[_FitsColumn], schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    with _open_fits_table(path) as (file, head):
        width, total = head.row_bytes, head.rows
        record = np.dtype({
            "names": [f"c{n}" for n in range(len(columns))],
            "formats": [(column.stored, (column.repeat,) if column.repeat > 1 else ()) for column in columns],
            "offsets": [column.offset for column in columns],
            "itemsize": width,
        })  # fmt: skip
        rows = max(1, min(rows, (16 * _BLOCK_BYTES) // max(1, width)))
        for start in range(0, total, rows):
            data = _read_fully(file, width * min(rows, total - start))
            if len(data) < width * min(rows, total - start):
                raise UserError(f"{path}: cut short in row {start + len(data) // width + 1} of {total}")
            table = np.frombuffer(data, record)
            try:
                arrays = [column.convert(table[f"c{n}"]) for n, column in enumerate(columns)]
            except pa.ArrowInvalid as error:
                raise UserError(f"{path}: text that is not UTF-8 in rows {start + 1} to {start + len(table)}") from error
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _read_fully(file: BinaryIO, size: int) -> bytes:
    """``size`` bytes, or as many as there are."""
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def _open_votable(path: str, columns: Sequence[str] | None) -> Catalog:
    from skyset.tables.votable import votable_to_arrow

    if not Path(path).stat().st_size:
        raise UserError(f"{path}: the file is empty")
    try:
        table = votable_to_arrow(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if (table.schema.metadata or {}).get(b"query_status") == b"OVERFLOW":
        raise UserError(f"{path}: rows are missing: the service stopped at its limit (QUERY_STATUS is OVERFLOW)")
    table = table.select(_chosen(table.column_names, columns, path))
    return Catalog(path, table.schema, table.num_rows, lambda rows: iter(table.to_batches(max_chunksize=rows)))


def _open_parquet(paths: list[str], columns: Sequence[str] | None) -> Catalog:
    from pyarrow import parquet

    if not paths:
        raise UserError("no Parquet file is given")
    schema, total = None, 0
    for path in paths:
        with _explained(path), parquet.ParquetFile(path) as file:
            each = file.schema_arrow
            total += file.metadata.num_rows
        if schema is not None and (each.names, each.types) != (schema.names, schema.types):
            raise UserError(f"{path}: its columns differ from those of {paths[0]}: {_difference(schema, each)}")
        schema = schema or each
    wanted = _chosen(schema.names, columns, paths[0])
    schema = pa.schema([schema.field(name) for name in wanted])
    return Catalog(paths[0], schema, total, partial(_read_parquet, paths, schema))


def _difference(one: pa.Schema, other: pa.Schema) -> str:
    if one.names != other.names:
        odd = sorted(set(one.names) ^ set(other.names))
        return f"{', '.join(odd[:5])} only in one" if odd else "another order"
    names = (each.name for each in one if other.field(each.name).type != each.type)
    return ", ".join(f"{n} is {one.field(n).type} and {other.field(n).type}" for n in names)[:200]


def _read_parquet(paths: list[str], schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    from pyarrow import parquet

    for path in paths:
        with _explained(path), parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(rows, columns=schema.names):
                yield batch.select(schema.names).cast(schema)


_OPENERS: dict[str, Callable[[str, Sequence[str] | None], Catalog]] = {
    **{kind: partial(_open_csv, delimiter=delimiter) for kind, delimiter in _DELIMITERS.items()},
    "fits": _open_fits,
    "fit": _open_fits,
    "vot": _open_votable,
    "xml": _open_votable,
}

# --- Writing --------------------------------------------------------------------------------------


def write_csv(path: str | Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write a CSV file, gzipped if its name ends in ``.gz``, atomically; the same rows give the same bytes.

    Integers are written as such, floats with the fewest digits that give the same value (and a ``.`` or an exponent, so that
    they are floats for the next reader), NaN as ``nan``, infinities as ``1e999``, which every reader takes for one, booleans
    as 1 and 0, nulls as nothing. Text is quoted only where it has to be. `open_catalog` gives back equal values; types too,
    but for narrower ones (float32, int16: CSV has none) and text that looks like numbers throughout.

    Args:
        path: of the file.
        batches: rows with the columns of ``schema``.
        schema: flat types only.

    Returns:
        The number of rows written.

    Raises:
        UserError: a column holds lists, structs or the like.
    """
    for each in schema:
        if pa.types.is_nested(each.type) or pa.types.is_binary(each.type) or pa.types.is_large_binary(each.type):
            raise UserError(f"{path}: column {each.name} is {each.type}, which does not fit into a CSV cell")
    path, rows = Path(path), 0
    packed = partial(igzip_threaded.open, compresslevel=2) if path.suffix.lower() == ".gz" else open
    with replacing(path) as temporary, packed(temporary, "wb") as file:
        header = _quoted(pa.array(schema.names, pa.large_string()), names=True)
        file.write((",".join(header.to_pylist()) + "\n").encode())
        for batch in batches:
            rows += batch.num_rows
            for start in range(0, batch.num_rows, ROWS // 2):  # the text of a slice is in memory
                file.write(_csv_lines(batch.select(schema.names).slice(start, ROWS // 2)))
    return rows


def _csv_lines(batch: pa.RecordBatch) -> memoryview:
    # A lone empty cell would be an empty line, which readers skip.
    null = "" if batch.num_columns > 1 else "null"
    cells = [pc.fill_null(_cells(values), null) for values in batch.columns]
    cells[-1] = _joined_text("", cells[-1], "\n")
    lines = _joined_text(",", *cells)
    first, last = np.frombuffer(lines.buffers()[1], np.int64)[[lines.offset, lines.offset + len(lines)]]
    return memoryview(lines.buffers()[2])[first:last]


def _cells(values: pa.Array) -> pa.Array:
    """The CSV text of each value; null stays null."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_boolean(values.type):
        values = pc.cast(values, pa.uint8())
    if pa.types.is_float16(values.type):
        values = pc.cast(values, pa.float32())
    text = pc.cast(values, pa.large_string())
    if pa.types.is_floating(values.type):
        return _with_point(values, text)
    return text if pa.types.is_integer(values.type) else _quoted(text)


def _with_point(values: pa.Array, text: pa.Array) -> pa.Array:
    """``1`` becomes ``1.0``, and ``inf`` a number that is too large."""
    if pc.any(pc.is_inf(values)).as_py():
        text = pc.replace_substring(text, "inf", "1e999")
    if pc.any(pc.equal(pc.trunc(values), values)).as_py():
        bare = pc.match_substring_regex(text, "^-?[0-9]+$")
        text = pc.if_else(bare, _joined_text("", text, ".0"), text)
    return text


def _quoted(text: pa.Array, names: bool = False) -> pa.Array:
    """Quoted where a delimiter, a quote or a line break is inside, or where it would be taken for missing."""
    special = pc.match_substring_regex(text, r'[,"\r\n]|^(null|NULL|\\N)?$' + r"|^\s*#|^\x{FEFF}" * names)
    if not pc.any(special).as_py():
        return text
    doubled = pc.replace_substring(text, '"', '""')
    return pc.if_else(special, _joined_text("", '"', doubled, '"'), text)


def _joined_text(between: str, *parts: pa.LargeStringArray | str) -> pa.LargeStringArray:
    wide = [pa.scalar(part, pa.large_string()) if isinstance(part, str) else part for part in (*parts, between)]
    return pc.binary_join_element_wise(*wide)


def write_parquet(path: str | Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write a Parquet file, atomically, in row groups of one batch each; returns the number of rows."""
    from pyarrow import parquet

    path, rows = Path(path), 0
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in batches:
            rows += batch.num_rows
            writer.write_batch(batch.select(schema.names).cast(schema))
    return rows
