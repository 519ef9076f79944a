"""What goes where in a HATS catalogue: cells of adaptive HEALPix order with their rows, and the rows of each cell's margin.

A catalogue is cut from the top: a cell that holds too many bytes or rows is replaced by its four children. Only positions
are looked at, and how many bytes a row has.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skyset.errors import UserError
from skyset.partitions.partition import bounds_of
from skyset.sky import healpix_cell
from skyset.tables.match import match_positions

#: HATS names a position by its cell of this order, a quarter of a milliarcsecond.
INDEX_ORDER = 29
INDEX = f"_healpix_{INDEX_ORDER}"
#: No cell is cut further: it has 3.4 arcmin a side.
HIGHEST_ORDER = 10
#: A side of the cell of order 0, degrees.
_SIDE_DEG = np.degrees(np.sqrt(np.pi / 3))
#: A position's circle is looked at in so many directions, and is so much wider than the margin, that no straight border
#: passes between two of them: half the arc that it cuts off, acos(1 / 1.01), is 0.14; half a step, pi / 32, is 0.10.
_DIRECTIONS, _WIDER = 32, 1.01
#: Positions that are looked at together.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Cell:
    """A partition: its HEALPix order and nested number; its rows are ``start:stop`` of those sorted by ``INDEX``."""

    order: int
    pixel: int
    start: int
    stop: int

    @property
    def path(self) -> str:
        """``Norder=4/Dir=0/Npix=1750.parquet``."""
        return f"Norder={self.order}/Dir={self.pixel // 10_000 * 10_000}/Npix={self.pixel}.parquet"

    @property
    def first(self) -> int:
        """The smallest value of ``INDEX`` in the cell."""
        return self.pixel << _shift(self.order)

    def __len__(self) -> int:
        return self.stop - self.start


def _shift(order: int) -> int:
    return 2 * (INDEX_ORDER - order)


def index_of(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """``_healpix_29`` of positions in degrees, int64."""
    return healpix_cell(ra, dec, 2**INDEX_ORDER)


def cells_of(index: np.ndarray, sizes: np.ndarray, max_bytes: int, max_rows: int | None, highest: int) -> list[Cell]:
    """The partitions of a catalogue, in the order of the sky; none is empty.

    Args:
        index: int64 (rows,), ascending.
        sizes: int64 (rows,), bytes of each row.
        max_bytes, max_rows: of a partition, unless it is of the highest order or has one row.
        highest: order.
    """
    before = bounds_of(sizes)
    found, waiting = [], [(0, pixel) for pixel in reversed(range(12))]
    while waiting:
        order, pixel = waiting.pop()
        start, stop = np.searchsorted(index, [pixel << _shift(order), (pixel + 1) << _shift(order)]).tolist()
        if start == stop:
            continue
        small = before[stop] - before[start] <= max_bytes and (max_rows is None or stop - start <= max_rows)
        if small or order >= highest or stop - start == 1:
            found.append(Cell(order, pixel, start, stop))
        else:
            waiting += [(order + 1, 4 * pixel + child) for child in (3, 2, 1, 0)]
    return found


def highest_order(margin_arcsec: float) -> int:
    """The highest order whose cells are several times as wide as the margin.

    Raises:
        UserError: the margin is wider than a margin can be.
    """
    if not 0 <= margin_arcsec <= 3600:
        raise UserError(f"--margin {margin_arcsec:g}: it is 0 to 3600 arcsec")
    return min(HIGHEST_ORDER, _order_wider_than(margin_arcsec)) if margin_arcsec else HIGHEST_ORDER


def _order_wider_than(radius_arcsec: float) -> int:
    """The highest order of cells so wide that a circle about a position in one lies in it and its eight neighbours."""
    return int(np.clip(np.log2(_SIDE_DEG * 3600 / (4 * radius_arcsec)), 0, INDEX_ORDER))


def margins_of(cells: Sequence[Cell], ra: np.ndarray, dec: np.ndarray, index: np.ndarray, arcsec: float) -> list[np.ndarray]:
    """For each cell the rows outside of it that lie within ``arcsec`` of its border, ascending; some up to 1 % further.

    Args:
        cells: of ``cells_of``.
        ra, dec: degrees, (rows,), in the order of ``index``.
        index: int64 (rows,), ascending.
        arcsec: more than 0.
    """
    owner = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    near = _near_a_border(cells, index, owner, arcsec)
    pairs = [_by_circles(cells, ra, dec, near, arcsec), _by_corners(cells, ra, dec, near, arcsec)]
    rows, others = (np.concatenate(part) for part in zip(*pairs, strict=True))
    foreign = owner[rows] != others
    both = np.unique(np.stack([others[foreign], rows[foreign]], axis=1), axis=0)
    ends = np.searchsorted(both[:, 0], np.arange(len(cells) + 1))
    return [both[start:stop, 1] for start, stop in itertools.pairwise(ends)]


def _cell_at(cells: Sequence[Cell], index: np.ndarray) -> np.ndarray:
    """The number of the cell that each value of ``INDEX`` lies in, -1 where there is none."""
    firsts = np.array([cell.first for cell in cells])
    ends = np.array([(cell.pixel + 1) << _shift(cell.order) for cell in cells])
    found = np.searchsorted(firsts, index, side="right") - 1
    return np.where((found >= 0) & (index < ends[found]) & (index >= 0), found, -1)


def _near_a_border(cells: Sequence[Cell], index: np.ndarray, owner: np.ndarray, arcsec: float) -> np.ndarray:
    """Rows that have another cell in their neighbourhood: the others need no closer look."""
    from astropy_healpix import neighbours

    order = _order_wider_than(_WIDER * arcsec)
    near = []
    for start in range(0, len(index), _CHUNK):
        part = slice(start, start + _CHUNK)
        with np.errstate(invalid="ignore"):  # at eight corners of the sky there are seven neighbours
            around = np.asarray(neighbours(index[part] >> _shift(order), 2**order, order="nested"), np.int64)
        beside = _cell_at(cells, np.where(around < 0, -1, around << _shift(order)))
        near.append(start + np.flatnonzero(((beside >= 0) & (beside != owner[part])).any(0)))
    return np.concatenate(near)


def _by_circles(cells, ra, dec, rows: np.ndarray, arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """(row, cell) of the cells that a circle about each row passes through."""
    found = [np.empty((2, 0), np.int64)]
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        beside = _cell_at(cells, index_of(*_circle(ra[part], dec[part], _WIDER * arcsec)))
        found.append(np.stack([np.tile(part, _DIRECTIONS), beside.ravel()]))
    both = np.concatenate(found, axis=1)
    both = both[:, both[1] >= 0]
    return both[0], both[1]


def _circle(ra: np.ndarray, dec: np.ndarray, arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions on circles about others, degrees, (directions, n)."""
    a, d, r = np.radians(ra), np.radians(dec), np.radians(arcsec / 3600)
    towards = np.arange(_DIRECTIONS)[:, None] * (2 * np.pi / _DIRECTIONS)
    centre = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    east = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)])
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    x, y, z = (
        np.cos(r) * centre[k] + np.sin(r) * (np.sin(towards) * east[k] + np.cos(towards) * north[k]) for k in range(3)
    )
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def _by_corners(cells, ra, dec, rows: np.ndarray, arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """(row, cell) of the cells of which a corner lies within the margin: it may lie between two directions."""
    corners = np.concatenate([_corners(cell.order, cell.pixel) for cell in cells], axis=1)
    pairs = match_positions(ra[rows], dec[rows], corners[0] % 360, corners[1], _WIDER * arcsec)
    return rows[pairs.left], pairs.right // 4


@functools.cache
def _healpix(order: int):
    from astropy_healpix import HEALPix

    return HEALPix(2**order, order="nested")


def _corners(order: int, pixel: int) -> np.ndarray:
    """Right ascension and declination of a cell's corners, degrees, (2, 4)."""
    longitude, latitude = _healpix(order).boundaries_lonlat([pixel], step=1)
    return np.stack([longitude.deg[0], latitude.deg[0]])
