"""Parquet files of one catalogue, each a slice of it, read as one table whatever types each chose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skyset.errors import UserError


def read_slices(paths: Sequence[str | Path], columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of the slices, or some columns of them, as one table with `slices_schema`.

    Raises:
        UserError: the slices do not fit together.
    """
    schema = slices_schema(paths, columns)
    return pa.concat_tables([schema.empty_table(), *iter_slices(paths, columns)])


def iter_slices(paths: Sequence[str | Path], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Like `read_slices`, a slice at a time."""
    schema = slices_schema(paths, columns)
    for path in paths:
        yield _cast(pq.read_table(path, columns=schema.names, partitioning=None), schema, path)


def slices_schema(paths: Sequence[str | Path], columns: Sequence[str] | None = None) -> pa.Schema:
    """The schema that all slices fit into: columns (default: all) of the first, each as wide as any slice needs.

    A column that is null throughout a slice fits into any type: services guess there. Integers become wider
    integers, and float64 next to floats unless they are int64, which are ids and stay what they are.

    Raises:
        UserError: a column is missing in one slice, or its types cannot be joined without loss.
    """
    if not paths:
        raise UserError("no slices to read")
    files = [(path, pq.read_metadata(path)) for path in paths]
    schemas = [metadata.schema.to_arrow_schema() for _, metadata in files]
    names = schemas[0].names if columns is None else list(columns)
    for path, schema in zip(paths, schemas, strict=True):
        lacking = [name for name in names if name not in schema.names]
        if lacking:
            raise UserError(f"{path}: there is no column {lacking[0]}")
    nulls = [_null_columns(metadata) for _, metadata in files]
    fields = []
    for name in names:
        every = [(schema.field(name), path) for schema, path in zip(schemas, paths, strict=True)]
        told = [found for found, empty in zip(every, nulls, strict=True) if name not in empty]
        fields.append(_joined(told) if told else _widest(every))
    return pa.schema(fields)


def _null_columns(metadata: pq.FileMetaData) -> set[str]:
    """Columns without a single value in a Parquet file."""
    nulls = set(metadata.schema.to_arrow_schema().names)
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        for column in (group.column(i) for i in range(group.num_columns)):
            statistics = column.statistics
            counted = statistics is not None and statistics.has_null_count
            if group.num_rows and (not counted or statistics.null_count < column.num_values):
                path = column.path_in_schema  # of a list it goes on: x.list.element
                nulls.discard(path if path in nulls else path.partition(".")[0])
    return nulls


def _widest(found: Sequence[tuple[pa.Field, str | Path]]) -> pa.Field:
    """The field for a column that is null everywhere: the widest integer if any slice has one, else the first."""
    integers = [entry for entry in found if pa.types.is_integer(entry[0].type)]
    return _joined(integers) if integers else found[0][0]


def _joined(found: Sequence[tuple[pa.Field, str | Path]]) -> pa.Field:
    """The field that holds the values of all of them."""
    field, first = found[0]
    kind = field.type
    for other, path in found[1:]:
        wider = _wider(kind, other.type)
        if wider is None:
            raise UserError(f"column {field.name} is {kind} in {first} and {other.type} in {path}: CAST it in the query")
        kind = wider
    return field.with_type(kind)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type for values of both without loss, None if there is none."""
    if one == other:
        return one
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (one, other)]
    if not all(numbers):
        return None
    if pa.types.is_integer(one) == pa.types.is_integer(other):
        return max(one, other, key=lambda kind: kind.bit_width)
    return None if pa.int64() in (one, other) else pa.float64()


def _cast(table: pa.Table, schema: pa.Schema, path: str | Path) -> pa.Table:
    columns = []
    for field in schema:
        column = table[field.name]
        if column.null_count == len(column):
            columns.append(pa.chunked_array([pa.nulls(len(column), field.type)]))
        else:
            columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)
