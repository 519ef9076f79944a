"""What is a number: text columns as integers and floats where nothing is lost by it; 64-bit ids never pass through floats.

A column of text is (the same rules type a CSV file):

- integers as a computer writes them (``0``, ``-12``): int64, or uint64 where one is too large for that and none is negative;
- decimals and exponents (``1.5``, ``.5``, ``+02.156``, ``1e-05``): float64, rounded as Python's ``float`` does;
- a column of both: float64 if no integer is beyond 2**53, which float64 could not hold exactly;
- missing: nothing but blanks, ``null``, ``NULL``, ``\\N``, ``--``; ``nan`` is NaN among decimals, missing among integers;
- everything else is text, and makes its column text: ``007`` and ``+5`` (names, of plates for example), integers beyond 64
  bits, ``0x1F``, ``1_000``, ``1,000``, ``inf``, ``True``, digits that are not ASCII. So is a column without any value.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Missing in every CSV column, text too, unless quoted; the others only where the rest of the column is numeric.
NULLS = ("", "null", "NULL", "\\N")
_MISSING = pa.array([*NULLS, "--"])
_NANS = pa.array(["nan", "NaN", "NAN", "-nan", "-NaN"])
_INTEGER = r"^(0|-?[1-9][0-9]{0,19})$"
_DECIMAL = r"^([+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?0*[0-9]{1,3})?|[+-]?[0-9]+[eE][+-]?0*[0-9]{1,3}|-0)$"
_EXACT = 2**53
_PROBE = 64
_INT64 = 2**63


@dataclass(frozen=True)
class Seen:
    """What the blocks of a text column have shown so far; ``|`` joins the views of two blocks."""

    text: bool = False
    integers: bool = False
    decimals: bool = False
    nans: bool = False
    smallest: int = 0
    largest: int = 0
    plain: bool = True  # Arrow's own parsers would read it, blanks and all

    def __or__(self, other: Seen) -> Seen:
        return Seen(
            self.text or other.text,
            self.integers or other.integers,
            self.decimals or other.decimals,
            self.nans or other.nans,
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
            self.plain and other.plain,
        )

    @property
    def type(self) -> pa.DataType | None:
        """int64, uint64 or float64; None where the column has to stay text."""
        low, high = self.smallest, self.largest
        if self.text or not (self.integers or self.decimals or self.nans):
            return None
        if self.decimals or not self.integers:
            return pa.float64() if low >= -_EXACT and high <= _EXACT else None
        if low >= -_INT64 and high < _INT64:
            return pa.int64()
        return pa.uint64() if low >= 0 and high < 2 * _INT64 else None

    @property
    def direct(self) -> bool:
        return self.plain and not (self.nans and self.integers and not self.decimals)


def _cast(text: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        pc.cast(text[:_PROBE], kind)  # Arrow goes on after the first failure, at ten times the cost of a success
        return pc.cast(text, kind)
    except pa.ArrowInvalid:
        return None


def look(text: pa.Array) -> Seen:
    """Judge a block of strings; the two common cases without a regular expression."""
    values = len(text) - text.null_count
    for kind in (pa.int64(), pa.uint64()):
        numbers = _cast(text, kind)
        # Leading zeros, hexadecimal and "-0" are what Arrow reads as integers but would not write so.
        if numbers is not None and pc.all(pc.equal(pc.cast(numbers, text.type), text), min_count=0).as_py():
            ends = pc.min_max(numbers).as_py()
            return Seen(integers=values > 0, smallest=min(0, ends["min"] or 0), largest=max(0, ends["max"] or 0))
    numbers = _cast(text, pa.float64())
    if numbers is None or pc.any(pc.is_inf(numbers)).as_py():
        return _look_closely(text)
    rest = text.filter(pc.invert(pc.match_substring(text, ".")))
    seen = Seen(decimals=len(rest) < values)
    if len(rest):
        seen |= dataclasses.replace(_look_closely(rest), plain=True)
    return seen


def _tidy(text: pa.Array) -> pa.Array:
    """Without blanks around the values; null where missing."""
    text = pc.ascii_trim_whitespace(text)
    return pc.if_else(pc.is_in(text, _MISSING.cast(text.type)), pa.scalar(None, text.type), text)


def _look_closely(text: pa.Array) -> Seen:
    text = _tidy(text).drop_null()
    is_nan = pc.is_in(text, _NANS.cast(text.type))
    is_integer = pc.match_substring_regex(text, _INTEGER)
    is_decimal = pc.match_substring_regex(text, _DECIMAL)
    if not pc.all(pc.or_(pc.or_(is_nan, is_integer), is_decimal), min_count=0).as_py():
        return Seen(text=True, plain=False)
    integers = text.filter(is_integer)
    ends = pc.min_max(pc.cast(integers, pa.decimal128(38, 0))).as_py()
    return Seen(
        integers=len(integers) > 0,
        decimals=bool(pc.any(is_decimal).as_py()),
        nans=bool(pc.any(is_nan).as_py()),
        smallest=min(0, int(ends["min"] or 0)),
        largest=max(0, int(ends["max"] or 0)),
        plain=False,
    )


def to_number(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """The numbers of a block whose whole column was judged to be of this type."""
    numbers = _cast(text, kind)
    if numbers is not None:
        return numbers
    text = _tidy(text)
    if kind != pa.float64():
        text = pc.if_else(pc.is_in(text, _NANS.cast(text.type)), pa.scalar(None, text.type), text)
    numbers = _cast(text, kind)
    if numbers is None:  # the sign or the size of some is beyond older versions of Arrow
        numbers = pa.array([None if value is None else float(value) for value in text.to_pylist()], kind)
    return numbers


def _numeric(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray | None:
    """The strings as numbers, or None."""
    chunks = text.chunks if isinstance(text, pa.ChunkedArray) else [text]
    seen = Seen()
    for chunk in chunks:
        seen |= look(chunk)
        if seen.text:
            return None
    if seen.type is None:
        return None
    numbers = [to_number(chunk, seen.type) for chunk in chunks]
    return pa.chunked_array(numbers, seen.type) if isinstance(text, pa.ChunkedArray) else numbers[0]


def safe_to_numeric(column):
    """A column of text that is wholly numeric, as numbers; any other column, itself. The rules are at the top of the module.

    Args:
        column: pandas Series, numpy array, pyarrow Array or ChunkedArray, astropy Column or MaskedColumn, or list of str.
            Values that are no strings (an ``object`` column) count as Python prints them.

    Returns:
        The same kind of container: Arrow int64, uint64 or float64 with nulls; pandas likewise, ``Int64`` or ``UInt64`` where
        integers are missing; numpy likewise, a masked array where integers are missing; astropy likewise, a MaskedColumn
        there; a list of int or float and None. Missing decimals are NaN, in masked containers masked. A column that is not
        wholly numeric, or is numbers already, is returned unchanged, the same object.
    """
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return _first(_numeric(column) if is_text(column.type) else None, column)
    if isinstance(column, list):
        numbers = _numeric_objects(column)
        return column if numbers is None else numbers.to_pylist()
    pandas = sys.modules.get("pandas")
    if pandas and isinstance(column, pandas.Series):
        return _numeric_series(column)
    if isinstance(column, np.ndarray):
        return _numeric_numpy(column)
    raise TypeError(f"not a column: {type(column).__name__}")


def _first(value, otherwise):
    return otherwise if value is None else value


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _numeric_objects(values, mask: np.ndarray | None = None) -> pa.Array | None:
    try:
        text = pa.array(values, pa.string(), mask=mask, from_pandas=True)
    except (pa.ArrowTypeError, pa.ArrowInvalid):  # not all are strings, or bytes that are no text
        printed = [None if _is_none(value) else str(value) for value in values]
        text = pa.array(printed, pa.large_string(), mask=mask)
    return _numeric(text)


def _is_none(value) -> bool:
    return value is None or type(value).__name__ in ("NAType", "MaskedConstant")  # pandas' and numpy's


def _numeric_series(series):
    import pandas as pd

    if not (series.dtype == object or isinstance(series.dtype, pd.StringDtype)):
        return series
    numbers = _numeric_objects(series)
    if numbers is None:
        return series
    kind = numbers.type.to_pandas_dtype()
    if numbers.null_count and numbers.type != pa.float64():
        values, missing = values_and_mask(numbers)
        values = pd.arrays.IntegerArray(values, missing)
    else:
        values = np.asarray(numbers.to_numpy(zero_copy_only=False), kind)
    return pd.Series(values, index=series.index, name=series.name)


def values_and_mask(numbers: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values, zero or NaN where missing, and where they are missing; writable copies."""
    missing = numbers.is_null().to_numpy(zero_copy_only=False)
    filler = float("nan") if numbers.type == pa.float64() else 0
    return np.array(numbers.fill_null(filler).to_numpy(zero_copy_only=False)), np.array(missing)


def _numeric_numpy(column: np.ndarray):
    if column.dtype.kind not in "USOT" or column.ndim != 1:
        return column
    masked = isinstance(column, np.ma.MaskedArray)
    plain = np.asarray(np.ma.getdata(column))
    if plain.dtype.kind == "S":
        try:
            plain = np.char.decode(plain, "ascii")
        except UnicodeDecodeError:
            return column
    numbers = _numeric_objects(
        plain.astype(object) if plain.dtype.kind == "T" else plain, np.ma.getmaskarray(column) if masked else None
    )
    if numbers is None:
        return column
    values, missing = values_and_mask(numbers)
    masked |= bool(missing.any()) and numbers.type != pa.float64()
    if hasattr(column, "info"):  # astropy's, with its name, unit and description
        from astropy.table import Column, MaskedColumn

        about = {key: getattr(column, key) for key in ("name", "unit", "description", "meta")}
        return MaskedColumn(values, mask=missing, **about) if masked else Column(values, **about)
    return np.ma.MaskedArray(values, mask=missing) if masked else values


def floats_of_text(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, str]:
    """Text that a reader typed as such, where one knows that numbers are meant: (float64, ""); or (None, the odd one).

    Beyond what the rules above take: ``+5``, ``007`` and ``inf``, and columns that a program wrote as text.
    """
    numbers: list[float | None] = []
    for each in values.to_pylist():
        text = (each.decode("latin-1") if isinstance(each, bytes) else each or "").strip(" \t\0")
        try:
            numbers.append(None if text in (*NULLS, "--") else float(text))
        except ValueError:
            return None, text
        if "_" in text:
            return None, text
    return pa.chunked_array([pa.array(numbers, pa.float64())]), ""
