"""Catalogues in FITS binary tables, read by rows without mapping the file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset import headers
from skyset.errors import UserError
from skyset.raw import MAX_BYTES, ends, read_header
from skyset.tables.byte_streams import BLOCK_BYTES, open_bytes, read_fully
from skyset.tables.catalog import Catalog, chosen_columns

LONGEST_FITS_HEADER = 16 << 20  # bytes: 999 columns with all that can be said of them are fewer
_FITS_CODES = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_FITS_BYTES = {"L": 1, "X": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}


@dataclass(frozen=True)
class _FitsColumn:
    """One column of a FITS binary table."""

    name: str
    code: str
    repeat: int
    stored: np.dtype
    offset: int
    unit: str
    null: float | None
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
            columns.append(
                _FitsColumn(
                    name,
                    code,
                    1 if code == "A" else repeat,
                    stored,
                    offset,
                    str(header.get(f"TUNIT{n}", "")),
                    headers.number(header.get(f"TNULL{n}")),
                    *_scale(header, n, path),
                )
            )
        offset += size
    if offset != header["NAXIS1"] or offset > MAX_BYTES:
        raise UserError(f"{path}: its columns take {offset} bytes per row, its header says {header['NAXIS1']}")
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
        for start in range(0, -(-size // 2880) * 2880, BLOCK_BYTES):  # a gzip stream cannot jump
            if not file.read(min(BLOCK_BYTES, size - start + -size % 2880)):
                raise UserError(f"{path}: the FITS file is cut short")


@contextlib.contextmanager
def _open_fits_table(path: str) -> Iterator[tuple[BinaryIO, _FitsTable]]:
    from astropy.io import fits

    with open_bytes(path) as file:
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


def open_fits(path: str, columns: Sequence[str] | None) -> Catalog:
    with _open_fits_table(path) as (_, table):
        by_name = {column.name: column for column in table.columns}
    wanted = [by_name[name] for name in chosen_columns([column.name for column in table.columns], columns, path)]
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
        record = np.dtype(
            {
                "names": [f"c{n}" for n in range(len(columns))],
                "formats": [(column.stored, (column.repeat,) if column.repeat > 1 else ()) for column in columns],
                "offsets": [column.offset for column in columns],
                "itemsize": width,
            }
        )
        rows = max(1, min(rows, (16 * BLOCK_BYTES) // max(1, width)))
        for start in range(0, total, rows):
            data = read_fully(file, width * min(rows, total - start))
            if len(data) < width * min(rows, total - start):
                raise UserError(f"{path}: cut short in row {start + len(data) // width + 1} of {total}")
            table = np.frombuffer(data, record)
            try:
                arrays = [column.convert(table[f"c{n}"]) for n, column in enumerate(columns)]
            except pa.ArrowInvalid as error:
                raise UserError(f"{path}: text that is not UTF-8 in rows {start + 1} to {start + len(table)}") from error
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
