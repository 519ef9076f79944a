"""What the files of one dataset have in common, and in what they differ: added up file by file, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from skyset.adopting.checks import like_hashes
from skyset.adopting.fields import Field, Names
from skyset.adopting.look import Look
from skyset.adopting.sky import Sky
from skyset.partitions.tree.form import COLUMNS

#: Names of datasets that are told of as left out, at most.
_MOST_LEFT_OUT = 1000


@dataclass
class Known:
    """One field in all files.

    Attributes:
        dtypes: objects (or files of columns) by the field's dtype.
        axes: by number of axes, the smallest and the largest size of each.
        values: how many there are in all, of a row of a file of columns or of an object.
        label: bytes of the longest of texts that stand in one with commas between.
        firsts: by dtype, the first file that has it; ``lacked`` is one that has none.
    """

    name: str
    dtypes: Counter[str] = field(default_factory=Counter)
    axes: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    values: int = 0
    any_length: bool = False
    member: bool = False
    packed: bool = False
    unit: str = ""
    description: str = ""
    label: int = 1
    firsts: dict[str, str] = field(default_factory=dict)
    lacked: str = ""

    @property
    def other(self) -> str:
        """A file whose dtype is not what most have."""
        return self.firsts.get(self.dtypes.most_common()[-1][0], "")

    @property
    def count(self) -> int:
        """Objects, or files of columns, that have it."""
        return sum(self.dtypes.values())

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Smallest and largest size of each axis, where all have as many axes."""
        return next(iter(self.axes.values())) if len(self.axes) == 1 else []

    def add(self, one: Field, path: str) -> None:
        self.dtypes[one.dtype] += 1
        self.firsts.setdefault(one.dtype, path)
        known = self.axes.get(len(one.dims))
        if known is None:
            self.axes[len(one.dims)] = [(size, size) for size in one.dims]
        elif any(not low <= size <= high for size, (low, high) in zip(one.dims, known, strict=True)):
            self.axes[len(one.dims)] = [(min(s, a), max(s, b)) for s, (a, b) in zip(one.dims, known, strict=True)]
        count = 1
        for size in one.dims:
            count *= size
        self.values += count
        self.any_length |= one.any_length
        self.member |= one.member
        self.packed |= one.packed
        self.unit = self.unit or one.unit
        self.description = self.description or one.description

    def as_field(self) -> Field:
        """A field of the largest sizes."""
        dims = tuple(high for _, high in self.sizes)
        dtype = max(self.dtypes, key=lambda dtype: self.dtypes[dtype])
        return Field(self.name, dtype, dims, self.any_length, self.member, self.packed, self.unit, self.description)


@dataclass
class Bands:
    """Which bands of an array have values in any row that was looked at; ``filled`` is empty where numbers differ."""

    rows: int = 0
    filled: list[bool] = field(default_factory=list)


@dataclass
class Fold:
    """The files of one dataset and kind.

    Attributes:
        files, rows: how many; ``objects`` those that fields are counted by: files of columns, else objects.
        known: the fields by name.
        names: files by their fields of id and position.
        sky: positions.
        own: rows whose own ``healpix`` agrees with their position, by unit; ``own_rows`` that have one.
        width: bytes of the longest id; ``integers`` tells whether all are.
        lowest, highest: of integer ids; ``starts`` has files whose ids count up by their first.
        hashed: files whose ids are like hashes of Python's; an example.
        pads, bands, flags, counts: as of a look.
        sampled: rows whose arrays were looked at.
        left_out: datasets that are no columns; ``without`` has by dataset the files in which it is none.
    """

    kind: str
    files: int = 0
    rows: int = 0
    objects: int = 0
    known: dict[str, Known] = field(default_factory=dict)
    names: Counter[Names] = field(default_factory=Counter)
    sky: Sky = field(default_factory=Sky)
    own: Counter[str] = field(default_factory=Counter)
    own_rows: int = 0
    width: int = 1
    integers: bool = True
    lowest: int = 0
    highest: int = 0
    starts: Counter[int] = field(default_factory=Counter)
    hashed: int = 0
    hashed_example: tuple[str, int] = ("", 0)
    pads: dict[str, Counter[str]] = field(default_factory=dict)
    bands: dict[str, Bands] = field(default_factory=dict)
    flags: dict[str, tuple[int, int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    sampled: int = 0
    is_whole: bool = True
    left_out: dict[str, str] = field(default_factory=dict)
    without: Counter[str] = field(default_factory=Counter)
    _first: str = ""
    _everywhere: set[str] = field(default_factory=set)  # fields that no object lacked so far

    def add(self, look: Look) -> None:
        """One more file, of this kind."""
        self.files += 1
        self.rows += look.rows
        if look.names is not None:
            self.names[look.names] += 1
        for fields in look.object_fields():
            self.objects += 1
            self._add_fields(fields, look.file.path)
        if look.kind != COLUMNS:
            self._add_texts(look)
        self.sky.add(look.ra, look.dec, look.said, look.judged, look.wrong)
        self._add_own(look)
        self._add_ids(look)
        self._add_findings(look)

    def _add_fields(self, fields: Sequence[Field], path: str) -> None:
        """Those of one more object, or file of columns."""
        for one in fields:
            known = self.known.get(one.name)
            if known is None:
                known = self.known[one.name] = Known(one.name, lacked=self._first)
                if self.objects == 1:
                    self._everywhere.add(one.name)
            known.add(one, path)
        for name in self._everywhere.difference(one.name for one in fields):
            self.known[name].lacked = path
            self._everywhere.discard(name)
        self._first = self._first or path

    def _add_texts(self, look: Look) -> None:
        """Labels and descriptions of objects' datasets."""
        for name, (said, description) in look.told.items():
            if name in self.known:
                self.known[name].unit = self.known[name].unit or said
                self.known[name].description = self.known[name].description or description
        for unit in look.units:
            for name, value in unit.values.items():
                if value.dtype.kind == "S" and value.size == 1 and name in self.known:
                    longest = max(map(len, value.reshape(-1)[0].split(b",")))
                    self.known[name].label = max(self.known[name].label, longest)

    def _add_own(self, look: Look) -> None:
        if look.own:
            self.own_rows += look.rows
            for unit, count in look.own.items():
                self.own[unit] += count

    def _add_ids(self, look: Look) -> None:
        ids = look.ids
        self.width = max(self.width, ids.width)
        self.integers &= ids.integers
        if not ids.integers:
            return
        first = self.lowest == self.highest == 0 and self.files == 1
        self.lowest = ids.lowest if first else min(self.lowest, ids.lowest)
        self.highest = ids.highest if first else max(self.highest, ids.highest)
        if ids.count_up and len(self.starts) < _MOST_LEFT_OUT:
            self.starts[ids.lowest] += 1
        if like_hashes(ids.lowest, ids.highest, look.rows):
            self.hashed += 1
            self.hashed_example = look.file.path, ids.lowest

    def _add_findings(self, look: Look) -> None:
        for by, counts in look.pads.items():
            self.pads[by] = self.pads.get(by, Counter()) + counts
        for name, filled in look.bands.items():
            self._add_bands(name, filled, look.sampled)
        for name, (true, rows) in look.flags.items():
            before = self.flags.get(name, (0, 0))
            self.flags[name] = before[0] + true, before[1] + rows
        self.counts += look.counts
        self.sampled += look.sampled
        self.is_whole &= look.is_whole
        for name, reason in look.left_out.items():
            self.without[name] += 1
            if len(self.left_out) < _MOST_LEFT_OUT:
                self.left_out.setdefault(name, reason)

    @property
    def mostly_sound(self) -> set[str]:
        """Datasets that are columns in more files than they are none in."""
        return {name for name, count in self.without.items() if name in self.known and self.known[name].count > count}

    def _add_bands(self, name: str, filled: list[bool], rows: int) -> None:
        known = self.bands.setdefault(name, Bands(0, list(filled)))
        known.rows += rows
        if len(known.filled) != len(filled):
            known.filled = []
        known.filled = [a or b for a, b in zip(known.filled, filled, strict=False)]


def union(dtypes: Iterable[str]) -> str:
    """The dtype that holds the values of all of some, ``""`` where there is none: text beside floats.

    Integers beside text become text of their digits.
    """
    names = set(dtypes)
    texts = {name for name in names if name[0] == "S"}
    numbers = names - texts
    if not texts:
        return np.result_type(*map(np.dtype, numbers)).name
    width = max(int(name[1:]) for name in texts)
    if any(np.dtype(name).kind not in "iu" for name in numbers):
        return ""
    return f"S{max(width, 20) if numbers else width}"
