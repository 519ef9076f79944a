"""Writing CSV that reads back as it was."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import igzip_threaded

from skyset.errors import UserError
from skyset.files import replacing
from skyset.tables.catalog import ROWS


def write_csv(path: str | Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write a CSV file, gzipped if its name ends in ``.gz``, atomically; the same rows give the same bytes.

    Integers are written as such, floats with the fewest digits that give the same value (and a ``.`` or an exponent, so that
    they are floats for the next reader), NaN as ``nan``, infinities as ``1e999``, which every reader takes for one, booleans
    as 1 and 0, nulls as nothing. Text is quoted only where it has to be. `open_catalog` gives back equal values; types too,
    but for narrower ones (float32, int16: CSV has none) and text that looks like numbers throughout.

    Args:
        path: of the file.
        batches: rows with the columns of ``schema``.
        schema: flat types only.

    Returns:
        The number of rows written.

    Raises:
        UserError: a column holds lists, structs or the like.
    """
    for each in schema:
        if pa.types.is_nested(each.type) or pa.types.is_binary(each.type) or pa.types.is_large_binary(each.type):
            raise UserError(f"{path}: column {each.name} is {each.type}, which does not fit into a CSV cell")
    path, rows = Path(path), 0
    packed = partial(igzip_threaded.open, compresslevel=2) if path.suffix.lower() == ".gz" else open
    with replacing(path) as temporary, packed(temporary, "wb") as file:
        header = _quoted(pa.array(schema.names, pa.large_string()), names=True)
        file.write((",".join(header.to_pylist()) + "\n").encode())
        for batch in batches:
            rows += batch.num_rows
            for start in range(0, batch.num_rows, ROWS // 2):  # the text of a slice is in memory
                file.write(_csv_lines(batch.select(schema.names).slice(start, ROWS // 2)))
    return rows


def _csv_lines(batch: pa.RecordBatch) -> memoryview:
    # A lone empty cell would be an empty line, which readers skip.
    null = "" if batch.num_columns > 1 else "null"
    cells = [pc.fill_null(_cells(values), null) for values in batch.columns]
    cells[-1] = _joined_text("", cells[-1], "\n")
    lines = _joined_text(",", *cells)
    first, last = np.frombuffer(lines.buffers()[1], np.int64)[[lines.offset, lines.offset + len(lines)]]
    return memoryview(lines.buffers()[2])[first:last]


def _cells(values: pa.Array) -> pa.Array:
    """The CSV text of each value; null stays null."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_boolean(values.type):
        values = pc.cast(values, pa.uint8())
    if pa.types.is_float16(values.type):
        values = pc.cast(values, pa.float32())
    text = pc.cast(values, pa.large_string())
    if pa.types.is_floating(values.type):
        return _with_point(values, text)
    return text if pa.types.is_integer(values.type) else _quoted(text)


def _with_point(values: pa.Array, text: pa.Array) -> pa.Array:
    """``1`` becomes ``1.0``, and ``inf`` a number that is too large."""
    if pc.any(pc.is_inf(values)).as_py():
        text = pc.replace_substring(text, "inf", "1e999")
    if pc.any(pc.equal(pc.trunc(values), values)).as_py():
        bare = pc.match_substring_regex(text, "^-?[0-9]+$")
        text = pc.if_else(bare, _joined_text("", text, ".0"), text)
    return text


def _quoted(text: pa.Array, names: bool = False) -> pa.Array:
    """Quoted where a delimiter, a quote or a line break is inside, or where it would be taken for missing."""
    special = pc.match_substring_regex(text, r'[,"\r\n]|^(null|NULL|\\N)?$' + r"|^\s*#|^\x{FEFF}" * names)
    if not pc.any(special).as_py():
        return text
    doubled = pc.replace_substring(text, '"', '""')
    return pc.if_else(special, _joined_text("", '"', doubled, '"'), text)


def _joined_text(between: str, *parts: pa.LargeStringArray | str) -> pa.LargeStringArray:
    wide = [pa.scalar(part, pa.large_string()) if isinstance(part, str) else part for part in (*parts, between)]
    return pc.binary_join_element_wise(*wide)
