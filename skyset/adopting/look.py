"""What is noted of a file that was looked at: all that the index is made of, so that it need not be opened again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from skyset.adopting.fields import Field, Names, fields_of
from skyset.adopting.scan import TreeFile
from skyset.partitions.tree.form import COLUMNS
from skyset.partitions.tree.structure import Unit

#: Why a file is none of a dataset's, though it is sound.
NOTHING = "no dataset of right ascension and declination (ra, dec, RAJ2000, ...)"
#: Of each kind of finding, as many are noted of a file; all are counted.
EXAMPLES = 3


class Finding(NamedTuple):
    """One thing that is wrong: its kind, row in its file (-1: none in particular), the row's id, and what in words."""

    kind: str
    row: int
    object_id: str
    what: str


@dataclass
class Ids:
    """A file's ids: smallest and largest where they are integers, bytes of the longest, whether they count up by one."""

    lowest: int = 0
    highest: int = 0
    width: int = 1
    count_up: bool = False
    integers: bool = False


@dataclass
class Look:
    """A file of a tree, as it was found.

    Attributes:
        file: which, by its path from its dataset's folder.
        kind: ``columns``, ``objects`` or ``groups``; ``""`` of one that cannot be adopted.
        error: why it cannot.
        rows: how many.
        names: its fields of id and position.
        fields: of a file of columns, those of a row; else none, see ``units``.
        units: of the other kinds, the objects, without values that no index keeps.
        told: unit and description of datasets of objects whose attributes say some.
        left_out: datasets that are no columns, with the reason.
        keys: digest of the ids of a file of columns, in their order.
        digests: of each id, uint64; empty where ids are the names of files.
        first: position of the first row that has one, as it is stored, like ``ra`` and ``dec``, smallest and largest.
        said: unit of position by the attributes, ``""`` where they say none.
        judged: rows whose cell was compared with the folder's.
        wrong: of those, rows in another cell, by unit of position; ``strays`` has examples.
        own: rows whose own column ``healpix`` agrees with their position, by unit.
        bands: of an array with bands, for each whether any row that was looked at has a value in it.
        pads: of a family, by the field that it runs along: rows by what padding they have.
        flags: of a flag of failures, rows where it is set, and rows.
        counts: rows with findings, by kind; ``found`` has examples.
        sampled: rows whose arrays were looked at.
        is_whole: all values were looked at.
    """

    file: TreeFile
    kind: str = ""
    error: str = ""
    rows: int = 0
    names: Names | None = None
    fields: list[Field] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    keys: str = ""
    digests: np.ndarray = field(default_factory=lambda: np.zeros(0, "<u8"))
    first: tuple[float, float] = (math.nan, math.nan)
    ra: tuple[float, float] = (math.inf, -math.inf)
    dec: tuple[float, float] = (math.inf, -math.inf)
    said: str = ""
    judged: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    strays: dict[str, list[Finding]] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    ids: Ids = field(default_factory=Ids)
    bands: dict[str, list[bool]] = field(default_factory=dict)
    pads: dict[str, Counter[str]] = field(default_factory=dict)
    flags: dict[str, tuple[int, int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    found: list[Finding] = field(default_factory=list)
    sampled: int = 0
    is_whole: bool = False

    @property
    def is_broken(self) -> bool:
        """Whether it cannot be read; one of something else is sound."""
        return bool(self.error) and self.error != NOTHING

    def note(self, kind: str, rows: np.ndarray, ids: list[str], what: str | list[str], numbers: np.ndarray) -> None:
        """Note rows with a finding.

        Args:
            kind: of it.
            rows: bool, which of those at hand.
            ids: theirs, empty where there are none.
            what: in words, for all or for each.
            numbers: of those at hand, in the file.
        """
        places = np.flatnonzero(rows)
        if not len(places):
            return
        self.counts[kind] += len(places)
        for place in places[: max(0, EXAMPLES - sum(each.kind == kind for each in self.found))].tolist():
            text = what if isinstance(what, str) else what[place]
            self.found.append(Finding(kind, int(numbers[place]), ids[place] if ids else "", text))

    def object_fields(self) -> Iterable[list[Field]]:
        """The fields of each object; of a file of columns, of a row."""
        if self.kind == COLUMNS:
            yield self.fields
            return
        for unit in self.units:
            yield list(fields_of(unit.arrays, unit.values))
