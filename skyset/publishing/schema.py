"""The `datasets` features in a Parquet file's schema, in words that `datasets` 3 and 5 both know."""

from __future__ import annotations

import json

import pyarrow as pa

_KEY = b"huggingface"


def widely_read(schema: pa.Schema) -> pa.Schema:
    """The schema with lists called ``Sequence`` in its features: `datasets` 4 and later write ``List``, which 3 cannot read.

    Both take a ``Sequence`` of anything but fields for the same list.
    """
    metadata = dict(schema.metadata or {})
    if _KEY not in metadata:
        return schema
    values = json.loads(metadata[_KEY])
    return schema.with_metadata({**metadata, _KEY: json.dumps(_renamed(values)).encode()})


def _renamed(values):
    if isinstance(values, list):
        return [_renamed(value) for value in values]
    if not isinstance(values, dict):
        return values
    renamed = {name: _renamed(value) for name, value in values.items()}
    return {**renamed, "_type": "Sequence"} if values.get("_type") == "List" else renamed
