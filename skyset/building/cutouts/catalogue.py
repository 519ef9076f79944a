"""The list of objects: a catalogue source's rows, cut, each cut counted, and written as a CSV."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from skyset.building.cutouts.columns import present
from skyset.building.cutouts.declaration import CatalogueSource, Chosen, Cutouts
from skyset.building.options import Options
from skyset.errors import UserError
from skyset.tables.cuts import Counts, Cut, apply
from skyset.tables.delimited_writer import write_csv
from skyset.tables.open import open_catalog


def write_list(
    cutouts: Cutouts, source: CatalogueSource, path: Path, options: Options, asked: argparse.Namespace
) -> tuple[Counts, int]:
    """Read the source, cut it, say how much each cut took and what is missing, write what is left.

    Returns:
        the counted cuts, and how many rows were written.

    Raises:
        UserError: the source cannot be used, or nothing is left.
    """
    counts, where = Counts(), " and ".join(source.addresses)
    path.parent.mkdir(exist_ok=True)
    batches = source.batches(path.parent, options.max_connections)
    with contextlib.closing(batches):
        first = next(batches, None)
        if first is None:
            raise UserError(f"no rows in {where}")
        have = present(first)
        made, left_out = possible(cutouts.cuts(asked), have)
        chosen = first_rows(apply(made, itertools.chain([first], batches), counts), options.limit)
        rows = write_csv(path, chosen, cutouts.columns.schema)
    console = Console(highlight=False)
    console.print(counts.table())
    if rows < counts.left:
        console.print(f"of these, the first {rows:,} are built")
    if absent := [column.name for column in cutouts.columns.columns if column.name not in have]:
        console.print(f"the catalogue has no {', '.join(absent)}: they will be -1 or NaN")
    if left_out:
        console.print(f"for want of columns, there is no cut on: {', '.join(left_out)}")
    if not rows:
        raise UserError(f"nothing to build: no galaxy of {where} passes the cuts")
    return counts, rows


def possible(cuts: Sequence[Chosen], have: set[str]) -> tuple[list[Cut], list[str]]:
    """The cuts whose columns the source has, and the names of the others.

    Raises:
        UserError: an option asked for one of the others.
    """
    left_out = []
    for columns, cut, option in cuts:
        if missing := set(columns) - have:
            if option:
                raise UserError(f"{option} needs {' and '.join(sorted(missing))}, which this source does not give")
            left_out.append(cut.name)
    return [cut for columns, cut, _ in cuts if have.issuperset(columns)], left_out


def first_rows(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    """As many rows as are wanted, and no batch is asked for beyond them."""
    for batch in batches:
        yield batch if limit is None else batch[:limit]
        if limit is not None and (limit := limit - batch.num_rows) <= 0:
            return


def listed_rows(cutouts: Cutouts, path: Path) -> Iterator[tuple[str, dict]]:
    """Key and row of each object of the list that `write_list` wrote; NaN is None, as JSON has it."""
    for batch in listed_batches(cutouts, path):
        for row in batch.to_pylist():
            yield str(row[cutouts.columns.key]), {name: None if value != value else value for name, value in row.items()}


def listed_batches(cutouts: Cutouts, path: Path) -> Iterator[pa.RecordBatch]:
    """The list that `write_list` wrote, with the columns of its schema."""
    schema = cutouts.columns.schema
    for batch in open_catalog(path).batches(rows=4096):
        yield pa.RecordBatch.from_arrays([pc.cast(batch[field.name], field.type) for field in schema], schema=schema)
