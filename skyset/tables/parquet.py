"""Catalogues in Parquet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import pyarrow as pa

from skyset.errors import UserError
from skyset.files import replacing
from skyset.raw import open_regular
from skyset.tables.byte_streams import open_bytes
from skyset.tables.catalog import Catalog, chosen_columns, explained

_MAGIC = b"PAR1"


def open_parquet_file(path: str, columns: Sequence[str] | None) -> Catalog:
    """One file, also ``.parquet.gz``: of Parquet whose columns are gzipped (people call it so), or of Parquet that was
    gzipped as a whole, which is unpacked into the temporary folder as long as the catalogue is in use."""
    with explained(path), open_regular(path) as file:
        if not path.lower().endswith(".gz") or file.read(len(_MAGIC)) == _MAGIC:
            return open_parquet([path], columns)
    with explained(path), open_bytes(path) as packed:
        # There as long as the catalogue is.
        unpacked = tempfile.NamedTemporaryFile(prefix="skyset-", suffix=".parquet")  # noqa: SIM115
        shutil.copyfileobj(packed, unpacked, 1 << 20)
        unpacked.flush()
    found = _open_parquet([unpacked.name], columns, [path])
    return Catalog(path, found.schema, found.rows, partial(_read_unpacked, unpacked, found.schema))


def open_parquet(paths: list[str], columns: Sequence[str] | None) -> Catalog:
    return _open_parquet(paths, columns, paths)


def _open_parquet(paths: list[str], columns: Sequence[str] | None, names: list[str]) -> Catalog:
    """``names`` are those of messages."""
    from pyarrow import parquet

    if not paths:
        raise UserError("no Parquet file is given")
    schema: pa.Schema | None = None
    total = 0
    for path, name in zip(paths, names, strict=True):
        with explained(name), parquet.ParquetFile(path) as file:
            each = file.schema_arrow
            total += file.metadata.num_rows
        if schema is not None and (each.names, each.types) != (schema.names, schema.types):
            raise UserError(f"{name}: its columns differ from those of {names[0]}: {_difference(schema, each)}")
        schema = each
    wanted = chosen_columns(each.names, columns, names[0])
    schema = pa.schema([each.field(name) for name in wanted])
    return Catalog(names[0], schema, total, partial(_read_parquet, paths, schema))


def _read_unpacked(unpacked: IO[bytes], schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    yield from _read_parquet([unpacked.name], schema, rows)


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
