"""Representations of objects in catalogues: a column of lists, or a column a number, by name of the object."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import UserError
from skyset.tables.open import open_catalog

_LIST = re.compile(r"(?:cnn_)?(?:feat|repr|embed|vector)\w*")
_NUMBER = re.compile(r"(?:feat|feature|pred|pc|embedding)[a-z]*_?(\d+)(?:_pred)?")
#: Fewer numbered columns than this are something else.
_FEWEST = 8


def features_in(schema: pa.Schema) -> list[str]:
    """The columns that a representation is in, in their order; empty where there is none."""
    lists = [f.name for f in schema if is_list(f.type) and _LIST.fullmatch(f.name)]
    if lists:
        return lists[:1]
    matches = [(int(match[1]), name) for name in schema.names if (match := _NUMBER.fullmatch(name))]
    return [name for _, name in sorted(matches)] if len(matches) >= _FEWEST else []


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def read_vectors(path: Path, key: str) -> tuple[list[str], np.ndarray, list[tuple[str, str, str]]]:
    """The representations of a file.

    Args:
        path: the catalogue.
        key: its column of names.

    Returns:
        names; vectors, float32 (rows, length); second rows of an object, which are left out (name, file, why).

    Raises:
        UserError: vectors of different lengths, or missing values.
    """
    names = features_in(open_catalog(path).schema)
    keys, parts, seen, rejected = [], [], set(), []
    for batch in open_catalog(path, [key, *names]).batches():
        kept = []
        for row, value in enumerate(batch[0].to_pylist()):
            if value in seen:
                rejected.append((str(value), str(path), f"a second row of {value} in {path.name}"))
                continue
            seen.add(value)
            kept.append(row)
            keys.append("" if value is None else str(value))
        parts.append(_vectors(batch, path)[kept])
    if len({part.shape[1] for part in parts}) != 1:
        raise UserError(f"{path}: representations of different lengths, or none")
    return keys, np.concatenate(parts), rejected


def _vectors(batch: pa.RecordBatch, path: Path) -> np.ndarray:
    """The vectors of a batch, (rows, length)."""
    values = batch.columns[1:]
    if is_list(values[0].type):
        lengths = set(pc.unique(pc.list_value_length(values[0])).to_pylist())
        if len(lengths) != 1 or None in lengths:
            raise UserError(f"{path}: column {batch.schema.names[1]} has lists of different lengths")
        vectors = values[0].flatten().to_numpy(zero_copy_only=False).reshape(len(batch), lengths.pop())
    else:
        vectors = np.stack([each.to_numpy(zero_copy_only=False) for each in values], axis=1)
    vectors = vectors.astype(np.float32)
    if np.isnan(vectors).any():
        raise UserError(f"{path}: a representation has missing values")
    return vectors
