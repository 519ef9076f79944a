"""Whether a margin holds the rows about each partition that lie near its border, and no others."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from skyset.publishing.hats_plan import INDEX_ORDER, Cell, margins_of
from skyset.publishing.verify_files import examples, rows_are
from skyset.publishing.verify_rows import Rows


@dataclass(frozen=True)
class Placed:
    """The rows of a file of a cell, and the index (order 29) that their positions give, -1 where there is none."""

    label: str
    order: int
    pixel: int
    rows: Rows
    index: np.ndarray


def margin_differences(found: Sequence[Placed], catalogue: Sequence[Placed], arcsec: float, label: str) -> Iterator[str]:
    """Rows that each file of a margin lacks, or has and should not.

    Args:
        found: the files of the margin.
        catalogue: those of the catalogue.
        arcsec: how far the margin reaches.
        label: the margin's folder, for lines of partitions that have no file in it.
    """
    if not catalogue or not 0 < arcsec <= 3600:
        return
    index = np.concatenate([each.index for each in catalogue])
    ra, dec = (np.concatenate([getattr(each.rows, name) for each in catalogue]) for name in ("ra", "dec"))
    ids = list(itertools.chain.from_iterable(each.rows.ids for each in catalogue))
    order = np.argsort(index, kind="stable")
    cells = _cells(catalogue, index[order])
    if cells is None:
        return  # partitions that overlap are told already
    order = order[np.concatenate([np.arange(cell.start, cell.stop) for cell in cells])]  # without rows of no partition
    cells = _cells(catalogue, index[order]) or []
    expected = margins_of(cells, ra[order], dec[order], index[order], arcsec)
    there = {(each.order, each.pixel): each for each in found}
    known = set(there)
    for cell, rows in zip(cells, expected, strict=True):
        wanted = Counter(ids[row] for row in order[rows].tolist())
        file = there.get((cell.order, cell.pixel))
        has = Counter(file.rows.ids if file is not None else [])
        name = file.label if file is not None else f"{label}: Norder={cell.order}, Npix={cell.pixel}"
        known.discard((cell.order, cell.pixel))
        if lacking := list((wanted - has).elements()):
            yield f"{name}: {rows_are(len(lacking))} missing from the margin of {arcsec:g} arcsec: {examples(lacking)}"
        if many := list((has - wanted).elements()):
            why = f"not within {arcsec:g} arcsec of the partition, or there twice"
            yield f"{name}: {rows_are(len(many))} {why}: {examples(many)}"
    for place in sorted(known):
        yield f"{there[place].label}: is of no partition of the catalogue"


def _cells(catalogue: Sequence[Placed], index: np.ndarray) -> list[Cell] | None:
    """The partitions with the rows that lie in them, whatever file these are in; None where they overlap."""
    places = {(each.order, each.pixel) for each in catalogue}
    cells = []
    for order, pixel in sorted(places, key=lambda place: place[1] << 2 * (INDEX_ORDER - place[0])):
        shift = 2 * (INDEX_ORDER - order)
        start, stop = np.searchsorted(index, [pixel << shift, (pixel + 1) << shift]).tolist()
        cells.append(Cell(order, pixel, start, stop))
    ends = [(cell.pixel + 1) << 2 * (INDEX_ORDER - cell.order) for cell in cells]
    if any(end > cell.first for end, cell in zip(ends, cells[1:], strict=False)):
        return None
    return cells
