"""The table of pairs of objects of two or more catalogues, and its rows as partitions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import RecordError, UserError
from skyset.partitions.layout import partition_path
from skyset.partitions.manifest import Manifest, describe_file
from skyset.partitions.writer import PartitionWriter
from skyset.sky import healpix_cell
from skyset.survey import Survey
from skyset.tables.match import Pairs, separation_arcsec


def pairs_table(pairs: Pairs, left: pa.Table, right: pa.Table, suffixes: tuple[str, str] = ("_left", "_right")) -> pa.Table:
    """A row a pair: the columns of both catalogues, and how far apart the two positions are.

    Args:
        pairs: row numbers in ``left`` and ``right``.
        left, right: as ``catalogue_of`` gives them.
        suffixes: added to the names of the columns.

    Returns:
        Table of ``object_id_left, ra_left, dec_left, ..., object_id_right, ..., separation_arcsec`` (computed here for
        pairs that were matched by key), units in the fields' metadata.

    Raises:
        UserError: with these suffixes two columns would have one name.
    """
    return matches_table(np.stack([pairs.left, pairs.right]), [pairs.separation], (left, right), suffixes)


def matches_table(
    rows: np.ndarray, separations: Sequence[np.ndarray | None], tables: Sequence[pa.Table], suffixes: Sequence[str]
) -> pa.Table:
    """A row a match of two or more catalogues; see ``pairs_table``.

    Args:
        rows: int64 (catalogues, matches), row numbers in each; -1 where there is no match: its columns are null.
        separations: of all but the first catalogue, from the first, arcsec; None where they are yet to be computed.
        tables, suffixes: of each catalogue.

    Raises:
        UserError: see ``pairs_table``.
    """
    parts = [
        table.take(pa.array(numbers, mask=numbers < 0)).rename_columns([name + suffix for name in table.schema.names])
        for table, numbers, suffix in zip(tables, rows, suffixes, strict=True)
    ]
    columns = [column for part in parts for column in part.columns]
    fields = [field for part in parts for field in part.schema]
    for part, suffix, apart in zip(parts[1:], suffixes[1:], separations, strict=True):
        if apart is None:
            ends = (parts[0][f"ra{suffixes[0]}"], parts[0][f"dec{suffixes[0]}"], part[f"ra{suffix}"], part[f"dec{suffix}"])
            apart = separation_arcsec(*(end.to_numpy() for end in ends))
        name = "separation_arcsec" if len(parts) == 2 else f"separation_arcsec{suffix}"
        fields.append(pa.field(name, pa.float64(), metadata={"unit": "arcsec"}))
        columns.append(pa.chunked_array([pa.array(apart, mask=np.isnan(apart) if (rows < 0).any() else None)]))
    names = [field.name for field in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two columns would be called {', '.join(twice)}: choose other suffixes than {tuple(suffixes)}")
    return pa.table(columns, schema=pa.schema(fields))


def _filled(table: pa.Table, name: str) -> pa.Table:
    """What partitions have in place of nulls: NaN, and empty text."""
    column = table[name]
    if name.startswith("object_id"):
        column = pc.fill_null(pc.cast(column, pa.string()), "")
    elif pa.types.is_floating(column.type):
        column = pc.fill_null(column, float("nan"))
    return table.set_column(table.schema.get_field_index(name), name, column)


def write_partitions(
    table: pa.Table, root: Path, survey: Survey, command: Sequence[str], sources: Sequence[str]
) -> Manifest:
    """Write pairs as HEALPix partitions, in the cells of the left objects.

    Args:
        table: as ``pairs_table`` gives it, with the standard suffixes.
        root: a new or empty folder.
        survey: the declaration of the columns.
        command, sources: for the manifest.

    Raises:
        UserError: the folder has something in it, or a name is too long for its column.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise UserError(f"{root} is not empty: choose another folder")
    names = {"object_id": "object_id_left", "ra": "ra_left", "dec": "dec_left"}
    for name in table.schema.names:  # where the right one has no match
        if table[name].null_count:
            table = _filled(table, name)
    columns = {name: table[names.get(name, name)].to_numpy() for name in survey.by_name if name not in ("pair", "healpix")}
    ids = (pc.cast(table[f"object_id_{side}"], pa.string()) for side in ("left", "right"))
    columns["pair"] = pc.binary_join_element_wise(*ids, "|").to_numpy()
    columns["healpix"] = healpix_cell(columns["ra"], columns["dec"])
    order = np.lexsort((columns["pair"].astype(str), columns["healpix"]))
    cells, starts = np.unique(columns["healpix"][order], return_index=True)
    entries = []
    for cell, rows in zip(cells.tolist(), np.split(order, starts[1:]), strict=True):
        path = partition_path(cell)
        with PartitionWriter(root / path, survey.columns, len(rows), {"survey": survey.name, "healpix": cell}) as writer:
            for row in rows.tolist():
                try:
                    writer.append(survey.record({name: values[row] for name, values in columns.items()}))
                except RecordError as error:
                    raise UserError(f"pair {columns['pair'][row]}: {error}") from error
        entries.append(describe_file(root, path, survey, "train"))
    root.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(survey.name, list(survey.columns), survey.key, entries, list(sources), {"command": list(command)})
    manifest.save(root)
    return manifest
