"""Columns of rows as another feature: what ``cast`` and ``cast_column`` of a stream do to the values."""

from __future__ import annotations

import datasets
import numpy as np
import pyarrow as pa
from datasets.features.features import _ArrayXD

from skyset.errors import UserError
from skyset.loading.encoded import ImageRows


def check_cast(old, new, name: str) -> None:
    """UserError in one line where a stream cannot cast a feature to another: where the values' layout would change."""
    if isinstance(new, datasets.Image) and _is_picture(old):
        return
    inner_old, inner_new = _fields(old), _fields(new)
    if inner_old is not None or inner_new is not None:
        if inner_old is None or inner_new is None or set(inner_old) != set(inner_new):
            raise _refused(name, old, new)
        for key in inner_new:
            check_cast(inner_old[key], inner_new[key], f"{name}.{key}")
    elif old != new and not _alike(_layout(old), _layout(new)):
        raise _refused(name, old, new)


def _refused(name: str, old, new) -> UserError:
    return UserError(f"a stream cannot cast {name} from {old} to {new}: use map() to make other values of it")


def _alike(old: tuple | None, new: tuple | None) -> bool:
    """Whether both are known, and the same where the new one is not free."""
    if old is None or new is None or len(old) != len(new):
        return False
    return all(b in (-1, None, a) for a, b in zip(old, new, strict=True))


def _is_picture(feature) -> bool:
    """Whether a feature is of grey or RGB pixels, which ``datasets.Image`` can be of too."""
    return isinstance(feature, _ArrayXD) and feature.dtype == "uint8" and tuple(feature.shape[2:]) in ((), (3,))


def _fields(feature) -> dict | None:
    """Fields of a group; None of any other feature."""
    inner = _element(feature)
    return feature if isinstance(feature, dict) else inner if isinstance(inner, dict) else None


def _element(feature):
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)


def _layout(feature) -> tuple | None:
    """The shape of one row's value, -1 where it is free; None where it is neither number, text, nor array of them."""
    if isinstance(feature, datasets.Value | datasets.ClassLabel):
        return ()
    if isinstance(feature, _ArrayXD):
        return tuple(feature.shape)
    inner = _element(feature)
    if inner is None or isinstance(inner, dict) or (layout := _layout(inner)) is None:
        return None
    return getattr(feature, "length", -1), *layout


def cast_values(values, feature, name: str):
    """A column (array, list of text, or group of them) as another feature, by Arrow's rules.

    Raises:
        UserError: a value does not fit: 1.5 as an integer, 300 as uint8, "x" as a number.
    """
    if isinstance(feature, datasets.Image):
        return ImageRows.of_pixels(values)
    fields = _fields(feature)
    if fields is not None:
        return {
            key: cast_values(part, fields[key], f"{name}.{key}") if key in fields else part for key, part in values.items()
        }
    leaf = feature
    while _element(leaf) is not None:
        leaf = _element(leaf)
    try:
        return _cast(values, leaf)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError) as error:
        raise UserError(f"{name} cannot be cast to {leaf}: {error}") from error


def _cast(values, leaf):
    if not isinstance(values, np.ndarray):
        return _of_text(values, leaf)
    if isinstance(leaf, datasets.ClassLabel):
        if values.dtype.kind not in "iu":
            values = _through_arrow(values, pa.int64())
        if values.size and not -1 <= values.min() <= values.max() < leaf.num_classes:
            raise ValueError(f"its {leaf.num_classes} classes are numbered from 0, {values.max()} is none of them")
        return values.astype(np.int64)
    return _through_arrow(values, _pa_type(leaf))


def _of_text(values: list, leaf) -> list | np.ndarray:
    if values and isinstance(values[0], list):  # one list a row
        return [list(_of_text(row, leaf)) for row in values]
    if isinstance(leaf, datasets.ClassLabel):
        return np.array([leaf.str2int(value) for value in values], np.int64)
    return _out_of(pa.array(values, pa.string()).cast(_pa_type(leaf)))


def _pa_type(leaf) -> pa.DataType:
    return (leaf if isinstance(leaf, datasets.Value) else datasets.Value(leaf.dtype)).pa_type


def _through_arrow(values: np.ndarray, kind: pa.DataType):
    if pa.types.is_primitive(kind) and values.dtype == kind.to_pandas_dtype():
        return values
    cast = _out_of(pa.array(np.ascontiguousarray(values).reshape(-1)).cast(kind))
    if isinstance(cast, np.ndarray):
        return cast.reshape(values.shape)
    return cast if values.ndim == 1 else np.array(cast, object).reshape(values.shape).tolist()


def _out_of(array: pa.Array):
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.array(array.to_numpy(zero_copy_only=False))
    return array.to_pylist()


def is_picture(feature) -> bool:
    """Whether a feature asks for ``PIL.Image``."""
    return isinstance(feature, datasets.Image) and feature.decode
