"""Which rows of surveys belong together, from their positions alone: a block of files at a time, with all files near it.

A manifest says which part of the sky each file covers; files that no other survey has something near of are not opened.
Memory is that of the pairs, 24 bytes each, and of the positions of ``BLOCK_ROWS`` rows of either side.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from skyset.block_cache import BlockCache
from skyset.errors import PartitionError, UserError
from skyset.loading.matched import Side
from skyset.partitions.manifest import FileEntry
from skyset.ranges import Lines
from skyset.tables.match import MAX_PAIRS, Pairs, expanded, match_positions, merged, nearest
from skyset.tables.motion import Motion

#: Positions that are looked at together, of either side; a file with more is taken whole.
BLOCK_ROWS = 1 << 21
#: Added to the radius where files are looked for, in degrees.
_SLACK_DEG = 1e-6
#: Files of servers whose positions are read at a time.
_THREADS = 16
#: Cells of a catalogue that is not in files by place.
_CELL_DEG = 2.0

Positions = tuple[np.ndarray, np.ndarray, np.ndarray]


class Places:
    """Where the objects of a survey are, file by file.

    Args:
        counts: rows of each file.
        boxes: float64 (files, 4), degrees: smallest and largest ra, smallest and largest dec of each.
        read: positions of one file, by its number: ra, dec (rows,) in degrees; rows whose position is none are NaN.
        at_once: files that are read at a time.
        numbers: of the rows of all files, one after the other; by default they are counted.
    """

    def __init__(
        self,
        counts: Sequence[int] | np.ndarray,
        boxes: np.ndarray,
        read: Callable,
        at_once: int = 1,
        numbers: np.ndarray | None = None,
    ):
        self.counts, self.boxes = np.asarray(counts, np.int64), np.asarray(boxes, np.float64).reshape(-1, 4)
        self._firsts = np.cumsum(self.counts) - self.counts
        self._read, self._at_once, self._numbers = read, at_once, numbers

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    def read(self, files: Sequence[int]) -> Positions:
        """Positions of some files, and the numbers of their rows among all: (ra, dec, rows)."""
        from concurrent.futures import ThreadPoolExecutor

        if self._at_once > 1:
            with ThreadPoolExecutor(self._at_once) as pool:
                found = list(pool.map(self._read, files))
        else:
            found = [self._read(file) for file in files]
        ra, dec = (np.concatenate([each[axis] for each in found] or [np.zeros(0)]) for axis in (0, 1))
        rows = expanded(self._firsts[list(files)], self.counts[list(files)])
        rows = rows if self._numbers is None else self._numbers[rows]
        good = np.isfinite(ra) & (np.abs(dec) <= 90)
        return ra[good], dec[good], rows[good]


def places_in_files(
    side: Side,
    entries: Sequence[FileEntry],
    stamps: dict[str, tuple],
    skip_bad: bool = False,
    motion: Motion | None = None,
    cache: BlockCache | None = None,
) -> Places:
    """Where the objects of partitions are.

    Args:
        side: the survey.
        entries: what its manifest says of its files.
        stamps: gets what tells later whether a file was written to, by path.
        skip_bad: go on without the rows of files that cannot be read, with a warning; else they raise UserError.
        motion: how the objects move; the files' parts of the sky are then not known before they are read.
        cache: keeps on the disk what is read from afar.
    """
    columns = [side.survey.column(name) for name in (*side.position, *(motion.names if motion else ()))]

    def read(file: int) -> tuple[np.ndarray, np.ndarray]:
        piece = side.files[file]
        try:
            with _lines(side) as lines, side.opened(file, columns, lines, cache) as partition:
                values = {column.name: np.empty(piece.rows, column.dtype) for column in columns}
                partition.read_runs([(values, 0, piece.rows)])
                stamps[piece.path] = partition.stamp
        except PartitionError as error:
            if not skip_bad:
                raise UserError(str(error)) from error
            warnings.warn(f"skipped: {error}", stacklevel=2)
            return np.full(piece.rows, np.nan), np.full(piece.rows, np.nan)
        ra, dec = (values.pop(name).astype(np.float64) for name in side.position)
        return motion.applied(ra, dec, values) if motion else (ra, dec)

    boxes = np.array([(0, 360, -90, 90) if motion else (*entry.ra, *entry.dec) for entry in entries], np.float64)
    return Places([piece.rows for piece in side.files], boxes, read, _THREADS if side.is_far else 1)


def _lines(side: Side) -> AbstractContextManager[Lines | None]:
    return Lines() if side.is_far else nullcontext()


def places_of(ra: np.ndarray, dec: np.ndarray) -> Places:
    """Where the objects of a catalogue are, (rows,) each, degrees: in cells of some degrees, as if each were a file."""
    ra = np.mod(ra, 360.0)
    stripe = np.floor((dec + 90) / _CELL_DEG)
    cell = np.floor(ra * np.cos(np.radians((stripe + 0.5) * _CELL_DEG - 90)) / _CELL_DEG)
    keys = stripe * 1024 + cell
    order = np.argsort(keys, kind="stable")
    ra, dec, keys = ra[order], dec[order], keys[order]
    firsts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    ends = np.append(firsts[1:], len(keys))
    if not len(firsts):
        return Places([], np.zeros((0, 4)), lambda _: (ra, dec))
    limits = [edge.reduceat(axis, firsts) for axis in (ra, dec) for edge in (np.minimum, np.maximum)]
    return Places(
        ends - firsts,
        np.stack(limits, axis=1),
        lambda cell: (ra[firsts[cell] : ends[cell]], dec[firsts[cell] : ends[cell]]),
        numbers=order,
    )


def pairs_within(
    left: Places, right: Places, radius_arcsec: float, best: str = "all", told: Callable = lambda _: None
) -> Pairs:
    """All pairs within a radius, or the nearest ones.

    Args:
        left, right: where the objects are.
        radius_arcsec: the largest separation.
        best: ``"all"``, ``"nearest"`` of each left object, or ``"mutual"``: nearest of each other.
        told: is called with the number of left files that were done with.

    Returns:
        Pairs of row numbers, sorted by left row, separation and right row.

    Raises:
        UserError: a file cannot be read, or there are too many pairs.
    """
    found, total = [], 0
    for block in _blocks(left.counts, range(len(left.counts)), BLOCK_ROWS):
        around = [(file, _near(left.boxes[file], right.boxes, radius_arcsec / 3600)) for file in block]
        near = np.unique(np.concatenate([files for _, files in around])).tolist()
        if near:
            pairs = _pairs_of(left.read([file for file, files in around if len(files)]), right, near, radius_arcsec)
            found.append(nearest(pairs) if best == "nearest" else pairs)
            total += len(found[-1])
        if total > MAX_PAIRS:
            raise UserError(f"more than {MAX_PAIRS:,} pairs within {radius_arcsec:g} arcsec: ask for less")
        told(len(block))
    pairs = merged(found)
    return nearest(pairs, one_to_one=True) if best == "mutual" else pairs


def _pairs_of(left: Positions, right: Places, files: Sequence[int], radius_arcsec: float) -> Pairs:
    """Pairs of some objects with those of some files, a block of these at a time."""
    ra, dec, rows = left
    parts = []
    for block in _blocks(right.counts, files, BLOCK_ROWS):
        ra2, dec2, rows2 = right.read(block)
        pairs = match_positions(ra, dec, ra2, dec2, radius_arcsec)
        parts.append(Pairs(rows[pairs.left], rows2[pairs.right], pairs.separation))
    return merged(parts)


def _blocks(counts: np.ndarray, files: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Files that follow each other, together of no more than so many rows where one alone has not more."""
    block: list[int] = []
    size = 0
    for file in files:
        if block and size + counts[file] > rows:
            yield block
            block, size = [], 0
        block.append(file)
        size += int(counts[file])
    if block:
        yield block


def _near(box: np.ndarray, boxes: np.ndarray, radius_deg: float) -> np.ndarray:
    """Numbers of the boxes that have a point within the radius of one of ``box``; and some more, never fewer."""
    reach = radius_deg + _SLACK_DEG
    west, east, south, north = box
    furthest = max(abs(south), abs(north))
    if furthest + reach >= 90:
        width = 360.0
    else:
        sine = np.sin(np.radians(reach)) / np.cos(np.radians(furthest))
        width = np.degrees(np.arcsin(sine)) + _SLACK_DEG if sine < 1 else 360.0
    near = (boxes[:, 2] <= north + reach) & (boxes[:, 3] >= south - reach)
    turns = [
        (boxes[:, 0] + turn <= east + width) & (boxes[:, 1] + turn >= west - width) for turn in (-720, -360, 0, 360, 720)
    ]
    return np.flatnonzero(near & np.any(turns, axis=0))


def joined(pairs: Sequence[Pairs], objects: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Matches of an object with one of each other survey: all combinations.

    Args:
        pairs: of the first survey with each other one, sorted by left row.
        objects: where those without any match are wanted too, how many objects the first survey has.

    Returns:
        Row numbers, int64 (surveys, matches), -1 where there is none; and separations, float64 (matches,), of each other
        survey, NaN where there is none. Sorted by row of the first survey.
    """
    rows = [np.unique(pairs[0].left) if objects is None else np.arange(objects)]
    separations: list[np.ndarray] = []
    for each in pairs:
        starts = np.searchsorted(each.left, rows[0], side="left")
        counts = np.searchsorted(each.left, rows[0], side="right") - starts
        alone = counts == 0
        if objects is not None:
            counts = np.maximum(counts, 1)
        again = np.repeat(np.arange(len(starts)), counts)
        chosen, gone = expanded(starts, counts), alone[again]
        chosen[gone] = 0
        blank = Pairs(np.array([-1]), np.array([-1]), np.array([np.nan])) if not len(each) else each
        rows = [values[again] for values in rows] + [np.where(gone, -1, blank.right[chosen])]
        separations = [values[again] for values in separations] + [
            np.where(gone, np.nan, np.asarray(blank.separation)[chosen])
        ]
    return np.stack(rows), separations
