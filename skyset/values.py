"""Whether values fit a column: each is stored as the value it is, or refused by name."""

from __future__ import annotations

import functools

import numpy as np

from skyset.errors import RecordError

#: Of a value in a message, characters.
_SHOWN = 40
#: Around a text; to a ``str``, control characters and blanks that are not ASCII are some too.
_BLANKS = " \t\n\r\v\f"


def as_stored(name: str, values, dtype: np.dtype) -> np.ndarray:
    """Values as an array of a column's dtype that holds the same values; floats are rounded to the column's.

    Booleans, integers and floats go into one another where the numbers are equal: ``2.0`` into integers, ``1`` into bool.
    Text is ASCII without the blanks around it; integers become their digits there. Text is never read as a number.

    Args:
        name: the column's, for messages.
        values: one value, or any number of them as an array or a sequence.
        dtype: bool, integer, float or ``S<n>``.

    Returns:
        Of the shape that the values have; they themselves where they have the dtype.

    Raises:
        RecordError: names the column and the first value that it cannot hold: out of range, a fraction or NaN for integers,
            other than 0 and 1 for bool, too large for a float of this size, masked, text for numbers, text that is too
            long, not ASCII or has NUL characters.
    """
    if dtype.kind == "S":
        return _text(name, values, dtype)
    array = values if type(values) is np.ndarray else _array(name, values, dtype)
    if array.dtype == dtype:
        return array
    if array.dtype.kind == "O":
        return _objects(name, array, dtype)
    if array.dtype.kind not in "biuf":
        raise _unfit(name, array, dtype)
    if array.ndim == 0:
        return _number(name, array, dtype)
    if np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype)
    return _floats(name, array, dtype) if dtype.kind == "f" else _integers(name, array, dtype)


def _number(name: str, number: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """One number, which Python compares exactly, and faster."""
    value = number.item()
    low, high = _limits(dtype)
    if low <= value <= high and (dtype.kind == "f" or value == int(value)):
        return number.astype(dtype)
    if dtype.kind == "f":
        return _floats(name, number, dtype)
    raise _unfit(name, number, dtype)


@functools.cache
def _limits(dtype: np.dtype) -> tuple[float, float]:
    """The smallest and the largest number that a dtype holds; as a Python float or integer, so that they compare exactly."""
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "f":
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _floats(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    try:
        with np.errstate(over="raise", invalid="ignore"):
            return array.astype(dtype)
    except FloatingPointError:
        raise _unfit(name, array, dtype, np.isfinite(array) & (np.abs(array.astype(float)) > _limits(dtype)[1])) from None


def _integers(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        stored = array.astype(dtype)
    changed = stored != array
    if array.dtype.kind == "f" and dtype.itemsize == 8:  # as floats, 2^63 - 1 and 2^63 are the same
        changed |= array >= 2.0 ** (64 if dtype.kind == "u" else 63)
    if changed.any():
        raise _unfit(name, array, dtype, changed)
    return stored


def _array(name: str, values, dtype: np.dtype) -> np.ndarray:
    """Values as an array of whatever dtype they have."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise RecordError(f"{name} holds a masked value, which {_plain(dtype)} cannot hold")
    try:
        array = np.asarray(values)
        if array.dtype.kind == "f" and dtype.kind != "f" and isinstance(values, list | tuple):
            array = np.asarray(values, object)  # numpy makes floats of integers of which some are of 64 bits without a sign
    except (ValueError, TypeError) as error:
        raise RecordError(f"{name} holds {_shown(values)}, which is no array: {error}") from error
    return array


def _objects(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Python's values, one by one."""
    stored = np.empty(array.shape, dtype)
    for place, value in np.ndenumerate(array):
        one = np.asarray(value)
        if one.dtype.kind == "O" and isinstance(value, int) and dtype.kind == "f" and abs(value) <= _limits(dtype)[1]:
            one = np.asarray(float(value))
        if one.dtype.kind == "O" or one.shape:
            raise _unfit(name, value, dtype)
        stored[place] = as_stored(name, one, dtype)
    return stored


def _text(name: str, values, dtype: np.dtype) -> np.ndarray:
    if isinstance(values, str | bytes):
        return np.asarray(_ascii(name, values, dtype), dtype)
    array = _array(name, values, dtype)
    return np.array([_ascii(name, value, dtype) for value in array.ravel().tolist()], dtype).reshape(array.shape)


def _ascii(name: str, value, dtype: np.dtype) -> bytes:
    """One text as it is stored."""
    if not isinstance(value, str | bytes):
        if not isinstance(value, int) or isinstance(value, bool):
            raise _unfit(name, value, dtype)
        value = str(value)
    text = value.strip(_BLANKS) if isinstance(value, str) else value.strip(_BLANKS.encode())
    if not text.isascii():
        raise RecordError(f"{name} is not ASCII: {_shown(text)}")
    data = text.encode("ascii") if isinstance(text, str) else text
    if len(data) > dtype.itemsize:
        raise RecordError(f"{name} is longer than {dtype.itemsize} characters: {_shown(text)}")
    if b"\0" in data:  # those at the end would be gone
        raise RecordError(f"{name} has NUL characters: {_shown(text)}")
    return data


def _unfit(name: str, values, dtype: np.dtype, changed=None) -> RecordError:
    """That the first value, or the first of those that would change, does not fit."""
    array = np.asarray(values) if changed is None else values[changed]
    value = array.ravel().tolist()[0] if array.size and array.dtype.kind != "V" else values
    return RecordError(f"{name} holds {_shown(value)}, which {_plain(dtype)} cannot hold")


def _plain(dtype: np.dtype) -> str:
    return str(dtype).lstrip("|")  # which numpy puts before text


def _shown(value) -> str:
    if isinstance(value, int):
        text = str(value) if abs(value) < 10**_SHOWN else f"an integer of {value.bit_length()} bits"
    else:
        text = repr(value).removeprefix("b") if isinstance(value, bytes) else repr(value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}..."
