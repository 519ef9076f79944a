"""What surveys that were matched with each other have in common: which rows belong together, and one declaration of all.

The columns of a side are named ``<side>.<column>`` there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from skyset.block_cache import BlockCache
from skyset.files import short_digest
from skyset.loading.reader import PIECE_BYTES, Piece, is_remote, opened_far, row_bytes
from skyset.partitions.layout import slabs
from skyset.partitions.partition import Partition, bounds_of
from skyset.ranges import Lines
from skyset.survey import Column, Feature, Layers, Survey, Trim

_ABOUT = "great-circle distance of the two positions"


@dataclass(frozen=True, eq=False)
class Side:
    """One of the surveys that were matched.

    Args:
        name: what its columns are named by.
        survey: its declaration.
        files: whole files of partitions, in order.
        values: of a catalogue's file in place of these: columns (rows, *shape) of its rows that have a match.
        position: the columns of right ascension and declination, degrees; of a catalogue's file see ``places``.
        places: of a catalogue's file right ascension and declination of these rows, degrees.
        numbers: of a catalogue's file the numbers of these rows in it.
        source: the folder, URL or file.
    """

    name: str
    survey: Survey
    files: tuple[Piece, ...] = ()
    values: Mapping[str, np.ndarray] | None = None
    position: tuple[str, str] = ("ra", "dec")
    places: tuple[np.ndarray, np.ndarray] | None = None
    numbers: np.ndarray | None = None
    source: str = ""

    @cached_property
    def firsts(self) -> np.ndarray:
        """Number of the first row of each file, and of all rows: int64 (files + 1,)."""
        return bounds_of(np.array([piece.rows for piece in self.files], np.int64))

    @property
    def is_far(self) -> bool:
        return bool(self.files) and is_remote(self.files[0])

    @property
    def in_groups(self) -> bool:
        """Whether a row of a file costs as much as all rows of its group."""
        return bool(getattr(self.survey.opens, "in_groups", False))

    def opened(
        self, file: int, columns: Iterable[Column], lines: Lines | None = None, cache: BlockCache | None = None
    ) -> Partition:
        """One of the files, for these columns; where it lies afar, it is read by ``lines`` and kept in ``cache``.

        Raises:
            PartitionError: it is not what the manifest says.
        """
        piece, wanted = self.files[file], tuple(columns)
        if self.is_far and lines is not None:
            return opened_far(self.survey, piece, wanted, lines, cache)
        return (self.survey.opens or Partition)(piece.path, wanted, piece.rows, piece.bytes, piece.sha256)


@dataclass(frozen=True, eq=False)
class Matched:
    """What was found.

    Args:
        sides: the surveys, the first is the one that the others were matched with.
        rows: int64 (sides, matches), row numbers; -1 where a side has no match.
        separations: by column name, float64 (matches,), arcsec; NaN where there is no match.
        stamps: of the files that positions were read from, by path.
    """

    sides: tuple[Side, ...]
    rows: np.ndarray
    separations: Mapping[str, np.ndarray]
    stamps: Mapping[str, tuple] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.rows.shape[1]

    @cached_property
    def missing(self) -> np.ndarray | None:
        """bool (matches, sides); None where every side has a row everywhere."""
        missing = (self.rows < 0).T
        return missing if missing.any() else None

    @cached_property
    def survey(self) -> Survey:
        """All sides as one survey."""
        columns = [replace(c, name=f"{side.name}.{c.name}") for side in self.sides for c in side.survey.columns]
        columns += [Column(name, "float64", (), "arcsec", _ABOUT) for name in self.separations]
        features = [_prefixed(feature, side.name) for side in self.sides for feature in side.survey.features]
        features += [Feature(name, name) for name in self.separations]
        first = self.sides[0]
        return Survey(
            name=" x ".join(side.name for side in self.sides),
            title="; matched by position with ".join(side.survey.title for side in self.sides),
            homepage=first.survey.homepage,
            citation="\n".join(dict.fromkeys(side.survey.citation for side in self.sides if side.survey.citation)),
            license="; ".join(f"{side.name}: {side.survey.license}" for side in self.sides if side.survey.license),
            base_url="",
            columns=tuple(columns),
            features=tuple(features),
            key=f"{first.name}.{first.survey.key}",
            trims=tuple(_prefixed_trim(trim, side.name) for side in self.sides for trim in side.survey.trims),
            image_axes={f"{side.name}.{k}": axis for side in self.sides for k, axis in side.survey.image_axes.items()},
        )

    def pieces(self) -> list[Piece]:
        """All matches in order, about as many bytes at a time as of one survey."""
        name = f"{self._digest()}/{'+'.join(side.name for side in self.sides)}"
        size = row_bytes(self.survey.columns, []) or 1
        return [Piece(name, start, stop, len(self)) for start, stop in slabs(len(self), size, slab_bytes=PIECE_BYTES)]

    def _digest(self) -> str:
        """Of which rows these are; not of where the files lie, so that a state outlives a move to another disk."""
        files = ["/".join(piece.path.rsplit("/", 2)[1:]) for side in self.sides for piece in side.files]
        return short_digest("\n".join([*files, hashlib.sha256(np.ascontiguousarray(self.rows)).hexdigest()]))


def _prefixed_trim(trim: Trim, side: str) -> Trim:
    return replace(trim, by=f"{side}.{trim.by}", columns=tuple(f"{side}.{name}" for name in trim.columns))


def _prefixed(feature: Feature | Layers, side: str) -> Feature | Layers:
    """A side's feature as one of the whole."""
    if isinstance(feature, Feature):
        return replace(feature, name=f"{side}.{feature.name}", source=f"{side}.{feature.source}")
    fields = {
        key: f"{side}.{source}" if isinstance(source, str) else tuple(f"{side}.{each}" for each in source)
        for key, source in feature.fields.items()
    }
    return replace(feature, name=f"{side}.{feature.name}", fields=fields)
