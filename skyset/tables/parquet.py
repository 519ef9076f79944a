"""Catalogues in Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from skyset.errors import UserError
from skyset.files import replacing
from skyset.tables.catalog import Catalog, chosen_columns, explained


def open_parquet(paths: list[str], columns: Sequence[str] | None) -> Catalog:
    from pyarrow import parquet

    if not paths:
        raise UserError("no Parquet file is given")
    schema: pa.Schema | None = None
    total = 0
    for path in paths:
        with explained(path), parquet.ParquetFile(path) as file:
            each = file.schema_arrow
            total += file.metadata.num_rows
        if schema is not None and (each.names, each.types) != (schema.names, schema.types):
            raise UserError(f"{path}: its columns differ from those of {paths[0]}: {_difference(schema, each)}")
        schema = each
    wanted = chosen_columns(each.names, columns, paths[0])
    schema = pa.schema([each.field(name) for name in wanted])
    return Catalog(paths[0], schema, total, partial(_read_parquet, paths, schema))


def _difference(one: pa.Schema, other: pa.Schema) -> str:
    if one.names != other.names:
        odd = sorted(set(one.names) ^ set(other.names))
        return f"{', '.join(odd[:5])} only in one" if odd else "another order"
    names = (each.name for each in one if other.field(each.name).type != each.type)
    return ", ".join(f"{n} is {one.field(n).type} and {other.field(n).type}" for n in names)[:200]


def _read_parquet(paths: list[str], schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    from pyarrow import parquet

    for path in paths:
        with explained(path), parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(rows, columns=schema.names):
                yield batch.select(schema.names).cast(schema)


def write_parquet(path: str | Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write a Parquet file, atomically, in row groups of one batch each; returns the number of rows."""
    from pyarrow import parquet

    path, rows = Path(path), 0
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in batches:
            rows += batch.num_rows
            writer.write_batch(batch.select(schema.names).cast(schema))
    return rows
