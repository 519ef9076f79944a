"""The rows of a dataset that is built, for others that are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skyset.errors import PartitionError
from skyset.partitions.manifest import Manifest
from skyset.partitions.partition import Partition
from skyset.survey import Column


class Built(NamedTuple):
    """Where an object lies in a dataset that is built: file, row there, cell, split, digest of what the row was made of."""

    file: Path
    row: int
    healpix: int
    split: str
    source: int


def built_rows(root: Path, manifest: Manifest) -> dict[str, Built]:
    """All objects of a dataset by key."""
    key = next(column for column in manifest.columns if column.name == manifest.key)
    found = {}
    for entry in manifest.files:
        with Partition(root / entry.path, [key], trusted_rows=entry.rows) as partition:
            for row, (name, source) in enumerate(zip(partition.text(manifest.key), partition.sources(), strict=True)):
                found[name] = Built(root / entry.path, row, entry.healpix, entry.split, source)
    return found


def read_rows(places: Sequence[tuple[Path, int]], columns: Sequence[Column]) -> Iterator[dict | PartitionError]:
    """Rows of partitions, in the order given; those that follow each other in a file are read at once.

    Args:
        places: each row's file and its number there.
        columns: those that are read; none of bytes.

    Yields:
        values by column, or why there are none.
    """
    for (path, _), run in groupby(enumerate(places), lambda each: (each[1][0], each[1][1] - each[0])):
        rows = [row for _, (_, row) in run]
        try:
            outs = {column.name: np.empty((len(rows), *column.shape), column.dtype) for column in columns}
            with Partition(path, columns) as partition:
                partition.read_columns(outs, rows[0], rows[-1] + 1)
        except PartitionError as error:
            yield from [error] * len(rows)
            continue
        for number in range(len(rows)):
            yield {name: values[number] for name, values in outs.items()}
