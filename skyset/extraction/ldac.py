"""FITS_LDAC, the catalogues of SExtractor that PSFEx and SCAMP read: an image's header and its sources, for each extension.

An LDAC file alternates two binary tables: ``LDAC_IMHEAD`` (one cell of 80-character cards: the header of the image, with
what SExtractor adds to it) and ``LDAC_OBJECTS`` (one row a source). Sources: SExtractor manual, "Using SExtractor: the
output catalog"; FITS standard 4.0, section 7.3. Layout, units and formats are those of files of SExtractor 2.5 to 2.25.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning

from skyset import headers
from skyset.errors import UserError
from skyset.extraction.columns import COLUMNS
from skyset.files import Temporary, put_in_place, replaced_by

_BLOCK = 2880
_CARD = 80
#: FITS letters of the dtypes that are stored as they are; narrower or unsigned ones go into the next wider.
_LETTERS = {"b1": "L", "u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D", "c8": "C", "c16": "M"}
_DTYPES = {letter: dtype for dtype, letter in _LETTERS.items()} | {"L": "S1"}
_WIDER = {"i1": "i2", "u2": "i4", "u4": "i8", "f2": "f4"}
#: Units whose names differ from astropy's in SExtractor's catalogues.
_UNIT_NAMES = {"ct": "count", "pix": "pixel"}


@dataclass(frozen=True)
class LdacExtension:
    """One image's catalogue.

    ``header``: the image's header, with SExtractor's own keywords; empty where the file has none.
    ``table``: one row a source, in native byte order; numbers with a unit are Quantities of the file's dtype, vectors keep
    their shape (VIGNET: rows, height, width); ``table[name].info`` has ``description`` and ``format``.
    """

    header: fits.Header
    table: QTable


def read_ldac(path: str | Path) -> list[LdacExtension]:
    """Every extension of a FITS_LDAC catalogue, in the file's order; of a FITS_1.0 one, its tables.

    Warns (UserWarning) of what was mended or passed over: a TDIM that contradicts the size of its cell, bytes after the
    last extension, a table without LDAC_IMHEAD (its header is then the primary one), a column name that stands twice.
    Raises UserError where the file is missing, no FITS file, truncated, or holds no table of sources.
    """
    path = Path(path)
    extensions: list[LdacExtension] = []
    primary, image_header = fits.Header(), None
    for number, (header, data) in enumerate(_hdus(path)):
        name = _text(header, "EXTNAME")
        what = f"{path}: extension {number} ({name or 'no name'})"
        if number == 0:
            primary = header
        elif name == "LDAC_IMHEAD":
            if image_header is not None:
                raise UserError(f"{what}: a second LDAC_IMHEAD without LDAC_OBJECTS between them")
            image_header = _read_cards(header, data, what)
        elif _text(header, "XTENSION") != "BINTABLE" or name not in ("LDAC_OBJECTS", "OBJECTS"):
            warnings.warn(f"{what} is not read: it is neither LDAC_IMHEAD nor LDAC_OBJECTS", stacklevel=2)
        else:
            if image_header is None:
                warnings.warn(f"{what} has no LDAC_IMHEAD before it: its header is the file's primary one", stacklevel=2)
            extensions.append(
                LdacExtension(primary if image_header is None else image_header, _read_table(header, data, what))
            )
            image_header = None
    if image_header is not None:
        raise UserError(f"{path}: LDAC_OBJECTS is missing after the last LDAC_IMHEAD: the file is incomplete")
    if not extensions:
        raise UserError(f"{path}: no LDAC_OBJECTS in it: no catalogue of SExtractor")
    return extensions


def write_ldac(path: str | Path, extensions: Iterable[LdacExtension | tuple[fits.Header, QTable]]) -> None:
    """Write a FITS_LDAC catalogue, one extension at a time, under a temporary name that is renamed when all is written.

    PSFEx asks for NAXIS1, NAXIS2, SEXBKDEV, SEXGAIN in the headers and for VIGNET, FLUX_RADIUS, SNR_WIN, FLAGS, ELONGATION
    in the tables, SCAMP for a WCS; the headers are written as they are (:func:`skyset.extraction.image_headers.image_header`
    makes complete ones). Numbers without a FITS type go into the next wider one: int8 into int16, uint16 into int32,
    uint32 into int64, float16 into float32. Units are spelled as SExtractor spells them.

    Raises UserError where there is no extension, where the place cannot be written, or for a column that a FITS table
    cannot hold (dates, objects, masked whole numbers, uint64 beyond int64).
    """
    with replacing(path) as file:
        file.write(
            _header_bytes(
                [
                    ("SIMPLE", True, "This is a FITS file"),
                    ("BITPIX", 8, ""),
                    ("NAXIS", 0, ""),
                    ("EXTEND", True, "This file may contain FITS extensions"),
                ]
            )
        )
        written = 0
        for extension in extensions:
            header, table = (extension.header, extension.table) if isinstance(extension, LdacExtension) else extension
            _write_cards(file, header)
            write_table(file, table, "LDAC_OBJECTS")
            written += 1
        if not written:
            raise UserError(f"{path}: no extension to write: a FITS_LDAC catalogue has at least one")


def quantity(values: np.ndarray, unit: u.UnitBase | None) -> np.ndarray | u.Quantity:
    """The values with their unit, in their own dtype (a QTable would make float64 of whole numbers with a unit)."""
    return values if unit is None else u.Quantity(values, unit, dtype=values.dtype, copy=False)


def parse_unit(text: str | None) -> u.UnitBase | None:
    """A catalogue's unit, such as ``mag * arcsec**(-2)``; one that astropy does not know keeps its text and its place."""
    text = (text or "").strip()
    if not text:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        for form in ("fits", "generic"):
            unit = u.Unit(text, format=form, parse_strict="silent")
            # Neither mag(AB) nor (deg, deg): a column of a table is one plain number.
            if isinstance(unit, u.UnitBase) and not isinstance(unit, u.UnrecognizedUnit):
                return unit
    return u.UnrecognizedUnit(text)


def unit_text(unit: u.UnitBase | None) -> str:
    """As SExtractor's catalogues spell a unit: ``count``, ``pixel**2``, ``mag * arcsec**(-2)``."""
    if unit is None or unit == u.dimensionless_unscaled:
        return ""
    if isinstance(unit, u.UnrecognizedUnit) or unit.scale != 1 or any(power != int(power) for power in unit.powers):
        return unit.to_string()
    names = [_UNIT_NAMES.get(base.name, base.name) for base in unit.bases]
    powers = [f"**{int(power)}" if power > 0 else f"**({int(power)})" for power in unit.powers]
    return " * ".join(name + ("" if power == "**1" else power) for name, power in zip(names, powers, strict=True))


def ignore_odd_cards() -> None:
    """Within ``warnings.catch_warnings``: an observatory's own ideas of a header card are copied as they are."""
    warnings.simplefilter("ignore", fits.verify.VerifyWarning)
    warnings.filterwarnings("ignore", "The following header keyword is invalid", AstropyUserWarning)


def column_format(name: str, values) -> str:
    """The printf format of a column: its own, else the one of SExtractor's catalogues, else none (``""``)."""
    own = values.info.format if hasattr(values, "info") else None
    return own if isinstance(own, str) and own.startswith("%") else COLUMNS[name].format if name in COLUMNS else ""


class replacing:
    """``with replacing(path) as file``: bytes under a temporary name beside ``path``, which takes its place at the end.

    After an error nothing is left and an older file stays. Raises UserError where the place cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> BinaryIO:
        try:
            if self.path.is_dir():
                raise IsADirectoryError(f"{self.path} is a folder")
            self.path = replaced_by(self.path)
            self.temporary = Temporary(self.path)
            self.file = self.temporary.path.open("wb")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        return self.file

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.file.close()
            if kind is None:
                put_in_place(self.temporary.path, self.path)
        except OSError as failed:
            raise UserError(f"cannot write {self.path}: {failed.strerror or failed}") from failed
        finally:
            self.temporary.close()
        if isinstance(error, OSError):
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error


# Reading


def _hdus(path: Path) -> Iterator[tuple[fits.Header, np.ndarray]]:
    """Header and data bytes of each HDU. Own steps from block to block: every end of the file that is none is named."""
    try:
        size = path.stat().st_size
        data = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if data[:9].tobytes() != b"SIMPLE  =":
        raise UserError(f"{path}: no FITS file ({'empty' if not size else 'it does not begin with SIMPLE'})")
    position = number = 0
    while position < size:
        if number and data[position : position + 8].tobytes() != b"XTENSION":
            warnings.warn(f"{path}: {size - position:,} bytes after the last extension are passed over", stacklevel=3)
            return
        start = _end_of_header(data, position)
        if start is None:
            raise UserError(f"{path}: truncated: the header of extension {number} has no END")
        header = _header(data[position:start].tobytes())
        length = _data_bytes(header, f"{path}: extension {number}")
        if start + length > size:
            name = str(header.get("EXTNAME", "")).strip()
            rows = f", {(size - start) // header['NAXIS1']:,} of {header['NAXIS2']:,} rows" if header.get("NAXIS1") else ""
            raise UserError(f"{path}: truncated: extension {number} ({name}) has {size - start:,} of {length:,} bytes{rows}")
        yield header, data[start : start + length]
        position, number = start + -(-length // _BLOCK) * _BLOCK, number + 1
    if position > size:
        warnings.warn(f"{path}: the last extension is not filled up to {_BLOCK} bytes; its data are complete", stacklevel=3)


def _end_of_header(data: np.ndarray, position: int) -> int | None:
    """Where the data begin: after the block with END; None if the file ends before."""
    end = b"END".ljust(_CARD)
    while position + _BLOCK <= len(data):
        block = data[position : position + _BLOCK].tobytes()
        position += _BLOCK
        if any(block[card : card + _CARD] == end for card in range(0, _BLOCK, _CARD)):
            return position
    return None


def _header(cards: bytes) -> fits.Header:
    """Cards as a header that can be read (see `headers.parse`)."""
    return headers.parse(cards.rstrip(b"\0"))


def _data_bytes(header: fits.Header, what: str) -> int:
    try:
        return headers.data_bytes(header)
    except headers.HeaderError as error:
        raise UserError(f"{what}: its size cannot be read from its header: {error}") from None


def _read_cards(header: fits.Header, data: np.ndarray, what: str) -> fits.Header:
    cards = data.tobytes()
    if len(cards) % _CARD:
        raise UserError(f"{what}: {len(cards):,} bytes are no whole number of {_CARD}-character cards")
    match = re.fullmatch(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)", str(header.get("TDIM1", "")).strip())
    if match and int(match[1]) * int(match[2]) != len(cards):
        warnings.warn(f"{what}: TDIM1 is {match[0]}, its cell has {len(cards) // _CARD} cards, which are read", stacklevel=3)
    starts = range(0, len(cards), _CARD)
    if not any(cards[card : card + _CARD] == b"END".ljust(_CARD) for card in starts):
        warnings.warn(f"{what}: no END card: its {len(starts)} cards are read", stacklevel=3)
    return _header(cards)


def _read_table(header: fits.Header, data: np.ndarray, what: str) -> QTable:
    try:
        count, size, rows = (int(header[key]) for key in ("TFIELDS", "NAXIS1", "NAXIS2"))
        fields = [_field(header, index) for index in range(1, count + 1)]
        if (columns := sum(dtype.itemsize * int(np.prod(shape, dtype=int)) for dtype, shape in fields)) != size:
            raise ValueError(f"a row has {size} bytes, its columns have {columns}")
        # By number: names in a FITS file may stand twice, which a structured dtype does not take.
        values = np.ndarray(
            rows, [(f"f{index}", *field) for index, field in enumerate(fields, 1)], data[: rows * size].tobytes()
        )
    except (KeyError, ValueError, TypeError, fits.VerifyError) as error:
        raise UserError(f"{what}: the table cannot be read: {error}") from None
    table = QTable()
    for index in range(1, count + 1):
        name = own = str(header.get(f"TTYPE{index}", f"COLUMN_{index}")).strip()
        if name in table.colnames:
            name = f"{own}_{index}"
            warnings.warn(f"{what}: {own} stands twice: column {index} is read as {name}", stacklevel=3)
        column = _scaled(_native(values[f"f{index}"], _text(header, f"TFORM{index}")), header, index, what)
        unit = parse_unit(_text(header, f"TUNIT{index}"))
        table[name] = quantity(column, unit) if column.dtype.kind in "iufc" else column
        table[name].info.description = str(header.comments[f"TTYPE{index}"]) if f"TTYPE{index}" in header else None
        table[name].info.format = _printf(_text(header, f"TDISP{index}"))
    return table


def _text(header: fits.Header, key: str) -> str:
    return str(header.get(key, "")).strip()


def _field(header: fits.Header, index: int) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of a column's value, from TFORM and TDIM (FITS standard 4.0, 7.3.1 and 7.3.2)."""
    form = str(header[f"TFORM{index}"]).strip()
    match = re.fullmatch(r"(\d*)([LBIJKAEDCM])\w*", form)
    if match is None:
        raise ValueError(f"TFORM{index} is {form}, which no catalogue of SExtractor has")
    repeat, letter = int(match[1] or 1), match[2]
    sides = [int(side) for side in re.findall(r"\d+", str(header.get(f"TDIM{index}", "")))][::-1]
    if not sides or int(np.prod(sides)) != repeat:
        sides = [repeat] if repeat != 1 or letter == "A" else []
    if letter == "A":
        return np.dtype(f"S{sides[-1]}"), tuple(sides[:-1])
    return np.dtype(_DTYPES[letter]).newbyteorder(">"), tuple(sides)


def _native(values: np.ndarray, form: str) -> np.ndarray:
    """An own copy in native byte order; flags as bool, text as text."""
    if form.strip().lstrip("0123456789").startswith("L"):
        return values == b"T"
    if values.dtype.kind == "S":
        return np.char.decode(values, "ascii", "replace")
    return values.astype(values.dtype.newbyteorder("="))


def _scaled(values: np.ndarray, header: fits.Header, index: int, what: str) -> np.ndarray:
    """TZERO and TSCAL applied: unsigned whole numbers where that is what they say, float64 otherwise."""
    zero, scale = (headers.number(header.get(f"{key}{index}", one)) for key, one in (("TZERO", 0), ("TSCAL", 1)))
    if zero is None or scale is None:
        raise UserError(f"{what}: TZERO{index} or TSCAL{index} is no number")
    if (zero, scale) == (0, 1) or values.dtype.kind not in "iuf":
        return values
    if values.dtype.kind == "i" and scale == 1 and zero == 2 ** (8 * values.itemsize - 1):
        return (values.view(f"u{values.itemsize}") ^ np.array(zero, f"u{values.itemsize}")).astype(f"u{values.itemsize}")
    with np.errstate(over="ignore", invalid="ignore"):
        return values * scale + zero


def _printf(tdisp: str | None) -> str | None:
    match = re.fullmatch(r"([IFEGD])(\d+)(?:\.(\d+))?\s*", tdisp or "")
    if match is None:
        return None
    letter = {"I": "d", "D": "e"}.get(match[1], match[1].lower())
    return f"%{match[2]}d" if letter == "d" else f"%{match[2]}{f'.{match[3]}' if match[3] else ''}{letter}"


# Writing


def _write_cards(file: BinaryIO, header: fits.Header) -> None:
    cards = headers.readable(header).tostring(endcard=True, padding=False)
    count, rest = divmod(len(cards), _CARD)
    assert not rest, "astropy pads every card to 80 characters"
    file.write(
        _header_bytes(
            [
                ("XTENSION", "BINTABLE", "THIS IS A BINARY TABLE (FROM THE LDACTOOLS)"),
                ("BITPIX", 8, ""),
                ("NAXIS", 2, ""),
                ("NAXIS1", len(cards), "BYTES PER ROW"),
                ("NAXIS2", 1, "NUMBER OF ROWS"),
                ("PCOUNT", 0, "RANDOM PARAMETER COUNT"),
                ("GCOUNT", 1, "GROUP COUNT"),
                ("TFIELDS", 1, "FIELDS PER ROWS"),
                ("EXTNAME", "LDAC_IMHEAD", "TABLE NAME"),
                ("TTYPE1", "Field Header Card", ""),
                ("TFORM1", f"{len(cards)}A", ""),
                ("TDIM1", f"(80, {count})", ""),
            ]
        )
    )
    _write_blocks(file, cards.encode("ascii"))


def write_table(file: BinaryIO, table: QTable, name: str) -> None:
    """Append a table of sources as a binary table called ``name``, as SExtractor lays it out."""
    fields, arrays, cards = [], [], []
    for index, column in enumerate(table.colnames, 1):
        values = _storable(column, table[column])
        text = values.dtype.kind == "S"
        letter = "A" if text else _LETTERS[values.dtype.str[1:]]
        values = np.where(values, b"T", b"F") if letter == "L" else values
        sides = ((values.dtype.itemsize,) if text else ()) + values.shape[:0:-1]
        meaning = table[column].info.description or (COLUMNS[column].meaning if column in COLUMNS else "")
        more = {
            "TFORM": f"{np.prod(sides, dtype=int)}{letter}",
            "TDIM": f"({', '.join(map(str, sides))})" if len(sides) > 1 or (sides == (1,) and not text) else "",
            "TUNIT": unit_text(getattr(table[column], "unit", None)),
            "TDISP": _tdisp(column, table[column]),
        }
        cards += [
            (f"TTYPE{index}", column, meaning),
            *((f"{key}{index}", value, "") for key, value in more.items() if value),
        ]
        fields.append((f"f{index}", values.dtype.newbyteorder(">"), values.shape[1:]))
        arrays.append(values)
    rows = np.zeros(len(table), fields)
    for (field, *_), values in zip(fields, arrays, strict=True):
        rows[field] = values
    file.write(
        _header_bytes(
            [
                ("XTENSION", "BINTABLE", "THIS IS A BINARY TABLE (FROM THE LDACTOOLS)"),
                ("BITPIX", 8, ""),
                ("NAXIS", 2, ""),
                ("NAXIS1", rows.dtype.itemsize, "BYTES PER ROW"),
                ("NAXIS2", len(rows), "NUMBER OF ROWS"),
                ("PCOUNT", 0, "RANDOM PARAMETER COUNT"),
                ("GCOUNT", 1, "GROUP COUNT"),
                ("TFIELDS", len(fields), "FIELDS PER ROWS"),
                ("EXTNAME", name, "TABLE NAME"),
                *cards,
            ]
        )
    )
    _write_blocks(file, rows.tobytes())


def _storable(name: str, column) -> np.ndarray:
    """The column's values as something that has a FITS type."""
    values = getattr(column, "value", column)
    mask = getattr(column, "mask", None)
    values = np.asarray(getattr(values, "unmasked", values))
    if mask is not None and np.any(mask):
        if values.dtype.kind != "f":
            raise UserError(f"{name}: values are masked, and only floats have a NaN to stand for them: fill them first")
        values = np.where(mask, np.nan, values).astype(values.dtype)
    if values.dtype.kind == "U":
        try:
            values = np.char.encode(values, "ascii")
        except UnicodeEncodeError:
            raise UserError(f"{name}: a FITS table holds ASCII text only") from None
    if values.dtype == np.uint64 and (not values.size or values.max() < 2**63):
        return values.astype(np.int64)
    if values.dtype.kind == "S":
        return values.astype(f"S{max(values.dtype.itemsize, 1)}")
    code = values.dtype.str[1:]
    if code not in _LETTERS and code not in _WIDER:
        raise UserError(f"{name}: a FITS table cannot hold {values.dtype} values")
    return values.astype(_WIDER.get(code, values.dtype), copy=False)


def _tdisp(name: str, column) -> str:
    match = re.fullmatch(r"%\+?(\d+)(?:\.(\d+))?([dufeg])", column_format(name, column))
    if match is None:
        return ""
    return f"I{match[1]}" if match[3] in "du" else f"{match[3].upper()}{match[1]}{f'.{match[2]}' if match[2] else ''}"


def _header_bytes(cards: Iterable[tuple[str, object, str]]) -> bytes:
    header = fits.Header()
    for keyword, value, comment in cards:
        room = 47 - max(len(str(value)) - 18, 0) if isinstance(value, str) else 47
        header[keyword] = (value, comment[: max(room, 0)])
    return header.tostring().encode("ascii")


def _write_blocks(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.write(b"\0" * (-len(data) % _BLOCK))
