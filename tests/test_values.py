"""A value is stored as it is, or refused with its column, itself and the dtype: one rule for one row and for many."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skyset.errors import RecordError
from skyset.survey import Column, fitting
from skyset.values import as_stored

NUMBERS = ("bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64", ">i4", ">f8")
INF, NAN = math.inf, math.nan

REFUSED = [
    ("bool", 2, "2"),
    ("bool", 0.5, "0.5"),
    ("bool", NAN, "nan"),
    ("bool", "True", "'True'"),
    ("bool", -1, "-1"),
    ("uint8", 256, "256"),
    ("uint8", -1, "-1"),
    ("uint8", 0.5, "0.5"),
    ("int16", 40_000, "40000"),
    ("int64", NAN, "nan"),
    ("int64", INF, "inf"),
    ("int64", 2.0**63, r"9\.223372036854776e\+18"),
    ("int64", 2**63, str(2**63)),
    ("uint64", 2.0**64, r"1\.8446744073709552e\+19"),
    ("uint64", 2**70, str(2**70)),
    ("int64", "5", "'5'"),
    ("int64", None, "None"),
    ("int64", 1j, "1j"),
    ("int32", np.datetime64("2026-01-01"), "datetime.date"),
    ("float32", 1e300, r"1e\+300"),
    ("float32", -3.5e38, r"-3\.5e\+38"),
    ("float16", 70_000, "70000"),
    ("float64", 10**400, "an integer of 1329 bits"),
    ("float32", "1.5", "'1.5'"),
    ("float32", b"1.5", "'1.5'"),
    ("float64", None, "None"),
    ("float64", Decimal("0.1"), "Decimal"),
    ("float64", np.ma.masked, "a masked value"),
    ("int32", np.ma.array([1], mask=[True]), "a masked value"),
    ("S4", 1.5, "1.5"),
    ("S4", None, "None"),
    ("S4", True, "True"),
    ("S4", np.ma.masked, "a masked value"),
]


@pytest.mark.parametrize(("dtype", "value", "shown"), REFUSED, ids=[f"{d} {v!r}"[:40] for d, v, _ in REFUSED])
def test_what_a_column_cannot_hold_is_named(dtype, value, shown):
    words = rf"^n holds ({shown}).*, which {dtype} cannot hold$"
    with pytest.raises(RecordError, match=words):
        as_stored("n", value, np.dtype(dtype))
    if np.ndim(value) == 0 and value is not np.ma.masked:
        good = b"1" if dtype == "S4" else 1
        with pytest.raises(RecordError, match=words):
            fitting(Column("n", dtype), np.array([good, value, good], object))
        array = np.array([good, value]) if not isinstance(value, str | bytes | bool) and dtype != "S4" else None
        if array is not None and array.dtype.kind in "iuf":
            with pytest.raises(RecordError, match=r"^n holds .*, which"):
                fitting(Column("n", dtype), array)


TEXTS = [
    ("é", "n is not ASCII: 'é'"),
    ("é".encode(), r"n is not ASCII: '\\xc3"),
    ("abcde", "n is longer than 4 characters: 'abcde'"),
    ("x" * 99, r"n is longer than 4 characters: 'xxx.*\.\.\.$"),
    ("a\0", r"n has NUL characters: 'a\\x00'"),
    (12_345, "n is longer than 4 characters: '12345'"),
]


@pytest.mark.parametrize(("text", "words"), TEXTS, ids=[str(number) for number in range(len(TEXTS))])
def test_text_that_would_change_is_refused(text, words):
    column = Column("n", "S4")
    with pytest.raises(RecordError, match=words):
        column.coerce(text)
    with pytest.raises(RecordError, match=words):
        fitting(column, np.array(["ab", text], object))
    if not isinstance(text, int) and text not in ("a\0",):  # numpy's own text has no NUL at the end
        with pytest.raises(RecordError, match=words):
            fitting(column, np.array([type(text)(), text]))


def test_text_is_stored_without_the_blanks_around_it():
    column = Column("n", "S4")
    for text in (" ab ", b"ab\n", np.str_("ab"), np.bytes_(b"ab  ")):
        assert column.coerce(text) == b"ab"
    assert column.coerce(1234) == b"1234" and column.coerce(np.int32(-12)) == b"-12" and column.coerce("") == b""
    for texts in (["a ", "bcde"], [b"a", b"bcde"]):
        for array in (np.array(texts), np.array(texts, object), texts):
            assert fitting(column, array).tolist() == [b"a", b"bcde"]
    assert fitting(Column("n", "S2", (2,)), [["a", "bc"], ["d", "e"]]).tolist() == [[b"a", b"bc"], [b"d", b"e"]]
    assert fitting(column, np.array([], object)).dtype == "S4"


EQUAL = [
    ("uint8", 255.0),
    ("int64", True),
    ("bool", 1.0),
    ("bool", np.uint8(0)),
    ("float32", 7),
    ("int64", np.float32(3)),
    ("uint64", 2**64 - 1),
    ("float64", 2**70),
    ("int64", -(2.0**63)),
    ("float32", NAN),
    ("float32", INF),
]


def test_numbers_that_are_equal_go_into_one_another():
    for dtype, value in EQUAL:
        stored = Column("n", dtype).coerce(value)
        assert stored.dtype == dtype and (stored == value or value != value)
        assert fitting(Column("n", dtype), [value]).tolist() == pytest.approx([stored.item()], nan_ok=True)
    assert as_stored("n", [0, 2**63 + 1], np.dtype("uint64")).tolist() == [0, 2**63 + 1]
    assert as_stored("n", np.ma.array([1, 2], mask=False), np.dtype("f4")).tolist() == [1, 2]


def test_values_in_the_dtype_are_not_copied():
    values = np.arange(5, dtype=np.float32)
    assert as_stored("n", values, np.dtype("float32")) is values


def test_shapes_are_part_of_the_rule():
    column = Column("n", "uint8", (2,))
    for value in (1, [1], [1, 2, 3], [[1, 2]]):
        with pytest.raises(RecordError, match="n has shape"):
            column.coerce(value)
    with pytest.raises(RecordError, match=r"n has shape \(3,\), not \(2,\)"):
        fitting(column, np.ones((5, 3)))
    with pytest.raises(RecordError, match=r"n holds .*, which is no array"):
        column.coerce([[1], [1, 2]])


numbers = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**k + d for k in (7, 8, 15, 16, 31, 32, 53, 63, 64) for d in (-1, 0, 1)]),
    st.floats(width=64),
    st.floats(width=32).map(np.float32),
    st.integers(-128, 127).map(np.int8),
    st.sampled_from([65504.0, 65520.0, 3.4028234663852886e38, 3.4028235677973366e38, 3.5e38, 2.0**63, 2.0**64, -(2.0**63)]),
)


def kept(value, stored, dtype: np.dtype) -> bool:
    """Whether a stored number is the one that was given, but for the rounding of floats."""
    if dtype.kind != "f":
        return stored == value
    if value != value:
        return stored != stored
    rounding = max(abs(value) * float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny))
    return stored == value or (math.isfinite(stored) and abs(stored - value) <= rounding)


@given(values=st.lists(numbers, min_size=1, max_size=4), dtype=st.sampled_from(NUMBERS))
@settings(max_examples=400, deadline=None)
def test_every_number_is_kept_or_refused_by_name(values, dtype):
    column = Column("n", dtype)
    outcomes = []
    for value in values:
        plain = value.item() if isinstance(value, np.generic) else value
        try:
            stored = column.coerce(value)
            assert stored.dtype == dtype and kept(plain, stored.item(), stored.dtype)
            outcomes.append(stored.item())
        except RecordError as error:
            assert str(error) == f"n holds {plain!r}, which {np.dtype(dtype)} cannot hold"
            outcomes.append(None)
    for many in (values, np.array(values, object)):
        try:
            together = fitting(column, many).tolist()
            assert None not in outcomes and all(a == b or a != a != b != b for a, b in zip(together, outcomes, strict=True))
        except RecordError:
            assert None in outcomes


@given(text=st.text(max_size=8) | st.binary(max_size=8), width=st.integers(1, 6))
@example(text="\x1f", width=1)
@example(text=b"\x1f", width=1)
@example(text="\xa0a\x1c\t", width=3)
@settings(max_examples=200, deadline=None)
def test_every_text_is_kept_or_refused_by_name(text, width):
    column = Column("n", f"S{width}")
    try:
        stored = column.coerce(text).item()
        assert stored == (text.encode() if isinstance(text, str) else text).strip()
        assert fitting(column, np.array([text, ""], object))[0] == stored
    except RecordError as error:
        assert str(error).startswith(("n is not ASCII: ", "n is longer than ", "n has NUL characters: "))
