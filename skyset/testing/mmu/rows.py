"""What an object is before it lies in a file, and the record of what was written."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

#: What an object is: value by dataset, in the type that it is stored in, without padding. `bytes` is text of fixed width,
#: `str` text of any; arrays of unequal lengths are padded when rows meet in a file.
Row = dict[str, Any]


@dataclass(frozen=True)
class LightCurve:
    """Points of an object in several bands.

    Attributes:
        bands: names, in the order of the file.
        points: for each of time, flux, flux_err (or mag, mag_err) one array a band, (points of it,).
    """

    bands: tuple[str, ...]
    points: Mapping[str, Sequence[np.ndarray]]

    @property
    def longest(self) -> int:
        """Points of the band that has most."""
        return max(map(len, self.points["time"]))

    def flat(self) -> dict[str, np.ndarray]:
        """Bands one after the other, as loaders hand them out, without padding: band (text) and each of the points."""
        names = [np.full(len(times), name) for name, times in zip(self.bands, self.points["time"], strict=True)]
        return {"band": np.concatenate(names)} | {name: np.concatenate(parts) for name, parts in self.points.items()}

    def padded(self, name: str, length: int, pad: float) -> np.ndarray:
        """One of the points as (bands, length), filled up at the end of each band."""
        out = np.full((len(self.bands), length), pad, self.points[name][0].dtype)
        for row, part in zip(out, self.points[name], strict=True):
            row[: len(part)] = part
        return out


@dataclass(frozen=True)
class Spot:
    """Where an object is, and the dice that it is drawn with.

    Attributes:
        number: of the object, no other of the tree has it.
        index: its place in the cell.
        cell: HEALPix, nside 16, nested, that its position lies in.
        ra, dec: degrees.
        config, split: of the tree that it goes to.
        side: pixels of an image's side; of a spectrum or a light curve `length` is the longest.
        rng: of this object alone, so that it is the same however many there are.
    """

    number: int
    index: int
    cell: int
    ra: float
    dec: float
    config: str
    split: str
    side: int
    length: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Piece:
    """A file before it is written.

    Attributes:
        path: relative to the tree.
        rows: at least one.
        split: of the tree that it belongs to.
        number: of the file in the tree, from 0.
    """

    path: str
    rows: list[Row]
    split: str
    number: int


@dataclass(frozen=True)
class Planted:
    """A fault that is in the tree on purpose.

    Attributes:
        kind: its name in `skyset.testing.mmu.FAULTS`.
        path: the file, relative to the tree; the folder, where it is all of the tree.
        row: of the file, -1 where it is all of it.
        object_id: of the row as text, where there is one.
        what: a few words.
    """

    kind: str
    path: str
    row: int = -1
    object_id: str = ""
    what: str = ""


@dataclass
class Truth:
    """What a tree holds.

    Attributes:
        kind: the survey.
        folder: the tree.
        rows: object by its id as text: its values by dataset, as stored but for padding, which is not there. Light curves
            in bands are a `LightCurve` under "lightcurve". With planted faults, what a reader should get. None are kept
            with ``keep=False``.
        files: ids in the order of rows, by path relative to the tree; those of broken files are not among them.
        splits: by path.
        planted: faults.
    """

    kind: str
    folder: Path
    rows: dict[str, Row] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    planted: list[Planted] = field(default_factory=list)


def dice(seed: int, kind: str, cell: int, index: int) -> np.random.Generator:
    """The generator of one object."""
    return np.random.default_rng((seed, zlib.crc32(kind.encode()), cell, index))


def id_of(row: Row, key: str) -> str:
    """An id as text, as loaders give it."""
    value = row[key]
    return value.decode() if isinstance(value, bytes) else str(value)


def columns_of(rows: Sequence[Row], pads: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Rows of one file as datasets, row = axis 0.

    Args:
        rows: at least one; all have the same keys.
        pads: what fills the last axis up where rows are of unequal length: a value, or "edge" for the row's last;
            "vlen" leaves them unequal; "S16" is the width of text, which is else that of the file's longest.

    Returns:
        Arrays; of "vlen" ones of objects (rows,).
    """
    return {name: _column([row[name] for row in rows], pads.get(name, 0)) for name in rows[0]}


def _column(values: list[Any], pad: Any) -> np.ndarray:
    if isinstance(pad, str) and pad == "vlen":
        out = np.empty(len(values), object)
        out[:] = values
        return out
    if not isinstance(values[0], np.ndarray):
        return np.array(values, pad if isinstance(pad, str) else None)
    first = values[0]
    if first.ndim == 0:
        return np.array(values, first.dtype)
    longest = max(value.shape[-1] for value in values)
    column = np.empty((len(values), *first.shape[:-1], longest), first.dtype)
    for out, value in zip(column, values, strict=True):
        end = value.shape[-1]
        out[..., :end] = value
        out[..., end:] = value[..., -1:] if isinstance(pad, str) else pad
    return column
