"""A prepared catalogue that worker processes read row by row, and the pure functions that make rows of it.

It is one structured numpy array in a file, mapped into memory: a row costs one page of the disk, and no worker
keeps the catalogue to itself.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from skyset.building.imagefiles import Place, pixels_of, read_image
from skyset.partitions.partition import Partition
from skyset.survey import Column, fitting

#: The column of images, of surveys that have one.
IMAGE = "image"


def row_dtype(columns: Sequence[Column]) -> np.dtype:
    return np.dtype([(c.name, c.dtype, c.shape) for c in columns])


def stage(path: Path, columns: Sequence[Column], values: Mapping[str, np.ndarray]) -> None:
    """Write the rows; ``values`` has an array (rows, *shape) for each column.

    Raises:
        RecordError: values that a column cannot hold unchanged, such as text that is too long.
    """
    rows = len(next(iter(values.values())))
    staged = np.lib.format.open_memmap(path, "w+", row_dtype(columns), (rows,))
    for column in columns:
        staged[column.name] = fitting(column, values[column.name])
    staged.flush()


def row_of(path: Path, number: int) -> dict:
    """One row, by column."""
    staged = _mapped(str(path), os.stat(path).st_mtime_ns)
    row = staged[number]
    return {name: row[name] for name in staged.dtype.names or ()}


@functools.lru_cache(maxsize=4)
def _mapped(path: str, _) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=1 << 20)  # names of hundreds of columns


def read_pictured(path: Path, row: int, member: int, *, rows: Path, decode: bool = False) -> dict:
    """One object of a survey of images and votes: the staged row, and its image where ``path`` is not the rows themselves.

    Args:
        path: the image's file, or the archive it is a member of.
        row: number of the staged row.
        member: number of the archive's member, -1 where the file is the image.
        rows: the staged catalogue.
        decode: pixels instead of the file's bytes.

    Raises:
        RecordError: the image cannot be used.
    """
    values = row_of(rows, row)
    if path == rows:
        return values
    data, kind = read_image(Place(path, member))
    pixels = pixels_of(data, kind)  # also where the bytes are kept: none gets in that cannot be decoded
    return values | {IMAGE: pixels if decode else data}


def read_cut(path: Path, number: int, row: int, *, rows: Path, columns: tuple[Column, ...]) -> dict:
    """One object of a dataset that is cut out of another: some columns of its row there, and the staged row.

    Args:
        path: a partition of the other dataset.
        number: of its row there.
        row: number of the staged row.
        rows: the staged catalogue.
        columns: what is taken from the partition.
    """
    with Partition(path, columns) as partition:
        return partition.record(number) | row_of(rows, row)
