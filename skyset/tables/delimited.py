"""Catalogues in delimited text: CSV, TSV and the like, compressed or not."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import UserError
from skyset.tables.byte_streams import BLOCK_BYTES, open_bytes
from skyset.tables.catalog import Catalog, chosen_columns
from skyset.tables.numeric_text import NULLS, Seen, look, to_number

_PEEK_BYTES = 1 << 20
DELIMITERS = {"csv": ",", "tsv": "\t"}


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

        with open_bytes(self.path) as raw:
            file = _QuoteCounter(raw)
            try:
                reader = arrow_csv.open_csv(
                    pa.PythonFile(file, "r"),
                    arrow_csv.ReadOptions(
                        use_threads=threads, block_size=BLOCK_BYTES, skip_rows=self.skip, column_names=self.names
                    ),
                    arrow_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=refuse),
                    arrow_csv.ConvertOptions(
                        include_columns=list(types),
                        column_types=types,
                        null_values=list(NULLS),
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                        timestamp_parsers=[],
                    ),
                )
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
            return f"a row is longer than {BLOCK_BYTES >> 20} MB (a quote that is never closed?)"
        if found := re.search(r"column #(\d+): .*invalid UTF8", error):
            return f"column {wanted[int(found[1])]} is not UTF-8 text"
        return " ".join(error.split())[:200]


def open_csv(path: str, columns: Sequence[str] | None, delimiter: str) -> Catalog:
    layout = csv_layout(path, delimiter)
    wanted = chosen_columns(layout.names, columns, path)
    rows, seen = _settle(layout, wanted)
    schema = pa.schema([(name, seen[name].type or pa.string()) for name in wanted])
    return Catalog(path, schema, rows, partial(_read_csv, layout, schema, seen, rows))


def csv_layout(path: str, delimiter: str) -> _Csv:
    """Find the header: after a byte order mark, blank lines and comments (``#Table1``), or itself behind a ``#``."""
    with open_bytes(path) as file:
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
