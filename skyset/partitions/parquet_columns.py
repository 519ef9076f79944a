"""The columns that anybody's Parquet files have, as partitions would: of the types in the schema, and of a row group."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skyset.errors import PartitionError
from skyset.partitions.parquet_file import Place
from skyset.partitions.parquet_values import bounds_of_lists
from skyset.survey import ANY, Column

#: Of text whose length no schema tells; longer text is an error that names the column.
TEXT = "S256"
#: Of an array that `datasets` has a feature for.
_MOST_AXES = 4
#: Of whose row groups the lengths of lists are compared; what Parquet calls a list in the name of its values.
_MOST_GROUPS, _LIST = 1000, ".list."


def columns_in(
    schema: pa.Schema, sample: Callable[[list[str]], pa.Table], uneven: Collection[str] = ()
) -> tuple[list[Column], dict[str, Place], list[str]]:
    """What of a file's columns can be read as columns of partitions.

    Numbers, text, bytes and arrays can; the fields of a struct as ``<column>.<field>``. Lists have the shape that they have
    in a sample of the rows, or that `datasets` wrote into the schema; where one axis has several lengths there, the column
    is ragged.

    Args:
        schema: of the files.
        sample: gives some rows of these columns.
        uneven: columns whose lists are known to have several lengths, see ``uneven_in``.

    Returns:
        The columns, where each is, and the names of those that are none.
    """
    declared, columns, places, others = _declared(schema), [], {}, []
    for name, field, kind in _parts(schema):
        whole = f"{name}.{field}" if field else name
        dtype, shape = declared.get(whole) or _typed(kind)
        if dtype is not None and shape is None:
            shape = _shape_in(sample([name]).column(name), field, whole in uneven)
        most = 0 if dtype == "bytes" else 1 if dtype == TEXT else _MOST_AXES
        if dtype is None or shape is None or len(shape) > most or (dtype == "bytes" and field):
            others.append(whole)
            continue
        try:
            columns.append(Column(whole, dtype, shape, _unit(schema.field(name))))
        except ValueError:  # a name that no column can have
            others.append(whole)
            continue
        places[whole] = Place(name, field)
    return columns, places, others


def uneven_in(footers: pq.FileMetaData) -> set[str]:
    """The columns, ``<column>.<field>`` of structs, whose lists have other lengths in one row group than in another."""
    groups = range(0, footers.num_row_groups, max(1, footers.num_row_groups // _MOST_GROUPS))
    means: dict[str, set[float]] = {}
    for number in groups:
        group = footers.row_group(number)
        for leaf in range(group.num_columns if group.num_rows else 0):
            column = group.column(leaf)
            if _LIST in column.path_in_schema:
                name = column.path_in_schema.partition(_LIST)[0]
                means.setdefault(name, set()).add(column.num_values / group.num_rows)
    return {name for name, each in means.items() if len(each) > 1}


def _unit(field: pa.Field) -> str:
    unit = (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace")
    return unit if unit.isprintable() else ""


def _parts(schema: pa.Schema) -> Iterator[tuple[str, str, pa.DataType]]:
    """Each column, or each field of a struct: (column, field, type)."""
    for field in schema:
        if pa.types.is_struct(field.type) and not _is_image(field.type):
            for number in range(field.type.num_fields):
                yield field.name, field.type.field(number).name, field.type.field(number).type
        else:
            yield field.name, "", field.type


def _is_image(kind: pa.DataType) -> bool:
    """Whether this is what `datasets` stores an image as."""
    names = {kind.field(number).name for number in range(kind.num_fields)}
    return names == {"bytes", "path"}


def _declared(schema: pa.Schema) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of the arrays that `datasets` declared in the schema, by column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        arrays = {name: each for name, each in features.items() if isinstance(each, Mapping) and "shape" in each}
        return {name: (str(np.dtype(each["dtype"])), tuple(map(int, each["shape"]))) for name, each in arrays.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def _typed(kind: pa.DataType) -> tuple[str | None, tuple[int, ...] | None]:
    """Dtype and shape of a type: None for a dtype that no column has, and for a shape that rows tell."""
    if isinstance(kind, pa.FixedShapeTensorType):
        dtype, inner = _typed(kind.value_type)
        return (dtype, tuple(kind.shape)) if inner == () and not kind.permutation else (None, None)
    if isinstance(kind, pa.BaseExtensionType):
        return _typed(kind.storage_type)
    if pa.types.is_struct(kind):
        return ("bytes", ()) if _is_image(kind) else (None, None)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        dtype, inner = _typed(kind.value_type)
        if dtype == "bytes" or inner is None or not pa.types.is_fixed_size_list(kind):
            return (None if dtype == "bytes" else dtype), None
        return dtype, (kind.list_size, *inner)
    if pa.types.is_dictionary(kind):
        return _typed(kind.value_type)
    if _is_text(kind):
        return TEXT, ()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes", ()
    if pa.types.is_boolean(kind):
        return "bool", ()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype()).name, ()
    return None, None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _shape_in(column: pa.ChunkedArray, field: str, uneven: bool) -> tuple[int, ...] | None:
    """The shape of the rows of a sample, -1 for the axis of several lengths; None where there are several such axes.

    Of ``uneven`` ones there is such an axis: the first, where the sample has none.
    """
    array: pa.Array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    array = pc.struct_field(array, field) if field else array
    shape: list[int] = []
    whole = array
    while not (_is_text(array.type) or pa.types.is_primitive(array.type) or pa.types.is_dictionary(array.type)):
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
            continue
        lengths = set(pc.fill_null(pc.list_value_length(array), 0).to_pylist())
        one = len(lengths) == 1 and not array.null_count and lengths != {0}
        shape.append(lengths.pop() if one else ANY)
        array = array.flatten()
    if uneven and shape and ANY not in shape:
        shape[0] = ANY
    if ANY not in shape:
        return tuple(shape) if shape and not array.null_count else None
    return tuple(shape) if shape.count(ANY) == 1 and _is_of(whole, tuple(shape)) else None


def _is_of(array: pa.Array, shape: tuple[int, ...]) -> bool:
    """Whether each row is an array, and not lists of different lengths."""
    try:
        bounds_of_lists(array, Column("lists", "S1", shape))
    except PartitionError:
        return False
    return True
