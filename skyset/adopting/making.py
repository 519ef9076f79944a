"""Columns on their way from fields: their names, dtypes and shapes, and what they are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from skyset.adopting import checks
from skyset.adopting.fields import Names
from skyset.adopting.fold import Fold, Known, union
from skyset.partitions.tree.form import COLUMNS, MEMBER, STORED, TEXT, Source
from skyset.survey import ANY, END, MAX_VALUE_BYTES, Column, Trim

#: The columns that every dataset has.
OURS = ("object_id", "ra", "dec", "healpix")


@dataclass
class Making:
    """Columns on their way."""

    fold: Fold
    names: Names
    columns: dict[str, Column] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)  # the column of each field that is one
    trims: list[Trim] = field(default_factory=list)
    curves: list[str] = field(default_factory=list)
    spectra: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    findings: list[tuple[str, ...]] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)  # the last that was put to a name

    def put(self, path: str, column: Column, source: Source) -> None:
        self.columns[column.name], self.sources[column.name] = column, source
        if path:
            self.paths[path] = column.name

    def free(self, wanted: str) -> str:
        """A name for a column that is not taken, nor where another one's rows end."""
        plain = re.sub(r"[^\x21-\x7e]|/", "_", wanted) or "column"
        name, number = plain, self._numbers.get(plain, 1)
        while self._is_taken(name):
            number += 1
            name = f"{plain}_{number}"
        self._numbers[plain] = number
        return name

    def _is_taken(self, name: str) -> bool:
        alike = {name, f"{name}{END}", name.removesuffix(END)}
        return name in OURS or not alike.isdisjoint(self.columns)


def source_of(path: str, known: Known, how: str) -> Source:
    return Source((path,), MEMBER if known.member else how)


def how_of(known: Known) -> str:
    """Integers that are text in other files are handed out as their digits."""
    return TEXT if union(known.dtypes)[0] == "S" and any(name[0] != "S" for name in known.dtypes) else STORED


def column_of(making: Making, path: str, known: Known, shape: tuple[int, ...] | None = None) -> Column:
    """The column of a field; of one whose sizes differ along several axes all values one after the other."""
    if shape is None:
        differing = [axis for axis, (low, high) in enumerate(known.sizes) if low != high]
        shape = tuple(ANY if axis in differing else high for axis, (_, high) in enumerate(known.sizes))
        if making.fold.kind == COLUMNS and known.any_length and not known.as_field().is_text:
            shape = (ANY,)
        elif len(differing) > 1:
            shape = (ANY,)
            what = f"{path}: sizes differ along {len(differing)} axes: handed out flat, all values one after the other"
            making.findings.append((checks.SHAPE, what))
    name = path.replace("/", "_") if path.isascii() else path
    typical = typical_of(making, known) if ANY in shape else Column.typical_bytes
    unit = known.unit if known.unit.isascii() else ""
    return Column(making.free(name), union(known.dtypes), shape, unit, known.description, typical)


def typical_of(making: Making, known: Known, parts: int = 1) -> int:
    """About how many bytes a row has."""
    size = np.dtype(union(known.dtypes)).itemsize * known.values // max(1, known.count) // parts
    return min(max(size, 1), MAX_VALUE_BYTES)
