"""Arrow's arrays of a Parquet file as the bytes, text and numbers that they hold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute

from skyset.errors import PartitionError
from skyset.survey import ANY, Column


def one_array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def flattened(array: pa.Array) -> pa.Array:
    """The values of nested lists, one after the other."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if not _is_list(array.type):
            return array
        array = array.flatten()


def binary_of(array: pa.Array, fill: bool = False) -> pa.Array:
    """Bytes, also of text and of a ``datasets.Image``, beside its path; with ``fill`` none where they are missing."""
    if pa.types.is_struct(array.type):
        array = pa.compute.struct_field(array, "bytes")
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not (pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)):
        array = array.cast(pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary())
    if array.null_count and fill:
        array = array.fill_null(b"")
    if array.null_count:
        raise ValueError("bytes are missing")
    return array


def without_nulls(array: pa.Array, column: Column) -> pa.Array:
    """Values with what stands for a missing one in place of nulls."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.fill_null("" if column.is_text else pa.scalar(column.missing, array.type))


def offsets_in(array: pa.Array) -> np.ndarray:
    """Where each row's bytes begin, and where the last one's end, in the array's buffer."""
    kind = np.int64 if pa.types.is_large_binary(array.type) else np.int32
    if not len(array):
        return np.zeros(1, np.int64)
    offsets = np.frombuffer(array.buffers()[1], kind, len(array) + 1, array.offset * np.dtype(kind).itemsize)
    return offsets.astype(np.int64)


def bytes_of(array: pa.Array, fill: bool) -> np.ndarray:
    """The bytes of all rows, one after the other: uint8 (bytes,)."""
    binary = binary_of(array, fill)
    bounds = offsets_in(binary)
    return np.frombuffer(binary.buffers()[2] or b"", np.uint8)[bounds[0] : bounds[-1]]


def bounds_of_lists(array: pa.Array, column: Column) -> np.ndarray:
    """Where each row's values begin, and where the last one's end, among those of all rows of a ragged column.

    Args:
        array: lists, nested as deep as the column has axes.
        column: its shape says which of the axes has any length.

    Returns:
        int64 (rows + 1,), counted in values from 0 on.

    Raises:
        PartitionError: lists are missing, or of other lengths than the shape says.
    """
    bounds, before = np.arange(len(array) + 1), 1
    for size in column.shape:
        array = array.storage if isinstance(array, pa.ExtensionArray) else array
        if not _is_list(array.type):
            raise PartitionError(f"column {column.name} is {array.type}, not lists of {len(column.shape)} axes")
        offsets, inner = _list_offsets(array), array.flatten()
        lengths = np.diff(offsets)
        odd = lengths.reshape(-1, before) != lengths[::before, None] if size == ANY else lengths != size
        if odd.any() or len(inner) != offsets[-1]:
            raise PartitionError(f"column {column.name} has rows whose shape is not {column.shape}")
        bounds, before, array = offsets[bounds], before * size, inner
    if _is_list(array.type):
        raise PartitionError(f"column {column.name} has lists of more than {len(column.shape)} axes")
    return bounds


def _list_offsets(array: pa.Array) -> np.ndarray:
    """Where each list begins, and where the last one ends, from 0 on: int64 (lists + 1,)."""
    if pa.types.is_fixed_size_list(array.type):
        return np.arange(len(array) + 1, dtype=np.int64) * array.type.list_size
    offsets = array.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0] if len(offsets) else np.zeros(1, np.int64)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def values_of(array: pa.Array, column: Column, field: str, layer: int, fill: bool) -> np.ndarray:
    """A column's numbers or text, (rows, *shape); of a ragged one all of them one after the other.

    Args:
        array: the rows of a feature.
        column: what they must be.
        field: of a struct, the one that is meant; empty where the feature is none.
        layer: of several in the field; -1 for all.
        fill: missing numbers and texts get what partitions have for them.

    Raises:
        PartitionError: values are missing, or of another dtype.
    """
    array = member_of(array, field)
    if array.null_count and fill and not column.shape:
        array = without_nulls(array, column)
    if array.null_count and not (fill and column.is_ragged):
        raise PartitionError(f"column {column.name} lacks values")
    if column.is_text:
        return _text_of(array, column)
    flat = flattened(array)
    if flat.null_count and fill and column.is_ragged:
        flat = without_nulls(flat, column)
    if flat.null_count:
        raise PartitionError(f"column {column.name} lacks values")
    values = flat.to_numpy(zero_copy_only=False)
    if values.dtype != column.stored_dtype:
        raise PartitionError(f"column {column.name} is {values.dtype}, not {column.stored_dtype}")
    if column.is_ragged:
        return values
    if layer < 0:
        return values.reshape(len(array), *column.shape)
    size = int(np.prod(column.shape))
    return values.reshape(len(array), -1, size)[:, layer].reshape(len(array), *column.shape)


def member_of(array: pa.Array, field: str) -> pa.Array:
    """The field of a struct; the array itself where none is meant."""
    return pa.compute.struct_field(array, field) if field else array


def _text_of(array: pa.Array, column: Column) -> np.ndarray:
    texts = ("" if value is None else value for value in flattened(array).to_pylist())
    values = np.array([value.encode("utf-8", "replace") for value in texts], "S")
    if values.dtype.itemsize > column.stored_dtype.itemsize:
        raise PartitionError(f"column {column.name} has text of more than {column.stored_dtype.itemsize} characters")
    return values if column.is_ragged else values.reshape(len(array), *column.shape)
