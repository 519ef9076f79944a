"""One Parquet file: whole or not at all, row groups of a few megabytes, and the `datasets` features in its schema.

``load_dataset("parquet", data_files=...)`` gives the rows back in the same dtypes and shapes, without skyset.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyset.errors import UserError
from skyset.files import file_sha256, replacing

#: Of a row group, before compression: a stream's first row waits for one, and the Hub's viewer reads whole ones.
ROW_GROUP_BYTES = 8 << 20
#: Where pages end follows from what is in them, so that a store that keeps equal pieces once takes those of another version
#: of the file for what they are. The sizes are those of `datasets` 5: of the same rows it makes the same pieces.
CHUNKING = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
COMPRESSIONS = ("zstd", "lz4", "snappy", "gzip", "none")


@dataclass(frozen=True)
class Written:
    """A file's rows, bytes, SHA-256 (hexadecimal) and row groups."""

    rows: int
    bytes: int
    sha256: str
    row_groups: int


def write_parquet(
    path: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    compression: str = "zstd",
    row_group_bytes: int = ROW_GROUP_BYTES,
    sorted_by: str | None = None,
    chunked: bool = True,
    ends: Collection[int] = (),
) -> Written:
    """Write rows to a file, which takes its name once it is whole.

    Equal rows with equal options are equal bytes, whatever batches they come in, by one version of pyarrow.

    Args:
        path: in a folder that exists.
        schema: that of every batch; ``Features.arrow_schema`` has the features in its metadata.
        batches: the rows.
        compression: one of ``COMPRESSIONS``.
        row_group_bytes: of a row group, before compression; one has a row at least.
        sorted_by: the column by whose values the rows ascend, noted in the file.
        chunked: pages end by their content, see ``CHUNKING``; else after a megabyte.
        ends: numbers of rows before which a row group ends, full or not. A row group of other rows has other pages, all of
            them, for its dictionaries count values as they come: where rows that stay begin with a row group of their own,
            it is the one that it was.

    Raises:
        UserError: an unknown compression, or it cannot be written, as on a full disk; nothing is left of it.
    """
    if compression not in COMPRESSIONS:
        raise UserError(f"unknown compression {compression!r}: choose one of {', '.join(COMPRESSIONS)}")
    options = {**_encodings(schema), **_newer_options(chunked), "compression": compression}
    if sorted_by is not None:
        options["sorting_columns"] = [pq.SortingColumn(_leaves(schema).index(sorted_by))]
    rows = groups = 0
    try:
        with replacing(path) as temporary:
            with pq.ParquetWriter(temporary, schema, **options) as writer:
                for table in _row_groups(batches, schema, row_group_bytes, frozenset(ends)):
                    writer.write_table(table, row_group_size=len(table))
                    rows, groups = rows + len(table), groups + 1
            written = Written(rows, temporary.stat().st_size, file_sha256(temporary), groups)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return written


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, size: int, ends: frozenset[int]) -> Iterator[pa.Table]:
    """The rows in runs of at most ``size`` bytes, one row at least; where a run ends does not follow from the batches."""
    held: list[pa.RecordBatch] = []
    room, before = size, 0
    for batch in batches:
        start = 0
        for row, length in enumerate(row_bytes(batch).tolist()):
            if (length > room or before + row in ends) and (held or row > start):
                yield pa.Table.from_batches([*held, batch.slice(start, row - start)], schema)
                held, start, room = [], row, size
            room -= length
        before += len(batch)
        if start < len(batch):
            held.append(batch.slice(start))
    if held:
        yield pa.Table.from_batches(held, schema)


def row_bytes(batch: pa.RecordBatch) -> np.ndarray:
    """Bytes of the values of each row, int64 (rows,)."""
    bounds = np.arange(len(batch) + 1)
    return np.diff(sum((_bytes_before(column, bounds) for column in batch.columns), np.zeros(len(bounds), np.int64)))


def _bytes_before(array: pa.Array, rows: np.ndarray) -> np.ndarray:
    """Bytes of the values before some rows of an array; only where these begin is looked at."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _bytes_before(array.storage, rows)
    if pa.types.is_struct(kind):
        parts = [_bytes_before(array.field(number), rows) for number in range(kind.num_fields)]
        return sum(parts, np.zeros(len(rows), np.int64))
    if pa.types.is_fixed_size_list(kind):
        return _bytes_before(array.values, (array.offset + rows) * kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _bytes_before(array.values, array.offsets.to_numpy()[rows])
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        ends = array.buffers()[1]
        return np.frombuffer(ends, np.int32).astype(np.int64)[array.offset + rows] if ends else 0 * rows
    return rows * (0 if pa.types.is_null(kind) else max(1, kind.bit_width // 8))


def _encodings(schema: pa.Schema) -> dict:
    """Few integers and texts are told by their number in a dictionary; floats byte by byte: sky noise repeats no value.

    Of images of 16 MB: uint8 takes 0.68 of its bytes (0.93 without), float32 0.85 (1.5 with a dictionary).
    """
    leaves = {path: kind for field in schema for path, kind in _paths(field.name, field.type)}
    floats = [path for path, kind in leaves.items() if pa.types.is_floating(kind)]
    return {"use_dictionary": [path for path in leaves if path not in floats], "use_byte_stream_split": floats or False}


def _leaves(schema: pa.Schema) -> list[str]:
    return [path for field in schema for path, _ in _paths(field.name, field.type)]


def _paths(name: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Parquet's columns of a field, and their types."""
    if isinstance(kind, pa.BaseExtensionType):
        yield from _paths(name, kind.storage_type)
    elif pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _paths(f"{name}.{kind.field(number).name}", kind.field(number).type)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _paths(f"{name}.list.element", kind.value_type)
    else:
        yield name, kind


def _newer_options(chunked: bool) -> Mapping[str, object]:
    """What this pyarrow can do beyond the oldest that is taken (17)."""
    known = inspect.signature(pq.ParquetWriter).parameters
    options = {"write_page_index": True, "use_content_defined_chunking": CHUNKING if chunked else False}
    return {name: value for name, value in options.items() if name in known}
