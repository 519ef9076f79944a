"""Representations of objects, vectors by name, in catalogues: the one reader of what networks were made to say of images.

A vector is a column of lists, or a column per number (``feat_0``, ``feat_1``, ...). Builds, searches for what looks alike,
and trainings take the same columns of the same file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import RecordError, UserError
from skyset.tables.open import open_catalog
from skyset.values import as_stored

#: Columns that may name an object, in the order in which they are looked for.
KEYS = ("object_id", "iauname", "id_str", "objid", "dr7objid")
#: Rows read at a time: 42 MB of 1280 numbers each.
CHUNK = 8192
_LIST = re.compile(r"(?:cnn_)?(?:feat|repr|embed|vector)\w*")
_NUMBER = re.compile(r"(?:feat|feature|pred|pc|embedding)[a-z]*_?(\d+)(?:_pred)?")
#: Fewer numbered columns than this are something else.
_FEWEST = 8


def features_in(schema: pa.Schema) -> list[str]:
    """The columns of a representation, by their names alone, in their order; empty where there is none.

    Names decide what a table found in a folder is: other catalogues have lists and numbered columns too.
    """
    lists = [field.name for field in schema if is_list(field.type) and _LIST.fullmatch(field.name)]
    if lists:
        return lists[:1]
    matches = [(int(match[1]), name) for name in schema.names if (match := _NUMBER.fullmatch(name))]
    return [name for _, name in sorted(matches)] if len(matches) >= _FEWEST else []


def vector_columns(schema: pa.Schema) -> list[str]:
    """The columns of the vectors of a file that is known to hold some, in their order; empty where there are none.

    Those of `features_in`; without any, the first column of lists of floats; then the most columns of floats that have one
    name but for a number at its end.
    """
    if named := features_in(schema):
        return named
    lists = [field.name for field in schema if is_list(field.type) and pa.types.is_floating(field.type.value_type)]
    if lists:
        return lists[:1]
    stems: dict[str, list[str]] = {}
    for field in schema:
        stem = field.name.rstrip("0123456789")
        if stem != field.name and field.name not in KEYS and pa.types.is_floating(field.type):
            stems.setdefault(stem, []).append(field.name)
    longest = max(stems, key=lambda stem: len(stems[stem]), default="")
    return sorted(stems.get(longest, ()), key=lambda name: int(name[len(longest) :]))


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def key_in(schema: pa.Schema, where: str) -> str:
    """The column that names the objects; UserError where there is none of the usual ones."""
    key = next((name for name in KEYS if name in schema.names), None)
    if key is None:
        raise UserError(f"{where} has none of the key columns {', '.join(KEYS)}")
    return key


def iter_vectors(path: str | Path, key: str | None = None, rows: int = CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Names and vectors of a catalogue, some rows at a time.

    Args:
        path: the catalogue, of any kind that `open_catalog` reads.
        key: its column of names; by default the first of `KEYS` that it has.
        rows: at a time.

    Yields:
        names, str objects (rows,), ``""`` where there is none; vectors, float32 (rows, length), NaN where none is known.

    Raises:
        UserError: no such file, no key, names that are floating-point numbers, no vectors, vectors of different lengths, or
            numbers that float32 cannot hold.
    """
    schema = open_catalog(path).schema
    key = key or key_in(schema, str(path))
    columns = vector_columns(schema)
    if not columns:
        raise UserError(f"{path} has no vectors: neither a column of lists nor columns such as feat_0, feat_1, ...")
    if key in schema.names and pa.types.is_floating(schema.field(key).type):
        raise UserError(f"{path}: the key column {key} holds floating-point numbers: digits of the ids are lost")
    length = None
    for batch in open_catalog(path, [key, *columns]).batches(rows):
        vectors = _vectors(batch, str(path))
        if length not in (None, vectors.shape[1]):
            raise UserError(f"{path}: the lists in {columns[0]} differ in length")
        length = vectors.shape[1]
        yield _names(batch[0]), vectors


def read_vectors(path: Path, key: str) -> tuple[list[str], np.ndarray, list[tuple[str, str, str]]]:
    """The representations of a file, all of them.

    Args:
        path: the catalogue.
        key: its column of names.

    Returns:
        names; vectors, float32 (rows, length); second rows of an object, which are left out (name, file, why).

    Raises:
        UserError: as `iter_vectors`; no row, or missing values.
    """
    names, parts, seen, rejected = [], [], set(), []
    for some, vectors in iter_vectors(path, key):
        if np.isnan(vectors).any():
            raise UserError(f"{path}: a representation has missing values")
        kept = []
        for row, name in enumerate(some):
            if name in seen:
                rejected.append((name, str(path), f"a second row of {name} in {path.name}"))
                continue
            seen.add(name)
            kept.append(row)
            names.append(name)
        parts.append(vectors[kept])
    if not parts:
        raise UserError(f"{path}: no row")
    return names, np.concatenate(parts), rejected


def _names(column: pa.Array) -> np.ndarray:
    """Names as str; numbers as their digits, bytes decoded."""
    if pa.types.is_binary(column.type) or pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.binary()).cast(pa.string())
    return np.asarray(pc.fill_null(column.cast(pa.string()), "").to_pylist(), dtype=object)


def _vectors(batch: pa.RecordBatch, where: str) -> np.ndarray:
    """The vectors of a batch, float32 (rows, length)."""
    columns = batch.columns[1:]
    if is_list(columns[0].type):
        lengths = pc.unique(pc.list_value_length(columns[0])).to_pylist()
        if len(lengths) != 1 or None in lengths:
            raise UserError(f"{where}: the lists in {batch.schema.names[1]} differ in length")
        values = columns[0].flatten().to_numpy(zero_copy_only=False).reshape(len(batch), lengths[0])
    else:
        values = np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns])
    try:
        return as_stored(batch.schema.names[1], values, np.dtype(np.float32))
    except RecordError as error:
        raise UserError(f"{where}: {error}") from error
