"""The datasets of somebody's file as fields of its objects, what kind of file it is, and which fields are id and position.

Pure functions of what `skyset.partitions.tree.structure` finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from skyset.partitions.tree.form import COLUMNS, GROUPS, OBJECTS
from skyset.partitions.tree.structure import Stored
from skyset.tables.usual_names import NAMES, POSITIONS

#: Usual names of the objects' ids in trees of files, in any case, the best first.
IDS = ("object_id", "source_id", "candid", "targetid", "target_id", "specobjid", "sobject_id", *NAMES[1:])


@dataclass(frozen=True, slots=True)
class Field:
    """A dataset of an object, or a member of a compound one.

    Attributes:
        name: its path within its object, or within a file of columns.
        dtype: numpy's name of a value in this machine's byte order, ``S<n>`` of text.
        dims: its axes; of a file of columns those of a row.
        any_length: text, or rows of numbers, that HDF5 keeps apart, each as long as it is.
        member: it is a member of a compound dataset.
        packed: HDF5 has to read it: compressed, in chunks, or of any length.
        unit, description: what its attributes say.
    """

    name: str
    dtype: str
    dims: tuple[int, ...] = ()
    any_length: bool = False
    member: bool = False
    packed: bool = False
    unit: str = ""
    description: str = ""

    @property
    def is_text(self) -> bool:
        return self.dtype[0] == "S"

    @property
    def is_integer(self) -> bool:
        return self.dtype.startswith(("int", "uint"))

    @property
    def can_be_id(self) -> bool:
        return self.is_text or self.is_integer

    def to_json(self) -> list:
        return [
            self.name,
            self.dtype,
            list(self.dims),
            self.any_length,
            self.member,
            self.packed,
            self.unit,
            self.description,
        ]

    @classmethod
    def from_json(cls, values: Sequence) -> Field:
        name, dtype, dims, *more = values
        return cls(name, dtype, tuple(dims), *more)


class Names(NamedTuple):
    """The fields of id (``""``: there is none), right ascension and declination."""

    id: str
    ra: str
    dec: str


def fields_of(arrays: Mapping[str, Stored], values: Mapping[str, np.ndarray]) -> Iterator[Field]:
    """The fields of one object, or of a file of columns with all axes.

    Args:
        arrays: all of its datasets.
        values: of small ones; of text of any length they tell how long it is, and without them it is left out.
    """
    for name, stored in arrays.items():
        if stored.dtype.names is not None:
            yield from _members(name, stored)
        elif stored.dtype.kind == "V":  # text of any length
            if name in values and values[name].dtype.kind == "S":
                yield Field(name, name_of(values[name].dtype), stored.dims, any_length=True, packed=True)
        elif _is_plain(stored.dtype):
            yield Field(name, name_of(stored.dtype), stored.dims, packed=stored.offset < 0)


def _members(name: str, stored: Stored) -> Iterator[Field]:
    for member in stored.dtype.names or ():
        of = stored.dtype[member]
        base, more = (of.base, of.shape) if of.subdtype is not None else (of, ())
        if _is_plain(base) and "/" not in member and member.isprintable() and member not in ("", ".", ".."):
            yield Field(f"{name}/{member}", name_of(base), stored.dims + more, member=True, packed=stored.offset < 0)


def _is_plain(dtype: np.dtype) -> bool:
    """Whether a column can be of it: numbers of at most 64 bits, bool, text."""
    return dtype.kind == "S" or (dtype.kind in "biuf" and dtype.itemsize <= 8)


@lru_cache(4096)
def name_of(dtype: np.dtype) -> str:
    """``S12``, ``float32``: without byte order."""
    return f"S{max(1, dtype.itemsize)}" if dtype.kind == "S" else dtype.name


def kind_of(fields: Mapping[str, Field]) -> str:
    """How a file holds objects: one dataset a column, one object alone, or one group an object; ``""``: none has a position.

    Where right ascension is one number at the root, the file is an object; where it is one number in a group, groups are.
    """
    if (names := names_of(fields)) is None:
        return ""
    if fields[names.ra].dims:
        return COLUMNS
    return GROUPS if "/" in names.ra else OBJECTS


def names_of(fields: Mapping[str, Field]) -> Names | None:
    """The fields of id and position by their usual names, those nearest to the root; None without a position."""
    for pair in POSITIONS:
        for ra in _called(fields, pair[0]):
            group, dims = ra.rpartition("/")[0], fields[ra].dims
            for dec in _called(fields, pair[1]):
                beside = dec.rpartition("/")[0] == group and fields[dec].dims == dims and len(dims) <= 1
                if beside and _is_number(fields[ra]) and _is_number(fields[dec]):
                    return Names(_id(fields, dims, group), ra, dec)
    return None


def _is_number(field: Field) -> bool:
    return not field.is_text and not field.any_length and field.dtype != "bool"


def _id(fields: Mapping[str, Field], dims: tuple[int, ...], group: str) -> str:
    """The id beside a position: of integers or text, one for each row; ``""`` where there is none."""
    for name in IDS:
        for path in _called(fields, name):
            field = fields[path]
            if field.dims == dims and field.can_be_id and path.rpartition("/")[0] in ("", group):
                return path
    return ""


def _called(paths: Iterable[str], name: str) -> Sequence[str]:
    """Paths that end in a name in any case: the shortest first, and of those the one that is written just so."""
    found = [path for path in paths if path.rpartition("/")[2].lower() == name]
    return sorted(found, key=lambda path: (path.count("/"), path.rpartition("/")[2] != name, path))


def of_rows(fields: Iterable[Field], rows: int) -> tuple[list[Field], list[Field]]:
    """The fields of a file of columns, one row each, and those that have another number of rows, as they are."""
    columns, others = [], []
    for field in fields:
        if field.dims[:1] == (rows,):
            marks = field.any_length, field.member, field.packed
            columns.append(Field(field.name, field.dtype, field.dims[1:], *marks, field.unit, field.description))
        else:
            others.append(field)
    return columns, others
